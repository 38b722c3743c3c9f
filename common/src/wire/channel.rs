//! Datagrams of the relay, between a peer and the server's UDP port.
//!
//! Each device that is logged in has an *allocation* at the relay, and shows that it receives at the
//! address that it sends from: it *binds* its allocation, gets a challenge, and returns it as proof. A channel
//! joins two allocations. It has two ends, and each end an id. Packets that come from the address of one
//! end's allocation go to the address of the other's, under the other end's id. The packets
//! are opaque here.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::limits::RELAYED_PACKET_LEN_MAX;

/// Length of the kind and the id, in front of every datagram.
pub const CHANNEL_HEADER_LEN: usize = 1 + ID_LEN;

/// Length of the ids in bytes.
const ID_LEN: usize = 16;

const PACKET: u8 = 128;
const BIND: u8 = 129;
const CHALLENGE: u8 = 130;
const PROOF: u8 = 131;
const BOUND: u8 = 132;

/// Makes a type for 128 random bits that stay between the server and one peer.
macro_rules! secret_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub struct $name([u8; ID_LEN]);

        impl $name {
            /// Makes an id of random bytes.
            pub const fn from_bytes(bytes: [u8; ID_LEN]) -> Self {
                Self(bytes)
            }

            /// The 16 bytes that stand in each datagram.
            pub const fn as_bytes(&self) -> &[u8; ID_LEN] {
                &self.0
            }
        }

        impl fmt::Debug for $name {
            /// Whoever reads a log must not be able to use it.
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(concat!(stringify!($name), "(…)"))
            }
        }
    };
}

secret_id! {
    /// Identifies the allocation of a device: a secret between the server and that device.
    AllocationId
}
secret_id! {
    /// Identifies one end of a channel: a secret between the server and the device at that end.
    EndId
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

/// A datagram between a peer and the relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChannelDatagram<'a> {
    /// A packet from an end of a channel, or for it from the other end.
    Packet {
        /// The end of the peer that sends it, or receives it from the server.
        end: EndId,
        /// 1 to [`RELAYED_PACKET_LEN_MAX`] bytes.
        packet: &'a [u8],
    },
    /// A peer wants its allocation to be at the address that this comes from.
    Bind(AllocationId),
    /// The server's answer to that.
    Challenge(AllocationId, Cookie),
    /// A peer has received the challenge at its address.
    Proof(AllocationId, Cookie),
    /// The allocation is at that address now.
    Bound(AllocationId),
}

impl<'a> ChannelDatagram<'a> {
    /// Tells whether a datagram that begins with this byte is of the relay (RFC 9443).
    pub const fn begins_with(first: u8) -> bool {
        first >= PACKET && first < 192
    }

    /// Parses a datagram; `None` if it is none of the relay.
    pub fn parse(datagram: &'a [u8]) -> Option<Self> {
        let (kind, rest) = datagram.split_first()?;
        let (id, rest) = rest.split_first_chunk()?;
        let allocation = AllocationId(*id);
        let cookie = || rest.try_into().map(Cookie).ok();
        match *kind {
            PACKET if (1..=RELAYED_PACKET_LEN_MAX).contains(&rest.len()) => Some(Self::Packet {
                end: EndId(*id),
                packet: rest,
            }),
            BIND if cookie()? == Cookie([0; Cookie::LEN]) => Some(Self::Bind(allocation)),
            CHALLENGE => Some(Self::Challenge(allocation, cookie()?)),
            PROOF => Some(Self::Proof(allocation, cookie()?)),
            BOUND if rest.is_empty() => Some(Self::Bound(allocation)),
            _ => None,
        }
    }

    /// Its bytes. A packet that is too long makes a datagram that nobody parses.
    pub fn to_bytes(self) -> Vec<u8> {
        let (kind, id, rest) = match &self {
            Self::Packet { end, packet } => (PACKET, &end.0, *packet),
            Self::Bind(allocation) => (BIND, &allocation.0, &[0; Cookie::LEN][..]),
            Self::Challenge(allocation, cookie) => (CHALLENGE, &allocation.0, &cookie.0[..]),
            Self::Proof(allocation, cookie) => (PROOF, &allocation.0, &cookie.0[..]),
            Self::Bound(allocation) => (BOUND, &allocation.0, &[][..]),
        };
        let mut bytes = Vec::with_capacity(CHANNEL_HEADER_LEN + rest.len());
        bytes.push(kind);
        bytes.extend_from_slice(id);
        bytes.extend_from_slice(rest);
        bytes
    }
}

/// Addresses a packet that was parsed to another end.
pub fn redirect(datagram: &mut [u8], to: EndId) {
    if let Some(end) = datagram.get_mut(1..CHANNEL_HEADER_LEN) {
        end.copy_from_slice(&to.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const END: EndId = EndId([7; ID_LEN]);
    const ALLOCATION: AllocationId = AllocationId([6; ID_LEN]);

    const fn packet(packet: &[u8]) -> ChannelDatagram<'_> {
        ChannelDatagram::Packet { end: END, packet }
    }

    fn datagrams() -> [ChannelDatagram<'static>; 6] {
        const LONGEST: &[u8] = &[5; RELAYED_PACKET_LEN_MAX];
        let cookie = Cookie([9; Cookie::LEN]);
        [
            packet(b"x"),
            packet(LONGEST),
            ChannelDatagram::Bind(ALLOCATION),
            ChannelDatagram::Challenge(ALLOCATION, cookie),
            ChannelDatagram::Proof(ALLOCATION, cookie),
            ChannelDatagram::Bound(ALLOCATION),
        ]
    }

    #[test]
    fn datagrams_survive_their_bytes_and_no_cut_one_does() {
        for datagram in datagrams() {
            let bytes = datagram.to_bytes();
            assert!(ChannelDatagram::begins_with(bytes[0]));
            assert_eq!(ChannelDatagram::parse(&bytes), Some(datagram));
            let is_packet = matches!(datagram, ChannelDatagram::Packet { .. });
            let shortest = if is_packet {
                CHANNEL_HEADER_LEN + 1
            } else {
                bytes.len()
            };
            for len in 0..shortest {
                assert_eq!(ChannelDatagram::parse(&bytes[..len]), None, "{datagram:?}");
            }
            let longer = [&bytes[..], &[0]].concat();
            let is_short_packet = datagram == packet(b"x");
            assert_eq!(ChannelDatagram::parse(&longer).is_some(), is_short_packet);
        }
    }

    #[test]
    fn t13_no_answer_is_longer_than_its_request() {
        let cookie = Cookie([1; Cookie::LEN]);
        for (datagram, len) in [
            (ChannelDatagram::Bind(ALLOCATION), Cookie::LEN),
            (ChannelDatagram::Challenge(ALLOCATION, cookie), Cookie::LEN),
            (ChannelDatagram::Proof(ALLOCATION, cookie), Cookie::LEN),
            (ChannelDatagram::Bound(ALLOCATION), 0),
        ] {
            assert_eq!(datagram.to_bytes().len(), CHANNEL_HEADER_LEN + len);
        }
    }

    #[test]
    fn only_these_kinds_are_served() {
        for kind in 0..=255 {
            for len in [0, 1, Cookie::LEN] {
                let bytes = [&[kind][..], END.as_bytes(), &vec![0; len]].concat();
                let is_served = match len {
                    0 => kind == BOUND,
                    1 => kind == PACKET,
                    _ => (PACKET..=PROOF).contains(&kind),
                };
                assert_eq!(ChannelDatagram::parse(&bytes).is_some(), is_served);
            }
        }
    }

    #[test]
    fn a_redirected_packet_is_the_same_for_another_end() {
        let mut bytes = packet(b"packet").to_bytes();
        let end = EndId([8; ID_LEN]);
        redirect(&mut bytes, end);
        let redirected = ChannelDatagram::Packet {
            end,
            packet: b"packet",
        };
        assert_eq!(ChannelDatagram::parse(&bytes), Some(redirected));
    }

    /// The bytes of PROTOCOL.md, section 4.1.
    #[test]
    fn datagrams_have_the_documented_bytes() {
        let id: [u8; ID_LEN] = std::array::from_fn(|n| n as u8 + 1);
        let cookie = Cookie(std::array::from_fn(|n| n as u8 + 0xa1));
        let bind = ChannelDatagram::Bind(AllocationId(id));
        assert_eq!(bind.to_bytes(), [&[0x81][..], &id, &[0; 16]].concat());
        let challenge = ChannelDatagram::Challenge(AllocationId(id), cookie);
        let expected = [&[0x82][..], &id, &cookie.0].concat();
        assert_eq!(challenge.to_bytes(), expected);
        let packet = ChannelDatagram::Packet {
            end: EndId(id),
            packet: b"cat",
        };
        assert_eq!(packet.to_bytes(), [&[0x80][..], &id, b"cat"].concat());
    }

    #[test]
    fn ids_stay_out_of_logs() {
        assert_eq!(format!("{END:?}"), "EndId(…)");
        assert_eq!(format!("{ALLOCATION:?}"), "AllocationId(…)");
    }
}
