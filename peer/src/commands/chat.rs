//! `chat`: typing and reading in one place.
//!
//! Carries out what a [`Conversation`](crate::conversation::Conversation) wants: asks the node, shows
//! items on the line interface, waits. One thread does all of it. What is typed, what arrives and what
//! a signal asks come to it through the session's inbox, so nothing garbles the line that is being
//! typed and nothing waits for Enter.
//!
//! While another job has the terminal nothing is shown: it waits, and nobody has seen it.

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use directories::BaseDirs;
use signal_hook::consts::{SIGCONT, SIGINT};

use super::Place;
use super::file::sendable;
use super::node_handle::NodeHandle;
use super::receive::{check_writable, existing_folder};
use crate::args::Chat;
use crate::client::{CallError, Happening, Typed, now};
use crate::config::{CALL_TIMEOUT, shown_path};
use crate::conversation::{
    Conversation, Ending, Input, Item, Now, Output, RequestError, RequestId, Setup, Transfer,
    Waiting,
};
use crate::failure::{Exit, Failure};
use crate::node::command::{Command, CommandError, Event, Reply, TransferState};
use crate::ui::Screen;
use crate::ui::line::{self, LineFrontEnd};
use crate::ui::prompt::Prompt;
use common::os::clock::unix_time;

/// How often it is looked whether the terminal is this program's again.
const BACKGROUND_PAUSE: Duration = Duration::from_millis(100);

/// Items that wait for the terminal; of more, the first are not shown. Their messages stay unread.
const HELD_MAX: usize = 1000;

/// Talks until the person leaves, or the input ends.
pub(super) fn chat(place: &Place, args: Chat, screen: &Screen) -> Result<Exit, Failure> {
    const DOING: &str = "chat";
    let folder = existing_folder(&args.folder)?;
    if let Err(failure) = check_writable(&folder) {
        // One can talk all the same.
        let why = failure.why().unwrap_or_default();
        let text = format!("Files cannot be put into {}: {why}.", shown_path(&folder));
        screen.note(screen.error_look.yellow(&text));
    }
    if !screen.is_json() {
        Prompt::leave_signals_to_editor();
    }
    let mut session = place.open(DOING)?;
    let offline = match session.ready_in_sight(DOING, screen) {
        Ok(()) => None,
        // Earlier messages can be read, and new ones written, without a server.
        Err(failure) if failure.exit() == Exit::Unreachable => Some(failure),
        Err(failure) => return Err(failure),
    };
    let no_terminal =
        |error| Failure::new(Exit::Other, "could not set up the terminal").because(error);
    let front_end = LineFrontEnd::start(screen, session.notifier()).map_err(no_terminal)?;
    if front_end.is_interactive() {
        session.defer_interrupts();
        session.tell_when_continued().map_err(no_terminal)?;
    }
    let conversation = Conversation::new(Setup {
        me: session.settings().account.clone(),
        server: session.settings().server().to_string(),
        with: args.with,
        folder,
        home: BaseDirs::new().map(|folders| folders.home_dir().to_owned()),
        is_interactive: front_end.is_interactive(),
        is_at_terminal: front_end.is_at_terminal(),
        offline: offline.map(|failure| failure.why().unwrap_or(failure.what()).to_owned()),
    });
    let mut talk = Talk {
        session: &mut session,
        conversation,
        front_end,
        is_away: false,
        held: VecDeque::new(),
    };
    let ending = talk.run();
    let Talk {
        session,
        conversation,
        front_end,
        ..
    } = talk;
    front_end.end();
    let ending = ending.inspect_err(|_| {
        let cancelled = give_up(session, &conversation);
        if !cancelled.is_empty() {
            screen.note(line::cancelled(&cancelled));
        }
    });
    let mut left_behind = |waiting: &[Waiting]| line::left_behind(waiting, is_logged_in(session));
    match ending? {
        Ending::Left { waiting, cancelled } => {
            if !waiting.is_empty() {
                screen.note(left_behind(&waiting));
            }
            if !cancelled.is_empty() {
                screen.note(line::cancelled(&cancelled));
            }
            let unanswered = conversation.unanswered();
            if !unanswered.is_empty() {
                screen.note(line::unanswered(&unanswered, session.is_owner()));
            }
            match conversation.unaddressed() {
                0 => Ok(Exit::Done),
                lost => Err(unaddressed(lost)),
            }
        }
        Ending::Unfinished { waiting, transfers } => {
            if !transfers.is_empty() {
                screen.note(line::unfinished(&transfers));
            }
            if waiting.is_empty() {
                return Ok(Exit::Transfer);
            }
            screen.note(left_behind(&waiting));
            Ok(Exit::NotDelivered)
        }
        Ending::Failed(failure) => Err(failure),
    }
}

struct Talk<'a> {
    session: &'a mut NodeHandle,
    conversation: Conversation,
    front_end: LineFrontEnd<'a>,
    /// Another job has had the terminal, and perhaps still has.
    is_away: bool,
    /// What was not shown meanwhile.
    held: VecDeque<Item>,
}

impl Talk<'_> {
    fn run(&mut self) -> Result<Ending, Failure> {
        self.look_for_relay()?;
        loop {
            self.come_back()?;
            let deadline = match self.carry_out()? {
                ControlFlow::Continue(deadline) => deadline,
                ControlFlow::Break(ending) => return Ok(ending),
            };
            let deadline = if self.is_in_front() {
                self.front_end.underway(&self.conversation.underway());
                if let Some(prompt) = self.conversation.prompt() {
                    self.front_end.ask(&prompt);
                }
                deadline
            } else {
                let look_again = now() + BACKGROUND_PAUSE;
                Some(deadline.map_or(look_again, |deadline| deadline.min(look_again)))
            };
            match self.session.next(deadline) {
                Some(Happening::Event(event)) => self.handle(Input::Event(event)),
                Some(Happening::Gone(_)) => {
                    let is_own = self.session.revive()?;
                    self.handle(Input::Revived { is_own });
                }
                // Ctrl-C while nothing is read, as between two lines.
                Some(Happening::Signal(SIGINT)) if self.front_end.is_interactive() => {
                    self.handle(Input::Typed(Typed::Interrupt));
                }
                // The mode of the terminal may be a shell's.
                Some(Happening::Signal(SIGCONT)) => self.is_away = true,
                Some(Happening::Signal(signal)) => return Err(Failure::signal(signal)),
                Some(Happening::Typed(typed)) => {
                    self.front_end.answered();
                    self.handle(Input::Typed(typed));
                }
                Some(Happening::NotText) => {
                    self.front_end.answered();
                    self.show(Item::Problem(not_text()))?;
                }
                Some(Happening::Handled(_)) | None => {}
            }
            self.conversation.handle_timeout(now());
        }
    }

    /// Another program of the profile may have been told long ago that nobody can be reached.
    fn look_for_relay(&mut self) -> Result<(), Failure> {
        match self.session.try_call(&Command::Status, CALL_TIMEOUT) {
            Ok(Reply::Status(status)) if status.lacks_relay() => {
                self.handle(Input::Event(Event::RelayOff));
                Ok(())
            }
            Err(CallError::Signal(signal)) => Err(Failure::signal(signal)),
            Ok(_) | Err(_) => Ok(()),
        }
    }

    /// Carries out the outputs of the conversation. Returns its next deadline, or how it ended.
    fn carry_out(&mut self) -> Result<ControlFlow<Ending, Option<Instant>>, Failure> {
        loop {
            match self.conversation.poll_output() {
                Output::Ask {
                    request,
                    doing,
                    command,
                } => self.ask(request, &doing, command)?,
                Output::Show(item) => self.show(item)?,
                Output::Tell(event) => self.front_end.tell(&event)?,
                Output::Met(name) => self.front_end.met(&name),
                Output::End(ending) => return Ok(ControlFlow::Break(ending)),
                Output::Wait(deadline) => return Ok(ControlFlow::Continue(deadline)),
            }
        }
    }

    /// Shows an item, or keeps it until the terminal is this program's again.
    fn show(&mut self, item: Item) -> Result<(), Failure> {
        if !self.is_in_front() {
            if self.held.len() == HELD_MAX {
                self.held.pop_front();
            }
            self.held.push_back(item);
            return Ok(());
        }
        let item = self.with_advice(item);
        self.front_end.show(&item, unix_time())?;
        if let Item::Message(message) = item {
            self.handle(Input::Seen(message.id));
        }
        Ok(())
    }

    /// A file that could not be offered is a problem like those of other requests, which says what to do.
    fn with_advice(&self, item: Item) -> Item {
        if let Item::Transfer { transfer, state } = &item
            && let TransferState::NotOffered { error } = state
        {
            let error = CallError::Refused(error.clone());
            return Item::Problem(self.session.failure(&transfer.doing(), error));
        }
        item
    }

    /// Tells whether this program has the terminal and is ready for it.
    fn is_in_front(&mut self) -> bool {
        self.is_away |= self.front_end.is_in_background();
        !self.is_away
    }

    /// Shows what came meanwhile, if this program was away and has the terminal again.
    fn come_back(&mut self) -> Result<(), Failure> {
        if !self.is_away || self.front_end.is_in_background() {
            return Ok(());
        }
        self.is_away = false;
        self.front_end.resume();
        let mut held = std::mem::take(&mut self.held).into_iter();
        held.try_for_each(|item| self.show(item))
    }

    fn ask(&mut self, request: RequestId, doing: &str, command: Command) -> Result<(), Failure> {
        let result = match ready_to_send(command) {
            Ok(command) => self.call(doing, &command)?,
            Err(failure) => Err(RequestError::Failed(failure)),
        };
        self.handle(Input::Answered { request, result });
        Ok(())
    }

    /// A signal ends the chat; anything else that goes wrong is the conversation's.
    fn call(
        &mut self,
        doing: &str,
        command: &Command,
    ) -> Result<Result<Reply, RequestError>, Failure> {
        let (server, front_end) = (self.session.settings().server(), &self.front_end);
        let tell = || {
            if matches!(command, Command::List) {
                // Where this cannot be shown, what comes next cannot, either.
                let _ = front_end.awaiting(&server.to_string());
            }
        };
        let session = &mut *self.session;
        let mut result = session.try_call_telling(command, CALL_TIMEOUT, tell);
        if let Command::Send { to, body, sent } = command
            && result.as_ref().is_err_and(CallError::is_loss)
        {
            let is_own = self.session.revive()?;
            self.handle(Input::Revived { is_own });
            result = self.session.send_rest(to, body, *sent, CALL_TIMEOUT);
        }
        match result {
            Ok(reply) => Ok(Ok(reply)),
            Err(CallError::Signal(signal)) => Err(Failure::signal(signal)),
            Err(CallError::Refused(CommandError::NoSuchTransfer)) => {
                Ok(Err(RequestError::NoSuchTransfer))
            }
            Err(error) => Ok(Err(RequestError::Failed(
                self.session.failure(doing, error),
            ))),
        }
    }

    fn handle(&mut self, input: Input) {
        let now = Now {
            instant: now(),
            wall: unix_time(),
        };
        self.conversation.handle_input(input, now);
    }
}

/// So many lines that were piped in named nobody.
fn unaddressed(lost: usize) -> Failure {
    let lines = match lost {
        1 => "1 line".to_owned(),
        count => format!("{count} lines"),
    };
    Failure::new(Exit::Usage, format!("could not send {lines}"))
        .because("there was nobody to send to")
        .next("run 'peer chat NAME', or begin a line with 'NAME: '")
}

/// A line that was piped in is not sent.
fn not_text() -> Failure {
    Failure::new(Exit::Usage, "could not read a line")
        .because("it is not UTF-8")
        .next("convert it, or put it into a file and use /send-file")
}

/// Cancels the transfers of a conversation that ends early. The node may outlive it, for other programs.
fn give_up(session: &mut NodeHandle, conversation: &Conversation) -> Vec<Transfer> {
    let cut_off = conversation.cut_off().into_iter();
    let cancelled = cut_off.map(|(transfer, shown)| {
        // If this fails, they end with the node.
        let _ = session.try_call(&Command::Cancel { transfer }, CALL_TIMEOUT);
        shown
    });
    cancelled.collect()
}

/// Tells whether messages can go out without a log-in; so it seems where the node does not answer.
fn is_logged_in(session: &mut NodeHandle) -> bool {
    match session.try_call(&Command::Status, CALL_TIMEOUT) {
        Ok(Reply::Status(status)) => status.account.is_some(),
        Ok(_) | Err(_) => true,
    }
}

/// Makes sure that a file to be sent can be read, and its path absolute.
fn ready_to_send(command: Command) -> Result<Command, Failure> {
    let Command::SendFile { to, path } = command else {
        return Ok(command);
    };
    let (path, _): (PathBuf, String) = sendable(&path)?;
    Ok(Command::SendFile { to, path })
}
