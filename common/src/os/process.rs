//! The limits of this process.

use rustix::process::{Resource, Rlimit, setrlimit};

/// Switches core dumps off for this process, soft and hard: a crash leaves no image of its memory, which
/// holds keys and, in a peer, texts and for a moment a password. Its owner may still look at the process
/// in `/proc`. A failure is logged as a warning.
pub fn forbid_core_dumps() {
    let nothing = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    if let Err(why) = setrlimit(Resource::Core, nothing) {
        log::warn!("cannot switch off core dumps, so a crash may leave keys in one: {why}");
    }
}
