//! Ctrl-Z as a key of the line editor, which stops the program and leaves on the screen what it has drawn.

use std::io::{self, Write};

use rustyline::{Cmd, ConditionalEventHandler, Event, EventContext, RepeatCount};

use super::Status;

/// Clears what stands below the row of the cursor, which stays where it is (DECSC, CUD, ED, DECRC).
const CLEAR_BELOW: &str = "\u{1b}7\r\u{1b}[B\u{1b}[J\u{1b}8";

/// Takes the lines below what is being typed away before the program stops: a shell writes over them, and what
/// is longer than its words would stay.
#[derive(Debug)]
pub(super) struct Suspend(pub(super) Status);

impl ConditionalEventHandler for Suspend {
    fn handle(
        &self,
        _event: &Event,
        _count: RepeatCount,
        _positive: bool,
        _context: &EventContext<'_>,
    ) -> Option<Cmd> {
        // Without such lines the row below may be the one of the cursor, at the end of the screen.
        if self.0.rows() > 0 {
            let mut out = io::stdout().lock();
            // Whoever cannot be shown this sees nothing else either.
            let _ = out
                .write_all(CLEAR_BELOW.as_bytes())
                .and_then(|()| out.flush());
        }
        Some(Cmd::Suspend)
    }
}
