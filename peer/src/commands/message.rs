//! `send`, `outbox` and `history`.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::fs::FileTypeExt;
use std::time::{Duration, Instant};

use common::id::{AccountName, MessageId};
use common::limits::{MESSAGE_LEN_MAX, RECIPIENTS_MAX, WITHDRAW_MAX};
use common::os::clock::unix_time;
use common::text::joined;
use common::wire::peer::MessageBody;
use serde::Serialize;
use serde_json::json;

use super::Place;
use super::node_handle::{NodeHandle, tell_notice};
use crate::args::{Cancel, History, Send, Waiting};
use crate::client::{CallError, Happening, now};
use crate::config::{Letter, LetterMistake, LetterText};
use crate::conversation::connection::ConnectionWatch;
use crate::conversation::presence::Presence;
use crate::conversation::recipients::addressed;
use crate::failure::{Exit, Failure};
use crate::node::command::{
    Command, ConnectionState, Event, HistoryItem, MessageState, PresenceView, Reply,
};
use crate::ui::{Screen, line};

/// How long a message may take before the person is told whether its recipient is there: several times
/// as long as a delivery over a new link.
const LOOK_PAUSE: Duration = Duration::from_millis(400);
/// How long a text may be held back to look whether its first word names somebody who is online: many
/// times as long as a log-in.
const NAME_LOOK_TIMEOUT: Duration = Duration::from_secs(3);

/// Sends a text to everybody named, and waits until each has it unless told not to.
pub(super) fn send(place: &Place, args: Send, screen: &Screen) -> Result<Exit, Failure> {
    let words = args.words();
    let Letter { to, text } = Letter::parse(args.to, &words, has_input())?;
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
    let (body, first) = match text {
        LetterText::Typed { text, first } => (body(text)?, first),
        LetterText::Stdin => (body(read_stdin()?)?, None),
    };
    let mut session = NodeHandle::open(place.profile.clone(), settings, place.udp)?;
    if let Some(first) = first.filter(|first| !to.contains(first))
        && is_other_account(&mut session, &first)?
    {
        return Err(mistaken_recipient(&to, &first));
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
    let messages = addressed(ids, to).ok_or_else(|| Failure::unexpected_reply(&doing))?;
    let mut undelivered = Undelivered::new(messages);
    if args.no_wait {
        undelivered.tell_rest(screen)?;
        return Ok(Exit::Done);
    }
    let span = Duration::from_secs(args.timeout.into());
    undelivered.wait(&mut session, span, screen)?;
    if undelivered.open.is_empty() {
        return Ok(Exit::Done);
    }
    undelivered.tell_rest(screen)?;
    if session.is_owner() && !screen.is_json() {
        screen.note(screen.error_look.dim(
            "It stays in the outbox and goes out while any 'peer' command of this profile runs, for example 'peer chat'.",
        ));
    }
    Ok(Exit::NotDelivered)
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
    const DOING: &str = "look whether the text begins with a name";
    if session.settings().account.as_ref() == Some(name) {
        return Ok(false);
    }
    let Reply::Contacts(contacts) = session.call(DOING, &Command::Contacts)? else {
        return Err(Failure::unexpected_reply(DOING));
    };
    if contacts.contains(name) {
        return Ok(true);
    }
    for command in [Command::WaitReady, Command::List] {
        match session.try_call(&command, NAME_LOOK_TIMEOUT) {
            Ok(Reply::Directory(devices)) => {
                return Ok(devices.iter().any(|device| device.account == *name));
            }
            Ok(_) => {}
            Err(CallError::Signal(signal)) => return Err(Failure::signal(signal)),
            // Without a server nobody is online, and the text waits in the outbox.
            Err(CallError::Refused(_) | CallError::TimedOut | CallError::Gone(_)) => break,
        }
    }
    Ok(false)
}

/// The text begins with the name of somebody who was perhaps meant to get it.
fn mistaken_recipient(to: &[AccountName], first: &AccountName) -> Failure {
    let names: Vec<_> = to.iter().map(AccountName::as_str).collect();
    let names = names.join(",");
    Failure::new(Exit::Usage, "could not tell for whom the text is")
        .because(format!("it begins with '{first}', which is an account"))
        .next(format!(
            "for both: peer send {names},{first} 'TEXT'; for {} alone, quote the text: peer send {names} '{first} …'",
            joined(to)
        ))
}

fn body(mut text: String) -> Result<MessageBody, Failure> {
    if text.trim().is_empty() {
        // Blanks say no more than nothing does.
        text.clear();
    }
    MessageBody::try_from(text).map_err(|error| {
        Failure::new(Exit::Usage, "could not send the text")
            .because(error)
            .next("change the text and send it again")
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
            .next("put it into a file and use 'peer send-file'"));
    }
    let text = String::from_utf8(bytes).map_err(|_| {
        Failure::new(Exit::Usage, "could not send the text")
            .because("it is not UTF-8")
            .next("put it into a file and use 'peer send-file'")
    })?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

/// The messages of one `send` that are not delivered yet.
struct Undelivered {
    open: Vec<(MessageId, AccountName, MessageState)>,
    connection: ConnectionWatch,
    presence: Presence,
    /// Recipients that the person was told are not there.
    told: BTreeSet<AccountName>,
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
            connection: ConnectionWatch::default(),
            presence: Presence::default(),
            told: BTreeSet::new(),
        }
    }

    /// Waits for at most `span` until everything is delivered, and says who is not there.
    fn wait(
        &mut self,
        session: &mut NodeHandle,
        span: Duration,
        screen: &Screen,
    ) -> Result<(), Failure> {
        let deadline = now() + span;
        // Most messages are delivered before it is of use to know who is there.
        let mut look_at = Some(now() + LOOK_PAUSE);
        while !self.open.is_empty() {
            let until = look_at.map_or(deadline, |at| at.min(deadline));
            match session.next(Some(until)) {
                Some(Happening::Event(Event::MessageState { id, state, .. })) => {
                    self.advance(id, state, screen)?;
                }
                Some(Happening::Event(Event::Connection(state))) => {
                    if let Some(change) = self.connection.on_state(&state) {
                        screen.note(line::connection_change(&change, &screen.error_look));
                    }
                    match state {
                        // A node that has just started has no links: nothing can be delivered.
                        ConnectionState::Offline { .. } if session.is_owner() => return Ok(()),
                        ConnectionState::Offline { .. } => self.presence.on_connection_lost(),
                        ConnectionState::Online if !self.presence.is_current() => {
                            look_at = look_at.or(Some(now() + LOOK_PAUSE));
                        }
                        ConnectionState::Online | ConnectionState::Connecting => {}
                    }
                }
                Some(Happening::Event(Event::Presence(change))) => {
                    self.on_presence(&change, screen);
                }
                Some(Happening::Event(event)) => tell_notice(&event, screen),
                Some(Happening::Gone(_)) => {
                    session.revive()?;
                    look_at = Some(now() + LOOK_PAUSE);
                }
                Some(Happening::Signal(signal)) => return Err(Failure::signal(signal)),
                Some(Happening::Typed(_)) => {}
                None if look_at.is_some_and(|at| at < deadline) => {
                    look_at = None;
                    self.look_around(session, deadline)?;
                    self.tell_absent(deadline, screen);
                }
                None => return Ok(()),
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

    fn tell_rest(&self, screen: &Screen) -> Result<(), Failure> {
        for (id, to, state) in &self.open {
            self.tell(to, *id, *state, screen)?;
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
        let is_known = self.presence.is_current() && state < MessageState::Delivered;
        let online = is_known.then(|| self.presence.absence(to).is_none());
        screen.say(line::delivery(to, state, online, &screen.look))?;
        screen.data(&MessageStateView {
            to,
            id,
            state,
            online,
        })?;
        Ok(())
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
    let is_meant = |item: &HistoryItem| {
        let is_it = |what: &Waiting| match what {
            Waiting::For(name) => item.with == *name,
            Waiting::Id(id, name) => item.id == *id || item.with == *name,
        };
        args.all || args.what.iter().any(is_it)
    };
    let mut waiting = waiting(&mut session, DOING)?;
    waiting.retain(is_meant);
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
    screen.note(match (withdrawn.len(), waiting.len() - withdrawn.len()) {
        (0, 0) => "Nothing of that waits.".to_owned(),
        (cancelled, 0) => format!("Cancelled: {cancelled}."),
        (cancelled, sent) => format!("Cancelled: {cancelled}. On their way already: {sent}."),
    });
    Ok(Exit::Done)
}

fn waiting(session: &mut NodeHandle, doing: &str) -> Result<Vec<HistoryItem>, Failure> {
    let Reply::Messages(items) = session.call(doing, &Command::Outbox)? else {
        return Err(Failure::unexpected_reply(doing));
    };
    Ok(items)
}

/// Shows earlier messages. Needs no server.
pub(super) fn history(place: &Place, args: History, screen: &Screen) -> Result<Exit, Failure> {
    const DOING: &str = "show the history";
    let mut session = place.open(DOING)?;
    let command = Command::History {
        with: args.with,
        limit: args.limit,
    };
    let Reply::Messages(messages) = session.call(DOING, &command)? else {
        return Err(Failure::unexpected_reply(DOING));
    };
    if messages.is_empty() {
        screen.note("No messages yet.");
    }
    for item in &messages {
        screen.data(item)?;
        screen.say(line::message(item, &screen.look))?;
    }
    Ok(Exit::Done)
}
