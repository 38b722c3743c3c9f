//! Having presence changes pushed, and getting over it when the server ends that.
//!
//! The server tells one watcher so many changes and no more; beyond that it says `ListAgain` and forgets
//! the watch. Then this side waits, for longer the more often it happens and never for as long as its
//! neighbours, lists again, and watches from there. Where people look on, it keeps in mind who was
//! online, so that they are told what changed in between as if it had been pushed.
//!
//! When the server itself was away, everybody comes back, and not all at once: whoever is not there in the first
//! listing of a new session has not left before [`RETURN_PATIENCE`] is over. If anybody in it is there since the same
//! time as before, the server was there all the time.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use common::id::AccountName;
use common::key::DeviceKey;
use common::limits::{LIST_ENTRIES_MAX, WATCH_BACKOFF_FIRST, WATCH_BACKOFF_MAX};
use common::time::UnixTime;
use common::wire::rendezvous::{Change, Cursor, DirectoryRequest, DirectoryVersion, Entry, Status};
use rand::RngExt;
use rand::rngs::StdRng;

/// Time in which everybody has found a server again that was away.
const RETURN_PATIENCE: Duration = Duration::from_secs(30);

/// The watch of one session.
#[derive(Debug)]
pub(super) struct Watch {
    rng: StdRng,
    state: State,
    /// Watches that were ended before their time, one after the other.
    failures: u32,
    /// Who is online as far as people were told; `None` while nobody is told.
    told: Option<Present>,
    /// The session is a new one: who is missing in its first listing may be about to come back.
    is_resumed: bool,
    /// Who was online before the session was new and has not come back, all until the same time; part of `told`.
    missing: Option<(Instant, BTreeSet<(AccountName, DeviceKey)>)>,
}

/// Who is online: where each entry stands in the directory, and what people would see change.
type Present = BTreeMap<(AccountName, DeviceKey), (UnixTime, Status)>;

#[derive(Debug)]
enum State {
    Off,
    /// To be asked for again then.
    Resting(Instant),
    /// The directory is being read.
    Listing(Listing),
    /// The server was asked to push what changed since the listing.
    Asking(Listing),
    /// The server pushes changes, since this time.
    On(Instant),
}

/// A listing, as far as it has come.
#[derive(Debug, Default)]
struct Listing {
    /// Of its first page: what changes after that is pushed.
    since: Option<DirectoryVersion>,
    present: Present,
    /// What people have not been told yet.
    news: Vec<Entry>,
    is_whole: bool,
}

impl Watch {
    /// Watches nothing yet.
    pub(super) const fn new(rng: StdRng) -> Self {
        Self {
            rng,
            state: State::Off,
            failures: 0,
            told: None,
            is_resumed: false,
            missing: None,
        }
    }

    /// The session is new or gone: so is its watch. What people were told stays: the next watch tells
    /// them what changed in between.
    pub(super) fn reset(&mut self) {
        self.state = State::Off;
        self.failures = 0;
        self.is_resumed = true;
        self.missing = None;
    }

    /// Begins, if it is time. A watch of before people looked on begins anew with the whole directory.
    pub(super) fn start(&mut self, tells_people: bool, now: Instant) -> Option<DirectoryRequest> {
        let is_due = match self.state {
            State::Off => true,
            State::Resting(until) => until <= now,
            State::On(_) => tells_people && self.told.is_none(),
            State::Listing(_) | State::Asking(_) => false,
        };
        is_due.then(|| {
            self.state = State::Listing(Listing::default());
            DirectoryRequest::List { after: None }
        })
    }

    /// The watch is not wanted any more. Tells whether the server is to be told.
    pub(super) fn stop(&mut self) -> bool {
        let is_on = matches!(self.state, State::On(_));
        if is_on {
            self.state = State::Off;
            self.told = None;
            self.missing = None;
        }
        is_on
    }

    /// Takes a page of the listing, and asks for the next one or for the watch. Only where people look
    /// on is the whole directory read.
    pub(super) fn on_page(
        &mut self,
        version: DirectoryVersion,
        entries: Vec<Entry>,
        next: Option<Cursor>,
        tells_people: bool,
    ) -> Option<DirectoryRequest> {
        let State::Listing(listing) = &mut self.state else {
            return None;
        };
        let since = *listing.since.get_or_insert(version);
        for entry in entries {
            listing.add(entry, self.told.as_ref());
        }
        let has_room = listing.present.len() < LIST_ENTRIES_MAX;
        listing.is_whole = next.is_none() || !has_room;
        let after = next.filter(|_| tells_people && has_room);
        if after.is_some() {
            return Some(DirectoryRequest::List { after });
        }
        self.state = State::Asking(std::mem::take(listing));
        Some(DirectoryRequest::Watch { since })
    }

    /// The watch is on. Returns what changed since the last one was ended.
    pub(super) fn on_begun(&mut self, tells_people: bool, now: Instant) -> Vec<Change> {
        let State::Asking(listing) = &mut self.state else {
            return Vec::new();
        };
        let Listing {
            present,
            news,
            is_whole,
            ..
        } = std::mem::take(listing);
        self.state = State::On(now);
        let is_resumed = std::mem::take(&mut self.is_resumed);
        if !tells_people || !is_whole {
            self.told = None;
            self.missing = None;
            return Vec::new();
        }
        let mut before = self.told.take().unwrap_or_default();
        // Whoever is there since the same time has not had to come back.
        let is_same = |(place, seen): (_, &(UnixTime, Status))| {
            let now: Option<&(UnixTime, Status)> = present.get(place);
            now.is_some_and(|(since, _)| *since == seen.0)
        };
        let was_away = is_resumed && !before.iter().any(is_same);
        before.retain(|place, _| !present.contains_key(place));
        let (until, awaited) =
            (self.missing.take()).unwrap_or_else(|| (now + RETURN_PATIENCE, BTreeSet::new()));
        let (missing, gone): (Present, Present) = before
            .into_iter()
            .partition(|(place, _)| was_away || awaited.contains(place));
        if !missing.is_empty() {
            self.missing = Some((until, missing.keys().cloned().collect()));
        }
        let told = self.told.insert(present);
        told.extend(missing);
        let gone = gone.into_keys().map(offline);
        gone.chain(news.into_iter().map(Change::Online)).collect()
    }

    /// Those who have not come back in time, after the server was away. They are told, and not known any more.
    pub(super) fn take_gone(&mut self, now: Instant) -> Vec<Change> {
        let Some((_, missing)) = self.missing.take_if(|(until, _)| *until <= now) else {
            return Vec::new();
        };
        let changes: Vec<Change> = missing.into_iter().map(offline).collect();
        self.on_changes(&changes);
        changes
    }

    /// Tells whether there was a time in this session that nothing was pushed in.
    pub(super) const fn has_paused(&self) -> bool {
        self.failures > 0
    }

    /// The server did not do what was asked.
    pub(super) fn on_refused(&mut self, now: Instant) {
        if matches!(self.state, State::Listing(_) | State::Asking(_)) {
            self.rest(now);
        }
    }

    /// Keeps in mind what people are told.
    pub(super) fn on_changes(&mut self, changes: &[Change]) {
        let Some(told) = &mut self.told else { return };
        for change in changes {
            if let Some((_, missing)) = &mut self.missing {
                missing.remove(&place_of(change));
            }
            match change {
                Change::Online(entry) if told.len() < LIST_ENTRIES_MAX => {
                    told.insert(place(entry), (entry.since, entry.status));
                }
                Change::Online(_) => {}
                Change::Offline {
                    account,
                    device_key,
                } => {
                    told.remove(&(account.clone(), *device_key));
                }
            }
        }
    }

    /// The server ended the watch. What it says of an earlier one comes before its answer to the
    /// present one, and changes nothing.
    pub(super) fn on_ended(&mut self, now: Instant) {
        let State::On(since) = self.state else {
            return;
        };
        log::info!("the server ended the watch: more changes than it tells one watcher");
        if now.saturating_duration_since(since) > WATCH_BACKOFF_MAX {
            self.failures = 0;
        }
        self.rest(now);
    }

    /// When [`Watch::start`] or [`Watch::take_gone`] is worth a call.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let rest = match self.state {
            State::Resting(until) => Some(until),
            State::Off | State::Listing(_) | State::Asking(_) | State::On(_) => None,
        };
        let missing = self.missing.as_ref().map(|(until, _)| *until);
        rest.into_iter().chain(missing).min()
    }

    fn rest(&mut self, now: Instant) {
        self.failures = self.failures.saturating_add(1);
        let longest = longest_pause(self.failures);
        let pause = self.rng.random_range(WATCH_BACKOFF_FIRST..=longest);
        self.state = State::Resting(now + pause);
    }
}

/// The longest pause after so many watches that were ended: 2 s, 4 s and so on.
fn longest_pause(failures: u32) -> Duration {
    let doubled = WATCH_BACKOFF_FIRST * 2u32.saturating_pow(failures.min(16));
    doubled.min(WATCH_BACKOFF_MAX)
}

impl Listing {
    fn add(&mut self, entry: Entry, told: Option<&Present>) {
        let (place, seen) = (place(&entry), (entry.since, entry.status));
        if told.is_some_and(|told| told.get(&place) != Some(&seen)) {
            self.news.push(entry);
        }
        self.present.insert(place, seen);
    }
}

fn offline((account, device_key): (AccountName, DeviceKey)) -> Change {
    Change::Offline {
        account,
        device_key,
    }
}

fn place_of(change: &Change) -> (AccountName, DeviceKey) {
    match change {
        Change::Online(entry) => place(entry),
        Change::Offline {
            account,
            device_key,
        } => (account.clone(), *device_key),
    }
}

fn place(entry: &Entry) -> (AccountName, DeviceKey) {
    (entry.account.clone(), entry.device_key)
}

#[cfg(test)]
mod tests {
    use common::id::DeviceName;
    use common::key::DeviceSecret;
    use rand::SeedableRng;

    use super::*;

    fn entry(device: u8, status: Status) -> Entry {
        Entry {
            account: format!("user{device}").parse().unwrap(),
            device_name: DeviceName::lossy("laptop"),
            device_key: DeviceSecret::from_seed([device; 32]).public(),
            status,
            since: UnixTime::default(),
            candidates: Vec::new(),
        }
    }

    #[expect(clippy::disallowed_methods, reason = "any instant will do as a start")]
    fn new() -> (Watch, Instant) {
        (Watch::new(StdRng::from_seed([1; 32])), Instant::now())
    }

    fn version(number: u64) -> DirectoryVersion {
        DirectoryVersion(number)
    }

    /// Lists these, in one page, and watches.
    fn begin(watch: &mut Watch, entries: Vec<Entry>, now: Instant) -> Vec<Change> {
        assert_eq!(
            watch.start(true, now),
            Some(DirectoryRequest::List { after: None })
        );
        assert_eq!(watch.start(true, now), None, "it is under way");
        let asked = watch.on_page(version(7), entries, None, true);
        assert_eq!(asked, Some(DirectoryRequest::Watch { since: version(7) }));
        watch.on_begun(true, now)
    }

    #[test]
    fn the_pauses_grow_vary_and_begin_anew_after_a_good_watch() {
        let mut pauses = Vec::new();
        for seed in 0..20 {
            let (mut watch, mut now) = new();
            watch.rng = StdRng::from_seed([seed; 32]);
            for failures in 1..10 {
                begin(&mut watch, Vec::new(), now);
                watch.on_ended(now);
                let due = watch.poll_timeout().unwrap();
                assert_eq!(watch.start(true, due - Duration::from_nanos(1)), None);
                pauses.push((failures, due - now));
                now = due;
            }
            begin(&mut watch, Vec::new(), now);
            now += WATCH_BACKOFF_MAX + Duration::from_secs(1);
            watch.on_ended(now);
            let pause = watch.poll_timeout().unwrap() - now;
            assert!(pause <= longest_pause(1), "{pause:?}");
        }
        for (failures, pause) in &pauses {
            let range = WATCH_BACKOFF_FIRST..=longest_pause(*failures);
            assert!(range.contains(pause), "{failures}: {pause:?}");
        }
        assert_eq!((longest_pause(1), longest_pause(9)).1, WATCH_BACKOFF_MAX);
        let late = pauses.iter().filter(|(failures, _)| *failures == 9);
        let late: BTreeSet<_> = late.map(|(_, pause)| *pause).collect();
        assert!(late.len() > 10, "they come back spread out: {late:?}");
    }

    #[test]
    fn people_are_told_what_changed_while_nothing_was_pushed() {
        let (mut watch, now) = new();
        let before = vec![entry(1, Status::Available), entry(2, Status::Available)];
        assert_eq!(
            begin(&mut watch, before, now),
            [],
            "they list by themselves"
        );
        let came = Change::Online(entry(3, Status::Available));
        watch.on_changes(&[came]);
        watch.on_ended(now);
        let now = watch.poll_timeout().unwrap();
        let after = vec![
            entry(1, Status::Available),
            entry(3, Status::Busy),
            entry(4, Status::Away),
        ];
        let Entry {
            account,
            device_key,
            ..
        } = entry(2, Status::Available);
        let gone = Change::Offline {
            account,
            device_key,
        };
        let changes = begin(&mut watch, after, now);
        let online = [entry(3, Status::Busy), entry(4, Status::Away)].map(Change::Online);
        assert_eq!(changes[0], gone);
        assert_eq!(changes[1..], online);
    }

    #[test]
    fn whoever_comes_back_to_a_server_that_was_away_has_not_left() {
        let (mut watch, now) = new();
        let mut all: Vec<_> = (1..5)
            .map(|device| entry(device, Status::Available))
            .collect();
        begin(&mut watch, all.clone(), now);
        watch.reset();
        // They log in anew, each at its own time.
        all[0].since = UnixTime::from_millis(1);
        // One is there in the first listing, one is pushed, one leaves although it came back, and one stays away.
        let back = Change::Online(all[0].clone());
        assert_eq!(begin(&mut watch, all[..1].to_vec(), now), [back]);
        let due = watch.poll_timeout().unwrap();
        assert_eq!(due, now + RETURN_PATIENCE);
        watch.on_changes(&[
            Change::Online(all[1].clone()),
            Change::Online(all[2].clone()),
        ]);
        let gone = |entry: &Entry| offline(place(entry));
        watch.on_changes(&[gone(&all[2])]);
        assert_eq!(watch.take_gone(due - Duration::from_nanos(1)), []);
        assert_eq!(watch.take_gone(due), [gone(&all[3])]);
        assert_eq!((watch.take_gone(due), watch.poll_timeout()), (vec![], None));
        assert_eq!(watch.told.as_ref().unwrap().len(), 2);
        // Within a session whoever is not listed has left.
        watch.on_ended(due);
        let now = watch.poll_timeout().unwrap();
        assert_eq!(begin(&mut watch, all[..1].to_vec(), now), [gone(&all[1])]);
    }

    #[test]
    fn where_the_server_was_there_all_the_time_whoever_is_missing_has_left() {
        let (mut watch, now) = new();
        let all = [1, 2].map(|device| entry(device, Status::Available));
        begin(&mut watch, all.to_vec(), now);
        watch.reset();
        let gone = offline(place(&all[1]));
        assert_eq!(begin(&mut watch, all[..1].to_vec(), now), [gone]);
        assert_eq!(watch.poll_timeout(), None);
    }

    #[test]
    fn who_is_missing_is_missing_still_after_another_listing() {
        let (mut watch, now) = new();
        let all = [1, 2].map(|device| entry(device, Status::Available));
        begin(&mut watch, all.to_vec(), now);
        watch.reset();
        begin(&mut watch, Vec::new(), now);
        // The listing is asked for again in the same session, and then the server goes once more.
        watch.on_ended(now);
        let again = watch.poll_timeout().unwrap();
        assert_eq!(begin(&mut watch, Vec::new(), again), []);
        watch.reset();
        let later = now + Duration::from_secs(20);
        let mut back = all[0].clone();
        back.since = UnixTime::from_millis(1);
        let online = Change::Online(back.clone());
        assert_eq!(begin(&mut watch, vec![back], later), [online]);
        let gone = watch.take_gone(later + RETURN_PATIENCE);
        assert_eq!(gone, [offline(place(&all[1]))]);
    }

    #[test]
    fn what_is_said_of_an_earlier_watch_does_not_disturb_a_listing() {
        let (mut watch, now) = new();
        watch.start(true, now);
        watch.on_ended(now);
        let last = entry(1, Status::Available);
        let cursor = || Cursor {
            account: last.account.clone(),
            device_key: last.device_key,
        };
        let next = watch.on_page(version(5), vec![last.clone()], Some(cursor()), true);
        let after = Some(cursor());
        assert_eq!(next, Some(DirectoryRequest::List { after }));
        watch.on_ended(now);
        // The version of the first page: what changed since is pushed.
        let asked = watch.on_page(version(9), vec![entry(2, Status::Away)], None, true);
        assert_eq!(asked, Some(DirectoryRequest::Watch { since: version(5) }));
        watch.on_ended(now);
        assert_eq!(watch.poll_timeout(), None, "no pause so far");
        assert_eq!(watch.on_begun(true, now), []);
        watch.on_ended(now);
        assert!(watch.poll_timeout().is_some());
    }

    #[test]
    fn where_nobody_looks_on_one_page_is_enough() {
        let (mut watch, now) = new();
        watch.start(false, now);
        let last = entry(1, Status::Available);
        let next = Cursor {
            account: last.account.clone(),
            device_key: last.device_key,
        };
        let asked = watch.on_page(version(5), vec![last], Some(next), false);
        assert_eq!(asked, Some(DirectoryRequest::Watch { since: version(5) }));
        assert_eq!(watch.on_begun(false, now), []);
        assert!(watch.told.is_none());
        // Somebody does now.
        assert_eq!(watch.start(false, now), None);
        let all = watch.start(true, now);
        assert_eq!(all, Some(DirectoryRequest::List { after: None }));
        watch.on_page(version(6), Vec::new(), None, true);
        watch.on_begun(true, now);
        assert_eq!(watch.start(true, now), None);
        assert!(watch.stop());
        assert!(!watch.stop());
    }
}
