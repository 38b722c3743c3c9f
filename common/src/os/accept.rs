//! Why a connection could not be accepted.

use std::io::{self, ErrorKind};
use std::time::{Duration, Instant};

/// Tells whether `accept` failed because of the connection that it was about: the next one may be fine.
/// Anything else, such as a lack of descriptors, is about the system and does not pass at once.
pub fn is_per_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::ConnectionAborted
            | ErrorKind::ConnectionReset
            | ErrorKind::Interrupted
            | ErrorKind::NetworkDown
            | ErrorKind::NetworkUnreachable
            | ErrorKind::HostUnreachable
            | ErrorKind::PermissionDenied
    )
}

/// How long further failures of the same kind are only counted.
const TOLD_AGAIN: Duration = Duration::from_secs(60);

/// Failures of `accept` that are about the system: the first one goes to the log at once, those of the
/// next minute are counted and told together.
#[derive(Debug, Default)]
pub struct AcceptFailures {
    told: Option<Instant>,
    unlogged: u64,
}

impl AcceptFailures {
    /// Notes that no `what` could be accepted at `now`, and logs it if that is due.
    pub fn on_failed(&mut self, what: &str, error: &io::Error, now: Instant) {
        match self.count(now) {
            Some(1) => log::warn!("cannot accept {what} for now: {error}"),
            Some(count) => {
                log::warn!("cannot accept {what}: {error}; {count} times since last said")
            }
            None => {}
        }
    }

    /// The failures to be told of now, with this one.
    fn count(&mut self, now: Instant) -> Option<u64> {
        self.unlogged += 1;
        let is_due = |told| now.saturating_duration_since(told) >= TOLD_AGAIN;
        if !self.told.is_none_or(is_due) {
            return None;
        }
        self.told = Some(now);
        Some(std::mem::take(&mut self.unlogged))
    }
}

#[cfg(test)]
mod tests {
    use crate::os::clock;

    use super::*;

    #[test]
    fn the_first_failure_is_told_and_the_others_of_a_minute_together() {
        let start = clock::now();
        let mut failures = AcceptFailures::default();
        let mut at = |seconds| failures.count(start + Duration::from_secs(seconds));
        assert_eq!(at(0), Some(1));
        for second in 1..60 {
            assert_eq!(at(second), None);
        }
        assert_eq!(at(60), Some(60));
        assert_eq!(at(61), None);
        assert_eq!(at(3_600), Some(2));
    }
}
