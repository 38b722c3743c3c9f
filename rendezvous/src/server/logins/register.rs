//! An attempt to register an account, step by step.

use common::id::AccountName;
use common::password::{CredentialId, PasswordRecord, STRETCH_CURRENT};
use common::wire::rendezvous::{LoginAnswer, OpaqueMessage, Refusal, StretchVersion};

use super::gate::Gate;
use super::lockout::seconds;
use crate::server::context::{Context, ProtocolViolation, ReplyTo};
use crate::server::io::{Job, Outcome};
use crate::source::SourcePrefix;
use crate::store::{AccountsAnswer, AccountsRequest, StoreAnswer};

/// A registration under way.
#[derive(Debug)]
pub(super) enum Attempt {
    /// Waits for the store (is the name free?) and for OPAQUE.
    Starting {
        to: ReplyTo,
        wanted: Wanted,
        is_free: Option<bool>,
        response: Option<OpaqueMessage>,
    },
    /// Waits for the peer.
    Challenged(Wanted),
    /// Waits for the store.
    Finishing { to: ReplyTo },
}

/// An account that somebody wants to have.
#[derive(Debug)]
pub(super) struct Wanted {
    account: AccountName,
    /// Of this registration alone: what others had evaluated for the name is of no use to them.
    credential: CredentialId,
}

impl Attempt {
    /// Begins, unless this source has registered as many accounts as it may.
    pub(super) fn start(
        to: ReplyTo,
        source: SourcePrefix,
        account: AccountName,
        message: OpaqueMessage,
        gate: &mut Gate,
        context: &mut Context,
    ) -> Option<Self> {
        let wait = gate.registrations.wait(source, context.now);
        if !wait.is_zero() {
            let retry_after_s = seconds(wait);
            context.refuse(to, Refusal::RegistrationLimit { retry_after_s });
            return None;
        }
        // Counted from the start, because the answer tells whether the name is taken.
        gate.registrations.count(source, context.now);
        let request = AccountsRequest::Load {
            account: account.clone(),
            device_key: None,
        };
        let credential = CredentialId::from_random(context.random());
        let job = Job::Register {
            credential: credential.clone(),
            message,
        };
        gate.store(to.connection, request, context);
        gate.compute(to.connection, job, context);
        let wanted = Wanted {
            account,
            credential,
        };
        Some(Self::Starting {
            to,
            wanted,
            is_free: None,
            response: None,
        })
    }

    /// The peer has finished what it began with `wanted`; `None` if the server is too busy.
    pub(super) fn finish(
        wanted: &Wanted,
        to: ReplyTo,
        upload: &OpaqueMessage,
        stretch: StretchVersion,
        gate: &mut Gate,
        context: &mut Context,
    ) -> Result<Option<Self>, ProtocolViolation> {
        let record = PasswordRecord::from_upload(&wanted.credential, upload).ok();
        // Whoever logs in is told this version, and has to know it.
        let Some(record) = record.filter(|_| stretch == STRETCH_CURRENT) else {
            let what = "a registration that is no record";
            return Err(ProtocolViolation::new(to.connection, what));
        };
        if context.is_busy() {
            context.refuse_busy(to);
            return Ok(None);
        }
        let request = AccountsRequest::Create {
            account: wanted.account.clone(),
            record,
            stretch,
            at: context.unix(),
        };
        gate.store(to.connection, request, context);
        Ok(Some(Self::Finishing { to }))
    }

    /// Tells whether it is the peer's turn.
    pub(super) const fn awaits_peer(&self) -> bool {
        matches!(self, Self::Challenged(_))
    }

    /// Goes on with what the store has answered; `None` if the attempt is over.
    pub(super) fn on_stored(self, answer: StoreAnswer, context: &mut Context) -> Option<Self> {
        match self {
            Self::Starting {
                to,
                wanted,
                response,
                ..
            } => {
                let is_free = matches!(
                    answer,
                    StoreAnswer::Accounts(AccountsAnswer::Loaded(found)) if found.account.is_none()
                );
                go_on(to, wanted, Some(is_free), response, context)
            }
            Self::Finishing { to } => {
                if matches!(answer, StoreAnswer::Accounts(AccountsAnswer::Done)) {
                    context.answer(to, LoginAnswer::Registered);
                } else {
                    context.refuse(to, Refusal::AccountExists);
                }
                None
            }
            Self::Challenged(_) => {
                unreachable!("an attempt that is the peer's turn waits for no answer of the store")
            }
        }
    }

    /// The store has failed.
    pub(super) fn on_store_failed(self, context: &mut Context) {
        match self {
            Self::Starting { to, .. } | Self::Finishing { to } => {
                context.refuse(to, Refusal::StoreFailed);
            }
            Self::Challenged(_) => {
                unreachable!("an attempt that is the peer's turn waits for no answer of the store")
            }
        }
    }

    /// Goes on with what OPAQUE has computed; `None` if the attempt is over.
    pub(super) fn on_computed(
        self,
        outcome: Outcome,
        context: &mut Context,
    ) -> Result<Option<Self>, ProtocolViolation> {
        match (self, outcome) {
            (
                Self::Starting {
                    to,
                    wanted,
                    is_free,
                    ..
                },
                Outcome::Registered(Ok(response)),
            ) => Ok(go_on(to, wanted, is_free, Some(response), context)),
            (Self::Starting { to, .. }, _) => {
                let what = "a registration that OPAQUE cannot read";
                Err(ProtocolViolation::new(to.connection, what))
            }
            (attempt, outcome) => unreachable!("{outcome:?} is no answer to {attempt:?}"),
        }
    }
}

/// Answers once both the store and OPAQUE have.
fn go_on(
    to: ReplyTo,
    wanted: Wanted,
    is_free: Option<bool>,
    response: Option<OpaqueMessage>,
    context: &mut Context,
) -> Option<Attempt> {
    match (is_free, response) {
        (Some(true), Some(message)) => {
            context.answer(to, LoginAnswer::RegisterChallenge { message });
            Some(Attempt::Challenged(wanted))
        }
        (Some(false), Some(_)) => {
            context.refuse(to, Refusal::AccountExists);
            None
        }
        (is_free, response) => Some(Attempt::Starting {
            to,
            wanted,
            is_free,
            response,
        }),
    }
}
