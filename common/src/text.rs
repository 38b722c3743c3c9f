//! Text for people: the one gate between text from outside and a terminal, and the one place where
//! sizes, spans, times and columns get their form, for both programs.
//!
//! Everything here is a pure function. The gate, [`inline`] and [`block`], comes first on the way to a
//! screen; what lays text out ([`columns`], [`shortened`], [`table`], [`wrapped`]) counts the columns
//! of a terminal and neither bytes nor characters, and makes nothing harmless.
//!
//! # The gate
//!
//! Names, messages, file names and server texts may hold escape sequences that move the cursor, set
//! the clipboard or hide text, and Unicode controls that reverse or conceal what is read. None of
//! those reaches a terminal: each is replaced by something visible.

use std::borrow::Cow;

mod amount;
mod layout;
mod moment;

pub use amount::{elapsed, rate, seconds, size};
pub use layout::{Align, columns, joined, padded, shortened, table, wrapped};
pub use moment::{date, stamp, stamp_on};

/// Makes text safe for one line of a terminal: no line breaks, no controls.
pub fn inline(text: &str) -> Cow<'_, str> {
    clean(text, false)
}

/// Makes text safe for several lines of a terminal: line feeds stay, everything else as in
/// [`inline`].
pub fn block(text: &str) -> Cow<'_, str> {
    clean(text, true)
}

fn clean(text: &str, keep_line_feeds: bool) -> Cow<'_, str> {
    let harmless = |c: char| (c == '\n' && keep_line_feeds) || !is_hostile(c);
    if text.chars().all(harmless) {
        return Cow::Borrowed(text);
    }
    let visible = text
        .chars()
        .map(|c| if harmless(c) { c } else { stand_in(c) });
    Cow::Owned(visible.collect())
}

/// Controls as their pictures (U+2400 block), everything else as the replacement character.
fn stand_in(c: char) -> char {
    match u32::from(c) {
        code @ 0..=0x1f => char::from_u32(0x2400 + code).unwrap_or('\u{fffd}'),
        0x7f => '\u{2421}',
        _ => '\u{fffd}',
    }
}

/// Tells whether a terminal, or the eye, would be misled by `c`: C0 and C1 controls, line and
/// paragraph separators, bidirectional controls (UAX #9), zero-width and other invisible characters,
/// tags and private use.
fn is_hostile(c: char) -> bool {
    c.is_control()
        || matches!(u32::from(c),
            0x00ad | 0x034f | 0x061c | 0x115f..=0x1160 | 0x17b4..=0x17b5 | 0x180b..=0x180f
            | 0x200b..=0x200f | 0x2028..=0x202e | 0x2060..=0x206f | 0x3164 | 0xfeff | 0xffa0
            | 0xfff0..=0xfffb | 0xe000..=0xf8ff | 0x1d173..=0x1d17a | 0xe0000..=0xe0fff
            | 0xf0000..=0x10ffff)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t05_no_control_reaches_a_terminal() {
        let hostile = "a\u{1b}]52;c;eA==\u{7}b\rc\u{202e}d\u{200d}e\u{9b}31mf\u{7f}";
        let shown = inline(hostile);
        assert_eq!(shown, "a␛]52;c;eA==␇b␍c\u{fffd}d\u{fffd}e\u{fffd}31mf␡");
        assert!(!shown.chars().any(is_hostile));
    }

    #[test]
    fn line_feeds_stay_only_in_blocks() {
        assert_eq!(inline("a\nb"), "a␊b");
        assert_eq!(block("a\nb\u{2028}c"), "a\nb\u{fffd}c");
    }

    #[test]
    fn honest_text_is_untouched() {
        let honest = "Grüße, 你好, ראש, <b>&amp;</b> 👍";
        assert!(matches!(inline(honest), Cow::Borrowed(_)));
    }
}
