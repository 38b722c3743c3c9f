//! Whether a run of this device's own goes on.
//!
//! A run that went on from an older copy of itself would fork: two entries with one sequence, for ever. A backup, a
//! copied profile or a crash between sending and writing leaves such copies. So a run goes on only if nothing speaks
//! against it, and a new one costs nothing but its number.

use common::key::DeviceKey;
use common::log::{ChainId, Extent, HeaderHash, RunId, Sequence};

use super::chain::Tip;

/// The machine and the database file that a run is written on: 32 bytes that differ for another machine, and for a
/// copy of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instance(pub [u8; 32]);

/// Says that a program has ended in order, and where its run ended. Written as the last thing, after all entries are
/// on disk; deleted, durably, at the next start, before anything else is written or said to anybody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CleanMark {
    /// The run that has ended.
    pub run: RunId,
    /// Its last entry.
    pub last: Sequence,
    /// The hash of that one's header.
    pub hash: HeaderHash,
    /// Where it was written.
    pub instance: Instance,
}

/// What becomes of the last run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunStart {
    /// It goes on.
    GoOn(RunId),
    /// A new one begins with the first entry.
    Begin(NewRun),
}

/// Why a run does not go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NewRun {
    /// The device has not written in this conversation yet.
    First,
    /// The program did not end in order. What it wrote last may have reached others and not its own disk.
    NotClean,
    /// The machine or the file is another one: the run may go on there.
    OtherInstance,
    /// What is on disk is not what was there at the end.
    OtherTip,
    /// Somebody has more of the run than this device.
    ShownLonger,
    /// Somebody has the run otherwise.
    ShownDifferent,
    /// It has gone on in two ways, and is void.
    Forked,
    /// Somebody who may say so has ended it.
    Cut,
    /// Its clock is ahead of this device's time, which must have been set back.
    ClockAhead,
}

/// Decides at a start of the program whether the run goes on. `stored` is the end of the device's last run as the
/// database has it.
pub fn at_start(
    mark: Option<&CleanMark>,
    instance: Instance,
    stored: Option<(RunId, Tip)>,
) -> RunStart {
    let Some((run, tip)) = stored else {
        return RunStart::Begin(NewRun::First);
    };
    let Some(mark) = mark else {
        return RunStart::Begin(NewRun::NotClean);
    };
    if mark.instance != instance {
        return RunStart::Begin(NewRun::OtherInstance);
    }
    if (mark.run, mark.last, mark.hash) != (run, tip.sequence, tip.hash) {
        return RunStart::Begin(NewRun::OtherTip);
    }
    RunStart::GoOn(run)
}

/// The run that this device writes in one conversation.
#[derive(Clone, Copy, Debug)]
pub struct OwnRun {
    chain: ChainId,
    /// It has gone on from an earlier start, so that others may know more of it than this device.
    is_resumed: bool,
    over: Option<NewRun>,
}

impl OwnRun {
    /// Begins a run, whose number is random.
    pub const fn begin(device: DeviceKey, run: RunId) -> Self {
        Self {
            chain: ChainId { device, run },
            is_resumed: false,
            over: None,
        }
    }

    /// Goes on with a run, as [`at_start`] allows it.
    pub const fn resume(device: DeviceKey, run: RunId) -> Self {
        Self {
            chain: ChainId { device, run },
            is_resumed: true,
            over: None,
        }
    }

    /// The chain of the run.
    pub const fn chain(&self) -> ChainId {
        self.chain
    }

    /// Why nothing is written in it any more, if so.
    pub const fn over(&self) -> Option<NewRun> {
        self.over
    }

    /// Ends the run. The first reason stays.
    pub(super) fn end(&mut self, why: NewRun) {
        self.over.get_or_insert(why);
    }

    /// Tells whether to end the run because of what somebody says to have of it, and why. `sealed` is its last sealed
    /// entry here, `last` its last one.
    ///
    /// That is only said, not shown. So it counts for a run that was resumed, as a restored database would be, and not
    /// for one that began since: nobody makes this device begin one run after the other.
    pub(super) fn contradicted(&self, extent: &Extent, sealed: Tip, last: Tip) -> Option<NewRun> {
        if !self.is_resumed || self.over.is_some() {
            return None;
        }
        let is_different = |tip: Tip| extent.last == tip.sequence && extent.hash != tip.hash;
        if extent.last > last.sequence {
            Some(NewRun::ShownLonger)
        } else if is_different(sealed) || is_different(last) {
            Some(NewRun::ShownDifferent)
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use common::key::DeviceSecret;
    use common::log::Clock;

    const RUN: RunId = RunId::from_bytes([9; 16]);
    const HERE: Instance = Instance([1; 32]);

    fn tip(sequence: u64, hash: u8) -> Tip {
        Tip {
            sequence: Sequence::new(sequence).unwrap(),
            hash: HeaderHash::from_bytes([hash; 32]),
            clock: Clock::default(),
            placed: Clock::default(),
        }
    }

    fn mark() -> CleanMark {
        CleanMark {
            run: RUN,
            last: tip(5, 5).sequence,
            hash: tip(5, 5).hash,
            instance: HERE,
        }
    }

    #[test]
    fn t45_a_run_goes_on_after_a_clean_end_where_it_was_written_and_nowhere_else() {
        let stored = Some((RUN, tip(5, 5)));
        let start =
            |mark: Option<CleanMark>, instance, stored| at_start(mark.as_ref(), instance, stored);
        assert_eq!(start(Some(mark()), HERE, stored), RunStart::GoOn(RUN));
        let other = RunId::from_bytes([8; 16]);
        let cases = [
            (start(Some(mark()), HERE, None), NewRun::First),
            (start(None, HERE, stored), NewRun::NotClean),
            (
                start(Some(mark()), Instance([2; 32]), stored),
                NewRun::OtherInstance,
            ),
            (
                start(Some(mark()), HERE, Some((RUN, tip(4, 4)))),
                NewRun::OtherTip,
            ),
            (
                start(Some(mark()), HERE, Some((RUN, tip(5, 6)))),
                NewRun::OtherTip,
            ),
            (
                start(Some(mark()), HERE, Some((other, tip(5, 5)))),
                NewRun::OtherTip,
            ),
        ];
        for (start, why) in cases {
            assert_eq!(start, RunStart::Begin(why));
        }
    }

    #[test]
    fn t45_what_others_say_ends_a_run_that_was_resumed_and_no_new_one() {
        let device = DeviceSecret::from_seed([7; 32]).public();
        let extent = |sequence, hash| Extent {
            last: tip(sequence, hash).sequence,
            hash: tip(sequence, hash).hash,
            ..Extent::NOTHING
        };
        let (sealed, last) = (tip(5, 5), tip(6, 6));
        let resumed = OwnRun::resume(device, RUN);
        let said = |sequence, hash| resumed.contradicted(&extent(sequence, hash), sealed, last);
        assert_eq!(said(7, 7), Some(NewRun::ShownLonger));
        assert_eq!(said(6, 7), Some(NewRun::ShownDifferent));
        assert_eq!(said(5, 7), Some(NewRun::ShownDifferent));
        for (sequence, hash) in [(6, 6), (5, 5), (3, 3)] {
            assert_eq!(said(sequence, hash), None);
        }
        let new = OwnRun::begin(device, RUN);
        assert_eq!(new.contradicted(&extent(7, 7), sealed, last), None);
    }
}
