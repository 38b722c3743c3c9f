//! A public network with homes of every kind, of network namespaces and nftables. Gone when dropped.
//!
//! The public segment is 198.51.100.0/24 and 2001:db8::/64, with the server at `::1` and `.1`. Each home has
//! 192.168.1.0/24 inside, like most: the same addresses as its neighbours.

use std::fmt::Write as _;
use std::io::Write as _;
use std::net::SocketAddr;
use std::process::{Command, Stdio};

use super::kind::Kind;

/// The server's port.
pub(crate) const SERVER_PORT: u16 = 7400;
/// UDP ports of hosts: NATs with static mappings have them for these.
const PORTS: &str = "7000-7999";
/// Those of the second host of two behind one NAT.
const SECOND_PORTS: &str = "7500-7999";

/// Namespaces, named after this process.
#[derive(Debug)]
pub(crate) struct Network {
    prefix: String,
    namespaces: Vec<String>,
    /// How many homes have an address in public.
    homes: usize,
}

/// Where a host is.
#[derive(Clone, Debug)]
pub(crate) struct Host {
    pub(crate) namespace: String,
    /// The server, in the address family that the host has.
    pub(crate) server: SocketAddr,
    /// The first of its UDP ports.
    pub(crate) port: u16,
}

impl Network {
    /// The public segment and the server's namespace.
    pub(crate) fn new() -> Self {
        let mut network = Self {
            prefix: format!("rdv{}", std::process::id()),
            namespaces: Vec::new(),
            homes: 0,
        };
        let public = network.add_namespace("pub");
        ip(&format!("-n {public} link add br0 type bridge"));
        set_up(&public, "br0", &["198.51.100.254/24", "2001:db8::fe/64"]);
        sysctl(&public, "ipv6/conf/all/forwarding");
        let server = network.add_namespace("srv");
        network.plug(&server, "eth0", &["198.51.100.1/24", "2001:db8::1/64"]);
        ip(&format!(
            "-n {server} -6 route add default via 2001:db8::fe"
        ));
        network
    }

    /// The server's namespace.
    pub(crate) fn server(&self) -> String {
        self.name("srv")
    }

    /// Makes a home of a kind.
    pub(crate) fn add_home(&mut self, kind: Kind) -> Host {
        let number = self.homes + 1;
        match kind {
            Kind::Open => {
                let host = self.add_host(number, 'a', "198.51.100.1");
                self.connect_home(&host.namespace, "eth0");
                host
            }
            Kind::FullCone | Kind::AddressRestricted | Kind::PortRestricted | Kind::Symmetric => {
                let nat = self.add_nat(number, &nat_rules(kind));
                self.add_lan_host(&nat, number, 'a', "192.168.1")
            }
            Kind::Double => {
                let outer = self.add_nat(number, &nat_rules(Kind::PortRestricted));
                let inner = self.add_namespace(&format!("inner{number}"));
                cable(&outer, "lan", &inner, "wan");
                set_up(&outer, "lan", &["100.64.0.1/10"]);
                set_up(&inner, "wan", &["100.64.0.2/10"]);
                ip(&format!("-n {inner} route add default via 100.64.0.1"));
                sysctl(&inner, "ipv4/ip_forward");
                nft(&inner, &nat_rules(Kind::PortRestricted));
                self.add_lan_host(&inner, number, 'a', "192.168.1")
            }
            Kind::Ipv6 => self.add_ipv6_home(number),
            Kind::UdpBlocked => {
                let mut rules = nat_rules(Kind::PortRestricted);
                rules += "add rule ip n forw udp dport != 53 drop\n";
                let nat = self.add_nat(number, &rules);
                self.add_lan_host(&nat, number, 'a', "192.168.1")
            }
        }
    }

    /// Makes a home with two hosts on one LAN behind a port-restricted NAT.
    pub(crate) fn add_shared_lan(&mut self) -> [Host; 2] {
        let number = self.homes + 1;
        let nat = self.add_nat(number, &nat_rules(Kind::PortRestricted));
        ip(&format!("-n {nat} link add lan type bridge"));
        set_up(&nat, "lan", &["192.168.1.1/24"]);
        [('a', 2), ('b', 3)].map(|(letter, last)| {
            let host = self.add_host(number, letter, "198.51.100.1");
            let port = format!("lan-{letter}");
            cable(&nat, &port, &host.namespace, "eth0");
            ip(&format!("-n {nat} link set {port} master lan up"));
            set_up(&host.namespace, "eth0", &[&format!("192.168.1.{last}/24")]);
            let namespace = &host.namespace;
            ip(&format!("-n {namespace} route add default via 192.168.1.1"));
            host
        })
    }

    /// Makes two LANs behind one NAT, which lets nothing through straight from one to the other.
    pub(crate) fn add_two_lans(&mut self, hairpins: bool) -> [Host; 2] {
        let number = self.homes + 1;
        let nat = self.add_nat(number, &two_lans_rules(&self.public_address(), hairpins));
        let lans = [('a', "192.168.1"), ('b', "192.168.2")];
        let mut hosts = lans.map(|(letter, net)| self.add_lan_host(&nat, number, letter, net));
        hosts[1].port = 7500;
        hosts
    }

    // ---- parts -------------------------------------------------------------------------------------

    fn add_ipv6_home(&mut self, number: usize) -> Host {
        let router = self.add_namespace(&format!("nat{number}"));
        let outside = format!("2001:db8::{:x}", number + 0x10);
        let inside = format!("2001:db8:{number:x}:");
        self.plug(&router, "wan", &[&format!("{outside}/64")]);
        self.homes += 1;
        ip(&format!(
            "-n {router} -6 route add default via 2001:db8::fe"
        ));
        let public = self.name("pub");
        ip(&format!(
            "-n {public} -6 route add {inside}:/64 via {outside}"
        ));
        sysctl(&router, "ipv6/conf/all/forwarding");
        nft(&router, IPV6_FIREWALL);
        let host = self.add_host(number, 'a', "[2001:db8::1]");
        cable(&router, "lan", &host.namespace, "eth0");
        set_up(&router, "lan", &[&format!("{inside}:1/64")]);
        set_up(&host.namespace, "eth0", &[&format!("{inside}:2/64")]);
        let namespace = &host.namespace;
        ip(&format!(
            "-n {namespace} -6 route add default via {inside}:1"
        ));
        host
    }

    /// A NAT with its address in public and its rules, and nobody behind it.
    fn add_nat(&mut self, number: usize, rules: &str) -> String {
        let nat = self.add_namespace(&format!("nat{number}"));
        self.connect_home(&nat, "wan");
        sysctl(&nat, "ipv4/ip_forward");
        nft(&nat, rules);
        nat
    }

    /// A host on a LAN of its own, whose interface at the NAT is called `lan` and its letter, but for the
    /// first.
    fn add_lan_host(&mut self, nat: &str, number: usize, letter: char, net: &str) -> Host {
        let host = self.add_host(number, letter, "198.51.100.1");
        let namespace = &host.namespace;
        let port = if letter == 'a' { "lan" } else { "lan-b" };
        cable(nat, port, namespace, "eth0");
        set_up(nat, port, &[&format!("{net}.1/24")]);
        set_up(namespace, "eth0", &[&format!("{net}.2/24")]);
        ip(&format!("-n {namespace} route add default via {net}.1"));
        host
    }

    fn add_host(&mut self, number: usize, letter: char, server: &str) -> Host {
        let server = format!("{server}:{SERVER_PORT}");
        Host {
            namespace: self.add_namespace(&format!("h{number}{letter}")),
            server: server.parse().expect("it is an address with a port"),
            port: 7000,
        }
    }

    /// Gives a namespace the next IPv4 address in public.
    fn connect_home(&mut self, namespace: &str, interface: &str) {
        let address = self.public_address();
        self.plug(namespace, interface, &[&format!("{address}/24")]);
        ip(&format!(
            "-n {namespace} route add default via 198.51.100.254"
        ));
        self.homes += 1;
    }

    /// The next IPv4 address in public.
    fn public_address(&self) -> String {
        format!("198.51.100.{}", self.homes + 10)
    }

    /// Connects a namespace with the public segment.
    fn plug(&self, namespace: &str, interface: &str, addresses: &[&str]) {
        let public = self.name("pub");
        let port = format!("port{}", self.namespaces.len());
        cable(&public, &port, namespace, interface);
        ip(&format!("-n {public} link set {port} master br0 up"));
        set_up(namespace, interface, addresses);
    }

    fn add_namespace(&mut self, suffix: &str) -> String {
        let name = self.name(suffix);
        self.namespaces.push(name.clone());
        ip(&format!("netns add {name}"));
        ip(&format!("-n {name} link set lo up"));
        name
    }

    fn name(&self, suffix: &str) -> String {
        format!("{}-{suffix}", self.prefix)
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for name in &self.namespaces {
            // What was never made cannot be removed.
            let _ = Command::new("ip").args(["netns", "delete", name]).output();
        }
    }
}

/// The command, run in a namespace. Its process is that of the command.
pub(crate) fn within(namespace: &str, command: &Command) -> Command {
    let mut wrapped = Command::new("nsenter");
    wrapped.arg(format!("--net=/run/netns/{namespace}"));
    wrapped.arg(command.get_program()).args(command.get_args());
    if let Some(folder) = command.get_current_dir() {
        wrapped.current_dir(folder);
    }
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => wrapped.env(name, value),
            None => wrapped.env_remove(name),
        };
    }
    wrapped
}

// ---- rules -----------------------------------------------------------------------------------------

/// The rules of a NAT between the interfaces `lan` and `wan`.
///
/// Linux keeps the port where it can, and lets in what belongs to a connection that it tracks: that is a
/// port-restricted NAT. But it also tracks packets to itself, and a host that then sends to where one came
/// from would get another port; so those are dropped first.
fn nat_rules(kind: Kind) -> String {
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
fn two_lans_rules(public: &str, hairpins: bool) -> String {
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

const IPV6_FIREWALL: &str = "table ip6 n {
    chain forw {
        type filter hook forward priority 0; policy drop;
        iifname lan accept; ct state established,related accept;
    }
}\n";

// ---- tools -----------------------------------------------------------------------------------------

/// A pair of interfaces that are connected, one in each namespace.
#[track_caller]
fn cable(a: &str, name_a: &str, b: &str, name_b: &str) {
    ip(&format!(
        "link add {name_a} netns {a} type veth peer name {name_b} netns {b}"
    ));
}

/// Gives an interface its addresses, and switches it on.
#[track_caller]
fn set_up(namespace: &str, interface: &str, addresses: &[&str]) {
    ip(&format!("-n {namespace} link set {interface} up"));
    for address in addresses {
        // An address of IPv6 is good only once nobody else is found to have it, but for these.
        let at_once = if address.contains(':') { " nodad" } else { "" };
        ip(&format!(
            "-n {namespace} address add {address} dev {interface}{at_once}"
        ));
    }
}

/// Switches a setting on that is called like this below `/proc/sys/net`.
#[track_caller]
fn sysctl(namespace: &str, name: &str) {
    let mut command = Command::new("sh");
    command.args(["-c", &format!("echo 1 > /proc/sys/net/{name}")]);
    tool(&mut within(namespace, &command), "");
}

#[track_caller]
fn nft(namespace: &str, rules: &str) {
    let mut command = Command::new("nft");
    command.args(["-f", "-"]);
    tool(&mut within(namespace, &command), rules);
}

#[track_caller]
fn ip(arguments: &str) {
    tool(Command::new("ip").args(arguments.split(' ')), "");
}

/// Runs a tool, which must succeed.
#[track_caller]
fn tool(command: &mut Command, input: &str) {
    let pipes = command.stdin(Stdio::piped()).stderr(Stdio::piped());
    let child = pipes.stdout(Stdio::null()).spawn();
    let mut child = child.unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let mut stdin = child.stdin.take().expect("it was asked to be piped");
    // A tool that does not read all of it says why when it fails.
    let _ = stdin.write_all(input.as_bytes());
    drop(stdin);
    let output = child.wait_with_output().expect("the tool ends");
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {complaint}\n{input}");
}
