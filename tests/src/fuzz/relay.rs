//! Relay channels that are opened and closed, peers that bind their ends, send, lie about where they are,
//! and time.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use common::os::clock;
use common::stun::binding_request;
use common::wire::channel::{ChannelBody, ChannelDatagram, Cookie, EndId};
use rendezvous::relay::{Batch, Channel, ChannelId, Output, Relay, TrafficLimits};

use super::feed::Feed;

/// Where datagrams come from. One address is there in two spellings.
const ADDRESSES: [&str; 4] = [
    "192.0.2.1:4000",
    "[::ffff:192.0.2.1]:4000",
    "[2001:db8::2]:5000",
    "203.0.113.3:0",
];
const CHANNELS: u8 = 3;
const STEPS_MAX: usize = 1000;

/// The relay, and what an observer of all datagrams knows.
struct Observer {
    relay: Relay,
    now: Instant,
    open: BTreeSet<u8>,
    /// Challenges, and who received them where.
    cookies: Vec<(EndId, SocketAddr, Cookie)>,
    /// The ends that have returned a challenge, and from where last.
    bound: BTreeMap<EndId, SocketAddr>,
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
        open: BTreeSet::new(),
        cookies: Vec::new(),
        bound: BTreeMap::new(),
        taken: 0,
    };
    // Without this, chance rarely gets as far as a packet.
    observer.open(0);
    for (side, at) in [(0, 0), (1, 2)] {
        observer.bind(end_of(0, side), ADDRESSES[at].parse().expect("an address"));
    }
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
        match feed.below(8) {
            0 => self.open(feed.below(CHANNELS.into()) as u8),
            1 => self.close(feed.below(CHANNELS.into()) as u8),
            2 => self.say(end(feed), ChannelBody::Bind, address(feed)),
            3 => self.prove(feed),
            4 | 5 => self.batch(feed),
            6 => {
                let datagram = feed.piece().to_vec();
                self.send(&[datagram], address(feed));
            }
            _ => self.pass(Duration::from_secs(feed.byte().into())),
        }
    }

    fn open(&mut self, number: u8) {
        let name = |side| format!("peer-{}", (number + side) % CHANNELS);
        let account = |side| name(side).parse().expect("a name");
        let ends = [0, 1].map(|side| (end_of(number, side), account(side)));
        let id = ChannelId(number.into());
        let is_new = self.relay.open(Channel { id, ends }, self.now);
        assert_eq!(is_new, self.open.insert(number), "channel {number}");
    }

    /// Binds an end of an open channel as an honest peer does.
    fn bind(&mut self, end: EndId, source: SocketAddr) {
        self.say(end, ChannelBody::Bind, source);
        let (.., cookie) = *self.cookies.last().expect("a challenge");
        self.say(end, ChannelBody::Proof(cookie), source);
        assert_eq!(self.bound.get(&end), Some(&source));
    }

    fn close(&mut self, number: u8) {
        self.relay.close(ChannelId(number.into()));
        self.forget(number);
    }

    fn forget(&mut self, number: u8) {
        self.open.remove(&number);
        for side in [0, 1] {
            self.bound.remove(&end_of(number, side));
        }
    }

    /// Returns a challenge, perhaps for another end or from another place, or makes one up.
    fn prove(&mut self, feed: &mut Feed<'_>) {
        let known = feed.index(self.cookies.len() + 1);
        let known = known.and_then(|index| self.cookies.get(index)).copied();
        let (end, source, cookie) = match known {
            Some((_, _, cookie)) if feed.flag() => (end(feed), address(feed), cookie),
            Some(received) => received,
            None => (end(feed), address(feed), Cookie(feed.array())),
        };
        self.say(end, ChannelBody::Proof(cookie), source);
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
                    let body = ChannelBody::Data(&packet);
                    let end = end(feed);
                    ChannelDatagram { end, body }.to_bytes()
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
            assert!(self.open.contains(&number), "it was closed before");
            self.forget(number);
        }
        let is_due = self.relay.poll_timeout().is_some_and(|at| at <= self.now);
        assert!(!is_due, "it wants to be called again at once");
    }

    fn say(&mut self, end: EndId, body: ChannelBody<'_>, source: SocketAddr) {
        self.send(&[ChannelDatagram { end, body }.to_bytes()], source);
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
        let counted = self.relay.answered() + self.relay.forwarded() + self.relay.dropped();
        assert_eq!(counted, self.taken, "each is one of the three");
        let source = common::stun::canonical(source);
        // Answers first: packets of the same batch may be from an end that has just been bound.
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
        let Some(ChannelDatagram { end, body }) = ChannelDatagram::parse(answer) else {
            assert!(answer.first().is_some_and(|first| *first <= 3), "STUN");
            return;
        };
        assert!(answer.len() <= stride, "T13: it got larger");
        assert!(self.is_open(end), "nobody has that end");
        match body {
            ChannelBody::Challenge(cookie) => self.cookies.push((end, source, cookie)),
            ChannelBody::Bound => {
                let is_returned = asked.chunks(stride).any(|datagram| {
                    let asked = ChannelDatagram::parse(datagram).map(|asked| asked.body);
                    let received = |cookie| self.cookies.contains(&(end, source, cookie));
                    matches!(asked, Some(ChannelBody::Proof(cookie)) if received(cookie))
                });
                assert!(is_returned, "T49: bound without a proof");
                self.bound.insert(end, source);
            }
            ChannelBody::Data(_) | ChannelBody::Bind | ChannelBody::Proof(_) => {
                panic!("no answer: {body:?}");
            }
        }
    }

    fn on_forwarded(&self, sent: &[u8], forwarded: &[u8], source: SocketAddr, to: SocketAddr) {
        let sent = ChannelDatagram::parse(sent).expect("a packet");
        let forwarded = ChannelDatagram::parse(forwarded).expect("a packet");
        assert!(matches!(sent.body, ChannelBody::Data(_)));
        assert_eq!(forwarded.body, sent.body, "it was changed");
        assert!(self.is_open(sent.end), "its channel is closed");
        assert_eq!(forwarded.end, other(sent.end), "it goes to somebody else");
        assert_eq!(self.bound.get(&sent.end), Some(&source), "a third address");
        assert_eq!(self.bound.get(&forwarded.end), Some(&to), "not proved");
    }

    fn is_open(&self, end: EndId) -> bool {
        let [number, ..] = end.as_bytes();
        self.open.contains(number)
    }
}

fn end_of(number: u8, side: u8) -> EndId {
    let mut bytes = [0; EndId::LEN];
    bytes[..2].copy_from_slice(&[number, side]);
    EndId::from_bytes(bytes)
}

fn other(end: EndId) -> EndId {
    let [number, side, ..] = *end.as_bytes();
    end_of(number, 1 - side)
}

fn end(feed: &mut Feed<'_>) -> EndId {
    end_of(feed.below(CHANNELS.into()) as u8, feed.below(2) as u8)
}

fn address(feed: &mut Feed<'_>) -> SocketAddr {
    let text = ADDRESSES[feed.below(ADDRESSES.len())];
    text.parse().expect("an address")
}
