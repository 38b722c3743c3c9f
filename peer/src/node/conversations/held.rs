//! One conversation on this device, and what is known of how far its entries have got.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Instant;

use common::id::AccountName;
use common::limits::{
    CHAINS_PER_CONVERSATION_MAX, CONVERSATION_RETRY_FIRST, CONVERSATION_RETRY_MAX,
};
use common::log::{ChainId, ConversationId, EntryId, RunId, Sequence};

use super::fresh::Fresh;
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
    /// What the other account has said to have of this one's chains. It may be more than is here.
    claimed: BTreeMap<ChainId, Sequence>,
    /// Chains of which a link has carried more than the store knows, and when it is told.
    carried: BTreeMap<ChainId, Instant>,
    /// Messages of this account that no device of the other one has.
    pub(super) undelivered: BTreeSet<EntryId>,
    /// It is known which those are.
    pub(super) is_counted: bool,
    /// Up to where people were told of what others have written, of chains that have grown since the program started.
    told: BTreeMap<ChainId, Sequence>,
    /// What is on its way to the disk and was written here.
    pub(super) fresh: Fresh,
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
            claimed: BTreeMap::new(),
            carried: BTreeMap::new(),
            undelivered: BTreeSet::new(),
            is_counted: true,
            told: BTreeMap::new(),
            fresh: Fresh::default(),
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
        // What links have carried of what the disk has refused, it does not know.
        self.reached.retain(|chain, _| self.fresh.has_of(chain));
        self.undelivered.clear();
        self.is_counted = false;
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

    /// Tells whether people are to be told of an entry now. What they were told of before the disk refused it comes
    /// again.
    pub(super) fn is_news(&mut self, entry: &EntryId) -> bool {
        let told = self.told.entry(entry.chain).or_insert(Sequence::START);
        let is_news = entry.sequence > *told;
        *told = entry.sequence.max(*told);
        is_news
    }

    /// All of a chain from an entry on is removed: what comes instead is news.
    pub(super) fn on_removed(&mut self, chain: &ChainId, from: Sequence) {
        if let Some(told) = self.told.get_mut(chain) {
            *told = from.previous().min(*told);
        }
    }

    /// Messages that the other account does not have.
    pub(super) fn waiting(&self) -> usize {
        let is_text = |draft: &&Draft| match draft.then {
            Then::Sent(..) | Then::Replaces(_) => true,
            Then::Nothing | Then::Rewritten(_) => false,
        };
        self.undelivered.len() + self.waiting.iter().filter(is_text).count()
    }

    /// Entries of this account have got so far. Returns the messages that had not before, as far as the disk has them:
    /// those that the other account has wait no more.
    pub(super) fn on_reached(&mut self, chain: &ChainId, reached: Reached) -> Vec<EntryId> {
        let before = self.reached.insert(*chain, reached).unwrap_or_default();
        let at = |sequence| EntryId {
            chain: *chain,
            sequence,
        };
        let waiting = self.undelivered.range(at(before.delivered.next())..);
        let waiting = waiting.take_while(|entry| {
            entry.chain == *chain && entry.sequence <= reached.sent.max(reached.delivered)
        });
        let has_moved =
            |entry: &&EntryId| before.of_ours(entry.sequence) != reached.of_ours(entry.sequence);
        let moved: Vec<EntryId> = waiting.filter(has_moved).copied().collect();
        for entry in &moved {
            if entry.sequence <= reached.delivered {
                self.undelivered.remove(entry);
            }
        }
        moved
    }

    /// The other account says to have a chain up to an entry.
    pub(super) fn note_claimed(&mut self, chain: ChainId, last: Sequence) {
        let has_room = self.claimed.len() < CHAINS_PER_CONVERSATION_MAX;
        if has_room || self.claimed.contains_key(&chain) {
            let claimed = self.claimed.entry(chain).or_insert(last);
            *claimed = last.max(*claimed);
        }
    }

    /// The last entry that it has said to have.
    pub(super) fn claimed(&self, chain: &ChainId) -> Sequence {
        self.claimed.get(chain).copied().unwrap_or(Sequence::START)
    }

    /// The chains of which it has said to have something.
    pub(super) fn claimed_chains(&self) -> Vec<ChainId> {
        self.claimed.keys().copied().collect()
    }

    /// The store is to be told at this time that a link has carried more of a chain, if it was not to be before.
    pub(super) fn note_carried(&mut self, chain: ChainId, at: Instant) {
        self.carried.entry(chain).or_insert(at);
    }

    /// When it is to be told, if ever.
    pub(super) fn carried_at(&self) -> Option<Instant> {
        self.carried.values().min().copied()
    }

    /// Up to where links have carried chains, of those of which the store is to be told by now. What the other account
    /// has by now it was told already.
    pub(super) fn take_carried(&mut self, now: Instant) -> Vec<(ChainId, Sequence)> {
        let due = self.carried.iter().filter(|(_, at)| **at <= now);
        let due: Vec<ChainId> = due.map(|(chain, _)| *chain).collect();
        self.carried.retain(|_, at| *at > now);
        let carried = due.into_iter().filter_map(|chain| {
            let reached = self.reached(&chain);
            (reached.sent > reached.delivered).then_some((chain, reached.sent))
        });
        carried.collect()
    }

    pub(super) fn reached(&self, chain: &ChainId) -> Reached {
        self.reached.get(chain).copied().unwrap_or_default()
    }
}
