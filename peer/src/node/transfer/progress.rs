//! How far transfers are, and when that is told.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use common::id::TransferId;

use super::tell;
use crate::node::command::{Moved, TransferState};
use crate::node::context::Context;
use crate::node::transport::{LeafRank, StreamId};

/// Least time between two reports of progress.
const INTERVAL: Duration = Duration::from_millis(100);

/// How much of a file has arrived, told at most once in [`INTERVAL`].
#[derive(Clone, Copy, Debug)]
pub(super) struct Progress {
    transfer: TransferId,
    done: u64,
    pub(super) total: u64,
    is_behind: bool,
    /// When the first byte came; until then, when it was last known that none had.
    since: Instant,
    told: Instant,
    is_told: bool,
}

impl Progress {
    /// Starts, and tells so.
    pub(super) fn start(transfer: TransferId, total: u64, cx: &mut Context<'_>) -> Self {
        let mut progress = Self {
            transfer,
            done: 0,
            total,
            is_behind: false,
            since: cx.now,
            told: cx.now,
            is_told: false,
        };
        progress.tell(cx);
        progress
    }

    /// Notes that so many bytes have arrived. It never goes back.
    pub(super) fn reach(&mut self, done: u64, cx: &mut Context<'_>) {
        if self.done == 0 {
            self.since = first_byte(self.since, done, cx.now);
        }
        if done > self.done {
            self.done = done;
            self.is_told = false;
        }
        if cx.now < self.due() {
            return;
        }
        self.told = cx.now;
        if !self.is_told {
            self.tell(cx);
        }
    }

    /// Notes whether the file waits for its turn.
    pub(super) fn set_behind(&mut self, is_behind: bool, cx: &mut Context<'_>) {
        if std::mem::replace(&mut self.is_behind, is_behind) != is_behind {
            self.tell(cx);
        }
    }

    /// How far the file is.
    pub(super) const fn state(&self) -> TransferState {
        TransferState::Moving(Moved {
            done: self.done,
            total: self.total,
            is_behind: self.is_behind,
        })
    }

    /// When the next report may be made.
    pub(super) fn due(&self) -> Instant {
        self.told + INTERVAL
    }

    /// Time since the first byte, in milliseconds.
    pub(super) fn elapsed_ms(&self, now: Instant) -> u64 {
        let elapsed = now.saturating_duration_since(self.since);
        u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX)
    }

    fn tell(&mut self, cx: &mut Context<'_>) {
        self.is_told = true;
        tell(self.transfer, self.state(), cx);
    }
}

/// When the first byte came, as far as it is known `now` that `done` have. Up to `since` there was none. A
/// sender looks again and again, so it came soon after the last time; a receiver hears of what comes alone.
fn first_byte(since: Instant, done: u64, now: Instant) -> Instant {
    let is_looked_for = now <= since + 2 * INTERVAL;
    if done > 0 && is_looked_for {
        since
    } else {
        now
    }
}

/// Leaves that QUIC has taken on one link, and how much of them has arrived.
///
/// QUIC tells when a stream is acknowledged as a whole. Streams are sent one after another, those of the
/// lowest rank first, whichever transfer they belong to, so the bytes that the link has acknowledged since then are those of the first
/// one that is open, and of packet headers: an estimate, corrected with each leaf.
#[derive(Debug, Default)]
pub(super) struct InFlight {
    /// Leaves that are not acknowledged, in the order in which QUIC sends them.
    open: VecDeque<SentLeaf>,
    /// What the link had acknowledged when the first of them became the first.
    mark: u64,
}

/// A leaf on a stream of its own.
#[derive(Clone, Copy, Debug)]
pub(super) struct SentLeaf {
    pub(super) transfer: TransferId,
    pub(super) rank: LeafRank,
    pub(super) stream: StreamId,
    /// Its length in bytes, without the header in front.
    pub(super) len: u64,
}

impl InFlight {
    /// QUIC takes a leaf; its link has acknowledged `of_link` bytes so far.
    pub(super) fn push(&mut self, leaf: SentLeaf, of_link: u64) {
        let at = self.open.partition_point(|open| open.rank <= leaf.rank);
        if at == 0 {
            self.mark = of_link;
        }
        self.open.insert(at, leaf);
    }

    /// A stream is acknowledged. Returns its leaf.
    pub(super) fn take(&mut self, stream: StreamId, of_link: u64) -> Option<SentLeaf> {
        let at = self.open.iter().position(|leaf| leaf.stream == stream)?;
        self.mark = of_link;
        self.open.remove(at)
    }

    /// Takes out the leaves of a transfer that has ended.
    pub(super) fn take_all(&mut self, transfer: TransferId) -> Vec<SentLeaf> {
        let (ended, open): (VecDeque<_>, _) = self
            .open
            .drain(..)
            .partition(|leaf| leaf.transfer == transfer);
        self.open = open;
        Vec::from(ended)
    }

    /// Tells whether any leaf of a transfer is open.
    pub(super) fn has(&self, transfer: TransferId) -> bool {
        self.open.iter().any(|leaf| leaf.transfer == transfer)
    }

    /// Bytes of a transfer that have arrived of a leaf that is not acknowledged yet.
    pub(super) fn arrived(&self, transfer: TransferId, of_link: u64) -> u64 {
        match self.open.front() {
            Some(first) if first.transfer == transfer => {
                of_link.saturating_sub(self.mark).min(first.len)
            }
            Some(_) | None => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_arrives_is_of_the_leaf_that_quic_sends_first() {
        let [long, short] = [1, 2].map(|byte| TransferId::from_bytes([byte; 16]));
        let leaf = |transfer, leaves, stream: u64| SentLeaf {
            transfer,
            rank: LeafRank::of(leaves),
            stream: StreamId::from(noq_proto::VarInt::from_u64(stream).unwrap()),
            len: 1000,
        };
        let mut in_flight = InFlight::default();
        in_flight.push(leaf(long, 100, 2), 50);
        in_flight.push(leaf(long, 100, 6), 60);
        assert_eq!(in_flight.arrived(long, 450), 400);
        in_flight.push(leaf(short, 1, 10), 450);
        let arrived = [long, short].map(|transfer| in_flight.arrived(transfer, 850));
        assert_eq!(arrived, [0, 400]);
    }
}
