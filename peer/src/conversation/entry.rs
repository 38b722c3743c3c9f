//! What a line that was typed means.

use std::collections::BTreeSet;
use std::path::PathBuf;

use common::id::AccountName;

/// Messages that `/history` shows unless told otherwise.
const HISTORY_DEFAULT: u32 = 20;
/// The most that `/history` shows.
const HISTORY_MAX: u32 = 10_000;

/// A line, understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Input {
    /// An empty line.
    Nothing,
    /// Leave.
    Quit,
    /// Tell what can be typed.
    Help,
    /// A text for the current conversation.
    Say(String),
    /// A text for the current conversation, unless it was meant for somebody who has not been seen.
    Doubtful {
        /// Who that may be.
        name: AccountName,
        /// The whole line.
        text: String,
    },
    /// A text for these.
    SayTo(Vec<AccountName>, String),
    /// Talk to somebody else from now on.
    To(AccountName),
    /// Who is online.
    List,
    /// So many earlier messages.
    History(u32),
    /// Send a file.
    SendFile(AccountName, PathBuf),
    /// Answer an offer; the latest one without a number.
    Answer {
        /// Which.
        number: Option<usize>,
        /// Yes or no.
        is_accepted: bool,
    },
}

impl Input {
    /// Understands a line. `NAME: text` goes to NAME. Within a conversation it is doubtful unless NAME
    /// is `known`: sentences may have a colon too, and neither may go to the wrong person. The error
    /// says what is wrong.
    pub(crate) fn parse(
        line: &str,
        is_talking: bool,
        known: &BTreeSet<AccountName>,
    ) -> Result<Self, String> {
        let line = line.trim();
        if line.is_empty() {
            return Ok(Self::Nothing);
        }
        if line == "quit" {
            return Ok(Self::Quit);
        }
        if let Some(text) = line.strip_prefix("//") {
            return Ok(Self::Say(format!("/{text}")));
        }
        if let Some(command) = line.strip_prefix('/') {
            return Self::parse_command(command);
        }
        let Some((to, text)) = addressed(line) else {
            return Ok(Self::Say(line.to_owned()));
        };
        match to.iter().find(|name| !known.contains(name)) {
            Some(stranger) if is_talking => Ok(Self::Doubtful {
                name: stranger.clone(),
                text: line.to_owned(),
            }),
            Some(_) | None => Ok(Self::SayTo(to, text.to_owned())),
        }
    }

    fn parse_command(command: &str) -> Result<Self, String> {
        let (word, rest) = command.split_once(' ').unwrap_or((command, ""));
        let rest = rest.trim();
        let unexpected = || {
            Err(format!(
                "/{word} takes nothing behind it. /help tells more."
            ))
        };
        match word {
            "q" | "quit" | "exit" if rest.is_empty() => Ok(Self::Quit),
            "help" | "?" if rest.is_empty() => Ok(Self::Help),
            "list" | "who" if rest.is_empty() => Ok(Self::List),
            "q" | "quit" | "exit" | "help" | "?" | "list" | "who" => unexpected(),
            "to" => name(rest, "/to NAME").map(Self::To),
            "history" if rest.is_empty() => Ok(Self::History(HISTORY_DEFAULT)),
            "history" => match rest.parse() {
                Ok(count @ 1..=HISTORY_MAX) => Ok(Self::History(count)),
                Ok(_) | Err(_) => Err(format!("/history takes a number from 1 to {HISTORY_MAX}.")),
            },
            "send-file" => {
                let (to, path) = rest
                    .split_once(' ')
                    .ok_or("It is /send-file NAME PATH, for example: /send-file bob holiday.mp4")?;
                let to = name(to, "/send-file NAME PATH")?;
                Ok(Self::SendFile(to, path_of(path.trim())))
            }
            "accept" => Self::answer(rest, true),
            "decline" => Self::answer(rest, false),
            _ => Err(format!(
                "There is no /{}. /help tells what there is; //text sends a text with a slash in front.",
                common::text::inline(word)
            )),
        }
    }

    fn answer(number: &str, is_accepted: bool) -> Result<Self, String> {
        let number =
            match number {
                "" => None,
                digits => Some(digits.parse().map_err(|_| {
                    "Give the number of the offer, for example: /accept 1".to_owned()
                })?),
            };
        Ok(Self::Answer {
            number,
            is_accepted,
        })
    }
}

fn name(text: &str, usage: &str) -> Result<AccountName, String> {
    let parsed = text.parse::<AccountName>();
    parsed.map_err(|error| format!("It is {usage}: {error}."))
}

/// A path as it is typed in a shell: quotes around it, backslashes before spaces, `~` in front.
fn path_of(text: &str) -> PathBuf {
    let quoted = |quote: char| text.strip_prefix(quote)?.strip_suffix(quote);
    let text = match quoted('\'').or_else(|| quoted('"')) {
        Some(inner) => inner.to_owned(),
        None => text.replace("\\ ", " "),
    };
    match (text.strip_prefix("~/"), directories::BaseDirs::new()) {
        (Some(rest), Some(base)) => base.home_dir().join(rest),
        _ => PathBuf::from(text),
    }
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

    fn parse(line: &str, is_talking: bool) -> Result<Input, String> {
        Input::parse(
            line,
            is_talking,
            &BTreeSet::from([name_of("bob"), name_of("carol")]),
        )
    }

    #[test]
    fn a_text_goes_to_whom_it_names() {
        let to = |names: &[&str], text: &str| {
            let names = names.iter().map(|name| name_of(name)).collect();
            Ok(Input::SayTo(names, text.to_owned()))
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
        for line in [
            "see http://a/b",
            "bob:",
            "bob: ",
            "And then: go",
            "10:30 is fine",
        ] {
            let said = Ok(Input::Say(line.trim().to_owned()));
            assert_eq!(parse(line, true), said, "{line}");
        }
        for (line, name) in [("Remember: call mum", "remember"), ("bob,dave: x", "dave")] {
            let doubtful = Input::Doubtful {
                name: name_of(name),
                text: line.to_owned(),
            };
            assert_eq!(parse(line, true), Ok(doubtful), "{line}");
        }
    }

    #[test]
    fn commands_start_with_a_slash() {
        assert_eq!(parse("", true), Ok(Input::Nothing));
        for line in ["/quit", "/q", "quit", " /exit "] {
            assert_eq!(parse(line, true), Ok(Input::Quit), "{line}");
        }
        assert_eq!(
            parse("//etc/passwd", true),
            Ok(Input::Say("/etc/passwd".into()))
        );
        assert_eq!(parse("/to Bob", false), Ok(Input::To(name_of("bob"))));
        assert_eq!(parse("/history 5", true), Ok(Input::History(5)));
        let accept = |number| Input::Answer {
            number,
            is_accepted: true,
        };
        assert_eq!(parse("/accept", true), Ok(accept(None)));
        assert_eq!(parse("/accept 2", true), Ok(accept(Some(2))));
        assert_eq!(
            parse("/send-file bob 'my file.txt'", true),
            Ok(Input::SendFile(name_of("bob"), "my file.txt".into()))
        );
        assert_eq!(
            parse("/send-file bob my\\ file.txt", true),
            Ok(Input::SendFile(name_of("bob"), "my file.txt".into()))
        );
        for bad in [
            "/nonsense",
            "/to",
            "/to b/b",
            "/quit now",
            "/history 0",
            "/send-file bob",
            "/accept x",
        ] {
            assert!(parse(bad, true).is_err(), "{bad}");
        }
    }
}
