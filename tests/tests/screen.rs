//! What a person sees who types at a terminal.

mod terminal;

use std::fs;
use std::ops::RangeInclusive;
use std::thread;

use rustix::process::{Signal, kill_process};
use tests::program::Program;
use tests::world::{PATIENCE, World, run, text, until};

use terminal::Terminal;
use terminal::tmux::Tmux;

const EXECUTABLE: &str = env!("CARGO_BIN_EXE_demo");

/// A server at which alice and bob are registered.
fn two_people() -> World {
    let world = World::new(EXECUTABLE);
    for who in ["alice", "bob"] {
        world.register(who);
    }
    world
}

/// Waits until a program ends, with this exit code and these words on its last screen.
#[track_caller]
fn ends(terminal: Terminal, code: i32, words: &str) {
    let (status, screen) = terminal.end(PATIENCE);
    assert_eq!(status.code(), Some(code), "{screen}");
    assert!(screen.contains(words), "{screen}");
    assert!(
        !screen.contains(" left"),
        "of a bar something is left: {screen}"
    );
}

#[test]
fn an_account_is_removed_once_its_name_is_typed() {
    let world = World::new(EXECUTABLE);
    world.register("alice");
    let command = world.rendezvous_command(&["--data", "server", "account", "remove", "alice"]);
    let asks = |screen: &str| screen.contains("Type the account's name to remove it: ");
    for (typed, code, words) in [
        ("y\r", 1, "was not removed"),
        ("bob\r", 1, "was not removed"),
        ("\x04", 1, "was not removed"),
        ("alice\r", 0, "'alice' is removed"),
        ("alice\r", 7, "no account 'alice'"),
    ] {
        let mut terminal = Terminal::start(&command, 80);
        terminal.wait("it asks", PATIENCE, asks);
        terminal.type_keys(typed);
        ends(terminal, code, words);
    }
}

#[test]
fn lines_that_are_typed_ahead_or_pasted_are_all_sent_in_order() {
    let world = two_people();
    let bob = world.receive("bob");
    let command = world.peer_command("alice", &["chat", "bob"]);
    let mut terminal = Terminal::start(&command, 80);
    // Before the first prompt, all in one read.
    terminal.type_keys("one\rtwo\rthree\r");
    let body = |text: &'static str| {
        move |line: &serde_json::Value| {
            line["method"] == "message" && line["params"]["body"] == text
        }
    };
    for text in ["one", "two", "three"] {
        bob.wait_json(text, PATIENCE, body(text)).unwrap();
    }
    let pasted: String = (0..20).map(|number| format!("line {number}\r")).collect();
    terminal.type_keys(&pasted);
    for number in 0..20 {
        let text = format!("line {number}");
        let is_it = |line: &serde_json::Value| line["params"]["body"] == *text;
        bob.wait_json(&text, PATIENCE, is_it).unwrap();
    }
    terminal.type_keys("/quit\r");
    ends(terminal, 0, "");
}

#[test]
fn a_chat_that_was_stopped_goes_on_where_it_was() {
    let world = two_people();
    let bob = world.receive("bob");
    let chat = world.peer_command("alice", &["chat", "bob"]);
    let mut shell = Terminal::start(&in_shell(&chat), 80);
    shell.type_keys("\"$@\"\r");
    let prompts = |screen: &str| screen.trim_end().ends_with("bob>");
    shell.wait("the prompt", PATIENCE, prompts);
    let mut typed = String::from("bob> ");
    // Several times: whether the program stops before the editor goes on was a matter of luck.
    for key in "half a li".chars() {
        typed.push(key);
        shell.type_keys(&key.to_string());
        shell.wait("it is typed", PATIENCE, |screen| {
            screen.trim_end().ends_with(typed.trim_end())
        });
        shell.type_keys("\x1a");
        shell.wait("the shell is back", PATIENCE, |screen| {
            screen.trim_end().ends_with("shell$")
        });
        shell.type_keys("fg\r");
        shell.wait("the prompt is back", PATIENCE, |screen| {
            screen.trim_end().ends_with(typed.trim_end())
        });
    }
    shell.type_keys("ne\r");
    bob.wait_json("the line", PATIENCE, |line| {
        line["params"]["body"] == "half a line"
    })
    .unwrap();
    shell.type_keys("/quit\r");
    shell.wait("it ends", PATIENCE, |screen| {
        screen.trim_end().ends_with("shell$")
    });
    shell.type_keys("exit\r");
    shell.end(PATIENCE);
}

/// The shell takes the terminal when the chat stops, and does not give it back when the chat goes on.
#[test]
fn a_chat_that_was_in_the_background_goes_on_where_it_was() {
    if !is_there("bash") {
        println!("skipped: there is no bash");
        return;
    }
    let world = two_people();
    let _bob = world.receive("bob");
    let chat = world.peer_command("alice", &["chat", "bob"]);
    let mut shell = Terminal::start(&in_shell(&chat), 80);
    let is_behind = |end: &'static str| move |screen: &str| screen.trim_end().ends_with(end);
    shell.wait("the shell", PATIENCE, is_behind("shell$"));
    let of_shell = shell.foreground();
    shell.type_keys("\"$@\"\r");
    shell.wait("the prompt", PATIENCE, is_behind("bob>"));
    let of_chat = shell.foreground();
    kill_process(of_chat, Signal::STOP).unwrap();
    shell.wait("the shell is back", PATIENCE, is_behind("shell$"));
    assert_eq!(shell.foreground(), of_shell);
    kill_process(of_chat, Signal::CONT).unwrap();
    let sent = world.peer("bob", &["send", "alice", "while away"]);
    assert_eq!(sent.code(), 0, "{sent:?}");
    let state = || text(&world.history("bob", "alice").last().unwrap()["state"]);
    assert_eq!(state(), "delivered");
    // What is typed for the shell wakes both, and stops the chat where that is about to read it.
    let mut round = 0;
    let screen = until("a key stops the chat", PATIENCE, || {
        round += 1;
        shell.type_keys(&format!("echo round {round}; jobs\r"));
        let listed = format!("\nround {round}\n[1]+  ");
        let screen = shell.wait("the shell works", PATIENCE, |screen| {
            screen.contains(&listed) && screen.trim_end().ends_with("shell$")
        });
        let (_, job) = screen.split_once(&listed)?;
        job.starts_with("Stopped").then_some(screen)
    });
    assert!(!screen.contains("while away"), "{screen}");
    shell.type_keys("fg\r");
    shell.wait("what came meanwhile", PATIENCE, |screen| {
        screen.contains("while away") && screen.trim_end().ends_with("bob>")
    });
    until("it is read", PATIENCE, || (state() == "read").then_some(()));
    // No Enter, and Ctrl-C is a key.
    shell.type_keys("half a line");
    shell.wait("it is typed", PATIENCE, is_behind("bob> half a line"));
    shell.type_keys("\x03");
    shell.wait("it is cleared", PATIENCE, is_behind("half a line^C\nbob>"));
    shell.type_keys("/quit\r");
    shell.wait("it ends", PATIENCE, is_behind("shell$"));
    shell.type_keys("exit\r");
    shell.end(PATIENCE);
}

#[test]
fn a_wider_screen_shows_one_prompt() {
    let world = two_people();
    let _bob = world.receive("bob");
    let chat = world.peer_command("alice", &["chat", "bob"]);
    let mut terminal = Terminal::start(&chat, 40);
    terminal.wait("the prompt", PATIENCE, |screen| screen.contains("bob>"));
    let typed = "words that take more than one row of a narrow screen";
    terminal.type_keys(typed);
    let end = "a narrow screen";
    terminal.wait("it is typed", PATIENCE, |screen| {
        screen.replace('\n', "").contains(end)
    });
    terminal.resize(120);
    let screen = terminal.wait("it is drawn anew", PATIENCE, |screen| {
        screen.contains(&format!("bob> {typed}"))
    });
    assert_eq!(screen.matches("bob>").count(), 1, "{screen}");
}

/// A line that takes three rows of forty columns, without a blank that a row could end with.
const THREE_ROWS: &str =
    "a_line_of_three_rows_____________________________________________________________and_its_end";

/// Changes the width of a screen that reflows, below three messages and a long line, and wants to see each
/// message `times` so often.
#[expect(clippy::print_stdout, reason = "a test that is skipped says so")]
fn on_a_screen_that_reflows(widths: &[u16], times: RangeInclusive<usize>) {
    if !Tmux::is_there() {
        println!("skipped: there is no tmux");
        return;
    }
    let world = two_people();
    let _bob = world.receive("bob");
    let chat = world.peer_command("alice", &["chat", "bob"]);
    let tmux = Tmux::start(&chat, 40);
    tmux.wait("the prompt", |screen| screen.contains("bob>"));
    let mut typed = THREE_ROWS.to_owned();
    tmux.type_keys(&typed);
    let joined = |screen: &str| screen.replace('\n', "");
    tmux.wait("it is typed", |screen| joined(screen).contains(&typed));
    let messages = ["MSG 1", "MSG 2", "MSG 3"];
    for message in messages {
        let sent = world.peer("bob", &["send", "alice", message]);
        assert_eq!(sent.code(), 0, "{sent:?}");
        tmux.wait(message, |screen| {
            screen.contains(message) && joined(screen).contains(&typed)
        });
    }
    for width in widths {
        tmux.resize(*width);
        // When the key has been taken, so has the size.
        tmux.type_keys(".");
        typed.push('.');
        let screen = tmux.wait("it is drawn anew", |screen| joined(screen).contains(&typed));
        for message in messages {
            let found = screen.matches(message).count();
            assert!(times.contains(&found), "{message} at {width}: {screen}");
        }
        let prompts = screen.matches("bob>").count();
        assert!(times.contains(&prompts), "{width}: {screen}");
    }
}

#[test]
fn a_wider_screen_keeps_what_was_printed_above_a_long_line() {
    on_a_screen_that_reflows(&[120], 1..=1);
}

#[test]
fn a_screen_that_gets_wider_in_steps_keeps_what_was_printed_above_a_long_line() {
    on_a_screen_that_reflows(&[60, 80, 81, 120], 1..=1);
}

/// In narrower rows the beginning of the line stays above it, and the editor clears that first.
#[test]
fn a_screen_that_gets_narrow_and_wide_again_keeps_what_was_printed_above_a_long_line() {
    on_a_screen_that_reflows(&[30, 20, 120, 40, 120, 35, 70, 120], 1..=usize::MAX);
}

#[test]
fn t30_an_open_chat_says_that_another_server_is_in_the_place_of_its_own() {
    let mut world = two_people();
    let right = world.server().fingerprint.clone();
    let chat = world.peer_command("alice", &["chat", "bob"]);
    let mut terminal = Terminal::start(&chat, 200);
    terminal.wait("the prompt", PATIENCE, |screen| screen.contains("bob>"));
    let address = world.stop_server();
    terminal.wait("it is lost", PATIENCE, |screen| screen.contains("Offline:"));
    world.serve("another-server", &["--listen", &address]);
    let wrong = world.server().fingerprint.clone();
    let loud = [
        "THE SERVER'S KEY HAS CHANGED",
        &right,
        &wrong,
        "Nothing was sent",
        "forget-server",
        "Trying again",
    ];
    terminal.wait("it is told", PATIENCE, |screen| {
        loud.iter().all(|words| screen.contains(words))
    });
    world.stop_server();
    world.serve("server", &["--listen", &address]);
    terminal.wait("it is back", PATIENCE, |screen| {
        screen.contains("Online again.")
    });
    let bob = world.receive("bob");
    terminal.type_keys("still here\r");
    bob.wait_json("the line", PATIENCE, |line| {
        line["params"]["body"] == "still here"
    })
    .unwrap();
}

#[test]
fn a_chat_says_that_it_waits_for_a_server_that_hangs() {
    let world = two_people();
    let server = world.server();
    let signal = |name: &str| {
        let id = server.running.id().to_string();
        let sent = std::process::Command::new("kill")
            .args(["-s", name, "--", &id])
            .status();
        assert!(sent.unwrap().success());
    };
    signal("STOP");
    let chat = world.peer_command("alice", &["chat", "bob"]);
    let mut terminal = Terminal::start(&chat, 80);
    let words = format!("Connecting to {}…", server.address);
    terminal.wait("it says so", PATIENCE, |screen| {
        screen.contains(&words) && !screen.contains("bob>")
    });
    signal("CONT");
    terminal.wait("the prompt", PATIENCE, |screen| screen.contains("bob>"));
}

#[test]
fn a_new_password_is_asked_for_again_until_it_will_do() {
    let world = World::new(EXECUTABLE);
    let server = world.server();
    let command = world.peer_command(
        "alice",
        &[
            "register",
            "alice",
            "--server",
            &server.address,
            "--fingerprint",
            &server.fingerprint,
        ],
    );
    let mut terminal = Terminal::start(&command, 80);
    let asks =
        |times: usize| move |screen: &str| screen.matches("Password of alice:").count() == times;
    let repeats =
        |times: usize| move |screen: &str| screen.matches("The same again:").count() == times;
    let screen = terminal.wait("the first question", PATIENCE, asks(1));
    assert!(screen.contains("at least 8 characters"), "{screen}");
    terminal.type_keys("short\r");
    terminal.wait("too short", PATIENCE, asks(2));
    terminal.type_keys("long enough\r");
    terminal.wait("once more", PATIENCE, repeats(1));
    terminal.type_keys("another one\r");
    let screen = terminal.wait("they differ", PATIENCE, asks(3));
    assert!(screen.contains("differ"), "{screen}");
    terminal.type_keys("long enough\r");
    terminal.wait("once more", PATIENCE, repeats(2));
    terminal.type_keys("long enough\r");
    let (status, screen) = terminal.end(PATIENCE);
    assert_eq!(status.code(), Some(0), "{screen}");
    assert!(screen.contains("Registered alice"), "{screen}");
    assert!(!screen.contains("long enough"), "{screen}");
}

#[test]
fn a_fingerprint_answers_whether_a_server_is_trusted() {
    let world = World::new(EXECUTABLE);
    let server = world.server();
    let other = common::key::Fingerprint::of_spki(b"another key").to_string();
    let command = ["register", "alice", "--server", &server.address];
    let command = world.peer_command("alice", &command);
    let asks = |times: usize| move |screen: &str| screen.matches("[yes/no]").count() == times;

    let mut terminal = Terminal::start(&command, 200);
    terminal.wait("the question", PATIENCE, asks(1));
    terminal.type_keys("maybe\r");
    let screen = terminal.wait("it is asked again", PATIENCE, asks(2));
    assert!(
        screen.contains("the fingerprint that you were told"),
        "{screen}"
    );
    // Its last character has bits set that none of 32 bytes are in.
    let mistyped = format!("{}B", &server.fingerprint[..server.fingerprint.len() - 1]);
    terminal.type_keys(&format!("{mistyped}\r"));
    let screen = terminal.wait("it is asked once more", PATIENCE, asks(3));
    let differs = "That is not the fingerprint that the server shows.";
    assert!(screen.contains(differs), "{screen}");
    terminal.type_keys(&format!("{other}\r"));
    ends(terminal, 6, &format!("you were told {other}, and it shows"));

    let mut terminal = Terminal::start(&command, 200);
    terminal.wait("the question", PATIENCE, asks(1));
    terminal.type_keys(&format!(" {} \r", server.fingerprint));
    terminal.wait("the password", PATIENCE, |screen| {
        screen.contains("Password of alice:")
    });
}

#[test]
fn what_was_typed_before_a_question_does_not_answer_it() {
    let world = two_people();
    fs::create_dir(world.path("inbox")).unwrap();
    fs::write(world.path("holiday.jpg"), "sun").unwrap();
    let receive = world.peer_command("alice", &["receive", "--folder", "inbox"]);
    let mut terminal = Terminal::start(&receive, 80);
    world.wait_ready("alice");
    terminal.type_keys("y\r");
    terminal.wait("it is shown", PATIENCE, |screen| screen.contains('y'));
    let sent = world.peer_command("bob", &["send-file", "alice", "holiday.jpg"]);
    let sent = thread::spawn(move || run(Program::Peer, &mut { sent }));
    terminal.wait("the question", PATIENCE, |screen| {
        screen.contains("Take holiday.jpg?")
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
    let world = two_people();
    world.register("carol");
    fs::create_dir(world.path("inbox")).unwrap();
    for name in ["small.txt", "other.txt"] {
        fs::write(world.path(name), "x").unwrap();
    }
    let receive = world.peer_command("bob", &["receive", "--folder", "inbox"]);
    let mut bob = Terminal::start(&receive, 80);
    world.wait_ready("bob");
    let sends = world.peer_command("alice", &["send-file", "bob", "small.txt"]);
    let mut alice = Terminal::start(&sends, 80);
    bob.wait("the question", PATIENCE, |screen| {
        screen.contains("Take small.txt?")
    });
    bob.type_keys("y");
    let is_typed = |keys: &'static str| move |screen: &str| screen.lines().last() == Some(keys);
    bob.wait("it is half typed", PATIENCE, is_typed("y"));
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
        screen.contains("Take other.txt?")
    });
    bob.type_keys("\r");
    let screen = bob.wait("it is asked again", PATIENCE, |screen| {
        screen.matches("Take other.txt?").count() == 2
    });
    let notice = "The offer of small.txt was withdrawn";
    for row in [notice, "carol offers other.txt"] {
        assert!(
            screen.lines().any(|line| line.starts_with(row)),
            "{row}: {screen}"
        );
    }
    bob.type_keys("n\r");
    ends(carol, 9, "declined");
    assert_eq!(world.names_in("inbox"), [""; 0]);
}

#[test]
fn the_question_that_an_answer_is_for_is_the_last_line() {
    let world = two_people();
    world.register("carol");
    fs::create_dir(world.path("inbox")).unwrap();
    for name in ["first.txt", "second.txt"] {
        fs::write(world.path(name), "x").unwrap();
    }
    let receive = world.peer_command("bob", &["receive", "--folder", "inbox"]);
    let mut bob = Terminal::start(&receive, 80);
    world.wait_ready("bob");
    let asks = |name: &'static str, shown: &'static str| {
        move |screen: &str| {
            let question = format!("Take {name}? [y/n, then Enter]");
            let last = screen.trim_end().lines().next_back();
            screen.contains(shown) && last == Some(&*question)
        }
    };
    let first = world.start("alice", &["send-file", "bob", "first.txt"]);
    bob.wait("the question", PATIENCE, asks("first.txt", "alice offers"));
    bob.type_keys("hal");
    bob.wait("it is half typed", PATIENCE, |screen| {
        screen.lines().last() == Some("hal")
    });
    let second = world.start("carol", &["send-file", "bob", "second.txt"]);
    let offers = "\ncarol offers second.txt (1 B)\n";
    bob.wait("it is asked again", PATIENCE, asks("first.txt", offers));
    bob.type_keys("hal");
    let sent = world.peer("alice", &["send", "bob", "take the second one"]);
    assert_eq!(sent.code(), 0, "{sent:?}");
    let message = "alice: take the second one\n";
    let screen = bob.wait(
        "it is asked once more",
        PATIENCE,
        asks("first.txt", message),
    );
    assert!(!screen.contains("hal2"), "{screen}");
    // What was half typed is not part of the answer.
    bob.type_keys("y\r");
    let received = "\nReceived first.txt from alice: ";
    bob.wait(
        "it asks for the next",
        PATIENCE,
        asks("second.txt", received),
    );
    bob.type_keys("n\r");
    bob.wait("it is declined", PATIENCE, |screen| {
        screen.contains("Declined second.txt.")
    });
    assert_eq!(first.finish(PATIENCE).unwrap().code(), 0);
    assert_eq!(second.finish(PATIENCE).unwrap().code(), 9);
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
        screen.contains("Take con.txt")
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
        screen.matches("Take con.txt").count() == 2
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
    make_film(&world);
    fs::write(world.path("letter.txt"), "x").unwrap();
    let receive = world.peer_command("bob", &["receive", "--folder", "inbox"]);
    let mut bob = Terminal::start(&receive, 80);
    world.wait_ready("bob");
    let _film = world.start("alice", &["send-file", "bob", "film.mp4"]);
    bob.wait("the question", PATIENCE, |screen| {
        screen.contains("Take film.mp4?")
    });
    bob.type_keys("y\r");
    bob.wait("it moves", PATIENCE, |screen| screen.contains(" left"));
    let letter = world.start("carol", &["send-file", "bob", "letter.txt"]);
    let stands_below = |words: &'static str| {
        move |screen: &str| {
            let rows: Vec<_> = screen.trim_end().lines().rev().collect();
            rows[0].starts_with("film.mp4")
                && rows[1] == "Take letter.txt? [y/n, then Enter]"
                && rows[2].ends_with(words)
        }
    };
    let offers = "carol offers letter.txt (1 B)";
    bob.wait("the next question", PATIENCE, stands_below(offers));
    bob.type_keys("hal");
    let sent = world.peer("carol", &["send", "bob", "it is short"]);
    assert_eq!(sent.code(), 0, "{sent:?}");
    let message = " carol: it is short";
    bob.wait("it is asked again", PATIENCE, stands_below(message));
    bob.type_keys("n\r");
    bob.wait("it is declined", PATIENCE, |screen| {
        screen.contains("Declined letter.txt.")
    });
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
    shell.type_keys("; exit\r");
    shell.wait("the whole line is the shell's", PATIENCE, |screen| {
        screen.contains("half: command not found")
    });
}

#[test]
fn an_offer_whose_sender_is_gone_says_so() {
    let world = two_people();
    fs::write(world.path("small.txt"), "x").unwrap();
    let receive = world.peer_command("bob", &["receive"]);
    let mut bob = Terminal::start(&receive, 80);
    world.wait_ready("bob");
    let alice = world.start("alice", &["send-file", "bob", "small.txt"]);
    bob.wait("the question", PATIENCE, |screen| {
        screen.contains("Take small.txt?")
    });
    alice.kill();
    let screen = bob.wait("it has ended", PATIENCE, |screen| {
        screen.contains("The offer of small.txt ")
    });
    assert!(
        screen.contains("The offer of small.txt ended: "),
        "{screen}"
    );
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
    for row in ["would hide the file; it can be taken as", "_hidden"] {
        assert!(screen.lines().any(|line| line == row), "{row}: {screen}");
    }
    bob.type_keys("n\r");
    alice.wait("it is declined", PATIENCE, |screen| {
        screen.contains("declined")
    });
}

/// What a terminal does when something is pasted into it.
fn pasted(text: &str) -> String {
    format!("\u{1b}[200~{text}\u{1b}[201~")
}

/// alice at a terminal, talking to bob.
#[track_caller]
fn talking_to_bob(world: &World) -> Terminal {
    let chat = world.peer_command("alice", &["chat", "bob"]);
    let mut terminal = Terminal::start(&chat, 80);
    terminal.wait("the prompt", PATIENCE, |screen| screen.contains("bob>"));
    terminal
}

#[test]
fn t05_a_file_name_that_a_terminal_would_obey_is_not_completed() {
    let world = two_people();
    fs::create_dir(world.path("f")).unwrap();
    let hostile = ["\u{1b}]2;PWNED\u{7}", "\u{1b}[2J", "\u{202e}", "\u{9b}2J"];
    for (number, control) in hostile.iter().enumerate() {
        fs::write(world.path(&format!("f/{number}{control}x")), "").unwrap();
    }
    fs::write(world.path("f/plain.txt"), "").unwrap();
    let mut terminal = talking_to_bob(&world);
    terminal.type_keys("/send-file bob f/\t\t\t");
    terminal.wait("the only honest name", PATIENCE, |screen| {
        screen.contains("bob f/plain.txt")
    });
    let written = terminal.written();
    for control in hostile {
        assert!(!written.contains(control), "{written:?}");
    }
}

#[test]
fn a_path_is_taken_as_completion_writes_it() {
    let world = two_people();
    let _bob = world.receive("bob");
    let mut terminal = talking_to_bob(&world);
    for (number, folder, name) in [(1, "f", "trail space "), (2, "g", "a (b)'s & $c.txt")] {
        fs::create_dir(world.path(folder)).unwrap();
        fs::write(world.path(&format!("{folder}/{name}")), "x").unwrap();
        terminal.type_keys(&format!("/send-file bob {folder}/\t\r"));
        let words = format!("Offered as transfer {number}:");
        terminal.wait(&words, PATIENCE, |screen| screen.contains(&words));
    }
}

#[test]
fn t05_what_is_typed_is_shown_as_the_gate_shows_it_and_sent_as_it_is() {
    let world = two_people();
    let bob = world.receive("bob");
    let mut terminal = talking_to_bob(&world);
    let text = "a\u{9b}31mb\u{85}c\u{7}d\u{202e}e\u{e000}f";
    terminal.type_keys(&pasted(text));
    terminal.wait("it is pasted", PATIENCE, |screen| {
        screen.contains("bob> a31mbcdef")
    });
    // By keys: the second one would be written directly behind what is there.
    terminal.type_keys("\u{e001}\u{202e}g");
    terminal.wait("it is typed", PATIENCE, |screen| {
        screen.contains("bob> a31mbcdefg")
    });
    terminal.type_keys("\r");
    let sent = format!("{text}\u{e001}\u{202e}g");
    bob.wait_json("the line", PATIENCE, |line| line["params"]["body"] == *sent)
        .unwrap();
    terminal.type_keys("/quit\r");
    terminal.wait("it ends", PATIENCE, |screen| screen.contains("bob> /quit"));
    let written = terminal.written();
    // The screen of the tests leaves that character out.
    assert!(
        written.contains("a31mbcde\u{fffd}f\u{fffd}g"),
        "{written:?}"
    );
    for control in [
        '\u{9b}', '\u{85}', '\u{7}', '\u{202e}', '\u{e000}', '\u{e001}',
    ] {
        assert!(!written.contains(control), "{control:?} in {written:?}");
    }
}

/// More than a message takes, and more columns than the editor can count at once.
const TOO_LONG: usize = 66_000;

#[test]
fn a_line_that_is_too_long_can_be_taken_back() {
    let world = two_people();
    let bob = world.receive("bob");
    let mut terminal = talking_to_bob(&world);
    let long = "x".repeat(TOO_LONG);
    for key in ["\u{15}", "\u{17}"] {
        terminal.type_keys(&pasted(&long));
        terminal.wait("it is told", PATIENCE, |screen| {
            screen.contains("66000 of at most 65536 bytes")
        });
        terminal.type_keys(key);
        terminal.wait("it is gone", PATIENCE, |screen| {
            screen.trim_end().ends_with("bob>")
        });
    }
    terminal.type_keys(&pasted(&long));
    terminal.type_keys("\r");
    let screen = terminal.wait("it is not sent", PATIENCE, |screen| {
        screen.contains("make it shorter") && screen.trim_end().ends_with("bob>")
    });
    let words = screen.split_whitespace().collect::<Vec<_>>().join(" ");
    assert_eq!(words.matches("as a file").count(), 1, "{screen}");
    // It is not what the key brings back.
    terminal.type_keys("short\r\u{1b}[A\u{1b}[A\u{15}still here\r");
    for text in ["short", "still here"] {
        bob.wait_json(text, PATIENCE, |line| line["params"]["body"] == text)
            .unwrap();
    }
    terminal.type_keys("/quit\r");
    ends(terminal, 0, "");
}

/// A terminal that does not mark what is pasted has the editor take every character for a key.
#[test]
fn a_long_paste_that_looks_typed_is_drawn_soon() {
    let world = two_people();
    let bob = world.receive("bob");
    let mut terminal = talking_to_bob(&world);
    let long = "x".repeat(45_000);
    terminal.type_keys(&format!("{long}\r"));
    bob.wait_json("the line", PATIENCE, |line| line["params"]["body"] == *long)
        .unwrap();
    terminal.type_keys("/quit\r");
    ends(terminal, 0, "");
}

#[test]
fn a_chat_whose_line_editor_fails_says_so_and_ends() {
    let world = two_people();
    let chat = world.peer_command("alice", &["chat", "bob"]);
    let mut shell = Terminal::start(&in_shell(&chat), 80);
    // The editor counts in this mode what it cannot, in every build.
    shell.type_keys("TERM_PROGRAM=WezTerm \"$@\"\r");
    shell.wait("the prompt", PATIENCE, |screen| {
        screen.trim_end().ends_with("bob>")
    });
    // Up goes from a line that is too wide to count to the one above it.
    shell.type_keys(&pasted(&format!("a\n{}", "x".repeat(TOO_LONG))));
    shell.type_keys("\u{1b}[A");
    shell.wait("it ends", PATIENCE, |screen| {
        screen.contains("error: could not read what is typed")
            && screen.trim_end().ends_with("shell$")
    });
    // The terminal is as it was: it shows what is typed, and tells nobody what is pasted.
    let written = shell.written();
    let (on, off) = ("\u{1b}[?2004h", "\u{1b}[?2004l");
    let failed = written.find("could not read what is typed").unwrap();
    assert!(written[..failed].rfind(off) > written[..failed].rfind(on));
    shell.type_keys("stty -a\r");
    shell.wait("it echoes", PATIENCE, |screen| {
        screen.contains("shell$ stty -a") && screen.contains(" icanon") && screen.contains(" echo ")
    });
    shell.type_keys("exit\r");
    shell.end(PATIENCE);
}

/// Kept out of memory: a hole has no bytes. Large enough that the other side can be stopped on the way.
const LARGE: u64 = 2 << 30;

/// Makes a large file `film.mp4`, and a folder to put it into.
fn make_film(world: &World) {
    fs::create_dir(world.path("inbox")).expect("the folder is new");
    let file = fs::File::create(world.path("film.mp4")).expect("the folder can be written to");
    file.set_len(LARGE).expect("a hole takes no room");
}

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
        last(screen).ends_with("stalled")
    });
    alice.type_keys("half a line");
    alice.wait("what is typed stands above", PATIENCE, |screen| {
        let rows: Vec<_> = screen.trim_end().lines().rev().collect();
        rows[0].ends_with("stalled") && rows[1] == "bob> half a line"
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
    assert_eq!(world.names_in("inbox"), [""; 0]);
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

#[test]
fn an_interrupt_says_what_became_of_a_file() {
    let world = two_people();
    make_film(&world);
    let asks = |screen: &str| screen.contains("Take film.mp4?");
    let moves = |screen: &str| screen.contains(" left");
    let sends = world.peer_command("alice", &["send-file", "bob", "film.mp4"]);
    let takes = world.peer_command("bob", &["receive", "--folder", "inbox"]);

    // Before it is answered.
    let mut bob = Terminal::start(&takes, 80);
    world.wait_ready("bob");
    let mut alice = Terminal::start(&sends, 80);
    bob.wait("the question", PATIENCE, asks);
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
    let mut alice = Terminal::start(&sends, 80);
    bob.wait("the second question", PATIENCE, |screen| {
        screen.matches("Take film.mp4?").count() == 2
    });
    bob.type_keys("y\r");
    alice.wait("it moves", PATIENCE, moves);
    alice.type_keys("\x03");
    ends(alice, 130, "Cancelled: film.mp4 was not sent. bob had ");
    bob.wait("it failed", PATIENCE, |screen| {
        screen.contains("error: film.mp4 from alice failed: cancelled by the other side")
    });

    // On its way, by the receiver.
    let mut alice = Terminal::start(&sends, 80);
    bob.wait("the third question", PATIENCE, |screen| {
        screen.matches("Take film.mp4?").count() == 3
    });
    bob.type_keys("y\r");
    alice.wait("it moves", PATIENCE, moves);
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
        screen.contains("Take letter.txt?")
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
fn whoever_leaves_is_told_with_the_device() {
    let world = two_people();
    let bob = world.receive("bob");
    let listed = world.json("alice", &["list"]);
    let bobs = listed.iter().find(|line| line["account"] == "bob").unwrap();
    let device = bobs["device"].as_str().unwrap();
    let watch = world.peer_command("alice", &["list", "--watch"]);
    let mut terminal = Terminal::start(&watch, 80);
    terminal.wait("the list", PATIENCE, |screen| screen.contains("bob"));
    bob.kill();
    terminal.wait("bob leaves", PATIENCE, |screen| {
        screen.contains(&format!("bob left with {device}"))
    });
}

/// A shell whose arguments are a command.
fn in_shell(command: &std::process::Command) -> std::process::Command {
    terminal::wrapped(
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
fn is_there(program: &str) -> bool {
    let asked = std::process::Command::new(program)
        .arg("--version")
        .output();
    asked.is_ok_and(|asked| asked.status.success())
}
