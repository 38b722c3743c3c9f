//! Questions of `receive`: which offer an answer is for, and what is printed meanwhile.

use std::fs;
use std::thread;

use tests::program::{Program, Running};
use tests::world::{PATIENCE, World, run};

use crate::shared::{ends, in_shell, make_film, two_people};
use crate::terminal::{Terminal, wrapped};

/// bob at a terminal, who waits for files.
#[track_caller]
fn at_terminal(world: &World) -> Terminal {
    let receive = world.peer_command("bob", &["receive", "--folder", "inbox"]);
    let bob = Terminal::start(&receive, 80);
    world.wait_ready("bob");
    bob
}

/// bob like this, and files of these names for alice and carol to send.
#[track_caller]
fn receiving(files: [&str; 2]) -> (World, Terminal) {
    let world = two_people();
    world.register("carol");
    fs::create_dir(world.path("inbox")).expect("the folder is new");
    for name in files {
        fs::write(world.path(name), "x").expect("the folder can be written to");
    }
    let bob = at_terminal(&world);
    (world, bob)
}

/// bob at a terminal, taking a film that alice sends.
#[track_caller]
fn taking_a_film(world: &World) -> (Terminal, Running) {
    make_film(world);
    let mut bob = at_terminal(world);
    let film = world.start("alice", &["send-file", "bob", "film.mp4"]);
    bob.wait("the question", PATIENCE, |screen| {
        screen.contains("Take film.mp4 from alice?")
    });
    bob.type_keys("y\r");
    bob.wait("it moves", PATIENCE, |screen| screen.contains(" left"));
    (bob, film)
}

#[test]
fn what_was_typed_before_a_question_does_not_answer_it() {
    let world = two_people();
    fs::create_dir(world.path("inbox")).unwrap();
    fs::write(world.path("holiday.jpg"), "sun").unwrap();
    let receive = world.peer_command("alice", &["receive", "--folder", "inbox"]);
    let mut terminal = Terminal::start(&receive, 80);
    terminal.wait("it waits", PATIENCE, |screen| {
        screen.contains("Ctrl-C ends.")
    });
    terminal.type_keys("y\r");
    terminal.wait("it is shown", PATIENCE, |screen| {
        screen.trim_end().ends_with("\ny")
    });
    let sent = world.peer_command("bob", &["send-file", "alice", "holiday.jpg"]);
    let sent = thread::spawn(move || run(Program::Peer, &mut { sent }));
    let screen = terminal.wait("the question", PATIENCE, |screen| {
        screen.contains("Take holiday.jpg from bob?")
    });
    let told = "Nothing was asked when that line was typed.\nbob offers holiday.jpg";
    assert!(screen.contains(told), "{screen}");
    terminal.type_keys("maybe\r");
    terminal.wait("it is asked again", PATIENCE, |screen| {
        screen.contains(
            "Type y to take it or n to decline it, then Enter.\nTake holiday.jpg from bob?",
        )
    });
    terminal.type_keys("n\r");
    terminal.wait("it is declined", PATIENCE, |screen| {
        screen.contains("Declined holiday.jpg")
    });
    assert_eq!(sent.join().unwrap().code(), 9);
    assert!(!world.path("inbox/holiday.jpg").exists());
}

#[test]
fn what_was_typed_for_an_offer_that_is_withdrawn_does_not_answer_the_next() {
    let (world, mut bob) = receiving(["small.txt", "other.txt"]);
    let sends = world.peer_command("alice", &["send-file", "bob", "small.txt"]);
    let mut alice = Terminal::start(&sends, 80);
    bob.wait("the question", PATIENCE, |screen| {
        screen.contains("Take small.txt from alice?")
    });
    bob.type_keys("y");
    let is_typed = |row: &'static str| move |screen: &str| screen.lines().last() == Some(row);
    let half = "Take small.txt from alice? [y/n, then Enter] y";
    bob.wait("it is half typed", PATIENCE, is_typed(half));
    alice.wait("it is offered", PATIENCE, |screen| {
        screen.contains("Offered small.txt")
    });
    alice.type_keys("\x03");
    bob.wait("it is withdrawn", PATIENCE, |screen| {
        screen.contains("was withdrawn")
    });
    // Nothing is asked.
    bob.type_keys("es");
    bob.wait("more is half typed", PATIENCE, is_typed("es"));
    let sends = world.peer_command("carol", &["send-file", "bob", "other.txt"]);
    let carol = Terminal::start(&sends, 80);
    bob.wait("the next question", PATIENCE, |screen| {
        screen.contains("Take other.txt from carol?")
    });
    bob.type_keys("\r");
    let screen = bob.wait("it is asked again", PATIENCE, |screen| {
        screen.matches("Take other.txt from carol?").count() == 2
    });
    // What was half typed is not lost without a word.
    let withdrawn = format!("{half}\nThe offer of small.txt from alice was withdrawn.\n");
    let unasked = "\nes\nNothing was asked when that line was typed.\nTake other.txt from carol?";
    for rows in [&*withdrawn, "\ncarol offers other.txt (1 B)\n", unasked] {
        assert!(screen.contains(rows), "{rows}: {screen}");
    }
    bob.type_keys("n\r");
    ends(carol, 9, "declined");
    assert_eq!(world.names_in("inbox"), [""; 0]);
}

#[test]
fn what_is_half_typed_is_gone_on_with_below_what_is_printed() {
    let (world, mut bob) = receiving(["first.txt", "second.txt"]);
    let asks = |file: &'static str, typed: &'static str, shown: &'static str| {
        move |screen: &str| {
            let question = format!("Take {file}? [y/n, then Enter] {typed}");
            let last = screen.trim_end().lines().next_back();
            screen.contains(shown) && last == Some(question.trim_end())
        }
    };
    let first = world.start("alice", &["send-file", "bob", "first.txt"]);
    bob.wait(
        "the question",
        PATIENCE,
        asks("first.txt from alice", "", "alice offers"),
    );
    bob.type_keys("ye");
    let half = asks("first.txt from alice", "ye", "");
    bob.wait("it is half typed", PATIENCE, half);
    let sent = world.peer("alice", &["send", "bob", "take the second one"]);
    assert_eq!(sent.code(), 0, "{sent:?}");
    let message = "alice: take the second one\n";
    bob.wait(
        "what is half typed stands below the message",
        PATIENCE,
        asks("first.txt from alice", "ye", message),
    );
    let second = world.start("carol", &["send-file", "bob", "second.txt"]);
    let offers = "\ncarol offers second.txt (1 B)\n";
    let screen = bob.wait(
        "and below another offer",
        PATIENCE,
        asks("first.txt from alice", "ye", offers),
    );
    assert_eq!(screen.matches("Take first.txt").count(), 1, "{screen}");
    bob.type_keys("s\r");
    let received = "\nReceived first.txt from alice: ";
    bob.wait(
        "it asks for the next",
        PATIENCE,
        asks("second.txt from carol", "", received),
    );
    bob.type_keys("n\r");
    bob.wait("it is declined", PATIENCE, |screen| {
        screen.contains("Declined second.txt.")
    });
    assert_eq!(first.finish(PATIENCE).unwrap().code(), 0);
    assert_eq!(second.finish(PATIENCE).unwrap().code(), 9);
    bob.type_keys("half\x03");
    ends(bob, 130, "");
}

#[test]
fn an_interrupt_names_the_offers_that_nobody_answered() {
    let (world, mut bob) = receiving(["first.txt", "second.txt"]);
    let _first = world.start("alice", &["send-file", "bob", "first.txt"]);
    bob.wait("the question", PATIENCE, |screen| {
        screen.contains("Take first.txt from alice?")
    });
    bob.type_keys("y\x03");
    ends(
        bob,
        130,
        "Not answered, and not open any more: first.txt from alice.",
    );
}

#[test]
fn a_line_that_is_typed_ahead_does_not_answer_the_next_question() {
    let (world, mut bob) = receiving(["first.txt", "second.txt"]);
    let first = world.start("alice", &["send-file", "bob", "first.txt"]);
    bob.wait("the question", PATIENCE, |screen| {
        screen.contains("Take first.txt from alice?")
    });
    let second = world.start("carol", &["send-file", "bob", "second.txt"]);
    bob.wait("another offer", PATIENCE, |screen| {
        screen.contains("carol offers second.txt")
    });
    // All in one read.
    bob.type_keys("y\rn\rn\rhalf");
    let question = "Take second.txt from carol? [y/n, then Enter]";
    let screen = bob.wait("the next question", PATIENCE, |screen| {
        screen.contains("Received first.txt") && screen.trim_end().ends_with(question)
    });
    assert!(!screen.contains("Declined"), "{screen}");
    assert_eq!(first.finish(PATIENCE).unwrap().code(), 0);
    bob.type_keys("y\r");
    assert_eq!(second.finish(PATIENCE).unwrap().code(), 0);
}

#[test]
fn whoever_answers_an_offer_that_was_withdrawn_is_told_that_nothing_is_asked() {
    let world = two_people();
    fs::write(world.path("con.txt"), "x").unwrap();
    let receive = world.peer_command("bob", &["receive"]);
    let mut bob = Terminal::start(&receive, 80);
    world.wait_ready("bob");
    let alice = world.start("alice", &["send-file", "bob", "con.txt"]);
    bob.wait("the question", PATIENCE, |screen| {
        screen.contains("Take con.txt from alice as _con.txt?")
    });
    assert_eq!(alice.interrupt().unwrap().code(), Some(130));
    bob.wait("it is withdrawn", PATIENCE, |screen| {
        screen.contains("was withdrawn")
    });
    let told =
        |times: usize| move |screen: &str| screen.matches("Nothing was asked").count() == times;
    bob.type_keys("y\r");
    bob.wait("it is told", PATIENCE, told(1));
    // Nothing is said of an empty line.
    bob.type_keys("\rn\r");
    let screen = bob.wait("it is told again", PATIENCE, told(2));
    assert!(!screen.contains("Declined"), "{screen}");
    // The end of the input is one only to a question.
    bob.type_keys("\x04");
    let _alice = world.start("alice", &["send-file", "bob", "con.txt"]);
    bob.wait("the next question", PATIENCE, |screen| {
        screen
            .matches("Take con.txt from alice as _con.txt?")
            .count()
            == 2
    });
    bob.type_keys("\x04");
    bob.wait("nobody is left to answer", PATIENCE, |screen| {
        screen.contains("There is nobody to ask; the offer stays open.")
    });
    bob.type_keys("\x03");
    ends(bob, 130, "");
}

#[test]
fn a_question_is_the_last_line_above_the_bar_of_a_file_that_moves() {
    let world = two_people();
    world.register("carol");
    fs::write(world.path("letter.txt"), "x").unwrap();
    let (mut bob, _film) = taking_a_film(&world);
    let letter = world.start("carol", &["send-file", "bob", "letter.txt"]);
    let question = "Take letter.txt from carol? [y/n, then Enter]";
    let stands_below = |typed: &'static str, words: &'static str| {
        move |screen: &str| {
            let rows: Vec<_> = screen.trim_end().lines().rev().collect();
            rows[0].starts_with("film.mp4")
                && rows[1].trim_end() == format!("{question}{typed}")
                && rows[2].ends_with(words)
        }
    };
    let offers = "carol offers letter.txt (1 B)";
    bob.wait("the next question", PATIENCE, stands_below("", offers));
    bob.type_keys("ye");
    let sent = world.peer("carol", &["send", "bob", "it is short"]);
    assert_eq!(sent.code(), 0, "{sent:?}");
    let message = " carol: it is short";
    let below = stands_below(" ye", message);
    bob.wait("it stands below the message", PATIENCE, below);
    bob.type_keys("\x15n\r");
    bob.wait("it is declined", PATIENCE, |screen| {
        screen.contains("Declined letter.txt.")
    });
    assert_eq!(letter.finish(PATIENCE).unwrap().code(), 9);
}

#[test]
fn a_question_is_the_last_line_once_the_file_that_moved_below_it_has_failed() {
    let world = two_people();
    world.register("carol");
    fs::write(world.path("letter.txt"), "x").unwrap();
    let (mut bob, film) = taking_a_film(&world);
    film.kill();
    let letter = world.start("carol", &["send-file", "bob", "letter.txt"]);
    let question = "Take letter.txt from carol? [y/n, then Enter]";
    bob.wait("the next question", PATIENCE, |screen| {
        let rows: Vec<_> = screen.trim_end().lines().rev().collect();
        rows[0].starts_with("film.mp4") && rows[1].trim_end() == question
    });
    bob.wait("the film has failed", PATIENCE, |screen| {
        let rows: Vec<_> = screen.trim_end().lines().rev().collect();
        let failed = "error: film.mp4 from alice failed: the link broke";
        rows[0] == question
            && rows[1] == " next: alice had left; ask alice to send it again"
            && rows[2].starts_with(failed)
    });
    bob.type_keys("n\r");
    assert_eq!(letter.finish(PATIENCE).unwrap().code(), 9);
}

#[test]
fn receive_in_the_background_shows_messages_and_leaves_the_keys_to_the_shell() {
    let world = two_people();
    let receive = world.peer_command("bob", &["receive"]);
    let mut shell = Terminal::start(&in_shell(&receive), 80);
    shell.type_keys("\"$@\" &\r");
    world.wait_ready("bob");
    shell.type_keys("half");
    let sent = world.peer("alice", &["send", "bob", "hello"]);
    assert_eq!(sent.code(), 0, "{sent:?}");
    shell.wait("the message", PATIENCE, |screen| {
        screen.contains(" alice: hello")
    });
    // The shell would leave it running.
    shell.type_keys("; kill %1; wait; exit\r");
    shell.wait("the whole line is the shell's", PATIENCE, |screen| {
        screen.contains("half: command not found")
    });
    shell.end(PATIENCE);
}

/// bob at a terminal, asked about a small file of alice, who is gone without a word.
#[track_caller]
fn asked_by_somebody_who_left(world: &World) -> Terminal {
    fs::create_dir(world.path("inbox")).expect("the folder is new");
    fs::write(world.path("small.txt"), "x").expect("the folder can be written to");
    let mut bob = at_terminal(world);
    let alice = world.start("alice", &["send-file", "bob", "small.txt"]);
    bob.wait("the question", PATIENCE, |screen| {
        screen
            .trim_end()
            .ends_with("small.txt from alice? [y/n, then Enter]")
    });
    bob.type_keys("y");
    alice.kill();
    let question = "Take small.txt from alice, who has left? [y/n, then Enter] y";
    bob.wait("she has left", PATIENCE, |screen| {
        let rows: Vec<_> = screen.trim_end().lines().rev().collect();
        rows[0] == question && rows[1] == "alice left"
    });
    bob
}

#[test]
fn an_offer_whose_sender_is_gone_says_so() {
    let world = two_people();
    let mut bob = asked_by_somebody_who_left(&world);
    let screen = bob.wait("it has ended", PATIENCE, |screen| {
        screen.contains("The offer of small.txt from alice ")
    });
    assert!(
        screen.contains("The offer of small.txt from alice ended: "),
        "{screen}"
    );
}

#[test]
fn whoever_takes_a_file_of_somebody_who_has_left_is_told_what_to_expect() {
    let world = two_people();
    let mut bob = asked_by_somebody_who_left(&world);
    bob.type_keys("es\r");
    bob.wait("what to expect", PATIENCE, |screen| {
        screen.contains("\nalice has left: small.txt comes only if alice is back soon.\n")
    });
    bob.wait("what to do", PATIENCE, |screen| {
        let (_, failed) = screen.split_at(screen.find("error: ").unwrap_or(screen.len()));
        failed.starts_with("error: small.txt from alice failed: the link broke")
            && failed.ends_with("\n next: alice had left; ask alice to send it again")
    });
}

#[test]
fn a_question_is_plain_again_once_its_sender_is_back() {
    let world = two_people();
    // The device that offers would end the offer if it started again.
    assert_eq!(world.log_in("tablet", "alice").code(), 0);
    let mut bob = asked_by_somebody_who_left(&world);
    let _alice = world.receive("tablet");
    bob.wait("she is back", PATIENCE, |screen| {
        let rows: Vec<_> = screen.trim_end().lines().rev().collect();
        rows[0] == "Take small.txt from alice? [y/n, then Enter] y" && rows[1] == "alice is online"
    });
}

#[test]
fn of_two_offers_of_one_file_it_is_said_which_has_ended() {
    let world = two_people();
    fs::write(world.path("small.txt"), "x").unwrap();
    let receive = world.peer_command("bob", &["receive"]);
    let mut bob = Terminal::start(&receive, 80);
    world.wait_ready("bob");
    let _alice = world.receive("alice");
    let offered = |times: usize| {
        move |screen: &str| screen.matches("alice offers small.txt").count() == times
    };
    let sends = ["send-file", "bob", "small.txt"];
    let earlier = world.start("alice", &sends);
    bob.wait("the question", PATIENCE, offered(1));
    let later = world.start("alice", &sends);
    bob.wait("another offer", PATIENCE, offered(2));
    assert_eq!(earlier.interrupt().unwrap().code(), Some(130));
    bob.wait("it is withdrawn", PATIENCE, |screen| {
        screen.contains("The earlier offer of small.txt from alice was withdrawn.")
    });
    let third = world.start("alice", &sends);
    bob.wait("one more offer", PATIENCE, offered(3));
    assert_eq!(third.interrupt().unwrap().code(), Some(130));
    bob.wait("it is withdrawn, too", PATIENCE, |screen| {
        let (_, below) = screen.split_at(screen.find("The later offer of").unwrap_or(0));
        below.trim_end()
            == "The later offer of small.txt from alice was withdrawn.\nTake small.txt from alice? [y/n, then Enter]"
    });
    bob.type_keys("n\r");
    assert_eq!(later.finish(PATIENCE).unwrap().code(), 9);
}

#[test]
fn a_question_is_shown_again_after_a_stop() {
    let world = two_people();
    fs::create_dir(world.path("inbox")).unwrap();
    fs::write(world.path("small.txt"), "x").unwrap();
    let receive = world.peer_command("bob", &["receive", "--folder", "inbox"]);
    let mut shell = Terminal::start(&in_shell(&receive), 80);
    let is_behind = |end: &'static str| move |screen: &str| screen.trim_end().ends_with(end);
    shell.wait("the shell", PATIENCE, is_behind("shell$"));
    shell.type_keys("\"$@\"\r");
    world.wait_ready("bob");
    let alice = world.start("alice", &["send-file", "bob", "small.txt"]);
    let question = "Take small.txt from alice? [y/n, then Enter]";
    shell.wait("the question", PATIENCE, is_behind(question));
    shell.type_keys("ye\x1a");
    shell.wait("the shell is back", PATIENCE, is_behind("shell$"));
    shell.type_keys("fg\r");
    let half = "\nTake small.txt from alice? [y/n, then Enter] ye";
    shell.wait("it is asked again", PATIENCE, is_behind(half));
    shell.type_keys("s\r");
    shell.wait("it is taken", PATIENCE, |screen| {
        screen.contains("Received small.txt from alice")
    });
    assert_eq!(alice.finish(PATIENCE).unwrap().code(), 0);
    shell.type_keys("\x03");
    shell.wait("it ends", PATIENCE, is_behind("shell$"));
    shell.type_keys("exit\r");
    shell.end(PATIENCE);
}

#[test]
fn a_terminal_that_no_editor_can_draw_on_has_the_question_again_below_what_is_printed() {
    let world = two_people();
    fs::create_dir(world.path("inbox")).unwrap();
    fs::write(world.path("small.txt"), "x").unwrap();
    let receive = world.peer_command("bob", &["receive", "--folder", "inbox"]);
    let mut bob = Terminal::start(&wrapped("env", &["TERM=dumb"], &receive), 80);
    world.wait_ready("bob");
    let alice = world.start("alice", &["send-file", "bob", "small.txt"]);
    let question = "Take small.txt from alice? [y/n, then Enter]";
    bob.wait("the question", PATIENCE, |screen| {
        screen.trim_end().ends_with(question)
    });
    bob.type_keys("hal");
    bob.wait("it is half typed", PATIENCE, |screen| {
        screen.lines().last() == Some("hal")
    });
    let sent = world.peer("alice", &["send", "bob", "it is short"]);
    assert_eq!(sent.code(), 0, "{sent:?}");
    bob.wait("it is asked again", PATIENCE, |screen| {
        let rows: Vec<_> = screen.trim_end().lines().rev().collect();
        rows[0] == question && rows[1].ends_with(" alice: it is short")
    });
    // What was half typed is not part of the answer.
    bob.type_keys("y\r");
    assert_eq!(alice.finish(PATIENCE).unwrap().code(), 0);
    bob.type_keys("\x03");
    ends(bob, 130, "Received small.txt from alice");
}

#[test]
fn an_offer_that_comes_in_the_background_is_asked_about_once_receive_is_back() {
    let world = two_people();
    fs::create_dir(world.path("inbox")).unwrap();
    fs::write(world.path("small.txt"), "x").unwrap();
    let receive = world.peer_command("bob", &["receive", "--folder", "inbox"]);
    let mut shell = Terminal::start(&in_shell(&receive), 80);
    shell.type_keys("\"$@\" &\r");
    world.wait_ready("bob");
    let alice = world.start("alice", &["send-file", "bob", "small.txt"]);
    shell.wait("the offer", PATIENCE, |screen| {
        screen.contains("alice offers small.txt (1 B)")
    });
    let sent = world.peer("alice", &["send", "bob", "it is short"]);
    assert_eq!(sent.code(), 0, "{sent:?}");
    let screen = shell.wait("a message behind it", PATIENCE, |screen| {
        screen.contains(" alice: it is short")
    });
    assert!(!screen.contains("Take small.txt"), "{screen}");
    shell.type_keys("fg\r");
    shell.wait("the question", PATIENCE, |screen| {
        screen
            .trim_end()
            .ends_with("\nTake small.txt from alice? [y/n, then Enter]")
    });
    shell.type_keys("y\r");
    assert_eq!(alice.finish(PATIENCE).unwrap().code(), 0);
    shell.type_keys("\x03");
    shell.wait("it ends", PATIENCE, |screen| {
        screen.trim_end().ends_with("shell$")
    });
    shell.type_keys("exit\r");
    shell.end(PATIENCE);
}

#[test]
fn an_offer_is_broken_between_words_on_a_narrow_screen() {
    let world = two_people();
    fs::create_dir(world.path("inbox")).unwrap();
    fs::write(world.path(".hidden"), "x").unwrap();
    let receive = world.peer_command("bob", &["receive", "--folder", "inbox"]);
    let mut bob = Terminal::start(&receive, 40);
    world.wait_ready("bob");
    let sends = world.peer_command("alice", &["send-file", "bob", ".hidden"]);
    let mut alice = Terminal::start(&sends, 80);
    let screen = bob.wait("the question", PATIENCE, |screen| screen.contains("Enter]"));
    for row in [
        "would hide the file; it can be taken as",
        "_hidden",
        "Take .hidden from alice as _hidden?",
    ] {
        assert!(screen.lines().any(|line| line == row), "{row}: {screen}");
    }
    bob.type_keys("n\r");
    alice.wait("it is declined", PATIENCE, |screen| {
        screen.contains("declined")
    });
}
