//! A client in the same process, without a socket: for programs that link this library.
//!
//! It asks what every client asks ([`Command`]) and hears every event from its start on. One that does
//! not keep up is dropped, like any other.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

use common::limits::{CONTROL_EVENTS_MAX, CONTROL_REQUESTS_PER_CLIENT_MAX};
use mio::Waker;

use crate::node::command::{Command, CommandError, CommandId, Event, Reply};

/// Set in the ids of local commands, so that they never meet those of the socket's clients.
const LOCAL: u64 = 1 << 63;

/// Asks a node and hears from it.
#[derive(Debug)]
pub struct LocalClient {
    commands: SyncSender<(CommandId, Command)>,
    heard: Receiver<Heard>,
    waker: Arc<Waker>,
    last: u64,
}

/// What a [`LocalClient`] hears.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// The reply to the command with this number.
    Reply(u64, Result<Reply, CommandError>),
    /// Something happened.
    Event(Event),
}

/// The node has ended, or has too much to do for this client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the node has ended, or has too much to do")]
pub struct NotTaken;

impl LocalClient {
    /// Asks something. The reply comes with the number that this returns.
    pub fn submit(&mut self, command: Command) -> Result<u64, NotTaken> {
        let number = self.last + 1;
        let id = CommandId(LOCAL | number);
        self.commands
            .try_send((id, command))
            .map_err(|_| NotTaken)?;
        self.last = number;
        self.waker.wake().map_err(|_| NotTaken)?;
        Ok(number)
    }

    /// The next thing heard; `Ok(None)` if nothing comes within `patience`.
    pub fn hear(&self, patience: Duration) -> Result<Option<Heard>, NotTaken> {
        match self.heard.recv_timeout(patience) {
            Ok(heard) => Ok(Some(heard)),
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => Err(NotTaken),
        }
    }
}

/// The node's side of a [`LocalClient`].
#[derive(Debug)]
pub(super) struct LocalServer {
    commands: Receiver<(CommandId, Command)>,
    /// `None` once the client has left or fallen behind.
    heard: Option<SyncSender<Heard>>,
}

impl LocalServer {
    /// Both sides.
    pub(super) fn new(waker: Arc<Waker>) -> (Self, LocalClient) {
        let (commands, asked) = sync_channel(CONTROL_REQUESTS_PER_CLIENT_MAX);
        let (heard, hears) = sync_channel(CONTROL_EVENTS_MAX);
        let server = Self {
            commands: asked,
            heard: Some(heard),
        };
        let client = LocalClient {
            commands,
            heard: hears,
            waker,
            last: 0,
        };
        (server, client)
    }

    /// The next command.
    pub(super) fn take_command(&self) -> Option<(CommandId, Command)> {
        self.commands.try_recv().ok()
    }

    /// Tells whether a command came from here.
    pub(super) fn owns(id: CommandId) -> bool {
        id.0 & LOCAL != 0
    }

    /// Replies to a command that came from here.
    pub(super) fn reply(&mut self, id: CommandId, result: Result<Reply, CommandError>) {
        self.tell(|| Heard::Reply(id.0 & !LOCAL, result));
    }

    /// Tells of an event.
    pub(super) fn notify(&mut self, event: &Event) {
        self.tell(|| Heard::Event(event.clone()));
    }

    fn tell(&mut self, heard: impl FnOnce() -> Heard) {
        if let Some(client) = &self.heard
            && client.try_send(heard()).is_err()
        {
            self.heard = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mio::{Poll, Token};

    fn pair() -> (LocalServer, LocalClient, Poll) {
        let poll = Poll::new().unwrap();
        let waker = Waker::new(poll.registry(), Token(0)).unwrap();
        let (server, client) = LocalServer::new(Arc::new(waker));
        (server, client, poll)
    }

    #[test]
    fn commands_and_replies_keep_their_numbers() {
        let (mut server, mut client, _poll) = pair();
        let number = client.submit(Command::Status).unwrap();
        let (id, _) = server.take_command().unwrap();
        assert!(LocalServer::owns(id));
        server.reply(id, Ok(Reply::Done));
        let heard = client.hear(Duration::ZERO).unwrap();
        assert_eq!(heard, Some(Heard::Reply(number, Ok(Reply::Done))));
        assert_eq!(client.hear(Duration::ZERO), Ok(None));
    }

    #[test]
    fn neither_side_waits_for_the_other() {
        let (mut server, mut client, _poll) = pair();
        for _ in 0..CONTROL_REQUESTS_PER_CLIENT_MAX {
            client.submit(Command::Status).unwrap();
        }
        assert_eq!(client.submit(Command::Status), Err(NotTaken));
        for _ in 0..=CONTROL_EVENTS_MAX {
            server.notify(&Event::Connection(
                crate::node::command::ConnectionState::Online,
            ));
        }
        let heard = std::iter::from_fn(|| client.hear(Duration::ZERO).ok().flatten());
        assert_eq!(heard.count(), CONTROL_EVENTS_MAX);
        assert_eq!(
            client.hear(Duration::ZERO),
            Err(NotTaken),
            "it fell behind and was dropped"
        );
    }
}
