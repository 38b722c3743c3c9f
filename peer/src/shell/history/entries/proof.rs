//! Proofs of forks as bytes: two stretches, each with its first place, the hash before it, the number of its headers,
//! these, and the place and signature of its seal. Numbers are big-endian.

use common::key::Signature;
use common::limits::ENTRIES_PER_SEAL_MAX;
use common::log::{
    ChainId, ConversationId, ForkProof, HeaderHash, Outline, Seal, Sequence, Stretch,
};

pub(super) fn to_bytes(proof: &ForkProof) -> Vec<u8> {
    let mut bytes = Vec::new();
    for stretch in [&proof.one, &proof.other] {
        bytes.extend_from_slice(&stretch.first.number().to_be_bytes());
        bytes.extend_from_slice(stretch.previous.as_bytes());
        bytes.extend_from_slice(&(stretch.outlines.len() as u64).to_be_bytes());
        for outline in &stretch.outlines {
            bytes.extend_from_slice(&outline.to_bytes());
        }
        bytes.extend_from_slice(&stretch.seal.sequence.number().to_be_bytes());
        bytes.extend_from_slice(stretch.seal.signature.as_bytes());
    }
    bytes
}

/// `None` if they are not those of a proof. What it proves is not verified.
pub(super) fn from_bytes(
    conversation: ConversationId,
    chain: ChainId,
    bytes: &[u8],
) -> Option<ForkProof> {
    let (one, rest) = stretch(bytes)?;
    let (other, rest) = stretch(rest)?;
    rest.is_empty().then_some(ForkProof {
        conversation,
        chain,
        one,
        other,
    })
}

fn stretch(bytes: &[u8]) -> Option<(Stretch, &[u8])> {
    let (first, rest) = sequence(bytes)?;
    let (previous, rest) = rest.split_first_chunk()?;
    let (count, mut rest) = rest.split_first_chunk()?;
    let count = usize::try_from(u64::from_be_bytes(*count)).ok()?;
    if count > ENTRIES_PER_SEAL_MAX {
        return None;
    }
    let mut outlines = Vec::with_capacity(count);
    for _ in 0..count {
        let (outline, behind) = rest.split_at_checked(Outline::LEN)?;
        outlines.push(Outline::from_bytes(outline).ok()?);
        rest = behind;
    }
    let (sealed, rest) = sequence(rest)?;
    let (signature, rest) = rest.split_first_chunk()?;
    let seal = Seal {
        sequence: sealed,
        signature: Signature::from_bytes(*signature),
    };
    let stretch = Stretch {
        first,
        previous: HeaderHash::from_bytes(*previous),
        outlines,
        seal,
    };
    Some((stretch, rest))
}

fn sequence(bytes: &[u8]) -> Option<(Sequence, &[u8])> {
    let (number, rest) = bytes.split_first_chunk()?;
    Some((Sequence::new(u64::from_be_bytes(*number))?, rest))
}
