//! The machine alone, against a gateway of bytes.

use super::*;

const GATEWAY: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 1);
const OUTSIDE: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 9);

#[test]
fn pcp_is_asked_twice_then_nat_pmp_then_upnp_and_after_a_pause_all_again() {
    let mut lab = Lab::new();
    let mut asked = Vec::new();
    for _ in 0..2 {
        while lab.mapper.step_name() != "idle" {
            asked.extend(lab.take());
            if lab.mapper.step_name() == "upnp" {
                lab.mapper
                    .handle_upnp(Err(NoPortMapping::NoAnswer), lab.now);
            } else {
                lab.pass();
            }
        }
        lab.pass();
    }
    let expected = [
        "pcp", "pcp", "address", "address", "address", "address", "upnp",
    ];
    let round = asked.iter().map(|(_, what)| *what).take(7);
    assert_eq!(round.collect::<Vec<_>>(), expected);
    let times: Vec<_> = asked.iter().map(|(at, _)| at.as_secs_f64()).collect();
    let pauses: Vec<f64> = times.windows(2).map(|two| two[1] - two[0]).collect();
    let rfc = [3.0, 6.0, 0.25, 0.5, 1.0, 2.0, 60.0];
    for (pause, rfc) in pauses.iter().zip(rfc) {
        assert!((0.9 * rfc..1.1 * rfc).contains(pause), "{pause} {rfc}");
    }
    assert_eq!(asked.len(), 14, "{asked:?}");
    assert_eq!(
        lab.told,
        [Err(NoPortMapping::Asking), Err(NoPortMapping::NoAnswer)]
    );
    // The pauses double, up to a bound.
    let mut longest = Duration::ZERO;
    for _ in 0..10 {
        let before = lab.now;
        lab.pass();
        longest = longest.max(lab.now - before);
        lab.mapper.handle_unreachable();
        lab.mapper
            .handle_upnp(Err(NoPortMapping::NoAnswer), lab.now);
    }
    assert_eq!(longest, PORT_MAPPING_BACKOFF_MAX);
}

#[test]
fn a_mapping_by_pcp_is_renewed_at_half_its_lifetime_with_the_same_nonce() {
    let mut lab = Lab::new();
    let first = lab.take_datagram();
    lab.grant_pcp(&first, 600, 1);
    assert_eq!(lab.external(), Ok("203.0.113.9:40000".parse().unwrap()));
    let before = lab.now;
    lab.pass();
    assert_eq!(lab.now - before, Duration::from_secs(300));
    let second = lab.take_datagram();
    assert_eq!(first[..42], second[..42]);
    assert_eq!(second[42..44], 40_000_u16.to_be_bytes(), "the same outside");
    // The gateway is silent from now on: its mapping counts until it ends.
    let granted = before + Duration::from_secs(600);
    while lab.now < granted {
        assert!(lab.external().is_ok());
        lab.silence();
    }
    assert_eq!(lab.external(), Err(NoPortMapping::NoAnswer));
}

#[test]
fn a_lifetime_of_ages_is_not_believed_and_a_short_one_not_taken() {
    let mut lab = Lab::new();
    let request = lab.take_datagram();
    lab.grant_pcp(&request, u32::MAX, 1);
    let before = lab.now;
    lab.pass();
    assert_eq!(lab.now - before, PORT_MAPPING_LIFETIME / 2);

    for (lifetime, is_taken) in [
        (PORT_MAPPING_LIFETIME_MIN, true),
        (Duration::from_secs(119), false),
    ] {
        let mut lab = Lab::new();
        let request = lab.take_datagram();
        lab.grant_pcp(&request, lifetime.as_secs().try_into().unwrap(), 1);
        assert_eq!(lab.external().is_ok(), is_taken, "{lifetime:?}");
    }
}

#[test]
fn nat_pmp_is_asked_where_the_gateway_says_that_it_has_no_pcp() {
    let mut lab = Lab::new();
    assert_eq!(lab.take_datagram().len(), pcp::MAP_LEN);
    lab.hear(&[0, 0x81, 0, 1, 0, 0, 0, 9]);
    assert_eq!(lab.take_datagram(), nat_pmp::ADDRESS_REQUEST);
    lab.hear(&[0, 0x80, 0, 0, 0, 0, 0, 9, 203, 0, 113, 9]);
    let request = lab.take_datagram();
    assert_eq!(request[..6], [0, 1, 0, 0, 0x1b, 0x58]);
    lab.hear(&[
        0, 0x81, 0, 0, 0, 0, 0, 9, 0x1b, 0x58, 0x9c, 0x40, 0, 0, 2, 0x58,
    ]);
    assert_eq!(lab.external(), Ok("203.0.113.9:40000".parse().unwrap()));
    // It is renewed without asking by PCP again, and given back.
    lab.pass();
    assert_eq!(lab.take_datagram(), nat_pmp::ADDRESS_REQUEST);
    lab.mapper.stop(lab.now);
    assert_eq!(
        lab.take_datagram(),
        [0, 1, 0, 0, 0x1b, 0x58, 0, 0, 0, 0, 0, 0]
    );
    assert!(!lab.mapper.is_off());
    lab.hear(&[0, 0x81, 0, 0, 0, 0, 0, 9, 0x1b, 0x58, 0, 0, 0, 0, 0, 0]);
    assert!(lab.mapper.is_off());
}

#[test]
fn a_gateway_where_nobody_listens_is_asked_by_upnp_at_once() {
    let mut lab = Lab::new();
    lab.take();
    lab.mapper.handle_unreachable();
    assert_eq!(lab.take()[0].1, "upnp");
    let grant = Grant {
        external: SocketAddrV4::new(OUTSIDE, 7000),
        lifetime_s: 1200,
    };
    lab.mapper.handle_upnp(Ok(grant), lab.now);
    assert_eq!(lab.external(), Ok("203.0.113.9:7000".parse().unwrap()));
    lab.mapper.stop(lab.now);
    assert_eq!(lab.take()[0].1, "unmap");
    assert!(lab.mapper.is_off());
}

#[test]
fn t22_upnp_that_names_what_leads_elsewhere_maps_nothing() {
    for (external, lifetime_s) in [
        ("127.0.0.1:7000", 1200),
        ("224.0.0.1:7000", 1200),
        ("203.0.113.9:0", 1200),
        ("203.0.113.9:7000", 0),
    ] {
        let mut lab = Lab::new();
        lab.mapper.handle_unreachable();
        let external = external.parse().unwrap();
        lab.mapper.handle_upnp(
            Ok(Grant {
                external,
                lifetime_s,
            }),
            lab.now,
        );
        assert_eq!(
            lab.external(),
            Err(NoPortMapping::Implausible),
            "{external}"
        );
    }
}

#[test]
fn t22_only_the_gateway_is_believed_and_only_what_was_asked() {
    let mut lab = Lab::new();
    let request = lab.take_datagram();
    let answer = pcp_grant(&request, 600, 1);
    for source in ["192.168.1.66:5351", "192.168.1.1:5350", "203.0.113.1:5351"] {
        let source = source.parse().unwrap();
        lab.mapper.handle_datagram(source, &answer, lab.now);
        assert_eq!(lab.external(), Err(NoPortMapping::Asking), "{source}");
    }
    let mut forged = answer.clone();
    forged[30] ^= 1;
    lab.hear(&forged);
    assert_eq!(lab.external(), Err(NoPortMapping::Asking), "another nonce");
    lab.hear(&answer);
    assert!(lab.external().is_ok());
    // Nothing is asked, so nothing is answered.
    let mut moved = answer;
    moved[42..44].copy_from_slice(&[1, 1]);
    lab.hear(&moved);
    assert_eq!(lab.external(), Ok("203.0.113.9:40000".parse().unwrap()));
}

#[test]
fn a_refusal_is_asked_about_again_later_and_by_no_other_way() {
    let mut lab = Lab::new();
    let request = lab.take_datagram();
    let mut refusal = pcp_grant(&request, 30, 1);
    refusal[3] = 2;
    lab.hear(&refusal);
    assert_eq!(lab.external(), Err(NoPortMapping::Refused));
    let before = lab.now;
    lab.pass();
    assert_eq!(lab.now - before, PORT_MAPPING_BACKOFF_FIRST);
    assert_eq!(lab.take()[0].1, "pcp");
}

#[test]
fn a_gateway_that_begins_anew_is_asked_again_within_seconds() {
    let mut lab = Lab::new();
    let request = lab.take_datagram();
    lab.grant_pcp(&request, 1200, 5000);
    let announce = |lab: &mut Lab, source: &str, epoch: u8| {
        let mut bytes = [0; 24];
        (bytes[0], bytes[1], bytes[11]) = (2, 0x80, epoch);
        let source = source.parse().unwrap();
        lab.mapper.handle_announcement(source, &bytes, lab.now);
        lab.mapper.poll_timeout().unwrap() - lab.now
    };
    let calm = PORT_MAPPING_LIFETIME / 2;
    assert_eq!(
        announce(&mut lab, "192.168.1.66:5351", 0),
        calm,
        "a stranger"
    );
    let soon = announce(&mut lab, "192.168.1.1:5351", 0);
    let bounds = PORT_MAPPING_RENEWAL_MIN..=PORT_MAPPING_RESTART_SPREAD;
    assert!(bounds.contains(&soon), "{soon:?}");
    lab.pass();
    let again = lab.take_datagram();
    assert_eq!(again[24..36], request[24..36]);
    lab.grant_pcp(&again, 1200, 4);
    // The same by NAT-PMP, whose restart is told as its external address is.
    let old = [0, 0x80, 0, 0, 0, 0, 0, 0, 203, 0, 113, 9];
    lab.now += Duration::from_secs(100);
    let gateway = (GATEWAY, SERVER_PORT).into();
    lab.mapper.handle_announcement(gateway, &old, lab.now);
    assert!(lab.mapper.poll_timeout().unwrap() <= lab.now + PORT_MAPPING_RESTART_SPREAD);
}

#[test]
fn whatever_happens_on_the_network_the_gateway_is_not_flooded() {
    let mut lab = Lab::new();
    let request = lab.take_datagram();
    lab.grant_pcp(&request, 1200, 1);
    lab.mapper.refresh(lab.now);
    assert!(lab.take().is_empty(), "it was asked just now");
    lab.now += PORT_MAPPING_RENEWAL_MIN;
    lab.mapper.refresh(lab.now);
    lab.mapper.refresh(lab.now);
    let request = lab.take_datagram();
    let granted = lab.external();
    lab.grant_pcp(&request, 1200, 1);
    assert_eq!(lab.external(), granted);
    let told = lab.told.iter().filter(|told| told.is_ok()).count();
    assert_eq!(told, 2, "each time that the gateway says so");
}

#[test]
fn whoever_has_the_gateway_asked_hears_what_comes_of_it() {
    let refused = |lab: &mut Lab| {
        let request = lab.take_datagram();
        let mut refusal = pcp_grant(&request, 30, 1);
        refusal[3] = 2;
        lab.hear(&refusal);
        let _ = lab.external();
        lab.told.len()
    };
    let mut lab = Lab::new();
    let before = refused(&mut lab);
    // It was asked just now.
    lab.mapper.refresh(lab.now);
    let _ = lab.external();
    assert_eq!(lab.told.len(), before + 1);
    lab.now += PORT_MAPPING_RENEWAL_MIN;
    lab.mapper.refresh(lab.now);
    assert_eq!(refused(&mut lab), before + 2);
    // A round is under way.
    lab.pass();
    lab.mapper.refresh(lab.now);
    assert_eq!(refused(&mut lab), before + 3);
    assert_eq!(lab.told[before..], [Err(NoPortMapping::Refused); 3]);
    lab.mapper.set_target(None, lab.now);
    lab.mapper.refresh(lab.now);
    let _ = lab.external();
    assert_eq!(lab.told[before + 3..], [Err(NoPortMapping::NoGateway); 2]);
}

#[test]
fn another_network_has_another_mapping_or_none() {
    let mut lab = Lab::new();
    let first = lab.take_datagram();
    lab.grant_pcp(&first, 1200, 1);
    lab.mapper.set_target(Some(target()), lab.now);
    assert!(lab.take().is_empty(), "it is the same");
    let moved = Target {
        internal: "192.168.1.77:7000".parse().unwrap(),
        ..target()
    };
    lab.mapper.set_target(Some(moved), lab.now);
    let second = lab.take_datagram();
    assert_ne!(first[24..36], second[24..36], "the nonce");
    assert_eq!(lab.external(), Err(NoPortMapping::Asking));
    lab.mapper.set_target(None, lab.now);
    assert_eq!(lab.external(), Err(NoPortMapping::NoGateway));
    assert!(lab.mapper.is_off() && lab.mapper.poll_timeout().is_none());
}

#[test]
fn nobody_waits_long_for_a_gateway_that_does_not_take_its_port_back() {
    let mut lab = Lab::new();
    let request = lab.take_datagram();
    lab.grant_pcp(&request, 1200, 1);
    lab.mapper.stop(lab.now);
    let end = lab.take_datagram();
    assert_eq!(end[4..8], [0; 4], "no lifetime");
    assert_eq!(end[24..42], request[24..42]);
    assert_eq!(end[42..44], [0; 2], "no port outside");
    let before = lab.now;
    lab.pass();
    assert_eq!(lab.now - before, PORT_MAPPING_RETURN_WAIT);
    assert!(lab.mapper.is_off());
    // What was wanted can be wanted again.
    lab.mapper.set_target(Some(target()), lab.now);
    assert_eq!(lab.take()[0].1, "pcp");
}

// ---- the gateway -----------------------------------------------------------------------------------

/// A machine that wants a mapping, and what it has told.
struct Lab {
    mapper: Mapper,
    began: Instant,
    now: Instant,
    told: Vec<Result<PortMapping, NoPortMapping>>,
}

impl Lab {
    #[expect(clippy::disallowed_methods, reason = "any instant will do as a start")]
    fn new() -> Self {
        let now = Instant::now();
        let mut mapper = Mapper::new([1; 32]);
        mapper.set_target(Some(target()), now);
        Self {
            mapper,
            began: now,
            now,
            told: Vec::new(),
        }
    }

    /// What it sends, with when.
    fn take(&mut self) -> Vec<(Duration, &'static str)> {
        let sent = self.take_outputs();
        let at = self.now - self.began;
        let names = sent.iter().map(|output| match output {
            MapperOutput::Send(bytes) if bytes.len() == pcp::MAP_LEN => "pcp",
            MapperOutput::Send(bytes) if bytes.len() == 2 => "address",
            MapperOutput::Send(_) => "map",
            MapperOutput::Upnp(UpnpRequest::Map { .. }) => "upnp",
            MapperOutput::Upnp(UpnpRequest::Unmap { .. }) => "unmap",
            MapperOutput::Report(_) => panic!("it is told"),
        });
        names.map(|name| (at, name)).collect()
    }

    #[track_caller]
    fn take_datagram(&mut self) -> Vec<u8> {
        match &self.take_outputs()[..] {
            [MapperOutput::Send(bytes)] => bytes.clone(),
            other => panic!("{other:?}"),
        }
    }

    fn take_outputs(&mut self) -> Vec<MapperOutput> {
        let mut sent = Vec::new();
        while let Some(output) = self.mapper.poll_output() {
            match output {
                MapperOutput::Report(told) => self.told.push(told),
                MapperOutput::Send(_) | MapperOutput::Upnp(_) => sent.push(output),
            }
        }
        sent
    }

    fn external(&mut self) -> Result<SocketAddrV4, NoPortMapping> {
        // What it sends is looked at elsewhere.
        let _ = self.take_outputs();
        let told = self.told.last().expect("something was told");
        told.map(|mapping| mapping.external)
    }

    fn hear(&mut self, bytes: &[u8]) {
        let gateway = (GATEWAY, SERVER_PORT).into();
        self.mapper.handle_datagram(gateway, bytes, self.now);
    }

    fn grant_pcp(&mut self, request: &[u8], lifetime_s: u32, epoch_s: u32) {
        self.hear(&pcp_grant(request, lifetime_s, epoch_s));
    }

    /// Lets time pass until something is due.
    fn pass(&mut self) {
        self.now = self.mapper.poll_timeout().expect("something is due");
        self.mapper.handle_timeout(self.now);
    }

    /// The same, with nobody who answers.
    fn silence(&mut self) {
        if self.mapper.step_name() == "upnp" {
            self.mapper
                .handle_upnp(Err(NoPortMapping::NoAnswer), self.now);
        }
        self.pass();
    }
}

impl Mapper {
    fn step_name(&self) -> &'static str {
        match self.step {
            Step::Upnp => "upnp",
            Step::Idle { .. } => "idle",
            Step::Off
            | Step::Pcp(_)
            | Step::NatPmpAddress(_)
            | Step::NatPmpMap(..)
            | Step::Returning { .. } => "other",
        }
    }
}

fn target() -> Target {
    Target {
        gateway: GATEWAY,
        internal: "192.168.1.2:7000".parse().unwrap(),
    }
}

/// What a gateway says that grants the port 40000.
fn pcp_grant(request: &[u8], lifetime_s: u32, epoch_s: u32) -> Vec<u8> {
    let mut bytes = request.to_vec();
    bytes[1] |= 0x80;
    bytes[4..8].copy_from_slice(&lifetime_s.to_be_bytes());
    bytes[8..12].copy_from_slice(&epoch_s.to_be_bytes());
    bytes[12..24].fill(0);
    bytes[42..44].copy_from_slice(&40_000_u16.to_be_bytes());
    bytes[44..60].copy_from_slice(&OUTSIDE.to_ipv6_mapped().octets());
    bytes
}
