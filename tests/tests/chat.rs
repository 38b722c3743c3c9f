//! A chat of the real programs, with pipes in place of people.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;
use tests::program::{Finished, Program, Running, now};
use tests::world::{
    PATIENCE, World, assert_explains, assert_fails, run, text, transfer_state, with_stdin,
};

const EXECUTABLE: &str = env!("CARGO_BIN_EXE_demo");

fn world_of(people: &[&str]) -> World {
    let world = World::new(EXECUTABLE);
    for who in people {
        world.register(who);
    }
    world
}

/// Starts a chat that prints JSON and that lines can be typed into.
fn chat(world: &World, who: &str, arguments: &[&str]) -> (Running, impl Write + use<>) {
    let arguments = [&["--json", "chat"], arguments].concat();
    let mut command = world.peer_command(who, &arguments);
    command.stdin(Stdio::piped());
    let running = Running::start(Program::Peer, &mut command);
    let mut running = running.unwrap_or_else(|error| panic!("{error}"));
    let stdin = running.take_stdin().expect("it was asked to be piped");
    (running, stdin)
}

/// A chat of alice into which these lines are piped.
fn piped(world: &World, with: &str, lines: &str) -> Finished {
    fs::write(world.path("lines"), lines).expect("the folder can be written to");
    let command = world.peer_command("alice", &["chat", with]);
    run(
        Program::Peer,
        &mut with_stdin(command, &world.path("lines")),
    )
}

fn wait(running: &Running, what: &str, is_it: impl Fn(&Value) -> bool) -> Value {
    let line = running.wait_json(what, PATIENCE, is_it);
    line.unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn piped_lines_are_sent_answered_and_waited_for() {
    let world = world_of(&["alice", "bob"]);
    let bob = world.receive("bob");
    let lines = "hello 漢字 👍\n\nRemember: bread\n//no command\n/nonsense\n/help\n/accept\n/send-file bob missing\n";
    let finished = piped(&world, "bob", lines);
    assert_eq!(finished.code(), 0, "{finished:?}");
    for words in [
        "There is no /nonsense.",
        "What you type goes to the person in front of the '>'.",
        "  /send-file NAME PATH    send a file\n",
        "There is no such offer.",
        "error: could not send missing\n  why: No such file or directory",
        " by bob",
    ] {
        let stdout = finished.stdout.replace("delivered to bob", "read by bob");
        assert!(stdout.contains(words), "{words}: {stdout}");
    }
    for body in ["hello 漢字 👍", "Remember: bread", "/no command"] {
        wait(&bob, body, |line| line["params"]["body"] == body);
    }
}

#[test]
fn a_piped_line_for_nobody_is_an_error_and_the_others_are_sent() {
    let world = world_of(&["alice", "bob"]);
    let bob = world.receive("bob");
    fs::write(world.path("lines"), "x\n/to bob\nafter\n").unwrap();
    let command = world.peer_command("alice", &["chat"]);
    let piped = with_stdin(command, &world.path("lines"));
    let finished = run(Program::Peer, &mut { piped });
    let words = [
        "could not send 1 line",
        "nobody to send to",
        "peer chat NAME",
    ];
    assert_explains(&finished, 2, &words);
    assert!(finished.stdout.contains("To whom?"), "{finished:?}");
    wait(&bob, "after", |line| line["params"]["body"] == "after");
    assert_eq!(world.received("bob", "alice"), ["after"]);
}

#[test]
fn a_piped_line_that_is_no_text_is_refused_and_the_others_are_sent() {
    let world = world_of(&["alice", "bob"]);
    let bob = world.receive("bob");
    fs::write(world.path("lines"), b"before\nbad \xff\nafter\n").unwrap();
    let command = world.peer_command("alice", &["chat", "bob", "--json"]);
    let piped = with_stdin(command, &world.path("lines"));
    let finished = run(Program::Peer, &mut { piped });
    assert_eq!(finished.code(), 0, "{finished:?}");
    let told = finished.json();
    let error = told.iter().find(|line| line["error"].is_object());
    let error = &error.expect("the line is refused")["error"];
    assert_eq!(error["why"], "it is not UTF-8");
    for body in ["before", "after"] {
        wait(&bob, body, |line| line["params"]["body"] == body);
    }
    assert_eq!(world.received("bob", "alice"), ["before", "after"]);
}

#[test]
fn what_is_not_delivered_when_the_input_ends_is_counted() {
    let world = world_of(&["alice", "carol"]);
    let finished = piped(&world, "carol", "one\ntwo\n");
    assert_fails(
        &finished,
        7,
        &["2 messages for carol wait in the outbox; they go out"],
    );
}

#[test]
fn whoever_leaves_is_told_what_waits_and_sees_later_that_it_arrived() {
    let world = world_of(&["alice", "bob"]);
    let finished = piped(&world, "bob", "one\n/to carol\ntwo\nthree\n/quit\n");
    let waits = "1 message for bob, 2 messages for carol wait in the outbox; they go out the next time a 'peer' program of this profile runs and both are online.\n";
    assert_fails(&finished, 0, &[waits]);
    for who in ["bob", "carol"] {
        let told = format!(
            "  {who} is not online (or there is no such account); what you write goes out when both are online\n"
        );
        assert!(finished.stdout.contains(&told), "{finished:?}");
    }

    let _bob = world.receive("bob");
    let (alice, mut alice_types) = chat(&world, "alice", &["bob"]);
    let receipt = wait(&alice, "the receipt of an earlier run", |line| {
        line["method"] == "message_state"
    });
    assert_eq!(receipt["params"]["to"], "bob");
    writeln!(alice_types, "/history").unwrap();
    let item = wait(&alice, "the message", |line| line["body"] == "one");
    assert!(["delivered", "read"].contains(&text(&item["state"]).as_str()));
}

#[test]
fn a_chat_is_told_of_messages_that_are_taken_back_elsewhere() {
    let world = world_of(&["alice"]);
    let (alice, mut keys) = chat(&world, "alice", &["zed"]);
    writeln!(keys, "hello").unwrap();
    let queued = wait(&alice, "it is queued", |line| {
        line["params"]["state"] == "queued"
    });
    let cancelled = world.peer("alice", &["outbox", "cancel", "zed"]);
    assert_eq!(cancelled.code(), 0, "{cancelled:?}");
    let told = wait(&alice, "it is told", |line| line["method"] == "withdrawn");
    let params = serde_json::json!({"to": "zed", "ids": [queued["params"]["id"]]});
    assert_eq!(told["params"], params);
    // Nothing is left to wait for when the input ends.
    drop(keys);
    assert_eq!(alice.finish(PATIENCE).unwrap().code(), 0);
}

#[test]
fn what_waits_is_told_in_the_place_of_the_tick_until_it_arrives() {
    let world = world_of(&["alice", "bob"]);
    let bob = world.receive("bob");
    world.json("alice", &["send", "bob", "hello"]);
    bob.interrupt().unwrap();
    let mut command = world.peer_command("alice", &["chat"]);
    command.stdin(Stdio::piped());
    let mut alice = Running::start(Program::Peer, &mut command).unwrap();
    let mut alice_types = alice.take_stdin().unwrap();
    let wait = |text: &str| {
        let shown = alice.wait_line(text, PATIENCE, |line| line == text);
        shown.unwrap_or_else(|error| panic!("{error}"));
    };
    writeln!(alice_types, "/to bob").unwrap();
    wait("  bob is offline; what you write goes out when both are online");
    writeln!(alice_types, "one").unwrap();
    wait("  … waits: bob is offline; it goes out when both are online");
    let _bob = world.receive("bob");
    wait("  bob is online");
    let shown = alice.wait_line("a tick", PATIENCE, |line| line.starts_with("  ✓"));
    assert!(shown.unwrap().ends_with(" bob"));
    writeln!(alice_types, "/quit").unwrap();
    let finished = alice.finish(PATIENCE).unwrap();
    assert_eq!((finished.code(), finished.stderr.as_str()), (0, ""));
}

#[test]
fn a_program_gets_an_answer_to_every_line_that_is_a_command() {
    let world = world_of(&["alice"]);
    let (running, mut typed) = chat(&world, "alice", &["bob"]);
    for (line, words) in [
        ("/nonsense", "There is no /nonsense."),
        ("/accept 9", "There is no such offer."),
        ("/accept", "There is no such offer."),
        ("/cancel", "There is no such transfer in this chat"),
        ("/history x", "takes a number"),
        ("/to b/b", "It is /to NAME"),
    ] {
        writeln!(typed, "{line}").unwrap();
        let answer = wait(&running, line, |line| line.get("error").is_some());
        let error = &answer["error"];
        assert_eq!(error["exit"], 2, "{line}: {answer}");
        assert!(text(&error["what"]).contains(words), "{line}: {answer}");
    }
    writeln!(typed, "/status").unwrap();
    let status = wait(&running, "/status", |line| line.get("outbox").is_some());
    assert_eq!(status["account"], "alice");
    writeln!(typed, "/help").unwrap();
    let help = wait(&running, "/help", |line| line.get("commands").is_some());
    let commands = help["commands"].as_array().unwrap();
    assert!(commands.iter().any(|command| command["usage"] == "/outbox"));
    writeln!(typed, "hello").unwrap();
    writeln!(typed, "/outbox").unwrap();
    let waits = wait(&running, "/outbox", |line| line["body"] == "hello");
    assert_eq!(waits["state"], "queued");
    writeln!(typed, "/quit").unwrap();
    let finished = running.finish(PATIENCE).unwrap();
    assert_eq!(finished.code(), 0, "{finished:?}");
}

#[test]
fn a_device_hears_that_its_message_was_read_though_another_one_came_later() {
    let world = world_of(&["alice", "bob"]);
    assert_eq!(world.log_in("tablet", "alice").code(), 0);
    world.approve("alice", "tablet");
    let _bob = world.receive("bob");
    let (alice, mut typed) = chat(&world, "alice", &["bob"]);
    let (tablet, mut typed_there) = chat(&world, "tablet", &["bob"]);
    let is_read =
        |line: &Value| line["method"] == "message_state" && line["params"]["state"] == "read";
    writeln!(typed, "one").unwrap();
    let first = wait(&alice, "the first is read", is_read);
    // Now the tablet has the newest link.
    writeln!(typed_there, "two").unwrap();
    wait(&tablet, "the tablet's is read", is_read);
    writeln!(typed, "three").unwrap();
    wait(&alice, "the third is read", |line| {
        is_read(line) && line["params"]["id"] != first["params"]["id"]
    });
}

#[test]
fn two_chats_exchange_messages_and_a_file() {
    let world = world_of(&["alice", "bob"]);
    let content = world.make_file("長い名前📦.bin", 100_000);
    fs::create_dir(world.path("taken")).unwrap();
    let (alice, mut alice_types) = chat(&world, "alice", &["bob"]);
    let (bob, mut bob_types) = chat(&world, "bob", &["--folder", "taken"]);
    writeln!(alice_types, "hello").unwrap();
    wait(&bob, "a message", |line| line["params"]["body"] == "hello");
    wait(&alice, "a receipt", |line| {
        line["method"] == "message_state" && line["params"]["state"] == "read"
    });
    writeln!(bob_types, "alice: and you").unwrap();
    wait(&alice, "an answer", |line| {
        line["params"]["body"] == "and you"
    });

    writeln!(alice_types, "/send-file bob 長い名前📦.bin").unwrap();
    let offer = wait(&bob, "an offer", |line| line["method"] == "offer");
    assert_eq!(text(&offer["params"]["name"]), "長い名前📦.bin");
    writeln!(bob_types, "/accept 1").unwrap();
    for chat in [&alice, &bob] {
        wait(chat, "the end of the transfer", |line| {
            transfer_state(line)["state"] == "done"
        });
    }
    let taken = fs::read(world.path("taken").join("長い名前📦.bin")).unwrap();
    assert_eq!(taken, content);

    writeln!(bob_types, "/decline 1").unwrap();
    writeln!(bob_types, "/quit").unwrap();
    let finished = bob
        .finish(PATIENCE)
        .unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(finished.code(), 0, "{finished:?}");
}

#[test]
fn an_open_chat_goes_on_when_the_server_is_back() {
    let mut world = world_of(&["alice", "bob"]);
    let address = world.server().address.clone();
    let (alice, mut alice_types) = chat(&world, "alice", &["bob"]);
    let (bob, _bob_types) = chat(&world, "bob", &["alice"]);
    writeln!(alice_types, "before").unwrap();
    wait(&bob, "a message", |line| line["params"]["body"] == "before");
    world.wait_direct("alice");
    world.kill_server();
    let lost = wait(&alice, "a lost connection", |line| {
        line["method"] == "connection"
    });
    assert_eq!(lost["params"]["state"], "offline");
    writeln!(alice_types, "between").unwrap();
    wait(&bob, "a message over the link", |line| {
        line["params"]["body"] == "between"
    });
    world.serve("server", &["--listen", &address]);
    let back = wait(&alice, "the connection", |line| {
        line["method"] == "connection"
    });
    assert_eq!(back["params"]["state"], "online");
    writeln!(alice_types, "/list").unwrap();
    wait(&alice, "the list", |line| line["account"] == "alice");
}

#[test]
fn an_unanswered_offer_of_a_chat_outlives_the_chat_with_the_node() {
    let world = world_of(&["alice", "bob"]);
    let content = world.make_file("small2.bin", 10_000);
    fs::create_dir(world.path("taken")).unwrap();
    let (owner, mut owner_types) = chat(&world, "alice", &["bob"]);
    world.wait_ready("alice");
    let mut command = world.peer_command("alice", &["chat", "bob"]);
    command.stdin(Stdio::piped());
    let mut other = Running::start(Program::Peer, &mut command).unwrap();
    let mut other_types = other.take_stdin().unwrap();
    let (bob, mut bob_types) = chat(&world, "bob", &["--folder", "taken"]);
    world.wait_ready("bob");
    writeln!(other_types, "/send-file bob small2.bin").unwrap();
    let is_offer = |line: &Value| line["method"] == "offer";
    let first = wait(&bob, "an offer", is_offer);
    writeln!(owner_types, "/quit").unwrap();
    assert_eq!(owner.finish(PATIENCE).unwrap().code(), 0);
    let again = wait(&bob, "the offer again", |line| {
        is_offer(line) && line["params"]["transfer"] != first["params"]["transfer"]
    });
    assert_eq!(text(&again["params"]["name"]), "small2.bin");
    let words = "  Offered small2.bin to bob again, as transfer 1.";
    other
        .wait_line(words, PATIENCE, |line| line == words)
        .unwrap();
    writeln!(bob_types, "/accept").unwrap();
    wait(&bob, "the end of the transfer", |line| {
        transfer_state(line)["state"] == "done"
    });
    assert_eq!(fs::read(world.path("taken/small2.bin")).unwrap(), content);
    writeln!(other_types, "/quit").unwrap();
    let finished = other.finish(PATIENCE).unwrap();
    assert_eq!(finished.code(), 0, "{finished:?}");
    assert!(!finished.stdout.contains("failed"), "{finished:?}");
}

#[test]
fn a_file_for_somebody_without_a_link_does_not_hold_a_chat_up_while_the_server_is_away() {
    let mut world = world_of(&["alice", "bob"]);
    world.make_file("letter.txt", 100);
    let mut command = world.peer_command("alice", &["chat", "bob"]);
    command.stdin(Stdio::piped());
    let mut alice = Running::start(Program::Peer, &mut command).unwrap();
    let mut types = alice.take_stdin().unwrap();
    world.wait_ready("alice");
    let address = world.stop_server();
    let is_away = |line: &str| line.starts_with("Offline:");
    alice
        .wait_line("the server is away", PATIENCE, is_away)
        .unwrap();
    let typed = now();
    writeln!(types, "/send-file bob letter.txt\n/status").unwrap();
    let looks = |line: &str| line.contains("letter.txt to bob, looks for bob");
    alice
        .wait_line("what it waits for", PATIENCE, looks)
        .unwrap();
    writeln!(types, "/cancel").unwrap();
    let is_cancelled = |line: &str| line.contains("Cancelled 1 (letter.txt to bob)");
    alice
        .wait_line("it is cancelled", PATIENCE, is_cancelled)
        .unwrap();
    let took = now() - typed;
    assert!(took < Duration::from_secs(5), "{took:?}");

    // It goes out by itself once the server is back, and bob.
    writeln!(types, "/send-file bob letter.txt\n/status").unwrap();
    alice.wait_line("it waits", PATIENCE, looks).unwrap();
    world.serve("server", &["--listen", &address]);
    let _bob = world.receive("bob");
    let is_sent = |line: &str| line.contains("Sent letter.txt to bob");
    alice.wait_line("it is sent", PATIENCE, is_sent).unwrap();
}

/// More than the history gives at once, in the order of their arrival, each once.
#[test]
fn all_messages_are_exported() {
    const COUNT: usize = 300;
    let world = world_of(&["alice", "bob"]);
    let typed: String = (0..COUNT).map(|n| format!("number {n}\n")).collect();
    // A note to oneself is kept once.
    assert_eq!(piped(&world, "alice", &typed).code(), 0);
    world.json("alice", &["send", "bob", "--no-wait", "two\nrows"]);

    let all = world.json("alice", &["export"]);
    assert_eq!(all.len(), COUNT + 1);
    let sent = all.iter().filter(|item| item["direction"] == "sent");
    let bodies = sent.map(|item| text(&item["body"]));
    let expected = (0..COUNT).map(|n| format!("number {n}"));
    assert!(bodies.eq(expected.chain(["two\nrows".to_owned()])));
    let with_bob = world.json("alice", &["export", "bob"]);
    assert_eq!(with_bob.len(), 1);
    assert_eq!(world.json("alice", &["export", "carol"]), [] as [Value; 0]);

    let written = world.peer("alice", &["export", "--output", "all.txt"]);
    assert_eq!(written.code(), 0, "{written:?}");
    let told = "301 messages exported to";
    assert!(written.stdout.contains(told), "{written:?}");
    let path = world.path("all.txt");
    let mode = fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let file = fs::read_to_string(&path).unwrap();
    let printed = world.peer("alice", &["export"]);
    assert_eq!(printed.stdout, file);
    assert!(file.starts_with("--- 20"), "{file}");
    assert_eq!(file.matches("number ").count(), COUNT);

    // What is there is never lost.
    let again = world.peer("alice", &["export", "bob", "-o", "all.txt"]);
    assert_explains(&again, 8, &["there is something named", "all.txt"]);
    assert_eq!(fs::read_to_string(&path).unwrap(), file);
    let nowhere = world.peer("alice", &["export", "-o", "missing/all.txt"]);
    assert_explains(&nowhere, 8, &["cannot write", "missing/all.txt"]);
}
