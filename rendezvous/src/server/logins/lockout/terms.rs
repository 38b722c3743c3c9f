//! When a lane is blocked, and for how long.

use std::time::Duration;

use common::limits::BLOCK_MAX;

/// When a lane is blocked, and for how long.
#[derive(Clone, Copy, Debug)]
pub(super) struct LaneTerms {
    pub(super) failures_max: u32,
    pub(super) block_first: Duration,
}

impl LaneTerms {
    /// No block is longer than [`BLOCK_MAX`], which more blocks than these have reached.
    pub(super) const BLOCKS_TOLD_APART: u32 = 32;

    /// How long the block lasts that is a lane's `blocks`th; at least 1.
    pub(super) fn span(&self, blocks: u32) -> Duration {
        let factor = 1u32.checked_shl(blocks - 1).unwrap_or(u32::MAX);
        self.block_first.saturating_mul(factor).min(BLOCK_MAX)
    }

    /// How much is left of the block that the last of `count` failures began `age` ago, if it was one
    /// too many.
    pub(super) fn left(&self, count: u32, age: Duration) -> Duration {
        let (blocks, failures) = (count / self.failures_max, count % self.failures_max);
        if blocks == 0 || failures > 0 {
            return Duration::ZERO;
        }
        self.span(blocks).saturating_sub(age)
    }

    /// What comes after `count` failures in a row; beyond what makes a difference it begins to repeat.
    pub(super) const fn next(&self, count: u32) -> u32 {
        let next = count + 1;
        if next / self.failures_max > Self::BLOCKS_TOLD_APART {
            next - self.failures_max
        } else {
            next
        }
    }
}
