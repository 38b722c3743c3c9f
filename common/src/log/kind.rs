//! What sort of body an entry has: one byte.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The kind of an entry. Those below 128 are of the talk log, the others control a room or an account.
///
/// Every byte is a kind: entries of unknown ones are kept and given on like all others.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Kind(pub u8);

impl Kind {
    /// Somebody says something.
    pub const TEXT: Self = Self(0);
    /// A text in reply to another entry.
    pub const REPLY: Self = Self(1);
    /// A new text for an earlier entry.
    pub const EDIT: Self = Self(2);
    /// The end of an earlier entry.
    pub const DELETE: Self = Self(3);
    /// A reaction to another entry.
    pub const REACT: Self = Self(4);
    /// When two people talked.
    pub const SESSION: Self = Self(5);
    /// The end of somebody's chain.
    pub const CUT: Self = Self(134);

    /// The beginning of an account.
    pub const GENESIS: Self = Self(160);
    /// A device of an account.
    pub const APPROVE: Self = Self(161);
    /// The end of a device of an account.
    pub const REVOKE: Self = Self(162);

    /// Tells whether it controls a room or an account.
    pub const fn is_control(self) -> bool {
        self.0 >= 128
    }
}

impl fmt::Debug for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Kind({})", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_begins_at_128() {
        assert!(!Kind::SESSION.is_control());
        assert!(!Kind(127).is_control());
        assert!(Kind(128).is_control());
        assert!(Kind::CUT.is_control());
    }
}
