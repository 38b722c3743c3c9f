//! Connections that have not logged in yet, and which of them makes room when there are too many.
//!
//! Whoever opens connections by the thousand pushes out their own first. The fullest source loses: by its
//! address (/32 of IPv4, /64 of IPv6), among those that are as full by its network (/24, /48), and among
//! equals by lot. Each connection draws its lot when it comes, so in a crowd in which everybody is alone in
//! their network everybody's chance to stay is the same, however long they have been there.
//!
//! A connection that has proved the key of an enrolled device is not pushed out by those that have not.
//!
//! `Strangers` owns who is there and from where; sessions, timers and farewells are the server's.

use std::collections::{BTreeMap, BTreeSet};

use common::limits::{
    Occupancy, PROVEN_STRANGERS_MAX, UNAUTHENTICATED_MAX, UNAUTHENTICATED_PER_SOURCE_MAX,
};

use crate::server::io::ConnectionId;
use crate::source::{Network, SourcePrefix};

/// A connection's draw; the greatest loses.
type Lot = u64;

/// Connections that have not logged in yet.
#[derive(Debug, Default)]
pub(super) struct Strangers {
    places: BTreeMap<ConnectionId, Place>,
    /// How many each source has, those that proved a device included.
    sources: BTreeMap<SourcePrefix, usize>,
    /// Those that may have to make room.
    crowd: Crowd,
}

#[derive(Clone, Copy, Debug)]
struct Place {
    source: SourcePrefix,
    lot: Lot,
    is_proven: bool,
}

impl Strangers {
    /// Tells whether a source has as many as it may have.
    pub(super) fn is_full(&self, source: SourcePrefix) -> bool {
        self.count_of(source) >= UNAUTHENTICATED_PER_SOURCE_MAX
    }

    /// Takes a connection in. `lot` is random.
    pub(super) fn add(&mut self, connection: ConnectionId, source: SourcePrefix, lot: Lot) {
        let place = Place {
            source,
            lot,
            is_proven: false,
        };
        self.places.insert(connection, place);
        *self.sources.entry(source).or_default() += 1;
        self.crowd.add(source, (lot, connection));
    }

    /// Lets go of a connection that has logged in or is gone. Fine for those that are not here.
    pub(super) fn remove(&mut self, connection: ConnectionId) {
        let Some(place) = self.places.remove(&connection) else {
            return;
        };
        if let Some(count) = self.sources.get_mut(&place.source) {
            *count -= 1;
            if *count == 0 {
                self.sources.remove(&place.source);
            }
        }
        self.crowd.remove(place.source, (place.lot, connection));
    }

    /// A connection has proved the key of an enrolled device: it stays, as long as there are no more than
    /// [`PROVEN_STRANGERS_MAX`] of its kind.
    pub(super) fn on_proven(&mut self, connection: ConnectionId) {
        if self.places.len() - self.crowd.count >= PROVEN_STRANGERS_MAX {
            return;
        }
        if let Some(place) = self.places.get_mut(&connection)
            && !place.is_proven
        {
            place.is_proven = true;
            self.crowd.remove(place.source, (place.lot, connection));
        }
    }

    /// Who has to leave, if there are more than [`UNAUTHENTICATED_MAX`].
    pub(super) fn one_too_many(&self) -> Option<ConnectionId> {
        if self.places.len() <= UNAUTHENTICATED_MAX {
            return None;
        }
        self.crowd.first_to_leave()
    }

    /// The occupancy of each bounded resource.
    pub(super) fn occupancies(&self) -> [Occupancy; 2] {
        let of_sources = self.sources.values().copied();
        [
            Occupancy::new("strangers", self.places.len(), UNAUTHENTICATED_MAX),
            Occupancy::fullest(
                "strangers of a source",
                of_sources,
                UNAUTHENTICATED_PER_SOURCE_MAX,
            ),
        ]
    }

    fn count_of(&self, source: SourcePrefix) -> usize {
        self.sources.get(&source).copied().unwrap_or(0)
    }

    /// Tests count connections as members without a log-in.
    #[cfg(test)]
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}

/// Connections by source and network, in the order in which they leave.
#[derive(Debug, Default)]
struct Crowd {
    count: usize,
    sources: BTreeMap<SourcePrefix, BTreeSet<(Lot, ConnectionId)>>,
    networks: BTreeMap<Network, Sources>,
    order: BTreeSet<NetworkRank>,
}

/// The sources of a network.
#[derive(Debug, Default)]
struct Sources {
    connections: usize,
    order: BTreeSet<SourceRank>,
}

/// Connections, and the greatest lot among them.
type SourceRank = (usize, Lot, SourcePrefix);
/// Connections of its fullest source, connections in all, and the greatest lot in that source.
type NetworkRank = (usize, usize, Lot, Network);

impl Crowd {
    fn add(&mut self, source: SourcePrefix, connection: (Lot, ConnectionId)) {
        self.change(source, |connections| connections.insert(connection));
    }

    /// Fine for a connection that is not here.
    fn remove(&mut self, source: SourcePrefix, connection: (Lot, ConnectionId)) {
        self.change(source, |connections| connections.remove(&connection));
    }

    fn first_to_leave(&self) -> Option<ConnectionId> {
        let (.., network) = self.order.last()?;
        let (.., source) = self.networks.get(network)?.order.last()?;
        let (_, connection) = self.sources.get(source)?.last()?;
        Some(*connection)
    }

    /// Takes a source and its network out of the order, changes the source and puts them back.
    fn change(
        &mut self,
        source: SourcePrefix,
        change: impl FnOnce(&mut BTreeSet<(Lot, ConnectionId)>) -> bool,
    ) {
        let network = source.network();
        let mut connections = self.sources.remove(&source).unwrap_or_default();
        let mut sources = self.networks.remove(&network).unwrap_or_default();
        if let Some(rank) = sources.rank(network) {
            self.order.remove(&rank);
        }
        if let Some(rank) = source_rank(source, &connections) {
            sources.order.remove(&rank);
        }
        let before = connections.len();
        change(&mut connections);
        sources.connections = sources.connections - before + connections.len();
        self.count = self.count - before + connections.len();
        if let Some(rank) = source_rank(source, &connections) {
            sources.order.insert(rank);
            self.sources.insert(source, connections);
        }
        if let Some(rank) = sources.rank(network) {
            self.order.insert(rank);
            self.networks.insert(network, sources);
        }
    }
}

impl Sources {
    fn rank(&self, network: Network) -> Option<NetworkRank> {
        let (fullest, lot, _) = self.order.last()?;
        Some((*fullest, self.connections, *lot, network))
    }
}

fn source_rank(
    source: SourcePrefix,
    connections: &BTreeSet<(Lot, ConnectionId)>,
) -> Option<SourceRank> {
    let (lot, _) = connections.last()?;
    Some((connections.len(), *lot, source))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::rngs::StdRng;
    use rand::{Rng, RngExt, SeedableRng};

    fn source(text: &str) -> SourcePrefix {
        SourcePrefix::of(text.parse().unwrap())
    }

    /// The rule as the docs say it, without any index.
    fn first_to_leave(strangers: &Strangers) -> Option<ConnectionId> {
        let crowd = strangers
            .places
            .iter()
            .filter(|(_, place)| !place.is_proven);
        let crowd: Vec<_> = crowd.collect();
        let count = |is_alike: &dyn Fn(SourcePrefix) -> bool| {
            crowd
                .iter()
                .filter(|(_, place)| is_alike(place.source))
                .count()
        };
        // Within a network its fullest source counts, and between sources that are as full the lot.
        let rank = |place: &Place| {
            let of_source = count(&|other| other == place.source);
            let of_network = count(&|other| other.network() == place.source.network());
            let greatest = crowd
                .iter()
                .filter(|(_, other)| other.source == place.source)
                .map(|(_, other)| other.lot)
                .max();
            (of_source, of_network, greatest, place.lot)
        };
        let ranked = crowd
            .iter()
            .map(|(connection, place)| (rank(place), **connection));
        ranked.max().map(|(_, connection)| connection)
    }

    #[test]
    fn who_leaves_is_who_the_rule_says() {
        for seed in 0..6 {
            let mut rng = StdRng::from_seed([seed; 32]);
            let mut strangers = Strangers::default();
            for number in 0..200 {
                let connection = ConnectionId(number);
                match rng.random_range(0..10) {
                    0 => strangers.on_proven(ConnectionId(rng.random_range(0..=number))),
                    1..3 => strangers.remove(ConnectionId(rng.random_range(0..=number))),
                    _ => {
                        let (a, b) = (rng.random_range(0..4), rng.random_range(0..4));
                        let text = format!("192.0.{a}.{b}");
                        strangers.add(connection, source(&text), rng.next_u64());
                    }
                }
                assert_eq!(
                    strangers.crowd.first_to_leave(),
                    first_to_leave(&strangers),
                    "seed {seed}, step {number}"
                );
            }
            for number in 0..200 {
                strangers.remove(ConnectionId(number));
            }
            let Crowd {
                count,
                sources,
                networks,
                order,
            } = &strangers.crowd;
            assert_eq!(
                (*count, sources.len(), networks.len(), order.len()),
                (0, 0, 0, 0)
            );
            assert!(strangers.sources.is_empty());
        }
    }

    const TRIES: u8 = 20;

    /// `arrivals` connections from those sources meet one that was there before; how often it stays.
    fn stays(arrivals: u32, from: impl Fn(u32) -> String) -> usize {
        (0..TRIES)
            .filter(|seed| {
                let mut rng = StdRng::from_seed([*seed; 32]);
                let mut strangers = Strangers::default();
                let owner = ConnectionId(u64::MAX);
                strangers.add(owner, source("198.51.100.1"), rng.next_u64());
                for number in 0..arrivals {
                    let connection = ConnectionId(number.into());
                    strangers.add(connection, source(&from(number)), rng.next_u64());
                    if let Some(leaver) = strangers.one_too_many() {
                        strangers.remove(leaver);
                    }
                }
                assert!(strangers.places.len() <= UNAUTHENTICATED_MAX);
                strangers.places.contains_key(&owner)
            })
            .count()
    }

    #[test]
    fn t28_a_churn_of_strangers_pushes_out_its_own() {
        // Ten seconds of a thousand connections a second, from 4,445 addresses of 18 networks.
        let few_networks =
            |number: u32| format!("203.0.{}.{}", number % 4445 / 256, number % 4445 % 256);
        assert_eq!(stays(10_000, few_networks), usize::from(TRIES));
        // From a network of its own each, nobody can tell who is who: 4,096 of 10,001 stay.
        let no_two_alike = |number: u32| {
            format!(
                "{}.{}.{}.7",
                16 + number / 65536,
                number / 256 % 256,
                number % 256
            )
        };
        let stayed = stays(10_000, no_two_alike);
        println!("alone among 10,000 alone: stays {stayed} times of {TRIES}");
        assert!((3..=14).contains(&stayed), "about 8 of 20: {stayed}");
    }

    #[test]
    fn whoever_proved_a_device_is_not_pushed_out_until_too_many_have() {
        let mut strangers = Strangers::default();
        let place = |number: u32| source(&std::net::Ipv4Addr::from(number * 256).to_string());
        for number in 0..PROVEN_STRANGERS_MAX as u32 + 10 {
            let connection = ConnectionId(number.into());
            strangers.add(connection, place(number), u64::MAX);
            strangers.on_proven(connection);
        }
        assert_eq!(strangers.crowd.count, 10);
        for number in 1_000_000..1_000_000 + UNAUTHENTICATED_MAX as u32 {
            strangers.add(ConnectionId(number.into()), place(number), 0);
            if let Some(leaver) = strangers.one_too_many() {
                assert!(leaver.0 >= PROVEN_STRANGERS_MAX as u64, "{leaver:?}");
                strangers.remove(leaver);
            }
        }
        assert_eq!(strangers.places.len(), UNAUTHENTICATED_MAX);
        assert!(strangers.places.contains_key(&ConnectionId(0)));
    }
}
