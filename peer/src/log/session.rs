//! What two devices say to each other about all conversations that they share, on one link.
//!
//! A [`Session`] compares what both have, says what is on this device's disk, gives what the other one lacks, and asks
//! where copies part. It owns no entries, no replicas, no clock and no thread; the caller does:
//!
//! 1. On a new link [`Session::open`]; whatever comes goes to [`Session::handle_frame`], and an error closes the link.
//! 2. After each call it drains [`Session::poll_task`] and [`Session::poll_event`]. Tasks are carried out in their
//!    order; what each is answered by stands beside it.
//! 3. Whenever the link has room for more, it takes the next frame from [`Session::poll_frame`], and drains tasks again
//!    if there is none: a page has to be read first. A frame is made when it is asked for, so that what somebody has
//!    just written does not wait behind all that the other side lacks.
//! 4. If a replica has changed it tells all sessions: [`Session::handle_change`] at once, and
//!    [`Session::handle_committed`] once that is on disk, before [`Session::handle_settled`] on the link that it came
//!    over.
//! 5. At [`Session::poll_timeout`] it calls [`Session::handle_timeout`]; at the link's end [`Session::close`].
//!
//! Invariants, whatever the other side says:
//!
//! - Nothing is said, given or asked of a conversation that [`Shared`] does not have, and asking for one is answered as
//!   if it did not exist.
//! - Nothing is said to be here that [`Replica::extent`] does not say.
//! - Numbers, pages in flight, questions and whatever waits for store and verifier are bounded.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Instant;

use common::key::DeviceKey;
use common::log::{ChainId, ConversationId, Digest, Sequence};
use common::wire::peer::{AccountHead, ChainNumber, DatabaseInstance, Greet, LogFrame};

use super::giving::Flight;
use super::receiving::{Receiving, Slot};
use super::replica::Replica;

// What all links may have in flight.
mod budget;
// What differs, found by digests.
mod comparing;
// What is known of one conversation.
mod conversation;
// What the other side says.
mod hearing;
// What others gave first is given later.
mod holding;
// Up to where people have read.
mod marks;
// The numbers of conversations and chains.
mod numbers;
// What is said to the other side.
mod saying;
// What the caller is to do, and to know.
mod task;
// What store, verifier and disk have done.
mod telling;
// Why a link is closed.
mod violation;

pub use budget::Budget;
pub use task::{Event, Task};
pub use violation::Violation;

use comparing::Comparing;
use conversation::{Conversation, Listing};
use holding::Holding;
use marks::Marks;
use numbers::{Ours, Theirs};

/// The conversations that this device shares with the one at the other end, at this moment.
pub trait Shared {
    /// The replica of a conversation; `None` if it is not shared.
    fn replica(&self, conversation: &ConversationId) -> Option<&Replica>;

    /// [`Replica::digest`] of all of them, empty ones, too.
    fn digests(&self) -> BTreeMap<ConversationId, Digest>;
}

/// What a session needs of its caller for the time of a call.
#[expect(missing_docs, reason = "the fields' names and types say it all")]
#[derive(Debug)]
pub struct Context<'a, S> {
    /// What is shared with the other side.
    pub shared: &'a S,
    /// What all links have in flight.
    pub budget: &'a mut Budget,
    pub now: Instant,
}

/// One end of a link. The description of this module says who calls what when.
#[derive(Debug)]
pub struct Session {
    peer: DeviceKey,
    comparing: Comparing,
    has_greeted: bool,
    /// Something is given before the other side has said what it has.
    presumes: bool,
    ours: Ours,
    theirs: Theirs,
    conversations: BTreeMap<ConversationId, Conversation>,
    /// Conversations of which all is to be said.
    stating: BTreeSet<ConversationId>,
    /// Chains of which the other side does not know what is on disk now.
    untold: BTreeMap<ConversationId, BTreeSet<ChainId>>,
    /// A list that the other side has begun.
    listing: Option<Listing>,

    // ---- giving ----
    /// Another link to the same device gives in place of this one.
    is_quiet: bool,
    /// Conversations of which there may be something to give.
    due: BTreeSet<ConversationId>,
    /// The conversation that was served last.
    turn: Option<ConversationId>,
    flight: Flight,
    /// What of the flight the budget has been told.
    budgeted: usize,
    holding: Holding,
    reading_proofs: usize,

    // ---- receiving ----
    receiving: Receiving,
    taking: BTreeMap<Slot, Taking>,
    /// Pages whose entries came on another link and are on their way to the disk.
    known: BTreeMap<Slot, Taking>,
    /// What each page that is not answered counts, from the oldest on.
    unanswered: VecDeque<usize>,
    unanswered_len: usize,
    /// Seals and proofs that the verifier has.
    loose: usize,

    // ---- looking for forks ----
    /// Questions that the other side has not answered.
    asked: BTreeMap<ChainNumber, (ConversationId, ChainId)>,
    /// Questions of the other side that the store has not answered.
    questions: Vec<Question>,
    /// Answers to the others.
    answers: VecDeque<LogFrame>,

    marks: Marks,
    sessions: BTreeSet<common::id::SessionId>,
    frames: VecDeque<LogFrame>,
    tasks: VecDeque<Task>,
    events: VecDeque<Event>,
}

/// A page of the other side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Taking {
    conversation: ConversationId,
    chain: ChainId,
    last: Sequence,
}

/// A question of the other side about a fork.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Question {
    number: ChainNumber,
    conversation: ConversationId,
    chain: ChainId,
    place: Sequence,
}

impl Session {
    /// A link to the device `peer`, which has proved its key, begins. `account` is what this device has of its own
    /// account's log, `instance` where its logs are stored.
    pub fn open(
        peer: DeviceKey,
        account: Option<AccountHead>,
        instance: DatabaseInstance,
        shared: &impl Shared,
    ) -> Self {
        let comparing = Comparing::new(shared.digests());
        let greet = LogFrame::Greet(Greet {
            account,
            instance,
            digest: comparing.digest(),
        });
        Self {
            peer,
            comparing,
            has_greeted: false,
            presumes: false,
            ours: Ours::default(),
            theirs: Theirs::default(),
            conversations: BTreeMap::new(),
            stating: BTreeSet::new(),
            untold: BTreeMap::new(),
            listing: None,
            is_quiet: false,
            due: BTreeSet::new(),
            turn: None,
            flight: Flight::default(),
            budgeted: 0,
            holding: Holding::default(),
            reading_proofs: 0,
            receiving: Receiving::default(),
            taking: BTreeMap::new(),
            known: BTreeMap::new(),
            unanswered: VecDeque::new(),
            unanswered_len: 0,
            loose: 0,
            asked: BTreeMap::new(),
            questions: Vec::new(),
            answers: VecDeque::new(),
            marks: Marks::default(),
            sessions: BTreeSet::new(),
            frames: VecDeque::from([greet]),
            tasks: VecDeque::new(),
            events: VecDeque::new(),
        }
    }

    /// The link ends, for whatever reason. What it had in flight makes room for others.
    pub fn close(self, budget: &mut Budget) {
        budget.replace(self.budgeted, 0);
    }

    /// Whether this link gives nothing, since there is a better one to the same device. What was given, and not
    /// answered, is given again over whichever gives then.
    pub const fn set_quiet(&mut self, is_quiet: bool) {
        self.is_quiet = is_quiet;
    }

    /// The device at the other end.
    pub const fn peer(&self) -> &DeviceKey {
        &self.peer
    }

    /// The next thing for the caller to do.
    pub fn poll_task(&mut self) -> Option<Task> {
        self.tasks.pop_front()
    }

    /// The next thing for the caller to know.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// When [`Session::handle_timeout`] is to be called, if ever.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let held = self.holding.poll_timeout();
        held.into_iter().chain(self.marks.poll_timeout()).min()
    }

    /// Tells whether something is to be given, so that it may be the budget that it waits for.
    pub fn is_blocked(&self) -> bool {
        !self.due.is_empty()
    }

    fn conversation(&mut self, id: ConversationId) -> &mut Conversation {
        self.conversations.entry(id).or_default()
    }

    /// Tells the budget of what is in flight now.
    fn settle_budget<S>(&mut self, cx: &mut Context<'_, S>) {
        cx.budget.replace(self.budgeted, self.flight.len());
        self.budgeted = self.flight.len();
    }
}

#[cfg(test)]
mod tests;
