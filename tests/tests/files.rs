//! Files between the real programs: whole, under their names, nowhere else, or not at all with a reason.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Stdio;

use common::os::lock::FolderLock;
use serde_json::{Value, json};
use tests::program::{Finished, Program, Running};
use tests::world::{
    PATIENCE, World, assert_explains, assert_fails, names_in, run, text, transfer_state, until,
};

const EXECUTABLE: &str = env!("CARGO_BIN_EXE_demo");

/// Two people, and a receiver that takes every file.
fn two(accept: &[&str]) -> (World, Running) {
    let world = World::new(EXECUTABLE);
    world.register("alice");
    world.register("bob");
    let bob = world.receive_with("bob", accept);
    (world, bob)
}

fn send(world: &World, path: impl AsRef<OsStr>) -> Finished {
    let mut command = world.peer_command("alice", &["send-file", "bob"]);
    run(Program::Peer, command.arg(path))
}

fn ended(running: &Running) -> Value {
    let is_final = |line: &Value| {
        let state = transfer_state(line)["state"].as_str();
        ["done", "failed", "declined"].contains(&state.unwrap_or_default())
    };
    let line = running
        .wait_json("the transfer ends", PATIENCE, is_final)
        .unwrap();
    transfer_state(&line).clone()
}

#[test]
fn files_of_every_size_arrive_whole() {
    let (world, bob) = two(&["--accept", "from", "alice"]);
    for (name, len) in [
        ("empty", 0),
        ("one", 1),
        ("leaf", 1 << 20),
        ("leaf-and-one", (1 << 20) + 1),
        ("five-and-three", (5 << 20) + 3),
    ] {
        let bytes = world.make_file(name, len);
        let sent = send(&world, name);
        assert_eq!(sent.code(), 0, "{name}: {sent:?}");
        let digest = blake3::hash(&bytes).to_hex();
        assert!(sent.stdout.contains(digest.as_str()), "{name}: {sent:?}");
        let done = ended(&bob);
        assert_eq!(
            (&done["state"], &done["total"]),
            (&"done".into(), &len.into())
        );
        assert_eq!(done["digest"], digest.as_str());
        let path = world.path("inbox-bob").join(name);
        assert_eq!(Path::new(&text(&done["path"])), path);
        assert!(fs::read(path).unwrap() == bytes, "{name}");
    }
    assert_eq!(world.names_in("inbox-bob").len(), 5, "no part is left");
}

#[test]
fn a_name_that_is_taken_gets_a_number() {
    let (world, bob) = two(&["--accept", "always"]);
    fs::write(world.path("inbox-bob/notes.txt"), "bob's own").unwrap();
    fs::create_dir(world.path("inbox-bob/notes (1).txt")).unwrap();
    symlink("/nowhere", world.path("inbox-bob/notes (2).txt")).unwrap();
    fs::write(world.path("notes.txt"), "first").unwrap();
    assert_eq!(send(&world, "notes.txt").code(), 0);
    ended(&bob);
    fs::write(world.path("notes.txt"), "second").unwrap();
    assert_eq!(send(&world, "notes.txt").code(), 0);
    ended(&bob);
    let read = |name: &str| fs::read_to_string(world.path("inbox-bob").join(name)).unwrap();
    assert_eq!(read("notes.txt"), "bob's own");
    assert_eq!(read("notes (3).txt"), "first");
    assert_eq!(read("notes (4).txt"), "second");
    assert_eq!(world.names_in("inbox-bob").len(), 5);
    assert!(!Path::new("/nowhere").exists());
}

#[test]
fn t01_t04_t05_t08_hostile_names_are_refused_with_a_reason_and_stay_in_the_folder() {
    let (world, bob) = two(&["--accept", "always"]);
    fs::create_dir(world.path("outgoing")).unwrap();
    let before = world.names_in(".");
    let refused = [
        "\u{1b}]52;c;x\u{7}.txt",
        "line\nbreak.txt",
        "return\r.txt",
        "gnp.\u{202e}exe",
        "..\\..\\up",
        "C:\\x",
        "a\u{2215}b",
        "a\u{ff0f}b",
        ".bashrc",
        "...",
        "CON.txt",
        "trailing.",
        "trailing ",
    ];
    for name in refused {
        let path = world.path("outgoing").join(name);
        fs::write(&path, "hostile").unwrap();
        let sent = send(&world, &path);
        assert_explains(&sent, 9, &["why:", "name", "rename the file"]);
        let shown = format!("{}{}", sent.stdout, sent.stderr);
        let raw = shown
            .chars()
            .find(|c| (c.is_control() && *c != '\n') || *c == '\u{202e}');
        assert_eq!(raw, None, "{shown:?}");
        let is_offer = |line: &Value| line["method"] == "offer";
        let offer = bob.wait_json("the offer", PATIENCE, is_offer).unwrap();
        assert_eq!(offer["params"]["name"], name);
        let refusal = text(&offer["params"]["refusal"]);
        assert!(refusal.contains("name"), "T04: {name:?}: {refusal}");
        assert!(sent.stderr.contains(&refusal), "{name:?}: {sent:?}");
        assert!(!sent.stderr.contains("inbox"), "{name:?}: {sent:?}");
        let state = ended(&bob);
        assert_eq!(state["state"], "failed", "{name:?}: {state}");
        assert_eq!(world.names_in("inbox-bob"), [""; 0], "{name:?}");
    }
    assert_eq!(world.names_in("."), before);

    // What only looks dangerous arrives under exactly its name.
    let mut taken = vec![
        "%2e%2e%2fup.txt".to_owned(),
        "$(reboot);`x`.txt".to_owned(),
        "--help".to_owned(),
        "Grüße 你好 👍.txt".to_owned(),
        format!("{}.txt", "n".repeat(251)),
        "ä".repeat(127),
    ];
    for name in &taken {
        let path = world.path("outgoing").join(name);
        fs::write(&path, name).unwrap();
        let sent = send(&world, &path);
        assert_eq!(sent.code(), 0, "{name}: {sent:?}");
        assert_eq!(ended(&bob)["state"], "done");
        let arrived = world.path("inbox-bob").join(name);
        assert_eq!(fs::read_to_string(arrived).unwrap(), *name);
    }
    taken.sort();
    assert_eq!(world.names_in("inbox-bob"), taken);
    assert_eq!(world.names_in("."), before);
}

#[test]
fn both_sides_of_a_refused_name_are_told_what_to_do() {
    let world = World::new(EXECUTABLE);
    for who in ["alice", "bob"] {
        world.register(who);
    }
    fs::create_dir(world.path("inbox")).unwrap();
    fs::write(world.path("con.txt"), "x").unwrap();
    let arguments = ["receive", "--accept", "always", "--folder", "inbox"];
    let bob = world.start("bob", &arguments);
    world.wait_ready("bob");
    let sent = send(&world, world.path("con.txt"));
    let words = ["does not take names like this", "device", "--rename"];
    assert_explains(&sent, 9, &words);
    let says = |words: &'static str| move |line: &str| line.contains(words);
    let offered = bob.wait_line("the offer", PATIENCE, says("alice offers con.txt"));
    let offered = offered.unwrap();
    assert!(
        offered.contains("--rename' takes it as _con.txt"),
        "{offered}"
    );
    let told = bob.wait_complaint("what to do", PATIENCE, says("next:"));
    let told = told.unwrap();
    assert!(told.contains("--rename to take it as _con.txt"), "{told}");
}

#[test]
fn t04_t07_odd_names_are_taken_under_another_where_the_recipient_says_so() {
    let (world, bob) = two(&["--accept", "always", "--rename"]);
    fs::create_dir(world.path("outgoing")).unwrap();
    let is_offer = |line: &Value| line["method"] == "offer";
    let send_named = |name: &str| {
        let path = world.path("outgoing").join(name);
        fs::write(&path, name).unwrap();
        let sent = send(&world, &path);
        let offer = bob.wait_json("the offer", PATIENCE, is_offer).unwrap();
        (sent, offer["params"]["substitute"].clone(), ended(&bob))
    };
    for (name, substitute) in [
        (".hidden", "_hidden"),
        ("con.txt", "_con.txt"),
        ("a:b.txt", "a_b.txt"),
        ("back\\slash.txt", "back_slash.txt"),
        ("trailing.", "trailing"),
        ("..\\up", "___up"),
        ("gnp.\u{202e}exe", "gnp._exe"),
        ("C:\\x", "C__x"),
        ("x\u{ff0f}y", "x_y"),
        ("...", "___"),
        ("tab\there", "tab_here"),
    ] {
        let (sent, offered, state) = send_named(name);
        assert_eq!(sent.code(), 0, "{name:?}: {sent:?}");
        assert_eq!(offered, substitute);
        assert_eq!(state["state"], "done", "{name:?}: {state}");
        let arrived = world.path("inbox-bob").join(substitute);
        assert_eq!(fs::read_to_string(arrived).unwrap(), name);
    }
    let names = world.names_in("inbox-bob");
    assert_eq!(names.len(), 11, "{names:?}");
}

#[test]
fn t08_the_longest_name_gets_a_number_too() {
    let (world, bob) = two(&["--accept", "always"]);
    let name = format!("{}.txt", "n".repeat(251));
    for text in ["first", "second"] {
        fs::write(world.path(&name), text).unwrap();
        assert_eq!(send(&world, &name).code(), 0);
        assert_eq!(ended(&bob)["state"], "done");
    }
    let names = world.names_in("inbox-bob");
    assert_eq!(names.len(), 2);
    assert!(names.iter().all(|name| name.len() <= 255), "{names:?}");
    assert!(names.iter().all(|name| name.ends_with(".txt")), "{names:?}");
}

#[test]
fn a_declined_file_is_not_sent() {
    let (world, bob) = two(&["--accept", "never"]);
    world.make_file("unwanted", 3 << 20);
    assert_explains(&send(&world, "unwanted"), 9, &["declined", "ask bob"]);
    assert_eq!(ended(&bob)["state"], "declined");
    drop(bob);
    // Another rule, with the same answer for alice.
    let bob = world.receive_with("bob", &["--accept", "from", "carol"]);
    assert_explains(&send(&world, "unwanted"), 9, &["declined"]);
    assert_eq!(world.names_in("inbox-bob"), [""; 0]);
    drop(bob);
}

#[test]
fn an_offer_that_nobody_answers_stays_open_and_can_be_withdrawn() {
    let (world, bob) = two(&["--accept", "ask"]);
    world.make_file("question", 1000);
    let sender = world.start("alice", &["--json", "send-file", "bob", "question"]);
    let is_offer = |line: &Value| line["method"] == "offer";
    let offer = bob.wait_json("the offer", PATIENCE, is_offer).unwrap();
    assert_eq!(offer["params"]["size"], 1000);
    let mut control = world.control("bob");
    let offers = control.call("offers", Value::Null, PATIENCE).unwrap();
    assert_eq!(offers["offers"].as_array().unwrap().len(), 1);
    assert_eq!(sender.interrupt().unwrap().code(), Some(130));
    until("the offer is withdrawn", PATIENCE, || {
        let offers = control.call("offers", Value::Null, PATIENCE).unwrap();
        offers["offers"]
            .as_array()
            .unwrap()
            .is_empty()
            .then_some(())
    });
    assert_eq!(world.names_in("inbox-bob"), [""; 0]);
}

/// Waits until the programs of `who` have been told that some of a file has moved, and returns what its status
/// says of it.
fn moving(world: &World, who: &str) -> Value {
    let mut control = world.control(who);
    control.subscribe(PATIENCE);
    let has_moved = |event: &Value| {
        let state = transfer_state(event);
        state["done"].as_u64().is_some_and(|done| done > 0)
    };
    while !has_moved(&control.event(PATIENCE).expect("the file moves")) {}
    let status = control.call("status", Value::Null, PATIENCE).unwrap();
    status["status"]["transfers"][0].clone()
}

/// Waits until a program says that it stays for a file of another one.
fn stays_for(owner: &Running, file: &str) {
    let says = |line: &str| line.contains("still carries") && line.contains(file);
    owner.wait_complaint("it stays", PATIENCE, says).unwrap();
}

#[test]
fn a_program_that_ends_carries_the_files_of_others_to_their_end() {
    let world = World::new(EXECUTABLE);
    world.register("alice");
    world.register("bob");
    // These have the nodes.
    let owners = ["alice", "bob"].map(|who| {
        let owner = world.start(who, &["list", "--watch"]);
        world.wait_ready(who);
        owner
    });
    let bob = world.receive("bob");
    let bytes = world.make_file("film", 256 << 20);
    let sending = world.start("alice", &["send-file", "bob", "film"]);
    let of_alice = moving(&world, "alice");
    assert_eq!(of_alice["name"], "film");
    assert_eq!(of_alice["direction"], "sent");
    assert_eq!(of_alice["with"], "bob");
    let of_bob = moving(&world, "bob");
    assert_eq!(of_bob["direction"], "received");
    assert_eq!(of_bob["with"], "alice");
    for owner in &owners {
        owner.send_signal("INT").unwrap();
        stays_for(owner, "film");
    }
    let sent = sending.finish(PATIENCE).unwrap();
    assert_eq!(sent.code(), 0, "{sent:?}");
    for owner in owners {
        let ended = owner.finish(PATIENCE).unwrap();
        assert_eq!(ended.code(), 130, "{ended:?}");
    }
    assert_eq!(ended(&bob)["state"], "done");
    let arrived = fs::read(world.path("inbox-bob").join("film")).unwrap();
    assert!(arrived == bytes);
}

#[test]
fn a_transfer_that_ends_with_another_program_of_its_profile_says_so() {
    let (world, bob) = two(&["--accept", "always"]);
    let film = File::create(world.path("film")).unwrap();
    film.set_len(2 << 30).unwrap();
    for signals in [&["INT", "INT"][..], &["TERM"]] {
        // It has the node.
        let owner = world.start("alice", &["list", "--watch"]);
        world.wait_ready("alice");
        let sending = world.start("alice", &["send-file", "bob", "film"]);
        moving(&world, "alice");
        for (index, signal) in signals.iter().enumerate() {
            if index > 0 {
                stays_for(&owner, "film");
            }
            owner.send_signal(signal).unwrap();
        }
        let told = sending.finish(PATIENCE).unwrap();
        assert_explains(
            &told,
            9,
            &[
                "the 'peer' program that carried it has ended",
                "send the file again",
            ],
        );
        assert_eq!(ended(&bob)["reason"], "cancelled by the other side");
        owner.finish(PATIENCE).unwrap();
    }
}

#[test]
fn an_offer_outlives_the_program_that_had_the_node() {
    let (world, bob) = two(&["--accept", "ask"]);
    world.make_file("letter", 1000);
    let is_offer = |line: &Value| line["method"] == "offer";
    for signal in ["INT", "KILL"] {
        let owner = world.receive("alice");
        let offering = world.start("alice", &["send-file", "bob", "letter"]);
        bob.wait_json("the offer", PATIENCE, is_offer).unwrap();
        offering
            .wait_complaint("it is out", PATIENCE, |line| line.starts_with("Offered"))
            .unwrap();
        owner.signal(signal).unwrap();
        let again = bob.wait_json("the offer again", PATIENCE, is_offer);
        let answer = json!({
            "transfer": again.unwrap()["params"]["transfer"],
            "folder": world.path("inbox-bob"),
        });
        let mut control = world.control("bob");
        control.call("answer_offer", answer, PATIENCE).unwrap();
        let sent = offering.finish(PATIENCE).unwrap();
        assert_eq!(sent.code(), 0, "{signal}: {sent:?}");
        assert!(sent.stderr.contains("again"), "{signal}: {sent:?}");
    }
}

#[test]
fn a_file_goes_over_a_link_while_the_server_is_away() {
    let (mut world, bob) = two(&["--accept", "always"]);
    let bytes = world.make_file("letter", 1000);
    let owner = world.start("alice", &["--json", "list", "--watch"]);
    world.wait_ready("alice");
    let mut control = world.control("alice");
    assert_eq!(world.peer("alice", &["send", "bob", "hello"]).code(), 0);
    world.wait_direct("alice");
    world.kill_server();
    until("the node knows", PATIENCE, || {
        let status = control.call("status", Value::Null, PATIENCE).unwrap();
        (status["status"]["connection"]["state"] == "offline").then_some(())
    });
    let sent = send(&world, "letter");
    assert_eq!(sent.code(), 0, "{sent:?}");
    assert!(!sent.stderr.contains("cannot be reached"), "{sent:?}");
    assert_eq!(ended(&bob)["state"], "done");
    assert!(fs::read(world.path("inbox-bob/letter")).unwrap() == bytes);
    owner.interrupt().unwrap();
}

#[test]
fn whoever_goes_away_before_answering_an_offer_is_named() {
    let (world, bob) = two(&["--accept", "ask"]);
    world.make_file("letter", 1000);
    let offering = world.start("alice", &["send-file", "bob", "letter"]);
    let is_offer = |line: &Value| line["method"] == "offer";
    bob.wait_json("the offer", PATIENCE, is_offer).unwrap();
    assert_eq!(bob.interrupt().unwrap().code(), Some(130));
    let told = offering.finish(PATIENCE).unwrap();
    assert_explains(
        &told,
        9,
        &[
            "bob went away before answering",
            "send it again when bob is back ('peer list --watch' shows it)",
        ],
    );
    assert!(!told.stderr.contains("from the beginning"), "{told:?}");
}

#[test]
fn a_program_stays_a_program_and_nothing_else_becomes_one() {
    let (world, bob) = two(&["--accept", "always"]);
    // Set-user-id and write for all do not travel.
    for (name, mode) in [("program", 0o4755), ("script", 0o700), ("text", 0o666)] {
        fs::write(world.path(name), "#!/bin/sh\n").unwrap();
        fs::set_permissions(world.path(name), Permissions::from_mode(mode)).unwrap();
        let sent = send(&world, name);
        assert_eq!(sent.code(), 0, "{sent:?}");
        ended(&bob);
    }
    let mode = |name: &str| {
        let metadata = fs::metadata(world.path("inbox-bob").join(name)).unwrap();
        metadata.permissions().mode() & 0o7777
    };
    for name in ["program", "script"] {
        assert_eq!(mode(name) & 0o100, 0o100, "{name}");
    }
    assert_eq!(mode("text") & 0o111, 0);
    for name in ["program", "script", "text"] {
        assert_eq!(mode(name) & 0o7022, 0, "{name} has {:o}", mode(name));
    }
}

#[test]
fn what_is_no_file_is_refused_before_anybody_is_asked() {
    let (world, _bob) = two(&["--accept", "always"]);
    fs::create_dir(world.path("folder")).unwrap();
    assert_explains(&send(&world, "missing"), 8, &["missing", "check the path"]);
    assert_explains(&send(&world, "folder"), 8, &["it is a folder", "tar"]);
    assert_explains(&send(&world, "/dev/null"), 8, &["not a regular file"]);
    assert_fails(&send(&world, ""), 2, &["Example: peer send-file"]);
    assert_eq!(world.names_in("inbox-bob"), [""; 0]);
}

#[test]
fn a_folder_for_files_must_be_there() {
    let (world, _bob) = two(&["--accept", "always"]);
    fs::write(world.path("file"), "x").unwrap();
    let missing = world.peer("alice", &["receive", "--folder", "missing"]);
    assert_explains(
        &missing,
        8,
        &["could not put files into", "missing", "mkdir -p"],
    );
    let file = world.peer("alice", &["receive", "--folder", "file"]);
    assert_explains(
        &file,
        8,
        &["could not put files into", "it is not a folder"],
    );
    let chat = world.peer("alice", &["chat", "bob", "--folder", "missing"]);
    assert_explains(&chat, 8, &["could not put files into"]);
    let rule = world.peer("alice", &["receive", "--accept", "sometimes"]);
    assert_explains(&rule, 2, &["sometimes", "for example"]);
}

#[test]
fn t12_a_folder_that_vanishes_is_named_to_both() {
    let (world, bob) = two(&["--accept", "always"]);
    fs::remove_dir(world.path("inbox-bob")).unwrap();
    fs::write(world.path("letter"), "x").unwrap();
    assert_explains(&send(&world, "letter"), 9, &["why:"]);
    let state = ended(&bob);
    assert_eq!(state["state"], "failed");
    assert!(text(&state["reason"]).contains("folder"), "{state}");
    // It comes back: the next file arrives.
    fs::create_dir(world.path("inbox-bob")).unwrap();
    assert_eq!(send(&world, "letter").code(), 0);
    assert_eq!(world.names_in("inbox-bob"), ["letter"]);
}

#[test]
fn t12_a_file_that_changes_on_its_way_or_is_withdrawn_is_never_called_done() {
    let (world, bob) = two(&["--accept", "always"]);
    for change in ["longer", "shorter", "withdrawn"] {
        world.make_file("film.bin", 192 << 20);
        let sender = world.start("alice", &["--json", "send-file", "bob", "film.bin"]);
        let is_moving = |line: &Value| transfer_state(line)["state"] == "moving";
        bob.wait_json("the file moves", PATIENCE, is_moving)
            .unwrap();
        let path = world.path("film.bin");
        let file = || File::options().append(true).open(&path).unwrap();
        if change == "withdrawn" {
            assert_eq!(sender.interrupt().unwrap().code(), Some(130));
        } else {
            match change {
                "longer" => file().write_all(b"x").unwrap(),
                _ => file().set_len(1000).unwrap(),
            }
            let sent = sender.finish(PATIENCE).unwrap();
            assert_eq!(sent.code(), 9, "{sent:?}");
            let lines = sent.json();
            let error = &lines.last().unwrap()["error"];
            assert!(text(&error["why"]).contains("changed"), "{error}");
        }
        assert_eq!(ended(&bob)["state"], "failed", "{change}");
        until("what had come is removed", PATIENCE, || {
            world.names_in("inbox-bob").is_empty().then_some(())
        });
    }
}

#[test]
fn a_file_for_somebody_who_is_away_is_not_offered() {
    let (world, bob) = two(&["--accept", "always"]);
    drop(bob);
    fs::write(world.path("letter"), "x").unwrap();
    until("the server knows that bob has left", PATIENCE, || {
        let listed = world.json("alice", &["list"]);
        listed
            .iter()
            .all(|entry| entry["account"] != "bob")
            .then_some(())
    });
    for who in ["bob", "nobody"] {
        let refused = world.peer("alice", &["send-file", who, "letter"]);
        assert_explains(&refused, 7, &[who, "not online", "peer list"]);
    }
}

#[test]
fn t12_a_read_only_file_system_is_named_to_both() {
    let world = World::new(EXECUTABLE);
    world.register("alice");
    world.register("bob");
    fs::create_dir(world.path("inbox-bob")).unwrap();
    let read_only = |arguments: &[&str]| {
        let command = world.peer_command("bob", arguments);
        world.on_read_only_disk(&command, "inbox-bob")
    };
    // Before anybody offers a file, where the command is given such a folder.
    let Some(mut command) = read_only(&["receive", "--folder", "inbox-bob"]) else {
        println!("skipped: this user cannot make a folder read-only");
        return;
    };
    let refused = run(Program::Peer, &mut command);
    assert_explains(
        &refused,
        8,
        &["inbox-bob", "read-only", "choose another folder"],
    );
    // One can chat all the same.
    let mut command = read_only(&["chat", "alice", "--folder", "inbox-bob"]).unwrap();
    let warned = run(Program::Peer, command.stdin(Stdio::null()));
    assert_fails(&warned, 0, &["Files cannot be put into", "read-only"]);
    // Later, where the folder becomes one.
    symlink(".", world.path("way")).unwrap();
    let arguments = ["--json", "receive", "--accept", "always", "--folder", "way"];
    let mut command = read_only(&arguments).unwrap();
    let bob = Running::start(Program::Peer, &mut command).unwrap();
    world.wait_ready("bob");
    fs::remove_file(world.path("way")).unwrap();
    symlink("inbox-bob", world.path("way")).unwrap();
    fs::write(world.path("letter"), "x").unwrap();
    let refused = send(&world, "letter");
    assert_explains(&refused, 9, &["read-only"]);
    assert!(!refused.stderr.contains("inbox-bob"), "{refused:?}");
    let state = ended(&bob);
    assert_eq!(state["state"], "failed");
    assert!(text(&state["reason"]).contains("read-only"), "{state}");
    assert_eq!(world.names_in("inbox-bob"), [""; 0]);
}

#[test]
fn t12_a_full_disk_is_named_to_both_and_leaves_nothing() {
    let world = World::new(EXECUTABLE);
    world.register("alice");
    world.register("bob");
    let arguments = world.receive_arguments("bob", &["--accept", "always"]);
    let command = world.peer_command("bob", &arguments);
    let Some(mut command) = world.on_small_disk(&command, "inbox-bob", "1m") else {
        println!("skipped: this user cannot mount a small file system");
        return;
    };
    let bob = Running::start(Program::Peer, &mut command).unwrap();
    world.wait_ready("bob");
    world.make_file("large", 5 << 20);
    world.make_file("small", 100_000);
    let refused = send(&world, "large");
    assert_explains(&refused, 9, &["space"]);
    assert!(!refused.stderr.contains("inbox-bob"), "{refused:?}");
    let state = ended(&bob);
    assert_eq!(state["state"], "failed");
    assert!(text(&state["reason"]).contains("space"), "{state}");
    // What fits still arrives, so the failed one has given back what it took.
    let sent = send(&world, "small");
    assert_fails(&sent, 0, &[]);
    let inbox = world.path_within(&bob, "inbox-bob");
    assert_eq!(names_in(&inbox), ["small"]);
}

#[test]
fn a_file_waits_for_a_server_that_comes_back() {
    let (mut world, bob) = two(&["--accept", "always"]);
    world.make_file("late", 3000);
    let address = world.stop_server();
    let sender = world.start("alice", &["send-file", "bob", "late"]);
    let is_patient = |line: &str| line.contains("waiting for it to come back");
    sender
        .wait_complaint("it waits", PATIENCE, is_patient)
        .unwrap();
    world.serve("server", &["--listen", &address]);
    assert_eq!(ended(&bob)["state"], "done");
    assert_eq!(sender.finish(PATIENCE).unwrap().code(), 0);
    assert_eq!(world.names_in("inbox-bob"), ["late"]);
}

#[test]
fn a_file_whose_recipient_does_not_answer_is_looked_for_in_sight_and_can_be_cancelled() {
    let (world, bob) = two(&[]);
    world.make_file("letter", 10);
    bob.send_signal("STOP").unwrap();
    let sender = world.start("alice", &["send-file", "bob", "letter"]);
    let looks = |line: &str| line == "Looking for bob… Ctrl-C cancels.";
    sender
        .wait_complaint("it looks for bob", PATIENCE, looks)
        .unwrap();
    sender.send_signal("INT").unwrap();
    let cancelled = sender.finish(PATIENCE).unwrap();
    bob.send_signal("CONT").unwrap();
    assert_eq!(cancelled.code(), 130, "{cancelled:?}");
    let words = "Cancelled: letter was not offered to bob.";
    assert!(cancelled.stderr.contains(words), "{cancelled:?}");
}

/// A node whose transfer ends just before it is asked to cancel it.
#[test]
fn a_file_that_arrived_before_it_could_be_cancelled_was_sent() {
    let (world, bob) = two(&[]);
    bob.end(PATIENCE).unwrap();
    fs::write(world.path("letter"), "x").unwrap();
    let folder = world.path("alice");
    let owner = world.receive("alice");
    let mut status = world
        .control("alice")
        .call("status", json!({}), PATIENCE)
        .unwrap();
    owner.end(PATIENCE).unwrap();
    let lock = FolderLock::try_acquire(&folder).unwrap().unwrap();
    let socket = folder.join("socket");
    let _ = fs::remove_file(&socket);
    let listener = UnixListener::bind(&socket).unwrap();
    let sending = world.start("alice", &["send-file", "bob", "letter"]);
    let (mut stream, _) = listener.accept().unwrap();
    let transfer = "01".repeat(16);
    status["status"]["links"] = json!([{
        "account": "bob",
        "fingerprint": "",
        "path": "relayed",
        "over": "udp",
        "per_s_max": 12_500_000,
        "round_trip_us": 0,
        "sent_packets": 0,
        "lost_packets": 0,
        "sent_bytes": 0,
        "received_bytes": 0,
    }]);
    let lines = BufReader::new(stream.try_clone().unwrap()).lines();
    for line in lines {
        let request: Value = serde_json::from_str(&line.unwrap()).unwrap();
        let result = match request["method"].as_str().unwrap() {
            "status" => status.clone(),
            "send_file" => json!({"started": transfer}),
            "cancel" => {
                let done = json!({"state": "done", "digest": "", "total": 1, "elapsed_ms": 1});
                let params = json!({"transfer": transfer, "state": done});
                let event = json!({"jsonrpc": "2.0", "method": "transfer", "params": params});
                let error = json!({"code": 1, "message": "none", "data": "no_such_transfer"});
                let reply = json!({"jsonrpc": "2.0", "id": request["id"], "error": error});
                writeln!(stream, "{event}\n{reply}").unwrap();
                break;
            }
            _ => json!("done"),
        };
        let reply = json!({"jsonrpc": "2.0", "id": request["id"], "result": result});
        writeln!(stream, "{reply}").unwrap();
        if request["method"] == "send_file" {
            let params = json!({"transfer": transfer, "state": {"state": "waiting"}});
            let event = json!({"jsonrpc": "2.0", "method": "transfer", "params": params});
            writeln!(stream, "{event}").unwrap();
            let is_offered = |line: &str| line.starts_with("Offered letter");
            sending
                .wait_complaint("it is offered", PATIENCE, is_offered)
                .unwrap();
            sending.send_signal("INT").unwrap();
        }
    }
    let sent = sending.finish(PATIENCE).unwrap();
    drop(lock);
    assert_eq!(sent.code(), 0, "{sent:?}");
    assert!(sent.stdout.starts_with("Sent letter to bob"), "{sent:?}");
}
