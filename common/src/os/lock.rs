//! Who may use a folder: one process at a time.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::private::FILE_MODE;

/// Name of the file that is locked.
const LOCK: &str = "lock";

/// The right to use a folder alone. Ends when dropped or with the process, however that ends: nothing
/// is left behind by `kill -9`.
#[derive(Debug)]
pub struct FolderLock {
    /// Holds the lock.
    _file: File,
}

impl FolderLock {
    /// Locks the file `lock` in a folder, which is made with mode 0600 if it is missing. `None` if
    /// another process, or another owner in this one, has it.
    ///
    /// # Errors
    ///
    /// If the file cannot be opened or the file system knows no locks.
    pub fn try_acquire(folder: &Path) -> io::Result<Option<Self>> {
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(FILE_MODE)
            .open(folder.join(LOCK))?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Self { _file: file })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_at_a_time_has_a_folder() {
        let folder = tempfile::tempdir().unwrap();
        let first = FolderLock::try_acquire(folder.path()).unwrap();
        assert!(first.is_some());
        assert!(FolderLock::try_acquire(folder.path()).unwrap().is_none());
        drop(first);
        assert!(FolderLock::try_acquire(folder.path()).unwrap().is_some());
    }

    #[test]
    fn a_folder_that_is_missing_cannot_be_locked() {
        let folder = tempfile::tempdir().unwrap();
        let missing = folder.path().join("missing");
        let error = FolderLock::try_acquire(&missing).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}
