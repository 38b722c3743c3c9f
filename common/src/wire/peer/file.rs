//! Offers, transfers and leaves.

use serde::{Deserialize, Serialize};

use crate::hash::{FileDigest, LeafHash, leaf_count};
use crate::id::TransferId;
use crate::limits::{FILE_LEN_MAX, FILE_NAME_LEN_MAX, REASON_LEN_MAX};

/// A frame about an offer or a transfer.
#[expect(missing_docs, reason = "the fields' names and types say it all")]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FileFrame {
    /// Offers a file.
    Offer(Offer),
    /// Accepts an offer.
    Accept {
        transfer: TransferId,
        /// Leaves that the receiver already has. Empty in version 1, which does not resume transfers.
        have: Vec<LeafRange>,
    },
    /// Declines an offer.
    Decline {
        transfer: TransferId,
        reason: DeclineReason,
    },
    /// The sender has handed every leaf to QUIC; they may arrive after this frame.
    Sent {
        transfer: TransferId,
        /// BLAKE3 of the whole file as it was read, to be compared with the leaves' hashes.
        digest: FileDigest,
    },
    /// The receiver has verified the file, made it durable and given it its final name.
    Received { transfer: TransferId },
    /// Either side ends the transfer early.
    Cancel {
        transfer: TransferId,
        reason: CancelReason,
    },
}

/// An offer of a file. None of its content is sent before the offer is accepted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offer {
    /// Identifies the transfer in every later frame.
    pub transfer: TransferId,
    /// The sender's name for the file, at most [`FILE_NAME_LEN_MAX`] bytes. Untrusted: the receiver
    /// validates it before it creates anything.
    pub name: String,
    /// In bytes, at most [`FILE_LEN_MAX`].
    pub size: u64,
    /// Whether the file's owner may execute it.
    pub executable: bool,
}

impl Offer {
    /// Tells whether size and name keep the bounds of the protocol.
    pub fn is_within_limits(&self) -> bool {
        self.size <= FILE_LEN_MAX && self.name.len() <= FILE_NAME_LEN_MAX
    }
}

/// The leaves `start..end` of a file, counted from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeafRange {
    /// Index of the first leaf.
    pub start: u64,
    /// Index after the last leaf.
    pub end: u64,
}

impl LeafRange {
    /// Tells whether the range is not empty and inside a file of `size` bytes.
    pub fn is_within(&self, size: u64) -> bool {
        self.start < self.end && self.end <= leaf_count(size)
    }
}

/// The only frame on a leaf's stream. The leaf's bytes follow it until the stream ends.
#[expect(missing_docs, reason = "the fields' names and types say it all")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeafHeader {
    pub transfer: TransferId,
    /// The leaf's place in the file, from 0.
    pub index: u64,
    /// The hash that the leaf's bytes must have.
    pub hash: LeafHash,
}

/// Largest [`LeafHeader`] including its length prefix, in bytes.
pub const LEAF_HEADER_LEN_MAX: usize = 64;

/// Why an offer was declined.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum DeclineReason {
    /// The recipient, or a rule of theirs, declined it.
    #[error("the recipient declined it")]
    Declined,
    /// Nobody answered within [`OFFER_LIFETIME`](crate::limits::OFFER_LIFETIME).
    #[error("the recipient did not answer")]
    NoAnswer,
    /// The receiver does not store a file under this name.
    #[error("the recipient does not take names like this one")]
    Name,
    /// The recipient has too many offers, or the file is too large.
    #[error("it exceeds a limit of the recipient")]
    LimitExceeded,
    /// The receiver cannot create the file.
    #[error("the recipient cannot store it: {0}")]
    Storage(Reason),
}

/// Why a transfer ended early.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum CancelReason {
    /// A person cancelled it.
    #[error("cancelled by the other side")]
    Cancelled,
    /// The sender cannot read the file, or it changed while it was read.
    #[error("the sender cannot read it: {0}")]
    Source(Reason),
    /// The receiver cannot write the file.
    #[error("the recipient cannot store it: {0}")]
    Storage(Reason),
    /// Received bytes do not have the announced hash.
    #[error("what arrived differs from what was sent")]
    Mismatch,
    /// The other side violated the protocol.
    #[error("the other side broke the protocol")]
    Protocol,
}

/// A reason for a person, at most [`REASON_LEN_MAX`] bytes. Untrusted; [`Display`](std::fmt::Display)
/// escapes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Reason(String);

impl Reason {
    /// Truncates `text` to [`REASON_LEN_MAX`] bytes, between grapheme clusters.
    pub fn lossy(text: &str) -> Self {
        Self(crate::text::beginning(text, REASON_LEN_MAX).to_owned())
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

/// The reason is longer than [`REASON_LEN_MAX`].
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
