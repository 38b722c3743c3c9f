//! What a person, or a program for them, asks of a node, and what it tells them.
//!
//! These types are also the JSON-RPC interface of a profile's socket: a [`Command`] is the method and
//! its params, a [`Reply`] the result, a [`CommandError`] the error, an [`Event`] a notification.

use std::net::SocketAddr;
use std::path::PathBuf;

use common::id::{AccountName, DeviceName, MessageId, TransferId};
use common::time::UnixTime;
use common::wire::peer::MessageBody;
use common::wire::rendezvous::{FailedLogins, Refusal, Status};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

/// Pairs a reply with its command. Chosen by the shell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CommandId(pub u64);

/// Something asked of a node. Every command gets one reply.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "method", content = "params", rename_all = "snake_case")]
pub enum Command {
    /// Creates an account at the server and logs this device in to it.
    Register {
        /// The name wanted.
        account: AccountName,
        /// Its password.
        password: PasswordText,
    },
    /// Logs this device in with a password.
    LogIn {
        /// Whose account.
        account: AccountName,
        /// Its password.
        password: PasswordText,
        /// A one-time code, needed while the account is blocked.
        code: Option<String>,
    },
    /// Waits until this device is logged in with its token. Replies at once if it is.
    WaitReady,
    /// Ends the session and revokes this device's token.
    LogOut,
    /// Asks for a one-time code for a new device.
    Admit,
    /// Who and where this node is.
    Status,
    /// The whole directory.
    List,
    /// Asks for [`Event::Presence`] from now on.
    Watch,
    /// Sends a text to one or several accounts; each gets a message of its own. Replies once all of
    /// them are in the outbox; what becomes of them follows as [`Event::MessageState`].
    Send {
        /// Recipients, 1 to [`common::limits::RECIPIENTS_MAX`].
        to: Vec<AccountName>,
        /// The text.
        body: MessageBody,
        /// When it was sent, by this machine's clock.
        sent: UnixTime,
    },
    /// Messages that wait in the outbox, in the order of their recipients, the oldest first.
    Outbox,
    /// Takes messages out of the outbox and the history that no link has carried yet in this run; the
    /// reply says which. One that an earlier run had on its way may have arrived all the same.
    Withdraw {
        /// At most [`common::limits::WITHDRAW_MAX`].
        ids: Vec<MessageId>,
    },
    /// Offers a file to one account.
    SendFile {
        /// The recipient.
        to: AccountName,
        /// An absolute path on this machine.
        path: PathBuf,
    },
    /// Answers an offer.
    AnswerOffer {
        /// Which offer.
        transfer: TransferId,
        /// Where to put the file, an absolute path to a folder; `None` declines.
        folder: Option<PathBuf>,
    },
    /// Ends a transfer early.
    Cancel {
        /// Which.
        transfer: TransferId,
    },
    /// Offers that nobody has answered yet.
    Offers,
    /// The latest messages with one account, or with all, oldest first.
    History {
        /// With whom.
        with: Option<AccountName>,
        /// At most so many.
        limit: u32,
    },
    /// Messages received that nobody has seen, oldest first.
    Unread,
    /// Messages that were shown to the person.
    MarkRead {
        /// Which.
        ids: Vec<MessageId>,
    },
}

/// A password on its way to a node. Wiped when dropped, never shown.
#[derive(Clone, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PasswordText(pub Zeroizing<String>);

impl std::fmt::Debug for PasswordText {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PasswordText(…)")
    }
}

/// The reply to a [`Command`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// Done, nothing more to say.
    Done,
    /// Logged in, with what the owner must know.
    LoggedIn {
        /// Failed log-ins of others since the last time.
        failed: Option<FailedLogins>,
    },
    /// A one-time code.
    Admission {
        /// To be typed at the new device.
        code: String,
        /// Seconds until it expires.
        expires_in_s: u32,
    },
    /// Who and where this node is.
    Status(NodeStatus),
    /// The directory, ordered by account.
    Directory(Vec<Listed>),
    /// The messages of a `Send`, in the order of the recipients.
    Queued(Vec<MessageId>),
    /// The messages that a `Withdraw` took back.
    Withdrawn(Vec<MessageId>),
    /// The transfer of a `SendFile`.
    Offered(TransferId),
    /// Open offers.
    Offers(Vec<OfferView>),
    /// Messages of the history or the outbox.
    Messages(Vec<HistoryItem>),
}

/// Why a command was not carried out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum CommandError {
    /// The server said no.
    #[error("the server refused: {0}")]
    Refused(Refusal),
    /// This device has no account yet.
    #[error("this device is not logged in; run 'peer login NAME' or 'peer register NAME' first")]
    NotLoggedIn,
    /// The server was asked this password before and refused it.
    #[error("unknown account or wrong password")]
    WrongPassword,
    /// The password or code breaks a rule.
    #[error("{0}")]
    Invalid(String),
    /// The server cannot be reached, or the connection to it broke.
    #[error("the server cannot be reached: {0}")]
    Unreachable(String),
    /// The server showed another key than the pinned one.
    #[error(
        "THE SERVER'S KEY HAS CHANGED. Expected {expected}, seen {seen}. Someone may be in between; ask the operator, and only then run 'peer forget-server'"
    )]
    ServerKeyChanged {
        /// What is pinned.
        expected: String,
        /// What was shown.
        seen: String,
    },
    /// The server, or this peer, is too old.
    #[error(
        "this peer and the server speak different versions of the protocol; upgrade the older of the two (the server is {server})"
    )]
    Upgrade {
        /// Program and version of the server.
        server: String,
    },
    /// No device of the account is online.
    #[error("{0} is not online")]
    PeerOffline(AccountName),
    /// There is no such transfer or offer.
    #[error("there is no such transfer, or it has ended")]
    NoSuchTransfer,
    /// The file cannot be read.
    #[error("{0}")]
    File(String),
    /// The history cannot be read or written.
    #[error("the history failed: {0}")]
    Store(String),
    /// Too many of something at once.
    #[error("too many {0} at once; wait for some to end")]
    TooMany(String),
}

/// Something that happened, told to whoever listens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "method", content = "params", rename_all = "snake_case")]
pub enum Event {
    /// The control connection changed.
    Connection(ConnectionState),
    /// A device came, changed or left.
    Presence(PresenceView),
    /// A message arrived. It is on its way into the history; its author gets the receipt once it is
    /// there.
    Message(HistoryItem),
    /// A message of ours got on.
    MessageState {
        /// Which.
        id: MessageId,
        /// Its recipient.
        to: AccountName,
        /// How far it is.
        state: MessageState,
    },
    /// Somebody offers a file.
    Offer(OfferView),
    /// A transfer got on.
    Transfer {
        /// Which.
        transfer: TransferId,
        /// How far it is.
        state: TransferState,
    },
    /// Somebody else failed to log in to this account.
    FailedLogins(FailedLogins),
    /// A device of a known account has a key that was never seen before: to be shown, loudly.
    NewKey {
        /// Whose.
        account: AccountName,
        /// The fingerprint of the new key.
        fingerprint: String,
        /// How many keys of this account are known already.
        known: usize,
    },
}

/// State of the control connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum ConnectionState {
    /// On the way.
    Connecting,
    /// Logged in and listed.
    Online,
    /// Not connected; the node tries again by itself.
    Offline {
        /// Why, in words.
        reason: String,
        /// Seconds until the next attempt; `None` when a person has to act first.
        retry_in_s: Option<u32>,
    },
}

/// A device in the directory as people see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listed {
    /// Whose.
    pub account: AccountName,
    /// What its owner calls it.
    pub device: DeviceName,
    /// Fingerprint of its key.
    pub fingerprint: String,
    /// What it says of itself.
    pub status: Status,
    /// Online since.
    pub since: UnixTime,
    /// Its UDP endpoints.
    pub endpoints: Vec<SocketAddr>,
    /// It is this device.
    pub is_self: bool,
}

/// A presence change as people see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "change", rename_all = "snake_case")]
pub enum PresenceView {
    /// A device is online.
    Online(Listed),
    /// A device left.
    Offline {
        /// Whose.
        account: AccountName,
        /// Fingerprint of its key.
        fingerprint: String,
    },
}

/// Who and where a node is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeStatus {
    /// The account, once known.
    pub account: Option<AccountName>,
    /// Fingerprint of this device's key.
    pub fingerprint: String,
    /// State of the control connection.
    pub connection: ConnectionState,
    /// What it announces.
    pub endpoints: Vec<SocketAddr>,
    /// Accounts that it has a link to right now.
    pub linked: Vec<AccountName>,
    /// Messages that wait for their recipients.
    pub outbox: usize,
}

/// A message of the history.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistoryItem {
    /// Which message.
    pub id: MessageId,
    /// The other side of the conversation.
    pub with: AccountName,
    /// Sent by us or to us.
    pub direction: Direction,
    /// When its author sent it, by the author's clock.
    pub sent: UnixTime,
    /// The text; from outside, so a terminal gets it through `common::text`.
    pub body: MessageBody,
    /// How far it is. Received messages are `Delivered` until they are `Read`.
    pub state: MessageState,
}

/// Who wrote a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// This account.
    Sent,
    /// The other.
    Received,
}

/// How far a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MessageState {
    /// In our outbox, on disk.
    Queued,
    /// On the wire.
    Sent,
    /// On the recipient's disk.
    Delivered,
    /// Shown to the recipient.
    Read,
}

/// An offer as people see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OfferView {
    /// Which transfer.
    pub transfer: TransferId,
    /// Who offers.
    pub from: AccountName,
    /// The file's name as the sender has it; from outside.
    pub name: String,
    /// Bytes.
    pub size: u64,
    /// Whether it is a program.
    pub executable: bool,
}

/// How far a transfer is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum TransferState {
    /// The offer is with the other side.
    Waiting,
    /// The other side declined.
    Declined {
        /// Why, in words.
        reason: String,
    },
    /// Bytes move. For the sender: read and sent; for the receiver: verified and on disk.
    Moving {
        /// Bytes so far.
        done: u64,
        /// Bytes in all.
        total: u64,
    },
    /// The file is verified and under its name on the receiver's disk.
    Done {
        /// BLAKE3 of the file, in hexadecimal.
        digest: String,
        /// Bytes.
        total: u64,
        /// Milliseconds from acceptance to here.
        elapsed_ms: u64,
        /// Where it is, on the receiver's side.
        path: Option<PathBuf>,
    },
    /// It ended early.
    Failed {
        /// Why, in words.
        reason: String,
    },
}

impl TransferState {
    /// Tells whether nothing more will happen.
    pub const fn is_final(&self) -> bool {
        match self {
            Self::Waiting | Self::Moving { .. } => false,
            Self::Declined { .. } | Self::Done { .. } | Self::Failed { .. } => true,
        }
    }
}
