//! Devices on one network find each other there, and neighbours lie.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use common::key::{DeviceKey, DeviceSecret};
use common::lan::LanName;
use common::limits::{
    CHECK_LEN, LAN_NAME_LIFETIME, LAN_NAMES_PER_DEVICE_MAX, UNPROVEN_FIRST_MINUTE_LEN_MAX,
    UNPROVEN_MINUTE_LEN_MAX,
};
use peer::node::PathRule;
use peer::node::command::{Command, Event, MessageState, NodeStatus, Reply, TransferState, Way};
use peer::node::io::LanInput;
use tests::sim::net::Site;
use tests::sim::world::World;

use super::shared::{
    CLOSED, answer, ask, count, crash, end, has_state, households, offer, say, shown, start_file,
    until, until_delivered, until_online, waiting,
};

const MINUTE: Duration = Duration::from_secs(60);

/// Two people on one network and a third on another have talked. Now the server is away, and all have restarted.
fn without_server() -> World {
    without_server_with(|_| {})
}

fn without_server_with(change: impl FnOnce(&mut World)) -> World {
    let mut world = households([CLOSED, CLOSED], &[0, 0, 1]);
    for (from, to) in [(0, 1), (0, 2)] {
        let id = say(&mut world, from, to, "hello");
        until_delivered(&mut world, from, id);
    }
    world.crash_server();
    for host in 0..3 {
        world.stop(host, true);
    }
    // NATs have forgotten whom they let in.
    world.pass(2 * CLOSED.expiry);
    change(&mut world);
    for host in 0..3 {
        world.start(host);
    }
    world.pass(Duration::from_secs(2));
    world
}

fn status(world: &mut World, host: usize) -> NodeStatus {
    match ask(world, host, Command::Status) {
        Ok(Reply::Status(status)) => status,
        other => panic!("{other:?}"),
    }
}

fn key(world: &World, host: usize) -> DeviceKey {
    DeviceSecret::from_seed(world.hosts[host].secret).public()
}

/// Somebody on the first host's network announces a device of the second person's there.
fn lie(world: &mut World, number: u8, endpoints: Vec<SocketAddr>) {
    let name = LanName::new([number; 8], &key(world, 1));
    let said = LanInput::Heard { name, endpoints };
    world.tell(0, said, Duration::ZERO);
}

#[test]
fn t40_on_one_network_those_who_know_each_other_talk_without_the_server() {
    let mut world = without_server();
    let [bob, carol] = [1, 2].map(|host| world.hosts[host].account.clone());
    let here = status(&mut world, 0);
    assert_eq!(
        here.nearby[..],
        [bob.clone()][..],
        "carol is on another network"
    );
    assert!(here.links.is_empty(), "nobody is linked for nothing");

    let before = world.now;
    let to_bob = say(&mut world, 0, 1, "the server is away");
    let to_carol = say(&mut world, 0, 2, "can you hear me?");
    until_delivered(&mut world, 0, to_bob);
    assert!(world.now - before < Duration::from_secs(1));
    let read = Command::MarkRead {
        ids: world.hosts[1].unread.clone(),
    };
    ask(&mut world, 1, read).unwrap();
    until(&mut world, |world| {
        has_state(world, 0, to_bob, MessageState::Read)
    });
    let back = say(&mut world, 1, 0, "so what?");
    until_delivered(&mut world, 1, back);

    let links = status(&mut world, 0).links;
    assert_eq!(links.len(), 1, "{links:?}");
    let remote = world.hosts[1].addresses[0];
    assert_eq!(
        (&links[0].account, links[0].way),
        (&bob, Way::Direct { remote })
    );
    assert_eq!(waiting(&world, 0), 1, "for carol");

    start_file(&mut world, 3_000_000);
    until(&mut world, |world| !world.hosts[1].arrived.is_empty());

    world.start_server();
    until_delivered(&mut world, 0, to_carol);
    assert_eq!(shown(&world, 2), ["can you hear me?"]);
    assert!(
        !world.hosts[0]
            .events
            .iter()
            .any(|event| { matches!(event, Event::Nearby { account, .. } if *account == carol) })
    );
}

#[test]
fn a_file_goes_to_a_neighbour_without_the_server() {
    let mut world = without_server();
    let (transfer, _) = offer(&mut world, 100_000);
    answer(&mut world, transfer, true);
    let state = end(&mut world, 0, transfer);
    assert!(matches!(state, TransferState::Done { .. }), "{state:?}");
}

#[test]
fn a_neighbour_that_comes_later_is_found_at_once() {
    let mut world = without_server();
    world.stop(1, false);
    let id = say(&mut world, 0, 1, "are you there?");
    // By now the next look is a minute away.
    world.pass(5 * MINUTE);
    assert!(!has_state(&world, 0, id, MessageState::Delivered));
    let left = status(&mut world, 0).nearby;
    assert!(left.is_empty(), "his name is not valid any more: {left:?}");
    world.start(1);
    let before = world.now;
    until_delivered(&mut world, 0, id);
    assert!(world.now - before < Duration::from_secs(2));
}

/// One that the server does not reach, and that reaches nobody else.
#[test]
fn a_neighbour_that_the_server_calls_offline_is_found_on_the_network() {
    let mut world = without_server();
    world.stop(1, true);
    world.start_server();
    until_online(&mut world, 0, true);
    let server = Site::Server;
    let bob = Site::Host(1);
    world.net.cut(bob, server);
    world.net.cut(server, bob);
    world.start(1);
    world.pass(Duration::from_secs(2));
    let id = say(&mut world, 0, 1, "no internet?");
    until_delivered(&mut world, 0, id);
    assert_eq!(shown(&world, 1), ["no internet?"]);
}

#[test]
fn whoever_moves_to_another_network_is_found_there_under_another_name() {
    let mut world = without_server();
    let before = world.announced(0).unwrap().name;
    let realm = world.net.realm(Site::Host(2));
    world.move_to(0, realm);
    world.pass(Duration::from_secs(2));
    assert_ne!(world.announced(0).unwrap().name, before);
    let carol = world.hosts[2].account.clone();
    assert_eq!(status(&mut world, 0).nearby, [carol]);
    let id = say(&mut world, 0, 2, "hello neighbour");
    until_delivered(&mut world, 0, id);
}

#[test]
fn a_name_is_replaced_from_time_to_time_and_nobody_is_lost_by_that() {
    let mut world = without_server();
    let mut names = BTreeSet::new();
    for _ in 0..3 {
        names.insert(world.announced(1).unwrap().name);
        world.pass(LAN_NAME_LIFETIME);
        assert_eq!(status(&mut world, 0).nearby.len(), 1);
    }
    assert_eq!(names.len(), 3);
    let left = world.hosts[0]
        .events
        .iter()
        .any(|event| matches!(event, Event::Nearby { is_here: false, .. }));
    assert!(
        !left,
        "the next name is heard before the last one is taken back"
    );
}

#[test]
fn whoever_is_not_to_be_found_on_the_network_is_not() {
    for (who, change) in [
        ("bob says --no-lan", (1, true, PathRule::Any)),
        ("bob hides his addresses", (1, false, PathRule::Relayed)),
        ("alice says --no-lan", (0, true, PathRule::Any)),
        ("alice hides her addresses", (0, false, PathRule::Relayed)),
    ] {
        let (host, is_off, rule) = change;
        let mut world = without_server_with(|world| {
            (world.hosts[host].lan, world.hosts[host].rule) = (!is_off, rule);
            // Nor is anybody where the others remember them.
            (0..3).for_each(|host| world.roam(host));
        });
        assert_eq!(world.announced(host), None, "{who}");
        let before = world.hosts[host].sent_directly;
        let id = say(&mut world, 0, 1, "can you hear me?");
        world.pass(MINUTE);
        assert!(!has_state(&world, 0, id, MessageState::Delivered), "{who}");
        if rule == PathRule::Relayed {
            assert_eq!(world.hosts[host].sent_directly, before, "{who}");
        }
    }
}

/// Whoever knows the key of a contact's device announces it at the addresses of others, again and again.
#[test]
fn t22_a_neighbour_that_lies_has_little_sent_to_others_and_nothing_outside() {
    let mut world = without_server();
    world.stop(1, true);
    world.net.has_strays = true;
    say(&mut world, 0, 1, "are you there?");
    let mut number = 0;
    for second in 0_u16..240 {
        let near = (0..8).map(|at| SocketAddr::from(([192, 168, 1, 100 + at], 1000 + second)));
        let outside = ["203.0.113.7:443", "127.0.0.1:1", "169.254.169.254:80"];
        let outside = outside.map(|it| it.parse().unwrap());
        number += 1;
        lie(
            &mut world,
            number,
            outside.into_iter().chain(near).collect(),
        );
        world.pass(Duration::from_secs(1));
    }
    assert!(!world.strays.is_empty(), "somebody is checked");
    let first = world.strays[0].at;
    let mut minutes = vec![0; 5];
    for stray in &world.strays {
        let SocketAddr::V4(to) = stray.destination else {
            panic!("{stray:?}");
        };
        assert_eq!(to.ip().octets()[..3], [192, 168, 1], "{to}");
        assert_eq!(stray.bytes.len(), CHECK_LEN, "nothing but checks: {to}");
        let minute = (stray.at - first).as_secs() / MINUTE.as_secs();
        minutes[minute as usize] += stray.bytes.len();
    }
    assert!(minutes[0] <= UNPROVEN_FIRST_MINUTE_LEN_MAX, "{minutes:?}");
    let is_within = minutes[1..]
        .iter()
        .all(|len| *len <= UNPROVEN_MINUTE_LEN_MAX);
    assert!(is_within, "{minutes:?}");
    let names = count(&world, 0, "names of a device on the network");
    assert_eq!(names, LAN_NAMES_PER_DEVICE_MAX);
}

/// Another device of the network is announced as a contact's.
#[test]
fn t31_whoever_is_announced_as_a_contact_gets_nothing_of_the_contacts() {
    let mut world = without_server();
    let realm = world.net.realm(Site::Host(0));
    world.stop(1, true);
    world.move_to(2, realm);
    let elsewhere = world.hosts[2].addresses.clone();
    lie(&mut world, 1, elsewhere);
    world.pass(Duration::from_secs(1));
    let bob = world.hosts[1].account.clone();
    assert!(status(&mut world, 0).nearby.contains(&bob), "so it is said");
    let id = say(&mut world, 0, 1, "for bob alone");
    world.pass(MINUTE);
    assert!(!has_state(&world, 0, id, MessageState::Delivered));
    assert_eq!(shown(&world, 2), [] as [&str; 0]);
    assert!(status(&mut world, 0).links.is_empty());
    // He is found as soon as he is there, whatever else is said.
    world.start(1);
    until_delivered(&mut world, 0, id);
    assert_eq!(shown(&world, 1), ["for bob alone"]);
}

#[test]
fn strangers_on_one_network_do_not_find_each_other_without_the_server() {
    let mut world = households([CLOSED], &[0, 0]);
    world.crash_server();
    for host in [0, 1] {
        crash(&mut world, host);
    }
    let id = say(&mut world, 0, 1, "hello stranger");
    world.pass(MINUTE);
    assert!(!has_state(&world, 0, id, MessageState::Delivered));
    assert!(status(&mut world, 0).nearby.is_empty());
}
