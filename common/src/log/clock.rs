//! Hybrid logical clocks ("Logical Physical Clocks", Kulkarni et al., 2014): wall-clock time where clocks agree, and
//! the order of cause and effect where they do not.

use serde::{Deserialize, Serialize};

use crate::limits::{CLOCK_AHEAD_MAX, CLOCK_EARLIEST_MS};
use crate::time::UnixTime;

/// Bits of the counter.
const COUNTER_BITS: u32 = 16;
/// The last millisecond of 48 bits, in the year 10889.
const MILLIS_MAX: u64 = u64::MAX >> COUNTER_BITS;

/// When an entry was written, by its author: 48 bits of milliseconds since 1970 and 16 bits of a counter, which orders
/// what is written in one millisecond. Strictly increasing within a run.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Clock(u64);

impl Clock {
    /// The first clock of a millisecond; of one beyond 48 bits, the first one of the last millisecond.
    pub fn at(time: UnixTime) -> Self {
        Self(time.as_millis().min(MILLIS_MAX) << COUNTER_BITS)
    }

    /// Takes the 64 bits as they are; all of them are a clock.
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// The 64 bits: the milliseconds above the counter.
    pub const fn to_bits(self) -> u64 {
        self.0
    }

    /// The time without the counter.
    pub const fn time(self) -> UnixTime {
        UnixTime::from_millis(self.0 >> COUNTER_BITS)
    }

    /// The next clock: in the same millisecond, or the first one of the next. `None` after the last.
    pub fn next(self) -> Option<Self> {
        self.0.checked_add(1).map(Self)
    }

    /// Judges the clock by a device's own time at the entry's arrival.
    pub fn dating(self, arrival: UnixTime) -> Dating {
        let time = self.time();
        if time.saturating_since(arrival) > CLOCK_AHEAD_MAX {
            Dating::Ahead
        } else if time.as_millis() < CLOCK_EARLIEST_MS {
            Dating::TooOld
        } else {
            Dating::Plausible
        }
    }
}

/// Whether an entry can have been written when its clock says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dating {
    /// The entry may have been written then.
    Plausible,
    /// It is further ahead than [`CLOCK_AHEAD_MAX`].
    Ahead,
    /// It is from before [`CLOCK_EARLIEST_MS`].
    TooOld,
}

/// The clock of one device, which it dates its entries with.
#[derive(Clone, Copy, Debug, Default)]
pub struct HybridClock {
    last: Clock,
}

impl HybridClock {
    /// A clock that has heard of nothing yet.
    pub const fn new() -> Self {
        Self { last: Clock(0) }
    }

    /// Follows the clock of an entry, so that whatever this device writes from now on is dated later. One that is
    /// implausible by this device's own time is not followed: nobody can draw it away.
    pub fn follow(&mut self, clock: Clock, wall: UnixTime) {
        if clock.dating(wall) == Dating::Plausible {
            self.last = self.last.max(clock);
        }
    }

    /// Dates an entry that follows one dated `after` in its run. `None` if that one is implausible by this device's own
    /// time, which must have been set back: an entry after it would be implausible for everybody.
    pub fn tick(&mut self, after: Option<Clock>, wall: UnixTime) -> Option<Clock> {
        let is_ahead = |clock: Clock| clock.dating(wall) == Dating::Ahead;
        if after.is_some_and(is_ahead) {
            return None;
        }
        if is_ahead(self.last) {
            self.last = Clock::default();
        }
        let earliest = self.last.max(after.unwrap_or_default()).next()?;
        self.last = Clock::at(wall).max(earliest);
        Some(self.last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixTime = UnixTime::from_millis(1_795_000_000_000);

    #[test]
    fn a_clock_has_48_bits_of_time_and_16_of_a_counter() {
        let clock = Clock::at(UnixTime::from_millis(0x1234_5678_9abc));
        assert_eq!(clock.to_bits(), 0x1234_5678_9abc_0000);
        let last_of_it = Clock::from_bits(0x1234_5678_9abc_ffff);
        assert_eq!(last_of_it.time(), clock.time());
        assert_eq!(last_of_it.next().unwrap().to_bits(), 0x1234_5678_9abd_0000);
        assert_eq!(Clock::from_bits(u64::MAX).next(), None);
        let beyond = Clock::at(UnixTime::from_millis(u64::MAX));
        assert_eq!(beyond.to_bits(), 0xffff_ffff_ffff_0000);
    }

    #[test]
    fn clocks_strictly_increase_though_time_stands_still_or_goes_back() {
        let mut clock = HybridClock::default();
        let mut last = clock.tick(None, NOW).unwrap();
        for back in [0, 0, 1, 60_000, 0] {
            let wall = UnixTime::from_millis(NOW.as_millis() - back);
            let next = clock.tick(Some(last), wall).unwrap();
            assert!(next > last);
            last = next;
        }
    }

    #[test]
    fn an_effect_is_dated_after_its_cause() {
        let mut clock = HybridClock::default();
        let heard = Clock::at(NOW.saturating_add(CLOCK_AHEAD_MAX));
        clock.follow(heard, NOW);
        assert!(clock.tick(None, NOW).unwrap() > heard);
    }

    #[test]
    fn t44_nobody_draws_the_clock_away() {
        let year_9999 = Clock::at(UnixTime::from_millis(253_370_764_800_000));
        assert_eq!(year_9999.dating(NOW), Dating::Ahead);
        let mut clock = HybridClock::default();
        clock.follow(year_9999, NOW);
        clock.follow(Clock::from_bits(u64::MAX), NOW);
        assert_eq!(clock.tick(None, NOW), Some(Clock::at(NOW)));
        // A run of one's own that got there ends.
        assert_eq!(clock.tick(Some(year_9999), NOW), None);
        assert_eq!(Clock::from_bits(77).dating(NOW), Dating::TooOld);
    }

    #[test]
    fn a_clock_that_was_set_back_is_not_followed_for_ever() {
        let mut clock = HybridClock::default();
        let wrong = UnixTime::from_millis(NOW.as_millis() * 2);
        assert_eq!(clock.tick(None, wrong), Some(Clock::at(wrong)));
        assert_eq!(clock.tick(None, NOW), Some(Clock::at(NOW)));
    }
}
