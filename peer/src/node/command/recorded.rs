//! Messages in the order in which the history got them, and places in that order.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::HistoryItem;

/// A place in the order in which a profile's history got its messages, received and sent. That of a later message is
/// greater, also after a restart, and none is given twice. [`Cursor::START`] is before the first.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Cursor(pub u64);

impl Cursor {
    /// Before the first message.
    pub const START: Self = Self(0);

    /// The one behind it.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Cursor {
    type Err = CursorError;

    fn from_str(text: &str) -> Result<Self, CursorError> {
        let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let number = text.parse().ok().filter(|_| is_number);
        number.map(Self).ok_or(CursorError)
    }
}

/// A text is not a cursor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a cursor is a number as it stands in an event, such as 1207, or 0 for the beginning")]
pub struct CursorError;

/// A message that is in the history, and its place there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recorded {
    /// Its place in the order of arrival; programs go on behind it.
    pub cursor: Cursor,
    /// The message as it is now.
    #[serde(flatten)]
    pub item: HistoryItem,
}

/// Messages that the history got after another one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordedPage {
    /// The first of them, in their order. Not those that were taken back.
    pub messages: Vec<Recorded>,
    /// The last place that was given to a message, whether or not that is among them.
    pub last: Cursor,
}
