//! The commands of a person, or of a program for them, to a node, and the node's replies and events.
//!
//! These types are also the JSON-RPC interface of a profile's socket: a [`Command`] is the method and
//! its params, a [`Reply`] the result, a [`CommandError`] the error, an [`Event`] a notification.

use std::net::SocketAddr;
use std::path::PathBuf;

use common::id::{AccountName, DeviceName, MessageId, TransferId};
use common::key::DeviceKey;
use common::time::UnixTime;
use common::wire::peer::MessageBody;
use common::wire::rendezvous::{FailedLogins, Refusal, Status};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::port_mapping::PortMappingState;
// What an examination found out.
mod examination;
// Devices of this account, and safety numbers.
mod identity;
// Messages in the order of their arrival.
mod recorded;

pub use examination::{Dependence, ExaminationView, FamilyView, UdpState};
pub use identity::{DevicesView, OwnDevice, OwnDeviceState, SafetyView};
pub use recorded::{Cursor, CursorError, Recorded, RecordedPage};

/// The version of this interface. It changes when something that a program may rely on is taken away or means
/// something else; what is added does not change it.
pub const API_VERSION: u32 = 1;

/// Pairs a reply with its command. Chosen by the shell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CommandId(pub u64);

/// A command to a node. Each gets exactly one reply.
#[expect(missing_docs, reason = "the fields' names and types say it all")]
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "method", content = "params", rename_all = "snake_case")]
pub enum Command {
    /// Tells the version of this interface.
    Version,
    /// Creates an account at the server and logs this device in to it.
    Register {
        account: AccountName,
        password: PasswordText,
    },
    /// Logs this device in with a password.
    LogIn {
        account: AccountName,
        password: PasswordText,
        /// A one-time code, needed while the account is blocked.
        code: Option<String>,
    },
    /// Replies once this device is logged in with its token, at once if it already is.
    WaitReady,
    /// Ends the session and revokes this device's token.
    LogOut,
    /// Requests a one-time code for a new device.
    Admit,
    /// Reports this node's account, key, connection and endpoints.
    Status,
    /// Begins to examine the way to the server over UDP and the NATs in between, unless that is under way, and has
    /// the devices of an account linked for a while, to see how they are reached.
    Examine {
        /// Addresses of the server, at most [`common::limits::EXAMINED_SERVERS_MAX`].
        servers: Vec<SocketAddr>,
        account: Option<AccountName>,
    },
    /// Reports how far the examination has got.
    Examination,
    /// Lists the whole directory.
    List,
    /// Subscribes to [`Event::Presence`].
    Watch,
    /// Lists the accounts whose devices this node has talked to; needs no server.
    Contacts,
    /// Sends a text to one or several accounts; each gets a message of its own. Replies once all of
    /// them are in the outbox; their progress follows as [`Event::MessageState`].
    Send {
        /// Recipients, 1 to [`common::limits::RECIPIENTS_MAX`].
        to: Vec<AccountName>,
        body: MessageBody,
        /// When the text was written, by this machine's clock.
        sent: UnixTime,
    },
    /// Lists the messages in the outbox, oldest first.
    Outbox,
    /// Removes messages from the outbox and the history, unless a link has carried them, in this run or an
    /// earlier one: they may have arrived. The reply lists those removed, and so does [`Event::Withdrawn`].
    Withdraw {
        /// At most [`common::limits::WITHDRAW_MAX`].
        ids: Vec<MessageId>,
    },
    /// Offers a file to one account.
    SendFile {
        to: AccountName,
        /// An absolute path on this machine.
        path: PathBuf,
    },
    /// Answers an offer.
    AnswerOffer {
        transfer: TransferId,
        /// The folder to put the file in, an absolute path; `None` declines.
        folder: Option<PathBuf>,
        /// A name for the file instead of the offered one, which is checked like that one; `None` keeps it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        name: Option<String>,
    },
    /// Cancels a transfer.
    Cancel { transfer: TransferId },
    /// Lists received offers that nobody has answered yet.
    Offers,
    /// Lists the latest messages of a part of the history, oldest first.
    History(HistoryQuery),
    /// Lists the messages that the history got after a place, the first ones first.
    Recorded {
        after: Cursor,
        /// The largest number of messages. With zero only the last place is told.
        limit: u32,
    },
    /// Lists received messages that nobody has read, oldest first.
    Unread,
    /// Marks received messages as shown to the person.
    MarkRead { ids: Vec<MessageId> },
    /// Lists the devices of this account.
    Devices,
    /// Gives this account its identity, with this device as the first one. Replies once the server has it.
    Found {
        /// The public half of the recovery key, in 64 hexadecimal digits.
        #[serde(with = "identity::hexadecimal")]
        recovery: DeviceKey,
    },
    /// Approves a device that has logged in to this account, online or not. Replies once the server has it.
    Approve {
        /// Its name, or six characters or more of its fingerprint.
        device: String,
    },
    /// Gives an approved device of this account another name. Replies once the server has it.
    Name {
        /// Its present name, or six characters or more of its fingerprint.
        device: String,
        /// What it is to be called.
        name: DeviceName,
    },
    /// Revokes an approved device of this account, which is for good. Replies once the server has it.
    Revoke {
        /// Its name, or six characters or more of its fingerprint.
        device: String,
    },
    /// Approves this device by the account's recovery code.
    Recover {
        /// The twelve words.
        code: PasswordText,
    },
    /// Shows the safety number with an account.
    Safety { account: AccountName },
    /// Notes whether the person has compared the safety number with an account. Of one that is another than before,
    /// it is the new one that is known from then on.
    Verify {
        account: AccountName,
        is_verified: bool,
    },
}

impl Command {
    /// Tells whether it may be asked of another node when the first one ended before it answered, without a
    /// second effect: an offer, too, ends with its node.
    pub const fn is_repeatable(&self) -> bool {
        match self {
            Self::Version
            | Self::WaitReady
            | Self::Status
            | Self::Examine { .. }
            | Self::Examination
            | Self::List
            | Self::Watch
            | Self::Contacts
            | Self::Outbox
            | Self::SendFile { .. }
            | Self::Offers
            | Self::History(_)
            | Self::Recorded { .. }
            | Self::Unread
            | Self::Devices
            | Self::Name { .. }
            | Self::Safety { .. }
            | Self::Verify { .. } => true,
            Self::Register { .. }
            | Self::LogIn { .. }
            | Self::LogOut
            | Self::Admit
            | Self::Send { .. }
            | Self::Withdraw { .. }
            | Self::AnswerOffer { .. }
            | Self::Cancel { .. }
            | Self::MarkRead { .. }
            | Self::Found { .. }
            | Self::Approve { .. }
            | Self::Revoke { .. }
            | Self::Recover { .. } => false,
        }
    }
}

impl Command {
    /// Tells whether only a device may ask it that its account has approved.
    pub(super) const fn needs_approval(&self) -> bool {
        matches!(self, Self::Send { .. } | Self::SendFile { .. })
    }

    /// Tells whether a person waits for the server with it, or for somebody whom only the server can find.
    pub(super) const fn needs_server(&self) -> bool {
        match self {
            Self::WaitReady
            | Self::LogOut
            | Self::Admit
            | Self::List
            | Self::Send { .. }
            | Self::SendFile { .. }
            | Self::Devices
            | Self::Found { .. }
            | Self::Approve { .. }
            | Self::Name { .. }
            | Self::Revoke { .. }
            | Self::Recover { .. }
            | Self::Safety { .. }
            | Self::Verify { .. } => true,
            // The first two connect by themselves.
            Self::Register { .. }
            | Self::LogIn { .. }
            | Self::Version
            | Self::Status
            | Self::Examine { .. }
            | Self::Examination
            | Self::Watch
            | Self::Contacts
            | Self::Outbox
            | Self::Withdraw { .. }
            | Self::AnswerOffer { .. }
            | Self::Cancel { .. }
            | Self::Offers
            | Self::History(_)
            | Self::Recorded { .. }
            | Self::Unread
            | Self::MarkRead { .. } => false,
        }
    }
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
    /// The command succeeded and has no result.
    Done,
    /// What is spoken here.
    Version {
        /// [`API_VERSION`].
        api: u32,
        /// The program and its version, for people.
        program: String,
    },
    /// The device is logged in.
    LoggedIn {
        /// Failed log-ins of unknown devices since the account's owner was last told, with the reply to a
        /// log-in. Otherwise they are an event.
        failed: Option<FailedLogins>,
    },
    /// A one-time code.
    Admission {
        /// For a person to type at the new device.
        code: String,
        /// Seconds until the code expires.
        expires_in_s: u32,
    },
    /// This node's account, key, connection and endpoints.
    Status(NodeStatus),
    /// How far the examination has got.
    Examination(ExaminationView),
    /// The directory, ordered by account.
    Directory(Vec<Listed>),
    /// Accounts with a pinned key, ordered by name.
    Contacts(Vec<AccountName>),
    /// The ids of the messages of a `Send`, in the order of the recipients.
    Queued(Vec<MessageId>),
    /// The ids of the messages that a `Withdraw` took back.
    Withdrawn(Vec<MessageId>),
    /// The transfer that a `SendFile` started, whose file can be read. How far it gets is told with
    /// [`Event::Transfer`].
    Started(TransferId),
    /// Received offers that nobody has answered yet.
    Offers(Vec<OfferView>),
    /// Messages of the history, oldest first, or of the outbox.
    Messages(Vec<HistoryItem>),
    /// Messages of the history, in the order in which it got them.
    Recorded(RecordedPage),
    /// The devices of this account.
    Devices(DevicesView),
    /// The safety number with an account.
    Safety(SafetyView),
}

/// Why a command was not carried out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum CommandError {
    /// The server refused the request.
    #[error("the server refused: {0}")]
    Refused(Refusal),
    /// This device has no account, or has logged out.
    #[error("this device is not logged in; run 'peer login NAME' first")]
    NotLoggedIn,
    /// The operator has removed this device's account.
    #[error("the server's operator has removed this account")]
    AccountRemoved,
    /// Another program with a copy of this device's key has logged in.
    #[error("this device has logged in from another place, with a copy of this profile")]
    Replaced,
    /// The program that runs the node ends; another of its profile can run it.
    #[error("the 'peer' program that had the connection is ending")]
    Stopping,
    /// This device's account has not approved it yet.
    #[error(
        "this device is not approved by its account yet; its fingerprint is {fingerprint}. On a device that is, run 'peer devices approve {fingerprint}', or here 'peer login NAME --recovery-file FILE'"
    )]
    NotApproved {
        /// Of this device's key.
        fingerprint: String,
    },
    /// This device's account has revoked it.
    #[error(
        "this device was revoked, which is for good; log in with another profile (--profile NAME)"
    )]
    Revoked,
    /// The server has refused this password before, so it was not asked again.
    #[error("unknown account or wrong password")]
    WrongPassword,
    /// The password, code or another argument breaks a rule.
    #[error("{0}")]
    Invalid(String),
    /// The server cannot be reached, or the connection to it broke.
    #[error("the server cannot be reached: {0}")]
    Unreachable(String),
    /// The server presented a key other than the pinned one.
    #[error(
        "THE SERVER'S KEY HAS CHANGED. Expected {expected}, seen {seen}. Someone may be intercepting the connection; ask the operator, and only then run 'peer forget-server'"
    )]
    ServerKeyChanged {
        /// Fingerprint of the pinned key.
        expected: String,
        /// Fingerprint of the presented key.
        seen: String,
    },
    /// The server and this peer have no protocol version in common.
    #[error(
        "this peer and the server ({server}) have no protocol version in common; upgrade the older of the two"
    )]
    Upgrade {
        /// The server's program and version.
        server: String,
    },
    /// There is no account of this name, as far as the server says, or it has no log.
    #[error("nothing is known of who {0} is: nobody has this account, or its program is too old")]
    UnknownAccount(AccountName),
    /// No device of the account is online.
    #[error("{0} is not online")]
    PeerOffline(AccountName),
    /// A device of the account is online, and none of its endpoints answers.
    #[error("{account} is online but cannot be reached: {reason}")]
    PeerUnreachable {
        /// The account that was dialled.
        account: AccountName,
        /// Why the last attempt failed, in words.
        reason: String,
    },
    /// A transfer came to an early end that is not the file's fault.
    #[error("{0}")]
    Transfer(String),
    /// The transfer or offer is unknown or has ended.
    #[error("there is no such transfer, or it has ended")]
    NoSuchTransfer,
    /// The file cannot be read.
    #[error("{0}")]
    File(String),
    /// The message history cannot be read or written.
    #[error("cannot access the message history: {0}")]
    Store(String),
    /// A limit on concurrent operations is reached; names what there is too much of.
    #[error("too many {0} at once; wait for some to end")]
    TooMany(String),
}

/// A notification to every subscriber.
#[expect(missing_docs, reason = "the fields' names and types say it all")]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "method", content = "params", rename_all = "snake_case")]
pub enum Event {
    /// The state of the control connection changed.
    Connection(ConnectionState),
    /// A device came online, changed or went offline, as the server says; without a session, that the program of a
    /// device that is linked has ended.
    Presence(PresenceView),
    /// A message arrived and is being written to the history; its author gets the receipt once it is on
    /// disk.
    Message(HistoryItem),
    /// The history has got a message, received or sent: it is on disk, and has its place. Told in the order of the
    /// places, after what [`Event::Message`] and [`Event::MessageState`] may have told of it before.
    Recorded(Recorded),
    /// A device that calls itself one of this account's was heard on the local network, or is not heard there
    /// any more. Only a link proves that it is.
    Nearby { account: AccountName, is_here: bool },
    /// The packets of a link go another way than before, directly or through the relay, and have done so for a
    /// few seconds. Not told of a link's first way.
    Path(PathChanged),
    /// The server relays nothing, and this device is to send everything through its relay: nobody can be reached.
    /// Told in the first session of which that is so.
    RelayOff,
    /// A message to somebody of whom nothing was known has waited. It is known now who that is, and the message has
    /// another id, by which all that follows calls it.
    Addressed {
        to: AccountName,
        id: MessageId,
        new: MessageId,
    },
    /// The delivery state of a sent message advanced. [`MessageState::Sent`] may be passed over;
    /// [`MessageState::Delivered`] is told before [`MessageState::Read`].
    MessageState {
        id: MessageId,
        /// The recipient.
        to: AccountName,
        state: MessageState,
    },
    /// Messages to one account were taken back by a [`Command::Withdraw`]: they are neither in the outbox nor
    /// in the history any more.
    Withdrawn {
        /// The recipient.
        to: AccountName,
        /// At least one.
        ids: Vec<MessageId>,
    },
    /// An account offers a file.
    Offer(OfferView),
    /// A transfer made progress.
    Transfer {
        transfer: TransferId,
        state: TransferState,
    },
    /// An unknown device failed to log in to this account.
    FailedLogins(FailedLogins),
    /// Another device was enrolled at this account. To be shown to the person, as a warning.
    Enrolled(EnrolmentView),
    /// A key was pinned to an account. To be shown to the person, as a warning if the account had other
    /// keys.
    NewKey {
        account: AccountName,
        /// Fingerprint of the new key.
        fingerprint: String,
        /// Number of keys that were pinned to this account before.
        known: usize,
        /// The account's log approves it: one of its other devices has, or its recovery code.
        #[serde(default)]
        is_approved: bool,
    },
    /// Whether this device's account approves this device has changed, as far as is known. Told at the beginning, too,
    /// if it does not.
    Approval {
        approval: Approval,
        /// Of this device's key.
        fingerprint: String,
    },
    /// Another device of this account was approved, and not by this one. To be shown to the person, as a warning.
    DeviceApproved {
        /// What it is called by whoever has approved it; untrusted text.
        device: Option<DeviceName>,
        fingerprint: String,
        /// The recovery code has approved it, and no other device.
        by_recovery: bool,
    },
    /// A device that says that it is of an account is not approved by that account's log, and was turned away. Told
    /// once for each device.
    NotApproved {
        account: AccountName,
        fingerprint: String,
    },
    /// The server names another account by a name that is known: the person has begun anew, or somebody is in between.
    /// Its devices are turned away until a person says that it is the same one. To be shown as a warning.
    OtherAccount { account: AccountName },
}

/// A device that was enrolled at this account.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnrolmentView {
    /// The name that the device gave itself.
    pub device: DeviceName,
    /// Fingerprint of its key.
    pub fingerprint: String,
    /// When it was enrolled, by the server's clock.
    pub at: UnixTime,
}

/// How the packets of a link go now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PathChanged {
    /// The other device's account.
    pub account: AccountName,
    /// Fingerprint of its key.
    pub fingerprint: String,
    /// How they go.
    #[serde(flatten)]
    pub way: Way,
    /// Smoothed round-trip time of that way, in microseconds.
    pub round_trip_us: u64,
}

/// State of the control connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum ConnectionState {
    /// Connecting or logging in.
    Connecting,
    /// Logged in and listed in the directory.
    Online,
    /// Not connected; the node retries on its own.
    Offline {
        /// Why, for a person.
        reason: String,
        /// The server has shown another key than the trusted one; the reason names both.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        is_other_server: bool,
        /// Seconds until the next attempt; `None` when a person has to act first.
        retry_in_s: Option<u32>,
    },
}

/// A device in the directory, as shown to people.
#[expect(missing_docs, reason = "the fields' names and types say it all")]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listed {
    pub account: AccountName,
    /// The name that its owner gave it; untrusted text.
    pub device: DeviceName,
    /// Fingerprint of its key.
    pub fingerprint: String,
    /// What this device knows of that key.
    pub key: KeyState,
    /// A person has compared the safety number with its account.
    #[serde(default)]
    pub is_verified: bool,
    /// The availability that it announces.
    pub status: Status,
    /// When it came online, by the server's clock.
    pub since: UnixTime,
    /// The UDP endpoints of its candidates.
    pub endpoints: Vec<SocketAddr>,
    /// Tells whether it is this device.
    pub is_self: bool,
}

/// What a device knows of the key of another one, which the server names as an account's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeyState {
    /// The account's log approves it, or, where there is none, it is pinned to this account, or it is this device's own.
    Known,
    /// Other keys are pinned to this account: its owner has another device, or somebody else is in between.
    New,
    /// It is pinned to another account. Such a device is not linked.
    OtherAccount,
    /// The account's log does not approve it. Such a device is not linked.
    NotApproved,
    /// The server names another account by this name than the one that is known: [`Event::OtherAccount`].
    OtherIdentity,
    /// No key is pinned to this account.
    Unmet,
}

/// What an account says of a device of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Approval {
    /// It is one of the account's.
    Approved,
    /// It has logged in, and nobody has approved it yet. Until then it sees who is online and nothing else.
    Waiting,
    /// It was one of the account's, and is no more for good.
    Revoked,
}

/// A change of presence, as shown to people.
#[expect(missing_docs, reason = "the fields' names and types say it all")]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "change", rename_all = "snake_case")]
pub enum PresenceView {
    /// A device came online, or what it announces changed.
    Online(Listed),
    /// A device went offline.
    Offline {
        account: AccountName,
        /// Fingerprint of its key.
        fingerprint: String,
    },
}

/// A node's account, key, connection and endpoints.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeStatus {
    /// The account that this device is logged in to, if any.
    pub account: Option<AccountName>,
    /// Fingerprint of this device's key.
    pub fingerprint: String,
    /// State of the control connection.
    pub connection: ConnectionState,
    /// The UDP endpoints that it announces.
    pub endpoints: Vec<SocketAddr>,
    /// Which ways its packets to other devices may take.
    pub rule: PathRule,
    /// Whether the server relays for this device; `None` while that is not known, or where the rule wants none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub has_relay: Option<bool>,
    /// What its account says of this device; `None` without an account, or if that has no log yet.
    #[serde(default)]
    pub approval: Option<Approval>,
    /// Whether it announces itself on the local network, where it has an address there, and listens for others.
    #[serde(default)]
    pub lan: bool,
    /// Whether the gateway forwards a port to this device, and which.
    #[serde(default)]
    pub port_mapping: PortMappingState,
    /// Its links to other devices, by account.
    pub links: Vec<LinkView>,
    /// Accounts with a device that is heard on the local network, ordered by name: see [`Event::Nearby`].
    #[serde(default)]
    pub nearby: Vec<AccountName>,
    /// Number of messages without a receipt.
    pub outbox: usize,
    /// The transfers that it carries, whichever program of the profile asked for them: sent offers that wait
    /// for a way or an answer, and files that move.
    pub transfers: Vec<TransferView>,
}

impl NodeStatus {
    /// Tells whether nobody can be reached, since everything is to go through a relay that the server has not.
    pub fn lacks_relay(&self) -> bool {
        self.rule == PathRule::Relayed && self.has_relay == Some(false)
    }

    /// Tells whether there is a link to a device of an account.
    pub fn is_linked(&self, account: &AccountName) -> bool {
        self.links.iter().any(|link| link.account == *account)
    }
}

/// Which ways the packets between this device and others may take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PathRule {
    /// Through the server's relay at first, and directly as soon as that is possible.
    #[default]
    Any,
    /// Through the relay alone: nobody but the server learns this device's addresses.
    Relayed,
    /// Straight to the other device, and never through the relay.
    Direct,
}

/// A link to another device, as shown to people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkView {
    /// The other device's account.
    pub account: AccountName,
    /// Fingerprint of its key.
    pub fingerprint: String,
    /// Tells links of one device apart; never used again while the profile's owner runs.
    #[serde(default)]
    pub link: u64,
    /// How often the link went over to another path so far: `traffic` begins anew each time.
    #[serde(default)]
    pub path_changes: u32,
    /// How its packets go.
    #[serde(flatten)]
    pub way: Way,
    /// Smoothed round-trip time of that way, in microseconds.
    pub round_trip_us: u64,
    /// The other device does not acknowledge what it was sent: it may be gone, or its program stopped.
    #[serde(default)]
    pub is_silent: bool,
    /// What has gone that way since it was found.
    #[serde(flatten)]
    pub traffic: Traffic,
}

/// How the packets of a link go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "path", rename_all = "snake_case")]
pub enum Way {
    /// Straight to the other device.
    Direct {
        /// Its address as this device sees it.
        remote: SocketAddr,
    },
    /// Through the server's relay.
    Relayed {
        /// What carries them between this device and the server.
        over: Carrier,
        /// Bytes per second that the server takes from an account at most.
        per_s_max: u32,
    },
}

/// What carries packets to the relay and back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Carrier {
    /// UDP.
    Udp,
    /// The control connection, where UDP does not reach the server.
    Control,
}

/// What has gone over a path since it was found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traffic {
    /// Packets sent, but for those that look for the path's MTU.
    pub sent_packets: u64,
    /// How many of those were lost.
    pub lost_packets: u64,
    /// Bytes sent, as UDP payload.
    pub sent_bytes: u64,
    /// Bytes received, as UDP payload.
    pub received_bytes: u64,
}

/// A transfer that has not ended, as shown to people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TransferView {
    /// The transfer, for [`Command::Cancel`].
    pub transfer: TransferId,
    /// Whether the file is sent or received.
    pub direction: Direction,
    /// The other side.
    pub with: AccountName,
    /// The name under which it is offered; untrusted text.
    pub name: String,
    /// [`TransferState::Looking`], [`TransferState::Waiting`] or [`TransferState::Moving`].
    #[serde(flatten)]
    pub state: TransferState,
}

/// A part of the history.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistoryQuery {
    /// The other side of the conversation; `None` for all conversations.
    pub with: Option<AccountName>,
    /// Leaves out what its author's clock says was sent before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<UnixTime>,
    /// Leaves out what was sent then or later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<UnixTime>,
    /// Leaves out what has not all of these words, or words that begin with them. Case and accents do not matter.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub words: Vec<String>,
    /// The largest number of messages; the latest are taken: those that are shown last or, with some words, have come
    /// last.
    pub limit: u32,
}

impl HistoryQuery {
    /// The latest messages of a conversation, or of all.
    pub const fn latest(with: Option<AccountName>, limit: u32) -> Self {
        Self {
            with,
            since: None,
            until: None,
            words: Vec::new(),
            limit,
        }
    }

    /// Tells whether a message belongs to it. Of words only those of ASCII are told as the history on disk tells them.
    pub fn covers(&self, with: &AccountName, sent: UnixTime, body: &str) -> bool {
        let words = |text: &str| {
            let lower = text.to_ascii_lowercase();
            let words = lower.split(|letter: char| !letter.is_alphanumeric());
            words
                .filter(|word| !word.is_empty())
                .map(str::to_owned)
                .collect::<Vec<_>>()
        };
        let (said, wanted) = (words(body), words(&self.words.join(" ")));
        let is_said = |word: &String| said.iter().any(|said| said.starts_with(word));
        self.with.as_ref().is_none_or(|it| it == with)
            && self.since.is_none_or(|since| sent >= since)
            && self.until.is_none_or(|until| sent < until)
            && wanted.iter().all(is_said)
            && (self.words.is_empty() || !wanted.is_empty())
    }
}

/// A message of the history.
#[expect(missing_docs, reason = "the fields' names and types say it all")]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistoryItem {
    pub id: MessageId,
    /// The other side of the conversation.
    pub with: AccountName,
    pub direction: Direction,
    /// When its author sent it, by the author's clock.
    pub sent: UnixTime,
    /// Untrusted text: escape it with `common::text` before writing it to a terminal.
    pub body: MessageBody,
    /// Received messages are `Delivered` until they are `Read`.
    pub state: MessageState,
}

/// Which side a message or a file is from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// From this account.
    Sent,
    /// From the other account.
    Received,
}

/// How far a message has got.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MessageState {
    /// In the author's outbox, on disk.
    Queued,
    /// Sent on a link, without a receipt yet.
    Sent,
    /// On the recipient's disk.
    Delivered,
    /// Shown to the recipient.
    Read,
}

/// A received offer, as shown to people.
#[expect(missing_docs, reason = "the fields' names and types say it all")]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OfferView {
    pub transfer: TransferId,
    /// The sender's account.
    pub from: AccountName,
    /// The sender's name for the file; untrusted text.
    pub name: String,
    /// The file's length in bytes.
    pub size: u64,
    /// Whether the file's owner may execute it.
    pub executable: bool,
}

/// How far a transfer has got.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum TransferState {
    /// A way to the recipient is looked for, to send the offer. It begins like this, without a word.
    Looking,
    /// The offer could not be sent.
    NotOffered {
        /// What stood in the way, with the same meaning as that of a command.
        error: CommandError,
    },
    /// The offer was sent and is not answered yet.
    Waiting,
    /// The other side declined.
    Declined {
        /// Why, for a person.
        reason: String,
    },
    /// Leaves are being transferred.
    Moving(Moved),
    /// The file is verified and has its final name on the receiver's disk.
    Done {
        /// BLAKE3 of the file, in hexadecimal.
        digest: String,
        /// Size of the file, in bytes.
        total: u64,
        /// Milliseconds from the first byte to completion, as far as this side can tell: an accepted file
        /// that waits behind others is not on its way.
        elapsed_ms: u64,
        /// The file's absolute path; only on the receiver's side.
        path: Option<PathBuf>,
    },
    /// The transfer ended early.
    Failed {
        /// Why, for a person.
        reason: String,
        /// Who brought it about, or what, for programs.
        kind: FailureKind,
    },
}

/// How much of a file has arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moved {
    /// Bytes that have arrived, as far as this side can tell.
    pub done: u64,
    /// Size of the file, in bytes.
    pub total: u64,
    /// It waits for its turn: of the files on one link, those go first that are done sooner. Only its sender
    /// is told that it waits.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_behind: bool,
}

/// What kind of early end it was: it decides what to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    /// One of the two sides gave it up on purpose.
    Cancelled,
    /// The side that offered it, or was to answer, went away before it was answered.
    Unanswered,
    /// The program that runs this node ends.
    NodeEnds,
    /// Something broke or was not as it should be.
    Broken,
}

impl TransferState {
    /// Tells whether the transfer is over.
    pub const fn is_final(&self) -> bool {
        match self {
            Self::Looking | Self::Waiting | Self::Moving(_) => false,
            Self::NotOffered { .. }
            | Self::Declined { .. }
            | Self::Done { .. }
            | Self::Failed { .. } => true,
        }
    }
}
