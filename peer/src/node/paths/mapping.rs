//! The mapped endpoint: when the shell is to have the gateway forward a port, and what is made of the result.
//!
//! What a gateway says of its own address outside is a claim. It becomes a candidate
//!
//! - if the server sees this device at the same address, with whatever port: then the gateway is the outermost NAT,
//!   and names nobody else's address;
//! - or, where the server sees no address of IPv4 outside, because it is on this network, has only IPv6 or its UDP
//!   port does not answer, if the address is a public one.
//!
//! Behind a carrier's NAT (RFC 6598) a gateway has an address that nobody outside reaches, and the server sees
//! another one, so that such a mapping is kept but not announced.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use common::limits::{PORT_MAPPING_PATIENCE, PORT_MAPPING_RENEWAL_MIN, PORT_MAPPING_START_WAIT};

use crate::node::command::PathRule;
use crate::node::io::PortMappingOrder;
use crate::port_mapping::{MappingCheck, NoPortMapping, PortMapping, PortMappingState};

/// What is wanted of the gateway, and what came of it.
#[derive(Debug)]
pub(super) struct Mapping {
    /// Why none will ever be wanted.
    forbidden: Option<NoPortMapping>,
    /// When it will be, in a session that has just begun.
    start_at: Option<Instant>,
    /// A person waits for it.
    is_urgent: bool,
    is_wanted: bool,
    order: Option<PortMappingOrder>,
    /// With when the gateway has said so last.
    found: Result<(PortMapping, Instant), NoPortMapping>,
    /// When it was asked whether that still holds, unless it has answered.
    asked: Option<Instant>,
}

impl Mapping {
    /// `is_permitted` says whether the owner permits a mapping.
    pub(super) const fn new(is_permitted: bool, rule: PathRule) -> Self {
        let forbidden = match rule {
            PathRule::Relayed => Some(NoPortMapping::Hidden),
            PathRule::Any | PathRule::Direct if is_permitted => None,
            PathRule::Any | PathRule::Direct => Some(NoPortMapping::SwitchedOff),
        };
        let reason = match forbidden {
            Some(reason) => reason,
            None => NoPortMapping::NotYetWanted,
        };
        Self {
            forbidden,
            start_at: None,
            is_urgent: false,
            is_wanted: false,
            order: None,
            found: Err(reason),
            asked: None,
        }
    }

    /// A session began. One after another may have begun because the gateway did: it is asked again.
    pub(super) fn on_online(&mut self, server: Option<SocketAddr>, now: Instant) {
        if self.forbidden.is_some() {
            return;
        }
        if server.is_none_or(|server| server.ip().is_loopback()) {
            self.order = self.is_wanted.then_some(PortMappingOrder::GiveBack);
            (self.is_wanted, self.start_at) = (false, None);
            self.found = Err(NoPortMapping::LocalServer);
        } else if self.is_wanted {
            self.order = Some(PortMappingOrder::Keep);
        } else {
            let wait = if self.is_urgent {
                Duration::ZERO
            } else {
                PORT_MAPPING_START_WAIT
            };
            self.start_at = Some(now + wait);
        }
    }

    /// From now on none waits for its session to be a while old: a person wants to know what comes of it. Whether the
    /// one that there is still holds is asked, too.
    pub(super) fn hurry(&mut self, now: Instant) {
        self.is_urgent = true;
        if self.is_wanted || self.start_at.is_some() {
            self.start_at = Some(now);
        }
    }

    /// The session ended. What is mapped stays so.
    pub(super) const fn on_offline(&mut self) {
        self.start_at = None;
    }

    /// Returns whether there is an order now.
    pub(super) fn handle_timeout(&mut self, now: Instant) -> bool {
        let is_due = self.start_at.take_if(|at| *at <= now).is_some();
        if is_due {
            self.is_wanted = true;
            self.order = Some(PortMappingOrder::Keep);
            self.doubt(now);
        }
        is_due
    }

    /// What is known counts until the gateway, which is asked, says something else.
    fn doubt(&mut self, now: Instant) {
        match self.found {
            // It would not be asked so soon.
            Ok((_, at)) if now < at + PORT_MAPPING_RENEWAL_MIN => {}
            Ok(_) => self.asked = self.asked.or(Some(now)),
            Err(_) => self.found = Err(NoPortMapping::Asking),
        }
    }

    /// When [`Mapping::handle_timeout`] is due, if ever.
    pub(super) const fn poll_timeout(&self) -> Option<Instant> {
        self.start_at
    }

    /// What the shell is to do.
    pub(super) const fn take_order(&mut self) -> Option<PortMappingOrder> {
        self.order.take()
    }

    /// What came of it. What comes late, of a mapping that is not wanted any more, is forgotten.
    pub(super) fn on_result(&mut self, found: Result<PortMapping, NoPortMapping>, now: Instant) {
        if self.is_wanted {
            self.found = found.map(|mapping| (mapping, now));
            self.asked = None;
        }
    }

    /// The gateway's endpoint outside, as it says.
    pub(super) fn external(&self) -> Option<SocketAddr> {
        self.found.ok().map(|(mapping, _)| mapping.external.into())
    }

    /// The same, if others can be sent there. `outside` are the addresses at which the server sees this device and
    /// that are none of its own.
    pub(super) fn candidate(&self, outside: impl Iterator<Item = IpAddr>) -> Option<SocketAddr> {
        let mut seen = outside.filter(IpAddr::is_ipv4).peekable();
        let external = self.external()?;
        let is_believed = if seen.peek().is_some() {
            seen.any(|ip| ip == external.ip())
        } else {
            is_public(external.ip())
        };
        is_believed.then_some(external)
    }

    /// What people are told of it.
    pub(super) fn state(&self, is_announced: bool, now: Instant) -> PortMappingState {
        match self.found {
            Ok((mapping, at)) => PortMappingState::Mapped {
                mapping,
                is_announced,
                age_s: now.saturating_duration_since(at).as_secs(),
                check: match self.asked {
                    None => MappingCheck::Answered,
                    Some(asked) if now < asked + PORT_MAPPING_PATIENCE => MappingCheck::Asked,
                    Some(_) => MappingCheck::Silent,
                },
            },
            Err(reason) => PortMappingState::Unmapped { reason },
        }
    }
}

/// Tells whether an address can be reached from everywhere: it is neither a home's (RFC 1918) nor a carrier's
/// (RFC 6598) own.
fn is_public(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => {
            let [first, second, ..] = ip.octets();
            let is_carriers = first == 100 && second & 0xc0 == 64;
            !ip.is_private() && !is_carriers
        }
        IpAddr::V6(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::port_mapping::MappingProtocol;

    fn server() -> Option<SocketAddr> {
        "198.51.100.1:7400".parse().ok()
    }

    #[expect(clippy::disallowed_methods, reason = "any instant will do as a start")]
    fn start() -> Instant {
        Instant::now()
    }

    /// One that is wanted.
    fn wanted() -> (Mapping, Instant) {
        let mut mapping = Mapping::new(true, PathRule::Any);
        let now = start();
        mapping.on_online(server(), now);
        let due = mapping.poll_timeout().unwrap();
        assert!(mapping.handle_timeout(due));
        assert_eq!(mapping.take_order(), Some(PortMappingOrder::Keep));
        (mapping, due)
    }

    fn found(external: &str) -> Result<PortMapping, NoPortMapping> {
        Ok(PortMapping {
            protocol: MappingProtocol::Pcp,
            external: external.parse().unwrap(),
            gateway: [192, 168, 1, 1].into(),
        })
    }

    fn why_not(mapping: &Mapping) -> NoPortMapping {
        mapping.found.unwrap_err()
    }

    #[test]
    fn most_commands_end_before_the_gateway_is_asked() {
        let mut mapping = Mapping::new(true, PathRule::Direct);
        let now = start();
        mapping.on_online(server(), now);
        let almost = PORT_MAPPING_START_WAIT - Duration::from_millis(1);
        assert!(!mapping.handle_timeout(now + almost));
        assert_eq!(mapping.take_order(), None);
        mapping.on_offline();
        assert_eq!(mapping.poll_timeout(), None);
        assert_eq!(why_not(&mapping), NoPortMapping::NotYetWanted);
    }

    #[test]
    fn another_session_has_the_gateway_asked_again() {
        let (mut mapping, now) = wanted();
        mapping.on_offline();
        mapping.on_online(server(), now);
        assert_eq!(mapping.take_order(), Some(PortMappingOrder::Keep));
    }

    #[test]
    fn whoever_wants_to_know_has_the_gateway_asked_at_once() {
        let mut mapping = Mapping::new(true, PathRule::Any);
        let now = start();
        mapping.hurry(now);
        assert_eq!(mapping.poll_timeout(), None, "there is no session");
        mapping.on_online(server(), now);
        assert_eq!(mapping.poll_timeout(), Some(now));

        let mut mapping = Mapping::new(true, PathRule::Any);
        mapping.on_online(server(), now);
        mapping.hurry(now);
        assert_eq!(mapping.poll_timeout(), Some(now));

        // The gateway may have forgotten the port since.
        let (mut mapping, now) = wanted();
        mapping.on_result(found("203.0.113.9:40000"), now);
        let later = now + Duration::from_secs(300);
        mapping.hurry(later);
        assert!(mapping.handle_timeout(later));
        assert_eq!(mapping.take_order(), Some(PortMappingOrder::Keep));
        let state = |mapping: &Mapping, at| match mapping.state(true, at) {
            PortMappingState::Mapped { age_s, check, .. } => (age_s, check),
            PortMappingState::Unmapped { reason } => panic!("{reason:?}"),
        };
        assert_eq!(state(&mapping, later), (300, MappingCheck::Asked));
        let silent = later + PORT_MAPPING_PATIENCE;
        assert_eq!(state(&mapping, silent).1, MappingCheck::Silent);
        mapping.on_result(found("203.0.113.9:40000"), later);
        assert_eq!(state(&mapping, later), (0, MappingCheck::Answered));
        // Nobody asks so soon.
        mapping.hurry(later);
        assert!(mapping.handle_timeout(later));
        assert_eq!(state(&mapping, silent).1, MappingCheck::Answered);
        // What it has refused before is not known any more.
        mapping.on_result(Err(NoPortMapping::NoAnswer), later);
        mapping.hurry(later);
        assert!(mapping.handle_timeout(later));
        assert_eq!(why_not(&mapping), NoPortMapping::Asking);
    }

    #[test]
    fn whoever_hides_or_does_not_want_it_or_is_alone_asks_for_nothing() {
        let here = "127.0.0.1:7400".parse().ok();
        for (is_permitted, rule, server, why) in [
            (false, PathRule::Any, server(), NoPortMapping::SwitchedOff),
            (true, PathRule::Relayed, server(), NoPortMapping::Hidden),
            (true, PathRule::Any, here, NoPortMapping::LocalServer),
        ] {
            let mut mapping = Mapping::new(is_permitted, rule);
            mapping.on_online(server, start());
            assert_eq!(mapping.poll_timeout(), None, "{why:?}");
            assert_eq!(mapping.take_order(), None, "{why:?}");
            mapping.on_result(found("203.0.113.9:40000"), start());
            assert_eq!(why_not(&mapping), why);
        }
        // A server that has moved to this host.
        let (mut mapping, now) = wanted();
        mapping.on_result(found("203.0.113.9:40000"), now);
        mapping.on_online(here, now);
        assert_eq!(mapping.take_order(), Some(PortMappingOrder::GiveBack));
        assert_eq!(mapping.external(), None);
    }

    #[test]
    fn t22_a_gateway_names_no_address_but_that_which_the_server_sees() {
        let (mut mapping, now) = wanted();
        mapping.on_result(found("203.0.113.9:40000"), now);
        let external = mapping.external();
        let at = |ips: &[&str]| {
            let ips: Vec<IpAddr> = ips.iter().map(|ip| ip.parse().unwrap()).collect();
            mapping.candidate(ips.into_iter())
        };
        assert_eq!(at(&["203.0.113.9"]), external);
        assert_eq!(at(&["2001:db8::9", "203.0.113.9"]), external);
        assert_eq!(at(&["198.51.100.77"]), None, "a third party's");
        assert_eq!(at(&[]), external, "the server says nothing");
        assert_eq!(at(&["2001:db8::9"]), external);
        // Behind a carrier's NAT, or another home's.
        for behind in ["100.64.0.2:40000", "100.127.1.1:40000", "10.0.0.2:40000"] {
            mapping.on_result(found(behind), now);
            assert!(mapping.external().is_some());
            assert_eq!(mapping.candidate([].into_iter()), None, "{behind}");
        }
    }
}
