//! A node alone: inputs in, outputs compared. What needs another node or a server is in the scenarios of
//! the crate `tests`.

use common::id::DeviceName;
use common::key::Token;
use common::time::{Epoch, UnixTime};

use super::io::{ClosedReason, RendezvousOutput};
use super::*;
use crate::store::MemoryStore;

#[test]
#[expect(clippy::disallowed_methods, reason = "any instant will do as a start")]
fn a_connection_that_is_over_is_not_closed_again() {
    let now = Instant::now();
    let store = MemoryStore::enrolled("alice".parse().unwrap(), Token::from_bytes([1; 32]));
    let options = NodeOptions {
        secret: DeviceSecret::from_seed([1; 32]),
        device_name: DeviceName::lossy("test"),
        restored: store.restore(),
        epoch: Epoch::new(now, UnixTime::from_millis(1_000_000)),
    };
    let mut node = Node::new([1; 32], now, options);
    let (expected, seen) = ("one".to_owned(), "another".to_owned());
    let changed = ClosedReason::ServerKeyChanged { expected, seen };
    let inputs = [
        Input::Rendezvous(RendezvousInput::Closed(changed)),
        Input::ShutDown,
    ];
    let mut wishes = Vec::new();
    for input in inputs {
        node.handle_input(input, now);
        loop {
            match node.poll_output(now, &mut Vec::new()) {
                Output::Wait(_) => break,
                Output::Rendezvous(wish) => wishes.push(wish),
                _ => {}
            }
        }
    }
    assert_eq!(wishes, [RendezvousOutput::Connect]);
}
