//! Whose word is whose: stolen keys, servers that lie, words that come back.

use std::time::Duration;

use common::key::DeviceSecret;
use common::wire::peer::VERSION;
use common::wire::rendezvous::{Candidate, CandidateKind, Change, Entry};
use peer::node::command::{Command, MessageState};
use tests::sim::net::{Faults, Realm, Site};
use tests::sim::outsider::Outsider;

use super::shared::{
    acquainted, be_honest, count, crash, entry, has_state, lie_about_devices, lie_about_owners,
    linked_outsider, new_keys, outsider, presence, say, shown, until_delivered, until_online,
    waiting, world,
};

#[test]
fn t31_a_device_that_the_server_does_not_know_is_not_heard() {
    let mut world = world(2, Faults::NONE);
    lie_about_owners(&mut world, 1, None);
    let id = say(&mut world, 0, 1, "I am your bank");
    world.pass(Duration::from_secs(30));
    assert_eq!(shown(&world, 1), [""; 0]);
    assert!(!has_state(&world, 0, id, MessageState::Delivered));
}

#[test]
fn t31_a_pinned_device_that_was_removed_is_not_heard_any_more() {
    let mut world = acquainted(2);
    lie_about_owners(&mut world, 0, None);
    crash(&mut world, 1);
    say(&mut world, 1, 0, "still me");
    world.pass(Duration::from_secs(30));
    assert_eq!(shown(&world, 0), [""; 0]);
}

#[test]
fn t34_bobs_own_key_does_not_answer_in_alices_place() {
    let mut world = acquainted(2);
    let (listed, address) = (entry(&world, 0), world.hosts[0].addresses.clone());
    // Alice is away. Somebody with a copy of Bob's key sits where the server says that she is.
    world.stop(0, false);
    world.net.place(Site::Host(0), Realm::Public, &[]);
    let stolen = world.hosts[1].secret;
    let mut mallory = Outsider::listen(&mut world, stolen, address[0]);
    crash(&mut world, 1);
    lie_about_devices(&mut world, 1, vec![listed]);
    let id = say(&mut world, 1, 0, "for alice only");
    mallory.pass(&mut world, Duration::from_secs(20));
    assert!(mallory.lost.is_some(), "she is dialled");
    assert_eq!((&mallory.greeting, &mallory.heard), (&None, &vec![]));
    assert!(!has_state(&world, 1, id, MessageState::Delivered));
    assert_eq!(count(&world, 1, "links of a device"), 0);
    // When she is back it arrives.
    world.net.place(Site::Host(0), Realm::Public, &address);
    world.start(0);
    until_delivered(&mut world, 1, id);
    assert_eq!(shown(&world, 0), ["for alice only"]);
}

#[test]
fn t34_bobs_own_key_does_not_reach_bob_as_somebody_else() {
    for account in [0, 1] {
        let mut world = acquainted(3);
        // The server may even lie about whose key it is.
        let owner = world.hosts[account].account.clone();
        lie_about_owners(&mut world, 1, Some(owner));
        world.hosts[2].secret = world.hosts[1].secret;
        let mallory = outsider(&mut world, 2, 1, &[VERSION]);
        assert!(mallory.lost.is_some(), "as p{account}");
        assert!(mallory.greeting.is_none());
        assert_eq!(new_keys(&world, 1), ["p0"], "the own key is nobody's");
    }
}

#[test]
fn t32_links_between_versions_end_with_a_word() {
    let mut world = world(3, Faults::NONE);
    let older = outsider(&mut world, 2, 1, &[VERSION, VERSION + 1]);
    assert_eq!(older.lost, None, "one version in common is enough");
    let own = older.greeting.expect("the other side greets, too");
    assert_eq!(own.versions, [VERSION]);
    for versions in [&[VERSION + 1][..], &[], &[VERSION; 17]] {
        let mut world = self::world(3, Faults::NONE);
        let mut newer = outsider(&mut world, 2, 1, versions);
        newer.pass(&mut world, Duration::from_secs(1));
        let lost = newer.lost.expect("it ends");
        assert!(lost.contains("another version; upgrade"), "{lost}");
        assert_eq!(count(&world, 1, "links"), 0);
    }
}

#[test]
fn t32_a_message_that_comes_back_to_its_author_is_no_receipt() {
    let mut world = world(4, Faults::NONE);
    let (alice, text) = (world.hosts[0].account.clone(), "are you there?");
    for n in [2, 3] {
        world.stop(n, true);
        world.model.on_typed(n, &alice, text);
    }
    // What she wrote waits: nobody named so is online.
    let id = say(&mut world, 0, 2, text);
    let mut carol = linked_outsider(&mut world, 2, 0);
    carol.pass(&mut world, Duration::from_secs(1));
    assert_eq!(
        carol.texts(),
        [text],
        "it is sent as soon as there is a link"
    );
    let page = carol.last_page().unwrap();

    // Back to where it came from, over the same link and over somebody else's, who says to have it, too.
    carol.give(&mut world, &page);
    let mut dave = linked_outsider(&mut world, 3, 0);
    dave.give(&mut world, &page);
    assert_eq!((&carol.lost, &dave.lost), (&None, &None));
    let mut erin = linked_outsider(&mut world, 3, 0);
    erin.confirm(&mut world, &page);
    assert!(!has_state(&world, 0, id, MessageState::Delivered));
    assert_eq!(waiting(&world, 0), 1, "it still waits");
    assert_eq!(shown(&world, 0), [""; 0], "nobody has written to her");

    world.model.outsiders.insert(world.hosts[2].account.clone());
    let mut carol = linked_outsider(&mut world, 2, 0);
    carol.confirm(&mut world, &page);
    assert!(has_state(&world, 0, id, MessageState::Delivered));
    assert_eq!(world.violation, None);
}

#[test]
fn t35_a_key_that_moves_to_another_account_is_refused() {
    let mut world = acquainted(3);
    world.stop(2, true);
    // There is no link, and nothing that she remembers but the pin.
    crash(&mut world, 0);
    until_online(&mut world, 0, true);
    let moved = Entry {
        account: world.hosts[2].account.clone(),
        ..entry(&world, 1)
    };
    lie_about_devices(&mut world, 0, vec![moved]);
    say(&mut world, 0, 2, "for carol only");
    for _ in 0..200 {
        world.pass(Duration::from_millis(10));
        assert_eq!(count(&world, 0, "links"), 0, "the key is pinned to p1");
    }
    assert_eq!(shown(&world, 1), ["hello"]);
}

#[test]
fn t35_an_owner_named_wrongly_ends_the_link_of_a_pinned_key() {
    let mut world = acquainted(3);
    world.stop(2, true);
    // The server says from now on that Bob's key is Carol's.
    let carol = world.hosts[2].account.clone();
    lie_about_owners(&mut world, 0, Some(carol));
    crash(&mut world, 1);
    let id = say(&mut world, 1, 0, "who am I?");
    world.pass(Duration::from_secs(10));
    assert_eq!(shown(&world, 0), [""; 0], "nothing of it is Carol's");
    assert_eq!(new_keys(&world, 0), ["p1"], "once, at the start");
    assert_eq!(count(&world, 0, "links of a device"), 0);

    // Once the server tells the truth again, they talk.
    be_honest(&mut world, 0);
    until_delivered(&mut world, 1, id);
    assert_eq!(shown(&world, 0), ["who am I?"]);
}

#[test]
fn t35_presence_that_is_replayed_or_reordered_changes_nobodys_key() {
    let mut world = acquainted(3);
    world.stop(2, true);
    world.command(0, Command::Watch).unwrap();
    say(&mut world, 0, 2, "for carol only");
    // There is no link to where he is now.
    crash(&mut world, 1);
    world.pass(Duration::from_secs(1));
    let real = entry(&world, 1);
    let offline = Change::Offline {
        account: real.account.clone(),
        device_key: real.device_key,
    };
    // Where Bob was a week ago, and a key of his that somebody else holds.
    let old = Entry {
        candidates: vec![Candidate {
            endpoint: ([203, 0, 113, 7], 1000).into(),
            kind: CandidateKind::Host,
        }],
        ..real.clone()
    };
    let foreign = Entry {
        device_key: DeviceSecret::from_seed([66; 32]).public(),
        ..old.clone()
    };
    let renamed = Entry {
        account: world.hosts[2].account.clone(),
        ..real
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
        world.forge(0, &presence(version, change));
    }
    world.pass(Duration::from_secs(10));
    let id = say(&mut world, 0, 1, "still you?");
    until_delivered(&mut world, 0, id);
    assert_eq!(shown(&world, 1), ["still you?"]);
    assert_eq!(new_keys(&world, 0), ["p1"], "once, at the start");
}
