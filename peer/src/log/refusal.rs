//! Why something that came from another device is not taken.

use common::limits::{
    CHAINS_PER_CONVERSATION_MAX, ENTRIES_PER_SEAL_MAX, PAGE_ENTRIES_MAX, PAGE_LEN_MAX,
    RUNS_PER_DEVICE_MAX,
};
use common::log::Sequence;

/// Why entries, a seal or a proof are not taken. [`Refusal::is_violation`] says whose fault it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    // ---- whoever sent it breaks the protocol ----
    /// It is of another conversation.
    #[error("it belongs to another conversation")]
    OtherConversation,
    /// A page has no entries, too many, or too large ones, or stands where no entry can be.
    #[error("a page has 1 to {PAGE_ENTRIES_MAX} entries of at most {PAGE_LEN_MAX} bytes")]
    Malformed,
    /// A body is not the one of its entry.
    #[error("a body does not match its entry")]
    OtherBody,
    /// The seal is not its author's, or of other entries.
    #[error("the seal is not the author's, or not of these entries")]
    BadSeal,
    /// The clocks of a run do not increase.
    #[error("the clocks of the run do not increase")]
    ClockBackwards,
    /// There are too many entries from one seal to the next.
    #[error("more than {ENTRIES_PER_SEAL_MAX} entries follow each other without a seal")]
    TooFarFromSeal,

    // ---- its author contradicts itself ----
    /// A genuine entry at this place, or before, is another one than the one that is here: the run has forked.
    #[error("the author has sealed another entry at {at} or before")]
    Diverged {
        /// Where both differ.
        at: Sequence,
    },
    /// It is unsealed, and another entry is here.
    #[error("another entry is at its place, and this one is not sealed")]
    Contradicts,

    // ---- nobody's fault ----
    /// Its author has not sealed it, and this is not the author's link. A part that a fork ends needs no seal, but its
    /// proof, which may still be on the way.
    #[error("the author has not sealed it")]
    Unsealed,
    /// It is here already.
    #[error("it is known")]
    Known,
    /// It does not follow what is here.
    #[error("it does not follow what is known of the run")]
    NotNext,
    /// The device is not approved by its account.
    #[error("the device is not approved")]
    NotApproved,
    /// The run is void there.
    #[error("the run is void from there on")]
    Void,
    /// There is no room for another run.
    #[error(
        "a device has at most {RUNS_PER_DEVICE_MAX} runs, a conversation {CHAINS_PER_CONVERSATION_MAX}"
    )]
    Full,
}

impl Refusal {
    /// Tells whether whoever sent it has broken the protocol, so that the link is to be closed. An honest device never
    /// sends that, whatever it was given by others.
    pub const fn is_violation(self) -> bool {
        match self {
            Self::OtherConversation
            | Self::Malformed
            | Self::OtherBody
            | Self::BadSeal
            | Self::ClockBackwards => true,
            // Whoever learns of a fork later than the giver takes no more of it for genuine, and who of a cut later
            // gives what is void: neither is at fault.
            Self::TooFarFromSeal
            | Self::Diverged { .. }
            | Self::Contradicts
            | Self::Unsealed
            | Self::Known
            | Self::NotNext
            | Self::NotApproved
            | Self::Void
            | Self::Full => false,
        }
    }
}
