//! A log-in with a device's token, step by step.
//!
//! Names without an account take the same steps and end the same way.

use std::net::SocketAddr;

use common::id::{AccountName, DeviceName};
use common::key::{DeviceKey, Role, Statement, Token};
use common::limits::{TOKEN_LIFETIME, TOKEN_RENEW_AFTER};
use common::wire::rendezvous::{Refusal, TokenLogin};

use super::gate::{Entered, Event, Gate, refuse_blocked};
use crate::server::connections::Stranger;
use crate::server::context::{Context, ReplyTo};
use crate::server::member::Member;
use crate::source::SourcePrefix;
use crate::store::{
    Account, AccountId, AccountsRequest, DevicesAnswer, DevicesRequest, StoreAnswer,
};

/// A log-in with a token under way.
#[derive(Debug)]
pub(super) enum Attempt {
    /// Waits for the store: what is known of the account and the device?
    Loading {
        to: ReplyTo,
        source: SocketAddr,
        login: Box<TokenLogin>,
        is_signed: bool,
    },
    /// Waits for the store; the token was right, and is being replaced.
    Renewing {
        to: ReplyTo,
        source: SocketAddr,
        account: AccountName,
        account_id: AccountId,
        device_key: DeviceKey,
        device_name: DeviceName,
        token: Token,
    },
}

impl Attempt {
    /// Verifies the signature and asks the store what is known of the account.
    pub(super) fn start(
        to: ReplyTo,
        login: TokenLogin,
        stranger: Stranger,
        gate: &mut Gate,
        context: &mut Context,
    ) -> Self {
        let statement = Statement {
            role: Role::TokenLogin,
            channel_binding: &stranger.channel_binding,
            account: &login.account,
            content: login.token.as_bytes(),
        };
        let is_signed = login.device_key.verify(&statement, &login.signature);
        let request = AccountsRequest::Load {
            account: login.account.clone(),
            device_key: Some(login.device_key),
        };
        gate.store(to.connection, request, context);
        Self::Loading {
            to,
            source: stranger.source,
            login: Box::new(login),
            is_signed,
        }
    }

    /// Goes on with what the store has answered; `None` if the attempt is over.
    pub(super) fn on_stored(
        self,
        answer: StoreAnswer,
        gate: &mut Gate,
        context: &mut Context,
    ) -> Option<Self> {
        match self {
            Self::Loading {
                to,
                source,
                login,
                is_signed,
            } => {
                let account = answer.into_account();
                on_loaded(to, source, *login, is_signed, account, gate, context)
            }
            Self::Renewing {
                to,
                source,
                account,
                account_id,
                device_key,
                device_name,
                token,
            } => {
                let StoreAnswer::Devices(DevicesAnswer::Renewed { untold }) = answer else {
                    context.refuse(to, Refusal::TokenRefused);
                    return None;
                };
                let member = Member {
                    id: account_id,
                    account,
                    device_key,
                    device_name,
                    since: context.unix(),
                    source,
                };
                gate.tell(Event::LoggedIn(Entered {
                    to,
                    member,
                    token: Some(token),
                    untold,
                }));
                None
            }
        }
    }

    /// The store has failed.
    pub(super) fn on_store_failed(self, context: &mut Context) {
        match self {
            Self::Loading { to, .. } | Self::Renewing { to, .. } => {
                context.refuse(to, Refusal::StoreFailed);
            }
        }
    }
}

fn on_loaded(
    to: ReplyTo,
    source: SocketAddr,
    login: TokenLogin,
    is_signed: bool,
    account: Option<Box<Account>>,
    gate: &mut Gate,
    context: &mut Context,
) -> Option<Attempt> {
    let wall = context.unix();
    let owner = account.and_then(|account| Some((account.id, account.device?, account.untold)));
    let owner = owner.filter(|(_, device, _)| {
        let age = wall.saturating_since(device.token_issued);
        is_signed && device.has_token(&login.token.hash()) && age < TOKEN_LIFETIME
    });
    let Some((account_id, device, untold)) = owner else {
        let source = SourcePrefix::of(source.ip());
        match gate.lockouts.count_source(source, context.now) {
            Ok(()) => context.refuse(to, Refusal::TokenRefused),
            Err(wait) => refuse_blocked(to, wait, context),
        }
        return None;
    };
    let presented = login.token.hash();
    let is_newest = device.token_hash == presented;
    if is_newest && device.token_before.is_some() {
        let request = DevicesRequest::DropTokenBefore {
            id: account_id,
            device_key: device.key,
        };
        context.store_unawaited(request.into());
    }
    if is_newest && wall.saturating_since(device.token_issued) < TOKEN_RENEW_AFTER {
        let member = Member {
            id: account_id,
            account: login.account,
            device_key: device.key,
            device_name: device.name,
            since: wall,
            source,
        };
        gate.tell(Event::LoggedIn(Entered {
            to,
            member,
            token: None,
            untold,
        }));
        return None;
    }
    let token = Token::from_bytes(context.random());
    let request = DevicesRequest::RenewToken {
        id: account_id,
        device_key: device.key,
        token_hash: token.hash(),
        token_before: presented,
        at: wall,
    };
    gate.store(to.connection, request, context);
    Some(Attempt::Renewing {
        to,
        source,
        account: login.account,
        account_id,
        device_key: device.key,
        device_name: device.name,
        token,
    })
}
