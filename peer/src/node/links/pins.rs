//! Pinned keys: which account each device key belongs to, as it was at first contact.

use std::collections::BTreeMap;

use common::id::AccountName;
use common::key::DeviceKey;
use common::limits::{Occupancy, PINS_MAX, PINS_PER_ACCOUNT_MAX};

use crate::node::command::KeyState;

/// The keys of the devices that were linked, within their bounds.
#[derive(Debug, Default)]
pub(super) struct Pins {
    owners: BTreeMap<DeviceKey, AccountName>,
    /// The keys of each account, in the order in which they were pinned.
    keys: BTreeMap<AccountName, Vec<DeviceKey>>,
}

/// A key that is pinned for the first time.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct NewPin {
    /// Keys of the same account that were pinned before, without the one that is forgotten.
    pub(super) known: usize,
    /// What had to make room.
    pub(super) forgotten: Option<(AccountName, DeviceKey)>,
}

/// A key is pinned to another account.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the key of a device is pinned to another account")]
pub(super) struct OtherOwner;

impl Pins {
    /// Takes the keys pinned in earlier runs, the oldest first. What is beyond the bounds is left out.
    pub(super) fn new(pinned: Vec<(AccountName, DeviceKey)>) -> Self {
        let mut pins = Self::default();
        for (account, device_key) in pinned {
            // Of two owners in a damaged store the first counts.
            let _ = pins.pin(device_key, &account);
        }
        pins
    }

    /// The occupancy of each bounded resource.
    pub(super) fn occupancies(&self) -> [Occupancy; 2] {
        let of_accounts = self.keys.values().map(Vec::len);
        [
            Occupancy::new("pinned keys", self.owners.len(), PINS_MAX),
            Occupancy::fullest(
                "pinned keys of an account",
                of_accounts,
                PINS_PER_ACCOUNT_MAX,
            ),
        ]
    }

    /// The account that a key is pinned to.
    pub(super) fn owner(&self, device_key: &DeviceKey) -> Option<&AccountName> {
        self.owners.get(device_key)
    }

    /// All pinned keys.
    pub(super) fn keys(&self) -> impl Iterator<Item = DeviceKey> {
        self.owners.keys().copied()
    }

    /// What is known of a key that is said to be `account`'s.
    pub(super) fn state(&self, device_key: &DeviceKey, account: &AccountName) -> KeyState {
        match self.owners.get(device_key) {
            Some(owner) if owner == account => KeyState::Known,
            Some(_) => KeyState::OtherAccount,
            None if self.keys.contains_key(account) => KeyState::New,
            None => KeyState::Unmet,
        }
    }

    /// The accounts with a pinned key, ordered by name.
    pub(super) fn accounts(&self) -> impl Iterator<Item = &AccountName> {
        self.keys.keys()
    }

    /// Pins a key at first contact; `None` if it was pinned to the account before.
    ///
    /// # Errors
    /// The key is pinned to another account, and stays so.
    pub(super) fn pin(
        &mut self,
        device_key: DeviceKey,
        account: &AccountName,
    ) -> Result<Option<NewPin>, OtherOwner> {
        match self.owners.get(&device_key) {
            Some(owner) if owner == account => return Ok(None),
            Some(_) => return Err(OtherOwner),
            None => {}
        }
        let forgotten = self.make_room(account);
        let keys = self.keys.entry(account.clone()).or_default();
        let known = keys.len();
        keys.push(device_key);
        self.owners.insert(device_key, account.clone());
        Ok(Some(NewPin { known, forgotten }))
    }

    /// Forgets all keys of an account, and returns them.
    pub(super) fn forget(&mut self, account: &AccountName) -> Vec<DeviceKey> {
        let keys = self.keys.remove(account).unwrap_or_default();
        for key in &keys {
            self.owners.remove(key);
        }
        keys
    }

    /// Forgets a key if there is no room for another of `account`.
    fn make_room(&mut self, account: &AccountName) -> Option<(AccountName, DeviceKey)> {
        let of_account = self.keys.get(account).map_or(0, Vec::len);
        let from = if of_account >= PINS_PER_ACCOUNT_MAX {
            account.clone()
        } else if self.owners.len() >= PINS_MAX {
            let fullest = self.keys.iter().max_by_key(|(_, keys)| keys.len());
            fullest.map(|(account, _)| account.clone())?
        } else {
            return None;
        };
        let keys = self.keys.get_mut(&from)?;
        let oldest = keys.remove(0);
        if keys.is_empty() {
            self.keys.remove(&from);
        }
        self.owners.remove(&oldest);
        Some((from, oldest))
    }
}

#[cfg(test)]
mod tests {
    use common::key::DeviceSecret;

    use super::*;

    fn key(number: usize) -> DeviceKey {
        let mut seed = [7; 32];
        seed[..8].copy_from_slice(&(number as u64).to_be_bytes());
        DeviceSecret::from_seed(seed).public()
    }

    fn account(number: usize) -> AccountName {
        format!("user{number}").parse().unwrap()
    }

    #[test]
    fn a_key_is_known_new_unmet_or_somebody_elses() {
        let mut pins = Pins::default();
        let (alice, bob) = (account(1), account(2));
        assert_eq!(pins.state(&key(1), &alice), KeyState::Unmet);
        pins.pin(key(1), &alice).unwrap();
        assert_eq!(pins.state(&key(1), &alice), KeyState::Known);
        assert_eq!(pins.state(&key(2), &alice), KeyState::New);
        assert_eq!(pins.state(&key(1), &bob), KeyState::OtherAccount);
        assert_eq!(pins.state(&key(2), &bob), KeyState::Unmet);
    }

    #[test]
    fn a_key_stays_with_its_first_account() {
        let [alice, bob] = [1, 2].map(account);
        let mut pins = Pins::new(vec![(alice.clone(), key(1)), (bob.clone(), key(1))]);
        assert_eq!(pins.pin(key(1), &alice), Ok(None));
        assert_eq!(pins.pin(key(1), &bob), Err(OtherOwner));
        assert_eq!(pins.owner(&key(1)), Some(&alice));
        let (known, forgotten) = (1, None);
        assert_eq!(
            pins.pin(key(2), &alice),
            Ok(Some(NewPin { known, forgotten }))
        );
        assert_eq!(pins.owner(&key(2)), Some(&alice));
        assert!(pins.accounts().eq([&alice]));
    }

    #[test]
    fn an_account_with_devices_without_end_pushes_out_its_own() {
        let [alice, mallory] = [1, 2].map(account);
        let mut pins = Pins::new(vec![(alice.clone(), key(0))]);
        for number in 1..=PINS_PER_ACCOUNT_MAX {
            let pinned = pins.pin(key(number), &mallory).unwrap().unwrap();
            assert_eq!(pinned.forgotten, None);
        }
        let next = pins.pin(key(9_999), &mallory).unwrap().unwrap();
        assert_eq!(next.forgotten, Some((mallory.clone(), key(1))));
        assert_eq!(next.known, PINS_PER_ACCOUNT_MAX - 1);
        assert_eq!(pins.owner(&key(1)), None);
        assert_eq!(pins.owner(&key(0)), Some(&alice));
    }

    #[test]
    fn all_pins_have_a_bound_and_those_with_most_make_room() {
        let alice = account(0);
        let mut pins = Pins::new(vec![(alice.clone(), key(0))]);
        let full = PINS_MAX - 1;
        for number in 1..=full {
            let owner = account(1 + number / PINS_PER_ACCOUNT_MAX);
            pins.pin(key(number), &owner).unwrap();
        }
        assert!(
            pins.occupancies()
                .iter()
                .all(|occupancy| occupancy.count <= occupancy.max)
        );
        assert_eq!(pins.occupancies()[0].count, PINS_MAX);
        let newcomer = account(9_999);
        let pinned = pins.pin(key(99_999), &newcomer).unwrap().unwrap();
        assert!(pinned.forgotten.is_some());
        assert_eq!(pins.occupancies()[0].count, PINS_MAX);
        assert_eq!(pins.owner(&key(0)), Some(&alice));
    }
}
