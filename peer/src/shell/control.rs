//! The socket of a profile: what is spoken there, as JSON-RPC 2.0 by [`common::os::lines`].
//!
//! Every [`Command`] is a method; its [`Reply`] is the result. A client that calls `subscribe` gets
//! every [`Event`] as a notification from then on. `peer/API.md` describes all of it for people who write programs.

use common::limits::{
    PROFILE_CLIENTS_MAX, PROFILE_EVENTS_MAX, PROFILE_LINE_LEN_MAX, PROFILE_REQUESTS_MAX,
    PROFILE_REQUESTS_PER_CLIENT_MAX, PROFILE_SEND_QUEUE_LEN_MAX, REPLY_LINE_LEN_MAX,
};
use common::os::lines::{self, Dialect, Limits, LineServer};

use crate::node::command::{Command, CommandError, Event, Reply};

/// The owner's end of the socket.
pub(crate) type ControlServer = LineServer<ProfileDialect>;
/// A line of a client.
pub type Request = lines::Request<ProfileDialect>;

/// What is spoken on a profile's socket.
#[derive(Debug)]
pub enum ProfileDialect {}

impl Dialect for ProfileDialect {
    type Command = Command;
    type Reply = Reply;
    type Error = CommandError;
    type Event = Event;

    const LIMITS: Limits = Limits {
        clients: PROFILE_CLIENTS_MAX,
        request_len: PROFILE_LINE_LEN_MAX,
        reply_len: REPLY_LINE_LEN_MAX,
        requests_per_client: PROFILE_REQUESTS_PER_CLIENT_MAX,
        requests: PROFILE_REQUESTS_MAX,
        events: PROFILE_EVENTS_MAX,
        outbox_len: PROFILE_SEND_QUEUE_LEN_MAX,
    };
    const PROCESS: &'static str = "the process that owns this profile";

    fn subscribed() -> Option<Reply> {
        Some(Reply::Done)
    }

    fn too_many(what: &'static str) -> CommandError {
        CommandError::TooMany(format!("{what} of this profile"))
    }

    fn stopped() -> CommandError {
        CommandError::Stopping
    }

    fn unexpected(message: String) -> CommandError {
        CommandError::Invalid(message)
    }
}

// What is written about it.
#[cfg(test)]
mod api;

#[cfg(test)]
mod tests {
    use super::*;

    /// Programs call them by these names.
    #[test]
    fn the_methods_are_these() {
        let expected = [
            "version",
            "register",
            "log_in",
            "wait_ready",
            "log_out",
            "admit",
            "status",
            "examine",
            "examination",
            "list",
            "watch",
            "contacts",
            "send",
            "outbox",
            "withdraw",
            "send_file",
            "answer_offer",
            "cancel",
            "offers",
            "history",
            "recorded",
            "unread",
            "mark_read",
            "devices",
            "found",
            "approve",
            "name",
            "revoke",
            "recover",
            "safety",
            "verify",
        ];
        assert_eq!(lines::methods::<Command>(), expected);
    }

    #[test]
    fn commands_without_parameters_may_have_empty_ones() {
        for params in ["", r#","params":null"#, r#","params":{}"#] {
            let line = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"status"{params}}}"#);
            let request = Request::parse(line.as_bytes()).unwrap();
            let is_status = matches!(
                &request,
                Request::Command { id: Some(id), command: Command::Status } if *id == 1
            );
            assert!(is_status, "{line}: {request:?}");
        }
    }

    #[test]
    fn t33_a_mistake_does_not_repeat_a_password() {
        let line =
            br#"{"jsonrpc":"2.0","id":1,"method":"log_in","params":{"password":"hunter22"}}"#;
        let response = Request::parse(line).unwrap_err();
        assert!(!format!("{response:?}").contains("hunter22"));
        let said = serde_json::to_string(&response).unwrap();
        assert!(!said.contains("hunter22"));
    }
}
