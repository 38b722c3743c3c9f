//! What a line that was typed means.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use common::id::{AccountName, NameError};
use common::limits::HISTORY_ITEMS_MAX;
use common::text::inline;

use super::slash::{Operand, Slash};
use crate::shell::names::{FileName, NameRefusal};

/// Messages that `/history` shows unless told otherwise.
const HISTORY_DEFAULT: u32 = 20;
/// The most that `/history` shows.
const HISTORY_MAX: u32 = HISTORY_ITEMS_MAX;

/// A line, understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Entry {
    /// An empty line.
    Nothing,
    /// A text for whomever one talks to.
    Say(String),
    /// A text for whomever one talks to, or for somebody who has not been seen.
    Ambiguous {
        /// The name in front of the colon.
        name: AccountName,
        /// The whole line.
        text: String,
    },
    /// A text for the accounts in front of the colon, at least one.
    SayTo(Vec<AccountName>, String),
    /// Talk to somebody else from now on.
    To(AccountName),
    /// Show who is online.
    List,
    /// Show so many earlier messages, at least one.
    History(u32),
    /// Offer a file. The path is as it was typed, perhaps relative to where the program runs.
    SendFile(AccountName, PathBuf),
    /// Answer an offer.
    Answer {
        /// The number that the offer was shown with; `None` for the latest.
        number: Option<usize>,
        is_accepted: bool,
        /// What to call the file instead of its own name.
        name: Option<FileName>,
    },
    /// End a transfer.
    Cancel {
        /// The number that it was shown with; `None` for the only one.
        number: Option<usize>,
    },
    /// Show messages that wait.
    Outbox,
    /// Show the connection and what is under way.
    Status,
    /// Show what can be typed.
    Help,
    /// End the conversation.
    Quit,
}

/// A line that cannot be understood. Fit for a terminal.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Mistake {
    #[error(
        "There is no /{0}. /help tells what there is; //text sends a text with a slash in front."
    )]
    Unknown(String),
    #[error("There is no text behind '{0}'. A text for them: '{0} text'.")]
    NoText(String),
    #[error("/{} takes nothing behind it. /help tells more.", .0.name())]
    Surplus(Slash),
    #[error("It is {}: {error}.", slash.usage())]
    Name { slash: Slash, error: NameError },
    #[error("It is {}, for example: /{} bob holiday.mp4", .0.usage(), .0.name())]
    NoPath(Slash),
    #[error("/{} takes a number from 1 to {HISTORY_MAX}.", .0.name())]
    Count(Slash),
    #[error("Give the number of the {what}, for example: /{} 1", slash.name())]
    Number { what: &'static str, slash: Slash },
    #[error("Give the name to take it under, for example: {}", renaming(*.number))]
    NoFileName { number: Option<usize> },
    #[error(
        "No file is taken under that name: {refusal}. For example: {}",
        renaming(*.number)
    )]
    FileName {
        number: Option<usize>,
        refusal: NameRefusal,
    },
}

impl Entry {
    /// Understands a line. `NAME: text` goes to NAME. While one `is_talking` to somebody it is ambiguous
    /// unless NAME is `known`: sentences may have a colon too, and neither may go to the wrong person.
    /// `home` is what `~` stands for in a path.
    pub(crate) fn parse(
        line: &str,
        is_talking: bool,
        known: &BTreeSet<AccountName>,
        home: Option<&Path>,
    ) -> Result<Self, Mistake> {
        // A blank at the end of a path is a part of it, if a backslash says so.
        let whole = line.trim_start();
        let line = whole.trim_end();
        if line.is_empty() {
            return Ok(Self::Nothing);
        }
        if line == "quit" {
            return Ok(Self::Quit);
        }
        if let Some(text) = line.strip_prefix("//") {
            return Ok(Self::Say(format!("/{text}")));
        }
        if let Some(command) = whole.strip_prefix('/') {
            return Self::parse_command(command, home);
        }
        let Some((to, text)) = addressed(line) else {
            return match only_names(line, known) {
                Some(names) => Err(Mistake::NoText(names)),
                None => Ok(Self::Say(line.to_owned())),
            };
        };
        match to.iter().find(|name| !known.contains(name)) {
            Some(stranger) if is_talking => Ok(Self::Ambiguous {
                name: stranger.clone(),
                text: line.to_owned(),
            }),
            Some(_) | None => Ok(Self::SayTo(to, text.to_owned())),
        }
    }

    fn parse_command(command: &str, home: Option<&Path>) -> Result<Self, Mistake> {
        let (word, operand) = command.split_once(' ').unwrap_or((command, ""));
        let word = word.trim_end();
        let operand = operand.trim_start();
        let rest = operand.trim_end();
        let Some(slash) = Slash::parse(word) else {
            return Err(Mistake::Unknown(inline(word).into_owned()));
        };
        if slash.operand() == Operand::Nothing && !rest.is_empty() {
            return Err(Mistake::Surplus(slash));
        }
        let name = |text: &str| text.parse().map_err(|error| Mistake::Name { slash, error });
        match slash {
            Slash::To => name(rest).map(Self::To),
            Slash::List => Ok(Self::List),
            Slash::History if rest.is_empty() => Ok(Self::History(HISTORY_DEFAULT)),
            Slash::History => match rest.parse() {
                Ok(count @ 1..=HISTORY_MAX) => Ok(Self::History(count)),
                Ok(_) | Err(_) => Err(Mistake::Count(slash)),
            },
            Slash::SendFile => {
                let (to, path) = operand.split_once(' ').ok_or(Mistake::NoPath(slash))?;
                let path = trimmed(path);
                if path.is_empty() {
                    return Err(Mistake::NoPath(slash));
                }
                Ok(Self::SendFile(name(to)?, path_of(path, home)))
            }
            Slash::Accept => {
                let (number, name) = renamed(rest);
                let number = number_of(number, "offer", slash)?;
                Ok(Self::Answer {
                    number,
                    is_accepted: true,
                    name: name.map(|name| file_name(name, number)).transpose()?,
                })
            }
            Slash::Decline => Ok(Self::Answer {
                number: number_of(rest, "offer", slash)?,
                is_accepted: false,
                name: None,
            }),
            Slash::Cancel => Ok(Self::Cancel {
                number: number_of(rest, "transfer", slash)?,
            }),
            Slash::Outbox => Ok(Self::Outbox),
            Slash::Status => Ok(Self::Status),
            Slash::Help => Ok(Self::Help),
            Slash::Quit => Ok(Self::Quit),
        }
    }
}

/// `N as NAME`, each part of which may be missing: the number's text and the name.
fn renamed(text: &str) -> (&str, Option<&str>) {
    let (number, name) = match text.strip_prefix("as ") {
        Some(name) => ("", Some(name)),
        None if text == "as" => ("", Some("")),
        None => match text.split_once(" as ") {
            Some((number, name)) => (number, Some(name)),
            None => match text.strip_suffix(" as") {
                Some(number) => (number, Some("")),
                None => (text, None),
            },
        },
    };
    (number.trim_end(), name.map(str::trim_start))
}

/// The name to take the offer of that number under.
fn file_name(name: &str, number: Option<usize>) -> Result<FileName, Mistake> {
    if name.is_empty() {
        return Err(Mistake::NoFileName { number });
    }
    FileName::parse(name).map_err(|refusal| Mistake::FileName { number, refusal })
}

/// How the offer of that number is taken under another name.
fn renaming(number: Option<usize>) -> String {
    let number = number.map_or(String::new(), |number| format!(" {number}"));
    format!("/{}{number} as letter.txt", Slash::Accept.name())
}

/// The number of an offer or a transfer, if there is one.
fn number_of(text: &str, what: &'static str, slash: Slash) -> Result<Option<usize>, Mistake> {
    let number = (!text.is_empty()).then(|| text.parse()).transpose();
    number.map_err(|_| Mistake::Number { what, slash })
}

/// What is typed of a path, without the blanks around it. One behind a backslash is a part of it.
fn trimmed(text: &str) -> &str {
    let text = text.trim_start();
    let path = text.trim_end();
    let backslashes = path.chars().rev().take_while(|c| *c == '\\').count();
    let blank = text[path.len()..].chars().next();
    let escaped = blank.filter(|_| backslashes % 2 == 1);
    &text[..path.len() + escaped.map_or(0, char::len_utf8)]
}

/// A path as it is typed in a shell: quotes around it, backslashes before what a shell takes for something
/// else, `~/` in front.
fn path_of(text: &str, home: Option<&Path>) -> PathBuf {
    let quoted = |quote: char| text.strip_prefix(quote)?.strip_suffix(quote);
    let text = match quoted('\'').or_else(|| quoted('"')) {
        Some(inner) => inner.to_owned(),
        None => unescaped(text),
    };
    match (text.strip_prefix("~/"), home) {
        (Some(rest), Some(home)) => home.join(rest),
        _ => PathBuf::from(text),
    }
}

/// Without the backslashes that completion puts before characters. Others stay.
fn unescaped(text: &str) -> String {
    const ESCAPED: &str = " \t\n\"\\'`@$><=;|&{(";
    let mut plain = String::with_capacity(text.len());
    let mut characters = text.chars().peekable();
    while let Some(c) = characters.next() {
        let escaped = characters.next_if(|next| c == '\\' && ESCAPED.contains(*next));
        plain.push(escaped.unwrap_or(c));
    }
    plain
}

/// The names of a line that has nothing but names of people who are known, and the colon.
fn only_names(line: &str, known: &BTreeSet<AccountName>) -> Option<String> {
    let with_text = format!("{line} text");
    let (to, _) = addressed(&with_text)?;
    let is_bare = line.ends_with(':') && to.iter().all(|name| known.contains(name));
    is_bare.then(|| inline(line).into_owned())
}

/// `NAME: text` or `NAME,NAME: text`.
fn addressed(line: &str) -> Option<(Vec<AccountName>, &str)> {
    let (names, text) = line.split_once(": ")?;
    let names = names.split(',').map(|name| name.trim().parse());
    let names: Vec<AccountName> = names.collect::<Result<_, _>>().ok()?;
    let text = text.trim();
    (!text.is_empty()).then_some((names, text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name_of(text: &str) -> AccountName {
        text.parse().unwrap()
    }

    fn parse(line: &str, is_talking: bool) -> Result<Entry, Mistake> {
        Entry::parse(
            line,
            is_talking,
            &BTreeSet::from([name_of("bob"), name_of("carol")]),
            Some(Path::new("/home/alice")),
        )
    }

    #[test]
    fn a_name_without_a_text_is_no_text() {
        for (line, is_it) in [
            ("carol:", true),
            ("bob, carol: ", true),
            ("dora:", false),
            ("carol", false),
            ("as follows:", false),
            ("bob: carol:", false),
        ] {
            let no_text = matches!(parse(line, true), Err(Mistake::NoText(_)));
            assert_eq!(no_text, is_it, "{line}");
        }
    }

    #[test]
    fn a_text_goes_to_whom_it_names() {
        let to = |names: &[&str], text: &str| {
            let names = names.iter().map(|name| name_of(name)).collect();
            Ok(Entry::SayTo(names, text.to_owned()))
        };
        assert_eq!(parse("Bob: hi", true), to(&["bob"], "hi"));
        assert_eq!(
            parse("carol, bob: hi: you", true),
            to(&["carol", "bob"], "hi: you")
        );
        assert_eq!(parse("stranger: hi", false), to(&["stranger"], "hi"));
    }

    #[test]
    fn a_sentence_with_a_colon_stays_in_the_conversation() {
        for line in ["see http://a/b", "And then: go", "10:30 is fine"] {
            let said = Ok(Entry::Say(line.trim().to_owned()));
            assert_eq!(parse(line, true), said, "{line}");
        }
        for (line, name) in [("Remember: call mum", "remember"), ("bob,dave: x", "dave")] {
            let ambiguous = Entry::Ambiguous {
                name: name_of(name),
                text: line.to_owned(),
            };
            assert_eq!(parse(line, true), Ok(ambiguous), "{line}");
        }
    }

    #[test]
    fn commands_start_with_a_slash() {
        assert_eq!(parse("", true), Ok(Entry::Nothing));
        for line in ["/quit", "/q", "quit", " /exit "] {
            assert_eq!(parse(line, true), Ok(Entry::Quit), "{line}");
        }
        assert_eq!(
            parse("//etc/passwd", true),
            Ok(Entry::Say("/etc/passwd".into()))
        );
        assert_eq!(parse("/to Bob", false), Ok(Entry::To(name_of("bob"))));
        assert_eq!(parse("/history 5", true), Ok(Entry::History(5)));
        for (line, number) in [("/cancel", None), ("/cancel 3", Some(3))] {
            assert_eq!(parse(line, true), Ok(Entry::Cancel { number }), "{line}");
        }
        assert_eq!(parse("/outbox", true), Ok(Entry::Outbox));
        assert_eq!(parse("/status", true), Ok(Entry::Status));
        let accept = |number| Entry::Answer {
            number,
            is_accepted: true,
            name: None,
        };
        assert_eq!(parse("/accept", true), Ok(accept(None)));
        assert_eq!(parse("/accept 2", true), Ok(accept(Some(2))));
        assert_eq!(
            parse("/send-file bob 'my file.txt'", true),
            Ok(Entry::SendFile(name_of("bob"), "my file.txt".into()))
        );
        assert_eq!(
            parse("/send-file bob my\\ file.txt", true),
            Ok(Entry::SendFile(name_of("bob"), "my file.txt".into()))
        );
        for bad in [
            "/nonsense",
            "/to",
            "/to b/b",
            "/quit now",
            "/history 0",
            "/send-file bob",
            "/accept x",
            "/accept as",
            "/accept x as y",
            "/decline 1 as y",
        ] {
            assert!(parse(bad, true).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_file_is_accepted_under_a_name_of_ones_own() {
        let accept = |number, name: &str| Entry::Answer {
            number,
            is_accepted: true,
            name: Some(FileName::parse(name).unwrap()),
        };
        for (line, entry) in [
            ("/accept 4 as _hidden", accept(Some(4), "_hidden")),
            ("/accept as my file.txt ", accept(None, "my file.txt")),
            ("/accept 4 as as is.txt", accept(Some(4), "as is.txt")),
        ] {
            assert_eq!(parse(line, true), Ok(entry), "{line}");
        }
        for (line, refusal) in [
            ("/accept 4 as ../x", NameRefusal::Separator),
            ("/accept 4 as .hidden", NameRefusal::Hidden),
            ("/accept as gnp\u{202e}exe", NameRefusal::Control),
        ] {
            let Err(Mistake::FileName { refusal: told, .. }) = parse(line, true) else {
                panic!("{line}");
            };
            assert_eq!(told, refusal, "{line}");
        }
    }

    #[test]
    fn what_is_escaped_is_a_part_of_a_path() {
        for (typed, path) in [
            (r"f/trail\ space\ ", "f/trail space "),
            (r"f/trail\ space\   ", "f/trail space "),
            (r"f/back\\ ", r"f/back\"),
            (r" f/plain.txt ", "f/plain.txt"),
            (r"a\(b)\'s\$.txt", "a(b)'s$.txt"),
            (r"a\b.txt", r"a\b.txt"),
            ("'in quotes '", "in quotes "),
        ] {
            let sent = Ok(Entry::SendFile(name_of("bob"), path.into()));
            assert_eq!(parse(&format!("/send-file bob {typed}"), true), sent);
        }
        assert!(parse("/send-file bob  ", true).is_err());
        assert_eq!(parse("/quit ", true), Ok(Entry::Quit));
    }

    #[test]
    fn a_tilde_is_the_home_folder() {
        let sent = |path: &str| Ok(Entry::SendFile(name_of("bob"), path.into()));
        let home = parse("/send-file bob ~/a.txt", true);
        assert_eq!(home, sent("/home/alice/a.txt"));
        assert_eq!(parse("/send-file bob ~a.txt", true), sent("~a.txt"));
        let known = BTreeSet::new();
        let nowhere = Entry::parse("/send-file bob ~/a.txt", true, &known, None);
        assert_eq!(nowhere, sent("~/a.txt"));
    }

    #[test]
    fn a_mistake_says_what_is_understood() {
        for (line, told) in [
            (
                "/quit now",
                "/quit takes nothing behind it. /help tells more.",
            ),
            ("/history 10001", "/history takes a number from 1 to 10000."),
            (
                "/decline x",
                "Give the number of the offer, for example: /decline 1",
            ),
            (
                "/cancel x",
                "Give the number of the transfer, for example: /cancel 1",
            ),
            (
                "/send-file bob",
                "It is /send-file NAME PATH, for example: /send-file bob holiday.mp4",
            ),
            (
                "/accept 4 as",
                "Give the name to take it under, for example: /accept 4 as letter.txt",
            ),
            (
                "/accept as",
                "Give the name to take it under, for example: /accept as letter.txt",
            ),
            (
                "/accept x as",
                "Give the number of the offer, for example: /accept 1",
            ),
            (
                "/accept 2 as .hidden",
                "No file is taken under that name: the file's name starts with a dot, which would hide the file. For example: /accept 2 as letter.txt",
            ),
            (
                "/\u{1b}[2J",
                "There is no /␛[2J. /help tells what there is; //text sends a text with a slash in front.",
            ),
        ] {
            assert_eq!(parse(line, true).unwrap_err().to_string(), told);
        }
        let nobody = parse("/to", true).unwrap_err().to_string();
        assert!(
            nobody.starts_with("It is /to NAME: an account name has"),
            "{nobody}"
        );
    }
}
