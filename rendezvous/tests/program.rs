//! The real program on loopback: its screens, its exit codes, and what it survives.

#![expect(
    clippy::unwrap_used,
    reason = "a helper of a test fails as the test does"
)]

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use common::id::DeviceName;
use common::key::{DeviceSecret, Role, Statement, Token};
use common::limits::{
    ADMIN_CLIENTS_MAX, ADMIN_LINE_LEN_MAX, CONTROL_FRAME_LEN_MAX, SEND_QUEUE_LEN_MAX,
};
use common::password::{ClientLogin, ClientRegistration, Password};
use common::stun;
use common::tls::{ServerTrust, channel_binding, rendezvous_client_config};
use common::wire::frame::{self, FrameBuffer};
use common::wire::rendezvous::{
    Answer, ByeReason, DeviceAnswer, DeviceRequest, DirectoryAnswer, DirectoryRequest, Hello,
    HelloAnswer, LoggedIn, LoginAnswer, LoginRequest, LoginStart, Push, Refusal, Request,
    RequestFrame, RequestId, ServerFrame, Status, TokenLogin,
};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, NamedGroup, StreamOwned};
use serde_json::Value;
use tempfile::TempDir;
use zeroize::Zeroizing;

const PROGRAM: &str = env!("CARGO_BIN_EXE_rendezvous");
const PASSWORD: &str = "correct horse";
/// Whatever takes longer on a busy machine has failed.
const DEADLINE: Duration = Duration::from_secs(30);

// ---- service -----------------------------------------------------------------------------------

#[test]
fn a_peer_registers_logs_in_and_is_listed() {
    let server = Running::start();
    let mut client = server.connect();
    let group = client.stream.conn.negotiated_key_exchange_group();
    assert_eq!(group.unwrap().name(), NamedGroup::X25519MLKEM768);
    client.register("alice", PASSWORD);
    let token = client.log_in("alice", &device(1)).token.unwrap();
    client.announce();
    let Answer::Directory(DirectoryAnswer::Page { entries, next, .. }) =
        client.ask(DirectoryRequest::List { after: None })
    else {
        panic!("no page");
    };
    assert_eq!((entries.len(), next), (1, None));
    assert_eq!(entries[0].account.as_str(), "alice");

    let mut other = server.connect();
    let answer = other.token_login("alice", &device(1), token);
    assert!(
        matches!(answer, Answer::Login(LoginAnswer::LoggedIn(_))),
        "{answer:?}"
    );
    assert_eq!(client.bye(), ByeReason::Replaced);
    assert_eq!(client.read_to_end(), 0, "and then the end");
}

#[test]
fn the_same_port_answers_stun() {
    let server = Running::start();
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    socket.send_to(b"not STUN", server.address).unwrap();
    let request = stun::binding_request(42);
    socket.send_to(&request, server.address).unwrap();
    let mut answer = [0; 1500];
    let (len, from) = socket.recv_from(&mut answer).unwrap();
    assert_eq!(from, server.address);
    let seen = stun::reflexive_address(&answer[..len], 42);
    assert_eq!(seen, Some(socket.local_addr().unwrap()));
    assert!(len <= request.len(), "T13");
    // As other people's clients ask.
    let bare = [&[0, 1, 0, 0], &request[4..20]].concat();
    socket.send_to(&bare, server.address).unwrap();
    let (len, _) = socket.recv_from(&mut answer).unwrap();
    assert_eq!(stun::reflexive_address(&answer[..len], 42), seen);
}

#[test]
fn a_dual_stack_address_serves_both_families() {
    let data = TempDir::new().unwrap();
    let server = Running::start_in(data, &["--listen", "[::]:0"]);
    let mut v4 = server.connect();
    assert_eq!(
        v4.ask(DeviceRequest::KeepAlive),
        Answer::Refused(Refusal::NotLoggedIn)
    );
    let v6 = TcpStream::connect(("::1", server.address.port()));
    if let Ok(socket) = v6 {
        let mut v6 = Client::on(socket, server.config()).unwrap();
        assert_eq!(
            v6.ask(DeviceRequest::KeepAlive),
            Answer::Refused(Refusal::NotLoggedIn)
        );
    }
    let v4 = UdpSocket::bind("127.0.0.1:0").unwrap();
    v4.set_read_timeout(Some(DEADLINE)).unwrap();
    v4.send_to(&stun::binding_request(1), server.address)
        .unwrap();
    let mut answer = [0; 1500];
    let (len, _) = v4.recv_from(&mut answer).unwrap();
    let seen = stun::reflexive_address(&answer[..len], 1);
    assert_eq!(seen, Some(v4.local_addr().unwrap()));
}

#[test]
fn t20_garbage_oversized_truncated_and_half_open_connections_hurt_nobody_else() {
    let server = Running::start();
    let mut witness = server.member("alice", 1);

    let half_open = server.tcp();
    let mut garbage = server.tcp();
    garbage.write_all(&[0xff; 4096]).unwrap();
    assert!(ends(&mut garbage));
    let mut hello_and_gone = server.tcp();
    hello_and_gone.write_all(&[22, 3, 1, 2, 0, 1]).unwrap();
    drop(hello_and_gone);

    let oversized = u32::MAX.to_be_bytes();
    let nonsense = [&[0, 0, 0, 4][..], &[9; 4]].concat();
    let trailing = {
        let mut frame = Vec::new();
        let request = RequestFrame {
            id: RequestId(1),
            request: Request::Device(DeviceRequest::KeepAlive),
        };
        frame::encode::<CONTROL_FRAME_LEN_MAX>(&request, &mut frame).unwrap();
        frame[3] += 1;
        frame.push(0);
        frame
    };
    for bytes in [&oversized[..], &nonsense, &trailing] {
        let mut client = server.connect();
        client.stream.write_all(bytes).unwrap();
        assert_eq!(client.bye(), ByeReason::Malformed);
        assert_eq!(client.read_to_end(), 0);
    }
    let mut before_hello = Client::shake(server.tcp(), server.config()).unwrap();
    before_hello.stream.write_all(&oversized).unwrap();
    assert_eq!(before_hello.read_to_end(), 0);
    let mut truncated = server.connect();
    truncated.stream.write_all(&[0, 0, 1]).unwrap();
    truncated.stream.flush().unwrap();
    truncated.stream.sock.shutdown(Shutdown::Both).unwrap();

    assert_eq!(
        witness.ask(DeviceRequest::KeepAlive),
        DeviceAnswer::Done.into()
    );
    drop(half_open);
}

#[test]
fn t20_every_flipped_byte_of_a_record_ends_that_connection_only() {
    let server = Running::start();
    let mut witness = server.member("alice", 1);
    for position in 0..12 {
        let mut client = server.connect();
        let id = RequestId(1);
        let request = Request::Device(DeviceRequest::KeepAlive);
        let mut plain = Vec::new();
        frame::encode::<CONTROL_FRAME_LEN_MAX>(&RequestFrame { id, request }, &mut plain).unwrap();
        client.stream.conn.writer().write_all(&plain).unwrap();
        let mut record = Vec::new();
        client.stream.conn.write_tls(&mut record).unwrap();
        record[position] ^= 0x40;
        client.stream.sock.write_all(&record).unwrap();
        client.stream.sock.shutdown(Shutdown::Write).unwrap();
        assert!(ends(&mut client.stream.sock), "{position}");
    }
    assert_eq!(
        witness.ask(DeviceRequest::KeepAlive),
        DeviceAnswer::Done.into()
    );
}

#[test]
fn without_our_alpn_there_is_no_session() {
    let server = Running::start();
    for alpn in [Vec::new(), vec![b"h2".to_vec()]] {
        let mut config = ClientConfig::clone(&server.config());
        config.alpn_protocols = alpn;
        let greeted = Client::on(server.tcp(), Arc::new(config));
        assert!(greeted.is_err());
    }
}

#[test]
fn whoever_does_not_read_is_cut_off() {
    let server = Running::start();
    let mut client = server.member("alice", 1);
    client.announce();
    let socket = &client.stream.sock;
    // The server stops reading first, and ends the session that it hears no more.
    socket.set_write_timeout(Some(2 * DEADLINE)).unwrap();
    let mut sent = 0;
    let cut_off = loop {
        let request = Request::Directory(DirectoryRequest::List { after: None });
        if let Err(error) = client.send(request) {
            break error;
        }
        sent += 1;
        assert!(sent < 2_000_000, "the server buffers without end");
    };
    assert!(
        matches!(
            cut_off.kind(),
            io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe
        ),
        "{cut_off}"
    );
    let mut witness = server.member("bob", 2);
    assert_eq!(
        witness.ask(DeviceRequest::KeepAlive),
        DeviceAnswer::Done.into()
    );
}

#[test]
fn a_burst_of_questions_is_answered_as_fast_as_the_answers_are_read() {
    const QUESTIONS: u32 = 8000;
    let server = Running::start();
    let mut client = server.member("alice", 1);
    client.announce();
    let mut burst = Vec::new();
    for number in 0..QUESTIONS {
        let id = RequestId(1_000_000 + number);
        let request = Request::Directory(DirectoryRequest::List { after: None });
        frame::encode::<CONTROL_FRAME_LEN_MAX>(&RequestFrame { id, request }, &mut burst).unwrap();
    }
    client.stream.write_all(&burst).unwrap();
    let mut len = 0;
    for number in 0..QUESTIONS {
        let answer: ServerFrame = client.next().unwrap();
        let ServerFrame::Answer { id, .. } = &answer else {
            panic!("{answer:?}");
        };
        assert_eq!(*id, RequestId(1_000_000 + number));
        let mut bytes = Vec::new();
        frame::encode::<CONTROL_FRAME_LEN_MAX>(&answer, &mut bytes).unwrap();
        len += bytes.len();
    }
    assert!(
        len > SEND_QUEUE_LEN_MAX,
        "a burst of {len} bytes shows nothing"
    );
}

#[test]
fn t28_used_up_descriptors_come_back() {
    let data = TempDir::new().unwrap();
    let line = format!(
        "ulimit -n 64; exec {PROGRAM} --data {} serve --json --listen 127.0.0.1:0",
        data.path().display()
    );
    let mut command = Command::new("sh");
    command.args(["-c", &line]);
    let server = Running::of(command, data);
    let crowd: Vec<_> = (0..120).map(|_| server.tcp()).collect();
    drop(crowd);
    let mut client = server.connect();
    assert_eq!(
        client.ask(DeviceRequest::KeepAlive),
        Answer::Refused(Refusal::NotLoggedIn)
    );
}

// ---- life --------------------------------------------------------------------------------------

#[test]
fn sigterm_says_bye_and_exits_with_0() {
    for signal in ["TERM", "INT"] {
        let mut server = Running::start();
        let mut client = server.member("alice", 1);
        let half_open = server.tcp();
        server.signal(signal);
        assert_eq!(client.bye(), ByeReason::ShuttingDown);
        assert_eq!(client.read_to_end(), 0);
        assert_eq!(server.exit_code(), Some(0));
        drop(half_open);
        assert!(!server.path().join("admin.sock").exists());
    }
}

#[test]
fn t38_kill_9_keeps_accounts_tokens_and_blocks() {
    let mut server = Running::start();
    let mut client = server.connect();
    client.register("alice", PASSWORD);
    let token = client.log_in("alice", &device(1)).token.unwrap();
    // So that nobody is there to be told of the failures yet.
    drop(client);
    server.wait_until_nobody_is_online();
    let mut attacker = server.connect();
    for _ in 0..5 {
        let answer = attacker.login_start("alice", &device(9), PASSWORD).1;
        assert!(matches!(
            answer,
            Answer::Login(LoginAnswer::LoginChallenge { .. })
        ));
    }
    server.signal("KILL");
    assert_eq!(server.exit_code(), None);
    let server = server.restart();
    let mut attacker = server.connect();
    let answer = attacker.login_start("alice", &device(9), PASSWORD).1;
    assert!(
        matches!(
            answer,
            Answer::Refused(Refusal::Blocked {
                retry_after_s: 1..=60
            })
        ),
        "{answer:?}"
    );
    let mut client = server.connect();
    let answer = client.token_login("alice", &device(1), token);
    let Answer::Login(LoginAnswer::LoggedIn(LoggedIn { failed, .. })) = answer else {
        panic!("{answer:?}");
    };
    assert_eq!(failed.unwrap().count, 5);
}

#[test]
fn the_fingerprint_stays_and_is_shown() {
    let mut server = Running::start();
    let shown = run(server.path(), &["fingerprint"]);
    assert_eq!(text(&shown.stdout).trim(), server.fingerprint);
    let before = server.fingerprint.clone();
    server.signal("TERM");
    server.exit_code();
    assert_eq!(server.restart().fingerprint, before);
}

#[test]
fn an_operators_own_certificate_is_shown_instead() {
    let data = TempDir::new().unwrap();
    let pem = data.path().join("own.pem");
    let own = common::tls::ServerIdentity::generate_pem();
    fs::write(&pem, own.as_bytes()).unwrap();
    let identity = common::tls::ServerIdentity::from_pem(own.as_bytes()).unwrap();
    let expected = identity.fingerprint().unwrap().to_string();
    let pem = pem.to_str().unwrap().to_owned();
    let server = Running::start_in(data, &["--certificate", &pem]);
    assert_eq!(server.fingerprint, expected);
    server.connect();
    let refused = run(
        &server.path().join("other"),
        &["serve", "--certificate", "/dev/null"],
    );
    assert_eq!(refused.status.code(), Some(8));
    assert!(text(&refused.stderr).contains("no private key in PEM format"));
    for command in ["serve", "fingerprint"] {
        let other = server.path().join("other");
        let missing = run(&other, &[command, "--certificate", "nix.pem"]);
        assert_eq!(missing.status.code(), Some(8));
        let said = text(&missing.stderr);
        for word in ["certificate file nix.pem", "after --certificate", "chain"] {
            assert!(said.contains(word), "{said}");
        }
    }
}

#[test]
fn people_see_what_to_do_next() {
    let data = TempDir::new().unwrap();
    let mut child = program(data.path(), &["serve", "--listen", "127.0.0.1:0"])
        .spawn()
        .unwrap();
    let lines = lines_of(child.stdout.take().unwrap());
    let mut screen = Vec::new();
    while screen.len() < 5 {
        screen.push(lines.recv_timeout(DEADLINE).unwrap());
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(screen[0], "rendezvous is ready");
    assert!(screen[1].starts_with("  address      127.0.0.1:"));
    assert!(screen[2].starts_with("  fingerprint  SHA256:"));
    assert!(screen[3].starts_with("  data folder  "));
    assert!(screen[4].starts_with("  try          peer register --server 127.0.0.1:"));
    assert!(screen[4].contains(" --fingerprint SHA256:"));
}

// ---- what goes wrong at the start --------------------------------------------------------------

#[test]
fn wrong_usage_is_exit_code_2_with_an_example() {
    let data = TempDir::new().unwrap();
    for (args, example) in [
        (&["serve", "--listen", "nowhere"][..], "serve"),
        (&["account", "add", "X Y"], "account add alice"),
        (&["conquer"], "serve"),
        (&["serve", "--registration", "invite"], "serve"),
    ] {
        let output = run(data.path(), args);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        let example = format!("Example: rendezvous {example}");
        assert!(text(&output.stderr).contains(&example), "{args:?}");
    }
    let help = run(data.path(), &["--help"]);
    assert_eq!(help.status.code(), Some(0));
    assert!(text(&help.stdout).contains("Exit codes:"));
}

#[test]
fn a_port_that_is_taken_is_exit_code_3() {
    let data = TempDir::new().unwrap();
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    for taken in [tcp.local_addr().unwrap(), udp.local_addr().unwrap()] {
        let output = run(data.path(), &["serve", "--listen", &taken.to_string()]);
        assert_eq!(output.status.code(), Some(3));
        let stderr = text(&output.stderr);
        assert!(stderr.contains(&taken.to_string()), "{stderr}");
        assert!(stderr.contains("--listen ADDR:PORT"), "{stderr}");
    }
    let not_ours = run(data.path(), &["serve", "--listen", "192.0.2.1:7400"]);
    assert_eq!(not_ours.status.code(), Some(3));
}

#[test]
fn a_folder_in_use_is_exit_code_4() {
    let server = Running::start();
    let output = run(server.path(), &["serve", "--listen", "127.0.0.1:0"]);
    assert_eq!(output.status.code(), Some(4));
    assert!(text(&output.stderr).contains("is in use by another server"));
    server.connect();
}

#[test]
fn a_newer_database_is_exit_code_5_and_untouched() {
    let data = stopped();
    let path = data.path().join("rendezvous.db");
    let mut bytes = fs::read(&path).unwrap();
    // `user_version` stands at offset 60 of the file (SQLite file format, section 1.3).
    bytes[60..64].copy_from_slice(&99u32.to_be_bytes());
    fs::write(&path, &bytes).unwrap();
    for args in [
        &["serve", "--listen", "127.0.0.1:0"][..],
        &["account", "list"],
    ] {
        let output = run(data.path(), args);
        assert_eq!(output.status.code(), Some(5), "{}", text(&output.stderr));
        let stderr = text(&output.stderr);
        assert!(stderr.contains("schema version 99"), "{stderr}");
        assert_eq!(fs::read(&path).unwrap(), bytes);
    }
}

#[test]
fn a_damaged_data_folder_is_exit_code_6() {
    type Damage<'a> = (&'a str, &'a dyn Fn(&Path));
    let damages: [Damage<'_>; 6] = [
        ("identity.pem", &|path| fs::remove_file(path).unwrap()),
        ("rendezvous.db", &|path| fs::write(path, [7; 8192]).unwrap()),
        ("rendezvous.db", &|path| {
            let mut bytes = fs::read(path).unwrap();
            let end = bytes.len();
            bytes[4096..end].fill(0xaa);
            fs::write(path, bytes).unwrap();
        }),
        ("opaque-setup", &|path| fs::remove_file(path).unwrap()),
        ("opaque-setup", &|path| fs::write(path, [1; 7]).unwrap()),
        ("bucket-key", &|path| fs::write(path, [1; 7]).unwrap()),
    ];
    for (name, damage) in damages {
        let data = stopped();
        damage(&data.path().join(name));
        let output = run(data.path(), &["serve", "--listen", "127.0.0.1:0"]);
        let stderr = text(&output.stderr);
        assert_eq!(output.status.code(), Some(6), "{stderr}");
        assert!(
            stderr.contains(name) && stderr.contains("backup"),
            "{stderr}"
        );
    }
}

#[test]
fn only_serving_and_adding_an_account_make_a_data_folder() {
    let data = TempDir::new().unwrap();
    let missing = data.path().join("missing");
    for folder in [missing.as_path(), data.path()] {
        for args in [
            &["account", "list"][..],
            &["account", "remove", "alice", "--yes"],
            &["account", "unblock", "alice"],
            &["account", "admit", "alice"],
        ] {
            let output = run(folder, args);
            let stderr = text(&output.stderr);
            assert_eq!(output.status.code(), Some(8), "{stderr}");
            assert!(stderr.contains("no server's data"), "{stderr}");
        }
    }
    assert_eq!(fs::read_dir(data.path()).unwrap().count(), 0);
    add(&missing, "alice");
    assert!(run(&missing, &["account", "list"]).status.success());
}

#[test]
fn a_folder_that_cannot_be_made_is_exit_code_8() {
    let data = TempDir::new().unwrap();
    let file = data.path().join("file");
    fs::write(&file, "").unwrap();
    let output = run(&file.join("folder"), &["serve"]);
    assert_eq!(output.status.code(), Some(8), "{}", text(&output.stderr));
}

#[test]
fn t33_files_are_for_their_owner_and_logs_name_nobody() {
    let mut server = Running::start();
    let mut client = server.member("alice", 1);
    for _ in 0..6 {
        let mut attacker = server.connect();
        attacker.login_start("alice", &device(9), PASSWORD);
    }
    assert_eq!(
        client.ask(DeviceRequest::KeepAlive),
        DeviceAnswer::Done.into()
    );
    let mut seen = BTreeMap::new();
    for entry in fs::read_dir(server.path()).unwrap() {
        let entry = entry.unwrap();
        let mode = entry.metadata().unwrap().permissions().mode() & 0o777;
        seen.insert(entry.file_name().into_string().unwrap(), mode);
    }
    assert!(seen.len() >= 6, "{seen:?}");
    assert!(seen.values().all(|mode| *mode == 0o600), "{seen:?}");
    let folder = fs::metadata(server.path()).unwrap().permissions().mode();
    assert_eq!(folder & 0o777, 0o700);
    server.signal("TERM");
    server.exit_code();
    let log = server.log();
    assert!(log.contains("too many failed log-ins"), "{log}");
    for name in ["alice", "127.0.0.1", PASSWORD] {
        assert!(!log.contains(name), "{log}");
    }
}

// ---- accounts ----------------------------------------------------------------------------------

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
    assert!(text(&short.stderr).contains("at least 8 bytes"));
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
    let line = format!(
        "ulimit -n 64; exec {PROGRAM} --data {} serve --json --listen 127.0.0.1:0",
        data.path().display()
    );
    let mut command = Command::new("sh");
    command.args(["-c", &line]);
    let path = data.path().join("admin.sock");
    let server = Running::of(command, data);
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
    let line = format!(
        "ulimit -S -n 64; exec {PROGRAM} --data {} serve --json --listen 127.0.0.1:0",
        data.path().display()
    );
    let mut command = Command::new("sh");
    command.args(["-c", &line]);
    let server = Running::of(command, data);
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

// ---- helpers: the program ----------------------------------------------------------------------

struct Running {
    child: Child,
    data: Option<TempDir>,
    folder: PathBuf,
    address: SocketAddr,
    fingerprint: String,
    errors: mpsc::Receiver<String>,
    args: Vec<String>,
}

impl Running {
    fn start() -> Self {
        Self::start_in(TempDir::new().unwrap(), &[])
    }

    fn start_closed() -> Self {
        Self::start_in(TempDir::new().unwrap(), &["--registration", "closed"])
    }

    fn start_in(data: TempDir, extra: &[&str]) -> Self {
        let mut args = vec!["serve", "--json"];
        if !extra.contains(&"--listen") {
            args.extend(["--listen", "127.0.0.1:0"]);
        }
        args.extend(extra);
        let command = program(&data.path().join("data"), &args);
        let mut this = Self::of(command, data);
        this.args = args.iter().map(|arg| (*arg).to_owned()).collect();
        this
    }

    fn of(mut command: Command, data: TempDir) -> Self {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = lines_of(child.stdout.take().unwrap());
        let errors = lines_of(child.stderr.take().unwrap());
        let Ok(line) = lines.recv_timeout(DEADLINE) else {
            panic!("not ready: {:?}", errors.iter().collect::<Vec<_>>());
        };
        let ready: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(ready["ready"], true);
        Self {
            child,
            folder: data.path().join("data"),
            data: Some(data),
            address: ready["address"].as_str().unwrap().parse().unwrap(),
            fingerprint: ready["fingerprint"].as_str().unwrap().to_owned(),
            errors,
            args: Vec::new(),
        }
    }

    /// Starts again on the same data.
    fn restart(mut self) -> Self {
        let data = self.data.take().unwrap();
        let args: Vec<&str> = self.args.iter().map(String::as_str).collect();
        let command = program(&self.folder, &args);
        let mut this = Self::of(command, data);
        this.args = self.args.clone();
        this
    }

    fn path(&self) -> &Path {
        &self.folder
    }

    fn wait_until_nobody_is_online(&self) {
        for _ in 0..1000 {
            let listed = run(self.path(), &["account", "list", "--json"]);
            if text(&listed.stdout)
                .lines()
                .all(|line| line.contains("\"sessions\":0"))
            {
                return;
            }
        }
        panic!("a session stays");
    }

    fn signal(&self, signal: &str) {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill").args(["-s", signal, &pid]).status();
        assert!(sent.unwrap().success());
    }

    fn exit_code(&mut self) -> Option<i32> {
        self.child.wait().unwrap().code()
    }

    fn log(&self) -> String {
        self.errors.iter().collect::<Vec<_>>().join("\n")
    }

    fn tcp(&self) -> TcpStream {
        let socket = TcpStream::connect(self.address).unwrap();
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
        socket.set_write_timeout(Some(DEADLINE)).unwrap();
        socket
    }

    fn config(&self) -> Arc<ClientConfig> {
        let trust = ServerTrust::Pinned(self.fingerprint.parse().unwrap());
        rendezvous_client_config(&trust).unwrap()
    }

    fn connect(&self) -> Client {
        Client::on(self.tcp(), self.config()).unwrap()
    }

    /// A new account's session that is logged in.
    fn member(&self, account: &str, number: u8) -> Client {
        let mut client = self.connect();
        client.register(account, PASSWORD);
        client.log_in(account, &device(number));
        client
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn program(data: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(PROGRAM);
    command
        .arg("--data")
        .arg(data)
        .args(args)
        .env_remove("RUST_LOG")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

fn run(data: &Path, args: &[&str]) -> Output {
    program(data, args).output().unwrap()
}

fn add(data: &Path, account: &str) {
    let output = add_with(data, account, PASSWORD);
    assert!(output.status.success(), "{}", text(&output.stderr));
}

fn add_with(data: &Path, account: &str, password: &str) -> Output {
    let args = ["account", "add", account, "--password-file", "-"];
    let mut child = program(data, &args).stdin(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(format!("{password}\n").as_bytes()).unwrap();
    drop(stdin);
    child.wait_with_output().unwrap()
}

/// The data folder of a server that ran once.
fn stopped() -> TempDir {
    let data = TempDir::new().unwrap();
    add(data.path(), "alice");
    data
}

fn lines_of(stream: impl Read + Send + 'static) -> mpsc::Receiver<String> {
    let (sender, lines) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    lines
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

/// Reads until the other side ends the connection; `false` if it does not.
fn ends(socket: &mut TcpStream) -> bool {
    match socket.read_to_end(&mut Vec::new()) {
        Ok(_) => true,
        Err(error) => error.kind() == io::ErrorKind::ConnectionReset,
    }
}

// ---- helpers: a peer ---------------------------------------------------------------------------

struct Client {
    stream: StreamOwned<ClientConnection, TcpStream>,
    frames: FrameBuffer<CONTROL_FRAME_LEN_MAX>,
    last_request: u32,
    code: Option<common::wire::rendezvous::AdmissionCode>,
}

impl Client {
    fn shake(socket: TcpStream, config: Arc<ClientConfig>) -> io::Result<Self> {
        socket.set_read_timeout(Some(DEADLINE))?;
        let server_name = ServerName::try_from("rendezvous").unwrap();
        let connection = ClientConnection::new(config, server_name).map_err(io::Error::other)?;
        let mut stream = StreamOwned::new(connection, socket);
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock)?;
        }
        Ok(Self {
            stream,
            frames: FrameBuffer::new(),
            last_request: 0,
            code: None,
        })
    }

    fn on(socket: TcpStream, config: Arc<ClientConfig>) -> io::Result<Self> {
        let mut this = Self::shake(socket, config)?;
        let mut hello = Vec::new();
        frame::encode::<CONTROL_FRAME_LEN_MAX>(&Hello::ours("test"), &mut hello).unwrap();
        this.stream.write_all(&hello)?;
        let answer: HelloAnswer = this.next()?;
        assert!(matches!(answer, HelloAnswer::Welcome { version: 1, .. }));
        Ok(this)
    }

    fn next<T: serde::de::DeserializeOwned>(&mut self) -> io::Result<T> {
        let mut bytes = [0; 4096];
        loop {
            if let Some(frame) = self.frames.next_frame().map_err(io::Error::other)? {
                return Ok(frame);
            }
            match self.stream.read(&mut bytes)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                len => self.frames.push(&bytes[..len]),
            }
        }
    }

    fn send(&mut self, request: impl Into<Request>) -> io::Result<RequestId> {
        self.last_request += 1;
        let id = RequestId(self.last_request);
        let mut bytes = Vec::new();
        frame::encode::<CONTROL_FRAME_LEN_MAX>(
            &RequestFrame {
                id,
                request: request.into(),
            },
            &mut bytes,
        )
        .unwrap();
        self.stream.write_all(&bytes)?;
        Ok(id)
    }

    fn ask(&mut self, request: impl Into<Request>) -> Answer {
        let asked = self.send(request).unwrap();
        loop {
            match self.next::<ServerFrame>().unwrap() {
                ServerFrame::Answer { id, answer } if id == asked => return answer,
                ServerFrame::Answer { .. } | ServerFrame::Push(_) => {}
            }
        }
    }

    fn bye(&mut self) -> ByeReason {
        loop {
            if let ServerFrame::Push(Push::Bye(reason)) = self.next().unwrap() {
                return reason;
            }
        }
    }

    /// Bytes until the orderly end of the stream.
    fn read_to_end(&mut self) -> usize {
        self.stream.read_to_end(&mut Vec::new()).unwrap()
    }

    fn register(&mut self, account: &str, text: &str) {
        let account: common::id::AccountName = account.parse().unwrap();
        let (client, message) = ClientRegistration::start(&password(text), [3; 32]);
        let answer = self.ask(LoginRequest::RegisterStart {
            account: account.clone(),
            message,
        });
        let Answer::Login(LoginAnswer::RegisterChallenge { message }) = answer else {
            panic!("{answer:?}");
        };
        let upload = client.finish(&account, &message).unwrap();
        assert_eq!(
            self.ask(LoginRequest::RegisterFinish {
                upload,
                stretch: common::password::STRETCH_CURRENT
            }),
            LoginAnswer::Registered.into()
        );
    }

    fn login_start(
        &mut self,
        account: &str,
        secret: &DeviceSecret,
        text: &str,
    ) -> (ClientLogin, Answer) {
        let account = account.parse().unwrap();
        let (client, ke1) = ClientLogin::start(&password(text), [4; 32]);
        let signature = secret.sign(&Statement {
            role: Role::PasswordLogin,
            channel_binding: &channel_binding(&self.stream.conn).unwrap(),
            account: &account,
            content: ke1.as_bytes(),
        });
        let start = LoginStart {
            account,
            device_key: secret.public(),
            device_name: DeviceName::lossy("laptop"),
            ke1,
            signature,
            code: self.code,
        };
        let answer = self.ask(LoginRequest::LoginStart(start));
        (client, answer)
    }

    fn log_in(&mut self, account: &str, secret: &DeviceSecret) -> LoggedIn {
        let (client, answer) = self.login_start(account, secret, PASSWORD);
        let Answer::Login(LoginAnswer::LoginChallenge { ke2, stretch }) = answer else {
            panic!("{answer:?}");
        };
        let channel = channel_binding(&self.stream.conn).unwrap();
        let ke3 = client
            .finish(&account.parse().unwrap(), &ke2, stretch, &channel)
            .unwrap();
        let answer = self.ask(LoginRequest::LoginFinish { ke3 });
        let Answer::Login(LoginAnswer::LoggedIn(logged_in)) = answer else {
            panic!("{answer:?}");
        };
        logged_in
    }

    fn token_login(&mut self, account: &str, secret: &DeviceSecret, token: Token) -> Answer {
        let account = account.parse().unwrap();
        let signature = secret.sign(&Statement {
            role: Role::TokenLogin,
            channel_binding: &channel_binding(&self.stream.conn).unwrap(),
            account: &account,
            content: token.as_bytes(),
        });
        let device_key = secret.public();
        self.ask(LoginRequest::TokenLogin(TokenLogin {
            account,
            device_key,
            token,
            signature,
        }))
    }

    fn announce(&mut self) {
        let candidates = (1..=16)
            .map(|host| SocketAddr::from(([192, 0, 2, host], 4000)))
            .collect();
        let announce = Request::Directory(DirectoryRequest::Announce {
            status: Status::Available,
            candidates,
        });
        assert_eq!(self.ask(announce), DirectoryAnswer::Done.into());
    }
}

fn device(number: u8) -> DeviceSecret {
    DeviceSecret::from_seed([number; 32])
}

fn password(text: &str) -> Password {
    Password::new(Zeroizing::new(text.to_owned())).unwrap()
}
