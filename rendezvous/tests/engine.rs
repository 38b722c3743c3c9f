//! The engine alone: inputs in, outputs out, no sockets. Log-ins are real OPAQUE.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use common::id::{AccountName, DeviceName};
use common::key::{ChannelBinding, DeviceKey, DeviceSecret, Role, Statement, Token};
use common::limits::{
    BLOCK_FIRST, DEVICES_PER_ACCOUNT_MAX, LOGIN_DEADLINE, LOGINS_IN_PROGRESS_MAX, PAGE_ENTRIES_MAX,
    PRESENCE_LOG_MAX, REGISTRATIONS_PER_SOURCE_HOUR_MAX, REQUESTS_OPEN_MAX, SESSION_IDLE_MAX,
    SOURCE_FAILURES_MAX, TOKEN_LIFETIME, TOKEN_RENEW_AFTER, UNAUTHENTICATED_PER_SOURCE_MAX,
};
use common::password::{
    ClientLogin, ClientRegistration, Password, PasswordRecord, STRETCH_CURRENT, ServerSetup,
    make_record,
};
use common::time::{Epoch, UnixTime};
use common::wire::rendezvous::{
    AdmissionCode, Answer, ByeReason, Change, Cursor, DirectoryVersion, Entry, FailedLogins, Hello,
    HelloAnswer, LoggedIn, LoginStart, OpaqueMessage, Push, Refusal, Request, RequestFrame,
    RequestId, ServerFrame, Status, TokenLogin,
};
use rendezvous::server::lockout::{BucketKey, Subject};
use rendezvous::server::operator::{Command, CommandId, Reply};
use rendezvous::server::registration::Registration;
use rendezvous::server::{
    CloseReason, ConnectionId, Frame, Input, Output, Server, ServerOptions, Ticket,
};
use rendezvous::store::memory::MemoryStore;
use rendezvous::store::{Device, Restored, Store, StoreAnswer, StoreError, StoreRequest};
use zeroize::Zeroizing;

const HOME: &str = "198.51.100.1:40000";
const AWAY: &str = "203.0.113.9:40000";
const PASSWORD: &str = "correct horse";

// ---- registration ------------------------------------------------------------------------------

#[test]
fn somebody_registers_logs_in_announces_and_is_found() {
    let mut world = World::new();
    let laptop = device(1);
    let c = world.connect(HOME);
    let done = world.register(c, "alice", PASSWORD);
    assert_eq!(done, Answer::Done);
    let LoggedIn { token, failed } = world.log_in(c, "alice", &laptop);
    assert!(token.is_some());
    assert_eq!(failed, None);
    let candidates = vec![addr("192.0.2.1:4000"), addr("127.0.0.1:22")];
    let announce = Request::Announce {
        status: Status::Away,
        candidates,
    };
    assert_eq!(world.ask(c, announce), Answer::Done);
    let found = world.ask(c, find("alice"));
    let Answer::Found { entries } = found else {
        panic!("{found:?}");
    };
    assert_eq!(entries.len(), 1);
    assert_eq!(entries[0].candidates, [addr("192.0.2.1:4000")], "T22");
    assert_eq!(entries[0].status, Status::Away);
    let owner = Answer::Owner {
        account: Some(name("alice")),
    };
    let device_key = laptop.public();
    assert_eq!(world.ask(c, Request::WhoIs { device_key }), owner);
    world.disconnect(c);
    let other = world.member("bob", 2, HOME);
    assert_eq!(
        world.ask(other, Request::WhoIs { device_key }),
        owner,
        "offline"
    );
    let device_key = device(99).public();
    assert_eq!(
        world.ask(other, Request::WhoIs { device_key }),
        Answer::Owner { account: None }
    );
}

#[test]
fn a_name_is_registered_once_and_reserved_only_at_the_end() {
    let mut world = World::new();
    let (first, second) = (world.connect(HOME), world.connect(AWAY));
    let one = world.register_start(first, "alice", PASSWORD);
    let two = world.register_start(second, "alice", "another password");
    assert_eq!(world.register_finish(second, "alice", two), Answer::Done);
    let late = world.register_finish(first, "alice", one);
    assert_eq!(late, refused(Refusal::AccountExists));
    let request = ClientRegistration::start(&password(PASSWORD), [1; 32]).1;
    let again = world.ask(first, register_start("alice", request));
    assert_eq!(again, refused(Refusal::AccountExists));
}

#[test]
fn registration_can_be_closed_and_is_limited() {
    let mut world = World::with(|options| options.registration = Registration::Closed);
    let c = world.connect(HOME);
    let request = ClientRegistration::start(&password(PASSWORD), [1; 32]).1;
    let closed = world.ask(c, register_start("alice", request.clone()));
    assert_eq!(closed, refused(Refusal::RegistrationClosed));

    let mut world = World::new();
    let c = world.connect(HOME);
    for number in 0..REGISTRATIONS_PER_SOURCE_HOUR_MAX {
        let account = format!("user{number}");
        let challenge = world.ask(c, register_start(&account, request.clone()));
        assert!(matches!(challenge, Answer::RegisterChallenge { .. }));
        let upload = OpaqueMessage::try_from(record("alice").as_bytes().to_vec()).unwrap();
        let done = world.ask(c, Request::RegisterFinish { upload });
        assert_eq!(done, Answer::Done);
    }
    let limited = world.ask(c, register_start("late", request));
    assert!(
        matches!(
            limited,
            Answer::Refused(Refusal::RegistrationLimit { retry_after_s: 1.. })
        ),
        "{limited:?}"
    );
}

// ---- lock-out ----------------------------------------------------------------------------------

#[test]
fn t38_five_wrong_passwords_block_strangers_and_not_the_owners_device() {
    let mut world = World::new();
    let laptop = world.enrolled("alice", 1);
    let stranger = world.connect(AWAY);
    for attempt in 0..5 {
        let started = world.login_start(stranger, "alice", &device(50 + attempt), None);
        assert!(matches!(started, Answer::LoginChallenge { .. }));
    }
    let blocked = world.login_start(stranger, "alice", &device(60), None);
    assert_eq!(blocked, refused(Refusal::Blocked { retry_after_s: 60 }));
    // From everywhere, even with the right password.
    let elsewhere = world.connect("192.0.2.77:1");
    let blocked = world.login_start(elsewhere, "alice", &device(61), None);
    assert_eq!(blocked, refused(Refusal::Blocked { retry_after_s: 60 }));
    let home = world.connect(HOME);
    world.disconnect(stranger);
    let LoggedIn { failed, .. } = world.log_in(home, "alice", &laptop);
    let failed = failed.unwrap();
    assert_eq!((failed.count, failed.blocked_for_s), (5, 60));
    let again = world.connect(HOME);
    assert_eq!(world.log_in(again, "alice", &laptop).failed, None, "told");
    world.advance(BLOCK_FIRST);
    let late = world.connect(AWAY);
    let started = world.login_start(late, "alice", &device(62), None);
    assert!(matches!(started, Answer::LoginChallenge { .. }));
}

#[test]
fn t38_a_wrong_password_is_refused_and_counted_once() {
    let mut world = World::new();
    world.add("alice");
    let c = world.connect(AWAY);
    let wrong = world.try_password(c, "alice", &device(3), "battery staple");
    assert_eq!(wrong, refused(Refusal::WrongCredentials));
    assert_eq!(world.failures("alice"), 1);
    let LoggedIn { failed, .. } = world.log_in(c, "alice", &device(3));
    assert_eq!(failed.unwrap().count, 1);
    assert_eq!(world.failures("alice"), 0, "its own source");
}

#[test]
fn t38_the_count_is_durable_before_the_peer_learns_anything() {
    let mut world = World::new();
    world.add("alice");
    let c = world.connect(AWAY);
    world.hold_store = true;
    world.send(
        c,
        login_start(&world.exporter(c), "alice", &device(3), None),
    );
    assert!(world.inbox(c).is_empty());
    let load = world.held.pop_front().unwrap();
    world.answer_store(load);
    assert!(
        world.inbox(c).is_empty(),
        "OPAQUE is done, the store is not"
    );
    let save = world.held.pop_front().unwrap();
    assert!(matches!(save.1, StoreRequest::SaveLockout { .. }));
    world.answer_store(save);
    assert_eq!(world.inbox(c).len(), 1);
}

#[test]
fn t38_attempts_at_the_same_moment_are_never_more_than_the_limit() {
    let mut world = World::new();
    world.add("alice");
    let connections: Vec<_> = (0..20)
        .map(|number| world.connect(&format!("203.0.113.{number}:9")))
        .collect();
    world.hold_store = true;
    for c in &connections {
        world.send(
            *c,
            login_start(&world.exporter(*c), "alice", &device(3), None),
        );
    }
    world.hold_store = false;
    while let Some(held) = world.held.pop_front() {
        world.answer_store(held);
    }
    let answers = connections.iter().map(|c| world.inbox(*c));
    let challenged = answers
        .filter(|inbox| {
            matches!(
                inbox.front(),
                Some(ServerFrame::Answer {
                    answer: Answer::LoginChallenge { .. },
                    ..
                })
            )
        })
        .count();
    assert_eq!(challenged, 5);
}

#[test]
fn t38_unknown_names_look_like_accounts() {
    let mut world = World::new();
    world.add("alice");
    let mut seen = Vec::new();
    for account in ["alice", "nobody"] {
        let before = world.store.writes();
        let mut lengths = Vec::new();
        for attempt in 0..7 {
            let c = world.connect(&format!("203.0.113.{attempt}:9"));
            let answer = world.login_start(c, account, &device(3), None);
            lengths.push(match answer {
                Answer::LoginChallenge { ke2, stretch } => (ke2.as_bytes().len(), stretch.0),
                Answer::Refused(Refusal::Blocked { retry_after_s }) => {
                    (0, u8::try_from(retry_after_s).unwrap())
                }
                other => panic!("{other:?}"),
            });
        }
        seen.push((lengths, world.store.writes() - before));
    }
    assert_eq!(seen[0], seen[1]);
    assert_eq!(seen[0].0[5..], [(0, 60), (0, 60)]);
    assert_eq!(seen[0].1, 5, "one for each attempt that counts");

    let c = world.connect(HOME);
    let wrong = world.try_password(c, "nobody2", &device(3), PASSWORD);
    assert_eq!(wrong, refused(Refusal::WrongCredentials));
}

#[test]
fn t38_a_restart_keeps_the_block_of_accounts_and_of_unknown_names() {
    let mut world = World::new();
    let laptop = world.enrolled("alice", 1);
    for account in ["alice", "nobody"] {
        let c = world.connect(AWAY);
        for _ in 0..5 {
            world.login_start(c, account, &device(3), None);
        }
    }
    world.restart(Duration::from_secs(10));
    for account in ["alice", "nobody"] {
        let c = world.connect("192.0.2.200:1");
        let blocked = world.login_start(c, account, &device(4), None);
        assert_eq!(blocked, refused(Refusal::Blocked { retry_after_s: 50 }));
    }
    let home = world.connect(HOME);
    let LoggedIn { failed, .. } = world.log_in(home, "alice", &laptop);
    assert_eq!(failed.unwrap().count, 5, "also those nobody saw the end of");
}

#[test]
fn t38_an_owners_success_does_not_clear_an_attackers_count() {
    let mut world = World::new();
    world.add("alice");
    let attacker = world.connect(AWAY);
    for _ in 0..4 {
        world.login_start(attacker, "alice", &device(3), None);
    }
    let home = world.connect(HOME);
    world.log_in(home, "alice", &device(1));
    assert_eq!(world.failures("alice"), 4);
    world.login_start(attacker, "alice", &device(3), None);
    let blocked = world.login_start(attacker, "alice", &device(3), None);
    assert_eq!(blocked, refused(Refusal::Blocked { retry_after_s: 60 }));
}

#[test]
fn t38_one_source_cannot_try_a_password_on_every_name() {
    let mut world = World::new();
    world.add("alice");
    let laptop = world.enrolled("bob", 2);
    let attacker = world.connect(AWAY);
    for number in 0..SOURCE_FAILURES_MAX {
        let started = world.login_start(attacker, &format!("user{number}"), &device(3), None);
        assert!(matches!(started, Answer::LoginChallenge { .. }));
    }
    let blocked = world.login_start(attacker, "alice", &device(3), None);
    assert_eq!(blocked, refused(Refusal::Blocked { retry_after_s: 60 }));
    let neighbour = world.connect("203.0.113.9:41000");
    world.log_in(neighbour, "bob", &laptop);
    let elsewhere = world.connect(HOME);
    world.log_in(elsewhere, "alice", &device(5));
}

#[test]
fn t38_the_owner_is_told_at_once_but_not_for_every_single_failure() {
    let mut world = World::new();
    let owner = world.member("alice", 1, HOME);
    let attacker = world.connect(AWAY);
    for _ in 0..4 {
        world.login_start(attacker, "alice", &device(3), None);
    }
    world.disconnect(attacker);
    let told = world.failed_pushes(owner);
    assert_eq!(told, [1], "the first at once, the rest together");
    world.advance(Duration::from_secs(1));
    assert_eq!(world.failed_pushes(owner), [3]);
    assert_eq!(world.failures("alice"), 4, "told is not forgiven");
    world.disconnect(owner);
    let home = world.connect(HOME);
    assert_eq!(world.log_in(home, "alice", &device(1)).failed, None);
}

#[test]
fn a_one_time_code_admits_one_new_device_during_a_block() {
    let mut world = World::new();
    let owner = world.member("alice", 1, HOME);
    world.block("alice");
    let Answer::Admission { code, expires_in_s } = world.ask(owner, Request::Admit) else {
        panic!("no code");
    };
    assert_eq!(expires_in_s, 600);
    let wrong = Some(AdmissionCode::from_random(1));
    let c = world.connect(HOME);
    let blocked = world.login_start(c, "alice", &device(7), wrong);
    assert_eq!(blocked, refused(Refusal::Blocked { retry_after_s: 60 }));
    let started = world.login_start(c, "alice", &device(7), Some(code));
    let done = world.finish(c, "alice", started);
    assert!(matches!(done, Answer::LoggedIn(_)), "{done:?}");
    let again = world.connect(HOME);
    let blocked = world.login_start(again, "alice", &device(8), Some(code));
    assert_eq!(blocked, refused(Refusal::Blocked { retry_after_s: 60 }));

    for _ in 0..4 {
        assert!(matches!(
            world.ask(owner, Request::Admit),
            Answer::Admission { .. }
        ));
    }
    let fifth = world.ask(owner, Request::Admit);
    assert_eq!(fifth, refused(Refusal::LimitExceeded));
}

#[test]
fn an_operators_code_survives_a_restart() {
    let mut world = World::new();
    world.add("alice");
    let Reply::Code { code, .. } = world.command(Command::Admit(name("alice"))) else {
        panic!("no code");
    };
    let nobody = world.command(Command::Admit(name("nobody")));
    assert!(matches!(nobody, Reply::NotFound), "{nobody:?}");
    world.block("alice");
    world.restart(Duration::from_secs(1));
    let c = world.connect(HOME);
    let started = world.login_start(c, "alice", &device(7), Some(code));
    assert!(matches!(started, Answer::LoginChallenge { .. }));
    world.restart(Duration::from_secs(1));
    let c = world.connect(HOME);
    let blocked = world.login_start(c, "alice", &device(7), Some(code));
    assert!(matches!(blocked, Answer::Refused(Refusal::Blocked { .. })));
}

#[test]
fn t37_a_blocked_account_has_no_other_way_in() {
    let mut world = World::new();
    let (laptop, token) = world.token("alice", 1);
    world.block("alice");
    let c = world.connect("192.0.2.33:1");
    let request = ClientRegistration::start(&password(PASSWORD), [1; 32]).1;
    let again = world.ask(c, register_start("alice", request));
    assert_eq!(again, refused(Refusal::AccountExists));
    let upload = OpaqueMessage::try_from(record("alice").as_bytes().to_vec()).unwrap();
    let finish = world.ask(c, Request::RegisterFinish { upload });
    assert_eq!(finish, refused(Refusal::OutOfOrder));
    let resumed = world.token_login(c, "alice", &device(9), token.clone());
    assert_eq!(resumed, refused(Refusal::TokenRefused), "another device");
    let blocked = world.login_start(c, "alice", &device(9), None);
    assert!(matches!(blocked, Answer::Refused(Refusal::Blocked { .. })));
    // A token is not guessing: the owner's device goes on.
    let owner = world.token_login(c, "alice", &laptop, token);
    assert!(matches!(owner, Answer::LoggedIn(_)), "{owner:?}");
}

#[test]
fn an_operator_ends_a_block() {
    let mut world = World::new();
    world.add("alice");
    world.block("alice");
    assert!(matches!(
        world.command(Command::ListAccounts { after: None }),
        Reply::Accounts { accounts, may_have_more: false } if accounts[0].blocked_for_s == 60
    ));
    let reply = world.command(Command::Unblock(name("alice")));
    assert!(matches!(reply, Reply::Done));
    world.restart(Duration::ZERO);
    let c = world.connect(AWAY);
    world.log_in(c, "alice", &device(1));
    let nobody = world.command(Command::Unblock(name("nobody")));
    assert!(matches!(nobody, Reply::NotFound));
}

// ---- signatures and tokens ---------------------------------------------------------------------

#[test]
fn t31_a_key_that_is_only_claimed_is_not_enrolled_even_with_the_password() {
    let mut world = World::new();
    world.add("mallory");
    let victim = world.enrolled("alice", 1);
    let c = world.connect(AWAY);
    let mut start = world.start_message(c, "mallory", &device(66), None);
    start.device_key = victim.public();
    let started = world.ask(c, Request::LoginStart(start));
    assert!(matches!(started, Answer::LoginChallenge { .. }));
    let done = world.finish(c, "mallory", started);
    assert_eq!(done, refused(Refusal::WrongCredentials));
    let owner = world.member("bob", 2, HOME);
    let device_key = victim.public();
    let account = Some(name("alice"));
    assert_eq!(
        world.ask(owner, Request::WhoIs { device_key }),
        Answer::Owner { account }
    );
}

#[test]
fn t32_a_signature_of_another_channel_is_a_strangers() {
    let mut world = World::new();
    let laptop = world.enrolled("alice", 1);
    let first = world.connect(HOME);
    let replayed = world.start_message(first, "alice", &laptop, None);
    world.block("alice");
    let c = world.connect(AWAY);
    let blocked = world.ask(c, Request::LoginStart(replayed));
    assert!(
        matches!(blocked, Answer::Refused(Refusal::Blocked { .. })),
        "identical to a stranger's: {blocked:?}"
    );
}

#[test]
fn t32_a_finish_belongs_to_its_own_start() {
    let mut world = World::new();
    world.add("alice");
    let (one, two) = (world.connect(HOME), world.connect(HOME));
    let ke3 = OpaqueMessage::try_from(vec![1; 64]).unwrap();
    let early = world.ask(one, Request::LoginFinish { ke3: ke3.clone() });
    assert_eq!(early, refused(Refusal::OutOfOrder));

    let started = world.login_start(one, "alice", &device(1), None);
    let crossed = world.ke3(one, "alice", started);
    world.login_start(two, "alice", &device(2), None);
    let wrong = world.ask(
        two,
        Request::LoginFinish {
            ke3: crossed.clone(),
        },
    );
    assert_eq!(wrong, refused(Refusal::WrongCredentials));
    let again = world.ask(two, Request::LoginFinish { ke3: crossed });
    assert_eq!(again, refused(Refusal::OutOfOrder), "one try a start");
}

#[test]
fn t27_a_token_is_good_for_its_device_channel_and_account_only() {
    let mut world = World::new();
    let (laptop, token) = world.token("alice", 1);
    let (other, other_token) = world.token("bob", 2);
    let c = world.connect(AWAY);
    let refusal = refused(Refusal::TokenRefused);
    let stolen = world.token_login(c, "alice", &other, token.clone());
    assert_eq!(stolen, refusal, "another device");
    let crossed = world.token_login(c, "bob", &laptop, token.clone());
    assert_eq!(crossed, refusal, "another account");
    let swapped = world.token_login(c, "alice", &laptop, other_token);
    assert_eq!(swapped, refusal, "another token");
    let elsewhere = world.connect(HOME);
    let message = world.token_message(elsewhere, "alice", &laptop, token.clone());
    let replayed = world.ask(c, Request::TokenLogin(message));
    assert_eq!(replayed, refusal, "another channel");
    let nobody = world.token_login(c, "nobody", &laptop, token.clone());
    assert_eq!(nobody, refusal);
    let own = world.token_login(c, "alice", &laptop, token);
    assert!(matches!(own, Answer::LoggedIn(_)), "{own:?}");
}

#[test]
fn guessing_tokens_is_bounded_by_its_source() {
    let mut world = World::new();
    let (laptop, token) = world.token("alice", 1);
    let c = world.connect(AWAY);
    for guess in 0..SOURCE_FAILURES_MAX {
        let guess = Token::from_bytes([100 + guess as u8; 32]);
        let answer = world.token_login(c, "alice", &laptop, guess);
        assert_eq!(answer, refused(Refusal::TokenRefused));
    }
    let answer = world.token_login(c, "alice", &laptop, Token::from_bytes([99; 32]));
    assert_eq!(answer, refused(Refusal::Blocked { retry_after_s: 60 }));
    let own = world.token_login(c, "alice", &laptop, token);
    assert!(matches!(own, Answer::LoggedIn(_)));
}

#[test]
fn a_token_is_renewed_after_a_day_and_dies_after_thirty() {
    let mut world = World::new();
    let (laptop, token) = world.token("alice", 1);
    let fresh = world.connect(HOME);
    let Answer::LoggedIn(answer) = world.token_login(fresh, "alice", &laptop, token.clone()) else {
        panic!("refused");
    };
    assert_eq!(answer.token, None);
    world.advance(TOKEN_RENEW_AFTER);
    let c = world.connect(HOME);
    let Answer::LoggedIn(answer) = world.token_login(c, "alice", &laptop, token.clone()) else {
        panic!("refused");
    };
    let renewed = answer.token.unwrap();
    let c = world.connect(HOME);
    let old = world.token_login(c, "alice", &laptop, token);
    assert_eq!(old, refused(Refusal::TokenRefused));
    world.advance(TOKEN_LIFETIME);
    let c = world.connect(HOME);
    let expired = world.token_login(c, "alice", &laptop, renewed);
    assert_eq!(expired, refused(Refusal::TokenRefused));
}

#[test]
fn logging_out_forgets_the_device() {
    let mut world = World::new();
    let (laptop, token) = world.token("alice", 1);
    let c = world.connect(HOME);
    world.token_login(c, "alice", &laptop, token.clone());
    assert_eq!(world.ask(c, Request::LogOut), Answer::Done);
    assert_eq!(world.closed.get(&c), Some(&CloseReason::LoggedOut));
    let c = world.connect(HOME);
    let answer = world.token_login(c, "alice", &laptop, token);
    assert_eq!(answer, refused(Refusal::TokenRefused));
}

#[test]
fn an_account_has_so_many_devices() {
    let mut world = World::new();
    for number in 0..DEVICES_PER_ACCOUNT_MAX as u8 {
        world.enrolled("alice", 100 + number);
    }
    let c = world.connect(HOME);
    let started = world.login_start(c, "alice", &device(1), None);
    let full = world.finish(c, "alice", started);
    assert_eq!(full, refused(Refusal::DeviceLimit));
    world.log_in(c, "alice", &device(100));
}

// ---- sessions ----------------------------------------------------------------------------------

#[test]
fn strangers_get_nothing_but_a_log_in() {
    let mut world = World::new();
    let c = world.connect(HOME);
    let device_key = device(1).public();
    let requests = [
        Request::Announce {
            status: Status::Available,
            candidates: Vec::new(),
        },
        Request::List { after: None },
        Request::Watch {
            since: DirectoryVersion(0),
        },
        Request::Unwatch,
        find("alice"),
        Request::WhoIs { device_key },
        Request::Admit,
        Request::LogOut,
        Request::KeepAlive,
    ];
    for request in requests {
        let answer = world.ask(c, request.clone());
        assert_eq!(answer, refused(Refusal::NotLoggedIn), "{request:?}");
    }
    let member = world.member("alice", 1, HOME);
    let start = world.start_message(member, "alice", &device(1), None);
    let again = world.ask(member, Request::LoginStart(start));
    assert_eq!(again, refused(Refusal::OutOfOrder));
}

#[test]
fn an_unknown_version_is_asked_to_upgrade() {
    let mut world = World::new();
    let c = world.accept(HOME);
    let hello = Hello {
        versions: vec![7],
        agent: "future".to_owned(),
    };
    world.input(Input::Greeted {
        connection: c,
        hello,
    });
    assert!(matches!(
        world.greetings.get(&c),
        Some(HelloAnswer::Upgrade { versions, .. }) if *versions == [1]
    ));
    assert_eq!(world.closed.get(&c), Some(&CloseReason::NeedsUpgrade));
}

#[test]
fn a_device_has_one_session() {
    let mut world = World::new();
    let older = world.member("alice", 1, HOME);
    let newer = world.connect(AWAY);
    world.log_in(newer, "alice", &device(1));
    assert_eq!(world.bye(older), Some(ByeReason::Replaced));
    assert_eq!(world.server.member_count(), 1);
    let other = world.connect(HOME);
    world.log_in(other, "alice", &device(2));
    assert_eq!(world.server.member_count(), 2);
}

#[test]
fn t21_whoever_does_not_log_in_is_gone_after_thirty_seconds() {
    let mut world = World::new();
    let shaking = world.accept_only(HOME);
    let ungreeted = world.accept(HOME);
    let stranger = world.connect(HOME);
    world.advance(LOGIN_DEADLINE - Duration::from_secs(1));
    world.ask(stranger, Request::KeepAlive);
    assert!(world.closed.is_empty());
    world.advance(Duration::from_secs(1));
    for c in [shaking, ungreeted, stranger] {
        let why = CloseReason::Said(ByeReason::TimedOut);
        assert_eq!(world.closed.get(&c), Some(&why));
    }
    assert_eq!(world.bye(stranger), Some(ByeReason::TimedOut));
    assert_eq!(world.server.connection_count(), 0);
}

#[test]
fn t25_a_vanished_peer_leaves_the_directory_within_thirty_seconds() {
    let mut world = World::new();
    let vanishing = world.online("alice", 1);
    let staying = world.online("bob", 2);
    world.advance(SESSION_IDLE_MAX - Duration::from_millis(1));
    world.ask(staying, Request::KeepAlive);
    assert_eq!(world.server.directory().len(), 2);
    world.advance(Duration::from_millis(1));
    assert_eq!(world.bye(vanishing), Some(ByeReason::TimedOut));
    assert_eq!(world.server.directory().len(), 1);
    world.advance(SESSION_IDLE_MAX);
    assert_eq!(world.bye(staying), Some(ByeReason::TimedOut));
}

#[test]
fn t28_one_source_cannot_fill_the_server() {
    let mut world = World::new();
    let member = world.member("alice", 1, AWAY);
    for _ in 0..UNAUTHENTICATED_PER_SOURCE_MAX {
        world.accept_only(AWAY);
    }
    let turned_away = world.accept_only(AWAY);
    assert_eq!(world.closed.get(&turned_away), Some(&CloseReason::TooMany));
    let elsewhere = world.connect(HOME);
    world.ask(elsewhere, Request::KeepAlive);
    assert_eq!(world.ask(member, Request::KeepAlive), Answer::Done);
    world.advance(LOGIN_DEADLINE / 2);
    world.ask(member, Request::KeepAlive);
    world.advance(LOGIN_DEADLINE / 2);
    let later = world.connect(AWAY);
    world.ask(later, Request::KeepAlive);
}

#[test]
fn t20_malformed_frames_cost_their_own_session_only() {
    let mut world = World::new();
    let other = world.member("bob", 2, HOME);
    let c = world.connect(HOME);
    world.input(Input::Malformed { connection: c });
    assert_eq!(world.bye(c), Some(ByeReason::Malformed));
    let early = world.accept(HOME);
    world.send(early, Request::KeepAlive);
    assert!(world.closed.contains_key(&early), "a request before Hello");
    let ke1 = world.connect(HOME);
    world.add("alice");
    let mut start = world.start_message(ke1, "alice", &device(1), None);
    start.ke1 = OpaqueMessage::try_from(vec![0xff; 96]).unwrap();
    world.send(ke1, Request::LoginStart(start));
    assert_eq!(world.bye(ke1), Some(ByeReason::Malformed));
    assert_eq!(world.failures("alice"), 1);
    assert_eq!(world.ask(other, Request::KeepAlive), Answer::Done);
    // Inputs about connections that are gone are nothing.
    world.input(Input::Disconnected { connection: ke1 });
    world.send(ke1, Request::KeepAlive);
}

#[test]
fn requests_and_work_are_bounded() {
    let mut world = World::new();
    let c = world.member("alice", 1, HOME);
    let device_key = device(99).public();
    world.hold_store = true;
    for _ in 0..REQUESTS_OPEN_MAX {
        world.send(c, Request::WhoIs { device_key });
    }
    assert!(world.inbox(c).is_empty());
    let one_more = world.ask(c, Request::KeepAlive);
    assert_eq!(one_more, refused(Refusal::LimitExceeded));

    let mut members = 0;
    while world.server.work_count() < LOGINS_IN_PROGRESS_MAX {
        members += 1;
        let source = format!("10.{}.{}.1:9", members / 200, members % 200);
        let c = world.connect(&source);
        world.send(
            c,
            login_start(&world.exporter(c), "alice", &device(3), None),
        );
    }
    let late = world.connect("192.0.2.99:1");
    let busy = world.ask(
        late,
        login_start(&world.exporter(late), "bob", &device(3), None),
    );
    assert_eq!(busy, refused(Refusal::Busy { retry_after_s: 2 }));
    // A member's list is not delayed by any of it (T39).
    world.advance(Duration::ZERO);
    let other = world.held.len();
    assert!(other >= LOGINS_IN_PROGRESS_MAX);
}

#[test]
fn a_store_that_fails_is_said_and_nothing_is_let_in() {
    let mut world = World::new();
    let laptop = world.enrolled("alice", 1);
    let c = world.connect(HOME);
    world.store_fails = true;
    let failed = world.login_start(c, "alice", &laptop, None);
    assert_eq!(failed, refused(Refusal::StoreFailed));
    world.store_fails = false;
    let started = world.login_start(c, "alice", &laptop, None);
    world.store_fails = true;
    let failed = world.finish(c, "alice", started);
    assert_eq!(failed, refused(Refusal::StoreFailed));
    assert_eq!(world.server.member_count(), 0);
    let reply = world.command(Command::RemoveAccount(name("alice")));
    assert!(matches!(reply, Reply::StoreFailed(_)));
    world.store_fails = false;
    world.log_in(c, "alice", &laptop);

    // The store fails for the count while OPAQUE is still at work: its result is nobody's.
    let c = world.connect(HOME);
    world.hold_store = true;
    world.hold_jobs = true;
    world.send(
        c,
        login_start(&world.exporter(c), "alice", &device(8), None),
    );
    let load = world.held.pop_front().unwrap();
    world.answer_store(load);
    let (ticket, _) = world.held.pop_front().unwrap();
    let answer = Err(StoreError::DiskFull);
    world.input(Input::Stored { ticket, answer });
    assert_eq!(world.take_answer(c), refused(Refusal::StoreFailed));
    world.hold_store = false;
    world.send(
        c,
        login_start(&world.exporter(c), "alice", &device(8), None),
    );
    world.run_jobs();
    assert!(matches!(
        world.take_answer(c),
        Answer::LoginChallenge { .. }
    ));
    assert!(world.inbox(c).is_empty());
}

#[test]
fn removing_an_account_ends_its_sessions() {
    let mut world = World::new();
    let c = world.online("alice", 1);
    let bob = world.member("bob", 2, HOME);
    let reply = world.command(Command::RemoveAccount(name("alice")));
    assert!(matches!(reply, Reply::Done));
    assert_eq!(world.bye(c), Some(ByeReason::AccountRemoved));
    let device_key = device(1).public();
    assert_eq!(
        world.ask(bob, Request::WhoIs { device_key }),
        Answer::Owner { account: None }
    );
    let again = world.command(Command::RemoveAccount(name("alice")));
    assert!(matches!(again, Reply::NotFound));
    assert!(world.server.directory().is_empty());
}

#[test]
fn a_log_in_that_meets_the_removal_of_its_account_fails() {
    let mut world = World::new();
    world.add("alice");
    let c = world.connect(HOME);
    let started = world.login_start(c, "alice", &device(1), None);
    world.command(Command::RemoveAccount(name("alice")));
    world.add("alice");
    let done = world.finish(c, "alice", started);
    assert_eq!(done, refused(Refusal::WrongCredentials));
}

#[test]
fn shutdown_says_bye_to_everybody_and_lets_nobody_in() {
    let mut world = World::new();
    let member = world.member("alice", 1, HOME);
    let stranger = world.connect(HOME);
    world.input(Input::Shutdown);
    assert_eq!(world.bye(member), Some(ByeReason::ShuttingDown));
    assert_eq!(world.bye(stranger), Some(ByeReason::ShuttingDown));
    let late = world.accept(HOME);
    assert_eq!(world.closed.get(&late), Some(&CloseReason::TooMany));
}

// ---- directory ---------------------------------------------------------------------------------

#[test]
fn a_thousand_devices_are_listed_in_pages() {
    let mut world = World::new();
    let mut members = Vec::new();
    for number in 0..1000u16 {
        members.push(world.online_with_token(number));
    }
    let asker = members[0];
    let first = world.list(asker);
    assert_eq!(first.entries.len(), 1000);
    assert_eq!(first.pages, 1000usize.div_ceil(PAGE_ENTRIES_MAX));
    assert!(
        first
            .entries
            .is_sorted_by_key(|entry| (entry.account.clone(), entry.device_key))
    );
}

#[test]
fn watchers_get_what_changed_and_nothing_else() {
    let mut world = World::new();
    let watcher = world.online("alice", 1);
    let listed = world.list(watcher);
    let bob = world.online("bob", 2);
    let carol = world.online("carol", 3);
    let since = listed.version;
    assert_eq!(world.ask(watcher, Request::Watch { since }), Answer::Done);
    world.advance(Duration::from_millis(50));
    let (version, changes) = world.changes(watcher);
    assert_eq!(version, world.server.directory().version());
    assert_eq!(online_names(&changes), ["bob", "carol"]);

    world.disconnect(bob);
    world.announce(carol, Status::Busy);
    assert!(world.inbox(watcher).is_empty(), "they wait for others");
    world.advance(Duration::from_millis(50));
    let (_, changes) = world.changes(watcher);
    assert!(
        matches!(&changes[..], [Change::Offline { account, .. }, Change::Online(entry)]
            if account.as_str() == "bob" && entry.status == Status::Busy),
        "{changes:?}"
    );
    world.announce(carol, Status::Busy);
    world.advance(Duration::from_millis(50));
    assert!(world.inbox(watcher).is_empty(), "no news");
    assert_eq!(world.ask(watcher, Request::Unwatch), Answer::Done);
    world.announce(carol, Status::Away);
    world.advance(Duration::from_millis(50));
    assert!(world.inbox(watcher).is_empty());
}

#[test]
fn a_version_that_is_too_old_or_of_another_run_is_listed_again() {
    let mut world = World::new();
    let watcher = world.online("alice", 1);
    let since = world.list(watcher).version;
    let bob = world.online("bob", 2);
    for round in 0..PRESENCE_LOG_MAX {
        let status = [Status::Away, Status::Busy][round % 2];
        world.announce(bob, status);
    }
    let too_old = world.ask(watcher, Request::Watch { since });
    assert_eq!(too_old, refused(Refusal::ListAgain));
    let since = world.server.directory().version();
    assert_eq!(world.ask(watcher, Request::Watch { since }), Answer::Done);
    // Faster than the log is long, without time passing: pushed in between.
    for round in 0..2 * PRESENCE_LOG_MAX {
        let status = [Status::Away, Status::Busy][round % 2];
        world.announce(bob, status);
    }
    world.advance(Duration::from_millis(50));
    let (version, _) = world.changes(watcher);
    assert_eq!(version, world.server.directory().version());

    world.restart(Duration::from_secs(1));
    let watcher = world.connect(HOME);
    world.log_in(watcher, "alice", &device(1));
    let other_run = world.ask(watcher, Request::Watch { since });
    assert_eq!(other_run, refused(Refusal::ListAgain));
}

#[test]
fn the_same_inputs_and_seed_give_the_same_decisions() {
    let run = || {
        let mut world = World::new();
        let c = world.member("alice", 1, HOME);
        world.block("alice");
        let answer = world.ask(c, Request::Admit);
        let Answer::Admission { code, .. } = answer else {
            panic!("{answer:?}");
        };
        (code.to_string(), world.decisions)
    };
    assert!(run() == run(), "not the same");
}

// ---- helpers -----------------------------------------------------------------------------------

struct World {
    server: Server,
    store: MemoryStore,
    now: Instant,
    wall: UnixTime,
    options: ServerOptions,
    last_connection: u64,
    last_request: u32,
    sources: BTreeMap<ConnectionId, SocketAddr>,
    inboxes: BTreeMap<ConnectionId, VecDeque<ServerFrame>>,
    greetings: BTreeMap<ConnectionId, HelloAnswer>,
    closed: BTreeMap<ConnectionId, CloseReason>,
    replies: VecDeque<Reply>,
    clients: BTreeMap<ConnectionId, ClientLogin>,
    decisions: Vec<String>,
    hold_store: bool,
    hold_jobs: bool,
    store_fails: bool,
    held: VecDeque<(Ticket, StoreRequest)>,
    jobs: VecDeque<(Ticket, rendezvous::server::login::Job)>,
}

struct Listed {
    version: DirectoryVersion,
    entries: Vec<Entry>,
    pages: usize,
}

impl World {
    fn new() -> Self {
        Self::with(|_| {})
    }

    #[expect(clippy::disallowed_methods, reason = "any instant will do as a start")]
    fn with(choose: impl FnOnce(&mut ServerOptions)) -> Self {
        static START: OnceLock<Instant> = OnceLock::new();
        let now = *START.get_or_init(|| Instant::now() + Duration::from_secs(100_000));
        let wall = UnixTime::from_millis(1_700_000_000_000);
        let mut options = ServerOptions::new(BucketKey([9; 32]));
        choose(&mut options);
        let epoch = Epoch::new(now, wall);
        let server = Server::new([5; 32], now, epoch, options.clone(), Restored::default());
        Self {
            server,
            store: MemoryStore::new(),
            now,
            wall,
            options,
            last_connection: 0,
            last_request: 0,
            sources: BTreeMap::new(),
            inboxes: BTreeMap::new(),
            greetings: BTreeMap::new(),
            closed: BTreeMap::new(),
            replies: VecDeque::new(),
            clients: BTreeMap::new(),
            decisions: Vec::new(),
            hold_store: false,
            hold_jobs: false,
            store_fails: false,
            held: VecDeque::new(),
            jobs: VecDeque::new(),
        }
    }

    /// As after a crash: only the store is left, and time has passed.
    fn restart(&mut self, down: Duration) {
        self.wall = self.wall.saturating_add(down);
        self.now += down;
        let epoch = Epoch::new(self.now, self.wall);
        let restored = self.store.restore().unwrap();
        let options = self.options.clone();
        self.server = Server::new([6; 32], self.now, epoch, options, restored);
        self.inboxes.clear();
    }

    fn input(&mut self, input: Input) {
        self.server.handle_input(input, self.now);
        self.pump();
    }

    fn pump(&mut self) {
        loop {
            let output = self.server.poll_output(self.now);
            self.decisions.push(format!("{output:?}"));
            match output {
                Output::Send { connection, frame } => match frame {
                    Frame::Greeting(greeting) => {
                        self.greetings.insert(connection, greeting);
                    }
                    Frame::Server(frame) => {
                        let inbox = self.inboxes.entry(connection).or_default();
                        inbox.push_back(Arc::unwrap_or_clone(frame));
                    }
                },
                Output::Close { connection, why } => {
                    assert!(
                        self.closed.insert(connection, why).is_none(),
                        "closed twice"
                    );
                }
                Output::Store { ticket, request } => {
                    if self.hold_store {
                        self.held.push_back((ticket, request));
                    } else {
                        let answer = self.execute(&request);
                        let input = Input::Stored { ticket, answer };
                        self.server.handle_input(input, self.now);
                    }
                }
                Output::Verify { ticket, job } => {
                    self.jobs.push_back((ticket, job));
                    if !self.hold_jobs {
                        self.start_jobs();
                    }
                }
                Output::Reply { reply, .. } => self.replies.push_back(reply),
                Output::Wait(_) => return,
            }
        }
    }

    fn start_jobs(&mut self) {
        while let Some((ticket, job)) = self.jobs.pop_front() {
            let outcome = job.run(setup());
            let input = Input::Verified { ticket, outcome };
            self.server.handle_input(input, self.now);
        }
    }

    fn run_jobs(&mut self) {
        self.hold_jobs = false;
        self.start_jobs();
        self.pump();
    }

    fn execute(&mut self, request: &StoreRequest) -> Result<StoreAnswer, StoreError> {
        if self.store_fails {
            return Err(StoreError::DiskFull);
        }
        let batch = std::slice::from_ref(request);
        self.store.execute(batch).pop().unwrap()
    }

    fn answer_store(&mut self, (ticket, request): (Ticket, StoreRequest)) {
        let answer = self.execute(&request);
        self.input(Input::Stored { ticket, answer });
    }

    /// Lets time pass, stopping at every deadline on the way.
    fn advance(&mut self, span: Duration) {
        let end = self.now + span;
        loop {
            let Output::Wait(deadline) = self.server.poll_output(self.now) else {
                panic!("everything is drained");
            };
            match deadline {
                Some(deadline) if deadline.at <= end => self.now = deadline.at.max(self.now),
                Some(_) | None => break,
            }
            self.server.handle_timeout(self.now);
            self.pump();
        }
        let passed = span;
        self.wall = self.wall.saturating_add(passed);
        self.now = end;
    }

    // ---- connections -------------------------------------------------------------------------

    fn accept_only(&mut self, source: &str) -> ConnectionId {
        self.last_connection += 1;
        let connection = ConnectionId(self.last_connection);
        let source = addr(source);
        self.sources.insert(connection, source);
        self.input(Input::Accepted { connection, source });
        connection
    }

    fn accept(&mut self, source: &str) -> ConnectionId {
        self.last_connection += 1;
        let connection = ConnectionId(self.last_connection);
        let source = addr(source);
        let channel = self.exporter(connection);
        self.sources.insert(connection, source);
        self.input(Input::Connected {
            connection,
            source,
            channel,
        });
        connection
    }

    fn connect(&mut self, source: &str) -> ConnectionId {
        let connection = self.accept(source);
        let hello = Hello::ours("test");
        self.input(Input::Greeted { connection, hello });
        let greeting = self.greetings.get(&connection);
        assert!(matches!(
            greeting,
            Some(HelloAnswer::Welcome { version: 1, .. })
        ));
        connection
    }

    fn disconnect(&mut self, connection: ConnectionId) {
        self.input(Input::Disconnected { connection });
    }

    fn exporter(&self, connection: ConnectionId) -> ChannelBinding {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&connection.0.to_be_bytes());
        ChannelBinding(bytes)
    }

    fn send(&mut self, connection: ConnectionId, request: Request) -> RequestId {
        self.last_request += 1;
        let id = RequestId(self.last_request);
        let frame = RequestFrame { id, request };
        self.input(Input::Requested { connection, frame });
        id
    }

    /// Asks, and takes the answer out of the inbox.
    fn ask(&mut self, connection: ConnectionId, request: Request) -> Answer {
        let asked = self.send(connection, request);
        let inbox = self.inboxes.entry(connection).or_default();
        let position = inbox
            .iter()
            .position(|frame| matches!(frame, ServerFrame::Answer { id, .. } if *id == asked));
        let Some(ServerFrame::Answer { answer, .. }) =
            position.and_then(|position| inbox.remove(position))
        else {
            panic!("not answered; inbox {inbox:?}, closed {:?}", self.closed);
        };
        answer
    }

    fn take_answer(&mut self, connection: ConnectionId) -> Answer {
        match self.inboxes.entry(connection).or_default().pop_front() {
            Some(ServerFrame::Answer { answer, .. }) => answer,
            other => panic!("{other:?}"),
        }
    }

    fn inbox(&self, connection: ConnectionId) -> VecDeque<ServerFrame> {
        self.inboxes.get(&connection).cloned().unwrap_or_default()
    }

    fn bye(&self, connection: ConnectionId) -> Option<ByeReason> {
        assert!(self.closed.contains_key(&connection));
        match self.inbox(connection).back() {
            Some(ServerFrame::Push(Push::Bye(reason))) => Some(*reason),
            _ => None,
        }
    }

    fn failed_pushes(&mut self, connection: ConnectionId) -> Vec<u32> {
        let inbox = self.inboxes.remove(&connection).unwrap_or_default();
        let counts = inbox.into_iter().map(|frame| match frame {
            ServerFrame::Push(Push::FailedLogins(FailedLogins { count, .. })) => count,
            other => panic!("{other:?}"),
        });
        counts.collect()
    }

    fn changes(&mut self, connection: ConnectionId) -> (DirectoryVersion, Vec<Change>) {
        let inbox = self.inboxes.remove(&connection).unwrap_or_default();
        let mut all = Vec::new();
        let mut last = None;
        for frame in inbox {
            let ServerFrame::Push(Push::Presence { version, changes }) = frame else {
                panic!("{frame:?}");
            };
            all.extend(changes);
            last = Some(version);
        }
        (last.expect("something changed"), all)
    }

    // ---- accounts ----------------------------------------------------------------------------

    fn command(&mut self, command: Command) -> Reply {
        let id = CommandId(1);
        self.input(Input::Commanded { id, command });
        self.replies.pop_front().expect("every command is answered")
    }

    /// Makes an account with [`PASSWORD`], if it is not there.
    fn add(&mut self, account: &str) {
        let record = record(account);
        let account = name(account);
        let reply = self.command(Command::AddAccount { account, record });
        assert!(matches!(reply, Reply::Done | Reply::Exists), "{reply:?}");
    }

    /// Makes an account with a device, as a log-in would have.
    fn enrolled(&mut self, account: &str, number: u8) -> DeviceSecret {
        self.token(account, number).0
    }

    fn token(&mut self, account: &str, number: u8) -> (DeviceSecret, Token) {
        self.add(account);
        let (secret, token) = (device(number), Token::from_bytes([number; 32]));
        self.enrol(account, secret.public(), &token);
        (secret, token)
    }

    fn enrol(&mut self, account: &str, device_key: DeviceKey, token: &Token) {
        let load = StoreRequest::LoadAccount {
            account: name(account),
            device_key,
        };
        let Ok(StoreAnswer::Loaded(Some(loaded))) = self.execute(&load) else {
            panic!("no account");
        };
        let subject = Subject::Account(name(account));
        let enrol = StoreRequest::Enrol {
            id: loaded.id,
            device: Device {
                key: device_key,
                name: DeviceName::lossy("laptop"),
                token_hash: token.hash(),
                token_issued: self.wall,
            },
            lockout: rendezvous::server::lockout::LockoutRow::empty(subject),
        };
        assert!(matches!(self.execute(&enrol), Ok(StoreAnswer::Done)));
    }

    /// A session that is logged in.
    fn member(&mut self, account: &str, number: u8, source: &str) -> ConnectionId {
        let (secret, token) = self.token(account, number);
        let connection = self.connect(source);
        let answer = self.token_login(connection, account, &secret, token);
        assert!(matches!(answer, Answer::LoggedIn(_)), "{answer:?}");
        connection
    }

    /// A session that is in the directory.
    fn online(&mut self, account: &str, number: u8) -> ConnectionId {
        let connection = self.member(account, number, HOME);
        self.announce(connection, Status::Available);
        connection
    }

    fn online_with_token(&mut self, number: u16) -> ConnectionId {
        let account = format!("user{:03}", number / 4);
        let command = Command::AddAccount {
            account: name(&account),
            record: record("alice"),
        };
        self.command(command);
        let mut seed = [1; 32];
        seed[..2].copy_from_slice(&number.to_be_bytes());
        let (secret, token) = (DeviceSecret::from_seed(seed), Token::from_bytes(seed));
        self.enrol(&account, secret.public(), &token);
        let connection = self.connect(HOME);
        let answer = self.token_login(connection, &account, &secret, token);
        assert!(matches!(answer, Answer::LoggedIn(_)), "{answer:?}");
        self.announce(connection, Status::Available);
        connection
    }

    fn announce(&mut self, connection: ConnectionId, status: Status) {
        let candidates = vec![addr("192.0.2.1:4000")];
        let announce = Request::Announce { status, candidates };
        assert_eq!(self.ask(connection, announce), Answer::Done);
    }

    fn list(&mut self, connection: ConnectionId) -> Listed {
        let (mut entries, mut pages, mut first) = (Vec::new(), 0, None);
        let mut after: Option<Cursor> = None;
        loop {
            let answer = self.ask(connection, Request::List { after });
            let Answer::Page {
                version,
                entries: page,
                next,
            } = answer
            else {
                panic!("{answer:?}");
            };
            entries.extend(page);
            pages += 1;
            let version = *first.get_or_insert(version);
            if next.is_none() {
                return Listed {
                    version,
                    entries,
                    pages,
                };
            }
            after = next;
        }
    }

    /// Uses up an account's attempts, from a source of its own.
    fn block(&mut self, account: &str) {
        let c = self.connect("192.0.2.250:9");
        for _ in 0..5 {
            self.login_start(c, account, &device(250), None);
        }
        self.disconnect(c);
    }

    fn failures(&mut self, account: &str) -> u32 {
        let rows = self.store.restore().unwrap().lockouts;
        let subject = Subject::Account(name(account));
        let row = rows.into_iter().find(|row| row.subject == subject);
        row.map_or(0, |row| {
            row.strangers.failures.iter().map(|(_, count)| count).sum()
        })
    }

    // ---- log-in ------------------------------------------------------------------------------

    fn register_start(
        &mut self,
        connection: ConnectionId,
        account: &str,
        text: &str,
    ) -> (ClientRegistration, OpaqueMessage) {
        let (client, message) = ClientRegistration::start(&password(text), [3; 32]);
        let answer = self.ask(connection, register_start(account, message));
        let Answer::RegisterChallenge { message } = answer else {
            panic!("{answer:?}");
        };
        (client, message)
    }

    fn register_finish(
        &mut self,
        connection: ConnectionId,
        account: &str,
        (client, challenge): (ClientRegistration, OpaqueMessage),
    ) -> Answer {
        let upload = client.finish(&name(account), &challenge).unwrap();
        self.ask(connection, Request::RegisterFinish { upload })
    }

    fn register(&mut self, connection: ConnectionId, account: &str, text: &str) -> Answer {
        let started = self.register_start(connection, account, text);
        self.register_finish(connection, account, started)
    }

    fn start_message(
        &mut self,
        connection: ConnectionId,
        account: &str,
        secret: &DeviceSecret,
        code: Option<AdmissionCode>,
    ) -> LoginStart {
        let (client, start) =
            start_message(&self.exporter(connection), account, secret, code, PASSWORD);
        self.clients.insert(connection, client);
        start
    }

    fn login_start(
        &mut self,
        connection: ConnectionId,
        account: &str,
        secret: &DeviceSecret,
        code: Option<AdmissionCode>,
    ) -> Answer {
        let start = self.start_message(connection, account, secret, code);
        self.ask(connection, Request::LoginStart(start))
    }

    fn ke3(&mut self, connection: ConnectionId, account: &str, started: Answer) -> OpaqueMessage {
        let Answer::LoginChallenge { ke2, stretch } = started else {
            panic!("{started:?}");
        };
        let client = self.clients.remove(&connection).unwrap();
        let channel = self.exporter(connection);
        client
            .finish(&name(account), &ke2, stretch, &channel)
            .unwrap()
    }

    fn finish(&mut self, connection: ConnectionId, account: &str, started: Answer) -> Answer {
        let ke3 = self.ke3(connection, account, started);
        self.ask(connection, Request::LoginFinish { ke3 })
    }

    fn log_in(
        &mut self,
        connection: ConnectionId,
        account: &str,
        secret: &DeviceSecret,
    ) -> LoggedIn {
        let started = self.login_start(connection, account, secret, None);
        let answer = self.finish(connection, account, started);
        let Answer::LoggedIn(logged_in) = answer else {
            panic!("{answer:?}");
        };
        logged_in
    }

    /// Goes through with a password that may be wrong: the client notices, and guesses KE3.
    fn try_password(
        &mut self,
        connection: ConnectionId,
        account: &str,
        secret: &DeviceSecret,
        text: &str,
    ) -> Answer {
        let channel = self.exporter(connection);
        let (client, start) = start_message(&channel, account, secret, None, text);
        let answer = self.ask(connection, Request::LoginStart(start));
        let Answer::LoginChallenge { ke2, stretch } = answer else {
            panic!("{answer:?}");
        };
        assert!(
            client
                .finish(&name(account), &ke2, stretch, &channel)
                .is_err()
        );
        let ke3 = OpaqueMessage::try_from(vec![7; 64]).unwrap();
        self.ask(connection, Request::LoginFinish { ke3 })
    }

    fn token_message(
        &self,
        connection: ConnectionId,
        account: &str,
        secret: &DeviceSecret,
        token: Token,
    ) -> TokenLogin {
        let account = name(account);
        let signature = secret.sign(&Statement {
            role: Role::TokenLogin,
            exporter: &self.exporter(connection),
            account: &account,
            content: token.as_bytes(),
        });
        TokenLogin {
            account,
            device_key: secret.public(),
            token,
            signature,
        }
    }

    fn token_login(
        &mut self,
        connection: ConnectionId,
        account: &str,
        secret: &DeviceSecret,
        token: Token,
    ) -> Answer {
        let message = self.token_message(connection, account, secret, token);
        self.ask(connection, Request::TokenLogin(message))
    }
}

fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn name(text: &str) -> AccountName {
    text.parse().unwrap()
}

fn device(number: u8) -> DeviceSecret {
    DeviceSecret::from_seed([number; 32])
}

fn password(text: &str) -> Password {
    Password::new(Zeroizing::new(text.to_owned())).unwrap()
}

const fn refused(refusal: Refusal) -> Answer {
    Answer::Refused(refusal)
}

fn find(account: &str) -> Request {
    let account = name(account);
    Request::Find { account }
}

fn register_start(account: &str, message: OpaqueMessage) -> Request {
    let account = name(account);
    Request::RegisterStart { account, message }
}

fn login_start(
    channel: &ChannelBinding,
    account: &str,
    secret: &DeviceSecret,
    code: Option<AdmissionCode>,
) -> Request {
    Request::LoginStart(start_message(channel, account, secret, code, PASSWORD).1)
}

fn start_message(
    channel: &ChannelBinding,
    account: &str,
    secret: &DeviceSecret,
    code: Option<AdmissionCode>,
    text: &str,
) -> (ClientLogin, LoginStart) {
    let account = name(account);
    let (client, ke1) = ClientLogin::start(&password(text), [4; 32]);
    let signature = secret.sign(&Statement {
        role: Role::PasswordLogin,
        exporter: channel,
        account: &account,
        content: ke1.as_bytes(),
    });
    let start = LoginStart {
        account,
        device_key: secret.public(),
        device_name: DeviceName::lossy("laptop"),
        ke1,
        signature,
        code,
    };
    (client, start)
}

fn online_names(changes: &[Change]) -> Vec<&str> {
    let names = changes.iter().map(|change| match change {
        Change::Online(entry) => entry.account.as_str(),
        Change::Offline { .. } => "offline",
    });
    names.collect()
}

fn setup() -> &'static ServerSetup {
    static SETUP: OnceLock<ServerSetup> = OnceLock::new();
    SETUP.get_or_init(|| ServerSetup::generate([3; 32]))
}

/// The record of [`PASSWORD`], made once for each account: stretching takes a while.
fn record(account: &str) -> PasswordRecord {
    static RECORDS: OnceLock<std::sync::Mutex<BTreeMap<String, PasswordRecord>>> = OnceLock::new();
    assert_eq!(STRETCH_CURRENT.0, 1);
    let mut records = RECORDS.get_or_init(Default::default).lock().unwrap();
    records
        .entry(account.to_owned())
        .or_insert_with(|| {
            make_record(setup(), &name(account), &password(PASSWORD), [8; 32]).unwrap()
        })
        .clone()
}
