//! Moments and spans as they stand on the wire and in the store.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

/// A moment in milliseconds since 1970-01-01 00:00:00 UTC.
///
/// It says when something happened, to a person; it never decides how long to wait.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct UnixTime(u64);

impl UnixTime {
    /// Takes milliseconds since the epoch.
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis)
    }

    /// Milliseconds since the epoch.
    pub const fn as_millis(self) -> u64 {
        self.0
    }

    /// The moment `span` later; stays at the last one that can be written.
    #[must_use]
    pub fn saturating_add(self, span: Duration) -> Self {
        Self(self.0.saturating_add(millis(span)))
    }

    /// The moment `span` earlier; not before the epoch.
    #[must_use]
    pub fn saturating_sub(self, span: Duration) -> Self {
        Self(self.0.saturating_sub(millis(span)))
    }

    /// How long `self` is after `earlier`; zero if it is not.
    pub const fn saturating_since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

/// Wall-clock time that only moves forward while a program runs.
///
/// An engine gets both clocks once, at its start, and from then on only `now: Instant`. A wall clock
/// that is set back or jumps while the program runs therefore changes nothing.
#[derive(Clone, Copy, Debug)]
pub struct Epoch {
    instant: Instant,
    unix: UnixTime,
}

impl Epoch {
    /// Notes that `instant` and `unix` are the same moment.
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
