//! The two clocks and the system's randomness: the only place that asks for them.

use std::time::{Instant, SystemTime};

use common::time::{Epoch, UnixTime};
use rand::TryRng;
use rand::rngs::SysRng;

use super::Problem;

/// The monotonic clock.
#[expect(
    clippy::disallowed_methods,
    reason = "the shell's one look at the monotonic clock"
)]
pub(super) fn now() -> Instant {
    Instant::now()
}

/// Both clocks at once. A clock before 1970 counts as 1970.
#[expect(
    clippy::disallowed_methods,
    reason = "the shell's one look at the wall clock"
)]
pub(super) fn epoch() -> Epoch {
    let wall = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    let millis = u64::try_from(wall.as_millis()).unwrap_or(u64::MAX);
    Epoch::new(now(), UnixTime::from_millis(millis))
}

/// 32 random bytes from the system.
pub(super) fn seed() -> Result<[u8; 32], Problem> {
    let mut bytes = [0; 32];
    SysRng
        .try_fill_bytes(&mut bytes)
        .map_err(|error| Problem::System {
            what: "random bytes",
            why: std::io::Error::other(error),
        })?;
    Ok(bytes)
}
