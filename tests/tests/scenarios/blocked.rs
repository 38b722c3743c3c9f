//! Hosts whose firewall lets no UDP through: their control connection carries what the relay carries.

use std::time::Duration;

use common::limits::RELAY_BYTES_PER_SECOND_OF_ACCOUNT;
use peer::node::command::{Carrier, Command, Reply, Way};
use tests::sim::login::{self, Entry};
use tests::sim::net::Faults;
use tests::sim::world::{World, WorldOptions};

use super::shared::{
    acquainted, answer, ask, end, offer, say, shown, until, until_delivered, until_online, world,
};

/// Two hosts, of which some have no UDP from the start.
fn blocked(hosts: &[usize]) -> World {
    let mut world = world(2, Faults::NONE);
    for host in hosts {
        world.stop(*host, true);
        world.net.block_udp(*host, true);
        world.start(*host);
        until_online(&mut world, *host, true);
    }
    world
}

/// How the packets of a host's only link go.
fn way(world: &mut World, host: usize) -> Option<Way> {
    let Ok(Reply::Status(status)) = ask(world, host, Command::Status) else {
        panic!("no status");
    };
    status.links.first().map(|link| link.way)
}

const OVER_CONTROL: Option<Way> = Some(Way::Relayed {
    over: Carrier::Control,
    per_s_max: RELAY_BYTES_PER_SECOND_OF_ACCOUNT,
});

#[test]
fn a_device_without_udp_is_reached_and_reaches_others_through_the_relay() {
    for hosts in [&[0][..], &[1], &[0, 1]] {
        let mut world = blocked(hosts);
        let began = world.now;
        let id = say(&mut world, 0, 1, "hello");
        until_delivered(&mut world, 0, id);
        let took = world.now.saturating_duration_since(began);
        eprintln!("without udp: {hosts:?}, first message {took:?}");
        assert!(took <= Duration::from_secs(3), "{took:?}");
        let began = world.now;
        let id = say(&mut world, 1, 0, "and back");
        until_delivered(&mut world, 1, id);
        let took = world.now.saturating_duration_since(began);
        assert!(took <= Duration::from_millis(300), "{took:?}");
        for host in [0, 1] {
            let over_control = way(&mut world, host) == OVER_CONTROL;
            assert_eq!(over_control, hosts.contains(&host), "{hosts:?}");
        }
    }
}

#[test]
fn a_file_arrives_without_udp() {
    let mut world = blocked(&[0, 1]);
    let (transfer, bytes) = offer(&mut world, 3_000_000);
    answer(&mut world, transfer, true);
    end(&mut world, 0, transfer);
    let arrived = world.hosts[1].arrived.len();
    assert_eq!((arrived, bytes.len()), (1, 3_000_000));
}

#[test]
fn links_go_on_over_the_control_connection_when_udp_is_blocked_and_back() {
    let mut world = acquainted(2);
    world.pass(Duration::from_secs(5));
    assert!(matches!(way(&mut world, 0), Some(Way::Direct { .. })));
    world.net.block_udp(0, true);
    let began = world.now;
    let id = say(&mut world, 0, 1, "blocked");
    until_delivered(&mut world, 0, id);
    let took = world.now.saturating_duration_since(began);
    eprintln!("udp blocked: a message after {took:?}");
    assert!(took <= Duration::from_secs(8), "{took:?}");
    assert_eq!(way(&mut world, 0), OVER_CONTROL);
    world.net.block_udp(0, false);
    let began = world.now;
    until(&mut world, |world| {
        world.now.saturating_duration_since(began) > Duration::from_secs(30)
    });
    let id = say(&mut world, 1, 0, "and back");
    until_delivered(&mut world, 1, id);
    assert_eq!(shown(&world, 1), ["hello", "blocked"]);
    world.pass(Duration::from_secs(300));
    assert!(matches!(way(&mut world, 0), Some(Way::Direct { .. })));
}

/// Whoever types the password while logged in leaves one session for another, and links do not wait for that.
#[test]
fn datagrams_of_one_session_do_not_go_out_before_the_next_one() {
    let mut world = World::new(&WorldOptions {
        uses_passwords: true,
        ..WorldOptions::new(7, 2, Faults::NONE)
    });
    world.net.block_udp(0, true);
    world.pass(Duration::from_secs(5));
    for round in 0..20 {
        say(&mut world, 0, 1, &format!("number {round}"));
        login::enter(&mut world, 0, Entry::LogIn);
        say(&mut world, 0, 1, "and another one");
        world.pass(Duration::from_millis(5 * round));
        say(&mut world, 0, 1, "and one more");
        world.pass(Duration::from_secs(2));
        assert_eq!(world.violation, None, "round {round}");
    }
    let id = say(&mut world, 0, 1, "the last one");
    until_delivered(&mut world, 0, id);
}
