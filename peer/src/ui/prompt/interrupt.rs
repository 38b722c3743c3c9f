//! Ctrl-C as a key of the line editor.
//!
//! Where the editor returns because of it, what was read with it in one go is lost, a second Ctrl-C for
//! one. So it is a key that ends the line, like Enter: nothing is lost, and it is known whether there was
//! anything in the line.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustyline::{Cmd, ConditionalEventHandler, Event, EventContext, RepeatCount};

/// What stands behind a line that was given up, as in a shell.
const MARK: &str = "^C";

/// Whether Ctrl-C ended the line that is being typed; shared with the editor.
#[derive(Clone, Debug, Default)]
pub(super) struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// Tells whether Ctrl-C ended the line that was read, once.
    pub(super) fn take(&self) -> bool {
        self.0.swap(false, Ordering::Relaxed)
    }

    /// Tells whether the editor has to draw the line once more, for what stands behind it.
    pub(super) fn is_pressed(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// What stands behind `line`.
    pub(super) fn mark(&self, line: &str) -> &'static str {
        if self.is_pressed() && !line.is_empty() {
            MARK
        } else {
            ""
        }
    }
}

impl ConditionalEventHandler for Interrupt {
    fn handle(
        &self,
        _event: &Event,
        _count: RepeatCount,
        _positive: bool,
        context: &EventContext<'_>,
    ) -> Option<Cmd> {
        self.0.store(true, Ordering::Relaxed);
        // Where the editor moves the cursor to the end, or takes a hint away, it draws the line itself.
        if context.pos() == context.line().len() && !context.has_hint() {
            let mut out = io::stdout().lock();
            // Whoever cannot be shown this sees nothing else either.
            let _ = out
                .write_all(self.mark(context.line()).as_bytes())
                .and_then(|()| out.flush());
        }
        Some(Cmd::AcceptLine)
    }
}
