//! Allocations and channels that come and go, peers that bind their allocations, send, lie about where they
//! are, and time.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use common::os::clock;
use common::stun::binding_request;
use common::wire::channel::{AllocationId, ChannelDatagram, Cookie, EndId};
use rendezvous::relay::{Batch, Channel, ChannelId, Departure, Output, Relay, TrafficLimits};

use super::feed::Feed;

/// Where datagrams come from. One address is there in two spellings.
const ADDRESSES: [&str; 4] = [
    "192.0.2.1:4000",
    "[::ffff:192.0.2.1]:4000",
    "[2001:db8::2]:5000",
    "203.0.113.3:0",
];
/// Peers, and channels: each between one peer and the next.
const PEERS: u8 = 3;
const STEPS_MAX: usize = 1000;

/// The relay, and what an observer of all datagrams knows.
struct Observer {
    relay: Relay,
    now: Instant,
    allocated: BTreeSet<u8>,
    open: BTreeSet<u8>,
    /// Challenges, and who received them where.
    cookies: Vec<(u8, SocketAddr, Cookie)>,
    /// The peers that have returned a challenge, and from where last.
    bound: BTreeMap<u8, SocketAddr>,
    /// Datagrams so far.
    taken: u64,
}

pub(super) fn relay(bytes: &[u8]) {
    let now = clock::now();
    let limits = TrafficLimits {
        of_account: 100_000,
        of_all: 150_000,
    };
    let mut observer = Observer {
        relay: Relay::new([1; 32], limits, now),
        now,
        allocated: BTreeSet::new(),
        open: BTreeSet::new(),
        cookies: Vec::new(),
        bound: BTreeMap::new(),
        taken: 0,
    };
    // Without this, chance rarely gets as far as a packet.
    for (peer, at) in [(0, 0), (1, 2)] {
        observer.allocate(peer);
        observer.bind(peer, ADDRESSES[at].parse().expect("an address"));
    }
    observer.open(0);
    let mut feed = Feed(bytes);
    for _ in 0..STEPS_MAX {
        if feed.is_empty() {
            return;
        }
        observer.step(&mut feed);
    }
}

impl Observer {
    fn step(&mut self, feed: &mut Feed<'_>) {
        match feed.below(9) {
            0 => self.open(peer(feed)),
            1 => self.close(peer(feed)),
            2 => self.say(ChannelDatagram::Bind(id_of(peer(feed))), address(feed)),
            3 => self.prove(feed),
            4 | 5 => self.batch(feed),
            6 => {
                let datagram = feed.piece().to_vec();
                self.send(&[datagram], address(feed));
            }
            7 if feed.flag() => self.free(peer(feed)),
            7 => self.allocate(peer(feed)),
            _ => self.pass(Duration::from_secs(feed.byte().into())),
        }
    }

    fn allocate(&mut self, peer: u8) {
        let account = format!("peer-{peer}").parse().expect("a name");
        let is_new = self.relay.allocate(id_of(peer), account, self.now);
        assert_eq!(is_new, self.allocated.insert(peer), "peer {peer}");
    }

    fn free(&mut self, peer: u8) {
        self.relay.free(id_of(peer));
        self.allocated.remove(&peer);
        self.bound.remove(&peer);
        for channel in 0..PEERS {
            if [0, 1].map(|side| peer_of(channel, side)).contains(&peer) {
                self.open.remove(&channel);
            }
        }
    }

    fn open(&mut self, number: u8) {
        let ends = [0, 1].map(|side| (end_of(number, side), id_of(peer_of(number, side))));
        let id = ChannelId(number.into());
        let is_new = self.relay.open(Channel { id, ends }, self.now);
        let is_allocated = [0, 1].map(|side| self.allocated.contains(&peer_of(number, side)));
        let expected = is_allocated == [true; 2] && self.open.insert(number);
        assert_eq!(is_new, expected, "channel {number}");
    }

    /// Binds an allocation as an honest peer does.
    fn bind(&mut self, peer: u8, source: SocketAddr) {
        self.say(ChannelDatagram::Bind(id_of(peer)), source);
        let (.., cookie) = *self.cookies.last().expect("a challenge");
        self.say(ChannelDatagram::Proof(id_of(peer), cookie), source);
        assert_eq!(self.bound.get(&peer), Some(&source));
    }

    fn close(&mut self, number: u8) {
        self.relay.close(ChannelId(number.into()));
        self.open.remove(&number);
    }

    /// Returns a challenge, perhaps for another allocation or from another place, or makes one up.
    fn prove(&mut self, feed: &mut Feed<'_>) {
        let known = feed.index(self.cookies.len() + 1);
        let known = known.and_then(|index| self.cookies.get(index)).copied();
        let (peer, source, cookie) = match known {
            Some((_, _, cookie)) if feed.flag() => (peer(feed), address(feed), cookie),
            Some(received) => received,
            None => (peer(feed), address(feed), Cookie(feed.array())),
        };
        self.say(ChannelDatagram::Proof(id_of(peer), cookie), source);
    }

    fn batch(&mut self, feed: &mut Feed<'_>) {
        let source = address(feed);
        let len = 1 + feed.below(32);
        let datagrams: Vec<Vec<u8>> = (0..1 + feed.below(6))
            .map(|_| match feed.below(8) {
                0 => binding_request(feed.number().into()),
                1 => feed.take(len).to_vec(),
                _ => {
                    let packet = [&feed.array::<1>()[..], &vec![7; len]].concat();
                    let end = end(feed);
                    let packet = &packet;
                    ChannelDatagram::Packet { end, packet }.to_bytes()
                }
            })
            .collect();
        self.send(&datagrams, source);
    }

    fn pass(&mut self, span: Duration) {
        self.now += span;
        self.relay.handle_timeout(self.now);
        while let Some(ChannelId(number)) = self.relay.poll_closed() {
            let number = number as u8;
            assert!(self.open.remove(&number), "it was closed before");
        }
        while let Some(departure) = self.relay.poll_departure(self.now) {
            let Departure::Datagram { to, bytes, .. } = departure else {
                panic!("no control connection is bound");
            };
            let Some(ChannelDatagram::Packet { end, .. }) = ChannelDatagram::parse(bytes) else {
                panic!("no packet: {bytes:?}");
            };
            let [number, side, ..] = *end.as_bytes();
            assert!(self.open.contains(&number), "its channel is closed");
            let bound = self.bound.get(&peer_of(number, side)).copied();
            assert_eq!(bound, Some(to), "not proved");
        }
        let is_due = self.relay.poll_timeout().is_some_and(|at| at <= self.now);
        assert!(!is_due, "it wants to be called again at once");
    }

    fn say(&mut self, datagram: ChannelDatagram<'_>, source: SocketAddr) {
        self.send(&[datagram.to_bytes()], source);
    }

    fn send(&mut self, datagrams: &[Vec<u8>], source: SocketAddr) {
        let stride = datagrams.first().map_or(0, Vec::len);
        let before = datagrams.concat();
        let mut bytes = before.clone();
        let batch = Batch {
            bytes: &mut bytes,
            stride,
            source,
            local: None,
        };
        let mut outputs = Vec::new();
        self.relay.handle_batch(batch, self.now, &mut outputs);
        self.taken += before.len().div_ceil(stride.max(1)).max(1) as u64;
        let waiting = self.relay.waiting() as u64;
        let gone = self.relay.answered() + self.relay.forwarded() + self.relay.dropped();
        assert_eq!(gone + waiting, self.taken, "each is one of the four");
        let source = common::stun::canonical(source);
        // Answers first: packets of the same batch may be from a peer that has just bound its allocation.
        for output in &outputs {
            if let Output::Answer(answer) = output {
                self.on_answer(answer, &before, stride, source);
            }
        }
        for output in outputs {
            if let Output::Forward {
                to,
                part,
                stride: of_part,
                ..
            } = output
            {
                assert_eq!(of_part, stride);
                let sent = before[part.clone()].chunks(stride);
                for (sent, forwarded) in sent.zip(bytes[part].chunks(stride)) {
                    self.on_forwarded(sent, forwarded, source, to);
                }
            }
        }
    }

    fn on_answer(&mut self, answer: &[u8], asked: &[u8], stride: usize, source: SocketAddr) {
        assert_ne!(source.port(), 0, "nothing goes to port 0");
        let Some(datagram) = ChannelDatagram::parse(answer) else {
            assert!(answer.first().is_some_and(|first| *first <= 3), "STUN");
            return;
        };
        assert!(answer.len() <= stride, "T13: it got larger");
        match datagram {
            ChannelDatagram::Challenge(id, cookie) => {
                self.cookies.push((self.allocated(id), source, cookie));
            }
            ChannelDatagram::Bound(id) => {
                let peer = self.allocated(id);
                let is_returned = asked.chunks(stride).any(|datagram| {
                    let asked = ChannelDatagram::parse(datagram);
                    let received = |cookie| self.cookies.contains(&(peer, source, cookie));
                    matches!(asked, Some(ChannelDatagram::Proof(of, cookie)) if of == id && received(cookie))
                });
                assert!(is_returned, "T49: bound without a proof");
                self.bound.insert(peer, source);
            }
            ChannelDatagram::Packet { .. }
            | ChannelDatagram::Bind(_)
            | ChannelDatagram::Proof(..) => panic!("no answer: {datagram:?}"),
        }
    }

    fn on_forwarded(&self, sent: &[u8], forwarded: &[u8], source: SocketAddr, to: SocketAddr) {
        let packet = |datagram| match ChannelDatagram::parse(datagram) {
            Some(ChannelDatagram::Packet { end, packet }) => (*end.as_bytes(), packet),
            other => panic!("no packet: {other:?}"),
        };
        let (([number, side, ..], bytes), (other, forwarded)) = (packet(sent), packet(forwarded));
        assert_eq!(forwarded, bytes, "it was changed");
        assert!(self.open.contains(&number), "its channel is closed");
        assert_eq!(
            other,
            *end_of(number, 1 - side).as_bytes(),
            "to somebody else"
        );
        let bound = |side| self.bound.get(&peer_of(number, side)).copied();
        assert_eq!(bound(side), Some(source), "a third address");
        assert_eq!(bound(1 - side), Some(to), "not proved");
    }

    /// The peer whose allocation this is.
    fn allocated(&self, id: AllocationId) -> u8 {
        let [.., peer] = *id.as_bytes();
        assert!(self.allocated.contains(&peer), "nobody has it");
        peer
    }
}

fn end_of(number: u8, side: u8) -> EndId {
    let mut bytes = [0; 16];
    bytes[..2].copy_from_slice(&[number, side]);
    EndId::from_bytes(bytes)
}

const fn id_of(peer: u8) -> AllocationId {
    AllocationId::from_bytes([0xa, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, peer])
}

/// The peer at one end of a channel.
const fn peer_of(number: u8, side: u8) -> u8 {
    (number + side) % PEERS
}

fn end(feed: &mut Feed<'_>) -> EndId {
    end_of(peer(feed), feed.below(2) as u8)
}

fn peer(feed: &mut Feed<'_>) -> u8 {
    feed.below(PEERS.into()) as u8
}

fn address(feed: &mut Feed<'_>) -> SocketAddr {
    let text = ADDRESSES[feed.below(ADDRESSES.len())];
    text.parse().expect("an address")
}
