//! Joins what is forwarded: packets that came one by one and go the same way leave as one train, for one call
//! of the system instead of many.
//!
//! Only what came together is joined, so nothing waits for it. Packets to one address keep their order.

use std::net::{IpAddr, SocketAddr};
use std::ops::Range;

use common::limits::UDP_TRAIN_LEN_MAX;
use common::os::udp::{EcnCodepoint, Train};

/// Trains among which one to the same address is looked for.
const SEARCHED: usize = 32;

/// Where a train goes, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Way {
    /// Where to.
    pub(super) destination: SocketAddr,
    /// The address of this host to send it from; `None` leaves that to the system.
    pub(super) source: Option<IpAddr>,
    /// Its mark of congestion: the two peers see it on either side of the relay.
    pub(super) ecn: Option<EcnCodepoint>,
}

/// A part of what came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Part {
    /// Which of the trains that came together.
    pub(super) train: usize,
    /// The bytes of it; at least one.
    pub(super) range: Range<usize>,
    /// The length of each datagram but the last; at least 1.
    pub(super) stride: usize,
}

/// What is to be forwarded of what came together.
#[derive(Debug, Default)]
pub(super) struct Outgoing {
    trains: Vec<Joined>,
    parts: Vec<Linked>,
    /// Where a train of several parts is put together.
    space: Vec<u8>,
}

/// Parts that leave as one train.
#[derive(Debug)]
struct Joined {
    way: Way,
    stride: usize,
    len: usize,
    /// Places in the list of parts.
    first: usize,
    last: usize,
}

/// A part, and the place of the one behind it in the same train.
#[derive(Debug)]
struct Linked {
    part: Part,
    next: Option<usize>,
}

impl Outgoing {
    /// Adds a part.
    pub(super) fn add(&mut self, way: Way, part: Part) {
        let place = self.parts.len();
        let (stride, len) = (part.stride.min(part.range.len()), part.range.len());
        self.parts.push(Linked { part, next: None });
        let mut latest = self.trains.iter_mut().rev().take(SEARCHED);
        // The last one to this address or none: an earlier one would be overtaken.
        match latest.find(|train| train.way.destination == way.destination) {
            Some(train) if train.way == way && train.takes(stride, len) => {
                self.parts[train.last].next = Some(place);
                train.last = place;
                train.len += len;
            }
            Some(_) | None => self.trains.push(Joined {
                way,
                stride,
                len,
                first: place,
                last: place,
            }),
        }
    }

    /// Hands over all trains, and is empty then. `came` is what the parts are of.
    pub(super) fn drain(&mut self, came: &[&[u8]], mut send: impl FnMut(&Train<'_>)) {
        for train in self.trains.drain(..) {
            let mut linked = &self.parts[train.first];
            let part = |linked: &Linked| &came[linked.part.train][linked.part.range.clone()];
            let mut bytes = part(linked);
            if linked.next.is_some() {
                self.space.clear();
                self.space.extend_from_slice(bytes);
                while let Some(next) = linked.next {
                    linked = &self.parts[next];
                    self.space.extend_from_slice(part(linked));
                }
                bytes = &self.space;
            }
            send(&Train {
                destination: train.way.destination,
                source: train.way.source,
                ecn: train.way.ecn,
                stride: (train.len > train.stride).then_some(train.stride),
                bytes,
            });
        }
        self.parts.clear();
    }
}

impl Joined {
    /// Tells whether datagrams of this length fit behind those that it has.
    const fn takes(&self, stride: usize, len: usize) -> bool {
        // A shorter datagram is the last one of a train.
        let is_open = self.len.is_multiple_of(self.stride);
        let is_alike = stride == self.stride || (len == stride && len < self.stride);
        is_open && is_alike && self.len + len <= UDP_TRAIN_LEN_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn way(host: u8) -> Way {
        Way {
            destination: SocketAddr::from(([192, 0, 2, host], 4000)),
            source: None,
            ecn: None,
        }
    }

    /// Trains that came, each with its way and stride; returns those that leave: the last byte of the
    /// destination, the stride, and the bytes.
    fn leave(came: &[(Way, &str, usize)]) -> Vec<(u8, Option<usize>, String)> {
        let mut outgoing = Outgoing::default();
        let bytes: Vec<&[u8]> = came.iter().map(|(_, text, _)| text.as_bytes()).collect();
        for (train, (way, text, stride)) in came.iter().enumerate() {
            let part = Part {
                train,
                range: 0..text.len(),
                stride: *stride,
            };
            outgoing.add(*way, part);
        }
        let mut left = Vec::new();
        outgoing.drain(&bytes, |train| {
            let SocketAddr::V4(to) = train.destination else {
                panic!("{train:?}");
            };
            let text = String::from_utf8(train.bytes.to_vec()).unwrap();
            left.push((to.ip().octets()[3], train.stride, text));
        });
        assert!(outgoing.trains.is_empty() && outgoing.parts.is_empty());
        left
    }

    fn train(host: u8, stride: Option<usize>, text: &str) -> (u8, Option<usize>, String) {
        (host, stride, text.to_owned())
    }

    #[test]
    fn packets_to_one_address_leave_together_and_in_order() {
        let came = [
            (way(1), "aa", 2),
            (way(2), "xx", 2),
            (way(1), "bb", 2),
            (way(2), "yyzz", 2),
            (way(1), "c", 1),
        ];
        let expected = [train(1, Some(2), "aabbc"), train(2, Some(2), "xxyyzz")];
        assert_eq!(leave(&came), expected);
    }

    #[test]
    fn what_is_alone_leaves_as_it_came() {
        let came = [(way(1), "aa", 2), (way(2), "xxyyz", 2), (way(3), "q", 9)];
        let expected = [
            train(1, None, "aa"),
            train(2, Some(2), "xxyyz"),
            train(3, None, "q"),
        ];
        assert_eq!(leave(&came), expected);
    }

    #[test]
    fn nothing_goes_behind_a_shorter_datagram_or_before_an_earlier_one() {
        let came = [
            (way(1), "aab", 2),
            (way(1), "cc", 2),
            (way(1), "ddd", 3),
            (way(1), "ee", 2),
            (way(1), "ff", 2),
        ];
        let expected = [
            train(1, Some(2), "aab"),
            train(1, None, "cc"),
            train(1, Some(3), "dddee"),
            train(1, None, "ff"),
        ];
        assert_eq!(leave(&came), expected);
        // Shorter trains are no last datagram.
        let came = [(way(1), "aaa", 3), (way(1), "bbcc", 2)];
        let expected = [train(1, None, "aaa"), train(1, Some(2), "bbcc")];
        assert_eq!(leave(&came), expected);
    }

    #[test]
    fn what_goes_another_way_leaves_by_itself() {
        let marked = Way {
            ecn: Some(EcnCodepoint::Ce),
            ..way(1)
        };
        let from = Way {
            source: Some([192, 0, 2, 9].into()),
            ..way(1)
        };
        let came = [way(1), marked, from].map(|way| (way, "aa", 2));
        assert_eq!(
            leave(&came),
            [
                train(1, None, "aa"),
                train(1, None, "aa"),
                train(1, None, "aa")
            ]
        );
    }

    #[test]
    fn a_train_is_not_longer_than_the_system_takes() {
        let longest = "a".repeat(1417);
        let came = vec![(way(1), longest.as_str(), 1417); 100];
        let lens: Vec<usize> = leave(&came).iter().map(|(_, _, text)| text.len()).collect();
        assert_eq!(lens, [45 * 1417, 45 * 1417, 10 * 1417]);
        const { assert!(46 * 1417 > UDP_TRAIN_LEN_MAX) };
    }
}
