//! Where entries are shown: by the clock of their author, unless that is implausible, and never before what their
//! author wrote before them.

use common::key::DeviceKey;
use common::log::{ChainId, Clock, Dating, EntryId, RunId, Sequence};
use common::time::UnixTime;

/// The place of an entry among all of its conversation: the same on every device, unless one of them found its clock
/// implausible when it arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ShownAt {
    placed: Clock,
    device: DeviceKey,
    run: RunId,
    sequence: Sequence,
}

impl ShownAt {
    /// The place of an entry that [`Placed`] says where to show.
    pub const fn new(id: EntryId, placed: Clock) -> Self {
        Self {
            placed,
            device: id.chain.device,
            run: id.chain.run,
            sequence: id.sequence,
        }
    }

    /// The entry that stands there.
    pub const fn id(&self) -> EntryId {
        EntryId {
            chain: ChainId {
                device: self.device,
                run: self.run,
            },
            sequence: self.sequence,
        }
    }

    /// When it is shown to have been written: [`Placed::at`].
    pub const fn placed(&self) -> Clock {
        self.placed
    }
}

/// When an entry is shown to have been written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placed {
    /// Its own clock, or that of its arrival.
    pub at: Clock,
    /// Why it is not its own: to be shown beside the entry.
    pub dating: Dating,
}

impl Placed {
    /// Places an entry after the one before it in its run.
    pub(super) fn after(previous: Option<Clock>, clock: Clock, arrival: UnixTime) -> Self {
        let own = Self::alone(clock, arrival);
        let earliest = previous.map_or(own.at, |previous| previous.next().unwrap_or(previous));
        Self {
            at: own.at.max(earliest),
            ..own
        }
    }

    /// Places an entry that has come late before the one after it in its run.
    pub(super) fn before(next: Clock, clock: Clock, arrival: UnixTime) -> Self {
        let own = Self::alone(clock, arrival);
        let latest = Clock::from_bits(next.to_bits().saturating_sub(1));
        Self {
            at: own.at.min(latest),
            ..own
        }
    }

    fn alone(clock: Clock, arrival: UnixTime) -> Self {
        let dating = clock.dating(arrival);
        let at = match dating {
            Dating::Plausible => clock,
            Dating::Ahead | Dating::TooOld => Clock::at(arrival),
        };
        Self { at, dating }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixTime = UnixTime::from_millis(1_795_000_000_000);

    #[test]
    fn t44_what_is_dated_in_the_year_9999_or_1970_stands_where_it_came() {
        for bits in [253_370_764_800_000 << 16, 77, u64::MAX] {
            let placed = Placed::after(None, Clock::from_bits(bits), NOW);
            assert_eq!(placed.at, Clock::at(NOW));
            assert_ne!(placed.dating, Dating::Plausible);
        }
    }

    #[test]
    fn a_run_stays_in_its_order_wherever_its_entries_are_placed() {
        let honest = Clock::at(NOW.saturating_sub(common::limits::CLOCK_AHEAD_MAX));
        let first = Placed::after(None, Clock::from_bits(77), NOW);
        let second = Placed::after(Some(first.at), honest, NOW);
        assert_eq!(second.dating, Dating::Plausible);
        assert!(second.at > first.at);
        let third = Placed::after(Some(second.at), Clock::from_bits(u64::MAX), NOW);
        assert!(third.at > second.at);
        let late = Placed::before(first.at, Clock::from_bits(u64::MAX), NOW);
        assert!(late.at < first.at);
    }
}
