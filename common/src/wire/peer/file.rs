//! Offers, transfers and leaves.

use serde::{Deserialize, Serialize};

use crate::hash::{FileDigest, LeafHash, leaf_count};
use crate::id::TransferId;
use crate::limits::{FILE_LEN_MAX, REASON_LEN_MAX};

/// A frame about a transfer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FileFrame {
    /// Offers a file.
    Offer(Offer),
    /// Accepts an offer.
    Accept {
        /// Which offer.
        transfer: TransferId,
        /// Leaves that the receiver has already, from an earlier attempt.
        have: Vec<LeafRange>,
    },
    /// Declines an offer.
    Decline {
        /// Which offer.
        transfer: TransferId,
        /// Why.
        reason: DeclineReason,
    },
    /// All leaves are on their way; the digest that they must add up to.
    Sent {
        /// Which transfer.
        transfer: TransferId,
        /// BLAKE3 of the whole file as it was read.
        digest: FileDigest,
    },
    /// The file is verified, on disk and under its name.
    Received {
        /// Which transfer.
        transfer: TransferId,
    },
    /// Either side gives up.
    Cancel {
        /// Which transfer.
        transfer: TransferId,
        /// Why.
        reason: CancelReason,
    },
}

/// Offers a file; nothing of it is sent before it is accepted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offer {
    /// Names the transfer from now on.
    pub transfer: TransferId,
    /// The name of the file as its sender has it: text from outside, for the receiver's one gate.
    pub name: String,
    /// Bytes, at most [`FILE_LEN_MAX`].
    pub size: u64,
    /// Whether its owner may execute it.
    pub executable: bool,
}

impl Offer {
    /// Tells whether the offer keeps the bounds of the protocol.
    pub fn is_within_limits(&self) -> bool {
        self.size <= FILE_LEN_MAX && self.name.len() <= crate::limits::FILE_NAME_LEN_MAX
    }
}

/// Leaves `start..end` of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeafRange {
    /// The first.
    pub start: u64,
    /// The one after the last.
    pub end: u64,
}

impl LeafRange {
    /// Tells whether the range is not empty and inside a file of `size` bytes.
    pub fn is_within(&self, size: u64) -> bool {
        self.start < self.end && self.end <= leaf_count(size)
    }
}

/// Stands in front of a leaf on its stream, as a frame; the leaf's bytes follow to the stream's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeafHeader {
    /// Which transfer.
    pub transfer: TransferId,
    /// Which leaf.
    pub index: u64,
    /// What the leaf must hash to.
    pub hash: LeafHash,
}

/// Largest [`LeafHeader`] with its length prefix, in bytes.
pub const LEAF_HEADER_LEN_MAX: usize = 64;

/// Why an offer was declined.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum DeclineReason {
    /// The person, or their rule, said no.
    #[error("the recipient declined it")]
    Declined,
    /// Nobody answered in time.
    #[error("the recipient did not answer")]
    NoAnswer,
    /// Not under that name.
    #[error("the recipient cannot store a file of this name")]
    Name,
    /// Too many at once, or too large.
    #[error("it exceeds a limit of the recipient")]
    LimitExceeded,
    /// It cannot be stored there.
    #[error("the recipient cannot store it: {0}")]
    Storage(Reason),
}

/// Why a transfer ended early.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum CancelReason {
    /// The person said so.
    #[error("cancelled by the other side")]
    Cancelled,
    /// The file cannot be read, or changed while it was read.
    #[error("the sender cannot read it: {0}")]
    Source(Reason),
    /// The file cannot be written.
    #[error("the recipient cannot store it: {0}")]
    Storage(Reason),
    /// What arrived does not hash to what was announced.
    #[error("what arrived differs from what was sent")]
    Mismatch,
    /// The other side broke the protocol.
    #[error("the other side broke the protocol")]
    Protocol,
}

/// A reason in words, at most [`REASON_LEN_MAX`] bytes; text from outside.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Reason(String);

impl Reason {
    /// Cuts `text` to length.
    pub fn lossy(text: &str) -> Self {
        let mut end = text.len().min(REASON_LEN_MAX);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        Self(text[..end].to_owned())
    }
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&crate::text::inline(&self.0))
    }
}

impl TryFrom<String> for Reason {
    type Error = ReasonError;

    fn try_from(text: String) -> Result<Self, ReasonError> {
        if text.len() > REASON_LEN_MAX {
            Err(ReasonError)
        } else {
            Ok(Self(text))
        }
    }
}

impl From<Reason> for String {
    fn from(reason: Reason) -> Self {
        reason.0
    }
}

/// A reason is too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a reason has at most {REASON_LEN_MAX} bytes")]
pub struct ReasonError;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::frame;

    #[test]
    fn leaf_headers_fit_their_bound() {
        let header = LeafHeader {
            transfer: TransferId::from_bytes([255; 16]),
            index: u64::MAX,
            hash: LeafHash([255; 32]),
        };
        let mut out = Vec::new();
        frame::encode::<{ LEAF_HEADER_LEN_MAX - frame::PREFIX_LEN }>(&header, &mut out).unwrap();
        assert!(out.len() <= LEAF_HEADER_LEN_MAX);
    }

    #[test]
    fn t11_ranges_and_sizes_out_of_bounds_are_seen() {
        let range = |start, end| LeafRange { start, end };
        assert!(range(0, 1).is_within(0));
        for bad in [range(0, 0), range(1, 0), range(0, 2), range(u64::MAX, 0)] {
            assert!(!bad.is_within(5), "{bad:?}");
        }
        for size in [FILE_LEN_MAX + 1, 1 << 63, u64::MAX] {
            let offer = Offer {
                transfer: TransferId::from_bytes([0; 16]),
                name: "a".to_owned(),
                size,
                executable: false,
            };
            assert!(!offer.is_within_limits());
        }
    }

    #[test]
    fn reasons_are_cut_at_a_character() {
        assert_eq!(String::from(Reason::lossy(&"ä".repeat(200))).len(), 256);
    }
}
