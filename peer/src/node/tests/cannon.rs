//! Whom a peer sends to because somebody said so, and how much.

use common::limits::{
    ANNOUNCE_WAIT_MAX, CANDIDATES_MAX, CHECK_INTERVAL, CHECK_LEN, INITIAL_LEN,
    UNPROVEN_ACCOUNT_FIRST_MINUTE_LEN_MAX, UNPROVEN_ACCOUNT_MINUTE_LEN_MAX,
    UNPROVEN_FIRST_MINUTE_LEN_MAX, UNPROVEN_MINUTE_LEN_MAX,
};
use common::stun;

use super::*;

const MINUTE: Duration = Duration::from_secs(60);

/// A message waits at the first host for somebody who aims it at others.
struct Attack {
    world: World,
    began: Instant,
    /// Endpoints so far.
    aimed: u32,
    kind: CandidateKind,
}

impl Attack {
    fn new(kind: CandidateKind) -> Self {
        let world = World::new(&["alice", "mallory"]);
        let began = world.now;
        let mut attack = Self {
            world,
            began,
            aimed: 0,
            kind,
        };
        attack.aim();
        attack.world.say(0, "mallory", "hello");
        attack
    }

    /// Announces as many endpoints of others as there may be, none of them seen before.
    fn aim(&mut self) {
        let mut entry = self.world.hosts[1].entry().unwrap();
        let endpoints = (0..CANDIDATES_MAX as u32).map(|n| {
            let [_, _, high, low] = (self.aimed + n).to_be_bytes();
            SocketAddr::from(([203, 0, high, low], 4000))
        });
        let kind = self.kind;
        let candidate = |endpoint| Candidate { endpoint, kind };
        entry.candidates = endpoints.map(candidate).collect();
        self.aimed += CANDIDATES_MAX as u32;
        let control = self.world.hosts[1].session.as_mut().unwrap();
        control.online = Some(entry.clone());
        self.world.push_presence(&entry);
        self.world.settle();
    }

    /// Bytes to others in each minute since the first.
    fn bytes_by_minute(&self) -> Vec<usize> {
        let first = self.world.misses.first().map(|(at, ..)| *at);
        let mut minutes = Vec::new();
        for (at, _, len) in &self.world.misses {
            let minute = (*at - first.unwrap_or(self.began)).as_secs() / MINUTE.as_secs();
            minutes.resize(minutes.len().max(minute as usize + 1), 0);
            minutes[minute as usize] += len;
        }
        minutes
    }

    #[track_caller]
    fn check(&self, how: &str) {
        self.check_limits(how, UNPROVEN_FIRST_MINUTE_LEN_MAX, UNPROVEN_MINUTE_LEN_MAX);
    }

    #[track_caller]
    fn check_limits(&self, how: &str, first_max: usize, later_max: usize) {
        let minutes = self.bytes_by_minute();
        eprintln!("bytes to third parties by minute, {how}: {minutes:?}");
        assert!(minutes[0] > 0, "somebody is checked");
        assert!(minutes[0] <= first_max, "{minutes:?}");
        let is_within = minutes[1..].iter().all(|bytes| *bytes <= later_max);
        assert!(is_within, "{minutes:?}");
    }
}

const KINDS: [CandidateKind; 2] = [CandidateKind::Host, CandidateKind::ServerReflexive];

#[test]
fn t23_a_device_that_names_sixteen_endpoints_of_others_gets_little_sent_to_them() {
    for kind in KINDS {
        let mut attack = Attack::new(kind);
        attack.world.pass(4 * MINUTE);
        attack.check(&format!("{kind:?}"));
    }
}

#[test]
fn t23_other_endpoints_every_few_seconds_get_no_more_sent_to_them() {
    for kind in KINDS {
        let mut attack = Attack::new(kind);
        for second in 0..240 {
            attack.world.pass(Duration::from_secs(1));
            if second % 5 == 0 {
                attack.aim();
            }
        }
        attack.check(&format!("{kind:?}, announced anew every 5 s"));
        let minutes = attack.bytes_by_minute();
        let later_max = UNPROVEN_MINUTE_LEN_MAX - INITIAL_LEN;
        let is_reached = minutes[1..].iter().any(|bytes| *bytes > later_max);
        assert!(
            is_reached,
            "the limit of a minute is not tried: {minutes:?}"
        );
    }
}

#[test]
fn t23_neither_a_new_session_nor_more_messages_renew_the_budget() {
    let mut attack = Attack::new(CandidateKind::ServerReflexive);
    for second in 0..180 {
        attack.world.pass(Duration::from_secs(1));
        if second % 7 == 0 {
            attack.world.break_session(0);
        }
        if second % 3 == 0 {
            attack.world.say(0, "mallory", "are you there?");
            attack.aim();
        }
    }
    attack.check("with new sessions and messages");
}

/// As many devices as an account may have, and then others in their place.
#[test]
fn t23_the_devices_of_an_account_share_a_budget() {
    for kind in KINDS {
        let mut attack = Attack::new(kind);
        let entry = attack.world.hosts[1].entry().unwrap();
        for minute in 0..4u8 {
            let devices = (0..31).map(|n| Entry {
                device_key: DeviceSecret::from_seed([100 + 31 * minute + n; 32]).public(),
                ..entry.clone()
            });
            attack.world.invented = devices.collect();
            attack.world.break_session(0);
            attack.world.pass(MINUTE);
        }
        attack.check_limits(
            &format!("{kind:?}, 32 devices"),
            UNPROVEN_ACCOUNT_FIRST_MINUTE_LEN_MAX,
            UNPROVEN_ACCOUNT_MINUTE_LEN_MAX,
        );
        let minutes = attack.bytes_by_minute();
        let almost = UNPROVEN_ACCOUNT_FIRST_MINUTE_LEN_MAX - 2 * INITIAL_LEN;
        assert!(minutes[0] > almost, "the limit is not tried: {minutes:?}");
    }
}

#[test]
fn t23_no_datagram_of_quic_goes_to_an_endpoint_that_proved_nothing() {
    let mut attack = Attack::new(CandidateKind::Host);
    attack.world.pass(3 * MINUTE);
    let misses = attack.world.misses.iter();
    let lengths: BTreeSet<usize> = misses.map(|(_, _, len)| *len).collect();
    assert_eq!(lengths, [CHECK_LEN].into(), "checks only");
}

#[test]
fn t22_nothing_at_all_goes_to_what_is_not_one_other_host() {
    for kind in KINDS {
        let mut world = World::new(&["alice", "bob"]);
        let mut entry = world.hosts[1].entry().unwrap();
        let own = world.hosts[0].address;
        let refused = [
            "127.0.0.1:22",
            "[::ffff:127.0.0.1]:22",
            "169.254.169.254:80",
            "0.0.0.0:80",
            "224.0.0.1:80",
            "255.255.255.255:80",
            "[ff02::1]:80",
            "[64:ff9b::169.254.169.254]:80",
            "203.0.113.1:0",
        ];
        let refused = refused.map(|text| text.parse().unwrap());
        let candidate = |endpoint| Candidate { endpoint, kind };
        let candidates = refused.into_iter().chain([own]).map(candidate);
        entry.candidates = candidates.collect();
        world.hosts[1].session.as_mut().unwrap().online = Some(entry);
        let before = world.datagrams;
        world.say(0, "bob", "hello");
        world.pass(Duration::from_secs(10));
        assert_eq!(world.misses, []);
        // A question to the server at most, no packet to itself.
        assert!(world.datagrams <= before + 2);
    }
}

/// As any STUN server answers, or another peer at an endpoint that is its own.
#[test]
fn t23_an_answer_of_somebody_else_opens_nothing() {
    let mut world = World::new(&["alice", "bob", "carol"]);
    let mut entry = world.hosts[1].entry().unwrap();
    let stun_server = SocketAddr::from(([203, 0, 113, 1], 3478));
    let carol = world.hosts[2].address;
    entry.candidates = vec![host_candidate(stun_server), host_candidate(carol)];
    world.hosts[1].session.as_mut().unwrap().online = Some(entry);
    // So that datagrams to nobody are kept.
    world.guests.push((
        DeviceSecret::from_seed([99; 32]).public(),
        "dave".parse().unwrap(),
    ));
    world.say(0, "bob", "hello");
    let mut answered = 0;
    let began = world.now;
    while world.now - began < Duration::from_secs(30) {
        for (source, request) in world.take_strays(stun_server) {
            assert!(request[0] <= 3, "a datagram of QUIC");
            let answer = stun::binding_answer(&request, source).unwrap();
            let transmit = Transmit::single(source, answer.len());
            world.bring(stun_server, transmit, &answer);
            answered += 1;
        }
        world.step();
    }
    assert!(answered > 3, "{answered}");
    assert_eq!(
        world.hosts[2].node.effects.links.occupancies()[1].count,
        0,
        "no dial"
    );
    assert!(
        world.hosts[2]
            .events
            .iter()
            .all(|event| !matches!(event, Event::NewKey { .. }))
    );
}

#[test]
fn a_device_that_the_server_has_seen_is_reached_without_waiting_for_a_check() {
    let mut world = World::new(&["alice", "bob"]);
    let before = world.now;
    let id = world.say(0, "bob", "hello");
    world.until("delivery", |world| {
        world.hosts[0].has_state(id, MessageState::Delivered)
    });
    let took = world.now - before;
    assert!(took < CHECK_INTERVAL, "{took:?}");
}

#[test]
fn a_device_with_one_good_endpoint_that_the_server_has_not_seen_is_reached() {
    let mut world = World::new(&["alice", "bob"]);
    let mut entry = world.hosts[1].entry().unwrap();
    let good = world.hosts[1].address;
    // The last of all, behind one that looks better.
    let seen = Candidate {
        endpoint: SocketAddr::from(([203, 0, 113, 1], 1000)),
        kind: CandidateKind::ServerReflexive,
    };
    let dead = (2..CANDIDATES_MAX as u8).map(|n| host_candidate(([203, 0, 113, n], 1000)));
    entry.candidates = [seen].into_iter().chain(dead).collect();
    entry.candidates.push(host_candidate(good));
    assert_eq!(entry.candidates.len(), CANDIDATES_MAX);
    world.hosts[1].session.as_mut().unwrap().online = Some(entry);
    let before = world.now;
    let id = world.say(0, "bob", "hello");
    world.until("delivery", |world| {
        world.hosts[0].has_state(id, MessageState::Delivered)
    });
    let took = world.now - before;
    // Its check is the last of a round.
    let most = CHECK_INTERVAL * CANDIDATES_MAX as u32;
    assert!(took < most, "{took:?}");
}

#[test]
fn a_device_whose_budget_is_used_up_is_still_found() {
    let mut attack = Attack::new(CandidateKind::ServerReflexive);
    for _ in 0..20 {
        attack.world.pass(Duration::from_secs(5));
        attack.aim();
    }
    // It tells the truth from now on.
    let good = attack.world.hosts[1].address;
    let mut entry = attack.world.hosts[1].entry().unwrap();
    entry.candidates = vec![host_candidate(good)];
    attack.world.hosts[1].session.as_mut().unwrap().online = Some(entry.clone());
    attack.world.push_presence(&entry);
    let before = attack.world.now;
    attack
        .world
        .until("delivery", |world| world.hosts[1].texts() == ["hello"]);
    let took = attack.world.now - before;
    assert!(took <= 2 * MINUTE, "{took:?}");
}

#[test]
fn a_log_in_is_announced_once_and_with_everything() {
    let mut world = World::new(&["alice"]);
    let announced = |world: &World| {
        let heard = &world.hosts[0].session.as_ref().unwrap().heard;
        let is_announcement = |request: &&Request| {
            matches!(
                request,
                Request::Directory(DirectoryRequest::Announce { .. })
            )
        };
        heard.iter().filter(is_announcement).count()
    };
    world.pass(Duration::from_secs(5));
    assert_eq!(announced(&world), 1);

    // Where no datagram comes through it waits, and not for long.
    world.loses_every = Some(1);
    world.break_session(0);
    world.until("the session is back", |world| {
        world.hosts[0].node.effects.requests.is_online()
    });
    let before = world.now;
    assert_eq!(announced(&world), 0);
    world.until("the announcement", |world| announced(world) > 0);
    let waited = world.now - before;
    assert!(waited <= ANNOUNCE_WAIT_MAX, "{waited:?}");
    assert!(waited + CHECK_INTERVAL >= ANNOUNCE_WAIT_MAX, "{waited:?}");
    world.pass(Duration::from_secs(5));
    assert_eq!(announced(&world), 1);
}

#[test]
fn t23_many_addresses_are_dialled_at_a_measured_pace() {
    for kind in KINDS {
        let mut world = World::new(&["alice", "bob"]);
        let mut entry = world.hosts[1].entry().unwrap();
        let endpoints = (0..1000u16).map(|n| SocketAddr::from(([203, 0, 113, 1], 1000 + n)));
        let candidate = |endpoint| Candidate { endpoint, kind };
        entry.candidates = endpoints.map(candidate).collect();
        world.hosts[1].session.as_mut().unwrap().online = Some(entry);
        world.say(0, "bob", "hello");
        let at_once = world.misses.len();
        assert!(at_once <= 3, "{at_once} datagrams at once");
        world.pass(Duration::from_secs(5));
        let named: BTreeSet<SocketAddr> = world.misses.iter().map(|(_, to, _)| *to).collect();
        assert_eq!(named.len(), CANDIDATES_MAX);
        // Three rounds of checks, and of the first dials what the budget allows.
        let sent = world.misses.len();
        assert!(
            sent < 80,
            "{sent} datagrams to addresses that somebody named"
        );
    }
}

#[test]
fn t23_no_more_devices_are_dialled_than_an_account_can_have() {
    for kind in KINDS {
        let mut world = World::new(&["alice", "bob"]);
        let entry = world.hosts[1].entry().unwrap();
        let candidate = |n| Candidate {
            endpoint: SocketAddr::from(([203, 0, 113, n], 1000)),
            kind,
        };
        world.invented = (0..200u8)
            .map(|n| Entry {
                device_key: DeviceSecret::from_seed([n; 32]).public(),
                candidates: vec![candidate(n)],
                ..entry.clone()
            })
            .collect();
        world.say(0, "bob", "hello");
        // Of each a check, and the first datagram of a dial where the server has seen it. The second
        // comes when QUIC's pacing lets it.
        let sent = world.misses.len();
        let most = 2 * common::limits::DEVICES_PER_ACCOUNT_MAX;
        assert!(sent <= most, "{sent} datagrams at once");
    }
}
