//! Who is online, in pages and pushes.

use std::time::Duration;

use common::id::AccountName;
use common::key::DeviceKey;
use common::limits::{ANNOUNCE_INTERVAL, ENTRIES_PER_PAGE_MAX, PRESENCE_LOG_MAX};
use common::wire::rendezvous::{
    Answer, Change, DeviceAnswer, DeviceRequest, DirectoryAnswer, DirectoryPush, DirectoryRequest,
    Push, Refusal, ServerFrame, Status,
};
use rendezvous::server::{Command, ConnectionId, Reply};

use super::world::*;

#[test]
fn a_thousand_devices_are_listed_in_pages() {
    let mut world = World::new();
    let mut members = Vec::new();
    for number in 0..1000u16 {
        members.push(world.online_with_token(number));
    }
    let asker = members[0];
    let first = world.list(asker);
    assert_eq!(first.entries.len(), 1000);
    assert_eq!(first.pages, 1000usize.div_ceil(ENTRIES_PER_PAGE_MAX));
    assert!(
        first
            .entries
            .is_sorted_by_key(|entry| (entry.account.clone(), entry.device_key))
    );
}

#[test]
fn watchers_get_what_changed_and_nothing_else() {
    let mut world = World::new();
    let watcher = world.online("alice", 1);
    let listed = world.list(watcher);
    let bob = world.online("bob", 2);
    let carol = world.online("carol", 3);
    let since = listed.version;
    assert_eq!(
        world.ask(watcher, DirectoryRequest::Watch { since }),
        DirectoryAnswer::Done.into()
    );
    world.advance(Duration::from_millis(50));
    let (version, changes) = world.changes(watcher);
    assert_eq!(version, world.server.directory().version());
    assert_eq!(online_names(&changes), ["bob", "carol"]);

    world.disconnect(bob);
    world.announce(carol, Status::Busy);
    assert!(world.inbox(watcher).is_empty(), "they wait for others");
    world.advance(Duration::from_millis(50));
    let (_, changes) = world.changes(watcher);
    assert!(
        matches!(&changes[..], [Change::Offline { account, .. }, Change::Online(entry)]
            if account.as_str() == "bob" && entry.status == Status::Busy),
        "{changes:?}"
    );
    world.announce(carol, Status::Busy);
    world.advance(Duration::from_millis(50));
    assert!(world.inbox(watcher).is_empty(), "no news");
    assert_eq!(
        world.ask(watcher, DirectoryRequest::Unwatch),
        DirectoryAnswer::Done.into()
    );
    world.announce(carol, Status::Away);
    world.advance(Duration::from_millis(50));
    assert!(world.inbox(watcher).is_empty());
}

#[test]
fn a_version_that_is_too_old_or_of_another_run_is_listed_again() {
    let mut world = World::new();
    let watcher = world.online("alice", 1);
    let since = world.list(watcher).version;
    let crowd: Vec<_> = (0..64).map(|n| world.online_with_token(n)).collect();
    for round in 0..PRESENCE_LOG_MAX / crowd.len() {
        world.advance(ANNOUNCE_INTERVAL);
        assert_eq!(
            world.ask(watcher, DeviceRequest::KeepAlive),
            DeviceAnswer::Done.into()
        );
        for member in &crowd {
            world.announce(*member, [Status::Away, Status::Busy][round % 2]);
        }
    }
    let too_old = world.ask(watcher, DirectoryRequest::Watch { since });
    assert_eq!(too_old, refused(Refusal::ListAgain));
    let since = world.server.directory().version();
    assert_eq!(
        world.ask(watcher, DirectoryRequest::Watch { since }),
        DirectoryAnswer::Done.into()
    );

    world.restart(Duration::from_secs(1));
    let watcher = world.connect(HOME);
    world.log_in(watcher, "alice", &device(1));
    let other_run = world.ask(watcher, DirectoryRequest::Watch { since });
    assert_eq!(other_run, refused(Refusal::ListAgain));
}

/// Whoever has asked about a device is told that it is out, whatever ended it, and nobody else is.
#[test]
fn t47_whoever_asked_about_a_device_is_told_when_it_is_out() {
    let log_out = |world: &mut World| {
        let phone = world.member("alice", 2, HOME);
        let done = world.ask(phone, DeviceRequest::LogOut);
        assert_eq!(done, DeviceAnswer::Done.into());
    };
    let remove = |world: &mut World| {
        let reply = world.command(Command::RemoveAccount(name("alice")));
        assert!(matches!(reply, Reply::Done), "{reply:?}");
    };
    let move_away = |world: &mut World| {
        world.add("mallory");
        let elsewhere = world.connect(HOME);
        world.log_in(elsewhere, "mallory", &device(2));
    };
    let ends = [
        ("logs out", log_out as fn(&mut World)),
        ("is removed with its account", remove),
        ("logs in elsewhere", move_away),
    ];
    for (what, end) in ends {
        for is_online in [true, false] {
            let mut world = World::new();
            let phone = world.member("alice", 2, HOME);
            if !is_online {
                world.disconnect(phone);
            }
            let device_key = device(2).public();
            let [bob, carol, dave] = [("bob", 4), ("carol", 5), ("dave", 6)]
                .map(|(account, number)| world.member(account, number, HOME));
            let account = Some(name("alice"));
            for asker in [bob, bob, dave] {
                assert_eq!(
                    world.ask(asker, DirectoryRequest::WhoIs { device_key }),
                    DirectoryAnswer::Owner {
                        account: account.clone()
                    }
                    .into()
                );
            }
            world.disconnect(dave);
            // Coming and going is not the end of a device.
            let again = world.member("alice", 2, HOME);
            world.disconnect(again);
            assert_eq!(unenrolled(&mut world, bob), [], "it {what}");
            end(&mut world);
            let told = (name("alice"), device_key);
            assert_eq!(unenrolled(&mut world, bob), [told], "it {what}");
            assert_eq!(unenrolled(&mut world, carol), [], "it {what}");
            assert!(world.inbox(dave).is_empty());
            end_again(&mut world);
            assert_eq!(unenrolled(&mut world, bob), [], "once");
        }
    }
}

/// The device logs in again and out again; nobody has asked about it since.
fn end_again(world: &mut World) {
    world.add("alice");
    let again = world.connect(HOME);
    world.log_in(again, "alice", &device(2));
    world.ask(again, DeviceRequest::LogOut);
}

/// The devices that a session is told of that are out.
fn unenrolled(world: &mut World, connection: ConnectionId) -> Vec<(AccountName, DeviceKey)> {
    let inbox = world.inboxes.remove(&connection).unwrap_or_default();
    let told = inbox.into_iter().filter_map(|frame| match frame {
        ServerFrame::Push(Push::Directory(DirectoryPush::Unenrolled {
            account,
            device_key,
        })) => Some((account, device_key)),
        ServerFrame::Push(_) | ServerFrame::Answer { .. } => None,
    });
    told.collect()
}

#[test]
fn the_same_inputs_and_seed_give_the_same_decisions() {
    let run = || {
        let mut world = World::new();
        let c = world.member("alice", 1, HOME);
        world.block("alice");
        let answer = world.ask(c, DeviceRequest::Admit);
        let Answer::Device(DeviceAnswer::Admission { code, .. }) = answer else {
            panic!("{answer:?}");
        };
        (code.to_string(), world.decisions)
    };
    assert!(run() == run(), "not the same");
}
