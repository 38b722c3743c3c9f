//! The purpose of a request to the server or the store. It comes back with the answer, and determines
//! which part takes the answer.

use std::collections::BTreeSet;

use common::account::AccountEntry;
use common::id::{AccountName, MessageId};
use common::key::{DeviceKey, Token};
use common::wire::peer::Message;
use common::wire::rendezvous::FailedLogins;

use super::command::CommandId;
use super::io::StoreRequest;
use super::transport::LinkId;

// ---- requests to the server --------------------------------------------------------------------

/// Why the server was asked. Purpose, request and answer are of the same feature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    Directory(DirectoryPurpose),
    Device(DevicePurpose),
    Introduction(IntroductionPurpose),
    Identity(IdentityPurpose),
}

/// Why the directory was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum DirectoryPurpose {
    /// To announce this device's endpoints.
    Announce,
    /// A person wants to see the directory.
    List(CommandId),
    /// To have the present directory listed, and then presence changes pushed.
    Watch,
    /// To have presence changes pushed no longer.
    Unwatch,
    /// To learn the account of a key that an inbound link proved.
    WhoIs(DeviceKey),
}

/// Why the server was asked for something of this device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum DevicePurpose {
    /// A person wants a one-time code.
    Admit(CommandId),
    /// A person logs out.
    LogOut(CommandId),
    /// The session would time out without a request.
    KeepAlive,
    /// The owner of the account is told of an enrolment.
    Noted,
}

/// Why the server was asked for links to others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum IntroductionPurpose {
    /// To be reached through the relay.
    Allocate,
    /// To make links to the devices of an account that something waits for.
    Introduce(AccountName),
}

common::from_parts!(Purpose {
    Directory(DirectoryPurpose),
    Device(DevicePurpose),
    Introduction(IntroductionPurpose),
    Identity(IdentityPurpose),
});

/// Why the server was asked about the log of an account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum IdentityPurpose {
    /// To know who its devices are.
    Read(AccountName),
    /// To know which devices have logged in to this account.
    Enrolled(AccountName),
    /// To know which devices of this account are online; the answer is the directory's.
    Online(AccountName),
    /// To add an entry, perhaps for a command.
    Append {
        account: AccountName,
        entry: Box<AccountEntry>,
        command: Option<CommandId>,
    },
}

impl Purpose {
    /// Tells whether a person waits for the answer.
    pub(super) const fn is_of_person(&self) -> bool {
        match self {
            Self::Directory(DirectoryPurpose::List(_))
            | Self::Device(DevicePurpose::Admit(_) | DevicePurpose::LogOut(_))
            | Self::Identity(_) => true,
            Self::Directory(
                DirectoryPurpose::Announce
                | DirectoryPurpose::Watch
                | DirectoryPurpose::Unwatch
                | DirectoryPurpose::WhoIs(_),
            )
            | Self::Device(DevicePurpose::KeepAlive | DevicePurpose::Noted)
            | Self::Introduction(
                IntroductionPurpose::Allocate | IntroductionPurpose::Introduce(_),
            ) => false,
        }
    }
}

// ---- requests to the store ---------------------------------------------------------------------

/// Why the store was asked.
#[derive(Debug)]
pub(super) enum StorePurpose {
    Account(AccountStored),
    Chat(ChatStored),
    /// No caller awaits this write; it is repeated until it succeeds.
    Unawaited(StoreRequest),
}

/// What follows when the session is stored.
#[derive(Debug)]
pub(super) enum AccountStored {
    /// The log-in that this command asked for is complete.
    LoggedIn {
        command: CommandId,
        failed: Option<FailedLogins>,
    },
    /// A renewed token is durable, and is used from now on.
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
        /// Those of them that links carried at once.
        sent: BTreeSet<MessageId>,
    },
    /// A received message is durable: its author gets a receipt.
    Received {
        /// Where it came from; `None` for a note to oneself.
        link: Option<LinkId>,
        from: AccountName,
        message: Message,
        /// The person has been told of it.
        is_told: bool,
        /// The chain that it belongs to: [`ChatRequest::Receive`](super::io::ChatRequest::Receive).
        chain: u64,
    },
    /// Messages of this account are out of the outbox: the person is told which.
    Withdrawn {
        command: CommandId,
        messages: Vec<(AccountName, Message)>,
    },
    /// A recipient has seen a message: the person is told, unless that was known.
    Read { id: MessageId, to: AccountName },
    /// A person reads the history.
    LookedUp(CommandId),
    /// A person has seen messages: their authors get receipts.
    Marked(CommandId),
}

common::from_parts!(StorePurpose {
    Account(AccountStored),
    Chat(ChatStored),
});
