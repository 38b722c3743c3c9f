//! Datagrams of relay channels, between a peer and the server's UDP port.
//!
//! A channel has two ends, and each end an id that only the server and its own peer know. Before the server
//! forwards anything, a peer shows that it receives at the address that it sends from: it *binds* its end,
//! gets a challenge, and returns it as proof. From then on packets that come from that address go to the
//! address of the other end, under the other end's id. The packets are opaque here.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::limits::RELAYED_PACKET_LEN_MAX;

/// Length of the kind and the id, in front of every datagram.
pub const CHANNEL_HEADER_LEN: usize = 1 + EndId::LEN;

const DATA: u8 = 128;
const BIND: u8 = 129;
const CHALLENGE: u8 = 130;
const PROOF: u8 = 131;
const BOUND: u8 = 132;

/// Identifies one end of a channel: 128 random bits, a secret between the server and the peer at that end.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct EndId([u8; Self::LEN]);

impl EndId {
    /// Its length in bytes.
    pub const LEN: usize = 16;

    /// Makes an id of random bytes.
    pub const fn from_bytes(bytes: [u8; Self::LEN]) -> Self {
        Self(bytes)
    }

    /// The 16 bytes that stand in each datagram of this end.
    pub const fn as_bytes(&self) -> &[u8; Self::LEN] {
        &self.0
    }
}

impl fmt::Debug for EndId {
    /// Whoever reads a log must not be able to use it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EndId(…)")
    }
}

/// What the server sends to an address and wants back from there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cookie(pub [u8; Self::LEN]);

impl Cookie {
    /// Its length in bytes.
    pub const LEN: usize = 16;

    /// Compares in constant time: whoever guesses learns nothing of how far the guess is right.
    pub fn is(self, other: Self) -> bool {
        aws_lc_rs::constant_time::verify_slices_are_equal(&self.0, &other.0).is_ok()
    }
}

/// A datagram of a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChannelDatagram<'a> {
    /// The end of the peer that sends it, or receives it from the server.
    pub end: EndId,
    /// What it is for.
    pub body: ChannelBody<'a>,
}

/// What a datagram of a channel is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChannelBody<'a> {
    /// A packet from or for the other end, 1 to [`RELAYED_PACKET_LEN_MAX`] bytes.
    Data(&'a [u8]),
    /// A peer wants its end to be at the address that this comes from.
    Bind,
    /// The server's answer to that.
    Challenge(Cookie),
    /// A peer has received the challenge at its address.
    Proof(Cookie),
    /// The end is at that address now.
    Bound,
}

impl<'a> ChannelDatagram<'a> {
    /// Tells whether a datagram that begins with this byte is of a channel (RFC 9443).
    pub const fn begins_with(first: u8) -> bool {
        first >= DATA && first < 192
    }

    /// Parses a datagram; `None` if it is none of a channel.
    pub fn parse(datagram: &'a [u8]) -> Option<Self> {
        let (kind, rest) = datagram.split_first()?;
        let (end, rest) = rest.split_first_chunk()?;
        let cookie = || rest.try_into().map(Cookie).ok();
        let body = match *kind {
            DATA if (1..=RELAYED_PACKET_LEN_MAX).contains(&rest.len()) => ChannelBody::Data(rest),
            BIND if cookie()? == Cookie([0; Cookie::LEN]) => ChannelBody::Bind,
            CHALLENGE => ChannelBody::Challenge(cookie()?),
            PROOF => ChannelBody::Proof(cookie()?),
            BOUND if rest.is_empty() => ChannelBody::Bound,
            _ => return None,
        };
        let end = EndId(*end);
        Some(Self { end, body })
    }

    /// Its bytes. A packet that is too long makes a datagram that nobody parses.
    pub fn to_bytes(self) -> Vec<u8> {
        let (kind, rest) = match &self.body {
            ChannelBody::Data(packet) => (DATA, *packet),
            ChannelBody::Bind => (BIND, &[0; Cookie::LEN][..]),
            ChannelBody::Challenge(cookie) => (CHALLENGE, &cookie.0[..]),
            ChannelBody::Proof(cookie) => (PROOF, &cookie.0[..]),
            ChannelBody::Bound => (BOUND, &[][..]),
        };
        let mut bytes = Vec::with_capacity(CHANNEL_HEADER_LEN + rest.len());
        bytes.push(kind);
        bytes.extend_from_slice(&self.end.0);
        bytes.extend_from_slice(rest);
        bytes
    }
}

/// Addresses a datagram that was parsed to another end.
pub fn redirect(datagram: &mut [u8], to: EndId) {
    if let Some(end) = datagram.get_mut(1..CHANNEL_HEADER_LEN) {
        end.copy_from_slice(&to.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const END: EndId = EndId([7; EndId::LEN]);

    fn bodies() -> [ChannelBody<'static>; 6] {
        const LONGEST: &[u8] = &[5; RELAYED_PACKET_LEN_MAX];
        let cookie = Cookie([9; Cookie::LEN]);
        [
            ChannelBody::Data(b"x"),
            ChannelBody::Data(LONGEST),
            ChannelBody::Bind,
            ChannelBody::Challenge(cookie),
            ChannelBody::Proof(cookie),
            ChannelBody::Bound,
        ]
    }

    #[test]
    fn datagrams_survive_their_bytes_and_no_cut_one_does() {
        for body in bodies() {
            let datagram = ChannelDatagram { end: END, body };
            let bytes = datagram.to_bytes();
            assert!(ChannelDatagram::begins_with(bytes[0]));
            assert_eq!(ChannelDatagram::parse(&bytes), Some(datagram));
            let is_packet = matches!(body, ChannelBody::Data(_));
            let shortest = if is_packet {
                CHANNEL_HEADER_LEN + 1
            } else {
                bytes.len()
            };
            for len in 0..shortest {
                assert_eq!(ChannelDatagram::parse(&bytes[..len]), None, "{body:?}");
            }
            let longer = [&bytes[..], &[0]].concat();
            let is_short_packet = matches!(body, ChannelBody::Data(b"x"));
            assert_eq!(ChannelDatagram::parse(&longer).is_some(), is_short_packet);
        }
    }

    #[test]
    fn t13_no_answer_is_longer_than_its_request() {
        let len = |body| ChannelDatagram { end: END, body }.to_bytes().len();
        let cookie = Cookie([1; Cookie::LEN]);
        assert_eq!(len(ChannelBody::Bind), CHANNEL_HEADER_LEN + Cookie::LEN);
        assert_eq!(
            len(ChannelBody::Challenge(cookie)),
            CHANNEL_HEADER_LEN + Cookie::LEN
        );
        assert_eq!(
            len(ChannelBody::Proof(cookie)),
            CHANNEL_HEADER_LEN + Cookie::LEN
        );
        assert_eq!(len(ChannelBody::Bound), CHANNEL_HEADER_LEN);
    }

    #[test]
    fn only_these_kinds_are_served() {
        for kind in 0..=255 {
            for len in [0, 1, Cookie::LEN] {
                let bytes = [&[kind][..], END.as_bytes(), &vec![0; len]].concat();
                let is_served = match len {
                    0 => kind == BOUND,
                    1 => kind == DATA,
                    _ => (DATA..=PROOF).contains(&kind),
                };
                assert_eq!(ChannelDatagram::parse(&bytes).is_some(), is_served);
            }
        }
    }

    #[test]
    fn a_redirected_packet_is_the_same_for_another_end() {
        let body = ChannelBody::Data(b"packet");
        let mut bytes = ChannelDatagram { end: END, body }.to_bytes();
        let other = EndId([8; EndId::LEN]);
        redirect(&mut bytes, other);
        let redirected = ChannelDatagram { end: other, body };
        assert_eq!(ChannelDatagram::parse(&bytes), Some(redirected));
    }

    /// The bytes of PROTOCOL.md, section 4.1.
    #[test]
    fn datagrams_have_the_documented_bytes() {
        let end = EndId(std::array::from_fn(|n| n as u8 + 1));
        let cookie = Cookie(std::array::from_fn(|n| n as u8 + 0xa1));
        let bytes = |body| ChannelDatagram { end, body }.to_bytes();
        let id = end.as_bytes();
        let bind = [&[0x81][..], id, &[0; 16]].concat();
        assert_eq!(bytes(ChannelBody::Bind), bind);
        let challenge = [&[0x82][..], id, &cookie.0].concat();
        assert_eq!(bytes(ChannelBody::Challenge(cookie)), challenge);
        let packet = [&[0x80][..], id, b"cat"].concat();
        assert_eq!(bytes(ChannelBody::Data(b"cat")), packet);
    }

    #[test]
    fn ids_stay_out_of_logs() {
        assert_eq!(format!("{END:?}"), "EndId(…)");
    }
}
