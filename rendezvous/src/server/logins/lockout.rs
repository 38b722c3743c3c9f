//! Account lock-out: how many password log-ins may fail, and for whom.
//!
//! An attempt counts as a failure when it starts and is taken back when it succeeds, so that even
//! simultaneous attempts never exceed the limit. Three things are counted:
//!
//! - **strangers**, for each account: the failures of all sources together. At the limit the account
//!   is blocked for strangers, longer each time. A success takes back only what its own source added;
//! - **known devices**, for each account: the failures of whoever holds the key of an enrolled device. A
//!   lane of its own, so that strangers cannot lock the owner out;
//! - **sources**: the failures of each over all accounts, in a leaky bucket, against password spraying.
//!
//! Names that no account has are counted in a `sketch` and behave exactly like accounts, so that an
//! answer never tells whether a name exists. They can never displace the counter of an account.
//!
//! All blocks begin and end at whole milliseconds after the engine's start, because the sketch keeps no
//! finer times.
//!
//! Does no I/O: time comes in, rows for the store go out. Decisions are made from memory alone; the rows
//! restore it after a restart.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::hint::black_box;
use std::time::{Duration, Instant};

use common::id::AccountName;
use common::limits::{
    BLOCK_FIRST, BLOCK_MAX, BLOCK_RESET_AFTER, FAILURE_LIMIT_MAX, KNOWN_DEVICE_FAILURES_MAX,
    Occupancy, SOURCE_DECAY_INTERVAL, SOURCE_FAILURES_MAX, SOURCES_MAX, SOURCES_PER_ACCOUNT_MAX,
    STRANGER_FAILURES_MAX,
};
use common::time::{Epoch, UnixTime};
use common::wire::rendezvous::FailedLogins;

use crate::source::SourcePrefix;
use crate::store::{LaneRow, LockoutRow, NameHash, Subject};
pub use sketch::BucketKey;
use sketch::{Sketch, Tally};
use terms::LaneTerms;

// The failures of names that no account has.
mod sketch;
// When a lane is blocked, and for how long.
mod terms;

/// The limits that an operator may choose.
#[derive(Clone, Copy, Debug)]
pub struct LockoutOptions {
    /// Failures after which strangers are blocked: 1 to [`FAILURE_LIMIT_MAX`].
    pub stranger_failures_max: u32,
    /// Failures after which known devices are blocked: 1 to [`FAILURE_LIMIT_MAX`].
    pub known_failures_max: u32,
    /// The first block; each further one lasts twice as long.
    pub block_first: Duration,
}

impl Default for LockoutOptions {
    fn default() -> Self {
        Self {
            stranger_failures_max: STRANGER_FAILURES_MAX,
            known_failures_max: KNOWN_DEVICE_FAILURES_MAX,
            block_first: BLOCK_FIRST,
        }
    }
}

/// The counter of an account that an attempt belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lane {
    /// The attempt has not proved the key of an enrolled device.
    Stranger,
    /// The attempt has proved one: it is by the owner, or by whoever stole a device.
    KnownDevice,
}

impl fmt::Display for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Stranger => "stranger",
            Self::KnownDevice => "known-device",
        })
    }
}

/// An attempt that counts as a failure until it succeeds.
#[derive(Clone, Debug)]
#[must_use = "an attempt ends with `succeed` or `fail`"]
pub struct Counted {
    subject: Subject,
    lane: Lane,
    source: SourcePrefix,
    begun: UnixTime,
}

impl Counted {
    /// The account, or the name without an account, that it counts against.
    pub const fn subject(&self) -> &Subject {
        &self.subject
    }

    /// The counter of the subject that it is in.
    pub const fn lane(&self) -> Lane {
        self.lane
    }
}

/// How an account stands in one lane.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// Failures of each source since the last block ended.
    pub failures: BTreeMap<SourcePrefix, u32>,
    /// Blocks so far, with the present one. The next block is twice as long as the one before.
    pub blocks: u32,
    /// The time until the end of the present block; zero if there is none.
    pub blocked_for: Duration,
}

/// What [`Lockouts::unblock`] has forgotten.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Forgotten {
    /// What was left of the longest block.
    pub blocked_for: Duration,
    /// Failed log-ins, with those that led to earlier blocks.
    pub failures: u32,
}

/// The failures of accounts, of names without one, and of sources.
#[derive(Debug)]
pub struct Lockouts {
    options: LockoutOptions,
    epoch: Epoch,
    start: Instant,
    bucket_key: BucketKey,
    accounts: BTreeMap<AccountName, Lanes>,
    unknown: Sketch,
    source_buckets: SourceBuckets,
}

impl Lockouts {
    /// Restores what the store kept. No block lasts longer than [`BLOCK_MAX`] from now, whatever happened
    /// to the clock in between.
    pub fn new(
        options: LockoutOptions,
        bucket_key: BucketKey,
        epoch: Epoch,
        rows: Vec<LockoutRow>,
        now: Instant,
    ) -> Self {
        let within = |failures: u32| failures.clamp(1, FAILURE_LIMIT_MAX);
        let mut this = Self {
            options: LockoutOptions {
                stranger_failures_max: within(options.stranger_failures_max),
                known_failures_max: within(options.known_failures_max),
                ..options
            },
            epoch,
            start: now,
            bucket_key,
            accounts: BTreeMap::new(),
            unknown: Sketch::new(now),
            source_buckets: SourceBuckets::default(),
        };
        for row in rows {
            this.restore(row, now);
        }
        this
    }

    fn restore(&mut self, row: LockoutRow, now: Instant) {
        let wall = self.epoch.unix(now);
        match row.subject {
            Subject::Account(account) => {
                let lanes = Lanes {
                    strangers: Counter::restore(row.strangers, now, wall),
                    known: Counter::restore(row.known, now, wall),
                    unreported: row.unreported,
                    last_unreported: row.last_unreported,
                    last_begun: UnixTime::default(),
                    pending: 0,
                };
                self.accounts.insert(account, lanes);
            }
            Subject::Unknown(name) => {
                let LaneRow {
                    failures,
                    blocks,
                    blocked_until,
                    last_failure,
                } = row.strangers;
                let blocks = blocks.min(LaneTerms::BLOCKS_TOLD_APART);
                let failures_max = self.options.stranger_failures_max;
                // The failures that led to the last block are contained in the number of blocks.
                let since_block = if blocked_until == UnixTime::default() {
                    failures.iter().map(|(_, count)| *count).max().unwrap_or(0)
                } else {
                    0
                };
                let count = blocks * failures_max + since_block.min(failures_max - 1);
                let ago = wall.saturating_since(last_failure);
                self.unknown.restore(name, count, ago, now);
            }
        }
    }

    /// The subject of a name that no account has: its keyed hash. The name is looked for among the accounts,
    /// too, so that a refusal takes as long as for an account.
    pub fn unknown(&self, name: &AccountName) -> Subject {
        black_box(self.accounts.get(name));
        Subject::Unknown(sketch::hash(name, &self.bucket_key))
    }

    /// Counts an attempt that starts. One that is `admitted`, by a one-time code, passes every block.
    ///
    /// # Errors
    ///
    /// How long to wait, if the lane or the source is blocked. Then nothing is counted.
    pub fn begin(
        &mut self,
        subject: Subject,
        lane: Lane,
        source: SourcePrefix,
        admitted: bool,
        now: Instant,
    ) -> Result<Started, Duration> {
        let now = self.whole_ms(now);
        let source_wait = match lane {
            Lane::Stranger => self.source_buckets.wait(source, now),
            Lane::KnownDevice => Duration::ZERO,
        };
        let wait = self.remaining(&subject, lane, now).max(source_wait);
        if !admitted && !wait.is_zero() {
            return Err(wait);
        }
        let terms = self.terms(lane);
        let mut lanes = self.take(&subject, source, now);
        let counter = lanes.counter(lane);
        counter.fade(now);
        let is_blocked_now = counter.add(lane_source(lane, source), &terms, now);
        if lane == Lane::Stranger {
            lanes.pending += 1;
            lanes.last_begun = self.epoch.unix(now);
            self.source_buckets.add(source, now);
        }
        let row = lanes.row(subject.clone(), now, &self.epoch);
        self.put_back(&subject, lanes, now);
        let counted = Counted {
            subject,
            lane,
            source,
            begun: self.epoch.unix(now),
        };
        Ok(Started {
            counted,
            row,
            is_blocked_now,
        })
    }

    /// The time until a lane is no longer blocked. A name is looked for among the accounts and in the sketch,
    /// whichever it is in, so that the time tells neither from the other.
    fn remaining(&self, subject: &Subject, lane: Lane, now: Instant) -> Duration {
        match subject {
            Subject::Account(account) => {
                let hash = sketch::hash(account, &self.bucket_key);
                black_box(self.remaining_of_unknown(hash, now));
                let lanes = self.accounts.get(account);
                lanes.map_or(Duration::ZERO, |lanes| lanes.remaining(lane, now))
            }
            Subject::Unknown(name) => self.remaining_of_unknown(*name, now),
        }
    }

    fn remaining_of_unknown(&self, name: NameHash, now: Instant) -> Duration {
        let tally = self.unknown.tally(name, now);
        let age = self.unknown.age(tally, now);
        self.terms(Lane::Stranger).left(tally.count(), age)
    }

    /// Takes out the lanes of a subject, to be counted in and put back. A name without an account gets
    /// those of an account with as many failures, all of them from `source`: from here on both take the
    /// same steps, and as long.
    fn take(&mut self, subject: &Subject, source: SourcePrefix, now: Instant) -> Lanes {
        match subject {
            Subject::Account(account) => self.accounts.remove(account).unwrap_or_default(),
            Subject::Unknown(name) => {
                let tally = self.unknown.tally(*name, now);
                let age = self.unknown.age(tally, now);
                let terms = self.terms(Lane::Stranger);
                Lanes {
                    strangers: Counter::from_tally(tally, age, &terms, source, now),
                    ..Lanes::default()
                }
            }
        }
    }

    /// Puts the lanes of a subject back, in which one failure was counted.
    fn put_back(&mut self, subject: &Subject, lanes: Lanes, now: Instant) {
        match subject {
            Subject::Account(account) => {
                self.accounts.insert(account.clone(), lanes);
            }
            Subject::Unknown(name) => {
                let terms = self.terms(Lane::Stranger);
                self.unknown.add(*name, &terms, now);
            }
        }
    }

    /// Ends an attempt that succeeded, by the owner: takes back the failures of its source in its lane, and
    /// of no other source. A name without an account has no owner, so nothing changes.
    pub fn succeed(&mut self, counted: &Counted, now: Instant) -> LockoutRow {
        let now = self.whole_ms(now);
        let Subject::Account(account) = &counted.subject else {
            return LockoutRow::empty(counted.subject.clone());
        };
        let terms = self.terms(counted.lane);
        if let Some(lanes) = self.accounts.get_mut(account) {
            let counter = lanes.counter(counted.lane);
            match counted.lane {
                Lane::Stranger => {
                    counter.forgive(counted.source, terms.failures_max, now);
                    lanes.pending = lanes.pending.saturating_sub(1);
                }
                Lane::KnownDevice => *counter = Counter::default(),
            }
        }
        if counted.lane == Lane::Stranger {
            self.source_buckets.take_back(counted.source, now);
        }
        let row = self.row(account, now);
        self.forget_if_idle(account);
        row
    }

    /// Ends an attempt that failed: it stays counted, and if it was a stranger's the owner is to be told.
    pub fn fail(&mut self, counted: Counted) {
        if let (Lane::Stranger, Subject::Account(account)) = (counted.lane, &counted.subject)
            && let Some(lanes) = self.accounts.get_mut(account)
        {
            lanes.pending = lanes.pending.saturating_sub(1);
            lanes.unreported = lanes.unreported.saturating_add(1);
            lanes.last_unreported = lanes.last_unreported.max(counted.begun);
        }
    }

    /// Returns the failures that the owner has not been told of, and counts them as told. While strangers
    /// are blocked there are none before every attempt that led to it has ended: the owner hears of the
    /// block with the failure that began it.
    pub fn take_unreported(
        &mut self,
        account: &AccountName,
        now: Instant,
    ) -> Option<(FailedLogins, LockoutRow)> {
        let lanes = self
            .accounts
            .get_mut(account)
            .filter(|lanes| lanes.unreported > 0)?;
        let blocked_for = lanes.strangers.remaining(now);
        if !blocked_for.is_zero() && lanes.pending > 0 {
            return None;
        }
        let failed = FailedLogins {
            count: lanes.unreported,
            last: lanes.last_unreported,
            blocked_for_s: seconds(blocked_for),
        };
        lanes.unreported = 0;
        let row = self.row(account, now);
        Some((failed, row))
    }

    /// Forgets everything about an account, which the operator removed.
    pub fn forget(&mut self, account: &AccountName) {
        self.accounts.remove(account);
    }

    /// Ends every block of a subject and forgets what led to it.
    pub fn unblock(&mut self, subject: &Subject, now: Instant) -> Forgotten {
        let now = self.whole_ms(now);
        match subject {
            Subject::Account(account) => {
                let Some(mut lanes) = self.accounts.remove(account) else {
                    return Forgotten::default();
                };
                let lanes = [Lane::Stranger, Lane::KnownDevice].map(|lane| {
                    let counter = lanes.counter(lane);
                    counter.fade(now);
                    let blocked_for = counter.remaining(now);
                    let failures = counter.total(&self.terms(lane));
                    (blocked_for, failures)
                });
                let [(strangers_for, strangers), (known_for, known)] = lanes;
                Forgotten {
                    blocked_for: strangers_for.max(known_for),
                    failures: strangers.saturating_add(known),
                }
            }
            Subject::Unknown(name) => {
                let blocked_for = self.remaining(subject, Lane::Stranger, now);
                let failures = self.unknown.tally(*name, now).count();
                self.unknown.forget(*name, now);
                Forgotten {
                    blocked_for,
                    failures,
                }
            }
        }
    }

    /// Counts a log-in with a token that is refused, against its source only.
    ///
    /// # Errors
    ///
    /// How long to wait, if the source is blocked. Then nothing is counted.
    pub fn count_source(&mut self, source: SourcePrefix, now: Instant) -> Result<(), Duration> {
        let wait = self.source_buckets.wait(source, now);
        if !wait.is_zero() {
            return Err(wait);
        }
        self.source_buckets.add(source, now);
        Ok(())
    }

    /// Returns how an account stands in a lane at `now`.
    pub fn standing(&self, account: &AccountName, lane: Lane, now: Instant) -> Standing {
        let lanes = self.accounts.get(account);
        let counter = lanes.map(|lanes| match lane {
            Lane::Stranger => &lanes.strangers,
            Lane::KnownDevice => &lanes.known,
        });
        let Some(mut counter) = counter.cloned() else {
            return Standing::default();
        };
        counter.fade(now);
        Standing {
            blocked_for: counter.remaining(now),
            failures: counter.failures,
            blocks: counter.blocks,
        }
    }

    /// The time until strangers are no longer blocked from an account.
    pub fn blocked_for(&self, account: &AccountName, now: Instant) -> Duration {
        self.accounts
            .get(account)
            .map_or(Duration::ZERO, |lanes| lanes.strangers.remaining(now))
    }

    /// Drops at most `count_max` accounts whose counters have faded, and returns empty rows for the store,
    /// which then drops them, too. Names without an account fade by themselves, and the store drops them by
    /// their age.
    pub fn sweep(&mut self, count_max: usize, now: Instant) -> Vec<LockoutRow> {
        self.source_buckets.sweep(now);
        for lanes in self.accounts.values_mut() {
            lanes.strangers.fade(now);
            lanes.known.fade(now);
        }
        let idle = self.accounts.iter().filter(|(_, lanes)| lanes.is_idle());
        let idle = idle.map(|(account, _)| account.clone());
        let idle: Vec<AccountName> = idle.take(count_max).collect();
        for account in &idle {
            self.accounts.remove(account);
        }
        let subjects = idle.into_iter().map(Subject::Account);
        subjects.map(LockoutRow::empty).collect()
    }

    /// The occupancy of each bounded resource.
    pub fn occupancies(&self) -> [Occupancy; 2] {
        let counters = self
            .accounts
            .values()
            .flat_map(|lanes| [&lanes.strangers, &lanes.known]);
        let sources = counters.map(|counter| counter.failures.len());
        [
            // One more counts for all sources beyond the limit together.
            Occupancy::fullest(
                "sources of an account",
                sources,
                SOURCES_PER_ACCOUNT_MAX + 1,
            ),
            Occupancy::new("sources", self.source_buckets.empty_at.len(), SOURCES_MAX),
        ]
    }

    /// Number of accounts that something is counted against.
    pub fn len(&self) -> usize {
        self.accounts.len()
    }

    /// Tells whether nothing is counted against any account.
    pub fn is_empty(&self) -> bool {
        self.accounts.is_empty()
    }

    const fn terms(&self, lane: Lane) -> LaneTerms {
        let failures_max = match lane {
            Lane::Stranger => self.options.stranger_failures_max,
            Lane::KnownDevice => self.options.known_failures_max,
        };
        LaneTerms {
            failures_max,
            block_first: self.options.block_first,
        }
    }

    /// Rounds `now` down to whole milliseconds after the engine's start.
    fn whole_ms(&self, now: Instant) -> Instant {
        let since = now.saturating_duration_since(self.start);
        self.start
            + Duration::from_secs(since.as_secs())
            + Duration::from_millis(since.subsec_millis().into())
    }

    fn row(&self, account: &AccountName, now: Instant) -> LockoutRow {
        let subject = Subject::Account(account.clone());
        match self.accounts.get(account) {
            Some(lanes) => lanes.row(subject, now, &self.epoch),
            None => LockoutRow::empty(subject),
        }
    }

    fn forget_if_idle(&mut self, account: &AccountName) {
        if self.accounts.get(account).is_some_and(Lanes::is_idle) {
            self.accounts.remove(account);
        }
    }
}

/// An attempt that may go on once `row` is durable.
#[derive(Debug)]
#[must_use]
pub struct Started {
    /// To be ended by [`Lockouts::succeed`] or [`Lockouts::fail`].
    pub counted: Counted,
    /// For the store.
    pub row: LockoutRow,
    /// Whether this attempt reached the limit, so that it begins a block.
    pub is_blocked_now: bool,
}

/// Rounds up to whole seconds, so that whoever waits that long is not early.
pub(super) fn seconds(span: Duration) -> u32 {
    let rounded = span
        .as_secs()
        .saturating_add(u64::from(span.subsec_nanos() > 0));
    u32::try_from(rounded).unwrap_or(u32::MAX)
}

/// The source that an attempt counts under: known devices are not told apart by theirs.
const fn lane_source(lane: Lane, source: SourcePrefix) -> SourcePrefix {
    match lane {
        Lane::Stranger => source,
        Lane::KnownDevice => SourcePrefix::ANY,
    }
}

/// What is counted against one account.
#[derive(Debug, Default)]
struct Lanes {
    strangers: Counter,
    known: Counter,
    /// Failures of strangers that the owner has not been told of.
    unreported: u32,
    last_unreported: UnixTime,
    /// When the last attempt of a stranger began.
    last_begun: UnixTime,
    /// Attempts of strangers that are under way. The store counts them as failures, in case the server
    /// stops before they end.
    pending: u32,
}

impl Lanes {
    const fn counter(&mut self, lane: Lane) -> &mut Counter {
        match lane {
            Lane::Stranger => &mut self.strangers,
            Lane::KnownDevice => &mut self.known,
        }
    }

    fn remaining(&self, lane: Lane, now: Instant) -> Duration {
        match lane {
            Lane::Stranger => self.strangers.remaining(now),
            Lane::KnownDevice => self.known.remaining(now),
        }
    }

    fn row(&self, subject: Subject, now: Instant, epoch: &Epoch) -> LockoutRow {
        LockoutRow {
            subject,
            strangers: self.strangers.row(now, epoch),
            known: self.known.row(now, epoch),
            unreported: self.unreported.saturating_add(self.pending),
            last_unreported: if self.pending > 0 {
                self.last_begun
            } else {
                self.last_unreported
            },
        }
    }

    fn is_idle(&self) -> bool {
        self.strangers.is_idle()
            && self.known.is_idle()
            && self.unreported == 0
            && self.pending == 0
    }
}

/// The failures in one lane of one account.
#[derive(Clone, Debug, Default)]
struct Counter {
    failures: BTreeMap<SourcePrefix, u32>,
    blocks: u32,
    blocked_until: Option<Instant>,
    last_failure: Option<Instant>,
}

impl Counter {
    /// The counter of an account with as many failures, the last one `age` ago, all from `source`.
    fn from_tally(
        tally: Tally,
        age: Duration,
        terms: &LaneTerms,
        source: SourcePrefix,
        now: Instant,
    ) -> Self {
        let failures = tally.count() % terms.failures_max;
        let left = terms.left(tally.count(), age);
        Self {
            failures: (failures > 0)
                .then_some((source, failures))
                .into_iter()
                .collect(),
            blocks: tally.count() / terms.failures_max,
            blocked_until: (!left.is_zero()).then_some(now + left),
            last_failure: now.checked_sub(age).filter(|_| tally.count() > 0),
        }
    }

    fn restore(row: LaneRow, now: Instant, wall: UnixTime) -> Self {
        let left = row.blocked_until.saturating_since(wall).min(BLOCK_MAX);
        let since_failure = wall.saturating_since(row.last_failure);
        if since_failure >= BLOCK_RESET_AFTER && left.is_zero() {
            return Self::default();
        }
        // There is no instant before the system's start; a failure from then counts as one of now.
        let last_failure = now.checked_sub(since_failure).unwrap_or(now);
        Self {
            failures: row.failures.into_iter().collect(),
            blocks: row.blocks,
            blocked_until: (row.blocked_until > UnixTime::default()).then_some(now + left),
            last_failure: (row.last_failure > UnixTime::default()).then_some(last_failure),
        }
    }

    fn row(&self, now: Instant, epoch: &Epoch) -> LaneRow {
        let wall = epoch.unix(now);
        let ago = |instant: Instant| {
            let span = now.saturating_duration_since(instant);
            let span = u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
            UnixTime::from_millis(wall.as_millis().saturating_sub(span).max(1))
        };
        LaneRow {
            failures: self.failures.clone().into_iter().collect(),
            blocks: self.blocks,
            blocked_until: self.blocked_until.map_or(UnixTime::default(), |until| {
                match until.checked_duration_since(now) {
                    Some(left) => wall.saturating_add(left),
                    None => ago(until),
                }
            }),
            last_failure: self.last_failure.map_or(UnixTime::default(), ago),
        }
    }

    /// Forgets the failures that led to a block that is over, and everything after [`BLOCK_RESET_AFTER`] without
    /// a failure.
    fn fade(&mut self, now: Instant) {
        if self.blocked_until.is_some_and(|until| until <= now) {
            self.failures.clear();
            self.blocked_until = None;
        }
        let is_old = |last: Instant| now.saturating_duration_since(last) >= BLOCK_RESET_AFTER;
        if self.last_failure.is_some_and(is_old) && self.blocked_until.is_none() {
            *self = Self::default();
        }
    }

    fn remaining(&self, now: Instant) -> Duration {
        self.blocked_until
            .map_or(Duration::ZERO, |until| until.saturating_duration_since(now))
    }

    /// Counts a failure; returns whether it begins a block. A block that is running is not extended.
    fn add(&mut self, source: SourcePrefix, terms: &LaneTerms, now: Instant) -> bool {
        let is_full = self.failures.len() >= SOURCES_PER_ACCOUNT_MAX;
        let source = if is_full && !self.failures.contains_key(&source) {
            SourcePrefix::ANY
        } else {
            source
        };
        let failures = self.failures.entry(source).or_default();
        *failures = failures.saturating_add(1);
        self.last_failure = Some(now);
        if self.sum() < terms.failures_max || self.blocked_until.is_some() {
            return false;
        }
        self.blocks = self.blocks.saturating_add(1);
        self.blocked_until = Some(now + terms.span(self.blocks));
        true
    }

    /// Takes back the failures of `source`. If that leaves fewer than `failures_max`, the running block is
    /// taken back, too.
    fn forgive(&mut self, source: SourcePrefix, failures_max: u32, now: Instant) {
        self.fade(now);
        if self.failures.remove(&source).is_none() {
            // The source shares a count with others: take back this attempt only.
            if let Some(shared) = self.failures.get_mut(&SourcePrefix::ANY) {
                *shared = shared.saturating_sub(1);
            }
        }
        if self.blocked_until.is_some() && self.sum() < failures_max {
            self.blocked_until = None;
            self.blocks = self.blocks.saturating_sub(1);
        }
        if self.failures.is_empty() && self.blocks == 0 {
            self.last_failure = None;
        }
    }

    fn sum(&self) -> u32 {
        self.failures
            .values()
            .fold(0, |sum, failures| sum.saturating_add(*failures))
    }

    /// All failures since the last quiet day: each block stands for so many.
    fn total(&self, terms: &LaneTerms) -> u32 {
        let earlier = match self.blocked_until {
            Some(_) => self.blocks.saturating_sub(1),
            None => self.blocks,
        };
        let earlier = earlier.saturating_mul(terms.failures_max);
        earlier.saturating_add(self.sum())
    }

    fn is_idle(&self) -> bool {
        self.failures.is_empty() && self.blocks == 0 && self.blocked_until.is_none()
    }
}

/// Failures of each source over all accounts: leaky buckets, each stored as the moment when it is empty.
#[derive(Debug, Default)]
struct SourceBuckets {
    empty_at: BTreeMap<SourcePrefix, Instant>,
    /// The same, the emptiest bucket first.
    order: BTreeSet<(Instant, SourcePrefix)>,
}

impl SourceBuckets {
    fn wait(&self, source: SourcePrefix, now: Instant) -> Duration {
        let Some(empty_at) = self.empty_at.get(&source) else {
            return Duration::ZERO;
        };
        let level = empty_at.saturating_duration_since(now);
        level.saturating_sub(SOURCE_DECAY_INTERVAL * (SOURCE_FAILURES_MAX - 1))
    }

    fn add(&mut self, source: SourcePrefix, now: Instant) {
        let empty_at = self.remove(source).map_or(now, |at| at.max(now));
        if self.empty_at.len() >= SOURCES_MAX
            && let Some((_, fewest)) = self.order.first().copied()
        {
            self.remove(fewest);
        }
        self.insert(source, empty_at + SOURCE_DECAY_INTERVAL);
    }

    fn take_back(&mut self, source: SourcePrefix, now: Instant) {
        let Some(empty_at) = self.remove(source) else {
            return;
        };
        if let Some(earlier) = empty_at.checked_sub(SOURCE_DECAY_INTERVAL)
            && earlier > now
        {
            self.insert(source, earlier);
        }
    }

    fn sweep(&mut self, now: Instant) {
        while let Some((empty_at, source)) = self.order.first().copied()
            && empty_at <= now
        {
            self.remove(source);
        }
    }

    fn insert(&mut self, source: SourcePrefix, empty_at: Instant) {
        self.empty_at.insert(source, empty_at);
        self.order.insert((empty_at, source));
    }

    fn remove(&mut self, source: SourcePrefix) -> Option<Instant> {
        let empty_at = self.empty_at.remove(&source)?;
        self.order.remove(&(empty_at, source));
        Some(empty_at)
    }
}

#[cfg(test)]
mod tests;
