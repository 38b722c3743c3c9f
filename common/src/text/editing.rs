//! A line that is being edited: what of it may be drawn, in the columns that the editor counts.
//!
//! An editor knows where its cursor is by counting columns. It counts none for most controls, but a
//! terminal would obey them; so what the gate would replace takes exactly the columns that the editor
//! counts for it, which may be none.

use std::borrow::Cow;

use unicode_segmentation::UnicodeSegmentation;

use super::block;

/// Stands for a column of what is not shown.
const REPLACEMENT: char = '\u{fffd}';

/// What an editor may draw of `line`, and where in it the cursor is that is `at` this byte of the line.
/// `width` counts the columns of a grapheme cluster as the editor does. Line feeds and tabs stay: editors
/// lay them out. Neither is an escape sequence shown, nor anything else that the editor takes for a part
/// of one: it counts nothing for them.
pub fn edited(line: &str, at: usize, width: impl Fn(&str) -> usize) -> (Cow<'_, str>, usize) {
    // It is called at each key: most lines are done soon.
    if line.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
        return (Cow::Borrowed(line), at);
    }
    let shown = block(line);
    if matches!(shown, Cow::Borrowed(_)) {
        return (Cow::Borrowed(line), at);
    }
    // The editor counts from the start to the cursor, and from the cursor to the end.
    let (before, behind) = line.split_at(at);
    let mut shown = shown.chars();
    let mut drawn = drawn(before, &mut shown, &width);
    let at = drawn.len();
    drawn.push_str(&self::drawn(behind, &mut shown, &width));
    (Cow::Owned(drawn), at)
}

/// The same for a part of a line, of which the gate leaves `shown`, one character for each.
fn drawn(
    part: &str,
    shown: &mut impl Iterator<Item = char>,
    width: impl Fn(&str) -> usize,
) -> String {
    let mut drawn = String::with_capacity(part.len());
    let mut escape = Escape::Outside;
    for cluster in part.graphemes(true) {
        let passed = cluster.chars().zip(shown.by_ref());
        let passed = passed.filter(|(typed, shown)| typed == shown && *typed != '\n');
        let kept: String = passed.map(|(typed, _)| typed).collect();
        if matches!(cluster, "\n" | "\t") {
            drawn.push_str(cluster);
        } else if !escape.takes(cluster) {
            let columns = width(cluster);
            match columns.checked_sub(width(&kept)) {
                Some(more) => {
                    drawn.push_str(&kept);
                    drawn.extend(std::iter::repeat_n(REPLACEMENT, more));
                }
                // A cluster that falls apart may be wider than it was.
                None => drawn.extend(std::iter::repeat_n(REPLACEMENT, columns)),
            }
        }
    }
    drawn
}

/// How far an editor is in what it takes for an escape sequence.
#[derive(Clone, Copy)]
enum Escape {
    Outside,
    Begun,
    /// Behind `ESC [`.
    Parameters,
}

impl Escape {
    /// Tells whether the next cluster is a part of one.
    fn takes(&mut self, cluster: &str) -> bool {
        let is_parameter =
            cluster == ";" || cluster.starts_with(|first: char| first.is_ascii_digit());
        let (is_part, next) = match *self {
            Self::Outside if cluster == "\u{1b}" => (true, Self::Begun),
            Self::Outside => (false, Self::Outside),
            Self::Begun if cluster == "[" => (true, Self::Parameters),
            Self::Parameters if is_parameter => (true, Self::Parameters),
            Self::Begun | Self::Parameters => (true, Self::Outside),
        };
        *self = next;
        is_part
    }
}

#[cfg(test)]
mod tests {
    use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

    use super::*;

    /// Each character for itself, controls none.
    fn by_character(cluster: &str) -> usize {
        cluster.chars().map(|c| c.width().unwrap_or(0)).sum()
    }

    fn all_of(line: &str) -> Cow<'_, str> {
        edited(line, line.len(), by_character).0
    }

    #[test]
    fn honest_lines_are_drawn_as_they_are() {
        for line in ["", "a\nb", "Grüße 漢字", "می\u{200c}خواهم", "👨\u{200d}👩"] {
            assert!(matches!(edited(line, 0, str::width).0, Cow::Borrowed(_)));
        }
        assert_eq!(all_of("a\tb"), "a\tb");
    }

    #[test]
    fn t05_what_is_hostile_takes_the_columns_that_are_counted_for_it() {
        for (line, drawn) in [
            ("a\u{9b}31mb\u{85}c\u{7}d", "a31mbcd"),
            ("a\u{202e}b", "ab"),
            ("a\u{e000}b", "a\u{fffd}b"),
            ("a\u{115f}b", "a\u{fffd}\u{fffd}b"),
            ("pay\u{200d}pal", "paypal"),
            ("a\u{1b}[2Jb", "ab"),
            ("a\u{1b}cb\tc", "ab\tc"),
            ("a\r\nb", "ab"),
        ] {
            assert_eq!(all_of(line), drawn, "{line:?}");
        }
        // Where controls count.
        assert_eq!(edited("a\u{7}b", 3, str::width).0, "a\u{fffd}b");
    }

    #[test]
    fn t05_the_cursor_stays_where_it_is() {
        let line = "ab\u{202e}\u{e000}cd";
        for (at, drawn_at) in [(0, 0), (2, 2), (5, 2), (8, 5), (9, 6), (10, 7)] {
            let (drawn, at) = edited(line, at, by_character);
            assert_eq!((&*drawn, at), ("ab\u{fffd}cd", drawn_at));
        }
        // An escape sequence ends where the editor begins to count anew.
        let line = "a\u{1b}[2Jb";
        assert_eq!(edited(line, 3, by_character), ("a2Jb".into(), 1));
    }

    #[test]
    fn t05_no_line_is_drawn_otherwise_than_it_is_counted() {
        let pieces = [
            "a", "漢", "\u{202e}", "\u{9b}", "\u{e000}", "\u{200d}", "👩", "\u{301}", "\u{ad}",
            "\u{115f}", "\r", "\u{7f}", "ی", "\u{200c}",
        ];
        let mut number: u64 = 1;
        for _ in 0..20_000 {
            number = number
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            let mut left = number >> 20;
            let mut line = String::new();
            while left > 0 {
                line.push_str(pieces[(left % pieces.len() as u64) as usize]);
                left /= 31;
            }
            for width in [by_character, str::width] {
                let count = |line: &str| line.graphemes(true).map(width).sum::<usize>();
                let (drawn, _) = edited(&line, line.len(), width);
                assert_eq!(block(&drawn), drawn, "{line:?}");
                assert_eq!(count(&drawn), count(&line), "{line:?}: {drawn:?}");
            }
        }
    }
}
