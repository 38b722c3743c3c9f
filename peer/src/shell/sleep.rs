//! Notices that the device was asleep: the monotonic clock stands still meanwhile, and the clock since the boot
//! goes on (clock_getres(2)).

use std::time::Duration;

/// Shorter than any sleep, and longer than what reading two clocks takes.
const SLEEP_MIN: Duration = Duration::from_secs(1);

/// Compares the two clocks.
#[derive(Debug)]
pub(super) struct SleepWatch {
    /// How long the device has been asleep since its boot, when that was looked at last.
    asleep: Duration,
}

impl SleepWatch {
    /// Notices what comes from now on.
    pub(super) fn new() -> Self {
        let asleep = time_asleep();
        Self { asleep }
    }

    /// How long the device has been asleep since the last call, if it has.
    pub(super) fn take(&mut self) -> Option<Duration> {
        self.take_span(time_asleep())
    }

    fn take_span(&mut self, asleep: Duration) -> Option<Duration> {
        let span = asleep.saturating_sub(self.asleep);
        let has_slept = span >= SLEEP_MIN;
        if has_slept {
            self.asleep = asleep;
        }
        has_slept.then_some(span)
    }
}

#[cfg(target_os = "linux")]
fn time_asleep() -> Duration {
    use rustix::time::{ClockId, Timespec, clock_gettime};
    let since_boot = |clock| {
        let Timespec { tv_sec, tv_nsec } = clock_gettime(clock);
        let (seconds, nanos) = (u64::try_from(tv_sec), u32::try_from(tv_nsec));
        Duration::new(seconds.unwrap_or_default(), nanos.unwrap_or_default())
    };
    // In this order the time between the two readings counts as sleep, and not against it.
    let awake = since_boot(ClockId::Monotonic);
    since_boot(ClockId::Boottime).saturating_sub(awake)
}

/// Nothing is known of it.
#[cfg(not(target_os = "linux"))]
const fn time_asleep() -> Duration {
    Duration::ZERO
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sleep_is_told_once_and_moments_are_none() {
        let s = Duration::from_secs;
        let mut watch = SleepWatch { asleep: s(100) };
        let moment = Duration::from_micros(3);
        assert_eq!(watch.take_span(s(100) + moment), None);
        assert_eq!(watch.take_span(s(100)), None);
        assert_eq!(watch.take_span(s(3700)), Some(s(3600)));
        assert_eq!(watch.take_span(s(3700) + moment), None);
        assert_eq!(watch.take_span(s(3701)), Some(s(1)));
    }

    #[test]
    fn nobody_sleeps_here() {
        assert_eq!(SleepWatch::new().take(), None);
    }
}
