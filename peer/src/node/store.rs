//! Requests to the store that are not answered yet, and failed writes that no caller awaits, which are
//! repeated until they succeed.

use std::collections::{BTreeMap, VecDeque};
use std::time::Instant;

use common::limits::Occupancy;

use super::io::{StoreId, StoreRequest};
use super::purpose::StorePurpose;
use retries::Retries;

// Failed writes that are repeated.
mod retries;

/// Open requests to the store, with their purposes.
#[derive(Debug, Default)]
pub(super) struct Stores {
    next: u64,
    open: BTreeMap<StoreId, StorePurpose>,
    retries: Retries,
}

impl Stores {
    /// The occupancy of each bounded resource.
    pub(super) fn occupancy(&self) -> Occupancy {
        self.retries.occupancy()
    }

    /// Notes a request that is on its way to the store.
    pub(super) fn note(&mut self, purpose: StorePurpose) -> StoreId {
        let id = StoreId(self.next);
        self.next += 1;
        self.open.insert(id, purpose);
        id
    }

    /// Takes an answer, and returns the purpose of its request. `None` if there is no such request.
    pub(super) fn on_answer(&mut self, id: StoreId) -> Option<StorePurpose> {
        self.open.remove(&id)
    }

    /// Schedules another attempt at a write that failed and that no caller awaits.
    pub(super) fn repeat_later(&mut self, request: StoreRequest, now: Instant) {
        self.retries.add(request, now);
    }

    /// The failed writes that are due to be repeated.
    pub(super) fn handle_timeout(&mut self, now: Instant) -> VecDeque<StoreRequest> {
        self.retries.take_due(now)
    }

    /// When [`Stores::handle_timeout`] is due.
    pub(super) const fn poll_timeout(&self) -> Option<Instant> {
        self.retries.poll_timeout()
    }
}
