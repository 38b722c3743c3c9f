//! Long times that pass at once, as on a machine that was asleep, and numbers at their end.

use super::*;

/// Longer than milliseconds in 32 bits can count, and than a token lives.
const FIFTY_DAYS: Duration = Duration::from_secs(50 * 24 * 3600);

impl World {
    /// Time passes, and nobody did anything meanwhile.
    fn jump(&mut self) {
        self.now += FIFTY_DAYS;
        for host in &mut self.hosts {
            host.node.handle_timeout(self.now);
        }
        self.settle();
    }
}

#[test]
fn t25_peers_that_slept_for_fifty_days_talk_on() {
    let mut world = World::new(&["alice", "bob"]);
    let id = world.say(0, "bob", "good night");
    world.until("delivery", |world| {
        world.hosts[0].has_state(id, MessageState::Delivered)
    });
    // One waits in the outbox, one in mid-air, and an offer for an answer.
    world.say(0, "carol", "where are you?");
    let transfer = world.send_file(5);
    world.until("the offer", |world| {
        !world.hosts[1].node.transfers.offers().is_empty()
    });
    world.loses_every = Some(1);
    let late = world.say(0, "bob", "good morning");
    world.jump();
    world.loses_every = None;
    world.pass(Duration::from_secs(1));
    for host in 0..2 {
        let end = world.hosts[host].end_of(transfer);
        assert!(
            end.is_some_and(|end| !matches!(end, TransferState::Done { .. })),
            "the offer is over"
        );
    }
    world.until("delivery", |world| {
        world.hosts[0].has_state(late, MessageState::Delivered)
    });
    assert_eq!(world.hosts[1].texts(), ["good night", "good morning"]);
    assert_eq!(world.hosts[0].node.chat.waiting(), 1, "Carol's still waits");
    // Nothing spins afterwards: each step asserts that no deadline lies in the past.
    world.pass(Duration::from_secs(60));
}

#[test]
fn t25_a_token_that_expired_meanwhile_asks_for_the_password() {
    let mut world = World::new(&["alice", "bob"]);
    let waiting = world.say(0, "carol", "where are you?");
    for host in 0..2 {
        world.break_session(host);
    }
    world.tokens_have_expired = true;
    world.jump();
    world.pass(Duration::from_secs(120));
    assert!(!world.hosts[0].node.effects.requests.is_online());
    let id = world.command(0, Command::WaitReady);
    assert_eq!(world.hosts[0].replies[&id], Err(CommandError::NotLoggedIn));
    let refused = world.hosts[0].refused_tokens;
    assert_eq!(refused, 1, "a refused token is not tried again");
    // What was written is kept.
    assert_eq!(world.hosts[0].node.chat.waiting(), 1);
    assert!(!world.hosts[0].has_state(waiting, MessageState::Delivered));
}

#[test]
fn t25_request_numbers_wrap_without_taking_one_that_is_open() {
    let mut world = World::new(&["alice"]);
    // The server never answers this one.
    let open = world.hosts[0].node.effects.requests.next_id();
    let admit = world.command(0, Command::Admit);
    world.hosts[0]
        .node
        .effects
        .requests
        .set_next_id(u32::MAX - 2);
    for _ in 0..6 {
        let id = world.command(0, Command::List);
        assert!(matches!(
            world.hosts[0].replies[&id],
            Ok(Reply::Directory(_))
        ));
    }
    // As if all numbers had been used meanwhile.
    world.hosts[0].node.effects.requests.set_next_id(open);
    let id = world.command(0, Command::List);
    assert!(matches!(
        world.hosts[0].replies[&id],
        Ok(Reply::Directory(_))
    ));
    assert!(!world.hosts[0].replies.contains_key(&admit));
    world.break_session(0);
    let ended = &world.hosts[0].replies[&admit];
    assert!(
        matches!(ended, Err(CommandError::Unreachable(_))),
        "{ended:?}"
    );
}
