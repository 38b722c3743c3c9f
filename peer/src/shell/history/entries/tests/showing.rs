use common::id::AccountName;
use common::log::{Reaction, Session};
use common::wire::peer::{Conversation, Message, MessageBody};

use super::*;
use crate::node::command::Direction::{Received, Sent as FromHere};
use crate::node::command::MessageState::{Delivered, Queued, Read, Sent};
use crate::node::command::{HistoryItem, HistoryQuery, MessageState, RecordedPage};
use crate::node::io::{ChatAnswer, ChatRequest, Marked};

impl Twins {
    /// Both answer alike.
    #[track_caller]
    pub(super) fn chat(&mut self, request: ChatRequest) -> ChatAnswer {
        let request = StoreRequest::Chat(request);
        let answer = self.history().execute_alone(&request);
        assert_eq!(self.memory.execute(&request), answer, "{request:?}");
        let StoreAnswer::Chat(answer) = answer else {
            panic!("{answer:?}");
        };
        answer
    }

    #[track_caller]
    pub(super) fn items(&mut self, request: ChatRequest) -> Vec<HistoryItem> {
        let ChatAnswer::Messages(items) = self.chat(request) else {
            panic!("no messages");
        };
        items
    }

    /// What people are shown.
    #[track_caller]
    pub(super) fn messages(&mut self) -> Vec<HistoryItem> {
        self.items(ChatRequest::History(HistoryQuery::latest(None, u32::MAX)))
    }

    #[track_caller]
    fn texts(&mut self) -> Vec<String> {
        let items = self.messages().into_iter();
        items.map(|item| item.body.into()).collect()
    }

    #[track_caller]
    fn states(&mut self) -> Vec<MessageState> {
        let items = self.messages().into_iter();
        items.map(|item| item.state).collect()
    }

    #[track_caller]
    pub(super) fn recorded(&mut self) -> RecordedPage {
        let (after, limit) = (Cursor::default(), u32::MAX);
        let ChatAnswer::Recorded(page) = self.chat(ChatRequest::Recorded { after, limit }) else {
            panic!("nothing recorded");
        };
        page
    }

    #[track_caller]
    pub(super) fn reach(&mut self, chain: ChainId, reach: Reach, last: u64) -> Vec<MessageId> {
        let request = EntriesRequest::Reach {
            conversation: CONVERSATION,
            chain,
            reach,
            last: at(last),
        };
        let EntriesAnswer::Reached(changed) = self.read(request) else {
            panic!("nothing reached");
        };
        changed
    }

    #[track_caller]
    pub(super) fn mark_read(&mut self, ids: Vec<MessageId>) -> Vec<Marked> {
        let ChatAnswer::Marked(marked) = self.chat(ChatRequest::MarkRead { ids }) else {
            panic!("nothing marked");
        };
        marked
    }

    #[track_caller]
    fn queue(&mut self, to: &str, id: MessageId, text: &str) {
        let messages = vec![(name(to), message(id, text))];
        let sent = std::collections::BTreeSet::new();
        self.chat(ChatRequest::Queue { messages, sent });
    }

    #[track_caller]
    fn receive(&mut self, id: MessageId, text: &str) {
        self.chat(ChatRequest::Receive {
            from: name("bob"),
            message: message(id, text),
            at: WALL,
            chain: 1,
        });
    }

    #[track_caller]
    fn reached(&mut self) -> Reached {
        let (_, _, reached) = self.reached_chains().remove(0);
        reached
    }
}

fn name(text: &str) -> AccountName {
    text.parse().unwrap()
}

fn body(text: &str) -> MessageBody {
    MessageBody::try_from(text.to_owned()).unwrap()
}

fn message(id: MessageId, text: &str) -> Message {
    Message {
        id,
        conversation: Conversation::Direct,
        sent: WALL,
        body: body(text),
    }
}

fn id(chain: ChainId, number: u64) -> MessageId {
    MessageId::of_entry(&CONVERSATION, &entry(chain, number))
}

fn entry(chain: ChainId, number: u64) -> EntryId {
    EntryId {
        chain,
        sequence: at(number),
    }
}

/// Any identifier of the old way.
const fn old(byte: u8) -> MessageId {
    MessageId::from_bytes([byte; 16])
}

fn admit(admission: Admission, origin: Origin) -> EntryWrite {
    EntryWrite::Admit(Box::new(admission), origin)
}

/// The last entry of a chain, removed.
fn removed(writer: &mut Writer, from: u64) -> Admission {
    let mut admission = writer.nothing();
    admission.remove = Some(at(from));
    admission
}

// ---- what is shown -----------------------------------------------------------------------------

#[test]
fn texts_and_replies_are_shown_and_what_says_nothing_to_people_is_only_kept() {
    let mut twins = Twins::open();
    let mut writer = Writer::new(1);
    let chain = writer.chain();
    let to = entry(chain, 1);
    let bodies = [
        (Kind::TEXT, b"a text".to_vec()),
        (Kind::TEXT, vec![0xff, 0xfe]),
        (Kind::TEXT, Vec::new()),
        (
            Kind::REPLY,
            Body::Reply {
                to,
                text: body("a reply"),
            }
            .to_bytes(),
        ),
        (Kind::REPLY, b"to nothing".to_vec()),
        (
            Kind::EDIT,
            Body::Edit {
                of: to,
                text: body("another text"),
            }
            .to_bytes(),
        ),
        (
            Kind::REACT,
            Body::React {
                to,
                reaction: Reaction::new("!".to_owned()).unwrap(),
            }
            .to_bytes(),
        ),
        (
            Kind::SESSION,
            Body::Session(Session::new(WALL, WALL).unwrap()).to_bytes(),
        ),
        (Kind::CUT, Body::Cut(to).to_bytes()),
        (Kind::DELETE, Body::Delete { of: to }.to_bytes()),
        (Kind(77), b"of a later version".to_vec()),
        (Kind(200), b"of a later version".to_vec()),
        (Kind::TEXT, b"nul \0 and all".to_vec()),
    ];
    let count = bodies.len();
    let mut shown = Vec::new();
    for (kind, body) in bodies {
        let write = admit(writer.append(kind, body), Origin::OtherAccount);
        shown.extend(twins.written(vec![write]));
    }
    let places = [(1, 1), (4, 2), (13, 3)];
    assert_eq!(
        shown,
        places.map(|(number, place)| (entry(chain, number), Cursor(place)))
    );
    twins.reopen();
    assert_eq!(twins.texts(), ["a text", "a reply", "nul \0 and all"]);
    assert_eq!(twins.shown(all(SpanEnd::First)).len(), count);
    let first = HistoryItem {
        id: id(chain, 1),
        with: name("bob"),
        direction: Received,
        sent: WALL.saturating_add(std::time::Duration::from_millis(1)),
        body: body("a text"),
        state: Delivered,
    };
    assert_eq!(twins.messages()[0], first);
    assert_eq!(twins.items(ChatRequest::Unread)[0], first);
    let page = twins.recorded();
    assert_eq!(page.last, Cursor(3));
    let cursors: Vec<u64> = page.messages.iter().map(|it| it.cursor.0).collect();
    assert_eq!(cursors, [1, 2, 3]);
}

#[test]
fn whose_entries_they_are_says_which_way_messages_go_and_how_far_they_are() {
    let notes = ConversationKind::Notes(name("alice"));
    let direct = ConversationKind::Direct(name("bob"));
    for (kind, origin, direction, state) in [
        (&direct, Origin::WrittenHere, FromHere, Queued),
        (&direct, Origin::OwnAccount, FromHere, Queued),
        (&direct, Origin::OtherAccount, Received, Delivered),
        (&notes, Origin::WrittenHere, FromHere, Delivered),
        (&notes, Origin::OwnAccount, FromHere, Delivered),
    ] {
        let mut twins = Twins::new();
        twins.ask(EntriesRequest::Open {
            conversation: CONVERSATION,
            kind: kind.clone(),
        });
        twins.keep(Writer::new(1).text("text"), origin);
        let shown = twins.messages();
        let found = (&shown[0].with, shown[0].direction, shown[0].state);
        assert_eq!(found, (kind.account(), direction, state), "{origin:?}");
        let is_here = twins.shown(all(SpanEnd::Last))[0].is_written_here;
        assert_eq!(is_here, origin == Origin::WrittenHere);
        let outbox = twins.items(ChatRequest::Outbox);
        assert_eq!(outbox.len(), usize::from(state < Delivered));
        // Nobody sends it the old way as well.
        let history = twins.history().restore().unwrap();
        assert_eq!(history.outbox, []);
        assert_eq!(twins.memory.restore().outbox, []);
    }
}

#[test]
fn t44_messages_have_the_order_in_which_entries_are_shown_whenever_they_came() {
    let mut twins = Twins::open();
    let mut writers: Vec<Writer> = (1..4).map(Writer::new).collect();
    let texts = ["from the year 9999", "between", "early"];
    let clocks = [3, 2, 1].map(|n| Clock::at(WALL).to_bits() + n);
    for ((writer, text), placed) in writers.iter_mut().zip(texts).zip(clocks) {
        let mut admission = writer.text(text);
        let stored = &mut admission.entries[0];
        stored.placed.at = Clock::from_bits(placed);
        if text == texts[0] {
            stored.entry.outline.clock = Clock::from_bits(253_370_764_800_000 << 16);
        }
        twins.keep(admission, Origin::OtherAccount);
    }
    // Of the same time, and before all entries of its millisecond.
    twins.receive(old(1), "the old way");
    let expected = ["the old way", "early", "between", "from the year 9999"];
    assert_eq!(twins.texts(), expected);
    let with = |with, limit| ChatRequest::History(HistoryQuery::latest(with, limit));
    let of = |items: Vec<HistoryItem>| -> Vec<String> {
        items.into_iter().map(|item| item.body.into()).collect()
    };
    for limit in 0..5 {
        let last = &expected[4 - limit..];
        for peer in [None, Some(name("bob"))] {
            assert_eq!(of(twins.items(with(peer, limit as u32))), last);
        }
    }
    assert_eq!(of(twins.items(with(Some(name("carol")), 9))), [""; 0]);
    let sent = twins.messages()[3].sent;
    assert_eq!(sent, UnixTime::from_millis(253_370_764_800_000));
    // Whoever follows the history, or has something unread, goes on where they were.
    let order = ["from the year 9999", "between", "early", "the old way"];
    let recorded = twins.recorded().messages.into_iter();
    assert_eq!(of(recorded.map(|it| it.item).collect()), order);
    assert_eq!(of(twins.items(ChatRequest::Unread)), order);
}

#[test]
fn a_search_finds_what_came_last_in_the_order_in_which_it_is_shown() {
    let mut twins = Twins::open();
    let mut writers: Vec<Writer> = (1..5).map(Writer::new).collect();
    for ((writer, text), ahead) in writers
        .iter_mut()
        .zip(["one word", "two words", "other", "word three"])
        .zip([0, 3, 2, 1])
    {
        let mut admission = writer.text(text);
        let wall = Clock::at(WALL).to_bits();
        admission.entries[0].placed.at = Clock::from_bits(wall + ahead);
        twins.keep(admission, Origin::OtherAccount);
    }
    for (limit, expected) in [
        (9, &["one word", "word three", "two words"][..]),
        (2, &["word three", "two words"]),
        (1, &["word three"]),
    ] {
        let query = HistoryQuery {
            words: vec!["word".to_owned()],
            ..HistoryQuery::latest(Some(name("bob")), limit)
        };
        let found = twins.items(ChatRequest::History(query)).into_iter();
        let found: Vec<String> = found.map(|item| item.body.into()).collect();
        assert_eq!(found, expected);
    }
}

#[test]
fn who_is_called_something_else_now_keeps_the_messages_under_the_name_of_before() {
    let mut twins = Twins::open();
    let mut writer = Writer::new(1);
    twins.keep(writer.text("to bob"), Origin::WrittenHere);
    twins.ask(EntriesRequest::Open {
        conversation: CONVERSATION,
        kind: ConversationKind::Direct(name("robert")),
    });
    twins.keep(writer.text("to robert"), Origin::WrittenHere);
    let with: Vec<_> = twins.messages().into_iter().map(|it| it.with).collect();
    assert_eq!(with, [name("bob"), name("robert")]);
    assert_eq!(twins.reach(writer.chain(), Reach::Sent, 2).len(), 2);
    assert_eq!(twins.states(), [Sent, Sent]);
}

#[test]
fn nothing_is_written_in_a_conversation_of_an_unknown_kind() {
    let mut twins = Twins::open();
    let connection = &twins.history().connection;
    let damage = "UPDATE conversations SET kind = 9";
    connection.execute(damage, []).unwrap();
    let request = StoreRequest::Entries(EntriesRequest::Write {
        conversation: CONVERSATION,
        writes: vec![admit(Writer::new(1).text("text"), Origin::OtherAccount)],
    });
    let answer = twins.history().execute_alone(&request);
    assert!(matches!(answer, StoreAnswer::Failed(_)), "{answer:?}");
    assert_eq!(twins.chains(), []);
    assert_eq!(twins.texts(), [""; 0]);
}

/// Whoever knows what an entry of theirs will be called can send a message of that name before. It hides their own.
#[test]
fn t35_a_message_that_takes_the_identifier_of_an_entry_hides_what_its_author_says_and_no_more() {
    let mut twins = Twins::open();
    let (mut theirs, mut ours) = (Writer::new(1), Writer::new(2));
    twins.receive(id(theirs.chain(), 1), "forged");
    twins.receive(id(ours.chain(), 1), "forged, too");
    let writes = vec![
        admit(theirs.text("hidden"), Origin::OtherAccount),
        admit(theirs.text("theirs"), Origin::OtherAccount),
        admit(ours.text("ours"), Origin::WrittenHere),
    ];
    let shown = twins.written(writes);
    let expected = [
        (entry(theirs.chain(), 2), Cursor(3)),
        (entry(ours.chain(), 1), Cursor(4)),
    ];
    assert_eq!(shown, expected);
    assert_eq!(twins.shown(all(SpanEnd::First)).len(), 3);
    let shown = ["forged", "forged, too", "ours", "theirs"];
    assert_eq!(twins.texts(), shown);
    // The message is no entry, and drags none along.
    let marked = twins.mark_read(vec![id(theirs.chain(), 1)]);
    assert_eq!(marked[0].entry, None);
    assert_eq!(twins.reached(), Reached::default());
    twins.reach(theirs.chain(), Reach::Read, 2);
    twins.reach(ours.chain(), Reach::Read, 2);
    assert_eq!(twins.states(), [Read, Delivered, Read, Read]);
    let request = EntriesRequest::DropBodies {
        conversation: CONVERSATION,
        entries: vec![entry(theirs.chain(), 1), entry(ours.chain(), 1)],
    };
    assert_eq!(twins.ask(request), StoreAnswer::Done);
    assert_eq!(twins.texts(), ["forged", "forged, too", "theirs"]);
}

// ---- how far it is -----------------------------------------------------------------------------

#[test]
fn own_messages_get_as_far_as_their_chain_and_never_back() {
    let mut twins = Twins::open();
    let mut writer = Writer::new(1);
    let chain = writer.chain();
    for n in 1..=5 {
        twins.keep(writer.text(&n.to_string()), Origin::WrittenHere);
    }
    let ids = |numbers: &[u64]| -> Vec<MessageId> {
        let ids = numbers.iter().map(|number| id(chain, *number));
        ids.collect()
    };
    for (reach, last, changed) in [
        (Reach::Sent, 2, &[1, 2][..]),
        (Reach::Sent, 1, &[]),
        (Reach::Delivered, 4, &[1, 2, 3, 4]),
        (Reach::Sent, 3, &[]),
        (Reach::Read, 3, &[1, 2, 3]),
        (Reach::Read, 3, &[]),
        (Reach::Sent, 5, &[5]),
    ] {
        assert_eq!(twins.reach(chain, reach, last), ids(changed), "{reach:?}");
    }
    let states = [Read, Read, Read, Delivered, Sent];
    assert_eq!(twins.states(), states);
    twins.reopen();
    let reached = Reached {
        sent: at(5),
        delivered: at(4),
        read: at(3),
    };
    assert_eq!(twins.reached(), reached);
    let outbox = twins.items(ChatRequest::Outbox);
    assert_eq!(outbox.len(), 1);
    assert_eq!(outbox[0].id, id(chain, 5));
    // What is not here yet has got there when it comes.
    assert_eq!(twins.reach(chain, Reach::Read, 7), ids(&[4, 5]));
    for n in 6..=8 {
        twins.keep(writer.text(&n.to_string()), Origin::OwnAccount);
    }
    assert_eq!(twins.states()[5..], [Read, Read, Queued]);
}

#[test]
fn of_a_chain_that_is_not_there_nothing_is_remembered() {
    let mut twins = Twins::new();
    let mut writer = Writer::new(1);
    let chain = writer.chain();
    assert_eq!(twins.reach(chain, Reach::Read, 3), []);
    twins.ask(open_request(CONVERSATION));
    assert_eq!(twins.reach(chain, Reach::Read, 3), []);
    twins.keep(writer.text("text"), Origin::WrittenHere);
    assert_eq!(twins.states(), [Queued]);
    assert_eq!(twins.reached(), Reached::default());
}

#[test]
fn what_another_account_has_written_is_read_as_far_as_this_one_has_read() {
    let mut twins = Twins::open();
    let mut writer = Writer::new(1);
    let chain = writer.chain();
    for n in 1..=3 {
        twins.keep(writer.text(&n.to_string()), Origin::OtherAccount);
    }
    // These say nothing of it.
    for reach in [Reach::Sent, Reach::Delivered] {
        assert_eq!(twins.reach(chain, reach, 3), []);
    }
    let changed = twins.reach(chain, Reach::Read, 2);
    assert_eq!(changed, [id(chain, 1), id(chain, 2)]);
    assert_eq!(twins.states(), [Read, Read, Delivered]);
    assert_eq!(twins.items(ChatRequest::Unread).len(), 1);
}

#[test]
fn what_is_marked_as_read_moves_its_chain_forward_and_leaves_what_was_passed_over() {
    let mut twins = Twins::open();
    let mut writer = Writer::new(1);
    let chain = writer.chain();
    for n in 1..=5 {
        twins.keep(writer.text(&n.to_string()), Origin::OtherAccount);
    }
    twins.receive(old(9), "the old way");
    let marked = twins.mark_read(vec![
        id(chain, 3),
        old(9),
        id(chain, 2),
        old(7),
        id(chain, 3),
    ]);
    let of = |number| Marked {
        author: name("bob"),
        id: id(chain, number),
        entry: Some((CONVERSATION, entry(chain, number))),
    };
    let the_old_way = Marked {
        author: name("bob"),
        id: old(9),
        entry: None,
    };
    assert_eq!(marked, [of(3), the_old_way, of(2)]);
    twins.reopen();
    assert_eq!(twins.reached().read, at(3));
    let unread = |twins: &mut Twins| -> Vec<MessageId> {
        let items = twins.items(ChatRequest::Unread).into_iter();
        items.map(|item| item.id).collect()
    };
    assert_eq!(unread(&mut twins), [1, 4, 5].map(|n| id(chain, n)));
    // Another device of this account has read on.
    let changed = twins.reach(chain, Reach::Read, 4);
    assert_eq!(changed, [id(chain, 4)]);
    assert_eq!(unread(&mut twins), [1, 5].map(|n| id(chain, n)));
    assert_eq!(twins.mark_read(vec![id(chain, 1)]), [of(1)]);
    assert_eq!(twins.reached().read, at(4));
    // Own messages are not marked by this.
    let mut own = Writer::new(2);
    twins.keep(own.text("own"), Origin::OwnAccount);
    assert_eq!(twins.mark_read(vec![id(own.chain(), 1)]), []);
}

// ---- what is not shown any more ----------------------------------------------------------------

#[test]
fn what_is_removed_dropped_or_written_again_is_not_shown_and_its_place_stays_empty() {
    let mut twins = Twins::open();
    let mut writer = Writer::new(1);
    let chain = writer.chain();
    for n in 1..=6 {
        twins.keep(writer.text(&n.to_string()), Origin::WrittenHere);
    }
    twins.keep(removed(&mut writer, 6), Origin::WrittenHere);
    assert_eq!(twins.texts(), ["1", "2", "3", "4", "5"]);
    twins.written(vec![EntryWrite::Rewritten(entry(chain, 4))]);
    assert_eq!(twins.texts(), ["1", "2", "3", "5"]);
    twins.ask(EntriesRequest::DropBodies {
        conversation: CONVERSATION,
        entries: vec![entry(chain, 2), entry(chain, 9)],
    });
    assert_eq!(twins.texts(), ["1", "3", "5"]);
    let after = twins.shown(all(SpanEnd::First))[2].at();
    twins.ask(EntriesRequest::Forget {
        conversation: CONVERSATION,
        after: Some(after),
        before: None,
    });
    assert_eq!(twins.texts(), ["1", "3"]);
    assert_eq!(twins.shown(all(SpanEnd::First)).len(), 5);
    twins.reopen();
    let mut other = Writer::new(2);
    let write = admit(other.text("next"), Origin::WrittenHere);
    let shown = twins.written(vec![write]);
    assert_eq!(shown, [(entry(other.chain(), 1), Cursor(7))]);
    // States pass over what is gone.
    let changed = twins.reach(chain, Reach::Delivered, 6);
    assert_eq!(changed, [id(chain, 1), id(chain, 3)]);
}

#[test]
fn what_one_request_both_shows_and_hides_is_not_told() {
    let mut twins = Twins::open();
    let mut writer = Writer::new(1);
    let chain = writer.chain();
    let texts: Vec<_> = (1..=4).map(|n| writer.text(&n.to_string())).collect();
    let mut writes: Vec<_> = texts
        .iter()
        .map(|text| admit(text.clone(), Origin::OwnAccount))
        .collect();
    writes.push(EntryWrite::Rewritten(entry(chain, 2)));
    writes.push(admit(removed(&mut writer, 4), Origin::OwnAccount));
    writes.push(admit(texts[3].clone(), Origin::OwnAccount));
    let shown = twins.written(writes);
    let expected = [(1, 1), (3, 3), (4, 5)];
    assert_eq!(
        shown,
        expected.map(|(number, place)| (entry(chain, number), Cursor(place)))
    );
    assert_eq!(twins.texts(), ["1", "3", "4"]);
}

#[test]
fn what_is_left_from_before_a_chain_began_anew_makes_way_for_what_was_there() {
    let mut twins = Twins::open();
    let (mut one, mut other) = (Writer::new(1), Writer::new(1));
    let chain = one.chain();
    // Nobody has sealed these.
    for n in 1..=2 {
        twins.keep(one.text(&format!("one {n}")), Origin::OtherAccount);
    }
    let mut page: Vec<_> = (1..=3).map(|n| other.text(&format!("other {n}"))).collect();
    let mut last = page.remove(2);
    last.entries[0].sequence = at(4);
    last.base = at(4);
    last.sealed = Sequence::START;
    twins.keep(last.clone(), Origin::OtherAccount);
    let mut before = page.remove(0);
    before.entries.extend(page.remove(0).entries);
    let mut third = before.entries[1].clone();
    third.sequence = at(3);
    before.entries.push(third);
    let write = admit(before, Origin::OtherAccount);
    let shown = twins.written(vec![write]);
    assert_eq!(shown.len(), 3);
    assert_eq!(twins.messages().len(), 4);
    assert_eq!(twins.messages()[0].id, id(chain, 1));
    assert_eq!(
        twins
            .texts()
            .iter()
            .filter(|text| text.starts_with("one"))
            .count(),
        0
    );
}

#[test]
fn a_message_of_the_outbox_becomes_an_entry_once() {
    let mut twins = Twins::open();
    twins.queue("bob", old(1), "waits");
    twins.queue("carol", old(1), "waits");
    twins.queue("bob", old(2), "is there");
    twins.chat(ChatRequest::Advance {
        id: old(2),
        to: name("bob"),
        state: Delivered,
    });
    twins.receive(old(3), "received");
    let mut writer = Writer::new(1);
    let chain = writer.chain();
    let replaces = [old(1), old(2), old(3), old(4), id(chain, 1)];
    let mut writes = vec![admit(writer.text("waits"), Origin::WrittenHere)];
    writes.extend(replaces.map(EntryWrite::Replaces));
    let shown = twins.written(writes);
    assert_eq!(shown, [(entry(chain, 1), Cursor(5))]);
    let kept: Vec<_> = twins.messages().into_iter().map(|it| it.id).collect();
    assert_eq!(kept, [old(1), old(2), old(3), id(chain, 1)]);
    let outbox = twins.history().restore().unwrap().outbox;
    assert_eq!(outbox, [(name("carol"), message(old(1), "waits"))]);
    assert_eq!(twins.memory.restore().outbox, outbox);
    assert_eq!(twins.items(ChatRequest::Outbox).len(), 2);
    assert_eq!(twins.recorded().last, Cursor(5));
}

#[test]
fn requests_of_the_old_way_leave_the_messages_of_entries_alone() {
    let mut twins = Twins::open();
    let mut writer = Writer::new(1);
    twins.keep(writer.text("text"), Origin::WrittenHere);
    let id = id(writer.chain(), 1);
    let advanced = twins.chat(ChatRequest::Advance {
        id,
        to: name("bob"),
        state: Read,
    });
    assert_eq!(advanced, ChatAnswer::Advanced { is_new: false });
    let messages = vec![(name("bob"), id)];
    let withdraw = StoreRequest::Chat(ChatRequest::Withdraw { messages });
    assert_eq!(twins.history().execute_alone(&withdraw), StoreAnswer::Done);
    assert_eq!(twins.memory.execute(&withdraw), StoreAnswer::Done);
    assert_eq!(twins.states(), [Queued]);
}

#[test]
fn a_text_that_is_dropped_is_gone_from_the_index_of_words_as_well() {
    let mut twins = Twins::open();
    let mut writer = Writer::new(1);
    let texts = ["the combination is swordfish", "nothing else"];
    for text in texts {
        twins.keep(writer.text(text), Origin::OtherAccount);
    }
    assert!(!twins.history().add_to_index());
    twins.close();
    let path = twins.path();
    let has = |word: &str| {
        let bytes = std::fs::read(&path).unwrap();
        bytes
            .windows(word.len())
            .any(|part| part == word.as_bytes())
    };
    assert!(has("swordfish") && has("combination"));
    twins.reopen();
    twins.ask(EntriesRequest::DropBodies {
        conversation: CONVERSATION,
        entries: vec![entry(writer.chain(), 1)],
    });
    let query = HistoryQuery {
        words: vec!["swordfish".to_owned()],
        ..HistoryQuery::latest(None, 9)
    };
    assert_eq!(twins.items(ChatRequest::History(query)), []);
    twins.close();
    assert!(
        !has("swordfish") && !has("combination"),
        "it is left in the file"
    );
    assert!(has("nothing"));
}

// ---- finding -----------------------------------------------------------------------------------

#[test]
fn the_entries_of_messages_are_found_and_those_of_the_old_way_are_left_out() {
    let mut twins = Twins::open();
    let elsewhere = ConversationId::from_bytes([7; 32]);
    twins.ask(open_request(elsewhere));
    let mut writer = Writer::new(1);
    let chain = writer.chain();
    let text = writer.text("text");
    twins.keep(text.clone(), Origin::OtherAccount);
    twins.ask(EntriesRequest::Write {
        conversation: elsewhere,
        writes: vec![admit(text, Origin::OtherAccount)],
    });
    twins.receive(old(1), "the old way");
    let first = entry(chain, 1);
    let there = MessageId::of_entry(&elsewhere, &first);
    let find = |twins: &mut Twins, ids: &[MessageId]| {
        let EntriesAnswer::Found(found) = twins.read(EntriesRequest::Find { ids: ids.to_vec() })
        else {
            panic!("nothing found");
        };
        found
    };
    let ids = [there, old(1), id(chain, 1), id(chain, 2), there];
    let found = find(&mut twins, &ids);
    let expected = [
        (there, elsewhere, first),
        (id(chain, 1), CONVERSATION, first),
        (there, elsewhere, first),
    ];
    assert_eq!(found, expected);
    twins.ask(EntriesRequest::DropBodies {
        conversation: CONVERSATION,
        entries: vec![first],
    });
    assert_eq!(find(&mut twins, &ids).len(), 2);
}

// ---- transactions ------------------------------------------------------------------------------

#[test]
fn a_transaction_that_cannot_show_something_leaves_nothing() {
    let mut twins = Twins::open();
    twins.queue("bob", old(1), "waits");
    let mut writer = Writer::new(1);
    let mut writes = vec![EntryWrite::Replaces(old(1))];
    writes.extend((1..=3).map(|n| admit(writer.text(&n.to_string()), Origin::WrittenHere)));
    let request = StoreRequest::Entries(EntriesRequest::Write {
        conversation: CONVERSATION,
        writes: writes.clone(),
    });
    for n in 1..=3 {
        let trigger = format!(
            "CREATE TEMP TRIGGER fails BEFORE INSERT ON main.messages WHEN new.body = '{n}'
             BEGIN SELECT RAISE(ABORT, 'the disk is full'); END"
        );
        let connection = &twins.history().connection;
        connection.execute_batch(&trigger).unwrap();
        let answer = twins.history().execute_alone(&request);
        assert!(matches!(answer, StoreAnswer::Failed(_)), "{answer:?}");
        let connection = &twins.history().connection;
        connection.execute_batch("DROP TRIGGER fails").unwrap();
        assert_eq!(twins.chains(), []);
        assert_eq!(twins.texts(), ["waits"]);
    }
    // Nor does one whose last entry follows nothing.
    let mut broken = writes.clone();
    writer.text("4");
    broken.push(admit(writer.text("5"), Origin::WrittenHere));
    let refused = StoreAnswer::Failed(EntriesRefusal::NotNext.to_string());
    assert_eq!(twins.write(broken), refused);
    assert_eq!(twins.texts(), ["waits"]);
    assert_eq!(twins.written(writes).len(), 3);
    assert_eq!(twins.texts(), ["1", "2", "3"]);
}
