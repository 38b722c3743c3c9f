//! Lock-out: how many password log-ins may fail, and for whom.
//!
//! An attempt counts when it starts and is taken back when it succeeds, so that attempts at the same
//! time are never more than the limit. Three things are counted:
//!
//! - **strangers**, for each account: the failures of all sources together. At the limit the account
//!   is blocked for strangers, longer each time. A success takes back only what its own source added;
//! - **known devices**, for each account: whoever holds the key of an enrolled device. A lane of its
//!   own, so that strangers cannot lock the owner out;
//! - **breadth**, for each source: failures over all accounts, a bucket that leaks.
//!
//! Names that no account has are counted in a `sketch` and behave exactly like accounts, so that an
//! answer never tells whether a name exists. They can never displace the counter of an account.
//!
//! All blocks run in whole milliseconds from the engine's start, because a sketch has no finer ones.
//!
//! Pure: time comes in, rows for the store go out. What is in memory decides; the rows bring it back
//! after a restart.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use common::id::AccountName;
use common::limits::{
    BLOCK_FIRST, BLOCK_MAX, BLOCK_MEMORY, FAILURES_MAX_MAX, Fill, KNOWN_DEVICE_FAILURES_MAX,
    SOURCE_FADE, SOURCE_FAILURES_MAX, SOURCES_MAX, SOURCES_PER_ACCOUNT_MAX, STRANGER_FAILURES_MAX,
};
use common::time::{Epoch, UnixTime};
use common::wire::rendezvous::FailedLogins;

use crate::source::SourcePrefix;
use crate::store::{LaneRow, LockoutRow, Subject};
pub use sketch::BucketKey;
use sketch::{Sketch, Tally};
use terms::LaneTerms;

// The failures of names that no account has.
mod sketch;
// When a lane is blocked, and for how long.
mod terms;

/// What an operator may choose.
#[derive(Clone, Copy, Debug)]
pub struct LockoutOptions {
    /// Failures after which strangers are blocked: 1 to [`FAILURES_MAX_MAX`].
    pub stranger_failures_max: u32,
    /// Failures after which known devices are blocked: 1 to [`FAILURES_MAX_MAX`].
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

/// Which counter an attempt belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lane {
    /// It has not proved the key of an enrolled device.
    Stranger,
    /// It has: only the owner and whoever stole a device are in this lane.
    KnownDevice,
}

/// An attempt that counts as a failure until it succeeds.
#[derive(Clone, Debug)]
#[must_use = "an attempt ends with `succeed` or `fail`"]
pub struct Counted {
    subject: Subject,
    lane: Lane,
    source: SourcePrefix,
}

impl Counted {
    /// Whose failure it counts as.
    pub const fn subject(&self) -> &Subject {
        &self.subject
    }

    /// The lane it is in.
    pub const fn lane(&self) -> Lane {
        self.lane
    }
}

/// How an account stands in one lane.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// Failures of each source since the last block ended.
    pub failures: BTreeMap<SourcePrefix, u32>,
    /// Blocks so far.
    pub blocks: u32,
    /// For how long it is blocked.
    pub blocked_for: Duration,
}

/// The failures of accounts, of names without one, and of sources.
#[derive(Debug)]
pub struct Lockouts {
    options: LockoutOptions,
    epoch: Epoch,
    start: Instant,
    bucket_key: BucketKey,
    locks: BTreeMap<AccountName, Lock>,
    unknown: Sketch,
    breadth: Breadth,
}

impl Lockouts {
    /// Starts from what the store kept. A block never lasts longer than [`BLOCK_MAX`] from now,
    /// whatever happened to the clock in between.
    pub fn new(
        options: LockoutOptions,
        bucket_key: BucketKey,
        epoch: Epoch,
        rows: Vec<LockoutRow>,
        now: Instant,
    ) -> Self {
        let within = |failures: u32| failures.clamp(1, FAILURES_MAX_MAX);
        let mut this = Self {
            options: LockoutOptions {
                stranger_failures_max: within(options.stranger_failures_max),
                known_failures_max: within(options.known_failures_max),
                ..options
            },
            epoch,
            start: now,
            bucket_key,
            locks: BTreeMap::new(),
            unknown: Sketch::new(now),
            breadth: Breadth::default(),
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
                let lock = Lock {
                    strangers: Counter::restore(row.strangers, now, wall),
                    known: Counter::restore(row.known, now, wall),
                    untold: row.untold,
                    untold_last: row.untold_last,
                    pending: 0,
                };
                self.locks.insert(account, lock);
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
                // Those that led to the last block are in its number already.
                let since_block = match blocked_until == UnixTime::default() {
                    true => failures.iter().map(|(_, count)| *count).max(),
                    false => None,
                };
                let since_block = since_block.unwrap_or(0).min(failures_max - 1);
                let count = blocks * failures_max + since_block;
                let ago = wall.saturating_since(last_failure);
                self.unknown.restore(name, count, ago, now);
            }
        }
    }

    /// The subject of a name that no account has.
    pub fn unknown(&self, name: &AccountName) -> Subject {
        Subject::Unknown(sketch::hash(name, &self.bucket_key))
    }

    /// Starts an attempt, or tells how long to wait. While blocked nothing is counted. `admitted`,
    /// with a one-time code of an account, goes past every block once.
    pub fn begin(
        &mut self,
        subject: Subject,
        lane: Lane,
        source: SourcePrefix,
        admitted: bool,
        now: Instant,
    ) -> Result<Started, Duration> {
        let now = self.whole_ms(now);
        let breadth = match lane {
            Lane::Stranger => self.breadth.wait(source, now),
            Lane::KnownDevice => Duration::ZERO,
        };
        let wait = self.remaining(&subject, lane, now).max(breadth);
        if !admitted && !wait.is_zero() {
            return Err(wait);
        }
        let terms = self.terms(lane);
        let mut lock = self.take(&subject, source, now);
        let counter = lock.counter(lane);
        counter.fade(now);
        let is_blocked_now = counter.add(lane_source(lane, source), &terms, now);
        if lane == Lane::Stranger {
            lock.pending += 1;
            lock.untold_last = self.epoch.unix(now);
            self.breadth.add(source, now);
        }
        let row = lock.row(subject.clone(), now, &self.epoch);
        self.put_back(&subject, lock, now);
        let counted = Counted {
            subject,
            lane,
            source,
        };
        Ok(Started {
            counted,
            row,
            is_blocked_now,
        })
    }

    /// How long a lane is blocked for.
    fn remaining(&self, subject: &Subject, lane: Lane, now: Instant) -> Duration {
        match subject {
            Subject::Account(account) => {
                let lock = self.locks.get(account);
                lock.map_or(Duration::ZERO, |lock| lock.remaining(lane, now))
            }
            Subject::Unknown(name) => {
                let tally = self.unknown.tally(*name, now);
                let age = self.unknown.age(tally, now);
                self.terms(Lane::Stranger).left(tally.count(), age)
            }
        }
    }

    /// What is known of a subject, to be counted in and put back. A name without an account gets what an
    /// account has that failed as often, with all failures from `source`: from here on both go the same
    /// way, and take as long.
    fn take(&mut self, subject: &Subject, source: SourcePrefix, now: Instant) -> Lock {
        match subject {
            Subject::Account(account) => self.locks.remove(account).unwrap_or_default(),
            Subject::Unknown(name) => {
                let tally = self.unknown.tally(*name, now);
                let age = self.unknown.age(tally, now);
                let terms = self.terms(Lane::Stranger);
                Lock {
                    strangers: Counter::of(tally, age, &terms, source, now),
                    ..Lock::default()
                }
            }
        }
    }

    /// Keeps a subject in which one failure was counted.
    fn put_back(&mut self, subject: &Subject, lock: Lock, now: Instant) {
        match subject {
            Subject::Account(account) => {
                self.locks.insert(account.clone(), lock);
            }
            Subject::Unknown(name) => {
                let terms = self.terms(Lane::Stranger);
                self.unknown.add(*name, &terms, now);
            }
        }
    }

    /// Takes an attempt back: it was the owner. What its source added to the account's count goes, and
    /// nobody else's. A name without an account has no owner.
    pub fn succeed(&mut self, counted: &Counted, now: Instant) -> LockoutRow {
        let now = self.whole_ms(now);
        let Subject::Account(account) = &counted.subject else {
            return LockoutRow::empty(counted.subject.clone());
        };
        let terms = self.terms(counted.lane);
        if let Some(lock) = self.locks.get_mut(account) {
            let counter = lock.counter(counted.lane);
            match counted.lane {
                Lane::Stranger => {
                    counter.forgive(counted.source, terms.failures_max, now);
                    lock.pending = lock.pending.saturating_sub(1);
                }
                Lane::KnownDevice => *counter = Counter::default(),
            }
        }
        if counted.lane == Lane::Stranger {
            self.breadth.take_back(counted.source, now);
        }
        let row = self.row(account, now);
        self.forget_if_idle(account);
        row
    }

    /// Ends an attempt that failed: it stays counted, and a stranger's is one more to tell the owner.
    pub fn fail(&mut self, counted: Counted) {
        if let (Lane::Stranger, Subject::Account(account)) = (counted.lane, &counted.subject)
            && let Some(lock) = self.locks.get_mut(account)
        {
            lock.pending = lock.pending.saturating_sub(1);
            lock.untold = lock.untold.saturating_add(1);
        }
    }

    /// What the owner has not been told, which from now on counts as told.
    pub fn tell(
        &mut self,
        account: &AccountName,
        now: Instant,
    ) -> Option<(FailedLogins, LockoutRow)> {
        let lock = self.locks.get_mut(account).filter(|lock| lock.untold > 0)?;
        let failed = FailedLogins {
            count: lock.untold,
            last: lock.untold_last,
            blocked_for_s: seconds(lock.strangers.remaining(now)),
        };
        lock.untold = 0;
        let row = self.row(account, now);
        Some((failed, row))
    }

    /// Forgets everything about an account: its operator unblocked or removed it.
    pub fn forget(&mut self, account: &AccountName) -> LockoutRow {
        self.locks.remove(account);
        LockoutRow::empty(Subject::Account(account.clone()))
    }

    /// Counts a guess that is not about a password, against its source only. `Err` tells how long that
    /// source has to wait.
    pub fn count_source(&mut self, source: SourcePrefix, now: Instant) -> Result<(), Duration> {
        let wait = self.breadth.wait(source, now);
        if !wait.is_zero() {
            return Err(wait);
        }
        self.breadth.add(source, now);
        Ok(())
    }

    /// How an account stands in a lane.
    pub fn standing(&self, account: &AccountName, lane: Lane, now: Instant) -> Standing {
        let lock = self.locks.get(account);
        let counter = lock.map(|lock| match lane {
            Lane::Stranger => &lock.strangers,
            Lane::KnownDevice => &lock.known,
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

    /// For how long strangers are blocked from an account.
    pub fn blocked_for(&self, account: &AccountName, now: Instant) -> Duration {
        self.locks
            .get(account)
            .map_or(Duration::ZERO, |lock| lock.strangers.remaining(now))
    }

    /// Drops what has faded, at most `count_max` accounts, and returns the rows that the store can drop
    /// as well. Names without an account fade by themselves, and the store drops them by their age.
    pub fn sweep(&mut self, count_max: usize, now: Instant) -> Vec<LockoutRow> {
        self.breadth.sweep(now);
        for lock in self.locks.values_mut() {
            lock.strangers.fade(now);
            lock.known.fade(now);
        }
        let idle = self.locks.iter().filter(|(_, lock)| lock.is_idle());
        let idle = idle.map(|(account, _)| account.clone());
        let idle: Vec<AccountName> = idle.take(count_max).collect();
        for account in &idle {
            self.locks.remove(account);
        }
        let subjects = idle.into_iter().map(Subject::Account);
        subjects.map(LockoutRow::empty).collect()
    }

    /// How full everything is that has a bound.
    pub fn fills(&self) -> [Fill; 2] {
        let lanes = self
            .locks
            .values()
            .flat_map(|lock| [&lock.strangers, &lock.known]);
        let sources = lanes.map(|counter| counter.failures.len());
        [
            // The last one counts for all further ones.
            Fill::fullest(
                "sources of an account",
                sources,
                SOURCES_PER_ACCOUNT_MAX + 1,
            ),
            Fill::new("sources", self.breadth.empty_at.len(), SOURCES_MAX),
        ]
    }

    /// Accounts that something is known about.
    pub fn len(&self) -> usize {
        self.locks.len()
    }

    /// Tells whether nothing is known about any account.
    pub fn is_empty(&self) -> bool {
        self.locks.is_empty()
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

    fn whole_ms(&self, now: Instant) -> Instant {
        let since = now.saturating_duration_since(self.start);
        self.start
            + Duration::from_secs(since.as_secs())
            + Duration::from_millis(since.subsec_millis().into())
    }

    fn row(&self, account: &AccountName, now: Instant) -> LockoutRow {
        let subject = Subject::Account(account.clone());
        match self.locks.get(account) {
            Some(lock) => lock.row(subject, now, &self.epoch),
            None => LockoutRow::empty(subject),
        }
    }

    fn forget_if_idle(&mut self, account: &AccountName) {
        if self.locks.get(account).is_some_and(Lock::is_idle) {
            self.locks.remove(account);
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
    /// Whether this one used up the limit.
    pub is_blocked_now: bool,
}

/// Whole seconds, rounded up, so that whoever waits that long is not early.
pub(super) fn seconds(span: Duration) -> u32 {
    let rounded = span
        .as_secs()
        .saturating_add(u64::from(span.subsec_nanos() > 0));
    u32::try_from(rounded).unwrap_or(u32::MAX)
}

/// Known devices are not told apart by where they are.
const fn lane_source(lane: Lane, source: SourcePrefix) -> SourcePrefix {
    match lane {
        Lane::Stranger => source,
        Lane::KnownDevice => SourcePrefix::ANY,
    }
}

#[derive(Debug, Default)]
struct Lock {
    strangers: Counter,
    known: Counter,
    /// Failed for sure, and not told.
    untold: u32,
    untold_last: UnixTime,
    /// Started and not over. The store counts them as failed, in case we never see their end.
    pending: u32,
}

impl Lock {
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
            untold: self.untold.saturating_add(self.pending),
            untold_last: self.untold_last,
        }
    }

    fn is_idle(&self) -> bool {
        self.strangers.is_idle() && self.known.is_idle() && self.untold == 0 && self.pending == 0
    }
}

#[derive(Clone, Debug, Default)]
struct Counter {
    failures: BTreeMap<SourcePrefix, u32>,
    blocks: u32,
    blocked_until: Option<Instant>,
    last_failure: Option<Instant>,
}

impl Counter {
    /// What an account has whose failures are these, the last one `age` ago.
    fn of(
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
        let mut counter = Self {
            failures: row.failures.into_iter().collect(),
            blocks: row.blocks,
            blocked_until: (row.blocked_until > UnixTime::default()).then_some(now + left),
            last_failure: None,
        };
        if since_failure >= BLOCK_MEMORY && left.is_zero() {
            return Self::default();
        }
        if row.last_failure > UnixTime::default() {
            // An instant before the system's start does not exist; then the memory lasts longer.
            counter.last_failure = Some(now.checked_sub(since_failure).unwrap_or(now));
        }
        counter
    }

    fn row(&self, now: Instant, epoch: &Epoch) -> LaneRow {
        let wall = epoch.unix(now);
        let ago = |instant: Instant| {
            let span = now.saturating_duration_since(instant);
            let span = u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
            UnixTime::from_millis(wall.as_millis().saturating_sub(span).max(1))
        };
        LaneRow {
            failures: self.failures.iter().map(|(at, n)| (*at, *n)).collect(),
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

    /// Forgets what time has settled: the failures that led to a block that is over, and everything
    /// after [`BLOCK_MEMORY`] without a failure.
    fn fade(&mut self, now: Instant) {
        if self.blocked_until.is_some_and(|until| until <= now) {
            self.failures.clear();
            self.blocked_until = None;
        }
        let is_old = |last: Instant| now.saturating_duration_since(last) >= BLOCK_MEMORY;
        if self.last_failure.is_some_and(is_old) && self.blocked_until.is_none() {
            *self = Self::default();
        }
    }

    fn remaining(&self, now: Instant) -> Duration {
        self.blocked_until
            .map_or(Duration::ZERO, |until| until.saturating_duration_since(now))
    }

    /// Counts a failure; tells whether it was the one too many. A block that runs is not extended.
    fn add(&mut self, source: SourcePrefix, terms: &LaneTerms, now: Instant) -> bool {
        let is_full = self.failures.len() >= SOURCES_PER_ACCOUNT_MAX;
        let source = match self.failures.contains_key(&source) || !is_full {
            true => source,
            false => SourcePrefix::ANY,
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

    /// Takes back what `source` added. If that leaves fewer than the limit, the block that these
    /// attempts had begun never was.
    fn forgive(&mut self, source: SourcePrefix, max: u32, now: Instant) {
        self.fade(now);
        if self.failures.remove(&source).is_none() {
            // Its source shares a counter with others: take back the one.
            if let Some(shared) = self.failures.get_mut(&SourcePrefix::ANY) {
                *shared = shared.saturating_sub(1);
            }
        }
        if self.blocked_until.is_some() && self.sum() < max {
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

    fn is_idle(&self) -> bool {
        self.failures.is_empty() && self.blocks == 0 && self.blocked_until.is_none()
    }
}

/// Failures of each source over all accounts: a leaky bucket, kept as the moment when it is empty.
#[derive(Debug, Default)]
struct Breadth {
    empty_at: BTreeMap<SourcePrefix, Instant>,
    /// The same, ordered by how little is in the bucket.
    order: BTreeSet<(Instant, SourcePrefix)>,
}

impl Breadth {
    fn wait(&self, source: SourcePrefix, now: Instant) -> Duration {
        let Some(empty_at) = self.empty_at.get(&source) else {
            return Duration::ZERO;
        };
        let level = empty_at.saturating_duration_since(now);
        level.saturating_sub(SOURCE_FADE * (SOURCE_FAILURES_MAX - 1))
    }

    fn add(&mut self, source: SourcePrefix, now: Instant) {
        let empty_at = self.remove(source).map_or(now, |at| at.max(now));
        if self.empty_at.len() >= SOURCES_MAX
            && let Some((_, fewest)) = self.order.first().copied()
        {
            self.remove(fewest);
        }
        self.insert(source, empty_at + SOURCE_FADE);
    }

    fn take_back(&mut self, source: SourcePrefix, now: Instant) {
        let Some(empty_at) = self.remove(source) else {
            return;
        };
        if let Some(earlier) = empty_at.checked_sub(SOURCE_FADE)
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
