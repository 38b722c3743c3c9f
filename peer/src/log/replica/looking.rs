//! What others have written, as it comes: whether it may be taken, follows what is here, and is genuine.

use common::key::DeviceKey;
use common::limits::{PAGE_ENTRIES_MAX, PAGE_LEN_MAX};
use common::log::{ChainId, HeaderHash, Seal, Sequence};

use super::super::chain::{Chain, Offered, Relation};
use super::super::page::{Entry, Page};
use super::super::refusal::Refusal;
use super::Replica;
use crate::log::standing::Standing;

/// Whose link something came over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// A link of the device with this key, which it has proved to have.
    Device(DeviceKey),
    /// Another way, by which nobody is proved: a server's store, a file.
    Unproved,
}

/// Something that follows what is here, if its seal is genuine.
#[derive(Clone, Debug)]
pub struct Examined {
    pub(super) chain: ChainId,
    pub(super) offer: Offer,
    pub(super) evidence: Evidence,
}

#[derive(Clone, Debug)]
pub(super) enum Offer {
    Page(Box<Page>, Vec<HeaderHash>),
    /// A seal of an entry that is here.
    Seal(HeaderHash),
}

/// Why the last entry of a page is genuine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Evidence {
    /// Its author has sealed it.
    Seal(Seal),
    /// A fork's proof names its hash as that of the last header that counts.
    Successor,
    /// The first entry that is here names its hash. It counts for nothing but to stand before that one.
    Before,
    /// Nothing: it came from its author.
    Unsealed,
}

impl Examined {
    /// Tells whether there is a seal to verify, so that [`Examined::check`] takes its time.
    pub const fn has_seal(&self) -> bool {
        matches!(self.evidence, Evidence::Seal(_))
    }

    /// Verifies the seal, if there is one. This is slow, and needs nothing but what is in here.
    ///
    /// # Errors
    ///
    /// [`Refusal::BadSeal`] if it is not the author's, or of other entries.
    pub fn check(self) -> Result<Checked, Refusal> {
        let is_genuine = match self.evidence {
            Evidence::Seal(seal) => {
                let hash = match &self.offer {
                    Offer::Page(_, hashes) => hashes.last(),
                    Offer::Seal(hash) => Some(hash),
                };
                hash.is_some_and(|hash| seal.is_by(&self.chain.device, hash))
            }
            Evidence::Successor | Evidence::Before | Evidence::Unsealed => true,
        };
        if is_genuine {
            Ok(Checked(self))
        } else {
            Err(Refusal::BadSeal)
        }
    }
}

/// Something whose seal is genuine. Only [`Examined::check`] makes one.
#[derive(Clone, Debug)]
pub struct Checked(pub(super) Examined);

impl Replica {
    /// Looks at a page: whether it is whole, may be taken at all, and follows what is here. What its seal does not
    /// cover is left out, and so is what is void.
    ///
    /// # Errors
    ///
    /// [`Refusal`] says why it is not worth checking its seal.
    pub fn examine(
        &self,
        mut page: Page,
        source: Source,
        standing: &impl Standing,
    ) -> Result<Examined, Refusal> {
        self.check_shape(&page)?;
        self.check_limit(&page.chain, page.first, standing)?;
        if let Some(seal) = page.seal {
            let covered = seal.sequence.since(page.first.previous());
            let covered = usize::try_from(covered).map_err(|_| Refusal::BadSeal)?;
            if covered == 0 || covered > page.entries.len() {
                return Err(Refusal::BadSeal);
            }
            page.entries.truncate(covered);
        }
        let hashes = page.hashes();
        let (page, hashes, evidence) = self.evidence(page, hashes)?;
        let relation = self.relate(&page, &hashes, evidence)?;
        let is_by_author = source == Source::Device(page.chain.device);
        let evidence = match (relation, evidence) {
            (Relation::Precede, _) => Evidence::Before,
            (_, Evidence::Unsealed) if !is_by_author => return Err(Refusal::Unsealed),
            (_, evidence) => evidence,
        };
        Ok(Examined {
            chain: page.chain,
            offer: Offer::Page(Box::new(page), hashes),
            evidence,
        })
    }

    /// Looks at a seal that comes by itself: for entries that came without one.
    ///
    /// # Errors
    ///
    /// [`Refusal`] if there is nothing that it would seal.
    pub fn examine_seal(&self, id: ChainId, seal: Seal) -> Result<Examined, Refusal> {
        let chain = self.chains.get(&id).ok_or(Refusal::NotNext)?;
        if self.is_void(&id, seal.sequence) {
            return Err(Refusal::Void);
        }
        if seal.sequence <= chain.sealed.sequence {
            return Err(Refusal::Known);
        }
        let tip = chain.tip_at(seal.sequence).ok_or(Refusal::NotNext)?;
        chain.check_run(tip.sequence, true, None, &[])?;
        Ok(Examined {
            chain: id,
            offer: Offer::Seal(tip.hash),
            evidence: Evidence::Seal(seal),
        })
    }

    fn check_shape(&self, page: &Page) -> Result<(), Refusal> {
        if page.conversation != self.conversation {
            return Err(Refusal::OtherConversation);
        }
        let is_first = page.first == Sequence::FIRST;
        let is_place = page.first != Sequence::START
            && is_first == (page.previous == HeaderHash::NONE)
            && page.first.plus(PAGE_ENTRIES_MAX) != page.first.plus(PAGE_ENTRIES_MAX - 1);
        let is_bounded = (1..=PAGE_ENTRIES_MAX).contains(&page.entries.len());
        if !is_place || !is_bounded || page.cost() > PAGE_LEN_MAX {
            return Err(Refusal::Malformed);
        }
        if page.entries.iter().all(Entry::is_sound) {
            Ok(())
        } else {
            Err(Refusal::OtherBody)
        }
    }

    /// Checks that entries from `first` on may count.
    pub(super) fn check_limit(
        &self,
        id: &ChainId,
        first: Sequence,
        standing: &impl Standing,
    ) -> Result<(), Refusal> {
        if self.is_void(id, first) {
            return Err(Refusal::Void);
        }
        if self.cuts.last(id).is_none() && !standing.is_approved(&id.device) {
            return Err(Refusal::NotApproved);
        }
        if self.chains.contains_key(id) || self.has_room(id) {
            Ok(())
        } else {
            Err(Refusal::Full)
        }
    }

    /// Leaves out what is void because of a fork, and finds what shows that the rest is genuine.
    fn evidence(
        &self,
        mut page: Page,
        mut hashes: Vec<HeaderHash>,
    ) -> Result<(Page, Vec<HeaderHash>, Evidence), Refusal> {
        let fork = self.forks.get(&page.chain);
        if let Some(fork) = fork
            && page.last() >= fork.sequence.previous()
        {
            let kept = fork.sequence.since(page.first);
            let kept = usize::try_from(kept).map_err(|_| Refusal::Void)?;
            page.entries.truncate(kept);
            hashes.truncate(kept);
            let at = fork.sequence.previous();
            return match (hashes.last() == Some(&fork.parent), page.seal.take()) {
                (true, _) => Ok((page, hashes, Evidence::Successor)),
                (false, Some(_)) => Err(Refusal::Diverged { at }),
                (false, None) => Err(Refusal::Contradicts),
            };
        }
        let evidence = page.seal.map_or(Evidence::Unsealed, Evidence::Seal);
        Ok((page, hashes, evidence))
    }

    pub(super) fn relate(
        &self,
        page: &Page,
        hashes: &[HeaderHash],
        evidence: Evidence,
    ) -> Result<Relation, Refusal> {
        let is_genuine = match evidence {
            Evidence::Seal(_) | Evidence::Successor => true,
            Evidence::Before | Evidence::Unsealed => false,
        };
        let offered = Offered {
            first: page.first,
            previous: page.previous,
            hashes,
            is_genuine,
        };
        let is_start = is_genuine && self.starts.get(&page.chain) == Some(&page.first);
        let chain = self.chains.get(&page.chain);
        let follows = chain.is_some_and(|chain| page.first <= chain.last().sequence.next());
        if is_start && !follows {
            return Ok(Relation::Restart);
        }
        let fresh = Chain::starting_at(Sequence::FIRST, HeaderHash::NONE);
        let chain = chain.unwrap_or(&fresh);
        let relation = chain.relate(&offered)?;
        if let Relation::Follow { known, replaces } = relation {
            let new = page.entries.get(known..).unwrap_or_default();
            let costs: Vec<usize> = new.iter().map(Entry::cost).collect();
            chain.check_run(page.last(), is_genuine, replaces, &costs)?;
        }
        Ok(relation)
    }
}
