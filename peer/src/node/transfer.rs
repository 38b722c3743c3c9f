//! Transfers: files on their way, in both directions.
//!
//! A file is offered, accepted, sent leaf by leaf, verified leaf by leaf and as a whole, made durable
//! and only then given its name. Both directions are bounded by what the disk has taken: the sender
//! reads a leaf when an earlier one has left, the receiver stops reading from the network while too
//! many leaves wait to be written.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use common::hash::{FileDigest, LeafHash, file_digest, leaf_count};
use common::id::TransferId;

use super::Output;
use super::command::{Event, TransferState};

// Files that come.
pub(super) mod receive;
// Files that go.
pub(super) mod send;

/// Progress is told no more often than this.
const PROGRESS_PACE: Duration = Duration::from_millis(100);

/// Where children put what the shell is to do.
pub(super) type Outputs = VecDeque<Output>;

/// How far a transfer is, told at a bearable pace.
#[derive(Clone, Copy, Debug)]
struct Progress {
    transfer: TransferId,
    done: u64,
    total: u64,
    since: Instant,
    told: Instant,
}

impl Progress {
    fn start(transfer: TransferId, total: u64, now: Instant, outputs: &mut Outputs) -> Self {
        let progress = Self {
            transfer,
            done: 0,
            total,
            since: now,
            told: now,
        };
        progress.tell(outputs);
        progress
    }

    fn advance(&mut self, bytes: u64, now: Instant, outputs: &mut Outputs) {
        self.done += bytes;
        if now >= self.told + PROGRESS_PACE {
            self.told = now;
            self.tell(outputs);
        }
    }

    fn tell(&self, outputs: &mut Outputs) {
        let state = TransferState::Moving {
            done: self.done,
            total: self.total,
        };
        tell(self.transfer, state, outputs);
    }

    fn elapsed_ms(&self, now: Instant) -> u64 {
        let elapsed = now.saturating_duration_since(self.since);
        u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX)
    }
}

fn tell(transfer: TransferId, state: TransferState, outputs: &mut Outputs) {
    outputs.push_back(Output::Event(Event::Transfer { transfer, state }));
}

/// The hashes of a file's leaves as they become known, in any order.
#[derive(Debug, Default)]
struct LeafHashes(std::collections::BTreeMap<u64, LeafHash>);

impl LeafHashes {
    /// Notes a leaf's hash; `false` if it was known.
    fn insert(&mut self, index: u64, hash: LeafHash) -> bool {
        self.0.insert(index, hash).is_none()
    }

    /// The digest of a file of `size` bytes; `None` while a leaf is missing.
    fn digest(&self, size: u64) -> Option<FileDigest> {
        if self.0.len() as u64 != leaf_count(size) {
            return None;
        }
        let hashes: Vec<LeafHash> = self.0.values().copied().collect();
        file_digest(size, &hashes)
    }
}
