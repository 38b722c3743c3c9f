//! Lists and bodies that are checked while they are decoded.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{Error, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::limits::{ENTRIES_PER_SEAL_MAX, ENTRY_BODY_LEN_MAX};
use crate::log::{BodyHash, Extent, Outline, Seal, Sequence, Stretch};
use crate::log::{Clock, HeaderHash, Kind};

/// There are more or fewer of something than there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there are more or fewer than there may be")]
pub struct OutOfBounds;

/// `MIN` to `MAX` elements. Encoded as `Vec<T>`; a longer one is refused before its elements are read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct List<T, const MIN: usize, const MAX: usize>(Vec<T>);

impl<T, const MIN: usize, const MAX: usize> List<T, MIN, MAX> {
    /// Takes elements until there are `MAX`, or no more; `None` if that is fewer than `MIN`.
    pub fn fill(elements: impl Iterator<Item = T>) -> Option<Self> {
        Self::try_from(elements.take(MAX).collect::<Vec<T>>()).ok()
    }

    /// All elements, never more than the type allows.
    pub fn as_slice(&self) -> &[T] {
        &self.0
    }

    /// The elements, with their ownership.
    pub fn into_vec(self) -> Vec<T> {
        self.0
    }
}

impl<T, const MIN: usize, const MAX: usize> TryFrom<Vec<T>> for List<T, MIN, MAX> {
    type Error = OutOfBounds;

    fn try_from(elements: Vec<T>) -> Result<Self, OutOfBounds> {
        if (MIN..=MAX).contains(&elements.len()) {
            Ok(Self(elements))
        } else {
            Err(OutOfBounds)
        }
    }
}

impl<'de, T: Deserialize<'de>, const MIN: usize, const MAX: usize> Deserialize<'de>
    for List<T, MIN, MAX>
{
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(ListVisitor::<T, MIN, MAX>(PhantomData))
    }
}

struct ListVisitor<T, const MIN: usize, const MAX: usize>(PhantomData<T>);

impl<'de, T: Deserialize<'de>, const MIN: usize, const MAX: usize> Visitor<'de>
    for ListVisitor<T, MIN, MAX>
{
    type Value = List<T, MIN, MAX>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{MIN} to {MAX} elements")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        if seq.size_hint().is_some_and(|len| len > MAX) {
            return Err(Error::custom(OutOfBounds));
        }
        // Grown as elements come: whoever announces many and sends none takes no memory.
        let mut elements = Vec::new();
        while let Some(element) = seq.next_element()? {
            if elements.len() == MAX {
                return Err(Error::custom(OutOfBounds));
            }
            elements.push(element);
        }
        elements.try_into().map_err(Error::custom)
    }
}

/// The body of an entry, at most [`ENTRY_BODY_LEN_MAX`] bytes. Encoded as `Vec<u8>`.
#[derive(Clone, PartialEq, Eq)]
pub struct BodyBytes(Vec<u8>);

impl BodyBytes {
    /// How many bytes there are, as the type that says it in frames.
    pub fn len(&self) -> BodyLen {
        BodyLen(u32::try_from(self.0.len()).unwrap_or(u32::MAX))
    }

    /// Whether there are no bytes.
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What the entry's header has of it.
    pub fn hash(&self) -> BodyHash {
        BodyHash::of(&self.0)
    }
}

impl fmt::Debug for BodyBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

impl TryFrom<Vec<u8>> for BodyBytes {
    type Error = OutOfBounds;

    fn try_from(bytes: Vec<u8>) -> Result<Self, OutOfBounds> {
        if bytes.len() <= ENTRY_BODY_LEN_MAX {
            Ok(Self(bytes))
        } else {
            Err(OutOfBounds)
        }
    }
}

impl From<BodyBytes> for Vec<u8> {
    fn from(body: BodyBytes) -> Self {
        body.0
    }
}

impl Serialize for BodyBytes {
    /// As a whole: byte by byte a page of bodies would take as long as its hashes.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for BodyBytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_byte_buf(BodyVisitor)
    }
}

struct BodyVisitor;

impl Visitor<'_> for BodyVisitor {
    type Value = BodyBytes;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at most {ENTRY_BODY_LEN_MAX} bytes")
    }

    fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<BodyBytes, E> {
        // The decoder has allocated no more than the frame may have.
        BodyBytes::try_from(bytes.to_vec()).map_err(Error::custom)
    }

    fn visit_byte_buf<E: Error>(self, bytes: Vec<u8>) -> Result<BodyBytes, E> {
        BodyBytes::try_from(bytes).map_err(Error::custom)
    }
}

/// The length of a body, at most [`ENTRY_BODY_LEN_MAX`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct BodyLen(u32);

impl TryFrom<u32> for BodyLen {
    type Error = OutOfBounds;

    fn try_from(len: u32) -> Result<Self, OutOfBounds> {
        if len as usize <= ENTRY_BODY_LEN_MAX {
            Ok(Self(len))
        } else {
            Err(OutOfBounds)
        }
    }
}

impl From<BodyLen> for u32 {
    fn from(len: BodyLen) -> Self {
        len.0
    }
}

// ---- what is checked as a whole ----------------------------------------------------------------

/// [`Extent`] as it is encoded.
#[derive(Serialize, Deserialize)]
struct RawExtent {
    base: Sequence,
    sealed: Sequence,
    last: Sequence,
    hash: HeaderHash,
    fork: Option<Sequence>,
}

impl Serialize for Extent {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let raw = RawExtent {
            base: self.base,
            sealed: self.sealed,
            last: self.last,
            hash: self.hash,
            fork: self.fork,
        };
        raw.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Extent {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = RawExtent::deserialize(deserializer)?;
        let extent = Self {
            base: raw.base,
            sealed: raw.sealed,
            last: raw.last,
            hash: raw.hash,
            fork: raw.fork,
        };
        if extent.is_sound() {
            Ok(extent)
        } else {
            Err(Error::custom("the extent contradicts itself"))
        }
    }
}

/// [`Outline`] as it is encoded.
#[derive(Serialize, Deserialize)]
struct RawOutline {
    clock: Clock,
    kind: Kind,
    body_len: BodyLen,
    body_hash: BodyHash,
}

/// [`Stretch`] as it is encoded.
#[derive(Deserialize)]
struct RawStretch {
    first: Sequence,
    previous: HeaderHash,
    outlines: List<RawOutline, 1, ENTRIES_PER_SEAL_MAX>,
    seal: Seal,
}

impl Serialize for Stretch {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let outlines: Vec<RawOutline> = self.outlines.iter().map(RawOutline::from).collect();
        (self.first, self.previous, outlines, self.seal).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Stretch {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = RawStretch::deserialize(deserializer)?;
        let outlines = raw.outlines.into_vec().into_iter();
        let stretch = Self {
            first: raw.first,
            previous: raw.previous,
            outlines: outlines.map(Outline::from).collect(),
            seal: raw.seal,
        };
        stretch.check().map_err(Error::custom)?;
        Ok(stretch)
    }
}

impl From<&Outline> for RawOutline {
    fn from(outline: &Outline) -> Self {
        Self {
            clock: outline.clock,
            kind: outline.kind,
            body_len: BodyLen(outline.body_len),
            body_hash: outline.body_hash,
        }
    }
}

impl From<RawOutline> for Outline {
    fn from(raw: RawOutline) -> Self {
        Self {
            clock: raw.clock,
            kind: raw.kind,
            body_len: raw.body_len.into(),
            body_hash: raw.body_hash,
        }
    }
}
