//! Messages: the outbox of this account, the messages of others, and receipts.
//!
//! Owns the messages that wait for a receipt and those that are on their way to the disk. Received messages
//! form chains: once one of a chain could not be stored, none that follows it in the chain is, so that no
//! message is overtaken by what its author wrote later.

use std::collections::{BTreeMap, BTreeSet};

use common::id::{AccountName, MessageId};
use common::limits::{Occupancy, RECIPIENTS_MAX, WITHDRAW_MAX};
use common::time::UnixTime;
use common::wire::peer::{ChatFrame, Conversation, Message, MessageBody, ReceiptState};
use rand::RngExt;

use super::command::{
    CommandError, CommandId, Cursor, Direction, Event, HistoryItem, MessageState, Recorded, Reply,
};
use super::context::Context;
use super::io::{ChatAnswer, ChatRequest, Marked, StoreAnswer};
use super::links::LinkChange;
use super::purpose::ChatStored;
use super::transport::LinkId;
use inbox::Inbox;
use outbox::{Due, Outbox};
use owed::OwedReceipts;

// Messages of others: which of them a person may be told of before they are on disk.
mod inbox;
// Messages of this account without a receipt.
mod outbox;
// Read receipts that wait for a link.
mod owed;

/// All messages on their way.
#[derive(Debug)]
pub(super) struct Chat {
    outbox: Outbox,
    inbox: Inbox,
    owed: OwedReceipts,
    /// The chain that received messages belong to now: [`ChatRequest::Receive`].
    chain: u64,
    /// Received messages that are on their way to the disk, by the link that brought them.
    receiving: BTreeMap<LinkId, usize>,
}

impl Chat {
    /// Starts with the outbox of the last run, the oldest message first; of it, links may have carried what
    /// was `sent`.
    pub(super) fn new(outbox: Vec<(AccountName, Message)>, sent: &BTreeSet<MessageId>) -> Self {
        Self {
            outbox: Outbox::new(outbox, sent),
            inbox: Inbox::default(),
            owed: OwedReceipts::default(),
            chain: 1,
            receiving: BTreeMap::new(),
        }
    }

    /// The occupancy of each bounded resource.
    pub(super) fn occupancies(&self) -> Vec<Occupancy> {
        [
            self.outbox.occupancies().to_vec(),
            self.inbox.occupancies().to_vec(),
            vec![self.owed.occupancy()],
        ]
        .concat()
    }

    /// Number of messages of this account without a receipt.
    pub(super) fn waiting(&self) -> usize {
        self.outbox.len()
    }

    /// Number of messages to an account without a receipt.
    pub(super) fn waiting_for(&self, account: &AccountName) -> usize {
        self.outbox.len_of(account)
    }

    /// Tells whether a received message is on its way to the disk: its author waits for the receipt.
    pub(super) fn owes_receipts(&self) -> bool {
        !self.receiving.is_empty()
    }

    /// Accounts that messages or read receipts wait for.
    pub(super) fn recipients(&self) -> impl Iterator<Item = &AccountName> {
        self.outbox.recipients().chain(self.owed.authors())
    }

    // ---- commands ------------------------------------------------------------------------------

    /// Sends a text to one or several accounts. `own` is the account of this device.
    pub(super) fn send(
        &mut self,
        command: CommandId,
        to: Vec<AccountName>,
        body: &MessageBody,
        sent: UnixTime,
        own: &AccountName,
        cx: &mut Context<'_>,
    ) {
        if let Err(error) = self.check_recipients(&to) {
            return cx.reply(command, Err(error));
        }
        let mut messages: Vec<(AccountName, Message)> = Vec::new();
        for account in to {
            if messages.iter().all(|(known, _)| *known != account) {
                let message = Message {
                    id: MessageId::from_bytes(cx.rng.random()),
                    conversation: Conversation::Direct,
                    sent,
                    body: body.clone(),
                };
                messages.push((account, message));
            }
        }
        let mut linked = Vec::new();
        let mut sent = BTreeSet::new();
        for (to, message) in messages.iter().filter(|(to, _)| to != own) {
            let link = cx.links.link_to(to);
            let is_sent = link.is_some() && self.outbox.has_window(to);
            if is_sent {
                sent.insert(message.id);
            }
            self.outbox.push(to.clone(), message.clone(), is_sent);
            linked.extend(link.map(|link| (to.clone(), link)));
        }
        let request = ChatRequest::Queue {
            messages: messages.clone(),
            sent: sent.clone(),
        };
        let then = ChatStored::Queued {
            command,
            messages,
            sent,
        };
        cx.store_first(request, then);
        // Linked recipients get it while this device's disk still writes. The person gets the reply only
        // once that is done.
        for (to, link) in linked {
            self.send_due(&to, link, cx);
        }
    }

    fn check_recipients(&self, to: &[AccountName]) -> Result<(), CommandError> {
        if to.is_empty() || to.len() > RECIPIENTS_MAX {
            let reason = format!("a message has 1 to {RECIPIENTS_MAX} recipients");
            return Err(CommandError::Invalid(reason));
        }
        match to.iter().find(|to| !self.outbox.has_room(to)) {
            Some(full) => Err(CommandError::TooMany(format!(
                "messages waiting for {full}"
            ))),
            None => Ok(()),
        }
    }

    /// Lists the messages that wait for a receipt.
    pub(super) fn list_outbox(&self, command: CommandId, cx: &mut Context<'_>) {
        let items = self
            .outbox
            .iter()
            .map(|(to, message, is_sent)| HistoryItem {
                id: message.id,
                with: to.clone(),
                direction: Direction::Sent,
                sent: message.sent,
                body: message.body.clone(),
                state: if is_sent {
                    MessageState::Sent
                } else {
                    MessageState::Queued
                },
            });
        cx.reply(command, Ok(Reply::Messages(items.collect())));
    }

    /// Takes messages back that no link has carried.
    pub(super) fn withdraw(
        &mut self,
        command: CommandId,
        ids: Vec<MessageId>,
        cx: &mut Context<'_>,
    ) {
        if ids.len() > WITHDRAW_MAX {
            let error = CommandError::TooMany("messages to withdraw".to_owned());
            return cx.reply(command, Err(error));
        }
        let taken = ids.into_iter().filter_map(|id| self.outbox.withdraw(id));
        let messages: Vec<(AccountName, Message)> = taken.collect();
        let request = ChatRequest::Withdraw {
            messages: messages
                .iter()
                .map(|(to, message)| (to.clone(), message.id))
                .collect(),
        };
        cx.store(request, ChatStored::Withdrawn { command, messages });
    }

    /// Looks up messages for a person.
    pub(super) fn look_up(&self, command: CommandId, request: ChatRequest, cx: &mut Context<'_>) {
        cx.store(request, ChatStored::LookedUp(command));
    }

    /// A person has seen messages.
    pub(super) fn mark_read(&self, command: CommandId, ids: Vec<MessageId>, cx: &mut Context<'_>) {
        cx.store(ChatRequest::MarkRead { ids }, ChatStored::Marked(command));
    }

    // ---- links ---------------------------------------------------------------------------------

    /// A link became ready, silent or lost: sends what waits for its account over it, or over another one.
    pub(super) fn on_link(&mut self, change: &LinkChange, cx: &mut Context<'_>) {
        match change {
            LinkChange::Ready { link, account } => {
                self.send_due(account, *link, cx);
                for id in self.owed.take(account) {
                    send_read_receipt(*link, id, cx);
                }
            }
            LinkChange::Lost {
                link,
                account,
                reason,
            } => {
                log::debug!("a link ended: {reason}");
                self.inbox.on_lost(account, *link);
                self.send_over_best(account, cx);
            }
            LinkChange::Silent { account } => self.send_over_best(account, cx),
            LinkChange::Heard
            | LinkChange::Proved { .. }
            | LinkChange::Reached { .. }
            | LinkChange::Rerouted
            | LinkChange::Left { .. }
            | LinkChange::Writable { .. }
            | LinkChange::LeafAcknowledged { .. }
            | LinkChange::DialFailed { .. } => {}
        }
    }

    /// Takes a frame from a device of `from`.
    pub(super) fn on_frame(
        &mut self,
        link: LinkId,
        from: AccountName,
        frame: ChatFrame,
        cx: &mut Context<'_>,
    ) {
        match frame {
            ChatFrame::Message(message) => {
                cx.links.hold_frame(link);
                self.on_message(Some(link), from, message, cx);
            }
            ChatFrame::Receipt { id, state } => self.on_receipt(link, from, id, state, cx),
        }
    }

    fn on_message(
        &mut self,
        link: Option<LinkId>,
        from: AccountName,
        message: Message,
        cx: &mut Context<'_>,
    ) {
        let is_told = self.inbox.on_message(&from, link, message.id);
        if is_told {
            cx.event(Event::Message(received(from.clone(), message.clone())));
        }
        let request = ChatRequest::Receive {
            from: from.clone(),
            message: message.clone(),
            at: cx.unix(),
            chain: self.chain,
        };
        if let Some(link) = link {
            *self.receiving.entry(link).or_default() += 1;
        }
        let then = ChatStored::Received {
            link,
            from,
            message,
            is_told,
            chain: self.chain,
        };
        cx.store(request, then);
    }

    fn on_receipt(
        &mut self,
        link: LinkId,
        from: AccountName,
        id: MessageId,
        receipt: ReceiptState,
        cx: &mut Context<'_>,
    ) {
        let is_first = self.outbox.on_receipt(&from, id);
        match receipt {
            ReceiptState::Delivered if is_first => {
                advance(id, from.clone(), MessageState::Delivered, cx);
            }
            ReceiptState::Delivered => {}
            ReceiptState::Read => {
                let to = from.clone();
                let request = ChatRequest::Advance {
                    id,
                    to: to.clone(),
                    state: MessageState::Read,
                };
                cx.store(request, ChatStored::Read { id, to });
            }
        }
        if is_first {
            self.send_due(&from, link, cx);
        }
    }

    fn send_over_best(&mut self, account: &AccountName, cx: &mut Context<'_>) {
        if let Some(link) = cx.links.link_to(account) {
            self.send_due(account, link, cx);
        }
    }

    fn send_due(&mut self, account: &AccountName, link: LinkId, cx: &mut Context<'_>) {
        for Due {
            message,
            is_recorded,
        } in self.outbox.take_due(account, link)
        {
            let id = message.id;
            if !is_recorded {
                // So that the next run knows, too, that it cannot be taken back.
                cx.store_unawaited(ChatRequest::Advance {
                    id,
                    to: account.clone(),
                    state: MessageState::Sent,
                });
            }
            cx.send(link, ChatFrame::Message(message));
            cx.event(Event::MessageState {
                id,
                to: account.clone(),
                state: MessageState::Sent,
            });
        }
    }

    // ---- the store -----------------------------------------------------------------------------

    /// The store answered. `own` is the account of this device, if it is logged in.
    pub(super) fn on_stored(
        &mut self,
        purpose: ChatStored,
        answer: StoreAnswer,
        own: Option<&AccountName>,
        cx: &mut Context<'_>,
    ) {
        if let ChatStored::Received {
            link: Some(link), ..
        } = &purpose
        {
            self.on_stored_from(*link);
        }
        let answer = match answer {
            StoreAnswer::Failed(reason) => return self.on_store_failed(purpose, reason, cx),
            StoreAnswer::Chat(answer) => Some(answer),
            StoreAnswer::Done | StoreAnswer::Entries(_) => None,
        };
        match (purpose, answer) {
            (
                ChatStored::Queued {
                    command,
                    messages,
                    sent,
                },
                Some(ChatAnswer::Queued(places)),
            ) => {
                let ids = messages.iter().map(|(_, message)| message.id).collect();
                cx.reply(command, Ok(Reply::Queued(ids)));
                self.on_queued(messages, &sent, &places, own, cx);
            }
            (
                ChatStored::Received {
                    link,
                    from,
                    message,
                    is_told,
                    ..
                },
                Some(ChatAnswer::Received { place }),
            ) => {
                confirm(link, &from, message.id, cx);
                let item = received(from, message);
                let (from, id, is_new) = (&item.with, item.id, place.is_some());
                if !is_told && self.inbox.on_stored(from, link, id, is_new) {
                    cx.event(Event::Message(item.clone()));
                }
                tell_recorded(place, item, cx);
            }
            (ChatStored::Withdrawn { command, messages }, None) => {
                on_withdrawn(command, messages, cx);
            }
            (ChatStored::Read { id, to }, Some(ChatAnswer::Advanced { is_new })) => {
                if is_new {
                    let state = MessageState::Read;
                    cx.event(Event::MessageState { id, to, state });
                }
            }
            (ChatStored::LookedUp(command), Some(ChatAnswer::Messages(items))) => {
                cx.reply(command, Ok(Reply::Messages(items)));
            }
            (ChatStored::LookedUp(command), Some(ChatAnswer::Recorded(page))) => {
                cx.reply(command, Ok(Reply::Recorded(page)));
            }
            (ChatStored::Marked(command), Some(ChatAnswer::Marked(marked))) => {
                self.tell_read(marked, own, cx);
                cx.reply(command, Ok(Reply::Done));
            }
            (purpose, answer) => {
                log::error!("unexpected reply from the store to {purpose:?}: {answer:?}")
            }
        }
    }

    /// Tells all linked devices of each author that a message was read: only the one that sent it waits to
    /// hear that. Authors who are not linked are looked for.
    fn tell_read(&mut self, marked: Vec<Marked>, own: Option<&AccountName>, cx: &mut Context<'_>) {
        for Marked { author, id, .. } in marked {
            let links: Vec<LinkId> = cx.links.links_to(&author).collect();
            if links.is_empty() && own != Some(&author) {
                self.owed.add(author, id);
            }
            for link in links {
                send_read_receipt(link, id, cx);
            }
        }
    }

    /// The store has answered for a message that this link brought.
    fn on_stored_from(&mut self, link: LinkId) {
        if let Some(open) = self.receiving.get_mut(&link) {
            *open -= 1;
            if *open == 0 {
                self.receiving.remove(&link);
            }
        }
    }

    /// Messages of this account are on disk, in these places.
    fn on_queued(
        &mut self,
        messages: Vec<(AccountName, Message)>,
        sent: &BTreeSet<MessageId>,
        places: &[Option<Cursor>],
        own: Option<&AccountName>,
        cx: &mut Context<'_>,
    ) {
        for ((to, message), place) in messages.iter().zip(places) {
            let state = if sent.contains(&message.id) {
                MessageState::Sent
            } else {
                MessageState::Queued
            };
            let item = item(to.clone(), Direction::Sent, message.clone(), state);
            tell_recorded(*place, item, cx);
        }
        for (to, message) in messages {
            if own == Some(&to) {
                self.on_message(None, to, message, cx);
            }
        }
    }

    fn on_store_failed(&mut self, purpose: ChatStored, reason: String, cx: &mut Context<'_>) {
        match purpose {
            ChatStored::Queued {
                command, messages, ..
            } => {
                // An open link could still deliver them, and after messages that are sent later.
                for (to, message) in messages {
                    if let Some(link) = self.outbox.on_refused(&to, message.id) {
                        cx.links.close(link, cx.now);
                    }
                }
                cx.reply(command, Err(CommandError::Store(reason)));
            }
            ChatStored::Withdrawn { command, messages } => {
                // They are on disk as before.
                for (to, message) in messages {
                    self.outbox.push(to, message, false);
                }
                cx.reply(command, Err(CommandError::Store(reason)));
            }
            ChatStored::Read { id, to } => advance(id, to, MessageState::Read, cx),
            ChatStored::LookedUp(command) | ChatStored::Marked(command) => {
                cx.reply(command, Err(CommandError::Store(reason)));
            }
            ChatStored::Received {
                link,
                from,
                is_told,
                chain,
                ..
            } => {
                if !is_told {
                    self.inbox.on_failed(&from);
                }
                log::warn!("cannot store a received message: {reason}");
                self.on_gap(chain, link, cx);
            }
        }
    }

    /// A received message could not be stored, so no later one of its chain will be: closes the links that
    /// brought them, so that their authors send them again. What arrives from now on is a new chain.
    fn on_gap(&mut self, chain: u64, link: Option<LinkId>, cx: &mut Context<'_>) {
        let mut links: BTreeSet<LinkId> = link.into_iter().collect();
        if chain == self.chain {
            self.chain += 1;
            links.extend(self.receiving.keys());
        }
        for link in links {
            cx.links.close(link, cx.now);
        }
    }
}

/// Messages are taken back: whoever waits for them hears that nothing comes of it.
fn on_withdrawn(command: CommandId, messages: Vec<(AccountName, Message)>, cx: &mut Context<'_>) {
    let ids = messages.iter().map(|(_, message)| message.id).collect();
    cx.reply(command, Ok(Reply::Withdrawn(ids)));
    let mut by_recipient: BTreeMap<AccountName, Vec<MessageId>> = BTreeMap::new();
    for (to, message) in messages {
        by_recipient.entry(to).or_default().push(message.id);
    }
    for (to, ids) in by_recipient {
        cx.event(Event::Withdrawn { to, ids });
    }
}

/// Sends the author of a message the receipt: it is on disk.
fn confirm(link: Option<LinkId>, from: &AccountName, id: MessageId, cx: &mut Context<'_>) {
    match link {
        Some(link) => {
            let state = ReceiptState::Delivered;
            cx.send(link, ChatFrame::Receipt { id, state });
            cx.links.release_frame(link);
        }
        // A note to oneself.
        None => advance(id, from.clone(), MessageState::Delivered, cx),
    }
}

fn send_read_receipt(link: LinkId, id: MessageId, cx: &mut Context<'_>) {
    let state = ReceiptState::Read;
    cx.send(link, ChatFrame::Receipt { id, state });
}

/// Records and tells that the delivery state of a sent message advanced.
fn advance(id: MessageId, to: AccountName, state: MessageState, cx: &mut Context<'_>) {
    cx.store_unawaited(ChatRequest::Advance {
        id,
        to: to.clone(),
        state,
    });
    cx.event(Event::MessageState { id, to, state });
}

/// The history has got a message, unless it had it before.
fn tell_recorded(place: Option<Cursor>, item: HistoryItem, cx: &mut Context<'_>) {
    if let Some(cursor) = place {
        cx.event(Event::Recorded(Recorded { cursor, item }));
    }
}

fn received(from: AccountName, message: Message) -> HistoryItem {
    item(from, Direction::Received, message, MessageState::Delivered)
}

fn item(
    with: AccountName,
    direction: Direction,
    message: Message,
    state: MessageState,
) -> HistoryItem {
    HistoryItem {
        id: message.id,
        with,
        direction,
        sent: message.sent,
        body: message.body,
        state,
    }
}
