//! Packets of accounts that have sent a little more than they may: they go when their time comes.
//!
//! Each account has a line of its own, so nobody waits for anybody else, and what it sends keeps its order. The memory
//! of a packet that has gone is used for the next one.

use std::collections::{BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::time::Instant;

use common::limits::{
    Occupancy, RELAY_WAIT_MAX, RELAY_WAITING_MAX, RELAY_WAITING_PER_ACCOUNT_MAX,
    RELAYED_PACKET_LEN_MAX,
};
use common::wire::channel::{CHANNEL_HEADER_LEN, EndId};

use super::traffic::PayerId;

/// All lines.
#[derive(Debug)]
pub(super) struct Waiting {
    /// Most bytes of a line.
    line_len_max: usize,
    /// As many as have waited at a time.
    packets: Vec<Packet>,
    /// Those of them that nobody uses.
    free: Vec<Place>,
    /// By the numbers of those who pay.
    lines: Vec<Line>,
    /// When the first packet of each line may go.
    due: BTreeSet<(Instant, PayerId)>,
}

/// Where a packet is kept.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place(usize);

/// A packet as it came, with its header.
#[derive(Debug)]
pub(super) struct Packet {
    /// The end that has sent it.
    pub(super) end: EndId,
    /// Where it came from.
    pub(super) source: SocketAddr,
    pub(super) bytes: Vec<u8>,
}

/// What waits for one who pays.
#[derive(Debug, Default)]
struct Line {
    packets: VecDeque<Place>,
    len: usize,
    /// When the first may go, if there is one.
    due: Option<Instant>,
}

impl Waiting {
    /// Nothing waits. Accounts may send so many bytes a second.
    pub(super) fn new(bytes_per_second: u32) -> Self {
        let line_len_max = f64::from(bytes_per_second) * RELAY_WAIT_MAX.as_secs_f64();
        Self {
            line_len_max: line_len_max as usize,
            packets: Vec::new(),
            free: Vec::new(),
            lines: Vec::new(),
            due: BTreeSet::new(),
        }
    }

    /// Tells whether nothing waits for `payer`.
    pub(super) fn is_empty(&self, payer: PayerId) -> bool {
        let line = self.lines.get(payer.0);
        line.is_none_or(|line| line.packets.is_empty())
    }

    /// Has a packet wait behind all others of `payer`, or until `due` if it is the first; `false` if there is no room.
    pub(super) fn push(
        &mut self,
        payer: PayerId,
        (end, source): (EndId, SocketAddr),
        bytes: &[u8],
        due: Instant,
    ) -> bool {
        if self.lines.len() <= payer.0 {
            self.lines.resize_with(payer.0 + 1, Line::default);
        }
        let line = &mut self.lines[payer.0];
        let is_long = line.packets.len() >= RELAY_WAITING_PER_ACCOUNT_MAX
            || line.len + bytes.len() > self.line_len_max;
        let is_full = self.free.is_empty() && self.packets.len() >= RELAY_WAITING_MAX;
        if is_long || is_full {
            return false;
        }
        let place = self.free.pop().unwrap_or_else(|| {
            self.packets.push(Packet {
                end,
                source,
                bytes: Vec::with_capacity(CHANNEL_HEADER_LEN + RELAYED_PACKET_LEN_MAX),
            });
            Place(self.packets.len() - 1)
        });
        let packet = &mut self.packets[place.0];
        (packet.end, packet.source) = (end, source);
        packet.bytes.clear();
        packet.bytes.extend_from_slice(bytes);
        line.packets.push_back(place);
        line.len += bytes.len();
        if line.due.is_none() {
            line.due = Some(due);
            self.due.insert((due, payer));
        }
        true
    }

    /// Takes the next packet that may go now. What is behind it waits until the time for as many bytes as it has, which
    /// [`Waiting::set_due`] is to be told before anything else.
    pub(super) fn pop(&mut self, now: Instant) -> Option<(PayerId, Place)> {
        let (due, payer) = *self.due.first()?;
        if due > now {
            return None;
        }
        self.due.remove(&(due, payer));
        let line = &mut self.lines[payer.0];
        line.due = None;
        let place = line.packets.pop_front()?;
        line.len -= self.packets[place.0].bytes.len();
        self.free.push(place);
        Some((payer, place))
    }

    /// How long the first packet of a line is, if there is any.
    pub(super) fn first_len(&self, payer: PayerId) -> Option<usize> {
        let place = self.lines.get(payer.0)?.packets.front()?;
        Some(self.packets[place.0].bytes.len())
    }

    /// Says when the first packet of a line may go.
    pub(super) fn set_due(&mut self, payer: PayerId, due: Instant) {
        self.lines[payer.0].due = Some(due);
        self.due.insert((due, payer));
    }

    /// A packet; one that was taken is there until another one waits.
    pub(super) fn packet(&mut self, place: Place) -> &mut Packet {
        &mut self.packets[place.0]
    }

    /// Drops what waits for somebody who is gone. Returns how many packets those were.
    pub(super) fn forget(&mut self, payer: PayerId) -> usize {
        let Some(line) = self.lines.get_mut(payer.0) else {
            return 0;
        };
        if let Some(due) = line.due.take() {
            self.due.remove(&(due, payer));
        }
        line.len = 0;
        let count = line.packets.len();
        self.free.extend(line.packets.drain(..));
        count
    }

    /// When [`Waiting::pop`] has something, if ever.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.due.first().map(|(due, _)| *due)
    }

    /// How many packets wait.
    pub(super) fn count(&self) -> usize {
        self.packets.len() - self.free.len()
    }

    /// How full it is.
    pub(super) fn occupancy(&self) -> Occupancy {
        Occupancy::new("waiting relay packets", self.count(), RELAY_WAITING_MAX)
    }
}
