//! Budgets for what is sent to unproven endpoints: one for each device, and one for all devices of an
//! account together.
//!
//! A budget is counted per minute, starting with the device's first dial. The first minute allows a
//! handful of dials, each further one a dial and some checks. A budget is never reset early: whoever
//! could do that could make this peer flood a third party again and again.

use std::time::{Duration, Instant};

use common::limits::{
    UNPROVEN_ACCOUNT_FIRST_MINUTE_LEN_MAX, UNPROVEN_ACCOUNT_MINUTE_LEN_MAX,
    UNPROVEN_FIRST_MINUTE_LEN_MAX, UNPROVEN_MINUTE_LEN_MAX,
};

const MINUTE: Duration = Duration::from_secs(60);

/// The bytes spent on a device or an account.
#[derive(Debug)]
pub(in crate::node) struct Budget {
    /// Bytes allowed in the current minute.
    max: usize,
    /// Bytes allowed in each later minute.
    later_max: usize,
    /// Start of the current minute.
    minute: Instant,
    /// Bytes spent in the current minute.
    spent: usize,
    last_spent: Instant,
}

impl Budget {
    /// The budget of a device, whose first minute begins now.
    pub(in crate::node) const fn of_device(now: Instant) -> Self {
        Self::new(UNPROVEN_FIRST_MINUTE_LEN_MAX, UNPROVEN_MINUTE_LEN_MAX, now)
    }

    /// The budget of an account, whose first minute begins now.
    pub(super) const fn of_account(now: Instant) -> Self {
        let max = UNPROVEN_ACCOUNT_FIRST_MINUTE_LEN_MAX;
        Self::new(max, UNPROVEN_ACCOUNT_MINUTE_LEN_MAX, now)
    }

    const fn new(max: usize, later_max: usize, now: Instant) -> Self {
        Self {
            max,
            later_max,
            minute: now,
            spent: 0,
            last_spent: now,
        }
    }

    /// Spends `len` bytes, which must be covered.
    pub(in crate::node) fn take(&mut self, len: usize, now: Instant) {
        self.spent += len;
        self.last_spent = now;
    }

    /// Tells whether `len` bytes are left in this minute.
    pub(in crate::node) fn covers(&mut self, len: usize, now: Instant) -> bool {
        self.begin_minute(now);
        self.spent + len <= self.max
    }

    /// When the next minute begins.
    pub(super) fn next_minute(&self) -> Instant {
        self.minute + MINUTE
    }

    /// When bytes were last spent.
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
        self.max = self.later_max;
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

    fn try_to_take(budget: &mut Budget, len: usize, now: Instant) -> bool {
        let is_covered = budget.covers(len, now);
        if is_covered {
            budget.take(len, now);
        }
        is_covered
    }

    fn check_minutes(mut budget: Budget, began: Instant, first_max: usize, later_max: usize) {
        assert!(!try_to_take(&mut budget, first_max + 1, began));
        assert!(try_to_take(&mut budget, first_max, began));
        let last = began + MINUTE - Duration::from_nanos(1);
        assert!(!try_to_take(&mut budget, 1, last));
        for minute in 1..5 {
            let start = began + MINUTE * minute;
            assert_eq!(budget.next_minute(), start);
            assert!(!try_to_take(&mut budget, later_max + 1, start));
            assert!(try_to_take(&mut budget, later_max, start));
            assert!(!try_to_take(&mut budget, 1, start + MINUTE / 2));
        }
    }

    #[test]
    fn t23_each_minute_has_its_limit_to_the_byte() {
        let now = any_instant();
        let (first_max, later_max) = (UNPROVEN_FIRST_MINUTE_LEN_MAX, UNPROVEN_MINUTE_LEN_MAX);
        check_minutes(Budget::of_device(now), now, first_max, later_max);
        let first_max = UNPROVEN_ACCOUNT_FIRST_MINUTE_LEN_MAX;
        let later_max = UNPROVEN_ACCOUNT_MINUTE_LEN_MAX;
        check_minutes(Budget::of_account(now), now, first_max, later_max);
    }

    #[test]
    fn what_is_not_used_is_lost() {
        let began = any_instant();
        let mut budget = Budget::of_device(began);
        let later = began + MINUTE * 100 + MINUTE / 2;
        assert!(!try_to_take(
            &mut budget,
            UNPROVEN_MINUTE_LEN_MAX + 1,
            later
        ));
        assert_eq!(budget.next_minute(), began + MINUTE * 101);
    }
}
