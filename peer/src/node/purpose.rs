//! Why the server or the store was asked: comes back with the answer, and says to which part it goes.

use common::id::AccountName;
use common::key::{DeviceKey, Token};
use common::wire::peer::Message;
use common::wire::rendezvous::FailedLogins;

use super::command::CommandId;
use super::io::StoreRequest;
use super::transport::LinkId;

// ---- of the server -----------------------------------------------------------------------------

/// Why a request was made. It has the feature of the request and of its answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    Directory(DirectoryPurpose),
    Device(DevicePurpose),
}

/// Why the directory was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum DirectoryPurpose {
    /// To say where this device can be reached.
    Announce,
    /// A person wants to see the directory.
    List(CommandId),
    /// To be told of changes: the directory as it is, then what changes in it.
    Watch,
    /// To be told of changes no more.
    Unwatch,
    /// To dial the devices of an account that something waits for.
    Find(AccountName),
    /// To learn whose key an inbound link proved.
    WhoIs(DeviceKey),
}

/// Why the server was asked for something of this device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum DevicePurpose {
    /// A person wants a one-time code.
    Admit(CommandId),
    /// A person logs out.
    LogOut(CommandId),
    /// The session would end without a request.
    KeepAlive,
}

impl From<DirectoryPurpose> for Purpose {
    fn from(purpose: DirectoryPurpose) -> Self {
        Self::Directory(purpose)
    }
}

impl From<DevicePurpose> for Purpose {
    fn from(purpose: DevicePurpose) -> Self {
        Self::Device(purpose)
    }
}

// ---- of the store ------------------------------------------------------------------------------

/// Why the store was asked.
#[derive(Debug)]
pub(super) enum StorePurpose {
    Account(AccountStored),
    Chat(ChatStored),
    /// Nobody waits, and it is asked again until it succeeds.
    Repeated(StoreRequest),
}

/// What follows when the session is stored.
#[derive(Debug)]
pub(super) enum AccountStored {
    /// The log-in that this command asked for is complete.
    LoggedIn {
        command: CommandId,
        failed: Option<FailedLogins>,
    },
    /// A renewed token is durable: it is used from now on.
    Renewed { account: AccountName, token: Token },
    /// The session is forgotten; nothing follows.
    LoggedOut,
}

/// What follows when the history has answered.
#[derive(Debug)]
pub(super) enum ChatStored {
    /// Messages of this account are durable: the person is told, and notes to oneself arrive.
    Queued {
        command: CommandId,
        messages: Vec<(AccountName, Message)>,
    },
    /// A received message is durable: its author gets a receipt.
    Received {
        /// Where it came from; `None` for a note to oneself.
        link: Option<LinkId>,
        from: AccountName,
        message: Message,
        /// The person was told of it already.
        is_told: bool,
        /// The chain of received messages that it belongs to.
        chain: u64,
    },
    /// Messages of this account are out of the outbox: the person is told which.
    Withdrawn {
        command: CommandId,
        messages: Vec<(AccountName, Message)>,
    },
    /// A person reads the history.
    Looked(CommandId),
    /// A person has seen messages: their authors get receipts.
    Marked(CommandId),
}

impl From<AccountStored> for StorePurpose {
    fn from(purpose: AccountStored) -> Self {
        Self::Account(purpose)
    }
}

impl From<ChatStored> for StorePurpose {
    fn from(purpose: ChatStored) -> Self {
        Self::Chat(purpose)
    }
}
