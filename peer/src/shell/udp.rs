//! The one UDP socket: trains of datagrams out (GSO) and in (GRO), and this host's addresses.
//!
//! What cannot be sent is loss, as on any network; only a full send buffer makes the loop wait, and not for
//! long.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use common::os::udp::{EcnCodepoint, Received, Train, TrainSocket, canonical};
use if_addrs::{IfAddr, Interface};
use mio::{Registry, Token};

use crate::node::io::LocalAddress;
use crate::node::{Datagrams, Transmit};

/// Receive calls before the loop does something else. One takes up to [`BATCH`] trains.
const RECEIVES_PER_TURN: usize = 32;
/// Trains taken in one call: more would cost each small datagram the room for them.
const BATCH: usize = 4;
/// A train for which the system has no room in this time is lost.
const BLOCKED_MAX: Duration = Duration::from_millis(100);

/// The socket and what waits for it.
#[derive(Debug)]
pub(crate) struct Udp {
    socket: TrainSocket,
    blocked: Option<Blocked>,
    /// The system tells when there is room to send: only while that matters, because it would wake
    /// the loop after each datagram sent.
    hears_of_room: bool,
}

/// What is left of a train for which there was no room.
#[derive(Debug)]
struct Blocked {
    transmit: Transmit,
    bytes: Vec<u8>,
    until: Instant,
}

impl Udp {
    /// Binds to this address; to the unspecified one of IPv6 for both families.
    pub(crate) fn bind(address: SocketAddr) -> io::Result<Self> {
        Ok(Self {
            socket: TrainSocket::bind(address, BATCH)?,
            blocked: None,
            hears_of_room: false,
        })
    }

    /// Has the loop told when something happens.
    pub(crate) fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        self.socket.register(registry, token)
    }

    /// Has the loop told of room to send if a train waits for it, and not otherwise. To be called
    /// before each wait.
    pub(crate) fn update_interest(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        let is_wanted = self.is_blocked();
        if self.hears_of_room != is_wanted {
            self.socket.hear_of_room(registry, token, is_wanted)?;
            self.hears_of_room = is_wanted;
        }
        Ok(())
    }

    /// Notes what the system said.
    pub(crate) fn note_readiness(&mut self, is_readable: bool, is_writable: bool) {
        if is_readable {
            self.socket.note_readable();
        }
        if is_writable {
            self.resume();
        }
    }

    /// Sends a train, the first bytes of `buffer`.
    pub(crate) fn send(&mut self, transmit: &Transmit, buffer: &[u8], now: Instant) {
        debug_assert!(self.blocked.is_none(), "the caller asks `is_blocked` first");
        let bytes = &buffer[..transmit.size];
        if let Err(rest) = self.send_pieces(transmit, bytes) {
            self.blocked = Some(Blocked {
                transmit: *transmit,
                bytes: bytes[rest..].to_vec(),
                until: now + BLOCKED_MAX,
            });
        }
    }

    /// Gives up a train that waited too long.
    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        if self.deadline().is_some_and(|deadline| deadline <= now) {
            log::debug!("no room to send in time; dropping a train");
            self.blocked = None;
        }
    }

    /// Receives until there is nothing more or the turn is over.
    pub(crate) fn receive(&mut self, mut take: impl FnMut(Datagrams)) {
        for _ in 0..RECEIVES_PER_TURN {
            if !self.socket.is_readable() {
                return;
            }
            self.socket.receive(|_, train| take(datagrams(&train)));
        }
    }

    /// Tells whether there is more to receive without waiting.
    pub(crate) const fn wants_turn(&self) -> bool {
        self.socket.is_readable()
    }

    /// Tells whether a train waits for room; nothing can be sent before it.
    pub(crate) const fn is_blocked(&self) -> bool {
        self.blocked.is_some()
    }

    /// When to call [`Self::handle_timeout`].
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.blocked.as_ref().map(|blocked| blocked.until)
    }

    /// The addresses at which this host can reach itself through this socket, sorted; without those of
    /// interfaces that are down, and link-local IPv6 addresses, which mean nothing without an interface.
    pub(crate) fn local_addresses(&self) -> io::Result<Vec<LocalAddress>> {
        let bound = canonical(self.local());
        let mut addresses: Vec<LocalAddress> = if_addrs::get_if_addrs()?
            .iter()
            .filter(|interface| interface.is_oper_up())
            .filter(|interface| {
                if bound.ip().is_unspecified() {
                    self.is_reachable_by(interface.ip())
                } else {
                    interface.ip() == bound.ip()
                }
            })
            .map(|interface| local_address(interface, bound.port()))
            .collect();
        if addresses.is_empty() && !bound.ip().is_unspecified() {
            // One of the many of the loopback interface, for instance.
            addresses.push(bound.into());
        }
        addresses.sort_unstable();
        addresses.dedup_by_key(|address| address.endpoint);
        Ok(addresses)
    }

    fn is_reachable_by(&self, ip: IpAddr) -> bool {
        match ip {
            IpAddr::V4(ip) => !ip.is_unspecified(),
            IpAddr::V6(ip) => {
                self.local().is_ipv6() && !ip.is_unspecified() && !ip.is_unicast_link_local()
            }
        }
    }

    /// Goes on with a train that waited.
    fn resume(&mut self) {
        let Some(blocked) = self.blocked.take() else {
            return;
        };
        if let Err(rest) = self.send_pieces(&blocked.transmit, &blocked.bytes) {
            self.blocked = Some(Blocked {
                bytes: blocked.bytes[rest..].to_vec(),
                ..blocked
            });
        }
    }

    /// Sends a train; `Err` with where it stopped if there was no room.
    fn send_pieces(&self, transmit: &Transmit, bytes: &[u8]) -> Result<(), usize> {
        self.socket.sender().send(&Train {
            destination: transmit.destination,
            source: transmit.source,
            ecn: transmit.ecn.map(ecn_out),
            stride: transmit.segment_size,
            bytes,
        })
    }

    /// The address that the socket is bound to.
    const fn local(&self) -> SocketAddr {
        self.socket.sender().local()
    }
}

fn local_address(interface: &Interface, port: u16) -> LocalAddress {
    let prefix_len = match &interface.addr {
        IfAddr::V4(address) => address.prefixlen,
        IfAddr::V6(address) => address.prefixlen,
    };
    LocalAddress {
        endpoint: SocketAddr::new(interface.ip(), port),
        prefix_len,
        mtu: interface_mtu(&interface.name),
    }
}

/// The MTU of an interface, in bytes; `None` on systems that tell it only to unsafe code.
fn interface_mtu(name: &str) -> Option<u32> {
    let path = Path::new("/sys/class/net").join(name).join("mtu");
    std::fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// Copies what came into memory of its own, so that a small datagram never holds a large buffer.
fn datagrams(train: &Received<'_>) -> Datagrams {
    Datagrams {
        source: train.source,
        local: train.local,
        ecn: train.ecn.map(ecn_in),
        stride: train.stride,
        bytes: BytesMut::from(&*train.bytes),
    }
}

const fn ecn_out(ecn: noq_proto::EcnCodepoint) -> EcnCodepoint {
    match ecn {
        noq_proto::EcnCodepoint::Ect0 => EcnCodepoint::Ect0,
        noq_proto::EcnCodepoint::Ect1 => EcnCodepoint::Ect1,
        noq_proto::EcnCodepoint::Ce => EcnCodepoint::Ce,
    }
}

const fn ecn_in(ecn: EcnCodepoint) -> noq_proto::EcnCodepoint {
    match ecn {
        EcnCodepoint::Ect0 => noq_proto::EcnCodepoint::Ect0,
        EcnCodepoint::Ect1 => noq_proto::EcnCodepoint::Ect1,
        EcnCodepoint::Ce => noq_proto::EcnCodepoint::Ce,
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use common::os::bind::BindAddress;
    use mio::{Events, Poll};

    use super::*;
    use crate::shell::now;

    const PATIENCE: Duration = Duration::from_secs(10);

    /// For both families, where the system has both.
    fn dual() -> Udp {
        BindAddress::port(0).bind(Udp::bind).unwrap()
    }

    #[test]
    fn a_train_arrives_between_both_families_with_plain_ipv4_addresses() {
        let mut dual = dual();
        let mut plain = Udp::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let dual_address: SocketAddr = (Ipv4Addr::LOCALHOST, dual.local().port()).into();
        let bytes: Vec<u8> = (0..10_000).map(|i| (i / 1200) as u8).collect();
        let there = send_train(&mut dual, plain.local(), &bytes, 1200);
        dual.send(&there, &bytes, now());
        for datagrams in receive_all(&mut plain, &bytes) {
            assert_eq!(datagrams.source, dual_address);
            assert_eq!(datagrams.ecn, Some(noq_proto::EcnCodepoint::Ect0));
        }
        let back = send_train(&mut plain, dual_address, &bytes, 1200);
        plain.send(&back, &bytes, now());
        for datagrams in receive_all(&mut dual, &bytes) {
            assert_eq!(datagrams.source, plain.local());
            assert_eq!(datagrams.local, Some(Ipv4Addr::LOCALHOST.into()));
            assert_eq!(datagrams.ecn, Some(noq_proto::EcnCodepoint::Ect0));
        }
    }

    #[test]
    fn a_source_address_can_be_chosen_on_a_dual_stack_socket() {
        let mut dual = dual();
        let mut plain = Udp::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let mut transmit = send_train(&mut dual, plain.local(), b"hello", 1200);
        transmit.source = Some(Ipv4Addr::new(127, 0, 0, 7).into());
        dual.send(&transmit, b"hello", now());
        let datagrams = receive_all(&mut plain, b"hello");
        assert_eq!(datagrams[0].source.ip(), Ipv4Addr::new(127, 0, 0, 7));
    }

    #[test]
    fn a_train_longer_than_the_system_takes_is_cut_up() {
        let mut from = Udp::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let mut to = Udp::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let bytes: Vec<u8> = (0..100 * 1200).map(|i| (i / 1200) as u8).collect();
        let transmit = send_train(&mut from, to.local(), &bytes, 1200);
        from.send(&transmit, &bytes, now());
        let datagrams = receive_all(&mut to, &bytes);
        assert!(datagrams.iter().all(|datagrams| datagrams.stride == 1200));
    }

    #[test]
    fn what_cannot_be_sent_is_loss() {
        let mut plain = Udp::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let target = "[::1]:9".parse().unwrap();
        let transmit = send_train(&mut plain, target, b"hello", 1200);
        plain.send(&transmit, b"hello", now());
        assert!(!plain.is_blocked());
        let long = vec![0; 70_000];
        let transmit = Transmit {
            segment_size: None,
            ..send_train(&mut plain, "127.0.0.1:9".parse().unwrap(), &long, 1200)
        };
        plain.send(&transmit, &long, now());
        assert!(!plain.is_blocked());
    }

    #[test]
    fn t19_an_empty_datagram_goes_no_further() {
        let mut to = Udp::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let from = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        for bytes in [&b""[..], b"a", b"", b"bc"] {
            from.send_to(bytes, to.local()).unwrap();
        }
        let datagrams = receive_all(&mut to, b"abc");
        assert!(
            datagrams
                .iter()
                .all(|d| d.stride > 0 && !d.bytes.is_empty())
        );
    }

    #[test]
    fn a_train_that_had_no_room_is_sent_when_there_is_some() {
        let mut from = Udp::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let mut to = Udp::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let transmit = send_train(&mut from, to.local(), b"hello", 1200);
        from.blocked = Some(Blocked {
            transmit,
            bytes: b"hello".to_vec(),
            until: now() + PATIENCE,
        });
        let mut poll = Poll::new().unwrap();
        from.register(poll.registry(), Token(0)).unwrap();
        let mut wait = |udp: &mut Udp| {
            udp.handle_timeout(now());
            udp.update_interest(poll.registry(), Token(0)).unwrap();
            let mut events = Events::with_capacity(8);
            poll.poll(&mut events, Some(Duration::ZERO)).unwrap();
            for event in &events {
                udp.note_readiness(event.is_readable(), event.is_writable());
            }
            events.iter().count()
        };
        assert_eq!(wait(&mut from), 1, "there is room");
        assert!(!from.is_blocked());
        receive_all(&mut to, b"hello");
        let transmit = send_train(&mut from, to.local(), b"again", 1200);
        from.send(&transmit, b"again", now());
        assert_eq!(wait(&mut from), 0, "room means nothing to one that has it");
    }

    #[test]
    fn a_train_that_gets_no_room_in_time_is_lost() {
        let mut udp = Udp::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let until = now();
        let target = udp.local();
        udp.blocked = Some(Blocked {
            transmit: send_train(&mut udp, target, b"hello", 1200),
            bytes: b"hello".to_vec(),
            until,
        });
        udp.handle_timeout(until - Duration::from_millis(1));
        assert_eq!(udp.deadline(), Some(until));
        udp.handle_timeout(until);
        assert!(!udp.is_blocked() && udp.deadline().is_none());
    }

    #[test]
    fn local_addresses_have_the_port_and_a_meaning_elsewhere() {
        let dual = dual();
        let addresses = dual.local_addresses().unwrap();
        if Path::new("/sys/class/net").exists() {
            let known = addresses.iter().all(|address| address.mtu.is_some());
            assert!(known, "{addresses:?}");
        }
        let addresses: Vec<_> = addresses.iter().map(|address| address.endpoint).collect();
        let loopback = SocketAddr::from((Ipv4Addr::LOCALHOST, dual.local().port()));
        assert!(addresses.contains(&loopback), "{addresses:?}");
        assert!(addresses.is_sorted());
        for address in addresses {
            assert!(!address.ip().is_unspecified());
            assert_eq!(canonical(address), address);
        }
        let mut ones = vec!["127.0.0.1:0"];
        if cfg!(target_os = "linux") {
            // The interface has this address without naming it.
            ones.push("127.0.0.2:0");
        }
        for one in ones {
            let plain = Udp::bind(one.parse().unwrap()).unwrap();
            let addresses = plain.local_addresses().unwrap();
            assert_eq!(addresses.len(), 1);
            assert_eq!(addresses[0].endpoint, plain.local());
        }
    }

    fn send_train(from: &mut Udp, to: SocketAddr, bytes: &[u8], stride: usize) -> Transmit {
        assert!(!from.is_blocked());
        Transmit {
            destination: to,
            ecn: Some(noq_proto::EcnCodepoint::Ect0),
            size: bytes.len(),
            segment_size: (bytes.len() > stride).then_some(stride),
            source: None,
        }
    }

    /// Receives until as many bytes came as were sent, and compares them.
    fn receive_all(to: &mut Udp, expected: &[u8]) -> Vec<Datagrams> {
        let mut poll = Poll::new().unwrap();
        to.register(poll.registry(), Token(0)).unwrap();
        let mut events = Events::with_capacity(8);
        let mut received: Vec<Datagrams> = Vec::new();
        let deadline = now() + PATIENCE;
        loop {
            to.receive(|datagrams| received.push(datagrams));
            let bytes: Vec<u8> = received.iter().flat_map(|d| d.bytes.to_vec()).collect();
            if bytes.len() >= expected.len() {
                assert_eq!(bytes, expected);
                return received;
            }
            assert!(now() < deadline, "{} bytes came", bytes.len());
            poll.poll(&mut events, Some(PATIENCE)).unwrap();
            for event in &events {
                to.note_readiness(event.is_readable(), event.is_writable());
            }
        }
    }
}
