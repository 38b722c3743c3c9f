//! Two endpoints and the datagrams between them.

mod hostile;
mod paths;
mod raw;
mod strangers;

use std::time::Duration;

use super::*;

/// Length in bytes of the ids of [`HashedConnectionIdGenerator`].
const CID_LEN: usize = 8;

/// Two endpoints and the datagrams between them, without loss.
struct Pair {
    ends: [Transport; 2],
    now: Instant,
    /// The last datagram that each end sent.
    last: [BytesMut; 2],
    /// Bytes of the longest datagram that each end sent.
    longest: [usize; 2],
}

fn address(end: usize) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, 1 + end as u8], 4000))
}

impl Pair {
    #[expect(clippy::disallowed_methods, reason = "any instant will do as a start")]
    fn new() -> Self {
        let end = |seed| Transport::new([seed; 32], DeviceSecret::from_seed([seed; 32]));
        Self {
            ends: [end(1), end(2)],
            now: Instant::now(),
            last: Default::default(),
            longest: [0; 2],
        }
    }

    /// Delivers datagrams until neither end sends any more; returns each end's events.
    fn run(&mut self) -> [Vec<TransportEvent>; 2] {
        let mut events = [Vec::new(), Vec::new()];
        loop {
            let mut moved = false;
            for (end, events) in events.iter_mut().enumerate() {
                events.append(&mut events_of(&mut self.ends[end]));
                for (destination, bytes) in sent_by(&mut self.ends[end], self.now) {
                    assert_eq!(destination, address(1 - end));
                    self.last[end].clone_from(&bytes);
                    self.longest[end] = self.longest[end].max(bytes.len());
                    let datagrams = train_from(address(end), bytes.len(), &bytes);
                    self.ends[1 - end].handle_datagrams(datagrams, self.now);
                    moved = true;
                }
            }
            if !moved {
                return events;
            }
            self.now += Duration::from_micros(50);
        }
    }

    fn connect(&mut self) -> (LinkId, LinkId) {
        let expected = DeviceSecret::from_seed([2; 32]).public();
        let client = self.ends[0].dial(expected, address(1), self.now).unwrap();
        let [dialled, accepted] = self.run();
        assert!(matches!(
            dialled.as_slice(),
            [TransportEvent::Connected { side: Side::Client, device_key, .. }, ..] if *device_key == expected
        ));
        let caller = DeviceSecret::from_seed([1; 32]).public();
        let Some(TransportEvent::Connected {
            link,
            side: Side::Server,
            device_key,
        }) = accepted.first()
        else {
            panic!("not accepted: {accepted:?}");
        };
        assert_eq!(*device_key, caller);
        (client, *link)
    }

    /// Sends a leaf of `len` bytes; returns how many arrived.
    fn carry(&mut self, from: LinkId, to: LinkId, len: usize) -> usize {
        let stream = self.ends[0].open_leaf(from, LeafRank::of(1)).unwrap();
        let sent = Bytes::from(vec![7; len]);
        self.ends[0].write(from, stream, sent, true);
        let mut got = 0;
        for _ in 0..10_000 {
            self.now += Duration::from_millis(1);
            for end in &mut self.ends {
                end.handle_timeout(self.now);
            }
            self.run();
            let end = self.ends[1].read(to, stream, &mut |bytes| {
                got += bytes.len();
                true
            });
            if end == ReadEnd::Finished {
                break;
            }
        }
        got
    }
}

/// The datagrams of one receive call.
fn train_from(source: SocketAddr, stride: usize, bytes: &[u8]) -> Datagrams {
    Datagrams {
        source,
        local: None,
        ecn: None,
        stride,
        bytes: BytesMut::from(bytes),
    }
}

/// The datagrams that an end sends now, and their destinations.
fn sent_by(end: &mut Transport, now: Instant) -> Vec<(SocketAddr, BytesMut)> {
    let mut sent = Vec::new();
    let mut buffer = Vec::new();
    while let Some(transmit) = end.poll_transmit(now, &mut buffer, &mut |_, _| true) {
        assert!(
            transmit.size <= UDP_TRAIN_LEN_MAX,
            "{} bytes",
            transmit.size
        );
        let stride = transmit.segment_size.unwrap_or(transmit.size);
        let datagrams = buffer[..transmit.size].chunks(stride);
        sent.extend(datagrams.map(|bytes| (transmit.destination, BytesMut::from(bytes))));
        buffer.clear();
    }
    sent
}

fn events_of(end: &mut Transport) -> Vec<TransportEvent> {
    std::iter::from_fn(|| end.poll_event()).collect()
}

#[test]
fn a_stream_carries_bytes_once_the_link_is_authorised() {
    let mut pair = Pair::new();
    let (client, server) = pair.connect();
    assert_eq!(
        pair.ends[0].open_leaf(client, LeafRank::of(1)),
        None,
        "no leaves before authorisation"
    );
    pair.ends[1].authorise(server, pair.now);
    pair.run();
    assert_eq!(pair.carry(client, server, 3 << 20), 3 << 20);
}

#[test]
fn no_datagram_is_longer_than_the_interface_of_its_sender_carries() {
    for (mtu, range) in [
        (Some(1500), 1440..=1472),
        (Some(9000), 8900..=8972),
        (None, 16_000..=16_384),
    ] {
        let mut pair = Pair::new();
        for (end, transport) in pair.ends.iter_mut().enumerate() {
            transport.set_local_addresses(vec![LocalAddress {
                endpoint: address(end),
                prefix_len: 24,
                mtu,
            }]);
        }
        let (client, server) = pair.connect();
        pair.ends[1].authorise(server, pair.now);
        pair.run();
        pair.carry(client, server, 3 << 20);
        let found = pair.longest[0];
        assert!(range.contains(&found), "MTU {mtu:?}: {found} bytes");
        assert!(pair.longest[1] <= *range.end());
    }
}

#[test]
fn t31_a_dial_to_another_key_fails() {
    let mut pair = Pair::new();
    let wrong = DeviceSecret::from_seed([9; 32]).public();
    pair.ends[0].dial(wrong, address(1), pair.now).unwrap();
    let [dialled, _] = pair.run();
    assert!(
        matches!(dialled.as_slice(), [TransportEvent::Lost { .. }]),
        "{dialled:?}"
    );
}

#[test]
fn a_closed_link_tells_the_other_side_why() {
    let mut pair = Pair::new();
    let (client, server) = pair.connect();
    pair.ends[1].close(server, CloseReason::Unauthorised, pair.now);
    let [dialled, _] = pair.run();
    let told = dialled.iter().any(|event| {
        matches!(event, TransportEvent::Lost { link, reason } if *link == client && reason.to_string().contains("does not know"))
    });
    assert!(told, "{dialled:?}");
}

#[test]
fn addresses_are_mapped_both_ways() {
    let v4: SocketAddr = "192.0.2.7:9".parse().unwrap();
    assert!(mapped(v4).is_ipv6());
    assert_eq!(common::stun::canonical(mapped(v4)), v4);
}

/// What an end sends just before it closes the link, for example a receipt, arrives.
#[test]
fn what_came_before_the_end_is_still_read() {
    let mut pair = Pair::new();
    let (client, server) = pair.connect();
    pair.ends[1].authorise(server, pair.now);
    pair.run();
    let stream = pair.ends[0].open_bi(client).unwrap();
    pair.ends[0].write(client, stream, Bytes::from_static(b"hello"), false);
    pair.run();
    let accepted = pair.ends[1].accept(server, StreamDir::Bi).unwrap();
    pair.ends[1].read(server, accepted, &mut |_| true);
    pair.ends[0].write(client, stream, Bytes::from_static(b"farewell"), false);
    let mut sent = sent_by(&mut pair.ends[0], pair.now);
    pair.ends[0].close(client, CloseReason::Done, pair.now);
    sent.append(&mut sent_by(&mut pair.ends[0], pair.now));
    // All of it arrives before the other end reads.
    for (_, bytes) in sent {
        let datagrams = train_from(address(0), bytes.len(), &bytes);
        pair.ends[1].handle_datagrams(datagrams, pair.now);
    }
    let mut got = Vec::new();
    for event in events_of(&mut pair.ends[1]) {
        if let TransportEvent::Readable { link, stream } = event {
            pair.ends[1].read(link, stream, &mut |bytes| {
                got.extend_from_slice(&bytes);
                true
            });
        }
    }
    assert_eq!(got, b"farewell");
}
