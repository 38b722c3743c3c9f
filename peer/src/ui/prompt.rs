//! Typing while messages arrive.
//!
//! At a terminal a line editor runs on a thread of its own, and what is printed meanwhile appears
//! above the line that is being typed. Without a terminal that it can draw on, lines are read from stdin as
//! they are, one at a time, and nothing is read ahead.

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::io::{self, BufRead, IsTerminal, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use common::limits::MESSAGE_LEN_MAX;
use common::text;
use nix::errno::Errno;
use nix::sys::signal::{SigSet, Signal};
use rustix::io::ioctl_fionread;
use rustix::process::getpgrp;
use rustix::termios::{QueueSelector, tcflush, tcgetpgrp};
use rustyline::completion::{Completer, FilenameCompleter, Pair};
use rustyline::error::{ReadlineError, Signal as EditorSignal};
use rustyline::highlight::{CmdKind, Highlighter};
use rustyline::hint::{Hint, Hinter};
use rustyline::history::DefaultHistory;
use rustyline::validate::{ValidationContext, ValidationResult, Validator};
use rustyline::{
    ColorMode, Config, Context, Editor, EventHandler, ExternalPrinter, GraphemeClusterMode, Helper,
    KeyEvent,
};
use signal_hook::consts::SIGINT;

use super::{CLEAR_ROW, OutputClosed, Screen};
use crate::client::{Notifier, Typed};
use crate::conversation::slash::{Operand, Slash};
use above::{Above, SharedAbove};
use asked::{Asked, Change};
use interrupt::Interrupt;
use known::Known;
use suspend::Suspend;

// What stands above the line that is typed.
mod above;
// What is asked for, and something else instead.
mod asked;
// Whether this program has the terminal.
mod foreground;
// Ctrl-C as a key.
mod interrupt;
// What need not be looked at again at each key.
mod known;
// Ctrl-Z as a key.
mod suspend;

/// Lines to print that wait for the editor, which takes one at a time; whoever prints more waits.
const PRINTING_MAX: usize = 4096;

/// Rows below what is being typed; few, for the sake of small terminals.
pub(crate) const STATUS_ROWS_MAX: usize = 3;
/// Printed, it goes up one row and down again: the editor draws everything anew below it.
const REDRAW: &str = "\u{1b}[A\n";
/// Clears the row of the cursor from there, and all below (ED). Written in front of the prompt: on a screen that got
/// narrower, rows below the line take more of it than the editor counts and clears.
const CLEAR_TO_END: &str = "\u{1b}[J";
/// Bytes that a line may still grow by when its length is shown.
const LENGTH_SHOWN_WITHIN: usize = 1024;
/// Longest line that the Up key brings back: one that was too long for a message can be made shorter. The editor
/// keeps a hundred.
const KEPT_LINE_LEN_MAX: usize = 4 * MESSAGE_LEN_MAX;
/// Kinds of terminal, as `TERM` names them, that the editor does not draw on.
const WITHOUT_EDITOR: [&str; 3] = ["dumb", "cons25", "emacs"];
/// How long the editor may take for another prompt. It takes longer where it is stopped.
const CHANGE_PATIENCE: Duration = Duration::from_secs(1);
/// What the editor takes a terminal for that does not tell its width.
const COLUMNS_DEFAULT: usize = 80;

/// Account names to complete; shared with the editor's thread.
#[derive(Clone, Debug, Default)]
pub(crate) struct Names(Arc<Mutex<BTreeSet<String>>>);

impl Names {
    /// Completes a name from now on.
    pub(crate) fn add(&self, name: &str) {
        let mut names = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        names.insert(name.to_owned());
    }

    fn starting_with(&self, start: &str) -> Vec<String> {
        let names = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let fitting = names.iter().filter(|name| name.starts_with(start));
        fitting.cloned().collect()
    }
}

/// Lines that stand below what is being typed, and change; shared with the editor's thread.
///
/// They are the editor's hint, so that it makes room for them and takes them away at Enter. How many rows
/// a hint has is settled when a line is asked for and at each key; what is in them, whenever it draws.
#[derive(Clone, Debug, Default)]
struct Status(Arc<Mutex<Vec<String>>>);

impl Status {
    /// Tells whether they change.
    fn set(&self, lines: Vec<String>) -> bool {
        let mut current = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_new = *current != lines;
        *current = lines;
        is_new
    }

    fn rows(&self) -> usize {
        let lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        lines.len().min(STATUS_ROWS_MAX)
    }

    /// The lines in so many rows of a screen. If there are more, the last row counts those that it does not show.
    /// A line that was made for a wider screen is shortened: the editor counts one row for it.
    fn drawn(&self, rows: usize, columns: usize) -> String {
        let lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let shown = if lines.len() > rows {
            rows.saturating_sub(1)
        } else {
            lines.len()
        };
        let mut drawn: Vec<_> = lines[..shown].to_vec();
        if shown < lines.len() {
            drawn.push(format!(" … {} more: /status", lines.len() - shown));
        }
        drawn.resize(rows, String::new());
        let room = columns.saturating_sub(1);
        let drawn = drawn.iter().map(|line| text::shortened(line, room));
        drawn.map(|line| format!("\n{line}")).collect()
    }
}

/// A line that is asked for, and what it begins with.
struct Wanted {
    prompt: String,
    draft: String,
}

/// Reads lines when asked, and prints above them.
#[derive(Debug)]
pub(crate) struct Prompt {
    requests: Sender<Wanted>,
    /// Prints through the editor; `None` without a terminal.
    printer: Option<SyncSender<String>>,
    status: Status,
    above: SharedAbove,
    asked: Asked,
    /// The editor has the terminal.
    is_asking: bool,
    /// A line was read without an editor that was not taken as an answer yet.
    is_read: Arc<AtomicBool>,
    /// The line that is on its way was typed before the question was shown.
    is_stale: Arc<AtomicBool>,
    /// Disconnected when the thread that reads has ended.
    done: Receiver<()>,
}

impl Prompt {
    /// Has to be called before any thread starts, where [`Prompt::start`] is to follow: at Ctrl-Z the
    /// editor gives the terminal back, stops the program, and takes the terminal again once it goes on. If
    /// another thread could get the signal, the editor would go on before the program stops. That the screen
    /// has another size is for the editor alone, too: it leaves whatever it waits for.
    pub(crate) fn leave_signals_to_editor() {
        if is_at_terminal() {
            // Fails for no signal that exists.
            let _ = editors_signals().thread_block();
        }
    }

    /// Starts reading. What is typed arrives through `notifier`.
    pub(crate) fn start(notifier: Notifier, names: Names) -> io::Result<Self> {
        if is_at_terminal() {
            Self::editing(notifier, names)
        } else {
            Self::plain(notifier)
        }
    }

    /// Reads lines as they are, without an editor.
    pub(crate) fn plain(notifier: Notifier) -> io::Result<Self> {
        let (requests, asked) = channel::<Wanted>();
        let (ended, done) = sync_channel(1);
        let is_read = Arc::<AtomicBool>::default();
        let reads = Arc::clone(&is_read);
        thread::Builder::new()
            .name("stdin".to_owned())
            .spawn(move || {
                read_plain(&asked, &reads, &notifier);
                drop::<SyncSender<()>>(ended);
            })?;
        Ok(Self {
            requests,
            printer: None,
            status: Status::default(),
            above: SharedAbove::default(),
            asked: Asked::default(),
            is_asking: false,
            is_read,
            is_stale: Arc::default(),
            done,
        })
    }

    fn editing(notifier: Notifier, names: Names) -> io::Result<Self> {
        let (requests, asked) = channel::<Wanted>();
        let (ended, done) = sync_channel(1);
        let failed = |error: ReadlineError| io::Error::other(error.to_string());
        // What is drawn goes through the helper, which knows about colours itself.
        let config = Config::builder().color_mode(ColorMode::Forced).build();
        let mut editor =
            Editor::<Completion, DefaultHistory>::with_config(config.clone()).map_err(failed)?;
        let status = Status::default();
        let above = SharedAbove::default();
        let interrupt = Interrupt::default();
        let now_asked = Asked::default();
        let is_stale = Arc::<AtomicBool>::default();
        editor.set_helper(Some(Completion {
            names,
            files: FilenameCompleter::new(),
            status: status.clone(),
            above: above.clone(),
            interrupt: interrupt.clone(),
            asked: now_asked.clone(),
            known: RefCell::default(),
            typed: RefCell::default(),
            widths: config.grapheme_cluster_mode(),
        }));
        editor.bind_sequence(
            KeyEvent::ctrl('C'),
            EventHandler::Conditional(Box::new(interrupt.clone())),
        );
        editor.bind_sequence(
            KeyEvent::ctrl('D'),
            EventHandler::Conditional(Box::new(now_asked.clone())),
        );
        editor.bind_sequence(
            KeyEvent::ctrl('Z'),
            EventHandler::Conditional(Box::new(Suspend(status.clone()))),
        );
        let mut external = editor.create_external_printer().map_err(failed)?;
        // The editor takes one line at a time, and none between two prompts: a thread waits for it.
        let (printer, lines) = sync_channel::<String>(PRINTING_MAX);
        let printed = above.clone();
        thread::Builder::new()
            .name("printer".to_owned())
            .spawn(move || {
                for line in lines {
                    printed.with(|above| above.printing(&line));
                    if external.print(line).is_err() {
                        return;
                    }
                    printed.with(Above::taken);
                }
            })?;
        let mut editing = Editing {
            editor,
            above: above.clone(),
            asked: now_asked.clone(),
            interrupt,
            is_stale: Arc::clone(&is_stale),
        };
        thread::Builder::new()
            .name("editor".to_owned())
            .spawn(move || {
                let _last_word = LastWord(notifier.clone());
                let _ = editors_signals().thread_unblock();
                editing.run(&asked, &notifier);
                drop::<SyncSender<()>>(ended);
            })?;
        Ok(Self {
            requests,
            printer: Some(printer),
            status,
            above,
            asked: now_asked,
            is_asking: false,
            is_read: Arc::default(),
            is_stale,
            done,
        })
    }

    /// Tells whether somebody types at a terminal.
    pub(crate) const fn is_interactive(&self) -> bool {
        self.printer.is_some()
    }

    /// Asks for a line, unless that is being done already.
    pub(crate) fn ask(&mut self, prompt: &str) {
        self.ask_with(prompt, "");
    }

    /// The same with a line that begins with `draft`, as if it had been typed.
    pub(crate) fn ask_with(&mut self, prompt: &str, draft: &str) {
        if !self.is_asking {
            self.asked.start();
            let wanted = Wanted {
                prompt: prompt.to_owned(),
                draft: draft.to_owned(),
            };
            // When the thread has gone it has sent its last word already.
            self.is_asking = self.requests.send(wanted).is_ok();
        }
    }

    /// Shows a question and asks for a line: a key that was pressed before the question stands there is no
    /// answer to it, one that is pressed afterwards is. What a pipe brings is taken as it comes.
    pub(crate) fn ask_now(&mut self, show: impl FnOnce()) {
        if self.is_asking && self.is_read.load(Ordering::SeqCst) {
            self.is_stale.store(true, Ordering::SeqCst);
        }
        discard_keys();
        show();
        self.ask("");
    }

    /// Shows the same question again: what was typed for it since it was shown first is an answer, as far as it
    /// is a whole line.
    pub(crate) fn ask_again(&mut self, show: impl FnOnce()) {
        discard_keys();
        show();
        self.ask("");
    }

    /// Has the editor ask with this prompt for a new line, in place of whatever it asks for, which stays above
    /// with what was typed: that is no answer, and `words` say so where it is half a line. Returns whether the
    /// prompt stands; it cannot so far if a line is on its way.
    pub(crate) fn ask_anew(&mut self, prompt: &str, words: &str) -> bool {
        if !self.is_asking {
            discard_keys();
            self.ask(prompt);
            return true;
        }
        self.change(Change {
            prompt: prompt.to_owned(),
            is_kept: false,
            words: words.to_owned(),
        })
    }

    /// Has the editor ask for the same line with another prompt: what is half typed goes on behind it. A line
    /// that is on its way answers the prompt of before.
    pub(crate) fn reword(&mut self, prompt: &str) {
        if self.is_asking {
            self.change(Change {
                prompt: prompt.to_owned(),
                is_kept: true,
                words: String::new(),
            });
        } else {
            self.ask(prompt);
        }
    }

    fn change(&self, change: Change) -> bool {
        // What is printed while no line is drawn would stand behind what is left of the last one.
        self.above.wait_until_drawn(CHANGE_PATIENCE);
        self.asked.change(change, CHANGE_PATIENCE)
    }

    /// Tells whether the editor has the terminal.
    pub(crate) const fn is_editing(&self) -> bool {
        self.is_asking && self.is_interactive()
    }

    /// Has to be called with every line that arrives.
    pub(crate) const fn answered(&mut self) {
        self.is_asking = false;
    }

    /// The same where questions are asked with [`Prompt::ask_now`] or [`Prompt::ask_anew`]: tells whether the
    /// line that arrives is an answer to the last of them.
    pub(crate) fn takes_answer(&mut self) -> bool {
        self.answered();
        self.is_read.store(false, Ordering::SeqCst);
        !self.is_stale.swap(false, Ordering::SeqCst)
    }

    /// Prints a line above what is being typed.
    pub(crate) fn print(&self, screen: &Screen, text: &str) -> Result<(), OutputClosed> {
        match &self.printer {
            // Where the editor has gone, the printer has.
            Some(printer) if self.is_asking => {
                self.above.with(Above::queue);
                match printer.send(format!("{text}\n")) {
                    Ok(()) => Ok(()),
                    Err(_) => {
                        self.above.with(Above::unqueue);
                        screen.say(text)
                    }
                }
            }
            Some(_) => {
                self.above.with(|above| above.push(text.to_owned()));
                screen.say(text)
            }
            None => screen.say(text),
        }
    }

    /// Something was printed otherwise, and stands above the line that is typed next.
    pub(crate) fn printed(&self, text: &str) {
        self.above.with(|above| above.push(text.to_owned()));
    }

    /// Shows these lines below what is being typed, in place of those of before.
    pub(crate) fn set_status(&self, lines: Vec<String>) {
        if let Some(printer) = &self.printer
            && self.status.set(lines)
            && self.is_asking
        {
            // Waiting for the editor to draw is not worth it: the next change draws this one, too.
            self.redraw(printer);
        }
    }

    fn redraw(&self, printer: &SyncSender<String>) {
        self.above.with(Above::queue);
        if printer.try_send(REDRAW.to_owned()).is_err() {
            self.above.with(Above::unqueue);
        }
    }

    /// Tells whether the terminal is another job's: nobody sees here what is printed, and the editor is
    /// not to be asked for anything.
    pub(crate) fn is_in_background(&self) -> bool {
        self.is_interactive() && foreground::is_elsewhere()
    }

    /// Takes the terminal up again, in the foreground, after another job may have had it.
    pub(crate) fn resume(&self) {
        if let Some(printer) = &self.printer
            && self.is_asking
            && self.above.with(|above| above.is_drawn())
        {
            // A terminal that is gone ends the program in another way, and what is printed next is drawn with
            // the line, too.
            let _ = foreground::take_up();
            self.redraw(printer);
        }
    }

    /// Gives the terminal back as it was, if the editor has it and not another job.
    pub(crate) fn end(self) {
        let is_editing = self.is_asking && self.printer.is_some() && !self.is_in_background();
        drop(self.requests);
        if is_editing && signal_hook::low_level::raise(SIGINT).is_ok() {
            // The editor returns at SIGINT, and the thread drops its end of the channel.
            let _ = self.done.recv_timeout(Duration::from_secs(1));
        }
    }
}

/// Throws away the keys of a terminal that nobody has read yet, and clears the row that shows them. Tells whether
/// there were whole lines among them. In the background they are another program's.
///
/// That a line is being read already does not matter: the terminal hands it over at Enter.
pub(crate) fn discard_keys() -> bool {
    // Fails where standard input is no terminal.
    let is_ours = tcgetpgrp(io::stdin()).is_ok_and(|group| group == getpgrp());
    if !is_ours {
        return false;
    }
    // What is half typed does not count.
    let has_lines = ioctl_fionread(io::stdin()).is_ok_and(|count| count > 0);
    if tcflush(io::stdin(), QueueSelector::IFlush).is_ok() && io::stderr().is_terminal() {
        // Whoever cannot be shown this sees nothing else either.
        let _ = io::stderr().lock().write_all(CLEAR_ROW.as_bytes());
    }
    has_lines
}

/// SIGTSTP and SIGWINCH.
fn editors_signals() -> SigSet {
    SigSet::from_iter([Signal::SIGTSTP, Signal::SIGWINCH])
}

/// Tells whether somebody types at a terminal that the editor can draw on.
fn is_at_terminal() -> bool {
    let kind = std::env::var("TERM").unwrap_or_default();
    let is_terminal = io::stdin().is_terminal() && io::stdout().is_terminal();
    is_terminal
        && !WITHOUT_EDITOR
            .iter()
            .any(|known| kind.eq_ignore_ascii_case(known))
}

fn read_plain(asked: &Receiver<Wanted>, is_read: &AtomicBool, notifier: &Notifier) {
    let mut input = io::stdin().lock();
    while asked.recv().is_ok() {
        let mut line = Vec::new();
        let read = input.read_until(b'\n', &mut line);
        is_read.store(true, Ordering::SeqCst);
        let typed = match read {
            Ok(0) | Err(_) => Typed::End,
            Ok(_) => match str::from_utf8(&line) {
                Ok(text) => Typed::Line(text.trim_end_matches(['\r', '\n']).to_owned()),
                Err(_) if notifier.not_text() => continue,
                Err(_) => return,
            },
        };
        if notifier.typed(typed).is_err() {
            return;
        }
    }
}

/// The editor with what it shares, on its thread.
struct Editing {
    editor: Editor<Completion, DefaultHistory>,
    above: SharedAbove,
    asked: Asked,
    interrupt: Interrupt,
    is_stale: Arc<AtomicBool>,
}

impl Editing {
    fn run(&mut self, asked: &Receiver<Wanted>, notifier: &Notifier) {
        while let Ok(wanted) = asked.recv() {
            let read = self.read_line(wanted);
            if self.asked.finish() {
                self.is_stale.store(true, Ordering::SeqCst);
            }
            let typed = match read {
                Ok(line) if self.interrupt.take() => match line.as_str() {
                    "" => Typed::Interrupt,
                    _ => Typed::Cleared,
                },
                Ok(line) => {
                    if line.len() <= KEPT_LINE_LEN_MAX {
                        // It is kept in memory, where nothing fails.
                        let _ = self.editor.add_history_entry(&line);
                    }
                    Typed::Line(line)
                }
                // By a signal.
                Err(ReadlineError::Interrupted) => Typed::Interrupt,
                Err(_) => Typed::End,
            };
            if notifier.typed(typed).is_err() {
                return;
            }
        }
    }

    /// Reads a line. A signal ends some calls of the editor, as at `fg` or for another prompt: it then goes on
    /// with what was typed.
    fn read_line(&mut self, wanted: Wanted) -> Result<String, ReadlineError> {
        let Wanted { mut prompt, draft } = wanted;
        let end = draft.len();
        let mut typed = (draft, end);
        if let Some(helper) = self.editor.helper() {
            helper.typed.replace(typed.clone());
        }
        loop {
            self.above.with(Above::begin);
            self.asked.start();
            let (line, at) = &typed;
            let read = self
                .editor
                .readline_with_initial(&prompt, line.split_at(*at));
            let (Err(error), Some(helper)) = (&read, self.editor.helper()) else {
                self.above.with(Above::end);
                return read;
            };
            typed = helper.typed.borrow().clone();
            if let Some(change) = self.asked.take_change() {
                let is_blank = prompt.is_empty() && typed.0.is_empty();
                self.above
                    .with(|above| leave(above, &change, &typed.0, is_blank));
                if !change.is_kept {
                    typed = forget(helper);
                }
                prompt = change.prompt;
                continue;
            }
            if matches!(error, ReadlineError::Interrupted) {
                self.above.with(clear_hint);
            }
            self.above.with(Above::end);
            if !is_passing(error) {
                return read;
            }
        }
    }
}

/// Leaves a line for another prompt: takes it back where it goes on, or where there is nothing in it.
fn leave(above: &mut Above, change: &Change, typed: &str, is_blank: bool) {
    if change.is_kept || is_blank {
        take_back(above);
    } else {
        clear_hint(above);
    }
    above.end();
    if !change.is_kept && !typed.is_empty() && !change.words.is_empty() {
        // Whoever cannot be shown this sees nothing else either.
        let _ = super::write_line(&mut io::stdout().lock(), &change.words);
        above.push(change.words.clone());
    }
}

/// What was typed for another prompt does not count, nor do unread keys. Returns the line to begin with.
fn forget(helper: &Completion) -> (String, usize) {
    // It fails where the terminal is gone: nothing is read then.
    let _ = tcflush(io::stdin(), QueueSelector::IFlush);
    helper.typed.take();
    helper.typed.borrow().clone()
}

/// Tells whether a signal ended what the editor did, and no key or end of the input.
fn is_passing(error: &ReadlineError) -> bool {
    let is_broken_off = |error: &io::Error| error.kind() == io::ErrorKind::Interrupted;
    matches!(
        error,
        ReadlineError::Errno(Errno::EINTR) | ReadlineError::Signal(EditorSignal::Resize)
    ) || matches!(error, ReadlineError::Io(error) if is_broken_off(error))
}

/// At SIGINT the editor leaves its hint on the screen, and the cursor below it. To be called before anything
/// else is printed.
fn clear_hint(above: &mut Above) {
    clear_rows(above.rows_left());
}

/// Clears the line that the editor has left at SIGINT, and its hint, before anything else is printed.
fn take_back(above: &mut Above) {
    clear_rows(above.take_back());
}

/// Clears so many rows above the cursor.
fn clear_rows(rows: usize) {
    if rows > 0 {
        let mut out = io::stdout().lock();
        // Whoever cannot be shown this sees nothing else either.
        let _ = write!(out, "\u{1b}[{rows}A\r\u{1b}[J").and_then(|()| out.flush());
    }
}

/// Tells of the end of the editor's thread where it is not meant to end.
struct LastWord(Notifier);

impl Drop for LastWord {
    fn drop(&mut self) {
        if thread::panicking() {
            // Nobody has to be told who is not there any more.
            let _ = self.0.typed(Typed::Failed);
        }
    }
}

/// Completes commands, names and paths; draws.
struct Completion {
    names: Names,
    files: FilenameCompleter,
    status: Status,
    above: SharedAbove,
    interrupt: Interrupt,
    asked: Asked,
    known: RefCell<Known>,
    /// The line as the editor has it, and where its cursor is.
    typed: RefCell<(String, usize)>,
    /// How the editor counts columns.
    widths: GraphemeClusterMode,
}

impl Completion {
    /// The editor has this line.
    fn learn(&self, line: &str, at: usize) {
        let (known, cursor) = &mut *self.typed.borrow_mut();
        line.clone_into(known);
        *cursor = at;
    }

    /// What may be drawn of a line, and where the cursor is in that.
    fn drawn<'l>(&self, line: &'l str, at: usize) -> (Cow<'l, str>, usize) {
        let mut known = self.known.borrow_mut();
        if known.covers(line) {
            return (Cow::Borrowed(line), at);
        }
        let drawn = text::edited(line, at, |cluster| self.widths.width(cluster).into());
        if matches!(drawn.0, Cow::Borrowed(_)) {
            known.learn(line);
        }
        drawn
    }

    /// Paths that can be shown as they are; others are not written to the terminal.
    fn paths(&self, line: &str, at: usize) -> rustyline::Result<(usize, Vec<Pair>)> {
        let is_shown = |text: &str| text::inline(text) == text;
        let (start, mut found) = self.files.complete_path(line, at)?;
        found.retain(|pair| is_shown(&pair.display) && is_shown(&pair.replacement));
        Ok((start, found))
    }
}

/// Says how long a line is that is, or soon will be, too long for a message.
///
/// That it is a row below the line also keeps the editor from counting the columns of what is deleted at
/// once: it would fail at more than it has numbers for.
fn length(line: &str) -> Option<String> {
    let is_long = line.len() + LENGTH_SHOWN_WITHIN >= MESSAGE_LEN_MAX;
    is_long.then(|| format!("\n {} of at most {MESSAGE_LEN_MAX} bytes", line.len()))
}

/// What stands below what is being typed: perhaps a text, and behind it so many rows, each as a line feed.
struct Rows(String);

impl Hint for Rows {
    fn display(&self) -> &str {
        &self.0
    }

    fn completion(&self) -> Option<&str> {
        None
    }
}

impl Completer for Completion {
    type Candidate = Pair;

    fn complete(
        &self,
        line: &str,
        at: usize,
        _context: &Context<'_>,
    ) -> rustyline::Result<(usize, Vec<Pair>)> {
        let typed = &line[..at];
        let words: Vec<&str> = typed.split(' ').collect();
        let (start, found) = match words.as_slice() {
            [word] if word.starts_with('/') => (0, commands_starting_with(&word[1..])),
            [word] => {
                let names = self.names.starting_with(word).into_iter();
                (0, names.map(|name| format!("{name}: ")).collect())
            }
            [command, word] if operand(command).is_some_and(takes_name) => {
                let names = self.names.starting_with(word).into_iter();
                (
                    at - word.len(),
                    names.map(|name| format!("{name} ")).collect(),
                )
            }
            [command, _, ..] if operand(command) == Some(Operand::AccountAndPath) => {
                return self.paths(line, at);
            }
            _ => (at, Vec::new()),
        };
        let pair = |text: String| Pair {
            display: text.trim_end().to_owned(),
            replacement: text,
        };
        Ok((start, Vec::from_iter(found.into_iter().map(pair))))
    }
}

/// The commands that go on from what stands behind the slash, with a blank where an operand may follow.
fn commands_starting_with(word: &str) -> Vec<String> {
    let fitting = Slash::ALL
        .into_iter()
        .filter(|slash| slash.name().starts_with(word));
    let typed = fitting.map(|slash| match slash.operand() {
        Operand::Nothing => format!("/{}", slash.name()),
        Operand::Count
        | Operand::Offer
        | Operand::OfferAndName
        | Operand::Account
        | Operand::AccountAndPath => {
            format!("/{} ", slash.name())
        }
    });
    typed.collect()
}

fn operand(command: &str) -> Option<Operand> {
    let slash = Slash::parse(command.strip_prefix('/')?)?;
    Some(slash.operand())
}

const fn takes_name(operand: Operand) -> bool {
    match operand {
        Operand::Account | Operand::AccountAndPath => true,
        Operand::Nothing | Operand::Count | Operand::Offer | Operand::OfferAndName => false,
    }
}

impl Hinter for Completion {
    type Hint = Rows;

    fn hint(&self, line: &str, at: usize, _context: &Context<'_>) -> Option<Rows> {
        self.learn(line, at);
        let rows = "\n".repeat(self.status.rows());
        let hint = format!("{}{rows}", length(line).unwrap_or_default());
        let has_hint = !hint.is_empty();
        let (drawn, at) = self.drawn(line, at);
        self.above.with(|above| above.edit(&drawn, at, has_hint));
        has_hint.then_some(Rows(hint))
    }
}

impl Highlighter for Completion {
    fn highlight_prompt<'b, 's: 'b, 'p: 'b>(
        &'s self,
        prompt: &'p str,
        _default: bool,
    ) -> Cow<'b, str> {
        self.asked.on_drawn();
        let columns = super::columns_of(io::stdout()).unwrap_or(COLUMNS_DEFAULT);
        // Where earlier lines are searched, the prompt has what is typed in it.
        let (prompt, _) = self.drawn(prompt, prompt.len());
        let shown = if is_plain() {
            prompt
        } else {
            Cow::Owned(format!("\u{1b}[1m{prompt}\u{1b}[0m"))
        };
        let before = self.above.with(|above| above.draw(&shown, columns));
        Cow::Owned(format!("{CLEAR_TO_END}{before}{shown}"))
    }

    fn highlight<'l>(&self, line: &'l str, at: usize) -> Cow<'l, str> {
        let (mut drawn, _) = self.drawn(line, at);
        let mark = self.interrupt.mark(line);
        if !mark.is_empty() {
            drawn.to_mut().push_str(mark);
        }
        self.above.with(|above| above.draw_line(&drawn));
        drawn
    }

    fn highlight_char(&self, line: &str, at: usize, kind: CmdKind) -> bool {
        match kind {
            CmdKind::Other => {
                let is_typed = self.drawn(line, at).0 == line;
                self.above.with(|above| above.has_to_draw(is_typed))
            }
            CmdKind::MoveCursor => {
                self.learn(line, at);
                false
            }
            CmdKind::ForcedRefresh => self.interrupt.is_pressed(),
        }
    }

    fn highlight_hint<'h>(&self, hint: &'h str) -> Cow<'h, str> {
        let length = hint.trim_end_matches('\n');
        let columns = super::columns_of(io::stdout()).unwrap_or(COLUMNS_DEFAULT);
        let status = self.status.drawn(hint.len() - length.len(), columns);
        let drawn = format!("{length}{status}");
        // The editor counts a row behind a full one, but ends the full one itself only without a hint.
        let is_full = self.above.with(|above| {
            above.draw_hint(&drawn);
            above.is_full()
        });
        let end = if is_full { "\n" } else { "" };
        Cow::Owned(if is_plain() {
            format!("{end}{drawn}")
        } else {
            format!("{end}\u{1b}[2m{drawn}\u{1b}[0m")
        })
    }
}

fn is_plain() -> bool {
    std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
}

impl Validator for Completion {
    /// Any line may be sent.
    fn validate(
        &self,
        _context: &mut ValidationContext<'_>,
    ) -> rustyline::Result<ValidationResult> {
        self.asked.on_ended();
        Ok(ValidationResult::Valid(None))
    }
}

impl Helper for Completion {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_was_read_before_a_question_is_no_answer_to_it() {
        let (requests, asked) = channel();
        let (_ended, done) = sync_channel(1);
        let mut prompt = Prompt {
            requests,
            printer: None,
            status: Status::default(),
            above: SharedAbove::default(),
            asked: Asked::default(),
            is_asking: false,
            is_read: Arc::default(),
            is_stale: Arc::default(),
            done,
        };
        let is_read = Arc::clone(&prompt.is_read);
        let read = || is_read.store(true, Ordering::SeqCst);

        prompt.ask_now(|| {});
        read();
        assert!(prompt.takes_answer());
        prompt.ask_now(|| {});
        // Another question takes the place of one that nobody has answered.
        prompt.ask_now(|| {});
        read();
        assert!(prompt.takes_answer());
        prompt.ask_now(|| {});
        read();
        prompt.ask_now(|| {});
        assert!(!prompt.takes_answer());
        prompt.ask("");
        read();
        assert!(prompt.takes_answer());
        assert_eq!(asked.try_iter().count(), 4);
    }

    fn complete(line: &str) -> Vec<String> {
        let names = Names::default();
        for name in ["alice", "bob", "bonnie"] {
            names.add(name);
        }
        let completion = Completion {
            names,
            files: FilenameCompleter::new(),
            status: Status::default(),
            above: SharedAbove::default(),
            interrupt: Interrupt::default(),
            asked: Asked::default(),
            known: RefCell::default(),
            typed: RefCell::default(),
            widths: GraphemeClusterMode::WcWidth,
        };
        let history = DefaultHistory::new();
        let (_, pairs) = completion
            .complete(line, line.len(), &Context::new(&history))
            .unwrap();
        pairs.into_iter().map(|pair| pair.replacement).collect()
    }

    #[test]
    fn commands_and_names_are_completed() {
        assert_eq!(complete("/q"), ["/quit"]);
        assert_eq!(complete("/to bo"), ["bob ", "bonnie "]);
        assert_eq!(complete("al"), ["alice: "]);
        assert_eq!(complete("hello al"), [""; 0]);
        assert_eq!(complete("/history al"), [""; 0]);
        assert_eq!(complete("/list al"), [""; 0]);
    }

    #[test]
    fn every_command_is_completed() {
        let all = complete("/");
        for slash in Slash::ALL {
            let typed = format!("/{}", slash.name());
            assert!(all.iter().any(|found| found.trim_end() == typed), "{typed}");
        }
        assert_eq!(all.len(), Slash::ALL.len());
        assert_eq!(complete("/se"), ["/send-file "]);
        assert_eq!(complete("/send-file bo"), ["bob ", "bonnie "]);
    }
}
