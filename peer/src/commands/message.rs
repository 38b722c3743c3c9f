//! `send` and `history`.

use std::collections::BTreeSet;
use std::io::{self, Read};
use std::time::{Duration, Instant};

use common::id::{AccountName, MessageId};
use common::limits::{MESSAGE_LEN_MAX, RECIPIENTS_MAX, WITHDRAW_MAX};
use common::os::clock::unix_time;
use common::text::joined;
use common::wire::peer::MessageBody;
use serde::Serialize;

use super::Place;
use super::node_handle::NodeHandle;
use crate::args::{Cancel, History, Send, Waiting};
use crate::client::{Happening, now};
use crate::conversation::connection::ConnectionWatch;
use crate::conversation::recipients::{addressed, each_once};
use crate::failure::{Exit, Failure};
use crate::node::command::{Command, ConnectionState, Event, HistoryItem, MessageState, Reply};
use crate::ui::{Screen, line};

/// Sends a text to everybody named, and waits until each has it unless told not to.
pub(super) fn send(place: &Place, args: Send, screen: &Screen) -> Result<Exit, Failure> {
    let to = each_once(args.to);
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
    let body = text(args.text)?;
    let mut session = NodeHandle::open(place.profile.clone(), settings, place.udp)?;
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
    let deadline = now() + Duration::from_secs(args.timeout.into());
    undelivered.wait(&mut session, deadline, screen)?;
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

/// The text of a message: what was typed, or stdin for a dash.
fn text(typed: String) -> Result<MessageBody, Failure> {
    let text = if typed == "-" { read_stdin()? } else { typed };
    MessageBody::try_from(text).map_err(|error| {
        Failure::new(Exit::Usage, "could not send the text")
            .because(error)
            .next("change the text and send it again")
    })
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
}

#[derive(Serialize)]
struct MessageStateView<'a> {
    to: &'a AccountName,
    id: MessageId,
    state: MessageState,
}

impl Undelivered {
    fn new(messages: impl Iterator<Item = (MessageId, AccountName)>) -> Self {
        Self {
            open: messages
                .map(|(id, to)| (id, to, MessageState::Queued))
                .collect(),
            connection: ConnectionWatch::default(),
        }
    }

    fn wait(
        &mut self,
        session: &mut NodeHandle,
        deadline: Instant,
        screen: &Screen,
    ) -> Result<(), Failure> {
        while !self.open.is_empty() {
            match session.next(Some(deadline)) {
                Some(Happening::Event(Event::MessageState { id, state, .. })) => {
                    self.advance(id, state, screen)?;
                }
                Some(Happening::Event(Event::Connection(state))) => {
                    if let Some(change) = self.connection.on_state(&state) {
                        screen.note(line::connection_change(&change, &screen.error_look));
                    }
                    // A node that has just started has no links: nothing can be delivered.
                    if session.is_owner() && matches!(state, ConnectionState::Offline { .. }) {
                        return Ok(());
                    }
                }
                Some(Happening::Event(event)) => {
                    if let Some(text) = line::notice(&event, &screen.error_look) {
                        screen.note(text);
                    }
                }
                Some(Happening::Gone(_)) => {
                    session.revive()?;
                }
                Some(Happening::Signal(signal)) => return Err(Failure::signal(signal)),
                Some(Happening::Typed(_)) => {}
                None => return Ok(()),
            }
        }
        Ok(())
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
        Self::tell(&to, id, state, screen)
    }

    fn tell_rest(&self, screen: &Screen) -> Result<(), Failure> {
        for (id, to, state) in &self.open {
            Self::tell(to, *id, *state, screen)?;
        }
        Ok(())
    }

    fn tell(
        to: &AccountName,
        id: MessageId,
        state: MessageState,
        screen: &Screen,
    ) -> Result<(), Failure> {
        let look = &screen.look;
        let state_text = match state {
            MessageState::Queued => look.yellow("queued, waits in the outbox"),
            MessageState::Sent => look.yellow("sent, no receipt yet"),
            MessageState::Delivered | MessageState::Read => look.green("delivered"),
        };
        screen.say(format!("{}: {state_text}", look.bold(to.as_str())))?;
        screen.data(&MessageStateView { to, id, state })?;
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
        screen.data(item)?;
        screen.say(line::message(item, &screen.look))?;
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
