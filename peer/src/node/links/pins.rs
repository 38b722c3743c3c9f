//! Pinned keys: which account each device key belongs to, as it was at first contact.

use std::collections::BTreeMap;

use common::id::AccountName;
use common::key::DeviceKey;

/// The keys of all devices that were ever linked.
#[derive(Debug)]
pub(super) struct Pins(BTreeMap<DeviceKey, AccountName>);

/// A key is pinned to another account.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the key of a device is pinned to another account")]
pub(super) struct OtherOwner;

impl Pins {
    /// Takes the keys pinned in earlier runs.
    pub(super) fn new(pinned: Vec<(AccountName, DeviceKey)>) -> Self {
        let pinned = pinned.into_iter();
        Self(pinned.map(|(account, key)| (key, account)).collect())
    }

    /// The account that a key is pinned to.
    pub(super) fn owner(&self, device_key: &DeviceKey) -> Option<&AccountName> {
        self.0.get(device_key)
    }

    /// Pins a key at first contact. `Some` tells that it is new, and how many of the account were pinned
    /// before.
    ///
    /// # Errors
    /// The key is pinned to another account, and stays so.
    pub(super) fn pin(
        &mut self,
        device_key: DeviceKey,
        account: &AccountName,
    ) -> Result<Option<usize>, OtherOwner> {
        match self.0.get(&device_key) {
            Some(owner) if owner == account => Ok(None),
            Some(_) => Err(OtherOwner),
            None => {
                let known = self.0.values().filter(|owner| *owner == account).count();
                self.0.insert(device_key, account.clone());
                Ok(Some(known))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use common::key::DeviceSecret;

    use super::*;

    #[test]
    fn a_key_stays_with_its_first_account() {
        let [alice, bob]: [AccountName; 2] = ["alice", "bob"].map(|name| name.parse().unwrap());
        let [first, second] = [1, 2].map(|n| DeviceSecret::from_seed([n; 32]).public());
        let mut pins = Pins::new(vec![(alice.clone(), first)]);
        assert_eq!(pins.pin(first, &alice), Ok(None));
        assert_eq!(pins.pin(first, &bob), Err(OtherOwner));
        assert_eq!(pins.owner(&first), Some(&alice));
        assert_eq!(pins.pin(second, &alice), Ok(Some(1)));
        assert_eq!(pins.owner(&second), Some(&alice));
    }
}
