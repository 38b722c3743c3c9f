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

/// After a message was added or changed: `cargo run -p tests --bin fuzz_seeds`.
#[test]
fn every_corpus_begins_with_what_the_programs_say_today() {
    for target in TARGETS {
        let stale = seeds::stale(target.name, &corpus().join(target.name));
        let names: Vec<&String> = stale.iter().map(|(name, _)| name).collect();
        assert!(names.is_empty(), "{}: {names:?}", target.name);
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
