//! `send` and `outbox`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read};
use std::ops::ControlFlow;
use std::os::fd::AsFd;
use std::os::unix::fs::FileTypeExt;
use std::time::{Duration, Instant};

use common::id::{AccountName, MessageId};
use common::limits::{MESSAGE_LEN_MAX, RECIPIENTS_MAX, WITHDRAW_MAX};
use common::os::clock::unix_time;
use common::text::joined;
use common::wire::peer::{MessageBody, MessageBodyError};
use serde::Serialize;
use serde_json::json;

use super::Place;
use super::node_handle::{LATEST_COUNT, NodeHandle, tell_notice};
use crate::args::{Cancel, Send, Waiting};
use crate::client::{CallError, Happening, now};
use crate::config::{CALL_TIMEOUT, Letter, LetterMistake, LetterText};
use crate::conversation::connection::{ConnectionChange, ConnectionWatch};
use crate::conversation::presence::Presence;
use crate::conversation::recipients::addressed;
use crate::failure::{Exit, Failure, RELAY_OFF, RELAY_OFF_HELP};
use crate::node::command::{
    Command, ConnectionState, Event, HistoryItem, HistoryQuery, MessageState, PresenceView, Reply,
};
use crate::ui::{OutputClosed, Screen, line};

/// How long a message may take before the person is told whether its recipient is there: several times
/// as long as a delivery over a new link.
const LOOK_PAUSE: Duration = Duration::from_millis(400);
/// How long a text may be held back to look whether its first word names somebody who is online: many
/// times as long as a log-in.
const NAME_LOOK_TIMEOUT: Duration = Duration::from_secs(3);

/// What to do with what is no text, or too much of it.
const AS_FILE: &str = "put it into a file and use 'peer send-file'";

/// Sends a text to everybody named, and waits until each has it unless told not to.
pub(super) fn send(place: &Place, args: Send, screen: &Screen) -> Result<Exit, Failure> {
    let words = args.words();
    let has_input = has_input();
    let Letter { to, text } = Letter::parse(args.to, &words, has_input)?;
    let doing = format!("send to {}", joined(&to));
    if to.len() > RECIPIENTS_MAX {
        return Err(Failure::new(Exit::Usage, "could not send the text")
            .because(format!(
                "{} recipients are more than {RECIPIENTS_MAX}",
                to.len()
            ))
            .next("send it in several steps"));
    }
    let settings = place.settings(&doing)?;
    let (body, suspect) = match text {
        LetterText::Typed { text, first } => {
            let suspect = first
                .filter(|first| !to.contains(first))
                .map(|name| Suspect::new(name, &text, has_input));
            (body(text)?, suspect)
        }
        LetterText::Stdin => (body(read_stdin()?)?, None),
    };
    let mut session = place.open_with(settings)?;
    let mut unread = None;
    if let Some(suspect) = suspect {
        if is_other_account(&mut session, &suspect.name)? {
            return Err(suspect.mistaken_recipient(&to));
        }
        unread = suspect.unread_input(&to);
    }
    let sent = unix_time();
    let command = Command::Send {
        to: to.clone(),
        body,
        sent,
    };
    let Reply::Queued(ids) = session.call(&doing, &command)? else {
        return Err(Failure::unexpected_reply(&doing));
    };
    if let Some(note) = unread {
        screen.note(screen.error_look.dim(&note));
    }
    let messages = addressed(ids, to).ok_or_else(|| Failure::unexpected_reply(&doing))?;
    let mut undelivered = Undelivered::new(messages);
    if args.no_wait {
        undelivered.tell_unawaited(session.is_owner(), screen)?;
        if session.may_lack_relay() {
            screen.note(line::relay_off(&screen.error_look));
        }
        return Ok(Exit::Done);
    }
    let span = Duration::from_secs(args.timeout.into());
    let waited = undelivered.wait(&mut session, &doing, span, screen);
    waited.map_err(|failure| undelivered.on_failure(failure, &mut session, screen))?;
    if undelivered.open.is_empty() {
        return Ok(undelivered.exit());
    }
    undelivered.tell_rest(screen)?;
    tell_how_it_goes_out(screen);
    Ok(Exit::NotDelivered)
}

/// Says what becomes of a message that nothing sends once this program has ended.
fn tell_how_it_goes_out(screen: &Screen) {
    screen.note(screen.error_look.dim(
        "It stays in the outbox and goes out while any 'peer' command of this profile runs, for example 'peer chat'.",
    ));
}

/// Tells whether standard input is something that ends by itself: a pipe, a socket or a file.
fn has_input() -> bool {
    let Ok(stdin) = io::stdin().as_fd().try_clone_to_owned() else {
        return false;
    };
    let metadata = File::from(stdin).metadata();
    metadata.is_ok_and(|metadata| {
        let kind = metadata.file_type();
        kind.is_fifo() || kind.is_socket() || kind.is_file()
    })
}

/// Tells whether this is the name of somebody that this device has talked to, or who is online now.
fn is_other_account(session: &mut NodeHandle, name: &AccountName) -> Result<bool, Failure> {
    if session.settings().account.as_ref() == Some(name) {
        return Ok(false);
    }
    loop {
        match is_known(session, name) {
            Ok(is_known) => return Ok(is_known),
            Err(CallError::Signal(signal)) => return Err(Failure::signal(signal)),
            Err(CallError::Gone(_)) => {
                session.revive()?;
            }
            // Without a server nobody is online, and the text waits in the outbox.
            Err(CallError::Refused(_) | CallError::TimedOut) => return Ok(false),
        }
    }
}

fn is_known(session: &mut NodeHandle, name: &AccountName) -> Result<bool, CallError> {
    let contacts = session.try_call(&Command::Contacts, CALL_TIMEOUT)?;
    if matches!(contacts, Reply::Contacts(contacts) if contacts.contains(name)) {
        return Ok(true);
    }
    session.try_call(&Command::WaitReady, NAME_LOOK_TIMEOUT)?;
    let listed = session.try_call(&Command::List, NAME_LOOK_TIMEOUT)?;
    Ok(matches!(
        listed,
        Reply::Directory(devices) if devices.iter().any(|device| device.account == *name)
    ))
}

/// The first word of a text, which names somebody who was perhaps meant to get it.
struct Suspect {
    name: AccountName,
    extent: Extent,
}

/// How much of the text the name is.
enum Extent {
    FirstWord,
    Whole,
    /// All of it, and there is a pipe or a file that is not asked for.
    WholeBesideInput,
}

impl Suspect {
    fn new(name: AccountName, text: &str, has_input: bool) -> Self {
        let extent = match text.eq_ignore_ascii_case(name.as_str()) {
            false => Extent::FirstWord,
            true if has_input => Extent::WholeBesideInput,
            true => Extent::Whole,
        };
        Self { name, extent }
    }

    /// What to say where only the word is sent, though standard input may have been meant. It is no mistake
    /// to be refused: whoever sends line by line has a pipe there, too.
    fn unread_input(&self, to: &[AccountName]) -> Option<String> {
        let name = &self.name;
        let names: Vec<_> = to.iter().map(AccountName::as_str).collect();
        let names = names.join(",");
        match self.extent {
            Extent::WholeBesideInput => Some(format!(
                "Sent is the word '{name}'; standard input was not read. To send what is piped: peer send {names},{name} - (or peer send {names} -)."
            )),
            Extent::FirstWord | Extent::Whole => None,
        }
    }

    fn mistaken_recipient(&self, to: &[AccountName]) -> Failure {
        let name = &self.name;
        let names: Vec<_> = to.iter().map(AccountName::as_str).collect();
        let (alone, options) = (joined(to), names.join(" --to "));
        let names = names.join(",");
        let (why, next) = match self.extent {
            Extent::FirstWord => (
                format!("it begins with '{name}', which is an account"),
                format!(
                    "for both: peer send {names},{name} 'TEXT'; for {alone} alone, quote the text: peer send {names} '{name} …'"
                ),
            ),
            Extent::Whole => (
                format!("it is only '{name}', which is an account"),
                format!(
                    "for both: peer send {names},{name} 'TEXT'; for {alone} alone, that word: peer send --to {options} {name}"
                ),
            ),
            Extent::WholeBesideInput => (
                format!(
                    "it is only '{name}', which is an account, and standard input was not read"
                ),
                format!(
                    "what is piped, for both: peer send {names},{name} -; for {alone} alone: peer send {names} -; only that word: peer send --to {options} {name}"
                ),
            ),
        };
        Failure::new(Exit::Usage, "could not tell for whom the text is")
            .because(why)
            .next(next)
    }
}

fn body(mut text: String) -> Result<MessageBody, Failure> {
    if text.trim().is_empty() {
        // Blanks say no more than nothing does.
        text.clear();
    }
    MessageBody::try_from(text).map_err(|error| {
        Failure::new(Exit::Usage, "could not send the text")
            .because(error)
            .next(match error {
                MessageBodyError::Empty => "change the text and send it again",
                MessageBodyError::TooLong { .. } => AS_FILE,
            })
    })
}

impl From<LetterMistake> for Failure {
    fn from(mistake: LetterMistake) -> Self {
        let failure = Self::new(Exit::Usage, "could not send a text").because(&mistake);
        match mistake {
            LetterMistake::NoText(to) => {
                let names: Vec<_> = to.iter().map(AccountName::as_str).collect();
                failure.next(format!(
                    "add it: peer send {} 'See you at eight.'",
                    names.join(",")
                ))
            }
            LetterMistake::Comma(_) => failure.next(
                "for example: peer send bob,carol 'See you at eight.' A text that begins so is one quoted word, or goes behind --to",
            ),
            LetterMistake::NoRecipient
            | LetterMistake::EmptyName(_)
            | LetterMistake::Name { .. } => {
                failure.next("for example: peer send bob,carol 'See you at eight.'")
            }
        }
    }
}

fn read_stdin() -> Result<String, Failure> {
    let mut bytes = Vec::new();
    let longest = MESSAGE_LEN_MAX as u64 + 1;
    let read = io::stdin().lock().take(longest).read_to_end(&mut bytes);
    read.map_err(|error| Failure::new(Exit::File, "could not read standard input").because(error))?;
    if bytes.len() > MESSAGE_LEN_MAX {
        return Err(Failure::new(Exit::Usage, "could not send the text")
            .because(format!(
                "it has more than the {MESSAGE_LEN_MAX} bytes of a message"
            ))
            .next(AS_FILE));
    }
    let text = String::from_utf8(bytes).map_err(|_| {
        Failure::new(Exit::Usage, "could not send the text")
            .because("it is not UTF-8")
            .next(AS_FILE)
    })?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

/// The messages of one `send` that are not delivered yet.
struct Undelivered {
    open: Vec<(MessageId, AccountName, MessageState)>,
    /// Another program has taken one of them back.
    is_withdrawn: bool,
    connection: ConnectionWatch,
    presence: Presence,
    /// Recipients that the person was told are not there.
    told: BTreeSet<AccountName>,
    /// The person was told that the node is still connecting.
    is_told_connecting: bool,
}

#[derive(Serialize)]
struct MessageStateView<'a> {
    to: &'a AccountName,
    id: MessageId,
    state: MessageState,
    /// Whether the recipient has a device online, where the state is not final and that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    online: Option<bool>,
}

impl Undelivered {
    fn new(messages: impl Iterator<Item = (MessageId, AccountName)>) -> Self {
        Self {
            open: messages
                .map(|(id, to)| (id, to, MessageState::Queued))
                .collect(),
            is_withdrawn: false,
            connection: ConnectionWatch::default(),
            presence: Presence::default(),
            told: BTreeSet::new(),
            is_told_connecting: false,
        }
    }

    /// Waits for at most `span` until everything is delivered, and says who is not there. Ends early where
    /// nothing can be delivered before a person has acted; `doing` is what cannot be done then.
    fn wait(
        &mut self,
        session: &mut NodeHandle,
        doing: &str,
        span: Duration,
        screen: &Screen,
    ) -> Result<(), Failure> {
        let deadline = now() + span;
        // Most messages are delivered before it is of use to know who is there.
        let mut look_at = Some(now() + LOOK_PAUSE);
        while !self.open.is_empty() {
            let until = look_at.map_or(deadline, |at| at.min(deadline));
            match session.next(Some(until)) {
                Some(Happening::Event(Event::Addressed { id, new, .. })) => {
                    self.on_addressed(id, new);
                }
                Some(Happening::Event(Event::MessageState { id, state, .. })) => {
                    self.advance(id, state, screen)?;
                }
                Some(Happening::Event(Event::Withdrawn { ids, .. })) => {
                    self.on_withdrawn(&ids, screen)?;
                }
                Some(Happening::Event(Event::Connection(state))) => {
                    if state == ConnectionState::Online && !self.presence.is_current() {
                        look_at = look_at.or(Some(now() + LOOK_PAUSE));
                    }
                    if self
                        .on_connection(&state, session, doing, deadline, screen)?
                        .is_break()
                    {
                        return Ok(());
                    }
                }
                Some(Happening::Event(Event::Presence(change))) => {
                    self.on_presence(&change, screen);
                }
                Some(Happening::Event(Event::RelayOff)) => {
                    return Err(self.relay_off(doing, screen)?);
                }
                Some(Happening::Event(event)) => tell_notice(&event, screen),
                Some(Happening::Gone(_)) => {
                    session.revive()?;
                    look_at = Some(now() + LOOK_PAUSE);
                }
                Some(Happening::Signal(signal)) => return Err(Failure::signal(signal)),
                Some(Happening::Typed(_) | Happening::NotText | Happening::Handled(_)) => {}
                None if look_at.is_some_and(|at| at < deadline) => {
                    look_at = None;
                    self.catch_up(session, screen)?;
                    let Reply::Status(node) = session.call(doing, &Command::Status)? else {
                        return Err(Failure::unexpected_reply(doing));
                    };
                    // This program may have subscribed after the log-in.
                    if node.lacks_relay() {
                        return Err(self.relay_off(doing, screen)?);
                    }
                    let state = node.connection;
                    if self
                        .on_connection(&state, session, doing, deadline, screen)?
                        .is_break()
                    {
                        return Ok(());
                    }
                    if state == ConnectionState::Online {
                        self.look_around(session, deadline)?;
                        self.tell_absent(deadline, screen);
                    } else if state == ConnectionState::Connecting {
                        self.tell_connecting(session, deadline, screen);
                    }
                }
                None => return Ok(()),
            }
        }
        Ok(())
    }

    /// Says that the connection to the server is lost, or back. Breaks where only a person can bring it
    /// back.
    fn on_connection(
        &mut self,
        state: &ConnectionState,
        session: &mut NodeHandle,
        doing: &str,
        deadline: Instant,
        screen: &Screen,
    ) -> Result<ControlFlow<()>, Failure> {
        let change = self.connection.on_state(state);
        let ConnectionState::Offline {
            is_other_server,
            retry_in_s,
            ..
        } = state
        else {
            if let Some(change) = change {
                screen.note(line::connection_change(&change, &screen.error_look));
            }
            return Ok(ControlFlow::Continue(()));
        };
        self.presence.on_connection_lost();
        let left = deadline.saturating_duration_since(now());
        match change {
            Some(ConnectionChange::Lost {
                reason,
                is_retried: true,
            }) => screen.note(line::offline_awaited(&reason, left, &screen.error_look)),
            // Without an account there is nobody who could send anything.
            _ if retry_in_s.is_none() => {
                if let Err(failure) = session.ready(doing)
                    && failure.exit() == Exit::NotLoggedIn
                {
                    return Err(failure);
                }
                if let Some(change) = change {
                    screen.note(line::connection_change(&change, &screen.error_look));
                }
            }
            Some(change) => screen.note(line::connection_change(&change, &screen.error_look)),
            None => {}
        }
        Ok(if retry_in_s.is_none() || *is_other_server {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        })
    }

    /// Says once that the node is still connecting, and for how long that is waited for.
    fn tell_connecting(&mut self, session: &NodeHandle, deadline: Instant, screen: &Screen) {
        if !std::mem::replace(&mut self.is_told_connecting, true) && !self.connection.is_lost() {
            let left = deadline.saturating_duration_since(now());
            let server = session.settings().server().to_string();
            let text = line::connecting_awaited(&server, left);
            screen.note(screen.error_look.dim(&text));
        }
    }

    /// What to say of `failure`, which ended the waiting: whoever gives up is told how to take back what is
    /// queued, and what a device without an account cannot send does not stay in its outbox.
    fn on_failure(&self, failure: Failure, session: &mut NodeHandle, screen: &Screen) -> Failure {
        if matches!(failure.exit(), Exit::Interrupted | Exit::Terminated) {
            return self.given_up(failure, screen);
        }
        if failure.exit() == Exit::NotLoggedIn {
            let ids = self.open.iter().map(|(id, ..)| *id).collect();
            // What cannot be taken back waits for the next log-in, as what was written before does.
            let _ = session.try_call(&Command::Withdraw { ids }, CALL_TIMEOUT);
        }
        failure
    }

    /// Waiting is of no use: nobody can be reached.
    fn relay_off(&self, doing: &str, screen: &Screen) -> Result<Failure, OutputClosed> {
        self.tell_open(screen)?;
        let failure = Failure::new(Exit::NotDelivered, format!("could not {doing}"));
        Ok(failure.because(RELAY_OFF).next(format!(
            "{}. What was not delivered stays in the outbox",
            RELAY_OFF_HELP
        )))
    }

    /// Tells a program how far each message has got.
    fn tell_open(&self, screen: &Screen) -> Result<(), OutputClosed> {
        let mut open = self.open.iter();
        open.try_for_each(|(id, to, state)| self.data(to, *id, *state, screen))
    }

    fn given_up(&self, failure: Failure, screen: &Screen) -> Failure {
        if let Err(closed) = self.tell_open(screen) {
            return closed.into();
        }
        let of_state = |wanted| {
            let open = self.open.iter().filter(move |(.., state)| *state == wanted);
            let names: Vec<_> = open.map(|(_, to, _)| to.as_str()).collect();
            names
        };
        let (queued, sent) = (of_state(MessageState::Queued), of_state(MessageState::Sent));
        match (queued.as_slice(), sent.as_slice()) {
            ([], []) => failure,
            ([], [to, ..]) => failure.next(format!(
                "It is sent, without a receipt yet; 'peer history {to}' shows whether it arrived."
            )),
            ([to], _) => failure.next(format!(
                "It stays in the outbox; take it back with 'peer outbox cancel {to}'."
            )),
            (several, _) => failure.next(format!(
                "They stay in the outbox; take them back with 'peer outbox cancel {}'.",
                several.join(" ")
            )),
        }
    }

    /// Learns what became of the messages while nobody told: another node may have had them.
    fn catch_up(&mut self, session: &mut NodeHandle, screen: &Screen) -> Result<(), Failure> {
        let recipients: BTreeSet<AccountName> =
            self.open.iter().map(|(_, to, _)| to.clone()).collect();
        for to in recipients {
            let command = Command::History(HistoryQuery::latest(Some(to), LATEST_COUNT));
            match session.try_call(&command, CALL_TIMEOUT) {
                Ok(Reply::Messages(items)) => {
                    for HistoryItem { id, state, .. } in items {
                        self.advance(id, state, screen)?;
                    }
                }
                Err(CallError::Signal(signal)) => return Err(Failure::signal(signal)),
                // Events tell what comes from now on.
                Ok(_) | Err(CallError::Refused(_) | CallError::TimedOut | CallError::Gone(_)) => {}
            }
        }
        Ok(())
    }

    /// Asks who is online now and from now on. Without a session it stays unknown.
    fn look_around(&mut self, session: &mut NodeHandle, deadline: Instant) -> Result<(), Failure> {
        for command in [Command::Contacts, Command::Watch, Command::List] {
            let left = deadline.saturating_duration_since(now());
            match session.try_call(&command, left) {
                Ok(Reply::Contacts(contacts)) => {
                    for contact in &contacts {
                        self.presence.add_existing(contact);
                    }
                }
                Ok(Reply::Directory(devices)) => {
                    self.presence.on_listed(&devices, now());
                }
                Err(CallError::Signal(signal)) => return Err(Failure::signal(signal)),
                // The message goes out all the same.
                Ok(_) | Err(CallError::Refused(_) | CallError::TimedOut | CallError::Gone(_)) => {}
            }
        }
        Ok(())
    }

    /// Says once of each recipient who is not there that it is so, and for how long that is waited for.
    fn tell_absent(&mut self, deadline: Instant, screen: &Screen) {
        let left = deadline.saturating_duration_since(now());
        for (_, to, _) in &self.open {
            if let Some(absence) = self.presence.absence(to)
                && self.told.insert(to.clone())
            {
                let text = line::awaited(to, absence, left);
                screen.note(screen.error_look.dim(&text));
            }
        }
    }

    fn on_presence(&mut self, change: &PresenceView, screen: &Screen) {
        if let Some((account, true)) = self.presence.on_change(change)
            && self.told.remove(&account)
        {
            let text = format!("{account} is online.");
            screen.note(screen.error_look.dim(&text));
        }
    }

    fn advance(
        &mut self,
        id: MessageId,
        state: MessageState,
        screen: &Screen,
    ) -> Result<(), Failure> {
        let Some(index) = self.open.iter().position(|(open, ..)| *open == id) else {
            return Ok(());
        };
        let message = &mut self.open[index];
        message.2 = message.2.max(state);
        if message.2 < MessageState::Delivered {
            return Ok(());
        }
        let (id, to, state) = self.open.remove(index);
        self.tell(&to, id, state, screen)
    }

    /// A message has another identifier from now on.
    fn on_addressed(&mut self, id: MessageId, new: MessageId) {
        let mut open = self.open.iter_mut();
        if let Some((open, ..)) = open.find(|(open, ..)| *open == id) {
            *open = new;
        }
    }

    /// Says of messages that another program has taken back that nothing is to be waited for.
    fn on_withdrawn(&mut self, ids: &[MessageId], screen: &Screen) -> Result<(), Failure> {
        let is_it = |(id, ..): &mut (MessageId, AccountName, MessageState)| ids.contains(id);
        for (id, to, _) in self.open.extract_if(.., is_it) {
            self.is_withdrawn = true;
            screen.say(line::taken_back(&to, &screen.look))?;
            screen.data(&json!({ "to": to, "id": id, "state": "cancelled" }))?;
        }
        Ok(())
    }

    /// What it comes to once nothing is open.
    const fn exit(&self) -> Exit {
        if self.is_withdrawn {
            Exit::NotDelivered
        } else {
            Exit::Done
        }
    }

    fn tell_rest(&self, screen: &Screen) -> Result<(), Failure> {
        for (id, to, state) in &self.open {
            self.tell(to, *id, *state, screen)?;
        }
        Ok(())
    }

    /// Says of each message that it is queued, and when it goes out. Without another process that has the
    /// node, nothing sends it once this one has ended.
    fn tell_unawaited(&self, is_owner: bool, screen: &Screen) -> Result<(), Failure> {
        if is_owner {
            self.tell_rest(screen)?;
            tell_how_it_goes_out(screen);
            return Ok(());
        }
        for (id, to, state) in &self.open {
            screen.say(line::unawaited(to, &screen.look))?;
            self.data(to, *id, *state, screen)?;
        }
        Ok(())
    }

    fn tell(
        &self,
        to: &AccountName,
        id: MessageId,
        state: MessageState,
        screen: &Screen,
    ) -> Result<(), Failure> {
        let online = self.online(to, state);
        screen.say(line::delivery(to, state, online, &screen.look))?;
        self.data(to, id, state, screen)?;
        Ok(())
    }

    fn data(
        &self,
        to: &AccountName,
        id: MessageId,
        state: MessageState,
        screen: &Screen,
    ) -> Result<(), OutputClosed> {
        screen.data(&MessageStateView {
            to,
            id,
            state,
            online: self.online(to, state),
        })
    }

    /// Whether the recipient of a message that is not delivered has a device online, if that is known.
    fn online(&self, to: &AccountName, state: MessageState) -> Option<bool> {
        let is_known = self.presence.is_current() && state < MessageState::Delivered;
        is_known.then(|| self.presence.absence(to).is_none())
    }
}

/// Shows what waits for people who are away.
pub(super) fn outbox(place: &Place, screen: &Screen) -> Result<Exit, Failure> {
    const DOING: &str = "show the outbox";
    let mut session = place.open(DOING)?;
    let waiting = waiting(&mut session, DOING)?;
    if waiting.is_empty() {
        screen.note("Nothing waits.");
    }
    for item in &waiting {
        screen.data(item)?;
        screen.say(line::message(item, &screen.look))?;
    }
    Ok(Exit::Done)
}

/// Takes back messages that wait.
pub(super) fn cancel(place: &Place, args: &Cancel, screen: &Screen) -> Result<Exit, Failure> {
    const DOING: &str = "cancel messages";
    let mut session = place.open(DOING)?;
    let mut waiting = waiting(&mut session, DOING)?;
    let is_missing = |what: &&Waiting| !waiting.iter().any(|item| what.means(item));
    let missing: Vec<_> = args.what.iter().filter(is_missing).collect();
    waiting.retain(|item| args.all || args.what.iter().any(|what| what.means(item)));
    let mut withdrawn = BTreeSet::new();
    for items in waiting.chunks(WITHDRAW_MAX) {
        let ids = items.iter().map(|item| item.id).collect();
        let Reply::Withdrawn(ids) = session.call(DOING, &Command::Withdraw { ids })? else {
            return Err(Failure::unexpected_reply(DOING));
        };
        withdrawn.extend(ids);
    }
    for item in waiting.iter().filter(|item| withdrawn.contains(&item.id)) {
        let mut told = json!(item);
        told["state"] = "cancelled".into();
        screen.data(&told)?;
        screen.say(line::withdrawn(item, &screen.look))?;
    }
    if !withdrawn.is_empty() {
        screen.note(format!("Cancelled: {}.", withdrawn.len()));
    }
    waiting.retain(|item| !withdrawn.contains(&item.id));
    if !waiting.is_empty() {
        return Err(carried(&waiting));
    }
    if !missing.is_empty() {
        return Err(Failure::new(Exit::Other, format!("could not {DOING}"))
            .because(format!("nothing waits for {}", joined(&missing)))
            .next("see what waits, and for whom, with 'peer outbox'"));
    }
    if withdrawn.is_empty() {
        screen.note("Nothing waits.");
    }
    Ok(Exit::Done)
}

impl Waiting {
    /// Tells whether this message is meant.
    fn means(&self, item: &HistoryItem) -> bool {
        match self {
            Self::For(name) => item.with == *name,
            Self::Id(id, name) => item.id == *id || item.with == *name,
        }
    }
}

/// These messages, at least one, cannot be taken back.
fn carried(items: &[HistoryItem]) -> Failure {
    let mut counts: BTreeMap<&AccountName, usize> = BTreeMap::new();
    for item in items {
        *counts.entry(&item.with).or_default() += 1;
    }
    let words = counts.into_iter().map(|(to, count)| match count {
        1 => format!("1 message to {to}"),
        count => format!("{count} messages to {to}"),
    });
    let words = joined(&Vec::from_iter(words));
    Failure::new(Exit::Other, format!("could not take back {words}"))
        .because("a link has carried it, so it may have arrived")
        .next("'peer history NAME' shows whether it has")
}

fn waiting(session: &mut NodeHandle, doing: &str) -> Result<Vec<HistoryItem>, Failure> {
    let Reply::Messages(items) = session.call(doing, &Command::Outbox)? else {
        return Err(Failure::unexpected_reply(doing));
    };
    Ok(items)
}
