//! How fast a file moves: a mean that forgets.

use std::time::{Duration, Instant};

/// What is further back than this counts for less than half.
const MEMORY: Duration = Duration::from_secs(4);
/// Least time between two measurements: a shorter one says more about buffers than about the line.
const STEP: Duration = Duration::from_millis(500);
/// Where nothing moves for this long, nothing is said to move.
const STALL: Duration = Duration::from_secs(3);

/// The rate at which a number of bytes grows.
#[derive(Debug, Default)]
pub(super) struct Speed {
    /// The last measurement: when, and how many bytes there were.
    measured: Option<(Instant, u64)>,
    /// When the bytes last grew; `None` once they have not for [`STALL`].
    grew: Option<Instant>,
    bytes: u64,
    /// Bytes a second.
    mean: Option<f64>,
}

impl Speed {
    /// There are so many bytes now.
    pub(super) fn add(&mut self, bytes: u64, now: Instant) {
        if bytes > self.bytes || self.measured.is_none() {
            self.grew = Some(now);
        }
        self.bytes = bytes;
        let Some((since, before)) = self.measured else {
            self.measured = Some((now, bytes));
            return;
        };
        let span = now.saturating_duration_since(since);
        if span < STEP {
            return;
        }
        self.measured = Some((now, bytes));
        let rate = bytes.saturating_sub(before) as f64 / span.as_secs_f64();
        let weight = 1.0 - (-span.as_secs_f64() / MEMORY.as_secs_f64()).exp();
        self.mean = Some(match self.mean {
            Some(mean) => mean + weight * (rate - mean),
            None => rate,
        });
    }

    /// When it counts as stalled, should nothing come by then.
    pub(super) fn stalls_at(&self) -> Option<Instant> {
        self.grew.map(|grew| grew + STALL)
    }

    /// Notes that nothing has come for too long.
    pub(super) fn handle_timeout(&mut self, now: Instant) {
        if self.stalls_at().is_some_and(|at| now >= at) {
            self.grew = None;
            self.mean = Some(0.0);
        }
    }

    /// Bytes a second; `None` before there is anything to tell it from.
    pub(super) fn rate(&self) -> Option<u64> {
        self.mean.map(|mean| mean as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[expect(clippy::disallowed_methods, reason = "any instant will do as a start")]
    fn start() -> Instant {
        Instant::now()
    }

    fn at(start: Instant, tenths: u64) -> Instant {
        start + Duration::from_millis(100 * tenths)
    }

    #[test]
    fn an_even_rate_is_told_as_it_is() {
        let (mut speed, start) = (Speed::default(), start());
        for tenth in 0..4 {
            speed.add(tenth * 100, at(start, tenth));
            assert_eq!(speed.rate(), None);
        }
        for tenth in 4..100 {
            speed.add(tenth * 100, at(start, tenth));
        }
        assert_eq!(speed.rate(), Some(1000));
    }

    #[test]
    fn a_new_rate_is_believed_within_seconds() {
        let (mut speed, start) = (Speed::default(), start());
        speed.add(0, start);
        speed.add(1000, at(start, 10));
        for tenth in 11..110 {
            speed.add(1000 + (tenth - 10) * 10, at(start, tenth));
        }
        let rate = speed.rate().unwrap();
        assert!((100..=220).contains(&rate), "{rate}");
    }

    #[test]
    fn what_stands_still_has_no_rate() {
        let (mut speed, start) = (Speed::default(), start());
        speed.add(0, start);
        speed.add(1000, at(start, 10));
        assert_eq!(speed.stalls_at(), Some(at(start, 40)));
        speed.add(1000, at(start, 30));
        speed.handle_timeout(at(start, 39));
        assert_ne!(speed.rate(), Some(0));
        speed.handle_timeout(at(start, 40));
        assert_eq!((speed.rate(), speed.stalls_at()), (Some(0), None));
        speed.add(2000, at(start, 50));
        assert!(speed.rate().unwrap() > 0);
        assert!(speed.stalls_at().is_some());
    }
}
