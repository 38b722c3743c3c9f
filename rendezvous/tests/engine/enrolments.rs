//! A device that is enrolled, and what the account's other devices are told of it.

use std::time::Duration;

use common::id::DeviceName;
use common::key::{DeviceSecret, Token};
use common::limits::ENROLMENTS_UNTOLD_MAX;
use common::wire::rendezvous::{
    Answer, DeviceAnswer, DevicePush, DeviceRequest, Enrolment, LoginAnswer, LoginRequest, Push,
    Refusal, ServerFrame,
};
use rendezvous::server::ConnectionId;

use super::world::{AWAY, HOME, World, device, refused};

/// What a session was pushed, in order.
fn pushed(world: &mut World, session: ConnectionId) -> Vec<Enrolment> {
    let inbox = world.inboxes.remove(&session).unwrap_or_default();
    let pushed = inbox.into_iter().map(|frame| {
        let ServerFrame::Push(Push::Device(DevicePush::Enrolled(enrolment))) = frame else {
            panic!("{frame:?}");
        };
        enrolment
    });
    pushed.collect()
}

fn enrolment(world: &World, secret: &DeviceSecret) -> Enrolment {
    Enrolment {
        device_name: DeviceName::lossy("laptop"),
        device_key: secret.public(),
        at: world.wall,
    }
}

/// What a device is told when it logs in with its token.
fn told(world: &mut World, secret: &DeviceSecret, token: &Token) -> Vec<Enrolment> {
    let session = world.connect(HOME);
    let answer = world.token_login(session, "alice", secret, token.clone());
    let Answer::Login(LoginAnswer::LoggedIn(logged_in)) = answer else {
        panic!("{answer:?}");
    };
    world.disconnect(session);
    logged_in.enrolled
}

/// A device of alice's that is away, with its token, and the session of one that was enrolled meanwhile.
fn with_new_device() -> (World, DeviceSecret, Token, ConnectionId) {
    let mut world = World::new();
    let (secret, token) = world.token("alice", 1);
    let new = world.connect(AWAY);
    world.log_in(new, "alice", &device(2));
    (world, secret, token, new)
}

fn note(world: &mut World, session: ConnectionId, secret: &DeviceSecret) {
    let device_key = secret.public();
    let answer = world.ask(session, DeviceRequest::Noted { device_key });
    assert_eq!(answer, DeviceAnswer::Done.into());
}

#[test]
fn whoever_is_there_is_told_of_a_new_device_at_once() {
    let mut world = World::new();
    let alice = world.member("alice", 1, HOME);
    let bob = world.member("bob", 9, HOME);
    let new = world.connect(AWAY);
    let logged_in = world.log_in(new, "alice", &device(2));
    assert_eq!(logged_in.enrolled, [], "it is not told of itself");
    let enrolled = enrolment(&world, &device(2));
    assert_eq!(pushed(&mut world, alice), [enrolled]);
    assert_eq!(pushed(&mut world, new), []);
    assert_eq!(pushed(&mut world, bob), [], "it is another account's");
    // It is no news the second time.
    let again = world.connect(AWAY);
    world.log_in(again, "alice", &device(2));
    assert_eq!(pushed(&mut world, alice), []);
}

#[test]
fn whoever_was_away_is_told_at_each_log_in_until_it_has_noted_it() {
    let (mut world, secret, token, _) = with_new_device();
    let enrolled = enrolment(&world, &device(2));
    world.advance(Duration::from_secs(10));
    world.restart(Duration::from_secs(1));
    for _ in 0..2 {
        assert_eq!(told(&mut world, &secret, &token), vec![enrolled.clone()]);
    }
    let session = world.connect(HOME);
    let logged_in = world.log_in(session, "alice", &secret);
    assert_eq!(logged_in.enrolled, [enrolled], "with the password, too");
    note(&mut world, session, &device(2));
    assert_eq!(told(&mut world, &secret, &logged_in.token.unwrap()), []);
}

/// What was pushed may never have arrived.
#[test]
fn whoever_was_told_and_left_is_told_again() {
    let mut world = World::new();
    let (secret, token) = world.token("alice", 1);
    let alice = world.member("alice", 1, HOME);
    let new = world.connect(AWAY);
    world.log_in(new, "alice", &device(2));
    assert_eq!(pushed(&mut world, alice).len(), 1);
    world.disconnect(alice);
    assert_eq!(told(&mut world, &secret, &token).len(), 1);
    let alice = world.member("alice", 1, HOME);
    world.inboxes.remove(&alice);
    note(&mut world, alice, &device(2));
    world.disconnect(alice);
    assert_eq!(told(&mut world, &secret, &token), []);
}

/// Otherwise a thief would be gone before anybody hears of it.
#[test]
fn a_device_that_logs_out_again_is_told_of_all_the_same() {
    let (mut world, secret, token, new) = with_new_device();
    let enrolled = enrolment(&world, &device(2));
    let answer = world.ask(new, DeviceRequest::LogOut);
    assert_eq!(answer, DeviceAnswer::Done.into());
    assert_eq!(told(&mut world, &secret, &token), [enrolled]);
}

/// Its password was right: the device is enrolled, and would be no news when it comes back.
#[test]
fn a_device_that_leaves_while_it_is_enrolled_is_told_of_at_once() {
    let mut world = World::new();
    let alice = world.member("alice", 1, HOME);
    let new = world.connect(AWAY);
    let started = world.login_start(new, "alice", &device(2), None);
    let ke3 = world.ke3(new, "alice", started);
    world.hold_store = true;
    world.send(new, LoginRequest::LoginFinish { ke3 });
    world.disconnect(new);
    world.hold_store = false;
    while let Some(held) = world.held.pop_front() {
        world.answer_store(held);
    }
    let enrolled = enrolment(&world, &device(2));
    assert_eq!(pushed(&mut world, alice), [enrolled]);
    assert_eq!(world.server.member_count(), 1);
}

#[test]
fn a_key_that_moves_from_another_account_is_new_and_takes_no_news_along() {
    let mut world = World::new();
    let alice = world.member("alice", 1, HOME);
    world.enrolled("bob", 2);
    world.enrolled("bob", 3);
    let new = world.connect(AWAY);
    let logged_in = world.log_in(new, "alice", &device(2));
    assert_eq!(logged_in.enrolled, [], "what bob's devices are told");
    assert_eq!(pushed(&mut world, alice).len(), 1);
}

#[test]
fn the_first_device_is_no_news() {
    let mut world = World::new();
    world.add("alice");
    let first = world.connect(HOME);
    assert_eq!(world.log_in(first, "alice", &device(1)).enrolled, []);
    assert_eq!(pushed(&mut world, first), []);
}

#[test]
fn of_very_many_enrolments_the_newest_are_told() {
    let mut world = World::new();
    let (secret, token) = world.token("alice", 1);
    for number in 0..=ENROLMENTS_UNTOLD_MAX as u8 {
        world.advance(Duration::from_secs(1));
        let new = world.connect(AWAY);
        world.log_in(new, "alice", &device(100 + number));
        assert_eq!(
            world.ask(new, DeviceRequest::LogOut),
            DeviceAnswer::Done.into()
        );
    }
    let told = told(&mut world, &secret, &token);
    let keys = told.into_iter().map(|enrolled| enrolled.device_key);
    let newest = (1..=ENROLMENTS_UNTOLD_MAX as u8).map(|number| device(100 + number).public());
    assert_eq!(keys.collect::<Vec<_>>(), newest.collect::<Vec<_>>());
}

#[test]
fn what_the_store_could_not_note_is_told_again() {
    let mut world = World::new();
    let (secret, token) = world.token("alice", 1);
    let alice = world.member("alice", 1, HOME);
    let new = world.connect(AWAY);
    world.log_in(new, "alice", &device(2));
    world.store_fails = true;
    let device_key = device(2).public();
    let answer = world.ask(alice, DeviceRequest::Noted { device_key });
    assert_eq!(answer, refused(Refusal::StoreFailed));
    world.store_fails = false;
    world.disconnect(alice);
    assert_eq!(told(&mut world, &secret, &token).len(), 1);
}
