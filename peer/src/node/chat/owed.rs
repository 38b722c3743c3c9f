//! Read receipts that no link was there for: they go out with the next one.

use std::collections::BTreeMap;

use common::id::{AccountName, MessageId};
use common::limits::{OWED_RECEIPTS_MAX, Occupancy};

/// The messages that were read, by their authors. Kept in memory, as long as the program runs.
#[derive(Debug, Default)]
pub(super) struct OwedReceipts {
    by_author: BTreeMap<AccountName, Vec<MessageId>>,
    count: usize,
}

impl OwedReceipts {
    /// A message was read, and its author is not linked. Beyond the limit it is not told.
    pub(super) fn add(&mut self, author: AccountName, id: MessageId) {
        if self.count < OWED_RECEIPTS_MAX {
            self.by_author.entry(author).or_default().push(id);
            self.count += 1;
        }
    }

    /// Takes out what an author is to be told.
    pub(super) fn take(&mut self, author: &AccountName) -> Vec<MessageId> {
        let ids = self.by_author.remove(author).unwrap_or_default();
        self.count -= ids.len();
        ids
    }

    /// Authors that are to be told something.
    pub(super) fn authors(&self) -> impl Iterator<Item = &AccountName> {
        self.by_author.keys()
    }

    /// How full it is.
    pub(super) const fn occupancy(&self) -> Occupancy {
        Occupancy::new("read receipts owed", self.count, OWED_RECEIPTS_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_are_kept_and_each_is_taken_once() {
        let name = |text: &str| text.parse::<AccountName>().unwrap();
        let id = |n: usize| MessageId::from_bytes((n as u128).to_be_bytes());
        let mut owed = OwedReceipts::default();
        for n in 0..=OWED_RECEIPTS_MAX {
            owed.add(name("bob"), id(n));
        }
        assert_eq!(owed.occupancy().count, OWED_RECEIPTS_MAX);
        assert_eq!(owed.authors().collect::<Vec<_>>(), [&name("bob")]);
        let taken = owed.take(&name("bob"));
        assert_eq!((taken.len(), taken[0]), (OWED_RECEIPTS_MAX, id(0)));
        assert!(owed.take(&name("bob")).is_empty());
        owed.add(name("carol"), id(1));
        assert_eq!(owed.occupancy().count, 1);
    }
}
