//! Limits the rate at which a device may announce itself.
//!
//! Each announcement is pushed to every watcher, so a device may make a few at once and then one per
//! `ANNOUNCE_INTERVAL`. One that comes too soon waits; of several only the newest does. The limit belongs
//! to the device and not to its session, so logging in again does not reset it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use common::key::DeviceKey;
use common::limits::{ANNOUNCE_INTERVAL, ANNOUNCEMENTS_BURST_MAX, ANNOUNCERS_MAX, Occupancy};
use common::wire::rendezvous::Entry;

use crate::token_bucket::{Rate, TokenBucket};

const RATE: Rate = Rate {
    interval: ANNOUNCE_INTERVAL,
    burst: ANNOUNCEMENTS_BURST_MAX,
};

/// The devices that announced themselves lately.
#[derive(Debug, Default)]
pub(super) struct Announcers {
    devices: BTreeMap<DeviceKey, Announcer>,
    /// When each announcement that waits is due, and each other device can be forgotten.
    due: BTreeSet<(Instant, DeviceKey)>,
}

#[derive(Debug)]
struct Announcer {
    bucket: TokenBucket,
    waiting: Option<Box<Entry>>,
    due: Instant,
}

impl Announcers {
    /// Takes an announcement. Returns it if it takes effect now; else it waits, in the place of the one
    /// that waited before.
    pub(super) fn submit(&mut self, entry: Entry, now: Instant) -> Option<Entry> {
        let key = entry.device_key;
        let announcer = self.devices.entry(key).or_insert_with(|| Announcer {
            bucket: TokenBucket::new(now),
            waiting: None,
            due: now,
        });
        self.due.remove(&(announcer.due, key));
        let (for_now, waiting) = if announcer.bucket.take(1, RATE, now) {
            (Some(entry), None)
        } else {
            (None, Some(Box::new(entry)))
        };
        announcer.waiting = waiting;
        announcer.schedule(now);
        self.due.insert((announcer.due, key));
        for_now
    }

    /// Tells whether an announcement of this device waits.
    pub(super) fn is_waiting(&self, key: &DeviceKey) -> bool {
        let announcer = self.devices.get(key);
        announcer.is_some_and(|announcer| announcer.waiting.is_some())
    }

    /// Drops the waiting announcement of a device that is gone, but keeps its bucket.
    pub(super) fn forget(&mut self, key: &DeviceKey, now: Instant) {
        if let Some(announcer) = self.devices.get_mut(key) {
            self.due.remove(&(announcer.due, *key));
            announcer.waiting = None;
            announcer.schedule(now);
            self.due.insert((announcer.due, *key));
        }
    }

    /// The next announcement that is due, or that has to make room for others. Devices whose buckets are
    /// full again are forgotten on the way.
    pub(super) fn take_due(&mut self, now: Instant) -> Option<Entry> {
        while let Some((due, key)) = self.due.first().copied()
            && (due <= now || self.devices.len() > ANNOUNCERS_MAX)
        {
            self.due.pop_first();
            let announcer = self.devices.remove(&key);
            let mut announcer = announcer.expect("each moment has its device");
            let Some(entry) = announcer.waiting.take() else {
                continue;
            };
            if announcer.bucket.take(1, RATE, now) {
                announcer.schedule(now);
                self.due.insert((announcer.due, key));
                self.devices.insert(key, announcer);
            }
            return Some(*entry);
        }
        None
    }

    /// When to call [`Announcers::take_due`].
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.due.first().map(|(at, _)| *at)
    }

    /// The number of devices that are remembered.
    pub(super) fn occupancy(&self) -> Occupancy {
        Occupancy::new("recent announcers", self.devices.len(), ANNOUNCERS_MAX)
    }
}

impl Announcer {
    /// Sets when the waiting announcement is due, or else when the device can be forgotten.
    fn schedule(&mut self, now: Instant) {
        self.due = match self.waiting {
            Some(_) => self.bucket.ready_at(RATE, now),
            None => self.bucket.full_at(),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use common::id::DeviceName;
    use common::time::UnixTime;
    use common::wire::rendezvous::{Candidate, CandidateKind, Status};

    fn entry(device: u32, port: u16) -> Entry {
        let mut key = [1; 32];
        key[..4].copy_from_slice(&device.to_be_bytes());
        Entry {
            account: "alice".parse().unwrap(),
            device_name: DeviceName::lossy("laptop"),
            device_key: DeviceKey::from_bytes(key).unwrap(),
            status: Status::Available,
            since: UnixTime::from_millis(1),
            candidates: vec![Candidate {
                endpoint: ([192, 0, 2, 1], port).into(),
                kind: CandidateKind::Host,
            }],
        }
    }

    #[expect(clippy::disallowed_methods, reason = "any instant will do as a start")]
    fn start() -> Instant {
        Instant::now()
    }

    #[test]
    fn a_few_are_for_now_and_the_newest_of_the_others_is_for_later() {
        let start = start();
        let mut announcers = Announcers::default();
        for port in 1..=ANNOUNCEMENTS_BURST_MAX as u16 {
            assert!(announcers.submit(entry(1, port), start).is_some());
        }
        for port in [97, 98, 99] {
            assert_eq!(announcers.submit(entry(1, port), start), None);
        }
        assert!(
            announcers.submit(entry(2, 1), start).is_some(),
            "each device for itself"
        );
        assert_eq!(announcers.take_due(start), None);
        let due = announcers.poll_timeout().unwrap();
        assert_eq!(due, start + ANNOUNCE_INTERVAL);
        assert_eq!(announcers.take_due(due), Some(entry(1, 99)));
        assert_eq!(announcers.take_due(due), None);
        // Long after, nothing is remembered.
        let late = start + ANNOUNCE_INTERVAL * (ANNOUNCEMENTS_BURST_MAX + 1);
        assert_eq!(announcers.take_due(late), None);
        assert_eq!(announcers.occupancy().count, 0);
        assert_eq!(announcers.poll_timeout(), None);
    }

    #[test]
    fn a_device_that_is_gone_says_nothing_later_and_gains_nothing() {
        let start = start();
        let mut announcers = Announcers::default();
        for port in 0..=ANNOUNCEMENTS_BURST_MAX as u16 {
            announcers.submit(entry(1, port), start);
        }
        let key = entry(1, 0).device_key;
        assert!(announcers.is_waiting(&key));
        announcers.forget(&key, start);
        assert!(!announcers.is_waiting(&key));
        assert_eq!(announcers.take_due(start + ANNOUNCE_INTERVAL / 2), None);
        assert_eq!(
            announcers.submit(entry(1, 9), start),
            None,
            "its next session"
        );
    }

    #[test]
    fn t15_so_many_devices_are_remembered_and_the_first_to_be_due_makes_room() {
        let start = start();
        let mut announcers = Announcers::default();
        for port in 0..=ANNOUNCEMENTS_BURST_MAX as u16 {
            announcers.submit(entry(0, port), start);
        }
        for device in 1..=ANNOUNCERS_MAX as u32 {
            let later = start + ANNOUNCE_INTERVAL / 2;
            assert!(announcers.submit(entry(device, 1), later).is_some());
        }
        assert_eq!(announcers.occupancy().count, ANNOUNCERS_MAX + 1);
        // What it said last is not lost: it is said early.
        let last = entry(0, ANNOUNCEMENTS_BURST_MAX as u16);
        assert_eq!(announcers.take_due(start), Some(last));
        assert_eq!(announcers.take_due(start), None);
        assert_eq!(announcers.occupancy().count, ANNOUNCERS_MAX);
    }
}
