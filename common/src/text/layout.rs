//! Columns of a terminal: how many a text takes, and how texts are fitted into them.
//!
//! A width is that of UAX #11 and of emoji sequences, by the crate `unicode-width`: CJK and emoji take
//! two columns, combining marks and joiners none. Text is cut only between grapheme clusters (UAX #29),
//! so that no mark loses its letter; also where bytes are what is short, as in names ([`beginning`]).
//! Colours (`ESC [ … m`) take no column.

use unicode_segmentation::UnicodeSegmentation;
use unicode_width::UnicodeWidthStr;

use super::inline;

/// Stands where a part of a text was left out. One column.
const ELLIPSIS: &str = "…";
/// Columns between two columns of a table.
const GAP: usize = 2;
/// Columns of the longest extension of a file name that is kept whole, with its dot: `.parquet`.
const EXTENSION_COLUMNS_MAX: usize = 8;
/// Fewer columns than this are not worth looking for words, or indenting.
const COLUMNS_MIN: usize = 20;

/// To which side a text is moved in its column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Align {
    /// Blanks behind it, for words.
    Left,
    /// Blanks before it, for numbers.
    Right,
}

/// How many columns of a terminal a line takes, without the colours in it.
pub fn columns(text: &str) -> usize {
    if !text.contains('\u{1b}') {
        return text.width();
    }
    let mut pieces = text.split('\u{1b}');
    let first = pieces.next().map_or(0, UnicodeWidthStr::width);
    let coloured = pieces.map(|piece| match piece.split_once('m') {
        Some((_, shown)) => shown.width(),
        None => 0,
    });
    first + coloured.sum::<usize>()
}

/// A line without colours in at most `limit` columns: what is too much is left out in the middle, with
/// an ellipsis in its place, so that the end of a file name stays.
pub fn shortened(text: &str, limit: usize) -> String {
    shortened_to(text, limit, limit.saturating_sub(1) / 2)
}

/// The same of a file name: its extension stays whole, with the dot that shows what it is, where it is no longer
/// than extensions are and something of the name stays in front.
pub fn shortened_name(name: &str, limit: usize) -> String {
    let kept = limit.saturating_sub(1);
    let extension = name.rfind('.').map_or(0, |dot| columns(&name[dot..]));
    let is_kept = extension <= EXTENSION_COLUMNS_MAX && extension < kept;
    let tail = if is_kept {
        extension.max(kept / 2)
    } else {
        kept / 2
    };
    shortened_to(name, limit, tail)
}

/// A line in at most `limit` columns, of which at most `tail`, fewer than that, are for its end.
fn shortened_to(text: &str, limit: usize, tail: usize) -> String {
    if columns(text) <= limit {
        return text.to_owned();
    }
    let Some(kept) = limit.checked_sub(1) else {
        return String::new();
    };
    let clusters: Vec<&str> = text.graphemes(true).collect();
    let head = fitting(clusters.iter().copied(), kept - tail);
    let rest = &clusters[head..];
    let tail = fitting(rest.iter().rev().copied(), tail);
    let (start, end) = (&clusters[..head], &rest[rest.len() - tail..]);
    format!("{}{ELLIPSIS}{}", start.concat(), end.concat())
}

/// The longest beginning of at most `len` bytes that ends between two grapheme clusters and of which
/// [`inline`] leaves as much as of the whole: no joiner is at its end without what it joined. A first
/// cluster of more than `len` bytes is cut between characters.
pub fn beginning(text: &str, len: usize) -> &str {
    if text.len() <= len {
        return text;
    }
    let shown = inline(text);
    let is_same = |end: &usize| *end > 0 && shown.starts_with(&*inline(&text[..*end]));
    let starts = text.grapheme_indices(true).map(|(start, _)| start);
    let clusters: Vec<_> = starts.take_while(|start| *start <= len).collect();
    let characters = (1..=len).rev().filter(|end| text.is_char_boundary(*end));
    let mut ends = clusters.into_iter().rev().chain(characters);
    &text[..ends.find(is_same).unwrap_or(0)]
}

/// How many clusters from the start take at most `limit` columns together.
fn fitting<'a>(clusters: impl Iterator<Item = &'a str>, limit: usize) -> usize {
    let ends = clusters.scan(0, |used, cluster| {
        *used += cluster.width();
        Some(*used)
    });
    ends.take_while(|end| *end <= limit).count()
}

/// A line with blanks at one side until it takes `width` columns. A longer one stays as it is.
pub fn padded(text: &str, width: usize, align: Align) -> String {
    let blanks = " ".repeat(width.saturating_sub(columns(text)));
    match align {
        Align::Left => format!("{text}{blanks}"),
        Align::Right => format!("{blanks}{text}"),
    }
}

/// Words with commas between them.
pub fn joined(words: &[impl ToString]) -> String {
    let words: Vec<_> = words.iter().map(ToString::to_string).collect();
    words.join(", ")
}

/// Rows with their cells under each other. Each is one string, which has line feeds in it where a row
/// does not fit `limit` columns: the cells that are too much follow on lines of their own, indented,
/// again under each other. A single cell that is wider than a line is broken anywhere, so that nothing of
/// it is missing. Without a limit each row is one line.
pub fn table<const N: usize>(
    rows: &[[String; N]],
    aligns: [Align; N],
    limit: Option<usize>,
) -> Vec<String> {
    let limit = limit.unwrap_or(usize::MAX);
    let indent = if limit < COLUMNS_MIN { 0 } else { GAP };
    let width = |column: usize| rows.iter().map(|row| columns(&row[column])).max();
    let widths: [usize; N] = std::array::from_fn(|column| {
        let room = if column == 0 { limit } else { limit - indent };
        width(column).unwrap_or(0).min(room)
    });
    let breaks = breaks(&widths, indent, limit);
    let lines = rows.iter().map(|row| {
        let mut line = String::new();
        for (column, cell) in row.iter().enumerate() {
            if breaks[column] {
                line.truncate(line.trim_end().len());
                line.push('\n');
                line.push_str(&" ".repeat(indent));
            } else if column > 0 {
                line.push_str(&" ".repeat(GAP));
            }
            let margin = if column == 0 { 0 } else { indent };
            let mut pieces = pieces(cell, widths[column]);
            let last = pieces.pop().unwrap_or_default();
            for piece in pieces {
                line.push_str(&piece);
                line.push('\n');
                line.push_str(&" ".repeat(margin));
            }
            line.push_str(&padded(&last, widths[column], aligns[column]));
        }
        line.truncate(line.trim_end().len());
        line
    });
    lines.collect()
}

/// A cell in pieces of at most `width` columns. Where not even a cluster fits, it is [`shortened`].
fn pieces(cell: &str, width: usize) -> Vec<String> {
    let clusters: Vec<&str> = cell.graphemes(true).collect();
    let mut rest = clusters.as_slice();
    let mut pieces = Vec::new();
    while !rest.is_empty() {
        let (piece, behind) = rest.split_at(fitting(rest.iter().copied(), width));
        if piece.is_empty() {
            return vec![shortened(cell, width)];
        }
        pieces.push(piece.concat());
        rest = behind;
    }
    pieces
}

/// Before which columns of a table a new line begins.
fn breaks<const N: usize>(widths: &[usize; N], indent: usize, limit: usize) -> [bool; N] {
    let mut used = 0;
    std::array::from_fn(|column| {
        let end = used + GAP + widths[column];
        let is_new_line = column > 0 && end > limit;
        used = match (column, is_new_line) {
            (0, _) => widths[column],
            (_, true) => indent + widths[column],
            (_, false) => end,
        };
        is_new_line
    })
}

/// Prose with its longer lines broken at blanks, and indented like their beginnings. A word longer than
/// a line stays whole, so that it can be copied. Colours may be in it. Below 20 columns the text stays
/// as it is.
pub fn wrapped(text: &str, limit: Option<usize>) -> String {
    let Some(limit) = limit.filter(|limit| *limit >= COLUMNS_MIN) else {
        return text.to_owned();
    };
    let lines: Vec<_> = text
        .split('\n')
        .map(|line| wrapped_line(line, limit))
        .collect();
    lines.join("\n")
}

/// One line without colours in rows of a terminal of `limit` columns, broken at blanks. `first` columns of the first
/// row are taken, and `margin` of all others, each of which leaves room for a word or two; none of the rows has
/// these. A word that is longer than a row is broken between grapheme clusters, so that scripts without blanks look
/// well and nothing pretends to begin a row. Only an address of the web, in ASCII, stays whole for the terminal to break,
/// so that it can be opened and copied.
pub fn folded(line: &str, first: usize, margin: usize, limit: usize) -> Vec<String> {
    if limit < margin + COLUMNS_MIN {
        return vec![line.to_owned()];
    }
    let mut rows = Vec::new();
    let mut row = String::new();
    let mut used = first;
    let mut rest = line;
    while !rest.is_empty() {
        let words = rest.trim_start_matches(' ');
        let blanks = rest.len() - words.len();
        let (word, behind) = words.split_at(words.find(' ').unwrap_or(words.len()));
        rest = behind;
        let width = columns(word);
        let is_long = margin + width > limit;
        if used + blanks + if is_long { 1 } else { width } <= limit {
            row.push_str(&" ".repeat(blanks));
            used += blanks;
        } else {
            rows.push(std::mem::take(&mut row));
            used = margin;
        }
        if !is_long {
            row.push_str(word);
            used += width;
        } else if word.is_ascii() && word.contains("://") {
            row.push_str(word);
            // The terminal begins its rows at the edge.
            used = (used + width - 1) % limit + 1;
        } else {
            for cluster in word.graphemes(true) {
                if used + cluster.width() > limit {
                    rows.push(std::mem::take(&mut row));
                    used = margin;
                }
                row.push_str(cluster);
                used += cluster.width();
            }
        }
    }
    rows.push(row);
    rows
}

fn wrapped_line(line: &str, limit: usize) -> String {
    if columns(line) <= limit {
        return line.to_owned();
    }
    let (colour, text) = line.split_at(colour_len(line));
    let words = text.trim_start_matches(' ');
    let indent = text.len() - words.len();
    let mut wrapped = format!("{colour}{}", " ".repeat(indent));
    let mut used = indent;
    for (index, word) in words.split(' ').enumerate() {
        let width = columns(word);
        if index > 0 && used + 1 + width > limit {
            wrapped.truncate(wrapped.trim_end_matches(' ').len());
            wrapped.push('\n');
            wrapped.push_str(&" ".repeat(indent));
            used = indent;
        } else if index > 0 {
            wrapped.push(' ');
            used += 1;
        }
        wrapped.push_str(word);
        used += width;
    }
    wrapped
}

/// Bytes of the colour that a line begins with.
fn colour_len(line: &str) -> usize {
    let Some(rest) = line.strip_prefix("\u{1b}[") else {
        return 0;
    };
    let end = rest.find(|c: char| !c.is_ascii_digit() && c != ';');
    match end {
        Some(end) if rest[end..].starts_with('m') => "\u{1b}[m".len() + end,
        Some(_) | None => 0,
    }
}

#[cfg(test)]
mod tests {
    use rand_chacha03::ChaCha8Rng;
    use rand_chacha03::rand_core::{RngCore, SeedableRng};

    use super::*;

    const FAMILY: &str = "👨\u{200d}👩\u{200d}👧\u{200d}👦";
    const RAINBOW: &str = "🏳\u{fe0f}\u{200d}🌈";

    fn samples() -> Vec<String> {
        let huge = "漢字かな".repeat(5000);
        [
            "",
            "a",
            "plain words",
            "漢字かな交じり文",
            "한국어",
            "e\u{301}e\u{301}e\u{301}",
            "👍🏽👍🏿",
            "❤\u{fe0f} ❤",
            "می\u{200c}خواهم",
            "हिन्दी",
            &FAMILY.repeat(9),
            &RAINBOW.repeat(9),
            &"\u{301}".repeat(40),
            &huge,
        ]
        .map(str::to_owned)
        .to_vec()
    }

    #[test]
    fn columns_are_those_of_a_terminal() {
        for (text, count) in [
            ("", 0),
            ("abc", 3),
            ("漢字", 4),
            ("한", 2),
            ("e\u{301}", 1),
            ("👍", 2),
            ("👍🏽", 2),
            ("❤", 1),
            ("❤\u{fe0f}", 2),
            (FAMILY, 2),
            (RAINBOW, 2),
            ("👩🏽\u{200d}🚀", 2),
            ("می\u{200c}خواهم", 7),
            ("क्\u{200c}ष", 2),
            ("\u{1b}[1;36m漢\u{1b}[0m", 2),
        ] {
            assert_eq!(columns(text), count, "{text:?}");
        }
    }

    #[test]
    fn a_text_is_shortened_in_the_middle() {
        for (text, limit, shown) in [
            ("holiday.tar.gz", 20, "holiday.tar.gz"),
            ("holiday.tar.gz", 10, "holid…r.gz"),
            ("漢字漢字漢字", 6, "漢…字"),
            ("abc", 1, "…"),
            ("abc", 0, ""),
        ] {
            assert_eq!(shortened(text, limit), shown, "{text}");
        }
    }

    #[test]
    fn a_file_name_keeps_its_extension_with_the_dot() {
        for (name, limit, shown) in [
            ("huge-file-of-zeros.bin", 8, "hug….bin"),
            ("huge-file-of-zeros.bin", 6, "h….bin"),
            // There is no room for more than the extension.
            ("huge-file-of-zeros.bin", 5, "hu…in"),
            ("huge-file-of-zeros.bin", 14, "huge-fi…os.bin"),
            ("huge.bin", 8, "huge.bin"),
            ("a-name.of-a-person-and-no-file", 10, "a-nam…file"),
            ("漢字漢字漢字.txt", 9, "漢字….txt"),
            ("no-extension", 1, "…"),
            ("no-extension", 0, ""),
        ] {
            assert_eq!(shortened_name(name, limit), shown, "{name}");
        }
        for name in samples() {
            for limit in 0..24 {
                let shown = shortened_name(&format!("{name}.bin"), limit);
                assert!(columns(&shown) <= limit, "{name:?} in {limit}: {shown:?}");
            }
        }
    }

    #[test]
    fn no_shortened_text_is_wider_than_its_limit() {
        for text in samples() {
            for limit in (0..24).chain([80, 200]) {
                let shown = shortened(&text, limit);
                assert!(columns(&shown) <= limit, "{text:?} in {limit}: {shown:?}");
                // Whole clusters: the family stays together.
                let marks = shown.graphemes(true).filter(|cluster| *cluster != ELLIPSIS);
                let whole: Vec<_> = text.graphemes(true).collect();
                for cluster in marks {
                    assert!(whole.contains(&cluster), "{cluster:?} of {text:?}");
                }
            }
        }
    }

    #[test]
    fn padding_counts_columns() {
        assert_eq!(padded("漢", 4, Align::Left), "漢  ");
        assert_eq!(padded(FAMILY, 4, Align::Right), format!("  {FAMILY}"));
        assert_eq!(padded("", 2, Align::Left), "  ");
        assert_eq!(padded("long", 2, Align::Left), "long");
        let coloured = padded("\u{1b}[1ma\u{1b}[0m", 2, Align::Left);
        assert_eq!(coloured, "\u{1b}[1ma\u{1b}[0m ");
    }

    #[test]
    fn a_beginning_ends_between_clusters() {
        for (text, len, shown) in [
            ("abc", 3, "abc"),
            ("abc", 2, "ab"),
            ("abc", 0, ""),
            ("äb", 1, ""),
            ("ae\u{301}", 2, "a"),
            (&format!("a{FAMILY}"), 25, "a"),
            (&format!("{RAINBOW}b"), 14, RAINBOW),
            ("🇩🇪🇫🇷", 12, "🇩🇪"),
            // A joiner at the end of a beginning would join nothing.
            ("می\u{200c}خواهم", 7, "م"),
            ("می\u{200c}خواهم", 9, "می\u{200c}خ"),
            // What is hostile, and what is one cluster alone, is cut all the same.
            ("a\u{200d}bc", 4, "a\u{200d}"),
            ("e\u{301}\u{301}", 3, "e\u{301}"),
            (FAMILY, 24, "👨\u{200d}👩\u{200d}👧"),
        ] {
            assert_eq!(beginning(text, len), shown, "{text:?} in {len}");
        }
    }

    #[test]
    fn however_a_text_is_cut_no_cluster_is() {
        let units = [
            "a",
            " ",
            "漢",
            "e\u{301}",
            FAMILY,
            RAINBOW,
            "می\u{200c}خ",
            "لا",
            "क्\u{200d}ष",
            "ि",
            "한",
            "\u{1100}\u{1161}",
            "🇩🇪",
            "1\u{fe0f}\u{20e3}",
            "❤\u{fe0e}",
            "\u{fffd}",
            "ำ",
            "\u{600}",
        ];
        let mut random = ChaCha8Rng::seed_from_u64(0x5eed);
        for _ in 0..800 {
            let text: String = (0..random.next_u32() % 24)
                .map(|_| units[random.next_u32() as usize % units.len()])
                .collect();
            let clusters: Vec<_> = text.graphemes(true).collect();
            for limit in [0, 1, 2, 3, 7, 20, 40] {
                let shown = shortened(&text, limit);
                assert!(columns(&shown) <= limit, "{text:?} in {limit}: {shown:?}");
                if let Some((head, tail)) = shown.split_once(ELLIPSIS) {
                    let head: Vec<_> = head.graphemes(true).collect();
                    let tail: Vec<_> = tail.graphemes(true).collect();
                    assert!(clusters.starts_with(&head), "{text:?}: {shown:?}");
                    assert!(clusters.ends_with(&tail), "{text:?}: {shown:?}");
                }
                let filled = padded(&shown, limit, Align::Left);
                assert_eq!(columns(&filled), limit, "{filled:?}");

                let start = beginning(&text, limit);
                assert!(start.len() <= limit && text.starts_with(start));
                assert!(
                    inline(&text).starts_with(&*inline(start)),
                    "{text:?}: {start:?}"
                );

                // A line that is too wide is one word.
                let broken = wrapped(&text, Some(limit));
                let words = |text: &str| text.split_whitespace().map(str::to_owned).collect();
                let (before, after): (Vec<String>, Vec<String>) = (words(&text), words(&broken));
                assert_eq!(before, after);
                for line in broken.lines().filter(|_| limit >= COLUMNS_MIN) {
                    let is_word = !line.trim().contains(' ');
                    assert!(is_word || columns(line) <= limit, "{line:?} in {limit}");
                }
            }
        }
    }

    fn rows(rows: &[[&str; 3]]) -> Vec<[String; 3]> {
        rows.iter().map(|row| row.map(str::to_owned)).collect()
    }

    const ALIGNS: [Align; 3] = [Align::Left, Align::Right, Align::Left];

    #[test]
    fn cells_stand_under_each_other() {
        let rows = rows(&[
            ["NAME", "COUNT", "WHAT"],
            ["漢字漢字", "7", FAMILY],
            ["", "", ""],
        ]);
        let family = format!("漢字漢字      7  {FAMILY}");
        let lines = ["NAME      COUNT  WHAT", &family, ""];
        assert_eq!(table(&rows, ALIGNS, None), lines);
        assert_eq!(table(&rows, ALIGNS, Some(21)), lines);
        let blank_first = [["", "1", "x"].map(str::to_owned)];
        assert_eq!(table(&blank_first, ALIGNS, None), ["  1  x"]);
        let none: [[String; 3]; 0] = [];
        assert_eq!(table(&none, ALIGNS, Some(21)), [""; 0]);
    }

    #[test]
    fn names_of_all_scripts_line_up_in_forty_columns() {
        let names = [
            "plain",
            FAMILY,
            RAINBOW,
            "می\u{200c}خواهم",
            "漢字かな",
            "ශ්\u{200d}රී",
            "क्\u{200c}ष",
        ];
        let rows: Vec<_> = names
            .iter()
            .map(|name| ["bob", name, "online"].map(str::to_owned))
            .collect();
        for line in table(&rows, [Align::Left; 3], Some(40)) {
            let (front, _) = line.split_once("online").unwrap();
            assert_eq!(columns(front), 15, "{line:?}");
            assert_eq!(inline(&line), line);
        }
    }

    #[test]
    fn what_does_not_fit_follows_on_lines_of_its_own() {
        let rows = rows(&[
            ["NAME", "COUNT", "WHAT"],
            ["漢字漢字", "7", "something long"],
        ]);
        assert_eq!(
            table(&rows, ALIGNS, Some(20)),
            [
                "NAME      COUNT\n  WHAT",
                "漢字漢字      7\n  something long"
            ]
        );
    }

    #[test]
    fn no_line_of_a_table_is_wider_than_the_terminal() {
        let samples = samples();
        let rows: Vec<_> = samples
            .iter()
            .zip(samples.iter().rev())
            .map(|(a, b)| [a.clone(), b.clone(), "fixed".to_owned()])
            .collect();
        for limit in (1..60).chain([80, 200]) {
            for row in table(&rows, ALIGNS, Some(limit)) {
                for line in row.split('\n') {
                    assert!(columns(line) <= limit, "{limit}: {line:?}");
                }
            }
        }
    }

    #[test]
    fn nothing_of_a_cell_that_is_wider_than_the_terminal_is_missing() {
        let rows = [[
            "bob".to_owned(),
            "SHA256:K1EgmFP8AtBSKOUVEhJ5izbNzBgbPLSGa".to_owned(),
            "x".to_owned(),
        ]];
        let shown = "bob\n  SHA256:K1EgmFP8AtBSKOUVEhJ\n  5izbNzBgbPLSGa\n  x";
        assert_eq!(table(&rows, [Align::Left; 3], Some(28)), [shown]);
    }

    #[test]
    fn a_line_is_broken_at_blanks_behind_its_margin() {
        let url = format!("https://example.org/{}", "x".repeat(30));
        for (line, expected) in [
            ("", vec![""]),
            ("short", vec!["short"]),
            // 28 columns less the first ten, then less four.
            (
                "one two three four five six seven eight nine ten",
                vec!["one two three four", "five six seven eight", "nine ten"],
            ),
            ("  indented  code  stays", vec!["  indented  code", "stays"]),
            ("eighteen_columns_x", vec!["eighteen_columns_x"]),
            ("nineteen_columns_xx", vec!["", "nineteen_columns_xx"]),
            (
                "漢字漢字漢字漢字漢字漢字漢字漢字",
                vec!["漢字漢字漢字漢字漢", "字漢字漢字漢字"],
            ),
            (
                &format!("see {url} it is good to have, yes"),
                // The terminal has 8 columns of the address in its last row.
                vec![&format!("see {url} it is good to have,"), "yes"],
            ),
            // No address of the web: each of its rows has the margin.
            (
                &format!("see {}", "x".repeat(40)),
                vec![&format!("see {}", "x".repeat(14)), &"x".repeat(24), "xx"],
            ),
            ("x                   y", vec!["x", "y"]),
            ("x ", vec!["x "]),
        ] {
            assert_eq!(folded(line, 10, 4, 28), expected, "{line:?}");
        }
        assert_eq!(folded("a b c", 4, 10, 29), ["a b c"], "too narrow");
    }

    #[test]
    fn no_row_is_wider_than_the_terminal_but_for_what_is_to_be_copied() {
        for text in samples() {
            for limit in [24, 30, 40, 80] {
                let text = format!("two words {text} and {text}");
                let rows = folded(&text, 17, 4, limit);
                let taken = |index| if index == 0 { 17 } else { 4 };
                for (index, row) in rows.iter().enumerate() {
                    assert!(columns(row) + taken(index) <= limit, "{limit}: {row:?}");
                }
                // Nothing but blanks is missing.
                let dense = |text: &str| text.replace(' ', "");
                assert_eq!(dense(&rows.concat()), dense(&text));
            }
        }
    }

    #[test]
    fn prose_is_broken_at_words() {
        let text = "  one two three four five six\nseven";
        assert_eq!(wrapped(text, None), text);
        assert_eq!(wrapped(text, Some(80)), text);
        let broken = "  one two three four\n  five six\nseven";
        assert_eq!(wrapped(text, Some(20)), broken);
        let word = "x".repeat(30);
        let text = format!("key {word} of bob");
        assert_eq!(wrapped(&text, Some(20)), format!("key\n{word}\nof bob"));
        let coloured = "\u{1b}[2mone two three four\u{1b}[0m";
        assert_eq!(wrapped(coloured, Some(20)), coloured);
        let coloured = "\u{1b}[1;31m  one two three four five\u{1b}[0m";
        let broken = "\u{1b}[1;31m  one two three four\n  five\u{1b}[0m";
        assert_eq!(wrapped(coloured, Some(20)), broken);
        let wide = "漢字漢字漢字 漢字漢字漢字";
        assert_eq!(wrapped(wide, Some(20)), "漢字漢字漢字\n漢字漢字漢字");
    }
}
