//! What one device has written in one run.

use super::entry::AccountEntry;
use crate::log::HeaderHash;

/// The entries of one run, in order and without a gap.
#[derive(Clone, Debug, Default)]
pub(super) struct Chain {
    /// With the hashes of their headers.
    pub(super) entries: Vec<(AccountEntry, HeaderHash)>,
    /// Another entry, signed as well, for a place that has one: from there on nothing counts.
    pub(super) fork: Option<AccountEntry>,
}

/// What became of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accepted {
    /// It is new.
    New,
    /// It was known before.
    Known,
    /// It contradicts a known one: its author's run is void from there.
    Fork,
}

impl Chain {
    /// Puts a genuine entry at its place.
    pub(super) fn insert(
        &mut self,
        place: usize,
        entry: AccountEntry,
        hash: HeaderHash,
    ) -> Accepted {
        if place == self.entries.len() {
            self.entries.push((entry, hash));
            return Accepted::New;
        }
        let is_first = self
            .fork
            .as_ref()
            .is_none_or(|fork| entry.id.sequence < fork.id.sequence);
        if !is_first {
            return Accepted::Known;
        }
        self.fork = Some(entry);
        Accepted::Fork
    }

    /// How many entries there are before a fork.
    pub(super) fn count(&self) -> usize {
        let fork = self.fork.as_ref().map(|fork| fork.id.sequence.previous());
        let before = fork.and_then(|before| usize::try_from(before.number()).ok());
        before.unwrap_or(usize::MAX).min(self.entries.len())
    }

    /// The entries before a fork, with the hashes of their headers.
    pub(super) fn undisputed(&self) -> &[(AccountEntry, HeaderHash)] {
        &self.entries[..self.count()]
    }
}
