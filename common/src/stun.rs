//! STUN Binding (RFC 8489), both sides: how a peer learns the address that the server sees.
//!
//! The server keeps no state, and its answer is never larger than the request: a request that is too
//! short to be answered within its own size is padded by whoever asks ([`binding_request`] does) or
//! not answered at all.

use std::net::{IpAddr, SocketAddr};

use crate::limits::STUN_REQUEST_LEN_MAX;
use stun_types::attribute::{Attribute, Software, XorMappedAddress};
use stun_types::message::{
    BINDING, Message, MessageClass, MessageType, MessageWrite, MessageWriteExt, MessageWriteVec,
    TransactionId,
};

/// What a request is padded with, so that the answer with the longest address (44 bytes) is not
/// larger.
const PADDING: &str = "rdv/1 reflexive address probe";
/// What stands before the attributes, and does not count in the length that it has (RFC 8489 section
/// 5).
const HEADER_LEN: usize = 20;

/// Builds a Binding request with a random `transaction` (96 bits), padded.
pub fn binding_request(transaction: u128) -> Vec<u8> {
    let class = MessageType::from_class_method(MessageClass::Request, BINDING);
    let mut message = Message::builder(
        class,
        TransactionId::from(transaction),
        MessageWriteVec::new(),
    );
    let software = Software::new(PADDING).expect("the padding is shorter than 763 bytes");
    message
        .add_attribute(&software)
        .expect("a first attribute always fits");
    message.finish()
}

/// Answers a Binding request that came from `source`. `None` for anything else, for requests that
/// need an attribute we do not know, and for requests shorter than the answer.
pub fn binding_answer(datagram: &[u8], source: SocketAddr) -> Option<Vec<u8>> {
    if datagram.len() > STUN_REQUEST_LEN_MAX {
        return None;
    }
    let request = whole_message(datagram)?;
    if !request.has_class(MessageClass::Request) || request.method() != BINDING {
        return None;
    }
    let unknown = request
        .iter_attributes()
        .any(|(_, attribute)| attribute.get_type().comprehension_required());
    if unknown {
        return None;
    }
    let mut answer = Message::builder_success(&request, MessageWriteVec::new());
    let mapped = XorMappedAddress::new(canonical(source), request.transaction_id());
    answer.add_attribute(&mapped).ok()?;
    let answer = answer.finish();
    (answer.len() <= datagram.len()).then_some(answer)
}

/// Parses a datagram that is one message and nothing else. The parser itself would take attributes
/// behind the end that the header announces (RFC 8489 section 5).
fn whole_message(datagram: &[u8]) -> Option<Message<'_>> {
    let len = datagram
        .get(2..4)?
        .try_into()
        .map(u16::from_be_bytes)
        .ok()?;
    let is_whole = HEADER_LEN + usize::from(len) == datagram.len();
    is_whole.then(|| Message::from_bytes(datagram).ok())?
}

/// Reads the answer to the request with `transaction`: the address that the server saw.
pub fn reflexive_address(datagram: &[u8], transaction: u128) -> Option<SocketAddr> {
    let answer = whole_message(datagram)?;
    if !answer.has_class(MessageClass::Success)
        || answer.method() != BINDING
        || answer.transaction_id() != TransactionId::from(transaction)
    {
        return None;
    }
    let mapped = answer.attribute::<XorMappedAddress>().ok()?;
    Some(canonical(mapped.addr(answer.transaction_id())))
}

/// Writes `::ffff:a.b.c.d` as the IPv4 address that it is.
pub fn canonical(address: SocketAddr) -> SocketAddr {
    let ip: IpAddr = address.ip().to_canonical();
    match (ip, address) {
        (IpAddr::V6(_), unchanged) => unchanged,
        (ip @ IpAddr::V4(_), address) => SocketAddr::new(ip, address.port()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_brings_back_the_address_it_came_from() {
        for source in [
            "192.0.2.1:4242",
            "[2001:db8::9]:1",
            "[::ffff:192.0.2.1]:4242",
        ] {
            let source: SocketAddr = source.parse().unwrap();
            let request = binding_request(77);
            let answer = binding_answer(&request, source).unwrap();
            assert!(answer.len() <= request.len(), "T13: no amplification");
            assert_eq!(reflexive_address(&answer, 77), Some(canonical(source)));
            assert_eq!(reflexive_address(&answer, 78), None);
        }
    }

    #[test]
    fn t13_a_bare_request_gets_no_larger_answer() {
        let request = binding_request(1);
        let bare = [&[0, 1, 0, 0], &request[4..20]].concat();
        let source = "[2001:db8::9]:1".parse().unwrap();
        assert!(binding_answer(&bare, source).is_none());
    }

    #[test]
    fn t19_every_truncation_and_every_flip_is_survived() {
        let source = "192.0.2.1:4242".parse().unwrap();
        let request = binding_request(5);
        let answer = binding_answer(&request, source).unwrap();
        for whole in [&request, &answer] {
            for cut in 0..whole.len() {
                assert!(binding_answer(&whole[..cut], source).is_none());
                assert!(reflexive_address(&whole[..cut], 5).is_none());
                let mut flipped = whole.clone();
                flipped[cut] ^= 0x81;
                let _ = binding_answer(&flipped, source);
                let _ = reflexive_address(&flipped, 5);
            }
        }
        assert!(
            binding_answer(&answer, source).is_none(),
            "answers are not requests"
        );
    }

    #[test]
    fn t19_nothing_may_stand_behind_the_end() {
        let source = "192.0.2.1:4242".parse().unwrap();
        let request = binding_request(5);
        let answer = binding_answer(&request, source).unwrap();
        let is_refused = |behind: &[u8]| {
            binding_answer(&[&request, behind].concat(), source).is_none()
                && reflexive_address(&[&answer, behind].concat(), 5).is_none()
        };
        for behind in 1..=STUN_REQUEST_LEN_MAX {
            for filling in [0, 0xff] {
                assert!(is_refused(&vec![filling; behind]), "{behind}");
            }
        }
        // Not even a whole attribute that may be left out: SOFTWARE, empty.
        assert!(is_refused(&[0x80, 0x22, 0, 0]));
    }
}
