//! What goes into the engine and what comes out of it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use common::key::ChannelBinding;
use common::wire::rendezvous::{ByeReason, Hello, HelloAnswer, RequestFrame, ServerFrame};

use crate::store::{StoreAnswer, StoreError, StoreRequest};
pub use command::{Command, CommandId, ListedAccount, Reply};
pub use job::{Job, Outcome};

// What an operator asks, and the replies.
mod command;
// OPAQUE work for another thread.
mod job;

/// Names a connection; the shell never uses one twice, and a later one has a greater number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(pub u64);

/// Pairs the result of slow work with its order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub(super) u64);

/// What happened.
#[derive(Debug)]
pub enum Input {
    /// A connection came; its TLS handshake is still to be done. A transport without a handshake may
    /// leave this out.
    Accepted {
        /// Its name from now on.
        connection: ConnectionId,
        /// Where it comes from.
        source: SocketAddr,
    },
    /// A connection is ready for its first frame.
    Connected {
        /// Which.
        connection: ConnectionId,
        /// Where it comes from.
        source: SocketAddr,
        /// The exporter of its TLS channel.
        channel: ChannelBinding,
    },
    /// The first frame of a connection.
    Greeted {
        /// Which.
        connection: ConnectionId,
        /// The frame.
        hello: Hello,
    },
    /// A further frame.
    Requested {
        /// Which connection.
        connection: ConnectionId,
        /// The frame.
        frame: RequestFrame,
    },
    /// Bytes that are no frame of this protocol.
    Malformed {
        /// From which connection.
        connection: ConnectionId,
    },
    /// A connection is gone. Also fine after a `Close`.
    Disconnected {
        /// Which.
        connection: ConnectionId,
    },
    /// The answer to [`Output::Store`].
    Stored {
        /// Of the order.
        ticket: Ticket,
        /// What the store said.
        answer: Result<StoreAnswer, StoreError>,
    },
    /// The result of [`Output::Verify`].
    Verified {
        /// Of the order.
        ticket: Ticket,
        /// What [`Job::run`] returned.
        outcome: Outcome,
    },
    /// The operator asks something; answered by [`Output::Reply`].
    Commanded {
        /// Comes back in the reply.
        id: CommandId,
        /// What is asked.
        command: Command,
    },
    /// The server is being stopped: every session gets a farewell, nobody is let in any more.
    Shutdown,
}

/// What is to be done.
#[derive(Debug)]
#[must_use]
pub enum Output {
    /// Send a frame.
    Send {
        /// To which connection.
        connection: ConnectionId,
        /// The frame.
        frame: Frame,
    },
    /// Close a connection once everything sent to it is on its way.
    Close {
        /// Which.
        connection: ConnectionId,
        /// Why, for the log.
        why: CloseReason,
    },
    /// Give a request to the store; requests in the order in which they come out.
    Store {
        /// Comes back with the answer.
        ticket: Ticket,
        /// The request.
        request: StoreRequest,
    },
    /// Run a job on another thread.
    Verify {
        /// Comes back with the outcome.
        ticket: Ticket,
        /// The job.
        job: Job,
    },
    /// Answer the operator.
    Reply {
        /// Of the command.
        id: CommandId,
        /// The answer.
        reply: Reply,
    },
    /// There is nothing more to do until an input comes, or this moment.
    Wait(Option<Deadline>),
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
    /// When.
    pub at: Instant,
    /// What for.
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
