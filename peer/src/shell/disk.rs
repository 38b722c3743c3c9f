//! The disk worker: reads the files that are sent and writes those that are received, on its own thread.
//!
//! Only a regular file is sent, and only while it does not change between its opening and its last leaf.
//! A received file is written beneath a handle of its folder that is opened once: neither what happens
//! to the folder's path afterwards nor anything that a sender says leads elsewhere. Its name passes
//! [`super::names`]. Until all of it is durable, its name ends in `.part` and only its owner can read it;
//! then it gets its real name, which never replaces another file.
//!
//! Only files that this module created are ever removed. A `.part` file that a killed process left
//! behind is removed at the next start, if the list of [`Parts`] proves that it is ours.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{File, Metadata, Permissions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use bytes::Bytes;
use cap_std::fs::Dir;
use common::hash::{LeafHash, LeafHasher, leaf_len};
use common::id::TransferId;
use common::limits::{
    DISK_REQUESTS_MAX, FILE_LEN_MAX, FILE_NAME_LEN_MAX, LEAF_LEN, SAME_NAMES_MAX, TRANSFERS_MAX,
};
use common::os::worker::{Queue, Worker};
use common::text;
use rustix::fs::{FallocateFlags, OFlags, RenameFlags};
use rustix::io::Errno;

use super::names::FileName;
use super::workers::{Answer, Answers};
use crate::node::io::{DiskAnswer, DiskRequest};

// The list of unfinished files, by which the next start recognises them.
mod parts;

use parts::{PartFile, Parts};

/// Starts the disk worker. It keeps the list of unfinished files in `parts`, and first removes those
/// that an earlier process left there.
pub(crate) fn spawn(answers: Answers, parts: PathBuf) -> io::Result<Worker<DiskRequest>> {
    Worker::spawn("disk", DISK_REQUESTS_MAX, move |queue| {
        let mut disk = Disk {
            parts: Parts::start(parts),
            ..Disk::default()
        };
        disk.run(&queue, &answers);
        disk.transfers.clear();
        disk.parts.clear();
    })
}

/// The open files of the transfers that are under way.
#[derive(Debug, Default)]
struct Disk {
    transfers: BTreeMap<TransferId, Transfer>,
    parts: Parts,
}

#[derive(Debug)]
enum Transfer {
    Sending(Source),
    Receiving(Target),
}

impl Disk {
    fn run(&mut self, queue: &Queue<DiskRequest>, answers: &Answers) {
        while let Some(request) = queue.next_request() {
            let transfer = request.transfer();
            let Some(answer) = self.execute(request) else {
                continue;
            };
            if !answers.give(Answer::Disk(transfer, answer)) {
                return;
            }
        }
    }

    /// Executes a request. `None` if it is one without an answer.
    fn execute(&mut self, request: DiskRequest) -> Option<DiskAnswer> {
        let result = match request {
            DiskRequest::Open { transfer, path } => self.open(transfer, &path),
            DiskRequest::ReadLeaf { transfer, index } => self.read_leaf(transfer, index),
            DiskRequest::Create {
                transfer,
                folder,
                name,
                size,
                executable,
            } => self.create(transfer, folder, &name, size, executable),
            DiskRequest::WriteLeaf {
                transfer,
                index,
                bytes,
                hash,
            } => self.write_leaf(transfer, index, &bytes, hash),
            DiskRequest::Finish { transfer } => self.finish(transfer),
            DiskRequest::Drop { transfer } => {
                self.transfers.remove(&transfer);
                self.parts.remove(transfer);
                return None;
            }
        };
        Some(result.unwrap_or_else(DiskAnswer::Failed))
    }

    fn open(&mut self, transfer: TransferId, path: &Path) -> Result<DiskAnswer, String> {
        self.check_room(transfer)?;
        let (source, name) = Source::open(path)?;
        let opened = DiskAnswer::Opened {
            name,
            size: source.size,
            executable: source.is_executable,
        };
        self.transfers.insert(transfer, Transfer::Sending(source));
        Ok(opened)
    }

    fn read_leaf(&self, transfer: TransferId, index: u64) -> Result<DiskAnswer, String> {
        let Some(Transfer::Sending(source)) = self.transfers.get(&transfer) else {
            return Err(not_open());
        };
        let (bytes, hash) = source.read_leaf(index)?;
        Ok(DiskAnswer::Leaf { index, bytes, hash })
    }

    fn create(
        &mut self,
        transfer: TransferId,
        folder: PathBuf,
        name: &str,
        size: u64,
        is_executable: bool,
    ) -> Result<DiskAnswer, String> {
        self.check_room(transfer)?;
        let name = match FileName::parse(name) {
            Ok(name) => name,
            Err(refusal) => return Ok(DiskAnswer::BadName(refusal.to_string())),
        };
        let target = Target::create(folder, name, size, is_executable)?;
        // Listed while it is still empty: a crash before this leaves nothing that takes up space.
        if let Ok(part) = target.part_file() {
            self.parts.add(transfer, part);
        }
        if let Err(reason) = target.reserve() {
            drop(target);
            self.parts.remove(transfer);
            return Err(reason);
        }
        self.transfers.insert(transfer, Transfer::Receiving(target));
        Ok(DiskAnswer::Created)
    }

    fn write_leaf(
        &self,
        transfer: TransferId,
        index: u64,
        bytes: &[u8],
        hash: LeafHash,
    ) -> Result<DiskAnswer, String> {
        let Some(Transfer::Receiving(target)) = self.transfers.get(&transfer) else {
            return Err(not_open());
        };
        Ok(match target.write_leaf(index, bytes, hash)? {
            true => DiskAnswer::Written { index },
            false => DiskAnswer::Mismatch { index },
        })
    }

    /// Completes a received file and forgets its transfer. After a failure it can be tried again.
    fn finish(&mut self, transfer: TransferId) -> Result<DiskAnswer, String> {
        let Some(Transfer::Receiving(target)) = self.transfers.get(&transfer) else {
            return Err(not_open());
        };
        let path = target.finish()?;
        self.transfers.remove(&transfer);
        self.parts.remove(transfer);
        Ok(DiskAnswer::Finished { path })
    }

    fn check_room(&self, transfer: TransferId) -> Result<(), String> {
        if self.transfers.contains_key(&transfer) {
            return Err("the transfer has an open file already".to_owned());
        }
        if self.transfers.len() >= TRANSFERS_MAX {
            return Err(format!(
                "{TRANSFERS_MAX} files are open already; wait for some to end"
            ));
        }
        Ok(())
    }
}

fn not_open() -> String {
    "the transfer has no open file".to_owned()
}

// ---- sending -----------------------------------------------------------------------------------

/// A file that is being sent, as it was when it was opened.
#[derive(Debug)]
struct Source {
    file: File,
    path: PathBuf,
    size: u64,
    modified: Option<SystemTime>,
    is_executable: bool,
}

impl Source {
    /// Opens a regular file, or the one that a symbolic link leads to. Returns it with its name.
    fn open(path: &Path) -> Result<(Self, String), String> {
        let shown = path.display();
        let fail = |error: io::Error| describe_open(&error, path);
        // Without NONBLOCK, opening a FIFO waits for a writer.
        let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
        let file = File::options()
            .read(true)
            .custom_flags(flags.bits().cast_signed())
            .open(path)
            .map_err(fail)?;
        let metadata = file.metadata().map_err(fail)?;
        check_is_regular(&metadata, path)?;
        if metadata.len() > FILE_LEN_MAX {
            return Err(format!(
                "{shown} has {}, more than the {} that can be sent",
                text::size(metadata.len()),
                text::size(FILE_LEN_MAX)
            ));
        }
        let name = path.file_name().and_then(OsStr::to_str).ok_or_else(|| {
            format!("the name of {shown} is not valid text (UTF-8); rename it first")
        })?;
        if name.len() > FILE_NAME_LEN_MAX {
            return Err(format!("the name of {shown} is too long; rename it first"));
        }
        let source = Self {
            size: metadata.len(),
            modified: metadata.modified().ok(),
            is_executable: metadata.permissions().mode() & 0o100 != 0,
            path: path.to_owned(),
            file,
        };
        Ok((source, name.to_owned()))
    }

    fn read_leaf(&self, index: u64) -> Result<(Bytes, LeafHash), String> {
        let len = leaf_len(self.size, index)
            .ok_or_else(|| format!("{} has no leaf {index}", self.path.display()))?;
        let mut bytes = vec![0; len];
        match self.file.read_exact_at(&mut bytes, index * LEAF_LEN as u64) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Err(self.changed()),
            Err(error) => return Err(format!("{} cannot be read: {error}", self.path.display())),
        }
        // Checked after the read, so that no change before or during it goes unnoticed.
        let metadata = self.file.metadata().map_err(|_| self.changed())?;
        if metadata.len() != self.size || metadata.modified().ok() != self.modified {
            return Err(self.changed());
        }
        let hash = leaf_hash(self.size, index, &bytes);
        Ok((bytes.into(), hash))
    }

    fn changed(&self) -> String {
        format!(
            "{} changed while it was being sent; send it again",
            self.path.display()
        )
    }
}

/// Hashes leaf `index` of a file of `size` bytes.
fn leaf_hash(size: u64, index: u64, bytes: &[u8]) -> LeafHash {
    let mut hasher = LeafHasher::new(size, index);
    hasher.update(bytes);
    hasher.finish()
}

fn check_is_regular(metadata: &Metadata, path: &Path) -> Result<(), String> {
    let shown = path.display();
    if metadata.is_dir() {
        return Err(format!(
            "{shown} is a folder; pack it first, for example with 'tar czf FOLDER.tar.gz FOLDER'"
        ));
    }
    if !metadata.is_file() {
        return Err(describe_irregular(path));
    }
    Ok(())
}

fn describe_irregular(path: &Path) -> String {
    let shown = path.display();
    format!("{shown} is not a regular file, so it has no size to announce")
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "the system has more kinds of errors; those without a text of ours show the system's"
)]
fn describe_open(error: &io::Error, path: &Path) -> String {
    let shown = path.display();
    match error.kind() {
        ErrorKind::NotFound => format!("there is no file {shown}"),
        ErrorKind::PermissionDenied => {
            format!("{shown} cannot be read: permission denied; check who owns it")
        }
        // Opening a socket fails like this.
        _ if error.raw_os_error() == Some(Errno::NXIO.raw_os_error()) => describe_irregular(path),
        _ => format!("{shown} cannot be opened: {error}"),
    }
}

// ---- receiving ---------------------------------------------------------------------------------

/// A file that is being received. Dropping it removes its `.part` file, if there still is one.
#[derive(Debug)]
struct Target {
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
    fn create(
        folder: PathBuf,
        name: FileName,
        size: u64,
        is_executable: bool,
    ) -> Result<Self, String> {
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
    fn part_file(&self) -> io::Result<PartFile> {
        PartFile::new(self.folder.join(&self.part.name), &self.part.file)
    }

    /// Allocates the file's space, or only sets its length where the file system cannot allocate.
    fn reserve(&self) -> Result<(), String> {
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
    fn write_leaf(&self, index: u64, bytes: &[u8], hash: LeafHash) -> Result<bool, String> {
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
    fn finish(&self) -> Result<PathBuf, String> {
        let fail = |error: io::Error| describe_write(&error, &self.folder, self.size);
        let part = &self.part;
        let metadata = part.file.metadata().map_err(fail)?;
        let shown = self.folder.join(&part.name);
        if metadata.nlink() == 0 {
            return Err(format!("{} was removed while it arrived", shown.display()));
        }
        if metadata.len() != self.size {
            return Err(format!(
                "another program changed {} while it arrived",
                shown.display()
            ));
        }
        let permissions = Permissions::from_mode(part.mode);
        part.file.set_permissions(permissions).map_err(fail)?;
        part.file.sync_all().map_err(fail)?;
        let name = self.rename()?;
        rustix::fs::fsync(&self.dir).map_err(|error| fail(error.into()))?;
        Ok(self.folder.join(name.as_str()))
    }

    /// Gives the file the first of its names that is free, and returns that name.
    fn rename(&self) -> Result<FileName, String> {
        if !self.is_part_ours() {
            return Err(format!(
                "another program replaced {} while it arrived",
                self.folder.join(&self.part.name).display()
            ));
        }
        for attempt in 0..SAME_NAMES_MAX {
            let name = self.name.numbered(attempt);
            match rename_to_free(&self.dir, &self.part.name, name.as_str()) {
                Ok(()) => return Ok(name),
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                Err(error) => return Err(describe_write(&error, &self.folder, self.size)),
            }
        }
        Err(format!(
            "{} has {SAME_NAMES_MAX} files of this name already; move some away",
            self.folder.display()
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
fn open_folder(folder: &Path) -> Result<Dir, String> {
    let shown = folder.display();
    let flags = OFlags::DIRECTORY | OFlags::NONBLOCK;
    File::options()
        .read(true)
        .custom_flags(flags.bits().cast_signed())
        .open(folder)
        .map(Dir::from_std_file)
        .map_err(|error| match error.kind() {
            ErrorKind::NotFound => format!("there is no folder {shown}; create it first"),
            ErrorKind::NotADirectory => format!("{shown} is a file, not a folder"),
            ErrorKind::PermissionDenied => {
                format!("{shown} cannot be used: permission denied; choose another folder")
            }
            _ => format!("{shown} cannot be used: {error}"),
        })
}

fn check_space(dir: &Dir, folder: &Path, size: u64) -> Result<(), String> {
    let Ok(space) = rustix::fs::fstatvfs(dir) else {
        return Ok(());
    };
    let free = space.f_bavail.saturating_mul(space.f_frsize);
    if size <= free {
        return Ok(());
    }
    Err(format!(
        "not enough space in {}: needs {}, has {}",
        folder.display(),
        text::size(size),
        text::size(free)
    ))
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
fn describe_write(error: &io::Error, folder: &Path, size: u64) -> String {
    let shown = folder.display();
    match error.kind() {
        ErrorKind::StorageFull => {
            format!("not enough space in {shown}: needs {}", text::size(size))
        }
        ErrorKind::QuotaExceeded => {
            format!(
                "your quota does not allow {} more in {shown}",
                text::size(size)
            )
        }
        ErrorKind::FileTooLarge => format!(
            "the file system of {shown} cannot hold a file of {}",
            text::size(size)
        ),
        ErrorKind::ReadOnlyFilesystem => {
            format!("{shown} is on a read-only file system; choose another folder")
        }
        ErrorKind::PermissionDenied => {
            format!("{shown} cannot be written to: permission denied; choose another folder")
        }
        ErrorKind::NotFound => format!("{shown} was removed while the file arrived"),
        _ => format!("{shown} cannot be written to: {error}"),
    }
}

#[cfg(test)]
mod tests {
    mod targets;

    use std::fs;
    use std::io::Write;
    use std::os::unix::fs::{FileExt, symlink};
    use std::os::unix::net::UnixListener;

    use common::hash::{FileDigest, file_digest, leaf_count};
    use tempfile::TempDir;

    use super::*;

    #[test]
    fn a_file_of_several_leaves_arrives_whole_in_any_order() {
        let folder = TempDir::new().unwrap();
        for len in [0, 1, LEAF_LEN - 1, LEAF_LEN, LEAF_LEN + 1, 3 * LEAF_LEN + 5] {
            let bytes = content(len);
            let source = folder.path().join("source.bin");
            fs::write(&source, &bytes).unwrap();
            let mut disk = Disk::default();
            let opened = DiskAnswer::Opened {
                name: "source.bin".to_owned(),
                size: len as u64,
                executable: false,
            };
            assert_eq!(disk.ask(open(1, &source)), opened);
            let created = disk.ask(create(2, folder.path(), "copy.bin", len as u64));
            assert_eq!(created, DiskAnswer::Created);
            let mut hashes = Vec::new();
            for index in (0..leaf_count(len as u64)).rev() {
                hashes.insert(0, disk.copy_leaf(index));
            }
            let digest = file_digest(len as u64, &hashes).unwrap();
            assert_eq!(digest, FileDigest(blake3_of(&bytes)));
            let path = folder.path().join("copy.bin");
            let finished = DiskAnswer::Finished { path: path.clone() };
            assert_eq!(disk.ask(finish(2)), finished);
            assert_eq!(fs::read(&path).unwrap(), bytes);
            fs::remove_file(path).unwrap();
        }
    }

    #[test]
    fn a_leaf_that_does_not_match_is_not_written() {
        let folder = TempDir::new().unwrap();
        let mut disk = Disk::default();
        disk.ask(create(1, folder.path(), "x", 3));
        let written = |disk: &mut Disk, index, bytes: &'static [u8], hashed: &[u8]| {
            disk.ask(DiskRequest::WriteLeaf {
                transfer: id(1),
                index,
                bytes: Bytes::from_static(bytes),
                hash: hash_of(hashed),
            })
        };
        let mismatch = |index| DiskAnswer::Mismatch { index };
        assert_eq!(written(&mut disk, 0, b"abc", b"abd"), mismatch(0));
        assert_eq!(written(&mut disk, 0, b"ab", b"ab"), mismatch(0), "short");
        assert_eq!(written(&mut disk, 0, b"abcd", b"abcd"), mismatch(0), "long");
        assert_eq!(written(&mut disk, 1, b"abc", b"abc"), mismatch(1), "beyond");
        let far = u64::MAX;
        assert_eq!(written(&mut disk, far, b"abc", b"abc"), mismatch(far));
        assert_eq!(fs::read(folder.path().join("x.part")).unwrap(), [0; 3]);
        assert_eq!(
            written(&mut disk, 0, b"abc", b"abc"),
            DiskAnswer::Written { index: 0 }
        );
    }

    #[test]
    fn t01_a_hostile_name_creates_nothing() {
        let folder = TempDir::new().unwrap();
        let inner = folder.path().join("inner");
        fs::create_dir(&inner).unwrap();
        let mut disk = Disk::default();
        for name in [
            "../x",
            "/etc/x",
            "..",
            "",
            ".bashrc",
            "a\u{2215}b",
            "a\0",
            "CON",
        ] {
            let answer = disk.ask(create(1, &inner, name, 3));
            assert!(
                matches!(answer, DiskAnswer::BadName(_)),
                "{name:?}: {answer:?}"
            );
        }
        assert_eq!(names_in(folder.path()), ["inner"]);
        assert_eq!(names_in(&inner), [""; 0]);
    }

    #[test]
    fn t02_a_folder_that_is_none_is_named() {
        let folder = TempDir::new().unwrap();
        let mut disk = Disk::default();
        let missing = folder.path().join("missing");
        let reason = disk.failure(create(1, &missing, "x", 3));
        assert_eq!(
            reason,
            format!("there is no folder {}; create it first", missing.display())
        );
        let file = folder.path().join("file");
        fs::write(&file, b"kept").unwrap();
        let reason = disk.failure(create(1, &file, "x", 3));
        assert!(reason.ends_with("is a file, not a folder"), "{reason}");
        assert_eq!(fs::read(&file).unwrap(), b"kept");
    }

    #[test]
    fn t02_a_link_to_a_folder_is_the_folder_and_nothing_else() {
        let folder = TempDir::new().unwrap();
        let (real, link) = (folder.path().join("real"), folder.path().join("link"));
        fs::create_dir(&real).unwrap();
        symlink(&real, &link).unwrap();
        let mut disk = Disk::default();
        let answer = disk.ask(create(1, &link, "../x", 3));
        assert!(matches!(answer, DiskAnswer::BadName(_)));
        disk.receive(2, &link, "x", b"abc");
        assert_eq!(fs::read(real.join("x")).unwrap(), b"abc");
        assert_eq!(names_in(folder.path()), ["link", "real"]);
    }

    #[test]
    fn t03_a_link_in_the_place_of_a_name_is_not_followed() {
        let folder = TempDir::new().unwrap();
        let outside = TempDir::new().unwrap();
        let victim = outside.path().join("victim");
        fs::write(&victim, b"kept").unwrap();
        for name in ["x", "x.part"] {
            symlink(&victim, folder.path().join(name)).unwrap();
        }
        let mut disk = Disk::default();
        let path = disk.receive(1, folder.path(), "x", b"abc");
        assert_eq!(path, folder.path().join("x (1)"));
        assert_eq!(fs::read(&victim).unwrap(), b"kept");
        assert_eq!(names_in(folder.path()), ["x", "x (1)", "x.part"]);
    }

    #[test]
    fn t03_a_folder_swapped_for_a_link_while_a_file_arrives_leads_nowhere() {
        let folder = TempDir::new().unwrap();
        let outside = TempDir::new().unwrap();
        let (target, moved) = (folder.path().join("target"), folder.path().join("moved"));
        fs::create_dir(&target).unwrap();
        let mut disk = Disk::default();
        disk.ask(create(1, &target, "x", 3));
        fs::rename(&target, &moved).unwrap();
        symlink(outside.path(), &target).unwrap();
        disk.ask(write(1, 0, b"abc"));
        disk.ask(finish(1));
        assert_eq!(names_in(outside.path()), [""; 0]);
        assert_eq!(fs::read(moved.join("x")).unwrap(), b"abc");
    }

    #[test]
    fn t03_a_part_that_was_replaced_is_neither_finished_nor_removed() {
        let folder = TempDir::new().unwrap();
        let part = folder.path().join("x.part");
        let mut disk = Disk::default();
        disk.ask(create(1, folder.path(), "x", 3));
        disk.ask(write(1, 0, b"abc"));
        let replace = |text: &[u8]| {
            let other = folder.path().join("other");
            fs::write(&other, text).unwrap();
            fs::rename(&other, &part).unwrap();
        };
        replace(b"bad");
        let reason = disk.failure(finish(1));
        assert!(reason.contains("removed while it arrived"), "{reason}");
        assert_eq!(disk.execute(drop_transfer(1)), None);
        assert_eq!(fs::read(&part).unwrap(), b"bad");
        assert_eq!(names_in(folder.path()), ["x.part"]);
    }

    #[test]
    fn t03_a_part_that_was_moved_away_and_replaced_is_not_finished_either() {
        let folder = TempDir::new().unwrap();
        let part = folder.path().join("x.part");
        let mut disk = Disk::default();
        disk.ask(create(1, folder.path(), "x", 3));
        disk.ask(write(1, 0, b"abc"));
        fs::rename(&part, folder.path().join("moved")).unwrap();
        fs::write(&part, b"bad").unwrap();
        let reason = disk.failure(finish(1));
        assert!(reason.contains("another program replaced"), "{reason}");
        drop(disk);
        assert_eq!(names_in(folder.path()), ["moved", "x.part"]);
        assert_eq!(fs::read(&part).unwrap(), b"bad");
    }

    #[test]
    fn t06_only_the_own_part_is_removed() {
        let folder = TempDir::new().unwrap();
        fs::write(folder.path().join("x.part"), b"kept").unwrap();
        fs::write(folder.path().join("x"), b"kept").unwrap();
        let mut disk = Disk::default();
        disk.ask(create(1, folder.path(), "x", 3));
        assert_eq!(names_in(folder.path()), ["x", "x.1.part", "x.part"]);
        assert_eq!(disk.execute(drop_transfer(1)), None);
        assert_eq!(names_in(folder.path()), ["x", "x.part"]);
        disk.ask(create(2, folder.path(), "x", 3));
        drop(disk);
        assert_eq!(names_in(folder.path()), ["x", "x.part"]);
        assert_eq!(fs::read(folder.path().join("x")).unwrap(), b"kept");
    }

    #[test]
    fn t08_a_taken_name_gets_a_number_and_is_kept() {
        let folder = TempDir::new().unwrap();
        fs::create_dir(folder.path().join("x.txt")).unwrap();
        let mut disk = Disk::default();
        let first = disk.receive(1, folder.path(), "x.txt", b"1");
        let second = disk.receive(2, folder.path(), "x.txt", b"2");
        assert_eq!(first, folder.path().join("x (1).txt"));
        assert_eq!(second, folder.path().join("x (2).txt"));
        assert_eq!(fs::read(first).unwrap(), b"1");
        assert_eq!(names_in(folder.path()), ["x (1).txt", "x (2).txt", "x.txt"]);
    }

    #[test]
    fn t08_the_longest_name_arrives() {
        let folder = TempDir::new().unwrap();
        let mut disk = Disk::default();
        let name = "ä".repeat(127) + "x";
        let path = disk.receive(1, folder.path(), &name, b"1");
        assert_eq!(path, folder.path().join(&name));
        let path = disk.receive(2, folder.path(), &name, b"2");
        assert_ne!(path, folder.path().join(&name));
        assert_eq!(fs::read(path).unwrap(), b"2");
    }

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
    fn t11_a_size_that_lies_is_refused_before_a_byte_is_taken() {
        let folder = TempDir::new().unwrap();
        let mut disk = Disk::default();
        for size in [1 << 62, u64::MAX] {
            let reason = disk.failure(create(1, folder.path(), "x", size));
            assert!(reason.starts_with("not enough space in"), "{reason}");
            assert!(reason.contains("needs"), "{reason}");
        }
        assert_eq!(names_in(folder.path()), [""; 0]);
    }

    #[test]
    fn t12_a_source_that_changes_is_never_sent_as_if_it_had_not() {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("x");
        let changes: [fn(&Path); 4] = [
            |path| append(path),
            |path| {
                File::options()
                    .write(true)
                    .open(path)
                    .unwrap()
                    .set_len(1)
                    .unwrap()
            },
            |path| fs::write(path, vec![1; 2 * LEAF_LEN]).unwrap(),
            |path| {
                let file = File::options().write(true).open(path).unwrap();
                file.set_modified(SystemTime::UNIX_EPOCH).unwrap();
            },
        ];
        for change in changes {
            fs::write(&path, vec![0; 2 * LEAF_LEN]).unwrap();
            let mut disk = Disk::default();
            disk.ask(open(1, &path));
            assert!(matches!(disk.ask(read(1, 1)), DiskAnswer::Leaf { .. }));
            change(&path);
            let reason = disk.failure(read(1, 0));
            assert!(
                reason.contains("changed while it was being sent"),
                "{reason}"
            );
        }
    }

    #[test]
    fn t12_a_disk_that_fills_up_while_a_file_arrives_is_named() {
        let folder = TempDir::new().unwrap();
        let mut disk = Disk::default();
        disk.ask(create(1, folder.path(), "x", 3));
        let Some(Transfer::Receiving(target)) = disk.transfers.get_mut(&id(1)) else {
            panic!("not open");
        };
        // Writing to this device fails as on a full disk.
        target.part.file = File::options().write(true).open("/dev/full").unwrap();
        let reason = disk.failure(write(1, 0, b"abc"));
        let expected = format!("not enough space in {}: needs 3 B", folder.path().display());
        assert_eq!(reason, expected);
    }

    #[test]
    fn t12_a_target_that_is_removed_while_it_arrives_is_never_done() {
        let folder = TempDir::new().unwrap();
        let target = folder.path().join("target");
        fs::create_dir(&target).unwrap();
        let mut disk = Disk::default();
        disk.ask(create(1, &target, "x", 3));
        fs::remove_dir_all(&target).unwrap();
        disk.ask(write(1, 0, b"abc"));
        let reason = disk.failure(finish(1));
        assert!(reason.contains("was removed while it arrived"), "{reason}");
        assert!(!target.exists());
    }

    #[test]
    fn what_is_no_regular_file_is_named_and_never_waited_for() {
        let folder = TempDir::new().unwrap();
        let mut disk = Disk::default();
        let reason = disk.failure(open(1, folder.path()));
        assert!(reason.contains("is a folder; pack it first"), "{reason}");
        let reason = disk.failure(open(1, &folder.path().join("missing")));
        assert!(reason.starts_with("there is no file"), "{reason}");
        let fifo = folder.path().join("fifo");
        let made = std::process::Command::new("mkfifo").arg(&fifo).status();
        assert!(made.unwrap().success());
        let socket = folder.path().join("socket");
        let _listener = UnixListener::bind(&socket).unwrap();
        for path in [fifo, socket, PathBuf::from("/dev/null")] {
            let reason = disk.failure(open(1, &path));
            assert!(reason.contains("is not a regular file"), "{reason}");
        }
    }

    #[test]
    fn modes_are_private_while_a_file_arrives_and_plain_afterwards() {
        let folder = TempDir::new().unwrap();
        let program = folder.path().join("program");
        fs::write(&program, b"abc").unwrap();
        fs::set_permissions(&program, Permissions::from_mode(0o4755)).unwrap();
        let mut disk = Disk::default();
        let opened = disk.ask(open(1, &program));
        assert!(matches!(
            opened,
            DiskAnswer::Opened {
                executable: true,
                ..
            }
        ));
        for (transfer, executable) in [(2, true), (3, false)] {
            disk.ask(DiskRequest::Create {
                transfer: id(transfer),
                folder: folder.path().to_owned(),
                name: "y".to_owned(),
                size: 3,
                executable,
            });
            assert_eq!(mode(&folder.path().join("y.part")), 0o600);
            disk.ask(write(transfer, 0, b"abc"));
            let DiskAnswer::Finished { path } = disk.ask(finish(transfer)) else {
                panic!("not finished");
            };
            assert_eq!(mode(&path) & 0o100 != 0, executable);
            assert_eq!(mode(&path) & 0o7022, 0);
        }
    }

    #[test]
    fn a_part_is_listed_for_as_long_as_it_is_there() {
        let folder = TempDir::new().unwrap();
        let list = folder.path().join("parts");
        let start = || Disk {
            parts: Parts::start(list.clone()),
            ..Disk::default()
        };
        let mut disk = start();
        disk.receive(1, folder.path(), "a", b"abc");
        assert!(!list.exists(), "finished");
        disk.ask(create(2, folder.path(), "b", 3));
        assert!(list.exists());
        assert_eq!(disk.execute(drop_transfer(2)), None);
        assert!(!list.exists(), "given up");
        disk.failure(create(3, folder.path(), "c", 1 << 43));
        assert!(!list.exists(), "never begun");

        disk.ask(create(4, folder.path(), "d", 3));
        // As if it were killed: nothing is dropped.
        std::mem::forget(disk);
        assert_eq!(names_in(folder.path()), ["a", "d.part", "parts"]);
        start();
        assert_eq!(names_in(folder.path()), ["a"]);
    }

    #[test]
    fn files_open_at_once_have_a_bound() {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("x");
        fs::write(&path, b"x").unwrap();
        let mut disk = Disk::default();
        for number in 0..TRANSFERS_MAX {
            let answer = disk.ask(open(number, &path));
            assert!(matches!(answer, DiskAnswer::Opened { .. }), "{answer:?}");
        }
        let reason = disk.failure(open(TRANSFERS_MAX, &path));
        assert!(reason.contains("wait for some to end"), "{reason}");
        disk.execute(drop_transfer(0));
        let answer = disk.ask(open(TRANSFERS_MAX, &path));
        assert!(matches!(answer, DiskAnswer::Opened { .. }), "{answer:?}");
    }

    #[test]
    fn a_request_out_of_order_fails_alone() {
        let folder = TempDir::new().unwrap();
        let mut disk = Disk::default();
        for request in [read(1, 0), write(1, 0, b""), finish(1)] {
            assert_eq!(disk.failure(request), "the transfer has no open file");
        }
        assert_eq!(disk.execute(drop_transfer(1)), None);
        disk.ask(create(1, folder.path(), "x", 3));
        assert_eq!(disk.failure(read(1, 0)), "the transfer has no open file");
        let reason = disk.failure(create(1, folder.path(), "y", 3));
        assert_eq!(reason, "the transfer has an open file already");
        assert_eq!(names_in(folder.path()), ["x.part"]);
    }

    impl Disk {
        fn ask(&mut self, request: DiskRequest) -> DiskAnswer {
            self.execute(request).expect("has an answer")
        }

        fn failure(&mut self, request: DiskRequest) -> String {
            let answer = self.ask(request);
            let DiskAnswer::Failed(reason) = answer else {
                panic!("{answer:?}");
            };
            reason
        }

        /// Takes a leaf from transfer 1 to transfer 2.
        fn copy_leaf(&mut self, index: u64) -> LeafHash {
            let DiskAnswer::Leaf { bytes, hash, .. } = self.ask(read(1, index)) else {
                panic!("no leaf");
            };
            let request = DiskRequest::WriteLeaf {
                transfer: id(2),
                index,
                bytes,
                hash,
            };
            assert_eq!(self.ask(request), DiskAnswer::Written { index });
            hash
        }

        fn receive(
            &mut self,
            transfer: usize,
            folder: &Path,
            name: &str,
            bytes: &'static [u8],
        ) -> PathBuf {
            let created = self.ask(create(transfer, folder, name, bytes.len() as u64));
            assert_eq!(created, DiskAnswer::Created);
            let written = self.ask(write(transfer, 0, bytes));
            assert_eq!(written, DiskAnswer::Written { index: 0 });
            let answer = self.ask(finish(transfer));
            let DiskAnswer::Finished { path } = answer else {
                panic!("{answer:?}");
            };
            path
        }
    }

    fn id(number: usize) -> TransferId {
        TransferId::from_bytes((number as u128).to_be_bytes())
    }

    fn open(transfer: usize, path: &Path) -> DiskRequest {
        DiskRequest::Open {
            transfer: id(transfer),
            path: path.to_owned(),
        }
    }

    fn read(transfer: usize, index: u64) -> DiskRequest {
        DiskRequest::ReadLeaf {
            transfer: id(transfer),
            index,
        }
    }

    fn create(transfer: usize, folder: &Path, name: &str, size: u64) -> DiskRequest {
        DiskRequest::Create {
            transfer: id(transfer),
            folder: folder.to_owned(),
            name: name.to_owned(),
            size,
            executable: false,
        }
    }

    /// For a file of a single leaf.
    fn write(transfer: usize, index: u64, bytes: &'static [u8]) -> DiskRequest {
        DiskRequest::WriteLeaf {
            transfer: id(transfer),
            index,
            bytes: Bytes::from_static(bytes),
            hash: hash_of(bytes),
        }
    }

    fn finish(transfer: usize) -> DiskRequest {
        DiskRequest::Finish {
            transfer: id(transfer),
        }
    }

    fn drop_transfer(transfer: usize) -> DiskRequest {
        DiskRequest::Drop {
            transfer: id(transfer),
        }
    }

    fn hash_of(bytes: &[u8]) -> LeafHash {
        let mut hasher = LeafHasher::new(bytes.len() as u64, 0);
        hasher.update(bytes);
        hasher.finish()
    }

    /// The digest as one leaf after the other gives it, without the disk.
    fn blake3_of(bytes: &[u8]) -> [u8; 32] {
        let len = bytes.len() as u64;
        let leaves: Vec<LeafHash> = (0..leaf_count(len))
            .map(|index| {
                let start = index as usize * LEAF_LEN;
                let mut hasher = LeafHasher::new(len, index);
                hasher.update(&bytes[start..start + leaf_len(len, index).unwrap()]);
                hasher.finish()
            })
            .collect();
        file_digest(len, &leaves).unwrap().0
    }

    fn content(len: usize) -> Vec<u8> {
        (0..len).map(|i| (i * 7 + i / 251) as u8).collect()
    }

    fn append(path: &Path) {
        let mut file = File::options().append(true).open(path).unwrap();
        file.write_all(b"more").unwrap();
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o7777
    }

    fn names_in(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap();
        let mut names: Vec<String> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}
