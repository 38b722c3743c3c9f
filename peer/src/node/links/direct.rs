//! Links through the relay: the channels that they begin on, and the search for direct paths.
//!
//! Both ends of a relayed link offer their candidates. The client's side starts *rounds* of NAT traversal: at once
//! when the other end offers addresses, or when the direct path is lost, and again at growing intervals as
//! long as the link is relayed. Which path carries data is up to the transport.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use common::key::DeviceKey;
use common::limits::{TRAVERSAL_BACKOFF_FIRST, TRAVERSAL_BACKOFF_MAX};
use common::wire::channel::AllocationId;
use common::wire::rendezvous::{Introduction, RelayDatagrams};

use super::dial::Channel;
use super::{LinkChange, Links, LinksEvent};
use crate::node::command::{LinkView, PathRule, Way};
use crate::node::io::Datagrams;
use crate::node::transport::{LinkId, PathChange, Route, Side};

/// The links that began through the relay, and their rounds.
#[derive(Debug, Default)]
pub(super) struct Rounds {
    /// The addresses that this device offers.
    candidates: Vec<SocketAddr>,
    links: BTreeMap<LinkId, Round>,
}

/// When the next round of a link is due.
#[derive(Debug)]
struct Round {
    /// `None` while there is a direct path, and at the server's side.
    at: Option<Instant>,
    /// From that round to the one after it.
    pause: Duration,
}

impl Rounds {
    /// When a round is due.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.links.values().filter_map(|round| round.at).min()
    }

    /// Forgets a link.
    pub(super) fn remove(&mut self, link: LinkId) {
        self.links.remove(&link);
    }

    /// Something has changed: the next round is due now, and the later ones come quickly again.
    fn start_anew(&mut self, link: LinkId, now: Instant) {
        if let Some(round) = self.links.get_mut(&link) {
            round.at = Some(now);
            round.pause = TRAVERSAL_BACKOFF_FIRST;
        }
    }

    /// There is a direct path.
    fn stop(&mut self, link: LinkId) {
        if let Some(round) = self.links.get_mut(&link) {
            round.at = None;
        }
    }

    /// Takes out the links whose round is due.
    fn take_due(&mut self, now: Instant) -> Vec<LinkId> {
        let links = self.links.iter_mut();
        let due = links.filter(|(_, round)| round.at.is_some_and(|at| at <= now));
        let taken = due.map(|(link, round)| {
            round.at = Some(now + round.pause);
            round.pause = (round.pause * 2).min(TRAVERSAL_BACKOFF_MAX);
            *link
        });
        taken.collect()
    }
}

impl Links {
    /// A session begins with the server at this address.
    pub(in crate::node) fn on_online(&mut self, server: Option<SocketAddr>, now: Instant) {
        if let Some(server) = server {
            self.relay.on_online(server, now);
        }
    }

    /// The session has ended.
    pub(in crate::node) fn on_offline(&mut self) {
        self.relay.on_offline();
    }

    /// Sets which ways packets may take. To be called before anything else.
    pub(in crate::node) const fn set_rule(&mut self, rule: PathRule) {
        self.dials.rule = rule;
    }

    pub(in crate::node) const fn rule(&self) -> PathRule {
        self.dials.rule
    }

    /// Tells whether packets may go straight to other devices.
    pub(in crate::node) fn goes_directly(&self) -> bool {
        self.dials.rule != PathRule::Relayed
    }

    /// Tells whether packets may go through the relay.
    pub(in crate::node) fn goes_through_relay(&self) -> bool {
        self.dials.rule != PathRule::Direct
    }

    /// Takes this device's allocation at the relay; `None` if the server grants none.
    pub(in crate::node) fn on_allocated(&mut self, id: Option<AllocationId>, now: Instant) {
        self.relay.on_allocated(id, now);
    }

    /// Notes how many bytes per second the server relays from an account.
    pub(in crate::node) const fn set_relay_rate(&mut self, rate: u32) {
        self.relay_rate = rate;
    }

    /// Tells whether the server relays for this device; `None` while that is not known, or not wanted.
    pub(in crate::node) fn has_relay(&self) -> Option<bool> {
        let is_known = self.goes_through_relay() && self.relay.is_ready();
        is_known.then(|| self.relay.has_allocation())
    }

    /// Tells whether links can begin through the relay, or are not to wait for it.
    pub(in crate::node) const fn is_ready_for_introductions(&self) -> bool {
        self.relay.is_ready()
    }

    /// Another device is about to dial this one. Where the relay leads to neither, each has to send to the other: NATs
    /// let in only whom their own side has sent to.
    pub(in crate::node) fn expect(&mut self, introduction: &Introduction, now: Instant) {
        let entry = &introduction.entry;
        let channel = self.take_introduction(introduction, now);
        if self.is_linked_at_present_endpoint(entry) {
            return;
        }
        match channel {
            None => self.begin_dial(&entry.account, entry, None, now),
            Some(channel) => {
                let (device, links) = (
                    (entry.device_key, &entry.candidates[..]),
                    (&self.pins, &self.transport),
                );
                self.dials
                    .let_in(&entry.account, device, channel, links, now);
            }
        }
    }

    /// Takes the server's word for whose a device is. Returns the channel to it.
    pub(super) fn take_introduction(
        &mut self,
        Introduction { entry, end, role }: &Introduction,
        now: Instant,
    ) -> Option<Channel> {
        let device_key = entry.device_key;
        if device_key == self.own_key {
            return None;
        }
        self.introduced.note(device_key, entry.account.clone(), now);
        let end = (*end)?;
        Some(Channel {
            address: self.relay.join(device_key, end, now),
            role: *role,
        })
    }

    /// Takes datagrams of the relay.
    pub(in crate::node) fn handle_relayed(&mut self, datagrams: &Datagrams, now: Instant) {
        for packets in self.relay.handle_datagrams(datagrams, now) {
            self.transport.handle_datagrams(packets, now);
        }
        self.collect(now);
    }

    /// Takes datagrams of the relay that came over the control connection.
    pub(in crate::node) fn handle_train(&mut self, train: &RelayDatagrams, now: Instant) {
        for packets in self.relay.handle_train(train, now) {
            self.transport.handle_datagrams(packets, now);
        }
        self.collect(now);
    }

    /// The next datagrams of the relay for the control connection.
    pub(in crate::node) fn poll_train(&mut self) -> Option<RelayDatagrams> {
        self.relay.poll_train()
    }

    /// The device was asleep: others may have given it up, and its address may be another one.
    pub(in crate::node) fn on_woke(&mut self, now: Instant) {
        self.relay.on_address_change(now);
        for link in self.peers.keys() {
            self.transport.ping(*link);
        }
        self.collect(now);
    }

    /// Notes whether the server answers over UDP.
    pub(in crate::node) fn on_udp(&mut self, is_answered: bool, now: Instant) {
        if is_answered {
            self.relay.on_udp_answer();
        } else {
            self.relay.on_udp_lost(now);
        }
    }

    /// Notes the addresses at which this device may be reached, which all relayed links offer.
    pub(in crate::node) fn set_candidates(&mut self, candidates: Vec<SocketAddr>, now: Instant) {
        if self.rounds.candidates == candidates {
            return;
        }
        self.rounds.candidates = candidates;
        let links: Vec<LinkId> = self.rounds.links.keys().copied().collect();
        for link in links {
            self.offer_candidates(link);
            if self.leads_rounds(link) {
                self.rounds.start_anew(link, now);
            }
        }
        self.start_rounds(now);
    }

    /// Both ends of a link have greeted: if it is relayed, this end offers its addresses. The client's side
    /// begins once it has those of the other.
    pub(super) fn look_for_direct_path(&mut self, link: LinkId, now: Instant) {
        let path = self.transport.current_path(link);
        if path.is_none_or(|path| !path.route.is_relayed()) {
            return;
        }
        let has_offer = !self.transport.offered_addresses(link).is_empty();
        let round = Round {
            at: has_offer.then_some(now),
            pause: TRAVERSAL_BACKOFF_FIRST,
        };
        self.rounds.links.insert(link, round);
        self.offer_candidates(link);
        self.start_rounds(now);
    }

    /// The devices that there are ready links to, by account, and how the packets of the link in use go: of
    /// several to one device, the newest that is not silent.
    pub(in crate::node) fn views(&mut self) -> Vec<LinkView> {
        let Self {
            peers,
            transport,
            relay,
            relay_rate,
            ..
        } = self;
        let relayed = Way::Relayed {
            over: relay.carrier(),
            per_s_max: *relay_rate,
        };
        let mut in_use: BTreeMap<DeviceKey, (bool, LinkId)> = BTreeMap::new();
        for (link, peer) in peers.iter().filter(|(_, peer)| peer.is_ready()) {
            let rank = (!transport.is_silent(*link), *link);
            let best = in_use.entry(peer.device_key).or_insert(rank);
            *best = rank.max(*best);
        }
        let ready = peers.iter().filter(|(link, peer)| {
            let best = in_use.get(&peer.device_key);
            best.is_some_and(|(_, best)| best == *link) && peer.is_ready()
        });
        let views = ready.filter_map(|(link, peer)| {
            let path = transport.current_path(*link)?;
            Some(LinkView {
                account: peer.account.clone()?,
                fingerprint: peer.device_key.fingerprint().to_string(),
                link: link.number(),
                path_changes: transport.path_changes(*link),
                way: match path.route {
                    Route::Direct(remote) => Way::Direct { remote },
                    Route::Relayed(_) => relayed,
                },
                round_trip_us: u64::try_from(path.round_trip.as_micros()).unwrap_or(u64::MAX),
                is_silent: transport.is_silent(*link),
                traffic: transport.current_traffic(*link).unwrap_or_default(),
            })
        });
        let mut views: Vec<LinkView> = views.collect();
        views.sort_by(|one, other| one.account.cmp(&other.account));
        views
    }

    pub(super) fn on_path(&mut self, link: LinkId, change: PathChange, now: Instant) {
        log::debug!("link {link:?}: {change:?}");
        if matches!(change, PathChange::Current(_)) {
            let change = LinkChange::Rerouted;
            self.events.push_back(LinksEvent::Change(change));
        }
        match change {
            PathChange::Current(route) if route.is_relayed() => {
                if self.leads_rounds(link) {
                    self.rounds.start_anew(link, now);
                }
            }
            PathChange::Current(route) => {
                self.rounds.stop(link);
                if let Route::Direct(remote) = route {
                    self.remember_endpoint(link, remote);
                }
            }
            PathChange::AddressesOffered => self.rounds.start_anew(link, now),
            PathChange::Opened(_) | PathChange::Lost(_) => {}
        }
        self.start_rounds(now);
    }

    /// Starts the rounds that are due.
    pub(super) fn start_rounds(&mut self, now: Instant) {
        for link in self.rounds.take_due(now) {
            if let Err(error) = self.transport.start_round(link, now) {
                log::debug!("link {link:?}: {error}");
            }
        }
    }

    fn offer_candidates(&mut self, link: LinkId) {
        if let Err(error) = self
            .transport
            .offer_addresses(link, &self.rounds.candidates)
        {
            log::debug!("link {link:?}: {error}");
        }
    }

    fn leads_rounds(&self, link: LinkId) -> bool {
        let peer = self.peers.get(&link);
        peer.is_some_and(|peer| peer.side == Side::Client)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "any instant will do as a start")]
    fn a_relayed_link_looks_for_a_direct_path_at_growing_intervals() {
        let start = Instant::now();
        let link = LinkId::for_test(1);
        let mut rounds = Rounds::default();
        let round = Round {
            at: None,
            pause: TRAVERSAL_BACKOFF_FIRST,
        };
        rounds.links.insert(link, round);
        assert_eq!(rounds.poll_timeout(), None);
        for _ in 0..2 {
            rounds.start_anew(link, start);
            let mut now = start;
            let mut pauses = Vec::new();
            for _ in 0..9 {
                assert_eq!(rounds.take_due(now), [link]);
                assert_eq!(rounds.take_due(now), []);
                let next = rounds.poll_timeout().unwrap();
                pauses.push(next - now);
                now = next;
            }
            assert_eq!(
                pauses[..2],
                [TRAVERSAL_BACKOFF_FIRST, TRAVERSAL_BACKOFF_FIRST * 2]
            );
            assert_eq!(pauses[8], TRAVERSAL_BACKOFF_MAX);
        }
        rounds.stop(link);
        assert_eq!(rounds.poll_timeout(), None);
    }
}
