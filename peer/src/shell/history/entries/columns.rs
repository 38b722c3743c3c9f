//! What columns mean: each is read as what it is to be, or refused.

use common::key::{DeviceKey, Signature};
use common::limits::ENTRY_BODY_LEN_MAX;
use common::log::{
    BodyHash, ChainId, Clock, ConversationId, Dating, EntryId, HeaderHash, Kind, Outline, RunId,
    Seal, Sequence,
};
use common::os::sqlite::{malformed, parse_column};
use rusqlite::Row;
use rusqlite::types::{FromSqlError, ValueRef};

use crate::log::{Entry, Placed};
use crate::node::io::entries::{ConversationKind, Reached};

/// What a row cannot be, though each of its columns can.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Damage {
    /// The body is longer or shorter than the outline says, or hashes to something else.
    #[error("the body of an entry is damaged")]
    Body,
    /// An entry's header does not hash to what is kept.
    #[error("the header of an entry is damaged")]
    Header,
    /// An entry is missing between others, or at the end that a chain is said to have.
    #[error("an entry of a chain is missing")]
    Gap,
    /// More entries than may be have no seal.
    #[error("the end of a chain is damaged")]
    Unsealed,
    /// The bytes are no proof of a fork.
    #[error("the proof of a fork is damaged")]
    Proof,
    /// A message is of an entry that is not there.
    #[error("the entry of a message is missing")]
    Message,
    /// A conversation is with nobody.
    #[error("a conversation is damaged")]
    Conversation,
}

/// The error of a damaged row.
pub(super) fn damaged(damage: Damage) -> rusqlite::Error {
    malformed(0, damage)
}

/// What [`entry`] reads, in the first columns of a row.
macro_rules! entry_columns {
    () => {
        "clock, kind, body_len, body_hash, body"
    };
}
pub(super) use entry_columns;

/// The columns that [`entry_columns`] takes.
pub(super) const ENTRY_COLUMNS: usize = 5;

/// Reads an entry and checks that its body is the one of its outline.
pub(super) fn entry(row: &Row<'_>) -> rusqlite::Result<Entry> {
    let outline = outline(row)?;
    let body: Option<Vec<u8>> = row.get(4)?;
    if body.as_ref().is_some_and(|body| !outline.is_of(body)) {
        return Err(damaged(Damage::Body));
    }
    Ok(Entry { outline, body })
}

/// The same without the body.
pub(super) fn outline(row: &Row<'_>) -> rusqlite::Result<Outline> {
    let body_len: u32 = row.get(2)?;
    if body_len as usize > ENTRY_BODY_LEN_MAX {
        return Err(malformed(2, FromSqlError::OutOfRange(body_len.into())));
    }
    Ok(Outline {
        clock: clock(row, 0)?,
        kind: Kind(row.get(1)?),
        body_len,
        body_hash: BodyHash::from_bytes(row.get(3)?),
    })
}

pub(super) fn sequence(row: &Row<'_>, column: usize) -> rusqlite::Result<Sequence> {
    let number: i64 = row.get(column)?;
    let sequence = u64::try_from(number).ok().and_then(Sequence::new);
    sequence.ok_or_else(|| malformed(column, FromSqlError::OutOfRange(number)))
}

pub(super) fn header_hash(row: &Row<'_>, column: usize) -> rusqlite::Result<HeaderHash> {
    row.get(column).map(HeaderHash::from_bytes)
}

pub(super) fn conversation_id(row: &Row<'_>, column: usize) -> rusqlite::Result<ConversationId> {
    row.get(column).map(ConversationId::from_bytes)
}

/// A device and a run, in two columns.
pub(super) fn chain_id(row: &Row<'_>, column: usize) -> rusqlite::Result<ChainId> {
    let device = DeviceKey::from_bytes(row.get(column)?);
    Ok(ChainId {
        device: device.map_err(|error| malformed(column, error))?,
        run: RunId::from_bytes(row.get(column + 1)?),
    })
}

/// A device, a run and a sequence, in three columns.
pub(super) fn entry_id(row: &Row<'_>, column: usize) -> rusqlite::Result<EntryId> {
    Ok(EntryId {
        chain: chain_id(row, column)?,
        sequence: sequence(row, column + 2)?,
    })
}

/// The seal of the entry at a place, if one is kept.
pub(super) fn seal(
    row: &Row<'_>,
    column: usize,
    sequence: Sequence,
) -> rusqlite::Result<Option<Seal>> {
    let signature: Option<[u8; 64]> = row.get(column)?;
    Ok(signature.map(|signature| Seal {
        sequence,
        signature: Signature::from_bytes(signature),
    }))
}

/// How far a chain has got, in three columns.
pub(super) fn reached(row: &Row<'_>, column: usize) -> rusqlite::Result<Reached> {
    Ok(Reached {
        sent: sequence(row, column)?,
        delivered: sequence(row, column + 1)?,
        read: sequence(row, column + 2)?,
    })
}

/// What a conversation is, in two columns.
pub(super) fn conversation_kind(
    row: &Row<'_>,
    column: usize,
) -> rusqlite::Result<ConversationKind> {
    let has_account = row.get_ref(column + 1)? != ValueRef::Null;
    match row.get(column)? {
        DIRECT | NOTES if !has_account => Err(damaged(Damage::Conversation)),
        DIRECT => Ok(ConversationKind::Direct(parse_column(row, column + 1)?)),
        NOTES => Ok(ConversationKind::Notes(parse_column(row, column + 1)?)),
        other => Err(malformed(column, FromSqlError::OutOfRange(other))),
    }
}

pub(super) const fn conversation_kind_code(kind: &ConversationKind) -> i64 {
    match kind {
        ConversationKind::Direct(_) => DIRECT,
        ConversationKind::Notes(_) => NOTES,
    }
}

/// With another account.
const DIRECT: i64 = 0;
/// An account's notes.
const NOTES: i64 = 1;

/// Where an entry is shown and why, in two columns.
pub(super) fn placed(row: &Row<'_>, column: usize) -> rusqlite::Result<Placed> {
    let code = row.get(column + 1)?;
    let out_of_range = || malformed(column + 1, FromSqlError::OutOfRange(code));
    Ok(Placed {
        at: clock(row, column)?,
        dating: dating(code).ok_or_else(out_of_range)?,
    })
}

pub(super) const fn dating(code: i64) -> Option<Dating> {
    Some(match code {
        0 => Dating::Plausible,
        1 => Dating::Ahead,
        2 => Dating::TooOld,
        _ => return None,
    })
}

pub(super) const fn dating_code(dating: Dating) -> i64 {
    match dating {
        Dating::Plausible => 0,
        Dating::Ahead => 1,
        Dating::TooOld => 2,
    }
}

pub(super) fn clock(row: &Row<'_>, column: usize) -> rusqlite::Result<Clock> {
    let ordered: i64 = row.get(column)?;
    Ok(Clock::from_bits(ordered.cast_unsigned() ^ SIGN))
}

/// A clock as a column has it: in the order of clocks, whoever has written whatever into them.
pub(in crate::shell::history) const fn ordered(clock: Clock) -> i64 {
    (clock.to_bits() ^ SIGN).cast_signed()
}

const SIGN: u64 = 1 << 63;
