//! Datagrams at the server's UDP port and at a peer's, and their answers.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use common::key::DeviceSecret;
use common::limits::{LONGER_ANSWER_EXCESS, LONGER_ANSWERS_PER_SOURCE_MAX};
use common::os::clock;
use common::stun::{
    binding_answer, binding_request, canonical, check_answer, is_check_answer, probe_answer,
    reflexive_address,
};
use rendezvous::relay::{Batch, Output, Ports, Relay, TrafficLimits};

use super::feed::Feed;

pub(super) fn stun(bytes: &[u8]) {
    let mut feed = Feed(bytes);
    let source = source(&mut feed);
    let datagram = feed.0;
    let transaction = transaction_of(datagram);
    // As a peer reads it, from a server that may send anything.
    let _ = reflexive_address(datagram, transaction);
    as_a_peer(datagram, source, transaction);
    as_a_server_with_two_ports(datagram, source, transaction);
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
            Output::AnswerFromOther(_) => panic!("the server has one port"),
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

/// Each port names the other one, and all answers together keep to the budget.
fn as_a_server_with_two_ports(datagram: &[u8], source: SocketAddr, transaction: u128) {
    let _ = probe_answer(datagram, transaction);
    let now = clock::now();
    let mut relay = Relay::new([1; 32], TrafficLimits::default(), now);
    let (main, second) = (7400, 7401);
    relay.set_ports(Ports { main, second });
    let local = match canonical(source) {
        SocketAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
        SocketAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
    };
    let mut excess = 0;
    for turn in 0..=LONGER_ANSWERS_PER_SOURCE_MAX {
        let is_second = turn % 2 == 1;
        let batch = Batch {
            bytes: &mut datagram.to_vec(),
            stride: datagram.len(),
            source,
            local: Some(local),
        };
        let mut outputs = Vec::new();
        if is_second {
            relay.handle_second(&batch, now, &mut outputs);
        } else {
            relay.handle_batch(batch, now, &mut outputs);
        }
        for output in outputs {
            let (Output::Answer(answer) | Output::AnswerFromOther(answer)) = output else {
                panic!("there is no channel: {output:?}");
            };
            excess += answer.len().saturating_sub(datagram.len());
            let Some(said) = probe_answer(&answer, transaction) else {
                assert!(answer.len() <= datagram.len(), "T13: an error got larger");
                continue;
            };
            assert_eq!(said.reflexive, canonical(source));
            let other = if is_second { main } else { second };
            assert!(said.other_port.is_none_or(|port| port == other));
        }
    }
    let most = LONGER_ANSWERS_PER_SOURCE_MAX as usize * LONGER_ANSWER_EXCESS;
    assert!(excess <= most, "T13: {excess} bytes more");
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
