//! Watching who comes and goes, when the server has more to tell than it does.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use common::wire::rendezvous::{Answer, DirectoryAnswer, DirectoryPush, Push, ServerFrame};
use peer::node::command::{Command, Event, PresenceView, Reply};
use tests::sim::net::{Faults, Site};
use tests::sim::world::World;

use super::shared::{answers, overhear, say, until, until_delivered, until_online, world};

const END: ServerFrame = ServerFrame::Push(Push::Directory(DirectoryPush::ListAgain));

/// The first host watches, and sees the two others.
fn watching() -> World {
    let mut world = world(3, Faults::NONE);
    world.command(0, Command::Watch).unwrap();
    world.pass(Duration::from_secs(2));
    world
}

/// In place of the next change the server ends the first host's watch; it tells nothing further before it
/// is asked to list. What it sends is kept.
fn end_at_next_change(world: &mut World) -> Rc<RefCell<Vec<ServerFrame>>> {
    let heard = Rc::new(RefCell::new(Vec::new()));
    let kept = Rc::clone(&heard);
    world.tamper(0, move |frame| {
        let mut kept = kept.borrow_mut();
        if matches!(frame, ServerFrame::Push(_)) && pages(&kept) == 0 {
            if kept.contains(&END) {
                return false;
            }
            *frame = END;
        }
        kept.push(frame.clone());
        true
    });
    heard
}

fn pages(heard: &[ServerFrame]) -> usize {
    answers(heard, |answer| {
        matches!(answer, Answer::Directory(DirectoryAnswer::Page { .. }))
    })
}

/// What the first host was told of this account since it began to watch.
fn told(world: &World, name: &str) -> Vec<&'static str> {
    let words = world.hosts[0].events.iter().filter_map(|event| {
        let Event::Presence(view) = event else {
            return None;
        };
        match view {
            PresenceView::Online(who) => (who.account.as_str() == name).then_some("online"),
            PresenceView::Offline { account, .. } => {
                (account.as_str() == name).then_some("offline")
            }
        }
    });
    words.collect()
}

#[test]
fn when_the_server_ends_the_watch_people_hear_of_what_they_missed() {
    let mut world = watching();
    let heard = end_at_next_change(&mut world);
    world.stop(1, true);
    until(&mut world, |_| !heard.borrow().is_empty());
    let before = world.now;
    world.pass(Duration::from_millis(900));
    assert_eq!(pages(&heard.borrow()), 0, "not at once");
    assert_eq!(told(&world, "p1"), [""; 0]);
    until(&mut world, |world| told(world, "p1") == ["offline"]);
    let pause = world.now - before;
    assert!(pause <= Duration::from_secs(3), "{pause:?}");
    assert_eq!(told(&world, "p2"), [""; 0], "nothing new");
    // From here on it is as ever.
    world.roam(2);
    until(&mut world, |world| told(world, "p2").ends_with(&["online"]));
}

#[test]
fn a_listing_is_finished_when_the_watch_ends_in_the_middle_of_it() {
    let mut world = watching();
    let heard = overhear(&mut world, 0);
    let id = world.command(0, Command::List).unwrap();
    world.forge(0, &END);
    until(&mut world, |world| world.hosts[0].replies.contains_key(&id));
    let Ok(Reply::Directory(listed)) = &world.hosts[0].replies[&id] else {
        panic!("no directory");
    };
    assert_eq!(listed.len(), 3);
    until(&mut world, |_| pages(&heard.borrow()) == 2);
}

#[test]
fn whoever_came_while_nothing_was_pushed_is_still_found() {
    let mut world = world(2, Faults::NONE);
    world.stop(1, true);
    // The first host has something for the second: it watches for it.
    let id = say(&mut world, 0, 1, "hello");
    // Long enough that it looks once a minute only.
    world.pass(Duration::from_secs(130));
    let heard = end_at_next_change(&mut world);
    world.start(1);
    until(&mut world, |_| heard.borrow().contains(&END));
    let before = world.now;
    until_delivered(&mut world, 0, id);
    let took = world.now - before;
    assert!(took <= Duration::from_secs(4), "{took:?}");
    assert!(pages(&heard.borrow()) > 0);
}

#[test]
fn without_a_server_whoever_ends_says_so_to_whom_they_are_linked_with() {
    let mut world = watching();
    let [id, other] = [1, 2].map(|to| say(&mut world, 0, to, "hello"));
    until_delivered(&mut world, 0, id);
    until_delivered(&mut world, 0, other);
    world.crash_server();
    until_online(&mut world, 0, false);
    assert_eq!(told(&world, "p1"), [""; 0]);
    world.stop(1, true);
    until(&mut world, |world| told(world, "p1") == ["offline"]);
    // Who is cut off has said nothing.
    world.net.cut(Site::Host(2), Site::Host(0));
    world.net.cut(Site::Host(0), Site::Host(2));
    world.stop(2, true);
    world.pass(Duration::from_secs(60));
    assert_eq!(told(&world, "p2"), [""; 0]);
}

#[test]
fn whoever_left_during_a_disconnect_is_told_of_afterwards() {
    let mut world = watching();
    let heard = overhear(&mut world, 0);
    world.break_control(0);
    world.stop(1, true);
    until(&mut world, |_| pages(&heard.borrow()) == 1);
    world.pass(Duration::from_secs(1));
    assert_eq!(told(&world, "p1"), ["offline"]);
    assert_eq!(told(&world, "p2"), [""; 0], "nothing new");
}

#[test]
fn whoever_finds_the_server_again_later_than_others_has_not_left() {
    let mut world = watching();
    world.crash_server();
    until_online(&mut world, 0, false);
    // One is slow to come back, one does not come back at all.
    for host in [1, 2] {
        world.stop(host, false);
    }
    world.start_server();
    until_online(&mut world, 0, true);
    world.pass(Duration::from_secs(10));
    world.start(1);
    until_online(&mut world, 1, true);
    world.pass(Duration::from_secs(5));
    assert!(!told(&world, "p1").contains(&"offline"), "it is back");
    assert_eq!(told(&world, "p2"), [""; 0], "it may still come");
    until(&mut world, |world| told(world, "p2") == ["offline"]);
    world.pass(Duration::from_secs(60));
    assert!(!told(&world, "p1").contains(&"offline"), "it is there");
    assert_eq!(told(&world, "p2"), ["offline"], "once");
}
