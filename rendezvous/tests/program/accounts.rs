//! Accounts, and the socket through which the running server is asked for them.

use super::*;

#[test]
fn accounts_are_managed_whether_the_server_runs_or_not() {
    let mut server = Running::start_closed();
    let folder = server.path().to_owned();
    let mut client = server.connect();
    let request = ClientRegistration::start(&password(PASSWORD), [1; 32]).1;
    let closed = client.ask(LoginRequest::RegisterStart {
        account: "eve".parse().unwrap(),
        message: request,
    });
    assert_eq!(closed, Answer::Refused(Refusal::RegistrationClosed));

    add(&folder, "alice");
    client.log_in("alice", &device(1));
    manage(&folder, 1);
    assert_eq!(client.bye(), ByeReason::AccountRemoved);
    server.signal("TERM");
    assert_eq!(server.exit_code(), Some(0));

    add(&folder, "alice");
    manage(&folder, 0);
    add(&folder, "alice");
    let server = server.restart();
    server.connect().log_in("alice", &device(1));
}

/// Goes through all commands on an account 'alice', and leaves none.
fn manage(folder: &Path, sessions: u64) {
    let again = add_with(folder, "Alice", PASSWORD);
    assert_eq!(again.status.code(), Some(7));
    assert!(text(&again.stderr).contains("an account 'alice' already"));
    let listed = run(folder, &["account", "list", "--json"]);
    let line: Value = serde_json::from_str(text(&listed.stdout).trim()).unwrap();
    assert_eq!(line["account"], "alice");
    assert_eq!(line["sessions"], sessions);
    assert_eq!(line["blocked_for_s"], 0);
    let table = run(folder, &["account", "list"]);
    assert!(text(&table.stdout).starts_with("ACCOUNT"));
    assert_eq!(text(&table.stdout).lines().count(), 2);

    let unconfirmed = run(folder, &["account", "remove", "alice"]);
    assert_eq!(unconfirmed.status.code(), Some(1));
    assert!(text(&unconfirmed.stderr).contains("was not removed"));
    for (command, options) in [("unblock", &[][..]), ("admit", &[]), ("remove", &["--yes"])] {
        let output = run(folder, &[&["account", command, "nobody"], options].concat());
        assert_eq!(output.status.code(), Some(7), "{command}");
        assert!(text(&output.stderr).contains("no account 'nobody'"));
        let output = run(folder, &[&["account", command, "alice"], options].concat());
        assert_eq!(output.status.code(), Some(0), "{command}");
    }
    let listed = run(folder, &["account", "list", "--json"]);
    assert_eq!(text(&listed.stdout), "");
}

#[test]
fn an_operator_unblocks_and_admits_on_the_running_server() {
    let server = Running::start();
    add(server.path(), "alice");
    let mut attacker = server.connect();
    for _ in 0..5 {
        attacker.login_start("alice", &device(9), PASSWORD);
    }
    let blocked = attacker.login_start("alice", &device(9), PASSWORD).1;
    assert!(matches!(blocked, Answer::Refused(Refusal::Blocked { .. })));
    let listed = run(server.path(), &["account", "list", "--json"]);
    let line: Value = serde_json::from_str(text(&listed.stdout).trim()).unwrap();
    assert!(line["blocked_for_s"].as_u64().unwrap() > 50);

    let admitted = run(server.path(), &["account", "admit", "alice"]);
    let shown = text(&admitted.stdout);
    let code = shown.trim().rsplit(' ').next().unwrap();
    let mut client = server.connect();
    client.code = Some(code.parse().unwrap());
    client.log_in("alice", &device(2));

    let unblocked = run(server.path(), &["account", "unblock", "alice"]);
    assert_eq!(unblocked.status.code(), Some(0));
    // The owner's success took back what the same address had failed before.
    let said = text(&unblocked.stdout);
    assert!(said.starts_with("'alice' was not blocked"), "{said}");
    server.connect().log_in("alice", &device(3));
}

/// Five guesses each at an account and at a name without one; then both are unblocked twice.
fn unblock_both(folder: &Path) -> [String; 4] {
    [("alice", 0), ("nobody", 7)]
        .map(|(account, again)| {
            let arguments = ["account", "unblock", account];
            let first = run(folder, &arguments);
            assert_eq!(first.status.code(), Some(0), "{first:?}");
            let second = run(folder, &arguments);
            assert_eq!(second.status.code(), Some(again), "{second:?}");
            let second = [text(&second.stdout), text(&second.stderr)].concat();
            [text(&first.stdout).to_owned(), second]
        })
        .concat()
        .try_into()
        .unwrap()
}

#[test]
fn an_operator_hears_what_was_unblocked_whether_the_server_runs_or_not() {
    let mut server = Running::start();
    add(server.path(), "alice");
    let guess = |server: &Running| {
        for account in ["alice", "nobody"] {
            let mut attacker = server.connect();
            for _ in 0..5 {
                attacker.login_start(account, &device(9), PASSWORD);
            }
        }
    };
    guess(&server);
    let running = unblock_both(server.path());
    let words = [
        [
            "'alice' is no longer blocked",
            "5 failed log-ins are forgotten\n",
        ],
        ["'alice' was not blocked", "no failed log-ins to forget\n"],
        [
            "'nobody' is no longer blocked",
            "no account has that name\n",
        ],
        ["no account 'nobody'", "account list"],
    ];
    for (said, words) in running.iter().zip(&words) {
        assert!(words.iter().all(|word| said.contains(word)), "{said}");
    }
    guess(&server);
    server.signal("TERM");
    assert_eq!(server.exit_code(), Some(0));
    let at_rest = unblock_both(server.path());
    for (said, words) in at_rest.iter().zip(&words) {
        assert!(words.iter().all(|word| said.contains(word)), "{said}");
    }
    let server = server.restart();
    for account in ["alice", "nobody"] {
        let answer = server
            .connect()
            .login_start(account, &device(9), PASSWORD)
            .1;
        assert!(matches!(answer, Answer::Login(_)), "{account}: {answer:?}");
    }
}

#[test]
fn passwords_that_cannot_be_are_refused_with_a_word() {
    let data = TempDir::new().unwrap();
    let short = add_with(data.path(), "alice", "short");
    assert_eq!(short.status.code(), Some(1));
    assert!(text(&short.stderr).contains("at least 8 characters"));
    let tab = add_with(data.path(), "alice", "correct\thorse");
    assert_eq!(tab.status.code(), Some(1));
    assert!(text(&tab.stderr).contains("control character"));
    let args = ["account", "add", "alice", "--password-file", "/nowhere"];
    let missing = run(data.path(), &args);
    assert_eq!(missing.status.code(), Some(8));
    let stderr = text(&missing.stderr);
    assert!(stderr.contains("/nowhere") && stderr.contains("--password-file"));
    assert!(!stderr.contains("start the server once"), "{stderr}");
    let typed = program(data.path(), &["account", "add", "alice", "secret"])
        .output()
        .unwrap();
    assert_eq!(typed.status.code(), Some(2), "never as an argument");
}

/// A request of an operator's program.
const LIST_ACCOUNTS: &[u8] =
    b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"list_accounts\",\"params\":{\"after\":null}}\n";

#[test]
fn garbage_on_the_admin_socket_is_answered_and_harmless() {
    let server = Running::start();
    let path = server.path().join("admin.sock");
    let mut garbled = std::os::unix::net::UnixStream::connect(&path).unwrap();
    garbled.set_read_timeout(Some(DEADLINE)).unwrap();
    let mut answers = BufReader::new(garbled.try_clone().unwrap()).lines();
    for (garbage, code) in [
        ("\n", -32700),
        ("{}\n", -32600),
        (
            "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"list\"}x\n",
            -32700,
        ),
        (
            "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"list\"}\n",
            -32601,
        ),
        ("\u{0}\n", -32700),
    ] {
        garbled.write_all(garbage.as_bytes()).unwrap();
        let answer = answers.next().unwrap().unwrap();
        assert!(answer.contains(&format!("\"code\":{code}")), "{answer}");
    }
    // What is no line at all ends the connection.
    let endless = vec![b'x'; ADMIN_LINE_LEN_MAX + 2];
    // The server may hang up before it has read all of it.
    let _ = garbled.write_all(&endless);
    let answer = answers.next().unwrap().unwrap();
    assert!(answer.contains("-32600"), "{answer}");
    assert!(answers.next().is_none_or(|line| line.is_err()));
    let mut several = std::os::unix::net::UnixStream::connect(&path).unwrap();
    several.set_read_timeout(Some(DEADLINE)).unwrap();
    several.write_all(LIST_ACCOUNTS).unwrap();
    several
        .write_all(b"{\"jsonrpc\":\"2.0\",\"id\":2,\"method\":\"unblock\",\"params\":{\"account\":\"x\"}}\n")
        .unwrap();
    let mut lines = BufReader::new(several).lines();
    assert!(lines.next().unwrap().unwrap().contains("\"accounts\""));
    assert!(lines.next().unwrap().unwrap().contains("\"not_found\""));
    add(server.path(), "alice");
}

#[test]
fn t21_operators_that_say_nothing_are_bounded_and_make_room_when_they_leave() {
    let server = Running::start();
    let path = server.path().join("admin.sock");
    let connect = || {
        let socket = std::os::unix::net::UnixStream::connect(&path).unwrap();
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
        socket
    };
    let mut silent: Vec<_> = (0..ADMIN_CLIENTS_MAX).map(|_| connect()).collect();
    // One too many is told so, and nothing is read from it.
    let mut turned_away = String::new();
    connect().read_to_string(&mut turned_away).unwrap();
    assert!(turned_away.contains("\"too_many\""), "{turned_away}");
    let refused = program(server.path(), &["account", "list"])
        .output()
        .unwrap();
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    let stderr = text(&refused.stderr);
    assert!(stderr.contains("too many clients at once"), "{stderr}");
    assert!(stderr.contains("wait a moment"), "{stderr}");
    // Those who log in notice nothing of it.
    let mut client = server.connect();
    let answer = client.ask(DeviceRequest::KeepAlive);
    assert_eq!(answer, Answer::Refused(Refusal::NotLoggedIn));
    // Half a line is not a line, and whoever leaves makes room.
    silent[0].write_all(b"{\"jsonrpc\":").unwrap();
    drop(silent.pop());
    let mut stranger = silent.pop().unwrap();
    stranger.write_all(LIST_ACCOUNTS).unwrap();
    let mut answer = String::new();
    BufReader::new(stranger).read_line(&mut answer).unwrap();
    assert!(answer.contains("\"accounts\""), "{answer}");
    let mut tries = (0..1000).map(|_| {
        let mut list = program(server.path(), &["account", "list"]);
        list.output().unwrap().status.success()
    });
    assert!(tries.any(|is_served| is_served), "no room for a newcomer");
}

#[test]
fn a_command_that_comes_without_a_descriptor_left_is_answered_later() {
    let data = TempDir::new().unwrap();
    let path = data.path().join("admin.sock");
    let server = Running::limited("-n 64", data);
    let logged = |what: &str| {
        let mut lines = std::iter::repeat_with(|| server.errors.recv_timeout(DEADLINE).unwrap());
        assert!(lines.any(|line| line.contains(what)));
    };
    let crowd: Vec<_> = (0..120).map(|_| server.tcp()).collect();
    logged("cannot accept connections");
    let mut socket = std::os::unix::net::UnixStream::connect(path).unwrap();
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    socket.write_all(LIST_ACCOUNTS).unwrap();
    logged("cannot accept clients of the socket");
    drop(crowd);
    let mut answer = String::new();
    BufReader::new(socket).read_line(&mut answer).unwrap();
    assert!(answer.contains("\"accounts\""), "{answer}");
}

#[test]
fn the_soft_limit_of_descriptors_is_raised_to_the_hard_one() {
    let data = TempDir::new().unwrap();
    let server = Running::limited("-S -n 64", data);
    let limits = fs::read_to_string(format!("/proc/{}/limits", server.child.id())).unwrap();
    let line = limits
        .lines()
        .find(|line| line.starts_with("Max open files"));
    let words: Vec<_> = line.unwrap().split_whitespace().collect();
    assert_eq!(words[3], words[4], "soft and hard");
    assert_ne!(words[3], "64");
}

#[test]
fn t33_a_crash_leaves_no_core_dump() {
    let server = Running::start();
    let limits = fs::read_to_string(format!("/proc/{}/limits", server.child.id())).unwrap();
    let line = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max core file size"));
    let words: Vec<_> = line.unwrap().split_whitespace().collect();
    assert_eq!(words[..2], ["0", "0"], "soft and hard");
}

#[test]
fn a_data_folder_with_a_long_path_works_too() {
    let data = TempDir::new().unwrap();
    let long = data.path().join("d".repeat(120)).join("e".repeat(120));
    let command = program(&long, &["serve", "--json", "--listen", "127.0.0.1:0"]);
    let mut server = Running::of(command, data);
    add(&long, "alice");
    server.connect().log_in("alice", &device(1));
    server.signal("TERM");
    assert_eq!(server.exit_code(), Some(0));
}

#[test]
fn a_server_that_hangs_is_said_not_to_answer_and_nothing_else_is_printed() {
    let server = Running::start();
    server.signal("STOP");
    let listed = run(server.path(), &["account", "list"]);
    server.signal("CONT");
    assert_eq!(listed.status.code(), Some(1));
    assert_eq!(text(&listed.stdout), "");
    let complaint = text(&listed.stderr);
    assert!(complaint.contains("nothing came for 10 s"), "{complaint}");
}
