//! Accounts with an identity of their own: who their devices are is up to a log that they sign, not to a server.
//!
//! An account begins with a [`Genesis`], whose hash is its [`AccountId`](crate::log::AccountId) for ever: what a
//! server calls it is a name. From then on a device counts as one of the account's if another one, or the recovery
//! key, has approved it. These approvals form a tree under the recovery key:
//!
//! - A device revokes itself and whatever it has approved, directly or not; the recovery key revokes anything. So a
//!   stolen phone cannot revoke the laptop that approved it.
//! - A revocation says up to where what the device has signed counts, its *cut*. What it signs later is void, however
//!   it is dated.
//!
//! Each device writes chains of entries, as in any other [log](crate::log), here with a seal on every one. An
//! [`AccountLog`] takes them in any order that names no author before its approval, judges all of them together, and
//! never by when they came: whoever has the same entries has the same [`Standing`].
//!
//! Nobody is asked here and nothing is stored. A server that hands out a log can hold entries back, and can do no
//! more: it is nobody's device.

// What one device has written in one run.
mod chain;
// Signed entries, and their bytes.
mod entry;
// All entries of an account.
mod log;
// What two people compare.
mod safety;
// Who is a device of the account.
mod standing;
// What entries say.
mod statement;

pub use chain::Accepted;
pub use entry::{AccountEntry, EntryError};
pub use log::{AccountLog, LogError};
pub use safety::SafetyNumber;
pub use standing::{Device, Standing, State};
pub use statement::{AccountStatement, Genesis, Revocation, StatementError, recovery_secret};
