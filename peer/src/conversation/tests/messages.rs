//! Messages: whom they go to, and how far each is.

use super::*;
use crate::node::command::Cursor;

#[test]
fn a_text_goes_to_whom_one_talks_to() {
    let mut stage = Stage::with_bob();
    let (_, doing, command) = only(stage.line("see you").asks);
    assert_eq!(doing, "send to bob");
    let params = json!({"to": ["bob"], "body": "see you", "sent": 1_700_000_000_000_u64});
    assert_eq!(command, json!({"method": "send", "params": params}));
}

#[test]
fn a_name_in_front_chooses_whom_one_talks_to_unless_one_does() {
    let mut stage = Stage::settled(setup(true, None));
    let no_recipient = Objection::NoRecipient { is_kept: true };
    assert_eq!(stage.line("hello").items, objection(no_recipient));
    assert_eq!(
        stage.line("bob,carol: hi").asks[0].2["params"]["to"],
        json!(["bob", "carol"])
    );
    assert_eq!(stage.conversation.prompt().unwrap().with, None);
    assert_eq!(
        stage.line("dave: hi").asks[0].2["params"]["to"],
        json!(["dave"])
    );
    assert_eq!(
        stage.conversation.prompt().unwrap().with,
        Some(&name("dave"))
    );
    assert_eq!(
        stage.line("hello").asks[0].2["params"]["to"],
        json!(["dave"])
    );
    stage.line("/to carol");
    stage.line("dave: hi");
    assert_eq!(
        stage.conversation.prompt().unwrap().with,
        Some(&name("carol"))
    );
}

#[test]
fn a_text_without_a_recipient_comes_back() {
    let mut stage = Stage::settled(setup(true, None));
    let draft = |stage: &Stage| stage.conversation.prompt().unwrap().draft.to_owned();
    stage.line("//hello there");
    assert_eq!(draft(&stage), "//hello there");
    stage.typed(Typed::Cleared);
    assert_eq!(draft(&stage), "");
    stage.line("/to bob");
    assert_eq!(draft(&stage), "//hello there");
    let ask = only(stage.line("//hello there").asks);
    assert_eq!(ask.2["params"]["body"], "/hello there");
    stage.line("/to carol");
    assert_eq!(draft(&stage), "", "once");
    assert_eq!(stage.conversation.unaddressed(), 0);

    // A program does not look at its line: what it lost is counted.
    let mut stage = Stage::settled(setup(false, None));
    let no_recipient = Objection::NoRecipient { is_kept: false };
    assert_eq!(stage.line("hello").items, objection(no_recipient));
    assert_eq!(draft(&stage), "");
    assert_eq!(stage.conversation.unaddressed(), 1);
}

#[test]
fn a_name_given_twice_gets_one_message() {
    let mut stage = Stage::settled(setup(true, None));
    let ask = only(stage.line("zed,bob,zed: hi").asks);
    assert_eq!(ask.2["params"]["to"], json!(["zed", "bob"]));
    stage.answer(ask.0, Ok(Reply::Queued(vec![id(1), id(2)])));
    assert_eq!(stage.wanted().met, ["zed", "bob"]);
}

#[test]
fn a_line_that_may_be_for_a_stranger_is_sent_the_second_time() {
    let mut stage = Stage::with_bob();
    let line = "Remember: call mum";
    let ambiguous = Objection::Ambiguous {
        name: name("remember"),
        with: Some(name("bob")),
    };
    assert_eq!(stage.line(line).items, objection(ambiguous.clone()));
    stage.line("/list");
    assert_eq!(
        stage.line(line).items,
        objection(ambiguous),
        "only the very next line counts"
    );
    assert_eq!(stage.line(line).asks[0].2["params"]["body"], line);
    let mut program = Stage::settled(setup(false, Some("bob")));
    assert_eq!(program.line(line).asks[0].2["params"]["body"], line);
}

#[test]
fn whoever_was_met_is_no_stranger() {
    let mut stage = Stage::with_bob();
    stage.event(Event::Message(message(1, "carol")));
    stage.event(Event::Presence(PresenceView::Online(listed("dave", false))));
    for who in ["carol", "dave"] {
        let wanted = stage.line(&format!("{who}: hi"));
        assert_eq!(wanted.asks[0].2["params"]["to"], json!([who]));
    }
}

#[test]
fn a_text_that_is_too_long_is_not_sent() {
    let mut stage = Stage::with_bob();
    let wanted = stage.line(&"x".repeat(MESSAGE_LEN_MAX + 1));
    assert!(wanted.asks.is_empty());
    let [Item::Problem(failure)] = wanted.items.as_slice() else {
        panic!("{:?}", wanted.items);
    };
    assert_eq!(
        (failure.exit(), failure.what()),
        (Exit::Usage, "could not send to bob")
    );
    assert!(failure.why().is_some() && failure.what_next().is_some());
}

#[test]
fn what_the_node_refuses_or_does_not_understand_is_told() {
    let mut stage = Stage::with_bob();
    let refused = stage.exchange("hi", Err(broken("could not send to bob")));
    let failure = Failure::new(Exit::Profile, "could not send to bob");
    assert_eq!(refused.items, [Item::Problem(failure)]);
    for reply in [
        Reply::Done,
        Reply::Queued(Vec::new()),
        Reply::Queued(vec![id(1), id(2)]),
    ] {
        let strange = stage.exchange("hi", Ok(reply));
        let failure = Failure::unexpected_reply("send to bob");
        assert_eq!(strange.items, [Item::Problem(failure)]);
    }
    stage.answer(RequestId(u64::MAX), Ok(Reply::Done));
    assert_eq!(stage.wanted().items, [], "an answer to nothing");
}

#[test]
fn receipts_that_follow_each_other_are_told_once() {
    let mut stage = Stage::with_bob();
    stage.exchange("one", Ok(Reply::Queued(vec![id(1)])));
    stage.exchange("two", Ok(Reply::Queued(vec![id(2)])));
    assert_eq!(
        stage.event(state_of(1, "bob", MessageState::Sent)).events,
        []
    );
    let delivered = state_of(1, "bob", MessageState::Delivered);
    let wanted = stage.event(delivered.clone());
    assert_eq!((wanted.items, wanted.events), (Vec::new(), vec![delivered]));
    assert!(wanted.deadline.is_some());
    stage.event(state_of(1, "bob", MessageState::Read));
    stage.event(state_of(2, "bob", MessageState::Read));
    assert_eq!(stage.pass(Duration::from_millis(399)).items, []);
    let wanted = stage.pass(Duration::from_millis(1));
    assert_eq!(wanted.items, [receipts("bob", MessageState::Read, 2)]);
    assert_eq!(wanted.deadline, None);
}

#[test]
fn a_message_that_is_read_later_is_told_again() {
    let mut stage = Stage::with_bob();
    let pause = Duration::from_secs(1);
    stage.exchange("one", Ok(Reply::Queued(vec![id(1)])));
    for state in [MessageState::Delivered, MessageState::Read] {
        stage.event(state_of(1, "bob", state));
        assert_eq!(stage.pass(pause).items, [receipts("bob", state, 1)]);
    }
}

#[test]
fn a_receipt_below_another_line_says_for_what() {
    for (line, last) in [("/help", Some("one")), ("", None)] {
        let mut stage = Stage::with_bob();
        stage.line("/help");
        stage.exchange("one", Ok(Reply::Queued(vec![id(1)])));
        stage.line(line);
        stage.event(state_of(1, "bob", MessageState::Read));
        let told = Item::Receipts(Receipts {
            to: name("bob"),
            state: MessageState::Read,
            count: 1,
            last: last.map(str::to_owned),
        });
        assert_eq!(stage.pass(Duration::from_secs(1)).items, [told], "{line}");
    }
}

#[test]
fn a_receipt_for_an_earlier_message_says_which() {
    let mut stage = Stage::with_bob_online();
    for (number, text) in [(1, "one"), (2, "two"), (3, "three")] {
        stage.exchange(text, Ok(Reply::Queued(vec![id(number)])));
    }
    stage.event(came("carol"));
    stage.exchange("carol: hi", Ok(Reply::Queued(vec![id(4)])));
    let told = |stage: &mut Stage, numbers: &[u8], state| {
        for number in numbers {
            stage.event(state_of(*number, "bob", state));
        }
        let items = stage.pass(Duration::from_millis(400)).items;
        let [Item::Receipts(receipts)] = items.as_slice() else {
            panic!("{items:?}");
        };
        (receipts.count, receipts.last.clone())
    };
    let earlier = told(&mut stage, &[1, 2], MessageState::Delivered);
    assert_eq!(earlier, (2, Some("two".to_owned())));
    let last = told(&mut stage, &[3], MessageState::Delivered);
    assert_eq!(last, (1, None));
    let earlier = told(&mut stage, &[1], MessageState::Read);
    assert_eq!(earlier, (1, Some("one".to_owned())));
    let all = told(&mut stage, &[2, 3], MessageState::Read);
    assert_eq!(all, (2, None));
}

#[test]
fn what_waited_for_the_server_is_told_anew_once_it_is_back() {
    let mut stage = Stage::with_bob_online();
    let offline = ConnectionState::Offline {
        reason: "gone".to_owned(),
        is_other_server: false,
        retry_in_s: Some(1),
    };
    stage.event(Event::Connection(offline));
    stage.exchange("hi", Ok(Reply::Queued(vec![id(1)])));
    let told = stage.pass(Duration::from_millis(400)).items;
    assert_eq!(told, [waits("bob", 1, Cause::NoServer)]);
    let back = stage.event(Event::Connection(ConnectionState::Online));
    stage.answer(
        back.request("list"),
        Ok(Reply::Directory(vec![listed("carol", false)])),
    );
    let mut told = stage.wanted().items;
    told.extend(stage.pass(Duration::from_secs(30)).items);
    assert!(
        told.contains(&waits("bob", 1, Cause::Absent(Absence::Offline))),
        "{told:?}"
    );
}

#[test]
fn receipts_of_other_programs_are_not_told() {
    let mut stage = Stage::with_bob();
    let wanted = stage.event(state_of(9, "bob", MessageState::Read));
    assert_eq!((wanted.events, wanted.deadline), (Vec::new(), None));
    assert_eq!(stage.pass(Duration::from_secs(1)).items, []);
}

#[test]
fn a_message_to_several_says_of_each_how_far_it_is() {
    let mut stage = Stage::settled(setup(true, None));
    stage.event(came("bob"));
    stage.event(came("dave"));
    stage.event(left("dave"));
    let ids = vec![id(1), id(2), id(3)];
    stage.exchange("bob,carol,dave: hi", Ok(Reply::Queued(ids)));
    stage.event(state_of(1, "bob", MessageState::Delivered));
    let expected = [
        receipts("bob", MessageState::Delivered, 1),
        waits("carol", 1, Cause::Absent(Absence::Unheard)),
        waits("dave", 1, Cause::Absent(Absence::Offline)),
    ];
    let wanted = stage.pass(Duration::from_millis(400));
    assert_eq!(wanted.items, expected);
    assert_eq!(wanted.deadline, None, "it is told once");
    assert_eq!(stage.event(came("carol")).items, [presence("carol", true)]);
    stage.event(state_of(2, "carol", MessageState::Delivered));
    let wanted = stage.pass(Duration::from_millis(400));
    assert_eq!(
        wanted.items,
        [receipts("carol", MessageState::Delivered, 1)]
    );
    assert_eq!(
        stage.event(left("carol")).items,
        [],
        "nothing waits for her"
    );
}

#[test]
fn what_waits_for_the_same_person_is_told_together() {
    let mut stage = Stage::with_bob();
    stage.exchange("one", Ok(Reply::Queued(vec![id(1)])));
    assert_eq!(stage.pass(Duration::from_millis(399)).items, []);
    stage.exchange("two", Ok(Reply::Queued(vec![id(2)])));
    stage.pass(Duration::from_millis(1));
    let told = stage.pass(Duration::from_millis(399)).items;
    assert_eq!(told, [waits("bob", 1, Cause::Absent(Absence::Unheard))]);

    let mut stage = Stage::with_bob();
    for number in [1, 2] {
        stage.exchange("hi", Ok(Reply::Queued(vec![id(number)])));
    }
    let told = stage.pass(Duration::from_millis(400)).items;
    assert_eq!(told, [waits("bob", 2, Cause::Absent(Absence::Unheard))]);
}

#[test]
fn a_message_that_does_not_arrive_though_its_recipient_is_there_is_told() {
    for (state, cause) in [
        (None, Cause::NotReached),
        (Some(MessageState::Sent), Cause::NoReceipt),
    ] {
        let mut stage = Stage::with_bob_online();
        stage.exchange("hi", Ok(Reply::Queued(vec![id(1)])));
        if let Some(state) = state {
            stage.event(state_of(1, "bob", state));
        }
        assert_eq!(stage.pass(Duration::from_millis(4_999)).items, []);
        let wanted = stage.pass(Duration::from_millis(1));
        assert_eq!(wanted.items, [waits("bob", 1, cause)]);
        assert_eq!(wanted.deadline, None);
        // It is told again when he comes back and is not reached either.
        stage.event(left("bob"));
        stage.event(came("bob"));
        let told = stage.pass(Duration::from_secs(5)).items;
        assert_eq!(told, [waits("bob", 1, cause)]);
    }
}

#[test]
fn what_waits_is_told_as_soon_as_it_is_known_who_is_online() {
    let mut stage = Stage::new(setup(true, Some("bob")));
    let list = stage.wanted().request("list");
    stage.exchange("hi", Ok(Reply::Queued(vec![id(1)])));
    assert_eq!(stage.pass(Duration::from_millis(400)).items, []);
    stage.answer(list, Ok(Reply::Directory(Vec::new())));
    let told = stage.wanted().items;
    assert_eq!(told, [absent("bob", Absence::Unheard, 1)]);
    let told = stage.pass(Duration::from_millis(400)).items;
    assert_eq!(told, [waits("bob", 1, Cause::Absent(Absence::Unheard))]);
}

#[test]
fn what_is_taken_back_elsewhere_does_not_wait_any_more() {
    let mut stage = Stage::with_bob();
    stage.exchange("one", Ok(Reply::Queued(vec![id(1)])));
    stage.exchange("two", Ok(Reply::Queued(vec![id(2)])));
    let withdrawn = |ids: &[u8]| Event::Withdrawn {
        to: name("bob"),
        ids: ids.iter().copied().map(id).collect(),
    };
    // One that this conversation knows nothing of is not told of.
    let wanted = stage.event(withdrawn(&[9]));
    assert_eq!((wanted.items, wanted.events), (vec![], vec![]));
    let wanted = stage.event(withdrawn(&[1, 9]));
    assert_eq!(wanted.items, [Item::Withdrawn(waiting("bob", 1))]);
    assert_eq!(wanted.events, [withdrawn(&[1])]);
    let told = stage.pass(Duration::from_millis(400)).items;
    assert_eq!(told, [waits("bob", 1, Cause::Absent(Absence::Unheard))]);
    stage.event(withdrawn(&[2]));
    // Nothing waits that could be told of once somebody is there, and not reached.
    stage.event(came("bob"));
    assert_eq!(stage.pass(Duration::from_secs(5)).items, []);
    assert_eq!(stage.conversation.sent.waiting(), []);
}

#[test]
fn a_note_to_oneself_waits_for_nobody() {
    let mut stage = Stage::with_bob_online();
    stage.line("/to alice");
    stage.exchange("remember", Ok(Reply::Queued(vec![id(1)])));
    stage.event(state_of(1, "alice", MessageState::Delivered));
    let told = stage.pass(Duration::from_secs(5)).items;
    assert_eq!(told, [receipts("alice", MessageState::Delivered, 1)]);
}

#[test]
fn what_an_earlier_run_sent_is_shown_with_how_far_it_is_and_followed() {
    let mut unread = message(4, "bob");
    unread.state = MessageState::Delivered;
    let mut read = message(5, "bob");
    read.state = MessageState::Read;
    let shown = vec![
        sent(1, "bob", MessageState::Read),
        sent(2, "bob", MessageState::Delivered),
        sent(3, "bob", MessageState::Queued),
        read,
    ];
    let latest = [shown.clone(), vec![unread.clone()]].concat();
    let (mut stage, items) = Stage::settled_with(setup(true, Some("bob")), |method| match method {
        "outbox" => Some(Reply::Messages(vec![sent(3, "bob", MessageState::Queued)])),
        "history" => Some(Reply::Messages(latest.clone())),
        "unread" => Some(Reply::Messages(vec![unread.clone()])),
        _ => None,
    });
    let expected = [
        Item::Recent(shown),
        absent("bob", Absence::Unheard, 1),
        Item::Message(unread),
    ];
    assert_eq!(items, expected);
    stage.event(state_of(2, "bob", MessageState::Read));
    stage.event(state_of(3, "bob", MessageState::Delivered));
    let told = stage.pass(Duration::from_secs(1)).items;
    let expected = [MessageState::Delivered, MessageState::Read];
    assert_eq!(told, expected.map(|state| receipts("bob", state, 1)));
}

/// Of whoever is away it is said at the beginning that messages wait; of whoever is there nothing is.
#[test]
fn a_message_of_an_earlier_run_that_does_not_arrive_though_its_recipient_is_there_is_told() {
    let begin = |online: Vec<Listed>| {
        let item = sent(1, "bob", MessageState::Queued);
        Stage::settled_with(setup(true, Some("bob")), |method| match method {
            "outbox" => Some(Reply::Messages(vec![item.clone()])),
            "list" => Some(Reply::Directory(online.clone())),
            _ => None,
        })
    };
    let earlier = |cause| Item::Waiting {
        waiting: waiting("bob", 1),
        cause,
        which: Which::Earlier,
    };
    let (mut stage, items) = begin(vec![listed("bob", false)]);
    assert_eq!(items, []);
    assert_eq!(stage.pass(Duration::from_millis(4_999)).items, []);
    let told = stage.pass(Duration::from_millis(1)).items;
    assert_eq!(told, [earlier(Cause::NotReached)]);
    assert_eq!(stage.pass(Duration::from_secs(60)).items, []);

    let (mut stage, items) = begin(Vec::new());
    assert_eq!(items, [absent("bob", Absence::Unheard, 1)]);
    assert_eq!(stage.pass(Duration::from_secs(60)).items, []);
    stage.event(came("bob"));
    let told = stage.pass(Duration::from_secs(5)).items;
    assert_eq!(told, [earlier(Cause::NotReached)]);
}

#[test]
fn what_history_shows_is_followed() {
    let mut stage = Stage::with_bob();
    let items = vec![sent(7, "bob", MessageState::Queued)];
    stage.exchange("/history", Ok(Reply::Messages(items)));
    assert_eq!(
        stage.pass(Duration::from_secs(1)).items,
        [],
        "it says so itself"
    );
    stage.event(state_of(7, "bob", MessageState::Delivered));
    let told = stage.pass(Duration::from_secs(1)).items;
    assert_eq!(told, [receipts("bob", MessageState::Delivered, 1)]);
}

#[test]
fn the_end_of_piped_input_does_not_wait_for_earlier_messages() {
    let (mut stage, _) = Stage::settled_with(setup(false, Some("bob")), |method| {
        let items = vec![sent(1, "bob", MessageState::Queued)];
        (method == "outbox").then_some(Reply::Messages(items))
    });
    let ending = stage.typed(Typed::End).ending;
    assert_eq!(ending, Some(left_with(Vec::new())));
}

#[test]
fn a_message_is_shown_once_and_marked_when_it_was_seen() {
    let mut stage = Stage::with_bob();
    let wanted = stage.event(Event::Message(message(1, "carol")));
    assert_eq!(wanted.items, [Item::Message(message(1, "carol"))]);
    assert_eq!(wanted.events, [Event::Message(message(1, "carol"))]);
    assert!(wanted.asks.is_empty());
    assert_eq!(stage.conversation.prompt().unwrap().unread, 1);
    assert_eq!(stage.event(Event::Message(message(1, "carol"))).items, []);
    for _ in 0..2 {
        stage.input(Input::Seen(id(1)));
    }
    let ask = only(stage.wanted().asks);
    assert_eq!(ask.2["method"], "mark_read");
    assert_eq!(ask.2["params"]["ids"].as_array().unwrap().len(), 1);
    assert_eq!(stage.conversation.prompt().unwrap().unread, 0);
    stage.answer(ask.0, Err(broken("no history")));
    assert_eq!(stage.wanted().items, [], "it is only shown again next time");
}

#[test]
fn many_messages_are_marked_together() {
    let mut stage = Stage::with_bob();
    let number = |index: usize| MessageId::from_bytes((index as u128).to_be_bytes());
    for index in 0..=MARK_READ_MAX {
        let mut message = message(0, "bob");
        message.id = number(index);
        stage.input(Input::Event(Event::Message(message)));
        stage.input(Input::Seen(number(index)));
    }
    let asks = stage.wanted().asks;
    let counts = asks
        .iter()
        .map(|ask| ask.2["params"]["ids"].as_array().unwrap().len());
    assert_eq!(counts.collect::<Vec<_>>(), [MARK_READ_MAX, 1]);
}

#[test]
fn what_was_sent_from_elsewhere_is_not_shown() {
    let mut stage = Stage::with_bob();
    let mut sent = message(1, "bob");
    sent.direction = Direction::Sent;
    let wanted = stage.event(Event::Message(sent));
    assert_eq!((wanted.items, wanted.events), (Vec::new(), Vec::new()));
}

#[test]
fn earlier_messages_are_those_of_this_conversation() {
    let mut stage = Stage::with_bob();
    let (request, _, command) = only(stage.line("/history 5").asks);
    assert_eq!(command["params"], json!({"with": "bob", "limit": 5}));
    let items = vec![message(1, "bob")];
    stage.answer(request, Ok(Reply::Messages(items.clone())));
    let wanted = stage.wanted();
    assert_eq!(wanted.items, [Item::History(items)]);
    assert_eq!(wanted.events, [], "they are an answer, not news");
}

#[test]
fn what_another_program_of_the_profile_sends_is_shown_once() {
    let mut stage = Stage::with_bob();
    let recorded = |item| {
        Event::Recorded(Recorded {
            cursor: Cursor(1),
            item,
        })
    };
    // What was typed here is on the screen.
    stage.exchange("hi", Ok(Reply::Queued(vec![id(1)])));
    let typed = recorded(sent(1, "bob", MessageState::Queued));
    assert_eq!(stage.event(typed).items, []);
    let elsewhere = sent(2, "carol", MessageState::Queued);
    let wanted = stage.event(recorded(elsewhere.clone()));
    assert_eq!(wanted.items, [Item::Message(elsewhere.clone())]);
    assert_eq!(wanted.events, [recorded(elsewhere.clone())]);
    assert_eq!(stage.event(recorded(elsewhere)).items, []);
    // A note to oneself, too.
    let note = sent(3, "alice", MessageState::Delivered);
    let wanted = stage.event(recorded(note.clone()));
    assert_eq!(wanted.items, [Item::Message(note)]);
    // What others wrote was told as it came.
    assert_eq!(stage.event(recorded(message(4, "bob"))).items, []);
}
