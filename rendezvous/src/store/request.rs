//! What the engine asks of the store and what the store answers, by what it is about.

use common::id::AccountName;
use common::key::{DeviceKey, TokenHash};
use common::password::PasswordRecord;
use common::time::UnixTime;
use common::wire::rendezvous::{Enrolment, StretchVersion};

use super::{Account, AccountId, AccountSummary, Admission, Device, LockoutRow, Lookup};

/// What the engine asks of the store.
#[derive(Clone, Debug)]
pub enum StoreRequest {
    /// Answered by [`StoreAnswer::Accounts`].
    Accounts(AccountsRequest),
    /// Answered by [`StoreAnswer::Devices`].
    Devices(DevicesRequest),
    /// Answered by [`StoreAnswer::Lockouts`].
    Lockouts(LockoutsRequest),
    /// Answered by [`StoreAnswer::Admissions`].
    Admissions(AdmissionsRequest),
    /// Answered by [`StoreAnswer::Logs`].
    Logs(LogsRequest),
}

/// About accounts and their passwords.
#[derive(Clone, Debug)]
pub enum AccountsRequest {
    /// Reads an account, and one of its devices if that is wanted. Answered by `Loaded`.
    Load {
        /// It need not exist.
        account: AccountName,
        /// The device to read, if one is wanted.
        device_key: Option<DeviceKey>,
    },
    /// Makes an account. Answered by `Done` or `Exists`.
    Create {
        /// Not the name of another account.
        account: AccountName,
        /// What the server keeps instead of the password.
        record: PasswordRecord,
        /// How the password is stretched.
        stretch: StretchVersion,
        /// For the list of accounts and the audit trail.
        at: UnixTime,
    },
    /// Removes an account with everything that belongs to it. Answered by `Done` or `NotFound`.
    Remove {
        /// It need not exist.
        account: AccountName,
        /// For the audit trail.
        at: UnixTime,
    },
    /// Lists accounts by name. Answered by `Listed`.
    List {
        /// Only names after this one.
        after: Option<AccountName>,
        /// At most this many.
        count_max: usize,
    },
}

/// About enrolled devices.
#[derive(Clone, Debug)]
pub enum DevicesRequest {
    /// Enrols a device after a password log-in, or gives it a new token, and keeps `lockout` in any
    /// case. A key that was another account's moves. What is new to the account, each of its other devices
    /// is to be told; of more than [`ENROLMENTS_UNTOLD_MAX`](common::limits::ENROLMENTS_UNTOLD_MAX) the
    /// newest stay. Answered by `Enrolled`, `NotFound` or `Full`.
    Enrol {
        /// The account that owns the device from now on.
        id: AccountId,
        /// Its key may be enrolled already.
        device: Device,
        /// The account's failures without this attempt.
        lockout: LockoutRow,
    },
    /// Gives an enrolled device a new token. The one before stays good until the new one is used, in
    /// case the device never hears of it. Answered by `Renewed`, or `NotFound` if it is enrolled no longer.
    RenewToken {
        /// The account that owns the device.
        id: AccountId,
        /// Enrolled with that account.
        device_key: DeviceKey,
        /// What the new token hashes to.
        token_hash: TokenHash,
        /// What the one before hashes to.
        token_before: TokenHash,
        /// When the new token was issued.
        at: UnixTime,
    },
    /// Forgets the token before a device's newest, which it has used. Answered by `Done`.
    DropTokenBefore {
        /// The account that owns the device.
        id: AccountId,
        /// Enrolled with that account.
        device_key: DeviceKey,
    },
    /// A device knows of an enrolment and need not be told of it again. Answered by `Done`.
    Note {
        /// The account that owns the device.
        id: AccountId,
        /// The device that knows.
        device_key: DeviceKey,
        /// The device that was enrolled.
        enrolled: DeviceKey,
    },
    /// Forgets a device and its token. Answered by `Done`.
    Forget {
        /// The account that owns the device.
        id: AccountId,
        /// It need not be enrolled.
        device_key: DeviceKey,
        /// For the audit trail.
        at: UnixTime,
    },
    /// Lists the devices of an account, ordered by when they were enrolled. Answered by `Listed`.
    List {
        /// It need not exist.
        id: AccountId,
    },
    /// Asks whose a device is. Answered by `Owner`.
    FindOwner {
        /// It need not be enrolled.
        device_key: DeviceKey,
    },
}

/// About failed log-ins.
#[derive(Clone, Debug)]
pub enum LockoutsRequest {
    /// Keeps the failures of a subject; an empty row drops the subject's own. Of names without an account that have the
    /// same [slot](super::NameHash::slot) the last one stays. Answered by `Done`.
    Save {
        /// Takes the place of the subject's row.
        row: LockoutRow,
        /// For the audit trail, when this begins a block.
        is_blocked_now: bool,
        /// For the audit trail.
        at: UnixTime,
    },
    /// Drops up to [`UNKNOWN_NAMES_PER_SWEEP_MAX`](common::limits::UNKNOWN_NAMES_PER_SWEEP_MAX) names without an account
    /// that have not failed since. Answered by `Done`.
    ForgetUnknown {
        /// The first moment that is not dropped.
        before: UnixTime,
    },
    /// Forgets the failures of an account. Answered by `Done` or `NotFound`.
    Unblock {
        /// It need not exist.
        account: AccountName,
        /// For the audit trail.
        at: UnixTime,
    },
}

/// About one-time codes.
#[derive(Clone, Debug)]
pub enum AdmissionsRequest {
    /// Keeps a one-time code. Answered by `Done`, or `NotFound` if there is no such account.
    Save {
        /// A code that the account does not have yet.
        admission: Admission,
        /// For the audit trail.
        at: UnixTime,
    },
    /// Drops a one-time code that was used or has expired. Answered by `Done`.
    Drop {
        /// It need not be there.
        admission: Admission,
    },
}

/// About the logs of accounts, entry by entry in the order in which they came.
#[derive(Clone, Debug)]
pub enum LogsRequest {
    /// Reads a log from one place on. Answered by `Page`.
    Read {
        /// It need not exist.
        account: AccountName,
        /// So many entries are left out.
        after: u32,
        /// Entries of this many bytes together are enough; one is read in any case.
        len_max: usize,
    },
    /// Adds an entry at one place, if that is where the log ends, and forgets devices that it revokes. Answered by
    /// `Appended`, or `NotFound` if the log ends elsewhere or there is no such account.
    Append {
        /// Whose log it is.
        id: AccountId,
        /// So many entries are before it.
        after: u32,
        /// As it is sent.
        entry: Vec<u8>,
        /// They need not be enrolled.
        revoked: Vec<DeviceKey>,
        /// For the audit trail.
        at: UnixTime,
    },
}

/// The store's answer, after the commit.
#[derive(Clone, Debug)]
pub enum StoreAnswer {
    /// To a [`StoreRequest::Accounts`].
    Accounts(AccountsAnswer),
    /// To a [`StoreRequest::Devices`].
    Devices(DevicesAnswer),
    /// To a [`StoreRequest::Lockouts`].
    Lockouts(LockoutsAnswer),
    /// To a [`StoreRequest::Admissions`].
    Admissions(AdmissionsAnswer),
    /// To a [`StoreRequest::Logs`].
    Logs(LogsAnswer),
}

impl StoreAnswer {
    /// The account that was found, if there is one.
    pub fn into_account(self) -> Option<Box<Account>> {
        match self {
            Self::Accounts(AccountsAnswer::Loaded(found)) => found.account,
            Self::Accounts(
                AccountsAnswer::Done
                | AccountsAnswer::Exists
                | AccountsAnswer::NotFound
                | AccountsAnswer::Listed(_),
            )
            | Self::Devices(_)
            | Self::Lockouts(_)
            | Self::Admissions(_)
            | Self::Logs(_) => None,
        }
    }
}

/// To an [`AccountsRequest`].
#[derive(Clone, Debug)]
pub enum AccountsAnswer {
    /// It is on disk.
    Done,
    /// The name is taken.
    Exists,
    /// There is no such account.
    NotFound,
    /// What was found under a name.
    Loaded(Lookup),
    /// Accounts in the order of their names.
    Listed(Vec<AccountSummary>),
}

/// To a [`DevicesRequest`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DevicesAnswer {
    /// It is on disk.
    Done,
    /// The device is enrolled, and on disk.
    Enrolled {
        /// It was not the account's before.
        is_new: bool,
        /// What the device has not been told: [`Account::untold`].
        untold: Vec<Enrolment>,
    },
    /// The device's new token is on disk.
    Renewed {
        /// What the device has not been told: [`Account::untold`].
        untold: Vec<Enrolment>,
    },
    /// There is no such account, or no such device of it.
    NotFound,
    /// The account has as many devices as it may have.
    Full,
    /// The devices of an account.
    Listed(Vec<Enrolment>),
    /// The owner of a device, if it has one.
    Owner(Option<AccountName>),
}

/// To a [`LockoutsRequest`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockoutsAnswer {
    /// It is on disk.
    Done,
    /// There is no such account.
    NotFound,
}

/// To an [`AdmissionsRequest`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AdmissionsAnswer {
    /// It is on disk.
    Done,
    /// There is no such account.
    NotFound,
}

/// To a [`LogsRequest`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogsAnswer {
    /// Entries of a log, and how many it has in all: none if there is no such account.
    Page {
        /// In their order.
        entries: Vec<Vec<u8>>,
        /// All entries of the log.
        total: u32,
    },
    /// It is on disk.
    Appended,
    /// The log ends elsewhere, or there is no such account.
    NotFound,
}

common::from_parts!(StoreRequest {
    Accounts(AccountsRequest),
    Devices(DevicesRequest),
    Lockouts(LockoutsRequest),
    Admissions(AdmissionsRequest),
    Logs(LogsRequest),
});

common::from_parts!(StoreAnswer {
    Accounts(AccountsAnswer),
    Devices(DevicesAnswer),
    Lockouts(LockoutsAnswer),
    Admissions(AdmissionsAnswer),
    Logs(LogsAnswer),
});
