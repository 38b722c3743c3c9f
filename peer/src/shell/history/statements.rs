//! The schema of the history, and each request in SQL.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::net::SocketAddr;

use common::id::{AccountName, MessageId};
use common::key::{DeviceKey, Token};
use common::limits::{HISTORY_ITEMS_LEN_MAX, HISTORY_ITEMS_MAX, SEARCH_INDEX_STEP};
use common::log::Clock;
use common::os::sqlite::{Access, Schema, parse_column};
use common::time::UnixTime;
use common::wire::peer::{Conversation, Message};
use rusqlite::{CachedStatement, Connection, OptionalExtension, Row, Transaction, params};

use super::columns::{
    body, cursor, direction, direction_code, last_number, millis, state, state_code, unix_time,
};
use super::{entries, logs, search};
use crate::node::command::{
    Cursor, Direction, HistoryItem, HistoryQuery, MessageState, Recorded, RecordedPage,
};
use crate::node::io::{
    AccountRequest, ChatAnswer, ChatRequest, ContactRequest, Marked, StoreAnswer, StoreRequest,
};

pub(super) const SCHEMA: Schema = Schema {
    migrations: &MIGRATIONS,
    access: Access::Alone,
};

/// Capacity of the cache of prepared statements: more than the history has.
pub(super) const STATEMENTS_MAX: usize = 128;

const MIGRATIONS: [&str; 7] = [
    "
    CREATE TABLE session (
        only_one INTEGER PRIMARY KEY CHECK (only_one = 1),
        account TEXT NOT NULL,
        token BLOB NOT NULL CHECK (length(token) = 32)
    ) STRICT;

    CREATE TABLE contacts (
        account TEXT NOT NULL,
        device_key BLOB NOT NULL CHECK (length(device_key) = 32),
        first_seen_ms INTEGER NOT NULL,
        PRIMARY KEY (account, device_key)
    ) STRICT, WITHOUT ROWID;

    -- direction: 0 sent, 1 received. state: 0 queued, 1 sent, 2 delivered, 3 read.
    -- Times are unsigned and stand as the signed integer of the same bits.
    CREATE TABLE messages (
        number INTEGER PRIMARY KEY,
        direction INTEGER NOT NULL CHECK (direction IN (0, 1)),
        peer TEXT NOT NULL,
        id BLOB NOT NULL CHECK (length(id) = 16),
        state INTEGER NOT NULL CHECK (state BETWEEN 0 AND 3),
        sent_ms INTEGER NOT NULL,
        at_ms INTEGER NOT NULL,
        body TEXT NOT NULL,
        UNIQUE (id, peer, direction)
    ) STRICT;
    CREATE INDEX messages_by_peer ON messages (peer, number);
    CREATE INDEX messages_in_outbox ON messages (number) WHERE direction = 0 AND state < 2;
    CREATE INDEX messages_unread ON messages (number) WHERE direction = 1 AND state < 3;
",
    "
    -- Where the device was reached straight: an address and a port.
    ALTER TABLE contacts ADD COLUMN last_endpoint TEXT;
",
    search::MIGRATION,
    "
    -- The greatest number of a message that was taken back. None is given again: they are places that programs remember.
    CREATE TABLE taken_back (
        only_one INTEGER PRIMARY KEY CHECK (only_one = 1),
        number INTEGER NOT NULL
    ) STRICT;
    INSERT INTO taken_back VALUES (1, 0);
    CREATE TRIGGER messages_taken_back AFTER DELETE ON messages BEGIN
        UPDATE taken_back SET number = max(number, old.number);
    END;
",
    logs::MIGRATION,
    entries::MIGRATION,
    entries::SHOWING_MIGRATION,
];

/// Executes a request in a transaction.
pub(super) fn execute(
    transaction: &Transaction<'_>,
    request: &StoreRequest,
) -> rusqlite::Result<StoreAnswer> {
    match request {
        StoreRequest::Account(AccountRequest::SaveSession { account, token }) => {
            save_session(transaction, account, token.as_ref())
        }
        StoreRequest::Contact(ContactRequest::PinKey {
            account,
            device_key,
            at,
        }) => pin_key(transaction, account, device_key, *at),
        StoreRequest::Contact(ContactRequest::UnpinKey { device_key }) => {
            unpin_key(transaction, device_key)
        }
        StoreRequest::Contact(ContactRequest::SaveEndpoint {
            device_key,
            endpoint,
        }) => save_endpoint(transaction, device_key, *endpoint),
        StoreRequest::Chat(request) => on_chat(transaction, request),
        StoreRequest::Log(request) => logs::execute(transaction, request),
        StoreRequest::Entries(request) => entries::execute(transaction, request),
    }
}

fn on_chat(transaction: &Transaction<'_>, request: &ChatRequest) -> rusqlite::Result<StoreAnswer> {
    match request {
        ChatRequest::Queue { messages, sent } => queue(transaction, messages, sent),
        ChatRequest::Receive {
            from, message, at, ..
        } => receive(transaction, from, message, *at),
        ChatRequest::Advance { id, to, state } => advance(transaction, *id, to, *state),
        ChatRequest::Withdraw { messages } => withdraw(transaction, messages),
        ChatRequest::MarkRead { ids } => mark_read(transaction, ids),
        ChatRequest::History(query) => history(transaction, query),
        ChatRequest::Recorded { after, limit } => recorded(transaction, *after, *limit),
        ChatRequest::Unread => unread(transaction),
        ChatRequest::Outbox => outbox_items(transaction),
    }
}

fn save_session(
    connection: &Connection,
    account: &AccountName,
    token: Option<&Token>,
) -> rusqlite::Result<StoreAnswer> {
    match token {
        Some(token) => connection
            .prepare_cached("REPLACE INTO session (only_one, account, token) VALUES (1, ?1, ?2)")?
            .execute(params![account.as_str(), token.as_bytes()])?,
        None => connection
            .prepare_cached("DELETE FROM session")?
            .execute([])?,
    };
    Ok(StoreAnswer::Done)
}

fn pin_key(
    connection: &Connection,
    account: &AccountName,
    device_key: &DeviceKey,
    at: UnixTime,
) -> rusqlite::Result<StoreAnswer> {
    connection
        .prepare_cached(
            "INSERT INTO contacts (account, device_key, first_seen_ms) VALUES (?1, ?2, ?3)
             ON CONFLICT DO NOTHING",
        )?
        .execute(params![account.as_str(), device_key.as_bytes(), millis(at)])?;
    Ok(StoreAnswer::Done)
}

fn unpin_key(connection: &Connection, device_key: &DeviceKey) -> rusqlite::Result<StoreAnswer> {
    connection
        .prepare_cached("DELETE FROM contacts WHERE device_key = ?1")?
        .execute([device_key.as_bytes()])?;
    Ok(StoreAnswer::Done)
}

fn save_endpoint(
    connection: &Connection,
    device_key: &DeviceKey,
    endpoint: SocketAddr,
) -> rusqlite::Result<StoreAnswer> {
    connection
        .prepare_cached("UPDATE contacts SET last_endpoint = ?2 WHERE device_key = ?1")?
        .execute(params![device_key.as_bytes(), endpoint.to_string()])?;
    Ok(StoreAnswer::Done)
}

fn queue(
    connection: &Connection,
    messages: &[(AccountName, Message)],
    sent: &BTreeSet<MessageId>,
) -> rusqlite::Result<StoreAnswer> {
    let places = messages.iter().map(|(to, message)| {
        let state = if sent.contains(&message.id) {
            MessageState::Sent
        } else {
            MessageState::Queued
        };
        let at = message.sent;
        insert(connection, Direction::Sent, to, message, state, at)
    });
    let places = places.collect::<Result<_, _>>()?;
    Ok(StoreAnswer::Chat(ChatAnswer::Queued(places)))
}

fn receive(
    connection: &Connection,
    from: &AccountName,
    message: &Message,
    at: UnixTime,
) -> rusqlite::Result<StoreAnswer> {
    let state = MessageState::Delivered;
    let place = insert(connection, Direction::Received, from, message, state, at)?;
    Ok(StoreAnswer::Chat(ChatAnswer::Received { place }))
}

/// Inserts a message that is of no entry; returns its place, or `None` if it is there already.
fn insert(
    connection: &Connection,
    direction: Direction,
    peer: &AccountName,
    message: &Message,
    state: MessageState,
    at: UnixTime,
) -> rusqlite::Result<Option<Cursor>> {
    let Conversation::Direct = message.conversation;
    connection
        .prepare_cached(
            "INSERT INTO messages (number, direction, peer, id, state, sent_ms, at_ms, body, placed)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9) ON CONFLICT DO NOTHING RETURNING number",
        )?
        .query_row(
            params![
                1 + last_number(connection)?,
                direction_code(direction),
                peer.as_str(),
                message.id.as_bytes(),
                state_code(state),
                millis(message.sent),
                millis(at),
                message.body.as_str(),
                entries::ordered(Clock::at(at)),
            ],
            |row| cursor(row, 0),
        )
        .optional()
}

fn advance(
    connection: &Connection,
    id: MessageId,
    to: &AccountName,
    state: MessageState,
) -> rusqlite::Result<StoreAnswer> {
    let rows = connection
        .prepare_cached(
            "UPDATE messages SET state = ?3
             WHERE id = ?1 AND peer = ?2 AND direction = 0 AND state < ?3 AND entry IS NULL",
        )?
        .execute(params![id.as_bytes(), to.as_str(), state_code(state)])?;
    let is_new = rows > 0;
    Ok(StoreAnswer::Chat(ChatAnswer::Advanced { is_new }))
}

fn withdraw(
    connection: &Connection,
    messages: &[(AccountName, MessageId)],
) -> rusqlite::Result<StoreAnswer> {
    let mut statement = connection.prepare_cached(
        "DELETE FROM messages
         WHERE id = ?1 AND peer = ?2 AND direction = 0 AND state < ?3 AND entry IS NULL",
    )?;
    for (to, id) in messages {
        let delivered = state_code(MessageState::Delivered);
        statement.execute(params![id.as_bytes(), to.as_str(), delivered])?;
    }
    Ok(StoreAnswer::Done)
}

fn mark_read(connection: &Connection, ids: &[MessageId]) -> rusqlite::Result<StoreAnswer> {
    let mut statement = connection.prepare_cached(
        "UPDATE messages SET state = 3 WHERE id = ?1 AND direction = 1 AND state < 3
         RETURNING peer, entry",
    )?;
    let mut marked = Vec::new();
    for id in ids {
        let mut rows = statement.query([id.as_bytes()])?;
        while let Some(row) = rows.next()? {
            let entry: Option<i64> = row.get(1)?;
            let entry = entry.map(|entry| entries::mark_read(connection, entry));
            marked.push(Marked {
                author: parse_column(row, 0)?,
                id: *id,
                entry: entry.transpose()?,
            });
        }
    }
    Ok(StoreAnswer::Chat(ChatAnswer::Marked(marked)))
}

/// Selects the columns that [`item`] reads.
macro_rules! select_items {
    ($($clauses:expr),+) => {
        concat!(
            "SELECT id, peer, direction, sent_ms, body, state FROM messages ",
            $($clauses),+
        )
    };
}

/// What was sent within a span, both ends included. Times stand in the table as signed numbers, and have the order of
/// unsigned ones: that of these pairs.
macro_rules! within_span {
    () => {
        "(sent_ms < 0, sent_ms) >= (?1 < 0, ?1) AND (sent_ms < 0, sent_ms) <= (?2 < 0, ?2) "
    };
}

fn history(connection: &Connection, query: &HistoryQuery) -> rusqlite::Result<StoreAnswer> {
    let since = query.since.unwrap_or_default();
    let until = query.until.map_or(u64::MAX, UnixTime::as_millis);
    let last = if query.until.is_none() {
        Some(until)
    } else {
        until.checked_sub(1)
    };
    let Some(last) = last.map(UnixTime::from_millis) else {
        return Ok(StoreAnswer::Chat(ChatAnswer::Messages(Vec::new())));
    };
    let (since, last) = (millis(since), millis(last));
    let limit = query.limit.min(HISTORY_ITEMS_MAX);
    let with = query.with.as_ref().map(AccountName::as_str);
    let mut latest_first = match (with, search::expression(&query.words)) {
        (_, None) if !query.words.is_empty() => Vec::new(),
        (with, Some(expression)) => {
            while search::add(connection, SEARCH_INDEX_STEP)? {}
            said(connection, params![since, last, limit, with, expression])?
        }
        (Some(peer), None) => {
            let mut statement = connection.prepare_cached(select_items!(
                "WHERE ",
                within_span!(),
                "AND peer = ?4 ORDER BY placed DESC, number DESC LIMIT ?3"
            ))?;
            items(&mut statement, params![since, last, limit, peer])?
        }
        (None, None) => {
            let mut statement = connection.prepare_cached(select_items!(
                "WHERE ",
                within_span!(),
                "ORDER BY placed DESC, number DESC LIMIT ?3"
            ))?;
            items(&mut statement, params![since, last, limit])?
        }
    };
    latest_first.reverse();
    Ok(StoreAnswer::Chat(ChatAnswer::Messages(latest_first)))
}

/// The messages with some words that have come last, those shown last first. To find those that are shown last, all
/// with these words would have to be read.
fn said(
    connection: &Connection,
    params: impl rusqlite::Params,
) -> rusqlite::Result<Vec<HistoryItem>> {
    let mut statement = connection.prepare_cached(concat!(
        "SELECT id, peer, direction, sent_ms, messages.body, state, placed, number
         FROM words JOIN messages ON messages.number = words.rowid
         WHERE words MATCH ?5 AND (?4 IS NULL OR peer = ?4) AND ",
        within_span!(),
        "ORDER BY words.rowid DESC LIMIT ?3"
    ))?;
    let mut found = bounded(&mut statement, params, |row| {
        let item = item(row)?;
        let len = item.body.as_str().len();
        let place: (i64, i64) = (row.get(6)?, row.get(7)?);
        Ok(((place, item), len))
    })?;
    found.sort_unstable_by_key(|(place, _)| Reverse(*place));
    Ok(found.into_iter().map(|(_, item)| item).collect())
}

fn recorded(connection: &Connection, after: Cursor, limit: u32) -> rusqlite::Result<StoreAnswer> {
    // There is none behind the greatest number.
    let after = i64::try_from(after.0).unwrap_or(i64::MAX);
    let mut statement = connection.prepare_cached(
        "SELECT id, peer, direction, sent_ms, body, state, number FROM messages
         WHERE number > ?1 ORDER BY number LIMIT ?2",
    )?;
    let limit = limit.min(HISTORY_ITEMS_MAX);
    let recorded = |row: &Row<'_>| {
        let item = item(row)?;
        let len = item.body.as_str().len();
        let cursor = cursor(row, 6)?;
        Ok((Recorded { cursor, item }, len))
    };
    let messages = bounded(&mut statement, params![after, limit], recorded)?;
    let last = Cursor(last_number(connection)?.cast_unsigned());
    let page = RecordedPage { messages, last };
    Ok(StoreAnswer::Chat(ChatAnswer::Recorded(page)))
}

fn unread(connection: &Connection) -> rusqlite::Result<StoreAnswer> {
    let mut statement = connection.prepare_cached(select_items!(
        "WHERE direction = 1 AND state < 3 ORDER BY number LIMIT ?1"
    ))?;
    items(&mut statement, params![HISTORY_ITEMS_MAX])
        .map(|items| StoreAnswer::Chat(ChatAnswer::Messages(items)))
}

fn outbox_items(connection: &Connection) -> rusqlite::Result<StoreAnswer> {
    let mut statement = connection.prepare_cached(select_items!(
        "WHERE direction = 0 AND state < 2 ORDER BY number LIMIT ?1"
    ))?;
    items(&mut statement, params![HISTORY_ITEMS_MAX])
        .map(|items| StoreAnswer::Chat(ChatAnswer::Messages(items)))
}

fn items(
    statement: &mut CachedStatement<'_>,
    params: impl rusqlite::Params,
) -> rusqlite::Result<Vec<HistoryItem>> {
    bounded(statement, params, |row| {
        let item = item(row)?;
        let len = item.body.as_str().len();
        Ok((item, len))
    })
}

/// Reads rows, each with the bytes of its text, and no further one once there is enough text for an answer.
fn bounded<T>(
    statement: &mut CachedStatement<'_>,
    params: impl rusqlite::Params,
    read: impl Fn(&Row<'_>) -> rusqlite::Result<(T, usize)>,
) -> rusqlite::Result<Vec<T>> {
    let mut rows = statement.query(params)?;
    let mut items = Vec::new();
    let mut len = 0;
    while let Some(row) = rows.next()? {
        let (item, item_len) = read(row)?;
        len += item_len;
        items.push(item);
        if len >= HISTORY_ITEMS_LEN_MAX {
            break;
        }
    }
    Ok(items)
}

fn item(row: &Row<'_>) -> rusqlite::Result<HistoryItem> {
    Ok(HistoryItem {
        id: MessageId::from_bytes(row.get(0)?),
        with: parse_column(row, 1)?,
        direction: direction(row, 2)?,
        sent: unix_time(row, 3)?,
        body: body(row, 4)?,
        state: state(row, 5)?,
    })
}

// ---- restoring ---------------------------------------------------------------------------------

pub(super) fn session(connection: &Connection) -> rusqlite::Result<Option<(AccountName, Token)>> {
    connection
        .query_row("SELECT account, token FROM session", [], |row| {
            Ok((parse_column(row, 0)?, Token::from_bytes(row.get(1)?)))
        })
        .optional()
}

pub(super) fn contacts(connection: &Connection) -> rusqlite::Result<Vec<(AccountName, DeviceKey)>> {
    let pins: Vec<(AccountName, [u8; 32])> = connection
        .prepare("SELECT account, device_key FROM contacts ORDER BY first_seen_ms, account")?
        .query_map([], |row| Ok((parse_column(row, 0)?, row.get(1)?)))?
        .collect::<Result<_, _>>()?;
    let count = pins.len();
    // A file that an earlier version wrote may hold keys that this one rejects as weak.
    let contacts: Vec<_> = pins
        .into_iter()
        .filter_map(|(account, key)| Some((account, DeviceKey::from_bytes(key).ok()?)))
        .collect();
    if contacts.len() < count {
        let weak = count - contacts.len();
        log::warn!("ignored weak pinned keys count={weak}");
    }
    Ok(contacts)
}

pub(super) fn last_endpoints(
    connection: &Connection,
) -> rusqlite::Result<Vec<(DeviceKey, SocketAddr)>> {
    let last: Vec<([u8; 32], SocketAddr)> = connection
        .prepare(
            "SELECT device_key, last_endpoint FROM contacts WHERE last_endpoint IS NOT NULL
             ORDER BY first_seen_ms, account",
        )?
        .query_map([], |row| Ok((row.get(0)?, parse_column(row, 1)?)))?
        .collect::<Result<_, _>>()?;
    let last = last.into_iter();
    let of_strong =
        last.filter_map(|(key, endpoint)| Some((DeviceKey::from_bytes(key).ok()?, endpoint)));
    Ok(of_strong.collect())
}

pub(super) fn outbox(connection: &Connection) -> rusqlite::Result<Vec<(AccountName, Message)>> {
    connection
        .prepare(
            "SELECT peer, id, sent_ms, body FROM messages
             WHERE direction = 0 AND state < 2 AND entry IS NULL ORDER BY number",
        )?
        .query_map([], |row| {
            let message = Message {
                id: MessageId::from_bytes(row.get(1)?),
                conversation: Conversation::Direct,
                sent: unix_time(row, 2)?,
                body: body(row, 3)?,
            };
            Ok((parse_column(row, 0)?, message))
        })?
        .collect()
}

/// How many messages of entries wait.
pub(super) fn undelivered(connection: &Connection) -> rusqlite::Result<usize> {
    let count: u32 = connection
        .prepare(
            "SELECT count(*) FROM messages WHERE direction = 0 AND state < 2 AND entry IS NOT NULL",
        )?
        .query_row([], |row| row.get(0))?;
    Ok(count as usize)
}

/// Messages of the outbox, of no entry, that a link may have carried.
pub(super) fn sent(connection: &Connection) -> rusqlite::Result<BTreeSet<MessageId>> {
    connection
        .prepare("SELECT id FROM messages WHERE direction = 0 AND state = 1 AND entry IS NULL")?
        .query_map([], |row| Ok(MessageId::from_bytes(row.get(0)?)))?
        .collect()
}
