//! The socket of a program: JSON-RPC 2.0 (<https://www.jsonrpc.org/specification>) over a Unix socket,
//! one message a line.
//!
//! A [`Dialect`] says what is spoken: every command is a method, named by the command's enum itself; its
//! reply is the result. Where there are events, a client that calls `subscribe` gets every one of them as
//! a notification from then on. Batches are not spoken. Who may connect is up to the file system: the
//! socket has mode 0600.
//!
//! Errors of the protocol have the codes of the specification. An error of a command has code -32000,
//! its text as message, and the error itself as data. Every bound that a client exceeds costs that client
//! its connection and nobody else anything.

use std::fmt::{Debug, Display};

use serde::Serialize;
use serde::de::DeserializeOwned;

// The side that asks.
mod client;
// Paths that are too long for a socket.
mod path;
// Requests, replies and notifications.
mod rpc;
// The side that answers.
mod server;

pub use self::client::{LineClient, LineReader, Message};
pub use self::rpc::{Request, Response, methods};
pub use self::server::{LineServer, RequestId, Tokens};

/// What is spoken on one program's socket.
pub trait Dialect: Debug {
    /// What a client asks: an enum with serde's `tag = "method", content = "params"`.
    type Command: Debug + Serialize + DeserializeOwned;
    /// The result of a command.
    type Reply: Debug + Serialize + DeserializeOwned;
    /// Why a command was not carried out. Its text is the error's message, it itself the data.
    type Error: Debug + Display + Serialize + DeserializeOwned;
    /// What is told to those who subscribed: an enum like that of the commands. [`NoEvent`] if there is
    /// nothing to subscribe to.
    type Event: Debug + Serialize + DeserializeOwned;

    /// The bounds of the socket.
    const LIMITS: Limits;
    /// The process that answers, as a client's error messages name it.
    const PROCESS: &'static str;

    /// The result of `subscribe`; `None` if there are no events.
    fn subscribed() -> Option<Self::Reply>;
    /// The error for whoever comes when there are too many of `what` already.
    fn too_many(what: &'static str) -> Self::Error;
    /// The error for those who still wait when the program ends.
    fn stopped() -> Self::Error;
    /// What a client makes of a message that is none of the above.
    fn unexpected(message: String) -> Self::Error;
}

/// The bounds of a socket.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Clients at once; another one gets an error and is let go.
    pub clients: usize,
    /// Bytes of a request; a client that sends a longer one gets an error and is let go.
    pub request_len: usize,
    /// Bytes of a reply, for the client.
    pub reply_len: usize,
    /// Requests without a reply of one client; nothing more is read from it until it has one.
    pub requests_per_client: usize,
    /// Requests without a reply of all clients, those that left included; another one gets an error.
    pub requests: usize,
    /// Events that wait for one client; a client that is slower is dropped.
    pub events: usize,
    /// Bytes that wait for one client before anything more drops it. One reply may exceed it.
    pub outbox_len: usize,
}

/// No event at all: for a [`Dialect`] without any.
#[derive(Debug, Serialize, serde::Deserialize)]
#[serde(tag = "method", content = "params")]
pub enum NoEvent {}

/// A dialect for the tests of this module.
#[cfg(test)]
mod sample {
    use serde::Deserialize;

    use super::*;
    use crate::limits::{PROFILE_EVENTS_MAX, PROFILE_SEND_QUEUE_LEN_MAX};

    #[derive(Debug)]
    pub(super) struct Sample;

    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    #[serde(tag = "method", content = "params", rename_all = "snake_case")]
    pub(super) enum Command {
        Status,
        History { with: Option<String>, limit: u32 },
        LogIn { account: String, password: String },
    }

    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    #[serde(rename_all = "snake_case")]
    pub(super) enum Reply {
        Done,
        Texts(Vec<String>),
    }

    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize, thiserror::Error)]
    #[serde(rename_all = "snake_case")]
    pub(super) enum Error {
        #[error("too many {0} at once")]
        TooMany(String),
        #[error("nobody is there")]
        Nobody,
        #[error("{0}")]
        Unexpected(String),
    }

    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    #[serde(tag = "method", content = "params", rename_all = "snake_case")]
    pub(super) enum Event {
        Connection { state: String },
    }

    impl Dialect for Sample {
        type Command = Command;
        type Reply = Reply;
        type Error = Error;
        type Event = Event;

        const LIMITS: Limits = Limits {
            clients: 3,
            request_len: 1000,
            reply_len: 1000,
            requests_per_client: 2,
            requests: 3,
            events: PROFILE_EVENTS_MAX,
            outbox_len: PROFILE_SEND_QUEUE_LEN_MAX,
        };
        const PROCESS: &'static str = "the sample";

        fn subscribed() -> Option<Reply> {
            Some(Reply::Done)
        }

        fn too_many(what: &'static str) -> Error {
            Error::TooMany(what.to_owned())
        }

        fn stopped() -> Error {
            Error::Nobody
        }

        fn unexpected(message: String) -> Error {
            Error::Unexpected(message)
        }
    }
}
