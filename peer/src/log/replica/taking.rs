//! What others have written, taken once it is examined and checked, and on disk.

use common::limits::CHAINS_PER_CONVERSATION_MAX;
use common::log::{Body, ChainId, Clock, EntryId, HeaderHash, Kind, Outline, Seal, Sequence};
use common::time::UnixTime;

use super::super::chain::{Chain, Durable, Relation, Tip, Unsealed};
use super::super::order::Placed;
use super::super::page::{Entry, Page};
use super::super::refusal::Refusal;
use super::super::run::NewRun;
use super::Replica;
use super::looking::{Checked, Evidence, Examined, Offer};
use crate::log::standing::Standing;

/// What the store is to do, in one transaction, because of something that was taken or written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admission {
    /// The chain that has grown.
    pub chain: ChainId,
    /// The first entry of the chain that is kept then.
    pub base: Sequence,
    /// The hash of the header before that one.
    pub before: HeaderHash,
    /// Remove all from here on, first: entries without a seal that sealed ones contradict.
    pub remove: Option<Sequence>,
    /// Add these, in order.
    pub entries: Vec<StoredEntry>,
    /// Keep this seal at its place.
    pub seal: Option<Seal>,
    /// The last entry of the chain that is confirmed then.
    pub sealed: Sequence,
    /// Something that this device has written counts no more.
    pub rewrite: Option<Rewrite>,
    /// For [`Replica::committed`], once all of that is on disk.
    pub receipt: Receipt,
}

/// An entry for the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredEntry {
    /// Where in its chain it is.
    pub sequence: Sequence,
    /// The hash of its header.
    pub hash: HeaderHash,
    /// Where it is shown.
    pub placed: Placed,
    /// What is to be stored of it.
    pub entry: Entry,
}

/// Entries that this device has written, as the store had them before, count no more. What of them was written here,
/// and not received from another copy of this device, is to be written again in a new run, unless it was before; the
/// same transaction notes that, so that no crash forgets it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rewrite {
    /// The chain that it was in.
    pub chain: ChainId,
    /// The first of them.
    pub from: Sequence,
    /// The one after the last; `None` if all from there on are.
    pub until: Option<Sequence>,
}

/// Something that is on its way to the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Receipt {
    chain: ChainId,
    durable: Durable,
}

impl Replica {
    /// Takes what was examined and checked. Its place is looked at again: something else may have come since.
    /// `arrival` is this device's own time.
    ///
    /// # Errors
    ///
    /// [`Refusal`] if it follows no more, or is no more to be taken.
    pub fn admit(
        &mut self,
        checked: Checked,
        arrival: UnixTime,
        standing: &impl Standing,
    ) -> Result<Admission, Refusal> {
        let Checked(Examined {
            chain,
            offer,
            evidence,
        }) = checked;
        let admission = match offer {
            Offer::Page(page, hashes) => {
                self.admit_page(*page, &hashes, evidence, arrival, standing)?
            }
            Offer::Seal(hash) => self.admit_seal(chain, evidence, hash)?,
        };
        if evidence != Evidence::Unsealed {
            self.on_confirmed(&chain.device, standing);
        }
        Ok(admission)
    }

    fn admit_seal(
        &mut self,
        id: ChainId,
        evidence: Evidence,
        hash: HeaderHash,
    ) -> Result<Admission, Refusal> {
        let Evidence::Seal(seal) = evidence else {
            return Err(Refusal::Unsealed);
        };
        let is_void = self.is_void(&id, seal.sequence);
        let chain = self.chains.get_mut(&id).ok_or(Refusal::NotNext)?;
        let tip = chain.tip_at(seal.sequence).ok_or(Refusal::Known)?;
        if tip.hash != hash || is_void {
            return Err(Refusal::Void);
        }
        chain.check_run(tip.sequence, true, None, &[])?;
        chain.confirm(seal.sequence, Some(seal));
        Ok(Admission::new(id, chain, Some(seal)))
    }

    fn admit_page(
        &mut self,
        page: Page,
        hashes: &[HeaderHash],
        evidence: Evidence,
        arrival: UnixTime,
        standing: &impl Standing,
    ) -> Result<Admission, Refusal> {
        self.check_limit(&page.chain, page.first, standing)?;
        let fork = self.forks.get(&page.chain).copied();
        if fork.is_some_and(|fork| page.last() >= fork.sequence) {
            return Err(Refusal::Void);
        }
        let id = page.chain;
        let relation = self.relate(&page, hashes, evidence)?;
        if evidence == Evidence::Before && relation != Relation::Precede {
            return Err(Refusal::NotNext);
        }
        match relation {
            Relation::Follow { known, replaces } => {
                self.admit_after(page, hashes, evidence, arrival, (known, replaces), standing)
            }
            Relation::Restart => {
                let start = Chain::starting_at(page.first, page.previous);
                let before = self.chains.insert(id, start);
                let admission =
                    self.admit_after(page, hashes, evidence, arrival, (0, None), standing);
                if admission.is_err() {
                    self.chains.remove(&id);
                    self.chains.extend(before.map(|before| (id, before)));
                }
                admission
            }
            Relation::Precede => self.admit_before(page, hashes, arrival, standing),
        }
    }

    /// Takes a page that goes on where the chain ends, but for those that are `known`.
    fn admit_after(
        &mut self,
        page: Page,
        hashes: &[HeaderHash],
        evidence: Evidence,
        arrival: UnixTime,
        (known, replaces): (usize, Option<Sequence>),
        standing: &impl Standing,
    ) -> Result<Admission, Refusal> {
        let Page {
            chain: id,
            first,
            entries,
            ..
        } = page;
        let last = first.plus(entries.len() - 1);
        let start = Chain::starting_at(Sequence::FIRST, HeaderHash::NONE);
        let chain = self.chains.get(&id).unwrap_or(&start);
        let before = chain.tip_at(first.plus(known).previous());
        let before = before.unwrap_or(chain.sealed);
        let added = added(entries, hashes, first, known, before, arrival)?;
        let cuts: Vec<(EntryId, Clock, EntryId)> = added
            .iter()
            .filter_map(|stored| cut_of(id, stored))
            .collect();

        let chain = self.chains.entry(id).or_insert(start);
        let new: Vec<Unsealed> = added.iter().map(Unsealed::from).collect();
        chain.follow(replaces, &new);
        let seal = match evidence {
            Evidence::Seal(seal) => Some(seal),
            Evidence::Successor | Evidence::Before | Evidence::Unsealed => None,
        };
        if evidence != Evidence::Unsealed {
            chain.confirm(last, seal);
        }
        let mut admission = Admission::new(id, chain, seal);
        (admission.remove, admission.entries) = (replaces, added);
        for stored in &admission.entries {
            self.clock.follow(stored.entry.outline.clock, arrival);
        }
        if let Some(from) = replaces {
            self.cuts.forget(id, from);
        }
        for (by, clock, target) in cuts {
            self.cuts.note(by, clock, target, standing);
        }
        admission.rewrite = self.on_shown(id, replaces);
        Ok(admission)
    }

    /// Takes entries that come before the first one.
    fn admit_before(
        &mut self,
        page: Page,
        hashes: &[HeaderHash],
        arrival: UnixTime,
        standing: &impl Standing,
    ) -> Result<Admission, Refusal> {
        let id = page.chain;
        let chain = self.chains.get_mut(&id).ok_or(Refusal::NotNext)?;
        let clocks = page.entries.iter().map(|entry| entry.outline.clock);
        if !clocks.is_sorted_by(|one, next| one < next) {
            return Err(Refusal::ClockBackwards);
        }
        let mut next = chain.base_placed;
        let mut stored = Vec::with_capacity(page.entries.len());
        for (index, entry) in page.entries.into_iter().enumerate().rev() {
            let placed = Placed::before(next, entry.outline.clock, arrival);
            next = placed.at;
            stored.push(StoredEntry {
                sequence: page.first.plus(index),
                hash: *hashes.get(index).ok_or(Refusal::Malformed)?,
                placed,
                entry,
            });
        }
        stored.reverse();
        chain.precede(page.first, page.previous, next);
        let mut admission = Admission::new(id, chain, None);
        admission.entries = stored;
        let cuts: Vec<_> = admission
            .entries
            .iter()
            .filter_map(|stored| cut_of(id, stored))
            .collect();
        for (by, clock, target) in cuts {
            self.cuts.note(by, clock, target, standing);
        }
        Ok(admission)
    }

    /// Somebody has shown entries of a run of this device's own: if it is the present one, it ends.
    fn on_shown(&mut self, id: ChainId, replaced: Option<Sequence>) -> Option<Rewrite> {
        if id.device != self.device {
            return None;
        }
        self.end_run(id, NewRun::ShownLonger);
        replaced.map(|from| Rewrite {
            chain: id,
            from,
            until: None,
        })
    }

    /// The disk has what was taken or written. Transactions of one chain are reported in their order.
    pub fn committed(&mut self, receipt: &Receipt) {
        if let Some(chain) = self.chains.get_mut(&receipt.chain) {
            chain.durable = receipt.durable;
        }
        self.look_up_limit(&receipt.chain);
    }

    /// Nobody who is left to be asked has entries of the chain before `base`: it is taken from there on. Should
    /// somebody turn up who has them, they are still taken.
    pub fn give_up(&mut self, chain: ChainId, base: Sequence) {
        if self.starts.len() < CHAINS_PER_CONVERSATION_MAX {
            self.starts.insert(chain, base);
        }
    }
}

impl Admission {
    /// What follows for the disk from a chain as it is now.
    pub(super) fn new(id: ChainId, chain: &Chain, seal: Option<Seal>) -> Self {
        Self {
            chain: id,
            base: chain.base,
            before: chain.before,
            remove: None,
            entries: Vec::new(),
            seal,
            sealed: chain.sealed.sequence,
            rewrite: None,
            receipt: Receipt {
                chain: id,
                durable: Durable {
                    base: chain.base,
                    sealed: chain.sealed,
                    last: chain.last(),
                },
            },
        }
    }
}

impl From<&StoredEntry> for Unsealed {
    fn from(stored: &StoredEntry) -> Self {
        Self {
            tip: Tip {
                sequence: stored.sequence,
                hash: stored.hash,
                clock: stored.entry.outline.clock,
                placed: stored.placed.at,
            },
            cost: stored.entry.cost(),
        }
    }
}

/// Dates and places those entries of a page that are new; `before` is the one before them.
fn added(
    entries: Vec<Entry>,
    hashes: &[HeaderHash],
    first: Sequence,
    known: usize,
    before: Tip,
    arrival: UnixTime,
) -> Result<Vec<StoredEntry>, Refusal> {
    let is_start = before.sequence == Sequence::START;
    let mut previous = (!is_start).then_some((before.clock, before.placed));
    let mut added = Vec::with_capacity(entries.len());
    for (index, entry) in entries.into_iter().enumerate().skip(known) {
        let Outline { clock, .. } = entry.outline;
        if previous.is_some_and(|(previous, _)| clock <= previous) {
            return Err(Refusal::ClockBackwards);
        }
        let placed = Placed::after(previous.map(|(_, placed)| placed), clock, arrival);
        previous = Some((clock, placed.at));
        added.push(StoredEntry {
            sequence: first.plus(index),
            hash: *hashes.get(index).ok_or(Refusal::Malformed)?,
            placed,
            entry,
        });
    }
    Ok(added)
}

/// What an entry says of the end of a chain, if it does.
fn cut_of(chain: ChainId, stored: &StoredEntry) -> Option<(EntryId, Clock, EntryId)> {
    let Outline { kind, clock, .. } = stored.entry.outline;
    let body = stored.entry.body.as_deref()?;
    if kind != Kind::CUT {
        return None;
    }
    let by = EntryId {
        chain,
        sequence: stored.sequence,
    };
    let Ok(Body::Cut(target)) = Body::parse(kind, body) else {
        return None;
    };
    Some((by, clock, target))
}
