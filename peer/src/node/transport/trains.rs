//! Bounds the memory of trains: batches of datagrams received in one buffer (GRO).
//!
//! The QUIC implementation keeps out-of-order data as a slice of the datagram that carried it, and
//! counts that datagram's length against its limits. If datagrams shared the train's buffer, a single
//! byte could keep all of it allocated, and a sender that leaves gaps could make a link hold many times
//! what it counts. Datagrams therefore share their buffer only while few trains are in use; beyond that
//! they are copied, which costs time that an honest link on a good network never pays.

use std::collections::VecDeque;

use bytes::BytesMut;
use common::limits::{Occupancy, TRAINS_LENT_MAX};

/// Trains checked for each one received, so that unused ones are soon forgotten.
const LOOKS: usize = 4;

/// The buffers of trains whose datagrams were passed on without a copy.
#[derive(Debug, Default)]
pub(super) struct Trains {
    /// An empty slice of each buffer, which tells whether any other slice is left.
    lent: VecDeque<BytesMut>,
}

impl Trains {
    /// Tells whether the datagrams of a train may share its buffer, and if so tracks it.
    pub(super) fn lend(&mut self, train: &mut BytesMut) -> bool {
        self.take_back();
        let has_room = self.lent.len() < TRAINS_LENT_MAX;
        if has_room {
            self.lent.push_back(train.split_to(0));
        }
        has_room
    }

    /// Forgets those of the oldest [`LOOKS`] buffers that are no longer in use.
    fn take_back(&mut self) {
        for _ in 0..LOOKS.min(self.lent.len()) {
            if let Some(mut part) = self.lent.pop_front()
                // Succeeds only for the last slice of a buffer.
                && !part.try_reclaim(1)
            {
                self.lent.push_back(part);
            }
        }
    }

    /// How full it is.
    pub(super) fn occupancy(&self) -> Occupancy {
        Occupancy::new("trains of datagrams", self.lent.len(), TRAINS_LENT_MAX)
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
            // QUIC may keep a single byte.
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
