//! A small simulated network: two endpoints, a relay between them, and direct ways, which may lead through
//! NATs and can be cut. Time is virtual.

use common::relayed::relayed_address;
use noq_proto::PathStatus;

use super::*;

/// Unless a test has others.
pub(super) const DELAYS: Delays = Delays {
    relayed: Duration::from_millis(30),
    direct: Duration::from_millis(5),
};
/// How often [`World::flow`] writes, and how much.
pub(super) const FLOW_INTERVAL: Duration = Duration::from_millis(10);
pub(super) const FLOW_LEN: usize = 4000;
pub(super) const V4: [&str; 2] = ["192.0.2.1:4000", "198.51.100.1:4000"];
pub(super) const V6: [&str; 2] = ["[2001:db8:1::1]:4000", "[2001:db8:2::1]:4000"];
const PRIVATE: [&str; 2] = ["10.0.0.2:4000", "192.168.1.2:4000"];

/// A NAT whose mapping does not depend on the destination, and which lets in what comes from an address
/// that something went out to (RFC 4787: endpoint-independent mapping, address and port-dependent filtering).
#[derive(Debug)]
pub(super) struct Nat {
    pub(super) inside: SocketAddr,
    pub(super) outside: SocketAddr,
    pub(super) opened: BTreeSet<SocketAddr>,
}

#[derive(Debug)]
pub(super) struct Host {
    pub(super) addresses: Vec<SocketAddr>,
    pub(super) nat: Option<Nat>,
}

impl Host {
    pub(super) fn interfaces(&self) -> Vec<LocalAddress> {
        let addresses = self.addresses.iter();
        let addresses = addresses.map(|endpoint| LocalAddress {
            endpoint: *endpoint,
            prefix_len: 24,
            mtu: Some(1500),
        });
        addresses.collect()
    }
}

/// How long a datagram takes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Delays {
    pub(super) relayed: Duration,
    pub(super) direct: Duration,
}

struct Flight {
    to: usize,
    source: SocketAddr,
    /// The address that it was sent to, as the receiver knows it.
    local: SocketAddr,
    bytes: BytesMut,
}

/// Two endpoints, a relay between them, and direct ways that can be cut.
pub(super) struct World {
    pub(super) ends: [Transport; 2],
    pub(super) hosts: [Host; 2],
    pub(super) delays: Delays,
    /// The name that each end has for the other behind the relay.
    pub(super) relayed: [SocketAddr; 2],
    pub(super) now: Instant,
    began: Instant,
    flights: BTreeMap<(Instant, u64), Flight>,
    pub(super) flight_count: u64,
    pub(super) is_relay_cut: bool,
    /// Whether direct datagrams from each end are lost.
    pub(super) is_direct_cut: [bool; 2],
    /// Addresses to which nothing comes.
    pub(super) dead: BTreeSet<SocketAddr>,
    /// Direct datagrams of more bytes vanish.
    pub(super) direct_mtu: usize,
    /// The longest datagram that was sent directly, in bytes.
    pub(super) longest: usize,
    events: [Vec<(Duration, TransportEvent)>; 2],
    pub(super) links: [Option<LinkId>; 2],
    /// Bytes that each end sent through the relay, and directly.
    pub(super) sent: [[usize; 2]; 2],
    /// Datagrams that each end sent to an address that nobody has.
    pub(super) astray: [usize; 2],
    /// When each piece of the flow arrived, and the bytes until then.
    pub(super) arrivals: Vec<(Duration, usize)>,
    /// The end that writes the flow, and its stream.
    pub(super) flow: Option<(usize, StreamId)>,
    /// The end that reads the flow, and its stream.
    arriving: Option<(usize, StreamId)>,
    next_piece: Instant,
}

impl World {
    #[expect(clippy::disallowed_methods, reason = "any instant will do as a start")]
    fn new(hosts: [Host; 2]) -> Self {
        let now = Instant::now();
        let end = |number: usize| {
            let seed = [number as u8 + 1; 32];
            let mut end = Transport::new(seed, DeviceSecret::from_seed(seed));
            end.propagate_panics();
            end.set_local_addresses(hosts[number].interfaces());
            end
        };
        Self {
            ends: [end(0), end(1)],
            hosts,
            delays: DELAYS,
            relayed: [relayed_address([0xb; 10]), relayed_address([0xa; 10])],
            now,
            began: now,
            flights: BTreeMap::new(),
            flight_count: 0,
            is_relay_cut: false,
            is_direct_cut: [false; 2],
            dead: BTreeSet::new(),
            direct_mtu: usize::MAX,
            longest: 0,
            events: [Vec::new(), Vec::new()],
            links: [None; 2],
            sent: [[0; 2]; 2],
            astray: [0; 2],
            arrivals: Vec::new(),
            flow: None,
            arriving: None,
            next_piece: now,
        }
    }

    /// Hosts at public addresses.
    pub(super) fn public(addresses: [&str; 2]) -> Self {
        Self::new(addresses.map(|address| Host {
            addresses: vec![address.parse().unwrap()],
            nat: None,
        }))
    }

    /// Hosts with public addresses of both families.
    pub(super) fn dual_stack() -> Self {
        Self::new([0, 1].map(|end| Host {
            addresses: [V4[end], V6[end]].map(|it| it.parse().unwrap()).to_vec(),
            nat: None,
        }))
    }

    /// Hosts behind a NAT each.
    pub(super) fn behind_nats() -> Self {
        let host = |end: usize| {
            let (inside, outside) = (PRIVATE[end].parse().unwrap(), V4[end].parse().unwrap());
            Host {
                addresses: vec![inside],
                nat: Some(Nat {
                    inside,
                    outside,
                    opened: BTreeSet::new(),
                }),
            }
        };
        Self::new([host(0), host(1)])
    }

    pub(super) fn since_start(&self) -> Duration {
        self.now - self.began
    }

    pub(super) fn link(&self, end: usize) -> LinkId {
        self.links[end].expect("the link is up")
    }

    /// Dials through the relay and waits for the link; the server's side authorises it.
    pub(super) fn connect(&mut self) {
        let remote = self.relayed[0];
        self.dial(remote);
    }

    pub(super) fn dial(&mut self, remote: SocketAddr) {
        let expected = DeviceSecret::from_seed([2; 32]).public();
        self.ends[0].dial(expected, remote, self.now).unwrap();
        self.run_until("both are connected", |world| {
            world.links.iter().all(Option::is_some)
        });
        let link = self.link(1);
        self.ends[1].authorise(link, self.now);
        self.run_for(Duration::from_millis(300));
    }

    /// Both ends offer their addresses, and the client starts a round.
    pub(super) fn go_direct(&mut self) {
        self.offer();
        self.round();
        self.run_until("data goes directly", Self::is_direct);
    }

    /// Each end offers the addresses that it has, or is known by.
    pub(super) fn offer(&mut self) {
        for end in [1, 0] {
            let host = &self.hosts[end];
            let outside = host.nat.iter().map(|nat| nat.outside);
            let addresses: Vec<_> = outside.chain(host.addresses.iter().copied()).collect();
            let link = self.link(end);
            self.ends[end].offer_addresses(link, &addresses).unwrap();
        }
        self.run_for(2 * self.delays.relayed + Duration::from_millis(30));
    }

    pub(super) fn round(&mut self) {
        let link = self.link(0);
        self.ends[0].start_round(link, self.now).unwrap();
    }

    pub(super) fn current(&self, end: usize) -> Route {
        let report = self.ends[end].current_path(self.link(end));
        report.expect("there is a path").route
    }

    pub(super) fn is_direct(&self) -> bool {
        (0..2).all(|end| !self.current(end).is_relayed())
    }

    pub(super) fn is_relayed(&self) -> bool {
        (0..2).all(|end| self.current(end).is_relayed())
    }

    /// From now on an end writes some bytes again and again.
    pub(super) fn start_flow(&mut self, end: usize) {
        let link = self.link(end);
        let stream = self.ends[end].open_leaf(link, LeafRank::of(1));
        self.flow = Some((end, stream.expect("there is room for a stream")));
        self.next_piece = self.now;
    }

    /// Writes a piece of the flow every few seconds, for a minute.
    pub(super) fn trickle(&mut self) {
        let link = self.link(0);
        let stream = self.ends[0]
            .open_leaf(link, LeafRank::of(1))
            .expect("there is room");
        for _ in 0..12 {
            self.ends[0].write(link, stream, Bytes::from_static(b"piece"), false);
            self.run_for(Duration::from_secs(5));
        }
    }

    /// How often a link of this end was found silent.
    pub(super) fn silences(&self, end: usize) -> usize {
        let events = self.events[end].iter();
        let silent = events.filter(|(_, event)| matches!(event, TransportEvent::Silent { .. }));
        silent.count()
    }

    /// The longest time within which nothing of the flow arrived, since `since`.
    pub(super) fn longest_gap(&self, since: Duration) -> Duration {
        let times = self.arrivals.iter().map(|(at, _)| *at);
        let mut times: Vec<_> = times.filter(|at| *at >= since).collect();
        times.push(self.since_start());
        let first = std::iter::once(since).chain(times.iter().copied());
        let gaps = first.zip(&times).map(|(before, after)| *after - before);
        gaps.max().unwrap_or_default()
    }

    pub(super) fn arrived(&self) -> usize {
        self.arrivals.last().map_or(0, |(_, bytes)| *bytes)
    }

    // ---- time --------------------------------------------------------------------------------------

    pub(super) fn run_for(&mut self, time: Duration) {
        let until = self.now + time;
        while self.step(until) {}
    }

    /// Runs until a condition holds, which it must within a minute. Returns how long that took.
    pub(super) fn run_until(&mut self, what: &str, is_met: impl Fn(&Self) -> bool) -> Duration {
        let began = self.now;
        let until = self.now + Duration::from_secs(60);
        while !is_met(self) {
            assert!(self.step(until), "{what}: not within a minute");
        }
        self.now - began
    }

    /// Goes on to the next thing that happens, or to `until`, and returns whether that is later.
    pub(super) fn step(&mut self, until: Instant) -> bool {
        self.settle();
        let timers = self.ends.iter().filter_map(Transport::poll_timeout);
        let flight = self.flights.keys().next().map(|(at, _)| *at);
        let piece = self.flow.map(|_| self.next_piece);
        let next = timers.chain(flight).chain(piece).min();
        let next = next.unwrap_or(until).max(self.now);
        if next >= until {
            self.now = until;
            self.on_time();
            self.settle();
            return false;
        }
        self.now = next;
        self.on_time();
        self.settle();
        true
    }

    fn on_time(&mut self) {
        if let Some((end, stream)) = self.flow
            && self.next_piece <= self.now
        {
            let link = self.link(end);
            let piece = Bytes::from(vec![7; FLOW_LEN]);
            self.ends[end].write(link, stream, piece, false);
            self.next_piece = self.now + FLOW_INTERVAL;
        }
        while let Some(entry) = self.flights.first_entry()
            && entry.key().0 <= self.now
        {
            let flight = entry.remove();
            let datagrams = Datagrams {
                source: flight.source,
                local: Some(flight.local.ip()).filter(|ip| !common::relayed::is_relayed(*ip)),
                ecn: None,
                stride: flight.bytes.len(),
                bytes: flight.bytes,
            };
            self.ends[flight.to].handle_datagrams(datagrams, self.now);
        }
        for end in &mut self.ends {
            end.handle_timeout(self.now);
        }
    }

    /// Takes events, and sends datagrams on their way, until there are no more.
    fn settle(&mut self) {
        let at = self.since_start();
        for end in 0..2 {
            loop {
                let events = events_of(&mut self.ends[end]);
                for event in events {
                    self.on_event(end, &event);
                    self.events[end].push((at, event));
                }
                let sent = sent_by(&mut self.ends[end], self.now);
                if sent.is_empty() {
                    break;
                }
                for (destination, bytes) in sent {
                    self.send(end, destination, bytes);
                }
            }
        }
    }

    fn on_event(&mut self, end: usize, event: &TransportEvent) {
        match event {
            TransportEvent::Connected { link, .. } => self.links[end] = Some(*link),
            TransportEvent::Opened { link, dir } => {
                let stream = self.ends[end].accept(*link, *dir);
                self.arriving = stream.map(|stream| (end, stream));
                self.receive(end);
            }
            TransportEvent::Readable { .. } => self.receive(end),
            TransportEvent::Lost { .. }
            | TransportEvent::Finished { .. }
            | TransportEvent::Writable { .. }
            | TransportEvent::Silent { .. }
            | TransportEvent::Path { .. } => {}
        }
    }

    fn receive(&mut self, end: usize) {
        let (Some(link), Some((to, stream))) = (self.links[end], self.arriving) else {
            return;
        };
        if to != end {
            return;
        }
        let before = self.arrived();
        let mut bytes = before;
        self.ends[end].read(link, stream, &mut |piece| {
            bytes += piece.len();
            true
        });
        if bytes > before {
            self.arrivals.push((self.since_start(), bytes));
        }
    }

    // ---- the network -------------------------------------------------------------------------------

    fn send(&mut self, from: usize, destination: SocketAddr, bytes: BytesMut) {
        let to = 1 - from;
        if destination == self.relayed[from] {
            self.sent[from][0] += bytes.len();
            if !self.is_relay_cut && bytes.len() <= 1400 {
                let (source, local) = (self.relayed[to], self.relayed[from]);
                self.fly(to, source, local, bytes, self.delays.relayed);
            }
            return;
        }
        assert!(!common::relayed::is_relayed(destination.ip()));
        self.sent[from][1] += bytes.len();
        self.longest = self.longest.max(bytes.len());
        let Some(source) = self.source(from, destination) else {
            return;
        };
        let Some(local) = self.admitted(to, source, destination) else {
            self.astray[from] += 1;
            return;
        };
        let is_small = bytes.len() <= self.direct_mtu;
        if is_small && !self.is_direct_cut[from] && !self.dead.contains(&destination) {
            self.fly(to, source, local, bytes, self.delays.direct);
        }
    }

    /// The source address of what an end sends to `destination`, after its NAT.
    fn source(&mut self, from: usize, destination: SocketAddr) -> Option<SocketAddr> {
        let host = &mut self.hosts[from];
        if let Some(nat) = &mut host.nat
            && destination.is_ipv4()
        {
            nat.opened.insert(destination);
            return Some(nat.outside);
        }
        let mut addresses = host.addresses.iter();
        let source = addresses.find(|address| address.is_ipv4() == destination.is_ipv4());
        source.copied()
    }

    /// The address within its network at which an end gets what comes from `source`, if it does.
    fn admitted(
        &self,
        to: usize,
        source: SocketAddr,
        destination: SocketAddr,
    ) -> Option<SocketAddr> {
        let host = &self.hosts[to];
        match &host.nat {
            Some(nat) if destination == nat.outside => {
                nat.opened.contains(&source).then_some(nat.inside)
            }
            Some(nat) if destination == nat.inside => None,
            _ => host.addresses.contains(&destination).then_some(destination),
        }
    }

    fn fly(
        &mut self,
        to: usize,
        source: SocketAddr,
        local: SocketAddr,
        bytes: BytesMut,
        delay: Duration,
    ) {
        self.flight_count += 1;
        let flight = Flight {
            to,
            source,
            local,
            bytes,
        };
        self.flights
            .insert((self.now + delay, self.flight_count), flight);
    }

    /// What happened to the paths of an end's link, since `since`.
    pub(super) fn changes(&self, end: usize, since: Duration) -> Vec<(Duration, PathChange)> {
        let events = self.events[end].iter().filter(|(at, _)| *at >= since);
        let changes = events.filter_map(|(at, event)| {
            let TransportEvent::Path { change, .. } = event else {
                return None;
            };
            Some((*at, *change))
        });
        changes.collect()
    }

    /// The status that an end gave its first path of a kind, and how many of that kind there are.
    pub(super) fn status(&mut self, end: usize, is_relayed: bool) -> (PathStatus, usize) {
        let link = self.link(end);
        let found = self.ends[end].with(link, |link| {
            let connection = &link.connection;
            let ids = connection.paths().into_iter().filter(|id| {
                let remote = connection.network_path(*id).unwrap().remote();
                common::relayed::is_relayed(remote.ip()) == is_relayed
            });
            let ids: Vec<_> = ids.collect();
            let first = ids.first().expect("there is a path");
            (connection.path_status(*first).unwrap(), ids.len())
        });
        found.expect("the link is there")
    }

    pub(super) fn has_lost_link(&self) -> bool {
        let mut events = self.events.iter().flatten();
        events.any(|(_, event)| matches!(event, TransportEvent::Lost { .. }))
    }

    /// From now on, an end leaves its direct paths to QUIC, with these timers.
    pub(super) fn leave_to_quic(
        &mut self,
        end: usize,
        keep_alive: Duration,
        idle_timeout: Duration,
    ) {
        let (link, now) = (self.link(end), self.now);
        self.ends[end].with(link, |link| {
            link.paths = LinkPaths::default();
            let connection = &mut link.connection;
            for path in connection.paths() {
                let remote = connection.network_path(path).unwrap().remote();
                if !common::relayed::is_relayed(remote.ip()) {
                    connection
                        .set_path_max_idle_timeout(now, path, Some(idle_timeout))
                        .unwrap();
                    connection
                        .set_path_keep_alive_interval(path, Some(keep_alive))
                        .unwrap();
                    connection.ping_path(path).unwrap();
                }
            }
        });
    }

    pub(super) fn path_count(&mut self, end: usize) -> usize {
        let link = self.link(end);
        let count = self.ends[end].with(link, |link| link.connection.paths().len());
        count.expect("the link is there")
    }
}
