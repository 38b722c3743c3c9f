//! The control connection of the real server, met by peers that do not keep to the protocol, and by
//! some that try what they must not.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::mem::discriminant;
use std::net::{Shutdown, TcpStream};
use std::process::{Command, Stdio};
use std::time::Duration;

use common::key::{ChannelBinding, DeviceSecret, Token};
use common::limits::UNAUTHENTICATED_PER_SOURCE_MAX;
use common::password::PasswordError;
use common::wire::rendezvous::{
    Answer, DeviceAnswer, DeviceRequest, DirectoryAnswer, DirectoryRequest, DirectoryVersion,
    IdentityRequest, IntroductionRequest, LoginAnswer, LoginRequest, OpaqueMessage, Refusal,
    Request, Status, TokenLogin,
};
use rustls::NamedGroup;
use tests::program::{Program, Running};
use tests::wire_client::{Entry, WireClient, device, is_refused, name, tcp};
use tests::world::{PATIENCE, World, assert_explains, password_of, run, text, until};

const EXECUTABLE: &str = env!("CARGO_BIN_EXE_demo");

// ---- what is no protocol -----------------------------------------------------------------------

#[test]
fn t16_t20_t28_nonsense_on_the_wire_disturbs_nobody_and_is_not_worth_a_line_in_the_log() {
    let mut world = World::new(EXECUTABLE);
    world.register("alice");
    let id = world.server().running.id();
    let _alice = world.receive("alice");

    // Silence, for as long as the test lasts.
    let half_open: Vec<TcpStream> = (0..20).map(|_| tcp(world.server())).collect();
    let handshake_only = WireClient::shake(world.server());

    for garbage in [
        &[0xff; 4096][..],
        b"GET / HTTP/1.1\r\n\r\n",
        &[22, 3, 1, 0xff, 0xff],
        &[0],
    ] {
        let mut socket = tcp(world.server());
        // The server may hang up before all is written.
        let _ = socket.write_all(garbage);
        let _ = socket.shutdown(Shutdown::Write);
        assert!(ends(&mut socket), "{garbage:?}");
    }
    is_served(&world);

    let longest = u32::MAX.to_be_bytes();
    let just_too_long = (64 * 1024 + 1_u32).to_be_bytes();
    let nonsense = [&[0, 0, 0, 8][..], &[0xee; 8]].concat();
    let empty = [0; 4];
    for bytes in [&longest[..], &just_too_long, &nonsense, &empty] {
        let mut client = WireClient::connect(world.server());
        client.write(bytes).unwrap();
        let last_words = client.read_to_end().unwrap();
        assert!(!last_words.is_empty(), "it is told why: {bytes:?}");
        let mut ungreeted = WireClient::shake(world.server());
        ungreeted.write(bytes).unwrap();
        ungreeted.read_to_end().unwrap();
    }
    let mut truncated = WireClient::connect(world.server());
    truncated.write(&[0, 0, 1, 0, 5]).unwrap();
    drop(truncated);
    is_served(&world);

    for round in 0..500 {
        let mut socket = tcp(world.server());
        if round % 2 == 0 {
            // It may have been refused already: too many from one source.
            let _ = socket.write_all(&[22, 3, 1, 2, 0, 1, 0, 1]);
        }
        drop(socket);
        if round % 250 == 0 {
            is_served(&world);
        }
    }
    is_served(&world);
    drop((half_open, handshake_only));

    let mut server = world.take_server();
    assert_eq!(server.running.id(), id);
    assert!(server.running.is_running());
    let ended = server.running.end(PATIENCE).unwrap();
    assert_eq!(ended.code(), 0, "{ended:?}");
    let worth_a_line = |line: &&str| !line.contains("stopping: ");
    let log: Vec<_> = ended.stderr.lines().filter(worth_a_line).collect();
    assert_eq!(log, [""; 0], "nothing above debug");
}

/// A peer logs in and is answered.
fn is_served(world: &World) {
    let listed = world.json("alice", &["list"]);
    assert_eq!(listed.len(), 1, "{listed:?}");
}

/// Reads until the other side ends the connection; `false` if it does not.
fn ends(socket: &mut TcpStream) -> bool {
    match socket.read_to_end(&mut Vec::new()) {
        Ok(_) => true,
        Err(error) => error.kind() == ErrorKind::ConnectionReset,
    }
}

#[test]
fn t21_t28_a_crowd_that_says_nothing_is_bounded_and_keeps_no_session_from_being_served() {
    let world = World::new(EXECUTABLE);
    world.register("alice");
    world.register("bob");
    let _alice = world.receive("alice");
    let mut crowd: Vec<TcpStream> = (0..UNAUTHENTICATED_PER_SOURCE_MAX + 50)
        .map(|_| tcp(world.server()))
        .collect();
    // The last came when there were too many already, the first may stay for a while.
    assert!(ends(crowd.last_mut().unwrap()));
    crowd[0]
        .set_read_timeout(Some(Duration::from_millis(50)))
        .unwrap();
    assert!(!ends(&mut crowd[0]));
    is_served(&world);
    let newcomer = world.peer("bob", &["list"]);
    assert_explains(&newcomer, 5, &["cannot be reached"]);
    drop(crowd);
    until("somebody new is served", PATIENCE, || {
        (world.peer("bob", &["list"]).code() == 0).then_some(())
    });
}

// ---- TLS ---------------------------------------------------------------------------------------

#[test]
fn a_peer_and_the_server_agree_on_a_post_quantum_key() {
    let world = World::new(EXECUTABLE);
    let client = WireClient::connect(world.server());
    let group = client.tls().negotiated_key_exchange_group().unwrap();
    assert_eq!(group.name(), NamedGroup::X25519MLKEM768);
    assert_eq!(
        client.tls().protocol_version(),
        Some(rustls::ProtocolVersion::TLSv1_3)
    );
}

#[test]
fn openssl_completes_a_handshake_in_tls_1_3_only() {
    let world = World::new(EXECUTABLE);
    let connect = |more: &[&str]| {
        let mut command = Command::new("openssl");
        command
            .args(["s_client", "-connect", &world.server().address])
            .args(more)
            .stdin(Stdio::null());
        run(Program::Peer, &mut command)
    };
    if Command::new("openssl").arg("version").output().is_err() {
        println!("skipped: there is no openssl");
        return;
    }
    let done = connect(&["-alpn", "rdv/1", "-tls1_3"]);
    assert!(done.stdout.contains("ALPN protocol: rdv/1"), "{done:?}");
    assert!(done.stdout.contains("TLSv1.3"), "{done:?}");
    for (what, more) in [
        ("an old TLS", &["-alpn", "rdv/1", "-tls1_2"][..]),
        ("another protocol", &["-alpn", "h2", "-tls1_3"]),
    ] {
        let refused = connect(more);
        assert!(
            !refused.stdout.contains("ALPN protocol: rdv/1"),
            "{what}: {refused:?}"
        );
    }
}

// ---- before a log-in ---------------------------------------------------------------------------

#[test]
fn before_a_log_in_nothing_is_answered_but_log_ins() {
    let world = World::new(EXECUTABLE);
    world.register("alice");
    let mut client = WireClient::connect(world.server());
    let nobody = DeviceSecret::from_seed([7; 32]).public();
    let requests = [
        Request::Directory(DirectoryRequest::Announce {
            status: Status::Available,
            candidates: Vec::new(),
        }),
        Request::Directory(DirectoryRequest::List { after: None }),
        Request::Directory(DirectoryRequest::Watch {
            since: DirectoryVersion(0),
        }),
        Request::Directory(DirectoryRequest::Unwatch),
        Request::Directory(DirectoryRequest::Find {
            account: name("alice"),
        }),
        Request::Directory(DirectoryRequest::WhoIs { device_key: nobody }),
        Request::Device(DeviceRequest::Admit),
        Request::Device(DeviceRequest::LogOut),
        Request::Device(DeviceRequest::KeepAlive),
        Request::Device(DeviceRequest::Noted { device_key: nobody }),
        Request::Introduction(IntroductionRequest::Allocate),
        Request::Introduction(IntroductionRequest::Introduce {
            account: name("alice"),
        }),
        Request::Identity(IdentityRequest::Read {
            account: name("alice"),
            after: 0,
        }),
    ];
    for request in requests {
        let answer = client.ask(request.clone());
        assert!(
            is_refused(&answer, Refusal::NotLoggedIn),
            "{request:?}: {answer:?}"
        );
    }
    // The ends of what was not begun.
    let message = OpaqueMessage::try_from(vec![1; 64]).unwrap();
    let answer = client.ask(LoginRequest::LoginFinish { ke3: message });
    assert!(is_refused(&answer, Refusal::OutOfOrder), "{answer:?}");
}

#[test]
fn t27_t32_a_token_is_good_for_its_own_device_and_channel_only() {
    let world = World::new(EXECUTABLE);
    let server = world.server();
    let mut first = WireClient::connect(server);
    assert_eq!(
        first.register("alice", "violet tram at noon"),
        LoginAnswer::Registered.into()
    );
    let token = first.token("alice", &device(1), "violet tram at noon");
    let mut second = WireClient::connect(server);
    let of_second = second.token("alice", &device(2), "violet tram at noon");
    let mut other = WireClient::connect(server);
    assert_eq!(
        other.register("bob", "seven quiet herons"),
        LoginAnswer::Registered.into()
    );
    other.token("bob", &device(3), "seven quiet herons");

    let refused = |answer: Answer, what: &str| {
        assert!(
            is_refused(&answer, Refusal::TokenRefused),
            "{what}: {answer:?}"
        );
    };
    let mut client = WireClient::connect(server);
    refused(
        client.token_login("alice", &device(2), &token),
        "another device of the account",
    );
    refused(
        client.token_login("alice", &device(1), &of_second),
        "and the other way round",
    );
    refused(
        client.token_login("bob", &device(3), &token),
        "another account",
    );
    refused(
        client.token_login("bob", &device(1), &token),
        "the same device, another account",
    );
    refused(
        client.token_login("alice", &device(9), &token),
        "a device that nobody knows",
    );
    refused(
        client.token_login("nobody", &device(1), &token),
        "an account that is not there",
    );
    let made_up = Token::from_bytes([0; 32]);
    refused(
        client.token_login("alice", &device(1), &made_up),
        "a made-up token",
    );

    // The right token and device, with a signature for another channel or by another device.
    let elsewhere = ChannelBinding([9; 32]);
    for (secret, channel) in [(device(1), elsewhere), (device(2), client.channel())] {
        let request = Request::Login(LoginRequest::TokenLogin(TokenLogin {
            account: name("alice"),
            device_key: device(1).public(),
            token: token.clone(),
            signature: WireClient::sign_token("alice", &secret, &token, &channel),
        }));
        refused(client.ask(request), "a signature that does not hold here");
    }
    // None of that has harmed the token.
    let answer = client.token_login("alice", &device(1), &token);
    assert!(
        matches!(answer, Answer::Login(LoginAnswer::LoggedIn(_))),
        "{answer:?}"
    );
    let Answer::Directory(DirectoryAnswer::Page { entries, .. }) =
        client.ask(DirectoryRequest::List { after: None })
    else {
        panic!("no page");
    };
    assert!(
        entries
            .iter()
            .all(|entry| entry.device_key != device(9).public())
    );
}

#[test]
fn t32_a_password_log_in_signed_for_another_channel_has_no_claim_on_a_known_device() {
    let world = World::new(EXECUTABLE);
    let server = world.server();
    let mut owner = WireClient::connect(server);
    assert_eq!(
        owner.register("alice", "violet tram at noon"),
        LoginAnswer::Registered.into()
    );
    owner.token("alice", &device(1), "violet tram at noon");
    block(&world, "alice");

    let mut client = WireClient::connect(server);
    let elsewhere = ChannelBinding([9; 32]);
    let (_, answer) =
        client.login_start_signed("alice", &device(1), "violet tram at noon", None, &elsewhere);
    assert!(is_blocked(&answer), "the lane of strangers: {answer:?}");
    let entry = client.log_in("alice", &device(1), "violet tram at noon");
    assert!(
        matches!(
            entry,
            Entry::Answered(Answer::Login(LoginAnswer::LoggedIn(_)))
        ),
        "{entry:?}"
    );
}

/// Fails to log in to an account until it is blocked for strangers.
fn block(world: &World, account: &str) {
    let mut attacker = WireClient::connect(world.server());
    for _ in 0..5 {
        let (_, answer) = attacker.login_start(account, &device(66), "a wrong guess", None);
        assert!(
            matches!(answer, Answer::Login(LoginAnswer::LoginChallenge { .. })),
            "{answer:?}"
        );
    }
    let (_, answer) = attacker.login_start(account, &device(66), "a wrong guess", None);
    assert!(is_blocked(&answer), "{answer:?}");
}

fn is_blocked(answer: &Answer) -> bool {
    matches!(
        answer,
        Answer::Refused(Refusal::Blocked {
            retry_after_s: 1..=60
        })
    )
}

#[test]
fn t37_a_blocked_account_has_no_other_door() {
    let world = World::new(EXECUTABLE);
    let server = world.server();
    let right = "violet tram at noon";
    let mut owner = WireClient::connect(server);
    assert_eq!(
        owner.register("alice", right),
        LoginAnswer::Registered.into()
    );
    let token = owner.token("alice", &device(1), right);
    block(&world, "alice");

    let mut stranger = WireClient::connect(server);
    let (_, answer) = stranger.login_start("alice", &device(5), right, None);
    assert!(is_blocked(&answer), "the right password: {answer:?}");
    let (_, answer) = stranger.login_start("ALICE", &device(5), right, None);
    assert!(is_blocked(&answer), "another spelling: {answer:?}");
    let code = "00000-00000".parse().unwrap();
    let (_, answer) = stranger.login_start("alice", &device(5), right, Some(code));
    assert!(is_blocked(&answer), "a made-up code: {answer:?}");
    let answer = stranger.register("alice", "a password of the stranger");
    assert!(
        is_refused(&answer, Refusal::AccountExists),
        "re-registration: {answer:?}"
    );
    let answer = stranger.token_login("alice", &device(5), &token);
    assert!(
        is_refused(&answer, Refusal::TokenRefused),
        "a stolen token: {answer:?}"
    );

    // The owner is still in, and gets in again both ways.
    assert_eq!(
        owner.ask(DeviceRequest::KeepAlive),
        DeviceAnswer::Done.into()
    );
    let mut again = WireClient::connect(server);
    let answer = again.token_login("alice", &device(1), &token);
    assert!(
        matches!(answer, Answer::Login(LoginAnswer::LoggedIn(_))),
        "{answer:?}"
    );
    let mut again = WireClient::connect(server);
    let entry = again.log_in("alice", &device(1), right);
    assert!(
        matches!(
            entry,
            Entry::Answered(Answer::Login(LoginAnswer::LoggedIn(_)))
        ),
        "{entry:?}"
    );
}

#[test]
fn t29_t38_names_that_do_not_exist_are_answered_like_those_that_do() {
    let world = World::new(EXECUTABLE);
    let server = world.server();
    let mut owner = WireClient::connect(server);
    assert_eq!(
        owner.register("alice", "violet tram at noon"),
        LoginAnswer::Registered.into()
    );
    let mut shapes = Vec::new();
    for account in ["alice", "nobody"] {
        let mut client = WireClient::connect(server);
        let mut lengths = Vec::new();
        for attempt in 0..7 {
            let (login, answer) = client.login_start(account, &device(5), "a wrong guess", None);
            let kind = discriminant(&answer);
            let shape = if let Answer::Login(LoginAnswer::LoginChallenge { ke2, stretch }) = &answer
            {
                if attempt == 0 {
                    let channel = client.channel();
                    let failed = login.finish(&name(account), ke2, *stretch, &channel);
                    assert_eq!(failed.unwrap_err(), PasswordError::Wrong);
                }
                format!("{} {stretch:?}", ke2.as_bytes().len())
            } else if matches!(answer, Answer::Refused(Refusal::Blocked { .. })) {
                "blocked".to_owned()
            } else {
                format!("{answer:?}")
            };
            lengths.push((kind, shape));
        }
        let finish = OpaqueMessage::try_from(vec![1; 64]).unwrap();
        let answer = client.ask(LoginRequest::LoginFinish { ke3: finish });
        let answer = (discriminant(&answer), format!("{answer:?}"));
        lengths.push(answer);
        shapes.push(lengths);
    }
    assert_eq!(shapes[0], shapes[1]);
    assert_eq!(
        shapes[0]
            .iter()
            .filter(|(_, shape)| shape == "blocked")
            .count(),
        2
    );
}

#[test]
fn t37_closed_registration_is_closed_for_everybody_on_the_wire() {
    let world = World::serving(EXECUTABLE, &["--registration", "closed"]);
    let mut client = WireClient::connect(world.server());
    for account in ["alice", "bob"] {
        let answer = client.register(account, "violet tram at noon");
        assert!(
            is_refused(&answer, Refusal::RegistrationClosed),
            "{answer:?}"
        );
    }
    let listed = world.rendezvous(&["--data", "server", "account", "list", "--json"]);
    assert_eq!(listed.stdout, "");
}

// ---- what the server cannot see ----------------------------------------------------------------

#[test]
fn neither_messages_nor_files_nor_passwords_are_in_the_servers_folder_or_log() {
    let world = World::empty(EXECUTABLE);
    let arguments = [
        "--data",
        "server",
        "serve",
        "--json",
        "--listen",
        "127.0.0.1:0",
    ];
    let mut command = world.programs().command(Program::Rendezvous, arguments);
    let running = Running::start(Program::Rendezvous, command.env("RUST_LOG", "trace")).unwrap();
    let ready = running
        .wait_json("the server", PATIENCE, |line| line["ready"] == true)
        .unwrap();
    for who in ["alice", "bob"] {
        let file = world.password_file(who, &password_of(who));
        let (address, fingerprint) = (text(&ready["address"]), text(&ready["fingerprint"]));
        let arguments = [
            "register",
            who,
            "--server",
            &address,
            "--fingerprint",
            &fingerprint,
            "--password-file",
            &file,
        ];
        assert_eq!(world.peer(who, &arguments).code(), 0);
    }
    let bob = world.receive("bob");
    let secret = "the heron flies at midnight";
    world.json("alice", &["send", "bob", secret]);
    fs::write(world.path("plans.txt"), secret.repeat(100)).unwrap();
    assert_eq!(
        world
            .peer("alice", &["send-file", "bob", "plans.txt"])
            .code(),
        0
    );
    drop(bob);

    let log = running.complaints();
    assert!(
        log.contains("TRACE") || log.contains("DEBUG"),
        "the log is on: {log}"
    );
    let mut seen = vec![("the log".to_owned(), log.into_bytes())];
    for name in world.names_in("server") {
        if let Ok(bytes) = fs::read(world.path("server").join(&name)) {
            seen.push((name, bytes));
        }
    }
    assert!(seen.len() >= 5, "keys and database are looked at");
    for (name, bytes) in seen {
        for needle in [
            secret,
            "plans.txt",
            &password_of("alice"),
            &password_of("bob"),
        ] {
            let needle = needle.as_bytes();
            let is_in = bytes.windows(needle.len()).any(|window| window == needle);
            assert!(!is_in, "{name} holds {:?}", String::from_utf8_lossy(needle));
        }
    }
}
