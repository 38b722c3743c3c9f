//! When to look for whom.
//!
//! Something may wait for an account that there is no link to. It is looked for at once, then at
//! growing intervals; while somebody is missing, the node also has presence changes pushed to it, so
//! that whoever comes online is dialled without delay.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use common::id::AccountName;
use common::limits::{FIND_FIRST, FIND_MAX};

/// Accounts that something waits for.
#[derive(Debug, Default)]
pub(super) struct Reach {
    wanted: BTreeMap<AccountName, Search>,
    watches_always: bool,
}

#[derive(Debug, Default)]
struct Search {
    state: State,
    failures: u32,
}

#[derive(Debug, Default, PartialEq, Eq)]
enum State {
    /// To be looked for now.
    #[default]
    Due,
    /// The rendezvous was asked, or devices are being dialled.
    Busy,
    /// Not found; look again then.
    Resting(Instant),
}

impl Reach {
    /// Says whom something waits for now.
    pub(super) fn set_wanted(&mut self, wanted: BTreeSet<AccountName>) {
        self.wanted.retain(|account, _| wanted.contains(account));
        for account in wanted {
            self.wanted.entry(account).or_default();
        }
    }

    /// Tells whether something waits for `account`.
    pub(super) fn is_wanted(&self, account: &AccountName) -> bool {
        self.wanted.contains_key(account)
    }

    /// Presence is wanted from now on whether anybody is missing or not.
    pub(super) fn watch_always(&mut self) {
        self.watches_always = true;
    }

    /// Tells whether they are wanted in any case.
    pub(super) const fn watches_always(&self) -> bool {
        self.watches_always
    }

    /// Somebody may have come without our being told: whoever is missing is looked for now.
    pub(super) fn look_again(&mut self) {
        for search in self.wanted.values_mut() {
            if matches!(search.state, State::Resting(_)) {
                search.state = State::Due;
            }
        }
    }

    /// Tells whether presence changes are of use.
    pub(super) fn wants_watch(&self) -> bool {
        let is_missing = |search: &Search| search.failures > 0;
        self.watches_always || self.wanted.values().any(is_missing)
    }

    /// The next account to look for, except those that are being dialled.
    pub(super) fn take_due(
        &mut self,
        now: Instant,
        is_dialling: impl Fn(&AccountName) -> bool,
    ) -> Option<AccountName> {
        let is_due = |search: &Search| match search.state {
            State::Due => true,
            State::Busy => false,
            State::Resting(until) => until <= now,
        };
        let mut due = self.wanted.iter_mut().filter(|(_, search)| is_due(search));
        let (account, search) = due.find(|(account, _)| !is_dialling(account))?;
        search.state = State::Busy;
        Some(account.clone())
    }

    /// Its devices are being dialled.
    pub(super) fn on_dialling(&mut self, account: &AccountName) {
        if let Some(search) = self.wanted.get_mut(account) {
            search.state = State::Busy;
        }
    }

    /// It was not found, or none of its devices answered.
    pub(super) fn on_failed(&mut self, account: &AccountName, now: Instant) {
        if let Some(search) = self.wanted.get_mut(account) {
            let pause = FIND_FIRST * 2u32.saturating_pow(search.failures.min(16));
            search.state = State::Resting(now + pause.min(FIND_MAX));
            search.failures += 1;
        }
    }

    /// There is a link.
    pub(super) fn on_linked(&mut self, account: &AccountName) {
        self.wanted.remove(account);
    }

    /// A link was lost: if something still waits, it is looked for again soon, but not so soon that a
    /// device which hangs up at once keeps this one busy.
    pub(super) fn on_lost(&mut self, account: &AccountName, now: Instant) {
        self.wanted.entry(account.clone()).or_default().state =
            State::Resting(now + FIND_FIRST / 4);
    }

    /// The session is new: whatever was asked of the old one is lost.
    pub(super) fn on_online(&mut self) {
        for search in self.wanted.values_mut() {
            *search = Search::default();
        }
    }

    /// When the next account is due that is not being dialled.
    pub(super) fn poll_timeout(
        &self,
        is_dialling: impl Fn(&AccountName) -> bool,
    ) -> Option<Instant> {
        let idle = self
            .wanted
            .iter()
            .filter(|(account, _)| !is_dialling(account));
        let resting = idle.filter_map(|(_, search)| match search.state {
            State::Resting(until) => Some(until),
            State::Due | State::Busy => None,
        });
        resting.min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "any instant will do as a start")]
    fn a_missing_account_is_looked_for_at_growing_intervals() {
        let mut now = Instant::now();
        let bob: AccountName = "bob".parse().unwrap();
        let mut reach = Reach::default();
        reach.set_wanted([bob.clone()].into());
        assert!(!reach.wants_watch());
        let mut pauses = Vec::new();
        for _ in 0..8 {
            assert_eq!(reach.take_due(now, |_| false), Some(bob.clone()));
            assert_eq!(
                reach.take_due(now, |_| false),
                None,
                "it is being looked for"
            );
            reach.on_failed(&bob, now);
            let due = reach.poll_timeout(|_| false).unwrap();
            pauses.push(due - now);
            now = due;
        }
        assert_eq!(pauses[..3], [FIND_FIRST, FIND_FIRST * 2, FIND_FIRST * 4]);
        assert_eq!(pauses[7], FIND_MAX);
        assert!(reach.wants_watch());
        reach.set_wanted(BTreeSet::new());
        assert_eq!(
            (reach.poll_timeout(|_| false), reach.wants_watch()),
            (None, false)
        );
        assert!(FIND_MAX < Duration::from_secs(120));
    }
}
