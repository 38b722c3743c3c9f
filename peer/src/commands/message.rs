//! `send` and `history`.

use std::io::{self, Read};
use std::time::{Duration, Instant};

use common::id::{AccountName, MessageId};
use common::limits::{MESSAGE_LEN_MAX, RECIPIENTS_MAX};
use common::text::joined;
use common::wire::peer::MessageBody;
use serde::Serialize;

use super::Place;
use super::clock::time_now;
use super::session::Session;
use crate::args::{History, Send};
use crate::client::{Happening, now};
use crate::failure::{Exit, Failure};
use crate::node::command::{Command, ConnectionState, Event, MessageState, Reply};
use crate::ui::{Screen, line};

/// Sends a text.
pub(super) fn send(place: &Place, args: Send, screen: &Screen) -> Result<Exit, Failure> {
    let to = each_once(args.to);
    let doing = format!("send to {}", joined(&to));
    if to.len() > RECIPIENTS_MAX {
        return Err(Failure::new(Exit::Usage, "could not send")
            .because(format!(
                "{} recipients are more than {RECIPIENTS_MAX}",
                to.len()
            ))
            .next("send it in several steps"));
    }
    let settings = place.settings(&doing)?;
    let body = text(args.text)?;
    let mut session = Session::open(place.profile.clone(), settings, place.udp)?;
    let sent = time_now();
    let command = Command::Send {
        to: to.clone(),
        body,
        sent,
    };
    let Reply::Queued(ids) = session.call(&doing, &command)? else {
        return Err(Failure::unexpected_reply(&doing));
    };
    let mut letters = Letters::new(addressed(ids, to, &doing)?);
    if args.no_wait {
        letters.tell_rest(screen)?;
        return Ok(Exit::Done);
    }
    let deadline = now() + Duration::from_secs(args.timeout.into());
    letters.wait(&mut session, deadline, screen)?;
    if letters.open.is_empty() {
        return Ok(Exit::Done);
    }
    letters.tell_rest(screen)?;
    if session.is_owner() && !screen.is_json() {
        screen.note(screen.error_look.dim(
            "It stays in the outbox and goes out while any 'peer' command of this profile runs, for example 'peer chat'.",
        ));
    }
    Ok(Exit::NotDelivered)
}

/// The names in the order in which they were first given, each once.
pub(super) fn each_once(names: Vec<AccountName>) -> Vec<AccountName> {
    let mut once: Vec<AccountName> = Vec::new();
    for name in names {
        if !once.contains(&name) {
            once.push(name);
        }
    }
    once
}

/// Which message goes to whom: a node answers in the order of the recipients, each once.
pub(super) fn addressed(
    ids: Vec<MessageId>,
    to: Vec<AccountName>,
    doing: &str,
) -> Result<impl Iterator<Item = (MessageId, AccountName)> + use<>, Failure> {
    if ids.len() != to.len() {
        return Err(Failure::unexpected_reply(doing));
    }
    Ok(ids.into_iter().zip(to))
}

/// The text of a message: what was typed, or stdin for a dash.
fn text(typed: String) -> Result<MessageBody, Failure> {
    let text = if typed == "-" { read_stdin()? } else { typed };
    MessageBody::try_from(text).map_err(|error| {
        Failure::new(Exit::Usage, "this text cannot be sent")
            .because(error)
            .next("change the text and send it again")
    })
}

fn read_stdin() -> Result<String, Failure> {
    let mut bytes = Vec::new();
    let longest = MESSAGE_LEN_MAX as u64 + 1;
    let read = io::stdin().lock().take(longest).read_to_end(&mut bytes);
    read.map_err(|error| Failure::new(Exit::File, "stdin cannot be read").because(error))?;
    if bytes.len() > MESSAGE_LEN_MAX {
        return Err(Failure::new(Exit::Usage, "this text cannot be sent")
            .because(format!(
                "it has more than the {MESSAGE_LEN_MAX} bytes of a message"
            ))
            .next("put it into a file and use 'peer send-file'"));
    }
    let text = String::from_utf8(bytes).map_err(|_| {
        Failure::new(Exit::Usage, "this text cannot be sent")
            .because("it is not UTF-8")
            .next("put it into a file and use 'peer send-file'")
    })?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

/// The messages of one `send` that are not delivered yet.
struct Letters {
    open: Vec<(MessageId, AccountName, MessageState)>,
    connection: line::ConnectionWatch,
}

#[derive(Serialize)]
struct LetterView<'a> {
    to: &'a AccountName,
    id: MessageId,
    state: MessageState,
}

impl Letters {
    fn new(letters: impl Iterator<Item = (MessageId, AccountName)>) -> Self {
        Self {
            open: letters
                .map(|(id, to)| (id, to, MessageState::Queued))
                .collect(),
            connection: line::ConnectionWatch::default(),
        }
    }

    fn wait(
        &mut self,
        session: &mut Session,
        deadline: Instant,
        screen: &Screen,
    ) -> Result<(), Failure> {
        while !self.open.is_empty() {
            match session.next(Some(deadline)) {
                Some(Happening::Event(Event::MessageState { id, state, .. })) => {
                    self.advance(id, state, screen)?;
                }
                Some(Happening::Event(Event::Connection(state))) => {
                    if let Some(text) = self.connection.notice(&state, &screen.error_look) {
                        screen.note(text);
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
        let letter = &mut self.open[index];
        letter.2 = letter.2.max(state);
        if letter.2 < MessageState::Delivered {
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
        screen.data(&LetterView { to, id, state })?;
        Ok(())
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Vec<AccountName> {
        names.iter().map(|name| name.parse().unwrap()).collect()
    }

    fn id(number: u8) -> MessageId {
        MessageId::from_bytes([number; 16])
    }

    #[test]
    fn each_message_belongs_to_whom_it_was_made_for() {
        let to = each_once(names(&["zed", "bob", "zed", "alice", "bob"]));
        assert_eq!(to, names(&["zed", "bob", "alice"]));
        let pairs = addressed(vec![id(3), id(1), id(2)], to, "send").unwrap();
        let expected = [(3, "zed"), (1, "bob"), (2, "alice")];
        assert!(pairs.eq(expected.map(|(number, name)| (id(number), name.parse().unwrap()))));
    }

    #[test]
    fn an_answer_for_other_recipients_is_an_error() {
        for count in [0, 1, 3] {
            let ids = (0..count).map(id).collect();
            let failure = addressed(ids, names(&["zed", "bob"]), "send")
                .err()
                .unwrap();
            assert_eq!(failure.exit(), Exit::Other);
        }
    }
}
