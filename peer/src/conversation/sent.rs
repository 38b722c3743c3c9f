//! The messages that were sent in this conversation, and their receipts.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use common::id::{AccountName, MessageId};

use super::recent::Recent;
use crate::node::command::MessageState;

/// A receipt is shown after this long, in case another one follows at once: a message that is read soon
/// after its delivery takes one line, and so do several messages that are delivered together.
const RECEIPT_PAUSE: Duration = Duration::from_millis(400);

/// Messages to one recipient that have reached the same state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Receipts {
    pub(crate) to: AccountName,
    /// [`MessageState::Delivered`] or [`MessageState::Read`].
    pub(crate) state: MessageState,
    /// At least one.
    pub(crate) count: usize,
}

/// The messages that were sent. A message is open until it is on its recipient's disk; the node's outbox
/// bounds their number.
#[derive(Debug, Default)]
pub(super) struct SentMessages {
    open: BTreeMap<MessageId, AccountName>,
    delivered: Recent,
    /// Receipts that are not shown yet, the latest of each message.
    receipts: BTreeMap<MessageId, (AccountName, MessageState)>,
    tell_at: Option<Instant>,
}

impl SentMessages {
    /// Adds messages that are in the outbox.
    pub(super) fn on_queued(&mut self, messages: impl Iterator<Item = (MessageId, AccountName)>) {
        self.open.extend(messages);
    }

    /// Notes the state of a message. Returns whether it is a receipt for a message of this conversation.
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

    /// Takes the receipts that are not shown yet, counted by recipient and state.
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

    /// When receipts are due to be shown.
    pub(super) const fn poll_timeout(&self) -> Option<Instant> {
        self.tell_at
    }

    /// Number of messages that are not delivered.
    pub(super) fn open(&self) -> usize {
        self.open.len()
    }
}
