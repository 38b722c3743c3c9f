use super::*;

const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = BLOCK_RESET_AFTER;

struct Bench {
    lockouts: Lockouts,
    now: Instant,
}

#[expect(clippy::disallowed_methods, reason = "any instant will do as a start")]
fn bench() -> Bench {
    // Far enough from the system's start that yesterday exists.
    let now = Instant::now() + 10 * DAY;
    let lockouts = restored(Vec::new(), now, 1_000_000_000_000);
    Bench { lockouts, now }
}

fn restored(rows: Vec<LockoutRow>, now: Instant, wall_ms: u64) -> Lockouts {
    let epoch = Epoch::new(now, UnixTime::from_millis(wall_ms));
    let options = LockoutOptions::default();
    Lockouts::new(options, BucketKey([7; 32]), epoch, rows, now)
}

fn source(number: u32) -> SourcePrefix {
    SourcePrefix::of(std::net::Ipv4Addr::from(0x0a00_0000 + number).into())
}

fn name(text: &str) -> AccountName {
    text.parse().unwrap()
}

fn alice() -> Subject {
    Subject::Account(name("alice"))
}

impl Bench {
    fn try_as(&mut self, lane: Lane, from: u32) -> Result<Started, Duration> {
        let source = source(from);
        self.lockouts.begin(alice(), lane, source, false, self.now)
    }

    fn fail(&mut self, from: u32) -> LockoutRow {
        let started = self.try_as(Lane::Stranger, from).unwrap();
        self.lockouts.fail(started.counted);
        started.row
    }

    fn wait(&mut self, from: u32) -> Duration {
        match self.try_as(Lane::Stranger, from) {
            Ok(started) => {
                let _ = self.lockouts.succeed(&started.counted, self.now);
                Duration::ZERO
            }
            Err(wait) => wait,
        }
    }
}

#[test]
fn t38_five_failures_of_any_sources_block_strangers_and_only_them() {
    let mut bench = bench();
    for from in 0..4 {
        bench.fail(from);
        assert!(bench.wait(9).is_zero());
    }
    let fifth = bench.try_as(Lane::Stranger, 4).unwrap();
    assert!(fifth.is_blocked_now);
    assert_eq!(bench.try_as(Lane::Stranger, 77).unwrap_err(), BLOCK_FIRST);
    assert!(bench.try_as(Lane::KnownDevice, 0).is_ok(), "the owner");
    let bob = Subject::Account(name("bob"));
    let elsewhere = bench
        .lockouts
        .begin(bob, Lane::Stranger, source(0), false, bench.now);
    assert!(elsewhere.is_ok(), "another account");
}

#[test]
fn t38_attempts_while_blocked_neither_extend_nor_count() {
    let mut bench = bench();
    for _ in 0..5 {
        bench.fail(1);
    }
    bench.now += MINUTE / 2;
    for _ in 0..1000 {
        assert_eq!(bench.try_as(Lane::Stranger, 1).unwrap_err(), MINUTE / 2);
    }
    bench.now += MINUTE / 2;
    for _ in 0..4 {
        assert!(!bench.try_as(Lane::Stranger, 1).unwrap().is_blocked_now);
    }
}

#[test]
fn t38_blocks_double_up_to_an_hour_and_a_quiet_day_forgets_them() {
    let mut bench = bench();
    let mut spans = Vec::new();
    for _ in 0..9 {
        for _ in 0..5 {
            bench.fail(1);
        }
        let span = bench.try_as(Lane::Stranger, 1).unwrap_err();
        spans.push(span.as_secs());
        bench.now += span.max(BLOCK_MAX);
    }
    assert_eq!(spans, [60, 120, 240, 480, 960, 1920, 3600, 3600, 3600]);
    bench.now += DAY;
    for _ in 0..5 {
        bench.fail(1);
    }
    assert_eq!(bench.try_as(Lane::Stranger, 1).unwrap_err(), BLOCK_FIRST);
}

#[test]
fn t38_a_success_takes_back_only_what_its_own_source_added() {
    let mut bench = bench();
    for from in [1, 1, 2, 2] {
        bench.fail(from);
    }
    let owner = bench.try_as(Lane::Stranger, 2).unwrap();
    assert!(owner.is_blocked_now, "it might have been the fifth failure");
    let row = bench.lockouts.succeed(&owner.counted, bench.now);
    assert_eq!(row.strangers.failures, [(source(1), 2)]);
    assert_eq!(row.strangers.blocks, 0, "the block never was");
    for _ in 0..2 {
        assert!(bench.wait(3).is_zero());
        bench.fail(1);
    }
    bench.fail(1);
    assert_eq!(bench.wait(3), BLOCK_FIRST, "2 + 3 of source 1");
}

#[test]
fn t38_a_success_does_not_end_a_block_that_others_earned() {
    let mut bench = bench();
    let early = bench.try_as(Lane::Stranger, 2).unwrap();
    for _ in 0..4 {
        bench.fail(1);
    }
    let late = bench
        .lockouts
        .begin(alice(), Lane::Stranger, source(3), true, bench.now);
    bench.lockouts.fail(late.unwrap().counted);
    let _ = bench.lockouts.succeed(&early.counted, bench.now);
    assert_eq!(
        bench.wait(2),
        BLOCK_FIRST,
        "4 of source 1 and 1 of source 3"
    );
}

#[test]
fn t38_attempts_at_once_are_never_more_than_the_limit() {
    let mut bench = bench();
    let started: Vec<_> = (0..50)
        .filter_map(|from| bench.try_as(Lane::Stranger, from).ok())
        .collect();
    assert_eq!(started.len(), STRANGER_FAILURES_MAX as usize);
}

#[test]
fn the_known_lane_has_a_limit_of_its_own_that_its_own_success_clears() {
    let mut bench = bench();
    for _ in 0..5 {
        bench.fail(1);
    }
    for _ in 0..KNOWN_DEVICE_FAILURES_MAX - 1 {
        let _ = bench.try_as(Lane::KnownDevice, 1).unwrap();
    }
    let owner = bench.try_as(Lane::KnownDevice, 1).unwrap();
    assert!(owner.is_blocked_now);
    let _ = bench.lockouts.succeed(&owner.counted, bench.now);
    for from in 0..KNOWN_DEVICE_FAILURES_MAX {
        let _ = bench.try_as(Lane::KnownDevice, from).unwrap();
    }
    assert!(bench.try_as(Lane::KnownDevice, 1).is_err());
    assert_eq!(bench.wait(1), BLOCK_FIRST, "strangers are still blocked");
}

#[test]
fn a_code_goes_past_the_block_once_and_still_counts() {
    let mut bench = bench();
    for _ in 0..5 {
        bench.fail(1);
    }
    let admitted = bench
        .lockouts
        .begin(alice(), Lane::Stranger, source(2), true, bench.now)
        .unwrap();
    assert!(
        !admitted.is_blocked_now,
        "a block that runs is not extended"
    );
    bench.lockouts.fail(admitted.counted);
    let (failed, _) = bench
        .lockouts
        .take_unreported(&name("alice"), bench.now)
        .unwrap();
    assert_eq!((failed.count, failed.blocked_for_s), (6, 60));
}

#[test]
fn the_owner_is_told_when_others_failed_and_not_when_the_owner_came() {
    let mut bench = bench();
    let failed_at = bench.lockouts.epoch.unix(bench.now);
    bench.fail(1);
    bench.now += Duration::from_secs(13);
    let own = bench.try_as(Lane::Stranger, 2).unwrap();
    let begun_at = bench.lockouts.epoch.unix(bench.now);
    assert_eq!(
        own.row.last_unreported, begun_at,
        "in case the server stops"
    );
    let row = bench.lockouts.succeed(&own.counted, bench.now);
    assert_eq!(row.last_unreported, failed_at);
    let (failed, _) = bench
        .lockouts
        .take_unreported(&name("alice"), bench.now)
        .unwrap();
    assert_eq!((failed.count, failed.last), (1, failed_at));
}

#[test]
fn the_owner_hears_of_a_block_with_the_failure_that_began_it() {
    let mut bench = bench();
    for _ in 0..4 {
        bench.fail(1);
    }
    let fifth = bench.try_as(Lane::Stranger, 1).unwrap();
    assert!(fifth.is_blocked_now);
    let told = |bench: &mut Bench| {
        let told = bench.lockouts.take_unreported(&name("alice"), bench.now);
        told.map(|(failed, _)| (failed.count, failed.blocked_for_s))
    };
    assert_eq!(told(&mut bench), None, "the fifth may be the owner's");
    bench.lockouts.fail(fifth.counted);
    assert_eq!(told(&mut bench), Some((5, 60)));
}

#[test]
fn t38_restart_keeps_counts_blocks_doubling_and_what_is_to_be_told() {
    let mut bench = bench();
    let mut row = LockoutRow::empty(alice());
    for _ in 0..5 {
        row = bench.fail(1);
    }
    assert_eq!(row.unreported, 5);
    // Ten seconds pass while the server is down, on another machine's monotonic clock.
    let later = bench.now + 5 * DAY;
    let mut again = restored(vec![row.clone()], later, 1_000_000_010_000);
    let wait = |lockouts: &mut Lockouts, now| {
        let begun = lockouts.begin(alice(), Lane::Stranger, source(9), false, now);
        begun.map_or_else(|wait| wait, |_| Duration::ZERO)
    };
    assert_eq!(wait(&mut again, later), Duration::from_secs(50));
    let (failed, told) = again.take_unreported(&name("alice"), later).unwrap();
    assert_eq!((failed.count, told.unreported), (5, 0));
    assert_eq!(
        again.take_unreported(&name("alice"), later),
        None,
        "told once"
    );
    let over = later + MINUTE;
    for _ in 0..5 {
        assert!(wait(&mut again, over).is_zero());
    }
    assert_eq!(wait(&mut again, over), 2 * BLOCK_FIRST);

    // T25: a clock that was set back, or forward, while it was down.
    let mut back = restored(vec![row.clone()], later, 5);
    assert_eq!(wait(&mut back, later), BLOCK_MAX);
    let mut forward = restored(vec![row], later, u64::MAX);
    assert!(wait(&mut forward, later).is_zero());
}

#[test]
fn an_attempt_that_nobody_saw_the_end_of_counts_after_a_restart() {
    let mut bench = bench();
    let pending = bench.try_as(Lane::Stranger, 1).unwrap();
    assert_eq!(pending.row.unreported, 1);
    assert_eq!(pending.row.strangers.failures, [(source(1), 1)]);
    assert_eq!(
        bench.lockouts.take_unreported(&name("alice"), bench.now),
        None
    );
    let row = bench.lockouts.succeed(&pending.counted, bench.now);
    assert!(row.is_empty(), "{row:?}");
    assert!(bench.lockouts.is_empty());
}

#[test]
fn t38_breadth_bounds_one_source_over_all_names_and_fades() {
    let mut bench = bench();
    let begin = |bench: &mut Bench, number: u32, from: u32| {
        let subject = Subject::Account(name(&format!("user{number}")));
        let (source, now) = (source(from), bench.now);
        bench
            .lockouts
            .begin(subject, Lane::Stranger, source, false, now)
    };
    for number in 0..SOURCE_FAILURES_MAX {
        let _ = begin(&mut bench, number, 1).unwrap();
    }
    assert_eq!(
        begin(&mut bench, 900, 1).unwrap_err(),
        SOURCE_DECAY_INTERVAL
    );
    assert!(begin(&mut bench, 900, 2).is_ok(), "another source");
    assert!(bench.try_as(Lane::KnownDevice, 1).is_ok(), "an owner there");
    bench.now += SOURCE_DECAY_INTERVAL;
    let one = begin(&mut bench, 901, 1).unwrap();
    assert!(begin(&mut bench, 902, 1).is_err());
    let _ = bench.lockouts.succeed(&one.counted, bench.now);
    assert!(begin(&mut bench, 902, 1).is_ok(), "its own start only");
    assert!(begin(&mut bench, 903, 1).is_err());
}

#[test]
fn t38_a_million_unknown_names_fit_and_displace_no_account() {
    let mut bench = bench();
    for _ in 0..4 {
        bench.fail(1);
    }
    let _ = bench.lockouts.sweep(9, bench.now);
    for number in 0..1_000_000u32 {
        let subject = bench.lockouts.unknown(&name(&format!("nobody{number}")));
        // From ever new sources, so that breadth does not stop it.
        let from = source(number + 100);
        let begun = bench
            .lockouts
            .begin(subject, Lane::Stranger, from, false, bench.now);
        assert!(begun.is_ok(), "nobody{number}");
    }
    assert_eq!(bench.lockouts.len(), 1);
    assert!(bench.lockouts.source_buckets.empty_at.len() <= SOURCES_MAX);
    bench.fail(1);
    assert_eq!(bench.wait(1), BLOCK_FIRST, "the fifth");
}

#[test]
fn t38_a_flood_of_names_does_not_tell_free_names_from_accounts() {
    let mut bench = bench();
    let begin = |bench: &mut Bench, subject: Subject, from: u32| {
        bench.now += Duration::from_micros(400);
        let (source, now) = (source(from), bench.now);
        let begun = bench
            .lockouts
            .begin(subject, Lane::Stranger, source, false, now);
        begun.map(|started| started.is_blocked_now)
    };
    // 45 failures from each of 4,445 sources, each with a name of its own.
    for number in 0..200_000u32 {
        let subject = bench.lockouts.unknown(&name(&format!("flood{number}")));
        assert_eq!(begin(&mut bench, subject, number % 4445), Ok(false));
    }
    // How many of 10,000 names each are blocked by their first, .. fifth failure, or before it.
    let mut blocked = [[0; 5]; 2];
    for number in 0..10_000u32 {
        let text = format!("tried{number}");
        let subjects = [
            Subject::Account(name(&text)),
            bench.lockouts.unknown(&name(&text)),
        ];
        for (blocked, subject) in blocked.iter_mut().zip(subjects) {
            for (attempt, blocked) in blocked.iter_mut().enumerate() {
                let from = 5000 + 10 * number + attempt as u32;
                if begin(&mut bench, subject.clone(), from) != Ok(false) {
                    *blocked += 1;
                    break;
                }
            }
        }
    }
    println!("blocked at the 1st to 5th failure, of 10,000 accounts and names: {blocked:?}");
    let [accounts, names] = blocked;
    assert_eq!(accounts, [0, 0, 0, 0, 10_000]);
    assert_eq!(names[..3], [0, 0, 0]);
    // Such a name was taken for one that had failed once. The flood costs 200,000 log-ins.
    assert!(names[3] < 20, "{names:?}");
}

/// Goes through the same random life with an account and with a name that has none.
#[test]
fn t38_names_without_an_account_are_counted_like_those_with_one() {
    use rand::{RngExt, SeedableRng};
    for seed in 0..8 {
        let mut rng = rand::rngs::StdRng::from_seed([seed; 32]);
        let start = bench().now;
        let mut wall_ms = 1_000_000_000_000;
        let (mut now, mut born) = (start, start);
        let options = LockoutOptions {
            stranger_failures_max: rng.random_range(1..=6),
            ..LockoutOptions::default()
        };
        let new = |rows, now, wall_ms| {
            let epoch = Epoch::new(now, UnixTime::from_millis(wall_ms));
            Lockouts::new(options, BucketKey([7; 32]), epoch, rows, now)
        };
        let mut lockouts = new(Vec::new(), now, wall_ms);
        let subjects = [alice(), lockouts.unknown(&name("nobody"))];
        let mut rows = subjects.clone().map(LockoutRow::empty);
        for step in 0..400 {
            let span = match rng.random_range(0..10) {
                0 => DAY * rng.random_range(0..=2),
                1..4 => MINUTE * rng.random_range(0..=60),
                _ => Duration::from_micros(rng.random_range(0..40_000_000)),
            };
            now += span;
            let from = source(1000 * step + rng.random_range(0..3));
            let met = subjects.clone().map(|subject| {
                let begun = lockouts.begin(subject, Lane::Stranger, from, false, now);
                // SourceBuckets is another matter: this source is at the door for the first time.
                lockouts.source_buckets = SourceBuckets::default();
                begun.map(|started| {
                    lockouts.fail(started.counted);
                    (started.row, started.is_blocked_now)
                })
            });
            let [account, unknown] = met;
            assert_eq!(
                account.as_ref().map(|(_, blocks)| *blocks),
                unknown.as_ref().map(|(_, blocks)| *blocks),
                "seed {seed}, step {step}"
            );
            if let (Ok((account, _)), Ok((unknown, _))) = (account, unknown) {
                assert_eq!(account.strangers.blocks, unknown.strangers.blocks);
                assert_eq!(
                    account.strangers.blocked_until,
                    unknown.strangers.blocked_until
                );
                rows = [account, unknown];
            }
            if rng.random_range(0..20) == 0 {
                let lived = now.saturating_duration_since(born);
                wall_ms += u64::try_from(lived.as_millis()).unwrap();
                born = now;
                lockouts = new(rows.to_vec(), now, wall_ms);
            }
        }
    }
}

#[test]
fn unknown_names_keep_their_counter_over_a_restart_and_hide_it() {
    let bench = bench();
    let again = restored(Vec::new(), bench.now, 1);
    let nobody = name("nobody");
    assert_eq!(bench.lockouts.unknown(&nobody), again.unknown(&nobody));
    let other_key = Lockouts::new(
        LockoutOptions::default(),
        BucketKey([8; 32]),
        again.epoch,
        Vec::new(),
        bench.now,
    );
    assert_ne!(bench.lockouts.unknown(&nobody), other_key.unknown(&nobody));
}

#[test]
fn the_source_with_the_fewest_failures_makes_room() {
    let mut breadth = SourceBuckets::default();
    let now = bench().now;
    for _ in 0..10 {
        breadth.add(source(0), now);
    }
    for number in 1..=SOURCES_MAX as u32 {
        breadth.add(source(number), now);
    }
    assert_eq!(breadth.empty_at.len(), SOURCES_MAX);
    assert_eq!(breadth.order.len(), SOURCES_MAX);
    assert_eq!(
        breadth.empty_at[&source(0)],
        now + 10 * SOURCE_DECAY_INTERVAL
    );
    breadth.sweep(now + SOURCE_DECAY_INTERVAL);
    assert_eq!(breadth.empty_at.len(), 1);
}

#[test]
fn more_sources_than_are_told_apart_share_a_counter() {
    let mut counter = Counter::default();
    let now = bench().now;
    let terms = LaneTerms {
        failures_max: 1000,
        block_first: BLOCK_FIRST,
    };
    for number in 0..200 {
        counter.add(source(number), &terms, now);
    }
    assert_eq!(counter.failures.len(), SOURCES_PER_ACCOUNT_MAX + 1);
    assert_eq!(counter.sum(), 200);
    counter.forgive(source(199), 1000, now);
    assert_eq!(counter.sum(), 199);
}

#[test]
fn what_has_faded_is_dropped_and_what_is_to_be_told_is_not() {
    let mut bench = bench();
    bench.fail(1);
    let known = bench.try_as(Lane::KnownDevice, 1).unwrap();
    bench.lockouts.fail(known.counted);
    bench.now += DAY;
    assert!(bench.lockouts.sweep(9, bench.now).is_empty());
    let (failed, _) = bench
        .lockouts
        .take_unreported(&name("alice"), bench.now)
        .unwrap();
    assert_eq!(failed.count, 1);
    let dropped = bench.lockouts.sweep(9, bench.now);
    assert_eq!(dropped, [LockoutRow::empty(alice())]);
    assert!(bench.lockouts.is_empty());
}

#[test]
fn unblocking_forgets_everything() {
    let mut bench = bench();
    for _ in 0..5 {
        bench.fail(1);
    }
    assert_eq!(
        bench.lockouts.blocked_for(&name("alice"), bench.now),
        BLOCK_FIRST
    );
    let forgotten = bench.lockouts.unblock(&alice(), bench.now);
    assert_eq!(
        (forgotten.blocked_for, forgotten.failures),
        (BLOCK_FIRST, 5)
    );
    for _ in 0..4 {
        assert!(!bench.try_as(Lane::Stranger, 1).unwrap().is_blocked_now);
    }
}

#[test]
fn whoever_waits_as_long_as_told_is_not_early() {
    assert_eq!(seconds(Duration::from_millis(1)), 1);
    assert_eq!(seconds(Duration::from_secs(60)), 60);
    assert_eq!(seconds(Duration::from_millis(60_001)), 61);
    assert_eq!(seconds(Duration::MAX), u32::MAX);
}
