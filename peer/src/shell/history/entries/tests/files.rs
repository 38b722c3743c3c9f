use super::*;
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
    let chains = twins.chains();
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
    assert_eq!(twins.chains(), chains);
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
    ] {
        let explain = format!("EXPLAIN QUERY PLAN {query}");
        let plan: String = connection
            .query_row(&explain, [], |row| row.get(3))
            .unwrap();
        assert!(plan.starts_with("SEARCH"), "{query}: {plan}");
    }
}
