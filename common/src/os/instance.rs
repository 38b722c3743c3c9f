//! What tells one machine and one file from another.
//!
//! A device that goes on from a copy of what it had before contradicts itself. So a program notes where it has ended,
//! and with the note what this module says: it is another value after the file was copied, restored or moved to another
//! machine. It cannot tell a whole machine from its copy, nor an older snapshot of it from a newer one.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::UNIX_EPOCH;

/// Separates these hashes from all others: the context string of BLAKE3's key derivation.
const CONTEXT: &str = "rdv 2026-11 instance v1";
/// What identifies an installation of the system (machine-id(5)): 32 digits and a line feed.
const MACHINE_ID: &str = "/etc/machine-id";
/// Longest of these that is read.
const MACHINE_ID_LEN_MAX: u64 = 64;

/// Identifies a file on this machine. `id` is random and written into the file when that is made.
///
/// It goes by the inode and the time of its making, not by the number of the file system, which differs from one start
/// of some machines to the next.
///
/// # Errors
///
/// If the file's metadata cannot be read.
pub fn of_file(path: &Path, id: &[u8; 32]) -> io::Result<[u8; 32]> {
    let metadata = fs::metadata(path)?;
    // Not all file systems keep it.
    let created = metadata.created().ok();
    let created = created.and_then(|created| created.duration_since(UNIX_EPOCH).ok());
    let created_ns = created.map_or(0, |created| created.as_nanos());
    let machine = machine_id();
    let mut hasher = blake3::Hasher::new_derive_key(CONTEXT);
    hasher.update(id);
    hasher.update(&metadata.ino().to_be_bytes());
    hasher.update(&created_ns.to_be_bytes());
    hasher.update(&machine);
    Ok(hasher.finalize().into())
}

/// Empty where there is none: the file's own marks then have to do.
fn machine_id() -> Vec<u8> {
    let mut id = Vec::new();
    let read =
        File::open(MACHINE_ID).and_then(|file| file.take(MACHINE_ID_LEN_MAX).read_to_end(&mut id));
    match read {
        Ok(_) => id,
        Err(_) => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    #[test]
    fn t45_a_copy_of_a_file_is_another_instance_and_the_file_stays_what_it_is() {
        let folder = TempDir::new().unwrap();
        let [path, copy] = ["one", "copy"].map(|name| folder.path().join(name));
        fs::write(&path, "x").unwrap();
        let before = of_file(&path, &[1; 32]).unwrap();
        assert_ne!(before, of_file(&path, &[2; 32]).unwrap());
        fs::write(&path, "longer").unwrap();
        assert_eq!(before, of_file(&path, &[1; 32]).unwrap());
        fs::copy(&path, &copy).unwrap();
        assert_ne!(before, of_file(&copy, &[1; 32]).unwrap());
        let moved = folder.path().join("moved");
        fs::rename(&path, &moved).unwrap();
        assert_eq!(before, of_file(&moved, &[1; 32]).unwrap());
    }
}
