//! One conversation on one device: what of it is taken, what is void, and what the device has.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use common::key::DeviceKey;
use common::limits::{CHAINS_PER_CONVERSATION_MAX, RUNS_PER_DEVICE_MAX};
use common::log::{
    ChainId, ConversationId, Digest, EntryId, Extent, HeaderHash, HybridClock, RunId, Seal,
    Sequence, Vector,
};
use common::time::UnixTime;

use super::chain::{Chain, StoredChain, Tip};
use super::cuts::Cuts;
use super::run::OwnRun;
use super::sealing::Sealing;

// What this device writes itself.
mod own;
// What others have written, as it comes.
mod looking;
// What of it is taken.
mod taking;
// Forks and cuts.
mod void;

pub use looking::{Checked, Examined, Source};
pub use own::{AppendError, SealJob};
pub use taking::{Admission, Receipt, Rewrite, StoredEntry};

/// One device's copy of one conversation. The description of [`super`] says how its methods follow each other.
#[derive(Clone, Debug)]
pub struct Replica {
    conversation: ConversationId,
    device: DeviceKey,
    chains: BTreeMap<ChainId, Chain>,
    /// Chains that begin later than with 1, because nobody has what was before.
    starts: BTreeMap<ChainId, Sequence>,
    /// Of chains that are there.
    forks: BTreeMap<ChainId, ForkPoint>,
    cuts: Cuts,
    /// Devices with chains here, and this one, that are not approved: what nobody has cut of theirs counts for nothing.
    unapproved: BTreeSet<DeviceKey>,
    /// The hashes of headers where chains end because they fork or are cut, as the store has said.
    limit_hashes: BTreeMap<ChainId, (Sequence, HeaderHash)>,
    /// Of these, the store is to be asked.
    look_ups: BTreeSet<EntryId>,
    /// What was refused may now be taken.
    is_to_restate: bool,
    run: Option<OwnRun>,
    clock: HybridClock,
    sealing: Sealing,
    seal_jobs: VecDeque<SealJob>,
}

/// Where a chain forks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct ForkPoint {
    sequence: Sequence,
    /// The hash of the last header that counts.
    parent: HeaderHash,
}

/// What an entry that is on disk is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryState {
    /// Its author has sealed it.
    Confirmed,
    /// Its author has not sealed it yet, or never will.
    Unconfirmed,
    /// Its author has sealed another one at its place, or before.
    Disputed,
    /// Somebody who may say so has ended the chain before it, or its device is not approved.
    Cut,
}

impl Replica {
    /// An empty copy, on this device.
    pub const fn new(conversation: ConversationId, device: DeviceKey) -> Self {
        Self {
            conversation,
            device,
            chains: BTreeMap::new(),
            starts: BTreeMap::new(),
            forks: BTreeMap::new(),
            cuts: Cuts::new(),
            unapproved: BTreeSet::new(),
            limit_hashes: BTreeMap::new(),
            look_ups: BTreeSet::new(),
            is_to_restate: false,
            run: None,
            clock: HybridClock::new(),
            sealing: Sealing::new(),
            seal_jobs: VecDeque::new(),
        }
    }

    /// Takes a chain from the store, at the start. Forks and cuts come after all chains, by [`Replica::admit_fork`] and
    /// [`Replica::restore_cut`], and then [`Replica::refresh`].
    pub fn restore(&mut self, chain: ChainId, stored: StoredChain, wall: UnixTime) {
        let restored = Chain::restore(stored);
        self.clock.follow(restored.last().clock, wall);
        self.chains.insert(chain, restored);
    }

    /// The conversation that this is a copy of.
    pub const fn conversation(&self) -> ConversationId {
        self.conversation
    }

    /// The device that this copy is on.
    pub const fn device(&self) -> &DeviceKey {
        &self.device
    }

    // ---- what is there -------------------------------------------------------------------------

    /// The last entry of a chain here, sealed or not.
    pub fn tip(&self, chain: &ChainId) -> Option<Tip> {
        self.chains.get(chain).map(Chain::last)
    }

    /// The chains of a device, in the order of their runs.
    pub fn chains_of(&self, device: &DeviceKey) -> impl Iterator<Item = &ChainId> {
        let [first, last] = [[0; RunId::LEN], [0xff; RunId::LEN]].map(|run| ChainId {
            device: *device,
            run: RunId::from_bytes(run),
        });
        self.chains.range(first..=last).map(|(chain, _)| chain)
    }

    /// All chains, in order.
    pub fn chains(&self) -> impl Iterator<Item = &ChainId> {
        self.chains.keys()
    }

    /// What an entry is worth. It must be on disk.
    pub fn state(&self, id: EntryId) -> EntryState {
        let fork = self.forks.get(&id.chain);
        if fork.is_some_and(|fork| id.sequence >= fork.sequence) {
            return EntryState::Disputed;
        }
        if self.cut(&id.chain).is_some_and(|last| id.sequence > last) {
            return EntryState::Cut;
        }
        let sealed = self
            .chains
            .get(&id.chain)
            .map(|chain| chain.sealed.sequence);
        if sealed.is_some_and(|sealed| id.sequence <= sealed) {
            EntryState::Confirmed
        } else {
            EntryState::Unconfirmed
        }
    }

    /// What this device says of a chain to the device `to`: what of it is on disk and counts. To anybody but its author
    /// it says nothing of entries without a seal.
    pub fn extent(&self, id: &ChainId, to: Option<&DeviceKey>) -> Extent {
        let Some(chain) = self.chains.get(id) else {
            return Extent::NOTHING;
        };
        if self.cut(id) == Some(Sequence::START) {
            return Extent::NOTHING;
        }
        let fork = self.forks.get(id).copied();
        let sealed = chain.durable.sealed;
        let is_author = to == Some(&id.device);
        let last = if is_author {
            chain.durable.last
        } else {
            sealed
        };
        let whole = Extent {
            base: chain.durable.base,
            sealed: sealed.sequence,
            last: last.sequence,
            hash: last.hash,
            fork: fork.map(|fork| fork.sequence),
        };
        match self.limit(id) {
            Some((at, Some(hash))) if at < sealed.sequence => Extent {
                base: whole.base.min(at.next()),
                sealed: at,
                last: at,
                hash,
                ..whole
            },
            // Until the store has told the hash there, what is on disk, void or not.
            Some((at, None)) if at < sealed.sequence => Extent {
                fork: None,
                ..whole
            },
            Some((at, _)) if at < last.sequence => Extent {
                last: sealed.sequence,
                hash: sealed.hash,
                ..whole
            },
            Some(_) | None => whole,
        }
    }

    /// All that this device has, as it says to the device `to`.
    pub fn vector(&self, to: Option<&DeviceKey>) -> Vector {
        let extents = self.chains.keys().map(|id| (*id, self.extent(id, to)));
        Vector(
            extents
                .filter(|(_, extent)| *extent != Extent::NOTHING)
                .collect(),
        )
    }

    /// The digest of what this device says to anybody.
    pub fn digest(&self) -> Digest {
        self.vector(None).digest()
    }

    /// The place where two devices differ, if what another one says of a chain cannot be a part of what is here: both
    /// end there, with different headers.
    pub fn differs_at(&self, id: &ChainId, theirs: &Extent) -> Option<Sequence> {
        let ours = self.extent(id, None);
        let is_same_place = ours.last == theirs.last && theirs.last == theirs.sealed;
        let is_entry = ours.last != Sequence::START;
        (is_same_place && is_entry && ours.hash != theirs.hash).then_some(ours.last)
    }

    /// Tells whether the disk has all that was taken of a chain.
    pub(super) fn is_durable(&self, id: &ChainId) -> bool {
        let chain = self.chains.get(id);
        chain.is_none_or(|chain| {
            let durable = (chain.durable.last, chain.durable.sealed);
            durable == (chain.last(), chain.sealed)
        })
    }

    /// The last entry of a chain that can be given, and with which seal or why without one.
    pub(super) fn giveable(&self, id: &ChainId) -> Option<Giveable> {
        let chain = self.chains.get(id)?;
        let is_own = id.device == self.device;
        let (sealed, last) = if is_own {
            (chain.sealed, chain.last())
        } else {
            (chain.durable.sealed, chain.durable.sealed)
        };
        let (sealed, last) = (sealed.sequence, last.sequence);
        let fork = self.forks.get(id).map(|fork| fork.sequence.previous());
        let cut = self.cut(id);
        let ends_at = |place: &Sequence| *place <= sealed;
        Some(Giveable {
            base: chain.durable.base,
            fork_parent: fork.filter(ends_at),
            cut: cut.filter(ends_at),
            last: if fork.or(cut).is_some() { sealed } else { last },
            is_own,
            seal: chain.seal.filter(|_| is_own && fork.is_none()),
        })
    }

    /// Tells whether another chain of this device may begin.
    fn has_room(&self, id: &ChainId) -> bool {
        self.chains.len() < CHAINS_PER_CONVERSATION_MAX
            && self.chains_of(&id.device).count() < RUNS_PER_DEVICE_MAX
    }
}

/// What of a chain may be given to others.
#[derive(Clone, Copy, Debug)]
pub(super) struct Giveable {
    pub(super) base: Sequence,
    /// The last entry before a fork, if it is there: with a proof of the fork it needs no seal.
    pub(super) fork_parent: Option<Sequence>,
    /// The last entry before a cut, if it is there.
    pub(super) cut: Option<Sequence>,
    /// The last one that may be sent along.
    pub(super) last: Sequence,
    /// This device writes the chain.
    pub(super) is_own: bool,
    /// Its last seal, of a chain of one's own.
    pub(super) seal: Option<Seal>,
}

#[cfg(test)]
mod tests;
