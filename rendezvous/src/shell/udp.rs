//! The UDP ports, on threads of their own: log-ins never delay them.
//!
//! Each thread has a socket of the main port, among which the system divides the peers (`SO_REUSEPORT`). They
//! share one relay behind a lock, which is held while packets are looked at, and not while they are received
//! or sent: that is where the time goes. The first thread owns what there is once: the second port, the
//! relay's deadlines, and the trains of control connections.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, Sender, SyncSender};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use common::limits::RELAY_TRAINS_WAITING_MAX;
use common::os::clock;
use common::os::udp::{Received, Train, TrainSender, TrainSocket};
use common::wire::rendezvous::RelayDatagrams;
use mio::{Poll, Token, Waker};

use super::Failure;
use crate::relay::{Batch, ChannelId, ControlId, Departure, Output, Ports, Relay};
use crate::server::RelayCommand;

// A socket of the main port.
mod lane;
// What leaves as one train.
mod outgoing;

use lane::{Lane, send, send_answer};

const SOCKET: Token = Token(0);
const WAKER: Token = Token(1);
const SECOND: Token = Token(2);
/// Trains taken in one call at the second port, which a few clients ask a few times each. It is looked at once in
/// a round of the main port: a flood there does not delay packets of the relay.
const SECOND_BATCH: usize = 8;

/// The sockets of the UDP ports.
#[derive(Debug)]
pub(super) struct UdpSockets {
    /// Of the main port, one for each thread: at least one.
    pub(super) main: Vec<std::net::UdpSocket>,
    /// Of the second port, if there is one.
    pub(super) second: Option<std::net::UdpSocket>,
}

/// The threads that answer datagrams, until they are told to stop.
#[derive(Debug)]
pub(super) struct UdpThreads {
    shared: Arc<Shared>,
    /// The first one is the keeper.
    threads: Vec<(JoinHandle<()>, Arc<Waker>)>,
    closed: Receiver<ChannelId>,
    /// Trains of control connections, to the relay and from it.
    to_relay: SyncSender<(ControlId, RelayDatagrams)>,
    from_relay: Receiver<(ControlId, RelayDatagrams)>,
}

/// What all threads have.
#[derive(Debug)]
struct Shared {
    relay: Mutex<Relay>,
    stop: AtomicBool,
    /// Sends from the second port, if there is one.
    second: Option<TrainSender>,
    closed: Sender<ChannelId>,
    /// At most [`RELAY_TRAINS_WAITING_MAX`], as in the other direction.
    to_control: SyncSender<(ControlId, RelayDatagrams)>,
    /// Wakes whoever takes what is closed, and what is for control connections.
    taker: Arc<Waker>,
    /// Wakes the first thread, once there is one.
    keeper: OnceLock<Arc<Waker>>,
}

/// The first thread.
struct Keeper {
    lane: Lane,
    /// The second port, if there is one.
    second: Option<TrainSocket>,
    from_control: Receiver<(ControlId, RelayDatagrams)>,
    leaving: Leaving,
}

/// What has waited, and leaves once the relay is given back.
#[derive(Default)]
struct Leaving {
    datagrams: Vec<(SocketAddr, Option<IpAddr>, Range<usize>)>,
    bytes: Vec<u8>,
}

impl UdpThreads {
    /// Starts to answer datagrams at the main port and the second one, if there is any, with an engine that has
    /// seen nothing. `taker` wakes whoever calls [`UdpThreads::take_closed`] and [`UdpThreads::take_train`].
    pub(super) fn start(
        sockets: UdpSockets,
        mut relay: Relay,
        taker: &Arc<Waker>,
    ) -> Result<Self, Failure> {
        let failure = |why| Failure::System {
            what: "start the UDP threads",
            why,
        };
        let UdpSockets { main, second } = sockets;
        let from_second = second.as_ref().map(|it| TrainSender::over(it.try_clone()?));
        let from_second = from_second.transpose().map_err(failure)?;
        if let (Some(second), Some(main)) = (&from_second, main.first()) {
            relay.set_ports(Ports {
                main: main.local_addr().map_err(failure)?.port(),
                second: second.local().port(),
            });
        }
        let (closing, closed) = mpsc::channel();
        let (to_relay, from_control) = mpsc::sync_channel(RELAY_TRAINS_WAITING_MAX);
        let (to_control, from_relay) = mpsc::sync_channel(RELAY_TRAINS_WAITING_MAX);
        let shared = Arc::new(Shared {
            relay: Mutex::new(relay),
            stop: AtomicBool::new(false),
            second: from_second,
            closed: closing,
            to_control,
            taker: Arc::clone(taker),
            keeper: OnceLock::new(),
        });
        let mut kept = Some((second, from_control));
        let mut threads = Vec::new();
        for (number, socket) in main.into_iter().enumerate() {
            let started = start_thread(number, socket, &shared, kept.take());
            threads.push(started.map_err(failure)?);
        }
        Ok(Self {
            shared,
            threads,
            closed,
            to_relay,
            from_relay,
        })
    }

    /// Has the relay do something. It is done when this returns: a peer that hears of it may send at once.
    pub(super) fn order(&self, command: RelayCommand) {
        let (relay, now) = (&mut self.shared.relay(), clock::now());
        match command {
            RelayCommand::Allocate(id, account) => {
                if !relay.allocate(id, account, now) {
                    log::error!("the relay has no room for an allocation");
                }
            }
            RelayCommand::Free(id) => relay.free(id),
            RelayCommand::Open(channel) => {
                let id = channel.id;
                if !relay.open(channel, now) {
                    self.shared.tell_closed(id);
                }
                // There may be a deadline that there was not.
                self.shared.wake_keeper();
            }
        }
    }

    /// The next channel that the relay has closed by itself, or has not opened.
    pub(super) fn take_closed(&self) -> Option<ChannelId> {
        self.closed.try_recv().ok()
    }

    /// Gives a train of a control connection to the relay. It is lost if too many wait.
    pub(super) fn pass(&self, connection: ControlId, train: RelayDatagrams) {
        if self.to_relay.try_send((connection, train)).is_ok() {
            self.shared.wake_keeper();
        }
    }

    /// The next train for a control connection.
    pub(super) fn take_train(&self) -> Option<(ControlId, RelayDatagrams)> {
        self.from_relay.try_recv().ok()
    }

    /// Ends the threads.
    pub(super) fn stop(self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        for (thread, waker) in self.threads {
            if waker.wake().is_ok() && thread.join().is_err() {
                log::error!("a UDP thread panicked");
            }
        }
    }
}

/// What the keeper has beside its socket of the main port.
type Kept = (
    Option<std::net::UdpSocket>,
    Receiver<(ControlId, RelayDatagrams)>,
);

/// Starts a thread with a socket of the main port; the keeper has more.
fn start_thread(
    number: usize,
    socket: std::net::UdpSocket,
    shared: &Arc<Shared>,
    kept: Option<Kept>,
) -> io::Result<(JoinHandle<()>, Arc<Waker>)> {
    let poll = Poll::new()?;
    let waker = Arc::new(Waker::new(poll.registry(), WAKER)?);
    let mut lane = Lane::new(socket, poll, Arc::clone(shared))?;
    let named = thread::Builder::new().name(format!("udp-{number}"));
    let thread = match kept {
        Some((second, from_control)) => {
            let second = second.map(|second| {
                let mut second = TrainSocket::over(second, SECOND_BATCH)?;
                second.register(lane.registry(), SECOND)?;
                Ok::<_, io::Error>(second)
            });
            let second = second.transpose()?;
            let keeper = Keeper {
                lane,
                second,
                from_control,
                leaving: Leaving::default(),
            };
            shared.keeper.get_or_init(|| Arc::clone(&waker));
            named.spawn(move || keeper.run())?
        }
        None => named.spawn(move || while lane.turn(None, |_| {}) {})?,
    };
    Ok((thread, waker))
}

impl Shared {
    /// The relay, which nobody else has as long as this is held.
    fn relay(&self) -> MutexGuard<'_, Relay> {
        self.relay
            .lock()
            .expect("no thread panics that has the relay")
    }

    /// The first thread looks when the relay has something to do.
    fn wake_keeper(&self) {
        let woken = self.keeper.get().map(|waker| waker.wake());
        if !matches!(woken, Some(Ok(()))) {
            log::error!("the UDP threads are gone");
        }
    }

    fn tell_closed(&self, channel: ChannelId) {
        // Fails only once the server stops.
        let _ = self.closed.send(channel).is_ok() && self.taker.wake().is_ok();
    }

    /// Passes datagrams on to a control connection. They are lost if too many wait.
    fn pass_to_control(&self, connection: ControlId, bytes: Vec<u8>, stride: usize) {
        let stride = u16::try_from(stride).unwrap_or(u16::MAX);
        let train = RelayDatagrams { stride, bytes };
        if self.to_control.try_send((connection, train)).is_ok() {
            // Fails only once the server stops.
            let _ = self.taker.wake();
        }
    }
}

impl Keeper {
    fn run(mut self) {
        let mut outputs = Vec::new();
        loop {
            let span = self.handle_timeout();
            let second = &mut self.second;
            let has_more = second.as_ref().is_some_and(TrainSocket::is_readable);
            let span = if has_more { Some(Duration::ZERO) } else { span };
            let goes_on = self.lane.turn(span, |events| {
                if let Some(second) = second
                    && events.iter().any(|event| event.token() == SECOND)
                {
                    second.note_readable();
                }
            });
            if !goes_on {
                break;
            }
            self.take_trains(&mut outputs);
            self.answer_second(&mut outputs);
        }
        let relay = self.lane.shared.relay();
        log::debug!(
            "relay: answered={} forwarded={} dropped={}",
            relay.answered(),
            relay.forwarded(),
            relay.dropped()
        );
    }

    /// Has the relay do what is due. Returns how long nothing else will be.
    fn handle_timeout(&mut self) -> Option<Duration> {
        let Self { lane, leaving, .. } = self;
        let shared = &lane.shared;
        let mut relay = shared.relay();
        let now = clock::now();
        relay.handle_timeout(now);
        while let Some(channel) = relay.poll_closed() {
            shared.tell_closed(channel);
        }
        while let Some(departure) = relay.poll_departure(now) {
            match departure {
                Departure::Datagram { to, from, bytes } => leaving.add(to, from, bytes),
                Departure::ToControl { to, bytes } => {
                    shared.pass_to_control(to, bytes.to_vec(), bytes.len());
                }
            }
        }
        let due = relay.poll_timeout();
        drop(relay);
        leaving.send(lane.sender());
        due.map(|due| due.saturating_duration_since(now))
    }

    /// Answers what came to the second port.
    fn answer_second(&mut self, outputs: &mut Vec<Output>) {
        let Some(second) = self.second.as_mut().filter(|it| it.is_readable()) else {
            return;
        };
        let (shared, main) = (&self.lane.shared, self.lane.sender());
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
            shared.relay().handle_second(&batch, clock::now(), outputs);
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

    /// Hands what came over control connections to the relay.
    fn take_trains(&mut self, outputs: &mut Vec<Output>) {
        let shared = &self.lane.shared;
        while let Ok((connection, mut train)) = self.from_control.try_recv() {
            let stride = usize::from(train.stride);
            let bytes = train.bytes.as_mut_slice();
            shared
                .relay()
                .handle_control(connection, bytes, stride, clock::now(), outputs);
            for output in outputs.drain(..) {
                match output {
                    // A connection has one port, but its device may ask for the other one.
                    Output::Answer(answer) | Output::AnswerFromOther(answer) => {
                        let stride = answer.len();
                        shared.pass_to_control(connection, answer, stride);
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
                        send(self.lane.sender(), &train);
                    }
                    Output::ForwardToControl { to, part, stride } => {
                        shared.pass_to_control(to, train.bytes[part].to_vec(), stride);
                    }
                }
            }
        }
    }
}

impl Leaving {
    fn add(&mut self, to: SocketAddr, from: Option<IpAddr>, bytes: &[u8]) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(bytes);
        self.datagrams.push((to, from, start..self.bytes.len()));
    }

    fn send(&mut self, sender: &TrainSender) {
        for (to, from, range) in self.datagrams.drain(..) {
            send_answer(sender, &self.bytes[range], (to, from));
        }
        self.bytes.clear();
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use common::wire::channel::{AllocationId, ChannelDatagram, EndId};
    use socket2::{Domain, Socket, Type};

    use super::*;
    use crate::relay::{Channel, TrafficLimits};

    fn started(threads: usize) -> (UdpThreads, SocketAddr) {
        started_with(threads, TrafficLimits::default())
    }

    fn started_with(threads: usize, limits: TrafficLimits) -> (UdpThreads, SocketAddr) {
        let poll = Poll::new().unwrap();
        let taker = Arc::new(Waker::new(poll.registry(), Token(0)).unwrap());
        let mut address: SocketAddr = ([127, 0, 0, 1], 0).into();
        let main = (0..threads).map(|_| {
            let socket = Socket::new(Domain::IPV4, Type::DGRAM, None).unwrap();
            #[cfg(target_os = "linux")]
            socket.set_reuse_port(true).unwrap();
            socket.bind(&address.into()).unwrap();
            let socket = UdpSocket::from(socket);
            address = socket.local_addr().unwrap();
            socket
        });
        let sockets = UdpSockets {
            main: main.collect(),
            second: None,
        };
        let relay = Relay::new([1; 32], limits, clock::now());
        (UdpThreads::start(sockets, relay, &taker).unwrap(), address)
    }

    /// The loop that takes trains is busy with something else.
    #[test]
    fn t49_trains_that_nobody_takes_are_lost_at_the_bound() {
        let (udp, _) = started(1);
        let id = AllocationId::from_bytes([1; 16]);
        udp.order(RelayCommand::Allocate(id, "alice".parse().unwrap()));
        let bytes = ChannelDatagram::Bind(id).to_bytes();
        let stride = u16::try_from(bytes.len()).unwrap();
        // Each has an answer, and most of them have been taken when the last one is given.
        for _ in 0..3 * RELAY_TRAINS_WAITING_MAX {
            let bytes = bytes.clone();
            let train = (ControlId(1), RelayDatagrams { stride, bytes });
            udp.shared.wake_keeper();
            udp.to_relay.send(train).unwrap();
        }
        let UdpThreads {
            threads,
            shared,
            from_relay,
            ..
        } = udp;
        shared.stop.store(true, Ordering::Relaxed);
        for (thread, waker) in threads {
            waker.wake().unwrap();
            thread.join().unwrap();
        }
        drop(shared);
        let waiting = from_relay.iter().count();
        assert!(
            (1..=RELAY_TRAINS_WAITING_MAX).contains(&waiting),
            "{waiting}"
        );
    }

    /// A device of the relay, at a socket of its own.
    struct Device {
        socket: UdpSocket,
        end: EndId,
    }

    impl Device {
        /// Binds an allocation at the relay.
        fn bound(relay: SocketAddr, id: AllocationId, end: EndId) -> Self {
            let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
            socket.connect(relay).unwrap();
            let patience = Duration::from_secs(10);
            socket.set_read_timeout(Some(patience)).unwrap();
            let device = Self { socket, end };
            device.send(&ChannelDatagram::Bind(id));
            let challenge = device.receive();
            let Some(ChannelDatagram::Challenge(_, cookie)) = ChannelDatagram::parse(&challenge)
            else {
                panic!("no challenge: {challenge:?}");
            };
            device.send(&ChannelDatagram::Proof(id, cookie));
            let bound = ChannelDatagram::Bound(id).to_bytes();
            assert_eq!(device.receive(), bound);
            device
        }

        fn send(&self, datagram: &ChannelDatagram<'_>) {
            self.socket.send(&datagram.to_bytes()).unwrap();
        }

        fn receive(&self) -> Vec<u8> {
            let mut bytes = [0; 2048];
            let len = self.socket.recv(&mut bytes).unwrap();
            bytes[..len].to_vec()
        }
    }

    /// What an account has sent too much goes later, though the thread that got it is not the one that waits.
    #[test]
    #[cfg_attr(not(target_os = "linux"), ignore = "only Linux divides the peers")]
    fn what_is_a_little_too_much_arrives_a_little_later_whichever_thread_it_came_to() {
        /// What a full bucket has for packets of 1000 bytes at the lowest rate.
        const AT_ONCE: u8 = 64;
        const LATER: u8 = 10;
        let limits = TrafficLimits {
            of_account: 125_000,
            ..TrafficLimits::default()
        };
        let (udp, relay) = started_with(4, limits);
        for pair in 0..8 {
            let ids = [2 * pair, 2 * pair + 1].map(|number| [number; 16]);
            let [one, other] = ids.map(|bytes| {
                let id = AllocationId::from_bytes(bytes);
                let account = format!("account-{}", bytes[0]);
                udp.order(RelayCommand::Allocate(id, account.parse().unwrap()));
                Device::bound(relay, id, EndId::from_bytes(bytes))
            });
            udp.order(RelayCommand::Open(Channel {
                id: ChannelId(pair.into()),
                ends: ids.map(|id| (EndId::from_bytes(id), AllocationId::from_bytes(id))),
            }));
            // No socket has room for all of them.
            for numbers in [
                0..AT_ONCE / 2,
                AT_ONCE / 2..AT_ONCE,
                AT_ONCE..AT_ONCE + LATER,
            ] {
                let packet = |number| [number; 983];
                for number in numbers.clone() {
                    one.send(&ChannelDatagram::Packet {
                        end: one.end,
                        packet: &packet(number),
                    });
                }
                for number in numbers {
                    let arrived = ChannelDatagram::Packet {
                        end: other.end,
                        packet: &packet(number),
                    };
                    assert_eq!(other.receive(), arrived.to_bytes());
                }
            }
        }
        udp.stop();
    }

    /// The two ends of a channel come to whichever sockets the system chooses.
    #[test]
    #[cfg_attr(not(target_os = "linux"), ignore = "only Linux divides the peers")]
    fn devices_reach_each_other_whichever_thread_each_of_them_has() {
        const DEVICES: u8 = 32;
        let (udp, relay) = started(4);
        let bound = |number: u8| {
            let id = AllocationId::from_bytes([number; 16]);
            udp.order(RelayCommand::Allocate(id, "alice".parse().unwrap()));
            Device::bound(relay, id, EndId::from_bytes([number; 16]))
        };
        let devices: Vec<Device> = (0..DEVICES).map(bound).collect();
        for number in (0..DEVICES).step_by(2) {
            let end = |number| {
                let bytes = [number; 16];
                (EndId::from_bytes(bytes), AllocationId::from_bytes(bytes))
            };
            let channel = Channel {
                id: ChannelId(number.into()),
                ends: [end(number), end(number + 1)],
            };
            udp.order(RelayCommand::Open(channel));
        }
        for pair in devices.chunks_exact(2) {
            for (one, other) in [(&pair[0], &pair[1]), (&pair[1], &pair[0])] {
                let packet = &b"opaque"[..];
                one.send(&ChannelDatagram::Packet {
                    end: one.end,
                    packet,
                });
                let arrived = ChannelDatagram::Packet {
                    end: other.end,
                    packet,
                };
                assert_eq!(other.receive(), arrived.to_bytes());
            }
        }
        udp.stop();
    }
}
