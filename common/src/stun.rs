//! STUN Binding (RFC 8489), client and server: how a peer learns its server-reflexive address, and
//! whether a device is reachable at an endpoint that it announced.
//!
//! Answering is stateless. Our requests are padded ([`binding_request`]), so that no answer is longer than
//! its request. Those of others are bare, as RFC 8489 allows: a server may answer them, within a budget;
//! a device answers none.
//!
//! Every STUN server answers Binding requests. The answer to a *check* of a device's endpoint therefore
//! carries a tag of that device ([`check_answer`]), so that the endpoint of a STUN server or of another
//! peer is not mistaken for the device's.

use std::net::{IpAddr, SocketAddr};

use sha2::{Digest, Sha256};

use crate::key::DeviceKey;
use crate::limits::STUN_REQUEST_LEN_MAX;
// What a server with a second port tells of a NAT.
mod behaviour;

pub use behaviour::{
    AnsweringPort, ProbeAnswer, ServerAnswer, TwoPorts, probe, probe_answer, server_answer,
};
use stun_types::attribute::{
    Attribute, AttributeType, ErrorCode, RawAttribute, Software, UnknownAttributes,
    XorMappedAddress,
};
use stun_types::message::{
    BINDING, Message, MessageClass, MessageType, MessageWrite, MessageWriteExt, MessageWriteVec,
    TransactionId,
};

/// The SOFTWARE attribute, which pads a request to the length of the longest answer: an IPv6 address and
/// a tag, 56 bytes.
const PADDING: &str = "rdv/1 reflexive address probe";
/// Length of the header, which the header's length field does not count (RFC 8489 section 5).
const HEADER_LEN: usize = 20;
/// The attribute with a device's tag: comprehension-optional, from the range that IANA assigns first come,
/// first served (RFC 8489 section 18.3).
const DEVICE_TAG: AttributeType = AttributeType::new(0xe7d0);
/// Length of the tag: a guess is right once in 2^64 times.
const TAG_LEN: usize = 8;
/// Prefix of the hash's input, to separate it from other uses of SHA-256.
const TAG_LABEL: &[u8] = b"rdv/1 check answer";

/// Builds a padded Binding request. `transaction` is 96 random bits.
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

/// Answers a Binding request from `source`: with its address, or with error 420 (RFC 8489 section 6.3.1) if
/// it has a comprehension-required attribute. `None` if the datagram is anything else, or shorter than the
/// error. The address takes 32 bytes (IPv4) or 44 (IPv6), which may be more than the request has: whoever
/// sends it sees to it that nobody is flooded.
pub fn binding_answer(datagram: &[u8], source: SocketAddr) -> Option<Vec<u8>> {
    server_answer(datagram, source, None).map(|answer| answer.short)
}

/// Answers a check from `source` with its address and the tag of the device `device_key`. `None` if the
/// datagram is no Binding request, has a comprehension-required attribute, or is shorter than the answer.
pub fn check_answer(
    datagram: &[u8],
    source: SocketAddr,
    device_key: &DeviceKey,
) -> Option<Vec<u8>> {
    let request = binding(datagram)?;
    if !unknown_attributes(&request).is_empty() {
        return None;
    }
    let answer = success_answer(&request, source, Some(device_key))?;
    (answer.len() <= datagram.len()).then_some(answer)
}

/// Parses a Binding request.
fn binding(datagram: &[u8]) -> Option<Message<'_>> {
    if datagram.len() > STUN_REQUEST_LEN_MAX {
        return None;
    }
    let request = whole_message(datagram)?;
    let is_it = request.has_class(MessageClass::Request) && request.method() == BINDING;
    is_it.then_some(request)
}

/// Attributes that would have to be understood: none is.
fn unknown_attributes(request: &Message<'_>) -> Vec<AttributeType> {
    let types = request.iter_attributes().map(|(_, it)| it.get_type());
    types.filter(|it| it.comprehension_required()).collect()
}

fn success_answer(
    request: &Message<'_>,
    source: SocketAddr,
    answerer: Option<&DeviceKey>,
) -> Option<Vec<u8>> {
    let mut answer = Message::builder_success(request, MessageWriteVec::new());
    let mapped = XorMappedAddress::new(canonical(source), request.transaction_id());
    answer.add_attribute(&mapped).ok()?;
    if let Some(device_key) = answerer {
        let tag = tag(device_key, request.transaction_id());
        let attribute = RawAttribute::new(DEVICE_TAG, &tag);
        answer.add_attribute(&attribute).ok()?;
    }
    Some(answer.finish())
}

/// Error 420, without words: the fewer bytes it has, the more requests it fits.
fn refusal(request: &Message<'_>, unknown: &[AttributeType]) -> Option<Vec<u8>> {
    let mut answer = Message::builder_error(request, MessageWriteVec::new());
    answer.add_attribute(&ErrorCode::new(420, "").ok()?).ok()?;
    answer
        .add_attribute(&UnknownAttributes::new(unknown))
        .ok()?;
    Some(answer.finish())
}

fn tag(device_key: &DeviceKey, transaction: TransactionId) -> [u8; TAG_LEN] {
    let [_, _, _, _, id @ ..] = u128::from(transaction).to_be_bytes();
    let mut hash = Sha256::new();
    hash.update(TAG_LABEL);
    hash.update(device_key.as_bytes());
    hash.update(id);
    *hash
        .finalize()
        .first_chunk()
        .expect("a SHA-256 hash has 32 bytes")
}

/// Parses a datagram that is exactly one message. The library's parser also takes attributes beyond the
/// length in the header (RFC 8489 section 5).
fn whole_message(datagram: &[u8]) -> Option<Message<'_>> {
    let len = datagram
        .get(2..4)?
        .try_into()
        .map(u16::from_be_bytes)
        .ok()?;
    let is_whole = HEADER_LEN + usize::from(len) == datagram.len();
    is_whole.then(|| Message::from_bytes(datagram).ok())?
}

/// The server-reflexive address in the answer to the request with `transaction`; `None` if the datagram
/// is not that answer.
pub fn reflexive_address(datagram: &[u8], transaction: u128) -> Option<SocketAddr> {
    let answer = success(datagram, transaction)?;
    let mapped = answer.attribute::<XorMappedAddress>().ok()?;
    Some(canonical(mapped.addr(answer.transaction_id())))
}

/// Tells whether a datagram is the answer of the device `device_key` to the check with `transaction`.
pub fn is_check_answer(datagram: &[u8], transaction: u128, device_key: &DeviceKey) -> bool {
    let Some(answer) = success(datagram, transaction) else {
        return false;
    };
    let expected = tag(device_key, answer.transaction_id());
    let attribute = answer.raw_attribute(DEVICE_TAG);
    attribute.is_some_and(|attribute| *attribute.value == expected)
}

/// Parses the success response to the request with `transaction`.
fn success(datagram: &[u8], transaction: u128) -> Option<Message<'_>> {
    let answer = whole_message(datagram)?;
    let is_it = answer.has_class(MessageClass::Success)
        && answer.method() == BINDING
        && answer.transaction_id() == TransactionId::from(transaction);
    is_it.then_some(answer)
}

/// Converts an IPv4-mapped address (`::ffff:a.b.c.d`) to IPv4; returns any other one unchanged.
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
    use crate::key::DeviceSecret;

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

    /// A request without attributes, or with these.
    fn request_with(attributes: &[u8]) -> Vec<u8> {
        let len = u16::try_from(attributes.len()).unwrap().to_be_bytes();
        [&[0, 1], &len[..], &binding_request(1)[4..20], attributes].concat()
    }

    #[test]
    fn t13_a_bare_request_is_answered_by_a_server_and_by_no_device() {
        for (source, len) in [("192.0.2.1:4242", 32), ("[2001:db8::9]:1", 44)] {
            let source = source.parse().unwrap();
            let bare = request_with(&[]);
            let answer = binding_answer(&bare, source).unwrap();
            assert_eq!(answer.len(), len);
            assert_eq!(reflexive_address(&answer, 1), Some(source));
            assert!(check_answer(&bare, source, &device(1)).is_none());
        }
    }

    #[test]
    fn an_attribute_that_would_have_to_be_understood_is_refused_where_the_answer_fits() {
        let source = "192.0.2.1:4242".parse().unwrap();
        // CHANGE-REQUEST of RFC 5780.
        let change = [0, 3, 0, 4, 0, 0, 0, 6];
        assert_eq!(binding_answer(&request_with(&change), source), None);
        let padding = [0x80, 0x22, 0, 4, b'x', b'x', b'x', b'x'];
        let padded = request_with(&[change, padding].concat());
        let answer = binding_answer(&padded, source).unwrap();
        assert!(answer.len() <= padded.len());
        let answer = Message::from_bytes(&answer).unwrap();
        assert!(answer.has_class(MessageClass::Error));
        assert_eq!(answer.transaction_id(), TransactionId::from(1));
        assert_eq!(answer.attribute::<ErrorCode>().unwrap().code(), 420);
        let unknown = answer.attribute::<UnknownAttributes>().unwrap();
        assert!(unknown.has_attribute(AttributeType::new(3)));
        assert_eq!(check_answer(&padded, source, &device(1)), None);
    }

    fn device(seed: u8) -> DeviceKey {
        DeviceSecret::from_seed([seed; 32]).public()
    }

    #[test]
    fn t23_only_the_device_that_was_meant_answers_a_check() {
        for source in ["192.0.2.1:4242", "[2001:db8::9]:1"] {
            let source = source.parse().unwrap();
            let request = binding_request(77);
            let answer = check_answer(&request, source, &device(1)).unwrap();
            assert!(answer.len() <= request.len(), "T13: no amplification");
            assert_eq!(reflexive_address(&answer, 77), Some(source));
            assert!(is_check_answer(&answer, 77, &device(1)));
            assert!(!is_check_answer(&answer, 78, &device(1)), "another check");
            assert!(!is_check_answer(&answer, 77, &device(2)), "another device");
            let of_a_server = binding_answer(&request, source).unwrap();
            assert!(!is_check_answer(&of_a_server, 77, &device(1)));
            assert!(!is_check_answer(&request, 77, &device(1)));
        }
    }

    /// The example of PROTOCOL.md section 4.
    #[test]
    fn a_check_is_answered_with_the_bytes_of_the_protocol_document() {
        let transaction = 0x0102_0304_0506_0708_090a_0b0c;
        let request = binding_request(transaction);
        let source = "192.0.2.1:7400".parse().unwrap();
        let answer = check_answer(&request, source, &device(7)).unwrap();
        let document = include_str!("../PROTOCOL.md");
        let (_, example) = document.split_once("device key of section 2.5:").unwrap();
        let example = example.split("```").nth(1).unwrap();
        let bytes = example.split_whitespace();
        let bytes: Vec<u8> = bytes
            .map(|byte| u8::from_str_radix(byte, 16).unwrap())
            .collect();
        assert_eq!(answer, bytes);
    }

    #[test]
    fn t19_every_truncation_and_every_flip_is_survived() {
        let source = "192.0.2.1:4242".parse().unwrap();
        let request = binding_request(5);
        let answer = binding_answer(&request, source).unwrap();
        let checked = check_answer(&request, source, &device(1)).unwrap();
        for whole in [&request, &answer, &checked] {
            for cut in 0..whole.len() {
                assert!(binding_answer(&whole[..cut], source).is_none());
                assert!(reflexive_address(&whole[..cut], 5).is_none());
                assert!(!is_check_answer(&whole[..cut], 5, &device(1)));
                let mut flipped = whole.clone();
                flipped[cut] ^= 0x81;
                let _ = binding_answer(&flipped, source);
                let _ = reflexive_address(&flipped, 5);
                let _ = is_check_answer(&flipped, 5, &device(1));
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
        // Not even a complete comprehension-optional attribute: an empty SOFTWARE.
        assert!(is_refused(&[0x80, 0x22, 0, 0]));
    }
}
