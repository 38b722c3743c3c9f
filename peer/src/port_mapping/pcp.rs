//! The Port Control Protocol (RFC 6887): requests of the opcode MAP for one UDP port of IPv4, and what a gateway
//! says to them.
//!
//! All numbers are big-endian. An answer of another length than the RFC permits, or with another nonce, protocol or
//! port than the request's, answers nothing.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddrV4};

use super::{AnswerError, Grant};

/// Length in bytes of a MAP request, and the least of its answer: the common header (sections 7.1 and 7.2) and the
/// opcode's own part (section 11.1).
pub const MAP_LEN: usize = 24 + 36;
/// Longest message in bytes (section 7).
pub const MESSAGE_LEN_MAX: usize = 1100;

/// Length in bytes of a header.
const HEADER_LEN: usize = 24;
const VERSION: u8 = 2;
/// Marks an answer, in the byte of the opcode.
const ANSWER: u8 = 0x80;
const ANNOUNCE: u8 = 0;
const MAP: u8 = 1;
/// UDP, of the protocol numbers of IANA.
const UDP: u8 = 17;

/// The random bytes that pair a mapping's requests with their answers (section 11.1).
pub type Nonce = [u8; 12];

/// A request for a mapping, its renewal or, with no lifetime, its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MapRequest {
    /// This device's address, from which the request is sent.
    pub client: Ipv4Addr,
    /// The same in all requests for one mapping.
    pub nonce: Nonce,
    /// The port that is mapped.
    pub internal_port: u16,
    /// The external endpoint that would suit; unspecified address or port 0 for any.
    pub suggested: SocketAddrV4,
    /// Seconds for which the mapping is asked for; 0 ends it.
    pub lifetime_s: u32,
}

/// An answer that grants what was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MapAnswer {
    /// What is granted. To a request that ends a mapping it means nothing.
    pub grant: Grant,
    /// Seconds since the gateway has lost its mappings last (section 8.5).
    pub epoch_s: u32,
}

impl MapRequest {
    /// The request's bytes.
    pub fn to_bytes(&self) -> [u8; MAP_LEN] {
        let mut bytes = [0; MAP_LEN];
        bytes[0] = VERSION;
        bytes[1] = MAP;
        bytes[4..8].copy_from_slice(&self.lifetime_s.to_be_bytes());
        bytes[8..24].copy_from_slice(&self.client.to_ipv6_mapped().octets());
        bytes[24..36].copy_from_slice(&self.nonce);
        bytes[36] = UDP;
        bytes[40..42].copy_from_slice(&self.internal_port.to_be_bytes());
        bytes[42..44].copy_from_slice(&self.suggested.port().to_be_bytes());
        bytes[44..60].copy_from_slice(&self.suggested.ip().to_ipv6_mapped().octets());
        bytes
    }

    /// Reads an answer to this request. A grant of a mapping is checked.
    ///
    /// # Errors
    ///
    /// If it is none, or grants nothing.
    pub fn answer(&self, bytes: &[u8]) -> Result<MapAnswer, AnswerError> {
        if is_version_refusal(bytes) {
            return Err(AnswerError::OtherVersion);
        }
        let header = Header::parse(bytes).ok_or(AnswerError::Unrelated)?;
        let body = bytes.get(HEADER_LEN..MAP_LEN);
        let body = body.filter(|_| header.opcode == MAP);
        let body = body.ok_or(AnswerError::Unrelated)?;
        let is_ours = body[..12] == self.nonce
            && body[12] == UDP
            && body[16..18] == self.internal_port.to_be_bytes();
        if !is_ours {
            return Err(AnswerError::Unrelated);
        }
        // Section 7.4.
        let code = u16::from(header.code);
        match header.code {
            0 => {}
            // Not authorised, network failure, no resources, quota, the suggested endpoint, peers.
            2 | 7 | 8 | 10 | 11 | 13 => return Err(AnswerError::Refused(code)),
            _ => return Err(AnswerError::Unsupported(code)),
        }
        let port = u16::from_be_bytes([body[18], body[19]]);
        let grant = Grant {
            external: SocketAddrV4::new(v4_of(&body[20..36])?, port),
            lifetime_s: header.lifetime_s,
        };
        let grant = if self.lifetime_s == 0 {
            grant
        } else {
            grant.check()?
        };
        Ok(MapAnswer {
            grant,
            epoch_s: header.epoch_s,
        })
    }
}

/// Reads the epoch of an announcement that nobody asked for (section 14.1); `None` if it is no such.
pub fn announced_epoch(bytes: &[u8]) -> Option<u32> {
    let header = Header::parse(bytes)?;
    let is_announcement = header.opcode == ANNOUNCE && header.code == 0;
    is_announcement.then_some(header.epoch_s)
}

/// The part that all answers have (section 7.2).
struct Header {
    opcode: u8,
    code: u8,
    lifetime_s: u32,
    epoch_s: u32,
}

impl Header {
    /// Checks what section 8.3 has a client check.
    fn parse(bytes: &[u8]) -> Option<Self> {
        let has_fair_len = bytes.len() <= MESSAGE_LEN_MAX && bytes.len().is_multiple_of(4);
        let (header, _) = bytes
            .split_first_chunk::<HEADER_LEN>()
            .filter(|_| has_fair_len)?;
        let [version, opcode, _, code, l0, l1, l2, l3, e0, e1, e2, e3, ..] = *header;
        let is_answer = version == VERSION && opcode & ANSWER != 0;
        is_answer.then_some(Self {
            opcode: opcode & !ANSWER,
            code,
            lifetime_s: u32::from_be_bytes([l0, l1, l2, l3]),
            epoch_s: u32::from_be_bytes([e0, e1, e2, e3]),
        })
    }
}

/// Tells whether a gateway says that it does not speak this version. The code is 1 both in one byte of PCP and in the
/// two of NAT-PMP, whose version is 0 (section 9, and RFC 6886 section 3.5).
fn is_version_refusal(bytes: &[u8]) -> bool {
    match bytes {
        [_, opcode, _, 1, _, _, _, _, ..] => opcode & ANSWER != 0 && bytes.len() <= MESSAGE_LEN_MAX,
        _ => false,
    }
}

/// The address of IPv4 that an external address is.
fn v4_of(bytes: &[u8]) -> Result<Ipv4Addr, AnswerError> {
    let bytes: [u8; 16] = bytes.try_into().map_err(|_| AnswerError::Unrelated)?;
    let ip = Ipv6Addr::from(bytes).to_ipv4_mapped();
    ip.ok_or(AnswerError::Implausible)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONCE: Nonce = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12];

    fn request() -> MapRequest {
        MapRequest {
            client: Ipv4Addr::new(192, 168, 1, 2),
            nonce: NONCE,
            internal_port: 7000,
            suggested: SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 7000),
            lifetime_s: 1200,
        }
    }

    /// What a gateway says to [`request`].
    fn granted() -> Vec<u8> {
        let mut bytes = request().to_bytes().to_vec();
        bytes[1] |= ANSWER;
        bytes[4..8].copy_from_slice(&600_u32.to_be_bytes());
        bytes[8..12].copy_from_slice(&77_u32.to_be_bytes());
        bytes[12..24].fill(0);
        bytes[42..44].copy_from_slice(&40_000_u16.to_be_bytes());
        let external = Ipv4Addr::new(203, 0, 113, 9).to_ipv6_mapped();
        bytes[44..60].copy_from_slice(&external.octets());
        bytes
    }

    fn changed(at: usize, to: &[u8]) -> Result<MapAnswer, AnswerError> {
        let mut bytes = granted();
        bytes[at..at + to.len()].copy_from_slice(to);
        request().answer(&bytes)
    }

    #[test]
    fn a_request_is_what_the_rfc_draws() {
        #[rustfmt::skip]
        let expected = [
            // Version 2, MAP, reserved, 1200 s.
            2, 1, 0, 0, 0, 0, 4, 0xb0,
            // ::ffff:192.168.1.2.
            0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 192, 168, 1, 2,
            1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12,
            // UDP, reserved, the port 7000 inside and outside.
            17, 0, 0, 0, 0x1b, 0x58, 0x1b, 0x58,
            // ::ffff:0.0.0.0, which is any address of IPv4.
            0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0, 0, 0, 0,
        ];
        assert_eq!(request().to_bytes(), expected);
    }

    #[test]
    fn an_answer_tells_endpoint_lifetime_and_epoch() {
        let expected = MapAnswer {
            grant: Grant {
                external: "203.0.113.9:40000".parse().unwrap(),
                lifetime_s: 600,
            },
            epoch_s: 77,
        };
        assert_eq!(request().answer(&granted()), Ok(expected));
        // Options behind it are not looked at.
        let longer = [&granted()[..], &[1, 0, 0, 4, 9, 9, 9, 9]].concat();
        assert_eq!(request().answer(&longer), Ok(expected));
    }

    #[test]
    fn t22_an_external_endpoint_that_leads_elsewhere_is_refused() {
        for ip in [
            "0.0.0.0",
            "127.0.0.1",
            "169.254.169.254",
            "224.0.0.1",
            "255.255.255.255",
        ] {
            let ip: Ipv4Addr = ip.parse().unwrap();
            let refused = changed(44, &ip.to_ipv6_mapped().octets());
            assert_eq!(refused, Err(AnswerError::Implausible), "{ip}");
        }
        let refused = [
            changed(44, &Ipv6Addr::LOCALHOST.octets()),
            changed(44, &[0x20, 1, 0xd, 0xb8]),
            changed(42, &[0, 0]),
            changed(4, &[0; 4]),
        ];
        assert_eq!(refused, [Err(AnswerError::Implausible); 4]);
    }

    #[test]
    fn t16_answers_to_something_else_and_of_any_length_answer_nothing() {
        // The bytes that pair it with the request: version, opcode, nonce, protocol, port.
        for at in [0, 1, 24, 35, 36, 40, 41] {
            let other = changed(at, &[99]);
            assert_eq!(other, Err(AnswerError::Unrelated), "byte {at}");
        }
        let granted = granted();
        for len in 0..granted.len() {
            let cut = request().answer(&granted[..len]);
            assert_eq!(cut, Err(AnswerError::Unrelated), "{len} bytes");
        }
        for len in [MAP_LEN + 1, MESSAGE_LEN_MAX + 4, 65_000] {
            let mut long = granted.clone();
            long.resize(len, 0);
            assert_eq!(
                request().answer(&long),
                Err(AnswerError::Unrelated),
                "{len}"
            );
        }
        let echo = request().to_bytes();
        assert_eq!(request().answer(&echo), Err(AnswerError::Unrelated));
    }

    #[test]
    fn refusals_say_whether_another_protocol_may_do() {
        assert_eq!(changed(3, &[2]), Err(AnswerError::Refused(2)));
        assert_eq!(changed(3, &[8]), Err(AnswerError::Refused(8)));
        assert_eq!(changed(3, &[4]), Err(AnswerError::Unsupported(4)));
        assert_eq!(changed(3, &[200]), Err(AnswerError::Unsupported(200)));
        assert_eq!(changed(3, &[1]), Err(AnswerError::OtherVersion));
        // What a gateway with NAT-PMP alone says: version 0, code 1 in two bytes, its epoch.
        let old = [0, 0x81, 0, 1, 0, 0, 0, 77];
        assert_eq!(request().answer(&old), Err(AnswerError::OtherVersion));
    }

    #[test]
    fn a_gateway_announces_its_restart() {
        let mut bytes = [0; 24];
        (bytes[0], bytes[1], bytes[11]) = (2, 0x80, 3);
        assert_eq!(announced_epoch(&bytes), Some(3));
        assert_eq!(announced_epoch(&bytes[..20]), None);
        assert_eq!(announced_epoch(&granted()), None);
    }
}
