//! The event loop: passes what sockets, threads and time bring to the engine, and carries out what it asks.
//!
//! One thread, one `Poll`; nothing here blocks except the poll. Sockets are edge-triggered: each is read
//! until it has no more, or until it is the others' turn and it goes on the ready list.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::net as std_unix;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::key::Fingerprint;
use common::limits::RELAY_TRAINS_WAITING_MAX;
use common::os::accept::{AcceptFailures, is_per_connection};
use common::os::clock;
use common::os::lines::{LineServer, RequestId, Tokens};
use mio::net::{TcpListener, TcpStream, UnixStream};
use mio::{Events, Interest, Poll, Token, Waker};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustls::ServerConfig;
use signal_hook::consts::{SIGINT, SIGTERM};
use socket2::{Domain, Protocol, Socket, Type};

use super::admin::{self, AdminServer};
use super::encoder::Encoder;
use super::screen::{self, Screen};
use super::tls::{Event, Progress, TlsConnection};
use super::udp::{UdpSockets, UdpThreads};
use super::workers::Workers;
use super::{DataFolder, Failure, ambient, data};
use crate::config::ServeConfig;
use crate::relay::{ControlId, Relay};
use crate::server::{CloseReason, CommandId, ConnectionId, Input, Output, Server, ServerOptions};
use crate::store::Store;

const LISTENER: Token = Token(0);
const WAKER: Token = Token(1);
const SIGNALS: Token = Token(2);
const ADMIN: Token = Token(3);
/// Tokens of the admin socket's clients are even from here on.
const ADMIN_CLIENTS: Token = Token(8);
/// Tokens of connections are odd from here on.
const CONNECTION_TOKENS: usize = 9;
/// Connections that the system holds until they are accepted: a crowd that reconnects after a restart.
const BACKLOG: i32 = 1024;
/// Connections accepted in one turn of the loop, so that established ones are not kept waiting.
const ACCEPTS_PER_TURN: usize = 64;
/// Interval at which accepting is tried again while the system has no descriptor left.
const ACCEPT_RETRY_INTERVAL: Duration = Duration::from_millis(100);
/// Time for connections to take what they are still sent when the server stops.
const STOP_TIMEOUT: Duration = Duration::from_secs(2);
/// Ports to try until one is free for both TCP and UDP, if the system chooses the port.
const PORT_TRIES: usize = 16;
/// What to do if the second UDP port that was typed cannot be bound.
const SECOND_PORT_HINT: &str =
    "choose another second UDP port with --stun-port PORT, or leave it out";

/// Serves until SIGINT or SIGTERM.
pub(super) fn run(path: &Path, config: &ServeConfig, screen: Screen) -> Result<(), Failure> {
    raise_descriptor_limit();
    let folder = DataFolder::open(path)?;
    let identity = match &config.certificate {
        Some(_) => data::read_identity(path, config.certificate.as_deref())?,
        None => folder.identity()?,
    };
    let setup = folder.opaque_setup()?;
    let mut store = folder.store()?;
    let restored = store.restore().map_err(Failure::Store)?;
    warn_of_named_credentials(restored.named_credentials);
    let fingerprint = data::fingerprint(&identity)?;
    let tls = identity.into_server_config().map_err(|error| {
        let path = config.certificate.as_deref().unwrap_or(path);
        data::certificate_problem(path, &error)
    })?;
    let bind = |address| Sockets::bind(address, config.udp_threads);
    let sockets = config.listen.bind(bind).map_err(not_bound)?;
    let second = second_port(&sockets, config.stun_port)?;

    let mut options = ServerOptions::new(folder.bucket_key()?);
    options.registration = config.registration;
    options.lockout = config.lockout;
    options.relay_rate = config.relay.map(|limits| limits.of_account);
    let epoch = clock::epoch();
    let server = Server::new(ambient::seed()?, clock::now(), epoch, options, restored);

    let address = sockets.address;
    let stun_port = second.as_ref().and_then(|second| second.local_addr().ok());
    let stun_port = stun_port.map(|second| second.port());
    let poll = Poll::new().map_err(poll_problem)?;
    let waker = Arc::new(Waker::new(poll.registry(), WAKER).map_err(poll_problem)?);
    let workers = Workers::start(store, setup, &waker)?;
    let relay = Relay::new(
        ambient::seed()?,
        config.relay.unwrap_or_default(),
        clock::now(),
    );
    let udp_sockets = UdpSockets {
        main: sockets.udp,
        second,
    };
    let udp = UdpThreads::start(udp_sockets, relay, &waker)?;
    let threads = (workers, udp);
    let mut serving = Loop::new(poll, sockets.tcp, tls, server, threads, folder.path())?;
    announce(screen, (address, stun_port), &fingerprint, folder.path())?;
    let ended = serving.run();
    serving.end();
    ended
}

fn warn_of_named_credentials(accounts: u32) {
    if accounts > 0 {
        log::warn!(
            "accounts made by an early version: {accounts}. Guesses that somebody sent before one of them was \
             made can be tested against a single log-in. To prevent that, remove the account and add it again"
        );
    }
}

/// Raises the limit of open descriptors, one per connection: systems allow some 1,000 until a program asks
/// for more.
fn raise_descriptor_limit() {
    let before = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: before.maximum,
        maximum: before.maximum,
    };
    match setrlimit(Resource::Nofile, raised) {
        Ok(()) => log::debug!(
            "descriptors: before={:?} now={:?}",
            before.current,
            raised.current
        ),
        Err(why) => log::debug!("cannot raise the limit of descriptors: {why}"),
    }
}

const fn poll_problem(why: io::Error) -> Failure {
    Failure::System {
        what: "wait for sockets",
        why,
    }
}

// ---- sockets -----------------------------------------------------------------------------------

/// One port for both protocols.
struct Sockets {
    tcp: std::net::TcpListener,
    /// One for each UDP thread.
    udp: Vec<std::net::UdpSocket>,
    address: SocketAddr,
    /// The system chose the port.
    is_chosen: bool,
}

impl Sockets {
    fn bind(address: SocketAddr, udp_threads: usize) -> io::Result<Self> {
        let mut tries = if address.port() == 0 { PORT_TRIES } else { 1 };
        loop {
            let tcp = socket(address, Type::STREAM, Protocol::TCP)?;
            tcp.set_reuse_address(true)?;
            tcp.bind(&address.into())?;
            tcp.listen(BACKLOG)?;
            let tcp = std::net::TcpListener::from(tcp);
            let bound = tcp.local_addr()?;
            tries -= 1;
            match udp_sockets(bound, udp_threads) {
                Err(error) if error.kind() == io::ErrorKind::AddrInUse && tries > 0 => {}
                Err(error) => return Err(error),
                Ok(udp) => {
                    return Ok(Self {
                        tcp,
                        udp,
                        address: bound,
                        is_chosen: address.port() == 0,
                    });
                }
            }
        }
    }
}

/// Binds so many sockets to one address. The port is taken from other servers by its TCP socket.
fn udp_sockets(address: SocketAddr, count: usize) -> io::Result<Vec<std::net::UdpSocket>> {
    let sockets = (0..count).map(|_| {
        let udp = socket(address, Type::DGRAM, Protocol::UDP)?;
        #[cfg(target_os = "linux")]
        udp.set_reuse_port(count > 1)?;
        udp.bind(&address.into())?;
        Ok(udp.into())
    });
    sockets.collect()
}

/// Binds the second UDP port: the one that was typed, or the one after the main port, which the server can do
/// without. Where the system chose the main port, it chooses this one, too.
fn second_port(main: &Sockets, typed: Option<u16>) -> Result<Option<std::net::UdpSocket>, Failure> {
    let Sockets {
        address, is_chosen, ..
    } = main;
    let default = if *is_chosen {
        Some(0)
    } else {
        address.port().checked_add(1)
    };
    let Some(port) = typed.or(default) else {
        log::warn!(
            "there is no port after {}, and so no second UDP port, which lets 'peer doctor' tell people what their \
             router does. The server goes on without; choose one with --stun-port PORT",
            address.port()
        );
        return Ok(None);
    };
    let second = SocketAddr::new(address.ip(), port);
    if second == *address {
        return Err(Failure::Listen {
            address: second,
            why: io::Error::new(
                io::ErrorKind::AddrInUse,
                "it is the server's main port, and the two ports must differ",
            ),
            hint: SECOND_PORT_HINT,
        });
    }
    let bound = socket(second, Type::DGRAM, Protocol::UDP).and_then(|udp| {
        udp.bind(&second.into())?;
        Ok(udp)
    });
    match (bound, typed) {
        (Ok(udp), _) => Ok(Some(udp.into())),
        (Err(why), None) => {
            log::warn!(
                "cannot listen on {second} (UDP), which lets 'peer doctor' tell people what their router does: \
                 {why}. The server goes on without; choose another port with --stun-port PORT"
            );
            Ok(None)
        }
        (Err(why), Some(_)) => Err(Failure::Listen {
            address: second,
            why,
            hint: SECOND_PORT_HINT,
        }),
    }
}

fn not_bound((address, why): (SocketAddr, io::Error)) -> Failure {
    let hint = listen_hint(why.kind());
    Failure::Listen { address, why, hint }
}

/// What to do if an address cannot be bound.
fn listen_hint(kind: io::ErrorKind) -> &'static str {
    if kind == io::ErrorKind::AddrInUse {
        "another program, or another server, has this port (TCP or UDP); stop it, or choose another with --listen [ADDR:]PORT"
    } else if kind == io::ErrorKind::AddrNotAvailable {
        "this machine has no such address; choose one that it has with --listen [ADDR:]PORT"
    } else if kind == io::ErrorKind::PermissionDenied {
        "ports below 1024 need a privilege; choose a higher one with --listen [ADDR:]PORT"
    } else {
        "choose another address with --listen [ADDR:]PORT"
    }
}

fn socket(address: SocketAddr, kind: Type, protocol: Protocol) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), kind, Some(protocol))?;
    if address.is_ipv6() {
        // The unspecified address serves both families.
        socket.set_only_v6(!address.ip().is_unspecified())?;
    }
    socket.set_nonblocking(true)?;
    Ok(socket)
}

// ---- ready -------------------------------------------------------------------------------------

fn announce(
    screen: Screen,
    (bound, stun_port): (SocketAddr, Option<u16>),
    fingerprint: &Fingerprint,
    folder: &Path,
) -> Result<(), Failure> {
    let addresses = reachable(bound);
    let first = addresses[0];
    screen.data(&serde_json::json!({
        "ready": true,
        "address": local(bound).to_string(),
        "addresses": addresses.iter().map(SocketAddr::to_string).collect::<Vec<_>>(),
        "stun_port": stun_port,
        "fingerprint": fingerprint.to_string(),
        "data": folder.display().to_string(),
    }))?;
    screen.say(format_args!("rendezvous is ready"))?;
    for (index, address) in addresses.iter().enumerate() {
        let label = if index == 0 { "address" } else { "" };
        screen.say(format_args!("  {label:<12} {address}"))?;
    }
    if let Some(port) = stun_port {
        let label = "second port";
        screen.say(format_args!("  {label:<12} UDP {port}, which answers STUN"))?;
    }
    screen.say(format_args!("  {:<12} {fingerprint}", "fingerprint"))?;
    screen.say(format_args!("  {:<12} {}", "data folder", folder.display()))?;
    screen.say(format_args!(
        "  {:<12} peer register --server {first} --fingerprint {fingerprint} NAME",
        "try"
    ))?;
    screen::unless_closed(io::stdout().lock().flush())
}

/// The address at which this machine itself reaches the server.
fn local(bound: SocketAddr) -> SocketAddr {
    let ip = if bound.ip().is_unspecified() {
        // A dual-stack socket has it, too.
        Ipv4Addr::LOCALHOST.into()
    } else {
        bound.ip()
    };
    SocketAddr::new(ip, bound.port())
}

/// The addresses at which others reach the server: the one given, or those of the interfaces.
fn reachable(bound: SocketAddr) -> Vec<SocketAddr> {
    if !bound.ip().is_unspecified() {
        return vec![bound];
    }
    let interfaces = if_addrs::get_if_addrs().unwrap_or_default();
    let is_wanted = |ip: &IpAddr| match ip {
        IpAddr::V4(v4) => !v4.is_loopback() && !v4.is_link_local(),
        IpAddr::V6(v6) => bound.is_ipv6() && !v6.is_loopback() && !v6.is_unicast_link_local(),
    };
    let ips = interfaces.iter().map(if_addrs::Interface::ip);
    let ips: BTreeSet<IpAddr> = ips.filter(is_wanted).collect();
    if ips.is_empty() {
        return vec![local(bound)];
    }
    ips.into_iter()
        .map(|ip| SocketAddr::new(ip, bound.port()))
        .collect()
}

// ---- the loop ----------------------------------------------------------------------------------

struct Loop {
    poll: Poll,
    listener: TcpListener,
    signals: UnixStream,
    admin: Option<AdminServer>,
    tls: Arc<ServerConfig>,
    server: Server,
    workers: Workers,
    udp: UdpThreads,
    connections: BTreeMap<ConnectionId, TlsConnection>,
    last_connection: u64,
    /// Connections that may have more to read, of which the system does not tell again.
    ready: BTreeSet<ConnectionId>,
    /// Connections that are not read until they have taken what is queued for them.
    congested: BTreeSet<ConnectionId>,
    /// Connections to be written to before the loop waits.
    to_write: BTreeSet<ConnectionId>,
    /// Connections that are being closed, with the deadline for it.
    closing: BTreeSet<(Instant, ConnectionId)>,
    /// When to accept connections without being told of any.
    accept_at: Option<Instant>,
    failures: AcceptFailures,
    server_due: Option<Instant>,
    /// Set once the server stops: the deadline for it.
    stop_by: Option<Instant>,
}

impl Loop {
    fn new(
        poll: Poll,
        listener: std::net::TcpListener,
        tls: Arc<ServerConfig>,
        server: Server,
        (workers, udp): (Workers, UdpThreads),
        folder: &Path,
    ) -> Result<Self, Failure> {
        let mut listener = TcpListener::from_std(listener);
        let registry = poll.registry();
        registry
            .register(&mut listener, LISTENER, Interest::READABLE)
            .map_err(poll_problem)?;
        let mut signals = signals().map_err(|why| Failure::System {
            what: "handle signals",
            why,
        })?;
        registry
            .register(&mut signals, SIGNALS, Interest::READABLE)
            .map_err(poll_problem)?;
        let clients = Tokens::new(ADMIN_CLIENTS, 2);
        let admin = match AdminServer::bind(&folder.join(admin::SOCKET), registry, ADMIN, clients) {
            Ok(admin) => Some(admin),
            Err(error) => {
                log::warn!(
                    "cannot open the admin socket; account commands do not work while the server runs: {error}"
                );
                None
            }
        };
        Ok(Self {
            poll,
            listener,
            signals,
            admin,
            tls,
            server,
            workers,
            udp,
            connections: BTreeMap::new(),
            last_connection: 0,
            ready: BTreeSet::new(),
            congested: BTreeSet::new(),
            to_write: BTreeSet::new(),
            closing: BTreeSet::new(),
            accept_at: None,
            failures: AcceptFailures::default(),
            server_due: None,
            stop_by: None,
        })
    }

    /// Serves until a signal stops the server and every connection is closed, or [`STOP_TIMEOUT`] has passed.
    fn run(&mut self) -> Result<(), Failure> {
        let mut events = Events::with_capacity(1024);
        self.drain(clock::now());
        loop {
            let timeout = self.timeout(clock::now());
            match self.poll.poll(&mut events, timeout) {
                Err(error) if error.kind() != io::ErrorKind::Interrupted => {
                    return Err(poll_problem(error));
                }
                Ok(()) | Err(_) => {}
            }
            let now = clock::now();
            for event in &events {
                self.on_event(event, now);
            }
            self.read_ready(now);
            self.take_commands(now);
            self.on_time(now);
            while let Some(input) = self.workers.take_result() {
                self.server.handle_input(input, now);
            }
            while let Some(channel) = self.udp.take_closed() {
                self.server
                    .handle_input(Input::ChannelClosed { channel }, now);
            }
            self.take_trains(now);
            self.drain(now);
            if let Some(admin) = &mut self.admin {
                admin.flush();
            }
            if self.is_over(now) {
                return Ok(());
            }
        }
    }

    fn end(self) {
        if let Some(admin) = self.admin {
            admin.close();
        }
        drop(self.connections);
        self.workers.stop();
        self.udp.stop();
    }

    fn on_event(&mut self, event: &mio::event::Event, now: Instant) {
        match event.token() {
            LISTENER => self.accept(now),
            // Results are taken after every wait.
            WAKER => {}
            SIGNALS => self.on_signal(now),
            ADMIN => {
                if let Some(admin) = &mut self.admin {
                    admin.note_acceptable();
                }
            }
            Token(number) if number >= CONNECTION_TOKENS && number % 2 == 1 => {
                let connection = ConnectionId(((number - CONNECTION_TOKENS) / 2) as u64);
                if event.is_writable() {
                    self.to_write.insert(connection);
                }
                if event.is_readable() || event.is_error() || event.is_read_closed() {
                    self.ready.insert(connection);
                }
            }
            _ => {
                if let Some(admin) = &mut self.admin {
                    admin.note_readiness(event);
                }
            }
        }
    }

    /// Passes the commands of operators to the engine.
    fn take_commands(&mut self, now: Instant) {
        let Some(admin) = &mut self.admin else {
            return;
        };
        for (id, call) in admin.handle_turn(self.poll.registry(), now) {
            let (id, command) = (CommandId(id.0), call.into());
            self.server
                .handle_input(Input::Commanded { id, command }, now);
        }
    }

    /// Passes datagrams of the relay to the connections that have room for them.
    fn take_trains(&mut self, now: Instant) {
        for _ in 0..RELAY_TRAINS_WAITING_MAX {
            let Some((ControlId(number), datagrams)) = self.udp.take_train() else {
                return;
            };
            let connection = ConnectionId(number);
            let tls = self.connections.get(&connection);
            if tls.is_some_and(TlsConnection::has_room_for_datagrams) {
                let input = Input::FromRelay {
                    connection,
                    datagrams,
                };
                self.server.handle_input(input, now);
                self.carry_out(now);
            }
        }
    }

    fn on_signal(&mut self, now: Instant) {
        let mut bytes = [0; 16];
        while self.signals.read(&mut bytes).is_ok_and(|len| len > 0) {}
        if self.stop_by.is_some() {
            return;
        }
        log::info!("stopping: sessions={}", self.server.member_count());
        self.stop_by = Some(now + STOP_TIMEOUT);
        if let Err(error) = self.poll.registry().deregister(&mut self.listener) {
            log::debug!("cannot deregister the listener: {error}");
        }
        self.server.handle_input(Input::ShutDown, now);
    }

    fn on_time(&mut self, now: Instant) {
        if self.accept_at.is_some_and(|at| at <= now) {
            self.accept(now);
        }
        while let Some((by, connection)) = self.closing.first().copied()
            && by <= now
        {
            self.closing.remove(&(by, connection));
            self.drop_connection(connection, now);
        }
        if self.server_due.is_some_and(|due| due <= now) {
            self.server.handle_timeout(now);
        }
    }

    fn timeout(&self, now: Instant) -> Option<Duration> {
        let admin = self.admin.as_ref();
        if !self.ready.is_empty() || admin.is_some_and(LineServer::wants_turn) {
            return Some(Duration::ZERO);
        }
        let closing = self.closing.first().map(|(by, _)| *by);
        let commands = admin.and_then(LineServer::deadline);
        let deadlines = [
            closing,
            commands,
            self.accept_at,
            self.server_due,
            self.stop_by,
        ];
        // mio rounds up to milliseconds, so the deadline has passed when it returns.
        let first = deadlines.into_iter().flatten().min()?;
        Some(first.saturating_duration_since(now))
    }

    fn is_over(&self, now: Instant) -> bool {
        self.stop_by
            .is_some_and(|by| by <= now || self.connections.is_empty())
    }

    // ---- connections -------------------------------------------------------------------------

    fn accept(&mut self, now: Instant) {
        self.accept_at = None;
        if self.stop_by.is_some() {
            return;
        }
        for _ in 0..ACCEPTS_PER_TURN {
            match self.listener.accept() {
                Ok((socket, source)) => self.on_accepted(socket, source, now),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if is_per_connection(&error) => {}
                Err(error) => {
                    self.failures.on_failed("connections", &error, now);
                    self.accept_at = Some(now + ACCEPT_RETRY_INTERVAL);
                    return;
                }
            }
        }
        self.accept_at = Some(now);
    }

    fn on_accepted(&mut self, mut socket: TcpStream, source: SocketAddr, now: Instant) {
        self.last_connection += 1;
        let connection = ConnectionId(self.last_connection);
        let token = Token(CONNECTION_TOKENS + 2 * self.last_connection as usize);
        let both = Interest::READABLE | Interest::WRITABLE;
        // Answers are small and somebody waits for each, so Nagle's algorithm is off.
        let registered = socket
            .set_nodelay(true)
            .and_then(|()| self.poll.registry().register(&mut socket, token, both));
        if let Err(error) = registered {
            log::debug!("cannot register an accepted connection: {error}");
            return;
        }
        match TlsConnection::new(socket, source, Arc::clone(&self.tls)) {
            Ok(tls) => {
                self.connections.insert(connection, tls);
                self.server
                    .handle_input(Input::Accepted { connection, source }, now);
                self.carry_out(now);
            }
            Err(error) => log::warn!("cannot begin TLS: {error}"),
        }
    }

    fn read_ready(&mut self, now: Instant) {
        let mut events = Vec::new();
        for connection in std::mem::take(&mut self.ready) {
            let Some(tls) = self.connections.get_mut(&connection) else {
                continue;
            };
            if tls.is_congested() {
                self.congested.insert(connection);
                continue;
            }
            let progress = tls.read(&mut events);
            let source = tls.source;
            for event in events.drain(..) {
                let input = match event {
                    Event::Connected(channel_binding) => Input::Connected {
                        connection,
                        source,
                        channel_binding,
                    },
                    Event::Greeted(hello) => Input::Greeted { connection, hello },
                    Event::Requested(frame) => Input::Requested { connection, frame },
                    Event::Malformed => Input::Malformed { connection },
                };
                self.server.handle_input(input, now);
                // One frame may have many answers, so those of several are never in memory together.
                self.carry_out(now);
            }
            // There may be messages of the TLS handshake to send.
            self.to_write.insert(connection);
            match progress {
                Progress::Waits => {}
                Progress::HasMore => {
                    self.ready.insert(connection);
                }
                // Requests that it sent before the end are not answered any more.
                Progress::Gone => self.drop_connection(connection, now),
            }
        }
    }

    fn drop_connection(&mut self, connection: ConnectionId, now: Instant) {
        if self.connections.remove(&connection).is_none() {
            return;
        }
        self.congested.remove(&connection);
        self.server
            .handle_input(Input::Disconnected { connection }, now);
        if self.accept_at.is_some() {
            // There is a descriptor to accept with again.
            self.accept_at = Some(now);
        }
    }

    // ---- outputs -----------------------------------------------------------------------------

    /// Carries out the engine's outputs and writes to connections, until there is neither to do.
    fn drain(&mut self, now: Instant) {
        loop {
            self.carry_out(now);
            let to_write = std::mem::take(&mut self.to_write);
            if to_write.is_empty() {
                return;
            }
            for connection in to_write {
                self.write(connection, now);
            }
        }
    }

    /// Carries out the engine's outputs. What it sends is only queued on the connections.
    fn carry_out(&mut self, now: Instant) {
        let mut encoder = Encoder::default();
        loop {
            match self.server.poll_output(now) {
                Output::Send { connection, frame } => {
                    let Some(tls) = self.connections.get_mut(&connection) else {
                        continue;
                    };
                    if tls.send(&frame, &mut encoder) {
                        self.to_write.insert(connection);
                    } else {
                        log::debug!(
                            "dropping a client that reads too slowly: source={}",
                            tls.source
                        );
                        self.drop_connection(connection, now);
                    }
                }
                Output::Close { connection, why } => self.close(connection, why, now),
                Output::Store { ticket, request } => {
                    if let Some(input) = self.workers.order_store(ticket, request) {
                        self.server.handle_input(input, now);
                    }
                }
                Output::Compute { ticket, job } => {
                    if let Some(input) = self.workers.order_compute(ticket, job) {
                        self.server.handle_input(input, now);
                    }
                }
                Output::Relay(command) => self.udp.order(command),
                Output::ToRelay {
                    connection,
                    datagrams,
                } => self.udp.pass(ControlId(connection.0), datagrams),
                Output::Reply { id, reply } => {
                    if let Some(admin) = &mut self.admin {
                        admin.reply(RequestId(id.0), admin::answer(reply));
                    }
                }
                Output::Wait(deadline) => {
                    self.server_due = deadline.map(|deadline| deadline.at);
                    return;
                }
            }
        }
    }

    fn close(&mut self, connection: ConnectionId, why: CloseReason, now: Instant) {
        let Some(tls) = self.connections.get_mut(&connection) else {
            return;
        };
        log::debug!("closing a connection: source={} why={why:?}", tls.source);
        match tls.close(now) {
            Some(by) => {
                self.closing.insert((by, connection));
            }
            None => self.drop_connection(connection, now),
        }
    }

    fn write(&mut self, connection: ConnectionId, now: Instant) {
        let Some(tls) = self.connections.get_mut(&connection) else {
            return;
        };
        match tls.write() {
            Progress::Gone => self.drop_connection(connection, now),
            Progress::Waits | Progress::HasMore => {
                tls.finish_closing();
                if !tls.is_congested() && self.congested.remove(&connection) {
                    // The system does not tell again that there is something to read.
                    self.ready.insert(connection);
                }
            }
        }
    }
}

/// Returns a stream that becomes readable at SIGINT and SIGTERM.
fn signals() -> io::Result<UnixStream> {
    let (read, write) = std_unix::UnixStream::pair()?;
    read.set_nonblocking(true)?;
    write.set_nonblocking(true)?;
    for signal in [SIGINT, SIGTERM] {
        signal_hook::low_level::pipe::register(signal, write.try_clone()?)?;
    }
    Ok(UnixStream::from_std(read))
}
