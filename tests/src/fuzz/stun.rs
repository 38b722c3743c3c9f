//! Datagrams at the server's UDP port and at a peer's, and their answers.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use common::key::DeviceSecret;
use common::os::clock;
use common::stun::{
    binding_answer, binding_request, canonical, check_answer, is_check_answer, reflexive_address,
};
use rendezvous::relay::{Batch, Output, Relay, TrafficLimits};

use super::feed::Feed;

pub(super) fn stun(bytes: &[u8]) {
    let mut feed = Feed(bytes);
    let source = source(&mut feed);
    let datagram = feed.0;
    let transaction = transaction_of(datagram);
    // As a peer reads it, from a server that may send anything.
    let _ = reflexive_address(datagram, transaction);
    as_a_peer(datagram, source, transaction);
    let now = clock::now();
    let mut relay = Relay::new([1; 32], TrafficLimits::default(), now);
    let mut ask = |datagram: &[u8]| {
        let batch = Batch {
            bytes: &mut datagram.to_vec(),
            stride: datagram.len(),
            source,
            local: None,
        };
        let mut outputs = Vec::new();
        relay.handle_batch(batch, now, &mut outputs);
        match outputs.pop()? {
            Output::Answer(answer) => Some(answer),
            forwarded @ (Output::Forward { .. } | Output::ForwardToControl { .. }) => {
                panic!("there is no channel: {forwarded:?}")
            }
        }
    };
    let Some(answer) = ask(datagram) else {
        assert_eq!(relay.answered(), 0);
        return;
    };
    assert!(answer.len() <= datagram.len().max(44), "T13: it got larger");
    assert_ne!(source.port(), 0, "nothing goes to port 0");
    if let Some(seen) = reflexive_address(&answer, transaction) {
        assert_eq!(seen, canonical(source));
    } else {
        assert!(answer.len() <= datagram.len(), "T13: an error got larger");
        assert_eq!(answer[..2], [1, 0x11], "an error");
    }
    assert_eq!(reflexive_address(&answer, transaction ^ 1), None);
    assert_eq!(ask(&answer), None, "an echo");
    assert_eq!(binding_answer(datagram, source), Some(answer));
    // A request of ours with the same transaction is answered in any case.
    let request = binding_request(transaction);
    assert!(binding_answer(&request, source).is_some());
}

/// What a device answers is its own, and answers that request alone.
fn as_a_peer(datagram: &[u8], source: SocketAddr, transaction: u128) {
    let (own, other) = (
        DeviceSecret::from_seed([1; 32]).public(),
        DeviceSecret::from_seed([2; 32]).public(),
    );
    assert!(!is_check_answer(datagram, transaction, &own), "a forgery");
    let Some(answer) = check_answer(datagram, source, &own) else {
        return;
    };
    assert!(answer.len() <= datagram.len(), "T13: it got larger");
    assert!(is_check_answer(&answer, transaction, &own));
    assert!(!is_check_answer(&answer, transaction ^ 1, &own));
    assert!(!is_check_answer(&answer, transaction, &other));
    assert_eq!(check_answer(&answer, source, &own), None, "an echo");
    assert_eq!(
        reflexive_address(&answer, transaction),
        Some(canonical(source))
    );
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
