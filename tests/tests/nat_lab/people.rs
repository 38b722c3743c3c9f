//! The server and its people in the namespaces of a network.

use std::cell::Cell;
use std::fs::{self, File};
use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::process::{ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;
use tests::program::{Program, Programs, Running, START, now, run};
use tests::world::{PATIENCE, password_of, text};

use super::network::{Host, SERVER_PORT, within};

const EXECUTABLE: &str = env!("CARGO_BIN_EXE_demo");

/// What people need of a server that anybody may register at, and the folder of all profiles.
#[derive(Debug)]
pub(crate) struct Service {
    programs: Programs,
    fingerprint: String,
    _folder: TempDir,
}

/// Somebody with an account and a host.
#[derive(Clone, Debug)]
pub(crate) struct Person {
    pub(crate) name: String,
    pub(crate) host: Host,
    /// Whether the device is announced on the LAN.
    pub(crate) uses_lan: bool,
    /// Whether the device asks its gateway for a port.
    pub(crate) maps_port: bool,
}

/// A chat that is open, and when its program was started.
#[derive(Debug)]
pub(crate) struct Chat {
    running: Running,
    started: Instant,
    typed: ChildStdin,
}

/// A file that is on its way.
#[derive(Debug)]
pub(crate) struct Sending {
    running: Running,
    /// What was said last.
    is_direct: Cell<bool>,
}

/// How the packets of a link go, as `peer paths` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Path {
    /// To this address of the other device.
    Direct(SocketAddr),
    /// Through the server.
    Relayed,
}

impl Person {
    /// Somebody who has no account yet. `number` tells the UDP ports of those on one host apart.
    pub(crate) fn new(name: String, host: &Host, number: u16) -> Self {
        let mut host = host.clone();
        host.port += number;
        Self {
            name,
            host,
            uses_lan: false,
            maps_port: false,
        }
    }

    /// The same, announced on the LAN.
    pub(crate) fn on_lan(self) -> Self {
        let uses_lan = true;
        Self { uses_lan, ..self }
    }

    /// The same at another UDP port, as without --udp: nobody remembers it from before.
    pub(crate) fn at_another_port(mut self) -> Self {
        self.host.port += 100;
        self
    }

    /// The same, at a port of the gateway's.
    pub(crate) fn with_mapping(self) -> Self {
        let maps_port = true;
        Self { maps_port, ..self }
    }
}

impl Service {
    /// Time for a program to end in good order.
    pub(crate) const END: Duration = Duration::from_secs(20);

    /// Starts the server in a namespace, on every address that it has.
    #[track_caller]
    pub(crate) fn start(namespace: &str) -> (Self, Running) {
        Self::start_with(namespace, &[])
    }

    /// The same with more arguments.
    #[track_caller]
    pub(crate) fn start_with(namespace: &str, more: &[&str]) -> (Self, Running) {
        let folder = tempfile::Builder::new().prefix("messenger-nat-").tempdir();
        let folder = folder.expect("there is room for a temporary folder");
        let programs = Programs::new(EXECUTABLE, folder.path());
        let port = SERVER_PORT.to_string();
        let arguments = ["--data", "server", "serve", "--json", "--listen", &port];
        let arguments = arguments.iter().chain(more).copied();
        let command = programs.command(Program::Rendezvous, arguments);
        let server = start(Program::Rendezvous, within(namespace, &command));
        let ready = server.wait_json("the server is ready", START, |line| line["ready"] == true);
        let ready = ready.unwrap_or_else(|error| panic!("{error}"));
        let service = Self {
            programs,
            fingerprint: text(&ready["fingerprint"]),
            _folder: folder,
        };
        (service, server)
    }

    /// Creates somebody's account and profile.
    #[track_caller]
    pub(crate) fn register(&self, person: &Person) {
        let name = &person.name;
        let password_file = format!("{name}.password");
        let mut options = File::options();
        options.write(true).create_new(true).mode(0o600);
        let file = options.open(self.programs.folder().join(&password_file));
        let written = file.and_then(|mut file| file.write_all(password_of(name).as_bytes()));
        written.expect("the folder takes a file");
        let server = person.host.server.to_string();
        let arguments = [
            "register",
            name,
            "--server",
            &server,
            "--fingerprint",
            &self.fingerprint,
            "--password-file",
            &password_file,
        ];
        let finished = run(Program::Peer, &mut self.command(person, &arguments));
        let finished = finished.unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(finished.code(), 0, "{finished:?}");
    }

    /// Starts `receive` for somebody, and waits until it is online.
    #[track_caller]
    pub(crate) fn receive(&self, person: &Person) -> Running {
        let inbox = self.inbox(person);
        fs::create_dir(&inbox).expect("the folder takes a folder");
        let inbox = inbox.to_str().expect("its name is a text");
        let arguments = ["--json", "receive", "--accept", "always", "--folder", inbox];
        let running = start(Program::Peer, self.command(person, &arguments));
        let is_online = |line: &Value| line["params"]["state"] == "online";
        let online = running.wait_json("the receiver is online", PATIENCE, is_online);
        online.unwrap_or_else(|error| panic!("{error}"));
        running
    }

    /// Starts a chat, with a first message that is typed at once.
    #[track_caller]
    pub(crate) fn chat(&self, person: &Person, with: &Person) -> Chat {
        let mut chat = self.open_chat(person, with);
        chat.say("hello");
        chat
    }

    /// Starts a chat.
    #[track_caller]
    pub(crate) fn open_chat(&self, person: &Person, with: &Person) -> Chat {
        let mut command = self.command(person, &["--json", "chat", &with.name]);
        command.stdin(Stdio::piped());
        command.env("RUST_LOG", "peer::node::links=debug");
        let started = now();
        let mut running = start(Program::Peer, command);
        let typed = running.take_stdin().expect("it was asked to be piped");
        Chat {
            running,
            started,
            typed,
        }
    }

    /// Starts to send a file of this folder.
    #[track_caller]
    pub(crate) fn send_file(&self, person: &Person, to: &Person, file: &str) -> Sending {
        let arguments = ["--json", "send-file", &to.name, file];
        let mut command = self.command(person, &arguments);
        command.env("RUST_LOG", "peer::node::links=debug");
        Sending {
            running: start(Program::Peer, command),
            is_direct: Cell::new(false),
        }
    }

    /// The folder of all files and profiles.
    pub(crate) fn folder(&self) -> &std::path::Path {
        self.programs.folder()
    }

    /// Where somebody's files arrive.
    pub(crate) fn inbox(&self, person: &Person) -> PathBuf {
        self.folder().join(format!("inbox-{}", person.name))
    }

    /// What the doctor says of somebody's connection, and of the way to somebody else.
    #[track_caller]
    pub(crate) fn doctor(&self, person: &Person, with: Option<&Person>) -> Value {
        let mut arguments = vec!["--json", "doctor"];
        arguments.extend(with.map(|with| with.name.as_str()));
        let finished = run(Program::Peer, &mut self.command(person, &arguments));
        let finished = finished.unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(finished.code(), 0, "{finished:?}");
        let [found] = &finished.json()[..] else {
            panic!("it is one object: {finished:?}");
        };
        found.clone()
    }

    /// How the packets go from somebody who is in a chat.
    #[track_caller]
    pub(crate) fn path(&self, person: &Person, with: &Person) -> Path {
        let finished = run(
            Program::Peer,
            &mut self.command(person, &["--json", "paths"]),
        );
        let finished = finished.unwrap_or_else(|error| panic!("{error}"));
        let links = finished.json();
        let [link] = &links[..] else {
            panic!("{} has other links than one: {finished:?}", person.name);
        };
        assert_eq!(link["account"], with.name, "{link}");
        match link["path"].as_str() {
            Some("relayed") => Path::Relayed,
            Some("direct") => {
                let remote = text(&link["remote"]).parse();
                Path::Direct(remote.expect("it is an address with a port"))
            }
            Some(_) | None => panic!("there is no such path: {link}"),
        }
    }

    /// What `peer status` says while another program of the profile runs.
    #[track_caller]
    pub(crate) fn status(&self, person: &Person) -> Value {
        let mut command = self.command(person, &["--json", "status"]);
        let finished = run(Program::Peer, &mut command);
        let finished = finished.unwrap_or_else(|error| panic!("{error}"));
        let [status] = &finished.json()[..] else {
            panic!("{finished:?}");
        };
        status.clone()
    }

    /// Who is heard on somebody's LAN, as `peer status` says.
    #[track_caller]
    pub(crate) fn nearby(&self, person: &Person) -> Vec<String> {
        let status = self.status(person);
        let nearby = status["nearby"].as_array();
        let nearby = nearby.unwrap_or_else(|| panic!("{status}"));
        nearby.iter().map(text).collect()
    }

    /// A command of somebody's profile, in the namespace of the host.
    fn command(&self, person: &Person, arguments: &[&str]) -> Command {
        let profile = format!("./{}", person.name);
        let all = ["--profile", &profile].into_iter();
        let all = all.chain(arguments.iter().copied());
        let mut command = self.programs.command(Program::Peer, all);
        command.env("PEER_UDP", person.host.port.to_string());
        if person.uses_lan {
            // Its namespace is the test's: what is sent there goes nowhere else.
            command.env_remove("PEER_NO_LAN");
        }
        if person.maps_port {
            command.env_remove("PEER_NO_PORT_MAPPING");
        }
        let mut command = within(&person.host.namespace, &command);
        command.stdin(Stdio::null());
        command
    }
}

impl Sending {
    /// Tells whether the packets go straight to the other device now.
    pub(crate) fn is_direct(&self) -> bool {
        let is_of_path = |line: &str| line.contains("Current(");
        let next = || {
            let running = &self.running;
            running.wait_complaint("a path", Duration::ZERO, is_of_path)
        };
        while let Ok(line) = next() {
            self.is_direct.set(line.contains("Current(Direct("));
        }
        self.is_direct.get()
    }

    /// Waits until the file is there.
    #[track_caller]
    pub(crate) fn wait_done(self) {
        let finished = self.running.finish(PATIENCE);
        let finished = finished.unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(finished.code(), 0, "{finished:?}");
    }
}

impl Chat {
    /// Types a line.
    #[track_caller]
    pub(crate) fn say(&mut self, text: &str) {
        writeln!(self.typed, "{text}").expect("the chat reads what is typed");
    }

    /// Waits for a line that the chat prints.
    #[track_caller]
    pub(crate) fn wait(&self, what: &str, is_it: impl Fn(&Value) -> bool) {
        let found = self.running.wait_json(what, PATIENCE, is_it);
        found.unwrap_or_else(|error| panic!("{error}"));
    }

    /// The same, if the line comes in time.
    pub(crate) fn try_wait(
        &self,
        what: &str,
        patience: Duration,
        is_it: impl Fn(&Value) -> bool,
    ) -> Option<Value> {
        self.running.wait_json(what, patience, is_it).ok()
    }

    /// Ends it in good order.
    #[track_caller]
    pub(crate) fn end(self) {
        drop(self.typed);
        let ended = self.running.finish(Service::END);
        ended.unwrap_or_else(|error| panic!("{error}"));
    }

    /// Waits until the first message is on the other's disk. Returns the time from the program's start.
    #[track_caller]
    pub(crate) fn wait_delivered(&self) -> Duration {
        let delivered = self.running.wait_json("a receipt", PATIENCE, is_receipt);
        delivered.unwrap_or_else(|error| panic!("{error}"));
        self.age()
    }

    /// Tells whether a message is on the other's disk by the time that the program is so old.
    pub(crate) fn is_delivered_by(&self, age: Duration) -> bool {
        let left = age.saturating_sub(self.age());
        self.try_wait("a receipt", left, is_receipt).is_some()
    }

    /// Waits until the link takes a direct path. Returns how long it was searched for: since the other
    /// side had offered its addresses through the relay, or no time if the link never was relayed. `None` if
    /// that does not come in time.
    pub(crate) fn wait_direct(&self, patience: Duration) -> Option<Duration> {
        let mut offered = None;
        let deadline = now() + patience;
        loop {
            let left = deadline.saturating_duration_since(now());
            let is_of_link = |line: &str| line.contains(" link LinkId(");
            let line = self
                .running
                .wait_complaint("a path", left, is_of_link)
                .ok()?;
            let at = time_of_day(&line)?;
            if line.contains("AddressesOffered") {
                offered.get_or_insert(at);
            }
            if line.contains("Current(Direct(") {
                return Some(at.saturating_sub(offered.unwrap_or(at)));
            }
        }
    }

    /// The time since the program's start.
    pub(crate) fn age(&self) -> Duration {
        now().saturating_duration_since(self.started)
    }
}

#[track_caller]
fn start(program: Program, mut command: Command) -> Running {
    let running = Running::start(program, &mut command);
    running.unwrap_or_else(|error| panic!("{error}"))
}

fn is_receipt(line: &Value) -> bool {
    line["method"] == "message_state" && line["params"]["state"] == "delivered"
}

/// The time of a log line, `[2026-11-23T00:13:32.113Z …`, since midnight.
fn time_of_day(line: &str) -> Option<Duration> {
    let (_, time) = line.split_once('T')?;
    let (time, _) = time.split_once('Z')?;
    let seconds = time.split(':').try_fold(0.0, |sum, part| {
        Some(sum * 60.0 + part.parse::<f64>().ok()?)
    })?;
    Some(Duration::from_secs_f64(seconds))
}
