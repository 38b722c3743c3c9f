//! When an author seals: soon, and not for each entry by itself.

use std::time::Instant;

use common::limits::{BODIES_PER_SEAL_LEN_MAX, ENTRIES_PER_SEAL_MAX, SEAL_INTERVAL};

/// Decides when what was written is sealed: at once if the last seal is [`SEAL_INTERVAL`] old, or else as soon as it
/// is; earlier if [`ENTRIES_PER_SEAL_MAX`] entries or [`BODIES_PER_SEAL_LEN_MAX`] bytes have come together.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sealing {
    /// When the last seal was asked for.
    last: Option<Instant>,
    entries: usize,
    bodies_len: usize,
    due: Option<Instant>,
}

impl Sealing {
    /// Nothing is written yet.
    pub const fn new() -> Self {
        Self {
            last: None,
            entries: 0,
            bodies_len: 0,
            due: None,
        }
    }

    /// An entry was written. Tells whether it is the last one that the next seal can cover.
    #[must_use]
    pub fn on_entry(&mut self, body_len: usize, now: Instant) -> bool {
        self.entries += 1;
        self.bodies_len = self.bodies_len.saturating_add(body_len);
        let is_full =
            self.entries >= ENTRIES_PER_SEAL_MAX || self.bodies_len >= BODIES_PER_SEAL_LEN_MAX;
        let at = self.last.map_or(now, |last| now.max(last + SEAL_INTERVAL));
        self.due = Some(if is_full { now } else { self.due.unwrap_or(at) });
        is_full
    }

    /// Nothing is left to seal: everything was, or its run is over.
    pub const fn clear(&mut self) {
        (self.entries, self.bodies_len, self.due) = (0, 0, None);
    }

    /// When all that was written is to be sealed, if there is anything.
    pub const fn poll_timeout(&self) -> Option<Instant> {
        self.due
    }

    /// A seal was asked for, of all that was written.
    pub const fn on_seal(&mut self, now: Instant) {
        self.clear();
        self.last = Some(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[expect(clippy::disallowed_methods, reason = "any instant will do as a start")]
    fn start() -> Instant {
        Instant::now()
    }

    #[test]
    fn the_first_entry_after_a_pause_is_sealed_at_once_and_others_soon() {
        let now = start();
        let mut sealing = Sealing::default();
        assert_eq!(sealing.poll_timeout(), None);
        assert!(!sealing.on_entry(5, now));
        assert_eq!(sealing.poll_timeout(), Some(now));
        sealing.on_seal(now);
        let soon = now + Duration::from_millis(1);
        assert!(!sealing.on_entry(5, soon));
        assert!(!sealing.on_entry(5, soon + Duration::from_millis(1)));
        assert_eq!(sealing.poll_timeout(), Some(now + SEAL_INTERVAL));
        sealing.on_seal(now + SEAL_INTERVAL);
        assert_eq!(sealing.poll_timeout(), None);
    }

    #[test]
    fn a_seal_covers_so_many_entries_or_bytes_and_no_more() {
        let now = start();
        let mut sealing = Sealing::default();
        sealing.on_seal(now);
        for n in 1..ENTRIES_PER_SEAL_MAX {
            assert!(!sealing.on_entry(0, now), "{n}");
        }
        assert_eq!(sealing.poll_timeout(), Some(now + SEAL_INTERVAL));
        assert!(sealing.on_entry(0, now));
        assert_eq!(sealing.poll_timeout(), Some(now));
        sealing.on_seal(now);
        assert!(!sealing.on_entry(BODIES_PER_SEAL_LEN_MAX - 1, now));
        assert!(sealing.on_entry(1, now));
        assert_eq!(sealing.poll_timeout(), Some(now));
    }
}
