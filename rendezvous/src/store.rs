//! What must last: accounts, devices, lock-outs, one-time codes and the audit trail.
//!
//! The engine describes what it needs as requests. A store executes those that are queued as one
//! transaction and answers them after the commit, so that an answer means that it is on disk.

use std::fmt;

use common::id::{AccountName, DeviceName};
use common::key::{DeviceKey, TokenHash};
use common::limits::ADMISSION_LIFETIME;
use common::password::PasswordRecord;
use common::time::UnixTime;
use common::wire::rendezvous::{AdmissionCode, Enrolment, StretchVersion};

pub use lockout::{LaneRow, LockoutRow, NameHash, Subject};
pub use request::{
    AccountsAnswer, AccountsRequest, AdmissionsAnswer, AdmissionsRequest, DevicesAnswer,
    DevicesRequest, LockoutsAnswer, LockoutsRequest, LogsAnswer, LogsRequest, StoreAnswer,
    StoreRequest,
};

// What is kept of failed log-ins.
mod lockout;
/// A store in memory, for tests and simulations.
pub mod memory;
// What is asked and answered.
mod request;
/// The SQLite database of a data folder.
#[cfg(feature = "shell")]
pub mod sqlite;

/// Keeps what must last.
pub trait Store {
    /// Executes a batch in order, each request of it as a whole or not at all. What is answered is
    /// durable; what fails is answered with its error, and the others are executed all the same. There
    /// are as many answers as requests.
    fn execute(&mut self, batch: &[StoreRequest]) -> Vec<Result<StoreAnswer, StoreError>>;

    /// Reads what an engine needs at its start.
    ///
    /// # Errors
    ///
    /// If the store cannot be read or is damaged.
    fn restore(&mut self) -> Result<Restored, StoreError>;
}

/// What an engine needs at its start.
#[derive(Clone, Debug, Default)]
pub struct Restored {
    /// Every subject that somebody failed to log in to.
    pub lockouts: Vec<LockoutRow>,
    /// One-time codes that nobody has used.
    pub admissions: Vec<Admission>,
    /// Accounts whose password record still has their name as credential identifier: what somebody had
    /// evaluated for the name before they were made can be tested against one log-in.
    pub named_credentials: u32,
}

/// A one-time code that admits a new device of an account during a block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admission {
    /// The account that it admits to.
    pub account: AccountName,
    /// Random; unlike the other codes of the account.
    pub code: AdmissionCode,
    /// When it stops working.
    pub expires: UnixTime,
}

impl Admission {
    /// Seconds for which a code works.
    pub const LIFETIME_S: u32 = ADMISSION_LIFETIME.as_secs() as u32;
}

/// Numbers accounts; a number is never used again, not even for an account of the same name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AccountId(pub i64);

/// What was found under a name.
#[derive(Clone, Default)]
pub struct Lookup {
    /// The account, if there is one.
    pub account: Option<Box<Account>>,
    /// Another one, read in the place of none and of no use. Whoever asked drops it where it would have
    /// dropped the account, because that takes its time, too.
    pub stand_in: Option<Box<Account>>,
}

impl fmt::Debug for Lookup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.account, f)
    }
}

/// An account as a log-in needs it.
#[derive(Clone, Debug)]
pub struct Account {
    /// Never that of another account, not even of one with the same name.
    pub id: AccountId,
    /// What the server keeps instead of the password.
    pub record: PasswordRecord,
    /// How the password is stretched.
    pub stretch: StretchVersion,
    /// The device that was asked for, if it is enrolled.
    pub device: Option<Device>,
    /// Other devices that were enrolled and that this device has not noted, oldest first.
    pub untold: Vec<Enrolment>,
}

/// A device that is enrolled with an account.
#[derive(Clone, Debug)]
pub struct Device {
    /// Of no other device, whichever account has it.
    pub key: DeviceKey,
    /// What its owner calls it.
    pub name: DeviceName,
    /// What its token hashes to.
    pub token_hash: TokenHash,
    /// What the token before hashes to, until the device has used its newest.
    pub token_before: Option<TokenHash>,
    /// When the token was issued.
    pub token_issued: UnixTime,
}

impl Device {
    /// What the account's other devices are told, if its newest token came with the enrolment.
    pub fn enrolment(&self) -> Enrolment {
        Enrolment {
            device_name: self.name.clone(),
            device_key: self.key,
            at: self.token_issued,
        }
    }

    /// Tells whether a token is this device's.
    pub fn has_token(&self, token: &TokenHash) -> bool {
        self.token_hash == *token || self.token_before.as_ref() == Some(token)
    }
}

/// An account as an operator sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccountSummary {
    /// The account's name.
    pub account: AccountName,
    /// Since when it exists.
    pub created: UnixTime,
    /// How many devices are enrolled.
    pub devices: u32,
}

/// Why the store did not do it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The disk is full.
    #[error("the disk that holds the database is full; make room on it")]
    DiskFull,
    /// The database is damaged.
    #[error("the database is damaged; restore a backup: {0}")]
    Damaged(String),
    /// Anything else that the system says.
    #[error("the database cannot be read or written: {0}")]
    Failed(String),
}

/// The first of these entries, until they have `len_max` bytes, and one in any case.
fn first_of(entries: impl Iterator<Item = Vec<u8>>, len_max: usize) -> Vec<Vec<u8>> {
    let mut len = 0;
    let fits = |entry: &Vec<u8>| {
        let is_first = len == 0;
        len += entry.len();
        is_first || len <= len_max
    };
    entries.take_while(fits).collect()
}

#[cfg(all(test, feature = "shell"))]
mod tests;
