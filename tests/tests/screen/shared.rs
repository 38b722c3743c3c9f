//! What the tests at a terminal share.

use std::fs;
use std::process::Command;

use tests::world::{PATIENCE, World};

use crate::terminal::{Terminal, wrapped};

pub(crate) const EXECUTABLE: &str = env!("CARGO_BIN_EXE_demo");

/// A server at which alice and bob are registered.
pub(crate) fn two_people() -> World {
    let world = World::new(EXECUTABLE);
    for who in ["alice", "bob"] {
        world.register(who);
    }
    world
}

/// Waits until a program ends, with this exit code and these words on its last screen.
#[track_caller]
pub(crate) fn ends(terminal: Terminal, code: i32, words: &str) {
    let (status, screen) = terminal.end(PATIENCE);
    assert_eq!(status.code(), Some(code), "{screen}");
    assert!(screen.contains(words), "{screen}");
    assert!(
        !screen.contains(" left"),
        "of a bar something is left: {screen}"
    );
}

/// alice at a terminal, talking to bob.
#[track_caller]
pub(crate) fn talking_to_bob(world: &World) -> Terminal {
    let chat = world.peer_command("alice", &["chat", "bob"]);
    let mut terminal = Terminal::start(&chat, 80);
    terminal.wait("the prompt", PATIENCE, |screen| screen.contains("bob>"));
    terminal
}

/// Kept out of memory: a hole has no bytes. Large enough that the other side can be stopped on the way.
pub(crate) const LARGE: u64 = 2 << 30;

/// Makes a large file `film.mp4`, and a folder to put it into.
pub(crate) fn make_film(world: &World) {
    fs::create_dir(world.path("inbox")).expect("the folder is new");
    let file = fs::File::create(world.path("film.mp4")).expect("the folder can be written to");
    file.set_len(LARGE).expect("a hole takes no room");
}

/// A shell whose arguments are a command.
pub(crate) fn in_shell(command: &Command) -> Command {
    wrapped(
        "bash",
        &[
            "--norc",
            "--noprofile",
            "-i",
            "-c",
            "PS1='shell$ ' exec bash --norc --noprofile -i -s -- \"$@\"",
            "bash",
        ],
        command,
    )
}

/// Tells whether a program is installed.
pub(crate) fn is_there(program: &str) -> bool {
    let asked = Command::new(program).arg("--version").output();
    asked.is_ok_and(|asked| asked.status.success())
}
