//! The socket of a profile: JSON-RPC 2.0 (<https://www.jsonrpc.org/specification>), one message a
//! line.
//!
//! Every [`Command`] is a method; its [`Reply`] is the result. A client that calls `subscribe` gets
//! every [`command::Event`] as a notification from then on. Batches are not spoken. Who may connect is up to
//! the file system: the socket has mode 0600.
//!
//! Errors of the protocol have the codes of the specification. An error of a command has code -32000,
//! its text as message, and the [`CommandError`] itself as data. Every bound that a client exceeds
//! costs that client its connection and nobody else anything.

use std::collections::{BTreeMap, VecDeque};
use std::fs::Permissions;
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use common::limits::{
    CONTROL_CLIENTS_MAX, CONTROL_EVENTS_MAX, CONTROL_LINE_LEN_MAX, CONTROL_OUTBOX_LEN_MAX,
    CONTROL_REQUESTS_MAX, CONTROL_REQUESTS_PER_CLIENT_MAX,
};
use mio::event::Event;
use mio::net::{UnixListener, UnixStream};
use mio::{Interest, Registry, Token};
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use zeroize::Zeroize;

use crate::node::command::{self, Command, CommandError, CommandId, Reply};

/// Bytes that are read from one client before the loop does something else.
const RECEIVED_PER_TURN: usize = 256 * 1024;
/// When the system has no file descriptors left, new clients wait this long.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// JSON-RPC: the line is not JSON.
const PARSE_ERROR: i32 = -32700;
/// JSON-RPC: the line is JSON but no request.
const INVALID_REQUEST: i32 = -32600;
/// JSON-RPC: there is no such method.
const METHOD_NOT_FOUND: i32 = -32601;
/// JSON-RPC: the parameters do not fit the method.
const INVALID_PARAMS: i32 = -32602;
/// The command was understood and failed.
const COMMAND_FAILED: i32 = -32000;

/// Methods that are commands, as serde names them.
const METHODS: [&str; 16] = [
    "register",
    "log_in",
    "wait_ready",
    "log_out",
    "admit",
    "status",
    "list",
    "watch",
    "send",
    "send_file",
    "answer_offer",
    "cancel",
    "offers",
    "history",
    "unread",
    "mark_read",
];
/// The method that is not one.
const SUBSCRIBE: &str = "subscribe";

/// The socket and its clients.
#[derive(Debug)]
pub(crate) struct ControlServer {
    listener: UnixListener,
    path: PathBuf,
    tokens: TokenRange,
    clients: BTreeMap<Token, Client>,
    asked: BTreeMap<CommandId, Asked>,
    last_command: u64,
    is_acceptable: bool,
    accept_after: Option<Instant>,
}

/// Tokens that are the clients'. None is used twice in a row, so that an event which comes late does
/// not reach the next client.
#[derive(Debug)]
struct TokenRange {
    first: usize,
    next: usize,
}

/// Who waits for the reply to a command.
#[derive(Debug)]
struct Asked {
    client: Token,
    /// `None` for a notification, which gets no reply.
    id: Option<Value>,
}

impl ControlServer {
    /// Binds the socket, in place of one that an earlier process left. The caller holds the profile's
    /// lock, so nobody else listens there. Clients get tokens from `first_client` on.
    pub(crate) fn bind(
        path: &Path,
        registry: &Registry,
        listener_token: Token,
        first_client: Token,
    ) -> io::Result<Self> {
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let mut listener = UnixListener::bind(path)?;
        std::fs::set_permissions(path, Permissions::from_mode(0o600))?;
        registry.register(&mut listener, listener_token, Interest::READABLE)?;
        Ok(Self {
            listener,
            path: path.to_owned(),
            tokens: TokenRange {
                first: first_client.0,
                next: first_client.0,
            },
            clients: BTreeMap::new(),
            asked: BTreeMap::new(),
            last_command: 0,
            is_acceptable: true,
            accept_after: None,
        })
    }

    /// Notes that somebody may want to connect.
    pub(crate) const fn note_acceptable(&mut self) {
        self.is_acceptable = true;
    }

    /// Notes what the system said about a client.
    pub(crate) fn note_readiness(&mut self, event: &Event) {
        let Some(client) = self.clients.get_mut(&event.token()) else {
            return;
        };
        client.is_readable |= event.is_readable();
        client.is_writable |= event.is_writable();
        if event.is_read_closed() && event.is_write_closed() {
            // Nobody is left to read a reply. What was asked is still done.
            client.has_hung_up = true;
        }
    }

    /// Accepts and reads what can be without waiting, and gives the commands that came.
    pub(crate) fn handle_turn(
        &mut self,
        registry: &Registry,
        now: Instant,
    ) -> Vec<(CommandId, Command)> {
        let mut commands = Vec::new();
        if !self.wants_turn() && self.accept_after.is_none() {
            return commands;
        }
        self.accept(registry, now);
        let tokens: Vec<Token> = self.clients.keys().copied().collect();
        for token in tokens {
            self.read(token, &mut commands);
        }
        commands
    }

    /// Takes the reply to a command to whoever asked.
    pub(crate) fn reply(&mut self, id: CommandId, result: Result<Reply, CommandError>) {
        let Some(asked) = self.asked.remove(&id) else {
            log::error!("a reply that nobody waits for id={}", id.0);
            return;
        };
        let Some(client) = self.clients.get_mut(&asked.client) else {
            return;
        };
        client.requests_open -= 1;
        let Some(id) = asked.id else {
            return;
        };
        match result {
            Ok(reply) => client.queue(&Response::result(id, reply), false),
            Err(error) => client.queue(&Response::failed(id, error), false),
        }
    }

    /// Tells everyone who listens.
    pub(crate) fn notify(&mut self, event: &command::Event) {
        if !self.clients.values().any(|client| client.is_subscribed) {
            return;
        }
        let notification = Notification {
            jsonrpc: Version,
            event,
        };
        let line = to_line(&notification);
        for client in self
            .clients
            .values_mut()
            .filter(|client| client.is_subscribed)
        {
            client.queue_line(line.clone(), true);
        }
    }

    /// Writes what can be without waiting, and lets go of clients that are done for.
    pub(crate) fn flush(&mut self) {
        for client in self.clients.values_mut() {
            client.flush();
        }
        self.clients.retain(|_, client| !client.is_done());
    }

    /// Tells whether there is more to read without waiting.
    pub(crate) fn wants_turn(&self) -> bool {
        let accepts = self.is_acceptable && self.accept_after.is_none();
        accepts || self.clients.values().any(Client::wants_turn)
    }

    /// When to call [`Self::handle_turn`] at the latest.
    pub(crate) const fn deadline(&self) -> Option<Instant> {
        self.accept_after
    }

    /// Tells everyone who still waits that nothing more comes, and removes the socket.
    pub(crate) fn close(mut self) {
        let unanswered: Vec<CommandId> = self.asked.keys().copied().collect();
        for id in unanswered {
            let error = CommandError::Unreachable("this peer is being stopped".to_owned());
            self.reply(id, Err(error));
        }
        self.flush();
        if let Err(error) = std::fs::remove_file(&self.path) {
            log::debug!("the profile's socket stays behind: {error}");
        }
    }

    fn accept(&mut self, registry: &Registry, now: Instant) {
        if self.accept_after.is_some_and(|after| now < after) {
            return;
        }
        self.accept_after = None;
        while self.is_acceptable {
            match self.listener.accept() {
                Ok((stream, _)) => self.admit(stream, registry),
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.is_acceptable = false,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => {
                    log::warn!("no client can be accepted for now: {error}");
                    self.accept_after = Some(now + ACCEPT_PAUSE);
                    return;
                }
            }
        }
    }

    fn admit(&mut self, stream: UnixStream, registry: &Registry) {
        let mut client = Client::new(stream);
        if self.clients.len() >= CONTROL_CLIENTS_MAX {
            let error = CommandError::TooMany("clients of this profile".to_owned());
            client.queue(&Response::failed(Value::Null, error), false);
            client.flush();
            return;
        }
        let token = self.tokens.take();
        let interest = Interest::READABLE | Interest::WRITABLE;
        match registry.register(&mut client.stream, token, interest) {
            Ok(()) => {
                self.clients.insert(token, client);
            }
            Err(error) => log::warn!("a client cannot be served: {error}"),
        }
    }

    fn read(&mut self, token: Token, commands: &mut Vec<(CommandId, Command)>) {
        let Some(client) = self.clients.get_mut(&token) else {
            return;
        };
        client.receive();
        while let Some(client) = self.clients.get_mut(&token) {
            let Some(mut line) = client.next_line() else {
                return;
            };
            self.handle_line(token, &line, commands);
            // It may hold a password.
            line.zeroize();
        }
    }

    fn handle_line(&mut self, token: Token, line: &[u8], commands: &mut Vec<(CommandId, Command)>) {
        let is_full = self.asked.len() >= CONTROL_REQUESTS_MAX;
        let Some(client) = self.clients.get_mut(&token) else {
            return;
        };
        match Request::parse(line) {
            Ok(Request::Subscribe { id }) => {
                client.is_subscribed = true;
                if let Some(id) = id {
                    client.queue(&Response::result(id, Reply::Done), false);
                }
            }
            Ok(Request::Command { id, .. }) if is_full => {
                let error = CommandError::TooMany("requests".to_owned());
                if let Some(id) = id {
                    client.queue(&Response::failed(id, error), false);
                }
            }
            Ok(Request::Command { id, command }) => {
                client.requests_open += 1;
                self.last_command += 1;
                let command_id = CommandId(self.last_command);
                self.asked.insert(command_id, Asked { client: token, id });
                commands.push((command_id, command));
            }
            Err(response) => client.queue(&*response, false),
        }
    }
}

impl TokenRange {
    fn take(&mut self) -> Token {
        let token = Token(self.next);
        self.next = self.next.checked_add(1).unwrap_or(self.first);
        token
    }
}

/// One connection.
#[derive(Debug)]
struct Client {
    stream: UnixStream,
    inbox: Vec<u8>,
    /// So many bytes at the start of the inbox are lines that were taken out.
    taken: usize,
    outbox: VecDeque<Queued>,
    outbox_len: usize,
    events_queued: usize,
    requests_open: usize,
    is_subscribed: bool,
    is_readable: bool,
    is_writable: bool,
    /// Too many requests are open to look at what is in the inbox.
    is_stalled: bool,
    has_hung_up: bool,
    end: Option<End>,
}

/// A line that waits, or what is left of it.
#[derive(Debug)]
struct Queued {
    bytes: Vec<u8>,
    written: usize,
    is_event: bool,
}

/// Why nothing more is read from a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// It said all it has to say, or broke a rule: it gets what waits for it, then the connection ends.
    Draining,
    /// The connection is of no more use.
    Gone,
}

impl Client {
    fn new(stream: UnixStream) -> Self {
        Self {
            stream,
            inbox: Vec::new(),
            taken: 0,
            outbox: VecDeque::new(),
            outbox_len: 0,
            events_queued: 0,
            requests_open: 0,
            is_subscribed: false,
            is_readable: true,
            is_writable: true,
            is_stalled: false,
            has_hung_up: false,
            end: None,
        }
    }

    /// Reads as far as the turn goes.
    fn receive(&mut self) {
        if !self.may_read() {
            return;
        }
        self.compact();
        let mut received = 0;
        let mut piece = [0; 16 * 1024];
        while self.may_read() && received < RECEIVED_PER_TURN {
            match self.stream.read(&mut piece) {
                Ok(0) => self.end = Some(End::Draining),
                Ok(len) => {
                    received += len;
                    self.inbox.extend_from_slice(&piece[..len]);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.is_readable = false,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => self.end = Some(End::Gone),
            }
        }
        piece.zeroize();
    }

    /// Takes a whole line out of the inbox, unless too many requests are open.
    fn next_line(&mut self) -> Option<Vec<u8>> {
        self.is_stalled = self.requests_open >= CONTROL_REQUESTS_PER_CLIENT_MAX;
        if self.end == Some(End::Gone) || self.is_stalled {
            return None;
        }
        let open = &self.inbox[self.taken..];
        let Some(len) = open.iter().position(|byte| *byte == b'\n') else {
            if open.len() > CONTROL_LINE_LEN_MAX {
                self.refuse_line();
            }
            return None;
        };
        if len > CONTROL_LINE_LEN_MAX {
            self.refuse_line();
            return None;
        }
        let line = open[..len].to_vec();
        self.inbox[self.taken..][..len].zeroize();
        self.taken += len + 1;
        Some(line)
    }

    /// Closes the gap that the lines left that were taken out.
    fn compact(&mut self) {
        if self.taken == 0 {
            return;
        }
        let rest = self.inbox.len() - self.taken;
        self.inbox.copy_within(self.taken.., 0);
        self.inbox[rest..].zeroize();
        self.inbox.truncate(rest);
        self.taken = 0;
    }

    fn refuse_line(&mut self) {
        self.inbox.zeroize();
        self.taken = 0;
        let message = format!("a line has more than the {CONTROL_LINE_LEN_MAX} bytes allowed");
        self.queue(
            &Response::refused(INVALID_REQUEST, message, Value::Null),
            false,
        );
        self.end = Some(End::Draining);
    }

    fn queue(&mut self, message: &impl Serialize, is_event: bool) {
        self.queue_line(to_line(message), is_event);
    }

    fn queue_line(&mut self, bytes: Vec<u8>, is_event: bool) {
        let has_too_many = is_event && self.events_queued >= CONTROL_EVENTS_MAX;
        if has_too_many || self.outbox_len > CONTROL_OUTBOX_LEN_MAX {
            log::warn!("a client of the profile's socket is too slow; dropping it");
            self.end = Some(End::Gone);
            return;
        }
        self.outbox_len += bytes.len();
        self.events_queued += usize::from(is_event);
        self.outbox.push_back(Queued {
            bytes,
            written: 0,
            is_event,
        });
    }

    fn flush(&mut self) {
        while self.is_writable && self.end != Some(End::Gone) {
            let Some(first) = self.outbox.front_mut() else {
                return;
            };
            match self.stream.write(&first.bytes[first.written..]) {
                Ok(len) => {
                    first.written += len;
                    self.outbox_len -= len;
                    if first.written == first.bytes.len() {
                        self.events_queued -= usize::from(first.is_event);
                        self.outbox.pop_front();
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.is_writable = false,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => self.end = Some(End::Gone),
            }
        }
    }

    /// Tells whether there is something to do for this client without waiting.
    const fn wants_turn(&self) -> bool {
        let has_room = self.requests_open < CONTROL_REQUESTS_PER_CLIENT_MAX;
        self.may_read() || (self.is_stalled && has_room)
    }

    /// The inbox never holds more than the longest line and what one turn reads: nothing is added as long
    /// as it may hold whole lines.
    const fn may_read(&self) -> bool {
        let has_room = self.requests_open < CONTROL_REQUESTS_PER_CLIENT_MAX;
        self.end.is_none() && self.is_readable && has_room && !self.is_stalled
    }

    /// A client that closed its half still gets the replies that it waits for.
    fn is_done(&self) -> bool {
        match self.end {
            None => false,
            Some(End::Gone) => true,
            Some(End::Draining) if self.has_hung_up => !self.is_stalled,
            Some(End::Draining) => {
                self.outbox.is_empty() && self.requests_open == 0 && !self.is_stalled
            }
        }
    }
}

// ---- messages ----------------------------------------------------------------------------------

/// What a client asks. A request without an `id` gets no reply.
#[derive(Debug)]
pub enum Request {
    /// Something for the node.
    Command {
        /// Comes back in the reply.
        id: Option<Value>,
        /// What is asked.
        command: Command,
    },
    /// To be told what happens.
    Subscribe {
        /// Comes back in the reply.
        id: Option<Value>,
    },
}

/// The frame of a request. The parameters are read in a second pass, straight into the command, so
/// that no other copy of a password is made.
#[derive(Debug, Deserialize)]
struct Envelope {
    jsonrpc: String,
    #[serde(default, deserialize_with = "present")]
    id: Option<Value>,
    method: String,
    #[serde(default)]
    params: Option<Params>,
}

/// Parameters, of which only the shape matters yet.
#[derive(Debug)]
enum Params {
    Empty,
    Some,
}

impl Request {
    /// Reads a line; `Err` with what to answer.
    pub fn parse(line: &[u8]) -> Result<Self, Box<Response>> {
        let envelope: Envelope = serde_json::from_slice(line).map_err(|error| {
            let code = if error.is_data() {
                INVALID_REQUEST
            } else {
                PARSE_ERROR
            };
            refuse(
                code,
                format!("not a JSON-RPC 2.0 request: {error}"),
                Value::Null,
            )
        })?;
        let id = envelope.id.clone();
        if let Some(Value::Array(_) | Value::Object(_) | Value::Bool(_)) = id {
            let message = "an id is a number or a text".to_owned();
            return Err(refuse(INVALID_REQUEST, message, Value::Null));
        }
        let reply_id = id.clone().unwrap_or_default();
        if envelope.jsonrpc != "2.0" {
            let message = "only JSON-RPC 2.0 is spoken here".to_owned();
            return Err(refuse(INVALID_REQUEST, message, reply_id));
        }
        if envelope.method == SUBSCRIBE {
            return Ok(Self::Subscribe { id });
        }
        match envelope.command(line) {
            Ok(command) => Ok(Self::Command { id, command }),
            Err(_) if !METHODS.contains(&envelope.method.as_str()) => {
                let message = format!("there is no method '{}'", envelope.method);
                Err(refuse(METHOD_NOT_FOUND, message, reply_id))
            }
            Err(error) => {
                let message = format!("wrong parameters for '{}': {error}", envelope.method);
                Err(refuse(INVALID_PARAMS, message, reply_id))
            }
        }
    }
}

impl Envelope {
    fn command(&self, line: &[u8]) -> Result<Command, serde_json::Error> {
        let whole = serde_json::from_slice(line);
        match (&whole, &self.params) {
            // A method without parameters may be called with none of them in `{}` or `[]`.
            (Err(_), Some(Params::Empty)) => {
                let bare = BTreeMap::from([("method", self.method.as_str())]);
                serde_json::from_value(serde_json::to_value(bare)?)
            }
            (Ok(_) | Err(_), Some(Params::Empty | Params::Some) | None) => whole,
        }
    }
}

impl<'de> Deserialize<'de> for Params {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Shape {
            Object(BTreeMap<String, IgnoredAny>),
            Array(Vec<IgnoredAny>),
            Null(()),
        }
        let is_empty = match Shape::deserialize(deserializer)? {
            Shape::Object(members) => members.is_empty(),
            Shape::Array(members) => members.is_empty(),
            Shape::Null(()) => true,
        };
        Ok(if is_empty { Self::Empty } else { Self::Some })
    }
}

/// An `id` that is there, even if it is `null`, asks for a reply.
fn present<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(deserializer).map(Some)
}

/// What a client is answered, as JSON.
#[derive(Debug, Serialize)]
pub struct Response {
    jsonrpc: Version,
    id: Value,
    #[serde(flatten)]
    outcome: Outcome,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case")]
enum Outcome {
    Result(Reply),
    Error(RpcError),
}

#[derive(Debug, Serialize)]
struct RpcError {
    code: i32,
    message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<CommandError>,
}

#[derive(Debug, Serialize)]
struct Notification<'a> {
    jsonrpc: Version,
    #[serde(flatten)]
    event: &'a command::Event,
}

/// Always `"2.0"`.
#[derive(Debug)]
struct Version;

impl Serialize for Version {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str("2.0")
    }
}

impl Response {
    const fn result(id: Value, reply: Reply) -> Self {
        Self {
            jsonrpc: Version,
            id,
            outcome: Outcome::Result(reply),
        }
    }

    fn failed(id: Value, error: CommandError) -> Self {
        Self {
            jsonrpc: Version,
            id,
            outcome: Outcome::Error(RpcError {
                code: COMMAND_FAILED,
                message: error.to_string(),
                data: Some(error),
            }),
        }
    }

    const fn refused(code: i32, message: String, id: Value) -> Self {
        Self {
            jsonrpc: Version,
            id,
            outcome: Outcome::Error(RpcError {
                code,
                message,
                data: None,
            }),
        }
    }
}

fn refuse(code: i32, message: String, id: Value) -> Box<Response> {
    Box::new(Response::refused(code, message, id))
}

fn to_line(message: &impl Serialize) -> Vec<u8> {
    let mut line = serde_json::to_vec(message).expect("our own types have string keys only");
    line.push(b'\n');
    line
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn refusal(line: &str) -> i32 {
        let Err(response) = Request::parse(line.as_bytes()) else {
            panic!("accepted: {line}");
        };
        let Outcome::Error(error) = response.outcome else {
            panic!("no error: {line}");
        };
        error.code
    }

    #[test]
    fn the_list_of_methods_is_the_list_of_commands() {
        let error = serde_json::from_str::<Command>(r#"{"method":"?"}"#).unwrap_err();
        let named: Vec<String> = METHODS.map(|method| format!("`{method}`")).into();
        let expected = format!("unknown variant `?`, expected one of {}", named.join(", "));
        assert!(error.to_string().starts_with(&expected), "{error}");
    }

    #[test]
    fn commands_come_with_and_without_parameters() {
        for params in [
            "",
            r#","params":null"#,
            r#","params":{}"#,
            r#","params":[]"#,
        ] {
            let line = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"status"{params}}}"#);
            let request = Request::parse(line.as_bytes()).unwrap();
            assert!(
                matches!(&request, Request::Command { id: Some(id), command: Command::Status } if *id == 1),
                "{line}: {request:?}"
            );
        }
        let line = r#"{"params":{"limit":3},"method":"history","id":"x","jsonrpc":"2.0"}"#;
        let request = Request::parse(line.as_bytes()).unwrap();
        assert!(
            matches!(
                &request,
                Request::Command {
                    command: Command::History {
                        with: None,
                        limit: 3
                    },
                    ..
                }
            ),
            "{request:?}"
        );
    }

    #[test]
    fn a_null_id_is_an_id_and_a_missing_one_is_a_notification() {
        let line = br#"{"jsonrpc":"2.0","id":null,"method":"subscribe"}"#;
        let request = Request::parse(line).unwrap();
        assert!(matches!(
            request,
            Request::Subscribe {
                id: Some(Value::Null)
            }
        ));
        let request = Request::parse(br#"{"jsonrpc":"2.0","method":"list"}"#).unwrap();
        assert!(matches!(request, Request::Command { id: None, .. }));
    }

    #[test]
    fn each_mistake_has_its_code() {
        for line in ["", "{", "nonsense", r#"{"jsonrpc":"2.0","#, "\u{1}"] {
            assert_eq!(refusal(line), PARSE_ERROR, "{line}");
        }
        let invalid = [
            "[]",
            "1",
            "null",
            "{}",
            r#"{"method":"status","id":1}"#,
            r#"{"jsonrpc":"1.0","method":"status","id":1}"#,
            r#"{"jsonrpc":"2.0","id":1}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":7}"#,
            r#"{"jsonrpc":"2.0","id":{},"method":"status"}"#,
            r#"[{"jsonrpc":"2.0","id":1,"method":"status"}]"#,
            r#"{"jsonrpc":"2.0","id":1,"method":"status","method":"list"}"#,
        ];
        for line in invalid {
            assert_eq!(refusal(line), INVALID_REQUEST, "{line}");
        }
        for method in ["nonsense", "Status", "", "status "] {
            let line =
                format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{method}","params":{{"a":1}}}}"#);
            assert_eq!(refusal(&line), METHOD_NOT_FOUND, "{line}");
        }
        for params in ["{}", "[]", r#"{"to":1}"#, r#"{"to":"../x","path":"/x"}"#] {
            let line =
                format!(r#"{{"jsonrpc":"2.0","id":1,"method":"send_file","params":{params}}}"#);
            assert_eq!(refusal(&line), INVALID_PARAMS, "{line}");
        }
    }

    #[test]
    fn nesting_does_not_exhaust_the_stack() {
        let line = format!(r#"{{"jsonrpc":"2.0","id":{}"#, "[".repeat(200_000));
        assert_eq!(refusal(&line), PARSE_ERROR);
    }

    #[test]
    fn t33_a_mistake_does_not_repeat_a_password() {
        let line =
            br#"{"jsonrpc":"2.0","id":1,"method":"log_in","params":{"password":"hunter22"}}"#;
        let response = Request::parse(line).unwrap_err();
        assert!(!format!("{response:?}").contains("hunter22"));
        assert!(
            !serde_json::to_string(&response)
                .unwrap()
                .contains("hunter22")
        );
    }

    #[test]
    fn answers_have_the_shape_of_the_specification() {
        let to_value = |response: &Response| serde_json::to_value(response).unwrap();
        assert_eq!(
            to_value(&Response::result(json!(1), Reply::Done)),
            json!({"jsonrpc": "2.0", "id": 1, "result": "done"})
        );
        let error = Response::failed(json!("x"), CommandError::NoSuchTransfer);
        assert_eq!(
            to_value(&error),
            json!({"jsonrpc": "2.0", "id": "x", "error": {
                "code": -32000,
                "message": "there is no such transfer, or it has ended",
                "data": "no_such_transfer",
            }})
        );
        let error = Response::refused(PARSE_ERROR, "why".to_owned(), Value::Null);
        assert_eq!(
            to_value(&error),
            json!({"jsonrpc": "2.0", "id": null, "error": {"code": -32700, "message": "why"}})
        );
        let event = command::Event::Connection(command::ConnectionState::Online);
        let notification = Notification {
            jsonrpc: Version,
            event: &event,
        };
        assert_eq!(
            serde_json::to_value(&notification).unwrap(),
            json!({"jsonrpc": "2.0", "method": "connection", "params": {"state": "online"}})
        );
    }

    #[test]
    fn a_slow_client_is_dropped_at_the_bound_of_events() {
        let (near, _far) = UnixStream::pair().unwrap();
        let mut client = Client::new(near);
        client.is_writable = false;
        for _ in 0..CONTROL_EVENTS_MAX {
            client.queue_line(b"event\n".to_vec(), true);
        }
        assert!(!client.is_done());
        client.queue_line(b"event\n".to_vec(), true);
        assert!(client.is_done());
    }

    #[test]
    fn a_slow_client_is_dropped_at_the_bound_of_bytes() {
        let (near, _far) = UnixStream::pair().unwrap();
        let mut client = Client::new(near);
        client.is_writable = false;
        client.queue_line(vec![b'x'; CONTROL_OUTBOX_LEN_MAX + 1], false);
        assert!(!client.is_done(), "one reply may be as large as it is");
        client.queue_line(b"x\n".to_vec(), false);
        assert!(client.is_done());
    }

    #[test]
    fn lines_are_cut_at_line_feeds_wherever_the_pieces_end() {
        let (near, _far) = UnixStream::pair().unwrap();
        let mut client = Client::new(near);
        client.inbox.extend_from_slice(b"one\ntwo\nthr");
        assert_eq!(client.next_line().unwrap(), b"one");
        assert_eq!(client.next_line().unwrap(), b"two");
        assert_eq!(client.next_line(), None);
        client.inbox.extend_from_slice(b"ee\n");
        assert_eq!(client.next_line().unwrap(), b"three");
        client.compact();
        assert!(client.inbox.is_empty());
    }

    #[test]
    fn nothing_is_read_on_top_of_lines_that_wait() {
        let (near, mut far) = UnixStream::pair().unwrap();
        let mut client = Client::new(near);
        far.write_all(b"one\ntwo\n").unwrap();
        client.receive();
        assert_eq!(client.next_line().unwrap(), b"one");
        client.requests_open = CONTROL_REQUESTS_PER_CLIENT_MAX;
        assert_eq!(client.next_line(), None);
        client.requests_open -= 1;
        client.is_readable = true;
        assert!(client.wants_turn() && !client.may_read());
        assert_eq!(client.next_line().unwrap(), b"two");
        assert_eq!(client.next_line(), None);
        assert!(client.may_read());
    }

    #[test]
    fn t33_a_line_that_was_taken_out_leaves_no_trace() {
        let (near, _far) = UnixStream::pair().unwrap();
        let mut client = Client::new(near);
        client.inbox.extend_from_slice(b"hunter22\nnext\nre");
        assert_eq!(client.next_line().unwrap(), b"hunter22");
        assert_eq!(client.inbox, b"\0\0\0\0\0\0\0\0\nnext\nre");
        assert_eq!(client.next_line().unwrap(), b"next");
        client.compact();
        assert_eq!(client.inbox, b"re");
        assert_eq!(client.next_line(), None);
    }
}
