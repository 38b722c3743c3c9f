//! Lock-out: how many log-ins may fail, and for whom.

use std::time::Duration;

use common::limits::{
    ADMISSION_FAILURES_MAX, ADMISSION_LIFETIME, BLOCK_FIRST, BLOCK_RESET_AFTER,
    SOURCE_FAILURES_MAX, STORE_BATCH_MAX,
};
use common::password::{ClientRegistration, PasswordRecord};
use common::wire::rendezvous::{
    AdmissionCode, Answer, DeviceAnswer, DeviceRequest, LoggedIn, LoginAnswer, LoginRequest,
    OpaqueMessage, Refusal, ServerFrame,
};
use rendezvous::server::{Command, Reply, Unblocked};
use rendezvous::store::{AccountsRequest, LockoutsRequest, Store, StoreRequest};

use super::world::*;

#[test]
fn t38_five_wrong_passwords_block_strangers_and_not_the_owners_device() {
    let mut world = World::new();
    let laptop = world.enrolled("alice", 1);
    let stranger = world.connect(AWAY);
    for attempt in 0..5 {
        let started = world.login_start(stranger, "alice", &device(50 + attempt), None);
        assert!(matches!(
            started,
            Answer::Login(LoginAnswer::LoginChallenge { .. })
        ));
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
    assert!(matches!(
        started,
        Answer::Login(LoginAnswer::LoginChallenge { .. })
    ));
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
        login_start(&world.channel_binding(c), "alice", &device(3), None),
    );
    assert!(world.inbox(c).is_empty());
    let load = world.held.pop_front().unwrap();
    world.answer_store(load);
    assert!(
        world.inbox(c).is_empty(),
        "OPAQUE is done, the store is not"
    );
    let save = world.held.pop_front().unwrap();
    assert!(matches!(
        save.1,
        StoreRequest::Lockouts(LockoutsRequest::Save { .. })
    ));
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
            login_start(&world.channel_binding(*c), "alice", &device(3), None),
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
                    answer: Answer::Login(LoginAnswer::LoginChallenge { .. }),
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
            lengths.push(
                if let Answer::Login(LoginAnswer::LoginChallenge { ke2, stretch }) = answer {
                    (ke2.as_bytes().len(), stretch.0)
                } else {
                    assert_eq!(answer, refused(Refusal::Blocked { retry_after_s: 60 }));
                    (0, 60)
                },
            );
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
        assert!(matches!(
            started,
            Answer::Login(LoginAnswer::LoginChallenge { .. })
        ));
    }
    let blocked = world.login_start(attacker, "alice", &device(3), None);
    assert_eq!(blocked, refused(Refusal::Blocked { retry_after_s: 60 }));
    let neighbour = world.connect("203.0.113.9:41000");
    world.log_in(neighbour, "bob", &laptop);
    let elsewhere = world.connect(HOME);
    world.log_in(elsewhere, "alice", &device(5));
}

#[test]
fn t38_a_household_that_mistypes_stays_below_the_bound() {
    const PEOPLE: u8 = 12;
    const SLIPS: u8 = 4;
    let mut world = World::new();
    assert!(u32::from(PEOPLE * SLIPS) < SOURCE_FAILURES_MAX);
    let person = |number: u8| format!("person{number}");
    for number in 0..PEOPLE {
        world.add(&person(number));
    }
    // All behind one address, on new devices, within minutes; and again on the next day.
    for day in 0..2 {
        for slip in 0..SLIPS {
            for number in 0..PEOPLE {
                let c = world.connect(HOME);
                let device = device(100 + number);
                let started = world.login_start(c, &person(number), &device, None);
                let is_asked = matches!(started, Answer::Login(LoginAnswer::LoginChallenge { .. }));
                assert!(is_asked, "{number} on day {day}, slip {slip}: {started:?}");
                world.disconnect(c);
                world.advance(Duration::from_secs(1));
            }
        }
        // The first and the last get it right at last.
        for number in [0, PEOPLE - 1] {
            let c = world.connect(HOME);
            world.log_in(c, &person(number), &device(100 + number));
            assert_eq!(world.failures(&person(number)), 0, "forgiven");
            world.disconnect(c);
        }
        world.advance(Duration::from_secs(24 * 3600));
    }
}

#[test]
fn t38_the_owner_is_told_within_a_second_but_not_of_every_single_failure() {
    let mut world = World::new();
    let owner = world.member("alice", 1, HOME);
    let attacker = world.connect(AWAY);
    for _ in 0..4 {
        world.login_start(attacker, "alice", &device(3), None);
    }
    world.disconnect(attacker);
    world.advance(Duration::from_secs(1));
    assert_eq!(world.failed_pushes(owner), [4], "together");
    let attacker = world.connect(AWAY);
    world.login_start(attacker, "alice", &device(3), None);
    world.disconnect(attacker);
    world.advance(Duration::from_secs(2));
    assert_eq!(world.failed_pushes(owner), [1]);
    assert_eq!(world.failures("alice"), 5, "told is not forgiven");
    world.disconnect(owner);
    let home = world.connect(HOME);
    assert_eq!(world.log_in(home, "alice", &device(1)).failed, None);
}

#[test]
fn t38_an_owner_who_is_online_does_not_slow_the_next_guess() {
    let mut world = World::new();
    world.member("alice", 1, HOME);
    let attacker = world.connect(AWAY);
    world.hold_store = true;
    for account in ["alice", "nobody"] {
        for _ in 0..2 {
            world.send(
                attacker,
                login_start(&world.channel_binding(attacker), account, &device(3), None),
            );
            // To be told, the owner needs a write; whoever guesses would wait for it.
            let load = world.held.pop_front().unwrap();
            assert!(matches!(
                load.1,
                StoreRequest::Accounts(AccountsRequest::Load { .. })
            ));
            world.answer_store(load);
            let save = world.held.pop_front().unwrap();
            assert!(matches!(
                save.1,
                StoreRequest::Lockouts(LockoutsRequest::Save { .. })
            ));
            world.answer_store(save);
            assert!(world.held.is_empty());
        }
    }
}

#[test]
fn a_damaged_record_is_the_stores_failure_and_ends_nobodys_connection() {
    let mut world = World::new();
    let (account, record) = (
        name("alice"),
        PasswordRecord::from_bytes(&[0xff; 224]).unwrap(),
    );
    world.command(Command::AddAccount { account, record });
    let c = world.connect(HOME);
    for _ in 0..2 {
        let answer = world.login_start(c, "alice", &device(1), None);
        assert_eq!(answer, refused(Refusal::StoreFailed));
    }
    let answer = world.login_start(c, "nobody", &device(1), None);
    assert!(
        matches!(answer, Answer::Login(LoginAnswer::LoginChallenge { .. })),
        "{answer:?}"
    );
}

#[test]
fn a_one_time_code_admits_one_new_device_during_a_block() {
    let mut world = World::new();
    let owner = world.member("alice", 1, HOME);
    world.block("alice");
    let Answer::Device(DeviceAnswer::Admission { code, expires_in_s }) =
        world.ask(owner, DeviceRequest::Admit)
    else {
        panic!("no code");
    };
    assert_eq!(expires_in_s, 600);
    let wrong = Some(AdmissionCode::from_random(1));
    let c = world.connect(HOME);
    let blocked = world.login_start(c, "alice", &device(7), wrong);
    assert_eq!(blocked, refused(Refusal::Blocked { retry_after_s: 60 }));
    let started = world.login_start(c, "alice", &device(7), Some(code));
    let done = world.finish(c, "alice", started);
    assert!(
        matches!(done, Answer::Login(LoginAnswer::LoggedIn(_))),
        "{done:?}"
    );
    let again = world.connect(HOME);
    let blocked = world.login_start(again, "alice", &device(8), Some(code));
    assert_eq!(blocked, refused(Refusal::Blocked { retry_after_s: 60 }));

    for _ in 0..4 {
        assert!(matches!(
            world.ask(owner, DeviceRequest::Admit),
            Answer::Device(DeviceAnswer::Admission { .. })
        ));
    }
    let fifth = world.ask(owner, DeviceRequest::Admit);
    assert_eq!(fifth, refused(Refusal::LimitExceeded));
}

#[test]
fn a_slip_in_the_password_does_not_cost_the_one_time_code_and_three_do() {
    let mut world = World::new();
    world.add("alice");
    let mut codes = Vec::new();
    for _ in 0..2 {
        let Reply::Code { code, .. } = world.command(Command::Admit(name("alice"))) else {
            panic!("no code");
        };
        codes.push(code);
    }
    world.block("alice");
    let c = world.connect(HOME);
    let start = |world: &mut World, code| world.login_start(c, "alice", &device(7), Some(code));
    for _ in 0..ADMISSION_FAILURES_MAX {
        // Starting again gives up the attempt before, which has failed then.
        let started = start(&mut world, codes[0]);
        assert!(matches!(
            started,
            Answer::Login(LoginAnswer::LoginChallenge { .. })
        ));
    }
    let blocked = start(&mut world, codes[0]);
    assert!(matches!(blocked, Answer::Refused(Refusal::Blocked { .. })));
    assert_eq!(world.store.restore().unwrap().admissions.len(), 1);

    start(&mut world, codes[1]);
    let started = start(&mut world, codes[1]);
    let done = world.finish(c, "alice", started);
    assert!(
        matches!(done, Answer::Login(LoginAnswer::LoggedIn(_))),
        "{done:?}"
    );
    assert_eq!(world.store.restore().unwrap().admissions.len(), 0);
}

#[test]
fn a_new_code_drops_those_that_have_expired_from_the_store_too() {
    let mut world = World::new();
    world.add("alice");
    // Between two sweeps, which drop them as well.
    world.advance(ADMISSION_LIFETIME / 2);
    world.command(Command::Admit(name("alice")));
    assert_eq!(world.store.restore().unwrap().admissions.len(), 1);
    world.now += ADMISSION_LIFETIME;
    world.command(Command::Admit(name("alice")));
    assert_eq!(world.store.restore().unwrap().admissions.len(), 1);
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
    assert!(matches!(
        started,
        Answer::Login(LoginAnswer::LoginChallenge { .. })
    ));
    let done = world.finish(c, "alice", started);
    assert!(
        matches!(done, Answer::Login(LoginAnswer::LoggedIn(_))),
        "{done:?}"
    );
    world.block("alice");
    world.restart(Duration::from_secs(1));
    let c = world.connect(HOME);
    let blocked = world.login_start(c, "alice", &device(8), Some(code));
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
    let finish = world.ask(
        c,
        LoginRequest::RegisterFinish {
            upload,
            stretch: common::password::STRETCH_CURRENT,
        },
    );
    assert_eq!(finish, refused(Refusal::OutOfOrder));
    let resumed = world.token_login(c, "alice", &device(9), token.clone());
    assert_eq!(resumed, refused(Refusal::TokenRefused), "another device");
    let blocked = world.login_start(c, "alice", &device(9), None);
    assert!(matches!(blocked, Answer::Refused(Refusal::Blocked { .. })));
    // A token is not guessing: the owner's device goes on.
    let owner = world.token_login(c, "alice", &laptop, token);
    assert!(
        matches!(owner, Answer::Login(LoginAnswer::LoggedIn(_))),
        "{owner:?}"
    );
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
    assert_eq!(unblock(&mut world, "alice"), Some((true, 60, 5)));
    world.restart(Duration::ZERO);
    let c = world.connect(AWAY);
    world.log_in(c, "alice", &device(1));
    assert_eq!(unblock(&mut world, "alice"), Some((true, 0, 0)));
    assert_eq!(unblock(&mut world, "nobody"), None);
}

/// Whether an account has the name, the seconds of its block and the failures that are forgotten.
fn unblock(world: &mut World, account: &str) -> Option<(bool, u32, u32)> {
    let reply = world.command(Command::Unblock(name(account)));
    if matches!(reply, Reply::NotFound) {
        return None;
    }
    let Reply::Unblocked(Unblocked {
        has_account,
        blocked_for_s,
        failures,
    }) = reply
    else {
        panic!("{reply:?}");
    };
    Some((has_account, blocked_for_s, failures))
}

#[test]
fn an_operator_hears_what_was_counted_before_a_block() {
    let mut world = World::new();
    world.add("alice");
    for account in ["alice", "nobody"] {
        let c = world.connect(AWAY);
        for _ in 0..2 {
            world.login_start(c, account, &device(9), None);
        }
        world.disconnect(c);
        let has_account = account == "alice";
        assert_eq!(unblock(&mut world, account), Some((has_account, 0, 2)));
        // A block that is over counts, too: the next would be longer.
        world.block(account);
        world.advance(Duration::from_secs(61));
        assert_eq!(unblock(&mut world, account), Some((has_account, 0, 5)));
        world.block(account);
        let unblocked = unblock(&mut world, account);
        assert_eq!(unblocked, Some((has_account, 60, 5)), "the first again");
    }
}

#[test]
fn an_operator_ends_the_block_of_a_name_without_an_account_for_good() {
    let mut world = World::new();
    world.block("nobody");
    let c = world.connect(AWAY);
    let blocked = world.login_start(c, "nobody", &device(1), None);
    assert!(matches!(blocked, Answer::Refused(Refusal::Blocked { .. })));
    world.advance(Duration::from_secs(10));
    assert_eq!(unblock(&mut world, "nobody"), Some((false, 50, 5)));
    assert!(world.store.restore().unwrap().lockouts.is_empty());
    for _ in 0..2 {
        let c = world.connect(AWAY);
        let started = world.login_start(c, "nobody", &device(1), None);
        assert!(
            matches!(started, Answer::Login(LoginAnswer::LoginChallenge { .. })),
            "{started:?}"
        );
        world.restart(Duration::ZERO);
    }
    assert_eq!(unblock(&mut world, "nobody"), Some((false, 0, 2)));
    assert_eq!(unblock(&mut world, "nobody"), None);
}

#[test]
fn an_operator_is_told_that_a_block_could_not_be_ended() {
    let mut world = World::new();
    world.block("nobody");
    world.store_fails = true;
    let reply = world.command(Command::Unblock(name("nobody")));
    assert!(matches!(reply, Reply::StoreFailed(_)), "{reply:?}");
}

#[test]
fn a_day_after_a_flood_of_names_the_store_is_empty_again() {
    let mut world = World::new();
    let names = 1500;
    for number in 0..names {
        let source = format!("10.{}.{}.1:9", number / 200, number % 200);
        let c = world.connect(&source);
        world.login_start(c, &format!("user{number}"), &device(3), None);
        world.disconnect(c);
    }
    let kept = world.store.restore().unwrap().lockouts.len();
    assert!(kept > STORE_BATCH_MAX && kept <= names, "{kept}");
    world.advance(BLOCK_RESET_AFTER + Duration::from_secs(700));
    assert!(world.store.restore().unwrap().lockouts.is_empty());
    assert_eq!(world.server.work_count(), 0);
}
