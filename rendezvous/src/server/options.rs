//! What an operator chooses before the engine starts.

use super::logins::lockout::{BucketKey, LockoutOptions};
use super::logins::registration::Registration;

/// What an operator may choose.
#[derive(Clone, Debug)]
pub struct ServerOptions {
    /// Who may register.
    pub registration: Registration,
    /// How many log-ins may fail.
    pub lockout: LockoutOptions,
    /// Keys the counters of unknown names.
    pub bucket_key: BucketKey,
    /// Devices may send each other packets through the relay.
    pub relays: bool,
    /// What the greeting says: program and version.
    pub agent: String,
}

impl ServerOptions {
    /// The defaults with this key.
    pub fn new(bucket_key: BucketKey) -> Self {
        Self {
            registration: Registration::default(),
            lockout: LockoutOptions::default(),
            bucket_key,
            relays: true,
            agent: concat!("rendezvous/", env!("CARGO_PKG_VERSION")).to_owned(),
        }
    }
}
