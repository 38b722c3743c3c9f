//! How the server starts, ends and comes back, and what it shows.

use super::*;

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
    let arguments = ["serve", "--listen", "127.0.0.1:0", "--stun-port", "0"];
    let mut child = program(data.path(), &arguments).spawn().unwrap();
    let lines = lines_of(child.stdout.take().unwrap());
    let mut screen = Vec::new();
    while screen.len() < 6 {
        screen.push(lines.recv_timeout(DEADLINE).unwrap());
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(screen[0], "rendezvous is ready");
    assert!(screen[1].starts_with("  address      127.0.0.1:"));
    let second = screen[2].strip_prefix("  second port  UDP ");
    let second = second.and_then(|it| it.strip_suffix(", which answers STUN"));
    let second: u16 = second.unwrap().parse().unwrap();
    assert!(second > 0 && !screen[1].ends_with(&format!(":{second}")));
    assert!(screen[3].starts_with("  fingerprint  SHA256:"));
    assert!(screen[4].starts_with("  data folder  "));
    assert!(screen[5].starts_with("  try          peer register --server 127.0.0.1:"));
    assert!(screen[5].contains(" --fingerprint SHA256:"));
}
