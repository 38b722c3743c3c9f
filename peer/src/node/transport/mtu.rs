//! Bounds path MTU discovery: a probe that the sender's own interface cannot carry is not sent.
//!
//! Each size that is tried in vain takes several round trips (RFC 8899 section 5.1.2), during which a
//! link sends smaller datagrams than it could.

use std::net::IpAddr;

use common::limits::UDP_PAYLOAD_LEN_MAX;
use common::relayed::is_relayed;

use crate::node::io::LocalAddress;

/// Headers of IPv4 and UDP, in bytes, without options.
const HEADERS_V4: u32 = 20 + 8;
/// Headers of IPv6 and UDP, in bytes, without extensions.
const HEADERS_V6: u32 = 40 + 8;
/// What every path for QUIC carries, in bytes (RFC 9000 section 14).
const PAYLOAD_MIN: u32 = 1200;

/// The largest UDP payload, in bytes, to try on the way to `remote`: what the interface on whose network
/// it is can carry, or any of the host's if it is further away. At most [`UDP_PAYLOAD_LEN_MAX`], which is
/// also the answer if nothing is known. A link that begins on a relayed path may get a direct one over any
/// interface, and the bound is that of all its paths.
pub(super) fn payload_max(local: &[LocalAddress], remote: IpAddr) -> u16 {
    let remote = remote.to_canonical();
    let is_this_host = local.iter().any(|own| own.endpoint.ip() == remote);
    if remote.is_loopback() || is_this_host {
        return UDP_PAYLOAD_LEN_MAX;
    }
    let is_relayed = is_relayed(remote);
    let family = local.iter().filter(|own| {
        let is_same = own.endpoint.is_ipv4() == remote.is_ipv4();
        (is_same || is_relayed) && !own.endpoint.ip().is_loopback()
    });
    let near = family.clone().filter(|own| own.is_on_link(remote));
    let mtu = match near.max_by_key(|own| own.prefix_len) {
        Some(nearest) => nearest.mtu,
        None => largest(family.map(|own| own.mtu)),
    };
    let headers = if remote.is_ipv4() || is_relayed {
        HEADERS_V4
    } else {
        HEADERS_V6
    };
    let payload = mtu.map(|mtu| mtu.saturating_sub(headers).max(PAYLOAD_MIN));
    payload
        .and_then(|payload| u16::try_from(payload).ok())
        .map_or(UDP_PAYLOAD_LEN_MAX, |payload| {
            payload.min(UDP_PAYLOAD_LEN_MAX)
        })
}

/// The largest; `None` if there is none or one of them is unknown.
fn largest(mut mtus: impl Iterator<Item = Option<u32>>) -> Option<u32> {
    let first = mtus.next()??;
    mtus.try_fold(first, |largest, mtu| Some(largest.max(mtu?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(interfaces: &[(&str, u8, Option<u32>)]) -> Vec<LocalAddress> {
        let interfaces = interfaces.iter();
        let addresses = interfaces.map(|(ip, prefix_len, mtu)| LocalAddress {
            endpoint: (ip.parse::<IpAddr>().unwrap(), 5000).into(),
            prefix_len: *prefix_len,
            mtu: *mtu,
        });
        addresses.collect()
    }

    #[test]
    fn no_probe_is_larger_than_its_interface() {
        let local = host(&[
            ("127.0.0.1", 8, Some(65_536)),
            ("192.0.2.1", 24, Some(1500)),
            ("10.0.0.1", 8, Some(9000)),
            ("10.1.0.1", 16, Some(1400)),
            ("2001:db8::1", 64, Some(1500)),
        ]);
        for (remote, largest) in [
            ("127.0.0.1", UDP_PAYLOAD_LEN_MAX),
            ("127.3.0.1", UDP_PAYLOAD_LEN_MAX),
            ("::1", UDP_PAYLOAD_LEN_MAX),
            ("192.0.2.1", UDP_PAYLOAD_LEN_MAX),
            ("192.0.2.9", 1472),
            ("::ffff:192.0.2.9", 1472),
            ("10.2.0.9", 8972),
            ("10.1.0.9", 1372),
            ("203.0.113.5", 8972),
            ("2001:db8::9", 1452),
            ("2001:db8:1::9", 1452),
            ("fd4b:7c19:e2a6::9", 8972),
        ] {
            let found = payload_max(&local, remote.parse().unwrap());
            assert_eq!(found, largest, "{remote}");
        }
    }

    #[test]
    fn what_is_not_known_bounds_nothing_and_what_is_absurd_not_too_much() {
        let remote = "192.0.2.9".parse().unwrap();
        let some = host(&[("192.0.3.1", 24, Some(1500)), ("192.0.4.1", 24, None)]);
        let mine = host(&[("192.0.2.1", 24, None), ("192.0.3.1", 24, Some(1500))]);
        for local in [
            Vec::new(),
            some,
            mine,
            host(&[("2001:db8::1", 64, Some(1280))]),
        ] {
            assert_eq!(
                payload_max(&local, remote),
                UDP_PAYLOAD_LEN_MAX,
                "{local:?}"
            );
        }
        for (mtu, largest) in [(0, 1200), (576, 1200), (u32::MAX, UDP_PAYLOAD_LEN_MAX)] {
            let local = host(&[("192.0.2.1", 0, Some(mtu))]);
            assert_eq!(payload_max(&local, remote), largest, "{mtu}");
        }
    }
}
