use std::time::{Duration, Instant};

use super::*;

/// Entries of the conversation that is caught up with.
const ENTRIES: usize = 100_000;
/// The length of each body.
const BODY_LEN: usize = 100;

/// Prints what catching up costs the store: `cargo test --release -p peer --lib -- --ignored --nocapture catching_up`.
#[test]
#[ignore = "measures, and decides nothing"]
fn catching_up_with_a_hundred_thousand_entries() {
    let admissions = admissions(ENTRIES, BODY_LEN);
    for batch in [1, 16] {
        measure(&admissions, batch);
    }
}

#[expect(clippy::disallowed_methods, reason = "it measures")]
fn measure(admissions: &[Admission], batch: usize) {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("history.db");
    let mut history = History::open(&path).unwrap();
    let empty = path.metadata().unwrap().len();
    let open = StoreRequest::Entries(open_request(CONVERSATION));
    assert_eq!(history.execute_alone(&open), StoreAnswer::Done);
    let requests: Vec<StoreRequest> = admissions
        .iter()
        .map(|admission| {
            let admission = Box::new(admission.clone());
            StoreRequest::Entries(EntriesRequest::Write {
                conversation: CONVERSATION,
                writes: vec![EntryWrite::Admit(admission, Origin::OtherAccount)],
            })
        })
        .collect();
    let start = Instant::now();
    for requests in requests.chunks(batch) {
        let answers = history.execute(requests).unwrap();
        assert!(
            answers
                .iter()
                .all(|answer| matches!(answer, StoreAnswer::Entries(_)))
        );
    }
    let wrote = start.elapsed();
    let start = Instant::now();
    let mut read = 0;
    let chain = admissions[0].chain;
    while read < ENTRIES {
        let request = PageRequest {
            conversation: CONVERSATION,
            chain,
            first: at(read as u64 + 1),
            until: at(ENTRIES as u64),
            end: PageEnd::Anywhere,
        };
        let answer = history.execute_alone(&StoreRequest::Entries(EntriesRequest::Page(request)));
        let StoreAnswer::Entries(EntriesAnswer::Page { rows, .. }) = answer else {
            panic!("{answer:?}");
        };
        read += rows.len();
    }
    let gave = start.elapsed();
    let read_all = |history: &mut History| {
        let request = EntriesRequest::Reach {
            conversation: CONVERSATION,
            chain,
            reach: Reach::Read,
            last: at(ENTRIES as u64),
        };
        history.execute_alone(&StoreRequest::Entries(request));
    };
    let marked = timed(&mut history, read_all);
    let indexed = timed(&mut history, |history| while history.add_to_index() {});
    let forgot = timed(&mut history, |history| {
        let request = EntriesRequest::Forget {
            conversation: CONVERSATION,
            after: None,
            before: None,
        };
        history.execute_alone(&StoreRequest::Entries(request));
    });
    drop(history);
    let len = path.metadata().unwrap().len() - empty;
    println!(
        "{batch} admissions a transaction: {ENTRIES} entries in {wrote:?}, read in {gave:?}, {} bytes each",
        len / ENTRIES as u64
    );
    println!(
        "all marked as read in {marked:?}, words added in {indexed:?}, {BODIES_DROPPED_MAX} forgotten in {forgot:?}"
    );
}

#[expect(clippy::disallowed_methods, reason = "it measures")]
fn timed(history: &mut History, work: impl Fn(&mut History)) -> Duration {
    let start = Instant::now();
    work(history);
    start.elapsed()
}

/// What a device that catches up takes: pages of 64, each sealed at its end.
pub(super) fn admissions(count: usize, body_len: usize) -> Vec<Admission> {
    let mut writer = Writer::new(1);
    let mut reader = Replica::new(CONVERSATION, key(9));
    let device = writer.chain().device;
    let mut admissions = Vec::new();
    let (mut first, mut previous) = (Sequence::FIRST, HeaderHash::NONE);
    while first.number() <= count as u64 {
        let count = (count as u64 - first.previous().number()).min(64);
        let written: Vec<StoredEntry> = (0..count)
            .map(|n| {
                let text = format!("{:0>body_len$}", first.number() + n);
                writer.text(&text).entries.remove(0)
            })
            .collect();
        let seal = writer.seal().seal;
        let hash = written.last().unwrap().hash;
        let page = Page {
            conversation: CONVERSATION,
            chain: writer.chain(),
            first,
            previous,
            entries: written.into_iter().map(|stored| stored.entry).collect(),
            seal,
        };
        first = page.last().next();
        previous = hash;
        admissions.push(take(&mut reader, page, device));
    }
    admissions
}
