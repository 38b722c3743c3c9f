//! The engine: a peer without sockets, files, threads or a clock.
//!
//! [`Node`] is a state machine. The shell feeds it [`Input`]s with the time at which they came, drains
//! its [`Output`]s until the first [`Output::Wait`], and sleeps until something arrives or the deadline
//! passes.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

// What people ask and what they are told.
pub mod command;
// Messages of others.
mod inbox;
// Inputs and outputs, and what the shell does for the node.
pub mod io;
// Dialling, authorisation, frames and leaves.
mod links;
// How much memory a test takes.
#[cfg(test)]
mod memory;
// The outbox.
mod messages;
// Where this device can be reached, and where others may be dialled.
mod paths;
// When to look for whom.
mod reach;
// The session with the rendezvous.
mod session;
// What the store was asked.
mod stores;
// Files on their way.
mod transfer;
// QUIC.
pub mod transport;
// What the store is to remember and nobody waits for.
mod upkeep;
// Having presence changes pushed.
mod watch;

use command::{
    Command, CommandError, CommandId, ConnectionState, Direction, Event, HistoryItem, Listed,
    MessageState, NodeStatus, PresenceView, Reply,
};
use common::id::{AccountName, DeviceName, MessageId, TransferId};
use common::key::{DeviceKey, DeviceSecret};
use common::limits::{Fill, LIST_ENTRIES_MAX, RECIPIENTS_MAX};
use common::password::Password;
use common::time::{Epoch, UnixTime};
use common::wire::peer::{
    ChatFrame, Conversation, FileFrame, Message, MessageBody, PeerFrame, ReceiptState,
};
use common::wire::rendezvous::{
    Answer, Change, DeviceAnswer, DevicePush, DeviceRequest, DirectoryAnswer, DirectoryPush,
    DirectoryRequest, Entry, FailedLogins, Push, Request, Status,
};
use inbox::Inbox;
pub use io::{Datagrams, Deadline, Input, Output, Transmit};
use io::{DiskAnswer, RendezvousInput, Restored, StoreAnswer, StoreId, StoreRequest};
use links::{Links, LinksEvent};
use messages::Messages;
use paths::Paths;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use reach::Reach;
use session::{Intent, Purpose, Session, SessionEvent, SessionOutput, child_seed};
use stores::{Stored, Stores};
use transfer::receive::Receiving;
use transfer::send::Sending;
use transport::LinkId;
use upkeep::Upkeep;
use watch::Watch;

/// What a node is made of.
#[derive(Debug)]
pub struct NodeOptions {
    /// This device's key.
    pub secret: DeviceSecret,
    /// What its owner calls it.
    pub device_name: DeviceName,
    /// What it remembers.
    pub restored: Restored,
    /// Both clocks at one moment.
    pub epoch: Epoch,
}

/// A peer: its session with the rendezvous, its links, its messages and its transfers.
///
/// Who owns what: `session` the control connection, `paths` our own endpoints, `links` the other
/// devices and, in its agent, where they may be dialled, `messages` what waits for a receipt, `inbox` what people were told of, `transfer` files, `reach` when to look for whom.
/// The node itself owns what has been asked of the store and by whom, and carries events between them.
#[derive(Debug)]
pub struct Node {
    own_key: DeviceKey,
    epoch: Epoch,
    rng: StdRng,
    session: Session,
    links: Links,
    paths: Paths,
    messages: Messages,
    inbox: Inbox,
    sending: Sending,
    receiving: Receiving,
    reach: Reach,
    connection: ConnectionState,
    stores: Stores,
    upkeep: Upkeep,
    /// Commands that wait until this device is logged in and listed.
    waiting_ready: BTreeSet<CommandId>,
    is_listed: bool,
    /// What was told about failed log-ins at the last log-in, for whoever waits.
    failed: Option<FailedLogins>,
    listings: BTreeMap<CommandId, Vec<Listed>>,
    watch: Watch,
    /// Something happened that may change whom something waits for.
    wants_are_stale: bool,
    outputs: VecDeque<Output>,
}

impl Node {
    /// Makes a node; it connects to its rendezvous at once if it has a token. `seed` is 32 random
    /// bytes.
    pub fn new(seed: [u8; 32], now: Instant, options: NodeOptions) -> Self {
        let NodeOptions {
            secret,
            device_name,
            restored,
            epoch,
        } = options;
        let mut rng = StdRng::from_seed(seed);
        let own_key = secret.public();
        let copy = DeviceSecret::from_seed(*secret.seed());
        let links_seed = child_seed(&mut rng);
        let session_rng = StdRng::from_seed(child_seed(&mut rng));
        let paths_rng = StdRng::from_seed(child_seed(&mut rng));
        let agent_rng = StdRng::from_seed(child_seed(&mut rng));
        let links = Links::new(links_seed, agent_rng, copy, restored.contacts);
        let mut node = Self {
            own_key,
            epoch,
            session: Session::new(secret, device_name, restored.session, session_rng, now),
            links,
            paths: Paths::new(paths_rng, own_key),
            messages: Messages::new(restored.outbox),
            inbox: Inbox::default(),
            sending: Sending::default(),
            receiving: Receiving::default(),
            reach: Reach::default(),
            watch: Watch::new(StdRng::from_seed(child_seed(&mut rng))),
            rng,
            connection: ConnectionState::Offline {
                reason: "not connected yet".to_owned(),
                retry_in_s: None,
            },
            stores: Stores::new(),
            upkeep: Upkeep::default(),
            waiting_ready: BTreeSet::new(),
            is_listed: false,
            failed: None,
            listings: BTreeMap::new(),
            wants_are_stale: true,
            outputs: VecDeque::new(),
        };
        node.settle(now);
        node
    }

    /// Lets panics of the QUIC implementation through from now on: a simulation wants to see them, where
    /// a program loses a link.
    pub const fn catch_no_panics(&mut self) {
        self.links.catch_no_panics();
    }

    /// Takes something that happened outside.
    pub fn handle_input(&mut self, input: Input, now: Instant) {
        match input {
            Input::Datagrams(datagrams) => self.on_datagrams(datagrams, now),
            Input::LocalAddresses(addresses) => {
                self.paths.set_local(addresses);
                self.announce(now);
            }
            Input::Rendezvous(input) => {
                if let RendezvousInput::Connected { server, .. } = &input {
                    self.paths.set_server(*server);
                    self.links.set_local(server.ip().is_loopback());
                }
                self.session.handle_rendezvous(input, now);
            }
            Input::Command(id, command) => {
                self.wants_are_stale = true;
                self.on_command(id, command, now);
            }
            Input::Stored(id, answer) => {
                self.wants_are_stale = true;
                self.on_stored(id, answer, now);
            }
            Input::Disk(transfer, answer) => {
                self.wants_are_stale = true;
                self.on_disk(transfer, answer, now);
            }
            Input::Worked(id, answer) => self.session.handle_worked(id, answer, now),
            Input::ShutDown => self.shut_down(now),
        }
        self.settle(now);
    }

    /// Is called when the last deadline has passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.wants_are_stale = true;
        self.session.handle_timeout(now);
        self.links.handle_timeout(now);
        if self.paths.handle_timeout(now) {
            self.announce(now);
        }
        self.receiving
            .handle_timeout(&mut self.links, now, &mut self.outputs);
        for request in self.upkeep.take_due(now) {
            self.remember(request);
        }
        self.settle(now);
    }

    /// Tells whether a received message is on its way to the disk: its author waits for the receipt, so
    /// whoever stops a node waits for this, within reason.
    pub fn owes_receipts(&self) -> bool {
        self.stores.receiving_links().next().is_some()
    }

    /// How full everything is that has a bound.
    pub fn fills(&self) -> Vec<Fill> {
        let parts = [
            self.session.fills().to_vec(),
            self.links.fills().to_vec(),
            self.messages.fills().to_vec(),
            self.inbox.fills().to_vec(),
            self.receiving.fills().to_vec(),
            vec![self.sending.fill(), self.upkeep.fill()],
        ];
        parts.concat()
    }

    /// The next thing to do. The bytes of a [`Output::Transmit`] land in `buffer`, which is cleared
    /// first.
    pub fn poll_output(&mut self, now: Instant, buffer: &mut Vec<u8>) -> Output {
        buffer.clear();
        if let Some(transmit) = self.paths.poll_transmit(buffer) {
            return Output::Transmit(transmit);
        }
        if let Some(transmit) = self.links.poll_transmit(now, buffer) {
            return Output::Transmit(transmit);
        }
        if let Some(output) = self.outputs.pop_front() {
            return output;
        }
        Output::Wait(self.deadline(now))
    }

    fn deadline(&self, now: Instant) -> Option<Deadline> {
        let deadlines = [
            (self.session.poll_timeout(), "session"),
            (self.links.poll_timeout(), "links"),
            (self.paths.poll_timeout(), "paths"),
            (self.reach_due(), "reach"),
            (self.receiving.poll_timeout(), "offer"),
            (self.messages.next_overdue(now), "receipt"),
            (self.upkeep.poll_timeout(), "upkeep"),
        ];
        let due = deadlines
            .into_iter()
            .filter_map(|(at, why)| at.map(|at| Deadline { at, why }));
        due.min_by_key(|deadline| deadline.at)
    }

    /// When somebody is to be looked for. Without a server nobody is.
    fn reach_due(&self) -> Option<Instant> {
        if !self.session.is_online() || !self.is_listed || self.session.is_busy() {
            return None;
        }
        let watch = self.watch.poll_timeout();
        let watch = watch.filter(|_| self.reach.wants_watch());
        let search = self
            .reach
            .poll_timeout(|account| self.links.is_dialling(account));
        watch.into_iter().chain(search).min()
    }

    /// Carries events between the parts until all are quiet.
    fn settle(&mut self, now: Instant) {
        loop {
            if let Some(output) = self.session.poll_output() {
                match output {
                    SessionOutput::Rendezvous(output) => {
                        self.outputs.push_back(Output::Rendezvous(output))
                    }
                    SessionOutput::Work(id, work) => self.outputs.push_back(Output::Work(id, work)),
                    SessionOutput::Event(event) => self.on_session(event, now),
                }
            } else if let Some(event) = self.links.poll_event() {
                self.on_links(event, now);
            } else if !self.look_for_recipients(now) {
                break;
            }
        }
        let is_full = self.receiving.is_full();
        self.links.pause_leaves(is_full, now);
        let receiving = &self.receiving;
        self.links
            .retain_expected(|transfer| receiving.contains(transfer));
    }

    // ---- what people ask -----------------------------------------------------------------------

    fn on_command(&mut self, id: CommandId, command: Command, now: Instant) {
        match command {
            Command::Register { account, password } => {
                self.enter(id, account, Password::new(password.0), None, true, now);
            }
            Command::LogIn {
                account,
                password,
                code,
            } => {
                self.enter(
                    id,
                    account,
                    Password::existing(password.0),
                    code,
                    false,
                    now,
                );
            }
            Command::WaitReady => self.wait_ready(id),
            Command::LogOut => self.session.request(
                Purpose::LogOut(id),
                Request::Device(DeviceRequest::LogOut),
                now,
            ),
            Command::Admit => self.session.request(
                Purpose::Admit(id),
                Request::Device(DeviceRequest::Admit),
                now,
            ),
            Command::Status => self.reply(id, Ok(Reply::Status(self.status()))),
            Command::List => {
                self.listings.insert(id, Vec::new());
                self.session.request(
                    Purpose::List(id),
                    Request::Directory(DirectoryRequest::List { after: None }),
                    now,
                );
            }
            Command::Watch => {
                self.reach.watch_always();
                self.reply(id, Ok(Reply::Done));
            }
            Command::Send { to, body, sent } => self.send(id, to, &body, sent, now),
            Command::SendFile { to, path } => self.send_file(id, to, path),
            Command::AnswerOffer { transfer, folder } => {
                let done =
                    self.receiving
                        .answer(transfer, folder, &mut self.links, &mut self.outputs);
                self.reply(id, done.map(|()| Reply::Done));
            }
            Command::Cancel { transfer } => self.cancel(id, transfer),
            Command::Offers => self.reply(id, Ok(Reply::Offers(self.receiving.offers()))),
            Command::History { with, limit } => {
                self.store(StoreRequest::History { with, limit }, Stored::Looked(id));
            }
            Command::Unread => self.store(StoreRequest::Unread, Stored::Looked(id)),
            Command::MarkRead { ids } => {
                self.store(StoreRequest::MarkRead { ids }, Stored::Marked(id))
            }
        }
    }

    fn enter(
        &mut self,
        id: CommandId,
        account: AccountName,
        password: Result<Password, common::password::PasswordLengthError>,
        code: Option<String>,
        registers: bool,
        now: Instant,
    ) {
        let password = match password {
            Ok(password) => password,
            Err(error) => return self.reply(id, Err(CommandError::Invalid(error.to_string()))),
        };
        let code = match code.map(|code| code.parse()).transpose() {
            Ok(code) => code,
            Err(error) => return self.reply(id, Err(invalid(&error))),
        };
        self.session.enter(
            Intent {
                command: id,
                account,
                password,
                code,
                registers,
            },
            now,
        );
    }

    fn wait_ready(&mut self, id: CommandId) {
        match self.session.down() {
            Some(error) => self.reply(id, Err(error)),
            None if self.is_listed => {
                let failed = self.failed.take();
                self.reply(id, Ok(Reply::LoggedIn { failed }));
            }
            None => {
                self.waiting_ready.insert(id);
            }
        }
    }

    fn send(
        &mut self,
        id: CommandId,
        to: Vec<AccountName>,
        body: &MessageBody,
        sent: UnixTime,
        now: Instant,
    ) {
        if self.session.account().is_none() {
            return self.reply(id, Err(CommandError::NotLoggedIn));
        }
        if to.is_empty() || to.len() > RECIPIENTS_MAX {
            let error =
                CommandError::Invalid(format!("a message has 1 to {RECIPIENTS_MAX} recipients"));
            return self.reply(id, Err(error));
        }
        if let Some(full) = to.iter().find(|to| !self.messages.has_room(to)) {
            let error = CommandError::TooMany(format!("messages waiting for {full}"));
            return self.reply(id, Err(error));
        }
        let mut unique: Vec<AccountName> = Vec::new();
        for account in to {
            if !unique.contains(&account) {
                unique.push(account);
            }
        }
        let messages: Vec<(AccountName, Message)> = unique
            .into_iter()
            .map(|to| {
                let id = MessageId::from_bytes(self.rng.random());
                (
                    to,
                    Message {
                        id,
                        conversation: Conversation::Direct,
                        sent,
                        body: body.clone(),
                    },
                )
            })
            .collect();
        let request = StoreRequest::Queue {
            messages: messages.clone(),
        };
        let then = Stored::Queued {
            command: id,
            messages: messages.clone(),
        };
        self.store(request, then);
        // Whoever is linked gets it while our own disk writes; nothing is promised to the person
        // before that is done.
        let own = self.session.account().cloned();
        for (to, message) in messages {
            if own.as_ref() == Some(&to) {
                continue;
            }
            self.messages.push(to.clone(), message);
            if let Some(link) = self.links.link_to(&to) {
                self.send_due(&to, link, now);
            }
        }
    }

    fn send_file(&mut self, id: CommandId, to: AccountName, path: std::path::PathBuf) {
        match self.session.account() {
            None => self.reply(id, Err(CommandError::NotLoggedIn)),
            Some(own) if *own == to => {
                let error =
                    CommandError::Invalid("that is this account; copy the file instead".to_owned());
                self.reply(id, Err(error));
            }
            Some(_) => {
                let transfer = TransferId::from_bytes(self.rng.random());
                self.sending
                    .start(transfer, to, path, id, &mut self.outputs);
            }
        }
    }

    fn cancel(&mut self, id: CommandId, transfer: TransferId) {
        if self.sending.contains(transfer) {
            self.sending
                .cancel(transfer, &mut self.links, &mut self.outputs);
        } else if self.receiving.contains(transfer) {
            self.receiving
                .cancel(transfer, &mut self.links, &mut self.outputs);
        } else {
            return self.reply(id, Err(CommandError::NoSuchTransfer));
        }
        self.reply(id, Ok(Reply::Done));
    }

    fn status(&self) -> NodeStatus {
        NodeStatus {
            account: self.session.account().cloned(),
            fingerprint: self.own_key.fingerprint().to_string(),
            connection: self.connection.clone(),
            endpoints: self.paths.candidates(),
            linked: self.links.linked().into_iter().collect(),
            outbox: self.messages.len(),
        }
    }

    fn shut_down(&mut self, now: Instant) {
        self.links.close_all(now);
        self.session.shut_down();
    }

    // ---- session -------------------------------------------------------------------------------

    fn on_session(&mut self, event: SessionEvent, now: Instant) {
        self.wants_are_stale = true;
        match event {
            SessionEvent::Connecting => self.set_connection(ConnectionState::Connecting),
            SessionEvent::LoggedIn {
                account,
                token,
                failed,
                command,
            } => {
                self.on_logged_in(account, token, failed, command, now);
            }
            SessionEvent::IntentFailed { command, error } => self.reply(command, Err(error)),
            SessionEvent::Down { error, retry_in } => self.on_down(&error, retry_in),
            SessionEvent::Answered { purpose, answer } => self.on_answered(purpose, answer, now),
            SessionEvent::Push(push) => self.on_push(push, now),
        }
    }

    fn on_logged_in(
        &mut self,
        account: AccountName,
        token: Option<common::key::Token>,
        failed: Option<FailedLogins>,
        command: Option<CommandId>,
        now: Instant,
    ) {
        let then = match command {
            Some(command) => Stored::LoggedIn { command, failed },
            None => {
                self.failed = failed.or(self.failed.take());
                Stored::Renewed {
                    account: account.clone(),
                    token: token.clone(),
                }
            }
        };
        if let Some(token) = token {
            self.store(
                StoreRequest::SaveSession {
                    account,
                    token: Some(token),
                },
                then,
            );
        } else if let Stored::LoggedIn { command, failed } = then {
            self.reply(command, Ok(Reply::LoggedIn { failed }));
        }
        self.watch.reset();
        self.reach.on_online();
        self.paths.on_online(now);
    }

    fn on_down(&mut self, error: &CommandError, retry_in: Option<Duration>) {
        self.is_listed = false;
        self.watch.reset();
        self.paths.on_offline();
        for id in std::mem::take(&mut self.waiting_ready) {
            self.reply(id, Err(error.clone()));
        }
        let retry_in_s =
            retry_in.map(|span| u32::try_from(span.as_secs()).unwrap_or(u32::MAX).max(1));
        self.set_connection(ConnectionState::Offline {
            reason: error.to_string(),
            retry_in_s,
        });
    }

    fn on_answered(
        &mut self,
        purpose: Purpose,
        answer: Result<Answer, CommandError>,
        now: Instant,
    ) {
        match (purpose, answer) {
            (
                Purpose::List(id),
                Ok(Answer::Directory(DirectoryAnswer::Page { entries, next, .. })),
            ) => self.on_page(id, entries, next, now),
            (Purpose::List(id), Err(error)) => {
                self.listings.remove(&id);
                self.reply(id, Err(error));
            }
            (
                Purpose::Watch,
                Ok(Answer::Directory(DirectoryAnswer::Page {
                    version,
                    entries,
                    next,
                })),
            ) => {
                let tells_people = self.reach.watches_always();
                let asked = self.watch.on_page(version, entries, next, tells_people);
                self.ask_watch(asked, now);
            }
            (Purpose::Watch, Ok(Answer::Directory(DirectoryAnswer::Done))) => {
                let tells_people = self.reach.watches_always();
                let changes = self.watch.on_begun(tells_people, now);
                if self.watch.has_paused() {
                    self.reach.look_again();
                }
                self.tell_changes(changes, now);
            }
            (Purpose::Watch, Err(_)) => self.watch.on_refused(now),
            (Purpose::Find(account), answer) => self.on_found(account, answer, now),
            (Purpose::WhoIs(key), Ok(Answer::Directory(DirectoryAnswer::Owner { account }))) => {
                self.links.on_owner(key, account.as_ref(), now);
            }
            (Purpose::WhoIs(key), Err(_)) => self.links.on_owner_unknown(key, now),
            (
                Purpose::Admit(id),
                Ok(Answer::Device(DeviceAnswer::Admission { code, expires_in_s })),
            ) => {
                let code = code.to_string();
                self.reply(id, Ok(Reply::Admission { code, expires_in_s }));
            }
            (Purpose::Admit(id) | Purpose::LogOut(id), Err(error)) => self.reply(id, Err(error)),
            (Purpose::LogOut(id), Ok(Answer::Device(DeviceAnswer::Done))) => self.on_logged_out(id),
            (Purpose::Announce, Ok(Answer::Directory(DirectoryAnswer::Done))) => self.on_listed(),
            (Purpose::KeepAlive | Purpose::Unwatch, _) | (Purpose::Announce, Err(_)) => {}
            (purpose, Ok(answer)) => {
                log::debug!("the server answered {purpose:?} with {answer:?}");
                self.on_answered(purpose, Err(odd_answer()), now);
            }
        }
    }

    fn on_logged_out(&mut self, id: CommandId) {
        if let Some(account) = self.session.account().cloned() {
            self.store(
                StoreRequest::SaveSession {
                    account,
                    token: None,
                },
                Stored::Nothing,
            );
        }
        self.session.forget();
        self.reply(id, Ok(Reply::Done));
    }

    fn on_listed(&mut self) {
        self.is_listed = true;
        self.set_connection(ConnectionState::Online);
        for id in std::mem::take(&mut self.waiting_ready) {
            let failed = self.failed.take();
            self.reply(id, Ok(Reply::LoggedIn { failed }));
        }
    }

    fn on_page(
        &mut self,
        id: CommandId,
        entries: Vec<Entry>,
        next: Option<common::wire::rendezvous::Cursor>,
        now: Instant,
    ) {
        let own_key = self.own_key;
        let Some(listing) = self.listings.get_mut(&id) else {
            return;
        };
        listing.extend(entries.into_iter().map(|entry| listed(entry, own_key)));
        if listing.len() >= LIST_ENTRIES_MAX || next.is_none() {
            let listing = self.listings.remove(&id).unwrap_or_default();
            self.reply(id, Ok(Reply::Directory(listing)));
        } else {
            self.session.request(
                Purpose::List(id),
                Request::Directory(DirectoryRequest::List { after: next }),
                now,
            );
        }
    }

    fn on_push(&mut self, push: Push, now: Instant) {
        match push {
            Push::Directory(DirectoryPush::Presence { changes, .. }) => {
                self.watch.on_changes(&changes);
                self.tell_changes(changes, now);
            }
            Push::Directory(DirectoryPush::ListAgain) => self.watch.on_ended(now),
            Push::Device(DevicePush::FailedLogins(failed)) => {
                self.event(Event::FailedLogins(failed))
            }
            Push::Bye(_) => {}
        }
    }

    fn tell_changes(&mut self, changes: Vec<Change>, now: Instant) {
        for change in changes {
            let view = match change {
                Change::Online(entry) => {
                    if self.reach.is_wanted(&entry.account) {
                        let account = entry.account.clone();
                        let is_urgent = self.messages.is_overdue(&account, now);
                        self.links
                            .dial(&account, vec![entry.clone()], is_urgent, now);
                    }
                    PresenceView::Online(listed(entry, self.own_key))
                }
                Change::Offline {
                    account,
                    device_key,
                } => {
                    let fingerprint = device_key.fingerprint().to_string();
                    PresenceView::Offline {
                        account,
                        fingerprint,
                    }
                }
            };
            self.event(Event::Presence(view));
        }
    }

    // ---- reaching others -----------------------------------------------------------------------

    /// Sees to it that everybody whom something waits for is looked for. Tells whether it did
    /// something.
    fn look_for_recipients(&mut self, now: Instant) -> bool {
        if std::mem::take(&mut self.wants_are_stale) {
            self.update_wanted(now);
        }
        if !self.session.is_online() || !self.is_listed {
            return self.fail_offers_while_down();
        }
        self.keep_watch(now);
        while !self.session.is_busy() {
            let due = self
                .reach
                .take_due(now, |account| self.links.is_dialling(account));
            let Some(account) = due else { break };
            let request = Request::Directory(DirectoryRequest::Find {
                account: account.clone(),
            });
            self.session.request(Purpose::Find(account), request, now);
        }
        self.session.has_output()
    }

    /// Works out whom something waits for that no link can carry.
    fn update_wanted(&mut self, now: Instant) {
        let own = self.session.account().cloned();
        let wanted: BTreeSet<AccountName> = self
            .messages
            .recipients()
            .chain(self.sending.recipients())
            .filter(|account| Some(*account) != own.as_ref())
            .filter(|account| {
                self.links.link_to(account).is_none() || self.messages.is_overdue(account, now)
            })
            .cloned()
            .collect();
        self.reach.set_wanted(wanted);
    }

    /// Has presence changes pushed to us while they are of use.
    fn keep_watch(&mut self, now: Instant) {
        if self.reach.wants_watch() {
            let tells_people = self.reach.watches_always();
            let asked = self.watch.start(tells_people, now);
            self.ask_watch(asked, now);
        } else if self.watch.stop() {
            self.session.request(
                Purpose::Unwatch,
                Request::Directory(DirectoryRequest::Unwatch),
                now,
            );
        }
    }

    fn ask_watch(&mut self, request: Option<Request>, now: Instant) {
        if let Some(request) = request {
            self.session.request(Purpose::Watch, request, now);
        }
    }

    /// Without a server nobody new is found: offers fail at once rather than wait without a word.
    fn fail_offers_while_down(&mut self) -> bool {
        let Some(error) = self.session.down() else {
            return false;
        };
        let waiting: Vec<AccountName> = self
            .sending
            .recipients()
            .filter(|account| self.links.link_to(account).is_none())
            .cloned()
            .collect();
        for account in &waiting {
            self.sending
                .on_unreachable(account, &error, &mut self.outputs);
        }
        !waiting.is_empty()
    }

    fn on_found(
        &mut self,
        account: AccountName,
        answer: Result<Answer, CommandError>,
        now: Instant,
    ) {
        let found = match answer {
            Ok(Answer::Directory(DirectoryAnswer::Found { entries })) => Ok(entries),
            Ok(_) => Err(odd_answer()),
            Err(error) => Err(error),
        };
        let error = match found {
            Ok(entries) => {
                let is_urgent = self.messages.is_overdue(&account, now);
                if self.links.dial(&account, entries, is_urgent, now) > 0 {
                    return self.reach.on_dialling(&account);
                }
                CommandError::PeerOffline(account.clone())
            }
            Err(error) => error,
        };
        self.reach.on_failed(&account, now);
        self.sending
            .on_unreachable(&account, &error, &mut self.outputs);
    }

    // ---- links ---------------------------------------------------------------------------------

    fn on_datagrams(&mut self, datagrams: Datagrams, now: Instant) {
        // RFC 9443: STUN has 0 to 3 in its first byte, QUIC 64 to 127 and 192 to 255.
        match datagrams.bytes.first() {
            Some(64..=127 | 192..=255) => self.links.handle_datagrams(datagrams, now),
            Some(0..=3) => self.on_stun(datagrams, now),
            Some(4..=63 | 128..=191) | None => log::trace!("a datagram of no known kind"),
        }
    }

    /// A batch that begins with STUN; each datagram is looked at by itself.
    fn on_stun(&mut self, mut datagrams: Datagrams, now: Instant) {
        let rest = datagrams.bytes.len();
        let rest = datagrams.bytes.split_off(datagrams.stride.clamp(1, rest));
        if self.paths.handle_stun(&datagrams, now) {
            self.announce(now);
        }
        self.links.handle_stun(&datagrams, now);
        if !rest.is_empty() {
            datagrams.bytes = rest;
            self.on_datagrams(datagrams, now);
        }
    }

    fn on_links(&mut self, event: LinksEvent, now: Instant) {
        self.wants_are_stale = true;
        match event {
            LinksEvent::WhoIs(device_key) => {
                self.session.request(
                    Purpose::WhoIs(device_key),
                    Request::Directory(DirectoryRequest::WhoIs { device_key }),
                    now,
                );
            }
            LinksEvent::NewKey {
                account,
                device_key,
                known,
            } => self.on_new_key(account, device_key, known, now),
            LinksEvent::Ready { link, account } => {
                self.reach.on_linked(&account);
                self.sending
                    .on_ready(link, &account, &mut self.links, &mut self.outputs);
                self.send_due(&account, link, now);
            }
            LinksEvent::Frame {
                link,
                account,
                frame,
            } => self.on_frame(link, account, frame, now),
            LinksEvent::Leaf {
                link,
                header,
                bytes,
            } => {
                if !self
                    .receiving
                    .on_leaf(link, header, bytes, &mut self.outputs)
                {
                    self.links.close_for_protocol(link, now);
                }
                let is_full = self.receiving.is_full();
                self.links.pause_leaves(is_full, now);
            }
            LinksEvent::Writable { link } => {
                self.sending
                    .on_writable(link, &mut self.links, now, &mut self.outputs);
            }
            LinksEvent::Lost {
                link,
                account,
                reason,
            } => {
                log::debug!("a link ended: {reason}");
                self.inbox.on_lost(&account, link);
                self.sending.on_lost(link, &reason, &mut self.outputs);
                self.receiving.on_lost(link, &reason, &mut self.outputs);
                match self.links.link_to(&account) {
                    Some(other) => self.send_due(&account, other, now),
                    None => self.reach.on_lost(&account, now),
                }
            }
            LinksEvent::DialFailed { account, reason } => {
                log::debug!("a dial failed: {reason}");
                if !self.links.is_dialling(&account) && self.links.link_to(&account).is_none() {
                    self.reach.on_failed(&account, now);
                    let error = CommandError::File(format!(
                        "{account} is online but cannot be reached: {reason}"
                    ));
                    self.sending
                        .on_unreachable(&account, &error, &mut self.outputs);
                }
            }
        }
    }

    fn on_new_key(
        &mut self,
        account: AccountName,
        device_key: DeviceKey,
        known: usize,
        now: Instant,
    ) {
        let at = self.epoch.unix(now);
        let request = StoreRequest::PinKey {
            account: account.clone(),
            device_key,
            at,
        };
        self.remember(request);
        let fingerprint = device_key.fingerprint().to_string();
        self.event(Event::NewKey {
            account,
            fingerprint,
            known,
        });
    }

    fn on_frame(&mut self, link: LinkId, account: AccountName, frame: PeerFrame, now: Instant) {
        match frame {
            PeerFrame::Chat(ChatFrame::Message(message)) => {
                self.on_message(Some(link), account, message, now)
            }
            PeerFrame::Chat(ChatFrame::Receipt { id, state }) => {
                self.on_receipt(link, account, id, state, now)
            }
            // An id of our own that comes back names no transfer of theirs.
            PeerFrame::File(FileFrame::Offer(offer)) if self.sending.contains(offer.transfer) => {
                self.links.close_for_protocol(link, now);
            }
            PeerFrame::File(FileFrame::Offer(offer)) => {
                let (links, outputs) = (&mut self.links, &mut self.outputs);
                self.receiving
                    .on_offer(account, link, offer, links, now, outputs);
            }
            PeerFrame::File(FileFrame::Accept { transfer, have }) => {
                self.sending.on_accept(
                    transfer,
                    link,
                    &have,
                    &mut self.links,
                    now,
                    &mut self.outputs,
                );
            }
            PeerFrame::File(FileFrame::Decline { transfer, reason }) => {
                let state = command::TransferState::Declined {
                    reason: reason.to_string(),
                };
                self.sending
                    .on_ended(transfer, link, state, &mut self.outputs);
            }
            PeerFrame::File(FileFrame::Sent { transfer, digest }) => {
                self.receiving
                    .on_sent(transfer, link, digest, &mut self.links, &mut self.outputs);
            }
            PeerFrame::File(FileFrame::Received { transfer }) => {
                self.sending
                    .on_received(transfer, link, now, &mut self.outputs);
            }
            PeerFrame::File(FileFrame::Cancel { transfer, reason }) => {
                let state = command::TransferState::Failed {
                    reason: reason.to_string(),
                };
                self.sending
                    .on_ended(transfer, link, state, &mut self.outputs);
                self.receiving
                    .on_cancel(transfer, link, &reason, &mut self.outputs);
            }
        }
    }

    fn on_message(
        &mut self,
        link: Option<LinkId>,
        from: AccountName,
        message: Message,
        now: Instant,
    ) {
        let at = self.epoch.unix(now);
        let is_told = self.inbox.on_message(&from, link, message.id);
        if is_told {
            self.tell_message(from.clone(), message.clone());
        }
        let request = StoreRequest::Receive {
            from: from.clone(),
            message: message.clone(),
            at,
            chain: self.stores.chain(),
        };
        let then = Stored::Received {
            link,
            from,
            message,
            is_told,
            chain: self.stores.chain(),
        };
        self.store(request, then);
    }

    fn on_receipt(
        &mut self,
        link: LinkId,
        from: AccountName,
        id: MessageId,
        receipt: ReceiptState,
        now: Instant,
    ) {
        let state = match receipt {
            ReceiptState::Delivered => MessageState::Delivered,
            ReceiptState::Read => MessageState::Read,
        };
        let is_first = self.messages.on_receipt(&from, id);
        if is_first || state == MessageState::Read {
            self.advance(id, from.clone(), state);
            self.send_due(&from, link, now);
        }
    }

    fn send_due(&mut self, account: &AccountName, link: LinkId, now: Instant) {
        for message in self.messages.take_due(account, link, now) {
            let id = message.id;
            self.links
                .send(link, &PeerFrame::Chat(ChatFrame::Message(message)));
            let state = MessageState::Sent;
            self.event(Event::MessageState {
                id,
                to: account.clone(),
                state,
            });
        }
    }

    fn advance(&mut self, id: MessageId, to: AccountName, state: MessageState) {
        self.remember(StoreRequest::Advance {
            id,
            to: to.clone(),
            state,
        });
        self.event(Event::MessageState { id, to, state });
    }

    // ---- store and disk ------------------------------------------------------------------------

    fn store(&mut self, request: StoreRequest, then: Stored) {
        let id = self.stores.ask(then);
        self.outputs.push_back(Output::Store(id, request));
    }

    /// Has the store remember something, however long that takes.
    fn remember(&mut self, request: StoreRequest) {
        self.store(request.clone(), Stored::Upkeep(request));
    }

    fn on_stored(&mut self, id: StoreId, answer: StoreAnswer, now: Instant) {
        let Some(then) = self.stores.answered(id) else {
            return;
        };
        if let StoreAnswer::Failed(reason) = answer {
            return self.on_store_failed(then, reason, now);
        }
        match (then, answer) {
            (Stored::LoggedIn { command, failed }, _) => {
                self.reply(command, Ok(Reply::LoggedIn { failed }))
            }
            (Stored::Renewed { account, token }, _) => {
                if let Some(token) = token {
                    self.session.adopt(&account, token);
                }
            }
            (Stored::Queued { command, messages }, _) => self.on_queued(command, messages, now),
            (
                Stored::Received {
                    link,
                    from,
                    message,
                    is_told,
                    ..
                },
                StoreAnswer::Received { is_new },
            ) => {
                self.confirm_message(link, &from, message.id, now);
                if !is_told && self.inbox.on_stored(&from, link, message.id, is_new) {
                    self.tell_message(from, message);
                }
            }
            (Stored::Looked(command), StoreAnswer::Messages(items)) => {
                self.reply(command, Ok(Reply::Messages(items)));
            }
            (Stored::Marked(command), StoreAnswer::Marked(marked)) => {
                self.on_marked(marked);
                self.reply(command, Ok(Reply::Done));
            }
            (Stored::Nothing | Stored::Upkeep(_), _) => {}
            (
                then @ (Stored::Received { .. } | Stored::Looked(_) | Stored::Marked(_)),
                StoreAnswer::Done
                | StoreAnswer::Received { .. }
                | StoreAnswer::Marked(_)
                | StoreAnswer::Messages(_)
                | StoreAnswer::Failed(_),
            ) => log::error!("the store answered {then:?} with something else"),
        }
    }

    fn on_store_failed(&mut self, then: Stored, reason: String, now: Instant) {
        match then {
            Stored::Queued { command, messages } => {
                // By a link that is open it could still come, and after what is sent by the next.
                for (to, message) in messages {
                    if let Some(link) = self.messages.on_refused(&to, message.id) {
                        self.links.close(link, now);
                    }
                }
                self.reply(command, Err(CommandError::Store(reason)));
            }
            Stored::LoggedIn { command, .. }
            | Stored::Looked(command)
            | Stored::Marked(command) => self.reply(command, Err(CommandError::Store(reason))),
            Stored::Received {
                link,
                from,
                is_told,
                chain,
                ..
            } => {
                if !is_told {
                    self.inbox.on_failed(&from);
                }
                log::warn!("a message cannot be kept: {reason}");
                self.on_gap(chain, link, now);
            }
            // The server renews it at the next log-in.
            Stored::Renewed { .. } | Stored::Nothing => {
                log::warn!("the history failed: {reason}");
            }
            Stored::Upkeep(request) => {
                log::warn!("the history failed and is asked again: {reason}");
                self.upkeep.on_failed(request, now);
            }
        }
    }

    /// A received message is not kept: the links of its chain end. Their authors send what they brought
    /// again.
    fn on_gap(&mut self, chain: u64, link: Option<LinkId>, now: Instant) {
        for link in self.stores.on_gap(chain, link) {
            self.links.close(link, now);
        }
    }

    fn on_queued(
        &mut self,
        command: CommandId,
        messages: Vec<(AccountName, Message)>,
        now: Instant,
    ) {
        let ids = messages.iter().map(|(_, message)| message.id).collect();
        self.reply(command, Ok(Reply::Queued(ids)));
        let own = self.session.account().cloned();
        for (to, message) in messages {
            if own.as_ref() == Some(&to) {
                self.on_message(None, to, message, now);
            }
        }
    }

    /// Tells the author of a message that it is on disk.
    fn confirm_message(
        &mut self,
        link: Option<LinkId>,
        from: &AccountName,
        id: MessageId,
        now: Instant,
    ) {
        match link {
            Some(link) => {
                let state = ReceiptState::Delivered;
                self.links
                    .send(link, &PeerFrame::Chat(ChatFrame::Receipt { id, state }));
                self.links.on_message_stored(link, now);
            }
            // A note to oneself.
            None => self.advance(id, from.clone(), MessageState::Delivered),
        }
    }

    fn tell_message(&mut self, from: AccountName, message: Message) {
        self.event(Event::Message(HistoryItem {
            id: message.id,
            with: from,
            direction: Direction::Received,
            sent: message.sent,
            body: message.body,
            state: MessageState::Delivered,
        }));
    }

    fn on_marked(&mut self, marked: Vec<(AccountName, MessageId)>) {
        for (author, id) in marked {
            if let Some(link) = self.links.link_to(&author) {
                self.links.send(
                    link,
                    &PeerFrame::Chat(ChatFrame::Receipt {
                        id,
                        state: ReceiptState::Read,
                    }),
                );
            }
        }
    }

    fn on_disk(&mut self, transfer: TransferId, answer: DiskAnswer, now: Instant) {
        if self.sending.contains(transfer) {
            self.sending
                .handle_disk(transfer, answer, &mut self.links, now, &mut self.outputs);
        } else {
            self.receiving
                .handle_disk(transfer, answer, &mut self.links, now, &mut self.outputs);
        }
    }

    // ---- own endpoints -------------------------------------------------------------------------

    /// Announces our endpoints if they changed.
    fn announce(&mut self, now: Instant) {
        self.links.set_own_addresses(self.paths.own_addresses());
        if !self.session.is_online() || !self.paths.needs_announcing() {
            return;
        }
        let candidates = self.paths.take_announcement();
        let request = Request::Directory(DirectoryRequest::Announce {
            status: Status::Available,
            candidates,
        });
        self.session.request(Purpose::Announce, request, now);
    }

    // ---- telling -------------------------------------------------------------------------------

    fn set_connection(&mut self, state: ConnectionState) {
        if self.connection != state {
            self.connection = state.clone();
            self.event(Event::Connection(state));
        }
    }

    fn reply(&mut self, id: CommandId, reply: Result<Reply, CommandError>) {
        self.outputs.push_back(Output::Reply(id, reply));
    }

    fn event(&mut self, event: Event) {
        self.outputs.push_back(Output::Event(event));
    }
}

fn listed(entry: Entry, own_key: DeviceKey) -> Listed {
    Listed {
        account: entry.account,
        device: entry.device_name,
        fingerprint: entry.device_key.fingerprint().to_string(),
        status: entry.status,
        since: entry.since,
        endpoints: entry
            .candidates
            .into_iter()
            .map(|candidate| candidate.endpoint)
            .collect(),
        is_self: entry.device_key == own_key,
    }
}

fn invalid(error: &impl std::fmt::Display) -> CommandError {
    CommandError::Invalid(error.to_string())
}

fn odd_answer() -> CommandError {
    CommandError::Unreachable("the server gave an answer that does not fit the question".to_owned())
}

#[cfg(test)]
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "tests look for one variant among many"
)]
mod tests;
