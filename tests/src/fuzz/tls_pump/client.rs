//! The peer's end of the control connection.

use std::collections::VecDeque;
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use common::os::worker::{Queue, Worker};
use common::tls::ServerTrust;
use mio::{Poll, Token};
use peer::node::io::{ClosedReason, RendezvousInput, RendezvousOutput};
use peer::shell::ServerAddress;
use peer::shell::tls::RendezvousConnection;
use peer::shell::workers::{Lookup, Resolved};
use rustls::ServerConnection;
use socket2::SockRef;

use super::{PIECES_MAX, Start, configs, discard, put, tamper};
use crate::fuzz::beginning;
use crate::fuzz::feed::Feed;

/// The system may take its time to carry bytes over; so often it is asked again.
const PATIENCE: usize = 1_000_000;

/// What all runs share: a listener, a loop that is never waited on, and a name service that is not
/// asked.
struct Machine {
    listener: TcpListener,
    poll: Poll,
    resolver: Worker<Lookup>,
}

thread_local! {
    static MACHINE: Machine = Machine {
        listener: TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port is free"),
        poll: Poll::new().expect("a descriptor is left"),
        resolver: Worker::spawn("lookups", 1, |queue: Queue<_>| queue.into_iter().for_each(drop))
            .expect("a thread can be started"),
    };
}

/// A peer's connection, and the other end of its socket.
struct Pump<'a> {
    machine: &'a Machine,
    connection: RendezvousConnection,
    far: TcpStream,
    now: Instant,
    inputs: VecDeque<RendezvousInput>,
    received: Vec<u8>,
    connected: usize,
    closed: Option<ClosedReason>,
}

pub(super) fn run(start: Start, feed: &mut Feed<'_>) {
    MACHINE.with(|machine| run_on(machine, start, feed));
}

fn run_on(machine: &Machine, start: Start, feed: &mut Feed<'_>) {
    let mut pump = Pump::new(machine);
    match start {
        Start::Nothing => pump.feed_raw(feed),
        Start::Tampered => {
            pump.shake(|flight| tamper(feed, flight), 64);
            pump.feed_raw(feed);
        }
        Start::Below => {
            pump.shake(|_| {}, PATIENCE);
            assert_eq!((pump.connected, &pump.closed), (1, &None), "honest");
            pump.feed_raw(feed);
            assert!(pump.received.is_empty(), "nobody has the keys");
        }
        Start::Above => {
            let mut server = pump.shake(|_| {}, PATIENCE);
            assert_eq!((pump.connected, &pump.closed), (1, &None), "honest");
            let said = pump.feed_encrypted(&mut server, feed);
            assert_eq!(pump.received, said, "what was sent arrives");
        }
    }
    assert!(
        start != Start::Nothing || pump.connected == 0,
        "no handshake"
    );
    pump.end();
}

impl<'a> Pump<'a> {
    /// A connection whose TCP part is there.
    fn new(machine: &'a Machine) -> Self {
        let address = machine.listener.local_addr().expect("it is bound");
        let server = ServerAddress {
            host: address.ip().to_string(),
            port: address.port(),
        };
        let trust = ServerTrust::Pinned(configs().fingerprint);
        let connection = RendezvousConnection::new(server, &trust, Token(1));
        let mut connection = connection.expect("an address is a name");
        let (now, mut inputs) = (beginning(), VecDeque::new());
        let registry = machine.poll.registry();
        let mut attempt = 0;
        loop {
            let output = RendezvousOutput::Connect;
            connection.handle_output(output, &machine.resolver, now, &mut inputs);
            attempt += 1;
            // The queue of look-ups has room for one: an earlier one may still be in it.
            if inputs.pop_front().is_none() {
                break;
            }
            std::thread::yield_now();
        }
        let addresses = Ok(vec![address]);
        let resolved = Resolved { attempt, addresses };
        connection.handle_resolved(resolved, registry, now, &mut inputs);
        let far = accept(&machine.listener);
        Self {
            machine,
            connection,
            far,
            now,
            inputs,
            received: Vec::new(),
            connected: 0,
            closed: None,
        }
    }

    /// An honest server's handshake, except for what `change` does to its flights.
    fn shake(&mut self, mut change: impl FnMut(&mut Vec<u8>), patience: usize) -> ServerConnection {
        let server = ServerConnection::new(configs().server.clone());
        let mut server = server.expect("the configuration is good");
        for _ in 0..patience {
            self.turn();
            while server.read_tls(&mut self.far).is_ok_and(|len| len > 0) {}
            if server.process_new_packets().is_err() || self.closed.is_some() {
                break;
            }
            let mut flight = Vec::new();
            while server.wants_write() {
                server.write_tls(&mut flight).expect("a Vec takes all");
            }
            if !flight.is_empty() {
                change(&mut flight);
                put(&mut self.far, &flight);
            }
            if self.connected > 0 && !server.is_handshaking() {
                break;
            }
            std::thread::yield_now();
        }
        server
    }

    fn feed_raw(&mut self, feed: &mut Feed<'_>) {
        for _ in 0..PIECES_MAX {
            if feed.is_empty() || self.closed.is_some() {
                return;
            }
            put(&mut self.far, feed.piece());
            self.turn();
            discard(&mut self.far);
        }
    }

    /// Encrypts pieces; returns what they are together.
    fn feed_encrypted(&mut self, server: &mut ServerConnection, feed: &mut Feed<'_>) -> Vec<u8> {
        let mut said = Vec::new();
        for _ in 0..PIECES_MAX {
            if feed.is_empty() {
                break;
            }
            let piece = feed.piece();
            let taken = server.writer().write(piece).expect("there is room");
            said.extend_from_slice(&piece[..taken]);
            let mut flight = Vec::new();
            while server.wants_write() {
                server.write_tls(&mut flight).expect("a Vec takes all");
            }
            put(&mut self.far, &flight);
            for _ in 0..PATIENCE {
                self.turn();
                if self.received.len() >= said.len() {
                    break;
                }
                std::thread::yield_now();
            }
            assert_eq!(self.closed, None, "no fault of TLS");
        }
        said
    }

    fn turn(&mut self) {
        self.connection.note_readiness(true, true);
        let registry = self.machine.poll.registry();
        self.connection
            .handle_turn(registry, self.now, &mut self.inputs);
        self.take_inputs();
    }

    fn take_inputs(&mut self) {
        while let Some(input) = self.inputs.pop_front() {
            assert_eq!(self.closed, None, "nothing comes after the end: {input:?}");
            match input {
                RendezvousInput::Connected { local, server, .. } => {
                    assert!(local.ip().is_loopback() && server.ip().is_loopback());
                    self.connected += 1;
                    assert_eq!(self.connected, 1);
                }
                RendezvousInput::Received(bytes) => {
                    assert_eq!(self.connected, 1, "bytes before the handshake");
                    self.received.extend_from_slice(&bytes);
                }
                RendezvousInput::Closed(reason) => self.closed = Some(reason),
            }
        }
        assert_eq!(self.closed.is_some(), self.connection.is_idle());
    }

    /// The node lets go of it: it has ended once, or ends once now.
    fn end(mut self) {
        if self.closed.is_none() {
            let output = RendezvousOutput::Close;
            let (resolver, now) = (&self.machine.resolver, self.now);
            self.connection
                .handle_output(output, resolver, now, &mut self.inputs);
            self.take_inputs();
            self.turn();
            if let Some(deadline) = self.connection.deadline() {
                self.now = deadline;
                self.turn();
            }
        }
        assert!(self.closed.is_some() && self.connection.is_idle());
    }
}

/// The other end, which resets when it is dropped: so many runs would use up the ports otherwise.
fn accept(listener: &TcpListener) -> TcpStream {
    let (far, _): (TcpStream, SocketAddr) = listener.accept().expect("it has connected");
    let options = SockRef::from(&far);
    options.set_linger(Some(Duration::ZERO)).expect("a socket");
    far.set_nodelay(true).expect("a socket");
    far.set_nonblocking(true).expect("a socket");
    far
}
