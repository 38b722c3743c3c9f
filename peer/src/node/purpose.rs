//! The purpose of a request to the server or the store. It comes back with the answer, and determines
//! which part takes the answer.

use common::account::AccountEntry;
use common::id::{AccountName, MessageId};
use common::key::{DeviceKey, Token};
use common::log::{ChainId, ConversationId, EntryId};
use common::wire::peer::Message;
use common::wire::rendezvous::FailedLogins;

use super::command::{CommandId, MessageState};
use super::drafts::Written;
use super::io::StoreRequest;
use super::transport::LinkId;
use crate::log::PageRequest;

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
    Conversations(ConversationStored),
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

/// What follows when the store has answered about conversations. A number tells which reading of a conversation it
/// belongs to.
#[derive(Debug)]
pub(super) enum ConversationStored {
    /// It is known how the last program ended.
    Marks,
    /// It is known which conversations there are.
    Listed,
    /// A part of a conversation is read.
    Restored(ConversationId, u64),
    /// It is known what is to be written again.
    Lost(ConversationId, u64),
    /// A conversation has its place; nothing follows.
    Opened,
    /// Something is on disk: whoever gave it, or wrote it, is told.
    Written(ConversationId, u64, Box<Written>),
    /// A page can be given.
    Page { link: LinkId, request: PageRequest },
    /// A question about a fork can be answered.
    Stretch {
        link: LinkId,
        conversation: ConversationId,
        at: EntryId,
    },
    /// The search for a fork goes on.
    OwnStretch {
        link: LinkId,
        conversation: ConversationId,
        chain: ChainId,
    },
    /// A proof can be given.
    Proof { link: LinkId },
    /// It is known where a chain ends.
    Hash(ConversationId, u64, EntryId),
    /// Messages to an account have got so far: people are told.
    Reached(AccountName, MessageState, Box<StoreRequest>),
    /// A message waits until it is known who its recipient is.
    Queued(CommandId, usize, Box<(AccountName, Message)>),
    /// A person reads the history.
    LookedUp(CommandId),
    /// A person has seen messages: their authors are told.
    Marked(CommandId),
    /// It is known which entries a person would take back.
    Found(CommandId, Vec<(AccountName, MessageId)>),
    /// Messages are taken back: people are told.
    Withdrawn(CommandId, Vec<(AccountName, MessageId)>),
    /// Where runs have ended is on disk: the program may end.
    Ended,
}

common::from_parts!(StorePurpose {
    Account(AccountStored),
    Conversations(ConversationStored),
});
