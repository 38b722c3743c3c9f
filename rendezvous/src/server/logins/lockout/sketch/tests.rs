use super::*;

const TERMS: LaneTerms = LaneTerms {
    failures_max: 5,
    block_first: Duration::from_secs(60),
};

fn hash(number: u32) -> NameHash {
    let name = format!("nobody{number}").parse().unwrap();
    super::hash(&name, &BucketKey([3; 32]))
}

#[expect(clippy::disallowed_methods, reason = "any instant will do as a start")]
fn sketch() -> (Sketch, Instant) {
    let now = Instant::now();
    (Sketch::new(now), now)
}

/// How many of 100,000 names that did nothing seem to have failed at least `count` times.
fn suspects(sketch: &Sketch, count: u32, now: Instant) -> usize {
    let innocents = (0..100_000).map(|number| hash(50_000_000 + number));
    innocents
        .filter(|name| sketch.tally(*name, now).count() >= count)
        .count()
}

#[test]
fn a_name_alone_is_counted_exactly_and_forgotten_after_a_quiet_day() {
    let (mut sketch, start) = sketch();
    let mut now = start;
    for count in 1..=7 {
        now += Duration::from_secs(3600);
        assert_eq!(sketch.add(hash(1), &TERMS, now).count(), count);
    }
    assert_eq!(sketch.tally(hash(2), now).count(), 0);
    let tally = sketch.tally(hash(1), now + Duration::from_secs(9));
    assert_eq!(
        sketch.age(tally, now + Duration::from_secs(9)),
        Duration::from_secs(9)
    );
    let almost = now + BLOCK_RESET_AFTER - Duration::from_millis(1);
    assert_eq!(sketch.tally(hash(1), almost).count(), 7);
    assert_eq!(sketch.tally(hash(1), now + BLOCK_RESET_AFTER).count(), 0);
    assert_eq!(
        sketch.add(hash(1), &TERMS, now + BLOCK_RESET_AFTER).count(),
        1
    );
}

#[test]
fn t38_a_million_names_block_no_other() {
    let (mut sketch, now) = sketch();
    for number in 0..1_000_000 {
        sketch.add(hash(number), &TERMS, now);
    }
    let found = [1, 2, 3, 4, 5].map(|count| suspects(&sketch, count, now));
    println!("of 100,000 names that did nothing, at least 1 to 5 failures: {found:?}");
    assert!(
        found[0] > 0,
        "the sketch is not so large that this proves nothing"
    );
    assert!(
        found[1] < 10,
        "fewer than one in 10^4 seems to have failed twice"
    );
    assert_eq!(found[4], 0, "none is blocked");
}

#[test]
fn t38_thirty_thousand_blocked_names_block_no_other() {
    let (mut sketch, now) = sketch();
    // As many as fail five times within a first block on a server that takes 2,500 log-ins a second.
    for number in 0..30_000 {
        for _ in 0..5 {
            sketch.add(hash(number), &TERMS, now);
        }
    }
    let found = suspects(&sketch, 1, now);
    println!("of 100,000 names that did nothing, seem to have failed: {found}");
    assert!(found < 10);
}

#[test]
fn what_others_did_never_makes_a_name_seem_better() {
    let (mut sketch, now) = sketch();
    let names = 0..200_000;
    for number in names.clone() {
        for _ in 0..number % 4 {
            sketch.add(hash(number), &TERMS, now);
        }
    }
    for number in names {
        assert!(sketch.tally(hash(number), now).count() >= number % 4);
    }
}

#[test]
fn what_was_kept_counts_again() {
    let (mut sketch, now) = sketch();
    sketch.restore(hash(1), 7, Duration::from_secs(3600), now);
    let tally = sketch.tally(hash(1), now);
    assert_eq!(
        (tally.count(), sketch.age(tally, now)),
        (7, Duration::from_secs(3600))
    );
    sketch.restore(hash(2), 7, BLOCK_RESET_AFTER, now);
    sketch.restore(hash(3), 7, Duration::MAX, now);
    assert_eq!(sketch.tally(hash(2), now).count(), 0);
    assert_eq!(sketch.tally(hash(3), now).count(), 0);
}

#[test]
fn counts_do_not_grow_for_ever() {
    let largest = LaneTerms {
        failures_max: common::limits::FAILURE_LIMIT_MAX,
        ..TERMS
    };
    for terms in [TERMS, largest] {
        let mut count = 0;
        for _ in 0..100_000 {
            let next = terms.next(count);
            assert_eq!(next % terms.failures_max, (count + 1) % terms.failures_max);
            count = next;
        }
        assert!(count / terms.failures_max <= LaneTerms::BLOCKS_TOLD_APART);
        assert!(u64::from(count) < 1 << (64 - MOMENT_BITS));
        assert_eq!(
            terms.span(LaneTerms::BLOCKS_TOLD_APART),
            common::limits::BLOCK_MAX
        );
    }
}

#[test]
fn a_name_that_is_forgotten_counts_from_the_start_and_next_to_no_other_does() {
    let (mut sketch, now) = sketch();
    for number in 0..1000 {
        for _ in 0..5 {
            sketch.add(hash(number), &TERMS, now);
        }
    }
    sketch.forget(hash(1), now);
    assert_eq!(sketch.tally(hash(1), now).count(), 0);
    let others = (0..1000).filter(|number| sketch.tally(hash(*number), now).count() >= 5);
    assert_eq!(others.count(), 999);
    for count in 1..=3 {
        assert_eq!(sketch.add(hash(1), &TERMS, now).count(), count);
    }
}
