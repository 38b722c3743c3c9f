//! Links to other devices: dialling, authorisation, greeting, frames and leaves.
//!
//! It owns the transport, the pinned keys, and for each link whose it is and what has arrived in part.
//! Which endpoints of a device may be dialled, and at what cost, its [`Agent`] decides. Nothing that an
//! unauthorised link sends is read.
//!
//! Invariant: a [`LinksEvent::Frame`] or [`LinksEvent::Leaf`] only ever comes from a link whose device
//! key is pinned to the account that it names.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::time::Instant;

use bytes::Bytes;
use common::candidate::is_one_other_host;
use common::hash::leaf_len;
use common::id::{AccountName, TransferId};
use common::key::{DeviceKey, DeviceSecret};
use common::limits::{
    AUTHORISE_DEADLINE, CANDIDATES_MAX, DEVICES_PER_ACCOUNT_MAX, DIAL_DEADLINE, Fill,
    LINK_FRAME_LEN_MAX, LINKS_MAX, LINKS_PER_DEVICE_MAX, MESSAGES_IN_FLIGHT_MAX,
    UNAUTHORISED_LINKS_MAX,
};
use common::wire::frame::{self, FrameBuffer, FrameError};
use common::wire::peer::{ChatFrame, LEAF_HEADER_LEN_MAX, LeafHeader, PeerFrame, PeerHello};
use common::wire::rendezvous::{Candidate, Entry};
use rand::rngs::StdRng;

use super::paths::agent::Agent;
use super::session::AGENT;
use super::transport::{
    CloseReason, LinkEvent, LinkId, ReadEnd, Side, StreamDir, StreamId, Transport,
};
use super::{Datagrams, Transmit};

/// Something that links tell the node.
#[derive(Debug)]
pub(super) enum LinksEvent {
    /// An inbound link proved this key; ask the rendezvous whose it is and tell `on_owner`.
    WhoIs(DeviceKey),
    /// A key was seen for the first time and is to be pinned; `known` others are.
    NewKey {
        account: AccountName,
        device_key: DeviceKey,
        known: usize,
    },
    /// Both sides have greeted.
    Ready { link: LinkId, account: AccountName },
    /// A frame came.
    Frame {
        link: LinkId,
        account: AccountName,
        frame: PeerFrame,
    },
    /// A whole leaf came.
    Leaf {
        link: LinkId,
        header: LeafHeader,
        bytes: Bytes,
    },
    /// There is room for more leaves.
    Writable { link: LinkId },
    /// The link is gone.
    Lost {
        link: LinkId,
        account: AccountName,
        reason: String,
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
    contacts: BTreeMap<DeviceKey, AccountName>,
    peers: BTreeMap<LinkId, Peer>,
    dials: BTreeMap<DeviceKey, Dial>,
    agent: Agent,
    /// Links of dials that are not yet connected.
    attempts: BTreeMap<LinkId, Attempt>,
    /// The server is on this host, so other peers may be, too.
    is_local: bool,
    own_addresses: BTreeSet<SocketAddr>,
    leaves_paused: bool,
    /// Transfers that were accepted, and where from.
    expected: BTreeMap<TransferId, Expected>,
    events: VecDeque<LinksEvent>,
}

/// A link whose handshake is complete.
#[derive(Debug)]
struct Peer {
    device_key: DeviceKey,
    side: Side,
    /// Known once the link is authorised.
    account: Option<AccountName>,
    authorise_by: Instant,
    stream: Option<StreamId>,
    frames: FrameBuffer<LINK_FRAME_LEN_MAX>,
    has_greeted: bool,
    /// Messages that are not in the history yet.
    unstored: usize,
    leaves: BTreeMap<StreamId, IncomingLeaf>,
}

/// A device that is being dialled.
#[derive(Debug)]
struct Dial {
    account: AccountName,
    give_up_at: Instant,
    /// Why the last attempt failed, in words.
    failure: String,
}

/// A handshake with one of the endpoints of a device.
#[derive(Clone, Copy, Debug)]
struct Attempt {
    device_key: DeviceKey,
    endpoint: SocketAddr,
}

/// A leaf of which some bytes have come. They are copied together: what the transport hands out are
/// views that keep whole receive buffers alive.
#[derive(Debug, Default)]
struct IncomingLeaf {
    head: Vec<u8>,
    header: Option<LeafHeader>,
    bytes: Vec<u8>,
    /// How many it will be.
    len: usize,
}

/// A transfer that leaves may come for.
#[derive(Clone, Copy, Debug)]
struct Expected {
    link: LinkId,
    size: u64,
}

impl Links {
    /// No links yet. `contacts` are the keys pinned in earlier runs.
    pub(super) fn new(
        seed: [u8; 32],
        agent_rng: StdRng,
        secret: DeviceSecret,
        contacts: Vec<(AccountName, DeviceKey)>,
    ) -> Self {
        let own_key = secret.public();
        Self {
            transport: Transport::new(seed, secret),
            own_key,
            contacts: contacts
                .into_iter()
                .map(|(account, key)| (key, account))
                .collect(),
            peers: BTreeMap::new(),
            dials: BTreeMap::new(),
            agent: Agent::new(agent_rng),
            attempts: BTreeMap::new(),
            is_local: false,
            own_addresses: BTreeSet::new(),
            leaves_paused: false,
            expected: BTreeMap::new(),
            events: VecDeque::new(),
        }
    }

    /// Lets panics of the QUIC implementation through from now on.
    pub(super) const fn catch_no_panics(&mut self) {
        self.transport.catch_no_panics();
    }

    /// How full everything is that has a bound.
    pub(super) fn fills(&self) -> [Fill; 6] {
        let mut of_devices: BTreeMap<DeviceKey, usize> = BTreeMap::new();
        for peer in self.peers.values().filter(|peer| peer.account.is_some()) {
            *of_devices.entry(peer.device_key).or_default() += 1;
        }
        let of_devices = of_devices.into_values();
        let unstored = self.peers.values().map(|peer| peer.unstored);
        [
            Fill::new("links", self.transport.link_count(), LINKS_MAX),
            Fill::new(
                "unauthorised links",
                self.transport.unauthorised_len(),
                UNAUTHORISED_LINKS_MAX,
            ),
            Fill::fullest("links of a device", of_devices, LINKS_PER_DEVICE_MAX),
            Fill::fullest("unstored messages", unstored, MESSAGES_IN_FLIGHT_MAX),
            self.transport.trains_fill(),
            self.agent.fill(),
        ]
    }

    /// Notes whether loopback addresses may be dialled.
    pub(super) fn set_local(&mut self, is_local: bool) {
        self.is_local = is_local;
    }

    /// Notes our own endpoints, which are never dialled.
    pub(super) fn set_own_addresses(&mut self, addresses: impl Iterator<Item = SocketAddr>) {
        self.own_addresses = addresses.collect();
    }

    /// Takes QUIC datagrams.
    pub(super) fn handle_datagrams(&mut self, datagrams: Datagrams, now: Instant) {
        self.transport.handle_datagrams(datagrams, now);
        self.collect(now);
    }

    /// Takes a STUN datagram, which may prove an endpoint.
    pub(super) fn handle_stun(&mut self, datagrams: &Datagrams, now: Instant) {
        self.agent
            .handle_stun(datagrams.source, &datagrams.bytes, now);
        self.continue_dials(now);
    }

    /// Dials devices of `account` that there is no link to where they are now. Returns how many dials
    /// are under way.
    ///
    /// An urgent dial does not ask whether there is a link: a device that has restarted where it was
    /// leaves one behind that looks alive.
    pub(super) fn dial(
        &mut self,
        account: &AccountName,
        entries: Vec<Entry>,
        is_urgent: bool,
        now: Instant,
    ) -> usize {
        for entry in &entries {
            if is_urgent || !self.is_linked_there(entry) {
                self.dial_device(account, entry, now);
            }
        }
        self.dials
            .values()
            .filter(|dial| dial.account == *account)
            .count()
    }

    /// Takes the rendezvous's word on whose key an inbound link has; `None`: nobody's. Links that say
    /// otherwise are closed.
    pub(super) fn on_owner(
        &mut self,
        device_key: DeviceKey,
        owner: Option<&AccountName>,
        now: Instant,
    ) {
        for link in self.links_of(device_key) {
            let of = self.peers.get(&link).and_then(|peer| peer.account.as_ref());
            match (owner, of) {
                (Some(owner), Some(of)) if owner == of => {}
                (Some(owner), None) => self.authorise(link, owner.clone(), now),
                (_, Some(_)) | (None, None) => self.drop_link(link, CloseReason::Unauthorised, now),
            }
        }
        self.collect(now);
    }

    /// The rendezvous cannot be asked: keys that are not pinned stay outside.
    pub(super) fn on_owner_unknown(&mut self, device_key: DeviceKey, now: Instant) {
        for link in self.links_of(device_key) {
            if self
                .peers
                .get(&link)
                .is_some_and(|peer| peer.account.is_none())
            {
                self.drop_link(link, CloseReason::Unauthorised, now);
            }
        }
        self.collect(now);
    }

    fn links_of(&self, device_key: DeviceKey) -> Vec<LinkId> {
        let links = self
            .peers
            .iter()
            .filter(|(_, peer)| peer.device_key == device_key);
        links.map(|(link, _)| *link).collect()
    }

    /// The newest ready link to `account`.
    pub(super) fn link_to(&self, account: &AccountName) -> Option<LinkId> {
        let mut ready = self.peers.iter().rev().filter(|(_, peer)| peer.is_ready());
        ready
            .find(|(_, peer)| peer.account.as_ref() == Some(account))
            .map(|(link, _)| *link)
    }

    /// Tells whether a device of `account` is being dialled.
    pub(super) fn is_dialling(&self, account: &AccountName) -> bool {
        self.dials.values().any(|dial| dial.account == *account)
    }

    /// Accounts with a ready link.
    pub(super) fn linked(&self) -> BTreeSet<AccountName> {
        let ready = self.peers.values().filter(|peer| peer.is_ready());
        ready.filter_map(|peer| peer.account.clone()).collect()
    }

    /// Sends a frame on the message stream of a ready link.
    pub(super) fn send(&mut self, link: LinkId, frame: &PeerFrame) {
        let Some(stream) = self.peers.get(&link).and_then(|peer| peer.stream) else {
            return;
        };
        let mut bytes = Vec::new();
        frame::encode::<LINK_FRAME_LEN_MAX>(frame, &mut bytes)
            .expect("bodies and names are within their bounds, and so are the frames");
        self.transport.write(link, stream, bytes.into(), false);
    }

    /// Sends a leaf on a stream of its own; `false` while there is no room for another stream.
    pub(super) fn send_leaf(&mut self, link: LinkId, header: &LeafHeader, bytes: Bytes) -> bool {
        let Some(stream) = self.transport.open_leaf(link) else {
            return false;
        };
        let mut head = Vec::with_capacity(LEAF_HEADER_LEN_MAX);
        frame::encode::<LEAF_HEADER_LEN_MAX>(header, &mut head)
            .expect("a leaf header fits its bound");
        self.transport.write(link, stream, head.into(), false);
        self.transport.write(link, stream, bytes, true);
        true
    }

    /// Streams of a link whose bytes are not all in QUIC's hands.
    pub(super) fn unsent_streams(&self, link: LinkId) -> usize {
        self.transport.unsent_streams(link)
    }

    /// Stops or resumes reading leaves, so that a slow disk slows the senders down.
    pub(super) fn pause_leaves(&mut self, paused: bool, now: Instant) {
        if std::mem::replace(&mut self.leaves_paused, paused) && !paused {
            let open: Vec<(LinkId, StreamId)> = self
                .peers
                .iter()
                .flat_map(|(link, peer)| peer.leaves.keys().map(|stream| (*link, *stream)))
                .collect();
            for (link, stream) in open {
                self.read_leaf(link, stream, now);
            }
            self.collect(now);
        }
    }

    /// From now on leaves of a transfer of `size` bytes are taken from `link`.
    pub(super) fn expect_leaves(&mut self, transfer: TransferId, link: LinkId, size: u64) {
        self.expected.insert(transfer, Expected { link, size });
    }

    /// Forgets the transfers that are over.
    pub(super) fn retain_expected(&mut self, is_open: impl Fn(TransferId) -> bool) {
        self.expected.retain(|transfer, _| is_open(*transfer));
    }

    /// A message that this link brought is in the history: there is room for another.
    pub(super) fn on_message_stored(&mut self, link: LinkId, now: Instant) {
        let Some(peer) = self.peers.get_mut(&link) else {
            return;
        };
        let was_full = peer.is_full();
        peer.unstored = peer.unstored.saturating_sub(1);
        if was_full && let Some(stream) = peer.stream {
            match self.take_frames(link) {
                Ok(()) => self.read_frames(link, stream, now),
                Err(reason) => self.drop_link(link, reason, now),
            }
            self.collect(now);
        }
    }

    /// Closes a link in good order.
    pub(super) fn close(&mut self, link: LinkId, now: Instant) {
        self.drop_link(link, CloseReason::Done, now);
    }

    /// Closes a link whose other end broke the protocol.
    pub(super) fn close_for_protocol(&mut self, link: LinkId, now: Instant) {
        self.drop_link(link, CloseReason::Protocol, now);
    }

    /// Closes all links.
    pub(super) fn close_all(&mut self, now: Instant) {
        let dialled: Vec<DeviceKey> = self.dials.keys().copied().collect();
        for device_key in dialled {
            self.end_dial(device_key, None, now);
        }
        for link in std::mem::take(&mut self.peers).into_keys() {
            self.transport.close(link, CloseReason::Done, now);
        }
    }

    /// Lets links and dials whose time has come act.
    pub(super) fn handle_timeout(&mut self, now: Instant) {
        self.transport.handle_timeout(now);
        self.continue_dials(now);
        let expired: Vec<LinkId> = self
            .peers
            .iter()
            .filter(|(_, peer)| peer.account.is_none() && peer.authorise_by <= now)
            .map(|(link, _)| *link)
            .collect();
        for link in expired {
            self.drop_link(link, CloseReason::Unauthorised, now);
        }
        self.collect(now);
    }

    /// When [`Links::handle_timeout`] is due.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let dials = self.dials.values().map(|dial| dial.give_up_at);
        let unauthorised = self.peers.values().filter(|peer| peer.account.is_none());
        let transport = self.transport.poll_timeout().into_iter();
        transport
            .chain(dials)
            .chain(self.agent.poll_timeout())
            .chain(unauthorised.map(|peer| peer.authorise_by))
            .min()
    }

    /// The next thing that happened.
    pub(super) fn poll_event(&mut self) -> Option<LinksEvent> {
        self.events.pop_front()
    }

    /// The next datagrams to send.
    pub(super) fn poll_transmit(&mut self, now: Instant, buffer: &mut Vec<u8>) -> Option<Transmit> {
        loop {
            if let Some(check) = self.agent.poll_transmit(buffer) {
                return Some(check);
            }
            let (transmit, abandoned) = self.poll_quic(now, buffer);
            let may_dial_others = !abandoned.is_empty();
            for attempt in abandoned {
                self.agent
                    .on_dial_failed(attempt.device_key, attempt.endpoint, now);
                self.start_attempts(now);
            }
            if transmit.is_some() || !may_dial_others {
                return transmit;
            }
        }
    }

    /// The next datagrams of a link, and the attempts that ended because nothing paid for theirs.
    fn poll_quic(
        &mut self,
        now: Instant,
        buffer: &mut Vec<u8>,
    ) -> (Option<Transmit>, Vec<Attempt>) {
        let (attempts, agent) = (&mut self.attempts, &mut self.agent);
        let mut abandoned = Vec::new();
        let mut pay = |link, len| {
            let Some(attempt) = attempts.get(&link).copied() else {
                return true;
            };
            let is_paid = agent.pay(attempt.device_key, attempt.endpoint, len, now);
            if !is_paid {
                attempts.remove(&link);
                abandoned.push(attempt);
            }
            is_paid
        };
        let transmit = self.transport.poll_transmit(now, buffer, &mut pay);
        (transmit, abandoned)
    }

    // ---- dialling ------------------------------------------------------------------------------

    fn dial_device(&mut self, account: &AccountName, entry: &Entry, now: Instant) {
        if !self.may_dial(account, entry.device_key) {
            return;
        }
        let candidates = self.dialable(entry);
        let has_begun = self
            .agent
            .begin(entry.device_key, account, &candidates, now);
        if !has_begun {
            return log::debug!("not dialled: too many devices were dialled lately");
        }
        self.dials.entry(entry.device_key).or_insert_with(|| Dial {
            account: account.clone(),
            give_up_at: now + DIAL_DEADLINE,
            failure: "it announced no address that can be reached".to_owned(),
        });
        self.continue_dials(now);
    }

    fn may_dial(&self, account: &AccountName, device_key: DeviceKey) -> bool {
        if device_key == self.own_key {
            return false;
        }
        let owner = self.contacts.get(&device_key);
        if owner.is_some_and(|owner| owner != account) {
            log::warn!("the server names a device under another account than before; not dialled");
            return false;
        }
        if let Some(dial) = self.dials.get(&device_key) {
            return dial.account == *account;
        }
        let dials = self.dials.values();
        if dials.filter(|dial| dial.account == *account).count() >= DEVICES_PER_ACCOUNT_MAX {
            log::debug!("not dialled: an account has no more devices than that");
            return false;
        }
        if self.transport.link_count() >= LINKS_MAX {
            log::debug!("not dialled: {LINKS_MAX} links are open");
            return false;
        }
        true
    }

    /// The candidates of an entry to which packets may be sent.
    fn dialable(&self, entry: &Entry) -> Vec<Candidate> {
        let canonical = |candidate: &Candidate| Candidate {
            endpoint: common::stun::canonical(candidate.endpoint),
            ..*candidate
        };
        let candidates = entry.candidates.iter().map(canonical);
        candidates
            .filter(|candidate| self.is_dialable(candidate.endpoint))
            .take(CANDIDATES_MAX)
            .collect()
    }

    /// Tells whether there is a link to where a device says that it is. A link to anywhere else may be
    /// one to what the device was before it moved or restarted.
    fn is_linked_there(&self, entry: &Entry) -> bool {
        let ready = self.peers.iter().filter(|(_, peer)| peer.is_ready());
        let mut links = ready.filter(|(_, peer)| peer.device_key == entry.device_key);
        links.any(|(link, _)| {
            let remote = self.transport.remote(*link);
            let mut candidates = entry.candidates.iter();
            candidates.any(|candidate| Some(candidate.endpoint) == remote)
        })
    }

    /// Tells whether an address that somebody else names may get packets of ours: never this node
    /// itself, nor what is not an address of one host; loopback only if the server is on it, too.
    fn is_dialable(&self, candidate: SocketAddr) -> bool {
        is_one_other_host(candidate.ip(), self.is_local)
            && candidate.port() != 0
            && !self.own_addresses.contains(&candidate)
    }

    fn continue_dials(&mut self, now: Instant) {
        self.agent.handle_timeout(now);
        self.start_attempts(now);
        let agent = &self.agent;
        let is_over =
            |key: &DeviceKey, dial: &Dial| now >= dial.give_up_at || agent.is_hopeless(*key);
        let over = self.dials.iter().filter(|(key, dial)| is_over(key, dial));
        let over: Vec<DeviceKey> = over.map(|(key, _)| *key).collect();
        for device_key in over {
            self.fail_dial(device_key, now);
        }
    }

    fn start_attempts(&mut self, now: Instant) {
        while let Some((device_key, endpoint)) = self.agent.poll_dial() {
            match self.transport.dial(device_key, endpoint, now) {
                Some(link) => {
                    let attempt = Attempt {
                        device_key,
                        endpoint,
                    };
                    self.attempts.insert(link, attempt);
                }
                None => self.agent.on_dial_failed(device_key, endpoint, now),
            }
        }
    }

    fn fail_dial(&mut self, device_key: DeviceKey, now: Instant) {
        let Some(dial) = self.end_dial(device_key, None, now) else {
            return;
        };
        let reason = if now >= dial.give_up_at {
            "no answer at any of its addresses".to_owned()
        } else {
            dial.failure
        };
        self.events.push_back(LinksEvent::DialFailed {
            account: dial.account,
            reason,
        });
    }

    /// Ends a dial and all its attempts but the one that won.
    fn end_dial(
        &mut self,
        device_key: DeviceKey,
        winner: Option<LinkId>,
        now: Instant,
    ) -> Option<Dial> {
        let dial = self.dials.remove(&device_key)?;
        self.agent.end(device_key);
        let attempts = self.attempts.iter();
        let of_dial = attempts.filter(|(_, attempt)| attempt.device_key == device_key);
        let of_dial: Vec<(LinkId, SocketAddr)> = of_dial
            .map(|(link, attempt)| (*link, attempt.endpoint))
            .collect();
        for (link, endpoint) in of_dial {
            self.attempts.remove(&link);
            if Some(link) == winner {
                continue;
            }
            // Even a goodbye is a datagram of 1,200 bytes.
            if self.agent.is_proven(device_key, endpoint) {
                self.transport.close(link, CloseReason::Done, now);
            } else {
                self.transport.abandon(link);
            }
        }
        Some(dial)
    }

    // ---- what the transport says ---------------------------------------------------------------

    fn collect(&mut self, now: Instant) {
        while let Some(event) = self.transport.poll_event() {
            match event {
                LinkEvent::Connected {
                    link,
                    side,
                    device_key,
                } => self.on_connected(link, side, device_key, now),
                LinkEvent::Lost { link, reason } => self.on_lost(link, reason, now),
                LinkEvent::Opened { link, dir } => self.on_opened(link, dir, now),
                LinkEvent::Readable { link, stream } => self.on_readable(link, stream, now),
                LinkEvent::Writable { link } => {
                    self.events.push_back(LinksEvent::Writable { link })
                }
            }
        }
    }

    fn on_connected(&mut self, link: LinkId, side: Side, device_key: DeviceKey, now: Instant) {
        if device_key == self.own_key {
            // We never dial ourselves.
            log::warn!(
                "somebody has a copy of this device's key; log in anew with another profile"
            );
            return self.transport.close(link, CloseReason::Unauthorised, now);
        }
        let peer = Peer {
            device_key,
            side,
            account: None,
            authorise_by: now + AUTHORISE_DEADLINE,
            stream: None,
            frames: FrameBuffer::new(),
            has_greeted: false,
            unstored: 0,
            leaves: BTreeMap::new(),
        };
        self.peers.insert(link, peer);
        match side {
            Side::Client => match self.end_dial(device_key, Some(link), now) {
                Some(dial) => self.authorise(link, dial.account, now),
                None => self.drop_link(link, CloseReason::Done, now),
            },
            Side::Server => {
                // A pinned key may talk at once; whether it still is that account's is asked all the
                // same.
                self.events.push_back(LinksEvent::WhoIs(device_key));
                if let Some(account) = self.contacts.get(&device_key).cloned() {
                    self.authorise(link, account, now);
                }
            }
        }
    }

    /// From here on the link may talk. Pins its key if it is new.
    fn authorise(&mut self, link: LinkId, account: AccountName, now: Instant) {
        let Some(peer) = self.peers.get_mut(&link) else {
            return;
        };
        let device_key = peer.device_key;
        match self.contacts.get(&device_key) {
            Some(owner) if *owner != account => {
                log::warn!("a device key is named under two accounts; the link is closed");
                return self.drop_link(link, CloseReason::Unauthorised, now);
            }
            Some(_) => {}
            None => {
                let known = self
                    .contacts
                    .values()
                    .filter(|owner| **owner == account)
                    .count();
                self.contacts.insert(device_key, account.clone());
                let account = account.clone();
                self.events.push_back(LinksEvent::NewKey {
                    account,
                    device_key,
                    known,
                });
            }
        }
        peer.account = Some(account);
        let side = peer.side;
        if let Some(remote) = self.transport.remote(link) {
            self.agent.on_linked(device_key, remote, now);
            self.start_attempts(now);
        }
        self.make_room(device_key, now);
        self.transport.authorise(link);
        match side {
            Side::Client => {
                let stream = self.transport.open_bi(link);
                if let Some(peer) = self.peers.get_mut(&link) {
                    peer.stream = stream;
                }
                self.greet(link);
            }
            Side::Server => self.on_opened(link, StreamDir::Bi, now),
        }
    }

    /// Closes the oldest links of a device that has more than it may have.
    fn make_room(&mut self, device_key: DeviceKey, now: Instant) {
        let links = self.links_of(device_key);
        let surplus = links.len().saturating_sub(LINKS_PER_DEVICE_MAX);
        for link in links.into_iter().take(surplus) {
            self.drop_link(link, CloseReason::Done, now);
        }
    }

    fn greet(&mut self, link: LinkId) {
        let Some(stream) = self.peers.get(&link).and_then(|peer| peer.stream) else {
            return;
        };
        let mut bytes = Vec::new();
        frame::encode::<LINK_FRAME_LEN_MAX>(&PeerHello::ours(AGENT), &mut bytes)
            .expect("a greeting is far below the limit of a frame");
        self.transport.write(link, stream, bytes.into(), false);
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
                if peer.side == Side::Client || peer.stream.is_some() {
                    return self.drop_link(link, CloseReason::Protocol, now);
                }
                if let Some(peer) = self.peers.get_mut(&link) {
                    peer.stream = Some(stream);
                }
                self.greet(link);
                self.on_readable(link, stream, now);
            }
            StreamDir::Uni => {
                while let Some(stream) = self.transport.accept(link, dir) {
                    if let Some(peer) = self.peers.get_mut(&link) {
                        peer.leaves.insert(stream, IncomingLeaf::default());
                    }
                    self.read_leaf(link, stream, now);
                }
            }
        }
    }

    fn on_readable(&mut self, link: LinkId, stream: StreamId, now: Instant) {
        let Some(peer) = self.peers.get(&link) else {
            return;
        };
        if peer.stream == Some(stream) {
            self.read_frames(link, stream, now);
        } else if peer.leaves.contains_key(&stream) {
            self.read_leaf(link, stream, now);
        }
    }

    fn read_frames(&mut self, link: LinkId, stream: StreamId, now: Instant) {
        loop {
            let Some(peer) = self.peers.get_mut(&link) else {
                return;
            };
            if peer.is_full() {
                return;
            }
            let frames = &mut peer.frames;
            let end = self.transport.read(link, stream, &mut |bytes| {
                frames.push(&bytes);
                false
            });
            if let Err(reason) = self.take_frames(link) {
                return self.drop_link(link, reason, now);
            }
            match end {
                ReadEnd::Enough => {}
                ReadEnd::Blocked => return,
                ReadEnd::Finished | ReadEnd::Gone => {
                    return self.drop_link(link, CloseReason::Done, now);
                }
            }
        }
    }

    fn take_frames(&mut self, link: LinkId) -> Result<(), CloseReason> {
        let malformed = |error: FrameError| {
            log::debug!("a peer sent {error}");
            CloseReason::Protocol
        };
        let Some(peer) = self.peers.get_mut(&link) else {
            return Ok(());
        };
        let Some(account) = peer.account.clone() else {
            return Ok(());
        };
        if !peer.has_greeted {
            let Some(hello) = peer.frames.next_frame::<PeerHello>().map_err(malformed)? else {
                return Ok(());
            };
            if !hello.is_compatible() {
                return Err(CloseReason::Version);
            }
            peer.has_greeted = true;
            let account = account.clone();
            self.events.push_back(LinksEvent::Ready { link, account });
        }
        while !peer.is_full()
            && let Some(frame) = peer.frames.next_frame::<PeerFrame>().map_err(malformed)?
        {
            peer.unstored += usize::from(matches!(frame, PeerFrame::Chat(ChatFrame::Message(_))));
            let account = account.clone();
            self.events.push_back(LinksEvent::Frame {
                link,
                account,
                frame,
            });
        }
        Ok(())
    }

    fn read_leaf(&mut self, link: LinkId, stream: StreamId, now: Instant) {
        if self.leaves_paused {
            return;
        }
        let Some(peer) = self.peers.get_mut(&link) else {
            return;
        };
        let Some(leaf) = peer.leaves.get_mut(&stream) else {
            return;
        };
        let expected = &self.expected;
        let room = |header: &LeafHeader| {
            let transfer = expected.get(&header.transfer)?;
            let is_there = transfer.link == link;
            leaf_len(transfer.size, header.index).filter(|_| is_there)
        };
        let mut pushed = Ok(());
        let end = self.transport.read(link, stream, &mut |bytes| {
            pushed = leaf.push(bytes, room);
            pushed.is_ok()
        });
        match (pushed, end) {
            (Err(LeafFault::Malformed), _) => self.drop_link(link, CloseReason::Protocol, now),
            (Err(LeafFault::Unexpected), _) => {
                // Its transfer may just have been given up.
                peer.leaves.remove(&stream);
                self.transport.stop(link, stream);
            }
            (Ok(()), ReadEnd::Blocked | ReadEnd::Enough) => {}
            (Ok(()), ReadEnd::Gone) => {
                peer.leaves.remove(&stream);
            }
            (Ok(()), ReadEnd::Finished) => {
                let leaf = peer.leaves.remove(&stream).unwrap_or_default();
                match leaf.header {
                    Some(header) => self.events.push_back(LinksEvent::Leaf {
                        link,
                        header,
                        bytes: leaf.bytes.into(),
                    }),
                    None => self.drop_link(link, CloseReason::Protocol, now),
                }
            }
        }
    }

    fn on_lost(&mut self, link: LinkId, reason: String, now: Instant) {
        if let Some(attempt) = self.attempts.remove(&link) {
            if let Some(dial) = self.dials.get_mut(&attempt.device_key) {
                dial.failure.clone_from(&reason);
            }
            self.agent
                .on_dial_failed(attempt.device_key, attempt.endpoint, now);
            self.continue_dials(now);
        }
        self.forget(link, reason);
    }

    fn drop_link(&mut self, link: LinkId, reason: CloseReason, now: Instant) {
        self.transport.close(link, reason, now);
        let reason = match reason {
            CloseReason::Done => "the link was closed",
            CloseReason::Unauthorised => "the device is not known",
            CloseReason::Protocol => "the other side broke the protocol",
            CloseReason::Version => {
                "the other side speaks another version; upgrade the older of the two"
            }
        };
        self.forget(link, reason.to_owned());
    }

    fn forget(&mut self, link: LinkId, reason: String) {
        if let Some(peer) = self.peers.remove(&link)
            && let Some(account) = peer.account
        {
            self.events.push_back(LinksEvent::Lost {
                link,
                account,
                reason,
            });
        }
    }
}

impl Peer {
    fn is_ready(&self) -> bool {
        self.has_greeted && self.account.is_some()
    }

    /// Tells whether so many of its messages wait for the history that no more are read.
    const fn is_full(&self) -> bool {
        self.unstored >= MESSAGES_IN_FLIGHT_MAX
    }
}

/// Why a leaf stream is not read any further.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LeafFault {
    /// It holds something else than a header and that leaf.
    Malformed,
    /// Nobody waits for this leaf here.
    Unexpected,
}

impl IncomingLeaf {
    /// Takes the next bytes. `room` tells how long the leaf of a header is, if it is expected.
    fn push(
        &mut self,
        mut bytes: Bytes,
        room: impl Fn(&LeafHeader) -> Option<usize>,
    ) -> Result<(), LeafFault> {
        if self.header.is_none() {
            self.take_header(&mut bytes)?;
            let Some(header) = &self.header else {
                return Ok(());
            };
            self.len = room(header).ok_or(LeafFault::Unexpected)?;
            self.bytes.reserve_exact(self.len);
        }
        if self.bytes.len() + bytes.len() > self.len {
            return Err(LeafFault::Malformed);
        }
        self.bytes.extend_from_slice(&bytes);
        Ok(())
    }

    fn take_header(&mut self, bytes: &mut Bytes) -> Result<(), LeafFault> {
        let wanted = match self.head.first_chunk::<{ frame::PREFIX_LEN }>() {
            Some(prefix) => frame::PREFIX_LEN + u32::from_be_bytes(*prefix) as usize,
            None => frame::PREFIX_LEN,
        };
        if wanted > LEAF_HEADER_LEN_MAX {
            return Err(LeafFault::Malformed);
        }
        let missing = wanted - self.head.len();
        self.head
            .extend_from_slice(&bytes.split_to(missing.min(bytes.len())));
        if self.head.len() < wanted {
            return Ok(());
        }
        if wanted == frame::PREFIX_LEN {
            // The prefix is whole now; go on with the header itself.
            return if self.head == [0; frame::PREFIX_LEN] {
                Err(LeafFault::Malformed)
            } else {
                self.take_header(bytes)
            };
        }
        let header = frame::decode::<LEAF_HEADER_LEN_MAX, _>(&self.head[frame::PREFIX_LEN..]);
        self.header = Some(header.map_err(|_| LeafFault::Malformed)?);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use common::hash::LeafHash;
    use common::limits::LEAF_LEN;
    use rand::SeedableRng;

    fn leaf(payload: &[u8]) -> (LeafHeader, Vec<u8>) {
        let header = LeafHeader {
            transfer: TransferId::from_bytes([1; 16]),
            index: 300,
            hash: LeafHash([2; 32]),
        };
        let mut bytes = Vec::new();
        frame::encode::<LEAF_HEADER_LEN_MAX>(&header, &mut bytes).unwrap();
        bytes.extend_from_slice(payload);
        (header, bytes)
    }

    #[test]
    fn leaves_survive_any_cutting() {
        let (header, bytes) = leaf(b"payload");
        for cut in 0..=bytes.len() {
            let mut incoming = IncomingLeaf::default();
            for piece in [&bytes[..cut], &bytes[cut..]] {
                incoming
                    .push(Bytes::copy_from_slice(piece), |_| Some(7))
                    .unwrap();
            }
            assert_eq!(incoming.header, Some(header));
            assert_eq!(incoming.bytes, b"payload");
        }
    }

    #[test]
    fn t11_oversized_leaves_and_headers_are_refused() {
        let push = |bytes: Vec<u8>, room: Option<usize>| {
            IncomingLeaf::default().push(bytes.into(), |_| room)
        };
        let (_, bytes) = leaf(b"payload");
        assert_eq!(push(bytes.clone(), Some(6)), Err(LeafFault::Malformed));
        assert_eq!(push(bytes, None), Err(LeafFault::Unexpected));
        for prefix in [0u32, 61, u32::MAX] {
            let bytes = [&prefix.to_be_bytes()[..], &[0; 80]].concat();
            assert_eq!(
                push(bytes, Some(LEAF_LEN)),
                Err(LeafFault::Malformed),
                "{prefix}"
            );
        }
    }

    fn links() -> Links {
        let rng = StdRng::from_seed([1; 32]);
        Links::new([1; 32], rng, DeviceSecret::from_seed([1; 32]), Vec::new())
    }

    #[test]
    fn t22_only_addresses_of_single_other_hosts_are_dialled() {
        let mut links = links();
        links.set_own_addresses(["192.0.2.9:4000".parse().unwrap()].into_iter());
        let refused = [
            "127.0.0.1:1",
            "[::1]:1",
            "0.0.0.0:1",
            "[::]:1",
            "169.254.169.254:80",
            "224.0.0.1:1",
            "255.255.255.255:1",
            "[ff02::1]:1",
            "[fe80::1]:1",
            "192.0.2.1:0",
            "192.0.2.9:4000",
        ];
        for address in refused {
            assert!(!links.is_dialable(address.parse().unwrap()), "{address}");
        }
        assert!(links.is_dialable("192.0.2.9:4001".parse().unwrap()));
        links.set_local(true);
        assert!(links.is_dialable("127.0.0.1:1".parse().unwrap()));
        let mapped = common::stun::canonical("[::ffff:169.254.169.254]:80".parse().unwrap());
        assert!(!links.is_dialable(mapped));
    }
}
