//! What a person sees who types at a terminal.

// Questions of `receive`.
#[path = "screen/questions.rs"]
mod questions;
// A server that is away, or another one.
#[path = "screen/server.rs"]
mod server;
// What these tests share.
#[path = "screen/shared.rs"]
mod shared;
mod terminal;
// Files on their way.
#[path = "screen/transfers.rs"]
mod transfers;

use std::fs;
use std::ops::RangeInclusive;

use rustix::process::{Signal, kill_process};
use tests::world::{PATIENCE, World, text, until};

use shared::{EXECUTABLE, ends, in_shell, is_there, talking_to_bob, two_people};
use terminal::tmux::Tmux;
use terminal::{Terminal, wrapped};

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
fn a_text_for_nobody_comes_back_into_the_line() {
    let world = two_people();
    let bob = world.receive("bob");
    let chat = world.peer_command("alice", &["chat"]);
    let mut terminal = Terminal::start(&chat, 80);
    // Behind so many objections.
    let ends_with = |words: &'static str, count| {
        move |screen: &str| {
            let objections = screen.matches("To whom?").count();
            objections == count && screen.trim_end().ends_with(words)
        }
    };
    terminal.wait("the prompt", PATIENCE, ends_with(">", 0));
    terminal.type_keys("one\r");
    terminal.wait("the text is back", PATIENCE, ends_with("> one", 1));
    // Ctrl-A goes to the start of the line, Ctrl-U clears it to there.
    terminal.type_keys("\x01bob,carol: \r");
    let body = |text: &'static str| {
        move |line: &serde_json::Value| {
            line["method"] == "message" && line["params"]["body"] == text
        }
    };
    bob.wait_json("one", PATIENCE, body("one")).unwrap();
    terminal.type_keys("two\r");
    terminal.wait("the next one is back", PATIENCE, ends_with("> two", 2));
    terminal.type_keys("\x15/to bob\r");
    terminal.wait("and once more", PATIENCE, ends_with("bob> two", 2));
    terminal.type_keys("\r");
    bob.wait_json("two", PATIENCE, body("two")).unwrap();
    terminal.type_keys("/quit\r");
    ends(terminal, 0, "");
}

#[test]
fn a_chat_begins_with_its_greeting_in_sight_though_the_last_text_was_long() {
    let world = two_people();
    let text = "lorem ipsum ".repeat(5000);
    let sent = world.peer("alice", &["send", "bob", "--no-wait", &text]);
    assert_eq!(sent.code(), 0, "{sent:?}");
    let mut terminal = talking_to_bob(&world);
    let screen = terminal.wait("it is shown", PATIENCE, |screen| {
        screen.contains("/history shows all of it") && screen.trim_end().ends_with("bob>")
    });
    assert!(screen.contains("You are alice."), "{screen}");
    terminal.type_keys("/quit\r");
    terminal.end(PATIENCE);
}

#[test]
fn a_chat_without_a_line_editor_says_to_whom_one_writes() {
    let world = two_people();
    let sent = world.peer("alice", &["send", "bob", "--no-wait", "see you"]);
    assert_eq!(sent.code(), 0, "{sent:?}");
    let chat = world.peer_command("alice", &["chat", "bob"]);
    let mut terminal = Terminal::start(&wrapped("env", &["TERM=dumb"], &chat), 80);
    let greeting = "You are alice. What you type goes to bob.";
    terminal.wait("the greeting", PATIENCE, |screen| {
        screen.contains(greeting) && screen.contains("see you")
    });
    terminal.type_keys("/to carol\r");
    terminal.wait("the other name", PATIENCE, |screen| {
        screen.contains("What you type goes to carol.")
    });
    terminal.type_keys("/quit\r");
    terminal.end(PATIENCE);
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

/// In the background the chat stops, as a rule at once: it wants to set the mode of a terminal that is the
/// shell's. Where it does not, it has nothing to make up for.
#[test]
fn a_chat_with_a_half_typed_line_that_stopped_in_the_background_goes_on_with_it() {
    if !is_there("bash") {
        println!("skipped: there is no bash");
        return;
    }
    let world = two_people();
    let bob = world.receive("bob");
    let chat = world.peer_command("alice", &["chat", "bob"]);
    let mut shell = Terminal::start(&in_shell(&chat), 80);
    let is_behind = |end: &'static str| move |screen: &str| screen.trim_end().ends_with(end);
    shell.wait("the shell", PATIENCE, is_behind("shell$"));
    shell.type_keys("\"$@\"\r");
    shell.wait("the prompt", PATIENCE, is_behind("bob>"));
    shell.type_keys("half");
    shell.wait("it is typed", PATIENCE, is_behind("bob> half"));
    // Several times: which of its threads goes on first is a matter of luck.
    for round in 1..=5 {
        shell.type_keys("\x1a");
        shell.wait("the shell is back", PATIENCE, is_behind("shell$"));
        shell.type_keys("bg\r");
        let stopped = format!("in shell {round}\n");
        for _ in 0..20 {
            shell.type_keys("clear; jobs\r");
            shell.type_keys(&format!("echo in shell {round}\r"));
            let screen = shell.wait("the shell works", PATIENCE, |screen| {
                screen.contains(&stopped) && screen.trim_end().ends_with("shell$")
            });
            if screen.contains("Stopped") {
                break;
            }
        }
        shell.type_keys("fg\r");
        shell.wait("the line is back", PATIENCE, is_behind("bob> half"));
    }
    shell.type_keys(" typed\r");
    bob.wait_json("the line", PATIENCE, |line| {
        line["params"]["body"] == "half typed"
    })
    .unwrap();
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

/// The lines below what is typed were made for the wider screen.
#[test]
fn a_screen_that_gets_narrow_shows_one_prompt_above_a_file_on_its_way() {
    if !Tmux::is_there() {
        println!("skipped: there is no tmux");
        return;
    }
    let world = two_people();
    let _bob = world.receive_with("bob", &["--accept", "ask"]);
    fs::write(world.path("letter.txt"), "x").unwrap();
    let chat = world.peer_command("alice", &["chat", "bob"]);
    let tmux = Tmux::start(&chat, 80);
    tmux.wait("the prompt", |screen| screen.contains("bob>"));
    tmux.type_keys("/send-file bob letter.txt\n");
    tmux.wait("it is offered", |screen| {
        screen.contains(" 1: letter.txt to bob, waits for an answer")
    });
    tmux.resize(40);
    for (at, key) in "hello".char_indices() {
        tmux.type_keys(&key.to_string());
        let typed = format!("bob> {}", &"hello"[..=at]);
        let screen = tmux.wait("it is typed", |screen| screen.contains(&typed));
        assert_eq!(screen.matches("bob> h").count(), 1, "{screen}");
    }
    // The wider line took two rows of the narrow screen, until it was drawn anew in one.
    let is_alone = |screen: &str| {
        let below = screen.rsplit_once("bob> hello").map(|(_, below)| below);
        let rows = below.unwrap_or_default().lines().map(str::trim);
        let rows: Vec<_> = rows.filter(|row| !row.is_empty()).collect();
        matches!(rows[..], [row] if row.starts_with("1: "))
    };
    tmux.wait("nothing is left of the wider line", is_alone);
}

/// A message goes on below its beginning, in further rows.
#[test]
fn a_long_message_is_broken_at_blanks() {
    if !Tmux::is_there() {
        println!("skipped: there is no tmux");
        return;
    }
    let world = two_people();
    let text = "No word of this message is broken, though it has more of them than fit a row of eighty columns.";
    let chat = world.peer_command("alice", &["chat", "bob"]);
    let tmux = Tmux::start(&chat, 80);
    tmux.wait("the prompt", |screen| screen.contains("bob>"));
    world.peer("bob", &["send", "alice", text]);
    let is_broken = |screen: &str| {
        let rows: Vec<&str> = screen.lines().collect();
        rows.windows(2).any(|rows| {
            let begins = rows[0].contains(" bob: No word of this message");
            begins && rows[1].starts_with("           ")
        })
    };
    let screen = tmux.wait("it is there", is_broken);
    let dense = screen.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(dense.contains(text), "{screen}");
    // In the history at the start, too.
    drop(tmux);
    let tmux = Tmux::start(&chat, 80);
    tmux.wait("it is in the history", is_broken);
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

/// What a terminal does when something is pasted into it.
fn pasted(text: &str) -> String {
    format!("\u{1b}[200~{text}\u{1b}[201~")
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
