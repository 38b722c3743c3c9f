//! `chat`: typing and reading in one place.
//!
//! One thread decides. What is typed, what arrives and what a signal asks come to it through the
//! session's inbox, so nothing garbles the line that is being typed and nothing waits for Enter.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use common::id::{AccountName, MessageId, TransferId};
use common::limits::MESSAGES_SEEN_MAX;
use common::text::{inline, joined, size, wrapped};
use common::wire::peer::MessageBody;

use super::Place;
use super::clock::time_now;
use super::file::{done_line, sendable};
use super::message::{addressed, each_once};
use super::receive::existing_folder;
use super::session::Session;
use crate::args::Chat;
use crate::client::{CallError, Happening, Typed, now};
use crate::config::{CALL_DEADLINE, shown_path};
use crate::conversation::entry::Entry as Input;
use crate::failure::{Exit, Failure};
use crate::node::command::{
    Command, CommandError, ConnectionState, Direction, Event, HistoryItem, MessageState, OfferView,
    PresenceView, Reply, TransferState,
};
use crate::ui::prompt::{Names, Prompt};
use crate::ui::{Screen, line};

/// `delivered` is told after this long, in case `read` follows at once.
const TICK_PAUSE: Duration = Duration::from_millis(400);
/// At the end of piped input: how long messages may take to be delivered.
const FAREWELL_DEADLINE: Duration = Duration::from_secs(10);
/// How often a transfer tells how far it is.
const TRANSFER_PAUSE: Duration = Duration::from_secs(5);

/// Talks until the person leaves.
pub(super) fn chat(place: &Place, args: Chat, screen: &Screen) -> Result<Exit, Failure> {
    const DOING: &str = "chat";
    let folder = existing_folder(&args.folder)?;
    let mut session = place.open(DOING)?;
    let offline = match session.ready(DOING) {
        Ok(()) => None,
        // Earlier messages can be read, and new ones written, without a server.
        Err(failure) if failure.exit() == Exit::Unreachable => Some(failure),
        Err(failure) => return Err(failure),
    };
    let names = Names::default();
    let prompt = if screen.is_json() {
        Prompt::plain(session.notifier())
    } else {
        Prompt::start(session.notifier(), names.clone())
    };
    let prompt = prompt
        .map_err(|error| Failure::new(Exit::Other, "the terminal cannot be used").because(error))?;
    let mut talk = Talk {
        session,
        screen,
        folder,
        home: directories::BaseDirs::new().map(|base| base.home_dir().to_owned()),
        prompt,
        names,
        known: BTreeSet::new(),
        with: args.with,
        seen: BTreeSet::new(),
        offers: BTreeMap::new(),
        offers_seen: 0,
        transfers: BTreeMap::new(),
        open: BTreeMap::new(),
        ticks: BTreeMap::new(),
        tick_at: None,
        connection: line::ConnectionWatch::default(),
        interrupts: 0,
        doubted: None,
        leaving_at: None,
    };
    let exit = talk.greet(offline.as_ref()).and_then(|()| talk.run());
    talk.prompt.end();
    exit
}

/// A file on its way, in either direction.
#[derive(Debug)]
struct Moving {
    verb: &'static str,
    name: String,
    whom: String,
    told: Instant,
}

struct Talk<'a> {
    session: Session,
    screen: &'a Screen,
    folder: PathBuf,
    home: Option<PathBuf>,
    prompt: Prompt,
    names: Names,
    /// Accounts that were seen: online, in messages, as recipients.
    known: BTreeSet<AccountName>,
    with: Option<AccountName>,
    seen: BTreeSet<MessageId>,
    /// Open offers by the number that the person uses.
    offers: BTreeMap<usize, OfferView>,
    offers_seen: usize,
    transfers: BTreeMap<TransferId, Moving>,
    /// Messages of this chat that are not delivered yet.
    open: BTreeMap<MessageId, AccountName>,
    /// Receipts that are not told yet.
    ticks: BTreeMap<MessageId, (AccountName, MessageState)>,
    tick_at: Option<Instant>,
    connection: line::ConnectionWatch,
    interrupts: u32,
    /// A line that may have been meant for somebody else, and was not sent.
    doubted: Option<String>,
    /// The input has ended; messages still get until then.
    leaving_at: Option<Instant>,
}

impl Talk<'_> {
    fn greet(&mut self, offline: Option<&Failure>) -> Result<(), Failure> {
        if let Some(with) = self.with.clone() {
            self.meet(&with);
        }
        self.look_around()?;
        if self.prompt.is_interactive() {
            let look = &self.screen.look;
            let me = self.session.settings().account.as_ref();
            let me = me.map_or("nobody", AccountName::as_str);
            let hint = match &self.with {
                Some(with) => format!("What you type goes to {with}."),
                None => "Type 'NAME: text', or /to NAME.".to_owned(),
            };
            let hello = format!("You are {me}. {hint} /help tells more, /quit ends.");
            self.print(&look.dim(&hello))?;
        }
        if let Some(failure) = offline {
            let state = ConnectionState::Offline {
                reason: failure.why().unwrap_or(failure.what()).to_owned(),
                retry_in_s: Some(0),
            };
            self.on_connection(&state)?;
        }
        self.catch_up()
    }

    fn run(&mut self) -> Result<Exit, Failure> {
        loop {
            if self.may_leave() {
                return Ok(self.farewell());
            }
            if self.leaving_at.is_none() {
                let prompt = self
                    .with
                    .as_ref()
                    .map_or("> ".to_owned(), |with| format!("{with}> "));
                self.prompt.ask(&prompt);
            }
            let deadline = [self.tick_at, self.leaving_at].into_iter().flatten().min();
            match self.session.next(deadline) {
                Some(Happening::Event(event)) => self.on_event(event)?,
                Some(Happening::Gone(_)) => self.on_gone()?,
                Some(Happening::Signal(signal)) => return Err(Failure::signal(signal)),
                Some(Happening::Typed(typed)) => {
                    self.prompt.answered();
                    if self.on_typed(typed)? {
                        return Ok(Exit::Done);
                    }
                }
                None => {}
            }
            self.tell_ticks()?;
        }
    }

    // ---- what happens ----------------------------------------------------------------------

    /// Learns who is around, for completion and for 'NAME: text'.
    fn look_around(&mut self) -> Result<(), Failure> {
        let me = self.session.settings().account.clone();
        if let Ok(Reply::Directory(devices)) = self.try_call(&Command::List)? {
            for device in devices {
                if Some(&device.account) != me.as_ref() {
                    self.meet(&device.account);
                }
            }
        }
        // Without a server there is nobody to watch; the node watches when it is back.
        let _ = self.try_call(&Command::Watch)?;
        Ok(())
    }

    /// What arrived before.
    fn catch_up(&mut self) -> Result<(), Failure> {
        const DOING: &str = "show what arrived before";
        let Reply::Messages(messages) = self.session.call(DOING, &Command::Unread)? else {
            return Err(Failure::unexpected_reply(DOING));
        };
        for message in messages {
            self.on_message(message)?;
        }
        let Reply::Offers(offers) = self.session.call(DOING, &Command::Offers)? else {
            return Err(Failure::unexpected_reply(DOING));
        };
        for offer in offers {
            self.on_offer(offer)?;
        }
        Ok(())
    }

    fn on_event(&mut self, event: Event) -> Result<(), Failure> {
        match event {
            Event::Message(message) => self.on_message(message),
            Event::MessageState { id, to, state } => self.on_message_state(id, to, state),
            Event::Offer(offer) => self.on_offer(offer),
            Event::Transfer { transfer, state } => self.on_transfer(transfer, &state),
            Event::Connection(state) => self.on_connection(&state),
            Event::Presence(change) => self.on_presence(&change),
            Event::FailedLogins(_) | Event::NewKey { .. } => {
                self.screen.data(&event)?;
                match line::notice(&event, &self.screen.look) {
                    Some(text) => self.print(&text),
                    None => Ok(()),
                }
            }
        }
    }

    fn on_message(&mut self, message: HistoryItem) -> Result<(), Failure> {
        if message.direction == Direction::Sent || !self.seen.insert(message.id) {
            return Ok(());
        }
        if self.seen.len() > MESSAGES_SEEN_MAX {
            self.seen.pop_first();
        }
        self.meet(&message.with);
        self.print_whole(&line::talk(&message, time_now(), &self.screen.look))?;
        let id = message.id;
        self.screen.data(&Event::Message(message))?;
        // Shown is shown: when this fails it is only shown again next time.
        let _ = self.try_call(&Command::MarkRead { ids: vec![id] })?;
        Ok(())
    }

    fn on_message_state(
        &mut self,
        id: MessageId,
        to: AccountName,
        state: MessageState,
    ) -> Result<(), Failure> {
        let is_ours = self.open.contains_key(&id) || self.seen.contains(&id);
        if !is_ours || state < MessageState::Delivered {
            return Ok(());
        }
        self.screen.data(&Event::MessageState {
            id,
            to: to.clone(),
            state,
        })?;
        self.open.remove(&id);
        self.seen.insert(id);
        // A message that is read soon after its delivery has one line, not two.
        self.ticks.insert(id, (to, state));
        self.tick_at.get_or_insert_with(|| now() + TICK_PAUSE);
        Ok(())
    }

    fn tell_ticks(&mut self) -> Result<(), Failure> {
        if self.tick_at.is_none_or(|at| now() < at) {
            return Ok(());
        }
        self.tick_at = None;
        let mut counts: BTreeMap<(AccountName, MessageState), usize> = BTreeMap::new();
        for tick in std::mem::take(&mut self.ticks).into_values() {
            *counts.entry(tick).or_default() += 1;
        }
        for ((to, state), count) in counts {
            let word = if state == MessageState::Read {
                "✓✓ read by"
            } else {
                "✓ delivered to"
            };
            let many = if count > 1 {
                format!(" ({count} messages)")
            } else {
                String::new()
            };
            self.print(&self.screen.look.dim(&format!("  {word} {to}{many}")))?;
        }
        Ok(())
    }

    fn on_offer(&mut self, offer: OfferView) -> Result<(), Failure> {
        if self
            .offers
            .values()
            .any(|other| other.transfer == offer.transfer)
        {
            return Ok(());
        }
        self.meet(&offer.from);
        self.offers_seen += 1;
        let number = self.offers_seen;
        let text = line::offer(&offer, Some(number), &self.screen.look);
        self.print(&format!("{text}: /accept {number} or /decline {number}"))?;
        self.screen.offer(&offer)?;
        self.offers.insert(number, offer);
        Ok(())
    }

    fn on_transfer(&mut self, transfer: TransferId, state: &TransferState) -> Result<(), Failure> {
        if state.is_final() {
            let mut open = self.offers.iter();
            let number =
                open.find_map(|(number, offer)| (offer.transfer == transfer).then_some(*number));
            if let Some(number) = number
                && let Some(offer) = self.offers.remove(&number)
            {
                let name = inline(&offer.name);
                let text =
                    format!("  Offer {number}, {name}, was withdrawn, or answered elsewhere.");
                self.print(&self.screen.look.dim(&text))?;
            }
        }
        let Some(moving) = self.transfers.get_mut(&transfer) else {
            return Ok(());
        };
        self.screen.data(&Event::Transfer {
            transfer,
            state: state.clone(),
        })?;
        let look = &self.screen.look;
        let Moving {
            verb, name, whom, ..
        } = &*moving;
        let text = match state {
            TransferState::Waiting => return Ok(()),
            TransferState::Moving { done, total } => {
                if now() < moving.told + TRANSFER_PAUSE {
                    return Ok(());
                }
                let percent = done.saturating_mul(100) / (*total).max(1);
                let of = format!("{} of {}", size(*done), size(*total));
                look.dim(&format!("  {name} {whom}: {percent} %, {of}"))
            }
            TransferState::Done { .. } => look.green(&done_line(verb, name, whom, state)),
            TransferState::Declined { reason } => {
                look.yellow(&format!("{name} {whom} was declined: {}", inline(reason)))
            }
            TransferState::Failed { reason } => {
                look.yellow(&format!("{name} {whom} failed: {}", inline(reason)))
            }
        };
        moving.told = now();
        if state.is_final() {
            self.transfers.remove(&transfer);
        }
        self.print(&text)
    }

    fn on_connection(&mut self, state: &ConnectionState) -> Result<(), Failure> {
        match self.connection.notice(state, &self.screen.look) {
            Some(text) => {
                self.screen.data(&Event::Connection(state.clone()))?;
                self.print(&text)
            }
            None => Ok(()),
        }
    }

    /// Only whom we talk to is worth a line.
    fn on_presence(&mut self, change: &PresenceView) -> Result<(), Failure> {
        let (account, word) = match change {
            PresenceView::Online(device) if device.is_self => return Ok(()),
            PresenceView::Online(device) => (device.account.clone(), "is online"),
            PresenceView::Offline { account, .. } => (account.clone(), "left"),
        };
        let is_news = self.with.as_ref() == Some(&account);
        self.meet(&account);
        if !is_news {
            return Ok(());
        }
        self.print(&self.screen.look.dim(&format!("  {account} {word}")))
    }

    fn on_gone(&mut self) -> Result<(), Failure> {
        if let Some(text) = self.session.revive()? {
            self.print(&self.screen.look.dim(text))?;
        }
        self.look_around()?;
        self.catch_up()
    }

    // ---- what is typed ---------------------------------------------------------------------

    /// Does what was typed. Tells whether the person leaves.
    fn on_typed(&mut self, typed: Typed) -> Result<bool, Failure> {
        let text = match typed {
            Typed::Line(text) => text,
            Typed::End if self.prompt.is_interactive() => return Ok(true),
            Typed::End => {
                self.leaving_at = Some(now() + FAREWELL_DEADLINE);
                return Ok(false);
            }
            Typed::Interrupt => {
                self.interrupts += 1;
                if self.interrupts > 1 {
                    return Ok(true);
                }
                self.print(
                    &self
                        .screen
                        .look
                        .dim("Ctrl-C again ends, and so do Ctrl-D and /quit."),
                )?;
                return Ok(false);
            }
        };
        self.interrupts = 0;
        let input = Input::parse(
            &text,
            self.with.is_some(),
            &self.known,
            self.home.as_deref(),
        );
        let doubted = self.doubted.take();
        let done = match input {
            Ok(Input::Nothing) => Ok(()),
            // Typed twice, or by a program: meant for the conversation.
            Ok(Input::Doubtful { text, .. })
                if !self.prompt.is_interactive() || doubted.as_ref() == Some(&text) =>
            {
                self.carry_out(Input::Say(text))
            }
            Ok(Input::Doubtful { name, text }) => {
                let with = self.with.as_ref().map_or("here", AccountName::as_str);
                let question = format!(
                    "Not sent: is this for {name}, who has not been seen here? '/to {name}' talks to {name}; the same line once more (Up, Enter) sends it to {with}."
                );
                self.doubted = Some(text);
                return self.warn(&question).map(|()| false);
            }
            Ok(Input::Quit) => return Ok(true),
            Ok(input) => self.carry_out(input),
            Err(mistake) => return self.warn(&mistake.to_string()).map(|()| false),
        };
        match done {
            Ok(()) => Ok(false),
            Err(failure) if failure.is_silent() => Err(failure),
            Err(failure) => self.explain(&failure).map(|()| false),
        }
    }

    fn carry_out(&mut self, input: Input) -> Result<(), Failure> {
        match input {
            Input::Nothing | Input::Quit => Ok(()),
            Input::Help => self.print(&line::chat_help()),
            Input::Say(text) | Input::Doubtful { text, .. } => match self.with.clone() {
                Some(with) => self.send(vec![with], text),
                None => self.warn("To whom? Type 'NAME: text', or /to NAME first."),
            },
            Input::SayTo(to, text) => {
                if self.with.is_none()
                    && let [only] = to.as_slice()
                {
                    self.with = Some(only.clone());
                }
                self.send(to, text)
            }
            Input::To(name) => {
                self.meet(&name);
                self.with = Some(name);
                Ok(())
            }
            Input::List => self.list(),
            Input::History(limit) => self.history(limit),
            Input::SendFile(to, path) => self.send_file(to, &path),
            Input::Answer {
                number,
                is_accepted,
            } => self.answer(number, is_accepted),
        }
    }

    fn send(&mut self, to: Vec<AccountName>, text: String) -> Result<(), Failure> {
        let to = each_once(to);
        let doing = format!("send to {}", joined(&to));
        let body = MessageBody::try_from(text).map_err(|error| {
            Failure::new(Exit::Usage, format!("could not {doing}"))
                .because(error)
                .next("make it shorter, or send it as a file")
        })?;
        let command = Command::Send {
            to: to.clone(),
            body,
            sent: time_now(),
        };
        let Reply::Queued(ids) = self.session.call(&doing, &command)? else {
            return Err(Failure::unexpected_reply(&doing));
        };
        for to in &to {
            self.meet(to);
        }
        self.open.extend(addressed(ids, to, &doing)?);
        Ok(())
    }

    fn list(&mut self) -> Result<(), Failure> {
        const DOING: &str = "list who is online";
        let Reply::Directory(devices) = self.session.call(DOING, &Command::List)? else {
            return Err(Failure::unexpected_reply(DOING));
        };
        for device in &devices {
            self.screen.data(device)?;
        }
        let look = &self.screen.look;
        for row in line::directory(&devices, look.columns(), look) {
            self.print_whole(&row)?;
        }
        Ok(())
    }

    fn history(&mut self, limit: u32) -> Result<(), Failure> {
        const DOING: &str = "show the history";
        let command = Command::History {
            with: self.with.clone(),
            limit,
        };
        let Reply::Messages(messages) = self.session.call(DOING, &command)? else {
            return Err(Failure::unexpected_reply(DOING));
        };
        if messages.is_empty() {
            self.print(&self.screen.look.dim("No messages yet."))?;
        }
        for item in &messages {
            self.screen.data(item)?;
            self.print_whole(&line::talk(item, time_now(), &self.screen.look))?;
        }
        Ok(())
    }

    fn send_file(&mut self, to: AccountName, path: &std::path::Path) -> Result<(), Failure> {
        let (path, name) = sendable(path)?;
        let doing = format!("send {name} to {to}");
        let command = Command::SendFile {
            to: to.clone(),
            path,
        };
        let Reply::Offered(transfer) = self.session.call(&doing, &command)? else {
            return Err(Failure::unexpected_reply(&doing));
        };
        let text = format!("  Offered {name} to {to}; waiting for an answer.");
        self.meet(&to);
        self.transfers.insert(
            transfer,
            Moving {
                verb: "Sent",
                name,
                whom: format!("to {to}"),
                told: now(),
            },
        );
        self.print(&self.screen.look.dim(&text))
    }

    fn answer(&mut self, number: Option<usize>, is_accepted: bool) -> Result<(), Failure> {
        let latest = self.offers.keys().next_back().copied();
        let Some((number, offer)) = number
            .or(latest)
            .and_then(|number| self.offers.remove_entry(&number))
        else {
            return self.warn("There is no such offer.");
        };
        let transfer = offer.transfer;
        let name = inline(&offer.name).into_owned();
        let command = Command::AnswerOffer {
            transfer,
            folder: is_accepted.then(|| self.folder.clone()),
        };
        match self.session.try_call(&command, CALL_DEADLINE) {
            Ok(_) => {}
            Err(CallError::Refused(CommandError::NoSuchTransfer)) => {
                return self.warn("That offer has been answered elsewhere, or was withdrawn.");
            }
            Err(error) => {
                self.offers.insert(number, offer);
                return Err(Failure::of_call("answer the offer", error));
            }
        }
        let look = &self.screen.look;
        if !is_accepted {
            return self.print(&look.dim(&format!("  Declined {name}.")));
        }
        let folder = shown_path(&self.folder);
        let text = look.dim(&format!("  Taking {name} into {folder}."));
        self.transfers.insert(
            transfer,
            Moving {
                verb: "Received",
                name,
                whom: format!("from {}", offer.from),
                told: now(),
            },
        );
        self.print(&text)
    }

    // ---- small things ----------------------------------------------------------------------

    /// At the end of piped input: everything is delivered and moved, or time is up.
    fn may_leave(&self) -> bool {
        let Some(at) = self.leaving_at else {
            return false;
        };
        (self.open.is_empty() && self.transfers.is_empty()) || now() >= at
    }

    fn farewell(&self) -> Exit {
        if self.open.is_empty() {
            return Exit::Done;
        }
        let count = self.open.len();
        self.screen.note(format!(
            "{count} messages are not delivered yet; they stay in the outbox."
        ));
        Exit::NotDelivered
    }

    /// Asks the node for something that may fail without harm; a signal still ends the chat.
    fn try_call(&mut self, command: &Command) -> Result<Result<Reply, CallError>, Failure> {
        match self.session.try_call(command, CALL_DEADLINE) {
            Err(CallError::Signal(signal)) => Err(Failure::signal(signal)),
            other => Ok(other),
        }
    }

    fn meet(&mut self, name: &AccountName) {
        if self.known.insert(name.clone()) {
            self.names.add(name.as_str());
        }
    }

    /// Prints prose, broken at words.
    fn print(&self, text: &str) -> Result<(), Failure> {
        self.print_whole(&wrapped(text, self.screen.look.columns()))
    }

    /// Prints what has a shape of its own.
    fn print_whole(&self, text: &str) -> Result<(), Failure> {
        Ok(self.prompt.print(self.screen, text)?)
    }

    fn warn(&self, text: &str) -> Result<(), Failure> {
        self.print(&self.screen.look.yellow(text))
    }

    fn explain(&self, failure: &Failure) -> Result<(), Failure> {
        let look = &self.screen.look;
        let mut text = format!("{} {}", look.red("error:"), failure.what());
        for (head, line) in [("  why:", failure.why()), (" next:", failure.what_next())] {
            if let Some(line) = line {
                text.push_str(&format!("\n{} {line}", look.dim(head)));
            }
        }
        self.screen.data(&serde_json::json!({ "error": failure }))?;
        self.print(&text)
    }
}
