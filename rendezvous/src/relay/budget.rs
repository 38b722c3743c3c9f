//! Limits the answers that are longer than their requests: whoever forges the sender of a bare STUN
//! request has the server send 12 to 72 bytes more than it got, to somebody who did not ask.

use std::time::Instant;

use common::limits::{
    LONGER_ANSWER_EXCESS, LONGER_ANSWERS_PER_SECOND_MAX, LONGER_ANSWERS_PER_SOURCE_MAX,
};

use crate::source::SourcePrefix;
use crate::token_bucket::{Rate, SharedBuckets, TokenBucket};

/// For one prefix.
const OF_SOURCE: Rate =
    Rate::per_second(LONGER_ANSWERS_PER_SOURCE_MAX, LONGER_ANSWERS_PER_SOURCE_MAX);
/// For all of them.
const OF_ALL: Rate = Rate::per_second(LONGER_ANSWERS_PER_SECOND_MAX, LONGER_ANSWERS_PER_SECOND_MAX);

/// The answers that may still be longer than their requests.
#[derive(Debug)]
pub(super) struct Budget {
    sources: SharedBuckets,
    all: TokenBucket,
}

impl Budget {
    /// A full budget. The key is random.
    pub(super) fn new(key: [u8; 32], now: Instant) -> Self {
        Self {
            sources: SharedBuckets::new(key, now),
            all: TokenBucket::new(now),
        }
    }

    /// Tells whether an answer that has so many bytes more than its request may go to a prefix, and counts it
    /// once for each [`LONGER_ANSWER_EXCESS`], the last of which may be less.
    pub(super) fn take(&mut self, source: SourcePrefix, excess: usize, now: Instant) -> bool {
        let tokens = u32::try_from(excess.div_ceil(LONGER_ANSWER_EXCESS)).unwrap_or(u32::MAX);
        let bucket = self.sources.of(&source.octets());
        // The prefix first: whoever has used up their own takes nothing from the others.
        bucket.take(tokens, OF_SOURCE, now) && self.all.take(tokens, OF_ALL, now)
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::time::Duration;

    use super::*;

    #[expect(clippy::disallowed_methods, reason = "any instant will do as a start")]
    fn budget() -> (Budget, Instant) {
        let now = Instant::now();
        (Budget::new([7; 32], now), now)
    }

    fn prefix(number: u32) -> SourcePrefix {
        SourcePrefix::of(Ipv4Addr::from_bits(number).into())
    }

    /// Asks for as many answers as it can in so many steps of a time; returns how many there were.
    fn taken(
        budget: &mut Budget,
        start: Instant,
        steps: u32,
        step: Duration,
        prefix: impl Fn(u32) -> SourcePrefix,
    ) -> u32 {
        let asked = (0..steps * 100).filter(|count| {
            let now = start + step * (count / 100);
            budget.take(prefix(*count), LONGER_ANSWER_EXCESS, now)
        });
        asked.count() as u32
    }

    #[test]
    fn t13_a_prefix_gets_so_many_longer_answers_a_second() {
        let (mut budget, start) = budget();
        let step = Duration::from_millis(100);
        let taken = taken(&mut budget, start, 100, step, |_| prefix(1));
        let most = LONGER_ANSWERS_PER_SOURCE_MAX * 11;
        assert!((most - 10..=most).contains(&taken), "{taken}");
        assert!(budget.take(prefix(2), 1, start + Duration::from_secs(10)));
    }

    #[test]
    fn t13_a_longer_answer_takes_as_much_as_several() {
        let (mut budget, start) = budget();
        let bytes = [12, 24, 36, 72].map(|excess| {
            let prefix = prefix(excess as u32);
            let count = (0..100).filter(|_| budget.take(prefix, excess, start));
            count.count() * excess
        });
        let most = LONGER_ANSWERS_PER_SOURCE_MAX as usize * LONGER_ANSWER_EXCESS;
        assert!(bytes.iter().all(|bytes| *bytes <= most), "{bytes:?}");
        assert_eq!(bytes[1], most);
    }

    #[test]
    fn t13_all_prefixes_together_get_so_many_longer_answers_a_second() {
        let (mut budget, start) = budget();
        let step = Duration::from_millis(10);
        let taken = taken(&mut budget, start, 500, step, prefix);
        let most = LONGER_ANSWERS_PER_SECOND_MAX * 6;
        assert!((most - 100..=most).contains(&taken), "{taken}");
    }
}
