//! The connection against servers that behave and servers that do not.

use std::io::{Read, Write};
use std::net::TcpListener;

use common::tls::{ServerIdentity, channel_binding};
use mio::{Events, Poll, Waker};
use rustls::{ServerConnection, StreamOwned};

use super::super::workers::{Answer, Answers, spawn_resolver};
use super::*;

const PATIENCE: Duration = Duration::from_secs(20);

#[test]
fn bytes_go_both_ways_and_both_ends_have_one_binding() {
    let (identity, fingerprint) = identity();
    let (server, thread) = serve(move |stream| {
        let mut stream = accept(identity, stream);
        let mut hello = [0; 5];
        stream.read_exact(&mut hello).unwrap();
        stream.write_all(&hello).unwrap();
        let binding = channel_binding(&stream.conn).unwrap();
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).unwrap();
        (binding, rest)
    });
    let mut world = World::new(server, &ServerTrust::Pinned(fingerprint));
    world.ask(RendezvousOutput::Connect);
    let RendezvousInput::Connected {
        channel_binding: binding,
        local,
        server,
        other,
    } = world.next()
    else {
        panic!("not connected");
    };
    assert!(local.ip().is_loopback() && server.ip().is_ipv4());
    assert_eq!(other, None);
    world.ask(RendezvousOutput::Send(b"hello".to_vec()));
    assert!(matches!(world.next(), RendezvousInput::Received(bytes) if bytes == b"hello"));
    world.ask(RendezvousOutput::Send(vec![7; 300_000]));
    world.ask(RendezvousOutput::Close);
    assert!(matches!(
        world.next(),
        RendezvousInput::Closed(ClosedReason::Ended)
    ));
    let (seen, rest) = thread.join().unwrap();
    assert_eq!(seen, binding);
    assert_eq!(rest, vec![7; 300_000]);
}

#[test]
fn the_other_address_of_a_server_is_of_the_other_family() {
    let addresses = [
        "[::ffff:192.0.2.1]:7400",
        "192.0.2.2:7400",
        "[2001:db8::1]:7400",
        "[2001:db8::2]:7400",
    ];
    let [mapped, v4, v6, _] = addresses.map(|text| text.parse::<SocketAddr>().unwrap());
    let all = addresses.map(|text| text.parse().unwrap());
    assert_eq!(of_other_family(v4, &all), Some(v6));
    assert_eq!(of_other_family(v6, &all), Some(canonical(mapped)));
    assert_eq!(of_other_family(v4, &all[..2]), None);
    assert_eq!(of_other_family(v4, &[]), None);
}

#[test]
fn t30_another_key_is_refused_and_named_and_the_server_gets_an_alert() {
    let (identity_of_other, seen) = identity();
    let (_, expected) = identity();
    let (server, thread) = serve(move |mut stream| {
        let config = identity_of_other.into_server_config().unwrap();
        let mut tls = ServerConnection::new(config).unwrap();
        tls.complete_io(&mut stream).unwrap_err().to_string()
    });
    let mut world = World::new(server, &ServerTrust::Pinned(expected));
    world.ask(RendezvousOutput::Connect);
    let RendezvousInput::Closed(reason) = world.next() else {
        panic!("connected");
    };
    let expected = ClosedReason::ServerKeyChanged {
        expected: expected.to_string(),
        seen: seen.to_string(),
    };
    assert_eq!(reason, expected);
    let alert = thread.join().unwrap();
    assert!(alert.contains("alert"), "{alert}");
}

#[test]
fn a_server_that_is_not_there_is_named() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let reason = failure(address(port));
    let expected = format!("connection refused by 127.0.0.1:{port}; is the server running there?");
    assert_eq!(reason, expected);
    let probed = probe(&address(port), PATIENCE).unwrap_err();
    assert_eq!(probed, ClosedReason::Failed(expected));
}

#[test]
fn a_server_of_another_kind_is_named() {
    let (server, thread) = serve(|mut stream| {
        let _ = stream.write_all(b"220 mail.example.org ESMTP\r\n");
        let _ = stream.read_to_end(&mut Vec::new());
    });
    let reason = failure(server);
    assert!(reason.contains("does not speak TLS"), "{reason}");
    thread.join().unwrap();
}

#[test]
fn a_server_that_hangs_up_is_named() {
    let (server, thread) = serve(drop);
    let reason = failure(server);
    assert!(
        reason.contains("closed the connection") || reason.contains("broke"),
        "{reason}"
    );
    thread.join().unwrap();
}

#[test]
fn a_connection_that_breaks_is_not_called_ended() {
    let (identity, fingerprint) = identity();
    let (server, thread) = serve(move |stream| {
        let mut stream = accept(identity, stream);
        stream.read_exact(&mut [0; 1]).unwrap();
    });
    let mut world = World::new(server, &ServerTrust::Pinned(fingerprint));
    world.ask(RendezvousOutput::Connect);
    assert!(matches!(world.next(), RendezvousInput::Connected { .. }));
    world.ask(RendezvousOutput::Send(b"x".to_vec()));
    assert!(matches!(
        world.next(),
        RendezvousInput::Closed(ClosedReason::Failed(_))
    ));
    thread.join().unwrap();
}

#[test]
fn t20_a_server_that_does_not_read_is_given_up_at_the_bound() {
    let (identity, fingerprint) = identity();
    let (gate, closed) = sync_channel::<()>(0);
    let (server, thread) = serve(move |stream| {
        let stream = accept(identity, stream);
        let _ = closed.recv();
        drop(stream);
    });
    let mut world = World::new(server, &ServerTrust::Pinned(fingerprint));
    world.ask(RendezvousOutput::Connect);
    assert!(matches!(world.next(), RendezvousInput::Connected { .. }));
    for _ in 0..1000 {
        if world.connection.is_idle() {
            break;
        }
        world.ask(RendezvousOutput::Send(vec![0; 64 * 1024]));
    }
    let RendezvousInput::Closed(ClosedReason::Failed(reason)) = world.next() else {
        panic!("no bound");
    };
    assert!(reason.contains("too slowly"), "{reason}");
    drop(gate);
    thread.join().unwrap();
}

/// The relay's datagrams are lost there, and the connection stays.
#[test]
fn t20_datagrams_for_a_server_that_does_not_read_are_dropped_at_the_bound() {
    let (identity, fingerprint) = identity();
    let (gate, closed) = sync_channel::<()>(0);
    let (server, thread) = serve(move |stream| {
        let mut stream = accept(identity, stream);
        let _ = closed.recv();
        let mut received = Vec::new();
        let _ = stream.read_to_end(&mut received);
        received
    });
    let mut world = World::new(server, &ServerTrust::Pinned(fingerprint));
    world.ask(RendezvousOutput::Connect);
    assert!(matches!(world.next(), RendezvousInput::Connected { .. }));
    let train = vec![1; 64 * 1024];
    for _ in 0..1000 {
        world.ask(RendezvousOutput::SendDatagrams(train.clone()));
        assert!(!world.connection.is_idle());
    }
    let waiting = world.connection.waiting_len();
    let bound = RELAY_BYTES_WAITING_MAX + train.len();
    assert!((1..=bound).contains(&waiting), "{waiting}");
    // What a person asks for still goes out behind them.
    world.ask(RendezvousOutput::Send(b"the end".to_vec()));
    world.ask(RendezvousOutput::Close);
    drop(gate);
    assert!(matches!(
        world.next(),
        RendezvousInput::Closed(ClosedReason::Ended)
    ));
    let received = thread.join().unwrap();
    assert!(received.ends_with(b"the end") && received.len() < 1000 * train.len());
}

#[test]
fn every_connect_ends_with_one_closed() {
    let mut world = World::new(address(1), &ServerTrust::AskPerson);
    world.ask(RendezvousOutput::Connect);
    world.ask(RendezvousOutput::Close);
    assert!(matches!(
        world.next(),
        RendezvousInput::Closed(ClosedReason::Ended)
    ));
    assert!(world.connection.is_idle() && world.inputs.is_empty());
}

#[test]
fn a_probe_tells_the_fingerprint_and_sends_nothing() {
    let (identity, fingerprint) = identity();
    let (server, thread) = serve(move |stream| {
        let mut stream = accept(identity, stream);
        let mut sent = Vec::new();
        stream.read_to_end(&mut sent).unwrap();
        sent
    });
    assert_eq!(probe(&server, PATIENCE), Ok(fingerprint));
    assert_eq!(thread.join().unwrap(), b"");
}

#[test]
fn t21_a_probe_of_a_silent_server_ends_in_time() {
    let (gate, closed) = sync_channel::<()>(0);
    let (server, thread) = serve(move |stream| {
        let _ = closed.recv();
        drop(stream);
    });
    let error = probe(&server, Duration::from_millis(200)).unwrap_err();
    assert_eq!(error, ClosedReason::Failed(handshake_timeout(&server)));
    drop(gate);
    thread.join().unwrap();
}

/// A control connection with a loop of its own.
struct World {
    poll: Poll,
    connection: RendezvousConnection,
    resolver: Worker<Lookup>,
    answers: std::sync::mpsc::Receiver<Answer>,
    inputs: VecDeque<RendezvousInput>,
}

impl World {
    fn new(server: ServerAddress, trust: &ServerTrust) -> Self {
        let poll = Poll::new().unwrap();
        let waker = Waker::new(poll.registry(), Token(0)).unwrap();
        let (answers, queue) = Answers::new(Arc::new(waker), 1);
        Self {
            connection: RendezvousConnection::new(server, trust, Token(1)).unwrap(),
            resolver: spawn_resolver(answers).unwrap(),
            answers: queue,
            inputs: VecDeque::new(),
            poll,
        }
    }

    fn ask(&mut self, output: RendezvousOutput) {
        self.connection
            .handle_output(output, &self.resolver, now(), &mut self.inputs);
    }

    fn next(&mut self) -> RendezvousInput {
        let deadline = now() + PATIENCE;
        let mut events = Events::with_capacity(8);
        loop {
            if let Some(input) = self.inputs.pop_front() {
                return input;
            }
            assert!(now() < deadline, "nothing happens: {:?}", self.connection);
            self.poll
                .poll(&mut events, Some(Duration::from_millis(100)))
                .unwrap();
            for event in &events {
                self.connection
                    .note_readiness(event.is_readable(), event.is_writable());
            }
            while let Ok(answer) = self.answers.try_recv() {
                let Answer::Resolved(resolved) = answer else {
                    panic!("{answer:?}");
                };
                let registry = self.poll.registry();
                self.connection
                    .handle_resolved(resolved, registry, now(), &mut self.inputs);
            }
            self.connection
                .handle_turn(self.poll.registry(), now(), &mut self.inputs);
        }
    }
}

fn failure(server: ServerAddress) -> String {
    let mut world = World::new(server, &ServerTrust::AskPerson);
    world.ask(RendezvousOutput::Connect);
    let input = world.next();
    let RendezvousInput::Closed(ClosedReason::Failed(reason)) = input else {
        panic!("{input:?}");
    };
    reason
}

/// Runs a server for one connection.
fn serve<T: Send + 'static>(
    run: impl FnOnce(std::net::TcpStream) -> T + Send + 'static,
) -> (ServerAddress, thread::JoinHandle<T>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let thread = thread::spawn(move || run(listener.accept().unwrap().0));
    (address(port), thread)
}

fn accept(
    identity: ServerIdentity,
    stream: std::net::TcpStream,
) -> StreamOwned<ServerConnection, std::net::TcpStream> {
    let config = identity.into_server_config().unwrap();
    let mut stream = StreamOwned::new(ServerConnection::new(config).unwrap(), stream);
    stream.conn.complete_io(&mut stream.sock).unwrap();
    stream
}

fn identity() -> (ServerIdentity, Fingerprint) {
    let identity = ServerIdentity::from_pem(ServerIdentity::generate_pem().as_bytes()).unwrap();
    let fingerprint = identity.fingerprint().unwrap();
    (identity, fingerprint)
}

fn address(port: u16) -> ServerAddress {
    ServerAddress {
        host: "127.0.0.1".to_owned(),
        port,
    }
}
