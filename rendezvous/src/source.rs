//! Where a connection comes from, as far as anyone can choose it.

use std::fmt;
use std::net::{AddrParseError, IpAddr, Ipv6Addr};
use std::str::FromStr;

/// The part of an address that its user cannot change at will: /32 of IPv4, /64 of IPv6.
///
/// IPv4 is kept as `::ffff:a.b.c.d`, so that both spellings of one address are one source.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SourcePrefix(Ipv6Addr);

impl SourcePrefix {
    /// Stands for "any", where a counter does not tell sources apart. No connection comes from it.
    pub const ANY: Self = Self(Ipv6Addr::UNSPECIFIED);

    /// The prefix of an address.
    pub fn of(ip: IpAddr) -> Self {
        match ip.to_canonical() {
            IpAddr::V4(v4) => Self(v4.to_ipv6_mapped()),
            IpAddr::V6(v6) => Self(Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64)),
        }
    }

    /// Its bytes; the same for both spellings of an IPv4 address.
    pub const fn octets(self) -> [u8; 16] {
        self.0.octets()
    }

    /// The network around it.
    pub fn network(self) -> Network {
        match self.0.to_ipv4_mapped() {
            Some(v4) => Network::V4(v4.to_bits() >> 8),
            None => Network::V6(self.0.to_bits() >> 80),
        }
    }
}

/// What somebody who has one address of a network easily has the rest of: /24 of IPv4, /48 of IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Network {
    /// The first 24 bits.
    V4(u32),
    /// The first 48 bits.
    V6(u128),
}

impl fmt::Display for SourcePrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for SourcePrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for SourcePrefix {
    type Err = AddrParseError;

    fn from_str(text: &str) -> Result<Self, AddrParseError> {
        text.parse().map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix(text: &str) -> SourcePrefix {
        SourcePrefix::of(text.parse().unwrap())
    }

    #[test]
    fn one_source_has_one_prefix_however_it_is_spelt() {
        assert_eq!(prefix("192.0.2.1"), prefix("::ffff:192.0.2.1"));
        assert_ne!(prefix("192.0.2.1"), prefix("192.0.2.2"));
        assert_eq!(prefix("2001:db8::1"), prefix("2001:db8::ffff:1:2:3"));
        assert_ne!(prefix("2001:db8::1"), prefix("2001:db8:0:1::1"));
    }

    #[test]
    fn neighbours_are_in_one_network() {
        let network = |text| prefix(text).network();
        assert_eq!(network("192.0.2.1"), network("192.0.2.254"));
        assert_ne!(network("192.0.2.1"), network("192.0.3.1"));
        assert_eq!(network("2001:db8:1:2::1"), network("2001:db8:1:ffff::1"));
        assert_ne!(network("2001:db8:1::1"), network("2001:db8:2::1"));
    }

    #[test]
    fn prefixes_survive_their_text() {
        for text in ["192.0.2.1", "2001:db8::1", "::"] {
            let prefix = prefix(text);
            assert_eq!(prefix.to_string().parse(), Ok(prefix));
        }
    }
}
