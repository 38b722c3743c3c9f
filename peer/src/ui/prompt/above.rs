//! What stands above the line that is typed, for screens that change their width.
//!
//! Most terminals reflow: in wider rows a line that is typed takes fewer of them. The editor clears as
//! many rows as the line took before, and so the last rows above it, too. [`Above`] knows what stood in
//! them, and puts it back in front of the prompt. Whether a terminal reflows cannot be asked: one that does
//! not shows those rows twice, which is better than not at all. In narrower rows the line takes more of
//! them, and the first ones stay above the line that is drawn anew: a terminal that does not reflow has
//! something else there, and so they are not cleared.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use common::text;

use super::REDRAW;

/// Texts above the prompt that are kept: more than a line that is typed takes rows.
const ABOVE_MAX: usize = 64;
/// Columns from one tab stop to the next.
const TAB_STOP: usize = 8;

/// What stands above the prompt; shared with the editor's thread and the printer's.
#[derive(Clone, Debug, Default)]
pub(super) struct SharedAbove(Arc<(Mutex<Above>, Condvar)>);

impl SharedAbove {
    /// Does something to it.
    pub(super) fn with<T>(&self, act: impl FnOnce(&mut Above) -> T) -> T {
        let done = act(&mut self.0.0.lock().unwrap_or_else(PoisonError::into_inner));
        self.0.1.notify_all();
        done
    }

    /// Waits until all that was to be printed stands above the prompt, but not for longer than `patience`.
    pub(super) fn wait_until_drawn(&self, patience: Duration) {
        let above = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        // What is not drawn by then is drawn with the next prompt.
        let _ = self
            .0
            .1
            .wait_timeout_while(above, patience, |above| above.is_behind());
    }
}

/// What stands above the prompt, and what the editor drew last.
#[derive(Debug, Default)]
pub(super) struct Above {
    /// The last at the end.
    texts: VecDeque<Text>,
    /// Texts that the printer has not taken so far.
    queued: usize,
    /// On their way to the editor, which has not drawn them so far.
    waiting: VecDeque<String>,
    /// The beginning of the typed line that a narrower screen has left above the prompt. It ends where a
    /// row does, and some terminals take what follows for the rest of the same line: it is counted as
    /// that, in fewer rows rather than in more, so that nothing that was printed is lost.
    stale: String,
    drawn: Option<Drawn>,
    /// The line that the editor is about to draw, and where its cursor is, or that it has drawn by adding a
    /// character to what was there.
    next: Option<(String, usize)>,
    /// A hint is drawn with it.
    has_hint: bool,
    /// The hint as the editor drew it last; empty if it drew none.
    hint: String,
    /// What is drawn next is the line, and not what was printed above it.
    is_edited: bool,
}

/// A printed text, without its last line feed.
#[derive(Debug)]
struct Text {
    /// Stands before it in the same line, and is not worth being printed again.
    stale: String,
    text: String,
}

/// A prompt and a line as the editor has laid them out.
#[derive(Debug)]
struct Drawn {
    columns: usize,
    prompt: String,
    line: String,
    rows: usize,
    /// The line filled its last row when it was so long, and the editor ended that row itself.
    filled: Option<usize>,
}

impl Drawn {
    fn new(prompt: &str, columns: usize) -> Self {
        Self {
            columns,
            prompt: prompt.to_owned(),
            line: String::new(),
            rows: 1,
            filled: None,
        }
    }

    fn lay_out(&mut self, line: &str) {
        line.clone_into(&mut self.line);
        let folded = self.folded_to(line.len());
        self.rows = folded.rows_with_cursor();
        self.filled = folded.is_full.then_some(line.len());
    }

    /// The prompt and the line up to `at` as the editor counts.
    fn folded_to(&self, at: usize) -> Folded {
        let text = format!("{}{}", self.prompt, &self.line[..at]);
        Folded::of(&text, self.columns)
    }

    /// The prompt and the line up to `at` as they went to the terminal.
    fn shown_to(&self, at: usize) -> String {
        let line = &self.line[..at];
        match self.filled.and_then(|filled| line.split_at_checked(filled)) {
            Some((before, behind)) => format!("{}{before}\n{behind}", self.prompt),
            None => format!("{}{line}", self.prompt),
        }
    }
}

impl Above {
    /// A text stands on the screen, at its end.
    pub(super) fn push(&mut self, text: String) {
        let stale = std::mem::take(&mut self.stale);
        self.texts.push_back(Text { stale, text });
        if self.texts.len() > ABOVE_MAX {
            self.texts.pop_front();
        }
    }

    /// A text is on its way to the printer.
    pub(super) const fn queue(&mut self) {
        self.queued += 1;
    }

    /// The printer has gone, or takes no more: the text is not on its way.
    pub(super) const fn unqueue(&mut self) {
        self.queued = self.queued.saturating_sub(1);
    }

    /// A text is on its way from the printer to the editor.
    pub(super) fn printing(&mut self, text: &str) {
        self.unqueue();
        self.waiting.push_back(text.to_owned());
    }

    /// The editor has taken all texts but the last.
    pub(super) fn taken(&mut self) {
        while self.waiting.len() > 1 {
            self.printed();
        }
    }

    /// The first text that was on its way stands on the screen.
    fn printed(&mut self) {
        match self.waiting.pop_front() {
            Some(text) if text != REDRAW => {
                let text = text.strip_suffix('\n').unwrap_or(&text);
                self.push(text.to_owned());
            }
            Some(_) | None => {}
        }
    }

    /// The editor begins with a new line. What was printed without it is not on its way any more.
    pub(super) fn begin(&mut self) {
        while !self.waiting.is_empty() {
            self.printed();
        }
        self.drawn = None;
    }

    /// The line that was typed stays where it is.
    pub(super) fn end(&mut self) {
        self.follow();
        if let Some(drawn) = self.drawn.take() {
            self.push(drawn.shown_to(drawn.line.len()));
        }
    }

    /// The line is this now, and the editor draws it or adds a character to what is there.
    pub(super) fn edit(&mut self, line: &str, at: usize, has_hint: bool) {
        self.follow();
        self.has_hint = has_hint;
        self.next = Some((line.to_owned(), at));
    }

    /// What was to be drawn has not been: a character was added to what is there.
    fn follow(&mut self) {
        if let (Some((line, _)), Some(drawn)) = (self.next.take(), &mut self.drawn) {
            drawn.line = line;
        }
    }

    /// Tells whether the editor has to draw the whole line: if it cannot be shown as it `is_typed`, or
    /// because a text that waits might be what it draws next otherwise.
    pub(super) fn has_to_draw(&mut self, is_typed: bool) -> bool {
        let has_to = !is_typed || !self.waiting.is_empty();
        // With a hint it draws everything anyway.
        self.is_edited = has_to || self.has_hint;
        has_to && !self.has_hint
    }

    /// The editor has cleared the rows of the line, and draws the prompt. Returns what has to be put in
    /// front of it.
    pub(super) fn draw(&mut self, prompt: &str, columns: usize) -> String {
        if !std::mem::take(&mut self.is_edited) {
            self.printed();
        }
        self.hint.clear();
        let at = self.next.take().map_or(usize::MAX, |(_, at)| at);
        let lost = self.reflow(at, columns);
        self.drawn = Some(Drawn::new(prompt, columns));
        self.last_rows(lost, columns)
    }

    /// The line is drawn behind the prompt.
    pub(super) fn draw_line(&mut self, line: &str) {
        if let Some(drawn) = &mut self.drawn {
            drawn.lay_out(line);
        }
    }

    /// The hint is drawn below the line, each of its rows behind a line feed.
    pub(super) fn draw_hint(&mut self, hint: &str) {
        hint.clone_into(&mut self.hint);
    }

    /// The editor has left the line, with the cursor in the row below its hint. Returns how many rows up
    /// the hint begins, if it is still there and nothing can have been printed below it meanwhile.
    pub(super) fn rows_left(&mut self) -> usize {
        let hint = std::mem::take(&mut self.hint);
        if self.waiting.iter().any(|text| text != REDRAW) {
            return 0;
        }
        let columns = self.drawn.as_ref().map_or(0, |drawn| drawn.columns);
        Folded::of(&hint, columns).starts.len() - 1
    }

    /// Something that was to be printed is not drawn.
    fn is_behind(&self) -> bool {
        self.queued > 0 || !self.waiting.is_empty()
    }

    /// The editor has left the line, which is to be cleared. Returns how many rows up it begins, hint included,
    /// if nothing can have been printed below it meanwhile.
    pub(super) fn take_back(&mut self) -> usize {
        if self.waiting.iter().any(|text| text != REDRAW) {
            return 0;
        }
        let hint = self.rows_left();
        self.follow();
        let Some(drawn) = self.drawn.take() else {
            return 0;
        };
        hint + drawn.folded_to(drawn.line.len()).rows_with_cursor()
    }

    /// A line is being typed, and stands on the screen.
    pub(super) const fn is_drawn(&self) -> bool {
        self.drawn.is_some()
    }

    /// The line that was drawn fills its last row.
    pub(super) fn is_full(&self) -> bool {
        let drawn = self.drawn.as_ref();
        drawn.is_some_and(|drawn| drawn.filled.is_some())
    }

    /// Counts the rows that a terminal that reflows has cleared too many, and keeps what it has left.
    fn reflow(&mut self, at: usize, columns: usize) -> usize {
        let Some(drawn) = self.drawn.as_ref().filter(|it| it.columns != columns) else {
            return 0;
        };
        let end = drawn.line.len();
        let is_within = drawn.line.is_char_boundary(at);
        let at = if is_within { at } else { end };
        let shown = format!("{}{}", self.stale, drawn.shown_to(end));
        let rows = Folded::of(&shown, columns).starts;
        let to_cursor = format!("{}{}", self.stale, drawn.shown_to(at));
        let to_cursor = Folded::of(&to_cursor, columns);
        let cursor = if at < end {
            to_cursor.rows_with_cursor()
        } else {
            rows.len()
        };
        // The editor goes down from the cursor to the end, and clears upwards from there. It starts less far
        // down where the screen ends; the most that it may have cleared counts.
        let cleared_to_cursor = drawn.folded_to(at).rows_with_cursor().min(drawn.rows);
        let left = cursor
            .saturating_sub(cleared_to_cursor)
            .min(rows.len().saturating_sub(drawn.rows));
        let lost = cleared_to_cursor
            .saturating_sub(cursor)
            .max(drawn.rows.saturating_sub(rows.len()));
        shown[..rows[left]].clone_into(&mut self.stale);
        lost
    }

    /// The last rows above the prompt, each with a line feed. What was left of a typed
    /// line is gone with them.
    fn last_rows(&mut self, count: usize, columns: usize) -> String {
        let mut left = count;
        let mut found = Vec::new();
        for text in self.texts.iter_mut().rev() {
            if left == 0 {
                break;
            }
            let (shown, rows) = text.last_rows(left, columns);
            found.push(format!("{shown}\n"));
            left = left.saturating_sub(rows);
        }
        found.reverse();
        found.concat()
    }
}

impl Text {
    /// At most so many of its last rows, in the colours that they had, and how many rows it has.
    fn last_rows(&mut self, count: usize, columns: usize) -> (String, usize) {
        let whole = format!("{}{}", self.stale, self.text);
        let starts = Folded::of(&whole, columns).starts;
        let first = starts.len().saturating_sub(count);
        let start = starts.get(first).copied().unwrap_or_default();
        let shown = match start.checked_sub(self.stale.len()) {
            Some(start) => {
                let (before, shown) = self.text.split_at(start);
                format!("{}{shown}", colours(before))
            }
            None => self.text.clone(),
        };
        if first == 0 {
            self.stale.clear();
        }
        (shown, starts.len())
    }
}

/// The colours that a text sets, without the text.
fn colours(text: &str) -> String {
    let pieces = text.split('\u{1b}').skip(1);
    let ends = pieces.filter_map(|piece| piece.split_once('m'));
    ends.map(|(colour, _)| format!("\u{1b}{colour}m")).collect()
}

/// A text in the rows of a terminal.
#[derive(Debug, PartialEq, Eq)]
struct Folded {
    /// Where each begins.
    starts: Vec<usize>,
    /// There is no room in the last one.
    is_full: bool,
}

impl Folded {
    fn of(text: &str, columns: usize) -> Self {
        let mut starts = vec![0];
        let mut used = 0;
        let mut is_colour = false;
        for (at, c) in text.char_indices() {
            if is_colour || c == '\u{1b}' {
                is_colour = c != 'm';
                continue;
            }
            if c == '\n' {
                starts.push(at + 1);
                used = 0;
                continue;
            }
            let width = width(c, used);
            used += width;
            if used > columns {
                starts.push(at);
                used = width;
            }
        }
        Self {
            starts,
            is_full: used == columns,
        }
    }

    /// The rows up to the cursor behind the text: a full one is followed by another.
    fn rows_with_cursor(&self) -> usize {
        self.starts.len() + usize::from(self.is_full)
    }
}

/// The columns of a character behind `used` others.
fn width(c: char, used: usize) -> usize {
    match c {
        '\t' => TAB_STOP - used % TAB_STOP,
        c if c.is_control() => 0,
        c => text::columns(c.encode_utf8(&mut [0; 4])),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROMPT: &str = "bob> ";

    /// What stands above a line that was drawn at so many columns.
    fn drawn(texts: &[&str], line: &str, columns: usize) -> Above {
        let mut above = Above::default();
        above.begin();
        resized(&mut above, line, line.len(), columns);
        for text in texts {
            printed(&mut above, text, line, columns);
        }
        above
    }

    /// The screen has a new width, and the editor draws; returns what is put in front of the prompt.
    fn resized(above: &mut Above, line: &str, at: usize, columns: usize) -> String {
        above.edit(line, at, false);
        above.has_to_draw(true);
        let before = above.draw(PROMPT, columns);
        above.draw_line(line);
        before
    }

    /// The editor prints something above the line.
    fn printed(above: &mut Above, text: &str, line: &str, columns: usize) {
        above.printing(&format!("{text}\n"));
        assert_eq!(above.draw(PROMPT, columns), "");
        above.draw_line(line);
        above.taken();
    }

    fn line_of(columns: usize) -> String {
        "x".repeat(columns - PROMPT.len())
    }

    #[test]
    fn rows_are_counted_as_a_terminal_wraps() {
        for (text, columns, starts, is_full) in [
            ("", 4, vec![0], false),
            ("abcd", 4, vec![0], true),
            ("abcde", 4, vec![0, 4], false),
            ("a\nb", 4, vec![0, 2], false),
            ("abcd\nb", 4, vec![0, 5], false),
            ("abc漢", 4, vec![0, 3], false),
            ("漢字かな", 4, vec![0, 6], true),
            ("e\u{301}bcd", 4, vec![0], true),
            ("\u{1b}[1;31mabcd\u{1b}[0m", 4, vec![0], true),
            ("\u{1b}[1mabcde\u{1b}[0m", 4, vec![0, 8], false),
            ("a\tb", 8, vec![0, 2], false),
            ("漢", 1, vec![0, 0], false),
        ] {
            let folded = Folded::of(text, columns);
            assert_eq!(folded, Folded { starts, is_full }, "{text:?}");
        }
    }

    #[test]
    fn wider_rows_bring_back_what_was_cleared_too_much() {
        let texts = ["one", "two", "three"];
        for (columns, before) in [
            // It took three rows of forty.
            (40, ""),
            (49, ""),
            (50, "three\n"),
            (99, "three\n"),
            (100, "two\nthree\n"),
            (200, "two\nthree\n"),
        ] {
            let line = line_of(100);
            let mut above = drawn(&texts, &line, 40);
            let brought = resized(&mut above, &line, line.len(), columns);
            assert_eq!(brought, before, "{columns}");
            // The same once more is no change.
            assert_eq!(resized(&mut above, &line, line.len(), columns), "");
        }
    }

    #[test]
    fn a_full_row_is_ended_by_the_editor_and_counts_one_more() {
        let line = line_of(80);
        let mut above = drawn(&["one", "two"], &line, 40);
        // Two full rows and the cursor in a third; then one and the cursor in a second.
        assert_eq!(resized(&mut above, &line, line.len(), 100), "two\n");
        // A character that is added behind a full row does not make the terminal join them.
        let mut above = drawn(&["one", "two"], &line, 40);
        let longer = format!("{line}y");
        above.edit(&longer, longer.len(), false);
        assert!(!above.has_to_draw(true));
        assert_eq!(resized(&mut above, &longer, longer.len(), 100), "two\n");
    }

    #[test]
    fn nothing_comes_back_above_a_short_line_or_in_narrower_rows() {
        let mut above = drawn(&["one", "two"], "short", 40);
        for columns in [120, 30, 90, 20] {
            assert_eq!(resized(&mut above, "short", 5, columns), "");
        }
        let line = line_of(100);
        let mut above = drawn(&["one", "two"], &line, 120);
        for columns in [100, 60, 40, 21] {
            assert_eq!(resized(&mut above, &line, line.len(), columns), "");
        }
        // A line that was pasted after a change that the editor did not draw.
        let mut above = drawn(&["one", "two"], "short", 120);
        assert_eq!(resized(&mut above, &line, line.len(), 40), "");
        assert_eq!(above.stale, "");
    }

    #[test]
    fn each_step_brings_back_its_own_rows() {
        let line = line_of(200);
        let mut above = drawn(&["one", "two", "three", "four"], &line, 40);
        let mut brought = 0;
        for columns in 41..=220 {
            brought += resized(&mut above, &line, line.len(), columns)
                .lines()
                .count();
        }
        // One of five rows is left. The row behind a full one goes without having been joined.
        assert_eq!(brought, 4);
        assert_eq!(above.texts.len(), 4);
    }

    #[test]
    fn rows_of_longer_texts_come_back_in_their_colours() {
        let line = line_of(100);
        let long = format!("\u{1b}[31m{}end\u{1b}[0m", "m".repeat(120));
        let mut above = drawn(&["one\ntwo", &long], &line, 40);
        assert_eq!(
            resized(&mut above, &line, line.len(), 60),
            "\u{1b}[31mend\u{1b}[0m\n"
        );
        let mut above = drawn(&["one\ntwo", "end"], &line, 40);
        assert_eq!(resized(&mut above, &line, line.len(), 120), "two\nend\n");
    }

    #[test]
    fn what_a_narrower_screen_has_left_of_the_line_is_not_brought_back() {
        let line = line_of(100);
        let mut above = drawn(&["one", "two"], &line, 120);
        assert_eq!(resized(&mut above, &line, line.len(), 40), "");
        assert_eq!(above.stale.len(), 80);
        // Three rows are cleared: two that both parts of the line have, and one more.
        assert_eq!(resized(&mut above, &line, line.len(), 120), "two\n");
        assert_eq!(above.stale, "");
        // With a text between, which stands in the same line as what is left.
        assert_eq!(resized(&mut above, &line, line.len(), 40), "");
        printed(&mut above, "three", &line, 40);
        assert_eq!(resized(&mut above, &line, line.len(), 120), "two\nthree\n");
    }

    #[test]
    fn a_cursor_within_the_line_loses_nothing() {
        let line = line_of(100);
        let mut above = drawn(&["one", "two"], &line, 40);
        assert_eq!(resized(&mut above, &line, 3, 120), "one\ntwo\n");
    }

    #[test]
    fn a_text_counts_once_the_editor_has_drawn_it() {
        let line = line_of(100);
        let mut above = drawn(&["one", "two"], &line, 40);
        above.printing("three\n");
        assert_eq!(resized(&mut above, &line, line.len(), 60), "two\n");
        assert_eq!(above.draw(PROMPT, 60), "");
        above.draw_line(&line);
        assert_eq!(resized(&mut above, &line, line.len(), 120), "three\n");
        above.printing(REDRAW);
        above.end();
        above.begin();
        let texts: Vec<_> = above.texts.iter().map(|text| &*text.text).collect();
        assert_eq!(texts, ["one", "two", "three", &format!("{PROMPT}{line}")]);
    }

    #[test]
    fn the_rows_of_a_hint_are_left_unless_something_was_printed() {
        let mut above = drawn(&[], "line", 40);
        assert_eq!(above.rows_left(), 0);
        let hint = format!("\n{}\nb", "a".repeat(50));
        above.draw_hint(&hint);
        above.printing(REDRAW);
        assert_eq!(above.rows_left(), 3);
        assert_eq!(above.rows_left(), 0, "once");
        above.draw_hint(&hint);
        above.printing("text\n");
        assert_eq!(above.rows_left(), 0);
    }

    #[test]
    fn a_line_that_is_not_shown_as_it_is_typed_is_always_drawn() {
        let mut above = drawn(&[], "line", 40);
        above.edit("line", 4, false);
        assert!(above.has_to_draw(false));
        assert!(!above.has_to_draw(true));
    }

    #[test]
    fn few_texts_are_kept() {
        let mut above = Above::default();
        for number in 0..1000 {
            above.push(number.to_string());
        }
        assert_eq!(above.texts.len(), ABOVE_MAX);
    }
}
