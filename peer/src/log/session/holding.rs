//! What others have written waits before it is given: its author gives it, too.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use common::limits::GIVE_AFTER;
use common::log::{ChainId, ConversationId, Sequence};

/// Chains that wait, each once.
#[derive(Debug, Default)]
pub(super) struct Holding {
    held: BTreeMap<(ConversationId, ChainId), Sequence>,
    due: BTreeSet<(Instant, ConversationId, ChainId)>,
}

/// A chain has waited, and may be given up to here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) conversation: ConversationId,
    pub(super) chain: ChainId,
    pub(super) last: Sequence,
}

impl Holding {
    /// A chain has an entry more, `last`. If it waits already, this one waits for its own turn after that.
    pub(super) fn hold(
        &mut self,
        conversation: ConversationId,
        chain: ChainId,
        last: Sequence,
        now: Instant,
    ) {
        if let std::collections::btree_map::Entry::Vacant(entry) =
            self.held.entry((conversation, chain))
        {
            entry.insert(last);
            self.due.insert((now + GIVE_AFTER, conversation, chain));
        }
    }

    /// When the first chain has waited.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.due.first().map(|(due, _, _)| *due)
    }

    /// The next chain that has waited.
    pub(super) fn poll(&mut self, now: Instant) -> Option<Held> {
        self.poll_timeout().filter(|due| *due <= now)?;
        let (_, conversation, chain) = self.due.pop_first()?;
        let last = self.held.remove(&(conversation, chain))?;
        Some(Held {
            conversation,
            chain,
            last,
        })
    }

    /// A conversation is not shared any more.
    pub(super) fn forget(&mut self, conversation: &ConversationId) {
        self.held.retain(|(of, _), _| of != conversation);
        self.due.retain(|(_, of, _)| of != conversation);
    }
}
