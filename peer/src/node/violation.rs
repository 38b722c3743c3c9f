//! What a peer must not do.

use common::wire::frame::FrameError;

/// A peer broke the protocol: its link is closed, and nothing of it is believed any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum ProtocolViolation {
    /// Its message stream holds something else than frames.
    #[error("{0}")]
    Malformed(#[from] FrameError),
    /// There is one message stream, and the client of the link opens it.
    #[error("a message stream that must not be opened")]
    SecondMessageStream,
    /// A leaf stream holds something else than a header and that leaf.
    #[error("a leaf stream that is not a header and its leaf")]
    MalformedLeaf,
    /// A leaf came before its transfer was accepted, on another link, of a wrong length or twice.
    #[error("a leaf that its transfer does not expect")]
    UnexpectedLeaf,
    /// An id of a transfer of ours that comes back names no transfer of theirs.
    #[error("an offer with the id of a transfer of this side")]
    ReflectedOffer,
    /// It broke the rules of logs.
    #[error("{0}")]
    Log(crate::log::Violation),
}
