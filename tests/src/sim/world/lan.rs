//! Multicast DNS of the home networks: who is behind one NAT hears who announces itself there, a little later.
//!
//! A goodbye is heard at once. The name of a host that lost its power, or left for another network without a
//! word, is heard until it is no longer valid.

use std::time::Duration;

use peer::node::Input;
use peer::node::io::{LanAnnouncement, LanInput, LocalAddress};

use super::{Happening, Host, World};
use crate::sim::net::{Realm, Site};

/// How long a name is valid whose host does not repeat it (RFC 6762 section 10: records with a host's name).
const TTL: Duration = Duration::from_secs(120);
/// Leading bits that the IPv4 addresses of a home network share.
const HOME_PREFIX_LEN: u8 = 24;

/// What a host announces, and where.
#[derive(Clone, Debug)]
pub(super) struct Announced {
    realm: Realm,
    what: LanAnnouncement,
}

impl Host {
    /// The addresses of its interfaces.
    pub(super) fn local_addresses(&self, realm: Realm) -> Vec<LocalAddress> {
        let local = self.addresses.iter().map(|address| {
            let mut local = LocalAddress::from(*address);
            if address.is_ipv4() && realm != Realm::Public {
                local.prefix_len = HOME_PREFIX_LEN;
            }
            local
        });
        local.collect()
    }
}

impl World {
    /// Announces something of a host in its network, then takes back what it announced before, and has it hear
    /// what others announce there.
    pub(super) fn announce(&mut self, n: usize, what: Option<LanAnnouncement>) {
        let before = self.hosts[n].announced.take();
        self.announce_anew(n, what);
        self.take_back(n, before, true);
    }

    fn announce_anew(&mut self, n: usize, what: Option<LanAnnouncement>) {
        let realm = self.net.realm(Site::Host(n));
        let Some(what) = what.filter(|_| realm != Realm::Public) else {
            return;
        };
        let others = (0..self.hosts.len()).filter(|other| *other != n);
        let in_sight = |other: &usize| self.net.realm(Site::Host(*other)) == realm;
        let others: Vec<usize> = others.filter(in_sight).collect();
        for other in others {
            self.tell(other, heard(&what), Duration::ZERO);
            let theirs = self.hosts[other].announced.clone();
            if let Some(theirs) = theirs.filter(|theirs| theirs.realm == realm) {
                self.tell(n, heard(&theirs.what), Duration::ZERO);
            }
        }
        self.hosts[n].announced = Some(Announced { realm, what });
    }

    /// A host announces nothing any more: it says so, or is merely not heard.
    pub(super) fn withdraw(&mut self, n: usize, says_goodbye: bool) {
        let announced = self.hosts[n].announced.take();
        self.take_back(n, announced, says_goodbye);
    }

    fn take_back(&mut self, n: usize, announced: Option<Announced>, says_goodbye: bool) {
        let Some(Announced { realm, what }) = announced else {
            return;
        };
        let is_there = self.net.realm(Site::Host(n)) == realm;
        let after = if says_goodbye && is_there {
            Duration::ZERO
        } else {
            TTL
        };
        for other in (0..self.hosts.len()).filter(|other| *other != n) {
            if self.net.realm(Site::Host(other)) == realm {
                self.tell(other, LanInput::Gone { name: what.name }, after);
            }
        }
    }

    /// Somebody in a host's network says something, true or not.
    pub fn tell(&mut self, n: usize, said: LanInput, after: Duration) {
        let at = self.now + self.net.faults.latency + after;
        let life = self.hosts[n].life;
        self.schedule(at, Happening::Lan(n, life, said));
    }

    /// What a host announces.
    pub fn announced(&self, n: usize) -> Option<&LanAnnouncement> {
        self.hosts[n].announced.as_ref().map(|it| &it.what)
    }

    pub(super) fn on_said(&mut self, n: usize, life: u32, said: LanInput) {
        self.host_input(n, life, Input::Lan(said));
    }
}

fn heard(what: &LanAnnouncement) -> LanInput {
    LanInput::Heard {
        name: what.name,
        endpoints: what.endpoints.clone(),
    }
}
