//! The SQLite database of a data folder.
//!
//! What was answered survives a power failure. How the file is opened, and what happens to older and newer
//! schemas, is in [`common::os::sqlite`].
//!
//! If one request of a transaction fails, each of them is executed again in a transaction of its own, so
//! that a damaged row fails nobody else's request.

use std::path::Path;

use common::id::{AccountName, DeviceName};
use common::key::{DeviceKey, TokenHash};
use common::limits::{
    AUDIT_ROWS_MAX, DEVICES_PER_ACCOUNT_MAX, ENROLMENTS_UNTOLD_MAX, UNKNOWN_NAMES_PER_SWEEP_MAX,
};
pub use common::os::sqlite::OpenError;
use common::os::sqlite::{self, Access, Schema, malformed, parse_column};
use common::password::PasswordRecord;
use common::time::UnixTime;
use common::wire::rendezvous::{Enrolment, StretchVersion};
use rusqlite::{Connection, ErrorCode, OptionalExtension, Row, Transaction, params};

use super::{
    Account, AccountId, AccountSummary, AccountsAnswer, AccountsRequest, Admission,
    AdmissionsAnswer, AdmissionsRequest, Device, DevicesAnswer, DevicesRequest, LaneRow,
    LockoutRow, LockoutsAnswer, LockoutsRequest, LogsAnswer, LogsRequest, Lookup, NameHash,
    Restored, Store, StoreAnswer, StoreError, StoreRequest, Subject, first_of,
};
use crate::source::SourcePrefix;

/// Each migration brings the schema to the next version; the database records how many it has had.
pub(super) const MIGRATIONS: &[&str] = &[
    "
    CREATE TABLE accounts (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        name TEXT NOT NULL UNIQUE,
        record BLOB NOT NULL,
        stretch INTEGER NOT NULL,
        created_ms INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE devices (
        key BLOB PRIMARY KEY,
        account INTEGER NOT NULL REFERENCES accounts (id) ON DELETE CASCADE,
        name TEXT NOT NULL,
        token_hash BLOB NOT NULL,
        token_before BLOB,
        token_issued_ms INTEGER NOT NULL,
        enrolled_ms INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX devices_of_account ON devices (account);
    -- Failures of accounts ('@' and the name) and of names without one.
    CREATE TABLE lockouts (
        subject TEXT PRIMARY KEY,
        stranger_failures TEXT NOT NULL,
        stranger_blocks INTEGER NOT NULL,
        stranger_blocked_until_ms INTEGER NOT NULL,
        stranger_last_ms INTEGER NOT NULL,
        known_failures TEXT NOT NULL,
        known_blocks INTEGER NOT NULL,
        known_blocked_until_ms INTEGER NOT NULL,
        known_last_ms INTEGER NOT NULL,
        untold INTEGER NOT NULL,
        untold_last_ms INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE admissions (
        account INTEGER NOT NULL REFERENCES accounts (id) ON DELETE CASCADE,
        code TEXT NOT NULL,
        expires_ms INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE audit (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        at_ms INTEGER NOT NULL,
        event TEXT NOT NULL,
        subject TEXT NOT NULL
    ) STRICT;
",
    "
    -- From here on the credential identifier follows the record; before, it was the name.
    UPDATE accounts SET record = CAST(record || name AS BLOB);
",
    "
    -- Sorts after every possible name, so that a look-up always finds a name or the next (load_account).
    INSERT INTO accounts (id, name, record, stretch, created_ms) VALUES (0, '~', zeroblob(224), 1, 0);
",
    "
    -- The subject of a name without an account is '#' and a slot; name_hash tells which name is in it.
    ALTER TABLE lockouts ADD COLUMN name_hash BLOB;
    DELETE FROM lockouts WHERE subject NOT LIKE '@%';
",
    "
    -- Enrolments that a device has not noted. The device that was enrolled may be gone again.
    CREATE TABLE untold (
        device BLOB NOT NULL REFERENCES devices (key) ON DELETE CASCADE,
        enrolled BLOB NOT NULL,
        name TEXT NOT NULL,
        at_ms INTEGER NOT NULL,
        PRIMARY KEY (device, enrolled)
    ) STRICT, WITHOUT ROWID;
",
    "
    -- The logs of accounts, in the order in which their entries came.
    CREATE TABLE account_entries (
        account INTEGER NOT NULL REFERENCES accounts (id) ON DELETE CASCADE,
        place INTEGER NOT NULL,
        entry BLOB NOT NULL,
        PRIMARY KEY (account, place)
    ) STRICT, WITHOUT ROWID;
",
];

/// Capacity of the cache of prepared statements: more than this module has.
const STATEMENTS_MAX: usize = 64;
/// The audit trail is trimmed to [`AUDIT_ROWS_MAX`] once in this many rows, so that most entries are one
/// insert.
const AUDIT_TRIM_INTERVAL: i64 = 1000;

/// The open database of a data folder.
#[derive(Debug)]
pub struct SqliteStore {
    connection: Connection,
}

impl SqliteStore {
    /// Opens or creates the database at `path`, checks it, and brings its schema up to date.
    ///
    /// # Errors
    ///
    /// As [`sqlite::open`].
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        let schema = Schema {
            migrations: MIGRATIONS,
            access: Access::Shared,
        };
        let mut connection = sqlite::open(path, &schema)?;
        connection.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
        let transaction = connection.transaction()?;
        drop_weak_devices(&transaction)?;
        transaction.commit()?;
        Ok(Self { connection })
    }

    fn execute_batch(&mut self, batch: &[StoreRequest]) -> rusqlite::Result<Vec<StoreAnswer>> {
        let transaction = self.connection.transaction()?;
        let answers = batch
            .iter()
            .map(|request| execute_one(&transaction, request))
            .collect::<rusqlite::Result<Vec<_>>>()?;
        transaction.commit()?;
        Ok(answers)
    }

    fn execute_alone(&mut self, request: &StoreRequest) -> Result<StoreAnswer, StoreError> {
        match self.execute_batch(std::slice::from_ref(request)) {
            Ok(mut answers) => Ok(answers.remove(0)),
            Err(error) => Err(store_error(&error)),
        }
    }

    fn read_all(&self) -> rusqlite::Result<Restored> {
        let connection = &self.connection;
        let lockouts = connection
            .prepare("SELECT * FROM lockouts")?
            .query_map([], lockout_row)?
            .collect::<rusqlite::Result<_>>()?;
        let admissions = connection
            .prepare(
                "SELECT name, code, expires_ms FROM admissions JOIN accounts
                 ON accounts.id = admissions.account",
            )?
            .query_map([], |row| {
                Ok(Admission {
                    account: parse_column(row, 0)?,
                    code: parse_column(row, 1)?,
                    expires: time(row, 2)?,
                })
            })?
            .collect::<rusqlite::Result<_>>()?;
        let named_credentials = connection.query_row(
            "SELECT count(*) FROM accounts WHERE substr(record, 193) = CAST(name AS BLOB)",
            [],
            |row| row.get(0),
        )?;
        Ok(Restored {
            lockouts,
            admissions,
            named_credentials,
        })
    }
}

impl Store for SqliteStore {
    fn execute(&mut self, batch: &[StoreRequest]) -> Vec<Result<StoreAnswer, StoreError>> {
        match self.execute_batch(batch) {
            Ok(answers) => answers.into_iter().map(Ok).collect(),
            // A locked database would be waited for just as long for each request alone.
            Err(error) if batch.len() > 1 && !sqlite::is_locked(&error) => {
                log::debug!(
                    "cannot execute a transaction: requests={} error={error}",
                    batch.len()
                );
                batch
                    .iter()
                    .map(|request| self.execute_alone(request))
                    .collect()
            }
            Err(error) => {
                let error = store_error(&error);
                batch.iter().map(|_| Err(error.clone())).collect()
            }
        }
    }

    fn restore(&mut self) -> Result<Restored, StoreError> {
        self.read_all().map_err(|error| store_error(&error))
    }
}

/// Drops devices with weak keys, which an earlier version accepted and this one rejects. Nobody can use
/// one any more, and each would take up one of its account's places.
fn drop_weak_devices(db: &Transaction<'_>) -> rusqlite::Result<()> {
    let mut weak: Vec<Vec<u8>> = db
        .prepare("SELECT key FROM devices")?
        .query_map([], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    weak.retain(|key| {
        let key = key.as_slice().try_into();
        key.is_ok_and(|key| DeviceKey::from_bytes(key).is_err())
    });
    for key in &weak {
        db.execute("DELETE FROM devices WHERE key = ?", params![key])?;
    }
    if !weak.is_empty() {
        log::warn!("dropped devices with weak keys count={}", weak.len());
    }
    Ok(())
}

fn execute_one(db: &Transaction<'_>, request: &StoreRequest) -> rusqlite::Result<StoreAnswer> {
    match request {
        StoreRequest::Accounts(request) => on_accounts(db, request).map(StoreAnswer::from),
        StoreRequest::Devices(request) => on_devices(db, request).map(StoreAnswer::from),
        StoreRequest::Lockouts(request) => on_lockouts(db, request).map(StoreAnswer::from),
        StoreRequest::Admissions(request) => on_admissions(db, request).map(StoreAnswer::from),
        StoreRequest::Logs(request) => on_logs(db, request).map(StoreAnswer::from),
    }
}

fn on_accounts(
    db: &Transaction<'_>,
    request: &AccountsRequest,
) -> rusqlite::Result<AccountsAnswer> {
    match request {
        AccountsRequest::Load {
            account,
            device_key,
        } => load_account(db, account, *device_key).map(AccountsAnswer::Loaded),
        AccountsRequest::Create {
            account,
            record,
            stretch,
            at,
        } => create_account(db, account, record, *stretch, *at),
        AccountsRequest::Remove { account, at } => remove_account(db, account, *at),
        AccountsRequest::List { after, count_max } => {
            list_accounts(db, after.as_ref(), *count_max).map(AccountsAnswer::Listed)
        }
    }
}

fn on_devices(db: &Transaction<'_>, request: &DevicesRequest) -> rusqlite::Result<DevicesAnswer> {
    match request {
        DevicesRequest::Enrol {
            id,
            device,
            lockout,
        } => {
            save_lockout(db, lockout)?;
            enrol(db, *id, device)
        }
        DevicesRequest::RenewToken {
            id,
            device_key,
            token_hash,
            token_before,
            at,
        } => renew_token(db, *id, device_key, token_hash, token_before, *at),
        DevicesRequest::DropTokenBefore { id, device_key } => {
            drop_token_before(db, *id, device_key)
        }
        DevicesRequest::Note {
            id,
            device_key,
            enrolled,
        } => note(db, *id, device_key, enrolled),
        DevicesRequest::Forget { id, device_key, at } => forget_device(db, *id, device_key, *at),
        DevicesRequest::List { id } => list_devices(db, *id),
        DevicesRequest::FindOwner { device_key } => find_owner(db, device_key),
    }
}

fn on_lockouts(
    db: &Transaction<'_>,
    request: &LockoutsRequest,
) -> rusqlite::Result<LockoutsAnswer> {
    match request {
        LockoutsRequest::Save {
            row,
            is_blocked_now,
            at,
        } => {
            save_lockout(db, row)?;
            if *is_blocked_now {
                audit(db, *at, "blocked", &subject_text(&row.subject))?;
            }
            Ok(LockoutsAnswer::Done)
        }
        LockoutsRequest::ForgetUnknown { before } => forget_unknown(db, *before),
        LockoutsRequest::Unblock { account, at } => unblock(db, account, *at),
    }
}

fn on_admissions(
    db: &Transaction<'_>,
    request: &AdmissionsRequest,
) -> rusqlite::Result<AdmissionsAnswer> {
    match request {
        AdmissionsRequest::Save { admission, at } => save_admission(db, admission, *at),
        AdmissionsRequest::Drop { admission } => drop_admission(db, admission),
    }
}

fn on_logs(db: &Transaction<'_>, request: &LogsRequest) -> rusqlite::Result<LogsAnswer> {
    match request {
        LogsRequest::Read {
            account,
            after,
            len_max,
        } => read_log(db, account, *after, *len_max),
        LogsRequest::Append {
            id,
            after,
            entry,
            revoked,
            at,
        } => {
            if log_len(db, *id)? != *after {
                return Ok(LogsAnswer::NotFound);
            }
            let added = db
                .prepare_cached(
                    "INSERT INTO account_entries (account, place, entry)
                     SELECT id, ?, ? FROM accounts WHERE id = ?",
                )?
                .execute(params![after, entry, id.0])?;
            if added == 0 {
                return Ok(LogsAnswer::NotFound);
            }
            for device_key in revoked {
                forget_device(db, *id, device_key, *at)?;
            }
            Ok(LogsAnswer::Appended)
        }
    }
}

fn log_len(db: &Transaction<'_>, id: AccountId) -> rusqlite::Result<u32> {
    db.prepare_cached("SELECT count(*) FROM account_entries WHERE account = ?")?
        .query_row(params![id.0], |row| row.get(0))
}

fn read_log(
    db: &Transaction<'_>,
    account: &AccountName,
    after: u32,
    len_max: usize,
) -> rusqlite::Result<LogsAnswer> {
    let Some(id) = account_id(db, account)? else {
        let (entries, total) = (Vec::new(), 0);
        return Ok(LogsAnswer::Page { entries, total });
    };
    let mut statement = db.prepare_cached(
        "SELECT entry FROM account_entries WHERE account = ? AND place >= ? ORDER BY place",
    )?;
    let entries = statement
        .query_map(params![id, after], |row| row.get(0))?
        .collect::<rusqlite::Result<Vec<Vec<u8>>>>()?;
    Ok(LogsAnswer::Page {
        entries: first_of(entries.into_iter(), len_max),
        total: log_len(db, AccountId(id))?,
    })
}

/// Reads the account of this name or, so that a name without one takes as long, the next account as a
/// stand-in: by the same path through the same trees, to a row that is as likely to be in memory.
fn load_account(
    db: &Transaction<'_>,
    account: &AccountName,
    device_key: Option<DeviceKey>,
) -> rusqlite::Result<Lookup> {
    let wanted = device_key.as_ref().map(DeviceKey::as_bytes);
    let (name, loaded) = db
        .prepare_cached(
            "SELECT accounts.id, record, stretch, devices.name, token_hash, token_issued_ms,
             token_before, accounts.name
             FROM accounts LEFT JOIN devices
             ON devices.account = accounts.id AND devices.key = ?
             WHERE accounts.name >= ? ORDER BY accounts.name LIMIT 1",
        )?
        .query_row(params![wanted, account.as_str()], |row| {
            Ok((row.get::<_, String>(7)?, loaded_account(row, device_key)?))
        })?;
    let mut loaded = loaded;
    if let Some(device) = &loaded.device {
        loaded.untold = untold(db, &device.key)?;
    }
    let loaded = Some(Box::new(loaded));
    let (account, stand_in) = if name == account.as_str() {
        (loaded, None)
    } else {
        (None, loaded)
    };
    Ok(Lookup { account, stand_in })
}

fn loaded_account(row: &Row<'_>, device_key: Option<DeviceKey>) -> rusqlite::Result<Account> {
    let record: Vec<u8> = row.get(1)?;
    let device_name: Option<String> = row.get(3)?;
    let device = match device_key.zip(device_name) {
        Some((key, name)) => Some(Device {
            key,
            name: DeviceName::lossy(&name),
            token_hash: TokenHash(row.get(4)?),
            token_issued: time(row, 5)?,
            token_before: row.get::<_, Option<[u8; 32]>>(6)?.map(TokenHash),
        }),
        None => None,
    };
    Ok(Account {
        id: AccountId(row.get(0)?),
        record: PasswordRecord::from_bytes(&record).map_err(|error| malformed(1, error))?,
        stretch: StretchVersion(row.get(2)?),
        device,
        untold: Vec::new(),
    })
}

fn create_account(
    db: &Transaction<'_>,
    account: &AccountName,
    record: &PasswordRecord,
    stretch: StretchVersion,
    at: UnixTime,
) -> rusqlite::Result<AccountsAnswer> {
    if account_id(db, account)?.is_some() {
        return Ok(AccountsAnswer::Exists);
    }
    db.prepare_cached(
        "INSERT INTO accounts (name, record, stretch, created_ms) VALUES (?, ?, ?, ?)",
    )?
    .execute(params![
        account.as_str(),
        record.as_bytes(),
        stretch.0,
        ms(at)
    ])?;
    audit(db, at, "account created", account.as_str())?;
    Ok(AccountsAnswer::Done)
}

fn remove_account(
    db: &Transaction<'_>,
    account: &AccountName,
    at: UnixTime,
) -> rusqlite::Result<AccountsAnswer> {
    let removed = db
        .prepare_cached("DELETE FROM accounts WHERE name = ?")?
        .execute(params![account.as_str()])?;
    save_lockout(db, &LockoutRow::empty(Subject::Account(account.clone())))?;
    if removed == 0 {
        return Ok(AccountsAnswer::NotFound);
    }
    audit(db, at, "account removed", account.as_str())?;
    Ok(AccountsAnswer::Done)
}

fn list_accounts(
    db: &Transaction<'_>,
    after: Option<&AccountName>,
    count_max: usize,
) -> rusqlite::Result<Vec<AccountSummary>> {
    let after = after.map_or("", AccountName::as_str);
    db.prepare_cached(
        "SELECT name, created_ms,
         (SELECT count(*) FROM devices WHERE devices.account = accounts.id)
         FROM accounts WHERE name > ? AND id > 0 ORDER BY name LIMIT ?",
    )?
    .query_map(params![after, count_max as i64], |row| {
        Ok(AccountSummary {
            account: parse_column(row, 0)?,
            created: time(row, 1)?,
            devices: row.get(2)?,
        })
    })?
    .collect()
}

fn forget_unknown(db: &Transaction<'_>, before: UnixTime) -> rusqlite::Result<LockoutsAnswer> {
    db.prepare_cached(
        "DELETE FROM lockouts WHERE subject IN (SELECT subject FROM lockouts
         WHERE name_hash IS NOT NULL AND stranger_last_ms < ? LIMIT ?)",
    )?
    .execute(params![ms(before), UNKNOWN_NAMES_PER_SWEEP_MAX as i64])?;
    Ok(LockoutsAnswer::Done)
}

fn unblock(
    db: &Transaction<'_>,
    account: &AccountName,
    at: UnixTime,
) -> rusqlite::Result<LockoutsAnswer> {
    save_lockout(db, &LockoutRow::empty(Subject::Account(account.clone())))?;
    if account_id(db, account)?.is_none() {
        return Ok(LockoutsAnswer::NotFound);
    }
    audit(db, at, "unblocked", account.as_str())?;
    Ok(LockoutsAnswer::Done)
}

fn enrol(db: &Transaction<'_>, id: AccountId, device: &Device) -> rusqlite::Result<DevicesAnswer> {
    let name: Option<String> = db
        .prepare_cached("SELECT name FROM accounts WHERE id = ?")?
        .query_row(params![id.0], |row| row.get(0))
        .optional()?;
    let Some(name) = name else {
        return Ok(DevicesAnswer::NotFound);
    };
    let (count, is_enrolled): (i64, bool) = db
        .prepare_cached(
            "SELECT count(*), count(*) FILTER (WHERE key = ?1) > 0 FROM devices WHERE account = ?2",
        )?
        .query_row(params![device.key.as_bytes(), id.0], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })?;
    if !is_enrolled && count >= DEVICES_PER_ACCOUNT_MAX as i64 {
        return Ok(DevicesAnswer::Full);
    }
    db.prepare_cached(
        "INSERT INTO devices (key, account, name, token_hash, token_issued_ms, enrolled_ms)
         VALUES (?1, ?2, ?3, ?4, ?5, ?5)
         ON CONFLICT (key) DO UPDATE SET account = ?2, name = ?3, token_hash = ?4,
         token_before = NULL, token_issued_ms = ?5,
         enrolled_ms = CASE WHEN account = ?2 THEN enrolled_ms ELSE ?5 END",
    )?
    .execute(params![
        device.key.as_bytes(),
        id.0,
        device.name.as_str(),
        device.token_hash.0,
        ms(device.token_issued),
    ])?;
    if !is_enrolled {
        audit(db, device.token_issued, "device enrolled", &name)?;
        tell_others(db, id, device)?;
    }
    Ok(DevicesAnswer::Enrolled {
        is_new: !is_enrolled,
        untold: untold(db, &device.key)?,
    })
}

/// Each other device of an account is to be told of a new one, which has nothing to be told itself, not
/// even if it was another account's.
fn tell_others(db: &Transaction<'_>, id: AccountId, device: &Device) -> rusqlite::Result<()> {
    db.prepare_cached("DELETE FROM untold WHERE device = ?")?
        .execute(params![device.key.as_bytes()])?;
    db.prepare_cached(
        "REPLACE INTO untold (device, enrolled, name, at_ms)
         SELECT key, ?1, ?2, ?3 FROM devices WHERE account = ?4 AND key != ?1",
    )?
    .execute(params![
        device.key.as_bytes(),
        device.name.as_str(),
        ms(device.token_issued),
        id.0
    ])?;
    db.prepare_cached(
        "DELETE FROM untold WHERE (device, enrolled) IN (
             SELECT device, enrolled FROM (
                 SELECT device, enrolled, row_number() OVER (
                     PARTITION BY device ORDER BY at_ms DESC, enrolled DESC
                 ) AS place
                 FROM untold WHERE device IN (SELECT key FROM devices WHERE account = ?1)
             ) WHERE place > ?2
         )",
    )?
    .execute(params![id.0, ENROLMENTS_UNTOLD_MAX as i64])?;
    Ok(())
}

/// What a device has not been told, oldest first.
fn untold(db: &Transaction<'_>, device_key: &DeviceKey) -> rusqlite::Result<Vec<Enrolment>> {
    db.prepare_cached(
        "SELECT enrolled, name, at_ms FROM untold WHERE device = ? ORDER BY at_ms, enrolled",
    )?
    .query_map(params![device_key.as_bytes()], enrolment)?
    .collect()
}

fn list_devices(db: &Transaction<'_>, id: AccountId) -> rusqlite::Result<DevicesAnswer> {
    let devices = db
        .prepare_cached(
            "SELECT key, name, enrolled_ms FROM devices WHERE account = ? ORDER BY enrolled_ms, key",
        )?
        .query_map(params![id.0], enrolment)?
        .collect::<Result<_, _>>()?;
    Ok(DevicesAnswer::Listed(devices))
}

/// A row of a key, a name and a time.
fn enrolment(row: &Row<'_>) -> rusqlite::Result<Enrolment> {
    let name: String = row.get(1)?;
    let key = DeviceKey::from_bytes(row.get(0)?);
    Ok(Enrolment {
        device_name: DeviceName::lossy(&name),
        device_key: key.map_err(|error| malformed(0, error))?,
        at: time(row, 2)?,
    })
}

fn note(
    db: &Transaction<'_>,
    id: AccountId,
    device_key: &DeviceKey,
    enrolled: &DeviceKey,
) -> rusqlite::Result<DevicesAnswer> {
    db.prepare_cached(
        "DELETE FROM untold WHERE enrolled = ?
         AND device = (SELECT key FROM devices WHERE key = ? AND account = ?)",
    )?
    .execute(params![enrolled.as_bytes(), device_key.as_bytes(), id.0])?;
    Ok(DevicesAnswer::Done)
}

fn renew_token(
    db: &Transaction<'_>,
    id: AccountId,
    device_key: &DeviceKey,
    token_hash: &TokenHash,
    token_before: &TokenHash,
    at: UnixTime,
) -> rusqlite::Result<DevicesAnswer> {
    let changed = db
        .prepare_cached(
            "UPDATE devices SET token_hash = ?, token_before = ?, token_issued_ms = ?
             WHERE key = ? AND account = ?",
        )?
        .execute(params![
            token_hash.0,
            token_before.0,
            ms(at),
            device_key.as_bytes(),
            id.0
        ])?;
    Ok(match changed {
        0 => DevicesAnswer::NotFound,
        _ => DevicesAnswer::Renewed {
            untold: untold(db, device_key)?,
        },
    })
}

fn drop_token_before(
    db: &Transaction<'_>,
    id: AccountId,
    device_key: &DeviceKey,
) -> rusqlite::Result<DevicesAnswer> {
    db.prepare_cached("UPDATE devices SET token_before = NULL WHERE key = ? AND account = ?")?
        .execute(params![device_key.as_bytes(), id.0])?;
    Ok(DevicesAnswer::Done)
}

fn forget_device(
    db: &Transaction<'_>,
    id: AccountId,
    device_key: &DeviceKey,
    at: UnixTime,
) -> rusqlite::Result<DevicesAnswer> {
    let name: Option<String> = db
        .prepare_cached(
            "SELECT accounts.name FROM devices JOIN accounts ON accounts.id = devices.account
             WHERE devices.key = ? AND devices.account = ?",
        )?
        .query_row(params![device_key.as_bytes(), id.0], |row| row.get(0))
        .optional()?;
    if let Some(name) = name {
        db.prepare_cached("DELETE FROM devices WHERE key = ? AND account = ?")?
            .execute(params![device_key.as_bytes(), id.0])?;
        audit(db, at, "device forgotten", &name)?;
    }
    Ok(DevicesAnswer::Done)
}

fn find_owner(db: &Transaction<'_>, device_key: &DeviceKey) -> rusqlite::Result<DevicesAnswer> {
    db.prepare_cached(
        "SELECT accounts.name FROM devices JOIN accounts ON accounts.id = devices.account
         WHERE devices.key = ?",
    )?
    .query_row(params![device_key.as_bytes()], |row| parse_column(row, 0))
    .optional()
    .map(DevicesAnswer::Owner)
}

fn save_admission(
    db: &Transaction<'_>,
    admission: &Admission,
    at: UnixTime,
) -> rusqlite::Result<AdmissionsAnswer> {
    let Some(id) = account_id(db, &admission.account)? else {
        return Ok(AdmissionsAnswer::NotFound);
    };
    db.prepare_cached("INSERT INTO admissions (account, code, expires_ms) VALUES (?, ?, ?)")?
        .execute(params![
            id,
            admission.code.to_string(),
            ms(admission.expires)
        ])?;
    audit(db, at, "one-time code made", admission.account.as_str())?;
    Ok(AdmissionsAnswer::Done)
}

fn drop_admission(
    db: &Transaction<'_>,
    admission: &Admission,
) -> rusqlite::Result<AdmissionsAnswer> {
    db.prepare_cached(
        "DELETE FROM admissions WHERE code = ?
         AND account = (SELECT id FROM accounts WHERE name = ?)",
    )?
    .execute(params![
        admission.code.to_string(),
        admission.account.as_str()
    ])?;
    Ok(AdmissionsAnswer::Done)
}

/// Saves the row of a subject; deletes it if nothing is counted against the subject.
fn save_lockout(db: &Transaction<'_>, row: &LockoutRow) -> rusqlite::Result<()> {
    let subject = subject_text(&row.subject);
    let (account, name_hash) = match &row.subject {
        Subject::Account(account) => (Some(account.as_str()), None),
        Subject::Unknown(name) => (None, Some(name.to_bytes())),
    };
    if row.is_empty() {
        // Another name may be in the slot.
        db.prepare_cached("DELETE FROM lockouts WHERE subject = ? AND name_hash IS ?")?
            .execute(params![subject, name_hash])?;
        return Ok(());
    }
    // An attempt may have begun before its account was removed: a new one is not to inherit that.
    db.prepare_cached(
        "REPLACE INTO lockouts SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12
         WHERE ?12 IS NOT NULL OR EXISTS (SELECT 1 FROM accounts WHERE name = ?13)",
    )?
    .execute(params![
        subject,
        failures_text(&row.strangers),
        row.strangers.blocks,
        ms(row.strangers.blocked_until),
        ms(row.strangers.last_failure),
        failures_text(&row.known),
        row.known.blocks,
        ms(row.known.blocked_until),
        ms(row.known.last_failure),
        row.unreported,
        ms(row.last_unreported),
        name_hash,
        account,
    ])?;
    Ok(())
}

fn lockout_row(row: &Row<'_>) -> rusqlite::Result<LockoutRow> {
    let lane = |first: usize| {
        Ok::<_, rusqlite::Error>(LaneRow {
            failures: parse_failures(&row.get::<_, String>(first)?)
                .ok_or_else(|| malformed(first, TextError))?,
            blocks: row.get(first + 1)?,
            blocked_until: time(row, first + 2)?,
            last_failure: time(row, first + 3)?,
        })
    };
    let subject: String = row.get(0)?;
    let name_hash: Option<[u8; 16]> = row.get(11)?;
    let subject = match name_hash {
        Some(hash) => Some(Subject::Unknown(NameHash::from_bytes(hash))),
        None => parse_account(&subject),
    };
    Ok(LockoutRow {
        subject: subject.ok_or_else(|| malformed(0, TextError))?,
        strangers: lane(1)?,
        known: lane(5)?,
        unreported: row.get(9)?,
        last_unreported: time(row, 10)?,
    })
}

fn audit(db: &Transaction<'_>, at: UnixTime, event: &str, subject: &str) -> rusqlite::Result<()> {
    db.prepare_cached("INSERT INTO audit (at_ms, event, subject) VALUES (?, ?, ?)")?
        .execute(params![ms(at), event, subject])?;
    let newest = db.last_insert_rowid();
    if newest % AUDIT_TRIM_INTERVAL == 0 {
        db.prepare_cached("DELETE FROM audit WHERE id <= ?")?
            .execute(params![newest - AUDIT_ROWS_MAX as i64])?;
    }
    Ok(())
}

fn account_id(db: &Transaction<'_>, account: &AccountName) -> rusqlite::Result<Option<i64>> {
    db.prepare_cached("SELECT id FROM accounts WHERE name = ?")?
        .query_row(params![account.as_str()], |row| row.get(0))
        .optional()
}

// ---- columns -----------------------------------------------------------------------------------

/// Milliseconds since 1970. The largest integer of SQLite, 2^63 - 1, stands for every later moment, too.
fn ms(time: UnixTime) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

fn time(row: &Row<'_>, column: usize) -> rusqlite::Result<UnixTime> {
    let millis: i64 = row.get(column)?;
    Ok(UnixTime::from_millis(u64::try_from(millis).unwrap_or(0)))
}

#[derive(Debug, thiserror::Error)]
#[error("a column does not hold what this program writes")]
struct TextError;

fn subject_text(subject: &Subject) -> String {
    match subject {
        Subject::Account(account) => format!("@{account}"),
        Subject::Unknown(name) => format!("#{}", name.slot()),
    }
}

fn parse_account(text: &str) -> Option<Subject> {
    let name = text.strip_prefix('@')?;
    name.parse().ok().map(Subject::Account)
}

/// `source=failures`, separated by spaces.
fn failures_text(lane: &LaneRow) -> String {
    let parts = lane.failures.iter().map(|(at, n)| format!("{at}={n}"));
    parts.collect::<Vec<_>>().join(" ")
}

fn parse_failures(text: &str) -> Option<Vec<(SourcePrefix, u32)>> {
    text.split_whitespace()
        .map(|part| {
            let (source, failures) = part.split_once('=')?;
            Some((source.parse().ok()?, failures.parse().ok()?))
        })
        .collect()
}

// ---- errors ------------------------------------------------------------------------------------

fn store_error(error: &rusqlite::Error) -> StoreError {
    if sqlite::is_damage(error) || matches!(error, rusqlite::Error::FromSqlConversionFailure(..)) {
        return StoreError::Damaged(error.to_string());
    }
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => StoreError::DiskFull,
        _ => StoreError::Failed(error.to_string()),
    }
}
