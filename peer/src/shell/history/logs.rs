//! The logs of accounts, and which of these a person has verified.

use std::collections::BTreeSet;

use common::account::AccountEntry;
use common::id::AccountName;
use common::os::sqlite::{malformed, parse_column};
use rusqlite::{Connection, Transaction, params};

use crate::node::io::{LogRequest, StoreAnswer};

pub(super) const MIGRATION: &str = "
    CREATE TABLE account_entries (
        number INTEGER PRIMARY KEY,
        account TEXT NOT NULL,
        entry BLOB NOT NULL
    ) STRICT;
    CREATE INDEX account_entries_by_account ON account_entries (account, number);

    CREATE TABLE verified (
        account TEXT PRIMARY KEY
    ) STRICT, WITHOUT ROWID;
";

/// Executes a request in a transaction.
pub(super) fn execute(
    transaction: &Transaction<'_>,
    request: &LogRequest,
) -> rusqlite::Result<StoreAnswer> {
    let (statement, account) = match request {
        LogRequest::Add { account, entry } => {
            transaction
                .prepare_cached("INSERT INTO account_entries (account, entry) VALUES (?1, ?2)")?
                .execute(params![account.as_str(), entry])?;
            return Ok(StoreAnswer::Done);
        }
        LogRequest::Forget { account } => {
            transaction
                .prepare_cached("DELETE FROM account_entries WHERE account = ?1")?
                .execute([account.as_str()])?;
            ("DELETE FROM verified WHERE account = ?1", account)
        }
        LogRequest::SetVerified {
            account,
            is_verified: true,
        } => ("REPLACE INTO verified (account) VALUES (?1)", account),
        LogRequest::SetVerified {
            account,
            is_verified: false,
        } => ("DELETE FROM verified WHERE account = ?1", account),
    };
    transaction
        .prepare_cached(statement)?
        .execute([account.as_str()])?;
    Ok(StoreAnswer::Done)
}

/// The logs, by account, in the order in which their entries were added.
pub(super) fn logs(
    connection: &Connection,
) -> rusqlite::Result<Vec<(AccountName, Vec<AccountEntry>)>> {
    let mut statement = connection
        .prepare("SELECT account, entry FROM account_entries ORDER BY account, number")?;
    let mut rows = statement.query([])?;
    let mut logs: Vec<(AccountName, Vec<AccountEntry>)> = Vec::new();
    while let Some(row) = rows.next()? {
        let account: AccountName = parse_column(row, 0)?;
        let entry: Vec<u8> = row.get(1)?;
        let entry = AccountEntry::from_bytes(&entry).map_err(|error| malformed(1, error))?;
        match logs.last_mut().filter(|(last, _)| *last == account) {
            Some((_, entries)) => entries.push(entry),
            None => logs.push((account, vec![entry])),
        }
    }
    Ok(logs)
}

/// The accounts that a person has verified.
pub(super) fn verified(connection: &Connection) -> rusqlite::Result<BTreeSet<AccountName>> {
    let mut statement = connection.prepare("SELECT account FROM verified")?;
    let rows = statement.query_map([], |row| parse_column(row, 0))?;
    rows.collect()
}
