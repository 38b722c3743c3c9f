//! The protocol between two peers: messages, receipts, offers, leaves.
//!
//! The QUIC client opens one bidirectional stream, the *message stream*. Each side sends a
//! [`PeerHello`] on it and then [`PeerFrame`]s, in order. The bytes of files travel on streams of their
//! own: one unidirectional stream per leaf, which starts with a [`LeafHeader`].

use serde::{Deserialize, Serialize};

// Messages and receipts.
mod chat;
// Offers, transfers and leaves.
mod file;
// Replicated logs.
mod log;

use crate::limits::{AGENT_LEN_MAX, VERSIONS_MAX};
pub use chat::{ChatFrame, Conversation, Message, MessageBody, MessageBodyError, ReceiptState};
pub use file::{
    CancelReason, DeclineReason, FileFrame, LEAF_HEADER_LEN_MAX, LeafHeader, LeafRange, Offer,
    Reason, ReasonError,
};
pub use log::{
    AccountHead, BodyBytes, BodyLen, ChainNumber, ConversationNumber, DatabaseInstance, Entries,
    EntryBody, Greet, List, LogEntry, LogFrame, NumberedChain, OutOfBounds,
};

/// The protocol version that this module describes.
pub const VERSION: u16 = 2;
/// ALPN protocol name of a link.
pub const ALPN: &[u8] = b"rdv-peer/2";

/// The first frame of each side on the message stream. Its encoding never changes between versions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerHello {
    /// Versions that this side speaks, at most [`VERSIONS_MAX`].
    pub versions: Vec<u16>,
    /// Program and version, at most [`AGENT_LEN_MAX`] bytes.
    pub agent: String,
}

impl PeerHello {
    /// The greeting of this build.
    pub fn ours(agent: &str) -> Self {
        Self {
            versions: vec![VERSION],
            agent: agent.to_owned(),
        }
    }

    /// Tells whether the other side speaks [`VERSION`] and keeps the bounds.
    pub fn is_compatible(&self) -> bool {
        self.versions.len() <= VERSIONS_MAX
            && self.agent.len() <= AGENT_LEN_MAX
            && self.versions.contains(&VERSION)
    }
}

/// A frame on the message stream, grouped by the feature that handles it.
#[expect(
    clippy::large_enum_variant,
    reason = "there is one at a time, and a box would be an allocation for each message"
)]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PeerFrame {
    /// Offers and transfers.
    File(FileFrame),
    /// What both sides have of conversations, and their entries.
    Log(LogFrame),
}

crate::from_parts!(PeerFrame {
    File(FileFrame),
    Log(LogFrame),
});
