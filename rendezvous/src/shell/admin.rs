//! The socket on which a running server takes an operator's commands: JSON, one message a line.
//!
//! It lies in the data folder, for the folder's owner only.

use std::collections::BTreeMap;
use std::fs::{self, File, Permissions};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net as std_unix;
use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use common::id::AccountName;
use common::limits::{ADMIN_CLIENTS_MAX, ADMIN_LINE_LEN_MAX};
use common::password::PasswordRecord;
use mio::net::{UnixListener, UnixStream};
use mio::{Interest, Registry, Token};
use serde::{Deserialize, Serialize};

use super::serve::is_about_the_newcomer;
use crate::server::operator::{Command, CommandId, Reply};

/// Name of the socket.
pub(super) const SOCKET: &str = "admin.sock";
/// Longest path of a Unix socket on any system that we know.
const SOCKET_PATH_LEN_MAX: usize = 100;
/// A running server answers sooner.
const ANSWER_DEADLINE: Duration = Duration::from_secs(10);
/// Tokens of clients begin here.
const CLIENT_TOKENS: usize = 8;

/// A command on its way.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "snake_case", deny_unknown_fields)]
enum Message {
    Add {
        account: AccountName,
        record: String,
    },
    Remove {
        account: AccountName,
    },
    Unblock {
        account: AccountName,
    },
    Admit {
        account: AccountName,
    },
    List {
        after: Option<AccountName>,
    },
}

impl Message {
    fn of(command: &Command) -> Self {
        match command {
            Command::AddAccount { account, record } => Self::Add {
                account: account.clone(),
                record: STANDARD.encode(record.as_bytes()),
            },
            Command::RemoveAccount(account) => Self::Remove {
                account: account.clone(),
            },
            Command::Unblock(account) => Self::Unblock {
                account: account.clone(),
            },
            Command::Admit(account) => Self::Admit {
                account: account.clone(),
            },
            Command::ListAccounts { after } => Self::List {
                after: after.clone(),
            },
        }
    }

    fn into_command(self) -> Option<Command> {
        Some(match self {
            Self::Add { account, record } => {
                let record = STANDARD.decode(record).ok()?;
                let record = PasswordRecord::from_bytes(&record).ok()?;
                Command::AddAccount { account, record }
            }
            Self::Remove { account } => Command::RemoveAccount(account),
            Self::Unblock { account } => Command::Unblock(account),
            Self::Admit { account } => Command::Admit(account),
            Self::List { after } => Command::ListAccounts { after },
        })
    }
}

/// What a command came to, for a person or for the other end of the socket.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "result", rename_all = "snake_case")]
pub(super) enum Response {
    Done,
    Exists,
    NotFound,
    Code {
        code: String,
        expires_in_s: u32,
    },
    TooManyCodes,
    Accounts {
        accounts: Vec<AccountLine>,
        may_have_more: bool,
    },
    Failed {
        message: String,
    },
}

/// An account in a list, as `account list --json` prints it.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct AccountLine {
    pub(super) account: AccountName,
    pub(super) created_ms: u64,
    pub(super) devices: u32,
    pub(super) sessions: usize,
    pub(super) blocked_for_s: u32,
}

impl From<Reply> for Response {
    fn from(reply: Reply) -> Self {
        match reply {
            Reply::Done => Self::Done,
            Reply::Exists => Self::Exists,
            Reply::NotFound => Self::NotFound,
            Reply::Code { code, expires_in_s } => Self::Code {
                code: code.to_string(),
                expires_in_s,
            },
            Reply::TooManyCodes => Self::TooManyCodes,
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
                Self::Accounts {
                    accounts: lines.collect(),
                    may_have_more,
                }
            }
            Reply::StoreFailed(error) => Self::Failed {
                message: error.to_string(),
            },
        }
    }
}

/// Reads the line of a command; `None` if it is none.
pub fn parse_command(line: &[u8]) -> Option<Command> {
    let message = serde_json::from_slice::<Message>(line).ok()?;
    message.into_command()
}

/// A command as its line, without the line feed.
pub fn command_line(command: &Command) -> String {
    serde_json::to_string(&Message::of(command)).expect("a command is plain data")
}

// ---- the command's end -------------------------------------------------------------------------

/// Asks the server that runs on a data folder.
pub(super) fn ask(folder: &Path, command: &Command) -> io::Result<Response> {
    let (path, _folder) = socket_path(folder)?;
    let mut stream = std_unix::UnixStream::connect(path)?;
    stream.set_read_timeout(Some(ANSWER_DEADLINE))?;
    stream.set_write_timeout(Some(ANSWER_DEADLINE))?;
    let mut line = command_line(command);
    line.push('\n');
    stream.write_all(line.as_bytes())?;
    let mut answer = String::new();
    BufReader::new(stream)
        .take(ADMIN_LINE_LEN_MAX as u64)
        .read_line(&mut answer)?;
    Ok(serde_json::from_str(&answer)?)
}

/// The path of the socket; through the folder's descriptor where it would be too long. The file keeps
/// that path alive.
fn socket_path(folder: &Path) -> io::Result<(PathBuf, Option<File>)> {
    let path = folder.join(SOCKET);
    if path.as_os_str().len() <= SOCKET_PATH_LEN_MAX {
        return Ok((path, None));
    }
    let folder = File::open(folder)?;
    let short = format!("/proc/self/fd/{}/{SOCKET}", folder.as_raw_fd());
    Ok((PathBuf::from(short), Some(folder)))
}

// ---- the server's end --------------------------------------------------------------------------

/// The listener and its clients.
#[derive(Debug)]
pub(super) struct Admin {
    listener: UnixListener,
    clients: BTreeMap<u64, Client>,
    last_client: u64,
    path: PathBuf,
}

#[derive(Debug)]
struct Client {
    stream: UnixStream,
    received: Vec<u8>,
    to_send: Vec<u8>,
    /// The one command that is being worked on.
    is_busy: bool,
}

impl Admin {
    /// Listens in a data folder that this process has locked.
    pub(super) fn listen(folder: &Path, registry: &Registry, token: Token) -> io::Result<Self> {
        let (path, _folder) = socket_path(folder)?;
        // Left behind by a server that was killed: the lock says that it is gone.
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let mut listener = UnixListener::bind(&path)?;
        fs::set_permissions(&path, Permissions::from_mode(0o600))?;
        registry.register(&mut listener, token, Interest::READABLE)?;
        Ok(Self {
            listener,
            clients: BTreeMap::new(),
            last_client: 0,
            path: folder.join(SOCKET),
        })
    }

    /// The token of a client: even, because those of connections are odd.
    fn token(client: u64) -> Token {
        Token(CLIENT_TOKENS + 2 * client as usize)
    }

    /// The client behind a token.
    pub(super) const fn client(token: Token) -> u64 {
        ((token.0 - CLIENT_TOKENS) / 2) as u64
    }

    /// Takes new clients; more than a few at once are turned away. `false` when the system has no
    /// descriptor left: the listener does not tell again who waits.
    #[must_use]
    pub(super) fn accept(&mut self, registry: &Registry) -> bool {
        loop {
            let mut stream = match self.listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return true,
                Err(error) if is_about_the_newcomer(&error) => continue,
                Err(error) => {
                    log::warn!("cannot accept commands for the moment: {error}");
                    return false;
                }
            };
            if self.clients.len() >= ADMIN_CLIENTS_MAX {
                continue;
            }
            self.last_client += 1;
            let both = Interest::READABLE | Interest::WRITABLE;
            let token = Self::token(self.last_client);
            if registry.register(&mut stream, token, both).is_ok() {
                let client = Client {
                    stream,
                    received: Vec::new(),
                    to_send: Vec::new(),
                    is_busy: false,
                };
                self.clients.insert(self.last_client, client);
            }
        }
    }

    /// Reads and writes what a client's socket allows; a command that is complete comes back.
    pub(super) fn serve(&mut self, number: u64) -> Option<(CommandId, Command)> {
        let client = self.clients.get_mut(&number)?;
        let is_alive = client.read() && client.write();
        let command = client.next_command();
        match command {
            _ if !is_alive => self.clients.remove(&number).and(None),
            Next::Command(command) => Some((CommandId(number), command)),
            Next::Nothing => None,
            Next::Garbage => {
                let message = "this line is no command".to_owned();
                self.send(number, &Response::Failed { message });
                self.clients.remove(&number).and(None)
            }
        }
    }

    /// Answers a command. What its client sent after it comes back.
    pub(super) fn reply(&mut self, id: CommandId, reply: Reply) -> Option<(CommandId, Command)> {
        self.send(id.0, &Response::from(reply));
        self.serve(id.0)
    }

    /// Removes the socket's file.
    pub(super) fn close(self) {
        let _ = fs::remove_file(self.path);
    }

    fn send(&mut self, number: u64, result: &Response) {
        let Some(client) = self.clients.get_mut(&number) else {
            return;
        };
        client.is_busy = false;
        let line = serde_json::to_vec(result).expect("a result is plain data");
        client.to_send.extend_from_slice(&line);
        client.to_send.push(b'\n');
        if !client.write() {
            self.clients.remove(&number);
        }
    }
}

enum Next {
    Command(Command),
    Nothing,
    Garbage,
}

impl Client {
    /// `false` when the client is gone.
    fn read(&mut self) -> bool {
        let mut bytes = [0; 4096];
        while self.received.len() <= ADMIN_LINE_LEN_MAX {
            match self.stream.read(&mut bytes) {
                Ok(0) => return false,
                Ok(len) => self.received.extend_from_slice(&bytes[..len]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return true,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return false,
            }
        }
        false
    }

    /// `false` when the client is gone.
    fn write(&mut self) -> bool {
        while !self.to_send.is_empty() {
            match self.stream.write(&self.to_send) {
                Ok(len) => drop(self.to_send.drain(..len)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return true,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return false,
            }
        }
        true
    }

    fn next_command(&mut self) -> Next {
        if self.is_busy {
            return Next::Nothing;
        }
        let Some(end) = self.received.iter().position(|byte| *byte == b'\n') else {
            return Next::Nothing;
        };
        let line: Vec<u8> = self.received.drain(..=end).collect();
        match parse_command(&line) {
            Some(command) => {
                self.is_busy = true;
                Next::Command(command)
            }
            None => Next::Garbage,
        }
    }
}
