//! The entries of conversations: the schema, and which request is whose.
//!
//! A conversation, and a chain within it, has a small number here, which stands in each row for some 100 bytes. There is
//! no unique index over hashes: it would double what catching up costs, and an entry is known by its chain and place.
//!
//! What the file holds may be damaged: whoever reads refuses what cannot be, and hands no entry out that is not the one
//! of its header.

use common::log::{ChainId, ConversationId, HeaderHash, Sequence};
use common::os::private::Durability;
use rusqlite::{Connection, OptionalExtension, Transaction, params};

use crate::node::io::entries::{EntriesRefusal, EntriesRequest, Reached};
use crate::node::io::{EntriesAnswer, StoreAnswer};

// What columns mean.
mod columns;
// What a killed program has left.
mod left;
// Proofs of forks as bytes.
mod proof;
// Pages, stretches, and what is shown.
mod reading;
// What a start begins with, and an end leaves.
mod restoring;
// Messages, as people are shown them.
mod showing;
// What is kept and dropped.
mod writing;

pub(super) use columns::ordered;
pub(super) use left::{LeftEntry, add_left};
pub(super) use restoring::forget_marks;
pub(super) use showing::{MIGRATION as SHOWING_MIGRATION, mark_read};
pub(super) use writing::open;

// Clocks stand as signed integers in their own order, all other numbers as they are.
pub(super) const MIGRATION: &str = "
    -- Random: a file that is made anew is another one.
    CREATE TABLE file (
        only_one INTEGER PRIMARY KEY CHECK (only_one = 1),
        id BLOB NOT NULL CHECK (length(id) = 32)
    ) STRICT;
    INSERT INTO file VALUES (1, randomblob(32));

    -- kind: 0 direct, with an account; 1 notes. run: the one in which this device has written last.
    CREATE TABLE conversations (
        number INTEGER PRIMARY KEY,
        id BLOB NOT NULL UNIQUE CHECK (length(id) = 32),
        kind INTEGER NOT NULL,
        account TEXT,
        run BLOB CHECK (length(run) = 16)
    ) STRICT;

    -- base: the first entry that is kept; before: the hash of the header before it. sealed: the last confirmed entry, 0
    -- if there is none.
    CREATE TABLE chains (
        number INTEGER PRIMARY KEY,
        conversation INTEGER NOT NULL,
        device BLOB NOT NULL CHECK (length(device) = 32),
        run BLOB NOT NULL CHECK (length(run) = 16),
        base INTEGER NOT NULL,
        before BLOB NOT NULL CHECK (length(before) = 32),
        sealed INTEGER NOT NULL,
        UNIQUE (conversation, device, run)
    ) STRICT;

    -- number: in the order of arrival; none is given twice. placed: where it is shown. dating: 0 plausible, 1 ahead, 2
    -- too old. hash: of the header. body: null if it was dropped.
    CREATE TABLE entries (
        number INTEGER PRIMARY KEY AUTOINCREMENT,
        chain INTEGER NOT NULL,
        sequence INTEGER NOT NULL,
        conversation INTEGER NOT NULL,
        clock INTEGER NOT NULL,
        placed INTEGER NOT NULL,
        dating INTEGER NOT NULL,
        kind INTEGER NOT NULL CHECK (kind BETWEEN 0 AND 255),
        is_written_here INTEGER NOT NULL,
        body_len INTEGER NOT NULL,
        body_hash BLOB NOT NULL CHECK (length(body_hash) = 32),
        hash BLOB NOT NULL CHECK (length(hash) = 32),
        seal BLOB CHECK (length(seal) = 64),
        body BLOB,
        UNIQUE (chain, sequence)
    ) STRICT;
    CREATE INDEX entries_shown ON entries (conversation, placed);
    CREATE INDEX entries_cuts ON entries (conversation, number) WHERE kind = 134;

    CREATE TABLE forks (
        chain INTEGER PRIMARY KEY,
        proof BLOB NOT NULL
    ) STRICT;

    -- Entries written here that count no more. kind and body: what is to be written again; null once it is.
    CREATE TABLE rewrites (
        number INTEGER PRIMARY KEY,
        chain INTEGER NOT NULL,
        sequence INTEGER NOT NULL,
        kind INTEGER,
        body BLOB,
        UNIQUE (chain, sequence)
    ) STRICT;
    CREATE INDEX rewrites_lost ON rewrites (chain, sequence) WHERE body IS NOT NULL;

    -- Where runs have ended in order. Empty while a program runs.
    CREATE TABLE marks (
        conversation INTEGER PRIMARY KEY,
        run BLOB NOT NULL CHECK (length(run) = 16),
        last INTEGER NOT NULL,
        hash BLOB NOT NULL CHECK (length(hash) = 32),
        instance BLOB NOT NULL CHECK (length(instance) = 32)
    ) STRICT;
";

/// Executes a request in a transaction.
pub(super) fn execute(
    transaction: &Transaction<'_>,
    request: &EntriesRequest,
) -> rusqlite::Result<StoreAnswer> {
    let done = |()| StoreAnswer::Done;
    match request {
        EntriesRequest::TakeMarks => restoring::take_marks(transaction).map(answer),
        EntriesRequest::SetMarks(marks) => restoring::set_marks(transaction, marks).map(done),
        EntriesRequest::Conversations { after } => {
            restoring::conversations(transaction, *after).map(answer)
        }
        EntriesRequest::Chains {
            conversation,
            after,
        } => restoring::chains(transaction, *conversation, *after).map(answer),
        EntriesRequest::Forks {
            conversation,
            after,
        } => restoring::forks(transaction, *conversation, *after).map(answer),
        EntriesRequest::Cuts {
            conversation,
            after,
        } => restoring::cuts(transaction, *conversation, *after).map(answer),
        EntriesRequest::Lost { conversation } => {
            restoring::lost(transaction, *conversation).map(answer)
        }
        EntriesRequest::Open { conversation, kind } => {
            open(transaction, *conversation, kind).map(done)
        }
        EntriesRequest::Write {
            conversation,
            writes,
        } => writing::write(transaction, *conversation, writes).map(answer),
        EntriesRequest::Reach {
            conversation,
            chain,
            reach,
            last,
        } => showing::reach(transaction, *conversation, chain, *reach, *last).map(answer),
        EntriesRequest::DropBodies {
            conversation,
            entries,
        } => writing::drop_bodies(transaction, *conversation, entries).map(done),
        EntriesRequest::Forget {
            conversation,
            after,
            before,
        } => writing::forget(transaction, *conversation, *after, *before).map(answer),
        EntriesRequest::Page(request) => reading::page(transaction, request).map(answer),
        EntriesRequest::OwnStretch {
            conversation,
            chain,
            first,
            last,
        } => reading::own_stretch(transaction, *conversation, chain, *first..=*last).map(answer),
        EntriesRequest::Stretch { conversation, at } => {
            reading::stretch(transaction, *conversation, *at).map(answer)
        }
        EntriesRequest::Hash { conversation, at } => {
            reading::hash(transaction, *conversation, *at).map(answer)
        }
        EntriesRequest::Fork {
            conversation,
            chain,
        } => restoring::fork(transaction, *conversation, chain).map(answer),
        EntriesRequest::Shown(query) => reading::shown(transaction, query).map(answer),
        EntriesRequest::Undelivered { conversation } => {
            showing::undelivered(transaction, *conversation).map(answer)
        }
        EntriesRequest::Find { ids } => showing::find(transaction, ids).map(answer),
    }
}

/// What a commit of a request survives. Only the marks of an end have to be on disk in time: they say that nothing is
/// lost. After a power failure there are none, and others are told of what is left.
pub(super) const fn durability(request: &EntriesRequest) -> Durability {
    match request {
        EntriesRequest::TakeMarks | EntriesRequest::SetMarks(_) => Durability::PowerLoss,
        EntriesRequest::Conversations { .. }
        | EntriesRequest::Chains { .. }
        | EntriesRequest::Forks { .. }
        | EntriesRequest::Cuts { .. }
        | EntriesRequest::Lost { .. }
        | EntriesRequest::Open { .. }
        | EntriesRequest::Write { .. }
        | EntriesRequest::Reach { .. }
        | EntriesRequest::DropBodies { .. }
        | EntriesRequest::Forget { .. }
        | EntriesRequest::Page(_)
        | EntriesRequest::OwnStretch { .. }
        | EntriesRequest::Stretch { .. }
        | EntriesRequest::Hash { .. }
        | EntriesRequest::Fork { .. }
        | EntriesRequest::Shown(_)
        | EntriesRequest::Undelivered { .. }
        | EntriesRequest::Find { .. } => Durability::Kill,
    }
}

const fn answer(answer: EntriesAnswer) -> StoreAnswer {
    StoreAnswer::Entries(answer)
}

// ---- finding -----------------------------------------------------------------------------------

/// A chain by its number, and what is kept of it besides its entries.
#[derive(Clone, Copy, Debug)]
struct ChainRow {
    number: i64,
    base: Sequence,
    before: HeaderHash,
    sealed: Sequence,
    reached: Reached,
}

/// The number of a conversation.
fn conversation(connection: &Connection, id: ConversationId) -> rusqlite::Result<Option<i64>> {
    connection
        .prepare_cached("SELECT number FROM conversations WHERE id = ?1")?
        .query_row([id.as_bytes()], |row| row.get(0))
        .optional()
}

/// A chain of the conversation with this number.
fn chain(
    connection: &Connection,
    conversation: i64,
    id: &ChainId,
) -> rusqlite::Result<Option<ChainRow>> {
    connection
        .prepare_cached(
            "SELECT number, base, before, sealed, sent, delivered, read FROM chains
             WHERE conversation = ?1 AND device = ?2 AND run = ?3",
        )?
        .query_row(
            params![conversation, id.device.as_bytes(), id.run.as_bytes()],
            |row| {
                Ok(ChainRow {
                    number: row.get(0)?,
                    base: columns::sequence(row, 1)?,
                    before: columns::header_hash(row, 2)?,
                    sealed: columns::sequence(row, 3)?,
                    reached: columns::reached(row, 4)?,
                })
            },
        )
        .optional()
}

/// The same by the conversation's identifier.
fn chain_of(
    connection: &Connection,
    id: ConversationId,
    chain_id: &ChainId,
) -> rusqlite::Result<Option<ChainRow>> {
    match conversation(connection, id)? {
        Some(number) => chain(connection, number, chain_id),
        None => Ok(None),
    }
}

/// The hash of the header at a place of a chain.
fn hash_at(
    connection: &Connection,
    chain: &ChainRow,
    place: Sequence,
) -> rusqlite::Result<Option<HeaderHash>> {
    connection
        .prepare_cached("SELECT hash FROM entries WHERE chain = ?1 AND sequence = ?2")?
        .query_row(params![chain.number, number(place)], |row| {
            columns::header_hash(row, 0)
        })
        .optional()
}

/// A place as a column has it: [`common::limits::SEQUENCE_MAX`] is far below the sign.
const fn number(place: Sequence) -> i64 {
    place.number().cast_signed()
}

/// The error of something that is not written.
fn refused(refusal: EntriesRefusal) -> rusqlite::Error {
    rusqlite::Error::ToSqlConversionFailure(Box::new(refusal))
}

#[cfg(test)]
mod tests;
