//! What every attempt to get in goes past: lock-outs, one-time codes, and how many accounts a source may
//! register.
//!
//! `Gate` owns these counters, which attempt each piece of slow work is for, and the events of
//! [`Logins`](super::Logins); attempts act through it.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use common::id::AccountName;
use common::key::Token;
use common::limits::{BLOCK_RESET_AFTER, STORE_BATCH_MAX};
use common::wire::rendezvous::{AdmissionCode, Enrolment, Refusal};

use super::admission::Admissions;
use super::lockout::{Counted, Lane, Lockouts, seconds};
use super::registration::Registrations;
use crate::server::context::{Context, Part, ReplyTo};
use crate::server::io::{ConnectionId, Job, Ticket};
use crate::server::member::Member;
use crate::store::{
    Admission, AdmissionsRequest, LockoutRow, LockoutsRequest, StoreRequest, Subject,
};

/// What has faded or expired is dropped this often.
pub(super) const SWEEP_INTERVAL: Duration = Duration::from_secs(600);
/// The same, while there is more to drop than one batch of the store.
const SWEEP_AGAIN: Duration = Duration::from_secs(1);

/// The counters that decide who gets in.
#[derive(Debug)]
pub(super) struct Gate {
    pub(super) lockouts: Lockouts,
    pub(super) admissions: Admissions,
    pub(super) registrations: Registrations,
    waiting: BTreeMap<Ticket, ConnectionId>,
    events: VecDeque<Event>,
}

/// What the other parts have to do with.
#[derive(Debug)]
pub(in crate::server) enum Event {
    /// A connection has proved the key of an enrolled device.
    Proven(ConnectionId),
    /// A stranger failed to log in to this account.
    Failed(AccountName),
    /// A log-in succeeded; answered by [`Logins::welcome`](super::Logins::welcome).
    LoggedIn(Entered),
    /// A device was enrolled that was not the account's before, whether it is still there or not.
    Enrolled(AccountName, Enrolment),
}

/// A log-in that succeeded.
#[derive(Debug)]
pub(in crate::server) struct Entered {
    pub(in crate::server) to: ReplyTo,
    pub(in crate::server) member: Member,
    /// A new one for the device, in place of a password or an old one.
    pub(in crate::server) token: Option<Token>,
    /// Enrolments that the device has not noted.
    pub(in crate::server) untold: Vec<Enrolment>,
}

impl Gate {
    pub(super) fn new(lockouts: Lockouts, admissions: Admissions) -> Self {
        Self {
            lockouts,
            admissions,
            registrations: Registrations::default(),
            waiting: BTreeMap::new(),
            events: VecDeque::new(),
        }
    }

    // ---- slow work of attempts ---------------------------------------------------------------

    /// Asks the store for the attempt of a connection.
    pub(super) fn store(
        &mut self,
        connection: ConnectionId,
        request: impl Into<StoreRequest>,
        context: &mut Context,
    ) {
        let ticket = context.store(Part::Logins, request.into());
        self.waiting.insert(ticket, connection);
    }

    /// Runs a job for the attempt of a connection.
    pub(super) fn compute(&mut self, connection: ConnectionId, job: Job, context: &mut Context) {
        let ticket = context.compute(job);
        self.waiting.insert(ticket, connection);
    }

    /// Whose attempt a ticket is for.
    pub(super) fn end_work(&mut self, ticket: Ticket) -> ConnectionId {
        let connection = self.waiting.remove(&ticket);
        connection.expect("a ticket is for what waits for it")
    }

    /// The store or OPAQUE may still be at work for an attempt that is over: what comes of it belongs to
    /// no later one.
    pub(super) fn forget_work(&mut self, connection: ConnectionId, context: &mut Context) {
        self.waiting.retain(|ticket, owner| {
            let is_theirs = *owner == connection;
            if is_theirs {
                context.end_work(*ticket);
            }
            !is_theirs
        });
    }

    // ---- events ------------------------------------------------------------------------------

    pub(super) fn tell(&mut self, event: Event) {
        self.events.push_back(event);
    }

    pub(super) fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    // ---- counters ----------------------------------------------------------------------------

    /// Ends a password log-in that failed. The owner is to be told of a stranger's.
    pub(super) fn fail(
        &mut self,
        account: AccountName,
        code: Option<AdmissionCode>,
        counted: Counted,
        context: &mut Context,
    ) {
        let used = code.and_then(|code| self.admissions.fail(&account, code));
        drop_admissions(used, context);
        let is_owners_business =
            counted.lane() == Lane::Stranger && matches!(counted.subject(), Subject::Account(_));
        self.lockouts.fail(counted);
        if is_owners_business {
            self.tell(Event::Failed(account));
        }
    }

    /// Opens a one-time code; `None` if the account has as many as it may have.
    pub(super) fn open_admission(
        &mut self,
        account: &AccountName,
        context: &mut Context,
    ) -> Option<Admission> {
        let expired = self.admissions.expire(account, context.now);
        drop_admissions(expired, context);
        let code = AdmissionCode::from_random(context.random_u64());
        self.admissions.open(account, code, context.now)
    }

    /// Drops what has faded or expired; tells when to do it again.
    pub(super) fn sweep(&mut self, context: &mut Context) -> Instant {
        let now = context.now;
        self.registrations.sweep(now);
        // A day after a flood of names there may be many; the store has other things to do too.
        let rows = self.lockouts.sweep(STORE_BATCH_MAX, now);
        let pause = if rows.len() == STORE_BATCH_MAX {
            SWEEP_AGAIN
        } else {
            SWEEP_INTERVAL
        };
        for row in rows {
            save_lockout(row, context);
        }
        let before = context.unix().saturating_sub(BLOCK_RESET_AFTER);
        context.store_unawaited(LockoutsRequest::ForgetUnknown { before }.into());
        let expired = self.admissions.sweep(now);
        drop_admissions(expired, context);
        now + pause
    }
}

/// Keeps the failures of a subject; nobody waits for it.
pub(super) fn save_lockout(row: LockoutRow, context: &mut Context) {
    let request = LockoutsRequest::Save {
        row,
        is_blocked_now: false,
        at: context.unix(),
    };
    context.store_unawaited(request.into());
}

/// Drops codes that were used or have expired; nobody waits for it.
pub(super) fn drop_admissions(gone: impl IntoIterator<Item = Admission>, context: &mut Context) {
    for admission in gone {
        context.store_unawaited(AdmissionsRequest::Drop { admission }.into());
    }
}

/// Refuses a log-in for as long as it is blocked.
pub(super) fn refuse_blocked(to: ReplyTo, wait: Duration, context: &mut Context) {
    let retry_after_s = seconds(wait);
    context.refuse(to, Refusal::Blocked { retry_after_s });
}
