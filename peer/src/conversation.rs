//! What a chat screen knows.

/// What a line that was typed means.
pub(crate) mod entry;
