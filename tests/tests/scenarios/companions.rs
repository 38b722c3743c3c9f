//! The devices of one account: what one has, the others get, whoever else is there.

use std::time::Duration;

use common::limits::KNOWN_ACCOUNTS_MAX;
use common::wire::peer::{List, LogFrame, PeerFrame};
use common::wire::rendezvous::{Answer, IntroductionAnswer};
use peer::node::command::{Command, Direction, MessageState};
use tests::sim::world::World;

use super::accounts::two_devices;
use super::admission::approve;
use super::shared::{
    acquainted, answers, ask, count, has_state, linked_outsider, overhear, say, until,
    until_delivered, until_online,
};

/// Alice, and two approved devices of Bob; the second one is away.
fn companions() -> World {
    let mut world = two_devices();
    approve(&mut world, 2);
    world.stop(2, true);
    world
}

/// The texts in the history of a host, with which way they went.
fn history(world: &World, host: usize) -> Vec<(Direction, String)> {
    let rows = world.hosts[host].disk.rows().iter();
    let texts = rows.map(|row| (row.direction, row.message.body.as_str().to_owned()));
    texts.collect()
}

fn expected(texts: &[(Direction, &str)]) -> Vec<(Direction, String)> {
    let texts = texts.iter();
    texts
        .map(|(way, text)| (*way, (*text).to_owned()))
        .collect()
}

#[test]
fn a_device_that_was_away_catches_up_from_another_of_its_account() {
    let mut world = companions();
    let id = say(&mut world, 0, 1, "to the one that is there");
    until_delivered(&mut world, 0, id);
    let id = say(&mut world, 1, 0, "and back");
    until_delivered(&mut world, 1, id);
    world.stop(0, true);
    world.start(2);
    let both = expected(&[
        (Direction::Received, "to the one that is there"),
        (Direction::Sent, "and back"),
    ]);
    until(&mut world, |world| history(world, 2) == both);
    assert_eq!(history(&world, 1), both);
    // It is told, too, that the other side has what was written to it.
    until(&mut world, |world| {
        has_state(world, 2, id, MessageState::Delivered)
    });
}

#[test]
fn notes_to_oneself_are_on_every_device() {
    let mut world = companions();
    say(&mut world, 1, 1, "milk");
    world.start(2);
    until(&mut world, |world| history(world, 2).len() == 1);
    say(&mut world, 2, 1, "bread");
    let both = expected(&[(Direction::Sent, "milk"), (Direction::Sent, "bread")]);
    until(&mut world, |world| history(world, 1) == both);
    assert_eq!(history(&world, 2), both);
    assert_eq!(history(&world, 0), []);
}

#[test]
fn what_is_read_on_one_device_is_read_on_the_other() {
    let mut world = companions();
    world.start(2);
    until_online(&mut world, 2, true);
    let id = say(&mut world, 0, 1, "on which one?");
    until_delivered(&mut world, 0, id);
    until(&mut world, |world| history(world, 2).len() == 1);
    ask(&mut world, 2, Command::MarkRead { ids: vec![id] }).unwrap();
    until(&mut world, |world| {
        world.hosts[1].disk.rows()[0].state == MessageState::Read
            && has_state(world, 0, id, MessageState::Read)
    });
}

/// Whoever of them comes later looks for the others: nobody waits for them by asking the server.
#[test]
fn the_server_is_not_asked_again_and_again_for_a_device_that_is_away() {
    let mut world = companions();
    let heard = overhear(&mut world, 1);
    world.pass(Duration::from_secs(3600));
    let is_introduced = |answer: &Answer| {
        matches!(
            answer,
            Answer::Introduction(IntroductionAnswer::Introduced { .. })
        )
    };
    let asked = answers(&heard.borrow(), is_introduced);
    assert!(asked <= 2, "{asked}");
    world.start(2);
    until_online(&mut world, 2, true);
    say(&mut world, 1, 1, "linked");
    until(&mut world, |world| history(world, 2).len() == 1);
}

/// Only a device of one's own account is asked whom that knows.
#[test]
fn t43_whom_somebody_else_knows_is_nobodys_business() {
    let mut world = acquainted(2);
    let mut device = linked_outsider(&mut world, 0, 1);
    let heard = overhear(&mut world, 1);
    let before = count(&world, 1, "conversations");
    let names = (0..KNOWN_ACCOUNTS_MAX).map(|n| format!("q{n}").parse().unwrap());
    let known = LogFrame::Known(List::fill(names).unwrap());
    device.say(&mut world, &PeerFrame::Log(known));
    device.pass(&mut world, Duration::from_secs(5));
    assert_eq!(device.lost, None);
    assert_eq!(count(&world, 1, "conversations"), before);
    let is_identity = |answer: &Answer| matches!(answer, Answer::Identity(_));
    assert_eq!(answers(&heard.borrow(), is_identity), 0);
}
