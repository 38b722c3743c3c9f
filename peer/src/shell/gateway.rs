//! The default gateway of IPv4.
//!
//! Linux tells it in `/proc/net/route` (proc_pid_net(5)), of the network namespace of this process. Elsewhere none is
//! known, so that no port is mapped there.

use std::fs::File;
use std::io::Read;
use std::net::Ipv4Addr;

/// Bytes of the table that are read. The default routes are its first lines, and a router of the backbone has a
/// million.
const TABLE_LEN_MAX: u64 = 64 * 1024;
/// The route is usable, and leads over a gateway (`RTF_UP` and `RTF_GATEWAY` of `linux/route.h`).
const FLAGS: u32 = 0x1 | 0x2;

/// The gateway of the default route with the best metric, if there is any.
pub(super) fn default_gateway() -> Option<Ipv4Addr> {
    let file = File::open("/proc/net/route").ok()?;
    let mut table = Vec::new();
    file.take(TABLE_LEN_MAX).read_to_end(&mut table).ok()?;
    best(&String::from_utf8_lossy(&table))
}

fn best(table: &str) -> Option<Ipv4Addr> {
    let routes = table.lines().skip(1).filter_map(default_route);
    routes
        .min_by_key(|(metric, _)| *metric)
        .map(|(_, gateway)| gateway)
}

/// Reads a line: interface, destination, gateway, flags, two unused, metric, mask. Addresses are in hexadecimal, with
/// the bytes in the order of this machine.
fn default_route(line: &str) -> Option<(u32, Ipv4Addr)> {
    let mut fields = line.split_ascii_whitespace().skip(1);
    let mut number = |radix| u32::from_str_radix(fields.next()?, radix).ok();
    let (destination, gateway, flags) = (number(16)?, number(16)?, number(16)?);
    let (_, _, metric, mask) = (number(10)?, number(10)?, number(10)?, number(16)?);
    let is_default = destination == 0 && mask == 0 && flags & FLAGS == FLAGS;
    let gateway = Ipv4Addr::from(gateway.to_ne_bytes());
    (is_default && !gateway.is_unspecified()).then_some((metric, gateway))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str =
        "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n";

    fn hexadecimal(ip: [u8; 4]) -> String {
        format!("{:08X}", u32::from_ne_bytes(ip))
    }

    #[test]
    fn the_default_route_with_the_best_metric_counts() {
        let radio = hexadecimal([192, 168, 7, 1]);
        let cable = hexadecimal([192, 168, 1, 1]);
        let net = hexadecimal([10, 0, 0, 0]);
        let mask = hexadecimal([255, 0, 0, 0]);
        let table = format!(
            "{HEAD}wlan0\t00000000\t{radio}\t0003\t0\t0\t600\t00000000\t0\t0\t0\n\
             eth0\t00000000\t{cable}\t0003\t0\t0\t100\t00000000\t0\t0\t0\n\
             tun0\t00000000\t00000000\t0001\t0\t0\t0\t00000000\t0\t0\t0\n\
             eth1\t{net}\t{radio}\t0003\t0\t0\t0\t{mask}\t0\t0\t0\n"
        );
        assert_eq!(best(&table), Some([192, 168, 1, 1].into()));
    }

    #[test]
    fn whatever_stands_there_else_is_no_gateway() {
        for table in [
            "",
            HEAD,
            "x\ny\n",
            "h\neth0\t00000000",
            "h\ne 0 zz 3 0 0 0 0\n",
        ] {
            assert_eq!(best(table), None, "{table:?}");
        }
    }
}
