//! Identifiers of accounts, conversations, runs, chains and entries, and the hashes that chain entries.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::id::MessageId;
use crate::key::DeviceKey;
use crate::limits::SEQUENCE_MAX;

/// Makes a type for `LEN` bytes that mean nothing but themselves.
macro_rules! opaque {
    ($(#[$doc:meta])* $name:ident, $len:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub struct $name([u8; $len]);

        impl $name {
            /// Its length in bytes.
            pub const LEN: usize = $len;

            /// Takes the bytes as they are.
            pub const fn from_bytes(bytes: [u8; $len]) -> Self {
                Self(bytes)
            }

            /// The bytes as they were taken.
            pub const fn as_bytes(&self) -> &[u8; $len] {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    };
}

opaque! {
    /// Identifies an account everywhere and for ever: the BLAKE3 hash of its genesis entry. Its name is only what a
    /// server calls it.
    AccountId, 32
}
opaque! {
    /// Identifies a conversation: of two accounts, a room, or the log of an account.
    ConversationId, 32
}
opaque! {
    /// Identifies what a device writes in one conversation without an interruption. Random.
    RunId, 16
}
opaque! {
    /// The BLAKE3 hash of a header.
    HeaderHash, 32
}
opaque! {
    /// The BLAKE3 hash of a body.
    BodyHash, 32
}

impl ConversationId {
    /// Separates these hashes from all others: the context string of BLAKE3's key derivation.
    const DIRECT_CONTEXT: &'static str = "rdv 2026-11 direct conversation v1";

    /// The conversation of two accounts, in whichever order; of an account with itself, its notes.
    pub fn direct(one: &AccountId, other: &AccountId) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key(Self::DIRECT_CONTEXT);
        hasher.update(one.min(other).as_bytes());
        hasher.update(one.max(other).as_bytes());
        Self(hasher.finalize().into())
    }
}

impl HeaderHash {
    /// Stands in the first header of a run for the hash of the one before.
    pub const NONE: Self = Self([0; 32]);
}

impl BodyHash {
    /// The hash of a body.
    pub fn of(body: &[u8]) -> Self {
        Self(blake3::hash(body).into())
    }
}

/// The place of an entry in its run: from 1 on, up to [`SEQUENCE_MAX`]. 0 is the place before the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u64", into = "u64")]
pub struct Sequence(u64);

impl Sequence {
    /// The place before the first entry of a run.
    pub const START: Self = Self(0);
    /// The first entry of a run.
    pub const FIRST: Self = Self(1);

    /// Makes a place of a number; `None` above [`SEQUENCE_MAX`].
    pub const fn new(number: u64) -> Option<Self> {
        if number <= SEQUENCE_MAX {
            Some(Self(number))
        } else {
            None
        }
    }

    /// The place as a number, at most [`SEQUENCE_MAX`].
    pub const fn number(self) -> u64 {
        self.0
    }

    /// The place `count` further on; none is after the last one.
    #[must_use]
    pub const fn plus(self, count: usize) -> Self {
        let number = self.0.saturating_add(count as u64);
        Self(if number < SEQUENCE_MAX {
            number
        } else {
            SEQUENCE_MAX
        })
    }

    /// The place after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        self.plus(1)
    }

    /// The place before this one; of the start, itself.
    #[must_use]
    pub const fn previous(self) -> Self {
        Self(self.0.saturating_sub(1))
    }

    /// How many places this one is after `earlier`; 0 if it is not.
    pub const fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl TryFrom<u64> for Sequence {
    type Error = SequenceError;

    fn try_from(number: u64) -> Result<Self, SequenceError> {
        Self::new(number).ok_or(SequenceError)
    }
}

impl From<Sequence> for u64 {
    fn from(sequence: Sequence) -> Self {
        sequence.0
    }
}

/// The number is above [`SEQUENCE_MAX`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a chain has no place beyond {SEQUENCE_MAX}")]
pub struct SequenceError;

impl fmt::Display for Sequence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// Identifies a chain within its conversation: one run of one device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ChainId {
    /// Who writes it.
    pub device: DeviceKey,
    /// Which of the device's runs it is.
    pub run: RunId,
}

/// Identifies an entry within its conversation; what replies, edits and cuts refer to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntryId {
    /// The chain that it stands in.
    pub chain: ChainId,
    /// Its place in the chain.
    pub sequence: Sequence,
}

impl EntryId {
    /// Length of its bytes.
    pub const LEN: usize = 32 + RunId::LEN + 8;

    /// Device, run and sequence, big-endian.
    pub fn to_bytes(self) -> [u8; Self::LEN] {
        let mut bytes = [0; Self::LEN];
        bytes[..32].copy_from_slice(self.chain.device.as_bytes());
        bytes[32..48].copy_from_slice(self.chain.run.as_bytes());
        bytes[48..].copy_from_slice(&self.sequence.0.to_be_bytes());
        bytes
    }

    /// Parses these bytes; `None` unless the device key is valid, and the sequence that of an entry.
    pub fn from_bytes(bytes: &[u8; Self::LEN]) -> Option<Self> {
        let (device, rest) = bytes.split_first_chunk()?;
        let (run, sequence) = rest.split_first_chunk()?;
        let number = u64::from_be_bytes(sequence.try_into().ok()?);
        let sequence = Sequence::new(number).filter(|sequence| *sequence != Sequence::START)?;
        let device = DeviceKey::from_bytes(*device).ok()?;
        let run = RunId(*run);
        Some(Self {
            chain: ChainId { device, run },
            sequence,
        })
    }
}

impl MessageId {
    /// Separates these hashes from all others: the context string of BLAKE3's key derivation.
    const ENTRY_CONTEXT: &'static str = "rdv 2026-11 message of an entry v1";

    /// The identifier that the message of an entry has for programs and people: 8 bytes of a hash of the chain and its
    /// conversation, and the sequence. So those of one chain stand side by side in an index, and every device has the
    /// same. Whoever writes a chain can have it collide with another one of their own, with some billions of tries.
    pub fn of_entry(conversation: &ConversationId, entry: &EntryId) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key(Self::ENTRY_CONTEXT);
        hasher.update(conversation.as_bytes());
        hasher.update(entry.chain.device.as_bytes());
        hasher.update(entry.chain.run.as_bytes());
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&hasher.finalize().as_bytes()[..8]);
        bytes[8..].copy_from_slice(&entry.sequence.0.to_be_bytes());
        Self::from_bytes(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::DeviceSecret;

    #[test]
    fn a_direct_conversation_is_the_same_for_both_and_of_these_two_alone() {
        let [alice, bob, carol] = [1, 2, 3].map(|n| AccountId([n; 32]));
        let direct = ConversationId::direct(&alice, &bob);
        assert_eq!(direct, ConversationId::direct(&bob, &alice));
        let others = [
            ConversationId::direct(&alice, &carol),
            ConversationId::direct(&alice, &alice),
            ConversationId::direct(&bob, &bob),
        ];
        assert!(!others.contains(&direct));
        assert_ne!(others[1], others[2]);
    }

    #[test]
    fn places_stay_within_their_bounds() {
        assert_eq!(Sequence::new(SEQUENCE_MAX + 1), None);
        let last = Sequence::new(SEQUENCE_MAX).unwrap();
        assert_eq!(last.next(), last);
        assert_eq!(last.plus(usize::MAX), last);
        assert_eq!(Sequence::START.previous(), Sequence::START);
        assert_eq!(Sequence::FIRST.since(last), 0);
    }

    #[test]
    fn messages_of_one_chain_have_neighbouring_ids_and_those_of_others_do_not() {
        let entry = |seed, run, number| EntryId {
            chain: ChainId {
                device: DeviceSecret::from_seed([seed; 32]).public(),
                run: RunId([run; 16]),
            },
            sequence: Sequence(number),
        };
        let [here, there] = [1, 2].map(|byte| ConversationId([byte; 32]));
        let id = |entry| MessageId::of_entry(&here, &entry);
        assert_eq!(
            id(entry(7, 9, 258)).to_string(),
            "f8086e33141c1dee0000000000000102"
        );
        let ids = [1, 2, 255, 256, SEQUENCE_MAX].map(|number| id(entry(7, 9, number)));
        assert!(ids.is_sorted_by(|one, next| one < next));
        let chain = |id: MessageId| id.as_bytes()[..8].to_vec();
        assert_eq!(chain(ids[0]), chain(ids[4]));
        let others = [
            id(entry(8, 9, 1)),
            id(entry(7, 8, 1)),
            MessageId::of_entry(&there, &entry(7, 9, 1)),
        ];
        for other in others {
            assert_ne!(chain(other), chain(ids[0]));
        }
    }

    #[test]
    fn entry_ids_survive_their_bytes_and_name_entries_only() {
        let id = EntryId {
            chain: ChainId {
                device: DeviceSecret::from_seed([7; 32]).public(),
                run: RunId([9; 16]),
            },
            sequence: Sequence(258),
        };
        let bytes = id.to_bytes();
        assert_eq!(bytes[48..], [0, 0, 0, 0, 0, 0, 1, 2]);
        assert_eq!(EntryId::from_bytes(&bytes), Some(id));
        let with = |range: std::ops::Range<usize>, byte: u8| {
            let mut changed = bytes;
            changed[range].fill(byte);
            EntryId::from_bytes(&changed)
        };
        assert_eq!(with(0..32, 0), None, "a weak key");
        assert_eq!(with(48..56, 0), None, "the place before the first");
        assert_eq!(with(48..56, 0xff), None, "beyond the last");
    }
}
