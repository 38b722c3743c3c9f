//! What is typed wrongly, and how a conversation ends.

use super::farewell::DELIVERY_TIMEOUT;
use super::*;

#[test]
fn mistakes_and_help_are_shown() {
    let mut stage = Stage::with_bob();
    assert_eq!(stage.line("/help").items, [Item::Help]);
    let mistake = Mistake::Unknown("nonsense".to_owned());
    assert_eq!(
        stage.line("/nonsense").items,
        objection(Objection::Mistake(mistake))
    );
    assert_eq!(stage.line("  ").items, []);
}

#[test]
fn whoever_leaves_is_told_what_waits() {
    for typed in [
        Typed::Line("/quit".to_owned()),
        Typed::Line("quit".to_owned()),
        Typed::End,
    ] {
        let mut stage = Stage::with_bob();
        stage.exchange("hi", Ok(Reply::Queued(vec![id(1)])));
        let outbox = [(1, "bob"), (2, "carol"), (3, "bob")];
        let outbox = outbox.map(|(number, to)| sent(number, to, MessageState::Queued));
        let left = stage.leave(typed.clone(), outbox.into());
        let expected = vec![waiting("bob", 2), waiting("carol", 1)];
        assert_eq!(left.ending, Some(left_with(expected)));

        let left = Stage::with_bob().leave(typed, Vec::new());
        assert_eq!(left.ending, Some(left_with(Vec::new())));
    }
}

#[test]
fn leaving_does_not_depend_on_the_node() {
    let mut stage = Stage::with_bob();
    stage.exchange("hi", Ok(Reply::Queued(vec![id(1)])));
    let request = stage.line("/quit").request("outbox");
    stage.answer(request, Err(broken("no history")));
    let left = left_with(vec![waiting("bob", 1)]);
    assert_eq!(stage.wanted().ending, Some(left.clone()));

    let mut stage = Stage::with_bob();
    stage.exchange("hi", Ok(Reply::Queued(vec![id(1)])));
    stage.line("/quit");
    assert_eq!(stage.line("/quit").ending, Some(left), "the second time");
}

#[test]
fn two_interrupts_end_it_and_one_does_not() {
    let mut stage = Stage::with_bob();
    let once = objection(Objection::InterruptOnce);
    assert_eq!(stage.typed(Typed::Interrupt).items, once);
    stage.line("still here");
    let cleared = stage.typed(Typed::Cleared);
    assert_eq!((cleared.items, cleared.ending), (Vec::new(), None));
    assert_eq!(stage.typed(Typed::Interrupt).items, once);
    let left = stage.leave(Typed::Interrupt, Vec::new());
    assert_eq!(left.ending, Some(left_with(Vec::new())));
}

#[test]
fn the_end_of_piped_input_waits_for_what_was_sent() {
    let mut stage = Stage::settled(setup(false, Some("bob")));
    stage.exchange("one", Ok(Reply::Queued(vec![id(1)])));
    let wanted = stage.typed(Typed::End);
    assert_eq!(wanted.ending, None);
    assert!(wanted.deadline.is_some());
    assert_eq!(stage.conversation.prompt(), None);
    let wanted = stage.event(state_of(1, "bob", MessageState::Delivered));
    assert_eq!(wanted.items, [receipts("bob", MessageState::Delivered, 1)]);
    assert_eq!(wanted.ending, Some(left_with(Vec::new())));
}

#[test]
fn the_end_of_piped_input_waits_for_transfers_but_not_for_ever() {
    let mut stage = Stage::settled(setup(false, Some("bob")));
    stage.exchange("/send-file bob a", Ok(Reply::Started(transfer_id(1))));
    stage.exchange("one", Ok(Reply::Queued(vec![id(1)])));
    assert_eq!(stage.typed(Typed::End).ending, None);
    stage.event(state_of(1, "bob", MessageState::Delivered));
    assert_eq!(stage.pass(Duration::from_secs(9)).ending, None);
    assert_eq!(
        stage.event(transfer(1, failed())).ending,
        Some(left_with(Vec::new()))
    );

    let mut stage = Stage::settled(setup(false, Some("bob")));
    for number in [1, 2] {
        stage.exchange("hi", Ok(Reply::Queued(vec![id(number)])));
    }
    stage.typed(Typed::End);
    assert_eq!(
        stage.pass(DELIVERY_TIMEOUT).ending,
        Some(Ending::Unfinished {
            waiting: vec![waiting("bob", 2)],
            transfers: Vec::new()
        })
    );
}

#[test]
fn the_end_of_piped_input_waits_while_a_file_moves() {
    let mut stage = Stage::settled(setup(false, Some("bob")));
    stage.exchange("/send-file bob a", Ok(Reply::Started(transfer_id(1))));
    stage.typed(Typed::End);
    assert_eq!(stage.pass(Duration::from_secs(9)).ending, None);
    stage.event(transfer(1, TransferState::Waiting));
    for second in 1..60 {
        assert_eq!(stage.pass(Duration::from_secs(9)).ending, None);
        stage.event(transfer(1, moving(second)));
    }
    let over = stage.pass(DELIVERY_TIMEOUT);
    assert_eq!(
        over.ending,
        Some(Ending::Unfinished {
            waiting: Vec::new(),
            transfers: vec![file(1, "a")]
        })
    );
    assert_eq!(over.methods(), ["cancel"], "the node may stay for others");
}

#[test]
fn nothing_sent_is_nothing_to_wait_for() {
    let mut stage = Stage::settled(setup(false, None));
    assert_eq!(stage.typed(Typed::End).ending, Some(left_with(Vec::new())));
}

#[test]
fn a_line_editor_that_fails_ends_the_conversation() {
    let mut stage = Stage::with_bob();
    let Some(Ending::Failed(failure)) = stage.typed(Typed::Failed).ending else {
        panic!("it goes on");
    };
    assert_eq!(failure.what(), "could not read what is typed");
}
