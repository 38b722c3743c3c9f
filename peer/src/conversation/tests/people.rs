//! Who is there, the connection, and what an owner must know.

use super::*;
use crate::node::command::{PathChanged, Way as LinkWay};

#[test]
fn who_is_online_is_listed() {
    let mut stage = Stage::with_bob();
    let devices = vec![listed("carol", false)];
    let wanted = stage.exchange("/list", Ok(Reply::Directory(devices.clone())));
    assert_eq!(wanted.items, [Item::Directory(devices)]);
}

#[test]
fn only_whom_one_talks_to_comes_and_leaves() {
    let mut stage = Stage::with_bob();
    assert_eq!(stage.event(came("bob")).items, [presence("bob", true)]);
    assert_eq!(stage.event(came("bob")).items, [], "no news");
    assert_eq!(stage.event(left("bob")).items, [presence("bob", false)]);
    let own = Event::Presence(PresenceView::Online(listed("alice", true)));
    for event in [came("carol"), left("carol"), own] {
        assert_eq!(stage.event(event).items, []);
    }
}

#[test]
fn turning_to_somebody_who_is_not_there_is_told_at_once() {
    let (mut stage, items) = Stage::settled_with(setup(true, Some("bob")), |method| match method {
        "outbox" => Some(Reply::Messages(vec![
            sent(1, "bob", MessageState::Queued),
            sent(2, "dave", MessageState::Queued),
            sent(3, "bob", MessageState::Sent),
        ])),
        "contacts" => Some(Reply::Contacts(vec![name("bob")])),
        "list" => Some(Reply::Directory(vec![
            listed("alice", true),
            listed("erin", false),
        ])),
        _ => None,
    });
    assert_eq!(items, [absent("bob", Absence::Offline, 2)]);
    for (to, items) in [
        ("carol", vec![absent("carol", Absence::Unheard, 0)]),
        ("dave", vec![absent("dave", Absence::Unheard, 1)]),
        ("erin", vec![]),
        ("alice", vec![]),
    ] {
        assert_eq!(stage.line(&format!("/to {to}")).items, items);
    }
    stage.event(left("erin"));
    let wanted = stage.line("/to erin");
    assert_eq!(wanted.items, [absent("erin", Absence::Offline, 0)]);
}

#[test]
fn without_a_server_nobody_is_called_absent_before_it_is_back() {
    let mut stage = Stage::with_bob_online();
    stage.event(Event::Connection(ConnectionState::Offline {
        reason: "gone".to_owned(),
        is_other_server: false,
        retry_in_s: Some(1),
    }));
    assert_eq!(stage.line("/to carol").items, []);
    let request = only(stage.line("hi").asks).0;
    stage.answer(request, Ok(Reply::Queued(vec![id(1)])));
    stage.wanted();
    let told = stage.pass(Duration::from_millis(400)).items;
    assert_eq!(told, [waits("carol", 1, Cause::NoServer)]);
    stage.line("/to bob");
    let wanted = stage.event(Event::Connection(ConnectionState::Online));
    stage.answer(wanted.request("list"), Ok(Reply::Directory(Vec::new())));
    let wanted = stage.wanted();
    assert_eq!(wanted.items, [absent("bob", Absence::Offline, 0)]);
    let wanted = stage.pass(Duration::from_millis(400));
    // It says for which message, since another line stands below that.
    let waits = Item::Waiting {
        waiting: waiting("carol", 1),
        cause: Cause::Absent(Absence::Unheard),
        which: Which::UpTo("hi".to_owned()),
    };
    assert_eq!(wanted.items, [waits]);
    let later = wanted.deadline.unwrap() - stage.now.instant;
    assert_eq!(stage.pass(later).items, [presence("bob", false)]);
}

#[test]
fn a_lost_connection_is_told_once_and_so_is_its_return() {
    let mut stage = Stage::with_bob();
    let offline = ConnectionState::Offline {
        reason: "gone".to_owned(),
        is_other_server: false,
        retry_in_s: None,
    };
    let lost = ConnectionChange::Lost {
        reason: "gone".to_owned(),
        is_retried: false,
    };
    for (state, change) in [
        (ConnectionState::Online, None),
        (offline.clone(), Some(lost)),
        (offline, None),
        (ConnectionState::Connecting, None),
        (ConnectionState::Online, Some(ConnectionChange::Restored)),
    ] {
        let wanted = stage.event(Event::Connection(state.clone()));
        let told = change.is_some().then_some(Event::Connection(state));
        assert_eq!(wanted.items, Vec::from_iter(change.map(Item::Connection)));
        assert_eq!(wanted.events, Vec::from_iter(told));
    }
}

#[test]
fn what_an_owner_must_know_is_shown() {
    let mut stage = Stage::with_bob();
    let failed = FailedLogins {
        count: 3,
        last: UnixTime::default(),
        blocked_for_s: 0,
    };
    let enrolment = EnrolmentView {
        device: DeviceName::lossy("laptop"),
        fingerprint: "SHA256:x".to_owned(),
        at: UnixTime::default(),
    };
    let new_key = |known, is_approved| Event::NewKey {
        account: name("bob"),
        fingerprint: "SHA256:x".to_owned(),
        known,
        is_approved,
    };
    for event in [
        Event::FailedLogins(failed),
        Event::Enrolled(enrolment),
        new_key(0, false),
        new_key(2, true),
        Event::NotApproved {
            account: name("bob"),
            fingerprint: "SHA256:x".to_owned(),
        },
        Event::OtherAccount {
            account: name("bob"),
        },
    ] {
        let wanted = stage.event(event.clone());
        assert_eq!(wanted.items, [Item::Notice(event.clone())]);
        assert_eq!(wanted.events, [event]);
    }
}

#[test]
fn people_are_remembered_up_to_a_bound() {
    let mut stage = Stage::new(setup(true, Some("bob")));
    let list = stage.wanted().request("list");
    let devices = (0..KNOWN_NAMES_MAX).map(|number| listed(&format!("user{number}"), false));
    stage.answer(list, Ok(Reply::Directory(devices.collect())));
    let met = stage.wanted().met;
    assert_eq!(met.len(), KNOWN_NAMES_MAX - 1, "bob is one of them");
    let last = format!("user{}: hi", KNOWN_NAMES_MAX - 1);
    assert!(matches!(
        stage.line(&last).items.as_slice(),
        [Item::Objection(Objection::Ambiguous { .. })]
    ));
}

#[test]
fn who_is_heard_on_the_network_is_told_while_the_server_is_away() {
    let mut stage = Stage::with_bob_online();
    let nearby = |who: &str, is_here| Event::Nearby {
        account: name(who),
        is_here,
    };
    let told = |who: &str, is_here| Item::Nearby {
        account: name(who),
        is_here,
    };
    // With a server it makes no difference to anybody.
    for who in ["bob", "carol"] {
        let wanted = stage.event(nearby(who, true));
        assert_eq!((wanted.items, wanted.events.len()), (vec![], 1));
    }
    let offline = Event::Connection(ConnectionState::Offline {
        reason: "gone".to_owned(),
        is_other_server: false,
        retry_in_s: Some(1),
    });
    let items = stage.event(offline).items;
    assert_eq!(items[1..], [told("bob", true)], "{items:?}");
    assert_eq!(stage.line("/to carol").items, [told("carol", true)]);
    assert_eq!(stage.line("/to bob").items, [told("bob", true)]);
    // What waits does so for the link, not for the server.
    let request = only(stage.line("hi").asks).0;
    stage.answer(request, Ok(Reply::Queued(vec![id(1)])));
    stage.wanted();
    let items = stage.pass(Duration::from_secs(5)).items;
    assert_eq!(items, [waits("bob", 1, Cause::NotReached)]);
    let wanted = stage.event(nearby("bob", true));
    assert_eq!((wanted.items, wanted.events.len()), (vec![], 0), "no news");
    for (who, is_here, items) in [
        ("carol", false, vec![]),
        ("bob", false, vec![told("bob", false)]),
        ("bob", true, vec![told("bob", true)]),
    ] {
        assert_eq!(stage.event(nearby(who, is_here)).items, items, "{who}");
    }
    let restored = stage.event(Event::Connection(ConnectionState::Online));
    let items = [Item::Connection(ConnectionChange::Restored)];
    assert_eq!(restored.items, items);
}

#[test]
fn another_way_is_told_of_those_whom_the_person_has_to_do_with() {
    let mut stage = Stage::with_bob_online();
    let view = |who: &str| PathChanged {
        account: name(who),
        fingerprint: String::new(),
        way: LinkWay::Direct {
            remote: ([192, 0, 2, 7], 4000).into(),
        },
        round_trip_us: 23_000,
    };
    for (who, items) in [("carol", vec![]), ("bob", vec![Item::Path(view("bob"))])] {
        let wanted = stage.event(Event::Path(view(who)));
        assert_eq!((wanted.items, wanted.events.len()), (items, 1), "{who}");
    }
    stage.event(Event::Offer(offer(7)));
    let items = stage.event(Event::Path(view("carol"))).items;
    assert_eq!(items, [Item::Path(view("carol"))]);
}

#[test]
fn that_nobody_can_be_reached_is_told_once() {
    let mut stage = Stage::with_bob_online();
    assert_eq!(stage.event(Event::RelayOff).items, [Item::RelayOff]);
    assert_eq!(stage.event(Event::RelayOff).items, []);
}

#[test]
fn where_no_prompt_shows_it_a_line_says_to_whom_one_writes() {
    let mut stage = Stage::new(Setup {
        is_at_terminal: true,
        ..setup(false, Some("bob"))
    });
    let wanted = stage.wanted();
    let hello = Item::Hello {
        me: Some(name("alice")),
        with: Some(name("bob")),
    };
    assert_eq!(wanted.items, [hello]);
    let _ = wanted.request("history");
    let is_told = |items: &[Item]| items.contains(&Item::TurnedTo(name("carol")));
    assert!(is_told(&stage.line("/to carol").items));
    assert!(!is_told(&stage.line("/to carol").items), "it is known");
}
