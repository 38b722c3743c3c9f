//! Entries that this device had written, and perhaps sent, when the program was killed before the history had them.

use common::id::MessageId;
use common::log::{
    ChainId, Clock, ConversationId, EntryId, Header, HeaderHash, Kind, Outline, Sequence,
};
use rusqlite::Connection;
use serde::{Deserialize, Serialize};

use super::columns::{dating, dating_code};
use super::showing::View;
use super::writing::{add_chain, insert, last};
use super::{chain, hash_at};
use crate::log::{Admission, Entry, Placed, StoredEntry};
use crate::node::io::entries::Origin;

/// An entry as the journal has it.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::shell::history) struct LeftEntry {
    conversation: ConversationId,
    chain: ChainId,
    sequence: Sequence,
    hash: HeaderHash,
    /// Where it is shown.
    at: Clock,
    dating: i64,
    clock: Clock,
    kind: Kind,
    body: Vec<u8>,
}

impl LeftEntry {
    /// The entries of an admission, each with its body.
    pub(in crate::shell::history) fn of(
        conversation: ConversationId,
        admission: &Admission,
    ) -> impl Iterator<Item = Self> {
        admission.entries.iter().filter_map(move |stored| {
            Some(Self {
                conversation,
                chain: admission.chain,
                sequence: stored.sequence,
                hash: stored.hash,
                at: stored.placed.at,
                dating: dating_code(stored.placed.dating),
                clock: stored.entry.outline.clock,
                kind: stored.entry.outline.kind,
                body: stored.entry.body.clone()?,
            })
        })
    }

    /// As people and the messages table know it.
    pub(in crate::shell::history) fn id(&self) -> MessageId {
        MessageId::of_entry(&self.conversation, &self.place())
    }

    const fn place(&self) -> EntryId {
        EntryId {
            chain: self.chain,
            sequence: self.sequence,
        }
    }

    /// The entry for the store, if it follows the header that hashes to `previous`.
    fn stored(self, previous: HeaderHash) -> Option<StoredEntry> {
        let outline = Outline::new(self.clock, self.kind, &self.body)?;
        let header = Header {
            conversation: self.conversation,
            chain: self.chain,
            sequence: self.sequence,
            previous,
            outline,
        };
        let placed = Placed {
            at: self.at,
            dating: dating(self.dating)?,
        };
        (header.hash() == self.hash).then_some(StoredEntry {
            sequence: self.sequence,
            hash: self.hash,
            placed,
            entry: Entry {
                outline,
                body: Some(self.body),
            },
        })
    }
}

/// Adds an entry where its chain ends. Tells whether it did: it may be there already, or not follow.
pub(in crate::shell::history) fn add_left(
    connection: &Connection,
    left: LeftEntry,
) -> rusqlite::Result<bool> {
    let Some(mut view) = View::of(connection, left.conversation)? else {
        return Ok(false);
    };
    let place = left.place();
    let row = chain(connection, view.conversation, &left.chain)?;
    let previous = match &row {
        Some(row) => {
            let last = last(connection, row)?;
            let follows = last.next() == left.sequence;
            let hash = hash_at(connection, row, last)?.unwrap_or(row.before);
            follows.then_some(hash)
        }
        None => (left.sequence == Sequence::FIRST).then_some(HeaderHash::NONE),
    };
    let Some(stored) = previous.and_then(|previous| left.stored(previous)) else {
        return Ok(false);
    };
    let row = match row {
        Some(row) => row,
        None => add_chain(
            connection,
            view.conversation,
            &place.chain,
            (Sequence::FIRST, HeaderHash::NONE),
        )?,
    };
    let at = (view.conversation, row.number);
    let number = insert(connection, at, &stored, Origin::WrittenHere)?;
    view.show((place, number), &stored, Origin::WrittenHere, &row.reached)?;
    Ok(true)
}
