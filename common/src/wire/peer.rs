//! Between two peers: messages, receipts, offers, leaves.
//!
//! The QUIC client opens one bidirectional stream, the *message stream*. Each side sends a
//! [`PeerHello`] on it and then [`PeerFrame`]s, in order. The bytes of a file travel beside it: one
//! unidirectional stream a leaf, a [`LeafHeader`] in front.

use serde::{Deserialize, Serialize};

// Messages and receipts.
mod chat;
// Offers, transfers and leaves.
mod file;

use crate::hash::FileDigest;
use crate::id::{MessageId, TransferId};
use crate::limits::{AGENT_LEN_MAX, VERSIONS_MAX};
pub use chat::{Conversation, Message, MessageBody, MessageBodyError, ReceiptState};
pub use file::{
    CancelReason, DeclineReason, LEAF_HEADER_LEN_MAX, LeafHeader, LeafRange, Offer, Reason,
    ReasonError,
};

/// The protocol version that this module describes.
pub const VERSION: u16 = 1;
/// ALPN of a link.
pub const ALPN: &[u8] = b"rdv-peer/1";

/// The first frame of each side on the message stream; keeps its shape for ever.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerHello {
    /// Versions that this side speaks.
    pub versions: Vec<u16>,
    /// Program and version.
    pub agent: String,
}

impl PeerHello {
    /// What this build says.
    pub fn ours(agent: &str) -> Self {
        Self {
            versions: vec![VERSION],
            agent: agent.to_owned(),
        }
    }

    /// Tells whether the other side speaks our version.
    pub fn is_compatible(&self) -> bool {
        self.versions.len() <= VERSIONS_MAX
            && self.agent.len() <= AGENT_LEN_MAX
            && self.versions.contains(&VERSION)
    }
}

/// A frame on the message stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PeerFrame {
    /// A message. Sent again on every new link until its receipt has come.
    Message(Message),
    /// What became of a message.
    Receipt {
        /// Which message.
        id: MessageId,
        /// What the recipient did with it.
        state: ReceiptState,
    },
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
