//! The socket on which a running server takes an operator's commands, as JSON-RPC 2.0 by
//! [`common::os::lines`].
//!
//! It lies in the data folder, for the folder's owner only. Every [`Call`](admin::Call) is a method; what a
//! command comes to is an [`Answer`](admin::Answer) or a [`Refusal`](admin::Refusal). There are no events.

use std::io::{self, ErrorKind};
use std::path::Path;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use common::id::AccountName;
use common::limits::{
    ADMIN_CLIENTS_MAX, ADMIN_LINE_LEN_MAX, ADMIN_REQUESTS_MAX, ADMIN_REQUESTS_PER_CLIENT_MAX,
    ADMIN_SEND_QUEUE_LEN_MAX,
};
use common::os::lines::{self, Dialect, Limits, LineClient, LineServer, NoEvent};
use common::password::PasswordRecord;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::server::{Command, Reply, Unblocked};

/// Name of the socket.
pub(super) const SOCKET: &str = "admin.sock";
/// A running server answers sooner.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// The server's end of the socket.
pub(super) type AdminServer = LineServer<AdminDialect>;
/// A line of an operator's program.
pub type Request = lines::Request<AdminDialect>;

/// What is spoken on the admin socket.
#[derive(Debug)]
pub enum AdminDialect {}

impl Dialect for AdminDialect {
    type Command = Call;
    type Reply = Answer;
    type Error = Refusal;
    type Event = NoEvent;

    const LIMITS: Limits = Limits {
        clients: ADMIN_CLIENTS_MAX,
        request_len: ADMIN_LINE_LEN_MAX,
        reply_len: ADMIN_LINE_LEN_MAX,
        requests_per_client: ADMIN_REQUESTS_PER_CLIENT_MAX,
        requests: ADMIN_REQUESTS_MAX,
        events: 0,
        outbox_len: ADMIN_SEND_QUEUE_LEN_MAX,
    };
    const PROCESS: &'static str = "the server";

    fn subscribed() -> Option<Answer> {
        None
    }

    fn too_many(what: &'static str) -> Refusal {
        Refusal::TooMany(what.to_owned())
    }

    fn stopped() -> Refusal {
        Refusal::Failed("the server is being stopped".to_owned())
    }

    fn unexpected(message: String) -> Refusal {
        Refusal::Failed(message)
    }
}

/// A [`Command`] as it stands on the socket. Parameters that it does not have are refused.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "method", content = "params", rename_all = "snake_case")]
pub enum Call {
    /// [`Command::AddAccount`].
    AddAccount(NewAccount),
    /// [`Command::RemoveAccount`].
    RemoveAccount(Named),
    /// [`Command::Unblock`].
    Unblock(Named),
    /// [`Command::Admit`].
    Admit(Named),
    /// [`Command::ListAccounts`].
    ListAccounts(Page),
}

/// An account that is to be made.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewAccount {
    /// The name wanted.
    pub account: AccountName,
    /// What [`common::password::make_record`] made of the password, in base64.
    #[serde(serialize_with = "record_text", deserialize_with = "parse_record")]
    pub record: PasswordRecord,
}

/// An account that should be there.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Named {
    /// The account's name.
    pub account: AccountName,
}

/// Which part of the list of accounts.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Page {
    /// Only names after this one.
    pub after: Option<AccountName>,
}

impl From<Command> for Call {
    fn from(command: Command) -> Self {
        match command {
            Command::AddAccount { account, record } => {
                Self::AddAccount(NewAccount { account, record })
            }
            Command::RemoveAccount(account) => Self::RemoveAccount(Named { account }),
            Command::Unblock(account) => Self::Unblock(Named { account }),
            Command::Admit(account) => Self::Admit(Named { account }),
            Command::ListAccounts { after } => Self::ListAccounts(Page { after }),
        }
    }
}

impl From<Call> for Command {
    fn from(call: Call) -> Self {
        match call {
            Call::AddAccount(NewAccount { account, record }) => {
                Self::AddAccount { account, record }
            }
            Call::RemoveAccount(Named { account }) => Self::RemoveAccount(account),
            Call::Unblock(Named { account }) => Self::Unblock(account),
            Call::Admit(Named { account }) => Self::Admit(account),
            Call::ListAccounts(Page { after }) => Self::ListAccounts { after },
        }
    }
}

fn record_text<S: Serializer>(record: &PasswordRecord, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&STANDARD.encode(record.as_bytes()))
}

fn parse_record<'de, D: Deserializer<'de>>(deserializer: D) -> Result<PasswordRecord, D::Error> {
    let text = String::deserialize(deserializer)?;
    let bytes = STANDARD.decode(text).map_err(D::Error::custom)?;
    PasswordRecord::from_bytes(&bytes).map_err(D::Error::custom)
}

/// What a command came to.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// It is done.
    Done,
    /// A one-time code.
    Code {
        /// To be typed at the new device.
        code: String,
        /// Seconds until it expires.
        expires_in_s: u32,
    },
    /// A block that was ended, and what was forgotten with it.
    Unblocked {
        /// An account has the name.
        has_account: bool,
        /// Seconds for which it would have been blocked; 0 when it was not.
        blocked_for_s: u32,
        /// Failed log-ins that are forgotten.
        failures: u32,
    },
    /// Accounts in the order of their names.
    Accounts {
        /// At most [`common::limits::ACCOUNTS_PER_REPLY_MAX`].
        accounts: Vec<AccountLine>,
        /// There may be more after the last of them.
        may_have_more: bool,
    },
}

/// Why a command was not carried out.
#[derive(Debug, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum Refusal {
    /// The name is taken.
    #[error("there is an account of this name already")]
    Exists,
    /// There is no such account.
    #[error("there is no such account")]
    NotFound,
    /// The account has as many open codes as it may have.
    #[error("the account has as many open one-time codes as it may have")]
    TooManyCodes,
    /// Too many clients or requests at once.
    #[error("it serves too many {0} at once")]
    TooMany(String),
    /// The server could not do it, for this reason.
    #[error("{0}")]
    Failed(String),
}

/// An account in a list, as `account list --json` prints it.
#[derive(Debug, Serialize, Deserialize)]
pub struct AccountLine {
    /// The account's name.
    pub account: AccountName,
    /// When it was made, in milliseconds since 1970.
    pub created_ms: u64,
    /// Devices that are enrolled.
    pub devices: u32,
    /// Sessions that are logged in now.
    pub sessions: usize,
    /// Seconds for which strangers are blocked; 0 when they are not.
    pub blocked_for_s: u32,
}

/// Tells what the engine's reply means to an operator.
///
/// # Errors
///
/// With the reason, if the command was not carried out.
pub(super) fn answer(reply: Reply) -> Result<Answer, Refusal> {
    match reply {
        Reply::Done => Ok(Answer::Done),
        Reply::Exists => Err(Refusal::Exists),
        Reply::NotFound => Err(Refusal::NotFound),
        Reply::Code { code, expires_in_s } => Ok(Answer::Code {
            code: code.to_string(),
            expires_in_s,
        }),
        Reply::Unblocked(unblocked) => {
            let Unblocked {
                has_account,
                blocked_for_s,
                failures,
            } = unblocked;
            Ok(Answer::Unblocked {
                has_account,
                blocked_for_s,
                failures,
            })
        }
        Reply::TooManyCodes => Err(Refusal::TooManyCodes),
        Reply::Accounts {
            accounts,
            may_have_more,
        } => {
            let lines = accounts.into_iter().map(|listed| AccountLine {
                account: listed.summary.account,
                created_ms: listed.summary.created.as_millis(),
                devices: listed.summary.devices,
                sessions: listed.sessions,
                blocked_for_s: listed.blocked_for_s,
            });
            Ok(Answer::Accounts {
                accounts: lines.collect(),
                may_have_more,
            })
        }
        Reply::StoreFailed(error) => Err(Refusal::Failed(error.to_string())),
    }
}

/// Asks the server that runs on a data folder.
///
/// # Errors
///
/// If no server answers there within ten seconds.
pub(super) fn ask(folder: &Path, command: Command) -> io::Result<Result<Answer, Refusal>> {
    let mut client = LineClient::<AdminDialect>::connect(&folder.join(SOCKET))?;
    client.set_patience(ANSWER_TIMEOUT)?;
    client.call(&Call::from(command)).map_err(|error| {
        // So the system calls a read whose time is over.
        let is_late = [ErrorKind::WouldBlock, ErrorKind::TimedOut].contains(&error.kind());
        if !is_late {
            return error;
        }
        let seconds = ANSWER_TIMEOUT.as_secs();
        io::Error::new(ErrorKind::TimedOut, format!("nothing came for {seconds} s"))
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use clap::CommandFactory;
    use common::limits::ACCOUNTS_PER_REPLY_MAX;

    use super::*;
    use crate::args::Arguments;

    /// Programs call them by these names.
    #[test]
    fn the_methods_are_these() {
        let expected = [
            "add_account",
            "remove_account",
            "unblock",
            "admit",
            "list_accounts",
        ];
        assert_eq!(lines::methods::<Call>(), expected);
    }

    /// Whatever the socket takes is `rendezvous account …` for people, and the README lists it.
    #[test]
    fn the_readme_and_the_command_line_have_every_method_and_no_other() {
        let words = |method: &&str| method.split('_').next().map(str::to_owned);
        let methods: BTreeSet<_> = lines::methods::<Call>().iter().filter_map(words).collect();
        let arguments = Arguments::command();
        let account = arguments.find_subcommand("account").unwrap();
        let commands = account.get_subcommands();
        let commands = commands.map(|command| command.get_name().to_owned());
        assert_eq!(commands.collect::<BTreeSet<_>>(), methods);
        let readme = include_str!("../../../README.md").lines();
        let listed = readme.filter_map(|line| line.strip_prefix("rendezvous account "));
        let listed = listed.filter_map(|rest| rest.split(' ').next().map(str::to_owned));
        assert_eq!(listed.collect::<BTreeSet<_>>(), methods);
    }

    #[test]
    fn the_largest_reply_fits_a_line() {
        let account: AccountName = "x".repeat(32).parse().unwrap();
        let accounts = (0..ACCOUNTS_PER_REPLY_MAX).map(|_| AccountLine {
            account: account.clone(),
            created_ms: u64::MAX,
            devices: u32::MAX,
            sessions: usize::MAX,
            blocked_for_s: u32::MAX,
        });
        let answer = Answer::Accounts {
            accounts: accounts.collect(),
            may_have_more: true,
        };
        let line = serde_json::to_string(&answer).unwrap();
        assert!(line.len() + 100 < ADMIN_LINE_LEN_MAX, "{}", line.len());
    }

    #[test]
    fn parameters_that_there_are_not_are_refused() {
        for params in [r#"{"account":"x","force":true}"#, "{}", "null", "[1]"] {
            let line =
                format!(r#"{{"jsonrpc":"2.0","id":1,"method":"unblock","params":{params}}}"#);
            let refused = Request::parse(line.as_bytes()).unwrap_err();
            let refused = serde_json::to_value(&refused).unwrap();
            assert_eq!(refused["error"]["code"], -32602, "{params}: {refused}");
        }
    }

    #[test]
    fn nobody_can_subscribe() {
        let line = br#"{"jsonrpc":"2.0","id":1,"method":"subscribe"}"#;
        let refused = serde_json::to_value(Request::parse(line).unwrap_err()).unwrap();
        assert_eq!(refused["error"]["code"], -32601, "{refused}");
    }

    #[test]
    fn a_record_that_is_none_is_a_wrong_parameter() {
        for record in ["", "AAAA", "not base64"] {
            let line = format!(
                r#"{{"jsonrpc":"2.0","id":1,"method":"add_account","params":{{"account":"alice","record":"{record}"}}}}"#
            );
            let refused = Request::parse(line.as_bytes()).unwrap_err();
            let refused = serde_json::to_value(&refused).unwrap();
            assert_eq!(refused["error"]["code"], -32602, "{record}: {refused}");
        }
    }
}
