//! Watching who comes and goes, when the server has more to tell than it does.

use super::*;

/// Alice watches, and sees Bob and Carol.
fn watching() -> World {
    let mut world = World::new(&["alice", "bob", "carol"]);
    world.command(0, Command::Watch);
    world.until("the watch", watches);
    world
}

fn watches(world: &World) -> bool {
    let session = world.hosts[0].session.as_ref();
    session.is_some_and(|session| session.watches)
}

/// The server ends Alice's watch.
fn end_watch(world: &mut World) {
    world.hosts[0].session.as_mut().unwrap().watches = false;
    world.send(
        0,
        &ServerFrame::Push(Push::Directory(DirectoryPush::ListAgain)),
    );
    world.settle();
}

/// What Alice was told of this account.
fn told(world: &World, name: &str) -> Vec<&'static str> {
    let views = world.hosts[0]
        .events
        .iter()
        .filter_map(|event| match event {
            Event::Presence(view) => Some(view),
            _ => None,
        });
    let words = views.filter_map(|view| match view {
        PresenceView::Online(who) if who.account.as_str() == name => Some("online"),
        PresenceView::Offline { account, .. } if account.as_str() == name => Some("offline"),
        _ => None,
    });
    words.collect()
}

#[test]
fn when_the_server_ends_the_watch_people_hear_of_what_they_missed() {
    let mut world = watching();
    let before = world.now;
    end_watch(&mut world);
    // Bob leaves, and nobody says so.
    world.hosts[1].session.as_mut().unwrap().online = None;
    world.pass(Duration::from_millis(900));
    assert!(!watches(&world), "not at once");
    world.until("the next watch", watches);
    let pause = world.now - before;
    assert!(pause <= Duration::from_secs(3), "{pause:?}");
    assert_eq!(told(&world, "bob"), ["offline"]);
    assert!(told(&world, "carol").is_empty(), "nothing new of her");
    // From here on it is as ever.
    let carol = world.hosts[2].entry().unwrap();
    let away = Entry {
        status: Status::Away,
        ..carol
    };
    world.push_presence(&away);
    world.settle();
    assert_eq!(told(&world, "carol"), ["online"]);
}

#[test]
fn a_listing_is_finished_when_the_watch_ends_in_the_middle_of_it() {
    let mut world = watching();
    let now = world.now;
    let list = CommandId(99);
    let input = Input::Command(list, Command::List);
    world.hosts[0].node.handle_input(input, now);
    end_watch(&mut world);
    let Ok(Reply::Directory(listed)) = &world.hosts[0].replies[&list] else {
        panic!("no directory");
    };
    assert_eq!(listed.len(), 3);
    world.until("the next watch", watches);
}

#[test]
fn whoever_came_while_nothing_was_pushed_is_still_found() {
    let mut world = World::new(&["alice", "bob"]);
    // Bob is away, and Alice has something for him: she watches for him.
    let bob = world.hosts[1].session.as_mut().unwrap().online.take();
    let id = world.say(0, "bob", "hello");
    world.until("the watch", watches);
    // Long enough that she looks for him once a minute only.
    world.pass(Duration::from_secs(130));
    end_watch(&mut world);
    world.hosts[1].session.as_mut().unwrap().online = bob;
    let before = world.now;
    world.until("delivery", |world| {
        world.hosts[0].has_state(id, MessageState::Delivered)
    });
    let took = world.now - before;
    assert!(took <= Duration::from_secs(4), "{took:?}");
}

#[test]
fn whoever_left_during_a_disconnect_is_told_of_afterwards() {
    let mut world = watching();
    world.break_session(0);
    assert!(!watches(&world));
    world.hosts[1].session.as_mut().unwrap().online = None;
    world.until("the next watch", watches);
    assert_eq!(told(&world, "bob"), ["offline"]);
    assert!(told(&world, "carol").is_empty(), "nothing new of her");
}
