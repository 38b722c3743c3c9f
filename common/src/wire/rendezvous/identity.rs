//! The logs of accounts, which the server keeps and hands out: who an account's devices are is up to its log, not
//! to the server ([`crate::account`]).

use serde::{Deserialize, Serialize};

use super::login::Enrolment;
use crate::account::AccountEntry;
use crate::id::AccountName;

/// A logged-in device's request about the log of an account.
#[expect(missing_docs, reason = "the fields' names and types say it all")]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum IdentityRequest {
    /// Adds an entry to the log of this device's account. Answered by `Appended`.
    Append { entry: Box<AccountEntry> },
    /// Reads the log of an account, but for its first `after` entries. Answered by `Page`.
    Read { account: AccountName, after: u32 },
    /// Lists the devices that are enrolled at this device's account. Answered by `Enrolled`.
    Enrolled,
}

/// The answer to an [`IdentityRequest`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum IdentityAnswer {
    /// The entry is in the log, and on disk.
    Appended,
    /// A part of a log.
    Page {
        /// In the order in which they came; as many as fit, and at least one if there are more.
        entries: Vec<AccountEntry>,
        /// How many the whole log has: none if nobody has an account of this name, or it has no log yet.
        total: u32,
    },
    /// The devices that are enrolled, ordered by when they were: this one and others, approved by the account or not.
    Enrolled {
        /// At most [`DEVICES_PER_ACCOUNT_MAX`](crate::limits::DEVICES_PER_ACCOUNT_MAX).
        devices: Vec<Enrolment>,
    },
}

/// A notification about the log of this device's account.
#[expect(missing_docs, reason = "the fields' names and types say it all")]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum IdentityPush {
    /// Another device has added an entry.
    Appended { entry: Box<AccountEntry> },
}
