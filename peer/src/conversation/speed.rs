//! How fast a file moves: the mean of the last few seconds and of nothing before, so that another path shows soon.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// What is further back than this does not count, where enough has been measured since: long enough to even out
/// bursts, and short enough for somebody who looks on when a link goes another way.
const WINDOW: Duration = Duration::from_secs(3);
/// Least time between two measurements: a shorter one says more about buffers than about the line.
const STEP: Duration = Duration::from_millis(500);
/// Where nothing moves for this long, nothing is said to move.
const STALL: Duration = Duration::from_secs(3);
/// What did not move for this long was held up, which says nothing of how fast it is when it goes on.
const PAUSE: Duration = Duration::from_secs(10);
/// More than this is left for nobody to plan with: the rate will not last that long.
const LEFT_SECONDS_MAX: u64 = 99 * 60 * 60;

/// What is known of how fast a file moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pace {
    /// Too little has come so far.
    Unmeasured,
    /// Bytes a second of late.
    PerSecond(u64),
    /// Nothing has come for too long.
    Stalled,
    /// Nothing comes because other files between the same two people do.
    Behind,
}

impl Pace {
    /// Tells whether bytes come, or are about to.
    pub(crate) const fn is_moving(self) -> bool {
        match self {
            Self::Unmeasured | Self::PerSecond(_) => true,
            Self::Stalled | Self::Behind => false,
        }
    }

    /// Whole seconds until so many bytes more have come, where that can be told.
    pub(crate) fn seconds_left(self, bytes: u64) -> Option<u64> {
        match self {
            Self::PerSecond(rate @ 1..) => {
                Some(bytes.div_ceil(rate)).filter(|left| *left <= LEFT_SECONDS_MAX)
            }
            Self::PerSecond(0) | Self::Unmeasured | Self::Stalled | Self::Behind => None,
        }
    }
}

/// The rate at which a number of bytes grows.
#[derive(Debug, Default)]
pub(crate) struct Speed {
    /// Measurements: when, and how many bytes there were. The first is where the window begins, or the last one
    /// before that; at least [`STEP`] apart.
    measured: VecDeque<(Instant, u64)>,
    /// When the bytes last grew, or there were any for the first time.
    grew: Option<Instant>,
    /// They have not grown for [`STALL`].
    is_stalled: bool,
    /// They do not grow, because it is another file's turn.
    is_behind: bool,
    /// It was so before they grew again.
    has_waited: bool,
    bytes: u64,
    /// Bytes a second.
    rate: Option<u64>,
}

impl Speed {
    /// There are so many bytes now.
    pub(crate) fn add(&mut self, bytes: u64, now: Instant) {
        if bytes > self.bytes || self.measured.is_empty() {
            self.grow(bytes, now);
        }
        self.bytes = bytes;
        let Some((last, _)) = self.measured.back() else {
            self.measured.push_back((now, bytes));
            return;
        };
        if now.saturating_duration_since(*last) < STEP {
            return;
        }
        self.measured.push_back((now, bytes));
        let age = |at: Instant| now.saturating_duration_since(at);
        while self
            .measured
            .get(1)
            .is_some_and(|(at, _)| age(*at) >= WINDOW)
        {
            self.measured.pop_front();
        }
        self.rate = self.measured.front().map(|(since, before)| {
            let rate = bytes.saturating_sub(*before) as f64 / age(*since).as_secs_f64();
            rate as u64
        });
    }

    /// After a pause it is measured anew.
    fn grow(&mut self, bytes: u64, now: Instant) {
        self.is_stalled = false;
        let grew = self.grew.replace(now);
        let has_paused = grew.is_some_and(|grew| now.saturating_duration_since(grew) >= PAUSE);
        let is_first = self.bytes == 0 && !self.measured.is_empty();
        if has_paused || is_first || std::mem::take(&mut self.has_waited) {
            self.measured.clear();
            self.measured.push_back((now, bytes));
            self.rate = None;
        }
    }

    /// Notes whether the file waits for its turn.
    pub(crate) const fn set_behind(&mut self, is_behind: bool) {
        self.is_behind = is_behind;
        self.has_waited |= is_behind;
    }

    /// When it counts as stalled, should nothing come by then.
    pub(crate) fn stalls_at(&self) -> Option<Instant> {
        let grew = self.grew.filter(|_| !self.is_stalled);
        grew.map(|grew| grew + STALL)
    }

    /// Notes that nothing has come for too long.
    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        if self.stalls_at().is_some_and(|at| now >= at) {
            self.is_stalled = true;
        }
    }

    /// How fast it is, among all between the same two people in the same direction.
    pub(crate) fn pace<'a>(&self, all: impl IntoIterator<Item = &'a Self>) -> Pace {
        let has_none = self.bytes == 0 || self.is_stalled;
        match self.rate {
            _ if self.is_behind => Pace::Behind,
            _ if has_none && all.into_iter().any(Self::is_moving) => Pace::Behind,
            _ if self.is_stalled => Pace::Stalled,
            Some(rate) => Pace::PerSecond(rate),
            None => Pace::Unmeasured,
        }
    }

    fn is_moving(&self) -> bool {
        self.bytes > 0 && !self.is_stalled && !self.is_behind
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
            assert_eq!(pace(&speed), Pace::Unmeasured);
        }
        for tenth in 4..100 {
            speed.add(tenth * 100, at(start, tenth));
        }
        assert_eq!(pace(&speed), Pace::PerSecond(1000));
    }

    #[test]
    fn another_path_shows_in_the_rate_within_seconds() {
        // From a direct path to the relay, and back.
        for (before, after) in [(10_000_000, 400_000), (400_000, 10_000_000)] {
            let (mut speed, start) = (Speed::default(), start());
            for tenth in 0..=100 {
                speed.add(tenth * before / 10, at(start, tenth));
            }
            assert_eq!(pace(&speed), Pace::PerSecond(before));
            let bytes = 10 * before;
            for tenth in 1..=35 {
                speed.add(bytes + tenth * after / 10, at(start, 100 + tenth));
            }
            assert_eq!(pace(&speed), Pace::PerSecond(after));
        }
    }

    #[test]
    fn bursts_and_seldom_measurements_have_an_even_rate() {
        // Half a second of every second, and one leaf in five seconds.
        let (mut speed, start) = (Speed::default(), start());
        for tenth in 0..100 {
            let bytes = tenth / 10 * 1000 + (tenth % 10).min(5) * 200;
            speed.add(bytes, at(start, tenth));
            if let (40.., Pace::PerSecond(rate)) = (tenth, pace(&speed)) {
                assert!((800..=1200).contains(&rate), "{tenth}: {rate}");
            }
        }
        let mut speed = Speed::default();
        for leaf in 0..10 {
            speed.add(leaf * 5000, at(start, leaf * 50));
            if leaf > 2 {
                assert_eq!(pace(&speed), Pace::PerSecond(1000), "{leaf}");
            }
        }
        assert!(speed.measured.len() < 10);
    }

    #[test]
    fn what_stands_still_has_no_rate() {
        let (mut speed, start) = (Speed::default(), start());
        speed.add(0, start);
        speed.add(1000, at(start, 10));
        assert_eq!(speed.stalls_at(), Some(at(start, 40)));
        speed.add(1000, at(start, 30));
        speed.handle_timeout(at(start, 39));
        assert_ne!(pace(&speed), Pace::Stalled);
        speed.handle_timeout(at(start, 40));
        assert_eq!((pace(&speed), speed.stalls_at()), (Pace::Stalled, None));
        speed.add(2000, at(start, 50));
        assert!(matches!(pace(&speed), Pace::PerSecond(1..)));
        assert!(speed.stalls_at().is_some());
    }

    #[test]
    fn a_pause_says_nothing_of_the_rate() {
        let (mut speed, start) = (Speed::default(), start());
        for tenth in 0..20 {
            speed.add(tenth * 100, at(start, tenth));
        }
        speed.handle_timeout(at(start, 100));
        // An hour later.
        let resumed = at(start, 36_000);
        speed.add(2000, resumed);
        assert_eq!(pace(&speed), Pace::Unmeasured);
        for tenth in 1..=5 {
            speed.add(2000 + tenth * 100, at(resumed, tenth));
        }
        assert_eq!(pace(&speed), Pace::PerSecond(1000));
    }

    #[test]
    fn what_waits_behind_another_is_not_stalled() {
        let (mut first, mut second, start) = (Speed::default(), Speed::default(), start());
        second.add(0, start);
        first.add(0, start);
        assert_eq!(second.pace([&first, &second]), Pace::Unmeasured);
        for tenth in 0..40 {
            assert_eq!(second.pace([&first, &second]) == Pace::Behind, tenth > 1);
            first.add(tenth * 100, at(start, tenth));
        }
        for speed in [&mut first, &mut second] {
            speed.handle_timeout(at(start, 40));
        }
        assert_eq!(second.pace([&first, &second]), Pace::Behind);
        assert_eq!(first.pace([&first, &second]), Pace::PerSecond(1000));
        for speed in [&mut first, &mut second] {
            speed.handle_timeout(at(start, 80));
        }
        for speed in [&first, &second] {
            assert_eq!(speed.pace([&first, &second]), Pace::Stalled);
        }
    }

    #[test]
    fn what_is_left_is_told_where_it_means_something() {
        for (pace, left) in [
            (Pace::PerSecond(10), Some(10)),
            (Pace::PerSecond(3), Some(34)),
            (Pace::PerSecond(0), None),
            (Pace::Stalled, None),
            (Pace::Behind, None),
            (Pace::Unmeasured, None),
        ] {
            assert_eq!(pace.seconds_left(100), left);
        }
        assert_eq!(Pace::PerSecond(1).seconds_left(LEFT_SECONDS_MAX + 1), None);
    }

    fn pace(speed: &Speed) -> Pace {
        speed.pace([speed])
    }

    #[test]
    fn whatever_waits_for_its_turn_has_no_pace() {
        let (mut speed, start) = (Speed::default(), start());
        for tenth in 0..20 {
            speed.add(tenth * 1000, at(start, tenth));
        }
        assert!(matches!(pace(&speed), Pace::PerSecond(_)));
        speed.set_behind(true);
        assert_eq!(pace(&speed), Pace::Behind);
        speed.set_behind(false);
        assert!(matches!(pace(&speed), Pace::PerSecond(_)));
    }

    #[test]
    fn the_time_of_waiting_does_not_count() {
        // From the start, and in between.
        for begun in [0, 30] {
            let (mut speed, start) = (Speed::default(), start());
            for tenth in 0..=begun {
                speed.add(tenth * 1000, at(start, tenth));
            }
            speed.set_behind(begun > 0);
            let again = begun + 80;
            speed.set_behind(false);
            for tenth in 1..=20 {
                speed.add((begun + tenth) * 1000, at(start, again + tenth));
            }
            let Pace::PerSecond(rate) = pace(&speed) else {
                panic!("it moves");
            };
            assert!((9000..=11_000).contains(&rate), "{begun}: {rate}");
        }
    }
}
