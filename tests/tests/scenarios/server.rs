//! The server goes away, or lets nobody in.

use std::time::Duration;

use peer::node::command::{Command, CommandError, Reply};
use tests::sim::net::Faults;

use super::shared::{ask, newcomer, say, until_delivered, until_online, world};

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
