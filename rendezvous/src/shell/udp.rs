//! The UDP ports, on a thread of their own: log-ins never delay it.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, Sender, SyncSender};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use common::limits::RELAY_TRAINS_WAITING_MAX;
use common::os::clock;
use common::os::udp::{Received, Train, TrainSender, TrainSocket};
use common::wire::rendezvous::RelayDatagrams;
use mio::{Events, Poll, Token, Waker};

use super::Failure;
use crate::relay::{Batch, ChannelId, ControlId, Output, Ports, Relay};
use crate::server::RelayCommand;

// What leaves as one train.
mod outgoing;

use outgoing::{Outgoing, Part, Way};

const SOCKET: Token = Token(0);
const WAKER: Token = Token(1);
const SECOND: Token = Token(2);
/// Trains taken in one call: datagrams of many peers come in many trains. Their memory, 64 KiB each, is
/// touched as far as they fill it.
const BATCH: usize = 32;
/// The same at the second port, which a few clients ask a few times each. It is looked at once in a
/// [`ROUND`]: a flood there does not delay packets of the relay.
const SECOND_BATCH: usize = 8;
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
    /// Trains of control connections, to the relay and from it.
    to_relay: SyncSender<(ControlId, RelayDatagrams)>,
    from_relay: Receiver<(ControlId, RelayDatagrams)>,
}

/// What the thread has.
struct Port {
    poll: Poll,
    relay: Relay,
    socket: TrainSocket,
    /// The second port, if there is one.
    second: Option<TrainSocket>,
    stop: Arc<AtomicBool>,
    /// As many as the server has allocations and channels, at most.
    commands: Receiver<RelayCommand>,
    closed: Sender<ChannelId>,
    /// At most [`RELAY_TRAINS_WAITING_MAX`], as in the other direction.
    from_control: Receiver<(ControlId, RelayDatagrams)>,
    to_control: SyncSender<(ControlId, RelayDatagrams)>,
    /// Wakes whoever takes what is closed, and what is for control connections.
    waker: Arc<Waker>,
}

impl UdpThread {
    /// Starts to answer datagrams at the main port and the second one, if there is any, with an engine that has
    /// seen nothing. `taker` wakes whoever calls [`UdpThread::take_closed`] and [`UdpThread::take_train`].
    pub(super) fn start(
        (socket, second): (std::net::UdpSocket, Option<std::net::UdpSocket>),
        mut relay: Relay,
        taker: &Arc<Waker>,
    ) -> Result<Self, Failure> {
        let failure = |why| Failure::System {
            what: "start the UDP thread",
            why,
        };
        let mut socket = TrainSocket::over(socket, BATCH).map_err(failure)?;
        let poll = Poll::new().map_err(failure)?;
        socket.register(poll.registry(), SOCKET).map_err(failure)?;
        let second = second.map(|second| TrainSocket::over(second, SECOND_BATCH));
        let mut second = second.transpose().map_err(failure)?;
        if let Some(second) = &mut second {
            second.register(poll.registry(), SECOND).map_err(failure)?;
            let [main, second] = [&socket, second].map(|socket| socket.sender().local().port());
            relay.set_ports(Ports { main, second });
        }
        let waker = Waker::new(poll.registry(), WAKER).map_err(failure)?;
        let stop = Arc::new(AtomicBool::new(false));
        let (commands, ordered) = mpsc::channel();
        let (closing, closed) = mpsc::channel();
        let (to_relay, from_control) = mpsc::sync_channel(RELAY_TRAINS_WAITING_MAX);
        let (to_control, from_relay) = mpsc::sync_channel(RELAY_TRAINS_WAITING_MAX);
        let port = Port {
            poll,
            relay,
            socket,
            second,
            stop: Arc::clone(&stop),
            commands: ordered,
            closed: closing,
            from_control,
            to_control,
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
            to_relay,
            from_relay,
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

    /// Gives a train of a control connection to the relay. It is lost if too many wait.
    pub(super) fn pass(&self, connection: ControlId, train: RelayDatagrams) {
        if self.to_relay.try_send((connection, train)).is_ok() {
            // A thread that is gone was told of when it was given a command.
            let _ = self.waker.wake();
        }
    }

    /// The next train for a control connection.
    pub(super) fn take_train(&self) -> Option<(ControlId, RelayDatagrams)> {
        self.from_relay.try_recv().ok()
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
        let mut outgoing = Outgoing::default();
        while !self.stop.load(Ordering::Relaxed) {
            let now = clock::now();
            self.take_commands(now);
            self.relay.handle_timeout(now);
            self.tell_closed();
            let due = self.relay.poll_timeout();
            let second = self.second.as_ref();
            let has_more =
                self.socket.is_readable() || second.is_some_and(TrainSocket::is_readable);
            let span = if has_more {
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
            for event in &events {
                match (event.token(), &mut self.second) {
                    (SOCKET, _) => self.socket.note_readable(),
                    (SECOND, Some(second)) => second.note_readable(),
                    (_, _) => {}
                }
            }
            // What the server said before it told a peer comes before what that peer sends.
            self.take_commands(clock::now());
            self.take_trains(&mut outputs);
            self.answer_second(&mut outputs);
            for _ in 0..ROUND {
                if self.socket.is_readable() {
                    let Self {
                        socket,
                        second,
                        relay,
                        to_control,
                        waker,
                        ..
                    } = &mut self;
                    let control = Control { to_control, waker };
                    let second = second.as_ref().map(TrainSocket::sender);
                    socket.receive_together(|sender, trains| {
                        let ways = (sender, second, &control);
                        carry(relay, ways, trains, &mut outputs, &mut outgoing);
                    });
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

    /// Answers what came to the second port.
    fn answer_second(&mut self, outputs: &mut Vec<Output>) {
        let Self {
            socket,
            second: Some(second),
            relay,
            ..
        } = self
        else {
            return;
        };
        if !second.is_readable() {
            return;
        }
        let (main, now) = (socket.sender(), clock::now());
        second.receive(|sender, train| {
            let Received {
                source,
                local,
                stride,
                bytes,
                ..
            } = train;
            let batch = Batch {
                bytes,
                stride,
                source,
                local,
            };
            relay.handle_second(&batch, now, outputs);
            for output in outputs.drain(..) {
                match output {
                    Output::Answer(answer) => send_answer(sender, &answer, (source, local)),
                    Output::AnswerFromOther(answer) => {
                        send_answer(main, &answer, (source, local));
                    }
                    Output::Forward { .. } | Output::ForwardToControl { .. } => {
                        unreachable!("nothing is forwarded from the second port")
                    }
                }
            }
        });
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

    /// Hands what came over control connections to the relay.
    fn take_trains(&mut self, outputs: &mut Vec<Output>) {
        while let Ok((connection, mut train)) = self.from_control.try_recv() {
            let stride = usize::from(train.stride);
            let bytes = train.bytes.as_mut_slice();
            self.relay
                .handle_control(connection, bytes, stride, clock::now(), outputs);
            let control = Control {
                to_control: &self.to_control,
                waker: &self.waker,
            };
            for output in outputs.drain(..) {
                match output {
                    // A connection has one port, but its device may ask for the other one.
                    Output::Answer(answer) | Output::AnswerFromOther(answer) => {
                        let stride = answer.len();
                        control.pass(connection, answer, stride);
                    }
                    Output::Forward {
                        to,
                        from,
                        part,
                        stride,
                    } => {
                        let train = Train {
                            destination: to,
                            source: from,
                            ecn: None,
                            stride: (part.len() > stride).then_some(stride),
                            bytes: &train.bytes[part],
                        };
                        send(self.socket.sender(), &train);
                    }
                    Output::ForwardToControl { to, part, stride } => {
                        control.pass(to, train.bytes[part].to_vec(), stride);
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

/// The way to control connections.
struct Control<'a> {
    to_control: &'a SyncSender<(ControlId, RelayDatagrams)>,
    waker: &'a Waker,
}

impl Control<'_> {
    /// Passes datagrams on. They are lost if too many wait.
    fn pass(&self, connection: ControlId, bytes: Vec<u8>, stride: usize) {
        let stride = u16::try_from(stride).unwrap_or(u16::MAX);
        let train = RelayDatagrams { stride, bytes };
        if self.to_control.try_send((connection, train)).is_ok() {
            // Fails only once the server stops.
            let _ = self.waker.wake();
        }
    }
}

/// Hands trains that came together to the main port to the relay, and sends what it wants sent. What finds no room is lost.
fn carry<'a>(
    relay: &mut Relay,
    (sender, second, control): (&TrainSender, Option<&TrainSender>, &Control<'_>),
    received: impl Iterator<Item = Received<'a>>,
    outputs: &mut Vec<Output>,
    outgoing: &mut Outgoing,
) {
    let now = clock::now();
    let mut came = [&[][..]; BATCH];
    for (index, (train, kept)) in received.zip(&mut came).enumerate() {
        let Received {
            source,
            local,
            ecn,
            stride,
            bytes,
        } = train;
        let batch = Batch {
            bytes: &mut *bytes,
            stride,
            source,
            local,
        };
        relay.handle_batch(batch, now, outputs);
        for output in outputs.drain(..) {
            match output {
                Output::Answer(answer) => send_answer(sender, &answer, (source, local)),
                Output::AnswerFromOther(answer) => {
                    let second = second.expect("the relay knows whether there is a second port");
                    send_answer(second, &answer, (source, local));
                }
                Output::Forward {
                    to,
                    from,
                    part,
                    stride,
                } => {
                    let way = Way {
                        destination: to,
                        source: from,
                        ecn,
                    };
                    let part = Part {
                        train: index,
                        range: part,
                        stride,
                    };
                    outgoing.add(way, part);
                }
                Output::ForwardToControl { to, part, stride } => {
                    control.pass(to, bytes[part].to_vec(), stride);
                }
            }
        }
        *kept = bytes;
    }
    outgoing.drain(&came, |train| send(sender, train));
}

/// Sends an answer to where a datagram came from, from the address that it came to: whoever asked waits for an
/// answer from there.
fn send_answer(sender: &TrainSender, answer: &[u8], (to, from): (SocketAddr, Option<IpAddr>)) {
    let train = Train {
        destination: to,
        source: from,
        ecn: None,
        stride: None,
        bytes: answer,
    };
    send(sender, &train);
}

fn send(sender: &TrainSender, train: &Train<'_>) {
    if sender.send(train).is_err() {
        log::trace!("there is no room to send");
    }
}

#[cfg(test)]
mod tests {
    use common::wire::channel::{AllocationId, ChannelDatagram};

    use super::*;
    use crate::relay::TrafficLimits;

    /// The loop that takes trains is busy with something else.
    #[test]
    fn t49_trains_that_nobody_takes_are_lost_at_the_bound() {
        let poll = Poll::new().unwrap();
        let taker = Arc::new(Waker::new(poll.registry(), Token(0)).unwrap());
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let relay = Relay::new([1; 32], TrafficLimits::default(), clock::now());
        let udp = UdpThread::start((socket, None), relay, &taker).unwrap();
        let id = AllocationId::from_bytes([1; 16]);
        udp.order(RelayCommand::Allocate(id, "alice".parse().unwrap()));
        let bytes = ChannelDatagram::Bind(id).to_bytes();
        let stride = u16::try_from(bytes.len()).unwrap();
        // Each has an answer, and most of them have been taken when the last one is given.
        for _ in 0..3 * RELAY_TRAINS_WAITING_MAX {
            let bytes = bytes.clone();
            let train = (ControlId(1), RelayDatagrams { stride, bytes });
            udp.waker.wake().unwrap();
            udp.to_relay.send(train).unwrap();
        }
        let UdpThread {
            thread,
            stop,
            waker,
            from_relay,
            ..
        } = udp;
        stop.store(true, Ordering::Relaxed);
        waker.wake().unwrap();
        thread.join().unwrap();
        let waiting = from_relay.iter().count();
        assert!(
            (1..=RELAY_TRAINS_WAITING_MAX).contains(&waiting),
            "{waiting}"
        );
    }
}
