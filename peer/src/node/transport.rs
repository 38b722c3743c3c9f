//! QUIC: the only module that knows which implementation carries the links.
//!
//! A *link* is one QUIC connection to one device. This module owns the endpoint and its connections,
//! feeds them datagrams and time, and turns what they say into [`TransportEvent`]s and byte streams. It
//! does not know what the bytes mean, nor who may talk to us: it only tells which device key the other
//! end has proved.
//!
//! Invariants:
//! - QUIC sees IPv6 addresses only; IPv4 is mapped on the way in and back on the way out.
//! - Each call into a connection is guarded, unless a simulation wants to see it: a panic in the
//!   implementation costs that link, a panic in the endpoint costs all links, and neither costs the program.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::net::{IpAddr, SocketAddr, SocketAddrV6};
use std::num::NonZeroUsize;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use common::key::{DeviceKey, DeviceSecret};
use common::limits::{
    AUTHORISE_DEADLINE, Fill, HANDSHAKE_DEADLINE, LEAF_STREAMS_MAX, LINK_IDLE_MAX, LINK_KEEP_ALIVE,
    LINK_WINDOW, LINKS_MAX, RETRY_ABOVE, STREAM_WINDOW, UDP_PAYLOAD_MAX,
    UNACKNOWLEDGED_PACKETS_MAX, UNAUTHORISED_LINKS_MAX, UNAUTHORISED_WINDOW,
};
use common::tls;
use noq_proto::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use noq_proto::{
    ClientConfig, Connection, ConnectionError, ConnectionHandle, DatagramEvent, Dir, Endpoint,
    EndpointConfig, EndpointEvent, Event, FourTuple, HashedConnectionIdGenerator, IdleTimeout,
    Incoming, MtuDiscoveryConfig, PathId, ReadError, ServerConfig, StreamEvent, TransportConfig,
    VarInt, WriteError,
};
use rustls::pki_types::CertificateDer;

// What keeps the memory of datagrams.
mod trains;
// Who acknowledges nothing.
mod ack_lag;

pub use noq_proto::StreamId;

use super::{Datagrams, Transmit};
use ack_lag::AckLag;
use trains::Trains;

/// Name in the TLS handshake; raw public keys make it meaningless, and it is not sent.
const SERVER_NAME: &str = "peer.invalid";
/// Largest train of datagrams that one system call can take (the IPv4 length field counts to 65,535).
const TRAIN_LEN_MAX: usize = 65_000;
/// Most datagrams in a train: Linux's UDP_MAX_SEGMENTS.
const TRAIN_DATAGRAMS_MAX: usize = 64;
/// RFC 9000; no draft of it.
const QUIC_V1: u32 = 1;
/// Below the message stream: chat goes first.
const LEAF_PRIORITY: i32 = -1;

/// Identifies a link as long as the node runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkId(u64);

#[cfg(test)]
impl LinkId {
    /// A link that is only a name.
    pub const fn for_test(n: u64) -> Self {
        Self(n)
    }
}

/// Which of the two ends dialled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// We did.
    Client,
    /// The other device did.
    Server,
}

/// Something that happened to a link.
#[derive(Debug)]
pub enum TransportEvent {
    /// The handshake is complete: the other end holds `device_key`.
    Connected {
        /// Which link.
        link: LinkId,
        /// Which end we are.
        side: Side,
        /// The key.
        device_key: DeviceKey,
    },
    /// It is gone. Nothing follows.
    Lost {
        /// Which link.
        link: LinkId,
        /// Why, in words.
        reason: String,
    },
    /// The other side opened streams.
    Opened {
        /// On which link.
        link: LinkId,
        /// Of which kind.
        dir: StreamDir,
    },
    /// A stream has something to read.
    Readable {
        /// Of which link.
        link: LinkId,
        /// Which stream.
        stream: StreamId,
    },
    /// All bytes of a stream that we finished are acknowledged.
    Finished {
        /// Of which link.
        link: LinkId,
        /// Which stream.
        stream: StreamId,
    },
    /// A stream that was full takes bytes again, or more streams may be opened.
    Writable {
        /// Of which link.
        link: LinkId,
    },
}

/// Kinds of streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamDir {
    /// Both ways: the message stream.
    Bi,
    /// One way: a leaf.
    Uni,
}

/// Why a link is closed from our side; the code that the other side sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseReason {
    /// Nothing more to do.
    Done = 0,
    /// The other side's key is not authorised.
    Unauthorised = 1,
    /// The other side broke the protocol.
    Protocol = 2,
    /// No common version.
    Version = 3,
}

/// How a read ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadEnd {
    /// More may come.
    Blocked,
    /// That was all.
    Finished,
    /// The other side gave the stream up, or it is not there.
    Gone,
    /// The reader had enough for now.
    Enough,
}

/// The endpoint and its links.
pub struct Transport {
    secret: DeviceSecret,
    seed: [u8; 32],
    generation: u8,
    endpoint: Endpoint,
    /// What each inbound link starts with.
    server: ServerConfig,
    links: BTreeMap<LinkId, Link>,
    by_handle: BTreeMap<usize, LinkId>,
    next_link: u64,
    trains: Trains,
    dirty: BTreeSet<LinkId>,
    timers: BTreeSet<(Instant, LinkId)>,
    events: VecDeque<TransportEvent>,
    /// Datagrams that the endpoint itself answers with: retries, refusals, resets.
    responses: VecDeque<(Transmit, Vec<u8>)>,
    /// Inbound links that may not talk yet, and until when they may try.
    unauthorised: BTreeMap<LinkId, Instant>,
    /// Whether panics of the QUIC implementation are caught.
    catches: bool,
}

struct Link {
    handle: ConnectionHandle,
    connection: Connection,
    side: Side,
    ack_lag: AckLag,
    timer: Option<Instant>,
    /// Bytes accepted from us that the streams did not take yet.
    unsent: BTreeMap<StreamId, Unsent>,
    is_lost: bool,
}

#[derive(Default)]
struct Unsent {
    pieces: VecDeque<Bytes>,
    finish: bool,
}

impl Transport {
    /// Makes an endpoint for the device `secret`. `seed` is 32 random bytes.
    pub fn new(seed: [u8; 32], secret: DeviceSecret) -> Self {
        let server = server_config(&secret);
        Self {
            endpoint: new_endpoint(seed, 0, &secret, server.clone()),
            secret,
            seed,
            generation: 0,
            server,
            links: BTreeMap::new(),
            by_handle: BTreeMap::new(),
            next_link: 0,
            trains: Trains::default(),
            dirty: BTreeSet::new(),
            timers: BTreeSet::new(),
            events: VecDeque::new(),
            responses: VecDeque::new(),
            unauthorised: BTreeMap::new(),
            catches: true,
        }
    }

    /// Lets panics of the QUIC implementation through from now on.
    pub(super) const fn catch_no_panics(&mut self) {
        self.catches = false;
    }

    /// How many trains of datagrams somebody holds a part of.
    pub(super) fn trains_fill(&self) -> Fill {
        self.trains.fill()
    }

    /// Inbound links that may not talk yet.
    pub(super) fn unauthorised_len(&self) -> usize {
        self.unauthorised.len()
    }

    /// Takes the datagrams of one receive call.
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

    /// Dials the device with `expected` at `remote`.
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
        let transport = transport_config(LINK_WINDOW, LEAF_STREAMS_MAX, &ack_lag);
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

    /// Lets an inbound link send as much as any other from now on.
    pub fn authorise(&mut self, link: LinkId) {
        if self.unauthorised.remove(&link).is_some() {
            self.with(link, |link| {
                link.connection.set_receive_window(LINK_WINDOW.into());
                link.connection
                    .set_max_concurrent_streams(Dir::Uni, LEAF_STREAMS_MAX.into());
            });
        }
    }

    /// Forgets a link without a word to the other end. No event follows.
    pub fn abandon(&mut self, link: LinkId) {
        if let Some(link) = self.links.get_mut(&link) {
            link.is_lost = true;
        }
        self.discard(link, "given up");
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

    /// Opens the message stream of a link that we dialled.
    pub fn open_bi(&mut self, link: LinkId) -> Option<StreamId> {
        self.with(link, |link| link.connection.streams().open(Dir::Bi))
            .flatten()
    }

    /// Opens a stream for a leaf; `None` while as many as the other side allows are open.
    pub fn open_leaf(&mut self, link: LinkId) -> Option<StreamId> {
        self.with(link, |link| {
            let stream = link.connection.streams().open(Dir::Uni)?;
            link.connection
                .send_stream(stream)
                .set_priority(LEAF_PRIORITY)
                .ok()?;
            Some(stream)
        })
        .flatten()
    }

    /// The next stream that the other side opened.
    pub fn accept(&mut self, link: LinkId, dir: StreamDir) -> Option<StreamId> {
        let dir = match dir {
            StreamDir::Bi => Dir::Bi,
            StreamDir::Uni => Dir::Uni,
        };
        self.with(link, |link| link.connection.streams().accept(dir))
            .flatten()
    }

    /// Sends `bytes` on a stream, after what was given before, and ends the stream if `finish`.
    pub fn write(&mut self, link: LinkId, stream: StreamId, bytes: Bytes, finish: bool) {
        self.with(link, |link| {
            let unsent = link.unsent.entry(stream).or_default();
            if !bytes.is_empty() {
                unsent.pieces.push_back(bytes);
            }
            unsent.finish |= finish;
            link.flush(stream);
        });
    }

    /// Streams of a link that hold bytes which QUIC did not take yet.
    pub fn unsent_streams(&self, link: LinkId) -> usize {
        self.links.get(&link).map_or(0, |link| link.unsent.len())
    }

    /// Hands on what a stream holds, in order, until it is drained or `sink` has had enough.
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

    /// Tells the other side that nobody reads this stream.
    pub fn stop(&mut self, link: LinkId, stream: StreamId) {
        self.with(link, |link| {
            // A stream that has ended meanwhile needs no stopping.
            let _ = link
                .connection
                .recv_stream(stream)
                .stop(VarInt::from_u32(0));
        });
    }

    /// Gives up sending on a stream.
    fn reset(&mut self, link: LinkId, stream: StreamId) {
        self.with(link, |link| {
            link.unsent.remove(&stream);
            // A stream that has ended meanwhile needs no reset.
            let _ = link
                .connection
                .send_stream(stream)
                .reset(VarInt::from_u32(0));
        });
    }

    /// The address at the other end, as packets carry it.
    pub fn remote(&self, link: LinkId) -> Option<SocketAddr> {
        let path = self
            .links
            .get(&link)?
            .connection
            .network_path(PathId::ZERO)
            .ok()?;
        Some(common::stun::canonical(path.remote()))
    }

    /// Lets links whose timers have passed act.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some((at, link)) = self.timers.first().copied()
            && at <= now
        {
            self.timers.pop_first();
            self.with(link, |link| {
                link.timer = None;
                link.connection.handle_timeout(now);
            });
        }
        let late = self.unauthorised.iter().filter(|(_, until)| **until <= now);
        let late: Vec<LinkId> = late.map(|(link, _)| *link).collect();
        for link in late {
            self.discard(link, "it did not finish its handshake in time");
        }
    }

    /// The next thing that happened.
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

    /// The next datagrams to send. Once it returns `None` all timers are up to date.
    ///
    /// `pay` is asked for each train, by its link and its bytes. If it refuses, nothing is sent and the
    /// link is abandoned.
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
                let datagrams = train(link.connection.current_mtu());
                link.connection.poll_transmit(now, datagrams, buffer)
            });
            match polled {
                Some(Some(transmit)) if pay(link, transmit.size) => {
                    return Some(unmapped(transmit));
                }
                Some(Some(_)) => self.abandon(link),
                Some(None) | None => self.settle(link),
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

    /// Links that are not lost.
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
        let handled = guarded(self.catches, || {
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

    /// Drops a link whose other end talks but acknowledges nothing: all that it was ever sent would have
    /// to be remembered.
    fn give_up_if_unacknowledged(&mut self, id: LinkId) {
        let behind = self
            .links
            .get(&id)
            .map(|link| link.ack_lag.unacknowledged());
        if behind.is_some_and(|packets| packets > UNACKNOWLEDGED_PACKETS_MAX) {
            self.discard(id, "the other side acknowledges nothing");
        }
    }

    /// Accepts, slows down or refuses a newcomer, by how many others are not authorised yet.
    fn on_incoming(&mut self, incoming: Incoming, now: Instant) {
        let waiting = self.unauthorised.len();
        let links = self.link_count();
        let mut answer = Vec::new();
        let ack_lag = AckLag::default();
        let mut config = self.server.clone();
        let transport = transport_config(UNAUTHORISED_WINDOW, 0, &ack_lag);
        config.transport_config(Arc::new(transport));
        let endpoint = &mut self.endpoint;
        let accepted = guarded(self.catches, || {
            if waiting >= UNAUTHORISED_LINKS_MAX || links >= LINKS_MAX {
                return Err(Some(endpoint.refuse(incoming, &mut answer)));
            }
            if waiting >= RETRY_ABOVE
                && !incoming.remote_address_validated()
                && incoming.may_retry()
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
                    .insert(link, now + HANDSHAKE_DEADLINE + AUTHORISE_DEADLINE);
            }
            Ok(Err(Some(transmit))) => self.respond(transmit, answer),
            Ok(Err(None)) => {}
            Err(Panicked) => self.rebuild(),
        }
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
            timer: None,
            unsent: BTreeMap::new(),
            is_lost: false,
        };
        self.links.insert(id, link);
        self.by_handle.insert(handle.0, id);
        self.dirty.insert(id);
        id
    }

    /// Does something with a link and notes that it must be polled. A panic loses the link.
    fn with<T>(&mut self, id: LinkId, step: impl FnOnce(&mut Link) -> T) -> Option<T> {
        let link = self.links.get_mut(&id)?;
        self.dirty.insert(id);
        match guarded(self.catches, || step(link)) {
            Ok(value) => Some(value),
            Err(Panicked) => {
                self.discard(id, "the QUIC implementation failed on this link");
                None
            }
        }
    }

    /// Turns what a connection has to say into our events.
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
                self.with(id, |link| link.flush(stream));
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
            | Event::DatagramsUnblocked
            | Event::Path(_)
            | Event::NatTraversal(_) => {}
        }
    }

    fn on_connected(&mut self, id: LinkId) {
        let Some(link) = self.links.get(&id) else {
            return;
        };
        let identity = link.connection.crypto_session().peer_identity();
        let certificates =
            identity.and_then(|any| any.downcast::<Vec<CertificateDer<'static>>>().ok());
        let device_key = certificates.and_then(|certificates| tls::link_device_key(&certificates));
        match device_key {
            Some(device_key) => {
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
        if let Some(link) = self.links.get_mut(&id)
            && !link.is_lost
        {
            link.is_lost = true;
            let reason = describe(reason);
            self.events
                .push_back(TransportEvent::Lost { link: id, reason });
        }
    }

    /// Carries events between a connection and the endpoint. Removes links that are drained.
    fn exchange(&mut self, id: LinkId) {
        while let Some(Some(event)) = self.with(id, |link| link.connection.poll_endpoint_events()) {
            let is_drained = event.is_drained();
            let Some(handle) = self.links.get(&id).map(|link| link.handle) else {
                return;
            };
            let endpoint = &mut self.endpoint;
            match guarded(self.catches, || endpoint.handle_event(handle, event)) {
                Ok(Some(answer)) => {
                    self.with(id, |link| link.connection.handle_event(answer));
                }
                Ok(None) => {}
                Err(Panicked) => return self.rebuild(),
            }
            if is_drained {
                // What it still has to say, above all why it ended.
                while let Some(Some(event)) = self.with(id, |link| link.connection.poll()) {
                    self.on_event(id, event);
                }
                return self.remove(id);
            }
        }
    }

    /// Ends the polling of a link that has nothing more to send.
    fn settle(&mut self, id: LinkId) {
        self.collect(id);
        self.dirty.remove(&id);
        let Some(link) = self.links.get_mut(&id) else {
            return;
        };
        let due = link.connection.poll_timeout();
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
        self.dirty.remove(&id);
        self.unauthorised.remove(&id);
        if let Some(link) = self.links.remove(&id) {
            self.by_handle.remove(&link.handle.0);
            if let Some(at) = link.timer {
                self.timers.remove(&(at, id));
            }
            if !link.is_lost {
                let reason = "the connection ended".to_owned();
                self.events
                    .push_back(TransportEvent::Lost { link: id, reason });
            }
        }
    }

    /// Drops a link without asking its connection, which may be in any state.
    fn discard(&mut self, id: LinkId, reason: &str) {
        let Some(link) = self.links.get_mut(&id) else {
            return;
        };
        let handle = link.handle;
        if !std::mem::replace(&mut link.is_lost, true) {
            let reason = reason.to_owned();
            self.events
                .push_back(TransportEvent::Lost { link: id, reason });
        }
        self.remove(id);
        let endpoint = &mut self.endpoint;
        let drained = || endpoint.handle_event(handle, EndpointEvent::drained());
        if guarded(self.catches, drained).is_err() {
            self.rebuild();
        }
    }

    /// Starts anew after the endpoint itself failed: all links are lost and dialled again above.
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

impl Link {
    /// Moves bytes into a stream until it takes no more.
    fn flush(&mut self, stream: StreamId) {
        let Some(unsent) = self.unsent.get_mut(&stream) else {
            return;
        };
        let mut send = self.connection.send_stream(stream);
        while !unsent.pieces.is_empty() {
            let pieces = unsent.pieces.make_contiguous();
            let before = pieces.len();
            let mut rest = &mut *pieces;
            match send.write_chunks(&mut rest) {
                Ok(_) => {
                    let done = before - rest.len();
                    unsent.pieces.drain(..done);
                    if done == 0 {
                        // A partial piece: there may be room for no more, which the next call tells.
                        continue;
                    }
                }
                Err(WriteError::Blocked) => return,
                Err(WriteError::Stopped(_) | WriteError::ClosedStream) => {
                    self.unsent.remove(&stream);
                    return;
                }
            }
        }
        if unsent.finish {
            // A stream that the other side stopped meanwhile needs no end.
            let _ = send.finish();
        }
        self.unsent.remove(&stream);
    }
}

struct Panicked;

/// Runs code of the QUIC implementation, and catches its panics if `catches`.
fn guarded<T>(catches: bool, step: impl FnOnce() -> T) -> Result<T, Panicked> {
    if catches {
        catch_unwind(AssertUnwindSafe(step)).map_err(|_| Panicked)
    } else {
        Ok(step())
    }
}

fn new_endpoint(
    seed: [u8; 32],
    generation: u8,
    secret: &DeviceSecret,
    server: ServerConfig,
) -> Endpoint {
    let mut seed = seed;
    seed[0] ^= generation;
    // The same after a restart, so that whoever still talks to the device as it was is told at once
    // that it is not there any more (RFC 9000 section 10.3).
    let lasting = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, secret.seed());
    let derive = |purpose: &[u8]| aws_lc_rs::hmac::sign(&lasting, purpose);
    let reset_key = derive(b"QUIC stateless reset");
    let reset_key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, reset_key.as_ref());
    let cid_key = derive(b"QUIC connection ids");
    let cid_key = cid_key
        .as_ref()
        .first_chunk()
        .expect("a SHA-256 tag has 32 bytes");
    let cid_key = u64::from_le_bytes(*cid_key);
    let mut config = EndpointConfig::new(Arc::new(reset_key));
    config.cid_generator(Arc::new(move || {
        Box::new(HashedConnectionIdGenerator::from_key(cid_key))
    }));
    config.grease_quic_bit(false);
    config.supported_versions(vec![QUIC_V1]);
    config.rng_seed(Some(seed));
    config
        .max_udp_payload_size(UDP_PAYLOAD_MAX)
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

fn transport_config(receive_window: u32, leaf_streams: u32, ack_lag: &AckLag) -> TransportConfig {
    let mut config = TransportConfig::default();
    let mut mtu = MtuDiscoveryConfig::default();
    mtu.upper_bound(UDP_PAYLOAD_MAX);
    config
        .max_concurrent_bidi_streams(1u32.into())
        .max_concurrent_uni_streams(leaf_streams.into())
        .receive_window(receive_window.into())
        .stream_receive_window(STREAM_WINDOW.into())
        .send_window(LINK_WINDOW.into())
        .send_fairness(false)
        .max_idle_timeout(Some(idle_timeout(LINK_IDLE_MAX)))
        .keep_alive_interval(Some(LINK_KEEP_ALIVE))
        .datagram_receive_buffer_size(None)
        .congestion_controller_factory(Arc::new(ack_lag.clone()))
        .mtu_discovery_config(Some(mtu));
    config
}

fn idle_timeout(span: Duration) -> IdleTimeout {
    IdleTimeout::try_from(span).expect("the limit is within the bounds of QUIC")
}

fn train(mtu: u16) -> NonZeroUsize {
    let datagrams = (TRAIN_LEN_MAX / usize::from(mtu)).clamp(1, TRAIN_DATAGRAMS_MAX);
    NonZeroUsize::new(datagrams).expect("clamped to at least one")
}

fn describe(reason: &ConnectionError) -> String {
    match reason {
        ConnectionError::TimedOut => "no answer".to_owned(),
        ConnectionError::Reset => "the other side has restarted".to_owned(),
        ConnectionError::ApplicationClosed(close) => match close.error_code.into_inner() {
            1 => "the other side does not know this device".to_owned(),
            2 => "the other side says that we broke the protocol".to_owned(),
            3 => "the other side speaks another version; upgrade the older of the two".to_owned(),
            _ => "the other side closed the connection".to_owned(),
        },
        ConnectionError::LocallyClosed => "closed".to_owned(),
        ConnectionError::VersionMismatch
        | ConnectionError::TransportError(_)
        | ConnectionError::ConnectionClosed(_)
        | ConnectionError::CidsExhausted => format!("the connection failed: {reason}"),
    }
}

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
