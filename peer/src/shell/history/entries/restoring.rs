//! What a start begins with, and an end leaves.

use std::path::Path;

use common::limits::{
    CHAINS_READ_MAX, CONVERSATIONS_MAX, CONVERSATIONS_READ_MAX, CUTS_READ_MAX, FORKS_READ_MAX,
    LOST_READ_MAX, UNSEALED_ENTRIES_MAX,
};
use common::log::{Body, ChainId, Clock, ConversationId, ForkProof, Kind, RunId, Seal, Sequence};
use common::os::instance;
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::columns::{self, Damage, damaged};
use super::{ChainRow, chain_of, conversation, number, proof, refused};
use crate::log::{CleanMark, Entry, Instance, StoredChain, Tip, Unsealed};
use crate::node::io::EntriesAnswer;
use crate::node::io::entries::{
    Arrival, EntriesRefusal, LostEntry, Part, StoredConversation, StoredCut,
};

// ---- marks -------------------------------------------------------------------------------------

pub(super) fn take_marks(connection: &Connection) -> rusqlite::Result<EntriesAnswer> {
    let mut statement = connection.prepare_cached(
        "SELECT id, marks.run, last, hash, instance FROM marks
         JOIN conversations ON number = conversation ORDER BY id",
    )?;
    let marks = statement.query_map([], |row| {
        Ok((columns::conversation_id(row, 0)?, mark(row)?))
    });
    let marks = marks?.collect::<Result<_, _>>()?;
    forget_marks(connection)?;
    let instance = instance(connection)?;
    Ok(EntriesAnswer::Marks { instance, marks })
}

fn mark(row: &Row<'_>) -> rusqlite::Result<CleanMark> {
    Ok(CleanMark {
        run: RunId::from_bytes(row.get(1)?),
        last: columns::sequence(row, 2)?,
        hash: columns::header_hash(row, 3)?,
        instance: Instance(row.get(4)?),
    })
}

/// Forgets the marks: somebody has written into the file, or is about to.
pub(in crate::shell::history) fn forget_marks(connection: &Connection) -> rusqlite::Result<()> {
    connection
        .prepare_cached("DELETE FROM marks")?
        .execute([])?;
    Ok(())
}

/// This file on this machine.
pub(super) fn instance(connection: &Connection) -> rusqlite::Result<Instance> {
    let id = connection
        .prepare_cached("SELECT id FROM file")?
        .query_row([], |row| row.get(0))?;
    // A database in memory has no path, and ends with the program.
    let path = connection.path().filter(|path| !path.is_empty());
    let instance = path.map(|path| instance::of_file(Path::new(path), &id));
    let instance = instance.unwrap_or(Ok(id));
    instance
        .map(Instance)
        .map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))
}

pub(super) fn set_marks(
    connection: &Connection,
    marks: &[(ConversationId, CleanMark)],
) -> rusqlite::Result<()> {
    if marks.len() > CONVERSATIONS_MAX {
        return Err(refused(EntriesRefusal::TooMany));
    }
    forget_marks(connection)?;
    for (id, mark) in marks {
        let number = conversation(connection, *id)?;
        let number = number.ok_or_else(|| refused(EntriesRefusal::NotOpen))?;
        connection
            .prepare_cached(
                "REPLACE INTO marks (conversation, run, last, hash, instance)
                 VALUES (?1, ?2, ?3, ?4, ?5)",
            )?
            .execute(params![
                number,
                mark.run.as_bytes(),
                super::number(mark.last),
                mark.hash.as_bytes(),
                mark.instance.0,
            ])?;
    }
    Ok(())
}

// ---- conversations -----------------------------------------------------------------------------

pub(super) fn conversations(
    connection: &Connection,
    after: Option<ConversationId>,
) -> rusqlite::Result<EntriesAnswer> {
    let mut statement = connection.prepare_cached(
        "SELECT id, kind, account, run FROM conversations WHERE id > ?1 ORDER BY id LIMIT ?2",
    )?;
    let after: &[u8] = after.as_ref().map_or(&[], |id| id.as_bytes());
    let rows = statement.query_map(params![after, limit(CONVERSATIONS_READ_MAX)], stored)?;
    let rows: Vec<StoredConversation> = rows.collect::<Result<_, _>>()?;
    let part = part(rows, CONVERSATIONS_READ_MAX, |last| last.id);
    Ok(EntriesAnswer::Conversations(part))
}

fn stored(row: &Row<'_>) -> rusqlite::Result<StoredConversation> {
    let run: Option<[u8; RunId::LEN]> = row.get(3)?;
    Ok(StoredConversation {
        id: columns::conversation_id(row, 0)?,
        kind: columns::conversation_kind(row, 1)?,
        run: run.map(RunId::from_bytes),
    })
}

// ---- chains ------------------------------------------------------------------------------------

pub(super) fn chains(
    connection: &Connection,
    id: ConversationId,
    after: Option<ChainId>,
) -> rusqlite::Result<EntriesAnswer> {
    let mut statement = connection.prepare_cached(
        "SELECT device, run, number, base, before, sealed, sent, delivered, read FROM chains
         WHERE conversation = ?1 AND (device, run) > (?2, ?3) ORDER BY device, run LIMIT ?4",
    )?;
    let (device, run) = place_after(after.as_ref());
    let limit = limit(CHAINS_READ_MAX);
    let number = conversation(connection, id)?;
    let rows = statement.query_map(params![number, device, run, limit], |row| {
        let chain = ChainRow {
            number: row.get(2)?,
            base: columns::sequence(row, 3)?,
            before: columns::header_hash(row, 4)?,
            sealed: columns::sequence(row, 5)?,
            reached: columns::reached(row, 6)?,
        };
        Ok((columns::chain_id(row, 0)?, chain))
    })?;
    let mut chains = Vec::new();
    for row in rows {
        let (id, chain) = row?;
        chains.push((id, stored_chain(connection, &chain)?, chain.reached));
    }
    let part = part(chains, CHAINS_READ_MAX, |(last, _, _)| *last);
    Ok(EntriesAnswer::Chains(part))
}

/// The columns of a chain to begin behind: less than any if there is none.
fn place_after(after: Option<&ChainId>) -> (&[u8], &[u8]) {
    after.map_or((&[], &[]), |chain| {
        (chain.device.as_bytes(), chain.run.as_bytes())
    })
}

fn stored_chain(connection: &Connection, chain: &ChainRow) -> rusqlite::Result<StoredChain> {
    let first = end(connection, chain, chain.base)?;
    let (sealed, seal) = if chain.sealed == Sequence::START {
        (Tip::START, None)
    } else {
        let sealed = end(connection, chain, chain.sealed)?;
        let (sealed, seal) = sealed.ok_or_else(|| damaged(Damage::Gap))?;
        (sealed.tip, seal)
    };
    Ok(StoredChain {
        base: chain.base,
        before: chain.before,
        base_placed: first.map_or(Clock::default(), |(first, _)| first.tip.placed),
        sealed,
        seal,
        unsealed: unsealed(connection, chain)?,
    })
}

/// Selects what [`end_of`] reads.
macro_rules! select_ends {
    ($clauses:expr) => {
        concat!(
            "SELECT clock, kind, body_len, body_hash, placed, hash, sequence, seal FROM entries
             WHERE chain = ?1 AND ",
            $clauses
        )
    };
}

/// The entry at a place, and its seal.
fn end(
    connection: &Connection,
    chain: &ChainRow,
    place: Sequence,
) -> rusqlite::Result<Option<(Unsealed, Option<Seal>)>> {
    connection
        .prepare_cached(select_ends!("sequence = ?2"))?
        .query_row(params![chain.number, number(place)], end_of)
        .optional()
}

fn unsealed(connection: &Connection, chain: &ChainRow) -> rusqlite::Result<Vec<Unsealed>> {
    let mut statement =
        connection.prepare_cached(select_ends!("sequence > ?2 ORDER BY sequence LIMIT ?3"))?;
    let one_too_many = limit(UNSEALED_ENTRIES_MAX + 1);
    let params = params![chain.number, number(chain.sealed), one_too_many];
    let rows = statement.query_map(params, end_of)?;
    let mut unsealed: Vec<Unsealed> = Vec::new();
    for row in rows {
        let (entry, _) = row?;
        if entry.tip.sequence != chain.sealed.plus(unsealed.len() + 1) {
            return Err(damaged(Damage::Gap));
        }
        unsealed.push(entry);
    }
    if unsealed.len() > UNSEALED_ENTRIES_MAX {
        return Err(damaged(Damage::Unsealed));
    }
    Ok(unsealed)
}

fn end_of(row: &Row<'_>) -> rusqlite::Result<(Unsealed, Option<Seal>)> {
    let entry = Entry {
        outline: columns::outline(row)?,
        body: None,
    };
    let sequence = columns::sequence(row, 6)?;
    let unsealed = Unsealed {
        tip: Tip {
            sequence,
            hash: columns::header_hash(row, 5)?,
            clock: entry.outline.clock,
            placed: columns::clock(row, 4)?,
        },
        cost: entry.cost(),
    };
    Ok((unsealed, columns::seal(row, 7, sequence)?))
}

// ---- forks, cuts and what is lost --------------------------------------------------------------

pub(super) fn forks(
    connection: &Connection,
    id: ConversationId,
    after: Option<ChainId>,
) -> rusqlite::Result<EntriesAnswer> {
    let mut statement = connection.prepare_cached(
        "SELECT device, run, proof FROM chains JOIN forks ON chain = number
         WHERE conversation = ?1 AND (device, run) > (?2, ?3) ORDER BY device, run LIMIT ?4",
    )?;
    let (device, run) = place_after(after.as_ref());
    let limit = limit(FORKS_READ_MAX);
    let number = conversation(connection, id)?;
    let rows = statement.query_map(params![number, device, run, limit], |row| {
        fork_proof(id, columns::chain_id(row, 0)?, row, 2)
    })?;
    let proofs = rows.collect::<Result<Vec<_>, _>>()?;
    let part = part(proofs, FORKS_READ_MAX, |last: &ForkProof| last.chain);
    Ok(EntriesAnswer::Forks(part))
}

pub(super) fn fork(
    connection: &Connection,
    id: ConversationId,
    chain: &ChainId,
) -> rusqlite::Result<EntriesAnswer> {
    let Some(row) = chain_of(connection, id, chain)? else {
        return Ok(EntriesAnswer::Fork(None));
    };
    let proof = connection
        .prepare_cached("SELECT proof FROM forks WHERE chain = ?1")?
        .query_row([row.number], |row| fork_proof(id, *chain, row, 0))
        .optional()?;
    Ok(EntriesAnswer::Fork(proof.map(Box::new)))
}

fn fork_proof(
    conversation: ConversationId,
    chain: ChainId,
    row: &Row<'_>,
    column: usize,
) -> rusqlite::Result<ForkProof> {
    let bytes: Vec<u8> = row.get(column)?;
    let proof = proof::from_bytes(conversation, chain, &bytes);
    proof.ok_or_else(|| damaged(Damage::Proof))
}

pub(super) fn cuts(
    connection: &Connection,
    id: ConversationId,
    after: Option<Arrival>,
) -> rusqlite::Result<EntriesAnswer> {
    let mut statement = connection.prepare_cached(
        "SELECT clock, kind, body_len, body_hash, body, device, chains.run, sequence, entries.number
         FROM entries INDEXED BY entries_cuts CROSS JOIN chains ON chains.number = chain
         WHERE entries.conversation = ?1 AND kind = 134 AND entries.number > ?2
         ORDER BY entries.number LIMIT ?3",
    )?;
    let after = after.map_or(0, |after| after.0.cast_signed());
    let number = conversation(connection, id)?;
    let rows = statement.query_map(params![number, after, limit(CUTS_READ_MAX)], |row| {
        let arrival = Arrival(row.get::<_, i64>(8)?.cast_unsigned());
        Ok((cut(row)?, arrival))
    })?;
    let rows = rows.collect::<Result<Vec<_>, _>>()?;
    let Part { items, next } = part(rows, CUTS_READ_MAX, |(_, last)| *last);
    let items = items.into_iter().filter_map(|(cut, _)| cut).collect();
    Ok(EntriesAnswer::Cuts(Part { items, next }))
}

/// `None` if the entry says nothing, because its body is not one of its kind.
fn cut(row: &Row<'_>) -> rusqlite::Result<Option<StoredCut>> {
    let entry = columns::entry(row)?;
    let by = columns::entry_id(row, 5)?;
    let body = entry.body.as_deref().unwrap_or_default();
    let Ok(Body::Cut(target)) = Body::parse(entry.outline.kind, body) else {
        return Ok(None);
    };
    Ok(Some(StoredCut {
        by,
        clock: entry.outline.clock,
        target,
    }))
}

pub(super) fn lost(connection: &Connection, id: ConversationId) -> rusqlite::Result<EntriesAnswer> {
    let mut statement = connection.prepare_cached(
        "SELECT device, run, sequence, kind, body
         FROM rewrites INDEXED BY rewrites_lost CROSS JOIN chains ON chains.number = chain
         WHERE conversation = ?1 AND body IS NOT NULL ORDER BY chain, sequence LIMIT ?2",
    )?;
    let number = conversation(connection, id)?;
    let rows = statement.query_map(params![number, limit(LOST_READ_MAX)], |row| {
        Ok(LostEntry {
            id: columns::entry_id(row, 0)?,
            kind: Kind(row.get(3)?),
            body: row.get(4)?,
        })
    })?;
    Ok(EntriesAnswer::Lost(rows.collect::<Result<_, _>>()?))
}

// ---- parts of lists ----------------------------------------------------------------------------

fn limit(max: usize) -> i64 {
    i64::try_from(max).unwrap_or(i64::MAX)
}

/// What was read with a limit, and where to go on if that was met.
fn part<T, After>(items: Vec<T>, max: usize, place: impl Fn(&T) -> After) -> Part<T, After> {
    let last = items.last().filter(|_| items.len() == max);
    let next = last.map(place);
    Part { items, next }
}
