//! Bad luck on loopback, between the real programs and decided by a seed.
//!
//! The proxy is the only way between two islands: on one there is nothing but IPv4, on the other
//! nothing but IPv6. A socket bound to `[::1]` cannot send to `127.0.0.1`, nor the other way round, so
//! no program needs a switch for this: the proxy is the translator between two networks. Each peer has
//! the server at the proxy's address on its own island, and when it asks there how it is seen (STUN),
//! the answer is a socket of the proxy on the other island. That is what the peer announces first and
//! what the other one dials; what it announces of its own island leads the other nowhere.
//!
//! ```text
//!   IPv4                      |  proxy  |                      IPv6
//!   peer ── TCP, STUN ── gate |─ server ─| gate ── TCP, STUN ── peer
//!   peer ── QUIC ───────  alias of the other, both ways ─────── peer
//! ```
//!
//! Each direction and each connection has a generator of its own, so its n-th decision depends on the
//! seed alone; what arrives as the n-th is up to the programs. A dropped proxy has no thread left.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use self::datagrams::{Way, answer_stun, carry};
use self::shared::Shared;
use self::streams::accept;

// What becomes of a datagram.
mod datagrams;
// How bad it is, and the dice.
mod luck;
// What all threads of a proxy look at.
mod shared;
// What becomes of a connection.
mod streams;

pub use self::luck::{Dice, Luck};
pub use self::shared::Tally;

/// How often a thread that waits for something looks whether the proxy has ended.
const PACE: Duration = Duration::from_millis(20);
/// Attempts to find a port that is free for TCP and for UDP.
const PORTS_TRIED_MAX: usize = 32;

/// A network without any address of the other one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Island {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// A proxy between a server and two peers.
#[derive(Debug)]
pub struct Proxy {
    shared: Arc<Shared>,
    gates: [Gate; 2],
    threads: Vec<JoinHandle<()>>,
}

/// What an island has.
#[derive(Clone, Copy, Debug)]
struct Gate {
    /// The server, as the island's peer sees it: TCP and UDP.
    server: SocketAddr,
    /// Where the island's peer is to have its UDP socket.
    peer: SocketAddr,
    /// The other island's peer, as this one's sees it.
    other: SocketAddr,
}

impl Proxy {
    /// A proxy in front of `server`, with good luck for now. [`ErrorKind::AddrNotAvailable`] says that
    /// this machine has one of the two families only.
    pub fn new(seed: u64, server: SocketAddr) -> io::Result<Self> {
        let shared = Arc::new(Shared::new(server));
        let (v4, v6) = (Sockets::bind(Island::V4)?, Sockets::bind(Island::V6)?);
        let gates = [v4.gate()?, v6.gate()?];
        let mut proxy = Self {
            shared,
            gates,
            threads: Vec::new(),
        };
        let [gate_v4, gate_v6] = gates;
        let out_of_v4 = Way {
            from: v4.other.try_clone()?,
            sender: gate_v4.peer,
            out: v6.other.try_clone()?,
            receiver: gate_v6.peer,
        };
        let out_of_v6 = Way {
            from: v6.other,
            sender: gate_v6.peer,
            out: v4.other,
            receiver: gate_v4.peer,
        };
        let dice = |number| Dice::new(seed).child(number);
        proxy.spawn(dice(0), move |shared, dice| carry(shared, &out_of_v4, dice));
        proxy.spawn(dice(1), move |shared, dice| carry(shared, &out_of_v6, dice));
        for (number, sockets, alias) in [
            (2, (v4.stun, v4.tcp), gate_v6),
            (4, (v6.stun, v6.tcp), gate_v4),
        ] {
            let (stun, tcp) = sockets;
            proxy.spawn(dice(number), move |shared, dice| {
                answer_stun(shared, &stun, alias.other, dice);
            });
            proxy.spawn(dice(number + 1), move |shared, dice| {
                accept(shared, &tcp, &dice)
            });
        }
        Ok(proxy)
    }

    /// Changes the luck: of every datagram from now on, and of connections that are made from now on.
    pub fn set_luck(&self, luck: Luck) {
        self.shared.set_luck(luck);
    }

    /// Cuts every connection to the server.
    pub fn cut_connections(&self) {
        self.shared.cut_connections();
    }

    /// What has become of everything so far.
    pub fn tally(&self) -> Tally {
        self.shared.tally()
    }

    /// Where a peer on the island finds the server.
    pub const fn server(&self, island: Island) -> SocketAddr {
        self.gate(island).server
    }

    /// What a peer on the island is to bind its UDP socket to.
    pub const fn peer(&self, island: Island) -> SocketAddr {
        self.gate(island).peer
    }

    const fn gate(&self, island: Island) -> &Gate {
        match island {
            Island::V4 => &self.gates[0],
            Island::V6 => &self.gates[1],
        }
    }

    fn spawn(&mut self, dice: Dice, run: impl FnOnce(&Arc<Shared>, Dice) + Send + 'static) {
        let shared = Arc::clone(&self.shared);
        self.threads.push(thread::spawn(move || run(&shared, dice)));
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.end();
        for gate in &self.gates {
            // Wakes the thread that waits for connections; it is refused only if that is gone already.
            let _ = TcpStream::connect(gate.server);
        }
        for thread in self.threads.drain(..) {
            // A thread that panicked has said so.
            let _ = thread.join();
        }
    }
}

/// The sockets on an island.
#[derive(Debug)]
struct Sockets {
    tcp: TcpListener,
    stun: UdpSocket,
    other: UdpSocket,
}

impl Sockets {
    fn bind(island: Island) -> io::Result<Self> {
        let ip = island.ip();
        let other = UdpSocket::bind((ip, 0))?;
        other.set_read_timeout(Some(PACE))?;
        for _ in 0..PORTS_TRIED_MAX {
            let tcp = TcpListener::bind((ip, 0))?;
            let Ok(stun) = UdpSocket::bind(tcp.local_addr()?) else {
                continue;
            };
            stun.set_read_timeout(Some(PACE))?;
            return Ok(Self { tcp, stun, other });
        }
        Err(ErrorKind::AddrInUse.into())
    }

    /// The addresses, and a free one for the island's peer.
    fn gate(&self) -> io::Result<Gate> {
        let server = self.tcp.local_addr()?;
        Ok(Gate {
            server,
            peer: UdpSocket::bind((server.ip(), 0))?.local_addr()?,
            other: self.other.local_addr()?,
        })
    }
}

impl Island {
    const fn ip(self) -> IpAddr {
        match self {
            Self::V4 => IpAddr::V4(Ipv4Addr::LOCALHOST),
            Self::V6 => IpAddr::V6(Ipv6Addr::LOCALHOST),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::{PATIENCE, until};
    use common::stun::{binding_request, reflexive_address};
    use std::io::{Read, Write};

    #[test]
    fn what_goes_in_comes_out_on_the_other_island_unless_it_is_dark() {
        let Some((proxy, _server)) = proxy() else {
            return;
        };
        let [v4, v6] = [Island::V4, Island::V6].map(|island| peer(&proxy, island));
        let alias_of_v4 = alias(&proxy, &v4, Island::V4);
        assert!(alias_of_v4.is_ipv6());
        assert!(alias(&proxy, &v6, Island::V6).is_ipv4());

        let mut bytes = [0; 16];
        v6.send_to(b"to v4", alias_of_v4).unwrap();
        let (len, source) = v4.recv_from(&mut bytes).unwrap();
        assert_eq!(&bytes[..len], b"to v4");
        v4.send_to(b"back", source).unwrap();
        let (len, source) = v6.recv_from(&mut bytes).unwrap();
        assert_eq!((&bytes[..len], source), (&b"back"[..], alias_of_v4));

        proxy.set_luck(Luck::DARK);
        v6.send_to(b"lost", alias_of_v4).unwrap();
        until("it is lost", PATIENCE, || {
            (proxy.tally().lost == 1).then_some(())
        });
        proxy.set_luck(Luck::GOOD);
        v6.send_to(b"kept", alias_of_v4).unwrap();
        let (len, _) = v4.recv_from(&mut bytes).unwrap();
        assert_eq!(&bytes[..len], b"kept");
    }

    #[test]
    fn there_is_no_other_way_between_the_islands() {
        let Some((proxy, _server)) = proxy() else {
            return;
        };
        let [v4, v6] = [Island::V4, Island::V6].map(|island| peer(&proxy, island));
        assert!(v4.send_to(b"x", proxy.peer(Island::V6)).is_err());
        let SocketAddr::V4(direct) = proxy.peer(Island::V4) else {
            unreachable!("it is on that island");
        };
        let mapped = (direct.ip().to_ipv6_mapped(), direct.port());
        assert!(v6.send_to(b"x", mapped).is_err());
    }

    #[test]
    fn a_connection_carries_all_bytes_until_it_is_cut() {
        let Some((proxy, server)) = proxy() else {
            return;
        };
        proxy.set_luck(Luck {
            cuts: 0,
            ..Luck::bad(&mut Dice::new(5))
        });
        for island in [Island::V4, Island::V6] {
            let mut client = TcpStream::connect(proxy.server(island)).unwrap();
            let (mut end, _) = server.accept().unwrap();
            let sent: Vec<u8> = (0..=255).cycle().take(5000).collect();
            let mut came = vec![0; sent.len()];
            client.write_all(&sent).unwrap();
            end.read_exact(&mut came).unwrap();
            assert!(came == sent);
            end.write_all(&sent).unwrap();
            client.read_exact(&mut came).unwrap();
            proxy.cut_connections();
            assert!(matches!(end.read(&mut came), Ok(0) | Err(_)));
            assert!(matches!(client.read(&mut came), Ok(0) | Err(_)));
        }
        assert_eq!(proxy.tally().cut, 2);
        let gate = proxy.server(Island::V4);
        drop(proxy);
        assert!(TcpStream::connect(gate).is_err(), "nothing is left of it");
    }

    /// A proxy, and the server behind it; `None` where one family is missing.
    fn proxy() -> Option<(Proxy, TcpListener)> {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        match Proxy::new(7, server.local_addr().unwrap()) {
            Ok(proxy) => Some((proxy, server)),
            Err(error) if error.kind() == ErrorKind::AddrNotAvailable => {
                println!("skipped: this machine has no [::1]");
                None
            }
            Err(error) => panic!("{error}"),
        }
    }

    fn peer(proxy: &Proxy, island: Island) -> UdpSocket {
        let socket = UdpSocket::bind(proxy.peer(island)).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket
    }

    /// How the other island sees a peer.
    fn alias(proxy: &Proxy, peer: &UdpSocket, island: Island) -> SocketAddr {
        let mut bytes = [0; 128];
        let request = binding_request(3);
        peer.send_to(&request, proxy.server(island)).unwrap();
        let (len, source) = peer.recv_from(&mut bytes).unwrap();
        assert_eq!(source, proxy.server(island));
        reflexive_address(&bytes[..len], 3).unwrap()
    }
}
