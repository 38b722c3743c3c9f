//! Up to where this account has read, on its way to the other side: seldom, and the furthest only.

use std::collections::BTreeMap;
use std::time::Instant;

use common::limits::{MARKS_INTERVAL, MARKS_MAX};
use common::log::{ChainId, ConversationId, Sequence};

/// Marks that are to be sent.
#[derive(Debug, Default)]
pub(super) struct Marks {
    waiting: BTreeMap<(ConversationId, ChainId), Sequence>,
    /// When the next frame may be sent.
    next: Option<Instant>,
}

/// A mark of a chain.
pub(super) type Mark = ((ConversationId, ChainId), Sequence);

impl Marks {
    /// A chain was read up to here.
    pub(super) fn note(&mut self, conversation: ConversationId, chain: ChainId, last: Sequence) {
        let mark = self.waiting.entry((conversation, chain)).or_insert(last);
        *mark = last.max(*mark);
    }

    /// When [`Marks::take`] has something that it could not give before.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.next.filter(|_| !self.waiting.is_empty())
    }

    /// What is to be sent now, at most [`MARKS_MAX`].
    pub(super) fn take(&mut self, now: Instant) -> Vec<Mark> {
        if self.waiting.is_empty() || self.next.is_some_and(|next| now < next) {
            return Vec::new();
        }
        self.next = Some(now + MARKS_INTERVAL);
        let rest = self.waiting.keys().nth(MARKS_MAX).copied();
        let rest = rest.map(|rest| self.waiting.split_off(&rest));
        let taken = std::mem::replace(&mut self.waiting, rest.unwrap_or_default());
        taken.into_iter().collect()
    }

    /// A conversation is not shared any more.
    pub(super) fn forget(&mut self, conversation: &ConversationId) {
        self.waiting.retain(|(of, _), _| of != conversation);
    }
}
