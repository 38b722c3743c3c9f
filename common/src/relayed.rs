//! Addresses of relayed paths. QUIC knows a path by the address of its other end; a path through the
//! relay has none, so it gets a made-up one: an IPv6 address of one fixed prefix of unique local addresses
//! (RFC 4193), random within.
//!
//! Such an address means something to one device only, as the name of one of its relay channels. It is
//! never announced, never put on a network, and refused as a candidate and as a source: whoever could send
//! from one would be taken for the relay.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

/// The prefix `fd4b:7c19:e2a6::/48`. Its global id was drawn at random (RFC 4193 section 3.2.2), so no network
/// has it but by intent.
const PREFIX: [u8; 6] = [0xfd, 0x4b, 0x7c, 0x19, 0xe2, 0xa6];
/// The port of all of them: they differ in their IP addresses. Any but 0 will do.
const PORT: u16 = 1;

/// Makes up the address of a relayed path from 80 random bits.
pub fn relayed_address(random: [u8; 10]) -> SocketAddr {
    let mut octets = [0; 16];
    octets[..PREFIX.len()].copy_from_slice(&PREFIX);
    octets[PREFIX.len()..].copy_from_slice(&random);
    (Ipv6Addr::from(octets), PORT).into()
}

/// The random bits of an address that [`relayed_address`] made up; `None` if it made up none such.
pub fn random_of(address: SocketAddr) -> Option<[u8; 10]> {
    let IpAddr::V6(v6) = address.ip() else {
        return None;
    };
    let random = v6.octets().strip_prefix(&PREFIX)?.try_into().ok()?;
    (address.port() == PORT).then_some(random)
}

/// Tells whether an IP address is one that [`relayed_address`] may make up.
pub fn is_relayed(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(_) => false,
        IpAddr::V6(v6) => v6.octets().starts_with(&PREFIX),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn made_up_addresses_are_recognised_and_no_others() {
        for random in [[0; 10], [0xff; 10], [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]] {
            let address = relayed_address(random);
            assert!(is_relayed(address.ip()), "{address}");
            assert_ne!(address.port(), 0);
            assert_eq!(random_of(address), Some(random));
        }
        assert_ne!(relayed_address([1; 10]), relayed_address([2; 10]));
        for other in [
            "fd4b:7c19:e2a5:ffff:ffff:ffff:ffff:ffff",
            "fd4b:7c19:e2a7::",
            "fd00::1",
            "2001:db8::1",
            "::ffff:253.75.124.25",
            "253.75.124.25",
        ] {
            assert!(!is_relayed(other.parse().unwrap()), "{other}");
        }
    }

    #[test]
    fn of_other_addresses_there_is_nothing_random() {
        for other in [
            "[fd4b:7c19:e2a6::]:2",
            "[fd4b:7c19:e2a7::]:1",
            "192.0.2.1:1",
        ] {
            assert_eq!(random_of(other.parse().unwrap()), None, "{other}");
        }
    }

    #[test]
    fn the_prefix_is_of_unique_local_addresses() {
        let IpAddr::V6(v6) = relayed_address([0; 10]).ip() else {
            panic!("not of IPv6");
        };
        assert!(v6.is_unique_local());
    }
}
