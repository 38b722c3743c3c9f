//! What an operator or their script sees: results on stdout, as text or as JSON.

use std::ffi::OsString;
use std::fmt::Display;
use std::io::{self, Write};

use env_logger::Env;
use serde::Serialize;
use serde_json::json;

use super::Failure;

/// The form of what is printed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Screen {
    is_json: bool,
}

impl Screen {
    pub(super) const fn new(is_json: bool) -> Self {
        Self { is_json }
    }

    /// The form that is meant on a command line that has no meaning as a whole.
    pub(super) fn for_typed(typed: &[OsString]) -> Self {
        Self::new(typed.iter().any(|word| word == "--json"))
    }

    pub(super) const fn is_json(self) -> bool {
        self.is_json
    }

    /// Prints a line for people. A reader that has gone is no failure.
    pub(super) fn say(self, line: impl Display) -> Result<(), Failure> {
        if self.is_json { Ok(()) } else { print(line) }
    }

    /// Prints an object for programs.
    pub(super) fn data(self, value: &impl Serialize) -> Result<(), Failure> {
        if !self.is_json {
            return Ok(());
        }
        print(serde_json::to_string(value).expect("it is plain data"))
    }

    /// Says why the program ends: to people on stderr, to programs on stdout, as a result would be, and on
    /// stderr where stdout takes nothing.
    pub(super) fn report(self, failure: &Failure) {
        let text = failure.to_string();
        // Where nothing can be written, the exit code still tells.
        if self.is_json {
            let (what, next) = match text.split_once(['\n', ';']) {
                Some((what, next)) => (what, Some(next.trim())),
                None => (text.as_str(), None),
            };
            let exit = failure.exit_code();
            if self.mistake(exit, what, next).is_err() {
                let _ = writeln!(io::stderr().lock(), "{}", mistake(exit, what, next));
            }
        } else {
            let _ = writeln!(io::stderr().lock(), "error: {text}");
        }
    }

    /// Tells a program what is wrong and what to do about it.
    pub(super) fn mistake(self, exit: u8, what: &str, next: Option<&str>) -> Result<(), Failure> {
        self.data(&mistake(exit, what, next))
    }

    /// Starts the log, on stderr.
    pub(super) fn start_log(self) {
        let filter = Env::default().default_filter_or("info");
        let mut builder = env_logger::Builder::from_env(filter);
        if self.is_json {
            builder.format(|out, record| {
                let line = json!({
                    "at": out.timestamp_millis().to_string(),
                    "level": record.level().as_str(),
                    "target": record.target(),
                    "log": record.args().to_string(),
                });
                writeln!(out, "{line}")
            });
        }
        // A second program in the same process, as tests run it, has the first one's logger.
        let _ = builder.try_init();
    }
}

fn mistake(exit: u8, what: &str, next: Option<&str>) -> serde_json::Value {
    let mut error = json!({ "exit": exit, "what": what });
    if let Some(next) = next {
        error["next"] = next.into();
    }
    json!({ "error": error })
}

fn print(line: impl Display) -> Result<(), Failure> {
    unless_closed(writeln!(io::stdout().lock(), "{line}"))
}

/// Whoever stops reading has seen enough; output that is lost otherwise is missed.
pub(super) fn unless_closed(written: io::Result<()>) -> Result<(), Failure> {
    match written {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(Failure::Output(error)),
        Ok(()) | Err(_) => Ok(()),
    }
}
