//! Datagrams that come over control connections, of devices whose UDP packets do not reach the server.
//!
//! Such a connection has a made-up address ([`common::relayed`]) in place of a UDP endpoint, so that an
//! allocation is bound to it as to any other. No packet of a network comes from one: those are dropped.

use std::net::SocketAddr;

use common::relayed::{random_of, relayed_address};

/// Names a control connection. Chosen by whoever has the connections, and not used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ControlId(pub u64);

impl ControlId {
    /// Its made-up address.
    pub(super) fn address(self) -> SocketAddr {
        let mut bytes = [0; 10];
        bytes[2..].copy_from_slice(&self.0.to_be_bytes());
        relayed_address(bytes)
    }

    /// The connection that has this address.
    pub(super) fn of(address: SocketAddr) -> Option<Self> {
        let [0, 0, number @ ..] = random_of(address)? else {
            return None;
        };
        Some(Self(u64::from_be_bytes(number)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_is_found_by_its_address() {
        for id in [0, 1, u64::MAX].map(ControlId) {
            assert_eq!(ControlId::of(id.address()), Some(id));
        }
        let other = relayed_address([1; 10]);
        assert_eq!(ControlId::of(other), None);
        assert_eq!(ControlId::of("192.0.2.1:1".parse().unwrap()), None);
    }
}
