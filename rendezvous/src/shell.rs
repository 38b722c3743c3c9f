//! Everything around the engines: command line, files, sockets, threads, signals.

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use clap::error::ErrorKind;
use common::os::process::forbid_core_dumps;

use crate::args::{Arguments, Command, example_for};
use crate::config::{self, ServeConfig};
use data::DataFolder;
use screen::Screen;

/// Commands about accounts.
mod accounts;
/// The socket on which a running server takes such commands.
pub mod admin;
/// The system's randomness.
mod ambient;
/// The data folder.
mod data;
/// Encodes frames, one that goes to many only once.
pub mod encoder;
/// Text or JSON.
mod screen;
/// The event loop.
mod serve;
/// TLS over TCP.
pub mod tls;
/// The UDP port.
mod udp;
/// The threads for SQLite and OPAQUE.
mod workers;

/// Runs the program with these arguments, the first of which is its own name.
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let typed = match parse(args.into_iter().collect()) {
        Ok(typed) => typed,
        Err(code) => return code,
    };
    let screen = Screen::new(typed.json);
    screen.start_log();
    forbid_core_dumps();
    match run(typed, screen) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            screen.report(&failure);
            ExitCode::from(failure.exit_code())
        }
    }
}

/// Parses, with `serve` where no command is given.
fn parse(args: Vec<OsString>) -> Result<Arguments, ExitCode> {
    let typed = Arguments::try_parse_from(&args).and_then(|typed| {
        if typed.command.is_some() {
            return Ok(typed);
        }
        let serve = args.iter().cloned().chain([OsString::from("serve")]);
        Arguments::try_parse_from(serve)
    });
    typed.map_err(|error| ExitCode::from(usage(&error, &args)))
}

/// Prints help, or a mistake with an example of how to do it. Returns the exit code.
fn usage(error: &clap::Error, typed: &[OsString]) -> u8 {
    let (screen, example) = (Screen::for_typed(typed), example_for(typed));
    let is_help = matches!(
        error.kind(),
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion
    );
    // Where nothing can be written, the exit code still tells.
    if screen.is_json() && !is_help {
        let text = error.to_string();
        let what = text.split("\n\n").next().unwrap_or_default();
        let what = what.split_whitespace().collect::<Vec<_>>().join(" ");
        let next = format!("write it like this: {example}");
        let _ = screen.mistake(2, what.trim_start_matches("error: "), Some(&next));
        return 2;
    }
    let printed = screen::unless_closed(error.print());
    if is_help {
        return printed.map_or_else(
            |failure| {
                screen.report(&failure);
                failure.exit_code()
            },
            |()| 0,
        );
    }
    let _ = writeln!(io::stderr().lock(), "\nExample: {example}");
    2
}

fn run(typed: Arguments, screen: Screen) -> Result<(), Failure> {
    let path = config::data_folder(typed.data.as_deref()).ok_or(Failure::NoHome)?;
    match typed.command {
        Some(Command::Serve(serve)) => serve::run(&path, &ServeConfig::from(serve), screen),
        Some(Command::Account(command)) => accounts::run(&path, command, screen),
        Some(Command::Fingerprint(asked)) => {
            let identity = data::read_identity(&path, asked.certificate.as_deref())?;
            let fingerprint = data::fingerprint(&identity)?;
            screen.data(&serde_json::json!({ "fingerprint": fingerprint.to_string() }))?;
            screen.say(fingerprint)
        }
        None => unreachable!("parse() fills in the default command"),
    }
}

/// Why the program failed. Each message says what could not be done, why, and what to do about it.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("there is no home folder to keep the server's data in; name a folder with --data DIR")]
    NoHome,
    #[error("cannot listen on {address}: {why}\n{hint}")]
    Listen {
        address: std::net::SocketAddr,
        why: io::Error,
        hint: &'static str,
    },
    #[error(
        "the data folder {} is in use by another server; stop that one, or give this one a folder of its own with --data DIR",
        .0.display()
    )]
    InUse(PathBuf),
    #[error(
        "there is no server's data in {}; check --data DIR, or make it with 'rendezvous serve' or 'rendezvous account add NAME'",
        .0.display()
    )]
    NoServer(PathBuf),
    #[error(
        "a server runs on the data folder {} but does not answer on {}: {why}\nwait a moment and try again; if that does not help, restart the server",
        .folder.display(), admin::SOCKET
    )]
    NoAnswer { folder: PathBuf, why: io::Error },
    #[error(
        "the database {} was written by a newer version of this program: {why}\nuse that version, or restore the backup from before its first start; nothing was changed",
        .path.display()
    )]
    Newer { path: PathBuf, why: String },
    #[error(
        "{} is damaged: {why}\nrestore it from a backup; nothing was changed",
        .path.display()
    )]
    Damaged { path: PathBuf, why: String },
    #[error("there is an account '{0}' already; choose another name, or remove that one first")]
    AccountExists(common::id::AccountName),
    #[error("there is no account '{0}'; 'rendezvous account list' shows those that there are")]
    NoAccount(common::id::AccountName),
    #[error(
        "the account has as many open one-time codes as it may have; use one of them, or wait until they expire"
    )]
    TooManyCodes,
    #[error("{what} {}: {why}\n{}", .path.display(), hint(.why))]
    File {
        what: &'static str,
        path: PathBuf,
        why: io::Error,
    },
    #[error("cannot use the certificate file {}: {why}", .path.display())]
    Certificate { path: PathBuf, why: String },
    #[error(
        "cannot read the certificate file {}: {why}\ncheck the path after --certificate: a PEM file with your certificate chain and its private key; without the option the server makes a key of its own",
        .path.display()
    )]
    CertificateFile { path: PathBuf, why: io::Error },
    #[error("{0}")]
    Store(crate::store::StoreError),
    #[error("this cannot be the password: {0}")]
    PasswordLength(common::password::PasswordLengthError),
    #[error(
        "this cannot be the password: it has a control character, such as a tab; choose one without"
    )]
    PasswordControl,
    #[error(
        "cannot read the password from {}: {why}\ncheck the name after --password-file: the file's first line is the password, in UTF-8",
        .path.display()
    )]
    PasswordFile { path: PathBuf, why: io::Error },
    #[error("the two passwords differ; nothing was changed")]
    PasswordsDiffer,
    #[error(
        "there is no terminal to ask for the password: {0}\ngive it in a file that only you can read, with --password-file FILE"
    )]
    NoTerminal(io::Error),
    #[error(
        "account '{0}' was not removed: there is no terminal to confirm it at; to remove it without being asked, add --yes"
    )]
    RemovalUnconfirmed(common::id::AccountName),
    #[error("account '{0}' was not removed: another name was typed")]
    RemovalRefused(common::id::AccountName),
    #[error("cannot prepare the password: {0}")]
    Password(common::password::PasswordError),
    #[error("cannot write to standard output: {0}")]
    Output(io::Error),
    #[error("cannot {what}: {why}")]
    System { what: &'static str, why: io::Error },
}

impl Failure {
    /// The codes that the help text promises.
    const fn exit_code(&self) -> u8 {
        match self {
            Self::Listen { .. } => 3,
            Self::InUse(_) => 4,
            Self::Newer { .. } => 5,
            Self::Damaged { .. } => 6,
            Self::AccountExists(_) | Self::NoAccount(_) => 7,
            Self::NoServer(_)
            | Self::File { .. }
            | Self::PasswordFile { .. }
            | Self::Certificate { .. }
            | Self::CertificateFile { .. }
            | Self::Store(_)
            | Self::Output(_) => 8,
            Self::NoHome
            | Self::NoAnswer { .. }
            | Self::TooManyCodes
            | Self::PasswordLength(_)
            | Self::PasswordControl
            | Self::PasswordsDiffer
            | Self::NoTerminal(_)
            | Self::RemovalUnconfirmed(_)
            | Self::RemovalRefused(_)
            | Self::Password(_)
            | Self::System { .. } => 1,
        }
    }
}

/// What to do about a file that cannot be read or written.
fn hint(error: &io::Error) -> &'static str {
    let kind = error.kind();
    if kind == io::ErrorKind::PermissionDenied {
        "run this as the user who owns the data folder, or choose another with --data DIR"
    } else if matches!(
        kind,
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    ) {
        "make room on that disk"
    } else if kind == io::ErrorKind::ReadOnlyFilesystem {
        "it is on a read-only file system; choose another folder with --data DIR"
    } else if kind == io::ErrorKind::NotFound {
        "start the server once, or check the name"
    } else {
        "check the folder, or choose another with --data DIR"
    }
}
