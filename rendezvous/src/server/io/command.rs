//! What an operator asks, and the replies.

use common::id::AccountName;
use common::password::PasswordRecord;
use common::wire::rendezvous::AdmissionCode;

use crate::store::{AccountSummary, StoreError};

/// Pairs a reply with its command; chosen by the shell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct CommandId(pub u64);

/// What an operator asks.
#[derive(Clone, Debug)]
pub enum Command {
    /// Make an account, whatever registration is open.
    AddAccount {
        /// Not the name of another account, or the reply is [`Reply::Exists`].
        account: AccountName,
        /// Made with [`common::password::make_record`].
        record: PasswordRecord,
    },
    /// Remove an account with its devices; its sessions end.
    RemoveAccount(AccountName),
    /// End the blocks of a name, whether an account has it or not, and forget what led to them.
    Unblock(AccountName),
    /// Make a one-time code.
    Admit(AccountName),
    /// List accounts by name, at most [`ACCOUNTS_PER_REPLY_MAX`](common::limits::ACCOUNTS_PER_REPLY_MAX).
    ListAccounts {
        /// Only names after this one.
        after: Option<AccountName>,
    },
}

/// The answer to a [`Command`].
#[derive(Clone, Debug)]
pub enum Reply {
    /// It is done.
    Done,
    /// The name is taken.
    Exists,
    /// There is no such account.
    NotFound,
    /// A one-time code.
    Code {
        /// To be typed at the new device.
        code: AdmissionCode,
        /// Seconds until it expires.
        expires_in_s: u32,
    },
    /// What ended with an `Unblock`.
    Unblocked(Unblocked),
    /// The account has as many open codes as it may have.
    TooManyCodes,
    /// Accounts, and whether there may be more after the last.
    Accounts {
        /// In the order of their names.
        accounts: Vec<ListedAccount>,
        /// Ask again after the last name.
        may_have_more: bool,
    },
    /// The store failed.
    StoreFailed(StoreError),
}

/// What an operator ended and what was forgotten with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unblocked {
    /// An account has the name. Otherwise there was something to forget all the same.
    pub has_account: bool,
    /// Seconds for which it would have been blocked; 0 when it was not.
    pub blocked_for_s: u32,
    /// Failed log-ins that are forgotten.
    pub failures: u32,
}

/// An account as an operator sees it.
#[derive(Clone, Debug)]
pub struct ListedAccount {
    /// What the store knows.
    pub summary: AccountSummary,
    /// Sessions that are logged in now.
    pub sessions: usize,
    /// Seconds for which strangers are blocked; 0 when they are not.
    pub blocked_for_s: u32,
}
