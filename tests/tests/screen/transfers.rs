//! Files on their way: lines and bars, and what an interrupt or an end says of them.

use std::fs;
use std::process::Command;

use tests::world::{PATIENCE, until};

use crate::shared::{ends, in_shell, is_there, make_film, talking_to_bob, two_people};
use crate::terminal::Terminal;

#[test]
fn a_transfer_is_a_line_that_is_redrawn_at_both_ends_until_it_is_cancelled() {
    let world = two_people();
    make_film(&world);
    let bob = world.peer_command("bob", &["chat", "alice", "--folder", "inbox"]);
    let mut bob = Terminal::start(&bob, 40);
    bob.wait("bob's prompt", PATIENCE, |screen| screen.contains("alice>"));
    let alice = world.peer_command("alice", &["chat", "bob"]);
    let mut alice = Terminal::start(&alice, 80);
    alice.wait("alice's prompt", PATIENCE, |screen| screen.contains("bob>"));
    alice.type_keys("/send-file bob film.mp4\r");
    let last = |screen: &str| screen.trim_end().lines().next_back().unwrap().to_owned();
    alice.wait("it waits for an answer", PATIENCE, |screen| {
        last(screen) == " 1: film.mp4 to bob, waits for an answer"
    });
    bob.wait("it is offered", PATIENCE, |screen| {
        screen.contains("/accept 1")
    });
    bob.type_keys("/accept\r");
    let moves = |screen: &str| last(screen).contains(" %, ");
    alice.wait("it moves", PATIENCE, moves);
    bob.wait("bob sees it, too", PATIENCE, |screen| {
        let line = last(screen);
        line.starts_with(" 1: film.mp4") && line.contains(" %")
    });
    bob.signal("STOP");
    alice.wait("it is told that it stands", PATIENCE, |screen| {
        last(screen).ends_with("stalled: goes on or fails")
    });
    alice.type_keys("half a line");
    alice.wait("what is typed stands above", PATIENCE, |screen| {
        let rows: Vec<_> = screen.trim_end().lines().rev().collect();
        rows[0].ends_with("goes on or fails") && rows[1] == "bob> half a line"
    });
    bob.signal("CONT");
    alice.wait("it goes on", PATIENCE, |screen| {
        last(screen).ends_with(" left")
    });
    alice.type_keys(" more\r");
    bob.wait("the line arrives", PATIENCE, |screen| {
        screen.contains("half a line more")
    });
    alice.type_keys("/quit\r");
    alice.wait("it warns", PATIENCE, |screen| {
        screen.contains("leaving cancels it")
    });
    alice.type_keys("/cancel\r");
    let screen = alice.wait("it is cancelled", PATIENCE, |screen| {
        screen.contains("Cancelled 1 (film.mp4 to bob).") && screen.trim_end().ends_with("bob>")
    });
    assert_eq!(screen.matches(" %, ").count(), 0, "{screen}");
    bob.wait("bob is told", PATIENCE, |screen| screen.contains("failed"));
    alice.type_keys("/quit\r");
    ends(alice, 0, "");
    until("bob keeps nothing", PATIENCE, || {
        world.names_in("inbox").is_empty().then_some(())
    });
}

#[test]
fn whoever_leaves_while_a_file_moves_sees_what_was_cancelled_and_no_line_of_before() {
    let world = two_people();
    make_film(&world);
    let _bob = world.start(
        "bob",
        &["receive", "--folder", "inbox", "--accept", "always"],
    );
    world.wait_ready("bob");
    for (first, second) in [("\u{3}", "\u{3}"), ("\u{3}", "\u{4}"), ("\u{4}", "/quit\r")] {
        let mut alice = talking_to_bob(&world);
        alice.type_keys("/send-file bob film.mp4\r");
        let last = |screen: &str| screen.trim_end().lines().next_back().unwrap().to_owned();
        alice.wait("it moves", PATIENCE, |screen| {
            last(screen).contains(" left")
        });
        alice.type_keys(first);
        let screen = alice.wait("it warns", PATIENCE, |screen| {
            let warned = screen.split_once("leaving cancels it: film.mp4 to bob");
            warned.is_some_and(|(_, rest)| rest.contains(" left"))
        });
        assert_eq!(screen.matches(" left").count(), 1, "{screen}");
        alice.type_keys(second);
        let (status, screen) = alice.end(PATIENCE);
        assert_eq!(status.code(), Some(0), "{screen}");
        assert_eq!(screen.matches(" left").count(), 0, "{screen}");
        assert_eq!(last(&screen), "Cancelled: film.mp4 to bob.");
    }
}

#[test]
fn two_interrupts_in_one_read_are_two_and_one_of_a_half_typed_line_is_none() {
    let world = two_people();
    let bob = world.receive("bob");
    let mut terminal = talking_to_bob(&world);
    terminal.type_keys("half a line\u{3}");
    let cleared = |screen: &str| screen.contains("bob> half a line^C\nbob>");
    let screen = terminal.wait("it is cleared", PATIENCE, cleared);
    assert!(!screen.contains("Ctrl-C again ends"), "{screen}");
    // What is typed behind it is not lost.
    terminal.type_keys("another\u{3}a third\r");
    let is_it = |line: &serde_json::Value| line["params"]["body"] == "a third";
    bob.wait_json("the line", PATIENCE, is_it).unwrap();
    terminal.type_keys("\u{3}");
    terminal.wait("it is told", PATIENCE, |screen| {
        screen.contains("Ctrl-C again ends") && screen.trim_end().ends_with("bob>")
    });
    terminal.type_keys("half\u{3}\u{3}");
    let again = |screen: &str| screen.matches("Ctrl-C again ends").count() == 2;
    terminal.wait("only the second counts", PATIENCE, again);
    terminal.type_keys("hi\r\u{3}\u{3}");
    ends(terminal, 0, "");
}

#[test]
fn a_chat_that_is_told_to_end_says_which_file_ends_with_it() {
    let world = two_people();
    make_film(&world);
    let _bob = world.start(
        "bob",
        &["receive", "--folder", "inbox", "--accept", "always"],
    );
    world.wait_ready("bob");
    for signal in ["TERM", "HUP"] {
        let mut alice = talking_to_bob(&world);
        alice.type_keys("/send-file bob film.mp4\r");
        alice.wait("it moves", PATIENCE, |screen| screen.contains(" left"));
        alice.signal(signal);
        ends(alice, 143, "Cancelled: film.mp4 to bob.");
    }
}

/// alice at a terminal, sending the film for which bob is asked for the `nth` time, and which bob takes.
#[track_caller]
fn sending_again(sends: &Command, bob: &mut Terminal, nth: usize) -> Terminal {
    let mut alice = Terminal::start(sends, 80);
    bob.wait("the question", PATIENCE, |screen| {
        screen.matches("Take film.mp4 from alice?").count() == nth
    });
    bob.type_keys("y\r");
    alice.wait("it moves", PATIENCE, |screen| screen.contains(" left"));
    alice
}

#[test]
fn an_interrupt_says_what_became_of_a_file() {
    let world = two_people();
    make_film(&world);
    let sends = world.peer_command("alice", &["send-file", "bob", "film.mp4"]);
    let takes = world.peer_command("bob", &["receive", "--folder", "inbox"]);

    // Before it is answered.
    let mut bob = Terminal::start(&takes, 80);
    world.wait_ready("bob");
    let mut alice = Terminal::start(&sends, 80);
    bob.wait("the question", PATIENCE, |screen| {
        screen.contains("Take film.mp4 from alice?")
    });
    alice.wait("it is offered", PATIENCE, |screen| {
        screen.contains("Offered film.mp4")
    });
    alice.type_keys("\x03");
    ends(
        alice,
        130,
        "Cancelled: the offer of film.mp4 to bob is withdrawn.",
    );
    bob.wait("it is withdrawn", PATIENCE, |screen| {
        screen.contains("was withdrawn")
    });

    // On its way, by the sender.
    let mut alice = sending_again(&sends, &mut bob, 2);
    alice.type_keys("\x03");
    ends(alice, 130, "Cancelled: film.mp4 was not sent. bob had ");
    bob.wait("it failed", PATIENCE, |screen| {
        screen.contains("error: film.mp4 from alice failed: cancelled by the other side")
    });

    // On its way, by the receiver.
    let alice = sending_again(&sends, &mut bob, 3);
    bob.type_keys("\x03");
    ends(bob, 130, "Cancelled: film.mp4 from alice was not taken");
    ends(alice, 9, "cancelled by the other side");
    assert_eq!(world.names_in("inbox"), [""; 0]);
}

#[test]
fn a_program_that_has_done_its_own_work_says_what_of_others_an_interrupt_ends() {
    let world = two_people();
    make_film(&world);
    fs::write(world.path("letter.txt"), "x").unwrap();
    let _inbox = world.receive("bob");
    world.register("carol");
    let takes = world.peer_command("carol", &["receive", "--folder", "inbox"]);
    let mut carol = Terminal::start(&takes, 80);
    world.wait_ready("carol");
    // It has the node.
    let sends = world.peer_command("alice", &["send-file", "carol", "letter.txt"]);
    let mut owner = Terminal::start(&sends, 80);
    carol.wait("the question", PATIENCE, |screen| {
        screen.contains("Take letter.txt from alice?")
    });
    let sends = world.peer_command("alice", &["send-file", "bob", "film.mp4"]);
    let mut other = Terminal::start(&sends, 80);
    other.wait("it moves", PATIENCE, |screen| screen.contains(" left"));
    carol.type_keys("y\r");
    owner.wait("it stays", PATIENCE, |screen| {
        screen.contains("Sent letter.txt to carol") && screen.contains("still carries film.mp4")
    });
    owner.type_keys("\x03");
    ends(
        owner,
        0,
        "Cancelled for another 'peer' program: film.mp4 to bob",
    );
    ends(other, 9, "the 'peer' program that carried it has ended");
}

#[test]
fn a_bar_says_that_nothing_comes() {
    let world = two_people();
    make_film(&world);
    let takes = ["receive", "--folder", "inbox", "--accept", "always"];
    let takes = world.peer_command("bob", &takes);
    let sends = world.peer_command("alice", &["send-file", "bob", "film.mp4"]);
    let mut bob = Terminal::start(&takes, 50);
    world.wait_ready("bob");
    let mut alice = Terminal::start(&sends, 80);
    let moves = |screen: &str| screen.contains(" left");
    let stalls = |screen: &str| screen.contains("stalled") && !moves(screen);
    alice.wait("it moves", PATIENCE, moves);
    bob.wait("bob sees it, too", PATIENCE, moves);
    bob.signal("STOP");
    alice.wait("nothing comes", PATIENCE, stalls);
    bob.signal("CONT");
    alice.wait("it goes on", PATIENCE, moves);
    alice.signal("STOP");
    bob.wait("nothing comes", PATIENCE, stalls);
    alice.signal("CONT");
    bob.wait("it goes on", PATIENCE, moves);
}

#[test]
fn each_bar_has_a_row_of_its_own() {
    for columns in [40, 80, 200] {
        let world = two_people();
        make_film(&world);
        fs::hard_link(world.path("film.mp4"), world.path("song.mp3")).unwrap();
        let takes = ["receive", "--folder", "inbox", "--accept", "always"];
        let takes = world.peer_command("bob", &takes);
        let mut bob = Terminal::start(&takes, columns);
        world.wait_ready("bob");
        let sends = ["film.mp4", "song.mp3"].map(|name| {
            let sends = world.peer_command("alice", &["send-file", "bob", name]);
            Terminal::start(&sends, columns)
        });
        bob.wait("two bars", PATIENCE, |screen| {
            let is_bar = |row: &&str| row.matches(" %").count() == 1;
            let bars: Vec<_> = screen.lines().filter(is_bar).collect();
            let has = |name: &str| bars.iter().filter(|row| row.contains(name)).count() == 1;
            bars.len() == 2 && has("film.mp4") && has("song.mp3")
        });
        drop(sends);
    }
}

#[test]
fn a_chat_that_stops_takes_the_line_of_its_file_with_it() {
    if !is_there("bash") {
        println!("skipped: there is no bash");
        return;
    }
    let world = two_people();
    make_film(&world);
    let _bob = world.receive("bob");
    let chat = world.peer_command("alice", &["chat", "bob"]);
    let mut shell = Terminal::start(&in_shell(&chat), 80);
    shell.type_keys("\"$@\"\r");
    let is_behind = |end: &'static str| move |screen: &str| screen.trim_end().ends_with(end);
    shell.wait("the prompt", PATIENCE, is_behind("bob>"));
    shell.type_keys("/send-file bob film.mp4\r");
    shell.wait("it moves", PATIENCE, |screen| screen.contains(" left"));
    shell.type_keys("\x1a");
    let screen = shell.wait("the shell is back", PATIENCE, is_behind("shell$"));
    assert!(!screen.contains(" left"), "{screen}");
    shell.type_keys("kill -KILL %1; until [ -z \"$(jobs -r; jobs -s)\" ]; do :; done; exit\r");
    shell.end(PATIENCE);
}
