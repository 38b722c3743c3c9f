//! The UDP port, on a thread of its own: log-ins never delay it.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use common::os::clock;
use common::os::udp::{Received, Train, TrainSender, TrainSocket};
use mio::{Events, Poll, Token, Waker};

use super::Failure;
use crate::relay::{Batch, Output, Relay};

const SOCKET: Token = Token(0);
const WAKER: Token = Token(1);
/// Trains taken in one call: datagrams of many peers come in many trains. Their memory, 64 KiB each, is
/// touched as far as they fill it.
const BATCH: usize = 32;
/// Calls in a row before the thread looks at the time, and whether it is to stop.
const ROUND: usize = 32;

/// The thread that answers datagrams, until it is told to stop.
#[derive(Debug)]
pub(super) struct UdpThread {
    thread: JoinHandle<()>,
    stop: Arc<AtomicBool>,
    waker: Waker,
}

impl UdpThread {
    /// Starts to answer datagrams with an engine that has seen nothing.
    pub(super) fn start(socket: std::net::UdpSocket, relay: Relay) -> Result<Self, Failure> {
        let failure = |why| Failure::System {
            what: "start the UDP thread",
            why,
        };
        let mut socket = TrainSocket::over(socket, BATCH).map_err(failure)?;
        let poll = Poll::new().map_err(failure)?;
        socket.register(poll.registry(), SOCKET).map_err(failure)?;
        let waker = Waker::new(poll.registry(), WAKER).map_err(failure)?;
        let stop = Arc::new(AtomicBool::new(false));
        let is_over = Arc::clone(&stop);
        let thread = thread::Builder::new()
            .name("udp".to_owned())
            .spawn(move || run(poll, relay, socket, &is_over))
            .map_err(failure)?;
        Ok(Self {
            thread,
            stop,
            waker,
        })
    }

    /// Ends the thread.
    pub(super) fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        if self.waker.wake().is_ok() && self.thread.join().is_err() {
            log::error!("the UDP thread panicked");
        }
    }
}

fn run(mut poll: Poll, mut relay: Relay, mut socket: TrainSocket, stop: &AtomicBool) {
    let mut events = Events::with_capacity(8);
    let mut outputs = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let now = clock::now();
        relay.handle_timeout(now);
        let due = relay.poll_timeout();
        let span = if socket.is_readable() {
            Some(Duration::ZERO)
        } else {
            due.map(|due| due.saturating_duration_since(now))
        };
        if let Err(error) = poll.poll(&mut events, span)
            && error.kind() != io::ErrorKind::Interrupted
        {
            log::error!("the UDP thread cannot wait: {error}");
            return;
        }
        if events.iter().any(|event| event.token() == SOCKET) {
            socket.note_readable();
        }
        for _ in 0..ROUND {
            if socket.is_readable() {
                socket.receive(|sender, train| carry(&mut relay, sender, train, &mut outputs));
            }
        }
    }
    log::debug!(
        "relay: answered={} forwarded={} dropped={}",
        relay.answered(),
        relay.forwarded(),
        relay.dropped()
    );
}

/// Hands a train to the relay, and sends what it wants sent. What finds no room is lost.
fn carry(
    relay: &mut Relay,
    sender: &TrainSender,
    received: Received<'_>,
    outputs: &mut Vec<Output>,
) {
    let Received {
        source,
        local,
        ecn,
        stride,
        bytes,
    } = received;
    let batch = Batch {
        bytes,
        stride,
        source,
        local,
    };
    relay.handle_batch(batch, clock::now(), outputs);
    for output in outputs.drain(..) {
        let train = match &output {
            Output::Answer(answer) => Train {
                destination: source,
                // Whoever asked waits for an answer from there.
                source: local,
                ecn: None,
                stride: None,
                bytes: answer,
            },
            Output::Forward {
                to,
                from,
                part,
                stride,
            } => Train {
                destination: *to,
                source: *from,
                // The two peers see congestion on either side of the relay.
                ecn,
                stride: (part.len() > *stride).then_some(*stride),
                bytes: &bytes[part.clone()],
            },
        };
        if sender.send(&train).is_err() {
            log::trace!("there is no room to send");
        }
    }
}
