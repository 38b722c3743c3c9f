//! SQLite files: how they are opened, checked and brought up to date.
//!
//! A file is for its owner only. It is opened in WAL mode, with foreign keys enforced and every commit
//! waiting for the disk ([`set_durability`] changes the latter). The schema's version is in the
//! header, as `user_version`: an older one is brought forward, step by step and in one transaction; a
//! newer one, and what is no SQLite file at all, is refused before SQLite touches it. A small file is checked for damage
//! each time, a large one after a program that did not end in good order.

use std::error::Error;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::types::Type;
use rusqlite::{Connection, ErrorCode, Row, TransactionBehavior};

use super::private::{self, Durability};
use crate::limits::CHECKED_FILE_LEN_MAX;

/// How long to wait for another program that has locked the file: longer than a backup holds a lock.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// What every SQLite file starts with (<https://www.sqlite.org/fileformat2.html> section 1.3).
const MAGIC: &[u8; 16] = b"SQLite format 3\0";
/// Length of the header.
const HEADER_LEN: u64 = 100;
/// Where the header has the user version, big-endian.
const USER_VERSION_AT: usize = 60;

/// What a file is to be.
#[derive(Clone, Copy, Debug)]
pub struct Schema {
    /// Each brings the schema from the version that is its index to the next.
    pub migrations: &'static [&'static str],
    /// Who else may use the file while it is open.
    pub access: Access,
}

/// Who may use a file while it is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// This process alone (`locking_mode=EXCLUSIVE`): nobody who reads it holds up a transaction, and the
    /// index of the WAL needs no shared memory, which some network file systems do not have.
    Alone,
    /// Other processes, too, such as one that makes a backup.
    Shared,
}

/// A file cannot be used. Its content was not changed.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A newer program wrote it.
    #[error("it has the schema version {found}, and this program knows versions up to {known}")]
    Newer {
        /// The version of its schema.
        found: u32,
        /// The newest version that the caller knows.
        known: u32,
    },
    /// It is no SQLite file, or a broken one.
    #[error("it is damaged: {0}")]
    Damaged(String),
    /// The file system refuses.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// SQLite refuses.
    #[error("{0}")]
    Sqlite(rusqlite::Error),
}

impl From<rusqlite::Error> for OpenError {
    fn from(error: rusqlite::Error) -> Self {
        if is_damage(&error) {
            Self::Damaged(error.to_string())
        } else {
            Self::Sqlite(error)
        }
    }
}

/// Opens a file, creates it if it is missing, checks it, and brings its schema up to date.
///
/// # Errors
///
/// If the file cannot be opened or written, is damaged, or has a newer schema.
pub fn open(path: &Path, schema: &Schema) -> Result<Connection, OpenError> {
    let known = schema.migrations.len() as u32;
    private::create_file(path)?;
    check_header(path, known)?;
    let wants_check = wants_check(path)?;
    let mut connection = Connection::open(path)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    if schema.access == Access::Alone {
        connection.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
    }
    // The WAL may have a newer one than the header.
    let version = schema_version(&connection)?;
    refuse_newer(version, known)?;
    if wants_check {
        quick_check(&connection)?;
    }
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "foreign_keys", true)?;
    // Plans do not depend on what is bound: otherwise SQLite prepares statements again for other values.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    set_durability(&connection, Durability::PowerLoss)?;
    migrate(&mut connection, schema.migrations, version)?;
    Ok(connection)
}

/// Sets what the following commits survive. Has no effect inside a transaction.
///
/// # Errors
///
/// If SQLite refuses.
pub fn set_durability(connection: &Connection, durability: Durability) -> rusqlite::Result<()> {
    let level = match durability {
        Durability::Kill => "NORMAL",
        Durability::PowerLoss => "FULL",
    };
    connection.pragma_update(None, "synchronous", level)
}

/// Tells whether an error means that the file is damaged.
pub fn is_damage(error: &rusqlite::Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase)
    )
}

/// Tells whether an error means that another process has locked the file.
pub fn is_locked(error: &rusqlite::Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked)
    )
}

/// Parses a column of text.
///
/// # Errors
///
/// If the column does not hold text that parses as a `T`.
pub fn parse_column<T>(row: &Row<'_>, column: usize) -> rusqlite::Result<T>
where
    T: FromStr<Err: Error + Send + Sync + 'static>,
{
    let text: String = row.get(column)?;
    text.parse().map_err(|error| malformed(column, error))
}

/// The error of a column that does not hold what this program writes.
pub fn malformed(column: usize, error: impl Error + Send + Sync + 'static) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(column, Type::Text, Box::new(error))
}

/// Looks at the header without SQLite, which would touch the file or make side files.
fn check_header(path: &Path, known: u32) -> Result<(), OpenError> {
    let mut header = Vec::new();
    File::open(path)?
        .take(HEADER_LEN)
        .read_to_end(&mut header)?;
    if header.is_empty() {
        return Ok(());
    }
    let version = header.get(USER_VERSION_AT..USER_VERSION_AT + 4);
    match version.map(TryInto::try_into) {
        Some(Ok(version)) if header.starts_with(MAGIC) => {
            refuse_newer(u32::from_be_bytes(version), known)
        }
        Some(_) | None => Err(OpenError::Damaged("it is not an SQLite file".to_owned())),
    }
}

/// Tells whether a file is to be read from end to end: it is soon done, or the last program that had it open did not
/// end in good order, and has left its WAL.
fn wants_check(path: &Path) -> io::Result<bool> {
    let mut wal = path.as_os_str().to_owned();
    wal.push("-wal");
    Ok(path.metadata()?.len() <= CHECKED_FILE_LEN_MAX || Path::new(&wal).exists())
}

fn schema_version(connection: &Connection) -> rusqlite::Result<u32> {
    connection
        .pragma_query_value(None, "user_version", |row| row.get::<_, i32>(0))
        .map(i32::cast_unsigned)
}

const fn refuse_newer(found: u32, known: u32) -> Result<(), OpenError> {
    if found <= known {
        return Ok(());
    }
    Err(OpenError::Newer { found, known })
}

fn quick_check(connection: &Connection) -> Result<(), OpenError> {
    let found: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
    if found == "ok" {
        return Ok(());
    }
    Err(OpenError::Damaged(found))
}

fn migrate(connection: &mut Connection, migrations: &[&str], version: u32) -> rusqlite::Result<()> {
    let missing = &migrations[version as usize..];
    if missing.is_empty() {
        return Ok(());
    }
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    for step in missing {
        transaction.execute_batch(step)?;
    }
    transaction.pragma_update(None, "user_version", migrations.len() as u32)?;
    transaction.commit()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;
    use std::path::PathBuf;

    use tempfile::TempDir;

    use super::*;

    const FIRST: &str = "CREATE TABLE texts (text TEXT NOT NULL) STRICT;";
    const SECOND: &str = "ALTER TABLE texts ADD COLUMN number INTEGER;";
    const OLD: Schema = Schema {
        migrations: &[FIRST],
        access: Access::Shared,
    };
    const NEW: Schema = Schema {
        migrations: &[FIRST, SECOND],
        access: Access::Shared,
    };

    fn fresh() -> (TempDir, PathBuf) {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("texts.db");
        (folder, path)
    }

    #[test]
    fn an_older_schema_is_brought_forward_and_keeps_its_rows() {
        let (_folder, path) = fresh();
        let connection = open(&path, &OLD).unwrap();
        connection
            .execute("INSERT INTO texts VALUES ('x')", [])
            .unwrap();
        drop(connection);
        for _ in 0..2 {
            let connection = open(&path, &NEW).unwrap();
            assert_eq!(schema_version(&connection), Ok(2));
            let row = connection.query_row("SELECT text, number FROM texts", [], |row| {
                Ok((row.get::<_, String>(0)?, row.get::<_, Option<i64>>(1)?))
            });
            assert_eq!(row, Ok(("x".to_owned(), None)));
        }
    }

    #[test]
    fn a_step_that_fails_leaves_the_schema_as_it_was() {
        let (_folder, path) = fresh();
        drop(open(&path, &OLD).unwrap());
        let broken = Schema {
            migrations: &[FIRST, SECOND, "CREATE TABLE texts (x)"],
            access: Access::Shared,
        };
        let error = open(&path, &broken).unwrap_err();
        assert!(matches!(error, OpenError::Sqlite(_)), "{error}");
        let connection = open(&path, &OLD).unwrap();
        assert_eq!(schema_version(&connection), Ok(1));
    }

    #[test]
    fn a_newer_schema_is_refused_and_untouched() {
        for newer in [2, 99, -1] {
            let (folder, path) = fresh();
            let connection = open(&path, &OLD).unwrap();
            connection
                .pragma_update(None, "user_version", newer)
                .unwrap();
            drop(connection);
            let before = fs::read(&path).unwrap();
            let error = open(&path, &OLD).unwrap_err();
            let found = i32::cast_unsigned(newer);
            assert!(
                matches!(error, OpenError::Newer { found: version, known: 1 } if version == found),
                "{error}"
            );
            assert_eq!(fs::read(&path).unwrap(), before);
            assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        }
    }

    #[test]
    fn a_newer_schema_that_only_the_wal_has_is_refused() {
        let (_folder, path) = fresh();
        let newer = open(&path, &NEW).unwrap();
        let header = fs::read(&path).unwrap();
        assert_ne!(header.get(USER_VERSION_AT + 3), Some(&2), "in the WAL only");
        let error = open(&path, &OLD).unwrap_err();
        assert!(
            matches!(error, OpenError::Newer { found: 2, known: 1 }),
            "{error}"
        );
        drop(newer);
    }

    #[test]
    fn a_file_of_another_kind_is_damaged_and_untouched() {
        for garbage in [b"not a database at all".repeat(100), b"short".to_vec()] {
            let (folder, path) = fresh();
            fs::write(&path, &garbage).unwrap();
            let error = open(&path, &OLD).unwrap_err();
            assert!(matches!(error, OpenError::Damaged(_)), "{error}");
            assert_eq!(fs::read(&path).unwrap(), garbage);
            assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        }
    }

    #[test]
    fn a_broken_page_is_found() {
        let (_folder, path) = fresh();
        let connection = open(&path, &OLD).unwrap();
        let text = "x".repeat(5000);
        for _ in 0..100 {
            connection
                .execute("INSERT INTO texts VALUES (?)", [&text])
                .unwrap();
        }
        drop(connection);
        let mut bytes = fs::read(&path).unwrap();
        bytes[4096..12 * 4096].fill(0xa5);
        fs::write(&path, bytes).unwrap();
        let error = open(&path, &OLD).unwrap_err();
        assert!(matches!(error, OpenError::Damaged(_)), "{error}");
    }

    #[test]
    fn a_large_file_is_checked_after_an_end_that_was_none() {
        let (_folder, path) = fresh();
        let connection = open(&path, &OLD).unwrap();
        let text = "x".repeat(CHECKED_FILE_LEN_MAX as usize / 4);
        for _ in 0..5 {
            connection
                .execute("INSERT INTO texts VALUES (?)", [&text])
                .unwrap();
        }
        drop(connection);
        // The root page of the table.
        let mut bytes = fs::read(&path).unwrap();
        bytes[4096] ^= 0xff;
        fs::write(&path, bytes).unwrap();
        let connection = open(&path, &OLD).unwrap();
        let read: rusqlite::Result<i64> =
            connection.query_row("SELECT count(*) FROM texts", [], |row| row.get(0));
        assert!(is_damage(&read.unwrap_err()), "whoever reads it is told");
        drop(connection);
        fs::write(path.with_extension("db-wal"), "").unwrap();
        let error = open(&path, &OLD).unwrap_err();
        assert!(matches!(error, OpenError::Damaged(_)), "{error}");
    }

    #[test]
    fn t33_only_its_owner_reads_a_file_and_those_beside_it() {
        let (folder, path) = fresh();
        fs::write(&path, b"").unwrap();
        let connection = open(&path, &OLD).unwrap();
        connection
            .execute("INSERT INTO texts VALUES ('x')", [])
            .unwrap();
        let entries: Vec<_> = fs::read_dir(folder.path()).unwrap().collect();
        assert!(entries.len() > 1);
        for entry in entries {
            let mode = entry.unwrap().metadata().unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
    }

    #[test]
    fn a_file_of_one_process_is_nobody_elses() {
        let (_folder, path) = fresh();
        let alone = Schema {
            access: Access::Alone,
            ..OLD
        };
        let connection = open(&path, &alone).unwrap();
        let other = Connection::open(&path).unwrap();
        other.busy_timeout(Duration::ZERO).unwrap();
        let error = other
            .query_row("SELECT count(*) FROM texts", [], |_| Ok(()))
            .unwrap_err();
        assert_eq!(error.sqlite_error_code(), Some(ErrorCode::DatabaseBusy));
        drop(connection);
    }

    #[test]
    fn what_is_no_file_is_an_error_of_the_file_system() {
        let folder = TempDir::new().unwrap();
        let error = open(folder.path(), &OLD).unwrap_err();
        assert!(matches!(error, OpenError::Io(_)), "{error}");
    }
}
