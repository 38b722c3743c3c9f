//! Links: which of several carries a message, and what is said before one ends.

use std::time::Duration;

use common::limits::FAREWELL_TIMEOUT;
use common::wire::peer::VERSION;
use common::wire::rendezvous::{Answer, IntroductionAnswer, Refusal, ServerFrame};
use peer::node::command::{Command, Event, PathRule, Reply, Way};
use tests::sim::net::{Faults, NatOptions, Realm, Site};
use tests::sim::outsider::Outsider;
use tests::sim::world::{Home, World, WorldOptions};

use super::shared::{
    OPEN, acquainted, ask, count, crash, entry, lie_about_devices, pass_both, say, shown,
    twice_linked, until, until_delivered, until_online, world,
};

/// Messages that an outsider got.
fn texts(outsider: &Outsider) -> Vec<String> {
    outsider.texts()
}

#[test]
fn a_device_behind_a_nat_that_forgets_soon_can_be_dialled_at_any_time() {
    for later in 0..8 {
        let home = |realm| Home {
            realm,
            ..Home::PUBLIC
        };
        let mut world = World::new(&WorldOptions {
            nats: vec![NatOptions {
                expiry: Duration::from_secs(12),
                ..OPEN
            }],
            homes: [Realm::Public, Realm::Behind(0)].map(home).into(),
            ..WorldOptions::new(7, 0, Faults::NONE)
        });
        world.stop(0, true);
        world.hosts[0].rule = PathRule::Direct;
        world.start(0);
        world.pass(Duration::from_secs(120 + 3 * later));
        let began = world.now;
        let id = say(&mut world, 0, 1, "hello");
        until_delivered(&mut world, 0, id);
        let took = world.now.saturating_duration_since(began);
        assert!(took < Duration::from_secs(1), "{took:?}");
    }
}

#[test]
fn a_pinned_device_is_heard_while_the_server_is_away() {
    let mut world = acquainted(2);
    let alice = entry(&world, 0);
    for (from, to) in [(Site::Host(0), Site::Server), (Site::Server, Site::Host(0))] {
        world.net.cut(from, to);
    }
    world.break_control(0);
    until_online(&mut world, 0, false);
    // Bob has restarted somewhere else, and hears where she was.
    crash(&mut world, 1);
    lie_about_devices(&mut world, 1, vec![alice]);
    let id = say(&mut world, 1, 0, "is the server away?");
    until_delivered(&mut world, 1, id);
    assert_eq!(shown(&world, 0), ["is the server away?"]);
}

#[test]
fn a_remaining_link_takes_over_what_a_lost_one_carried() {
    let (mut world, mut first, mut second) = twice_linked(1, 0);
    assert_eq!((&first.lost, &second.lost), (&None, &None));
    assert_eq!(count(&world, 0, "links of a device"), 2);
    let Ok(Reply::Status(status)) = ask(&mut world, 0, Command::Status) else {
        panic!("no status");
    };
    assert_eq!(status.links.len(), 1, "people see the one in use");
    // It goes over the newer one, whose other end has never heard of it.
    say(&mut world, 0, 1, "hello");
    second.pass(&mut world, Duration::from_millis(100));
    first.pass(&mut world, Duration::from_millis(10));
    assert_eq!(
        (texts(&first), texts(&second)),
        (vec![], vec!["hello".to_owned()])
    );
    let before = world.now;
    second.close(&mut world);
    while texts(&first).is_empty() {
        first.pass(&mut world, Duration::from_millis(10));
        assert!(world.now - before < Duration::from_secs(1));
    }
    assert_eq!(texts(&first), ["hello"]);
}

#[test]
fn what_a_silent_link_carries_goes_over_another_one() {
    let (mut world, mut first, mut second) = twice_linked(1, 0);
    let before = world.now;
    say(&mut world, 0, 1, "hello");
    // The second one is not there any more, and nobody says so.
    while texts(&first).is_empty() {
        first.pass(&mut world, Duration::from_millis(10));
        assert!(world.now - before < Duration::from_secs(3));
    }
    // What comes later does not even try.
    say(&mut world, 0, 1, "still there?");
    first.pass(&mut world, Duration::from_millis(200));
    assert_eq!(texts(&first), ["hello", "still there?"]);
    // It was an outage.
    pass_both(
        &mut world,
        [&mut first, &mut second],
        Duration::from_secs(5),
    );
    // It has not confirmed anything on this one either.
    assert_eq!(texts(&second), ["hello", "still there?"]);
    say(&mut world, 0, 1, "welcome back");
    pass_both(
        &mut world,
        [&mut first, &mut second],
        Duration::from_secs(1),
    );
    assert_eq!(texts(&second).last(), Some(&"welcome back".to_owned()));
}

#[test]
fn an_older_link_that_lives_outlasts_outages() {
    let (mut world, mut first, mut second) = twice_linked(1, 0);
    pass_both(
        &mut world,
        [&mut first, &mut second],
        Duration::from_secs(5),
    );
    world.net.cut(Site::Host(0), Site::Elsewhere);
    world.net.cut(Site::Elsewhere, Site::Host(0));
    say(&mut world, 0, 1, "hello");
    pass_both(
        &mut world,
        [&mut first, &mut second],
        Duration::from_secs(9),
    );
    world.net.heal();
    pass_both(
        &mut world,
        [&mut first, &mut second],
        Duration::from_secs(9),
    );
    assert_eq!((&first.lost, &second.lost), (&None, &None));
    assert_eq!(count(&world, 0, "links of a device"), 2);
}

#[test]
fn an_older_link_is_not_given_up_while_the_newer_one_is_silent_too() {
    let (mut world, mut first, mut second) = twice_linked(1, 0);
    // All are cut just after another one was made.
    let elsewhere = ([198, 51, 100, 98], 6000).into();
    let secret = world.hosts[1].secret;
    let mut third = Outsider::dial(&mut world, secret, elsewhere, 0, &[VERSION]);
    world.net.cut(Site::Host(0), Site::Elsewhere);
    world.net.cut(Site::Elsewhere, Site::Host(0));
    pass_both(
        &mut world,
        [&mut first, &mut second],
        Duration::from_secs(6),
    );
    world.net.heal();
    for _ in 0..200 {
        third.pass(&mut world, Duration::from_millis(10));
        pass_both(
            &mut world,
            [&mut first, &mut second],
            Duration::from_millis(10),
        );
    }
    assert_eq!(
        (&first.lost, &second.lost, &third.lost),
        (&None, &None, &None)
    );
}

#[test]
fn a_receipt_that_was_lost_is_there_before_the_link_is_closed() {
    let mut world = acquainted(2);
    world.net.cut(Site::Host(1), Site::Host(0));
    let id = say(&mut world, 0, 1, "goodbye");
    until(&mut world, |world| shown(world, 1) == ["hello", "goodbye"]);
    // Bob has it and says so, which is lost, and leaves for good.
    until(&mut world, |world| {
        let node = world.hosts[1].node.as_ref();
        node.is_some_and(|node| !node.owes_receipts())
    });
    world.net.heal();
    let before = world.now;
    world.stop(1, true);
    assert!(world.now - before < FAREWELL_TIMEOUT);
    until_delivered(&mut world, 0, id);
}

/// Nobody says where Bob is, and no multicast leads to him.
#[test]
fn a_device_that_was_reached_before_is_dialled_there_while_the_server_is_away() {
    let mut world = acquainted(2);
    world.pass(Duration::from_secs(5));
    world.crash_server();
    // His link ends with him, and he is back at the same address.
    world.stop(1, false);
    world.start(1);
    world.pass(Duration::from_secs(60));
    until_online(&mut world, 0, false);
    let began = world.now;
    let id = say(&mut world, 0, 1, "is the server away?");
    until_delivered(&mut world, 0, id);
    let took = world.now.saturating_duration_since(began);
    eprintln!("without a server: {took:?}");
    assert!(took <= Duration::from_secs(2), "{took:?}");
    assert_eq!(shown(&world, 1), ["is the server away?"]);
}

#[test]
fn a_link_to_a_device_that_hangs_says_so() {
    let mut world = acquainted(2);
    world.pass(Duration::from_secs(5));
    let silent = |world: &mut World| {
        let Ok(Reply::Status(status)) = ask(world, 0, Command::Status) else {
            panic!("no status");
        };
        status.links.iter().any(|link| link.is_silent)
    };
    assert!(!silent(&mut world));
    // As after SIGSTOP: nothing of it runs, and the server does not know yet.
    world.hosts[1].asleep_until = Some(world.now + Duration::from_secs(60));
    world.pass(Duration::from_secs(9));
    assert!(silent(&mut world));
}

/// The ways that the first host was told of, direct or not.
fn ways_told(world: &World) -> Vec<bool> {
    let told = world.hosts[0].events.iter().filter_map(|event| {
        let Event::Path(changed) = event else {
            return None;
        };
        Some(matches!(changed.way, Way::Direct { .. }))
    });
    told.collect()
}

/// The link of the first host goes straight to the other one, or through the relay.
fn until_way(world: &mut World, is_direct: bool) {
    for _ in 0..120 {
        let Ok(Reply::Status(status)) = ask(world, 0, Command::Status) else {
            panic!("no status");
        };
        let way = status.links.first().map(|link| link.way);
        if way.is_some_and(|way| matches!(way, Way::Direct { .. }) == is_direct) {
            return;
        }
        world.pass(Duration::from_secs(1));
    }
    panic!("the way is another one");
}

#[test]
fn a_lasting_change_of_a_links_way_is_told_and_a_short_one_is_not() {
    let mut world = world(2, Faults::NONE);
    let id = say(&mut world, 0, 1, "hello");
    until_delivered(&mut world, 0, id);
    until_way(&mut world, true);
    world.pass(Duration::from_secs(10));
    assert_eq!(ways_told(&world), [false; 0], "the first way is no news");
    for (from, to) in [(0, 1), (1, 0)] {
        world.net.cut(Site::Host(from), Site::Host(to));
    }
    until_way(&mut world, false);
    world.pass(Duration::from_secs(4));
    assert_eq!(ways_told(&world), [false]);
    world.net.heal();
    until_way(&mut world, true);
    assert_eq!(ways_told(&world), [false], "not at once");
    world.pass(Duration::from_secs(35));
    assert_eq!(ways_told(&world), [false, true]);
}

#[test]
fn whoever_uses_the_relay_alone_is_told_once_that_there_is_none() {
    for (rule, expected) in [(PathRule::Relayed, 1), (PathRule::Any, 0)] {
        let mut world = world(1, Faults::NONE);
        world.stop(0, true);
        world.hosts[0].rule = rule;
        world.tamper(0, |frame| {
            if let ServerFrame::Answer { answer, .. } = frame
                && matches!(
                    answer,
                    Answer::Introduction(IntroductionAnswer::Allocated { .. })
                )
            {
                *answer = Answer::Refused(Refusal::RelayOff);
            }
            true
        });
        world.start(0);
        until_online(&mut world, 0, true);
        world.pass(Duration::from_secs(1));
        world.break_control(0);
        until_online(&mut world, 0, false);
        until_online(&mut world, 0, true);
        world.pass(Duration::from_secs(1));
        let told = world.hosts[0].events.iter();
        let told = told.filter(|event| matches!(event, Event::RelayOff));
        assert_eq!(told.count(), expected, "{rule:?}");
        let Ok(Reply::Status(status)) = ask(&mut world, 0, Command::Status) else {
            panic!("no status");
        };
        assert_eq!(status.has_relay, Some(false));
        assert_eq!(status.lacks_relay(), rule == PathRule::Relayed);
    }
}
