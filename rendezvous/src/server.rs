//! The engine of the server's side of control connections: greeting, log-in, lock-out, directory.
//!
//! `Server` is a router. It gives each input to the part that owns its subject, by the outer variant
//! only, and the events of one part to the others:
//!
//! | part | owns |
//! | --- | --- |
//! | `connections` | the connections, the phase of each, and which ones are closed to make room |
//! | `logins` | registrations and log-ins under way, lock-outs, one-time codes |
//! | `devices` | the sessions that are logged in, and which owners are to be told of failures |
//! | `presence` | the directory, and who watches it |
//! | `introduce` | allocations and channels of the relay, and who was introduced to whom |
//! | `identities` | the requests about logs of accounts that wait for the store |
//! | `operator` | the commands of the operator that are being executed |
//!
//! Parts report facts as events, which the router drains, and act through one `context`: time,
//! randomness, answers, the store, other threads. Where a peer breaks the protocol a part returns a
//! `ProtocolViolation`, and only the router ends the session.
//!
//! Invariants: every request of a live session is answered exactly once; nothing but greeting,
//! registration and log-in is answered before the log-in; one device has at most one session; work at
//! the store and the OPAQUE threads is bounded, and beyond that the answer is `Busy`.

use std::time::Instant;

use common::limits::Occupancy;
use common::time::Epoch;
use common::wire::rendezvous::{ByeReason, Refusal, Request, RequestFrame};

use crate::store::{Restored, StoreAnswer, StoreError};
use connections::{Caller, Connections};
use context::{Context, Part, ProtocolViolation, Purpose, ReplyTo};
use devices::Devices;
use identities::Identities;
use introduce::Introductions;
pub use io::{
    CloseReason, Command, CommandId, ConnectionId, Deadline, Frame, Input, Job, ListedAccount,
    Outcome, Output, RelayCommand, Reply, Ticket, Unblocked,
};
use logins::Logins;
use logins::lockout::Lockouts;
use operator::Operator;
pub use options::ServerOptions;
use presence::Presence;
pub use presence::directory::Directory;

// The connections and their phases.
mod connections;
// The time, randomness, and every effect that parts can have.
mod context;
// The sessions that are logged in.
mod devices;
// The events of each part, given to the others.
mod events;
// The logs of accounts.
mod identities;
// Both sides of a link to be are told whom to expect.
mod introduce;
// Inputs and outputs.
mod io;
/// Registration, log-in, lock-out.
pub mod logins;
// The account and device of a session.
mod member;
// The operator's commands to the running server.
mod operator;
// The options that the operator chooses before the start.
mod options;
// The directory, and who watches it.
mod presence;

/// The engine: a state machine that does no I/O. The same inputs, times and seed give the same outputs.
///
/// After [`handle_input`](Self::handle_input) or [`handle_timeout`](Self::handle_timeout), everything
/// that [`poll_output`](Self::poll_output) gives is to be done, until it gives [`Output::Wait`].
#[derive(Debug)]
pub struct Server {
    connections: Connections,
    logins: Logins,
    devices: Devices,
    presence: Presence,
    introductions: Introductions,
    identities: Identities,
    operator: Operator,
    context: Context,
}

impl Server {
    /// Starts an engine at `now`. `epoch` relates it to the wall clock; `seed` is 32 random bytes.
    pub fn new(
        seed: [u8; 32],
        now: Instant,
        epoch: Epoch,
        options: ServerOptions,
        restored: Restored,
    ) -> Self {
        let Restored {
            lockouts,
            admissions,
            named_credentials: _,
        } = restored;
        let ServerOptions {
            registration,
            lockout,
            bucket_key,
            relay_rate,
            agent,
        } = options;
        let lockouts = Lockouts::new(lockout, bucket_key, epoch, lockouts, now);
        // Room for 256 changes in each millisecond that the last run lasted.
        let first_version = epoch.unix(now).as_millis().saturating_mul(256);
        let mut context = Context::new(seed, now, epoch);
        let keys = [(); 2].map(|()| context.random());
        Self {
            connections: Connections::new(agent),
            logins: Logins::new(registration, lockouts, admissions, epoch, now),
            devices: Devices::default(),
            presence: Presence::new(first_version),
            introductions: Introductions::new(relay_rate, keys, now),
            identities: Identities::new(context.random(), now),
            operator: Operator::default(),
            context,
        }
    }

    /// Handles an event outside the engine. What it leads to can then be polled.
    pub fn handle_input(&mut self, input: Input, now: Instant) {
        self.context.now = now;
        let handled = self.route(input);
        self.drain_events();
        if let Err(ProtocolViolation { connection, what }) = handled {
            log::debug!(
                "a peer broke the protocol: connection={} what={what}",
                connection.0
            );
            self.close(connection, CloseReason::Said(ByeReason::Malformed));
            self.drain_events();
        }
    }

    /// Does what is due at `now`; needless, but harmless, before the deadline of the last
    /// [`Output::Wait`].
    pub fn handle_timeout(&mut self, now: Instant) {
        self.context.now = now;
        self.connections.handle_timeout(now);
        self.drain_events();
        self.devices.handle_timeout(now);
        self.drain_events();
        self.presence.handle_timeout(&mut self.context);
        self.introductions.handle_timeout(now);
        self.logins.handle_timeout(&mut self.context);
    }

    /// The next thing to do.
    ///
    /// The contract: after an input, or after `handle_timeout`, the caller takes outputs and does what
    /// each says, in their order, until it gets [`Output::Wait`]. That one is the last, and the only
    /// way to learn the deadline, so nobody sleeps while there is work. A caller may handle further
    /// inputs in between; it is not done before the next `Wait`. At the deadline it calls
    /// `handle_timeout` and drains again.
    ///
    /// ```
    /// use std::time::{Duration, Instant};
    ///
    /// use common::time::{Epoch, UnixTime};
    /// use rendezvous::server::logins::lockout::BucketKey;
    /// use rendezvous::server::{
    ///     Command, CommandId, Deadline, Input, Output, Reply, Server, ServerOptions,
    /// };
    /// use rendezvous::store::memory::MemoryStore;
    /// use rendezvous::store::{Restored, Store};
    ///
    /// /// Does all there is to do; returns the replies to the operator, and when there is more.
    /// fn drain(
    ///     server: &mut Server,
    ///     store: &mut MemoryStore,
    ///     now: Instant,
    /// ) -> (Vec<Reply>, Option<Deadline>) {
    ///     let mut replies = Vec::new();
    ///     loop {
    ///         match server.poll_output(now) {
    ///             Output::Store { ticket, request } => {
    ///                 let answer = store.execute(&[request]).remove(0);
    ///                 server.handle_input(Input::Stored { ticket, answer }, now);
    ///             }
    ///             Output::Reply { reply, .. } => replies.push(reply),
    ///             Output::Wait(deadline) => return (replies, deadline),
    ///             Output::Send { .. }
    ///             | Output::Close { .. }
    ///             | Output::Compute { .. }
    ///             | Output::Relay(_)
    ///             | Output::ToRelay { .. } => unreachable!("nobody is connected"),
    ///         }
    ///     }
    /// }
    ///
    /// let now = Instant::now();
    /// let epoch = Epoch::new(now, UnixTime::from_millis(1_700_000_000_000));
    /// let options = ServerOptions::new(BucketKey([7; 32]));
    /// let mut server = Server::new([1; 32], now, epoch, options, Restored::default());
    /// let mut store = MemoryStore::new();
    ///
    /// let id = CommandId(1);
    /// let command = Command::ListAccounts { after: None };
    /// server.handle_input(Input::Commanded { id, command }, now);
    /// let (replies, deadline) = drain(&mut server, &mut store, now);
    /// assert!(matches!(&replies[..], [Reply::Accounts { accounts, .. }] if accounts.is_empty()));
    ///
    /// // Nothing happens until the deadline; then what is due is done, and there is a later one.
    /// let due = deadline.expect("the server sweeps now and then").at;
    /// assert!(due > now);
    /// server.handle_timeout(due);
    /// let (replies, deadline) = drain(&mut server, &mut store, due);
    /// assert!(replies.is_empty());
    /// assert!(deadline.is_some_and(|next| next.at > due));
    /// ```
    pub fn poll_output(&mut self, _now: Instant) -> Output {
        match self.context.poll_output() {
            Some(output) => output,
            None => Output::Wait(self.deadline()),
        }
    }

    /// The directory of who is online.
    pub const fn directory(&self) -> &Directory {
        self.presence.directory()
    }

    /// What is counted against accounts.
    pub const fn lockouts(&self) -> &Lockouts {
        self.logins.lockouts()
    }

    /// The occupancy of each bounded resource.
    pub fn occupancies(&self) -> Vec<Occupancy> {
        let mut occupancies = self.connections.occupancies().to_vec();
        occupancies.push(self.context.occupancy());
        occupancies.extend(self.presence.occupancies());
        occupancies.extend(self.introductions.occupancies());
        occupancies.extend(self.logins.occupancies());
        occupancies
    }

    /// Number of open connections.
    pub fn connection_count(&self) -> usize {
        self.connections.count()
    }

    /// Number of sessions that are logged in.
    pub fn member_count(&self) -> usize {
        self.devices.count()
    }

    /// Number of requests to the store and jobs of the OPAQUE threads that are not finished.
    pub fn work_count(&self) -> usize {
        self.context.work_count()
    }

    // ---- inputs ------------------------------------------------------------------------------

    fn route(&mut self, input: Input) -> Result<(), ProtocolViolation> {
        let context = &mut self.context;
        match input {
            Input::Accepted { connection, source } => {
                self.connections.on_accepted(connection, source, context);
            }
            Input::Connected {
                connection,
                source,
                channel_binding,
            } => {
                let connections = &mut self.connections;
                connections.on_connected(connection, source, channel_binding, context);
            }
            Input::Greeted { connection, hello } => {
                return self.connections.on_greeted(connection, &hello, context);
            }
            Input::Requested { connection, frame } => return self.on_request(connection, frame),
            Input::Malformed { connection } => {
                let what = "bytes that are no frame";
                return Err(ProtocolViolation::new(connection, what));
            }
            Input::Disconnected { connection } => drop(self.forget(connection)),
            Input::Stored { ticket, answer } => self.on_stored(ticket, answer),
            Input::Computed { ticket, outcome } => return self.on_computed(ticket, outcome),
            Input::ChannelClosed { channel } => {
                self.introductions.on_channel_closed(channel, context);
            }
            Input::FromRelay {
                connection,
                datagrams,
            } => {
                if self.devices.is_member(connection) {
                    context.push(connection, datagrams);
                }
            }
            Input::Commanded { id, command } => self.operator.handle_command(id, command, context),
            Input::ShutDown => self.connections.on_shut_down(),
        }
        Ok(())
    }

    fn on_request(
        &mut self,
        connection: ConnectionId,
        frame: RequestFrame,
    ) -> Result<(), ProtocolViolation> {
        let RequestFrame { id, request } = frame;
        let to = ReplyTo { connection, id };
        let context = &mut self.context;
        let is_answered = !matches!(request, Request::Relay(_));
        let caller = if is_answered {
            self.connections.on_request(to, context)?
        } else {
            self.connections.caller(connection, context.now)?
        };
        let Some(caller) = caller else {
            return Ok(());
        };
        match (request, caller) {
            (Request::Login(request), Caller::Stranger(stranger)) => {
                return self.logins.on_request(to, request, stranger, context);
            }
            (Request::Directory(request), Caller::Member) => {
                self.presence
                    .on_request(to, request, &self.devices, context);
            }
            (Request::Device(request), Caller::Member) => {
                self.devices.on_request(to, request, context);
            }
            (Request::Introduction(request), Caller::Member) => {
                let online = (&self.devices, self.presence.directory());
                self.introductions.on_request(to, request, online, context);
            }
            (Request::Identity(request), Caller::Member) => {
                let member = self.devices.member(connection);
                self.identities.on_request(to, request, member, context);
            }
            (Request::Relay(datagrams), Caller::Member) if datagrams.is_fair() => {
                if self.introductions.has_relay() {
                    context.pass_to_relay(connection, datagrams);
                }
            }
            (Request::Relay(_), Caller::Member | Caller::Stranger(_)) => {
                let what = "datagrams beyond their bounds, or before the log-in";
                return Err(ProtocolViolation::new(connection, what));
            }
            (Request::Login(_), Caller::Member) => context.refuse(to, Refusal::OutOfOrder),
            (
                Request::Directory(_)
                | Request::Device(_)
                | Request::Introduction(_)
                | Request::Identity(_),
                Caller::Stranger(_),
            ) => context.refuse(to, Refusal::NotLoggedIn),
        }
        Ok(())
    }

    fn on_stored(&mut self, ticket: Ticket, answer: Result<StoreAnswer, StoreError>) {
        let context = &mut self.context;
        let Some(Purpose::Store(part)) = context.end_work(ticket) else {
            return;
        };
        match part {
            Part::Logins => self.logins.on_stored(ticket, answer, context),
            Part::Devices => self.devices.on_stored(ticket, answer, context),
            Part::Presence => self.presence.on_stored(ticket, answer, context),
            Part::Identities => {
                let devices = &self.devices;
                self.identities.on_stored(ticket, answer, devices, context);
            }
            Part::Operator => self.operator.on_stored(ticket, answer, context),
        }
    }

    fn on_computed(&mut self, ticket: Ticket, outcome: Outcome) -> Result<(), ProtocolViolation> {
        let context = &mut self.context;
        match context.end_work(ticket) {
            Some(Purpose::Compute) => self.logins.on_computed(ticket, outcome, context),
            Some(Purpose::Store(_) | Purpose::Unawaited) | None => Ok(()),
        }
    }

    // ---- the end of a connection -------------------------------------------------------------

    /// Ends a session and closes its connection, after telling a greeted peer why if `why` is to be said.
    /// Does nothing if it is gone already.
    fn close(&mut self, connection: ConnectionId, why: CloseReason) {
        let Some(is_greeted) = self.forget(connection) else {
            return;
        };
        if is_greeted && let CloseReason::Said(reason) = why {
            self.context.push(connection, reason);
        }
        self.context.close(connection, why);
    }

    /// Forgets a connection in every part. Returns whether it had been greeted; `None` if it was gone
    /// already.
    fn forget(&mut self, connection: ConnectionId) -> Option<bool> {
        let is_greeted = self.connections.on_disconnected(connection)?;
        self.context.forget_requests(connection);
        self.logins.on_disconnected(connection, &mut self.context);
        while let Some(event) = self.logins.poll_event() {
            self.on_logins_event(event);
        }
        if let Some(member) = self.devices.on_disconnected(connection) {
            let now = self.context.now;
            self.presence
                .on_logged_out(connection, &member.cursor(), now);
            self.introductions
                .on_logged_out(&member.device_key, &mut self.context);
        }
        Some(is_greeted)
    }

    fn deadline(&self) -> Option<Deadline> {
        let all = [
            self.connections.poll_timeout(),
            self.presence.poll_timeout(),
            self.introductions.poll_timeout(),
            self.devices.poll_timeout(),
            Some(self.logins.poll_timeout()),
        ];
        all.into_iter().flatten().min()
    }
}
