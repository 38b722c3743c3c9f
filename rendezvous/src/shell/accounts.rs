//! Commands about accounts: answered by the running server, or on the data folder when none runs.
//!
//! The password becomes a record here, in the process of the command; the server never gets it.

use std::io::{self, BufRead, IsTerminal, Read, Write};
use std::path::Path;

use common::id::AccountName;
use common::limits::ACCOUNT_NAME_LEN_MAX;
use common::os::{clock, password_file};
use common::password::{self, Password, PasswordRecord, ServerSetup};
use common::text::{self, Align};
use common::time::UnixTime;
use jiff::tz::TimeZone;
use serde_json::json;
use zeroize::Zeroizing;

use super::admin::{self, AccountLine, Answer, Refusal};
use super::screen::Screen;
use super::{DataFolder, Failure, ambient, data};
use crate::args::AccountCommand;
use crate::server::{Command, CommandId, Reply};
use crate::server::{Input, Output, Server, ServerOptions};
use crate::store::Store;
use crate::store::sqlite::SqliteStore;

/// Columns of `account list` but the last: what stands above them, how wide and where. A list comes in
/// pages, so that no column can wait for its widest cell.
const COLUMNS: [(&str, usize, Align); 4] = [
    ("ACCOUNT", ACCOUNT_NAME_LEN_MAX, Align::Left),
    ("CREATED", 10, Align::Left),
    ("DEVICES", 7, Align::Right),
    ("ONLINE", 6, Align::Right),
];

/// Bytes of a line that a person types: more than the longest name.
const LINE_LEN_MAX: u64 = 2 * ACCOUNT_NAME_LEN_MAX as u64;

/// Carries out `rendezvous account …` for the data folder at `path`.
pub(super) fn run(path: &Path, command: AccountCommand, screen: Screen) -> Result<(), Failure> {
    match command {
        AccountCommand::Add {
            name,
            password_file,
        } => {
            let password = read_password(password_file.as_deref())?;
            let mut accounts = Accounts::open(path, DataFolder::open)?;
            let record = accounts.make_record(&name, &password)?;
            let command = Command::AddAccount {
                account: name.clone(),
                record,
            };
            accounts.expect_done(command, &name)?;
            screen.data(&json!({ "added": name }))?;
            screen.say(format_args!("account '{name}' is ready"))
        }
        AccountCommand::List => list(
            &mut Accounts::open(path, DataFolder::open_existing)?,
            screen,
        ),
        AccountCommand::Remove { name, yes } => {
            let mut accounts = Accounts::open(path, DataFolder::open_existing)?;
            if !yes {
                confirm_removal(&name)?;
            }
            accounts.expect_done(Command::RemoveAccount(name.clone()), &name)?;
            screen.data(&json!({ "removed": name }))?;
            screen.say(format_args!("account '{name}' is removed"))
        }
        AccountCommand::Unblock { name } => unblock(
            &mut Accounts::open(path, DataFolder::open_existing)?,
            &name,
            screen,
        ),
        AccountCommand::Admit { name } => admit(
            &mut Accounts::open(path, DataFolder::open_existing)?,
            &name,
            screen,
        ),
    }
}

/// Has a person type the name of the account that is to be removed.
fn confirm_removal(name: &AccountName) -> Result<(), Failure> {
    let stdin = io::stdin();
    if !stdin.is_terminal() {
        return Err(Failure::RemovalUnconfirmed(name.clone()));
    }
    let ask = |typed: &mut String| {
        let mut screen = io::stderr().lock();
        write!(
            screen,
            "Removing '{name}' logs out all its devices and cannot be undone.\n\
             Type the account's name to remove it: "
        )?;
        screen.flush()?;
        stdin.lock().take(LINE_LEN_MAX).read_line(typed)
    };
    let mut typed = String::new();
    ask(&mut typed).map_err(|why| Failure::System {
        what: "ask at the terminal",
        why,
    })?;
    if typed.trim() == name.as_str() {
        Ok(())
    } else {
        Err(Failure::RemovalRefused(name.clone()))
    }
}

fn unblock(accounts: &mut Accounts<'_>, name: &AccountName, screen: Screen) -> Result<(), Failure> {
    let answer = accounts.ask(Command::Unblock(name.clone()))?;
    let answer = answer.map_err(|refusal| refused(refusal, name))?;
    let Answer::Unblocked {
        has_account,
        blocked_for_s,
        failures,
    } = answer
    else {
        return Err(unexpected());
    };
    screen.data(&json!({
        "unblocked": name,
        "has_account": has_account,
        "blocked_for_s": blocked_for_s,
        "failures": failures,
    }))?;
    screen.say(unblocked(name, has_account, blocked_for_s, failures))
}

/// Says what an operator has ended.
fn unblocked(name: &AccountName, has_account: bool, blocked_for_s: u32, failures: u32) -> String {
    let failures = match failures {
        0 => "there were no failed log-ins to forget".to_owned(),
        1 => "1 failed log-in is forgotten".to_owned(),
        count => format!("{count} failed log-ins are forgotten"),
    };
    let block = match blocked_for_s {
        0 => format!("'{name}' was not blocked"),
        seconds => {
            let left = text::seconds(seconds.into());
            format!("'{name}' is no longer blocked, as it would have been for another {left}")
        }
    };
    let whose = if has_account {
        ""
    } else {
        "; no account has that name"
    };
    format!("{block}; {failures}{whose}")
}

fn admit(accounts: &mut Accounts<'_>, name: &AccountName, screen: Screen) -> Result<(), Failure> {
    let answer = accounts.ask(Command::Admit(name.clone()))?;
    let answer = answer.map_err(|refusal| refused(refusal, name))?;
    let Answer::Code { code, expires_in_s } = answer else {
        return Err(unexpected());
    };
    screen.data(&json!({ "account": name, "code": code, "expires_in_s": expires_in_s }))?;
    let span = text::seconds(expires_in_s.into());
    screen.say(format_args!(
        "one-time code for '{name}', valid for {span}: {code}"
    ))
}

fn list(accounts: &mut Accounts<'_>, screen: Screen) -> Result<(), Failure> {
    let mut after = None;
    let mut is_first = true;
    loop {
        let (lines, may_have_more) = match accounts.ask(Command::ListAccounts { after })? {
            Ok(Answer::Accounts {
                accounts,
                may_have_more,
            }) => (accounts, may_have_more),
            Ok(Answer::Done | Answer::Code { .. } | Answer::Unblocked { .. }) => {
                return Err(unexpected());
            }
            Err(refusal) => return Err(failed(refusal.to_string())),
        };
        if std::mem::take(&mut is_first) {
            let heads = COLUMNS.map(|(head, ..)| head.to_owned());
            screen.say(row(&heads, "BLOCKED"))?;
        }
        for line in &lines {
            print_line(line, screen)?;
        }
        after = lines.into_iter().next_back().map(|line| line.account);
        if !may_have_more || after.is_none() {
            return Ok(());
        }
    }
}

fn print_line(line: &AccountLine, screen: Screen) -> Result<(), Failure> {
    screen.data(line)?;
    let blocked = match line.blocked_for_s {
        0 => "-".to_owned(),
        seconds => text::seconds(seconds.into()),
    };
    let cells = [
        line.account.to_string(),
        text::date(UnixTime::from_millis(line.created_ms), &TimeZone::UTC),
        line.devices.to_string(),
        line.sessions.to_string(),
    ];
    screen.say(row(&cells, &blocked))
}

fn row(cells: &[String; COLUMNS.len()], last: &str) -> String {
    let cells = cells.iter().zip(COLUMNS);
    let cells = cells.map(|(cell, (_, width, align))| text::padded(cell, width, align) + "  ");
    cells.chain([last.to_owned()]).collect()
}

fn refused(refusal: Refusal, name: &AccountName) -> Failure {
    match refusal {
        Refusal::Exists => Failure::AccountExists(name.clone()),
        Refusal::NotFound => Failure::NoAccount(name.clone()),
        Refusal::TooManyCodes => Failure::TooManyCodes,
        Refusal::TooMany(_) | Refusal::Failed(_) => failed(refusal.to_string()),
    }
}

fn unexpected() -> Failure {
    failed("an unexpected answer".to_owned())
}

const fn failed(message: String) -> Failure {
    Failure::Store(crate::store::StoreError::Failed(message))
}

/// The accounts of a data folder.
enum Accounts<'a> {
    /// A server has the folder: it is asked.
    Running(&'a Path),
    /// This process has it.
    Here(Box<Here>),
}

struct Here {
    _folder: DataFolder,
    setup: ServerSetup,
    store: SqliteStore,
    server: Server,
}

impl<'a> Accounts<'a> {
    fn open(
        path: &'a Path,
        open_folder: impl FnOnce(&Path) -> Result<DataFolder, Failure>,
    ) -> Result<Self, Failure> {
        let folder = match open_folder(path) {
            Err(Failure::InUse(_)) => return Ok(Self::Running(path)),
            folder => folder?,
        };
        let setup = folder.opaque_setup()?;
        let mut store = folder.store()?;
        let restored = store.restore().map_err(Failure::Store)?;
        let options = ServerOptions::new(folder.bucket_key()?);
        let (seed, epoch) = (ambient::seed()?, clock::epoch());
        let server = Server::new(seed, clock::now(), epoch, options, restored);
        Ok(Self::Here(Box::new(Here {
            _folder: folder,
            setup,
            store,
            server,
        })))
    }

    fn make_record(
        &self,
        name: &AccountName,
        password: &Password,
    ) -> Result<PasswordRecord, Failure> {
        let read;
        let setup = match self {
            Self::Running(path) => {
                read = data::read_opaque_setup(path)?;
                &read
            }
            Self::Here(here) => &here.setup,
        };
        password::make_record(setup, name, password, ambient::seed()?).map_err(Failure::Password)
    }

    fn ask(&mut self, command: Command) -> Result<Result<Answer, Refusal>, Failure> {
        match self {
            Self::Running(path) => {
                let no_answer = |why| Failure::NoAnswer {
                    folder: path.to_owned(),
                    why,
                };
                match admin::ask(path, command).map_err(no_answer)? {
                    Err(busy @ Refusal::TooMany(_)) => Err(no_answer(io::Error::other(busy))),
                    answer => Ok(answer),
                }
            }
            Self::Here(here) => Ok(admin::answer(here.ask(command))),
        }
    }

    fn expect_done(&mut self, command: Command, name: &AccountName) -> Result<(), Failure> {
        match self.ask(command)? {
            Ok(Answer::Done) => Ok(()),
            Ok(Answer::Code { .. } | Answer::Unblocked { .. } | Answer::Accounts { .. }) => {
                Err(unexpected())
            }
            Err(refusal) => Err(refused(refusal, name)),
        }
    }
}

impl Here {
    /// Runs the engine for one command.
    fn ask(&mut self, command: Command) -> Reply {
        let now = clock::now();
        let id = CommandId(0);
        self.server
            .handle_input(Input::Commanded { id, command }, now);
        let mut answer = None;
        loop {
            match self.server.poll_output(now) {
                Output::Store { ticket, request } => {
                    let mut answers = self.store.execute(&[request]);
                    let answer = answers.pop().expect("one answer for one request");
                    self.server
                        .handle_input(Input::Stored { ticket, answer }, now);
                }
                Output::Reply { reply, .. } => answer = Some(reply),
                Output::Wait(_) => return answer.expect("every command is answered"),
                Output::Send { .. }
                | Output::Close { .. }
                | Output::Compute { .. }
                | Output::Relay(_)
                | Output::ToRelay { .. } => {}
            }
        }
    }
}

fn read_password(file: Option<&Path>) -> Result<Password, Failure> {
    let text = match file {
        Some(path) => password_in(path)?,
        None => {
            let ask = |prompt| rpassword::prompt_password(prompt).map(Zeroizing::new);
            let first = ask("New password: ").map_err(Failure::NoTerminal)?;
            let second = ask("The same again: ").map_err(Failure::NoTerminal)?;
            if *first != *second {
                return Err(Failure::PasswordsDiffer);
            }
            first
        }
    };
    if text.chars().any(char::is_control) {
        return Err(Failure::PasswordControl);
    }
    Password::new(text).map_err(Failure::PasswordLength)
}

fn password_in(path: &Path) -> Result<Zeroizing<String>, Failure> {
    let read = password_file::read(path).map_err(|why| Failure::PasswordFile {
        path: path.to_owned(),
        why,
    })?;
    if read.is_open_to_others {
        let path = path.display();
        log::warn!("other users can read the password in {path}; 'chmod 600' closes it");
    }
    Ok(read.password)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accounts_stand_under_each_other() {
        let heads = COLUMNS.map(|(head, ..)| head.to_owned());
        let cells = ["bob", "2023-11-14", "12", "3"].map(str::to_owned);
        let pad = " ".repeat(ACCOUNT_NAME_LEN_MAX - 7);
        assert_eq!(
            row(&heads, "BLOCKED"),
            format!("ACCOUNT{pad}  CREATED     DEVICES  ONLINE  BLOCKED")
        );
        assert_eq!(
            row(&cells, &text::seconds(90)),
            format!("bob    {pad}  2023-11-14       12       3  1 min 30 s")
        );
    }
}
