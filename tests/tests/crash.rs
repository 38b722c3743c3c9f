//! Processes that die without a word: what was promised before is still true afterwards.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

use serde_json::Value;
use tests::program::Running;
use tests::world::{
    PATIENCE, World, assert_explains, letter, password_of, text, transfer_state, until,
};

const EXECUTABLE: &str = env!("CARGO_BIN_EXE_demo");
/// Large enough to be seen on its way.
const LARGE: usize = 192 << 20;

#[test]
fn t38_t40_a_server_that_dies_comes_back_with_all_it_knew_and_so_do_its_peers() {
    let mut world = World::new(EXECUTABLE);
    for who in ["alice", "bob", "carol"] {
        world.register(who);
    }
    let online = [world.receive("alice"), world.receive("bob")];
    let wrong = world.password_file("wrong", "not the password at all");
    for _ in 0..5 {
        let refused = world.enter("stranger", "login", "carol", &wrong);
        assert_eq!(refused.code(), 3, "{refused:?}");
    }
    let before = blocked_for(&world);

    for round in 0..2 {
        let address = if round == 0 {
            world.kill_server()
        } else {
            world.stop_server()
        };
        for running in &online {
            wait_connection(running, "offline");
        }
        world.serve("server", &["--listen", &address]);
        assert_eq!(world.server().address, address);

        let accounts = world.rendezvous(&["--data", "server", "account", "list", "--json"]);
        let accounts = accounts.json();
        let names: Vec<_> = accounts.iter().map(|line| text(&line["account"])).collect();
        assert_eq!(names, ["alice", "bob", "carol"]);
        assert!(accounts.iter().all(|line| line["devices"] == 1));
        let after = blocked_for(&world);
        assert!((1..=before).contains(&after), "{after} after {before}");
        // The token of a device that did not run survived as well.
        world.json("carol", &["list"]);

        for running in &online {
            wait_connection(running, "online");
        }
        until("both are listed again", PATIENCE, || {
            let listed = world.json("alice", &["list"]);
            let names: BTreeSet<_> = listed.iter().map(|entry| text(&entry["account"])).collect();
            names
                .is_superset(&["alice", "bob"].map(str::to_owned).into())
                .then_some(())
        });
        let body = format!("after round {round}");
        let sent = world.json("alice", &["send", "bob", &body]);
        assert_eq!(sent[0]["state"], "delivered");
        assert_eq!(world.received("bob", "alice").last(), Some(&body));
    }
}

/// Seconds for which carol is blocked for strangers.
fn blocked_for(world: &World) -> u64 {
    let file = world.password_file("carol", &password_of("carol"));
    let refused = world.enter("stranger", "login", "carol", &file);
    assert_explains(&refused, 4, &["blocked", " s are left"]);
    let words: Vec<_> = refused.stderr.split_whitespace().collect();
    let place = words.iter().position(|word| *word == "left").unwrap();
    words[place - 3].parse().unwrap()
}

fn wait_connection(running: &Running, state: &str) {
    let is_it = |line: &Value| line["method"] == "connection" && line["params"]["state"] == state;
    running.wait_json(state, PATIENCE, is_it).unwrap();
}

#[test]
fn a_receiver_that_dies_in_a_stream_of_messages_has_each_once_and_in_order() {
    const COUNT: usize = 200;
    let world = World::new(EXECUTABLE);
    world.register("alice");
    world.register("bob");
    let alice = world.receive("alice");
    let mut bob = Some(world.receive("bob"));
    let mut control = world.control("alice");
    control.subscribe(PATIENCE);
    let bodies: Vec<String> = (0..COUNT).map(|n| format!("message {n}")).collect();

    let mut delivered = BTreeSet::new();
    for body in &bodies {
        let queued = control.call("send", letter("bob", body), PATIENCE).unwrap();
        assert_eq!(queued["queued"].as_array().unwrap().len(), 1);
        while let Some(event) = control.event(Duration::ZERO) {
            delivered.extend(delivered_id(&event));
        }
        if delivered.len() >= 50
            && let Some(bob) = bob.take()
        {
            bob.kill();
        }
    }
    assert!(bob.is_none(), "only {} were delivered", delivered.len());
    while let Some(event) = control.event(Duration::from_millis(200)) {
        delivered.extend(delivered_id(&event));
    }
    drop(control);
    alice.kill();

    // What bob has, before anything can arrive.
    let history = world.history("bob", "alice");
    let has: BTreeSet<_> = history.iter().map(|item| text(&item["id"])).collect();
    assert!(delivered.is_subset(&has), "a receipt was given too early");
    assert!((50..COUNT).contains(&history.len()), "{}", history.len());
    let texts = world.received("bob", "alice");
    assert_eq!(texts, bodies[..texts.len()]);

    // Both come back: the rest arrives, nothing twice.
    let _alice = world.receive("alice");
    let bob = world.receive("bob");
    let is_last = |line: &Value| line["params"]["body"] == bodies[COUNT - 1].as_str();
    bob.wait_json("the last message", PATIENCE, is_last)
        .unwrap();
    assert_eq!(world.received("bob", "alice"), bodies);
    until("alice has all receipts", PATIENCE, || {
        let status = world.json("alice", &["status"]);
        (status[0]["outbox"] == 0).then_some(())
    });
}

fn delivered_id(event: &Value) -> Option<String> {
    let params = &event["params"];
    let is_delivered = event["method"] == "message_state"
        && (params["state"] == "delivered" || params["state"] == "read");
    is_delivered.then(|| text(&params["id"]))
}

#[test]
fn a_sender_that_dies_after_it_said_queued_sends_on_its_next_start() {
    let world = World::new(EXECUTABLE);
    world.register("alice");
    world.register("bob");
    let queued = |line: &Value| line["state"] == "queued";

    // The recipient is away.
    let arguments = ["--json", "send", "bob", "first", "--no-wait"];
    let sender = world.start("alice", &arguments);
    sender
        .wait_json("the message is queued", PATIENCE, queued)
        .unwrap();
    sender.kill();
    let bob = world.receive("bob");
    let alice = world.receive("alice");
    wait_message(&bob, "first");

    // The recipient is there, and another process of the profile does the sending.
    let arguments = ["--json", "send", "bob", "second", "--no-wait"];
    let sender = world.start("alice", &arguments);
    sender
        .wait_json("the message is queued", PATIENCE, queued)
        .unwrap();
    alice.kill();
    let alice = world.receive("alice");
    until("it has arrived", PATIENCE, || {
        (world.received("bob", "alice").len() == 2).then_some(())
    });
    drop(alice);

    // The recipient is there, and the sender dies at once.
    let arguments = ["--json", "send", "bob", "third", "--no-wait"];
    let sender = world.start("alice", &arguments);
    sender
        .wait_json("the message is queued", PATIENCE, queued)
        .unwrap();
    sender.kill();
    let _alice = world.receive("alice");
    until("it has arrived", PATIENCE, || {
        (world.received("bob", "alice").len() == 3).then_some(())
    });
    // Whatever was sent twice on the wire has had its chance by the time that this is delivered.
    world.json("alice", &["send", "bob", "fourth"]);
    assert_eq!(
        world.received("bob", "alice"),
        ["first", "second", "third", "fourth"]
    );
}

fn wait_message(running: &Running, body: &str) {
    let is_it = |line: &Value| line["method"] == "message" && line["params"]["body"] == body;
    running.wait_json(body, PATIENCE, is_it).unwrap();
}

#[test]
fn when_the_owner_of_a_profile_dies_another_of_its_programs_goes_on() {
    let world = World::new(EXECUTABLE);
    world.register("alice");
    world.register("bob");
    let _alice = world.receive("alice");
    let owner = world.receive("bob");
    let heir = world.receive("bob");
    world.json("alice", &["send", "bob", "for both"]);
    wait_message(&owner, "for both");
    wait_message(&heir, "for both");
    let asked = world.peer("bob", &["-v", "status"]);
    let told = "another 'peer' program runs the node of this profile";
    assert!(asked.stderr.contains(told), "{asked:?}");
    owner.kill();
    world.json("alice", &["send", "bob", "for the heir", "--timeout", "40"]);
    let is_message = |line: &Value| line["method"] == "message";
    let next = heir.wait_json("the message", PATIENCE, is_message).unwrap();
    assert_eq!(
        next["params"]["body"], "for the heir",
        "nothing is shown twice"
    );
    let listed = world.json("alice", &["list"]);
    let of_bob = listed.iter().filter(|entry| entry["account"] == "bob");
    assert_eq!(of_bob.count(), 1, "{listed:?}");
}

#[test]
fn commands_of_one_profile_run_side_by_side_whichever_ends_first() {
    let world = World::new(EXECUTABLE);
    world.register("alice");
    let commands = [&["list"][..], &["list"], &["history", "bob"]];
    let all = commands.iter().cycle().take(24);
    let running: Vec<Running> = all.map(|words| world.start("alice", words)).collect();
    for command in running {
        let finished = command.finish(PATIENCE).unwrap();
        assert_eq!(finished.code(), 0, "{finished:?}");
    }
}

#[test]
fn a_receiver_that_dies_in_a_file_has_no_file_and_gets_it_the_next_time() {
    let world = World::new(EXECUTABLE);
    world.register("alice");
    world.register("bob");
    let bytes = world.make_file("film.bin", LARGE);
    let bob = world.receive("bob");
    let sender = world.start("alice", &["--json", "send-file", "bob", "film.bin"]);
    wait_moving(&bob);
    bob.kill();
    assert_eq!(world.names_in("inbox-bob"), ["film.bin.part"]);

    let ended = sender.finish(PATIENCE).unwrap();
    assert_eq!(ended.code(), 9, "{ended:?}");
    assert_eq!(world.names_in("inbox-bob"), ["film.bin.part"]);

    let bob = world.receive("bob");
    until("what it left behind is removed", PATIENCE, || {
        world.names_in("inbox-bob").is_empty().then_some(())
    });
    let sent = world.peer("alice", &["send-file", "bob", "film.bin"]);
    assert_eq!(sent.code(), 0, "{sent:?}");
    let is_done = |line: &Value| transfer_state(line)["state"] == "done";
    bob.wait_json("the file", PATIENCE, is_done).unwrap();
    assert_eq!(world.names_in("inbox-bob"), ["film.bin"]);
    assert!(fs::read(world.path("inbox-bob/film.bin")).unwrap() == bytes);
}

#[test]
fn a_sender_that_dies_in_a_file_leaves_no_file_and_the_receiver_says_so() {
    let world = World::new(EXECUTABLE);
    world.register("alice");
    world.register("bob");
    let bytes = world.make_file("film.bin", LARGE);
    let bob = world.receive("bob");
    let sender = world.start("alice", &["--json", "send-file", "bob", "film.bin"]);
    wait_moving(&bob);
    sender.kill();
    let is_final = |line: &Value| {
        ["failed", "done"].contains(&transfer_state(line)["state"].as_str().unwrap_or_default())
    };
    let ended = bob
        .wait_json("the transfer ends", PATIENCE, is_final)
        .unwrap();
    let ended = transfer_state(&ended);
    assert_eq!(ended["state"], "failed", "{ended}");
    assert!(!text(&ended["reason"]).is_empty());
    let names = world.names_in("inbox-bob");
    assert!(
        names.iter().all(|name| name.ends_with(".part")),
        "{names:?}"
    );

    // The same receiver takes it when it comes again.
    let sent = world.peer("alice", &["send-file", "bob", "film.bin"]);
    assert_eq!(sent.code(), 0, "{sent:?}");
    assert!(fs::read(world.path("inbox-bob/film.bin")).unwrap() == bytes);
}

fn wait_moving(running: &Running) {
    let is_moving = |line: &Value| {
        let state = transfer_state(line);
        state["state"] == "moving" && state["done"].as_u64().unwrap_or(0) > 0
    };
    running
        .wait_json("the file is on its way", PATIENCE, is_moving)
        .unwrap();
}

#[test]
fn what_a_killed_author_sent_is_in_its_own_history() {
    let world = World::new(EXECUTABLE);
    world.register("alice");
    world.register("bob");
    let bob = world.receive("bob");
    let mut sent = 0;
    for round in 0..8 {
        let alice = world.receive("alice");
        let mut control = world.control("alice");
        // One that has its receipt: there is a link.
        control.subscribe(PATIENCE);
        let first = letter("bob", &format!("round {round}"));
        control.call("send", first, PATIENCE).unwrap();
        until("the first is delivered", PATIENCE, || {
            control
                .event(PATIENCE)
                .is_some_and(|event| delivered_id(&event).is_some())
                .then_some(())
        });
        for n in 0..16 {
            control.post("send", letter("bob", &format!("round {round}: {n}")));
        }
        // Killed while some are on their way and the history has not seen them.
        let is_message = |line: &Value| line["method"] == "message";
        let line = bob.wait_json("one of them", PATIENCE, |line| {
            is_message(line) && text(&line["params"]["body"]).contains(':')
        });
        line.unwrap();
        alice.kill();
        drop(control);
        let has: BTreeSet<_> = world.received("bob", "alice").into_iter().collect();
        let history = world.history("alice", "bob");
        let own: BTreeSet<_> = history.iter().map(|item| text(&item["body"])).collect();
        let unknown: Vec<_> = has.difference(&own).collect();
        assert_eq!(unknown, [""; 0], "round {round}");
        sent = has.len();
    }
    assert!(sent > 16, "{sent}");
}
