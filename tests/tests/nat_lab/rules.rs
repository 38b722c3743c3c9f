//! The rules of nftables that make a namespace a NAT of some kind.

use std::fmt::Write;

use super::kind::Kind;
use super::mappings::{CHAINS, Protocol};

/// UDP ports of hosts: NATs with static mappings have them for these.
const PORTS: &str = "7000-7999";
/// Those of the second host of two behind one NAT.
const SECOND_PORTS: &str = "7500-7999";

/// The rules of a NAT between the interfaces `lan` and `wan`.
///
/// Linux keeps the port where it can, and lets in what belongs to a connection that it tracks: that is a
/// port-restricted NAT. But it also tracks packets to itself, and a host that then sends to where one came
/// from would get another port; so those are dropped first.
pub(crate) fn nat_rules(kind: Kind) -> String {
    let masquerade = match kind {
        Kind::Symmetric => "masquerade random,fully-random",
        Kind::Open
        | Kind::FullCone
        | Kind::AddressRestricted
        | Kind::PortRestricted
        | Kind::Double
        | Kind::Ipv6
        | Kind::UdpBlocked => "masquerade",
    };
    let (note, let_in) = match kind {
        Kind::FullCone => (
            String::new(),
            format!("iifname wan udp dport {PORTS} dnat to 192.168.1.2"),
        ),
        Kind::AddressRestricted => (
            format!("iifname lan udp sport {PORTS} update @sent {{ udp sport . ip daddr }}"),
            "iifname wan udp dport . ip saddr @sent dnat to 192.168.1.2".to_owned(),
        ),
        Kind::Open
        | Kind::PortRestricted
        | Kind::Symmetric
        | Kind::Double
        | Kind::Ipv6
        | Kind::UdpBlocked => (String::new(), String::new()),
    };
    format!(
        "table ip n {{
            set sent {{ type inet_service . ipv4_addr; flags dynamic,timeout; timeout 2m; size 65535; }}
            chain pre {{ type nat hook prerouting priority -100; {let_in}; }}
            chain post {{ type nat hook postrouting priority 100; oifname wan {masquerade}; }}
            chain forw {{
                type filter hook forward priority 0; policy drop;
                {note};
                iifname lan accept; ct state established,related accept; ct status dnat accept;
            }}
            chain inp {{ type filter hook input priority 0; iifname wan ct state new drop; }}
        }}\n"
    )
}

/// The rules of a NAT at `public` between `lan` and `lan-b` inside and `wan`. One that hairpins maps the
/// ports of its two hosts for everybody, inside and outside.
pub(crate) fn two_lans_rules(public: &str, hairpins: bool) -> String {
    let mut rules = String::from(
        "table ip n {
            chain pre { type nat hook prerouting priority -100; }
            chain post { type nat hook postrouting priority 100; oifname wan masquerade; }
            chain forw {
                type filter hook forward priority 0; policy drop;
                oifname wan accept; ct state established,related accept; ct status dnat accept;
            }
            chain inp { type filter hook input priority 0; ct state new drop; }
        }\n",
    );
    if hairpins {
        for (ports, host) in [(SECOND_PORTS, "192.168.2.2"), (PORTS, "192.168.1.2")] {
            let rule = format!("ip daddr {public} udp dport {ports} dnat to {host}");
            writeln!(rules, "add rule ip n pre {rule}").expect("a string takes all");
        }
        let inside = r#"ct status dnat iifname "lan*" oifname "lan*""#;
        writeln!(rules, "add rule ip n post {inside} snat to {public}")
            .expect("a string takes all");
    }
    rules
}

/// Goes behind the rules of a NAT whose router has a daemon that gives ports: the chains that the daemon fills, and
/// nothing for those who ask by another protocol. What is mapped is let in as with a static mapping.
pub(crate) fn mapping_rules(protocol: Protocol) -> String {
    // PCP and NAT-PMP have one port, and differ in the first byte of a datagram, its version. A host is told where
    // nobody listens, or hears nothing at all, as it is with real routers.
    let silent = match protocol {
        Protocol::Pcp => "udp dport 1900 drop;",
        Protocol::NatPmp => "udp dport 5351 @th,64,8 2 drop; udp dport 1900 drop;",
        Protocol::Upnp => "udp dport 5351 reject;",
    };
    let [table, forward, prerouting, postrouting] = CHAINS;
    format!(
        "table inet {table} {{
            chain {forward} {{ }}
            chain {prerouting} {{ }}
            chain {postrouting} {{ }}
            chain forw {{ type filter hook forward priority -1; jump {forward}; }}
            chain pre {{ type nat hook prerouting priority -101; jump {prerouting}; }}
            chain post {{ type nat hook postrouting priority 99; jump {postrouting}; }}
            chain inp {{ type filter hook input priority -1; {silent} }}
        }}\n"
    )
}

/// What a home with IPv6 lets in: nothing that nobody there asked for.
pub(crate) const IPV6_FIREWALL: &str = "table ip6 n {
    chain forw {
        type filter hook forward priority 0; policy drop;
        iifname lan accept; ct state established,related accept;
    }
}\n";

/// Goes behind the rules of a NAT that lets no UDP out.
pub(crate) const NO_UDP: &str = "insert rule ip n forw meta l4proto udp drop\n";
