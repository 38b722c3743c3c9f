//! The list of parts: which unfinished files are ours, for the start after a crash.
//!
//! A process that is killed removes nothing. The next one that owns the profile reads here which parts
//! it left, and removes those whose place still holds the file that was created: same device, same
//! inode. Whatever else is there by now is left alone.
//!
//! The list is a hint. A part that is missing from it stays, so nothing fails when it cannot be written.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use common::id::TransferId;
use common::limits::TRANSFERS_MAX;
use common::os::private::{self, Durability};

/// How the name of every part ends.
const ENDING: &[u8] = b".part";
/// The longest path that Linux takes, and two numbers.
const LINE_LEN_MAX: usize = 4096 + 2 * 20 + 2;

/// The parts that are open. Without a file, as in tests, nothing is kept.
#[derive(Debug, Default)]
pub(super) struct Parts {
    file: Option<PathBuf>,
    listed: BTreeMap<TransferId, PartFile>,
}

/// A part, and which file it was when it was created.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PartFile {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl Parts {
    /// Removes what an earlier process left behind, and starts an empty list in `file`.
    pub(super) fn start(file: PathBuf) -> Self {
        match read(&file) {
            Ok(left) => {
                let removed = left.iter().filter(|part| part.remove()).count();
                if removed > 0 {
                    log::info!("removed unfinished files of an earlier run count={removed}");
                }
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => log::warn!("cannot read the list of unfinished files: {error}"),
        }
        let parts = Self {
            file: Some(file),
            listed: BTreeMap::new(),
        };
        parts.save();
        parts
    }

    /// Lists a part that has just been created.
    pub(super) fn add(&mut self, transfer: TransferId, part: PartFile) {
        if part.fits_a_line() {
            self.listed.insert(transfer, part);
            self.save();
        }
    }

    /// Forgets a part that has its name now, or is gone.
    pub(super) fn remove(&mut self, transfer: TransferId) {
        if self.listed.remove(&transfer).is_some() {
            self.save();
        }
    }

    /// Forgets all of them.
    pub(super) fn clear(&mut self) {
        if !self.listed.is_empty() {
            self.listed.clear();
            self.save();
        }
    }

    fn save(&self) {
        let Some(file) = &self.file else { return };
        if let Err(error) = write(file, self.listed.values()) {
            log::warn!("cannot write the list of unfinished files: {error}");
        }
    }
}

impl PartFile {
    /// The part that is open in `file` and stands at `path`.
    pub(super) fn new(path: PathBuf, file: &File) -> io::Result<Self> {
        let metadata = file.metadata()?;
        Ok(Self {
            path,
            device: metadata.dev(),
            inode: metadata.ino(),
        })
    }

    fn fits_a_line(&self) -> bool {
        let path = self.path.as_os_str().as_bytes();
        self.path.is_absolute() && !path.contains(&b'\n') && path.ends_with(ENDING)
    }

    /// `None` if no list of ours has such a line.
    fn parse(line: &[u8]) -> Option<Self> {
        let space = line.iter().position(|byte| *byte == b' ')?;
        let (device, inode) = str::from_utf8(&line[..space]).ok()?.split_once(':')?;
        let part = Self {
            path: std::ffi::OsString::from_vec(line[space + 1..].to_vec()).into(),
            device: device.parse().ok()?,
            inode: inode.parse().ok()?,
        };
        part.fits_a_line().then_some(part)
    }

    /// Removes the file if it is still the one that was created. Tells whether it did.
    fn remove(&self) -> bool {
        let Ok(there) = fs::symlink_metadata(&self.path) else {
            return false;
        };
        let is_ours = there.is_file() && (there.dev(), there.ino()) == (self.device, self.inode);
        if !is_ours {
            return false;
        }
        match fs::remove_file(&self.path) {
            Ok(()) => true,
            Err(error) => {
                log::debug!("cannot remove an unfinished file: {error}");
                false
            }
        }
    }
}

fn read(file: &Path) -> io::Result<Vec<PartFile>> {
    let mut bytes = Vec::new();
    let longest = (TRANSFERS_MAX * LINE_LEN_MAX) as u64;
    File::open(file)?.take(longest).read_to_end(&mut bytes)?;
    // What is behind the last line feed was cut off.
    let end = bytes.iter().rposition(|byte| *byte == b'\n').unwrap_or(0);
    let lines = bytes[..end].split(|byte| *byte == b'\n');
    let parts = lines.take(TRANSFERS_MAX).filter_map(PartFile::parse);
    Ok(parts.collect())
}

/// Replaces the list as a whole; without parts there is no file.
fn write<'a>(file: &Path, parts: impl Iterator<Item = &'a PartFile>) -> io::Result<()> {
    let mut bytes = Vec::new();
    for part in parts.take(TRANSFERS_MAX) {
        write!(bytes, "{}:{} ", part.device, part.inode)?;
        bytes.extend_from_slice(part.path.as_os_str().as_bytes());
        bytes.push(b'\n');
    }
    if bytes.is_empty() {
        return match fs::remove_file(file) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            other => other,
        };
    }
    private::write(file, &bytes, Durability::Kill)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use tempfile::TempDir;

    use super::*;

    #[test]
    fn parts_of_a_process_that_was_killed_are_removed() {
        let folder = TempDir::new().unwrap();
        let list = folder.path().join("parts");
        let mut parts = Parts::start(list.clone());
        for number in 0..3 {
            parts.add(id(number), created(&folder, number));
        }
        parts.remove(id(1));
        assert_eq!(
            fs::metadata(&list).unwrap().permissions().mode() & 0o777,
            0o600
        );
        drop(parts);

        Parts::start(list.clone());
        assert!(!path(&folder, 0).exists());
        assert!(path(&folder, 1).exists(), "forgotten in time");
        assert!(!path(&folder, 2).exists());
        assert!(!list.exists());
    }

    #[test]
    fn another_file_in_the_place_of_a_part_is_left_alone() {
        let folder = TempDir::new().unwrap();
        let list = folder.path().join("parts");
        let mut parts = Parts::start(list.clone());
        for number in 0..3 {
            parts.add(id(number), created(&folder, number));
        }
        let foreign = folder.path().join("foreign");
        fs::write(&foreign, "kept").unwrap();
        fs::rename(&foreign, path(&folder, 0)).unwrap();
        // Ours has got its name, and a link to it the old one.
        let named = folder.path().join("named");
        fs::rename(path(&folder, 1), &named).unwrap();
        std::os::unix::fs::symlink(&named, path(&folder, 1)).unwrap();
        fs::remove_file(path(&folder, 2)).unwrap();
        drop(parts);

        Parts::start(list);
        assert_eq!(fs::read(path(&folder, 0)).unwrap(), b"kept");
        assert!(named.exists());
        assert!(path(&folder, 1).is_symlink());
    }

    #[test]
    fn a_list_that_is_not_ours_removes_nothing() {
        let folder = TempDir::new().unwrap();
        let list = folder.path().join("parts");
        let victim = folder.path().join("victim");
        fs::write(&victim, "kept").unwrap();
        let there = fs::metadata(&victim).unwrap();
        let right = format!("{}:{}", there.dev(), there.ino());
        let shown = victim.display();
        let text = format!("{right} {shown}\n{right}\n\n: \nx:y {shown}\n{right} {shown}.part");
        fs::write(&list, text).unwrap();
        Parts::start(list);
        assert_eq!(fs::read(&victim).unwrap(), b"kept");
    }

    #[test]
    fn the_list_has_a_bound_and_odd_paths_stay_out_of_it() {
        let folder = TempDir::new().unwrap();
        let list = folder.path().join("parts");
        let mut parts = Parts::start(list.clone());
        let part = created(&folder, 0);
        for number in 0..TRANSFERS_MAX + 9 {
            parts.listed.insert(id(number), part.clone());
        }
        parts.save();
        assert_eq!(read(&list).unwrap().len(), TRANSFERS_MAX);
        parts.clear();
        for odd in ["x.part", "/a\nb.part", "/x"] {
            let path = odd.into();
            let part = part.clone();
            parts.add(id(0), PartFile { path, ..part });
        }
        assert!(!list.exists());
    }

    fn id(number: usize) -> TransferId {
        TransferId::from_bytes((number as u128).to_be_bytes())
    }

    fn path(folder: &TempDir, number: usize) -> PathBuf {
        folder.path().join(format!("{number}.part"))
    }

    fn created(folder: &TempDir, number: usize) -> PartFile {
        let path = path(folder, number);
        let file = File::create_new(&path).unwrap();
        PartFile::new(path, &file).unwrap()
    }
}
