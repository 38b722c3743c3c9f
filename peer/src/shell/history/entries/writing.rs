//! What is kept of conversations, and what is dropped.

use common::limits::{BODIES_DROPPED_MAX, CONVERSATIONS_MAX, ENTRY_WRITES_MAX};
use common::log::{ChainId, ConversationId, EntryId, ForkProof, HeaderHash, Outline, Sequence};
use rusqlite::{Connection, OptionalExtension, params};

use super::columns::{conversation_kind_code, dating_code, ordered};
use super::reading::{self, Span};
use super::showing::{View, remove_message};
use super::{ChainRow, chain, conversation, number, proof, refused};
use crate::log::{Admission, Rewrite, ShownAt, StoredEntry};
use crate::node::io::EntriesAnswer;
use crate::node::io::entries::{ConversationKind, EntriesRefusal, EntryWrite, Origin, Reached};

// ---- conversations -----------------------------------------------------------------------------

/// Gives a conversation its place, or another name.
pub(in crate::shell::history) fn open(
    connection: &Connection,
    id: ConversationId,
    kind: &ConversationKind,
) -> rusqlite::Result<()> {
    if conversation(connection, id)?.is_none() && count(connection)? >= CONVERSATIONS_MAX {
        return Err(refused(EntriesRefusal::TooManyConversations));
    }
    let (code, account) = (conversation_kind_code(kind), kind.account().as_str());
    connection
        .prepare_cached(
            "INSERT INTO conversations (id, kind, account) VALUES (?1, ?2, ?3)
             ON CONFLICT (id) DO UPDATE SET kind = excluded.kind, account = excluded.account",
        )?
        .execute(params![id.as_bytes(), code, account])?;
    Ok(())
}

fn count(connection: &Connection) -> rusqlite::Result<usize> {
    let count: u32 = connection
        .prepare_cached("SELECT count(*) FROM conversations")?
        .query_row([], |row| row.get(0))?;
    Ok(count as usize)
}

// ---- writes ------------------------------------------------------------------------------------

pub(super) fn write(
    connection: &Connection,
    id: ConversationId,
    writes: &[EntryWrite],
) -> rusqlite::Result<EntriesAnswer> {
    if writes.len() > ENTRY_WRITES_MAX {
        return Err(refused(EntriesRefusal::TooMany));
    }
    let view = View::of(connection, id)?;
    let mut view = view.ok_or_else(|| refused(EntriesRefusal::NotOpen))?;
    let number = view.conversation;
    for write in writes {
        match write {
            EntryWrite::Begin(run) => {
                connection
                    .prepare_cached("UPDATE conversations SET run = ?2 WHERE number = ?1")?
                    .execute(params![number, run.as_bytes()])?;
            }
            EntryWrite::Admit(admission, origin) => admit(&mut view, admission, *origin)?,
            EntryWrite::Fork(proof) => keep_proof(connection, (id, number), proof)?,
            EntryWrite::Rewritten(entry) => note_rewritten(&mut view, *entry)?,
            EntryWrite::Replaces(message) => view.replace(*message)?,
        }
    }
    Ok(EntriesAnswer::Written(view.into_shown()))
}

fn admit(view: &mut View<'_>, admission: &Admission, origin: Origin) -> rusqlite::Result<()> {
    let (connection, conversation) = (view.connection, view.conversation);
    let row = match chain(connection, conversation, &admission.chain)? {
        Some(row) => row,
        None => {
            let begins = (admission.base, admission.before);
            add_chain(connection, conversation, &admission.chain, begins)?
        }
    };
    if let Some(rewrite) = &admission.rewrite {
        note_lost(connection, &row, admission.chain, rewrite)?;
    }
    if let Some(from) = admission.remove {
        remove(view, &row, admission.chain, from)?;
    }
    let last = last(connection, &row)?;
    check_place(&row, last, admission)?;
    for stored in &admission.entries {
        let id = EntryId {
            chain: admission.chain,
            sequence: stored.sequence,
        };
        if stored.sequence > last || !is_kept(view, &row, id, stored.hash)? {
            let number = insert(connection, (conversation, row.number), stored, origin)?;
            view.show((id, number), stored, origin, &row.reached)?;
        }
    }
    keep_seal(connection, &row, admission)?;
    end_at(connection, &row, admission)
}

/// Adds a chain that begins at an entry, behind a header.
pub(super) fn add_chain(
    connection: &Connection,
    conversation: i64,
    chain: &ChainId,
    (base, before): (Sequence, HeaderHash),
) -> rusqlite::Result<ChainRow> {
    connection
        .prepare_cached(
            "INSERT INTO chains (conversation, device, run, base, before, sealed)
             VALUES (?1, ?2, ?3, ?4, ?5, 0)",
        )?
        .execute(params![
            conversation,
            chain.device.as_bytes(),
            chain.run.as_bytes(),
            number(base),
            before.as_bytes()
        ])?;
    Ok(ChainRow {
        number: connection.last_insert_rowid(),
        base,
        before,
        sealed: Sequence::START,
        reached: Reached::default(),
    })
}

/// Notes what is to be written again, unless it is noted already.
fn note_lost(
    connection: &Connection,
    chain: &ChainRow,
    id: ChainId,
    rewrite: &Rewrite,
) -> rusqlite::Result<()> {
    if rewrite.chain != id {
        return Err(refused(EntriesRefusal::OtherChain));
    }
    connection
        .prepare_cached(
            "INSERT INTO rewrites (chain, sequence, kind, body)
             SELECT chain, sequence, kind, body FROM entries
             WHERE chain = ?1 AND sequence >= ?2 AND (?3 IS NULL OR sequence < ?3)
             AND is_written_here AND body IS NOT NULL
             ON CONFLICT DO NOTHING",
        )?
        .execute(params![
            chain.number,
            number(rewrite.from),
            rewrite.until.map(number)
        ])?;
    Ok(())
}

/// Removes entries that were contradicted, none of which is sealed.
fn remove(
    view: &mut View<'_>,
    chain: &ChainRow,
    id: ChainId,
    from: Sequence,
) -> rusqlite::Result<()> {
    if from <= chain.sealed {
        return Err(refused(EntriesRefusal::Seal));
    }
    view.hide_from(chain, id, from)?;
    view.connection
        .prepare_cached("DELETE FROM entries WHERE chain = ?1 AND sequence >= ?2")?
        .execute(params![chain.number, number(from)])?;
    Ok(())
}

/// The last entry of a chain; the place before its first if there is none.
pub(super) fn last(connection: &Connection, chain: &ChainRow) -> rusqlite::Result<Sequence> {
    let last = connection
        .prepare_cached(
            "SELECT sequence FROM entries WHERE chain = ?1 ORDER BY sequence DESC LIMIT 1",
        )?
        .query_row([chain.number], |row| super::columns::sequence(row, 0))
        .optional()?;
    Ok(last.unwrap_or(chain.base.previous()))
}

/// Checks that entries go on where the chain ends, come right before its first one, or begin it anew.
fn check_place(chain: &ChainRow, last: Sequence, admission: &Admission) -> rusqlite::Result<()> {
    let Some(first) = admission.entries.first() else {
        let is_same = admission.base == chain.base && admission.sealed <= last;
        return if is_same {
            Ok(())
        } else {
            Err(refused(EntriesRefusal::NotNext))
        };
    };
    let first = first.sequence;
    let places = admission.entries.iter().map(|stored| stored.sequence);
    let is_row = places
        .enumerate()
        .all(|(index, place)| place == first.plus(index));
    let end = first.plus(admission.entries.len() - 1);
    let begins = admission.base == first && first > last.next();
    let precedes = admission.base == first && end.next() == chain.base;
    let follows = admission.base == chain.base && first >= chain.base && first <= last.next();
    if is_row && (begins || precedes || follows) && admission.sealed <= last.max(end) {
        Ok(())
    } else {
        Err(refused(EntriesRefusal::NotNext))
    }
}

/// Tells whether an entry is there already. One that is left from before the chain began anew makes way for another.
fn is_kept(
    view: &mut View<'_>,
    chain: &ChainRow,
    id: EntryId,
    hash: HeaderHash,
) -> rusqlite::Result<bool> {
    let kept = super::hash_at(view.connection, chain, id.sequence)?;
    if kept.is_none_or(|kept| kept == hash) {
        return Ok(kept.is_some());
    }
    if id.sequence >= chain.base {
        return Err(refused(EntriesRefusal::Contradicts));
    }
    view.hide(chain, id)?;
    view.connection
        .prepare_cached("DELETE FROM entries WHERE chain = ?1 AND sequence = ?2")?
        .execute(params![chain.number, number(id.sequence)])?;
    Ok(false)
}

/// Adds an entry to the chain with a number, of the conversation with a number. Returns its own number.
pub(super) fn insert(
    connection: &Connection,
    (conversation, chain): (i64, i64),
    stored: &StoredEntry,
    origin: Origin,
) -> rusqlite::Result<i64> {
    let Outline {
        clock,
        kind,
        body_len,
        body_hash,
    } = stored.entry.outline;
    connection
        .prepare_cached(
            "INSERT INTO entries (chain, sequence, conversation, clock, placed, dating, kind,
                 is_written_here, body_len, body_hash, hash, body)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)",
        )?
        .execute(params![
            chain,
            number(stored.sequence),
            conversation,
            ordered(clock),
            ordered(stored.placed.at),
            dating_code(stored.placed.dating),
            kind.0,
            origin == Origin::WrittenHere,
            body_len,
            body_hash.as_bytes(),
            stored.hash.as_bytes(),
            stored.entry.body,
        ])?;
    Ok(connection.last_insert_rowid())
}

/// Keeps a seal at its place, where the entry may have been before.
fn keep_seal(
    connection: &Connection,
    chain: &ChainRow,
    admission: &Admission,
) -> rusqlite::Result<()> {
    let Some(seal) = admission.seal else {
        return Ok(());
    };
    let sealed = connection
        .prepare_cached("UPDATE entries SET seal = ?3 WHERE chain = ?1 AND sequence = ?2")?
        .execute(params![
            chain.number,
            number(seal.sequence),
            seal.signature.as_bytes()
        ])?;
    if sealed == 1 {
        Ok(())
    } else {
        Err(refused(EntriesRefusal::Seal))
    }
}

/// Keeps where the chain begins then, and what of it is confirmed.
fn end_at(
    connection: &Connection,
    chain: &ChainRow,
    admission: &Admission,
) -> rusqlite::Result<()> {
    let Admission {
        base,
        before,
        sealed,
        ..
    } = admission;
    if *sealed < chain.sealed {
        return Err(refused(EntriesRefusal::Seal));
    }
    if (*base, *before, *sealed) == (chain.base, chain.before, chain.sealed) {
        return Ok(());
    }
    connection
        .prepare_cached("UPDATE chains SET base = ?2, before = ?3, sealed = ?4 WHERE number = ?1")?
        .execute(params![
            chain.number,
            number(*base),
            before.as_bytes(),
            number(*sealed)
        ])?;
    Ok(())
}

fn keep_proof(
    connection: &Connection,
    (id, conversation): (ConversationId, i64),
    proof: &ForkProof,
) -> rusqlite::Result<()> {
    let row = chain(connection, conversation, &proof.chain)?;
    let row = row.filter(|_| proof.conversation == id);
    let row = row.ok_or_else(|| refused(EntriesRefusal::OtherChain))?;
    connection
        .prepare_cached("REPLACE INTO forks (chain, proof) VALUES (?1, ?2)")?
        .execute(params![row.number, proof::to_bytes(proof)])?;
    Ok(())
}

fn note_rewritten(view: &mut View<'_>, entry: EntryId) -> rusqlite::Result<()> {
    let row = chain(view.connection, view.conversation, &entry.chain)?;
    let row = row.ok_or_else(|| refused(EntriesRefusal::OtherChain))?;
    view.hide(&row, entry)?;
    view.connection
        .prepare_cached(
            "INSERT INTO rewrites (chain, sequence) VALUES (?1, ?2)
             ON CONFLICT (chain, sequence) DO UPDATE SET kind = NULL, body = NULL",
        )?
        .execute(params![row.number, number(entry.sequence)])?;
    Ok(())
}

// ---- dropping bodies ---------------------------------------------------------------------------

pub(super) fn drop_bodies(
    connection: &Connection,
    id: ConversationId,
    entries: &[EntryId],
) -> rusqlite::Result<()> {
    if entries.len() > BODIES_DROPPED_MAX {
        return Err(refused(EntriesRefusal::TooMany));
    }
    let Some(number) = conversation(connection, id)? else {
        return Ok(());
    };
    for entry in entries {
        if let Some(chain) = chain(connection, number, &entry.chain)? {
            drop_body(connection, &chain, entry.sequence)?;
        }
    }
    Ok(())
}

/// Drops the body of an entry that controls nothing, which is then neither shown nor written again.
fn drop_body(connection: &Connection, chain: &ChainRow, place: Sequence) -> rusqlite::Result<()> {
    remove_message(connection, chain, place)?;
    for statement in [
        "UPDATE entries SET body = NULL
         WHERE chain = ?1 AND sequence = ?2 AND kind < 128 AND body IS NOT NULL",
        "UPDATE rewrites SET kind = NULL, body = NULL
         WHERE chain = ?1 AND sequence = ?2 AND kind < 128",
    ] {
        connection
            .prepare_cached(statement)?
            .execute(params![chain.number, number(place)])?;
    }
    Ok(())
}

pub(super) fn forget(
    connection: &Connection,
    id: ConversationId,
    after: Option<ShownAt>,
    before: Option<ShownAt>,
) -> rusqlite::Result<EntriesAnswer> {
    let Some(number) = conversation(connection, id)? else {
        return Ok(EntriesAnswer::Forgotten { next: None });
    };
    let span = Span { after, before };
    let places = reading::places(connection, number, &span, BODIES_DROPPED_MAX)?;
    for place in &places {
        if let Some(chain) = chain(connection, number, &place.id().chain)? {
            drop_body(connection, &chain, place.id().sequence)?;
        }
    }
    let is_whole = places.len() < BODIES_DROPPED_MAX;
    let next = places.last().copied().filter(|_| !is_whole);
    Ok(EntriesAnswer::Forgotten { next })
}
