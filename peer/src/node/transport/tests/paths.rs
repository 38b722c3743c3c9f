//! Two endpoints in a small simulated network: relayed first, then direct, and back.

use common::limits::{
    CANDIDATES_MAX, PATH_ACK_ROUND_TRIPS, PATH_ACK_TIMEOUT, UNPROVEN_FIRST_MINUTE_LEN_MAX,
};
use common::relayed::relayed_address;

use noq_proto::{PathId, PathStatus};

use super::*;

/// Unless a test has others.
const DELAYS: Delays = Delays {
    relayed: Duration::from_millis(30),
    direct: Duration::from_millis(5),
};
/// How often [`World::flow`] writes, and how much.
const FLOW_INTERVAL: Duration = Duration::from_millis(10);
const FLOW_LEN: usize = 4000;
/// Time without data after a direct path has died.
const INTERRUPTION_MAX: Duration = Duration::from_secs(2);

const V4: [&str; 2] = ["192.0.2.1:4000", "198.51.100.1:4000"];
const V6: [&str; 2] = ["[2001:db8:1::1]:4000", "[2001:db8:2::1]:4000"];
const PRIVATE: [&str; 2] = ["10.0.0.2:4000", "192.168.1.2:4000"];

/// A NAT whose mapping does not depend on the destination, and which lets in what comes from an address
/// that something went out to (RFC 4787: endpoint-independent mapping, address and port-dependent filtering).
#[derive(Debug)]
struct Nat {
    inside: SocketAddr,
    outside: SocketAddr,
    opened: BTreeSet<SocketAddr>,
}

#[derive(Debug)]
struct Host {
    addresses: Vec<SocketAddr>,
    nat: Option<Nat>,
}

impl Host {
    fn interfaces(&self) -> Vec<LocalAddress> {
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
struct Delays {
    relayed: Duration,
    direct: Duration,
}

struct Flight {
    to: usize,
    source: SocketAddr,
    /// The address that it was sent to, as the receiver knows it.
    local: SocketAddr,
    bytes: BytesMut,
}

/// Two endpoints, a relay between them, and direct ways that can be cut.
struct World {
    ends: [Transport; 2],
    hosts: [Host; 2],
    delays: Delays,
    /// The name that each end has for the other behind the relay.
    relayed: [SocketAddr; 2],
    now: Instant,
    began: Instant,
    flights: BTreeMap<(Instant, u64), Flight>,
    flight_count: u64,
    is_relay_cut: bool,
    /// Whether direct datagrams from each end are lost.
    is_direct_cut: [bool; 2],
    /// Addresses to which nothing comes.
    dead: BTreeSet<SocketAddr>,
    /// The longest datagram that was sent directly, in bytes.
    longest: usize,
    events: [Vec<(Duration, TransportEvent)>; 2],
    links: [Option<LinkId>; 2],
    /// Bytes that each end sent through the relay, and directly.
    sent: [[usize; 2]; 2],
    /// Datagrams that each end sent to an address that nobody has.
    astray: [usize; 2],
    /// When each piece of the flow arrived, and the bytes until then.
    arrivals: Vec<(Duration, usize)>,
    /// The end that writes the flow, and its stream.
    flow: Option<(usize, StreamId)>,
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
    fn public(addresses: [&str; 2]) -> Self {
        Self::new(addresses.map(|address| Host {
            addresses: vec![address.parse().unwrap()],
            nat: None,
        }))
    }

    /// Hosts with public addresses of both families.
    fn dual_stack() -> Self {
        Self::new([0, 1].map(|end| Host {
            addresses: [V4[end], V6[end]].map(|it| it.parse().unwrap()).to_vec(),
            nat: None,
        }))
    }

    /// Hosts behind a NAT each.
    fn behind_nats() -> Self {
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

    fn since_start(&self) -> Duration {
        self.now - self.began
    }

    fn link(&self, end: usize) -> LinkId {
        self.links[end].expect("the link is up")
    }

    /// Dials through the relay and waits for the link; the server's side authorises it.
    fn connect(&mut self) {
        let remote = self.relayed[0];
        self.dial(remote);
    }

    fn dial(&mut self, remote: SocketAddr) {
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
    fn go_direct(&mut self) {
        self.offer();
        self.round();
        self.run_until("data goes directly", Self::is_direct);
    }

    /// Each end offers the addresses that it has, or is known by.
    fn offer(&mut self) {
        for end in [1, 0] {
            let host = &self.hosts[end];
            let outside = host.nat.iter().map(|nat| nat.outside);
            let addresses: Vec<_> = outside.chain(host.addresses.iter().copied()).collect();
            let link = self.link(end);
            self.ends[end].offer_addresses(link, &addresses).unwrap();
        }
        self.run_for(2 * self.delays.relayed + Duration::from_millis(30));
    }

    fn round(&mut self) {
        let link = self.link(0);
        self.ends[0].start_round(link, self.now).unwrap();
    }

    fn current(&self, end: usize) -> Route {
        let report = self.ends[end].current_path(self.link(end));
        report.expect("there is a path").route
    }

    fn is_direct(&self) -> bool {
        (0..2).all(|end| !self.current(end).is_relayed())
    }

    fn is_relayed(&self) -> bool {
        (0..2).all(|end| self.current(end).is_relayed())
    }

    /// From now on an end writes some bytes again and again.
    fn start_flow(&mut self, end: usize) {
        let link = self.link(end);
        let stream = self.ends[end].open_leaf(link);
        self.flow = Some((end, stream.expect("there is room for a stream")));
        self.next_piece = self.now;
    }

    /// The longest time within which nothing of the flow arrived, since `since`.
    fn longest_gap(&self, since: Duration) -> Duration {
        let times = self.arrivals.iter().map(|(at, _)| *at);
        let mut times: Vec<_> = times.filter(|at| *at >= since).collect();
        times.push(self.since_start());
        let first = std::iter::once(since).chain(times.iter().copied());
        let gaps = first.zip(&times).map(|(before, after)| *after - before);
        gaps.max().unwrap_or_default()
    }

    fn arrived(&self) -> usize {
        self.arrivals.last().map_or(0, |(_, bytes)| *bytes)
    }

    // ---- time --------------------------------------------------------------------------------------

    fn run_for(&mut self, time: Duration) {
        let until = self.now + time;
        while self.step(until) {}
    }

    /// Runs until a condition holds, which it must within a minute. Returns how long that took.
    fn run_until(&mut self, what: &str, is_met: impl Fn(&Self) -> bool) -> Duration {
        let began = self.now;
        let until = self.now + Duration::from_secs(60);
        while !is_met(self) {
            assert!(self.step(until), "{what}: not within a minute");
        }
        self.now - began
    }

    /// Goes on to the next thing that happens, or to `until`, and returns whether that is later.
    fn step(&mut self, until: Instant) -> bool {
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
        if !self.is_direct_cut[from] && !self.dead.contains(&destination) {
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
    fn changes(&self, end: usize, since: Duration) -> Vec<(Duration, PathChange)> {
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
    fn status(&mut self, end: usize, is_relayed: bool) -> (PathStatus, usize) {
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

    fn has_lost_link(&self) -> bool {
        let mut events = self.events.iter().flatten();
        events.any(|(_, event)| matches!(event, TransportEvent::Lost { .. }))
    }
}

#[test]
fn data_moves_from_the_relay_to_a_direct_path() {
    for addresses in [V4, V6] {
        let mut world = World::public(addresses);
        world.connect();
        world.start_flow(0);
        world.run_for(Duration::from_secs(1));
        assert!(world.is_relayed());
        assert_eq!(world.sent.map(|[_, direct]| direct), [0, 0]);

        let began = world.since_start();
        world.go_direct();
        for end in 0..2 {
            let route = Route::Direct(addresses[1 - end].parse().unwrap());
            let offered = (end == 0).then_some(PathChange::AddressesOffered);
            let opened = [PathChange::Opened(route), PathChange::Current(route)];
            let changes = world.changes(end, began).into_iter().map(|(_, it)| it);
            let expected: Vec<_> = offered.into_iter().chain(opened).collect();
            assert_eq!(changes.collect::<Vec<_>>(), expected);
            assert_eq!(world.status(end, false), (PathStatus::Available, 1));
            assert_eq!(world.status(end, true), (PathStatus::Backup, 1));
        }

        world.run_for(Duration::from_secs(1));
        let before = world.sent.map(|[relayed, _]| relayed);
        world.run_for(Duration::from_secs(20));
        for (end, before) in before.into_iter().enumerate() {
            let [relayed, direct] = world.sent[end];
            assert!(relayed - before < 1000, "{} bytes", relayed - before);
            assert!(end == 1 || direct > 5_000_000, "{direct} bytes");
            let link = world.link(end);
            let report = world.ends[end].current_path(link).unwrap();
            assert!(report.round_trip < DELAYS.direct * 3, "{report:?}");
            assert_eq!(world.ends[end].paths(link).len(), 2);
        }
        assert!(world.longest_gap(began) < Duration::from_millis(200));
    }
}

/// Not only if both directions die.
#[test]
fn data_leaves_a_dead_direct_path_within_two_seconds_and_returns() {
    for (relayed, direct) in [(5, 1), (30, 5), (75, 50), (150, 50), (100, 100)] {
        for is_direct_cut in [[true, true], [true, false], [false, true]] {
            for sender in [0, 1] {
                let mut world = World::public(V4);
                world.delays = Delays {
                    relayed: Duration::from_millis(relayed),
                    direct: Duration::from_millis(direct),
                };
                world.connect();
                world.start_flow(sender);
                world.run_for(Duration::from_secs(1));
                world.go_direct();
                world.run_for(Duration::from_secs(3));

                let cut_at = world.since_start();
                world.is_direct_cut = is_direct_cut;
                world.run_until("data goes through the relay", World::is_relayed);
                world.run_for(Duration::from_secs(3));
                let gap = world.longest_gap(cut_at);
                let case = format!("{:?}, cut {is_direct_cut:?}, from {sender}", world.delays);
                assert!(gap <= INTERRUPTION_MAX, "{case}: {gap:?}");

                let healed_at = world.since_start();
                world.is_direct_cut = [false; 2];
                world.go_direct();
                world.run_for(Duration::from_secs(3));
                let gap = world.longest_gap(healed_at);
                assert!(gap < Duration::from_millis(500), "{case}: {gap:?}");
                assert!(!world.has_lost_link());
            }
        }
    }
}

#[test]
fn a_message_after_a_quiet_direct_path_died_arrives_within_two_seconds() {
    let mut world = World::public(V4);
    world.connect();
    world.go_direct();
    world.run_for(Duration::from_secs(60));
    assert!(world.is_direct());
    world.is_direct_cut = [true; 2];
    world.run_for(Duration::from_secs(1));
    assert!(world.is_direct(), "nothing tells that it is dead");
    let written_at = world.since_start();
    world.start_flow(0);
    world.run_for(FLOW_INTERVAL / 2);
    world.flow = None;
    world.run_until("it arrives", |world| world.arrived() == FLOW_LEN);
    let took = world.since_start() - written_at;
    assert!(took <= INTERRUPTION_MAX, "{took:?}");
}

#[test]
fn a_quiet_direct_path_that_died_is_given_up_after_its_idle_timeout() {
    let mut world = World::public(V4);
    world.connect();
    world.go_direct();
    world.run_for(Duration::from_secs(60));
    world.is_direct_cut = [true; 2];
    let took = world.run_until("the path is given up", World::is_relayed);
    let expected = LINK_IDLE_TIMEOUT - LINK_KEEP_ALIVE_INTERVAL
        ..LINK_IDLE_TIMEOUT + LINK_KEEP_ALIVE_INTERVAL + Duration::from_secs(1);
    assert!(expected.contains(&took), "{took:?}");
}

#[test]
fn the_relayed_path_lives_as_long_as_the_link() {
    let mut world = World::public(V4);
    world.connect();
    world.go_direct();
    for _ in 0..10 {
        let before = world.sent.map(|[relayed, _]| relayed);
        world.run_for(Duration::from_secs(60));
        for (end, before) in before.into_iter().enumerate() {
            let sent = world.sent[end][0] - before;
            // Twelve keep-alives and, for some minutes, path MTU discovery.
            assert!((360..12_000).contains(&sent), "{sent} bytes in a minute");
        }
    }
    // The relay restarts. The path stays, and is of use again afterwards.
    world.is_relay_cut = true;
    world.run_for(Duration::from_secs(120));
    assert!(world.is_direct());
    world.is_relay_cut = false;
    world.run_for(Duration::from_secs(30));
    world.is_direct_cut = [true; 2];
    let cut_at = world.since_start();
    world.start_flow(0);
    world.run_for(Duration::from_secs(5));
    assert!(world.is_relayed());
    let gap = world.longest_gap(cut_at);
    assert!(gap <= INTERRUPTION_MAX, "{gap:?}");
    let lost = world.changes(0, Duration::ZERO).into_iter();
    let lost = lost.filter(|(_, change)| matches!(change, PathChange::Lost(Route::Relayed(_))));
    assert_eq!(lost.count(), 0);
}

#[test]
fn a_link_all_of_whose_paths_died_is_lost_after_its_idle_timeout() {
    let mut world = World::public(V4);
    world.connect();
    world.go_direct();
    world.run_for(Duration::from_secs(20));
    world.is_direct_cut = [true; 2];
    world.is_relay_cut = true;
    world.start_flow(0);
    let took = world.run_until("the link is lost", World::has_lost_link);
    assert!(
        took < LINK_IDLE_TIMEOUT + LINK_KEEP_ALIVE_INTERVAL,
        "{took:?}"
    );
}

#[test]
fn two_nats_are_crossed() {
    let mut world = World::behind_nats();
    world.connect();
    world.start_flow(1);
    world.offer();
    world.round();
    let took = world.run_until("data goes directly", World::is_direct);
    assert!(took < Duration::from_secs(1), "{took:?}");
    for end in 0..2 {
        let outside = V4[1 - end].parse().unwrap();
        assert_eq!(world.current(end), Route::Direct(outside));
    }
    assert!(world.astray[0] > 0, "the addresses inside were tried, too");
}

/// A NAT may give the client's side another port at any time, without a packet from it being lost.
#[test]
fn a_direct_path_follows_the_client_to_another_port_of_its_nat() {
    let mut world = World::behind_nats();
    world.connect();
    world.start_flow(0);
    world.go_direct();
    world.run_for(Duration::from_secs(2));
    let moved_at = world.since_start();
    let outside: SocketAddr = "192.0.2.1:5001".parse().unwrap();
    let nat = world.hosts[0].nat.as_mut().unwrap();
    nat.outside = outside;
    // The other's NAT lets in what comes from the address, whatever the port (RFC 4787: address-dependent).
    let other = world.hosts[1].nat.as_mut().unwrap();
    other.opened.insert(outside);
    world.run_for(Duration::from_secs(5));
    assert!(world.longest_gap(moved_at) < Duration::from_millis(500));
    assert_eq!(world.current(1), Route::Direct(outside));
}

/// The same move, but the other's NAT lets nothing in from the new port.
#[test]
fn a_client_with_another_port_of_its_nat_needs_another_round() {
    let mut world = World::behind_nats();
    world.connect();
    world.start_flow(0);
    world.go_direct();
    world.run_for(Duration::from_secs(2));
    let moved_at = world.since_start();
    world.hosts[0].nat.as_mut().unwrap().outside = "192.0.2.1:5001".parse().unwrap();
    world.run_until("data goes through the relay", World::is_relayed);
    world.go_direct();
    world.run_for(Duration::from_secs(3));
    assert!(world.longest_gap(moved_at) <= INTERRUPTION_MAX);
}

#[test]
fn a_server_that_moved_offers_its_addresses_again() {
    let mut world = World::public(V4);
    world.connect();
    world.start_flow(0);
    world.go_direct();
    world.run_for(Duration::from_secs(3));
    let moved_at = world.since_start();
    let moved: SocketAddr = "203.0.113.9:4000".parse().unwrap();
    world.hosts[1].addresses = vec![moved];
    world.offer();
    let news = world.changes(0, moved_at);
    let news = news
        .iter()
        .filter(|(_, change)| *change == PathChange::AddressesOffered);
    // One that is gone, one that is new.
    assert_eq!(news.count(), 2);
    let link = world.link(0);
    assert_eq!(world.ends[0].offered_addresses(link), [moved]);
    world.round();
    world.run_until("data goes there", |world| {
        world.current(0) == Route::Direct(moved)
    });
    world.run_for(Duration::from_secs(3));
    assert!(world.longest_gap(moved_at) <= INTERRUPTION_MAX);
}

#[test]
fn addresses_offered_again_are_news_to_the_client() {
    let mut world = World::public(V4);
    world.connect();
    let many: Vec<_> = (1..=100)
        .map(|port| ([192, 0, 2, 7], port).into())
        .collect();
    let (client, server) = (world.link(0), world.link(1));
    for _ in 0..3 {
        let before = world.since_start();
        world.ends[1].offer_addresses(server, &many).unwrap();
        world.run_for(Duration::from_secs(1));
        assert_eq!(
            world.ends[0].offered_addresses(client).len(),
            CANDIDATES_MAX
        );
        assert!(world.changes(0, before).len() >= CANDIDATES_MAX);
    }
    // No more are taken than both ends have said, whatever the other end adds.
    let added = world.ends[1].with(server, |link| {
        let more = (1..=100).map(|port| ([192, 0, 2, 8], port).into());
        let added = more.map_while(|it| link.connection.add_nat_traversal_address(it).ok());
        added.count()
    });
    assert_eq!(added, Some(TRAVERSAL_ADDRESSES_MAX - CANDIDATES_MAX));
    let none = [world.relayed[0]];
    world.ends[1].offer_addresses(server, &none).unwrap();
    world.run_for(Duration::from_secs(1));
    assert_eq!(world.ends[0].offered_addresses(client), []);
}

#[test]
fn only_the_client_opens_paths_and_only_direct_ones() {
    let mut world = World::public(V4);
    world.connect();
    let (now, relayed) = (world.now, world.relayed);
    let [client, server] = [world.link(0), world.link(1)];
    let [ours, theirs] = V4.map(|address| address.parse().unwrap());
    let [end, other] = &mut world.ends;
    assert_eq!(end.start_round(client, now), Err(PathRefused::Addresses));
    assert_eq!(other.start_round(server, now), Err(PathRefused::NotDialled));
    let refused = other.open_path(server, ours, now);
    assert_eq!(refused, Err(PathRefused::NotDialled));
    let refused = end.open_path(client, relayed[0], now);
    assert_eq!(refused, Err(PathRefused::NotDirect));
    let refused = end.open_path(LinkId::for_test(9), theirs, now);
    assert_eq!(refused, Err(PathRefused::NoLink));
    // An address that is known to be reachable needs no round.
    assert_eq!(end.open_path(client, theirs, now), Ok(()));
    world.run_until("data goes directly", World::is_direct);
}

/// Four seconds with nine probes to each address, and no event.
#[test]
fn a_round_ends_silently() {
    let mut world = World::public(V4);
    world.connect();
    world.is_direct_cut = [true; 2];
    world.offer();
    let began = world.since_start();
    world.round();
    let mut last = [began; 2];
    let mut sent = world.sent;
    while world.since_start() < began + Duration::from_secs(60) {
        world.step(world.now + Duration::from_millis(10));
        for end in 0..2 {
            if world.sent[end][1] != sent[end][1] {
                last[end] = world.since_start();
            }
        }
        sent = world.sent;
    }
    for (end, last) in last.into_iter().enumerate() {
        let took = last - began;
        assert!((3..7).contains(&took.as_secs()), "{took:?}");
        assert!(world.sent[end][1] < 9 * 60, "{} bytes", world.sent[end][1]);
        assert_eq!(world.changes(end, began), []);
    }
    // Nor does it go on once there is a way.
    world.is_direct_cut = [false; 2];
    world.run_for(Duration::from_secs(60));
    assert!(world.is_relayed());
    world.go_direct();
}

/// What the other end says of a path is a wish that QUIC does not heed by itself.
#[test]
fn only_the_own_status_steers_what_an_end_sends() {
    let mut world = World::public(V4);
    world.connect();
    world.go_direct();
    let client = world.link(0);
    let direct = world.ends[0].with(client, |link| {
        let connection = &mut link.connection;
        let direct = connection.paths().into_iter().max().unwrap();
        connection
            .set_path_status(PathId::ZERO, PathStatus::Available)
            .unwrap();
        connection
            .set_path_status(direct, PathStatus::Backup)
            .unwrap();
        direct
    });
    world.run_for(Duration::from_secs(1));
    let server = world.link(1);
    let said = world.ends[1].with(server, |link| {
        let connection = &link.connection;
        (
            connection.remote_path_status(direct.unwrap()),
            connection.path_status(direct.unwrap()),
        )
    });
    assert_eq!(
        said,
        Some((Some(PathStatus::Backup), Ok(PathStatus::Available)))
    );
    for (sender, way) in [(0, 0), (1, 1)] {
        let before = world.sent[sender];
        world.start_flow(sender);
        world.run_for(Duration::from_secs(5));
        let grown = |way: usize| world.sent[sender][way] - before[way];
        assert!(grown(way) > 1_000_000, "{sender}: {} bytes", grown(way));
        assert!(
            grown(1 - way) < 40_000,
            "{sender}: {} bytes",
            grown(1 - way)
        );
    }
}

#[test]
fn a_link_has_so_many_paths_and_no_more() {
    let mut world = World::public(V4);
    world.connect();
    let link = world.link(0);
    let open = |world: &mut World, n: u8| {
        let remote = ([203, 0, 113, n], 4000).into();
        world.ends[0].open_path(link, remote, world.now)
    };
    for n in 1..LINK_PATHS_MAX.get() as u8 {
        assert_eq!(open(&mut world, n), Ok(()), "{n}");
    }
    assert_eq!(open(&mut world, 99), Err(PathRefused::TooManyPaths));
    assert_eq!(open(&mut world, 1), Ok(()), "there is one already");
    // QUIC gives a path's place back once both ends have abandoned it, but the other end never saw these.
    world.run_for(10 * LINK_IDLE_TIMEOUT);
    assert_eq!(world.ends[0].paths(link).len(), 1);
    assert_eq!(open(&mut world, 99), Err(PathRefused::TooManyPaths));
}

#[test]
fn a_path_that_both_ends_knew_makes_room_for_another() {
    let mut world = World::public(V4);
    world.connect();
    let (link, remote) = (world.link(0), V4[1].parse().unwrap());
    for _ in 0..3 * LINK_PATHS_MAX.get() {
        world.ends[0].open_path(link, remote, world.now).unwrap();
        world.run_until("data goes directly", World::is_direct);
        world.is_direct_cut = [true; 2];
        world.run_until("the path is given up", World::is_relayed);
        world.is_direct_cut = [false; 2];
        world.run_for(Duration::from_secs(1));
    }
}

#[test]
fn a_link_survives_many_changes_of_path() {
    let mut world = World::public(V4);
    world.connect();
    world.start_flow(0);
    for _ in 0..50 {
        world.go_direct();
        world.run_for(Duration::from_millis(500));
        world.is_direct_cut = [true; 2];
        world.run_until("data goes through the relay", World::is_relayed);
        world.is_direct_cut = [false; 2];
    }
    assert!(world.longest_gap(Duration::from_secs(1)) <= INTERRUPTION_MAX);
    assert!(!world.has_lost_link());
}

/// A stranger could otherwise have datagrams sent to whom it likes.
#[test]
fn t23_a_stranger_has_one_path_and_gets_nobody_probed() {
    let mut world = World::public(V4);
    let (expected, remote) = (DeviceSecret::from_seed([2; 32]).public(), world.relayed[0]);
    world.ends[0].dial(expected, remote, world.now).unwrap();
    world.run_for(Duration::from_secs(1));
    let link = world.link(0);
    let [ours, theirs] = V4.map(|address| address.parse().unwrap());
    world.ends[0].offer_addresses(link, &[ours]).unwrap();
    world.round();
    let refused = world.ends[0].open_path(link, theirs, world.now);
    assert_eq!(refused, Err(PathRefused::TooManyPaths));
    world.run_for(Duration::from_secs(5));
    assert_eq!(world.sent[1][1], 0);
}

#[test]
fn t23_probes_are_paid_for_and_go_only_to_single_hosts() {
    let mut world = World::public(V4);
    world.connect();
    let victims: Vec<_> = (1..=16).map(|n| ([203, 0, 113, n], 53).into()).collect();
    let link = world.link(0);
    world.ends[0].offer_addresses(link, &victims).unwrap();
    for _ in 0..50 {
        world.round();
        world.run_for(Duration::from_secs(1));
    }
    let spent = world.sent[1][1];
    let most = UNPROVEN_FIRST_MINUTE_LEN_MAX - 100..=UNPROVEN_FIRST_MINUTE_LEN_MAX;
    assert!(most.contains(&spent), "{spent} bytes");

    let mut world = World::public(V4);
    world.connect();
    let refused = [
        "127.0.0.1:9",
        "169.254.169.254:80",
        "224.0.0.1:9",
        "[ff02::1]:9",
    ];
    let refused = refused.map(|address| address.parse().unwrap());
    let link = world.link(0);
    world.ends[0].offer_addresses(link, &refused).unwrap();
    world.round();
    world.run_for(Duration::from_secs(5));
    assert_eq!(world.sent[1][1], 0);
}

/// What a second path would need costs a link with one path nothing but a few connection ids.
#[test]
fn a_link_with_one_path_is_as_quiet_as_ever() {
    let mut world = World::public(V4);
    world.dial(V4[1].parse().unwrap());
    world.run_for(Duration::from_secs(10));
    let before = world.sent;
    world.run_for(Duration::from_secs(60));
    for (end, before) in before.into_iter().enumerate() {
        let sent = world.sent[end][1] - before[1];
        assert!(sent < 1500, "{sent} bytes in a minute");
        assert_eq!(world.sent[end][0], 0);
        assert_eq!(world.changes(end, Duration::ZERO), []);
    }
}

/// Each end chooses for itself, so data may take one way there and another one back.
#[test]
fn of_two_direct_paths_one_carries_data_and_the_other_is_at_hand() {
    let mut world = World::dual_stack();
    world.connect();
    world.start_flow(0);
    world.go_direct();
    world.run_for(Duration::from_secs(3));
    for end in 0..2 {
        let link = world.link(end);
        let paths = world.ends[end].paths(link);
        assert_eq!(paths.len(), 3, "{paths:?}");
        assert_eq!(paths.iter().filter(|path| path.is_current).count(), 1);
    }
    let began = world.since_start();
    world.run_for(Duration::from_secs(60));
    for end in 0..2 {
        assert_eq!(world.changes(end, began), [], "neither path is given up");
    }

    let Route::Direct(first) = world.current(0) else {
        panic!("not direct");
    };
    let family = if first.is_ipv4() { V4 } else { V6 };
    world.dead = family.map(|address| address.parse().unwrap()).into();
    let cut_at = world.since_start();
    world.run_for(Duration::from_secs(20));
    assert!(world.is_direct());
    assert_ne!(world.current(0), Route::Direct(first));
    assert!(world.longest_gap(cut_at) <= INTERRUPTION_MAX);
    let after = cut_at + Duration::from_secs(5);
    assert!(world.longest_gap(after) < Duration::from_millis(100));
}

/// QUIC acknowledges over whatever path the receiver uses, and would send no keep-alive over a path that it
/// hears something on. So the sender would hear nothing over its own path.
#[test]
fn a_path_that_only_one_end_uses_is_not_given_up() {
    let mut world = World::public(V4);
    world.connect();
    world.go_direct();
    let client = world.link(0);
    world.ends[0].with(client, |link| {
        let connection = &mut link.connection;
        let direct = connection.paths().into_iter().max().unwrap();
        for (path, status) in [
            (PathId::ZERO, PathStatus::Available),
            (direct, PathStatus::Backup),
        ] {
            connection.set_path_status(path, status).unwrap();
        }
    });
    world.run_for(Duration::from_secs(1));
    let began = world.since_start();
    world.start_flow(1);
    world.run_for(Duration::from_secs(60));
    assert!(world.longest_gap(began) < Duration::from_millis(500));
    for end in 0..2 {
        assert_eq!(world.changes(end, began), []);
    }
}

#[test]
fn a_slow_direct_path_gets_more_time() {
    let mut world = World::public(V4);
    let direct = Duration::from_millis(400);
    world.delays.direct = direct;
    world.connect();
    world.start_flow(0);
    world.go_direct();
    world.run_for(Duration::from_secs(10));
    world.is_direct_cut = [true; 2];
    let took = world.run_until("the path is given up", World::is_relayed);
    assert!(took >= direct * 2 * PATH_ACK_ROUND_TRIPS, "{took:?}");
    assert!(took > PATH_ACK_TIMEOUT * 2, "{took:?}");
}

/// The MTU of a relayed path is small, that of a direct one may be large; a train is for either.
#[test]
fn trains_fit_the_system_whatever_the_path() {
    let mut world = World::public(V4);
    for (end, host) in world.hosts.iter().enumerate() {
        let mut interfaces = host.interfaces();
        interfaces[0].mtu = Some(20_000);
        world.ends[end].set_local_addresses(interfaces);
    }
    world.connect();
    world.go_direct();
    world.start_flow(0);
    world.run_for(Duration::from_secs(20));
    assert!(world.longest > 16_000, "{} bytes", world.longest);
    let (link, (_, stream)) = (world.link(0), world.flow.unwrap());
    let much = Bytes::from(vec![7; 4 << 20]);
    let arrived = world.arrived();
    world.ends[0].write(link, stream, much, false);
    world.run_for(Duration::from_secs(5));
    assert!(world.arrived() - arrived > 4 << 20);
}
