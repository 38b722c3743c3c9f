//! Keeps a port of the gateway's mapped, on a thread of its own: UPnP waits for the gateway, and the loop must not.
//!
//! The thread owns a [`Mapper`], which decides, the sockets of PCP and NAT-PMP, and [`Upnp`]. The loop tells it what to
//! map, and it leaves what becomes of that as an answer. It is started when a mapping is wanted for the first time.

use std::convert::Infallible;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use common::os::clock::now;
use mio::net::UdpSocket;
use mio::{Events, Interest, Poll, Token, Waker};
use rustix::io::{FdFlags, fcntl_setfd};
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, socket_with, sockopt};

use super::upnp::Upnp;
use super::workers::{Answer, Answers};
use crate::node::io::{LocalAddress, PortMappingOrder};
use crate::port_mapping::{
    ANNOUNCEMENT_PORT, Mapper, MapperOutput, NoPortMapping, PortMapping, SERVER_PORT, Target,
    UpnpRequest,
};

/// How long a program that ends waits for the gateway to take its port back.
const FAREWELL_PATIENCE: Duration = Duration::from_millis(500);
/// Room for a datagram: one byte more than is read of any, so that a longer one is seen to be.
const DATAGRAM_LEN_MAX: usize = crate::port_mapping::pcp::MESSAGE_LEN_MAX + 1;
/// Datagrams that are taken from a socket before something else is done.
const RECEIVES_PER_TURN: usize = 16;

const WAKER: Token = Token(0);
const SERVER: Token = Token(1);
const ANNOUNCEMENTS: Token = Token(2);

/// What the node wants of the gateway, and the thread that sees to it.
#[derive(Debug)]
pub(super) struct PortMapper {
    answers: Answers,
    is_wanted: bool,
    /// What could be mapped on the present network.
    target: Option<Target>,
    running: Option<Running>,
    /// Something is mapped that is to be given back.
    is_mapped: bool,
}

#[derive(Debug)]
struct Running {
    wish: Arc<Mutex<Wish>>,
    waker: Waker,
    /// Carries nothing; its other end is dropped when the thread ends.
    ended: Receiver<Infallible>,
}

/// What the thread is to do. Only the latest counts, so that nothing piles up while it waits for the gateway.
#[derive(Clone, Copy, Debug, Default)]
struct Wish {
    /// What is to be mapped, if there is a gateway; `None` if nothing is wanted.
    wanted: Option<Option<Target>>,
    /// The mapping may be gone: to be asked about once.
    refresh: bool,
    /// The thread is to end.
    ends: bool,
}

impl PortMapper {
    /// Asks for nothing yet. What comes of it goes to `answers`.
    pub(super) const fn new(answers: Answers) -> Self {
        Self {
            answers,
            is_wanted: false,
            target: None,
            running: None,
            is_mapped: false,
        }
    }

    /// Notes what the thread has answered.
    pub(super) const fn note(&mut self, found: &Result<PortMapping, NoPortMapping>) {
        self.is_mapped = found.is_ok();
    }

    /// Does what the node says.
    pub(super) fn order(&mut self, order: PortMappingOrder) {
        match order {
            PortMappingOrder::Keep => {
                let refresh = self.is_wanted;
                self.is_wanted = true;
                self.tell(refresh);
            }
            PortMappingOrder::GiveBack => {
                self.is_wanted = false;
                self.tell(false);
            }
        }
    }

    /// The host has these addresses and this default gateway now.
    pub(super) fn set_network(&mut self, addresses: &[LocalAddress], gateway: Option<Ipv4Addr>) {
        let target = gateway.and_then(|gateway| target(addresses, gateway));
        if target == self.target {
            return;
        }
        self.target = target;
        if self.is_wanted {
            self.tell(false);
        }
    }

    /// Gives back what is mapped, and waits a moment for that. Where nothing is, the thread ends when it likes.
    pub(super) fn finish(&mut self) {
        let Some(running) = self.running.take() else {
            return;
        };
        running.change(|wish| wish.ends = true);
        if self.is_mapped {
            // What the gateway does not hear of ends with its lifetime.
            let _ = running.ended.recv_timeout(FAREWELL_PATIENCE);
        }
    }

    /// Tells the thread what is wanted, and starts it if it does not run.
    fn tell(&mut self, refresh: bool) {
        if self.running.is_none() {
            match Running::start(self.answers.clone()) {
                Ok(running) => self.running = Some(running),
                Err(error) => {
                    return log::warn!("cannot ask the gateway for a port: {error}");
                }
            }
        }
        let wanted = self.is_wanted.then_some(self.target);
        if let Some(running) = &self.running {
            running.change(|wish| {
                wish.wanted = wanted;
                wish.refresh |= refresh;
            });
        }
    }
}

/// What can be mapped at a gateway: the address of the UDP socket on the gateway's own network.
fn target(addresses: &[LocalAddress], gateway: Ipv4Addr) -> Option<Target> {
    let is_near = |own: &&LocalAddress| {
        let ip = own.endpoint.ip();
        // An interface to one other host has no network.
        own.prefix_len > 0 && own.prefix_len < 32 && !ip.is_loopback() && ip != gateway
    };
    let on_link = |own: &&LocalAddress| own.is_on_link(IpAddr::V4(gateway));
    let own = addresses.iter().filter(is_near).find(on_link)?;
    match own.endpoint {
        SocketAddr::V4(internal) => Some(Target { gateway, internal }),
        SocketAddr::V6(_) => None,
    }
}

impl Running {
    fn start(answers: Answers) -> io::Result<Self> {
        let poll = Poll::new()?;
        let waker = Waker::new(poll.registry(), WAKER)?;
        let wish = Arc::new(Mutex::new(Wish::default()));
        let (alive, ended) = channel();
        let asker = Asker {
            poll,
            wish: wish.clone(),
            wanted: None,
            answers,
            mapper: Mapper::new(rand::random()),
            sockets: None,
            upnp: Upnp::default(),
            _alive: alive,
        };
        thread::Builder::new()
            .name("port-mapping".to_owned())
            .spawn(move || asker.run())?;
        Ok(Self { wish, waker, ended })
    }

    fn change(&self, change: impl FnOnce(&mut Wish)) {
        change(&mut self.wish.lock().unwrap_or_else(PoisonError::into_inner));
        if let Err(error) = self.waker.wake() {
            log::warn!("the thread that asks the gateway cannot be woken: {error}");
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.change(|wish| wish.ends = true);
    }
}

/// Everything that the thread owns.
#[derive(Debug)]
struct Asker {
    poll: Poll,
    wish: Arc<Mutex<Wish>>,
    /// The wish that is seen to.
    wanted: Option<Option<Target>>,
    answers: Answers,
    mapper: Mapper,
    sockets: Option<Sockets>,
    upnp: Upnp,
    _alive: Sender<Infallible>,
}

/// The sockets for one target.
#[derive(Debug)]
struct Sockets {
    target: Target,
    /// Connected to the gateway: the system drops what others send, and says when nobody listens there.
    server: UdpSocket,
    /// Where the gateway announces its restart; `None` if a program has the port for itself.
    announcements: Option<UdpSocket>,
}

impl Asker {
    fn run(mut self) {
        let mut events = Events::with_capacity(8);
        loop {
            let ends = self.take_wish();
            self.mapper.handle_timeout(now());
            let has_more = self.receive();
            if !self.drain(ends) || (ends && self.mapper.is_off()) {
                return;
            }
            let due = self.mapper.poll_timeout();
            let timeout = if has_more {
                Some(Duration::ZERO)
            } else {
                due.map(|due| due.saturating_duration_since(now()))
            };
            match self.poll.poll(&mut events, timeout) {
                Err(error) if error.kind() != ErrorKind::Interrupted => {
                    return log::warn!("the gateway is asked for no port any more: {error}");
                }
                _ => {}
            }
        }
    }

    /// Takes what is wanted now. Returns whether that is the end.
    fn take_wish(&mut self) -> bool {
        let now = now();
        let Wish {
            wanted,
            refresh,
            ends,
        } = {
            let mut wish = self.wish.lock().unwrap_or_else(PoisonError::into_inner);
            let taken = *wish;
            wish.refresh = false;
            taken
        };
        let wanted = wanted.filter(|_| !ends);
        if self.wanted != wanted {
            self.wanted = wanted;
            match wanted {
                Some(target) => self.map(target, now),
                None => self.mapper.stop(now),
            }
        } else if refresh {
            self.mapper.refresh(now);
        }
        ends
    }

    fn map(&mut self, target: Option<Target>, now: Instant) {
        self.sockets = target.and_then(|target| match Sockets::open(target, &self.poll) {
            Ok(sockets) => Some(sockets),
            Err(error) => {
                log::debug!("no socket for the gateway: {error}");
                None
            }
        });
        self.mapper.set_target(target, now);
    }

    /// Takes what came. Returns whether there may be more: a socket tells only once of what is left.
    fn receive(&mut self) -> bool {
        let Some(sockets) = &self.sockets else {
            return false;
        };
        let (mapper, now) = (&mut self.mapper, now());
        let mut bytes = [0; DATAGRAM_LEN_MAX];
        let mut has_more = true;
        for _ in 0..RECEIVES_PER_TURN {
            match sockets.server.recv_from(&mut bytes) {
                Ok((len, source)) => mapper.handle_datagram(source, &bytes[..len], now),
                Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
                    mapper.handle_unreachable();
                }
                Err(_) => {
                    has_more = false;
                    break;
                }
            }
        }
        for _ in 0..RECEIVES_PER_TURN {
            let announced = sockets.announcements.as_ref();
            let announced = announced.and_then(|socket| socket.recv_from(&mut bytes).ok());
            let Some((len, source)) = announced else {
                return has_more;
            };
            mapper.handle_announcement(source, &bytes[..len], now);
        }
        true
    }

    /// Does what the mapper says. `false` once there is nobody any more who hears what comes of it; when the thread
    /// ends, nobody listens.
    fn drain(&mut self, ends: bool) -> bool {
        while let Some(output) = self.mapper.poll_output() {
            match output {
                MapperOutput::Send(bytes) => {
                    if let Some(sockets) = &self.sockets
                        && let Err(error) = sockets.server.send(&bytes)
                    {
                        log::debug!("cannot send to the gateway: {error}");
                    }
                }
                MapperOutput::Upnp(request) => self.ask_by_upnp(request),
                MapperOutput::Report(found) => {
                    log::debug!("port mapping: {found:?}");
                    if !ends && !self.answers.give(Answer::PortMapping(found)) {
                        return false;
                    }
                }
            }
        }
        true
    }

    fn ask_by_upnp(&mut self, request: UpnpRequest) {
        match (request, &self.sockets) {
            (
                UpnpRequest::Map {
                    external_port,
                    lifetime_s,
                },
                Some(Sockets { target, .. }),
            ) => {
                let mapped = self.upnp.map(*target, external_port, lifetime_s);
                self.mapper.handle_upnp(mapped, now());
            }
            (UpnpRequest::Map { .. }, None) => {
                let nobody = Err(NoPortMapping::NoAnswer);
                self.mapper.handle_upnp(nobody, now());
            }
            (UpnpRequest::Unmap { external_port }, _) => self.upnp.unmap(external_port),
        }
    }
}

impl Sockets {
    fn open(target: Target, poll: &Poll) -> io::Result<Self> {
        let registry = poll.registry();
        let mut server = UdpSocket::bind((*target.internal.ip(), 0).into())?;
        server.connect((target.gateway, SERVER_PORT).into())?;
        registry.register(&mut server, SERVER, Interest::READABLE)?;
        let announcements = announcements().and_then(|mut socket| {
            registry.register(&mut socket, ANNOUNCEMENTS, Interest::READABLE)?;
            Ok(socket)
        });
        if let Err(error) = &announcements {
            log::debug!("a restart of the gateway is noticed late: {error}");
        }
        Ok(Self {
            target,
            server,
            announcements: announcements.ok(),
        })
    }
}

/// The socket at which all programs of this host hear what the gateway announces to all hosts.
fn announcements() -> io::Result<UdpSocket> {
    let socket = socket_with(
        AddressFamily::INET,
        SocketType::DGRAM,
        SocketFlags::empty(),
        None,
    )?;
    // Not every system can do both at once.
    fcntl_setfd(&socket, FdFlags::CLOEXEC)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    bind(
        &socket,
        &SocketAddr::from((Ipv4Addr::UNSPECIFIED, ANNOUNCEMENT_PORT)),
    )?;
    let socket = std::net::UdpSocket::from(socket);
    socket.set_nonblocking(true)?;
    Ok(UdpSocket::from_std(socket))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own(endpoint: &str, prefix_len: u8) -> LocalAddress {
        LocalAddress {
            endpoint: endpoint.parse().unwrap(),
            prefix_len,
            mtu: None,
        }
    }

    #[test]
    fn nothing_runs_and_nothing_is_asked_before_it_is_wanted() {
        let poll = Poll::new().unwrap();
        let waker = Arc::new(Waker::new(poll.registry(), WAKER).unwrap());
        let (answers, queue) = Answers::new(waker, 4);
        let mut mapper = PortMapper::new(answers);
        let gateway = Ipv4Addr::new(192, 0, 2, 1);
        let near = own("192.0.2.2:7000", 24);
        mapper.set_network(&[near], Some(gateway));
        assert!(mapper.target.is_some() && mapper.running.is_none());
        // Wanted where there is no gateway, and at an end without one.
        mapper.set_network(&[near], None);
        mapper.order(PortMappingOrder::Keep);
        let Ok(Answer::PortMapping(found)) = queue.recv_timeout(Duration::from_secs(10)) else {
            panic!("the thread tells what becomes of it");
        };
        assert_eq!(found, Err(NoPortMapping::NoGateway));
        mapper.note(&found);
        let running = mapper.running.as_ref().unwrap();
        running.change(|wish| wish.ends = true);
        let ended = running.ended.recv_timeout(Duration::from_secs(10));
        let is_ended = ended == Err(std::sync::mpsc::RecvTimeoutError::Disconnected);
        assert!(is_ended, "{ended:?}");
    }

    #[test]
    fn only_what_is_on_the_network_of_the_gateway_is_mapped() {
        let gateway = Ipv4Addr::new(192, 168, 1, 1);
        let near = own("192.168.1.2:7000", 24);
        let all = [
            own("[fd00::2]:7000", 64),
            own("127.0.0.1:7000", 8),
            own("10.0.0.2:7000", 8),
            near,
        ];
        let expected = Target {
            gateway,
            internal: "192.168.1.2:7000".parse().unwrap(),
        };
        assert_eq!(target(&all, gateway), Some(expected));
        assert_eq!(target(&all[..3], gateway), None);
        for far in [own("192.168.1.2:7000", 0), own("192.168.1.2:7000", 32)] {
            assert_eq!(target(&[far], gateway), None, "{far:?}");
        }
        // Whoever is the gateway asks nobody.
        assert_eq!(target(&[own("192.168.1.1:7000", 24)], gateway), None);
        assert_eq!(target(&all, Ipv4Addr::new(127, 0, 0, 1)), None);
    }
}
