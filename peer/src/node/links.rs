//! Links to other devices: authorisation, greeting, frames and leaves.
//!
//! Owns the transport, the dials, the pinned keys and, for each link, its account and the frames and
//! leaves that have arrived in part. Nothing that an unauthorised link sends is read.
//!
//! Invariant: a [`LinksEvent::Frame`] or [`LinksEvent::LeafReadable`] only ever comes from a link whose
//! device key is pinned to the account that it names.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use common::id::AccountName;
use common::key::{DeviceKey, DeviceSecret};
use common::limits::{
    FAREWELL_TIMEOUT, FAREWELL_TIMEOUT_MAX, LINK_FRAME_LEN_MAX, LINKS_MAX, LINKS_PER_DEVICE_MAX,
    MESSAGES_IN_FLIGHT_MAX, Occupancy, UNAUTHORISED_LINKS_MAX,
};
use common::relayed::is_relayed;
use common::wire::frame;
use common::wire::peer::{LEAF_HEADER_LEN_MAX, LeafHeader, PeerFrame, PeerHello};
use common::wire::rendezvous::{Entry, Introduction};
use rand::rngs::StdRng;
use serde::Serialize;

use super::command::KeyState;
use super::io::{AGENT, Datagrams, LocalAddress, Transmit};
use super::paths::relay::Relay;
use super::transport::{
    CloseReason, LeafRank, LinkId, Loss, ReadEnd, Side, StreamDir, StreamId, Transport,
    TransportEvent,
};
use super::violation::ProtocolViolation;
use authorise::Introduced;
pub(super) use authorise::{Claim, Source, TurnedAway};
pub(super) use dial::NO_RELAY;
use dial::{Channel, Dials};
use direct::Rounds;
use frames::{Arrived, MessageStream};
use leaves::{IncomingLeaf, LeafFault};
use pins::Pins;

// Whose links are.
mod authorise;
// Dials the endpoints of devices that a link is wanted to.
mod dial;
// The search for direct paths of relayed links.
mod direct;
// The message stream of a link.
mod frames;
// Where devices were reached last.
mod last_endpoints;
// Leaves that have arrived in part.
mod leaves;
// Devices that can be dialled without a server.
mod nearby;
// Pinned keys: the account that each device key belongs to.
mod pins;

/// Something that links tell the node.
#[derive(Debug)]
pub(super) enum LinksEvent {
    /// A key was seen for the first time and is pinned. `known` other keys were pinned to the account before.
    NewKey {
        account: AccountName,
        device_key: DeviceKey,
        known: usize,
        /// A key that was unpinned to make room.
        forgotten: Option<(AccountName, DeviceKey)>,
    },
    /// A link's device is said to be of an account. The node calls [`Links::admit`] or [`Links::turn_away`], as its
    /// log has it.
    Claimed(Claim),
    /// A frame arrived.
    Frame {
        link: LinkId,
        account: AccountName,
        frame: PeerFrame,
    },
    /// Bytes of a leaf arrived, or its end: [`Links::read_leaf`].
    LeafReadable { link: LinkId, stream: StreamId },
    /// A link was established, changed or was lost.
    Change(LinkChange),
}

/// What happened to a link, or to a dial; each part takes what concerns it.
#[derive(Debug)]
pub(super) enum LinkChange {
    /// A link proved this key. The node asks the server whose it is, and calls [`Links::on_owner`].
    Proved { device_key: DeviceKey },
    /// Frames and leaves can be sent: by whoever dialled at once, behind its greeting; by the other side once that
    /// has come.
    Ready {
        link: LinkId,
        account: AccountName,
        device_key: DeviceKey,
    },
    /// A link has not acknowledged for a while what is in flight: the device may have restarted or moved.
    Silent { account: AccountName },
    /// A silent link has acknowledged something after all.
    Heard,
    /// The packets of a link go straight to this endpoint, which they did not when the device was linked last.
    Reached {
        device_key: DeviceKey,
        endpoint: SocketAddr,
    },
    /// The packets of a link go over another path from now on.
    Rerouted,
    /// There may be room for more leaves: [`Links::send_leaf`].
    Writable { link: LinkId },
    /// The other side has acknowledged all bytes of a leaf.
    LeafAcknowledged { link: LinkId, stream: StreamId },
    /// A link with an account was lost or closed.
    Lost {
        link: LinkId,
        account: AccountName,
        reason: Loss,
    },
    /// The last link with a device is being closed, since its program ends.
    Left {
        account: AccountName,
        device_key: DeviceKey,
    },
    /// A device could not be reached.
    DialFailed {
        account: AccountName,
        reason: String,
    },
}

/// All links of a node.
#[derive(Debug)]
pub(super) struct Links {
    transport: Transport,
    own_key: DeviceKey,
    /// This device has an account. Without one it has no links.
    is_enrolled: bool,
    pins: Pins,
    peers: BTreeMap<LinkId, Peer>,
    dials: Dials,
    relay: Relay,
    /// Bytes per second that the server relays from an account.
    relay_rate: u32,
    rounds: Rounds,
    introduced: Introduced,
    /// Links that were told to be silent, and have not been told to be heard.
    silent: BTreeSet<LinkId>,
    /// Links whose message stream is not read, because too many of their frames wait to be handled.
    stalled: BTreeSet<LinkId>,
    /// The node is stopping.
    farewell: Option<Farewell>,
    events: VecDeque<LinksEvent>,
}

/// A link whose handshake is complete.
#[derive(Debug)]
struct Peer {
    device_key: DeviceKey,
    side: Side,
    /// The account that it is said to be of.
    claimed: Option<AccountName>,
    /// The same once the link is authorised.
    account: Option<AccountName>,
    /// Whose device was dialled, at the client's side.
    dialled: Option<AccountName>,
    authorise_by: Instant,
    stream: MessageStream,
    leaves: BTreeMap<StreamId, IncomingLeaf>,
    doubt: Option<Doubt>,
}

/// No link is made any more, and those that are left end.
#[derive(Debug)]
struct Farewell {
    /// When links are closed that have acknowledged nothing since the last look.
    next_look: Instant,
    /// When all are.
    end: Instant,
    /// Bytes that each link had acknowledged by the last look.
    acknowledged: BTreeMap<LinkId, u64>,
}

/// There is a newer link to the device of one that may be dead.
#[derive(Clone, Copy, Debug)]
struct Doubt {
    newer: LinkId,
    /// Bytes that the newer one had acknowledged, and the doubted one.
    acknowledged: [u64; 2],
    /// The doubted one was silent by then: what the newer one acknowledges from then on tells the two apart.
    was_silent: bool,
}

impl Links {
    /// No links yet, nor an account. `contacts` are the keys pinned in earlier runs.
    pub(super) fn new(
        seed: [u8; 32],
        [dials_rng, relay_rng]: [StdRng; 2],
        secret: DeviceSecret,
        contacts: Vec<(AccountName, DeviceKey)>,
    ) -> Self {
        let own_key = secret.public();
        Self {
            transport: Transport::new(seed, secret),
            own_key,
            is_enrolled: false,
            pins: Pins::new(contacts),
            peers: BTreeMap::new(),
            dials: Dials::new(own_key, dials_rng),
            relay: Relay::new(relay_rng),
            relay_rate: 0,
            rounds: Rounds::default(),
            introduced: Introduced::default(),
            silent: BTreeSet::new(),
            stalled: BTreeSet::new(),
            farewell: None,
            events: VecDeque::new(),
        }
    }

    /// Stops catching panics of the QUIC implementation, so that a simulation fails on them.
    pub(super) const fn propagate_panics(&mut self) {
        self.transport.propagate_panics();
    }

    /// The occupancy of each bounded resource.
    pub(super) fn occupancies(&self) -> Vec<Occupancy> {
        let mut of_devices: BTreeMap<DeviceKey, usize> = BTreeMap::new();
        for peer in self.peers.values().filter(|peer| peer.account.is_some()) {
            *of_devices.entry(peer.device_key).or_default() += 1;
        }
        let of_devices = of_devices.into_values();
        let waiting = self.peers.values().map(|peer| peer.stream.waiting());
        let mut occupancies = vec![
            Occupancy::new("links", self.transport.link_count(), LINKS_MAX),
            Occupancy::new(
                "unauthorised links",
                self.transport.unauthorised_len(),
                UNAUTHORISED_LINKS_MAX,
            ),
            Occupancy::fullest("links of a device", of_devices, LINKS_PER_DEVICE_MAX),
            Occupancy::fullest("unstored messages", waiting, MESSAGES_IN_FLIGHT_MAX),
            self.transport.trains_occupancy(),
            self.dials.occupancy(),
            self.dials.last.occupancy(),
            self.introduced.occupancy(),
            self.relay.occupancy(),
        ];
        occupancies.extend(self.pins.occupancies());
        occupancies
    }

    /// The accounts whose devices were linked in this run or an earlier one, ordered by name.
    pub(super) fn contacts(&self) -> impl Iterator<Item = &AccountName> {
        self.pins.accounts()
    }

    /// Notes whether this device has an account. Once it has none, all links end.
    pub(super) fn set_enrolled(&mut self, is_enrolled: bool, now: Instant) {
        self.is_enrolled = is_enrolled;
        if is_enrolled {
            return;
        }
        self.dials.end_all(&mut self.transport, now);
        let links: Vec<LinkId> = self.peers.keys().copied().collect();
        for link in links {
            self.transport.close(link, CloseReason::Done, now);
            self.forget(link, Loss::other("this device is not logged in any more"));
        }
        self.collect(now);
    }

    /// Notes whether loopback addresses may be dialled.
    pub(super) fn set_local(&mut self, is_local: bool) {
        self.dials.set_local(is_local);
        self.transport.set_local(is_local);
    }

    /// Notes the addresses of this host's interfaces.
    pub(super) fn set_local_addresses(&mut self, addresses: Vec<LocalAddress>) {
        self.transport.set_local_addresses(addresses);
    }

    /// Notes our own endpoints, which are never dialled.
    pub(super) fn set_own_addresses(
        &mut self,
        addresses: impl Iterator<Item = SocketAddr>,
        now: Instant,
    ) {
        if self.dials.set_own_addresses(addresses) {
            self.relay.on_address_change(now);
        }
    }

    /// Takes QUIC datagrams.
    pub(super) fn handle_datagrams(&mut self, datagrams: Datagrams, now: Instant) {
        self.transport.handle_datagrams(datagrams, now);
        self.collect(now);
    }

    /// Takes a STUN datagram, which may prove an endpoint.
    pub(super) fn handle_stun(&mut self, datagrams: &Datagrams, now: Instant) {
        self.dials
            .handle_stun(datagrams.source, &datagrams.bytes, now);
        self.continue_dials(now);
    }

    /// Dials the devices of `account` that this one was introduced to, or waits for those that are to dial.
    /// Where there is no channel to one, a link at one of its present endpoints is enough. Returns how many
    /// dials are under way.
    pub(super) fn dial(
        &mut self,
        account: &AccountName,
        introductions: Vec<Introduction>,
        now: Instant,
    ) -> usize {
        for introduction in &introductions {
            let entry = &introduction.entry;
            let channel = self.take_introduction(introduction, now);
            if channel.is_some() || !self.is_linked_at_present_endpoint(entry) {
                self.begin_dial(account, entry, channel, now);
            }
        }
        self.dials.count_of(account)
    }

    fn begin_dial(
        &mut self,
        account: &AccountName,
        entry: &Entry,
        channel: Option<Channel>,
        now: Instant,
    ) {
        let (pins, transport) = (&self.pins, &mut self.transport);
        let device = (entry.device_key, &entry.candidates[..]);
        self.dials
            .begin(account, device, channel, pins, transport, now);
        self.dials.on_introduced(entry.device_key, now);
        self.continue_dials(now);
    }

    fn links_of(&self, device_key: DeviceKey) -> Vec<LinkId> {
        let links = self
            .peers
            .iter()
            .filter(|(_, peer)| peer.device_key == device_key);
        links.map(|(link, _)| *link).collect()
    }

    /// What is known of a key that is said to be `account`'s.
    pub(super) fn key_state(&self, device_key: &DeviceKey, account: &AccountName) -> KeyState {
        if *device_key == self.own_key {
            return KeyState::Known;
        }
        self.pins.state(device_key, account)
    }

    /// The devices that there are links to.
    pub(super) fn devices(&self) -> BTreeSet<DeviceKey> {
        self.peers.values().map(|peer| peer.device_key).collect()
    }

    /// Returns the best ready link to `account`: the newest that is not silent, or else the newest.
    pub(super) fn link_to(&self, account: &AccountName) -> Option<LinkId> {
        let links = self.links_to(account);
        links.max_by_key(|link| (!self.is_silent(*link), *link))
    }

    /// Tells whether a ready link is the best one to its device: the newest that is not silent, or else the newest.
    pub(super) fn is_best(&self, link: LinkId) -> bool {
        let Some(peer) = self.peers.get(&link) else {
            return false;
        };
        let of_device = self
            .peers
            .iter()
            .filter(|(_, other)| other.is_ready() && other.device_key == peer.device_key);
        let best = of_device.map(|(link, _)| *link);
        best.max_by_key(|link| (!self.is_silent(*link), *link)) == Some(link)
    }

    /// Tells whether a link to `account` is ready and not silent.
    pub(super) fn is_linked(&self, account: &AccountName) -> bool {
        self.links_to(account).any(|link| !self.is_silent(link))
    }

    /// Pings the links to a device, so that they are silent soon if it does not answer.
    pub(super) fn ping(&mut self, device_key: DeviceKey) {
        for link in self.links_of(device_key) {
            self.transport.ping(link);
        }
    }

    /// Tells whether a link has not acknowledged for a while what is in flight.
    pub(super) fn is_silent(&self, link: LinkId) -> bool {
        self.transport.is_silent(link)
    }

    /// Returns the ready links to `account`, oldest first.
    pub(super) fn links_to(&self, account: &AccountName) -> impl Iterator<Item = LinkId> {
        let ready = self.peers.iter().filter(|(_, peer)| peer.is_ready());
        ready
            .filter(move |(_, peer)| peer.account.as_ref() == Some(account))
            .map(|(link, _)| *link)
    }

    /// Tells whether a device of `account` is being dialled.
    pub(super) fn is_dialling(&self, account: &AccountName) -> bool {
        self.dials.count_of(account) > 0
    }

    /// Tells whether a device of `account` is being dialled where the server says that it is.
    pub(super) fn is_dialling_introduced(&self, account: &AccountName) -> bool {
        self.dials.has_introduced(account)
    }

    /// Sends a frame on the message stream of a ready link.
    pub(super) fn send(&mut self, link: LinkId, frame: &PeerFrame) {
        if let Some(stream) = self.peers.get(&link).and_then(|peer| peer.stream.id()) {
            self.write_frame(link, stream, frame);
        }
    }

    /// Tells whether QUIC has taken all that was sent on the message stream of a ready link.
    pub(super) fn has_room(&self, link: LinkId) -> bool {
        let stream = self.peers.get(&link).and_then(|peer| peer.stream.id());
        stream.is_some_and(|stream| self.transport.has_taken(link, stream))
    }

    fn write_frame(&mut self, link: LinkId, stream: StreamId, frame: &impl Serialize) {
        let mut bytes = Vec::new();
        frame::encode::<LINK_FRAME_LEN_MAX>(frame, &mut bytes)
            .expect("bodies and names are within their bounds, and so are the frames");
        self.transport.write(link, stream, bytes.into(), false);
    }

    /// Sends a leaf on a stream of its own, which is returned; `None` while there is no room for another.
    pub(super) fn send_leaf(
        &mut self,
        link: LinkId,
        rank: LeafRank,
        header: &LeafHeader,
        bytes: Bytes,
    ) -> Option<StreamId> {
        let stream = self.transport.open_leaf(link, rank)?;
        let mut head = Vec::with_capacity(LEAF_HEADER_LEN_MAX);
        frame::encode::<LEAF_HEADER_LEN_MAX>(header, &mut head)
            .expect("a leaf header fits its bound");
        self.transport.write(link, stream, head.into(), false);
        self.transport.write(link, stream, bytes, true);
        Some(stream)
    }

    /// Sends nothing more of a leaf.
    pub(super) fn withdraw_leaf(&mut self, link: LinkId, stream: StreamId) {
        self.transport.reset(link, stream);
    }

    /// Bytes that the other side of a link has acknowledged, headers included.
    pub(super) fn acknowledged_bytes(&self, link: LinkId) -> u64 {
        self.transport.acknowledged_bytes(link)
    }

    /// Number of leaves up to a rank with bytes that QUIC has not taken yet.
    pub(super) fn unsent_leaves(&self, link: LinkId, rank: LeafRank) -> usize {
        self.transport.unsent_leaves(link, rank)
    }

    /// Reads what has arrived of a leaf, and returns the leaf once it is complete. `room` returns the
    /// length in bytes of the leaf that a header announces, or `None` if that leaf is not expected; its
    /// stream is then stopped.
    ///
    /// # Errors
    /// The stream holds something other than a header and its leaf.
    pub(super) fn read_leaf(
        &mut self,
        link: LinkId,
        stream: StreamId,
        room: impl Fn(&LeafHeader) -> Option<usize>,
    ) -> Result<Option<(LeafHeader, Bytes)>, ProtocolViolation> {
        let Some(peer) = self.peers.get_mut(&link) else {
            return Ok(None);
        };
        let Some(leaf) = peer.leaves.get_mut(&stream) else {
            return Ok(None);
        };
        let mut pushed = Ok(());
        let end = self.transport.read(link, stream, &mut |bytes| {
            pushed = leaf.push(bytes, &room);
            pushed.is_ok()
        });
        match (pushed, end) {
            (Err(LeafFault::Malformed), _) => Err(ProtocolViolation::MalformedLeaf),
            (Err(LeafFault::Unexpected), _) => {
                // No violation: its transfer may just have been cancelled.
                peer.leaves.remove(&stream);
                self.transport.stop(link, stream);
                Ok(None)
            }
            (Ok(()), ReadEnd::Blocked | ReadEnd::Enough) => Ok(None),
            (Ok(()), ReadEnd::Gone) => {
                peer.leaves.remove(&stream);
                Ok(None)
            }
            (Ok(()), ReadEnd::Finished) => {
                let leaf = peer.leaves.remove(&stream).unwrap_or_default();
                let whole = leaf.finish().ok_or(ProtocolViolation::MalformedLeaf)?;
                Ok(Some(whole))
            }
        }
    }

    /// Of a leaf that has arrived in part: its header, and how many of its bytes are here.
    pub(super) fn arriving(&self, link: LinkId, stream: StreamId) -> Option<(LeafHeader, usize)> {
        self.peers.get(&link)?.leaves.get(&stream)?.arrived()
    }

    /// Reports every leaf that has arrived in part as readable, because there is room for leaves again.
    pub(super) fn wake_leaves(&mut self) {
        for (link, peer) in &self.peers {
            let streams = peer.leaves.keys();
            let events = streams.map(|stream| LinksEvent::LeafReadable {
                link: *link,
                stream: *stream,
            });
            self.events.extend(events);
        }
    }

    /// Closes a link in good order.
    pub(super) fn close(&mut self, link: LinkId, now: Instant) {
        self.drop_link(link, CloseReason::Done, now);
    }

    /// Closes a link whose other end broke the protocol.
    pub(super) fn close_for(&mut self, link: LinkId, violation: ProtocolViolation, now: Instant) {
        log::debug!("closing a link that broke the protocol: {violation}");
        self.drop_link(link, CloseReason::Protocol, now);
    }

    /// Closes all links, each as soon as everything that was written on its message stream is
    /// acknowledged, once nothing was for [`FAREWELL_TIMEOUT`], or after [`FAREWELL_TIMEOUT_MAX`].
    pub(super) fn say_goodbye(&mut self, now: Instant) {
        self.dials.end_all(&mut self.transport, now);
        self.farewell = Some(Farewell {
            next_look: now + FAREWELL_TIMEOUT,
            end: now + FAREWELL_TIMEOUT_MAX,
            acknowledged: self.acknowledged(),
        });
        let links: Vec<LinkId> = self.peers.keys().copied().collect();
        for link in links {
            match self.peers.get(&link).and_then(|peer| peer.stream.id()) {
                Some(stream) => self.transport.write(link, stream, Bytes::new(), true),
                None => self.drop_link(link, CloseReason::Done, now),
            }
        }
        self.collect(now);
    }

    /// Closes the links that have acknowledged nothing since the last look, or all if it is time.
    fn go_on_with_farewell(&mut self, now: Instant) {
        let acknowledged = self.acknowledged();
        let Some(farewell) = self.farewell.as_mut().filter(|it| it.next_look <= now) else {
            return;
        };
        let before = std::mem::replace(&mut farewell.acknowledged, acknowledged);
        farewell.next_look = now + FAREWELL_TIMEOUT;
        let is_over = farewell.end <= now;
        let after = &farewell.acknowledged;
        let stuck = after
            .iter()
            .filter(|(link, bytes)| is_over || before.get(link) == Some(bytes));
        let stuck: Vec<LinkId> = stuck.map(|(link, _)| *link).collect();
        for link in stuck {
            self.peers.remove(&link);
            self.transport.close(link, CloseReason::Done, now);
        }
    }

    /// Bytes that the other side of each link has acknowledged.
    fn acknowledged(&self) -> BTreeMap<LinkId, u64> {
        let links = self.peers.keys();
        let bytes = links.map(|link| (*link, self.transport.acknowledged_bytes(*link)));
        bytes.collect()
    }

    /// Tells whether there are links, authorised or not.
    pub(super) fn is_empty(&self) -> bool {
        self.peers.is_empty()
    }

    /// Nobody has called for `span`.
    pub(super) fn on_standstill(&mut self, span: Duration, now: Instant) {
        self.transport.on_standstill(span, now);
    }

    /// Continues dials, ends a farewell that took too long, and the wait for the server to say whose a device
    /// is.
    pub(super) fn handle_timeout(&mut self, now: Instant) {
        self.transport.handle_timeout(now);
        self.relay.handle_timeout(now);
        self.start_rounds(now);
        self.go_on_with_farewell(now);
        self.continue_dials(now);
        self.end_waiting_for_owners(now);
        self.collect(now);
    }

    /// When [`Links::handle_timeout`] is due.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let unauthorised = self.peers.values().filter(|peer| peer.account.is_none());
        let transport = self.transport.poll_timeout().into_iter();
        transport
            .chain(self.dials.poll_timeout())
            .chain(self.relay.poll_timeout())
            .chain(self.rounds.poll_timeout())
            .chain(self.farewell.as_ref().map(|farewell| farewell.next_look))
            .chain(unauthorised.map(|peer| peer.authorise_by))
            .min()
    }

    /// The next thing that happened.
    pub(super) fn poll_event(&mut self, now: Instant) -> Option<LinksEvent> {
        while self.events.is_empty() && self.resume_reading(now) {}
        let event = self.events.pop_front()?;
        if let LinksEvent::Frame { link, .. } = &event
            && let Some(peer) = self.peers.get_mut(link)
        {
            peer.stream.on_handled();
        }
        Some(event)
    }

    /// Resumes reading one stalled link that has room for frames again. Returns whether there was one.
    fn resume_reading(&mut self, now: Instant) -> bool {
        let peers = &self.peers;
        let has_room = |link: &LinkId| peers.get(link).is_none_or(|peer| !peer.stream.is_full());
        let Some(link) = self.stalled.iter().copied().find(has_room) else {
            return false;
        };
        self.stalled.remove(&link);
        if let Some(stream) = self.peers.get(&link).and_then(|peer| peer.stream.id()) {
            match self.take_frames(link, now) {
                Ok(()) => self.read_frames(link, stream, now),
                Err(reason) => self.drop_link(link, reason, now),
            }
            self.collect(now);
        }
        true
    }

    /// The next datagrams to send.
    pub(super) fn poll_transmit(&mut self, now: Instant, buffer: &mut Vec<u8>) -> Option<Transmit> {
        loop {
            if let Some(transmit) = self.relay.poll_transmit(buffer) {
                return Some(transmit);
            }
            if let Some(check) = self.dials.poll_check(buffer) {
                return Some(check);
            }
            let (transmit, may_dial_others) =
                self.dials.poll_quic(&mut self.transport, buffer, now);
            match transmit {
                Some(transmit) if is_relayed(transmit.destination.ip()) => {
                    self.relay.send(&transmit, buffer, now);
                    buffer.clear();
                }
                // A link that began through the relay answers whoever looks for a direct path.
                Some(_) if !self.goes_directly() => buffer.clear(),
                None if may_dial_others => {}
                transmit => return transmit,
            }
        }
    }

    /// Tells whether a link leads to one of the endpoints that a device announces. A link to any other
    /// endpoint may be left from before the device moved; one that is left from before it restarted is reset
    /// by whatever is sent over it.
    fn is_linked_at_present_endpoint(&self, entry: &Entry) -> bool {
        let ready = self.peers.iter().filter(|(_, peer)| peer.is_ready());
        let mut links = ready.filter(|(_, peer)| peer.device_key == entry.device_key);
        links.any(|(link, _)| {
            let remote = self.transport.remote(*link);
            let mut candidates = entry.candidates.iter();
            candidates.any(|candidate| Some(candidate.endpoint) == remote)
        })
    }

    fn continue_dials(&mut self, now: Instant) {
        for failed in self.dials.handle_timeout(&mut self.transport, now) {
            self.events
                .push_back(LinksEvent::Change(LinkChange::DialFailed {
                    account: failed.account,
                    reason: failed.reason,
                }));
        }
    }

    // ---- events of the transport ---------------------------------------------------------------

    fn collect(&mut self, now: Instant) {
        while let Some(event) = self.transport.poll_event() {
            match event {
                TransportEvent::Connected {
                    link,
                    side,
                    device_key,
                } => self.on_connected(link, side, device_key, now),
                TransportEvent::Lost { link, reason } => self.on_lost(link, reason, now),
                TransportEvent::Opened { link, dir } => self.on_opened(link, dir, now),
                TransportEvent::Readable { link, stream } => self.on_readable(link, stream, now),
                TransportEvent::Finished { link, stream } => self.on_finished(link, stream, now),
                TransportEvent::Writable { link } => self
                    .events
                    .push_back(LinksEvent::Change(LinkChange::Writable { link })),
                TransportEvent::Silent { link } => self.on_silent(link, now),
                TransportEvent::Path { link, change } => self.on_path(link, change, now),
            }
        }
        let before = self.silent.len();
        let transport = &self.transport;
        self.silent.retain(|link| transport.is_silent(*link));
        if self.silent.len() < before {
            self.events.push_back(LinksEvent::Change(LinkChange::Heard));
        }
    }

    /// Makes `stream` the message stream of a link, and sends the greeting on it.
    fn greet(&mut self, link: LinkId, stream: StreamId) {
        if let Some(peer) = self.peers.get_mut(&link) {
            peer.stream.open(stream);
            self.write_frame(link, stream, &PeerHello::ours(AGENT));
        }
    }

    fn on_opened(&mut self, link: LinkId, dir: StreamDir, now: Instant) {
        let Some(peer) = self.peers.get(&link) else {
            return;
        };
        if peer.account.is_none() {
            return;
        }
        match dir {
            StreamDir::Bi => {
                let Some(stream) = self.transport.accept(link, dir) else {
                    return;
                };
                // The client opens the message stream, once.
                if peer.side == Side::Client || peer.stream.id().is_some() {
                    return self.close_for(link, ProtocolViolation::SecondMessageStream, now);
                }
                self.greet(link, stream);
                self.on_readable(link, stream, now);
            }
            StreamDir::Uni => {
                while let Some(stream) = self.transport.accept(link, dir) {
                    if let Some(peer) = self.peers.get_mut(&link) {
                        peer.leaves.insert(stream, IncomingLeaf::default());
                    }
                    self.events
                        .push_back(LinksEvent::LeafReadable { link, stream });
                }
            }
        }
    }

    fn on_readable(&mut self, link: LinkId, stream: StreamId, now: Instant) {
        let Some(peer) = self.peers.get(&link) else {
            return;
        };
        if peer.stream.id() == Some(stream) {
            self.read_frames(link, stream, now);
        } else if peer.leaves.contains_key(&stream) {
            self.events
                .push_back(LinksEvent::LeafReadable { link, stream });
        }
    }

    /// A stream is acknowledged: closes the link if it is its message stream, which only a farewell
    /// finishes; any other has brought a leaf.
    fn on_finished(&mut self, link: LinkId, stream: StreamId, now: Instant) {
        let Some(peer) = self.peers.get(&link) else {
            return;
        };
        if peer.stream.id() == Some(stream) {
            return self.drop_link(link, CloseReason::Done, now);
        }
        let change = LinkChange::LeafAcknowledged { link, stream };
        self.events.push_back(LinksEvent::Change(change));
    }

    fn read_frames(&mut self, link: LinkId, stream: StreamId, now: Instant) {
        loop {
            let Some(peer) = self.peers.get_mut(&link) else {
                return;
            };
            if peer.stream.is_full() {
                self.stalled.insert(link);
                return;
            }
            let frames = &mut peer.stream;
            let end = self.transport.read(link, stream, &mut |bytes| {
                frames.push(&bytes);
                false
            });
            if let Err(reason) = self.take_frames(link, now) {
                return self.drop_link(link, reason, now);
            }
            match end {
                ReadEnd::Enough => {}
                ReadEnd::Blocked => return,
                ReadEnd::Finished => {
                    self.on_farewell(link);
                    return self.drop_link(link, CloseReason::Done, now);
                }
                ReadEnd::Gone => return self.drop_link(link, CloseReason::Done, now),
            }
        }
    }

    /// The other side has finished its message stream, which it does only when its program ends.
    fn on_farewell(&mut self, link: LinkId) {
        let Some(peer) = self.peers.get(&link) else {
            return;
        };
        let device_key = peer.device_key;
        if let (Some(account), [_]) = (peer.account.clone(), &self.links_of(device_key)[..]) {
            let change = LinkChange::Left {
                account,
                device_key,
            };
            self.events.push_back(LinksEvent::Change(change));
        }
    }

    fn take_frames(&mut self, link: LinkId, now: Instant) -> Result<(), CloseReason> {
        let Some(peer) = self.peers.get_mut(&link) else {
            return Ok(());
        };
        let Some(account) = &peer.account else {
            return Ok(());
        };
        let mut is_greeted = false;
        while let Some(arrived) = peer.stream.take()? {
            let account = account.clone();
            match arrived {
                Arrived::Hello => {
                    is_greeted = true;
                    if peer.side == Side::Server {
                        let ready = LinkChange::Ready {
                            link,
                            account,
                            device_key: peer.device_key,
                        };
                        self.events.push_back(LinksEvent::Change(ready));
                    }
                }
                Arrived::Frame(frame) => self.events.push_back(LinksEvent::Frame {
                    link,
                    account,
                    frame,
                }),
            }
        }
        if peer.stream.is_full() {
            self.stalled.insert(link);
        }
        if is_greeted {
            self.doubt_older(link);
            self.look_for_direct_path(link, now);
        }
        Ok(())
    }

    /// The device of a new link may have restarted: its older ones have to show that they live.
    fn doubt_older(&mut self, newer: LinkId) {
        let Some(peer) = self.peers.get(&newer) else {
            return;
        };
        let older = self.links_of(peer.device_key);
        for link in older.into_iter().filter(|link| *link < newer) {
            self.doubt(link, newer);
        }
    }

    fn doubt(&mut self, link: LinkId, newer: LinkId) {
        let acknowledged = [newer, link].map(|link| self.transport.acknowledged_bytes(link));
        let was_silent = self.is_silent(link);
        if let Some(peer) = self.peers.get_mut(&link) {
            peer.doubt = Some(Doubt {
                newer,
                acknowledged,
                was_silent,
            });
            self.transport.doubt(link);
            self.transport.ping(newer);
        }
    }

    /// A link is silent, even before it has greeted. One that is doubted is closed if the newer one has answered.
    fn on_silent(&mut self, link: LinkId, now: Instant) {
        self.silent.insert(link);
        let Some(peer) = self.peers.get_mut(&link).filter(|peer| peer.is_ready()) else {
            return;
        };
        let Some(account) = peer.account.clone() else {
            return;
        };
        if let Some(Doubt {
            newer,
            acknowledged: [of_newer, of_link],
            was_silent,
        }) = peer.doubt.take()
            && self.transport.acknowledged_bytes(link) == of_link
        {
            if !was_silent {
                self.doubt(link, newer);
            } else if self.transport.acknowledged_bytes(newer) > of_newer {
                let loss = self.transport.loss_of_silence(link);
                self.transport.close(link, CloseReason::Done, now);
                return self.forget(link, loss);
            }
        }
        let change = LinkChange::Silent { account };
        self.events.push_back(LinksEvent::Change(change));
    }

    fn on_lost(&mut self, link: LinkId, reason: Loss, now: Instant) {
        if self.dials.on_lost(link, &reason.to_string(), now) {
            self.continue_dials(now);
        }
        self.forget(link, reason);
    }

    fn drop_link(&mut self, link: LinkId, reason: CloseReason, now: Instant) {
        self.transport.close(link, reason, now);
        let reason = match reason {
            CloseReason::Done => "the link was closed",
            CloseReason::Unauthorised => "the other device has logged out, or was removed",
            CloseReason::NotApproved => "the other device is not approved by its account",
            CloseReason::Protocol => "the other side broke the protocol",
            CloseReason::Version => {
                "the other side speaks another version; upgrade the older of the two"
            }
        };
        self.forget(link, Loss::other(reason));
    }

    fn forget(&mut self, link: LinkId, reason: Loss) {
        self.stalled.remove(&link);
        self.rounds.remove(link);
        let Some(peer) = self.peers.remove(&link) else {
            return;
        };
        let change = match (peer.account, peer.dialled) {
            (Some(account), _) => LinkChange::Lost {
                link,
                account,
                reason,
            },
            (None, Some(account)) => LinkChange::DialFailed {
                account,
                reason: reason.to_string(),
            },
            (None, None) => return,
        };
        self.events.push_back(LinksEvent::Change(change));
    }
}

impl Peer {
    fn is_ready(&self) -> bool {
        let may_send = self.side == Side::Client || self.stream.has_greeted();
        may_send && self.account.is_some()
    }
}
