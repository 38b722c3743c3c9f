//! Nodes without I/O: inputs in, outputs compared. Here is what looks inside of a node, or needs a server
//! that lies; everything else runs with the real server, in the scenarios of the crate `tests`.
//!
//! A hand-written rendezvous answers requests with whatever a test says, and a little world carries
//! datagrams on virtual time.

// Devices that aim others at third parties.
mod cannon;
// Long times that pass at once, and numbers at their end.
mod clocks;
// Files from a sender that keeps no rule.
mod files;
// Whose word is whose.
mod identity;
// A device that says whatever a test wants.
mod outsider;
// Watching who comes and goes.
mod presence;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use bytes::BytesMut;
use common::hash::{LeafHash, LeafHasher, leaf_len};
use common::id::{AccountName, DeviceName, MessageId, TransferId};
use common::key::{ChannelBinding, Token};
use common::limits::{CONTROL_FRAME_LEN_MAX, KEEP_ALIVE_INTERVAL, LEAF_LEN};
use common::time::{Epoch, UnixTime};
use common::wire::frame::{self, FrameBuffer};
use common::wire::peer::MessageBody;
use common::wire::rendezvous::{
    Answer, Candidate, CandidateKind, Change, DeviceAnswer, DeviceRequest, DirectoryAnswer,
    DirectoryPush, DirectoryRequest, DirectoryVersion, Entry, Hello, HelloAnswer, LoggedIn,
    LoginAnswer, LoginRequest, Push, Refusal, Request, RequestFrame, ServerFrame, Status,
};

use super::command::{
    Command, CommandError, CommandId, Event, MessageState, PasswordText, PresenceView, Reply,
    TransferState,
};
use super::io::{ClosedReason, DiskAnswer, DiskRequest, RendezvousOutput};
use super::*;
use crate::store::MemoryStore;

const SERVER: &str = "198.51.100.1:7400";

/// A node with its shell's memory.
struct Host {
    node: Node,
    key: DeviceKey,
    name: AccountName,
    address: SocketAddr,
    session: Option<Control>,
    store: MemoryStore,
    /// What the next `Open` finds.
    source: Vec<u8>,
    target: Vec<u8>,
    replies: BTreeMap<CommandId, Result<Reply, CommandError>>,
    events: Vec<Event>,
    next_command: u64,
    due: Option<Instant>,
    why: Option<&'static str>,
    refused_tokens: usize,
}

/// A control connection.
#[derive(Default)]
struct Control {
    frames: FrameBuffer<CONTROL_FRAME_LEN_MAX>,
    greeted: bool,
    online: Option<Entry>,
    watches: bool,
    heard: Vec<Request>,
}

struct World {
    hosts: Vec<Host>,
    now: Instant,
    /// Nobody can reach the server while it is down.
    server_is_up: bool,
    tokens_have_expired: bool,
    /// Keys that the server does not know.
    unknown: Vec<DeviceKey>,
    /// Keys of devices that are no hosts, and what it says whose they are, before all others.
    guests: Vec<(DeviceKey, AccountName)>,
    /// Datagrams to addresses where no host is.
    strays: Vec<(SocketAddr, SocketAddr, BytesMut)>,
    /// What it adds to each answer to a search.
    invented: Vec<Entry>,
    /// Datagrams to addresses where no host is: when, where to and how long.
    misses: Vec<(Instant, SocketAddr, usize)>,
    /// Every n-th datagram is lost.
    loses_every: Option<u64>,
    datagrams: u64,
}

impl World {
    #[expect(clippy::disallowed_methods, reason = "any instant will do as a start")]
    fn new(names: &[&str]) -> Self {
        let now = Instant::now();
        let host = |n: usize, name: &str| Host::new(n as u8 + 1, name, now);
        let hosts = names
            .iter()
            .enumerate()
            .map(|(n, name)| host(n, name))
            .collect();
        let mut world = Self {
            hosts,
            now,
            server_is_up: true,
            tokens_have_expired: false,
            unknown: Vec::new(),
            guests: Vec::new(),
            strays: Vec::new(),
            invented: Vec::new(),
            misses: Vec::new(),
            loses_every: None,
            datagrams: 0,
        };
        world.settle();
        world
    }

    fn command(&mut self, host: usize, command: Command) -> CommandId {
        let now = self.now;
        let host = &mut self.hosts[host];
        host.next_command += 1;
        let id = CommandId(host.next_command);
        host.node.handle_input(Input::Command(id, command), now);
        self.settle();
        id
    }

    fn say(&mut self, from: usize, to: &str, text: &str) -> MessageId {
        let command = Command::Send {
            to: vec![to.parse().unwrap()],
            body: MessageBody::try_from(text.to_owned()).unwrap(),
            sent: UnixTime::from_millis(1),
        };
        let id = self.command(from, command);
        match &self.hosts[from].replies[&id] {
            Ok(Reply::Queued(ids)) => ids[0],
            other => panic!("not queued: {other:?}"),
        }
    }

    /// Lets time pass until `done`, or gives up after ten minutes.
    fn until(&mut self, what: &str, done: impl Fn(&Self) -> bool) {
        let end = self.now + Duration::from_secs(600);
        while !done(self) {
            assert!(self.now < end, "never came: {what}");
            self.step();
        }
    }

    fn pass(&mut self, span: Duration) {
        let end = self.now + span;
        while self.now < end {
            self.step();
        }
    }

    fn step(&mut self) {
        self.now += Duration::from_millis(5);
        for host in &mut self.hosts {
            if host.due.is_some_and(|due| due <= self.now) {
                host.node.handle_timeout(self.now);
            }
        }
        self.settle();
        for host in &self.hosts {
            let is_past = host.due.is_some_and(|due| due <= self.now);
            assert!(!is_past, "{} would spin: {:?}", host.name, host.why);
        }
    }

    fn settle(&mut self) {
        loop {
            let mut quiet = true;
            for n in 0..self.hosts.len() {
                quiet &= self.drain(n);
            }
            if quiet {
                return;
            }
        }
    }

    fn drain(&mut self, n: usize) -> bool {
        let mut quiet = true;
        let mut buffer = Vec::new();
        loop {
            let now = self.now;
            let output = self.hosts[n].node.poll_output(now, &mut buffer);
            let input = match output {
                Output::Wait(deadline) => {
                    self.hosts[n].due = deadline.map(|deadline| deadline.at);
                    self.hosts[n].why = deadline.map(|deadline| deadline.why);
                    return quiet;
                }
                Output::Transmit(transmit) => {
                    self.carry(n, transmit, &buffer);
                    None
                }
                Output::Rendezvous(output) => {
                    self.rendezvous(n, output);
                    None
                }
                Output::Store(id, request) => {
                    Some(Input::Stored(id, self.hosts[n].store.execute(&request)))
                }
                Output::Disk(request) => self.hosts[n].disk(request),
                Output::Compute(id, job) => Some(Input::Computed(id, job.run())),
                Output::Reply(id, reply) => {
                    self.hosts[n].replies.insert(id, reply);
                    None
                }
                Output::Event(event) => {
                    self.hosts[n].events.push(event);
                    None
                }
            };
            quiet = false;
            if let Some(input) = input {
                self.hosts[n].node.handle_input(input, now);
            }
        }
    }

    /// Brings datagrams from where no host is.
    fn bring(&mut self, source: SocketAddr, transmit: Transmit, buffer: &[u8]) {
        let stride = transmit.segment_size.unwrap_or(transmit.size);
        let to = transmit.destination;
        if let Some(host) = self.hosts.iter_mut().find(|host| host.address == to) {
            let datagrams = Datagrams {
                source,
                local: None,
                ecn: None,
                stride,
                bytes: BytesMut::from(&buffer[..transmit.size]),
            };
            host.node
                .handle_input(Input::Datagrams(datagrams), self.now);
        }
        self.settle();
    }

    /// What came to an address where no host is, and where from.
    fn take_strays(&mut self, address: SocketAddr) -> Vec<(SocketAddr, BytesMut)> {
        let strays = std::mem::take(&mut self.strays);
        let here = strays.into_iter().filter(|(to, ..)| *to == address);
        here.map(|(_, from, bytes)| (from, bytes)).collect()
    }

    fn carry(&mut self, from: usize, transmit: Transmit, buffer: &[u8]) {
        let source = self.hosts[from].address;
        let now = self.now;
        let stride = transmit.segment_size.unwrap_or(transmit.size);
        for datagram in buffer[..transmit.size].chunks(stride) {
            self.datagrams += 1;
            if self
                .loses_every
                .is_some_and(|n| self.datagrams.is_multiple_of(n))
            {
                continue;
            }
            let input = |bytes: &[u8], source| {
                let stride = bytes.len();
                let bytes = BytesMut::from(bytes);
                Input::Datagrams(Datagrams {
                    source,
                    local: None,
                    ecn: None,
                    stride,
                    bytes,
                })
            };
            if transmit.destination == SERVER.parse().unwrap() {
                let answer = common::stun::binding_answer(datagram, source).unwrap();
                let server = SERVER.parse().unwrap();
                self.hosts[from]
                    .node
                    .handle_input(input(&answer, server), now);
            } else if let Some(to) = self
                .hosts
                .iter_mut()
                .find(|host| host.address == transmit.destination)
            {
                to.node.handle_input(input(datagram, source), now);
            } else {
                let to = transmit.destination;
                self.misses.push((now, to, datagram.len()));
                if !self.guests.is_empty() {
                    self.strays.push((to, source, BytesMut::from(datagram)));
                }
            }
        }
    }

    // ---- the rendezvous ------------------------------------------------------------------------

    fn rendezvous(&mut self, n: usize, output: RendezvousOutput) {
        let now = self.now;
        let input = match output {
            RendezvousOutput::Connect if self.server_is_up => {
                self.hosts[n].session = Some(Control::default());
                RendezvousInput::Connected {
                    channel_binding: ChannelBinding([n as u8; 32]),
                    local: self.hosts[n].address,
                    server: SERVER.parse().unwrap(),
                    other: None,
                }
            }
            RendezvousOutput::Connect => {
                RendezvousInput::Closed(ClosedReason::Failed("refused".to_owned()))
            }
            RendezvousOutput::Close => {
                self.hosts[n].session = None;
                RendezvousInput::Closed(ClosedReason::Ended)
            }
            RendezvousOutput::Send(bytes) => return self.receive(n, &bytes),
        };
        self.hosts[n]
            .node
            .handle_input(Input::Rendezvous(input), now);
    }

    fn receive(&mut self, n: usize, bytes: &[u8]) {
        let Some(control) = &mut self.hosts[n].session else {
            return;
        };
        control.frames.push(bytes);
        if !control.greeted {
            let Some(_) = control.frames.next_frame::<Hello>().unwrap() else {
                return;
            };
            control.greeted = true;
            let agent = "test".to_owned();
            self.send(n, &HelloAnswer::Welcome { version: 1, agent });
        }
        while let Some(control) = &mut self.hosts[n].session
            && let Some(RequestFrame { id, request }) = control.frames.next_frame().unwrap()
        {
            control.heard.push(request.clone());
            if let Some(answer) = self.answer(n, request) {
                self.send(n, &ServerFrame::Answer { id, answer });
            }
        }
    }

    fn answer(&mut self, n: usize, request: Request) -> Option<Answer> {
        let is_known = |host: &&Host| !self.unknown.contains(&host.key);
        Some(match request {
            Request::Login(LoginRequest::TokenLogin(_)) if self.tokens_have_expired => {
                self.hosts[n].refused_tokens += 1;
                Answer::Refused(Refusal::TokenRefused)
            }
            Request::Login(LoginRequest::TokenLogin(_)) => {
                Answer::Login(LoginAnswer::LoggedIn(LoggedIn {
                    token: None,
                    failed: None,
                }))
            }
            Request::Directory(DirectoryRequest::Announce { status, candidates }) => {
                let candidates = vouched(&candidates, self.hosts[n].address);
                let host = &mut self.hosts[n];
                let entry = Entry {
                    account: host.name.clone(),
                    device_name: DeviceName::lossy("test"),
                    device_key: host.key,
                    status,
                    since: UnixTime::default(),
                    candidates,
                };
                host.session.as_mut().unwrap().online = Some(entry.clone());
                self.push_presence(&entry);
                DirectoryAnswer::Done.into()
            }
            Request::Directory(DirectoryRequest::Find { account }) => {
                let of_account = self.hosts.iter().filter(|host| host.name == account);
                let invented = self.invented.iter().cloned();
                Answer::Directory(DirectoryAnswer::Found {
                    entries: of_account.filter_map(Host::entry).chain(invented).collect(),
                })
            }
            Request::Directory(DirectoryRequest::WhoIs { device_key }) => {
                let owner = self
                    .hosts
                    .iter()
                    .filter(is_known)
                    .find(|host| host.key == device_key);
                let mut guests = self.guests.iter().rev();
                let guest = guests.find(|(key, _)| *key == device_key);
                let guest = guest.map(|(_, account)| account.clone());
                Answer::Directory(DirectoryAnswer::Owner {
                    account: guest.or(owner.map(|host| host.name.clone())),
                })
            }
            Request::Directory(DirectoryRequest::List { .. }) => {
                let entries = self.hosts.iter().filter_map(Host::entry).collect();
                Answer::Directory(DirectoryAnswer::Page {
                    version: DirectoryVersion(1),
                    entries,
                    next: None,
                })
            }
            Request::Directory(DirectoryRequest::Watch { .. }) => {
                self.hosts[n].session.as_mut().unwrap().watches = true;
                DirectoryAnswer::Done.into()
            }
            Request::Login(LoginRequest::LoginStart(_)) => {
                Answer::Refused(Refusal::Blocked { retry_after_s: 60 })
            }
            Request::Login(LoginRequest::RegisterStart { .. }) => {
                Answer::Refused(Refusal::AccountExists)
            }
            Request::Directory(DirectoryRequest::Unwatch) => DirectoryAnswer::Done.into(),
            Request::Device(DeviceRequest::KeepAlive | DeviceRequest::LogOut) => {
                DeviceAnswer::Done.into()
            }
            // Never answered.
            Request::Login(
                LoginRequest::RegisterFinish { .. } | LoginRequest::LoginFinish { .. },
            )
            | Request::Device(DeviceRequest::Admit) => {
                return None;
            }
        })
    }

    fn push_presence(&mut self, entry: &Entry) {
        for n in 0..self.hosts.len() {
            if self.hosts[n]
                .session
                .as_ref()
                .is_some_and(|control| control.watches)
            {
                let changes = vec![Change::Online(entry.clone())];
                let version = DirectoryVersion(2);
                self.send(
                    n,
                    &ServerFrame::Push(Push::Directory(DirectoryPush::Presence {
                        version,
                        changes,
                    })),
                );
            }
        }
    }

    fn send(&mut self, n: usize, frame: &impl serde::Serialize) {
        let mut bytes = Vec::new();
        frame::encode::<CONTROL_FRAME_LEN_MAX>(frame, &mut bytes).unwrap();
        let input = Input::Rendezvous(RendezvousInput::Received(bytes));
        self.hosts[n].node.handle_input(input, self.now);
    }

    /// Ends a node without a word and starts it anew on another port.
    fn crash(&mut self, n: usize) {
        let port = self.hosts[n].address.port() + 1;
        self.restart(n, port);
    }

    /// The same on a port of our choice.
    fn restart(&mut self, n: usize, port: u16) {
        let name = self.hosts[n].name.to_string();
        self.hosts[n] = Host::new(n as u8 + 1, &name, self.now);
        self.hosts[n].address.set_port(port);
        let addresses = vec![self.hosts[n].address.into()];
        let now = self.now;
        self.hosts[n]
            .node
            .handle_input(Input::LocalAddresses(addresses), now);
        self.settle();
    }

    fn break_session(&mut self, n: usize) {
        self.hosts[n].session = None;
        let closed = RendezvousInput::Closed(ClosedReason::Failed("broken".to_owned()));
        self.hosts[n]
            .node
            .handle_input(Input::Rendezvous(closed), self.now);
        self.settle();
    }

    fn send_file(&mut self, size: usize) -> TransferId {
        self.hosts[0].source = (0..size).map(|i| (i / 3) as u8).collect();
        let command = Command::SendFile {
            to: "bob".parse().unwrap(),
            path: "/x".into(),
        };
        let id = self.command(0, command);
        self.until("the offer", |world| {
            world.hosts[0].replies.contains_key(&id)
        });
        match &self.hosts[0].replies[&id] {
            Ok(Reply::Offered(transfer)) => *transfer,
            other => panic!("not offered: {other:?}"),
        }
    }

    fn accept(&mut self, transfer: TransferId) {
        self.until("the offer at bob", |world| {
            !world.hosts[1].node.transfers.offers().is_empty()
        });
        let folder = Some("/folder".into());
        self.command(1, Command::AnswerOffer { transfer, folder });
    }
}

impl Host {
    fn new(n: u8, name: &str, now: Instant) -> Self {
        let name: AccountName = name.parse().unwrap();
        let secret = DeviceSecret::from_seed([n; 32]);
        let key = secret.public();
        let store = MemoryStore::enrolled(name.clone(), Token::from_bytes([n; 32]));
        let epoch = Epoch::new(now, UnixTime::from_millis(1_000_000));
        let options = NodeOptions {
            secret,
            device_name: DeviceName::lossy("test"),
            restored: store.restore(),
            epoch,
        };
        let mut node = Node::new([n; 32], now, options);
        let address = SocketAddr::from(([192, 0, 2, n], 5000));
        node.handle_input(Input::LocalAddresses(vec![address.into()]), now);
        Self {
            node,
            key,
            name,
            address,
            session: None,
            store,
            source: Vec::new(),
            target: Vec::new(),
            replies: BTreeMap::new(),
            events: Vec::new(),
            next_command: 0,
            due: None,
            why: None,
            refused_tokens: 0,
        }
    }

    fn entry(&self) -> Option<Entry> {
        self.session
            .as_ref()
            .and_then(|control| control.online.clone())
    }

    fn texts(&self) -> Vec<String> {
        let shown = |event: &Event| match event {
            Event::Message(item) => Some(item.body.as_str().to_owned()),
            _ => None,
        };
        self.events.iter().filter_map(shown).collect()
    }

    fn has_state(&self, id: MessageId, state: MessageState) -> bool {
        self.events.iter().any(|event| match event {
            Event::MessageState {
                id: of, state: is, ..
            } => *of == id && *is == state,
            _ => false,
        })
    }

    fn end_of(&self, transfer: TransferId) -> Option<TransferState> {
        self.events.iter().rev().find_map(|event| match event {
            Event::Transfer {
                transfer: of,
                state,
            } if *of == transfer && state.is_final() => Some(state.clone()),
            _ => None,
        })
    }

    fn disk(&mut self, request: DiskRequest) -> Option<Input> {
        let size = self.source.len() as u64;
        let (transfer, answer) = match request {
            DiskRequest::Open { transfer, .. } => (
                transfer,
                DiskAnswer::Opened {
                    name: "x".to_owned(),
                    size,
                    executable: false,
                },
            ),
            DiskRequest::ReadLeaf { transfer, index } => {
                let start = index as usize * LEAF_LEN;
                let bytes = &self.source[start..start + leaf_len(size, index).unwrap()];
                let mut hasher = LeafHasher::new(size, index);
                hasher.update(bytes);
                let bytes = bytes.to_vec();
                (
                    transfer,
                    DiskAnswer::Leaf {
                        index,
                        bytes: bytes.into(),
                        hash: hasher.finish(),
                    },
                )
            }
            DiskRequest::Create { transfer, size, .. } => {
                self.target = vec![0; size as usize];
                (transfer, DiskAnswer::Created)
            }
            DiskRequest::WriteLeaf {
                transfer,
                index,
                bytes,
                hash,
            } => (transfer, self.write(index, &bytes, hash)),
            DiskRequest::Finish { transfer } => (
                transfer,
                DiskAnswer::Finished {
                    path: "/folder/x".into(),
                },
            ),
            DiskRequest::Drop { .. } => return None,
        };
        Some(Input::Disk(transfer, answer))
    }

    fn write(&mut self, index: u64, bytes: &[u8], hash: LeafHash) -> DiskAnswer {
        let mut hasher = LeafHasher::new(self.target.len() as u64, index);
        hasher.update(bytes);
        if hasher.finish() != hash {
            return DiskAnswer::Mismatch { index };
        }
        let start = index as usize * LEAF_LEN;
        self.target[start..start + bytes.len()].copy_from_slice(bytes);
        DiskAnswer::Written { index }
    }
}

/// What the server makes of announced endpoints.
fn vouched(endpoints: &[SocketAddr], source: SocketAddr) -> Vec<Candidate> {
    let kind = |endpoint: SocketAddr| {
        if endpoint.ip() == source.ip() {
            CandidateKind::ServerReflexive
        } else {
            CandidateKind::Host
        }
    };
    let candidate = |endpoint: &SocketAddr| Candidate {
        endpoint: *endpoint,
        kind: kind(*endpoint),
    };
    endpoints.iter().map(candidate).collect()
}

/// An endpoint that the server does not vouch for.
fn host_candidate(endpoint: impl Into<SocketAddr>) -> Candidate {
    Candidate {
        endpoint: endpoint.into(),
        kind: CandidateKind::Host,
    }
}

#[test]
#[expect(clippy::disallowed_methods, reason = "any instant will do as a start")]
fn a_connection_that_is_over_is_not_closed_again() {
    let now = Instant::now();
    let mut host = Host::new(1, "alice", now);
    let (expected, seen) = ("one".to_owned(), "another".to_owned());
    let changed = ClosedReason::ServerKeyChanged { expected, seen };
    let inputs = [
        Input::Rendezvous(RendezvousInput::Closed(changed)),
        Input::ShutDown,
    ];
    let mut wishes = Vec::new();
    for input in inputs {
        host.node.handle_input(input, now);
        loop {
            match host.node.poll_output(now, &mut Vec::new()) {
                Output::Wait(_) => break,
                Output::Rendezvous(wish) => wishes.push(wish),
                _ => {}
            }
        }
    }
    assert_eq!(wishes, [RendezvousOutput::Connect]);
}

#[test]
fn t40_peers_that_lost_their_server_come_back_spread_out() {
    let names: Vec<String> = (0..20).map(|n| format!("peer{n}")).collect();
    let mut world = World::new(&names.iter().map(String::as_str).collect::<Vec<_>>());
    world.server_is_up = false;
    for n in 0..20 {
        world.break_session(n);
    }
    let due: BTreeSet<Instant> = world
        .hosts
        .iter()
        .filter_map(|host| host.node.account.poll_timeout(&host.node.effects.requests))
        .collect();
    assert_eq!(due.len(), 20, "no two at the same time");
    let spread = *due.last().unwrap() - *due.first().unwrap();
    assert!(spread > Duration::from_millis(300), "{spread:?}");
}

#[test]
fn t31_a_device_that_the_server_does_not_know_is_not_heard() {
    let mut world = World::new(&["mallory", "bob"]);
    world.unknown.push(world.hosts[0].key);
    let id = world.say(0, "bob", "I am your bank");
    world.pass(Duration::from_secs(30));
    assert!(world.hosts[1].texts().is_empty());
    assert!(!world.hosts[0].has_state(id, MessageState::Delivered));
}

#[test]
fn t31_a_pinned_device_that_was_removed_is_not_heard_any_more() {
    let mut world = World::new(&["alice", "bob"]);
    let id = world.say(0, "bob", "hello");
    world.until("delivery", |world| {
        world.hosts[0].has_state(id, MessageState::Delivered)
    });
    world.unknown.push(world.hosts[1].key);
    world.crash(1);
    world.say(1, "alice", "still me");
    world.pass(Duration::from_secs(30));
    assert!(world.hosts[0].texts().is_empty());
}

#[test]
fn a_pinned_device_is_heard_while_the_server_is_away() {
    let mut world = World::new(&["alice", "bob"]);
    let id = world.say(0, "bob", "hello");
    world.until("delivery", |world| {
        world.hosts[0].has_state(id, MessageState::Delivered)
    });
    let entry = world.hosts[0].entry().unwrap();
    world.crash(1);
    world.server_is_up = false;
    world.break_session(0);
    let now = world.now;
    let alice = "alice".parse().unwrap();
    world.hosts[1]
        .node
        .effects
        .links
        .dial(&alice, vec![entry], false, now);
    world.until("the link", |world| {
        world.hosts[1].node.effects.links.link_to(&alice).is_some()
    });
}

#[test]
fn a_remaining_link_takes_over_what_a_lost_one_carried() {
    let mut world = World::new(&["alice", "bob"]);
    // Both write before either has a link, so both dial.
    for (from, to) in [(0, "bob"), (1, "alice")] {
        let command = Command::Send {
            to: vec![to.parse().unwrap()],
            body: MessageBody::try_from("first".to_owned()).unwrap(),
            sent: UnixTime::from_millis(1),
        };
        let now = world.now;
        let input = Input::Command(CommandId(100), command);
        world.hosts[from].node.handle_input(input, now);
    }
    world.settle();
    world.until("both messages", |world| {
        world.hosts.iter().all(|host| host.texts() == ["first"])
    });
    let bob: AccountName = "bob".parse().unwrap();
    let newest = world.hosts[0].node.effects.links.link_to(&bob).unwrap();
    world.loses_every = Some(1);
    let id = world.say(0, "bob", "second");
    world.loses_every = None;
    let now = world.now;
    world.hosts[0].node.effects.links.close(newest, now);
    assert!(
        world.hosts[0].node.effects.links.link_to(&bob).is_some(),
        "there were two links"
    );
    world.hosts[0].node.settle(now);
    world.settle();
    world.until("delivery", |world| {
        world.hosts[0].has_state(id, MessageState::Delivered)
    });
    assert!(world.now - now < Duration::from_secs(1));
    assert_eq!(world.hosts[1].texts(), ["first", "second"]);
}

#[test]
fn t35_a_key_that_moves_to_another_account_is_refused() {
    let mut world = World::new(&["alice", "bob"]);
    let id = world.say(0, "bob", "hello");
    world.until("delivery", |world| {
        world.hosts[0].has_state(id, MessageState::Delivered)
    });
    let key = world.hosts[1].key;
    world.hosts[1].name = "carol".parse().unwrap();
    let entry = Entry {
        account: "carol".parse().unwrap(),
        ..world.hosts[1].entry().unwrap()
    };
    let now = world.now;
    let dials =
        world.hosts[0]
            .node
            .effects
            .links
            .dial(&"carol".parse().unwrap(), vec![entry], false, now);
    assert_eq!(dials, 0, "{key:?} is pinned to bob");
}

#[test]
fn refusals_of_the_server_reach_whoever_asked_and_are_not_retried() {
    let mut world = World::new(&["alice"]);
    let password = || PasswordText("correct horse".to_owned().into());
    let account: AccountName = "alice".parse().unwrap();
    let login = Command::LogIn {
        account: account.clone(),
        password: password(),
        code: None,
    };
    let id = world.command(0, login);
    let blocked = CommandError::Refused(Refusal::Blocked { retry_after_s: 60 });
    assert_eq!(world.hosts[0].replies[&id], Err(blocked));
    let register = Command::Register {
        account,
        password: password(),
    };
    let id = world.command(0, register);
    assert_eq!(
        world.hosts[0].replies[&id],
        Err(CommandError::Refused(Refusal::AccountExists))
    );
    world.pass(Duration::from_secs(60));
    let heard = &world.hosts[0].session.as_ref().unwrap().heard;
    let logins = heard
        .iter()
        .filter(|request| matches!(request, Request::Login(LoginRequest::LoginStart(_))))
        .count();
    assert!(
        logins <= 1,
        "a password is never tried again unasked: {logins}"
    );
}

#[test]
fn an_idle_session_is_kept_alive_and_a_silent_server_is_given_up() {
    let mut world = World::new(&["alice"]);
    world.pass(KEEP_ALIVE_INTERVAL * 4);
    let heard = &world.hosts[0].session.as_ref().unwrap().heard;
    let alive = heard
        .iter()
        .filter(|request| matches!(request, Request::Device(DeviceRequest::KeepAlive)))
        .count();
    assert!((3..=5).contains(&alive), "{alive}");

    // A connection that swallows everything.
    world.hosts[0].session = None;
    world.server_is_up = false;
    world.until("the node gives up", |world| {
        !world.hosts[0].node.effects.requests.is_online()
    });
}

#[test]
fn a_receipt_that_was_lost_is_there_before_the_link_is_closed() {
    let mut world = World::new(&["alice", "bob"]);
    world.say(0, "bob", "first");
    world.until("both are linked", |world| {
        world.hosts[1].texts() == ["first"]
    });
    let now = world.now;
    let command = Command::Send {
        to: vec!["bob".parse().unwrap()],
        body: MessageBody::try_from("second".to_owned()).unwrap(),
        sent: UnixTime::from_millis(1),
    };
    let input = Input::Command(CommandId(100), command);
    world.hosts[0].node.handle_input(input, now);
    world.drain(0);
    // Bob has it and says so, and leaves for good: nobody finds him any more.
    world.loses_every = Some(1);
    world.drain(1);
    assert_eq!(world.hosts[1].texts(), ["first", "second"]);
    world.hosts[1].session = None;
    world.hosts[1].node.handle_input(Input::ShutDown, now);
    world.drain(1);
    world.loses_every = None;
    let Ok(Reply::Queued(ids)) = &world.hosts[0].replies[&CommandId(100)] else {
        panic!("not queued");
    };
    let id = ids[0];
    world.until("the receipt", |world| {
        world.hosts[0].has_state(id, MessageState::Delivered)
    });
    world.until("the end", |world| !world.hosts[1].node.has_links());
    assert!(world.now - now < common::limits::FAREWELL_TIMEOUT);
}
