//! Trains of datagrams that came together, in one piece of memory.
//!
//! The QUIC implementation keeps what it cannot use yet as a part of the datagram that brought it, and
//! counts the length of that datagram against its bounds. A single byte would keep a whole train, so
//! that somebody who leaves gaps could make a link hold on to many times what it counts. Datagrams
//! therefore share their memory only as long as few trains are held by anybody; the copies that are
//! made beyond that cost time, which an honest link in a good network never pays.

use std::collections::VecDeque;

use bytes::BytesMut;
use common::limits::{Fill, TRAINS_LENT_MAX};

/// How many are looked at for each that comes: of those that nobody holds, few stay.
const LOOKS: usize = 4;

/// Memory of trains whose datagrams were handed out as they came.
#[derive(Debug, Default)]
pub(super) struct Trains {
    /// An empty part of each, which tells whether there is any other.
    lent: VecDeque<BytesMut>,
}

impl Trains {
    /// Tells whether the datagrams of a train may share its memory, and takes note of it.
    pub(super) fn lend(&mut self, train: &mut BytesMut) -> bool {
        self.take_back();
        let has_room = self.lent.len() < TRAINS_LENT_MAX;
        if has_room {
            self.lent.push_back(train.split_to(0));
        }
        has_room
    }

    /// Forgets those of the oldest few that nobody holds any more.
    fn take_back(&mut self) {
        for _ in 0..LOOKS.min(self.lent.len()) {
            if let Some(mut part) = self.lent.pop_front()
                // Only whoever is alone with memory may write to it.
                && !part.try_reclaim(1)
            {
                self.lent.push_back(part);
            }
        }
    }

    /// How full it is.
    pub(super) fn fill(&self) -> Fill {
        Fill::new("trains of datagrams", self.lent.len(), TRAINS_LENT_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn train() -> BytesMut {
        BytesMut::from(&[7; 3000][..])
    }

    #[test]
    fn memory_that_nobody_holds_is_lent_again() {
        let mut trains = Trains::default();
        for _ in 0..3 * TRAINS_LENT_MAX {
            let mut train = train();
            assert!(trains.lend(&mut train));
            assert_eq!(train, [7; 3000][..]);
        }
        assert!(trains.lent.len() <= LOOKS, "{}", trains.lent.len());
    }

    #[test]
    fn what_is_held_has_a_bound() {
        let mut trains = Trains::default();
        let mut held = Vec::new();
        for _ in 0..TRAINS_LENT_MAX {
            let mut train = train();
            assert!(trains.lend(&mut train));
            // One byte, as QUIC may keep it.
            held.push(train.split_to(1).freeze());
        }
        assert!(!trains.lend(&mut train()));
        drop(held);
        for _ in 0..TRAINS_LENT_MAX {
            assert!(trains.lend(&mut train()));
        }
        assert!(trains.lent.len() <= LOOKS, "{}", trains.lent.len());
    }
}
