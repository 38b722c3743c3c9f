//! What the server counts against accounts, looked at from outside: a count falls by a success of the
//! same lane, by time or by an operator, and by nothing else. A crash may forget only what nobody was
//! told of.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use common::id::AccountName;
use common::limits::BLOCK_RESET_AFTER;
use common::wire::rendezvous::{RequestId, ServerFrame};
use rendezvous::server::logins::lockout::{Lane, Lockouts, Standing};
use rendezvous::server::{ConnectionId, Frame};
use rendezvous::source::SourcePrefix;

use super::check::Violation;

/// The store keeps times in milliseconds.
const ROUNDING: Duration = Duration::from_millis(2);

/// The counts as they were, and what happened since.
#[derive(Debug, Default)]
pub struct Ledger {
    before: BTreeMap<AccountName, Before>,
    attempts: BTreeMap<ConnectionId, Attempt>,
    /// The connection whose last message of a log-in is being looked at.
    finishing: Option<ConnectionId>,
    /// Right passwords since the last look.
    proofs: Vec<Attempt>,
    /// Accounts whose operator lets everybody in again, until the answer has been looked at.
    unblocked: BTreeMap<AccountName, bool>,
    /// Attempts by account that a crash has ended before anybody was told anything.
    untold: BTreeMap<AccountName, u32>,
    is_due: bool,
}

/// An account at the last look.
#[derive(Debug)]
struct Before {
    at: Instant,
    strangers: Standing,
    known: Standing,
}

/// A password log-in.
#[derive(Clone, Debug)]
struct Attempt {
    account: AccountName,
    source: SourcePrefix,
    lane: Lane,
    request: RequestId,
    is_answered: bool,
}

impl Ledger {
    /// Somebody starts to log in with a password.
    pub fn on_start(
        &mut self,
        connection: ConnectionId,
        request: RequestId,
        account: AccountName,
        source: SocketAddr,
        lane: Lane,
    ) {
        self.is_due = true;
        let attempt = Attempt {
            request,
            account,
            source: SourcePrefix::of(source.ip()),
            lane,
            is_answered: false,
        };
        self.attempts.insert(connection, attempt);
    }

    /// The last message of a log-in comes.
    pub fn on_finish(&mut self, connection: ConnectionId) {
        self.is_due = true;
        self.finishing = Some(connection);
    }

    /// It proved the password.
    pub fn on_proof(&mut self) {
        let finishing = self.finishing.take();
        let attempt = finishing.and_then(|connection| self.attempts.get(&connection));
        self.proofs.extend(attempt.cloned());
    }

    /// The server says something to somebody.
    pub fn on_frame(&mut self, connection: ConnectionId, frame: &Frame) {
        let Frame::Server(frame) = frame else {
            return;
        };
        if let ServerFrame::Answer { id, .. } = &**frame
            && let Some(attempt) = self.attempts.get_mut(&connection)
            && attempt.request == *id
        {
            attempt.is_answered = true;
        }
    }

    /// An operator asks to let everybody in again.
    pub fn on_unblock(&mut self, account: AccountName) {
        self.unblocked.insert(account, false);
    }

    /// The server has done so.
    pub fn on_unblocked(&mut self, account: &AccountName) {
        self.is_due = true;
        self.unblocked.insert(account.clone(), true);
    }

    /// The server crashes.
    pub fn on_crash(&mut self) {
        self.is_due = true;
        for attempt in std::mem::take(&mut self.attempts).into_values() {
            if !attempt.is_answered {
                *self.untold.entry(attempt.account).or_default() += 1;
            }
        }
    }

    /// The server starts with a wall clock that says something else: blocks may be over or not.
    pub fn on_other_time(&mut self) {
        self.before.clear();
    }

    /// Looks at all accounts, if anything has happened.
    pub fn check<'a>(
        &mut self,
        lockouts: &Lockouts,
        accounts: impl Iterator<Item = &'a AccountName>,
        now: Instant,
    ) -> Result<(), Violation> {
        if !std::mem::take(&mut self.is_due) {
            return Ok(());
        }
        for account in accounts {
            let after = Before {
                at: now,
                strangers: lockouts.standing(account, Lane::Stranger, now),
                known: lockouts.standing(account, Lane::KnownDevice, now),
            };
            if let Some(before) = self.before.get(account) {
                self.compare(account, before, &after)?;
            }
            self.before.insert(account.clone(), after);
        }
        self.proofs.clear();
        self.unblocked.retain(|_, is_done| !*is_done);
        self.untold.clear();
        Ok(())
    }

    fn compare(
        &self,
        account: &AccountName,
        before: &Before,
        after: &Before,
    ) -> Result<(), Violation> {
        let elapsed = after.at.saturating_duration_since(before.at);
        if self.unblocked.contains_key(account) || elapsed >= BLOCK_RESET_AFTER {
            return Ok(());
        }
        for (lane, was, is) in [
            (Lane::Stranger, &before.strangers, &after.strangers),
            (Lane::KnownDevice, &before.known, &after.known),
        ] {
            let least = self.least(account, lane, was, elapsed);
            let sum: u32 = is.failures.values().sum();
            let left = is.blocked_for + ROUNDING;
            if sum < least.failures || is.blocks < least.blocks || left < least.blocked_for {
                return Err(Violation::new(&format!(
                    "the count against {account} fell without a reason: {lane:?} {was:?}, \
                     {elapsed:?} later {is:?}"
                )));
            }
        }
        Ok(())
    }

    /// What must be left of a count after `elapsed` and all that has happened.
    fn least(&self, account: &AccountName, lane: Lane, was: &Standing, elapsed: Duration) -> Least {
        let untold = self.untold.get(account).copied().unwrap_or(0);
        let proofs: Vec<&Attempt> = self
            .proofs
            .iter()
            .filter(|proof| proof.account == *account && proof.lane == lane)
            .collect();
        let is_over = !was.blocked_for.is_zero() && was.blocked_for <= elapsed;
        let is_proved = !proofs.is_empty();
        // A block that a right password, or an attempt that nobody was told of, had begun never was.
        let never_were = untold.saturating_add(u32::try_from(proofs.len()).unwrap_or(u32::MAX));
        Least {
            failures: match is_over {
                true => 0,
                false => kept(was, lane, &proofs).saturating_sub(untold),
            },
            blocks: match lane {
                Lane::KnownDevice if is_proved => 0,
                Lane::KnownDevice | Lane::Stranger => was.blocks.saturating_sub(never_were),
            },
            blocked_for: match never_were {
                0 => was.blocked_for.saturating_sub(elapsed),
                _ => Duration::ZERO,
            },
        }
    }
}

/// What a count may not fall below.
struct Least {
    failures: u32,
    blocks: u32,
    blocked_for: Duration,
}

/// The failures that these right passwords leave.
fn kept(was: &Standing, lane: Lane, proofs: &[&Attempt]) -> u32 {
    let is_forgiven = |source: &SourcePrefix| match lane {
        // Sources beyond the limit share one counter.
        Lane::Stranger => {
            *source == SourcePrefix::ANY || proofs.iter().any(|proof| proof.source == *source)
        }
        Lane::KnownDevice => true,
    };
    let kept = was
        .failures
        .iter()
        .filter(|(source, _)| proofs.is_empty() || !is_forgiven(source));
    kept.map(|(_, count)| count).sum()
}

#[cfg(test)]
mod tests {
    use rendezvous::server::logins::lockout::{BucketKey, LockoutOptions};
    use rendezvous::store::Subject;

    use super::*;
    use common::time::{Epoch, UnixTime};

    #[test]
    #[expect(clippy::disallowed_methods, reason = "any instant will do as a start")]
    fn a_count_that_falls_without_a_reason_is_seen() {
        let now = Instant::now();
        let epoch = Epoch::new(now, UnixTime::from_millis(1_000_000));
        let options = LockoutOptions::default();
        let mut lockouts = Lockouts::new(options, BucketKey([0; 32]), epoch, Vec::new(), now);
        let account: AccountName = "p0".parse().unwrap();
        let from: SocketAddr = "192.0.2.1:1".parse().unwrap();
        let source = SourcePrefix::of(from.ip());
        let mut ledger = Ledger::default();
        for n in 0..3 {
            ledger.on_start(
                ConnectionId(n),
                RequestId(1),
                account.clone(),
                from,
                Lane::Stranger,
            );
            let subject = Subject::Account(account.clone());
            let begun = lockouts.begin(subject, Lane::Stranger, source, false, now);
            lockouts.fail(begun.unwrap().counted);
            ledger
                .check(&lockouts, [&account].into_iter(), now)
                .unwrap();
        }
        lockouts.forget(&account);
        ledger.on_finish(ConnectionId(9));
        let seen = ledger.check(&lockouts, [&account].into_iter(), now);
        assert!(seen.unwrap_err().to_string().contains("fell"));
    }
}
