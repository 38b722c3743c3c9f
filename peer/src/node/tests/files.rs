//! Files from a sender that keeps no rule.

use common::hash::FileDigest;
use common::limits::OFFERS_PER_ACCOUNT_MAX;
use common::wire::peer::{
    CancelReason, DeclineReason, FileFrame, LeafHeader, Offer, PeerFrame, VERSION,
};

use super::outsider::Outsider;
use super::*;

const SIZE: usize = LEAF_LEN + 5;

const fn transfer(n: u8) -> TransferId {
    TransferId::from_bytes([n; 16])
}

fn offer(n: u8, size: u64) -> PeerFrame {
    PeerFrame::File(FileFrame::Offer(Offer {
        transfer: transfer(n),
        name: format!("file {n}"),
        size,
        executable: false,
    }))
}

/// A file, and what its leaves are announced with.
struct File {
    bytes: Vec<u8>,
    hashes: Vec<LeafHash>,
}

impl File {
    fn new() -> Self {
        let bytes: Vec<u8> = (0..SIZE).map(|at| (at / 7) as u8).collect();
        let hashes = (0..2).map(|index| {
            let mut hasher = LeafHasher::new(SIZE as u64, index);
            hasher.update(Self::leaf_of(&bytes, index));
            hasher.finish()
        });
        Self {
            hashes: hashes.collect(),
            bytes,
        }
    }

    fn leaf_of(bytes: &[u8], index: u64) -> &[u8] {
        let start = index as usize * LEAF_LEN;
        &bytes[start..start + leaf_len(SIZE as u64, index).unwrap()]
    }

    fn header(&self, index: u64) -> LeafHeader {
        LeafHeader {
            transfer: transfer(1),
            index,
            hash: self.hashes[index as usize],
        }
    }

    fn digest(&self) -> FileDigest {
        common::hash::file_digest(SIZE as u64, &self.hashes).unwrap()
    }

    fn send_leaf(&self, world: &mut World, sender: &mut Outsider, index: u64) {
        let leaf = Self::leaf_of(&self.bytes, index);
        assert!(sender.send_leaf(world, &self.header(index), leaf));
    }
}

/// Carol offers Bob a file of two leaves, and he takes it.
fn accepted() -> (World, Outsider, File) {
    let mut world = World::new(&["alice", "bob"]);
    let mut carol = Outsider::dial(&mut world, 9, "carol", 1, &[VERSION]);
    carol.say(&mut world, &offer(1, SIZE as u64));
    world.accept(transfer(1));
    carol.pass(&mut world, Duration::from_millis(100));
    let accept = PeerFrame::File(FileFrame::Accept {
        transfer: transfer(1),
        have: Vec::new(),
    });
    assert_eq!(carol.heard, [accept]);
    (world, carol, File::new())
}

#[test]
fn t11_a_file_whose_leaves_come_once_and_in_any_order_is_done() {
    let (mut world, mut carol, file) = accepted();
    file.send_leaf(&mut world, &mut carol, 1);
    file.send_leaf(&mut world, &mut carol, 0);
    let sent = PeerFrame::File(FileFrame::Sent {
        transfer: transfer(1),
        digest: file.digest(),
    });
    carol.say(&mut world, &sent);
    let end = world.hosts[1].end_of(transfer(1));
    assert!(matches!(end, Some(TransferState::Done { .. })), "{end:?}");
    assert_eq!(world.hosts[1].target, file.bytes);
    let received = PeerFrame::File(FileFrame::Received {
        transfer: transfer(1),
    });
    assert!(carol.heard.contains(&received));
}

#[test]
fn t11_a_leaf_that_comes_twice_ends_the_link() {
    for again in [0, 1] {
        let (mut world, mut carol, file) = accepted();
        file.send_leaf(&mut world, &mut carol, again);
        assert_eq!(carol.lost, None);
        file.send_leaf(&mut world, &mut carol, again);
        let lost = carol.lost.expect("it is a breach of the protocol");
        assert!(lost.contains("broke the protocol"), "{lost}");
        let end = world.hosts[1].end_of(transfer(1));
        assert!(matches!(end, Some(TransferState::Failed { .. })), "{end:?}");
    }
}

#[test]
fn t11_an_announced_digest_that_differs_is_never_done() {
    // It comes before the last leaf, or after it.
    for is_early in [true, false] {
        let (mut world, mut carol, file) = accepted();
        let mut digest = file.digest();
        digest.0[0] ^= 1;
        let sent = PeerFrame::File(FileFrame::Sent {
            transfer: transfer(1),
            digest,
        });
        file.send_leaf(&mut world, &mut carol, 0);
        if is_early {
            carol.say(&mut world, &sent);
        }
        file.send_leaf(&mut world, &mut carol, 1);
        if !is_early {
            carol.say(&mut world, &sent);
        }
        let end = world.hosts[1].end_of(transfer(1));
        assert!(matches!(end, Some(TransferState::Failed { .. })), "{end:?}");
        let cancel = PeerFrame::File(FileFrame::Cancel {
            transfer: transfer(1),
            reason: CancelReason::Mismatch,
        });
        assert_eq!(carol.heard.last(), Some(&cancel));
        // The right one comes too late.
        let sent = PeerFrame::File(FileFrame::Sent {
            transfer: transfer(1),
            digest: file.digest(),
        });
        carol.say(&mut world, &sent);
        let end = world.hosts[1].end_of(transfer(1));
        assert!(matches!(end, Some(TransferState::Failed { .. })), "{end:?}");
    }
}

#[test]
fn t11_an_offer_too_many_is_declined_and_the_others_stay() {
    let mut world = World::new(&["alice", "bob"]);
    let mut carol = Outsider::dial(&mut world, 9, "carol", 1, &[VERSION]);
    let mut dave = Outsider::dial(&mut world, 10, "dave", 1, &[VERSION]);
    for n in 0..OFFERS_PER_ACCOUNT_MAX as u8 {
        carol.say(&mut world, &offer(n, 1));
    }
    assert!(carol.heard.is_empty());
    let declined = |n| {
        PeerFrame::File(FileFrame::Decline {
            transfer: transfer(n),
            reason: DeclineReason::LimitExceeded,
        })
    };
    carol.say(&mut world, &offer(100, 1));
    assert_eq!(carol.heard, [declined(100)]);
    let open = world.hosts[1].node.transfers.offers().len();
    assert_eq!(open, OFFERS_PER_ACCOUNT_MAX);
    // Somebody else's are not hers, and a taken id is refused whoever has it.
    dave.say(&mut world, &offer(101, 1));
    assert!(dave.heard.is_empty());
    dave.say(&mut world, &offer(0, 1));
    assert_eq!(dave.heard, [declined(0)]);
    // One that is answered makes room.
    let no = Command::AnswerOffer {
        transfer: transfer(0),
        folder: None,
    };
    world.command(1, no);
    carol.say(&mut world, &offer(102, 1));
    assert!(!carol.heard.contains(&declined(102)));
}

#[test]
fn t11_sizes_around_every_power_are_taken_as_they_are_and_lies_are_declined() {
    let declined = DeclineReason::LimitExceeded;
    for (size, is_offered) in [
        (0, true),
        ((1 << 31) - 1, true),
        (1 << 31, true),
        (1 << 32, true),
        ((1 << 32) + 1, true),
        (common::limits::FILE_LEN_MAX, true),
        (common::limits::FILE_LEN_MAX + 1, false),
        (i64::MAX as u64, false),
        (u64::MAX, false),
    ] {
        let mut world = World::new(&["alice", "bob"]);
        let mut carol = Outsider::dial(&mut world, 9, "carol", 1, &[VERSION]);
        carol.say(&mut world, &offer(1, size));
        let shown: Vec<u64> = world.hosts[1]
            .node
            .transfers
            .offers()
            .iter()
            .map(|offer| offer.size)
            .collect();
        if is_offered {
            assert_eq!((shown, carol.heard.len()), (vec![size], 0));
        } else {
            assert!(shown.is_empty());
            let reason = declined.clone();
            let transfer = transfer(1);
            assert_eq!(
                carol.heard,
                [PeerFrame::File(FileFrame::Decline { transfer, reason })]
            );
        }
    }
}
