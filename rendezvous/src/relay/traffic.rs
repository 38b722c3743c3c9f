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
    accounts: BTreeMap<AccountName, PayerId>,
    /// By their ids: a packet's payer is found at once. At most as many as there have been at a time.
    payers: Vec<Payer>,
    /// Ids that nobody has any more.
    free: Vec<PayerId>,
    all: TokenBucket,
}

/// Identifies an account that has an allocation, as long as it has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct PayerId(pub(super) usize);

/// An account that pays for what it sends.
#[derive(Debug)]
struct Payer {
    account: AccountName,
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
            payers: Vec::new(),
            free: Vec::new(),
            all: TokenBucket::new(now),
        }
    }

    /// An account has one more allocation.
    pub(super) fn add(&mut self, account: AccountName, now: Instant) -> PayerId {
        if let Some(id) = self.accounts.get(&account) {
            self.payers[id.0].allocations += 1;
            return *id;
        }
        let payer = Payer {
            account: account.clone(),
            bucket: TokenBucket::new(now),
            allocations: 1,
        };
        let id = if let Some(id) = self.free.pop() {
            self.payers[id.0] = payer;
            id
        } else {
            self.payers.push(payer);
            PayerId(self.payers.len() - 1)
        };
        self.accounts.insert(account, id);
        id
    }

    /// An account has one allocation less. Tells whether it was the last one.
    pub(super) fn remove(&mut self, id: PayerId) -> bool {
        let payer = &mut self.payers[id.0];
        payer.allocations -= 1;
        let is_last = payer.allocations == 0;
        if is_last {
            self.accounts.remove(&payer.account);
            self.free.push(id);
        }
        is_last
    }

    /// When an account may send so many bytes, unless others send so much until then that all have to wait.
    pub(super) fn ready_for(&self, id: PayerId, bytes: usize, now: Instant) -> Instant {
        let (tokens, own) = (tokens(bytes), self.payers[id.0].bucket);
        let own = own.ready_for(tokens, self.of_account, now);
        own.max(self.all.ready_for(tokens, self.of_all, now))
    }

    /// Tells whether an account may send so many bytes now, and counts them.
    pub(super) fn pay(&mut self, id: PayerId, bytes: usize, now: Instant) -> bool {
        let payer = &mut self.payers[id.0];
        let tokens = tokens(bytes);
        // The account first: whoever has used up their own takes nothing from the others.
        payer.bucket.take(tokens, self.of_account, now) && self.all.take(tokens, self.of_all, now)
    }
}

fn tokens(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX).div_ceil(TOKEN_LEN)
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
    fn traffic<const N: usize>(names: [&str; N]) -> (Traffic, [PayerId; N], Instant) {
        let now = Instant::now();
        let mut traffic = Traffic::new(LIMITS, now);
        let payers = names.map(|account| traffic.add(name(account), now));
        (traffic, payers, now)
    }

    /// Sends packets of 1000 bytes for ten seconds, twice as many as are allowed in all, by each in turn.
    /// Returns the bytes of each that went.
    fn ten_seconds(traffic: &mut Traffic, start: Instant, payers: &[PayerId]) -> Vec<u32> {
        let mut sent = vec![0; payers.len()];
        for step in 0..30_000 {
            let now = start + Duration::from_micros(333) * step;
            let turn = step as usize % payers.len();
            if traffic.pay(payers[turn], 1000, now) {
                sent[turn] += 1000;
            }
        }
        sent
    }

    #[test]
    fn t49_an_account_sends_what_it_may_and_no_more() {
        let (mut traffic, payers, start) = traffic(["alice"]);
        let sent = ten_seconds(&mut traffic, start, &payers)[0];
        // 1000 bytes take 16 tokens, which are 1024.
        assert!((9_700_000..=10_100_000).contains(&sent), "{sent}");
    }

    #[test]
    fn t49_all_accounts_together_have_a_limit_that_they_share() {
        let (mut traffic, payers, start) = traffic(["alice", "bob", "carol"]);
        let sent = ten_seconds(&mut traffic, start, &payers);
        let all: u32 = sent.iter().sum();
        assert!((14_500_000..=15_200_000).contains(&all), "{sent:?}");
        assert!(sent.iter().all(|one| *one > 3_000_000), "{sent:?}");
    }

    #[test]
    fn an_account_pays_for_all_its_allocations_and_debts_last_as_long_as_they_do() {
        let (mut traffic, [alice, again], start) = traffic(["alice", "alice"]);
        assert_eq!(alice, again);
        while traffic.pay(alice, 60_000, start) {}
        traffic.remove(alice);
        assert!(!traffic.pay(alice, 60_000, start));
        traffic.remove(alice);
        assert!(traffic.accounts.is_empty());
        let back = traffic.add(name("alice"), start);
        assert!(traffic.pay(back, 60_000, start));
    }

    #[test]
    fn whoever_comes_takes_the_place_of_whoever_went() {
        let (mut traffic, [alice, bob], start) = traffic(["alice", "bob"]);
        while traffic.pay(alice, 60_000, start) {}
        traffic.remove(alice);
        let carol = traffic.add(name("carol"), start);
        assert_ne!(carol, bob);
        assert!(traffic.pay(carol, 60_000, start), "it owes nothing");
        assert_eq!((traffic.payers.len(), traffic.accounts.len()), (2, 2));
    }

    #[test]
    fn a_batch_of_any_length_passes_at_the_lowest_rate() {
        let lowest = rate(1);
        let highest = rate(u32::MAX);
        assert!(lowest.burst * TOKEN_LEN >= u32::from(u16::MAX));
        assert!(highest.interval > Duration::ZERO);
    }
}
