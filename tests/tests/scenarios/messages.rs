//! Messages and receipts: their order, restarts of either side, disks that refuse them.

use std::time::Duration;

use common::id::MessageId;
use common::limits::{RECIPIENTS_MAX, SENT_KEPT_AFTER};
use common::wire::peer::MessageBody;
use peer::node::command::{Command, CommandError, Event, HistoryQuery, MessageState, Reply};
use tests::sim::net::Faults;
use tests::sim::world::World;

use super::shared::{
    ask, begin_to_say, has_state, linked_outsider, received, reunite, say, separate, shown,
    try_to_say, until, until_delivered, until_online, waiting, world,
};

#[test]
fn a_message_arrives_once_and_comes_back_as_a_receipt() {
    let mut world = world(2, Faults::NONE);
    let id = say(&mut world, 0, 1, "hello");
    until_delivered(&mut world, 0, id);
    assert_eq!(shown(&world, 1), ["hello"]);
    world
        .command(1, Command::MarkRead { ids: vec![id] })
        .unwrap();
    until(&mut world, |world| {
        has_state(world, 0, id, MessageState::Read)
    });
    assert_eq!(received(&world, 1), ["hello"]);
}

/// As with a program that only took it in: it ended, and its links with it.
#[test]
fn an_author_learns_that_a_message_was_read_later() {
    for is_author_away in [false, true] {
        let mut world = world(2, Faults::NONE);
        let id = say(&mut world, 0, 1, "hello");
        until_delivered(&mut world, 0, id);
        world.stop(1, true);
        if is_author_away {
            world.stop(0, true);
        }
        world.start(1);
        until_online(&mut world, 1, true);
        world
            .command(1, Command::MarkRead { ids: vec![id] })
            .unwrap();
        world.pass(Duration::from_secs(5));
        if is_author_away {
            world.start(0);
        }
        until(&mut world, |world| {
            has_state(world, 0, id, MessageState::Read)
        });
    }
}

/// A message waits for no disk: its author may be killed before its own disk has what the other one has.
#[test]
fn whoever_is_killed_between_sending_and_writing_has_what_was_sent() {
    let mut world = world(2, Faults::NONE);
    let first = say(&mut world, 0, 1, "first");
    until_delivered(&mut world, 0, first);
    world.hosts[0].disk_delay = Duration::from_secs(3);
    begin_to_say(&mut world, 0, 1, "second");
    until(&mut world, |world| shown(world, 1) == ["first", "second"]);
    assert_eq!(world.hosts[0].disk.rows().len(), 1, "on the wire alone");
    world.stop(0, false);
    world.hosts[0].disk_delay = Duration::ZERO;
    world.start(0);
    say(&mut world, 0, 1, "third");
    until(&mut world, |world| waiting(world, 0) == 0);
    for host in 0..2 {
        let rows = world.hosts[host].disk.rows().iter();
        let texts: Vec<&str> = rows.map(|row| row.message.body.as_str()).collect();
        assert_eq!(texts, ["first", "second", "third"], "host {host}");
    }
}

/// What a link has carried is kept once the disk takes it, though the person was told that it was refused.
#[test]
fn what_was_sent_while_the_disk_was_full_is_in_both_histories() {
    let mut world = world(2, Faults::NONE);
    let first = say(&mut world, 0, 1, "first");
    until_delivered(&mut world, 0, first);
    world.hosts[0].disk.is_full = true;
    let reply = try_to_say(&mut world, 0, 1, "second");
    assert!(matches!(reply, Err(CommandError::Store(_))), "{reply:?}");
    world.pass(Duration::from_secs(20));
    assert_eq!(world.hosts[0].disk.rows().len(), 1);
    world.hosts[0].disk.is_full = false;
    until(&mut world, |world| world.hosts[0].disk.rows().len() == 2);
    say(&mut world, 0, 1, "third");
    until(&mut world, |world| waiting(world, 0) == 0);
    assert_eq!(received(&world, 1), ["first", "second", "third"]);
    assert_eq!(shown(&world, 1), ["first", "second", "third"]);
}

/// The disk of whoever gets a message is slow: it is shown at once, and the receipt waits for the disk.
#[test]
fn a_message_is_shown_before_the_disk_has_it_and_acknowledged_after() {
    let mut world = world(2, Faults::NONE);
    let first = say(&mut world, 0, 1, "first");
    until_delivered(&mut world, 0, first);
    world.hosts[1].disk_delay = Duration::from_secs(3);
    let second = say(&mut world, 0, 1, "second");
    world.pass(Duration::from_secs(1));
    assert_eq!(shown(&world, 1), ["first", "second"]);
    assert!(!has_state(&world, 0, second, MessageState::Delivered));
    until_delivered(&mut world, 0, second);
    assert_eq!(shown(&world, 1), ["first", "second"]);
}

/// Whoever waits for a receipt gets it, though the other side has read the message before its author's disk has it.
#[test]
fn each_state_of_a_message_is_told_once_and_in_order() {
    for is_first in [false, true] {
        let mut world = world(2, Faults::NONE);
        let first = (!is_first).then(|| say(&mut world, 0, 1, "first"));
        first.inspect(|first| until_delivered(&mut world, 0, *first));
        world.hosts[0].disk_delay = Duration::from_secs(3);
        begin_to_say(&mut world, 0, 1, "hello");
        until(&mut world, |world| received(world, 1).contains(&"hello"));
        let rows = world.hosts[1].disk.rows();
        let ids = rows.iter().map(|row| row.message.id).collect();
        world.command(1, Command::MarkRead { ids }).unwrap();
        world.pass(Duration::from_secs(30));
        let mut told = states_told(&world, 0);
        told.retain(|(id, _)| Some(*id) != first);
        let told: Vec<MessageState> = told.into_iter().map(|(_, state)| state).collect();
        let expected = [MessageState::Delivered, MessageState::Read];
        assert_eq!(told, expected, "first: {is_first}");
    }
}

/// The store is not told of each message that a link has carried, where the other side soon has it.
#[test]
fn that_a_message_was_sent_is_kept_if_it_does_not_arrive_soon() {
    let mut world = world(2, Faults::NONE);
    let first = say(&mut world, 0, 1, "first");
    until_delivered(&mut world, 0, first);
    world.hosts[1].disk_delay = Duration::from_secs(3);
    let second = say(&mut world, 0, 1, "second");
    let state = |world: &World| world.hosts[0].disk.rows()[1].state;
    world.pass(SENT_KEPT_AFTER / 2);
    assert!(has_state(&world, 0, second, MessageState::Sent), "told");
    assert_eq!(state(&world), MessageState::Queued);
    world.pass(SENT_KEPT_AFTER);
    assert_eq!(state(&world), MessageState::Sent);
    until_delivered(&mut world, 0, second);
    until(&mut world, |world| state(world) == MessageState::Delivered);
}

#[test]
fn messages_keep_their_order_under_loss() {
    let faults = Faults {
        loss: 0.25,
        ..Faults::NONE
    };
    let mut world = world(2, faults);
    let texts: Vec<String> = (0..50).map(|n| format!("message {n}")).collect();
    for text in &texts {
        say(&mut world, 0, 1, text);
    }
    until(&mut world, |world| waiting(world, 0) == 0);
    assert_eq!(shown(&world, 1), texts);
}

#[test]
fn a_message_waits_for_a_recipient_who_is_away() {
    let mut world = world(2, Faults::NONE);
    world.crash_server();
    world.break_control(0);
    world.break_control(1);
    let id = say(&mut world, 0, 1, "are you there?");
    world.pass(Duration::from_secs(20));
    assert_eq!(shown(&world, 1), [""; 0]);
    world.start_server();
    until_delivered(&mut world, 0, id);
    assert_eq!(shown(&world, 1), ["are you there?"]);
}

#[test]
fn a_restarted_peer_is_reached_at_its_new_address() {
    for pause in [0, 10, 40] {
        let mut world = world(2, Faults::NONE);
        let id = say(&mut world, 0, 1, "first");
        until_delivered(&mut world, 0, id);
        world.stop(1, false);
        world.roam(1);
        world.start(1);
        world.pass(Duration::from_secs(pause));
        let before = world.now;
        let id = say(&mut world, 0, 1, "second");
        until_delivered(&mut world, 0, id);
        assert_eq!(shown(&world, 1), ["second"]);
        let took = world.now - before;
        assert!(took < Duration::from_secs(5), "{took:?} after {pause} s");
    }
}

#[test]
fn a_peer_that_restarts_on_its_port_is_reached_at_once() {
    let mut world = world(2, Faults::NONE);
    let id = say(&mut world, 0, 1, "first");
    until_delivered(&mut world, 0, id);
    world.stop(1, false);
    world.start(1);
    let before = world.now;
    let id = say(&mut world, 0, 1, "second");
    until_delivered(&mut world, 0, id);
    let took = world.now - before;
    assert!(took < Duration::from_secs(2), "{took:?}");
}

#[test]
fn what_may_have_arrived_is_not_taken_back_after_a_restart_either() {
    let mut world = world(2, Faults::NONE);
    let id = say(&mut world, 0, 1, "hello");
    until_delivered(&mut world, 0, id);
    // Carried at once by a link that leads nowhere.
    separate(&mut world);
    let carried = say(&mut world, 0, 1, "secret");
    assert!(has_state(&world, 0, carried, MessageState::Sent));
    for in_good_order in [true, false] {
        world.stop(0, in_good_order);
        world.start(0);
        world.pass(Duration::from_secs(1));
        let later = say(&mut world, 0, 1, "not yet");
        let expected = [(carried, MessageState::Sent), (later, MessageState::Queued)];
        assert_eq!(outbox(&mut world), expected);
        let ids = vec![carried, later];
        let reply = ask(&mut world, 0, Command::Withdraw { ids });
        assert_eq!(reply, Ok(Reply::Withdrawn(vec![later])));
        let told = Event::Withdrawn {
            to: world.hosts[1].account.clone(),
            ids: vec![later],
        };
        assert!(world.hosts[0].events.contains(&told));
        assert_eq!(outbox(&mut world), expected[..1]);
    }
    reunite(&mut world);
    until_delivered(&mut world, 0, carried);
}

#[test]
fn what_waited_and_was_carried_then_is_not_taken_back_after_a_restart() {
    let mut world = world(2, Faults::NONE);
    world.stop(1, true);
    world.pass(Duration::from_secs(60));
    let id = say(&mut world, 0, 1, "secret");
    world.start(1);
    until(&mut world, |world| {
        has_state(world, 0, id, MessageState::Sent)
    });
    separate(&mut world);
    world.stop(0, true);
    world.start(0);
    assert_eq!(outbox(&mut world), [(id, MessageState::Sent)]);
}

#[test]
fn a_receipt_is_told_once_and_only_for_what_was_written() {
    let mut world = world(2, Faults::NONE);
    world.stop(1, true);
    let id = say(&mut world, 0, 1, "hello");
    world.model.outsiders.insert(world.hosts[1].account.clone());
    let mut bob = linked_outsider(&mut world, 1, 0);
    let page = bob.last_page().unwrap();
    for _ in 0..2 {
        let mut bob = linked_outsider(&mut world, 1, 0);
        bob.confirm(&mut world, &page);
    }
    bob.pass(&mut world, Duration::from_secs(1));
    let expected = [(id, MessageState::Sent), (id, MessageState::Delivered)];
    assert_eq!(states_told(&world, 0), expected);
}

/// What an author was told of messages, in its order.
fn states_told(world: &World, host: usize) -> Vec<(MessageId, MessageState)> {
    let told = world.hosts[host].events.iter().filter_map(|event| {
        let Event::MessageState { id, state, .. } = event else {
            return None;
        };
        Some((*id, *state))
    });
    told.collect()
}

/// What waits for others, and how far it is.
fn outbox(world: &mut World) -> Vec<(MessageId, MessageState)> {
    let Ok(Reply::Messages(items)) = ask(world, 0, Command::Outbox) else {
        panic!("the outbox is always there");
    };
    items
        .into_iter()
        .map(|item| (item.id, item.state))
        .collect()
}

#[test]
fn ids_come_back_in_the_order_of_the_recipients() {
    let mut world = world(2, Faults::NONE);
    let (zed, bob) = ("zed".parse().unwrap(), world.hosts[1].account.clone());
    world.model.on_typed(0, &bob, "hello");
    let command = Command::Send {
        to: vec![Clone::clone(&zed), bob, zed],
        body: MessageBody::try_from("hello".to_owned()).unwrap(),
        sent: world.wall,
    };
    let reply = ask(&mut world, 0, command);
    let Ok(Reply::Queued(ids)) = reply else {
        panic!("not queued: {reply:?}");
    };
    assert_eq!(ids.len(), 2);
    until_delivered(&mut world, 0, ids[1]);
    assert!(!has_state(&world, 0, ids[0], MessageState::Delivered));
}

#[test]
fn thousands_of_absent_recipients_do_not_stop_a_node() {
    let mut world = world(1, Faults::NONE);
    for batch in 0..80 {
        let to = (0..RECIPIENTS_MAX).map(|n| format!("absent-{batch}-{n}").parse().unwrap());
        let command = Command::Send {
            to: to.collect(),
            body: MessageBody::try_from("hello".to_owned()).unwrap(),
            sent: world.wall,
        };
        let reply = ask(&mut world, 0, command);
        assert!(matches!(reply, Ok(Reply::Queued(_))), "{reply:?}");
    }
    assert_eq!(waiting(&world, 0), 80 * RECIPIENTS_MAX);
    world.break_control(0);
    until_online(&mut world, 0, true);
    world.pass(Duration::from_millis(500));
    assert_eq!(world.violation, None);
}

#[test]
fn a_message_that_cannot_be_kept_comes_again() {
    let mut world = world(2, Faults::NONE);
    world.hosts[1].disk.refused_messages = 2;
    let id = say(&mut world, 0, 1, "hello");
    until_delivered(&mut world, 0, id);
    assert_eq!(world.hosts[1].disk.refused_messages, 0);
    assert_eq!(shown(&world, 1), ["hello"]);
    assert_eq!(received(&world, 1), ["hello"]);
}

#[test]
fn a_message_that_was_shown_before_the_disk_refused_it_is_not_shown_again() {
    let mut world = world(2, Faults::NONE);
    let texts = ["one", "two", "three", "four"];
    for (text, refusals) in texts.into_iter().zip([0, 2, 1, 0]) {
        world.hosts[1].disk.refused_messages = refusals;
        let id = say(&mut world, 0, 1, text);
        until_delivered(&mut world, 0, id);
        assert_eq!(world.hosts[1].disk.refused_messages, 0);
    }
    assert_eq!(shown(&world, 1), texts);
}

#[test]
fn a_message_that_cannot_be_kept_is_not_overtaken() {
    let mut world = world(2, Faults::NONE);
    separate(&mut world);
    let texts = ["one", "two", "three"];
    for text in texts {
        say(&mut world, 0, 1, text);
    }
    world.hosts[1].disk.refused_messages = 1;
    reunite(&mut world);
    until(&mut world, |world| waiting(world, 0) == 0);
    assert_eq!(world.hosts[1].disk.refused_messages, 0);
    assert_eq!(shown(&world, 1), texts);
    assert_eq!(received(&world, 1), texts);
}

#[test]
fn a_receipt_that_a_full_disk_refused_is_remembered_later() {
    let mut world = world(2, Faults::NONE);
    world.hosts[0].disk.refused_receipts = 3;
    say(&mut world, 0, 1, "hello");
    until(&mut world, |world| waiting(world, 0) == 0);
    assert_eq!(world.hosts[0].disk.refused_receipts, 0);
}

#[test]
fn a_note_to_oneself_is_kept_once() {
    let mut world = world(1, Faults::NONE);
    let id = say(&mut world, 0, 0, "milk");
    world.pass(Duration::from_secs(1));
    assert_eq!(outbox(&mut world), []);
    let Ok(Reply::Messages(items)) = ask(
        &mut world,
        0,
        Command::History(HistoryQuery {
            limit: 9,
            ..HistoryQuery::default()
        }),
    ) else {
        panic!("no history");
    };
    let items = items
        .iter()
        .map(|item| (item.id, item.body.as_str(), item.state));
    assert_eq!(
        items.collect::<Vec<_>>(),
        [(id, "milk", MessageState::Delivered)]
    );
}
