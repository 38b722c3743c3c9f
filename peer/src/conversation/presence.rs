//! Who is online, and who is known to exist, as far as this device has been told.
//!
//! The server does not tell an account that is offline from one that does not exist. Whoever was online,
//! wrote, or has a pinned key does exist.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use common::id::AccountName;
use common::limits::{KNOWN_NAMES_MAX, LIST_ENTRIES_MAX};

use crate::node::command::{Listed, PresenceView};

/// Whoever is not listed when the connection to the server is back has not left before this time is over:
/// a server that was away is found again by one device sooner than by another.
const RETURN_PATIENCE: Duration = Duration::from_secs(30);

/// Why an account is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Absence {
    /// None of its devices is online.
    Offline,
    /// It is not listed, and nothing shows that there is such an account.
    Unheard,
}

/// The accounts that are online, with the fingerprints of their devices, and those that exist.
#[derive(Debug, Default)]
pub(crate) struct Presence {
    /// At most [`LIST_ENTRIES_MAX`] devices.
    online: BTreeMap<AccountName, BTreeSet<String>>,
    devices: usize,
    /// The directory was listed before.
    is_listed: bool,
    /// `online` is what the server says now, not what it said before the connection was lost.
    is_current: bool,
    /// Accounts that were online before the connection was lost and are not listed, and when they count as
    /// having left; at most as many as were online.
    missing: BTreeMap<AccountName, Instant>,
    /// At most [`KNOWN_NAMES_MAX`].
    existing: BTreeSet<AccountName>,
}

impl Presence {
    /// Takes the whole directory. Returns the accounts that came online or went offline since it was
    /// listed before, each with whether it is online. Those who are not there yet after the connection was
    /// lost follow with [`Presence::take_left`].
    pub(crate) fn on_listed(
        &mut self,
        devices: &[Listed],
        now: Instant,
    ) -> Vec<(AccountName, bool)> {
        let before = std::mem::take(&mut self.online);
        self.devices = 0;
        let was_lost = !std::mem::replace(&mut self.is_current, true);
        for device in devices {
            self.add(device);
        }
        if !std::mem::replace(&mut self.is_listed, true) {
            return Vec::new();
        }
        let online = &self.online;
        let missing = std::mem::take(&mut self.missing).into_iter();
        let (back, missing): (BTreeMap<_, _>, _) =
            missing.partition(|(name, _)| online.contains_key(name));
        self.missing = missing;
        let came = online.keys();
        let came = came.filter(|name| !before.contains_key(*name) && !back.contains_key(*name));
        let mut changes: Vec<_> = came.map(|name| (name.clone(), true)).collect();
        for (name, _) in before {
            if online.contains_key(&name) {
                continue;
            }
            if was_lost {
                self.missing.insert(name, now + RETURN_PATIENCE);
            } else {
                changes.push((name, false));
            }
        }
        changes
    }

    /// Takes out those who have not come back in time since the connection was lost.
    pub(crate) fn take_left(&mut self, now: Instant) -> Vec<AccountName> {
        let missing = std::mem::take(&mut self.missing).into_iter();
        let (left, missing): (BTreeMap<_, _>, _) = missing.partition(|(_, until)| now >= *until);
        self.missing = missing;
        left.into_keys().collect()
    }

    /// When [`Presence::take_left`] is due.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.missing.values().min().copied()
    }

    /// Takes a change. Returns the account and whether it is online, if that is another than before.
    pub(crate) fn on_change(&mut self, change: &PresenceView) -> Option<(AccountName, bool)> {
        match change {
            PresenceView::Online(device) => {
                let was_missing = self.missing.remove(&device.account).is_some();
                let was_online = self.online.contains_key(&device.account) || was_missing;
                self.add(device);
                (!was_online).then(|| (device.account.clone(), true))
            }
            PresenceView::Offline {
                account,
                fingerprint,
            } => {
                self.add_existing(account);
                let devices = self.online.get_mut(account)?;
                self.devices -= usize::from(devices.remove(fingerprint));
                if !devices.is_empty() {
                    return None;
                }
                self.online.remove(account);
                Some((account.clone(), false))
            }
        }
    }

    /// The connection to the server is lost: who is online is unknown until the directory is listed again.
    pub(crate) const fn on_connection_lost(&mut self) {
        self.is_current = false;
    }

    /// Adds an account that is known to exist.
    pub(crate) fn add_existing(&mut self, account: &AccountName) {
        if self.existing.len() < KNOWN_NAMES_MAX && !self.existing.contains(account) {
            self.existing.insert(account.clone());
        }
    }

    /// Tells whether an account is known to exist.
    pub(crate) fn exists(&self, account: &AccountName) -> bool {
        self.existing.contains(account)
    }

    /// Tells whether who is online is known now.
    pub(crate) const fn is_current(&self) -> bool {
        self.is_current
    }

    /// Why an account is not there; `None` if it is online, or if that is unknown.
    pub(crate) fn absence(&self, account: &AccountName) -> Option<Absence> {
        if !self.is_current || self.online.contains_key(account) {
            None
        } else if self.exists(account) {
            Some(Absence::Offline)
        } else {
            Some(Absence::Unheard)
        }
    }

    fn add(&mut self, device: &Listed) {
        self.add_existing(&device.account);
        if self.devices < LIST_ENTRIES_MAX {
            let devices = self.online.entry(device.account.clone()).or_default();
            self.devices += usize::from(devices.insert(device.fingerprint.clone()));
        }
    }
}

/// The accounts of files under way that were told to have left: only they are told to be back.
#[derive(Debug, Default)]
pub(crate) struct Departed(BTreeSet<AccountName>);

impl Departed {
    /// An account came online or left. Returns whether to tell that; `has_file` tells whose files are under way.
    pub(crate) fn is_told(
        &mut self,
        account: &AccountName,
        is_online: bool,
        has_file: impl Fn(&AccountName) -> bool,
    ) -> bool {
        self.0.retain(|departed| has_file(departed));
        if is_online {
            self.0.remove(account)
        } else {
            has_file(account) && self.0.insert(account.clone())
        }
    }

    /// An account offers a file: it is there, whatever the server says.
    pub(crate) fn on_offer(&mut self, account: &AccountName) {
        self.0.remove(account);
    }

    /// Tells whether an account was told to have left and not to be back.
    pub(crate) fn contains(&self, account: &AccountName) -> bool {
        self.0.contains(account)
    }
}

#[cfg(test)]
mod tests {
    use common::id::DeviceName;
    use common::time::UnixTime;
    use common::wire::rendezvous::Status;

    use super::*;
    use crate::node::command::KeyState;

    fn name(text: &str) -> AccountName {
        text.parse().unwrap()
    }

    fn device(account: &str, fingerprint: &str) -> Listed {
        Listed {
            account: name(account),
            device: DeviceName::lossy("laptop"),
            fingerprint: fingerprint.to_owned(),
            key: KeyState::Known,
            is_verified: false,
            status: Status::Available,
            since: UnixTime::default(),
            endpoints: Vec::new(),
            is_self: false,
        }
    }

    fn came(account: &str, fingerprint: &str) -> PresenceView {
        PresenceView::Online(device(account, fingerprint))
    }

    fn left(account: &str, fingerprint: &str) -> PresenceView {
        PresenceView::Offline {
            account: name(account),
            fingerprint: fingerprint.to_owned(),
        }
    }

    #[expect(clippy::disallowed_methods, reason = "any instant will do")]
    fn now() -> Instant {
        Instant::now()
    }

    #[test]
    fn whoever_comes_back_to_the_server_a_little_later_has_not_left() {
        let start = now();
        let mut presence = Presence::default();
        let all = ["bob", "carol", "dave", "erin"].map(|who| device(who, "1"));
        presence.on_listed(&all, start);
        presence.on_connection_lost();
        assert_eq!(presence.on_listed(&all[..1], start), []);
        // In the next list, by itself, and never.
        assert_eq!(presence.on_listed(&all[..2], start), []);
        assert_eq!(presence.on_change(&came("dave", "1")), None);
        assert_eq!(presence.absence(&name("erin")), Some(Absence::Offline));
        let due = presence.poll_timeout().unwrap();
        assert_eq!(due, start + RETURN_PATIENCE);
        let almost = due - Duration::from_nanos(1);
        assert_eq!(presence.take_left(almost), [] as [AccountName; 0]);
        assert_eq!(presence.take_left(due), [name("erin")]);
        assert_eq!(presence.poll_timeout(), None);
        let back = presence.on_change(&came("erin", "1"));
        assert_eq!(back, Some((name("erin"), true)));
    }

    #[test]
    fn whoever_left_a_file_has_left_until_back_or_until_offering_another() {
        let (alice, bob) = (name("alice"), name("bob"));
        let has_file = |account: &AccountName| *account == name("alice");
        let mut departed = Departed::default();
        assert!(!departed.is_told(&bob, false, has_file));
        assert!(!departed.contains(&bob));
        for is_back_in_list in [true, false] {
            assert!(departed.is_told(&alice, false, has_file));
            assert!(departed.contains(&alice));
            if is_back_in_list {
                assert!(departed.is_told(&alice, true, has_file));
            } else {
                departed.on_offer(&alice);
            }
            assert!(!departed.contains(&alice));
        }
        assert!(!departed.is_told(&alice, true, has_file));
    }

    #[test]
    fn an_account_is_online_while_one_of_its_devices_is() {
        let mut presence = Presence::default();
        assert_eq!(presence.on_listed(&[device("bob", "1")], now()), []);
        for (change, news) in [
            (came("bob", "1"), None),
            (came("bob", "2"), None),
            (left("bob", "1"), None),
            (left("bob", "1"), None),
            (left("bob", "2"), Some((name("bob"), false))),
            (left("bob", "2"), None),
            (came("bob", "1"), Some((name("bob"), true))),
        ] {
            assert_eq!(presence.on_change(&change), news, "{change:?}");
        }
        let changes = presence.on_listed(&[device("carol", "1")], now());
        assert_eq!(changes, [(name("carol"), true), (name("bob"), false)]);
    }

    #[test]
    fn who_is_offline_is_told_from_whom_nobody_has_heard_of() {
        let mut presence = Presence::default();
        assert_eq!(presence.absence(&name("bob")), None, "nothing is known");
        presence.on_listed(&[device("bob", "1")], now());
        presence.add_existing(&name("dave"));
        presence.on_change(&left("erin", "1"));
        assert_eq!(presence.absence(&name("bob")), None);
        assert_eq!(presence.absence(&name("carol")), Some(Absence::Unheard));
        for who in ["dave", "erin"] {
            assert_eq!(presence.absence(&name(who)), Some(Absence::Offline));
        }
        presence.on_listed(&[], now());
        assert_eq!(presence.absence(&name("bob")), Some(Absence::Offline));
        presence.on_connection_lost();
        assert_eq!(presence.absence(&name("bob")), None);
    }

    #[test]
    fn a_server_that_names_accounts_without_end_fills_no_memory() {
        let mut presence = Presence::default();
        for number in 0..LIST_ENTRIES_MAX + 10 {
            presence.on_change(&came(&format!("user{number}"), "1"));
        }
        assert_eq!(presence.devices, LIST_ENTRIES_MAX);
        assert_eq!(presence.online.len(), LIST_ENTRIES_MAX);
        assert_eq!(presence.existing.len(), KNOWN_NAMES_MAX);
    }
}
