//! Who is online, in pages and pushes.

use std::time::Duration;

use common::limits::{ANNOUNCE_INTERVAL, ENTRIES_PER_PAGE_MAX, PRESENCE_LOG_MAX};
use common::wire::rendezvous::{
    Answer, Change, DeviceAnswer, DeviceRequest, DirectoryAnswer, DirectoryRequest, Refusal, Status,
};

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
