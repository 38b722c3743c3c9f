//! What people look up in the history, and what they take back.

use common::id::{AccountName, MessageId};
use common::limits::WITHDRAW_MAX;
use common::log::{Body, ConversationId, EntryId, Kind};

use super::*;
use crate::node::command::{CommandError, Event, Reply};
use crate::node::drafts::{Draft, Then};
use crate::node::io::entries::{EntriesAnswer, EntriesRequest};
use crate::node::io::{ChatAnswer, ChatRequest, StoreAnswer};
use crate::node::purpose::ConversationStored;

impl Conversations {
    /// Looks up messages for a person.
    pub(in crate::node) fn look_up(command: CommandId, request: ChatRequest, cx: &mut Context<'_>) {
        cx.store(request, ConversationStored::LookedUp(command));
    }

    /// The store has looked up messages.
    pub(super) fn on_looked_up(command: CommandId, answer: StoreAnswer, cx: &mut Context<'_>) {
        let reply = match answer {
            StoreAnswer::Chat(ChatAnswer::Messages(items)) => Ok(Reply::Messages(items)),
            StoreAnswer::Chat(ChatAnswer::Recorded(page)) => Ok(Reply::Recorded(page)),
            StoreAnswer::Failed(reason) => Err(CommandError::Store(reason)),
            answer @ (StoreAnswer::Done | StoreAnswer::Chat(_) | StoreAnswer::Entries(_)) => {
                log::error!("unexpected reply from the store: {answer:?}");
                Err(CommandError::Store(
                    "it has answered something else".to_owned(),
                ))
            }
        };
        cx.reply(command, reply);
    }

    /// Takes messages back that no link has carried.
    pub(in crate::node) fn withdraw(
        &mut self,
        command: CommandId,
        ids: Vec<MessageId>,
        cx: &mut Context<'_>,
    ) {
        if ids.len() > WITHDRAW_MAX {
            let error = CommandError::TooMany("messages to withdraw".to_owned());
            return cx.reply(command, Err(error));
        }
        if !self.is_read() {
            self.withdrawals.push((command, ids));
            return;
        }
        let mut old: Vec<(AccountName, MessageId)> = Vec::new();
        for (to, messages) in &mut self.old {
            let taken = messages.iter().filter(|message| ids.contains(&message.id));
            old.extend(taken.map(|message| (to.clone(), message.id)));
            messages.retain(|message| !ids.contains(&message.id));
        }
        self.old.retain(|_, messages| !messages.is_empty());
        if !old.is_empty() {
            let messages = old.clone();
            cx.store_unawaited(ChatRequest::Withdraw { messages });
        }
        let then = ConversationStored::Found(command, old);
        cx.store(EntriesRequest::Find { ids }, then);
    }

    /// It is known which entries a person would take back: drops the bodies of those that nobody has been given, here
    /// and on this account's other devices.
    pub(super) fn on_found(
        &mut self,
        command: CommandId,
        mut taken: Vec<(AccountName, MessageId)>,
        answer: StoreAnswer,
        people: People<'_>,
        cx: &mut Context<'_>,
    ) {
        let found = match answer {
            StoreAnswer::Entries(EntriesAnswer::Found(found)) => found,
            StoreAnswer::Failed(reason) => {
                return cx.reply(command, Err(CommandError::Store(reason)));
            }
            answer @ (StoreAnswer::Done | StoreAnswer::Chat(_) | StoreAnswer::Entries(_)) => {
                return log::error!("unexpected reply from the store: {answer:?}");
            }
        };
        let mut dropped: BTreeMap<ConversationId, Vec<EntryId>> = BTreeMap::new();
        for (message, id, entry) in found {
            if self.is_ungiven(&id, &entry, people)
                && let Some(held) = self.held.get_mut(&id)
            {
                taken.push((held.with().clone(), message));
                dropped.entry(id).or_default().push(entry);
                held.undelivered.remove(&entry);
                held.waiting.push_back(Draft {
                    kind: Kind::DELETE,
                    body: Body::Delete { of: entry }.to_bytes(),
                    at: None,
                    then: Then::Nothing,
                });
            }
        }
        let ids: Vec<ConversationId> = dropped.keys().copied().collect();
        let Some((last, rest)) = ids.split_last() else {
            return Self::on_withdrawn(command, taken, StoreAnswer::Done, cx);
        };
        for id in rest {
            let entries = dropped.remove(id).unwrap_or_default();
            cx.store_unawaited(EntriesRequest::DropBodies {
                conversation: *id,
                entries,
            });
        }
        let entries = dropped.remove(last).unwrap_or_default();
        let request = EntriesRequest::DropBodies {
            conversation: *last,
            entries,
        };
        cx.store(request, ConversationStored::Withdrawn(command, taken));
        for id in ids {
            self.write_waiting(id, people, cx);
        }
    }

    /// Tells whether an entry of this account was given to nobody else, and is not about to be.
    fn is_ungiven(&self, id: &ConversationId, entry: &EntryId, people: People<'_>) -> bool {
        let Some(held) = self.held.get(id).filter(|held| held.is_ready()) else {
            return false;
        };
        let is_linked = self.links_of(id).iter().any(|link| {
            let end = self.ends.get(link);
            end.is_some_and(|end| !end.is_own)
        });
        let sent = held.reached(&entry.chain).sent;
        people.is_own(&entry.chain.device) && !is_linked && entry.sequence > sent
    }

    /// Messages are taken back: whoever waits for them hears that nothing comes of it.
    pub(super) fn on_withdrawn(
        command: CommandId,
        taken: Vec<(AccountName, MessageId)>,
        answer: StoreAnswer,
        cx: &mut Context<'_>,
    ) {
        if let StoreAnswer::Failed(reason) = answer {
            return cx.reply(command, Err(CommandError::Store(reason)));
        }
        let ids = taken.iter().map(|(_, message)| *message).collect();
        cx.reply(command, Ok(Reply::Withdrawn(ids)));
        let mut by_recipient: BTreeMap<AccountName, Vec<MessageId>> = BTreeMap::new();
        for (to, message) in taken {
            by_recipient.entry(to).or_default().push(message);
        }
        for (to, ids) in by_recipient {
            cx.event(Event::Withdrawn { to, ids });
        }
    }
}
