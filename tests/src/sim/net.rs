//! The network between the hosts: what it does to a datagram, and which way it lets it go.
//!
//! A site has an IPv4 address, an IPv6 address, or both. Its IPv4 address may be behind a NAT, alone or
//! with others, and then means nothing outside; two NATs may have the same addresses inside. IPv6 goes
//! straight. Each site sends over a line of its own with a rate and a queue. Directed cuts between two
//! sites model partitions. Nothing here knows what the bytes mean.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use rand::RngExt;
use rand::rngs::StdRng;

/// Bytes of IPv4 and UDP in front of a datagram.
const HEADERS_V4: usize = 20 + 8;
/// Bytes of IPv6 and UDP in front of a datagram.
const HEADERS_V6: usize = 40 + 8;
/// A NAT that does not preserve ports hands out these and above.
const NAT_PORT_FIRST: u16 = 20_000;

/// A host of the world, the server, or anybody else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Site {
    /// The rendezvous server.
    Server,
    /// A host by its number.
    Host(usize),
    /// Whoever is at a public address that nobody here has, in a network with [`Net::has_strays`].
    Elsewhere,
}

/// Where an IPv4 address means something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Realm {
    /// Everywhere.
    Public,
    /// Inside of a NAT, by its number.
    Behind(usize),
}

/// How likely each mishap is, and how much the network carries.
#[derive(Clone, Copy, Debug)]
pub struct Faults {
    /// Part of the datagrams that is lost.
    pub loss: f64,
    /// Part that comes twice.
    pub duplication: f64,
    /// Part that is overtaken by others.
    pub reordering: f64,
    /// Least time on the way.
    pub latency: Duration,
    /// Added to it by chance, up to this.
    pub jitter: Duration,
    /// Bytes a second that a site's line sends; `None` for as many as come.
    pub rate: Option<u32>,
    /// A line whose queue would take longer than this to send drops what comes.
    pub queue: Duration,
    /// Largest packet, headers of IP and UDP included; larger ones vanish without a word.
    pub mtu: usize,
}

impl Faults {
    /// A network without any: Ethernet.
    pub const NONE: Self = Self {
        loss: 0.0,
        duplication: 0.0,
        reordering: 0.0,
        latency: Duration::from_millis(10),
        jitter: Duration::ZERO,
        rate: None,
        queue: Duration::ZERO,
        mtu: 1500,
    };

    /// Rates drawn from a generator: often none, sometimes a lot.
    pub fn draw(rng: &mut StdRng) -> Self {
        let mut rate = |most: f64| {
            if rng.random_bool(0.4) {
                0.0
            } else {
                rng.random_range(0.0..most)
            }
        };
        Self {
            loss: rate(0.25),
            duplication: rate(0.2),
            reordering: rate(0.3),
            latency: Duration::from_micros(rng.random_range(200..80_000)),
            jitter: Duration::from_micros(rng.random_range(0..40_000)),
            // From 50 kB/s to 50 MB/s, the slow ones as likely as the fast.
            rate: rng
                .random_bool(0.6)
                .then(|| (50_000.0 * 1000f64.powf(rng.random_range(0.0..1.0))) as u32),
            queue: Duration::from_millis(rng.random_range(10..400)),
            // What IPv6 demands, tunnels, Ethernet, jumbo frames, loopback.
            mtu: [1280, 1400, 1500, 9000, 65_535][rng.random_range(0..5)],
        }
    }

    /// Draws when the copies of a datagram arrive; none for one that is lost.
    fn fates(&self, rng: &mut StdRng) -> Vec<Duration> {
        let mut fates = Vec::new();
        let copies = if rng.random_bool(self.loss) {
            0
        } else if rng.random_bool(self.duplication) {
            2
        } else {
            1
        };
        for _ in 0..copies {
            let mut delay = self.latency;
            if !self.jitter.is_zero() {
                delay += self.jitter.mul_f64(rng.random_range(0.0..1.0));
            }
            if rng.random_bool(self.reordering) {
                delay += self.latency + self.jitter;
            }
            fates.push(delay);
        }
        fates
    }
}

/// What a mapping or a filter looks at (RFC 4787 sections 4.1 and 5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Dependence {
    /// Nothing: one mapping for all, everybody may answer.
    EndpointIndependent,
    /// The other side's address.
    AddressDependent,
    /// Its address and port.
    AddressAndPortDependent,
}

impl Dependence {
    /// All of them.
    pub const ALL: [Self; 3] = [
        Self::EndpointIndependent,
        Self::AddressDependent,
        Self::AddressAndPortDependent,
    ];

    /// As the literature abbreviates it.
    pub const fn short(self) -> &'static str {
        match self {
            Self::EndpointIndependent => "EI",
            Self::AddressDependent => "AD",
            Self::AddressAndPortDependent => "APD",
        }
    }

    /// The part of an endpoint that counts.
    const fn key(self, endpoint: SocketAddr) -> Option<(SocketAddr, bool)> {
        match self {
            Self::EndpointIndependent => None,
            Self::AddressDependent => Some((SocketAddr::new(endpoint.ip(), 0), false)),
            Self::AddressAndPortDependent => Some((endpoint, true)),
        }
    }
}

/// How a NAT behaves (RFC 4787).
#[derive(Clone, Copy, Debug)]
pub struct NatOptions {
    /// What its mappings look at (section 4.1).
    pub mapping: Dependence,
    /// What its filter looks at (section 5).
    pub filtering: Dependence,
    /// Whether a mapping gets the port that it has inside, if that is free (section 4.2.1).
    pub preserves_ports: bool,
    /// Whether two hosts inside reach each other at their addresses outside (section 6).
    pub hairpins: bool,
    /// A mapping ends so long after its last use from inside (section 4.3).
    pub expiry: Duration,
}

impl NatOptions {
    /// Draws one of any kind.
    pub fn draw(rng: &mut StdRng) -> Self {
        let mut class = || Dependence::ALL[rng.random_range(0..3)];
        Self {
            mapping: class(),
            filtering: class(),
            preserves_ports: rng.random_bool(0.5),
            hairpins: rng.random_bool(0.5),
            expiry: Duration::from_secs(rng.random_range(25..120)),
        }
    }
}

/// A NAT.
#[derive(Debug)]
pub struct Nat {
    public: Ipv4Addr,
    options: NatOptions,
    next_port: u16,
    bindings: Vec<Binding>,
}

#[derive(Debug)]
struct Binding {
    inside: SocketAddr,
    towards: Option<(SocketAddr, bool)>,
    port: u16,
    used: Instant,
    /// To whom the inside has sent.
    contacted: BTreeSet<SocketAddr>,
}

impl Nat {
    /// A NAT with the public address `public`.
    const fn new(public: Ipv4Addr, options: NatOptions) -> Self {
        Self {
            public,
            options,
            next_port: NAT_PORT_FIRST,
            bindings: Vec::new(),
        }
    }

    /// Lets a datagram out; returns the source that others see.
    fn outbound(&mut self, inside: SocketAddr, to: SocketAddr, now: Instant) -> SocketAddr {
        let expiry = self.options.expiry;
        self.bindings
            .retain(|binding| now.saturating_duration_since(binding.used) < expiry);
        let towards = self.options.mapping.key(to);
        let found = self
            .bindings
            .iter_mut()
            .find(|binding| binding.inside == inside && binding.towards == towards);
        let port = match found {
            Some(binding) => {
                binding.used = now;
                binding.contacted.insert(to);
                binding.port
            }
            None => {
                let port = self.free_port(inside.port());
                self.bindings.push(Binding {
                    inside,
                    towards,
                    port,
                    used: now,
                    contacted: BTreeSet::from([to]),
                });
                port
            }
        };
        SocketAddr::from((self.public, port))
    }

    fn free_port(&mut self, inside: u16) -> u16 {
        let is_free = |port| self.bindings.iter().all(|binding| binding.port != port);
        if self.options.preserves_ports && is_free(inside) {
            return inside;
        }
        loop {
            self.next_port = self.next_port.wrapping_add(1).max(NAT_PORT_FIRST);
            let port = self.next_port;
            if self.bindings.iter().all(|binding| binding.port != port) {
                return port;
            }
        }
    }

    /// Lets a datagram in, if anybody inside asked for one like it; returns for whom.
    fn inbound(&self, to: SocketAddr, from: SocketAddr, now: Instant) -> Option<SocketAddr> {
        let NatOptions {
            filtering, expiry, ..
        } = self.options;
        let binding = self.bindings.iter().find(|binding| {
            binding.port == to.port() && now.saturating_duration_since(binding.used) < expiry
        })?;
        let wanted = filtering.key(from);
        let is_known = wanted.is_none()
            || binding
                .contacted
                .iter()
                .any(|contact| filtering.key(*contact) == wanted);
        is_known.then_some(binding.inside)
    }
}

/// A copy of a datagram on its way.
#[derive(Debug)]
pub struct Arrival {
    /// To whom.
    pub site: Site,
    /// When.
    pub at: Instant,
    /// As the receiver sees it.
    pub source: SocketAddr,
    /// The address that it reaches; a host that has moved meanwhile does not get it.
    pub destination: SocketAddr,
}

/// Datagrams that something happened to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mishaps {
    /// Lost by chance.
    pub lost: u64,
    /// Came twice.
    pub doubled: u64,
    /// On a way that was cut.
    pub cut: u64,
    /// To nobody, or not let in by a NAT.
    pub barred: u64,
    /// Larger than the path takes.
    pub too_large: u64,
    /// The queue of a line was full.
    pub overflowed: u64,
    /// Between two hosts of one NAT over its outside.
    pub hairpinned: u64,
}

/// All of it.
#[derive(Debug)]
pub struct Net {
    /// What happens to each datagram.
    pub faults: Faults,
    homes: BTreeMap<(Realm, SocketAddr), Site>,
    /// The realm of each site's IPv4 address.
    realms: BTreeMap<Site, Realm>,
    nats: Vec<Nat>,
    cuts: BTreeSet<(Site, Site)>,
    /// When each site's line has sent all that it was given.
    lines: BTreeMap<Site, Instant>,
    /// Whether datagrams to public addresses that nobody here has arrive [elsewhere](Site::Elsewhere).
    pub has_strays: bool,
    /// Sites whose firewall lets TCP through alone.
    without_udp: BTreeSet<Site>,
    /// What happened so far.
    pub mishaps: Mishaps,
}

impl Net {
    /// A network with these faults, and nobody on it.
    pub const fn new(faults: Faults) -> Self {
        Self {
            faults,
            homes: BTreeMap::new(),
            realms: BTreeMap::new(),
            nats: Vec::new(),
            cuts: BTreeSet::new(),
            lines: BTreeMap::new(),
            without_udp: BTreeSet::new(),
            has_strays: false,
            mishaps: Mishaps {
                lost: 0,
                doubled: 0,
                cut: 0,
                barred: 0,
                too_large: 0,
                overflowed: 0,
                hairpinned: 0,
            },
        }
    }

    /// Adds a NAT; nobody is behind it yet.
    pub fn add_nat(&mut self, options: NatOptions) -> Realm {
        let number = self.nats.len();
        let last = u8::try_from(number + 1).expect("a world has few NATs");
        self.nats
            .push(Nat::new(Ipv4Addr::new(203, 0, 113, last), options));
        Realm::Behind(number)
    }

    /// How its NATs behave.
    pub fn nats(&self) -> impl Iterator<Item = NatOptions> {
        self.nats.iter().map(|nat| nat.options)
    }

    /// All realms, the public one first.
    pub fn realms(&self) -> impl Iterator<Item = Realm> + use<> {
        let nats = (0..self.nats.len()).map(Realm::Behind);
        [Realm::Public].into_iter().chain(nats)
    }

    /// Restarts the NAT of a host, if it is behind one: all mappings are forgotten.
    pub fn restart_nat(&mut self, host: usize) {
        if let Realm::Behind(number) = self.realm(Site::Host(host)) {
            self.nats[number].bindings.clear();
        }
    }

    /// The realm of a site's IPv4 address.
    pub fn realm(&self, site: Site) -> Realm {
        self.realms.get(&site).copied().unwrap_or(Realm::Public)
    }

    /// Puts a site at these addresses, and nowhere else.
    pub fn place(&mut self, site: Site, realm: Realm, addresses: &[SocketAddr]) {
        self.homes.retain(|_, at| *at != site);
        self.realms.insert(site, realm);
        for address in addresses {
            self.homes
                .insert((home_realm(realm, *address), *address), site);
        }
    }

    /// Tells whether nobody has an address.
    pub fn is_free(&self, realm: Realm, address: SocketAddr) -> bool {
        !self.homes.contains_key(&(realm, address))
    }

    /// How a site's control connection looks from outside, if it comes from `inside`.
    pub fn outside(&self, site: Site, inside: IpAddr) -> IpAddr {
        match (self.realm(site), inside) {
            (Realm::Behind(number), IpAddr::V4(_)) => IpAddr::V4(self.nats[number].public),
            (Realm::Behind(_) | Realm::Public, _) => inside,
        }
    }

    /// Cuts one way.
    pub fn cut(&mut self, from: Site, to: Site) {
        self.cuts.insert((from, to));
    }

    /// Ends all cuts.
    pub fn heal(&mut self) {
        self.cuts.clear();
    }

    /// Lets no datagram to or from a host pass, or lets them pass again.
    pub fn block_udp(&mut self, host: usize, is_blocked: bool) {
        if is_blocked {
            self.without_udp.insert(Site::Host(host));
        } else {
            self.without_udp.remove(&Site::Host(host));
        }
    }

    /// Tells whether no datagram to or from a host passes.
    pub fn is_without_udp(&self, host: usize) -> bool {
        self.without_udp.contains(&Site::Host(host))
    }

    /// Tells whether any way is cut.
    pub fn has_cuts(&self) -> bool {
        !self.cuts.is_empty()
    }

    /// Tells whether a way is cut.
    pub fn is_cut(&self, from: Site, to: Site) -> bool {
        self.cuts.contains(&(from, to))
    }

    /// Sends a datagram of `len` bytes on its way; returns where and when its copies arrive.
    pub fn send(
        &mut self,
        from: Site,
        inside: SocketAddr,
        destination: SocketAddr,
        len: usize,
        now: Instant,
        rng: &mut StdRng,
    ) -> Vec<Arrival> {
        let headers = match destination {
            SocketAddr::V4(_) => HEADERS_V4,
            SocketAddr::V6(_) => HEADERS_V6,
        };
        if headers + len > self.faults.mtu {
            self.mishaps.too_large += 1;
            return Vec::new();
        }
        let Some(sent) = self.leave(from, headers + len, now) else {
            self.mishaps.overflowed += 1;
            return Vec::new();
        };
        let Some((source, site, address)) = self.route(from, inside, destination, now) else {
            self.mishaps.barred += 1;
            return Vec::new();
        };
        if self.without_udp.contains(&from) || self.without_udp.contains(&site) {
            self.mishaps.barred += 1;
            return Vec::new();
        }
        if self.is_cut(from, site) {
            self.mishaps.cut += 1;
            return Vec::new();
        }
        let fates = self.faults.fates(rng);
        match fates.len() {
            0 => self.mishaps.lost += 1,
            1 => {}
            _ => self.mishaps.doubled += 1,
        }
        fates
            .into_iter()
            .map(|delay| Arrival {
                site,
                at: sent + delay,
                source,
                destination: address,
            })
            .collect()
    }

    /// Puts a packet on a site's line; returns when it is sent, if the queue has room for it.
    fn leave(&mut self, site: Site, len: usize, now: Instant) -> Option<Instant> {
        let Some(rate) = self.faults.rate else {
            return Some(now);
        };
        let free = self.lines.entry(site).or_insert(now);
        if free.saturating_duration_since(now) > self.faults.queue {
            return None;
        }
        *free = (*free).max(now) + Duration::from_secs_f64(len as f64 / f64::from(rate));
        Some(*free)
    }

    /// The way of a datagram: the source that is seen, who gets it, and at which address of its own.
    fn route(
        &mut self,
        from: Site,
        inside: SocketAddr,
        destination: SocketAddr,
        now: Instant,
    ) -> Option<(SocketAddr, Site, SocketAddr)> {
        let realm = home_realm(self.realm(from), inside);
        // In the same network it goes straight.
        if let Some(site) = self.homes.get(&(realm, destination)) {
            return Some((inside, *site, destination));
        }
        let source = match realm {
            Realm::Public => inside,
            Realm::Behind(number) => self.nats[number].outbound(inside, destination, now),
        };
        let outside = |nat: &Nat| destination.ip() == IpAddr::V4(nat.public);
        let Some(number) = self.nats.iter().position(outside) else {
            let site = self.homes.get(&(Realm::Public, destination)).copied();
            let site = site.or(self.has_strays.then_some(Site::Elsewhere))?;
            return Some((source, site, destination));
        };
        let is_hairpin = realm == Realm::Behind(number);
        if is_hairpin && !self.nats[number].options.hairpins {
            return None;
        }
        let inside = self.nats[number].inbound(destination, source, now)?;
        let site = *self.homes.get(&(Realm::Behind(number), inside))?;
        self.mishaps.hairpinned += u64::from(is_hairpin);
        Some((source, site, inside))
    }
}

/// NATs are for IPv4 only.
const fn home_realm(realm: Realm, address: SocketAddr) -> Realm {
    match address {
        SocketAddr::V4(_) => realm,
        SocketAddr::V6(_) => Realm::Public,
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    const OPEN: NatOptions = NatOptions {
        mapping: Dependence::EndpointIndependent,
        filtering: Dependence::EndpointIndependent,
        preserves_ports: false,
        hairpins: true,
        expiry: Duration::from_secs(30),
    };

    #[expect(clippy::disallowed_methods, reason = "any instant will do as a start")]
    fn any_instant() -> Instant {
        Instant::now()
    }

    fn addr(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    fn rng() -> StdRng {
        StdRng::seed_from_u64(1)
    }

    #[test]
    fn a_nat_maps_and_filters_as_its_class_says() {
        let now = any_instant();
        let inside = addr("10.0.0.2:5000");
        let (a, a2, b) = (
            addr("192.0.2.1:1"),
            addr("192.0.2.1:2"),
            addr("192.0.2.2:1"),
        );
        for mapping in Dependence::ALL {
            for filtering in Dependence::ALL {
                let options = NatOptions {
                    mapping,
                    filtering,
                    ..OPEN
                };
                let mut nat = Nat::new(Ipv4Addr::new(203, 0, 113, 1), options);
                let to_a = nat.outbound(inside, a, now);
                assert_eq!(nat.outbound(inside, a, now), to_a, "stable");
                let in_from = |nat: &Nat, from| nat.inbound(to_a, from, now).is_some();
                assert!(in_from(&nat, a));
                assert_eq!(
                    in_from(&nat, a2),
                    filtering != Dependence::AddressAndPortDependent
                );
                assert_eq!(
                    in_from(&nat, b),
                    filtering == Dependence::EndpointIndependent
                );
                assert_eq!(
                    nat.outbound(inside, a2, now) == to_a,
                    mapping != Dependence::AddressAndPortDependent
                );
                assert_eq!(
                    nat.outbound(inside, b, now) == to_a,
                    mapping == Dependence::EndpointIndependent
                );
                let later = now + Duration::from_secs(30);
                assert_eq!(nat.inbound(to_a, a, later), None, "expired");
            }
        }
    }

    #[test]
    fn a_nat_keeps_ports_where_it_can() {
        let now = any_instant();
        let options = NatOptions {
            preserves_ports: true,
            ..OPEN
        };
        let mut nat = Nat::new(Ipv4Addr::new(203, 0, 113, 1), options);
        let to = addr("192.0.2.1:1");
        let mut port = |inside| nat.outbound(addr(inside), to, now).port();
        assert_eq!(port("10.0.0.2:5000"), 5000);
        assert_ne!(port("10.0.0.3:5000"), 5000, "taken");
        assert_eq!(port("10.0.0.3:5001"), 5001);
    }

    /// Two hosts behind one NAT and one in public.
    fn household(options: NatOptions) -> Net {
        let mut net = Net::new(Faults::NONE);
        let realm = net.add_nat(options);
        net.place(Site::Host(0), realm, &[addr("192.168.1.2:5000")]);
        net.place(Site::Host(1), realm, &[addr("192.168.1.3:5000")]);
        net.place(Site::Server, Realm::Public, &[addr("192.0.2.1:7400")]);
        net
    }

    #[test]
    fn a_nat_takes_hairpins_or_does_not() {
        let now = any_instant();
        for hairpins in [true, false] {
            let mut net = household(NatOptions { hairpins, ..OPEN });
            let mut send = |from, inside, to| {
                let mut sent = net.send(from, addr(inside), to, 100, now, &mut rng());
                sent.pop()
            };
            let server = addr("192.0.2.1:7400");
            let seen = send(Site::Host(1), "192.168.1.3:5000", server).unwrap();
            let around = send(Site::Host(0), "192.168.1.2:5000", seen.source);
            assert_eq!(around.is_some(), hairpins);
            if let Some(arrival) = around {
                assert_eq!(arrival.site, Site::Host(1));
                assert_eq!(arrival.source.ip(), seen.source.ip(), "from outside");
            }
            let straight = send(Site::Host(0), "192.168.1.2:5000", addr("192.168.1.3:5000"));
            assert_eq!(straight.unwrap().source, addr("192.168.1.2:5000"));
        }
    }

    #[test]
    fn an_inside_address_means_another_host_elsewhere() {
        let now = any_instant();
        let mut net = household(OPEN);
        let elsewhere = net.add_nat(OPEN);
        let same = addr("192.168.1.3:5000");
        net.place(Site::Host(2), elsewhere, &[same]);
        let sent = net.send(
            Site::Host(0),
            addr("192.168.1.2:5000"),
            same,
            100,
            now,
            &mut rng(),
        );
        assert_eq!(sent[0].site, Site::Host(1));
        let public = addr("192.0.2.1:7400");
        let sent = net.send(Site::Server, public, same, 100, now, &mut rng());
        assert!(sent.is_empty(), "nobody has it in public");
        assert_eq!(net.mishaps.barred, 1);
    }

    #[test]
    fn what_is_too_large_vanishes() {
        let now = any_instant();
        let mut net = household(OPEN);
        net.faults.mtu = 1280;
        let mut fits = |to: &str, len| {
            let from = addr("192.168.1.2:5000");
            let sent = net.send(Site::Host(0), from, addr(to), len, now, &mut rng());
            !sent.is_empty()
        };
        assert!(fits("192.0.2.1:7400", 1252));
        assert!(!fits("192.0.2.1:7400", 1253));
    }

    #[test]
    fn a_line_sends_at_its_rate_and_drops_what_its_queue_does_not_hold() {
        let now = any_instant();
        let mut net = household(OPEN);
        net.faults.rate = Some(100_000);
        net.faults.queue = Duration::from_millis(50);
        let mut send = || {
            let (from, to) = (addr("192.168.1.2:5000"), addr("192.0.2.1:7400"));
            let sent = net.send(Site::Host(0), from, to, 972, now, &mut rng());
            sent.first().map(|arrival| arrival.at)
        };
        // 1000 bytes with their headers take 10 ms, and as long on the way.
        let times: Vec<_> = (0..8).map(|_| send()).collect();
        for (at, n) in times.iter().zip(1..=6) {
            assert_eq!(*at, Some(now + Duration::from_millis(10 * n + 10)));
        }
        assert_eq!(times[6..], [None, None]);
        assert_eq!(net.mishaps.overflowed, 2);
    }
}
