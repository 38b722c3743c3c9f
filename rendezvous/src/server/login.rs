//! Registration and log-in, step by step. Each connection has at most one `Attempt`.
//!
//! A password log-in counts as a failure from its start (`lockout`) until its finish proves
//! the password; the count is durable before the peer learns anything. Whoever abandons an attempt, by
//! leaving, by starting another or by silence, has failed.
//!
//! Names without an account take the same steps, with a fake record, and end the same way.

use std::sync::Arc;
use std::time::Instant;

use common::id::{AccountName, DeviceName};
use common::key::{ChannelBinding, DeviceKey, Role, Statement, Token};
use common::limits::{TOKEN_LIFETIME, TOKEN_RENEW_AFTER};
use common::password::{
    ChallengeError, CredentialId, KE1_LEN, PasswordRecord, STRETCH_CURRENT, ServerLogin,
};
use common::wire::rendezvous::{
    AdmissionCode, Answer, ByeReason, FailedLogins, LoggedIn, LoginAnswer, LoginStart,
    OpaqueMessage, Refusal, RequestId, StretchVersion, TokenLogin,
};

use super::io::{Job, Outcome};
use super::logins::lockout::{Counted, Lane, seconds};
use super::logins::registration::Registration;
use super::{ConnectionId, Member, Phase, Server, Step, Work};
use crate::store::{
    Account, AccountId, AccountsAnswer, AccountsRequest, Device, DevicesAnswer, DevicesRequest,
    LockoutRow, LockoutsRequest, StoreAnswer, StoreError, Subject,
};

/// A registration or log-in under way.
#[derive(Debug)]
pub(super) enum Attempt {
    /// Waits for the store (is the name free?) and for OPAQUE.
    RegisterStarting {
        id: RequestId,
        wanted: Wanted,
        is_free: Option<bool>,
        response: Option<OpaqueMessage>,
    },
    /// Waits for the peer.
    RegisterChallenged(Wanted),
    /// Waits for the store.
    RegisterFinishing { id: RequestId },
    /// Waits for the store: what is known of the account?
    LoginLoading(Box<Opening>),
    /// Waits for the store (the count is durable) and for OPAQUE.
    LoginStarting {
        id: RequestId,
        login: Box<PasswordLogin>,
        stretch: StretchVersion,
        is_saved: bool,
        challenge: Option<(Box<ServerLogin>, OpaqueMessage)>,
    },
    /// Waits for the peer.
    LoginChallenged {
        login: Box<PasswordLogin>,
        state: Box<ServerLogin>,
    },
    /// Waits for OPAQUE.
    LoginFinishing {
        id: RequestId,
        login: Box<PasswordLogin>,
    },
    /// Waits for the store; the password was right.
    LoginEnrolling {
        id: RequestId,
        login: Box<PasswordLogin>,
        account_id: AccountId,
        token: Token,
    },
    /// Waits for the store: what is known of the account and the device?
    TokenLoading {
        id: RequestId,
        login: Box<TokenLogin>,
        is_signed: bool,
    },
    /// Waits for the store; the token was right, and is being replaced.
    TokenRenewing {
        id: RequestId,
        account: AccountName,
        account_id: AccountId,
        device_key: DeviceKey,
        device_name: DeviceName,
        token: Token,
    },
}

/// An account that somebody wants to have.
#[derive(Debug)]
pub(super) struct Wanted {
    account: AccountName,
    /// Of this registration alone: what others had evaluated for the name is of no use to them.
    credential: CredentialId,
}

/// The first message of a password log-in that is not counted yet.
#[derive(Debug)]
pub(super) struct Opening {
    id: RequestId,
    start: LoginStart,
    channel: ChannelBinding,
    is_signed: bool,
}

/// A password log-in that counts as a failure until it succeeds.
#[derive(Debug)]
pub(super) struct PasswordLogin {
    account: AccountName,
    account_id: Option<AccountId>,
    device_key: DeviceKey,
    device_name: DeviceName,
    is_signed: bool,
    /// The one-time code that admitted it.
    code: Option<AdmissionCode>,
    counted: Counted,
}

impl Attempt {
    /// Tells whether it is the peer's turn.
    const fn awaits_peer(&self) -> bool {
        matches!(
            self,
            Self::RegisterChallenged(_) | Self::LoginChallenged { .. }
        )
    }
}

impl Server {
    // ---- registration ------------------------------------------------------------------------

    pub(super) fn on_register_start(
        &mut self,
        connection: ConnectionId,
        id: RequestId,
        account: AccountName,
        message: OpaqueMessage,
        now: Instant,
    ) {
        if self.options.registration == Registration::Closed {
            self.refuse(connection, id, Refusal::RegistrationClosed);
            return;
        }
        if !self.may_start(connection, id, now) || !self.may_register(connection, id, now) {
            return;
        }
        // Counted from the start, because the answer tells whether the name is taken.
        let prefix = self.sessions[&connection].prefix;
        self.registrations.count(prefix, now);
        let request = AccountsRequest::Load {
            account: account.clone(),
            device_key: None,
        };
        let credential = CredentialId::from_random(self.random());
        let job = Job::Register {
            credential: credential.clone(),
            message,
        };
        let attempt = Attempt::RegisterStarting {
            id,
            wanted: Wanted {
                account,
                credential,
            },
            is_free: None,
            response: None,
        };
        self.attempts.insert(connection, attempt);
        self.order(Work::Attempt(connection, Step::Stored), request);
        self.compute(connection, job);
    }

    pub(super) fn on_register_finish(
        &mut self,
        connection: ConnectionId,
        id: RequestId,
        upload: &OpaqueMessage,
        stretch: StretchVersion,
        now: Instant,
    ) {
        let Some(Attempt::RegisterChallenged(wanted)) = self.attempts.get(&connection) else {
            self.refuse(connection, id, Refusal::OutOfOrder);
            return;
        };
        let account = wanted.account.clone();
        let record = PasswordRecord::from_upload(&wanted.credential, upload).ok();
        // Whoever logs in is told this version, and has to know it.
        let Some(record) = record.filter(|_| stretch == STRETCH_CURRENT) else {
            self.say_bye(connection, ByeReason::Malformed, now);
            return;
        };
        if self.is_busy() {
            self.refuse_busy(connection, id);
            return;
        }
        self.attempts.remove(&connection);
        let request = AccountsRequest::Create {
            account,
            record,
            stretch,
            at: self.epoch.unix(now),
        };
        self.attempts
            .insert(connection, Attempt::RegisterFinishing { id });
        self.order(Work::Attempt(connection, Step::Stored), request);
    }

    fn may_register(&mut self, connection: ConnectionId, id: RequestId, now: Instant) -> bool {
        let prefix = self.sessions[&connection].prefix;
        let wait = self.registrations.wait(prefix, now);
        if !wait.is_zero() {
            let retry_after_s = seconds(wait);
            self.refuse(connection, id, Refusal::RegistrationLimit { retry_after_s });
        }
        wait.is_zero()
    }

    // ---- log-in with a password --------------------------------------------------------------

    pub(super) fn on_login_start(
        &mut self,
        connection: ConnectionId,
        id: RequestId,
        start: LoginStart,
        channel: ChannelBinding,
        now: Instant,
    ) {
        if start.ke1.as_bytes().len() != KE1_LEN {
            self.say_bye(connection, ByeReason::Malformed, now);
            return;
        }
        if !self.may_start(connection, id, now) {
            return;
        }
        let statement = Statement {
            role: Role::PasswordLogin,
            exporter: &channel,
            account: &start.account,
            content: start.ke1.as_bytes(),
        };
        let is_signed = start.device_key.verify(&statement, &start.signature);
        let request = AccountsRequest::Load {
            account: start.account.clone(),
            device_key: Some(start.device_key),
        };
        let opening = Opening {
            id,
            start,
            channel,
            is_signed,
        };
        self.attempts
            .insert(connection, Attempt::LoginLoading(Box::new(opening)));
        self.order(Work::Attempt(connection, Step::Stored), request);
    }

    fn on_login_loaded(
        &mut self,
        connection: ConnectionId,
        opening: Opening,
        account: Option<Box<Account>>,
        now: Instant,
    ) {
        let Opening {
            id,
            start,
            channel,
            is_signed,
        } = opening;
        // Both are made in either case: it takes its time.
        let known = Subject::Account(start.account.clone());
        let unknown = self.lockouts.unknown(&start.account);
        let subject = if account.is_some() { known } else { unknown };
        let is_known = account
            .as_ref()
            .is_some_and(|account| account.device.is_some());
        let lane = if is_signed && is_known {
            self.strangers.on_proven(connection);
            Lane::KnownDevice
        } else {
            Lane::Stranger
        };
        let (account_name, admissions) = (&start.account, &mut self.admissions);
        let code = start.code;
        let code = code.filter(|code| admissions.begin(account_name, *code, now));
        let source = self.sessions[&connection].prefix;
        let started = self
            .lockouts
            .begin(subject, lane, source, code.is_some(), now);
        let started = match started {
            Ok(started) => started,
            Err(wait) => {
                if let Some(code) = code {
                    self.admissions.release(&start.account, code);
                }
                self.refuse_blocked(connection, id, wait);
                return;
            }
        };
        if started.is_blocked_now {
            log::info!("too many failed log-ins: block={lane:?}");
            log::debug!("blocked: account={} source={source}", start.account);
        }
        let stretch = account
            .as_ref()
            .map_or(STRETCH_CURRENT, |account| account.stretch);
        let (account_id, record) = account.map(|account| (account.id, account.record)).unzip();
        let job = Job::Login {
            account: start.account.clone(),
            record,
            ke1: start.ke1,
            channel,
            seed: self.random(),
        };
        let attempt = Attempt::LoginStarting {
            id,
            stretch,
            login: Box::new(PasswordLogin {
                account: start.account,
                account_id,
                device_key: start.device_key,
                device_name: start.device_name,
                is_signed,
                code,
                counted: started.counted,
            }),
            is_saved: false,
            challenge: None,
        };
        self.attempts.insert(connection, attempt);
        let request = LockoutsRequest::Save {
            row: started.row,
            is_blocked_now: started.is_blocked_now,
            at: self.epoch.unix(now),
        };
        self.order(Work::Attempt(connection, Step::Stored), request);
        self.compute(connection, job);
    }

    pub(super) fn on_login_finish(
        &mut self,
        connection: ConnectionId,
        id: RequestId,
        ke3: OpaqueMessage,
    ) {
        if self.is_busy() {
            self.refuse_busy(connection, id);
            return;
        }
        match self.attempts.remove(&connection) {
            Some(Attempt::LoginChallenged { login, state }) => {
                let job = Job::Finish { login: state, ke3 };
                self.attempts
                    .insert(connection, Attempt::LoginFinishing { id, login });
                self.compute(connection, job);
            }
            other => {
                if let Some(attempt) = other {
                    self.attempts.insert(connection, attempt);
                }
                self.refuse(connection, id, Refusal::OutOfOrder);
            }
        }
    }

    fn on_login_finished(
        &mut self,
        connection: ConnectionId,
        id: RequestId,
        login: Box<PasswordLogin>,
        is_proved: bool,
        now: Instant,
    ) {
        // Without its signature the device key is only a claim: nothing may be enrolled under it.
        let account_id = login.account_id.filter(|_| is_proved && login.is_signed);
        let Some(account_id) = account_id else {
            self.fail_login(*login, now);
            self.refuse(connection, id, Refusal::WrongCredentials);
            return;
        };
        let used = login.code;
        let used = used.and_then(|code| self.admissions.take(&login.account, code));
        self.drop_admissions(used);
        let lockout = self.lockouts.succeed(&login.counted, now);
        if !self.sessions.contains_key(&connection) {
            // It left in the last moment: it was the owner, all the same.
            self.save_lockout(lockout, now);
            return;
        }
        let token = Token::from_bytes(self.random());
        let request = DevicesRequest::Enrol {
            id: account_id,
            device: Device {
                key: login.device_key,
                name: login.device_name.clone(),
                token_hash: token.hash(),
                token_before: None,
                token_issued: self.epoch.unix(now),
            },
            lockout,
        };
        let attempt = Attempt::LoginEnrolling {
            id,
            login,
            account_id,
            token,
        };
        self.attempts.insert(connection, attempt);
        self.order(Work::Attempt(connection, Step::Stored), request);
    }

    fn fail_login(&mut self, login: PasswordLogin, now: Instant) {
        let PasswordLogin {
            account,
            code,
            counted,
            ..
        } = login;
        let used = code.and_then(|code| self.admissions.fail(&account, code));
        self.drop_admissions(used);
        let is_owners_business =
            counted.lane() == Lane::Stranger && matches!(counted.subject(), Subject::Account(_));
        self.lockouts.fail(counted);
        if is_owners_business {
            self.on_failed_login(&account, now);
        }
    }

    // ---- log-in with a token -----------------------------------------------------------------

    pub(super) fn on_token_login(
        &mut self,
        connection: ConnectionId,
        id: RequestId,
        login: TokenLogin,
        channel: ChannelBinding,
        now: Instant,
    ) {
        if !self.may_start(connection, id, now) {
            return;
        }
        let statement = Statement {
            role: Role::TokenLogin,
            exporter: &channel,
            account: &login.account,
            content: login.token.as_bytes(),
        };
        let is_signed = login.device_key.verify(&statement, &login.signature);
        let request = AccountsRequest::Load {
            account: login.account.clone(),
            device_key: Some(login.device_key),
        };
        let attempt = Attempt::TokenLoading {
            id,
            login: Box::new(login),
            is_signed,
        };
        self.attempts.insert(connection, attempt);
        self.order(Work::Attempt(connection, Step::Stored), request);
    }

    fn on_token_loaded(
        &mut self,
        connection: ConnectionId,
        id: RequestId,
        login: TokenLogin,
        is_signed: bool,
        account: Option<Box<Account>>,
        now: Instant,
    ) {
        let wall = self.epoch.unix(now);
        let owner = account.and_then(|account| Some((account.id, account.device?)));
        let owner = owner.filter(|(_, device)| {
            let age = wall.saturating_since(device.token_issued);
            is_signed && device.has_token(&login.token.hash()) && age < TOKEN_LIFETIME
        });
        let Some((account_id, device)) = owner else {
            let source = self.sessions[&connection].prefix;
            match self.lockouts.count_source(source, now) {
                Ok(()) => self.refuse(connection, id, Refusal::TokenRefused),
                Err(wait) => self.refuse_blocked(connection, id, wait),
            }
            return;
        };
        let presented = login.token.hash();
        let is_newest = device.token_hash == presented;
        if is_newest && device.token_before.is_some() {
            let request = DevicesRequest::DropTokenBefore {
                id: account_id,
                device_key: device.key,
            };
            self.order(Work::Upkeep, request);
        }
        if is_newest && wall.saturating_since(device.token_issued) < TOKEN_RENEW_AFTER {
            let member = Member {
                id: account_id,
                account: login.account,
                device_key: device.key,
                device_name: device.name,
                since: wall,
            };
            self.log_in(connection, id, member, None, now);
            return;
        }
        let token = Token::from_bytes(self.random());
        let request = DevicesRequest::RenewToken {
            id: account_id,
            device_key: device.key,
            token_hash: token.hash(),
            token_before: presented,
            at: wall,
        };
        let attempt = Attempt::TokenRenewing {
            id,
            account: login.account,
            account_id,
            device_key: device.key,
            device_name: device.name,
            token,
        };
        self.attempts.insert(connection, attempt);
        self.order(Work::Attempt(connection, Step::Stored), request);
    }

    // ---- steps -------------------------------------------------------------------------------

    pub(super) fn on_attempt_stored(
        &mut self,
        connection: ConnectionId,
        answer: Result<StoreAnswer, StoreError>,
        now: Instant,
    ) {
        let Some(attempt) = self.attempts.remove(&connection) else {
            return;
        };
        let Ok(answer) = answer else {
            self.on_attempt_store_failed(connection, attempt, now);
            return;
        };
        match attempt {
            Attempt::RegisterStarting {
                id,
                wanted,
                response,
                ..
            } => {
                let is_free = Some(
                    matches!(answer, StoreAnswer::Accounts(AccountsAnswer::Loaded(found)) if found.account.is_none()),
                );
                self.go_on_registering(connection, id, wanted, is_free, response);
            }
            Attempt::RegisterFinishing { id } => {
                let answer = match answer {
                    StoreAnswer::Accounts(AccountsAnswer::Done) => LoginAnswer::Registered.into(),
                    StoreAnswer::Accounts(_)
                    | StoreAnswer::Devices(_)
                    | StoreAnswer::Lockouts(_)
                    | StoreAnswer::Admissions(_) => Answer::Refused(Refusal::AccountExists),
                };
                self.answer(connection, id, answer);
            }
            Attempt::LoginLoading(opening) => {
                self.on_login_loaded(connection, *opening, answer.into_account(), now);
            }
            Attempt::LoginStarting {
                id,
                login,
                stretch,
                challenge,
                ..
            } => self.go_on_challenging(connection, id, login, stretch, true, challenge),
            Attempt::LoginEnrolling {
                id,
                login,
                account_id,
                token,
            } => {
                let member = Member {
                    id: account_id,
                    account: login.account,
                    device_key: login.device_key,
                    device_name: login.device_name,
                    since: self.epoch.unix(now),
                };
                match answer {
                    StoreAnswer::Devices(DevicesAnswer::Done) => {
                        self.log_in(connection, id, member, Some(token), now);
                    }
                    StoreAnswer::Devices(DevicesAnswer::Full) => {
                        self.refuse(connection, id, Refusal::DeviceLimit);
                    }
                    // The account was removed in between.
                    StoreAnswer::Devices(_)
                    | StoreAnswer::Accounts(_)
                    | StoreAnswer::Lockouts(_)
                    | StoreAnswer::Admissions(_) => {
                        self.refuse(connection, id, Refusal::WrongCredentials);
                    }
                }
            }
            Attempt::TokenLoading {
                id,
                login,
                is_signed,
            } => {
                let account = answer.into_account();
                self.on_token_loaded(connection, id, *login, is_signed, account, now);
            }
            Attempt::TokenRenewing {
                id,
                account,
                account_id,
                device_key,
                device_name,
                token,
            } => {
                if !matches!(answer, StoreAnswer::Devices(DevicesAnswer::Done)) {
                    self.refuse(connection, id, Refusal::TokenRefused);
                    return;
                }
                let member = Member {
                    id: account_id,
                    account,
                    device_key,
                    device_name,
                    since: self.epoch.unix(now),
                };
                self.log_in(connection, id, member, Some(token), now);
            }
            Attempt::RegisterChallenged(_)
            | Attempt::LoginChallenged { .. }
            | Attempt::LoginFinishing { .. } => {
                unreachable!("an attempt in this state waits for no answer of the store")
            }
        }
    }

    fn on_attempt_store_failed(
        &mut self,
        connection: ConnectionId,
        attempt: Attempt,
        now: Instant,
    ) {
        self.forget_work(connection);
        let id = match attempt {
            Attempt::LoginLoading(opening) => opening.id,
            Attempt::LoginStarting { id, login, .. } => {
                self.fail_login(*login, now);
                id
            }
            Attempt::RegisterStarting { id, .. }
            | Attempt::RegisterFinishing { id }
            | Attempt::LoginEnrolling { id, .. }
            | Attempt::TokenLoading { id, .. }
            | Attempt::TokenRenewing { id, .. } => id,
            Attempt::RegisterChallenged(_)
            | Attempt::LoginChallenged { .. }
            | Attempt::LoginFinishing { .. } => {
                unreachable!("an attempt in this state waits for no answer of the store")
            }
        };
        self.refuse(connection, id, Refusal::StoreFailed);
    }

    /// The store or OPAQUE may still be at work for an attempt that is over: what comes of it belongs to
    /// no later one.
    fn forget_work(&mut self, connection: ConnectionId) {
        self.work
            .retain(|_, work| !matches!(work, Work::Attempt(owner, _) if *owner == connection));
    }

    pub(super) fn on_attempt_computed(
        &mut self,
        connection: ConnectionId,
        outcome: Outcome,
        now: Instant,
    ) {
        let Some(attempt) = self.attempts.remove(&connection) else {
            return;
        };
        match (attempt, outcome) {
            (
                Attempt::RegisterStarting {
                    id,
                    wanted,
                    is_free,
                    ..
                },
                Outcome::Registered(Ok(response)),
            ) => self.go_on_registering(connection, id, wanted, is_free, Some(response)),
            (
                Attempt::LoginStarting {
                    id,
                    login,
                    stretch,
                    is_saved,
                    ..
                },
                Outcome::Challenged(Ok(challenge)),
            ) => {
                let challenge = Some(challenge);
                self.go_on_challenging(connection, id, login, stretch, is_saved, challenge);
            }
            (Attempt::LoginFinishing { id, login }, Outcome::Finished(checked)) => {
                self.on_login_finished(connection, id, login, checked.is_ok(), now);
            }
            (
                Attempt::LoginStarting { id, login, .. },
                Outcome::Challenged(Err(ChallengeError::Record(error))),
            ) => {
                log::warn!("{error}");
                self.forget_work(connection);
                self.fail_login(*login, now);
                self.refuse(connection, id, Refusal::StoreFailed);
            }
            (Attempt::LoginStarting { login, .. }, _) => {
                self.fail_login(*login, now);
                self.say_bye(connection, ByeReason::Malformed, now);
            }
            (Attempt::RegisterStarting { .. }, _) => {
                self.say_bye(connection, ByeReason::Malformed, now);
            }
            (attempt, outcome) => unreachable!("{outcome:?} is no answer to {attempt:?}"),
        }
    }

    fn go_on_registering(
        &mut self,
        connection: ConnectionId,
        id: RequestId,
        wanted: Wanted,
        is_free: Option<bool>,
        response: Option<OpaqueMessage>,
    ) {
        let attempt = match (is_free, response) {
            (Some(true), Some(message)) => {
                self.answer(connection, id, LoginAnswer::RegisterChallenge { message });
                Attempt::RegisterChallenged(wanted)
            }
            (Some(false), Some(_)) => {
                self.refuse(connection, id, Refusal::AccountExists);
                return;
            }
            (is_free, response) => Attempt::RegisterStarting {
                id,
                wanted,
                is_free,
                response,
            },
        };
        self.attempts.insert(connection, attempt);
    }

    fn go_on_challenging(
        &mut self,
        connection: ConnectionId,
        id: RequestId,
        login: Box<PasswordLogin>,
        stretch: StretchVersion,
        is_saved: bool,
        challenge: Option<(Box<ServerLogin>, OpaqueMessage)>,
    ) {
        let attempt = match (is_saved, challenge) {
            (true, Some((state, ke2))) => {
                self.answer(connection, id, LoginAnswer::LoginChallenge { ke2, stretch });
                Attempt::LoginChallenged { login, state }
            }
            (is_saved, challenge) => Attempt::LoginStarting {
                id,
                login,
                stretch,
                is_saved,
                challenge,
            },
        };
        self.attempts.insert(connection, attempt);
    }

    // ---- beginning and end -------------------------------------------------------------------

    /// Makes room for an attempt, or answers why there is none: one at a time, and only so many in
    /// all. An earlier one that waits for its peer is given up.
    fn may_start(&mut self, connection: ConnectionId, id: RequestId, now: Instant) -> bool {
        let earlier = self.attempts.get(&connection);
        if earlier.is_some_and(|attempt| !attempt.awaits_peer()) {
            self.refuse(connection, id, Refusal::OutOfOrder);
            return false;
        }
        self.abandon_attempt(connection, now);
        if self.is_busy() {
            self.refuse_busy(connection, id);
            return false;
        }
        true
    }

    /// Ends the attempt of a peer that left or starts another.
    pub(super) fn abandon_attempt(&mut self, connection: ConnectionId, now: Instant) {
        match self.attempts.remove(&connection) {
            Some(Attempt::LoginStarting { login, .. } | Attempt::LoginChallenged { login, .. }) => {
                self.fail_login(*login, now)
            }
            // Its password is still being checked; that decides.
            Some(finishing @ Attempt::LoginFinishing { .. }) => {
                self.attempts.insert(connection, finishing);
            }
            Some(
                Attempt::RegisterStarting { .. }
                | Attempt::RegisterChallenged(_)
                | Attempt::RegisterFinishing { .. }
                | Attempt::LoginLoading(_)
                | Attempt::LoginEnrolling { .. }
                | Attempt::TokenLoading { .. }
                | Attempt::TokenRenewing { .. },
            )
            | None => {}
        }
    }

    /// Makes a session a member's. An older session of the same device ends.
    fn log_in(
        &mut self,
        connection: ConnectionId,
        id: RequestId,
        member: Member,
        token: Option<Token>,
        now: Instant,
    ) {
        if let Some(older) = self.devices.get(&member.device_key).copied() {
            self.say_bye(older, ByeReason::Replaced, now);
        }
        let failed = self.tell_owner(&member.account, now);
        self.devices.insert(member.device_key, connection);
        self.members.insert((member.account.clone(), connection));
        log::debug!("logged in: account={}", member.account);
        let session = self.sessions.get_mut(&connection);
        let session = session.expect("an attempt ends with its session");
        session.phase = Phase::Member(Arc::new(member));
        session.heard = now;
        self.strangers.remove(connection);
        self.answer(
            connection,
            id,
            LoginAnswer::LoggedIn(LoggedIn { token, failed }),
        );
        self.hasten_timer(connection, now);
    }

    fn tell_owner(&mut self, account: &AccountName, now: Instant) -> Option<FailedLogins> {
        let (failed, row): (FailedLogins, LockoutRow) = self.lockouts.tell(account, now)?;
        self.save_lockout(row, now);
        Some(failed)
    }
}
