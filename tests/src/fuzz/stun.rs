//! Datagrams at the server's UDP port, and its answers.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use common::stun::{binding_answer, binding_request, canonical, reflexive_address};
use rendezvous::relay::Relay;

use super::feed::Feed;

pub(super) fn stun(bytes: &[u8]) {
    let mut feed = Feed(bytes);
    let source = source(&mut feed);
    let datagram = feed.0;
    let transaction = transaction_of(datagram);
    // As a peer reads it, from a server that may send anything.
    let _ = reflexive_address(datagram, transaction);
    let mut relay = Relay::new();
    let Some(answer) = relay.handle_datagram(datagram, source) else {
        assert_eq!((relay.answered(), relay.dropped()), (0, 1));
        return;
    };
    assert!(answer.len() <= datagram.len(), "T13: it got larger");
    assert_ne!(source.port(), 0, "nothing goes to port 0");
    assert_eq!(
        reflexive_address(&answer, transaction),
        Some(canonical(source))
    );
    assert_eq!(reflexive_address(&answer, transaction ^ 1), None);
    assert_eq!(relay.handle_datagram(&answer, source), None, "an echo");
    assert_eq!(binding_answer(datagram, source), Some(answer));
    // A request of ours with the same transaction is answered in any case.
    let request = binding_request(transaction);
    assert!(binding_answer(&request, source).is_some());
}

fn source(feed: &mut Feed<'_>) -> SocketAddr {
    let kind = feed.below(3);
    let port = u16::from_be_bytes(feed.array());
    let ip = feed.array::<4>();
    match kind {
        0 => (Ipv4Addr::from(ip), port).into(),
        1 => (Ipv4Addr::from(ip).to_ipv6_mapped(), port).into(),
        _ => {
            let [a, b, c, d] = ip.map(u16::from);
            (Ipv6Addr::new(0x2001, 0xdb8, a, b, c, d, 0, 1), port).into()
        }
    }
}

/// The 96 bits behind the magic cookie (RFC 8489 section 5).
fn transaction_of(datagram: &[u8]) -> u128 {
    let mut bytes = [0; 16];
    if let Some(transaction) = datagram.get(8..20) {
        bytes[4..].copy_from_slice(transaction);
    }
    u128::from_be_bytes(bytes)
}
