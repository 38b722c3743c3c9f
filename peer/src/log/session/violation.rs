//! Why a link is closed.

use common::limits::{LINK_CHAINS_MAX, LINK_CONVERSATIONS_MAX, STRETCH_READS_MAX};

use crate::log::Refusal;

/// The other side has broken the protocol: close the link with a protocol error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// It did not greet first, or greeted again.
    #[error("it does not greet once, and first")]
    Greeting,
    /// It sent its buckets twice, or digests that do not ascend.
    #[error("it sends digests twice")]
    Digests,
    /// A number is not the next one, or stands for something else.
    #[error("it gives a number that is not the next one, or is taken")]
    Numbering,
    /// It uses a number that it has not given.
    #[error("it uses a number that it has not given to anything")]
    UnknownNumber,
    /// It has given too many numbers.
    #[error(
        "it numbers more than {LINK_CONVERSATIONS_MAX} conversations or {LINK_CHAINS_MAX} chains"
    )]
    TooManyNumbers,
    /// Pages of what it has do not follow each other.
    #[error("it says what it has out of order")]
    Listing,
    /// It answers pages that are not in flight, or names a chain twice.
    #[error("it answers pages that it was not sent")]
    Answer,
    /// It sends more pages at a time than may be in flight.
    #[error("it sends more pages than may be in flight")]
    Flight,
    /// It asks for more at a time than it may.
    #[error("it has more than {STRETCH_READS_MAX} unanswered questions")]
    Questions,
    /// It answers what it was not asked.
    #[error("it answers a question that was not asked")]
    Unasked,
    /// What it gives is no honest device's.
    #[error("what it gives cannot be genuine: {0}")]
    Refused(Refusal),
    /// A proof of a fork proves nothing.
    #[error("its proof of a fork proves nothing")]
    Proof,
}
