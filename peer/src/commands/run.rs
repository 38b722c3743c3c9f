//! `run`: keeps this profile's node running for other programs, and hands messages over to one of them.

use std::time::Duration;

use common::limits::ON_MESSAGE_TIMEOUT;
use serde_json::json;

use super::Place;
use super::directory::is_over;
use super::node_handle::NodeHandle;
use crate::args::Run;
use crate::client::Happening;
use crate::config::shown_path;
use crate::conversation::connection::ConnectionWatch;
use crate::failure::{Exit, Failure};
use crate::handler::Handler;
use crate::node::command::{ConnectionState, Event};
use crate::ui::{Screen, line};
use hand_over::HandOver;

// Which message is handed over next, and what became of the last one.
mod hand_over;

/// What it does, in the infinitive.
const DOING: &str = "run this device";

/// Runs until it is interrupted.
pub(super) fn run(place: &Place, args: &Run, screen: &Screen) -> Result<Exit, Failure> {
    let time_max = args
        .timeout
        .map_or(ON_MESSAGE_TIMEOUT, |s| Duration::from_secs(s.into()));
    let check = |path| Handler::check(path, place.profile.folder(), time_max);
    let handler = args.on_message.as_deref().map(check).transpose()?;
    let mut session = place.open(DOING)?;
    let offline = match session.ready_in_sight(DOING, screen) {
        Ok(()) => None,
        // It tries again by itself, as after a start before the network is there.
        Err(failure) if failure.exit() == Exit::Unreachable && session.is_reconnecting() => {
            Some(failure)
        }
        Err(failure) => return Err(failure),
    };
    let begin = |handler| HandOver::begin(handler, &place.profile, &mut session, screen);
    let hand_over = handler.map(begin).transpose()?;
    let mut daemon = Daemon {
        session: &mut session,
        screen,
        connection: ConnectionWatch::default(),
        hand_over,
        ended_by: None,
    };
    daemon.say_ready(place)?;
    if let Some(failure) = offline {
        daemon.on_connection(ConnectionState::Offline {
            reason: failure.why().unwrap_or(failure.what()).to_owned(),
            is_other_server: false,
            retry_in_s: Some(0),
        })?;
    }
    daemon.run()
}

struct Daemon<'a> {
    session: &'a mut NodeHandle,
    screen: &'a Screen,
    connection: ConnectionWatch,
    /// The person wants messages handed over.
    hand_over: Option<HandOver>,
    /// A signal asked it to end, and a program is still at work on a message.
    ended_by: Option<i32>,
}

impl Daemon<'_> {
    fn say_ready(&self, place: &Place) -> Result<(), Failure> {
        let settings = self.session.settings();
        let socket = place.profile.socket();
        self.screen.data(&json!({
            "ready": true,
            "account": settings.account,
            "server": settings.server().to_string(),
            "socket": socket,
            "is_owner": self.session.is_owner(),
        }))?;
        self.screen.say(format!(
            "Ready as {} at {}; programs find it at {}. Ctrl-C ends.",
            self.screen.look.bold(&settings.owner()),
            settings.server(),
            shown_path(&socket)
        ))?;
        if !self.session.is_owner() {
            self.note("Another 'peer' program of this profile has the connection; this one takes it over when that one ends.");
        }
        Ok(())
    }

    fn run(&mut self) -> Result<Exit, Failure> {
        loop {
            self.hand_over()?;
            match self.session.next(None) {
                Some(Happening::Event(event)) => self.on_event(event)?,
                Some(Happening::Gone(_)) => self.revive()?,
                Some(Happening::Signal(signal)) => self.on_signal(signal)?,
                Some(Happening::Handled(ended)) => {
                    if let Some(hand_over) = &mut self.hand_over {
                        hand_over.handle_ended(&ended, self.session, self.screen)?;
                    }
                    if let Some(signal) = self.ended_by {
                        return Err(Failure::signal(signal));
                    }
                }
                Some(Happening::Typed(_) | Happening::NotText) | None => {}
            }
        }
    }

    /// Hands the next message over, if there is one and nothing else is under way.
    fn hand_over(&mut self) -> Result<(), Failure> {
        while self.ended_by.is_none()
            && let Some(hand_over) = &mut self.hand_over
            && !hand_over.go_on(self.session)?
        {
            self.revive()?;
        }
        Ok(())
    }

    fn on_event(&mut self, event: Event) -> Result<(), Failure> {
        match event {
            Event::Recorded(recorded) => {
                if let Some(hand_over) = &mut self.hand_over {
                    hand_over.handle_recorded(recorded);
                }
            }
            Event::Connection(state) => {
                let is_over = is_over(&state);
                self.on_connection(state)?;
                if is_over {
                    // Unless somebody has logged in again meanwhile.
                    self.session.ready(DOING)?;
                }
            }
            Event::FailedLogins(_)
            | Event::Enrolled(_)
            | Event::NewKey { .. }
            | Event::NotApproved { .. }
            | Event::OtherAccount { .. }
            | Event::Approval { .. }
            | Event::DeviceApproved { .. }
            | Event::RelayOff => {
                self.screen.data(&event)?;
                if let Some(text) = line::warning(&event, &self.screen.error_look) {
                    self.screen.note(text);
                }
            }
            Event::Message(_)
            | Event::Presence(_)
            | Event::Nearby { .. }
            | Event::Path(_)
            | Event::Addressed { .. }
            | Event::MessageState { .. }
            | Event::Withdrawn { .. }
            | Event::Offer(_)
            | Event::Transfer { .. } => {}
        }
        Ok(())
    }

    fn on_connection(&mut self, state: ConnectionState) -> Result<(), Failure> {
        if let Some(change) = self.connection.on_state(&state) {
            let text = line::connection_change(&change, &self.screen.error_look);
            self.screen.note(text);
        }
        Ok(self.screen.data(&Event::Connection(state))?)
    }

    /// The first signal lets a program that has a message finish: it would get that again next time.
    fn on_signal(&mut self, signal: i32) -> Result<(), Failure> {
        let busy = self.hand_over.as_ref().and_then(HandOver::busy_with);
        match busy {
            Some(handler) if self.ended_by.is_none() => {
                self.ended_by = Some(signal);
                // The terminal shows "^C".
                self.screen.clear_row();
                self.note(&format!(
                    "Waiting for {}, at most {} s; once more ends it, and its message is handed over again next time.",
                    handler.name(),
                    handler.time_max().as_secs()
                ));
                Ok(())
            }
            Some(_) | None => Err(Failure::signal(signal)),
        }
    }

    fn revive(&mut self) -> Result<(), Failure> {
        if self.session.revive()? {
            self.note(line::TOOK_OVER);
        }
        if let Some(hand_over) = &mut self.hand_over {
            hand_over.handle_gap();
        }
        Ok(())
    }

    fn note(&self, text: &str) {
        self.screen.note(self.screen.error_look.dim(text));
    }
}
