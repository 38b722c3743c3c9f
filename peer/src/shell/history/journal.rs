//! The journal of the outbox: messages that may be on the wire before the history has them.
//!
//! A message goes out while the database still writes it. Whoever is killed in between finds it here at
//! the next start, so that the author's own history has what the recipient has. A record is one `write`
//! to the end of a file, which outlasts a killed program; it need not outlast a power failure, and what
//! is cut off at the end is ignored. What the history has already is found to be known when it is read
//! again, so the file is emptied now and then only: that takes longer than to append a message.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::Path;

use common::id::{AccountName, MessageId};
use common::limits::{JOURNAL_CLEAR_FROM_LEN, JOURNAL_FRAME_LEN_MAX, JOURNAL_LEN_MAX};
use common::os::private;
use common::wire::frame::{self, FrameBuffer};
use common::wire::peer::Message;
use serde::{Deserialize, Serialize};

use crate::node::io::entries::EntryWrite;
use crate::node::io::{ChatRequest, EntriesRequest, StoreAnswer, StoreId, StoreRequest};

/// One line of the journal.
#[derive(Debug, Serialize, Deserialize)]
enum Record {
    /// A message that may be on the wire, and its recipient.
    Queued(AccountName, Message),
    /// One that is not to be sent after all: it was taken back, or the history refused it.
    Struck(MessageId),
}

/// The file, open for appending.
#[derive(Debug)]
pub(super) struct Journal {
    file: File,
    len: usize,
}

impl Journal {
    /// Opens the file, makes it if it is missing, and reads what the last run left in it.
    ///
    /// # Errors
    /// The system's, if it cannot be made, opened or read.
    pub(super) fn open(path: &Path) -> io::Result<(Self, Vec<(AccountName, Message)>)> {
        private::create_file(path)?;
        let file = OpenOptions::new().read(true).append(true).open(path)?;
        let mut bytes = Vec::new();
        let longest = JOURNAL_LEN_MAX + JOURNAL_FRAME_LEN_MAX;
        (&file).take(longest as u64).read_to_end(&mut bytes)?;
        let mut frames = FrameBuffer::<JOURNAL_FRAME_LEN_MAX>::new();
        frames.push(&bytes);
        let mut left: Vec<(AccountName, Message)> = Vec::new();
        loop {
            match frames.next_frame() {
                Ok(Some(Record::Queued(to, message))) => left.push((to, message)),
                Ok(Some(Record::Struck(id))) => left.retain(|(_, message)| message.id != id),
                Ok(None) => break,
                Err(error) => {
                    log::warn!("cannot read the rest of the outbox's journal: {error}");
                    break;
                }
            }
        }
        let len = bytes.len();
        Ok((Self { file, len }, left))
    }

    /// Appends records to the file, to survive a kill of the process.
    ///
    /// # Errors
    /// The system's, or that so much waits for the history that no more is recorded; nothing is recorded
    /// then.
    fn append(&mut self, records: &[Record]) -> io::Result<()> {
        let mut bytes = Vec::new();
        for record in records {
            frame::encode::<JOURNAL_FRAME_LEN_MAX>(record, &mut bytes).map_err(io::Error::other)?;
        }
        if self.len + bytes.len() > JOURNAL_LEN_MAX {
            return Err(io::Error::other("too many messages wait for the history"));
        }
        self.file.write_all(&bytes)?;
        self.len += bytes.len();
        Ok(())
    }

    /// The history has everything that is recorded.
    ///
    /// # Errors
    /// The system's; the records are read again at the next start then, and found to be known.
    pub(super) fn clear(&mut self) -> io::Result<()> {
        if self.len > 0 {
            self.file.set_len(0)?;
            self.len = 0;
        }
        Ok(())
    }
}

/// What of the journal the history does not have yet.
#[derive(Debug)]
pub(crate) struct OutboxJournal {
    journal: Journal,
    /// Requests to the history whose messages are recorded, and those messages.
    owed: BTreeMap<StoreId, Vec<MessageId>>,
}

impl OutboxJournal {
    pub(super) const fn new(journal: Journal) -> Self {
        Self {
            journal,
            owed: BTreeMap::new(),
        }
    }

    /// Records what a request to the history puts into the outbox, before anything of it is sent, and what
    /// one takes out. What entries replace is taken out at once: the history has had it before anybody knew that.
    pub(crate) fn on_request(&mut self, id: StoreId, request: &StoreRequest) {
        match request {
            StoreRequest::Chat(ChatRequest::Queue { messages, .. }) => {
                let records = messages.iter().cloned();
                let records = records.map(|(to, message)| Record::Queued(to, message));
                if self.record(records.collect()) {
                    let ids = messages.iter().map(|(_, message)| message.id);
                    self.owed.insert(id, ids.collect());
                }
            }
            StoreRequest::Chat(ChatRequest::Withdraw { messages }) => {
                self.strike(messages.iter().map(|(_, id)| *id));
            }
            StoreRequest::Entries(EntriesRequest::Write { writes, .. }) => {
                self.strike(writes.iter().filter_map(EntryWrite::replaced));
            }
            StoreRequest::Chat(
                ChatRequest::Receive { .. }
                | ChatRequest::Advance { .. }
                | ChatRequest::MarkRead { .. }
                | ChatRequest::History(_)
                | ChatRequest::Recorded { .. }
                | ChatRequest::Unread
                | ChatRequest::Outbox,
            )
            | StoreRequest::Account(_)
            | StoreRequest::Contact(_)
            | StoreRequest::Log(_)
            | StoreRequest::Entries(_) => {}
        }
    }

    /// The history has answered a request.
    pub(crate) fn on_answer(&mut self, id: StoreId, answer: &StoreAnswer) {
        let Some(messages) = self.owed.remove(&id) else {
            return;
        };
        if matches!(answer, StoreAnswer::Failed(_)) {
            // The person is told that they were not sent.
            self.strike(messages.into_iter());
        }
        if self.journal.len >= JOURNAL_CLEAR_FROM_LEN {
            self.clear();
        }
    }

    /// Empties the file if the history has everything, as it should be left behind by a run that ends.
    pub(crate) fn clear(&mut self) {
        if self.owed.is_empty()
            && let Err(error) = self.journal.clear()
        {
            log::warn!("cannot clear the outbox's journal: {error}");
        }
    }

    /// Notes that messages, if they are recorded, are not to be sent after all.
    fn strike(&mut self, messages: impl Iterator<Item = MessageId>) {
        let records: Vec<Record> = messages.map(Record::Struck).collect();
        if self.journal.len > 0 && !records.is_empty() {
            self.record(records);
        }
    }

    /// Tells whether it succeeded. If not, the history may take the messages all the same.
    fn record(&mut self, records: Vec<Record>) -> bool {
        let done = self.journal.append(&records);
        if let Err(error) = &done {
            log::warn!("cannot write to the outbox's journal: {error}");
        }
        done.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::os::unix::fs::PermissionsExt;

    use common::limits::MESSAGE_LEN_MAX;
    use common::log::ConversationId;
    use common::time::UnixTime;
    use common::wire::peer::{Conversation, MessageBody};

    use super::*;

    fn queued((to, message): &(AccountName, Message)) -> Record {
        Record::Queued(to.clone(), message.clone())
    }

    fn record(number: u8, body: String) -> (AccountName, Message) {
        let message = Message {
            id: MessageId::from_bytes([number; 16]),
            conversation: Conversation::Direct,
            sent: UnixTime::from_millis(u64::MAX),
            body: MessageBody::try_from(body).unwrap(),
        };
        ("x".repeat(32).parse().unwrap(), message)
    }

    #[test]
    fn records_are_there_after_the_end_and_gone_after_clearing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        let longest = "x".repeat(MESSAGE_LEN_MAX);
        let records = [record(1, longest), record(2, "short".to_owned())];
        let (mut journal, left) = Journal::open(&path).unwrap();
        assert_eq!(left, []);
        journal.append(&records.each_ref().map(queued)).unwrap();
        drop(journal);
        let mode = path.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let (mut journal, left) = Journal::open(&path).unwrap();
        assert_eq!(left, records);
        journal.clear().unwrap();
        assert_eq!(Journal::open(&path).unwrap().1, []);
    }

    #[test]
    fn what_is_cut_off_or_damaged_is_left_out() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        let (mut journal, _) = Journal::open(&path).unwrap();
        let records = [
            record(1, "first".to_owned()),
            record(2, "second".to_owned()),
        ];
        journal.append(&records.each_ref().map(queued)).unwrap();
        let whole = std::fs::read(&path).unwrap();
        for len in 0..whole.len() {
            std::fs::write(&path, &whole[..len]).unwrap();
            let (_, left) = Journal::open(&path).unwrap();
            assert_eq!(left, records[..left.len()], "{len}");
            assert!(left.len() < 2);
        }
        std::fs::write(&path, [&whole[..], &[0xff; 80]].concat()).unwrap();
        assert_eq!(Journal::open(&path).unwrap().1, records);
    }

    #[test]
    fn a_journal_has_a_bound() {
        let folder = tempfile::tempdir().unwrap();
        let (mut journal, _) = Journal::open(&folder.path().join("journal")).unwrap();
        journal.len = JOURNAL_LEN_MAX - 10;
        let error = journal
            .append(&[queued(&record(1, "hello".to_owned()))])
            .unwrap_err();
        assert!(error.to_string().contains("wait for the history"));
        assert_eq!(journal.len, JOURNAL_LEN_MAX - 10);
    }

    #[test]
    fn what_was_taken_back_refused_or_replaced_is_not_sent_at_the_next_start() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        let mut journal = OutboxJournal::new(Journal::open(&path).unwrap().0);
        let records = [1, 2, 3, 4].map(|number| record(number, number.to_string()));
        for (number, record) in (1..).zip(&records) {
            let messages = vec![record.clone()];
            let request = StoreRequest::Chat(ChatRequest::Queue {
                messages,
                sent: BTreeSet::new(),
            });
            journal.on_request(StoreId(number), &request);
        }
        let messages = vec![(records[0].0.clone(), records[0].1.id)];
        let withdraw = StoreRequest::Chat(ChatRequest::Withdraw { messages });
        journal.on_request(StoreId(5), &withdraw);
        let writes = vec![EntryWrite::Replaces(records[3].1.id)];
        let conversation = ConversationId::from_bytes([0; 32]);
        let write = StoreRequest::Entries(EntriesRequest::Write {
            conversation,
            writes,
        });
        journal.on_request(StoreId(6), &write);
        let refused = StoreAnswer::Failed("the disk is full".to_owned());
        journal.on_answer(StoreId(2), &refused);
        // Others are still on their way to the history when the program is killed.
        assert_eq!(Journal::open(&path).unwrap().1, records[2..3]);
    }
}
