//! What people see: text on a terminal, or JSON for programs.
//!
//! Results go to stdout, hints and progress to stderr. Every text from outside passes
//! [`common::text`] on its way, in [`mod@line`].

use std::fmt::Display;
use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;

use jiff::tz::TimeZone;
use serde::Serialize;

use crate::failure::{Exit, Failure};
use crate::node::command::OfferView;

/// JSON for programs that is safe on a terminal, too.
mod json;
/// Lines of text.
pub(crate) mod line;
/// Progress bars.
pub(crate) mod progress;
/// Typing while messages arrive.
pub(crate) mod prompt;
/// Passwords and yes-or-no questions.
pub(crate) mod question;

/// Puts the cursor to the start of its row, and clears that.
const CLEAR_ROW: &str = "\r\u{1b}[K";

/// An object on one line for a program, without the line's end, that is safe on a terminal, too.
pub(crate) fn line_for_program(value: &impl Serialize) -> String {
    json::line(value)
}

/// Where output goes and in which form.
#[derive(Clone, Debug)]
pub(crate) struct Screen {
    json: bool,
    /// How text on stdout looks.
    pub(crate) look: Look,
    /// How text on stderr looks.
    pub(crate) error_look: Look,
}

impl Screen {
    /// A screen for people, or for programs.
    pub(crate) fn new(json: bool) -> Self {
        let zone = TimeZone::system();
        let plain = json
            || std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
            || std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        let look = |is_terminal, columns| Look {
            colour: is_terminal && !plain,
            zone: zone.clone(),
            columns: if is_terminal { columns } else { || None },
        };
        Self {
            json,
            look: look(io::stdout().is_terminal(), || columns_of(io::stdout())),
            error_look: look(io::stderr().is_terminal(), || columns_of(io::stderr())),
        }
    }

    /// Tells whether a program reads the output.
    pub(crate) const fn is_json(&self) -> bool {
        self.json
    }

    /// Writes a line for people to stdout. Its parts from outside have passed the gate.
    pub(crate) fn say(&self, text: impl Display) -> Result<(), OutputClosed> {
        if self.json {
            return Ok(());
        }
        write_line(&mut io::stdout().lock(), &text.to_string())
    }

    /// Writes sentences for people to stdout, broken at blanks where the terminal is narrow.
    pub(crate) fn prose(&self, text: &str) -> Result<(), OutputClosed> {
        self.say(common::text::wrapped(text, self.look.columns()))
    }

    /// Writes an object for programs to stdout.
    pub(crate) fn data(&self, value: &impl Serialize) -> Result<(), OutputClosed> {
        if !self.json {
            return Ok(());
        }
        write_line(&mut io::stdout().lock(), &json::line(value))
    }

    /// Writes an object for programs to stderr: what is no result of the command.
    pub(crate) fn aside(&self, value: &impl Serialize) {
        if self.json {
            // It is a hint, too.
            let _ = write_line(&mut io::stderr().lock(), &json::line(value));
        }
    }

    /// Writes an offer for programs to stdout.
    pub(crate) fn offer(&self, offer: &OfferView) -> Result<(), OutputClosed> {
        self.data(&json::offer(offer))
    }

    /// Writes a hint for people to stderr.
    pub(crate) fn note(&self, text: impl Display) {
        if !self.json {
            // Hints are not worth ending for.
            let text = common::text::wrapped(&text.to_string(), self.error_look.columns());
            let _ = write_line(&mut io::stderr().lock(), &text);
        }
    }

    /// Clears the row of stderr that the cursor is in, where a terminal shows keys: the next hint begins it.
    pub(crate) fn clear_row(&self) {
        if !self.json && io::stderr().is_terminal() {
            // Whoever cannot be shown this sees nothing else either.
            let _ = io::stderr().lock().write_all(CLEAR_ROW.as_bytes());
        }
    }
}

/// Colours, the time zone and the width.
#[derive(Clone, Debug)]
pub(crate) struct Look {
    colour: bool,
    zone: TimeZone,
    columns: fn() -> Option<usize>,
}

impl Look {
    /// No colours, and times in UTC.
    #[cfg(test)]
    pub(crate) fn plain() -> Self {
        Self {
            colour: false,
            zone: TimeZone::UTC,
            columns: || None,
        }
    }

    /// The same without colours and width, in the same zone: for a file.
    pub(crate) fn for_file(&self) -> Self {
        Self {
            colour: false,
            zone: self.zone.clone(),
            columns: || None,
        }
    }

    /// The zone in which times are shown and read.
    pub(crate) const fn zone(&self) -> &TimeZone {
        &self.zone
    }

    /// How many columns there are now; `None` where it is no terminal.
    pub(crate) fn columns(&self) -> Option<usize> {
        (self.columns)()
    }

    /// For what stands out.
    pub(crate) fn bold(&self, text: &str) -> String {
        self.wrap("1", text)
    }

    /// For what matters less.
    pub(crate) fn dim(&self, text: &str) -> String {
        self.wrap("2", text)
    }

    /// For what went well.
    pub(crate) fn green(&self, text: &str) -> String {
        self.wrap("32", text)
    }

    /// For what needs attention.
    pub(crate) fn yellow(&self, text: &str) -> String {
        self.wrap("33", text)
    }

    /// For what went wrong.
    pub(crate) fn red(&self, text: &str) -> String {
        self.wrap("1;31", text)
    }

    /// For names of other people.
    pub(crate) fn cyan(&self, text: &str) -> String {
        self.wrap("1;36", text)
    }

    fn wrap(&self, code: &str, text: &str) -> String {
        if self.colour {
            format!("\u{1b}[{code}m{text}\u{1b}[0m")
        } else {
            text.to_owned()
        }
    }
}

fn columns_of(terminal: impl AsFd) -> Option<usize> {
    let size = rustix::termios::tcgetwinsize(terminal).ok()?;
    (size.ws_col > 0).then(|| size.ws_col.into())
}

/// Nothing more can be written to the output.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum OutputClosed {
    /// Nobody reads it any more, as in `peer history | head`.
    #[error("the output was closed")]
    ByReader,
    /// The system refuses to take it, and says why: a disk is full, for example.
    #[error("{0}")]
    BySystem(String),
}

impl From<io::Error> for OutputClosed {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            Self::ByReader
        } else {
            Self::BySystem(error.to_string())
        }
    }
}

impl From<OutputClosed> for Failure {
    /// Whoever stops reading has seen enough, which is a quiet end. Output that is lost otherwise is missed.
    fn from(closed: OutputClosed) -> Self {
        match closed {
            OutputClosed::ByReader => Self::new(Exit::Done, closed),
            OutputClosed::BySystem(why) => {
                Self::new(Exit::File, "could not write to standard output")
                    .because(why)
                    .next(
                        "make room there, or send the output elsewhere; the command may have done its work all the same",
                    )
            }
        }
    }
}

/// Writes a whole line at once, so that lines of several threads do not mix.
fn write_line(out: &mut impl Write, text: &str) -> Result<(), OutputClosed> {
    let line = format!("{text}\n");
    out.write_all(line.as_bytes())?;
    Ok(out.flush()?)
}
