//! The one gate for names of files that come from outside.
//!
//! A [`FileName`] is one plain component: joined to a folder it stays in that folder, on every common
//! system, and it looks like what it is. The gate refuses and never repairs: a file is stored under
//! exactly the name that its sender announced (or, when that is taken, under the same with a number), or
//! under another that its recipient was shown and chose, or not at all, with a reason for both people. So
//! no two names from outside ever become one, and what an offer showed is what is on the disk.
//!
//! Refused are: separators of any system and the characters that look like one; `.`, `..` and
//! everything else that is only dots; names with a leading dot, which would plant a hidden file such
//! as `.bashrc`; control, bidirectional and invisible characters, and joiners where no emoji and no
//! script needs them; drive letters; names that Windows reserves or would change (a trailing dot or
//! space); empty names and those that no common file system holds. Percent-coding is text like any other
//! and is never decoded. Letter case and Unicode normalisation are left to the file system: where it
//! takes two names for one, the later file gets a number.
//!
//! Each name that is refused has a [substitute](FileName::substitute) that passes, for a recipient who wants
//! the file all the same.

use std::borrow::Cow;
use std::fmt;

use common::limits::FILE_NAME_LEN_MAX;
use common::text;

/// A name that passed the gate.
#[derive(Clone, PartialEq, Eq)]
pub struct FileName(String);

impl FileName {
    /// Checks a name from outside.
    ///
    /// # Errors
    ///
    /// Why the name is refused.
    pub fn parse(name: &str) -> Result<Self, NameRefusal> {
        match refusal(name) {
            Some(refusal) => Err(refusal),
            None => Ok(Self(name.to_owned())),
        }
    }

    /// Another name for a file whose own is refused: with an underscore for each separator, control or
    /// invisible character, leading dot and colon of a drive, without dots and blanks at the end, with an
    /// underscore before a device name, and cut if it is too long. What is nothing but dots and blanks
    /// becomes underscores. `None` if nothing is odd about `name`. Two names may have the same substitute.
    pub fn substitute(name: &str) -> Option<Self> {
        refusal(name)?;
        let plain = visible(name);
        let plain = plain.trim_end_matches(is_dot_or_blank);
        let device = if is_reserved(plain) { "_" } else { "" };
        let undotted = plain.trim_start_matches(is_dot);
        let dots = plain.chars().take_while(|c| is_dot(*c)).count();
        let whole = Self(format!("{device}{}{undotted}", "_".repeat(dots)));
        // What cutting leaves may be odd again.
        let made = Self::parse(&whole.fitting());
        Some(made.unwrap_or_else(|_| Self(BLANK.to_owned())))
    }

    /// The name as text, without any folder.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name for the `attempt`-th try to find one that is free: itself, then `name (1).ext` and so
    /// on. Never longer than a file system can hold.
    pub fn numbered(&self, attempt: u32) -> Self {
        if attempt == 0 {
            return self.clone();
        }
        let (stem, extension) = self.split();
        let suffix = format!(" ({attempt})");
        if suffix.len() + extension.len() < FILE_NAME_LEN_MAX {
            let stem = text::beginning(stem, FILE_NAME_LEN_MAX - suffix.len() - extension.len());
            Self(format!("{stem}{suffix}{extension}"))
        } else {
            let stem = text::beginning(&self.0, FILE_NAME_LEN_MAX - suffix.len());
            Self(format!("{stem}{suffix}"))
        }
    }

    /// The name of the `attempt`-th try to create the file in which the bytes arrive.
    pub fn part(&self, attempt: u32) -> String {
        let suffix = match attempt {
            0 => ".part".to_owned(),
            _ => format!(".{attempt}.part"),
        };
        let stem = text::beginning(&self.0, FILE_NAME_LEN_MAX - suffix.len());
        format!("{stem}{suffix}")
    }

    /// As much of it as a file system can hold, with its extension where that leaves room for a stem.
    fn fitting(&self) -> String {
        let (stem, extension) = self.split();
        if self.0.len() <= FILE_NAME_LEN_MAX || extension.len() >= FILE_NAME_LEN_MAX {
            let beginning = text::beginning(&self.0, FILE_NAME_LEN_MAX);
            return beginning.trim_end_matches(is_dot_or_blank).to_owned();
        }
        let stem = text::beginning(stem, FILE_NAME_LEN_MAX - extension.len());
        format!("{stem}{extension}")
    }

    /// Stem and extension with its dot; `.tar.gz` and its kind count as one.
    fn split(&self) -> (&str, &str) {
        let Some(dot) = self.0.rfind('.') else {
            return (&self.0, "");
        };
        let dot = match self.0[..dot].strip_suffix(".tar") {
            Some(stem) if !stem.is_empty() => stem.len(),
            Some(_) | None => dot,
        };
        self.0.split_at(dot)
    }
}

impl fmt::Debug for FileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// Why a name from outside is refused. The texts do not repeat the name, and are for its sender as well
/// as for its recipient.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameRefusal {
    /// Nothing at all.
    #[error("the file has no name")]
    Empty,
    /// More than [`FILE_NAME_LEN_MAX`] bytes.
    #[error("the file's name is longer than {FILE_NAME_LEN_MAX} bytes")]
    TooLong,
    /// A separator, or what looks like one.
    #[error("the file's name holds a path separator, so it could point out of the folder")]
    Separator,
    /// A backslash that does not lead out of the folder even where it is a separator.
    #[error("the file's name holds a backslash, which separates folders on some systems")]
    Backslash,
    /// Nothing but dots.
    #[error("the file's name stands for a folder")]
    Dots,
    /// A leading dot.
    #[error("the file's name starts with a dot, which would hide the file")]
    Hidden,
    /// NUL, escape sequences, bidirectional overrides and the like.
    #[error("the file's name holds control or invisible characters")]
    Control,
    /// `C:` in front.
    #[error("the file's name starts with a drive letter")]
    Drive,
    /// `CON`, `COM1.txt` and so on.
    #[error("the file's name stands for a device on some systems")]
    Reserved,
    /// A trailing dot or blank.
    #[error("the file's name ends with a dot or a blank, which some systems drop")]
    TrailingDotOrBlank,
}

/// The name of a file of whose own nothing can be kept.
const BLANK: &str = "_";

/// The name with underscores for what separates, controls or is not seen, and for the colon of a drive; of
/// nothing but dots and blanks, underscores only.
fn visible(name: &str) -> String {
    if name.is_empty() {
        return BLANK.to_owned();
    }
    let is_nothing = is_only_dots(name);
    let shown = text::inline(name);
    // One for one: what is replaced is what misleads.
    let characters = name.chars().zip(shown.chars());
    let plain = characters.map(|(c, shown)| {
        let is_odd = is_nothing || c != shown || c == '\\' || is_separator(c);
        if is_odd { '_' } else { c }
    });
    let mut plain = String::from_iter(plain);
    if is_drive(&plain) {
        plain.replace_range(1..2, "_");
    }
    plain
}

fn refusal(name: &str) -> Option<NameRefusal> {
    let checks = [
        (name.is_empty(), NameRefusal::Empty),
        (name.len() > FILE_NAME_LEN_MAX, NameRefusal::TooLong),
        (leads_out(name), NameRefusal::Separator),
        (is_only_dots(name), NameRefusal::Dots),
        (name.contains('\\'), NameRefusal::Backslash),
        (is_drive(name), NameRefusal::Drive),
        (has_controls(name), NameRefusal::Control),
        (name.starts_with(is_dot), NameRefusal::Hidden),
        (
            name.ends_with(is_dot_or_blank),
            NameRefusal::TrailingDotOrBlank,
        ),
        (is_reserved(name), NameRefusal::Reserved),
    ];
    checks
        .into_iter()
        .find_map(|(is_hit, refusal)| is_hit.then_some(refusal))
}

/// Tells whether a name holds a separator and may point out of the folder. A backslash between plain
/// components does not: to a system that separates with it they are folders below.
fn leads_out(name: &str) -> bool {
    let by_backslash = || is_drive(name) || name.split('\\').any(is_only_dots);
    name.contains(is_separator) || (name.contains('\\') && by_backslash())
}

/// The separators of all systems, but for the backslash, and the characters that are drawn like a
/// separator or fold to one (Unicode UTS #39 confusables, NFKC).
fn is_separator(c: char) -> bool {
    matches!(
        c,
        '/' | '\u{2044}' // fraction slash
            | '\u{2215}' // division slash
            | '\u{2216}' // set minus
            | '\u{2571}' // box drawings diagonal
            | '\u{2572}'
            | '\u{27cb}' // mathematical rising and falling diagonal
            | '\u{27cd}'
            | '\u{29f5}' // reverse solidus operator
            | '\u{29f6}'
            | '\u{29f8}' // big solidus
            | '\u{29f9}' // big reverse solidus
            | '\u{fe68}' // small reverse solidus
            | '\u{ff0f}' // fullwidth solidus
            | '\u{ff3c}' // fullwidth reverse solidus
    )
}

/// Dots and what folds to dots: one dot leader, two dot leader, ellipsis, small and fullwidth stop.
fn is_dot(c: char) -> bool {
    matches!(c, '.' | '\u{2024}'..='\u{2026}' | '\u{fe52}' | '\u{ff0e}')
}

fn is_only_dots(name: &str) -> bool {
    name.chars().all(is_dot_or_blank)
}

fn is_drive(name: &str) -> bool {
    let mut characters = name.chars();
    characters.next().is_some_and(|c| c.is_ascii_alphabetic()) && characters.next() == Some(':')
}

/// What must not reach a terminal must not reach a disk either: a file name is shown for years.
fn has_controls(name: &str) -> bool {
    matches!(text::inline(name), Cow::Owned(_)) || name.contains(['\u{2028}', '\u{2029}'])
}

fn is_dot_or_blank(c: char) -> bool {
    is_dot(c) || c.is_whitespace()
}

/// Device names of Windows, with any extension and in any letter case.
fn is_reserved(name: &str) -> bool {
    let stem = name.split(['.', ':']).next().unwrap_or(name).trim_end();
    let upper = stem.to_uppercase();
    if matches!(
        upper.as_str(),
        "CON" | "PRN" | "AUX" | "NUL" | "CONIN$" | "CONOUT$" | "CLOCK$"
    ) {
        return true;
    }
    let port = upper
        .strip_prefix("COM")
        .or_else(|| upper.strip_prefix("LPT"));
    port.is_some_and(|port| {
        let mut characters = port.chars();
        let is_digit = |c: char| c.is_ascii_digit() || matches!(c, '\u{b9}' | '\u{b2}' | '\u{b3}');
        characters.next().is_some_and(is_digit) && characters.next().is_none()
    })
}

#[cfg(test)]
mod tests {
    use std::path::{Component, Path};

    use rand::rngs::StdRng;
    use rand::seq::IndexedRandom;
    use rand::{RngExt, SeedableRng};

    use super::*;

    fn refused(name: &str) -> NameRefusal {
        FileName::parse(name).expect_err(name)
    }

    #[test]
    fn t01_a_name_that_leads_elsewhere_is_refused() {
        let hostile = [
            "../x",
            "a/../../x",
            "/abs",
            "a/./../..",
            "a/b",
            "..\\x",
            "\\\\srv\\x",
            "C:\\x",
            "x\u{ff0f}y",
            "..\u{2215}x",
            "a\u{29f8}b",
            "a\u{ff3c}b",
            "a\u{2044}b",
            "a\u{2216}b",
            "a\u{fe68}b",
            "a\u{29f9}b",
        ];
        for name in hostile {
            assert_eq!(refused(name), NameRefusal::Separator, "{name:?}");
        }
        for name in [
            ".",
            "..",
            "...",
            ". .",
            "\u{2024}\u{2024}",
            "\u{ff0e}\u{ff0e}",
            "\u{2025}",
            " ",
        ] {
            assert_eq!(refused(name), NameRefusal::Dots, "{name:?}");
        }
        for name in ["C:x", "c:", "a:b"] {
            assert_eq!(refused(name), NameRefusal::Drive, "{name:?}");
        }
        for name in ["back\\slash.txt", "a\\b\\c"] {
            assert_eq!(refused(name), NameRefusal::Backslash, "{name:?}");
        }
    }

    #[test]
    fn t01_percent_coding_stays_what_it_is() {
        for name in ["%2e%2e%2fx", "%2F", "a%00b", "%5c"] {
            assert_eq!(FileName::parse(name).unwrap().as_str(), name);
        }
    }

    #[test]
    fn t04_a_name_that_hides_its_file_is_refused() {
        for name in [
            ".bashrc",
            ".ssh",
            "..x",
            ".a.b",
            "\u{2024}profile",
            "\u{ff0e}netrc",
        ] {
            assert_eq!(refused(name), NameRefusal::Hidden, "{name:?}");
        }
    }

    #[test]
    fn t05_a_name_with_controls_is_refused() {
        let hostile = [
            "a\u{1b}[31mb",
            "a\u{1b}]52;c;eA==\u{7}",
            "a\rb",
            "a\nb",
            "a\u{202e}fdp.exe",
            "a\u{200d}b",
            "a\u{200b}b",
            "a\u{9b}b",
            "a\u{7f}",
            "a\u{feff}b",
            "a\u{2066}b",
            "a\u{ad}b",
        ];
        for name in hostile {
            assert_eq!(refused(name), NameRefusal::Control, "{name:?}");
        }
        assert_eq!(FileName::parse("<b>&amp;").unwrap().as_str(), "<b>&amp;");
    }

    #[test]
    fn t07_a_name_that_another_system_would_change_is_refused() {
        assert_eq!(refused("a\0b"), NameRefusal::Control);
        let reserved = [
            "CON",
            "con.txt",
            "COM1",
            "com1.tar.gz",
            "COM1 .txt",
            "NUL.",
            "LPT9",
            "aux",
            "COM\u{b9}",
            "CONIN$",
            "nul:x",
        ];
        for name in reserved {
            let refusal = refused(name);
            let expected = [NameRefusal::Reserved, NameRefusal::TrailingDotOrBlank];
            assert!(expected.contains(&refusal), "{name:?}: {refusal:?}");
        }
        for name in [
            "COM1 ",
            "a.",
            "a ",
            "a\u{a0}",
            "a\u{3000}",
            "a..",
            "a\u{2026}",
        ] {
            assert_eq!(refused(name), NameRefusal::TrailingDotOrBlank, "{name:?}");
        }
        for name in ["ab:c", "COM10", "console", "com", "10:30.png", "aux-in.wav"] {
            assert_eq!(FileName::parse(name).unwrap().as_str(), name);
        }
    }

    #[test]
    fn t08_the_longest_name_passes_and_one_more_does_not() {
        assert_eq!(refused(""), NameRefusal::Empty);
        assert!(FileName::parse(&"x".repeat(255)).is_ok());
        assert_eq!(refused(&"x".repeat(256)), NameRefusal::TooLong);
        assert_eq!(refused(&"ä".repeat(128)), NameRefusal::TooLong);
        assert_eq!(refused(&"x/".repeat(2048)), NameRefusal::TooLong);
    }

    #[test]
    fn t08_both_normal_forms_and_both_cases_keep_their_bytes() {
        for name in [
            "\u{e9}.txt",
            "e\u{301}.txt",
            "A.TXT",
            "a.txt",
            "你好",
            "ראש",
            "👍.png",
        ] {
            assert_eq!(FileName::parse(name).unwrap().as_str(), name);
        }
    }

    #[test]
    fn t08_numbers_go_before_the_extension_and_never_make_a_name_too_long() {
        let numbered = |name: &str, attempt| FileName::parse(name).unwrap().numbered(attempt).0;
        assert_eq!(numbered("a.txt", 0), "a.txt");
        assert_eq!(numbered("a.txt", 2), "a (2).txt");
        assert_eq!(numbered("a.tar.gz", 1), "a (1).tar.gz");
        assert_eq!(numbered("tar.gz", 1), "tar (1).gz");
        assert_eq!(numbered("a", 10), "a (10)");
        let long = format!("{}.txt", "ä".repeat(125));
        assert!(numbered(&long, 999).ends_with("ä (999).txt"));
        for name in [long, "x".repeat(255), format!("a.{}", "x".repeat(253))] {
            let name = FileName::parse(&name).unwrap();
            assert!((0..1000).all(|attempt| name.numbered(attempt).0.len() <= 255));
            assert!((0..1000).all(|attempt| name.part(attempt).len() <= 255));
        }
    }

    #[test]
    fn a_name_that_is_only_odd_has_a_substitute() {
        for (name, substitute) in [
            (".hidden", "_hidden"),
            ("..x", "__x"),
            ("con.txt", "_con.txt"),
            ("a:b.txt", "a_b.txt"),
            ("back\\slash.txt", "back_slash.txt"),
            ("trailing.", "trailing"),
            ("trailing . ", "trailing"),
            ("a\\b:c", "a_b:c"),
            ("nul.", "_nul"),
            (".a\\con. ", "_a_con"),
            ("می\u{200c}خواهم.", "می\u{200c}خواهم"),
        ] {
            let odd = FileName::substitute(name).unwrap();
            assert_eq!(odd.as_str(), substitute, "{name:?}");
        }
        assert_eq!(FileName::substitute("letter.txt"), None, "nothing is odd");
    }

    #[test]
    fn t01_t05_what_leads_elsewhere_or_deceives_has_a_harmless_substitute() {
        let long = "x".repeat(300);
        for (name, substitute) in [
            ("", "_"),
            (" ", "_"),
            (".", "_"),
            ("..", "__"),
            ("...", "___"),
            ("\u{2025}", "_"),
            ("a/b", "a_b"),
            ("/abs", "_abs"),
            ("../x", "___x"),
            ("..\\x", "___x"),
            ("a\\..\\..\\x", "a_.._.._x"),
            ("x\\", "x_"),
            ("\\\\srv\\x", "__srv_x"),
            ("C:\\x", "C__x"),
            ("x\u{ff0f}y", "x_y"),
            ("a\u{2215}b\\c", "a_b_c"),
            (".a\0b", "_a_b"),
            ("line\nfeed", "line_feed"),
            (".\u{1b}[2J", "__[2J"),
            (".gnp\u{202e}exe", "_gnp_exe"),
            ("a\\pay\u{200d}pal", "a_pay_pal"),
            ("می\u{200c}.", "می_"),
            ("con\u{200b}.txt", "con_.txt"),
            ("\u{1b}.", "_"),
            (&format!(".{long}"), &format!("_{}", &long[..254])),
            (&format!("{long}.txt"), &format!("{}.txt", &long[..251])),
            (&format!("a.{long}"), &format!("a.{}", &long[..253])),
            (
                &format!("con.{}", &long[..251]),
                &format!("_co.{}", &long[..251]),
            ),
            (&format!("con{}{long}", " ".repeat(300)), "_"),
        ] {
            assert!(FileName::parse(name).is_err(), "{name:?}");
            let made = FileName::substitute(name).unwrap();
            assert_eq!(made.as_str(), substitute, "{name:?}");
            assert_eq!(FileName::parse(substitute).as_ref(), Ok(&made));
        }
    }

    #[test]
    fn names_in_peoples_own_scripts_keep_their_bytes() {
        for name in [
            "👨\u{200d}👩\u{200d}👧\u{200d}👦.png",
            "🏳\u{fe0f}\u{200d}🌈",
            "می\u{200c}خواهم.txt",
            "ශ්\u{200d}රී ලංකා.pdf",
            "क्\u{200c}ष",
            "❤\u{fe0f}.txt",
        ] {
            assert_eq!(FileName::parse(name).unwrap().as_str(), name);
        }
        for name in [
            "pay\u{200d}pal",
            "👩\u{200d}.png",
            "می\u{200c}.txt",
            "x\u{200c}y",
        ] {
            assert_eq!(refused(name), NameRefusal::Control, "{name:?}");
        }
    }

    #[test]
    fn t08_a_name_that_is_cut_for_a_number_loses_whole_characters() {
        let family = "👨\u{200d}👩\u{200d}👧\u{200d}👦";
        for (unit, count) in [(family, 10), ("क्\u{200d}ष", 20), ("e\u{301}", 84)] {
            // Letters in front move the place for the cut through the unit.
            for front in ["", "x", "xx", "xxx"] {
                let name = FileName::parse(&format!("{front}{}", unit.repeat(count))).unwrap();
                for attempt in [1, 10, 100, 1000, 10_000] {
                    let suffix = format!(" ({attempt})");
                    let numbered = name.numbered(attempt).0;
                    let part = name.part(attempt);
                    for (made, suffix) in [(numbered, suffix), (part, format!(".{attempt}.part"))] {
                        assert!((200..=255).contains(&made.len()), "{made:?}");
                        let stem = made.strip_suffix(&suffix).unwrap();
                        let units = stem.strip_prefix(front).unwrap();
                        assert_eq!(units.replace(unit, ""), "", "{made:?}");
                    }
                }
            }
        }
        // A joiner at the cut would join nothing, and the name would not pass the gate again.
        let persian = FileName::parse(&"می\u{200c}خ".repeat(28)).unwrap();
        for attempt in 1..2000 {
            let numbered = persian.numbered(attempt);
            assert_eq!(FileName::parse(&numbered.0).as_ref(), Ok(&numbered));
        }
        // One character that is longer than a name is cut all the same, and nothing is hidden.
        let marks = format!("e{}", "\u{301}".repeat(127));
        let name = FileName::parse(&marks).unwrap();
        assert!(name.part(0).starts_with("e\u{301}"));
        assert_eq!(
            name.numbered(1).0,
            format!("e{} (1)", "\u{301}".repeat(125))
        );
    }

    /// Names put together at random from hostile pieces either pass and then are one plain component
    /// that shows as it is, or are refused and have a substitute of which that is true.
    #[test]
    fn t01_t05_t07_t08_whatever_passes_is_one_plain_component() {
        let pieces = [
            "..",
            ".",
            "/",
            "\\",
            "a",
            "etc",
            "\u{2215}",
            "\u{ff0f}",
            "\u{29f8}",
            "\u{ff3c}",
            "%2f",
            "C:",
            "CON",
            "COM1",
            " ",
            "\0",
            "\u{1b}[2J",
            "\u{202e}",
            "\u{200d}",
            "\u{200c}",
            "👩\u{200d}👧",
            "ی\u{200c}خ",
            "\r",
            "é",
            "e\u{301}",
            "\u{2024}",
            ".ssh",
            "x.txt",
            ":",
            "\u{a0}",
            "~",
            "-rf",
            "$HOME",
            "ä",
        ];
        let seed = 0x5eed;
        let mut random = StdRng::seed_from_u64(seed);
        let mut passed = 0;
        for round in 0..100_000 {
            let count = random.random_range(1..7);
            let name: String = (0..count)
                .map(|_| *pieces.choose(&mut random).unwrap())
                .collect();
            let substitute = FileName::substitute(&name);
            let accepted = match FileName::parse(&name) {
                Ok(accepted) => {
                    assert_eq!(substitute, None, "nothing is odd about {name:?}");
                    assert!(
                        !name.contains(['/', '\0', '\u{1b}', '\u{202e}']),
                        "{name:?}"
                    );
                    passed += 1;
                    accepted
                }
                Err(_) => substitute.expect("whatever is refused has a substitute"),
            };
            let again = FileName::parse(accepted.as_str());
            assert_eq!(again.as_ref(), Ok(&accepted), "{name:?}");
            for attempt in 0..3 {
                for name in [accepted.numbered(attempt).0, accepted.part(attempt)] {
                    let components: Vec<_> = Path::new(&name).components().collect();
                    assert!(
                        matches!(components[..], [Component::Normal(only)] if only == name.as_str()),
                        "seed {seed:#x} round {round}: {name:?}"
                    );
                    assert!(!name.starts_with('.') && name.len() <= 255);
                    assert_eq!(text::inline(&name), name);
                }
            }
        }
        assert!(
            passed > 1000,
            "{passed} passed: the test does not reach what it is for"
        );
    }
}
