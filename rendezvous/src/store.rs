//! What must last: accounts, devices, lock-outs, one-time codes and the audit trail.
//!
//! The engine describes what it needs as requests. A store executes those that are queued as one
//! transaction and answers them after the commit, so that an answer means that it is on disk.

use std::fmt;

use common::id::{AccountName, DeviceName};
use common::key::{DeviceKey, TokenHash};
use common::password::PasswordRecord;
use common::time::UnixTime;
use common::wire::rendezvous::{AdmissionCode, StretchVersion};

pub use lockout::{LaneRow, LockoutRow, NameHash, Subject};

// What is kept of failed log-ins.
mod lockout;
/// A store in memory, for tests and simulations.
pub mod memory;
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
    /// Whose.
    pub account: AccountName,
    /// The code.
    pub code: AdmissionCode,
    /// When it stops working.
    pub expires: UnixTime,
}

/// Numbers accounts; a number is never used again, not even for an account of the same name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AccountId(pub i64);

/// What the engine asks of the store.
#[derive(Clone, Debug)]
pub enum StoreRequest {
    /// Reads an account, and one of its devices if that is wanted. Answered by `Loaded`.
    LoadAccount {
        /// Its name.
        account: AccountName,
        /// The device's key.
        device_key: Option<DeviceKey>,
    },
    /// Makes an account. Answered by `Done` or `Exists`.
    CreateAccount {
        /// Its name.
        account: AccountName,
        /// What the server keeps instead of the password.
        record: PasswordRecord,
        /// How the password is stretched.
        stretch: StretchVersion,
        /// Now.
        at: UnixTime,
    },
    /// Removes an account with everything that belongs to it. Answered by `Done` or `NotFound`.
    RemoveAccount {
        /// Its name.
        account: AccountName,
        /// Now.
        at: UnixTime,
    },
    /// Lists accounts by name. Answered by `Accounts`.
    ListAccounts {
        /// Only names after this one.
        after: Option<AccountName>,
        /// At most this many.
        count_max: usize,
    },
    /// Keeps the failures of a subject; an empty row is dropped. Of names without an account that have the
    /// same [slot](NameHash::slot) the last one stays. Answered by `Done`.
    SaveLockout {
        /// The row.
        row: LockoutRow,
        /// For the audit trail, when this begins a block.
        is_blocked_now: bool,
        /// Now.
        at: UnixTime,
    },
    /// Drops up to [`UNKNOWN_NAMES_SWEPT`](common::limits::UNKNOWN_NAMES_SWEPT) names without an account
    /// that have not failed since. Answered by `Done`.
    ForgetUnknown {
        /// The last moment that is not dropped.
        before: UnixTime,
    },
    /// Forgets the failures of an account. Answered by `Done` or `NotFound`.
    Unblock {
        /// Whose.
        account: AccountName,
        /// Now.
        at: UnixTime,
    },
    /// Enrols a device after a password log-in, or gives it a new token, and keeps `lockout` in any
    /// case. A key that was another account's moves. Answered by `Done`, `NotFound` or `Full`.
    Enrol {
        /// Which account.
        id: AccountId,
        /// The device.
        device: Device,
        /// The account's failures without this attempt.
        lockout: LockoutRow,
    },
    /// Gives an enrolled device a new token. The one before stays good until the new one is used, in
    /// case the device never hears of it. Answered by `Done`, or `NotFound` if it is enrolled no longer.
    RenewToken {
        /// Which account.
        id: AccountId,
        /// Which device.
        device_key: DeviceKey,
        /// What the new token hashes to.
        token_hash: TokenHash,
        /// What the one before hashes to.
        token_before: TokenHash,
        /// Now.
        at: UnixTime,
    },
    /// Forgets the token before a device's newest, which it has used. Answered by `Done`.
    DropTokenBefore {
        /// Which account.
        id: AccountId,
        /// Which device.
        device_key: DeviceKey,
    },
    /// Forgets a device and its token. Answered by `Done`.
    ForgetDevice {
        /// Which account.
        id: AccountId,
        /// Which device.
        device_key: DeviceKey,
        /// Now.
        at: UnixTime,
    },
    /// Asks whose a device is. Answered by `Owner`.
    FindOwner {
        /// Which device.
        device_key: DeviceKey,
    },
    /// Keeps a one-time code. Answered by `Done`, or `NotFound` if there is no such account.
    SaveAdmission {
        /// The code.
        admission: Admission,
        /// Now.
        at: UnixTime,
    },
    /// Drops a one-time code that was used or has expired. Answered by `Done`.
    DropAdmission {
        /// The code.
        admission: Admission,
    },
}

/// The store's answer, after the commit.
#[derive(Clone, Debug)]
pub enum StoreAnswer {
    /// It is on disk.
    Done,
    /// The name is taken.
    Exists,
    /// There is no such account or device.
    NotFound,
    /// The account has as many devices as it may have.
    Full,
    /// What was found under a name.
    Loaded(Lookup),
    /// The owner of a device, if it has one.
    Owner(Option<AccountName>),
    /// Accounts in the order of their names.
    Accounts(Vec<AccountSummary>),
}

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
    /// Its number.
    pub id: AccountId,
    /// What the server keeps instead of the password.
    pub record: PasswordRecord,
    /// How the password is stretched.
    pub stretch: StretchVersion,
    /// The device that was asked for, if it is enrolled.
    pub device: Option<Device>,
}

/// A device that is enrolled with an account.
#[derive(Clone, Debug)]
pub struct Device {
    /// Its key.
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
    /// Tells whether a token is this device's.
    pub fn has_token(&self, token: &TokenHash) -> bool {
        self.token_hash == *token || self.token_before.as_ref() == Some(token)
    }
}

/// An account as an operator sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccountSummary {
    /// Its name.
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

#[cfg(all(test, feature = "shell"))]
mod tests;
