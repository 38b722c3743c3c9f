//! What goes into a node and what comes out, and what it has its shell do: datagrams, the control
//! connection, the store, files, slow computations.
//!
//! Every request is answered once, and answers come in any order unless a request says otherwise. The
//! shell runs requests of one kind on a bounded worker, never on the loop.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use common::hash::LeafHash;
use common::id::{AccountName, DeviceName, MessageId, TransferId};
use common::key::{ChannelBinding, DeviceKey, DeviceSecret, Token};
use common::password::{ClientLogin, ClientRegistration, PasswordError};
use common::time::{Epoch, UnixTime};
use common::wire::peer::Message;
use common::wire::rendezvous::{OpaqueMessage, StretchVersion};

use super::command::{Command, CommandError, CommandId, Event, HistoryItem, MessageState, Reply};

/// Program and version, as the other side's log shows them.
pub(super) const AGENT: &str = concat!("peer/", env!("CARGO_PKG_VERSION"));

/// What a node is made of.
#[derive(Debug)]
pub struct NodeOptions {
    /// The device's key; its public half names the device.
    pub secret: DeviceSecret,
    /// What the owner calls the device; the directory shows it.
    pub device_name: DeviceName,
    /// What the store kept of earlier runs.
    pub restored: Restored,
    /// One moment by both clocks.
    pub epoch: Epoch,
}

// ---- inputs and outputs ------------------------------------------------------------------------

/// Something that happened outside.
#[derive(Debug)]
pub enum Input {
    /// One receive call's worth of datagrams from the UDP socket.
    Datagrams(Datagrams),
    /// The addresses at which this host's UDP socket can be reached, at the start and after each
    /// change of the network; without the unspecified address.
    LocalAddresses(Vec<SocketAddr>),
    /// About the control connection.
    Rendezvous(RendezvousInput),
    /// A person asks something.
    Command(CommandId, Command),
    /// The store answers.
    Stored(StoreId, StoreAnswer),
    /// The disk answers.
    Disk(TransferId, DiskAnswer),
    /// A computation is done.
    Worked(WorkId, WorkAnswer),
    /// The program is being stopped: says goodbye to everybody, and to those who are linked once they
    /// have everything that was written.
    ShutDown,
}

/// Datagrams of one source that came together (GRO).
#[derive(Debug)]
pub struct Datagrams {
    /// Where they came from.
    pub source: SocketAddr,
    /// The address of ours that they came to, where the system tells.
    pub local: Option<IpAddr>,
    /// Congestion marks (RFC 3168).
    pub ecn: Option<noq_proto::EcnCodepoint>,
    /// Length of each datagram but the last.
    pub stride: usize,
    /// The datagrams, one after another.
    pub bytes: BytesMut,
}

impl Datagrams {
    /// Leaves the first datagram here and returns the others, if there are any.
    pub(super) fn split_first(&mut self) -> Option<Self> {
        let len = self.bytes.len();
        let bytes = self.bytes.split_off(self.stride.max(1).min(len));
        let rest = Self { bytes, ..*self };
        (!rest.bytes.is_empty()).then_some(rest)
    }
}

/// Something that the shell is to do.
#[derive(Debug)]
#[must_use]
pub enum Output {
    /// Send the first `size` bytes of the caller's buffer.
    Transmit(Transmit),
    /// About the control connection.
    Rendezvous(RendezvousOutput),
    /// Ask the store.
    Store(StoreId, StoreRequest),
    /// Ask the disk.
    Disk(DiskRequest),
    /// Compute.
    Work(WorkId, Work),
    /// Answer a command.
    Reply(CommandId, Result<Reply, CommandError>),
    /// Tell whoever listens.
    Event(Event),
    /// Nothing more to do before this deadline, or before the next input if there is none.
    Wait(Option<Deadline>),
}

/// Datagrams to one destination, as one GSO train.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transmit {
    /// Where to.
    pub destination: SocketAddr,
    /// Congestion mark to set.
    pub ecn: Option<noq_proto::EcnCodepoint>,
    /// Bytes in the buffer.
    pub size: usize,
    /// Length of each datagram but the last, if there is more than one.
    pub segment_size: Option<usize>,
    /// Source address to send from.
    pub source: Option<IpAddr>,
}

impl Transmit {
    /// One datagram of `size` bytes.
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

/// When the node wants to be called, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadline {
    /// Not later than this.
    pub at: Instant,
    /// For the log.
    pub why: &'static str,
}

// ---- control connection ------------------------------------------------------------------------

/// What the node wants of its control connection. There is at most one at a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RendezvousOutput {
    /// Resolve the server's name, connect, and shake hands.
    Connect,
    /// Send these bytes, whole frames, in order.
    Send(Vec<u8>),
    /// Send what is queued, then close. Answered by `Closed`.
    Close,
}

/// What became of it.
#[derive(Clone, Debug)]
pub enum RendezvousInput {
    /// The handshake is complete and the server is the expected one.
    Connected {
        /// The TLS exporter of this channel.
        binding: ChannelBinding,
        /// Our address on this connection.
        local: SocketAddr,
        /// The server's address; its UDP port has the same number.
        server: SocketAddr,
    },
    /// Bytes, in order, in any pieces.
    Received(Vec<u8>),
    /// It could not be made, or it ended.
    Closed(ClosedReason),
}

/// Why there is no control connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClosedReason {
    /// Name resolution, TCP or TLS failed, or the connection broke: worth another try.
    Failed(String),
    /// The server showed another key than the pinned one: a person has to look at it.
    ServerKeyChanged {
        /// What is pinned.
        expected: String,
        /// What was shown.
        seen: String,
    },
    /// Closed in good order.
    Ended,
}

// ---- store -------------------------------------------------------------------------------------

/// What a node remembers across restarts, given to it when it starts.
#[derive(Debug, Default)]
pub struct Restored {
    /// The account and its token, after a log-in.
    pub session: Option<(AccountName, Token)>,
    /// Device keys that are pinned, the oldest first.
    pub contacts: Vec<(AccountName, DeviceKey)>,
    /// Messages without a receipt, oldest first.
    pub outbox: Vec<(AccountName, Message)>,
}

/// Names a store request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct StoreId(pub u64);

/// Something to remember or to look up. Requests are carried out in order, and each is answered only
/// when it is on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreRequest {
    /// The session of this device.
    Account(AccountRequest),
    /// The keys of other devices.
    Contact(ContactRequest),
    /// The message history and the outbox.
    Chat(ChatRequest),
}

/// What the account has kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AccountRequest {
    /// Keeps account and token; a `None` token forgets the session.
    SaveSession {
        /// Whose.
        account: AccountName,
        /// The token.
        token: Option<Token>,
    },
}

/// What the links have kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ContactRequest {
    /// Pins a device key to an account.
    PinKey {
        /// Whose.
        account: AccountName,
        /// Which.
        device_key: DeviceKey,
        /// When it was first seen.
        at: UnixTime,
    },
    /// Forgets a device key, to make room for others.
    UnpinKey {
        /// The key.
        device_key: DeviceKey,
    },
}

/// What the chat has kept and looks up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChatRequest {
    /// Puts messages into history and outbox, state `Queued`.
    Queue {
        /// Recipients and messages.
        messages: Vec<(AccountName, Message)>,
    },
    /// Puts a received message into the history. Answered by `Received`, which tells whether it is new.
    ///
    /// Fails if one of the same chain, or of a later one, has failed in this run: what was asked before
    /// anybody knew of a gap must not get in front of it.
    Receive {
        /// Its author's account.
        from: AccountName,
        /// The message.
        message: Message,
        /// When it came, by our clock.
        at: UnixTime,
        /// Which chain; the first is 1.
        chain: u64,
    },
    /// Notes how far a sent message is; a message that is `Delivered` leaves the outbox. A state never
    /// goes back.
    Advance {
        /// Which.
        id: MessageId,
        /// Its recipient.
        to: AccountName,
        /// How far.
        state: MessageState,
    },
    /// Removes messages of this account that are not delivered, from outbox and history.
    Withdraw {
        /// Recipients and messages.
        messages: Vec<(AccountName, MessageId)>,
    },
    /// Notes that received messages were shown. Answered by `Marked`.
    MarkRead {
        /// Which.
        ids: Vec<MessageId>,
    },
    /// Looks up the latest messages, oldest first. Answered by `Messages`.
    History {
        /// With whom; all without.
        with: Option<AccountName>,
        /// At most so many.
        limit: u32,
    },
    /// Looks up received messages in state `Delivered`, oldest first. Answered by `Messages`.
    Unread,
}

impl From<AccountRequest> for StoreRequest {
    fn from(request: AccountRequest) -> Self {
        Self::Account(request)
    }
}

impl From<ContactRequest> for StoreRequest {
    fn from(request: ContactRequest) -> Self {
        Self::Contact(request)
    }
}

impl From<ChatRequest> for StoreRequest {
    fn from(request: ChatRequest) -> Self {
        Self::Chat(request)
    }
}

/// The answer to a [`StoreRequest`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreAnswer {
    /// It is on disk.
    Done,
    /// What the chat asked for is on disk, or was looked up.
    Chat(ChatAnswer),
    /// It failed, with the reason in words; nothing changed.
    Failed(String),
}

/// The answer to a [`ChatRequest`] that has one of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChatAnswer {
    /// The received message is on disk.
    Received {
        /// It was not there before.
        is_new: bool,
    },
    /// The messages that were not marked before, with their authors.
    Marked(Vec<(AccountName, MessageId)>),
    /// What was looked up.
    Messages(Vec<HistoryItem>),
}

// ---- files -------------------------------------------------------------------------------------

/// Something to do with a file. Requests of one transfer are carried out in order.
#[derive(Clone, Debug)]
pub enum DiskRequest {
    /// Opens a file to be sent. Answered by `Opened`.
    Open {
        /// For this transfer.
        transfer: TransferId,
        /// Absolute.
        path: PathBuf,
    },
    /// Reads and hashes a leaf. Answered by `Leaf`.
    ReadLeaf {
        /// Of this transfer.
        transfer: TransferId,
        /// Which.
        index: u64,
    },
    /// Creates `NAME.part` beneath a folder. Answered by `Created`.
    Create {
        /// For this transfer.
        transfer: TransferId,
        /// Absolute.
        folder: PathBuf,
        /// As the sender has it: has not passed any gate yet.
        name: String,
        /// Bytes that will come.
        size: u64,
        /// Whether its owner may execute it.
        executable: bool,
    },
    /// Verifies a leaf and writes it. Answered by `Written`.
    WriteLeaf {
        /// Of this transfer.
        transfer: TransferId,
        /// Which.
        index: u64,
        /// Its bytes.
        bytes: Bytes,
        /// What they must hash to.
        hash: LeafHash,
    },
    /// Makes a received file durable and gives it its name. Answered by `Finished`.
    Finish {
        /// Which transfer.
        transfer: TransferId,
    },
    /// Forgets a transfer and removes its `.part`. Not answered.
    Drop {
        /// Which transfer.
        transfer: TransferId,
    },
}

impl DiskRequest {
    /// The transfer that it is about.
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
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DiskAnswer {
    /// The file can be sent.
    Opened {
        /// Its name without any folder.
        name: String,
        /// Bytes.
        size: u64,
        /// Whether its owner may execute it.
        executable: bool,
    },
    /// A leaf.
    Leaf {
        /// Which.
        index: u64,
        /// Its bytes.
        bytes: Bytes,
        /// Its hash.
        hash: LeafHash,
    },
    /// The `.part` is there, with room for the file where the file system can tell.
    Created,
    /// A leaf is verified and written.
    Written {
        /// Which.
        index: u64,
    },
    /// A leaf does not hash to what was announced.
    Mismatch {
        /// Which.
        index: u64,
    },
    /// The file is durable and under its name.
    Finished {
        /// Where.
        path: PathBuf,
    },
    /// The sender's name for the file cannot be used; nothing was created.
    BadName(String),
    /// It failed; says what and why, for a person.
    Failed(String),
}

// ---- slow computations -------------------------------------------------------------------------

/// The number of a computation; no two of one run have the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WorkId(pub u64);

/// A computation that takes longer than the loop may stand still: it stretches a password.
#[derive(Debug)]
pub enum Work {
    /// Ends the client's part of a registration.
    Register {
        /// The registration.
        client: ClientRegistration,
        /// Whose.
        account: AccountName,
        /// The server's answer.
        response: OpaqueMessage,
    },
    /// Ends the client's part of a log-in.
    LogIn {
        /// The log-in.
        client: ClientLogin,
        /// Whose.
        account: AccountName,
        /// The server's answer.
        ke2: OpaqueMessage,
        /// How to stretch.
        stretch: StretchVersion,
        /// The channel it holds for.
        binding: ChannelBinding,
    },
}

impl Work {
    /// Does it. Takes tenths of a second and 64 MiB.
    pub fn run(self) -> WorkAnswer {
        WorkAnswer(match self {
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
                binding,
            } => client.finish(&account, &ke2, stretch, &binding),
        })
    }
}

/// The result of a [`Work`].
#[derive(Debug)]
pub struct WorkAnswer(pub Result<OpaqueMessage, PasswordError>);
