//! Looks at what a home's NAT does, with plain sockets, as RFC 5780 does.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

use tests::sim::net::Dependence;

use super::network::{Host, socket};

/// A datagram that does not come within this time does not come. All of it is one machine's memory.
const PATIENCE: Duration = Duration::from_millis(200);
/// The second port at the server's address, and at the other one.
const PORTS: [u16; 2] = [9000, 9001];

/// What the mappings and the filter of a host's NAT look at; `None` if nothing gets out.
pub(crate) fn observe(server: &str, host: &Host) -> Option<(Dependence, Dependence)> {
    let first = host.server.ip();
    let second = match first {
        IpAddr::V4(_) => "198.51.100.2".parse(),
        IpAddr::V6(_) => "2001:db8::2".parse(),
    };
    let second = second.expect("it is an address");
    let [port, other_port] = PORTS;
    let endpoints = [(first, port), (first, other_port), (second, port)];
    let servers = endpoints.map(|endpoint| socket(server, endpoint.into()));
    Some((mapping(&servers, host)?, filter(&servers, host)?))
}

fn mapping(servers: &[UdpSocket; 3], host: &Host) -> Option<Dependence> {
    let socket = host_socket(host, 498);
    let [near, same_address, other] = servers.each_ref().map(|server| seen_by(server, &socket));
    let (near, same_address, other) = (near?, same_address?, other?);
    Some(depends(near == same_address, near == other))
}

fn filter(servers: &[UdpSocket; 3], host: &Host) -> Option<Dependence> {
    let socket = host_socket(host, 499);
    let outside = seen_by(&servers[0], &socket)?;
    let [near, same_address, other] = servers.each_ref().map(|server| {
        // What cannot be sent does not arrive.
        let _ = server.send_to(b"unasked", outside);
        received(&socket).is_some()
    });
    near.then(|| depends(same_address, other))
}

/// What something looks at that treats another port of an address, or another address, as the first.
const fn depends(is_same_for_port: bool, is_same_for_address: bool) -> Dependence {
    match (is_same_for_port, is_same_for_address) {
        (true, true) => Dependence::EndpointIndependent,
        (true, false) => Dependence::AddressDependent,
        (false, _) => Dependence::AddressAndPortDependent,
    }
}

/// Where a server sees a socket.
fn seen_by(server: &UdpSocket, socket: &UdpSocket) -> Option<SocketAddr> {
    let address = server.local_addr().expect("it is bound");
    // A firewall may refuse it at once.
    let _ = socket.send_to(b"hello", address);
    received(server)
}

fn received(socket: &UdpSocket) -> Option<SocketAddr> {
    let timeout = socket.set_read_timeout(Some(PATIENCE));
    timeout.expect("the time is not zero");
    let (_, from) = socket.recv_from(&mut [0; 16]).ok()?;
    Some(from)
}

/// A socket at one of the last ports that the host has.
fn host_socket(host: &Host, number: u16) -> UdpSocket {
    let any = match host.server {
        SocketAddr::V4(_) => IpAddr::from([0; 4]),
        SocketAddr::V6(_) => IpAddr::from([0; 16]),
    };
    socket(&host.namespace, SocketAddr::new(any, host.port + number))
}
