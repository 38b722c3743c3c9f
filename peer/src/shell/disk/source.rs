//! A file that is being sent.

use std::ffi::OsStr;
use std::fs::{File, Metadata};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use bytes::Bytes;
use common::hash::{LeafHash, leaf_len};
use common::limits::{FILE_LEN_MAX, FILE_NAME_LEN_MAX, LEAF_LEN};
use common::text;
use rustix::fs::OFlags;
use rustix::io::Errno;

use super::leaf_hash;

/// A file that is being sent, as it was when it was opened.
#[derive(Debug)]
pub(super) struct Source {
    file: File,
    path: PathBuf,
    pub(super) size: u64,
    modified: Option<SystemTime>,
    pub(super) is_executable: bool,
}

impl Source {
    /// Opens a regular file, or the one that a symbolic link leads to. Returns it with its name.
    pub(super) fn open(path: &Path) -> Result<(Self, String), String> {
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

    pub(super) fn read_leaf(&self, index: u64) -> Result<(Bytes, LeafHash), String> {
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
