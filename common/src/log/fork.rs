//! Stretches of a chain, and proofs of forks: two stretches that contradict each other, though one author has sealed
//! them both.

use super::{ChainId, ConversationId, Header, HeaderHash, Outline, Seal, Sequence};
use crate::limits::ENTRIES_PER_SEAL_MAX;

/// Some headers of a chain in a row, the last of them sealed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stretch {
    /// The place of the first header.
    pub first: Sequence,
    /// The hash of the header before it.
    pub previous: HeaderHash,
    /// What the places do not say, 1 to [`ENTRIES_PER_SEAL_MAX`].
    pub outlines: Vec<Outline>,
    /// The seal of the last one.
    pub seal: Seal,
}

impl Stretch {
    /// The place of the last header.
    pub fn last(&self) -> Sequence {
        self.first.plus(self.outlines.len().saturating_sub(1))
    }

    /// The hashes of the headers at their places in a chain.
    pub fn hashes(&self, conversation: ConversationId, chain: ChainId) -> Vec<HeaderHash> {
        chained(
            conversation,
            chain,
            self.first,
            self.previous,
            &self.outlines,
        )
    }

    /// Tells whether it has the shape of a stretch. Its seal may still be wrong.
    ///
    /// # Errors
    ///
    /// [`StretchError`] says what is wrong.
    pub fn check(&self) -> Result<(), StretchError> {
        if !(1..=ENTRIES_PER_SEAL_MAX).contains(&self.outlines.len()) {
            return Err(StretchError::Length);
        }
        let is_first = self.first == Sequence::FIRST;
        if self.first == Sequence::START || is_first != (self.previous == HeaderHash::NONE) {
            return Err(StretchError::Place);
        }
        let last = self.first.number() + self.outlines.len() as u64 - 1;
        if self.seal.sequence.number() == last {
            Ok(())
        } else {
            Err(StretchError::SealedElsewhere)
        }
    }

    /// The part from `first` on; `None` if it is not within. `hashes` are those of the whole.
    #[must_use]
    pub fn from(&self, first: Sequence, hashes: &[HeaderHash]) -> Option<Self> {
        let skipped = usize::try_from(first.number().checked_sub(self.first.number())?).ok()?;
        let outlines = self.outlines.get(skipped..)?;
        if outlines.is_empty() {
            return None;
        }
        let previous = match skipped.checked_sub(1) {
            Some(place) => *hashes.get(place)?,
            None => self.previous,
        };
        Some(Self {
            first,
            previous,
            outlines: outlines.to_vec(),
            seal: self.seal,
        })
    }
}

/// The hashes of headers in a row, of which the first is at `first` and follows `previous`.
pub fn chained<'a>(
    conversation: ConversationId,
    chain: ChainId,
    first: Sequence,
    previous: HeaderHash,
    outlines: impl IntoIterator<Item = &'a Outline>,
) -> Vec<HeaderHash> {
    let mut header = None;
    let hashes = outlines.into_iter().map(|outline| {
        let (sequence, previous) = match header {
            None => (first, previous),
            Some((sequence, hash)) => (Sequence::next(sequence), hash),
        };
        let hash = Header {
            conversation,
            chain,
            sequence,
            previous,
            outline: *outline,
        }
        .hash();
        header = Some((sequence, hash));
        hash
    });
    hashes.collect()
}

/// Why headers are no stretch of a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StretchError {
    /// There are none, or too many.
    #[error("a stretch has 1 to {ENTRIES_PER_SEAL_MAX} headers")]
    Length,
    /// They begin before the first entry of a run, or follow nothing and are not the first.
    #[error("the stretch begins where no entry can be")]
    Place,
    /// The seal is not that of the last header.
    #[error("the seal of the stretch is not at its end")]
    SealedElsewhere,
}

/// Evidence that a device has sealed two different entries at one place of a run, which anybody can verify.
///
/// Both stretches begin there and follow the same header, so that everything before is undisputed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForkProof {
    /// Where the chain was written.
    pub conversation: ConversationId,
    /// The chain that goes on in two ways.
    pub chain: ChainId,
    /// One of them.
    pub one: Stretch,
    /// The other way, from the same place on.
    pub other: Stretch,
}

impl ForkProof {
    /// Verifies the proof, which takes two signature checks.
    ///
    /// # Errors
    ///
    /// [`ForkError`] if it proves nothing.
    pub fn verify(&self) -> Result<Fork, ForkError> {
        let (one, other) = (&self.one, &self.other);
        one.check()?;
        other.check()?;
        if (one.first, one.previous) != (other.first, other.previous) {
            return Err(ForkError::Apart);
        }
        if one.outlines[0] == other.outlines[0] {
            return Err(ForkError::Same);
        }
        if !self.is_sealed(one) || !self.is_sealed(other) {
            return Err(ForkError::Unsealed);
        }
        Ok(Fork {
            conversation: self.conversation,
            chain: self.chain,
            sequence: one.first,
            parent: one.previous,
        })
    }

    fn is_sealed(&self, stretch: &Stretch) -> bool {
        let hashes = stretch.hashes(self.conversation, self.chain);
        let last = hashes.last();
        last.is_some_and(|hash| stretch.seal.is_by(&self.chain.device, hash))
    }
}

/// A fork that is proved: from `sequence` on the chain is void.
///
/// Only [`ForkProof::verify`] makes one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fork {
    conversation: ConversationId,
    chain: ChainId,
    sequence: Sequence,
    parent: HeaderHash,
}

impl Fork {
    /// The conversation in which the author contradicts itself.
    pub const fn conversation(&self) -> ConversationId {
        self.conversation
    }

    /// The chain that is void from [`Fork::sequence`] on.
    pub const fn chain(&self) -> ChainId {
        self.chain
    }

    /// The first place with two entries.
    pub const fn sequence(&self) -> Sequence {
        self.sequence
    }

    /// The hash of the header before, the last one that counts: genuine, because what follows it is sealed.
    pub const fn parent(&self) -> HeaderHash {
        self.parent
    }
}

/// Why a proof proves nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ForkError {
    /// One of the stretches is none.
    #[error(transparent)]
    Stretch(#[from] StretchError),
    /// The stretches do not follow the same header.
    #[error("the two stretches do not follow the same header")]
    Apart,
    /// Both have the same first header.
    #[error("the two stretches begin with the same header")]
    Same,
    /// The device has not sealed both.
    #[error("the device has not sealed both stretches")]
    Unsealed,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::DeviceSecret;
    use crate::log::{Clock, Kind, RunId};

    const CONVERSATION: ConversationId = ConversationId::from_bytes([5; 32]);

    fn secret() -> DeviceSecret {
        DeviceSecret::from_seed([7; 32])
    }

    fn chain() -> ChainId {
        ChainId {
            device: secret().public(),
            run: RunId::from_bytes([9; 16]),
        }
    }

    /// Headers at 3 and after, sealed.
    fn stretch(texts: &[&str]) -> Stretch {
        let outlines = (1..).zip(texts).map(|(n, text)| {
            Outline::new(Clock::from_bits(n), Kind::TEXT, text.as_bytes()).unwrap()
        });
        let mut stretch = Stretch {
            first: Sequence::new(3).unwrap(),
            previous: HeaderHash::from_bytes([4; 32]),
            outlines: outlines.collect(),
            seal: Seal::sign_hash(&secret(), Sequence::START, &HeaderHash::NONE),
        };
        let hashes = stretch.hashes(CONVERSATION, chain());
        stretch.seal = Seal::sign_hash(&secret(), stretch.last(), hashes.last().unwrap());
        stretch
    }

    fn proof() -> ForkProof {
        ForkProof {
            conversation: CONVERSATION,
            chain: chain(),
            one: stretch(&["yes", "and"]),
            other: stretch(&["no"]),
        }
    }

    #[test]
    fn t41_two_sealed_headers_at_one_place_prove_a_fork() {
        let fork = proof().verify().unwrap();
        assert_eq!(fork.sequence().number(), 3);
        assert_eq!(fork.parent(), HeaderHash::from_bytes([4; 32]));
        assert_eq!(fork.chain(), chain());
    }

    #[test]
    fn t42_nothing_else_does() {
        let same = ForkProof {
            other: stretch(&["yes"]),
            ..proof()
        };
        assert_eq!(same.verify(), Err(ForkError::Same));
        let mut apart = proof();
        apart.other.previous = HeaderHash::from_bytes([6; 32]);
        assert_eq!(apart.verify(), Err(ForkError::Apart));
        let mut unsealed = proof();
        unsealed.other.outlines[0].kind = Kind::EDIT;
        assert_eq!(unsealed.verify(), Err(ForkError::Unsealed));
        let mut elsewhere = proof();
        elsewhere.one.outlines.pop();
        let error = ForkError::Stretch(StretchError::SealedElsewhere);
        assert_eq!(elsewhere.verify(), Err(error));
        let mut of_another = proof();
        of_another.conversation = ConversationId::from_bytes([6; 32]);
        assert_eq!(of_another.verify(), Err(ForkError::Unsealed));
        let mut of_nobody = proof();
        of_nobody.chain.device = DeviceSecret::from_seed([8; 32]).public();
        assert_eq!(of_nobody.verify(), Err(ForkError::Unsealed));
    }

    #[test]
    fn a_stretch_has_a_bounded_number_of_headers() {
        let words = vec!["word"; ENTRIES_PER_SEAL_MAX + 1];
        assert_eq!(stretch(&words).check(), Err(StretchError::Length));
        assert_eq!(stretch(&words[1..]).check(), Ok(()));
        let mut empty = stretch(&["word"]);
        empty.outlines.clear();
        assert_eq!(empty.check(), Err(StretchError::Length));
    }

    #[test]
    fn a_part_of_a_stretch_follows_what_it_leaves_out() {
        let whole = stretch(&["a", "b", "c"]);
        let hashes = whole.hashes(CONVERSATION, chain());
        let part = whole.from(Sequence::new(5).unwrap(), &hashes).unwrap();
        assert_eq!(part.previous, hashes[1]);
        assert_eq!(part.hashes(CONVERSATION, chain()), hashes[2..]);
        assert_eq!(part.check(), Ok(()));
        assert_eq!(whole.from(whole.first, &hashes), Some(whole.clone()));
        for outside in [2, 6] {
            assert_eq!(whole.from(Sequence::new(outside).unwrap(), &hashes), None);
        }
    }
}
