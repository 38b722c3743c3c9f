//! What a chat screen knows.

/// What a line that was typed means.
pub(crate) mod entry;
/// The commands that start with a slash.
pub(crate) mod slash;
