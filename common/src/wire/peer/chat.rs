//! Messages and receipts.

use serde::{Deserialize, Serialize};

use crate::id::MessageId;
use crate::limits::MESSAGE_LEN_MAX;
use crate::time::UnixTime;

/// A frame about messages.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ChatFrame {
    /// A message. Sent again on every new link until its receipt has come.
    Message(Message),
    /// What became of a message.
    Receipt {
        /// Which message.
        id: MessageId,
        /// What the recipient did with it.
        state: ReceiptState,
    },
}

/// A message between two accounts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// The same however often it is sent.
    pub id: MessageId,
    /// Where it belongs.
    pub conversation: Conversation,
    /// When its author sent it, by the author's clock.
    pub sent: UnixTime,
    /// UTF-8 text of 1 to [`MESSAGE_LEN_MAX`] bytes.
    pub body: MessageBody,
}

/// Where a message belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Conversation {
    /// Between the accounts of the two devices of the link.
    Direct,
}

/// The text of a message, within its bounds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct MessageBody(String);

impl MessageBody {
    /// The text; still from outside, so a terminal gets it through [`crate::text::block`].
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for MessageBody {
    type Error = MessageBodyError;

    fn try_from(text: String) -> Result<Self, MessageBodyError> {
        match text.len() {
            0 => Err(MessageBodyError::Empty),
            1..=MESSAGE_LEN_MAX => Ok(Self(text)),
            len => Err(MessageBodyError::TooLong { len }),
        }
    }
}

impl From<MessageBody> for String {
    fn from(body: MessageBody) -> Self {
        body.0
    }
}

/// A text cannot be a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MessageBodyError {
    /// Nothing to say.
    #[error("the message is empty")]
    Empty,
    /// More than a message may hold.
    #[error(
        "the message has {len} bytes, more than the {MESSAGE_LEN_MAX} allowed; send it as a file"
    )]
    TooLong {
        /// Bytes it has.
        len: usize,
    },
}

/// What a recipient did with a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum ReceiptState {
    /// It is on the recipient's disk.
    Delivered,
    /// It was shown.
    Read,
}

#[cfg(test)]
mod tests {
    use super::super::PeerFrame;
    use super::*;
    use crate::limits::LINK_FRAME_LEN_MAX;
    use crate::wire::frame;

    #[test]
    fn the_longest_message_fits_a_frame_and_a_longer_one_is_none() {
        let body = MessageBody::try_from("x".repeat(MESSAGE_LEN_MAX)).unwrap();
        let message = PeerFrame::Chat(ChatFrame::Message(Message {
            id: MessageId::from_bytes([255; 16]),
            conversation: Conversation::Direct,
            sent: UnixTime::from_millis(u64::MAX),
            body,
        }));
        let mut out = Vec::new();
        frame::encode::<LINK_FRAME_LEN_MAX>(&message, &mut out).unwrap();
        assert!(MessageBody::try_from("x".repeat(MESSAGE_LEN_MAX + 1)).is_err());
        assert!(MessageBody::try_from(String::new()).is_err());
    }
}
