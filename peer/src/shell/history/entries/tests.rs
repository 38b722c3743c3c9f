//! The history and the store in memory keep entries alike, survive what they are to survive, and refuse what cannot be.

use common::id::MessageId;
use common::key::{DeviceKey, DeviceSecret};
use common::limits::*;
use common::log::{Body, Clock, EntryId, ForkProof, Kind, RunId, Seal, Sequence, Stretch};
use common::time::UnixTime;
use rusqlite::Connection;
use tempfile::TempDir;

use super::*;
use crate::log::*;
use crate::node::command::Cursor;
use crate::node::io::StoreRequest;
use crate::node::io::entries::*;
use crate::shell::history::History;
use crate::shell::history::statements::SCHEMA;
use crate::store::MemoryStore;

// What damaged and older files do.
mod files;
// What a killed program leaves.
mod left;
// What meets its bound.
mod limits;
// What people are shown.
mod showing;
// How long catching up takes.
mod speed;
// What devices write in a world where everything goes wrong.
mod worlds;
// Somebody who writes a chain.
mod writer;

use writer::{WALL, Writer, key};

const CONVERSATION: ConversationId = ConversationId::from_bytes([0xc0; 32]);

/// Both stores.
struct Twins {
    folder: TempDir,
    history: Option<History>,
    memory: MemoryStore,
    /// Kinds of requests so far.
    asked: Vec<u8>,
}

impl Twins {
    fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let mut twins = Self {
            history: None,
            folder,
            memory: MemoryStore::default(),
            asked: Vec::new(),
        };
        twins.reopen();
        twins.mark_instance();
        twins
    }

    /// The same where a conversation is open.
    fn open() -> Self {
        let mut twins = Self::new();
        let opened = twins.ask(open_request(CONVERSATION));
        assert_eq!(opened, StoreAnswer::Done);
        twins
    }

    fn path(&self) -> std::path::PathBuf {
        self.folder.path().join("history.db")
    }

    fn close(&mut self) {
        if let Some(history) = self.history.take() {
            history.close();
        }
    }

    fn reopen(&mut self) {
        self.close();
        self.history = Some(History::open(&self.path()).unwrap());
    }

    fn history(&mut self) -> &mut History {
        self.history.as_mut().unwrap()
    }

    /// Tells the store in memory which file it stands for.
    fn mark_instance(&mut self) {
        let instance = restoring::instance(&self.history().connection).unwrap();
        self.memory.set_instance(instance);
    }

    /// Both answer alike.
    #[track_caller]
    fn ask(&mut self, request: EntriesRequest) -> StoreAnswer {
        self.asked.push(kind(&request));
        let request = StoreRequest::Entries(request);
        let answer = self.history().execute_alone(&request);
        assert_eq!(self.memory.execute(&request), answer, "{request:?}");
        answer
    }

    #[track_caller]
    fn read(&mut self, request: EntriesRequest) -> EntriesAnswer {
        let answer = self.ask(request);
        let StoreAnswer::Entries(answer) = answer else {
            panic!("{answer:?}");
        };
        answer
    }

    #[track_caller]
    fn write(&mut self, writes: Vec<EntryWrite>) -> StoreAnswer {
        self.ask(EntriesRequest::Write {
            conversation: CONVERSATION,
            writes,
        })
    }

    /// Writes what is to be possible.
    #[track_caller]
    fn keep(&mut self, admission: Admission, origin: Origin) {
        let write = EntryWrite::Admit(Box::new(admission), origin);
        self.written(vec![write]);
    }

    /// Writes what is to be possible, and tells what is shown then.
    #[track_caller]
    fn written(&mut self, writes: Vec<EntryWrite>) -> Vec<(EntryId, Cursor)> {
        let answer = self.write(writes);
        let StoreAnswer::Entries(EntriesAnswer::Written(shown)) = answer else {
            panic!("{answer:?}");
        };
        shown
    }

    /// Writes what cannot be.
    #[track_caller]
    fn refuse(&mut self, admission: Admission, why: EntriesRefusal) {
        let write = EntryWrite::Admit(Box::new(admission), Origin::OtherAccount);
        let answer = self.write(vec![write]);
        assert_eq!(answer, StoreAnswer::Failed(why.to_string()));
    }

    #[track_caller]
    fn chains(&mut self) -> Vec<(ChainId, StoredChain)> {
        let chains = self.reached_chains().into_iter();
        chains.map(|(id, stored, _)| (id, stored)).collect()
    }

    #[track_caller]
    fn reached_chains(&mut self) -> Vec<(ChainId, StoredChain, Reached)> {
        let request = EntriesRequest::Chains {
            conversation: CONVERSATION,
            after: None,
        };
        let EntriesAnswer::Chains(part) = self.read(request) else {
            panic!("no chains");
        };
        part.items
    }

    #[track_caller]
    fn page(&mut self, request: PageRequest) -> Option<Page> {
        let (previous, rows) = self.rows(request);
        request.page(previous, rows)
    }

    #[track_caller]
    fn rows(&mut self, request: PageRequest) -> (HeaderHash, Vec<Row>) {
        let EntriesAnswer::Page { previous, rows } = self.read(EntriesRequest::Page(request))
        else {
            panic!("no page");
        };
        (previous, rows)
    }

    #[track_caller]
    fn shown(&mut self, query: ShownQuery) -> Vec<ShownEntry> {
        let EntriesAnswer::Shown(entries) = self.read(EntriesRequest::Shown(query)) else {
            panic!("nothing shown");
        };
        entries
    }

    #[track_caller]
    fn lost(&mut self) -> Vec<LostEntry> {
        let request = EntriesRequest::Lost {
            conversation: CONVERSATION,
        };
        let EntriesAnswer::Lost(lost) = self.read(request) else {
            panic!("nothing lost");
        };
        lost
    }
}

fn open_request(conversation: ConversationId) -> EntriesRequest {
    EntriesRequest::Open {
        conversation,
        kind: ConversationKind::Direct("bob".parse().unwrap()),
    }
}

const fn all(end: SpanEnd) -> ShownQuery {
    ShownQuery {
        conversation: CONVERSATION,
        after: None,
        before: None,
        end,
        limit: u32::MAX,
    }
}

fn at(number: u64) -> Sequence {
    Sequence::new(number).unwrap()
}

/// Kinds of requests.
const KINDS: u8 = 20;

/// Numbers the kinds, so that none is forgotten.
const fn kind(request: &EntriesRequest) -> u8 {
    match request {
        EntriesRequest::TakeMarks => 0,
        EntriesRequest::SetMarks(_) => 1,
        EntriesRequest::Conversations { .. } => 2,
        EntriesRequest::Chains { .. } => 3,
        EntriesRequest::Forks { .. } => 4,
        EntriesRequest::Cuts { .. } => 5,
        EntriesRequest::Lost { .. } => 6,
        EntriesRequest::Open { .. } => 7,
        EntriesRequest::Write { .. } => 8,
        EntriesRequest::DropBodies { .. } => 9,
        EntriesRequest::Forget { .. } => 10,
        EntriesRequest::Page(_) => 11,
        EntriesRequest::OwnStretch { .. } => 12,
        EntriesRequest::Stretch { .. } => 13,
        EntriesRequest::Hash { .. } => 14,
        EntriesRequest::Fork { .. } => 15,
        EntriesRequest::Shown(_) => 16,
        EntriesRequest::Reach { .. } => 17,
        EntriesRequest::Undelivered { .. } => 18,
        EntriesRequest::Find { .. } => KINDS - 1,
    }
}

// ---- starts and ends ---------------------------------------------------------------------------

#[test]
fn t45_the_mark_of_an_end_is_taken_once_and_by_the_same_file_only() {
    let mut twins = Twins::open();
    let EntriesAnswer::Marks { instance, marks } = twins.read(EntriesRequest::TakeMarks) else {
        panic!("no marks");
    };
    assert_eq!(marks, []);
    let mark = CleanMark {
        run: RunId::from_bytes([1; 16]),
        last: at(7),
        hash: HeaderHash::from_bytes([2; 32]),
        instance,
    };
    let set = EntriesRequest::SetMarks(vec![(CONVERSATION, mark)]);
    assert_eq!(twins.ask(set.clone()), StoreAnswer::Done);
    twins.reopen();
    let taken = EntriesAnswer::Marks {
        instance,
        marks: vec![(CONVERSATION, mark)],
    };
    assert_eq!(twins.read(EntriesRequest::TakeMarks), taken);
    twins.reopen();
    let none = EntriesAnswer::Marks {
        instance,
        marks: Vec::new(),
    };
    assert_eq!(twins.read(EntriesRequest::TakeMarks), none);

    // Somebody who is killed does not end in order, whatever the file says.
    twins.ask(set.clone());
    twins.history = None;
    twins.history = Some(History::open(&twins.path()).unwrap());
    twins
        .memory
        .execute(&StoreRequest::Entries(EntriesRequest::TakeMarks));
    assert_eq!(twins.read(EntriesRequest::TakeMarks), none);

    // A copy over the file, or in its place, is what it was at the end, and yet another one.
    let backup = twins.folder.path().join("backup");
    for is_over in [true, false] {
        twins.ask(set.clone());
        twins.close();
        std::fs::copy(twins.path(), &backup).unwrap();
        if is_over {
            std::fs::copy(&backup, twins.path()).unwrap();
        } else {
            std::fs::rename(&backup, twins.path()).unwrap();
        }
        twins.reopen();
        twins.mark_instance();
        twins
            .memory
            .execute(&StoreRequest::Entries(EntriesRequest::TakeMarks));
        let EntriesAnswer::Marks { marks, .. } = twins.read(EntriesRequest::TakeMarks) else {
            panic!("no marks");
        };
        assert_eq!(marks, []);
    }
    let now = restoring::instance(&twins.history().connection).unwrap();
    assert_ne!(now, instance, "the last one has another inode");
}

#[test]
fn a_conversation_is_found_with_its_run_and_who_it_is_with_now() {
    let mut twins = Twins::new();
    let notes = ConversationId::from_bytes([1; 32]);
    twins.ask(open_request(CONVERSATION));
    twins.ask(EntriesRequest::Open {
        conversation: notes,
        kind: ConversationKind::Notes("alice".parse().unwrap()),
    });
    let run = RunId::from_bytes([5; 16]);
    assert_eq!(twins.written(vec![EntryWrite::Begin(run)]), []);
    let kind = ConversationKind::Direct("robert".parse().unwrap());
    twins.ask(EntriesRequest::Open {
        conversation: CONVERSATION,
        kind: kind.clone(),
    });
    twins.reopen();
    let items = vec![
        StoredConversation {
            id: notes,
            kind: ConversationKind::Notes("alice".parse().unwrap()),
            run: None,
        },
        StoredConversation {
            id: CONVERSATION,
            kind,
            run: Some(run),
        },
    ];
    let expected = EntriesAnswer::Conversations(Part { items, next: None });
    let request = EntriesRequest::Conversations { after: None };
    assert_eq!(twins.read(request), expected);
}

// ---- writing -----------------------------------------------------------------------------------

#[test]
fn what_follows_a_write_that_failed_is_refused_until_it_is_there() {
    let mut twins = Twins::open();
    let mut writer = Writer::new(1);
    let [first, second] = [writer.text("first"), writer.text("second")];
    let seal = writer.seal();
    twins.refuse(second.clone(), EntriesRefusal::NotNext);
    twins.refuse(seal.clone(), EntriesRefusal::NotNext);
    assert_eq!(twins.chains(), [], "nothing of a refused write stays");
    twins.keep(first.clone(), Origin::WrittenHere);
    twins.keep(first, Origin::WrittenHere);
    twins.refuse(seal.clone(), EntriesRefusal::NotNext);
    twins.keep(second.clone(), Origin::WrittenHere);
    twins.keep(seal, Origin::WrittenHere);
    let remove = Admission {
        remove: Some(at(2)),
        entries: Vec::new(),
        ..second.clone()
    };
    twins.refuse(remove, EntriesRefusal::Seal);
    let mut other = Writer::new(1);
    other.text("first");
    let mut third = other.text("another second");
    third.sealed = at(2);
    twins.refuse(third, EntriesRefusal::Contradicts);
    let stored = twins.chains();
    assert_eq!(stored[0].1.sealed.sequence, at(2));
}

#[test]
fn a_transaction_that_fails_at_any_write_leaves_nothing() {
    let mut twins = Twins::open();
    let mut writer = Writer::new(1);
    let admissions: Vec<Admission> = (0..4).map(|n| writer.text(&format!("text {n}"))).collect();
    let mut writes = vec![EntryWrite::Begin(writer.chain().run)];
    writes.extend(
        admissions
            .into_iter()
            .map(|admission| EntryWrite::Admit(Box::new(admission), Origin::WrittenHere)),
    );
    let request = StoreRequest::Entries(EntriesRequest::Write {
        conversation: CONVERSATION,
        writes: writes.clone(),
    });
    for n in 1..=4 {
        let trigger = format!(
            "CREATE TEMP TRIGGER fails BEFORE INSERT ON main.entries WHEN new.sequence = {n}
             BEGIN SELECT RAISE(ABORT, 'the disk is full'); END"
        );
        let connection = &twins.history().connection;
        connection.execute_batch(&trigger).unwrap();
        let answer = twins.history().execute_alone(&request);
        assert!(matches!(answer, StoreAnswer::Failed(_)), "{answer:?}");
        let connection = &twins.history().connection;
        connection.execute_batch("DROP TRIGGER fails").unwrap();
        assert_eq!(twins.chains(), []);
        let request = EntriesRequest::Conversations { after: None };
        let EntriesAnswer::Conversations(part) = twins.read(request) else {
            panic!("no conversations");
        };
        assert_eq!(part.items[0].run, None);
    }
    twins.written(writes);
    assert_eq!(twins.chains()[0].1.unsealed.len(), 4);
}

#[test]
fn what_is_written_in_no_conversation_or_in_another_chain_is_refused() {
    let mut twins = Twins::new();
    let mut writer = Writer::new(1);
    let first = writer.text("first");
    twins.refuse(first.clone(), EntriesRefusal::NotOpen);
    twins.ask(open_request(CONVERSATION));
    let entry = EntryId {
        chain: writer.chain(),
        sequence: at(1),
    };
    let unknown = StoreAnswer::Failed(EntriesRefusal::OtherChain.to_string());
    assert_eq!(twins.write(vec![EntryWrite::Rewritten(entry)]), unknown);
    let mut proof = proof(1);
    assert_eq!(
        twins.write(vec![EntryWrite::Fork(Box::new(proof.clone()))]),
        unknown
    );
    twins.keep(first.clone(), Origin::WrittenHere);
    proof.conversation = ConversationId::from_bytes([1; 32]);
    assert_eq!(
        twins.write(vec![EntryWrite::Fork(Box::new(proof))]),
        unknown
    );
    let rewrite = Rewrite {
        chain: Writer::new(2).chain(),
        from: at(1),
        until: None,
    };
    let rewrite = Admission {
        rewrite: Some(rewrite),
        ..first
    };
    twins.refuse(rewrite, EntriesRefusal::OtherChain);
    let mark = CleanMark {
        run: writer.chain().run,
        last: at(1),
        hash: HeaderHash::NONE,
        instance: Instance([0; 32]),
    };
    let elsewhere = ConversationId::from_bytes([9; 32]);
    let answer = twins.ask(EntriesRequest::SetMarks(vec![(elsewhere, mark)]));
    let not_open = StoreAnswer::Failed(EntriesRefusal::NotOpen.to_string());
    assert_eq!(answer, not_open);
}

/// A proof that the run of a device forks at its first entry.
fn proof(seed: u8) -> ForkProof {
    let ways = ["one", "other"].map(|text| {
        let mut writer = Writer::new(seed);
        let entry = writer.text(text).entries.remove(0);
        Stretch {
            first: at(1),
            previous: HeaderHash::NONE,
            outlines: vec![entry.entry.outline],
            seal: Seal::sign_hash(&writer.secret, at(1), &entry.hash),
        }
    });
    let [one, other] = ways;
    ForkProof {
        conversation: CONVERSATION,
        chain: Writer::new(seed).chain(),
        one,
        other,
    }
}

#[test]
fn own_entries_that_a_fork_has_voided_are_lost_until_they_are_written_again() {
    let mut twins = Twins::open();
    let mut writer = Writer::new(1);
    for text in ["one", "two", "three"] {
        let admission = writer.text(text);
        twins.keep(admission, Origin::WrittenHere);
    }
    let other = writer.received_from_a_copy("four");
    twins.keep(other, Origin::OwnAccount);
    let proof = proof(1);
    proof.verify().unwrap();
    let mut admission = writer.nothing();
    admission.rewrite = Some(Rewrite {
        chain: writer.chain(),
        from: at(2),
        until: None,
    });
    let writes = vec![
        EntryWrite::Admit(Box::new(admission), Origin::OwnAccount),
        EntryWrite::Fork(Box::new(proof.clone())),
    ];
    twins.written(writes);
    twins.reopen();
    let bodies = |lost: Vec<LostEntry>| -> Vec<Vec<u8>> {
        lost.into_iter().map(|entry| entry.body).collect()
    };
    assert_eq!(bodies(twins.lost()), [b"two".to_vec(), b"three".to_vec()]);
    let kept = twins.read(EntriesRequest::Fork {
        conversation: CONVERSATION,
        chain: writer.chain(),
    });
    assert_eq!(kept, EntriesAnswer::Fork(Some(Box::new(proof))));

    // Once is enough, even if an earlier fork is found then.
    let again = EntryId {
        chain: writer.chain(),
        sequence: at(2),
    };
    twins.write(vec![EntryWrite::Rewritten(again)]);
    assert_eq!(bodies(twins.lost()), [b"three".to_vec()]);
    let mut earlier = writer.nothing();
    earlier.rewrite = Some(Rewrite {
        chain: writer.chain(),
        from: at(1),
        until: Some(at(3)),
    });
    twins.keep(earlier, Origin::OtherAccount);
    assert_eq!(bodies(twins.lost()), [b"one".to_vec(), b"three".to_vec()]);

    // What is deleted is not written again either.
    twins.ask(EntriesRequest::DropBodies {
        conversation: CONVERSATION,
        entries: vec![EntryId {
            chain: writer.chain(),
            sequence: at(1),
        }],
    });
    assert_eq!(bodies(twins.lost()), [b"three".to_vec()]);
}

#[test]
fn a_chain_whose_beginning_is_gone_begins_later_and_takes_it_when_it_turns_up() {
    let (mut author, mut twins) = (Twins::open(), Twins::open());
    let mut writer = Writer::new(1);
    for _ in 0..3 {
        for n in 0..64 {
            author.keep(writer.text(&format!("text {n}")), Origin::WrittenHere);
        }
        author.keep(writer.seal(), Origin::WrittenHere);
    }
    let mut page = |first, end| {
        let request = PageRequest {
            conversation: CONVERSATION,
            chain: writer.chain(),
            first: at(first),
            until: at(first + 63),
            end,
        };
        author.page(request).unwrap()
    };
    let device = writer.chain().device;
    let mut reader = Replica::new(CONVERSATION, key(9));
    // Some of the beginning is there when the rest is given up.
    let mut start = page(1, PageEnd::Anywhere);
    start.entries.truncate(5);
    start.seal = None;
    twins.keep(take(&mut reader, start, device), Origin::OtherAccount);
    reader.give_up(writer.chain(), at(129));
    let restart = take(&mut reader, page(129, PageEnd::Seal(at(192))), device);
    twins.keep(restart, Origin::OtherAccount);
    let (_, stored) = twins.chains().remove(0);
    assert_eq!((stored.base, stored.sealed.sequence), (at(129), at(192)));
    assert_eq!(twins.shown(all(SpanEnd::First)).len(), 5 + 64);
    for first in [65, 1] {
        let before = take(&mut reader, page(first, PageEnd::Before), device);
        assert_eq!(before.base, at(first));
        twins.keep(before, Origin::OtherAccount);
        twins.reopen();
    }
    let (id, stored) = twins.chains().remove(0);
    assert_eq!((stored.base, stored.before), (at(1), HeaderHash::NONE));
    assert_eq!(twins.shown(all(SpanEnd::First)).len(), 192);
    let mut again = Replica::new(CONVERSATION, key(9));
    again.restore(id, stored, WALL);
    assert_eq!(again.digest(), {
        let mut replica = Replica::new(CONVERSATION, key(8));
        let (id, stored) = author.chains().remove(0);
        replica.restore(id, stored, WALL);
        replica.digest()
    });
}

fn take(reader: &mut Replica, page: Page, from: DeviceKey) -> Admission {
    let examined = reader.examine(page, Source::Device(from), &writer::Everybody);
    let checked = examined.unwrap().check().unwrap();
    reader.admit(checked, WALL, &writer::Everybody).unwrap()
}

// ---- reading -----------------------------------------------------------------------------------

#[test]
fn what_is_shown_has_the_order_of_clocks_and_then_of_devices() {
    let mut twins = Twins::open();
    let mut writers: Vec<Writer> = (1..6).map(Writer::new).collect();
    let mut expected = Vec::new();
    for n in 0..20 {
        for writer in &mut writers {
            // All at the same time, and one of them from the far future.
            let mut admission = writer.text(&format!("{n}"));
            let stored = &mut admission.entries[0];
            stored.placed.at = Clock::from_bits(if n == 19 { u64::MAX } else { n });
            let id = EntryId {
                chain: admission.chain,
                sequence: stored.sequence,
            };
            expected.push(ShownAt::new(id, stored.placed.at));
            twins.keep(admission, Origin::OtherAccount);
        }
    }
    expected.sort_unstable();
    let places =
        |shown: &[ShownEntry]| -> Vec<ShownAt> { shown.iter().map(ShownEntry::at).collect() };
    assert_eq!(places(&twins.shown(all(SpanEnd::First))), expected);
    for page in [1, 7, 33] {
        let mut forwards = Vec::new();
        while forwards.len() < expected.len() {
            let query = ShownQuery {
                after: forwards.last().copied(),
                limit: page,
                ..all(SpanEnd::First)
            };
            forwards.extend(places(&twins.shown(query)));
        }
        assert_eq!(forwards, expected);
        let mut backwards: Vec<ShownAt> = Vec::new();
        while backwards.len() < expected.len() {
            let query = ShownQuery {
                before: backwards.first().copied(),
                limit: page,
                ..all(SpanEnd::Last)
            };
            let part = places(&twins.shown(query));
            backwards.splice(..0, part);
        }
        assert_eq!(backwards, expected);
    }
}

#[test]
fn a_body_that_is_dropped_leaves_its_header_and_what_controls_keeps_its_body() {
    let mut twins = Twins::open();
    let mut writer = Writer::new(1);
    // Of more than a page of the file, too.
    twins.keep(writer.text(&"secret".repeat(1000)), Origin::WrittenHere);
    let target = EntryId {
        chain: writer.chain(),
        sequence: at(1),
    };
    twins.keep(writer.write(&Body::Cut(target)), Origin::WrittenHere);
    twins.keep(writer.seal(), Origin::WrittenHere);
    let entries = [1, 2, 3].map(|place| EntryId {
        sequence: at(place),
        ..target
    });
    let dropped = EntriesRequest::DropBodies {
        conversation: CONVERSATION,
        entries: entries.to_vec(),
    };
    assert_eq!(twins.ask(dropped), StoreAnswer::Done);
    twins.reopen();
    let shown = twins.shown(all(SpanEnd::First));
    assert_eq!(shown[0].entry.body, None);
    assert!(shown[1].entry.body.is_some());
    let cuts = twins.read(EntriesRequest::Cuts {
        conversation: CONVERSATION,
        after: None,
    });
    assert!(matches!(cuts, EntriesAnswer::Cuts(part) if part.items[0].target == target));
    let page = twins.page(PageRequest {
        conversation: CONVERSATION,
        chain: writer.chain(),
        first: at(1),
        until: at(2),
        end: PageEnd::Seal(at(2)),
    });
    assert_eq!(page.unwrap().seal.unwrap().sequence, at(2));
    let path = twins.path();
    twins.history = None;
    let bytes = std::fs::read(path).unwrap();
    assert!(
        !bytes.windows(6).any(|part| part == b"secret"),
        "it is left in the file"
    );
}
