//! The UDP port, on a thread of its own: log-ins never delay it.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use common::os::clock;
use common::os::udp::{Received, Train, TrainSender, TrainSocket};
use mio::{Events, Poll, Token, Waker};

use super::Failure;
use crate::relay::{Batch, ChannelId, Output, Relay};
use crate::server::RelayCommand;

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
    commands: Sender<RelayCommand>,
    closed: Receiver<ChannelId>,
}

/// What the thread has.
struct Port {
    poll: Poll,
    relay: Relay,
    socket: TrainSocket,
    stop: Arc<AtomicBool>,
    /// As many as the server has allocations and channels, at most.
    commands: Receiver<RelayCommand>,
    closed: Sender<ChannelId>,
    /// Wakes whoever takes what is closed.
    waker: Arc<Waker>,
}

impl UdpThread {
    /// Starts to answer datagrams with an engine that has seen nothing. `taker` wakes
    /// whoever calls [`UdpThread::take_closed`].
    pub(super) fn start(
        socket: std::net::UdpSocket,
        relay: Relay,
        taker: &Arc<Waker>,
    ) -> Result<Self, Failure> {
        let failure = |why| Failure::System {
            what: "start the UDP thread",
            why,
        };
        let mut socket = TrainSocket::over(socket, BATCH).map_err(failure)?;
        let poll = Poll::new().map_err(failure)?;
        socket.register(poll.registry(), SOCKET).map_err(failure)?;
        let waker = Waker::new(poll.registry(), WAKER).map_err(failure)?;
        let stop = Arc::new(AtomicBool::new(false));
        let (commands, ordered) = mpsc::channel();
        let (closing, closed) = mpsc::channel();
        let port = Port {
            poll,
            relay,
            socket,
            stop: Arc::clone(&stop),
            commands: ordered,
            closed: closing,
            waker: Arc::clone(taker),
        };
        let thread = thread::Builder::new()
            .name("udp".to_owned())
            .spawn(move || port.run())
            .map_err(failure)?;
        Ok(Self {
            thread,
            stop,
            waker,
            commands,
            closed,
        })
    }

    /// Has the relay do something.
    pub(super) fn order(&self, command: RelayCommand) {
        let is_there = self.commands.send(command).is_ok() && self.waker.wake().is_ok();
        if !is_there {
            log::error!("the UDP thread is gone");
        }
    }

    /// The next channel that the relay has closed by itself, or has not opened.
    pub(super) fn take_closed(&self) -> Option<ChannelId> {
        self.closed.try_recv().ok()
    }

    /// Ends the thread.
    pub(super) fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        if self.waker.wake().is_ok() && self.thread.join().is_err() {
            log::error!("the UDP thread panicked");
        }
    }
}

impl Port {
    fn run(mut self) {
        let mut events = Events::with_capacity(8);
        let mut outputs = Vec::new();
        while !self.stop.load(Ordering::Relaxed) {
            let now = clock::now();
            self.take_commands(now);
            self.relay.handle_timeout(now);
            self.tell_closed();
            let due = self.relay.poll_timeout();
            let span = if self.socket.is_readable() {
                Some(Duration::ZERO)
            } else {
                due.map(|due| due.saturating_duration_since(now))
            };
            if let Err(error) = self.poll.poll(&mut events, span)
                && error.kind() != io::ErrorKind::Interrupted
            {
                log::error!("the UDP thread cannot wait: {error}");
                return;
            }
            if events.iter().any(|event| event.token() == SOCKET) {
                self.socket.note_readable();
            }
            // What the server said before it told a peer comes before what that peer sends.
            self.take_commands(clock::now());
            for _ in 0..ROUND {
                if self.socket.is_readable() {
                    let relay = &mut self.relay;
                    self.socket
                        .receive(|sender, train| carry(relay, sender, train, &mut outputs));
                }
            }
        }
        log::debug!(
            "relay: answered={} forwarded={} dropped={}",
            self.relay.answered(),
            self.relay.forwarded(),
            self.relay.dropped()
        );
    }

    fn take_commands(&mut self, now: Instant) {
        while let Ok(command) = self.commands.try_recv() {
            match command {
                RelayCommand::Allocate(id, account) => {
                    if !self.relay.allocate(id, account, now) {
                        log::error!("the relay has no room for an allocation");
                    }
                }
                RelayCommand::Free(id) => self.relay.free(id),
                RelayCommand::Open(channel) => {
                    let id = channel.id;
                    if !self.relay.open(channel, now) {
                        self.tell(id);
                    }
                }
            }
        }
    }

    fn tell_closed(&mut self) {
        while let Some(channel) = self.relay.poll_closed() {
            self.tell(channel);
        }
    }

    fn tell(&self, closed: ChannelId) {
        // Fails only once the server stops.
        let _ = self.closed.send(closed).is_ok() && self.waker.wake().is_ok();
    }
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
