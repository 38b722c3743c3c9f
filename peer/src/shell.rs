//! The shell around a [`Node`]: sockets, files, threads and a clock. It makes no
//! decisions.
//!
//! One thread runs a mio loop. In each turn it waits, notes what is ready, reads the clock once, feeds
//! the node everything that came, and drains the node's outputs until it says for how long to wait.
//! What takes longer than the loop may stand still runs on bounded workers. Sockets are edge-triggered:
//! each remembers that it is readable until the system said that there is nothing more, and a socket
//! that used up its turn keeps the loop from sleeping.
//!
//! The loop never waits for a worker, a client or a server; whoever is slower than a bound allows is
//! told so or dropped.

use std::collections::VecDeque;
use std::fmt;
use std::io::{self, ErrorKind};
use std::net::{Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Receiver;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use common::id::DeviceName;
use common::key::DeviceSecret;
use common::limits::{FAREWELL_TIMEOUT_MAX, WORKER_ANSWERS_MAX};
use common::os::bind::BindAddress;
use common::os::clock::{epoch, now};
use common::os::lines::{RequestId, Tokens};
use common::os::worker::Worker;
use common::password::PasswordError;
use common::tls::ServerTrust;
use mio::{Events, Poll, Token, Waker};

pub mod control;
mod disk;
mod gateway;
mod history;
mod lan;
#[cfg(feature = "local-node")]
mod local;
pub mod names;
mod network;
mod port_mapping;
mod sleep;
pub mod tls;
mod udp;
mod upnp;
pub mod workers;

use self::control::ControlServer;
pub(crate) use self::disk::has_more_than_it_says;
pub use self::history::HistoryError;
use self::history::{History, OutboxJournal};
use self::lan::Lan;
#[cfg(feature = "local-node")]
pub use self::local::{Heard, LocalNode};
use self::network::NetworkWatch;
use self::port_mapping::PortMapper;
use self::sleep::SleepWatch;
use self::tls::RendezvousConnection;
pub use self::tls::probe;
use self::udp::Udp;
use self::workers::{Answer, Answers, Lookup};
use crate::node::command::CommandId;
use crate::node::io::{
    DiskAnswer, DiskFailure, DiskRequest, Job, JobId, Outcome, RendezvousInput, SealWork,
    StoreAnswer, StoreId, StoreRequest, WorkId,
};
use crate::node::{Input, Node, NodeOptions, Output, PathRule};

/// How long a node that stops waits for receipts to be on disk, and for each worker.
const STOP_PATIENCE: Duration = Duration::from_secs(1);
/// Events of one turn: more sockets than there are, so none waits for the next.
const EVENTS_MAX: usize = 64;

const WAKER: Token = Token(0);
const UDP: Token = Token(1);
const CONNECTION: Token = Token(2);
const LISTENER: Token = Token(3);
const NETWORK: Token = Token(4);
const FIRST_CLIENT: Token = Token(5);

/// Starts a node: opens its history and its sockets, and runs it on a thread of its own. The caller
/// holds the lock of the profile.
///
/// # Errors
///
/// If one of them cannot be opened, or the thread cannot be started.
pub fn start(settings: NodeSettings) -> Result<RunningNode, StartError> {
    let poll = Poll::new().map_err(StartError::System)?;
    let waker = Waker::new(poll.registry(), WAKER).map_err(StartError::System)?;
    let waker = Arc::new(waker);
    let is_stopping = Arc::new(AtomicBool::new(false));
    let event_loop = EventLoop::new(settings, poll, waker.clone(), is_stopping.clone())?;
    let thread = thread::Builder::new()
        .name("node".to_owned())
        .spawn(move || event_loop.run())
        .map_err(StartError::System)?;
    Ok(RunningNode {
        is_stopping,
        waker,
        thread: Some(thread),
    })
}

/// What a node is started with.
#[derive(Debug)]
pub struct NodeSettings {
    /// The address of the rendezvous server.
    pub server: ServerAddress,
    /// How the server proves that it is the right one.
    pub trust: ServerTrust,
    /// This device's key.
    pub secret: DeviceSecret,
    /// The device's name, as its owner's other devices and contacts see it.
    pub device_name: DeviceName,
    /// The path of the history, an SQLite file; created if it is missing.
    pub history: PathBuf,
    /// The path of the profile's Unix socket; replaced if it exists.
    pub socket: PathBuf,
    /// Where to bind the UDP socket.
    pub udp: BindAddress,
    /// Which ways packets to other devices may take.
    pub rule: PathRule,
    /// Whether it announces itself on the local network and listens for others there.
    pub lan: bool,
    /// Whether it asks the gateway for a port.
    pub port_mapping: bool,
}

/// The address of a rendezvous server. Its TCP and UDP ports have the same number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerAddress {
    /// A host name or an IP address, without brackets.
    pub host: String,
    /// The number of both ports.
    pub port: u16,
}

impl fmt::Display for ServerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.parse::<Ipv6Addr>().is_ok() {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// What to think of where a socket cannot be bound.
fn hint(error: &io::Error) -> &'static str {
    if error.kind() == ErrorKind::AddrNotAvailable {
        "; this host does not have that address"
    } else {
        "; is it taken by another program?"
    }
}

/// Why a node cannot be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The server's address or the trust in it cannot be used.
    #[error("{0}")]
    Server(String),
    /// The history cannot be opened.
    #[error(transparent)]
    History(#[from] HistoryError),
    /// The UDP socket cannot be bound.
    #[error("cannot use the UDP address {address}: {source}{}", hint(source))]
    Udp {
        /// The address that was tried last.
        address: SocketAddr,
        /// The system's error.
        source: io::Error,
    },
    /// The profile's socket cannot be bound.
    #[error("cannot create the profile's socket {}: {source}", path.display())]
    Socket {
        /// The socket's path.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The system gives no more threads or file descriptors.
    #[error("the system has no threads or descriptors left: {0}")]
    System(io::Error),
}

/// A node that runs. Dropping it stops it.
#[derive(Debug)]
pub struct RunningNode {
    is_stopping: Arc<AtomicBool>,
    waker: Arc<Waker>,
    thread: Option<JoinHandle<()>>,
}

impl RunningNode {
    /// Ends the node and waits for it: everybody who is linked to it was told, what was asked of the
    /// history is on disk, and the control connection is closed in good order if the server takes that
    /// within a second.
    pub fn stop(self) {
        drop(self);
    }

    /// Tells whether the node has ended by itself, which it does only after a fault that the log
    /// names.
    pub fn is_finished(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }
}

impl Drop for RunningNode {
    fn drop(&mut self) {
        self.is_stopping.store(true, Ordering::Release);
        if let Err(error) = self.waker.wake() {
            log::warn!("the node cannot be woken: {error}");
        }
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            log::error!("the node ended with a panic");
        }
    }
}

/// Everything that the loop owns.
#[derive(Debug)]
struct EventLoop {
    poll: Poll,
    node: Node,
    udp: Udp,
    connection: RendezvousConnection,
    control: ControlServer,
    lan: Lan,
    port_mapper: PortMapper,
    /// What a caller on this thread has not taken yet; `None` if there is no such caller.
    #[cfg(feature = "local-node")]
    heard: Option<VecDeque<Heard>>,
    workers: Workers,
    answers: Receiver<Answer>,
    journal: OutboxJournal,
    /// What the history has not been asked yet.
    stores: Vec<(StoreId, StoreRequest)>,
    may_have_answers: bool,
    /// Until when the node has nothing to do by itself.
    deadline: Option<Instant>,
    network: NetworkWatch,
    sleep: SleepWatch,
    /// Where the node puts packets.
    buffer: Vec<u8>,
    is_stopping: Arc<AtomicBool>,
}

#[derive(Debug)]
struct Workers {
    history: Worker<(StoreId, StoreRequest)>,
    disk: Worker<DiskRequest>,
    stretcher: Worker<(JobId, Job)>,
    sealer: Worker<(WorkId, SealWork)>,
    resolver: Worker<Lookup>,
}

impl EventLoop {
    fn new(
        settings: NodeSettings,
        poll: Poll,
        waker: Arc<Waker>,
        is_stopping: Arc<AtomicBool>,
    ) -> Result<Self, StartError> {
        let (connection, udp, control) = open_sockets(&settings, &poll)?;
        let mut history = History::open(&settings.history)?;
        let journal = history.take_journal(&settings.history)?;
        let restored = history
            .restore()
            .map_err(|error| HistoryError::new(&settings.history, error))?;
        let (answers, queue) = Answers::new(waker, WORKER_ANSWERS_MAX);
        let workers =
            Workers::spawn(history, &settings.history, &answers).map_err(StartError::System)?;
        let now = now();
        let network = NetworkWatch::new(poll.registry(), NETWORK, now);
        let options = NodeOptions {
            secret: settings.secret,
            device_name: settings.device_name,
            restored,
            epoch: epoch(),
            rule: settings.rule,
            lan: settings.lan,
            port_mapping: settings.port_mapping,
            is_port_chosen: settings.udp.chosen_port().is_some(),
        };
        Ok(Self {
            poll,
            node: Node::new(rand::random(), now, options),
            udp,
            connection,
            control,
            lan: Lan::new(answers.clone(), now),
            port_mapper: PortMapper::new(answers),
            #[cfg(feature = "local-node")]
            heard: None,
            workers,
            answers: queue,
            journal,
            stores: Vec::new(),
            may_have_answers: false,
            deadline: Some(now),
            network,
            sleep: SleepWatch::new(),
            buffer: Vec::new(),
            is_stopping,
        })
    }

    fn run(mut self) {
        let mut events = Events::with_capacity(EVENTS_MAX);
        while !self.is_stopping.load(Ordering::Acquire) {
            if let Err(error) = self.wait(&mut events, None) {
                log::error!("the loop cannot wait for events: {error}");
                break;
            }
            self.turn(now());
        }
        self.wind_down(&mut events);
    }

    /// Sleeps until something is ready or due, but not longer than `timeout_max`, and notes what is ready.
    fn wait(&mut self, events: &mut Events, timeout_max: Option<Duration>) -> io::Result<()> {
        self.ask_history();
        let timeout = self.timeout().into_iter().chain(timeout_max).min();
        self.udp.update_interest(self.poll.registry(), UDP)?;
        match self.poll.poll(events, timeout) {
            Err(error) if error.kind() == ErrorKind::Interrupted => return Ok(()),
            other => other?,
        }
        for event in events.iter() {
            match event.token() {
                WAKER => self.may_have_answers = true,
                UDP => {
                    let (is_readable, is_writable) = (event.is_readable(), event.is_writable());
                    self.udp.note_readiness(is_readable, is_writable);
                }
                CONNECTION => {
                    let (is_readable, is_writable) = (event.is_readable(), event.is_writable());
                    self.connection.note_readiness(is_readable, is_writable);
                }
                LISTENER => self.control.note_acceptable(),
                NETWORK => self.network.note_change(now()),
                _ => self.control.note_readiness(event),
            }
        }
        Ok(())
    }

    /// Feeds the node all that came, and does all that it says.
    fn turn(&mut self, now: Instant) {
        if let Some(span) = self.sleep.take() {
            self.node.handle_input(Input::Woke(span), now);
        }
        self.udp.handle_timeout(now);
        self.lan.handle_timeout(now);
        self.take_answers(now);
        self.take_addresses(now);
        self.udp
            .receive(|datagrams| self.node.handle_input(Input::Datagrams(datagrams), now));
        let mut said = VecDeque::new();
        self.connection
            .handle_turn(self.poll.registry(), now, &mut said);
        self.take_said(said, now);
        for (id, command) in self.control.handle_turn(self.poll.registry(), now) {
            let id = CommandId(id.0);
            self.node.handle_input(Input::Command(id, command), now);
        }
        if self.deadline.is_some_and(|deadline| deadline <= now) {
            self.node.handle_timeout(now);
        }
        self.drain(now);
        self.control.flush();
    }

    fn take_answers(&mut self, now: Instant) {
        if !self.may_have_answers {
            return;
        }
        for _ in 0..WORKER_ANSWERS_MAX {
            let Ok(answer) = self.answers.try_recv() else {
                self.may_have_answers = false;
                return;
            };
            match answer {
                Answer::Stored(id, answer) => {
                    self.journal.on_answer(id, &answer);
                    self.node.handle_input(Input::Stored(id, answer), now);
                }
                Answer::Disk(transfer, answer) => {
                    self.node.handle_input(Input::Disk(transfer, answer), now);
                }
                Answer::Computed(id, answer) => {
                    self.node.handle_input(Input::Computed(id, answer), now);
                }
                Answer::Sealed(id, outcome) => {
                    self.node.handle_input(Input::Sealed(id, outcome), now);
                }
                Answer::Lan(heard) => self.node.handle_input(Input::Lan(heard), now),
                Answer::PortMapping(found) => {
                    self.port_mapper.note(&found);
                    self.node.handle_input(Input::PortMapping(found), now);
                }
                Answer::Resolved(resolved) => {
                    let mut said = VecDeque::new();
                    let registry = self.poll.registry();
                    self.connection
                        .handle_resolved(resolved, registry, now, &mut said);
                    self.take_said(said, now);
                }
            }
        }
    }

    fn take_addresses(&mut self, now: Instant) {
        if !self.network.is_due(now) {
            return;
        }
        let changed = self.network.take_changed(&self.udp, now);
        let network = &self.network;
        self.port_mapper
            .set_network(network.addresses(), network.gateway());
        if let Some(addresses) = changed {
            self.node
                .handle_input(Input::LocalAddresses(addresses), now);
        }
    }

    fn take_said(&mut self, said: VecDeque<RendezvousInput>, now: Instant) {
        for input in said {
            self.node.handle_input(Input::Rendezvous(input), now);
        }
    }

    /// Does what the node says until there is nothing more, or no room to send it.
    fn drain(&mut self, now: Instant) {
        while !self.udp.is_blocked() {
            let output = self.node.poll_output(now, &mut self.buffer);
            if let Output::Wait(deadline) = output {
                self.deadline = deadline.map(|deadline| deadline.at);
                return;
            }
            self.handle_output(output, now);
        }
        // Whatever the node still has to say, it says when there is room again.
        self.deadline = None;
    }

    fn handle_output(&mut self, output: Output, now: Instant) {
        match output {
            Output::Transmit(transmit) => self.udp.send(&transmit, &self.buffer, now),
            Output::Rendezvous(output) => {
                let mut said = VecDeque::new();
                self.connection
                    .handle_output(output, &self.workers.resolver, now, &mut said);
                self.take_said(said, now);
            }
            Output::Store(id, request) => {
                self.journal.on_request(id, &request);
                self.stores.push((id, request));
            }
            Output::Disk(request) => self.ask_disk(request, now),
            Output::Compute(id, job) => {
                if self.workers.stretcher.submit((id, job)).is_err() {
                    let answer = Outcome(Err(PasswordError::Stretch));
                    self.node.handle_input(Input::Computed(id, answer), now);
                }
            }
            Output::Seal(id, work) => {
                if let Err((id, work)) = self.workers.sealer.submit((id, work)) {
                    // There is never so much; it only takes longer.
                    let outcome = work.run();
                    self.node.handle_input(Input::Sealed(id, outcome), now);
                }
            }
            Output::Reply(id, result) => {
                #[cfg(feature = "local-node")]
                let Some(result) = local::take_reply(self.heard.as_mut(), id, result) else {
                    return;
                };
                self.control.reply(RequestId(id.0), result);
            }
            Output::Event(event) => {
                self.control.notify(&event);
                #[cfg(feature = "local-node")]
                if let Some(heard) = &mut self.heard {
                    heard.push_back(Heard::Event(event));
                }
            }
            Output::Lan(announcement) => self.lan.announce(announcement),
            Output::PortMapping(order) => self.port_mapper.order(order),
            Output::Wait(_) => {}
        }
    }

    /// Hands the history what the last turn asked of it: after all that somebody waits for was sent,
    /// and together, so that it becomes one transaction. Where one finds no room, the rest is not tried
    /// either: it would overtake.
    fn ask_history(&mut self) {
        let mut has_room = true;
        for (id, request) in std::mem::take(&mut self.stores) {
            has_room = has_room && self.workers.history.submit((id, request)).is_ok();
            if !has_room {
                let now = now();
                let answer = StoreAnswer::Failed("too much waits for the disk".to_owned());
                self.node.handle_input(Input::Stored(id, answer), now);
                self.drain(now);
            }
        }
    }

    fn ask_disk(&mut self, request: DiskRequest, now: Instant) {
        let Err(request) = self.workers.disk.submit(request) else {
            return;
        };
        if let DiskRequest::Drop { .. } = request {
            log::error!("the disk's queue is longer than all transfers can make it");
            return;
        }
        let transfer = request.transfer();
        let answer = DiskAnswer::Failed(DiskFailure {
            reason: "too much waits for the disk".to_owned(),
            told: "too much waits for the disk",
        });
        self.node.handle_input(Input::Disk(transfer, answer), now);
    }

    fn timeout(&self) -> Option<Duration> {
        let wants_turn = self.may_have_answers
            || !self.stores.is_empty()
            || self.udp.wants_turn()
            || self.connection.wants_turn()
            || self.control.wants_turn();
        if wants_turn {
            return Some(Duration::ZERO);
        }
        let deadlines = [
            Some(self.network.deadline()),
            self.deadline,
            self.udp.deadline(),
            self.lan.deadline(),
            self.connection.deadline(),
            self.control.deadline(),
        ];
        let first = deadlines.into_iter().flatten().min()?;
        Some(first.saturating_duration_since(now()))
    }

    /// Ends everything: lets the node say goodbye, then closes what is open and waits for the disk.
    fn wind_down(mut self, events: &mut Events) {
        self.say_goodbye(events);
        self.journal.clear();
        self.ask_history();
        self.control.close();
        self.lan.finish();
        self.port_mapper.finish();
        // Workers that wait for the loop to take an answer learn that it does not.
        drop(self.answers);
        self.workers.finish();
    }

    fn say_goodbye(&mut self, events: &mut Events) {
        let until = now() + STOP_PATIENCE;
        // A message that was just shown may still be on its way to the disk.
        while self.node.owes_receipts() {
            let left = until.saturating_duration_since(now());
            if left.is_zero() || self.wait(events, Some(left)).is_err() {
                break;
            }
            self.turn(now());
        }
        self.node.handle_input(Input::ShutDown, now());
        self.turn(now());
        let until = now() + FAREWELL_TIMEOUT_MAX;
        while self.node.has_links() || !self.connection.is_idle() || self.udp.is_blocked() {
            let left = until.saturating_duration_since(now());
            if left.is_zero() || self.wait(events, Some(left)).is_err() {
                return;
            }
            self.turn(now());
        }
    }
}

impl Workers {
    /// The list of unfinished files is beside the history's file.
    fn spawn(history: History, beside: &Path, answers: &Answers) -> io::Result<Self> {
        Ok(Self {
            history: history.spawn(answers.clone())?,
            disk: disk::spawn(answers.clone(), beside.with_file_name("parts"))?,
            stretcher: workers::spawn_stretcher(answers.clone())?,
            sealer: workers::spawn_sealer(answers.clone())?,
            resolver: workers::spawn_resolver(answers.clone())?,
        })
    }

    /// Waits for what must be on disk. The other two have nothing to lose: their threads end when
    /// they are done with what they do.
    fn finish(self) {
        self.history.finish(STOP_PATIENCE);
        self.disk.finish(STOP_PATIENCE);
    }
}

fn open_sockets(
    settings: &NodeSettings,
    poll: &Poll,
) -> Result<(RendezvousConnection, Udp, ControlServer), StartError> {
    let connection =
        RendezvousConnection::new(settings.server.clone(), &settings.trust, CONNECTION)
            .map_err(StartError::Server)?;
    let bound = settings.udp.bind(Udp::bind);
    let mut udp = bound.map_err(|(address, source)| StartError::Udp { address, source })?;
    udp.register(poll.registry(), UDP)
        .map_err(StartError::System)?;
    let clients = Tokens::new(FIRST_CLIENT, 1);
    let control = ControlServer::bind(&settings.socket, poll.registry(), LISTENER, clients)
        .map_err(|source| StartError::Socket {
            path: settings.socket.clone(),
            source,
        })?;
    Ok((connection, udp, control))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_show_as_they_are_typed() {
        let shown = |host: &str| {
            let host = host.to_owned();
            ServerAddress { host, port: 7400 }.to_string()
        };
        assert_eq!(
            shown("rendezvous.example.org"),
            "rendezvous.example.org:7400"
        );
        assert_eq!(shown("192.0.2.1"), "192.0.2.1:7400");
        assert_eq!(shown("2001:db8::1"), "[2001:db8::1]:7400");
    }
}
