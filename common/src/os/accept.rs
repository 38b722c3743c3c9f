//! Why a connection could not be accepted.

use std::io::{self, ErrorKind};

/// Tells whether `accept` failed because of the connection that it was about: the next one may be fine.
/// Anything else, such as a lack of descriptors, is about the system and does not pass at once.
pub fn is_per_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::ConnectionAborted
            | ErrorKind::ConnectionReset
            | ErrorKind::Interrupted
            | ErrorKind::NetworkDown
            | ErrorKind::NetworkUnreachable
            | ErrorKind::HostUnreachable
            | ErrorKind::PermissionDenied
    )
}
