//! A terminal whose rows are not filled to their ends.
//!
//! At Ctrl-C the terminal itself writes `^C` where the cursor is, which is behind the last bar. In a full row
//! that would go to the next one, and what clears the bars would clear that one.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::sync::{Mutex, MutexGuard, PoisonError};

use indicatif::TermLike;

use crate::ui::columns_of;

/// Columns at the end of each row that stay free: two for `^C`, and one that makes no terminal wrap.
const MARGIN: u16 = 3;
/// What a terminal counts as that does not tell its width.
const COLUMNS_DEFAULT: u16 = 80;

/// Stderr with a margin. What is written is shown when it is flushed.
#[derive(Debug, Default)]
pub(super) struct Margined(Mutex<String>);

impl Margined {
    fn buffer(&self) -> MutexGuard<'_, String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Moves the cursor by so many rows or columns; the direction is the final byte of the sequence.
    fn move_cursor(&self, by: usize, direction: char) -> io::Result<()> {
        if by > 0 {
            write!(self.buffer(), "\u{1b}[{by}{direction}").map_err(io::Error::other)?;
        }
        Ok(())
    }
}

impl TermLike for Margined {
    fn width(&self) -> u16 {
        let columns = columns_of(io::stderr()).and_then(|columns| u16::try_from(columns).ok());
        let columns = columns.unwrap_or(COLUMNS_DEFAULT);
        columns.saturating_sub(MARGIN).max(1)
    }

    fn move_cursor_up(&self, by: usize) -> io::Result<()> {
        self.move_cursor(by, 'A')
    }

    fn move_cursor_down(&self, by: usize) -> io::Result<()> {
        self.move_cursor(by, 'B')
    }

    fn move_cursor_right(&self, by: usize) -> io::Result<()> {
        self.move_cursor(by, 'C')
    }

    fn move_cursor_left(&self, by: usize) -> io::Result<()> {
        self.move_cursor(by, 'D')
    }

    fn write_line(&self, text: &str) -> io::Result<()> {
        writeln!(self.buffer(), "{text}").map_err(io::Error::other)
    }

    fn write_str(&self, text: &str) -> io::Result<()> {
        self.buffer().push_str(text);
        Ok(())
    }

    fn clear_line(&self) -> io::Result<()> {
        self.buffer().push_str("\r\u{1b}[2K");
        Ok(())
    }

    fn flush(&self) -> io::Result<()> {
        let text = std::mem::take(&mut *self.buffer());
        let mut stderr = io::stderr().lock();
        stderr.write_all(text.as_bytes())?;
        stderr.flush()
    }
}
