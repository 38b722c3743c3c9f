//! Requests to the store that nobody waits for and that failed: asked again until they are carried
//! out. Without that, a message that was delivered while the disk was full would stay in the outbox on
//! disk, and a key that was seen then would not be pinned.

use std::collections::VecDeque;
use std::time::Instant;

use common::limits::{Fill, LATE_STORES_MAX, STORE_RETRY};

use super::io::StoreRequest;

/// What is still to be remembered.
#[derive(Debug, Default)]
pub(super) struct Upkeep {
    late: VecDeque<StoreRequest>,
    due: Option<Instant>,
}

impl Upkeep {
    /// How full it is.
    pub(super) fn fill(&self) -> Fill {
        Fill::new("late requests", self.late.len(), LATE_STORES_MAX)
    }

    /// A request failed. Of more than the limit the oldest is given up: a restart finds its message in
    /// the outbox, and sends it again.
    pub(super) fn on_failed(&mut self, request: StoreRequest, now: Instant) {
        self.late.push_back(request);
        if self.late.len() > LATE_STORES_MAX {
            self.late.pop_front();
        }
        self.due.get_or_insert(now + STORE_RETRY);
    }

    /// Hands out what is to be asked again now.
    pub(super) fn take_due(&mut self, now: Instant) -> VecDeque<StoreRequest> {
        if self.due.is_none_or(|due| due > now) {
            return VecDeque::new();
        }
        self.due = None;
        std::mem::take(&mut self.late)
    }

    /// When there is something to be asked again.
    pub(super) const fn poll_timeout(&self) -> Option<Instant> {
        self.due
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::command::MessageState;
    use common::id::MessageId;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "any instant will do as a start")]
    fn what_failed_is_asked_again_and_has_a_bound() {
        let now = Instant::now();
        let request = |n: usize| StoreRequest::Advance {
            id: MessageId::from_bytes((n as u128).to_be_bytes()),
            to: "bob".parse().unwrap(),
            state: MessageState::Delivered,
        };
        let mut upkeep = Upkeep::default();
        assert_eq!(upkeep.poll_timeout(), None);
        for n in 0..=LATE_STORES_MAX {
            upkeep.on_failed(request(n), now);
        }
        assert!(upkeep.take_due(now).is_empty());
        let due = upkeep.poll_timeout().unwrap();
        assert_eq!(due, now + STORE_RETRY);
        let late = upkeep.take_due(due);
        assert_eq!(late.len(), LATE_STORES_MAX);
        assert_eq!(late[0], request(1), "the oldest was given up");
        assert_eq!(upkeep.poll_timeout(), None);
    }
}
