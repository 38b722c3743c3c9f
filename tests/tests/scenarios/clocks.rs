//! Long times that pass at once, as on a machine that was asleep.

use std::time::Duration;

use common::limits::{LEAF_LEN, LINK_IDLE_TIMEOUT, STANDSTILL_MIN};
use common::wire::rendezvous::{Answer, Refusal};
use peer::node::command::{Command, CommandError, ConnectionState, Event, TransferState};
use tests::sim::login::{self, Entry};
use tests::sim::net::{Faults, Site};
use tests::sim::world::{World, WorldOptions};

use super::shared::{
    acquainted, answer, answers, ask, end, offer, open_offers, overhear, reunite, say, separate,
    shown, until, until_delivered, until_online, waiting,
};

/// Longer than milliseconds in 32 bits can count, and than a token lives.
const FIFTY_DAYS: Duration = Duration::from_secs(50 * 24 * 3600);

/// A world in which everybody is logged in, and knows a password.
fn with_passwords(hosts: usize) -> World {
    let mut world = World::new(&WorldOptions {
        uses_passwords: true,
        ..WorldOptions::new(7, hosts, Faults::NONE)
    });
    world.pass(Duration::from_secs(5));
    world
}

/// All hosts sleep for fifty days, and nothing reaches them before they wake.
fn fifty_days_pass(world: &mut World) {
    separate(world);
    for host in 0..world.hosts.len() {
        world.net.cut(Site::Host(host), Site::Server);
        world.net.cut(Site::Server, Site::Host(host));
        world.hosts[host].asleep_until = Some(world.now + FIFTY_DAYS);
    }
    world.pass(FIFTY_DAYS - Duration::from_millis(1));
    reunite(world);
}

#[test]
fn t25_peers_that_slept_for_fifty_days_talk_on() {
    let mut world = with_passwords(3);
    world.stop(2, true);
    let id = say(&mut world, 0, 1, "good night");
    until_delivered(&mut world, 0, id);
    // One waits in the outbox, one in mid-air, and an offer for an answer.
    let absent = say(&mut world, 0, 2, "where are you?");
    let (transfer, _) = offer(&mut world, 5);
    separate(&mut world);
    let late = say(&mut world, 0, 1, "good morning");
    fifty_days_pass(&mut world);
    world.pass(Duration::from_secs(5));
    for host in 0..2 {
        let end = end(&mut world, host, transfer);
        assert!(!matches!(end, TransferState::Done { .. }), "it is over");
        // The token has not lived for so long.
        login::enter(&mut world, host, Entry::LogIn);
        until_online(&mut world, host, true);
    }
    until_delivered(&mut world, 0, late);
    assert_eq!(shown(&world, 1), ["good night", "good morning"]);
    assert_eq!(waiting(&world, 0), 1, "the absent one's still waits");
    // Nobody spins or sleeps on work afterwards.
    for _ in 0..60 {
        world.pass(Duration::from_secs(1));
        world.poke_all();
    }
    assert_eq!(world.violation, None);
    world.start(2);
    login::enter(&mut world, 2, Entry::LogIn);
    until_delivered(&mut world, 0, absent);
}

#[test]
fn t25_a_token_that_expired_meanwhile_asks_for_the_password() {
    let mut world = with_passwords(2);
    world.stop(1, true);
    let absent = say(&mut world, 0, 1, "where are you?");
    let heard = overhear(&mut world, 0);
    fifty_days_pass(&mut world);
    world.pass(Duration::from_secs(120));
    until_online(&mut world, 0, false);
    let reply = ask(&mut world, 0, Command::WaitReady);
    let unknown = CommandError::Refused(Refusal::TokenRefused);
    assert_eq!(reply, Err(unknown));
    let is_refusal = |answer: &Answer| *answer == Answer::Refused(Refusal::TokenRefused);
    let refused = answers(&heard.borrow(), is_refusal);
    assert_eq!(refused, 1, "a refused token is not tried again");
    // What was written is kept.
    assert_eq!(waiting(&world, 0), 1);
    world.start(1);
    for host in 0..2 {
        login::enter(&mut world, host, Entry::LogIn);
    }
    until_delivered(&mut world, 0, absent);
}

/// The second host sleeps.
fn second_sleeps(world: &mut World, span: Duration) {
    world.hosts[1].asleep_until = Some(world.now + span);
    world.pass(span);
}

#[test]
fn whoever_slept_is_not_told_that_the_others_went_away() {
    for is_taken in [false, true] {
        let mut world = with_passwords(2);
        let len = 300 * LEAF_LEN as u32;
        let (transfer, _) = offer(&mut world, len);
        if is_taken {
            answer(&mut world, transfer, true);
            until(&mut world, |world| {
                world.hosts[1].moving.iter().any(|(_, done)| *done > 0)
            });
        }
        second_sleeps(&mut world, Duration::from_secs(60));
        let TransferState::Failed { reason, .. } = end(&mut world, 1, transfer) else {
            panic!("it did not fail");
        };
        let why = "this program was stopped, or the device asleep, for 60 s";
        let told = match is_taken {
            true => format!("the link broke ({why})"),
            false => format!("the link to {} ended: {why}", world.hosts[0].account),
        };
        assert_eq!(reason, told);
    }
}

#[test]
fn whoever_slept_does_not_blame_the_server() {
    let mut world = with_passwords(1);
    world.hosts[0].asleep_until = Some(world.now + Duration::from_secs(60));
    world.hosts[0].events.clear();
    world.pass(Duration::from_secs(61));
    let reason = world.hosts[0].events.iter().find_map(|event| {
        let Event::Connection(ConnectionState::Offline { reason, .. }) = event else {
            return None;
        };
        Some(reason.clone())
    });
    let reason = reason.expect("the session is over");
    assert!(!reason.contains("no answer"), "{reason}");
}

#[test]
fn what_ends_long_after_a_sleep_ends_for_another_reason() {
    let mut world = with_passwords(2);
    let (transfer, _) = offer(&mut world, 5);
    // Until the link is direct.
    world.pass(Duration::from_secs(1));
    // So short that the link outlives it.
    second_sleeps(&mut world, STANDSTILL_MIN);
    world.pass(LINK_IDLE_TIMEOUT);
    assert_eq!(open_offers(&mut world, 1), 1);
    separate(&mut world);
    let TransferState::Failed { reason, .. } = end(&mut world, 1, transfer) else {
        panic!("it did not fail");
    };
    assert!(reason.contains("went away"), "{reason}");
}

/// The monotonic clock stands still while a device sleeps, and its server has given it up without a word.
#[test]
fn a_device_that_wakes_finds_out_soon_that_its_session_is_gone() {
    let time_to_notice = |is_told: bool| {
        let mut world = acquainted(2);
        let gone = world.hosts[0].connection().expect("it is online");
        world.break_connection(gone, true, false);
        // Just after something was heard of the server.
        if is_told {
            world.tell_woken(0, Duration::from_secs(3600));
        }
        let began = world.now;
        until(&mut world, |world| {
            world.hosts[0].connection() != Some(gone)
        });
        until_online(&mut world, 0, true);
        world.now.saturating_duration_since(began)
    };
    let (woken, untold) = (time_to_notice(true), time_to_notice(false));
    eprintln!("a lost session is noticed: woken {woken:?}, otherwise {untold:?}");
    assert!(woken < Duration::from_secs(8), "{woken:?}");
    assert!(untold > 2 * woken, "{untold:?}");
}

#[test]
fn a_device_that_woke_and_has_lost_nothing_goes_on() {
    let mut world = acquainted(2);
    let session = world.hosts[0].connection();
    world.tell_woken(0, Duration::from_secs(3600));
    let id = say(&mut world, 0, 1, "good morning");
    until_delivered(&mut world, 0, id);
    world.pass(Duration::from_secs(60));
    assert_eq!(world.hosts[0].connection(), session);
    assert_eq!(world.violation, None);
}
