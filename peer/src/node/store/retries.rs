//! Writes that no caller awaits and that failed: asked for again until they succeed. Without that, a
//! message that was delivered while the disk was full would stay in the outbox on disk, and a key that
//! was seen then would not be pinned.

use std::collections::VecDeque;
use std::time::Instant;

use common::limits::{Occupancy, RETRIED_WRITES_MAX, STORE_RETRY_INTERVAL};

use crate::node::io::StoreRequest;

/// Failed writes, the oldest first.
#[derive(Debug, Default)]
pub(super) struct Retries {
    late: VecDeque<StoreRequest>,
    due: Option<Instant>,
}

impl Retries {
    /// How many wait.
    pub(super) fn occupancy(&self) -> Occupancy {
        Occupancy::new("late requests", self.late.len(), RETRIED_WRITES_MAX)
    }

    /// Adds a write that failed. Of more than [`RETRIED_WRITES_MAX`] the oldest is given up: a restart finds
    /// its message in the outbox, and sends it again.
    pub(super) fn add(&mut self, request: StoreRequest, now: Instant) {
        self.late.push_back(request);
        if self.late.len() > RETRIED_WRITES_MAX {
            self.late.pop_front();
        }
        self.due.get_or_insert(now + STORE_RETRY_INTERVAL);
    }

    /// Hands out what is to be asked for again now, all at once.
    pub(super) fn take_due(&mut self, now: Instant) -> VecDeque<StoreRequest> {
        if self.due.is_none_or(|due| due > now) {
            return VecDeque::new();
        }
        self.due = None;
        std::mem::take(&mut self.late)
    }

    /// When [`Retries::take_due`] hands out something.
    pub(super) const fn poll_timeout(&self) -> Option<Instant> {
        self.due
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::command::MessageState;
    use crate::node::io::ChatRequest;
    use common::id::MessageId;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "any instant will do as a start")]
    fn what_failed_is_asked_again_and_has_a_bound() {
        let now = Instant::now();
        let request = |n: usize| {
            StoreRequest::Chat(ChatRequest::Advance {
                id: MessageId::from_bytes((n as u128).to_be_bytes()),
                to: "bob".parse().unwrap(),
                state: MessageState::Delivered,
            })
        };
        let mut retries = Retries::default();
        assert_eq!(retries.poll_timeout(), None);
        for n in 0..=RETRIED_WRITES_MAX {
            retries.add(request(n), now);
        }
        assert!(retries.take_due(now).is_empty());
        let due = retries.poll_timeout().unwrap();
        assert_eq!(due, now + STORE_RETRY_INTERVAL);
        let late = retries.take_due(due);
        assert_eq!(late.len(), RETRIED_WRITES_MAX);
        assert_eq!(late[0], request(1), "the oldest was given up");
        assert_eq!(retries.poll_timeout(), None);
    }
}
