//! Limits what accounts send through relay channels, each by itself and all together.

use std::collections::BTreeMap;
use std::time::Instant;

use common::id::AccountName;
use common::limits::RELAY_BURST;

use crate::token_bucket::{Rate, TokenBucket};

/// Bytes of a token: fine enough for single packets, and coarse enough for rates of 10 Gbit/s.
const TOKEN_LEN: u32 = 64;

/// How much may be sent, in bytes a second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TrafficLimits {
    /// By one account.
    pub of_account: u32,
    /// By all together.
    pub of_all: u32,
}

/// What the accounts with allocations may still send.
#[derive(Debug)]
pub(super) struct Traffic {
    of_account: Rate,
    of_all: Rate,
    accounts: BTreeMap<AccountName, Payer>,
    all: TokenBucket,
}

/// An account that pays for what it sends.
#[derive(Debug)]
struct Payer {
    bucket: TokenBucket,
    /// Number of its allocations. It is kept, in debt or not, while it has any.
    allocations: usize,
}

impl Traffic {
    pub(super) fn new(limits: TrafficLimits, now: Instant) -> Self {
        Self {
            of_account: rate(limits.of_account),
            of_all: rate(limits.of_all),
            accounts: BTreeMap::new(),
            all: TokenBucket::new(now),
        }
    }

    /// An account has one more allocation.
    pub(super) fn add(&mut self, account: &AccountName, now: Instant) {
        let payer = self.accounts.entry(account.clone()).or_insert(Payer {
            bucket: TokenBucket::new(now),
            allocations: 0,
        });
        payer.allocations += 1;
    }

    /// An account has one allocation less.
    pub(super) fn remove(&mut self, account: &AccountName) {
        if let Some(payer) = self.accounts.get_mut(account) {
            payer.allocations -= 1;
            if payer.allocations == 0 {
                self.accounts.remove(account);
            }
        }
    }

    /// Tells whether an account may send so many bytes now, and counts them.
    pub(super) fn pay(&mut self, account: &AccountName, bytes: usize, now: Instant) -> bool {
        let Some(payer) = self.accounts.get_mut(account) else {
            return false;
        };
        let tokens = u32::try_from(bytes).unwrap_or(u32::MAX).div_ceil(TOKEN_LEN);
        // The account first: whoever has used up their own takes nothing from the others.
        payer.bucket.take(tokens, self.of_account, now) && self.all.take(tokens, self.of_all, now)
    }
}

fn rate(bytes_per_second: u32) -> Rate {
    let per_second = (bytes_per_second / TOKEN_LEN).max(1);
    let burst = RELAY_BURST.as_secs_f64() * f64::from(per_second);
    // Never less than the longest batch that comes at once.
    let burst = (burst as u32).max(u32::from(u16::MAX).div_ceil(TOKEN_LEN));
    Rate::per_second(per_second, burst)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const LIMITS: TrafficLimits = TrafficLimits {
        of_account: 1_000_000,
        of_all: 1_500_000,
    };

    fn name(text: &str) -> AccountName {
        text.parse().unwrap()
    }

    #[expect(clippy::disallowed_methods, reason = "any instant will do as a start")]
    fn traffic(names: &[&str]) -> (Traffic, Instant) {
        let now = Instant::now();
        let mut traffic = Traffic::new(LIMITS, now);
        for account in names {
            traffic.add(&name(account), now);
        }
        (traffic, now)
    }

    /// Sends packets of 1000 bytes for ten seconds, twice as many as are allowed in all, by each in turn.
    /// Returns the bytes of each that went.
    fn ten_seconds(traffic: &mut Traffic, start: Instant, names: &[&str]) -> Vec<u32> {
        let mut sent = vec![0; names.len()];
        for step in 0..30_000 {
            let now = start + Duration::from_micros(333) * step;
            let turn = step as usize % names.len();
            if traffic.pay(&name(names[turn]), 1000, now) {
                sent[turn] += 1000;
            }
        }
        sent
    }

    #[test]
    fn t49_an_account_sends_what_it_may_and_no_more() {
        let (mut traffic, start) = traffic(&["alice"]);
        let sent = ten_seconds(&mut traffic, start, &["alice"])[0];
        // 1000 bytes take 16 tokens, which are 1024.
        assert!((9_700_000..=10_100_000).contains(&sent), "{sent}");
    }

    #[test]
    fn t49_all_accounts_together_have_a_limit_that_they_share() {
        let names = ["alice", "bob", "carol"];
        let (mut traffic, start) = traffic(&names);
        let sent = ten_seconds(&mut traffic, start, &names);
        let all: u32 = sent.iter().sum();
        assert!((14_500_000..=15_200_000).contains(&all), "{sent:?}");
        assert!(sent.iter().all(|one| *one > 3_000_000), "{sent:?}");
    }

    #[test]
    fn nobody_sends_without_an_end_and_debts_last_as_long_as_the_ends() {
        let (mut traffic, start) = traffic(&["alice", "alice"]);
        assert!(!traffic.pay(&name("bob"), 1, start));
        while traffic.pay(&name("alice"), 60_000, start) {}
        traffic.remove(&name("alice"));
        assert!(!traffic.pay(&name("alice"), 60_000, start));
        traffic.remove(&name("alice"));
        assert!(!traffic.pay(&name("alice"), 1, start));
        assert!(traffic.accounts.is_empty());
    }

    #[test]
    fn a_batch_of_any_length_passes_at_the_lowest_rate() {
        let lowest = rate(1);
        let highest = rate(u32::MAX);
        assert!(lowest.burst * TOKEN_LEN >= u32::from(u16::MAX));
        assert!(highest.interval > Duration::ZERO);
    }
}
