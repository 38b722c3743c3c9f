//! The store of a node: its session, pinned keys, the entries of conversations, and messages, in one SQLite file.
//! Messages are what people are shown: most say what entries say, and change with them.
//!
//! One thread owns the connection. It executes all queued requests in one transaction, commits it, and
//! only then answers: what was answered survives `kill -9`. Sessions and keys also survive power loss
//! (`synchronous=FULL`). Power loss may take the messages of the last moments, because waiting for the
//! disk at each message would slow conversations down.
//!
//! If one request of a transaction fails, each of them is executed again in a transaction of its own, so
//! that only the failing one is refused.
//!
//! How the file is opened, and what happens to older and newer schemas, is in [`common::os::sqlite`]. No
//! other process can use the file while it is open.

use std::io;
use std::path::{Path, PathBuf};

use common::limits::{
    HISTORY_BATCH_MAX, HISTORY_REQUESTS_MAX, SEARCH_INDEX_AFTER, SEARCH_INDEX_STEP,
};
use common::os::private::Durability;
use common::os::sqlite::{self, OpenError};
use common::os::worker::{Queue, Worker};
use rusqlite::{Connection, ErrorCode, TransactionBehavior};

use super::workers::{Answer, Answers};
use crate::node::io::entries::ConversationKind;
use crate::node::io::{ChatRequest, Restored, StoreAnswer, StoreId, StoreRequest};

// What columns of messages mean.
mod columns;
// Whether the file was left alone since it was closed.
mod ending;
// The entries of conversations.
mod entries;
// What may be on the wire before the database has it.
mod journal;
// The logs of accounts.
mod logs;
// Messages by their words.
mod search;
// The schema, and each request in SQL.
mod statements;

pub(crate) use journal::OutboxJournal;
use journal::{Journal, Record};
use logs::{logs, verified};
use statements::{
    SCHEMA, STATEMENTS_MAX, contacts, execute, last_endpoints, outbox, sent, session, undelivered,
};

/// What the history's thread adds to the niceness that it shares with the loop (nice(2)): half of what a
/// program that is started with `nice` gets, which is enough for the loop to go first.
const NICE_INCREMENT: i32 = 5;

/// The open history of one profile.
#[derive(Debug)]
pub(crate) struct History {
    connection: Connection,
    /// What the next commit survives, as it was last set.
    durability: Durability,
    /// The latest chain of received messages in which one could not be stored; zero if there is none. The
    /// later messages of such a chain are refused: [`ChatRequest::Receive`].
    gap: u64,
}

impl History {
    /// Opens the file or creates it, checks it, and brings its schema up to date.
    pub(crate) fn open(path: &Path) -> Result<Self, HistoryError> {
        let was_left_alone = ending::take(path);
        let connection =
            sqlite::open(path, &SCHEMA).map_err(|error| HistoryError::new(path, error))?;
        connection.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
        // What a person deletes is to be gone: its place in the file is overwritten.
        connection
            .pragma_update(None, "secure_delete", true)
            .map_err(|error| HistoryError::new(path, error))?;
        if !was_left_alone {
            entries::forget_marks(&connection).map_err(|error| HistoryError::new(path, error))?;
        }
        Ok(Self {
            connection,
            durability: Durability::PowerLoss,
            gap: 0,
        })
    }

    /// Opens the journal, which lies beside the file, and stores what a killed run left in it.
    pub(crate) fn take_journal(&mut self, path: &Path) -> Result<OutboxJournal, HistoryError> {
        let beside = path.with_file_name("outbox-journal");
        let (mut journal, left) =
            Journal::open(&beside).map_err(|error| HistoryError::new(&beside, error))?;
        if !left.is_empty() {
            log::info!(
                "read the journal of a run that was killed records={}",
                left.len()
            );
            self.take_left(left)
                .map_err(|error| HistoryError::new(path, error))?;
        }
        journal
            .clear()
            .map_err(|error| HistoryError::new(&beside, error))?;
        Ok(OutboxJournal::new(journal))
    }

    fn take_left(&mut self, left: Vec<Record>) -> rusqlite::Result<()> {
        let mut messages = Vec::new();
        self.set_durability(Durability::PowerLoss)?;
        let transaction = self.connection.transaction()?;
        for record in left {
            match record {
                Record::Queued(to, message) => messages.push((to, message)),
                Record::Opened(conversation, is_notes, with) => {
                    let kind = match is_notes {
                        true => ConversationKind::Notes(with),
                        false => ConversationKind::Direct(with),
                    };
                    if let Err(error) = entries::open(&transaction, conversation, &kind) {
                        log::warn!("cannot keep a conversation of the last run: {error}");
                    }
                }
                Record::Written(entry) => {
                    entries::add_left(&transaction, entry)?;
                }
                // Those that it is of are left out.
                Record::Struck(_) => {}
            }
        }
        transaction.commit()?;
        if messages.is_empty() {
            return Ok(());
        }
        // Nothing tells which of them links have carried.
        let sent = messages.iter().map(|(_, message)| message.id).collect();
        let request = StoreRequest::Chat(ChatRequest::Queue { messages, sent });
        self.execute([&request]).map(drop)
    }

    /// Reads the state that a node starts from.
    pub(crate) fn restore(&self) -> rusqlite::Result<Restored> {
        Ok(Restored {
            session: session(&self.connection)?,
            contacts: contacts(&self.connection)?,
            last_endpoints: last_endpoints(&self.connection)?,
            outbox: outbox(&self.connection)?,
            sent: sent(&self.connection)?,
            undelivered: undelivered(&self.connection)?,
            logs: logs(&self.connection)?,
            verified: verified(&self.connection)?,
        })
    }

    /// Moves the history to a thread of its own.
    pub(crate) fn spawn(self, answers: Answers) -> io::Result<Worker<(StoreId, StoreRequest)>> {
        Worker::spawn("history", HISTORY_REQUESTS_MAX, move |queue| {
            self.run(&queue, &answers);
        })
    }

    /// Closes the file, and notes that it was.
    fn close(self) {
        let path = self.connection.path().map(PathBuf::from);
        let Ok(()) = self.connection.close() else {
            return;
        };
        if let Some(path) = path
            && let Err(error) = ending::note(&path)
        {
            // The next start takes this end for none: its conversations begin new runs.
            log::debug!("cannot note how the history was left: {error}");
        }
    }

    /// Executes requests until the queue ends, whether or not anybody still takes the answers.
    fn run(mut self, queue: &Queue<(StoreId, StoreRequest)>, answers: &Answers) {
        give_way_to_the_loop();
        // Whether there may be messages that the index does not have.
        let mut is_behind = true;
        loop {
            let batch = if is_behind {
                queue.next_batch_within(HISTORY_BATCH_MAX, SEARCH_INDEX_AFTER)
            } else {
                queue.next_batch(HISTORY_BATCH_MAX)
            };
            let Some(batch) = batch else {
                return self.close();
            };
            if batch.is_empty() {
                is_behind = self.add_to_index();
                continue;
            }
            is_behind = true;
            let done = self.execute_batch(&batch).into_iter();
            answers.give_all(done.map(|(id, answer)| Answer::Stored(id, answer)));
        }
    }

    /// Adds messages to the index of their words while nobody wants anything. Returns whether there are more.
    fn add_to_index(&mut self) -> bool {
        let added = self.set_durability(Durability::Kill).and_then(|()| {
            let transaction = self.connection.transaction()?;
            let has_more = search::add(&transaction, SEARCH_INDEX_STEP)?;
            transaction.commit()?;
            Ok(has_more)
        });
        added.unwrap_or_else(|error| {
            // Whoever searches hears of it.
            log::warn!("cannot add to the index of the history: {error}");
            false
        })
    }

    /// Executes requests in order, in one transaction if none of them fails.
    fn execute_batch(&mut self, batch: &[(StoreId, StoreRequest)]) -> Vec<(StoreId, StoreAnswer)> {
        let requests = batch.iter().map(|(_, request)| request);
        let is_gapless = !requests.clone().any(|request| self.is_after_gap(request));
        let together = is_gapless.then(|| self.execute(requests.clone()).ok());
        let answers = together.flatten().unwrap_or_else(|| {
            requests
                .map(|request| self.execute_alone(request))
                .collect()
        });
        batch.iter().map(|(id, _)| *id).zip(answers).collect()
    }

    fn execute_alone(&mut self, request: &StoreRequest) -> StoreAnswer {
        if self.is_after_gap(request) {
            return StoreAnswer::after_gap();
        }
        match self.execute([request]) {
            Ok(mut answers) => answers.remove(0),
            Err(error) => {
                log::warn!("cannot access the message history: {error}");
                if let StoreRequest::Chat(ChatRequest::Receive { chain, .. }) = request {
                    self.gap = self.gap.max(*chain);
                }
                StoreAnswer::Failed(describe(&error))
            }
        }
    }

    /// Tells whether an earlier message of the same chain could not be stored.
    fn is_after_gap(&self, request: &StoreRequest) -> bool {
        matches!(request, StoreRequest::Chat(ChatRequest::Receive { chain, .. }) if *chain <= self.gap)
    }

    fn set_durability(&mut self, durability: Durability) -> rusqlite::Result<()> {
        if self.durability != durability {
            sqlite::set_durability(&self.connection, durability)?;
            self.durability = durability;
        }
        Ok(())
    }

    /// Executes requests in one transaction.
    fn execute<'a>(
        &mut self,
        requests: impl IntoIterator<Item = &'a StoreRequest> + Clone,
    ) -> rusqlite::Result<Vec<StoreAnswer>> {
        let needed = requests.clone().into_iter().map(durability);
        self.set_durability(needed.max().unwrap_or(Durability::Kill))?;
        let transaction = self
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate)?;
        let answers = requests
            .into_iter()
            .map(|request| execute(&transaction, request))
            .collect::<Result<_, _>>()?;
        transaction.commit()?;
        Ok(answers)
    }
}

/// Lets the loop go first on a single core: it has somebody's message to send.
fn give_way_to_the_loop() {
    // Elsewhere this would change the priority of the whole process.
    if cfg!(target_os = "linux")
        && let Err(error) = rustix::process::nice(NICE_INCREMENT)
    {
        log::debug!("cannot lower the priority of the history: {error}");
    }
}

const fn durability(request: &StoreRequest) -> Durability {
    match request {
        StoreRequest::Account(_) | StoreRequest::Contact(_) | StoreRequest::Log(_) => {
            Durability::PowerLoss
        }
        StoreRequest::Chat(_) => Durability::Kill,
        StoreRequest::Entries(request) => entries::durability(request),
    }
}

/// Why a history cannot be opened. The file is unchanged.
#[expect(missing_docs, reason = "the fields' names and types say it all")]
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    /// A newer program wrote it: its schema has version `found`, the newest known here is `known`.
    #[error(
        "cannot open the history {path}: it was written by a newer version of this program (schema {found}, this one knows {known}); upgrade, or use another profile"
    )]
    Newer {
        path: PathBuf,
        found: u32,
        known: u32,
    },
    /// It is not an SQLite file, or a damaged one.
    #[error(
        "cannot open the history {path}: it is damaged ({detail}); restore it from a backup, or move it away to start an empty one"
    )]
    Damaged { path: PathBuf, detail: String },
    /// The file system refused.
    #[error("cannot open the history {path}: {source}")]
    Io { path: PathBuf, source: io::Error },
    /// SQLite refused.
    #[error("cannot open the history {path}: {source}")]
    Sqlite {
        path: PathBuf,
        source: rusqlite::Error,
    },
}

impl HistoryError {
    /// Adds the path of the history to an error.
    pub(crate) fn new(path: &Path, error: impl Into<OpenError>) -> Self {
        let path = path.to_owned();
        match error.into() {
            OpenError::Newer { found, known } => Self::Newer { path, found, known },
            OpenError::Damaged(detail) => Self::Damaged { path, detail },
            OpenError::Io(source) => Self::Io { path, source },
            OpenError::Sqlite(source) => Self::Sqlite { path, source },
        }
    }
}

/// Describes an error to a person: what went wrong and what to do.
fn describe(error: &rusqlite::Error) -> String {
    if sqlite::is_locked(error) {
        return "another program has the history open; close it and try again".to_owned();
    }
    if sqlite::is_damage(error) {
        return format!("the history is damaged ({error}); restore it from a backup");
    }
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => "the disk is full; free some space and try again".to_owned(),
        Some(ErrorCode::ReadOnly) => {
            "the history is on a read-only file system; make it writable".to_owned()
        }
        Some(_) | None => error.to_string(),
    }
}

// The same requests to this history and to the one in memory.
#[cfg(test)]
mod twin;

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::os::unix::fs::PermissionsExt;

    use common::id::{AccountName, MessageId};
    use common::key::{DeviceSecret, Token};
    use common::limits::HISTORY_ITEMS_LEN_MAX;
    use common::time::UnixTime;
    use common::wire::peer::{Conversation, Message};
    use rusqlite::params;
    use tempfile::TempDir;

    use super::*;
    use crate::node::command::{Cursor, HistoryItem, HistoryQuery, MessageState};
    use crate::node::io::{AccountRequest, ChatAnswer, ContactRequest, Marked};

    #[test]
    fn what_is_remembered_survives_a_restart_in_order() {
        let folder = TempDir::new().unwrap();
        let mut history = open(&folder);
        let token = Token::from_bytes([9; 32]);
        let key = |byte| DeviceSecret::from_seed([byte; 32]).public();
        let pin = |device_key, at| {
            StoreRequest::Contact(ContactRequest::PinKey {
                account: name("bob"),
                device_key,
                at: UnixTime::from_millis(at),
            })
        };
        let messages = [3, 1, 2].map(|byte| (name("bob"), message(byte, "hi")));
        let requests = [
            StoreRequest::Account(AccountRequest::SaveSession {
                account: name("alice"),
                token: Some(token.clone()),
            }),
            pin(key(2), 1),
            pin(key(1), 2),
            pin(key(2), 3),
            queue(messages.to_vec()),
        ];
        for request in requests {
            assert!(!matches!(
                ask(&mut history, request),
                StoreAnswer::Failed(_)
            ));
        }
        drop(history);

        let restored = open(&folder).restore().unwrap();
        assert_eq!(restored.session, Some((name("alice"), token)));
        assert_eq!(
            restored.contacts,
            [(name("bob"), key(2)), (name("bob"), key(1))]
        );
        assert_eq!(restored.outbox, messages);
    }

    #[test]
    fn t31_a_pinned_key_that_anybody_can_sign_for_is_ignored() {
        let folder = TempDir::new().unwrap();
        let mut history = open(&folder);
        let device_key = DeviceSecret::from_seed([1; 32]).public();
        let pin = StoreRequest::Contact(ContactRequest::PinKey {
            account: name("bob"),
            device_key,
            at: UnixTime::default(),
        });
        assert_eq!(ask(&mut history, pin), StoreAnswer::Done);
        // As an earlier version left it: the neutral point.
        let mut weak = [0_u8; 32];
        weak[0] = 1;
        history
            .connection
            .execute(
                "INSERT INTO contacts VALUES ('bob', ?1, 0, NULL), ('carol', ?1, 0, '192.0.2.1:7')",
                params![weak],
            )
            .unwrap();
        drop(history);
        let restored = open(&folder).restore().unwrap();
        assert_eq!(restored.contacts, [(name("bob"), device_key)]);
        assert_eq!(restored.last_endpoints, []);
    }

    /// What a killed process leaves behind is what its files hold at that moment.
    #[test]
    fn what_was_answered_survives_a_kill() {
        let (folder, left_behind) = (TempDir::new().unwrap(), TempDir::new().unwrap());
        let mut history = open(&folder);
        let messages = vec![(name("bob"), message(1, "hi"))];
        ask(&mut history, queue(messages));
        for entry in std::fs::read_dir(folder.path()).unwrap() {
            let entry = entry.unwrap();
            // The third file is shared memory, which the next process builds anew.
            if !entry.file_name().to_str().unwrap().ends_with("-shm") {
                std::fs::copy(entry.path(), left_behind.path().join(entry.file_name())).unwrap();
            }
        }
        let restored = open(&left_behind).restore().unwrap();
        assert_eq!(restored.outbox, [(name("bob"), message(1, "hi"))]);
        drop(history);
    }

    #[test]
    fn a_forgotten_session_stays_forgotten() {
        let folder = TempDir::new().unwrap();
        let mut history = open(&folder);
        for token in [Some(Token::from_bytes([9; 32])), None] {
            let account = name("alice");
            ask(
                &mut history,
                StoreRequest::Account(AccountRequest::SaveSession { account, token }),
            );
        }
        drop(history);
        assert_eq!(open(&folder).restore().unwrap().session, None);
    }

    #[test]
    fn a_message_is_new_once_for_each_author() {
        let folder = TempDir::new().unwrap();
        let mut history = open(&folder);
        let receive = |from, text| {
            StoreRequest::Chat(ChatRequest::Receive {
                from: name(from),
                message: message(1, text),
                at: UnixTime::from_millis(7),
                chain: 1,
            })
        };
        let new = |place: Option<u64>| {
            let place = place.map(Cursor);
            StoreAnswer::Chat(ChatAnswer::Received { place })
        };
        assert_eq!(ask(&mut history, receive("bob", "hi")), new(Some(1)));
        assert_eq!(ask(&mut history, receive("bob", "other")), new(None));
        assert_eq!(ask(&mut history, receive("carol", "ho")), new(Some(2)));
        drop(history);
        let mut history = open(&folder);
        assert_eq!(ask(&mut history, receive("bob", "hi")), new(None));
        assert_eq!(texts(&mut history, None, 10), ["hi", "ho"]);
    }

    /// A peer that gives its message the number of one of ours changes nothing about ours.
    #[test]
    fn t35_a_received_message_never_meets_a_sent_one() {
        let folder = TempDir::new().unwrap();
        let mut history = open(&folder);
        let messages = vec![(name("bob"), message(1, "ours"))];
        ask(&mut history, queue(messages));
        let theirs = StoreRequest::Chat(ChatRequest::Receive {
            from: name("bob"),
            message: message(1, "theirs"),
            at: UnixTime::from_millis(7),
            chain: 1,
        });
        assert_eq!(
            ask(&mut history, theirs),
            StoreAnswer::Chat(ChatAnswer::Received {
                place: Some(Cursor(2))
            })
        );
        assert_eq!(history.restore().unwrap().outbox.len(), 1);
        assert_eq!(texts(&mut history, None, 10), ["ours", "theirs"]);
    }

    #[test]
    fn a_state_never_goes_back() {
        let folder = TempDir::new().unwrap();
        let mut history = open(&folder);
        let messages = vec![(name("bob"), message(1, "hi"))];
        ask(&mut history, queue(messages));
        let steps = [
            (MessageState::Sent, MessageState::Sent),
            (MessageState::Read, MessageState::Read),
            (MessageState::Delivered, MessageState::Read),
            (MessageState::Queued, MessageState::Read),
        ];
        for (said, expected) in steps {
            let advance = StoreRequest::Chat(ChatRequest::Advance {
                id: MessageId::from_bytes([1; 16]),
                to: name("bob"),
                state: said,
            });
            ask(&mut history, advance);
            assert_eq!(lookup(&mut history, None, 1)[0].state, expected);
        }
        assert_eq!(history.restore().unwrap().outbox, []);
    }

    #[test]
    fn marking_names_each_message_once() {
        let folder = TempDir::new().unwrap();
        let mut history = open(&folder);
        for byte in 1..=3 {
            let receive = StoreRequest::Chat(ChatRequest::Receive {
                from: name("bob"),
                message: message(byte, "hi"),
                at: UnixTime::default(),
                chain: 1,
            });
            ask(&mut history, receive);
        }
        let id = |byte| MessageId::from_bytes([byte; 16]);
        let mark = |bytes: &[u8]| {
            StoreRequest::Chat(ChatRequest::MarkRead {
                ids: bytes.iter().map(|byte| id(*byte)).collect(),
            })
        };
        let read = |byte| Marked {
            author: name("bob"),
            id: id(byte),
            entry: None,
        };
        let marked = |bytes: &[u8]| {
            StoreAnswer::Chat(ChatAnswer::Marked(
                bytes.iter().map(|byte| read(*byte)).collect(),
            ))
        };
        assert_eq!(ask(&mut history, mark(&[1, 3, 9])), marked(&[1, 3]));
        assert_eq!(ask(&mut history, mark(&[3, 2])), marked(&[2]));
        assert_eq!(
            ask(&mut history, StoreRequest::Chat(ChatRequest::Unread)),
            StoreAnswer::Chat(ChatAnswer::Messages(vec![]))
        );
    }

    #[test]
    fn nothing_gets_in_front_of_a_message_that_could_not_be_kept() {
        let folder = TempDir::new().unwrap();
        let mut history = open(&folder);
        history
            .connection
            .execute_batch(
                "CREATE TRIGGER test BEFORE INSERT ON messages WHEN NEW.body = '1'
                 BEGIN SELECT RAISE(ROLLBACK, 'no room'); END",
            )
            .unwrap();
        let receive = |byte: u8, chain| {
            StoreRequest::Chat(ChatRequest::Receive {
                from: name("bob"),
                message: message(byte, &byte.to_string()),
                at: UnixTime::default(),
                chain,
            })
        };
        let batch = [
            (StoreId(1), receive(1, 1)),
            (StoreId(2), receive(2, 1)),
            (StoreId(3), receive(3, 2)),
        ];
        let answers = history.execute_batch(&batch);
        let is_kept = |answer: &StoreAnswer| {
            matches!(
                answer,
                StoreAnswer::Chat(ChatAnswer::Received { place: Some(_) })
            )
        };
        let kept: Vec<bool> = answers.iter().map(|(_, answer)| is_kept(answer)).collect();
        assert_eq!(kept, [false, false, true]);
        assert!(!is_kept(&ask(&mut history, receive(4, 1))), "asked before");
        assert_eq!(texts(&mut history, Some("bob"), 9), ["3"]);
    }

    #[test]
    fn look_ups_are_oldest_first_and_bounded() {
        let folder = TempDir::new().unwrap();
        let mut history = open(&folder);
        for (byte, from) in [(1, "bob"), (2, "carol"), (3, "bob"), (4, "bob")] {
            let receive = StoreRequest::Chat(ChatRequest::Receive {
                from: name(from),
                message: message(byte, &byte.to_string()),
                at: UnixTime::default(),
                chain: 1,
            });
            ask(&mut history, receive);
        }
        assert_eq!(texts(&mut history, Some("bob"), 2), ["3", "4"]);
        assert_eq!(texts(&mut history, None, u32::MAX), ["1", "2", "3", "4"]);
        assert_eq!(texts(&mut history, Some("dave"), 9), [""; 0]);
        assert_eq!(texts(&mut history, None, 0), [""; 0]);
    }

    #[test]
    fn a_look_up_ends_before_its_answer_is_too_large() {
        let folder = TempDir::new().unwrap();
        let mut history = open(&folder);
        let long = "x".repeat(common::limits::MESSAGE_LEN_MAX);
        let messages = (0..200).map(|byte| (name("bob"), message(byte, &long)));
        let messages = messages.collect();
        ask(&mut history, queue(messages));
        let found = lookup(&mut history, None, u32::MAX);
        assert_eq!(found.len(), HISTORY_ITEMS_LEN_MAX / long.len());
        assert_eq!(found.last().unwrap().id, MessageId::from_bytes([199; 16]));
    }

    #[test]
    fn t25_times_of_other_clocks_survive() {
        let folder = TempDir::new().unwrap();
        let mut history = open(&folder);
        let mut extreme = message(1, "hi");
        extreme.sent = UnixTime::from_millis(u64::MAX);
        let messages = vec![(name("bob"), extreme)];
        ask(&mut history, queue(messages));
        let found = lookup(&mut history, None, 1);
        assert_eq!(found[0].sent, UnixTime::from_millis(u64::MAX));
    }

    #[test]
    fn one_failure_costs_the_others_of_its_transaction_nothing() {
        let folder = TempDir::new().unwrap();
        let mut history = open(&folder);
        history
            .connection
            .execute_batch(
                "CREATE TRIGGER test BEFORE INSERT ON contacts
                 BEGIN SELECT RAISE(ROLLBACK, 'no room'); END",
            )
            .unwrap();
        let queue = |byte| queue(vec![(name("bob"), message(byte, "hi"))]);
        let pin = StoreRequest::Contact(ContactRequest::PinKey {
            account: name("bob"),
            device_key: DeviceSecret::from_seed([1; 32]).public(),
            at: UnixTime::default(),
        });
        let batch = [queue(1), pin, queue(2)];
        let batch: Vec<_> = (1..).map(StoreId).zip(batch).collect();
        let answers = history.execute_batch(&batch);
        let kept = |n| StoreAnswer::Chat(ChatAnswer::Queued(vec![Some(Cursor(n))]));
        assert_eq!(answers[0], (StoreId(1), kept(1)));
        assert!(matches!(&answers[1], (StoreId(2), StoreAnswer::Failed(why)) if why == "no room"));
        assert_eq!(answers[2], (StoreId(3), kept(2)));
        assert_eq!(history.restore().unwrap().outbox.len(), 2);
    }

    /// SQLite reports a file that may not grow as it reports a full disk.
    #[test]
    fn t12_a_full_disk_is_named_and_survived() {
        let folder = TempDir::new().unwrap();
        let mut history = open(&folder);
        let limit = |history: &History, pages: i64| {
            history
                .connection
                .pragma_update(None, "max_page_count", pages)
                .unwrap();
        };
        limit(&history, 1);
        let messages = vec![(name("bob"), message(1, &"x".repeat(60_000)))];
        let request = queue(messages);
        let answer = ask(&mut history, request.clone());
        assert!(
            matches!(&answer, StoreAnswer::Failed(why) if why.contains("the disk is full")),
            "{answer:?}"
        );
        limit(&history, 1_000_000);
        let kept = ChatAnswer::Queued(vec![Some(Cursor(1))]);
        assert_eq!(ask(&mut history, request), StoreAnswer::Chat(kept));
        assert_eq!(history.restore().unwrap().outbox.len(), 1);
    }

    #[test]
    fn no_place_is_given_twice() {
        let folder = TempDir::new().unwrap();
        let mut history = open(&folder);
        let queue = |byte| queue(vec![(name("bob"), message(byte, "hi"))]);
        let kept = |n| StoreAnswer::Chat(ChatAnswer::Queued(vec![Some(Cursor(n))]));
        assert_eq!(ask(&mut history, queue(1)), kept(1));
        assert_eq!(ask(&mut history, queue(2)), kept(2));
        let messages = vec![(name("bob"), MessageId::from_bytes([2; 16]))];
        let withdraw = StoreRequest::Chat(ChatRequest::Withdraw { messages });
        assert_eq!(ask(&mut history, withdraw), StoreAnswer::Done);
        drop(history);
        let mut history = open(&folder);
        assert_eq!(ask(&mut history, queue(3)), kept(3));
        let after = |history: &mut History, n, limit| {
            let after = Cursor(n);
            let request = ChatRequest::Recorded { after, limit };
            let answer = ask(history, StoreRequest::Chat(request));
            let StoreAnswer::Chat(ChatAnswer::Recorded(page)) = answer else {
                panic!("{answer:?}");
            };
            let places: Vec<u64> = page.messages.iter().map(|it| it.cursor.0).collect();
            (places, page.last.0)
        };
        assert_eq!(after(&mut history, 0, 9), (vec![1, 3], 3));
        assert_eq!(after(&mut history, 0, 1), (vec![1], 3));
        assert_eq!(after(&mut history, 0, 0), (vec![], 3));
        assert_eq!(after(&mut history, 2, 9), (vec![3], 3));
        for beyond in [3, 4, u64::MAX] {
            assert_eq!(after(&mut history, beyond, 9), (vec![], 3));
        }
    }

    #[test]
    fn a_history_from_before_there_were_places_has_them_in_its_order() {
        let folder = TempDir::new().unwrap();
        let connection = Connection::open(path(&folder)).unwrap();
        for migration in &SCHEMA.migrations[..3] {
            connection.execute_batch(migration).unwrap();
        }
        connection
            .execute_batch(
                "INSERT INTO messages VALUES (1, 1, 'bob', zeroblob(16), 2, 0, 0, 'old');
                 INSERT INTO messages VALUES (4, 0, 'bob', zeroblob(16), 2, 0, 0, 'newer');",
            )
            .unwrap();
        connection.pragma_update(None, "user_version", 3).unwrap();
        drop(connection);
        let mut history = open(&folder);
        let next = queue(vec![(name("bob"), message(1, "newest"))]);
        let kept = ChatAnswer::Queued(vec![Some(Cursor(5))]);
        assert_eq!(ask(&mut history, next), StoreAnswer::Chat(kept));
        assert_eq!(texts(&mut history, None, 9), ["old", "newer", "newest"]);
    }

    #[test]
    fn messages_are_found_by_their_words_whatever_the_index_has() {
        let folder = TempDir::new().unwrap();
        let mut history = open(&folder);
        let texts = [
            "Grüße aus Zürich",
            "the 8:15 train, track 4",
            "trains are late",
        ];
        let messages = (1..).zip(texts);
        let messages = messages.map(|(n, text)| (name("bob"), message(n, text)));
        ask(&mut history, queue(messages.collect()));
        let found = |history: &mut History, words: &[&str], with: Option<&str>| {
            let query = HistoryQuery {
                words: words.iter().map(|word| (*word).to_owned()).collect(),
                ..HistoryQuery::latest(with.map(name), 9)
            };
            let answer = ask(history, StoreRequest::Chat(ChatRequest::History(query)));
            let StoreAnswer::Chat(ChatAnswer::Messages(items)) = answer else {
                panic!("{answer:?}");
            };
            let bodies = items.iter().map(|item| item.body.as_str().to_owned());
            bodies.collect::<Vec<_>>()
        };
        for (words, expected) in [
            (&["train"][..], &texts[1..]),
            (&["TRAIN", "8:15"], &texts[1..2]),
            (&["zurich", "gruße"], &texts[..1]),
            (&["train", "bus"], &[]),
            (&["NOT", "\"train"], &[]),
            (&["…"], &[]),
        ] {
            assert_eq!(found(&mut history, words, None), expected, "{words:?}");
        }
        assert_eq!(found(&mut history, &["train"], Some("carol")), [""; 0]);
        assert!(!history.add_to_index(), "the search has added all");

        // What is taken back is not found, nor taken for what comes in its place.
        let taken_back = [(name("bob"), message(3, "x").id)];
        let withdraw = ChatRequest::Withdraw {
            messages: taken_back.to_vec(),
        };
        ask(&mut history, StoreRequest::Chat(withdraw));
        assert_eq!(found(&mut history, &["train"], None), texts[1..2]);
        ask(
            &mut history,
            queue(vec![(name("bob"), message(4, "no trains"))]),
        );
        assert_eq!(found(&mut history, &["late"], None), [""; 0]);
        assert_eq!(found(&mut history, &["trains"], None), ["no trains"]);
    }

    #[test]
    fn a_history_that_nobody_uses_is_added_to_the_index_a_piece_at_a_time() {
        let folder = TempDir::new().unwrap();
        let mut history = open(&folder);
        let count = SEARCH_INDEX_STEP + 1;
        let messages = (0..count).map(|n| {
            let mut id = [0; 16];
            id[..4].copy_from_slice(&n.to_be_bytes());
            let message = Message {
                id: MessageId::from_bytes(id),
                ..message(1, "word")
            };
            (name("bob"), message)
        });
        ask(&mut history, queue(messages.collect()));
        let indexed = |history: &History| -> u32 {
            let sql = "SELECT upto FROM words_of";
            let upto = history.connection.query_row(sql, [], |row| row.get(0));
            upto.unwrap()
        };
        assert_eq!(indexed(&history), 0);
        assert!(history.add_to_index());
        assert_eq!(indexed(&history), SEARCH_INDEX_STEP);
        assert!(!history.add_to_index());
        assert_eq!(indexed(&history), count);
    }

    #[test]
    fn a_newer_schema_is_refused_and_untouched() {
        let folder = TempDir::new().unwrap();
        drop(open(&folder));
        let path = path(&folder);
        let connection = Connection::open(&path).unwrap();
        connection.pragma_update(None, "user_version", 99).unwrap();
        drop(connection);
        let before = std::fs::read(&path).unwrap();
        let error = History::open(&path).unwrap_err();
        assert!(
            matches!(
                error,
                HistoryError::Newer {
                    found: 99,
                    known: 7,
                    ..
                }
            ),
            "{error}"
        );
        assert_eq!(std::fs::read(&path).unwrap(), before);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_file_of_another_kind_is_damaged_and_untouched() {
        let folder = TempDir::new().unwrap();
        let garbage = b"not a database at all".repeat(100);
        std::fs::write(path(&folder), &garbage).unwrap();
        let error = History::open(&path(&folder)).unwrap_err();
        assert!(matches!(error, HistoryError::Damaged { .. }), "{error}");
        assert_eq!(std::fs::read(path(&folder)).unwrap(), garbage);
    }

    #[test]
    fn t33_only_its_owner_reads_the_history() {
        let folder = TempDir::new().unwrap();
        std::fs::write(path(&folder), b"").unwrap();
        let history = open(&folder);
        for entry in std::fs::read_dir(folder.path()).unwrap() {
            let entry = entry.unwrap();
            let mode = entry.metadata().unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{entry:?}");
        }
        drop(history);
    }

    /// A file as an earlier version left it.
    #[test]
    fn what_an_earlier_version_left_in_its_journal_is_in_the_outbox() {
        let folder = TempDir::new().unwrap();
        let mut history = open(&folder);
        let [first, second] = [message(1, "first"), message(2, "second")];
        let (mut journal, _) =
            Journal::open(&path(&folder).with_file_name("outbox-journal")).unwrap();
        let records = [&first, &second].map(|it| Record::Queued(name("bob"), it.clone()));
        journal.append(&records).unwrap();
        drop(journal);
        // The first has been delivered when the program was killed.
        ask(&mut history, queue(vec![(name("bob"), first.clone())]));
        let advance = ChatRequest::Advance {
            id: first.id,
            to: name("bob"),
            state: MessageState::Delivered,
        };
        ask(&mut history, StoreRequest::Chat(advance));
        history.take_journal(&path(&folder)).unwrap();
        let outbox = history.restore().unwrap().outbox;
        assert_eq!(outbox, [(name("bob"), second)]);
        let items = lookup(&mut history, Some("bob"), 10);
        assert_eq!(items.len(), 2);
        assert_eq!(items[0].state, MessageState::Delivered);
    }

    fn path(folder: &TempDir) -> PathBuf {
        folder.path().join("history.db")
    }

    fn open(folder: &TempDir) -> History {
        History::open(&path(folder)).unwrap()
    }

    fn queue(messages: Vec<(AccountName, Message)>) -> StoreRequest {
        let sent = BTreeSet::new();
        StoreRequest::Chat(ChatRequest::Queue { messages, sent })
    }

    fn ask(history: &mut History, request: StoreRequest) -> StoreAnswer {
        let mut answers = history.execute_batch(&[(StoreId(1), request)]);
        answers.remove(0).1
    }

    fn lookup(history: &mut History, with: Option<&str>, limit: u32) -> Vec<HistoryItem> {
        let with = with.map(name);
        let answer = ask(
            history,
            StoreRequest::Chat(ChatRequest::History(HistoryQuery::latest(with, limit))),
        );
        let StoreAnswer::Chat(ChatAnswer::Messages(items)) = answer else {
            panic!("{answer:?}");
        };
        items
    }

    fn texts(history: &mut History, with: Option<&str>, limit: u32) -> Vec<String> {
        let items = lookup(history, with, limit);
        items.into_iter().map(|item| item.body.into()).collect()
    }

    fn name(text: &str) -> AccountName {
        text.parse().unwrap()
    }

    fn message(byte: u8, text: &str) -> Message {
        Message {
            id: MessageId::from_bytes([byte; 16]),
            conversation: Conversation::Direct,
            sent: UnixTime::from_millis(u64::from(byte)),
            body: text.to_owned().try_into().unwrap(),
        }
    }
}
