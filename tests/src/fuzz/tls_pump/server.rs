//! The server's end of the control connection.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use common::limits::CONTROL_FRAME_LEN_MAX;
use common::wire::frame::FrameBuffer;
use common::wire::rendezvous::{Hello, HelloAnswer, RequestFrame, VERSION};
use rendezvous::server::Frame;
use rendezvous::shell::encoder::Encoder;
use rendezvous::shell::tls::{Event, Progress, TlsConnection};
use rustls::ClientConnection;
use rustls::pki_types::ServerName;
use std::io::Write;

use super::{PIECES_MAX, Start, TURNS_MAX, configs, discard, put, tamper};
use crate::fuzz::beginning;
use crate::fuzz::feed::Feed;

/// A connection at the server, and the other end of its socket.
struct Pump {
    link: TlsConnection,
    far: UnixStream,
    seen: Vec<Seen>,
    is_gone: bool,
}

/// What the connection told, as far as it can be compared.
#[derive(Debug, PartialEq)]
enum Seen {
    Connected,
    Greeted(Hello),
    Requested(RequestFrame),
    Malformed,
}

pub(super) fn run(start: Start, feed: &mut Feed<'_>) {
    let mut pump = Pump::new();
    match start {
        Start::Nothing => pump.feed_raw(feed),
        Start::Tampered => {
            pump.shake(|flight| tamper(feed, flight));
            pump.feed_raw(feed);
        }
        Start::Below => {
            pump.shake(|_| {});
            assert_eq!(pump.seen, [Seen::Connected], "an honest handshake");
            pump.feed_raw(feed);
        }
        Start::Above => {
            let mut client = pump.shake(|_| {});
            assert_eq!(pump.seen, [Seen::Connected], "an honest handshake");
            let said = pump.feed_encrypted(&mut client, feed);
            assert_eq!(pump.seen[1..], expected(&said), "frames of {said:?}");
        }
    }
    check_order(&pump.seen);
    assert!(
        start != Start::Nothing || pump.seen.is_empty(),
        "no handshake"
    );
    pump.end();
}

impl Pump {
    fn new() -> Self {
        let (near, far) = UnixStream::pair().expect("two descriptors are left");
        for end in [&near, &far] {
            end.set_nonblocking(true).expect("a fresh socket");
        }
        // A connection asks nothing of its socket that only TCP has.
        let near = std::net::TcpStream::from(OwnedFd::from(near));
        let socket = mio::net::TcpStream::from_std(near);
        let source = SocketAddr::from(([192, 0, 2, 1], 40_000));
        let link = TlsConnection::new(socket, source, configs().server.clone());
        Self {
            link: link.expect("the configuration is good"),
            far,
            seen: Vec::new(),
            is_gone: false,
        }
    }

    /// An honest client's handshake, except for what `change` does to its flights.
    fn shake(&mut self, mut change: impl FnMut(&mut Vec<u8>)) -> ClientConnection {
        let name = ServerName::try_from("rendezvous").expect("a plain name");
        let client = ClientConnection::new(configs().client.clone(), name);
        let mut client = client.expect("the configuration is good");
        for _ in 0..4 {
            let mut flight = Vec::new();
            while client.wants_write() {
                client.write_tls(&mut flight).expect("a Vec takes all");
            }
            change(&mut flight);
            put(&mut self.far, &flight);
            self.turn();
            while client.read_tls(&mut self.far).is_ok_and(|len| len > 0) {}
            if client.process_new_packets().is_err() {
                break;
            }
        }
        client
    }

    fn feed_raw(&mut self, feed: &mut Feed<'_>) {
        for _ in 0..PIECES_MAX {
            if feed.is_empty() || self.is_gone {
                return;
            }
            put(&mut self.far, feed.piece());
            self.turn();
            discard(&mut self.far);
        }
    }

    /// Encrypts pieces; returns what they are together.
    fn feed_encrypted(&mut self, client: &mut ClientConnection, feed: &mut Feed<'_>) -> Vec<u8> {
        let mut said = Vec::new();
        for _ in 0..PIECES_MAX {
            if feed.is_empty() {
                break;
            }
            let piece = feed.piece();
            let taken = client.writer().write(piece).expect("there is room");
            said.extend_from_slice(&piece[..taken]);
            while client.wants_write() {
                client.write_tls(&mut self.far).expect("there is room");
            }
            self.turn();
            assert!(!self.is_gone, "no fault of TLS");
        }
        said
    }

    /// Reads until there is no more, answers greetings, and writes.
    fn turn(&mut self) {
        for _ in 0..TURNS_MAX {
            let mut events = Vec::new();
            let progress = self.link.read(&mut events);
            let greeted = events
                .iter()
                .any(|event| matches!(event, Event::Greeted(_)));
            self.seen.extend(events.into_iter().map(Seen::from));
            if greeted {
                let answer = HelloAnswer::Welcome {
                    version: VERSION,
                    agent: "fuzz".to_owned(),
                };
                let greeting = Frame::Greeting(answer);
                let fits = self.link.send(&greeting, &mut Encoder::default());
                assert!(fits, "one frame fits");
            }
            self.is_gone |= progress == Progress::Gone;
            self.is_gone |= self.link.write() == Progress::Gone;
            if self.is_gone || progress == Progress::Waits {
                return;
            }
        }
        panic!("there is always more");
    }

    /// The engine lets go of it.
    fn end(mut self) {
        assert!(!self.link.is_congested(), "nothing much was sent");
        let now = beginning();
        if !self.is_gone && self.link.close(now).is_some() {
            assert!(self.link.is_closing());
            self.seen.clear();
            self.turn();
            assert!(self.seen.is_empty(), "nothing is said after the end");
        }
    }
}

impl From<Event> for Seen {
    fn from(event: Event) -> Self {
        match event {
            Event::Connected(_) => Self::Connected,
            Event::Greeted(hello) => Self::Greeted(hello),
            Event::Requested(frame) => Self::Requested(frame),
            Event::Malformed => Self::Malformed,
        }
    }
}

/// What the frames in `said` are: a greeting, then requests, until something is none.
fn expected(said: &[u8]) -> Vec<Seen> {
    let mut frames = FrameBuffer::<CONTROL_FRAME_LEN_MAX>::new();
    frames.push(said);
    let mut expected = Vec::new();
    loop {
        let next = if expected.is_empty() {
            frames.next_frame().map(|hello| hello.map(Seen::Greeted))
        } else {
            frames.next_frame().map(|frame| frame.map(Seen::Requested))
        };
        match next {
            Ok(Some(seen)) => expected.push(seen),
            Ok(None) => return expected,
            Err(_) => {
                expected.push(Seen::Malformed);
                return expected;
            }
        }
    }
}

/// The handshake first, one greeting, and nothing behind what is malformed.
fn check_order(seen: &[Seen]) {
    for (at, seen_now) in seen.iter().enumerate() {
        let is_in_order = match seen_now {
            Seen::Connected => at == 0,
            Seen::Greeted(_) => at == 1,
            Seen::Requested(_) => at >= 2,
            Seen::Malformed => at >= 1 && at + 1 == seen.len(),
        };
        assert!(is_in_order, "{seen:?}");
    }
}
