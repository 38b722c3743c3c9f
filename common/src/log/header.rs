//! The header of an entry: fixed in length, hashed as a whole.

use super::{BodyHash, ChainId, Clock, ConversationId, EntryId, HeaderHash, Kind, RunId, Sequence};
use crate::key::DeviceKey;
use crate::limits::ENTRY_BODY_LEN_MAX;

/// Separates headers from everything else that is hashed.
const LABEL: [u8; 16] = *b"rdv entry v1\0\0\0\0";

/// What an entry is, and where it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The conversation that it belongs to.
    pub conversation: ConversationId,
    /// The chain that it belongs to.
    pub chain: ChainId,
    /// Its place in the chain.
    pub sequence: Sequence,
    /// The hash of the header before it; [`HeaderHash::NONE`] for the first of a run.
    pub previous: HeaderHash,
    /// All that its place does not say.
    pub outline: Outline,
}

/// The part of a header that its place in a chain does not say, and all of it that travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outline {
    /// When it was written, by its author.
    pub clock: Clock,
    /// What sort of body it has.
    pub kind: Kind,
    /// Length of the body in bytes, at most [`ENTRY_BODY_LEN_MAX`].
    pub body_len: u32,
    /// The hash of the body.
    pub body_hash: BodyHash,
}

impl Header {
    /// Length of its bytes.
    pub const LEN: usize = LABEL.len() + 32 + 32 + RunId::LEN + 8 + 32 + Outline::LEN;

    /// The bytes that are hashed.
    pub fn to_bytes(&self) -> [u8; Self::LEN] {
        let sequence = self.sequence.number().to_be_bytes();
        let outline = self.outline.to_bytes();
        let parts: [&[u8]; 7] = [
            &LABEL,
            self.conversation.as_bytes(),
            self.chain.device.as_bytes(),
            self.chain.run.as_bytes(),
            &sequence,
            self.previous.as_bytes(),
            &outline,
        ];
        joined(&parts)
    }

    /// Parses these bytes.
    ///
    /// # Errors
    ///
    /// [`HeaderError`] if they are not those of a header.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, HeaderError> {
        let bytes: &[u8; Self::LEN] = bytes.try_into().map_err(|_| HeaderError::Length)?;
        let (label, rest) = split::<16>(bytes)?;
        if *label != LABEL {
            return Err(HeaderError::Label);
        }
        let (conversation, rest) = split::<32>(rest)?;
        let (place, rest) = split::<{ EntryId::LEN }>(rest)?;
        let (previous, outline) = split::<32>(rest)?;
        let EntryId { chain, sequence } = EntryId::from_bytes(place).ok_or(HeaderError::Place)?;
        let previous = HeaderHash::from_bytes(*previous);
        if (sequence == Sequence::FIRST) != (previous == HeaderHash::NONE) {
            return Err(HeaderError::Place);
        }
        Ok(Self {
            conversation: ConversationId::from_bytes(*conversation),
            chain,
            sequence,
            previous,
            outline: Outline::from_bytes(outline)?,
        })
    }

    /// The BLAKE3 hash of its bytes.
    pub fn hash(&self) -> HeaderHash {
        HeaderHash::from_bytes(blake3::hash(&self.to_bytes()).into())
    }

    /// Who is said to have written it.
    pub const fn device(&self) -> &DeviceKey {
        &self.chain.device
    }

    /// Its name within the conversation.
    pub const fn id(&self) -> EntryId {
        EntryId {
            chain: self.chain,
            sequence: self.sequence,
        }
    }
}

impl Outline {
    /// Length of its bytes.
    pub const LEN: usize = 8 + 1 + 4 + 32;

    /// The outline of an entry with this body; `None` if it is longer than [`ENTRY_BODY_LEN_MAX`].
    pub fn new(clock: Clock, kind: Kind, body: &[u8]) -> Option<Self> {
        let body_len = u32::try_from(body.len()).ok()?;
        (body.len() <= ENTRY_BODY_LEN_MAX).then(|| Self {
            clock,
            kind,
            body_len,
            body_hash: BodyHash::of(body),
        })
    }

    /// The last bytes of the header.
    pub fn to_bytes(self) -> [u8; Self::LEN] {
        joined(&[
            &self.clock.to_bits().to_be_bytes(),
            &[self.kind.0],
            &self.body_len.to_be_bytes(),
            self.body_hash.as_bytes(),
        ])
    }

    /// Parses these bytes.
    ///
    /// # Errors
    ///
    /// [`HeaderError`] if there are more or fewer, or the body is longer than [`ENTRY_BODY_LEN_MAX`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, HeaderError> {
        let (clock, rest) = split::<8>(bytes)?;
        let (kind, rest) = split::<1>(rest)?;
        let (body_len, body_hash) = split::<4>(rest)?;
        let body_len = u32::from_be_bytes(*body_len);
        if body_len as usize > ENTRY_BODY_LEN_MAX {
            return Err(HeaderError::BodyLength);
        }
        let body_hash = body_hash.try_into().map_err(|_| HeaderError::Length)?;
        Ok(Self {
            clock: Clock::from_bits(u64::from_be_bytes(*clock)),
            kind: Kind(kind[0]),
            body_len,
            body_hash: BodyHash::from_bytes(body_hash),
        })
    }

    /// Tells whether `body` is the body of the entry.
    pub fn is_of(&self, body: &[u8]) -> bool {
        self.body_len as usize == body.len() && self.body_hash == BodyHash::of(body)
    }
}

/// Why bytes are no header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// There are more or fewer bytes than a header has.
    #[error("a header has {} bytes", Header::LEN)]
    Length,
    /// They begin otherwise.
    #[error("the label is not that of a header of this version")]
    Label,
    /// The device key is weak, the sequence is out of bounds, or the first of a run has one before it.
    #[error("the header names a place where no entry can be")]
    Place,
    /// The body is longer than any may be.
    #[error("a body has at most {ENTRY_BODY_LEN_MAX} bytes")]
    BodyLength,
}

fn split<const N: usize>(bytes: &[u8]) -> Result<(&[u8; N], &[u8]), HeaderError> {
    bytes.split_first_chunk().ok_or(HeaderError::Length)
}

/// Joins parts that have `N` bytes together.
fn joined<const N: usize>(parts: &[&[u8]]) -> [u8; N] {
    let mut bytes = [0; N];
    let mut rest = &mut bytes[..];
    for part in parts {
        let (place, behind) = rest.split_at_mut(part.len());
        place.copy_from_slice(part);
        rest = behind;
    }
    debug_assert!(rest.is_empty(), "the lengths of the parts are constants");
    bytes
}

#[cfg(test)]
mod tests;
