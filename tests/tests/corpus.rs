//! The inputs that fuzzing has found or began with, once more: each must be as fine as ever.

use std::collections::BTreeSet;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use tests::fuzz::{TARGETS, Target, seeds};

/// Larger files are nobody's minimum.
const FILE_LEN_MAX: u64 = 8 * 1024;

/// Those that have a test of their own, so that they run side by side.
const SLOWER: [&str; 5] = ["tls_pump", "server_engine", "node_engine", "link", "world"];

#[test]
fn every_target_has_a_folder_and_every_folder_a_target() {
    let names: BTreeSet<String> = TARGETS.map(|target| target.name.to_owned()).into();
    let folders = entries(&corpus());
    let folders: BTreeSet<String> = folders.iter().map(|path| name(path)).collect();
    assert_eq!(folders, names);
    for target in TARGETS {
        let program = fuzz().join(format!("fuzz_targets/{}.rs", target.name));
        assert!(program.is_file(), "{} is missing", program.display());
    }
}

#[test]
fn bytes_and_texts_are_handled_as_ever() {
    let others = TARGETS
        .iter()
        .filter(|target| !SLOWER.contains(&target.name));
    for target in others {
        replay(target.name);
    }
}

#[test]
fn connections_are_handled_as_ever() {
    replay("tls_pump");
}

#[test]
fn engines_are_handled_as_ever() {
    replay("server_engine");
    replay("node_engine");
}

#[test]
fn links_are_handled_as_ever() {
    replay("link");
}

#[test]
fn worlds_are_handled_as_ever() {
    replay("world");
}

/// `cargo test -p tests --test corpus -- --ignored` after a target or a message was added.
#[test]
#[ignore = "writes the inputs to begin with, where they are missing"]
fn write_seeds() {
    for target in TARGETS {
        let folder = corpus().join(target.name);
        fs::create_dir_all(&folder).unwrap();
        for (n, bytes) in seeds::of(target.name).into_iter().enumerate() {
            let path = folder.join(format!("seed-{n:02}"));
            if !path.exists() {
                fs::write(path, bytes).unwrap();
            }
        }
    }
}

fn replay(name: &str) {
    let target = TARGETS.into_iter().find(|target| target.name == name);
    let target = target.expect("a target of this name");
    let files = entries(&corpus().join(name));
    assert!(!files.is_empty(), "the corpus of {name} is empty");
    let failed: Vec<String> = files
        .iter()
        .filter(|file| !is_fine(target, file))
        .map(|file| file.display().to_string())
        .collect();
    assert!(failed.is_empty(), "{name} fails with {failed:?}");
}

fn is_fine(target: Target, file: &Path) -> bool {
    let bytes = fs::read(file).expect("a file of the corpus");
    assert!(bytes.len() as u64 <= FILE_LEN_MAX, "{}", file.display());
    catch_unwind(AssertUnwindSafe(|| (target.run)(&bytes))).is_ok()
}

fn fuzz() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz")
}

fn corpus() -> PathBuf {
    fuzz().join("corpus")
}

/// What is in a folder, in the order of the names.
fn entries(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder);
    let entries = entries.unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut paths: Vec<PathBuf> = entries
        .map(|entry| entry.expect("a folder of the corpus").path())
        .collect();
    paths.sort();
    paths
}

fn name(path: &Path) -> String {
    path.file_name()
        .expect("an entry has a name")
        .to_string_lossy()
        .into_owned()
}
