//! What an operator chooses before the engine starts.

use common::limits::RELAY_BYTES_PER_SECOND_OF_ACCOUNT;

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
    /// Bytes per second that the relay takes from an account; `None` if there is no relay.
    pub relay_rate: Option<u32>,
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
            relay_rate: Some(RELAY_BYTES_PER_SECOND_OF_ACCOUNT),
            agent: concat!("rendezvous/", env!("CARGO_PKG_VERSION")).to_owned(),
        }
    }
}
