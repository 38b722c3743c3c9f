//! Devices that are out: logged out, or removed with their account.

use std::time::Duration;

use common::wire::peer::{ConversationNumber, LogFrame, PeerFrame};
use peer::node::command::{
    Command, CommandError, ConnectionState, Event, MessageState, Reply, TransferState,
};
use tests::sim::login;
use tests::sim::outsider::Outsider;
use tests::sim::world::World;

use super::shared::{
    acquainted, ask, count, crash, has_state, linked_outsider, say, shown, start_file, try_to_say,
    until_online,
};

/// Time within which a device that is out neither gets nor is heard.
const OUT_WITHIN: Duration = Duration::from_secs(1);

fn links(world: &World, host: usize) -> usize {
    count(world, host, "links")
}

fn reason(world: &mut World, host: usize) -> String {
    match login::connection(world, host) {
        Some(ConnectionState::Offline {
            reason,
            retry_in_s: None,
            ..
        }) => reason,
        other => panic!("{other:?}"),
    }
}

/// Something that only an account's own devices say.
fn words() -> PeerFrame {
    PeerFrame::Log(LogFrame::Typing {
        conversation: ConversationNumber(0),
    })
}

/// The other side ends the link of a device that does not end it by itself, and does not hear it.
#[track_caller]
fn is_cut_off(world: &mut World, mut device: Outsider) {
    assert!(device.lost.is_some(), "its link ends");
    let before = shown(world, 1).len();
    let words = words();
    device.say(world, &words);
    assert_eq!(shown(world, 1).len(), before);
}

#[test]
fn t47_a_device_that_logs_out_ends_its_links_and_says_so() {
    let mut world = acquainted(2);
    assert_eq!((links(&world, 0), links(&world, 1)), (1, 1));
    assert_eq!(ask(&mut world, 0, Command::LogOut), Ok(Reply::Done));
    world.pass(OUT_WITHIN);
    assert_eq!((links(&world, 0), links(&world, 1)), (0, 0));
    assert!(reason(&mut world, 0).contains("not logged in"));
    let refused = try_to_say(&mut world, 0, 1, "anybody?");
    assert_eq!(refused, Err(CommandError::NotLoggedIn));
    let id = say(&mut world, 1, 0, "are you there?");
    world.pass(Duration::from_secs(30));
    assert!(!has_state(&world, 1, id, MessageState::Delivered));
    assert_eq!(shown(&world, 0), [""; 0]);
}

#[test]
fn t47_a_removed_account_ends_on_its_own_devices_too() {
    let mut world = acquainted(2);
    world.remove_account(0);
    world.pass(OUT_WITHIN);
    assert_eq!((links(&world, 0), links(&world, 1)), (0, 0));
    assert!(reason(&mut world, 0).contains("removed this account"));
    let listed = ask(&mut world, 0, Command::List);
    assert_eq!(listed, Err(CommandError::AccountRemoved));
    let refused = try_to_say(&mut world, 0, 1, "anybody?");
    assert_eq!(refused, Err(CommandError::AccountRemoved));
}

#[test]
fn t47_a_file_that_a_log_out_breaks_off_says_so_on_both_sides() {
    for leaver in [0, 1] {
        let mut world = acquainted(2);
        start_file(&mut world, 16 << 20);
        world.pass(Duration::from_millis(20));
        assert_eq!(ask(&mut world, leaver, Command::LogOut), Ok(Reply::Done));
        world.pass(OUT_WITHIN);
        let why = |host: usize| {
            let mut events = world.hosts[host].events.iter();
            events.find_map(|event| {
                let Event::Transfer { state, .. } = event else {
                    return None;
                };
                let TransferState::Failed { reason, .. } = state else {
                    return None;
                };
                Some(reason.clone())
            })
        };
        let (own, other) = (why(leaver), why(1 - leaver));
        assert!(
            own.as_ref()
                .is_some_and(|why| why.contains("this device is not logged in")),
            "{own:?}"
        );
        assert!(
            other.as_ref().is_some_and(|why| why.contains("logged out")),
            "{other:?}"
        );
    }
}

#[test]
fn t47_a_device_that_keeps_its_link_is_cut_off_within_a_second() {
    let mut world = acquainted(2);
    let mut device = linked_outsider(&mut world, 0, 1);
    world
        .model
        .on_typed(0, &world.hosts[1].account.clone(), "it is me");
    let secret = world.hosts[0].secret;
    device.write_text(&mut world, secret, [0, 1], "it is me");
    assert_eq!(shown(&world, 1).last(), Some(&"it is me"));
    world.remove_account(0);
    device.pass(&mut world, OUT_WITHIN);
    is_cut_off(&mut world, device);
}

#[test]
fn t47_whoever_was_without_the_server_asks_again() {
    let mut world = acquainted(2);
    let mut device = linked_outsider(&mut world, 0, 1);
    world.crash_server();
    until_online(&mut world, 1, false);
    world.remove_account(0);
    device.pass(&mut world, Duration::from_secs(10));
    assert_eq!(device.lost, None, "nobody can know it");
    world.start_server();
    until_online(&mut world, 1, true);
    device.pass(&mut world, OUT_WITHIN);
    is_cut_off(&mut world, device);
}

#[test]
fn t47_a_device_that_learns_late_that_it_is_out_ends_its_links() {
    let mut world = acquainted(2);
    world.crash_server();
    until_online(&mut world, 0, false);
    world.remove_account(0);
    assert_eq!(links(&world, 0), 1);
    world.start_server();
    until_online(&mut world, 1, true);
    world.pass(Duration::from_secs(60));
    assert_eq!((links(&world, 0), links(&world, 1)), (0, 0));
    assert!(reason(&mut world, 0).contains("does not know this device any more"));
    // Nor does anybody reach it who has its key pinned and does not ask.
    crash(&mut world, 1);
    world.pass(Duration::from_secs(10));
    assert_eq!(links(&world, 0), 0);
}
