//! A server that does not answer, or is not the one that was trusted.

use std::time::Duration;

use tests::program::now;
use tests::world::{PATIENCE, World, assert_explains};

use super::shared::{EXECUTABLE, ends, two_people};
use super::terminal::Terminal;

/// Time for a server to answer before it is given up, on a machine with much else to do.
const ANSWER_MAX: Duration = Duration::from_secs(16);

#[test]
fn a_server_that_hangs_is_said_not_to_answer() {
    let world = two_people();
    let mut chat = Terminal::start(&world.peer_command("alice", &["chat", "bob"]), 100);
    let prompts = |screen: &str| screen.trim_end().ends_with("bob>");
    chat.wait("the prompt", PATIENCE, prompts);
    world.wait_ready("alice");
    world.server().running.send_signal("STOP").unwrap();
    let asked = now();
    chat.type_keys("/list\r");
    let listed = world.peer("alice", &["list"]);
    assert!(asked.elapsed() < ANSWER_MAX, "{:?}", asked.elapsed());
    assert_explains(&listed, 5, &["Waiting for", "no answer"]);
    let is_told = |screen: &str| {
        let waits = screen.contains("Waiting for an answer from 127.0.0.1");
        waits && screen.contains("no answer") && prompts(screen)
    };
    let screen = chat.wait("it is told", PATIENCE, is_told);
    assert!(!screen.contains("was closed"), "{screen}");
    world.server().running.send_signal("CONT").unwrap();
    chat.type_keys("/quit\r");
    chat.end(PATIENCE);
}

#[test]
fn what_was_typed_wrongly_is_told_between_words_on_a_narrow_screen() {
    let world = World::new(EXECUTABLE);
    let command = world.peer_command("alice", &["list", "--no-such-option-of-this-command"]);
    let (status, screen) = Terminal::start(&command, 40).end(PATIENCE);
    assert_eq!(status.code(), Some(2), "{screen}");
    let rows = "error: unexpected argument\n'--no-such-option-of-this-command' found\n";
    assert!(screen.starts_with(rows), "{screen}");
}

#[test]
fn t30_no_password_is_asked_for_where_the_key_of_the_server_has_changed() {
    let mut world = World::new(EXECUTABLE);
    world.register("alice");
    let address = world.stop_server();
    world.serve("another-server", &["--listen", &address]);
    let command = world.peer_command("alice", &["login", "alice"]);
    let login = Terminal::start(&command, 200);
    ends(login, 6, &format!("peer forget-server {address}"));
    world.stop_server();
    let login = Terminal::start(&command, 200);
    ends(login, 5, "cannot be reached");
}

#[test]
fn the_own_server_is_forgotten_only_after_a_yes() {
    let world = two_people();
    let address = world.server().address.clone();
    let command = world.peer_command("alice", &["forget-server"]);
    let asks = |screen: &str| screen.contains("Forget its key? [yes/no]");
    for (typed, code, words) in [
        ("no\r", 1, format!("did not forget {address}")),
        ("\x04", 1, format!("did not forget {address}")),
        (
            "maybe\ryes\r",
            0,
            format!("The key of {address} is forgotten"),
        ),
    ] {
        let mut terminal = Terminal::start(&command, 200);
        terminal.wait("it asks", PATIENCE, asks);
        terminal.type_keys(typed);
        ends(terminal, code, &words);
    }
}
