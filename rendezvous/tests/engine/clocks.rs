//! Long times that pass at once, as on a machine that was asleep, and numbers at their end.

use std::time::Duration;

use common::limits::{BLOCK_FIRST, SESSION_IDLE_TIMEOUT, TOKEN_LIFETIME};
use common::wire::rendezvous::{
    ByeReason, DeviceAnswer, DeviceRequest, DirectoryAnswer, DirectoryRequest, Refusal, Request,
    RequestFrame, RequestId,
};
use rendezvous::server::{Input, Output};

use super::world::*;

/// Longer than the life of a token, and than milliseconds in 32 bits.
const FIFTY_DAYS: Duration = Duration::from_secs(50 * 24 * 3600);

#[test]
fn t25_fifty_days_pass_at_once() {
    let mut world = World::new();
    assert!(FIFTY_DAYS > TOKEN_LIFETIME && FIFTY_DAYS.as_millis() > u128::from(u32::MAX));
    let (laptop, token) = world.token("alice", 1);
    let online = world.online("bob", 2);
    let watcher = world.online("carol", 3);
    let version = world.list(watcher).version;
    let since = Request::Directory(DirectoryRequest::Watch { since: version });
    assert_eq!(world.ask(watcher, since), DirectoryAnswer::Done.into());
    world.add("dave");
    world.block("dave");
    let half_open = world.accept_only(AWAY);
    let blocked = world.connect(AWAY);
    let answer = world.login_start(blocked, "dave", &device(9), None);
    let retry_after_s = BLOCK_FIRST.as_secs() as u32;
    assert_eq!(answer, refused(Refusal::Blocked { retry_after_s }));

    jump(&mut world);
    for gone in [online, watcher] {
        assert_eq!(world.bye(gone), Some(ByeReason::TimedOut));
    }
    assert!(world.closed.contains_key(&half_open));
    assert_eq!(world.server.connection_count(), 0);
    assert_eq!(world.server.directory().len(), 0);
    let Output::Wait(deadline) = world.server.poll_output(world.now) else {
        panic!("everything is drained");
    };
    assert!(deadline.is_none_or(|deadline| deadline.at > world.now));

    // The token has expired, the password has not, and the block has ended.
    let c = world.connect(HOME);
    let expired = world.token_login(c, "alice", &laptop, token);
    assert_eq!(expired, refused(Refusal::TokenRefused));
    let c = world.connect(HOME);
    assert!(world.log_in(c, "alice", &laptop).token.is_some());
    let c = world.connect(AWAY);
    assert!(world.log_in(c, "dave", &device(9)).failed.is_some());

    // Those who watch are told as ever.
    let watcher = world.member("carol", 4, HOME);
    let listed = world.list(watcher);
    let since = Request::Directory(DirectoryRequest::Watch {
        since: listed.version,
    });
    assert_eq!(world.ask(watcher, since), DirectoryAnswer::Done.into());
    let member = world.online("erin", 5);
    world.advance(Duration::from_millis(50));
    let (_, changes) = world.changes(watcher);
    assert_eq!(online_names(&changes), ["erin"]);
    // And whoever is online from now on stays so for as long as before.
    world.advance(SESSION_IDLE_TIMEOUT - Duration::from_secs(1));
    world.ask(member, DeviceRequest::KeepAlive);
    assert_eq!(world.closed.get(&member), None);
}

#[test]
fn t25_a_request_that_comes_first_after_fifty_days_is_no_harm() {
    let mut world = World::new();
    let early = world.online("alice", 1);
    let late = world.online("bob", 2);
    world.now += FIFTY_DAYS;
    world.wall = world.wall.saturating_add(FIFTY_DAYS);
    // The shell hands over what came before it looks at the clock.
    assert_eq!(
        world.ask(early, DeviceRequest::KeepAlive),
        DeviceAnswer::Done.into()
    );
    world.server.handle_timeout(world.now);
    world.pump();
    assert_eq!(world.closed.get(&early), None);
    assert_eq!(world.bye(late), Some(ByeReason::TimedOut));
    assert_eq!(world.server.directory().len(), 1);
}

#[test]
fn t25_request_numbers_may_be_any_and_wrap() {
    let mut world = World::new();
    let alice = world.online("alice", 1);
    world.last_request = u32::MAX - 4;
    for _ in 0..4 {
        assert_eq!(
            world.ask(alice, DeviceRequest::KeepAlive),
            DeviceAnswer::Done.into()
        );
    }
    world.last_request = 0;
    assert_eq!(
        world.ask(alice, DeviceRequest::KeepAlive),
        DeviceAnswer::Done.into()
    );
    // The same number again and again, and before the answer: each gets one.
    for id in [u32::MAX, 0, 7, 7] {
        let request = Request::Device(DeviceRequest::KeepAlive);
        let id = RequestId(id);
        let frame = RequestFrame { id, request };
        world.input(Input::Requested {
            connection: alice,
            frame,
        });
        assert_eq!(world.take_answer(alice), DeviceAnswer::Done.into());
    }
}

/// All of it at once, with no moment in between at which anything was done.
fn jump(world: &mut World) {
    world.now += FIFTY_DAYS;
    world.wall = world.wall.saturating_add(FIFTY_DAYS);
    world.server.handle_timeout(world.now);
    world.pump();
}
