//! What programs do with a peer: follow its events, be started for each message, and answer through its socket.

#![expect(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use tests::program::{END, Program, Running, START, surround};
use tests::world::{PATIENCE, World, assert_explains, letter, text, until};

const EXECUTABLE: &str = env!("CARGO_BIN_EXE_demo");
const EXAMPLES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../peer/examples");

fn world_of(people: &[&str]) -> World {
    let world = World::new(EXECUTABLE);
    for who in people {
        world.register(who);
    }
    world
}

/// Starts `run`, and waits for its line.
#[track_caller]
fn run(world: &World, who: &str, more: &[&str]) -> Running {
    let arguments = [&["--json", "run"], more].concat();
    ready(world.start(who, &arguments))
}

#[track_caller]
fn ready(running: Running) -> Running {
    let is_ready = |line: &Value| line["ready"] == true;
    running
        .wait_json("it is ready", PATIENCE, is_ready)
        .unwrap();
    running
}

/// Sends texts to bob, each a message of its own, in their order.
#[track_caller]
fn send(world: &World, from: &str, texts: impl IntoIterator<Item = String>) {
    let mut control = world.control(from);
    for body in texts {
        let queued = control.call("send", letter("bob", &body), PATIENCE);
        assert!(queued.is_ok(), "{queued:?}");
    }
}

fn numbered(numbers: impl IntoIterator<Item = u32>) -> impl Iterator<Item = String> {
    numbers.into_iter().map(|n| format!("number {n}"))
}

/// The next message that `events` tells of.
#[track_caller]
fn recorded(events: &Running) -> Value {
    let is_message = |line: &Value| line["method"] == "recorded";
    let event = events.wait_json("a message", PATIENCE, is_message);
    event.unwrap()["params"].clone()
}

/// The next `count` messages: their texts. Their cursors grow from `after` on, which is left at the last one.
#[track_caller]
fn texts(events: &Running, count: usize, after: &mut u64) -> Vec<String> {
    let messages = (0..count).map(|_| {
        let message = recorded(events);
        let cursor = message["cursor"].as_u64().unwrap();
        assert!(cursor > *after, "{message} after {after}");
        *after = cursor;
        text(&message["body"])
    });
    messages.collect()
}

/// Makes a script. Another program writes it: what this one has open for writing, one that another test starts at the
/// same time may have for a moment, too, and then it cannot be executed.
#[track_caller]
fn script(world: &World, name: &str, lines: &str) -> String {
    let path = world.path(name);
    let mut writer = Command::new("sh")
        .args(["-c", "cat > \"$0\" && chmod 700 \"$0\""])
        .arg(&path)
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = writer.stdin.take().unwrap();
    input
        .write_all(format!("#!/bin/sh\n{lines}\n").as_bytes())
        .unwrap();
    drop(input);
    assert!(writer.wait().unwrap().success());
    format!("./{name}")
}

/// A script that keeps what it is given in the profile, in the file `got`.
#[track_caller]
fn keeper(world: &World, name: &str, then: &str) -> String {
    script(
        world,
        name,
        &format!("cat >> \"$PEER_PROFILE/got\"\n{then}"),
    )
}

/// What a [`keeper`] was given, once that are `count` messages.
#[track_caller]
fn got(world: &World, who: &str, count: usize) -> Vec<Value> {
    let file = world.path(who).join("got");
    until("the messages were handed over", PATIENCE, || {
        let lines = fs::read_to_string(&file).unwrap_or_default();
        (lines.lines().count() >= count && lines.ends_with('\n')).then_some(())
    });
    let lines = fs::read_to_string(&file).unwrap();
    let lines = lines
        .lines()
        .map(|line| serde_json::from_str(line).unwrap());
    let messages: Vec<Value> = lines.collect();
    assert_eq!(messages.len(), count, "{messages:?}");
    messages
}

#[track_caller]
fn bodies(messages: &[Value]) -> Vec<String> {
    let bodies = messages.iter().map(|message| text(&message["body"]));
    bodies.collect()
}

/// Waits until `run` says how the program ended.
#[track_caller]
fn handed_over(running: &Running) -> Value {
    let is_it = |line: &Value| line["handed_over"].is_object();
    let line = running.wait_json("a message is handed over", PATIENCE, is_it);
    line.unwrap()["handed_over"].clone()
}

// ---- events ------------------------------------------------------------------------------------

#[test]
fn events_begin_anywhere_and_tell_each_message_once_whoever_runs_the_node() {
    let world = world_of(&["alice", "bob"]);
    let alice = run(&world, "alice", &[]);
    let bob = run(&world, "bob", &[]);
    send(&world, "alice", numbered(0..20));
    let events = world.start("bob", &["events", "--since", "0"]);
    // Some of these come while the first ones are looked up.
    send(&world, "alice", numbered(20..400));
    let mut last = 0;
    let expected: Vec<String> = numbered(0..400).collect();
    assert_eq!(texts(&events, 400, &mut last), expected);

    // The program that runs the node is gone: this one goes on with a node of its own.
    bob.kill();
    send(&world, "alice", numbered(400..500));
    let expected: Vec<String> = numbered(400..500).collect();
    assert_eq!(texts(&events, 100, &mut last), expected);
    assert_eq!(events.interrupt().unwrap().code(), Some(130));

    // What comes meanwhile waits for the next one, which begins where this one ended.
    send(&world, "alice", numbered(500..510));
    let since = last.to_string();
    let events = world.start("bob", &["events", "--since", &since]);
    let expected: Vec<String> = numbered(500..510).collect();
    assert_eq!(texts(&events, 10, &mut last), expected);
    // Without a cursor it begins with what comes.
    let later = world.start("bob", &["events"]);
    let online = |line: &Value| line["method"] == "connection";
    later.wait_json("it follows", PATIENCE, online).unwrap();
    // It asks for the end of the history before it says anything.
    send(&world, "alice", ["at last".to_owned()]);
    assert_eq!(texts(&later, 1, &mut 0), ["at last"]);
    assert_eq!(texts(&events, 1, &mut last), ["at last"]);
    drop(alice);
}

#[test]
fn events_tell_of_everything_else_as_it_happens() {
    let world = world_of(&["alice", "bob"]);
    world.make_file("letter", 300_000);
    let alice = run(&world, "alice", &[]);
    let events = world.start("alice", &["events"]);
    let wait = |what: &str, is_it: &dyn Fn(&Value) -> bool| {
        let found = events.wait_json(what, PATIENCE, is_it);
        found.unwrap_or_else(|error| panic!("{error}"))
    };
    wait("the connection", &|line| line["method"] == "connection");

    let waits = world.peer("alice", &["send", "--no-wait", "bob", "never mind"]);
    assert_eq!(waits.code(), 0, "{waits:?}");
    let sent = recorded(&events);
    assert_eq!(sent["direction"], "sent");
    assert_eq!(sent["state"], "queued");
    let taken = world.peer("alice", &["outbox", "cancel", "bob"]);
    assert_eq!(taken.code(), 0, "{taken:?}");
    let withdrawn = wait("it is taken back", &|line| line["method"] == "withdrawn");
    assert_eq!(withdrawn["params"]["ids"], json!([sent["id"]]));

    let bob = world.receive("bob");
    let came = wait("bob comes", &|line| {
        line["method"] == "presence" && line["params"]["account"] == "bob"
    });
    assert_eq!(came["params"]["change"], "online");
    send(&world, "alice", ["hello".to_owned()]);
    let hello = recorded(&events);
    // Its number is not that of the message that was taken back.
    assert!(hello["cursor"].as_u64() > sent["cursor"].as_u64());
    wait("bob has read it", &|line| {
        line["method"] == "message_state"
            && line["params"]["id"] == hello["id"]
            && line["params"]["state"] == "read"
    });
    let done = world.peer("alice", &["send-file", "bob", "letter"]);
    assert_eq!(done.code(), 0, "{done:?}");
    wait("the file is there", &|line| {
        line["method"] == "transfer" && line["params"]["state"]["state"] == "done"
    });
    assert_eq!(bob.interrupt().unwrap().code(), Some(130));
    wait("bob leaves", &|line| {
        line["method"] == "presence" && line["params"]["change"] == "offline"
    });

    let offered = world.start("bob", &["send-file", "alice", "letter"]);
    let offer = wait("an offer", &|line| line["method"] == "offer");
    assert_eq!(offer["params"]["name"], "letter");
    // Nobody answers it but who is told to.
    let open = world.control("alice").call("offers", Value::Null, PATIENCE);
    assert_eq!(open.unwrap()["offers"][0]["name"], "letter");
    drop((offered, alice));
}

#[test]
fn a_cursor_that_is_none_is_refused() {
    let world = world_of(&["bob"]);
    for cursor in ["-1", "+1", "yesterday", "", "1.5", "99999999999999999999"] {
        let typed = format!("--since={cursor}");
        let refused = world.peer("bob", &["events", &typed]);
        assert_eq!(refused.code(), 2, "{refused:?}");
        assert!(
            refused.stderr.contains("a cursor is a number"),
            "{refused:?}"
        );
    }
    let beyond = world.peer("bob", &["events", "--since", "7"]);
    assert_explains(&beyond, 2, &["the cursor 0", "--since 0"]);
    let mut control_owner = run(&world, "bob", &[]);
    assert!(control_owner.is_running());
    let page =
        world
            .control("bob")
            .call("recorded", json!({"after": u64::MAX, "limit": 5}), PATIENCE);
    assert_eq!(
        page.unwrap(),
        json!({"recorded": {"messages": [], "last": 0}})
    );
}

#[test]
fn events_end_quietly_when_nobody_reads_them_any_more() {
    let world = world_of(&["alice", "bob"]);
    let bob = run(&world, "bob", &[]);
    let alice = run(&world, "alice", &[]);
    let mut command = world.peer_command("bob", &["events"]);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    drop(child.stdout.take());
    // Whatever comes next has nowhere to go; the first line may have been written before.
    let mut n = 0;
    until("it ends", PATIENCE, || {
        n += 1;
        send(&world, "alice", numbered([n]));
        child.try_wait().unwrap()
    });
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    drop((alice, bob));
}

#[test]
fn a_reader_that_is_too_slow_misses_no_message() {
    const COUNT: u32 = 9_000;
    let world = world_of(&["alice", "bob"]);
    let bob = run(&world, "bob", &[]);
    let alice = run(&world, "alice", &[]);
    let mut command = world.peer_command("bob", &["events"]);
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut next = || serde_json::from_str::<Value>(&lines.next().unwrap().unwrap()).unwrap();
    assert_eq!(next()["method"], "connection");
    // More than the pipe, both programs' queues and the socket hold.
    send(&world, "alice", numbered(0..COUNT));
    until("all are delivered", END, || {
        let status = world.control("alice").call("status", Value::Null, PATIENCE);
        (status.unwrap()["status"]["outbox"] == 0).then_some(())
    });
    let (mut came, mut begun_again) = (Vec::new(), 0);
    while came.len() < COUNT as usize {
        let event = next();
        match event["method"].as_str() {
            Some("recorded") => came.push(text(&event["params"]["body"])),
            Some("connection") => begun_again += 1,
            Some(_) | None => {}
        }
    }
    assert!(came.into_iter().eq(numbered(0..COUNT)));
    assert!(begun_again > 0, "it was never too slow");
    child.kill().unwrap();
    child.wait().unwrap();
    drop((alice, bob));
}

// ---- run ---------------------------------------------------------------------------------------

#[test]
fn run_serves_the_other_commands_and_another_one_takes_its_place() {
    let world = world_of(&["alice", "bob"]);
    let first = world.start("bob", &["run"]);
    let line = first.wait_line("it is ready", PATIENCE, |_| true).unwrap();
    assert!(line.starts_with("Ready as bob at "), "{line}");
    assert!(line.contains("bob/socket"), "{line}");
    let second = world.start("bob", &["run"]);
    second
        .wait_complaint("it stands by", PATIENCE, |line| {
            line.contains("takes it over")
        })
        .unwrap();
    world.json("alice", &["send", "bob", "hello"]);
    assert_eq!(world.received("bob", "alice"), ["hello"]);
    assert_eq!(first.signal("TERM").unwrap().code(), Some(143));
    second
        .wait_complaint("it takes over", PATIENCE, |line| {
            line.contains("this one goes on")
        })
        .unwrap_or_else(|error| panic!("{error}"));
    world.json("alice", &["send", "bob", "hello again", "--timeout", "30"]);
    assert_eq!(second.interrupt().unwrap().code(), Some(130));
    // It has shown nothing to anybody.
    assert_eq!(world.json("bob", &["receive", "--once"]).len(), 2);
}

#[test]
fn run_waits_for_a_server_that_is_away() {
    let mut world = world_of(&["bob"]);
    let address = world.kill_server();
    let bob = world.start("bob", &["run"]);
    bob.wait_complaint("it says so", PATIENCE, |line| line.contains("Offline"))
        .unwrap_or_else(|error| panic!("{error}"));
    bob.wait_line("it is ready", PATIENCE, |line| line.starts_with("Ready"))
        .unwrap();
    world.serve("server", &["--listen", &address]);
    world.wait_ready("bob");
    assert_eq!(bob.interrupt().unwrap().code(), Some(130));
}

#[test]
#[cfg_attr(
    not(target_os = "linux"),
    ignore = "only Linux tells a program that a signal was ignored at its start"
)]
fn run_outlives_its_terminal_if_it_is_told_to() {
    let world = world_of(&["bob"]);
    for (trap, code) in [("trap '' HUP", 130), ("true", 143)] {
        let inner = world.peer_command("bob", &["--json", "run"]);
        // Whoever runs the tests may have been told to outlive a terminal, too.
        let mut command = Command::new("env");
        command.args([
            "--default-signal=HUP",
            "sh",
            "-c",
            &format!("{trap}; exec \"$0\" \"$@\""),
        ]);
        command.arg(inner.get_program()).args(inner.get_args());
        surround(&mut command, &inner);
        let bob = ready(Running::start(Program::Peer, &mut command).unwrap());
        bob.send_signal("HUP").unwrap();
        if code == 130 {
            // It still does what it is asked.
            world.wait_ready("bob");
            assert_eq!(bob.interrupt().unwrap().code(), Some(code));
        } else {
            assert_eq!(bob.finish(START).unwrap().code(), code);
        }
    }
}

#[test]
fn run_ends_when_its_device_is_logged_out() {
    let world = world_of(&["bob"]);
    let bob = run(&world, "bob", &[]);
    let out = world.peer("bob", &["logout"]);
    assert_eq!(out.code(), 0, "{out:?}");
    let ended = bob.finish(START).unwrap();
    assert_eq!(ended.code(), 10, "{ended:?}");
}

// ---- run --on-message --------------------------------------------------------------------------

#[test]
fn each_message_is_handed_over_once_in_order_also_what_came_meanwhile() {
    let world = world_of(&["alice", "bob"]);
    let alice = run(&world, "alice", &[]);
    // At the first start what nobody has read counts, and nothing else.
    let reader = world.receive("bob");
    world.json("alice", &["send", "bob", "read"]);
    until("bob has read it", PATIENCE, || {
        (world.history("alice", "bob")[0]["state"] == "read").then_some(())
    });
    assert_eq!(reader.interrupt().unwrap().code(), Some(130));
    let plain = run(&world, "bob", &[]);
    world.json("alice", &["send", "bob", "unread"]);
    assert_eq!(plain.interrupt().unwrap().code(), Some(130));
    let keeper = keeper(&world, "keep", "");
    let handing = ["--on-message", keeper.as_str()];
    let bob = run(&world, "bob", &handing);
    assert_eq!(handed_over(&bob)["ended"], "well");
    // More than are held at a time.
    send(&world, "alice", numbered(0..400));
    world.json("bob", &["send", "--no-wait", "alice", "of bob's own"]);
    let messages = got(&world, "bob", 401);
    let expected: Vec<String> = ["unread".to_owned()]
        .into_iter()
        .chain(numbered(0..400))
        .collect();
    assert_eq!(bodies(&messages), expected);
    let [first, second] = [&messages[0], &messages[1]];
    assert_eq!(first["with"], "alice");
    assert_eq!(first["direction"], "received");
    assert!(first["cursor"].as_u64() < second["cursor"].as_u64());
    until("the author knows that all were read", PATIENCE, || {
        let history = world.history("alice", "bob");
        let sent = history.iter().filter(|item| item["direction"] == "sent");
        sent.clone()
            .all(|item| item["state"] == "read")
            .then_some(())
    });

    // Another one would hand everything over once more.
    let other = world.peer("bob", &["run", "--on-message", &keeper]);
    assert_explains(&other, 11, &["another 'peer run --on-message'"]);

    // What somebody reads while it is away is handed over all the same.
    assert_eq!(bob.interrupt().unwrap().code(), Some(130));
    let reader = world.receive("bob");
    world.json("alice", &["send", "bob", "meanwhile"]);
    let meanwhile = |line: &Value| line["params"]["body"] == "meanwhile";
    reader.wait_json("it is read", PATIENCE, meanwhile).unwrap();
    assert_eq!(reader.interrupt().unwrap().code(), Some(130));
    let bob = run(&world, "bob", &handing);
    assert_eq!(got(&world, "bob", 402)[401]["body"], "meanwhile");
    // Once that is said it does not come again, even if this one is killed.
    assert_eq!(handed_over(&bob)["ended"], "well");
    bob.kill();
    let bob = run(&world, "bob", &handing);
    world.json("alice", &["send", "bob", "the end"]);
    assert_eq!(got(&world, "bob", 403)[402]["body"], "the end");
    drop((alice, bob));
}

#[test]
fn a_program_that_fails_or_hangs_or_does_not_read_stops_nothing() {
    let world = world_of(&["alice", "bob"]);
    let alice = run(&world, "alice", &[]);
    let fickle = script(
        &world,
        "fickle",
        r#"case $(head -c 4096) in
            *fail*) exit 1 ;;
            *hang*) sleep 1000 ;;
            *die*) kill -9 $$ ;;
        esac
        echo "it was fine""#,
    );
    let arguments = ["--on-message", &fickle, "--timeout", "2"];
    let bob = run(&world, "bob", &arguments);
    // It reads the beginning only, and a pipe does not hold this much.
    let long = format!("fine {}", "\u{1f44d}".repeat(15_000));
    let texts = ["fail", "hang", "die", &long, "fine"].map(str::to_owned);
    send(&world, "alice", texts);
    let ended: Vec<Value> = (0..5).map(|_| handed_over(&bob)["ended"].clone()).collect();
    let expected = [
        json!({"with_code": 1}),
        json!({"timed_out": {"after_s": 2}}),
        json!({"by_signal": 9}),
        json!("well"),
        json!("well"),
    ];
    assert_eq!(ended, expected);
    // What it prints is for whoever looks after it.
    bob.wait_complaint("what it prints", PATIENCE, |line| line == "it was fine")
        .unwrap();
    assert_eq!(bob.interrupt().unwrap().code(), Some(130));
    let unread = world.start("bob", &["--json", "receive"]);
    for body in ["fail", "hang", "die"] {
        let is_message = |line: &Value| line["method"] == "message";
        let message = unread
            .wait_json("what failed", PATIENCE, is_message)
            .unwrap();
        assert_eq!(message["params"]["body"], body);
    }
    drop(unread);

    // A person is told in words.
    let bob = world.start("bob", &["run", "--on-message", &fickle]);
    send(&world, "alice", ["fail".to_owned()]);
    let line = bob.wait_complaint("the failure", PATIENCE, |line| line.contains("warning:"));
    let line = line.unwrap();
    assert!(line.contains("ended with exit code 1"), "{line}");
    drop((alice, bob));
}

#[test]
fn a_program_that_cannot_be_started_is_refused_at_once() {
    let world = world_of(&["bob"]);
    fs::write(world.path("plain"), "#!/bin/sh\n").unwrap();
    for (program, why) in [
        ("./missing", "No such file"),
        ("./plain", "not executable"),
        (".", "not a file"),
        ("./plain with arguments", "No such file"),
    ] {
        let refused = world.peer("bob", &["run", "--on-message", program]);
        assert_explains(&refused, 8, &["--on-message", why]);
        assert_eq!(refused.stdout, "");
    }
    assert!(!world.path("bob").join("on-message").exists());
}

#[test]
fn a_message_is_handed_over_again_only_if_the_program_could_not_finish() {
    let world = world_of(&["alice", "bob"]);
    let alice = run(&world, "alice", &[]);
    let slow = keeper(
        &world,
        "slow",
        r#"until [ -e "$PEER_PROFILE/go" ]; do sleep 0.05; done; touch "$PEER_PROFILE/over""#,
    );
    let handing = ["--on-message", slow.as_str()];
    let bob = run(&world, "bob", &handing);
    send(&world, "alice", ["first".to_owned()]);
    got(&world, "bob", 1);
    // Killed without a word, it cannot know.
    bob.kill();
    let bob = run(&world, "bob", &handing);
    assert_eq!(bodies(&got(&world, "bob", 2)), ["first", "first"]);
    // Asked to end, it waits for the program.
    bob.send_signal("TERM").unwrap();
    fs::write(world.path("bob").join("go"), "").unwrap();
    assert_eq!(handed_over(&bob)["ended"], "well");
    assert_eq!(bob.finish(END).unwrap().code(), 143);
    assert!(world.path("bob").join("over").exists());

    fs::remove_file(world.path("bob").join("go")).unwrap();
    let bob = world.start("bob", &["run", "--on-message", &slow]);
    send(&world, "alice", ["second".to_owned()]);
    assert_eq!(bodies(&got(&world, "bob", 3))[2], "second");
    // Whoever asks twice does not wait.
    bob.send_signal("INT").unwrap();
    bob.wait_complaint("it waits", PATIENCE, |line| line.contains("Waiting for"))
        .unwrap();
    assert_eq!(bob.interrupt().unwrap().code(), Some(130));
    fs::write(world.path("bob").join("go"), "").unwrap();
    let bob = run(&world, "bob", &handing);
    assert_eq!(bodies(&got(&world, "bob", 4))[3], "second");
    drop((alice, bob));
}

#[test]
fn another_history_is_begun_anew() {
    let world = world_of(&["alice", "bob"]);
    let keeper = keeper(&world, "keep", "");
    let alice = run(&world, "alice", &[]);
    let handing = ["--on-message", keeper.as_str()];
    let bob = run(&world, "bob", &handing);
    send(&world, "alice", numbered(0..2));
    got(&world, "bob", 2);
    assert_eq!(bob.interrupt().unwrap().code(), Some(130));
    let progress = world.path("bob").join("on-message/progress");
    fs::write(&progress, r#"{"upto":90,"unread_upto":0}"#).unwrap();
    let bob = world.start("bob", &["run", "--on-message", &keeper]);
    bob.wait_complaint("it says so", PATIENCE, |line| {
        line.contains("beginning anew")
    })
    .unwrap();
    send(&world, "alice", numbered(2..3));
    assert_eq!(got(&world, "bob", 3)[2]["body"], "number 2");
    assert_eq!(bob.interrupt().unwrap().code(), Some(130));

    fs::write(&progress, "nonsense").unwrap();
    let damaged = world.peer("bob", &["run", "--on-message", &keeper]);
    assert_explains(&damaged, 11, &["on-message/progress"]);
    drop(alice);
}

// ---- the examples ------------------------------------------------------------------------------

/// A command with `peer` in its path.
fn with_peer(world: &World, mut command: Command) -> Command {
    let folder = world.path("bin");
    fs::create_dir_all(&folder).unwrap();
    let start = format!("MESSENGER_TEST_PROGRAM=peer exec {EXECUTABLE} \"$@\"");
    script(world, "bin/peer", &start);
    let path = std::env::var("PATH").unwrap();
    command.env("PATH", format!("{}:{path}", folder.display()));
    command
}

fn example(name: &str) -> String {
    let path = Path::new(EXAMPLES).join(name);
    path.to_str().unwrap().to_owned()
}

#[test]
fn the_echo_bot_answers_each_message_once() {
    let python = Command::new("python3").arg("--version").output();
    if !python.is_ok_and(|output| output.status.success()) {
        println!("skipped: there is no python3");
        return;
    }
    let world = world_of(&["alice", "bob"]);
    let alice = run(&world, "alice", &[]);
    let bob = run(&world, "bob", &[]);
    let echo = || {
        let mut command = Command::new("python3");
        let script = example("echo_bot.py");
        command
            .args([script.as_str(), "bob"])
            .current_dir(world.path(""));
        let bot = Running::start(Program::Peer, &mut command).unwrap();
        bot.wait_line("the bot is ready", START, |line| line == "ready")
            .unwrap_or_else(|error| panic!("{error}"));
        bot
    };
    let events = world.start("alice", &["events"]);
    let online = |line: &Value| line["method"] == "connection";
    events.wait_json("it follows", PATIENCE, online).unwrap();
    let answer = || loop {
        let message = recorded(&events);
        if message["direction"] == "received" {
            return text(&message["body"]);
        }
    };
    let bot = echo();
    send(&world, "alice", ["hello \"you\"\n👍".to_owned()]);
    assert_eq!(answer(), "echo: hello \"you\"\n👍");
    // It cannot be answered with a word more.
    send(&world, "alice", ["x".repeat(65_536), "after it".to_owned()]);
    assert_eq!(answer(), "echo: after it");
    bot.wait_complaint("what went wrong", PATIENCE, |line| {
        line.contains("could not answer")
    })
    .unwrap();
    bot.kill();
    send(&world, "alice", ["meanwhile".to_owned()]);
    until("it has come", PATIENCE, || {
        world
            .received("bob", "alice")
            .contains(&"meanwhile".to_owned())
            .then_some(())
    });
    let bot = echo();
    assert_eq!(answer(), "echo: meanwhile");
    send(&world, "alice", ["the end".to_owned()]);
    assert_eq!(answer(), "echo: the end");
    // The node ends, and the bot says why it does.
    assert_eq!(bob.interrupt().unwrap().code(), Some(130));
    let ended = bot.finish(START).unwrap();
    assert_eq!(ended.code(), 1);
    assert!(ended.stderr.contains("is 'peer run' running?"), "{ended:?}");
    drop(alice);
}

#[test]
fn the_away_bot_answers_everybody_once() {
    let world = world_of(&["alice", "bob"]);
    let alice = run(&world, "alice", &[]);
    let bot = example("away_bot.sh");
    let command = world.peer_command("bob", &["--json", "run", "--on-message", &bot]);
    let mut command = with_peer(&world, command);
    let bob = ready(Running::start(Program::Peer, &mut command).unwrap());
    // A text that looks like a member leads nobody astray.
    let tricky = r#"hello, "with":"mallory", \"with\":\"mallory\""#;
    send(
        &world,
        "alice",
        [tricky.to_owned(), "are you there?".to_owned()],
    );
    for _ in 0..2 {
        assert_eq!(handed_over(&bob)["ended"], "well");
    }
    let answers = until("the answer comes", PATIENCE, || {
        Some(world.received("alice", "bob")).filter(|answers| !answers.is_empty())
    });
    assert_eq!(answers.len(), 1, "{answers:?}");
    assert!(answers[0].starts_with("I am away"), "{answers:?}");
    drop((alice, bob));
}

#[test]
fn the_log_bot_goes_on_where_it_stopped() {
    let world = world_of(&["alice", "bob"]);
    let alice = run(&world, "alice", &[]);
    let bob = run(&world, "bob", &[]);
    let log = || {
        let mut command = world.peer_command("bob", &[""; 0]);
        let mut script = Command::new(example("log_bot.sh"));
        surround(&mut script, &command);
        script.arg("log.ndjson").env("PEER_PROFILE", "./bob");
        command = with_peer(&world, script);
        command.process_group(0);
        Running::start(Program::Peer, &mut command).unwrap()
    };
    // Only the shell is asked to end: it ends what it has started, which would keep the output open.
    let end = |log: Running| {
        let shell = log.id().to_string();
        let asked = Command::new("kill").args(["-TERM", &shell]).status();
        assert!(asked.unwrap().success());
        assert_eq!(log.finish(START).unwrap().code(), 143);
    };
    let logged = |count| {
        let file = world.path("log.ndjson");
        until("the log has them", PATIENCE, || {
            let lines = fs::read_to_string(&file).unwrap_or_default();
            (lines.lines().count() >= count).then_some(())
        });
        let lines = fs::read_to_string(&file).unwrap();
        let events = lines
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap());
        let bodies = events.map(|event| text(&event["params"]["body"]));
        bodies.collect::<Vec<_>>()
    };
    send(&world, "alice", numbered(0..3));
    let first = log();
    let expected: Vec<String> = numbered(0..3).collect();
    assert_eq!(logged(3), expected);
    end(first);
    assert_eq!(bob.interrupt().unwrap().code(), Some(130));
    until("nobody runs bob's node", PATIENCE, || {
        (!world.path("bob").join("socket").exists()).then_some(())
    });
    let bob = run(&world, "bob", &[]);
    send(&world, "alice", numbered(3..5));
    let second = log();
    let expected: Vec<String> = numbered(0..5).collect();
    assert_eq!(logged(5), expected);
    end(second);
    drop((alice, bob));
}
