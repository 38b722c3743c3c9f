//! A process that makes load for a server, a slice of it for each line that it is given.

use std::io::{self, Write};
use std::process::{ChildStdin, ExitCode, Stdio};
use std::time::Duration;

use serde_json::Value;

use super::Failure;
use super::stage::Place;
use crate::program::{Program, Programs, Running};

/// Time for one slice.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

/// The process, seen from the bench.
pub(super) struct Load {
    running: Running,
    input: ChildStdin,
}

impl Load {
    pub(super) fn start(
        programs: &Programs,
        place: &Place,
        program: Program,
        arguments: &[&str],
    ) -> Result<Self, Failure> {
        let mut command = place.wrap(&programs.command(program, arguments));
        command.stdin(Stdio::piped());
        let mut running = Running::start(program, &mut command)?;
        let input = running.take_stdin();
        let input = input.ok_or_else(|| Failure::Wrong("no standard input".to_owned()))?;
        Ok(Self { running, input })
    }

    /// Has a slice made, and waits until that has said what it came to.
    pub(super) fn slice(&mut self, line: &str) -> Result<Value, Failure> {
        writeln!(self.input, "{line}")?;
        Ok(self.running.wait_json("a slice", PATIENCE, |_| true)?)
    }

    pub(super) fn end(self) -> Result<(), Failure> {
        drop(self.input);
        self.running.finish(PATIENCE)?;
        Ok(())
    }
}

/// Runs as the load: has `slice` made for each line of standard input, and prints what it returns.
pub(super) fn serve(slice: impl FnMut(&str) -> Result<Value, Failure>) -> ExitCode {
    match run(slice) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failed(&failure),
    }
}

/// Says what went wrong to whoever started this.
pub(super) fn failed(failure: &Failure) -> ExitCode {
    let _ = writeln!(io::stderr().lock(), "{failure}");
    ExitCode::FAILURE
}

fn run(mut slice: impl FnMut(&str) -> Result<Value, Failure>) -> Result<(), Failure> {
    for line in io::stdin().lines() {
        let made = slice(&line?)?;
        writeln!(io::stdout().lock(), "{made}")?;
    }
    Ok(())
}
