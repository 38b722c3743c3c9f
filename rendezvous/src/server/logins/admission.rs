//! One-time codes: an owner or the operator lets one new device past a block.
//!
//! A code admits one log-in at a time. It is used up by one that succeeds, or by
//! [`ADMISSION_FAILURES_MAX`] that fail: a slip in the password does not cost the code.

use std::collections::BTreeMap;
use std::time::Instant;

use common::id::AccountName;
use common::limits::{ADMISSION_FAILURES_MAX, ADMISSION_LIFETIME, ADMISSIONS_PER_ACCOUNT_MAX};
use common::time::{Epoch, UnixTime};
use common::wire::rendezvous::AdmissionCode;

use crate::store::Admission;

/// The codes that nobody has used, at most [`ADMISSIONS_PER_ACCOUNT_MAX`] for each account.
#[derive(Debug)]
pub(super) struct Admissions {
    epoch: Epoch,
    open: BTreeMap<AccountName, Vec<Open>>,
}

#[derive(Clone, Debug)]
struct Open {
    kept: Admission,
    expires: Instant,
    /// A log-in is under way with it.
    is_in_use: bool,
    failures: u32,
}

impl Open {
    const fn new(kept: Admission, expires: Instant) -> Self {
        Self {
            kept,
            expires,
            is_in_use: false,
            failures: 0,
        }
    }
}

impl Admissions {
    /// Starts from what the store kept. No code lives longer than [`ADMISSION_LIFETIME`] from now.
    pub(super) fn new(epoch: Epoch, kept: Vec<Admission>, now: Instant) -> Self {
        let mut this = Self {
            epoch,
            open: BTreeMap::new(),
        };
        for kept in kept {
            let left = kept.expires.saturating_since(epoch.unix(now));
            let expires = now + left.min(ADMISSION_LIFETIME);
            let codes = this.open.entry(kept.account.clone()).or_default();
            codes.push(Open::new(kept, expires));
        }
        this
    }

    /// Drops the codes of an account that have expired, and returns them for the store to drop.
    pub(super) fn expire(&mut self, account: &AccountName, now: Instant) -> Vec<Admission> {
        let Some(codes) = self.open.get_mut(account) else {
            return Vec::new();
        };
        let expired = codes.extract_if(.., |open| open.expires <= now);
        let expired = expired.map(|open| open.kept).collect();
        if codes.is_empty() {
            self.open.remove(account);
        }
        expired
    }

    /// Opens `code` for an account; `None` if it has as many as it may have, expired ones included
    /// until [`Self::expire`].
    pub(super) fn open(
        &mut self,
        account: &AccountName,
        code: AdmissionCode,
        now: Instant,
    ) -> Option<Admission> {
        let codes = self.open.entry(account.clone()).or_default();
        if codes.len() >= ADMISSIONS_PER_ACCOUNT_MAX {
            return None;
        }
        let expires: UnixTime = self.epoch.unix(now).saturating_add(ADMISSION_LIFETIME);
        let kept = Admission {
            account: account.clone(),
            code,
            expires,
        };
        codes.push(Open::new(kept.clone(), now + ADMISSION_LIFETIME));
        Some(kept)
    }

    /// Begins a log-in with `code`; `false` if it does not admit to this account now.
    pub(super) fn begin(
        &mut self,
        account: &AccountName,
        code: AdmissionCode,
        now: Instant,
    ) -> bool {
        let open = self.find(account, code);
        let free = open.filter(|open| open.expires > now && !open.is_in_use);
        free.map(|open| open.is_in_use = true).is_some()
    }

    /// Ends a log-in with `code` that came to nothing before a password was tried.
    pub(super) fn release(&mut self, account: &AccountName, code: AdmissionCode) {
        if let Some(open) = self.find(account, code) {
            open.is_in_use = false;
        }
    }

    /// Ends a log-in with `code` that failed; the code comes back if that used it up.
    pub(super) fn fail(&mut self, account: &AccountName, code: AdmissionCode) -> Option<Admission> {
        let open = self.find(account, code)?;
        open.is_in_use = false;
        open.failures += 1;
        if open.failures < ADMISSION_FAILURES_MAX {
            return None;
        }
        self.take(account, code)
    }

    /// Uses up `code`. `None` if it is not open any more.
    pub(super) fn take(&mut self, account: &AccountName, code: AdmissionCode) -> Option<Admission> {
        let codes = self.open.get_mut(account)?;
        let index = codes.iter().position(|open| open.kept.code == code)?;
        let used = codes.swap_remove(index).kept;
        if codes.is_empty() {
            self.open.remove(account);
        }
        Some(used)
    }

    fn find(&mut self, account: &AccountName, code: AdmissionCode) -> Option<&mut Open> {
        let codes = self.open.get_mut(account)?;
        codes.iter_mut().find(|open| open.kept.code == code)
    }

    /// Forgets the codes of an account that is gone.
    pub(super) fn forget(&mut self, account: &AccountName) {
        self.open.remove(account);
    }

    /// Drops the codes that have expired, and returns them for the store to drop.
    pub(super) fn sweep(&mut self, now: Instant) -> Vec<Admission> {
        let mut expired = Vec::new();
        self.open.retain(|_, codes| {
            codes.retain(|open| {
                let is_alive = open.expires > now;
                if !is_alive {
                    expired.push(open.kept.clone());
                }
                is_alive
            });
            !codes.is_empty()
        });
        expired
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "any instant will do as a start")]
    fn a_code_works_once_for_its_account_and_not_for_ever() {
        let now = Instant::now();
        let epoch = Epoch::new(now, UnixTime::from_millis(1_000_000));
        let mut admissions = Admissions::new(epoch, Vec::new(), now);
        let (alice, bob) = ("alice".parse().unwrap(), "bob".parse().unwrap());
        let code = AdmissionCode::from_random(7);
        admissions.open(&alice, code, now).unwrap();
        assert!(!admissions.begin(&bob, code, now));
        assert!(admissions.begin(&alice, code, now));
        assert!(!admissions.begin(&alice, code, now), "one at a time");
        assert!(admissions.take(&alice, code).is_some());
        assert!(!admissions.begin(&alice, code, now), "once");

        admissions.open(&alice, code, now).unwrap();
        for _ in 1..ADMISSION_FAILURES_MAX {
            assert!(admissions.begin(&alice, code, now));
            assert!(admissions.fail(&alice, code).is_none());
        }
        assert!(admissions.begin(&alice, code, now));
        assert!(admissions.fail(&alice, code).is_some());
        assert!(!admissions.begin(&alice, code, now), "slips have an end");

        for bits in 0..ADMISSIONS_PER_ACCOUNT_MAX as u64 {
            assert!(
                admissions
                    .open(&alice, AdmissionCode::from_random(bits), now)
                    .is_some()
            );
        }
        assert!(admissions.open(&alice, code, now).is_none(), "four at most");
        let later = now + ADMISSION_LIFETIME;
        let expired = AdmissionCode::from_random(1);
        assert!(!admissions.begin(&alice, expired, later));
        assert_eq!(admissions.sweep(later).len(), ADMISSIONS_PER_ACCOUNT_MAX);
        assert!(admissions.open(&alice, code, later).is_some());
        assert!(admissions.expire(&alice, later).is_empty());
        assert_eq!(
            admissions.expire(&alice, later + ADMISSION_LIFETIME).len(),
            1
        );
    }
}
