//! A store in memory: what the history does, without a disk. For tests and simulations.
//!
//! It carries out a node's [`StoreRequest`]s one by one and gives the answers that the SQLite history
//! of the shell gives; a test asks both the same and compares. It fails only where its owner says so,
//! with [`MemoryStore::fail`].

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use common::account::AccountEntry;
use common::id::{AccountName, MessageId};
use common::key::{DeviceKey, Token};
use common::log::Clock;
use common::time::UnixTime;
use common::wire::peer::Message;

use crate::log::Instance;
use crate::node::command::{Cursor, Direction, MessageState};
use crate::node::io::{
    AccountRequest, ChatAnswer, ChatRequest, ContactRequest, LogRequest, Marked, Restored,
    StoreAnswer, StoreRequest,
};

// The entries of conversations.
mod entries;
// Messages, as people are shown them.
mod messages;

use entries::MemoryEntries;
use messages::Messages;
pub use messages::Row;

/// Keeps everything in maps and lists. A clone is what a backup is: it has the state of its moment.
#[derive(Clone, Debug, Default)]
pub struct MemoryStore {
    session: Option<(AccountName, Token)>,
    contacts: BTreeMap<(AccountName, DeviceKey), Contact>,
    logs: BTreeMap<AccountName, Vec<Vec<u8>>>,
    verified: BTreeSet<AccountName>,
    messages: Messages,
    /// The last chain of received messages that has a gap.
    gap: u64,
    entries: MemoryEntries,
}

/// A pinned key.
#[derive(Clone, Debug)]
struct Contact {
    first_seen: UnixTime,
    last_endpoint: Option<SocketAddr>,
}

impl MemoryStore {
    /// The store of a device that is logged in.
    pub fn enrolled(account: AccountName, token: Token) -> Self {
        Self {
            session: Some((account, token)),
            ..Self::default()
        }
    }

    /// Carries out a request.
    pub fn execute(&mut self, request: &StoreRequest) -> StoreAnswer {
        if self.is_after_gap(request) {
            return StoreAnswer::after_gap();
        }
        match request {
            StoreRequest::Account(request) => self.account(request),
            StoreRequest::Contact(request) => self.contact(request),
            StoreRequest::Chat(request) => self.chat(request),
            StoreRequest::Log(request) => self.log(request),
            StoreRequest::Entries(request) => self.entries.execute(request, &mut self.messages),
        }
    }

    /// Answers a request as a store does that cannot carry it out: nothing changes, and no message of
    /// the same chain is taken any more.
    pub fn fail(&mut self, request: &StoreRequest, reason: &str) -> StoreAnswer {
        if self.is_after_gap(request) {
            return StoreAnswer::after_gap();
        }
        if let StoreRequest::Chat(ChatRequest::Receive { chain, .. }) = request {
            self.gap = *chain;
        }
        StoreAnswer::Failed(reason.to_owned())
    }

    /// Begins a new run: chains count anew.
    pub const fn reopen(&mut self) {
        self.gap = 0;
    }

    /// What a node that starts finds.
    pub fn restore(&self) -> Restored {
        let outbox = self.messages.old_outbox();
        let sent = outbox.clone().filter(|row| row.state == MessageState::Sent);
        let contacts = self.contacts();
        let last_endpoints = contacts
            .iter()
            .filter_map(|((_, key), contact)| Some((*key, contact.last_endpoint?)));
        Restored {
            session: self.session.clone(),
            contacts: contacts.iter().map(|(pin, _)| (*pin).clone()).collect(),
            last_endpoints: last_endpoints.collect(),
            outbox: outbox
                .map(|row| (row.with.clone(), row.message.clone()))
                .collect(),
            sent: sent.map(|row| row.message.id).collect(),
            undelivered: self.messages.undelivered_count(),
            logs: self.logs.iter().map(parsed).collect(),
            verified: self.verified.clone(),
        }
    }

    /// Puts the store on another machine, or in another file, as far as anybody can tell.
    pub const fn set_instance(&mut self, instance: Instance) {
        self.entries.instance = instance;
    }

    /// All messages, in the order in which they came here.
    pub fn rows(&self) -> &[Row] {
        self.messages.rows()
    }

    /// Pinned keys, the first one seen first.
    fn contacts(&self) -> Vec<(&(AccountName, DeviceKey), &Contact)> {
        let mut contacts: Vec<_> = self.contacts.iter().collect();
        // SQLite has signed numbers only, and keeps a time as the one of the same bits.
        let first_seen = |contact: &Contact| contact.first_seen.as_millis().cast_signed();
        contacts.sort_by_key(|((account, _), contact)| (first_seen(contact), account));
        contacts
    }

    fn is_after_gap(&self, request: &StoreRequest) -> bool {
        matches!(request, StoreRequest::Chat(ChatRequest::Receive { chain, .. }) if *chain <= self.gap)
    }

    fn account(&mut self, request: &AccountRequest) -> StoreAnswer {
        let AccountRequest::SaveSession { account, token } = request;
        self.session = token.clone().map(|token| (account.clone(), token));
        StoreAnswer::Done
    }

    fn contact(&mut self, request: &ContactRequest) -> StoreAnswer {
        match request {
            ContactRequest::PinKey {
                account,
                device_key,
                at,
            } => {
                let pin = (account.clone(), *device_key);
                self.contacts.entry(pin).or_insert(Contact {
                    first_seen: *at,
                    last_endpoint: None,
                });
            }
            ContactRequest::UnpinKey { device_key } => {
                self.contacts.retain(|(_, key), _| key != device_key);
            }
            ContactRequest::SaveEndpoint {
                device_key,
                endpoint,
            } => {
                for ((_, key), contact) in &mut self.contacts {
                    if key == device_key {
                        contact.last_endpoint = Some(*endpoint);
                    }
                }
            }
        }
        StoreAnswer::Done
    }

    fn log(&mut self, request: &LogRequest) -> StoreAnswer {
        match request {
            LogRequest::Add { account, entry } => {
                let log = self.logs.entry(account.clone()).or_default();
                log.push(entry.clone());
            }
            LogRequest::Forget { account } => {
                self.logs.remove(account);
                self.verified.remove(account);
            }
            LogRequest::SetVerified {
                account,
                is_verified,
            } => {
                if *is_verified {
                    self.verified.insert(account.clone());
                } else {
                    self.verified.remove(account);
                }
            }
        }
        StoreAnswer::Done
    }

    fn chat(&mut self, request: &ChatRequest) -> StoreAnswer {
        match request {
            ChatRequest::Queue { messages, sent } => {
                let places = messages.iter().map(|(to, message)| {
                    let state = if sent.contains(&message.id) {
                        MessageState::Sent
                    } else {
                        MessageState::Queued
                    };
                    self.insert(Direction::Sent, to, message, state, message.sent)
                });
                StoreAnswer::Chat(ChatAnswer::Queued(places.collect()))
            }
            ChatRequest::Receive {
                from, message, at, ..
            } => {
                let state = MessageState::Delivered;
                let place = self.insert(Direction::Received, from, message, state, *at);
                StoreAnswer::Chat(ChatAnswer::Received { place })
            }
            ChatRequest::Advance { id, to, state } => {
                let is_new = self.messages.advance(*id, to, *state);
                StoreAnswer::Chat(ChatAnswer::Advanced { is_new })
            }
            ChatRequest::Withdraw { messages } => {
                for (to, id) in messages {
                    self.messages.withdraw(*id, to);
                }
                StoreAnswer::Done
            }
            ChatRequest::MarkRead { ids } => {
                let marked = ids.iter().flat_map(|id| self.mark_read(*id)).collect();
                StoreAnswer::Chat(ChatAnswer::Marked(marked))
            }
            ChatRequest::History(query) => {
                StoreAnswer::Chat(ChatAnswer::Messages(self.messages.history(query)))
            }
            ChatRequest::Recorded { after, limit } => {
                let page = self.messages.recorded(*after, *limit);
                StoreAnswer::Chat(ChatAnswer::Recorded(page))
            }
            ChatRequest::Unread => StoreAnswer::Chat(ChatAnswer::Messages(self.messages.unread())),
            ChatRequest::Outbox => StoreAnswer::Chat(ChatAnswer::Messages(self.messages.outbox())),
        }
    }

    /// Its place; `None` if it is there already.
    fn insert(
        &mut self,
        direction: Direction,
        with: &AccountName,
        message: &Message,
        state: MessageState,
        at: UnixTime,
    ) -> Option<Cursor> {
        self.messages.insert(Row {
            cursor: Cursor::default(),
            with: with.clone(),
            direction,
            message: message.clone(),
            state,
            placed: Clock::at(at),
            entry: None,
        })
    }

    /// Marks the messages with this number that nobody had seen, and how far their chains are read.
    fn mark_read(&mut self, id: MessageId) -> Vec<Marked> {
        let marked = self.messages.mark_read(id).into_iter();
        let marked = marked.map(|row| {
            if let Some((conversation, entry)) = row.entry {
                self.entries.mark_read(conversation, entry);
            }
            Marked {
                author: row.with,
                id,
                entry: row.entry,
            }
        });
        marked.collect()
    }
}

/// A log with its entries, as far as they are any.
fn parsed((account, log): (&AccountName, &Vec<Vec<u8>>)) -> (AccountName, Vec<AccountEntry>) {
    let entries = log.iter().map(|entry| AccountEntry::from_bytes(entry));
    (account.clone(), entries.filter_map(Result::ok).collect())
}

/// Tells whether a request changes, or could change, something.
pub const fn is_write(request: &StoreRequest) -> bool {
    match request {
        StoreRequest::Account(AccountRequest::SaveSession { .. })
        | StoreRequest::Contact(
            ContactRequest::PinKey { .. }
            | ContactRequest::UnpinKey { .. }
            | ContactRequest::SaveEndpoint { .. },
        )
        | StoreRequest::Chat(
            ChatRequest::Queue { .. }
            | ChatRequest::Receive { .. }
            | ChatRequest::Advance { .. }
            | ChatRequest::Withdraw { .. }
            | ChatRequest::MarkRead { .. },
        )
        | StoreRequest::Log(
            LogRequest::Add { .. } | LogRequest::Forget { .. } | LogRequest::SetVerified { .. },
        ) => true,
        StoreRequest::Chat(
            ChatRequest::History(_)
            | ChatRequest::Recorded { .. }
            | ChatRequest::Unread
            | ChatRequest::Outbox,
        ) => false,
        StoreRequest::Entries(request) => request.is_write(),
    }
}
