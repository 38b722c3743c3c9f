//! What columns of messages mean.

use common::os::sqlite::malformed;
use common::time::UnixTime;
use common::wire::peer::MessageBody;
use rusqlite::types::FromSqlError;
use rusqlite::{Connection, Row};

use crate::node::command::{Cursor, Direction, MessageState};

/// The last number that was given to a message.
pub(super) fn last_number(connection: &Connection) -> rusqlite::Result<i64> {
    connection
        .prepare_cached(
            "SELECT max(coalesce((SELECT max(number) FROM messages), 0), number) FROM taken_back",
        )?
        .query_row([], |row| row.get(0))
}

pub(super) fn body(row: &Row<'_>, column: usize) -> rusqlite::Result<MessageBody> {
    let text: String = row.get(column)?;
    MessageBody::try_from(text).map_err(|error| malformed(column, error))
}

pub(super) fn cursor(row: &Row<'_>, column: usize) -> rusqlite::Result<Cursor> {
    let number: i64 = row.get(column)?;
    Ok(Cursor(number.cast_unsigned()))
}

pub(super) fn unix_time(row: &Row<'_>, column: usize) -> rusqlite::Result<UnixTime> {
    let millis: i64 = row.get(column)?;
    Ok(UnixTime::from_millis(millis.cast_unsigned()))
}

pub(super) fn direction(row: &Row<'_>, column: usize) -> rusqlite::Result<Direction> {
    match row.get(column)? {
        0_i64 => Ok(Direction::Sent),
        1 => Ok(Direction::Received),
        other => Err(malformed(column, FromSqlError::OutOfRange(other))),
    }
}

pub(super) fn state(row: &Row<'_>, column: usize) -> rusqlite::Result<MessageState> {
    match row.get(column)? {
        0_i64 => Ok(MessageState::Queued),
        1 => Ok(MessageState::Sent),
        2 => Ok(MessageState::Delivered),
        3 => Ok(MessageState::Read),
        other => Err(malformed(column, FromSqlError::OutOfRange(other))),
    }
}

pub(super) const fn direction_code(direction: Direction) -> i64 {
    match direction {
        Direction::Sent => 0,
        Direction::Received => 1,
    }
}

pub(super) const fn state_code(state: MessageState) -> i64 {
    match state {
        MessageState::Queued => 0,
        MessageState::Sent => 1,
        MessageState::Delivered => 2,
        MessageState::Read => 3,
    }
}

pub(super) const fn millis(time: UnixTime) -> i64 {
    time.as_millis().cast_signed()
}
