//! `receive`: shows what arrives, and takes files.
//!
//! At a terminal the person is asked about each offer in turn. From the first question on the line editor reads:
//! the question is its prompt, what is printed appears above it, what is half typed is kept, and the bars of
//! moving files are rows below it. Another question takes the place of the one that stands, and what was typed
//! before it is no answer to it.
//!
//! Where the output is no terminal, or one that no editor can draw on, lines are read as they are handed over,
//! at Enter. What is half typed cannot be shown again there: it is thrown away, and its row cleared, before
//! anything is printed. The question is then repeated, so that it is the last line.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use common::id::{AccountName, TransferId};
use common::text::{inline, wrapped};
use rustix::fs::Access;
use rustix::io::Errno;
use signal_hook::consts::{SIGCONT, SIGINT};

use super::Place;
use super::node_handle::NodeHandle;
use crate::args::Receive;
use crate::client::{CallError, Happening, Typed, now};
use crate::config::{AcceptPolicy, CALL_TIMEOUT, shown_path};
use crate::conversation::broken_by;
use crate::conversation::connection::{ConnectionChange, ConnectionWatch};
use crate::conversation::presence::{Departed, Presence};
use crate::conversation::recent::Recent;
use crate::failure::{Exit, Failure};
use crate::node::command::{
    Command, CommandError, ConnectionState, Direction, Event, FailureKind, HistoryItem, OfferView,
    Reply, TransferState,
};
use crate::shell::names::FileName;
use crate::ui::line::Counter;
use crate::ui::progress::Bars;
use crate::ui::prompt::{Names, Prompt, STATUS_ROWS_MAX, discard_keys};
use crate::ui::{OutputClosed, Screen, line};
use questions::Questions;

// Which offer is asked about, and when.
mod questions;

/// How often it is looked whether the terminal is this program's again.
const BACKGROUND_PAUSE: Duration = Duration::from_millis(100);

/// Says that a line answers nothing.
const NOT_ASKED: &str = "Nothing was asked when that line was typed.";
/// Says that a line is no answer.
const NO_ANSWER: &str = "Type y to take it or n to decline it, then Enter.";
/// Says that an offer cannot be answered here.
const NOBODY_TO_ASK: &str = "There is nobody to ask; the offer stays open. 'peer receive --accept ...' in another terminal takes it.";

/// Shows messages and takes files until it is interrupted, or, with `--once`, until the first.
pub(super) fn receive(place: &Place, args: &Receive, screen: &Screen) -> Result<Exit, Failure> {
    const DOING: &str = "receive";
    let policy = AcceptPolicy::parse(&args.accept).map_err(|reason| {
        Failure::new(Exit::Usage, "could not understand --accept")
            .because(reason)
            .next("for example: peer receive --accept from bob carol")
    })?;
    let folder = existing_folder(&args.folder)?;
    if policy != AcceptPolicy::Never {
        check_writable(&folder)?;
    }
    let can_ask = policy == AcceptPolicy::Ask && io::stdin().is_terminal() && !screen.is_json();
    if can_ask {
        Prompt::leave_signals_to_editor();
    }
    let mut session = place.open(DOING)?;
    let offline = match session.ready(DOING) {
        Ok(()) => None,
        // Neighbours can be heard without a server.
        Err(failure) if failure.exit() == Exit::Unreachable && session.may_hear_neighbours() => {
            Some(failure)
        }
        Err(failure) => return Err(failure),
    };
    let keyboard = can_ask
        .then(|| keyboard(&session))
        .transpose()
        .map_err(|error| {
            Failure::new(Exit::Other, "could not read standard input").because(error)
        })?;
    let mut receiver = Receiver {
        session: &mut session,
        screen,
        policy,
        folder,
        is_renaming: args.rename,
        is_once: args.once,
        can_ask: keyboard.is_some(),
        keyboard,
        is_reading: false,
        is_away: false,
        bars: Bars::new(screen),
        bars_below: 0,
        connection: ConnectionWatch::default(),
        presence: Presence::default(),
        departed: Departed::default(),
        seen: Recent::default(),
        questions: Questions::default(),
        taking: BTreeMap::new(),
        declined: BTreeSet::new(),
    };
    screen.note(
        screen
            .error_look
            .dim("Waiting for messages and files. Ctrl-C ends."),
    );
    let told = receiver.tell_offline(offline);
    let ended = told
        .and_then(|()| receiver.catch_up())
        .and_then(|()| receiver.run());
    receiver.put_keyboard_away();
    if ended.is_err() {
        receiver.cancel();
    }
    ended
}

/// Reads answers. Whoever stops the program and goes on is asked again.
fn keyboard(session: &NodeHandle) -> io::Result<Prompt> {
    session.tell_when_continued()?;
    Prompt::start(session.notifier(), Names::default())
}

/// Makes sure that a folder for files is there, and returns its absolute path.
pub(super) fn existing_folder(folder: &Path) -> Result<PathBuf, Failure> {
    let shown = shown_path(folder);
    let failure = |why: &dyn std::fmt::Display| {
        Failure::new(Exit::File, format!("could not put files into {shown}"))
            .because(why)
            .next("choose another folder with --folder DIR")
    };
    match std::fs::metadata(folder) {
        Ok(metadata) if metadata.is_dir() => {}
        Ok(_) => return Err(failure(&"it is not a folder")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(failure(&error).next(format!("make it first: mkdir -p {shown}")));
        }
        Err(error) => return Err(failure(&error)),
    }
    let path = std::path::absolute(folder).map_err(|error| failure(&error))?;
    match path.to_str() {
        Some(_) => Ok(path),
        None => Err(failure(&"its path is not valid text (UTF-8)")
            .next("choose another folder with --folder DIR, or rename it")),
    }
}

/// Makes sure that files can be put into a folder, before anybody offers one.
pub(super) fn check_writable(folder: &Path) -> Result<(), Failure> {
    let needed = Access::WRITE_OK | Access::EXEC_OK;
    rustix::fs::access(folder, needed).map_err(|errno| {
        let shown = shown_path(folder);
        let why = match errno {
            Errno::ROFS => "it is on a read-only file system".to_owned(),
            Errno::ACCESS | Errno::PERM => "you are not permitted to write to it".to_owned(),
            other => other.to_string(),
        };
        Failure::new(Exit::File, format!("could not put files into {shown}"))
            .because(why)
            .next("choose another folder with --folder DIR")
    })
}

/// How `receive --once` ends, where a step is the last one; `None` goes on.
type Step = Result<Option<Exit>, Failure>;

struct Receiver<'a> {
    session: &'a mut NodeHandle,
    screen: &'a Screen,
    policy: AcceptPolicy,
    folder: PathBuf,
    /// Whether files with odd names are taken under their substitutes without asking.
    is_renaming: bool,
    is_once: bool,
    keyboard: Option<Prompt>,
    /// Somebody is there to be asked.
    can_ask: bool,
    /// The editor reads line after line.
    is_reading: bool,
    /// Another job has had the terminal, and perhaps still has. Only the editor minds.
    is_away: bool,
    bars: Bars,
    /// Bars that stand below what is typed.
    bars_below: usize,
    connection: ConnectionWatch,
    presence: Presence,
    departed: Departed,
    seen: Recent,
    /// Offers that the person is asked about.
    questions: Questions,
    /// Transfers that were accepted here.
    taking: BTreeMap<TransferId, OfferView>,
    /// Offers that were declined here and have not ended yet.
    declined: BTreeSet<TransferId>,
}

impl Receiver<'_> {
    fn run(&mut self) -> Result<Exit, Failure> {
        loop {
            if self.is_once && !self.seen.is_empty() && self.taking.is_empty() {
                return Ok(Exit::Done);
            }
            self.come_back();
            self.show_bars();
            self.ask_if_due();
            let deadline = self.poll_timeout();
            let ended = match self.session.next(deadline) {
                Some(Happening::Event(event)) => self.on_event(event)?,
                Some(Happening::Gone(_)) => {
                    if self.session.revive()? {
                        self.note(&self.screen.error_look.dim(line::TOOK_OVER));
                    }
                    self.catch_up()?;
                    None
                }
                // Below the question stands what a shell wrote, and the mode of the terminal may be the shell's.
                Some(Happening::Signal(SIGCONT)) => {
                    self.is_away = self.has_editor();
                    self.ask_below();
                    None
                }
                Some(Happening::Signal(signal)) => return Err(Failure::signal(signal)),
                Some(Happening::Typed(typed)) => self.on_typed(&typed)?,
                // It is no answer.
                Some(Happening::NotText) => self.on_typed(&Typed::Line(String::new()))?,
                Some(Happening::Handled(_)) => None,
                None => {
                    self.bars.handle_timeout(now());
                    None
                }
            };
            if let Some(exit) = ended
                && self.is_once
            {
                return Ok(exit);
            }
        }
    }

    /// When something is due though nothing happens.
    fn poll_timeout(&self) -> Option<Instant> {
        let question = if self.is_away {
            Some(now() + BACKGROUND_PAUSE)
        } else {
            self.questions.poll_timeout()
        };
        let deadlines = [self.bars.poll_timeout(), question];
        deadlines.into_iter().flatten().min()
    }

    /// Gives the terminal back as it was.
    fn put_keyboard_away(&mut self) {
        if let Some(keyboard) = self.keyboard.take() {
            keyboard.end();
        }
    }

    /// Gives up what is on its way here.
    fn cancel(&mut self) {
        for (transfer, offer) in std::mem::take(&mut self.taking) {
            self.bars.end(transfer);
            let cancelled = self
                .session
                .try_call(&Command::Cancel { transfer }, CALL_TIMEOUT);
            if cancelled.is_ok() {
                self.note(&format!(
                    "Cancelled: {} was not taken; what had arrived of it is removed.",
                    file(&offer)
                ));
            }
        }
        let unanswered = self.questions.all();
        if !unanswered.is_empty() {
            let text = line::unanswered(&unanswered, self.session.is_owner());
            self.note(&text);
        }
    }

    /// Says that the server is away, if it was so from the beginning.
    fn tell_offline(&mut self, offline: Option<Failure>) -> Result<(), Failure> {
        let Some(failure) = offline else {
            return Ok(());
        };
        let reason = failure.why().unwrap_or(failure.what()).to_owned();
        let state = ConnectionState::Offline {
            reason,
            is_other_server: false,
            retry_in_s: Some(0),
        };
        self.on_event(Event::Connection(state)).map(|_| ())
    }

    /// What arrived before this command ran.
    fn catch_up(&mut self) -> Result<(), Failure> {
        const DOING: &str = "show what arrived before";
        let Reply::Messages(messages) = self.session.call(DOING, &Command::Unread)? else {
            return Err(Failure::unexpected_reply(DOING));
        };
        for message in messages {
            self.on_message(message)?;
        }
        let Reply::Offers(offers) = self.session.call(DOING, &Command::Offers)? else {
            return Err(Failure::unexpected_reply(DOING));
        };
        for offer in offers {
            self.on_offer(offer)?;
        }
        self.look_around()
    }

    /// Learns who is online. Without that it is not told who leaves.
    fn look_around(&mut self) -> Result<(), Failure> {
        // In this order: whoever comes between the two is in the list.
        for command in [Command::Watch, Command::List] {
            match self.session.try_call(&command, CALL_TIMEOUT) {
                Ok(Reply::Directory(devices)) => {
                    for (account, is_online) in self.presence.on_listed(&devices, now()) {
                        self.on_moved(&account, is_online);
                    }
                }
                Err(CallError::Signal(signal)) => return Err(Failure::signal(signal)),
                Ok(_) | Err(CallError::Refused(_) | CallError::TimedOut | CallError::Gone(_)) => {}
            }
        }
        Ok(())
    }

    fn on_event(&mut self, event: Event) -> Step {
        match event {
            Event::Message(message) => {
                self.on_message(message)?;
                Ok(None)
            }
            Event::Offer(offer) => {
                self.on_offer(offer)?;
                Ok(None)
            }
            Event::Transfer { transfer, state } => self.on_transfer(transfer, &state),
            Event::Connection(state) => {
                self.screen.data(&Event::Connection(state.clone()))?;
                if let Some(change) = self.connection.on_state(&state) {
                    self.on_connection_change(&change)?;
                }
                Ok(None)
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
                    self.note(&text);
                }
                Ok(None)
            }
            Event::Presence(change) => {
                if let Some((account, is_online)) = self.presence.on_change(&change) {
                    self.on_moved(&account, is_online);
                }
                Ok(None)
            }
            Event::Recorded(_)
            | Event::Nearby { .. }
            | Event::Path(_)
            | Event::Addressed { .. }
            | Event::MessageState { .. }
            | Event::Withdrawn { .. } => Ok(None),
        }
    }

    fn on_connection_change(&mut self, change: &ConnectionChange) -> Result<(), Failure> {
        self.note(&line::connection_change(change, &self.screen.error_look));
        match change {
            ConnectionChange::Lost { .. } | ConnectionChange::OtherServer { .. } => {
                self.presence.on_connection_lost();
                Ok(())
            }
            ConnectionChange::Restored => self.look_around(),
        }
    }

    /// Says that whoever offers or sends a file left, or is back.
    fn on_moved(&mut self, account: &AccountName, is_online: bool) {
        let has_file = |account: &AccountName| {
            let mut taking = self.taking.values();
            self.questions.is_from(account) || taking.any(|offer| offer.from == *account)
        };
        if !self.departed.is_told(account, is_online, has_file) {
            return;
        }
        self.note(&line::moved(account, is_online, &self.screen.error_look));
        let asked = self.questions.asked();
        if asked.is_some_and(|offer| offer.from == *account) {
            // It has other words now.
            self.questions.on_printed(now());
        }
    }

    fn on_message(&mut self, message: HistoryItem) -> Result<(), Failure> {
        if message.direction == Direction::Sent || !self.seen.insert(message.id) {
            return Ok(());
        }
        self.say(&line::message(&message, &self.screen.look))?;
        let id = message.id;
        self.screen.data(&Event::Message(message))?;
        let read = Command::MarkRead { ids: vec![id] };
        // Shown is shown: when this fails it is only shown again next time.
        match self.session.try_call(&read, CALL_TIMEOUT) {
            Err(CallError::Signal(signal)) => Err(Failure::signal(signal)),
            Ok(_) | Err(CallError::Refused(_) | CallError::TimedOut | CallError::Gone(_)) => Ok(()),
        }
    }

    fn on_offer(&mut self, offer: OfferView) -> Result<(), Failure> {
        let known =
            self.taking.contains_key(&offer.transfer) || self.questions.contains(offer.transfer);
        if known {
            return Ok(());
        }
        self.departed.on_offer(&offer.from);
        let answer = self.policy.answer(&offer.from);
        self.screen.offer(&offer)?;
        let counter = match answer {
            _ if self.is_renaming => Counter::Renames,
            None if self.can_ask => Counter::Asks,
            Some(_) | None => Counter::Refuses,
        };
        self.prose(&line::offer(&offer, counter, &self.screen.look))?;
        match answer {
            Some(is_accepted) => self.answer(offer, is_accepted),
            None if self.can_ask => {
                self.questions.add(offer, now());
                Ok(())
            }
            None => {
                self.note(NOBODY_TO_ASK);
                Ok(())
            }
        }
    }

    fn answer(&mut self, offer: OfferView, is_accepted: bool) -> Result<(), Failure> {
        let command = Command::AnswerOffer {
            transfer: offer.transfer,
            folder: is_accepted.then(|| self.folder.clone()),
            name: self.substitute(&offer).filter(|_| is_accepted),
        };
        if !is_accepted {
            self.declined.insert(offer.transfer);
        }
        match self.session.try_call(&command, CALL_TIMEOUT) {
            Ok(_) if is_accepted => {
                self.tell_if_left(&offer);
                self.taking.insert(offer.transfer, offer);
                Ok(())
            }
            Ok(_) => {
                self.note(&format!("Declined {}.", inline(&offer.name)));
                Ok(())
            }
            Err(CallError::Refused(CommandError::NoSuchTransfer)) => {
                self.note("That offer has been answered elsewhere, or was withdrawn.");
                Ok(())
            }
            Err(error) => Err(Failure::of_call("answer the offer", error)),
        }
    }

    /// Says of a file that was accepted that it may not come. The node tries all the same: whoever has left the
    /// server may still have a link.
    fn tell_if_left(&mut self, offer: &OfferView) {
        if self.departed.contains(&offer.from) {
            let (name, from) = (inline(&offer.name), &offer.from);
            let text = format!("{from} has left: {name} comes only if {from} is back soon.");
            self.note(&self.screen.error_look.yellow(&text));
        }
    }

    /// What to do about a file that did not come: a row where its name is odd, its sender has left, or nobody
    /// wanted that.
    fn next_without(&self, offer: &OfferView, has_broken: bool) -> String {
        let from = &offer.from;
        let odd = FileName::substitute(&offer.name).filter(|_| self.substitute(offer).is_none());
        let what = match odd {
            Some(name) => format!(
                "run 'peer receive' with --rename to take it as {}, and have {from} send it again",
                name.as_str()
            ),
            None if self.departed.contains(from) => {
                format!("{from} had left; ask {from} to send it again")
            }
            None if has_broken => {
                format!("ask {from} to send it again; it starts from the beginning")
            }
            None => return String::new(),
        };
        format!("\n {} {what}", self.screen.error_look.dim("next:"))
    }

    /// The other name for an offered file with an odd one, if it may be used: the person was asked with
    /// it, or said so for all.
    fn substitute(&self, offer: &OfferView) -> Option<String> {
        let name = FileName::substitute(&offer.name)?;
        (self.is_renaming || self.can_ask).then(|| name.as_str().to_owned())
    }

    fn on_transfer(&mut self, transfer: TransferId, state: &TransferState) -> Step {
        if state.is_final() {
            self.drop_question(transfer, state);
        }
        let Some(offer) = self.taking.get(&transfer) else {
            if self.declined.remove(&transfer) {
                let state = state.clone();
                self.screen.data(&Event::Transfer { transfer, state })?;
            }
            return Ok(None);
        };
        let name = inline(&offer.name).into_owned();
        let from = offer.from.clone();
        self.screen.data(&Event::Transfer {
            transfer,
            state: state.clone(),
        })?;
        match state {
            TransferState::Moving(moved) => {
                let whom = (&*name, &from);
                self.bars.advance(transfer, whom, *moved, now());
                Ok(None)
            }
            TransferState::Looking | TransferState::Waiting => Ok(None),
            TransferState::Done { .. } => {
                let whom = format!("from {from}");
                self.bars.end(transfer);
                self.taking.remove(&transfer);
                self.prose(&line::transfer_done("Received", &name, &whom, state))?;
                Ok(Some(Exit::Done))
            }
            // Only a file that goes is not offered.
            TransferState::NotOffered { .. } => Ok(None),
            TransferState::Declined { reason } | TransferState::Failed { reason, .. } => {
                self.bars.end(transfer);
                let next = self.next_without(offer, has_broken(state));
                self.taking.remove(&transfer);
                let look = &self.screen.error_look;
                self.note(&format!(
                    "{} {name} from {from} failed: {}{}",
                    look.red("error:"),
                    inline(reason),
                    next
                ));
                Ok(Some(Exit::Transfer))
            }
        }
    }

    /// An offer ended before it was answered here.
    fn drop_question(&mut self, transfer: TransferId, state: &TransferState) {
        let which = self.questions.told_apart(transfer);
        let was_asked = self.questions.asked().map(|offer| offer.transfer);
        let Some(offer) = self.questions.end(transfer, now()) else {
            return;
        };
        if was_asked == Some(transfer) {
            self.withdraw_question();
        }
        let how = match state {
            TransferState::Failed { .. } => line::offer_ended(broken_by(state)),
            TransferState::Looking
            | TransferState::NotOffered { .. }
            | TransferState::Waiting
            | TransferState::Moving(_)
            | TransferState::Done { .. }
            | TransferState::Declined { .. } => "was answered elsewhere".to_owned(),
        };
        self.note(&format!("The {which}offer of {} {how}.", file(&offer)));
    }

    /// Tells whether lines are typed in the editor.
    fn has_editor(&self) -> bool {
        self.keyboard.as_ref().is_some_and(Prompt::is_interactive)
    }

    /// Takes the terminal up again if another job had it, and does not any more.
    fn come_back(&mut self) {
        let Some(keyboard) = &self.keyboard else {
            return;
        };
        if keyboard.is_in_background() {
            self.is_away = true;
        } else if std::mem::take(&mut self.is_away) {
            keyboard.resume();
        }
    }

    /// Has the bars below what is typed, while something is.
    fn show_bars(&mut self) {
        let is_below = self.is_reading && self.has_editor();
        self.bars.lend(is_below);
        let prompt = self.prompt();
        let Some(keyboard) = self.keyboard.as_mut().filter(|_| is_below && !self.is_away) else {
            return;
        };
        let rows = self.bars.rows(STATUS_ROWS_MAX);
        let is_other_count = std::mem::replace(&mut self.bars_below, rows.len()) != rows.len();
        keyboard.set_status(rows);
        if is_other_count && keyboard.is_editing() {
            // The editor makes room for them when it begins.
            keyboard.reword(&prompt);
        }
    }

    /// Has the editor ask for nothing. What is half typed stays behind the question that it was for.
    fn withdraw_question(&mut self) {
        if let Some(keyboard) = self.keyboard.as_mut().filter(|it| it.is_editing()) {
            // A line that is on its way is told of when it comes.
            let _ = keyboard.ask_anew("", "");
        }
    }

    fn ask_if_due(&mut self) {
        if self.has_editor() {
            if !self.is_away {
                self.ask_in_editor();
            }
            return;
        }
        let Some((offer, is_again)) = self.questions.handle_timeout(now()) else {
            return;
        };
        let Some(keyboard) = &mut self.keyboard else {
            return;
        };
        let question = question(offer, self.departed.contains(&offer.from));
        let question = self.screen.error_look.bold(&question);
        let show = || self.bars.around(|| self.screen.note(&question));
        if is_again {
            keyboard.ask_again(show);
        } else {
            keyboard.ask_now(show);
        }
    }

    /// What the editor asks for: the answer to the question that stands, or nothing.
    fn prompt(&self) -> String {
        let Some(offer) = self.questions.asked() else {
            return String::new();
        };
        let question = question(offer, self.departed.contains(&offer.from));
        format!("{} ", wrapped(&question, self.screen.look.columns()))
    }

    /// Has the editor ask what is to be asked, or for nothing: whoever types a line then is told so.
    fn ask_in_editor(&mut self) {
        let due = self.questions.handle_timeout(now());
        let due = due.map(|(_, is_again)| is_again);
        self.is_reading |= due.is_some();
        let prompt = self.prompt();
        let Some(keyboard) = self.keyboard.as_mut().filter(|_| self.is_reading) else {
            return;
        };
        match due {
            None => keyboard.ask(&prompt),
            Some(true) => keyboard.reword(&prompt),
            Some(false) => {
                let look = &self.screen.look;
                let not_asked = wrapped(&look.dim(NOT_ASKED), look.columns());
                if !keyboard.ask_anew(&prompt, &not_asked) {
                    self.questions.on_not_asked(now());
                }
            }
        }
    }

    /// Has the question that stands shown again below what was printed; the editor's always is.
    fn ask_below(&mut self) {
        if !self.has_editor() {
            self.questions.on_printed(now());
        }
    }

    fn on_typed(&mut self, typed: &Typed) -> Step {
        let takes_answer = self.keyboard.as_mut().is_some_and(Prompt::takes_answer);
        match typed {
            Typed::Line(text) if takes_answer && self.questions.is_asked() => self.on_answer(text),
            Typed::Line(text) => {
                self.on_unasked(text);
                Ok(None)
            }
            Typed::Interrupt | Typed::Cleared => Err(Failure::signal(SIGINT)),
            Typed::End if takes_answer => {
                self.on_end_of_input();
                Ok(None)
            }
            // It was for what was asked before; a real end comes again.
            Typed::End => {
                self.on_unasked("");
                Ok(None)
            }
            Typed::Failed => {
                self.on_end_of_input();
                self.can_ask = false;
                Ok(None)
            }
        }
    }

    /// With a question open nobody is left to ask, and messages still arrive. Without one the next one finds out.
    fn on_end_of_input(&mut self) {
        self.is_reading = false;
        if !self.questions.is_empty() {
            self.note(NOBODY_TO_ASK);
            self.can_ask = false;
            self.questions = Questions::default();
        }
    }

    /// A line that was typed while nothing was asked.
    fn on_unasked(&mut self, text: &str) {
        if !text.trim().is_empty() {
            self.note(&self.screen.error_look.dim(NOT_ASKED));
        }
        if self.has_editor() {
            return self.questions.on_not_asked(now());
        }
        if let Some(keyboard) = &mut self.keyboard {
            keyboard.ask("");
        }
        self.questions.on_printed(now());
    }

    fn on_answer(&mut self, text: &str) -> Step {
        let is_accepted = match text.trim().to_ascii_lowercase().as_str() {
            "y" | "yes" => true,
            "n" | "no" => false,
            "" => {
                self.ask_below();
                return Ok(None);
            }
            _ => {
                self.note(&self.screen.error_look.dim(NO_ANSWER));
                return Ok(None);
            }
        };
        if let Some(offer) = self.questions.answer(now()) {
            self.answer(offer, is_accepted)?;
        }
        Ok(None)
    }

    fn say(&mut self, text: &str) -> Result<(), OutputClosed> {
        if self.is_above(io::stdout()) {
            return self.print_above(text);
        }
        self.print(text, |screen| screen.say(text))
    }

    fn prose(&mut self, text: &str) -> Result<(), OutputClosed> {
        self.say(&wrapped(text, self.screen.look.columns()))
    }

    fn note(&mut self, text: &str) {
        if self.is_above(io::stderr()) {
            let text = wrapped(text, self.screen.error_look.columns());
            // Hints are not worth ending for.
            let _ = self.print_above(&text);
        } else {
            self.print(text, |screen| screen.note(text));
        }
    }

    /// Tells whether the editor shows what is printed.
    fn is_above(&self, out: impl IsTerminal) -> bool {
        let is_editing = self.keyboard.as_ref().is_some_and(Prompt::is_editing);
        is_editing && !self.is_away && out.is_terminal()
    }

    /// Prints something above what is typed.
    fn print_above(&self, text: &str) -> Result<(), OutputClosed> {
        match &self.keyboard {
            Some(keyboard) => keyboard.print(self.screen, text),
            None => self.screen.say(text),
        }
    }

    /// Prints something in a row of its own while the editor does not read, above a question that stands.
    fn print<R>(&mut self, text: &str, write: impl FnOnce(&Screen) -> R) -> R {
        // What is typed for the editor is left to it.
        let is_thrown_away = self.can_ask && !self.is_reading;
        let written = self.bars.around(|| {
            if is_thrown_away && discard_keys() {
                self.screen.note(self.screen.error_look.dim(NOT_ASKED));
            }
            write(self.screen)
        });
        if let Some(keyboard) = &self.keyboard {
            keyboard.printed(text);
        }
        self.ask_below();
        written
    }
}

/// Asks whether to take an offered file, whose sender may have left meanwhile.
fn question(offer: &OfferView, has_left: bool) -> String {
    let other = FileName::substitute(&offer.name);
    let other = other.map_or(String::new(), |name| format!(" as {}", name.as_str()));
    let left = match (has_left, other.is_empty()) {
        (false, _) => "",
        (true, true) => ", who has left",
        (true, false) => ", who has left,",
    };
    format!("Take {}{left}{other}? [y/n, then Enter]", file(offer))
}

/// Tells whether something broke that may not break the next time.
const fn has_broken(state: &TransferState) -> bool {
    matches!(
        state,
        TransferState::Failed {
            kind: FailureKind::NodeEnds | FailureKind::Broken,
            ..
        }
    )
}

/// An offered file as it is named to the person.
fn file(offer: &OfferView) -> String {
    format!("{} from {}", inline(&offer.name), offer.from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_names_the_file_its_sender_and_the_name_that_it_gets() {
        let offer = |name: &str| OfferView {
            transfer: TransferId::from_bytes([1; 16]),
            from: "alice".parse().unwrap(),
            name: name.to_owned(),
            size: 5,
            executable: false,
        };
        for (name, has_left, words) in [
            ("a.txt", false, "a.txt from alice?"),
            ("a.txt", true, "a.txt from alice, who has left?"),
            ("con.txt", false, "con.txt from alice as _con.txt?"),
            (
                "con.txt",
                true,
                "con.txt from alice, who has left, as _con.txt?",
            ),
        ] {
            let asked = format!("Take {words} [y/n, then Enter]");
            assert_eq!(question(&offer(name), has_left), asked);
        }
    }

    #[test]
    fn what_to_do_next_fits_why_files_cannot_be_put_there() {
        let place = tempfile::tempdir().unwrap();
        let file = place.path().join("file");
        std::fs::write(&file, "x").unwrap();
        let next = |folder: &Path| {
            let failure = existing_folder(folder).unwrap_err();
            assert_eq!(failure.exit(), Exit::File);
            failure.what_next().unwrap().to_owned()
        };
        let missing = place.path().join("missing");
        assert!(next(&missing).starts_with("make it first: mkdir -p "));
        // Neither can be made.
        for folder in [file.clone(), file.join("below")] {
            assert_eq!(next(&folder), "choose another folder with --folder DIR");
        }
        assert!(existing_folder(place.path()).is_ok());
    }
}
