//! The engine of the UDP ports: answers STUN Binding requests (RFC 8489), and carries packets between peers that
//! cannot reach each other. The second port, where there is one, has the first half of that alone: together the
//! two show what a NAT does (RFC 5780).
//!
//! It never sends more bytes than it got to an address that has not proved itself, but for the answers to
//! bare STUN requests, which have a budget. It is apart from [`crate::server::Server`] so that datagrams never
//! wait for log-ins: whoever owns the UDP sockets owns it too. The server says which allocations and channels
//! there are; where they are, and what they may still send, is known here alone.

use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::time::Instant;

use common::id::AccountName;
use common::limits::{Occupancy, RELAY_BYTES_PER_SECOND, RELAY_BYTES_PER_SECOND_OF_ACCOUNT};
use common::relayed::is_relayed;
use common::stun::{self, AnsweringPort, TwoPorts};
use common::wire::channel::{AllocationId, ChannelDatagram, EndId, redirect};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::source::SourcePrefix;
use budget::Budget;
use channels::{Channels, Place, Route};
use traffic::PayerId;
use waiting::{Packet, Waiting};

// Answers that are longer than their requests.
mod budget;
// Who may send to whom, and where they are.
mod channels;
// Datagrams that come over control connections.
mod control;
// What accounts may send.
mod traffic;
// What they have sent too much.
mod waiting;

pub use channels::{Channel, ChannelId};
pub use control::ControlId;
pub use traffic::TrafficLimits;

/// The server's UDP ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ports {
    /// The one for everything.
    pub main: u16,
    /// The one that only answers STUN Binding requests.
    pub second: u16,
}

/// One of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Port {
    /// [`Ports::main`].
    Main,
    /// [`Ports::second`].
    Second,
}

/// Datagrams that came together from one address, all of `stride` bytes but the last, which may be shorter.
#[derive(Debug)]
pub struct Batch<'a> {
    /// All of them, one behind the other. Those that are forwarded are changed in place.
    pub bytes: &'a mut [u8],
    /// The length of each.
    pub stride: usize,
    /// Where they came from.
    pub source: SocketAddr,
    /// The address of this host that they were sent to, where that is known.
    pub local: Option<IpAddr>,
}

/// What to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Part of the batch, as it is now, in datagrams of `stride` bytes.
    Forward {
        /// The address that the other end's allocation is bound to.
        to: SocketAddr,
        /// The address of this host to send it from: the one that the receiver knows. `None` where only
        /// the system knows.
        from: Option<IpAddr>,
        /// The bytes of the batch.
        part: Range<usize>,
        /// The length of each datagram but the last.
        stride: usize,
    },
    /// The same to a device whose datagrams come over its control connection.
    ForwardToControl {
        /// The connection that the other end's allocation is bound to.
        to: ControlId,
        /// The bytes of the batch.
        part: Range<usize>,
        /// The length of each datagram but the last.
        stride: usize,
    },
    /// A datagram back to where the batch came from, from the port that it came to.
    Answer(Vec<u8>),
    /// The same from the other port. There is one: the relay was told of it.
    AnswerFromOther(Vec<u8>),
}

/// A packet that has waited, and where it goes.
#[derive(Debug, PartialEq, Eq)]
pub enum Departure<'a> {
    /// Over UDP, from the main port.
    Datagram {
        /// The address that the other end's allocation is bound to.
        to: SocketAddr,
        /// The address of this host to send it from, as in [`Output::Forward`].
        from: Option<IpAddr>,
        /// The datagram.
        bytes: &'a [u8],
    },
    /// Over a control connection.
    ToControl {
        /// The connection that the other end's allocation is bound to.
        to: ControlId,
        /// The datagram.
        bytes: &'a [u8],
    },
}

/// Answers STUN Binding requests, and forwards the packets of relay channels.
#[derive(Debug)]
pub struct Relay {
    budget: Budget,
    channels: Channels,
    waiting: Waiting,
    /// Something waits that may be due before anything else.
    has_delayed: bool,
    /// Where there is a second port.
    ports: Option<Ports>,
    answered: u64,
    forwarded: u64,
    dropped: u64,
}

/// Packets of one end that follow each other in a batch.
#[derive(Debug)]
struct Run {
    end: EndId,
    part: Range<usize>,
    count: u64,
}

impl Default for TrafficLimits {
    fn default() -> Self {
        Self {
            of_account: RELAY_BYTES_PER_SECOND_OF_ACCOUNT,
            of_all: RELAY_BYTES_PER_SECOND,
        }
    }
}

impl Relay {
    /// A relay that has seen nothing. `seed` is random.
    pub fn new(seed: [u8; 32], limits: TrafficLimits, now: Instant) -> Self {
        let mut rng = StdRng::from_seed(seed);
        let [budget_key, cookie_key] = std::array::from_fn(|_| {
            let mut key = [0; 32];
            rng.fill_bytes(&mut key);
            key
        });
        Self {
            budget: Budget::new(budget_key, now),
            channels: Channels::new(cookie_key, limits, now),
            waiting: Waiting::new(limits.of_account),
            has_delayed: false,
            ports: None,
            answered: 0,
            forwarded: 0,
            dropped: 0,
        }
    }

    /// Tells of a second port, and its datagrams may be handed in from now on.
    pub const fn set_ports(&mut self, ports: Ports) {
        self.ports = Some(ports);
    }

    /// Makes an allocation for a device of `account`; `false` if there are too many, or the id is taken.
    pub fn allocate(&mut self, id: AllocationId, account: AccountName, now: Instant) -> bool {
        self.channels.allocate(id, account, now)
    }

    /// Ends an allocation and all its channels. Fine if it has ended already.
    pub fn free(&mut self, id: AllocationId) {
        if let Some(payer) = self.channels.free(id) {
            self.dropped += self.waiting.forget(payer) as u64;
        }
    }

    /// Opens a channel; `false` if there are as many as there may be, one of its ids is taken, or one of its
    /// allocations is not there.
    pub fn open(&mut self, channel: Channel, now: Instant) -> bool {
        self.channels.open(channel, now)
    }

    /// Closes a channel. Fine if it is closed already.
    pub fn close(&mut self, channel: ChannelId) {
        self.channels.close(channel);
    }

    /// Takes a batch that came over UDP to the main port, and adds what is to be sent to `outputs`.
    pub fn handle_batch(&mut self, mut batch: Batch<'_>, now: Instant, outputs: &mut Vec<Output>) {
        batch.source = stun::canonical(batch.source);
        if is_relayed(batch.source.ip()) {
            self.dropped += parts(batch.bytes.len(), batch.stride).count() as u64;
        } else {
            self.handle_all(batch, now, outputs);
        }
    }

    /// Takes a batch that came to the second port, and adds what is to be sent to `outputs`: answers to Binding
    /// requests, and nothing else.
    pub fn handle_second(&mut self, batch: &Batch<'_>, now: Instant, outputs: &mut Vec<Output>) {
        let source = stun::canonical(batch.source);
        for part in parts(batch.bytes.len(), batch.stride) {
            let datagram = &batch.bytes[part];
            let is_stun = matches!(datagram.first(), Some(0..=3));
            let is_from_somewhere = source.port() != 0 && !is_relayed(source.ip());
            let answer = if is_stun && is_from_somewhere {
                self.stun_answer(datagram, (source, batch.local), Port::Second, now)
            } else {
                None
            };
            self.count(answer.is_some());
            outputs.extend(answer);
        }
    }

    /// Takes datagrams that came over a control connection, and adds what is to be sent to `outputs`.
    pub fn handle_control(
        &mut self,
        from: ControlId,
        bytes: &mut [u8],
        stride: usize,
        now: Instant,
        outputs: &mut Vec<Output>,
    ) {
        let batch = Batch {
            bytes,
            stride,
            source: from.address(),
            local: None,
        };
        self.handle_all(batch, now, outputs);
    }

    fn handle_all(&mut self, mut batch: Batch<'_>, now: Instant, outputs: &mut Vec<Output>) {
        let mut run: Option<Run> = None;
        for part in parts(batch.bytes.len(), batch.stride) {
            let datagram = &batch.bytes[part.clone()];
            if let Some(ChannelDatagram::Packet { end, .. }) = ChannelDatagram::parse(datagram) {
                match &mut run {
                    Some(run) if run.end == end && run.part.end == part.start => run.add(&part),
                    _ => {
                        self.forward(run.replace(Run::new(end, part)), &mut batch, now, outputs);
                    }
                }
            } else {
                let answer = self.answer(datagram, (batch.source, batch.local), now);
                self.count(answer.is_some());
                outputs.extend(answer);
            }
        }
        self.forward(run, &mut batch, now, outputs);
    }

    /// Forwards a run of packets. What its account may not send yet waits, as far as there is room.
    fn forward(
        &mut self,
        run: Option<Run>,
        batch: &mut Batch<'_>,
        now: Instant,
        outputs: &mut Vec<Output>,
    ) {
        let Some(Run { end, part, count }) = run else {
            return;
        };
        let Some(route) = self.channels.route(end, batch.source, now) else {
            self.dropped += count;
            return;
        };
        let Route { payer, other, to } = route;
        let (bytes, stride) = (&mut *batch.bytes, batch.stride);
        let is_first = self.waiting.is_empty(payer);
        let part = if is_first && self.channels.pay(payer, part.len(), now) {
            part
        } else {
            let paid = self.wait(
                payer,
                (end, batch.source),
                &bytes[part.clone()],
                stride,
                now,
            );
            part.start..part.start + paid
        };
        if part.is_empty() {
            return;
        }
        for datagram in bytes[part.clone()].chunks_mut(stride) {
            redirect(datagram, other);
            self.forwarded += 1;
        }
        outputs.push(match ControlId::of(to.source) {
            Some(to) => Output::ForwardToControl { to, part, stride },
            None => Output::Forward {
                to: to.source,
                from: to.local,
                part,
                stride,
            },
        });
    }

    /// Has those of a run of packets wait that may not go yet. Returns the length of those before, which are paid for.
    fn wait(
        &mut self,
        payer: PayerId,
        sender: (EndId, SocketAddr),
        bytes: &[u8],
        stride: usize,
        now: Instant,
    ) -> usize {
        let mut paid = 0;
        let mut datagrams = bytes.chunks(stride);
        while let Some(datagram) = datagrams.next() {
            let len = datagram.len();
            if self.waiting.is_empty(payer) && self.channels.pay(payer, len, now) {
                paid += len;
                continue;
            }
            let due = self.channels.ready_for(payer, len, now);
            self.has_delayed |= self.waiting.is_empty(payer);
            if !self.waiting.push(payer, sender, datagram, due) {
                // Nothing behind it goes before it.
                self.dropped += 1 + datagrams.len() as u64;
                break;
            }
        }
        paid
    }

    fn answer(
        &mut self,
        datagram: &[u8],
        (source, local): (SocketAddr, Option<IpAddr>),
        now: Instant,
    ) -> Option<Output> {
        if source.port() == 0 {
            return None;
        }
        match datagram.first() {
            // RFC 9443: STUN begins with 0 to 3.
            Some(0..=3) => self.stun_answer(datagram, (source, local), Port::Main, now),
            Some(_) => {
                let datagram = ChannelDatagram::parse(datagram)?;
                let place = Place { source, local };
                let answer = self.channels.answer(&datagram, place, now)?;
                Some(Output::Answer(answer))
            }
            None => None,
        }
    }

    /// The full answer if it is no longer than the request, or else the short one if that is not; else the first
    /// of them that the budget has room for.
    fn stun_answer(
        &mut self,
        datagram: &[u8],
        (source, local): (SocketAddr, Option<IpAddr>),
        port: Port,
        now: Instant,
    ) -> Option<Output> {
        let two_ports = self.ports.zip(local);
        let two_ports = two_ports.map(|(ports, ip)| ports.at(ip, port));
        let answer = stun::server_answer(datagram, source, two_ports)?;
        let from = answer.from;
        let mut answers: Vec<_> = answer.full.into_iter().chain([answer.short]).collect();
        let excess = |answer: &Vec<u8>| answer.len().saturating_sub(datagram.len());
        let prefix = SourcePrefix::of(source.ip());
        let place = answers.iter().position(|answer| excess(answer) == 0);
        let place = place.or_else(|| {
            let budget = &mut self.budget;
            let mut answers = answers.iter();
            answers.position(|answer| budget.take(prefix, excess(answer), now))
        })?;
        let answer = answers.swap_remove(place);
        Some(match from {
            AnsweringPort::Asked => Output::Answer(answer),
            AnsweringPort::Other => Output::AnswerFromOther(answer),
        })
    }

    const fn count(&mut self, is_answered: bool) {
        if is_answered {
            self.answered += 1;
        } else {
            self.dropped += 1;
        }
    }

    /// Closes channels that nobody uses.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.channels.handle_timeout(now);
    }

    /// When [`Relay::handle_timeout`] and [`Relay::poll_departure`] are due, if ever.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let channels = self.channels.poll_timeout();
        channels
            .into_iter()
            .chain(self.waiting.poll_timeout())
            .min()
    }

    /// Tells whether [`Relay::poll_timeout`] may have become earlier since this was asked last, by packets that wait.
    pub const fn take_delayed(&mut self) -> bool {
        std::mem::replace(&mut self.has_delayed, false)
    }

    /// The next packet that has waited for its time.
    pub fn poll_departure(&mut self, now: Instant) -> Option<Departure<'_>> {
        let (place, route) = loop {
            let (payer, place) = self.waiting.pop(now)?;
            let Packet { end, source, bytes } = self.waiting.packet(place);
            let (end, source, len) = (*end, *source, bytes.len());
            // Its channel may be closed by now, or its sender elsewhere.
            let route = self.channels.route(end, source, now);
            let route = route.filter(|_| self.channels.pay(payer, len, now));
            if let Some(next) = self.waiting.first_len(payer) {
                let due = self.channels.ready_for(payer, next, now);
                self.waiting.set_due(payer, due);
            }
            if let Some(route) = route {
                break (place, route);
            }
            self.dropped += 1;
        };
        self.forwarded += 1;
        let Route { other, to, .. } = route;
        let bytes = &mut self.waiting.packet(place).bytes;
        redirect(bytes, other);
        Some(match ControlId::of(to.source) {
            Some(to) => Departure::ToControl { to, bytes },
            None => Departure::Datagram {
                to: to.source,
                from: to.local,
                bytes,
            },
        })
    }

    /// The next channel that was closed because nobody used it.
    pub fn poll_closed(&mut self) -> Option<ChannelId> {
        self.channels.poll_closed()
    }

    /// Requests answered so far.
    pub const fn answered(&self) -> u64 {
        self.answered
    }

    /// Packets forwarded so far.
    pub const fn forwarded(&self) -> u64 {
        self.forwarded
    }

    /// Packets that wait.
    pub fn waiting(&self) -> usize {
        self.waiting.count()
    }

    /// Datagrams dropped so far.
    pub const fn dropped(&self) -> u64 {
        self.dropped
    }

    /// How full it is.
    pub fn occupancies(&self) -> [Occupancy; 3] {
        let [allocations, channels] = self.channels.occupancies();
        [allocations, channels, self.waiting.occupancy()]
    }
}

impl Ports {
    const fn at(self, ip: IpAddr, asked: Port) -> TwoPorts {
        let Self { main, second } = self;
        let (asked, other) = match asked {
            Port::Main => (main, second),
            Port::Second => (second, main),
        };
        TwoPorts { ip, asked, other }
    }
}

impl Run {
    const fn new(end: EndId, part: Range<usize>) -> Self {
        Self {
            end,
            part,
            count: 1,
        }
    }

    const fn add(&mut self, part: &Range<usize>) {
        self.part.end = part.end;
        self.count += 1;
    }
}

/// The datagrams of a batch of `len` bytes; one without bytes is one, too.
fn parts(len: usize, stride: usize) -> impl Iterator<Item = Range<usize>> {
    let stride = stride.max(1);
    (0..len.max(1))
        .step_by(stride)
        .map(move |start| start..len.min(start + stride))
}

#[cfg(test)]
mod tests;
