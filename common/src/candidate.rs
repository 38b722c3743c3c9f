//! The addresses that a candidate may have. A device announces candidates, and others send packets to
//! them, so an address that is not a single host's could be abused.
//!
//! The server removes all other addresses from announcements, and a peer does not dial them whatever the
//! server says.

use std::net::{IpAddr, Ipv6Addr};

use crate::relayed::is_relayed;

/// Tells whether packets to `ip` reach a single other host: not the sender itself, the metadata service
/// of its cloud (link-local), a whole network or the made-up address of a relayed path. With
/// `allow_loopback` the sender's own host will do, for peers whose server runs there, too.
pub fn is_single_host(ip: IpAddr, allow_loopback: bool) -> bool {
    match ip {
        IpAddr::V4(v4) => {
            let [first, ..] = v4.octets();
            // 0.0.0.0/8 is "this network", 240.0.0.0/4 is reserved and holds the broadcast address.
            let is_usable = first != 0 && first < 240 && !v4.is_multicast() && !v4.is_link_local();
            is_usable && (allow_loopback || !v4.is_loopback())
        }
        IpAddr::V6(v6) => {
            if let Some(embedded) = embedded_v4(v6) {
                return is_single_host(embedded, allow_loopback);
            }
            let is_usable = !v6.is_unspecified()
                && !v6.is_multicast()
                && !v6.is_unicast_link_local()
                && !is_relayed(ip);
            is_usable && (allow_loopback || !v6.is_loopback())
        }
    }
}

/// The IPv4 address that `v6` embeds: NAT64 (RFC 6052) or the deprecated IPv4-compatible form (RFC 4291
/// section 2.5.5.1).
fn embedded_v4(v6: Ipv6Addr) -> Option<IpAddr> {
    let low = v6.to_bits() as u32;
    let is_nat64 = v6.segments()[..6] == [0x64, 0xff9b, 0, 0, 0, 0];
    let is_compatible = v6.segments()[..6] == [0; 6] && low > 1;
    (is_nat64 || is_compatible).then(|| IpAddr::V4(low.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t22_only_single_other_hosts_are_targets() {
        let refused = [
            "0.0.0.0",
            "0.1.2.3",
            "169.254.169.254",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "ff02::1",
            "fe80::1",
            "fd4b:7c19:e2a6::1",
            "64:ff9b::169.254.169.254",
            "::169.254.169.254",
            "64:ff9b::127.0.0.1",
        ];
        for ip in refused {
            assert!(!is_single_host(ip.parse().unwrap(), false), "{ip}");
        }
        for ip in ["127.0.0.1", "127.8.9.1", "::1"] {
            assert!(!is_single_host(ip.parse().unwrap(), false), "{ip}");
            assert!(is_single_host(ip.parse().unwrap(), true), "{ip}");
        }
        for ip in [
            "192.0.2.1",
            "10.0.0.1",
            "2001:db8::1",
            "fd00::1",
            "64:ff9b::192.0.2.1",
        ] {
            assert!(is_single_host(ip.parse().unwrap(), false), "{ip}");
        }
    }
}
