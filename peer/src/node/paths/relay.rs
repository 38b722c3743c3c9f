//! This device's side of the relay: its allocation, and the channels to other devices.
//!
//! A [`Relay`] binds the allocation to the address that this device's packets come from, and again when
//! that changes: the server sends a challenge there, which is returned as proof. QUIC knows a channel by a
//! made-up address ([`common::relayed`]); what goes there is packed for the server, and what the server sends
//! comes from there.
//!
//! Where UDP does not reach the server, the control connection carries the same datagrams. A challenge that is
//! not answered at once is asked for over both, and whichever brings one is used; a challenge that comes over
//! UDP later puts the allocation there.
//!
//! ```text
//!   idle --allocated--> asking --challenge--> proving --bound--> bound
//!                         ^  \_______ no answer ______/ |          |
//!                         |           v                 |          |
//!                         +-------- resting             +----------+-- the address has changed: asking
//! ```

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::Instant;

use bytes::BytesMut;
use common::key::DeviceKey;
use common::limits::{
    ANNOUNCE_WAIT_MAX, Occupancy, RELAY_CHANNELS_PER_DEVICE_MAX, RELAY_PATIENCE_MIN,
    RELAYED_PACKET_LEN_MAX, STUN_INTERVAL, STUN_RETRY_INTERVAL, STUN_TRIES_MAX, UDP_TRAIN_LEN_MAX,
};
use common::relayed::relayed_address;
use common::stun;
use common::wire::channel::{AllocationId, CHANNEL_HEADER_LEN, ChannelDatagram, Cookie, EndId};
use common::wire::rendezvous::RelayDatagrams;
use rand::RngExt;
use rand::rngs::StdRng;

use crate::node::command::Carrier;
use crate::node::io::{Datagrams, Transmit};

/// The allocation of this device, and its channels.
#[derive(Debug)]
pub(in crate::node) struct Relay {
    rng: StdRng,
    /// The relay's address.
    server: Option<SocketAddr>,
    allocation: Option<AllocationId>,
    binding: Binding,
    /// What the packets of channels take.
    carrier: Carrier,
    /// A challenge came over UDP while another one was returned over the control connection.
    udp_answers: bool,
    /// Since when this device is logged in: there is a control connection.
    session: Option<Instant>,
    /// Links that begin before then wait for the binding.
    wait_until: Option<Instant>,
    /// By their made-up addresses; at most [`RELAY_CHANNELS_PER_DEVICE_MAX`].
    channels: BTreeMap<SocketAddr, Channel>,
    addresses: BTreeMap<EndId, SocketAddr>,
    transmits: VecDeque<(Transmit, Vec<u8>)>,
    /// For the control connection.
    trains: VecDeque<RelayDatagrams>,
}

#[derive(Clone, Copy, Debug)]
enum Binding {
    /// There is no session, or no allocation yet.
    Idle,
    /// The server was asked for a challenge, which is repeated at `at`.
    Asking { tries: u32, at: Instant },
    /// The challenge was returned, which is repeated at `at`.
    Proving {
        cookie: Cookie,
        carrier: Carrier,
        tries: u32,
        at: Instant,
    },
    /// The server has answered the proof.
    Bound,
    /// The server does not answer; it is asked again at `until`.
    Resting { until: Instant },
}

/// A channel to another device.
#[derive(Debug)]
struct Channel {
    /// `None` if this device was not introduced to it: a packet came sooner than the introduction, or it was
    /// introduced before this program started. The packets show who it is.
    device: Option<DeviceKey>,
    end: EndId,
    /// When it last carried something, or was made.
    used: Instant,
}

impl Relay {
    /// Neither an allocation nor channels.
    pub(in crate::node) const fn new(rng: StdRng) -> Self {
        Self {
            rng,
            server: None,
            allocation: None,
            binding: Binding::Idle,
            carrier: Carrier::Udp,
            udp_answers: false,
            session: None,
            wait_until: None,
            channels: BTreeMap::new(),
            addresses: BTreeMap::new(),
            transmits: VecDeque::new(),
            trains: VecDeque::new(),
        }
    }

    /// How many channels there are.
    pub(in crate::node) fn occupancy(&self) -> Occupancy {
        Occupancy::new(
            "relay channels",
            self.channels.len(),
            RELAY_CHANNELS_PER_DEVICE_MAX,
        )
    }

    /// A session begins with the server at this address: the relay is there, too. An allocation is about to
    /// be asked for.
    pub(in crate::node) fn on_online(&mut self, server: SocketAddr, now: Instant) {
        self.server = Some(stun::canonical(server));
        self.session = Some(now);
        self.binding = Binding::Idle;
        self.wait_until = Some(now + ANNOUNCE_WAIT_MAX);
    }

    /// The session ended. The channels go on over UDP as long as the server keeps them.
    pub(in crate::node) fn on_offline(&mut self) {
        self.session = None;
        self.wait_until = None;
        self.trains.clear();
        if !matches!(self.binding, Binding::Bound) || self.carrier == Carrier::Control {
            self.binding = Binding::Idle;
        }
    }

    /// Binds an allocation; `None` if the server grants none.
    pub(in crate::node) fn on_allocated(&mut self, id: Option<AllocationId>, now: Instant) {
        if self.allocation != id {
            // The channels joined another one.
            self.allocation = id;
            self.channels.clear();
            self.addresses.clear();
        }
        if id.is_none() {
            self.binding = Binding::Idle;
            self.wait_until = None;
        } else {
            // Time to find that UDP is blocked.
            let until = now + STUN_RETRY_INTERVAL * 2;
            self.wait_until = self.wait_until.map(|_| until);
            self.ask(0, now);
            self.hurry(now);
        }
    }

    /// The server has answered over UDP.
    pub(in crate::node) fn on_udp_answer(&mut self) {
        if self.carrier == Carrier::Control
            && let Some(id) = self.allocation
        {
            self.tell_server(ChannelDatagram::Bind(id), Carrier::Udp);
        }
    }

    /// The server does not answer over UDP any more.
    pub(in crate::node) fn on_udp_lost(&mut self, now: Instant) {
        if self.carrier == Carrier::Udp && matches!(self.binding, Binding::Bound) {
            self.ask(0, now);
        }
    }

    /// What carries the packets of channels.
    pub(in crate::node) const fn carrier(&self) -> Carrier {
        self.carrier
    }

    /// This device's packets may come from another address than before.
    pub(in crate::node) fn on_address_change(&mut self, now: Instant) {
        match self.binding {
            Binding::Idle => {}
            Binding::Asking { .. }
            | Binding::Proving { .. }
            | Binding::Bound
            | Binding::Resting { .. } => self.ask(0, now),
        }
    }

    /// Tells whether the server has granted an allocation.
    pub(in crate::node) const fn has_allocation(&self) -> bool {
        self.allocation.is_some()
    }

    /// Tells whether there is nothing more to wait for before links begin: the proof is on its way, ahead of
    /// their packets, or there will be none.
    pub(in crate::node) const fn is_ready(&self) -> bool {
        self.wait_until.is_none()
    }

    /// The made-up address of the channel to a device.
    pub(in crate::node) fn join(
        &mut self,
        device: DeviceKey,
        end: EndId,
        now: Instant,
    ) -> SocketAddr {
        // There is one channel between two devices: an earlier one is closed.
        let mut channels = self.channels.iter();
        let is_earlier = |channel: &Channel| channel.device == Some(device) && channel.end != end;
        let earlier = channels.find(|(_, channel)| is_earlier(channel));
        if let Some(address) = earlier.map(|(address, _)| *address) {
            self.remove(address);
        }
        let address = self.address_of(end, now);
        if let Some(channel) = self.channels.get_mut(&address) {
            channel.device = Some(device);
        }
        address
    }

    /// The made-up address of a channel, which carries something now.
    fn address_of(&mut self, end: EndId, now: Instant) -> SocketAddr {
        if let Some(address) = self.addresses.get(&end) {
            if let Some(channel) = self.channels.get_mut(address) {
                channel.used = now;
            }
            return *address;
        }
        if self.channels.len() >= RELAY_CHANNELS_PER_DEVICE_MAX {
            let channels = self.channels.iter();
            let oldest = channels.min_by_key(|(_, channel)| channel.used);
            if let Some(address) = oldest.map(|(address, _)| *address) {
                self.remove(address);
            }
        }
        let address = relayed_address(self.rng.random());
        let channel = Channel {
            device: None,
            end,
            used: now,
        };
        self.channels.insert(address, channel);
        self.addresses.insert(end, address);
        address
    }

    fn remove(&mut self, address: SocketAddr) {
        if let Some(channel) = self.channels.remove(&address) {
            self.addresses.remove(&channel.end);
        }
    }

    /// Takes datagrams of the relay that came over UDP. Returns the packets, from made-up addresses.
    pub(in crate::node) fn handle_datagrams(
        &mut self,
        datagrams: &Datagrams,
        now: Instant,
    ) -> Vec<Datagrams> {
        if self.server != Some(stun::canonical(datagrams.source)) {
            return Vec::new();
        }
        let Datagrams { stride, bytes, .. } = datagrams;
        self.take(bytes, *stride, Carrier::Udp, now)
    }

    /// The same with those that came over the control connection.
    pub(in crate::node) fn handle_train(
        &mut self,
        train: &RelayDatagrams,
        now: Instant,
    ) -> Vec<Datagrams> {
        self.take(&train.bytes, train.stride.into(), Carrier::Control, now)
    }

    fn take(
        &mut self,
        bytes: &[u8],
        stride: usize,
        carrier: Carrier,
        now: Instant,
    ) -> Vec<Datagrams> {
        let mut packets = Vec::new();
        for datagram in bytes.chunks(stride.max(1)) {
            match ChannelDatagram::parse(datagram) {
                Some(ChannelDatagram::Packet { end, packet }) => {
                    let address = self.address_of(end, now);
                    add_packet(&mut packets, address, packet);
                    self.on_packet_over(carrier, now);
                }
                Some(ChannelDatagram::Challenge(id, cookie)) => {
                    self.on_challenge(id, cookie, carrier, now);
                }
                Some(ChannelDatagram::Bound(id)) => self.on_bound(id),
                Some(ChannelDatagram::Bind(_) | ChannelDatagram::Proof(..)) | None => {}
            }
        }
        packets
    }

    /// Packs what QUIC sends to a made-up address for the server. What is too long is dropped, and so is what
    /// goes through a channel that is no more.
    pub(in crate::node) fn send(&mut self, transmit: &Transmit, bytes: &[u8], now: Instant) {
        let Some(server) = self.server else {
            return;
        };
        let Some(channel) = self.channels.get_mut(&transmit.destination) else {
            return;
        };
        channel.used = now;
        let len = transmit.segment_size.unwrap_or(transmit.size).max(1);
        let segment = CHANNEL_HEADER_LEN + len;
        let at_once = (UDP_TRAIN_LEN_MAX / segment).max(1);
        let end = channel.end;
        let header = ChannelDatagram::Packet { end, packet: &[] }.to_bytes();
        for train in bytes.chunks(at_once * len) {
            let mut packed = Vec::with_capacity(train.len().div_ceil(len) * segment);
            let packets = train.chunks(len);
            for packet in packets.filter(|packet| packet.len() <= RELAYED_PACKET_LEN_MAX) {
                packed.extend_from_slice(&header);
                packed.extend_from_slice(packet);
            }
            if packed.is_empty() {
                continue;
            }
            match self.carrier {
                Carrier::Udp => {
                    let size = packed.len();
                    let transmit = Transmit {
                        ecn: transmit.ecn,
                        segment_size: (size > segment).then_some(segment),
                        ..Transmit::single(server, size)
                    };
                    self.transmits.push_back((transmit, packed));
                }
                Carrier::Control => self.add_train(segment, packed),
            }
        }
    }

    /// Repeats what the server has not answered.
    pub(in crate::node) fn handle_timeout(&mut self, now: Instant) {
        self.wait_until.take_if(|until| *until <= now);
        match self.binding {
            Binding::Asking { tries, at } | Binding::Proving { tries, at, .. }
                if at <= now && tries >= STUN_TRIES_MAX =>
            {
                let until = now + STUN_INTERVAL;
                self.binding = Binding::Resting { until };
            }
            Binding::Asking { tries, at } if at <= now => self.ask(tries, now),
            Binding::Proving {
                cookie,
                carrier,
                tries,
                at,
            } if at <= now => self.prove(cookie, carrier, tries, now),
            Binding::Resting { until } if until <= now => self.ask(0, now),
            Binding::Asking { .. }
            | Binding::Proving { .. }
            | Binding::Resting { .. }
            | Binding::Idle
            | Binding::Bound => {}
        }
    }

    /// When [`Relay::handle_timeout`] is due, if ever.
    pub(in crate::node) fn poll_timeout(&self) -> Option<Instant> {
        let binding = match self.binding {
            Binding::Asking { at, .. } | Binding::Proving { at, .. } => Some(at),
            Binding::Resting { until } => Some(until),
            Binding::Idle | Binding::Bound => None,
        };
        binding.into_iter().chain(self.wait_until).min()
    }

    /// Appends the next datagrams for the server to `buffer`.
    pub(in crate::node) fn poll_transmit(&mut self, buffer: &mut Vec<u8>) -> Option<Transmit> {
        let (transmit, bytes) = self.transmits.pop_front()?;
        buffer.extend_from_slice(&bytes);
        Some(transmit)
    }

    /// The next datagrams for the control connection.
    pub(in crate::node) fn poll_train(&mut self) -> Option<RelayDatagrams> {
        self.trains.pop_front()
    }

    fn ask(&mut self, tries: u32, now: Instant) {
        if let Some(id) = self.allocation {
            self.binding = Binding::Asking {
                tries: tries + 1,
                at: now + STUN_RETRY_INTERVAL,
            };
            self.tell_server(ChannelDatagram::Bind(id), Carrier::Udp);
            if tries > 0 || self.carrier == Carrier::Control {
                self.tell_server(ChannelDatagram::Bind(id), Carrier::Control);
            }
        }
    }

    /// The answer of the control connection took a round trip. That of the relay takes no longer, where UDP
    /// works: the first try is over sooner.
    fn hurry(&mut self, now: Instant) {
        if let Binding::Asking { at, .. } = &mut self.binding
            && let Some(began) = self.session
        {
            let round_trip = now.saturating_duration_since(began);
            *at = now + (round_trip * 2).clamp(RELAY_PATIENCE_MIN, STUN_RETRY_INTERVAL);
        }
    }

    fn on_challenge(&mut self, id: AllocationId, cookie: Cookie, carrier: Carrier, now: Instant) {
        let is_wanted = match self.binding {
            Binding::Asking { .. } => true,
            Binding::Proving { .. } => {
                // One proof at a time: nobody knows which of two comes last, and where the allocation is then.
                self.udp_answers |= carrier == Carrier::Udp;
                false
            }
            Binding::Bound => self.carrier == Carrier::Control && carrier == Carrier::Udp,
            Binding::Idle | Binding::Resting { .. } => false,
        };
        if is_wanted && self.allocation == Some(id) {
            self.prove(cookie, carrier, 0, now);
        }
    }

    fn prove(&mut self, cookie: Cookie, carrier: Carrier, tries: u32, now: Instant) {
        if let Some(id) = self.allocation {
            self.binding = Binding::Proving {
                cookie,
                carrier,
                tries: tries + 1,
                at: now + STUN_RETRY_INTERVAL,
            };
            self.wait_until = None;
            self.tell_server(ChannelDatagram::Proof(id, cookie), carrier);
            if carrier == Carrier::Control {
                // Packets follow the proof at once: nothing gets there in another way.
                self.carrier = carrier;
            }
        }
    }

    fn on_bound(&mut self, id: AllocationId) {
        if let Binding::Proving { carrier, .. } = self.binding
            && self.allocation == Some(id)
        {
            self.binding = Binding::Bound;
            self.carrier = carrier;
            if std::mem::take(&mut self.udp_answers) {
                self.on_udp_answer();
            }
        }
    }

    /// A packet came from the relay. If that is another way than packets go there, the allocation is elsewhere.
    fn on_packet_over(&mut self, carrier: Carrier, now: Instant) {
        if carrier != self.carrier && matches!(self.binding, Binding::Bound) {
            self.ask(0, now);
        }
    }

    fn tell_server(&mut self, datagram: ChannelDatagram<'_>, carrier: Carrier) {
        let bytes = datagram.to_bytes();
        match (carrier, self.server) {
            (Carrier::Control, _) => self.add_train(bytes.len(), bytes),
            (Carrier::Udp, Some(server)) => {
                let transmit = Transmit::single(server, bytes.len());
                self.transmits.push_back((transmit, bytes));
            }
            (Carrier::Udp, None) => {}
        }
    }

    fn add_train(&mut self, stride: usize, bytes: Vec<u8>) {
        if self.session.is_some()
            && let Ok(stride) = u16::try_from(stride)
        {
            self.trains.push_back(RelayDatagrams { stride, bytes });
        }
    }
}

/// Adds a packet to the last train if it fits there, or begins another.
fn add_packet(trains: &mut Vec<Datagrams>, source: SocketAddr, packet: &[u8]) {
    let fits = |train: &&mut Datagrams| {
        let is_whole = train.bytes.len().is_multiple_of(train.stride);
        train.source == source && is_whole && packet.len() <= train.stride
    };
    match trains.last_mut().filter(fits) {
        Some(train) => train.bytes.extend_from_slice(packet),
        None => trains.push(Datagrams {
            source,
            local: None,
            ecn: None,
            stride: packet.len(),
            bytes: BytesMut::from(packet),
        }),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use common::key::DeviceSecret;
    use rand::SeedableRng;

    use super::*;

    const ID: AllocationId = AllocationId::from_bytes([1; 16]);
    const COOKIE: Cookie = Cookie([2; 16]);

    fn server() -> SocketAddr {
        "198.51.100.1:7400".parse().unwrap()
    }

    fn device(number: u16) -> DeviceKey {
        let [high, low] = number.to_be_bytes();
        let mut seed = [high; 32];
        seed[0] = low;
        DeviceSecret::from_seed(seed).public()
    }

    fn end(number: u16) -> EndId {
        let mut bytes = [7; 16];
        bytes[..2].copy_from_slice(&number.to_be_bytes());
        EndId::from_bytes(bytes)
    }

    #[expect(clippy::disallowed_methods, reason = "any instant will do as a start")]
    fn online() -> (Relay, Instant) {
        let now = Instant::now();
        let mut relay = Relay::new(StdRng::from_seed([1; 32]));
        relay.on_online(server(), now);
        (relay, now)
    }

    /// The next datagram for the server.
    fn sent(relay: &mut Relay) -> Option<Vec<u8>> {
        let mut buffer = Vec::new();
        let transmit = relay.poll_transmit(&mut buffer)?;
        assert_eq!(transmit.destination, server());
        assert_eq!(transmit.size, buffer.len());
        Some(buffer)
    }

    fn from_server(bytes: &[u8], stride: usize) -> Datagrams {
        Datagrams {
            source: server(),
            local: None,
            ecn: None,
            stride,
            bytes: BytesMut::from(bytes),
        }
    }

    fn tell(relay: &mut Relay, datagram: ChannelDatagram<'_>, now: Instant) -> Vec<Datagrams> {
        let bytes = datagram.to_bytes();
        relay.handle_datagrams(&from_server(&bytes, bytes.len()), now)
    }

    fn bound() -> (Relay, Instant) {
        let (mut relay, now) = online();
        relay.on_allocated(Some(ID), now);
        tell(&mut relay, ChannelDatagram::Challenge(ID, COOKIE), now);
        tell(&mut relay, ChannelDatagram::Bound(ID), now);
        relay.transmits.clear();
        (relay, now)
    }

    #[test]
    fn whoever_has_a_slow_server_waits_longer_for_an_answer_over_udp() {
        for (round_trip, patience) in [(10, 50), (100, 200), (400, 500)].map(|(a, b)| {
            let [a, b] = [a, b].map(Duration::from_millis);
            (a, b)
        }) {
            let (mut relay, began) = online();
            let now = began + round_trip;
            relay.on_allocated(Some(ID), now);
            relay.handle_timeout(now + patience - Duration::from_millis(1));
            assert_eq!(relay.poll_train(), None);
            relay.handle_timeout(now + patience);
            assert_eq!(relay.poll_train(), Some(train(ChannelDatagram::Bind(ID))));
        }
    }

    #[test]
    fn an_allocation_is_bound_by_returning_the_challenge() {
        let (mut relay, now) = online();
        assert!(!relay.is_ready());
        relay.on_allocated(Some(ID), now);
        let bind = ChannelDatagram::Bind(ID).to_bytes();
        assert_eq!(sent(&mut relay), Some(bind));
        // Of somebody else, or for nothing that was asked.
        let other = AllocationId::from_bytes([9; 16]);
        tell(&mut relay, ChannelDatagram::Challenge(other, COOKIE), now);
        tell(&mut relay, ChannelDatagram::Bound(ID), now);
        assert_eq!((sent(&mut relay), relay.is_ready()), (None, false));
        tell(&mut relay, ChannelDatagram::Challenge(ID, COOKIE), now);
        let proof = ChannelDatagram::Proof(ID, COOKIE).to_bytes();
        assert_eq!(sent(&mut relay), Some(proof));
        // What a link sends now comes behind the proof.
        assert!(relay.is_ready());
        tell(&mut relay, ChannelDatagram::Bound(ID), now);
        assert_eq!((sent(&mut relay), relay.poll_timeout()), (None, None));
        // Another address is bound, too.
        relay.on_address_change(now);
        assert!(sent(&mut relay).is_some() && relay.is_ready());
    }

    #[test]
    fn a_silent_relay_is_asked_a_few_times_and_again_later() {
        for returned in [false, true] {
            let (mut relay, began) = online();
            relay.on_allocated(Some(ID), began);
            if returned {
                tell(&mut relay, ChannelDatagram::Challenge(ID, COOKIE), began);
            }
            let before = relay.transmits.len();
            let mut times = Vec::new();
            while times.len() < STUN_TRIES_MAX as usize {
                let now = relay.poll_timeout().unwrap();
                let sent = relay.transmits.len();
                relay.handle_timeout(now);
                if relay.transmits.len() > sent {
                    times.push(now - began);
                }
            }
            assert!(relay.is_ready());
            assert!(relay.transmits.len() > before);
            // The server took no time to answer the request.
            let first = if returned {
                STUN_RETRY_INTERVAL
            } else {
                RELAY_PATIENCE_MIN
            };
            let quick = [
                first,
                first + STUN_RETRY_INTERVAL,
                first + STUN_RETRY_INTERVAL * 2,
            ];
            let again = first + STUN_RETRY_INTERVAL * 3 + STUN_INTERVAL;
            assert_eq!(times.pop(), Some(again), "{times:?}");
            assert_eq!(times, quick);
        }
    }

    fn train(datagram: ChannelDatagram<'_>) -> RelayDatagrams {
        let bytes = datagram.to_bytes();
        RelayDatagrams {
            stride: u16::try_from(bytes.len()).unwrap(),
            bytes,
        }
    }

    /// Bound over the control connection, since nothing came over UDP.
    fn bound_over_control() -> (Relay, Instant) {
        let (mut relay, now) = online();
        relay.on_allocated(Some(ID), now);
        assert_eq!(relay.poll_train(), None);
        let now = relay.poll_timeout().unwrap();
        relay.handle_timeout(now);
        assert_eq!(relay.poll_train(), Some(train(ChannelDatagram::Bind(ID))));
        assert!(!relay.is_ready(), "links wait for that");
        relay.handle_train(&train(ChannelDatagram::Challenge(ID, COOKIE)), now);
        let proof = train(ChannelDatagram::Proof(ID, COOKIE));
        assert_eq!(relay.poll_train(), Some(proof));
        assert!(relay.is_ready());
        relay.handle_train(&train(ChannelDatagram::Bound(ID)), now);
        assert_eq!((relay.poll_train(), relay.poll_timeout()), (None, None));
        relay.transmits.clear();
        (relay, now)
    }

    /// Where a packet to a device goes: over UDP, over the control connection.
    fn packet_goes(relay: &mut Relay, now: Instant) -> (bool, bool) {
        let address = relay.join(device(1), end(1), now);
        relay.send(&Transmit::single(address, 1), b"x", now);
        (sent(relay).is_some(), relay.poll_train().is_some())
    }

    #[test]
    fn where_udp_is_blocked_the_control_connection_carries_packets() {
        let (mut relay, now) = bound_over_control();
        let address = relay.join(device(1), end(1), now);
        let transmit = Transmit {
            segment_size: Some(4),
            ..Transmit::single(address, 9)
        };
        relay.send(&transmit, b"one twothr", now);
        assert_eq!(sent(&mut relay), None);
        let sent = relay.poll_train().unwrap();
        assert!(sent.is_fair());
        let packets = sent.bytes.chunks(sent.stride.into());
        let packets: Vec<_> = packets.map(ChannelDatagram::parse).collect();
        let packet = |packet| {
            Some(ChannelDatagram::Packet {
                end: end(1),
                packet,
            })
        };
        assert_eq!(packets, [packet(b"one "), packet(b"twot"), packet(b"hr")]);
        let came = relay.handle_train(&sent, now);
        assert_eq!(
            (came[0].source, &came[0].bytes[..]),
            (address, &b"one twothr"[..])
        );
        // Without a session nothing goes anywhere, and with the next one at once.
        relay.on_offline();
        assert_eq!(packet_goes(&mut relay, now), (false, false));
        relay.on_online(server(), now);
        relay.on_allocated(Some(ID), now);
        assert_eq!(relay.poll_train(), Some(train(ChannelDatagram::Bind(ID))));
    }

    #[test]
    fn packets_go_over_udp_again_once_that_is_proven() {
        let (mut relay, now) = bound_over_control();
        relay.on_udp_answer();
        assert_eq!(sent(&mut relay), Some(ChannelDatagram::Bind(ID).to_bytes()));
        assert_eq!(packet_goes(&mut relay, now), (false, true));
        tell(&mut relay, ChannelDatagram::Challenge(ID, COOKIE), now);
        let proof = ChannelDatagram::Proof(ID, COOKIE).to_bytes();
        assert_eq!(sent(&mut relay), Some(proof));
        assert_eq!(packet_goes(&mut relay, now), (false, true));
        tell(&mut relay, ChannelDatagram::Bound(ID), now);
        assert_eq!(packet_goes(&mut relay, now), (true, false));
        // Nothing is asked while it works.
        relay.on_udp_answer();
        assert_eq!((sent(&mut relay), relay.poll_train()), (None, None));
    }

    /// Two proofs at a time could arrive in either order, and leave the allocation where nobody sends from.
    #[test]
    fn a_challenge_over_udp_that_comes_late_is_asked_for_again_once_the_other_one_is_settled() {
        let (mut relay, began) = online();
        relay.on_allocated(Some(ID), began);
        let now = relay.poll_timeout().unwrap();
        relay.handle_timeout(now);
        relay.handle_train(&train(ChannelDatagram::Challenge(ID, COOKIE)), now);
        relay.transmits.clear();
        tell(&mut relay, ChannelDatagram::Challenge(ID, COOKIE), now);
        assert_eq!(sent(&mut relay), None);
        relay.handle_train(&train(ChannelDatagram::Bound(ID)), now);
        assert_eq!(sent(&mut relay), Some(ChannelDatagram::Bind(ID).to_bytes()));
        tell(&mut relay, ChannelDatagram::Challenge(ID, COOKIE), now);
        let proof = ChannelDatagram::Proof(ID, COOKIE).to_bytes();
        assert_eq!(sent(&mut relay), Some(proof));
    }

    #[test]
    fn whoever_hears_the_relay_another_way_than_it_sends_binds_its_allocation_again() {
        let (mut relay, now) = bound();
        let packet = ChannelDatagram::Packet {
            end: end(1),
            packet: b"packet",
        };
        relay.handle_train(&train(packet), now);
        let bind = ChannelDatagram::Bind(ID).to_bytes();
        assert_eq!(sent(&mut relay), Some(bind.clone()));
        relay.handle_train(&train(packet), now);
        assert_eq!(sent(&mut relay), None, "it is asked already");
        let (mut relay, now) = bound_over_control();
        tell(&mut relay, packet, now);
        assert_eq!(sent(&mut relay), Some(bind));
    }

    #[test]
    fn the_control_connection_takes_over_when_udp_dies() {
        let (mut relay, now) = bound();
        relay.on_udp_lost(now);
        assert!(sent(&mut relay).is_some());
        assert_eq!(packet_goes(&mut relay, now), (true, false));
        relay.handle_timeout(now + STUN_RETRY_INTERVAL);
        assert_eq!(relay.poll_train(), Some(train(ChannelDatagram::Bind(ID))));
        relay.handle_train(&train(ChannelDatagram::Challenge(ID, COOKIE)), now);
        relay.poll_train();
        relay.transmits.clear();
        assert_eq!(packet_goes(&mut relay, now), (false, true));
    }

    #[test]
    fn links_do_not_wait_for_a_relay_for_long() {
        let (mut relay, now) = online();
        assert_eq!(relay.poll_timeout(), Some(now + ANNOUNCE_WAIT_MAX));
        relay.handle_timeout(now + ANNOUNCE_WAIT_MAX - Duration::from_millis(1));
        assert!(!relay.is_ready());
        relay.handle_timeout(now + ANNOUNCE_WAIT_MAX);
        assert!(relay.is_ready());
        let (mut relay, now) = online();
        relay.on_allocated(None, now);
        assert!(relay.is_ready());
        relay.on_address_change(now);
        assert_eq!((sent(&mut relay), relay.poll_timeout()), (None, None));
    }

    #[test]
    fn packets_are_packed_in_trains_that_fit_a_system_call() {
        let (mut relay, now) = bound();
        let address = relay.join(device(1), end(1), now);
        for (len, segment, dropped) in [
            (5, None, 0),
            (10 * 1200 + 3, Some(1200), 0),
            (65_000, Some(1100), 0),
            (2 * 1401 + 9, Some(1401), 2),
        ] {
            let bytes: Vec<u8> = (0..len).map(|at: usize| at as u8).collect();
            let transmit = Transmit {
                segment_size: segment,
                ..Transmit::single(address, len)
            };
            relay.send(&transmit, &bytes, now);
            let mut packets = Vec::new();
            let mut buffer = Vec::new();
            while let Some(transmit) = relay.poll_transmit(&mut buffer) {
                assert!(buffer.len() <= UDP_TRAIN_LEN_MAX, "{}", buffer.len());
                let segment = transmit.segment_size.unwrap_or(transmit.size);
                for datagram in buffer.chunks(segment) {
                    let parsed = ChannelDatagram::parse(datagram);
                    let Some(ChannelDatagram::Packet { end: of, packet }) = parsed else {
                        panic!("{datagram:?}");
                    };
                    assert_eq!(of, end(1));
                    packets.push(packet.to_vec());
                }
                buffer.clear();
            }
            let wanted = bytes.chunks(segment.unwrap_or(len)).skip(dropped);
            assert!(packets.iter().eq(wanted), "{len}");
        }
        let unknown = relayed_address([9; 10]);
        relay.send(&Transmit::single(unknown, 1), b"x", now);
        assert_eq!(sent(&mut relay), None);
    }

    #[test]
    fn t13_only_packets_of_the_relay_are_taken() {
        let (mut relay, now) = bound();
        let one = relay.join(device(1), end(1), now);
        let two = relay.join(device(2), end(2), now);
        let packet = |number, packet| {
            let end = end(number);
            ChannelDatagram::Packet { end, packet }.to_bytes()
        };
        let train = [
            packet(1, b"first"),
            packet(1, b"again"),
            packet(2, b"other"),
            packet(1, b"end"),
        ];
        let stride = train[0].len();
        let mut datagrams = from_server(&train.concat(), stride);
        let taken = relay.handle_datagrams(&datagrams, now);
        let taken = taken.iter();
        let taken: Vec<_> = taken
            .map(|it| (it.source, it.stride, &it.bytes[..]))
            .collect();
        let wanted = [
            (one, 5, &b"firstagain"[..]),
            (two, 5, b"other"),
            (one, 3, b"end"),
        ];
        assert_eq!(taken, wanted);
        // One that comes sooner than the introduction keeps its address.
        let early = packet(3, b"early");
        let taken = relay.handle_datagrams(&from_server(&early, early.len()), now);
        let address = taken[0].source;
        assert!(![one, two].contains(&address));
        assert_eq!(relay.join(device(3), end(3), now), address);
        datagrams.source = "203.0.113.7:7400".parse().unwrap();
        assert!(relay.handle_datagrams(&datagrams, now).is_empty());
        assert!(relay.handle_datagrams(&from_server(&[], 0), now).is_empty());
    }

    #[test]
    fn a_device_has_one_channel_and_the_least_used_ones_make_room() {
        let (mut relay, now) = bound();
        let first = relay.join(device(1), end(1), now);
        assert_eq!(relay.join(device(1), end(1), now), first);
        let second = relay.join(device(1), end(2), now);
        assert_ne!(first, second);
        assert!(!relay.channels.contains_key(&first));
        let later = now + Duration::from_secs(1);
        for number in 2..=RELAY_CHANNELS_PER_DEVICE_MAX as u16 {
            relay.join(device(number), end(number + 1), later);
        }
        let is_full = relay.occupancy();
        assert_eq!(is_full.count, is_full.max);
        relay.send(
            &Transmit::single(second, 1),
            b"x",
            later + Duration::from_secs(1),
        );
        relay.join(device(9999), end(9999), later);
        assert!(relay.channels.contains_key(&second));
        assert_eq!(relay.channels.len(), RELAY_CHANNELS_PER_DEVICE_MAX);
        assert_eq!(relay.addresses.len(), RELAY_CHANNELS_PER_DEVICE_MAX);
        // After a restart of the server nothing goes through them.
        relay.on_allocated(Some(AllocationId::from_bytes([3; 16])), later);
        assert_eq!((relay.channels.len(), relay.addresses.len()), (0, 0));
    }
}
