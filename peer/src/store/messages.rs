//! The messages of the history, in memory: those of the old way, and those of entries.

use std::collections::BTreeMap;

use common::id::{AccountName, MessageId};
use common::limits::{HISTORY_ITEMS_LEN_MAX, HISTORY_ITEMS_MAX, OUTBOX_MESSAGES_MAX};
use common::log::{Clock, ConversationId, EntryId, Sequence};
use common::wire::peer::Message;

use crate::node::command::{
    Cursor, Direction, HistoryItem, HistoryQuery, MessageState, Recorded, RecordedPage,
};

/// All messages, in the order in which they came here.
#[derive(Clone, Debug, Default)]
pub(super) struct Messages {
    rows: Vec<Row>,
    /// The messages with an identifier, the first one first.
    by_id: BTreeMap<MessageId, Vec<Cursor>>,
    of_entries: BTreeMap<(ConversationId, EntryId), Cursor>,
    /// The last place that was given to a message.
    last: Cursor,
}

/// A message of the history.
#[derive(Clone, Debug)]
pub struct Row {
    /// Its place among all.
    pub cursor: Cursor,
    /// The other side.
    pub with: AccountName,
    /// Which way it went.
    pub direction: Direction,
    /// The message as its author sent it.
    pub message: Message,
    /// How far it is.
    pub state: MessageState,
    /// Where it is shown.
    pub placed: Clock,
    /// The entry that it is of, if it is of one.
    pub entry: Option<(ConversationId, EntryId)>,
}

impl Messages {
    // ---- writing -------------------------------------------------------------------------------

    /// Gives a message a place, and returns that; `None` if it is there already.
    pub(super) fn insert(&mut self, row: Row) -> Option<Cursor> {
        if self
            .find(row.message.id, &row.with, row.direction)
            .is_some()
        {
            return None;
        }
        self.last = self.last.next();
        let cursor = self.last;
        self.by_id.entry(row.message.id).or_default().push(cursor);
        self.of_entries
            .extend(row.entry.map(|entry| (entry, cursor)));
        self.rows.push(Row { cursor, ..row });
        Some(cursor)
    }

    pub(super) fn remove(&mut self, cursor: Cursor) {
        let Some(place) = self.place(cursor) else {
            return;
        };
        let row = self.rows.remove(place);
        if let Some(cursors) = self.by_id.get_mut(&row.message.id) {
            cursors.retain(|it| *it != cursor);
        }
        if let Some(entry) = row.entry {
            self.of_entries.remove(&entry);
        }
    }

    pub(super) fn remove_of(&mut self, conversation: ConversationId, entry: EntryId) {
        if let Some(cursor) = self.of_entries.get(&(conversation, entry)) {
            self.remove(*cursor);
        }
    }

    /// Removes the messages of a chain from an entry on.
    pub(super) fn remove_from(&mut self, conversation: ConversationId, first: EntryId) {
        let last = EntryId {
            sequence: Sequence::START.plus(usize::MAX),
            ..first
        };
        for cursor in self.cursors(conversation, first, last) {
            self.remove(cursor);
        }
    }

    /// Moves the messages of entries forward, and returns those that were not there yet.
    pub(super) fn advance_all(
        &mut self,
        conversation: ConversationId,
        (first, last): (EntryId, EntryId),
        state: MessageState,
    ) -> Vec<MessageId> {
        let mut changed = Vec::new();
        for cursor in self.cursors(conversation, first, last) {
            let row = self.row_mut(cursor).filter(|row| row.state < state);
            changed.extend(row.map(|row| {
                row.state = state;
                row.message.id
            }));
        }
        let too_many = changed.len().saturating_sub(HISTORY_ITEMS_MAX as usize);
        changed.split_off(too_many)
    }

    /// Moves a message of no entry forward. `false` if it is not there, or as far already.
    pub(super) fn advance(&mut self, id: MessageId, to: &AccountName, state: MessageState) -> bool {
        let cursor = self.find(id, to, Direction::Sent);
        let row = cursor.and_then(|cursor| self.row_mut(cursor));
        let Some(row) = row.filter(|row| row.entry.is_none()) else {
            return false;
        };
        let is_new = row.state < state;
        row.state = row.state.max(state);
        is_new
    }

    /// Removes a message of no entry that waits in the outbox.
    pub(super) fn withdraw(&mut self, id: MessageId, to: &AccountName) {
        let cursor = self.find(id, to, Direction::Sent);
        let row = cursor.and_then(|cursor| self.row_mut(cursor));
        if let Some(row) = row.filter(|row| row.is_in_outbox() && row.entry.is_none()) {
            let cursor = row.cursor;
            self.remove(cursor);
        }
    }

    /// Marks the messages with this identifier that nobody had seen, and returns them.
    pub(super) fn mark_read(&mut self, id: MessageId) -> Vec<Row> {
        let cursors = self.by_id.get(&id).cloned().unwrap_or_default();
        let mut marked = Vec::new();
        for cursor in cursors {
            let row = self.row_mut(cursor).filter(|row| row.is_unread());
            marked.extend(row.map(|row| {
                row.state = MessageState::Read;
                row.clone()
            }));
        }
        marked
    }

    // ---- reading -------------------------------------------------------------------------------

    pub(super) fn rows(&self) -> &[Row] {
        &self.rows
    }

    /// Messages of no entry without a receipt.
    pub(super) fn old_outbox(&self) -> impl Iterator<Item = &Row> + Clone {
        let outbox = self.rows.iter().filter(|row| row.is_in_outbox());
        outbox.filter(|row| row.entry.is_none())
    }

    pub(super) fn unread(&self) -> Vec<HistoryItem> {
        let unread = self.rows.iter().filter(|row| row.is_unread());
        look_up(unread, HISTORY_ITEMS_MAX, Row::item)
    }

    pub(super) fn outbox(&self) -> Vec<HistoryItem> {
        let outbox = self.rows.iter().filter(|row| row.is_in_outbox());
        look_up(outbox, HISTORY_ITEMS_MAX, Row::item)
    }

    pub(super) fn recorded(&self, after: Cursor, limit: u32) -> RecordedPage {
        let later = self.rows.iter().filter(|row| row.cursor > after);
        let messages = look_up(later, limit, Row::recorded);
        let last = self.last;
        RecordedPage { messages, last }
    }

    /// Those shown last; of a search, those that came last.
    pub(super) fn history(&self, query: &HistoryQuery) -> Vec<HistoryItem> {
        let of = self
            .rows
            .iter()
            .filter(|row| query.covers(&row.with, row.message.sent, row.message.body.as_str()));
        let mut latest: Vec<&Row> = of.collect();
        if query.words.is_empty() {
            latest.sort_unstable_by_key(|row| row.shown_at());
        }
        let latest = latest.into_iter().rev();
        let mut found = look_up(latest, query.limit, |row| (row.shown_at(), row.item()));
        found.sort_unstable_by_key(|(at, _)| *at);
        found.into_iter().map(|(_, item)| item).collect()
    }

    /// The messages of this account in a conversation that wait.
    pub(super) fn undelivered(&self, conversation: ConversationId) -> Vec<EntryId> {
        let waiting = self.rows.iter().filter(|row| row.is_in_outbox());
        let entries = waiting.filter_map(|row| row.entry);
        let of = entries.filter(|(of, _)| *of == conversation);
        of.map(|(_, entry)| entry)
            .take(OUTBOX_MESSAGES_MAX)
            .collect()
    }

    /// How many messages of entries wait.
    pub(super) fn undelivered_count(&self) -> usize {
        let waiting = self.rows.iter().filter(|row| row.is_in_outbox());
        waiting.filter(|row| row.entry.is_some()).count()
    }

    /// The entries of messages with an identifier.
    pub(super) fn entries_of(
        &self,
        id: MessageId,
    ) -> impl Iterator<Item = (ConversationId, EntryId)> {
        let cursors = self.by_id.get(&id).into_iter().flatten();
        let rows = cursors.filter_map(|cursor| self.place(*cursor).map(|place| &self.rows[place]));
        rows.filter_map(|row| row.entry)
    }

    fn find(&self, id: MessageId, with: &AccountName, direction: Direction) -> Option<Cursor> {
        let mut cursors = self.by_id.get(&id)?.iter().copied();
        cursors.find(|cursor| {
            let row = self.place(*cursor).map(|place| &self.rows[place]);
            row.is_some_and(|row| row.direction == direction && row.with == *with)
        })
    }

    /// The messages of entries of one chain, in their order.
    fn cursors(&self, conversation: ConversationId, first: EntryId, last: EntryId) -> Vec<Cursor> {
        let range = (conversation, first)..=(conversation, last);
        let of = self.of_entries.range(range);
        of.map(|(_, cursor)| *cursor).collect()
    }

    fn row_mut(&mut self, cursor: Cursor) -> Option<&mut Row> {
        let place = self.place(cursor)?;
        self.rows.get_mut(place)
    }

    fn place(&self, cursor: Cursor) -> Option<usize> {
        self.rows
            .binary_search_by_key(&cursor, |row| row.cursor)
            .ok()
    }
}

impl Row {
    fn is_in_outbox(&self) -> bool {
        self.direction == Direction::Sent && self.state < MessageState::Delivered
    }

    fn is_unread(&self) -> bool {
        self.direction == Direction::Received && self.state < MessageState::Read
    }

    /// Its place among what is shown.
    const fn shown_at(&self) -> (Clock, Cursor) {
        (self.placed, self.cursor)
    }

    fn recorded(&self) -> Recorded {
        Recorded {
            cursor: self.cursor,
            item: self.item(),
        }
    }

    fn item(&self) -> HistoryItem {
        HistoryItem {
            id: self.message.id,
            with: self.with.clone(),
            direction: self.direction,
            sent: self.message.sent,
            body: self.message.body.clone(),
            state: self.state,
        }
    }
}

/// At most `limit` rows, and no further one once there is enough text for an answer.
fn look_up<'a, T>(
    rows: impl Iterator<Item = &'a Row>,
    limit: u32,
    shown: impl Fn(&Row) -> T,
) -> Vec<T> {
    let mut items = Vec::new();
    let mut len = 0;
    for row in rows.take(limit.min(HISTORY_ITEMS_MAX) as usize) {
        len += row.message.body.as_str().len();
        items.push(shown(row));
        if len >= HISTORY_ITEMS_LEN_MAX {
            break;
        }
    }
    items
}
