//! A terminal whose rows are not filled to their ends.
//!
//! At Ctrl-C the terminal itself writes `^C` where the cursor is, which is behind the last bar. In a full row
//! that would go to the next one, and what clears the bars would clear that one.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::sync::{Mutex, MutexGuard, PoisonError};

use common::text::columns;
use indicatif::TermLike;

use crate::ui::columns_of;

/// Columns at the end of each row that stay free: two for `^C`, and one that makes no terminal wrap.
pub(super) const MARGIN: u16 = 3;
/// What a terminal counts as that does not tell its width.
const COLUMNS_DEFAULT: u16 = 80;

/// Stderr with a margin. What is written is shown when it is flushed.
///
/// What draws the bars ends no row: it fills each to the end, and the terminal is to go on in the next one.
/// This one's rows end before the terminal's, so it has to break them itself.
#[derive(Debug, Default)]
pub(super) struct Margined(Mutex<Rows>);

impl Margined {
    fn rows(&self) -> MutexGuard<'_, Rows> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Moves the cursor by so many rows or columns; the direction is the final byte of the sequence.
    fn move_cursor(&self, by: usize, direction: char) -> io::Result<()> {
        if by > 0 {
            write!(self.rows().written, "\u{1b}[{by}{direction}").map_err(io::Error::other)?;
        }
        Ok(())
    }
}

impl TermLike for Margined {
    fn width(&self) -> u16 {
        let columns = columns_of(io::stderr()).and_then(|columns| u16::try_from(columns).ok());
        let columns = columns.unwrap_or(COLUMNS_DEFAULT);
        let width = columns.saturating_sub(MARGIN).max(1);
        self.rows().width = width.into();
        width
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
        let mut rows = self.rows();
        rows.write(text);
        rows.end();
        Ok(())
    }

    fn write_str(&self, text: &str) -> io::Result<()> {
        self.rows().write(text);
        Ok(())
    }

    fn clear_line(&self) -> io::Result<()> {
        self.rows().clear();
        Ok(())
    }

    fn flush(&self) -> io::Result<()> {
        let text = std::mem::take(&mut self.rows().written);
        let mut stderr = io::stderr().lock();
        stderr.write_all(text.as_bytes())?;
        stderr.flush()
    }
}

/// Rows of `width` columns that break as a terminal's do: when something is to stand behind a full one.
#[derive(Debug, Default)]
struct Rows {
    /// Columns of a row, as last told to whoever draws.
    width: usize,
    /// Columns of the row of the cursor that are taken.
    taken: usize,
    /// What is not shown yet.
    written: String,
}

impl Rows {
    /// Writes text without escape sequences. Each character counts by itself, as where the bars are measured.
    fn write(&mut self, text: &str) {
        for character in text.chars() {
            let columns = columns(character.encode_utf8(&mut [0; 4]));
            match character {
                '\r' => self.taken = 0,
                _ if self.taken + columns > self.width => {
                    self.end();
                    self.taken = columns;
                }
                _ => self.taken += columns,
            }
            self.written.push(character);
        }
    }

    fn end(&mut self) {
        self.written.push('\n');
        self.taken = 0;
    }

    fn clear(&mut self) {
        self.written.push_str("\r\u{1b}[2K");
        self.taken = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_ends_where_something_follows_a_full_one() {
        let mut rows = Rows {
            width: 4,
            ..Rows::default()
        };
        for text in ["ab", "  ", "", "abcd", "", "漢a漢", "", "x"] {
            rows.write(text);
        }
        assert_eq!(rows.written, "ab  \nabcd\n漢a\n漢x");
        rows.clear();
        rows.write("abcd");
        rows.write("\re");
        assert!(rows.written.ends_with("\r\u{1b}[2Kabcd\re"));
    }
}
