//! The journal: what this device has written and may be on the wire before the history has it.
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
use common::log::ConversationId;
use common::os::private;
use common::wire::frame::{self, FrameBuffer};
use common::wire::peer::Message;
use serde::{Deserialize, Serialize};

use super::entries::LeftEntry;
use crate::node::io::entries::{ConversationKind, EntryWrite};
use crate::node::io::{EntriesRequest, StoreAnswer, StoreId, StoreRequest};

/// One line of the journal.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Record {
    /// A message and its recipient, as an earlier version left it: it may have been on the wire.
    Queued(AccountName, Message),
    /// An entry, or such a message, that is not to be sent after all: the history has refused it.
    Struck(MessageId),
    /// A conversation that may be new: whether it is the account's notes to itself, and with whom it is.
    Opened(ConversationId, bool, AccountName),
    /// An entry that may be on the wire.
    Written(LeftEntry),
}

impl Record {
    /// Tells whether it is of this message.
    fn is_of(&self, message: &MessageId) -> bool {
        match self {
            Self::Queued(_, queued) => queued.id == *message,
            Self::Written(entry) => entry.id() == *message,
            Self::Struck(_) | Self::Opened(..) => false,
        }
    }
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
    pub(super) fn open(path: &Path) -> io::Result<(Self, Vec<Record>)> {
        private::create_file(path)?;
        let file = OpenOptions::new().read(true).append(true).open(path)?;
        let mut bytes = Vec::new();
        let longest = JOURNAL_LEN_MAX + JOURNAL_FRAME_LEN_MAX;
        (&file).take(longest as u64).read_to_end(&mut bytes)?;
        let mut frames = FrameBuffer::<JOURNAL_FRAME_LEN_MAX>::new();
        frames.push(&bytes);
        let mut left: Vec<Record> = Vec::new();
        loop {
            match frames.next_frame() {
                Ok(Some(Record::Struck(id))) => left.retain(|record| !record.is_of(&id)),
                Ok(Some(
                    record @ (Record::Queued(..) | Record::Opened(..) | Record::Written(_)),
                )) => left.push(record),
                Ok(None) => break,
                Err(error) => {
                    log::warn!("cannot read the rest of the history's journal: {error}");
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
    pub(super) fn append(&mut self, records: &[Record]) -> io::Result<()> {
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

    /// Records what a request to the history has it keep of this device's own, before anything of it is sent.
    pub(crate) fn on_request(&mut self, id: StoreId, request: &StoreRequest) {
        let StoreRequest::Entries(request) = request else {
            return;
        };
        if !request.is_journaled() {
            return;
        }
        let records = records(request);
        let written = records.iter().filter_map(|record| match record {
            Record::Written(entry) => Some(entry.id()),
            Record::Queued(..) | Record::Struck(_) | Record::Opened(..) => None,
        });
        let written: Vec<MessageId> = written.collect();
        if !records.is_empty() && self.record(&records) {
            self.owed.insert(id, written);
        }
    }

    /// The history has answered a request.
    pub(crate) fn on_answer(&mut self, id: StoreId, answer: &StoreAnswer) {
        let Some(messages) = self.owed.remove(&id) else {
            return;
        };
        if matches!(answer, StoreAnswer::Failed(_)) {
            // The person is told that they were not sent, or they are written again.
            let records: Vec<Record> = messages.into_iter().map(Record::Struck).collect();
            if !records.is_empty() {
                self.record(&records);
            }
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
            log::warn!("cannot clear the history's journal: {error}");
        }
    }

    /// Tells whether it succeeded. If not, the history may take what is to be recorded all the same.
    fn record(&mut self, records: &[Record]) -> bool {
        let done = self.journal.append(records);
        if let Err(error) = &done {
            log::warn!("cannot write to the history's journal: {error}");
        }
        done.is_ok()
    }
}

/// What the journal keeps of a request.
fn records(request: &EntriesRequest) -> Vec<Record> {
    if let EntriesRequest::Open { conversation, kind } = request {
        let is_notes = matches!(kind, ConversationKind::Notes(_));
        let with = kind.account().clone();
        return vec![Record::Opened(*conversation, is_notes, with)];
    }
    let EntriesRequest::Write {
        conversation,
        writes,
    } = request
    else {
        return Vec::new();
    };
    let admissions = writes.iter().filter_map(EntryWrite::admission);
    let entries = admissions.flat_map(|admission| LeftEntry::of(*conversation, admission));
    entries.map(Record::Written).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use common::limits::MESSAGE_LEN_MAX;
    use common::time::UnixTime;
    use common::wire::peer::{Conversation, MessageBody};

    use super::*;

    fn record(number: u8, body: String) -> Record {
        let message = Message {
            id: MessageId::from_bytes([number; 16]),
            conversation: Conversation::Direct,
            sent: UnixTime::from_millis(u64::MAX),
            body: MessageBody::try_from(body).unwrap(),
        };
        Record::Queued("x".repeat(32).parse().unwrap(), message)
    }

    #[test]
    fn records_are_there_after_the_end_and_gone_after_clearing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        let longest = "x".repeat(MESSAGE_LEN_MAX);
        let records = [record(1, longest), record(2, "short".to_owned())];
        let (mut journal, left) = Journal::open(&path).unwrap();
        assert_eq!(left, []);
        journal.append(&records).unwrap();
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
        journal.append(&records).unwrap();
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
            .append(&[record(1, "hello".to_owned())])
            .unwrap_err();
        assert!(error.to_string().contains("wait for the history"));
        assert_eq!(journal.len, JOURNAL_LEN_MAX - 10);
    }

    #[test]
    fn what_was_refused_is_left_out() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        let (mut journal, _) = Journal::open(&path).unwrap();
        let records = [1, 2, 3].map(|number| record(number, number.to_string()));
        journal.append(&records).unwrap();
        let refused = Record::Struck(MessageId::from_bytes([2; 16]));
        journal.append(&[refused]).unwrap();
        let [first, _, third] = records;
        assert_eq!(Journal::open(&path).unwrap().1, [first, third]);
    }
}
