//! Connections that are there.

/// More connections than there may be.
#[cfg(test)]
mod crowd;
/// Who has not logged in yet.
pub(super) mod strangers;
