//! Whether the file is the one that a program has closed, and nobody has written into it since.
//!
//! Somebody who copies a backup over the file leaves it on the same machine, with the same inode and the same content as
//! it had at an earlier end. What gives that away is when the file was changed last, which nobody can set (`st_ctim`,
//! stat(3type)). So whoever closes the file notes that beside it. A snapshot of the whole file system has both: then
//! other devices notice, who have more.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use common::os::private::{self, Durability};

/// Longest note that is read: three numbers and what is between them.
const NOTE_LEN_MAX: usize = 80;

/// Notes how the file was left. The last thing that is done with it.
pub(super) fn note(path: &Path) -> io::Result<()> {
    private::write(
        &beside(path),
        state(path)?.as_bytes(),
        Durability::PowerLoss,
    )
}

/// Tells whether the file is as it was left, and forgets the note: whoever asks is about to write.
pub(super) fn take(path: &Path) -> bool {
    let note = private::read(&beside(path), NOTE_LEN_MAX);
    let state = state(path);
    let is_removed = fs::remove_file(beside(path)).is_ok();
    let (Ok(note), Ok(state)) = (note, state) else {
        return false;
    };
    is_removed && *note == state.as_bytes()
}

fn state(path: &Path) -> io::Result<String> {
    let metadata = fs::metadata(path)?;
    let (seconds, ns) = (metadata.ctime(), metadata.ctime_nsec());
    Ok(format!("{} {seconds} {ns}", metadata.ino()))
}

fn beside(path: &Path) -> PathBuf {
    path.with_extension("end")
}
