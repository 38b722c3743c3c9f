//! Whose word is whose: stolen keys, servers that lie, words that come back.

use common::wire::peer::{ChatFrame, Conversation, PeerFrame, ReceiptState, VERSION};

use super::outsider::Outsider;
use super::*;

/// Two who have talked, so that each has pinned the other's key.
fn acquainted() -> World {
    let mut world = World::new(&["alice", "bob"]);
    let id = world.say(0, "bob", "hello");
    world.until("delivery", |world| {
        world.hosts[0].has_state(id, MessageState::Delivered)
    });
    world
}

#[test]
fn t34_bobs_own_key_does_not_answer_in_alices_place() {
    let mut world = acquainted();
    // Alice is away. Somebody with a copy of Bob's key sits where the server says that she is.
    world.invented = vec![world.hosts[0].entry().unwrap()];
    let mut mallory = Host::new(2, "bob", world.now);
    mallory.address = world.hosts[0].address;
    let alice = std::mem::replace(&mut world.hosts[0], mallory);
    world.crash(1);
    let id = world.say(1, "alice", "for alice only");
    world.pass(Duration::from_secs(20));
    assert!(world.hosts[0].texts().is_empty());
    assert!(!world.hosts[1].has_state(id, MessageState::Delivered));
    assert!(world.hosts[1].node.effects.links.linked().is_empty());
    // When she is back it arrives.
    world.hosts[0] = alice;
    world.until("delivery", |world| {
        world.hosts[1].has_state(id, MessageState::Delivered)
    });
    assert_eq!(world.hosts[0].texts(), ["for alice only"]);
}

#[test]
fn t34_bobs_own_key_does_not_reach_bob_as_somebody_else() {
    for account in ["alice", "bob"] {
        let mut world = acquainted();
        // The server may even lie about whose key it is.
        let own = world.hosts[1].key;
        world.guests.push((own, account.parse().unwrap()));
        let mallory = Outsider::dial(&mut world, 2, account, 1, &[VERSION]);
        assert!(mallory.lost.is_some(), "as {account}");
        assert!(mallory.greeting.is_none());
        let told = world.hosts[1].events.iter().any(|event| {
            matches!(event, Event::NewKey { fingerprint, .. } if *fingerprint == own.fingerprint().to_string())
        });
        assert!(!told, "the own key is nobody's new device");
    }
}

#[test]
fn t32_links_between_versions_end_with_a_word() {
    let mut world = World::new(&["alice", "bob"]);
    let older = Outsider::dial(&mut world, 9, "carol", 1, &[VERSION, VERSION + 1]);
    assert_eq!(older.lost, None, "one version in common is enough");
    let own = older.greeting.expect("the other side greets, too");
    assert_eq!(own.versions, [VERSION]);
    for versions in [&[VERSION + 1][..], &[], &[VERSION; 17]] {
        let mut world = World::new(&["alice", "bob"]);
        let mut newer = Outsider::dial(&mut world, 9, "carol", 1, versions);
        newer.pass(&mut world, Duration::from_secs(1));
        let lost = newer.lost.expect("it ends");
        assert!(lost.contains("another version; upgrade"), "{lost}");
        assert!(world.hosts[1].node.effects.links.linked().is_empty());
    }
}

#[test]
fn t32_a_message_that_comes_back_to_its_author_is_no_receipt() {
    let mut world = World::new(&["alice", "bob"]);
    // What she wrote waits: nobody named Carol is online.
    let id = world.say(0, "carol", "are you there?");
    let mut carol = Outsider::dial(&mut world, 9, "carol", 0, &[VERSION]);
    carol.pass(&mut world, Duration::from_secs(1));
    let sent = carol.heard.iter().find_map(|frame| match frame {
        PeerFrame::Chat(ChatFrame::Message(message)) => Some(message.clone()),
        _ => None,
    });
    let sent = sent.expect("it is sent as soon as there is a link");
    assert_eq!(sent.id, id);

    // Back to where it came from, over the same link and over somebody else's.
    carol.say(
        &mut world,
        &PeerFrame::Chat(ChatFrame::Message(sent.clone())),
    );
    let mut dave = Outsider::dial(&mut world, 10, "dave", 0, &[VERSION]);
    dave.say(
        &mut world,
        &PeerFrame::Chat(ChatFrame::Message(sent.clone())),
    );
    let receipt = PeerFrame::Chat(ChatFrame::Receipt {
        id,
        state: ReceiptState::Delivered,
    });
    dave.say(&mut world, &receipt);
    assert!(!world.hosts[0].has_state(id, MessageState::Delivered));
    assert_eq!(world.hosts[0].node.chat.waiting(), 1, "it still waits");
    // They are words of those who sent them, under their own names.
    let authors = world.hosts[0]
        .events
        .iter()
        .filter_map(|event| match event {
            Event::Message(item) => Some(item.with.to_string()),
            _ => None,
        });
    assert_eq!(authors.collect::<Vec<_>>(), ["carol", "dave"]);

    carol.say(&mut world, &receipt);
    assert!(world.hosts[0].has_state(id, MessageState::Delivered));
    assert_eq!(sent.conversation, Conversation::Direct);
}

#[test]
fn t35_an_owner_named_wrongly_ends_the_link_of_a_pinned_key() {
    let mut world = acquainted();
    let bob = world.hosts[1].key;
    // The server says from now on that Bob's key is Carol's.
    world.guests.push((bob, "carol".parse().unwrap()));
    world.crash(1);
    world.say(1, "alice", "who am I?");
    world.pass(Duration::from_secs(10));
    let carol: AccountName = "carol".parse().unwrap();
    assert!(world.hosts[0].node.effects.links.link_to(&carol).is_none());
    assert!(world.hosts[0].node.effects.links.linked().is_empty());
    let wrong = world.hosts[0].events.iter().any(|event| match event {
        Event::Message(item) => item.with == carol,
        Event::NewKey { account, .. } => *account == carol,
        _ => false,
    });
    assert!(!wrong, "nothing of it is Carol's");

    // Once the server tells the truth again, they talk.
    world.guests.clear();
    world.until("delivery", |world| world.hosts[0].texts() == ["who am I?"]);
}

#[test]
fn t35_presence_that_is_replayed_or_reordered_changes_nobodys_key() {
    let mut world = acquainted();
    world.command(0, Command::Watch);
    world.say(0, "carol", "for carol only");
    // There is no link to where he is now.
    world.crash(1);
    world.pass(Duration::from_secs(1));
    let real = world.hosts[1].entry().unwrap();
    let offline = Change::Offline {
        account: real.account.clone(),
        device_key: real.device_key,
    };
    // Where Bob was a week ago, and a key of his that somebody else holds.
    let old = Entry {
        candidates: vec![host_candidate(([203, 0, 113, 7], 1000))],
        ..real.clone()
    };
    let foreign = Entry {
        device_key: DeviceSecret::from_seed([66; 32]).public(),
        ..old.clone()
    };
    let renamed = Entry {
        account: "carol".parse().unwrap(),
        ..real.clone()
    };
    let replayed = [
        (9, Change::Online(old.clone())),
        (3, offline.clone()),
        (3, Change::Online(foreign)),
        (u64::MAX, Change::Online(renamed)),
        (1, Change::Online(old)),
        (2, offline),
    ];
    for (version, change) in replayed {
        let version = DirectoryVersion(version);
        let changes = vec![change];
        world.send(
            0,
            &ServerFrame::Push(Push::Directory(DirectoryPush::Presence {
                version,
                changes,
            })),
        );
        world.settle();
    }
    world.pass(Duration::from_secs(10));
    let id = world.say(0, "bob", "still you?");
    world.until("delivery", |world| {
        world.hosts[0].has_state(id, MessageState::Delivered)
    });
    assert_eq!(world.hosts[1].texts(), ["still you?"]);
    let pinned = world.hosts[0]
        .events
        .iter()
        .filter_map(|event| match event {
            Event::NewKey { account, .. } => Some(account.to_string()),
            _ => None,
        });
    assert_eq!(pinned.collect::<Vec<_>>(), ["bob"], "once, at the start");
}
