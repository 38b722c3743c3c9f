//! The wall clock of a command: for what is shown and sent, never for waiting.

use common::time::UnixTime;

/// This machine's time.
pub(super) fn time_now() -> UnixTime {
    let millis = jiff::Timestamp::now().as_millisecond();
    UnixTime::from_millis(u64::try_from(millis).unwrap_or(0))
}
