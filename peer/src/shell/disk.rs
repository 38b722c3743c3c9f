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
use std::io;
use std::path::{Path, PathBuf};

use common::hash::{LeafHash, LeafHasher};
use common::id::TransferId;
use common::limits::{DISK_REQUESTS_MAX, TRANSFERS_MAX};
use common::os::worker::{Queue, Worker};

use super::names::FileName;
use super::workers::{Answer, Answers};
use crate::node::io::{DiskAnswer, DiskFailure, DiskRequest};

// The list of unfinished files, by which the next start recognises them.
mod parts;
// A file that is being sent.
mod source;
// A file that is being received.
mod target;

use parts::Parts;
use source::Source;
pub(crate) use source::has_more_than_it_says;
use target::Target;

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

    fn open(&mut self, transfer: TransferId, path: &Path) -> Result<DiskAnswer, DiskFailure> {
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

    fn read_leaf(&self, transfer: TransferId, index: u64) -> Result<DiskAnswer, DiskFailure> {
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
    ) -> Result<DiskAnswer, DiskFailure> {
        self.check_room(transfer)?;
        let name = match FileName::parse(name) {
            Ok(name) => name,
            Err(refusal) => {
                return Ok(DiskAnswer::BadName(refusal.to_string()));
            }
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
    ) -> Result<DiskAnswer, DiskFailure> {
        let Some(Transfer::Receiving(target)) = self.transfers.get(&transfer) else {
            return Err(not_open());
        };
        Ok(match target.write_leaf(index, bytes, hash)? {
            true => DiskAnswer::Written { index },
            false => DiskAnswer::Mismatch { index },
        })
    }

    /// Completes a received file and forgets its transfer. After a failure it can be tried again.
    fn finish(&mut self, transfer: TransferId) -> Result<DiskAnswer, DiskFailure> {
        let Some(Transfer::Receiving(target)) = self.transfers.get(&transfer) else {
            return Err(not_open());
        };
        let path = target.finish()?;
        self.transfers.remove(&transfer);
        self.parts.remove(transfer);
        Ok(DiskAnswer::Finished { path })
    }

    fn check_room(&self, transfer: TransferId) -> Result<(), DiskFailure> {
        if self.transfers.contains_key(&transfer) {
            return Err(failure(
                "the transfer has an open file already",
                "the transfer is under way already",
            ));
        }
        if self.transfers.len() >= TRANSFERS_MAX {
            return Err(failure(
                format!("{TRANSFERS_MAX} files are open already; wait for some to end"),
                "too many files are under way already",
            ));
        }
        Ok(())
    }
}

fn failure(reason: impl Into<String>, told: &'static str) -> DiskFailure {
    DiskFailure {
        reason: reason.into(),
        told,
    }
}

fn not_open() -> DiskFailure {
    failure("the transfer has no open file", "the file is not open")
}

/// Hashes leaf `index` of a file of `size` bytes.
fn leaf_hash(size: u64, index: u64, bytes: &[u8]) -> LeafHash {
    let mut hasher = LeafHasher::new(size, index);
    hasher.update(bytes);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    mod targets;

    use std::fs::{self, File, Permissions};
    use std::io::Write;
    use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
    use std::os::unix::net::UnixListener;
    use std::time::SystemTime;

    use bytes::Bytes;
    use common::hash::{FileDigest, file_digest, leaf_count, leaf_len};
    use common::limits::LEAF_LEN;
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
    fn a_file_that_does_not_tell_its_length_is_not_opened() {
        let made_when_read = Path::new("/proc/cpuinfo");
        if !made_when_read.exists() {
            println!("skipped: this system has no such file");
            return;
        }
        let answer = Disk::default().ask(open(1, made_when_read));
        let DiskAnswer::Failed(failure) = answer else {
            panic!("{answer:?}");
        };
        assert_eq!(failure.told, "its length is not known before it is read");
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
            let DiskAnswer::Failed(failure) = answer else {
                panic!("{answer:?}");
            };
            assert!(!failure.told.contains('/'), "{failure:?}");
            failure.reason
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
