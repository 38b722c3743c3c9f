//! Links over QUIC. This is the only module that depends on the QUIC implementation.
//!
//! A *link* is one QUIC connection to one device. This module owns the endpoint and its connections,
//! feeds them datagrams and time, and turns their events into [`TransportEvent`]s and byte streams. It
//! neither interprets the bytes nor decides which devices are authorised: it reports which device key
//! the other end has proved.
//!
//! Invariants:
//! - QUIC sees IPv6 addresses only. IPv4 addresses are mapped on receipt, and unmapped before sending.
//! - Every call into the implementation catches panics, unless a simulation turns that off: a panic in a
//!   connection loses that link, a panic in the endpoint loses all links, and neither ends the program.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::net::{IpAddr, SocketAddr, SocketAddrV6};
use std::num::{NonZeroU32, NonZeroUsize};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use common::key::{DeviceKey, DeviceSecret};
use common::limits::{
    AUTHORISE_TIMEOUT, HANDSHAKE_TIMEOUT, LEAF_STREAMS_MAX, LINK_IDLE_TIMEOUT,
    LINK_KEEP_ALIVE_INTERVAL, LINK_PATHS_MAX, LINK_WINDOW, LINKS_MAX, Occupancy, RETRY_FROM,
    STREAM_WINDOW, TRAVERSAL_ADDRESSES_MAX, UDP_PAYLOAD_LEN_MAX, UDP_TRAIN_LEN_MAX,
    UNACKNOWLEDGED_PACKETS_MAX, UNAUTHORISED_LINKS_MAX, UNAUTHORISED_WINDOW,
};
use common::tls;
use noq_proto::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use noq_proto::{
    ClientConfig, Connection, ConnectionError, ConnectionHandle, DatagramEvent, Dir, Endpoint,
    EndpointConfig, EndpointEvent, Event, FourTuple, HashedConnectionIdGenerator, IdleTimeout,
    Incoming, MtuDiscoveryConfig, ReadError, ServerConfig, StreamEvent, TransportConfig, VarInt,
};
use rustls::pki_types::CertificateDer;

// Detects links that acknowledge nothing.
mod ack_lag;
// Why links are lost.
mod loss;
// Bounds path MTU discovery by what the interfaces carry.
mod mtu;
// Relayed and direct paths of a link.
mod paths;
// Notices links that acknowledge nothing.
mod silence;
// Bounds the memory of received datagrams.
mod trains;
// What QUIC has not taken yet of each stream.
mod unsent;

pub use loss::Loss;
pub use noq_proto::StreamId;
pub use paths::{PathChange, PathRefused, PathReport, Route};
pub use unsent::LeafRank;

use super::io::{Datagrams, LocalAddress, Transmit};
use ack_lag::AckLag;
use paths::LinkPaths;
use silence::Silence;
use trains::Trains;
use unsent::Unsent;

/// Server name for the TLS library. It is not sent, and means nothing with raw public keys.
const SERVER_NAME: &str = "peer.invalid";
/// Largest number of datagrams in a train: Linux's UDP_MAX_SEGMENTS.
const TRAIN_DATAGRAMS_MAX: usize = 64;
/// The only QUIC version in use (RFC 9000).
const QUIC_V1: u32 = 1;
/// Identifies a link; never reused while the node runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkId(u64);

impl LinkId {
    /// The link's number, for programs that tell links of one device apart.
    pub const fn number(self) -> u64 {
        self.0
    }
}

#[cfg(test)]
impl LinkId {
    /// An id without a link.
    pub const fn for_test(n: u64) -> Self {
        Self(n)
    }
}

/// This end's role in a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// This end dialled.
    Client,
    /// The other end dialled.
    Server,
}

/// An event on a link.
#[expect(missing_docs, reason = "the fields' names and types say it all")]
#[derive(Debug)]
pub enum TransportEvent {
    /// The handshake is complete: the other end holds `device_key`.
    Connected {
        link: LinkId,
        side: Side,
        device_key: DeviceKey,
    },
    /// The link is lost. No event of it follows.
    Lost { link: LinkId, reason: Loss },
    /// The other side opened streams of one kind; [`Transport::accept`] returns them.
    Opened { link: LinkId, dir: StreamDir },
    /// A stream has bytes to read, or has ended.
    Readable { link: LinkId, stream: StreamId },
    /// The other side has acknowledged all bytes of a stream that this side finished.
    Finished { link: LinkId, stream: StreamId },
    /// A blocked stream accepts bytes again, or more streams may be opened.
    Writable { link: LinkId },
    /// Nothing of what is in flight was acknowledged for a while ([`Transport::is_silent`]).
    Silent { link: LinkId },
    /// Something happened to the paths of a link.
    Path { link: LinkId, change: PathChange },
}

/// The kind of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamDir {
    /// Bidirectional: the message stream.
    Bi,
    /// Unidirectional: a leaf stream.
    Uni,
}

/// Why this side closes a link; the values are the application error codes that the other side sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseReason {
    /// The link is no longer needed.
    Done = 0,
    /// The other side's key is not authorised.
    Unauthorised = 1,
    /// The other side violated the protocol.
    Protocol = 2,
    /// There is no common protocol version.
    Version = 3,
    /// The account of the other side's device, or of this one, has not approved its device.
    NotApproved = 4,
}

/// How a read ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadEnd {
    /// All bytes so far are read; more may follow.
    Blocked,
    /// The stream ended and all its bytes are read.
    Finished,
    /// The other side reset the stream, or the stream does not exist.
    Gone,
    /// The reader stopped early.
    Enough,
}

/// The endpoint and its links.
pub struct Transport {
    secret: DeviceSecret,
    seed: [u8; 32],
    generation: u8,
    endpoint: Endpoint,
    /// Configuration of inbound links.
    server: ServerConfig,
    /// The addresses of this host's interfaces.
    local: Vec<LocalAddress>,
    /// Peers may be on this host, because the server is.
    is_local: bool,
    links: BTreeMap<LinkId, Link>,
    by_handle: BTreeMap<usize, LinkId>,
    next_link: u64,
    trains: Trains,
    /// Links to be polled, because something happened to them.
    dirty: BTreeSet<LinkId>,
    timers: BTreeSet<(Instant, LinkId)>,
    events: VecDeque<TransportEvent>,
    /// Datagrams from the endpoint itself: retries, refusals, stateless resets.
    responses: VecDeque<(Transmit, Vec<u8>)>,
    /// Inbound links that are not authorised yet, with the deadline for it.
    unauthorised: BTreeMap<LinkId, Instant>,
    /// Whether panics of the QUIC implementation are caught.
    catches_panics: bool,
    /// Links that end by then end because the program stood still.
    wakes_until: Option<Instant>,
}

struct Link {
    handle: ConnectionHandle,
    connection: Connection,
    side: Side,
    ack_lag: AckLag,
    paths: LinkPaths,
    silence: Silence,
    timer: Option<Instant>,
    unsent: Unsent,
    is_lost: bool,
    /// The program stood still lately, while it was there.
    stood_still: Option<Duration>,
}

impl Transport {
    /// Creates an endpoint for the device with the key `secret`. `seed` is 32 random bytes.
    pub fn new(seed: [u8; 32], secret: DeviceSecret) -> Self {
        let server = server_config(&secret);
        Self {
            endpoint: new_endpoint(seed, 0, &secret, server.clone()),
            secret,
            seed,
            generation: 0,
            server,
            local: Vec::new(),
            is_local: false,
            links: BTreeMap::new(),
            by_handle: BTreeMap::new(),
            next_link: 0,
            trains: Trains::default(),
            dirty: BTreeSet::new(),
            timers: BTreeSet::new(),
            events: VecDeque::new(),
            responses: VecDeque::new(),
            unauthorised: BTreeMap::new(),
            catches_panics: true,
            wakes_until: None,
        }
    }

    /// Stops catching panics of the QUIC implementation, so that a simulation fails on them.
    pub(super) const fn propagate_panics(&mut self) {
        self.catches_panics = false;
    }

    /// Sets the addresses of this host's interfaces. What they carry bounds the path MTU discovery of links
    /// that begin later.
    pub fn set_local_addresses(&mut self, addresses: Vec<LocalAddress>) {
        self.local = addresses;
    }

    /// Occupancy of the received trains whose buffers are in use.
    pub(super) fn trains_occupancy(&self) -> Occupancy {
        self.trains.occupancy()
    }

    /// Number of inbound links that are not authorised yet.
    pub(super) fn unauthorised_len(&self) -> usize {
        self.unauthorised.len()
    }

    /// Processes the datagrams of one receive call.
    pub fn handle_datagrams(&mut self, datagrams: Datagrams, now: Instant) {
        let Datagrams {
            source,
            local,
            ecn,
            stride,
            mut bytes,
        } = datagrams;
        let path = FourTuple::new(mapped(source), local.map(mapped_ip));
        let is_copied = bytes.len() > stride && !self.trains.lend(&mut bytes);
        while !bytes.is_empty() {
            let mut datagram = bytes.split_to(stride.clamp(1, bytes.len()));
            if is_copied {
                datagram = BytesMut::from(&datagram[..]);
            }
            self.handle_datagram(path, ecn, datagram, now);
        }
    }

    /// Dials the device with the key `expected` at `remote`; `None` if the dial cannot even start.
    pub fn dial(
        &mut self,
        expected: DeviceKey,
        remote: SocketAddr,
        now: Instant,
    ) -> Option<LinkId> {
        let crypto = QuicClientConfig::try_from(tls::link_client_config(&self.secret, expected))
            .expect("the provider has the cipher suite of Initial packets");
        let mut config = ClientConfig::new(Arc::new(crypto));
        let ack_lag = AckLag::default();
        let mut transport =
            transport_config(LINK_WINDOW, LEAF_STREAMS_MAX, LINK_PATHS_MAX, &ack_lag);
        transport.mtu_discovery_config(Some(self.mtu_discovery(remote)));
        config.transport_config(Arc::new(transport));
        match self
            .endpoint
            .connect(now, config, mapped(remote), SERVER_NAME)
        {
            Ok((handle, connection)) => Some(self.add(handle, connection, Side::Client, ack_lag)),
            Err(error) => {
                log::debug!("cannot dial {remote}: {error}");
                None
            }
        }
    }

    /// Raises the limits of an inbound link, of flow control and of paths, to those of an authorised one.
    pub fn authorise(&mut self, link: LinkId, now: Instant) {
        if self.unauthorised.remove(&link).is_some() {
            self.with(link, |link| {
                // Fails if the other side uses one path only.
                let _ = link
                    .connection
                    .set_max_concurrent_paths(now, LINK_PATHS_MAX);
                link.connection.set_receive_window(LINK_WINDOW.into());
                link.connection
                    .set_max_concurrent_streams(Dir::Uni, LEAF_STREAMS_MAX.into());
            });
        }
    }

    /// Drops a link without telling the other end. No event follows.
    pub fn abandon(&mut self, link: LinkId) {
        if let Some(link) = self.links.get_mut(&link) {
            link.is_lost = true;
        }
        self.discard(link, "the link was abandoned");
    }

    /// Closes a link. No event follows.
    pub fn close(&mut self, link: LinkId, reason: CloseReason, now: Instant) {
        self.unauthorised.remove(&link);
        self.with(link, |link| {
            link.is_lost = true;
            link.connection
                .close(now, VarInt::from_u32(reason as u32), Bytes::new());
        });
    }

    /// Opens the message stream of a link that this end dialled.
    pub fn open_bi(&mut self, link: LinkId) -> Option<StreamId> {
        self.with(link, |link| link.connection.streams().open(Dir::Bi))
            .flatten()
    }

    /// Opens a stream for a leaf; `None` while as many are open as the other side allows.
    pub fn open_leaf(&mut self, link: LinkId, rank: LeafRank) -> Option<StreamId> {
        self.with(link, |link| {
            link.unsent.open_leaf(&mut link.connection, rank)
        })
        .flatten()
    }

    /// The next stream that the other side opened, if there is one.
    pub fn accept(&mut self, link: LinkId, dir: StreamDir) -> Option<StreamId> {
        let dir = match dir {
            StreamDir::Bi => Dir::Bi,
            StreamDir::Uni => Dir::Uni,
        };
        self.with(link, |link| link.connection.streams().accept(dir))
            .flatten()
    }

    /// Sends `bytes` on a stream, after those of earlier calls, and finishes the stream if `finish`.
    pub fn write(&mut self, link: LinkId, stream: StreamId, bytes: Bytes, finish: bool) {
        self.with(link, |link| {
            link.unsent.push(stream, bytes, finish);
            link.unsent.flush(stream, &mut link.connection);
        });
    }

    /// Tells whether QUIC has taken all bytes that were written on a stream.
    pub fn has_taken(&self, link: LinkId, stream: StreamId) -> bool {
        let link = self.links.get(&link);
        link.is_some_and(|link| link.unsent.is_taken(stream))
    }

    /// Number of leaves up to a rank with bytes that QUIC has not taken yet.
    pub fn unsent_leaves(&self, link: LinkId, rank: LeafRank) -> usize {
        let link = self.links.get(&link);
        link.map_or(0, |link| link.unsent.leaves(rank))
    }

    /// Bytes of all packets of a link that the other side has acknowledged, headers included.
    pub fn acknowledged_bytes(&self, link: LinkId) -> u64 {
        let link = self.links.get(&link);
        link.map_or(0, |link| link.ack_lag.acknowledged_bytes())
    }

    /// Passes the received bytes of a stream to `sink`, in order, until none are left or `sink` returns
    /// `false`.
    pub fn read(
        &mut self,
        link: LinkId,
        stream: StreamId,
        sink: &mut dyn FnMut(Bytes) -> bool,
    ) -> ReadEnd {
        self.with(link, |link| {
            let mut receive = link.connection.recv_stream(stream);
            let Ok(mut chunks) = receive.read(true) else {
                return ReadEnd::Gone;
            };
            loop {
                match chunks.next(usize::MAX) {
                    Ok(Some(chunk)) => {
                        if !sink(chunk.bytes) {
                            return ReadEnd::Enough;
                        }
                    }
                    Ok(None) => return ReadEnd::Finished,
                    Err(ReadError::Blocked) => return ReadEnd::Blocked,
                    Err(ReadError::Reset(_)) => return ReadEnd::Gone,
                }
            }
        })
        .unwrap_or(ReadEnd::Gone)
    }

    /// Asks the other side to stop sending on a stream (STOP_SENDING).
    pub fn stop(&mut self, link: LinkId, stream: StreamId) {
        self.with(link, |link| {
            // Fails only if the stream has ended already.
            let _ = link
                .connection
                .recv_stream(stream)
                .stop(VarInt::from_u32(0));
        });
    }

    /// Resets a stream that this end sends on: what is left of it is not sent.
    pub fn reset(&mut self, link: LinkId, stream: StreamId) {
        self.with(link, |link| {
            link.unsent.remove(stream);
            // Fails only if the stream has ended already.
            let _ = link
                .connection
                .send_stream(stream)
                .reset(VarInt::from_u32(0));
        });
    }

    /// The other end's address on the link's current path; `None` if that is relayed.
    pub fn remote(&self, link: LinkId) -> Option<SocketAddr> {
        match self.current_path(link)?.route {
            Route::Direct(remote) => Some(remote),
            Route::Relayed(_) => None,
        }
    }

    /// Handles the timers that have expired, and drops inbound links that were not authorised in time.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.end_of_standstill(now);
        while let Some((at, link)) = self.timers.first().copied()
            && at <= now
        {
            self.timers.pop_first();
            self.with(link, |link| link.handle_timeout(now));
            self.watch(link, now);
        }
        let late = self.unauthorised.iter().filter(|(_, until)| **until <= now);
        let late: Vec<LinkId> = late.map(|(link, _)| *link).collect();
        for link in late {
            self.discard(link, "the handshake did not complete in time");
        }
    }

    /// The next event.
    pub fn poll_event(&mut self) -> Option<TransportEvent> {
        if let Some(event) = self.events.pop_front() {
            return Some(event);
        }
        let dirty: Vec<LinkId> = self.dirty.iter().copied().collect();
        for link in dirty {
            self.collect(link);
        }
        self.events.pop_front()
    }

    /// Writes the next datagrams to send into `buffer`. Once it returns `None`, all timers are up to date.
    ///
    /// `pay` is called for each train, with its link and its length in bytes. If it returns `false`, the
    /// train is not sent and the link is abandoned.
    pub fn poll_transmit(
        &mut self,
        now: Instant,
        buffer: &mut Vec<u8>,
        pay: &mut dyn FnMut(LinkId, usize) -> bool,
    ) -> Option<Transmit> {
        if let Some((transmit, bytes)) = self.responses.pop_front() {
            buffer.extend_from_slice(&bytes);
            return Some(transmit);
        }
        while let Some(link) = self.dirty.first().copied() {
            let polled = self.with(link, |link| {
                let datagrams = train_datagrams(link.largest_mtu());
                link.connection.poll_transmit(now, datagrams, buffer)
            });
            match polled {
                // Dropped, as if lost on its way.
                Some(Some(transmit))
                    if !self.may_send(link, transmit.destination, transmit.size, now) => {}
                Some(Some(transmit)) if pay(link, transmit.size) => {
                    return Some(unmapped(transmit));
                }
                Some(Some(_)) => self.abandon(link),
                Some(None) | None => self.settle(link, now),
            }
            buffer.clear();
        }
        None
    }

    /// When [`Transport::handle_timeout`] is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let timer = self.timers.first().map(|(at, _)| *at);
        timer
            .into_iter()
            .chain(self.unauthorised.values().copied())
            .min()
    }

    /// Number of links that are not lost.
    pub fn link_count(&self) -> usize {
        self.links.values().filter(|link| !link.is_lost).count()
    }

    fn handle_datagram(
        &mut self,
        path: FourTuple,
        ecn: Option<noq_proto::EcnCodepoint>,
        datagram: BytesMut,
        now: Instant,
    ) {
        let mut answer = Vec::new();
        let endpoint = &mut self.endpoint;
        let handled = guarded(self.catches_panics, || {
            endpoint.handle(now, path, ecn, datagram, &mut answer)
        });
        match handled {
            Ok(Some(DatagramEvent::ConnectionEvent(handle, event))) => {
                if let Some(link) = self.by_handle.get(&handle.0).copied() {
                    self.with(link, |link| link.connection.handle_event(event));
                    self.give_up_if_unacknowledged(link);
                }
            }
            Ok(Some(DatagramEvent::NewConnection(incoming))) => self.on_incoming(incoming, now),
            Ok(Some(DatagramEvent::Response(transmit))) => self.respond(transmit, answer),
            Ok(None) => {}
            Err(Panicked) => self.rebuild(),
        }
    }

    /// Drops a link whose other end keeps sending but acknowledges nothing: the state kept for its packets
    /// would grow without bound.
    fn give_up_if_unacknowledged(&mut self, id: LinkId) {
        let behind = self
            .links
            .get(&id)
            .map(|link| link.ack_lag.unacknowledged());
        if behind.is_some_and(|packets| packets > UNACKNOWLEDGED_PACKETS_MAX) {
            self.discard(id, "the other side acknowledges nothing");
        }
    }

    /// Accepts an inbound link, demands address validation (Retry) or refuses, depending on the number of
    /// links that are not authorised yet.
    fn on_incoming(&mut self, incoming: Incoming, now: Instant) {
        let waiting = self.unauthorised.len();
        let links = self.link_count();
        let mut answer = Vec::new();
        let ack_lag = AckLag::default();
        let mut config = self.server.clone();
        let mut transport = transport_config(UNAUTHORISED_WINDOW, 0, NonZeroU32::MIN, &ack_lag);
        transport.mtu_discovery_config(Some(self.mtu_discovery(incoming.remote_address())));
        config.transport_config(Arc::new(transport));
        let endpoint = &mut self.endpoint;
        let accepted = guarded(self.catches_panics, || {
            if waiting >= UNAUTHORISED_LINKS_MAX || links >= LINKS_MAX {
                return Err(Some(endpoint.refuse(incoming, &mut answer)));
            }
            if waiting >= RETRY_FROM && !incoming.remote_address_validated() && incoming.may_retry()
            {
                return Err(endpoint.retry(incoming, &mut answer).ok());
            }
            endpoint
                .accept(incoming, now, &mut answer, Some(Arc::new(config)))
                .map_err(|error| error.response)
        });
        match accepted {
            Ok(Ok((handle, connection))) => {
                let link = self.add(handle, connection, Side::Server, ack_lag);
                self.unauthorised
                    .insert(link, now + HANDSHAKE_TIMEOUT + AUTHORISE_TIMEOUT);
            }
            Ok(Err(Some(transmit))) => self.respond(transmit, answer),
            Ok(Err(None)) => {}
            Err(Panicked) => self.rebuild(),
        }
    }

    fn mtu_discovery(&self, remote: SocketAddr) -> MtuDiscoveryConfig {
        let mut config = MtuDiscoveryConfig::default();
        config.upper_bound(mtu::payload_max(&self.local, remote.ip()));
        config
    }

    fn respond(&mut self, transmit: noq_proto::Transmit, bytes: Vec<u8>) {
        if self.responses.len() < UNAUTHORISED_LINKS_MAX {
            self.responses.push_back((unmapped(transmit), bytes));
        }
    }

    fn add(
        &mut self,
        handle: ConnectionHandle,
        connection: Connection,
        side: Side,
        ack_lag: AckLag,
    ) -> LinkId {
        let id = LinkId(self.next_link);
        self.next_link += 1;
        let link = Link {
            handle,
            connection,
            side,
            ack_lag,
            paths: LinkPaths::default(),
            silence: Silence::default(),
            timer: None,
            unsent: Unsent::default(),
            is_lost: false,
            stood_still: None,
        };
        self.links.insert(id, link);
        self.by_handle.insert(handle.0, id);
        self.dirty.insert(id);
        id
    }

    /// Runs `step` on a link and marks the link to be polled. A panic loses the link.
    fn with<T>(&mut self, id: LinkId, step: impl FnOnce(&mut Link) -> T) -> Option<T> {
        let link = self.links.get_mut(&id)?;
        self.dirty.insert(id);
        match guarded(self.catches_panics, || step(link)) {
            Ok(value) => Some(value),
            Err(Panicked) => {
                self.discard(id, "internal error: the QUIC implementation panicked");
                None
            }
        }
    }

    /// Turns a connection's events into [`TransportEvent`]s.
    fn collect(&mut self, id: LinkId) {
        self.exchange(id);
        while let Some(Some(event)) = self.with(id, |link| link.connection.poll()) {
            self.on_event(id, event);
        }
    }

    fn on_event(&mut self, id: LinkId, event: Event) {
        match event {
            Event::Connected => self.on_connected(id),
            Event::ConnectionLost { reason } => self.on_lost(id, &reason),
            Event::Stream(StreamEvent::Opened { dir }) => {
                let dir = match dir {
                    Dir::Bi => StreamDir::Bi,
                    Dir::Uni => StreamDir::Uni,
                };
                self.events
                    .push_back(TransportEvent::Opened { link: id, dir });
            }
            Event::Stream(StreamEvent::Readable { id: stream }) => {
                self.events
                    .push_back(TransportEvent::Readable { link: id, stream });
            }
            Event::Stream(StreamEvent::Writable { id: stream }) => {
                self.with(id, |link| {
                    link.unsent.flush(stream, &mut link.connection);
                });
                self.events.push_back(TransportEvent::Writable { link: id });
            }
            Event::Stream(StreamEvent::Available { .. }) => {
                self.events.push_back(TransportEvent::Writable { link: id });
            }
            Event::Stream(StreamEvent::Stopped { id: stream, .. }) => self.reset(id, stream),
            Event::Stream(StreamEvent::Finished { id: stream }) => {
                self.events
                    .push_back(TransportEvent::Finished { link: id, stream });
            }
            Event::HandshakeDataReady
            | Event::HandshakeConfirmed
            | Event::DatagramReceived
            | Event::DatagramsUnblocked => {}
            Event::Path(event) => self.on_path_event(id, &event),
            Event::NatTraversal(_) => {
                let change = PathChange::AddressesOffered;
                self.events
                    .push_back(TransportEvent::Path { link: id, change });
            }
        }
    }

    fn on_connected(&mut self, id: LinkId) {
        let Some(link) = self.links.get_mut(&id) else {
            return;
        };
        let identity = link.connection.crypto_session().peer_identity();
        let certificates =
            identity.and_then(|any| any.downcast::<Vec<CertificateDer<'static>>>().ok());
        let device_key = certificates.and_then(|certificates| tls::link_device_key(&certificates));
        match device_key {
            Some(device_key) => {
                link.paths.on_connected(&link.connection);
                let side = link.side;
                self.events.push_back(TransportEvent::Connected {
                    link: id,
                    side,
                    device_key,
                });
            }
            None => self.discard(id, "the other side proved no device key"),
        }
    }

    fn on_lost(&mut self, id: LinkId, reason: &ConnectionError) {
        self.unauthorised.remove(&id);
        let stood_still = self.links.get(&id).and_then(|link| link.stood_still);
        self.report_lost(id, loss::loss(reason, stood_still));
    }

    /// Reports a link as lost, unless it was reported or closed before.
    fn report_lost(&mut self, id: LinkId, reason: Loss) {
        if let Some(link) = self.links.get_mut(&id)
            && !std::mem::replace(&mut link.is_lost, true)
        {
            self.events
                .push_back(TransportEvent::Lost { link: id, reason });
        }
    }

    /// Exchanges events between a connection and the endpoint. Removes links that are drained.
    fn exchange(&mut self, id: LinkId) {
        while let Some(Some(event)) = self.with(id, |link| link.connection.poll_endpoint_events()) {
            let is_drained = event.is_drained();
            let Some(handle) = self.links.get(&id).map(|link| link.handle) else {
                return;
            };
            let endpoint = &mut self.endpoint;
            match guarded(self.catches_panics, || endpoint.handle_event(handle, event)) {
                Ok(Some(answer)) => {
                    self.with(id, |link| link.connection.handle_event(answer));
                }
                Ok(None) => {}
                Err(Panicked) => return self.rebuild(),
            }
            if is_drained {
                // Its last events, which tell why it ended.
                while let Some(Some(event)) = self.with(id, |link| link.connection.poll()) {
                    self.on_event(id, event);
                }
                return self.remove(id);
            }
        }
    }

    /// Stops polling a link that has nothing more to send, and updates its timers.
    fn settle(&mut self, id: LinkId, now: Instant) {
        self.collect(id);
        let has_more = self.with(id, |link| link.settle(now));
        if has_more == Some(true) {
            return;
        }
        self.dirty.remove(&id);
        let Some(link) = self.links.get_mut(&id) else {
            return;
        };
        let due = link.poll_timeout();
        if link.timer != due {
            if let Some(at) = link.timer {
                self.timers.remove(&(at, id));
            }
            if let Some(at) = due {
                self.timers.insert((at, id));
            }
            link.timer = due;
        }
    }

    fn remove(&mut self, id: LinkId) {
        self.report_lost(id, Loss::other("the connection ended"));
        self.dirty.remove(&id);
        self.unauthorised.remove(&id);
        if let Some(link) = self.links.remove(&id) {
            self.by_handle.remove(&link.handle.0);
            if let Some(at) = link.timer {
                self.timers.remove(&(at, id));
            }
        }
    }

    /// Drops a link without asking its connection, which may be in any state.
    fn discard(&mut self, id: LinkId, reason: &str) {
        let Some(handle) = self.links.get(&id).map(|link| link.handle) else {
            return;
        };
        self.report_lost(id, Loss::other(reason));
        self.remove(id);
        let endpoint = &mut self.endpoint;
        let drained = || endpoint.handle_event(handle, EndpointEvent::drained());
        if guarded(self.catches_panics, drained).is_err() {
            self.rebuild();
        }
    }

    /// Replaces an endpoint that has panicked. All links are lost; the caller dials again.
    fn rebuild(&mut self) {
        self.generation = self.generation.wrapping_add(1);
        let server = self.server.clone();
        self.endpoint = new_endpoint(self.seed, self.generation, &self.secret, server);
        let ids: Vec<LinkId> = self.links.keys().copied().collect();
        for id in ids {
            self.remove(id);
        }
        self.by_handle.clear();
    }
}

impl fmt::Debug for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Transport({} links)", self.links.len())
    }
}

struct Panicked;

/// Runs code of the QUIC implementation; catches its panics if `catches_panics`.
fn guarded<T>(catches_panics: bool, step: impl FnOnce() -> T) -> Result<T, Panicked> {
    if catches_panics {
        catch_unwind(AssertUnwindSafe(step)).map_err(|_| Panicked)
    } else {
        Ok(step())
    }
}

/// Creates an endpoint. Each `generation` draws other random numbers from the same `seed`.
fn new_endpoint(
    mut seed: [u8; 32],
    generation: u8,
    secret: &DeviceSecret,
    server: ServerConfig,
) -> Endpoint {
    seed[0] ^= generation;
    // The keys survive a restart, so that the device can end the links of its previous run with
    // stateless resets (RFC 9000 section 10.3).
    let lasting = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, secret.seed());
    let derive = |purpose: &[u8]| aws_lc_rs::hmac::sign(&lasting, purpose);
    let reset_key = derive(b"QUIC stateless reset");
    let reset_key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, reset_key.as_ref());
    let cid_tag = derive(b"QUIC connection ids");
    let cid_key = cid_tag.as_ref().first_chunk();
    let cid_key = u64::from_le_bytes(*cid_key.expect("a SHA-256 tag has 32 bytes"));
    let mut config = EndpointConfig::new(Arc::new(reset_key));
    config.cid_generator(Arc::new(move || {
        Box::new(HashedConnectionIdGenerator::from_key(cid_key))
    }));
    config.grease_quic_bit(false);
    config.supported_versions(vec![QUIC_V1]);
    config.rng_seed(Some(seed));
    config
        .max_udp_payload_size(UDP_PAYLOAD_LEN_MAX)
        .expect("the limit is within the bounds of QUIC");
    Endpoint::new(Arc::new(config), Some(Arc::new(server)), true)
}

fn server_config(secret: &DeviceSecret) -> ServerConfig {
    let crypto = QuicServerConfig::try_from(tls::link_server_config(secret))
        .expect("the provider has the cipher suite of Initial packets");
    let mut server = ServerConfig::with_crypto(Arc::new(crypto));
    server.max_incoming(UNAUTHORISED_LINKS_MAX);
    server.incoming_buffer_size(UNAUTHORISED_WINDOW.into());
    server
        .incoming_buffer_size_total(u64::from(UNAUTHORISED_WINDOW) * UNAUTHORISED_LINKS_MAX as u64);
    server
}

fn transport_config(
    receive_window: u32,
    leaf_streams: u32,
    paths: NonZeroU32,
    ack_lag: &AckLag,
) -> TransportConfig {
    let addresses = u8::try_from(TRAVERSAL_ADDRESSES_MAX).expect("the limit is a few dozen");
    let idle_timeout = IdleTimeout::try_from(LINK_IDLE_TIMEOUT);
    let idle_timeout = idle_timeout.expect("the limit is within the bounds of QUIC");
    let mut config = TransportConfig::default();
    config
        .max_concurrent_bidi_streams(1u32.into())
        .max_concurrent_uni_streams(leaf_streams.into())
        .receive_window(receive_window.into())
        .stream_receive_window(STREAM_WINDOW.into())
        .send_window(LINK_WINDOW.into())
        // Otherwise a stream that has begun goes on to its end, whatever the priority of others.
        .send_fairness(true)
        .max_idle_timeout(Some(idle_timeout))
        .keep_alive_interval(Some(LINK_KEEP_ALIVE_INTERVAL))
        .max_concurrent_multipath_paths(paths.get())
        .max_remote_nat_traversal_addresses(addresses)
        // Of paths that are not validated yet. Those that are get their own.
        .default_path_max_idle_timeout(Some(LINK_IDLE_TIMEOUT))
        .datagram_receive_buffer_size(None)
        .congestion_controller_factory(Arc::new(ack_lag.clone()));
    config
}

/// The number of datagrams of `mtu` bytes that fit a train.
fn train_datagrams(mtu: u16) -> NonZeroUsize {
    let datagrams = (UDP_TRAIN_LEN_MAX / usize::from(mtu)).clamp(1, TRAIN_DATAGRAMS_MAX);
    NonZeroUsize::new(datagrams).expect("clamped to at least one")
}

/// The address as QUIC sees it: of IPv6.
fn mapped(address: SocketAddr) -> SocketAddr {
    match address {
        SocketAddr::V4(v4) => SocketAddrV6::new(v4.ip().to_ipv6_mapped(), v4.port(), 0, 0).into(),
        SocketAddr::V6(_) => address,
    }
}

fn mapped_ip(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().into(),
        IpAddr::V6(_) => ip,
    }
}

fn unmapped(transmit: noq_proto::Transmit) -> Transmit {
    Transmit {
        destination: common::stun::canonical(transmit.destination),
        ecn: transmit.ecn,
        size: transmit.size,
        segment_size: transmit.segment_size,
        source: transmit.src_ip.map(|ip| ip.to_canonical()),
    }
}

#[cfg(test)]
mod tests;
