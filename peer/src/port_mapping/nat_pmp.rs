//! The NAT Port Mapping Protocol (RFC 6886): requests for the external address and for one UDP port, and what a
//! gateway says to them.
//!
//! All numbers are big-endian. There is no nonce: an answer counts from the gateway's address, with the port of the
//! request.

use std::net::{Ipv4Addr, SocketAddrV4};

use super::{AnswerError, Grant, is_external};

/// The request for the external address (section 3.2).
pub const ADDRESS_REQUEST: [u8; 2] = [VERSION, ADDRESS];

const VERSION: u8 = 0;
const ADDRESS: u8 = 0;
const MAP_UDP: u8 = 1;
/// Marks an answer, in the byte of the opcode.
const ANSWER: u8 = 0x80;

/// What a gateway says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressAnswer {
    /// Its address outside.
    pub external: Ipv4Addr,
    /// Seconds since the gateway has lost its mappings last (section 3.6).
    pub epoch_s: u32,
}

/// A request for a mapping, its renewal or, with no lifetime, its end (section 3.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MapRequest {
    /// The port that is mapped.
    pub internal_port: u16,
    /// The external port that would suit; 0 for any, and to end a mapping.
    pub suggested_port: u16,
    /// Seconds for which the mapping is asked for; 0 ends it.
    pub lifetime_s: u32,
}

/// An answer that grants what was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MapAnswer {
    /// The port outside. To a request that ends a mapping it means nothing.
    pub external_port: u16,
    /// Seconds until it ends.
    pub lifetime_s: u32,
    /// Seconds since the gateway has lost its mappings last (section 3.6).
    pub epoch_s: u32,
}

/// Reads the answer to [`ADDRESS_REQUEST`]. Gateways send the same unasked when they have restarted
/// (section 3.2.1).
///
/// # Errors
///
/// If it is none, or names no address that a gateway can have.
pub fn address_answer(bytes: &[u8]) -> Result<AddressAnswer, AnswerError> {
    check(bytes, ADDRESS)?;
    let &[_, _, _, _, e0, e1, e2, e3, a, b, c, d] = bytes else {
        return Err(AnswerError::Unrelated);
    };
    let external = Ipv4Addr::new(a, b, c, d);
    if !is_external(external) {
        return Err(AnswerError::Implausible);
    }
    Ok(AddressAnswer {
        external,
        epoch_s: u32::from_be_bytes([e0, e1, e2, e3]),
    })
}

impl MapRequest {
    /// The request's bytes.
    pub fn to_bytes(&self) -> [u8; 12] {
        let [i0, i1] = self.internal_port.to_be_bytes();
        let [s0, s1] = self.suggested_port.to_be_bytes();
        let [l0, l1, l2, l3] = self.lifetime_s.to_be_bytes();
        [VERSION, MAP_UDP, 0, 0, i0, i1, s0, s1, l0, l1, l2, l3]
    }

    /// Reads an answer to this request.
    ///
    /// # Errors
    ///
    /// If it is none, or grants nothing.
    pub fn answer(&self, bytes: &[u8]) -> Result<MapAnswer, AnswerError> {
        check(bytes, MAP_UDP)?;
        let &[_, _, _, _, e0, e1, e2, e3, i0, i1, x0, x1, l0, l1, l2, l3] = bytes else {
            return Err(AnswerError::Unrelated);
        };
        if u16::from_be_bytes([i0, i1]) != self.internal_port {
            return Err(AnswerError::Unrelated);
        }
        Ok(MapAnswer {
            external_port: u16::from_be_bytes([x0, x1]),
            lifetime_s: u32::from_be_bytes([l0, l1, l2, l3]),
            epoch_s: u32::from_be_bytes([e0, e1, e2, e3]),
        })
    }
}

impl MapAnswer {
    /// The mapping that this is at the gateway's address outside.
    ///
    /// # Errors
    ///
    /// If it cannot be one.
    pub fn at(&self, external: Ipv4Addr) -> Result<Grant, AnswerError> {
        let grant = Grant {
            external: SocketAddrV4::new(external, self.external_port),
            lifetime_s: self.lifetime_s,
        };
        grant.check()
    }
}

/// Checks that these are the bytes of an answer to a request of this opcode, and that it is no refusal
/// (section 3.5). A refusal may end behind its epoch.
fn check(bytes: &[u8], opcode: u8) -> Result<(), AnswerError> {
    let &[version, kind, c0, c1, _, _, _, _, ..] = bytes else {
        return Err(AnswerError::Unrelated);
    };
    let is_answer = kind & ANSWER != 0;
    if version != VERSION || !is_answer || bytes.len() > 16 {
        return Err(AnswerError::Unrelated);
    }
    let code = u16::from_be_bytes([c0, c1]);
    if code == 1 {
        return Err(AnswerError::OtherVersion);
    }
    if kind != opcode | ANSWER {
        return Err(AnswerError::Unrelated);
    }
    match code {
        0 => Ok(()),
        // Not authorised, network failure, no resources.
        2..=4 => Err(AnswerError::Refused(code)),
        _ => Err(AnswerError::Unsupported(code)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADDRESS_ANSWER: [u8; 12] = [0, 0x80, 0, 0, 0, 0, 0, 77, 203, 0, 113, 9];
    /// The port 7000 inside is 40000 outside, for 600 s.
    const MAP_ANSWER: [u8; 16] = [
        0, 0x81, 0, 0, 0, 0, 0, 77, 0x1b, 0x58, 0x9c, 0x40, 0, 0, 2, 0x58,
    ];

    fn request() -> MapRequest {
        MapRequest {
            internal_port: 7000,
            suggested_port: 7001,
            lifetime_s: 1200,
        }
    }

    #[test]
    fn requests_and_answers_are_what_the_rfc_draws() {
        let expected = [0, 1, 0, 0, 0x1b, 0x58, 0x1b, 0x59, 0, 0, 4, 0xb0];
        assert_eq!(request().to_bytes(), expected);
        let answer = request().answer(&MAP_ANSWER).unwrap();
        let (external_port, lifetime_s, epoch_s) = (40_000, 600, 77);
        let expected = MapAnswer {
            external_port,
            lifetime_s,
            epoch_s,
        };
        assert_eq!(answer, expected);
        let external = Ipv4Addr::new(203, 0, 113, 9);
        let address = AddressAnswer { external, epoch_s };
        assert_eq!(address_answer(&ADDRESS_ANSWER), Ok(address));
        let expected = Grant {
            external: "203.0.113.9:40000".parse().unwrap(),
            lifetime_s,
        };
        assert_eq!(answer.at(external), Ok(expected));
    }

    #[test]
    fn t22_an_external_endpoint_that_leads_elsewhere_is_refused() {
        for ip in [
            [0; 4],
            [127, 0, 0, 1],
            [169, 254, 1, 1],
            [224, 0, 0, 1],
            [255; 4],
        ] {
            let mut bytes = ADDRESS_ANSWER;
            bytes[8..].copy_from_slice(&ip);
            let refused = address_answer(&bytes);
            assert_eq!(refused, Err(AnswerError::Implausible), "{ip:?}");
        }
        let external = Ipv4Addr::new(203, 0, 113, 9);
        for range in [10..12, 12..16] {
            let mut bytes = MAP_ANSWER;
            bytes[range].fill(0);
            let answer = request().answer(&bytes).unwrap();
            assert_eq!(answer.at(external), Err(AnswerError::Implausible));
        }
    }

    #[test]
    fn t16_answers_to_something_else_and_of_any_length_answer_nothing() {
        // Version, opcode, port.
        for at in [0, 1, 8, 9] {
            let mut bytes = MAP_ANSWER;
            bytes[at] = 0x40;
            let other = request().answer(&bytes);
            assert_eq!(other, Err(AnswerError::Unrelated), "byte {at}");
        }
        for len in (0..16).chain([17, 1100, 65_000]) {
            let mut bytes = MAP_ANSWER.to_vec();
            bytes.resize(len, 0);
            let other = request().answer(&bytes);
            assert_eq!(other, Err(AnswerError::Unrelated), "{len} bytes");
            bytes = ADDRESS_ANSWER.to_vec();
            bytes.resize(len, 0);
            let is_whole = len == ADDRESS_ANSWER.len();
            assert_eq!(address_answer(&bytes).is_ok(), is_whole, "{len} bytes");
        }
        assert!(request().answer(&ADDRESS_ANSWER).is_err());
        assert!(address_answer(&MAP_ANSWER).is_err());
    }

    #[test]
    fn refusals_say_whether_another_protocol_may_do() {
        let refused = |code| request().answer(&[0, 0x81, 0, code, 0, 0, 0, 77]);
        assert_eq!(refused(1), Err(AnswerError::OtherVersion));
        assert_eq!(refused(2), Err(AnswerError::Refused(2)));
        assert_eq!(refused(5), Err(AnswerError::Unsupported(5)));
    }
}
