//! Files and folders for their owner only: modes 0600 and 0700.
//!
//! There is one way to write a file: beside its place, and then renamed into it. So a reader, or a crash,
//! meets the old content or the new one, never a part of either.

use std::ffi::OsString;
use std::fs::{self, DirBuilder, File, Metadata, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

/// Mode of a file that only its owner reads and writes.
pub const FILE_MODE: u32 = 0o600;
/// Mode of a folder that only its owner enters.
pub const FOLDER_MODE: u32 = 0o700;
/// What anybody but the owner may do.
const OTHERS: u32 = 0o077;

/// What something that was written outlasts; the stronger is the greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Durability {
    /// `kill -9`: the system has it. Costs no wait for the disk.
    Kill,
    /// Power loss: file and folder are on disk when the call returns.
    PowerLoss,
}

/// Makes a folder with mode 0700, and those above it that are missing. All of them are on disk when this
/// returns. A folder that exists stays as it is.
///
/// # Errors
///
/// If one of them can neither be made nor exists as a folder.
pub fn create_folder(path: &Path) -> io::Result<()> {
    let missing: Vec<&Path> = path
        .ancestors()
        .take_while(|folder| !folder.as_os_str().is_empty() && !folder.exists())
        .collect();
    DirBuilder::new()
        .recursive(true)
        .mode(FOLDER_MODE)
        .create(path)?;
    missing.into_iter().try_for_each(sync_folder_of)
}

/// Tells whether anybody but its owner may do anything with a file or folder.
pub fn is_open_to_others(metadata: &Metadata) -> bool {
    metadata.mode() & OTHERS != 0
}

/// Takes away what anybody but its owner may do with a folder.
///
/// # Errors
///
/// If its mode can be neither read nor changed.
pub fn close_folder_to_others(path: &Path) -> io::Result<()> {
    if is_open_to_others(&fs::metadata(path)?) {
        fs::set_permissions(path, Permissions::from_mode(FOLDER_MODE))?;
    }
    Ok(())
}

/// Makes an empty file with mode 0600 if there is none, and takes away what others may do with one that
/// is there. SQLite gives its side files the mode of the main one.
///
/// # Errors
///
/// If the file cannot be opened for writing, or belongs to somebody else.
pub fn create_file(path: &Path) -> io::Result<()> {
    let file = OpenOptions::new()
        .read(true)
        .append(true)
        .create(true)
        .mode(FILE_MODE)
        .open(path)?;
    if is_open_to_others(&file.metadata()?) {
        file.set_permissions(Permissions::from_mode(FILE_MODE))?;
    }
    Ok(())
}

/// Writes a whole file with mode 0600 in place of the one that may be there: all of it or nothing.
///
/// It is written as `NAME.new` first, which nobody else may write at the same time: the callers own the
/// folder.
///
/// # Errors
///
/// If anything on the way fails. The file is then as it was, unless only the last step failed, which
/// brings the new name to disk.
pub fn write(path: &Path, bytes: &[u8], durability: Durability) -> io::Result<()> {
    let fresh = beside(path)?;
    let written = write_new(&fresh, bytes, durability).and_then(|()| fs::rename(&fresh, path));
    if let Err(error) = written {
        // It may hold a part of a secret. That it cannot be removed says no more than the first error.
        let _ = fs::remove_file(&fresh);
        return Err(error);
    }
    match durability {
        Durability::Kill => Ok(()),
        Durability::PowerLoss => sync_folder_of(path),
    }
}

/// Reads a whole file of at most `len_max` bytes into memory that is wiped when it is dropped.
///
/// # Errors
///
/// If the file cannot be read, or is longer: [`ErrorKind::FileTooLarge`].
pub fn read(path: &Path, len_max: usize) -> io::Result<Zeroizing<Vec<u8>>> {
    let file = File::open(path)?;
    // One buffer that never grows, so that no copy of a secret stays behind.
    let len = usize::try_from(file.metadata()?.len()).unwrap_or(usize::MAX);
    let mut bytes = Zeroizing::new(Vec::with_capacity(len.min(len_max) + 1));
    file.take(len_max as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > len_max {
        let reason = format!("it has more than {len_max} bytes");
        return Err(io::Error::new(ErrorKind::FileTooLarge, reason));
    }
    Ok(bytes)
}

fn write_new(path: &Path, bytes: &[u8], durability: Durability) -> io::Result<()> {
    // A crash may have left one behind, with any mode.
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(FILE_MODE)
        .open(path)?;
    file.write_all(bytes)?;
    match durability {
        Durability::Kill => Ok(()),
        Durability::PowerLoss => file.sync_all(),
    }
}

/// `NAME.new` in the same folder.
fn beside(path: &Path) -> io::Result<PathBuf> {
    let name = path.file_name().ok_or(ErrorKind::InvalidInput)?;
    let mut name = OsString::from(name);
    name.push(".new");
    Ok(path.with_file_name(name))
}

/// Brings the name of a file or folder to disk: it stands in the folder that holds it.
fn sync_folder_of(path: &Path) -> io::Result<()> {
    let folder = match path.parent() {
        Some(folder) if folder.as_os_str().is_empty() => Path::new("."),
        Some(folder) => folder,
        None => return Ok(()),
    };
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOTH: [Durability; 2] = [Durability::Kill, Durability::PowerLoss];

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o777
    }

    #[test]
    fn t33_what_is_made_is_for_its_owner_only() {
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("a/b");
        create_folder(&inner).unwrap();
        assert_eq!(mode(&inner), FOLDER_MODE);
        assert_eq!(mode(inner.parent().unwrap()), FOLDER_MODE);
        for durability in BOTH {
            write(&inner.join("secret"), b"x", durability).unwrap();
        }
        create_file(&inner.join("database")).unwrap();
        for name in ["secret", "database"] {
            assert_eq!(mode(&inner.join(name)), FILE_MODE, "{name}");
        }
    }

    #[test]
    fn a_folder_that_is_there_stays_as_it_is_until_it_is_closed() {
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
        create_folder(folder.path()).unwrap();
        assert!(is_open_to_others(&fs::metadata(folder.path()).unwrap()));
        close_folder_to_others(folder.path()).unwrap();
        assert_eq!(mode(folder.path()), FOLDER_MODE);
    }

    #[test]
    fn a_file_that_others_can_read_is_closed_and_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("database");
        fs::write(&path, b"pages").unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        create_file(&path).unwrap();
        assert_eq!(mode(&path), FILE_MODE);
        assert_eq!(fs::read(&path).unwrap(), b"pages");
    }

    #[test]
    fn what_is_written_replaces_what_was_there_and_leaves_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("device-key");
        // As a crash leaves it, with a mode of its own.
        fs::write(folder.path().join("device-key.new"), b"a part of something").unwrap();
        for (durability, text) in BOTH.into_iter().zip(["first", "next"]) {
            write(&path, text.as_bytes(), durability).unwrap();
            assert_eq!(read(&path, 5).unwrap().as_slice(), text.as_bytes());
            assert_eq!(mode(&path), FILE_MODE);
            assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        }
    }

    #[test]
    fn what_cannot_be_written_leaves_all_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let taken = folder.path().join("a folder");
        fs::create_dir(&taken).unwrap();
        fs::write(taken.join("file"), b"").unwrap();
        write(&taken, b"secret", Durability::PowerLoss).unwrap_err();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        let error = write(Path::new("/"), b"", Durability::Kill).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
    }

    #[test]
    fn files_are_read_up_to_their_bound_and_not_beyond() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        fs::write(&path, b"12345").unwrap();
        assert_eq!(read(&path, 5).unwrap().as_slice(), b"12345");
        let error = read(&path, 4).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::FileTooLarge);
        assert!(error.to_string().contains("more than 4 bytes"), "{error}");
    }
}
