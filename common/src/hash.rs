//! The hashes of a file's leaves, of 1 MiB each, and its digest, both plain BLAKE3.
//!
//! A leaf is hashed as a subtree of the file's BLAKE3 tree. The leaves' hashes therefore combine to the
//! digest that `b3sum` prints for the whole file, and no byte is hashed twice.

use std::fmt;

use blake3::Hasher;
use blake3::hazmat::{
    HasherExt, Mode, left_subtree_len, merge_subtrees_non_root, merge_subtrees_root,
};
use serde::{Deserialize, Serialize};

use crate::limits::LEAF_LEN;

/// The chaining value of a leaf at its place in the file (BLAKE3 specification section 2.4). In a file of
/// a single leaf, the digest itself.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeafHash(pub [u8; 32]);

/// The BLAKE3 hash of a whole file, 32 bytes.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileDigest(pub [u8; 32]);

/// The number of leaves of a file of `len` bytes. An empty file has one, empty leaf.
pub fn leaf_count(len: u64) -> u64 {
    len.div_ceil(LEAF_LEN as u64).max(1)
}

/// The length in bytes of leaf `index` of a file of `len` bytes; `None` if there is no such leaf.
pub fn leaf_len(len: u64, index: u64) -> Option<usize> {
    if index >= leaf_count(len) {
        return None;
    }
    let rest = len - index * LEAF_LEN as u64;
    Some(usize::try_from(rest).map_or(LEAF_LEN, |rest| rest.min(LEAF_LEN)))
}

/// Hashes a leaf incrementally.
#[derive(Debug)]
pub struct LeafHasher {
    hasher: Hasher,
    is_whole_file: bool,
}

impl LeafHasher {
    /// Starts leaf `index` of a file of `len` bytes. The file must have that leaf.
    pub fn new(len: u64, index: u64) -> Self {
        let mut hasher = Hasher::new();
        let is_whole_file = leaf_count(len) == 1;
        if !is_whole_file {
            hasher.set_input_offset(index * LEAF_LEN as u64);
        }
        Self {
            hasher,
            is_whole_file,
        }
    }

    /// Adds the next bytes of the leaf.
    pub fn update(&mut self, bytes: &[u8]) {
        self.hasher.update(bytes);
    }

    /// Returns the hash, once the leaf is complete.
    pub fn finish(self) -> LeafHash {
        if self.is_whole_file {
            LeafHash(self.hasher.finalize().into())
        } else {
            LeafHash(self.hasher.finalize_non_root())
        }
    }
}

/// Combines the hashes of all leaves of a file of `len` bytes to its digest. `None` if their number is
/// not that of the file's leaves.
pub fn file_digest(len: u64, leaves: &[LeafHash]) -> Option<FileDigest> {
    if leaves.len() as u64 != leaf_count(len) {
        return None;
    }
    let [only] = leaves else {
        let (left, right) = halves(len, leaves);
        return Some(FileDigest(
            merge_subtrees_root(&left, &right, Mode::Hash).into(),
        ));
    };
    Some(FileDigest(only.0))
}

fn subtree(len: u64, leaves: &[LeafHash]) -> [u8; 32] {
    let [only] = leaves else {
        let (left, right) = halves(len, leaves);
        return merge_subtrees_non_root(&left, &right, Mode::Hash);
    };
    only.0
}

/// The chaining values of both subtrees of a tree with at least two leaves. The recursion is at most 24
/// deep, for the largest file.
fn halves(len: u64, leaves: &[LeafHash]) -> ([u8; 32], [u8; 32]) {
    let left_len = left_subtree_len(len);
    let left_leaves =
        usize::try_from(leaf_count(left_len)).expect("no more leaves than the slice has");
    let (left, right) = leaves.split_at(left_leaves);
    (subtree(left_len, left), subtree(len - left_len, right))
}

impl fmt::Display for FileDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for FileDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Debug for LeafHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&FileDigest(self.0), f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leaves_add_up_to_the_plain_blake3_of_the_file() {
        let sizes = [
            0,
            1,
            LEAF_LEN - 1,
            LEAF_LEN,
            LEAF_LEN + 1,
            2 * LEAF_LEN,
            3 * LEAF_LEN + 5,
            5 * LEAF_LEN,
            7 * LEAF_LEN + 1023,
        ];
        for size in sizes {
            let file: Vec<u8> = (0..size).map(|i| (i * 7 + i / 251) as u8).collect();
            let len = file.len() as u64;
            let leaves: Vec<LeafHash> = (0..leaf_count(len))
                .map(|index| {
                    let start = index as usize * LEAF_LEN;
                    let mut hasher = LeafHasher::new(len, index);
                    hasher.update(&file[start..start + leaf_len(len, index).unwrap()]);
                    hasher.finish()
                })
                .collect();
            let digest = file_digest(len, &leaves).unwrap();
            assert_eq!(digest.0, *blake3::hash(&file).as_bytes(), "{size}");
        }
    }

    #[test]
    fn wrong_counts_have_no_digest() {
        let leaf = LeafHash([0; 32]);
        assert_eq!(file_digest(1, &[]), None);
        assert_eq!(file_digest(1, &[leaf, leaf]), None);
        assert_eq!(leaf_len(LEAF_LEN as u64, 1), None);
        assert_eq!(leaf_len(0, 0), Some(0));
    }
}
