//! Who is told when a device is no longer enrolled at its account.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use common::id::AccountName;
use common::key::DeviceKey;
use common::limits::{DEVICES_FOLLOWED_MAX, Occupancy};

use super::ConnectionId;

/// Devices that sessions have asked about, and the sessions.
///
/// A session that asks about more than [`DEVICES_FOLLOWED_MAX`] loses the one that it asked about first.
#[derive(Debug, Default)]
pub(super) struct Followers {
    devices: BTreeMap<DeviceKey, Followed>,
    /// Of each session its devices, in the order in which it asked.
    sessions: BTreeMap<ConnectionId, VecDeque<DeviceKey>>,
}

#[derive(Debug)]
struct Followed {
    /// Where the device is enrolled, as its followers were told.
    account: AccountName,
    followers: BTreeSet<ConnectionId>,
}

impl Followers {
    /// The session with the most devices.
    pub(super) fn occupancy(&self) -> Occupancy {
        let followed = self.sessions.values().map(VecDeque::len);
        Occupancy::fullest("devices followed", followed, DEVICES_FOLLOWED_MAX)
    }

    /// A session was told that a device is enrolled at an account.
    pub(super) fn follow(
        &mut self,
        session: ConnectionId,
        device_key: DeviceKey,
        account: &AccountName,
    ) {
        let followed = self.devices.entry(device_key).or_insert_with(|| Followed {
            account: account.clone(),
            followers: BTreeSet::new(),
        });
        if !followed.followers.insert(session) {
            return;
        }
        let devices = self.sessions.entry(session).or_default();
        devices.push_back(device_key);
        if devices.len() > DEVICES_FOLLOWED_MAX
            && let Some(first) = devices.pop_front()
        {
            self.leave(session, &first);
        }
    }

    /// A device is enrolled nowhere, or at `account`. Returns where it was, and who is to be told.
    pub(super) fn take(
        &mut self,
        device_key: &DeviceKey,
        account: Option<&AccountName>,
    ) -> Option<(AccountName, BTreeSet<ConnectionId>)> {
        let followed = self.devices.get(device_key)?;
        if Some(&followed.account) == account {
            return None;
        }
        let Followed { account, followers } = self.devices.remove(device_key)?;
        for session in &followers {
            if let Some(devices) = self.sessions.get_mut(session) {
                devices.retain(|key| key != device_key);
            }
        }
        Some((account, followers))
    }

    /// The devices of an account that anybody follows.
    pub(super) fn devices_of(&self, account: &AccountName) -> Vec<DeviceKey> {
        let of_account = |(_, followed): &(_, &Followed)| followed.account == *account;
        let devices = self.devices.iter().filter(of_account);
        devices.map(|(device_key, _)| *device_key).collect()
    }

    /// A session has ended.
    pub(super) fn forget(&mut self, session: ConnectionId) {
        for device_key in self.sessions.remove(&session).unwrap_or_default() {
            self.leave(session, &device_key);
        }
    }

    fn leave(&mut self, session: ConnectionId, device_key: &DeviceKey) {
        if let Some(followed) = self.devices.get_mut(device_key) {
            followed.followers.remove(&session);
            if followed.followers.is_empty() {
                self.devices.remove(device_key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: u64) -> DeviceKey {
        let mut bytes = [1; 32];
        bytes[..8].copy_from_slice(&number.to_be_bytes());
        DeviceKey::from_bytes(bytes).unwrap()
    }

    fn name(text: &str) -> AccountName {
        text.parse().unwrap()
    }

    #[test]
    fn whoever_asked_is_told_once() {
        let (alice, bob) = (name("alice"), name("bob"));
        let mut followers = Followers::default();
        for session in [1, 2, 2] {
            followers.follow(ConnectionId(session), key(1), &alice);
        }
        followers.follow(ConnectionId(3), key(2), &bob);
        assert_eq!(followers.take(&key(1), Some(&alice)), None, "it stays");
        assert_eq!(followers.devices_of(&alice), [key(1)]);
        let (account, told) = followers.take(&key(1), Some(&bob)).unwrap();
        assert_eq!(account, alice);
        assert!(told.into_iter().eq([ConnectionId(1), ConnectionId(2)]));
        assert_eq!(followers.take(&key(1), None), None);
        followers.forget(ConnectionId(3));
        assert_eq!(followers.take(&key(2), None), None);
        assert!(followers.devices.is_empty());
    }

    #[test]
    fn t20_a_session_follows_so_many_devices_and_no_more() {
        let alice = name("alice");
        let session = ConnectionId(1);
        let mut followers = Followers::default();
        for number in 0..=DEVICES_FOLLOWED_MAX as u64 {
            followers.follow(session, key(number), &alice);
        }
        let occupancy = followers.occupancy();
        assert_eq!(occupancy.count, occupancy.max);
        assert_eq!(followers.devices.len(), DEVICES_FOLLOWED_MAX);
        assert_eq!(
            followers.take(&key(0), None),
            None,
            "the first is forgotten"
        );
        assert!(followers.take(&key(1), None).is_some());
        followers.forget(session);
        assert!(followers.devices.is_empty() && followers.sessions.is_empty());
    }
}
