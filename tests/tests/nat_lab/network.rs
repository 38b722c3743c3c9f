//! A public network with homes of every kind, of network namespaces and nftables. Gone when dropped.
//!
//! The public segment is 198.51.100.0/24 and 2001:db8::/64, with the server at `.1` and `::1`, and at `.2`
//! and `::2` for those who want to know what a NAT does. Each home has
//! 192.168.1.0/24 inside, like most: the same addresses as its neighbours.

use std::fs::File;
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tests::program::surround;

use super::kind::Kind;
use super::mappings::Protocol;
use super::rules::{IPV6_FIREWALL, NO_UDP, mapping_rules, nat_rules, two_lans_rules};

/// The server's port.
pub(crate) const SERVER_PORT: u16 = 7400;
/// The first three bytes of the public addresses of routers that give ports. Nobody in the lab has a real one of
/// these.
const MAPPING_NET: &str = "11.0.0";

/// Namespaces, named after this process.
#[derive(Debug)]
pub(crate) struct Network {
    prefix: String,
    namespaces: Vec<String>,
    /// How many homes have an address in public.
    homes: usize,
    /// Whether there is a way between the server and homes whose routers give ports.
    routes_mapping_net: bool,
}

/// A home whose router gives ports to those who ask.
#[derive(Debug)]
pub(crate) struct MappingHome {
    pub(crate) host: Host,
    /// The router's namespace.
    pub(crate) nat: String,
    /// The router's address in public.
    pub(crate) outside: Ipv4Addr,
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
            routes_mapping_net: false,
        };
        let public = network.add_namespace("pub");
        add_bridge(&public, "br0");
        set_up(&public, "br0", &["198.51.100.254/24", "2001:db8::fe/64"]);
        sysctl(&public, "ipv6/conf/all/forwarding");
        let server = network.add_namespace("srv");
        let addresses = ["198.51.100.1/24", "198.51.100.2/24"];
        network.plug(&server, "eth0", &addresses);
        set_up(&server, "eth0", &["2001:db8::1/64", "2001:db8::2/64"]);
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
                rules += NO_UDP;
                let nat = self.add_nat(number, &rules);
                self.add_lan_host(&nat, number, 'a', "192.168.1")
            }
        }
    }

    /// Makes a home with two hosts on one LAN behind a port-restricted NAT.
    pub(crate) fn add_shared_lan(&mut self) -> [Host; 2] {
        let number = self.homes + 1;
        let nat = self.add_nat(number, &nat_rules(Kind::PortRestricted));
        add_bridge(&nat, "lan");
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

    /// Makes a home behind a symmetric NAT whose router gives ports to those who ask by this protocol, and to nobody
    /// else.
    ///
    /// The router's address outside is not of the ranges for documentation: the daemon takes those for
    /// private ones.
    pub(crate) fn add_mapping_home(&mut self, protocol: Protocol) -> MappingHome {
        let number = self.homes + 1;
        let nat = self.add_namespace(&format!("nat{number}"));
        let public = self.name("pub");
        let outside = format!("{MAPPING_NET}.{}", number + 9);
        self.plug(&nat, "wan", &[&format!("{outside}/24")]);
        self.homes += 1;
        let way_back = format!("{MAPPING_NET}.254");
        if !self.routes_mapping_net {
            self.routes_mapping_net = true;
            set_up(&public, "br0", &[&format!("{way_back}/24")]);
            sysctl(&public, "ipv4/ip_forward");
            let server = self.server();
            ip(&format!("-n {server} route add default via 198.51.100.254"));
        }
        ip(&format!("-n {nat} route add default via {way_back}"));
        sysctl(&nat, "ipv4/ip_forward");
        nft(&nat, &nat_rules(Kind::Symmetric));
        nft(&nat, &mapping_rules(protocol));
        let host = self.add_lan_host(&nat, number, 'a', "192.168.1");
        MappingHome {
            host,
            nat,
            outside: outside.parse().expect("it is an address"),
        }
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

    // ---- what happens later ------------------------------------------------------------------------

    /// Bounds what a host sends, in the words of tc(8), with a queue of 50 ms.
    pub(crate) fn limit_rate(&self, host: &Host, rate: &str) {
        limit_rate(&host.namespace, "eth0", rate);
    }

    /// Has a host's NAT forward its first UDP port, as its owner would have set it up. Returns the public endpoint.
    pub(crate) fn forward(&self, host: &Host) -> SocketAddr {
        let port = host.port;
        nft(
            &self.nat(host),
            &format!("add rule ip n pre iifname wan udp dport {port} dnat to 192.168.1.2\n"),
        );
        let outside = self.outside(host).parse().expect("it is an address");
        SocketAddr::new(outside, port)
    }

    /// Lets nothing pass any more between two homes that have NATs, but what goes through the server.
    pub(crate) fn separate(&self, one: &Host, other: &Host) {
        let other = self.outside(other);
        nft(
            &self.nat(one),
            &format!(
                "table ip cut {{
                chain out {{ type filter hook forward priority -10; ip daddr {other} drop; }}
                chain in {{ type filter hook prerouting priority -400; ip saddr {other} drop; }}
            }}\n"
            ),
        );
    }

    /// Ends that.
    pub(crate) fn reunite(&self, one: &Host) {
        nft(&self.nat(one), "delete table ip cut\n");
    }

    /// Gives a host another way out, behind another NAT, that is not used yet.
    pub(crate) fn add_second_way(&mut self, host: &Host, rate: &str) -> SecondWay {
        let number = self.homes + 1;
        let nat = self.add_nat(number, &nat_rules(Kind::PortRestricted));
        cable(&nat, "lan", &host.namespace, "eth1");
        set_up(&nat, "lan", &["192.168.1.1/24"]);
        limit_rate(&host.namespace, "eth1", rate);
        SecondWay {
            namespace: host.namespace.clone(),
        }
    }

    /// The namespace of a host's NAT.
    fn nat(&self, host: &Host) -> String {
        let number = host.namespace.trim_start_matches(&self.name("h"));
        self.name(&format!("nat{}", number.trim_end_matches('a')))
    }

    /// A host's address in public.
    fn outside(&self, host: &Host) -> String {
        let nat = self.nat(host);
        let number = nat.trim_start_matches(&self.name("nat"));
        let number: usize = number.parse().expect("a NAT has a number");
        format!("198.51.100.{}", number + 9)
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

    /// A host on a LAN of its own, whose interface at the NAT is `lan`, or `lan` and a letter for further ones.
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

/// Another way out of a host.
#[derive(Debug)]
pub(crate) struct SecondWay {
    namespace: String,
}

impl SecondWay {
    /// Leaves the first way for this one, as from a cable to a radio network: the host has another address, and
    /// no way back.
    pub(crate) fn switch_over(&self) {
        let Self { namespace } = self;
        ip(&format!("-n {namespace} link set eth0 down"));
        set_up(namespace, "eth1", &["192.168.1.77/24"]);
        ip(&format!("-n {namespace} route add default via 192.168.1.1"));
    }
}

/// A UDP socket in a namespace.
#[track_caller]
pub(crate) fn socket(namespace: &str, address: SocketAddr) -> UdpSocket {
    let path = path(namespace);
    // A socket stays in the namespace that its thread was in when it was made.
    let made = thread::spawn(move || {
        let namespace = File::open(path)?;
        move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
        UdpSocket::bind(address)
    });
    let made = made.join().expect("nothing here panics");
    made.unwrap_or_else(|error| panic!("no socket at {address}: {error}"))
}

/// The command, run in a namespace. Its process is that of the command.
pub(crate) fn within(namespace: &str, command: &Command) -> Command {
    let mut wrapped = Command::new("nsenter");
    wrapped.arg(format!("--net={}", path(namespace).display()));
    wrapped.arg(command.get_program()).args(command.get_args());
    surround(&mut wrapped, command);
    wrapped
}

fn path(namespace: &str) -> PathBuf {
    PathBuf::from("/run/netns").join(namespace)
}

// ---- tools -----------------------------------------------------------------------------------------

/// A bridge with an address of its own: else it has that of one of its ports, and another one as more are
/// added, so that nobody reaches it for a while.
#[track_caller]
fn add_bridge(namespace: &str, name: &str) {
    ip(&format!(
        "-n {namespace} link add {name} address 02:00:00:00:00:01 type bridge"
    ));
}

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

/// Bounds what goes out of an interface.
#[track_caller]
fn limit_rate(namespace: &str, interface: &str, rate: &str) {
    let mut command = Command::new("tc");
    let arguments = format!(
        "-n {namespace} qdisc add dev {interface} root tbf rate {rate} burst 256k latency 50ms"
    );
    tool(command.args(arguments.split(' ')), "");
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
