//! What the store was asked and has not answered, and writes that no caller awaits: those are repeated
//! until they succeed.

use std::collections::{BTreeMap, VecDeque};
use std::time::Instant;

use common::limits::Fill;

use super::io::{StoreId, StoreRequest};
use super::purpose::StorePurpose;
use retries::Retries;

// Failed writes that are asked for again.
mod retries;

/// Open requests to the store, with their purposes.
#[derive(Debug, Default)]
pub(super) struct Stores {
    next: u64,
    open: BTreeMap<StoreId, StorePurpose>,
    retries: Retries,
}

impl Stores {
    /// How full everything is that has a bound.
    pub(super) fn fill(&self) -> Fill {
        self.retries.fill()
    }

    /// Notes a request that is on its way to the store.
    pub(super) fn note(&mut self, purpose: StorePurpose) -> StoreId {
        let id = StoreId(self.next);
        self.next += 1;
        self.open.insert(id, purpose);
        id
    }

    /// Takes an answer. `None` if nothing of that name is open.
    pub(super) fn on_answer(&mut self, id: StoreId) -> Option<StorePurpose> {
        self.open.remove(&id)
    }

    /// A write that nobody awaits failed.
    pub(super) fn on_repeated_failed(&mut self, request: StoreRequest, now: Instant) {
        self.retries.add(request, now);
    }

    /// Writes that are to be asked for again now.
    pub(super) fn handle_timeout(&mut self, now: Instant) -> VecDeque<StoreRequest> {
        self.retries.take_due(now)
    }

    /// When [`Stores::handle_timeout`] is due.
    pub(super) const fn poll_timeout(&self) -> Option<Instant> {
        self.retries.poll_timeout()
    }
}
