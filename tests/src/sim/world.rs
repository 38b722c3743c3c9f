//! A server, its network and its hosts on virtual time, in one thread.
//!
//! The engines are the real ones, [`rendezvous::server::Server`] and [`peer::node::Node`]; what their
//! shells do is done here, from one queue of things that are to happen. The world decides nothing by
//! itself but when a thing arrives; all chance comes from its seed.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use common::id::{AccountName, DeviceName, TransferId};
use common::key::{DeviceSecret, Token};
use common::limits::FAREWELL_TIMEOUT_MAX;
use common::time::{Epoch, UnixTime};
use peer::node::command::{Command, CommandId, Event, TransferState};
use peer::node::io::{
    ClosedReason, DiskAnswer, DiskRequest, Job, JobId, LanInput, Outcome, RendezvousInput,
    SealOutcome, StoreAnswer, StoreId, StoreRequest, WorkId,
};
use peer::node::{Datagrams, Input, Node, NodeOptions, Output, PathRule};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use rendezvous::server::{self, ConnectionId};

use super::attacker::Attacker;
use super::check::Violation;
use super::disk::Disk;
use super::identity;
use super::ledger::Ledger;
use super::login;
use super::model::Model;
use super::net::{Arrival, Net, Realm, Site};
use super::rendezvous_host::RendezvousHost;
use control::{Connection, Tamper};
pub use host::Host;
pub use options::{Family, Home, WorldOptions};

/// Control connections and the server at their end.
mod control;
/// A person's machine.
mod host;
/// Multicast DNS.
mod lan;
/// What a world is made of.
mod options;

/// The server's address, TCP and UDP.
pub const SERVER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(198, 51, 100, 1)), 7400);
/// The same for whoever has IPv6 only.
pub const SERVER_V6: SocketAddr = SocketAddr::new(
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, 1)),
    7400,
);
/// The port of each host's UDP socket.
const HOST_PORT: u16 = 5000;
/// What the wall clock says in the beginning.
const WALL_START: UnixTime = UnixTime::from_millis(1_700_000_000_000);
/// One in so many turns, an engine is woken although it did not ask for it.
const POKE_EVERY: u32 = 40;
/// More turns than this without time passing is a loop that does not end.
const TURNS_MAX: u32 = 20_000;
/// What checking or making a seal takes.
const SEAL_TIME: Duration = Duration::from_micros(100);

/// How wrong the wall clock is: at most 65,536 times [`ClockError::STEP`], which is 13.6 days, so that no
/// two of its moments are further apart than a token lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClockError {
    /// It shows a later time.
    Ahead(Duration),
    /// It shows an earlier one.
    Behind(Duration),
}

impl ClockError {
    /// The smallest error.
    pub const STEP: Duration = Duration::from_secs(18);
}

/// The whole world.
#[derive(Debug)]
pub struct World {
    /// Virtual time.
    pub now: Instant,
    began: Instant,
    /// The wall clock may jump; engines read it when they start.
    pub wall: UnixTime,
    /// It has jumped since the server started.
    has_jumped: bool,
    /// All chance.
    pub rng: StdRng,
    /// The network.
    pub net: Net,
    /// The server.
    pub server: RendezvousHost,
    /// The hosts.
    pub hosts: Vec<Host>,
    /// What should be true.
    pub model: Model,
    /// What the server counts against accounts.
    pub ledger: Ledger,
    /// Whether people type passwords.
    pub uses_passwords: bool,
    /// Whether accounts have logs.
    pub has_identities: bool,
    connections: BTreeMap<ConnectionId, Connection>,
    attackers: BTreeMap<ConnectionId, Attacker>,
    tampers: BTreeMap<usize, Tamper>,
    last_connection: u64,
    queue: BinaryHeap<Reverse<Due>>,
    /// What hosts that are asleep will notice when they wake.
    missed: BTreeMap<usize, Vec<Happening>>,
    last_due: u64,
    turns: u32,
    /// Datagrams that arrived, and their bytes.
    pub carried: [u64; 2],
    /// Datagrams that arrived elsewhere: see [`Net::has_strays`].
    pub strays: Vec<Stray>,
    /// Engines woken before their time.
    pub pokes: u64,
    trace: blake3::Hasher,
    /// The first thing that is not as it should be.
    pub violation: Option<Violation>,
}

/// A datagram to an address that nobody in the world has, as it arrived there at the moment `at`.
#[expect(missing_docs, reason = "the fields' names and types say it all")]
#[derive(Debug)]
pub struct Stray {
    pub at: Instant,
    pub source: SocketAddr,
    pub destination: SocketAddr,
    pub bytes: Vec<u8>,
}

/// Something that happens at a moment.
#[derive(Debug)]
struct Due {
    at: Instant,
    order: u64,
    what: Happening,
}

#[derive(Debug)]
enum Happening {
    Datagram(Arrival, Vec<u8>),
    Connected(ConnectionId),
    ToServer(ConnectionId, Vec<u8>),
    ToHost(ConnectionId, RendezvousInput),
    ServerHears(ConnectionId),
    NotConnected(usize, u32),
    Store(usize, u32, StoreId, StoreRequest),
    Stored(usize, u32, StoreId, StoreAnswer),
    Disk(usize, u32, DiskRequest),
    DiskDone(usize, u32, TransferId, DiskAnswer),
    Computed(usize, u32, JobId, Outcome),
    Sealed(usize, u32, WorkId, SealOutcome),
    Lan(usize, u32, LanInput),
    ServerStored(u32),
}

impl PartialEq for Due {
    fn eq(&self, other: &Self) -> bool {
        self.order == other.order
    }
}

impl Eq for Due {}

impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Due {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.order).cmp(&(other.at, other.order))
    }
}

impl World {
    /// A world in which everybody is enrolled and starts now.
    #[expect(clippy::disallowed_methods, reason = "any instant will do as a start")]
    pub fn new(options: &WorldOptions) -> Self {
        // Far from the machine's own start, so that engines may look back.
        let now = Instant::now() + Duration::from_secs(100_000);
        let wall = WALL_START;
        let mut rng = StdRng::seed_from_u64(options.seed);
        let server = RendezvousHost::new(rng.random(), Epoch::new(now, wall), now);
        let mut world = Self {
            now,
            began: now,
            wall,
            has_jumped: false,
            rng,
            net: Net::new(options.faults),
            server,
            hosts: Vec::new(),
            model: Model::default(),
            ledger: Ledger::default(),
            uses_passwords: options.uses_passwords,
            has_identities: options.has_identities,
            connections: BTreeMap::new(),
            attackers: BTreeMap::new(),
            tampers: BTreeMap::new(),
            last_connection: 0,
            queue: BinaryHeap::new(),
            missed: BTreeMap::new(),
            last_due: 0,
            turns: 0,
            carried: [0; 2],
            strays: Vec::new(),
            pokes: 0,
            trace: blake3::Hasher::new(),
            violation: None,
        };
        let at = [SERVER, SERVER_V6];
        world.net.place(Site::Server, Realm::Public, &at);
        for nat in &options.nats {
            world.net.add_nat(*nat);
        }
        for (n, home) in options.homes.iter().enumerate() {
            world.add_host(n, *home);
        }
        for n in 0..options.homes.len() {
            world.start(n);
        }
        world
    }

    fn add_host(&mut self, n: usize, home: Home) {
        let account = account(n);
        let secret: [u8; 32] = self.rng.random();
        let token: [u8; 32] = self.rng.random();
        let key = DeviceSecret::from_seed(secret).public();
        let token = Token::from_bytes(token);
        let disk = if home.is_enrolled {
            // Stretching takes a while: where nobody types a password one is enough for all.
            let owner = match self.uses_passwords {
                true => account.clone(),
                false => self::account(0),
            };
            let at = (self.wall, self.now);
            self.server.enrol(&account, &owner, key, &token, at);
            let secret = DeviceSecret::from_seed(secret);
            let log = self
                .has_identities
                .then(|| identity::founded(&secret, self.wall));
            if let Some(log) = &log {
                self.server.keep_log(&account, log, at);
            }
            let mut disk = Disk::enrolled(account.clone(), token);
            if let Some(log) = log {
                disk.keep_log(&account, &log);
            }
            disk
        } else {
            Disk::default()
        };
        self.hosts.push(Host {
            node: None,
            disk,
            account,
            secret,
            family: home.family,
            addresses: Vec::new(),
            moves: 0,
            disk_delay: Duration::from_millis(1),
            asleep_until: None,
            rule: PathRule::Any,
            lan: true,
            announced: None,
            sent_directly: 0,
            off_since: Some(self.now),
            life: 0,
            connection: None,
            deadline: None,
            last_command: 0,
            may_need_password: !home.is_enrolled,
            last_typed: None,
            entries: BTreeMap::new(),
            replies: BTreeMap::new(),
            events: Vec::new(),
            unread: Vec::new(),
            offers: Vec::new(),
            moving: Vec::new(),
            arrived: Vec::new(),
            store_free: self.now,
            disk_free: self.now,
        });
        self.settle(n, home.realm);
    }

    /// Virtual time since the beginning.
    pub fn elapsed(&self) -> Duration {
        self.now.saturating_duration_since(self.began)
    }

    /// A hash of all that was decided: the same for the same seed.
    pub fn trace(&self) -> String {
        self.trace.finalize().to_hex()[..16].to_owned()
    }

    /// Adds a line to the trace.
    pub fn note(&mut self, line: &str) {
        log::debug!("{:>10.4} {line}", self.elapsed().as_secs_f64());
        self.trace.update(&self.elapsed().as_nanos().to_le_bytes());
        self.trace.update(line.as_bytes());
    }

    /// Keeps the first thing that is wrong.
    pub fn report(&mut self, violation: Violation) {
        self.violation.get_or_insert(violation);
    }

    // ---- hosts ---------------------------------------------------------------------------------

    /// Switches a host on.
    pub fn start(&mut self, n: usize) {
        let now = self.now;
        let host = &mut self.hosts[n];
        if host.node.is_some() {
            return;
        }
        host.life += 1;
        host.off_since = None;
        host.asleep_until = None;
        self.missed.remove(&n);
        (host.store_free, host.disk_free) = (now, now);
        let options = NodeOptions {
            secret: DeviceSecret::from_seed(host.secret),
            device_name: DeviceName::lossy("simulated"),
            restored: host.disk.restore(),
            epoch: Epoch::new(now, self.wall),
            rule: host.rule,
            lan: host.lan,
            // Its homes have no gateways that could be asked.
            port_mapping: false,
            is_port_chosen: false,
        };
        let mut node = Node::new(self.rng.random(), now, options);
        node.propagate_panics();
        let local = host.local_addresses(self.net.realm(Site::Host(n)));
        node.handle_input(Input::LocalAddresses(local), now);
        host.node = Some(node);
        self.model.on_start(n);
        self.drain(n);
    }

    /// Switches a host off: in good order, or as a power cut does.
    pub fn stop(&mut self, n: usize, in_good_order: bool) {
        if in_good_order {
            self.shut_down(n);
        }
        let host = &mut self.hosts[n];
        if host.node.take().is_none() {
            return;
        }
        self.finish_stores(n, in_good_order);
        self.withdraw(n, in_good_order);
        let host = &mut self.hosts[n];
        host.disk.crash();
        host.deadline = None;
        host.off_since = Some(self.now);
        host.events.clear();
        host.unread.clear();
        host.offers.clear();
        host.moving.clear();
        host.replies.clear();
        host.entries.clear();
        if let Some(connection) = host.connection.take() {
            // The system closes what was open, or, without power, nobody does.
            let is_told = in_good_order || self.rng.random_bool(0.5);
            self.break_connection(connection, is_told, false);
        }
    }

    /// Ends a node as its shell does: receipts that it owes come first, for a second.
    fn shut_down(&mut self, n: usize) {
        let owes = |world: &Self| {
            let node = world.hosts[n].node.as_ref();
            node.is_some_and(Node::owes_receipts)
        };
        let until = self.now + Duration::from_secs(1);
        while owes(self) && self.now < until {
            self.pass(Duration::from_millis(5));
        }
        if let Some(node) = &mut self.hosts[n].node {
            node.handle_input(Input::ShutDown, self.now);
            self.drain(n);
        }
        let until = self.now + FAREWELL_TIMEOUT_MAX;
        let has_links = |world: &Self| {
            let node = world.hosts[n].node.as_ref();
            node.is_some_and(Node::has_links)
        };
        while has_links(self) && self.now < until {
            self.pass(Duration::from_millis(5));
        }
    }

    /// Carries out what a host's history was asked: its shell waits for that when it ends. If it is killed, what its
    /// journal has of that is carried out at the next start; nothing happens in between, so that it may be done now.
    fn finish_stores(&mut self, n: usize, in_good_order: bool) {
        let life = self.hosts[n].life;
        let mut rest = std::mem::take(&mut self.queue).into_sorted_vec();
        // The earliest is last.
        while let Some(Reverse(due)) = rest.pop() {
            if let Happening::Store(of, in_life, _, request) = &due.what
                && (*of, *in_life) == (n, life)
            {
                let disk = &mut self.hosts[n].disk;
                if in_good_order || disk.is_journaled(request) {
                    disk.store(request);
                }
            } else {
                self.queue.push(Reverse(due));
            }
        }
    }

    /// Sets the wall clock wrong. Engines read it when they start.
    pub fn jump_clock(&mut self, error: ClockError) {
        let right = WALL_START.saturating_add(self.elapsed()).as_millis();
        let millis = |by: Duration| by.as_millis() as u64;
        self.has_jumped = true;
        self.wall = UnixTime::from_millis(match error {
            ClockError::Ahead(by) => right + millis(by),
            ClockError::Behind(by) => right - millis(by),
        });
    }

    /// Gives a host other addresses in the network where it is.
    pub fn roam(&mut self, n: usize) {
        self.move_to(n, self.net.realm(Site::Host(n)));
    }

    /// Moves a host to another network.
    pub fn move_to(&mut self, n: usize, realm: Realm) {
        self.settle(n, realm);
        if let Some(connection) = self.hosts[n].connection {
            // Its TCP connection is from an address that is no more.
            self.break_connection(connection, false, true);
        }
        let local = self.hosts[n].local_addresses(realm);
        if let Some(node) = &mut self.hosts[n].node {
            node.handle_input(Input::LocalAddresses(local), self.now);
            self.drain(n);
        }
    }

    /// Takes addresses for a host that nobody has, and that it did not have before.
    fn settle(&mut self, n: usize, realm: Realm) {
        let host = &mut self.hosts[n];
        host.moves += 1;
        let (last, moves) = (1 + n as u8, host.moves);
        let v4 = match realm {
            Realm::Public => SocketAddr::from(([192, 0, moves, last], HOST_PORT)),
            // Each network counts for itself, so that two have the same addresses inside.
            Realm::Behind(_) => (2..=254)
                .map(|at| SocketAddr::from(([192, 168, 1, at], HOST_PORT)))
                .find(|at| self.net.is_free(realm, *at) && !host.addresses.contains(at))
                .expect("a household has fewer hosts than addresses"),
        };
        let v6 = [0x2001, 0xdb8, moves.into(), 0, 0, 0, 0, last.into()];
        let v6 = SocketAddr::from((v6, HOST_PORT));
        host.addresses = match host.family {
            Family::V4 => vec![v4],
            Family::V6 => vec![v6],
            Family::Both => vec![v4, v6],
        };
        self.net.place(Site::Host(n), realm, &host.addresses);
    }

    /// Asks a host something, if it is on and awake.
    pub fn command(&mut self, n: usize, command: Command) -> Option<CommandId> {
        let host = &mut self.hosts[n];
        if host.asleep_until.is_some() {
            return None;
        }
        let node = host.node.as_mut()?;
        host.last_command += 1;
        let id = CommandId(host.last_command);
        node.handle_input(Input::Command(id, command), self.now);
        self.drain(n);
        Some(id)
    }

    fn drain(&mut self, n: usize) {
        let mut buffer = Vec::new();
        loop {
            let (now, host) = (self.now, &mut self.hosts[n]);
            let Some(node) = &mut host.node else {
                return;
            };
            match node.poll_output(now, &mut buffer) {
                Output::Wait(deadline) => {
                    host.deadline = deadline.map(|deadline| (deadline.at, deadline.why));
                    return;
                }
                Output::Transmit(transmit) => {
                    let stride = transmit.segment_size.unwrap_or(transmit.size).max(1);
                    for datagram in buffer[..transmit.size].chunks(stride) {
                        self.transmit(Site::Host(n), transmit.destination, datagram);
                    }
                }
                Output::Rendezvous(output) => self.on_rendezvous(n, output),
                Output::Store(id, request) => {
                    let delay = self.delay(n);
                    let host = &mut self.hosts[n];
                    host.store_free = host.store_free.max(now) + delay;
                    let (at, life) = (host.store_free, host.life);
                    self.schedule(at, Happening::Store(n, life, id, request));
                }
                Output::Disk(request) => {
                    let delay = self.delay(n);
                    let host = &mut self.hosts[n];
                    host.disk_free = host.disk_free.max(now) + delay;
                    let (at, life) = (host.disk_free, host.life);
                    self.schedule(at, Happening::Disk(n, life, request));
                }
                Output::Lan(what) => self.announce(n, what),
                // It is not permitted.
                Output::PortMapping(_) => {}
                Output::Compute(id, job) => self.on_job(n, id, job),
                Output::Seal(id, work) => {
                    let (at, life) = (now + SEAL_TIME, self.hosts[n].life);
                    self.schedule(at, Happening::Sealed(n, life, id, work.run()));
                }
                Output::Reply(id, reply) => {
                    if let Err(violation) = login::on_reply(self, n, id, &reply) {
                        self.report(violation);
                    }
                    self.hosts[n].replies.insert(id, reply);
                }
                Output::Event(event) => {
                    self.on_event(n, &event);
                    self.hosts[n].events.push(event);
                }
            }
        }
    }

    fn delay(&mut self, n: usize) -> Duration {
        self.hosts[n]
            .disk_delay
            .mul_f64(self.rng.random_range(0.1..1.0))
    }

    fn on_job(&mut self, n: usize, id: JobId, job: Job) {
        let at = self.now + Duration::from_millis(150);
        let life = self.hosts[n].life;
        self.schedule(at, Happening::Computed(n, life, id, job.run()));
    }

    fn on_event(&mut self, n: usize, event: &Event) {
        match event {
            Event::Message(item) => {
                self.note(&format!("{n} shows {} of {}", item.id, item.with));
                if let Err(violation) = self.check_enrolment(n, &item.with) {
                    self.report(violation);
                }
                self.hosts[n].unread.push(item.id);
            }
            Event::MessageState { id, to, state } => {
                self.note(&format!("{n} knows {id} to {to} {state:?}"));
            }
            Event::Withdrawn { to, ids } => {
                self.note(&format!("{n} has taken {ids:?} to {to} back"));
            }
            Event::Offer(offer) => {
                self.note(&format!("{n} has an offer of {} bytes", offer.size));
                self.hosts[n].offers.push(offer.transfer);
            }
            Event::Transfer { transfer, state } => self.on_transfer(n, *transfer, state),
            Event::Addressed { .. }
            | Event::Recorded(_)
            | Event::Connection(_)
            | Event::Presence(_)
            | Event::Nearby { .. }
            | Event::Path(_)
            | Event::RelayOff
            | Event::FailedLogins(_)
            | Event::Enrolled(_)
            | Event::NewKey { .. }
            | Event::NotApproved { .. }
            | Event::OtherAccount { .. }
            | Event::Approval { .. }
            | Event::DeviceApproved { .. } => {}
        }
        if let Err(violation) = self.model.on_event(n, event, &self.hosts) {
            self.report(violation);
        }
    }

    fn on_transfer(&mut self, n: usize, transfer: TransferId, state: &TransferState) {
        let host = &mut self.hosts[n];
        host.moving.retain(|(moving, _)| *moving != transfer);
        match state {
            TransferState::Looking => return,
            TransferState::Waiting => return host.moving.push((transfer, 0)),
            TransferState::Moving(moved) => return host.moving.push((transfer, moved.done)),
            TransferState::NotOffered { .. }
            | TransferState::Done { .. }
            | TransferState::Declined { .. }
            | TransferState::Failed { .. } => {}
        }
        host.offers.retain(|offer| *offer != transfer);
        if let TransferState::Done {
            path: Some(path), ..
        } = state
        {
            host.arrived.push(path.clone());
        }
        self.note(&format!("{n} ends a transfer: {}", ending(state)));
    }

    // ---- datagrams -----------------------------------------------------------------------------

    fn transmit(&mut self, from: Site, to: SocketAddr, datagram: &[u8]) {
        let addresses = match from {
            Site::Server => &[SERVER, SERVER_V6][..],
            Site::Host(n) => &self.hosts[n].addresses,
            Site::Elsewhere => &[],
        };
        let mut addresses = addresses.iter();
        let Some(source) = addresses.find(|at| at.is_ipv4() == to.is_ipv4()) else {
            self.net.mishaps.barred += 1;
            return;
        };
        let source = *source;
        if let Site::Host(n) = from
            && ![SERVER, SERVER_V6].contains(&to)
        {
            self.hosts[n].sent_directly += 1;
        }
        self.carry(from, source, to, datagram);
    }

    /// Sends a datagram from an address that nobody in the world has.
    pub fn send_stray(&mut self, source: SocketAddr, to: SocketAddr, datagram: &[u8]) {
        self.carry(Site::Elsewhere, source, to, datagram);
    }

    /// What has arrived at such an address since this was asked last.
    pub fn take_strays(&mut self, address: SocketAddr) -> Vec<Stray> {
        let is_here = |stray: &mut Stray| stray.destination == address;
        self.strays.extract_if(.., is_here).collect()
    }

    fn carry(&mut self, from: Site, source: SocketAddr, to: SocketAddr, datagram: &[u8]) {
        let len = datagram.len();
        let arrivals = self
            .net
            .send(from, source, to, len, self.now, &mut self.rng);
        for arrival in arrivals {
            self.schedule(arrival.at, Happening::Datagram(arrival, datagram.to_vec()));
        }
    }

    fn on_datagram(&mut self, arrival: &Arrival, datagram: &[u8]) {
        match arrival.site {
            Site::Server => {
                let (source, now) = (arrival.source, self.now);
                for (to, bytes) in self.server.on_datagram(datagram, source, now) {
                    self.transmit(Site::Server, to, &bytes);
                }
                // What went to control connections.
                self.drain_server();
            }
            Site::Elsewhere => self.strays.push(Stray {
                at: self.now,
                source: arrival.source,
                destination: arrival.destination,
                bytes: datagram.to_vec(),
            }),
            Site::Host(n) => {
                let host = &mut self.hosts[n];
                if !host.addresses.contains(&arrival.destination) || host.asleep_until.is_some() {
                    return;
                }
                if let Some(node) = &mut host.node {
                    self.carried[0] += 1;
                    self.carried[1] += datagram.len() as u64;
                    let input = Input::Datagrams(Datagrams {
                        source: arrival.source,
                        local: None,
                        ecn: None,
                        stride: datagram.len(),
                        bytes: BytesMut::from(datagram),
                    });
                    node.handle_input(input, self.now);
                    self.drain(n);
                }
            }
        }
    }

    // ---- time ----------------------------------------------------------------------------------

    fn schedule(&mut self, at: Instant, what: Happening) {
        self.last_due += 1;
        let order = self.last_due;
        self.queue.push(Reverse(Due { at, order, what }));
    }

    /// Lets time pass.
    pub fn pass(&mut self, span: Duration) {
        let end = self.now + span;
        while self.violation.is_none() && self.step(end) {}
        self.wall = self.wall.saturating_add(span);
        self.now = self.now.max(end);
    }

    /// Does what is next, if it is not after `end`.
    fn step(&mut self, end: Instant) -> bool {
        let queued = self.queue.peek().map(|Reverse(due)| due.at);
        let hosts = self.hosts.iter().filter_map(Host::due);
        let server = self.server.deadline.map(|(at, _)| at);
        let Some(next) = queued.into_iter().chain(hosts).chain(server).min() else {
            return false;
        };
        if next > end {
            return false;
        }
        self.watch_for_spinning(next);
        if next > self.now && self.rng.random_ratio(1, POKE_EVERY) {
            let gap = next.saturating_duration_since(self.now);
            self.now += gap.mul_f64(self.rng.random_range(0.0..1.0));
            let n = self.rng.random_range(0..=self.hosts.len());
            self.poke(n);
            // Whatever came of it may be due before `next`.
            return true;
        }
        self.now = self.now.max(next);
        if queued.is_some_and(|at| at <= self.now) {
            if let Some(Reverse(due)) = self.queue.pop() {
                self.happen(due.what);
            }
            return true;
        }
        for n in 0..self.hosts.len() {
            if self.hosts[n].due().is_some_and(|at| at <= self.now) {
                self.wake(n);
            }
        }
        if self.server.deadline.is_some_and(|(at, _)| at <= self.now)
            && let Some(engine) = &mut self.server.engine
        {
            engine.handle_timeout(self.now);
            for (to, bytes) in self.server.handle_relay_timeout(self.now) {
                self.transmit(Site::Server, to, &bytes);
            }
            self.drain_server();
        }
        true
    }

    /// Wakes all engines before their time.
    pub fn poke_all(&mut self) {
        for n in 0..=self.hosts.len() {
            self.poke(n);
        }
    }

    /// Wakes an engine before its time. If it then has something to do, or wants to be woken earlier
    /// than it said, it slept on work.
    fn poke(&mut self, n: usize) {
        self.pokes += 1;
        let now = self.now;
        let Some(host) = self.hosts.get_mut(n) else {
            return self.poke_server();
        };
        // One that is due at this very moment has said so.
        let is_due = host.deadline.is_some_and(|(at, _)| at <= now);
        let Some(node) = host
            .node
            .as_mut()
            .filter(|_| host.asleep_until.is_none() && !is_due)
        else {
            return;
        };
        node.handle_timeout(now);
        let output = node.poll_output(now, &mut Vec::new());
        let found = if let Output::Wait(deadline) = output {
            earlier(deadline.map(|due| (due.at, due.why)), host.deadline)
        } else {
            Some(format!("{output:?}"))
        };
        if let Some(found) = found {
            let account = &host.account;
            let slept = Violation::new(&format!("{account} slept on {found}"));
            self.report(slept);
        }
    }

    fn poke_server(&mut self) {
        let Some(engine) = &mut self.server.engine else {
            return;
        };
        engine.handle_timeout(self.now);
        let output = engine.poll_output(self.now);
        let found = if let server::Output::Wait(deadline) = output {
            let deadline = deadline.map(|due| (due.at, due.why));
            let deadlines = deadline.into_iter().chain(self.server.relay_deadline());
            earlier(deadlines.min(), self.server.deadline)
        } else {
            Some(format!("{output:?}"))
        };
        if let Some(found) = found {
            self.report(Violation::new(&format!("the server slept on {found}")));
        }
    }

    fn watch_for_spinning(&mut self, next: Instant) {
        self.turns = if next > self.now { 0 } else { self.turns + 1 };
        if self.turns > TURNS_MAX {
            let due = self.hosts.iter().filter_map(|host| host.deadline);
            let whys: Vec<&str> = due
                .filter(|(at, _)| *at <= self.now)
                .map(|(_, why)| why)
                .collect();
            self.report(Violation::new(&format!("time stands still: {whys:?}")));
        }
    }

    fn wake(&mut self, n: usize) {
        let host = &mut self.hosts[n];
        if host.asleep_until.is_some_and(|until| until <= self.now) {
            host.asleep_until = None;
            for what in self.missed.remove(&n).unwrap_or_default() {
                self.schedule(self.now, what);
            }
        }
        let host = &mut self.hosts[n];
        if let Some(node) = &mut host.node {
            node.handle_timeout(self.now);
            self.drain(n);
        }
    }

    fn happen(&mut self, what: Happening) {
        if let Some(n) = self.sleeper(&what) {
            return self.missed.entry(n).or_default().push(what);
        }
        match what {
            Happening::Datagram(arrival, datagram) => self.on_datagram(&arrival, &datagram),
            Happening::Connected(id) => self.on_connected(id),
            Happening::ToServer(id, bytes) => self.on_bytes_at_server(id, &bytes),
            Happening::ToHost(id, input) => self.on_input_at_host(id, input),
            Happening::ServerHears(id) => {
                if let Some(connection) = self.connections.get_mut(&id) {
                    connection.is_broken = true;
                }
                if let Some(engine) = &mut self.server.engine {
                    engine.handle_input(server::Input::Disconnected { connection: id }, self.now);
                    self.drain_server();
                }
            }
            Happening::NotConnected(n, life) => {
                let reason = ClosedReason::Failed("no answer".to_owned());
                let input = Input::Rendezvous(RendezvousInput::Closed(reason));
                self.host_input(n, life, input);
            }
            Happening::Store(n, life, id, request) => {
                if self.hosts[n].life == life && self.hosts[n].node.is_some() {
                    let answer = self.hosts[n].disk.store(&request);
                    self.schedule(self.now, Happening::Stored(n, life, id, answer));
                }
            }
            Happening::Stored(n, life, id, answer) => {
                self.host_input(n, life, Input::Stored(id, answer));
            }
            Happening::Disk(n, life, request) => {
                if self.hosts[n].life == life
                    && self.hosts[n].node.is_some()
                    && let Some((transfer, answer)) = self.hosts[n].disk.disk(request)
                {
                    self.schedule(self.now, Happening::DiskDone(n, life, transfer, answer));
                }
            }
            Happening::DiskDone(n, life, transfer, answer) => {
                self.host_input(n, life, Input::Disk(transfer, answer));
            }
            Happening::Computed(n, life, id, answer) => {
                self.host_input(n, life, Input::Computed(id, answer));
            }
            Happening::Sealed(n, life, id, outcome) => {
                self.host_input(n, life, Input::Sealed(id, outcome));
            }
            Happening::Lan(n, life, said) => self.on_said(n, life, said),
            Happening::ServerStored(life) => {
                if self.server.life == life && self.server.carry_out(self.now) {
                    self.drain_server();
                }
            }
        }
    }

    /// The host that is asleep and notices something when it wakes. Datagrams are lost on it.
    fn sleeper(&self, what: &Happening) -> Option<usize> {
        let n = match what {
            Happening::ToHost(id, _) => self.connections.get(id)?.host,
            Happening::NotConnected(n, ..)
            | Happening::Stored(n, ..)
            | Happening::DiskDone(n, ..)
            | Happening::Computed(n, ..)
            | Happening::Sealed(n, ..)
            | Happening::Lan(n, ..) => *n,
            Happening::Datagram(..)
            | Happening::Connected(_)
            | Happening::ToServer(..)
            | Happening::ServerHears(_)
            | Happening::Store(..)
            | Happening::Disk(..)
            | Happening::ServerStored(_) => return None,
        };
        self.hosts[n].asleep_until.map(|_| n)
    }

    fn host_input(&mut self, n: usize, life: u32, input: Input) {
        let host = &mut self.hosts[n];
        if host.life == life
            && let Some(node) = &mut host.node
        {
            node.handle_input(input, self.now);
            self.drain(n);
        }
    }
}

/// The account of a host.
pub fn account(n: usize) -> AccountName {
    format!("p{n}").parse().expect("a letter and a number")
}

/// What an engine wants to be woken for now, if that is earlier than what it had said.
fn earlier(now: Option<(Instant, &str)>, said: Option<(Instant, &str)>) -> Option<String> {
    let (at, why) = now?;
    let is_earlier = said.is_none_or(|(said, _)| at < said);
    is_earlier.then(|| format!("a deadline: {why}"))
}

const fn ending(state: &TransferState) -> &'static str {
    match state {
        TransferState::Done { .. } => "done",
        TransferState::Declined { .. } => "declined",
        TransferState::Failed { .. } => "failed",
        TransferState::NotOffered { .. } => "not offered",
        TransferState::Looking | TransferState::Waiting | TransferState::Moving(_) => "not at all",
    }
}
