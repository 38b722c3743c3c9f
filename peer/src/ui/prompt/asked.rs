//! What the editor asks for, and how another prompt takes its place while it reads.
//!
//! The editor returns only at a key or at SIGINT, which it handles itself while it reads, and nobody else
//! then. Whoever wants another prompt says so and raises the signal, and the editor begins anew. Where it is
//! not reading the signal would end the program. So both sides agree on whether it reads: it does from when the
//! prompt is drawn until a key ends the line.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustyline::{Cmd, ConditionalEventHandler, Event, EventContext, RepeatCount};
use signal_hook::consts::SIGINT;

/// A prompt that takes the place of another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Change {
    pub(super) prompt: String,
    /// What is half typed goes on behind it. Otherwise it stays above, and is no part of an answer.
    pub(super) is_kept: bool,
    /// Said of what is half typed and does not go on.
    pub(super) words: String,
}

/// Whether the editor reads, and what it is to ask for instead; shared with its thread.
#[derive(Clone, Debug, Default)]
pub(super) struct Asked(Arc<(Mutex<Inner>, Condvar)>);

#[derive(Debug, Default)]
struct Inner {
    stage: Stage,
    change: Option<Change>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    /// It does not read, or a key has ended the line.
    #[default]
    Over,
    /// It is about to read.
    Starting,
    /// The prompt is drawn, and SIGINT is the editor's.
    Reading,
}

impl Asked {
    /// The editor is to read a line.
    pub(super) fn start(&self) {
        self.inner().stage = Stage::Starting;
    }

    /// The editor draws: it reads.
    pub(super) fn on_drawn(&self) {
        let mut inner = self.inner();
        if inner.stage != Stage::Starting {
            return;
        }
        inner.stage = Stage::Reading;
        if inner.change.is_some() {
            interrupt();
        }
        self.0.1.notify_all();
    }

    /// A key ends the line.
    pub(super) fn on_ended(&self) {
        self.inner().stage = Stage::Over;
        self.0.1.notify_all();
    }

    /// The line is read to its end. Returns whether another prompt than that of the line is wanted by now.
    pub(super) fn finish(&self) -> bool {
        let mut inner = self.inner();
        inner.stage = Stage::Over;
        let change = inner.change.take();
        self.0.1.notify_all();
        change.is_some_and(|change| !change.is_kept)
    }

    /// The editor was interrupted. Returns the prompt that it is to begin anew with, if that is why.
    pub(super) fn take_change(&self) -> Option<Change> {
        let mut inner = self.inner();
        let change = inner.change.take()?;
        inner.stage = Stage::Starting;
        Some(change)
    }

    /// Has the editor ask for something else, and waits until it does, for at most `patience`. Returns whether
    /// it was not too late: a key has ended the line that was asked for otherwise.
    pub(super) fn change(&self, mut change: Change, patience: Duration) -> bool {
        let mut inner = self.inner();
        if inner.stage == Stage::Over {
            return false;
        }
        let before = inner.change.take();
        change.is_kept &= before.as_ref().is_none_or(|before| before.is_kept);
        inner.change = Some(change);
        if inner.stage == Stage::Reading && before.is_none() {
            interrupt();
        }
        let is_coming =
            |inner: &mut Inner| inner.change.is_some() || inner.stage == Stage::Starting;
        // Where it is stopped it does so when it goes on.
        let _ = self.0.1.wait_timeout_while(inner, patience, is_coming);
        true
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Wakes the editor, whose handler runs before this returns.
fn interrupt() {
    // It fails for no signal that exists.
    let _ = signal_hook::low_level::raise(SIGINT);
}

/// Ctrl-D ends an empty line.
impl ConditionalEventHandler for Asked {
    fn handle(
        &self,
        _event: &Event,
        _count: RepeatCount,
        _positive: bool,
        context: &EventContext<'_>,
    ) -> Option<Cmd> {
        if context.line().is_empty() {
            self.on_ended();
        }
        // What the key does is the editor's.
        None
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::thread;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(10);

    fn change(prompt: &str, is_kept: bool) -> Change {
        Change {
            prompt: prompt.to_owned(),
            is_kept,
            words: String::new(),
        }
    }

    #[test]
    fn only_an_editor_that_reads_is_interrupted_and_its_line_counts_for_its_own_prompt() {
        let is_interrupted = Arc::<AtomicBool>::default();
        signal_hook::flag::register(SIGINT, Arc::clone(&is_interrupted)).unwrap();
        let was_interrupted = || is_interrupted.swap(false, Ordering::SeqCst);
        let asked = Asked::default();
        let wanted = |is_kept| {
            let asked = asked.clone();
            thread::spawn(move || asked.change(change("other", is_kept), PATIENCE))
        };
        let is_wanted = || asked.inner().change.is_some();
        // Nothing is read.
        assert!(!asked.change(change("other", false), PATIENCE));

        // It was about to draw.
        asked.start();
        let waits = wanted(true);
        while !is_wanted() {
            thread::yield_now();
        }
        assert!(!was_interrupted());
        asked.on_drawn();
        assert!(was_interrupted());
        assert_eq!(asked.take_change(), Some(change("other", true)));
        assert!(!waits.is_finished());
        asked.on_drawn();
        assert!(waits.join().unwrap());
        assert!(!was_interrupted());

        // A key ends the line at the same moment.
        for is_kept in [true, false] {
            asked.start();
            asked.on_drawn();
            let waits = wanted(is_kept);
            while !was_interrupted() {
                thread::yield_now();
            }
            asked.on_ended();
            assert_eq!(asked.finish(), !is_kept);
            assert!(waits.join().unwrap());
            assert!(!asked.change(change("other", false), PATIENCE));
            assert!(!was_interrupted());
        }
    }
}
