//! Two endpoints and the datagrams between them.

use super::*;

/// Two endpoints and the datagrams between them, without loss.
struct Pair {
    ends: [Transport; 2],
    now: Instant,
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
        }
    }

    /// Carries datagrams until both are silent; returns each end's events.
    fn run(&mut self) -> [Vec<LinkEvent>; 2] {
        let mut events = [Vec::new(), Vec::new()];
        loop {
            let mut moved = false;
            for (end, events) in events.iter_mut().enumerate() {
                while let Some(event) = self.ends[end].poll_event() {
                    events.push(event);
                }
                let mut buffer = Vec::new();
                while let Some(transmit) = self.ends[end].poll_transmit(self.now, &mut buffer) {
                    assert_eq!(transmit.destination, address(1 - end));
                    let datagrams = Datagrams {
                        source: address(end),
                        local: None,
                        ecn: None,
                        stride: transmit.segment_size.unwrap_or(transmit.size),
                        bytes: BytesMut::from(&buffer[..transmit.size]),
                    };
                    self.ends[1 - end].handle_datagrams(datagrams, self.now);
                    buffer.clear();
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
            [LinkEvent::Connected { side: Side::Client, device_key, .. }, ..] if *device_key == expected
        ));
        let caller = DeviceSecret::from_seed([1; 32]).public();
        let Some(LinkEvent::Connected {
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
}

#[test]
fn a_stream_carries_bytes_once_the_link_is_authorised() {
    let mut pair = Pair::new();
    let (client, server) = pair.connect();
    assert_eq!(
        pair.ends[0].open_leaf(client),
        None,
        "no leaves before authorisation"
    );
    pair.ends[1].authorise(server);
    pair.run();
    let stream = pair.ends[0].open_leaf(client).unwrap();
    let sent = Bytes::from(vec![7; 3 << 20]);
    pair.ends[0].write(client, stream, sent.clone(), true);
    let mut got = 0;
    for _ in 0..10_000 {
        pair.now += Duration::from_millis(1);
        for end in &mut pair.ends {
            end.handle_timeout(pair.now);
        }
        pair.run();
        let incoming = stream;
        let end = pair.ends[1].read(server, incoming, &mut |bytes| {
            got += bytes.len();
            true
        });
        if end == ReadEnd::Finished {
            break;
        }
    }
    assert_eq!(got, sent.len());
}

#[test]
fn t31_a_dial_to_another_key_fails() {
    let mut pair = Pair::new();
    let wrong = DeviceSecret::from_seed([9; 32]).public();
    pair.ends[0].dial(wrong, address(1), pair.now).unwrap();
    let [dialled, _] = pair.run();
    assert!(
        matches!(dialled.as_slice(), [LinkEvent::Lost { .. }]),
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
        matches!(event, LinkEvent::Lost { link, reason } if *link == client && reason.contains("does not know"))
    });
    assert!(told, "{dialled:?}");
}

#[test]
fn t18_forged_datagrams_do_not_break_a_link() {
    let mut pair = Pair::new();
    let (client, server) = pair.connect();
    for n in 0..10_000u32 {
        let mut forged = BytesMut::from(&[0x40 | (n as u8 & 0x3f); 60][..]);
        forged[1..5].copy_from_slice(&n.to_be_bytes());
        let datagrams = Datagrams {
            source: address(0),
            local: None,
            ecn: None,
            stride: 60,
            bytes: forged,
        };
        pair.ends[1].handle_datagrams(datagrams, pair.now);
    }
    pair.ends[1].authorise(server);
    pair.run();
    assert!(pair.ends[0].open_leaf(client).is_some());
    assert_eq!(pair.ends[1].len(), 1);
}

#[test]
fn addresses_are_mapped_both_ways() {
    let v4: SocketAddr = "192.0.2.7:9".parse().unwrap();
    assert!(mapped(v4).is_ipv6());
    assert_eq!(common::stun::canonical(mapped(v4)), v4);
}
