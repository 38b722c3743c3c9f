//! What is known of one conversation on one link.

use common::log::{ConversationId, Vector};
use common::wire::peer::ConversationNumber;

use super::super::giving::Giving;
use super::super::traces::Traces;

/// One conversation.
#[derive(Debug)]
pub(super) struct Conversation {
    pub(super) giving: Giving,
    pub(super) traces: Traces,
    /// All that is here was said on this link.
    pub(super) is_stated: bool,
    /// The other side has given something before it was known what differs: it waits for the answer.
    pub(super) is_given_early: bool,
    /// The other side was asked, or is to be asked, to say again all that it has.
    pub(super) was_asked: bool,
    /// It is to be asked that with what is said next.
    pub(super) is_again: bool,
}

impl Default for Conversation {
    fn default() -> Self {
        Self {
            giving: Giving::delaying(),
            traces: Traces::default(),
            is_stated: false,
            is_given_early: false,
            was_asked: false,
            is_again: false,
        }
    }
}

/// A list of what the other side has of a conversation, as far as it has come.
#[derive(Debug)]
pub(super) struct Listing {
    pub(super) number: ConversationNumber,
    pub(super) conversation: ConversationId,
    pub(super) vector: Vector,
    /// The conversation is not shared: only numbers are noted.
    pub(super) is_ignored: bool,
}
