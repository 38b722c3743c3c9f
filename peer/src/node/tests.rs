//! A node alone: inputs in, outputs compared. What needs another node or a server is in the scenarios of
//! the crate `tests`.

use std::net::SocketAddr;

use bytes::BytesMut;
use common::id::DeviceName;
use common::key::Token;
use common::limits::RECONNECT_BACKOFF_MAX;
use common::relayed::relayed_address;
use common::time::{Epoch, UnixTime};

use super::command::{Command, CommandError, CommandId, Reply};
use super::io::{ClosedReason, RendezvousOutput};
use super::*;
use crate::store::MemoryStore;

#[test]
fn a_connection_that_is_over_is_not_closed_again() {
    let mut alone = Alone::new();
    let mut wishes = Vec::new();
    for input in [key_changed(), Input::ShutDown] {
        alone.input(input);
        wishes.extend(alone.drain().wishes);
    }
    assert_eq!(wishes, [RendezvousOutput::Connect]);
}

#[test]
fn an_impostor_between_two_connections_takes_nobody_offline_for_good() {
    let mut alone = Alone::new();
    alone.input(key_changed());
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

fn key_changed() -> Input {
    let (expected, seen) = ("one".to_owned(), "another".to_owned());
    let changed = ClosedReason::ServerKeyChanged { expected, seen };
    Input::Rendezvous(RendezvousInput::Closed(changed))
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
        };
        let node = Node::new([1; 32], now, options);
        Self { node, now }
    }

    fn input(&mut self, input: Input) {
        self.node.handle_input(input, self.now);
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
