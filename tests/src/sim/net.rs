//! The network between the hosts: what it does to a datagram, and which way it lets it go.
//!
//! Hosts are sites with one address each; a site may be behind a NAT of its own. Directed cuts between
//! two sites model partitions. Nothing here knows what the bytes mean.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use rand::RngExt;
use rand::rngs::StdRng;

/// A host of the world, or the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Site {
    /// The rendezvous server.
    Server,
    /// A host by its number.
    Host(usize),
}

/// How likely each mishap is, and how long a datagram takes.
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
}

impl Faults {
    /// A network without any.
    pub const NONE: Self = Self {
        loss: 0.0,
        duplication: 0.0,
        reordering: 0.0,
        latency: Duration::from_millis(10),
        jitter: Duration::ZERO,
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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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

    /// The part of an endpoint that counts.
    const fn key(self, endpoint: SocketAddr) -> Option<(SocketAddr, bool)> {
        match self {
            Self::EndpointIndependent => None,
            Self::AddressDependent => Some((SocketAddr::new(endpoint.ip(), 0), false)),
            Self::AddressAndPortDependent => Some((endpoint, true)),
        }
    }
}

/// A NAT with one host behind it.
#[derive(Debug)]
pub struct Nat {
    public: Ipv4Addr,
    mapping: Dependence,
    filtering: Dependence,
    expiry: Duration,
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
    /// A NAT with the public address `public`, whose mappings end `expiry` after their last use from
    /// inside.
    pub const fn new(
        public: Ipv4Addr,
        mapping: Dependence,
        filtering: Dependence,
        expiry: Duration,
    ) -> Self {
        Self {
            public,
            mapping,
            filtering,
            expiry,
            next_port: 20_000,
            bindings: Vec::new(),
        }
    }

    /// Lets a datagram out; returns the source that others see.
    fn outbound(&mut self, inside: SocketAddr, to: SocketAddr, now: Instant) -> SocketAddr {
        let expiry = self.expiry;
        self.bindings
            .retain(|binding| now.saturating_duration_since(binding.used) < expiry);
        let towards = self.mapping.key(to);
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
                self.next_port = self.next_port.wrapping_add(1).max(20_000);
                self.bindings.push(Binding {
                    inside,
                    towards,
                    port: self.next_port,
                    used: now,
                    contacted: BTreeSet::from([to]),
                });
                self.next_port
            }
        };
        SocketAddr::from((self.public, port))
    }

    /// Lets a datagram in, if anybody inside asked for one like it; returns for whom.
    fn inbound(&self, to: SocketAddr, from: SocketAddr, now: Instant) -> Option<SocketAddr> {
        let binding = self.bindings.iter().find(|binding| {
            binding.port == to.port() && now.saturating_duration_since(binding.used) < self.expiry
        })?;
        let wanted = self.filtering.key(from);
        let is_known = wanted.is_none()
            || binding
                .contacted
                .iter()
                .any(|contact| self.filtering.key(*contact) == wanted);
        is_known.then_some(binding.inside)
    }

    /// Whether a stranger who knows the mapping towards the server gets in.
    pub fn lets_strangers_in(&self) -> bool {
        self.mapping == Dependence::EndpointIndependent
            && self.filtering == Dependence::EndpointIndependent
    }

    /// Forgets all mappings, as after its own restart.
    pub fn restart(&mut self) {
        self.bindings.clear();
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

/// All of it.
#[derive(Debug)]
pub struct Net {
    /// What happens to each datagram.
    pub faults: Faults,
    addresses: BTreeMap<SocketAddr, Site>,
    nats: BTreeMap<usize, Nat>,
    cuts: BTreeSet<(Site, Site)>,
    /// Datagrams that were lost, came twice, were cut or not let in.
    pub mishaps: [u64; 4],
}

impl Net {
    /// A network with these faults, and nobody on it.
    pub const fn new(faults: Faults) -> Self {
        Self {
            faults,
            addresses: BTreeMap::new(),
            nats: BTreeMap::new(),
            cuts: BTreeSet::new(),
            mishaps: [0; 4],
        }
    }

    /// Puts a NAT in front of a host.
    pub fn put_behind(&mut self, host: usize, nat: Nat) {
        self.nats.insert(host, nat);
    }

    /// The NAT of a host.
    pub fn nat_mut(&mut self, host: usize) -> Option<&mut Nat> {
        self.nats.get_mut(&host)
    }

    /// Tells whether everybody can reach a host at what it announces.
    pub fn is_reachable(&self, host: usize) -> bool {
        self.nats.get(&host).is_none_or(Nat::lets_strangers_in)
    }

    /// A site is at `address` from now on, and nowhere else.
    pub fn move_to(&mut self, site: Site, address: SocketAddr) {
        self.addresses.retain(|_, at| *at != site);
        self.addresses.insert(address, site);
    }

    /// Cuts one way.
    pub fn cut(&mut self, from: Site, to: Site) {
        self.cuts.insert((from, to));
    }

    /// Ends all cuts.
    pub fn heal(&mut self) {
        self.cuts.clear();
    }

    /// Tells whether a way is cut.
    pub fn is_cut(&self, from: Site, to: Site) -> bool {
        self.cuts.contains(&(from, to))
    }

    /// Sends a datagram on its way; returns where and when its copies arrive.
    pub fn send(
        &mut self,
        from: Site,
        inside: SocketAddr,
        destination: SocketAddr,
        now: Instant,
        rng: &mut StdRng,
    ) -> Vec<Arrival> {
        let source = match from {
            Site::Host(host) => match self.nats.get_mut(&host) {
                Some(nat) => nat.outbound(inside, destination, now),
                None => inside,
            },
            Site::Server => inside,
        };
        let Some((site, address)) = self.find(destination, source, now) else {
            self.mishaps[3] += 1;
            return Vec::new();
        };
        if self.is_cut(from, site) {
            self.mishaps[2] += 1;
            return Vec::new();
        }
        let fates = self.faults.fates(rng);
        match fates.len() {
            0 => self.mishaps[0] += 1,
            1 => {}
            _ => self.mishaps[1] += 1,
        }
        fates
            .into_iter()
            .map(|delay| Arrival {
                site,
                at: now + delay,
                source,
                destination: address,
            })
            .collect()
    }

    /// Who is at a destination, seen from `source`, and at which address of its own.
    fn find(
        &self,
        destination: SocketAddr,
        source: SocketAddr,
        now: Instant,
    ) -> Option<(Site, SocketAddr)> {
        if let Some(site) = self.addresses.get(&destination) {
            // An address inside of a NAT means nothing outside.
            let is_inside = matches!(site, Site::Host(host) if self.nats.contains_key(host));
            return (!is_inside).then_some((*site, destination));
        }
        let (host, nat) = self
            .nats
            .iter()
            .find(|(_, nat)| destination.ip() == nat.public)?;
        let inside = nat.inbound(destination, source, now)?;
        Some((Site::Host(*host), inside))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[expect(clippy::disallowed_methods, reason = "any instant will do as a start")]
    fn any_instant() -> Instant {
        Instant::now()
    }

    fn addr(text: &str) -> SocketAddr {
        text.parse().unwrap()
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
                let public = Ipv4Addr::new(203, 0, 113, 1);
                let mut nat = Nat::new(public, mapping, filtering, Duration::from_secs(30));
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
}
