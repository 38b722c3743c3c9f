use super::*;
use common::key::DeviceSecret;
use common::log::RunId;

/// Devices by their seniority, the most senior one first; the last one may cut nothing.
struct Devices {
    keys: Vec<DeviceKey>,
    revoked: Option<usize>,
}

impl Standing for Devices {
    fn is_approved(&self, device: &DeviceKey) -> bool {
        self.revoked
            .is_none_or(|revoked| self.keys[revoked] != *device)
    }

    fn rank(&self, signer: &DeviceKey, target: &DeviceKey) -> Option<Rank> {
        let place = |device| self.keys.iter().position(|other| other == device);
        let (signer, target) = (place(signer)?, place(target)?);
        (signer < target).then_some(Rank(u32::try_from(signer).ok()?))
    }
}

fn devices() -> Devices {
    let keys = (1..=4).map(|n| DeviceSecret::from_seed([n; 32]).public());
    Devices {
        keys: keys.collect(),
        revoked: None,
    }
}

fn entry(device: usize, sequence: u64) -> EntryId {
    EntryId {
        chain: ChainId {
            device: devices().keys[device],
            run: RunId::from_bytes([9; 16]),
        },
        sequence: Sequence::new(sequence).unwrap(),
    }
}

/// A cut: signer and its sequence, which is its clock, too; target and its last one.
type Said = ((usize, u64), (usize, u64));

/// Where chains end after these cuts.
fn decided(cuts: &[Said]) -> Vec<Option<u64>> {
    decided_without(None, cuts)
}

/// The same where one device is not approved any more.
fn decided_without(revoked: Option<usize>, cuts: &[Said]) -> Vec<Option<u64>> {
    let standing = Devices {
        revoked,
        ..devices()
    };
    let mut all = Cuts::new();
    for ((signer, sequence), (target, last)) in cuts {
        let by = entry(*signer, *sequence);
        all.note(
            by,
            Clock::from_bits(*sequence),
            entry(*target, *last),
            &standing,
        );
    }
    all.decide(&standing, |_| true);
    let last = |device| all.last(&entry(device, 1).chain).map(Sequence::number);
    (0..4).map(last).collect()
}

#[test]
fn the_most_senior_signer_counts_and_of_one_signer_the_last() {
    assert_eq!(decided(&[((1, 1), (2, 5))]), [None, None, Some(5), None]);
    let last = [((1, 3), (2, 9)), ((1, 1), (2, 5)), ((1, 2), (2, 7))];
    assert_eq!(decided(&last)[2], Some(9));
    let senior = [((1, 3), (2, 9)), ((0, 1), (2, 4))];
    assert_eq!(decided(&senior)[2], Some(4));
    let junior = [((2, 1), (1, 5)), ((1, 1), (1, 5))];
    assert_eq!(decided(&junior), [None; 4], "neither may say so");
}

#[test]
fn a_cut_that_is_cut_itself_does_not_count() {
    let void = [((1, 3), (2, 9)), ((0, 1), (1, 2))];
    assert_eq!(decided(&void), [None, Some(2), None, None]);
    let below = [((1, 2), (2, 9)), ((0, 1), (1, 2))];
    assert_eq!(decided(&below), [None, Some(2), Some(9), None]);
    // Its signer's one before that counts then.
    let before = [((1, 3), (2, 9)), ((1, 1), (2, 7)), ((0, 1), (1, 2))];
    assert_eq!(decided(&before)[2], Some(7));
}

#[test]
fn t47_what_a_revoked_device_has_cut_counts_if_that_was_before() {
    let cut = ((1, 3), (2, 9));
    assert_eq!(decided_without(Some(1), &[cut]), [None; 4]);
    let before = decided_without(Some(1), &[cut, ((0, 1), (1, 3))]);
    assert_eq!(before, [None, Some(3), Some(9), None]);
    let after = decided_without(Some(1), &[cut, ((0, 1), (1, 2))]);
    assert_eq!(after, [None, Some(2), None, None]);
}

#[test]
fn cuts_that_come_in_any_order_mean_the_same() {
    let cuts = [
        ((0, 1), (1, 2)),
        ((1, 3), (2, 9)),
        ((1, 1), (2, 7)),
        ((2, 5), (3, 1)),
        ((2, 8), (3, 4)),
        ((1, 2), (3, 6)),
    ];
    let expected = decided(&cuts);
    assert_eq!(expected, [None, Some(2), Some(7), Some(6)]);
    for turn in 0..cuts.len() {
        let mut turned = cuts;
        turned.rotate_left(turn);
        assert_eq!(decided(&turned), expected);
        turned.reverse();
        assert_eq!(decided(&turned), expected);
    }
}

#[test]
fn what_is_remembered_is_bounded_and_the_same_in_any_order() {
    let said = (1..100).map(|n| ((1, n), (2, n)));
    let up: Vec<_> = said.clone().collect();
    let down: Vec<_> = said.rev().collect();
    assert_eq!(decided(&up), decided(&down));
    let mut cuts = Cuts::new();
    for n in 1..100 {
        let target = entry(2, n);
        cuts.note(entry(1, n), Clock::from_bits(n), target, &devices());
        cuts.note(entry(1, n), Clock::from_bits(n), target, &devices());
    }
    let kept: usize = cuts
        .said
        .values()
        .flat_map(|it| it.values())
        .map(Vec::len)
        .sum();
    assert_eq!(kept, CUTS_PER_SIGNER_MAX);
    // An entry that a sealed one has replaced says nothing any more.
    cuts.forget(entry(1, 1).chain, Sequence::new(98).unwrap());
    cuts.decide(&devices(), |_| true);
    let last = cuts.last(&entry(2, 1).chain);
    assert_eq!(last.map(Sequence::number), Some(97));
}

#[test]
fn t43_who_cuts_a_million_chains_keeps_nobody_from_cutting_one() {
    let standing = devices();
    let mut cuts = Cuts::new();
    let (by, mut target) = (entry(2, 1), entry(3, 1));
    for n in 0..=CUT_CHAINS_MAX as u128 {
        target.chain.run = RunId::from_bytes((n + (1 << 120)).to_be_bytes());
        cuts.note(by, Clock::default(), target, &standing);
    }
    let count = |cuts: &Cuts| cuts.said.values().map(BTreeMap::len).sum::<usize>();
    assert_eq!(count(&cuts), CUT_CHAINS_MAX);
    cuts.note(entry(1, 1), Clock::default(), entry(2, 5), &standing);
    cuts.decide(&standing, |_| true);
    assert_eq!(cuts.last(&entry(2, 1).chain), Sequence::new(5));
    assert_eq!(count(&cuts), CUT_CHAINS_MAX);
}
