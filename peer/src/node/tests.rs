//! A node alone: inputs in, outputs compared. What needs another node or a server is in the scenarios of
//! the crate `tests`.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::BytesMut;
use common::id::DeviceName;
use common::key::Token;
use common::limits::RECONNECT_BACKOFF_MAX;
use common::relayed::relayed_address;
use common::time::{Epoch, UnixTime};

use super::command::{Command, CommandError, CommandId, ConnectionState, Reply};
use super::io::{ClosedReason, RendezvousOutput};
use super::*;
use crate::store::MemoryStore;

#[test]
fn a_connection_that_is_over_is_not_closed_again() {
    let mut alone = Alone::new();
    let mut wishes = Vec::new();
    for input in [closed(another_key()), Input::ShutDown] {
        alone.input(input);
        wishes.extend(alone.drain().wishes);
    }
    assert_eq!(wishes, [RendezvousOutput::Connect]);
}

#[test]
fn an_impostor_between_two_connections_takes_nobody_offline_for_good() {
    let mut alone = Alone::new();
    alone.input(closed(another_key()));
    let after = alone.drain();
    assert_eq!(after.wishes, [RendezvousOutput::Connect]);
    // Nobody waits for the next attempt: whoever asks is told at once, with both keys.
    alone.input(Input::Command(CommandId(7), Command::List));
    let replies = alone.drain().replies;
    assert!(
        matches!(&replies[..], [Err(CommandError::ServerKeyChanged { .. })]),
        "{replies:?}"
    );
    let deadline = after.deadline.expect("the next attempt is due");
    assert!(deadline.saturating_duration_since(alone.now) <= RECONNECT_BACKOFF_MAX * 2);
    alone.now = deadline;
    alone.node.handle_timeout(deadline);
    assert_eq!(alone.drain().wishes, [RendezvousOutput::Connect]);
}

/// Whoever could send from the made-up address of a relayed path would be taken for the relay.
#[test]
fn nothing_from_the_address_of_a_relayed_path_is_answered() {
    for (source, answers) in [
        (SocketAddr::from(([192, 0, 2, 1], 4000)), 1),
        (relayed_address([7; 10]), 0),
    ] {
        let mut alone = Alone::new();
        let _ = alone.drain();
        let check = common::stun::binding_request(1);
        alone.input(Input::Datagrams(Datagrams {
            source,
            local: None,
            ecn: None,
            stride: check.len(),
            bytes: BytesMut::from(&check[..]),
        }));
        assert_eq!(alone.drain().transmits, answers, "{source}");
    }
}

#[test]
fn a_command_hurries_the_attempt_that_is_due_later() {
    for reason in [ClosedReason::Failed("refused".to_owned()), another_key()] {
        let mut alone = Alone::new();
        for _ in 0..8 {
            alone.input(closed(reason.clone()));
            let after = alone.drain();
            alone.now = after.deadline.expect("the next attempt is due");
            alone.node.handle_timeout(alone.now);
        }
        alone.drain();
        alone.input(closed(reason.clone()));
        let due = alone.drain().deadline.expect("the next attempt is due");
        // What has just failed is the answer.
        alone.input(Input::Command(CommandId(7), Command::WaitReady));
        let said = alone.drain();
        assert_eq!((said.wishes, said.replies.len()), (vec![], 1));
        alone.now += Duration::from_secs(1);
        for command in [Command::WaitReady, Command::List, Command::Admit] {
            alone.input(Input::Command(CommandId(7), command));
        }
        let said = alone.drain();
        assert_eq!(said.wishes, [RendezvousOutput::Connect], "{reason:?}");
        assert_eq!(said.replies, [], "its result is waited for");
        alone.input(closed(ClosedReason::Failed("still away".to_owned())));
        let said = alone.drain();
        let away = |reply: &Result<Reply, CommandError>| {
            *reply == Err(CommandError::Unreachable("still away".to_owned()))
        };
        assert!(
            said.replies.len() == 3 && said.replies.iter().all(away),
            "{:?}",
            said.replies
        );
        assert!(
            said.deadline > Some(alone.now) && due > alone.now,
            "it goes on by itself"
        );
    }
}

#[test]
fn whoever_asks_often_does_not_wait_for_longer_afterwards() {
    let mut alone = Alone::new();
    let refused = || closed(ClosedReason::Failed("refused".to_owned()));
    alone.input(refused());
    for _ in 0..20 {
        alone.now += Duration::from_secs(1);
        alone.input(Input::Command(CommandId(7), Command::WaitReady));
        alone.drain();
        alone.input(refused());
    }
    let due = alone.drain().deadline.expect("the next attempt is due");
    assert!(due - alone.now < Duration::from_secs(2));
}

#[test]
fn the_status_says_how_long_it_is_until_the_next_attempt() {
    let mut alone = Alone::new();
    for _ in 0..8 {
        alone.input(closed(ClosedReason::Failed("refused".to_owned())));
        let due = alone.drain().deadline.expect("the next attempt is due");
        assert_eq!(alone.retry_in_s(), Some(seconds(due - alone.now)));
        alone.now += (due - alone.now) / 2;
        assert_eq!(alone.retry_in_s(), Some(seconds(due - alone.now)));
        alone.now = due;
        alone.node.handle_timeout(alone.now);
        alone.drain();
    }
}

fn seconds(span: Duration) -> u32 {
    u32::try_from(span.as_millis().div_ceil(1000)).unwrap()
}

fn closed(reason: ClosedReason) -> Input {
    Input::Rendezvous(RendezvousInput::Closed(reason))
}

fn another_key() -> ClosedReason {
    let (expected, seen) = ("one".to_owned(), "another".to_owned());
    ClosedReason::ServerKeyChanged { expected, seen }
}

/// An enrolled node.
struct Alone {
    node: Node,
    now: Instant,
}

/// What a node said until it had nothing more to say.
struct Said {
    wishes: Vec<RendezvousOutput>,
    replies: Vec<Result<Reply, CommandError>>,
    /// Number of batches of datagrams.
    transmits: usize,
    deadline: Option<Instant>,
}

impl Alone {
    #[expect(clippy::disallowed_methods, reason = "any instant will do as a start")]
    fn new() -> Self {
        let now = Instant::now();
        let store = MemoryStore::enrolled("alice".parse().unwrap(), Token::from_bytes([1; 32]));
        let options = NodeOptions {
            secret: DeviceSecret::from_seed([1; 32]),
            device_name: DeviceName::lossy("test"),
            restored: store.restore(),
            epoch: Epoch::new(now, UnixTime::from_millis(1_000_000)),
            rule: PathRule::Any,
            lan: true,
            port_mapping: true,
            is_port_chosen: false,
        };
        let node = Node::new([1; 32], now, options);
        Self { node, now }
    }

    fn input(&mut self, input: Input) {
        self.node.handle_input(input, self.now);
    }

    /// Seconds until the next attempt, as a person is told.
    fn retry_in_s(&mut self) -> Option<u32> {
        self.input(Input::Command(CommandId(9), Command::Status));
        match &self.drain().replies[..] {
            [Ok(Reply::Status(status))] => match status.connection {
                ConnectionState::Offline { retry_in_s, .. } => retry_in_s,
                ConnectionState::Connecting | ConnectionState::Online => None,
            },
            other => panic!("{other:?}"),
        }
    }

    fn drain(&mut self) -> Said {
        let (mut wishes, mut replies) = (Vec::new(), Vec::new());
        let mut transmits = 0;
        loop {
            match self.node.poll_output(self.now, &mut Vec::new()) {
                Output::Wait(deadline) => {
                    return Said {
                        wishes,
                        replies,
                        transmits,
                        deadline: deadline.map(|deadline| deadline.at),
                    };
                }
                Output::Rendezvous(wish) => wishes.push(wish),
                Output::Reply(_, reply) => replies.push(reply),
                Output::Transmit(_) => transmits += 1,
                _ => {}
            }
        }
    }
}
