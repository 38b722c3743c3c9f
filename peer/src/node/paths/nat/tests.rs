//! The probe against a small model of each class of NAT, and a server with two ports, or one.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use common::stun::{AnsweringPort, TwoPorts, server_answer};
use rand::SeedableRng;

use super::*;
use Dependence::{PortDependent, PortIndependent};

const MAIN: u16 = 7400;
const SECOND: u16 = 7401;

fn server_ip() -> IpAddr {
    "198.51.100.1".parse().unwrap()
}

fn host() -> SocketAddr {
    "192.168.1.2:7000".parse().unwrap()
}

/// A NAT, or only a firewall, with one host behind it, and the server beyond.
struct World {
    rng: StdRng,
    now: Instant,
    /// Without one the server sees the host as it is.
    has_nat: bool,
    /// `None` if no UDP gets out.
    mapping: Option<Dependence>,
    filter: Dependence,
    /// Ports of the server that the host has sent to, and the ports that it is mapped to for them.
    mapped: BTreeMap<u16, u16>,
    /// The server has a second port.
    has_second: bool,
    /// Packets to the second port are lost, whoever sends them, and those from there, too.
    is_second_blocked: bool,
    /// Datagrams that are lost before one arrives, in each direction.
    losses: u32,
    /// Datagrams that the host has sent.
    sent: u32,
}

impl World {
    #[expect(clippy::disallowed_methods, reason = "any instant will do as a start")]
    fn new(mapping: Option<Dependence>, filter: Dependence) -> Self {
        Self {
            rng: StdRng::from_seed([1; 32]),
            now: Instant::now(),
            has_nat: true,
            mapping,
            filter,
            mapped: BTreeMap::new(),
            has_second: true,
            is_second_blocked: false,
            losses: 0,
            sent: 0,
        }
    }

    fn open() -> Self {
        Self {
            has_nat: false,
            ..Self::new(Some(PortIndependent), PortIndependent)
        }
    }

    fn examine(&mut self, remembered: Option<Remembered>) -> (FamilyView, Option<Remembered>) {
        let server = SocketAddr::new(server_ip(), MAIN);
        let mut probe = NatProbe::new(server, remembered, &mut self.rng, self.now);
        let began = self.now;
        while let Some(due) = probe.poll_timeout() {
            self.now = self.now.max(due);
            if let Some((transmit, bytes)) = probe.handle_timeout(&mut self.rng, self.now) {
                self.sent += 1;
                if let Some((source, answer)) = self.carry(transmit.destination, &bytes) {
                    assert!(!probe.on_answer(source, &answer[1..], &mut self.rng, self.now));
                    let third = SocketAddr::new([203, 0, 113, 9].into(), source.port());
                    assert!(!probe.on_answer(third, &answer, &mut self.rng, self.now));
                    assert!(probe.on_answer(source, &answer, &mut self.rng, self.now));
                    assert!(!probe.on_answer(source, &answer, &mut self.rng, self.now));
                }
            }
        }
        assert!(self.now - began <= NAT_PROBE_INTERVAL * (3 * NAT_PROBE_TRIES_MAX));
        let view = probe.view(|seen| seen == host(), self.now);
        (view, probe.remembered())
    }

    /// Carries a datagram of the host to the server, and its answer back, if it gets there.
    fn carry(&mut self, to: SocketAddr, bytes: &[u8]) -> Option<(SocketAddr, Vec<u8>)> {
        assert_eq!(to.ip(), server_ip(), "nothing goes elsewhere");
        let source = self.source(to.port())?;
        if self.losses > 0 {
            self.losses -= 1;
            return None;
        }
        let is_second = to.port() == SECOND;
        if is_second && (self.is_second_blocked || !self.has_second) {
            return None;
        }
        let (asked, other) = if is_second {
            (SECOND, MAIN)
        } else {
            (MAIN, SECOND)
        };
        let ip = server_ip();
        let ports = self.has_second.then_some(TwoPorts { ip, asked, other });
        let answer = server_answer(bytes, source, ports)?;
        let from = match answer.from {
            AnsweringPort::Asked => asked,
            AnsweringPort::Other => other,
        };
        let is_let_in = match self.filter {
            PortIndependent => true,
            PortDependent => self.mapped.contains_key(&from),
        };
        let is_lost = self.is_second_blocked && from == SECOND;
        let bytes = answer.full.unwrap_or(answer.short);
        (is_let_in && !is_lost).then_some((SocketAddr::new(ip, from), bytes))
    }

    /// Where the server sees the host that sends to one of its ports.
    fn source(&mut self, to: u16) -> Option<SocketAddr> {
        let next = 40_000 + u16::try_from(self.mapped.len()).unwrap();
        let port = match self.mapping? {
            PortIndependent => 40_000,
            PortDependent => next,
        };
        let port = *self.mapped.entry(to).or_insert(port);
        Some(if self.has_nat {
            SocketAddr::new([203, 0, 113, 1].into(), port)
        } else {
            host()
        })
    }
}

#[test]
fn each_class_of_nat_is_told_from_the_others() {
    for mapping in [PortIndependent, PortDependent] {
        for filter in [PortIndependent, PortDependent] {
            let (view, _) = World::new(Some(mapping), filter).examine(None);
            assert_eq!(view.udp, UdpState::Answers);
            assert_eq!(view.is_behind_nat, Some(true));
            assert_eq!(view.second_port, Some(UdpState::Answers));
            assert_eq!(view.mapping, Some(mapping));
            assert_eq!(view.filtering, Some(filter));
            assert_eq!(view.filtering_age_s, None);
        }
    }
}

#[test]
fn without_a_nat_there_is_none_though_there_may_be_a_firewall() {
    for filter in [PortIndependent, PortDependent] {
        let mut world = World::open();
        world.filter = filter;
        let (view, _) = world.examine(None);
        assert_eq!(view.is_behind_nat, Some(false));
        assert_eq!(view.reflexive, Some(host()));
        assert_eq!(view.mapping, Some(PortIndependent));
        assert_eq!(view.filtering, Some(filter));
    }
}

#[test]
fn where_no_udp_gets_out_a_few_datagrams_are_all() {
    let mut world = World::new(None, PortDependent);
    let began = world.now;
    let (view, remembered) = world.examine(None);
    assert_eq!(view.udp, UdpState::Silent);
    assert_eq!((view.reflexive, view.is_behind_nat), (None, None));
    assert_eq!((view.mapping, view.filtering), (None, None));
    assert_eq!(remembered, None);
    assert_eq!(world.sent, NAT_PROBE_TRIES_MAX);
    assert_eq!(world.now - began, NAT_PROBE_INTERVAL * NAT_PROBE_TRIES_MAX);
}

#[test]
fn a_server_with_one_port_shows_only_where_it_sees_this_device() {
    let mut world = World::new(Some(PortIndependent), PortDependent);
    world.has_second = false;
    let (view, remembered) = world.examine(None);
    assert_eq!(view.udp, UdpState::Answers);
    assert_eq!(view.is_behind_nat, Some(true));
    assert_eq!(view.second_port, None);
    assert_eq!((view.mapping, view.filtering), (None, None));
    assert_eq!((remembered, world.sent), (None, 1));
}

#[test]
fn silence_of_a_second_port_that_never_answers_is_no_filter() {
    let mut world = World::open();
    world.is_second_blocked = true;
    let (view, remembered) = world.examine(None);
    assert_eq!(view.second_port, Some(UdpState::Silent));
    assert_eq!((view.mapping, view.filtering), (None, None));
    assert_eq!(world.sent, 1 + 2 * NAT_PROBE_TRIES_MAX);
    // The filter may be open for it now: that cannot be found out any more for a while.
    world.is_second_blocked = false;
    let (view, _) = world.examine(remembered);
    assert_eq!(view.mapping, Some(PortIndependent));
    assert_eq!(view.filtering, None);
}

#[test]
fn lost_datagrams_are_sent_again() {
    for losses in 0..NAT_PROBE_TRIES_MAX {
        let mut world = World::new(Some(PortIndependent), PortIndependent);
        world.losses = losses;
        let (view, _) = world.examine(None);
        assert_eq!(view.filtering, Some(PortIndependent), "{losses} lost");
    }
}

#[test]
fn the_filter_is_remembered_as_long_as_asking_has_opened_it() {
    let mut world = World::new(Some(PortIndependent), PortDependent);
    let (_, remembered) = world.examine(None);
    world.now += Duration::from_secs(60);
    let (again, remembered) = world.examine(remembered);
    assert_eq!(again.filtering, Some(PortDependent));
    assert!(
        again.filtering_age_s.is_some_and(|age| age >= 60),
        "{again:?}"
    );
    assert_eq!(again.mapping, Some(PortIndependent));
    // The NAT has forgotten by then.
    world.now += NAT_FILTER_MEMORY;
    world.mapped.clear();
    let (later, remembered) = world.examine(remembered);
    assert_eq!(later.filtering, Some(PortDependent));
    assert_eq!(later.filtering_age_s, None);
    // Another network has another NAT, which has seen nothing.
    world.filter = PortIndependent;
    world.has_nat = false;
    let (moved, _) = world.examine(remembered);
    assert_eq!(moved.filtering, Some(PortIndependent));
    assert_eq!(moved.filtering_age_s, None);
}
