//! A file that is being received.

use std::fs::{File, Permissions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use cap_std::fs::Dir;
use common::hash::{LeafHash, leaf_len};
use common::limits::{LEAF_LEN, SAME_NAMES_MAX};
use common::text;
use rustix::fs::{FallocateFlags, OFlags, RenameFlags};
use rustix::io::Errno;

use super::parts::PartFile;
use super::{failure, leaf_hash};
use crate::node::io::DiskFailure;
use crate::shell::names::FileName;

/// What the sender is told where there is no space.
const FULL: &str = "there is not enough space";
/// What the sender is told where another program interferes.
const CHANGED: &str = "another program changed the file";

/// A file that is being received. Dropping it removes its `.part` file, if there still is one.
#[derive(Debug)]
pub(super) struct Target {
    folder: PathBuf,
    dir: Dir,
    name: FileName,
    part: Part,
    size: u64,
}

/// The `.part` file of a [`Target`].
#[derive(Debug)]
struct Part {
    file: File,
    name: String,
    /// The mode that the complete file will have.
    mode: u32,
}

impl Target {
    pub(super) fn create(
        folder: PathBuf,
        name: FileName,
        size: u64,
        is_executable: bool,
    ) -> Result<Self, DiskFailure> {
        let dir = open_folder(&folder)?;
        check_space(&dir, &folder, size)?;
        let part = create_part(&dir, &name, is_executable)
            .map_err(|error| describe_write(&error, &folder, size))?;
        Ok(Self {
            folder,
            dir,
            name,
            part,
            size,
        })
    }

    /// Its entry in the list of parts.
    pub(super) fn part_file(&self) -> io::Result<PartFile> {
        PartFile::new(self.folder.join(&self.part.name), &self.part.file)
    }

    /// Allocates the file's space, or only sets its length where the file system cannot allocate.
    pub(super) fn reserve(&self) -> Result<(), DiskFailure> {
        let file = &self.part.file;
        if self.size == 0 {
            return Ok(());
        }
        let reserved = match rustix::fs::fallocate(file, FallocateFlags::empty(), 0, self.size) {
            Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => file.set_len(self.size),
            other => other.map_err(Into::into),
        };
        reserved.map_err(|error| describe_write(&error, &self.folder, self.size))
    }

    /// Verifies and writes a leaf. Writes nothing and returns `false` if the bytes do not match `hash`.
    pub(super) fn write_leaf(
        &self,
        index: u64,
        bytes: &[u8],
        hash: LeafHash,
    ) -> Result<bool, DiskFailure> {
        if leaf_len(self.size, index) != Some(bytes.len())
            || leaf_hash(self.size, index, bytes) != hash
        {
            return Ok(false);
        }
        let file = &self.part.file;
        file.write_all_at(bytes, index * LEAF_LEN as u64)
            .map_err(|error| describe_write(&error, &self.folder, self.size))?;
        Ok(true)
    }

    /// Makes the file durable, then gives it the first of its names that is free, then makes the
    /// name durable.
    pub(super) fn finish(&self) -> Result<PathBuf, DiskFailure> {
        let fail = |error: io::Error| describe_write(&error, &self.folder, self.size);
        let part = &self.part;
        let metadata = part.file.metadata().map_err(fail)?;
        let shown = self.folder.join(&part.name);
        if metadata.nlink() == 0 {
            let reason = format!("{} was removed while it arrived", shown.display());
            return Err(failure(reason, "the file was removed while it arrived"));
        }
        if metadata.len() != self.size {
            let reason = format!(
                "another program changed {} while it arrived",
                shown.display()
            );
            return Err(failure(reason, CHANGED));
        }
        let permissions = Permissions::from_mode(part.mode);
        part.file.set_permissions(permissions).map_err(fail)?;
        part.file.sync_all().map_err(fail)?;
        let name = self.rename()?;
        rustix::fs::fsync(&self.dir).map_err(|error| fail(error.into()))?;
        Ok(self.folder.join(name.as_str()))
    }

    /// Gives the file the first of its names that is free, and returns that name.
    fn rename(&self) -> Result<FileName, DiskFailure> {
        if !self.is_part_ours() {
            let shown = self.folder.join(&self.part.name);
            let reason = format!(
                "another program replaced {} while it arrived",
                shown.display()
            );
            return Err(failure(reason, CHANGED));
        }
        for attempt in 0..SAME_NAMES_MAX {
            let name = self.name.numbered(attempt);
            match rename_to_free(&self.dir, &self.part.name, name.as_str()) {
                Ok(()) => return Ok(name),
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                Err(error) => return Err(describe_write(&error, &self.folder, self.size)),
            }
        }
        let shown = self.folder.display();
        Err(failure(
            format!("{shown} has {SAME_NAMES_MAX} files of this name already; move some away"),
            "there are too many files of this name already",
        ))
    }

    /// Tells whether the name of the `.part` file still leads to the file that was created under it.
    fn is_part_ours(&self) -> bool {
        use cap_std::fs::MetadataExt as _;

        let there = self.dir.symlink_metadata(&self.part.name);
        let (Ok(ours), Ok(there)) = (self.part.file.metadata(), there) else {
            return false;
        };
        (MetadataExt::dev(&ours), MetadataExt::ino(&ours)) == (there.dev(), there.ino())
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        // A complete file has left this name.
        if self.is_part_ours()
            && let Err(error) = self.dir.remove_file(&self.part.name)
        {
            log::debug!("cannot remove an unfinished file: {error}");
        }
    }
}

/// Opens the folder of a received file. A symbolic link is followed now and never again.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "the system has more kinds of errors; those without a text of ours show the system's"
)]
fn open_folder(folder: &Path) -> Result<Dir, DiskFailure> {
    let shown = folder.display();
    let flags = OFlags::DIRECTORY | OFlags::NONBLOCK;
    File::options()
        .read(true)
        .custom_flags(flags.bits().cast_signed())
        .open(folder)
        .map(Dir::from_std_file)
        .map_err(|error| {
            let reason = match error.kind() {
                ErrorKind::NotFound => format!("there is no folder {shown}; create it first"),
                ErrorKind::NotADirectory => format!("{shown} is a file, not a folder"),
                ErrorKind::PermissionDenied => {
                    format!("{shown} cannot be used: permission denied; choose another folder")
                }
                _ => format!("{shown} cannot be used: {error}"),
            };
            failure(reason, "the folder for it cannot be used")
        })
}

fn check_space(dir: &Dir, folder: &Path, size: u64) -> Result<(), DiskFailure> {
    let Ok(space) = rustix::fs::fstatvfs(dir) else {
        return Ok(());
    };
    let free = space.f_bavail.saturating_mul(space.f_frsize);
    if size <= free {
        return Ok(());
    }
    let reason = format!(
        "not enough space in {}: needs {}, has {}",
        folder.display(),
        text::size(size),
        text::size(free)
    );
    Err(failure(reason, FULL))
}

/// Creates the `.part` file. It is created with the mode of the complete file, to learn what the umask
/// leaves of that mode, and is then restricted to its owner at once.
fn create_part(dir: &Dir, name: &FileName, is_executable: bool) -> io::Result<Part> {
    use cap_std::fs::OpenOptionsExt;

    let mut options = cap_std::fs::OpenOptions::new();
    options.write(true).create_new(true);
    options.mode(if is_executable { 0o755 } else { 0o644 });
    for attempt in 0..SAME_NAMES_MAX {
        let name = name.part(attempt);
        match dir.open_with(&name, &options) {
            Ok(file) => {
                let file = file.into_std();
                let mode = file.metadata()?.permissions().mode() & 0o777;
                file.set_permissions(Permissions::from_mode(0o600))?;
                return Ok(Part { file, name, mode });
            }
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    Err(ErrorKind::AlreadyExists.into())
}

/// Renames within a folder; fails if the new name is taken.
fn rename_to_free(dir: &Dir, from: &str, to: &str) -> io::Result<()> {
    match rustix::fs::renameat_with(dir, from, dir, to, RenameFlags::NOREPLACE) {
        // The file system has no exclusive rename. A hard link fails as well if the name is taken.
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
            dir.hard_link(from, dir, to)?;
            dir.remove_file(from)
        }
        other => other.map_err(Into::into),
    }
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "the system has more kinds of errors; those without a text of ours show the system's"
)]
fn describe_write(error: &io::Error, folder: &Path, size: u64) -> DiskFailure {
    let shown = folder.display();
    let size = text::size(size);
    match error.kind() {
        ErrorKind::StorageFull => {
            failure(format!("not enough space in {shown}: needs {size}"), FULL)
        }
        ErrorKind::QuotaExceeded => failure(
            format!("your quota does not allow {size} more in {shown}"),
            FULL,
        ),
        ErrorKind::FileTooLarge => failure(
            format!("the file system of {shown} cannot hold a file of {size}"),
            "the file is too large for the file system",
        ),
        ErrorKind::ReadOnlyFilesystem => failure(
            format!("{shown} is on a read-only file system; choose another folder"),
            "the folder for it is on a read-only file system",
        ),
        ErrorKind::PermissionDenied => failure(
            format!("{shown} cannot be written to: permission denied; choose another folder"),
            "there is no permission to write into the folder for it",
        ),
        ErrorKind::NotFound => failure(
            format!("{shown} was removed while the file arrived"),
            "the folder for it was removed",
        ),
        _ => failure(
            format!("{shown} cannot be written to: {error}"),
            "the folder for it cannot be written to",
        ),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use tempfile::TempDir;

    use super::*;

    /// The fallback for file systems without an exclusive rename.
    #[test]
    fn t08_a_link_never_replaces_a_file_either() {
        let folder = TempDir::new().unwrap();
        for name in ["from", "taken"] {
            fs::write(folder.path().join(name), name).unwrap();
        }
        let dir = open_folder(folder.path()).unwrap();
        let error = dir.hard_link("from", &dir, "taken").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AlreadyExists);
        let taken = rename_to_free(&dir, "from", "taken").unwrap_err();
        assert_eq!(taken.kind(), ErrorKind::AlreadyExists);
        assert_eq!(fs::read(folder.path().join("taken")).unwrap(), b"taken");
    }

    #[test]
    fn t12_a_disk_that_fills_up_while_a_file_arrives_is_named() {
        let folder = TempDir::new().unwrap();
        let name = FileName::parse("x").unwrap();
        let mut target = Target::create(folder.path().to_owned(), name, 3, false).unwrap();
        // Writing to this device fails as on a full disk.
        target.part.file = File::options().write(true).open("/dev/full").unwrap();
        let hash = leaf_hash(3, 0, b"abc");
        let reason = target.write_leaf(0, b"abc", hash).unwrap_err();
        let expected = format!("not enough space in {}: needs 3 B", folder.path().display());
        assert_eq!((reason.reason, reason.told), (expected, FULL));
    }

    #[test]
    fn t12_what_a_system_says_of_a_disk_becomes_a_word_to_act_on() {
        for (code, words) in [
            (Errno::NOSPC, "not enough space in /inbox: needs 3 B"),
            (Errno::DQUOT, "your quota does not allow 3 B more"),
            (Errno::ROFS, "read-only file system; choose another folder"),
            (Errno::ACCESS, "permission denied; choose another folder"),
            (Errno::FBIG, "cannot hold a file of 3 B"),
            (Errno::NOENT, "was removed while the file arrived"),
        ] {
            let error = io::Error::from_raw_os_error(code.raw_os_error());
            let text = describe_write(&error, Path::new("/inbox"), 3);
            let (reason, told) = (text.reason, text.told);
            assert!(
                reason.contains(words) && reason.contains("/inbox"),
                "{reason}"
            );
            assert!(!told.contains("/inbox"), "{told}");
        }
    }
}
