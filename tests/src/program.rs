//! The real programs as processes of their own.
//!
//! Neither `cargo run --bin demo` nor `cargo test` builds another package's programs. So an executable
//! of this package runs itself again, and [`dispatch`] at the top of its `main` makes it the program
//! that was asked for.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitCode, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use serde_json::Value;

/// Names the program that the executable is to be.
const RUN_AS: &str = "MESSENGER_TEST_PROGRAM";

/// The programs of the project.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// The server.
    Rendezvous,
    /// The peer.
    Peer,
    /// The file sender that the bench compares with.
    #[cfg(feature = "bench")]
    QuinnSender,
    /// One end of the bench's messages.
    #[cfg(feature = "bench")]
    MessageEnd,
    /// The load of the bench's log-ins.
    #[cfg(feature = "bench")]
    LoginLoad,
    /// The servers' part of the bench's least possible log-ins.
    #[cfg(feature = "bench")]
    LoginFloor,
    /// The load of the bench's STUN requests.
    #[cfg(feature = "bench")]
    StunLoad,
    /// The load of the bench's relayed packets.
    #[cfg(feature = "bench")]
    RelayLoad,
}

impl Program {
    /// Its name on a command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Rendezvous => "rendezvous",
            Self::Peer => "peer",
            #[cfg(feature = "bench")]
            Self::QuinnSender => "quinn-sender",
            #[cfg(feature = "bench")]
            Self::MessageEnd => "message-end",
            #[cfg(feature = "bench")]
            Self::LoginLoad => "login-load",
            #[cfg(feature = "bench")]
            Self::LoginFloor => "login-floor",
            #[cfg(feature = "bench")]
            Self::StunLoad => "stun-load",
            #[cfg(feature = "bench")]
            Self::RelayLoad => "relay-load",
        }
    }
}

/// Runs as one of the programs if the environment says so. To be called before anything else.
pub fn dispatch() -> Option<ExitCode> {
    let name = std::env::var_os(RUN_AS)?;
    match name.to_str() {
        Some("rendezvous") => Some(rendezvous::shell::main(std::env::args_os())),
        Some("peer") => Some(peer::commands::main(std::env::args_os())),
        #[cfg(feature = "bench")]
        Some("quinn-sender") => Some(crate::bench::quinn_sender::main(&arguments())),
        #[cfg(feature = "bench")]
        Some("message-end") => Some(crate::bench::message::end(&arguments())),
        #[cfg(feature = "bench")]
        Some("login-load") => Some(crate::bench::login::load(&arguments())),
        #[cfg(feature = "bench")]
        Some("login-floor") => Some(crate::bench::login::floor::main()),
        #[cfg(feature = "bench")]
        Some("stun-load") => Some(crate::bench::stun::load()),
        #[cfg(feature = "bench")]
        Some("relay-load") => Some(crate::bench::relay::load(&arguments())),
        Some(_) | None => None,
    }
}

#[cfg(feature = "bench")]
fn arguments() -> Vec<String> {
    std::env::args().skip(1).collect()
}

/// Starts programs in a folder of their own, with nothing of the caller's environment that they look
/// at.
#[derive(Clone, Debug)]
pub struct Programs {
    executable: PathBuf,
    folder: PathBuf,
}

impl Programs {
    /// `executable` calls [`dispatch`]; `folder` exists.
    pub fn new(executable: impl Into<PathBuf>, folder: impl Into<PathBuf>) -> Self {
        Self {
            executable: executable.into(),
            folder: folder.into(),
        }
    }

    /// The folder that the programs run in.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// A program with arguments, not started.
    pub fn command<S: AsRef<OsStr>>(
        &self,
        program: Program,
        arguments: impl IntoIterator<Item = S>,
    ) -> Command {
        let mut command = Command::new(&self.executable);
        command
            .env(RUN_AS, program.name())
            .args(arguments)
            .current_dir(&self.folder);
        for name in [
            "RUST_LOG",
            "PEER_PROFILE",
            "PEER_UDP",
            "RENDEZVOUS_DATA",
            "RENDEZVOUS_LISTEN",
        ] {
            command.env_remove(name);
        }
        // Everything stays on the loopback interface, whatever addresses this machine has.
        command.env("PEER_UDP", "127.0.0.1:0");
        command.env("PEER_NO_LAN", "1");
        command.env("PEER_NO_PORT_MAPPING", "1");
        command
            .env("HOME", &self.folder)
            .env("XDG_DATA_HOME", self.folder.join("data"));
        command.stdin(Stdio::null());
        command
    }

    /// Runs a program to its end.
    pub fn run<S: AsRef<OsStr>>(
        &self,
        program: Program,
        arguments: impl IntoIterator<Item = S>,
    ) -> Result<Finished, ProgramError> {
        run(program, &mut self.command(program, arguments))
    }

    /// Starts a program whose lines are read as they come.
    pub fn start<S: AsRef<OsStr>>(
        &self,
        program: Program,
        arguments: impl IntoIterator<Item = S>,
    ) -> Result<Running, ProgramError> {
        Running::start(program, &mut self.command(program, arguments))
    }

    /// Starts a server on a free port of the loopback interface, with its data in `data`, and waits
    /// until it is ready.
    pub fn serve(&self, data: &str, more: &[&str]) -> Result<Server, ProgramError> {
        let fixed = ["--data", data, "serve", "--json", "--listen"];
        let listen = if more.contains(&"--listen") {
            &[][..]
        } else {
            &["127.0.0.1:0"][..]
        };
        let fixed = if listen.is_empty() {
            &fixed[..4]
        } else {
            &fixed[..]
        };
        let arguments: Vec<&str> = fixed.iter().chain(listen).chain(more).copied().collect();
        let running = self.start(Program::Rendezvous, arguments)?;
        let ready =
            running.wait_json("the server is ready", START, |line| line["ready"] == true)?;
        let text = |name: &str| ready[name].as_str().unwrap_or_default().to_owned();
        Ok(Server {
            running,
            address: text("address"),
            fingerprint: text("fingerprint"),
        })
    }
}

/// Time for a program to be ready.
pub const START: Duration = Duration::from_secs(20);
/// Time for a program that ends by itself. Longer than any of its own deadlines for one step.
pub const END: Duration = Duration::from_secs(90);

/// Gives a command that runs another one the folder and the environment of that.
pub fn surround(wrapped: &mut Command, command: &Command) {
    if let Some(folder) = command.get_current_dir() {
        wrapped.current_dir(folder);
    }
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => wrapped.env(name, value),
            None => wrapped.env_remove(name),
        };
    }
}

/// Runs a command of [`Programs::command`] to its end. A program that does not end by itself is
/// killed, and that is an error.
pub fn run(program: Program, command: &mut Command) -> Result<Finished, ProgramError> {
    let failed = |source| ProgramError::Start { program, source };
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(failed)?;
    let stdout = child.stdout.take().map(read_all);
    let stderr = child.stderr.take().map(read_all);
    let deadline = now() + END;
    let mut texts = [stdout, stderr].into_iter().flatten().map(|stream| {
        let left = deadline.saturating_duration_since(now());
        stream.recv_timeout(left).ok()
    });
    let (Some(Some(stdout)), Some(Some(stderr))) = (texts.next(), texts.next()) else {
        // It may have ended by itself this moment; either way it is gone.
        let _ = child.kill();
        let _ = child.wait();
        return Err(ProgramError::Never {
            what: format!("{} ends", program.name()),
            complaints: format!("{command:?}"),
        });
    };
    Ok(Finished {
        status: child.wait().map_err(failed)?,
        stdout,
        stderr,
    })
}

/// A server that is ready.
#[derive(Debug)]
pub struct Server {
    /// The process.
    pub running: Running,
    /// Where it listens, `ADDRESS:PORT`.
    pub address: String,
    /// Its key's fingerprint.
    pub fingerprint: String,
}

/// A program that has ended.
#[derive(Clone, Debug)]
pub struct Finished {
    /// How.
    pub status: ExitStatus,
    /// What it printed.
    pub stdout: String,
    /// What it complained about.
    pub stderr: String,
}

impl Finished {
    /// Its exit code; -1 if a signal ended it.
    pub fn code(&self) -> i32 {
        self.status.code().unwrap_or(-1)
    }

    /// The JSON objects that it printed, one a line.
    pub fn json(&self) -> Vec<Value> {
        self.stdout
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok())
            .collect()
    }
}

/// A program that runs. It is killed when this is dropped.
#[derive(Debug)]
pub struct Running {
    program: Program,
    child: Child,
    lines: Receiver<String>,
    errors: Receiver<String>,
}

impl Running {
    /// Starts a command of [`Programs::command`].
    pub fn start(program: Program, command: &mut Command) -> Result<Self, ProgramError> {
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(|error| ProgramError::Start {
            program,
            source: error,
        })?;
        let lines = child.stdout.take().map(read_lines);
        let errors = child.stderr.take().map(read_lines);
        let (Some(lines), Some(errors)) = (lines, errors) else {
            unreachable!("both were asked to be piped");
        };
        Ok(Self {
            program,
            child,
            lines,
            errors,
        })
    }

    /// Its standard input, if that was asked to be piped and is not taken yet.
    pub fn take_stdin(&mut self) -> Option<ChildStdin> {
        self.child.stdin.take()
    }

    /// The process's number.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits for a line of JSON on its standard output that `is_it`. Lines before it are used up.
    pub fn wait_json(
        &self,
        what: &str,
        patience: Duration,
        is_it: impl Fn(&Value) -> bool,
    ) -> Result<Value, ProgramError> {
        let deadline = now() + patience;
        loop {
            let left = deadline.saturating_duration_since(now());
            match self.lines.recv_timeout(left) {
                Ok(line) => match serde_json::from_str(&line) {
                    Ok(value) if is_it(&value) => return Ok(value),
                    Ok(_) | Err(_) => {}
                },
                Err(reason) => return Err(self.never(what, reason)),
            }
        }
    }

    /// Waits for a line on its standard output that `is_it`. Lines before it are used up.
    pub fn wait_line(
        &self,
        what: &str,
        patience: Duration,
        is_it: impl Fn(&str) -> bool,
    ) -> Result<String, ProgramError> {
        wait_in(&self.lines, what, patience, is_it)
    }

    /// The same on its standard error.
    pub fn wait_complaint(
        &self,
        what: &str,
        patience: Duration,
        is_it: impl Fn(&str) -> bool,
    ) -> Result<String, ProgramError> {
        wait_in(&self.errors, what, patience, is_it)
    }

    /// Waits until it ends by itself, and returns how it did, with what it printed since somebody last
    /// looked.
    pub fn finish(mut self, patience: Duration) -> Result<Finished, ProgramError> {
        let program = self.program;
        let deadline = now() + patience;
        let [stdout, stderr] = [&self.lines, &self.errors].map(|lines| {
            let mut text = String::new();
            loop {
                let left = deadline.saturating_duration_since(now());
                match lines.recv_timeout(left) {
                    Ok(line) => text.extend([line.as_str(), "\n"]),
                    Err(RecvTimeoutError::Disconnected) => return Ok(text),
                    Err(RecvTimeoutError::Timeout) => return Err(text),
                }
            }
        });
        let (Ok(stdout), Ok(stderr)) = (&stdout, &stderr) else {
            return Err(ProgramError::Never {
                what: format!("{} ends", program.name()),
                complaints: format!("{stdout:?}\n{stderr:?}"),
            });
        };
        let status = self.child.wait();
        Ok(Finished {
            status: status.map_err(|source| ProgramError::Start { program, source })?,
            stdout: stdout.clone(),
            stderr: stderr.clone(),
        })
    }

    /// Tells whether it still runs.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// What it has complained about so far.
    pub fn complaints(&self) -> String {
        self.errors.try_iter().collect::<Vec<_>>().join("\n")
    }

    /// Asks it to end, as Ctrl-C does, and returns how it did, with what it printed since somebody last
    /// looked.
    pub fn end(self, patience: Duration) -> Result<Finished, ProgramError> {
        self.send_signal("INT")?;
        self.finish(patience)
    }

    /// Asks it to end, as Ctrl-C does, and waits until it has.
    pub fn interrupt(self) -> Result<ExitStatus, ProgramError> {
        self.signal("INT")
    }

    /// Sends it a signal by name, and waits until it has ended.
    pub fn signal(mut self, name: &str) -> Result<ExitStatus, ProgramError> {
        let program = self.program;
        let failed = |error| ProgramError::Start {
            program,
            source: error,
        };
        self.send_signal(name)?;
        let deadline = now() + START;
        loop {
            if let Some(status) = self.child.try_wait().map_err(failed)? {
                return Ok(status);
            }
            if now() > deadline {
                let complaints = self.complaints();
                return Err(ProgramError::Never {
                    what: format!("{} ends", program.name()),
                    complaints,
                });
            }
            // It closes its standard output when it ends: wait for that rather than for a while.
            let _ = self.lines.recv_timeout(Duration::from_millis(20));
        }
    }

    /// Sends it a signal by name.
    pub fn send_signal(&self, name: &str) -> Result<(), ProgramError> {
        let (program, id) = (self.program, self.id().to_string());
        Command::new("kill")
            .args([&format!("-{name}"), &id])
            .status()
            .map_err(|source| ProgramError::Start { program, source })?;
        Ok(())
    }

    /// Ends it without a word, as a crash does.
    pub fn kill(mut self) {
        // It may have ended by itself; either way it is gone.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    fn never(&self, what: &str, reason: RecvTimeoutError) -> ProgramError {
        let what = match reason {
            RecvTimeoutError::Timeout => what.to_owned(),
            RecvTimeoutError::Disconnected => format!("{what}; {} has ended", self.program.name()),
        };
        ProgramError::Never {
            what,
            complaints: self.complaints(),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself; either way it is gone.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A program did not do what it should.
#[derive(Debug, thiserror::Error)]
pub enum ProgramError {
    /// It cannot be started or signalled.
    #[error("{program} cannot be run: {source}", program = .program.name())]
    Start {
        /// Which.
        program: Program,
        /// Why not.
        source: std::io::Error,
    },
    /// Something that was waited for never came.
    #[error("this never came: {what}\n{complaints}")]
    Never {
        /// What was waited for.
        what: String,
        /// What the program complained about.
        complaints: String,
    },
}

fn wait_in(
    lines: &Receiver<String>,
    what: &str,
    patience: Duration,
    is_it: impl Fn(&str) -> bool,
) -> Result<String, ProgramError> {
    let deadline = now() + patience;
    let mut seen = Vec::new();
    loop {
        let left = deadline.saturating_duration_since(now());
        match lines.recv_timeout(left) {
            Ok(line) if is_it(&line) => return Ok(line),
            Ok(line) => seen.push(line),
            Err(_) => {
                return Err(ProgramError::Never {
                    what: what.to_owned(),
                    complaints: seen.join("\n"),
                });
            }
        }
    }
}

fn read_lines(stream: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(stream).lines() {
            let Ok(line) = line else { return };
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    receiver
}

fn read_all(mut stream: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        // What came before an error is still worth showing.
        let _ = stream.read_to_end(&mut bytes);
        let _ = sender.send(String::from_utf8_lossy(&bytes).into_owned());
    });
    receiver
}

/// The clock of everything that waits for a process.
#[expect(
    clippy::disallowed_methods,
    reason = "waiting for another process needs a clock"
)]
pub fn now() -> Instant {
    Instant::now()
}
