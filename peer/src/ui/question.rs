//! Passwords and yes-or-no questions.

use std::fs::File;
use std::io::{self, IsTerminal};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use common::key::{Fingerprint, FingerprintError};
use common::limits::PASSWORD_CHARS_MIN;
use common::os::password_file;
use common::password::Password;
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use rustyline::error::ReadlineError;
use signal_hook::consts::SIGINT;
use zeroize::Zeroizing;

use super::Screen;
use crate::config::shown_path;
use crate::failure::{Exit, Failure};

/// What a fingerprint begins with.
const FINGERPRINT_START: &str = "SHA256:";

/// What a password is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// It exists already.
    LogIn,
    /// It is new: typed twice, and not too short.
    Register,
}

/// Gets the password of the account `whose` from the first line of a file, `-` being stdin, or from the
/// terminal without showing it.
pub(crate) fn password(
    purpose: Purpose,
    whose: &str,
    file: Option<&Path>,
    screen: &Screen,
) -> Result<Zeroizing<String>, Failure> {
    let _unseen = file.is_none().then(Unseen::begin);
    let text = match (file, purpose) {
        (Some(path), _) => from_file(path, screen)?,
        (None, Purpose::LogIn) => hidden(&format!("Password of {whose}: "))?,
        (None, Purpose::Register) => new_from_terminal(whose, screen)?,
    };
    let checked = match purpose {
        Purpose::LogIn => Password::existing(text.clone()),
        Purpose::Register => Password::new(text.clone()),
    };
    match checked {
        Ok(_) => Ok(text),
        Err(error) => Err(Failure::new(Exit::Usage, "could not use this password")
            .because(error)
            .next("run the command again with another one")),
    }
}

/// While it is there the terminal shows nothing of what is typed, before a question for a password and between
/// two of them, either: somebody may type as soon as it is there, or ahead.
struct Unseen(Option<(File, Termios)>);

impl Unseen {
    fn begin() -> Self {
        let terminal = File::options().read(true).write(true).open("/dev/tty");
        let known = terminal.ok().and_then(|terminal| {
            let before = tcgetattr(&terminal).ok()?;
            let mut unseen = before.clone();
            unseen.local_modes.remove(LocalModes::ECHO);
            tcsetattr(&terminal, OptionalActions::Now, &unseen).ok()?;
            Some((terminal, before))
        });
        // Without a terminal there is nobody who types.
        Self(known)
    }
}

impl Drop for Unseen {
    fn drop(&mut self) {
        if let Some((terminal, before)) = &self.0 {
            // If this fails the terminal is gone.
            let _ = tcsetattr(terminal, OptionalActions::Now, before);
        }
    }
}

/// What somebody says of a key that is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KeyAnswer {
    Trusted,
    Refused,
    /// It should have this fingerprint, and has another.
    Expected(Fingerprint),
}

impl KeyAnswer {
    /// Understands an answer about the key that is `shown`: a yes, a no, or the fingerprint that it should
    /// have.
    ///
    /// # Errors
    ///
    /// Where it has to be asked again.
    fn parse(answer: &str, shown: Fingerprint) -> Result<Self, Unclear> {
        let answer = answer.trim();
        match answer.to_ascii_lowercase().as_str() {
            "yes" | "y" => return Ok(Self::Trusted),
            "no" | "n" => return Ok(Self::Refused),
            _ => {}
        }
        let (_, encoded) = answer
            .split_at_checked(FINGERPRINT_START.len())
            .filter(|(start, _)| start.eq_ignore_ascii_case(FINGERPRINT_START))
            .ok_or(Unclear::Words)?;
        let expected = format!("{FINGERPRINT_START}{encoded}").parse();
        match expected.map_err(|FingerprintError| Unclear::Fingerprint)? {
            expected if expected == shown => Ok(Self::Trusted),
            expected => Ok(Self::Expected(expected)),
        }
    }
}

/// An answer about a key that is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unclear {
    /// It begins as a fingerprint does, and is none that a key can have.
    Fingerprint,
    Words,
}

/// Asks whether the key that is `shown` is to be trusted, until there is an answer.
pub(crate) fn about_key(shown: Fingerprint, screen: &Screen) -> Result<KeyAnswer, Failure> {
    let mut editor = rustyline::DefaultEditor::new().map_err(unread)?;
    loop {
        let answer = match editor.readline("Trust it? [yes/no] ") {
            Ok(answer) => answer,
            Err(ReadlineError::Eof) => return Ok(KeyAnswer::Refused),
            Err(error) => return Err(unread(error)),
        };
        match KeyAnswer::parse(&answer, shown) {
            Ok(answer) => return Ok(answer),
            Err(Unclear::Fingerprint) => {
                let differs = "That is not the fingerprint that the server shows.";
                screen.note(screen.error_look.yellow(differs));
            }
            Err(Unclear::Words) => {}
        }
        let hint = "Type yes or no, or paste the fingerprint that you were told.";
        screen.note(screen.error_look.dim(hint));
    }
}

/// Asks a question until the answer is yes or no; the end of the input is no.
pub(crate) fn is_wanted(question: &str, screen: &Screen) -> Result<bool, Failure> {
    let mut editor = rustyline::DefaultEditor::new().map_err(unread)?;
    loop {
        let answer = match editor.readline(&format!("{question} [yes/no] ")) {
            Ok(answer) => answer,
            Err(ReadlineError::Eof) => return Ok(false),
            Err(error) => return Err(unread(error)),
        };
        match answer.trim().to_ascii_lowercase().as_str() {
            "yes" | "y" => return Ok(true),
            "no" | "n" => return Ok(false),
            _ => screen.note(screen.error_look.dim("Type yes or no.")),
        }
    }
}

/// The editor has read no answer.
fn unread(error: ReadlineError) -> Failure {
    if matches!(error, ReadlineError::Interrupted | ReadlineError::Signal(_)) {
        Failure::signal(SIGINT)
    } else {
        Failure::new(Exit::Other, "could not read the terminal").because(error)
    }
}

/// Tells whether there is a terminal at both ends to ask somebody at.
pub(crate) fn can_ask() -> bool {
    io::stdin().is_terminal() && io::stdout().is_terminal()
}

/// Asks until a password will do and was typed twice.
fn new_from_terminal(whose: &str, screen: &Screen) -> Result<Zeroizing<String>, Failure> {
    screen.note(format!(
        "Choose a password of at least {PASSWORD_CHARS_MIN} characters, for instance a few words that only you would put together."
    ));
    loop {
        let first = hidden(&format!("Password of {whose}: "))?;
        if let Err(error) = Password::new(first.clone()) {
            screen.note(screen.error_look.yellow(&format!("{error}.")));
            continue;
        }
        if hidden("The same again: ")? == first {
            return Ok(first);
        }
        let differ = "The two that were typed differ.";
        screen.note(screen.error_look.yellow(differ));
    }
}

fn hidden(prompt: &str) -> Result<Zeroizing<String>, Failure> {
    // With a handler Ctrl-C returns from the prompt, which can put the terminal right again.
    let interrupted = Arc::new(AtomicBool::new(false));
    let handler = signal_hook::flag::register(SIGINT, interrupted);
    let typed = rpassword::prompt_password(prompt).map(Zeroizing::new);
    if let Ok(handler) = handler {
        signal_hook::low_level::unregister(handler);
    }
    typed.map_err(|error| {
        if error.kind() == io::ErrorKind::Interrupted {
            return Failure::signal(SIGINT);
        }
        if error.kind() == io::ErrorKind::UnexpectedEof {
            return Failure::new(Exit::Usage, "could not read the password")
                .because("none was typed")
                .next("run the command again and type it");
        }
        Failure::new(Exit::Usage, "could not ask for the password")
            .because(format!("there is no terminal to type it at: {error}"))
            .next(
                "put the password into a file that only you can read and add --password-file FILE",
            )
    })
}

fn from_file(path: &Path, screen: &Screen) -> Result<Zeroizing<String>, Failure> {
    let read = password_file::read(path).map_err(|error| unreadable(path, &error))?;
    if read.is_open_to_others {
        let path = shown_path(path);
        screen.note(screen.error_look.yellow(&format!(
            "Others can read {path}. Close it with: chmod 600 {path}"
        )));
    }
    Ok(read.password)
}

/// Reads a recovery code from the first line of a file.
pub(crate) fn recovery_code(path: &Path, screen: &Screen) -> Result<Zeroizing<String>, Failure> {
    let read = password_file::read(path).map_err(|error| {
        let path = shown_path(path);
        Failure::new(
            Exit::File,
            format!("could not read the recovery code in {path}"),
        )
        .because(error)
        .next("give the file with the twelve words, on one line")
    })?;
    if read.is_open_to_others {
        let path = shown_path(path);
        screen.note(screen.error_look.yellow(&format!(
            "Others can read {path}. Close it with: chmod 600 {path}"
        )));
    }
    Ok(read.password)
}

fn unreadable(path: &Path, error: &io::Error) -> Failure {
    let path = shown_path(path);
    Failure::new(
        Exit::File,
        format!("could not read the password file {path}"),
    )
    .because(error)
    .next("check the path and its permissions, or leave --password-file out and type the password")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_trusted_by_word_or_by_its_fingerprint() {
        let [shown, other] = [b"shown", b"other"].map(|key| Fingerprint::of_spki(key));
        let text = shown.to_string();
        for (answer, understood) in [
            ("yes", Ok(KeyAnswer::Trusted)),
            (" Y ", Ok(KeyAnswer::Trusted)),
            ("no", Ok(KeyAnswer::Refused)),
            (&format!(" {text}\t"), Ok(KeyAnswer::Trusted)),
            (&text.replace("SHA256", "sha256"), Ok(KeyAnswer::Trusted)),
            (&other.to_string(), Ok(KeyAnswer::Expected(other))),
            (&text[..20], Err(Unclear::Fingerprint)),
            // Its last character has bits set that none of 32 bytes are in.
            (
                &format!("{}B", &text[..text.len() - 1]),
                Err(Unclear::Fingerprint),
            ),
            ("Sha256:", Err(Unclear::Fingerprint)),
            (&text[7..], Err(Unclear::Words)),
            ("", Err(Unclear::Words)),
            ("maybe", Err(Unclear::Words)),
        ] {
            assert_eq!(KeyAnswer::parse(answer, shown), understood, "{answer}");
        }
    }

    #[test]
    fn a_missing_file_is_a_file_problem() {
        let screen = Screen::new(true);
        let missing = Path::new("/nonexistent/password");
        let failure = password(Purpose::LogIn, "alice", Some(missing), &screen).unwrap_err();
        assert_eq!(failure.exit(), Exit::File);
    }

    #[test]
    fn a_new_password_is_not_too_short() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "short\n").unwrap();
        let screen = Screen::new(true);
        let new = password(Purpose::Register, "alice", Some(file.path()), &screen);
        assert_eq!(new.unwrap_err().exit(), Exit::Usage);
        assert!(password(Purpose::LogIn, "alice", Some(file.path()), &screen).is_ok());
    }
}
