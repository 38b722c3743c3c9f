//! Cuts: where somebody who may say so has ended a chain.

use std::collections::BTreeMap;

use common::key::DeviceKey;
use common::limits::{CUT_CHAINS_MAX, CUTS_PER_SIGNER_MAX};
use common::log::{ChainId, Clock, EntryId, Sequence};

use super::standing::{Rank, Standing};

/// Everything that was said of the ends of chains by those who may, and what follows from it.
#[derive(Clone, Debug, Default)]
pub(super) struct Cuts {
    /// By the device that says so, and the chain that is cut; the latest first.
    said: BTreeMap<DeviceKey, BTreeMap<ChainId, Vec<Cut>>>,
    /// The last entry of each chain that counts.
    effective: BTreeMap<ChainId, Sequence>,
}

/// An entry that says where a chain ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Cut {
    clock: Clock,
    by: EntryId,
    last: Sequence,
}

impl Cuts {
    pub(super) const fn new() -> Self {
        Self {
            said: BTreeMap::new(),
            effective: BTreeMap::new(),
        }
    }

    /// The entry `by` says that `target` is the last entry of its chain that counts. Who may not say so is not heard.
    ///
    /// Of what one signer says of one chain, only the last [`CUTS_PER_SIGNER_MAX`] are kept; which ones does not depend
    /// on the order in which they come. Where too many chains are cut, whoever has cut most of them makes room.
    pub(super) fn note(
        &mut self,
        by: EntryId,
        clock: Clock,
        target: EntryId,
        standing: &impl Standing,
    ) {
        let signer = by.chain.device;
        if standing.rank(&signer, &target.chain.device).is_none() {
            return;
        }
        let said = self.said.get(&signer);
        let is_known = said.is_some_and(|said| said.contains_key(&target.chain));
        if !is_known && !self.make_room(&signer) {
            return;
        }
        let cut = Cut {
            clock,
            by,
            last: target.sequence,
        };
        let said = self.said.entry(signer).or_default();
        let said = said.entry(target.chain).or_default();
        if !said.contains(&cut) {
            said.push(cut);
            said.sort_unstable_by(|one, other| other.cmp(one));
            said.truncate(CUTS_PER_SIGNER_MAX);
        }
    }

    /// Makes room for another chain that `signer` cuts. Tells whether there is some.
    fn make_room(&mut self, signer: &DeviceKey) -> bool {
        let count: usize = self.said.values().map(BTreeMap::len).sum();
        if count < CUT_CHAINS_MAX {
            return true;
        }
        let most = self.said.iter_mut().max_by_key(|(_, said)| said.len());
        match most {
            Some((busiest, said)) if busiest != signer => said.pop_last().is_some(),
            Some(_) | None => false,
        }
    }

    /// Entries of `chain` from `from` on were replaced by others.
    pub(super) fn forget(&mut self, chain: ChainId, from: Sequence) {
        let is_kept = |cut: &Cut| cut.by.chain != chain || cut.by.sequence < from;
        for said in self.said.get_mut(&chain.device).into_iter().flatten() {
            said.1.retain(is_kept);
        }
    }

    /// Tells whether a device has said something.
    pub(super) fn is_signer(&self, device: &DeviceKey) -> bool {
        self.said.contains_key(device)
    }

    /// Decides which cuts count: of several of one chain the most senior signer's, of one signer the last. `counts`
    /// tells whether an entry is confirmed and undisputed. Returns whether that changes anything.
    ///
    /// A cut that is itself above one by a more senior signer is void, and so is one by a device that is not approved,
    /// unless a more senior signer has cut that device's chain above it. So they are gone through by rank: whatever
    /// could make one void is decided before it.
    pub(super) fn decide(
        &mut self,
        standing: &impl Standing,
        counts: impl Fn(&EntryId) -> bool,
    ) -> bool {
        let mut ranked = Vec::new();
        for (signer, said) in &self.said {
            for (target, cuts) in said {
                if let Some(rank) = standing.rank(signer, &target.device) {
                    ranked.extend(cuts.iter().map(|cut| (rank, *signer, *target, cut)));
                }
            }
        }
        // The sort is stable: of one signer the latest stays first.
        ranked.sort_by_key(|(rank, signer, target, _)| (*rank, *signer, *target));
        let mut decided: BTreeMap<ChainId, (Rank, Sequence)> = BTreeMap::new();
        for (rank, _, target, cut) in ranked {
            let above = decided.get(&cut.by.chain).filter(|(by, _)| *by < rank);
            let is_void = match above {
                Some((_, last)) => cut.by.sequence > *last,
                None => !standing.is_approved(&cut.by.chain.device),
            };
            if counts(&cut.by) && !is_void {
                decided.entry(target).or_insert((rank, cut.last));
            }
        }
        let decided = decided.into_iter();
        let effective = decided.map(|(chain, (_, last))| (chain, last)).collect();
        let before = std::mem::replace(&mut self.effective, effective);
        before != self.effective
    }

    /// The last entry of a chain that counts, if somebody has cut it.
    pub(super) fn last(&self, chain: &ChainId) -> Option<Sequence> {
        self.effective.get(chain).copied()
    }

    /// The chains that are cut.
    pub(super) fn chains(&self) -> impl Iterator<Item = (&ChainId, &Sequence)> {
        self.effective.iter()
    }
}

#[cfg(test)]
mod tests;
