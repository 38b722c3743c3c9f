use super::*;
use crate::node::io::ChatRequest;

/// A number of chains with an entry each, written straight into both stores.
fn chains(twins: &mut Twins, count: usize, body: &[u8], kind: Kind) -> Vec<ChainId> {
    let device = key(1);
    let mut ids = Vec::new();
    let mut writes = Vec::new();
    for n in 0..count {
        let mut run = [0; 16];
        run[..8].copy_from_slice(&(n as u64).to_be_bytes());
        let run = RunId::from_bytes(run);
        let mut writer = Writer::new(1);
        writer.replica.begin(OwnRun::begin(device, run));
        let admission = writer.append(kind, body.to_vec());
        ids.push(admission.chain);
        let origin = Origin::WrittenHere;
        writes.push(EntryWrite::Admit(Box::new(admission), origin));
        if writes.len() == ENTRY_WRITES_MAX || n + 1 == count {
            twins.written(std::mem::take(&mut writes));
        }
    }
    ids
}

#[test]
fn chains_are_read_in_parts() {
    let mut twins = Twins::open();
    let count = CHAINS_READ_MAX + 1;
    let ids = chains(&mut twins, count, b"x", Kind::TEXT);
    let part = |twins: &mut Twins, after| {
        let request = EntriesRequest::Chains {
            conversation: CONVERSATION,
            after,
        };
        let EntriesAnswer::Chains(part) = twins.read(request) else {
            panic!("no chains");
        };
        part
    };
    let first = part(&mut twins, None);
    assert_eq!(first.items.len(), CHAINS_READ_MAX);
    assert_eq!(first.next, Some(ids[CHAINS_READ_MAX - 1]));
    let second = part(&mut twins, first.next);
    assert_eq!((second.items.len(), second.next), (1, None));
}

#[test]
fn forks_are_read_in_parts() {
    let mut twins = Twins::open();
    let ids = chains(&mut twins, FORKS_READ_MAX + 1, b"x", Kind::TEXT);
    let proof = proof(1);
    let writes = ids.iter().map(|chain| {
        EntryWrite::Fork(Box::new(ForkProof {
            chain: *chain,
            ..proof.clone()
        }))
    });
    let writes = writes.collect();
    twins.written(writes);
    let mut after = None;
    for expected in [FORKS_READ_MAX, 1] {
        let request = EntriesRequest::Forks {
            conversation: CONVERSATION,
            after,
        };
        let EntriesAnswer::Forks(part) = twins.read(request) else {
            panic!("no forks");
        };
        assert_eq!(part.items.len(), expected);
        after = part.next;
    }
    assert_eq!(after, None);
}

#[test]
fn cuts_are_read_in_parts_and_those_that_say_nothing_are_passed_over() {
    let mut twins = Twins::open();
    chains(&mut twins, CUTS_READ_MAX, b"says nothing", Kind::CUT);
    let mut writer = Writer::new(2);
    let target = EntryId {
        chain: Writer::new(1).chain(),
        sequence: at(1),
    };
    twins.keep(writer.write(&Body::Cut(target)), Origin::OtherAccount);
    let mut after = None;
    for expected in [0, 1] {
        let request = EntriesRequest::Cuts {
            conversation: CONVERSATION,
            after,
        };
        let EntriesAnswer::Cuts(part) = twins.read(request) else {
            panic!("no cuts");
        };
        assert_eq!(part.items.len(), expected);
        after = part.next;
    }
    assert_eq!(after, None);
}

#[test]
fn what_is_lost_is_read_in_parts() {
    let mut twins = Twins::open();
    let mut writer = Writer::new(1);
    for n in 0..=LOST_READ_MAX {
        twins.keep(writer.text(&format!("{n}")), Origin::WrittenHere);
    }
    let mut rewrite = writer.nothing();
    rewrite.rewrite = Some(Rewrite {
        chain: writer.chain(),
        from: at(1),
        until: None,
    });
    twins.keep(rewrite, Origin::OtherAccount);
    let lost = twins.lost();
    assert_eq!(lost.len(), LOST_READ_MAX);
    let writes = lost.iter().map(|lost| EntryWrite::Rewritten(lost.id));
    let writes = writes.collect();
    twins.write(writes);
    assert_eq!(twins.lost().len(), 1);
}

#[test]
fn there_are_so_many_conversations_and_no_more() {
    let mut twins = Twins::new();
    let id = |n: usize| {
        let mut id = [0; 32];
        id[..8].copy_from_slice(&(n as u64).to_be_bytes());
        ConversationId::from_bytes(id)
    };
    let requests: Vec<_> = (0..CONVERSATIONS_MAX)
        .map(|n| StoreRequest::Entries(open_request(id(n))))
        .collect();
    // In few transactions.
    let answers = twins.history().execute(&requests).unwrap();
    assert!(answers.iter().all(|answer| *answer == StoreAnswer::Done));
    for request in &requests {
        twins.memory.execute(request);
    }
    let answer = twins.ask(open_request(id(CONVERSATIONS_MAX)));
    let full = EntriesRefusal::TooManyConversations.to_string();
    assert_eq!(answer, StoreAnswer::Failed(full));
    assert_eq!(twins.ask(open_request(id(0))), StoreAnswer::Done);
    let mut after = None;
    let mut found = 0;
    loop {
        let request = EntriesRequest::Conversations { after };
        let EntriesAnswer::Conversations(part) = twins.read(request) else {
            panic!("no conversations");
        };
        assert!(part.items.len() <= CONVERSATIONS_READ_MAX);
        found += part.items.len();
        after = part.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(found, CONVERSATIONS_MAX);
}

#[test]
fn a_request_has_so_many_parts_and_no_more() {
    let mut twins = Twins::open();
    let too_many = StoreAnswer::Failed(EntriesRefusal::TooMany.to_string());
    let begin = EntryWrite::Begin(RunId::from_bytes([1; 16]));
    let mut writes = vec![begin.clone(); ENTRY_WRITES_MAX];
    twins.written(writes.clone());
    writes.push(begin);
    assert_eq!(twins.write(writes), too_many);
    let entry = EntryId {
        chain: Writer::new(1).chain(),
        sequence: at(1),
    };
    for (count, expected) in [
        (BODIES_DROPPED_MAX, StoreAnswer::Done),
        (BODIES_DROPPED_MAX + 1, too_many.clone()),
    ] {
        let answer = twins.ask(EntriesRequest::DropBodies {
            conversation: CONVERSATION,
            entries: vec![entry; count],
        });
        assert_eq!(answer, expected);
    }
    for (count, is_done) in [(MESSAGES_FOUND_MAX, true), (MESSAGES_FOUND_MAX + 1, false)] {
        let ids = vec![MessageId::of_entry(&CONVERSATION, &entry); count];
        let answer = twins.ask(EntriesRequest::Find { ids });
        let nothing = StoreAnswer::Entries(EntriesAnswer::Found(Vec::new()));
        let expected = if is_done { nothing } else { too_many.clone() };
        assert_eq!(answer, expected);
    }
    let mark = CleanMark {
        run: entry.chain.run,
        last: at(1),
        hash: HeaderHash::NONE,
        instance: Instance([0; 32]),
    };
    for (count, expected) in [
        (CONVERSATIONS_MAX, StoreAnswer::Done),
        (CONVERSATIONS_MAX + 1, too_many),
    ] {
        let marks = vec![(CONVERSATION, mark); count];
        assert_eq!(twins.ask(EntriesRequest::SetMarks(marks)), expected);
    }
}

#[test]
fn of_many_messages_that_get_somewhere_at_once_the_last_ones_are_told() {
    let mut twins = Twins::open();
    let max = HISTORY_ITEMS_MAX as usize;
    let admissions = speed::admissions(max + 1, 1);
    let chain = admissions[0].chain;
    for admissions in admissions.chunks(ENTRY_WRITES_MAX) {
        let writes = admissions
            .iter()
            .map(|admission| EntryWrite::Admit(Box::new(admission.clone()), Origin::OwnAccount));
        twins.written(writes.collect());
    }
    let last = max as u64 + 1;
    let changed = twins.reach(chain, Reach::Delivered, last);
    let id = |number| {
        let sequence = at(number);
        MessageId::of_entry(&CONVERSATION, &EntryId { chain, sequence })
    };
    assert_eq!(changed.len(), max);
    assert_eq!((changed[0], changed[max - 1]), (id(2), id(last)));
    assert_eq!(twins.items(ChatRequest::Outbox), []);
}

#[test]
fn messages_that_wait_are_read_up_to_a_bound() {
    let mut twins = Twins::open();
    let len = MESSAGE_LEN_MAX;
    let count = HISTORY_ITEMS_LEN_MAX / len + 2;
    chains(&mut twins, count, &vec![b'x'; len], Kind::TEXT);
    let waiting = twins.items(ChatRequest::Outbox);
    assert_eq!(waiting.len(), HISTORY_ITEMS_LEN_MAX / len);
}

#[test]
fn a_long_conversation_is_forgotten_a_step_at_a_time() {
    let mut twins = Twins::open();
    chains(&mut twins, BODIES_DROPPED_MAX + 1, b"x", Kind::TEXT);
    let mut after = None;
    let mut steps = 0;
    loop {
        let request = EntriesRequest::Forget {
            conversation: CONVERSATION,
            after,
            before: None,
        };
        let EntriesAnswer::Forgotten { next } = twins.read(request) else {
            panic!("nothing forgotten");
        };
        steps += 1;
        after = next;
        if next.is_none() {
            break;
        }
    }
    assert_eq!(steps, 2);
    let shown = twins.shown(all(SpanEnd::First));
    assert_eq!(shown.len(), BODIES_DROPPED_MAX + 1);
    assert!(shown.iter().all(|entry| entry.entry.body.is_none()));
}

#[test]
fn a_page_and_a_stretch_are_no_longer_than_they_may_be() {
    let mut twins = Twins::open();
    let mut writer = Writer::new(1);
    let long = vec![b'x'; ENTRY_BODY_LEN_MAX];
    for n in 0..UNSEALED_ENTRIES_MAX {
        let body = if n < 4 { long.clone() } else { vec![b'y'] };
        twins.keep(writer.append(Kind::TEXT, body), Origin::WrittenHere);
    }
    let request = PageRequest {
        conversation: CONVERSATION,
        chain: writer.chain(),
        first: at(1),
        until: at(64),
        end: PageEnd::Anywhere,
    };
    let rows = |twins: &mut Twins, request| twins.rows(request).1;
    let cost = |rows: &[Row]| rows.iter().map(|row| row.entry.cost()).sum::<usize>();
    let read = rows(&mut twins, request);
    assert!(cost(&read) <= PAGE_LEN_MAX);
    assert_eq!(read.len(), 2);
    let before = PageRequest {
        end: PageEnd::Before,
        ..request
    };
    let read = rows(&mut twins, before);
    assert_eq!(read.len(), PAGE_ENTRIES_MAX);
    let bodies: usize = read
        .iter()
        .filter_map(|row| row.entry.body.as_ref())
        .map(Vec::len)
        .sum();
    assert!(bodies <= PAGE_LEN_MAX);
    let page = twins.page(before).unwrap();
    assert_eq!(page.last(), at(64));
    assert!(page.entries.iter().all(|entry| entry.body.is_some()));
    let too_long = PageRequest {
        until: at(65),
        ..before
    };
    assert_eq!(rows(&mut twins, too_long), []);
    let own = twins.read(EntriesRequest::OwnStretch {
        conversation: CONVERSATION,
        chain: writer.chain(),
        first: at(1),
        last: at(64),
    });
    assert!(matches!(own, EntriesAnswer::OwnStretch(own) if own.headers.len() == STRETCH_READ_MAX));
}

#[test]
fn what_is_shown_at_once_is_bounded_in_bytes() {
    let mut twins = Twins::open();
    let len = ENTRY_BODY_LEN_MAX;
    let count = HISTORY_ITEMS_LEN_MAX / len + 2;
    chains(&mut twins, count, &vec![b'x'; len], Kind::TEXT);
    for end in [SpanEnd::First, SpanEnd::Last] {
        let shown = twins.shown(all(end));
        assert_eq!(shown.len(), count - 1);
    }
}

#[test]
fn an_end_with_more_entries_without_a_seal_than_may_be_is_refused() {
    let mut twins = Twins::open();
    let mut writer = Writer::new(1);
    for n in 0..UNSEALED_ENTRIES_MAX {
        twins.keep(writer.text(&format!("{n}")), Origin::WrittenHere);
    }
    let (_, stored) = twins.chains().remove(0);
    assert_eq!(stored.unsealed.len(), UNSEALED_ENTRIES_MAX);
    let mut one_more = writer.seal_and_text();
    one_more.sealed = Sequence::START;
    let write = EntryWrite::Admit(Box::new(one_more), Origin::WrittenHere);
    let request = StoreRequest::Entries(EntriesRequest::Write {
        conversation: CONVERSATION,
        writes: vec![write],
    });
    let history = twins.history();
    let answer = history.execute_alone(&request);
    assert!(matches!(answer, StoreAnswer::Entries(_)), "{answer:?}");
    let read = StoreRequest::Entries(EntriesRequest::Chains {
        conversation: CONVERSATION,
        after: None,
    });
    let answer = history.execute_alone(&read);
    assert!(matches!(answer, StoreAnswer::Failed(_)), "{answer:?}");
}
