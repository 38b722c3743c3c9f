//! What a device has of conversations: its receipt, and the digests by which two devices find what differs.

use std::collections::BTreeMap;
use std::fmt;

use blake3::Hasher;
use serde::{Deserialize, Serialize};

use super::{ChainId, ConversationId, HeaderHash, Sequence};

/// What a device says of one chain: it has on disk what stands from `base` to `last`, without a gap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// The first entry that it keeps: 1 unless older ones are gone.
    pub base: Sequence,
    /// The last one that is sealed; the one before `base` if none is.
    pub sealed: Sequence,
    /// The last one. It is after `sealed` only in what the chain's author is told: nobody else can get it from here.
    pub last: Sequence,
    /// The hash of the last one's header, by which forks are noticed.
    pub hash: HeaderHash,
    /// Where the chain is known to fork, if it is. All from there on is void and not part of the extent.
    pub fork: Option<Sequence>,
}

impl Extent {
    /// What somebody has who has nothing.
    pub const NOTHING: Self = Self {
        base: Sequence::FIRST,
        sealed: Sequence::START,
        last: Sequence::START,
        hash: HeaderHash::NONE,
        fork: None,
    };

    /// Tells whether this can be said of a chain at all.
    pub fn is_sound(&self) -> bool {
        let before = self.base.previous();
        let is_void_left_out = self.fork.is_none_or(|fork| self.last < fork);
        self.base >= Sequence::FIRST
            && before <= self.sealed
            && self.sealed <= self.last
            && is_void_left_out
    }
}

/// What a device has of one conversation. It may shrink: a database was restored, a chain was cut.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Vector(pub BTreeMap<ChainId, Extent>);

impl Vector {
    /// The same for all who have the same.
    ///
    /// It is no sum of digests of chains: somebody who writes many chains could choose them so that two devices with
    /// different ones have the same sum, and never find out.
    pub fn digest(&self) -> Digest {
        let mut hasher = Hasher::new_derive_key("rdv 2026-11 log vector v1");
        for (chain, extent) in &self.0 {
            hasher.update(chain.device.as_bytes());
            hasher.update(chain.run.as_bytes());
            let fork = extent.fork.unwrap_or(Sequence::START);
            for place in [extent.base, extent.last, fork] {
                hasher.update(&place.number().to_be_bytes());
            }
            hasher.update(extent.hash.as_bytes());
        }
        Digest::of(&hasher)
    }
}

/// 128 bits of a hash over what a device has.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Digest(pub [u8; 16]);

impl Digest {
    fn of(hasher: &Hasher) -> Self {
        let mut digest = [0; 16];
        hasher.finalize_xof().fill(&mut digest);
        Self(digest)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

/// Number of buckets: with a thousand conversations, one that differs costs the digests of four.
pub const BUCKETS: usize = 256;

/// The digests of all conversations that two devices share, in buckets by the first byte of the conversation.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "[[Digest; 16]; 16]", into = "[[Digest; 16]; 16]")]
pub struct Buckets([Digest; BUCKETS]);

impl Buckets {
    /// Puts the digests of conversations into their buckets. An empty one has a digest of zeros.
    pub fn new(conversations: &BTreeMap<ConversationId, Digest>) -> Self {
        let mut buckets = [Digest::default(); BUCKETS];
        for (number, bucket) in (0..=u8::MAX).zip(&mut buckets) {
            let mut within = Self::of_bucket(conversations, number).peekable();
            if within.peek().is_some() {
                let mut hasher = Hasher::new_derive_key("rdv 2026-11 log bucket v1");
                for (conversation, digest) in within {
                    hasher.update(conversation.as_bytes());
                    hasher.update(&digest.0);
                }
                *bucket = Digest::of(&hasher);
            }
        }
        Self(buckets)
    }

    /// The conversations of a bucket, in order.
    pub fn of_bucket(
        conversations: &BTreeMap<ConversationId, Digest>,
        number: u8,
    ) -> impl Iterator<Item = (&ConversationId, &Digest)> {
        let [mut first, mut last] = [[0; 32], [0xff; 32]];
        (first[0], last[0]) = (number, number);
        conversations.range(ConversationId::from_bytes(first)..=ConversationId::from_bytes(last))
    }

    /// One digest for all: the first thing that two devices compare.
    pub fn digest(&self) -> Digest {
        let mut hasher = Hasher::new_derive_key("rdv 2026-11 log buckets v1");
        for bucket in &self.0 {
            hasher.update(&bucket.0);
        }
        Digest::of(&hasher)
    }

    /// The numbers of the buckets that differ.
    pub fn differing(&self, others: &Self) -> impl Iterator<Item = u8> {
        let pairs = self.0.iter().zip(&others.0);
        let differs = (0..=u8::MAX).zip(pairs.map(|(own, other)| own != other));
        differs.filter_map(|(number, differs)| differs.then_some(number))
    }
}

/// Sixteen rows of sixteen: serde knows no longer arrays, and no length is encoded either way.
impl From<[[Digest; 16]; 16]> for Buckets {
    fn from(rows: [[Digest; 16]; 16]) -> Self {
        let mut buckets = [Digest::default(); BUCKETS];
        buckets.copy_from_slice(rows.as_flattened());
        Self(buckets)
    }
}

impl From<Buckets> for [[Digest; 16]; 16] {
    fn from(buckets: Buckets) -> Self {
        let mut rows = [[Digest::default(); 16]; 16];
        rows.as_flattened_mut().copy_from_slice(&buckets.0);
        rows
    }
}

impl fmt::Debug for Buckets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Buckets({:?})", self.digest())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::DeviceSecret;
    use crate::log::RunId;

    fn chain(n: u8) -> ChainId {
        ChainId {
            device: DeviceSecret::from_seed([7; 32]).public(),
            run: RunId::from_bytes([n; 16]),
        }
    }

    fn extent(last: u64) -> Extent {
        let last = Sequence::new(last).unwrap();
        Extent {
            sealed: last,
            last,
            hash: HeaderHash::from_bytes([3; 32]),
            ..Extent::NOTHING
        }
    }

    #[test]
    fn whatever_differs_changes_the_digest() {
        let vector = |chains: &[(u8, Extent)]| {
            Vector(
                chains
                    .iter()
                    .map(|(n, extent)| (chain(*n), *extent))
                    .collect(),
            )
        };
        let five = extent(5);
        let fork = Some(Sequence::new(6).unwrap());
        let hash = HeaderHash::from_bytes([4; 32]);
        let base = Sequence::new(2).unwrap();
        let vectors = [
            vector(&[]),
            vector(&[(1, five)]),
            vector(&[(2, five)]),
            vector(&[(1, five), (2, five)]),
            vector(&[(1, extent(6))]),
            vector(&[(1, Extent { fork, ..five })]),
            vector(&[(1, Extent { hash, ..five })]),
            vector(&[(1, Extent { base, ..five })]),
        ];
        for (n, one) in vectors.iter().enumerate() {
            for other in &vectors[..n] {
                assert_ne!(one.digest(), other.digest(), "{one:?} {other:?}");
            }
            assert_eq!(one.digest(), one.clone().digest());
        }
    }

    #[test]
    fn buckets_lead_to_the_conversations_that_differ() {
        let conversation = |n: u16| {
            let mut bytes = [0; 32];
            bytes[..2].copy_from_slice(&n.to_le_bytes());
            ConversationId::from_bytes(bytes)
        };
        let all = |changed: &[u16]| -> BTreeMap<ConversationId, Digest> {
            let digest = |n| Digest([u8::from(changed.contains(&n)); 16]);
            (0..1000).map(|n| (conversation(n), digest(n))).collect()
        };
        let (ours, theirs) = (all(&[]), all(&[7, 263, 999]));
        let [own, other] = [&ours, &theirs].map(Buckets::new);
        assert_ne!(own.digest(), other.digest());
        let differing: Vec<u8> = own.differing(&other).collect();
        assert_eq!(differing, [7, 231]);
        let within = Buckets::of_bucket(&ours, 7).filter(|(id, digest)| theirs[id] != **digest);
        assert_eq!(within.count(), 2);
        assert_eq!(Buckets::new(&ours).digest(), own.digest());
    }

    #[test]
    fn t43_a_vector_that_contradicts_itself_is_none() {
        let at = |n| Sequence::new(n).unwrap();
        assert!(extent(5).is_sound());
        assert!(Extent::NOTHING.is_sound());
        let unsound = [
            Extent {
                base: at(0),
                ..extent(5)
            },
            Extent {
                base: at(7),
                ..extent(5)
            },
            Extent {
                sealed: at(6),
                ..extent(5)
            },
            Extent {
                fork: Some(at(5)),
                ..extent(5)
            },
        ];
        for extent in unsound {
            assert!(!extent.is_sound(), "{extent:?}");
        }
    }
}
