//! The control connection: resolves the server's name, connects over TCP, completes the TLS handshake,
//! then carries bytes in both directions.
//!
//! [`RendezvousConnection`] is driven by the loop and never blocks. [`probe`] is for first contact, when
//! there is no loop yet, and blocks. There is at most one connection at a time, and each one that the
//! node asked for ends with exactly one [`RendezvousInput::Closed`]. Reading never waits on writing.
//! After an error the TLS alert, if there is one, is sent once and the connection is closed.

use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::thread;
use std::time::{Duration, Instant};

use common::key::Fingerprint;
use common::limits::RELAY_BYTES_WAITING_MAX;
use common::os::clock::now;
use common::os::tls_pump::{PumpError, Received, TlsPump, Written};
use common::os::worker::Worker;
use common::tls::{
    RENDEZVOUS_ALPN, ServerTrust, certificate_fingerprint, fingerprint_mismatch,
    rendezvous_client_config,
};
use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use rustls::pki_types::ServerName;
use rustls::{AlertDescription, ClientConfig, ClientConnection};

use super::ServerAddress;
use super::workers::{Lookup, Resolved, resolve};
use crate::node::io::{ClosedReason, RendezvousInput, RendezvousOutput};
use common::os::udp::canonical;

/// Time to look up the server's name: the system's resolver asks a second server after 5 s.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(10);
/// Time for a TCP connection to one address: a lost SYN is sent again after 1 s and 3 s.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Time for the TLS handshake: some round trips, and a server that is busy after a restart.
const TLS_TIMEOUT: Duration = Duration::from_secs(10);
/// Time to send what is queued before a close: nobody waits longer for a program to end.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
/// Bytes that are read in one turn of the loop, so that links are not kept waiting.
const RECEIVED_PER_TURN: usize = 256 * 1024;

/// The control connection, or the attempt to make one.
#[derive(Debug)]
pub struct RendezvousConnection {
    server: ServerAddress,
    name: ServerName<'static>,
    config: Arc<ClientConfig>,
    token: Token,
    attempt: u64,
    /// What the server's name was resolved to, at most [`SERVER_ADDRESSES_MAX`](common::limits::SERVER_ADDRESSES_MAX).
    addresses: Vec<SocketAddr>,
    phase: Phase,
}

#[derive(Debug)]
enum Phase {
    Idle,
    Resolving {
        deadline: Instant,
    },
    Connecting(Connecting),
    Handshaking {
        tls_stream: Box<TlsStream>,
        deadline: Instant,
    },
    Open(Box<TlsStream>),
    Closing {
        tls_stream: Box<TlsStream>,
        deadline: Instant,
    },
}

/// Connecting over TCP, to one address after the other.
#[derive(Debug)]
struct Connecting {
    stream: TcpStream,
    address: SocketAddr,
    deadline: Instant,
    rest: VecDeque<SocketAddr>,
}

/// TLS over TCP, with the readiness of the socket.
#[derive(Debug)]
struct TlsStream {
    pump: TlsPump<TcpStream>,
    is_readable: bool,
    is_writable: bool,
}

impl RendezvousConnection {
    /// Prepares for a server; connects only when asked to.
    ///
    /// # Errors
    ///
    /// What is wrong with the server's name or the trust in it, for a person.
    pub fn new(server: ServerAddress, trust: &ServerTrust, token: Token) -> Result<Self, String> {
        Ok(Self {
            name: server_name(&server)?,
            config: rendezvous_client_config(trust).map_err(|error| error.to_string())?,
            server,
            token,
            attempt: 0,
            addresses: Vec::new(),
            phase: Phase::Idle,
        })
    }

    /// Does what the node asks for. What results at once goes to `inputs`.
    pub fn handle_output(
        &mut self,
        output: RendezvousOutput,
        resolver: &Worker<Lookup>,
        now: Instant,
        inputs: &mut VecDeque<RendezvousInput>,
    ) {
        match output {
            RendezvousOutput::Connect => self.connect(resolver, now, inputs),
            RendezvousOutput::Send(bytes) => self.send(&bytes, inputs),
            RendezvousOutput::SendDatagrams(bytes) => {
                if self.waiting_len() <= RELAY_BYTES_WAITING_MAX {
                    self.send(&bytes, inputs);
                }
            }
            RendezvousOutput::Close => self.close(now, inputs),
        }
    }

    /// Takes the addresses of the server, and connects to the first of them.
    pub fn handle_resolved(
        &mut self,
        resolved: Resolved,
        registry: &Registry,
        now: Instant,
        inputs: &mut VecDeque<RendezvousInput>,
    ) {
        let is_awaited = matches!(self.phase, Phase::Resolving { .. });
        if !is_awaited || resolved.attempt != self.attempt {
            return;
        }
        self.phase = Phase::Idle;
        match resolved.addresses {
            Ok(addresses) => {
                self.addresses.clone_from(&addresses);
                // There is at least one address, which fails with an error of its own.
                self.try_next(addresses.into(), String::new(), registry, now, inputs);
            }
            Err(reason) => fail(reason, inputs),
        }
    }

    /// Notes that the system reported the socket as readable or writable.
    pub fn note_readiness(&mut self, is_readable: bool, is_writable: bool) {
        match &mut self.phase {
            Phase::Handshaking { tls_stream, .. }
            | Phase::Open(tls_stream)
            | Phase::Closing { tls_stream, .. } => {
                tls_stream.is_readable |= is_readable;
                tls_stream.is_writable |= is_writable;
            }
            Phase::Idle | Phase::Resolving { .. } | Phase::Connecting(_) => {}
        }
    }

    /// Makes all the progress that is possible without waiting.
    pub fn handle_turn(
        &mut self,
        registry: &Registry,
        now: Instant,
        inputs: &mut VecDeque<RendezvousInput>,
    ) {
        if let Phase::Connecting(_) = self.phase {
            self.check_connected(registry, now, inputs);
        }
        self.pump(inputs);
        self.check_deadline(registry, now, inputs);
    }

    /// Tells whether there is more to do without waiting.
    pub const fn wants_turn(&self) -> bool {
        match &self.phase {
            Phase::Handshaking { tls_stream, .. } | Phase::Open(tls_stream) => {
                tls_stream.is_readable
            }
            Phase::Idle
            | Phase::Resolving { .. }
            | Phase::Connecting(_)
            | Phase::Closing { .. } => false,
        }
    }

    /// When to call [`Self::handle_turn`] at the latest.
    pub const fn deadline(&self) -> Option<Instant> {
        match &self.phase {
            Phase::Resolving { deadline }
            | Phase::Handshaking { deadline, .. }
            | Phase::Closing { deadline, .. } => Some(*deadline),
            Phase::Connecting(connecting) => Some(connecting.deadline),
            Phase::Idle | Phase::Open(_) => None,
        }
    }

    /// Tells whether there is neither a connection nor an attempt to make one.
    pub const fn is_idle(&self) -> bool {
        matches!(self.phase, Phase::Idle)
    }

    fn connect(
        &mut self,
        resolver: &Worker<Lookup>,
        now: Instant,
        inputs: &mut VecDeque<RendezvousInput>,
    ) {
        if !self.is_idle() {
            log::error!("cannot open a second control connection");
            return;
        }
        self.attempt += 1;
        let lookup = Lookup {
            attempt: self.attempt,
            host: self.server.host.clone(),
            port: self.server.port,
        };
        match resolver.submit(lookup) {
            Ok(()) => {
                self.phase = Phase::Resolving {
                    deadline: now + LOOKUP_TIMEOUT,
                };
            }
            Err(_) => fail(lookup_timeout(&self.server), inputs),
        }
    }

    fn send(&mut self, bytes: &[u8], inputs: &mut VecDeque<RendezvousInput>) {
        let Phase::Open(tls_stream) = &mut self.phase else {
            log::debug!(
                "cannot send without a control connection bytes={}",
                bytes.len()
            );
            return;
        };
        if !tls_stream
            .pump
            .queue(|outbox| outbox.extend_from_slice(bytes))
        {
            let reason = format!("{} reads too slowly", self.server);
            self.abort(ClosedReason::Failed(reason), inputs);
            return;
        }
        self.pump(inputs);
    }

    /// Bytes that the open connection has not taken.
    fn waiting_len(&self) -> usize {
        match &self.phase {
            Phase::Open(tls_stream) => tls_stream.pump.waiting_len(),
            Phase::Idle
            | Phase::Resolving { .. }
            | Phase::Connecting(_)
            | Phase::Handshaking { .. }
            | Phase::Closing { .. } => 0,
        }
    }

    fn close(&mut self, now: Instant, inputs: &mut VecDeque<RendezvousInput>) {
        match std::mem::replace(&mut self.phase, Phase::Idle) {
            Phase::Open(tls_stream) => {
                let deadline = now + CLOSE_TIMEOUT;
                self.phase = Phase::Closing {
                    tls_stream,
                    deadline,
                };
                self.pump(inputs);
            }
            closing @ Phase::Closing { .. } => self.phase = closing,
            Phase::Idle
            | Phase::Resolving { .. }
            | Phase::Connecting(_)
            | Phase::Handshaking { .. } => {
                inputs.push_back(RendezvousInput::Closed(ClosedReason::Ended));
            }
        }
    }

    /// Starts a TCP connection to the first of the remaining addresses for which that succeeds. Fails with
    /// `last_error` if there is none.
    fn try_next(
        &mut self,
        mut rest: VecDeque<SocketAddr>,
        mut last_error: String,
        registry: &Registry,
        now: Instant,
        inputs: &mut VecDeque<RendezvousInput>,
    ) {
        self.phase = Phase::Idle;
        while let Some(address) = rest.pop_front() {
            match self.start_tcp(address, registry) {
                Ok(stream) => {
                    self.phase = Phase::Connecting(Connecting {
                        stream,
                        address,
                        deadline: now + CONNECT_TIMEOUT,
                        rest,
                    });
                    return;
                }
                Err(error) => last_error = describe_tcp(&error, address),
            }
        }
        fail(last_error, inputs);
    }

    fn start_tcp(&self, address: SocketAddr, registry: &Registry) -> io::Result<TcpStream> {
        let mut stream = TcpStream::connect(address)?;
        let interest = Interest::READABLE | Interest::WRITABLE;
        registry.register(&mut stream, self.token, interest)?;
        Ok(stream)
    }

    fn check_connected(
        &mut self,
        registry: &Registry,
        now: Instant,
        inputs: &mut VecDeque<RendezvousInput>,
    ) {
        let Phase::Connecting(connecting) = std::mem::replace(&mut self.phase, Phase::Idle) else {
            return;
        };
        match connection_state(&connecting.stream) {
            Ok(true) => match self.start_handshake(connecting.stream) {
                Ok(tls_stream) => {
                    let deadline = now + TLS_TIMEOUT;
                    self.phase = Phase::Handshaking {
                        tls_stream,
                        deadline,
                    };
                }
                Err(reason) => fail(reason, inputs),
            },
            Ok(false) => self.phase = Phase::Connecting(connecting),
            Err(error) => {
                let reason = describe_tcp(&error, connecting.address);
                self.try_next(connecting.rest, reason, registry, now, inputs);
            }
        }
    }

    fn start_handshake(&self, stream: TcpStream) -> Result<Box<TlsStream>, String> {
        if let Err(error) = stream.set_nodelay(true) {
            log::debug!("cannot turn off Nagle's algorithm: {error}");
        }
        let tls = ClientConnection::new(self.config.clone(), self.name.clone())
            .map_err(|error| format!("cannot start TLS: {error}"))?;
        Ok(Box::new(TlsStream {
            pump: TlsPump::new(stream, tls),
            is_readable: true,
            is_writable: true,
        }))
    }

    /// Reads and writes as far as the socket allows, and enters the phase that results.
    fn pump(&mut self, inputs: &mut VecDeque<RendezvousInput>) {
        let outcome = match &mut self.phase {
            Phase::Handshaking { tls_stream, .. } | Phase::Open(tls_stream) => {
                let mut received = Vec::new();
                let outcome = tls_stream.pump(&mut received, &self.server);
                self.open_after_handshake(inputs);
                if !received.is_empty() {
                    inputs.push_back(RendezvousInput::Received(received));
                }
                outcome
            }
            Phase::Closing { tls_stream, .. } => tls_stream.wind_down(&self.server),
            Phase::Idle | Phase::Resolving { .. } | Phase::Connecting(_) => return,
        };
        if let Err(reason) = outcome {
            self.abort(reason, inputs);
        }
    }

    fn open_after_handshake(&mut self, inputs: &mut VecDeque<RendezvousInput>) {
        let Phase::Handshaking { tls_stream, .. } = &self.phase else {
            return;
        };
        if tls_stream.pump.tls().is_handshaking() {
            return;
        }
        match tls_stream.connected_input(&self.server, &self.addresses) {
            Ok(connected) => {
                inputs.push_back(connected);
                if let Phase::Handshaking { tls_stream, .. } =
                    std::mem::replace(&mut self.phase, Phase::Idle)
                {
                    self.phase = Phase::Open(tls_stream);
                }
            }
            Err(reason) => self.abort(ClosedReason::Failed(reason), inputs),
        }
    }

    fn check_deadline(
        &mut self,
        registry: &Registry,
        now: Instant,
        inputs: &mut VecDeque<RendezvousInput>,
    ) {
        if self.deadline().is_none_or(|deadline| now < deadline) {
            return;
        }
        match std::mem::replace(&mut self.phase, Phase::Idle) {
            Phase::Resolving { .. } => fail(lookup_timeout(&self.server), inputs),
            Phase::Connecting(connecting) => {
                let error = ErrorKind::TimedOut.into();
                let reason = describe_tcp(&error, connecting.address);
                self.try_next(connecting.rest, reason, registry, now, inputs);
            }
            Phase::Handshaking { .. } => fail(handshake_timeout(&self.server), inputs),
            Phase::Closing { .. } => {
                inputs.push_back(RendezvousInput::Closed(ClosedReason::Ended));
            }
            other @ (Phase::Idle | Phase::Open(_)) => self.phase = other,
        }
    }

    /// Closes the connection at once, after its TLS alert if there is one.
    fn abort(&mut self, reason: ClosedReason, inputs: &mut VecDeque<RendezvousInput>) {
        match std::mem::replace(&mut self.phase, Phase::Idle) {
            Phase::Handshaking { mut tls_stream, .. }
            | Phase::Open(mut tls_stream)
            | Phase::Closing { mut tls_stream, .. } => {
                // Our alert or close_notify. The socket may be gone already.
                if let Err(error) = tls_stream.pump.write() {
                    log::debug!("cannot send the last TLS record: {error}");
                }
            }
            Phase::Idle | Phase::Resolving { .. } | Phase::Connecting(_) => return,
        }
        inputs.push_back(RendezvousInput::Closed(reason));
    }
}

impl TlsStream {
    /// Reads, decrypts, encrypts and writes as far as the socket goes.
    fn pump(&mut self, received: &mut Vec<u8>, server: &ServerAddress) -> Result<(), ClosedReason> {
        let read = self.read(received, server);
        let written = self.write();
        read.and(written.map_err(|error| ClosedReason::Failed(describe_broken(&error, server))))
    }

    fn read(&mut self, received: &mut Vec<u8>, server: &ServerAddress) -> Result<(), ClosedReason> {
        while self.is_readable && received.len() < RECEIVED_PER_TURN {
            match self.pump.read(received) {
                Ok(Received::Bytes(_)) => {}
                Ok(Received::Blocked) => self.is_readable = false,
                Ok(Received::Ended) => return Err(ClosedReason::Ended),
                Ok(Received::Cut) => return Err(self.end_of_stream(server)),
                Err(error) => return Err(describe_pump(&error, server)),
            }
        }
        Ok(())
    }

    fn write(&mut self) -> io::Result<()> {
        if self.is_writable {
            self.is_writable = self.pump.write()? == Written::All;
        }
        Ok(())
    }

    /// Sends what is queued, then close_notify; `Err` with [`ClosedReason::Ended`] once nothing is
    /// left. What still arrives is read and dropped: closing with unread bytes would reset the connection,
    /// and the server might lose what was sent to it.
    fn wind_down(&mut self, server: &ServerAddress) -> Result<(), ClosedReason> {
        let mut dropped = Vec::new();
        self.read(&mut dropped, server)
            .and(self.write().map_err(|_| ClosedReason::Ended))
            .map_err(|_| ClosedReason::Ended)?;
        if !self.pump.is_flushed() {
            return Ok(());
        }
        self.pump.say_goodbye();
        Err(ClosedReason::Ended)
    }

    /// Checks that the other end is a rendezvous server, and describes the connection to the node.
    fn connected_input(
        &self,
        server: &ServerAddress,
        addresses: &[SocketAddr],
    ) -> Result<RendezvousInput, String> {
        if self.pump.tls().alpn_protocol() != Some(RENDEZVOUS_ALPN) {
            return Err(describe_no_rendezvous(server));
        }
        let stream = self.pump.socket();
        let broken = |error: io::Error| describe_broken(&error, server);
        let connected = canonical(stream.peer_addr().map_err(broken)?);
        Ok(RendezvousInput::Connected {
            channel_binding: self
                .pump
                .channel_binding()
                .map_err(|error| error.to_string())?,
            local: canonical(stream.local_addr().map_err(broken)?),
            server: connected,
            other: of_other_family(connected, addresses),
        })
    }

    fn end_of_stream(&self, server: &ServerAddress) -> ClosedReason {
        ClosedReason::Failed(if self.pump.tls().is_handshaking() {
            describe_hung_up(server)
        } else {
            format!("the connection to {server} broke")
        })
    }
}

/// The first of a server's addresses that is of the other family than the one that is connected.
fn of_other_family(connected: SocketAddr, addresses: &[SocketAddr]) -> Option<SocketAddr> {
    let mut addresses = addresses.iter().copied().map(canonical);
    addresses.find(|address| address.is_ipv4() != connected.is_ipv4())
}

/// Connects to a server that is not known yet, has it prove possession of its key, and returns the
/// key's fingerprint, for a person to confirm. Sends nothing else. Blocks for at most `timeout`.
///
/// # Errors
///
/// If the server cannot be reached in time, or is not a rendezvous server.
pub fn probe(server: &ServerAddress, timeout: Duration) -> Result<Fingerprint, ClosedReason> {
    let until = now() + timeout;
    let name = server_name(server).map_err(ClosedReason::Failed)?;
    let config = rendezvous_client_config(&ServerTrust::AskPerson)
        .map_err(|error| ClosedReason::Failed(error.to_string()))?;
    let stream = connect_blocking(server, until).map_err(ClosedReason::Failed)?;
    let tls = ClientConnection::new(config, name).map_err(|error| describe_tls(&error, server))?;
    let mut pump = TlsPump::new(stream, tls);
    while pump.tls().is_handshaking() {
        handshake_blocking(&mut pump, server, until)?;
    }
    let tls = pump.tls();
    if tls.alpn_protocol() != Some(RENDEZVOUS_ALPN) {
        return Err(ClosedReason::Failed(describe_no_rendezvous(server)));
    }
    let certificate = tls.peer_certificates().and_then(<[_]>::first);
    let certificate = certificate.expect("a server without a certificate fails the handshake");
    let fingerprint = certificate_fingerprint(certificate);
    pump.say_goodbye();
    fingerprint.map_err(|error| describe_tls(&error, server))
}

/// Takes one step of a handshake: write, read, write.
fn handshake_blocking(
    pump: &mut TlsPump<std::net::TcpStream>,
    server: &ServerAddress,
    until: Instant,
) -> Result<(), ClosedReason> {
    let broken = |error: io::Error| ClosedReason::Failed(describe_broken(&error, server));
    let timed_out = || Err(ClosedReason::Failed(handshake_timeout(server)));
    let left = until.saturating_duration_since(now());
    if left.is_zero() {
        return timed_out();
    }
    let stream = pump.socket();
    stream
        .set_read_timeout(Some(left))
        .and_then(|()| stream.set_write_timeout(Some(left)))
        .map_err(broken)?;
    if pump.write().map_err(broken)? == Written::Blocked {
        return timed_out();
    }
    match pump.read(&mut Vec::new()) {
        Ok(Received::Bytes(_)) => {}
        Ok(Received::Blocked) => return timed_out(),
        Ok(Received::Ended | Received::Cut) => {
            return Err(ClosedReason::Failed(describe_hung_up(server)));
        }
        Err(error) => return Err(describe_pump(&error, server)),
    }
    match pump.write().map_err(broken)? {
        Written::All => Ok(()),
        Written::Blocked => timed_out(),
    }
}

fn connect_blocking(server: &ServerAddress, until: Instant) -> Result<std::net::TcpStream, String> {
    let mut last_error = lookup_timeout(server);
    for address in resolve_until(server, until)? {
        let left = until.saturating_duration_since(now());
        if left.is_zero() {
            break;
        }
        match std::net::TcpStream::connect_timeout(&address, left.min(CONNECT_TIMEOUT)) {
            Ok(stream) => return Ok(stream),
            Err(error) => last_error = describe_tcp(&error, address),
        }
    }
    Err(last_error)
}

/// Looks up a name on a thread that may outlive the call: the system's look-up cannot be cancelled.
fn resolve_until(server: &ServerAddress, until: Instant) -> Result<Vec<SocketAddr>, String> {
    let (found, result) = sync_channel(1);
    let (host, port) = (server.host.clone(), server.port);
    thread::Builder::new()
        .name("resolve".to_owned())
        .spawn(move || found.send(resolve(&host, port)))
        .map_err(|error| {
            format!(
                "cannot start a thread to look up '{}': {error}",
                server.host
            )
        })?;
    result
        .recv_timeout(until.saturating_duration_since(now()))
        .unwrap_or_else(|_| Err(lookup_timeout(server)))
}

fn server_name(server: &ServerAddress) -> Result<ServerName<'static>, String> {
    ServerName::try_from(server.host.clone()).map_err(|_| {
        format!(
            "'{}' is neither a host name nor an address; write for example rendezvous.example.org",
            server.host
        )
    })
}

/// Returns `true` once TCP is connected, `false` while it is connecting.
fn connection_state(stream: &TcpStream) -> io::Result<bool> {
    if let Some(error) = stream.take_error()? {
        return Err(error);
    }
    match stream.peer_addr() {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == ErrorKind::NotConnected => Ok(false),
        Err(error) => Err(error),
    }
}

fn fail(reason: String, inputs: &mut VecDeque<RendezvousInput>) {
    inputs.push_back(RendezvousInput::Closed(ClosedReason::Failed(reason)));
}

fn lookup_timeout(server: &ServerAddress) -> String {
    format!(
        "cannot look up the name '{}' in time; is this machine online?",
        server.host
    )
}

fn handshake_timeout(server: &ServerAddress) -> String {
    format!("{server} accepts connections but says nothing; is it a rendezvous server?")
}

fn describe_no_rendezvous(server: &ServerAddress) -> String {
    format!("{server} speaks TLS but is not a rendezvous server; is the port right?")
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "the system has more kinds of errors; those without a text of ours show the system's"
)]
fn describe_tcp(error: &io::Error, address: SocketAddr) -> String {
    match error.kind() {
        ErrorKind::ConnectionRefused => {
            format!("connection refused by {address}; is the server running there?")
        }
        ErrorKind::TimedOut => {
            format!(
                "no answer from {address}; is the address right, and does a firewall let it through?"
            )
        }
        ErrorKind::NetworkUnreachable | ErrorKind::HostUnreachable => {
            format!("no route to {address}; is this machine online?")
        }
        _ => format!("no connection to {address}: {error}"),
    }
}

fn describe_hung_up(server: &ServerAddress) -> String {
    format!("{server} closed the connection at once; is it a rendezvous server?")
}

fn describe_pump(error: &PumpError, server: &ServerAddress) -> ClosedReason {
    match error {
        PumpError::Tls(error) => describe_tls(error, server),
        PumpError::Io(error) => ClosedReason::Failed(describe_broken(error, server)),
    }
}

fn describe_broken(error: &io::Error, server: &ServerAddress) -> String {
    format!("the connection to {server} broke: {error}")
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "the library may add errors; those without a text of ours show the library's"
)]
fn describe_tls(error: &rustls::Error, server: &ServerAddress) -> ClosedReason {
    if let Some(mismatch) = fingerprint_mismatch(error) {
        return ClosedReason::ServerKeyChanged {
            expected: mismatch.expected.to_string(),
            seen: mismatch.seen.to_string(),
        };
    }
    ClosedReason::Failed(match error {
        rustls::Error::InvalidMessage(_) => {
            format!("{server} does not speak TLS; is it a rendezvous server, and the port right?")
        }
        rustls::Error::AlertReceived(AlertDescription::NoApplicationProtocol)
        | rustls::Error::NoApplicationProtocol => describe_no_rendezvous(server),
        rustls::Error::InvalidCertificate(cause) => format!(
            "the certificate of {server} is not valid ({cause}); if the server made it itself, give its fingerprint"
        ),
        other => format!("the TLS connection to {server} failed: {other}"),
    })
}

#[cfg(test)]
mod tests;
