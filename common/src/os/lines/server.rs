//! The side that answers: a listener and its clients, driven by a mio loop. Nothing in here waits.

use std::collections::{BTreeMap, VecDeque};
use std::fs::{self, Permissions};
use std::io::{self, ErrorKind, Read, Write};
use std::marker::PhantomData;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use mio::event::Event;
use mio::net::{UnixListener, UnixStream};
use mio::{Interest, Registry, Token};
use serde_json::Value;
use zeroize::Zeroize;

use super::Dialect;
use super::path::SocketPath;
use super::rpc::{INVALID_REQUEST, Notification, Request, Response, to_line};
use crate::os::accept::{AcceptFailures, is_per_connection};
use crate::os::private::FILE_MODE;

/// Bytes that are read from one client before the loop does something else.
const RECEIVED_PER_TURN: usize = 256 * 1024;
/// When the system has no file descriptors left, new clients wait this long.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// The socket and its clients.
#[derive(Debug)]
pub struct LineServer<D> {
    listener: UnixListener,
    path: PathBuf,
    tokens: Tokens,
    clients: BTreeMap<Token, Client<D>>,
    asked: BTreeMap<RequestId, Asked>,
    last_request: u64,
    is_acceptable: bool,
    accept_after: Option<Instant>,
    failures: AcceptFailures,
}

/// Pairs a reply with its request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RequestId(pub u64);

/// Tokens that are the clients'. None is used twice in a row, so that an event which comes late does
/// not reach the next client.
#[derive(Debug)]
pub struct Tokens {
    first: usize,
    step: usize,
    next: usize,
}

impl Tokens {
    /// Every `step`th token from `first` on.
    pub const fn new(first: Token, step: usize) -> Self {
        Self {
            first: first.0,
            step,
            next: first.0,
        }
    }

    fn take(&mut self) -> Token {
        let token = Token(self.next);
        self.next = self.next.checked_add(self.step).unwrap_or(self.first);
        token
    }
}

/// Who waits for the reply to a command.
#[derive(Debug)]
struct Asked {
    client: Token,
    /// `None` for a notification, which gets no reply.
    id: Option<Value>,
}

impl<D: Dialect> LineServer<D> {
    /// Binds the socket, in place of one that an earlier process left. The caller holds the lock of the
    /// folder, so nobody else listens there. The path may have any length.
    ///
    /// # Errors
    ///
    /// If something that cannot be removed is in the way, or the system refuses the socket.
    pub fn bind(
        path: &Path,
        registry: &Registry,
        listener_token: Token,
        clients: Tokens,
    ) -> io::Result<Self> {
        match fs::remove_file(path) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let mut listener = UnixListener::bind(SocketPath::new(path)?.as_path())?;
        fs::set_permissions(path, Permissions::from_mode(FILE_MODE))?;
        registry.register(&mut listener, listener_token, Interest::READABLE)?;
        Ok(Self {
            listener,
            path: path.to_owned(),
            tokens: clients,
            clients: BTreeMap::new(),
            asked: BTreeMap::new(),
            last_request: 0,
            is_acceptable: true,
            accept_after: None,
            failures: AcceptFailures::default(),
        })
    }

    /// Notes that somebody may want to connect.
    pub const fn note_acceptable(&mut self) {
        self.is_acceptable = true;
    }

    /// Notes what the system said about a client.
    pub fn note_readiness(&mut self, event: &Event) {
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
    pub fn handle_turn(
        &mut self,
        registry: &Registry,
        now: Instant,
    ) -> Vec<(RequestId, D::Command)> {
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
    pub fn reply(&mut self, id: RequestId, result: Result<D::Reply, D::Error>) {
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
            Ok(reply) => client.queue(&Response::result(id, reply)),
            Err(error) => client.queue(&Response::failed(id, error)),
        }
    }

    /// Tells everyone who listens.
    pub fn notify(&mut self, event: &D::Event) {
        if !self.clients.values().any(|client| client.is_subscribed) {
            return;
        }
        let line = to_line(&Notification::new(event));
        for client in self
            .clients
            .values_mut()
            .filter(|client| client.is_subscribed)
        {
            client.queue_line(line.clone(), true);
        }
    }

    /// Writes what can be without waiting, and lets go of clients that are done for.
    pub fn flush(&mut self) {
        for client in self.clients.values_mut() {
            client.flush();
        }
        self.clients.retain(|_, client| !client.is_done());
    }

    /// Tells whether there is more to read without waiting.
    pub fn wants_turn(&self) -> bool {
        let accepts = self.is_acceptable && self.accept_after.is_none();
        accepts || self.clients.values().any(Client::wants_turn)
    }

    /// When to call [`Self::handle_turn`] at the latest.
    pub const fn deadline(&self) -> Option<Instant> {
        self.accept_after
    }

    /// Tells everyone who still waits that nothing more comes, and removes the socket.
    pub fn close(mut self) {
        let unanswered: Vec<RequestId> = self.asked.keys().copied().collect();
        for id in unanswered {
            self.reply(id, Err(D::stopped()));
        }
        self.flush();
        if let Err(error) = fs::remove_file(&self.path) {
            log::debug!("cannot remove the socket: {error}");
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
                Err(error) if is_per_connection(&error) => {}
                Err(error) => {
                    self.failures
                        .on_failed("clients of the socket", &error, now);
                    self.accept_after = Some(now + ACCEPT_PAUSE);
                    return;
                }
            }
        }
    }

    fn admit(&mut self, stream: UnixStream, registry: &Registry) {
        let mut client = Client::new(stream);
        if self.clients.len() >= D::LIMITS.clients {
            let error = D::too_many("clients");
            client.queue(&Response::failed(Value::Null, error));
            client.flush();
            return;
        }
        let token = self.tokens.take();
        let interest = Interest::READABLE | Interest::WRITABLE;
        match registry.register(&mut client.stream, token, interest) {
            Ok(()) => {
                self.clients.insert(token, client);
            }
            Err(error) => log::warn!("cannot register an accepted client: {error}"),
        }
    }

    fn read(&mut self, token: Token, commands: &mut Vec<(RequestId, D::Command)>) {
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

    fn handle_line(
        &mut self,
        token: Token,
        line: &[u8],
        commands: &mut Vec<(RequestId, D::Command)>,
    ) {
        let is_full = self.asked.len() >= D::LIMITS.requests;
        let Some(client) = self.clients.get_mut(&token) else {
            return;
        };
        match Request::parse(line) {
            Ok(Request::Subscribe { id }) => {
                client.is_subscribed = true;
                if let (Some(id), Some(reply)) = (id, D::subscribed()) {
                    client.queue(&Response::result(id, reply));
                }
            }
            Ok(Request::Command { id, .. }) if is_full => {
                let error = D::too_many("requests");
                if let Some(id) = id {
                    client.queue(&Response::failed(id, error));
                }
            }
            Ok(Request::Command { id, command }) => {
                client.requests_open += 1;
                self.last_request += 1;
                let request = RequestId(self.last_request);
                self.asked.insert(request, Asked { client: token, id });
                commands.push((request, command));
            }
            Err(response) => client.queue(&*response),
        }
    }
}

/// One connection.
#[derive(Debug)]
struct Client<D> {
    stream: UnixStream,
    dialect: PhantomData<D>,
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

impl<D: Dialect> Client<D> {
    fn new(stream: UnixStream) -> Self {
        Self {
            stream,
            dialect: PhantomData,
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
        self.is_stalled = self.requests_open >= D::LIMITS.requests_per_client;
        if self.end == Some(End::Gone) || self.is_stalled {
            return None;
        }
        let open = &self.inbox[self.taken..];
        let Some(len) = open.iter().position(|byte| *byte == b'\n') else {
            if open.len() > D::LIMITS.request_len {
                self.refuse_line();
            }
            return None;
        };
        if len > D::LIMITS.request_len {
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
        let len_max = D::LIMITS.request_len;
        let message = format!("a line has more than the {len_max} bytes allowed");
        self.queue(&Response::refused(INVALID_REQUEST, message, Value::Null));
        self.end = Some(End::Draining);
    }

    fn queue(&mut self, response: &Response<D>) {
        self.queue_line(to_line(response), false);
    }

    fn queue_line(&mut self, bytes: Vec<u8>, is_event: bool) {
        let has_too_many = is_event && self.events_queued >= D::LIMITS.events;
        if has_too_many || self.outbox_len > D::LIMITS.outbox_len {
            log::warn!("a client of the socket reads too slowly and is dropped");
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
        let has_room = self.requests_open < D::LIMITS.requests_per_client;
        self.may_read() || (self.is_stalled && has_room)
    }

    /// The inbox never holds more than the longest line and what one turn reads: nothing is added as long
    /// as it may hold whole lines.
    const fn may_read(&self) -> bool {
        let has_room = self.requests_open < D::LIMITS.requests_per_client;
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

#[cfg(test)]
mod tests {
    use std::thread;

    use mio::{Events, Poll};

    use super::super::sample::{Command, Error, Reply, Sample};
    use super::super::{LineClient, Message};
    use super::*;
    use crate::os::clock::now;

    const LISTENER: Token = Token(0);
    const FIRST: Token = Token(8);

    /// Serves a socket in `folder` for as long as `clients` runs, on a thread of its own: to `status`
    /// there is never a reply, a history is empty, and nobody can log in.
    fn serve<T: Send + 'static>(
        folder: &Path,
        clients: impl FnOnce(&Path) -> T + Send + 'static,
    ) -> T {
        let path = folder.join("socket");
        let mut poll = Poll::new().unwrap();
        let tokens = Tokens::new(FIRST, 2);
        let mut server =
            LineServer::<Sample>::bind(&path, poll.registry(), LISTENER, tokens).unwrap();
        let thread = thread::spawn(move || clients(&path));
        let mut events = Events::with_capacity(16);
        while !thread.is_finished() {
            poll.poll(&mut events, Some(Duration::from_millis(1)))
                .unwrap();
            for event in &events {
                if event.token() == LISTENER {
                    server.note_acceptable();
                } else {
                    assert_eq!((event.token().0 - FIRST.0) % 2, 0);
                    server.note_readiness(event);
                }
            }
            for (id, command) in server.handle_turn(poll.registry(), now()) {
                match command {
                    Command::Status => {}
                    Command::History { .. } => server.reply(id, Ok(Reply::Texts(Vec::new()))),
                    Command::LogIn { .. } => server.reply(id, Err(Error::Nobody)),
                }
            }
            server.flush();
        }
        let path = server.path.clone();
        server.close();
        assert!(!path.exists());
        thread.join().unwrap()
    }

    fn connect(path: &Path) -> LineClient<Sample> {
        let client = LineClient::connect(path).unwrap();
        client.set_patience(Duration::from_secs(10)).unwrap();
        client
    }

    fn history() -> Command {
        let with = None;
        Command::History { with, limit: 1 }
    }

    #[test]
    fn calls_are_answered_wherever_the_socket_is() {
        let folder = tempfile::tempdir().unwrap();
        let deep = folder.path().join("x".repeat(200));
        fs::create_dir(&deep).unwrap();
        for folder in [folder.path(), &deep] {
            // As a process that was killed leaves it.
            fs::write(folder.join("socket"), b"").unwrap();
            serve(folder, |path| {
                let mode = fs::metadata(path).unwrap().permissions().mode();
                assert_eq!(mode & 0o777, FILE_MODE);
                let mut client = connect(path);
                let reply = client.call(&history()).unwrap();
                assert_eq!(reply, Ok(Reply::Texts(Vec::new())));
                let (account, password) = ("alice".to_owned(), "a password".to_owned());
                let refused = client.call(&Command::LogIn { account, password });
                assert_eq!(refused.unwrap(), Err(Error::Nobody));
            });
        }
    }

    #[test]
    fn t21_clients_have_a_bound_and_make_room_when_they_leave() {
        let folder = tempfile::tempdir().unwrap();
        serve(folder.path(), |path| {
            let mut clients = [(); Sample::LIMITS.clients].map(|()| connect(path));
            for client in &mut clients {
                assert!(client.call(&history()).unwrap().is_ok());
            }
            let refused = connect(path).call(&history()).unwrap();
            assert_eq!(refused, Err(Error::TooMany("clients".to_owned())));
            let [left, _others @ ..] = clients;
            drop(left);
            let mut tries = (0..1000).map(|_| connect(path).call(&history()));
            assert!(tries.any(|reply| matches!(reply, Ok(Ok(_)))), "no room");
        });
    }

    #[test]
    fn t20_requests_have_a_bound_of_all_clients_together() {
        let folder = tempfile::tempdir().unwrap();
        serve(folder.path(), |path| {
            let mut clients = [(); 3].map(|()| connect(path));
            let replies = clients.each_mut().map(|client| {
                // It never gets a reply; what the client asks after it shows that it was taken.
                client.send(&Command::Status).unwrap();
                client.call(&history()).unwrap()
            });
            let [Ok(_), Ok(_), Err(refused)] = replies else {
                panic!("{replies:?}");
            };
            assert_eq!(refused, Error::TooMany("requests".to_owned()));
        });
    }

    #[test]
    fn those_who_wait_are_told_when_the_server_ends() {
        let folder = tempfile::tempdir().unwrap();
        let mut client = serve(folder.path(), |path| {
            let mut client = connect(path);
            client.send(&Command::Status).unwrap();
            let id = client.send(&history()).unwrap();
            let mut reader = client.reader().unwrap();
            let reply = reader.next_message().unwrap();
            assert!(matches!(reply, Message::Reply(of, Ok(_)) if of == id));
            (client, reader)
        });
        let told = client.1.next_message().unwrap();
        assert!(
            matches!(told, Message::Reply(1, Err(Error::Nobody))),
            "{told:?}"
        );
        let error = client.1.next_message().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::UnexpectedEof);
    }

    #[test]
    fn a_folder_in_the_way_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        fs::create_dir(&path).unwrap();
        let poll = Poll::new().unwrap();
        let tokens = Tokens::new(FIRST, 1);
        let bound = LineServer::<Sample>::bind(&path, poll.registry(), LISTENER, tokens);
        bound.unwrap_err();
    }

    #[test]
    fn a_slow_client_is_dropped_at_the_bound_of_events() {
        let (near, _far) = UnixStream::pair().unwrap();
        let mut client = Client::<Sample>::new(near);
        client.is_writable = false;
        for _ in 0..Sample::LIMITS.events {
            client.queue_line(b"event\n".to_vec(), true);
        }
        assert!(!client.is_done());
        client.queue_line(b"event\n".to_vec(), true);
        assert!(client.is_done());
    }

    #[test]
    fn a_slow_client_is_dropped_at_the_bound_of_bytes() {
        let (near, _far) = UnixStream::pair().unwrap();
        let mut client = Client::<Sample>::new(near);
        client.is_writable = false;
        client.queue_line(vec![b'x'; Sample::LIMITS.outbox_len + 1], false);
        assert!(!client.is_done(), "one reply may be as large as it is");
        client.queue_line(b"x\n".to_vec(), false);
        assert!(client.is_done());
    }

    #[test]
    fn lines_are_cut_at_line_feeds_wherever_the_pieces_end() {
        let (near, _far) = UnixStream::pair().unwrap();
        let mut client = Client::<Sample>::new(near);
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
        let mut client = Client::<Sample>::new(near);
        far.write_all(b"one\ntwo\n").unwrap();
        client.receive();
        assert_eq!(client.next_line().unwrap(), b"one");
        client.requests_open = Sample::LIMITS.requests_per_client;
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
        let mut client = Client::<Sample>::new(near);
        client.inbox.extend_from_slice(b"hunter22\nnext\nre");
        assert_eq!(client.next_line().unwrap(), b"hunter22");
        assert_eq!(client.inbox, b"\0\0\0\0\0\0\0\0\nnext\nre");
        assert_eq!(client.next_line().unwrap(), b"next");
        client.compact();
        assert_eq!(client.inbox, b"re");
        assert_eq!(client.next_line(), None);
    }
}
