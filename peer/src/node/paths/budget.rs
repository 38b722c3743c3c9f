//! What may be sent to endpoints of one device that did not prove to be the device's.
//!
//! Time is cut into minutes that begin with the first byte. The first minute has room for a handful of
//! dials, each further one for a dial and some checks. A budget is never given back: whoever could make
//! it start anew could aim the peer at a third party again and again.

use std::time::{Duration, Instant};

use common::limits::{UNPROVEN_FIRST_MINUTE_LEN_MAX, UNPROVEN_MINUTE_LEN_MAX};

const MINUTE: Duration = Duration::from_secs(60);

/// The bytes that one device has cost.
#[derive(Debug)]
pub(super) struct Budget {
    /// Start of the present minute.
    minute: Instant,
    is_first: bool,
    spent: usize,
    last_spent: Instant,
}

impl Budget {
    /// A budget whose first minute begins now.
    pub(super) const fn new(now: Instant) -> Self {
        Self {
            minute: now,
            is_first: true,
            spent: 0,
            last_spent: now,
        }
    }

    /// Takes `len` bytes if at least `reserve` are left behind them; tells whether it did.
    pub(super) fn take(&mut self, len: usize, reserve: usize, now: Instant) -> bool {
        let is_covered = self.covers(len + reserve, now);
        if is_covered {
            self.spent += len;
            self.last_spent = now;
        }
        is_covered
    }

    /// Tells whether `len` bytes are left in this minute.
    pub(super) fn covers(&mut self, len: usize, now: Instant) -> bool {
        self.begin_minute(now);
        let max = if self.is_first {
            UNPROVEN_FIRST_MINUTE_LEN_MAX
        } else {
            UNPROVEN_MINUTE_LEN_MAX
        };
        self.spent + len <= max
    }

    /// When there is room again.
    pub(super) fn next_minute(&self) -> Instant {
        self.minute + MINUTE
    }

    /// When bytes were last taken.
    pub(super) const fn last_spent(&self) -> Instant {
        self.last_spent
    }

    fn begin_minute(&mut self, now: Instant) {
        if now < self.next_minute() {
            return;
        }
        let into_minute = now.saturating_duration_since(self.minute).as_nanos() % MINUTE.as_nanos();
        let into_minute = u64::try_from(into_minute).expect("a minute has fewer than 2^64 ns");
        self.minute = now - Duration::from_nanos(into_minute);
        self.is_first = false;
        self.spent = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[expect(clippy::disallowed_methods, reason = "any instant will do as a start")]
    fn any_instant() -> Instant {
        Instant::now()
    }

    #[test]
    fn t23_each_minute_has_its_limit_to_the_byte() {
        let began = any_instant();
        let mut budget = Budget::new(began);
        assert!(budget.take(UNPROVEN_FIRST_MINUTE_LEN_MAX, 0, began));
        assert!(!budget.take(1, 0, began + MINUTE - Duration::from_nanos(1)));
        for minute in 1..5 {
            let start = began + MINUTE * minute;
            assert_eq!(budget.next_minute(), start);
            assert!(!budget.take(UNPROVEN_MINUTE_LEN_MAX + 1, 0, start));
            assert!(budget.take(UNPROVEN_MINUTE_LEN_MAX, 0, start));
            assert!(!budget.take(1, 0, start + MINUTE / 2));
        }
    }

    #[test]
    fn what_is_not_used_is_lost() {
        let began = any_instant();
        let mut budget = Budget::new(began);
        let later = began + MINUTE * 100 + MINUTE / 2;
        assert!(!budget.take(UNPROVEN_MINUTE_LEN_MAX + 1, 0, later));
        assert_eq!(budget.next_minute(), began + MINUTE * 101);
    }

    #[test]
    fn a_reserve_stays() {
        let now = any_instant();
        let mut budget = Budget::new(now);
        assert!(!budget.take(UNPROVEN_FIRST_MINUTE_LEN_MAX, 1, now));
        assert!(budget.take(UNPROVEN_FIRST_MINUTE_LEN_MAX - 1, 1, now));
        assert!(budget.take(1, 0, now));
    }
}
