use super::*;
use crate::node::io::StoreId;
use crate::shell::history::OutboxJournal;

impl Twins {
    fn journal(&mut self) -> OutboxJournal {
        let path = self.path();
        self.history().take_journal(&path).unwrap()
    }

    /// The program is killed, and started again. The store in memory is told what the journal is to have kept.
    fn be_killed(&mut self, journal: OutboxJournal, kept: &[EntriesRequest]) -> OutboxJournal {
        drop((self.history.take(), journal));
        self.history = Some(History::open(&self.path()).unwrap());
        let journal = self.journal();
        for request in kept {
            let request = StoreRequest::Entries(request.clone());
            let answer = self.memory.execute(&request);
            assert!(!matches!(answer, StoreAnswer::Failed(_)), "{answer:?}");
        }
        journal
    }

    #[track_caller]
    fn texts_left(&mut self) -> Vec<String> {
        let items = self.messages().into_iter();
        items.map(|item| item.body.into()).collect()
    }
}

fn request(writes: Vec<EntryWrite>) -> EntriesRequest {
    EntriesRequest::Write {
        conversation: CONVERSATION,
        writes,
    }
}

fn written(admission: Admission) -> EntriesRequest {
    request(vec![EntryWrite::Admit(
        Box::new(admission),
        Origin::WrittenHere,
    )])
}

#[test]
fn what_was_on_the_wire_before_a_kill_is_there_at_the_next_start() {
    let mut twins = Twins::new();
    let mut journal = twins.journal();
    let mut alice = Writer::new(1);
    let requests = [
        open_request(CONVERSATION),
        written(alice.text("first")),
        written(alice.text("second")),
    ];
    for (id, request) in (1..).zip(&requests) {
        journal.on_request(StoreId(id), &StoreRequest::Entries(request.clone()));
    }
    let mut journal = twins.be_killed(journal, &requests);
    assert_eq!(twins.texts_left(), ["first", "second"]);
    let chains = twins.chains();
    assert_eq!(chains.len(), 1);

    // Of these the history has the first when the program is killed again, and what others have written is not recorded.
    let third = written(alice.text("third"));
    journal.on_request(StoreId(4), &StoreRequest::Entries(third.clone()));
    twins.ask(third);
    let fourth = written(alice.text("fourth"));
    journal.on_request(StoreId(5), &StoreRequest::Entries(fourth.clone()));
    let theirs = EntryWrite::Admit(Box::new(Writer::new(2).text("hello")), Origin::OtherAccount);
    journal.on_request(StoreId(6), &StoreRequest::Entries(request(vec![theirs])));
    let mut journal = twins.be_killed(journal, &[fourth]);
    assert_eq!(twins.texts_left(), ["first", "second", "third", "fourth"]);
    let seal = alice.seal();
    twins.keep(seal, Origin::WrittenHere);

    // What the history has refused is not there, nor what follows it.
    let fifth = written(alice.text("fifth"));
    journal.on_request(StoreId(7), &StoreRequest::Entries(fifth));
    let refused = StoreAnswer::Failed("the disk is full".to_owned());
    journal.on_answer(StoreId(7), &refused);
    let sixth = written(alice.text("sixth"));
    journal.on_request(StoreId(8), &StoreRequest::Entries(sixth));
    twins.be_killed(journal, &[]);
    assert_eq!(twins.texts_left(), ["first", "second", "third", "fourth"]);
}

#[test]
fn a_record_that_is_not_the_one_of_its_hash_is_left_out() {
    let mut twins = Twins::open();
    let mut journal = twins.journal();
    let mut alice = Writer::new(1);
    let mut admission = alice.text("what was written");
    admission.entries[0].hash = HeaderHash::from_bytes([7; 32]);
    let request = StoreRequest::Entries(written(admission));
    journal.on_request(StoreId(1), &request);
    twins.be_killed(journal, &[]);
    assert_eq!(twins.texts_left(), [""; 0]);
    assert_eq!(twins.chains(), []);
}

/// As long as the history has not taken what is recorded, the file is not emptied; then it is.
#[test]
fn the_journal_is_emptied_once_the_history_has_everything() {
    let mut twins = Twins::open();
    let mut journal = twins.journal();
    let left = twins.path().with_file_name("outbox-journal");
    let left = || left.metadata().unwrap().len();
    assert_eq!(left(), 0);
    let mut alice = Writer::new(1);
    let long = alice.text(&"x".repeat(MESSAGE_LEN_MAX));
    let done = StoreAnswer::Done;
    journal.on_request(StoreId(1), &StoreRequest::Entries(written(long)));
    journal.on_request(StoreId(2), &StoreRequest::Entries(written(alice.text("2"))));
    journal.on_answer(StoreId(1), &done);
    assert!(left() > 0, "the second is owed");
    journal.on_answer(StoreId(2), &done);
    assert_eq!(left(), 0);
    journal.on_request(StoreId(3), &StoreRequest::Entries(written(alice.text("3"))));
    journal.clear();
    assert!(left() > 0, "the third is owed");
    journal.on_answer(StoreId(3), &done);
    assert!(left() > 0, "it is short");
    journal.clear();
    assert_eq!(left(), 0);
}
