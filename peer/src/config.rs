//! What the arguments mean.

use std::collections::BTreeSet;
use std::net::Ipv6Addr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use common::id::{AccountName, NameError};
use common::text::joined;
use directories::{BaseDirs, ProjectDirs};

use crate::conversation::recipients::each_once;
use crate::shell::ServerAddress;

/// The server's port unless another is given.
pub(crate) const DEFAULT_PORT: u16 = 7400;
/// How long the process that owns a profile may take to open its socket.
pub(crate) const ATTACH_TIMEOUT: Duration = Duration::from_secs(2);
/// How long to wait for the server before a command gives up.
pub(crate) const READY_TIMEOUT: Duration = Duration::from_secs(12);
/// How long to wait before a server that is away is asked about again.
pub(crate) const RECONNECT_PAUSE: Duration = Duration::from_millis(250);
/// How long a log-in may take, with stretching the password on a slow machine.
pub(crate) const LOGIN_CALL_TIMEOUT: Duration = Duration::from_secs(60);
/// How long any other command may take.
pub(crate) const CALL_TIMEOUT: Duration = Duration::from_secs(30);

/// Reads `HOST`, `HOST:PORT`, `[IPV6]:PORT` or a bare IPv6 address.
///
/// # Errors
///
/// If the text is none of these.
pub fn parse_server(text: &str) -> Result<ServerAddress, ServerAddressError> {
    let (host, port) = split_server(text)?;
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':');
    if host.is_empty() || host.len() > 253 || !host.chars().all(plain) {
        return Err(ServerAddressError);
    }
    // What else has colons would be shown, and kept, as a text that means another host and port.
    if host.contains(':') && host.parse::<Ipv6Addr>().is_err() {
        return Err(ServerAddressError);
    }
    let port = match port {
        Some(digits) => digits.parse().map_err(|_| ServerAddressError)?,
        None => DEFAULT_PORT,
    };
    if port == 0 {
        return Err(ServerAddressError);
    }
    Ok(ServerAddress {
        host: host.to_ascii_lowercase(),
        port,
    })
}

fn split_server(text: &str) -> Result<(&str, Option<&str>), ServerAddressError> {
    if let Some(rest) = text.strip_prefix('[') {
        let (host, rest) = rest.split_once(']').ok_or(ServerAddressError)?;
        let port = match rest {
            "" => None,
            _ => Some(rest.strip_prefix(':').ok_or(ServerAddressError)?),
        };
        return Ok((host, port));
    }
    match text.split_once(':') {
        Some((_, rest)) if rest.contains(':') => Ok((text, None)),
        Some((host, port)) => Ok((host, Some(port))),
        None => Ok((text, None)),
    }
}

/// A text is not the address of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a server is a host name or an address, and perhaps a port: chat.example.org, 192.0.2.7:7400, [2001:db8::7]:7400"
)]
pub struct ServerAddressError;

/// The folder that `--profile` means. Anything with a slash is a path, else it is a sibling of the
/// default profile.
pub(crate) fn profile_folder(choice: &str) -> Result<PathBuf, ProfileChoiceError> {
    if choice.contains('/') {
        return std::path::absolute(choice).map_err(|_| ProfileChoiceError::Name);
    }
    let plain = |c: char| !c.is_control() && c != '\\';
    if choice.is_empty() || choice.starts_with('.') || !choice.chars().all(plain) {
        return Err(ProfileChoiceError::Name);
    }
    let folders = ProjectDirs::from("", "", "rdv-peer").ok_or(ProfileChoiceError::NoHome)?;
    Ok(folders.data_dir().join(choice))
}

/// A profile cannot be found by what was typed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ProfileChoiceError {
    /// Not a name and not a path.
    #[error("a profile is a name like 'work', or a path with a slash like './work'")]
    Name,
    /// The system does not tell where the home folder is.
    #[error("this user has no home folder; give a path with --profile")]
    NoHome,
}

/// Shortens a path below the home folder for people.
pub(crate) fn shown_path(path: &Path) -> String {
    let text = match BaseDirs::new()
        .and_then(|base| Some(path.strip_prefix(base.home_dir()).ok()?.to_owned()))
    {
        // Joined to nothing it would have a slash behind it.
        Some(rest) if rest.as_os_str().is_empty() => PathBuf::from("~"),
        Some(rest) => Path::new("~").join(rest),
        None => path.to_owned(),
    };
    common::text::inline(&text.to_string_lossy()).into_owned()
}

/// What to do with files that are offered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AcceptPolicy {
    /// Ask the person at the terminal.
    Ask,
    /// Accept every offer.
    Always,
    /// Decline every offer.
    Never,
    /// Accept offers of these accounts, decline all others.
    From(BTreeSet<AccountName>),
}

impl AcceptPolicy {
    /// Reads the words after `--accept`.
    ///
    /// # Errors
    ///
    /// What is wrong with the words, for the person who typed them.
    pub fn parse(words: &[String]) -> Result<Self, String> {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        match words.as_slice() {
            ["ask"] => Ok(Self::Ask),
            ["always"] => Ok(Self::Always),
            ["never"] => Ok(Self::Never),
            ["from", names @ ..] if !names.is_empty() => {
                let is_policy = |name: &&&str| matches!(**name, "ask" | "always" | "never");
                if let Some(policy) = names.iter().find(is_policy) {
                    return Err(format!(
                        "--accept takes '{policy}' alone, or from and names"
                    ));
                }
                let names = names.iter().map(|name| {
                    name.parse::<AccountName>()
                        .map_err(|error| format!("'{name}' behind --accept from: {error}"))
                });
                Ok(Self::From(names.collect::<Result<_, _>>()?))
            }
            ["from"] => Err("--accept from needs the names of those whose files are taken".into()),
            _ => Err(format!(
                "--accept takes ask, always, never, or from and names, not '{}'",
                words.join(" ")
            )),
        }
    }

    /// The answer to an offer, if nobody has to be asked.
    pub fn answer(&self, from: &AccountName) -> Option<bool> {
        match self {
            Self::Ask => None,
            Self::Always => Some(true),
            Self::Never => Some(false),
            Self::From(names) => Some(names.contains(from)),
        }
    }
}

/// To whom a text goes, and what it is, as the words behind `peer send` say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Letter {
    /// At least one, each once.
    pub(crate) to: Vec<AccountName>,
    pub(crate) text: LetterText,
}

/// Where the text of a message comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum LetterText {
    /// It was typed, in one word or in several.
    Typed {
        text: String,
        /// The first word as an account name, if it could be one: perhaps it was meant as one more
        /// recipient. A single word behind `--to` is the text.
        first: Option<AccountName>,
    },
    /// Standard input, to its end.
    Stdin,
}

/// The words behind `peer send` cannot be understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum LetterMistake {
    /// Neither a name nor `--to` was given.
    #[error("the NAME of the recipient is missing")]
    NoRecipient,
    /// A name is empty, as between two commas.
    #[error("'{0}' has an empty name; names have commas between them and no blanks")]
    EmptyName(String),
    /// The text begins with a comma, and perhaps a name.
    #[error("the text begins with '{0}'; names have commas between them and no blanks")]
    Comma(String),
    /// What was typed as a name is none.
    #[error("'{name}' cannot be a recipient: {error}")]
    Name {
        /// As it was typed.
        name: String,
        error: NameError,
    },
    /// There are recipients and nothing for them.
    #[error("the TEXT for {} is missing", joined(.0))]
    NoText(Vec<AccountName>),
}

impl Letter {
    /// Understands the words. With `to`, all of them are text; otherwise the first is one name, or several
    /// with commas between them. Text that is a dash, or none where `has_input`, is standard input.
    ///
    /// # Errors
    ///
    /// What is wrong with the words, for the person who typed them.
    pub(crate) fn parse(
        to: Vec<AccountName>,
        words: &[String],
        has_input: bool,
    ) -> Result<Self, LetterMistake> {
        let has_options = !to.is_empty();
        let (to, words) = match words {
            words if has_options => (to, words),
            [names, words @ ..] => (recipients(names)?, words),
            [] => return Err(LetterMistake::NoRecipient),
        };
        let to = each_once(to);
        // A whole text in one word is meant as it is.
        if let [first, _, ..] = words
            && !has_options
            && is_list_end(first)
        {
            return Err(LetterMistake::Comma(first.clone()));
        }
        let text = match words {
            [] if has_input => LetterText::Stdin,
            [] => return Err(LetterMistake::NoText(to)),
            [dash] if dash == "-" => LetterText::Stdin,
            [only] => LetterText::Typed {
                text: only.clone(),
                first: only.parse().ok().filter(|_| !has_options),
            },
            [first, ..] => LetterText::Typed {
                text: words.join(" "),
                first: first.parse().ok(),
            },
        };
        Ok(Self { to, text })
    }
}

/// `NAME`, or `NAME,NAME`.
fn recipients(names: &str) -> Result<Vec<AccountName>, LetterMistake> {
    let account = |name: &str| {
        if name.is_empty() {
            return Err(LetterMistake::EmptyName(names.to_owned()));
        }
        let name = name.to_owned();
        let parsed = name.parse();
        parsed.map_err(|error| LetterMistake::Name { name, error })
    };
    names.split(',').map(account).collect()
}

/// Tells whether a word goes on with a list of names: `,` or `,NAME`.
fn is_list_end(word: &str) -> bool {
    let is_name = |name: &str| name.is_empty() || name.parse::<AccountName>().is_ok();
    let rest = word.strip_prefix(',');
    rest.is_some_and(|rest| rest.split(',').all(is_name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn letter(to: &[&str], words: &[&str]) -> Result<Letter, LetterMistake> {
        let to = to.iter().map(|name| name.parse().unwrap()).collect();
        let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        Letter::parse(to, &words, false)
    }

    fn names(letter: &Letter) -> Vec<&str> {
        letter.to.iter().map(AccountName::as_str).collect()
    }

    fn typed(text: &str, first: Option<&str>) -> LetterText {
        LetterText::Typed {
            text: text.to_owned(),
            first: first.map(|name| name.parse().unwrap()),
        }
    }

    #[test]
    fn a_path_below_home_is_short_and_home_itself_has_no_slash() {
        let base = BaseDirs::new().expect("there is a home folder");
        let home = base.home_dir();
        assert_eq!(shown_path(home), "~");
        assert_eq!(shown_path(&home.join("Downloads")), "~/Downloads");
        assert_eq!(shown_path(Path::new("/elsewhere/a\u{7}")), "/elsewhere/a␇");
    }

    #[test]
    fn the_first_word_behind_send_is_for_whom_and_all_others_are_the_text() {
        for (to, words, who, text) in [
            (
                &[][..],
                &["bob", "hi"][..],
                &["bob"][..],
                typed("hi", Some("hi")),
            ),
            (&[], &["bob", "hi!"], &["bob"], typed("hi!", None)),
            (&["bob"], &["carol"], &["bob"], typed("carol", None)),
            (
                &[],
                &["Bob", "see", "you", "at", "8"],
                &["bob"],
                typed("see you at 8", Some("see")),
            ),
            (
                &[],
                &["bob,carol", "see you"],
                &["bob", "carol"],
                typed("see you", None),
            ),
            (
                &[],
                &["zed,bob,ZED", "-"],
                &["zed", "bob"],
                LetterText::Stdin,
            ),
            (
                &["bob", "carol", "bob"],
                &["who?", "me,", "you"],
                &["bob", "carol"],
                typed("who? me, you", None),
            ),
            (&["bob"], &["-"], &["bob"], LetterText::Stdin),
            (&["bob"], &["-", "-"], &["bob"], typed("- -", None)),
        ] {
            let letter = letter(to, words).unwrap();
            assert_eq!((names(&letter), &letter.text), (who.to_vec(), &text));
        }
    }

    #[test]
    fn without_a_text_it_is_standard_input_or_missing() {
        let bob: AccountName = "bob".parse().unwrap();
        for (to, words) in [
            (vec![], vec!["bob".to_owned()]),
            (vec![bob.clone()], vec![]),
        ] {
            let read = Letter::parse(to.clone(), &words, true).unwrap();
            assert_eq!(read.text, LetterText::Stdin);
            let missing = Letter::parse(to, &words, false);
            assert_eq!(missing, Err(LetterMistake::NoText(vec![bob.clone()])));
        }
    }

    #[test]
    fn a_list_of_recipients_has_names_and_nothing_else() {
        assert_eq!(letter(&[], &[]), Err(LetterMistake::NoRecipient));
        for list in ["", ",", "bob,", ",bob", "bob,,carol"] {
            let mistake = letter(&[], &[list, "hi"]);
            assert_eq!(mistake, Err(LetterMistake::EmptyName(list.to_owned())));
        }
        for (list, bad) in [("b/b", "b/b"), ("bob, carol", " carol"), ("bob,-", "-")] {
            let told = letter(&[], &[list, "hi"]).unwrap_err().to_string();
            let expected = format!("'{bad}' cannot be a recipient: ");
            assert!(told.starts_with(&expected), "{told}");
        }
    }

    #[test]
    fn servers_survive_their_text() {
        for (typed, meant) in [
            ("Chat.Example.org", "chat.example.org:7400"),
            ("chat.example.org:1", "chat.example.org:1"),
            ("192.0.2.7:7401", "192.0.2.7:7401"),
            ("2001:db8::7", "[2001:db8::7]:7400"),
            ("[2001:db8::7]", "[2001:db8::7]:7400"),
            ("[2001:db8::7]:99", "[2001:db8::7]:99"),
        ] {
            let text = parse_server(typed).unwrap().to_string();
            assert_eq!(text, meant);
            assert_eq!(parse_server(&text).unwrap().to_string(), meant);
        }
        for bad in [
            "",
            ":1",
            "a:",
            "a:0",
            "a:65536",
            "a b",
            "[::1",
            "[::1]x",
            "a\u{1b}",
            "a/b",
            "x::y",
            "[2..::7]:99",
            "[a:1]",
        ] {
            assert!(parse_server(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn profiles_are_names_or_paths() {
        let work = profile_folder("work").unwrap();
        assert!(work.is_absolute() && work.ends_with("rdv-peer/work"));
        assert_eq!(profile_folder("/tmp/x").unwrap(), Path::new("/tmp/x"));
        assert!(profile_folder("./x").unwrap().is_absolute());
        for bad in ["", "..", ".hidden", "a\n"] {
            assert!(profile_folder(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_list_of_recipients_with_blanks_is_no_text() {
        for words in [
            &["bob", ",", "carol", "hi"][..],
            &["bob", ",carol", "hi"],
            &["bob", ",carol,", "zed", "hi"],
        ] {
            let comma = LetterMistake::Comma(words[1].to_owned());
            assert_eq!(letter(&[], words), Err(comma));
        }
        for (to, words) in [
            (&["bob"][..], &[",", "carol"][..]),
            (&[], &["bob", ", carol hi"]),
            (&[], &["bob", ",!", "what?"]),
        ] {
            assert!(letter(to, words).is_ok(), "{words:?}");
        }
    }

    #[test]
    fn offers_are_answered_as_told() {
        let parse = |line: &str| {
            let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
            AcceptPolicy::parse(&words)
        };
        let bob: AccountName = "bob".parse().unwrap();
        assert_eq!(parse("ask").unwrap().answer(&bob), None);
        assert_eq!(parse("always").unwrap().answer(&bob), Some(true));
        assert_eq!(parse("never").unwrap().answer(&bob), Some(false));
        assert_eq!(parse("from carol Bob").unwrap().answer(&bob), Some(true));
        assert_eq!(parse("from carol").unwrap().answer(&bob), Some(false));
        for bad in [
            "",
            "from",
            "from b/b",
            "yes",
            "always never",
            "from bob always",
        ] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
    }
}
