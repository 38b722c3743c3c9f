//! What people get wrong, and what their machines do to them: each has an exit code and a text of its
//! own that says what to do.

use std::fs::{self, File};
use std::io::Write;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;

use common::limits::PROFILE_CLIENTS_MAX;
use serde_json::Value;
use tests::world::{PATIENCE, World, assert_explains, assert_fails, password_of, text, until};

const EXECUTABLE: &str = env!("CARGO_BIN_EXE_demo");
/// The format's version number stands here in a SQLite file (section 1.3 of its description).
const USER_VERSION: std::ops::Range<usize> = 60..64;

// ---- the output --------------------------------------------------------------------------------

#[test]
#[cfg_attr(
    not(target_os = "linux"),
    ignore = "a device that is always full exists on Linux only"
)]
fn output_that_is_lost_is_a_failure_unless_its_reader_has_gone() {
    let world = World::new(EXECUTABLE);
    world.register("alice");
    for line in ["list", "status", "doctor", "--json list", "--json status"] {
        let words: Vec<&str> = line.split(' ').collect();
        let mut command = world.peer_command("alice", &words);
        let full = File::options().write(true).open("/dev/full").unwrap();
        let ended = command.stdout(full).output().unwrap();
        let said = String::from_utf8(ended.stderr).unwrap();
        assert_eq!(ended.status.code(), Some(8), "{line}: {said}");
        // Whoever runs 'peer send' again sends twice.
        let done = "may have done its work";
        for word in ["could not write to standard output", "No space left", done] {
            assert!(said.contains(word), "{line}: {said}");
        }

        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut command = world.peer_command("alice", &words);
        let ended = command.stdout(writer).output().unwrap();
        assert_eq!(ended.status.code(), Some(0), "{line}: {ended:?}");
    }
}

// ---- the command line --------------------------------------------------------------------------

#[test]
fn a_mistake_on_the_command_line_is_answered_with_an_example() {
    let world = World::empty(EXECUTABLE);
    for (line, example) in [
        ("conquer", "Example: peer "),
        ("send", "Example: peer send bob"),
        ("send bob hello --loudly", "Example: peer send bob"),
        ("send bob hello --timeout", "Example: peer send bob"),
        ("send bob hello --timeout soon", "Example: peer send bob"),
        ("send bob hello --timeout 0", "Example: peer send bob"),
        ("send-file bob", "Example: peer send-file bob"),
        ("list everybody", "Example: peer list"),
        ("history --limit 0", "Example: peer history"),
        ("register alice --server", "Example: peer register alice"),
        (
            "register alice --server http://example.org/",
            "Example: peer register alice",
        ),
        (
            "register alice --fingerprint 12:34",
            "Example: peer register alice",
        ),
        ("login alice --code 123", "Example: peer login alice"),
        ("--udp nowhere status", "Example: peer status"),
        ("--profile", "Example: peer "),
    ] {
        let words: Vec<_> = line.split(' ').collect();
        let refused = world.peer("nobody", &words);
        assert_fails(&refused, 2, &["error:", example]);
        assert_eq!(refused.stdout, "", "{line}");
    }
    for (line, words) in [
        (
            "send bob",
            ["the TEXT for bob is missing", "peer send bob 'See"],
        ),
        (
            "send bob,,carol hi",
            [
                "'bob,,carol' has an empty name",
                "for example: peer send bob,carol",
            ],
        ),
        (
            "send bob, carol hi",
            [
                "'bob,' has an empty name",
                "for example: peer send bob,carol",
            ],
        ),
    ] {
        let typed: Vec<_> = line.split(' ').collect();
        assert_explains(&world.peer("nobody", &typed), 2, &words);
    }
    assert!(!world.path("nobody").exists(), "nothing was made");
    for line in [
        "conquer",
        "serve --listen",
        "serve --listen here",
        "account add",
        "account add a/b",
    ] {
        let words: Vec<_> = line.split(' ').collect();
        assert_fails(
            &world.rendezvous(&words),
            2,
            &["error:", "Example: rendezvous"],
        );
    }
}

#[test]
fn names_that_cannot_be_account_names_are_refused_before_anything_is_sent() {
    let world = World::empty(EXECUTABLE);
    let long = "x".repeat(33);
    let names = [
        "",
        "a b",
        "a/b",
        "../a",
        "ä",
        "a\u{1b}[31m",
        "a\u{202e}b",
        ".a",
        "a\n",
        "a@b",
        &long,
    ];
    for name in names {
        let all = [
            world.peer("nobody", &["register", name, "--server", "127.0.0.1:1"]),
            world.peer("nobody", &["send", "--to", name, "hello"]),
            world.peer("nobody", &["history", name]),
        ];
        let refused = world.peer("nobody", &["send", name, "hello"]);
        assert_explains(&refused, 2, &["for example: peer send bob,carol "]);
        assert!(
            !refused
                .stderr
                .contains(|c: char| c.is_control() && c != '\n')
        );
        for refused in all {
            assert_fails(&refused, 2, &["error:", "Example: peer "]);
            let raw = |c: char| c.is_control() && c != '\n';
            assert!(!refused.stderr.contains(raw), "{refused:?}");
        }
    }
    // Letter case does not make another account.
    let world = World::new(EXECUTABLE);
    world.register("alice");
    let file = world.password_file("alice", &password_of("alice"));
    assert_eq!(world.enter("second", "login", "ALICE", &file).code(), 0);
    assert_explains(
        &world.enter("third", "register", "Alice", &file),
        1,
        &["exists already"],
    );
}

// ---- accounts ----------------------------------------------------------------------------------

#[test]
fn t38_a_wrong_password_and_an_unknown_account_look_the_same() {
    let world = World::new(EXECUTABLE);
    world.register("alice");
    let wrong = world.password_file("wrong", "not the password at all");
    let refused = world.enter("one", "login", "alice", &wrong);
    assert_explains(
        &refused,
        3,
        &["unknown account or wrong password", "check the name"],
    );
    let unknown = world.enter("two", "login", "nobody", &wrong);
    assert_eq!(unknown.code(), 3);
    assert_eq!(unknown.stderr, refused.stderr.replace("alice", "nobody"));
    assert_eq!(unknown.stdout, refused.stdout);

    // And so they do when they are blocked.
    for name in ["alice", "nobody"] {
        for _ in 0..4 {
            assert_eq!(
                world.enter("one", "login", name, &wrong).code(),
                3,
                "{name}"
            );
        }
    }
    let file = world.password_file("alice", &password_of("alice"));
    for name in ["alice", "nobody"] {
        let blocked = world.enter("three", "login", name, &file);
        assert_explains(
            &blocked,
            4,
            &["the account is blocked", " s are left", "peer admit"],
        );
        let seconds = blocked.stderr.split(" s are left").next().unwrap();
        let seconds: u32 = seconds.rsplit(' ').next().unwrap().parse().unwrap();
        assert!((1..=60).contains(&seconds), "{seconds}");
    }
    let registered = world.enter("three", "register", "alice", &file);
    assert_explains(&registered, 1, &["exists already", "choose another name"]);
}

#[test]
fn a_block_ends_by_itself() {
    let world = World::serving(EXECUTABLE, &["--failures-max", "1", "--block-first", "2"]);
    world.register("alice");
    let wrong = world.password_file("wrong", "not the password at all");
    assert_eq!(world.enter("one", "login", "alice", &wrong).code(), 3);
    assert_explains(&world.log_in("two", "alice"), 4, &["blocked"]);
    until("the block is over", PATIENCE, || {
        (world.log_in("two", "alice").code() == 0).then_some(())
    });
}

#[test]
fn registration_can_be_closed_and_the_operator_still_makes_accounts() {
    let world = World::serving(EXECUTABLE, &["--registration", "closed"]);
    let file = world.password_file("alice", &password_of("alice"));
    let refused = world.enter("alice", "register", "alice", &file);
    assert_explains(&refused, 1, &["does not register accounts", "peer login"]);
    let add = [
        "--data",
        "server",
        "account",
        "add",
        "alice",
        "--password-file",
        &file,
    ];
    assert_eq!(world.rendezvous(&add).code(), 0);
    assert_eq!(world.log_in("alice", "alice").code(), 0);
    assert_fails(
        &world.rendezvous(&add),
        7,
        &["'alice' already", "choose another name"],
    );
    let short = world.password_file("short", "seven77");
    let add = [
        "--data",
        "server",
        "account",
        "add",
        "bob",
        "--password-file",
        &short,
    ];
    assert_fails(&world.rendezvous(&add), 1, &["at least 8 characters"]);
}

#[test]
fn a_password_file_that_cannot_be_used_is_named() {
    let world = World::new(EXECUTABLE);
    let register = |file: &str| world.enter("alice", "register", "alice", file);
    assert_explains(&register("missing"), 8, &["password file", "missing"]);
    assert_explains(&register("."), 8, &["password file"]);
    let empty = world.password_file("empty", "");
    assert_explains(&register(&empty), 2, &["at least 8 characters"]);
    let log_in = world.enter("alice", "login", "alice", &empty);
    assert_explains(&log_in, 2, &["the password is empty"]);
    let short = world.password_file("short", "seven77\n");
    assert_explains(&register(&short), 2, &["at least 8 characters"]);
    let long = world.password_file("long", &"x".repeat(1025));
    assert_explains(&register(&long), 2, &["at most 1024 bytes"]);
    fs::write(world.path("binary"), [0xff; 20]).unwrap();
    assert_explains(&register("binary"), 8, &["password file", "binary"]);
    let nowhere = world.peer("alice", &["login", "alice", "--password-file", &short]);
    assert_explains(&nowhere, 2, &["no server yet", "--server"]);
    // Nobody can type one here.
    let server = world.server();
    let arguments = [
        "register",
        "alice",
        "--server",
        &server.address,
        "--fingerprint",
        &server.fingerprint,
    ];
    assert_explains(
        &world.peer("alice", &arguments),
        2,
        &["no terminal", "--password-file"],
    );
    let listed = world.rendezvous(&["--data", "server", "account", "list", "--json"]);
    assert_eq!(listed.stdout, "", "no account was made");
    // What stands in a file may end with a line.
    let file = world.password_file("alice", &format!("{}\r\n", password_of("alice")));
    assert_eq!(register(&file).code(), 0);
    assert_eq!(world.log_in("tablet", "alice").code(), 0);
}

#[test]
fn failures_are_json_for_programs() {
    let world = World::new(EXECUTABLE);
    world.register("alice");
    let refused = world.peer("alice", &["--json", "send-file", "nobody", "missing"]);
    assert_eq!((refused.code(), refused.stderr.as_str()), (8, ""));
    let error = &refused.json()[0]["error"];
    assert_eq!(error["exit"], 8);
    for part in ["what", "why", "next"] {
        assert!(!text(&error[part]).is_empty(), "{part}");
    }
}

#[test]
fn mistakes_on_the_command_line_are_json_for_programs() {
    let world = World::empty(EXECUTABLE);
    for mistake in [
        &["--json", "send-file", "bob"][..],
        &["nonsense", "--json"],
        &["--json", "chat", "not a name"],
    ] {
        let finished = world.peer("alice", mistake);
        assert_eq!((finished.code(), finished.stderr.as_str()), (2, ""));
        let error = &finished.json()[0]["error"];
        assert_eq!(error["exit"], 2, "{error}");
        for part in ["what", "why", "next"] {
            assert!(!text(&error[part]).is_empty(), "{part}");
        }
    }
    let help = world.peer("alice", &["--json", "--help"]);
    assert_eq!(help.code(), 0);
    assert!(help.stdout.contains("Usage:"));
}

#[test]
fn t21_a_command_too_many_for_a_profile_names_the_cause() {
    let world = World::new(EXECUTABLE);
    world.register("alice");
    let owner = world.receive("alice");
    let socket = world.path("alice").join("socket");
    let mut others = Vec::new();
    // Whoever waited for it to be ready may still be counted.
    let refused = until("it is full", PATIENCE, || {
        let more = (0..PROFILE_CLIENTS_MAX).map(|_| UnixStream::connect(&socket).unwrap());
        others.extend(more);
        let finished = world.peer("alice", &["list"]);
        (finished.code() != 0).then_some(finished)
    });
    assert_explains(&refused, 1, &["too many clients", "when some have ended"]);
    drop(others);
    until("there is room again", PATIENCE, || {
        (world.peer("alice", &["list"]).code() == 0).then_some(())
    });
    drop(owner);
}

// ---- the server --------------------------------------------------------------------------------

#[test]
fn t30_a_server_whose_key_has_changed_is_refused_loudly_until_a_person_forgets_it() {
    let mut world = World::new(EXECUTABLE);
    world.register("alice");
    let file = world.password_file("alice", &password_of("alice"));
    let old = world.server().fingerprint.clone();
    let address = world.stop_server();
    world.serve("another-server", &["--listen", &address]);
    let new = world.server().fingerprint.clone();
    assert_ne!(old, new);

    let loud = [
        "THE SERVER'S KEY HAS CHANGED",
        "Nothing was sent",
        &old,
        &new,
        "forget-server",
    ];
    for command in [
        &["list"][..],
        &["send-file", "bob", "alice.password"],
        &["logout"],
        &["login", "alice", "--password-file", &file],
        &["receive"],
    ] {
        assert_explains(&world.peer("alice", command), 6, &loud);
    }
    // Not even who is told the new key by somebody gets around it unasked.
    let told = world.enter("alice", "login", "alice", &file);
    assert_explains(&told, 6, &[&old, &new, "forget-server"]);
    let listed = world.rendezvous(&["--data", "another-server", "account", "list", "--json"]);
    assert_eq!(listed.stdout, "", "it learnt of nobody");

    let unknown = world.peer("alice", &["forget-server", "127.0.0.1:9"]);
    assert_explains(&unknown, 1, &["127.0.0.1:9", "peer status"]);
    let none = world.peer("newcomer", &["forget-server"]);
    assert_explains(&none, 2, &["no server yet", "forget-server HOST"]);
    let unasked = world.peer("alice", &["forget-server"]);
    let words = [&address, "peer login alice", "nobody to ask", "--yes"];
    assert_explains(&unasked, 2, &words);
    let forgotten = world.peer("alice", &["forget-server", "--yes"]);
    assert_eq!(forgotten.code(), 0, "{forgotten:?}");
    assert!(forgotten.stdout.contains(&address), "{forgotten:?}");
    let again = world.peer("alice", &["forget-server", &address]);
    assert_explains(&again, 1, &["trusts no key", "peer status"]);
    assert_explains(
        &world.peer("alice", &["list"]),
        6,
        &["no key of it is trusted", "peer login alice"],
    );
    let status = world.peer("alice", &["status"]);
    assert_explains(&status, 6, &["no key of it is trusted", "peer login alice"]);
    for words in ["account   alice", &address, "offline: no key of the server"] {
        assert!(status.stdout.contains(words), "{status:?}");
    }
    let unasked = world.peer("alice", &["login", "alice", "--password-file", &file]);
    assert_explains(&unasked, 6, &["nobody to ask", "--fingerprint"]);
    // The other server does not have the account, but now it is talked to.
    let told = world.enter("alice", "login", "alice", &file);
    assert_explains(&told, 3, &["unknown account or wrong password"]);
    let registered = world.enter("alice", "register", "alice", &file);
    assert_eq!(registered.code(), 0, "{registered:?}");
    assert_eq!(world.json("alice", &["list"]).len(), 1);
}

#[test]
fn a_server_that_cannot_be_reached_is_named() {
    let mut world = World::new(EXECUTABLE);
    world.register("alice");
    let fingerprint = world.server().fingerprint.clone();
    let address = world.stop_server();
    for command in [
        &["list"][..],
        &["send-file", "bob", "alice.password"],
        &["receive"],
        &["admit"],
    ] {
        let refused = world.peer("alice", command);
        assert_explains(&refused, 5, &["cannot be reached", "peer status"]);
    }
    // The status itself is an answer.
    let status = &world.json("alice", &["status"])[0];
    assert_eq!(status["connection"]["state"], "offline");
    assert_eq!(status["server"], address.as_str());

    // A name that means nothing, by definition (RFC 6761 section 6.4).
    let file = world.password_file("bob", &password_of("bob"));
    let register = |server: &str| {
        let arguments = [
            "register",
            "bob",
            "--server",
            server,
            "--fingerprint",
            &fingerprint,
            "--password-file",
            &file,
        ];
        world.peer("bob", &arguments)
    };
    assert_explains(
        &register("no-such-host.invalid"),
        5,
        &["no-such-host.invalid"],
    );
    assert_explains(&register(&address), 5, &["cannot be reached"]);
    // Something else listens there, and hangs up or says nothing of use.
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let occupied = other.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        while let Ok((mut stream, _)) = other.accept() {
            // Whoever connects may be gone already.
            let _ = stream.write_all(b"220 mail.example.org ESMTP\r\n");
        }
    });
    let refused = register(&occupied);
    assert_explains(&refused, 5, &["cannot be reached"]);
}

#[test]
fn a_port_that_is_taken_and_a_folder_in_use_are_told_by_the_server() {
    let world = World::new(EXECUTABLE);
    let address = &world.server().address;
    let taken = world.rendezvous(&["--data", "other", "serve", "--listen", address]);
    assert_fails(
        &taken,
        3,
        &[address, "stop it, or choose another with --listen"],
    );
    let in_use = world.rendezvous(&["--data", "server", "serve", "--listen", "127.0.0.1:0"]);
    assert_fails(&in_use, 4, &["in use by another server", "--data DIR"]);
    // Neither has harmed the one that runs.
    world.register("alice");
}

#[test]
fn data_of_a_newer_server_is_not_touched() {
    let mut world = World::new(EXECUTABLE);
    world.register("alice");
    let address = world.stop_server();
    let database = world.path("server/rendezvous.db");
    let good = fs::read(&database).unwrap();
    let newer = with_version(&good, 99);
    fs::write(&database, &newer).unwrap();
    let serve = ["--data", "server", "serve", "--listen", &address];
    for command in [&serve[..], &["--data", "server", "account", "list"]] {
        let refused = world.rendezvous(command);
        assert_fails(&refused, 5, &["newer version", "99", "nothing was changed"]);
        assert!(fs::read(&database).unwrap() == newer);
    }
    fs::write(&database, good).unwrap();
    world.serve("server", &["--listen", &address]);
    world.json("alice", &["list"]);
}

#[test]
fn a_damaged_server_does_not_start_and_says_so() {
    let mut world = World::new(EXECUTABLE);
    world.register("alice");
    world.stop_server();
    let serve = ["--data", "server", "serve", "--listen", "127.0.0.1:0"];
    for (name, ways) in [
        ("rendezvous.db", 2),
        ("opaque-setup", 2),
        ("identity.pem", 2),
        // Every 32 bytes are a key.
        ("bucket-key", 1),
    ] {
        let path = world.path("server").join(name);
        let good = fs::read(&path).unwrap();
        let truncated = good[..good.len() / 2].to_vec();
        let garbage = vec![0x5a; good.len()];
        for bad in [truncated, garbage].iter().take(ways) {
            fs::write(&path, bad).unwrap();
            let refused = world.rendezvous(&serve);
            assert_fails(&refused, 6, &[name, "damaged", "restore it from a backup"]);
            assert!(fs::read(&path).unwrap() == *bad, "{name} was changed");
        }
        fs::write(&path, good).unwrap();
    }
    world.serve("server", &[]);
}

// ---- the profile -------------------------------------------------------------------------------

#[test]
fn a_profile_of_a_newer_version_is_not_touched() {
    let world = World::new(EXECUTABLE);
    world.register("alice");
    for name in ["history.db", "profile.toml"] {
        let path = world.path("alice").join(name);
        let good = fs::read(&path).unwrap();
        let newer = if name == "history.db" {
            with_version(&good, 99)
        } else {
            let text = String::from_utf8(good.clone()).unwrap();
            let newer = text.replace("version = 1", "version = 99\nwhat_is_new = true");
            assert_ne!(newer, text);
            newer.into_bytes()
        };
        fs::write(&path, &newer).unwrap();
        for command in [
            &["list"][..],
            &["history"],
            &["send", "bob", "hello"],
            &["status"],
        ] {
            let refused = world.peer("alice", command);
            assert_explains(&refused, 11, &["newer version", name, "99", "upgrade"]);
        }
        assert!(fs::read(&path).unwrap() == newer, "{name}");
        fs::write(&path, good).unwrap();
    }
    world.json("alice", &["list"]);
}

#[test]
fn a_damaged_profile_is_not_made_worse_and_the_file_is_named() {
    let world = World::new(EXECUTABLE);
    world.register("alice");
    for name in ["history.db", "profile.toml", "device-key", "known_servers"] {
        let path = world.path("alice").join(name);
        let good = fs::read(&path).unwrap();
        let truncated = good[..good.len() / 2].to_vec();
        let garbage = vec![0x5a; good.len()];
        for (how, bad) in [("truncated", truncated), ("garbage", garbage)] {
            fs::write(&path, &bad).unwrap();
            let refused = world.peer("alice", &["list"]);
            assert_explains(&refused, 11, &[name, "--profile"]);
            assert!(fs::read(&path).unwrap() == bad, "{name} {how}: changed");
        }
        fs::write(&path, good).unwrap();
    }
    world.json("alice", &["list"]);
}

#[test]
fn a_profile_that_does_not_answer_is_given_up() {
    let world = World::new(EXECUTABLE);
    world.register("alice");
    let lock = File::options()
        .write(true)
        .open(world.path("alice/lock"))
        .unwrap();
    lock.lock().unwrap();
    let refused = world.peer("alice", &["list"]);
    assert_explains(
        &refused,
        11,
        &["in use by another process", "--profile NAME"],
    );
    drop(lock);
    world.json("alice", &["list"]);
    let other = world.enter("alice", "register", "bob", "alice.password");
    assert_explains(&other, 11, &["belongs to alice", "--profile bob"]);
}

#[test]
fn without_a_profile_the_way_to_one_is_told() {
    let world = World::empty(EXECUTABLE);
    for command in [
        &["list"][..],
        &["send", "bob", "hello"],
        &["history"],
        &["status"],
        &["receive"],
    ] {
        let refused = world.peer("nobody", command);
        assert_explains(&refused, 10, &["not set up", "peer register", "peer login"]);
    }
    assert!(!world.path("nobody").exists(), "nothing was made");
    fs::write(world.path("file"), "x").unwrap();
    let refused = world.peer("file", &["list"]);
    assert!([8, 11].contains(&refused.code()), "{refused:?}");
    assert_explains(&refused, refused.code(), &["file"]);
}

#[test]
fn a_profile_that_cannot_be_written_is_named() {
    let world = World::new(EXECUTABLE);
    world.register("alice");
    let set_mode = |mode| {
        let permissions = fs::Permissions::from_mode(mode);
        fs::set_permissions(world.path("alice"), permissions).unwrap();
    };
    set_mode(0o500);
    if File::create(world.path("alice/probe")).is_ok() {
        println!("skipped: this user may write everywhere");
        set_mode(0o700);
        return;
    }
    let refused = world.peer("alice", &["list"]);
    set_mode(0o700);
    assert!([8, 11].contains(&refused.code()), "{refused:?}");
    assert_explains(&refused, refused.code(), &["permissions"]);
    world.json("alice", &["list"]);
}

#[test]
fn an_udp_address_that_cannot_be_had_is_named() {
    let world = World::new(EXECUTABLE);
    world.register("alice");
    let taken = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let refused = world.peer("alice", &["list", "--udp", &address]);
    assert_explains(&refused, 2, &[&address, "--udp"]);
}

#[test]
fn a_screen_that_goes_away_ends_a_command_quietly() {
    let world = World::new(EXECUTABLE);
    world.register("alice");
    let sent: Vec<Value> = (0..20)
        .flat_map(|n| world.json("alice", &["send", "bob", &format!("{n}"), "--no-wait"]))
        .collect();
    assert_eq!(sent.len(), 20);
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    for format in [&["history"][..], &["--json", "history"]] {
        let mut command = world.peer_command("alice", format);
        let ended = command
            .stdout(writer.try_clone().unwrap())
            .output()
            .unwrap();
        assert_eq!(ended.status.code(), Some(0), "{ended:?}");
        assert_eq!(ended.stderr, b"", "{ended:?}");
    }
}

/// A database that says it has another version.
fn with_version(database: &[u8], version: u32) -> Vec<u8> {
    assert!(
        database.starts_with(b"SQLite format 3\0"),
        "the format is SQLite's"
    );
    let mut bytes = database.to_vec();
    bytes[USER_VERSION].copy_from_slice(&version.to_be_bytes());
    bytes
}

#[test]
fn nothing_of_all_this_is_said_by_a_program_that_is_only_asked_for_help() {
    let world = World::empty(EXECUTABLE);
    for line in ["--help", "--version", "send --help"] {
        let words: Vec<_> = line.split(' ').collect();
        let shown = world.peer("nobody", &words);
        assert_eq!((shown.code(), shown.stderr.as_str()), (0, ""), "{line}");
        assert!(!shown.stdout.is_empty());
    }
    assert!(!Path::new(&world.path("nobody")).exists());
}

#[test]
fn a_fingerprint_that_was_mistyped_is_not_called_a_change_and_is_not_kept() {
    let world = World::new(EXECUTABLE);
    let file = world.password_file("alice", &password_of("alice"));
    let address = world.server().address.clone();
    let right = world.server().fingerprint.clone();
    let wrong = "SHA256:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
    let register = |fingerprint: &str| {
        let fixed = [
            "register",
            "alice",
            "--server",
            &address,
            "--password-file",
            &file,
        ];
        world.peer(
            "alice",
            &[&fixed[..], &["--fingerprint", fingerprint]].concat(),
        )
    };
    let refused = register(wrong);
    assert_explains(&refused, 6, &[wrong, &right]);
    assert!(!refused.stderr.contains("CHANGED"), "{}", refused.stderr);
    // Where a person types the password, it is said before that. Nobody is there to be asked here.
    for how in ["register", "login"] {
        let typed = [how, "alice", "--server", &address, "--fingerprint", wrong];
        assert_explains(&world.peer("alice", &typed), 6, &[wrong, &right]);
    }
    let registered = register(&right);
    assert_eq!(registered.code(), 0, "{registered:?}");
}
