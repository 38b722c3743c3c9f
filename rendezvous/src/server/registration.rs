//! How many accounts one source may register: a bucket for each source that leaks over an hour.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use common::limits::{REGISTRATIONS_PER_SOURCE_HOUR_MAX, SOURCES_MAX};

use super::source::SourcePrefix;

const HOUR: Duration = Duration::from_secs(3600);

/// Who may register.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Registration {
    /// Anybody, within a limit for each source.
    #[default]
    Open,
    /// Nobody; the operator makes the accounts.
    Closed,
}

/// Accounts made by each source within the hour.
#[derive(Debug, Default)]
pub(super) struct Registrations {
    made: BTreeMap<SourcePrefix, Made>,
}

#[derive(Debug)]
struct Made {
    count: u32,
    since: Instant,
}

impl Registrations {
    /// How long this source has to wait before it makes another account; zero if it may now.
    pub(super) fn wait(&self, source: SourcePrefix, now: Instant) -> Duration {
        match self.made.get(&source) {
            Some(made) if made.count >= REGISTRATIONS_PER_SOURCE_HOUR_MAX => {
                (made.since + HOUR).saturating_duration_since(now)
            }
            Some(_) => Duration::ZERO,
            // A server that so many sources register at is under attack: newcomers wait.
            None if self.made.len() >= SOURCES_MAX => Duration::from_secs(60),
            None => Duration::ZERO,
        }
    }

    /// Counts one.
    pub(super) fn count(&mut self, source: SourcePrefix, now: Instant) {
        let fresh = Made {
            count: 0,
            since: now,
        };
        let made = self.made.entry(source).or_insert(fresh);
        if now.saturating_duration_since(made.since) >= HOUR {
            *made = Made {
                count: 0,
                since: now,
            };
        }
        made.count += 1;
    }

    /// Drops what is older than an hour.
    pub(super) fn sweep(&mut self, now: Instant) {
        self.made
            .retain(|_, made| now.saturating_duration_since(made.since) < HOUR);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "any instant will do as a start")]
    fn a_source_waits_for_the_next_hour_and_others_do_not() {
        let now = Instant::now();
        let source = SourcePrefix::of("192.0.2.1".parse().unwrap());
        let other = SourcePrefix::of("192.0.2.2".parse().unwrap());
        let mut registrations = Registrations::default();
        for _ in 0..REGISTRATIONS_PER_SOURCE_HOUR_MAX {
            assert!(registrations.wait(source, now).is_zero());
            registrations.count(source, now);
        }
        assert_eq!(registrations.wait(source, now), HOUR);
        assert!(registrations.wait(other, now).is_zero());
        assert!(registrations.wait(source, now + HOUR).is_zero());
        registrations.count(source, now + HOUR);
        assert!(registrations.wait(source, now + HOUR).is_zero());
        registrations.sweep(now + 2 * HOUR);
        assert!(registrations.made.is_empty());
    }
}
