//! What was sent in this conversation, and how far it is.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use common::id::{AccountName, MessageId};

use super::recent::Recent;
use crate::node::command::MessageState;

/// A receipt is told after this long, in case the next one follows at once: a message that is read soon
/// after its delivery has one line, and so have several messages that arrive together.
const RECEIPT_PAUSE: Duration = Duration::from_millis(400);

/// Messages of one recipient that have got equally far.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Receipts {
    pub(crate) to: AccountName,
    /// [`MessageState::Delivered`] or [`MessageState::Read`].
    pub(crate) state: MessageState,
    /// At least one.
    pub(crate) count: usize,
}

/// The messages that were sent here. A message is open until it is on its recipient's disk; the node's
/// outbox bounds how many are.
#[derive(Debug, Default)]
pub(super) struct Letters {
    open: BTreeMap<MessageId, AccountName>,
    delivered: Recent,
    /// Receipts that are not told yet, the furthest of each message.
    receipts: BTreeMap<MessageId, (AccountName, MessageState)>,
    tell_at: Option<Instant>,
}

impl Letters {
    /// Takes in messages that are in the outbox.
    pub(super) fn on_queued(&mut self, letters: impl Iterator<Item = (MessageId, AccountName)>) {
        self.open.extend(letters);
    }

    /// Notes how far a message is. Tells whether that is a receipt for a message of this conversation.
    pub(super) fn on_state(
        &mut self,
        id: MessageId,
        to: AccountName,
        state: MessageState,
        now: Instant,
    ) -> bool {
        let is_ours = self.open.contains_key(&id) || self.delivered.contains(id);
        if !is_ours || state < MessageState::Delivered {
            return false;
        }
        self.open.remove(&id);
        self.delivered.insert(id);
        self.receipts.insert(id, (to, state));
        self.tell_at.get_or_insert(now + RECEIPT_PAUSE);
        true
    }

    /// The receipts that are not told yet, by recipient and state.
    pub(super) fn take_receipts(&mut self) -> Vec<Receipts> {
        self.tell_at = None;
        let mut counts: BTreeMap<(AccountName, MessageState), usize> = BTreeMap::new();
        for receipt in std::mem::take(&mut self.receipts).into_values() {
            *counts.entry(receipt).or_default() += 1;
        }
        let counts = counts.into_iter();
        let receipts = counts.map(|((to, state), count)| Receipts { to, state, count });
        receipts.collect()
    }

    /// When receipts are due to be told.
    pub(super) const fn poll_timeout(&self) -> Option<Instant> {
        self.tell_at
    }

    /// How many messages are not delivered.
    pub(super) fn open(&self) -> usize {
        self.open.len()
    }
}
