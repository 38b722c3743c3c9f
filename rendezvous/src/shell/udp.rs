//! The UDP port, on a thread of its own: log-ins never delay it.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use common::os::clock;
use mio::net::UdpSocket;
use mio::{Events, Interest, Poll, Token, Waker};

use super::Failure;
use crate::relay::{Batch, Output, Relay};

const SOCKET: Token = Token(0);
const WAKER: Token = Token(1);
/// Datagrams in a row before the thread looks whether it is to stop.
const ROUND: usize = 256;

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
        socket.set_nonblocking(true).map_err(failure)?;
        let mut socket = UdpSocket::from_std(socket);
        let poll = Poll::new().map_err(failure)?;
        poll.registry()
            .register(&mut socket, SOCKET, Interest::READABLE)
            .map_err(failure)?;
        let waker = Waker::new(poll.registry(), WAKER).map_err(failure)?;
        let stop = Arc::new(AtomicBool::new(false));
        let is_over = Arc::clone(&stop);
        let thread = thread::Builder::new()
            .name("udp".to_owned())
            .spawn(move || run(poll, relay, &socket, &is_over))
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

fn run(mut poll: Poll, mut relay: Relay, socket: &UdpSocket, stop: &AtomicBool) {
    let mut events = Events::with_capacity(8);
    while !stop.load(Ordering::Relaxed) {
        if let Err(error) = poll.poll(&mut events, None)
            && error.kind() != io::ErrorKind::Interrupted
        {
            log::error!("the UDP thread cannot wait: {error}");
            return;
        }
        while !stop.load(Ordering::Relaxed) && answer_some(&mut relay, socket) {}
    }
    log::debug!(
        "relay: answered={} forwarded={} dropped={}",
        relay.answered(),
        relay.forwarded(),
        relay.dropped()
    );
}

/// Answers up to a round of datagrams; `false` when there are no more.
fn answer_some(relay: &mut Relay, socket: &UdpSocket) -> bool {
    let mut buffer = [0; 2048];
    let mut outputs = Vec::new();
    for _ in 0..ROUND {
        let (len, source): (usize, SocketAddr) = match socket.recv_from(&mut buffer) {
            Ok(received) => received,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return false,
            // An answer that did not arrive comes back as an error of the next call: not ours.
            Err(error) => {
                log::trace!("receiving: {error}");
                continue;
            }
        };
        let batch = Batch {
            bytes: &mut buffer[..len],
            stride: len,
            source,
        };
        relay.handle_batch(batch, clock::now(), &mut outputs);
        for output in outputs.drain(..) {
            let sent = match &output {
                Output::Answer(answer) => socket.send_to(answer, source),
                Output::Forward { to, part, .. } => socket.send_to(&buffer[part.clone()], *to),
            };
            if let Err(error) = sent {
                log::trace!("a datagram is lost: {error}");
            }
        }
    }
    true
}
