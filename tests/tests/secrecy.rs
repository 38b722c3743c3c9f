//! Where a password and keys must never be seen by others on the same machine.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod terminal;

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use tests::program::{Program, Running};
use tests::world::{PATIENCE, World, password_of, run, with_stdin};

use terminal::Terminal;

const EXECUTABLE: &str = env!("CARGO_BIN_EXE_demo");

#[test]
fn t33_a_password_is_in_no_argument_environment_log_or_file() {
    let world = World::new(EXECUTABLE);
    let password = password_of("alice");
    let (address, fingerprint) = (&world.server().address, &world.server().fingerprint);
    fs::write(world.path("typed"), format!("{password}\n")).unwrap();
    let arguments = [
        "-vv",
        "register",
        "alice",
        "--server",
        address,
        "--fingerprint",
        fingerprint,
        "--password-file",
        "-",
    ];
    let command = world.peer_command("alice", &arguments);
    let mut command = with_stdin(command, &world.path("typed"));
    let registered = run(Program::Peer, command.env("RUST_LOG", "trace"));
    assert_eq!(registered.code(), 0, "{registered:?}");
    let arguments = ["login", "alice", "--password-file", "-"];
    let command = world.peer_command("alice", &arguments);
    let mut command = with_stdin(command, &world.path("typed"));
    let logged_in = run(Program::Peer, command.env("RUST_LOG", "trace"));
    assert_eq!(logged_in.code(), 0, "{logged_in:?}");
    for finished in [&registered, &logged_in] {
        assert!(
            finished.stderr.contains("TRACE"),
            "the log is on: {finished:?}"
        );
        for shown in [&finished.stdout, &finished.stderr] {
            assert!(!shown.contains(&password), "{shown}");
        }
    }
    fs::remove_file(world.path("typed")).unwrap();
    for path in all_files(&world.path(".")) {
        let bytes = fs::read(&path).unwrap();
        let is_in = bytes
            .windows(password.len())
            .any(|window| window == password.as_bytes());
        assert!(!is_in, "{}", path.display());
    }
}

#[test]
fn t33_other_users_see_no_password_of_a_peer_that_is_logging_in() {
    let world = World::new(EXECUTABLE);
    let password = password_of("alice");
    let proc = Path::new("/proc/self/cmdline");
    if !proc.exists() {
        println!("skipped: there is no /proc");
        return;
    }
    // A server that accepts and says nothing keeps the log-in waiting for as long as it takes to look.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap().to_string();
    let file = world.password_file("alice", &password);
    let arguments = [
        "register",
        "alice",
        "--server",
        &address,
        "--fingerprint",
        &world.server().fingerprint,
        "--password-file",
        &file,
    ];
    let running = world.start("alice", &arguments);
    let accepted = silent.accept().unwrap();
    for name in ["cmdline", "environ"] {
        let bytes = fs::read(format!("/proc/{}/{name}", running.id())).unwrap();
        assert!(!bytes.is_empty(), "{name} can be read");
        let is_in = bytes
            .windows(password.len())
            .any(|window| window == password.as_bytes());
        assert!(!is_in, "{name}");
    }
    drop(accepted);
    running.kill();
}

#[test]
fn t33_profiles_and_data_folders_are_for_their_owner() {
    let world = World::new(EXECUTABLE);
    world.register("alice");
    world.register("bob");
    let _bob = world.receive("bob");
    let _alice = world.receive("alice");
    world.json("alice", &["send", "bob", "hello"]);
    for folder in ["alice", "bob", "server"] {
        let path = world.path(folder);
        assert_eq!(mode(&path), 0o700, "{folder}");
        let names = world.names_in(folder);
        assert!(names.len() >= 4, "{names:?}");
        for name in names {
            assert_eq!(mode(&path.join(&name)), 0o600, "{folder}/{name}");
        }
    }
    let socket = fs::metadata(world.path("alice/socket")).unwrap();
    assert!(socket.file_type().is_socket());
}

#[test]
fn t33_a_trace_of_a_whole_conversation_holds_no_key_and_no_text() {
    let world = World::new(EXECUTABLE);
    world.register("alice");
    world.register("bob");
    let key = fs::read_to_string(world.path("bob/device-key")).unwrap();
    let key = key.trim();
    assert!(key.len() > 40);
    let arguments = world.receive_arguments("bob", &["--accept", "always"]);
    let mut command = world.peer_command("bob", &arguments);
    let bob = Running::start(Program::Peer, command.env("RUST_LOG", "trace")).unwrap();
    world.wait_ready("bob");
    let body = "a text that is nobody's business";
    world.json("alice", &["send", "bob", body]);
    let log = bob.end(PATIENCE).unwrap().stderr;
    assert!(log.contains("TRACE"), "the log is on: {log}");
    for secret in [key, body, &password_of("bob")] {
        assert!(!log.contains(secret), "{secret} is in the log");
    }
}

#[test]
fn t33_a_trace_of_a_chat_holds_no_key_that_is_typed() {
    let world = World::new(EXECUTABLE);
    world.register("alice");
    world.register("bob");
    let mut chat = world.peer_command("alice", &["chat", "bob"]);
    for filter in ["trace", "rustyline=trace"] {
        chat.env("RUST_LOG", filter);
        let mut terminal = Terminal::start(&chat, 200);
        terminal.wait("the prompt", PATIENCE, |screen| screen.contains("bob>"));
        terminal.type_keys("Q");
        terminal.wait("it is typed", PATIENCE, |screen| screen.contains('Q'));
        terminal.type_keys("\u{7f}\u{4}");
        let (status, written) = terminal.end_with_all(PATIENCE);
        assert_eq!(status.code(), Some(0), "{written}");
        let is_on = written.contains("TRACE");
        assert_eq!(is_on, filter == "trace", "{written}");
        for words in ["rustyline", "Char('Q')", "KeyEvent"] {
            assert!(!written.contains(words), "{words} is in the log");
        }
    }
}

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().mode() & 0o777
}

/// All regular files below a folder, but for password files.
fn all_files(folder: &Path) -> Vec<std::path::PathBuf> {
    let mut files = Vec::new();
    let mut open = vec![folder.to_owned()];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else if path.is_file() {
                files.push(path);
            }
        }
    }
    files
}
