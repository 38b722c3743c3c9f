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

use super::{failure, leaf_hash};
use crate::node::io::DiskFailure;

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
    pub(super) fn open(path: &Path) -> Result<(Self, String), DiskFailure> {
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
        if has_more_than_it_says(&file, &metadata).map_err(fail)? {
            let reason = format!(
                "the length of {shown} is not known before it is read; copy what it holds into a file first"
            );
            return Err(failure(reason, "its length is not known before it is read"));
        }
        if metadata.len() > FILE_LEN_MAX {
            let reason = format!(
                "{shown} has {}, more than the {} that can be sent",
                text::size(metadata.len()),
                text::size(FILE_LEN_MAX)
            );
            return Err(failure(reason, "the file is too large"));
        }
        let bad_name = |what: &str| {
            let reason = format!("the name of {shown} is {what}; rename it first");
            failure(reason, "the file has no name that can be sent")
        };
        let name = path.file_name().and_then(OsStr::to_str);
        let name = name.ok_or_else(|| bad_name("not valid text (UTF-8)"))?;
        if name.len() > FILE_NAME_LEN_MAX {
            return Err(bad_name("too long"));
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

    pub(super) fn read_leaf(&self, index: u64) -> Result<(Bytes, LeafHash), DiskFailure> {
        let unreadable = |why: &dyn std::fmt::Display| {
            let reason = format!("{} cannot be read: {why}", self.path.display());
            failure(reason, "the file cannot be read")
        };
        let len = leaf_len(self.size, index)
            .ok_or_else(|| unreadable(&format_args!("it has no leaf {index}")))?;
        let mut bytes = vec![0; len];
        match self.file.read_exact_at(&mut bytes, index * LEAF_LEN as u64) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Err(self.changed()),
            Err(error) => return Err(unreadable(&error)),
        }
        // Checked after the read, so that no change before or during it goes unnoticed.
        let metadata = self.file.metadata().map_err(|_| self.changed())?;
        if metadata.len() != self.size || metadata.modified().ok() != self.modified {
            return Err(self.changed());
        }
        let hash = leaf_hash(self.size, index, &bytes);
        Ok((bytes.into(), hash))
    }

    fn changed(&self) -> DiskFailure {
        let shown = self.path.display();
        failure(
            format!("{shown} changed while it was being sent; send it again"),
            "the file changed while it was being sent",
        )
    }
}

/// Tells whether a file that says it is empty is not: the system makes it up when it is read, as those below
/// `/proc`.
pub(crate) fn has_more_than_it_says(file: &File, metadata: &Metadata) -> io::Result<bool> {
    Ok(metadata.len() == 0 && file.read_at(&mut [0], 0)? > 0)
}

fn check_is_regular(metadata: &Metadata, path: &Path) -> Result<(), DiskFailure> {
    let shown = path.display();
    if metadata.is_dir() {
        let reason = format!(
            "{shown} is a folder; pack it first, for example with 'tar czf FOLDER.tar.gz FOLDER'"
        );
        return Err(failure(reason, "it is a folder"));
    }
    if !metadata.is_file() {
        return Err(describe_irregular(path));
    }
    Ok(())
}

fn describe_irregular(path: &Path) -> DiskFailure {
    let shown = path.display();
    failure(
        format!("{shown} is not a regular file, so it has no size to announce"),
        "it is not a regular file",
    )
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "the system has more kinds of errors; those without a text of ours show the system's"
)]
fn describe_open(error: &io::Error, path: &Path) -> DiskFailure {
    let shown = path.display();
    let reason = match error.kind() {
        ErrorKind::NotFound => format!("there is no file {shown}"),
        ErrorKind::PermissionDenied => {
            format!("{shown} cannot be read: permission denied; check who owns it")
        }
        // Opening a socket fails like this.
        _ if error.raw_os_error() == Some(Errno::NXIO.raw_os_error()) => {
            return describe_irregular(path);
        }
        _ => format!("{shown} cannot be opened: {error}"),
    };
    failure(reason, "the file cannot be opened")
}
