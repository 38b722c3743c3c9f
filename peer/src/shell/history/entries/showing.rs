//! Messages, as people are shown them: what entries say, kept up by the transaction that writes the entries.
//!
//! A message of an entry has the entry's number, and the state that its chain has reached. Those that came before there
//! were entries have none, and nothing here touches them.

use std::collections::VecDeque;

use common::id::MessageId;
use common::limits::{HISTORY_ITEMS_MAX, MESSAGES_FOUND_MAX, OUTBOX_MESSAGES_MAX};
use common::log::{Body, ChainId, ConversationId, EntryId, Kind, Sequence};
use common::wire::peer::MessageBody;
use rusqlite::{Connection, OptionalExtension, params};

use super::columns::{self, Damage, damaged, ordered};
use super::{ChainRow, chain_of, number, refused};
use crate::log::StoredEntry;
use crate::node::command::Cursor;
use crate::node::io::EntriesAnswer;
use crate::node::io::entries::{ConversationKind, EntriesRefusal, Origin, Reach, Reached};
use crate::shell::history::columns::{direction_code, last_number, millis, state_code};

/// The migration that makes messages a view of entries.
pub(in crate::shell::history) const MIGRATION: &str = "
    -- Up to where entries have been sent and delivered, and are read.
    ALTER TABLE chains ADD COLUMN sent INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE chains ADD COLUMN delivered INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE chains ADD COLUMN read INTEGER NOT NULL DEFAULT 0;

    -- entry: the number of the entry that it is of, if it is of one. placed: where it is shown, as in entries.
    -- at_ms: when it came; of one of an entry, when it is shown to have been written.
    ALTER TABLE messages ADD COLUMN entry INTEGER;
    ALTER TABLE messages ADD COLUMN placed INTEGER NOT NULL DEFAULT 0;
    -- A clock of the time: 48 bits of milliseconds above 16 bits, with the sign turned round.
    UPDATE messages SET placed = 65536 * (
        CASE WHEN at_ms BETWEEN 0 AND 281474976710655 THEN at_ms ELSE 281474976710655 END - 140737488355328);
    DROP INDEX messages_by_peer;
    CREATE INDEX messages_with_peer ON messages (peer, placed);
    CREATE INDEX messages_placed ON messages (placed);
    CREATE UNIQUE INDEX messages_of_entries ON messages (entry) WHERE entry IS NOT NULL;

    -- What is deleted is to be gone from the index of words as well.
    INSERT INTO words (words, rank) VALUES ('secure-delete', 1);
";

/// The messages of one conversation, while it is written in.
#[derive(Debug)]
pub(super) struct View<'c> {
    pub(super) connection: &'c Connection,
    /// The conversation's number.
    pub(super) conversation: i64,
    id: ConversationId,
    kind: ConversationKind,
    /// The last number that was given to a message, once that is known.
    last: Option<i64>,
    /// What was added, with the place of its message.
    shown: Vec<(EntryId, Cursor)>,
}

impl<'c> View<'c> {
    /// `None` if the conversation was never opened.
    pub(super) fn of(
        connection: &'c Connection,
        id: ConversationId,
    ) -> rusqlite::Result<Option<Self>> {
        connection
            .prepare_cached("SELECT number, kind, account FROM conversations WHERE id = ?1")?
            .query_row([id.as_bytes()], |row| {
                Ok(Self {
                    connection,
                    conversation: row.get(0)?,
                    id,
                    kind: columns::conversation_kind(row, 1)?,
                    last: None,
                    shown: Vec::new(),
                })
            })
            .optional()
    }

    /// What is shown that was not before.
    pub(super) fn into_shown(self) -> Vec<(EntryId, Cursor)> {
        self.shown
    }

    /// Shows an entry with its number, if it says something.
    pub(super) fn show(
        &mut self,
        (id, entry): (EntryId, i64),
        stored: &StoredEntry,
        origin: Origin,
        reached: &Reached,
    ) -> rusqlite::Result<()> {
        let outline = &stored.entry.outline;
        let Some(text) = text(outline.kind, stored.entry.body.as_deref()) else {
            return Ok(());
        };
        let number = 1 + self.last()?;
        let direction = origin.direction();
        let state = reached.state(direction, &self.kind, id.sequence);
        // Only its own author can have given another message this identifier, and hides it by that.
        let added = self
            .connection
            .prepare_cached(
                "INSERT INTO messages (number, direction, peer, id, state, sent_ms, at_ms, body, entry, placed)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10) ON CONFLICT (id, peer, direction) DO NOTHING",
            )?
            .execute(params![
                number,
                direction_code(direction),
                self.kind.account().as_str(),
                MessageId::of_entry(&self.id, &id).as_bytes(),
                state_code(state),
                millis(outline.clock.time()),
                millis(stored.placed.at.time()),
                text.as_str(),
                entry,
                ordered(stored.placed.at),
            ])?;
        if added > 0 {
            self.last = Some(number);
            self.shown.push((id, Cursor(number.cast_unsigned())));
        }
        Ok(())
    }

    /// Takes an entry out of what is shown.
    pub(super) fn hide(&mut self, chain: &ChainRow, id: EntryId) -> rusqlite::Result<()> {
        self.shown.retain(|(shown, _)| *shown != id);
        remove_message(self.connection, chain, id.sequence)
    }

    /// The same for all of a chain from an entry on.
    pub(super) fn hide_from(
        &mut self,
        chain: &ChainRow,
        id: ChainId,
        from: Sequence,
    ) -> rusqlite::Result<()> {
        self.shown
            .retain(|(shown, _)| shown.chain != id || shown.sequence < from);
        self.connection
            .prepare_cached(
                "DELETE FROM messages WHERE entry IN
                     (SELECT number FROM entries WHERE chain = ?1 AND sequence >= ?2)",
            )?
            .execute(params![chain.number, number(from)])?;
        Ok(())
    }

    /// Takes a message out that waits in the outbox and is of no entry.
    pub(super) fn replace(&mut self, id: MessageId) -> rusqlite::Result<()> {
        self.connection
            .prepare_cached(
                "DELETE FROM messages
                 WHERE id = ?1 AND peer = ?2 AND direction = 0 AND state < 2 AND entry IS NULL",
            )?
            .execute(params![id.as_bytes(), self.kind.account().as_str()])?;
        Ok(())
    }

    fn last(&mut self) -> rusqlite::Result<i64> {
        match self.last {
            Some(last) => Ok(last),
            None => Ok(*self.last.insert(last_number(self.connection)?)),
        }
    }
}

/// What an entry says to people.
fn text(kind: Kind, body: Option<&[u8]>) -> Option<MessageBody> {
    match Body::parse(kind, body?) {
        Ok(Body::Text(text) | Body::Reply { text, .. }) => Some(text),
        Ok(
            Body::Edit { .. }
            | Body::Delete { .. }
            | Body::React { .. }
            | Body::Session(_)
            | Body::Cut(_)
            | Body::Unknown { .. },
        )
        | Err(_) => None,
    }
}

/// Removes the message of an entry.
pub(super) fn remove_message(
    connection: &Connection,
    chain: &ChainRow,
    place: Sequence,
) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "DELETE FROM messages WHERE entry =
                 (SELECT number FROM entries WHERE chain = ?1 AND sequence = ?2)",
        )?
        .execute(params![chain.number, number(place)])?;
    Ok(())
}

// ---- states ------------------------------------------------------------------------------------

pub(super) fn reach(
    connection: &Connection,
    id: ConversationId,
    chain_id: &ChainId,
    reach: Reach,
    last: Sequence,
) -> rusqlite::Result<EntriesAnswer> {
    let chain = chain_of(connection, id, chain_id)?;
    let Some(chain) = chain.filter(|chain| chain.reached.last(reach) < last) else {
        return Ok(EntriesAnswer::Reached(Vec::new()));
    };
    keep_reached(connection, chain.number, &chain.reached.with(reach, last))?;
    // What is before has that state, or was passed over by whoever read on.
    let mut first = chain.reached.last(reach).next();
    let mut changed = VecDeque::new();
    loop {
        let found = below(connection, chain.number, (first, last), reach)?;
        for (entry, _, id) in &found {
            set_state(connection, *entry, reach)?;
            if changed.len() == HISTORY_ITEMS_MAX as usize {
                changed.pop_front();
            }
            changed.push_back(*id);
        }
        match found.last() {
            Some((_, sequence, _)) if found.len() == HISTORY_ITEMS_MAX as usize => {
                first = sequence.next();
            }
            Some(_) | None => return Ok(EntriesAnswer::Reached(changed.into())),
        }
    }
}

/// The messages of some entries of a chain that have not got so far: the first [`HISTORY_ITEMS_MAX`].
fn below(
    connection: &Connection,
    chain: i64,
    (first, last): (Sequence, Sequence),
    reach: Reach,
) -> rusqlite::Result<Vec<(i64, Sequence, MessageId)>> {
    connection
        .prepare_cached(
            "SELECT entry, sequence, id FROM entries CROSS JOIN messages ON messages.entry = entries.number
             WHERE chain = ?1 AND sequence BETWEEN ?2 AND ?3 AND state < ?4
             ORDER BY sequence LIMIT ?5",
        )?
        .query_map(
            params![
                chain,
                number(first),
                number(last),
                state_code(reach.state()),
                HISTORY_ITEMS_MAX
            ],
            |row| {
                let id = MessageId::from_bytes(row.get(2)?);
                Ok((row.get(0)?, columns::sequence(row, 1)?, id))
            },
        )?
        .collect()
}

fn set_state(connection: &Connection, entry: i64, reach: Reach) -> rusqlite::Result<()> {
    connection
        .prepare_cached("UPDATE messages SET state = ?2 WHERE entry = ?1")?
        .execute(params![entry, state_code(reach.state())])?;
    Ok(())
}

fn keep_reached(connection: &Connection, chain: i64, reached: &Reached) -> rusqlite::Result<()> {
    connection
        .prepare_cached("UPDATE chains SET sent = ?2, delivered = ?3, read = ?4 WHERE number = ?1")?
        .execute(params![
            chain,
            number(reached.sent),
            number(reached.delivered),
            number(reached.read)
        ])?;
    Ok(())
}

/// Keeps that the entry with a number is read, and tells which one it is. Its message is marked already.
pub(in crate::shell::history) fn mark_read(
    connection: &Connection,
    entry: i64,
) -> rusqlite::Result<(ConversationId, EntryId)> {
    let (conversation, id, chain, reached) = connection
        .prepare_cached(
            "SELECT conversations.id, device, chains.run, sequence, chain, sent, delivered, read
             FROM entries JOIN chains ON chains.number = chain
             JOIN conversations ON conversations.number = entries.conversation
             WHERE entries.number = ?1",
        )?
        .query_row([entry], |row| {
            Ok((
                columns::conversation_id(row, 0)?,
                columns::entry_id(row, 1)?,
                row.get(4)?,
                columns::reached(row, 5)?,
            ))
        })
        .optional()?
        .ok_or_else(|| damaged(Damage::Message))?;
    if reached.read < id.sequence {
        keep_reached(connection, chain, &reached.with(Reach::Read, id.sequence))?;
    }
    Ok((conversation, id))
}

// ---- finding -----------------------------------------------------------------------------------

/// The messages of this account in a conversation that wait.
pub(super) fn undelivered(
    connection: &Connection,
    id: ConversationId,
) -> rusqlite::Result<EntriesAnswer> {
    let limit = u32::try_from(OUTBOX_MESSAGES_MAX).unwrap_or(u32::MAX);
    let waiting = connection
        .prepare_cached(
            "SELECT device, chains.run, sequence
             FROM messages JOIN entries ON entries.number = entry
             JOIN chains ON chains.number = chain
             JOIN conversations ON conversations.number = entries.conversation
             WHERE direction = 0 AND state < 2 AND conversations.id = ?1
             ORDER BY messages.number LIMIT ?2",
        )?
        .query_map(params![id.as_bytes(), limit], |row| {
            columns::entry_id(row, 0)
        })?
        .collect::<Result<Vec<_>, _>>()?;
    Ok(EntriesAnswer::Undelivered(waiting))
}

pub(super) fn find(connection: &Connection, ids: &[MessageId]) -> rusqlite::Result<EntriesAnswer> {
    if ids.len() > MESSAGES_FOUND_MAX {
        return Err(refused(EntriesRefusal::TooMany));
    }
    let mut statement = connection.prepare_cached(
        "SELECT conversations.id, device, chains.run, sequence
         FROM messages JOIN entries ON entries.number = entry
         JOIN chains ON chains.number = chain
         JOIN conversations ON conversations.number = entries.conversation
         WHERE messages.id = ?1 ORDER BY messages.number",
    )?;
    let mut found = Vec::new();
    for id in ids {
        let mut rows = statement.query([id.as_bytes()])?;
        while let Some(row) = rows.next()? {
            let conversation = columns::conversation_id(row, 0)?;
            found.push((*id, conversation, columns::entry_id(row, 1)?));
        }
    }
    Ok(EntriesAnswer::Found(found))
}
