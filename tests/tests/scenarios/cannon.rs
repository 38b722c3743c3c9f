//! Whom a peer sends to because somebody said so, and how much.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use common::key::DeviceSecret;
use common::limits::{
    ANNOUNCE_WAIT_MAX, CANDIDATES_MAX, CHECK_INTERVAL, CHECK_LEN, DEVICES_PER_ACCOUNT_MAX,
    INITIAL_LEN, RELAY_PATIENCE_MIN, UNPROVEN_ACCOUNT_FIRST_MINUTE_LEN_MAX,
    UNPROVEN_ACCOUNT_MINUTE_LEN_MAX, UNPROVEN_FIRST_MINUTE_LEN_MAX, UNPROVEN_MINUTE_LEN_MAX,
};
use common::stun;
use common::wire::rendezvous::{
    Answer, Candidate, CandidateKind, Change, DirectoryAnswer, Entry, LoginAnswer, Push,
    ServerFrame,
};
use tests::sim::net::Faults;
use tests::sim::world::{Family, Home, Stray, World, WorldOptions};

use super::shared::{
    answers, count, entry, lie_about_devices, new_keys, presence, say, shown, until,
    until_delivered, world,
};

const MINUTE: Duration = Duration::from_secs(60);
const KINDS: [CandidateKind; 2] = [CandidateKind::Host, CandidateKind::ServerReflexive];
/// So fast that what a node does by itself takes longer than the way.
const FAST: Faults = Faults {
    latency: Duration::from_millis(1),
    ..Faults::NONE
};

/// An endpoint that the server does not vouch for.
fn host_candidate(endpoint: impl Into<SocketAddr>) -> Candidate {
    Candidate {
        endpoint: endpoint.into(),
        kind: CandidateKind::Host,
    }
}

/// The first host looks for the second, who aims it at others.
struct Attack {
    world: World,
    /// What the server says of the second.
    devices: Rc<RefCell<Vec<Entry>>>,
    /// Endpoints so far.
    aimed: u32,
    kind: CandidateKind,
}

impl Attack {
    fn new(kind: CandidateKind) -> Self {
        let mut world = world(2, Faults::NONE);
        world.net.has_strays = true;
        let devices = vec![entry(&world, 1)];
        let mut attack = Self {
            devices: lie_about_devices(&mut world, 0, devices),
            world,
            aimed: 0,
            kind,
        };
        attack.aim();
        say(&mut attack.world, 0, 1, "hello");
        attack
    }

    /// Announces as many endpoints of others as there may be, none of them seen before.
    fn aim(&mut self) {
        let endpoints = (0..CANDIDATES_MAX as u32).map(|n| {
            let [_, _, high, low] = (self.aimed + n).to_be_bytes();
            SocketAddr::from(([203, 0, high, low], 4000))
        });
        let kind = self.kind;
        let candidates = endpoints.map(|endpoint| Candidate { endpoint, kind });
        self.announce(candidates.collect());
        self.aimed += CANDIDATES_MAX as u32;
    }

    fn announce(&mut self, candidates: Vec<Candidate>) {
        let mut entry = self.devices.borrow()[0].clone();
        entry.candidates = candidates;
        *self.devices.borrow_mut() = vec![entry.clone()];
        self.world.forge(0, &presence(2, Change::Online(entry)));
    }

    /// Bytes to others in each minute since the first.
    fn bytes_by_minute(&self) -> Vec<usize> {
        let mut minutes = Vec::new();
        for stray in &self.world.strays {
            let since = stray.at - self.world.strays[0].at;
            let minute = (since.as_secs() / MINUTE.as_secs()) as usize;
            minutes.resize(minutes.len().max(minute + 1), 0);
            minutes[minute] += stray.bytes.len();
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
        assert!(minutes[0] > 0, "nobody is checked, {how}");
        assert!(minutes[0] <= first_max, "{how}: {minutes:?}");
        let is_within = minutes[1..].iter().all(|bytes| *bytes <= later_max);
        assert!(is_within, "{how}: {minutes:?}");
    }
}

/// The first host has a message for the second, whom the server names so.
fn named(faults: Faults, change: impl FnOnce(&World, &mut Vec<Entry>)) -> World {
    let mut world = world(3, faults);
    world.net.has_strays = true;
    let mut devices = vec![entry(&world, 1)];
    change(&world, &mut devices);
    lie_about_devices(&mut world, 0, devices);
    world
}

/// What arrived elsewhere at the moment at which the first did.
#[track_caller]
fn first_strays(world: &mut World) -> usize {
    until(world, |world| !world.strays.is_empty());
    let first = world.strays[0].at;
    let at_once = |stray: &&Stray| stray.at == first;
    world.strays.iter().filter(at_once).count()
}

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
        for _ in 0..48 {
            attack.world.pass(Duration::from_secs(5));
            attack.aim();
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
            attack.world.break_control(0);
        }
        if second % 3 == 0 {
            say(&mut attack.world, 0, 1, "are you there?");
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
        let entry = attack.devices.borrow()[0].clone();
        for minute in 0..4u8 {
            let others = (0..31).map(|n| Entry {
                device_key: DeviceSecret::from_seed([100 + 31 * minute + n; 32]).public(),
                ..entry.clone()
            });
            *attack.devices.borrow_mut() = others.chain([entry.clone()]).collect();
            attack.world.break_control(0);
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
    let strays = attack.world.strays.iter();
    let lengths: BTreeSet<usize> = strays.map(|stray| stray.bytes.len()).collect();
    assert_eq!(lengths, [CHECK_LEN].into(), "checks only");
}

#[test]
fn t22_nothing_at_all_goes_to_what_is_not_one_other_host() {
    for kind in KINDS {
        let home = Home {
            family: Family::Both,
            ..Home::PUBLIC
        };
        let mut world = World::new(&WorldOptions {
            homes: vec![home; 2],
            ..WorldOptions::new(7, 0, Faults::NONE)
        });
        world.pass(Duration::from_secs(5));
        world.net.has_strays = true;
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
        let own = world.hosts[0].addresses.clone();
        let endpoints = refused.into_iter().chain(own);
        let mut entry = entry(&world, 1);
        entry.candidates = endpoints
            .map(|endpoint| Candidate { endpoint, kind })
            .collect();
        lie_about_devices(&mut world, 0, vec![entry]);
        let before = (world.carried[0], world.net.mishaps);
        say(&mut world, 0, 1, "hello");
        world.pass(Duration::from_secs(10));
        assert!(world.strays.is_empty(), "{:?}", world.strays);
        assert_eq!(world.net.mishaps, before.1);
        // A few answers of the server at most, no packet to itself.
        let carried = world.carried[0] - before.0;
        assert!(carried <= 4, "{carried}");
    }
}

/// As any STUN server answers, or another peer at an endpoint that is its own.
#[test]
fn t23_an_answer_of_somebody_else_opens_nothing() {
    let stun_server = SocketAddr::from(([203, 0, 113, 1], 3478));
    let mut world = named(Faults::NONE, |world, devices| {
        let third = world.hosts[2].addresses[0];
        devices[0].candidates = vec![host_candidate(stun_server), host_candidate(third)];
    });
    say(&mut world, 0, 1, "hello");
    let mut answered = 0;
    let end = world.now + Duration::from_secs(30);
    while world.now < end {
        for request in world.take_strays(stun_server) {
            assert!(request.bytes[0] <= 3, "a datagram of QUIC");
            let answer = stun::binding_answer(&request.bytes, request.source).unwrap();
            world.send_stray(stun_server, request.source, &answer);
            answered += 1;
        }
        world.pass(Duration::from_millis(5));
        assert_eq!(count(&world, 2, "links"), 0, "no dial");
    }
    assert!(answered > 3, "{answered}");
    assert!(new_keys(&world, 2).is_empty());
}

#[test]
fn a_device_that_the_server_has_seen_is_reached_without_waiting_for_a_check() {
    let mut world = world(2, FAST);
    let before = world.now;
    let id = say(&mut world, 0, 1, "hello");
    until_delivered(&mut world, 0, id);
    let took = world.now - before;
    assert!(took < CHECK_INTERVAL, "{took:?}");
}

#[test]
fn a_device_with_one_good_endpoint_that_the_server_has_not_seen_is_reached() {
    // The last of all, behind one that looks better.
    let mut world = named(FAST, |world, devices| {
        let seen = Candidate {
            endpoint: SocketAddr::from(([203, 0, 113, 1], 1000)),
            kind: CandidateKind::ServerReflexive,
        };
        let dead = (2..CANDIDATES_MAX as u8).map(|n| host_candidate(([203, 0, 113, n], 1000)));
        let good = host_candidate(world.hosts[1].addresses[0]);
        devices[0].candidates = [seen].into_iter().chain(dead).chain([good]).collect();
        assert_eq!(devices[0].candidates.len(), CANDIDATES_MAX);
    });
    let before = world.now;
    let id = say(&mut world, 0, 1, "hello");
    until_delivered(&mut world, 0, id);
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
    let good = host_candidate(attack.world.hosts[1].addresses[0]);
    attack.announce(vec![good]);
    let before = attack.world.now;
    until(&mut attack.world, |world| shown(world, 1) == ["hello"]);
    let took = attack.world.now - before;
    assert!(took <= 2 * MINUTE, "{took:?}");
}

#[test]
fn a_log_in_is_announced_once_and_with_everything() {
    // Where no datagram comes through it waits, and not for long: the less where the relay answers over the
    // control connection.
    for (relay_answers, wait) in [(false, ANNOUNCE_WAIT_MAX), (true, RELAY_PATIENCE_MIN)] {
        let mut world = World::new(&WorldOptions::new(7, 1, FAST));
        let heard = Rc::new(RefCell::new(Vec::new()));
        let kept = Rc::clone(&heard);
        world.tamper(0, move |frame| {
            kept.borrow_mut().push(frame.clone());
            relay_answers || !matches!(frame, ServerFrame::Push(Push::Relay(_)))
        });
        let count = |is_one: &dyn Fn(&Answer) -> bool| answers(&heard.borrow(), is_one);
        let announced = || count(&|answer| *answer == Answer::Directory(DirectoryAnswer::Done));
        world.pass(Duration::from_secs(5));
        assert_eq!(announced(), 1);

        world.net.faults.mtu = 0;
        world.break_control(0);
        let logged_in = |answer: &Answer| matches!(answer, Answer::Login(LoginAnswer::LoggedIn(_)));
        until(&mut world, |_| count(&logged_in) == 2);
        let before = world.now;
        assert_eq!(announced(), 1);
        until(&mut world, |_| announced() > 1);
        let waited = world.now - before;
        // The answers' ways, and `until` looks every 10 ms.
        let slack = Duration::from_millis(20);
        assert!(waited <= wait + slack, "{waited:?}");
        assert!(waited + CHECK_INTERVAL >= wait, "{waited:?}");
        world.pass(Duration::from_secs(5));
        assert_eq!(announced(), 2);
    }
}

#[test]
fn t23_many_addresses_are_dialled_at_a_measured_pace() {
    for kind in KINDS {
        let mut world = named(Faults::NONE, |_, devices| {
            let endpoints = (0..1000u16).map(|n| SocketAddr::from(([203, 0, 113, 1], 1000 + n)));
            let candidate = |endpoint| Candidate { endpoint, kind };
            devices[0].candidates = endpoints.map(candidate).collect();
        });
        say(&mut world, 0, 1, "hello");
        let at_once = first_strays(&mut world);
        assert!(at_once <= 3, "{at_once} datagrams at once");
        world.pass(Duration::from_secs(5));
        let destinations = world.strays.iter().map(|stray| stray.destination);
        let named: BTreeSet<SocketAddr> = destinations.collect();
        assert_eq!(named.len(), CANDIDATES_MAX);
        // Three rounds of checks, and of the first dials what the budget allows.
        let sent = world.strays.len();
        assert!(
            sent < 80,
            "{sent} datagrams to addresses that somebody named"
        );
    }
}

#[test]
fn t23_no_more_devices_are_dialled_than_an_account_can_have() {
    for kind in KINDS {
        let mut world = named(Faults::NONE, |_, devices| {
            let endpoint = |n| SocketAddr::from(([203, 0, 113, n], 1000));
            let device = |n| Entry {
                device_key: DeviceSecret::from_seed([n; 32]).public(),
                candidates: vec![Candidate {
                    endpoint: endpoint(n),
                    kind,
                }],
                ..devices[0].clone()
            };
            *devices = (0..200).map(device).collect();
        });
        say(&mut world, 0, 1, "hello");
        // Of each a check, and the first datagram of a dial where the server has seen it. The second
        // comes when QUIC's pacing lets it.
        let at_once = first_strays(&mut world);
        assert!(
            at_once <= 2 * DEVICES_PER_ACCOUNT_MAX,
            "{at_once} datagrams at once"
        );
    }
}
