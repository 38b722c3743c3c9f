//! What all links together may have in flight.

use common::limits::PAGES_IN_FLIGHT_OF_ALL_LEN_MAX;

/// Bytes of pages in flight on all links, at most [`PAGES_IN_FLIGHT_OF_ALL_LEN_MAX`] and a page. The caller has one for
/// all its sessions. When [`Budget::has_room`] becomes true again, poll those for which
/// [`Session::is_blocked`](super::Session::is_blocked).
#[derive(Debug, Default)]
pub struct Budget {
    used: usize,
}

impl Budget {
    /// Nothing is in flight.
    pub const fn new() -> Self {
        Self { used: 0 }
    }

    /// Tells whether another page may be read.
    pub const fn has_room(&self) -> bool {
        self.used < PAGES_IN_FLIGHT_OF_ALL_LEN_MAX
    }

    /// Bytes in flight.
    pub const fn len(&self) -> usize {
        self.used
    }

    /// Whether nothing is in flight.
    pub const fn is_empty(&self) -> bool {
        self.used == 0
    }

    /// One link has this in flight now, and had that before.
    pub(super) const fn replace(&mut self, before: usize, now: usize) {
        self.used = self.used.saturating_sub(before).saturating_add(now);
    }
}
