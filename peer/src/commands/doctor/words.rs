//! What `doctor` found, in the words of somebody at home.

use std::net::SocketAddr;

use common::text::{self, inline};

use super::findings::{
    Advice, CarrierNat, Facts, Ipv6, NoRelay, Obstacle, Outcome, Verdict, may_take_unasked,
};
use super::server::{Key, Tcp};
use super::{CLOCK_DIFFERENCE_MAX, DeviceReport, LogIn, is_outdated};
use crate::node::PathRule;
use crate::node::command::{Carrier, Dependence, FamilyView, UdpState, Way};
use crate::port_mapping::{NoPortMapping, PortMapping, PortMappingState};
use crate::ui::Look;

/// A TCP connection.
pub(super) fn tcp(tcp: &Tcp, look: &Look) -> String {
    let Tcp {
        address,
        connect_ms,
        error,
    } = tcp;
    match (connect_ms, error) {
        (Some(0), _) => format!("{address} {} at once", look.green("answers")),
        (Some(span), _) => format!("{address} {} after {span} ms", look.green("answers")),
        (None, error) => {
            let error = error.as_deref().unwrap_or("no answer");
            format!("{address} {}: {error}", look.red("does not answer"))
        }
    }
}

/// The server's key.
pub(super) fn key(key: &Key, look: &Look) -> String {
    match key {
        Key::Trusted { .. } => format!("{} that this profile trusts", look.green("the one")),
        Key::Changed {
            expected,
            fingerprint,
        } => look.red(&format!(
            "NOT the one that this profile trusts: expected {expected}, seen {fingerprint}. The server was set up anew, or someone is in between"
        )),
        Key::NotPinned { fingerprint } => {
            format!("{fingerprint}, which this profile does not trust yet")
        }
        Key::Public { .. } => "of a certificate that this system verifies at the log-in".to_owned(),
        Key::Failed { error } => format!("{}: {error}", look.red("none was shown")),
        Key::NotTried => look.dim("not looked at: there is no connection"),
    }
}

/// Whether this device is logged in.
pub(super) fn log_in(state: &LogIn, look: &Look) -> String {
    match state {
        LogIn::LoggedIn { account } => format!("{} as {account}", look.green("logged in")),
        LogIn::NotLoggedIn => {
            look.yellow("this device is not logged in; 'peer login NAME' logs it in")
        }
        LogIn::Failed { reason } => look.red(&inline(reason)),
    }
}

/// How far the clocks are apart, in seconds by which the server's is ahead.
pub(super) fn clock(difference_s: Option<i64>, look: &Look) -> String {
    let Some(difference) = difference_s else {
        return look
            .dim("not known: only a server that this device is logged in to tells the time");
    };
    let span = text::seconds(difference.unsigned_abs());
    let side = if difference > 0 { "behind" } else { "ahead of" };
    if difference.unsigned_abs() > CLOCK_DIFFERENCE_MAX.as_secs() {
        let wrong = format!("{span} {side} the server's");
        return format!("this device's is {}: check both", look.yellow(&wrong));
    }
    if difference == 0 {
        return "the same as the server's".to_owned();
    }
    format!("{span} {side} the server's, which does no harm")
}

/// Whether an address of the server answers over UDP.
pub(super) fn udp(family: &FamilyView, look: &Look) -> String {
    let server = family.server;
    match (family.udp, family.reflexive) {
        (UdpState::Answers, Some(seen)) => {
            format!(
                "{server} {}, and sees this device at {seen}",
                look.green("answers")
            )
        }
        (UdpState::Answers, None) => format!("{server} {}", look.green("answers")),
        (UdpState::Silent, _) => format!("{server} {}", look.red("does not answer")),
        (UdpState::Asked, _) => format!("{server}: {}", look.dim("not known yet")),
    }
}

/// What the router does with this device's address, its NAT; nothing where there is no way to know.
pub(super) fn nat(family: &FamilyView, look: &Look) -> Option<String> {
    let name = name(family);
    let is_behind_nat = family.is_behind_nat?;
    Some(match (is_behind_nat, family.mapping) {
        (false, _) => format!(
            "{name}: {}, this device has the address that others see",
            look.green("none")
        ),
        (true, Some(Dependence::PortIndependent)) => {
            format!("{name}: lends this device one address and port, whoever it talks to")
        }
        (true, Some(Dependence::PortDependent)) if may_take_unasked(family) => format!(
            "{name}: lent this device {} when it asked the server's second port: it does so for everybody (a symmetric NAT), or it takes packets for itself which nobody asked for",
            look.yellow("another port")
        ),
        (true, Some(Dependence::PortDependent)) => format!(
            "{name}: lends this device {} (a symmetric NAT)",
            look.yellow("another port for everybody it talks to")
        ),
        (true, None) => format!(
            "{name}: lends this device its address; whether always with one port is not known"
        ),
    })
}

/// What the filter of a family does.
pub(super) fn filter(family: &FamilyView) -> Option<String> {
    let name = name(family);
    let earlier = family.filtering_age_s.map(|age| {
        let age = text::seconds(age);
        format!(" (looked at {age} ago: asking opens it for some minutes)")
    });
    let earlier = earlier.unwrap_or_default();
    match (family.filtering, family.second_port) {
        (Some(Dependence::PortIndependent), _) => Some(format!(
            "{name}: packets from any port of an address that this device has sent to, perhaps from everywhere{earlier}"
        )),
        (Some(Dependence::PortDependent), _) => Some(format!(
            "{name}: packets from the very address and port that this device has sent to, and no others{earlier}"
        )),
        (None, Some(UdpState::Silent)) => Some(format!(
            "{name}: not known, the server's second UDP port does not answer"
        )),
        (None, Some(UdpState::Answers | UdpState::Asked)) => {
            Some(format!("{name}: not known, it was opened a while ago"))
        }
        (None, None) if family.udp == UdpState::Answers => Some(format!(
            "{name}: not known, the server has no second UDP port"
        )),
        (None, None) => None,
    }
}

/// Whether there is a carrier's NAT.
pub(super) fn carrier(carrier: CarrierNat, look: &Look) -> String {
    match carrier {
        CarrierNat::Yes => format!(
            "{}: its customers share one address, and ports cannot be forwarded",
            look.yellow("behind a NAT of the internet provider")
        ),
        CarrierNat::Second => format!(
            "{}: the internet provider's, or that of a second router",
            look.yellow("there is another NAT behind the router")
        ),
        CarrierNat::No => "no NAT of the internet provider".to_owned(),
        CarrierNat::NotKnown => {
            "not known: only the home's router could tell whether there is another NAT behind it"
                .to_owned()
        }
    }
}

/// Whether there is IPv6.
pub(super) fn ipv6(ipv6: Ipv6, look: &Look) -> String {
    match (ipv6.is_present, ipv6.works) {
        (true, Some(true)) => format!("{}: the server answers over it", look.green("works")),
        (true, Some(false)) => format!(
            "this device has a global address, but {}",
            look.yellow("the server does not answer over it")
        ),
        (true, None) => {
            "this device has a global address; the server has none to try it with".to_owned()
        }
        (false, _) => "this device has no global address".to_owned(),
    }
}

/// What came of asking the router for a port.
pub(super) fn port_mapping(state: &PortMappingState, look: &Look) -> String {
    let reason = match state {
        PortMappingState::Mapped {
            mapping: PortMapping {
                protocol, external, ..
            },
            is_announced,
            age_s,
            check: _,
        } => {
            if is_outdated(state) {
                let said = look.yellow(&format!("{} ago the router said", text::seconds(*age_s)));
                return format!(
                    "{said} that it forwards {external} to this device, by {protocol}; it does not answer any more"
                );
            }
            let forwards = look.green(&format!("the router forwards {external}"));
            let of_no_use = if *is_announced {
                ""
            } else {
                ", but nobody outside reaches that"
            };
            return format!("{forwards} to this device, by {protocol}{of_no_use}");
        }
        PortMappingState::Unmapped { reason } => reason,
    };
    match reason {
        NoPortMapping::SwitchedOff => "the router is not asked: --no-port-mapping",
        NoPortMapping::Hidden => "the router is not asked: this device hides its addresses",
        NoPortMapping::LocalServer => "the router is not asked: the server is on this host",
        NoPortMapping::NotYetWanted => "the router is not asked: this device is not online",
        NoPortMapping::NoGateway => "no router for IPv4 is known on this network",
        NoPortMapping::Asking => "the router has not answered yet",
        NoPortMapping::NoAnswer => {
            "the router does not answer: neither PCP nor NAT-PMP nor UPnP is turned on there"
        }
        NoPortMapping::Refused => "the router refuses to forward a port",
        NoPortMapping::Implausible => "the router names an address outside that cannot be one",
    }
    .to_owned()
}

/// Whether devices of the local network find this one.
pub(super) const fn lan(is_on: bool) -> &'static str {
    if is_on {
        "devices on this network and this one find each other without the server"
    } else {
        "off: devices on this network are found through the server alone"
    }
}

/// Which ways packets go, by the path rule and what there is.
pub(super) fn rule(facts: &Facts<'_>) -> &'static str {
    match facts.rule {
        PathRule::Any if facts.is_shut_out => {
            "directly alone, and only to where there is a link or was one: there is no session with the server"
        }
        PathRule::Any if facts.needs_direct() => "directly alone: this server relays nothing",
        PathRule::Any if facts.is_without_udp() => "through the relay over TCP",
        PathRule::Any => "through the relay first, then directly where that works",
        PathRule::Relayed => "through the relay alone, which hides this device's addresses",
        PathRule::Direct => "directly alone",
    }
}

/// With whom direct links will work.
pub(super) fn verdict(facts: &Facts<'_>, look: &Look) -> String {
    let (verdict, family) = facts.verdict();
    let has_no_relay = facts.examination.has_relay == Some(false);
    let others = match facts.rule {
        PathRule::Any | PathRule::Relayed if has_no_relay => {
            "others cannot be reached, as this server relays nothing"
        }
        PathRule::Any | PathRule::Relayed => "others go through the relay",
        PathRule::Direct => "others cannot be reached, as --path direct forbids the relay",
    };
    let is_v6_alone = family.is_some_and(|family| family.server.is_ipv6());
    let of_family = if is_v6_alone { " that have IPv6" } else { "" };
    match verdict {
        Verdict::Most => {
            let by_port = if facts.is_mapping_announced() == Some(true) {
                ", by the port that the router forwards"
            } else {
                ""
            };
            look.green(&format!(
                "Direct links will work with most devices{of_family}{by_port}; {others}."
            ))
        }
        Verdict::UnlessSymmetric => look.green(&format!(
            "Direct links will work with devices{of_family} unless their router lends another port for each connection (a symmetric NAT); {others}."
        )),
        Verdict::Hardly => {
            let port = facts.examination.local.first().map(SocketAddr::port);
            let unless = match port.filter(|_| facts.examination.is_port_chosen) {
                Some(port) => format!(", unless the router forwards UDP port {port} to this device, which cannot be seen from here"),
                None => String::new(),
            };
            look.yellow(&format!(
                "Direct links will hardly work: only with devices{of_family} whose router lets anybody in{unless}; {others}."
            ))
        }
        Verdict::NoUdp => {
            let everybody = match facts.rule {
                PathRule::Any | PathRule::Relayed if !has_no_relay => "everybody is reached through the relay, over TCP",
                PathRule::Any | PathRule::Relayed => "nobody can be reached, as this server relays nothing",
                PathRule::Direct => "nobody can be reached, as --path direct forbids the relay",
            };
            look.yellow(&format!(
                "There will be no direct links: no UDP gets through to the server, which is reached over TCP; {everybody}."
            ))
        }
        Verdict::Forbidden if has_no_relay => look.red(
            "There will be no links: --path relay sends everything through the relay, and this server relays nothing.",
        ),
        Verdict::Forbidden => {
            "There will be no direct links: --path relay sends everything through the relay.".to_owned()
        }
        Verdict::NoSession => look.red(
            "Nobody new is reached: this device has no session with the server. Direct links that there are live on.",
        ),
        Verdict::NotKnown if !facts.has_udp() => {
            look.red("The server is not reached, so nothing is known of direct links.")
        }
        Verdict::NotKnown => format!(
            "It is not known with whom direct links will work; {others}."
        ),
    }
}

/// What would help. `port` is that of the UDP socket, and `is_chosen` says whether a person has chosen it.
pub(super) fn advice(advice: Advice, port: Option<u16>, is_chosen: bool) -> String {
    let number = port.map_or_else(|| "PORT".to_owned(), |port| port.to_string());
    let keep = if is_chosen {
        String::new()
    } else {
        format!(", and keep it with 'peer --udp {number} chat' or PEER_UDP={number}")
    };
    let port = format!("UDP port {number}");
    match advice {
        Advice::ForwardPort => format!(
            "forward {port} to this device in the router, unless it is already{keep}: then most devices reach it"
        ),
        Advice::AllowTcp => {
            "let TCP to the server's port through, in the firewall here or there: UDP does come through".to_owned()
        }
        Advice::CheckServer => {
            "see whether the server runs, and whether this is still its address and port; its operator knows".to_owned()
        }
        Advice::DropUnasked => {
            "have the router drop what comes from the internet and nobody asked for (its firewall's input)".to_owned()
        }
        Advice::TurnOnUpnp => {
            "turn UPnP, NAT-PMP or PCP on in the router: then this device opens a port by itself"
                .to_owned()
        }
        Advice::PermitPortMapping => {
            "leave out --no-port-mapping, or unset PEER_NO_PORT_MAPPING: the router may open a port then"
                .to_owned()
        }
        Advice::OpenFirewall => format!(
            "open {port} for this device in the firewall{keep}: then most devices reach it"
        ),
        Advice::UseIpv6 => {
            "turn IPv6 on in the router, if the internet provider has it: it needs no NAT".to_owned()
        }
        Advice::AllowUdp => {
            "let UDP out in the firewall of this device or network, or use another network; where that changes nothing, the UDP port of the server may be closed: ask its operator"
                .to_owned()
        }
        Advice::LiftRule => "leave out --path relay, or unset PEER_PATH".to_owned(),
        Advice::OpenSecondPort => {
            "ask the server's operator to upgrade it, or to open its second UDP port: then this can be found out"
                .to_owned()
        }
    }
}

/// A device of somebody, and how it is reached.
pub(super) fn device(report: &DeviceReport, look: &Look) -> Vec<(&'static str, String)> {
    let name = report.device.as_ref().map(|name| inline(name.as_str()));
    let name = name.unwrap_or_else(|| inline(&report.fingerprint));
    let way = match report.way {
        Some(Way::Direct { remote }) => {
            format!("linked {}, {remote}", look.green("directly"))
        }
        Some(Way::Relayed {
            over: Carrier::Udp, ..
        }) => "linked through the relay".to_owned(),
        Some(Way::Relayed {
            over: Carrier::Control,
            ..
        }) => "linked through the relay over TCP".to_owned(),
        None => look.yellow("online, but not linked"),
    };
    let silence = if report.is_silent {
        ", which does not answer"
    } else {
        ""
    };
    let mut rows = vec![("device", format!("{name}: {way}{silence}"))];
    if let Some(reason) = &report.failure {
        rows.push(("", inline(reason).into_owned()));
    }
    if let Some(obstacle) = report.obstacle {
        rows.push(("why", self::obstacle(obstacle).to_owned()));
    }
    if let Some(reason) = report.no_relay {
        let label = if report.obstacle.is_some() { "" } else { "why" };
        rows.push((label, no_relay(reason, report.is_linked).to_owned()));
    }
    let tried = report.candidates.iter();
    let tried = tried.filter(|candidate| candidate.result != Outcome::NotNeeded);
    rows.extend(tried.map(|candidate| {
        let what = outcome(candidate.result);
        ("", format!("{} {what}", candidate.endpoint))
    }));
    rows
}

/// What is in the way of a direct path.
const fn obstacle(obstacle: Obstacle) -> &'static str {
    match obstacle {
        Obstacle::OwnRule => "this device sends everything through the relay: --path relay",
        Obstacle::HidesAddresses => {
            "it announces no address: it hides them, as with --path relay. Only its owner can change that"
        }
        Obstacle::Neighbour => {
            "it seems to be on this very network, and no packet comes through: a firewall on one of the two devices, or a network that keeps its devices apart, as guest networks do"
        }
        Obstacle::OwnUdpBlocked => {
            "no UDP gets from here to the server: let it out here, use another network, or ask the server's operator whether its UDP port is open"
        }
        Obstacle::TheirUdpBlocked => {
            "the server sees no UDP packet of it: UDP is probably blocked there. Its owner could let it out"
        }
        Obstacle::NoCommonFamily => {
            "the two have neither a working IPv4 nor a working IPv6 in common: having both would help either side"
        }
        Obstacle::OwnSymmetric => {
            "both routers give each connection another port (a symmetric NAT), or the one there lets in only whom it has sent to: no direct path can be found. What helps on either side: UPnP, NAT-PMP or PCP turned on in the router, or a UDP port forwarded there by hand and kept with 'peer --udp PORT'; or IPv6 on both"
        }
        Obstacle::TheirsPerhapsSymmetric => {
            "what the router there does is not known. Probably it gives each connection another port (a symmetric NAT): nothing else is known that would be in the way. What helps on either side: UPnP, NAT-PMP or PCP turned on in the router, or a UDP port forwarded there by hand and kept with 'peer --udp PORT'; or IPv6 on both"
        }
        Obstacle::NotKnown => {
            "it is not known: perhaps UDP is blocked there, or it was looked for too briefly"
        }
    }
}

/// Why no relay helps where there is no direct path, or were there none.
const fn no_relay(reason: NoRelay, is_linked: bool) -> &'static str {
    match (reason, is_linked) {
        (NoRelay::OwnRule, false) => {
            "the relay would lead there without a direct path, but --path direct forbids it: leave that option out, or unset PEER_PATH"
        }
        (NoRelay::OwnRule, true) => {
            "nothing takes over should this path end: --path direct forbids the relay. Without that option, or PEER_PATH, the relay would"
        }
        (NoRelay::Server, false) => {
            "no relay leads there either: this server relays nothing (--no-relay), which only its operator can change"
        }
        (NoRelay::Server, true) => {
            "nothing takes over should this path end: this server relays nothing (--no-relay)"
        }
    }
}

const fn outcome(result: Outcome) -> &'static str {
    match result {
        Outcome::InUse => "is in use",
        Outcome::NoSuchFamily => "cannot be tried: this device has no such address",
        Outcome::Loopback => "leads to the host that announces it, and from there alone",
        Outcome::OtherNetwork => "belongs to a local network that this device is not on",
        Outcome::NoAnswer => "was tried, and nothing came through",
        Outcome::NotNeeded => "is not needed",
        Outcome::NotTried => "was not tried",
    }
}

const fn name(family: &FamilyView) -> &'static str {
    if family.server.is_ipv6() {
        "IPv6"
    } else {
        "IPv4"
    }
}

#[cfg(test)]
mod tests {
    use common::id::DeviceName;

    use super::*;
    use crate::commands::doctor::CandidateReport;
    use crate::node::command::ExaminationView;

    #[test]
    fn t05_what_others_say_of_a_device_passes_the_gate() {
        let report = DeviceReport {
            device: Some(DeviceName::lossy("lap\u{1b}[2Jtop")),
            fingerprint: String::new(),
            is_linked: false,
            is_silent: false,
            way: None,
            failure: Some("no \u{1b}]0;x\u{7} answer\nverdict".to_owned()),
            obstacle: None,
            no_relay: None,
            candidates: vec![CandidateReport {
                endpoint: ([192, 0, 2, 1], 7000).into(),
                result: Outcome::NotTried,
            }],
        };
        let look = Look::plain();
        let rows = device(&report, &look);
        assert_eq!(rows.len(), 3);
        let is_plain = |(_, text): &(&str, String)| !text.contains(char::is_control);
        assert!(rows.iter().all(is_plain), "{rows:?}");
        let reason = "x\u{1b}[31m".to_owned();
        let failed = log_in(&LogIn::Failed { reason }, &look);
        assert!(!failed.contains('\u{1b}'), "{failed}");
    }

    #[test]
    fn whoever_forbids_the_relay_is_told_what_that_costs() {
        let report = |is_linked, obstacle, no_relay| DeviceReport {
            device: Some(DeviceName::lossy("laptop")),
            fingerprint: String::new(),
            is_linked,
            is_silent: false,
            way: is_linked.then_some(Way::Direct {
                remote: ([192, 0, 2, 1], 7000).into(),
            }),
            failure: None,
            obstacle,
            no_relay: Some(no_relay),
            candidates: Vec::new(),
        };
        let symmetric = Some(Obstacle::OwnSymmetric);
        let rows = device(&report(false, symmetric, NoRelay::OwnRule), &Look::plain());
        let [_, ("why", why), ("", relay)] = &rows[..] else {
            panic!("{rows:?}");
        };
        assert!(why.contains("both routers give each connection another port"));
        assert!(why.contains("no direct path can be found") && why.contains("--udp PORT"));
        assert!(relay.contains("--path direct forbids it") && relay.contains("PEER_PATH"));
        let rows = device(&report(true, None, NoRelay::OwnRule), &Look::plain());
        let [_, ("why", why)] = &rows[..] else {
            panic!("{rows:?}");
        };
        assert!(why.contains("--path direct forbids the relay"), "{why}");
        let rows = device(&report(false, symmetric, NoRelay::Server), &Look::plain());
        assert!(rows[2].1.contains("this server relays nothing"), "{rows:?}");
    }

    #[test]
    fn the_verdict_says_with_whom_and_what_becomes_of_the_others() {
        let family = |mapping, filtering| FamilyView {
            server: ([198, 51, 100, 1], 7400).into(),
            udp: UdpState::Answers,
            reflexive: Some(([203, 0, 113, 1], 40_000).into()),
            is_behind_nat: Some(true),
            second_port: Some(UdpState::Answers),
            mapping: Some(mapping),
            filtering: Some(filtering),
            keeps_port: Some(false),
            filtering_age_s: Some(90),
        };
        let (is_same, is_other) = (Dependence::PortIndependent, Dependence::PortDependent);
        for (mapping, filtering, expected, kind) in [
            (
                is_same,
                is_same,
                "work with most devices;",
                "one address and port",
            ),
            (
                is_same,
                is_other,
                "another port for each connection (a symmetric NAT);",
                "one address and port",
            ),
            (is_other, is_other, "hardly work", "(a symmetric NAT)"),
        ] {
            let family = family(mapping, filtering);
            assert!(nat(&family, &Look::plain()).unwrap().contains(kind));
            assert!(filter(&family).unwrap().contains("1 min 30 s ago"));
            let examination = ExaminationView {
                families: vec![family],
                ..ExaminationView::default()
            };
            let mut facts = Facts {
                examination: &examination,
                rule: PathRule::Any,
                has_tcp: true,
                is_shut_out: false,
            };
            let text = verdict(&facts, &Look::plain());
            assert!(
                text.contains(expected) && text.contains("through the relay"),
                "{text}"
            );
            facts.rule = PathRule::Direct;
            let text = verdict(&facts, &Look::plain());
            assert!(text.contains("cannot be reached"), "{text}");
        }
    }
}
