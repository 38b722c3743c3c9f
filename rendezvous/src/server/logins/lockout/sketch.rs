//! Failures of names that no account has: a count-min sketch with conservative update (Cormode and
//! Muthukrishnan 2005; Estan and Varghese 2002).
//!
//! A name has one cell in each of four rows, chosen by a keyed hash. A cell holds how many log-ins have
//! failed and when the last one did; a name's own tally is the least of its four. A failure raises
//! only those cells that hold less than the name then has, so that others' failures hide in a name's four
//! cells only where all of them meet. What comes out is never less than what the name did, and is more
//! than that only in a crowd: with a million names in the sketch no name is found blocked that did
//! nothing (`t38_a_million_names_block_no_other`).
//!
//! The memory is the same from the start, and a system gives it as it is touched: 32 MiB after a flood,
//! a page for each cell of a quiet server. Pure: time comes in, and nothing goes out.

use std::fmt;
use std::time::{Duration, Instant};

use common::id::AccountName;
use common::limits::{BLOCK_RESET_AFTER, UNKNOWN_NAME_CELLS};

use super::terms::LaneTerms;
use crate::store::NameHash;

/// Cells that one name has.
const ROWS: usize = 4;
/// A tally's moment takes the lower bits: five hundred years of milliseconds.
const MOMENT_BITS: u32 = 44;
/// Moments are counted from this long before the sketch was made: what is restored is not older.
const BEFORE: Duration = Duration::from_secs(2 * BLOCK_RESET_AFTER.as_secs());

/// Keys the hash by which names without an account are counted. It lasts as long as the store, so that a
/// restart keeps the blocks of such names too.
#[derive(Clone)]
pub struct BucketKey(pub [u8; 32]);

impl fmt::Debug for BucketKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BucketKey(…)")
    }
}

/// Hashes a name; whoever does not have the key cannot tell which names share cells.
pub(super) fn hash(name: &AccountName, key: &BucketKey) -> NameHash {
    let mut bytes = [0; 16];
    blake3::Hasher::new_keyed(&key.0)
        .update(name.as_str().as_bytes())
        .finalize_xof()
        .fill(&mut bytes);
    NameHash::from_bytes(bytes)
}

/// The cells of a name, one in each row.
fn cells(name: NameHash) -> [usize; ROWS] {
    std::array::from_fn(|row| row * UNKNOWN_NAME_CELLS + name.part(row) % UNKNOWN_NAME_CELLS)
}

/// How often in a row a name failed, and when it last did. More failures are greater, then later ones.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Tally(u64);

impl Tally {
    fn new(count: u32, moment: u64) -> Self {
        Self(u64::from(count) << MOMENT_BITS | moment)
    }

    /// Failures since the last quiet day.
    pub(super) const fn count(self) -> u32 {
        (self.0 >> MOMENT_BITS) as u32
    }

    const fn moment(self) -> u64 {
        self.0 & ((1 << MOMENT_BITS) - 1)
    }
}

/// Four rows of [`UNKNOWN_NAME_CELLS`] cells, one after the other.
pub(super) struct Sketch {
    /// The moment [`BEFORE`] stands for.
    start: Instant,
    cells: Box<[Tally]>,
}

impl Sketch {
    /// Nobody has failed yet.
    pub(super) fn new(start: Instant) -> Self {
        Self {
            start,
            cells: vec![Tally::default(); ROWS * UNKNOWN_NAME_CELLS].into_boxed_slice(),
        }
    }

    /// What a name has failed.
    pub(super) fn tally(&self, name: NameHash, now: Instant) -> Tally {
        let now = self.moment(now);
        let cells = cells(name).map(|cell| faded(self.cells[cell], now));
        cells.into_iter().min().expect("there are four")
    }

    /// Counts a failure.
    pub(super) fn add(&mut self, name: NameHash, terms: &LaneTerms, now: Instant) -> Tally {
        let count = terms.next(self.tally(name, now).count());
        let tally = Tally::new(count, self.moment(now));
        self.raise(name, tally, now);
        tally
    }

    /// Forgets what a name has failed, by its least cell. Whoever shares that one is forgiven, too: with a
    /// million names in the sketch that is one other.
    pub(super) fn forget(&mut self, name: NameHash, now: Instant) {
        let now = self.moment(now);
        let cells = cells(name).into_iter();
        let least = cells.min_by_key(|cell| faded(self.cells[*cell], now));
        self.cells[least.expect("there are four")] = Tally::default();
    }

    /// Takes back what the store kept of a name that last failed `ago`.
    pub(super) fn restore(&mut self, name: NameHash, count: u32, ago: Duration, now: Instant) {
        let ago = u64::try_from(ago.as_millis()).unwrap_or(u64::MAX);
        let tally = Tally::new(count, self.moment(now).saturating_sub(ago));
        self.raise(name, tally, now);
    }

    /// How long ago the last failure was.
    pub(super) fn age(&self, tally: Tally, now: Instant) -> Duration {
        Duration::from_millis(self.moment(now).saturating_sub(tally.moment()))
    }

    fn raise(&mut self, name: NameHash, tally: Tally, now: Instant) {
        let now = self.moment(now);
        for cell in cells(name) {
            let cell = &mut self.cells[cell];
            *cell = faded(*cell, now).max(tally);
        }
    }

    fn moment(&self, now: Instant) -> u64 {
        let span = BEFORE + now.saturating_duration_since(self.start);
        u64::try_from(span.as_millis()).unwrap_or(u64::MAX) & ((1 << MOMENT_BITS) - 1)
    }
}

impl fmt::Debug for Sketch {
    /// Millions of cells say nothing to anybody.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sketch").finish_non_exhaustive()
    }
}

/// What is left of a cell: nothing after a day without a failure.
fn faded(tally: Tally, now: u64) -> Tally {
    const MEMORY: u64 = BLOCK_RESET_AFTER.as_millis() as u64;
    if now.saturating_sub(tally.moment()) >= MEMORY {
        Tally::default()
    } else {
        tally
    }
}

#[cfg(test)]
mod tests;
