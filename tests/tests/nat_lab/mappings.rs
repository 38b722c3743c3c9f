//! Routers that give ports: two homes that have no direct path have one as soon as the router of either forwards a
//! port, by whichever protocol it was asked. The routers run miniupnpd, the daemon of most real ones.

use std::fs;
use std::net::SocketAddr;
use std::path::Path as File;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tests::program::now;
use tests::world::PATIENCE;

use super::DIRECT_WITHIN;
use super::kind::Kind;
use super::network::{MappingHome, Network, within};
use super::people::{Path, Person, Service};

/// The daemon's table, and its chains for what is forwarded, for where that goes, and for what it comes from.
pub(crate) const CHAINS: [&str; 4] = ["miniupnpd", "forw_upnp", "pre_upnp", "post_upnp"];

/// The program of the daemon.
const DAEMON: &str = "miniupnpd";
/// Its UDP ports, as the kernel shows them: those of SSDP, and of PCP and NAT-PMP.
const DAEMON_PORTS: [&str; 2] = [":076C ", ":14E7 "];
/// A port is there within this time: a gateway with UPnP alone is asked for 13 s by the other protocols first.
const MAPPED_WITHIN: Duration = Duration::from_secs(40);
/// A router begins anew this long after it has mapped a port. Its epoch counts seconds and is compared with two
/// seconds of slack (RFC 6887 section 8.5): if it begins anew sooner, nobody can tell.
const RESTART_AFTER: Duration = Duration::from_secs(5);
/// A port is there again within this time after its router has begun anew: all hosts ask within 5 s.
const RESTORED_WITHIN: Duration = Duration::from_secs(10);
/// Between two looks at what something says.
const PAUSE: Duration = Duration::from_millis(100);

/// How a router is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    Pcp,
    NatPmp,
    Upnp,
}

impl Protocol {
    const ALL: [Self; 3] = [Self::Pcp, Self::NatPmp, Self::Upnp];

    /// As `peer status` says it.
    const fn name(self) -> &'static str {
        match self {
            Self::Pcp => "pcp",
            Self::NatPmp => "nat-pmp",
            Self::Upnp => "upnp",
        }
    }
}

/// Tells whether the daemon is there.
pub(crate) fn has_daemon() -> bool {
    let mut command = Command::new(DAEMON);
    command.arg("--version").stdin(Stdio::null());
    command.output().is_ok()
}

/// Fails unless each protocol makes a direct path, and leaves nothing at the router.
pub(crate) fn check() {
    let mut network = Network::new();
    let alice = network.add_home(Kind::Symmetric);
    let homes = Protocol::ALL.map(|protocol| (protocol, network.add_mapping_home(protocol)));
    let (service, _server) = Service::start(&network.server());
    let start = |(protocol, home): &(Protocol, MappingHome)| {
        (*protocol, Daemon::start(home, *protocol, service.folder()))
    };
    let mut daemons = Vec::from(homes.each_ref().map(start));
    let alice = Person::new("alice".to_owned(), &alice, 0);
    service.register(&alice);
    let bobs = homes.each_ref().map(|(protocol, home)| {
        let name = format!("bob-{}", protocol.name());
        let bob = Person::new(name, &home.host, 0).with_mapping();
        service.register(&bob);
        let receiver = service.receive(&bob);
        (*protocol, home, bob, receiver)
    });
    for (protocol, home, bob, receiver) in bobs {
        let external = wait_mapped(&service, &bob, protocol, home);
        assert!(home.has_port(external), "{protocol:?}");
        // The router begins anew.
        let by = now() + RESTART_AFTER;
        while now() < by {
            pause(by + PATIENCE, || "time stands still".to_owned());
        }
        daemons.retain(|(other, _)| *other != protocol);
        home.forget_ports();
        daemons.push((protocol, Daemon::start(home, protocol, service.folder())));
        if protocol != Protocol::Upnp {
            // It says so. By UPnP it would not, and the doctor has it asked.
            home.wait_port(external, protocol);
        }
        let found = service.doctor(&bob, None);
        home.wait_port(external, protocol);
        assert_eq!(found["port_mapping"]["state"], "mapped", "{found}");
        let [verdict, carrier] = ["verdict", "carrier_nat"].map(|name| found[name].clone());
        assert_eq!((verdict, carrier), ("most".into(), "no".into()), "{found}");
        let chat = service.chat(&alice, &bob);
        let delivered = chat.wait_delivered();
        let search = chat.wait_direct(DIRECT_WITHIN);
        assert!(search.is_some(), "{protocol:?}: no direct path");
        let path = service.path(&alice, &bob);
        assert_eq!(path, Path::Direct(external), "{protocol:?}");
        println!(
            "{}: {external}, first message {} ms, direct after {} ms",
            protocol.name(),
            delivered.as_millis(),
            search.unwrap_or_default().as_millis()
        );
        chat.end();
        receiver.end(Service::END).expect("the receiver ends");
        assert!(
            !home.has_port(external),
            "{protocol:?}: it is not given back"
        );
    }
}

/// Waits until somebody's device says that it has a port. Returns the endpoint.
#[track_caller]
fn wait_mapped(
    service: &Service,
    person: &Person,
    protocol: Protocol,
    home: &MappingHome,
) -> SocketAddr {
    let by = now() + MAPPED_WITHIN;
    loop {
        let status = service.status(person);
        let state = &status["port_mapping"];
        if state["state"] == "mapped" && state["is_announced"] == true {
            let mapping = &state["mapping"];
            assert_eq!(mapping["protocol"], protocol.name());
            assert_eq!(mapping["gateway"], "192.168.1.1");
            let external = mapping["external"].as_str().and_then(|it| it.parse().ok());
            let external: SocketAddr = external.expect("it is an address with a port");
            assert_eq!(external.ip(), home.outside);
            let endpoints = status["endpoints"].as_array().expect("they are listed");
            assert!(endpoints.contains(&mapping["external"]), "{endpoints:?}");
            return external;
        }
        pause(by, || format!("{protocol:?}: {state}"));
    }
}

impl MappingHome {
    /// Tells whether the router forwards this port of its own.
    fn has_port(&self, external: SocketAddr) -> bool {
        let mut command = Command::new("nft");
        command.args(["list", "chain", "inet", CHAINS[0], CHAINS[2]]);
        let output = within(&self.nat, &command).output().expect("nft is there");
        assert!(output.status.success(), "{output:?}");
        let rules = String::from_utf8_lossy(&output.stdout).into_owned();
        rules.contains(&format!("dport {} ", external.port()))
    }

    /// Waits until the router forwards a port again.
    #[track_caller]
    fn wait_port(&self, external: SocketAddr, protocol: Protocol) {
        let by = now() + RESTORED_WITHIN;
        while !self.has_port(external) {
            pause(by, || {
                format!("{protocol:?}: its port is not asked for again")
            });
        }
    }

    /// Has the router forward nothing any more.
    fn forget_ports(&self) {
        let mut command = Command::new("nft");
        command.args(["flush", "chain", "inet", CHAINS[0], CHAINS[2]]);
        let status = within(&self.nat, &command).status();
        assert!(status.is_ok_and(|status| status.success()));
    }

    fn listens(&self) -> bool {
        let mut command = Command::new("cat");
        command.arg("/proc/net/udp");
        let output = within(&self.nat, &command).output().expect("cat is there");
        let sockets = String::from_utf8_lossy(&output.stdout).into_owned();
        DAEMON_PORTS.iter().all(|port| sockets.contains(port))
    }
}

/// A router's daemon. It ends when this is dropped.
#[derive(Debug)]
struct Daemon(Child);

impl Daemon {
    #[track_caller]
    fn start(home: &MappingHome, protocol: Protocol, folder: &File) -> Self {
        let [table, forward, prerouting, postrouting] = CHAINS;
        let name = protocol.name();
        let settings = format!(
            "ext_ifname=wan
listening_ip=lan
http_port=0
enable_natpmp=yes
enable_upnp=yes
secure_mode=yes
min_lifetime=120
max_lifetime=86400
upnp_table_name={table}
upnp_nat_table_name={table}
upnp_forward_chain={forward}
upnp_nat_chain={prerouting}
upnp_nat_postrouting_chain={postrouting}
uuid=00000000-0000-0000-0000-000000000001
allow 1024-65535 192.168.1.0/24 1024-65535
deny 0-65535 0.0.0.0/0 0-65535
"
        );
        let path = folder.join(format!("{name}.conf"));
        fs::write(&path, settings).expect("the folder takes a file");
        let log = fs::File::create(folder.join(format!("{name}.log")));
        let log = log.expect("the folder takes a file");
        let mut command = Command::new(DAEMON);
        command.arg("-d").arg("-f").arg(&path);
        command.arg("-P").arg(folder.join(format!("{name}.pid")));
        let mut command = within(&home.nat, &command);
        let output = log.try_clone().expect("there are descriptors left");
        command.stdin(Stdio::null()).stdout(output).stderr(log);
        let daemon = Self(command.spawn().expect("the daemon is there"));
        let by = now() + PATIENCE;
        while !home.listens() {
            pause(by, || {
                let log = fs::read_to_string(folder.join(format!("{name}.log")));
                format!("the daemon does not listen: {}", log.unwrap_or_default())
            });
        }
        daemon
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Waits a little, and fails once it is too late.
#[track_caller]
fn pause(by: Instant, why: impl FnOnce() -> String) {
    assert!(now() < by, "{}", why());
    #[expect(clippy::disallowed_methods, reason = "what is waited for tells nobody")]
    std::thread::sleep(PAUSE);
}
