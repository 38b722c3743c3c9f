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
    fn prefixes_survive_their_text() {
        for text in ["192.0.2.1", "2001:db8::1", "::"] {
            let prefix = prefix(text);
            assert_eq!(prefix.to_string().parse(), Ok(prefix));
        }
    }
}
