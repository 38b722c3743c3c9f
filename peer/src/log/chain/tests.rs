use super::*;

fn at(number: u64) -> Sequence {
    Sequence::new(number).unwrap()
}

/// The hash of the entry at a place, on one of several branches; `NONE` before the first.
fn hash(place: u64, branch: u8) -> HeaderHash {
    match place {
        0 => HeaderHash::NONE,
        _ => HeaderHash::from_bytes([branch; 32].map(|byte: u8| byte.wrapping_add(place as u8))),
    }
}

fn unsealed(place: u64) -> Unsealed {
    let tip = Tip {
        sequence: at(place),
        hash: hash(place, 0),
        clock: Clock::from_bits(place),
        placed: Clock::from_bits(place),
    };
    Unsealed { tip, cost: 45 }
}

/// Sealed up to 5, and 6 and 7 without a seal.
fn chain() -> Chain {
    let mut chain = Chain::starting_at(Sequence::FIRST, HeaderHash::NONE);
    let entries: Vec<Unsealed> = (1..=7).map(unsealed).collect();
    chain.follow(None, &entries);
    chain.confirm(at(5), None);
    chain
}

/// Relates headers from one place to another, which turn to another branch at `turn`.
fn relate(first: u64, last: u64, turn: u64, is_genuine: bool) -> Result<Relation, Refusal> {
    let branch = |place| u8::from(place >= turn) * 100;
    let hashes: Vec<HeaderHash> = (first..=last)
        .map(|place| hash(place, branch(place)))
        .collect();
    chain().relate(&Offered {
        first: at(first),
        previous: hash(first - 1, branch(first - 1)),
        hashes: &hashes,
        is_genuine,
    })
}

const NEVER: u64 = 99;

#[test]
fn what_comes_next_is_taken_and_what_is_known_is_left_out() {
    let follow = |known| {
        Ok(Relation::Follow {
            known,
            replaces: None,
        })
    };
    assert_eq!(relate(8, 9, NEVER, false), follow(0));
    assert_eq!(relate(8, 9, NEVER, true), follow(0));
    assert_eq!(relate(6, 8, NEVER, false), follow(2));
    assert_eq!(relate(1, 8, NEVER, true), follow(7));
    assert_eq!(relate(6, 7, NEVER, false), Err(Refusal::Known));
    assert_eq!(relate(3, 5, NEVER, true), Err(Refusal::Known));
    assert_eq!(relate(9, 9, NEVER, true), Err(Refusal::NotNext));
    // A seal for what came without one.
    assert_eq!(relate(6, 6, NEVER, true), follow(1));
    assert_eq!(relate(4, 7, NEVER, true), follow(4));
}

#[test]
fn t41_of_two_headers_the_sealed_one_wins_and_two_sealed_ones_are_a_fork() {
    let replaces = |known, from| {
        Ok(Relation::Follow {
            known,
            replaces: Some(at(from)),
        })
    };
    assert_eq!(relate(6, 6, 6, true), replaces(0, 6));
    assert_eq!(relate(6, 9, 7, true), replaces(1, 7));
    assert_eq!(relate(5, 7, 7, true), replaces(2, 7));
    assert_eq!(relate(6, 9, 7, false), Err(Refusal::Contradicts));
    // They follow an unsealed one that is not here.
    assert_eq!(relate(7, 9, 6, true), Err(Refusal::NotNext));
    assert_eq!(relate(8, 9, 7, true), Err(Refusal::NotNext));
    let fork = Err(Refusal::Diverged { at: at(5) });
    for first in [2, 5, 6] {
        assert_eq!(relate(first, 8, 2, true), fork);
        assert_eq!(relate(first, 8, 2, false), Err(Refusal::Contradicts));
    }
}

#[test]
fn what_comes_before_the_first_entry_is_taken_if_that_names_it() {
    let mut chain = chain();
    chain.precede(at(4), hash(3, 0), Clock::default());
    let relate = |first: u64, last: u64, branch| {
        let hashes: Vec<HeaderHash> = (first..=last).map(|place| hash(place, branch)).collect();
        chain.relate(&Offered {
            first: at(first),
            previous: hash(first - 1, branch),
            hashes: &hashes,
            is_genuine: false,
        })
    };
    assert_eq!(relate(2, 3, 0), Ok(Relation::Precede));
    assert_eq!(relate(2, 3, 100), Err(Refusal::Contradicts));
    assert_eq!(relate(1, 2, 0), Err(Refusal::NotNext));
}

#[test]
fn entries_without_a_seal_are_bounded_in_number_and_size() {
    let chain = chain();
    let check =
        |is_genuine, count, cost| chain.check_run(at(500), is_genuine, None, &vec![cost; count]);
    // Two are there already.
    assert_eq!(check(true, ENTRIES_PER_SEAL_MAX - 2, 45), Ok(()));
    let too_far = Err(Refusal::TooFarFromSeal);
    assert_eq!(check(true, ENTRIES_PER_SEAL_MAX - 1, 45), too_far);
    assert_eq!(check(false, UNSEALED_ENTRIES_MAX - 2, 45), Ok(()));
    assert_eq!(check(false, UNSEALED_ENTRIES_MAX - 1, 45), too_far);
    assert_eq!(check(true, 1, PAGE_LEN_MAX - 90), Ok(()));
    assert_eq!(check(true, 1, PAGE_LEN_MAX - 89), too_far);
    assert_eq!(check(false, 2, PAGE_LEN_MAX), too_far);
    // Those that are replaced do not count, nor those after the seal.
    let costs = vec![45; ENTRIES_PER_SEAL_MAX];
    assert_eq!(chain.check_run(at(69), true, Some(at(6)), &costs), Ok(()));
    assert_eq!(chain.check_run(at(6), true, None, &costs[1..]), Ok(()));
}
