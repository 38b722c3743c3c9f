//! A rate limiter: a burst at first, and after that a steady rate.

use std::fmt;
use std::time::{Duration, Instant};

/// A rate limit.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rate {
    /// The bucket gains one token per interval.
    pub(crate) interval: Duration,
    /// Tokens in a full bucket.
    pub(crate) burst: u32,
}

/// A token bucket, stored as the moment at which it is full (generic cell rate algorithm, ITU-T I.371).
#[derive(Clone, Copy, Debug)]
pub(crate) struct TokenBucket {
    full_at: Instant,
}

impl Rate {
    /// So many tokens a second, after so many at once.
    pub(crate) const fn per_second(tokens: u32, burst: u32) -> Self {
        Self {
            interval: Duration::from_nanos(1_000_000_000 / tokens as u64),
            burst,
        }
    }
}

impl TokenBucket {
    /// A full bucket.
    pub(crate) const fn new(now: Instant) -> Self {
        Self { full_at: now }
    }

    /// Takes `count` tokens; `false`, and nothing is taken, if there are fewer.
    pub(crate) fn take(&mut self, count: u32, rate: Rate, now: Instant) -> bool {
        let full_at = self.full_at.max(now) + rate.interval * count;
        let is_enough = full_at <= now + rate.interval * rate.burst;
        if is_enough {
            self.full_at = full_at;
        }
        is_enough
    }

    /// When there is a token again.
    pub(crate) fn ready_at(&self, rate: Rate, now: Instant) -> Instant {
        self.ready_for(1, rate, now)
    }

    /// When there are `count` tokens, no more than a full bucket has.
    pub(crate) fn ready_for(&self, count: u32, rate: Rate, now: Instant) -> Instant {
        let owed = self.full_at.saturating_duration_since(now) + rate.interval * count;
        now + owed.saturating_sub(rate.interval * rate.burst)
    }

    /// When the bucket is full again.
    pub(crate) const fn full_at(&self) -> Instant {
        self.full_at
    }
}

/// Buckets that keys share by a keyed hash, so that they take a fixed amount of memory and nobody can tell
/// whose bucket is emptied with their own.
pub(crate) struct SharedBuckets {
    key: [u8; 32],
    buckets: Box<[TokenBucket]>,
}

impl SharedBuckets {
    /// So many take 64 KiB.
    const COUNT: usize = 4096;

    /// Full buckets. The key is random.
    pub(crate) fn new(key: [u8; 32], now: Instant) -> Self {
        Self {
            key,
            buckets: vec![TokenBucket::new(now); Self::COUNT].into(),
        }
    }

    /// The bucket of a key, which it may share with others.
    pub(crate) fn of(&mut self, key: &[u8]) -> &mut TokenBucket {
        let hash = blake3::keyed_hash(&self.key, key);
        let [low, high, ..] = *hash.as_bytes();
        let index = usize::from(u16::from_le_bytes([low, high])) % Self::COUNT;
        &mut self.buckets[index]
    }
}

impl fmt::Debug for SharedBuckets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedBuckets").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "any instant will do as a start")]
    fn after_a_few_at_once_the_pace_is_kept() {
        let rate = Rate {
            interval: Duration::from_secs(5),
            burst: 3,
        };
        let start = Instant::now();
        let mut bucket = TokenBucket::new(start);
        assert!(!bucket.take(4, rate, start), "never more than at once");
        assert!(bucket.take(3, rate, start));
        assert!(!bucket.take(1, rate, start));
        let ready = bucket.ready_at(rate, start);
        assert_eq!(ready, start + rate.interval);
        assert!(!bucket.take(1, rate, ready - Duration::from_nanos(1)));
        let ready_for_two = bucket.ready_for(2, rate, ready);
        assert_eq!(ready_for_two, ready + rate.interval);
        assert!(!{ bucket }.take(2, rate, ready_for_two - Duration::from_nanos(1)));
        assert!({ bucket }.take(2, rate, ready_for_two));
        assert!(bucket.take(1, rate, ready));
        // A minute of asking all the time: the rate, and what was at once.
        let mut bucket = TokenBucket::new(start);
        let tenths = (0..600).map(|tenth| start + Duration::from_millis(100) * tenth);
        let taken = tenths.filter(|now| bucket.take(1, rate, *now)).count();
        assert_eq!(taken, 3 + 59 / 5);
        let rested = bucket.full_at();
        assert!(bucket.take(3, rate, rested));
    }
}
