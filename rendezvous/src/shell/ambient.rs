//! The system's randomness: the only place that asks for it.

use rand::TryRng;
use rand::rngs::SysRng;

use super::Failure;

/// 32 random bytes from the system.
pub(super) fn seed() -> Result<[u8; 32], Failure> {
    let mut bytes = [0; 32];
    SysRng
        .try_fill_bytes(&mut bytes)
        .map_err(|error| Failure::System {
            what: "get random bytes",
            why: std::io::Error::other(error),
        })?;
    Ok(bytes)
}
