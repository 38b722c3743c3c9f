//! Messages between the real programs: to one and to several, to whoever is away, and never raw on a
//! screen.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixListener;
use std::process::Stdio;

use common::os::lock::FolderLock;
use serde_json::{Value, json};
use tests::program::{Program, Running};
use tests::world::{PATIENCE, World, assert_explains, assert_fails, run, text, until, with_stdin};

const EXECUTABLE: &str = env!("CARGO_BIN_EXE_demo");
/// Escape sequences that set the clipboard, clear the screen and change colours, in both forms, a
/// carriage return, a bell, a backspace, a bidirectional override and a zero-width joiner.
const HOSTILE: &str =
    "a\u{1b}]52;c;aGk=\u{7}\u{1b}[2J\rb\u{8}\u{9b}31m\u{202e}c\u{200d}\u{7f}\nsecond: line";

#[test]
fn a_text_reaches_several_people_and_stays_in_everybodys_history() {
    let mut world = World::new(EXECUTABLE);
    for who in ["alice", "bob", "carol"] {
        world.register(who);
    }
    let bob = world.receive("bob");
    let carol = world.receive("carol");
    let sent = world.json("alice", &["send", "bob,carol,bob", "Grüße 👍"]);
    let states: Vec<_> = sent
        .iter()
        .map(|line| (&line["to"], &line["state"]))
        .collect();
    assert_eq!(states.len(), 2, "a name given twice counts once");
    for who in ["bob", "carol"] {
        assert!(
            states.contains(&(&json!(who), &json!("delivered"))),
            "{states:?}"
        );
    }

    fs::write(world.path("text"), "from a file\nwith two lines\n").unwrap();
    let command = world.peer_command("alice", &["send", "bob", "-"]);
    let piped = run(Program::Peer, &mut with_stdin(command, &world.path("text")));
    assert_eq!(piped.code(), 0, "{piped:?}");
    let dashed = world.peer("alice", &["send", "bob", "--", "-5 degrees"]);
    assert_eq!(dashed.code(), 0, "{dashed:?}");

    // Nobody runs any more: what is shown comes from the disk.
    for running in [bob, carol] {
        assert_eq!(running.interrupt().unwrap().code(), Some(130));
    }
    world.stop_server();
    let expected = ["Grüße 👍", "from a file\nwith two lines", "-5 degrees"];
    assert_eq!(world.received("bob", "alice"), expected);
    assert_eq!(world.received("carol", "alice"), expected[..1]);
    let sent = world.history("alice", "bob");
    let bodies: Vec<_> = sent.iter().map(|item| text(&item["body"])).collect();
    assert_eq!(bodies, expected);
    assert!(sent.iter().all(|item| item["direction"] == "sent"));
    assert_eq!(world.json("bob", &["history", "--limit", "1"]).len(), 1);
    for (option, time, expected) in [("--since", "1h", 3), ("--until", "1h", 0)] {
        let found = world.json("bob", &["history", option, time]);
        assert_eq!(found.len(), expected, "{option} {time}");
    }
    let reversed = world.peer("bob", &["history", "--since", "1h", "--until", "2h"]);
    assert_explains(&reversed, 2, &["--since is not before --until", "swap"]);
    let found = world.json("bob", &["search", "grusse", "--since", "1h"]);
    assert!(found.is_empty(), "ß is not ss: {found:?}");
    for words in [&["gruße"][..], &["two", "LINES"], &["5", "deg"]] {
        let found = world.json("bob", &[&["search"], words].concat());
        assert_eq!(found.len(), 1, "{words:?}");
    }
    let shown = world.peer("bob", &["history"]).stdout;
    let days = shown.lines().filter(|line| line.starts_with("--- "));
    assert!((1..=2).contains(&days.count()), "{shown}");
}

#[test]
fn all_words_behind_the_recipients_are_the_text() {
    let world = World::new(EXECUTABLE);
    for who in ["alice", "bob", "carol", "dave"] {
        world.register(who);
    }
    let bob = world.receive("bob");
    let _carol = world.receive("carol");
    let _alice = world.receive("alice");
    for arguments in [
        &["send", "bob", "see", "you", "at", "8"][..],
        &["send", "bob", "on", "time", "--timeout", "30"],
        &["send", "--to", "bob", "who?", "--to", "carol", "me"],
        // One's own name is no recipient by mistake, nor is one that nobody has here.
        &["send", "bob", "alice", "speaking"],
        &["send", "bob", "dave", "is", "away"],
        &["send", "bob", "carol is one word"],
        &["send", "alice,bob", "note"],
    ] {
        let sent = world.peer("alice", arguments);
        assert_eq!(sent.code(), 0, "{arguments:?} {sent:?}");
    }
    // Without a text it is what a file or a pipe has.
    fs::write(world.path("text"), "from a file\n").unwrap();
    let command = world.peer_command("alice", &["send", "bob"]);
    let read = run(Program::Peer, &mut with_stdin(command, &world.path("text")));
    assert_eq!(read.code(), 0, "{read:?}");
    let mut command = world.peer_command("alice", &["send", "--to", "bob"]);
    command.stdin(Stdio::piped());
    let mut piped = Running::start(Program::Peer, &mut command).unwrap();
    writeln!(piped.take_stdin().unwrap(), "from a pipe").unwrap();
    let piped = piped.finish(PATIENCE).unwrap();
    assert_eq!(piped.code(), 0, "{piped:?}");
    let expected = [
        "see you at 8",
        "on time",
        "who? me",
        "alice speaking",
        "dave is away",
        "carol is one word",
        "note",
        "from a file",
        "from a pipe",
    ];
    assert_eq!(world.received("bob", "alice"), expected);
    assert_eq!(world.received("carol", "alice"), ["who? me"]);
    let notes = world.history("alice", "alice");
    let notes: Vec<String> = notes.iter().map(|note| text(&note["body"])).collect();
    assert_eq!(notes, ["note"]);

    // What looks like a second recipient is refused, and nothing is sent.
    let refused = world.peer("alice", &["send", "bob", "Carol", "be quick"]);
    let words = [
        "it begins with 'carol', which is an account",
        "peer send bob,carol 'TEXT'",
        "peer send bob 'carol …'",
    ];
    assert_explains(&refused, 2, &words);
    bob.interrupt().unwrap();
    let refused = world.peer("alice", &["send", "carol", "bob", "be", "quick"]);
    assert_explains(
        &refused,
        2,
        &["it begins with 'bob'", "peer send carol,bob"],
    );
    assert_eq!(world.received("carol", "alice"), ["who? me"]);
    assert!(world.json("alice", &["outbox"]).is_empty());
}

#[test]
fn a_text_that_is_only_somebodys_name_is_not_sent_by_mistake() {
    let world = World::new(EXECUTABLE);
    for who in ["alice", "bob", "carol"] {
        world.register(who);
    }
    let _bob = world.receive("bob");
    let _carol = world.receive("carol");
    let _alice = world.receive("alice");
    let refused = world.peer("alice", &["send", "bob", "Carol"]);
    let words = [
        "it is only 'carol', which is an account",
        "peer send bob,carol 'TEXT'",
        "for bob alone, that word: peer send --to bob carol",
    ];
    assert_explains(&refused, 2, &words);
    // What a pipe or a file has would be lost.
    fs::write(world.path("text"), "from a file\n").unwrap();
    let command = world.peer_command("alice", &["send", "bob", "carol"]);
    let refused = run(Program::Peer, &mut with_stdin(command, &world.path("text")));
    let words = [
        "it is only 'carol', which is an account, and standard input was not read",
        "what is piped, for both: peer send bob,carol -; for bob alone: peer send bob -;",
    ];
    assert_explains(&refused, 2, &words);
    assert!(world.json("alice", &["outbox"]).is_empty());

    for arguments in [
        &["send", "--to", "bob", "carol"][..],
        // Nobody has that name, and one's own is no recipient by mistake.
        &["send", "bob", "dave"],
        &["send", "bob", "alice"],
        &["send", "bob", "bob"],
    ] {
        let sent = world.peer("alice", arguments);
        assert_eq!(sent.code(), 0, "{arguments:?} {sent:?}");
    }
    let expected = ["carol", "dave", "alice", "bob"];
    assert_eq!(world.received("bob", "alice"), expected);
    assert!(world.received("carol", "alice").is_empty());
}

#[test]
fn a_single_word_beside_a_pipe_is_sent_and_the_pipe_is_not_forgotten() {
    let world = World::new(EXECUTABLE);
    for who in ["alice", "bob"] {
        world.register(who);
    }
    let _bob = world.receive("bob");
    fs::write(world.path("text"), "from a file\n").unwrap();
    let sent = |arguments: &[&str]| {
        let command = world.peer_command("alice", arguments);
        let sent = run(Program::Peer, &mut with_stdin(command, &world.path("text")));
        assert_eq!(sent.code(), 0, "{arguments:?} {sent:?}");
        sent
    };
    let note = "Sent is the word 'dave'; standard input was not read. To send what is piped: peer send bob,dave - (or peer send bob -).\n";
    assert_eq!(sent(&["send", "bob", "dave"]).stderr, note);
    for arguments in [
        &["send", "--to", "bob", "dave"][..],
        &["send", "bob", "dave", "--json"],
        &["send", "bob", "dave!"],
        &["send", "bob", "dave", "left"],
    ] {
        assert_eq!(sent(arguments).stderr, "", "{arguments:?}");
    }
    let expected = ["dave", "dave", "dave", "dave!", "dave left"];
    assert_eq!(world.received("bob", "alice"), expected);
}

#[test]
fn while_it_waits_send_says_for_whom_and_how_long() {
    let world = World::new(EXECUTABLE);
    world.register("alice");
    world.register("bob");
    // The server does not tell who is offline from who does not exist.
    for who in ["bob", "nobody"] {
        let sent = world.peer("alice", &["send", who, "one", "--timeout", "1"]);
        let absent =
            format!("{who} is not online (or there is no such account); waiting for at most 1 s.");
        assert_fails(&sent, 7, &[&absent]);
        let state = format!("{who}: queued, waits in the outbox until both are online\n");
        assert_eq!(sent.stdout, state);
    }
    let bob = world.receive("bob");
    world.json("alice", &["send", "bob", "two"]);
    bob.interrupt().unwrap();
    let waiting = world.start("alice", &["send", "bob", "three", "--timeout", "60"]);
    let is_it = |line: &str| line.starts_with("bob is offline; waiting for at most");
    waiting
        .wait_complaint("who is away", PATIENCE, is_it)
        .unwrap();
    let _bob = world.receive("bob");
    let finished = waiting.finish(PATIENCE).unwrap();
    assert_eq!(finished.code(), 0, "{finished:?}");
    assert_eq!(finished.stdout, "bob: delivered\n");
    assert!(finished.stderr.contains("bob is online.\n"), "{finished:?}");
    let json = world.peer(
        "alice",
        &["--json", "send", "nobody", "x", "--timeout", "1"],
    );
    assert_eq!(json.json()[0]["online"], false);
}

#[test]
fn a_message_to_somebody_who_is_away_waits_in_the_outbox() {
    let world = World::new(EXECUTABLE);
    world.register("alice");
    world.register("bob");
    let sent = world.peer("alice", &["send", "bob", "one", "--timeout", "1"]);
    assert_fails(&sent, 7, &["stays in the outbox"]);
    assert!(sent.stdout.contains("queued"), "{sent:?}");
    let status = world.json("alice", &["status"]);
    assert_eq!(status[0]["outbox"], 1);

    // Nobody of that name exists: to the sender that is the same as being away.
    let sent = world.peer("alice", &["send", "nobody", "two", "--timeout", "1"]);
    assert_fails(&sent, 7, &["stays in the outbox"]);

    let bob = world.receive("bob");
    let _alice = world.receive("alice");
    let is_it = |line: &Value| line["method"] == "message" && line["params"]["body"] == "one";
    bob.wait_json("the message", PATIENCE, is_it).unwrap();
    until("the receipt came", PATIENCE, || {
        let history = world.history("alice", "bob");
        let state = text(&history[0]["state"]);
        ["delivered", "read"]
            .contains(&state.as_str())
            .then_some(())
    });
    assert_eq!(world.received("bob", "alice"), ["one"]);

    // Nobody needs the server to be there to write.
    drop(bob);
    let offline = world.json("alice", &["send", "bob", "three", "--no-wait"]);
    assert_eq!(offline[0]["state"], "queued");
}

#[test]
fn without_a_server_a_message_still_goes_into_the_outbox() {
    let mut world = World::new(EXECUTABLE);
    world.register("alice");
    world.register("bob");
    let address = world.stop_server();
    let written = ["send", "bob", "written offline", "--timeout", "1"];
    let waits = [
        "Offline: ",
        "Waiting for at most 1 s.",
        "stays in the outbox",
    ];
    let alone = world.peer("alice", &written);
    assert_fails(&alone, 7, &waits);
    // It is the same when another program of the profile has the connection.
    let mut command = world.peer_command("alice", &["chat", "bob"]);
    command.stdin(Stdio::piped());
    let chat = Running::start(Program::Peer, &mut command).unwrap();
    let is_offline = |line: &str| line.contains("cannot be reached");
    chat.wait_line("the chat is there", PATIENCE, is_offline)
        .unwrap();
    let beside = world.peer("alice", &written);
    assert_fails(&beside, 7, &waits);
    assert_eq!(beside.stdout, alone.stdout);
    drop(chat);

    world.serve("server", &["--listen", &address]);
    let bob = world.receive("bob");
    let _alice = world.receive("alice");
    let is_it = |line: &Value| line["params"]["body"] == "written offline";
    bob.wait_json("the message", PATIENCE, is_it).unwrap();
}

#[test]
fn a_server_that_comes_back_in_time_lets_a_message_through() {
    let mut world = World::new(EXECUTABLE);
    world.register("alice");
    world.register("bob");
    let address = world.stop_server();
    let sending = world.start("alice", &["send", "bob", "patience", "--timeout", "120"]);
    let waits = |line: &str| line.contains("Waiting for at most ");
    sending
        .wait_complaint("the server is away", PATIENCE, waits)
        .unwrap();
    world.serve("server", &["--listen", &address]);
    let _bob = world.receive("bob");
    let sent = sending.finish(PATIENCE).unwrap();
    assert_eq!(sent.code(), 0, "{sent:?}");
    assert_eq!(sent.stdout, "bob: delivered\n");
}

#[test]
fn whoever_gives_up_waiting_is_told_how_to_take_the_message_back() {
    let world = World::new(EXECUTABLE);
    world.register("alice");
    let waiting = |arguments: &[&str]| {
        let sending = world.start("alice", arguments);
        world.wait_ready("alice");
        // The outbox has it before the disk has, and only then is it answered.
        until("it is on disk", PATIENCE, || {
            (!world.json("alice", &["history"]).is_empty()).then_some(())
        });
        sending
    };
    let sending = waiting(&["send", "zed", "one", "--timeout", "60"]);
    let told = sending.end(PATIENCE).unwrap();
    assert_fails(
        &told,
        130,
        &["It stays in the outbox; take it back with 'peer outbox cancel zed'.\n"],
    );
    assert_eq!(told.stdout, "");
    assert_eq!(world.peer("alice", &["outbox", "cancel", "zed"]).code(), 0);

    let sending = waiting(&["send", "zed,yan", "two", "--timeout", "60"]);
    let told = sending.end(PATIENCE).unwrap();
    assert_fails(
        &told,
        130,
        &["They stay in the outbox; take them back with 'peer outbox cancel zed yan'.\n"],
    );
    world.json("alice", &["outbox", "cancel", "--all"]);

    let sending = waiting(&["send", "zed", "three", "--timeout", "60", "--json"]);
    let told = sending.end(PATIENCE).unwrap();
    assert_eq!(told.code(), 130, "{told:?}");
    let json = &told.json()[0];
    assert_eq!(
        (&json["to"], &json["state"]),
        (&json!("zed"), &json!("queued"))
    );
    assert_eq!(json["id"], world.json("alice", &["outbox"])[0]["id"]);
}

#[test]
fn a_message_that_is_taken_back_elsewhere_is_not_waited_for() {
    let world = World::new(EXECUTABLE);
    world.register("alice");
    let taken_back = |arguments: &[&str]| {
        let sending = world.start("alice", arguments);
        world.wait_ready("alice");
        until("it is queued", PATIENCE, || {
            (!world.json("alice", &["outbox"]).is_empty()).then_some(())
        });
        let cancelled = world.peer("alice", &["outbox", "cancel", "zed"]);
        assert_eq!(cancelled.code(), 0, "{cancelled:?}");
        sending.finish(PATIENCE).unwrap()
    };
    let told = taken_back(&["send", "zed", "one", "--timeout", "600"]);
    assert_eq!(told.code(), 7, "{told:?}");
    assert_eq!(told.stdout, "zed: cancelled, it was taken back\n");
    assert!(!told.stderr.contains("stays in the outbox"), "{told:?}");

    let told = taken_back(&["send", "zed", "two", "--timeout", "600", "--json"]);
    assert_eq!(told.code(), 7, "{told:?}");
    let json = &told.json()[0];
    assert_eq!(
        (&json["to"], &json["state"]),
        (&json!("zed"), &json!("cancelled"))
    );
}

#[test]
fn a_message_that_nobody_waits_for_is_not_said_to_wait() {
    let world = World::new(EXECUTABLE);
    world.register("alice");
    world.register("bob");
    // Nothing runs that could send it.
    let sent = world.peer("alice", &["send", "bob", "one", "--no-wait"]);
    assert_eq!(
        sent.stdout, "bob: queued, waits in the outbox\n",
        "{sent:?}"
    );
    let goes_out = "goes out while any 'peer' command of this profile runs";
    assert!(sent.stderr.contains(goes_out), "{sent:?}");
    let bob = world.receive("bob");
    let _alice = world.receive("alice");
    let sent = world.peer("alice", &["send", "bob", "two", "--no-wait"]);
    assert_eq!(sent.code(), 0, "{sent:?}");
    let queued = "bob: queued in the outbox of this device; goes out while a 'peer' program of this profile runs\n";
    assert_eq!(sent.stdout, queued);
    let is_it = |line: &Value| line["params"]["body"] == "two";
    bob.wait_json("the message", PATIENCE, is_it).unwrap();
}

#[test]
fn what_waits_in_the_outbox_can_be_seen_and_taken_back() {
    let world = World::new(EXECUTABLE);
    for who in ["alice", "bob", "carol"] {
        world.register(who);
    }
    for (to, body) in [("bob", "first"), ("carol", "second"), ("bob", "third")] {
        world.json("alice", &["send", to, body, "--no-wait"]);
    }
    let outbox = |world: &World| -> Vec<String> {
        let waiting = world.json("alice", &["outbox"]);
        waiting.iter().map(|item| text(&item["body"])).collect()
    };
    assert_eq!(outbox(&world), ["first", "second", "third"]);

    let first = text(&world.json("alice", &["outbox"])[0]["id"]);
    let cancelled = world.json("alice", &["outbox", "cancel", "carol", &first]);
    assert_eq!(cancelled.len(), 2, "{cancelled:?}");
    for item in &cancelled {
        assert_eq!(item["state"], "cancelled", "{item}");
    }
    assert_eq!(outbox(&world), ["third"]);
    let nothing = world.peer("alice", &["outbox", "cancel", "carol"]);
    assert_explains(&nothing, 1, &["nothing waits for carol", "'peer outbox'"]);
    let nothing = world.peer("alice", &["outbox", "cancel", &first]);
    assert_explains(&nothing, 1, &[&format!("nothing waits for {first}")]);
    assert_fails(&world.peer("alice", &["outbox", "cancel"]), 2, &["--all"]);
    let history = world.history("alice", "carol");
    assert!(history.is_empty(), "{history:?}");

    // It neither comes later nor disturbs what does.
    let bob = world.receive("bob");
    let _alice = world.receive("alice");
    let is_message = |line: &Value| line["method"] == "message";
    let message = bob.wait_json("the message", PATIENCE, is_message).unwrap();
    assert_eq!(message["params"]["body"], "third");
    let nothing = world.peer("alice", &["outbox", "cancel", "--all"]);
    assert_eq!(nothing.code(), 0, "{nothing:?}");
    assert_eq!(world.received("bob", "alice"), ["third"]);
}

#[test]
fn what_a_link_has_carried_is_not_taken_back() {
    let world = World::new(EXECUTABLE);
    for who in ["alice", "bob"] {
        world.register(who);
    }
    let bob = world.receive("bob");
    let _alice = world.receive("alice");
    world.json("alice", &["send", "bob", "over the link"]);
    // The link is open, and nobody answers.
    let signal = |name: &str| {
        let mut kill = std::process::Command::new("kill");
        let sent = kill
            .args(["-s", name, "--", &bob.id().to_string()])
            .status();
        assert!(sent.unwrap().success());
    };
    signal("STOP");
    world.json("alice", &["send", "bob", "carried", "--no-wait"]);
    for arguments in [
        &["outbox", "cancel", "bob"][..],
        &["outbox", "cancel", "--all"],
    ] {
        let refused = world.peer("alice", arguments);
        assert_explains(
            &refused,
            1,
            &["could not take back 1 message to bob", "may have arrived"],
        );
    }
    signal("CONT");
    let is_it = |line: &Value| line["params"]["body"] == "carried";
    bob.wait_json("the message", PATIENCE, is_it).unwrap();
}

#[test]
fn t05_no_control_character_of_a_message_reaches_a_screen() {
    let world = World::new(EXECUTABLE);
    world.register("alice");
    world.register("bob");
    // Takes messages and shows none.
    let _watch = world.start("bob", &["list", "--watch"]);
    world.wait_ready("bob");
    let sent = world.peer("alice", &["send", "bob", HOSTILE]);
    assert_eq!(sent.code(), 0, "{sent:?}");
    let received = world.peer("bob", &["receive", "--once", "--folder", "."]);
    assert_eq!(received.code(), 0, "{received:?}");
    let shown = [
        received,
        world.peer("bob", &["history"]),
        world.peer("alice", &["history", "bob"]),
        world.peer("bob", &["--json", "history"]),
        world.peer("alice", &["--json", "send", "nobody", HOSTILE, "--no-wait"]),
    ];
    for finished in &shown {
        for shown in [&finished.stdout, &finished.stderr] {
            let is_harmful = |c: &char| {
                (c.is_control() && *c != '\n') || ['\u{202e}', '\u{200d}', '\u{fffd}'].contains(c)
            };
            let harmful = shown.chars().find(|c| is_harmful(c) && *c != '\u{fffd}');
            assert_eq!(harmful, None, "{shown:?}");
        }
    }
    assert!(
        shown[0].stdout.contains("a␛]52;c;aGk=␇␛[2J␍b"),
        "{:?}",
        shown[0]
    );
    // A second line cannot pose as a message of its own.
    let lines: Vec<_> = shown[0].stdout.lines().collect();
    let second = lines
        .iter()
        .find(|line| line.contains("second: line"))
        .unwrap();
    assert!(second.trim_start().starts_with('│'), "{second}");
    // And nothing is lost.
    assert_eq!(world.received("bob", "alice"), [HOSTILE]);
}

#[test]
fn a_link_says_how_its_packets_go() {
    let world = World::new(EXECUTABLE);
    world.register("alice");
    world.register("bob");
    let _bob = world.receive("bob");
    let none = world.peer("alice", &["paths"]);
    assert_fails(&none, 0, &["No links.", "'peer chat'"]);
    assert_eq!(none.stdout, "");
    let _alice = world.receive("alice");
    let sent = world.peer("alice", &["send", "bob", "hello"]);
    assert_eq!(sent.code(), 0, "{sent:?}");
    // It begins through the relay, and is direct a moment later.
    let link = until("the link is direct", PATIENCE, || {
        let mut links = world.json("alice", &["paths"]).into_iter();
        links.find(|link| link["path"] == "direct")
    });
    assert_eq!(link["account"], "bob");
    assert!(text(&link["remote"]).starts_with("127.0.0.1:"), "{link}");
    assert!(link["sent_bytes"].as_u64().unwrap() > 0, "{link}");
    // It has left the relay.
    assert!(link["link"].is_u64(), "{link}");
    assert!(link["path_changes"].as_u64().unwrap() > 0, "{link}");
    assert!(link["recent_lost_packets"].is_u64(), "{link}");
    let shown = world.peer("alice", &["paths"]).stdout;
    assert!(shown.contains("direct"), "{shown}");
    let status = world.peer("alice", &["status"]).stdout;
    assert!(status.contains("bob, direct, 127.0.0.1:"), "{status}");
}

#[test]
fn whoever_hides_its_addresses_shows_none_and_is_linked_through_the_relay() {
    let world = World::new(EXECUTABLE);
    world.register("alice");
    world.register("bob");
    let _bob = world.receive("bob");
    let hidden = [
        "--json", "--path", "relay", "receive", "--accept", "never", "--folder", ".",
    ];
    let _alice = world.start("alice", &hidden);
    world.wait_ready("alice");
    let sent = world.peer("alice", &["send", "bob", "hello"]);
    assert_eq!(sent.code(), 0, "{sent:?}");
    let back = world.peer("bob", &["send", "alice", "hello to you"]);
    assert_eq!(back.code(), 0, "{back:?}");
    for who in ["alice", "bob"] {
        let links = world.json(who, &["paths"]);
        assert_eq!(links[0]["path"], "relayed", "{links:?}");
    }
    let listed = world.json("bob", &["list"]);
    let alice = listed.iter().find(|device| device["account"] == "alice");
    assert_eq!(alice.unwrap()["endpoints"], json!([]), "{listed:?}");
    let status = world.peer("alice", &["status"]).stdout;
    assert!(status.contains("bob, through the relay"), "{status}");
}

#[test]
fn whoever_hides_its_addresses_hears_why_nobody_is_reached_without_a_relay() {
    let mut world = World::new(EXECUTABLE);
    let address = world.stop_server();
    world.serve("server", &["--listen", &address, "--no-relay"]);
    world.register("alice");
    world.register("bob");
    let _bob = world.receive("bob");
    world.make_file("letter", 10);
    let hidden = ["--path", "relay", "send-file", "bob", "letter"];
    let refused = world.peer("alice", &hidden);
    assert_explains(
        &refused,
        7,
        &[
            "this server relays nothing, and --path relay",
            "leave out --path relay",
        ],
    );
    let doctor = world.peer("alice", &["doctor"]);
    assert_eq!(doctor.code(), 0, "{doctor:?}");
    let verdict = "others cannot be reached, as this server relays nothing";
    assert!(doctor.stdout.contains(verdict), "{doctor:?}");
}

#[test]
fn a_path_that_another_program_of_the_profile_does_not_keep_to_is_refused() {
    let world = World::new(EXECUTABLE);
    world.register("alice");
    let _alice = world.receive("alice");
    for path in ["relay", "direct"] {
        let refused = world.peer("alice", &["--path", path, "list"]);
        assert_explains(&refused, 11, &["--path", "another 'peer' program"]);
    }
    let refused = world.peer("alice", &["--udp", "1", "list"]);
    assert_explains(&refused, 11, &["--udp", "another 'peer' program"]);
    let listed = world.peer("alice", &["--path", "any", "list"]);
    assert_eq!(listed.code(), 0, "{listed:?}");
}

#[test]
fn without_a_relay_devices_that_reach_each_other_are_linked_directly() {
    for is_relaying in [true, false] {
        let mut world = World::new(EXECUTABLE);
        if !is_relaying {
            let address = world.stop_server();
            world.serve("server", &["--listen", &address, "--no-relay"]);
        }
        world.register("alice");
        world.register("bob");
        let _bob = world.receive("bob");
        let mut send = world.peer_command("alice", &["send", "bob", "hello"]);
        send.env("RUST_LOG", "peer::node::links=debug");
        let sent = run(Program::Peer, &mut send);
        assert_eq!(sent.code(), 0, "{sent:?}");
        // Only what begins through the relay looks for a direct path.
        let looks = sent.stderr.contains("AddressesOffered");
        assert_eq!(looks, is_relaying, "{sent:?}");
    }
}

#[test]
fn commands_of_a_profile_are_one_device_with_one_endpoint() {
    let world = World::new(EXECUTABLE);
    world.register("alice");
    world.register("bob");
    let _bob = world.receive("bob");
    let alice = world.receive("alice");
    let before = entries(&world, "alice");
    assert_eq!(before.len(), 1, "{before:?}");

    // Several commands at once, all through the process that receives.
    let senders: Vec<Running> = (0..4)
        .map(|n| world.start("alice", &["--json", "send", "bob", &format!("number {n}")]))
        .collect();
    let during = entries(&world, "alice");
    for sender in senders {
        let finished = sender.finish(PATIENCE).unwrap();
        assert_eq!(finished.code(), 0, "{finished:?}");
    }
    assert_eq!(during, before);
    assert_eq!(entries(&world, "alice"), before);
    let status = &world.json("alice", &["status"])[0];
    assert_eq!(status["fingerprint"], before[0]["fingerprint"]);
    assert_eq!(status["links"][0]["account"], "bob");
    let mut received = world.received("bob", "alice");
    received.sort();
    assert_eq!(received, ["number 0", "number 1", "number 2", "number 3"]);

    // The process that kept the connection ends; the next command is the same device.
    drop(alice);
    world.json("alice", &["send", "bob", "alone"]);
    let device = text(&before[0]["fingerprint"]);
    assert_eq!(
        text(&world.json("alice", &["status"])[0]["fingerprint"]),
        device
    );
}

/// What bob sees of an account, but for what he knows of its keys.
fn entries(world: &World, account: &str) -> Vec<Value> {
    let listed = world.json("bob", &["list"]).into_iter();
    let entries = listed.filter(|entry| entry["account"] == account);
    let without_key = entries.map(|mut entry| {
        assert!(matches!(
            entry["key"].take().as_str(),
            Some("known" | "unmet")
        ));
        entry
    });
    without_key.collect()
}

#[test]
fn texts_that_are_too_long_or_empty_and_too_many_recipients_are_refused_with_a_word() {
    let world = World::new(EXECUTABLE);
    world.register("alice");
    world.register("bob");
    let _bob = world.receive("bob");

    let longest = "x".repeat(64 * 1024);
    let sent = world.json("alice", &["send", "bob", &longest]);
    assert_eq!(sent[0]["state"], "delivered");
    let too_long = format!("{longest}y");
    let refused = world.peer("alice", &["send", "bob", &too_long]);
    assert_explains(&refused, 2, &["65536", "why:", "peer send-file"]);
    assert_eq!(refused.stderr.matches("file").count(), 2, "{refused:?}");
    fs::write(world.path("long"), &too_long).unwrap();
    let command = world.peer_command("alice", &["send", "bob", "-"]);
    let refused = run(Program::Peer, &mut with_stdin(command, &world.path("long")));
    assert_explains(&refused, 2, &["65536", "peer send-file"]);
    fs::write(world.path("binary"), [0xff, 0xfe]).unwrap();
    let command = world.peer_command("alice", &["send", "bob", "-"]);
    let refused = run(
        Program::Peer,
        &mut with_stdin(command, &world.path("binary")),
    );
    assert_explains(&refused, 2, &["UTF-8", "peer send-file"]);

    for blank in ["", "  \n\t "] {
        let refused = world.peer("alice", &["send", "bob", blank]);
        assert_explains(&refused, 2, &["could not send the text", "empty"]);
    }

    let crowd: Vec<String> = (0..100).map(|n| format!("friend{n}")).collect();
    let refused = world.peer("alice", &["send", &crowd.join(","), "to all of you"]);
    assert_explains(
        &refused,
        2,
        &["100 recipients are more than 64", "several steps"],
    );

    assert_eq!(world.received("bob", "alice"), [longest]);
    assert_eq!(world.json("alice", &["status"])[0]["outbox"], 0);
}

#[test]
fn t12_a_message_that_the_recipients_full_disk_refuses_is_not_called_delivered() {
    let world = World::new(EXECUTABLE);
    world.register("alice");
    world.register("bob");
    let arguments = world.receive_arguments("bob", &[]);
    let command = world.peer_command("bob", &arguments);
    let Some(mut command) = world.on_small_disk(&command, "bob", "2m") else {
        println!("skipped: this user cannot mount a small file system");
        return;
    };
    let bob = Running::start(Program::Peer, &mut command).unwrap();
    let online =
        |line: &Value| line["method"] == "connection" && line["params"]["state"] == "online";
    bob.wait_json("bob is online", PATIENCE, online).unwrap();
    world.json("alice", &["send", "bob", "fits"]);

    let filling = world.path_within(&bob, "bob/filling");
    let mut file = File::create(&filling).unwrap();
    while file.write_all(&[0; 1024]).is_ok() {}
    drop(file);
    let alice = world.receive("alice");
    let large = "x".repeat(60_000);
    let sent = world.peer(
        "alice",
        &["--json", "send", "bob", &large, "--timeout", "2"],
    );
    assert_eq!(sent.code(), 7, "{sent:?}");
    assert_eq!(sent.json()[0]["state"], "sent");

    // There is room again, and a new link.
    fs::remove_file(&filling).unwrap();
    drop(alice);
    world.json("alice", &["send", "bob", "follows", "--timeout", "30"]);
    for body in ["fits", &large, "follows"] {
        let is_message = |line: &Value| line["method"] == "message";
        let message = bob.wait_json("a message", PATIENCE, is_message).unwrap();
        assert!(message["params"]["body"] == body, "{message}");
    }
}

#[test]
fn whoever_watches_sees_people_come_and_go() {
    let world = World::new(EXECUTABLE);
    world.register("alice");
    world.register("bob");
    let watcher = world.start("alice", &["--json", "list", "--watch"]);
    // Whoever is there already is told as whoever comes is.
    let is_alice = |line: &Value| {
        line["method"] == "presence"
            && line["params"]["change"] == "online"
            && line["params"]["account"] == "alice"
    };
    watcher.wait_json("the list", PATIENCE, is_alice).unwrap();
    let wait = |change: &str| {
        let is_it =
            |line: &Value| line["method"] == "presence" && line["params"]["change"] == change;
        let line = watcher.wait_json(change, PATIENCE, is_it).unwrap();
        assert_eq!(line["params"]["account"], "bob");
        line
    };
    for _ in 0..2 {
        let bob = world.receive("bob");
        let endpoints = wait("online")["params"]["endpoints"].clone();
        assert!(!endpoints.as_array().unwrap().is_empty());
        bob.kill();
        wait("offline");
    }
}

/// A node that queues a text and ends before it says so, or ends before it looks at it; told or not.
#[test]
fn a_text_goes_out_once_though_its_node_ends_before_it_answers() {
    let world = World::new(EXECUTABLE);
    world.register("alice");
    world.register("bob");
    let bob = world.receive("bob");
    let folder = world.path("alice");
    let socket = folder.join("socket");
    let owner = world.receive("alice");
    let asked = world.control("alice").call("status", json!({}), PATIENCE);
    let status = asked.unwrap();
    owner.end(PATIENCE).unwrap();
    let mut texts = Vec::new();
    for (is_queued, is_told) in [(true, true), (true, false), (false, true), (false, false)] {
        let text = format!("queued {is_queued}, told {is_told}");
        let lock = FolderLock::try_acquire(&folder).unwrap().unwrap();
        // What the last owner left may be there still.
        let _ = fs::remove_file(&socket);
        let listener = UnixListener::bind(&socket).unwrap();
        let sending = world.start("alice", &["send", "--to", "bob", &text]);
        let (mut stream, _) = listener.accept().unwrap();
        let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
        let request: Value = loop {
            let request: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
            if request["method"] == "send" {
                break request;
            }
            let result = match request["method"].as_str() {
                Some("status") => status.clone(),
                Some(_) | None => json!("done"),
            };
            let reply = json!({"jsonrpc": "2.0", "id": request["id"], "result": result});
            writeln!(stream, "{reply}").unwrap();
        };
        drop((listener, lock));
        fs::remove_file(&socket).unwrap();
        if is_queued {
            let owner = world.receive("alice");
            let mut control = world.control("alice");
            let queued = control.call("send", request["params"].clone(), PATIENCE);
            assert!(queued.unwrap()["queued"].is_array());
            owner.end(PATIENCE).unwrap();
        }
        if is_told {
            let error = json!({"code": 1, "message": "it ends", "data": "stopping"});
            let reply = json!({"jsonrpc": "2.0", "id": request["id"], "error": error});
            writeln!(stream, "{reply}").unwrap();
        }
        drop((stream, lines));
        let sent = sending.finish(PATIENCE).unwrap();
        assert_eq!(sent.code(), 0, "{text}: {sent:?}");
        texts.push(text);
    }
    bob.end(PATIENCE).unwrap();
    assert_eq!(world.received("bob", "alice"), texts);
}

/// The option and the server exclude each other: it is no use to wait.
#[test]
fn whoever_sends_through_a_relay_that_the_server_has_not_is_told_so_at_once() {
    let world = World::serving(EXECUTABLE, &["--no-relay"]);
    for who in ["alice", "bob"] {
        world.register(who);
    }
    let _bob = world.receive("bob");
    let sent = world.peer("alice", &["--path", "relay", "send", "bob", "hello"]);
    let words = ["could not send to bob", "this server relays nothing"];
    assert_explains(&sent, 7, &words);
    // It waits for a program that may go straight there.
    assert_eq!(world.json("alice", &["outbox"]).len(), 1);
    assert_eq!(world.peer("alice", &["send", "bob", "again"]).code(), 0);
    assert_eq!(world.received("bob", "alice"), ["hello", "again"]);

    let unawaited = ["--path", "relay", "send", "--no-wait", "bob", "later"];
    let unawaited = world.peer("alice", &unawaited);
    assert_fails(
        &unawaited,
        0,
        &["this server relays nothing", "leave out --path relay"],
    );
    let file = ["--path", "relay", "send-file", "bob", "server/lock"];
    let words = ["this server relays nothing", "leave out --path relay"];
    assert_explains(&world.peer("alice", &file), 7, &words);
}
