//! A UDP socket whose unit is the train: datagrams of one length to or from one address, handed to the system,
//! or taken from it, in one call where it can do that (GSO, GRO).
//!
//! Callers see and give IPv4 addresses as such. On a dual-stack socket they travel as `::ffff:a.b.c.d`, and
//! this module is the only place that knows.

use std::io::{self, ErrorKind, IoSliceMut};
use std::net::{IpAddr, SocketAddr, SocketAddrV6};

use mio::net::UdpSocket;
use mio::{Interest, Registry, Token};
pub use noq_udp::EcnCodepoint;
use noq_udp::{BATCH_SIZE, RecvMeta, UdpSockRef, UdpSocketState};
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use crate::limits::SOCKET_BUFFER_LEN;

/// Room for whatever one message of the system can hold: the length field of UDP has 16 bits, and a
/// train that the system joined is not longer.
const MESSAGE_LEN_MAX: usize = 1 << 16;
/// Largest train handed to the system: an IPv4 packet has 65,535 bytes, IPv6 and UDP headers take 48.
const TRAIN_LEN_MAX: usize = 65_535 - 48;

/// A train that came.
#[derive(Debug)]
pub struct Received<'a> {
    /// Where it came from.
    pub source: SocketAddr,
    /// The address of this host that it was sent to, where the system tells.
    pub local: Option<IpAddr>,
    /// Its mark of congestion.
    pub ecn: Option<EcnCodepoint>,
    /// The length of each datagram but the last; at least 1.
    pub stride: usize,
    /// At least one byte. Changed at will: nobody looks at it again.
    pub bytes: &'a mut [u8],
}

/// A train to be sent.
#[derive(Clone, Copy, Debug)]
pub struct Train<'a> {
    /// Where to.
    pub destination: SocketAddr,
    /// The address of this host to send it from; `None` leaves that to the system.
    pub source: Option<IpAddr>,
    /// Its mark of congestion.
    pub ecn: Option<EcnCodepoint>,
    /// The length of each datagram but the last; `None` if there is only one.
    pub stride: Option<usize>,
    /// All of it.
    pub bytes: &'a [u8],
}

/// A UDP socket that receives trains, and has a [`TrainSender`] for those that go out.
#[derive(Debug)]
pub struct TrainSocket {
    sender: TrainSender,
    /// Trains taken in one call.
    batch: usize,
    /// So many times [`MESSAGE_LEN_MAX`] bytes.
    space: Vec<u8>,
    is_readable: bool,
}

/// The half that sends. It can do so while what was received is still looked at.
#[derive(Debug)]
pub struct TrainSender {
    socket: UdpSocket,
    state: UdpSocketState,
    local: SocketAddr,
}

impl TrainSocket {
    /// Binds to this address; to the unspecified one of IPv6 for both families. Up to `batch` trains are
    /// taken in one call, with 64 KiB for each.
    ///
    /// # Errors
    /// If the address cannot be bound, or the system has no descriptors left.
    pub fn bind(address: SocketAddr, batch: usize) -> io::Result<Self> {
        let socket = Socket::new(
            Domain::for_address(address),
            Type::DGRAM,
            Some(Protocol::UDP),
        )?;
        if address.is_ipv6() {
            socket.set_only_v6(false)?;
        }
        socket.bind(&address.into())?;
        Self::over(socket.into(), batch)
    }

    /// The same over a socket that is bound.
    ///
    /// # Errors
    /// If the system does not take the options of the socket.
    pub fn over(socket: std::net::UdpSocket, batch: usize) -> io::Result<Self> {
        enlarge(SockRef::from(&socket));
        let batch = batch.clamp(1, BATCH_SIZE);
        Ok(Self {
            sender: TrainSender::over(socket)?,
            batch,
            space: vec![0; batch * MESSAGE_LEN_MAX],
            is_readable: true,
        })
    }

    /// Has the loop told when something comes, and nothing else.
    ///
    /// # Errors
    /// If the poll does not take the socket.
    pub fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        registry.register(&mut self.sender.socket, token, Interest::READABLE)
    }

    /// Has the loop told of room to send, too, or no more.
    ///
    /// # Errors
    /// If the socket is not registered.
    pub fn hear_of_room(
        &mut self,
        registry: &Registry,
        token: Token,
        is_wanted: bool,
    ) -> io::Result<()> {
        let interest = if is_wanted {
            Interest::READABLE | Interest::WRITABLE
        } else {
            Interest::READABLE
        };
        registry.reregister(&mut self.sender.socket, token, interest)
    }

    /// Notes that the system said that something came.
    pub const fn note_readable(&mut self) {
        self.is_readable = true;
    }

    /// Tells whether there may be more to receive without waiting.
    pub const fn is_readable(&self) -> bool {
        self.is_readable
    }

    /// The half that sends.
    pub const fn sender(&self) -> &TrainSender {
        &self.sender
    }

    /// Asks the system once for what came, and hands it to `take`, one train after the other.
    pub fn receive(&mut self, mut take: impl FnMut(&TrainSender, Received<'_>)) {
        self.receive_together(|sender, trains| trains.for_each(|train| take(sender, train)));
    }

    /// The same, with all trains at once, if there are any.
    pub fn receive_together(
        &mut self,
        take: impl FnOnce(&TrainSender, &mut dyn Iterator<Item = Received<'_>>),
    ) {
        let mut metas = [RecvMeta::default(); BATCH_SIZE];
        let mut chunks = self.space.chunks_mut(MESSAGE_LEN_MAX);
        let mut buffers: [IoSliceMut<'_>; BATCH_SIZE] =
            std::array::from_fn(|_| IoSliceMut::new(chunks.next().unwrap_or_default()));
        let (metas, buffers) = (&mut metas[..self.batch], &mut buffers[..self.batch]);
        let TrainSender { socket, state, .. } = &self.sender;
        let received = socket.try_io(|| state.recv(UdpSockRef::from(socket), buffers, metas));
        match received {
            Ok(count) => {
                // Less than a full batch: the system had no more. What comes later is told anew.
                self.is_readable = count == self.batch;
                // Nothing we speak has an empty datagram, and no stride divides it.
                let came = metas.iter().zip(buffers).take(count);
                let came = came.filter(|(meta, _)| meta.len > 0);
                let mut trains = came.map(|(meta, buffer)| received_train(meta, buffer));
                take(&self.sender, &mut trains);
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => self.is_readable = false,
            Err(error) => log::debug!("receiving fails: {error}"),
        }
    }
}

impl TrainSender {
    /// Sends from a socket that is bound.
    ///
    /// # Errors
    /// If the system does not take the options of the socket.
    pub fn over(socket: std::net::UdpSocket) -> io::Result<Self> {
        // This makes the socket non-blocking, too.
        let state = UdpSocketState::new(UdpSockRef::from(&socket))?;
        Ok(Self {
            local: socket.local_addr()?,
            socket: UdpSocket::from_std(socket),
            state,
        })
    }

    /// The address that the socket is bound to, as the system names it.
    pub const fn local(&self) -> SocketAddr {
        self.local
    }

    /// Sends a train, in pieces that the system takes. What cannot be sent is loss, as on any network.
    ///
    /// # Errors
    /// How many bytes were sent before there was no room in the send buffer.
    pub fn send(&self, train: &Train<'_>) -> Result<(), usize> {
        let Some(destination) = self.outward(train.destination) else {
            log::debug!("no IPv6 on this socket destination={}", train.destination);
            return Ok(());
        };
        let mut at = 0;
        while at < train.bytes.len() {
            let end = train.bytes.len().min(at + self.piece_len(train.stride));
            let piece = noq_udp::Transmit {
                destination,
                ecn: train.ecn,
                contents: &train.bytes[at..end],
                segment_size: train.stride,
                src_ip: train.source,
            };
            match self.send_piece(&piece) {
                Ok(()) => at = end,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Err(at),
                Err(error) => {
                    log::debug!("a datagram is lost: {error}");
                    at = end;
                }
            }
        }
        Ok(())
    }

    /// Sends a piece; one that the network card cannot cut up goes datagram by datagram.
    fn send_piece(&self, piece: &noq_udp::Transmit<'_>) -> io::Result<()> {
        let could_cut = self.state.max_gso_segments().get() > 1;
        let result = self.try_send(piece);
        let has_lost_cutting = could_cut && self.state.max_gso_segments().get() == 1;
        match (&result, piece.segment_size) {
            (Err(_), Some(segment_size)) if has_lost_cutting && segment_size > 0 => {
                for datagram in piece.contents.chunks(segment_size) {
                    self.try_send(&noq_udp::Transmit {
                        contents: datagram,
                        segment_size: None,
                        ..piece.clone()
                    })?;
                }
                Ok(())
            }
            (Ok(()) | Err(_), Some(_) | None) => result,
        }
    }

    fn try_send(&self, transmit: &noq_udp::Transmit<'_>) -> io::Result<()> {
        let Self { socket, state, .. } = self;
        socket.try_io(|| state.try_send(UdpSockRef::from(socket), transmit))
    }

    /// Bytes that the system takes in one call.
    fn piece_len(&self, stride: Option<usize>) -> usize {
        match stride {
            Some(size) if size > 0 => {
                let segments = self.state.max_gso_segments().get();
                size * segments.min(TRAIN_LEN_MAX / size).max(1)
            }
            Some(_) | None => usize::MAX / 2,
        }
    }

    /// A destination as this socket wants it; `None` if it is of the wrong family.
    fn outward(&self, destination: SocketAddr) -> Option<SocketAddr> {
        match (self.local, destination) {
            (SocketAddr::V6(_), SocketAddr::V4(to)) => {
                let ip = to.ip().to_ipv6_mapped();
                Some(SocketAddrV6::new(ip, to.port(), 0, 0).into())
            }
            (SocketAddr::V4(_), SocketAddr::V6(_)) => None,
            (SocketAddr::V4(_), SocketAddr::V4(_)) | (SocketAddr::V6(_), SocketAddr::V6(_)) => {
                Some(destination)
            }
        }
    }
}

fn received_train<'a>(meta: &RecvMeta, buffer: &'a mut [u8]) -> Received<'a> {
    Received {
        source: canonical(meta.addr),
        local: meta.dst_ip.map(|ip| ip.to_canonical()),
        ecn: meta.ecn,
        stride: meta.stride.clamp(1, meta.len),
        bytes: &mut buffer[..meta.len],
    }
}

/// IPv4 as such, and IPv6 without flow and scope, so that equal addresses are equal.
pub const fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// Asks for large buffers. The system may grant less, for instance up to `net.core.rmem_max`.
fn enlarge(socket: SockRef<'_>) {
    if let Err(error) = socket.set_recv_buffer_size(SOCKET_BUFFER_LEN) {
        log::debug!("the receive buffer stays as it is: {error}");
    }
    if let Err(error) = socket.set_send_buffer_size(SOCKET_BUFFER_LEN) {
        log::debug!("the send buffer stays as it is: {error}");
    }
    log::debug!(
        "udp buffers wanted={SOCKET_BUFFER_LEN} receive={:?} send={:?}",
        socket.recv_buffer_size(),
        socket.send_buffer_size()
    );
}
