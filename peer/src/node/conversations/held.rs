//! One conversation on this device, and what is known of how far its entries have got.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Instant;

use common::id::AccountName;
use common::limits::{CONVERSATION_RETRY_FIRST, CONVERSATION_RETRY_MAX};
use common::log::{ChainId, ConversationId, EntryId, RunId, Sequence};

use crate::log::Replica;
use crate::node::drafts::{Draft, Then};
use crate::node::io::entries::{ConversationKind, Reached};

/// The copy of a conversation that this device holds, and what it waits for.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) kind: ConversationKind,
    pub(super) replica: Replica,
    pub(super) state: State,
    /// Counts how often it was read from the store: what belongs to an earlier reading is out of date.
    pub(super) epoch: u64,
    /// The store has it.
    pub(super) is_open: bool,
    /// Its other side is the account that has this name now.
    pub(super) is_current: bool,
    /// The run in which this device has written last, as the store had it.
    pub(super) stored_run: Option<RunId>,
    /// How far entries have got: of this account's chains with the other one, of the others' with this one.
    pub(super) reached: BTreeMap<ChainId, Reached>,
    /// Messages of this account that no device of the other one has.
    pub(super) undelivered: BTreeSet<EntryId>,
    /// It is known which those are.
    pub(super) is_counted: bool,
    /// What waits to be written.
    pub(super) waiting: VecDeque<Draft>,
    retry: std::time::Duration,
}

/// Whether a conversation is as the store has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// It is being read from the store.
    Restoring,
    /// It can be written and shared.
    Ready,
    /// The store has failed: it is read again at this time.
    Broken(Instant),
}

impl Held {
    /// A conversation that is not in the store yet.
    pub(super) fn new(kind: ConversationKind, replica: Replica) -> Self {
        Self {
            kind,
            replica,
            state: State::Ready,
            epoch: 0,
            is_open: false,
            is_current: true,
            stored_run: None,
            reached: BTreeMap::new(),
            undelivered: BTreeSet::new(),
            is_counted: true,
            waiting: VecDeque::new(),
            retry: CONVERSATION_RETRY_FIRST,
        }
    }

    /// The name of the other side; of notes the account's own.
    pub(super) const fn with(&self) -> &AccountName {
        self.kind.account()
    }

    pub(super) fn id(&self) -> ConversationId {
        self.replica.conversation()
    }

    pub(super) fn is_ready(&self) -> bool {
        self.state == State::Ready
    }

    /// Tells whether a link to a device of an account shares it; `is_own` if that is this one's.
    pub(super) fn is_shared_with(&self, account: &AccountName, is_own: bool) -> bool {
        self.is_ready() && (is_own || self.is_current && self.with() == account)
    }

    /// It is read from the store from now on, anew.
    pub(super) fn begin_restoring(&mut self) {
        self.replica = Replica::new(self.id(), *self.replica.device());
        self.reached.clear();
        self.undelivered.clear();
        self.state = State::Restoring;
        self.epoch += 1;
    }

    /// The store has failed to write or to read it.
    pub(super) fn break_off(&mut self, now: Instant) {
        self.state = State::Broken(now + self.retry);
        self.retry = (2 * self.retry).min(CONVERSATION_RETRY_MAX);
        self.epoch += 1;
    }

    /// The store has written something: it is not broken any more.
    pub(super) const fn on_written(&mut self) {
        self.retry = CONVERSATION_RETRY_FIRST;
    }

    /// Messages that the other account does not have.
    pub(super) fn waiting(&self) -> usize {
        let is_text = |draft: &&Draft| match draft.then {
            Then::Sent(..) | Then::Replaces(_) => true,
            Then::Nothing | Then::Rewritten(_) => false,
        };
        self.undelivered.len() + self.waiting.iter().filter(is_text).count()
    }

    /// Entries up to a place have got to the other account: they wait no more.
    pub(super) fn on_delivered(&mut self, chain: &ChainId, last: Sequence) {
        self.undelivered
            .retain(|entry| entry.chain != *chain || entry.sequence > last);
    }

    pub(super) fn reached(&self, chain: &ChainId) -> Reached {
        self.reached.get(chain).copied().unwrap_or_default()
    }
}
