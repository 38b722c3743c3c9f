//! Accounts with several devices: they come and go, and a stranger's guesses lock out nobody who
//! belongs there.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;

use serde_json::Value;
use tests::program::{Program, Running};
use tests::world::{PATIENCE, World, assert_explains, assert_fails, password_of, text, until};

const EXECUTABLE: &str = env!("CARGO_BIN_EXE_demo");

#[test]
fn t35_a_new_device_of_somebody_known_is_shown() {
    let world = World::new(EXECUTABLE);
    world.register("alice");
    world.register("bob");
    let alice = world.receive("alice");
    world.json("bob", &["send", "alice", "from the old device"]);
    assert_eq!(world.log_in("tablet", "bob").code(), 0);
    let status = &world.json("tablet", &["status"])[0];
    let fingerprint = &text(&status["fingerprint"]);
    // Until bob has approved it, it sends nothing.
    let refused = world.peer("tablet", &["send", "alice", "from the new one"]);
    let words = ["not approved", "peer devices approve", fingerprint];
    assert_explains(&refused, 12, &words);
    world.approve("bob", "tablet");
    world.json("tablet", &["send", "alice", "from the new one"]);
    let is_new = |line: &Value| line["method"] == "new_key" && line["params"]["known"] == 1;
    let told = alice
        .wait_json("the new key is shown", PATIENCE, is_new)
        .unwrap();
    assert_eq!(told["params"]["account"], "bob");
    assert_eq!(told["params"]["fingerprint"], status["fingerprint"]);
    assert_eq!(told["params"]["is_approved"], true);
}

#[test]
fn a_new_device_of_ones_own_account_is_shown_on_the_others() {
    let world = World::new(EXECUTABLE);
    world.register("alice");
    assert_eq!(world.log_in("tablet", "alice").code(), 0);
    let alice = world.receive("alice");
    let is_enrolled = |line: &Value| line["method"] == "enrolled";
    // The tablet came while this device was away.
    let told = alice.wait_json("alice is told of the tablet", PATIENCE, is_enrolled);
    let status = &world.json("tablet", &["status"])[0];
    let told = told.unwrap();
    assert_eq!(told["params"]["fingerprint"], status["fingerprint"]);
    assert_eq!(told["params"]["device"], status["device_name"]);
    // The next one comes while it is there.
    assert_eq!(world.log_in("stolen", "alice").code(), 0);
    let status = &world.json("stolen", &["status"])[0];
    let is_stolen =
        |line: &Value| is_enrolled(line) && line["params"]["fingerprint"] == status["fingerprint"];
    let told = alice.wait_json("alice is told at once", PATIENCE, is_stolen);
    assert!(told.is_ok(), "{told:?}");
    drop(alice);

    // People are told in words, by short commands, too, and once.
    assert_eq!(world.log_in("third", "alice").code(), 0);
    for (is_news, command) in [(true, "list"), (false, "list")] {
        let listed = world.peer("alice", &[command]);
        assert_eq!(listed.code(), 0, "{listed:?}");
        let words = "NEW DEVICE of your account";
        assert_eq!(listed.stderr.contains(words), is_news, "{listed:?}");
        let next = "peer devices approve SHA256:";
        assert_eq!(listed.stderr.contains(next), is_news, "{listed:?}");
    }
    // Programs find it beside the results.
    assert_eq!(world.log_in("fourth", "alice").code(), 0);
    let listed = world.peer("alice", &["list", "--json"]);
    let told: Value = serde_json::from_str(listed.stderr.trim()).unwrap();
    assert_eq!(told["method"], "enrolled", "{listed:?}");
    assert!(!listed.stdout.contains("enrolled"), "{listed:?}");
    // A device that waits for approval itself hears of them only when it is approved, and of all.
    for (is_approved, count) in [(false, 0), (true, 3)] {
        if is_approved {
            world.approve("alice", "tablet");
        }
        let tablet = world.peer("tablet", &["list"]);
        let told = tablet.stderr.matches("NEW DEVICE of your account").count();
        assert_eq!(told, count, "{tablet:?}");
    }
}

#[test]
fn t38_a_block_keeps_strangers_out_and_lets_the_owner_in() {
    let world = World::new(EXECUTABLE);
    world.register("alice");
    let alice = world.receive("alice");
    let wrong = world.password_file("wrong", "a guess that is wrong");
    for _ in 0..5 {
        let refused = world.enter("stranger", "login", "alice", &wrong);
        assert_explains(&refused, 3, &["unknown account or wrong password"]);
    }
    let told = |line: &Value| line["method"] == "failed_logins";
    alice.wait_json("alice is told", PATIENCE, told).unwrap();
    let blocked = world.log_in("stranger", "alice");
    assert_explains(&blocked, 4, &["blocked", "s are left", "peer admit"]);

    // The device that runs stays, and one that is known logs in, with its token or the password.
    assert_eq!(world.json("alice", &["list"]).len(), 1);
    drop(alice);
    assert_eq!(world.json("alice", &["list"]).len(), 1);
    assert_eq!(world.log_in("alice", "alice").code(), 0);

    // A known device opens the door for one new device, once.
    let code = text(&world.json("alice", &["admit"])[0]["code"]);
    let file = world.password_file("alice", &password_of("alice"));
    let server = world.server();
    let enter = |profile: &str| {
        let arguments = [
            "login",
            "alice",
            "--server",
            &server.address,
            "--fingerprint",
            &server.fingerprint,
            "--password-file",
            &file,
            "--code",
            &code,
        ];
        world.peer(profile, &arguments)
    };
    assert_eq!(enter("tablet").code(), 0);
    // That took back what this source had added, so it takes a new block to see the code refused.
    for _ in 0..5 {
        assert_eq!(world.enter("stranger", "login", "alice", &wrong).code(), 3);
    }
    assert_explains(&enter("another"), 4, &["blocked"]);

    // The operator ends the block.
    let unblocked = world.rendezvous(&["--data", "server", "account", "unblock", "alice"]);
    assert_eq!(unblocked.code(), 0, "{unblocked:?}");
    assert_eq!(world.log_in("stranger", "alice").code(), 0);
}

#[test]
fn a_device_that_is_logged_out_needs_the_password_again() {
    let world = World::new(EXECUTABLE);
    world.register("alice");
    assert_eq!(world.peer("alice", &["logout"]).code(), 0);
    for command in [
        &["list"][..],
        &["logout"],
        &["send-file", "bob", "server/lock"],
    ] {
        assert_explains(
            &world.peer("alice", command),
            10,
            &["not logged in", "peer login"],
        );
    }
    assert_eq!(world.peer("alice", &["status"]).code(), 10);
    assert_eq!(world.log_in("alice", "alice").code(), 0);
    assert_eq!(world.json("alice", &["list"]).len(), 1);
}

#[test]
fn whoever_lists_is_in_the_list_however_often() {
    let world = World::new(EXECUTABLE);
    world.register("alice");
    let status = &world.json("alice", &["status"])[0];
    // The server lets each device announce itself a few times at once, then one time in five seconds.
    for round in 0..6 {
        let listed = world.json("alice", &["list"]);
        assert_eq!(listed.len(), 1, "round {round}: {listed:?}");
        assert_eq!(listed[0]["is_self"], true);
        for same in ["account", "fingerprint"] {
            assert_eq!(listed[0][same], status[same]);
        }
        assert_eq!(listed[0]["device"], status["device_name"]);
        assert!(!listed[0]["endpoints"].as_array().unwrap().is_empty());
    }
}

#[test]
fn a_device_that_is_logged_out_says_whose_it_is() {
    let world = World::new(EXECUTABLE);
    world.register("alice");
    let admitted = world.peer("alice", &["admit"]);
    assert!(
        admitted.stdout.contains("peer login alice --code "),
        "{admitted:?}"
    );
    let out = world.peer("alice", &["logout"]);
    assert!(out.stdout.contains("'peer login alice' brings"), "{out:?}");
    for command in [&["list"][..], &["send", "bob", "hi"], &["chat"], &["admit"]] {
        let refused = world.peer("alice", command);
        let words = [
            "run 'peer login alice'",
            "another account needs another profile (--profile NAME)",
        ];
        assert_explains(&refused, 10, &words);
        assert!(!refused.stderr.contains("register"), "{refused:?}");
    }
    let status = world.peer("alice", &["status"]);
    assert_eq!(status.code(), 10);
    let account = "alice; this device is not logged in: 'peer login alice'";
    assert!(status.stdout.contains(account), "{status:?}");
    let status = &world.peer("alice", &["status", "--json"]).json()[0];
    assert_eq!(status["account"], Value::Null);
    assert_eq!(status["profile_account"], "alice");
}

#[test]
fn whoever_logs_out_is_told_what_waits_and_when_it_goes_out() {
    let world = World::new(EXECUTABLE);
    world.register("alice");
    let out = world.peer("alice", &["logout"]);
    assert!(!out.stderr.contains("outbox"), "{out:?}");
    world.log_in("alice", "alice");
    for to in ["bob", "carol", "bob"] {
        world.json("alice", &["send", to, "later on", "--no-wait"]);
    }
    let out = world.peer("alice", &["logout"]);
    assert_fails(
        &out,
        0,
        &[
            "2 messages for bob, 1 message for carol wait in the outbox; they go out after you log in again.\n",
        ],
    );
    world.log_in("alice", "alice");
    let out = &world.json("alice", &["logout"])[0];
    assert_eq!(out["logged_out"], "alice");
    assert_eq!(out["outbox"], 3);

    // A chat that another program has logged out promises no more.
    world.log_in("alice", "alice");
    let mut command = world.peer_command("alice", &["chat", "bob"]);
    command.stdin(Stdio::piped());
    let mut chat = Running::start(Program::Peer, &mut command).unwrap();
    let mut typed = chat.take_stdin().unwrap();
    world.wait_ready("alice");
    assert_eq!(world.peer("alice", &["logout"]).code(), 0);
    writeln!(typed, "/quit").unwrap();
    let left = chat.finish(PATIENCE).unwrap();
    assert_fails(&left, 0, &["they go out after you log in again.\n"]);
}

#[test]
fn a_device_that_was_removed_while_it_was_away_sends_nothing() {
    let world = World::new(EXECUTABLE);
    for who in ["alice", "bob", "carol"] {
        world.register(who);
        if who != "bob" {
            let removed =
                world.rendezvous(&["--data", "server", "account", "remove", who, "--yes"]);
            assert_eq!(removed.code(), 0, "{removed:?}");
        }
    }
    for (who, text) in [("alice", "a text with blanks"), ("carol", "word")] {
        let refused = world.peer(who, &["send", "bob", text]);
        let [login, register] = ["login", "register"].map(|it| format!("peer {it} {who}"));
        assert_explains(
            &refused,
            10,
            &[
                "could not send to bob",
                "account was removed",
                &login,
                &register,
            ],
        );
        let status = world.peer(who, &["status"]).stdout;
        let account = status.lines().next().unwrap_or_default();
        assert!(account.contains(&register), "{status}");
        assert_eq!(refused.stdout, "");
        assert!(world.json(who, &["outbox"]).is_empty());
        assert_explains(&world.peer(who, &["send", "bob", text]), 10, &[&login]);
    }
}

#[test]
fn an_account_that_is_removed_ends_at_once_and_for_good() {
    let world = World::new(EXECUTABLE);
    world.register("alice");
    world.register("bob");
    let bob = world.receive("bob");
    let alice = world.receive("alice");
    let removed = world.rendezvous(&["--data", "server", "account", "remove", "bob", "--yes"]);
    assert_eq!(removed.code(), 0, "{removed:?}");
    let is_out =
        |line: &Value| line["method"] == "connection" && line["params"]["state"] == "offline";
    bob.wait_json("bob is told", PATIENCE, is_out).unwrap();
    until("nobody sees bob any more", PATIENCE, || {
        (world.json("alice", &["list"]).len() == 1).then_some(())
    });
    let anew = ["removed", "peer register bob"];
    assert_explains(&world.peer("bob", &["list"]), 10, &anew);
    let status = world.peer("bob", &["status"]).stdout;
    let account = status.lines().next().unwrap_or_default();
    for words in anew {
        assert!(account.contains(words), "{account}");
    }
    drop(bob);
    // The server says no more than that it does not know the device.
    let either = ["account was removed", "peer login bob", "peer register bob"];
    assert_explains(&world.peer("bob", &["list"]), 10, &either);
    let unknown = ["unknown account or wrong password", "peer register NAME"];
    assert_explains(&world.log_in("bob", "bob"), 3, &unknown);
    let again = world.rendezvous(&["--data", "server", "account", "remove", "bob", "--yes"]);
    assert_fails(&again, 7, &["no account 'bob'", "account list"]);
    let file = world.password_file("bob", &password_of("bob"));
    let registered = world.enter("bob", "register", "bob", &file);
    assert_eq!(registered.code(), 0, "{registered:?}");
    drop(alice);
}

#[test]
fn whoever_watches_who_is_online_hears_that_this_device_is_out() {
    let world = World::new(EXECUTABLE);
    world.register("alice");
    for is_removed in [false, true] {
        let watch = world.start("alice", &["list", "--watch"]);
        world.wait_ready("alice");
        let out = if is_removed {
            world.rendezvous(&["--data", "server", "account", "remove", "alice", "--yes"])
        } else {
            world.peer("alice", &["logout"])
        };
        assert_eq!(out.code(), 0, "{out:?}");
        let ended = watch.finish(PATIENCE).unwrap();
        assert_explains(&ended, 10, &["could not list who is online"]);
        if !is_removed {
            assert_eq!(world.log_in("alice", "alice").code(), 0);
        }
    }
}

#[test]
fn an_account_that_is_removed_while_the_server_is_away_is_told_when_it_is_back() {
    let mut world = World::new(EXECUTABLE);
    world.register("bob");
    let bob = world.start("bob", &["receive"]);
    world.wait_ready("bob");
    let complains = |what: &str| {
        let told = bob.wait_complaint(what, PATIENCE, |line| line.contains(what));
        told.unwrap();
    };
    let address = world.stop_server();
    complains("Trying again");
    let removed = world.rendezvous(&["--data", "server", "account", "remove", "bob", "--yes"]);
    assert_eq!(removed.code(), 0, "{removed:?}");
    world.serve("server", &["--listen", &address]);
    complains("whose account was removed");
}

/// The words of a recovery code that a command has shown.
fn recovery_code(stdout: &str) -> String {
    let mut words = Vec::new();
    let lines = stdout.lines().filter(|line| line.starts_with("  "));
    for line in lines {
        let mut cells = line.split_whitespace();
        while let (Some(number), Some(word)) = (cells.next(), cells.next()) {
            assert_eq!(number.parse(), Ok(words.len() + 1), "{stdout}");
            words.push(word);
        }
    }
    assert_eq!(words.len(), 12, "{stdout}");
    words.join(" ")
}

/// The states of an account's devices, by their names.
fn states(world: &World, profile: &str) -> Vec<(String, String)> {
    let devices = world.json(profile, &["devices"]);
    let states = devices.iter().map(|device| {
        // Of one that is not online no name may be known.
        let name = device["name"].as_str().unwrap_or_default();
        (name.to_owned(), text(&device["state"]))
    });
    states.collect()
}

#[test]
fn an_account_gets_a_recovery_code_and_approves_its_devices() {
    let world = World::new(EXECUTABLE);
    let file = world.password_file("alice", &password_of("alice"));
    let registered = world.enter("alice", "register", "alice", &file);
    let words = recovery_code(&registered.stdout);
    assert!(registered.stdout.contains("shown once"), "{registered:?}");
    let again = world.log_in("alice", "alice");
    assert!(!again.stdout.contains("recovery code"), "once: {again:?}");

    // A device that has the password is not approved by that.
    let owner = world.receive("alice");
    let tablet = world.log_in("tablet", "alice");
    assert!(tablet.stderr.contains("not approved yet"), "{tablet:?}");
    let status = &world.json("tablet", &["status"])[0];
    let fingerprint = &text(&status["fingerprint"]);
    assert!(tablet.stderr.contains(fingerprint), "{tablet:?}");
    let running = world.receive("tablet");
    let waiting = states(&world, "alice");
    assert!(
        waiting.iter().any(|(_, state)| state == "waiting"),
        "{waiting:?}"
    );
    let shown = world.peer("alice", &["devices"]);
    assert!(shown.stdout.contains("waits for approval"), "{shown:?}");
    assert!(shown.stderr.contains("peer devices approve"), "{shown:?}");
    let refused = world.peer("tablet", &["devices", "approve", fingerprint]);
    assert_explains(
        &refused,
        12,
        &["this device is not approved by its account yet"],
    );
    let unknown = world.peer("alice", &["devices", "approve", "nobody"]);
    assert_explains(&unknown, 2, &["no device of this account"]);
    let approved = world.peer("alice", &["devices", "approve", fingerprint]);
    assert_eq!(approved.code(), 0, "{approved:?}");
    let all = states(&world, "tablet");
    assert!(all.iter().all(|(_, state)| state == "approved"), "{all:?}");

    // One that is revoked is out at once.
    let revoked = world.peer("alice", &["devices", "revoke", fingerprint]);
    assert_eq!(revoked.code(), 0, "{revoked:?}");
    assert!(revoked.stdout.contains("revoked"), "{revoked:?}");
    let is_out = |line: &Value| {
        let reason = line["params"]["reason"].as_str();
        reason.is_some_and(|reason| reason.contains("does not know this device any more"))
    };
    let told = running.wait_json("the tablet is out", PATIENCE, is_out);
    assert!(told.is_ok(), "{told:?}");
    drop(running);
    drop(owner);

    // A recovery code brings another one in, and only the right one.
    let [wrong, right] = [("wrong", "zoo ".repeat(12)), ("right", words.clone())]
        .map(|(name, words)| (name, words.trim().to_owned()))
        .map(|(name, words)| world.password_file(name, &words));
    let enter = |file: &str| {
        let password = world.password_file("alice", &password_of("alice"));
        let command = [
            "login",
            "alice",
            "--password-file",
            &password,
            "--recovery-file",
            file,
        ];
        world.peer("third", &command)
    };
    assert_eq!(world.log_in("third", "alice").code(), 0);
    for (file, words) in [(&wrong, "word"), (&"missing".to_owned(), "could not read")] {
        let refused = enter(file);
        assert_ne!(refused.code(), 0, "{refused:?}");
        assert!(refused.stderr.contains(words), "{refused:?}");
    }
    let recovered = enter(&right);
    assert!(
        recovered.stdout.contains("has approved this device"),
        "{recovered:?}"
    );
}

#[test]
fn a_recovery_code_is_kept_in_a_file_of_its_own() {
    let world = World::new(EXECUTABLE);
    let password = world.password_file("alice", &password_of("alice"));
    fs::write(world.path("taken"), "mine").unwrap();
    let register = |file: &str| {
        let (address, fingerprint) = (&world.server().address, &world.server().fingerprint);
        let server = ["--server", address, "--fingerprint", fingerprint];
        let files = ["--password-file", &password, "--recovery-file", file];
        world.peer(
            "alice",
            &[&["register", "alice"][..], &server, &files].concat(),
        )
    };
    let refused = register("taken");
    assert_explains(&refused, 8, &["there is a file already"]);
    assert_eq!(fs::read(world.path("taken")).unwrap(), b"mine");
    let done = register("code");
    assert_eq!(done.code(), 0, "nothing was registered before: {done:?}");
    assert!(!done.stdout.contains("recovery code, which"), "{done:?}");
    let kept = fs::read_to_string(world.path("code")).unwrap();
    assert_eq!(kept.split_whitespace().count(), 12);
    let mode = fs::metadata(world.path("code"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    assert!(!done.stderr.contains(kept.trim()) && !done.stdout.contains(kept.trim()));
}

#[test]
fn two_people_verify_each_other() {
    let world = World::new(EXECUTABLE);
    world.register("alice");
    world.register("bob");
    let view = |who: &str, arguments: &[&str]| world.json(who, arguments).remove(0);
    let alices = view("alice", &["verify", "bob"]);
    let bobs = view("bob", &["verify", "alice"]);
    assert_eq!(alices["number"], bobs["number"]);
    assert_eq!(alices["is_verified"], false);
    let shown = world.peer("alice", &["verify", "bob"]).stdout;
    let digits = shown.chars().filter(char::is_ascii_digit).count();
    assert_eq!(digits, 60, "{shown}");
    assert_eq!(
        view("alice", &["verify", "bob", "--matches"])["is_verified"],
        true
    );
    assert_eq!(view("alice", &["verify", "bob"])["is_verified"], true);
    assert_eq!(
        view("alice", &["verify", "bob", "--forget"])["is_verified"],
        false
    );
    let nobody = world.peer("alice", &["verify", "zoe"]);
    assert_explains(
        &nobody,
        3,
        &["who zoe is: nobody has this account", "check the name"],
    );
}
