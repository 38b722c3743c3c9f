//! An engine with its store and threads, and peers that talk to it: real OPAQUE, no I/O.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use common::id::{AccountName, DeviceName};
use common::key::{ChannelBinding, DeviceKey, DeviceSecret, Role, Statement, Token};
use common::limits::CONTROL_FRAME_LEN_MAX;
use common::password::{
    ClientLogin, ClientRegistration, Password, PasswordRecord, STRETCH_CURRENT, ServerSetup,
    make_record,
};
use common::time::{Epoch, UnixTime};
use common::wire::frame;
use common::wire::rendezvous::{
    AdmissionCode, Answer, ByeReason, Change, Cursor, DevicePush, DirectoryAnswer, DirectoryPush,
    DirectoryRequest, DirectoryVersion, Entry, FailedLogins, Hello, HelloAnswer, LoggedIn,
    LoginAnswer, LoginRequest, LoginStart, OpaqueMessage, Push, Refusal, RelayDatagrams, Request,
    RequestFrame, RequestId, ServerFrame, Status, TokenLogin,
};
use rendezvous::relay::{self, ControlId, Relay, TrafficLimits};
use rendezvous::server::logins::lockout::BucketKey;
use rendezvous::server::{
    CloseReason, Command, CommandId, ConnectionId, Frame, Input, Output, RelayCommand, Reply,
    Server, ServerOptions, Ticket,
};
use rendezvous::store::memory::MemoryStore;
use rendezvous::store::{
    AccountsAnswer, AccountsRequest, Device, DevicesAnswer, DevicesRequest, LockoutRow, Lookup,
    Restored, Store, StoreAnswer, StoreError, StoreRequest, Subject,
};
use zeroize::Zeroizing;

/// Where an owner usually is.
pub(crate) const HOME: &str = "198.51.100.1:40000";
/// Where an attacker usually is.
pub(crate) const AWAY: &str = "203.0.113.9:40000";
/// The password of every account.
pub(crate) const PASSWORD: &str = "correct horse";

pub(crate) struct World {
    pub(crate) server: Server,
    pub(crate) store: MemoryStore,
    pub(crate) now: Instant,
    pub(crate) wall: UnixTime,
    pub(crate) options: ServerOptions,
    pub(crate) last_connection: u64,
    pub(crate) last_request: u32,
    pub(crate) sources: BTreeMap<ConnectionId, SocketAddr>,
    pub(crate) inboxes: BTreeMap<ConnectionId, VecDeque<ServerFrame>>,
    pub(crate) greetings: BTreeMap<ConnectionId, HelloAnswer>,
    pub(crate) closed: BTreeMap<ConnectionId, CloseReason>,
    pub(crate) replies: VecDeque<Reply>,
    pub(crate) clients: BTreeMap<ConnectionId, ClientLogin>,
    pub(crate) decisions: Vec<String>,
    pub(crate) hold_store: bool,
    pub(crate) hold_jobs: bool,
    pub(crate) store_fails: bool,
    pub(crate) relay: Relay,
    pub(crate) held: VecDeque<(Ticket, StoreRequest)>,
    pub(crate) jobs: VecDeque<(Ticket, rendezvous::server::Job)>,
}

pub(crate) struct Listed {
    pub(crate) version: DirectoryVersion,
    pub(crate) entries: Vec<Entry>,
    pub(crate) pages: usize,
}

impl World {
    pub(crate) fn new() -> Self {
        Self::with(|_| {})
    }

    #[expect(clippy::disallowed_methods, reason = "any instant will do as a start")]
    pub(crate) fn with(choose: impl FnOnce(&mut ServerOptions)) -> Self {
        static START: OnceLock<Instant> = OnceLock::new();
        let now = *START.get_or_init(|| Instant::now() + Duration::from_secs(100_000));
        let wall = UnixTime::from_millis(1_700_000_000_000);
        let mut options = ServerOptions::new(BucketKey([9; 32]));
        choose(&mut options);
        let epoch = Epoch::new(now, wall);
        let server = Server::new([5; 32], now, epoch, options.clone(), Restored::default());
        Self {
            server,
            store: MemoryStore::new(),
            now,
            wall,
            options,
            last_connection: 0,
            last_request: 0,
            sources: BTreeMap::new(),
            inboxes: BTreeMap::new(),
            greetings: BTreeMap::new(),
            closed: BTreeMap::new(),
            replies: VecDeque::new(),
            clients: BTreeMap::new(),
            decisions: Vec::new(),
            hold_store: false,
            hold_jobs: false,
            store_fails: false,
            relay: Relay::new([7; 32], TrafficLimits::default(), now),
            held: VecDeque::new(),
            jobs: VecDeque::new(),
        }
    }

    /// As after a crash: only the store is left, and time has passed.
    pub(crate) fn restart(&mut self, down: Duration) {
        self.wall = self.wall.saturating_add(down);
        self.now += down;
        let epoch = Epoch::new(self.now, self.wall);
        let restored = self.store.restore().unwrap();
        let options = self.options.clone();
        self.server = Server::new([6; 32], self.now, epoch, options, restored);
        self.inboxes.clear();
    }

    pub(crate) fn input(&mut self, input: Input) {
        self.server.handle_input(input, self.now);
        self.pump();
    }

    pub(crate) fn pump(&mut self) {
        loop {
            let output = self.server.poll_output(self.now);
            self.decisions.push(format!("{output:?}"));
            match output {
                Output::Send { connection, frame } => match frame {
                    Frame::Greeting(greeting) => {
                        self.greetings.insert(connection, greeting);
                    }
                    Frame::Server(frame) => {
                        let inbox = self.inboxes.entry(connection).or_default();
                        inbox.push_back(Arc::unwrap_or_clone(frame));
                    }
                },
                Output::Close { connection, why } => {
                    assert!(
                        self.closed.insert(connection, why).is_none(),
                        "closed twice"
                    );
                }
                Output::Store { ticket, request } => {
                    if self.hold_store {
                        self.held.push_back((ticket, request));
                    } else {
                        let answer = self.execute(&request);
                        let input = Input::Stored { ticket, answer };
                        self.server.handle_input(input, self.now);
                    }
                }
                Output::Compute { ticket, job } => {
                    self.jobs.push_back((ticket, job));
                    if !self.hold_jobs {
                        self.start_jobs();
                    }
                }
                Output::Relay(command) => self.relay(command),
                Output::ToRelay {
                    connection,
                    datagrams,
                } => self.pass_to_relay(connection, datagrams),
                Output::Reply { reply, .. } => self.replies.push_back(reply),
                Output::Wait(_) => return,
            }
        }
    }

    fn relay(&mut self, command: RelayCommand) {
        match command {
            RelayCommand::Allocate(id, account) => {
                assert!(self.relay.allocate(id, account, self.now));
            }
            RelayCommand::Free(id) => self.relay.free(id),
            RelayCommand::Open(channel) => assert!(self.relay.open(channel, self.now)),
        }
    }

    fn pass_to_relay(&mut self, connection: ConnectionId, datagrams: RelayDatagrams) {
        let RelayDatagrams { stride, mut bytes } = datagrams;
        let (from, mut outputs) = (ControlId(connection.0), Vec::new());
        self.relay
            .handle_control(from, &mut bytes, stride.into(), self.now, &mut outputs);
        for output in outputs {
            match output {
                relay::Output::Answer(answer) => self.tell_control(connection, answer),
                output @ (relay::Output::AnswerFromOther(_) | relay::Output::Forward { .. }) => {
                    panic!("{output:?}")
                }
                relay::Output::ForwardToControl { to, part, .. } => {
                    self.tell_control(ConnectionId(to.0), bytes[part].to_vec());
                }
            }
        }
    }

    /// The relay has a datagram for a control connection.
    pub(crate) fn tell_control(&mut self, connection: ConnectionId, bytes: Vec<u8>) {
        let stride = u16::try_from(bytes.len()).unwrap();
        let datagrams = RelayDatagrams { stride, bytes };
        let input = Input::FromRelay {
            connection,
            datagrams,
        };
        self.server.handle_input(input, self.now);
    }

    pub(crate) fn start_jobs(&mut self) {
        while let Some((ticket, job)) = self.jobs.pop_front() {
            let outcome = job.run(setup());
            let input = Input::Computed { ticket, outcome };
            self.server.handle_input(input, self.now);
        }
    }

    pub(crate) fn run_jobs(&mut self) {
        self.hold_jobs = false;
        self.start_jobs();
        self.pump();
    }

    pub(crate) fn execute(&mut self, request: &StoreRequest) -> Result<StoreAnswer, StoreError> {
        if self.store_fails {
            return Err(StoreError::DiskFull);
        }
        let batch = std::slice::from_ref(request);
        self.store.execute(batch).pop().unwrap()
    }

    pub(crate) fn answer_store(&mut self, (ticket, request): (Ticket, StoreRequest)) {
        let answer = self.execute(&request);
        self.input(Input::Stored { ticket, answer });
    }

    /// Lets time pass, stopping at every deadline on the way.
    pub(crate) fn advance(&mut self, span: Duration) {
        let end = self.now + span;
        loop {
            let Output::Wait(deadline) = self.server.poll_output(self.now) else {
                panic!("everything is drained");
            };
            match deadline {
                Some(deadline) if deadline.at <= end => self.now = deadline.at.max(self.now),
                Some(_) | None => break,
            }
            self.server.handle_timeout(self.now);
            self.pump();
        }
        let passed = span;
        self.wall = self.wall.saturating_add(passed);
        self.now = end;
        self.relay.handle_timeout(end);
        while let Some(channel) = self.relay.poll_closed() {
            self.input(Input::ChannelClosed { channel });
        }
    }

    // ---- connections -------------------------------------------------------------------------

    pub(crate) fn accept_only(&mut self, source: &str) -> ConnectionId {
        self.last_connection += 1;
        let connection = ConnectionId(self.last_connection);
        let source = addr(source);
        self.sources.insert(connection, source);
        self.input(Input::Accepted { connection, source });
        connection
    }

    pub(crate) fn accept(&mut self, source: &str) -> ConnectionId {
        self.last_connection += 1;
        let connection = ConnectionId(self.last_connection);
        let source = addr(source);
        let channel_binding = self.channel_binding(connection);
        self.sources.insert(connection, source);
        self.input(Input::Connected {
            connection,
            source,
            channel_binding,
        });
        connection
    }

    pub(crate) fn connect(&mut self, source: &str) -> ConnectionId {
        let connection = self.accept(source);
        let hello = Hello::ours("test");
        self.input(Input::Greeted { connection, hello });
        let greeting = self.greetings.get(&connection);
        assert!(matches!(
            greeting,
            Some(HelloAnswer::Welcome { version: 1, .. })
        ));
        connection
    }

    pub(crate) fn disconnect(&mut self, connection: ConnectionId) {
        self.input(Input::Disconnected { connection });
    }

    pub(crate) fn channel_binding(&self, connection: ConnectionId) -> ChannelBinding {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&connection.0.to_be_bytes());
        ChannelBinding(bytes)
    }

    pub(crate) fn send(
        &mut self,
        connection: ConnectionId,
        request: impl Into<Request>,
    ) -> RequestId {
        self.last_request += 1;
        let id = RequestId(self.last_request);
        let frame = RequestFrame {
            id,
            request: request.into(),
        };
        self.input(Input::Requested { connection, frame });
        id
    }

    /// Hands over the body of a frame as it came, as the shell does.
    pub(crate) fn receive(&mut self, connection: ConnectionId, body: &[u8]) {
        let input = match frame::decode::<CONTROL_FRAME_LEN_MAX, RequestFrame>(body) {
            Ok(frame) => Input::Requested { connection, frame },
            Err(_) => Input::Malformed { connection },
        };
        self.input(input);
    }

    /// Asks, and takes the answer out of the inbox.
    pub(crate) fn ask(&mut self, connection: ConnectionId, request: impl Into<Request>) -> Answer {
        let asked = self.send(connection, request);
        let inbox = self.inboxes.entry(connection).or_default();
        let position = inbox
            .iter()
            .position(|frame| matches!(frame, ServerFrame::Answer { id, .. } if *id == asked));
        let Some(ServerFrame::Answer { answer, .. }) =
            position.and_then(|position| inbox.remove(position))
        else {
            panic!("not answered; inbox {inbox:?}, closed {:?}", self.closed);
        };
        answer
    }

    pub(crate) fn take_answer(&mut self, connection: ConnectionId) -> Answer {
        match self.inboxes.entry(connection).or_default().pop_front() {
            Some(ServerFrame::Answer { answer, .. }) => answer,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn inbox(&self, connection: ConnectionId) -> VecDeque<ServerFrame> {
        self.inboxes.get(&connection).cloned().unwrap_or_default()
    }

    pub(crate) fn bye(&self, connection: ConnectionId) -> Option<ByeReason> {
        assert!(self.closed.contains_key(&connection));
        match self.inbox(connection).back() {
            Some(ServerFrame::Push(Push::Bye(reason))) => Some(*reason),
            _ => None,
        }
    }

    pub(crate) fn failed_pushes(&mut self, connection: ConnectionId) -> Vec<u32> {
        let inbox = self.inboxes.remove(&connection).unwrap_or_default();
        let counts = inbox.into_iter().map(|frame| {
            let ServerFrame::Push(Push::Device(DevicePush::FailedLogins(FailedLogins {
                count,
                ..
            }))) = frame
            else {
                panic!("{frame:?}");
            };
            count
        });
        counts.collect()
    }

    pub(crate) fn changes(&mut self, connection: ConnectionId) -> (DirectoryVersion, Vec<Change>) {
        let inbox = self.inboxes.remove(&connection).unwrap_or_default();
        let mut all = Vec::new();
        let mut last = None;
        for frame in inbox {
            let ServerFrame::Push(Push::Directory(DirectoryPush::Presence { version, changes })) =
                frame
            else {
                panic!("{frame:?}");
            };
            all.extend(changes);
            last = Some(version);
        }
        (last.expect("something changed"), all)
    }

    // ---- accounts ----------------------------------------------------------------------------

    pub(crate) fn command(&mut self, command: Command) -> Reply {
        let id = CommandId(1);
        self.input(Input::Commanded { id, command });
        self.replies.pop_front().expect("every command is answered")
    }

    /// Makes an account with [`PASSWORD`], if it is not there.
    pub(crate) fn add(&mut self, account: &str) {
        let record = record(account);
        let account = name(account);
        let reply = self.command(Command::AddAccount { account, record });
        assert!(matches!(reply, Reply::Done | Reply::Exists), "{reply:?}");
    }

    /// Makes an account with a device, as a log-in would have.
    pub(crate) fn enrolled(&mut self, account: &str, number: u8) -> DeviceSecret {
        self.token(account, number).0
    }

    pub(crate) fn token(&mut self, account: &str, number: u8) -> (DeviceSecret, Token) {
        self.add(account);
        let (secret, token) = (device(number), Token::from_bytes([number; 32]));
        self.enrol(account, secret.public(), &token);
        (secret, token)
    }

    pub(crate) fn enrol(&mut self, account: &str, device_key: DeviceKey, token: &Token) {
        let load = StoreRequest::Accounts(AccountsRequest::Load {
            account: name(account),
            device_key: Some(device_key),
        });
        let Ok(StoreAnswer::Accounts(AccountsAnswer::Loaded(Lookup {
            account: Some(loaded),
            ..
        }))) = self.execute(&load)
        else {
            panic!("no account");
        };
        let subject = Subject::Account(name(account));
        let enrol = StoreRequest::Devices(DevicesRequest::Enrol {
            id: loaded.id,
            device: Device {
                key: device_key,
                name: DeviceName::lossy("laptop"),
                token_hash: token.hash(),
                token_before: None,
                token_issued: self.wall,
            },
            lockout: LockoutRow::empty(subject),
        });
        assert!(matches!(
            self.execute(&enrol),
            Ok(StoreAnswer::Devices(DevicesAnswer::Enrolled { .. }))
        ));
    }

    /// A session that is logged in.
    pub(crate) fn member(&mut self, account: &str, number: u8, source: &str) -> ConnectionId {
        let (secret, token) = self.token(account, number);
        let connection = self.connect(source);
        let answer = self.token_login(connection, account, &secret, token);
        assert!(
            matches!(answer, Answer::Login(LoginAnswer::LoggedIn(_))),
            "{answer:?}"
        );
        connection
    }

    /// A session that is in the directory.
    pub(crate) fn online(&mut self, account: &str, number: u8) -> ConnectionId {
        let connection = self.member(account, number, HOME);
        self.announce(connection, Status::Available);
        connection
    }

    pub(crate) fn online_with_token(&mut self, number: u16) -> ConnectionId {
        let account = format!("user{:03}", number / 4);
        let command = Command::AddAccount {
            account: name(&account),
            record: record("alice"),
        };
        self.command(command);
        let mut seed = [1; 32];
        seed[..2].copy_from_slice(&number.to_be_bytes());
        let (secret, token) = (DeviceSecret::from_seed(seed), Token::from_bytes(seed));
        self.enrol(&account, secret.public(), &token);
        let connection = self.connect(HOME);
        let answer = self.token_login(connection, &account, &secret, token);
        assert!(
            matches!(answer, Answer::Login(LoginAnswer::LoggedIn(_))),
            "{answer:?}"
        );
        self.announce(connection, Status::Available);
        connection
    }

    pub(crate) fn announce(&mut self, connection: ConnectionId, status: Status) {
        let candidates = vec![addr("192.0.2.1:4000")];
        let announce = Request::Directory(DirectoryRequest::Announce { status, candidates });
        assert_eq!(self.ask(connection, announce), DirectoryAnswer::Done.into());
    }

    pub(crate) fn list(&mut self, connection: ConnectionId) -> Listed {
        let (mut entries, mut pages, mut first) = (Vec::new(), 0, None);
        let mut after: Option<Cursor> = None;
        loop {
            let answer = self.ask(connection, DirectoryRequest::List { after });
            let Answer::Directory(DirectoryAnswer::Page {
                version,
                entries: page,
                next,
            }) = answer
            else {
                panic!("{answer:?}");
            };
            entries.extend(page);
            pages += 1;
            let version = *first.get_or_insert(version);
            if next.is_none() {
                return Listed {
                    version,
                    entries,
                    pages,
                };
            }
            after = next;
        }
    }

    /// Uses up an account's attempts, from a source of its own.
    pub(crate) fn block(&mut self, account: &str) {
        let c = self.connect("192.0.2.250:9");
        for _ in 0..5 {
            self.login_start(c, account, &device(250), None);
        }
        self.disconnect(c);
    }

    pub(crate) fn failures(&mut self, account: &str) -> u32 {
        let rows = self.store.restore().unwrap().lockouts;
        let subject = Subject::Account(name(account));
        let row = rows.into_iter().find(|row| row.subject == subject);
        row.map_or(0, |row| {
            row.strangers.failures.iter().map(|(_, count)| count).sum()
        })
    }

    // ---- log-in ------------------------------------------------------------------------------

    pub(crate) fn register_start(
        &mut self,
        connection: ConnectionId,
        account: &str,
        text: &str,
    ) -> (ClientRegistration, OpaqueMessage) {
        let (client, message) = ClientRegistration::start(&password(text), [3; 32]);
        let answer = self.ask(connection, register_start(account, message));
        let Answer::Login(LoginAnswer::RegisterChallenge { message }) = answer else {
            panic!("{answer:?}");
        };
        (client, message)
    }

    pub(crate) fn register_finish(
        &mut self,
        connection: ConnectionId,
        account: &str,
        (client, challenge): (ClientRegistration, OpaqueMessage),
    ) -> Answer {
        let upload = client.finish(&name(account), &challenge).unwrap();
        self.ask(
            connection,
            LoginRequest::RegisterFinish {
                upload,
                stretch: STRETCH_CURRENT,
            },
        )
    }

    pub(crate) fn register(
        &mut self,
        connection: ConnectionId,
        account: &str,
        text: &str,
    ) -> Answer {
        let started = self.register_start(connection, account, text);
        self.register_finish(connection, account, started)
    }

    pub(crate) fn start_message(
        &mut self,
        connection: ConnectionId,
        account: &str,
        secret: &DeviceSecret,
        code: Option<AdmissionCode>,
    ) -> LoginStart {
        let (client, start) = start_message(
            &self.channel_binding(connection),
            account,
            secret,
            code,
            PASSWORD,
        );
        self.clients.insert(connection, client);
        start
    }

    pub(crate) fn login_start(
        &mut self,
        connection: ConnectionId,
        account: &str,
        secret: &DeviceSecret,
        code: Option<AdmissionCode>,
    ) -> Answer {
        let start = self.start_message(connection, account, secret, code);
        self.ask(connection, LoginRequest::LoginStart(start))
    }

    pub(crate) fn ke3(
        &mut self,
        connection: ConnectionId,
        account: &str,
        started: Answer,
    ) -> OpaqueMessage {
        let Answer::Login(LoginAnswer::LoginChallenge { ke2, stretch }) = started else {
            panic!("{started:?}");
        };
        let client = self.clients.remove(&connection).unwrap();
        let channel_binding = self.channel_binding(connection);
        client
            .finish(&name(account), &ke2, stretch, &channel_binding)
            .unwrap()
    }

    pub(crate) fn finish(
        &mut self,
        connection: ConnectionId,
        account: &str,
        started: Answer,
    ) -> Answer {
        let ke3 = self.ke3(connection, account, started);
        self.ask(connection, LoginRequest::LoginFinish { ke3 })
    }

    pub(crate) fn log_in(
        &mut self,
        connection: ConnectionId,
        account: &str,
        secret: &DeviceSecret,
    ) -> LoggedIn {
        let started = self.login_start(connection, account, secret, None);
        let answer = self.finish(connection, account, started);
        let Answer::Login(LoginAnswer::LoggedIn(logged_in)) = answer else {
            panic!("{answer:?}");
        };
        logged_in
    }

    /// Goes through with a password that may be wrong: the client notices, and guesses KE3.
    pub(crate) fn try_password(
        &mut self,
        connection: ConnectionId,
        account: &str,
        secret: &DeviceSecret,
        text: &str,
    ) -> Answer {
        let channel_binding = self.channel_binding(connection);
        let (client, start) = start_message(&channel_binding, account, secret, None, text);
        let answer = self.ask(connection, LoginRequest::LoginStart(start));
        let Answer::Login(LoginAnswer::LoginChallenge { ke2, stretch }) = answer else {
            panic!("{answer:?}");
        };
        assert!(
            client
                .finish(&name(account), &ke2, stretch, &channel_binding)
                .is_err()
        );
        let ke3 = OpaqueMessage::try_from(vec![7; 64]).unwrap();
        self.ask(connection, LoginRequest::LoginFinish { ke3 })
    }

    pub(crate) fn token_message(
        &self,
        connection: ConnectionId,
        account: &str,
        secret: &DeviceSecret,
        token: Token,
    ) -> TokenLogin {
        let account = name(account);
        let signature = secret.sign(&Statement {
            role: Role::TokenLogin,
            channel_binding: &self.channel_binding(connection),
            account: &account,
            content: token.as_bytes(),
        });
        TokenLogin {
            account,
            device_key: secret.public(),
            token,
            signature,
        }
    }

    pub(crate) fn token_login(
        &mut self,
        connection: ConnectionId,
        account: &str,
        secret: &DeviceSecret,
        token: Token,
    ) -> Answer {
        let message = self.token_message(connection, account, secret, token);
        self.ask(connection, LoginRequest::TokenLogin(message))
    }
}

pub(crate) fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

pub(crate) fn name(text: &str) -> AccountName {
    text.parse().unwrap()
}

pub(crate) fn device(number: u8) -> DeviceSecret {
    DeviceSecret::from_seed([number; 32])
}

pub(crate) fn password(text: &str) -> Password {
    Password::new(Zeroizing::new(text.to_owned())).unwrap()
}

pub(crate) const fn refused(refusal: Refusal) -> Answer {
    Answer::Refused(refusal)
}

pub(crate) fn find(account: &str) -> Request {
    let account = name(account);
    Request::Directory(DirectoryRequest::Find { account })
}

pub(crate) fn register_start(account: &str, message: OpaqueMessage) -> Request {
    let account = name(account);
    Request::Login(LoginRequest::RegisterStart { account, message })
}

/// The body of a frame with this request.
pub(crate) fn body_of(request: Request) -> Vec<u8> {
    let id = RequestId(0);
    let mut bytes = Vec::new();
    let frame = RequestFrame { id, request };
    frame::encode::<CONTROL_FRAME_LEN_MAX>(&frame, &mut bytes).unwrap();
    bytes.split_off(frame::PREFIX_LEN)
}

pub(crate) fn login_start(
    channel_binding: &ChannelBinding,
    account: &str,
    secret: &DeviceSecret,
    code: Option<AdmissionCode>,
) -> Request {
    Request::Login(LoginRequest::LoginStart(
        start_message(channel_binding, account, secret, code, PASSWORD).1,
    ))
}

pub(crate) fn start_message(
    channel_binding: &ChannelBinding,
    account: &str,
    secret: &DeviceSecret,
    code: Option<AdmissionCode>,
    text: &str,
) -> (ClientLogin, LoginStart) {
    let account = name(account);
    let (client, ke1) = ClientLogin::start(&password(text), [4; 32]);
    let signature = secret.sign(&Statement {
        role: Role::PasswordLogin,
        channel_binding,
        account: &account,
        content: ke1.as_bytes(),
    });
    let start = LoginStart {
        account,
        device_key: secret.public(),
        device_name: DeviceName::lossy("laptop"),
        ke1,
        signature,
        code,
    };
    (client, start)
}

pub(crate) fn online_names(changes: &[Change]) -> Vec<&str> {
    let names = changes.iter().map(|change| match change {
        Change::Online(entry) => entry.account.as_str(),
        Change::Offline { .. } => "offline",
    });
    names.collect()
}

pub(crate) fn setup() -> &'static ServerSetup {
    static SETUP: OnceLock<ServerSetup> = OnceLock::new();
    SETUP.get_or_init(|| ServerSetup::generate([3; 32]))
}

/// The record of [`PASSWORD`], made once for each account: stretching takes a while.
pub(crate) fn record(account: &str) -> PasswordRecord {
    static RECORDS: OnceLock<std::sync::Mutex<BTreeMap<String, PasswordRecord>>> = OnceLock::new();
    assert_eq!(STRETCH_CURRENT.0, 1);
    let mut records = RECORDS.get_or_init(Default::default).lock().unwrap();
    records
        .entry(account.to_owned())
        .or_insert_with(|| fresh_record(account, [8; 32]))
        .clone()
}

/// A record of [`PASSWORD`] that `seed` made.
pub(crate) fn fresh_record(account: &str, seed: [u8; 32]) -> PasswordRecord {
    make_record(setup(), &name(account), &password(PASSWORD), seed).unwrap()
}
