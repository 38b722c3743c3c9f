//! A peer at the other end of a link, saying what it likes.
//!
//! The link is a real one: QUIC between a node and a transport of its friend, on virtual time. What the
//! friend's streams carry is decided by bytes.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use common::hash::{FileDigest, LeafHash, LeafHasher, file_digest, leaf_len};
use common::limits::{LINK_FRAME_LEN_MAX, OWNER_PATIENCE};
use common::wire::frame;
use common::wire::peer::{
    CancelReason, DeclineReason, FileFrame, LEAF_HEADER_LEN_MAX, LeafHeader, LeafRange, Offer,
    PeerFrame, PeerHello,
};
use common::wire::samples::log_frames;
use peer::node::Datagrams;
use peer::node::transport::{LeafRank, LinkId, StreamDir, StreamId, Transport, TransportEvent};

use super::feed::Feed;
use super::node_host::{ADDRESS, NodeHost, account, secret};

/// Where the friend is.
const FRIEND: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 2)), 5000);
/// What the friend does in one run.
const ACTS_MAX: usize = 200;
/// Turns in which datagrams go to and fro at one moment.
const TURNS_MAX: usize = 2_000;
/// Longer datagrams are lost on the way, as on an Ethernet. QUIC would find out that they are not, and
/// spend the time of a run on padding.
const DATAGRAM_LEN_MAX: usize = 1452;
/// Leaf streams that are still open.
const OPEN_MAX: usize = 8;

pub(super) fn link(bytes: &[u8]) {
    let mut run = played(bytes);
    run.host.pass(Duration::from_secs(60));
}

fn played(bytes: &[u8]) -> Run {
    let mut feed = Feed(bytes);
    let mut run = Run::new();
    run.shake();
    assert!(run.stream.is_some(), "the handshake is complete");
    for _ in 0..ACTS_MAX {
        if feed.is_empty() {
            break;
        }
        run.act(&mut feed);
        run.settle();
    }
    run
}

struct Run {
    host: NodeHost,
    friend: Transport,
    link: LinkId,
    is_up: bool,
    /// The message stream.
    stream: Option<StreamId>,
    /// Streams with leaves that are not finished.
    leaves: Vec<StreamId>,
    /// Sizes of what the friend offered, by number.
    offered: Vec<u64>,
}

impl Run {
    fn new() -> Self {
        let mut host = NodeHost::new(vec![(account(1), secret(1).public())]);
        host.authors = Some(vec![account(1)]);
        let mut friend = Transport::new([8; 32], secret(1));
        let link = friend.dial(secret(0).public(), ADDRESS, host.now);
        Self {
            host,
            friend,
            link: link.expect("a first link"),
            is_up: true,
            stream: None,
            leaves: Vec::new(),
            offered: Vec::new(),
        }
    }

    /// The handshake, which is honest. The server does not say whose the friend's key is, so the pin counts.
    fn shake(&mut self) {
        self.settle();
        self.pass(OWNER_PATIENCE);
        self.settle();
        self.stream = self.friend.open_bi(self.link);
    }

    /// Carries datagrams until both sides are quiet.
    fn settle(&mut self) {
        let mut buffer = Vec::new();
        for _ in 0..TURNS_MAX {
            let mut is_quiet = true;
            while let Some((to, datagram)) = self.host.sent.pop_front() {
                if to == FRIEND && datagram.len() <= DATAGRAM_LEN_MAX {
                    is_quiet = false;
                    let datagrams = datagrams(ADDRESS, &datagram);
                    self.friend.handle_datagrams(datagrams, self.host.now);
                }
            }
            while let Some(event) = self.friend.poll_event() {
                self.on_event(event);
            }
            buffer.clear();
            let now = self.host.now;
            while let Some(transmit) = self
                .friend
                .poll_transmit(now, &mut buffer, &mut |_, _| true)
            {
                is_quiet = false;
                let stride = transmit.segment_size.unwrap_or(transmit.size);
                if stride <= DATAGRAM_LEN_MAX {
                    let train = &buffer[..transmit.size];
                    self.host.datagrams(FRIEND, stride, train);
                }
                buffer.clear();
            }
            if is_quiet {
                return;
            }
        }
        panic!("never quiet");
    }

    /// The friend takes whatever comes, so that the node can go on sending.
    fn on_event(&mut self, event: TransportEvent) {
        match event {
            TransportEvent::Opened {
                link,
                dir: StreamDir::Uni,
            } => {
                while let Some(stream) = self.friend.accept(link, StreamDir::Uni) {
                    self.friend.read(link, stream, &mut |_| true);
                }
            }
            TransportEvent::Readable { link, stream } => {
                self.friend.read(link, stream, &mut |_| true);
            }
            TransportEvent::Lost { .. } => self.is_up = false,
            TransportEvent::Connected { .. }
            | TransportEvent::Opened { .. }
            | TransportEvent::Finished { .. }
            | TransportEvent::Writable { .. }
            | TransportEvent::Silent { .. }
            | TransportEvent::Path { .. } => {}
        }
    }

    fn act(&mut self, feed: &mut Feed<'_>) {
        match feed.below(16) {
            0 => self.greet(),
            1 => self.write_raw(feed),
            2..=5 => self.write_frame(feed),
            6 | 7 => self.write_leaf(feed),
            8 => self.continue_leaf(feed),
            9..=11 => self.host.command(feed),
            12 => self.host.answer_store(feed),
            13 | 14 => self.host.answer_disk(feed),
            _ => self.pass_or_reopen(feed),
        }
    }

    // ---- the message stream --------------------------------------------------------------------

    fn write(&mut self, bytes: Vec<u8>) {
        if let Some(stream) = self.stream {
            self.friend.write(self.link, stream, bytes.into(), false);
        }
    }

    fn greet(&mut self) {
        let mut bytes = Vec::new();
        let hello = PeerHello::ours("fuzz");
        frame::encode::<LINK_FRAME_LEN_MAX>(&hello, &mut bytes).expect("a greeting is small");
        self.write(bytes);
    }

    fn write_raw(&mut self, feed: &mut Feed<'_>) {
        let bytes = feed.piece().to_vec();
        self.write(bytes);
    }

    fn write_frame(&mut self, feed: &mut Feed<'_>) {
        let frame = self.any_frame(feed);
        let mut bytes = Vec::new();
        if frame::encode::<LINK_FRAME_LEN_MAX>(&frame, &mut bytes).is_ok() {
            self.write(bytes);
        }
    }

    fn any_frame(&mut self, feed: &mut Feed<'_>) -> PeerFrame {
        let transfer = self.host.any_transfer(feed);
        match feed.below(12) {
            0..=3 => any_log_frame(feed),
            4 | 5 => self.any_offer(feed),
            6 => PeerFrame::File(FileFrame::Accept {
                transfer,
                have: ranges(feed),
            }),
            7 => PeerFrame::File(FileFrame::Decline {
                transfer,
                reason: DeclineReason::Declined,
            }),
            8 | 9 => PeerFrame::File(FileFrame::Sent {
                transfer,
                digest: self.digest(feed),
            }),
            10 => PeerFrame::File(FileFrame::Received { transfer }),
            _ => PeerFrame::File(FileFrame::Cancel {
                transfer,
                reason: CancelReason::Cancelled,
            }),
        }
    }

    fn any_offer(&mut self, feed: &mut Feed<'_>) -> PeerFrame {
        let size = match feed.below(4) {
            0 => 0,
            1 => u64::from(feed.byte()),
            // Rarely: a leaf of 1 MiB takes a thousand times as long as a small one.
            2 if feed.byte() == 255 => (1 << 20) + u64::from(feed.byte()),
            2 => u64::from(feed.number() % 70_000),
            _ => u64::from_le_bytes(feed.array()),
        };
        self.offered.push(size);
        let number = self.offered.len() as u8;
        PeerFrame::File(FileFrame::Offer(Offer {
            transfer: common::id::TransferId::from_bytes([number; 16]),
            name: feed.text(),
            size,
            executable: feed.flag(),
        }))
    }

    /// The digest of one of the offered files, all zeros, or of nothing.
    fn digest(&self, feed: &mut Feed<'_>) -> FileDigest {
        let size = feed.index(self.offered.len()).map(|n| self.offered[n]);
        let leaf = size.map(|size| (size, leaf_hash(size)));
        let digest = leaf.and_then(|(size, hash)| file_digest(size, &[hash?]));
        digest.unwrap_or_else(|| FileDigest([feed.byte(); 32]))
    }

    // ---- leaves --------------------------------------------------------------------------------

    /// A leaf: of a file that was offered and as it should be, or with anything wrong.
    fn write_leaf(&mut self, feed: &mut Feed<'_>) {
        let Some(stream) = self.friend.open_leaf(self.link, LeafRank::of(1)) else {
            return;
        };
        let size = feed.index(self.offered.len()).map(|n| (n, self.offered[n]));
        let (number, size) = size.unwrap_or_default();
        let index = if feed.below(4) == 0 {
            feed.number().into()
        } else {
            0
        };
        let header = LeafHeader {
            transfer: common::id::TransferId::from_bytes([number as u8 + 1; 16]),
            index,
            hash: leaf_hash(size).unwrap_or(LeafHash([0; 32])),
        };
        let mut head = Vec::new();
        frame::encode::<LEAF_HEADER_LEN_MAX>(&header, &mut head).expect("it is small");
        match feed.below(4) {
            0 => self.friend.write(
                self.link,
                stream,
                Bytes::copy_from_slice(feed.piece()),
                true,
            ),
            1 => {
                head.extend_from_slice(feed.piece());
                self.friend.write(self.link, stream, head.into(), false);
                self.leaves.push(stream);
                if self.leaves.len() > OPEN_MAX {
                    self.leaves.remove(0);
                }
            }
            _ => {
                let len = leaf_len(size, index).filter(|len| *len <= 2 << 20);
                head.resize(head.len() + len.unwrap_or(3), 0);
                self.friend.write(self.link, stream, head.into(), true);
            }
        }
    }

    fn continue_leaf(&mut self, feed: &mut Feed<'_>) {
        if let Some(index) = feed.index(self.leaves.len()) {
            let stream = self.leaves.remove(index);
            let bytes = Bytes::copy_from_slice(feed.piece());
            self.friend.write(self.link, stream, bytes, true);
        }
    }

    // ---- time ----------------------------------------------------------------------------------

    fn pass_or_reopen(&mut self, feed: &mut Feed<'_>) {
        let amount = u64::from(feed.byte());
        match feed.below(6) {
            0 => self.pass(Duration::from_secs(amount)),
            // A second message stream, which nobody may open.
            1 if amount < 32 => self.stream = self.friend.open_bi(self.link).or(self.stream),
            // The end of the message stream.
            2 if amount < 32 => {
                if let Some(stream) = self.stream {
                    self.friend.write(self.link, stream, Bytes::new(), true);
                }
            }
            // A new link, when the old one is over.
            3 if !self.is_up => {
                let dialled = self.friend.dial(secret(0).public(), ADDRESS, self.host.now);
                if let Some(link) = dialled {
                    (self.link, self.is_up) = (link, true);
                    self.leaves.clear();
                    self.shake();
                }
            }
            _ => self.pass(Duration::from_millis(amount)),
        }
    }

    fn pass(&mut self, span: Duration) {
        self.host.pass(span);
        self.friend.handle_timeout(self.host.now);
    }
}

fn datagrams(source: SocketAddr, bytes: &[u8]) -> Datagrams {
    Datagrams {
        source,
        local: None,
        ecn: None,
        stride: bytes.len(),
        bytes: BytesMut::from(bytes),
    }
}

/// The hash of the first leaf of a file of zeros; none if that would be long.
fn leaf_hash(size: u64) -> Option<LeafHash> {
    let len = leaf_len(size, 0).filter(|len| *len <= 2 << 20)?;
    let mut hasher = LeafHasher::new(size, 0);
    hasher.update(&vec![0; len]);
    Some(hasher.finish())
}

fn ranges(feed: &mut Feed<'_>) -> Vec<LeafRange> {
    let range = |feed: &mut Feed<'_>| match feed.below(3) {
        0 => LeafRange { start: 0, end: 1 },
        1 => LeafRange {
            start: feed.byte().into(),
            end: feed.byte().into(),
        },
        _ => LeafRange {
            start: u64::from_le_bytes(feed.array()),
            end: u64::from_le_bytes(feed.array()),
        },
    };
    (0..feed.below(4)).map(|_| range(feed)).collect()
}

/// A frame about logs, whether it is its turn or not.
fn any_log_frame(feed: &mut Feed<'_>) -> PeerFrame {
    let mut frames = log_frames();
    let number = feed.index(frames.len()).unwrap_or_default();
    PeerFrame::Log(frames.swap_remove(number))
}

#[cfg(test)]
mod tests {
    use common::wire::samples;

    use super::*;
    use crate::fuzz::{seeds, vocabulary};

    #[test]
    fn every_frame_is_drawn() {
        let mut run = Run::new();
        vocabulary::check(&samples::peer_frames(), |feed| run.any_frame(feed));
    }

    /// What a fuzzer begins with gets to where it is to look. Entries need an identity, which the friend here has not:
    /// those are for the target `log`.
    #[test]
    fn seeds_bring_a_file_and_take_one() {
        let seeds = seeds::of("link");
        let hosts: Vec<NodeHost> = seeds.iter().map(|seed| played(seed).host).collect();
        let reached: Vec<_> = hosts
            .iter()
            .map(|host| (host.received, host.done))
            .collect();
        assert_eq!(reached[..3], [(0, 0), (0, 1), (0, 1)], "{reached:?}");
    }
}
