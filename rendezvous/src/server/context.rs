//! The context in which the server's parts act: the time, randomness, and every effect that they can have.
//!
//! The context owns the outputs that wait to be polled, the tickets of slow work that is under way, and
//! the requests of peers that are not answered yet. So all that parts do comes out in the order in which
//! they did it, work is bounded in one place, and no request is answered twice.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::limits::{LOGINS_IN_PROGRESS_MAX, Occupancy, REQUESTS_OPEN_MAX};
use common::time::{Epoch, UnixTime};
use common::wire::rendezvous::{
    Answer, HelloAnswer, Push, Refusal, RelayDatagrams, RequestId, ServerFrame,
};
use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};

use super::io::{
    CloseReason, CommandId, ConnectionId, Frame, Job, Output, RelayCommand, Reply, Ticket,
};
use crate::store::StoreRequest;

/// How long a client waits that was refused by a busy server.
const BUSY_RETRY_S: u32 = 2;

/// What a part acts with.
#[derive(Debug)]
pub(super) struct Context {
    /// The moment of the input or timeout that is being handled.
    pub(super) now: Instant,
    epoch: Epoch,
    rng: StdRng,
    work: BTreeMap<Ticket, Purpose>,
    last_ticket: u64,
    open: BTreeMap<ConnectionId, BTreeSet<RequestId>>,
    outputs: VecDeque<Output>,
}

/// A part that asks the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Logins,
    Presence,
    Devices,
    Operator,
    Identities,
}

/// What a ticket is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// A request to the store; its answer goes to this part.
    Store(Part),
    /// A request to the store whose answer nobody waits for.
    Unawaited,
    /// A job of a log-in or registration.
    Compute,
}

/// The request that an answer goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ReplyTo {
    pub(super) connection: ConnectionId,
    pub(super) id: RequestId,
}

/// A peer broke the protocol: nothing that it sends can be relied on, and its session ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(super) struct ProtocolViolation {
    pub(super) connection: ConnectionId,
    /// What it did, for the log.
    pub(super) what: &'static str,
}

impl ProtocolViolation {
    pub(super) const fn new(connection: ConnectionId, what: &'static str) -> Self {
        Self { connection, what }
    }
}

impl Context {
    /// Nothing is under way at `now`, which `epoch` knows in wall-clock time.
    pub(super) fn new(seed: [u8; 32], now: Instant, epoch: Epoch) -> Self {
        Self {
            now,
            epoch,
            rng: StdRng::from_seed(seed),
            work: BTreeMap::new(),
            last_ticket: 0,
            open: BTreeMap::new(),
            outputs: VecDeque::new(),
        }
    }

    /// The wall-clock time of `now`.
    pub(super) fn unix(&self) -> UnixTime {
        self.epoch.unix(self.now)
    }

    // ---- randomness --------------------------------------------------------------------------

    pub(super) fn random<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        self.rng.fill_bytes(&mut bytes);
        bytes
    }

    pub(super) fn random_u64(&mut self) -> u64 {
        self.rng.next_u64()
    }

    /// Some part of a span, each as likely as the others.
    pub(super) fn random_part_of(&mut self, span: Duration) -> Duration {
        span.mul_f64(self.rng.random())
    }

    // ---- slow work ---------------------------------------------------------------------------

    /// Tells whether so much is under way that no peer may ask for more.
    pub(super) fn is_busy(&self) -> bool {
        self.work.len() >= LOGINS_IN_PROGRESS_MAX
    }

    /// Gives the store a request whose answer goes to `part`.
    pub(super) fn store(&mut self, part: Part, request: StoreRequest) -> Ticket {
        self.order(Purpose::Store(part), request)
    }

    /// Gives the store a request whose answer nobody waits for.
    pub(super) fn store_unawaited(&mut self, request: StoreRequest) {
        self.order(Purpose::Unawaited, request);
    }

    /// Runs a job on another thread.
    pub(super) fn compute(&mut self, job: Job) -> Ticket {
        let ticket = self.ticket(Purpose::Compute);
        self.outputs.push_back(Output::Compute { ticket, job });
        ticket
    }

    /// Ends the work of a ticket: it is done, or what comes of it is of no use to anybody. `None` if it
    /// had ended already.
    pub(super) fn end_work(&mut self, ticket: Ticket) -> Option<Purpose> {
        self.work.remove(&ticket)
    }

    /// Pieces of work that are under way.
    pub(super) fn work_count(&self) -> usize {
        self.work.len()
    }

    fn order(&mut self, purpose: Purpose, request: StoreRequest) -> Ticket {
        let ticket = self.ticket(purpose);
        self.outputs.push_back(Output::Store { ticket, request });
        ticket
    }

    fn ticket(&mut self, purpose: Purpose) -> Ticket {
        self.last_ticket += 1;
        let ticket = Ticket(self.last_ticket);
        self.work.insert(ticket, purpose);
        ticket
    }

    // ---- requests of peers -------------------------------------------------------------------

    /// Tells whether a request waits for its answer.
    pub(super) fn is_open(&self, to: ReplyTo) -> bool {
        let open = self.open.get(&to.connection);
        open.is_some_and(|open| open.contains(&to.id))
    }

    /// Requests of a connection that wait for their answers.
    pub(super) fn open_count(&self, connection: ConnectionId) -> usize {
        self.open.get(&connection).map_or(0, BTreeSet::len)
    }

    /// From now on a request waits for its answer.
    pub(super) fn open(&mut self, to: ReplyTo) {
        self.open.entry(to.connection).or_default().insert(to.id);
    }

    /// A connection is gone: nothing that it asked is answered any more.
    pub(super) fn forget_requests(&mut self, connection: ConnectionId) {
        self.open.remove(&connection);
    }

    /// How many requests the connection has open that has most of them.
    pub(super) fn occupancy(&self) -> Occupancy {
        let open = self.open.values().map(BTreeSet::len);
        Occupancy::fullest("open requests of a session", open, REQUESTS_OPEN_MAX)
    }

    // ---- sending -----------------------------------------------------------------------------

    /// Answers a request, if it still waits for that.
    pub(super) fn answer(&mut self, to: ReplyTo, answer: impl Into<Answer>) {
        if let Some(open) = self.open.get_mut(&to.connection)
            && open.remove(&to.id)
        {
            self.send_answer(to, answer.into());
        }
    }

    pub(super) fn refuse(&mut self, to: ReplyTo, refusal: Refusal) {
        self.answer(to, refusal);
    }

    pub(super) fn refuse_busy(&mut self, to: ReplyTo) {
        let retry_after_s = BUSY_RETRY_S;
        self.refuse(to, Refusal::Busy { retry_after_s });
    }

    /// Refuses a request that was not opened, because its connection has too many open ones.
    pub(super) fn refuse_unopened(&mut self, to: ReplyTo) {
        self.send_answer(to, Refusal::LimitExceeded.into());
    }

    pub(super) fn greet(&mut self, connection: ConnectionId, greeting: HelloAnswer) {
        let frame = Frame::Greeting(greeting);
        self.outputs.push_back(Output::Send { connection, frame });
    }

    /// Tells a session something unasked.
    pub(super) fn push(&mut self, connection: ConnectionId, push: impl Into<Push>) {
        self.send(connection, Arc::new(ServerFrame::Push(push.into())));
    }

    /// Sends a frame that others may get as well.
    pub(super) fn send(&mut self, connection: ConnectionId, frame: Arc<ServerFrame>) {
        let frame = Frame::Server(frame);
        self.outputs.push_back(Output::Send { connection, frame });
    }

    pub(super) fn close(&mut self, connection: ConnectionId, why: CloseReason) {
        self.outputs.push_back(Output::Close { connection, why });
    }

    /// Has the relay do something.
    pub(super) fn relay(&mut self, command: RelayCommand) {
        self.outputs.push_back(Output::Relay(command));
    }

    /// Gives datagrams of a control connection to the relay.
    pub(super) fn pass_to_relay(&mut self, connection: ConnectionId, datagrams: RelayDatagrams) {
        self.outputs.push_back(Output::ToRelay {
            connection,
            datagrams,
        });
    }

    /// Answers the operator.
    pub(super) fn reply(&mut self, id: CommandId, reply: Reply) {
        self.outputs.push_back(Output::Reply { id, reply });
    }

    pub(super) fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    fn send_answer(&mut self, to: ReplyTo, answer: Answer) {
        let ReplyTo { connection, id } = to;
        self.send(connection, Arc::new(ServerFrame::Answer { id, answer }));
    }
}
