//! `events`: everything that happens, one JSON object a line.
//!
//! Messages come from the history on, by a [`Feed`](crate::feed::Feed): each once, in the order of their cursors. Everything else is told
//! as it happens, and by nobody afterwards.

use super::Place;
use super::directory::{is_over, watch_again};
use super::node_handle::NodeHandle;
use crate::args::Events;
use crate::client::Happening;
use crate::config::CALL_TIMEOUT;
use crate::failure::{Exit, Failure};
use crate::feed::{Feed, Next};
use crate::node::command::{Command, ConnectionState, Cursor, Event, Reply};
use crate::ui::{Screen, line};

/// What it does, in the infinitive.
const DOING: &str = "follow what happens";

/// Tells what happens until it is interrupted, or nobody reads it any more.
pub(super) fn events(place: &Place, args: &Events, screen: &Screen) -> Result<Exit, Failure> {
    let mut session = place.open(DOING)?;
    let output = Screen::new(true);
    let last = last_place(&mut session, DOING)?;
    let after = args.since.unwrap_or(last);
    if after > last {
        return Err(no_such_place(after, last));
    }
    let mut follower = Follower {
        session: &mut session,
        screen,
        output: &output,
        feed: Feed::after(after),
        connection: None,
    };
    follower.begin()?;
    follower.run()
}

/// The last place in the history.
pub(super) fn last_place(session: &mut NodeHandle, doing: &str) -> Result<Cursor, Failure> {
    let (after, limit) = (Cursor::START, 0);
    let command = Command::Recorded { after, limit };
    let Reply::Recorded(page) = session.call(doing, &command)? else {
        return Err(Failure::unexpected_reply(doing));
    };
    Ok(page.last)
}

/// Asks the node for what a feed lacks. Tells whether the node still runs.
pub(super) fn look(
    session: &mut NodeHandle,
    feed: &mut Feed,
    (after, limit): (Cursor, u32),
    doing: &str,
) -> Result<bool, Failure> {
    match session.try_call(&Command::Recorded { after, limit }, CALL_TIMEOUT) {
        Ok(Reply::Recorded(page)) => {
            feed.handle_page(page);
            Ok(true)
        }
        Ok(_) => Err(Failure::unexpected_reply(doing)),
        Err(error) if error.is_loss() => Ok(false),
        Err(error) => Err(session.failure(doing, error)),
    }
}

fn no_such_place(after: Cursor, last: Cursor) -> Failure {
    Failure::new(Exit::Usage, format!("could not {DOING} since {after}"))
        .because(format!(
            "the last message of this history has the cursor {last}; it is another one than that of the cursor, or an older copy"
        ))
        .next("begin with --since 0, or leave it out to be told only what comes")
}

struct Follower<'a> {
    session: &'a mut NodeHandle,
    /// Shows hints that are no events, on the standard error.
    screen: &'a Screen,
    /// For events, whatever the hints look like.
    output: &'a Screen,
    feed: Feed,
    /// How the connection is, as it was told last.
    connection: Option<ConnectionState>,
}

impl Follower<'_> {
    /// Tells how the connection is, and has the node tell who comes and leaves.
    fn begin(&mut self) -> Result<(), Failure> {
        let status = match self.session.try_call(&Command::Status, CALL_TIMEOUT) {
            Ok(Reply::Status(status)) => status,
            Ok(_) => return Err(Failure::unexpected_reply(DOING)),
            Err(error) if error.is_loss() => return self.begin_again(),
            Err(error) => return Err(self.session.failure(DOING, error)),
        };
        let is_logged_in = status.account.is_some();
        self.on_connection(status.connection)?;
        if !is_logged_in {
            self.session.ready(DOING)?;
        }
        watch_again(self.session, DOING)
    }

    /// The node has gone, or this program was too slow for it.
    fn begin_again(&mut self) -> Result<(), Failure> {
        if self.session.revive()? {
            self.screen
                .note(self.screen.error_look.dim(line::TOOK_OVER));
        }
        self.feed.handle_gap();
        // It is told in any case: something may have been missed before.
        self.connection = None;
        self.begin()
    }

    fn run(&mut self) -> Result<Exit, Failure> {
        loop {
            match self.feed.poll() {
                Next::Give(recorded) => self.output.data(&Event::Recorded(recorded))?,
                Next::Look { after, limit } => {
                    if !look(self.session, &mut self.feed, (after, limit), DOING)? {
                        self.begin_again()?;
                    }
                }
                Next::Wait => match self.session.next(None) {
                    Some(Happening::Event(event)) => self.on_event(event)?,
                    Some(Happening::Gone(_)) => self.begin_again()?,
                    Some(Happening::Signal(signal)) => return Err(Failure::signal(signal)),
                    Some(Happening::Typed(_) | Happening::NotText | Happening::Handled(_))
                    | None => {}
                },
            }
        }
    }

    fn on_event(&mut self, event: Event) -> Result<(), Failure> {
        match event {
            Event::Recorded(recorded) => self.feed.handle_recorded(recorded),
            // It comes again once it is in the history.
            Event::Message(_) => {}
            Event::Offer(offer) => self.output.offer(&offer)?,
            Event::Connection(state) => self.on_connection(state)?,
            Event::Presence(_)
            | Event::Nearby { .. }
            | Event::Path(_)
            | Event::RelayOff
            | Event::Addressed { .. }
            | Event::MessageState { .. }
            | Event::Withdrawn { .. }
            | Event::Transfer { .. }
            | Event::FailedLogins(_)
            | Event::Enrolled(_)
            | Event::NewKey { .. }
            | Event::NotApproved { .. }
            | Event::OtherAccount { .. }
            | Event::Approval { .. }
            | Event::DeviceApproved { .. } => self.output.data(&event)?,
        }
        Ok(())
    }

    fn on_connection(&mut self, state: ConnectionState) -> Result<(), Failure> {
        if self.connection.as_ref() == Some(&state) {
            return Ok(());
        }
        self.connection = Some(state.clone());
        let is_over = is_over(&state);
        self.output.data(&Event::Connection(state))?;
        if is_over {
            // Unless somebody has logged in again meanwhile.
            self.session.ready(DOING)?;
        }
        Ok(())
    }
}
