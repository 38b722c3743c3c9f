//! What becomes of messages when entries are written. All of it is collected first: what cannot be written changes
//! none.

use common::id::{AccountName, MessageId};
use common::limits::MESSAGES_FOUND_MAX;
use common::log::{Body, ConversationId, EntryId};
use common::wire::peer;

use super::super::messages::{Messages, Row as Message};
use crate::log::StoredEntry;
use crate::node::command::Cursor;
use crate::node::io::entries::{Arrival, ConversationKind, EntriesRefusal, Origin, Reached};
use crate::node::io::{EntriesAnswer, StoreAnswer};

/// What is written in one conversation, as far as it can be.
#[derive(Debug)]
pub(super) struct Writing<'a> {
    pub(super) id: ConversationId,
    pub(super) kind: ConversationKind,
    /// The last entry that came.
    pub(super) last: &'a mut Arrival,
    /// What becomes of messages once all is written.
    pub(super) changes: Vec<Change>,
}

/// Something that becomes of messages.
#[derive(Debug)]
pub(super) enum Change {
    Show(Box<Message>),
    Hide(EntryId),
    /// The same for those of a chain from this entry on.
    HideFrom(EntryId),
    /// A message to the account that waits in the outbox is an entry now.
    Withdraw(MessageId, AccountName),
}

impl Writing<'_> {
    /// What an entry says to people.
    pub(super) fn message(
        &self,
        id: EntryId,
        stored: &StoredEntry,
        origin: Origin,
        reached: &Reached,
    ) -> Option<Box<Message>> {
        let outline = &stored.entry.outline;
        let body = stored.entry.body.as_deref()?;
        let (Ok(Body::Text(body)) | Ok(Body::Reply { text: body, .. })) =
            Body::parse(outline.kind, body)
        else {
            return None;
        };
        let direction = origin.direction();
        let message = peer::Message {
            id: MessageId::of_entry(&self.id, &id),
            conversation: peer::Conversation::Direct,
            sent: outline.clock.time(),
            body,
        };
        Some(Box::new(Message {
            cursor: Cursor::default(),
            with: self.kind.account().clone(),
            direction,
            message,
            state: reached.state(direction, &self.kind, id.sequence),
            placed: stored.placed.at,
            entry: Some((self.id, id)),
        }))
    }
}

/// Changes what people are shown, and tells what that is that was not shown before.
pub(super) fn show(
    id: ConversationId,
    changes: Vec<Change>,
    messages: &mut Messages,
) -> Vec<(EntryId, Cursor)> {
    let mut shown = Vec::new();
    for change in changes {
        match change {
            Change::Show(message) => {
                let entry = message.entry;
                let place = messages.insert(*message);
                shown.extend(entry.map(|(_, entry)| entry).zip(place));
            }
            Change::Hide(entry) => {
                messages.remove_of(id, entry);
                shown.retain(|(it, _)| *it != entry);
            }
            Change::HideFrom(first) => {
                messages.remove_from(id, first);
                shown.retain(|(it, _)| it.chain != first.chain || it.sequence < first.sequence);
            }
            Change::Withdraw(message, account) => messages.withdraw(message, &account),
        }
    }
    shown
}

/// Finds the entries that messages are of.
pub(super) fn find(ids: &[MessageId], messages: &Messages) -> StoreAnswer {
    if ids.len() > MESSAGES_FOUND_MAX {
        return StoreAnswer::Failed(EntriesRefusal::TooMany.to_string());
    }
    let found = ids.iter().flat_map(|id| {
        let entries = messages.entries_of(*id);
        entries.map(|(conversation, entry)| (*id, conversation, entry))
    });
    StoreAnswer::Entries(EntriesAnswer::Found(found.collect()))
}
