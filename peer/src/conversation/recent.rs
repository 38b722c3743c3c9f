//! Which messages were met before.

use std::collections::{BTreeSet, VecDeque};

use common::id::MessageId;
use common::limits::MESSAGES_SEEN_MAX;

/// The latest [`MESSAGES_SEEN_MAX`] message ids; the oldest makes room for the next.
#[derive(Debug, Default)]
pub(crate) struct Recent {
    known: BTreeSet<MessageId>,
    order: VecDeque<MessageId>,
}

impl Recent {
    /// Adds an id. Tells whether it is new.
    pub(crate) fn insert(&mut self, id: MessageId) -> bool {
        if !self.known.insert(id) {
            return false;
        }
        self.order.push_back(id);
        if self.order.len() > MESSAGES_SEEN_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
        true
    }

    /// Tells whether an id was added and not forgotten since.
    pub(crate) fn contains(&self, id: MessageId) -> bool {
        self.known.contains(&id)
    }

    /// Tells whether none was added.
    pub(crate) fn is_empty(&self) -> bool {
        self.order.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_is_forgotten_first() {
        // Ids that grow smaller: their age counts, not their order.
        let id = |number: usize| {
            let number = (usize::MAX - number) as u128;
            MessageId::from_bytes(number.to_be_bytes())
        };
        let mut recent = Recent::default();
        assert!(recent.is_empty());
        for number in 0..=MESSAGES_SEEN_MAX {
            assert!(recent.insert(id(number)));
        }
        assert!(!recent.contains(id(0)));
        assert!(recent.contains(id(1)) && recent.contains(id(MESSAGES_SEEN_MAX)));
        assert!(!recent.insert(id(1)));
        assert_eq!(recent.known.len(), MESSAGES_SEEN_MAX);
    }
}
