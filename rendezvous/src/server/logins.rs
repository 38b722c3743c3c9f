//! Registration and log-in: everything that `Request::Login` asks.
//!
//! `Logins` owns the attempts, at most one for each connection, and through its `gate` the lock-outs,
//! the one-time codes and how many accounts each source has registered. It tells of those who got in and
//! of strangers who failed; who is logged in is known to `devices`.

use std::collections::BTreeMap;
use std::time::Instant;

use common::id::AccountName;
use common::limits::Occupancy;
use common::time::Epoch;
use common::wire::rendezvous::{
    FailedLogins, LoggedIn, LoginAnswer, LoginRequest, LoginStart, OpaqueMessage, Refusal,
    StretchVersion,
};

use super::connections::Stranger;
use super::context::{Context, ProtocolViolation, ReplyTo};
use super::io::{ConnectionId, Deadline, Outcome, Ticket, Unblocked};
use super::member::Member;
use crate::source::SourcePrefix;
use crate::store::{Admission, LockoutRow, StoreAnswer, StoreError, Subject};
use admission::Admissions;
use gate::{Entered, Gate, SWEEP_INTERVAL, save_lockout};
use lockout::{Forgotten, Lockouts, seconds};
use registration::Registration;

pub(super) use gate::Event;

// One-time codes.
mod admission;
// The counters that decide who gets in.
mod gate;
/// How many log-ins may fail.
pub mod lockout;
// A log-in with a password.
mod password;
// An attempt to register.
mod register;
/// Who may register, and how many accounts.
pub mod registration;
// A log-in with a token.
mod token;

/// Whoever wants to get in.
#[derive(Debug)]
pub(super) struct Logins {
    registration: Registration,
    attempts: BTreeMap<ConnectionId, Attempt>,
    gate: Gate,
    sweep_at: Instant,
}

/// A registration or log-in under way.
#[derive(Debug)]
enum Attempt {
    Register(register::Attempt),
    Password(password::Attempt),
    Token(token::Attempt),
}

impl Logins {
    /// Nobody is on the way in.
    pub(super) fn new(
        registration: Registration,
        lockouts: Lockouts,
        admissions: Vec<Admission>,
        epoch: Epoch,
        now: Instant,
    ) -> Self {
        let admissions = Admissions::new(epoch, admissions, now);
        Self {
            registration,
            attempts: BTreeMap::new(),
            gate: Gate::new(lockouts, admissions),
            sweep_at: now + SWEEP_INTERVAL,
        }
    }

    /// Takes a step of an attempt.
    pub(super) fn on_request(
        &mut self,
        to: ReplyTo,
        request: LoginRequest,
        stranger: Stranger,
        context: &mut Context,
    ) -> Result<(), ProtocolViolation> {
        match request {
            LoginRequest::RegisterStart { account, message } => {
                self.on_register_start(to, account, message, stranger, context);
            }
            LoginRequest::RegisterFinish { upload, stretch } => {
                self.on_register_finish(to, &upload, stretch, context)?;
            }
            LoginRequest::LoginStart(start) => self.on_login_start(to, start, stranger, context)?,
            LoginRequest::LoginFinish { ke3 } => self.on_login_finish(to, ke3, context),
            LoginRequest::TokenLogin(login) => {
                if self.may_start(to, context) {
                    let gate = &mut self.gate;
                    let attempt = token::Attempt::start(to, login, stranger, gate, context);
                    self.go_on(to.connection, Attempt::Token(attempt));
                }
            }
        }
        Ok(())
    }

    /// A connection is gone. Whoever abandons an attempt has failed.
    pub(super) fn on_disconnected(&mut self, connection: ConnectionId, context: &mut Context) {
        self.abandon(connection, context);
    }

    /// The store has done what an attempt waits for.
    pub(super) fn on_stored(
        &mut self,
        ticket: Ticket,
        answer: Result<StoreAnswer, StoreError>,
        context: &mut Context,
    ) {
        let connection = self.gate.end_work(ticket);
        let Some(attempt) = self.attempts.remove(&connection) else {
            return;
        };
        match answer {
            Ok(answer) => {
                if let Some(attempt) = attempt.on_stored(answer, &mut self.gate, context) {
                    self.go_on(connection, attempt);
                }
            }
            Err(_) => {
                self.gate.forget_work(connection, context);
                attempt.on_store_failed(&mut self.gate, context);
            }
        }
    }

    /// OPAQUE has done what an attempt waits for.
    pub(super) fn on_computed(
        &mut self,
        ticket: Ticket,
        outcome: Outcome,
        context: &mut Context,
    ) -> Result<(), ProtocolViolation> {
        let connection = self.gate.end_work(ticket);
        let Some(attempt) = self.attempts.remove(&connection) else {
            return Ok(());
        };
        if let Some(attempt) = attempt.on_computed(outcome, &mut self.gate, context)? {
            self.go_on(connection, attempt);
        }
        Ok(())
    }

    /// Answers a log-in that succeeded, with what the owner has not been told. Returns who is logged in, and
    /// where.
    pub(super) fn welcome(
        &mut self,
        entered: Entered,
        context: &mut Context,
    ) -> (ConnectionId, Member) {
        let Entered {
            to,
            member,
            token,
            untold: enrolled,
        } = entered;
        let unreported = self.take_unreported(&member.account, context);
        let failed = unreported.map(|(failed, row)| {
            save_lockout(row, context);
            failed
        });
        log::debug!("logged in: account={}", member.account);
        let welcome = LoggedIn {
            token,
            failed,
            enrolled,
        };
        context.answer(to, LoginAnswer::LoggedIn(welcome));
        (to.connection, member)
    }

    /// What the owner of an account has not been told. From now on it counts as told, and after a
    /// restart once the row is saved ([`Logins::save_told`]).
    pub(super) fn take_unreported(
        &mut self,
        account: &AccountName,
        context: &Context,
    ) -> Option<(FailedLogins, LockoutRow)> {
        self.gate.lockouts.take_unreported(account, context.now)
    }

    /// Keeps what [`Logins::take_unreported`] gave.
    pub(super) fn save_told(&self, row: LockoutRow, context: &mut Context) {
        save_lockout(row, context);
    }

    /// Opens a one-time code; `None` if the account has as many as it may have.
    pub(super) fn open_admission(
        &mut self,
        account: &AccountName,
        context: &mut Context,
    ) -> Option<Admission> {
        self.gate.open_admission(account, context)
    }

    /// Takes a one-time code back that the store could not keep.
    pub(super) fn on_admission_lost(&mut self, lost: &Admission) {
        self.gate.admissions.take(&lost.account, lost.code);
    }

    /// An account does not exist: it has no codes.
    pub(super) fn on_no_account(&mut self, account: &AccountName) {
        self.gate.admissions.forget(account);
    }

    /// Ends every block of a name, which is an account's or not, and forgets what led to it. The row is for
    /// the store.
    pub(super) fn unblock(
        &mut self,
        name: AccountName,
        has_account: bool,
        now: Instant,
    ) -> (Unblocked, LockoutRow) {
        let lockouts = &mut self.gate.lockouts;
        let subject = if has_account {
            Subject::Account(name)
        } else {
            lockouts.unknown(&name)
        };
        let Forgotten {
            blocked_for,
            failures,
        } = lockouts.unblock(&subject, now);
        let unblocked = Unblocked {
            has_account,
            blocked_for_s: seconds(blocked_for),
            failures,
        };
        (unblocked, LockoutRow::empty(subject))
    }

    /// An account is gone, with its failures and codes.
    pub(super) fn on_account_removed(&mut self, account: &AccountName) {
        self.gate.lockouts.forget(account);
        self.on_no_account(account);
    }

    /// Drops what has faded or expired, when it is time to.
    pub(super) fn handle_timeout(&mut self, context: &mut Context) {
        if self.sweep_at <= context.now {
            self.sweep_at = self.gate.sweep(context);
        }
    }

    pub(super) const fn poll_timeout(&self) -> Deadline {
        Deadline {
            at: self.sweep_at,
            why: "sweeping",
        }
    }

    pub(super) fn poll_event(&mut self) -> Option<Event> {
        self.gate.poll_event()
    }

    /// What is counted against accounts.
    pub(super) const fn lockouts(&self) -> &Lockouts {
        &self.gate.lockouts
    }

    /// Seconds for which strangers are blocked from an account; 0 when they are not.
    pub(super) fn blocked_for_s(&self, account: &AccountName, now: Instant) -> u32 {
        seconds(self.gate.lockouts.blocked_for(account, now))
    }

    /// The occupancy of each bounded resource.
    pub(super) fn occupancies(&self) -> [Occupancy; 2] {
        self.gate.lockouts.occupancies()
    }

    fn on_register_start(
        &mut self,
        to: ReplyTo,
        account: AccountName,
        message: OpaqueMessage,
        stranger: Stranger,
        context: &mut Context,
    ) {
        if self.registration == Registration::Closed {
            context.refuse(to, Refusal::RegistrationClosed);
            return;
        }
        if !self.may_start(to, context) {
            return;
        }
        let source = SourcePrefix::of(stranger.source.ip());
        let gate = &mut self.gate;
        let attempt = register::Attempt::start(to, source, account, message, gate, context);
        if let Some(attempt) = attempt {
            self.go_on(to.connection, Attempt::Register(attempt));
        }
    }

    fn on_register_finish(
        &mut self,
        to: ReplyTo,
        upload: &OpaqueMessage,
        stretch: StretchVersion,
        context: &mut Context,
    ) -> Result<(), ProtocolViolation> {
        let attempt = self.attempts.get(&to.connection);
        let Some(Attempt::Register(register::Attempt::Challenged(wanted))) = attempt else {
            context.refuse(to, Refusal::OutOfOrder);
            return Ok(());
        };
        let gate = &mut self.gate;
        let attempt = register::Attempt::finish(wanted, to, upload, stretch, gate, context)?;
        if let Some(attempt) = attempt {
            self.go_on(to.connection, Attempt::Register(attempt));
        }
        Ok(())
    }

    fn on_login_start(
        &mut self,
        to: ReplyTo,
        start: LoginStart,
        stranger: Stranger,
        context: &mut Context,
    ) -> Result<(), ProtocolViolation> {
        password::check(to, &start)?;
        if self.may_start(to, context) {
            let gate = &mut self.gate;
            let attempt = password::Attempt::start(to, start, stranger, gate, context);
            self.go_on(to.connection, Attempt::Password(attempt));
        }
        Ok(())
    }

    fn on_login_finish(&mut self, to: ReplyTo, ke3: OpaqueMessage, context: &mut Context) {
        if context.is_busy() {
            context.refuse_busy(to);
            return;
        }
        let attempt = match self.attempts.remove(&to.connection) {
            Some(Attempt::Password(attempt)) => {
                Attempt::Password(attempt.finish(to, ke3, &mut self.gate, context))
            }
            Some(other @ (Attempt::Register(_) | Attempt::Token(_))) => {
                context.refuse(to, Refusal::OutOfOrder);
                other
            }
            None => {
                context.refuse(to, Refusal::OutOfOrder);
                return;
            }
        };
        self.go_on(to.connection, attempt);
    }

    /// Makes room for an attempt, or answers why there is none: one at a time, and only so many in
    /// all. An earlier one that waits for its peer is given up.
    fn may_start(&mut self, to: ReplyTo, context: &mut Context) -> bool {
        let earlier = self.attempts.get(&to.connection);
        if earlier.is_some_and(|attempt| !attempt.awaits_peer()) {
            context.refuse(to, Refusal::OutOfOrder);
            return false;
        }
        self.abandon(to.connection, context);
        if context.is_busy() {
            context.refuse_busy(to);
            return false;
        }
        true
    }

    /// Ends the attempt of a connection that is gone or starts another.
    fn abandon(&mut self, connection: ConnectionId, context: &mut Context) {
        let Some(attempt) = self.attempts.remove(&connection) else {
            return;
        };
        if let Some(attempt) = attempt.abandon(&mut self.gate, context) {
            self.go_on(connection, attempt);
        }
    }

    fn go_on(&mut self, connection: ConnectionId, attempt: Attempt) {
        self.attempts.insert(connection, attempt);
    }
}

impl Attempt {
    fn on_stored(
        self,
        answer: StoreAnswer,
        gate: &mut Gate,
        context: &mut Context,
    ) -> Option<Self> {
        match self {
            Self::Register(attempt) => attempt.on_stored(answer, context).map(Self::Register),
            Self::Password(attempt) => attempt.on_stored(answer, gate, context).map(Self::Password),
            Self::Token(attempt) => attempt.on_stored(answer, gate, context).map(Self::Token),
        }
    }

    fn on_store_failed(self, gate: &mut Gate, context: &mut Context) {
        match self {
            Self::Register(attempt) => attempt.on_store_failed(context),
            Self::Password(attempt) => attempt.on_store_failed(gate, context),
            Self::Token(attempt) => attempt.on_store_failed(context),
        }
    }

    fn on_computed(
        self,
        outcome: Outcome,
        gate: &mut Gate,
        context: &mut Context,
    ) -> Result<Option<Self>, ProtocolViolation> {
        match self {
            Self::Register(attempt) => {
                let attempt = attempt.on_computed(outcome, context)?;
                Ok(attempt.map(Self::Register))
            }
            Self::Password(attempt) => {
                let attempt = attempt.on_computed(outcome, gate, context)?;
                Ok(attempt.map(Self::Password))
            }
            Self::Token(attempt) => unreachable!("{outcome:?} is no answer to {attempt:?}"),
        }
    }

    /// Ends the attempt of a peer that left or starts another; it comes back if it decides itself how
    /// it ends.
    fn abandon(self, gate: &mut Gate, context: &mut Context) -> Option<Self> {
        match self {
            Self::Password(attempt) => attempt.abandon(gate, context).map(Self::Password),
            Self::Register(_) | Self::Token(_) => None,
        }
    }

    /// Tells whether it is the peer's turn.
    const fn awaits_peer(&self) -> bool {
        match self {
            Self::Register(attempt) => attempt.awaits_peer(),
            Self::Password(attempt) => attempt.awaits_peer(),
            Self::Token(_) => false,
        }
    }
}
