//! NAT behaviour discovery (RFC 5780) with a server that has two UDP ports at one address.
//!
//! Such a server shows whether a NAT's mappings and its filter look at ports. That needs no second address,
//! which home servers do not have. Whether they look at addresses it cannot show: a request to *change IP* is
//! one with an attribute that is not understood. Bare ones are shorter than the error and get no answer, which
//! clients take for what it is: coturn's takes an error for an answer from another address.
//!
//! RFC 5780 section 7.4 has OTHER-ADDRESS sent by servers with a second address alone. Ours names its own
//! address with its other port.

use std::net::{IpAddr, SocketAddr};

use stun_types::attribute::{AttributeType, RawAttribute, Software, XorMappedAddress};
use stun_types::message::{
    BINDING, Message, MessageClass, MessageType, MessageWrite, MessageWriteExt, MessageWriteVec,
    TransactionId,
};

use super::{PADDING, binding, canonical, refusal, success, success_answer, unknown_attributes};

/// RFC 5780 section 7.2.
const CHANGE_REQUEST: AttributeType = AttributeType::new(0x0003);
/// The flags of CHANGE-REQUEST that are defined.
const CHANGE_IP: u32 = 0x4;
const CHANGE_PORT: u32 = 0x2;
/// RFC 5780 section 7.3.
const RESPONSE_ORIGIN: AttributeType = AttributeType::new(0x802b);
/// RFC 5780 section 7.4.
const OTHER_ADDRESS: AttributeType = AttributeType::new(0x802c);
/// Length of the padding of a [`probe`]: with it no answer is longer, of which the longest has a header and three
/// IPv6 addresses.
const PROBE_PADDING_LEN: usize = 68;

/// One of the two UDP ports of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AnsweringPort {
    /// The one that the request came to.
    Asked,
    /// The other one.
    Other,
}

/// The two UDP ports of a server, at the address that a request came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TwoPorts {
    /// The address that both are at.
    pub ip: IpAddr,
    /// The port that the request came to.
    pub asked: u16,
    /// The port that it did not come to.
    pub other: u16,
}

/// What a server may answer to one request, and from where. It goes to the source of the request and nowhere else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerAnswer {
    /// The port to send it from.
    pub from: AnsweringPort,
    /// With RESPONSE-ORIGIN and OTHER-ADDRESS, where there is a second port: 24 bytes more than the short one to
    /// an address of IPv4, and 48 more to one of IPv6.
    pub full: Option<Vec<u8>>,
    /// With the reflexive address alone, or error 420.
    pub short: Vec<u8>,
}

/// What the server says in its answer to a [`probe`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProbeAnswer {
    /// Where it sees the sender of the request.
    pub reflexive: SocketAddr,
    /// Its other port, if it has one. The address beside it is not looked at: behind a NAT the server does not
    /// know its own, and whoever sends where a server says floods a third.
    pub other_port: Option<u16>,
}

/// Answers a Binding request from `source` that came to a server with one port, or `ports`: with its address, or
/// with error 420 (RFC 8489 section 6.3.1) if it has a comprehension-required attribute that is not understood.
/// `None` if the datagram is anything else, is shorter than that error, or has a CHANGE-REQUEST of another length
/// than 4. An address may take more bytes than the request has: whoever sends it sees to it that nobody is flooded.
pub fn server_answer(
    datagram: &[u8],
    source: SocketAddr,
    ports: Option<TwoPorts>,
) -> Option<ServerAnswer> {
    let request = binding(datagram)?;
    let mut unknown = unknown_attributes(&request);
    let mut from = AnsweringPort::Asked;
    if ports.is_some()
        && let Some(attribute) = request.raw_attribute(CHANGE_REQUEST)
    {
        let flags = u32::from_be_bytes(attribute.value.as_ref().try_into().ok()?);
        if flags & CHANGE_IP == 0 {
            unknown.retain(|kind| *kind != CHANGE_REQUEST);
        }
        if flags & CHANGE_PORT != 0 {
            from = AnsweringPort::Other;
        }
    }
    if !unknown.is_empty() {
        let short = refusal(&request, &unknown)?;
        let fits = short.len() <= datagram.len();
        return fits.then_some(ServerAnswer {
            from: AnsweringPort::Asked,
            full: None,
            short,
        });
    }
    Some(ServerAnswer {
        from,
        full: ports.and_then(|ports| full_answer(&request, source, ports, from)),
        short: success_answer(&request, source, None)?,
    })
}

fn full_answer(
    request: &Message<'_>,
    source: SocketAddr,
    ports: TwoPorts,
    from: AnsweringPort,
) -> Option<Vec<u8>> {
    let TwoPorts { ip, asked, other } = ports;
    let origin = match from {
        AnsweringPort::Asked => asked,
        AnsweringPort::Other => other,
    };
    let mut answer = Message::builder_success(request, MessageWriteVec::new());
    let mapped = XorMappedAddress::new(canonical(source), request.transaction_id());
    answer.add_attribute(&mapped).ok()?;
    for (kind, port) in [(RESPONSE_ORIGIN, origin), (OTHER_ADDRESS, other)] {
        let value = address_value(SocketAddr::new(ip, port));
        answer
            .add_attribute(&RawAttribute::new(kind, &value))
            .ok()?;
    }
    Some(answer.finish())
}

/// An address as in MAPPED-ADDRESS (RFC 8489 section 14.1).
fn address_value(address: SocketAddr) -> Vec<u8> {
    let address = canonical(address);
    let (family, ip) = match address.ip() {
        IpAddr::V4(ip) => (1, ip.octets().to_vec()),
        IpAddr::V6(ip) => (2, ip.octets().to_vec()),
    };
    [&[0, family], &address.port().to_be_bytes()[..], &ip].concat()
}

/// Builds a Binding request that is as long as the longest answer, with `changes_port` one that asks for an answer
/// from the server's other port. `transaction` is 96 random bits.
pub fn probe(transaction: u128, changes_port: bool) -> Vec<u8> {
    let class = MessageType::from_class_method(MessageClass::Request, BINDING);
    let id = TransactionId::from(transaction);
    let mut message = Message::builder(class, id, MessageWriteVec::new());
    let flags = CHANGE_PORT.to_be_bytes();
    if changes_port {
        let change = RawAttribute::new(CHANGE_REQUEST, &flags);
        message
            .add_attribute(&change)
            .expect("a first attribute always fits");
    }
    let padding = format!("{PADDING:.<PROBE_PADDING_LEN$}");
    let software = Software::new(&padding).expect("the padding is shorter than 763 bytes");
    message
        .add_attribute(&software)
        .expect("two short attributes always fit");
    message.finish()
}

/// What the answer to the probe with `transaction` says; `None` if the datagram is not that answer.
pub fn probe_answer(datagram: &[u8], transaction: u128) -> Option<ProbeAnswer> {
    let answer = success(datagram, transaction)?;
    let mapped = answer.attribute::<XorMappedAddress>().ok()?;
    let other = answer.raw_attribute(OTHER_ADDRESS);
    let other_port = other.and_then(|attribute| {
        let [_, _, high, low, ..] = *attribute.value else {
            return None;
        };
        Some(u16::from_be_bytes([high, low])).filter(|port| *port != 0)
    });
    Some(ProbeAnswer {
        reflexive: canonical(mapped.addr(answer.transaction_id())),
        other_port,
    })
}

#[cfg(test)]
mod tests {
    use super::super::{binding_answer, binding_request, reflexive_address};
    use super::*;

    const V4: &str = "192.0.2.1:4242";
    const V6: &str = "[2001:db8::9]:1";

    fn ports() -> TwoPorts {
        TwoPorts {
            ip: "198.51.100.1".parse().unwrap(),
            asked: 7400,
            other: 7401,
        }
    }

    fn ports_of(source: SocketAddr) -> TwoPorts {
        let ip = if source.is_ipv4() {
            ports().ip
        } else {
            "2001:db8::1".parse().unwrap()
        };
        TwoPorts { ip, ..ports() }
    }

    /// A request with nothing but CHANGE-REQUEST with this value, and what follows that.
    fn change(value: &[u8], behind: &[u8]) -> Vec<u8> {
        let len = u8::try_from(value.len()).unwrap();
        let attribute = [&[0, 3, 0, len][..], value, behind].concat();
        let len = u16::try_from(attribute.len()).unwrap().to_be_bytes();
        [&[0, 1], &len[..], &binding_request(1)[4..20], &attribute].concat()
    }

    #[test]
    fn t13_no_answer_is_longer_than_a_probe() {
        for source in [V4, V6] {
            let source = source.parse().unwrap();
            for changes_port in [false, true] {
                let request = probe(7, changes_port);
                let answer = server_answer(&request, source, Some(ports_of(source))).unwrap();
                let full = answer.full.unwrap();
                assert!(full.len() <= request.len(), "{} bytes", full.len());
                let expected = ProbeAnswer {
                    reflexive: source,
                    other_port: Some(7401),
                };
                assert_eq!(probe_answer(&full, 7), Some(expected));
                assert_eq!(probe_answer(&full, 8), None);
                let short = probe_answer(&answer.short, 7).unwrap();
                assert_eq!((short.reflexive, short.other_port), (source, None));
            }
        }
    }

    #[test]
    fn a_full_answer_to_ipv4_fits_the_request_of_this_project() {
        let request = binding_request(7);
        let answer = server_answer(&request, V4.parse().unwrap(), Some(ports())).unwrap();
        assert_eq!(answer.full.unwrap().len(), request.len());
    }

    #[test]
    fn the_answer_names_where_it_comes_from_and_the_other_port() {
        let source = V4.parse().unwrap();
        for (flags, from, origin) in [
            (0, AnsweringPort::Asked, 7400u16),
            (2, AnsweringPort::Other, 7401),
        ] {
            let request = change(&[0, 0, 0, flags], &[]);
            let answer = server_answer(&request, source, Some(ports())).unwrap();
            assert_eq!(answer.from, from);
            let full = answer.full.unwrap();
            let [high, low] = origin.to_be_bytes();
            let origin = [0x80, 0x2b, 0, 8, 0, 1, high, low, 198, 51, 100, 1];
            assert_eq!(full[32..44], origin);
            let other = [0x80, 0x2c, 0, 8, 0, 1, 0x1c, 0xe9, 198, 51, 100, 1];
            assert_eq!(full[44..], other);
        }
    }

    #[test]
    fn another_address_is_not_understood_and_the_error_goes_only_where_it_fits() {
        let source = V4.parse().unwrap();
        for flags in [4, 6] {
            let short = change(&[0, 0, 0, flags], &[]);
            assert_eq!(server_answer(&short, source, Some(ports())), None);
            let padded = change(&[0, 0, 0, flags], &[0x80, 0x22, 0, 4, 1, 2, 3, 4]);
            let answer = server_answer(&padded, source, Some(ports())).unwrap();
            assert_eq!((answer.from, answer.full), (AnsweringPort::Asked, None));
            assert!(answer.short.len() <= padded.len());
            assert_eq!(answer.short[..2], [1, 0x11], "an error");
        }
    }

    #[test]
    fn t19_a_change_request_of_another_length_is_ignored() {
        let source = V4.parse().unwrap();
        for value in [&[][..], &[0; 8], &[0, 0, 0, 2, 0, 0, 0, 2]] {
            let padded = change(value, &[0x80, 0x22, 0, 4, 1, 2, 3, 4]);
            assert_eq!(server_answer(&padded, source, Some(ports())), None);
        }
    }

    #[test]
    fn a_server_with_one_port_answers_as_ever() {
        let source = V4.parse().unwrap();
        for request in [
            binding_request(5),
            probe(5, false),
            probe(5, true),
            change(&[0, 0, 0, 2], &[]),
        ] {
            let answer = server_answer(&request, source, None);
            let expected = binding_answer(&request, source);
            assert_eq!(answer.map(|answer| answer.short), expected);
        }
    }

    #[test]
    fn t19_every_truncation_and_every_flip_of_a_probe_is_survived() {
        let source: SocketAddr = V6.parse().unwrap();
        let request = probe(5, true);
        let answer = server_answer(&request, source, Some(ports_of(source)));
        let full = answer.unwrap().full.unwrap();
        for whole in [&request, &full] {
            for cut in 0..whole.len() {
                let ports = Some(ports_of(source));
                assert_eq!(server_answer(&whole[..cut], source, ports), None);
                assert_eq!(probe_answer(&whole[..cut], 5), None);
                let mut flipped = whole.clone();
                flipped[cut] ^= 0x81;
                let _ = server_answer(&flipped, source, ports);
                let _ = probe_answer(&flipped, 5);
            }
        }
        assert_eq!(reflexive_address(&full, 5), Some(source));
        assert_eq!(server_answer(&full, source, None), None, "an echo");
    }
}
