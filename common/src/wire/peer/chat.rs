//! Messages and receipts.

use serde::{Deserialize, Serialize};

use crate::id::MessageId;
use crate::limits::MESSAGE_LEN_MAX;
use crate::time::UnixTime;

/// A frame that carries a message or a receipt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ChatFrame {
    /// A message, sent again on every new link until its receipt arrives.
    Message(Message),
    /// The recipient's receipt for a message.
    Receipt {
        /// The message that it acknowledges.
        id: MessageId,
        /// How far the message has got.
        state: ReceiptState,
    },
}

/// A message between two accounts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// Stays the same when the message is sent again.
    pub id: MessageId,
    /// The conversation that it belongs to.
    pub conversation: Conversation,
    /// When its author sent it, by the author's clock.
    pub sent: UnixTime,
    /// The text.
    pub body: MessageBody,
}

/// The conversation that a message belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Conversation {
    /// The one between the accounts of the link's two devices.
    Direct,
}

/// The text of a message: UTF-8, 1 to [`MESSAGE_LEN_MAX`] bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct MessageBody(String);

impl MessageBody {
    /// The text, still untrusted: escape it with [`crate::text::block`] before writing it to a terminal.
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

/// The text's length is out of bounds for a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MessageBodyError {
    /// The text is empty.
    #[error("the message is empty")]
    Empty,
    /// The text is longer than [`MESSAGE_LEN_MAX`].
    #[error("the message has {len} bytes, more than the {MESSAGE_LEN_MAX} allowed")]
    TooLong {
        /// Length of the text, in bytes.
        len: usize,
    },
}

/// How far a message has got at its recipient.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum ReceiptState {
    /// It is on the recipient's disk.
    Delivered,
    /// It was shown to the recipient.
    Read,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_has_from_one_byte_to_the_longest_length() {
        let longest = "x".repeat(MESSAGE_LEN_MAX);
        let body = MessageBody::try_from(longest.clone()).unwrap();
        assert_eq!(body.as_str(), longest);
        let len = MESSAGE_LEN_MAX + 1;
        assert_eq!(
            MessageBody::try_from("x".repeat(len)),
            Err(MessageBodyError::TooLong { len })
        );
        assert_eq!(
            MessageBody::try_from(String::new()),
            Err(MessageBodyError::Empty)
        );
    }
}
