//! What `doctor` concludes from what it found, without any I/O: its verdict, what would help, and what is in the way
//! of a direct path to a device.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use serde::Serialize;

use super::is_outdated;
use crate::node::PathRule;
use crate::node::command::{Dependence, ExaminationView, FamilyView, UdpState, Way};
use crate::port_mapping::{NoPortMapping, PortMappingState};

/// What this device knows of itself.
#[derive(Clone, Copy, Debug)]
pub(super) struct Facts<'a> {
    /// What the node's examination found.
    pub(super) examination: &'a ExaminationView,
    /// Which ways packets may take.
    pub(super) rule: PathRule,
    /// A server is there over TCP, and has shown its key.
    pub(super) has_tcp: bool,
    /// The server is not the trusted one, or has not let this device in.
    pub(super) is_shut_out: bool,
}

/// With whose devices direct links will work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Verdict {
    /// With most: only where the other side lets no UDP out, or has no address of this family, is there none.
    Most,
    /// With devices that are not behind a symmetric NAT.
    UnlessSymmetric,
    /// Only with devices whose router lets anybody in: this one is behind a symmetric NAT.
    Hardly,
    /// With none, since no UDP gets out.
    NoUdp,
    /// With none, since the path rule forbids it.
    Forbidden,
    /// With nobody new: there is no session with the server.
    NoSession,
    /// It could not be found out.
    NotKnown,
}

/// Whether several customers of a carrier share one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum CarrierNat {
    /// An address that only such networks have (RFC 6598) was seen.
    Yes,
    /// The router's address outside is not the one that the server sees: there is another NAT, the carrier's or
    /// that of a second router.
    Second,
    /// This device has a public address of its own, or the home's router has.
    No,
    /// The router of the home hides it, if there is one.
    NotKnown,
}

/// IPv6 on this device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Ipv6 {
    /// It has a global address.
    pub(super) is_present: bool,
    /// The server was reached with it; `None` where the server has no such address, or that was not tried.
    pub(super) works: Option<bool>,
}

/// Something that a person can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Advice {
    /// Let TCP through to the server, which answers over UDP.
    AllowTcp,
    /// See whether the server runs, and is where the profile has it.
    CheckServer,
    /// Have the router drop what comes from outside and nobody asked for.
    DropUnasked,
    /// Let the router be asked for a port.
    PermitPortMapping,
    /// Turn on in the router what it can be asked by.
    TurnOnUpnp,
    /// Forward this device's UDP port in the router.
    ForwardPort,
    /// Open this device's UDP port in the firewall.
    OpenFirewall,
    /// Have IPv6 at home: it needs no NAT.
    UseIpv6,
    /// Let UDP out, in the firewall or by another network.
    AllowUdp,
    /// Use the program without its path rule.
    LiftRule,
    /// The server's operator opens the second UDP port, or upgrades the server: then a NAT can be told.
    OpenSecondPort,
}

/// What is in the way of a direct path to a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Obstacle {
    /// The path rule of this device.
    OwnRule,
    /// The other device announces no address.
    HidesAddresses,
    /// It is on the same local network, by its addresses.
    Neighbour,
    /// No UDP gets out here.
    OwnUdpBlocked,
    /// The other device announces addresses of its local network alone: the server does not see its UDP packets.
    TheirUdpBlocked,
    /// The two have no address family in common.
    NoCommonFamily,
    /// This device is behind a symmetric NAT, and the other one lets in only whom it has sent to, or is behind
    /// another one.
    OwnSymmetric,
    /// This device lets in only whom it has sent to, and the other one is probably behind a symmetric NAT. Of the
    /// other side that is not known.
    TheirsPerhapsSymmetric,
    /// It is not known.
    NotKnown,
}

/// Why no relay leads to a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum NoRelay {
    /// The path rule of this device forbids it.
    OwnRule,
    /// The server has none.
    Server,
}

/// What came of looking for a way to a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Attempt {
    /// There was no reason to look, or another device of the account is linked.
    None,
    /// None was found.
    Failed,
    /// The device is linked, and its packets go this way.
    Linked(Way),
}

/// What came of an address that a device announces.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Outcome {
    /// The link's packets go there.
    InUse,
    /// This device has no address of that family, or it leads nowhere.
    NoSuchFamily,
    /// It is one of a local network that this device is not on.
    OtherNetwork,
    /// It leads to the host that announces it, from there alone.
    Loopback,
    /// It was tried, and no packet came through.
    NoAnswer,
    /// It may work, and is not needed: packets go another direct way.
    NotNeeded,
    /// There is no link for which it would have been tried.
    NotTried,
}

impl Facts<'_> {
    /// With whose devices direct links will work, and by which family that is.
    pub(super) fn verdict(&self) -> (Verdict, Option<&FamilyView>) {
        if self.rule == PathRule::Relayed {
            return (Verdict::Forbidden, None);
        }
        if self.is_shut_out {
            return (Verdict::NoSession, None);
        }
        let families = self.examination.families.iter();
        if self.has_tcp && self.is_without_udp() {
            return (Verdict::NoUdp, None);
        }
        let mut v4 = self.examination.families.iter();
        let v4 = v4.find(|family| family.server.is_ipv4() && family.udp == UdpState::Answers);
        if let (Some(v4), Some(true)) = (v4, self.is_mapping_announced()) {
            return (Verdict::Most, Some(v4));
        }
        let known = families.filter_map(|family| Some((verdict_of(family)?, family)));
        let best = known.min_by_key(|(verdict, _)| *verdict as u8);
        best.map_or((Verdict::NotKnown, None), |(verdict, family)| {
            (verdict, Some(family))
        })
    }

    /// Some address of the server answers over UDP.
    pub(super) fn has_udp(&self) -> bool {
        let mut families = self.examination.families.iter();
        families.any(|family| family.udp == UdpState::Answers)
    }

    /// No address of the server answers over UDP, and at least one was asked.
    pub(super) fn is_without_udp(&self) -> bool {
        let families = &self.examination.families;
        let is_silent = |family: &FamilyView| family.udp == UdpState::Silent;
        !families.is_empty() && families.iter().all(is_silent)
    }

    /// Whether several customers of a carrier share this device's address.
    pub(super) fn carrier_nat(&self) -> CarrierNat {
        let is_shared = |address: SocketAddr| match address.ip() {
            IpAddr::V4(ip) => is_shared(ip),
            IpAddr::V6(_) => false,
        };
        let examination = self.examination;
        let v4 = examination.families.iter().find(|it| it.server.is_ipv4());
        let local = examination.local.iter();
        let mut local = local
            .filter(|it| it.is_ipv4() && !it.ip().is_loopback())
            .peekable();
        // Some private networks have such addresses beside that of the home.
        let is_inside = local.peek().is_some() && local.all(|it| is_shared(*it));
        let seen = v4.and_then(|family| family.reflexive);
        if is_inside || seen.is_some_and(is_shared) {
            return CarrierNat::Yes;
        }
        match self.is_mapping_announced() {
            Some(false) if seen.is_some() => return CarrierNat::Second,
            Some(true) if seen.is_some() => return CarrierNat::No,
            Some(_) | None => {}
        }
        if v4.and_then(|family| family.is_behind_nat) == Some(false) {
            CarrierNat::No
        } else {
            CarrierNat::NotKnown
        }
    }

    /// Whether others are told of the port that the router forwards, if it does.
    pub(super) fn is_mapping_announced(&self) -> Option<bool> {
        match &self.examination.port_mapping {
            state if is_outdated(state) => None,
            PortMappingState::Mapped { is_announced, .. } => Some(*is_announced),
            PortMappingState::Unmapped { .. } => None,
        }
    }

    /// What would have the router forward a port by itself.
    const fn towards_mapping(&self) -> Option<Advice> {
        let PortMappingState::Unmapped { reason } = self.examination.port_mapping else {
            return None;
        };
        match reason {
            NoPortMapping::SwitchedOff => Some(Advice::PermitPortMapping),
            NoPortMapping::NoAnswer | NoPortMapping::Refused => Some(Advice::TurnOnUpnp),
            NoPortMapping::Hidden
            | NoPortMapping::LocalServer
            | NoPortMapping::NotYetWanted
            | NoPortMapping::NoGateway
            | NoPortMapping::Asking
            | NoPortMapping::Implausible => None,
        }
    }

    /// Whether there is IPv6, and whether it works.
    pub(super) fn ipv6(&self) -> Ipv6 {
        let mut local = self.examination.local.iter();
        let mut families = self.examination.families.iter();
        let family = families.find(|family| family.server.is_ipv6());
        Ipv6 {
            is_present: local.any(|address| is_global_v6(address.ip())),
            // Loopback and the addresses of one network say nothing of the internet.
            works: family
                .filter(|family| is_global_v6(family.server.ip()))
                .and_then(|family| match family.udp {
                    UdpState::Answers => Some(true),
                    UdpState::Silent => Some(false),
                    UdpState::Asked => None,
                }),
        }
    }

    /// What would help, the best first.
    pub(super) fn advice(&self) -> Vec<Advice> {
        let (verdict, family) = self.verdict();
        let is_behind_nat = family.and_then(|family| family.is_behind_nat) == Some(true);
        let opens = if is_behind_nat {
            Advice::ForwardPort
        } else {
            Advice::OpenFirewall
        };
        let mut advice = Vec::new();
        match verdict {
            Verdict::Most => {}
            Verdict::UnlessSymmetric => advice.push(opens),
            Verdict::Hardly => {
                if family.is_some_and(may_take_unasked) {
                    advice.push(Advice::DropUnasked);
                }
                advice.extend([Advice::ForwardPort, Advice::UseIpv6]);
            }
            Verdict::NoSession if self.has_tcp => {}
            Verdict::NoSession if self.has_udp() => advice.push(Advice::AllowTcp),
            Verdict::NoSession => advice.push(Advice::CheckServer),
            Verdict::NoUdp => advice.push(Advice::AllowUdp),
            Verdict::Forbidden => advice.push(Advice::LiftRule),
            Verdict::NotKnown => {
                if self.has_udp() {
                    advice.push(Advice::OpenSecondPort);
                } else if !self.has_tcp {
                    advice.push(Advice::CheckServer);
                }
            }
        }
        if matches!(self.carrier_nat(), CarrierNat::Yes | CarrierNat::Second) {
            // The home's router has no port of the carrier's address to forward.
            advice.retain(|it| *it != Advice::ForwardPort);
        }
        if advice.contains(&Advice::ForwardPort) {
            advice.splice(0..0, self.towards_mapping());
        }
        let wants_ipv6 = matches!(verdict, Verdict::UnlessSymmetric | Verdict::Hardly);
        if wants_ipv6 && !self.ipv6().is_present && !advice.contains(&Advice::UseIpv6) {
            advice.push(Advice::UseIpv6);
        }
        if self.ipv6().is_present && self.ipv6().works == Some(true) {
            advice.retain(|it| *it != Advice::UseIpv6);
        }
        advice
    }

    /// What is in the way of a direct path to a device that announces these addresses.
    pub(super) fn obstacle(&self, endpoints: &[SocketAddr]) -> Obstacle {
        if self.rule == PathRule::Relayed {
            return Obstacle::OwnRule;
        }
        if endpoints.is_empty() {
            return Obstacle::HidesAddresses;
        }
        if self.has_neighbour(endpoints) {
            return Obstacle::Neighbour;
        }
        if self.is_without_udp() {
            return Obstacle::OwnUdpBlocked;
        }
        let public: Vec<_> = endpoints.iter().filter(|it| is_public(it.ip())).collect();
        if public.is_empty() && !endpoints.iter().all(|it| it.ip().is_loopback()) {
            return Obstacle::TheirUdpBlocked;
        }
        let families = self.examination.families.iter();
        let mut common = families
            .filter(|family| family.udp == UdpState::Answers)
            .filter(|family| {
                let mut public = public.iter();
                public.any(|it| it.is_ipv4() == family.server.is_ipv4())
            })
            .peekable();
        if common.peek().is_none() {
            return Obstacle::NoCommonFamily;
        }
        if self.is_mapping_announced() == Some(true) && public.iter().any(|it| it.is_ipv4()) {
            // Whoever gets UDP out gets it here.
            return Obstacle::NotKnown;
        }
        match common.filter_map(verdict_of).min_by_key(|it| *it as u8) {
            Some(Verdict::Hardly) => Obstacle::OwnSymmetric,
            Some(Verdict::UnlessSymmetric) => Obstacle::TheirsPerhapsSymmetric,
            Some(
                Verdict::Most
                | Verdict::NoUdp
                | Verdict::Forbidden
                | Verdict::NoSession
                | Verdict::NotKnown,
            )
            | None => Obstacle::NotKnown,
        }
    }

    /// What is in the way of a direct path to a device that announces these addresses and is not linked. Where there
    /// is a relay only what is certain: that was to lead to it.
    pub(super) fn obstacle_without_link(&self, endpoints: &[SocketAddr]) -> Option<Obstacle> {
        let obstacle = self.obstacle(endpoints);
        let is_certain = match obstacle {
            Obstacle::OwnUdpBlocked | Obstacle::TheirUdpBlocked | Obstacle::NoCommonFamily => true,
            Obstacle::OwnRule
            | Obstacle::HidesAddresses
            | Obstacle::Neighbour
            | Obstacle::OwnSymmetric
            | Obstacle::TheirsPerhapsSymmetric
            | Obstacle::NotKnown => false,
        };
        (is_certain || self.needs_direct()).then_some(obstacle)
    }

    /// Tells whether no relay leads to anybody.
    pub(super) fn needs_direct(&self) -> bool {
        self.no_relay().is_some()
    }

    /// Why no relay leads to anybody; `None` where one does, or where it would have to.
    pub(super) fn no_relay(&self) -> Option<NoRelay> {
        let has_none = self.examination.has_relay == Some(false);
        match self.rule {
            PathRule::Direct => Some(NoRelay::OwnRule),
            PathRule::Any => has_none.then_some(NoRelay::Server),
            PathRule::Relayed => None,
        }
    }

    /// Tells whether a device with these addresses is on a local network of this one. Many homes have the same
    /// addresses: those who go out by different ones are not neighbours.
    fn has_neighbour(&self, endpoints: &[SocketAddr]) -> bool {
        let near = endpoints.iter().any(|endpoint| self.is_near(endpoint.ip()));
        let public = endpoints
            .iter()
            .filter(|it| is_public(it.ip()) && it.is_ipv4());
        let theirs: BTreeSet<IpAddr> = public.map(SocketAddr::ip).collect();
        let families = self.examination.families.iter();
        let seen = families.filter_map(|family| family.reflexive);
        let seen = seen.map(|seen| seen.ip());
        let ours: BTreeSet<IpAddr> = seen.filter(|ip| ip.is_ipv4() && is_public(*ip)).collect();
        let is_one_way_out = !theirs.is_disjoint(&ours);
        near && (is_one_way_out || theirs.is_empty() && ours.is_empty())
    }

    /// Tells whether an address is probably of a network that this device is on.
    fn is_near(&self, ip: IpAddr) -> bool {
        let local = self.examination.local.iter();
        let mut local = local.filter(|it| !it.ip().is_loopback());
        !ip.is_loopback() && local.any(|own| is_one_network(own.ip(), ip))
    }

    /// What came of an address of a device.
    pub(super) fn outcome(&self, endpoint: SocketAddr, attempt: Attempt) -> Outcome {
        let remote = match attempt {
            Attempt::None => return Outcome::NotTried,
            Attempt::Linked(_) | Attempt::Failed if self.rule == PathRule::Relayed => {
                return Outcome::NotTried;
            }
            Attempt::Linked(Way::Relayed { .. }) | Attempt::Failed => None,
            Attempt::Linked(Way::Direct { remote }) => Some(remote),
        };
        if remote == Some(endpoint) {
            return Outcome::InUse;
        }
        if endpoint.ip().is_loopback() {
            return Outcome::Loopback;
        }
        let local = self.examination.local.iter();
        let mut local = local.filter(|it| !it.ip().is_loopback());
        if !local.any(|it| it.is_ipv4() == endpoint.is_ipv4()) {
            Outcome::NoSuchFamily
        } else if remote.is_some() {
            Outcome::NotNeeded
        } else if is_public(endpoint.ip()) || self.is_near(endpoint.ip()) {
            Outcome::NoAnswer
        } else {
            Outcome::OtherNetwork
        }
    }
}

/// Tells whether two addresses are probably of one network: by the first 24 bits, or 64 of IPv6.
fn is_one_network(one: IpAddr, other: IpAddr) -> bool {
    match (one, other) {
        (IpAddr::V4(one), IpAddr::V4(other)) => one.octets()[..3] == other.octets()[..3],
        (IpAddr::V6(one), IpAddr::V6(other)) => one.octets()[..8] == other.octets()[..8],
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
    }
}

/// Tells whether a NAT that gave the second port another one may have had no choice: the server's answer from
/// there, which nobody had asked for, came first, and a router that takes such packets for itself has the port in
/// use from then on. What the NAT does otherwise, it has shown with the first port.
pub(super) fn may_take_unasked(family: &FamilyView) -> bool {
    family.mapping == Some(Dependence::PortDependent)
        && family.keeps_port == Some(true)
        && family.is_behind_nat == Some(true)
}

/// What one family lets expect; `None` if that is not known. The order is from good to bad.
fn verdict_of(family: &FamilyView) -> Option<Verdict> {
    match (family.mapping?, family.filtering) {
        (Dependence::PortDependent, _) => Some(Verdict::Hardly),
        (Dependence::PortIndependent, Some(Dependence::PortIndependent)) => Some(Verdict::Most),
        (Dependence::PortIndependent, Some(Dependence::PortDependent) | None) => {
            Some(Verdict::UnlessSymmetric)
        }
    }
}

/// 100.64.0.0/10, which carriers have between their NATs and their customers (RFC 6598).
const fn is_shared(ip: Ipv4Addr) -> bool {
    let [a, b, ..] = ip.octets();
    a == 100 && b & 0xc0 == 64
}

/// An address that others than neighbours could send to.
fn is_public(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => {
            let is_local = ip.is_private() || ip.is_link_local() || ip.is_loopback();
            !is_local && !is_shared(ip)
        }
        IpAddr::V6(_) => is_global_v6(ip),
    }
}

/// 2000::/3, of which global addresses are (RFC 4291 section 2.4).
const fn is_global_v6(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(_) => false,
        IpAddr::V6(ip) => ip.octets()[0] >> 5 == 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::command::Carrier;
    use crate::port_mapping::{MappingCheck, MappingProtocol, PortMapping};
    use Dependence::{PortDependent, PortIndependent};

    const HOME: &str = "192.168.1.2:7000";

    fn address(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    fn family(server: &str, seen: &str, behaviour: Option<(Dependence, Dependence)>) -> FamilyView {
        FamilyView {
            server: address(server),
            udp: UdpState::Answers,
            reflexive: Some(address(seen)),
            is_behind_nat: Some(seen != HOME),
            keeps_port: Some(false),
            second_port: behaviour.map(|_| UdpState::Answers),
            mapping: behaviour.map(|(mapping, _)| mapping),
            filtering: behaviour.map(|(_, filtering)| filtering),
            filtering_age_s: None,
        }
    }

    fn v4(behaviour: Option<(Dependence, Dependence)>) -> FamilyView {
        family("198.51.100.1:7400", "203.0.113.1:40000", behaviour)
    }

    fn silent() -> FamilyView {
        FamilyView {
            udp: UdpState::Silent,
            reflexive: None,
            is_behind_nat: None,
            ..v4(None)
        }
    }

    fn at(local: &[&str], families: Vec<FamilyView>) -> ExaminationView {
        ExaminationView {
            is_done: true,
            families,
            local: local.iter().map(|text| address(text)).collect(),
            ..ExaminationView::default()
        }
    }

    fn facts(examination: &ExaminationView) -> Facts<'_> {
        Facts {
            examination,
            rule: PathRule::Any,
            has_tcp: true,
            is_shut_out: false,
        }
    }

    #[test]
    fn each_class_of_nat_has_its_verdict_and_what_helps() {
        let cases = [
            (
                Some((PortIndependent, PortIndependent)),
                Verdict::Most,
                vec![],
            ),
            (
                Some((PortIndependent, PortDependent)),
                Verdict::UnlessSymmetric,
                vec![Advice::ForwardPort, Advice::UseIpv6],
            ),
            (
                Some((PortDependent, PortDependent)),
                Verdict::Hardly,
                vec![Advice::ForwardPort, Advice::UseIpv6],
            ),
            (
                Some((PortDependent, PortIndependent)),
                Verdict::Hardly,
                vec![Advice::ForwardPort, Advice::UseIpv6],
            ),
            (None, Verdict::NotKnown, vec![Advice::OpenSecondPort]),
        ];
        for (behaviour, verdict, advice) in cases {
            let examination = at(&[HOME], vec![v4(behaviour)]);
            let facts = facts(&examination);
            assert_eq!(facts.verdict().0, verdict);
            assert_eq!(facts.advice(), advice, "{verdict:?}");
        }
    }

    #[test]
    fn the_better_family_counts() {
        let v6 = family(
            "[2001:db8::1]:7400",
            "[2001:db8:1::2]:7000",
            Some((PortIndependent, PortDependent)),
        );
        let symmetric = v4(Some((PortDependent, PortDependent)));
        let examination = at(&[HOME, "[2001:db8:1::2]:7000"], vec![symmetric, v6.clone()]);
        let facts = facts(&examination);
        assert_eq!(facts.verdict(), (Verdict::UnlessSymmetric, Some(&v6)));
        assert!(!facts.advice().contains(&Advice::UseIpv6));
        let ipv6 = Ipv6 {
            is_present: true,
            works: Some(true),
        };
        assert_eq!(facts.ipv6(), ipv6);
    }

    #[test]
    fn without_udp_it_depends_on_whether_there_is_a_server_at_all() {
        let examination = at(&[HOME], vec![silent()]);
        let mut facts = facts(&examination);
        assert_eq!(facts.verdict().0, Verdict::NoUdp);
        assert_eq!(facts.advice(), [Advice::AllowUdp]);
        facts.has_tcp = false;
        assert_eq!(facts.verdict().0, Verdict::NotKnown);
        assert_eq!(facts.advice(), [Advice::CheckServer]);
        facts.rule = PathRule::Relayed;
        assert_eq!(facts.verdict().0, Verdict::Forbidden);
        assert_eq!(facts.advice(), [Advice::LiftRule]);
    }

    #[test]
    fn whoever_is_not_let_in_has_no_good_news() {
        let good = at(&[HOME], vec![v4(Some((PortIndependent, PortIndependent)))]);
        let away = at(&[HOME], vec![silent()]);
        for (examination, has_tcp, advice) in [
            (&good, true, vec![]),
            (&good, false, vec![Advice::AllowTcp]),
            (&away, false, vec![Advice::CheckServer]),
        ] {
            let facts = Facts {
                has_tcp,
                is_shut_out: true,
                ..facts(examination)
            };
            assert_eq!(facts.verdict(), (Verdict::NoSession, None));
            assert_eq!(facts.advice(), advice);
        }
    }

    #[test]
    fn a_router_that_takes_unasked_packets_for_itself_is_told_to_drop_them() {
        let mut family = v4(Some((PortDependent, PortDependent)));
        family.keeps_port = Some(true);
        let examination = at(&[HOME], vec![family]);
        let facts = facts(&examination);
        assert_eq!(facts.verdict().0, Verdict::Hardly);
        let advice = [Advice::DropUnasked, Advice::ForwardPort, Advice::UseIpv6];
        assert_eq!(facts.advice(), advice);
    }

    #[test]
    fn a_carriers_nat_is_seen_by_its_addresses_alone() {
        let port_restricted = Some((PortIndependent, PortDependent));
        let seen = |local: &[&str], reflexive: &str| {
            let family = family("198.51.100.1:7400", reflexive, port_restricted);
            let examination = at(local, vec![family]);
            (
                facts(&examination).carrier_nat(),
                facts(&examination).advice(),
            )
        };
        let (carrier, advice) = seen(&["127.0.0.1:7000", "100.64.0.2:7000"], "203.0.113.1:1");
        assert_eq!((carrier, advice), (CarrierNat::Yes, vec![Advice::UseIpv6]));
        assert_eq!(seen(&[HOME], "100.127.255.9:1").0, CarrierNat::Yes);
        assert_eq!(seen(&[HOME], "100.128.0.9:1").0, CarrierNat::NotKnown);
        assert_eq!(
            seen(&[HOME, "100.100.1.2:1"], "203.0.113.1:1").0,
            CarrierNat::NotKnown
        );
        assert_eq!(seen(&[HOME], HOME).0, CarrierNat::No);
    }

    #[test]
    fn a_port_of_the_router_makes_a_symmetric_nat_harmless_unless_there_is_another_one() {
        let symmetric = v4(Some((PortDependent, PortDependent)));
        let mut examination = at(&[HOME], vec![symmetric]);
        let mapping = PortMapping {
            protocol: MappingProtocol::Pcp,
            external: "203.0.113.1:7000".parse().unwrap(),
            gateway: [192, 168, 1, 1].into(),
        };
        let mut found = |port_mapping| {
            examination.port_mapping = port_mapping;
            let facts = facts(&examination);
            (facts.verdict().0, facts.carrier_nat(), facts.advice())
        };
        let said = |is_announced, check| PortMappingState::Mapped {
            mapping,
            is_announced,
            age_s: 500,
            check,
        };
        let mapped = |is_announced| said(is_announced, MappingCheck::Answered);
        let unmapped = |reason| PortMappingState::Unmapped { reason };
        let of_most = (Verdict::Most, CarrierNat::No, vec![]);
        assert_eq!(found(mapped(true)), of_most);
        let (hardly, unknown) = (Verdict::Hardly, CarrierNat::NotKnown);
        let of_second = (hardly, CarrierNat::Second, vec![Advice::UseIpv6]);
        assert_eq!(found(mapped(false)), of_second);
        let forgotten = vec![Advice::ForwardPort, Advice::UseIpv6];
        let of_long_ago = (hardly, unknown, forgotten);
        assert_eq!(found(said(true, MappingCheck::Silent)), of_long_ago);
        let cases = [
            (NoPortMapping::SwitchedOff, Some(Advice::PermitPortMapping)),
            (NoPortMapping::NoAnswer, Some(Advice::TurnOnUpnp)),
            (NoPortMapping::Refused, Some(Advice::TurnOnUpnp)),
            (NoPortMapping::NoGateway, None),
        ];
        for (reason, first) in cases {
            let rest = [Advice::ForwardPort, Advice::UseIpv6];
            let advice = first.into_iter().chain(rest).collect();
            assert_eq!(found(unmapped(reason)), (hardly, unknown, advice));
        }
    }

    #[test]
    fn what_is_in_the_way_is_said_as_far_as_it_is_known() {
        let public = [address("203.0.113.7:7000"), address("192.168.1.9:7000")];
        let private = [address("192.168.1.9:7000"), address("[fd00::1]:7000")];
        let v6 = [address("[2001:db8:1::2]:7000")];
        let port_restricted = v4(Some((PortIndependent, PortDependent)));
        let cases = [
            (
                port_restricted.clone(),
                &public[..],
                Obstacle::TheirsPerhapsSymmetric,
            ),
            (port_restricted.clone(), &[], Obstacle::HidesAddresses),
            (port_restricted.clone(), &private, Obstacle::TheirUdpBlocked),
            (port_restricted, &v6, Obstacle::NoCommonFamily),
            (
                v4(Some((PortDependent, PortDependent))),
                &public,
                Obstacle::OwnSymmetric,
            ),
            (
                v4(Some((PortIndependent, PortIndependent))),
                &public,
                Obstacle::NotKnown,
            ),
            (v4(None), &public, Obstacle::NotKnown),
            (silent(), &public, Obstacle::OwnUdpBlocked),
        ];
        for (family, endpoints, expected) in cases {
            let examination = at(&[HOME], vec![family]);
            assert_eq!(facts(&examination).obstacle(endpoints), expected);
        }
        let examination = at(&[HOME], vec![silent()]);
        let rule = PathRule::Relayed;
        let facts = Facts {
            rule,
            ..facts(&examination)
        };
        assert_eq!(facts.obstacle(&public), Obstacle::OwnRule);
    }

    /// By one way out, or by none.
    #[test]
    fn a_neighbour_is_no_stranger_with_the_same_addresses() {
        let examination = at(&[HOME], vec![v4(Some((PortDependent, PortDependent)))]);
        let facts = facts(&examination);
        for (theirs, is_neighbour) in [
            (&["192.168.1.9:7000"][..], false),
            (&["192.168.1.9:7000", "203.0.113.1:7"], true),
            (&["192.168.1.9:7000", "203.0.113.99:7"], false),
            (&["192.168.2.9:7000"], false),
            (&["[::1]:7000"], false),
        ] {
            let theirs: Vec<SocketAddr> = theirs.iter().map(|it| address(it)).collect();
            let obstacle = facts.obstacle(&theirs);
            assert_eq!(obstacle == Obstacle::Neighbour, is_neighbour, "{theirs:?}");
        }
        let local = family("192.168.1.1:7400", HOME, None);
        let examination = at(&[HOME], vec![local]);
        let theirs = [address("192.168.1.9:7000")];
        let obstacle = self::facts(&examination).obstacle(&theirs);
        assert_eq!(obstacle, Obstacle::Neighbour, "the server is here, too");
    }

    #[test]
    fn what_came_of_an_address_depends_on_the_link() {
        let examination = at(&[HOME], vec![v4(None)]);
        let facts = facts(&examination);
        let [public, private, v6] =
            ["203.0.113.7:7000", "192.168.7.9:7000", "[2001:db8::2]:7000"].map(address);
        let relayed = Attempt::Linked(Way::Relayed {
            over: Carrier::Udp,
            per_s_max: 12_500_000,
        });
        let direct = Attempt::Linked(Way::Direct { remote: public });
        assert_eq!(facts.outcome(public, Attempt::None), Outcome::NotTried);
        assert_eq!(facts.outcome(public, Attempt::Failed), Outcome::NoAnswer);
        assert_eq!(facts.outcome(public, relayed), Outcome::NoAnswer);
        assert_eq!(facts.outcome(private, relayed), Outcome::OtherNetwork);
        let [near, loopback] = ["192.168.1.9:7000", "[::1]:7000"].map(address);
        assert_eq!(facts.outcome(near, relayed), Outcome::NoAnswer);
        assert_eq!(facts.outcome(loopback, relayed), Outcome::Loopback);
        assert_eq!(facts.outcome(v6, relayed), Outcome::NoSuchFamily);
        assert_eq!(facts.outcome(public, direct), Outcome::InUse);
        assert_eq!(facts.outcome(private, direct), Outcome::NotNeeded);
        let rule = PathRule::Relayed;
        let hidden = Facts { rule, ..facts };
        assert_eq!(hidden.outcome(public, relayed), Outcome::NotTried);
    }
}
