//! Bytes that QUIC has not taken yet, by stream, and the order in which it sends leaves.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use noq_proto::{Connection, Dir, StreamId, WriteError};

/// The streams of one link that QUIC has not taken all bytes of.
#[derive(Default)]
pub(super) struct Unsent {
    streams: BTreeMap<StreamId, Pending>,
}

#[derive(Default)]
struct Pending {
    /// That of a leaf.
    rank: Option<LeafRank>,
    pieces: VecDeque<Bytes>,
    finish: bool,
}

/// The order of magnitude of the file that a leaf is of: the leaves of shorter files are sent first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LeafRank(u8);

impl Unsent {
    /// Opens a stream for a leaf; `None` while as many are open as the other side allows.
    pub(super) fn open_leaf(
        &mut self,
        connection: &mut Connection,
        rank: LeafRank,
    ) -> Option<StreamId> {
        let stream = connection.streams().open(Dir::Uni)?;
        let mut send = connection.send_stream(stream);
        send.set_priority(rank.priority(stream)).ok()?;
        let pending = Pending {
            rank: Some(rank),
            ..Pending::default()
        };
        self.streams.insert(stream, pending);
        Some(stream)
    }

    /// Adds bytes to a stream, and its end if `finish`.
    pub(super) fn push(&mut self, stream: StreamId, bytes: Bytes, finish: bool) {
        let pending = self.streams.entry(stream).or_default();
        if !bytes.is_empty() {
            pending.pieces.push_back(bytes);
        }
        pending.finish |= finish;
    }

    /// Writes what is left of a stream until QUIC takes no more.
    pub(super) fn flush(&mut self, stream: StreamId, connection: &mut Connection) {
        let Some(pending) = self.streams.get_mut(&stream) else {
            return;
        };
        let mut send = connection.send_stream(stream);
        while !pending.pieces.is_empty() {
            let pieces = pending.pieces.make_contiguous();
            let before = pieces.len();
            let mut rest = &mut *pieces;
            match send.write_chunks(&mut rest) {
                Ok(_) => {
                    let done = before - rest.len();
                    pending.pieces.drain(..done);
                    if done == 0 {
                        // Part of a piece was written. The next call tells whether the stream is blocked.
                        continue;
                    }
                }
                Err(WriteError::Blocked) => return,
                Err(WriteError::Stopped(_) | WriteError::ClosedStream) => {
                    self.streams.remove(&stream);
                    return;
                }
            }
        }
        if pending.finish {
            // Fails only if the other side has stopped the stream.
            let _ = send.finish();
        }
        self.streams.remove(&stream);
    }

    /// Tells whether QUIC has taken all bytes of a stream.
    pub(super) fn is_taken(&self, stream: StreamId) -> bool {
        !self.streams.contains_key(&stream)
    }

    /// Forgets what is left of a stream.
    pub(super) fn remove(&mut self, stream: StreamId) {
        self.streams.remove(&stream);
    }

    /// Number of leaves up to a rank that QUIC has not taken all of.
    pub(super) fn leaves(&self, rank: LeafRank) -> usize {
        let ranks = self.streams.values().filter_map(|pending| pending.rank);
        ranks.filter(|of| *of <= rank).count()
    }
}

impl LeafRank {
    /// Streams of one rank that have a place of their own in its order.
    const STREAMS: i32 = 1 << 26;

    /// That of a file with so many leaves.
    pub fn of(leaves: u64) -> Self {
        const HIGHEST: u32 = (i32::MAX / LeafRank::STREAMS) as u32 - 1;
        let bits = (u64::BITS - leaves.leading_zeros()).min(HIGHEST);
        Self(bits as u8)
    }

    /// The message stream has priority 0, and each leaf less than those before it of its rank: files do not
    /// delay messages, leaves go one after another, and what is lost of one is sent again before the next.
    fn priority(self, stream: StreamId) -> i32 {
        let before = i32::try_from(stream.index()).unwrap_or(i32::MAX);
        let place = before.min(Self::STREAMS - 1);
        -1 - i32::from(self.0) * Self::STREAMS - place
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use noq_proto::Side;

    #[test]
    fn shorter_files_go_first_and_of_one_rank_the_earlier_leaf() {
        let stream = |index| StreamId::new(Side::Client, Dir::Uni, index);
        let priority = |leaves, index| LeafRank::of(leaves).priority(stream(index));
        assert!(priority(0, 0) < 0, "after the messages");
        assert!(priority(1, 9) > priority(2, 0));
        assert_eq!(LeafRank::of(2), LeafRank::of(3));
        assert!(priority(3, 0) > priority(2, 1));
        // The longest file there is, and more leaves than a link ever carries.
        let longest = common::limits::FILE_LEN_MAX / common::limits::LEAF_LEN as u64;
        assert!(
            priority(longest, u64::from(u32::MAX)) < priority(longest / 2, u64::from(u32::MAX))
        );
        assert!(priority(u64::MAX, u64::from(u32::MAX)) < 0);
    }
}
