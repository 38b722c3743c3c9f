//! Both programs speak JSON with `--json`, in every command, whether it succeeds or fails, and say
//! nothing else.

#![expect(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::collections::BTreeSet;

use serde_json::Value;
use tests::program::{Program, Running};
use tests::world::{PATIENCE, World, password_of, text, until};

const EXECUTABLE: &str = env!("CARGO_BIN_EXE_demo");

/// Where the option stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Before,
    Behind,
}

fn with_json<'a>(place: Place, arguments: &[&'a str]) -> Vec<&'a str> {
    match place {
        Place::Before => [&["--json"], arguments].concat(),
        Place::Behind => [arguments, &["--json"]].concat(),
    }
}

/// Every command of a program, as its help lists them, and what each consists of.
fn commands(world: &World, program: Program) -> BTreeSet<Vec<String>> {
    let mut found = BTreeSet::new();
    let mut open = vec![Vec::new()];
    while let Some(path) = open.pop() {
        let mut arguments: Vec<&str> = path.iter().map(String::as_str).collect();
        arguments.push("--help");
        let help = if program == Program::Rendezvous {
            world.rendezvous(&arguments)
        } else {
            world.peer("nobody", &arguments)
        };
        assert_eq!(help.code(), 0, "{help:?}");
        let listed = help.stdout.split("Commands:\n").nth(1).unwrap_or_default();
        for line in listed.lines().take_while(|line| !line.is_empty()) {
            let row = line.strip_prefix("  ").filter(|row| !row.starts_with(' '));
            let name = row.and_then(|row| row.split(' ').next());
            if let Some(name) = name.filter(|name| *name != "help") {
                let path = [path.as_slice(), &[name.to_owned()]].concat();
                open.push(path.clone());
                found.insert(path);
            }
        }
    }
    found
}

/// Tells whether one of the lines is an error; each has to be an object.
#[track_caller]
fn has_error(what: &str, stdout: &str, stderr: &str) -> bool {
    let lines = stdout.lines().chain(stderr.lines()).map(|line| {
        let parsed: Result<Value, _> = serde_json::from_str(line);
        let parsed = parsed.unwrap_or_else(|error| panic!("{what}: {error}: {line}"));
        assert!(parsed.is_object(), "{what}: {line}");
        parsed
    });
    let errors = lines.filter(|line| line.get("error").is_some());
    let errors: Vec<Value> = errors.collect();
    for error in &errors {
        let error = &error["error"];
        assert!(
            error["exit"].is_u64() && error["what"].is_string(),
            "{error}"
        );
    }
    !errors.is_empty()
}

/// Runs commands, and notes which ones succeeded and which failed.
struct Walk<'a> {
    world: &'a World,
    program: Program,
    place: Place,
    done: BTreeSet<Vec<String>>,
    failed: BTreeSet<Vec<String>>,
}

impl<'a> Walk<'a> {
    fn new(world: &'a World, program: Program, place: Place) -> Self {
        Self {
            world,
            program,
            place,
            done: BTreeSet::new(),
            failed: BTreeSet::new(),
        }
    }

    fn run(&self, who: &str, command: &str, more: &[&str]) -> (bool, bool) {
        let words: Vec<&str> = command.split(' ').chain(more.iter().copied()).collect();
        let arguments = with_json(self.place, &words);
        let finished = if self.program == Program::Rendezvous {
            let data = ["--data", who];
            self.world
                .rendezvous(&[&data, arguments.as_slice()].concat())
        } else {
            self.world.peer(who, &arguments)
        };
        let what = format!("{arguments:?}: {finished:?}");
        let has_error = has_error(&what, &finished.stdout, &finished.stderr);
        assert_eq!(has_error, finished.code() != 0, "{what}");
        (finished.code() == 0, finished.stdout.is_empty())
    }

    /// A command that succeeds.
    #[track_caller]
    fn succeed(&mut self, who: &str, command: &str, more: &[&str]) {
        let (is_done, _) = self.run(who, command, more);
        assert!(is_done, "{command} {more:?}");
        self.done.insert(path(command));
    }

    /// A command that goes on until it is interrupted, after a line that says that it has begun.
    #[track_caller]
    fn begin(&mut self, who: &str, command: &str) {
        let running = self.world.start(who, &with_json(self.place, &[command]));
        let is_first = |_: &Value| true;
        let first = running.wait_json("it has begun", PATIENCE, is_first);
        assert!(first.unwrap().is_object());
        let ended = running.end(PATIENCE).unwrap();
        assert_eq!(ended.code(), 130, "{ended:?}");
        assert!(
            !has_error(command, &ended.stdout, &ended.stderr),
            "{ended:?}"
        );
        self.done.insert(path(command));
    }

    /// A command that fails by itself, and one that cannot be understood.
    #[track_caller]
    fn fail(&mut self, who: &str, command: &str, more: &[&str]) {
        for more in [more, &["--nonsense"]] {
            let (is_done, is_silent) = self.run(who, command, more);
            assert!(!is_done && !is_silent, "{command} {more:?}");
        }
        self.failed.insert(path(command));
    }

    /// Whoever adds a command adds it here.
    #[track_caller]
    fn end(self, all: &BTreeSet<Vec<String>>) {
        assert_eq!(self.done, *all, "commands that were tried");
        assert_eq!(self.failed, *all, "commands that were made to fail");
    }
}

fn path(command: &str) -> Vec<String> {
    command.split(' ').map(str::to_owned).collect()
}

fn walk_peer(world: &World, place: Place, all: &BTreeSet<Vec<String>>) {
    let who = match place {
        Place::Before => "alice",
        Place::Behind => "carol",
    };
    let address = &world.server().address;
    let file = world.password_file(who, &password_of(who));
    let fingerprint = &world.server().fingerprint;
    let trust = ["--fingerprint", fingerprint, "--password-file", &file];
    let access = [&[who, "--server", address], &trust[..]].concat();
    let nowhere = [&[who, "--server", "127.0.0.1:1"], &trust[..]].concat();
    let mut walk = Walk::new(world, Program::Peer, place);
    walk.succeed(who, "register", &access);
    walk.succeed(who, "login", &access);
    for plain in [
        "status", "list", "outbox", "history", "admit", "chat", "paths", "doctor",
    ] {
        walk.succeed(who, plain, &[]);
    }
    let waits = world.peer(who, &["send", "dora", "x", "--no-wait"]);
    assert_eq!(waits.code(), 0, "{waits:?}");
    walk.succeed(who, "outbox cancel", &["dora"]);
    walk.succeed(who, "send", &["bob", "hello"]);
    walk.succeed(who, "search", &["hello"]);
    walk.succeed(who, "export", &[]);
    walk.succeed(who, "send-file", &["bob", "letter"]);
    let waits = world.peer("bob", &["send", who, "x", "--no-wait"]);
    assert_eq!(waits.code(), 0, "{waits:?}");
    walk.succeed(who, "receive", &["--once"]);
    for endless in ["run", "events"] {
        walk.begin(who, endless);
    }
    walk.succeed(who, "devices", &[]);
    walk.succeed(who, "verify", &["bob"]);
    let other = format!("other-{who}");
    assert_eq!(world.log_in(&other, who).code(), 0);
    let running = world.receive(&other);
    let fingerprint = text(&world.json(&other, &["status"])[0]["fingerprint"]);
    // Who logs in several times in a row is listed a little later.
    until("the other device is listed", PATIENCE, || {
        let devices = world.json(who, &["devices"]);
        let mut states = devices.iter().map(|device| text(&device["state"]));
        states.find(|state| state == "waiting")
    });
    walk.succeed(who, "devices approve", &[&fingerprint]);
    walk.succeed(who, "devices name", &[&fingerprint, "spare"]);
    walk.succeed(who, "devices revoke", &["spare"]);
    drop(running);
    walk.succeed(who, "logout", &[]);
    walk.fail(who, "forget-server", &[address]);
    walk.succeed(who, "forget-server", &[address, "--yes"]);

    walk.fail("nobody", "register", &nowhere);
    walk.fail("nobody", "login", &nowhere);
    walk.fail("nobody", "forget-server", &[address]);
    walk.fail("nobody", "outbox cancel", &["dora"]);
    walk.fail("nobody", "send", &["bob", "hello"]);
    walk.fail("nobody", "search", &["hello"]);
    walk.fail("nobody", "export", &[]);
    walk.fail("nobody", "verify", &["bob"]);
    for one in ["devices approve", "devices revoke"] {
        walk.fail("nobody", one, &["phone"]);
    }
    walk.fail("nobody", "devices name", &["phone", "spare"]);
    walk.fail("nobody", "send-file", &["bob", "letter"]);
    for plain in [
        "status", "list", "outbox", "history", "admit", "chat", "paths", "receive", "logout",
        "doctor", "run", "events", "devices",
    ] {
        walk.fail("nobody", plain, &[]);
    }
    walk.end(all);
}

#[test]
fn every_command_of_a_peer_takes_json() {
    let world = World::new(EXECUTABLE);
    world.register("bob");
    let bob = world.receive("bob");
    world.make_file("letter", 1000);
    let all = commands(&world, Program::Peer);
    assert!(all.len() >= 14, "{all:?}");
    for place in [Place::Before, Place::Behind] {
        walk_peer(&world, place, &all);
    }
    drop(bob);
    // Nothing but the option is a mistake, too.
    let alone = world.peer("nobody", &["--json"]);
    assert_eq!(alone.code(), 2);
    assert!(has_error("alone", &alone.stdout, &alone.stderr));
}

/// Starts a server, and ends it once it is ready.
fn serve(world: &World, place: Place, data: &str) {
    let words = ["serve", "--listen", "127.0.0.1:0"];
    let arguments = [&["--data", data], with_json(place, &words).as_slice()].concat();
    let mut command = world.rendezvous_command(&arguments);
    let command = command.env("RUST_LOG", "debug");
    let running = Running::start(Program::Rendezvous, command).unwrap();
    let is_ready = |line: &Value| line["ready"] == true;
    running.wait_json("the server", PATIENCE, is_ready).unwrap();
    let log = until("the log says so, too", PATIENCE, || {
        Some(running.complaints()).filter(|log| !log.is_empty())
    });
    let whole = log.rfind('\n').map_or(0, |end| end + 1);
    assert!(!has_error("serve", "", &log[..whole]), "{log}");
    assert_eq!(running.signal("TERM").unwrap().code(), Some(0));
}

fn walk_rendezvous(world: &World, place: Place, data: &str, all: &BTreeSet<Vec<String>>) {
    let file = world.password_file("alice", &password_of("alice"));
    let mut walk = Walk::new(world, Program::Rendezvous, place);
    walk.succeed(data, "account add", &["alice", "--password-file", &file]);
    walk.succeed(data, "account list", &[]);
    walk.succeed(data, "account unblock", &["alice"]);
    walk.succeed(data, "account admit", &["alice"]);
    walk.succeed(data, "account remove", &["alice", "--yes"]);
    walk.succeed(data, "fingerprint", &[]);
    walk.done.extend([path("serve"), path("account")]);

    walk.fail(
        data,
        "account add",
        &["alice", "--password-file", "missing"],
    );
    walk.fail("missing", "account list", &[]);
    for command in ["account unblock", "account admit"] {
        walk.fail(data, command, &["nobody"]);
    }
    walk.fail(data, "account remove", &["nobody", "--yes"]);
    walk.fail("missing", "fingerprint", &[]);
    walk.fail("letter", "serve", &["--listen", "127.0.0.1:0"]);
    walk.fail(data, "account", &["nonsense"]);
    walk.end(all);
}

#[test]
fn every_command_of_a_server_takes_json() {
    let world = World::new(EXECUTABLE);
    world.make_file("letter", 1000);
    let all = commands(&world, Program::Rendezvous);
    assert!(all.len() >= 8, "{all:?}");
    for place in [Place::Before, Place::Behind] {
        serve(&world, place, "another");
        for data in ["server", "another"] {
            walk_rendezvous(&world, place, data, &all);
        }
    }
}
