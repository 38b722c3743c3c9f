//! A node on the caller's thread: neither a socket nor a thread stands between it and the loop. Behind the
//! feature `local-node`, with which no program is built.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use common::os::clock::now;
use mio::{Events, Poll, Waker};

use super::{EVENTS_MAX, EventLoop, NodeSettings, StartError, WAKER};
use crate::node::Input;
use crate::node::command::{Command, CommandError, CommandId, Event, Reply};

/// Set in the ids of local commands, so that they never meet those of the socket's clients.
const LOCAL: u64 = 1 << 63;

/// A node that lives as long as its caller calls [`LocalNode::hear`]. Dropping it stops it like
/// [`super::RunningNode::stop`].
///
/// What is heard is kept until it is taken, and the loop makes no turn before that: whoever asks
/// without listening holds up nobody else.
#[derive(Debug)]
pub struct LocalNode {
    /// `None` only while it is dropped.
    event_loop: Option<EventLoop>,
    events: Events,
    last: u64,
}

/// What a [`LocalNode`] says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// The reply to the command with this number.
    Reply(u64, Result<Reply, CommandError>),
    /// An event of the node, which nobody asked for.
    Event(Event),
}

impl LocalNode {
    /// Opens the history and the sockets. The caller holds the lock of the profile.
    ///
    /// # Errors
    ///
    /// If one of them cannot be opened.
    pub fn start(settings: NodeSettings) -> Result<Self, StartError> {
        let poll = Poll::new().map_err(StartError::System)?;
        let waker = Waker::new(poll.registry(), WAKER).map_err(StartError::System)?;
        let is_stopping = Arc::new(AtomicBool::new(false));
        let mut event_loop = EventLoop::new(settings, poll, Arc::new(waker), is_stopping)?;
        event_loop.heard = Some(VecDeque::new());
        Ok(Self {
            event_loop: Some(event_loop),
            events: Events::with_capacity(EVENTS_MAX),
            last: 0,
        })
    }

    /// Asks something. The reply comes with the number that this returns.
    pub fn submit(&mut self, command: Command) -> u64 {
        self.last += 1;
        if let Some(event_loop) = &mut self.event_loop {
            let now = now();
            let id = CommandId(LOCAL | self.last);
            event_loop
                .node
                .handle_input(Input::Command(id, command), now);
            event_loop.drain(now);
        }
        self.last
    }

    /// Runs the node until something is heard; `None` if nothing is within `timeout`. Between two calls the
    /// node does nothing.
    ///
    /// # Errors
    ///
    /// If the system cannot wait for the sockets.
    pub fn hear(&mut self, timeout: Duration) -> io::Result<Option<Heard>> {
        let Some(event_loop) = &mut self.event_loop else {
            return Ok(None);
        };
        let until = now() + timeout;
        loop {
            if let Some(heard) = event_loop.heard.as_mut().and_then(VecDeque::pop_front) {
                return Ok(Some(heard));
            }
            let left = until.saturating_duration_since(now());
            if left.is_zero() {
                return Ok(None);
            }
            event_loop.wait(&mut self.events, Some(left))?;
            event_loop.turn(now());
        }
    }
}

impl Drop for LocalNode {
    fn drop(&mut self) {
        if let Some(event_loop) = self.event_loop.take() {
            event_loop.wind_down(&mut self.events);
        }
    }
}

/// Hands a reply to the caller if it is its own; gives it back otherwise.
pub(super) fn take_reply(
    heard: Option<&mut VecDeque<Heard>>,
    id: CommandId,
    reply: Result<Reply, CommandError>,
) -> Option<Result<Reply, CommandError>> {
    match heard {
        Some(heard) if id.0 & LOCAL != 0 => {
            heard.push_back(Heard::Reply(id.0 & !LOCAL, reply));
            None
        }
        Some(_) | None => Some(reply),
    }
}
