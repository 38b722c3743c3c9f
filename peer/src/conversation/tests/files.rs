//! Offers, transfers and their ends.

use super::*;
use crate::node::command::CommandError;
use crate::shell::names::FileName;

#[test]
fn offers_have_numbers_and_are_told_once() {
    let mut stage = Stage::with_bob();
    for number in [1, 2] {
        let wanted = stage.event(Event::Offer(offer(number)));
        let item = Item::Offer {
            number: number.into(),
            offer: offer(number),
        };
        assert_eq!(wanted.items, [item]);
        assert_eq!(wanted.events, [Event::Offer(offer(number))]);
    }
    assert_eq!(stage.event(Event::Offer(offer(1))).items, []);
}

#[test]
fn whoever_offers_or_sends_a_file_comes_and_leaves() {
    let mut stage = Stage::with_bob();
    stage.event(Event::Offer(offer(1)));
    // The offer was here sooner than the news.
    assert_eq!(stage.event(came("carol")).items, []);
    assert_eq!(stage.event(left("carol")).items, [presence("carol", false)]);
    assert_eq!(stage.event(came("carol")).items, [presence("carol", true)]);
    let (request, ..) = only(stage.line("/accept").asks);
    stage.answer(request, Ok(Reply::Done));
    stage.wanted();
    assert_eq!(stage.event(left("carol")).items, [presence("carol", false)]);
    stage.event(Event::Transfer {
        transfer: transfer_id(1),
        state: failed(),
    });
    assert_eq!(stage.event(came("carol")).items, []);
}

#[test]
fn a_file_with_an_odd_name_is_taken_under_another() {
    let mut stage = Stage::with_bob();
    let hidden = OfferView {
        name: ".hidden".to_owned(),
        ..offer(1)
    };
    stage.event(Event::Offer(hidden));
    // The offer stays open until it is clear what the file will be called.
    let substitute = FileName::parse("_hidden").ok();
    for line in ["/accept", "/accept 1"] {
        let number = 1;
        let substitute = substitute.clone();
        let odd = objection(Objection::OddName { number, substitute });
        assert_eq!(stage.line(line).items, odd);
    }
    let (request, _, command) = only(stage.line("/accept 1 as seen.txt").asks);
    let params = json!({"transfer": transfer_id(1), "folder": "/files", "name": "seen.txt"});
    assert_eq!(command["params"], params);
    stage.answer(request, Ok(Reply::Done));
    let accepted = Item::Accepted {
        name: "seen.txt".to_owned(),
        folder: "/files".into(),
    };
    assert_eq!(stage.wanted().items, [accepted]);

    // What could lead elsewhere has one, too; what is not odd may get another name all the same.
    let hostile = OfferView {
        name: "../up".to_owned(),
        ..offer(2)
    };
    stage.event(Event::Offer(hostile));
    let odd = Objection::OddName {
        number: 2,
        substitute: FileName::parse("___up").ok(),
    };
    assert_eq!(stage.line("/accept 2").items, objection(odd));
    let (_, _, command) = only(stage.line("/accept 2 as up").asks);
    assert_eq!(command["params"]["name"], "up");
    stage.event(Event::Offer(offer(3)));
    let (_, _, command) = only(stage.line("/accept as plain").asks);
    assert_eq!(command["params"]["name"], "plain");
}

#[test]
fn an_offer_is_accepted_or_declined_once() {
    let mut stage = Stage::with_bob();
    assert_eq!(
        stage.line("/accept").items,
        objection(Objection::NoSuchOffer)
    );
    for number in [1, 2, 3] {
        stage.event(Event::Offer(offer(number)));
    }
    let (request, _, command) = only(stage.line("/accept").asks);
    let params = json!({"transfer": transfer_id(3), "folder": "/files"});
    assert_eq!(command["params"], params, "the latest");
    stage.answer(request, Ok(Reply::Done));
    let accepted = Item::Accepted {
        name: "3.txt".to_owned(),
        folder: "/files".into(),
    };
    assert_eq!(stage.wanted().items, [accepted]);

    let (request, _, command) = only(stage.line("/decline 1").asks);
    assert_eq!(command["params"]["folder"], Value::Null);
    stage.answer(request, Ok(Reply::Done));
    let declined = Item::Declined {
        name: "1.txt".to_owned(),
    };
    assert_eq!(stage.wanted().items, [declined]);
    for line in ["/accept 1", "/accept 3", "/decline 4"] {
        assert_eq!(stage.line(line).items, objection(Objection::NoSuchOffer));
    }
}

#[test]
fn an_offer_that_cannot_be_answered_stays_open_unless_it_has_ended() {
    let mut stage = Stage::with_bob();
    stage.event(Event::Offer(offer(1)));
    let wanted = stage.exchange("/accept 1", Err(broken("could not answer the offer")));
    let failure = Failure::new(Exit::Profile, "could not answer the offer");
    assert_eq!(wanted.items, [Item::Problem(failure)]);
    let wanted = stage.exchange("/accept 1", Err(RequestError::NoSuchTransfer));
    assert_eq!(wanted.items, objection(Objection::OfferEnded));
    assert_eq!(
        stage.line("/accept 1").items,
        objection(Objection::NoSuchOffer)
    );
}

#[test]
fn an_offer_that_ends_unanswered_is_told_and_why_if_its_sender_did_not_want_that() {
    let failed = |kind| TransferState::Failed {
        reason: "bob went away (no answer)".to_owned(),
        kind,
    };
    let told = Some("bob went away (no answer)".to_owned());
    for (state, why) in [
        (failed(FailureKind::Unanswered), told.clone()),
        (failed(FailureKind::Broken), told),
        (failed(FailureKind::Cancelled), None),
    ] {
        let mut stage = Stage::with_bob();
        stage.event(Event::Offer(offer(1)));
        let wanted = stage.event(transfer(1, state));
        let ended = Item::OfferEnded {
            number: 1,
            name: "1.txt".to_owned(),
            why,
        };
        assert_eq!((wanted.items, wanted.events), (vec![ended], Vec::new()));
        assert_eq!(
            stage.line("/accept").items,
            objection(Objection::NoSuchOffer)
        );
    }
}

#[test]
fn an_offer_that_is_answered_elsewhere_is_not_open_here() {
    let declined = TransferState::Declined {
        reason: "declined".to_owned(),
    };
    let done = TransferState::Done {
        digest: String::new(),
        total: 100,
        elapsed_ms: 1,
        path: None,
    };
    for state in [moving(0), moving(5), done, declined] {
        let mut stage = Stage::with_bob();
        stage.event(Event::Offer(offer(1)));
        let wanted = stage.event(transfer(1, state.clone()));
        let taken = Item::OfferTaken {
            number: 1,
            name: "1.txt".to_owned(),
        };
        assert_eq!((wanted.items, wanted.events), (vec![taken], Vec::new()));
        assert_eq!(stage.event(transfer(1, moving(9))).items, [], "once");
        assert_eq!(stage.event(transfer(1, failed())).items, []);
        assert_eq!(
            stage.line("/accept").items,
            objection(Objection::NoSuchOffer)
        );
    }
}

#[test]
fn a_file_is_offered_and_followed_to_its_end() {
    let mut stage = Stage::with_bob();
    let (request, doing, command) = only(stage.line("/send-file carol ~/a.txt").asks);
    assert_eq!(doing, "send a.txt to carol");
    assert_eq!(
        command["params"],
        json!({"to": "carol", "path": "/home/alice/a.txt"})
    );
    stage.answer(request, Ok(Reply::Started(transfer_id(1))));
    let wanted = stage.wanted();
    let file = Transfer {
        number: 1,
        name: "a.txt".to_owned(),
        way: Way::To(name("carol")),
    };
    assert_eq!(wanted.met, ["carol"]);
    assert_eq!(wanted.items, []);
    assert_eq!(
        stage.conversation.underway(),
        [(&file, transfers::Stage::Looking)]
    );
    let wanted = stage.event(transfer(1, TransferState::Waiting));
    assert_eq!(wanted.items, [Item::Offered(file.clone())]);

    let shown = |state| Item::Transfer {
        transfer: file.clone(),
        state,
    };
    let second = Duration::from_secs(1);
    for (state, is_shown) in [
        (TransferState::Waiting, false),
        (moving(1), false),
        (moving(2), false),
        (moving(3), false),
        (moving(4), true),
        (moving(5), false),
        (failed(), true),
    ] {
        stage.pass(second);
        let wanted = stage.event(transfer(1, state.clone()));
        assert_eq!(
            wanted.events,
            [transfer(1, state.clone())],
            "programs get every step"
        );
        let item = is_shown.then(|| shown(state));
        assert_eq!(wanted.items, Vec::from_iter(item));
    }
    assert_eq!(
        stage.event(transfer(1, failed())).events,
        [],
        "it has ended"
    );
}

#[test]
fn a_file_that_cannot_be_offered_says_why_unless_it_was_cancelled() {
    for is_cancelled in [false, true] {
        let mut stage = Stage::with_bob();
        stage.exchange("/send-file bob a", Ok(Reply::Started(transfer_id(1))));
        if is_cancelled {
            stage.exchange("/cancel", Ok(Reply::Done));
        }
        let error = CommandError::PeerOffline(name("bob"));
        let state = TransferState::NotOffered { error };
        let wanted = stage.event(transfer(1, state.clone()));
        let transfer = file(1, "a");
        let item = if is_cancelled {
            Item::Cancelled(transfer)
        } else {
            Item::Transfer { transfer, state }
        };
        assert_eq!(wanted.items, [item]);
        assert_eq!(stage.conversation.underway(), []);
    }
}

/// Talking to bob, with this many files on their way to him: a, b and so on.
fn sending(count: u8) -> Stage {
    let mut stage = Stage::with_bob();
    for (number, name) in (1..=count).zip('a'..) {
        let line = format!("/send-file bob {name}");
        stage.exchange(&line, Ok(Reply::Started(transfer_id(number))));
        stage.event(transfer(number, TransferState::Waiting));
    }
    stage
}

#[test]
fn a_transfer_is_cancelled_by_its_number_or_as_the_only_one() {
    for line in ["/cancel", "/cancel 1"] {
        let mut stage = sending(1);
        let (request, doing, command) = only(stage.line(line).asks);
        assert_eq!(doing, "cancel a");
        assert_eq!(command["method"], "cancel");
        stage.answer(request, Ok(Reply::Done));
        let wanted = stage.event(transfer(1, failed()));
        assert_eq!(wanted.items, [Item::Cancelled(file(1, "a"))]);
        assert_eq!(stage.line(line).items, objection(Objection::NoSuchTransfer));
    }
    let mut stage = sending(2);
    let which = Objection::WhichTransfer(vec![file(1, "a"), file(2, "b")]);
    assert_eq!(stage.line("/cancel").items, objection(which));
    assert_eq!(
        stage.line("/cancel 3").items,
        objection(Objection::NoSuchTransfer)
    );
    stage.event(Event::Offer(offer(9)));
    assert_eq!(
        stage.line("/cancel 3").items,
        objection(Objection::NotAccepted { number: 3 })
    );
    // It ends by itself meanwhile.
    let gone = Err(RequestError::NoSuchTransfer);
    assert_eq!(stage.exchange("/cancel 2", gone).items, []);
}

#[test]
fn how_far_files_are_can_be_looked_at() {
    let mut stage = sending(2);
    let underway = |stage: &Stage| {
        let underway = stage.conversation.underway().into_iter();
        Vec::from_iter(underway.map(|(transfer, stage)| (transfer.clone(), stage)))
    };
    let offered = transfers::Stage::Offered;
    assert_eq!(
        underway(&stage),
        [(file(1, "a"), offered), (file(2, "b"), offered)]
    );
    for done in 0..=5 {
        stage.event(transfer(2, moving(done)));
        stage.pass(Duration::from_secs(1));
    }
    let at = |done, pace| transfers::Stage::Moving {
        done,
        total: 100,
        pace,
    };
    let moves = at(5, speed::Pace::PerSecond(1));
    let both = [(file(2, "b"), moves), (file(1, "a"), offered)];
    assert_eq!(underway(&stage), both, "what moves is the first");
    let deadline = stage.wanted().deadline.unwrap();
    stage.pass(deadline - stage.now.instant);
    let stalled = at(5, speed::Pace::Stalled);
    assert_eq!(underway(&stage)[1], (file(2, "b"), stalled));
    let mut node = status();
    node.transfers = [2, 7].map(of_node).into();
    let shown = stage.exchange("/status", Ok(Reply::Status(node.clone())));
    // The others are of other programs.
    node.transfers = vec![of_node(7)];
    let expected = Item::Status {
        owner: Some(name("alice")),
        server: "192.0.2.7:7400".to_owned(),
        node: Box::new(node),
        offers: Vec::new(),
        underway: vec![(file(1, "a"), offered), (file(2, "b"), stalled)],
    };
    assert_eq!(shown.items, [expected]);
}

#[test]
fn a_file_behind_another_to_the_same_person_waits_for_its_turn() {
    let mut stage = sending(2);
    stage.event(transfer(1, moving(0)));
    stage.event(transfer(2, moving(1)));
    let shown = |stage: &Stage| {
        let underway = stage.conversation.underway().into_iter();
        let shown = underway.map(|(transfer, stage)| match stage {
            transfers::Stage::Moving { pace, .. } => (transfer.number, pace),
            transfers::Stage::Looking | transfers::Stage::Offered => panic!("both move"),
        });
        Vec::from_iter(shown)
    };
    let behind = (1, speed::Pace::Behind);
    assert_eq!(shown(&stage), [(2, speed::Pace::Unmeasured), behind]);
    for done in 1..=5 {
        stage.event(transfer(2, moving(done)));
        stage.pass(Duration::from_secs(1));
    }
    assert_eq!(shown(&stage), [(2, speed::Pace::PerSecond(1)), behind]);
}

#[test]
fn what_waits_is_listed() {
    let mut stage = Stage::with_bob();
    let waits = vec![sent(1, "carol", MessageState::Queued)];
    let shown = stage.exchange("/outbox", Ok(Reply::Messages(waits.clone())));
    assert_eq!(shown.items, [Item::Outbox(waits)]);
}

#[test]
fn whoever_leaves_while_a_file_moves_is_warned_once() {
    let quit = || Typed::Line("/quit".to_owned());
    let warning = || {
        let offered = transfers::Stage::Offered;
        objection(Objection::UnderWay(vec![(file(1, "a"), offered)]))
    };
    for again in [quit(), Typed::End, Typed::Interrupt] {
        for once in [quit(), Typed::End, Typed::Interrupt] {
            let mut stage = sending(1);
            assert_eq!(stage.typed(Typed::Cleared).items, []);
            assert_eq!(stage.typed(once.clone()).items, warning());
            stage.typed(Typed::Cleared);
            assert_eq!(stage.typed(once.clone()).items, warning());
            stage.line("hi");
            assert_eq!(stage.typed(once).items, warning(), "anything between");
            let left = stage.leave(again.clone(), Vec::new());
            let expected = Ending::Left {
                waiting: Vec::new(),
                cancelled: vec![file(1, "a")],
            };
            assert_eq!(left.ending, Some(expected));
            assert_eq!(left.methods(), ["cancel"], "the node may stay for others");
        }
    }
}

#[test]
fn files_that_move_end_with_the_node_that_carries_them() {
    let mut stage = sending(1);
    stage.event(transfer(1, moving(1)));
    stage.event(Event::Offer(offer(9)));
    stage.input(Input::Revived { is_own: false });
    let wanted = stage.wanted();
    let [
        Item::Transfer { transfer, state },
        Item::OfferEnded { number: 2, .. },
    ] = wanted.items.as_slice()
    else {
        panic!("{:?}", wanted.items);
    };
    assert_eq!(transfer, &file(1, "a"));
    assert!(matches!(state, TransferState::Failed { .. }));
    assert!(matches!(
        wanted.events.as_slice(),
        [Event::Transfer {
            state: TransferState::Failed { .. },
            ..
        }]
    ));
    assert!(stage.conversation.underway().is_empty());
    stage.leave(Typed::End, Vec::new());
}

#[test]
fn transfers_of_other_programs_are_not_told() {
    let mut stage = Stage::with_bob();
    let wanted = stage.event(transfer(7, moving(1)));
    assert_eq!((wanted.items, wanted.events), (Vec::new(), Vec::new()));
}

fn node_ends() -> TransferState {
    TransferState::Failed {
        reason: "ended".to_owned(),
        kind: FailureKind::NodeEnds,
    }
}

/// Its node ends, whether that says so or not, and another takes its place.
fn revived(stage: &mut Stage, said: &[Event]) -> Wanted {
    for event in said {
        let wanted = stage.event(event.clone());
        assert_eq!((wanted.items, wanted.events), (Vec::new(), Vec::new()));
    }
    stage.input(Input::Revived { is_own: false });
    stage.wanted()
}

fn node_is(connection: ConnectionState) -> Result<Reply, RequestError> {
    Ok(Reply::Status(NodeStatus {
        connection,
        ..status()
    }))
}

#[test]
fn an_offer_outlives_its_node_and_keeps_its_number() {
    for said in [vec![], vec![1, 2]] {
        let mut stage = sending(2);
        let said: Vec<_> = said
            .into_iter()
            .map(|id| transfer(id, node_ends()))
            .collect();
        let wanted = revived(&mut stage, &said);
        assert_eq!((&wanted.items[..], &wanted.events[..]), (&[][..], &[][..]));
        stage.answer(wanted.request("status"), node_is(ConnectionState::Online));
        let asks = stage.wanted().asks;
        let paths = asks
            .iter()
            .map(|(_, _, command)| &command["params"]["path"]);
        assert_eq!(paths.collect::<Vec<_>>(), ["a", "b"]);
        for ((request, _, _), (id, again)) in
            asks.iter().zip([(3, file(1, "a")), (4, file(2, "b"))])
        {
            stage.answer(*request, Ok(Reply::Started(transfer_id(id))));
            assert_eq!(stage.wanted().items, []);
            let wanted = stage.event(transfer(id, TransferState::Waiting));
            assert_eq!(wanted.items, [Item::OfferedAgain(again)]);
        }
        let (request, _, command) = only(stage.line("/cancel 2").asks);
        assert_eq!(command["params"], json!({"transfer": transfer_id(4)}));
        stage.answer(request, Ok(Reply::Done));
        let ended = stage.event(transfer(4, failed()));
        assert_eq!(ended.items, [Item::Cancelled(file(2, "b"))]);
    }
}

#[test]
fn an_offer_is_made_again_once_there_is_a_connection() {
    let mut stage = sending(1);
    let wanted = revived(&mut stage, &[]);
    stage.answer(
        wanted.request("status"),
        node_is(ConnectionState::Connecting),
    );
    assert_eq!(stage.wanted().methods(), [""; 0]);
    let online = Event::Connection(ConnectionState::Online);
    let (request, doing, _) = only(stage.event(online.clone()).asks);
    assert_eq!(doing, "send a to bob");
    assert_eq!(stage.event(online).methods(), [""; 0], "once");
    stage.answer(request, Err(broken("bob is away")));
    let wanted = stage.wanted();
    let problem = Failure::new(Exit::Profile, "bob is away");
    assert_eq!(wanted.items, [Item::Problem(problem)]);
    assert_eq!(wanted.events.len(), 1, "a program learns of its end");
    assert_eq!(
        stage.line("/cancel").items,
        objection(Objection::NoSuchTransfer)
    );
}

#[test]
fn an_offer_that_no_node_has_can_be_cancelled() {
    let mut stage = sending(1);
    revived(&mut stage, &[]);
    let wanted = stage.line("/cancel");
    assert_eq!(wanted.methods(), [""; 0]);
    assert_eq!(wanted.items, [Item::Cancelled(file(1, "a"))]);
    let online = Event::Connection(ConnectionState::Online);
    assert_eq!(stage.event(online).methods(), [""; 0]);
}

#[test]
fn a_cancelled_offer_is_not_made_again() {
    let mut stage = sending(1);
    let request = only(stage.line("/cancel").asks).0;
    stage.answer(request, Ok(Reply::Done));
    let wanted = revived(&mut stage, &[]);
    assert!(!wanted.methods().contains(&"status"));
    assert_eq!(wanted.items, [Item::Cancelled(file(1, "a"))]);
    assert_eq!(wanted.events.len(), 1);
}
