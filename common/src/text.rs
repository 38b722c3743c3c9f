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
//! those reaches a terminal: each is replaced by something visible. Only the two joiners of Unicode
//! stay, and only where an emoji or a script needs them.

use std::borrow::Cow;

mod amount;
mod editing;
mod joiner;
mod layout;
mod moment;

pub use amount::{elapsed, rate, seconds, size};
pub use editing::edited;
pub use layout::{
    Align, beginning, columns, folded, joined, padded, shortened, shortened_name, table, wrapped,
};
pub use moment::{TimeRange, TimeRangeError, date, stamp, stamp_on, time_range};

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
    let harmless = |(at, c): (usize, char)| {
        let (before, rest) = text.split_at(at);
        !is_hostile(c)
            || (c == '\n' && keep_line_feeds)
            || joiner::belongs(before, c, &rest[c.len_utf8()..])
    };
    if text.char_indices().all(harmless) {
        return Cow::Borrowed(text);
    }
    let visible = text
        .char_indices()
        .map(|(at, c)| if harmless((at, c)) { c } else { stand_in(c) });
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
/// tags and private use. Joiners, too, for all that [`joiner::belongs`] knows of.
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
    use rand_chacha03::ChaCha8Rng;
    use rand_chacha03::rand_core::{RngCore, SeedableRng};

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
        let honest = "Grüße, 你好, ראש, <b>&amp;</b> 👍, 👨\u{200d}👩\u{200d}👧, می\u{200c}خواهم, ශ්\u{200d}රී";
        assert!(matches!(inline(honest), Cow::Borrowed(_)));
    }

    /// Texts put together at random from what joins, what is joined and what is hostile.
    #[test]
    fn t05_whatever_the_text_no_hostile_character_is_left_and_a_second_gate_finds_nothing() {
        let pieces = [
            "a",
            " ",
            "\n",
            "\u{1b}[2J",
            "\u{202e}",
            "\u{ad}",
            "\u{200b}",
            "\u{fffd}",
            "\u{e0067}",
            "\u{200c}",
            "\u{200d}",
            "👩\u{200d}",
            "👩",
            "\u{fe0f}",
            "🏽",
            "ی\u{200c}",
            "ا",
            "\u{64e}",
            "ܒ",
            "क्\u{200d}",
            "क्\u{200c}",
            "ष",
            "्",
            "़",
            "ि",
            "\u{301}",
            "\u{17b4}",
            "\u{70f}",
            "漢",
        ];
        let mut random = ChaCha8Rng::seed_from_u64(0x5eed);
        let mut kept = 0;
        for _ in 0..20_000 {
            let text: String = (0..random.next_u32() % 12)
                .map(|_| pieces[random.next_u32() as usize % pieces.len()])
                .collect();
            let shown = inline(&text);
            assert_eq!(shown.chars().count(), text.chars().count(), "one for one");
            assert_eq!(inline(&shown), shown, "{text:?}");
            let joiners = |c: char| matches!(c, '\u{200c}' | '\u{200d}');
            assert!(
                !shown.contains(|c| is_hostile(c) && !joiners(c)),
                "{text:?}"
            );
            // Two joiners in a row, one at the start, or one next to ASCII: none of them is seen.
            let marks: Vec<_> = shown.chars().collect();
            assert!(!marks.first().copied().is_some_and(joiners), "{text:?}");
            for pair in marks.windows(2) {
                let is_hidden = joiners(pair[1])
                    && (joiners(pair[0]) || pair[0].is_ascii() || pair[0] == '\u{fffd}');
                assert!(!is_hidden, "{text:?}");
            }
            kept += shown.matches(joiners).count();
            let lines = block(&text);
            let cleaned: Vec<_> = text.split('\n').map(inline).collect();
            assert_eq!(lines, cleaned.join("\n"));
            assert_eq!(block(&lines), lines);
        }
        assert!(
            kept > 500,
            "{kept} joiners stayed: the test does not reach what it is for"
        );
    }

    /// Marks and joiners as far as a text goes: what is looked at around each joiner stays short.
    #[test]
    fn t05_the_time_for_a_text_grows_with_its_length_only() {
        for piece in [
            "\u{200d}",
            "\u{200c}\u{64e}",
            "ی\u{64e}",
            "्\u{200d}",
            "👩\u{200d}",
        ] {
            let text = piece.repeat(100_000);
            assert_eq!(inline(&text).chars().count(), text.chars().count());
        }
        let apart = format!("ی{0}\u{200c}{0}خ", "\u{64e}".repeat(100_000));
        assert_eq!(inline(&apart), apart);
    }
}
