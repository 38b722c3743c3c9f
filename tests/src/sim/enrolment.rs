//! Which devices the server's store has, and since when one is out.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use common::id::AccountName;
use common::key::DeviceKey;
use rendezvous::store::{AccountsRequest, DevicesRequest, LogsRequest, StoreRequest, Subject};

/// Time within which a device that is out neither gets nor is heard, where the other side has a session: a
/// second, and what slow and lossy ways to the server add to it.
const OUT_WITHIN: Duration = Duration::from_secs(5);

/// What the store's writes say of devices.
#[derive(Debug, Default)]
pub struct Enrolments {
    accounts: BTreeMap<DeviceKey, AccountName>,
    /// Devices that were enrolled and are not.
    out_since: BTreeMap<DeviceKey, Instant>,
    removals: BTreeMap<AccountName, u32>,
}

impl Enrolments {
    /// The store has done what it was asked.
    pub fn on_stored(&mut self, request: &StoreRequest, now: Instant) {
        match request {
            StoreRequest::Devices(DevicesRequest::Enrol {
                device, lockout, ..
            }) => {
                if let Subject::Account(account) = &lockout.subject {
                    self.accounts.insert(device.key, account.clone());
                    self.out_since.remove(&device.key);
                }
            }
            StoreRequest::Devices(DevicesRequest::Forget { device_key, .. }) => {
                self.out_since.insert(*device_key, now);
            }
            StoreRequest::Accounts(AccountsRequest::Remove { account, .. }) => {
                *self.removals.entry(account.clone()).or_default() += 1;
                let of_account = |(_, owner): &(&DeviceKey, &AccountName)| *owner == account;
                for (device_key, _) in self.accounts.iter().filter(of_account) {
                    self.out_since.entry(*device_key).or_insert(now);
                }
            }
            StoreRequest::Logs(LogsRequest::Append { revoked, .. }) => {
                for device_key in revoked {
                    self.out_since.insert(*device_key, now);
                }
            }
            StoreRequest::Logs(LogsRequest::Read { .. })
            | StoreRequest::Devices(_)
            | StoreRequest::Accounts(_)
            | StoreRequest::Admissions(_)
            | StoreRequest::Lockouts(_) => {}
        }
    }

    /// How often an account was removed.
    pub fn removals(&self, account: &AccountName) -> u32 {
        self.removals.get(account).copied().unwrap_or_default()
    }

    /// Tells whether a device is out, and another one that has had a session since `online_since` must have
    /// ended its links with it.
    pub fn is_out_for(
        &self,
        device_key: &DeviceKey,
        online_since: Option<Instant>,
        now: Instant,
    ) -> bool {
        let (Some(out_since), Some(online_since)) = (self.out_since.get(device_key), online_since)
        else {
            return false;
        };
        now.saturating_duration_since(online_since.max(*out_since)) > OUT_WITHIN
    }
}
