//! The engine of the control connections: greeting, log-in, lock-out, directory.
//!
//! `Server::handle_input` takes what happened, `Server::handle_timeout` the passing of time, and
//! `Server::poll_output` gives what is to be done until it gives `Output::Wait`. The same inputs,
//! times and seed give the same outputs.
//!
//! Invariants: every request of a live session is answered exactly once; nothing but greeting,
//! registration and log-in is answered before the log-in; one device has at most one session; work at
//! the store and the OPAQUE threads is bounded, and beyond that the answer is `Busy`.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::id::{AccountName, DeviceName};
use common::key::{ChannelBinding, DeviceKey};
use common::limits::{
    BLOCK_MEMORY, CONNECTIONS_MAX, Fill, LOGIN_DEADLINE, LOGINS_IN_PROGRESS_MAX, REQUESTS_OPEN_MAX,
    SESSION_IDLE_MAX, STORE_BATCH_MAX,
};
use common::time::{Epoch, UnixTime};
use common::wire::rendezvous::{
    AdmissionCode, Answer, ByeReason, Cursor, DeviceAnswer, DevicePush, DeviceRequest,
    DirectoryAnswer, DirectoryRequest, DirectoryVersion, Entry, Hello, HelloAnswer, LoginRequest,
    Push, Refusal, Request, RequestFrame, RequestId, ServerFrame, Status, VERSION,
};
use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};

use crate::source::SourcePrefix;
use crate::store::{
    AccountId, Admission, AdmissionsAnswer, AdmissionsRequest, DevicesAnswer, DevicesRequest,
    LockoutRow, LockoutsRequest, Restored, StoreAnswer, StoreError, StoreRequest,
};
use connections::strangers::Strangers;
pub use io::{
    CloseReason, Command, CommandId, ConnectionId, Deadline, Frame, Input, Job, ListedAccount,
    Outcome, Output, Reply, Ticket,
};
use login::Attempt;
use logins::admission::Admissions;
use logins::lockout::{BucketKey, LockoutOptions, Lockouts, seconds};
use logins::registration::{Registration, Registrations};
use presence::Presence;
use presence::directory::{Directory, admissible_candidates};

/// Connections that are there.
mod connections;
/// What goes in and what comes out.
mod io;
/// Registration and log-in, step by step.
mod login;
/// What log-ins are limited by.
pub mod logins;
/// What an operator asks of the running server.
mod operator;
/// Who is told when somebody comes, changes or leaves.
pub mod presence;

/// The owner of an account is told of failed log-ins at most this often.
const NOTICE_INTERVAL: Duration = Duration::from_secs(1);
/// What has faded or expired is dropped this often.
const SWEEP_INTERVAL: Duration = Duration::from_secs(600);
/// The same, while there is more to drop than one batch of the store.
const SWEEP_AGAIN: Duration = Duration::from_secs(1);
/// What a client that meets a busy server waits.
const BUSY_RETRY_S: u32 = 2;

/// What an operator may choose.
#[derive(Clone, Debug)]
pub struct ServerOptions {
    /// Who may register.
    pub registration: Registration,
    /// How many log-ins may fail.
    pub lockout: LockoutOptions,
    /// Keys the counters of unknown names.
    pub bucket_key: BucketKey,
    /// What the greeting says: program and version.
    pub agent: String,
}

impl ServerOptions {
    /// The defaults with this key.
    pub fn new(bucket_key: BucketKey) -> Self {
        Self {
            registration: Registration::default(),
            lockout: LockoutOptions::default(),
            bucket_key,
            agent: concat!("rendezvous/", env!("CARGO_PKG_VERSION")).to_owned(),
        }
    }
}

/// The engine.
#[derive(Debug)]
pub struct Server {
    options: ServerOptions,
    epoch: Epoch,
    rng: StdRng,
    sessions: BTreeMap<ConnectionId, Session>,
    /// When each session has been silent for too long, at the earliest; looked at again when due.
    timers: BTreeSet<(Instant, ConnectionId)>,
    strangers: Strangers,
    devices: BTreeMap<DeviceKey, ConnectionId>,
    members: BTreeSet<(AccountName, ConnectionId)>,
    attempts: BTreeMap<ConnectionId, Attempt>,
    work: BTreeMap<Ticket, Work>,
    last_ticket: u64,
    lockouts: Lockouts,
    admissions: Admissions,
    registrations: Registrations,
    presence: Presence,
    /// Accounts whose owner is to be told something, and when each was last told.
    notices_due: BTreeMap<AccountName, Instant>,
    notices_sent: BTreeMap<AccountName, Instant>,
    sweep_at: Instant,
    is_stopping: bool,
    outputs: VecDeque<Output>,
}

/// A connection that is there.
#[derive(Debug)]
struct Session {
    source: SocketAddr,
    prefix: SourcePrefix,
    accepted: Instant,
    heard: Instant,
    timer: Instant,
    phase: Phase,
    open: BTreeSet<RequestId>,
}

#[derive(Debug)]
enum Phase {
    /// The TLS handshake is not over.
    Shaking,
    /// The greeting has not come.
    Ungreeted(ChannelBinding),
    /// Not logged in.
    Stranger(ChannelBinding),
    /// Logged in.
    Member(Arc<Member>),
}

/// Who is logged in at a session.
#[derive(Debug)]
struct Member {
    id: AccountId,
    account: AccountName,
    device_key: DeviceKey,
    device_name: DeviceName,
    since: UnixTime,
}

impl Member {
    fn cursor(&self) -> Cursor {
        Cursor {
            account: self.account.clone(),
            device_key: self.device_key,
        }
    }
}

/// What a ticket was for.
#[derive(Debug)]
enum Work {
    /// A step of the attempt of this connection.
    Attempt(ConnectionId, Step),
    /// The owner of a device was asked for.
    FindOwner(ConnectionId, RequestId),
    /// A device is being forgotten, then its session ends.
    LogOut(ConnectionId, RequestId),
    /// A one-time code is being kept for a session.
    Admit(ConnectionId, RequestId, AdmissionCode),
    /// A step of a command.
    Command(CommandId, operator::Pending),
    /// Nobody waits for it.
    Upkeep,
}

/// Which of the steps that an attempt may wait for at once is done.
#[derive(Clone, Copy, Debug)]
enum Step {
    Stored,
    Computed,
}

impl Server {
    /// An engine that starts at `now`, which `epoch` knows in wall-clock time.
    pub fn new(
        seed: [u8; 32],
        now: Instant,
        epoch: Epoch,
        options: ServerOptions,
        restored: Restored,
    ) -> Self {
        let lockouts = Lockouts::new(
            options.lockout,
            options.bucket_key.clone(),
            epoch,
            restored.lockouts,
            now,
        );
        // Room for 256 changes in each millisecond that the last run lasted.
        let first_version = epoch.unix(now).as_millis().saturating_mul(256);
        Self {
            options,
            epoch,
            rng: StdRng::from_seed(seed),
            sessions: BTreeMap::new(),
            timers: BTreeSet::new(),
            strangers: Strangers::default(),
            devices: BTreeMap::new(),
            members: BTreeSet::new(),
            attempts: BTreeMap::new(),
            work: BTreeMap::new(),
            last_ticket: 0,
            lockouts,
            admissions: Admissions::new(epoch, restored.admissions, now),
            registrations: Registrations::default(),
            presence: Presence::new(first_version),
            notices_due: BTreeMap::new(),
            notices_sent: BTreeMap::new(),
            sweep_at: now + SWEEP_INTERVAL,
            is_stopping: false,
            outputs: VecDeque::new(),
        }
    }

    /// Takes what happened.
    pub fn handle_input(&mut self, input: Input, now: Instant) {
        match input {
            Input::Accepted { connection, source } => self.on_accepted(connection, source, now),
            Input::Connected {
                connection,
                source,
                channel,
            } => self.on_connected(connection, source, channel, now),
            Input::Greeted { connection, hello } => self.on_greeted(connection, &hello, now),
            Input::Requested { connection, frame } => self.on_requested(connection, frame, now),
            Input::Malformed { connection } => {
                self.say_bye(connection, ByeReason::Malformed, now);
            }
            Input::Disconnected { connection } => {
                self.end_session(connection, now);
            }
            Input::Stored { ticket, answer } => self.on_stored(ticket, answer, now),
            Input::Verified { ticket, outcome } => self.on_verified(ticket, outcome, now),
            Input::Commanded { id, command } => self.on_command(id, command, now),
            Input::Shutdown => self.on_shutdown(now),
        }
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.end_silent_sessions(now);
        self.send_notices(now);
        self.presence.handle_timeout(now, &mut self.outputs);
        if self.sweep_at <= now {
            self.sweep(now);
        }
    }

    /// The next thing to do. [`Output::Wait`] is the last.
    pub fn poll_output(&mut self, _now: Instant) -> Output {
        match self.outputs.pop_front() {
            Some(output) => output,
            None => Output::Wait(self.deadline()),
        }
    }

    /// Who is online.
    pub const fn directory(&self) -> &Directory {
        self.presence.directory()
    }

    /// What is counted against accounts.
    pub const fn lockouts(&self) -> &Lockouts {
        &self.lockouts
    }

    /// How full everything is that has a bound.
    pub fn fills(&self) -> Vec<Fill> {
        let open = self.sessions.values().map(|session| session.open.len());
        let mut fills = vec![
            Fill::new("connections", self.sessions.len(), CONNECTIONS_MAX),
            Fill::fullest("open requests of a session", open, REQUESTS_OPEN_MAX),
        ];
        fills.extend(self.strangers.fills());
        fills.extend(self.presence.fills());
        fills.extend(self.lockouts.fills());
        fills
    }

    /// Connections that are there.
    pub fn connection_count(&self) -> usize {
        self.sessions.len()
    }

    /// Sessions that are logged in.
    pub fn member_count(&self) -> usize {
        self.members.len()
    }

    /// Orders at the store and the OPAQUE threads that have not come back.
    pub fn work_count(&self) -> usize {
        self.work.len()
    }

    // ---- connections -------------------------------------------------------------------------

    fn on_accepted(&mut self, connection: ConnectionId, source: SocketAddr, now: Instant) {
        let prefix = SourcePrefix::of(source.ip());
        let is_full = self.sessions.len() >= CONNECTIONS_MAX
            || self.strangers.is_full(prefix)
            || self.is_stopping;
        if is_full {
            self.close(connection, CloseReason::TooMany);
            return;
        }
        let timer = now + LOGIN_DEADLINE;
        let session = Session {
            source,
            prefix,
            accepted: now,
            heard: now,
            timer,
            phase: Phase::Shaking,
            open: BTreeSet::new(),
        };
        let lot = self.rng.next_u64();
        self.strangers.add(connection, prefix, lot);
        self.timers.insert((timer, connection));
        self.sessions.insert(connection, session);
        if let Some(leaver) = self.strangers.one_too_many() {
            self.say_bye(leaver, ByeReason::Crowded, now);
        }
    }

    fn on_connected(
        &mut self,
        connection: ConnectionId,
        source: SocketAddr,
        channel: ChannelBinding,
        now: Instant,
    ) {
        if !self.sessions.contains_key(&connection) {
            self.on_accepted(connection, source, now);
        }
        if let Some(session) = self.sessions.get_mut(&connection) {
            session.phase = Phase::Ungreeted(channel);
        }
    }

    fn on_greeted(&mut self, connection: ConnectionId, hello: &Hello, now: Instant) {
        let Some(session) = self.sessions.get_mut(&connection) else {
            return;
        };
        let Phase::Ungreeted(channel) = session.phase else {
            self.say_bye(connection, ByeReason::Malformed, now);
            return;
        };
        let agent = self.options.agent.clone();
        let Some(version) = hello.choose() else {
            let versions = vec![VERSION];
            self.send_greeting(connection, HelloAnswer::Upgrade { versions, agent });
            self.end_session(connection, now);
            self.close(connection, CloseReason::NeedsUpgrade);
            return;
        };
        session.phase = Phase::Stranger(channel);
        self.send_greeting(connection, HelloAnswer::Welcome { version, agent });
    }

    /// Forgets a session and all that hangs on it. `None` if it was gone already.
    fn end_session(&mut self, connection: ConnectionId, now: Instant) -> Option<Session> {
        let session = self.sessions.remove(&connection)?;
        self.timers.remove(&(session.timer, connection));
        self.abandon_attempt(connection, now);
        match &session.phase {
            Phase::Member(member) => self.take_offline(connection, member, now),
            Phase::Shaking | Phase::Ungreeted(_) | Phase::Stranger(_) => {
                self.strangers.remove(connection);
            }
        }
        Some(session)
    }

    fn take_offline(&mut self, connection: ConnectionId, member: &Member, now: Instant) {
        self.members.remove(&(member.account.clone(), connection));
        if self.devices.get(&member.device_key) == Some(&connection) {
            self.devices.remove(&member.device_key);
        }
        let device = member.cursor();
        self.presence.take_offline(connection, &device, now);
    }

    fn say_bye(&mut self, connection: ConnectionId, reason: ByeReason, now: Instant) {
        let Some(session) = self.end_session(connection, now) else {
            return;
        };
        // Before its greeting a peer expects nothing else.
        if matches!(session.phase, Phase::Stranger(_) | Phase::Member(_)) {
            self.push(connection, reason);
        }
        self.close(connection, CloseReason::Said(reason));
    }

    fn end_silent_sessions(&mut self, now: Instant) {
        while let Some((timer, connection)) = self.timers.first().copied()
            && timer <= now
        {
            self.timers.remove(&(timer, connection));
            let session = self.sessions.get_mut(&connection);
            let session = session.expect("a timer goes with its session");
            let deadline = match session.phase {
                Phase::Member(_) => session.heard + SESSION_IDLE_MAX,
                Phase::Shaking | Phase::Ungreeted(_) | Phase::Stranger(_) => {
                    session.accepted + LOGIN_DEADLINE
                }
            };
            if deadline > now {
                session.timer = deadline;
                self.timers.insert((deadline, connection));
            } else {
                self.say_bye(connection, ByeReason::TimedOut, now);
            }
        }
    }

    /// Looks at a session again when it will have been silent for too long: from its log-in on that
    /// is sooner than before.
    fn hasten_timer(&mut self, connection: ConnectionId, now: Instant) {
        if let Some(session) = self.sessions.get_mut(&connection) {
            self.timers.remove(&(session.timer, connection));
            session.timer = now + SESSION_IDLE_MAX;
            self.timers.insert((session.timer, connection));
        }
    }

    fn on_shutdown(&mut self, now: Instant) {
        self.is_stopping = true;
        let connections: Vec<_> = self.sessions.keys().copied().collect();
        for connection in connections {
            self.say_bye(connection, ByeReason::ShuttingDown, now);
        }
    }

    // ---- requests ----------------------------------------------------------------------------

    fn on_requested(&mut self, connection: ConnectionId, frame: RequestFrame, now: Instant) {
        let Some(session) = self.sessions.get_mut(&connection) else {
            return;
        };
        session.heard = now;
        let RequestFrame { id, request } = frame;
        if session.open.contains(&id) || session.open.len() >= REQUESTS_OPEN_MAX {
            // An answer with this id would answer two requests: nothing to go on with.
            let is_ambiguous = session.open.contains(&id);
            if is_ambiguous {
                self.say_bye(connection, ByeReason::Malformed, now);
            } else {
                self.send_answer(connection, id, Refusal::LimitExceeded.into());
            }
            return;
        }
        let phase = match &session.phase {
            Phase::Shaking | Phase::Ungreeted(_) => {
                self.say_bye(connection, ByeReason::Malformed, now);
                return;
            }
            Phase::Stranger(channel) => Err(*channel),
            Phase::Member(member) => Ok(Arc::clone(member)),
        };
        session.open.insert(id);
        match (request, phase) {
            (Request::Login(request), Err(channel)) => {
                self.on_login_request(connection, id, request, channel, now);
            }
            (Request::Directory(request), Ok(member)) => {
                self.on_directory_request(connection, id, request, &member, now);
            }
            (Request::Device(request), Ok(member)) => {
                self.on_device_request(connection, id, request, &member, now);
            }
            (Request::Login(_), Ok(_)) => self.refuse(connection, id, Refusal::OutOfOrder),
            (Request::Directory(_) | Request::Device(_), Err(_)) => {
                self.refuse(connection, id, Refusal::NotLoggedIn);
            }
        }
    }

    fn on_login_request(
        &mut self,
        connection: ConnectionId,
        id: RequestId,
        request: LoginRequest,
        channel: ChannelBinding,
        now: Instant,
    ) {
        match request {
            LoginRequest::RegisterStart { account, message } => {
                self.on_register_start(connection, id, account, message, now);
            }
            LoginRequest::RegisterFinish { upload, stretch } => {
                self.on_register_finish(connection, id, &upload, stretch, now);
            }
            LoginRequest::LoginStart(start) => {
                self.on_login_start(connection, id, start, channel, now);
            }
            LoginRequest::LoginFinish { ke3 } => self.on_login_finish(connection, id, ke3),
            LoginRequest::TokenLogin(login) => {
                self.on_token_login(connection, id, login, channel, now);
            }
        }
    }

    fn on_directory_request(
        &mut self,
        connection: ConnectionId,
        id: RequestId,
        request: DirectoryRequest,
        member: &Member,
        now: Instant,
    ) {
        match request {
            DirectoryRequest::Announce { status, candidates } => {
                self.on_announce(connection, id, member, status, &candidates, now);
            }
            DirectoryRequest::List { after } => {
                let directory = self.presence.directory();
                let (entries, next) = directory.page(after.as_ref());
                let version = directory.version();
                let page = DirectoryAnswer::Page {
                    version,
                    entries,
                    next,
                };
                self.answer(connection, id, page);
            }
            DirectoryRequest::Watch { since } => self.on_watch(connection, id, since, now),
            DirectoryRequest::Unwatch => {
                self.presence.unwatch(connection);
                self.answer(connection, id, DirectoryAnswer::Done);
            }
            DirectoryRequest::Find { account } => {
                let entries = self.presence.directory().find(&account);
                self.answer(connection, id, DirectoryAnswer::Found { entries });
            }
            DirectoryRequest::WhoIs { device_key } => self.on_who_is(connection, id, device_key),
        }
    }

    fn on_device_request(
        &mut self,
        connection: ConnectionId,
        id: RequestId,
        request: DeviceRequest,
        member: &Member,
        now: Instant,
    ) {
        match request {
            DeviceRequest::Admit => self.on_admit(connection, id, &member.account, now),
            DeviceRequest::LogOut => {
                let request = DevicesRequest::Forget {
                    id: member.id,
                    device_key: member.device_key,
                    at: self.epoch.unix(now),
                };
                self.order_or_busy(connection, id, Work::LogOut(connection, id), request);
            }
            DeviceRequest::KeepAlive => self.answer(connection, id, DeviceAnswer::Done),
        }
    }

    fn on_announce(
        &mut self,
        connection: ConnectionId,
        id: RequestId,
        member: &Member,
        status: Status,
        announced: &[SocketAddr],
        now: Instant,
    ) {
        let source = self.sessions[&connection].source;
        let Some(candidates) = admissible_candidates(announced, source) else {
            self.refuse(connection, id, Refusal::LimitExceeded);
            return;
        };
        let entry = Entry {
            account: member.account.clone(),
            device_name: member.device_name.clone(),
            device_key: member.device_key,
            status,
            since: member.since,
            candidates,
        };
        self.presence.announce(entry, now);
        self.answer(connection, id, DirectoryAnswer::Done);
    }

    fn on_watch(
        &mut self,
        connection: ConnectionId,
        id: RequestId,
        since: DirectoryVersion,
        now: Instant,
    ) {
        if self.presence.watch(connection, since, now) {
            self.answer(connection, id, DirectoryAnswer::Done);
        } else {
            self.refuse(connection, id, Refusal::ListAgain);
        }
    }

    fn on_who_is(&mut self, connection: ConnectionId, id: RequestId, device_key: DeviceKey) {
        // Whoever is logged in is known without the store.
        let online = self.devices.get(&device_key);
        if let Some(Phase::Member(owner)) = online.map(|owner| &self.sessions[owner].phase) {
            let account = Some(owner.account.clone());
            self.answer(connection, id, DirectoryAnswer::Owner { account });
            return;
        }
        let request = DevicesRequest::FindOwner { device_key };
        self.order_or_busy(connection, id, Work::FindOwner(connection, id), request);
    }

    fn on_admit(
        &mut self,
        connection: ConnectionId,
        id: RequestId,
        account: &AccountName,
        now: Instant,
    ) {
        if self.is_busy() {
            self.refuse_busy(connection, id);
            return;
        }
        let Some((code, admission)) = self.open_admission(account, now) else {
            self.refuse(connection, id, Refusal::LimitExceeded);
            return;
        };
        let request = AdmissionsRequest::Save {
            admission,
            at: self.epoch.unix(now),
        };
        self.order(Work::Admit(connection, id, code), request);
    }

    /// Opens a one-time code; `None` if the account has as many as it may have.
    fn open_admission(
        &mut self,
        account: &AccountName,
        now: Instant,
    ) -> Option<(AdmissionCode, Admission)> {
        let expired = self.admissions.expire(account, now);
        self.drop_admissions(expired);
        let code = AdmissionCode::from_random(self.rng.next_u64());
        let admission = self.admissions.open(account, code, now)?;
        Some((code, admission))
    }

    // ---- telling owners ----------------------------------------------------------------------

    /// Somebody failed to log in to an account: its live sessions are told, at some moment within a second
    /// or two. Telling them takes a write, and whoever failed could measure one that came at once.
    fn on_failed_login(&mut self, account: &AccountName, now: Instant) {
        if self.sessions_of(account).next().is_none() || self.notices_due.contains_key(account) {
            return;
        }
        let last = self.notices_sent.get(account);
        let soonest = last.map_or(now, |last| (*last + NOTICE_INTERVAL).max(now));
        let delay = NOTICE_INTERVAL.mul_f64(self.rng.random());
        self.notices_due.insert(account.clone(), soonest + delay);
    }

    fn send_notices(&mut self, now: Instant) {
        self.notices_sent
            .retain(|_, last| now.saturating_duration_since(*last) < NOTICE_INTERVAL);
        let due = self.notices_due.iter().filter(|(_, due)| **due <= now);
        let due: Vec<AccountName> = due.map(|(account, _)| account.clone()).collect();
        for account in due {
            self.notices_due.remove(&account);
            let listeners: Vec<_> = self.sessions_of(&account).collect();
            if listeners.is_empty() {
                continue;
            }
            let Some((failed, row)) = self.lockouts.tell(&account, now) else {
                continue;
            };
            for connection in listeners {
                self.push(connection, DevicePush::FailedLogins(failed.clone()));
            }
            self.save_lockout(row, now);
            self.notices_sent.insert(account, now);
        }
    }

    fn save_lockout(&mut self, row: LockoutRow, now: Instant) {
        let request = LockoutsRequest::Save {
            row,
            is_blocked_now: false,
            at: self.epoch.unix(now),
        };
        self.order(Work::Upkeep, request);
    }

    // ---- slow work ---------------------------------------------------------------------------

    fn on_stored(&mut self, ticket: Ticket, answer: Result<StoreAnswer, StoreError>, now: Instant) {
        let Some(work) = self.work.remove(&ticket) else {
            return;
        };
        match work {
            Work::Attempt(connection, _) => self.on_attempt_stored(connection, answer, now),
            Work::FindOwner(connection, id) => {
                let answer = match answer {
                    Ok(StoreAnswer::Devices(DevicesAnswer::Owner(account))) => {
                        Answer::Directory(DirectoryAnswer::Owner { account })
                    }
                    Ok(_) | Err(_) => Answer::Refused(Refusal::StoreFailed),
                };
                self.answer(connection, id, answer);
            }
            Work::LogOut(connection, id) => {
                let Ok(StoreAnswer::Devices(DevicesAnswer::Done)) = answer else {
                    self.refuse(connection, id, Refusal::StoreFailed);
                    return;
                };
                self.answer(connection, id, DeviceAnswer::Done);
                if self.end_session(connection, now).is_some() {
                    self.close(connection, CloseReason::LoggedOut);
                }
            }
            Work::Admit(connection, id, code) => {
                let answer = match answer {
                    Ok(StoreAnswer::Admissions(AdmissionsAnswer::Done)) => {
                        Answer::Device(DeviceAnswer::Admission {
                            code,
                            expires_in_s: Admission::LIFETIME_S,
                        })
                    }
                    Ok(_) | Err(_) => Answer::Refused(Refusal::StoreFailed),
                };
                self.answer(connection, id, answer);
            }
            Work::Command(id, pending) => self.on_command_stored(id, pending, answer, now),
            Work::Upkeep => {}
        }
    }

    fn on_verified(&mut self, ticket: Ticket, outcome: Outcome, now: Instant) {
        match self.work.remove(&ticket) {
            Some(Work::Attempt(connection, Step::Computed)) => {
                self.on_attempt_computed(connection, outcome, now);
            }
            Some(
                Work::Attempt(_, Step::Stored)
                | Work::FindOwner(..)
                | Work::LogOut(..)
                | Work::Admit(..)
                | Work::Command(..)
                | Work::Upkeep,
            )
            | None => {}
        }
    }

    fn is_busy(&self) -> bool {
        self.work.len() >= LOGINS_IN_PROGRESS_MAX
    }

    fn order_or_busy(
        &mut self,
        connection: ConnectionId,
        id: RequestId,
        work: Work,
        request: impl Into<StoreRequest>,
    ) {
        if self.is_busy() {
            self.refuse_busy(connection, id);
        } else {
            self.order(work, request);
        }
    }

    fn order(&mut self, work: Work, request: impl Into<StoreRequest>) {
        let request = request.into();
        let ticket = self.ticket(work);
        self.outputs.push_back(Output::Store { ticket, request });
    }

    fn compute(&mut self, connection: ConnectionId, job: Job) {
        let ticket = self.ticket(Work::Attempt(connection, Step::Computed));
        self.outputs.push_back(Output::Verify { ticket, job });
    }

    fn ticket(&mut self, work: Work) -> Ticket {
        self.last_ticket += 1;
        let ticket = Ticket(self.last_ticket);
        self.work.insert(ticket, work);
        ticket
    }

    fn random<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        self.rng.fill_bytes(&mut bytes);
        bytes
    }

    // ---- sending -----------------------------------------------------------------------------

    fn answer(&mut self, connection: ConnectionId, id: RequestId, answer: impl Into<Answer>) {
        if let Some(session) = self.sessions.get_mut(&connection)
            && session.open.remove(&id)
        {
            self.send_answer(connection, id, answer.into());
        }
    }

    fn refuse(&mut self, connection: ConnectionId, id: RequestId, refusal: Refusal) {
        self.answer(connection, id, refusal);
    }

    fn refuse_busy(&mut self, connection: ConnectionId, id: RequestId) {
        let retry_after_s = BUSY_RETRY_S;
        self.refuse(connection, id, Refusal::Busy { retry_after_s });
    }

    fn refuse_blocked(&mut self, connection: ConnectionId, id: RequestId, wait: Duration) {
        let retry_after_s = seconds(wait);
        self.refuse(connection, id, Refusal::Blocked { retry_after_s });
    }

    fn send_answer(&mut self, connection: ConnectionId, id: RequestId, answer: Answer) {
        let frame = Frame::Server(Arc::new(ServerFrame::Answer { id, answer }));
        self.outputs.push_back(Output::Send { connection, frame });
    }

    fn send_greeting(&mut self, connection: ConnectionId, greeting: HelloAnswer) {
        let frame = Frame::Greeting(greeting);
        self.outputs.push_back(Output::Send { connection, frame });
    }

    fn push(&mut self, connection: ConnectionId, push: impl Into<Push>) {
        let frame = Frame::Server(Arc::new(ServerFrame::Push(push.into())));
        self.outputs.push_back(Output::Send { connection, frame });
    }

    fn close(&mut self, connection: ConnectionId, why: CloseReason) {
        self.outputs.push_back(Output::Close { connection, why });
    }

    fn sessions_of(&self, account: &AccountName) -> impl Iterator<Item = ConnectionId> {
        let first = (account.clone(), ConnectionId(0));
        self.members
            .range(first..)
            .take_while(move |(owner, _)| owner == account)
            .map(|(_, connection)| *connection)
    }

    // ---- time --------------------------------------------------------------------------------

    fn sweep(&mut self, now: Instant) {
        self.sweep_at = now + SWEEP_INTERVAL;
        self.registrations.sweep(now);
        // A day after a flood of names there may be many; the store has other things to do too.
        let rows = self.lockouts.sweep(STORE_BATCH_MAX, now);
        if rows.len() == STORE_BATCH_MAX {
            self.sweep_at = now + SWEEP_AGAIN;
        }
        for row in rows {
            self.save_lockout(row, now);
        }
        let before = self.epoch.unix(now).saturating_sub(BLOCK_MEMORY);
        self.order(Work::Upkeep, LockoutsRequest::ForgetUnknown { before });
        let expired = self.admissions.sweep(now);
        self.drop_admissions(expired);
    }

    fn drop_admissions(&mut self, gone: impl IntoIterator<Item = Admission>) {
        for admission in gone {
            let request = AdmissionsRequest::Drop { admission };
            self.order(Work::Upkeep, request);
        }
    }

    fn deadline(&self) -> Option<Deadline> {
        let timer = self.timers.first().map(|(at, _)| (*at, "a silent session"));
        let presence = self.presence.poll_timeout().map(|at| (at, "presence"));
        let notice = self.notices_due.values().min();
        let notice = notice.map(|at| (*at, "telling an owner"));
        let sweep = Some((self.sweep_at, "sweeping"));
        let all = [timer, presence, notice, sweep].into_iter().flatten();
        all.min().map(|(at, why)| Deadline { at, why })
    }
}
