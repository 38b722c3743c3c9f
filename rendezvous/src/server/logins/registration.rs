//! How many accounts one source may register: a bucket for each source that leaks over an hour.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use common::limits::{REGISTRATIONS_PER_SOURCE_PER_HOUR_MAX, SOURCES_MAX};

use crate::source::SourcePrefix;

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

/// Accounts made by each source within the hour, of at most [`SOURCES_MAX`] sources: the one with the
/// fewest, and of those the oldest, makes room, so that a crowd shuts registration for nobody.
#[derive(Debug, Default)]
pub(super) struct Registrations {
    made: BTreeMap<SourcePrefix, Made>,
    /// The same, ordered by how little would be forgotten.
    order: BTreeSet<(Made, SourcePrefix)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Made {
    count: u32,
    since: Instant,
}

impl Registrations {
    /// How long this source has to wait before it makes another account; zero if it may now.
    pub(super) fn wait(&self, source: SourcePrefix, now: Instant) -> Duration {
        match self.made.get(&source) {
            Some(made) if made.count >= REGISTRATIONS_PER_SOURCE_PER_HOUR_MAX => {
                (made.since + HOUR).saturating_duration_since(now)
            }
            Some(_) | None => Duration::ZERO,
        }
    }

    /// Counts an account that this source begins to register.
    pub(super) fn count(&mut self, source: SourcePrefix, now: Instant) {
        let fresh = Made {
            count: 0,
            since: now,
        };
        let is_recent = |made: &Made| now.saturating_duration_since(made.since) < HOUR;
        let mut made = self.remove(source).filter(is_recent).unwrap_or(fresh);
        if self.made.len() >= SOURCES_MAX
            && let Some((_, fewest)) = self.order.first().copied()
        {
            self.remove(fewest);
        }
        made.count += 1;
        self.made.insert(source, made);
        self.order.insert((made, source));
    }

    /// Drops what is older than an hour.
    pub(super) fn sweep(&mut self, now: Instant) {
        let is_recent = |made: &Made| now.saturating_duration_since(made.since) < HOUR;
        self.made.retain(|_, made| is_recent(made));
        self.order.retain(|(made, _)| is_recent(made));
    }

    fn remove(&mut self, source: SourcePrefix) -> Option<Made> {
        let made = self.made.remove(&source)?;
        self.order.remove(&(made, source));
        Some(made)
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
        for _ in 0..REGISTRATIONS_PER_SOURCE_PER_HOUR_MAX {
            assert!(registrations.wait(source, now).is_zero());
            registrations.count(source, now);
        }
        assert_eq!(registrations.wait(source, now), HOUR);
        assert!(registrations.wait(other, now).is_zero());
        assert!(registrations.wait(source, now + HOUR).is_zero());
        registrations.count(source, now + HOUR);
        assert!(registrations.wait(source, now + HOUR).is_zero());
        registrations.sweep(now + 2 * HOUR);
        assert!(registrations.made.is_empty() && registrations.order.is_empty());
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "any instant will do as a start")]
    fn a_crowd_of_sources_shuts_nobody_out_and_frees_no_source_at_its_limit() {
        let now = Instant::now();
        let source = |number: u32| SourcePrefix::of(std::net::Ipv4Addr::from(number).into());
        let mut registrations = Registrations::default();
        for _ in 0..REGISTRATIONS_PER_SOURCE_PER_HOUR_MAX {
            registrations.count(source(0), now);
        }
        for number in 1..=2 * SOURCES_MAX as u32 {
            assert!(registrations.wait(source(number), now).is_zero());
            registrations.count(source(number), now);
        }
        assert_eq!(registrations.made.len(), SOURCES_MAX);
        assert_eq!(registrations.order.len(), SOURCES_MAX);
        assert_eq!(registrations.wait(source(0), now), HOUR);
    }
}
