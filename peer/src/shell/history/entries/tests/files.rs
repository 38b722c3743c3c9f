use std::collections::BTreeSet;

use super::*;
use crate::node::command::{Direction, HistoryQuery, MessageState};
use crate::node::io::{ChatAnswer, ChatRequest};

/// Makes a store with one sealed entry and one that is not, a cut, a fork and something lost.
fn full() -> Twins {
    let mut twins = Twins::open();
    let mut writer = Writer::new(1);
    let run = EntryWrite::Begin(writer.chain().run);
    twins.write(vec![run]);
    twins.keep(writer.text("one"), Origin::WrittenHere);
    let target = EntryId {
        chain: writer.chain(),
        sequence: at(1),
    };
    twins.keep(writer.write(&Body::Cut(target)), Origin::WrittenHere);
    twins.keep(writer.seal(), Origin::WrittenHere);
    twins.keep(writer.text("three"), Origin::WrittenHere);
    twins.write(vec![EntryWrite::Fork(Box::new(proof(1)))]);
    let mut rewrite = writer.nothing();
    rewrite.rewrite = Some(Rewrite {
        chain: writer.chain(),
        from: at(1),
        until: None,
    });
    twins.keep(rewrite, Origin::OtherAccount);
    let mark = CleanMark {
        run: writer.chain().run,
        last: at(3),
        hash: HeaderHash::NONE,
        instance: Instance([1; 32]),
    };
    twins.ask(EntriesRequest::SetMarks(vec![(CONVERSATION, mark)]));
    twins
}

/// One request of each kind that reads, of what [`full`] has.
fn reads() -> Vec<EntriesRequest> {
    let conversation = CONVERSATION;
    let chain = Writer::new(1).chain();
    let place = at(2);
    let at = EntryId {
        chain,
        sequence: place,
    };
    let page = PageRequest {
        conversation,
        chain,
        first: super::at(1),
        until: super::at(3),
        end: PageEnd::Anywhere,
    };
    let before = PageRequest {
        end: PageEnd::Before,
        ..page
    };
    vec![
        EntriesRequest::Conversations { after: None },
        EntriesRequest::Chains {
            conversation,
            after: None,
        },
        EntriesRequest::Forks {
            conversation,
            after: None,
        },
        EntriesRequest::Cuts {
            conversation,
            after: None,
        },
        EntriesRequest::Lost { conversation },
        EntriesRequest::Page(page),
        EntriesRequest::Page(before),
        EntriesRequest::OwnStretch {
            conversation,
            chain,
            first: super::at(1),
            last: super::at(2),
        },
        EntriesRequest::Stretch { conversation, at },
        EntriesRequest::Hash { conversation, at },
        EntriesRequest::Fork {
            conversation,
            chain,
        },
        EntriesRequest::Shown(all(SpanEnd::Last)),
        EntriesRequest::Forget {
            conversation,
            after: None,
            before: None,
        },
        EntriesRequest::TakeMarks,
    ]
}

#[test]
fn a_damaged_row_is_refused_by_whoever_reads_it_and_nothing_panics() {
    let damages = [
        ("entries", "hash = x'00'"),
        ("entries", "hash = zeroblob(32)"),
        ("entries", "hash = zeroblob(33)"),
        ("entries", "kind = 300"),
        ("entries", "kind = -1"),
        ("entries", "kind = 7"),
        ("entries", "body = x'00'"),
        ("entries", "body_len = body_len + 1"),
        ("entries", "body_len = 1000000"),
        ("entries", "body_len = -1"),
        ("entries", "body_hash = zeroblob(31)"),
        ("entries", "clock = 5"),
        ("entries", "dating = 3"),
        ("entries", "sequence = sequence + 1"),
        ("entries", "sequence = -sequence"),
        ("entries", "sequence = sequence + (1 << 50)"),
        ("entries", "seal = x'00'"),
        ("chains", "device = zeroblob(32)"),
        ("chains", "device = zeroblob(3)"),
        ("chains", "run = zeroblob(3)"),
        ("chains", "base = -1"),
        ("chains", "sealed = 9"),
        ("chains", "read = -1"),
        ("chains", "before = x''"),
        ("conversations", "kind = 9"),
        ("conversations", "account = NULL"),
        ("conversations", "account = 'not a name!'"),
        ("conversations", "run = x'00'"),
        ("forks", "proof = x'00'"),
        ("forks", "proof = CAST(proof || x'00' AS BLOB)"),
        ("forks", "proof = substr(proof, 1, 50)"),
        ("forks", "proof = zeroblob(1000)"),
        ("rewrites", "kind = 300"),
        ("rewrites", "sequence = -sequence"),
        ("marks", "hash = x'00'"),
        ("marks", "last = -1"),
        ("marks", "instance = x'00'"),
        ("file", "id = x'00'"),
    ];
    for (table, damage) in damages {
        let mut twins = full();
        let connection = &twins.history().connection;
        connection
            .pragma_update(None, "ignore_check_constraints", true)
            .unwrap();
        // From the last one on: places stay unique.
        let statement = format!(
            "UPDATE {table} SET {damage} WHERE rowid = (SELECT max(rowid) FROM {table} WHERE {table}.rowid IS NOT NULL)"
        );
        connection.execute(&statement, []).unwrap();
        let mut refused = 0;
        for request in reads() {
            let request = StoreRequest::Entries(request);
            let answer = twins.history().execute_alone(&request);
            refused += usize::from(matches!(answer, StoreAnswer::Failed(_)));
        }
        let is_noticed = refused > 0;
        assert!(is_noticed, "{table}: {damage}");
    }
}

#[test]
fn what_an_older_program_has_kept_stays_as_it_is() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("history.db");
    let before = &SCHEMA.migrations[..5];
    let connection = Connection::open(&path).unwrap();
    for migration in before {
        connection.execute_batch(migration).unwrap();
    }
    connection.pragma_update(None, "user_version", 5).unwrap();
    connection
        .execute_batch(
            "INSERT INTO session VALUES (1, 'alice', zeroblob(32));
             INSERT INTO verified VALUES ('bob');
             INSERT INTO messages (direction, peer, id, state, sent_ms, at_ms, body)
             VALUES (0, 'bob', zeroblob(16), 0, 1, 1, 'hello'),
                    (1, 'bob', zeroblob(16), 2, 2, 2, 'hi');",
        )
        .unwrap();
    drop(connection);
    let mut ids = Vec::new();
    for _ in 0..2 {
        let mut history = History::open(&path).unwrap();
        let restored = history.restore().unwrap();
        assert_eq!(restored.session.unwrap().0, "alice".parse().unwrap());
        assert_eq!(restored.outbox.len(), 1);
        assert_eq!(restored.verified.len(), 1);
        let unread = history.execute_alone(&StoreRequest::Chat(ChatRequest::Unread));
        assert!(matches!(
            unread,
            StoreAnswer::Chat(ChatAnswer::Messages(messages)) if messages.len() == 1
        ));
        let request = StoreRequest::Entries(EntriesRequest::Conversations { after: None });
        let none = Part {
            items: Vec::new(),
            next: None,
        };
        let answer = history.execute_alone(&request);
        assert_eq!(
            answer,
            StoreAnswer::Entries(EntriesAnswer::Conversations(none))
        );
        let id = history
            .connection
            .query_row("SELECT id FROM file", [], |row| row.get::<_, [u8; 32]>(0));
        ids.push(id.unwrap());
    }
    assert_eq!(ids[0], ids[1], "the file stays the same");
    assert_ne!(ids[0], [0; 32]);
}

#[test]
fn what_was_answered_survives_a_kill_and_a_mark_waits_for_the_disk() {
    let mut twins = full();
    let (chains, messages) = (twins.reached_chains(), twins.messages());
    assert_eq!(messages.len(), 2);
    // What a killed process leaves behind is what its files hold at that moment.
    let left = TempDir::new().unwrap();
    for entry in std::fs::read_dir(twins.folder.path()).unwrap() {
        let entry = entry.unwrap();
        if !entry.file_name().to_str().unwrap().ends_with("-shm") {
            std::fs::copy(entry.path(), left.path().join(entry.file_name())).unwrap();
        }
    }
    twins.history = None;
    twins.folder = left;
    twins.reopen();
    assert_eq!(twins.reached_chains(), chains);
    assert_eq!(twins.messages(), messages);
    let marks = Vec::new();
    for (request, expected) in [
        (EntriesRequest::TakeMarks, Durability::PowerLoss),
        (EntriesRequest::SetMarks(marks), Durability::PowerLoss),
        (open_request(CONVERSATION), Durability::Kill),
    ] {
        assert_eq!(durability(&request), expected);
    }
}

/// Without this, catching up would take longer with each row that is there.
#[test]
fn no_request_reads_the_whole_table() {
    let mut twins = full();
    let connection = &twins.history().connection;
    let mut statement = connection
        .prepare("SELECT sql FROM sqlite_schema WHERE name = 'entries_shown'")
        .unwrap();
    let sql: String = statement.query_row([], |row| row.get(0)).unwrap();
    assert!(!sql.contains("UNIQUE"));
    for query in [
        "SELECT sequence FROM entries WHERE chain = 1 ORDER BY sequence DESC LIMIT 1",
        "SELECT hash FROM entries WHERE chain = 1 AND sequence = 2",
        "SELECT sequence FROM entries WHERE chain = 1 AND sequence >= 2 ORDER BY sequence LIMIT 3",
        "DELETE FROM messages WHERE entry =
             (SELECT number FROM entries WHERE chain = 1 AND sequence = 2)",
        "DELETE FROM messages WHERE entry IN
             (SELECT number FROM entries WHERE chain = 1 AND sequence >= 2)",
        "UPDATE messages SET state = 2 WHERE state < 2 AND entry IN
             (SELECT number FROM entries WHERE chain = 1 AND sequence BETWEEN 2 AND 3)",
        "SELECT messages.id FROM entries CROSS JOIN messages ON messages.entry = entries.number
             WHERE chain = 1 AND sequence BETWEEN 2 AND 3 AND state < 2 ORDER BY sequence DESC LIMIT 9",
        "SELECT id FROM messages WHERE peer = 'bob' ORDER BY placed DESC, number DESC LIMIT 9",
        "SELECT id FROM messages WHERE id = zeroblob(16) ORDER BY number",
    ] {
        for step in plan(connection, query) {
            let is_search = step.starts_with("SEARCH") || step.contains("SUBQUERY");
            let is_of_few = query.contains("id = ") && step.contains("TEMP B-TREE");
            assert!(is_search || is_of_few, "{query}: {step}");
        }
    }
    // All of it, but in its order and no further than people read.
    let query = "SELECT id FROM messages ORDER BY placed DESC, number DESC LIMIT 9";
    assert_eq!(
        plan(connection, query),
        ["SCAN messages USING INDEX messages_placed"]
    );
}

fn plan(connection: &Connection, query: &str) -> Vec<String> {
    let mut statement = connection
        .prepare(&format!("EXPLAIN QUERY PLAN {query}"))
        .unwrap();
    let steps = statement.query_map([], |row| row.get(3)).unwrap();
    steps.collect::<Result<_, _>>().unwrap()
}

#[test]
fn messages_from_before_they_were_of_entries_stay_as_they_are_and_in_their_order() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("history.db");
    let connection = Connection::open(&path).unwrap();
    for migration in &SCHEMA.migrations[..6] {
        connection.execute_batch(migration).unwrap();
    }
    connection.pragma_update(None, "user_version", 6).unwrap();
    // Two of each state and direction, in the order in which they came; the last ones at times of odd clocks.
    connection
        .execute_batch(
            "WITH RECURSIVE all_of(n) AS (VALUES (0) UNION ALL SELECT n + 1 FROM all_of WHERE n < 15)
             INSERT INTO messages (number, direction, peer, id, state, sent_ms, at_ms, body)
             SELECT 2 * n + 1, n % 2, iif(n < 9, 'bob', 'carol'), randomblob(16),
                 iif(n % 2, 2 + n / 2 % 2, n / 2 % 4), 9 - n, n / 3, 'text ' || n FROM all_of;
             UPDATE messages SET at_ms = (1 << 48) - 1 WHERE number = 27;
             UPDATE messages SET at_ms = 1 << 48 WHERE number = 29;
             UPDATE messages SET at_ms = -1 WHERE number = 31;
             UPDATE taken_back SET number = 40;
             INSERT INTO conversations (id, kind, account) VALUES (zeroblob(32), 0, 'bob');
             INSERT INTO chains (conversation, device, run, base, before, sealed)
             VALUES (1, x'0300000000000000000000000000000000000000000000000000000000000000',
                 zeroblob(16), 1, zeroblob(32), 0);",
        )
        .unwrap();
    let before: Vec<(i64, Vec<u8>)> = connection
        .prepare("SELECT number, id FROM messages ORDER BY number")
        .unwrap()
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))
        .unwrap()
        .collect::<Result<_, _>>()
        .unwrap();
    drop(connection);
    for _ in 0..2 {
        let mut history = History::open(&path).unwrap();
        let mut items = |request| {
            let answer = history.execute_alone(&StoreRequest::Chat(request));
            let StoreAnswer::Chat(ChatAnswer::Messages(items)) = answer else {
                panic!("{answer:?}");
            };
            items
        };
        let shown = items(ChatRequest::History(HistoryQuery::latest(None, 99)));
        let ids: Vec<Vec<u8>> = shown.iter().map(|it| it.id.as_bytes().to_vec()).collect();
        let expected: Vec<_> = before.iter().map(|(_, id)| id.clone()).collect();
        assert_eq!(ids, expected);
        let states: BTreeSet<_> = shown
            .iter()
            .map(|it| (it.direction == Direction::Sent, it.state))
            .collect();
        assert_eq!(states.len(), 6, "{states:?}");
        let with_bob = HistoryQuery::latest(Some("bob".parse().unwrap()), 2);
        let with_bob = items(ChatRequest::History(with_bob));
        assert_eq!(with_bob[..], shown[7..9]);
        let queued = items(ChatRequest::Outbox);
        assert!(queued.iter().all(|it| it.state < MessageState::Delivered));
        assert_eq!(queued.len(), 4);
        assert_eq!(items(ChatRequest::Unread).len(), 4);
        assert_eq!(history.restore().unwrap().outbox.len(), 4);
        let placed = "SELECT placed, number FROM messages ORDER BY number DESC LIMIT 4";
        let placed: Vec<i64> = history
            .connection
            .prepare(placed)
            .unwrap()
            .query_map([], |row| row.get(0))
            .unwrap()
            .collect::<Result<_, _>>()
            .unwrap();
        let millis = [u64::MAX, 1 << 48, (1 << 48) - 1, 4];
        let clocks = millis.map(|millis| Clock::at(UnixTime::from_millis(millis)));
        assert_eq!(placed, clocks.map(ordered));
        let chains = history.execute_alone(&StoreRequest::Entries(EntriesRequest::Chains {
            conversation: ConversationId::from_bytes([0; 32]),
            after: None,
        }));
        let StoreAnswer::Entries(EntriesAnswer::Chains(part)) = chains else {
            panic!("{chains:?}");
        };
        assert_eq!(part.items[0].2, Reached::default());
    }
    // What comes next gets a place that nothing had.
    let mut history = History::open(&path).unwrap();
    let answer = history.execute_alone(&StoreRequest::Chat(ChatRequest::Recorded {
        after: Cursor(30),
        limit: 9,
    }));
    let StoreAnswer::Chat(ChatAnswer::Recorded(page)) = answer else {
        panic!("{answer:?}");
    };
    assert_eq!((page.messages.len(), page.last), (1, Cursor(40)));
}
