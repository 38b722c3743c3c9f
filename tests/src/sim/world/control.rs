//! Control connections, modelled as bytes in order that may stop to come, and the server at their end.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use common::id::AccountName;
use common::key::{ChannelBinding, DeviceSecret};
use common::limits::CONTROL_FRAME_LEN_MAX;
use common::time::Epoch;
use common::wire::frame::{self, FrameBuffer};
use common::wire::rendezvous::{
    Answer, Hello, LoginAnswer, LoginRequest, Request, RequestFrame, ServerFrame,
};
use peer::node::Input;
use peer::node::io::{ClosedReason, RendezvousInput, RendezvousOutput};
use rand::RngExt;
use rendezvous::server::logins::lockout::Lane;
use rendezvous::server::{self, ConnectionId};
use serde::Serialize;

use super::{Happening, SERVER, SERVER_V6, World};
use crate::sim::attacker::Attacker;
use crate::sim::check::Violation;
use crate::sim::net::Site;

/// A control connection: bytes in order both ways, until it breaks.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) host: usize,
    /// Where it comes from, as the server sees it.
    source: SocketAddr,
    life: u32,
    frames: FrameBuffer<CONTROL_FRAME_LEN_MAX>,
    has_greeted: bool,
    /// When the last bytes each way arrive: later ones never overtake them.
    to_server: Instant,
    to_host: Instant,
    /// When the server let the host in.
    logged_in_at: Option<Instant>,
    pub(super) is_broken: bool,
}

/// Somebody on the way from the server to a host, or a server that lies.
pub(super) struct Tamper(Box<dyn FnMut(&mut ServerFrame) -> bool>);

impl fmt::Debug for Tamper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tamper")
    }
}

impl World {
    pub(super) fn on_rendezvous(&mut self, n: usize, output: RendezvousOutput) {
        match output {
            RendezvousOutput::Connect => self.connect(n),
            RendezvousOutput::Send(bytes) | RendezvousOutput::SendDatagrams(bytes) => {
                let Some(id) = self.hosts[n].connection else {
                    return;
                };
                let trip = self.trip();
                let now = self.now;
                if let Some(connection) = self.connections.get_mut(&id) {
                    connection.to_server = connection.to_server.max(now + trip);
                    let at = connection.to_server;
                    self.schedule(at, Happening::ToServer(id, bytes));
                }
            }
            RendezvousOutput::Close => {
                self.note(&format!("{n} closes"));
                if let Some(id) = self.hosts[n].connection {
                    let at = self
                        .connections
                        .get(&id)
                        .map(|connection| connection.to_server);
                    self.schedule(at.unwrap_or(self.now), Happening::ServerHears(id));
                    let closed = RendezvousInput::Closed(ClosedReason::Ended);
                    self.schedule(self.now, Happening::ToHost(id, closed));
                }
            }
        }
    }

    fn connect(&mut self, n: usize) {
        self.note(&format!("{n} connects"));
        let life = self.hosts[n].life;
        let is_cut = self.net.is_cut(Site::Host(n), Site::Server)
            || self.net.is_cut(Site::Server, Site::Host(n));
        if is_cut || self.server.engine.is_none() {
            let wait = if is_cut { 10_000 } else { 20 };
            let at = self.now + Duration::from_millis(wait);
            return self.schedule(at, Happening::NotConnected(n, life));
        }
        self.last_connection += 1;
        let id = ConnectionId(self.last_connection);
        let at = self.now + self.trip() * 3;
        let inside = self.hosts[n].addresses[0].ip();
        let outside = self.net.outside(Site::Host(n), inside);
        self.connections.insert(
            id,
            Connection {
                host: n,
                source: SocketAddr::new(outside, 40_000),
                life,
                frames: FrameBuffer::new(),
                has_greeted: false,
                to_server: at,
                to_host: at,
                logged_in_at: None,
                is_broken: false,
            },
        );
        self.hosts[n].connection = Some(id);
        self.schedule(at, Happening::Connected(id));
    }

    fn trip(&mut self) -> Duration {
        let faults = self.net.faults;
        // TCP sends again what is lost: that takes time, not bytes.
        let mut trip = faults.latency;
        if faults.loss > 0.0 && self.rng.random_bool(faults.loss) {
            trip += Duration::from_millis(250);
        }
        trip
    }

    /// Breaks a connection; each side hears of it at once or finds out by itself.
    pub fn break_connection(&mut self, id: ConnectionId, server_hears: bool, host_hears: bool) {
        let Some(connection) = self.connections.get_mut(&id) else {
            return;
        };
        if std::mem::replace(&mut connection.is_broken, true) {
            return;
        }
        let soon = self.now + Duration::from_millis(5);
        if server_hears {
            self.schedule(soon, Happening::ServerHears(id));
        }
        if host_hears {
            let reason = ClosedReason::Failed("the connection broke".to_owned());
            self.schedule(soon, Happening::ToHost(id, RendezvousInput::Closed(reason)));
        }
    }

    /// Breaks a host's control connection.
    pub fn break_control(&mut self, n: usize) {
        if let Some(id) = self.hosts[n].connection {
            self.break_connection(id, true, true);
        }
    }

    pub(super) fn on_connected(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.get(&id) else {
            return;
        };
        let (host, source) = (connection.host, connection.source);
        let mut channel = [0; 32];
        channel[..8].copy_from_slice(&id.0.to_be_bytes());
        let inside = self.hosts[host].addresses[0].ip();
        let Some(engine) = &mut self.server.engine else {
            return self.break_connection(id, false, true);
        };
        let input = server::Input::Connected {
            connection: id,
            source,
            channel_binding: ChannelBinding(channel),
        };
        engine.handle_input(input, self.now);
        self.drain_server();
        let (server, other) = match inside {
            IpAddr::V4(_) => (SERVER, SERVER_V6),
            IpAddr::V6(_) => (SERVER_V6, SERVER),
        };
        let connected = RendezvousInput::Connected {
            channel_binding: ChannelBinding(channel),
            local: SocketAddr::new(inside, 40_000),
            server,
            other: Some(other),
        };
        self.answer_host(id, connected);
    }

    fn answer_host(&mut self, id: ConnectionId, input: RendezvousInput) {
        let trip = self.trip();
        let now = self.now;
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.to_host = connection.to_host.max(now + trip);
            let at = connection.to_host;
            self.schedule(at, Happening::ToHost(id, input));
        }
    }

    pub(super) fn on_bytes_at_server(&mut self, id: ConnectionId, bytes: &[u8]) {
        let (Some(connection), Some(_)) = (self.connections.get_mut(&id), &self.server.engine)
        else {
            return;
        };
        let site = Site::Host(connection.host);
        if connection.is_broken || self.net.is_cut(site, Site::Server) {
            // TCP would try again for minutes. Nothing comes after a gap; both find out by themselves.
            connection.is_broken = true;
            return;
        }
        connection.frames.push(bytes);
        loop {
            let Some(connection) = self.connections.get_mut(&id) else {
                return;
            };
            let frames = &mut connection.frames;
            let input = if connection.has_greeted {
                match frames.next_frame::<RequestFrame>() {
                    Ok(Some(frame)) => server::Input::Requested {
                        connection: id,
                        frame,
                    },
                    Ok(None) => return,
                    Err(_) => server::Input::Malformed { connection: id },
                }
            } else {
                match frames.next_frame::<Hello>() {
                    Ok(Some(hello)) => {
                        connection.has_greeted = true;
                        server::Input::Greeted {
                            connection: id,
                            hello,
                        }
                    }
                    Ok(None) => return,
                    Err(_) => server::Input::Malformed { connection: id },
                }
            };
            let is_malformed = matches!(input, server::Input::Malformed { .. });
            if is_malformed {
                self.report(Violation::new("a node sent bytes that are no frame"));
                return;
            }
            self.ask_server(input);
        }
    }

    /// Gives the server something that a connection brought.
    fn ask_server(&mut self, input: server::Input) {
        self.note_attempt(&input);
        if let Some(engine) = &mut self.server.engine {
            engine.handle_input(input, self.now);
            self.drain_server();
        }
    }

    /// Notes steps of password log-ins.
    fn note_attempt(&mut self, input: &server::Input) {
        let server::Input::Requested { connection, frame } = input else {
            return;
        };
        if let Request::Login(LoginRequest::LoginStart(start)) = &frame.request {
            let known = self.server.has_device(&start.account, start.device_key);
            let lane = match known {
                true => Lane::KnownDevice,
                false => Lane::Stranger,
            };
            let source = self.source_of(*connection);
            let account = start.account.clone();
            self.ledger
                .on_start(*connection, frame.id, account, source, lane);
        } else if matches!(
            frame.request,
            Request::Login(LoginRequest::LoginFinish { .. })
        ) {
            self.ledger.on_finish(*connection);
        }
    }

    /// Where a connection comes from, as the server sees it.
    fn source_of(&self, id: ConnectionId) -> SocketAddr {
        match (self.attackers.get(&id), self.connections.get(&id)) {
            (Some(attacker), _) => attacker.source,
            (None, Some(connection)) => connection.source,
            (None, None) => SERVER,
        }
    }

    pub(super) fn on_input_at_host(&mut self, id: ConnectionId, input: RendezvousInput) {
        let Some(connection) = self.connections.get(&id) else {
            return;
        };
        let (n, life, is_broken) = (connection.host, connection.life, connection.is_broken);
        let is_closed = matches!(input, RendezvousInput::Closed(_));
        let host = &mut self.hosts[n];
        if host.life != life || host.connection != Some(id) {
            return;
        }
        if !is_closed && (is_broken || self.net.is_cut(Site::Server, Site::Host(n))) {
            return self.on_gap(id, &input);
        }
        if is_closed {
            host.connection = None;
            self.note(&format!("the connection of {n} is closed"));
        }
        let host = &mut self.hosts[n];
        if let Some(node) = &mut host.node {
            node.handle_input(Input::Rendezvous(input), self.now);
            self.drain(n);
        }
    }

    /// Bytes of a connection do not arrive: nothing comes after them.
    fn on_gap(&mut self, id: ConnectionId, lost: &RendezvousInput) {
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.is_broken = true;
        }
        if matches!(lost, RendezvousInput::Connected { .. }) {
            // The shell gives up a connection that is not made in time.
            let reason = ClosedReason::Failed("no answer".to_owned());
            let at = self.now + Duration::from_secs(10);
            self.schedule(at, Happening::ToHost(id, RendezvousInput::Closed(reason)));
        }
    }

    // ---- the server ----------------------------------------------------------------------------

    /// Starts the server on what its store holds.
    pub fn start_server(&mut self) {
        if self.server.engine.is_none() && std::mem::take(&mut self.has_jumped) {
            self.ledger.on_other_time();
        }
        let epoch = Epoch::new(self.now, self.wall);
        let seed = self.rng.random();
        self.server.start(seed, epoch, self.now);
        self.drain_server();
    }

    /// From now on `change` sees what the server sends to a host: it may change a frame, and one for which
    /// it returns `false` never comes. The server knows nothing of it.
    pub fn tamper(&mut self, n: usize, change: impl FnMut(&mut ServerFrame) -> bool + 'static) {
        self.tampers.insert(n, Tamper(Box::new(change)));
    }

    /// Tells a host that it was asleep, as its clock does not.
    pub fn tell_woken(&mut self, n: usize, span: Duration) {
        if let Some(node) = &mut self.hosts[n].node {
            node.handle_input(Input::Woke(span), self.now);
        }
        self.drain(n);
    }

    /// Sends a host what the server never said, if it has a control connection.
    pub fn forge(&mut self, n: usize, frame: &ServerFrame) {
        if let Some(id) = self.hosts[n].connection {
            self.send(id, frame);
        }
    }

    /// Ends the server without a word; its machine closes the connections.
    pub fn crash_server(&mut self) {
        if self.server.engine.take().is_none() {
            return;
        }
        self.server.crash();
        self.ledger.on_crash();
        let open: Vec<ConnectionId> = self.connections.keys().copied().collect();
        for id in open {
            self.break_connection(id, false, true);
        }
    }

    pub(super) fn drain_server(&mut self) {
        loop {
            let Some(engine) = &mut self.server.engine else {
                return;
            };
            match engine.poll_output(self.now) {
                server::Output::Wait(deadline) => {
                    let deadline = deadline.map(|deadline| (deadline.at, deadline.why));
                    let relay = self.server.relay_deadline();
                    self.server.deadline = deadline.into_iter().chain(relay).min();
                    return self.check_ledger();
                }
                server::Output::Send { connection, frame }
                    if self.attackers.contains_key(&connection) =>
                {
                    self.ledger.on_frame(connection, &frame);
                    self.answer_attacker(connection, &frame);
                }
                server::Output::Send { connection, frame } => {
                    self.ledger.on_frame(connection, &frame);
                    match &frame {
                        server::Frame::Greeting(greeting) => self.send(connection, greeting),
                        server::Frame::Server(frame) => {
                            self.note_login(connection, frame);
                            self.send_tampered(connection, frame);
                        }
                    }
                }
                server::Output::Close { connection, .. } => {
                    let closed = RendezvousInput::Closed(ClosedReason::Ended);
                    self.answer_host(connection, closed);
                }
                server::Output::Store { ticket, request } => {
                    let at = self.now + Duration::from_micros(self.rng.random_range(50..5_000));
                    let at = self.server.order(at, ticket, request);
                    let life = self.server.life;
                    self.schedule(at, Happening::ServerStored(life));
                }
                server::Output::Compute { ticket, job } => {
                    if self.server.compute(ticket, job, self.now) {
                        self.ledger.on_proof();
                    }
                }
                server::Output::Relay(command) => self.server.relay(command, self.now),
                server::Output::ToRelay {
                    connection,
                    datagrams,
                } => {
                    let now = self.now;
                    for (to, bytes) in self.server.on_control(connection, datagrams, now) {
                        self.transmit(Site::Server, to, &bytes);
                    }
                }
                server::Output::Reply { id, .. } => {
                    let n = usize::try_from(id.0).expect("it is the number of a host");
                    self.ledger.on_unblocked(&self.hosts[n].account);
                }
            }
        }
    }

    fn note_login(&mut self, id: ConnectionId, frame: &ServerFrame) {
        if let ServerFrame::Answer {
            answer: Answer::Login(LoginAnswer::LoggedIn(_)),
            ..
        } = frame
            && let Some(connection) = self.connections.get_mut(&id)
        {
            connection.logged_in_at = Some(self.now);
        }
    }

    fn send_tampered(&mut self, id: ConnectionId, frame: &ServerFrame) {
        let host = self.connections.get(&id).map(|connection| connection.host);
        let Some(Tamper(change)) = host.and_then(|host| self.tampers.get_mut(&host)) else {
            return self.send(id, frame);
        };
        let mut frame = frame.clone();
        if change(&mut frame) {
            self.send(id, &frame);
        }
    }

    fn send(&mut self, id: ConnectionId, frame: &impl Serialize) {
        let mut bytes = Vec::new();
        if frame::encode::<CONTROL_FRAME_LEN_MAX>(frame, &mut bytes).is_err() {
            self.report(Violation::new("the server made a frame that is too long"));
        }
        self.answer_host(id, RendezvousInput::Received(bytes));
    }

    fn check_ledger(&mut self) {
        let Some(engine) = &self.server.engine else {
            return;
        };
        let accounts = self.hosts.iter().map(|host| &host.account);
        let checked = self.ledger.check(engine.lockouts(), accounts, self.now);
        if let Err(violation) = checked {
            self.report(violation);
        }
    }

    /// An operator lets strangers log in to a host's account again.
    pub fn unblock(&mut self, n: usize) {
        let account = self.hosts[n].account.clone();
        self.ledger.on_unblock(account.clone());
        if let Some(engine) = &mut self.server.engine {
            let input = server::Input::Commanded {
                id: server::CommandId(n as u64),
                command: server::Command::Unblock(account),
            };
            engine.handle_input(input, self.now);
            self.drain_server();
        }
    }

    /// A message is shown: neither its author nor who shows it is out, as far as the other must know.
    pub(super) fn check_enrolment(&self, n: usize, from: &AccountName) -> Result<(), Violation> {
        let Some(author) = self.hosts.iter().position(|host| host.account == *from) else {
            return Ok(());
        };
        for (out, other) in [(author, n), (n, author)] {
            let key = DeviceSecret::from_seed(self.hosts[out].secret).public();
            let online_since = self.online_since(other);
            if author != n
                && self
                    .server
                    .enrolments
                    .is_out_for(&key, online_since, self.now)
            {
                let text = format!("p{n} shows a message of {from}, and p{out} is out");
                return Err(Violation::new(&text));
            }
        }
        Ok(())
    }

    /// Since when a host has a session that works.
    fn online_since(&self, n: usize) -> Option<Instant> {
        let id = self.hosts[n].connection?;
        let connection = self.connections.get(&id)?;
        let is_cut = self.net.is_cut(Site::Server, Site::Host(n))
            || self.net.is_cut(Site::Host(n), Site::Server);
        connection
            .logged_in_at
            .filter(|_| !connection.is_broken && !is_cut)
    }

    /// An operator removes a host's account, with or without the server.
    pub fn remove_account(&mut self, n: usize) {
        let account = self.hosts[n].account.clone();
        self.hosts[n].may_need_password = true;
        self.ledger.on_unblock(account.clone());
        let Some(engine) = &mut self.server.engine else {
            return self.server.remove(&account, self.wall, self.now);
        };
        let input = server::Input::Commanded {
            id: server::CommandId(n as u64),
            command: server::Command::RemoveAccount(account),
        };
        engine.handle_input(input, self.now);
        self.drain_server();
    }

    /// Somebody from anywhere guesses at a host's account, and asks for what is not theirs.
    pub fn attack(&mut self, victim: usize) {
        self.last_connection += 1;
        let id = ConnectionId(self.last_connection);
        let attacker = Attacker::new(self.rng.random());
        let account = self.hosts[victim].account.clone();
        let inputs = attacker.opening(id, &account, "password1");
        self.attackers.insert(id, attacker);
        for input in inputs {
            self.ask_server(input);
        }
    }

    fn answer_attacker(&mut self, id: ConnectionId, frame: &server::Frame) {
        let Some(attacker) = self.attackers.get(&id) else {
            return;
        };
        match attacker.on_frame(id, frame) {
            Ok(Some(input)) => {
                self.note_attempt(&input);
                if let Some(engine) = &mut self.server.engine {
                    engine.handle_input(input, self.now);
                }
            }
            Ok(None) => {}
            Err(violation) => self.report(violation),
        }
    }
}
