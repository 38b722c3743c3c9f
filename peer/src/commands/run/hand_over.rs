//! Received messages on their way to a program: each once, in the order of their arrival.
//!
//! The profile's folder `on-message` has the place of the last one, so that the next run goes on behind it, whether or
//! not somebody has read in between what came. At the very first run those are handed over that nobody has read.
//!
//! The place is kept when the program has ended, however it did. So a message is handed over twice only if this program
//! is killed in between.

use std::path::{Path, PathBuf};

use common::limits::PROFILE_FILE_LEN_MAX;
use common::os::lock::FolderLock;
use common::os::private::{self, Durability};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::DOING;
use crate::client::CallError;
use crate::commands::events::{last_place, look};
use crate::commands::node_handle::NodeHandle;
use crate::config::CALL_TIMEOUT;
use crate::ended::Ended;
use crate::failure::{Exit, Failure};
use crate::feed::{Feed, Next};
use crate::handler::{Busy, Handler};
use crate::node::command::{Command, Cursor, Direction, MessageState, Recorded};
use crate::profile::{Profile, ProfileError};
use crate::ui::{Screen, line_for_program};

/// How far it is, as its file says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Progress {
    /// The place of the last message that needs no handing over any more.
    upto: Cursor,
    /// Of the messages up to here only those are handed over that nobody has read.
    unread_upto: Cursor,
}

impl Progress {
    const fn beginning(last: Cursor) -> Self {
        Self {
            upto: Cursor::START,
            unread_upto: last,
        }
    }

    /// Tells whether a message is to be handed over.
    fn wants(self, Recorded { cursor, item }: &Recorded) -> bool {
        let is_old = *cursor <= self.unread_upto;
        item.direction == Direction::Received && !(is_old && item.state == MessageState::Read)
    }
}

/// Hands messages over to a program.
#[derive(Debug)]
pub(super) struct HandOver {
    handler: Handler,
    feed: Feed,
    progress: Progress,
    /// The file has the progress.
    is_saved: bool,
    file: PathBuf,
    /// What the program is at work on.
    current: Option<(Recorded, Busy)>,
    /// Nobody else hands over the messages of this profile.
    _alone: FolderLock,
}

impl HandOver {
    /// Goes on where the last run ended.
    pub(super) fn begin(
        handler: Handler,
        profile: &Profile,
        session: &mut NodeHandle,
        screen: &Screen,
    ) -> Result<Self, Failure> {
        let folder = profile.folder().join("on-message");
        let unwritable = |error| Failure::from(ProfileError::Write(folder.clone(), error));
        private::create_folder(&folder).map_err(unwritable)?;
        let alone = FolderLock::try_acquire(&folder).map_err(unwritable)?;
        let alone = alone.ok_or_else(is_done_already)?;
        let file = folder.join("progress");
        let last = last_place(session, DOING)?;
        let saved = read(&file)?;
        let progress = match saved {
            Some(progress) if progress.upto <= last => progress,
            Some(_) => {
                let text = "The history is another one than that of the last run, or an older copy: beginning anew with the messages that nobody has read.";
                screen.note(screen.error_look.yellow(text));
                Progress::beginning(last)
            }
            None => Progress::beginning(last),
        };
        let mut this = Self {
            handler,
            feed: Feed::after(progress.upto),
            progress,
            is_saved: saved == Some(progress),
            file,
            current: None,
            _alone: alone,
        };
        // What comes from now on is handed over in any case.
        this.save()?;
        Ok(this)
    }

    /// The history has got a message.
    pub(super) fn handle_recorded(&mut self, recorded: Recorded) {
        self.feed.handle_recorded(recorded);
    }

    /// The node has gone, and another one has come.
    pub(super) const fn handle_gap(&mut self) {
        self.feed.handle_gap();
    }

    /// The program has ended.
    pub(super) fn handle_ended(
        &mut self,
        ended: &Ended,
        session: &mut NodeHandle,
        screen: &Screen,
    ) -> Result<(), Failure> {
        let Some((Recorded { cursor, item }, _)) = self.current.take() else {
            return Ok(());
        };
        self.pass(cursor);
        self.save()?;
        screen.data(&json!({ "handed_over": {
            "cursor": cursor,
            "id": item.id,
            "with": item.with,
            "ended": ended,
        } }))?;
        if *ended != Ended::Well {
            let (program, with) = (self.handler.name(), &item.with);
            let text = format!(
                "warning: {program} {ended}: message {cursor} of {with} stays unread, and is not handed over again."
            );
            screen.note(screen.error_look.yellow(&text));
            return Ok(());
        }
        let read = Command::MarkRead { ids: vec![item.id] };
        match session.try_call(&read, CALL_TIMEOUT) {
            Err(CallError::Signal(signal)) => Err(Failure::signal(signal)),
            // It is handed over all the same.
            Ok(_) | Err(CallError::Refused(_) | CallError::TimedOut | CallError::Gone(_)) => Ok(()),
        }
    }

    /// Starts the program with the next message, unless it is at work. Tells whether the node still runs.
    pub(super) fn go_on(&mut self, session: &mut NodeHandle) -> Result<bool, Failure> {
        while self.current.is_none() {
            match self.feed.poll() {
                Next::Give(recorded) if self.progress.wants(&recorded) => {
                    let line = format!("{}\n", line_for_program(&recorded));
                    let busy = self.handler.start(line, session.notifier());
                    let busy = busy.map_err(|error| {
                        Failure::new(Exit::Other, "could not hand a message over")
                            .because(error)
                            .next("close some programs and try again")
                    })?;
                    self.current = Some((recorded, busy));
                }
                Next::Give(recorded) => self.pass(recorded.cursor),
                Next::Look { after, limit } => {
                    if !look(session, &mut self.feed, (after, limit), DOING)? {
                        return Ok(false);
                    }
                }
                Next::Wait => {
                    self.save()?;
                    break;
                }
            }
        }
        Ok(true)
    }

    /// The program, if it is at work.
    pub(super) fn busy_with(&self) -> Option<&Handler> {
        self.current.as_ref().map(|_| &self.handler)
    }

    fn pass(&mut self, cursor: Cursor) {
        self.progress.upto = cursor;
        self.is_saved = false;
    }

    fn save(&mut self) -> Result<(), Failure> {
        if self.is_saved {
            return Ok(());
        }
        let text = serde_json::to_vec(&self.progress).expect("numbers are always valid JSON");
        // It survives what the messages survive.
        private::write(&self.file, &text, Durability::Kill)
            .map_err(|error| ProfileError::Write(self.file.clone(), error))?;
        self.is_saved = true;
        Ok(())
    }
}

fn is_done_already() -> Failure {
    Failure::new(Exit::Profile, "could not hand messages over")
        .because("another 'peer run --on-message' of this profile does")
        .next("end that one first, or take another profile with --profile NAME")
}

fn read(file: &Path) -> Result<Option<Progress>, Failure> {
    let bytes = match private::read(file, PROFILE_FILE_LEN_MAX) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(ProfileError::Read(file.to_owned(), error).into()),
    };
    let progress = serde_json::from_slice(&bytes);
    let damaged =
        |error: serde_json::Error| ProfileError::Damaged(file.to_owned(), error.to_string());
    Ok(Some(progress.map_err(damaged)?))
}

#[cfg(test)]
mod tests {
    use common::id::MessageId;
    use common::time::UnixTime;

    use super::*;
    use crate::node::command::HistoryItem;

    #[test]
    fn what_was_read_before_the_first_run_and_what_was_sent_stays() {
        let progress = Progress::beginning(Cursor(5));
        let wants = |cursor, direction, state| {
            let item = HistoryItem {
                id: MessageId::from_bytes([1; 16]),
                with: "bob".parse().unwrap(),
                direction,
                sent: UnixTime::default(),
                body: "hi".to_owned().try_into().unwrap(),
                state,
            };
            let cursor = Cursor(cursor);
            progress.wants(&Recorded { cursor, item })
        };
        assert!(wants(5, Direction::Received, MessageState::Delivered));
        assert!(!wants(5, Direction::Received, MessageState::Read));
        assert!(wants(6, Direction::Received, MessageState::Read));
        assert!(!wants(6, Direction::Sent, MessageState::Queued));
    }
}
