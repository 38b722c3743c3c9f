//! What the store keeps of failed log-ins. How they are counted is the engine's.

use common::id::AccountName;
use common::limits::UNKNOWN_NAMES_KEPT_MAX;
use common::time::UnixTime;

use crate::source::SourcePrefix;

/// What the store keeps of one subject.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LockoutRow {
    /// The primary key.
    pub subject: Subject,
    /// The strangers' lane.
    pub strangers: LaneRow,
    /// The lane of known devices.
    pub known: LaneRow,
    /// Strangers' failures that the owner has not been told of.
    pub unreported: u32,
    /// The time of the latest one.
    pub last_unreported: UnixTime,
}

impl LockoutRow {
    /// The row of a subject without failures. Saving it deletes the subject's row.
    pub fn empty(subject: Subject) -> Self {
        Self {
            subject,
            strangers: LaneRow::default(),
            known: LaneRow::default(),
            unreported: 0,
            last_unreported: UnixTime::default(),
        }
    }

    /// Tells whether there is nothing to keep.
    pub fn is_empty(&self) -> bool {
        self.strangers == LaneRow::default()
            && self.known == LaneRow::default()
            && self.unreported == 0
    }
}

/// What the store keeps of one lane.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LaneRow {
    /// Failures of each source since the last block ended.
    pub failures: Vec<(SourcePrefix, u32)>,
    /// Blocks so far; the next one lasts `first * 2^blocks`.
    pub blocks: u32,
    /// The end of the last block; 0 without one.
    pub blocked_until: UnixTime,
    /// The last failure; 0 without one.
    pub last_failure: UnixTime,
}

/// Whose failures are counted.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    /// One that exists, or did when the attempt began.
    Account(AccountName),
    /// A name that no account has.
    Unknown(NameHash),
}

/// A name without an account, as its counters know it: 128 bits of a keyed hash, evenly spread.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct NameHash(u128);

impl NameHash {
    /// Takes what [`NameHash::to_bytes`] gave.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(u128::from_le_bytes(bytes))
    }

    /// The hash as it stands in a column.
    pub const fn to_bytes(self) -> [u8; 16] {
        self.0.to_le_bytes()
    }

    /// Which of the store's [`UNKNOWN_NAMES_KEPT_MAX`] rows for such names is this one's; the last of those
    /// that share one stays in it.
    pub const fn slot(self) -> usize {
        self.part(0) % UNKNOWN_NAMES_KEPT_MAX
    }

    /// The `index`th 32 bits, of four.
    pub const fn part(self, index: usize) -> usize {
        (self.0 >> (32 * index)) as u32 as usize
    }
}
