//! Connections from their first byte to their last.

use std::time::Duration;

use common::limits::{
    LOGIN_TIMEOUT, LOGINS_IN_PROGRESS_MAX, REQUESTS_OPEN_MAX, SESSION_IDLE_TIMEOUT,
    UNAUTHENTICATED_MAX, UNAUTHENTICATED_PER_SOURCE_MAX,
};
use common::wire::rendezvous::{
    Answer, ByeReason, DeviceAnswer, DeviceRequest, DirectoryAnswer, DirectoryRequest, Hello,
    HelloAnswer, LoginAnswer, LoginRequest, OpaqueMessage, Refusal, Request,
};
use common::wire::samples;
use rendezvous::server::{CloseReason, Command, Input, Reply};
use rendezvous::store::StoreError;

use super::world::*;

#[test]
fn strangers_get_nothing_but_a_log_in() {
    let mut world = World::new();
    let c = world.connect(HOME);
    let directory = samples::directory_requests().into_iter();
    let device = samples::device_requests().into_iter();
    for request in directory
        .map(Request::from)
        .chain(device.map(Request::from))
    {
        let answer = world.ask(c, request.clone());
        assert_eq!(answer, refused(Refusal::NotLoggedIn), "{request:?}");
    }
    let member = world.member("alice", 1, HOME);
    for request in samples::login_requests() {
        let answer = world.ask(member, request.clone());
        assert_eq!(answer, refused(Refusal::OutOfOrder), "{request:?}");
    }
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
    world.advance(LOGIN_TIMEOUT - Duration::from_secs(1));
    world.ask(stranger, DeviceRequest::KeepAlive);
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
    world.advance(SESSION_IDLE_TIMEOUT - Duration::from_millis(1));
    world.ask(staying, DeviceRequest::KeepAlive);
    assert_eq!(world.server.directory().len(), 2);
    world.advance(Duration::from_millis(1));
    assert_eq!(world.bye(vanishing), Some(ByeReason::TimedOut));
    assert_eq!(world.server.directory().len(), 1);
    world.advance(SESSION_IDLE_TIMEOUT);
    assert_eq!(world.bye(staying), Some(ByeReason::TimedOut));
}

#[test]
fn t28_many_sources_make_room_for_whoever_logs_in() {
    let mut world = World::new();
    let member = world.member("alice", 1, AWAY);
    for number in 0..UNAUTHENTICATED_MAX {
        world.accept_only(&format!("10.0.{}.{}:1", number / 256, number % 256));
    }
    assert!(world.closed.is_empty());
    world.member("bob", 2, HOME);
    let closed: Vec<_> = world.closed.values().copied().collect();
    assert_eq!(closed, [CloseReason::Said(ByeReason::Crowded)]);
    assert_eq!(world.server.connection_count(), UNAUTHENTICATED_MAX + 1);
    assert_eq!(
        world.ask(member, DeviceRequest::KeepAlive),
        DeviceAnswer::Done.into()
    );
}

/// A thousand silent connections a second, from 4,445 addresses, while somebody types a password.
fn churn(world: &mut World, seconds: u64) {
    for number in 0..seconds * 1000 {
        let (network, host) = (number % 4445 / 256, number % 4445 % 256);
        world.accept_only(&format!("127.1.{network}.{host}:1"));
        world.advance(Duration::from_millis(1));
    }
}

#[test]
fn t28_whoever_takes_ten_seconds_to_type_a_password_gets_in_through_a_churn_of_strangers() {
    let mut world = World::new();
    world.add("alice");
    churn(&mut world, 5);
    let owner = world.connect(HOME);
    churn(&mut world, 10);
    world.log_in(owner, "alice", &device(1));
}

#[test]
fn t28_a_known_device_is_not_pushed_out_by_strangers_and_others_are_told() {
    let mut world = World::new();
    let laptop = world.enrolled("alice", 1);
    // The same source as most of the crowd's, where strangers leave first.
    let (known, unknown) = (world.connect(AWAY), world.connect(AWAY));
    let started = world.login_start(known, "alice", &laptop, None);
    for _ in 2..UNAUTHENTICATED_PER_SOURCE_MAX {
        world.accept_only(AWAY);
    }
    for number in 0..UNAUTHENTICATED_MAX {
        world.accept_only(&format!("10.0.{}.{}:1", number / 256, number % 256));
    }
    assert_eq!(world.bye(unknown), Some(ByeReason::Crowded));
    let logged_in = world.finish(known, "alice", started);
    assert!(
        matches!(logged_in, Answer::Login(LoginAnswer::LoggedIn(_))),
        "{logged_in:?}"
    );
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
    world.ask(elsewhere, DeviceRequest::KeepAlive);
    assert_eq!(
        world.ask(member, DeviceRequest::KeepAlive),
        DeviceAnswer::Done.into()
    );
    world.advance(LOGIN_TIMEOUT / 2);
    world.ask(member, DeviceRequest::KeepAlive);
    world.advance(LOGIN_TIMEOUT / 2);
    let later = world.connect(AWAY);
    world.ask(later, DeviceRequest::KeepAlive);
}

#[test]
fn t20_malformed_frames_cost_their_own_session_only() {
    let mut world = World::new();
    let other = world.member("bob", 2, HOME);
    let c = world.connect(HOME);
    world.input(Input::Malformed { connection: c });
    assert_eq!(world.bye(c), Some(ByeReason::Malformed));
    let early = world.accept(HOME);
    world.send(early, DeviceRequest::KeepAlive);
    assert!(world.closed.contains_key(&early), "a request before Hello");
    let ke1 = world.connect(HOME);
    world.add("alice");
    let mut start = world.start_message(ke1, "alice", &device(1), None);
    start.ke1 = OpaqueMessage::try_from(vec![0xff; 96]).unwrap();
    world.send(ke1, LoginRequest::LoginStart(start));
    assert_eq!(world.bye(ke1), Some(ByeReason::Malformed));
    assert_eq!(world.failures("alice"), 1);
    // One that cannot be a KE1 is seen before anything is counted, also during a block.
    for is_blocked in [false, true] {
        if is_blocked {
            world.block("alice");
        }
        let before = world.failures("alice");
        for len in [0, 95, 97, 512] {
            let c = world.connect(AWAY);
            let mut start = world.start_message(c, "alice", &device(1), None);
            start.ke1 = OpaqueMessage::try_from(vec![1; len]).unwrap();
            world.send(c, LoginRequest::LoginStart(start));
            assert_eq!(world.bye(c), Some(ByeReason::Malformed), "{len}");
        }
        assert_eq!(world.failures("alice"), before);
    }
    assert_eq!(
        world.ask(other, DeviceRequest::KeepAlive),
        DeviceAnswer::Done.into()
    );
    // Inputs about connections that are gone are nothing.
    world.input(Input::Disconnected { connection: ke1 });
    world.send(ke1, DeviceRequest::KeepAlive);
}

#[test]
fn t39_requests_and_work_are_bounded_and_a_flood_of_log_ins_does_not_delay_list() {
    let mut world = World::new();
    let other = world.online("bob", 2);
    let c = world.member("alice", 1, HOME);
    let device_key = device(99).public();
    world.hold_store = true;
    for _ in 0..REQUESTS_OPEN_MAX {
        world.send(c, DirectoryRequest::WhoIs { device_key });
    }
    assert!(world.inbox(c).is_empty());
    let one_more = world.ask(c, DeviceRequest::KeepAlive);
    assert_eq!(one_more, refused(Refusal::LimitExceeded));

    let mut members = 0;
    while world.server.work_count() < LOGINS_IN_PROGRESS_MAX {
        members += 1;
        let source = format!("10.{}.{}.1:9", members / 200, members % 200);
        let c = world.connect(&source);
        world.send(
            c,
            login_start(&world.channel_binding(c), "alice", &device(3), None),
        );
    }
    let late = world.connect("192.0.2.99:1");
    let busy = world.ask(
        late,
        login_start(&world.channel_binding(late), "bob", &device(3), None),
    );
    assert_eq!(busy, refused(Refusal::Busy { retry_after_s: 2 }));
    assert_eq!(world.list(other).entries.len(), 1);
    assert_eq!(world.held.len(), LOGINS_IN_PROGRESS_MAX);
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
        login_start(&world.channel_binding(c), "alice", &device(8), None),
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
        login_start(&world.channel_binding(c), "alice", &device(8), None),
    );
    world.run_jobs();
    assert!(matches!(
        world.take_answer(c),
        Answer::Login(LoginAnswer::LoginChallenge { .. })
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
        world.ask(bob, DirectoryRequest::WhoIs { device_key }),
        Answer::Directory(DirectoryAnswer::Owner { account: None })
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
    world.input(Input::ShutDown);
    assert_eq!(world.bye(member), Some(ByeReason::ShuttingDown));
    assert_eq!(world.bye(stranger), Some(ByeReason::ShuttingDown));
    let late = world.accept(HOME);
    assert_eq!(world.closed.get(&late), Some(&CloseReason::TooMany));
}
