//! Tests of datagrams that only an attacker sends: their cost in time and memory.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::raw::Raw;
use super::*;
use crate::node::memory;

/// Forged packets with the real connection id.
const FORGERIES: u32 = 1_000_000;
/// Fragments of streams whose first byte is never sent.
const FRAGMENTS: u64 = 1_000_000;
/// Fragments in one packet.
const PER_PACKET: usize = 10;
/// The test acknowledges once per this many packets.
const POLITE_EVERY: u64 = 1000;
/// A PING frame, which elicits an acknowledgement and does nothing else (RFC 9000 section 19.2).
const PING: u8 = 1;
/// Allowance for the allocator and the link's own state.
const MEMORY_SLACK: u64 = 8 << 20;
/// The largest train that one receive call returns.
const TRAIN: usize = 45;
const MTU: usize = 1452;

const CALLER: [u8; 32] = [1; 32];

/// Sends bytes from one end to the other on a new stream.
fn carries_a_leaf(pair: &mut Pair, client: LinkId, server: LinkId) -> bool {
    let Some(stream) = pair.ends[0].open_leaf(client, LeafRank::of(1)) else {
        return false;
    };
    pair.ends[0].write(client, stream, Bytes::from_static(b"still here"), true);
    pair.run();
    let mut got = Vec::new();
    let end = pair.ends[1].read(server, stream, &mut |bytes| {
        got.extend_from_slice(&bytes);
        true
    });
    end == ReadEnd::Finished && got == b"still here"
}

#[test]
fn t18_a_million_forged_packets_do_not_break_a_link() {
    if !memory::is_alone(
        "node::transport::tests::hostile::t18_a_million_forged_packets_do_not_break_a_link",
    ) {
        return;
    }
    let mut pair = Pair::new();
    let (client, server) = pair.connect();
    pair.ends[1].authorise(server, pair.now);
    pair.run();
    assert!(carries_a_leaf(&mut pair, client, server));
    let real = pair.last[0].clone();
    assert_eq!(real[0] & 0xc0, 0x40, "a short header");

    let mut rng = StdRng::from_seed([18; 32]);
    let heard = |pair: &mut Pair| {
        let stats = pair.ends[1].with(server, |link| link.connection.stats());
        stats.expect("the link is there").udp_rx.datagrams
    };
    let before = heard(&mut pair);
    let mut memory_before = 0;
    for n in 0..FORGERIES / TRAIN as u32 {
        if n == 100 {
            memory_before = memory::resident();
        }
        let stride = rng.random_range(21..120);
        let mut train = vec![0; stride * TRAIN];
        rng.fill(&mut train[..]);
        for datagram in train.chunks_mut(stride) {
            datagram[0] = 0x40 | (datagram[0] & 0x3f);
            datagram[1..=CID_LEN].copy_from_slice(&real[1..=CID_LEN]);
        }
        // From the other end's address, and from others.
        let source = if n % 4 == 0 {
            SocketAddr::from(([203, 0, 113, n as u8], n as u16))
        } else {
            address(0)
        };
        pair.ends[1].handle_datagrams(train_from(source, stride, &train), pair.now);
        if n % 1000 == 0 {
            pair.run();
        }
    }
    let events = pair.run();
    assert!(events.iter().all(Vec::is_empty), "{events:?}");
    let forged = u64::from(FORGERIES / 4 * 3) - TRAIN as u64;
    assert!(
        heard(&mut pair) - before > forged,
        "they did not reach the link"
    );
    let grown = memory::resident().saturating_sub(memory_before);
    assert!(grown < MEMORY_SLACK, "{grown} bytes more");
    assert_eq!(pair.ends[1].link_count(), 1);
    assert!(carries_a_leaf(&mut pair, client, server));
}

#[test]
fn t18_a_real_packet_that_was_changed_is_not_taken() {
    let mut pair = Pair::new();
    let (client, server) = pair.connect();
    pair.ends[1].authorise(server, pair.now);
    pair.run();
    let stream = pair.ends[0].open_leaf(client, LeafRank::of(1)).unwrap();
    pair.ends[0].write(client, stream, Bytes::from_static(b"honest"), true);
    let sent = sent_by(&mut pair.ends[0], pair.now);
    for (_, real) in &sent {
        for at in 0..real.len() {
            let mut forged = real.clone();
            forged[at] ^= 1 << (at % 8);
            let train = train_from(address(0), forged.len(), &forged);
            pair.ends[1].handle_datagrams(train, pair.now);
        }
    }
    let nothing = pair.ends[1].read(server, stream, &mut |_| panic!("a forged byte"));
    assert!(
        matches!(nothing, ReadEnd::Gone | ReadEnd::Blocked),
        "{nothing:?}"
    );
    for (_, real) in &sent {
        let train = train_from(address(0), real.len(), real);
        pair.ends[1].handle_datagrams(train, pair.now);
    }
    let mut got = Vec::new();
    let end = pair.ends[1].read(server, stream, &mut |bytes| {
        got.extend_from_slice(&bytes);
        true
    });
    assert_eq!((end, &got[..]), (ReadEnd::Finished, &b"honest"[..]));
}

/// A STREAM frame with an offset and a length (RFC 9000 section 19.8).
pub(super) fn stream_frame(stream: u64, offset: u64, bytes: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x0e];
    for number in [stream, offset, bytes.len() as u64] {
        // The variable-length form with four bytes, whatever the number.
        frame.extend_from_slice(&(number as u32 | 0x8000_0000).to_be_bytes());
    }
    frame.extend_from_slice(bytes);
    frame
}

/// A link to `end`, and the streams that it lets the test open.
struct Link {
    raw: Raw,
    end: Transport,
    link: LinkId,
    now: Instant,
    sent: u64,
}

impl Link {
    fn new() -> Self {
        let Pair {
            ends: [_, mut end],
            mut now,
            ..
        } = Pair::new();
        let caller = DeviceSecret::from_seed(CALLER);
        let (raw, link) = Raw::dial(&mut end, &caller, address(0), &mut now);
        Self {
            raw,
            end,
            link,
            now,
            sent: 0,
        }
    }

    fn authorised() -> Self {
        let mut link = Self::new();
        link.end.authorise(link.link, link.now);
        link
    }

    /// Sends packets in one train; returns the link's events.
    fn send(&mut self, packets: &[Vec<u8>]) -> Vec<TransportEvent> {
        let stride = packets.iter().map(Vec::len).max().unwrap_or_default();
        self.end
            .handle_datagrams(self.raw.train(stride, packets), self.now);
        let events = events_of(&mut self.end);
        sent_by(&mut self.end, self.now);
        events
    }

    /// Sends frames, and acknowledges now and then as an honest end does (RFC 9000 section 19.3).
    fn send_frames_politely(&mut self, frames: &[u8]) -> Vec<TransportEvent> {
        self.sent += 1;
        if !self.sent.is_multiple_of(POLITE_EVERY) {
            return self.send_frames(frames);
        }
        let last = self.end.with(self.link, |link| link.ack_lag.sent());
        let last = last.expect("the link is there") as u32 | 0x8000_0000;
        let ack = [&[2], &last.to_be_bytes()[..], &[0, 0, 0]].concat();
        self.send_frames(&[&ack, frames].concat())
    }

    fn send_frames(&mut self, frames: &[u8]) -> Vec<TransportEvent> {
        let packet = self.raw.packet(frames);
        self.send(&[packet])
    }

    /// Number of bytes that can be read from a stream now.
    fn readable(&mut self, stream: u64) -> (u64, ReadEnd) {
        let stream = VarInt::try_from(stream).map(StreamId::from).unwrap();
        let mut read = 0;
        let end = self.end.read(self.link, stream, &mut |bytes| {
            read += bytes.len() as u64;
            true
        });
        (read, end)
    }
}

/// The number of a client's stream for a leaf.
pub(super) const fn leaf(n: u64) -> u64 {
    4 * n + 2
}

/// The message stream and every stream for a leaf.
fn all_streams() -> Vec<u64> {
    let leaves = (0..u64::from(LEAF_STREAMS_MAX)).map(leaf);
    std::iter::once(0).chain(leaves).collect()
}

/// Why a link was lost, if it was.
fn loss(events: &[TransportEvent]) -> Option<String> {
    events.iter().find_map(|event| match event {
        TransportEvent::Lost { reason, .. } => Some(reason.to_string()),
        TransportEvent::Connected { .. }
        | TransportEvent::Opened { .. }
        | TransportEvent::Readable { .. }
        | TransportEvent::Finished { .. }
        | TransportEvent::Writable { .. }
        | TransportEvent::Silent { .. }
        | TransportEvent::Path { .. } => None,
    })
}

#[test]
fn t17_fragments_that_never_meet_end_the_link() {
    let mut link = Link::authorised();
    let mut lost = None;
    for n in 1..=10_000 {
        let events = link.send_frames(&stream_frame(0, 2 * n, &[1]));
        if let Some(reason) = loss(&events) {
            lost = Some((n, reason.to_owned()));
            break;
        }
    }
    let (fragments, reason) = lost.expect("no bound on what lies apart");
    assert!((100..5000).contains(&fragments), "{fragments}: {reason}");
}

#[test]
fn t17_what_lies_behind_a_gap_ends_at_the_windows() {
    if !memory::is_alone(
        "node::transport::tests::hostile::t17_what_lies_behind_a_gap_ends_at_the_windows",
    ) {
        return;
    }
    // The code itself is in memory before anything is measured.
    drop(Link::authorised());
    let window = u64::from(STREAM_WINDOW);
    let piece = [7; 1400];
    let all = all_streams();
    // A link that is not authorised, one stream, then all streams.
    for (is_authorised, streams, most) in [
        (false, &all[..1], u64::from(UNAUTHORISED_WINDOW)),
        (true, &all[1..2], window),
        (true, &all[..], u64::from(LINK_WINDOW)),
    ] {
        let before = memory::resident();
        let mut link = if is_authorised {
            Link::authorised()
        } else {
            Link::new()
        };
        let mut sent = 0;
        let mut lost = None;
        'full: for stream in streams {
            // The gap counts towards the window as if it were filled.
            let mut offset = 1;
            sent += 1;
            while offset + piece.len() as u64 <= window {
                let events = link.send_frames(&stream_frame(*stream, offset, &piece));
                if let Some(reason) = loss(&events) {
                    lost = Some(reason.to_owned());
                    break 'full;
                }
                offset += piece.len() as u64;
                sent += piece.len() as u64;
            }
            let stays = link.readable(*stream);
            assert_eq!(stays, (0, ReadEnd::Blocked));
        }
        if lost.is_none() {
            let events = link.send_frames(&stream_frame(streams[0], window, &[1]));
            lost = loss(&events);
        }
        assert!(lost.is_some(), "{sent} bytes and no end");
        let room = most - piece.len() as u64..=most;
        assert!(room.contains(&sent), "{sent} of {most}");
        let grown = memory::resident().saturating_sub(before);
        assert!(grown < 3 * most + MEMORY_SLACK, "{grown} bytes for {sent}");
    }
}

#[test]
fn t17_a_fragment_does_not_hold_the_train_that_brought_it() {
    if !memory::is_alone(
        "node::transport::tests::hostile::t17_a_fragment_does_not_hold_the_train_that_brought_it",
    ) {
        return;
    }
    let mut link = Link::new();
    let before = memory::resident();
    for n in 1..=1000u64 {
        // One datagram with one byte for a stream, at the end of a train of nothing.
        let mut packets = vec![vec![0x40; MTU]; TRAIN - 1];
        packets.push(link.raw.packet(&stream_frame(0, n, &[1])));
        assert_eq!(loss(&link.send(&packets)), None);
    }
    let grown = memory::resident().saturating_sub(before);
    assert!(grown < MEMORY_SLACK, "{grown} bytes for a thousand");
}

#[test]
fn t17_a_million_fragments_behind_a_gap_take_little() {
    if !memory::is_alone(
        "node::transport::tests::hostile::t17_a_million_fragments_behind_a_gap_take_little",
    ) {
        return;
    }
    let mut link = Link::authorised();
    let streams = all_streams();
    let each = FRAGMENTS.div_ceil(streams.len() as u64);
    let before = memory::resident();
    for offset in (1..=each).step_by(PER_PACKET) {
        for stream in &streams {
            let places = offset..offset + PER_PACKET as u64;
            let frames = places.map(|at| stream_frame(*stream, at, &[at as u8]));
            let events = link.send_frames_politely(&frames.collect::<Vec<_>>().concat());
            assert_eq!(loss(&events), None, "at {offset} of stream {stream}");
        }
    }
    let grown = memory::resident().saturating_sub(before);
    assert!(grown < FRAGMENTS + MEMORY_SLACK, "{grown} bytes");

    // Once the first byte arrives, all can be read: they were kept, not discarded.
    for stream in streams {
        assert_eq!(link.readable(stream), (0, ReadEnd::Blocked));
        link.send_frames(&stream_frame(stream, 0, &[0]));
        assert!(link.readable(stream).0 > each);
    }
}

#[test]
fn t17_a_link_that_acknowledges_nothing_ends_before_it_takes_much() {
    if !memory::is_alone(
        "node::transport::tests::hostile::t17_a_link_that_acknowledges_nothing_ends_before_it_takes_much",
    ) {
        return;
    }
    let mut link = Link::authorised();
    let before = memory::resident();
    let most = 3 * UNACKNOWLEDGED_PACKETS_MAX;
    let lost = (0..most).find_map(|_| loss(&link.send_frames(&[PING; 4])));
    assert_eq!(lost.as_deref(), Some("the other side acknowledges nothing"));
    let grown = memory::resident().saturating_sub(before);
    assert!(grown < 2 * MEMORY_SLACK, "{grown} bytes");
    assert_eq!(link.end.link_count(), 0);
}
