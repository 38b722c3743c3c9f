//! What a chat screen knows and decides: an engine without I/O, clock or terminal.
//!
//! A front end, line by line or full-screen, drives a [`Conversation`]: it hands in what happens as
//! [`Input`], with the time, and carries out every [`Output`] until there is only [`Output::Wait`]. The
//! engine knows the recipient, the unread messages, the open offers, the transfers under way, the
//! undelivered messages, who is online, and whether the connection is lost. What anything looks like is up
//! to the front end: an [`Item`] holds what is to be shown, as values.
//!
//! Names and texts in items are as they came from outside: a front end passes them through
//! [`common::text`].

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::{Path, PathBuf};
use std::time::Instant;

use common::id::{AccountName, MessageId, TransferId};
use common::limits::{KNOWN_NAMES_MAX, MARK_READ_MAX};
use common::text::joined;
use common::wire::peer::MessageBody;

use crate::client::Typed;
use crate::failure::{Exit, Failure};
use crate::node::command::{
    Command, ConnectionState, Direction, Event, FailureKind, HistoryItem, HistoryQuery, Listed,
    MessageState, OfferView, Recorded, Reply, TransferState,
};

// Whether the control connection is lost.
pub(crate) mod connection;
// The meaning of a typed line.
pub(crate) mod entry;
// How it ends.
mod farewell;
// Inputs and outputs.
mod io;
// Offers that end with their node, and are made again.
mod lost;
// Who is heard on the local network.
mod nearby;
// Open offers by their numbers.
mod offers;
// Who comes and goes.
mod people;
// Who is online, and who is known to exist.
pub(crate) mod presence;
// The latest messages, to recognise duplicates.
pub(crate) mod recent;
// The recipients of a message.
pub(crate) mod recipients;
// Sent messages and their receipts.
mod sent;
// The commands that start with a slash.
pub(crate) mod slash;
// How fast a file moves.
pub(crate) mod speed;
// Transfers that this conversation follows.
mod transfers;
// Texts that were typed before there was a recipient.
mod unaddressed;

use connection::{ConnectionChange, ConnectionWatch};
use entry::Entry;
use farewell::{Farewell, Turn};
use lost::node_has_ended;
use offers::Offers;
use presence::{Absence, Departed, Presence};
use recent::Recent;
use recipients::{addressed, each_once};
use sent::{SentMessages, by_recipient};
use transfers::{Ended, Selected, Transfers};
use unaddressed::Unaddressed;

pub(crate) use io::{
    Ending, Input, Item, Now, Objection, Output, PromptState, RequestError, RequestId, Setup,
};
pub(crate) use offers::broken_by;
pub(crate) use sent::{Cause, Receipts, Waiting, Which};
pub(crate) use transfers::{Stage, Transfer, Way};

/// Messages that are shown when a person turns to somebody at the start: what fits a small terminal.
const RECENT_COUNT: u32 = 10;

/// Why the node was asked; kept until it answers.
#[derive(Debug)]
enum Purpose {
    /// To learn who is online, for completion and for `NAME: text`.
    LookAround,
    /// To learn who exists, online or not.
    Contacts,
    /// To learn what waits from before.
    Outbox,
    /// To show the latest messages of the first conversation, with how far each has got.
    Recent,
    /// To say at the end what waits.
    Leave,
    /// To be told who comes online and who goes offline.
    Watch,
    /// To show messages that arrived before the conversation.
    Unread,
    /// To show offers that were made before the conversation.
    Offers,
    /// To let authors know that their messages were read.
    MarkRead,
    Send {
        to: Vec<AccountName>,
        text: String,
    },
    List,
    History,
    ShowOutbox,
    Status,
    SendFile {
        to: AccountName,
        name: String,
        path: PathBuf,
    },
    /// To learn whether offers that ended with a node can be made again now.
    Connected,
    /// To make an offer again that ended with its node.
    OfferAgain {
        before: TransferId,
    },
    Cancel,
    AnswerOffer {
        number: usize,
        offer: OfferView,
        is_accepted: bool,
        /// What the file will be called.
        name: String,
    },
}

/// The engine. See the module's documentation.
#[derive(Debug)]
pub(crate) struct Conversation {
    me: Option<AccountName>,
    server: String,
    with: Option<AccountName>,
    folder: PathBuf,
    home: Option<PathBuf>,
    is_interactive: bool,
    is_at_terminal: bool,
    /// Accounts that were online, authors or recipients, at most [`KNOWN_NAMES_MAX`]; for completion.
    known: BTreeSet<AccountName>,
    /// Received messages that have been shown, so that none is shown twice.
    shown: Recent,
    /// Messages that were typed here, so that those of other programs of the profile are known.
    queued: Recent,
    unread: BTreeSet<MessageId>,
    /// Messages that the person has seen and the node has not been asked to mark as read.
    seen: Vec<MessageId>,
    sent: SentMessages,
    offers: Offers,
    transfers: Transfers,
    connection: ConnectionWatch,
    presence: Presence,
    /// Accounts with a device that is heard on the local network.
    nearby: BTreeSet<AccountName>,
    departed: Departed,
    /// The person was told that nobody can be reached through the relay.
    knows_relay_off: bool,
    /// The person turned to this account, and was not told whether it is there.
    opening: Option<AccountName>,
    farewell: Farewell,
    /// A text that was not sent, because it may have been meant for somebody else. Typed again, it is.
    unconfirmed: Option<String>,
    unaddressed: Unaddressed,
    /// Unanswered requests: what each does, for an error message, and why.
    asked: BTreeMap<RequestId, (String, Purpose)>,
    next_request: u64,
    outputs: VecDeque<Output>,
}

impl Conversation {
    /// Starts a conversation: greets, and asks the node for what it has to know.
    pub(crate) fn new(setup: Setup) -> Self {
        let Setup {
            me,
            server,
            with,
            folder,
            home,
            is_interactive,
            is_at_terminal,
            offline,
        } = setup;
        let mut conversation = Self {
            me,
            server,
            with,
            folder,
            home,
            is_interactive,
            is_at_terminal,
            known: BTreeSet::new(),
            shown: Recent::default(),
            queued: Recent::default(),
            unread: BTreeSet::new(),
            seen: Vec::new(),
            sent: SentMessages::default(),
            offers: Offers::default(),
            transfers: Transfers::default(),
            connection: ConnectionWatch::default(),
            presence: Presence::default(),
            nearby: BTreeSet::new(),
            departed: Departed::default(),
            knows_relay_off: false,
            opening: None,
            farewell: Farewell::default(),
            unconfirmed: None,
            unaddressed: Unaddressed::default(),
            asked: BTreeMap::new(),
            next_request: 0,
            outputs: VecDeque::new(),
        };
        conversation.greet(offline);
        conversation
    }

    /// Handles an input.
    pub(crate) fn handle_input(&mut self, input: Input, now: Now) {
        match input {
            Input::Event(event) => self.on_event(event, now.instant),
            Input::Answered { request, result } => self.on_answer(request, result, now.instant),
            Input::Typed(typed) => self.on_typed(typed, now),
            Input::Seen(id) => self.on_seen(id),
            Input::Revived { is_own } => {
                if is_own {
                    self.show(Item::TookOver);
                }
                self.end_transfers();
                self.look_around();
                self.catch_up();
                self.look_for_connection();
            }
        }
    }

    /// Shows receipts that were held back and what waits, and ends the conversation if its time is up.
    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        if self.sent.receipts_at().is_some_and(|at| now >= at) {
            self.tell_receipts();
        }
        if self.sent.waiting_at().is_some_and(|at| now >= at) {
            self.tell_waiting(now);
        }
        for account in self.presence.take_left(now) {
            self.on_moved(account, false, now);
        }
        self.transfers.handle_timeout(now);
        self.end_if_late(now);
    }

    /// The next output. To be called until it is [`Output::Wait`], which has the deadline, or
    /// [`Output::End`].
    pub(crate) fn poll_output(&mut self) -> Output {
        if self.outputs.is_empty() && !self.seen.is_empty() {
            self.mark_read();
        }
        if self.outputs.is_empty() {
            self.end_if_done();
        }
        let deadline = [
            self.sent.poll_timeout(),
            self.presence.poll_timeout(),
            self.transfers.poll_timeout(),
            self.farewell.poll_timeout(),
        ];
        let deadline = deadline.into_iter().flatten().min();
        self.outputs.pop_front().unwrap_or(Output::Wait(deadline))
    }

    /// What the prompt shows; `None` once the input has ended.
    pub(crate) fn prompt(&self) -> Option<PromptState<'_>> {
        (!self.farewell.has_begun()).then_some(PromptState {
            with: self.with.as_ref(),
            unread: self.unread.len(),
            draft: self.unaddressed.draft(),
        })
    }

    /// How many lines of a program went nowhere, as they named no recipient.
    pub(crate) const fn unaddressed(&self) -> usize {
        self.unaddressed.lost()
    }

    /// The transfers of this conversation that have not ended: those that move first, as a front end may
    /// have no room for all, and apart from that in the order in which they began.
    pub(crate) fn underway(&self) -> Vec<(&Transfer, Stage)> {
        let mut underway = self.transfers.underway();
        underway.sort_by_key(|(_, stage)| !stage.is_moving());
        underway
    }

    // ---- beginning -------------------------------------------------------------------------

    fn greet(&mut self, offline: Option<String>) {
        if let Some(with) = self.with.clone() {
            self.meet(&with);
            self.opening = Some(with);
        }
        if self.is_at_terminal && self.with.is_some() {
            let with = self.with.clone();
            let limit = RECENT_COUNT;
            let command = Command::History(HistoryQuery::latest(with, limit));
            self.ask("show the latest messages", command, Purpose::Recent);
        }
        self.look_around();
        if self.is_at_terminal {
            self.show(Item::Hello {
                me: self.me.clone(),
                with: self.with.clone(),
            });
        }
        if let Some(reason) = offline {
            self.on_connection(ConnectionState::Offline {
                reason,
                is_other_server: false,
                retry_in_s: Some(0),
            });
        }
        self.catch_up();
    }

    /// Learns what waits, who exists and who is online, in this order: whoever is not there is told of
    /// with all of it.
    fn look_around(&mut self) {
        const DOING: &str = "list who is online";
        self.ask("look into the outbox", Command::Outbox, Purpose::Outbox);
        self.ask("list the contacts", Command::Contacts, Purpose::Contacts);
        // In this order: whoever comes between the two is in the list.
        self.ask(DOING, Command::Watch, Purpose::Watch);
        self.ask(DOING, Command::List, Purpose::LookAround);
    }

    /// Shows what arrived before.
    fn catch_up(&mut self) {
        const DOING: &str = "show what arrived before";
        self.ask(DOING, Command::Unread, Purpose::Unread);
        self.ask(DOING, Command::Offers, Purpose::Offers);
    }

    // ---- events of the node ----------------------------------------------------------------

    fn on_event(&mut self, event: Event, now: Instant) {
        match event {
            Event::Message(message) => self.on_message(message),
            Event::Recorded(recorded) => self.on_recorded(recorded, now),
            Event::Addressed { id, new, .. } => {
                self.sent.on_addressed(id, new);
                self.queued.insert(new);
                self.tell(event);
            }
            Event::MessageState { id, to, state } => self.on_message_state(id, to, state, now),
            Event::Withdrawn { to, ids } => self.on_withdrawn(to, ids),
            Event::Offer(offer) => self.on_offer(offer),
            Event::Transfer { transfer, state } => self.on_transfer(transfer, state, now),
            Event::Connection(state) => {
                let was_lost = self.connection.is_lost();
                if state == ConnectionState::Online {
                    self.offer_again();
                }
                self.on_connection(state);
                if was_lost && !self.connection.is_lost() {
                    self.sent.on_restored(now);
                }
            }
            Event::Presence(change) => self.on_presence(&change, now),
            Event::Path(view) => self.on_rerouted(view),
            Event::RelayOff => self.on_relay_off(),
            Event::Nearby { account, is_here } => self.on_nearby(account, is_here),
            notice @ (Event::FailedLogins(_)
            | Event::Enrolled(_)
            | Event::NewKey { .. }
            | Event::NotApproved { .. }
            | Event::OtherAccount { .. }
            | Event::Approval { .. }
            | Event::DeviceApproved { .. }) => {
                self.tell(notice.clone());
                self.show(Item::Notice(notice));
            }
        }
    }

    fn on_message(&mut self, message: HistoryItem) {
        if message.direction == Direction::Sent || !self.shown.insert(message.id) {
            return;
        }
        self.meet(&message.with);
        self.presence.add_existing(&message.with);
        self.unread.insert(message.id);
        self.tell(Event::Message(message.clone()));
        self.show(Item::Message(message));
    }

    /// The history has got a message. What was received was told already, and what was typed here is on the screen; what
    /// another program of this profile has sent belongs to the conversation, too.
    ///
    /// A note to oneself has arrived with that.
    fn on_recorded(&mut self, recorded: Recorded, now: Instant) {
        let item = &recorded.item;
        if item.direction == Direction::Sent && item.state >= MessageState::Delivered {
            self.on_message_state(item.id, item.with.clone(), item.state, now);
        }
        if item.direction == Direction::Sent && self.queued.insert(item.id) {
            self.meet(&item.with);
            self.show(Item::Message(recorded.item.clone()));
            self.tell(Event::Recorded(recorded));
        }
    }

    fn on_seen(&mut self, id: MessageId) {
        if self.unread.remove(&id) {
            self.seen.push(id);
        }
        if self.seen.len() >= MARK_READ_MAX {
            self.mark_read();
        }
    }

    fn mark_read(&mut self) {
        let ids = std::mem::take(&mut self.seen);
        let command = Command::MarkRead { ids };
        self.ask("mark messages as read", command, Purpose::MarkRead);
    }

    fn on_message_state(
        &mut self,
        id: MessageId,
        to: AccountName,
        state: MessageState,
        now: Instant,
    ) {
        if self.sent.on_state(id, to.clone(), state, now) {
            self.tell(Event::MessageState { id, to, state });
        }
    }

    fn on_withdrawn(&mut self, to: AccountName, ids: Vec<MessageId>) {
        let ids = self.sent.on_withdrawn(ids);
        let count = ids.len();
        if count > 0 {
            self.tell(Event::Withdrawn {
                to: to.clone(),
                ids,
            });
            self.show(Item::Withdrawn(Waiting { to, count }));
        }
    }

    fn tell_receipts(&mut self) {
        for receipts in self.sent.take_receipts() {
            self.show(Item::Receipts(receipts));
        }
    }

    /// Says of messages that wait what they wait for.
    fn tell_waiting(&mut self, now: Instant) {
        let Self {
            sent,
            presence,
            nearby,
            connection,
            ..
        } = self;
        let why = |to: &AccountName| match presence.absence(to) {
            _ if nearby.contains(to) => Cause::NotReached,
            Some(absence) => Cause::Absent(absence),
            None if connection.is_lost() => Cause::NoServer,
            None => Cause::NotReached,
        };
        for (waiting, cause, which) in sent.take_waiting(now, why) {
            self.show(Item::Waiting {
                waiting,
                cause,
                which,
            });
        }
    }

    /// Says once of somebody whom the person has turned to that they are not there.
    fn tell_opening(&mut self) {
        if !self.presence.is_current() {
            return;
        }
        if let Some(account) = self.opening.take()
            && let Some(absence) = self.absence(&account)
        {
            let waiting = self.sent.waiting_for(&account);
            self.show(Item::Absent {
                account,
                absence,
                waiting,
            });
        }
    }

    /// One's own account is always there.
    fn absence(&self, account: &AccountName) -> Option<Absence> {
        let absence = self.presence.absence(account)?;
        (self.me.as_ref() != Some(account)).then_some(absence)
    }

    fn on_offer(&mut self, offer: OfferView) {
        let Some(number) = self.offers.add(offer.clone()) else {
            return;
        };
        self.meet(&offer.from);
        self.tell(Event::Offer(offer.clone()));
        self.show(Item::Offer { number, offer });
    }

    fn on_transfer(&mut self, id: TransferId, state: TransferState, now: Instant) {
        self.end_offer(id, &state);
        if !self.transfers.follows(id) || self.is_to_be_offered_again(id, &state) {
            return;
        }
        self.tell(Event::Transfer {
            transfer: id,
            state: state.clone(),
        });
        match &state {
            TransferState::Looking => {}
            TransferState::Waiting => {
                self.farewell.postpone(now);
                match self.transfers.on_offered(id) {
                    Some((transfer, false)) => self.show(Item::Offered(transfer)),
                    Some((transfer, true)) => self.show(Item::OfferedAgain(transfer)),
                    None => {}
                }
            }
            TransferState::Moving(moved) => {
                self.farewell.postpone(now);
                if let Some(transfer) = self.transfers.on_moved(id, *moved, now) {
                    self.show(Item::Transfer { transfer, state });
                }
            }
            TransferState::NotOffered { .. }
            | TransferState::Declined { .. }
            | TransferState::Done { .. }
            | TransferState::Failed { .. } => self.end_transfer(id, state),
        }
    }

    /// An offer that is open here is answered elsewhere, or comes to nothing.
    fn end_offer(&mut self, id: TransferId, state: &TransferState) {
        let is_taken = match state {
            TransferState::Looking | TransferState::Waiting => return,
            TransferState::Moving(_)
            | TransferState::Done { .. }
            | TransferState::Declined { .. } => true,
            TransferState::NotOffered { .. } | TransferState::Failed { .. } => false,
        };
        let Some((number, offer)) = self.offers.end(id) else {
            return;
        };
        let name = offer.name;
        let why = broken_by(state).map(str::to_owned);
        self.show(if is_taken {
            Item::OfferTaken { number, name }
        } else {
            Item::OfferEnded { number, name, why }
        });
    }

    fn end_transfer(&mut self, id: TransferId, state: TransferState) {
        if let Some(ended) = self.transfers.end(id) {
            self.show_end(ended, state);
        }
    }

    fn show_end(&mut self, ended: Ended, state: TransferState) {
        let Ended {
            transfer,
            is_cancelled,
        } = ended;
        let has_failed = matches!(
            state,
            TransferState::NotOffered { .. } | TransferState::Failed { .. }
        );
        self.show(if is_cancelled && has_failed {
            Item::Cancelled(transfer)
        } else {
            Item::Transfer { transfer, state }
        });
    }

    /// The node that had the transfers and offers has gone, and they with it. Offers are made again.
    fn end_transfers(&mut self) {
        let ended: Vec<_> = self.transfers.end_carried().collect();
        for (transfer, ended) in ended {
            let state = node_has_ended();
            self.tell(Event::Transfer {
                transfer,
                state: state.clone(),
            });
            self.show_end(ended, state);
        }
        let why = broken_by(&node_has_ended()).map(str::to_owned);
        let offers: Vec<_> = self.offers.end_all().collect();
        for (number, offer) in offers {
            let (name, why) = (offer.name, why.clone());
            self.show(Item::OfferEnded { number, name, why });
        }
    }

    fn on_connection(&mut self, state: ConnectionState) {
        let Some(change) = self.connection.on_state(&state) else {
            return;
        };
        self.tell(Event::Connection(state));
        let is_lost = match change {
            ConnectionChange::Lost { .. } | ConnectionChange::OtherServer { .. } => true,
            ConnectionChange::Restored => false,
        };
        if is_lost {
            self.presence.on_connection_lost();
        } else {
            self.look_around();
        }
        self.show(Item::Connection(change));
        if is_lost {
            self.tell_nearby();
        }
    }

    // ---- answers of the node ---------------------------------------------------------------

    fn on_answer(&mut self, request: RequestId, result: Result<Reply, RequestError>, now: Instant) {
        let Some((doing, purpose)) = self.asked.remove(&request) else {
            return;
        };
        let is_vital = matches!(purpose, Purpose::Unread | Purpose::Offers);
        let Err(failure) = self.on_reply(&doing, purpose, result, now) else {
            return;
        };
        if is_vital {
            self.end(Ending::Failed(failure));
        } else {
            self.show(Item::Problem(failure));
        }
    }

    fn on_reply(
        &mut self,
        doing: &str,
        purpose: Purpose,
        result: Result<Reply, RequestError>,
        now: Instant,
    ) -> Result<(), Failure> {
        match (purpose, result) {
            (Purpose::LookAround, Ok(Reply::Directory(devices))) => {
                self.on_listed(&devices, now);
            }
            (Purpose::Contacts, Ok(Reply::Contacts(contacts))) => {
                for contact in contacts {
                    self.presence.add_existing(&contact);
                    self.meet(&contact);
                }
            }
            (Purpose::Outbox, Ok(Reply::Messages(items))) => self.sent.follow(&items, now),
            (Purpose::Recent, Ok(Reply::Messages(items))) => self.on_recent(items, now),
            (Purpose::Leave, Ok(Reply::Messages(items))) => {
                let waiting = by_recipient(items.iter().map(|item| &item.with));
                self.end_as_left(waiting);
            }
            // What this conversation knows of is told at least.
            (Purpose::Leave, _) => self.end_as_left(self.sent.waiting()),
            // Without a server there is nobody to list or watch; the node watches once it is back. What is
            // not known of earlier messages is not told. Messages that cannot be marked as read are shown
            // again next time, and that is all.
            (
                Purpose::LookAround
                | Purpose::Contacts
                | Purpose::Outbox
                | Purpose::Recent
                | Purpose::Watch
                | Purpose::MarkRead,
                _,
            ) => {}
            (
                Purpose::AnswerOffer {
                    number,
                    offer,
                    is_accepted,
                    name,
                },
                result,
            ) => {
                let taken_as = is_accepted.then_some(name);
                return self.on_offer_answered(number, offer, taken_as, result, now);
            }
            (Purpose::Unread, Ok(Reply::Messages(messages))) => {
                for message in messages {
                    self.on_message(message);
                }
            }
            (Purpose::Offers, Ok(Reply::Offers(offers))) => {
                for offer in offers {
                    self.on_offer(offer);
                }
            }
            (Purpose::Send { to, text }, Ok(Reply::Queued(ids))) => {
                let messages: Vec<_> = addressed(ids, to)
                    .ok_or_else(|| Failure::unexpected_reply(doing))?
                    .collect();
                for (id, to) in &messages {
                    self.queued.insert(*id);
                    self.meet(to);
                    self.tell(Event::MessageState {
                        id: *id,
                        to: to.clone(),
                        state: MessageState::Queued,
                    });
                }
                self.sent.on_queued(messages, &text, now);
            }
            (Purpose::List, Ok(Reply::Directory(devices))) => self.show(Item::Directory(devices)),
            (Purpose::History, Ok(Reply::Messages(items))) => {
                self.sent.follow(&items, now);
                self.show(Item::History(items));
            }
            (Purpose::SendFile { to, name, path }, Ok(Reply::Started(id))) => {
                self.meet(&to);
                let transfer = Transfer {
                    number: self.offers.number(),
                    name,
                    way: Way::To(to),
                };
                self.transfers.follow(id, transfer, Some(path), now);
            }
            (Purpose::Connected, Ok(Reply::Status(node))) => {
                if node.connection == ConnectionState::Online {
                    self.offer_again();
                }
            }
            (Purpose::OfferAgain { before }, result) => {
                return self.on_begun_again(doing, before, result, now);
            }
            (Purpose::ShowOutbox, Ok(Reply::Messages(items))) => {
                self.sent.follow(&items, now);
                self.show(Item::Outbox(items));
            }
            (Purpose::Status, Ok(Reply::Status(mut node))) => {
                node.transfers
                    .retain(|view| !self.transfers.follows(view.transfer));
                let offers = self.offers.all();
                let offers = offers.map(|(number, offer)| (number, offer.clone()));
                self.show(Item::Status {
                    node: Box::new(node),
                    owner: self.me.clone(),
                    server: self.server.clone(),
                    offers: offers.collect(),
                    underway: self.owned_underway(),
                });
            }
            (Purpose::Cancel, Ok(Reply::Done)) => {}
            // It has ended meanwhile, and was told so.
            (Purpose::Cancel, Err(RequestError::NoSuchTransfer)) => {}
            (_, Err(error)) => return Err(failure(error, doing)),
            (_, Ok(_)) => return Err(Failure::unexpected_reply(doing)),
        }
        Ok(())
    }

    fn on_listed(&mut self, devices: &[Listed], now: Instant) {
        for device in devices {
            if Some(&device.account) != self.me.as_ref() {
                self.meet(&device.account);
            }
        }
        for (account, is_online) in self.presence.on_listed(devices, now) {
            self.on_moved(account, is_online, now);
        }
        self.sent.look_again(now);
        self.tell_opening();
    }

    /// Shows the latest messages but for those that nobody has read: they are shown as new.
    fn on_recent(&mut self, mut items: Vec<HistoryItem>, now: Instant) {
        self.sent.follow(&items, now);
        items.retain(|item| item.direction == Direction::Sent || item.state == MessageState::Read);
        if !items.is_empty() {
            self.show(Item::Recent(items));
        }
    }

    // ---- what is typed ---------------------------------------------------------------------

    fn on_typed(&mut self, typed: Typed, now: Now) {
        let before = self.farewell.next_turn();
        self.unaddressed.on_typed();
        match typed {
            Typed::Line(line) => self.on_line(&line, before, now),
            Typed::End if self.is_interactive => self.leave(before),
            Typed::End => self.farewell.begin(now.instant),
            Typed::Failed => self.end(Ending::Failed(
                Failure::new(Exit::Other, "could not read what is typed")
                    .because("the line editor has failed")
                    .next("run 'peer chat' again; what was sent is kept"),
            )),
            // It was about that line alone.
            Typed::Cleared => {}
            Typed::Interrupt => self.interrupt(before),
        }
    }

    /// What is typed goes to this account from now on, as the prompt shows, if there is one.
    fn turn_to(&mut self, name: AccountName) {
        if self.is_at_terminal && !self.is_interactive && self.with.as_ref() != Some(&name) {
            self.show(Item::TurnedTo(name.clone()));
        }
        self.unaddressed.on_recipient();
        self.with = Some(name);
    }

    fn on_line(&mut self, line: &str, before: Turn, now: Now) {
        let home = self.home.as_deref();
        let entry = Entry::parse(line, self.with.is_some(), &self.known, home);
        let unconfirmed = self.unconfirmed.take();
        if !matches!(entry, Ok(Entry::Nothing)) {
            // A message that is sent comes below it again.
            self.sent.on_other_line();
        }
        match entry {
            Ok(Entry::Nothing) => {}
            Ok(Entry::Quit) => self.leave(before),
            Ok(Entry::Help) => self.show(Item::Help),
            Ok(Entry::Say(text)) => self.say(text, line, now),
            Ok(Entry::Ambiguous { name, text }) => {
                // Typed a second time, or sent by a program, it is meant for the present recipient.
                if !self.is_interactive || unconfirmed.as_ref() == Some(&text) {
                    return self.say(text, line, now);
                }
                let with = self.with.clone();
                self.object(Objection::Ambiguous { name, with });
                self.unconfirmed = Some(text);
            }
            Ok(Entry::SayTo(to, text)) => {
                self.unaddressed.on_sent();
                if self.with.is_none()
                    && let [only] = to.as_slice()
                {
                    self.turn_to(only.clone());
                }
                self.send(to, text, now);
            }
            Ok(Entry::To(name)) => {
                self.meet(&name);
                self.opening = Some(name.clone());
                self.turn_to(name.clone());
                self.tell_opening();
                self.tell_if_nearby(&name);
            }
            Ok(Entry::List) => self.ask("list who is online", Command::List, Purpose::List),
            Ok(Entry::History(limit)) => {
                let with = self.with.clone();
                let command = Command::History(HistoryQuery::latest(with, limit));
                self.ask("show the history", command, Purpose::History);
            }
            Ok(Entry::Outbox) => {
                self.ask("look into the outbox", Command::Outbox, Purpose::ShowOutbox)
            }
            Ok(Entry::Status) => self.ask("show the status", Command::Status, Purpose::Status),
            Ok(Entry::SendFile(to, path)) => self.send_file(to, &path),
            Ok(Entry::Cancel { number }) => self.cancel(number),
            Ok(Entry::Answer {
                number,
                is_accepted,
                name,
            }) => self.answer_offer(number, is_accepted, name),
            Err(mistake) => self.object(Objection::Mistake(mistake)),
        }
    }

    /// Sends a text, which was typed as `line`.
    fn say(&mut self, text: String, line: &str, now: Now) {
        match self.with.clone() {
            Some(with) => self.send(vec![with], text, now),
            None => {
                if self.is_interactive {
                    self.unaddressed.keep(line);
                } else if !self.is_at_terminal {
                    self.unaddressed.lose();
                }
                self.object(Objection::NoRecipient {
                    is_kept: self.is_interactive,
                });
            }
        }
    }

    fn send(&mut self, to: Vec<AccountName>, text: String, now: Now) {
        let to = each_once(to);
        let doing = format!("send to {}", joined(&to));
        let body = match MessageBody::try_from(text.clone()) {
            Ok(body) => body,
            Err(error) => {
                let failure = Failure::new(Exit::Usage, format!("could not {doing}"))
                    .because(error)
                    .next("make it shorter, or send it as a file");
                return self.show(Item::Problem(failure));
            }
        };
        let command = Command::Send {
            to: to.clone(),
            body,
            sent: now.wall,
        };
        self.ask(doing, command, Purpose::Send { to, text });
    }

    fn send_file(&mut self, to: AccountName, path: &Path) {
        let name = path.file_name().unwrap_or_default();
        let name = name.to_string_lossy().into_owned();
        let doing = format!("send {name} to {to}");
        let command = Command::SendFile {
            to: to.clone(),
            path: path.to_owned(),
        };
        let path = path.to_owned();
        self.ask(doing, command, Purpose::SendFile { to, name, path });
    }

    fn cancel(&mut self, number: Option<usize>) {
        match self.transfers.select(number) {
            Selected::One(id, transfer) => {
                if let Some(ended) = self.transfers.cancel(id) {
                    self.tell(Event::Transfer {
                        transfer: id,
                        state: cancelled(),
                    });
                    return self.show(Item::Cancelled(ended));
                }
                let doing = format!("cancel {}", transfer.name);
                self.ask(doing, Command::Cancel { transfer: id }, Purpose::Cancel);
            }
            Selected::Several(transfers) => self.object(Objection::WhichTransfer(transfers)),
            Selected::Missing => self.object(match number {
                Some(number) if self.offers.is_open(number) => Objection::NotAccepted { number },
                Some(_) | None => Objection::NoSuchTransfer,
            }),
        }
    }

    // ---- outputs ---------------------------------------------------------------------------

    fn ask(&mut self, doing: impl Into<String>, command: Command, purpose: Purpose) {
        let request = RequestId(self.next_request);
        self.next_request += 1;
        let doing = doing.into();
        self.asked.insert(request, (doing.clone(), purpose));
        self.outputs.push_back(Output::Ask {
            request,
            doing,
            command,
        });
    }

    fn show(&mut self, item: Item) {
        self.outputs.push_back(Output::Show(item));
    }

    fn tell(&mut self, event: Event) {
        self.outputs.push_back(Output::Tell(event));
    }

    fn object(&mut self, objection: Objection) {
        self.show(Item::Objection(objection));
    }

    fn meet(&mut self, name: &AccountName) {
        if self.known.len() < KNOWN_NAMES_MAX && self.known.insert(name.clone()) {
            self.outputs.push_back(Output::Met(name.clone()));
        }
    }
}

fn cancelled() -> TransferState {
    TransferState::Failed {
        reason: "cancelled".to_owned(),
        kind: FailureKind::Cancelled,
    }
}

fn failure(error: RequestError, doing: &str) -> Failure {
    match error {
        RequestError::Failed(failure) => failure,
        RequestError::NoSuchTransfer => Failure::unexpected_reply(doing),
    }
}

#[cfg(test)]
mod tests;
