//! The server's engine, with any clients, store and operator.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use common::id::{AccountName, DeviceName};
use common::key::{ChannelBinding, DeviceSecret, Role, Signature, Statement, Token};
use common::limits::{
    CANDIDATES_MAX, CONTROL_FRAME_LEN_MAX, ENROLMENTS_UNTOLD_MAX, LOGINS_IN_PROGRESS_MAX,
};
use common::password::{
    ChallengeError, ClientLogin, ClientRegistration, Password, PasswordError, PasswordRecord,
    STRETCH_CURRENT, ServerSetup, make_record,
};
use common::time::{Epoch, UnixTime};
use common::wire::frame;
use common::wire::rendezvous::{
    AdmissionCode, Answer, Cursor, DeviceRequest, DirectoryRequest, DirectoryVersion, Hello,
    IdentityRequest, IntroductionRequest, LoginAnswer, LoginRequest, LoginStart, OpaqueMessage,
    Push, RelayDatagrams, Request, RequestFrame, RequestId, ServerFrame, Status, StretchVersion,
    TokenLogin,
};
use rendezvous::relay::{Relay, TrafficLimits};
use rendezvous::server::logins::lockout::BucketKey;
use rendezvous::server::{
    Command, CommandId, ConnectionId, Frame, Input, Job, Outcome, Output, RelayCommand, Server,
    ServerOptions, Ticket,
};
use rendezvous::store::memory::MemoryStore;
use rendezvous::store::{
    AccountsAnswer, AccountsRequest, Device, DevicesRequest, LockoutRow, Lookup, Store,
    StoreAnswer, StoreError, StoreRequest, Subject,
};
use zeroize::Zeroizing;

use super::account::any_entry;
use super::beginning;
use super::feed::Feed;

/// Inputs of one run.
const INPUTS_MAX: usize = 400;
/// Outputs of one input: each connection gets a few frames, and each waiting piece of work ends.
const OUTPUTS_MAX: usize = 20_000;
/// Deadlines of one moment.
const ROUNDS_MAX: usize = 8;
/// Clients of one run.
const CONNECTIONS_MAX: usize = 64;

pub(super) fn server_engine(bytes: &[u8]) {
    let mut feed = Feed(bytes);
    let mut run = Run::new();
    for _ in 0..INPUTS_MAX {
        if feed.is_empty() {
            break;
        }
        run.step(&mut feed);
    }
    run.finish();
}

// ---- what all runs share -----------------------------------------------------------------------

/// Accounts that exist; each has one device, with the number of the account.
const ACCOUNTS: [&str; 2] = ["alice", "bob"];

/// What takes long to make.
struct Kept {
    setup: ServerSetup,
    store: MemoryStore,
    /// The record of every account, and the upload that it was made of.
    record: PasswordRecord,
    upload: OpaqueMessage,
    /// The first message of a log-in and of a registration.
    ke1: OpaqueMessage,
    register: OpaqueMessage,
}

fn kept() -> &'static Kept {
    static KEPT: OnceLock<Kept> = OnceLock::new();
    KEPT.get_or_init(|| {
        let setup = ServerSetup::generate([3; 32]);
        let password = Zeroizing::new("correct horse battery staple".to_owned());
        let password = Password::new(password).expect("it is long enough");
        // One record does for all: nobody logs in with the password to the end.
        let record = make_record(&setup, &account(0), &password, [8; 32]).expect("memory");
        let upload = record.as_bytes()[..192].to_vec();
        let upload = OpaqueMessage::try_from(upload).expect("it is within the bound");
        let mut store = MemoryStore::new();
        for n in 0..ACCOUNTS.len() {
            enrol(&mut store, n, &record);
        }
        Kept {
            setup,
            store,
            record,
            upload,
            ke1: ClientLogin::start(&password, [5; 32]).1,
            register: ClientRegistration::start(&password, [6; 32]).1,
        }
    })
}

fn enrol(store: &mut MemoryStore, n: usize, record: &PasswordRecord) {
    let create = StoreRequest::Accounts(AccountsRequest::Create {
        account: account(n),
        record: record.clone(),
        stretch: STRETCH_CURRENT,
        at: UnixTime::from_millis(START_MS),
    });
    let load = StoreRequest::Accounts(AccountsRequest::Load {
        account: account(n),
        device_key: Some(secret(n).public()),
    });
    let answers = store.execute(&[create, load]);
    let Some(Ok(StoreAnswer::Accounts(AccountsAnswer::Loaded(Lookup {
        account: Some(loaded),
        ..
    })))) = answers.last()
    else {
        unreachable!("the account was just made");
    };
    let enrolled = store.execute(&[StoreRequest::Devices(DevicesRequest::Enrol {
        id: loaded.id,
        device: Device {
            key: secret(n).public(),
            name: DeviceName::lossy("fuzzed"),
            token_hash: token(n).hash(),
            token_before: None,
            token_issued: UnixTime::from_millis(START_MS),
        },
        lockout: LockoutRow::empty(Subject::Account(account(n))),
    })]);
    assert_eq!(enrolled.len(), 1);
}

const START_MS: u64 = 1_700_000_000_000;

fn account(n: usize) -> AccountName {
    let name = ACCOUNTS.get(n).copied().unwrap_or("nobody");
    name.parse().expect("a plain name")
}

fn secret(n: usize) -> DeviceSecret {
    DeviceSecret::from_seed([n as u8 + 1; 32])
}

const fn token(n: usize) -> Token {
    Token::from_bytes([n as u8 + 1; 32])
}

// ---- a run -------------------------------------------------------------------------------------

struct Run {
    server: Server,
    relay: Relay,
    store: MemoryStore,
    now: Instant,
    connections: BTreeMap<ConnectionId, Client>,
    last_connection: u64,
    orders: Vec<(Ticket, StoreRequest)>,
    jobs: Vec<(Ticket, Job)>,
    commands: BTreeSet<CommandId>,
    last_command: u64,
    /// Proofs that were good: no more log-ins may succeed.
    proofs: usize,
    logged_in: usize,
}

/// A connection as its client sees it.
struct Client {
    channel: ChannelBinding,
    is_connected: bool,
    has_greeted: bool,
    is_member: bool,
    /// Closed by either side.
    is_over: bool,
    last_request: u32,
    /// Requests without an answer.
    open: BTreeMap<RequestId, Asked>,
}

/// As much of a request as its answer depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    /// May be answered with `Done` although nobody is logged in.
    Registration,
    Other,
}

impl Run {
    fn new() -> Self {
        let now = beginning();
        let epoch = Epoch::new(now, UnixTime::from_millis(START_MS));
        let options = ServerOptions::new(BucketKey([9; 32]));
        let mut store = kept().store.clone();
        let restored = store.restore().expect("a store in memory does not fail");
        Self {
            server: Server::new([4; 32], now, epoch, options, restored),
            relay: Relay::new([6; 32], TrafficLimits::default(), now),
            store,
            now,
            connections: BTreeMap::new(),
            last_connection: 0,
            orders: Vec::new(),
            jobs: Vec::new(),
            commands: BTreeSet::new(),
            last_command: 0,
            proofs: 0,
            logged_in: 0,
        }
    }

    fn step(&mut self, feed: &mut Feed<'_>) {
        match feed.below(16) {
            0 => self.accept(feed),
            1 => self.connect(feed),
            2 => self.greet(feed),
            3 => self.request_raw(feed),
            4 => self.log_in_with_token(feed),
            5..=7 => self.request(feed),
            8..=10 => self.answer_store(feed),
            11 | 12 => self.answer_job(feed),
            13 => self.pass(feed),
            14 => self.leave(feed),
            _ => self.command(feed),
        }
    }

    // ---- clients -------------------------------------------------------------------------------

    fn new_connection(&mut self, feed: &mut Feed<'_>) -> Option<(ConnectionId, SocketAddr)> {
        if self.connections.len() >= CONNECTIONS_MAX {
            return None;
        }
        self.last_connection += 1;
        let id = ConnectionId(self.last_connection);
        let mut channel = [0; 32];
        channel[..8].copy_from_slice(&id.0.to_be_bytes());
        let client = Client {
            channel: ChannelBinding(channel),
            is_connected: false,
            has_greeted: false,
            is_member: false,
            is_over: false,
            last_request: 0,
            open: BTreeMap::new(),
        };
        self.connections.insert(id, client);
        Some((id, SocketAddr::from(([192, 0, 2, feed.byte()], 40_000))))
    }

    fn accept(&mut self, feed: &mut Feed<'_>) {
        if let Some((connection, source)) = self.new_connection(feed) {
            self.input(Input::Accepted { connection, source });
        }
    }

    /// The handshake of a connection is complete; sometimes its greeting comes along.
    fn connect(&mut self, feed: &mut Feed<'_>) {
        let shaking = self
            .connections
            .iter()
            .find(|(_, client)| !client.is_connected && !client.is_over);
        let waits = shaking.map(|(id, _)| *id).filter(|_| feed.flag());
        let (connection, source) = match waits {
            Some(id) => (id, SocketAddr::from(([192, 0, 2, 1], 40_000))),
            None => match self.new_connection(feed) {
                Some(new) => new,
                None => return,
            },
        };
        let client = self.connections.get_mut(&connection).expect("it is there");
        client.is_connected = true;
        let channel = client.channel;
        self.input(Input::Connected {
            connection,
            source,
            channel_binding: channel,
        });
        if feed.flag() {
            self.send_greeting(connection, Hello::ours("fuzz"));
        }
    }

    fn greet(&mut self, feed: &mut Feed<'_>) {
        let Some(connection) = self.choose(feed) else {
            return;
        };
        let hello = match feed.below(4) {
            0 => Hello {
                versions: feed.take(20).iter().map(|v| u16::from(*v)).collect(),
                agent: feed.text(),
            },
            _ => Hello::ours("fuzz"),
        };
        self.send_greeting(connection, hello);
    }

    fn send_greeting(&mut self, connection: ConnectionId, hello: Hello) {
        let client = self.connections.get_mut(&connection).expect("it is there");
        client.has_greeted = true;
        self.input(Input::Greeted { connection, hello });
    }

    /// A connection whose handshake is complete and that has not ended.
    fn choose(&self, feed: &mut Feed<'_>) -> Option<ConnectionId> {
        let open = self
            .connections
            .iter()
            .filter(|(_, client)| client.is_connected && !client.is_over);
        let open: Vec<ConnectionId> = open.map(|(id, _)| *id).collect();
        feed.index(open.len()).map(|index| open[index])
    }

    /// A frame as it came from the wire, or bytes that are none.
    fn request_raw(&mut self, feed: &mut Feed<'_>) {
        let Some(connection) = self.choose(feed) else {
            return;
        };
        match frame::decode::<CONTROL_FRAME_LEN_MAX, RequestFrame>(feed.piece()) {
            Ok(frame) => self.send_request(connection, frame),
            Err(_) => self.input(Input::Malformed { connection }),
        }
    }

    fn log_in_with_token(&mut self, feed: &mut Feed<'_>) {
        let Some(connection) = self.choose(feed) else {
            return;
        };
        let request = self.token_login(connection, feed);
        self.send_numbered(connection, request);
    }

    fn token_login(&mut self, connection: ConnectionId, feed: &mut Feed<'_>) -> Request {
        let (owner, claimed, held) = (feed.below(2), feed.below(3), feed.below(2));
        let channel = self.connections[&connection].channel;
        let (account, token) = (account(claimed), token(held));
        let signature = secret(owner).sign(&Statement {
            role: Role::TokenLogin,
            channel_binding: &channel,
            account: &account,
            content: token.as_bytes(),
        });
        self.proofs += usize::from(owner == claimed && owner == held);
        Request::Login(LoginRequest::TokenLogin(TokenLogin {
            account,
            device_key: secret(owner).public(),
            token,
            signature,
        }))
    }

    fn request(&mut self, feed: &mut Feed<'_>) {
        let Some(connection) = self.choose(feed) else {
            return;
        };
        let request = self.any_request(connection, feed);
        if feed.below(16) == 0 {
            // A number that may be open.
            let id = RequestId(feed.byte().into());
            self.send_request(connection, RequestFrame { id, request });
        } else {
            self.send_numbered(connection, request);
        }
    }

    fn any_request(&self, connection: ConnectionId, feed: &mut Feed<'_>) -> Request {
        match feed.below(21) {
            0 => Request::Login(LoginRequest::RegisterStart {
                account: any_account(feed),
                message: opaque(feed, &kept().register),
            }),
            1 => Request::Login(LoginRequest::RegisterFinish {
                upload: opaque(feed, &kept().upload),
                stretch: stretch(feed),
            }),
            2 | 3 => Request::Login(LoginRequest::LoginStart(self.login_start(connection, feed))),
            4 => Request::Login(LoginRequest::LoginFinish {
                ke3: opaque(feed, &kept().ke1),
            }),
            5 => Request::Directory(DirectoryRequest::Announce {
                status: Status::Busy,
                candidates: candidates(feed),
            }),
            6 => Request::Directory(DirectoryRequest::List {
                after: feed.flag().then(|| Cursor {
                    account: any_account(feed),
                    device_key: secret(feed.below(3)).public(),
                }),
            }),
            7 => Request::Directory(DirectoryRequest::Watch {
                since: DirectoryVersion(
                    self.server.directory().version().0 + u64::from(feed.byte()) - 128,
                ),
            }),
            8 => Request::Directory(DirectoryRequest::Unwatch),
            9 => Request::Directory(DirectoryRequest::Find {
                account: any_account(feed),
            }),
            10 => Request::Directory(DirectoryRequest::WhoIs {
                device_key: secret(feed.below(3)).public(),
            }),
            11 => Request::Device(DeviceRequest::Admit),
            12 => Request::Device(DeviceRequest::LogOut),
            13 => Request::Device(DeviceRequest::Noted {
                device_key: secret(feed.below(3)).public(),
            }),
            14 => Request::Introduction(IntroductionRequest::Allocate),
            15 => Request::Introduction(IntroductionRequest::Introduce {
                account: any_account(feed),
            }),
            17 => Request::Identity(IdentityRequest::Append {
                entry: Box::new(any_entry(feed)),
            }),
            18 => Request::Identity(IdentityRequest::Read {
                account: any_account(feed),
                after: feed.byte().into(),
            }),
            19 => Request::Identity(IdentityRequest::Enrolled),
            16 => Request::Relay(RelayDatagrams {
                stride: feed.byte().into(),
                bytes: feed.piece().to_vec(),
            }),
            _ => Request::Device(DeviceRequest::KeepAlive),
        }
    }

    fn login_start(&self, connection: ConnectionId, feed: &mut Feed<'_>) -> LoginStart {
        let owner = feed.below(3);
        let account = any_account(feed);
        let ke1 = opaque(feed, &kept().ke1);
        let signature = if feed.below(8) == 0 {
            Signature::try_from(vec![7; 64]).expect("64 bytes")
        } else {
            secret(owner).sign(&Statement {
                role: Role::PasswordLogin,
                channel_binding: &self.connections[&connection].channel,
                account: &account,
                content: ke1.as_bytes(),
            })
        };
        LoginStart {
            account,
            device_key: secret(owner).public(),
            device_name: DeviceName::lossy("fuzzed"),
            ke1,
            signature,
            code: feed
                .flag()
                .then(|| AdmissionCode::from_random(feed.byte().into())),
        }
    }

    fn send_numbered(&mut self, connection: ConnectionId, request: Request) {
        let client = self.connections.get_mut(&connection).expect("it is there");
        client.last_request += 1;
        let id = RequestId(client.last_request);
        self.send_request(connection, RequestFrame { id, request });
    }

    fn send_request(&mut self, connection: ConnectionId, frame: RequestFrame) {
        let client = self.connections.get_mut(&connection).expect("it is there");
        let asked = if matches!(
            frame.request,
            Request::Login(LoginRequest::RegisterFinish { .. })
        ) {
            Asked::Registration
        } else {
            Asked::Other
        };
        if !matches!(frame.request, Request::Relay(_)) {
            client.open.insert(frame.id, asked);
        }
        self.input(Input::Requested { connection, frame });
    }

    fn leave(&mut self, feed: &mut Feed<'_>) {
        if feed.byte() == 255 {
            return self.input(Input::ShutDown);
        }
        if let Some(connection) = self.choose(feed) {
            let client = self.connections.get_mut(&connection).expect("it is there");
            client.is_over = true;
            self.input(Input::Disconnected { connection });
        }
    }

    // ---- store, OPAQUE, operator, time ---------------------------------------------------------

    /// Carries out the oldest request, or any; answers it as it is, with an error, or twice.
    fn answer_store(&mut self, feed: &mut Feed<'_>) {
        let how = feed.below(16);
        let index = if how == 0 {
            feed.index(self.orders.len())
        } else {
            (!self.orders.is_empty()).then_some(0)
        };
        let Some(index) = index else { return };
        let (ticket, request) = self.orders.remove(index);
        let answer = match how {
            1 => Err(StoreError::DiskFull),
            2 => Err(StoreError::Failed("fuzzed".to_owned())),
            _ => self.execute(&request),
        };
        if how == 3 {
            let answer = answer.clone();
            self.input(Input::Stored { ticket, answer });
        }
        self.input(Input::Stored { ticket, answer });
    }

    fn execute(&mut self, request: &StoreRequest) -> Result<StoreAnswer, StoreError> {
        let mut answers = self.store.execute(std::slice::from_ref(request));
        answers.pop().expect("one answer for each request")
    }

    /// Does a job, or says what it came to without doing it.
    fn answer_job(&mut self, feed: &mut Feed<'_>) {
        let how = feed.below(8);
        let Some(index) = feed.index(self.jobs.len()) else {
            return;
        };
        let (ticket, job) = self.jobs.remove(index);
        let outcome = match (how, &job) {
            (0, Job::Register { .. }) => Outcome::Registered(Err(PasswordError::Malformed)),
            (0, Job::Login { .. }) => Outcome::Challenged(Err(ChallengeError::Malformed)),
            (0, Job::Finish { .. }) => Outcome::Finished(Err(PasswordError::Malformed)),
            // As if the password had been right.
            (1..=4, Job::Finish { .. }) => {
                self.proofs += 1;
                Outcome::Finished(Ok(()))
            }
            (_, Job::Register { .. } | Job::Login { .. } | Job::Finish { .. }) => {
                job.run(&kept().setup)
            }
        };
        self.input(Input::Computed { ticket, outcome });
    }

    fn command(&mut self, feed: &mut Feed<'_>) {
        let account = any_account(feed);
        let command = match feed.below(5) {
            0 => Command::AddAccount {
                account,
                record: kept().record.clone(),
            },
            1 => Command::RemoveAccount(account),
            2 => Command::Unblock(account),
            3 => Command::Admit(account),
            _ => Command::ListAccounts {
                after: Some(account),
            },
        };
        self.last_command += 1;
        let id = CommandId(self.last_command);
        self.commands.insert(id);
        self.input(Input::Commanded { id, command });
    }

    /// Milliseconds, seconds, minutes, or fifty days.
    fn pass(&mut self, feed: &mut Feed<'_>) {
        let span = match feed.below(4) {
            0 => Duration::from_millis(feed.byte().into()),
            1 => Duration::from_secs(feed.byte().into()),
            2 => Duration::from_secs(60 * u64::from(feed.byte())),
            _ => Duration::from_secs(50 * 24 * 3600),
        };
        self.now += span;
        self.server.handle_timeout(self.now);
        self.drain();
    }

    // ---- what must hold ------------------------------------------------------------------------

    fn input(&mut self, input: Input) {
        self.server.handle_input(input, self.now);
        self.drain();
    }

    /// Takes all outputs; what is due now is done now, and then nothing is.
    fn drain(&mut self) {
        for _ in 0..ROUNDS_MAX {
            let due = self.drain_once();
            assert!(self.server.work_count() <= 2 * LOGINS_IN_PROGRESS_MAX);
            assert!(self.server.connection_count() <= self.connections.len());
            if due.is_none_or(|at| at > self.now) {
                return;
            }
            self.server.handle_timeout(self.now);
        }
        panic!("a deadline that does not pass");
    }

    fn drain_once(&mut self) -> Option<Instant> {
        for _ in 0..OUTPUTS_MAX {
            match self.server.poll_output(self.now) {
                Output::Wait(deadline) => return deadline.map(|deadline| deadline.at),
                Output::Send { connection, frame } => self.on_frame(connection, &frame),
                Output::Close { connection, .. } => {
                    let client = self.connections.get_mut(&connection).expect("a client");
                    client.is_over = true;
                }
                Output::Store { ticket, request } => self.orders.push((ticket, request)),
                Output::Compute { ticket, job } => self.jobs.push((ticket, job)),
                Output::Relay(command) => self.relay(command),
                Output::ToRelay {
                    connection,
                    datagrams,
                } => {
                    let client = &self.connections[&connection];
                    assert!(client.is_member && !client.is_over, "of a stranger");
                    assert!(datagrams.is_fair());
                    let back = Input::FromRelay {
                        connection,
                        datagrams,
                    };
                    self.server.handle_input(back, self.now);
                }
                Output::Reply { id, .. } => {
                    assert!(self.commands.remove(&id), "one reply for each command");
                }
            }
        }
        panic!("outputs without an end");
    }

    /// The relay can do whatever the engine asks of it.
    fn relay(&mut self, command: RelayCommand) {
        match command {
            RelayCommand::Allocate(id, account) => {
                let is_new = self.relay.allocate(id, account, self.now);
                assert!(is_new, "an allocation that is there");
            }
            RelayCommand::Free(id) => self.relay.free(id),
            RelayCommand::Open(channel) => {
                let is_open = self.relay.open(channel, self.now);
                assert!(is_open, "a channel that cannot be");
            }
        }
    }

    fn on_frame(&mut self, connection: ConnectionId, frame: &Frame) {
        let client = self.connections.get_mut(&connection).expect("a client");
        assert!(!client.is_over, "{frame:?} after the end");
        assert!(client.has_greeted, "{frame:?} before the greeting");
        let Frame::Server(frame) = frame else {
            return;
        };
        match &**frame {
            ServerFrame::Answer { id, answer } => self.on_answer(connection, *id, answer),
            ServerFrame::Push(Push::Bye(_)) => {}
            ServerFrame::Push(
                push @ (Push::Directory(_)
                | Push::Device(_)
                | Push::Introduction(_)
                | Push::Relay(_)
                | Push::Identity(_)),
            ) => {
                assert!(client.is_member, "{push:?} for a stranger");
            }
        }
    }

    fn on_answer(&mut self, connection: ConnectionId, id: RequestId, answer: &Answer) {
        let client = self.connections.get_mut(&connection).expect("a client");
        let asked = client.open.remove(&id);
        let asked = asked.expect("one answer for each request");
        match answer {
            Answer::Refused(_) => {}
            Answer::Login(answer) => match answer {
                LoginAnswer::RegisterChallenge { .. } | LoginAnswer::LoginChallenge { .. } => {}
                LoginAnswer::Registered => assert_eq!(asked, Asked::Registration),
                LoginAnswer::LoggedIn(logged_in) => {
                    assert!(logged_in.enrolled.len() <= ENROLMENTS_UNTOLD_MAX);
                    client.is_member = true;
                    self.logged_in += 1;
                    assert!(self.logged_in <= self.proofs, "a log-in without a proof");
                }
            },
            Answer::Directory(_)
            | Answer::Device(_)
            | Answer::Introduction(_)
            | Answer::Identity(_) => {
                assert!(client.is_member, "{answer:?} for a stranger");
            }
        }
    }

    /// Once all work is done, nobody waits for anything.
    fn finish(mut self) {
        for _ in 0..OUTPUTS_MAX {
            if !self.orders.is_empty() {
                let (ticket, request) = self.orders.remove(0);
                let answer = self.execute(&request);
                self.input(Input::Stored { ticket, answer });
            } else if let Some((ticket, job)) = self.jobs.pop() {
                let outcome = job.run(&kept().setup);
                self.input(Input::Computed { ticket, outcome });
            } else {
                break;
            }
        }
        assert_eq!(self.server.work_count(), 0, "work without an order");
        assert!(self.commands.is_empty(), "a command without a reply");
        for (id, client) in &self.connections {
            let waits = !client.is_over && !client.open.is_empty();
            assert!(!waits, "{id:?} waits for {:?}", client.open);
        }
    }
}

fn any_account(feed: &mut Feed<'_>) -> AccountName {
    match feed.below(4) {
        n @ 0..=2 => account(n),
        _ => {
            let name = format!("x{}", feed.byte());
            name.parse().expect("a letter and a number")
        }
    }
}

/// The right message, mostly, or any bytes.
fn opaque(feed: &mut Feed<'_>, right: &OpaqueMessage) -> OpaqueMessage {
    match feed.below(8) {
        0 => OpaqueMessage::try_from(feed.take(320).to_vec()).expect("within the bound"),
        _ => right.clone(),
    }
}

fn stretch(feed: &mut Feed<'_>) -> StretchVersion {
    match feed.below(8) {
        0 => StretchVersion(feed.byte()),
        _ => STRETCH_CURRENT,
    }
}

fn candidates(feed: &mut Feed<'_>) -> Vec<SocketAddr> {
    let count = feed.below(CANDIDATES_MAX + 2);
    let any = (0..count).map(|_| {
        let ip: [u8; 4] = feed.array();
        SocketAddr::from((ip, u16::from(feed.byte())))
    });
    any.collect()
}

#[cfg(test)]
mod tests {
    use common::wire::samples;

    use super::*;
    use crate::fuzz::vocabulary;

    #[test]
    fn every_request_is_drawn() {
        let mut run = Run::new();
        let (connection, _) = run.new_connection(&mut Feed(&[])).expect("a first one");
        vocabulary::check(&samples::requests(), |feed| match feed.below(8) {
            0 => run.token_login(connection, feed),
            _ => run.any_request(connection, feed),
        });
    }
}
