//! The inputs and outputs of a node, and the requests that its shell carries out: datagrams, the
//! control connection, the store, files, slow computations.
//!
//! Every request is answered exactly once, and in any order, unless its documentation says otherwise.
//! The shell runs each kind of request on a bounded worker, never on the event loop.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use common::account::AccountEntry;
use common::hash::LeafHash;
use common::id::{AccountName, DeviceName, MessageId, TransferId};
use common::key::{ChannelBinding, DeviceKey, DeviceSecret, Token};
use common::lan::LanName;
use common::log::{ConversationId, EntryId};
use common::password::{ClientLogin, ClientRegistration, PasswordError};
use common::time::{Epoch, UnixTime};
use common::wire::peer::Message;
use common::wire::rendezvous::{OpaqueMessage, StretchVersion};

use crate::port_mapping::{NoPortMapping, PortMapping};

use super::command::{
    Command, CommandError, CommandId, Cursor, Event, HistoryItem, HistoryQuery, MessageState,
    PathRule, RecordedPage, Reply,
};

// The entries of conversations.
pub mod entries;
// Seals.
mod seals;

pub use entries::{EntriesAnswer, EntriesRequest};
pub use seals::{SealOutcome, SealWork, WorkId};

/// This program's name and version, sent in every greeting for the other side's log.
pub(super) const AGENT: &str = concat!("peer/", env!("CARGO_PKG_VERSION"));

/// What a node is started with.
#[derive(Debug)]
pub struct NodeOptions {
    /// The secret half of the device key.
    pub secret: DeviceSecret,
    /// The name that the owner gave the device, shown in the directory.
    pub device_name: DeviceName,
    /// The state that the store kept of earlier runs.
    pub restored: Restored,
    /// One moment by both clocks, to derive wall-clock time from instants.
    pub epoch: Epoch,
    /// Which ways its packets to other devices may take.
    pub rule: PathRule,
    /// Whether it announces itself on the local network and listens for others there. With
    /// [`PathRule::Relayed`] it does neither.
    pub lan: bool,
    /// Whether it asks the gateway for a port. With [`PathRule::Relayed`] it does not, nor while the server is on this
    /// host.
    pub port_mapping: bool,
    /// Whether a person has chosen the port of the UDP socket: then others are told of it at the address that the
    /// server sees, too, since a router may forward it.
    pub is_port_chosen: bool,
}

// ---- inputs and outputs ------------------------------------------------------------------------

/// An event outside the node, handed to it by the shell.
#[derive(Debug)]
pub enum Input {
    /// Datagrams from one receive call on the UDP socket.
    Datagrams(Datagrams),
    /// The addresses at which this host's UDP socket can be reached, none of them unspecified. Given
    /// at the start and after each change of the network.
    LocalAddresses(Vec<LocalAddress>),
    /// The device was asleep for so long, by another clock than the one that this is handed over with.
    Woke(Duration),
    /// Somebody was heard on the local network, or is there no more.
    Lan(LanInput),
    /// What came of [`PortMappingOrder::Keep`]: told whenever it changes.
    PortMapping(Result<PortMapping, NoPortMapping>),
    /// The control connection opened, brought bytes or closed.
    Rendezvous(RendezvousInput),
    /// A person, or a program for them, issued a command.
    Command(CommandId, Command),
    /// The store answered a request.
    Stored(StoreId, StoreAnswer),
    /// The disk answered a request of this transfer.
    Disk(TransferId, DiskAnswer),
    /// A computation finished.
    Computed(JobId, Outcome),
    /// A seal, or a proof, was checked or made.
    Sealed(WorkId, SealOutcome),
    /// The program is stopping: the node closes its control connection, and its links once the other
    /// sides have acknowledged everything that was written.
    ShutDown,
}

/// Datagrams from one source, coalesced by the system (GRO).
#[derive(Debug)]
pub struct Datagrams {
    /// The sender's address.
    pub source: SocketAddr,
    /// The local address that they were sent to, where the system reports it.
    pub local: Option<IpAddr>,
    /// Explicit congestion notification (RFC 3168).
    pub ecn: Option<noq_proto::EcnCodepoint>,
    /// Length in bytes of each datagram but the last, which may be shorter.
    pub stride: usize,
    /// The datagrams, back to back.
    pub bytes: BytesMut,
}

impl Datagrams {
    /// Keeps the first datagram and returns the others, if there are any.
    pub(super) fn split_first(&mut self) -> Option<Self> {
        let len = self.bytes.len();
        let bytes = self.bytes.split_off(self.stride.max(1).min(len));
        let rest = Self { bytes, ..*self };
        (!rest.bytes.is_empty()).then_some(rest)
    }
}

/// Something for the shell to do.
#[derive(Debug)]
#[must_use]
pub enum Output {
    /// Send the first `size` bytes of the buffer passed to `poll_output`.
    Transmit(Transmit),
    /// Open, use or close the control connection.
    Rendezvous(RendezvousOutput),
    /// Pass a request to the store.
    Store(StoreId, StoreRequest),
    /// Pass a request to the disk.
    Disk(DiskRequest),
    /// Run a computation.
    Compute(JobId, Job),
    /// Check or make a seal.
    Seal(WorkId, SealWork),
    /// Reply to a command.
    Reply(CommandId, Result<Reply, CommandError>),
    /// Notify every subscriber.
    Event(Event),
    /// Announce this on the local network from now on and nothing else, and listen for others; with `None`,
    /// neither. Without it, nothing is announced.
    Lan(Option<LanAnnouncement>),
    /// Have the gateway forward a port to the UDP socket, or not any more. Without it, nothing is asked of the gateway.
    PortMapping(PortMappingOrder),
    /// Wait for the next input, at most until this deadline if there is one.
    Wait(Option<Deadline>),
}

/// Datagrams to one destination, sent as one batch (GSO).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transmit {
    /// The receiver's address.
    pub destination: SocketAddr,
    /// Explicit congestion notification to set (RFC 3168).
    pub ecn: Option<noq_proto::EcnCodepoint>,
    /// Length of all datagrams together, in bytes.
    pub size: usize,
    /// Length in bytes of each datagram but the last, if there is more than one.
    pub segment_size: Option<usize>,
    /// Local address to send from; the system chooses one if there is none.
    pub source: Option<IpAddr>,
}

impl Transmit {
    /// Describes one datagram of `size` bytes.
    pub(super) const fn single(destination: SocketAddr, size: usize) -> Self {
        Self {
            destination,
            ecn: None,
            size,
            segment_size: None,
            source: None,
        }
    }
}

/// When the node is to be called even without an input, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadline {
    /// The latest moment for the call.
    pub at: Instant,
    /// The part of the node that set the deadline, for the log.
    pub why: &'static str,
}

// ---- local network -----------------------------------------------------------------------------

/// What this device announces on the local network: an instance of the service
/// [`SERVICE`](common::lan::SERVICE).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LanAnnouncement {
    /// The instance's name, and its host's.
    pub name: LanName,
    /// Where neighbours reach this device; at least one, all with the same port.
    pub endpoints: Vec<SocketAddr>,
}

/// What is heard on the local network. Anybody there can say anything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LanInput {
    /// A name was announced, or what it announces changed.
    Heard {
        /// The name of the instance.
        name: LanName,
        /// Where it says that it is.
        endpoints: Vec<SocketAddr>,
    },
    /// A name was taken back, or not repeated in time.
    Gone {
        /// The name of the instance.
        name: LanName,
    },
}

// ---- port mapping ------------------------------------------------------------------------------

/// What the shell is to have the gateway do. When the program ends, the shell gives the mapping back by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PortMappingOrder {
    /// Have a port mapped from now on and on every network. Where that is done already, make sure that it still is.
    Keep,
    /// Give it back.
    GiveBack,
}

// ---- control connection ------------------------------------------------------------------------

/// What the shell is to do with the control connection. There is at most one at a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RendezvousOutput {
    /// Resolve the server's name, connect, and complete the TLS handshake.
    Connect,
    /// Send these bytes in order; they are whole frames.
    Send(Vec<u8>),
    /// Send a whole frame with datagrams of the relay, behind what is queued, or drop it if that is more than
    /// [`RELAY_BYTES_WAITING_MAX`](common::limits::RELAY_BYTES_WAITING_MAX).
    SendDatagrams(Vec<u8>),
    /// Send what is queued, then close. Answered by [`RendezvousInput::Closed`].
    Close,
}

/// An address of this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LocalAddress {
    /// The address with the port of the UDP socket.
    pub endpoint: SocketAddr,
    /// Leading bits that all addresses on the interface's network share: 0 to 32, or 128 for IPv6.
    pub prefix_len: u8,
    /// Largest IP packet, in bytes, that the interface carries, if the system tells.
    pub mtu: Option<u32>,
}

impl LocalAddress {
    /// Tells whether `ip` is on the network of this address's interface.
    pub(crate) fn is_on_link(&self, ip: IpAddr) -> bool {
        match (self.endpoint.ip(), ip) {
            (IpAddr::V4(own), IpAddr::V4(other)) => {
                let rest = 32_u32.saturating_sub(self.prefix_len.into());
                (own.to_bits() ^ other.to_bits())
                    .checked_shr(rest)
                    .unwrap_or(0)
                    == 0
            }
            (IpAddr::V6(own), IpAddr::V6(other)) => {
                let rest = 128_u32.saturating_sub(self.prefix_len.into());
                (own.to_bits() ^ other.to_bits())
                    .checked_shr(rest)
                    .unwrap_or(0)
                    == 0
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
        }
    }
}

impl From<SocketAddr> for LocalAddress {
    /// An address of whose interface nothing is known.
    fn from(endpoint: SocketAddr) -> Self {
        Self {
            endpoint,
            prefix_len: if endpoint.is_ipv4() { 32 } else { 128 },
            mtu: None,
        }
    }
}

/// What happened on the control connection.
#[derive(Clone, Debug)]
pub enum RendezvousInput {
    /// The TLS handshake is complete and the server has proved the expected identity.
    Connected {
        /// Binds a log-in to this TLS connection.
        channel_binding: ChannelBinding,
        /// This host's address on the connection.
        local: SocketAddr,
        /// The server's address. Its UDP port has the same number.
        server: SocketAddr,
        /// An address of the server in the other family, IPv4 or IPv6, if its name has one.
        other: Option<SocketAddr>,
    },
    /// Received bytes, in order, cut anywhere.
    Received(Vec<u8>),
    /// The connection could not be established, or it ended.
    Closed(ClosedReason),
}

/// Why there is no control connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClosedReason {
    /// Name resolution, TCP or TLS failed, or the connection broke: the node tries again.
    Failed(String),
    /// The server presented a key other than the pinned one. A person has to decide whether that is the
    /// right one; the node tries again with the pinned one, because it may have been somebody in between.
    ServerKeyChanged {
        /// Fingerprint of the pinned key.
        expected: String,
        /// Fingerprint of the presented key.
        seen: String,
    },
    /// The connection was closed in an orderly way.
    Ended,
}

// ---- store -------------------------------------------------------------------------------------

/// The state that a node keeps across restarts, given to it when it starts.
#[derive(Debug, Default)]
pub struct Restored {
    /// The account and its token, if this device is logged in.
    pub session: Option<(AccountName, Token)>,
    /// Device keys that are pinned, the oldest first.
    pub contacts: Vec<(AccountName, DeviceKey)>,
    /// Where devices with pinned keys were reached straight last, in the order of the keys.
    pub last_endpoints: Vec<(DeviceKey, SocketAddr)>,
    /// Messages without a receipt that are of no entry, and their recipients, oldest first.
    pub outbox: Vec<(AccountName, Message)>,
    /// Those of them that a link may have carried: they cannot be taken back.
    pub sent: BTreeSet<MessageId>,
    /// How many messages are entries that their recipients do not have.
    pub undelivered: usize,
    /// The logs of accounts, in the order in which their entries were accepted.
    pub logs: Vec<(AccountName, Vec<AccountEntry>)>,
    /// The accounts that a person has verified.
    pub verified: BTreeSet<AccountName>,
}

/// Pairs a [`StoreAnswer`] with its [`StoreRequest`]. Chosen by the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct StoreId(pub u64);

/// Something to write to the store or to look up in it. Requests are carried out in order, and a write
/// is answered only once it is on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreRequest {
    /// About this device's session.
    Account(AccountRequest),
    /// About the pinned keys of other devices.
    Contact(ContactRequest),
    /// About the message history and the outbox.
    Chat(ChatRequest),
    /// About the logs of accounts.
    Log(LogRequest),
    /// About the entries of conversations.
    Entries(EntriesRequest),
}

/// A request about the logs of accounts.
#[expect(missing_docs, reason = "the fields' names and types say it all")]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogRequest {
    /// Keeps an entry behind those of its account that are there.
    Add {
        account: AccountName,
        entry: Vec<u8>,
    },
    /// Forgets the log of an account, and that it was verified.
    Forget { account: AccountName },
    /// Keeps whether a person has verified an account.
    SetVerified {
        account: AccountName,
        is_verified: bool,
    },
}

/// A request about this device's session.
#[expect(missing_docs, reason = "the fields' names and types say it all")]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AccountRequest {
    /// Saves the account and its token; without a token, deletes the session.
    SaveSession {
        account: AccountName,
        token: Option<Token>,
    },
}

/// A request about pinned keys.
#[expect(missing_docs, reason = "the fields' names and types say it all")]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ContactRequest {
    /// Pins a device key to an account.
    PinKey {
        account: AccountName,
        device_key: DeviceKey,
        /// When the key was first seen, by this device's clock.
        at: UnixTime,
    },
    /// Forgets a device key, to make room for others.
    UnpinKey {
        /// The key, whichever account it is pinned to.
        device_key: DeviceKey,
    },
    /// Keeps where a device was reached straight, if its key is pinned.
    SaveEndpoint {
        device_key: DeviceKey,
        endpoint: SocketAddr,
    },
}

/// A request about the message history and the outbox.
#[expect(missing_docs, reason = "the fields' names and types say it all")]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChatRequest {
    /// Adds messages to the history and the outbox, in the state `Queued`, or `Sent` if links carry them
    /// while this is under way. So it comes out before every packet, and whoever can be killed in between
    /// records them where the next start finds them before going on. Answered by `Queued`.
    Queue {
        /// Messages and their recipients.
        messages: Vec<(AccountName, Message)>,
        /// Those of them that links carry at once.
        sent: BTreeSet<MessageId>,
    },
    /// Adds a received message to the history. Answered by `Received`, which tells its place.
    ///
    /// Fails if a message of the same chain, or of a later one, has failed in this run: a message that
    /// was handed over before the failure was known must not overtake the one that failed.
    Receive {
        /// The author's account.
        from: AccountName,
        message: Message,
        /// When it arrived, by this device's clock.
        at: UnixTime,
        /// Numbers the run of messages that must be stored without a gap, from 1.
        chain: u64,
    },
    /// Advances the state of a sent message that is of no entry; once `Delivered`, it leaves the outbox. A state never
    /// goes back. Answered by `Advanced`.
    Advance {
        id: MessageId,
        /// The recipient.
        to: AccountName,
        state: MessageState,
    },
    /// Removes undelivered messages of this account that are of no entry from the outbox and the history.
    Withdraw {
        /// Messages and their recipients.
        messages: Vec<(AccountName, MessageId)>,
    },
    /// Marks received messages as read, and of the chains of those that are of entries how far they are read. Answered
    /// by `Marked`.
    MarkRead { ids: Vec<MessageId> },
    /// Looks up the latest messages of a part of the history, oldest first. Answered by `Messages`.
    History(HistoryQuery),
    /// Looks up messages after a place, the first ones first. Answered by `Recorded`.
    Recorded { after: Cursor, limit: u32 },
    /// Looks up received messages in state `Delivered`, oldest first. Answered by `Messages`.
    Unread,
    /// Looks up messages of this account that are not `Delivered`, oldest first. Answered by `Messages`.
    Outbox,
}

common::from_parts!(StoreRequest {
    Account(AccountRequest),
    Contact(ContactRequest),
    Chat(ChatRequest),
    Log(LogRequest),
    Entries(EntriesRequest),
});

/// The answer to a [`StoreRequest`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreAnswer {
    /// The write is on disk.
    Done,
    /// The result of a [`ChatRequest`] that has one.
    Chat(ChatAnswer),
    /// The result of an [`EntriesRequest`] that has one.
    Entries(EntriesAnswer),
    /// The request failed and changed nothing. Says what failed and why, for a person.
    Failed(String),
}

impl StoreAnswer {
    /// The answer for a received message that is refused because an earlier one of its link was.
    pub(crate) fn after_gap() -> Self {
        Self::Failed("an earlier message of the same sender could not be kept".to_owned())
    }
}

/// The result of a [`ChatRequest`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChatAnswer {
    /// Messages of this account are on disk: the place of each, `None` for one that the history had before.
    Queued(Vec<Option<Cursor>>),
    /// The received message is on disk.
    Received {
        /// Its place; `None` if the history had it before.
        place: Option<Cursor>,
    },
    /// The message is in that state, or in a later one.
    Advanced {
        /// Tells whether the history has the message and had it in an earlier state.
        is_new: bool,
    },
    /// The messages that were unread until now.
    Marked(Vec<Marked>),
    /// The messages that were looked up.
    Messages(Vec<HistoryItem>),
    /// The messages after a place.
    Recorded(RecordedPage),
}

/// A message that is read now.
#[expect(missing_docs, reason = "the fields' names and types say it all")]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Marked {
    pub author: AccountName,
    pub id: MessageId,
    /// The entry that it is of, if it is of one.
    pub entry: Option<(ConversationId, EntryId)>,
}

// ---- files -------------------------------------------------------------------------------------

/// Something to do with a file. Requests of one transfer are carried out in order.
#[expect(missing_docs, reason = "the fields' names and types say it all")]
#[derive(Clone, Debug)]
pub enum DiskRequest {
    /// Opens a file to be sent. Answered by `Opened`.
    Open {
        transfer: TransferId,
        /// An absolute path.
        path: PathBuf,
    },
    /// Reads and hashes a leaf. Answered by `Leaf`.
    ReadLeaf { transfer: TransferId, index: u64 },
    /// Creates `NAME.part` in a folder. Answered by `Created` or `BadName`.
    Create {
        transfer: TransferId,
        /// An absolute path.
        folder: PathBuf,
        /// The sender's name for the file, or the recipient's own; untrusted, not validated yet.
        name: String,
        /// Size of the complete file, in bytes.
        size: u64,
        /// Whether the file's owner may execute it.
        executable: bool,
    },
    /// Verifies a leaf and writes it. Answered by `Written` or `Mismatch`.
    WriteLeaf {
        transfer: TransferId,
        index: u64,
        bytes: Bytes,
        /// The hash that `bytes` must have.
        hash: LeafHash,
    },
    /// Makes a received file durable and renames it to its final name. Answered by `Finished`.
    Finish { transfer: TransferId },
    /// Forgets a transfer and removes its `.part` file. Not answered.
    Drop { transfer: TransferId },
}

impl DiskRequest {
    /// The transfer that the request belongs to.
    pub const fn transfer(&self) -> TransferId {
        match self {
            Self::Open { transfer, .. }
            | Self::ReadLeaf { transfer, .. }
            | Self::Create { transfer, .. }
            | Self::WriteLeaf { transfer, .. }
            | Self::Finish { transfer }
            | Self::Drop { transfer } => *transfer,
        }
    }
}

/// The answer to a [`DiskRequest`].
#[expect(missing_docs, reason = "the fields' names and types say it all")]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DiskAnswer {
    /// The file is open and can be sent.
    Opened {
        /// The file's name without any folder.
        name: String,
        /// The file's length in bytes.
        size: u64,
        /// Whether the file's owner may execute it.
        executable: bool,
    },
    /// A leaf was read and hashed.
    Leaf {
        index: u64,
        bytes: Bytes,
        hash: LeafHash,
    },
    /// The `.part` file exists, with space reserved for all of it where the file system can do that.
    Created,
    /// A leaf is verified and written.
    Written { index: u64 },
    /// A leaf's bytes do not have the announced hash.
    Mismatch { index: u64 },
    /// The file is durable and has its final name.
    Finished {
        /// An absolute path.
        path: PathBuf,
    },
    /// The name for the file is unusable; nothing was created. Says why, for a person.
    BadName(String),
    /// The request failed.
    Failed(DiskFailure),
}

/// What failed and why, for the persons at both ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskFailure {
    /// For this device's: with paths, and what to do.
    pub reason: String,
    /// For the other side's: nothing that only concerns this device.
    pub told: &'static str,
}

// ---- slow computations -------------------------------------------------------------------------

/// Pairs an [`Outcome`] with its [`Job`]. Chosen by the node, unique within a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JobId(pub u64);

/// A computation too slow for the event loop: it stretches a password.
#[expect(missing_docs, reason = "the fields' names and types say it all")]
#[derive(Debug)]
pub enum Job {
    /// Completes the client's part of a registration.
    Register {
        client: ClientRegistration,
        account: AccountName,
        /// OPAQUE RegistrationResponse.
        response: OpaqueMessage,
    },
    /// Completes the client's part of a log-in.
    LogIn {
        client: ClientLogin,
        account: AccountName,
        /// OPAQUE KE2.
        ke2: OpaqueMessage,
        /// The parameters with which this account's password is stretched.
        stretch: StretchVersion,
        /// The TLS connection that the log-in holds for.
        channel_binding: ChannelBinding,
    },
}

impl Job {
    /// Runs the computation, which takes tenths of a second and 64 MiB.
    pub fn run(self) -> Outcome {
        Outcome(match self {
            Self::Register {
                client,
                account,
                response,
            } => client.finish(&account, &response),
            Self::LogIn {
                client,
                account,
                ke2,
                stretch,
                channel_binding,
            } => client.finish(&account, &ke2, stretch, &channel_binding),
        })
    }
}

/// The result of a [`Job`]: the client's last OPAQUE message.
#[derive(Debug)]
pub struct Outcome(pub Result<OpaqueMessage, PasswordError>);
