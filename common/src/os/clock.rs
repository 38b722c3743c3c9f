//! The two clocks. Both programs read them here and nowhere else.

use std::time::{Instant, SystemTime};

use crate::time::{Epoch, UnixTime};

/// Reads the monotonic clock.
#[expect(
    clippy::disallowed_methods,
    reason = "the one place of both programs that reads the monotonic clock"
)]
pub fn now() -> Instant {
    Instant::now()
}

/// Reads the wall clock. A clock before 1970 counts as 1970.
#[expect(
    clippy::disallowed_methods,
    reason = "the one place of both programs that reads the wall clock"
)]
pub fn unix_time() -> UnixTime {
    let since_1970 = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    UnixTime::from_millis(u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX))
}

/// Reads both clocks, for an engine that starts now.
pub fn epoch() -> Epoch {
    Epoch::new(now(), unix_time())
}
