//! What a world is made of, and where its hosts are in the beginning.

use crate::sim::net::{Faults, NatOptions, Realm};

/// What a world is made of.
#[derive(Clone, Debug)]
pub struct WorldOptions {
    /// All chance comes from here.
    pub seed: u64,
    /// The NATs that hosts may be behind.
    pub nats: Vec<NatOptions>,
    /// The hosts, each with an account of its own.
    pub homes: Vec<Home>,
    /// Whether people type passwords: [`Kind::LogIn`](crate::sim::step::Kind::LogIn) and others. Where they do
    /// not, nobody can log in with one.
    pub uses_passwords: bool,
    /// Whether accounts that are there from the beginning have their logs. Whoever registers founds one then.
    pub has_identities: bool,
    /// What the network does.
    pub faults: Faults,
}

/// Where a host is in the beginning.
#[derive(Clone, Copy, Debug)]
pub struct Home {
    /// The network of its IPv4 address.
    pub realm: Realm,
    /// Which addresses it has.
    pub family: Family,
    /// Whether it has an account and is logged in to it.
    pub is_enrolled: bool,
}

impl Home {
    /// A host that everybody can reach.
    pub const PUBLIC: Self = Self {
        realm: Realm::Public,
        family: Family::V4,
        is_enrolled: true,
    };
}

/// Which addresses a host has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
    /// One of each.
    Both,
}

impl WorldOptions {
    /// Hosts in public, all logged in.
    pub fn new(seed: u64, hosts: usize, faults: Faults) -> Self {
        Self {
            seed,
            nats: Vec::new(),
            homes: vec![Home::PUBLIC; hosts],
            uses_passwords: false,
            has_identities: true,
            faults,
        }
    }
}
