//! Schedules look-ups of accounts with pending messages or offers.
//!
//! An account that something waits for and that there is no link to is looked up at once, then at
//! growing intervals; while somebody is missing, the node also has presence changes pushed to it, so
//! that whoever comes online is dialled without delay.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use common::id::AccountName;
use common::limits::{FIND_BACKOFF_FIRST, FIND_BACKOFF_MAX};

/// Accounts that something waits for.
#[derive(Debug, Default)]
pub(super) struct Search {
    wanted: BTreeMap<AccountName, LookUp>,
    /// This device's account: of its devices, whoever comes later looks for the others, so that nobody need watch.
    own: Option<AccountName>,
    watches_always: bool,
    /// Presence changes are of use for the time being, whether anybody is missing or not.
    is_watched: bool,
}

/// The look-up of one account.
#[derive(Debug, Default)]
struct LookUp {
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
    /// Not there: it looks for this device once it is.
    Absent,
}

impl LookUp {
    fn stop_resting(&mut self) {
        if matches!(self.state, State::Resting(_)) {
            self.state = State::Due;
        }
    }
}

impl Search {
    /// Says whom something waits for now, and which account is this device's.
    pub(super) fn set_wanted(&mut self, wanted: BTreeSet<AccountName>, own: Option<&AccountName>) {
        self.own = own.cloned();
        self.wanted.retain(|account, _| wanted.contains(account));
        for account in wanted {
            self.wanted.entry(account).or_default();
        }
    }

    /// Tells whether something waits for `account`.
    pub(super) fn wants(&self, account: &AccountName) -> bool {
        self.wanted.contains_key(account)
    }

    /// A person wants this account now: it does not wait for its next look-up.
    pub(super) fn look_again_for(&mut self, account: &AccountName) {
        if let Some(look_up) = self.wanted.get_mut(account) {
            look_up.stop_resting();
        }
    }

    /// Presence is wanted from now on whether anybody is missing or not.
    pub(super) fn watch_always(&mut self) {
        self.watches_always = true;
    }

    /// Says whether presence changes are of use for the time being, whether anybody is missing or not.
    pub(super) const fn set_watched(&mut self, is_watched: bool) {
        self.is_watched = is_watched;
    }

    /// Tells whether they are wanted in any case.
    pub(super) const fn watches_always(&self) -> bool {
        self.watches_always
    }

    /// Somebody may have come without our being told: whoever is missing is looked for now.
    pub(super) fn look_again(&mut self) {
        for look_up in self.wanted.values_mut() {
            look_up.stop_resting();
        }
    }

    /// Tells whether presence changes are of use.
    pub(super) fn wants_watch(&self) -> bool {
        let mut wanted = self.wanted.iter();
        let is_missing = wanted
            .any(|(account, look_up)| look_up.failures > 0 && self.own.as_ref() != Some(account));
        self.watches_always || self.is_watched || is_missing
    }

    /// The next account to look for, except those that are being dialled.
    pub(super) fn take_due(
        &mut self,
        now: Instant,
        is_dialling: impl Fn(&AccountName) -> bool,
    ) -> Option<AccountName> {
        let is_due = |look_up: &LookUp| match look_up.state {
            State::Due => true,
            State::Busy | State::Absent => false,
            State::Resting(until) => until <= now,
        };
        let mut due = self
            .wanted
            .iter_mut()
            .filter(|(_, look_up)| is_due(look_up));
        let (account, look_up) = due.find(|(account, _)| !is_dialling(account))?;
        look_up.state = State::Busy;
        Some(account.clone())
    }

    /// Its devices are being dialled.
    pub(super) fn on_dialling(&mut self, account: &AccountName) {
        if let Some(look_up) = self.wanted.get_mut(account) {
            look_up.state = State::Busy;
        }
    }

    /// It was not found, or none of its devices answered.
    pub(super) fn on_failed(&mut self, account: &AccountName, now: Instant) {
        if let Some(look_up) = self.wanted.get_mut(account) {
            let pause = FIND_BACKOFF_FIRST * 2u32.saturating_pow(look_up.failures.min(16));
            look_up.state = State::Resting(now + pause.min(FIND_BACKOFF_MAX));
            look_up.failures += 1;
        }
    }

    /// None of its devices is there. Tells whether that is to be said: not of this device's own account.
    pub(super) fn on_absent(&mut self, account: &AccountName, now: Instant) -> bool {
        let is_own = self.own.as_ref() == Some(account);
        match self.wanted.get_mut(account).filter(|_| is_own) {
            Some(look_up) => look_up.state = State::Absent,
            None => self.on_failed(account, now),
        }
        !is_own
    }

    /// The server has said nothing of it: look again then.
    pub(super) fn on_put_off(&mut self, account: &AccountName, until: Instant) {
        if let Some(look_up) = self.wanted.get_mut(account) {
            look_up.state = State::Resting(until);
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
            State::Resting(now + FIND_BACKOFF_FIRST / 4);
    }

    /// The session is new: whatever was asked of the old one is lost.
    pub(super) fn on_online(&mut self) {
        for look_up in self.wanted.values_mut() {
            *look_up = LookUp::default();
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
        let resting = idle.filter_map(|(_, look_up)| match look_up.state {
            State::Resting(until) => Some(until),
            State::Due | State::Busy | State::Absent => None,
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
        let mut search = Search::default();
        search.set_wanted([bob.clone()].into(), None);
        assert!(!search.wants_watch());
        let mut pauses = Vec::new();
        for _ in 0..8 {
            assert_eq!(search.take_due(now, |_| false), Some(bob.clone()));
            assert_eq!(
                search.take_due(now, |_| false),
                None,
                "it is being looked for"
            );
            search.on_failed(&bob, now);
            let due = search.poll_timeout(|_| false).unwrap();
            pauses.push(due - now);
            now = due;
        }
        assert_eq!(
            pauses[..3],
            [
                FIND_BACKOFF_FIRST,
                FIND_BACKOFF_FIRST * 2,
                FIND_BACKOFF_FIRST * 4
            ]
        );
        assert_eq!(pauses[7], FIND_BACKOFF_MAX);
        assert!(search.wants_watch());
        search.set_wanted(BTreeSet::new(), None);
        assert_eq!(
            (search.poll_timeout(|_| false), search.wants_watch()),
            (None, false)
        );
        assert!(FIND_BACKOFF_MAX < Duration::from_secs(120));
    }
}
