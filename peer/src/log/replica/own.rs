//! What this device writes itself: its run, and the seals.

use std::time::Instant;

use common::limits::{
    ENTRIES_PER_SEAL_MAX, PAGE_ENTRIES_MAX, PAGE_LEN_MAX, SEQUENCE_MAX, UNSEALED_ENTRIES_MAX,
};
use common::log::{Body, ChainId, EntryId, Header, HeaderHash, Kind, Outline, Seal, Sequence};
use common::time::UnixTime;

use super::super::chain::{Chain, Tip, Unsealed};
use super::super::order::Placed;
use super::super::page::Entry;
use super::super::run::{NewRun, OwnRun};
use super::Replica;
use super::taking::{Admission, StoredEntry};
use crate::log::standing::Standing;

/// A header of this device's own that is to be signed, off the loop, for [`Replica::handle_seal`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SealJob {
    /// The chain to be sealed.
    pub chain: ChainId,
    /// The place of the header.
    pub sequence: Sequence,
    /// The hash of the header to be signed.
    pub hash: HeaderHash,
}

/// Why nothing was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// A run is to be begun first, with a random number: [`Replica::begin`].
    #[error("the run does not go on: begin a new one")]
    NewRun(NewRun),
    /// This device is not approved, or not any more.
    #[error("this device is not approved: approve it on another one")]
    NotApproved,
    /// The body is longer than any may be.
    #[error("the body is too long for an entry")]
    TooLong,
    /// The signer is behind: wait for it.
    #[error("{UNSEALED_ENTRIES_MAX} entries wait for a seal")]
    Unsealed,
    /// This device or the conversation has as many runs as there may be, or the run as many entries.
    #[error("no more can be written in this conversation by this device")]
    Full,
}

impl Replica {
    /// Begins a run of this device's own, whose number is random, or goes on with one. What the one before has left
    /// without a seal is still sealed.
    pub fn begin(&mut self, run: OwnRun) {
        self.seal_last();
        self.run = Some(run);
    }

    /// The run that this device writes now.
    pub const fn run(&self) -> Option<&OwnRun> {
        self.run.as_ref()
    }

    /// Ends the present run, if it is this chain. Where another copy of this device has contradicted it, what has no
    /// seal yet gets none any more: a second sealed entry at one place would be a fork.
    pub(super) fn end_run(&mut self, id: ChainId, why: NewRun) {
        let is_contradicted = match why {
            NewRun::ShownLonger | NewRun::ShownDifferent | NewRun::Forked => true,
            NewRun::First
            | NewRun::NotClean
            | NewRun::OtherInstance
            | NewRun::OtherTip
            | NewRun::Cut
            | NewRun::ClockAhead => false,
        };
        if is_contradicted {
            self.seal_jobs.retain(|job| job.chain != id);
        }
        let Some(run) = self.run.as_mut().filter(|run| run.chain() == id) else {
            return;
        };
        run.end(why);
        if is_contradicted {
            self.sealing.clear();
        } else {
            self.seal_last();
        }
    }

    /// Has the last entry of the present run signed, if the next seal was to cover it.
    fn seal_last(&mut self) {
        if self.sealing.poll_timeout().is_some()
            && let Some(run) = &self.run
            && let Some(tip) = self.tip(&run.chain())
        {
            self.seal_jobs.push_back(SealJob {
                chain: run.chain(),
                sequence: tip.sequence,
                hash: tip.hash,
            });
        }
        self.sealing.clear();
    }

    /// Writes an entry. It may be sent to others before the disk has it: what others then have of a run that was lost
    /// here is why none goes on after a crash. `wall` is this device's own time.
    ///
    /// # Errors
    ///
    /// [`AppendError`] says what to do first.
    pub fn append(
        &mut self,
        kind: Kind,
        body: Vec<u8>,
        wall: UnixTime,
        now: Instant,
        standing: &impl Standing,
    ) -> Result<Admission, AppendError> {
        let id = self.writable()?;
        let empty = Chain::starting_at(Sequence::FIRST, HeaderHash::NONE);
        let chain = self.chains.get(&id).unwrap_or(&empty);
        let last = chain.last();
        if chain.unsealed().len() >= UNSEALED_ENTRIES_MAX {
            return Err(AppendError::Unsealed);
        }
        let is_new = last.sequence == Sequence::START;
        let has_room = !is_new || self.chains.contains_key(&id) || self.has_room(&id);
        let is_last = last.sequence.plus(2 * PAGE_ENTRIES_MAX).number() == SEQUENCE_MAX;
        if !has_room || is_last {
            return Err(AppendError::Full);
        }
        let Some(clock) = self.clock.tick((!is_new).then_some(last.clock), wall) else {
            self.end_run(id, NewRun::ClockAhead);
            return Err(AppendError::NewRun(NewRun::ClockAhead));
        };
        let outline = Outline::new(clock, kind, &body).ok_or(AppendError::TooLong)?;
        let body_len = body.len();
        let stored = self.stored(id, last, outline, body, wall);
        let chain = self.chains.entry(id).or_insert(empty);
        chain.follow(None, &[Unsealed::from(&stored)]);
        let mut admission = Admission::new(id, chain, None);
        if self.sealing.on_entry(body_len, now) {
            self.seal_last();
            self.sealing.on_seal(now);
        }
        self.note_own_cut(&stored, id, standing);
        admission.entries.push(stored);
        Ok(admission)
    }

    /// The chain that can be written now.
    fn writable(&mut self) -> Result<ChainId, AppendError> {
        if self.unapproved.contains(&self.device) {
            return Err(AppendError::NotApproved);
        }
        let run = self.run.ok_or(AppendError::NewRun(NewRun::First))?;
        if let Some(why) = run.over() {
            return Err(AppendError::NewRun(why));
        }
        let id = run.chain();
        let next = self.tip(&id).unwrap_or(Tip::START).sequence.next();
        if self.is_void(&id, next) {
            self.end_run(id, NewRun::Cut);
            return Err(AppendError::NewRun(NewRun::Cut));
        }
        Ok(id)
    }

    fn stored(
        &self,
        chain: ChainId,
        last: Tip,
        outline: Outline,
        body: Vec<u8>,
        wall: UnixTime,
    ) -> StoredEntry {
        let header = Header {
            conversation: self.conversation,
            chain,
            sequence: last.sequence.next(),
            previous: last.hash,
            outline,
        };
        let is_first = header.sequence == Sequence::FIRST;
        StoredEntry {
            sequence: header.sequence,
            hash: header.hash(),
            placed: Placed::after((!is_first).then_some(last.placed), outline.clock, wall),
            entry: Entry {
                outline,
                body: Some(body),
            },
        }
    }

    fn note_own_cut(&mut self, stored: &StoredEntry, chain: ChainId, standing: &impl Standing) {
        let outline = stored.entry.outline;
        let body = stored.entry.body.as_deref().unwrap_or_default();
        if outline.kind != Kind::CUT {
            return;
        }
        if let Ok(Body::Cut(target)) = Body::parse(outline.kind, body) {
            let by = EntryId {
                chain,
                sequence: stored.sequence,
            };
            self.cuts.note(by, outline.clock, target, standing);
        }
    }

    // ---- seals ---------------------------------------------------------------------------------

    /// What earlier runs of this device, and the one that goes on, have left without a seal, at the start: what is on
    /// disk is sealed after all.
    pub fn seal_remains(&mut self) {
        let own: Vec<ChainId> = self.chains_of(&self.device).copied().collect();
        for id in own {
            let Some(chain) = self.chains.get(&id) else {
                continue;
            };
            if self.forks.contains_key(&id) {
                continue;
            }
            let (mut count, mut cost) = (0, 0);
            let mut jobs = Vec::new();
            let mut unsealed = chain.unsealed().iter().peekable();
            while let Some(entry) = unsealed.next() {
                (count, cost) = (count + 1, cost + entry.cost);
                let is_last = unsealed
                    .peek()
                    .is_none_or(|next| cost + next.cost > PAGE_LEN_MAX);
                if is_last || count == ENTRIES_PER_SEAL_MAX {
                    (count, cost) = (0, 0);
                    jobs.push(SealJob {
                        chain: id,
                        sequence: entry.tip.sequence,
                        hash: entry.tip.hash,
                    });
                }
            }
            self.seal_jobs.extend(jobs);
        }
    }

    /// When [`Replica::poll_seal`] may have something, if ever.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.sealing.poll_timeout()
    }

    /// The next header to be signed, once it is due.
    pub fn poll_seal(&mut self, now: Instant) -> Option<SealJob> {
        if self.sealing.poll_timeout().is_some_and(|due| due <= now) {
            self.seal_last();
            self.sealing.on_seal(now);
        }
        self.seal_jobs.pop_front()
    }

    /// A header has been signed. `None` if it counts no more: the seal is to be forgotten, and sent to nobody.
    pub fn handle_seal(
        &mut self,
        job: &SealJob,
        seal: Seal,
        standing: &impl Standing,
    ) -> Option<Admission> {
        // What is cut is sealed all the same: a cut may be taken back.
        if self
            .fork(&job.chain)
            .is_some_and(|fork| job.sequence >= fork)
        {
            return None;
        }
        let chain = self.chains.get_mut(&job.chain)?;
        let is_here = chain.unsealed().iter().any(|entry| {
            let Tip { sequence, hash, .. } = entry.tip;
            (sequence, hash) == (job.sequence, job.hash)
        });
        if !is_here {
            return None;
        }
        chain.confirm(job.sequence, Some(seal));
        let admission = Admission::new(job.chain, chain, Some(seal));
        self.on_confirmed(&job.chain.device, standing);
        Some(admission)
    }
}
