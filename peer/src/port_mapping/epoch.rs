//! The gateway's epoch: seconds since it has lost its mappings last. From two of them a client sees whether that has
//! happened in between.

use std::time::{Duration, Instant};

/// The epoch that was heard last.
#[derive(Clone, Copy, Debug)]
pub(super) struct Epoch {
    said_s: u32,
    heard: Instant,
}

impl Epoch {
    pub(super) const fn new(said_s: u32, heard: Instant) -> Self {
        Self { said_s, heard }
    }

    /// Tells whether a gateway that says this now has lost its mappings since. RFC 6887 section 8.5; that of
    /// RFC 6886 section 3.6 permits a clock that goes slower by an eighth, which for NAT-PMP is taken from there.
    pub(super) fn is_lost(self, now_s: u32, now: Instant) -> bool {
        const SLACK: Duration = Duration::from_secs(2);
        let here = now.saturating_duration_since(self.heard);
        // It may be out by the second that is cut off.
        if now_s.saturating_add(1) < self.said_s {
            return true;
        }
        let there = Duration::from_secs(now_s.saturating_sub(self.said_s).into());
        here + SLACK < there - there / 16 || there + SLACK < here - here / 8
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "any instant will do as a start")]
    fn a_clock_that_jumps_has_begun_anew() {
        let start = Instant::now();
        let epoch = Epoch::new(1000, start);
        let later = |seconds| start + Duration::from_secs(seconds);
        for (now_s, after) in [(1000, 0), (999, 0), (1600, 600), (1570, 600), (1638, 600)] {
            assert!(!epoch.is_lost(now_s, later(after)), "{now_s} {after}");
        }
        for (now_s, after) in [
            (998, 0),
            (999, 600),
            (0, 600),
            (600, 600),
            (1400, 600),
            (1700, 600),
            (u32::MAX, 600),
        ] {
            assert!(epoch.is_lost(now_s, later(after)), "{now_s} {after}");
        }
    }
}
