//! One chain as far as it is held: where it begins and ends, what follows it, and what contradicts it.

use common::limits::{ENTRIES_PER_SEAL_MAX, PAGE_LEN_MAX, UNSEALED_ENTRIES_MAX};
use common::log::{Clock, HeaderHash, Seal, Sequence};

use super::refusal::Refusal;

/// An entry at the end of something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tip {
    /// Where in its chain it is.
    pub sequence: Sequence,
    /// The hash of its header.
    pub hash: HeaderHash,
    /// When it was written, by its author.
    pub clock: Clock,
    /// Where it is shown: [`super::Placed::at`].
    pub placed: Clock,
}

impl Tip {
    /// Nothing: the place before the first entry of a run.
    pub const START: Self = Self {
        sequence: Sequence::START,
        hash: HeaderHash::NONE,
        clock: Clock::from_bits(0),
        placed: Clock::from_bits(0),
    };

    /// The same without clocks: the header before the first entry that is kept.
    const fn before(base: Sequence, hash: HeaderHash) -> Self {
        Self {
            sequence: base.previous(),
            hash,
            ..Self::START
        }
    }
}

/// An entry that no seal covers yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unsealed {
    /// What is known of the entry itself.
    pub tip: Tip,
    /// What it counts in a page: [`super::Entry::cost`].
    pub cost: usize,
}

/// A chain as the store has it when the program starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredChain {
    /// The first entry that is kept; 1 unless older ones are gone.
    pub base: Sequence,
    /// The hash of the header before that one.
    pub before: HeaderHash,
    /// Where the first entry is shown.
    pub base_placed: Clock,
    /// The last sealed one; [`Tip::START`] if none is.
    pub sealed: Tip,
    /// The seal of that one.
    pub seal: Option<Seal>,
    /// What follows it without a seal, at most [`UNSEALED_ENTRIES_MAX`].
    pub unsealed: Vec<Unsealed>,
}

/// What is kept in memory of a chain.
#[derive(Clone, Debug)]
pub(super) struct Chain {
    pub(super) base: Sequence,
    pub(super) before: HeaderHash,
    pub(super) base_placed: Clock,
    /// The last entry that a seal covers.
    pub(super) sealed: Tip,
    pub(super) seal: Option<Seal>,
    /// What follows it, taken from the author itself.
    unsealed: Vec<Unsealed>,
    /// What of it is on disk.
    pub(super) durable: Durable,
}

/// The state of a chain on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Durable {
    pub(super) base: Sequence,
    pub(super) sealed: Tip,
    pub(super) last: Tip,
}

/// Headers in a row that are offered for a chain.
#[derive(Clone, Copy, Debug)]
pub(super) struct Offered<'a> {
    pub(super) first: Sequence,
    pub(super) previous: HeaderHash,
    /// At least one.
    pub(super) hashes: &'a [HeaderHash],
    /// Whether the last one is known to be genuine: by a seal, or because another genuine one follows it.
    pub(super) is_genuine: bool,
}

impl Offered<'_> {
    fn last(&self) -> Sequence {
        self.first.plus(self.hashes.len().saturating_sub(1))
    }

    /// The hash at a place of these, or before them.
    fn hash_at(&self, place: Sequence) -> Option<HeaderHash> {
        if place.next() == self.first {
            return Some(self.previous);
        }
        let index = place.number().checked_sub(self.first.number())?;
        self.hashes.get(usize::try_from(index).ok()?).copied()
    }
}

/// How headers that are offered relate to a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Relation {
    /// They go on where the chain ends, or confirm its end.
    Follow {
        /// How many of them are there already.
        known: usize,
        /// Entries without a seal that they contradict, from this one on.
        replaces: Option<Sequence>,
    },
    /// They come right before the first entry that is kept.
    Precede,
    /// They follow nothing that is there, and nobody has what is missing.
    Restart,
}

impl Chain {
    /// A chain without entries, which begins at `base`.
    pub(super) fn starting_at(base: Sequence, before: HeaderHash) -> Self {
        let start = Tip::before(base, before);
        Self {
            base,
            before,
            base_placed: Clock::default(),
            sealed: start,
            seal: None,
            unsealed: Vec::new(),
            durable: Durable {
                base,
                sealed: start,
                last: start,
            },
        }
    }

    pub(super) fn restore(stored: StoredChain) -> Self {
        let last = stored
            .unsealed
            .last()
            .map_or(stored.sealed, |last| last.tip);
        Self {
            base: stored.base,
            before: stored.before,
            base_placed: stored.base_placed,
            sealed: stored.sealed,
            seal: stored.seal,
            unsealed: stored.unsealed,
            durable: Durable {
                base: stored.base,
                sealed: stored.sealed,
                last,
            },
        }
    }

    // ---- taking --------------------------------------------------------------------------------

    /// Finds where the headers belong.
    ///
    /// # Errors
    ///
    /// [`Refusal`] if they are known, do not follow, or contradict what is sealed.
    pub(super) fn relate(&self, offered: &Offered<'_>) -> Result<Relation, Refusal> {
        let (first, last) = (offered.first, offered.last());
        if last < self.base {
            let is_before = last.next() == self.base && self.base != Sequence::FIRST;
            let is_genuine = offered.hash_at(last) == Some(self.before);
            return match (is_before, is_genuine) {
                (true, true) => Ok(Relation::Precede),
                (true, false) => Err(Refusal::Contradicts),
                (false, _) => Err(Refusal::NotNext),
            };
        }
        if first > self.last().sequence.next() {
            return Err(Refusal::NotNext);
        }
        if let Some(hash) = offered.hash_at(self.sealed.sequence)
            && hash != self.sealed.hash
        {
            let at = self.sealed.sequence;
            return Err(if offered.is_genuine {
                Refusal::Diverged { at }
            } else {
                Refusal::Contradicts
            });
        }
        if last <= self.sealed.sequence {
            return Err(Refusal::Known);
        }
        self.relate_to_unsealed(offered)
    }

    /// The same where all that is sealed agrees.
    fn relate_to_unsealed(&self, offered: &Offered<'_>) -> Result<Relation, Refusal> {
        let (before, last) = (offered.first.previous(), offered.last());
        let mut replaces = None;
        for Unsealed { tip, .. } in &self.unsealed {
            let place = tip.sequence;
            let differs = offered.hash_at(place).is_some_and(|hash| hash != tip.hash);
            if differs && place == before {
                // What they follow is not here; from the last sealed one on they can be had.
                return Err(Refusal::NotNext);
            }
            if differs {
                replaces = Some(place);
                break;
            }
        }
        if replaces.is_some() && !offered.is_genuine {
            return Err(Refusal::Contradicts);
        }
        let agreed = replaces.map_or(self.last().sequence, Sequence::previous);
        let known = agreed.min(last).since(before);
        let is_news = last > agreed || offered.is_genuine;
        let known = usize::try_from(known).map_err(|_| Refusal::NotNext)?;
        if is_news {
            Ok(Relation::Follow { known, replaces })
        } else {
            Err(Refusal::Known)
        }
    }

    /// Checks that not too many entries stand without a seal, or from one seal to the next if the one at `until` is
    /// genuine. `new` are those that are not there yet, with what they count.
    pub(super) fn check_run(
        &self,
        until: Sequence,
        is_genuine: bool,
        replaces: Option<Sequence>,
        new: &[usize],
    ) -> Result<(), Refusal> {
        let is_kept = |place: Sequence| {
            let is_covered = !is_genuine || place <= until;
            is_covered && replaces.is_none_or(|from| place < from)
        };
        let kept = self.unsealed.iter();
        let kept = kept.filter(|entry| is_kept(entry.tip.sequence));
        let costs = kept.map(|entry| &entry.cost).chain(new);
        let (count, cost) = costs.fold((0, 0), |(count, sum), cost| (count + 1, sum + cost));
        // What is written while the author signs needs the next seal.
        let seals = if is_genuine {
            1
        } else {
            UNSEALED_ENTRIES_MAX / ENTRIES_PER_SEAL_MAX
        };
        if count <= seals * ENTRIES_PER_SEAL_MAX && cost <= seals * PAGE_LEN_MAX {
            Ok(())
        } else {
            Err(Refusal::TooFarFromSeal)
        }
    }

    /// Takes entries at the end, after those that they contradict are gone.
    pub(super) fn follow(&mut self, replaces: Option<Sequence>, new: &[Unsealed]) {
        if let Some(from) = replaces {
            self.unsealed.retain(|entry| entry.tip.sequence < from);
        }
        if self.last().sequence.next() == self.base
            && let Some(first) = new.first()
        {
            self.base_placed = first.tip.placed;
        }
        self.unsealed.extend_from_slice(new);
    }

    /// Everything up to here is genuine.
    pub(super) fn confirm(&mut self, until: Sequence, seal: Option<Seal>) {
        let covered = self
            .unsealed
            .partition_point(|entry| entry.tip.sequence <= until);
        if let Some(last) = self.unsealed.drain(..covered).next_back() {
            self.sealed = last.tip;
            self.seal = seal;
        }
    }

    /// Takes entries before the first one. `placed` is where the first of them is shown.
    pub(super) const fn precede(&mut self, first: Sequence, before: HeaderHash, placed: Clock) {
        (self.base, self.before, self.base_placed) = (first, before, placed);
    }

    /// Drops what no seal covers, and tells from where on, if there was anything.
    pub(super) fn drop_unsealed(&mut self) -> Option<Sequence> {
        let first = self.unsealed.first()?.tip.sequence;
        self.unsealed.clear();
        if self.durable.last.sequence >= first {
            self.durable.last = self.durable.sealed;
        }
        Some(first)
    }

    // ---- asking --------------------------------------------------------------------------------

    /// The last entry.
    pub(super) fn last(&self) -> Tip {
        self.unsealed.last().map_or(self.sealed, |last| last.tip)
    }

    pub(super) fn unsealed(&self) -> &[Unsealed] {
        &self.unsealed
    }

    /// The entry at a place, as long as it is the last sealed one or after it.
    pub(super) fn tip_at(&self, place: Sequence) -> Option<Tip> {
        if place == self.sealed.sequence {
            return Some(self.sealed);
        }
        let tips = self.unsealed.iter().map(|entry| entry.tip);
        tips.into_iter().find(|tip| tip.sequence == place)
    }
}

#[cfg(test)]
mod tests;
