//! Who is online: an ordered map, a version that grows with each change, and a short log of changes.
//!
//! The log holds names only. A watcher gets the present state of whatever changed since its version,
//! so ten changes of one device cost one line, and the cost of a push grows with the change and not
//! with the directory.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::ops::Bound;
use std::sync::Arc;

use common::candidate::is_single_host;
use common::id::AccountName;
use common::key::DeviceKey;
use common::limits::{
    CANDIDATES_MAX, CHANGES_PER_PUSH_MAX, ENTRIES_PER_PAGE_MAX, Occupancy, PRESENCE_LOG_MAX,
};
use common::stun::canonical;
use common::wire::rendezvous::{
    Candidate, CandidateKind, Change, Cursor, DirectoryPush, DirectoryVersion, Entry, Push,
    ServerFrame,
};

/// The devices that are online.
#[derive(Debug)]
pub struct Directory {
    accounts: BTreeMap<AccountName, BTreeMap<DeviceKey, Entry>>,
    /// Devices of all accounts.
    len: usize,
    version: u64,
    /// What changed, oldest first. The last one made the present version.
    log: VecDeque<Cursor>,
}

impl Directory {
    /// How full the log of changes is.
    pub fn occupancy(&self) -> Occupancy {
        Occupancy::new("remembered changes", self.log.len(), PRESENCE_LOG_MAX)
    }

    /// An empty directory whose versions start at `version`: one that no watcher of an earlier run of
    /// the server can have seen.
    pub const fn new(version: u64) -> Self {
        Self {
            accounts: BTreeMap::new(),
            len: 0,
            version,
            log: VecDeque::new(),
        }
    }

    /// Adds a device or replaces what it said before. Saying the same again is no change.
    pub fn insert(&mut self, entry: Entry) -> bool {
        let cursor = cursor_of(&entry);
        if self.entry(&cursor) == Some(&entry) {
            return false;
        }
        let devices = self.accounts.entry(cursor.account.clone()).or_default();
        if devices.insert(cursor.device_key, entry).is_none() {
            self.len += 1;
        }
        self.note(cursor);
        true
    }

    /// Removes a device; tells whether it was there.
    pub fn remove(&mut self, cursor: &Cursor) -> bool {
        let Some(devices) = self.accounts.get_mut(&cursor.account) else {
            return false;
        };
        if devices.remove(&cursor.device_key).is_none() {
            return false;
        }
        if devices.is_empty() {
            self.accounts.remove(&cursor.account);
        }
        self.len -= 1;
        self.note(cursor.clone());
        true
    }

    /// The entry of a device.
    pub fn entry(&self, cursor: &Cursor) -> Option<&Entry> {
        let devices = self.accounts.get(&cursor.account)?;
        devices.get(&cursor.device_key)
    }

    /// Tells whether a device says just this.
    pub fn contains(&self, entry: &Entry) -> bool {
        self.entry(&cursor_of(entry)) == Some(entry)
    }

    /// The present version.
    pub const fn version(&self) -> DirectoryVersion {
        DirectoryVersion(self.version)
    }

    /// How many devices are online, of all accounts.
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Tells whether nobody is online.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The page after a cursor, and the cursor of the next one.
    pub fn page(&self, after: Option<&Cursor>) -> (Vec<Entry>, Option<Cursor>) {
        let mut rest = self.entries_after(after);
        let entries: Vec<Entry> = rest.by_ref().take(ENTRIES_PER_PAGE_MAX).cloned().collect();
        let has_more = rest.next().is_some();
        let next = entries.last().filter(|_| has_more).map(cursor_of);
        (entries, next)
    }

    /// The devices of one account, at most a page.
    pub fn find(&self, account: &AccountName) -> Vec<Entry> {
        let devices = self.accounts.get(account).into_iter().flatten();
        let entries = devices.map(|(_, entry)| entry.clone());
        entries.take(ENTRIES_PER_PAGE_MAX).collect()
    }

    /// Tells whether the log reaches back to `since`.
    pub fn remembers(&self, since: DirectoryVersion) -> bool {
        since.0 <= self.version && self.oldest() <= since.0
    }

    /// The pushes that bring a watcher from `since` to the present; `None` if the log does not reach
    /// back so far.
    pub fn changes_since(&self, since: DirectoryVersion) -> Option<Changes> {
        if !self.remembers(since) {
            return None;
        }
        let skip = usize::try_from(since.0.saturating_sub(self.oldest())).unwrap_or(usize::MAX);
        let mut pushes = Vec::new();
        let mut count = 0;
        let mut version = since.0;
        let mut batch = BTreeSet::new();
        for cursor in self.log.iter().skip(skip) {
            if batch.len() == CHANGES_PER_PUSH_MAX && !batch.contains(cursor) {
                pushes.push(self.push(version, &batch));
                count += batch.len();
                batch.clear();
            }
            batch.insert(cursor);
            version += 1;
        }
        if !batch.is_empty() {
            pushes.push(self.push(version, &batch));
            count += batch.len();
        }
        Some(Changes { pushes, count })
    }

    fn push(&self, version: u64, batch: &BTreeSet<&Cursor>) -> Arc<ServerFrame> {
        let changes = batch.iter().map(|cursor| match self.entry(cursor) {
            Some(entry) => Change::Online(entry.clone()),
            None => Change::Offline {
                account: cursor.account.clone(),
                device_key: cursor.device_key,
            },
        });
        Arc::new(ServerFrame::Push(Push::Directory(
            DirectoryPush::Presence {
                version: DirectoryVersion(version),
                changes: changes.collect(),
            },
        )))
    }

    fn entries_after(&self, after: Option<&Cursor>) -> impl Iterator<Item = &Entry> {
        let beyond = |cursor: &Cursor| (Bound::Excluded(cursor.device_key), Bound::Unbounded);
        let same_account = after.and_then(|cursor| {
            let devices = self.accounts.get(&cursor.account)?;
            Some(devices.range(beyond(cursor)).map(|(_, entry)| entry))
        });
        let account = after.map_or(Bound::Unbounded, |cursor| Bound::Excluded(&cursor.account));
        let others = self
            .accounts
            .range::<AccountName, _>((account, Bound::Unbounded));
        let others = others.flat_map(|(_, devices)| devices.values());
        same_account.into_iter().flatten().chain(others)
    }

    fn note(&mut self, cursor: Cursor) {
        if self.log.len() >= PRESENCE_LOG_MAX {
            self.log.pop_front();
        }
        self.log.push_back(cursor);
        self.version += 1;
    }

    fn oldest(&self) -> u64 {
        self.version - self.log.len() as u64
    }
}

/// What a watcher has missed.
#[derive(Debug)]
pub struct Changes {
    /// To be sent in this order; shared by all who missed the same.
    pub pushes: Vec<Arc<ServerFrame>>,
    /// Changes in all of them.
    pub count: usize,
}

/// Where an entry stands in the directory.
fn cursor_of(entry: &Entry) -> Cursor {
    Cursor {
        account: entry.account.clone(),
        device_key: entry.device_key,
    }
}

/// What others may be told of the endpoints that a device announced over a control connection from
/// `source`: nothing that is not one other host's, and of each whether it has the IP address of that
/// connection. `None` if there are too many.
pub(super) fn admissible_candidates(
    announced: &[SocketAddr],
    source: SocketAddr,
) -> Option<Vec<Candidate>> {
    if announced.len() > CANDIDATES_MAX {
        return None;
    }
    let seen = source.ip().to_canonical();
    let mut kept = Vec::with_capacity(announced.len());
    for endpoint in announced.iter().copied().map(canonical) {
        let may_stay = endpoint.port() != 0 && is_single_host(endpoint.ip(), seen.is_loopback());
        let kind = if endpoint.ip() == seen {
            CandidateKind::ServerReflexive
        } else {
            CandidateKind::Host
        };
        let candidate = Candidate { endpoint, kind };
        if may_stay && !kept.contains(&candidate) {
            kept.push(candidate);
        }
    }
    Some(kept)
}

#[cfg(test)]
mod tests {
    use super::*;
    use common::id::DeviceName;
    use common::time::UnixTime;
    use common::wire::rendezvous::Status;

    fn entry(number: u32) -> Entry {
        let mut key = [1; 32];
        key[..4].copy_from_slice(&number.to_be_bytes());
        Entry {
            account: format!("user{:04}", number / 3).parse().unwrap(),
            device_name: DeviceName::lossy("laptop"),
            device_key: DeviceKey::from_bytes(key).unwrap(),
            status: Status::Available,
            since: UnixTime::from_millis(1),
            candidates: vec![host("192.0.2.1:4000")],
        }
    }

    fn host(endpoint: &str) -> Candidate {
        Candidate {
            endpoint: endpoint.parse().unwrap(),
            kind: CandidateKind::Host,
        }
    }

    fn server_reflexive(endpoint: &str) -> Candidate {
        Candidate {
            kind: CandidateKind::ServerReflexive,
            ..host(endpoint)
        }
    }

    /// All entries, as a watcher keeps them.
    fn all(directory: &Directory) -> BTreeMap<Cursor, Entry> {
        let entries = directory.entries_after(None);
        entries
            .map(|entry| (cursor_of(entry), entry.clone()))
            .collect()
    }

    /// What a watcher makes of pushes.
    fn follow(copy: &mut BTreeMap<Cursor, Entry>, pushes: &[Arc<ServerFrame>]) -> u64 {
        let mut seen = 0;
        for push in pushes {
            let ServerFrame::Push(Push::Directory(DirectoryPush::Presence { version, changes })) =
                &**push
            else {
                panic!("{push:?}");
            };
            assert!(changes.len() <= CHANGES_PER_PUSH_MAX);
            for change in changes {
                match change {
                    Change::Online(entry) => {
                        copy.insert(cursor_of(entry), entry.clone());
                    }
                    Change::Offline {
                        account,
                        device_key,
                    } => {
                        copy.remove(&Cursor {
                            account: account.clone(),
                            device_key: *device_key,
                        });
                    }
                }
            }
            seen = version.0;
        }
        seen
    }

    #[test]
    fn pages_join_to_the_whole_directory_in_order() {
        let mut directory = Directory::new(5);
        for number in (0..1000).rev() {
            assert!(directory.insert(entry(number)));
        }
        let (mut seen, mut after, mut pages) = (Vec::new(), None, 0);
        loop {
            let (entries, next) = directory.page(after.as_ref());
            seen.extend(entries);
            pages += 1;
            match next {
                Some(next) => after = Some(next),
                None => break,
            }
        }
        assert_eq!(seen, (0..1000).map(entry).collect::<Vec<_>>());
        assert_eq!(pages, 1000usize.div_ceil(ENTRIES_PER_PAGE_MAX));
        assert_eq!(directory.version(), DirectoryVersion(1005));
        let of_one = directory.find(&"user0100".parse().unwrap());
        assert_eq!(of_one, [entry(300), entry(301), entry(302)]);
        assert!(directory.find(&"nobody".parse().unwrap()).is_empty());
    }

    #[test]
    fn a_watcher_that_follows_the_pushes_has_the_directory() {
        let mut directory = Directory::new(0);
        for number in 0..500 {
            directory.insert(entry(number));
        }
        let mut copy: BTreeMap<Cursor, Entry> = all(&directory);
        let since = directory.version();
        for number in 0..300 {
            let mut changed = entry(number * 2);
            changed.status = Status::Away;
            directory.insert(changed);
            directory.remove(&cursor_of(&entry(number)));
        }
        assert!(directory.remembers(since));
        let changes = directory.changes_since(since).unwrap();
        let in_each = changes.pushes.iter().map(|push| match &**push {
            ServerFrame::Push(Push::Directory(DirectoryPush::Presence { changes, .. })) => {
                changes.len()
            }
            ServerFrame::Push(_) | ServerFrame::Answer { .. } => 0,
        });
        assert_eq!(changes.count, in_each.sum::<usize>());
        let seen = follow(&mut copy, &changes.pushes);
        assert_eq!(copy, all(&directory));
        assert_eq!(DirectoryVersion(seen), directory.version());
        let none = directory.changes_since(directory.version()).unwrap();
        assert_eq!((none.pushes.len(), none.count), (0, 0));
    }

    #[test]
    fn many_changes_of_one_device_are_one_line() {
        let mut directory = Directory::new(0);
        for round in 0..100 {
            let mut changed = entry(1);
            changed.since = UnixTime::from_millis(round);
            directory.insert(changed);
        }
        let Changes { pushes, count } = directory.changes_since(DirectoryVersion(0)).unwrap();
        assert_eq!(count, 1);
        let mut copy = BTreeMap::new();
        assert_eq!((pushes.len(), follow(&mut copy, &pushes)), (1, 100));
        assert_eq!(copy, all(&directory));
        assert!(
            !directory.insert(copy.into_values().next().unwrap()),
            "no news"
        );
    }

    #[test]
    fn the_log_is_bounded_and_says_when_it_is_too_short() {
        let mut directory = Directory::new(10);
        for number in 0..PRESENCE_LOG_MAX as u32 {
            directory.insert(entry(number));
        }
        assert!(directory.remembers(DirectoryVersion(10)));
        assert!(directory.changes_since(DirectoryVersion(10)).is_some());
        directory.insert(entry(u32::MAX / 3));
        assert!(!directory.remembers(DirectoryVersion(10)));
        assert!(directory.changes_since(DirectoryVersion(10)).is_none());
        assert!(directory.remembers(DirectoryVersion(11)));
        assert!(!directory.remembers(DirectoryVersion(u64::MAX)));
        assert_eq!(directory.log.len(), PRESENCE_LOG_MAX);
    }

    #[test]
    fn t22_candidates_that_lead_elsewhere_are_dropped() {
        let remote = "198.51.100.7:50000".parse().unwrap();
        let local = "[::ffff:127.0.0.1]:50000".parse().unwrap();
        let hostile: Vec<SocketAddr> = [
            "127.0.0.1:22",
            "[::1]:22",
            "[::ffff:127.0.0.1]:22",
            "169.254.169.254:80",
            "[::ffff:169.254.169.254]:80",
            "[64:ff9b::169.254.169.254]:80",
            "[::169.254.169.254]:80",
            "[fe80::1]:80",
            "0.0.0.0:80",
            "0.1.2.3:80",
            "[::]:80",
            "224.0.0.1:80",
            "255.255.255.255:80",
            "[ff02::1]:80",
            "192.0.2.1:0",
        ]
        .iter()
        .map(|text| text.parse().unwrap())
        .collect();
        assert_eq!(admissible_candidates(&hostile, remote), Some(Vec::new()));
        let loopback = ["127.0.0.1:22", "[::1]:22"].map(|text| text.parse().unwrap());
        let kept = [server_reflexive("127.0.0.1:22"), host("[::1]:22")];
        assert_eq!(admissible_candidates(&loopback, local), Some(kept.to_vec()));

        let honest = ["10.0.0.2:1", "192.0.2.1:4000", "[2001:db8::1]:4000"];
        let announced = honest.map(|text| text.parse().unwrap());
        let kept = admissible_candidates(&announced, remote);
        assert_eq!(kept, Some(honest.map(host).to_vec()));
        let mapped = ["[::ffff:192.0.2.1]:9".parse().unwrap()];
        let kept = admissible_candidates(&mapped, remote);
        assert_eq!(kept, Some(vec![host("192.0.2.1:9")]));
        let many = vec![announced[0]; CANDIDATES_MAX + 1];
        assert_eq!(admissible_candidates(&many, remote), None, "T23");
    }

    #[test]
    fn t23_only_the_ip_of_the_control_connection_is_vouched_for() {
        let announced = [
            "198.51.100.7:4000",
            "198.51.100.8:50000",
            "[::ffff:198.51.100.7]:4001",
            "[2001:db8::7]:4000",
        ]
        .map(|text| text.parse().unwrap());
        for source in ["198.51.100.7:50000", "[::ffff:198.51.100.7]:50000"] {
            let kept = admissible_candidates(&announced, source.parse().unwrap());
            let expected = [
                server_reflexive("198.51.100.7:4000"),
                host("198.51.100.8:50000"),
                server_reflexive("198.51.100.7:4001"),
                host("[2001:db8::7]:4000"),
            ];
            assert_eq!(kept, Some(expected.to_vec()), "from {source}");
        }
        let over_v6 = admissible_candidates(&announced, "[2001:db8::7]:1".parse().unwrap());
        let kinds = over_v6.unwrap().into_iter().map(|candidate| candidate.kind);
        use CandidateKind::{Host, ServerReflexive};
        let expected = [Host, Host, Host, ServerReflexive];
        assert_eq!(kinds.collect::<Vec<_>>(), expected);
    }
}
