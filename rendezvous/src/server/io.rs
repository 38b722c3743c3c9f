//! What goes into the engine and what comes out of it.
//!
//! Data only: whoever drives the engine needs nothing else of it but [`Server`](super::Server). The
//! words of slow jobs are in `job`, those of the operator in `command`.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use common::id::AccountName;
use common::key::ChannelBinding;
use common::wire::channel::AllocationId;
use common::wire::rendezvous::{
    ByeReason, Hello, HelloAnswer, RelayDatagrams, RequestFrame, ServerFrame,
};

use crate::relay::{Channel, ChannelId};
use crate::store::{StoreAnswer, StoreError, StoreRequest};
pub use command::{Command, CommandId, ListedAccount, Reply, Unblocked};
pub use job::{Job, Outcome};

// What an operator asks, and the replies.
mod command;
// OPAQUE work for another thread.
mod job;

/// Names a connection; the shell never uses one twice, and a later one has a greater number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(pub u64);

/// Pairs the result of slow work with the output that asked for it; counts from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub(super) u64);

/// What the shell tells the engine.
#[derive(Debug)]
pub enum Input {
    /// A connection was accepted; its TLS handshake is still to be done. A transport without a
    /// handshake may leave this out.
    Accepted {
        /// Names it in all further inputs and outputs.
        connection: ConnectionId,
        /// The peer's address and port, as the listener saw them.
        source: SocketAddr,
    },
    /// A connection is ready for its first frame.
    Connected {
        /// One that was accepted, or a new one.
        connection: ConnectionId,
        /// The peer's address and port, as the listener saw them.
        source: SocketAddr,
        /// The exporter of its TLS channel, which log-ins over it are signed for.
        channel_binding: ChannelBinding,
    },
    /// The first frame of a connection.
    Greeted {
        /// Ignored if it is gone.
        connection: ConnectionId,
        /// As the peer sent it; the engine checks its bounds.
        hello: Hello,
    },
    /// A further frame.
    Requested {
        /// Ignored if it is gone.
        connection: ConnectionId,
        /// As the peer sent it; the engine checks its bounds.
        frame: RequestFrame,
    },
    /// Bytes that are no frame of this protocol.
    Malformed {
        /// Ignored if it is gone.
        connection: ConnectionId,
    },
    /// A connection is gone. Also fine after an [`Output::Close`].
    Disconnected {
        /// Not used again.
        connection: ConnectionId,
    },
    /// The answer to an [`Output::Store`].
    Stored {
        /// Came with the request.
        ticket: Ticket,
        /// What the store said after its commit.
        answer: Result<StoreAnswer, StoreError>,
    },
    /// The result of an [`Output::Compute`].
    Computed {
        /// Came with the job.
        ticket: Ticket,
        /// What [`Job::run`] returned.
        outcome: Outcome,
    },
    /// The relay has closed a channel because nobody used it, or could not open it.
    ChannelClosed {
        /// Not used again.
        channel: ChannelId,
    },
    /// The relay has datagrams for a device whose own come over its control connection.
    FromRelay {
        /// Ignored if it is gone.
        connection: ConnectionId,
        /// Few enough for the connection to take: see [`RELAY_BYTES_WAITING_MAX`](common::limits::RELAY_BYTES_WAITING_MAX).
        datagrams: RelayDatagrams,
    },
    /// The operator asks something; answered by [`Output::Reply`].
    Commanded {
        /// Comes back in the reply.
        id: CommandId,
        /// Trusted: an operator is not limited in how much it asks.
        command: Command,
    },
    /// The server is being stopped: every session gets a farewell, nobody is let in any more.
    ShutDown,
}

/// What the engine has the shell do.
#[derive(Debug)]
#[must_use]
pub enum Output {
    /// Send a frame.
    Send {
        /// Without effect if it is gone.
        connection: ConnectionId,
        /// To be sent after all earlier ones of this connection.
        frame: Frame,
    },
    /// Close a connection once everything sent to it is on its way.
    Close {
        /// Without effect if it is gone.
        connection: ConnectionId,
        /// For the log.
        why: CloseReason,
    },
    /// Give a request to the store; requests in the order in which they come out.
    Store {
        /// Comes back in [`Input::Stored`].
        ticket: Ticket,
        /// Answered after it is durable.
        request: StoreRequest,
    },
    /// Run a job on another thread; jobs in any order.
    Compute {
        /// Comes back in [`Input::Computed`].
        ticket: Ticket,
        /// A tenth of a millisecond of work, or less.
        job: Job,
    },
    /// Give a command to the relay; commands in the order in which they come out, and before what comes after
    /// them is sent.
    Relay(RelayCommand),
    /// Give datagrams of a control connection to the relay, or drop them if many wait for it.
    ToRelay {
        /// Where they came from; [`Input::FromRelay`] has it again.
        connection: ConnectionId,
        /// Within their bounds.
        datagrams: RelayDatagrams,
    },
    /// Answer the operator.
    Reply {
        /// Came with the command.
        id: CommandId,
        /// One for each command.
        reply: Reply,
    },
    /// There is nothing more to do until an input comes, or this moment.
    Wait(Option<Deadline>),
}

/// What the relay is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RelayCommand {
    /// Make an allocation for a device of this account.
    Allocate(AllocationId, AccountName),
    /// End an allocation and all its channels.
    Free(AllocationId),
    /// Open a channel between two allocations.
    Open(Channel),
}

/// A frame from the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// The first frame.
    Greeting(HelloAnswer),
    /// Any further one; shared when several connections get the same.
    Server(Arc<ServerFrame>),
}

/// When [`Server::handle_timeout`](super::Server::handle_timeout) is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Deadline {
    /// Never early; may be past.
    pub at: Instant,
    /// What is due, in a word or two for the log.
    pub why: &'static str,
}

/// Why a connection is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseReason {
    /// The server has as many connections as it can hold, in all or from this source.
    TooMany,
    /// The peer speaks no version that the server speaks.
    NeedsUpgrade,
    /// The peer was told this.
    Said(ByeReason),
    /// The peer logged out.
    LoggedOut,
}
