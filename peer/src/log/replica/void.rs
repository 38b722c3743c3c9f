//! Forks and cuts: what of a chain counts no more.

use common::key::DeviceKey;
use common::log::{ChainId, Clock, EntryId, Extent, Fork, HeaderHash, Sequence};

use super::super::chain::Chain;
use super::super::refusal::Refusal;
use super::super::run::NewRun;
use super::taking::Rewrite;
use super::{Admission, ForkPoint, Replica};
use crate::log::standing::Standing;

impl Replica {
    // ---- forks ---------------------------------------------------------------------------------

    /// Takes a fork that is proved. From there on the chain is void; the store keeps the proof and the entries. Of
    /// several forks of a chain the first one counts. If this device has written the chain, what it has lost by
    /// that is to be written again.
    ///
    /// # Errors
    ///
    /// [`Refusal`] if it says nothing new, or is of nobody who counts.
    pub fn admit_fork(
        &mut self,
        fork: &Fork,
        standing: &impl Standing,
    ) -> Result<Admission, Refusal> {
        let id = fork.chain();
        if fork.conversation() != self.conversation {
            return Err(Refusal::OtherConversation);
        }
        let known = self.forks.get(&id).map(|known| known.sequence);
        if known.is_some_and(|known| known <= fork.sequence()) {
            return Err(Refusal::Known);
        }
        if !self.chains.contains_key(&id) {
            let is_wanted = self.cuts.last(&id).is_some() || standing.is_approved(&id.device);
            if !is_wanted {
                return Err(Refusal::NotApproved);
            }
            if !self.has_room(&id) {
                return Err(Refusal::Full);
            }
            let chain = Chain::starting_at(Sequence::FIRST, HeaderHash::NONE);
            self.chains.insert(id, chain);
        }
        let point = ForkPoint {
            sequence: fork.sequence(),
            parent: fork.parent(),
        };
        self.forks.insert(id, point);
        let rewrite = self.on_own_fork(id, point.sequence, known);
        let chain = self.chains.get_mut(&id).ok_or(Refusal::NotNext)?;
        let last = point.sequence.previous();
        if chain
            .tip_at(last)
            .is_some_and(|tip| tip.hash == point.parent)
        {
            // What is sealed after it covers it.
            chain.confirm(last, None);
        }
        let mut admission = Admission::new(id, chain, None);
        admission.rewrite = rewrite;
        self.look_up_limit(&id);
        self.on_confirmed(&id.device, standing);
        Ok(admission)
    }

    fn on_own_fork(
        &mut self,
        id: ChainId,
        from: Sequence,
        until: Option<Sequence>,
    ) -> Option<Rewrite> {
        if id.device != self.device {
            return None;
        }
        self.end_run(id, NewRun::Forked);
        let last = self.chains.get(&id).map(|chain| chain.last().sequence);
        let has_any = last.is_some_and(|last| last >= from);
        has_any.then_some(Rewrite {
            chain: id,
            from,
            until,
        })
    }

    /// Where a chain is known to fork.
    pub fn fork(&self, id: &ChainId) -> Option<Sequence> {
        self.forks.get(id).map(|fork| fork.sequence)
    }

    /// Somebody says to have this of a chain. If it is this device's present run, and that cannot be unless there is
    /// another copy of it, the run ends: what the store is then to remove and the caller to write again is returned.
    pub fn note_claim(&mut self, id: &ChainId, theirs: &Extent) -> Option<Admission> {
        let run = self.run.filter(|run| run.chain() == *id)?;
        let chain = self.chains.get_mut(id)?;
        let why = run.contradicted(theirs, chain.sealed, chain.last())?;
        let from = chain.drop_unsealed();
        let mut admission = Admission::new(*id, chain, None);
        admission.remove = from;
        admission.rewrite = from.map(|from| Rewrite {
            chain: *id,
            from,
            until: None,
        });
        self.end_run(*id, why);
        from.map(|_| admission)
    }

    // ---- cuts ----------------------------------------------------------------------------------

    /// An entry that is on disk says that `target` is the last one of its chain that counts: for the start, and before
    /// [`Replica::refresh`] when somebody may say more than before. What is taken later is noticed.
    pub fn restore_cut(
        &mut self,
        by: EntryId,
        clock: Clock,
        target: EntryId,
        standing: &impl Standing,
    ) {
        self.cuts.note(by, clock, target, standing);
    }

    /// Devices were approved or revoked, or all that the store has was restored: decides anew which cuts count.
    pub fn refresh(&mut self, standing: &impl Standing) {
        self.decide(standing);
        self.is_to_restate = true;
    }

    /// Tells, once, whether others may now give what was refused before. It is then to be said anew on each link what
    /// is here, as at its beginning: who gives does not try for ever.
    pub fn poll_restate(&mut self) -> bool {
        std::mem::take(&mut self.is_to_restate)
    }

    fn decide(&mut self, standing: &impl Standing) {
        let (chains, forks) = (&self.chains, &self.forks);
        let has_changed = self.cuts.decide(standing, |by: &EntryId| {
            let chain = chains.get(&by.chain);
            let fork = forks.get(&by.chain);
            chain.is_some_and(|chain| by.sequence <= chain.sealed.sequence)
                && fork.is_none_or(|fork| by.sequence < fork.sequence)
        });
        self.is_to_restate |= has_changed;
        let devices = self.chains.keys().map(|id| id.device).chain([self.device]);
        self.unapproved = devices
            .filter(|device| !standing.is_approved(device))
            .collect();
        let cut = self.cuts.chains().map(|(chain, _)| *chain);
        let ended: Vec<ChainId> = cut.chain(self.forks.keys().copied()).collect();
        for chain in ended {
            self.look_up_limit(&chain);
        }
    }

    /// More entries of this device are confirmed, or fewer.
    pub(super) fn on_confirmed(&mut self, device: &DeviceKey, standing: &impl Standing) {
        if self.cuts.is_signer(device) {
            self.decide(standing);
        }
    }

    /// Tells whether an entry at this place counts for nothing.
    pub(super) fn is_void(&self, id: &ChainId, place: Sequence) -> bool {
        let fork = self.forks.get(id);
        fork.is_some_and(|fork| place >= fork.sequence)
            || self.cut(id).is_some_and(|last| place > last)
    }

    /// Tells whether somebody who may say so has ended a chain.
    pub fn is_cut(&self, id: &ChainId) -> bool {
        self.cuts.last(id).is_some()
    }

    /// The last entry of a chain that counts, if it is cut, or if its device is not approved.
    pub(super) fn cut(&self, id: &ChainId) -> Option<Sequence> {
        let is_unapproved = self.unapproved.contains(&id.device);
        let none = is_unapproved.then_some(Sequence::START);
        self.cuts.last(id).or(none)
    }

    /// The last entry of a chain that counts, if something ends it, and the hash of its header as the store has told it.
    ///
    /// A fork's proof names the hash there, too. But this device may have a third way, which parts earlier: by saying what
    /// it has itself it lets others notice.
    pub(super) fn limit(&self, id: &ChainId) -> Option<(Sequence, Option<HeaderHash>)> {
        let fork = self.forks.get(id).map(|fork| fork.sequence.previous());
        let at = fork.into_iter().chain(self.cut(id)).min()?;
        let none = (at == Sequence::START).then_some(HeaderHash::NONE);
        let known = self.limit_hashes.get(id).filter(|(of, _)| *of == at);
        Some((at, none.or(known.map(|(_, hash)| *hash))))
    }

    /// Has the store asked for the hash of the header where a chain ends, if that is not known.
    pub(super) fn look_up_limit(&mut self, id: &ChainId) {
        let (Some((at, None)), Some(chain)) = (self.limit(id), self.chains.get(id)) else {
            return;
        };
        if (chain.durable.base..chain.durable.sealed.sequence).contains(&at) {
            self.look_ups.insert(EntryId {
                chain: *id,
                sequence: at,
            });
        }
    }

    /// The next entry whose header's hash is to be read from the store, for [`Replica::handle_hash`]. Until it is, this
    /// device says of the chain what it has on disk, void or not.
    pub fn poll_look_up(&mut self) -> Option<EntryId> {
        self.look_ups.pop_first()
    }

    /// The store has the header with this hash at a place that it was asked for.
    pub fn handle_hash(&mut self, id: EntryId, hash: HeaderHash) {
        self.limit_hashes.insert(id.chain, (id.sequence, hash));
    }
}
