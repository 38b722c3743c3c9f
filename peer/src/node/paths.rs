//! Paths between devices: this device's candidates, and checks of other devices' candidates.
//!
//! [`Paths`] owns this device's endpoints, their [`discovery`] through the server, what was announced of
//! them, the answers to other peers' checks, and the [`doctor`], who examines them. The candidates of other devices belong to the
//! [`agent`].

use std::collections::{BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use common::id::AccountName;
use common::key::DeviceKey;
use common::limits::{ANNOUNCE_WAIT_MAX, CANDIDATES_MAX};
use common::stun;
use rand::rngs::StdRng;

use super::command::{ExaminationView, PathRule};
use super::io::{Datagrams, LocalAddress, PortMappingOrder, Transmit};
use super::links::LinkChange;
use crate::port_mapping::{NoPortMapping, PortMapping, PortMappingState};
use answers::Answers;
use discovery::Discovery;
use doctor::Doctor;
use mapping::Mapping;

// Candidates of other devices: checks, proofs and budgets.
pub(super) mod agent;
// Answers to checks of this device's endpoints.
mod answers;
// Limits what is sent to unproven endpoints.
pub(super) mod budget;
// The server-reflexive addresses of this device.
mod discovery;
// The endpoint that the gateway forwards.
mod mapping;
// Examinations of this device's ways.
mod doctor;
// What a NAT does.
mod nat;
// This device's side of the relay.
pub(super) mod relay;

/// This device's endpoints, and how they are discovered and announced.
#[derive(Debug)]
pub(super) struct Paths {
    rng: StdRng,
    /// The interfaces' addresses with the port of the UDP socket.
    local: BTreeSet<SocketAddr>,
    /// One for each address family in which the server has an address. The first is the one of the
    /// control connection: that address of the server is known to be reachable.
    discoveries: Vec<Discovery>,
    /// What this session has announced.
    announced: Option<Vec<SocketAddr>>,
    /// Until then, the session's first announcement waits for the first server-reflexive address.
    announce_by: Option<Instant>,
    mapping: Mapping,
    /// A person has chosen the port of the UDP socket, perhaps since the router forwards it.
    is_port_chosen: bool,
    answers: Answers,
    doctor: Doctor,
    transmits: VecDeque<(Transmit, Vec<u8>)>,
    rule: PathRule,
}

impl Paths {
    /// Creates the paths of the device `own_key`, with no endpoint known yet. The last argument says whether its owner
    /// lets it ask the gateway for a port, and whether the port of its socket is of the owner's choice.
    pub(super) fn new(
        rng: StdRng,
        own_key: DeviceKey,
        rule: PathRule,
        [port_mapping, is_port_chosen]: [bool; 2],
    ) -> Self {
        Self {
            rng,
            local: BTreeSet::new(),
            discoveries: Vec::new(),
            announced: None,
            announce_by: None,
            mapping: Mapping::new(port_mapping, rule),
            is_port_chosen,
            answers: Answers::new(own_key),
            doctor: Doctor::default(),
            transmits: VecDeque::new(),
            rule,
        }
    }

    /// Sets the addresses of this host's interfaces, with the port of the UDP socket.
    pub(super) fn set_local(&mut self, addresses: &[LocalAddress]) {
        let endpoints = addresses.iter().map(|address| address.endpoint);
        let before = std::mem::replace(&mut self.local, endpoints.map(stun::canonical).collect());
        if self.local != before {
            let discoveries = self.discoveries.iter_mut();
            discoveries.for_each(Discovery::on_network_change);
        }
    }

    /// Sets the addresses of the rendezvous server: that of the control connection, and one of the other
    /// address family if it has any.
    pub(super) fn set_server(&mut self, connected: SocketAddr, other: Option<SocketAddr>) {
        let servers = [Some(connected), other].into_iter().flatten();
        let discoveries = servers.map(stun::canonical).map(|server| {
            let mut before = self.discoveries.iter();
            let before = before.find(|known| known.server().is_ipv4() == server.is_ipv4());
            Discovery::new(server, before)
        });
        self.discoveries = discoveries.collect();
    }

    /// The server's address that the control connection leads to.
    pub(super) fn server(&self) -> Option<SocketAddr> {
        self.discoveries.first().map(Discovery::server)
    }

    /// A session began: starts to discover the server-reflexive addresses.
    pub(super) fn on_online(&mut self, now: Instant) {
        self.doctor.on_online(now);
        self.announced = None;
        self.announce_by = Some(now + ANNOUNCE_WAIT_MAX);
        for discovery in &mut self.discoveries {
            self.transmits
                .push_back(discovery.start(&mut self.rng, now));
        }
        self.mapping.on_online(self.server(), now);
    }

    /// The session ended: stops the discovery.
    pub(super) fn on_offline(&mut self) {
        self.doctor.on_offline();
        self.discoveries.iter_mut().for_each(Discovery::stop);
        self.mapping.on_offline();
        self.announce_by = None;
    }

    /// The candidates to announce, at most [`CANDIDATES_MAX`], the server-reflexive ones first, and then the one that
    /// the gateway forwards. Loopback addresses are included only if the server is on this host, too. None where
    /// nobody is to know any.
    pub(super) fn candidates(&self) -> Vec<SocketAddr> {
        if self.rule == PathRule::Relayed {
            return Vec::new();
        }
        let is_local = self
            .server()
            .is_some_and(|server| server.ip().is_loopback());
        let local = self
            .local
            .iter()
            .filter(|address| is_local || !address.ip().is_loopback());
        let seen = self
            .reflexive()
            .filter(|address| !self.local.contains(address));
        let mapped = self.mapped().filter(|mapped| {
            !self.local.contains(mapped) && !self.reflexive().any(|seen| seen == *mapped)
        });
        let outside = seen.chain(mapped).chain(self.forwarded());
        outside.chain(local.copied()).take(CANDIDATES_MAX).collect()
    }

    /// Where the router may forward the port that a person has chosen, if the server sees this device at another one.
    /// It is a guess, which others check before they dial.
    fn forwarded(&self) -> Option<SocketAddr> {
        let local = self.local.iter().find(|local| local.is_ipv4())?;
        let seen = self.reflexive().find(|seen| seen.is_ipv4())?;
        let guess = SocketAddr::new(seen.ip(), local.port());
        let is_news = guess != seen && !self.local.contains(&guess) && self.mapped() != Some(guess);
        (self.is_port_chosen && is_news).then_some(guess)
    }

    /// All endpoints of this device, announced or not.
    pub(super) fn own_addresses(&self) -> impl Iterator<Item = SocketAddr> {
        let outside = self.reflexive().chain(self.mapping.external());
        let outside = outside.chain(self.forwarded());
        self.local.iter().copied().chain(outside)
    }

    /// What the shell is to have the gateway do.
    pub(super) const fn take_mapping_order(&mut self) -> Option<PortMappingOrder> {
        self.mapping.take_order()
    }

    /// What came of that.
    pub(super) fn on_port_mapping(
        &mut self,
        found: Result<PortMapping, NoPortMapping>,
        now: Instant,
    ) {
        self.mapping.on_result(found, now);
    }

    /// Whether the gateway forwards a port, and whether that is any good.
    pub(super) fn port_mapping(&self, now: Instant) -> PortMappingState {
        self.mapping.state(self.mapped().is_some(), now)
    }

    /// Tells whether the candidates have changed since the last announcement and are due to be announced.
    pub(super) fn needs_announcing(&self) -> bool {
        self.announce_by.is_none() && self.announced.as_ref() != Some(&self.candidates())
    }

    /// Returns the candidates to announce, and records them as announced.
    pub(super) fn take_announcement(&mut self) -> Vec<SocketAddr> {
        let candidates = self.candidates();
        self.announced = Some(candidates.clone());
        candidates
    }

    /// Handles a STUN datagram: a check of this device, which is answered, or the server's answer. Returns
    /// whether it is the latter, after which there may be something to announce.
    pub(super) fn handle_stun(&mut self, datagrams: &Datagrams, now: Instant) -> bool {
        let source = stun::canonical(datagrams.source);
        match self.answers.answer(&datagrams.bytes, source, now) {
            // Who may know no address of this device gets no answer at one.
            Some(_) if self.rule == PathRule::Relayed => false,
            Some(answer) => {
                let transmit = Transmit {
                    // The answer proves only the address that it comes from.
                    source: datagrams.local,
                    ..Transmit::single(source, answer.len())
                };
                self.transmits.push_back((transmit, answer));
                false
            }
            None => self.on_server_answer(source, &datagrams.bytes, now),
        }
    }

    fn on_server_answer(&mut self, source: SocketAddr, datagram: &[u8], now: Instant) -> bool {
        let mut discoveries = self.discoveries.iter_mut();
        let answered = discoveries.position(|each| each.on_answer(source, datagram, now));
        if answered == Some(0) {
            self.announce_by = None;
        }
        if answered.is_none() {
            let rng = &mut self.rng;
            self.doctor.on_answer(source, datagram, rng, now);
        }
        answered.is_some()
    }

    /// Sends the STUN requests that are due. Returns whether the first announcement has waited long enough
    /// for an answer, or the gateway is to be asked for a port.
    pub(super) fn handle_timeout(&mut self, now: Instant) -> bool {
        for discovery in &mut self.discoveries {
            self.transmits
                .extend(discovery.handle_timeout(&mut self.rng, now));
        }
        let examination = self.doctor.handle_timeout(&mut self.rng, now);
        self.transmits.extend(examination);
        let is_mapping_due = self.mapping.handle_timeout(now);
        self.announce_by.take_if(|by| *by <= now).is_some() || is_mapping_due
    }

    /// The first announcement waits no longer. Returns whether it did.
    pub(super) fn stop_waiting(&mut self) -> bool {
        self.announce_by.take().is_some()
    }

    /// Finds out whether the server still answers: something on the way to others may have changed.
    pub(super) fn check_server(&mut self, now: Instant) {
        for discovery in &mut self.discoveries {
            self.transmits.extend(discovery.hurry(&mut self.rng, now));
        }
    }

    /// Tells once that the address of the control connection does not answer over UDP any more.
    pub(super) fn take_udp_lost(&mut self) -> bool {
        self.discoveries
            .first_mut()
            .is_some_and(Discovery::take_lost)
    }

    /// Examines the way to these addresses of the server, and how the devices of an account are reached.
    pub(super) fn examine(
        &mut self,
        servers: &[SocketAddr],
        account: Option<AccountName>,
        now: Instant,
    ) {
        self.mapping.hurry(now);
        self.doctor.examine(servers, account, &mut self.rng, now);
        let questions = self.doctor.handle_timeout(&mut self.rng, now);
        self.transmits.extend(questions);
    }

    /// What came of the last examination so far.
    pub(super) fn examination(&self, now: Instant) -> ExaminationView {
        let local = self.local.iter().copied().collect();
        ExaminationView {
            is_port_chosen: self.is_port_chosen,
            ..self.doctor.view(local, self.port_mapping(now), now)
        }
    }

    /// An account that is to be linked, to see how its devices are reached.
    pub(super) fn sought(&self) -> Option<&AccountName> {
        self.doctor.sought()
    }

    /// Takes note of what happened to a link, or a dial.
    pub(super) fn on_link(&mut self, change: &LinkChange) {
        self.doctor.on_link(change);
    }

    /// When [`Paths::handle_timeout`] is due, if ever.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let probes = self.discoveries.iter().filter_map(Discovery::poll_timeout);
        let others = [self.mapping.poll_timeout(), self.doctor.poll_timeout()];
        let others = others.into_iter().flatten().chain(self.announce_by);
        probes.chain(others).min()
    }

    /// Appends the next datagram to send to `buffer`.
    pub(super) fn poll_transmit(&mut self, buffer: &mut Vec<u8>) -> Option<Transmit> {
        let (transmit, bytes) = self.transmits.pop_front()?;
        buffer.extend_from_slice(&bytes);
        Some(transmit)
    }

    /// The endpoint that the gateway forwards, if others can be sent there.
    fn mapped(&self) -> Option<SocketAddr> {
        let seen = self.reflexive().map(|seen| seen.ip());
        let is_own = |ip: &IpAddr| self.local.iter().any(|local| local.ip() == *ip);
        self.mapping.candidate(seen.filter(|ip| !is_own(ip)))
    }

    fn reflexive(&self) -> impl Iterator<Item = SocketAddr> {
        self.discoveries.iter().filter_map(Discovery::reflexive)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use bytes::BytesMut;
    use common::key::DeviceSecret;
    use rand::SeedableRng;

    fn local(endpoint: &str) -> LocalAddress {
        endpoint.parse::<SocketAddr>().unwrap().into()
    }

    fn server() -> SocketAddr {
        "198.51.100.1:7400".parse().unwrap()
    }

    fn online() -> (Paths, Instant) {
        online_under(PathRule::Any)
    }

    #[expect(clippy::disallowed_methods, reason = "any instant will do as a start")]
    fn online_under(rule: PathRule) -> (Paths, Instant) {
        let now = Instant::now();
        let own_key = DeviceSecret::from_seed([1; 32]).public();
        let mut paths = Paths::new(StdRng::from_seed([1; 32]), own_key, rule, [true, false]);
        paths.set_local(&["127.0.0.1:5000", "192.0.2.1:5000"].map(local));
        paths.set_server(server(), None);
        paths.on_online(now);
        (paths, now)
    }

    fn answer(paths: &mut Paths, seen: &str, from: SocketAddr, now: Instant) -> bool {
        let mut request = Vec::new();
        paths.poll_transmit(&mut request).unwrap();
        let bytes = stun::binding_answer(&request, seen.parse().unwrap()).unwrap();
        let bytes = BytesMut::from(bytes.as_slice());
        let stride = bytes.len();
        paths.handle_stun(
            &Datagrams {
                source: from,
                local: None,
                ecn: None,
                stride,
                bytes,
            },
            now,
        )
    }

    #[test]
    fn the_address_that_the_server_sees_is_announced_first() {
        let (mut paths, now) = online();
        assert!(answer(&mut paths, "203.0.113.9:6000", server(), now));
        let announced = paths.take_announcement();
        assert_eq!(announced[0], "203.0.113.9:6000".parse().unwrap());
        assert_eq!(
            announced.len(),
            2,
            "loopback is of no use to others: {announced:?}"
        );
        assert!(!paths.needs_announcing());
    }

    #[test]
    fn whoever_hides_its_addresses_announces_none_and_answers_no_check() {
        for (rule, is_hidden) in [(PathRule::Relayed, true), (PathRule::Any, false)] {
            let (mut paths, now) = online_under(rule);
            assert!(answer(&mut paths, "203.0.113.9:6000", server(), now));
            assert_eq!(paths.take_announcement().is_empty(), is_hidden, "{rule:?}");
            let check = BytesMut::from(stun::binding_request(7).as_slice());
            let datagrams = Datagrams {
                source: "203.0.113.77:5000".parse().unwrap(),
                local: None,
                ecn: None,
                stride: check.len(),
                bytes: check,
            };
            assert!(!paths.handle_stun(&datagrams, now));
            let answered = paths.poll_transmit(&mut Vec::new());
            assert_eq!(answered.is_none(), is_hidden, "{rule:?}");
        }
    }

    #[test]
    fn a_mapped_endpoint_is_announced_behind_what_the_server_sees_unless_addresses_are_hidden() {
        for (rule, is_hidden) in [(PathRule::Relayed, true), (PathRule::Any, false)] {
            let (mut paths, now) = online_under(rule);
            assert!(answer(&mut paths, "203.0.113.9:6000", server(), now));
            paths.take_announcement();
            while let Some(due) = paths.mapping.poll_timeout() {
                assert!(paths.handle_timeout(due));
            }
            assert_eq!(paths.take_mapping_order().is_none(), is_hidden);
            let external: std::net::SocketAddrV4 = "203.0.113.9:40000".parse().unwrap();
            let mapping = PortMapping {
                protocol: crate::port_mapping::MappingProtocol::NatPmp,
                external,
                gateway: [192, 0, 2, 254].into(),
            };
            paths.on_port_mapping(Ok(mapping), now);
            assert_eq!(paths.needs_announcing(), !is_hidden);
            let announced = paths.take_announcement();
            assert_eq!(
                announced.get(1) == Some(&external.into()),
                !is_hidden,
                "{rule:?}"
            );
            assert_eq!(announced.is_empty(), is_hidden);
        }
    }

    #[test]
    fn an_examination_has_the_gateway_asked_at_once() {
        let (mut paths, now) = online();
        assert!(!paths.handle_timeout(now));
        paths.examine(&[], None, now);
        assert!(paths.handle_timeout(now));
        assert_eq!(paths.take_mapping_order(), Some(PortMappingOrder::Keep));
    }

    #[test]
    fn the_first_announcement_waits_for_the_server_and_not_for_long() {
        let (mut paths, now) = online();
        assert!(!paths.needs_announcing());
        paths.set_local(&[local("192.0.2.2:5000")]);
        assert!(!paths.needs_announcing(), "still");
        assert!(answer(&mut paths, "203.0.113.9:6000", server(), now));
        assert!(paths.needs_announcing());

        let (mut paths, now) = online();
        let almost = now + ANNOUNCE_WAIT_MAX - Duration::from_millis(1);
        assert!(!paths.handle_timeout(almost));
        assert!(!paths.needs_announcing());
        assert!(paths.poll_timeout().unwrap() <= now + ANNOUNCE_WAIT_MAX);
        assert!(paths.handle_timeout(now + ANNOUNCE_WAIT_MAX));
        assert!(paths.needs_announcing());
        assert_eq!(paths.take_announcement().len(), 1);
        // A late answer is announced at once if the address is new, and not at all otherwise.
        let later = now + ANNOUNCE_WAIT_MAX;
        paths.transmits.pop_front();
        assert!(answer(&mut paths, "203.0.113.9:6000", server(), later));
        assert!(paths.needs_announcing());
        paths.take_announcement();
        assert!(!paths.needs_announcing());
        assert!(!paths.handle_timeout(later + ANNOUNCE_WAIT_MAX / 2));
    }

    #[test]
    fn a_check_is_answered_from_the_address_that_it_came_to() {
        let (mut paths, now) = online();
        paths.transmits.clear();
        let own_key = DeviceSecret::from_seed([1; 32]).public();
        let request = stun::binding_request(9);
        let source = "203.0.113.5:4000".parse().unwrap();
        let local = "192.0.2.1".parse().ok();
        let datagrams = Datagrams {
            source,
            local,
            ecn: None,
            stride: request.len(),
            bytes: BytesMut::from(request.as_slice()),
        };
        assert!(!paths.handle_stun(&datagrams, now), "nothing to announce");
        let mut buffer = Vec::new();
        let transmit = paths.poll_transmit(&mut buffer).unwrap();
        assert_eq!((transmit.destination, transmit.source), (source, local));
        assert!(stun::is_check_answer(&buffer, 9, &own_key));
        assert_eq!(transmit.size, buffer.len());
        assert!(paths.poll_transmit(&mut buffer).is_none());
    }

    #[test]
    fn a_port_of_the_owners_choice_is_announced_at_the_address_that_the_server_sees() {
        for (is_chosen, seen, guessed) in [
            (true, "203.0.113.9:6000", Some("203.0.113.9:5000")),
            (true, "203.0.113.9:5000", None),
            (false, "203.0.113.9:6000", None),
        ] {
            let (mut paths, now) = online();
            paths.is_port_chosen = is_chosen;
            assert!(answer(&mut paths, seen, server(), now));
            let local = "192.0.2.1:5000";
            let expected = [Some(seen), guessed, Some(local)].into_iter().flatten();
            let expected: Vec<SocketAddr> = expected.map(|it| it.parse().unwrap()).collect();
            assert_eq!(paths.take_announcement(), expected);
        }
    }

    #[test]
    fn answers_from_elsewhere_teach_nothing() {
        let (mut paths, now) = online();
        assert!(!answer(
            &mut paths,
            "203.0.113.9:6000",
            "203.0.113.1:7400".parse().unwrap(),
            now
        ));
    }

    #[test]
    fn each_address_family_has_its_own_address() {
        let (mut paths, now) = online();
        let other: SocketAddr = "[2001:db8:1::1]:7400".parse().unwrap();
        paths.set_server(server(), Some(other));
        paths.transmits.clear();
        paths.on_online(now);
        let asked = paths.transmits.iter();
        let asked: Vec<_> = asked.map(|(transmit, _)| transmit.destination).collect();
        assert_eq!(asked, [server(), other]);
        paths.transmits.swap(0, 1);
        assert!(answer(&mut paths, "[2001:db8:2::9]:5000", other, now));
        assert!(
            !paths.needs_announcing(),
            "the one of the control connection is still awaited"
        );
        assert!(answer(&mut paths, "203.0.113.9:6000", server(), now));
        assert!(paths.needs_announcing());
        let seen = ["203.0.113.9:6000", "[2001:db8:2::9]:5000"].map(|text| text.parse().unwrap());
        assert_eq!(paths.take_announcement()[..2], seen);
        // The next session begins with what is known, if the server has that family still.
        paths.set_server(other, None);
        assert_eq!(paths.candidates()[0], seen[1]);
        assert!(!paths.candidates().contains(&seen[0]));
    }

    #[test]
    fn an_address_in_the_other_family_that_comes_late_is_announced_too() {
        let (mut paths, now) = online();
        let other: SocketAddr = "[2001:db8:1::1]:7400".parse().unwrap();
        paths.set_server(server(), Some(other));
        paths.transmits.clear();
        paths.on_online(now);
        assert!(answer(&mut paths, "203.0.113.9:6000", server(), now));
        paths.take_announcement();
        assert!(answer(&mut paths, "[2001:db8:2::9]:5000", other, now));
        assert!(paths.needs_announcing());
    }
}
