//! How often something may happen: a few times at once, and after that at a steady pace.

use std::time::{Duration, Instant};

/// A pace, and how far one may run ahead of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    /// One more may happen after each of these.
    pub(super) interval: Duration,
    /// How many may happen at once after a rest.
    pub(super) at_once: u32,
}

/// What is left of a [`Pace`]. All it keeps is the moment at which nothing is used up any more (the
/// generic cell rate algorithm, ITU-T I.371).
#[derive(Clone, Copy, Debug)]
pub(super) struct Budget {
    full_at: Instant,
}

impl Budget {
    /// A budget of which nothing is used up.
    pub(super) const fn new(now: Instant) -> Self {
        Self { full_at: now }
    }

    /// Uses up `count`, if there is so much.
    pub(super) fn take(&mut self, count: u32, pace: Pace, now: Instant) -> bool {
        let full_at = self.full_at.max(now) + pace.interval * count;
        let is_enough = full_at <= now + pace.interval * pace.at_once;
        if is_enough {
            self.full_at = full_at;
        }
        is_enough
    }

    /// When there is one again.
    pub(super) fn ready_at(&self, pace: Pace, now: Instant) -> Instant {
        let owed = self.full_at.saturating_duration_since(now) + pace.interval;
        now + owed.saturating_sub(pace.interval * pace.at_once)
    }

    /// When nothing is used up any more.
    pub(super) const fn full_at(&self) -> Instant {
        self.full_at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "any instant will do as a start")]
    fn after_a_few_at_once_the_pace_is_kept() {
        let pace = Pace {
            interval: Duration::from_secs(5),
            at_once: 3,
        };
        let start = Instant::now();
        let mut budget = Budget::new(start);
        assert!(!budget.take(4, pace, start), "never more than at once");
        assert!(budget.take(3, pace, start));
        assert!(!budget.take(1, pace, start));
        let ready = budget.ready_at(pace, start);
        assert_eq!(ready, start + pace.interval);
        assert!(!budget.take(1, pace, ready - Duration::from_nanos(1)));
        assert!(budget.take(1, pace, ready));
        // A minute of asking all the time: the pace, and what was at once.
        let mut budget = Budget::new(start);
        let tenths = (0..600).map(|tenth| start + Duration::from_millis(100) * tenth);
        let taken = tenths.filter(|now| budget.take(1, pace, *now)).count();
        assert_eq!(taken, 3 + 59 / 5);
        let rested = budget.full_at();
        assert!(budget.take(3, pace, rested));
    }
}
