//! A log-in with a password, step by step.
//!
//! It counts as a failure from its start (`lockout`) until its finish proves the password; the count is
//! durable before the peer learns anything. Whoever abandons an attempt, by leaving, by starting another
//! or by silence, has failed.
//!
//! Names without an account take the same steps, with a fake record, and end the same way.

use std::net::SocketAddr;

use common::id::{AccountName, DeviceName};
use common::key::{ChannelBinding, DeviceKey, Role, Statement, Token};
use common::password::{ChallengeError, KE1_LEN, STRETCH_CURRENT, ServerLogin};
use common::wire::rendezvous::{
    AdmissionCode, Enrolment, LoginAnswer, LoginStart, OpaqueMessage, Refusal, StretchVersion,
};

use super::gate::{Entered, Event, Gate, drop_admissions, refuse_blocked, save_lockout};
use super::lockout::{Counted, Lane};
use crate::server::connections::Stranger;
use crate::server::context::{Context, ProtocolViolation, ReplyTo};
use crate::server::io::{Job, Outcome};
use crate::server::member::Member;
use crate::source::SourcePrefix;
use crate::store::{
    Account, AccountId, AccountsRequest, Device, DevicesAnswer, DevicesRequest, LockoutsRequest,
    StoreAnswer, Subject,
};

/// A log-in with a password under way.
#[derive(Debug)]
pub(super) enum Attempt {
    /// Waits for the store: what is known of the account?
    Loading(Box<Opening>),
    /// Waits for the store (the count is durable) and for OPAQUE.
    Starting {
        to: ReplyTo,
        login: Box<PasswordLogin>,
        stretch: StretchVersion,
        is_saved: bool,
        challenge: Option<(Box<ServerLogin>, OpaqueMessage)>,
    },
    /// Waits for the peer.
    Challenged {
        login: Box<PasswordLogin>,
        state: Box<ServerLogin>,
    },
    /// Waits for OPAQUE.
    Finishing {
        to: ReplyTo,
        login: Box<PasswordLogin>,
        /// Its connection is gone.
        has_left: bool,
    },
    /// Waits for the store; the password was right.
    Enrolling {
        enrolling: Box<Enrolling>,
        /// Its connection is gone.
        has_left: bool,
    },
}

/// A device whose enrolment is on its way to the store.
#[derive(Debug)]
pub(super) struct Enrolling {
    to: ReplyTo,
    login: PasswordLogin,
    account_id: AccountId,
    token: Token,
    enrolment: Enrolment,
}

/// The first message of a password log-in that is not counted yet.
#[derive(Debug)]
pub(super) struct Opening {
    to: ReplyTo,
    start: LoginStart,
    source: SocketAddr,
    channel_binding: ChannelBinding,
    is_signed: bool,
}

/// A password log-in that counts as a failure until it succeeds.
#[derive(Debug)]
pub(super) struct PasswordLogin {
    account: AccountName,
    account_id: Option<AccountId>,
    device_key: DeviceKey,
    device_name: DeviceName,
    source: SocketAddr,
    is_signed: bool,
    /// The one-time code that admitted it.
    code: Option<AdmissionCode>,
    counted: Counted,
}

/// Checks what can be told of a first message by itself.
pub(super) fn check(to: ReplyTo, start: &LoginStart) -> Result<(), ProtocolViolation> {
    if start.ke1.as_bytes().len() == KE1_LEN {
        Ok(())
    } else {
        let what = "a KE1 of another length";
        Err(ProtocolViolation::new(to.connection, what))
    }
}

impl Attempt {
    /// Verifies the signature and asks the store what is known of the account.
    pub(super) fn start(
        to: ReplyTo,
        start: LoginStart,
        stranger: Stranger,
        gate: &mut Gate,
        context: &mut Context,
    ) -> Self {
        let Stranger {
            source,
            channel_binding,
        } = stranger;
        let statement = Statement {
            role: Role::PasswordLogin,
            channel_binding: &channel_binding,
            account: &start.account,
            content: start.ke1.as_bytes(),
        };
        let is_signed = start.device_key.verify(&statement, &start.signature);
        let request = AccountsRequest::Load {
            account: start.account.clone(),
            device_key: Some(start.device_key),
        };
        let opening = Opening {
            to,
            start,
            source,
            channel_binding,
            is_signed,
        };
        gate.store(to.connection, request, context);
        Self::Loading(Box::new(opening))
    }

    /// The peer sends its last message; the attempt comes back if it is not the peer's turn.
    pub(super) fn finish(
        self,
        to: ReplyTo,
        ke3: OpaqueMessage,
        gate: &mut Gate,
        context: &mut Context,
    ) -> Self {
        match self {
            Self::Challenged { login, state } => {
                let job = Job::Finish { login: state, ke3 };
                gate.compute(to.connection, job, context);
                Self::Finishing {
                    to,
                    login,
                    has_left: false,
                }
            }
            other @ (Self::Loading(_)
            | Self::Starting { .. }
            | Self::Finishing { .. }
            | Self::Enrolling { .. }) => {
                context.refuse(to, Refusal::OutOfOrder);
                other
            }
        }
    }

    /// Ends the attempt of a peer that left or starts another. It comes back if its password is still
    /// being checked: that decides. So it does while the device is being enrolled: others are to be told.
    pub(super) fn abandon(self, gate: &mut Gate, context: &mut Context) -> Option<Self> {
        match self {
            Self::Starting { login, .. } | Self::Challenged { login, .. } => {
                login.fail(gate, context);
                None
            }
            Self::Finishing { to, login, .. } => Some(Self::Finishing {
                to,
                login,
                has_left: true,
            }),
            Self::Enrolling { enrolling, .. } => Some(Self::Enrolling {
                enrolling,
                has_left: true,
            }),
            Self::Loading(_) => None,
        }
    }

    /// Tells whether it is the peer's turn.
    pub(super) const fn awaits_peer(&self) -> bool {
        matches!(self, Self::Challenged { .. })
    }

    /// Goes on with what the store has answered; `None` if the attempt is over.
    pub(super) fn on_stored(
        self,
        answer: StoreAnswer,
        gate: &mut Gate,
        context: &mut Context,
    ) -> Option<Self> {
        match self {
            Self::Loading(opening) => on_loaded(*opening, answer.into_account(), gate, context),
            Self::Starting {
                to,
                login,
                stretch,
                challenge,
                ..
            } => Some(go_on(to, login, stretch, true, challenge, context)),
            Self::Enrolling {
                enrolling,
                has_left,
            } => {
                on_enrolled(*enrolling, has_left, answer, gate, context);
                None
            }
            Self::Challenged { .. } | Self::Finishing { .. } => {
                unreachable!("an attempt in this state waits for no answer of the store")
            }
        }
    }

    /// The store has failed.
    pub(super) fn on_store_failed(self, gate: &mut Gate, context: &mut Context) {
        let to = match self {
            Self::Loading(opening) => opening.to,
            Self::Starting { to, login, .. } => {
                login.fail(gate, context);
                to
            }
            Self::Enrolling { enrolling, .. } => enrolling.to,
            Self::Challenged { .. } | Self::Finishing { .. } => {
                unreachable!("an attempt in this state waits for no answer of the store")
            }
        };
        context.refuse(to, Refusal::StoreFailed);
    }

    /// Goes on with what OPAQUE has computed; `None` if the attempt is over.
    pub(super) fn on_computed(
        self,
        outcome: Outcome,
        gate: &mut Gate,
        context: &mut Context,
    ) -> Result<Option<Self>, ProtocolViolation> {
        match (self, outcome) {
            (
                Self::Starting {
                    to,
                    login,
                    stretch,
                    is_saved,
                    ..
                },
                Outcome::Challenged(Ok(challenge)),
            ) => {
                let challenge = Some(challenge);
                Ok(Some(go_on(
                    to, login, stretch, is_saved, challenge, context,
                )))
            }
            (
                Self::Finishing {
                    to,
                    login,
                    has_left,
                },
                Outcome::Finished(checked),
            ) => Ok(on_finished(
                to,
                login,
                has_left,
                checked.is_ok(),
                gate,
                context,
            )),
            (
                Self::Starting { to, login, .. },
                Outcome::Challenged(Err(ChallengeError::Record(error))),
            ) => {
                log::warn!("{error}");
                gate.forget_work(to.connection, context);
                login.fail(gate, context);
                context.refuse(to, Refusal::StoreFailed);
                Ok(None)
            }
            (Self::Starting { to, login, .. }, _) => {
                login.fail(gate, context);
                let what = "a KE1 that OPAQUE cannot read";
                Err(ProtocolViolation::new(to.connection, what))
            }
            (attempt, outcome) => unreachable!("{outcome:?} is no answer to {attempt:?}"),
        }
    }
}

impl PasswordLogin {
    fn fail(self, gate: &mut Gate, context: &mut Context) {
        let Self {
            account,
            code,
            counted,
            ..
        } = self;
        gate.fail(account, code, counted, context);
    }

    fn into_member(self, id: AccountId, context: &Context) -> Member {
        Member {
            id,
            account: self.account,
            device_key: self.device_key,
            device_name: self.device_name,
            since: context.unix(),
            source: self.source,
        }
    }
}

/// The store has said what it knows of the name: the attempt is counted, or blocked.
fn on_loaded(
    opening: Opening,
    account: Option<Box<Account>>,
    gate: &mut Gate,
    context: &mut Context,
) -> Option<Attempt> {
    let Opening {
        to,
        start,
        source,
        channel_binding,
        is_signed,
    } = opening;
    let now = context.now;
    // Both are made in either case: it takes its time.
    let known = Subject::Account(start.account.clone());
    let unknown = gate.lockouts.unknown(&start.account);
    let subject = if account.is_some() { known } else { unknown };
    let is_known = account
        .as_ref()
        .is_some_and(|account| account.device.is_some());
    let lane = if is_signed && is_known {
        gate.tell(Event::Proven(to.connection));
        Lane::KnownDevice
    } else {
        Lane::Stranger
    };
    let (account_name, admissions) = (&start.account, &mut gate.admissions);
    let code = start.code;
    let code = code.filter(|code| admissions.begin(account_name, *code, now));
    let prefix = SourcePrefix::of(source.ip());
    let started = gate
        .lockouts
        .begin(subject, lane, prefix, code.is_some(), now);
    let started = match started {
        Ok(started) => started,
        Err(wait) => {
            if let Some(code) = code {
                gate.admissions.release(&start.account, code);
            }
            refuse_blocked(to, wait, context);
            return None;
        }
    };
    if started.is_blocked_now {
        // Names and addresses stand in the log below this level alone.
        log::info!("too many failed log-ins: block={lane} more=RUST_LOG=debug");
        log::debug!("blocked: account={} source={prefix}", start.account);
    }
    let stretch = account
        .as_ref()
        .map_or(STRETCH_CURRENT, |account| account.stretch);
    let (account_id, record) = account.map(|account| (account.id, account.record)).unzip();
    let job = Job::Login {
        account: start.account.clone(),
        record,
        ke1: start.ke1,
        channel_binding,
        seed: context.random(),
    };
    let request = LockoutsRequest::Save {
        row: started.row,
        is_blocked_now: started.is_blocked_now,
        at: context.unix(),
    };
    gate.store(to.connection, request, context);
    gate.compute(to.connection, job, context);
    let login = PasswordLogin {
        account: start.account,
        account_id,
        device_key: start.device_key,
        device_name: start.device_name,
        source,
        is_signed,
        code,
        counted: started.counted,
    };
    Some(Attempt::Starting {
        to,
        stretch,
        login: Box::new(login),
        is_saved: false,
        challenge: None,
    })
}

/// Answers once the count is durable and OPAQUE has its answer.
fn go_on(
    to: ReplyTo,
    login: Box<PasswordLogin>,
    stretch: StretchVersion,
    is_saved: bool,
    challenge: Option<(Box<ServerLogin>, OpaqueMessage)>,
    context: &mut Context,
) -> Attempt {
    match (is_saved, challenge) {
        (true, Some((state, ke2))) => {
            context.answer(to, LoginAnswer::LoginChallenge { ke2, stretch });
            Attempt::Challenged { login, state }
        }
        (is_saved, challenge) => Attempt::Starting {
            to,
            login,
            stretch,
            is_saved,
            challenge,
        },
    }
}

/// OPAQUE has checked the peer's last message.
fn on_finished(
    to: ReplyTo,
    login: Box<PasswordLogin>,
    has_left: bool,
    is_proved: bool,
    gate: &mut Gate,
    context: &mut Context,
) -> Option<Attempt> {
    // Without its signature the device key is only a claim: nothing may be enrolled under it.
    let account_id = login.account_id.filter(|_| is_proved && login.is_signed);
    let Some(account_id) = account_id else {
        login.fail(gate, context);
        context.refuse(to, Refusal::WrongCredentials);
        return None;
    };
    let used = login.code;
    let used = used.and_then(|code| gate.admissions.take(&login.account, code));
    drop_admissions(used, context);
    let lockout = gate.lockouts.succeed(&login.counted, context.now);
    if has_left {
        // In the last moment: it was the owner, all the same.
        save_lockout(lockout, context);
        return None;
    }
    let token = Token::from_bytes(context.random());
    let device = Device {
        key: login.device_key,
        name: login.device_name.clone(),
        token_hash: token.hash(),
        token_before: None,
        token_issued: context.unix(),
    };
    let enrolment = device.enrolment();
    let request = DevicesRequest::Enrol {
        id: account_id,
        device,
        lockout,
    };
    gate.store(to.connection, request, context);
    let enrolling = Enrolling {
        to,
        login: *login,
        account_id,
        token,
        enrolment,
    };
    Some(Attempt::Enrolling {
        enrolling: Box::new(enrolling),
        has_left: false,
    })
}

/// The store has enrolled the device, or not.
fn on_enrolled(
    enrolling: Enrolling,
    has_left: bool,
    answer: StoreAnswer,
    gate: &mut Gate,
    context: &mut Context,
) {
    let Enrolling {
        to,
        login,
        account_id,
        token,
        enrolment,
    } = enrolling;
    let StoreAnswer::Devices(DevicesAnswer::Enrolled { is_new, untold }) = answer else {
        return refuse_enrolment(to, &answer, context);
    };
    if is_new {
        let account = login.account.clone();
        gate.tell(Event::Enrolled(account, enrolment));
    }
    if !has_left {
        let member = login.into_member(account_id, context);
        gate.tell(Event::LoggedIn(Entered {
            to,
            member,
            token: Some(token),
            untold,
        }));
    }
}

/// The store has not enrolled the device.
fn refuse_enrolment(to: ReplyTo, answer: &StoreAnswer, context: &mut Context) {
    let refusal = match answer {
        StoreAnswer::Devices(DevicesAnswer::Full) => Refusal::DeviceLimit,
        // The account was removed in between.
        StoreAnswer::Devices(
            DevicesAnswer::NotFound
            | DevicesAnswer::Done
            | DevicesAnswer::Enrolled { .. }
            | DevicesAnswer::Renewed { .. }
            | DevicesAnswer::Listed(_)
            | DevicesAnswer::Owner(_),
        )
        | StoreAnswer::Accounts(_)
        | StoreAnswer::Logs(_)
        | StoreAnswer::Lockouts(_)
        | StoreAnswer::Admissions(_) => Refusal::WrongCredentials,
    };
    context.refuse(to, refusal);
}
