//! Pages, stretches, and what is shown.

use std::ops::RangeInclusive;

use common::limits::{
    ENTRIES_PER_SEAL_MAX, HISTORY_ITEMS_LEN_MAX, HISTORY_ITEMS_MAX, PAGE_ENTRIES_MAX, PAGE_LEN_MAX,
    STRETCH_READ_MAX,
};
use common::log::{
    ChainId, ConversationId, EntryId, HeaderHash, Outline, RunId, Seal, Sequence, Stretch, chained,
};
use rusqlite::{CachedStatement, Connection, OptionalExtension, Row as SqlRow, params};

use super::columns::{self, Damage, ENTRY_COLUMNS, damaged, entry_columns, ordered};
use super::{ChainRow, chain_of, conversation, hash_at, number};
use crate::log::{Entry, OwnStretch, PageEnd, PageRequest, Row, ShownAt};
use crate::node::io::EntriesAnswer;
use crate::node::io::entries::{Arrival, ShownEntry, ShownQuery, SpanEnd};

// ---- pages -------------------------------------------------------------------------------------

pub(super) fn page(
    connection: &Connection,
    request: &PageRequest,
) -> rusqlite::Result<EntriesAnswer> {
    let nothing = EntriesAnswer::Page {
        previous: HeaderHash::NONE,
        rows: Vec::new(),
    };
    let Some(chain) = chain_of(connection, request.conversation, &request.chain)? else {
        return Ok(nothing);
    };
    let Some(previous) = hash_before(connection, &chain, request.first)? else {
        return Ok(nothing);
    };
    let read = match request.end {
        PageEnd::Before => rows_before(connection, &chain, request)?,
        PageEnd::Seal(_) | PageEnd::Known | PageEnd::Anywhere => {
            rows_after(connection, &chain, request)?
        }
    };
    if read.is_empty() {
        return Ok(nothing);
    }
    let (hashes, rows): (Vec<_>, Vec<Row>) = read.into_iter().unzip();
    let outlines = rows.iter().map(|row| &row.entry.outline);
    let PageRequest {
        conversation,
        chain,
        first,
        ..
    } = *request;
    if hashes != chained(conversation, chain, first, previous, outlines) {
        return Err(damaged(Damage::Header));
    }
    Ok(EntriesAnswer::Page { previous, rows })
}

/// The hash of the header before a place; `None` if the entry there is not kept.
fn hash_before(
    connection: &Connection,
    chain: &ChainRow,
    first: Sequence,
) -> rusqlite::Result<Option<HeaderHash>> {
    if first == chain.base {
        Ok(Some(chain.before))
    } else if first > chain.base {
        hash_at(connection, chain, first.previous())
    } else {
        Ok(None)
    }
}

/// The first entries from a place on, as many as a page holds, with the hashes of their headers.
fn rows_after(
    connection: &Connection,
    chain: &ChainRow,
    request: &PageRequest,
) -> rusqlite::Result<Vec<(HeaderHash, Row)>> {
    let mut statement = connection.prepare_cached(concat!(
        "SELECT ",
        entry_columns!(),
        ", hash, seal, sequence FROM entries
         WHERE chain = ?1 AND sequence BETWEEN ?2 AND ?3 ORDER BY sequence LIMIT ?4"
    ))?;
    let mut rows = statement.query(page_params(chain, request))?;
    let mut read = Vec::new();
    let mut cost = 0;
    while let Some(row) = rows.next()? {
        cost += cost_of(row)?;
        if cost > PAGE_LEN_MAX {
            break;
        }
        read.push(page_row(row, columns::entry(row)?)?);
    }
    Ok(read)
}

/// The entries of a whole span, without the bodies of the first ones if all together are too long.
fn rows_before(
    connection: &Connection,
    chain: &ChainRow,
    request: &PageRequest,
) -> rusqlite::Result<Vec<(HeaderHash, Row)>> {
    let mut statement = connection.prepare_cached(concat!(
        "SELECT ",
        entry_columns!(),
        ", hash, seal, sequence FROM entries
         WHERE chain = ?1 AND sequence BETWEEN ?2 AND ?3 ORDER BY sequence DESC LIMIT ?4"
    ))?;
    if request.until.since(request.first) >= PAGE_ENTRIES_MAX as u64 {
        return Ok(Vec::new());
    }
    let mut rows = statement.query(page_params(chain, request))?;
    let mut read = Vec::new();
    let mut cost = 0;
    while let Some(row) = rows.next()? {
        cost += cost_of(row)?;
        let entry = if cost > PAGE_LEN_MAX {
            without_body(columns::outline(row)?)
        } else {
            columns::entry(row)?
        };
        read.push(page_row(row, entry)?);
    }
    read.reverse();
    Ok(read)
}

fn page_params(chain: &ChainRow, request: &PageRequest) -> [i64; 4] {
    [
        chain.number,
        number(request.first),
        number(request.until),
        PAGE_ENTRIES_MAX as i64,
    ]
}

fn cost_of(row: &SqlRow<'_>) -> rusqlite::Result<usize> {
    Ok(without_body(columns::outline(row)?).cost())
}

const fn without_body(outline: Outline) -> Entry {
    Entry {
        outline,
        body: None,
    }
}

fn page_row(row: &SqlRow<'_>, entry: Entry) -> rusqlite::Result<(HeaderHash, Row)> {
    let hash = columns::header_hash(row, ENTRY_COLUMNS)?;
    let sequence = columns::sequence(row, ENTRY_COLUMNS + 2)?;
    let seal = columns::seal(row, ENTRY_COLUMNS + 1, sequence)?;
    Ok((hash, Row { entry, seal }))
}

// ---- stretches ---------------------------------------------------------------------------------

pub(super) fn own_stretch(
    connection: &Connection,
    id: ConversationId,
    chain_id: &ChainId,
    places: RangeInclusive<Sequence>,
) -> rusqlite::Result<EntriesAnswer> {
    let (first, last) = places.into_inner();
    let nothing = OwnStretch {
        previous: HeaderHash::NONE,
        headers: Vec::new(),
    };
    let Some(chain) = chain_of(connection, id, chain_id)? else {
        return Ok(EntriesAnswer::OwnStretch(nothing));
    };
    let Some(previous) = hash_before(connection, &chain, first)? else {
        return Ok(EntriesAnswer::OwnStretch(nothing));
    };
    let headers = headers(connection, &chain, first, last, STRETCH_READ_MAX)?;
    Ok(EntriesAnswer::OwnStretch(OwnStretch { previous, headers }))
}

pub(super) fn stretch(
    connection: &Connection,
    id: ConversationId,
    at: EntryId,
) -> rusqlite::Result<EntriesAnswer> {
    let stretch = match chain_of(connection, id, &at.chain)? {
        Some(chain) if at.sequence >= chain.base => stretch_at(connection, &chain, at.sequence)?,
        Some(_) | None => None,
    };
    Ok(EntriesAnswer::Stretch(stretch))
}

fn stretch_at(
    connection: &Connection,
    chain: &ChainRow,
    place: Sequence,
) -> rusqlite::Result<Option<Stretch>> {
    let first = seal_before(connection, chain, place)?.map_or(chain.base, Sequence::next);
    if place.since(first) >= ENTRIES_PER_SEAL_MAX as u64 {
        return Ok(None);
    }
    let headers = headers(connection, chain, first, place, ENTRIES_PER_SEAL_MAX)?;
    let seal = headers.last().and_then(|(_, seal)| *seal);
    let previous = hash_before(connection, chain, first)?;
    let (Some(seal), Some(previous)) = (seal.filter(|seal| seal.sequence >= place), previous)
    else {
        return Ok(None);
    };
    Ok(Some(Stretch {
        first,
        previous,
        outlines: headers.into_iter().map(|(outline, _)| outline).collect(),
        seal,
    }))
}

/// The last place with a seal before another, if that is not too far away for a stretch.
fn seal_before(
    connection: &Connection,
    chain: &ChainRow,
    place: Sequence,
) -> rusqlite::Result<Option<Sequence>> {
    let mut statement = connection.prepare_cached(
        "SELECT sequence FROM entries
         WHERE chain = ?1 AND sequence BETWEEN ?2 AND ?3 AND seal IS NOT NULL
         ORDER BY sequence DESC LIMIT 1",
    )?;
    let earliest = place
        .number()
        .saturating_sub(ENTRIES_PER_SEAL_MAX as u64)
        .max(chain.base.number());
    statement
        .query_row(
            [
                chain.number,
                earliest.cast_signed(),
                number(place.previous()),
            ],
            |row| columns::sequence(row, 0),
        )
        .optional()
}

/// Headers from a place on, to the first seal that is not before `last`.
fn headers(
    connection: &Connection,
    chain: &ChainRow,
    first: Sequence,
    last: Sequence,
    max: usize,
) -> rusqlite::Result<Vec<(Outline, Option<Seal>)>> {
    let mut statement = connection.prepare_cached(
        "SELECT clock, kind, body_len, body_hash, seal, sequence FROM entries
         WHERE chain = ?1 AND sequence >= ?2 ORDER BY sequence LIMIT ?3",
    )?;
    let mut rows = statement.query(params![chain.number, number(first), max as i64])?;
    let mut headers = Vec::new();
    while let Some(row) = rows.next()? {
        let place = columns::sequence(row, 5)?;
        if place != first.plus(headers.len()) {
            return Err(damaged(Damage::Gap));
        }
        let seal = columns::seal(row, 4, place)?;
        headers.push((columns::outline(row)?, seal));
        if seal.is_some() && place >= last {
            break;
        }
    }
    Ok(headers)
}

pub(super) fn hash(
    connection: &Connection,
    id: ConversationId,
    at: EntryId,
) -> rusqlite::Result<EntriesAnswer> {
    let hash = match chain_of(connection, id, &at.chain)? {
        Some(chain) => hash_at(connection, &chain, at.sequence)?,
        None => None,
    };
    Ok(EntriesAnswer::Hash(hash))
}

// ---- what is shown -----------------------------------------------------------------------------

/// A part of what is shown: its ends are not in it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Span {
    pub(super) after: Option<ShownAt>,
    pub(super) before: Option<ShownAt>,
}

/// Selects from a span, in order. The clock alone finds the rows; what has the same one stands in the order of devices,
/// runs and places.
macro_rules! select_span {
    ($columns:expr, $end:tt) => {
        concat!(
            "SELECT ",
            $columns,
            ", device, chains.run, sequence, placed, dating, entries.number, is_written_here
             FROM entries INDEXED BY entries_shown CROSS JOIN chains ON chains.number = chain
             WHERE entries.conversation = ?1 AND placed BETWEEN ?2 AND ?6
             AND (placed, device, chains.run, sequence) > (?2, ?3, ?4, ?5)
             AND (placed, device, chains.run, sequence) < (?6, ?7, ?8, ?9)
             ORDER BY placed ",
            $end,
            ", device ",
            $end,
            ", chains.run ",
            $end,
            ", sequence ",
            $end,
            " LIMIT ?10"
        )
    };
}

pub(super) fn shown(
    connection: &Connection,
    query: &ShownQuery,
) -> rusqlite::Result<EntriesAnswer> {
    let Some(number) = conversation(connection, query.conversation)? else {
        return Ok(EntriesAnswer::Shown(Vec::new()));
    };
    let mut statement = match query.end {
        SpanEnd::First => connection.prepare_cached(select_span!(entry_columns!(), "ASC"))?,
        SpanEnd::Last => connection.prepare_cached(select_span!(entry_columns!(), "DESC"))?,
    };
    let span = Span {
        after: query.after,
        before: query.before,
    };
    let limit = query.limit.min(HISTORY_ITEMS_MAX);
    let mut rows = span.query(&mut statement, number, limit)?;
    let mut entries = Vec::new();
    let mut len = 0;
    while let Some(row) = rows.next()? {
        let entry = shown_entry(row)?;
        len += entry.entry.body.as_ref().map_or(0, Vec::len);
        entries.push(entry);
        if len >= HISTORY_ITEMS_LEN_MAX {
            break;
        }
    }
    if query.end == SpanEnd::Last {
        entries.reverse();
    }
    Ok(EntriesAnswer::Shown(entries))
}

fn shown_entry(row: &SqlRow<'_>) -> rusqlite::Result<ShownEntry> {
    let arrival: i64 = row.get(ENTRY_COLUMNS + 5)?;
    Ok(ShownEntry {
        id: columns::entry_id(row, ENTRY_COLUMNS)?,
        arrival: Arrival(arrival.cast_unsigned()),
        placed: columns::placed(row, ENTRY_COLUMNS + 3)?,
        entry: columns::entry(row)?,
        is_written_here: row.get(ENTRY_COLUMNS + 6)?,
    })
}

/// The first places of a span.
pub(super) fn places(
    connection: &Connection,
    conversation: i64,
    span: &Span,
    max: usize,
) -> rusqlite::Result<Vec<ShownAt>> {
    let mut statement = connection.prepare_cached(select_span!("NULL", "ASC"))?;
    let limit = u32::try_from(max).unwrap_or(u32::MAX);
    let mut rows = span.query(&mut statement, conversation, limit)?;
    let mut places = Vec::new();
    while let Some(row) = rows.next()? {
        let at = columns::placed(row, 4)?.at;
        places.push(ShownAt::new(columns::entry_id(row, 1)?, at));
    }
    Ok(places)
}

impl Span {
    fn query<'s>(
        &self,
        statement: &'s mut CachedStatement<'_>,
        conversation: i64,
        limit: u32,
    ) -> rusqlite::Result<rusqlite::Rows<'s>> {
        // Less than any device and run, and more than any.
        let (least, most) = (Vec::new(), vec![0xff; DEVICE_LEN + 1]);
        let after = self.after.map_or((i64::MIN, least.clone(), least, 0), end);
        let before = self
            .before
            .map_or((i64::MAX, most.clone(), most, i64::MAX), end);
        statement.query(params![
            conversation,
            after.0,
            after.1,
            after.2,
            after.3,
            before.0,
            before.1,
            before.2,
            before.3,
            limit
        ])
    }
}

/// Length of a device key, which is more than that of a run.
const DEVICE_LEN: usize = 32;
const _: () = assert!(RunId::LEN < DEVICE_LEN, "one bound is more than either");

/// The columns of a place.
fn end(at: ShownAt) -> (i64, Vec<u8>, Vec<u8>, i64) {
    let id = at.id();
    (
        ordered(at.placed()),
        id.chain.device.as_bytes().to_vec(),
        id.chain.run.as_bytes().to_vec(),
        number(id.sequence),
    )
}
