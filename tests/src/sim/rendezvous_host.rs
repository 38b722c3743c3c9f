//! The server's machine: its engine, and the store that survives its crashes.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Instant;

use common::id::{AccountName, DeviceName};
use common::key::{DeviceKey, Token};
use common::password::{Password, PasswordRecord, STRETCH_CURRENT, ServerSetup, make_record};
use common::time::{Epoch, UnixTime};
use common::wire::rendezvous::RelayDatagrams;
use rendezvous::relay::{Batch, ControlId, Departure, Output, Relay, TrafficLimits};
use rendezvous::server::logins::lockout::BucketKey;
use rendezvous::server::{
    ConnectionId, Input, Job, Outcome, RelayCommand, Server, ServerOptions, Ticket,
};
use rendezvous::store::memory::MemoryStore;
use rendezvous::store::{
    Account, AccountsAnswer, AccountsRequest, Device, DevicesRequest, LockoutRow, LogsRequest,
    Lookup, Store, StoreAnswer, StoreRequest, Subject,
};
use zeroize::Zeroizing;

use super::enrolment::Enrolments;

/// The password of every account.
pub const PASSWORD: &str = "correct horse battery staple";

/// The server, on or off.
#[derive(Debug)]
pub struct RendezvousHost {
    /// `None` while it is off.
    pub engine: Option<Server>,
    relay: Relay,
    /// The relay forwards packets.
    pub forwards: bool,
    /// What its relay takes, from its next start on.
    pub limits: TrafficLimits,
    store: MemoryStore,
    /// Which devices the store has.
    pub enrolments: Enrolments,
    orders: VecDeque<(Ticket, StoreRequest)>,
    store_free: Instant,
    /// When the engine wants to be called, and why.
    pub deadline: Option<(Instant, &'static str)>,
    /// Counts its lives.
    pub life: u32,
}

impl RendezvousHost {
    /// A server that runs.
    pub fn new(seed: [u8; 32], epoch: Epoch, now: Instant) -> Self {
        let mut host = Self {
            engine: None,
            relay: Relay::new(seed, TrafficLimits::default(), now),
            forwards: true,
            limits: TrafficLimits::default(),
            store: MemoryStore::new(),
            enrolments: Enrolments::default(),
            orders: VecDeque::new(),
            store_free: now,
            deadline: None,
            life: 0,
        };
        host.start(seed, epoch, now);
        host
    }

    /// Starts it on what its store holds.
    pub fn start(&mut self, seed: [u8; 32], epoch: Epoch, now: Instant) {
        if self.engine.is_some() {
            return;
        }
        self.life += 1;
        self.store_free = now;
        let options = ServerOptions {
            relay_rate: Some(self.limits.of_account),
            ..ServerOptions::new(BucketKey([9; 32]))
        };
        let restored = self
            .store
            .restore()
            .expect("a store in memory does not fail");
        self.relay = Relay::new(seed, self.limits, now);
        self.engine = Some(Server::new(seed, now, epoch, options, restored));
        self.deadline = Some((now, "start"));
    }

    /// What a crash takes away.
    pub fn crash(&mut self) {
        self.orders.clear();
        self.deadline = None;
    }

    /// Makes an account with a device that is logged in, as a log-in would have. The password is that of
    /// `owner`: of the account itself, if anybody will ever type it.
    pub fn enrol(
        &mut self,
        account: &AccountName,
        owner: &AccountName,
        device_key: DeviceKey,
        token: &Token,
        (at, now): (UnixTime, Instant),
    ) {
        let create = StoreRequest::Accounts(AccountsRequest::Create {
            account: account.clone(),
            record: record(owner),
            stretch: STRETCH_CURRENT,
            at,
        });
        execute(&mut self.store, &create);
        let loaded = self.loaded(account, device_key);
        let enrol = DevicesRequest::Enrol {
            id: loaded.id,
            device: Device {
                key: device_key,
                name: DeviceName::lossy("simulated"),
                token_hash: token.hash(),
                token_before: None,
                token_issued: at,
            },
            lockout: LockoutRow::empty(Subject::Account(account.clone())),
        };
        self.execute(&enrol.into(), now);
    }

    /// Keeps the log of an account, which its first device has founded.
    pub fn keep_log(
        &mut self,
        account: &AccountName,
        log: &common::account::AccountLog,
        (at, now): (UnixTime, Instant),
    ) {
        let id = self.loaded(account, log.genesis().first_device).id;
        for (after, entry) in (0..).zip(log.entries()) {
            let append = LogsRequest::Append {
                id,
                after,
                entry: entry.to_bytes(),
                revoked: Vec::new(),
                at,
            };
            self.execute(&append.into(), now);
        }
    }

    /// An account that is there.
    fn loaded(&mut self, account: &AccountName, device_key: DeviceKey) -> Box<Account> {
        let load = StoreRequest::Accounts(AccountsRequest::Load {
            account: account.clone(),
            device_key: Some(device_key),
        });
        let StoreAnswer::Accounts(AccountsAnswer::Loaded(Lookup {
            account: Some(loaded),
            ..
        })) = execute(&mut self.store, &load)
        else {
            unreachable!("the account was just made");
        };
        loaded
    }

    /// Removes an account from the store of a server that does not run.
    pub fn remove(&mut self, account: &AccountName, at: UnixTime, now: Instant) {
        let account = account.clone();
        let remove = AccountsRequest::Remove { account, at };
        self.execute(&remove.into(), now);
    }

    /// What the store holds now.
    pub fn backup(&self) -> MemoryStore {
        self.store.clone()
    }

    /// Puts a backup in the place of the store of a server that does not run.
    pub fn put_back(&mut self, backup: MemoryStore) {
        self.store = backup;
    }

    /// Tells whether there is such an account.
    pub fn has_account(&self, account: &AccountName) -> bool {
        self.load(account, None).is_some()
    }

    /// Tells whether `device_key` is enrolled for an account.
    pub fn has_device(&self, account: &AccountName, device_key: DeviceKey) -> bool {
        let loaded = self.load(account, Some(device_key));
        loaded.is_some_and(|account| account.device.is_some())
    }

    /// Asks a copy of the store: whoever looks at the world changes nothing.
    fn load(&self, account: &AccountName, device_key: Option<DeviceKey>) -> Option<Box<Account>> {
        let load = StoreRequest::Accounts(AccountsRequest::Load {
            account: account.clone(),
            device_key,
        });
        if let StoreAnswer::Accounts(AccountsAnswer::Loaded(Lookup { account, .. })) =
            execute(&mut self.store.clone(), &load)
        {
            account
        } else {
            None
        }
    }

    fn execute(&mut self, request: &StoreRequest, now: Instant) -> StoreAnswer {
        let answer = execute(&mut self.store, request);
        self.enrolments.on_stored(request, now);
        answer
    }

    /// Queues a request; returns when it is carried out if `at` is when it could be.
    pub fn order(&mut self, at: Instant, ticket: Ticket, request: StoreRequest) -> Instant {
        self.orders.push_back((ticket, request));
        self.store_free = self.store_free.max(at);
        self.store_free
    }

    /// Carries out the oldest request.
    pub fn carry_out(&mut self, now: Instant) -> bool {
        let Some((ticket, request)) = self.orders.pop_front() else {
            return false;
        };
        let answer = Ok(self.execute(&request, now));
        if let Some(engine) = &mut self.engine {
            engine.handle_input(Input::Stored { ticket, answer }, now);
        }
        true
    }

    /// Does a computation; tells whether it proved a password.
    pub fn compute(&mut self, ticket: Ticket, job: Job, now: Instant) -> bool {
        let outcome = job.run(setup());
        let is_proof = matches!(outcome, Outcome::Finished(Ok(())));
        if let Some(engine) = &mut self.engine {
            engine.handle_input(Input::Computed { ticket, outcome }, now);
        }
        is_proof
    }

    /// Does what the engine asks of the relay, which always can.
    pub fn relay(&mut self, command: RelayCommand, now: Instant) {
        let is_done = match command {
            RelayCommand::Allocate(id, account) => self.relay.allocate(id, account, now),
            RelayCommand::Open(channel) => self.relay.open(channel, now),
            RelayCommand::Free(id) => {
                self.relay.free(id);
                true
            }
        };
        assert!(is_done, "the relay cannot do what it is asked");
    }

    /// Has the relay do what is due, and tells the engine. Returns what has waited to be sent over UDP, and where to.
    pub fn handle_relay_timeout(&mut self, now: Instant) -> Vec<(SocketAddr, Vec<u8>)> {
        self.relay.handle_timeout(now);
        if let Some(engine) = &mut self.engine {
            while let Some(channel) = self.relay.poll_closed() {
                engine.handle_input(Input::ChannelClosed { channel }, now);
            }
        }
        let mut sent = Vec::new();
        while let Some(departure) = self.relay.poll_departure(now) {
            match departure {
                Departure::Datagram { .. } | Departure::ToControl { .. } if !self.forwards => {}
                Departure::Datagram { to, bytes, .. } => sent.push((to, bytes.to_vec())),
                Departure::ToControl { to, bytes } => {
                    let bytes = bytes.to_vec();
                    self.tell_control(ConnectionId(to.0), bytes, now);
                }
            }
        }
        sent
    }

    /// When the relay wants to be called.
    pub fn relay_deadline(&self) -> Option<(Instant, &'static str)> {
        self.relay.poll_timeout().map(|at| (at, "relay"))
    }

    /// Takes a datagram, if it is on. Returns what it sends because of it, and where to.
    pub fn on_datagram(
        &mut self,
        datagram: &[u8],
        source: SocketAddr,
        now: Instant,
    ) -> Vec<(SocketAddr, Vec<u8>)> {
        if self.engine.is_none() {
            return Vec::new();
        }
        let mut bytes = datagram.to_vec();
        let batch = Batch {
            bytes: &mut bytes,
            stride: datagram.len(),
            source,
            local: None,
        };
        let mut outputs = Vec::new();
        self.relay.handle_batch(batch, now, &mut outputs);
        self.send(outputs, &bytes, |_, answer| Some((source, answer)), now)
    }

    /// Takes datagrams of a control connection. Returns what it sends over UDP because of them.
    pub fn on_control(
        &mut self,
        connection: ConnectionId,
        datagrams: RelayDatagrams,
        now: Instant,
    ) -> Vec<(SocketAddr, Vec<u8>)> {
        let RelayDatagrams { stride, mut bytes } = datagrams;
        let (from, mut outputs) = (ControlId(connection.0), Vec::new());
        self.relay
            .handle_control(from, &mut bytes, stride.into(), now, &mut outputs);
        let answer = |host: &mut Self, answer| {
            host.tell_control(connection, answer, now);
            None
        };
        self.send(outputs, &bytes, answer, now)
    }

    /// Sends what the relay wants sent to control connections, and returns the rest.
    fn send(
        &mut self,
        outputs: Vec<Output>,
        bytes: &[u8],
        answer: impl Fn(&mut Self, Vec<u8>) -> Option<(SocketAddr, Vec<u8>)>,
        now: Instant,
    ) -> Vec<(SocketAddr, Vec<u8>)> {
        let mut sent = Vec::new();
        for output in outputs {
            match output {
                Output::Answer(bytes) => sent.extend(answer(self, bytes)),
                Output::AnswerFromOther(_) => panic!("the simulated server has one port"),
                Output::Forward { .. } | Output::ForwardToControl { .. } if !self.forwards => {}
                Output::Forward {
                    to, part, stride, ..
                } => {
                    let datagrams = bytes[part].chunks(stride);
                    sent.extend(datagrams.map(|datagram| (to, datagram.to_vec())));
                }
                Output::ForwardToControl { to, part, stride } => {
                    for datagram in bytes[part].chunks(stride) {
                        self.tell_control(ConnectionId(to.0), datagram.to_vec(), now);
                    }
                }
            }
        }
        sent
    }

    fn tell_control(&mut self, connection: ConnectionId, bytes: Vec<u8>, now: Instant) {
        let stride = u16::try_from(bytes.len()).expect("a datagram is short");
        let datagrams = RelayDatagrams { stride, bytes };
        if let Some(engine) = &mut self.engine {
            let input = Input::FromRelay {
                connection,
                datagrams,
            };
            engine.handle_input(input, now);
        }
    }
}

fn setup() -> &'static ServerSetup {
    static SETUP: OnceLock<ServerSetup> = OnceLock::new();
    SETUP.get_or_init(|| ServerSetup::generate([3; 32]))
}

/// The record of [`PASSWORD`], made once for each account: stretching takes a while.
fn record(account: &AccountName) -> PasswordRecord {
    static RECORDS: OnceLock<Mutex<BTreeMap<AccountName, PasswordRecord>>> = OnceLock::new();
    let records = RECORDS.get_or_init(Mutex::default);
    let mut records = records.lock().unwrap_or_else(PoisonError::into_inner);
    let made = records.entry(account.clone()).or_insert_with(|| {
        let password = Password::new(Zeroizing::new(PASSWORD.to_owned()));
        let password = password.expect("the password is long enough");
        make_record(setup(), account, &password, [8; 32]).expect("the password can be stretched")
    });
    made.clone()
}

fn execute(store: &mut MemoryStore, request: &StoreRequest) -> StoreAnswer {
    let mut answers = store.execute(std::slice::from_ref(request));
    let answer = answers.pop().expect("one answer for each request");
    answer.expect("a store in memory does not fail")
}
