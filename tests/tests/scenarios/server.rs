//! The server goes away, or lets nobody in.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use common::limits::{FIND_BACKOFF_FIRST, KEEP_ALIVE_INTERVAL, SESSION_IDLE_TIMEOUT};
use common::wire::rendezvous::{Answer, DeviceAnswer, IntroductionAnswer, Refusal, ServerFrame};
use peer::node::command::{
    Command, CommandError, ConnectionState, PasswordText, Reply, TransferState,
};
use tests::sim::login;
use tests::sim::net::Faults;
use tests::sim::rendezvous_host::PASSWORD;
use tests::sim::world::Host;

use super::shared::{
    answer, answers, ask, end, newcomer, offer, overhear, say, until_delivered, until_online, world,
};

#[test]
fn a_node_sleeps_while_its_server_is_away() {
    let mut world = world(1, Faults::NONE);
    let absent = Command::Send {
        to: vec!["zed".parse().unwrap()],
        body: "are you there?".to_owned().try_into().unwrap(),
        sent: world.wall,
    };
    ask(&mut world, 0, absent).unwrap();
    world.pass(Duration::from_secs(5));
    world.crash_server();
    // The world sees to it that nobody spins or sleeps on work.
    for _ in 0..200 {
        world.pass(Duration::from_secs(1));
        world.poke_all();
    }
    assert_eq!(world.violation, None);
}

#[test]
fn t40_peers_with_a_link_talk_on_without_the_server() {
    let mut world = world(2, Faults::NONE);
    let id = say(&mut world, 0, 1, "first");
    until_delivered(&mut world, 0, id);
    // Until the link needs no relay.
    world.pass(Duration::from_secs(1));
    world.crash_server();
    for host in [0, 1] {
        world.break_control(host);
        until_online(&mut world, host, false);
    }
    let id = say(&mut world, 1, 0, "second");
    until_delivered(&mut world, 1, id);
    world.start_server();
    for host in [0, 1] {
        until_online(&mut world, host, true);
    }
}

#[test]
fn an_offer_waits_until_the_server_is_no_longer_too_busy_to_introduce_anybody() {
    let mut world = world(2, Faults::NONE);
    let mut refusals = 3;
    world.tamper(0, move |frame| {
        if let ServerFrame::Answer { answer, .. } = frame
            && let Answer::Introduction(IntroductionAnswer::Introduced { .. }) = answer
            && refusals > 0
        {
            refusals -= 1;
            // A server that says so has overtaxed itself.
            *answer = Answer::Refused(Refusal::Busy { retry_after_s: 0 });
        }
        true
    });
    let began = world.now;
    let (transfer, _) = offer(&mut world, 5);
    let took = world.now.saturating_duration_since(began);
    assert!(took >= 3 * FIND_BACKOFF_FIRST, "{took:?}");
    answer(&mut world, transfer, true);
    let end = end(&mut world, 0, transfer);
    assert!(matches!(end, TransferState::Done { .. }), "{end:?}");
}

#[test]
fn a_request_before_any_login_says_what_to_do() {
    let mut world = newcomer();
    assert_eq!(ask(&mut world, 0, Command::LogOut), Ok(Reply::Done));
    for host in [0, 1] {
        for command in [Command::List, Command::WaitReady, Command::Admit] {
            let reply = ask(&mut world, host, command);
            assert_eq!(reply, Err(CommandError::NotLoggedIn));
        }
    }
}

#[test]
fn t40_peers_that_lost_their_server_come_back_spread_out() {
    let mut world = world(20, Faults::NONE);
    world.crash_server();
    // They hear of it at the same moment.
    world.pass(Duration::from_millis(6));
    let due: BTreeSet<Instant> = world.hosts.iter().filter_map(Host::due).collect();
    assert_eq!(due.len(), 20, "no two at the same time");
    let spread = *due.last().unwrap() - *due.first().unwrap();
    assert!(spread > Duration::from_millis(300), "{spread:?}");
}

#[test]
fn refusals_of_the_server_reach_whoever_asked_and_are_not_retried() {
    let mut world = newcomer();
    let account = world.hosts[0].account.clone();
    for _ in 0..20 {
        world.attack(0);
        world.pass(Duration::from_secs(1));
    }
    let heard = overhear(&mut world, 1);
    let password = || PasswordText(PASSWORD.to_owned().into());
    let log_in = Command::LogIn {
        account: account.clone(),
        password: password(),
        code: None,
    };
    let reply = ask(&mut world, 1, log_in);
    let Err(CommandError::Refused(Refusal::Blocked { retry_after_s })) = reply else {
        panic!("{reply:?}");
    };
    let register = Command::Register {
        account,
        password: password(),
    };
    let reply = ask(&mut world, 1, register);
    let exists = CommandError::Refused(Refusal::AccountExists);
    assert_eq!(reply, Err(exists));
    // A password is never tried again unasked.
    world.pass(Duration::from_secs(u64::from(retry_after_s) + 60));
    assert_eq!(answers(&heard.borrow(), |_| true), 2, "{heard:?}");
}

#[test]
fn an_idle_session_is_kept_alive_and_a_silent_server_is_given_up() {
    let mut world = world(1, Faults::NONE);
    let heard = overhear(&mut world, 0);
    world.pass(KEEP_ALIVE_INTERVAL * 4);
    let is_alive = |answer: &Answer| *answer == Answer::Device(DeviceAnswer::Done);
    let alive = answers(&heard.borrow(), is_alive);
    assert!((3..=5).contains(&alive), "{alive}");

    // From now on everything that it says is swallowed. It would close the connection itself some time
    // after this.
    world.tamper(0, |_| false);
    let before = world.now;
    until_online(&mut world, 0, false);
    assert!(world.now - before < SESSION_IDLE_TIMEOUT);
}

#[test]
fn whoever_asks_a_silent_server_is_soon_told_that_it_does_not_answer() {
    for command in [Command::List, Command::Admit] {
        let mut world = world(1, Faults::NONE);
        world.tamper(0, |_| false);
        let before = world.now;
        let reply = ask(&mut world, 0, command);
        let Err(CommandError::Unreachable(reason)) = &reply else {
            panic!("{reply:?}");
        };
        assert!(reason.contains("no answer"), "{reason}");
        let took = world.now - before;
        assert!(took <= Duration::from_secs(11), "{took:?}");
    }
}

#[test]
fn a_server_that_is_back_is_found_by_the_next_command() {
    let mut world = world(1, Faults::NONE);
    world.crash_server();
    until_online(&mut world, 0, false);
    // The pause between two attempts is long by now.
    world.pass(Duration::from_secs(300));
    world.start_server();
    world.pass(Duration::from_secs(1));
    let before = world.now;
    if login::connection(&mut world, 0) != Some(ConnectionState::Online) {
        let listed = ask(&mut world, 0, Command::List);
        assert!(matches!(listed, Ok(Reply::Directory(_))), "{listed:?}");
    }
    assert!(world.now - before < Duration::from_secs(1));
}
