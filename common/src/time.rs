//! Wall-clock time, as it is sent on the wire, kept in the store and read by engines.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

/// A point in time, in milliseconds since 1970-01-01 00:00:00 UTC.
///
/// It tells people when something happened. Timeouts are measured with [`Instant`]s instead.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct UnixTime(u64);

impl UnixTime {
    /// Makes a time of milliseconds since the epoch.
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis)
    }

    /// Milliseconds since the epoch.
    pub const fn as_millis(self) -> u64 {
        self.0
    }

    /// The time `span` later, at most 2^64 - 1 ms.
    #[must_use]
    pub fn saturating_add(self, span: Duration) -> Self {
        Self(self.0.saturating_add(millis(span)))
    }

    /// The time `span` earlier, not before the epoch.
    #[must_use]
    pub fn saturating_sub(self, span: Duration) -> Self {
        Self(self.0.saturating_sub(millis(span)))
    }

    /// The time from `earlier` to `self`; zero if `self` is the earlier one.
    pub const fn saturating_since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

/// Wall-clock time that only moves forward while a program runs.
///
/// An engine reads both clocks once, at its start, and from then on gets only `now: Instant`. A wall
/// clock that jumps while the program runs therefore has no effect.
#[derive(Clone, Copy, Debug)]
pub struct Epoch {
    instant: Instant,
    unix: UnixTime,
}

impl Epoch {
    /// Records that `instant` and `unix` are the same moment.
    pub const fn new(instant: Instant, unix: UnixTime) -> Self {
        Self { instant, unix }
    }

    /// The wall-clock time at `now`.
    pub fn unix(&self, now: Instant) -> UnixTime {
        self.unix
            .saturating_add(now.saturating_duration_since(self.instant))
    }
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "any instant will do as a start")]
    fn an_epoch_never_runs_backwards() {
        let start = Instant::now();
        let epoch = Epoch::new(start + Duration::from_secs(9), UnixTime::from_millis(5));
        assert_eq!(epoch.unix(start).as_millis(), 5);
        let later = start + Duration::from_secs(10);
        assert_eq!(epoch.unix(later).as_millis(), 1005);
    }

    #[test]
    fn arithmetic_saturates_at_both_ends() {
        let last = UnixTime::from_millis(u64::MAX);
        assert_eq!(last.saturating_add(Duration::MAX), last);
        assert_eq!(UnixTime::default().saturating_since(last), Duration::ZERO);
    }
}
