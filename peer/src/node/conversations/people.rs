//! Who is who in a conversation: what the logs of its accounts say of devices.

use common::account;
use common::id::AccountName;
use common::key::DeviceKey;
use common::log::{AccountId, ConversationId};
use common::wire::peer::AccountHead;

use super::reaching::head;
use crate::log::{Rank, Standing};
use crate::node::account::Account;
use crate::node::identities::Identities;
use crate::node::io::entries::{ConversationKind, Origin};

/// This device's account, and what is known of all accounts.
#[derive(Clone, Copy, Debug)]
pub(in crate::node) struct People<'a> {
    /// The account that this device has logged in to.
    pub(in crate::node) own: Option<&'a AccountName>,
    /// The logs of accounts.
    pub(in crate::node) identities: &'a Identities,
}

impl<'a> People<'a> {
    pub(in crate::node) fn of(account: &'a Account, identities: &'a Identities) -> Self {
        Self {
            own: account.name(),
            identities,
        }
    }

    /// What this device has of its own account's log.
    pub(super) fn head(&self) -> Option<AccountHead> {
        self.identities.log_of(self.own?).map(head)
    }

    /// Who an account is, if its log is known.
    pub(super) fn id(&self, account: &AccountName) -> Option<AccountId> {
        self.identities.log_of(account).map(account::AccountLog::id)
    }

    /// The conversation with an account, or of this one with itself, if both logs are known.
    pub(super) fn conversation(
        &self,
        with: &AccountName,
    ) -> Option<(ConversationId, ConversationKind)> {
        let own = self.own?;
        let id = ConversationId::direct(&self.id(own)?, &self.id(with)?);
        let kind = match with == own {
            true => ConversationKind::Notes(with.clone()),
            false => ConversationKind::Direct(with.clone()),
        };
        Some((id, kind))
    }

    /// Tells whether a device is, or was, one of this account's.
    pub(super) fn is_own(&self, device: &DeviceKey) -> bool {
        let log = self.own.and_then(|own| self.identities.log_of(own));
        log.is_some_and(|log| log.standing().device(device).is_some())
    }

    /// Whose a device's entries are, of a device that is not this one.
    pub(super) fn origin(&self, device: &DeviceKey) -> Origin {
        match self.is_own(device) {
            true => Origin::OwnAccount,
            false => Origin::OtherAccount,
        }
    }

    /// Whose entries count in a conversation. If another account has its other side's name by now, nobody's of that
    /// side do.
    pub(super) fn members(&self, id: &ConversationId, kind: &ConversationKind) -> Members<'a> {
        let standing = |account: &AccountName| {
            let log = self.identities.log_of(account);
            log.map(account::AccountLog::standing)
        };
        let is_current = self.is_current(id, kind);
        Members {
            ours: self.own.and_then(standing),
            theirs: is_current.then(|| standing(kind.account())).flatten(),
        }
    }

    /// Tells whether the account that has the name of a conversation's other side is that side.
    pub(super) fn is_current(&self, id: &ConversationId, kind: &ConversationKind) -> bool {
        let current = self.conversation(kind.account());
        current.is_some_and(|(current, _)| current == *id)
    }
}

/// The devices of the two accounts of a conversation.
#[derive(Clone, Copy, Debug)]
pub(super) struct Members<'a> {
    ours: Option<&'a account::Standing>,
    theirs: Option<&'a account::Standing>,
}

impl Members<'_> {
    /// Tells whether this device, which has not been revoked itself, has revoked a device of its account.
    pub(super) fn is_revoked_by(&self, device: &DeviceKey, by: &DeviceKey) -> bool {
        let device = self.ours.and_then(|ours| ours.device(device));
        device.is_some_and(|device| match &device.state {
            account::State::Revoked { by: revoker, .. } => revoker == by,
            account::State::Approved => false,
        })
    }
}

impl Standing for Members<'_> {
    fn is_approved(&self, device: &DeviceKey) -> bool {
        let mut accounts = self.ours.into_iter().chain(self.theirs);
        accounts.any(|account| account.is_approved(device))
    }

    fn rank(&self, signer: &DeviceKey, target: &DeviceKey) -> Option<Rank> {
        let mut accounts = self.ours.into_iter().chain(self.theirs);
        let account = accounts.find(|account| account.device(target).is_some())?;
        let depth = account.device(signer)?.depth;
        let depth = u32::try_from(depth).unwrap_or(u32::MAX);
        account.may_revoke(signer, target).then_some(Rank(depth))
    }
}
