//! A store in memory: what the SQLite store does, without a disk. For tests and simulations.

use std::collections::BTreeMap;

use common::id::AccountName;
use common::key::DeviceKey;
use common::limits::{DEVICES_PER_ACCOUNT_MAX, ENROLMENTS_UNTOLD_MAX, UNKNOWN_NAMES_PER_SWEEP_MAX};
use common::password::PasswordRecord;
use common::time::UnixTime;
use common::wire::rendezvous::{Enrolment, StretchVersion};

use super::{
    Account, AccountId, AccountSummary, AccountsAnswer, AccountsRequest, Admission,
    AdmissionsAnswer, AdmissionsRequest, Device, DevicesAnswer, DevicesRequest, LockoutRow,
    LockoutsAnswer, LockoutsRequest, LogsAnswer, LogsRequest, Lookup, Restored, Store, StoreAnswer,
    StoreError, StoreRequest, Subject, first_of,
};

/// Keeps everything in maps. A clone is what a backup is: it has the state of its moment.
#[derive(Clone, Debug, Default)]
pub struct MemoryStore {
    accounts: BTreeMap<AccountName, Kept>,
    lockouts: BTreeMap<AccountName, LockoutRow>,
    /// Names without an account, by their slot.
    unknown: BTreeMap<usize, LockoutRow>,
    admissions: Vec<Admission>,
    last_id: i64,
    writes: u64,
}

#[derive(Clone, Debug)]
struct Kept {
    id: AccountId,
    record: PasswordRecord,
    stretch: StretchVersion,
    created: UnixTime,
    devices: BTreeMap<DeviceKey, Device>,
    /// The same devices, each as it was enrolled.
    enrolled: BTreeMap<DeviceKey, Enrolment>,
    /// What each device has not been told, oldest first.
    untold: BTreeMap<DeviceKey, Vec<Enrolment>>,
    log: Vec<Vec<u8>>,
}

impl MemoryStore {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    /// Requests so far that changed, or could have changed, something.
    pub const fn writes(&self) -> u64 {
        self.writes
    }

    fn execute_one(&mut self, request: &StoreRequest) -> StoreAnswer {
        self.writes += u64::from(is_write(request));
        match request {
            StoreRequest::Accounts(request) => self.on_accounts(request).into(),
            StoreRequest::Devices(request) => self.on_devices(request).into(),
            StoreRequest::Lockouts(request) => self.on_lockouts(request).into(),
            StoreRequest::Admissions(request) => self.on_admissions(request).into(),
            StoreRequest::Logs(request) => self.on_logs(request).into(),
        }
    }

    fn on_accounts(&mut self, request: &AccountsRequest) -> AccountsAnswer {
        match request {
            AccountsRequest::Load {
                account,
                device_key,
            } => AccountsAnswer::Loaded(Lookup {
                account: self.load(account, *device_key).map(Box::new),
                stand_in: None,
            }),
            AccountsRequest::Create {
                account,
                record,
                stretch,
                at,
            } => self.create(account, record, *stretch, *at),
            AccountsRequest::Remove { account, .. } => self.remove(account),
            AccountsRequest::List { after, count_max } => {
                AccountsAnswer::Listed(self.list(after.as_ref(), *count_max))
            }
        }
    }

    fn on_devices(&mut self, request: &DevicesRequest) -> DevicesAnswer {
        match request {
            DevicesRequest::Enrol {
                id,
                device,
                lockout,
            } => {
                self.save_lockout(lockout);
                self.enrol(*id, device)
            }
            DevicesRequest::RenewToken {
                id,
                device_key,
                token_hash,
                token_before,
                at,
            } => {
                let mut kept = self.by_id(*id);
                let device = kept.as_mut();
                let device = device.and_then(|kept| kept.devices.get_mut(device_key));
                let Some(device) = device else {
                    return DevicesAnswer::NotFound;
                };
                device.token_hash = *token_hash;
                device.token_before = Some(*token_before);
                device.token_issued = *at;
                let untold = kept.map(|kept| kept.untold(device_key));
                let untold = untold.unwrap_or_default();
                DevicesAnswer::Renewed { untold }
            }
            DevicesRequest::DropTokenBefore { id, device_key } => {
                let kept = self.by_id(*id);
                if let Some(device) = kept.and_then(|kept| kept.devices.get_mut(device_key)) {
                    device.token_before = None;
                }
                DevicesAnswer::Done
            }
            DevicesRequest::Forget { id, device_key, .. } => {
                if let Some(kept) = self.by_id(*id) {
                    kept.forget(device_key);
                }
                DevicesAnswer::Done
            }
            DevicesRequest::Note {
                id,
                device_key,
                enrolled,
            } => {
                let kept = self.by_id(*id);
                if let Some(untold) = kept.and_then(|kept| kept.untold.get_mut(device_key)) {
                    untold.retain(|known| known.device_key != *enrolled);
                }
                DevicesAnswer::Done
            }
            DevicesRequest::List { id } => {
                let enrolled = self.by_id(*id).map(|kept| kept.enrolled.values());
                let enrolled = enrolled.into_iter().flatten().cloned();
                let mut enrolled: Vec<Enrolment> = enrolled.collect();
                enrolled.sort_by_key(|device| (device.at, device.device_key));
                DevicesAnswer::Listed(enrolled)
            }
            DevicesRequest::FindOwner { device_key } => {
                let mut accounts = self.accounts.iter();
                let owner = accounts.find(|(_, kept)| kept.devices.contains_key(device_key));
                DevicesAnswer::Owner(owner.map(|(name, _)| name.clone()))
            }
        }
    }

    fn on_lockouts(&mut self, request: &LockoutsRequest) -> LockoutsAnswer {
        match request {
            LockoutsRequest::Save { row, .. } => {
                self.save_lockout(row);
                LockoutsAnswer::Done
            }
            LockoutsRequest::ForgetUnknown { before } => {
                let rows = self.unknown.iter();
                let old = rows.filter(|(_, row)| row.strangers.last_failure < *before);
                let old = old.map(|(slot, _)| *slot).take(UNKNOWN_NAMES_PER_SWEEP_MAX);
                for slot in old.collect::<Vec<_>>() {
                    self.unknown.remove(&slot);
                }
                LockoutsAnswer::Done
            }
            LockoutsRequest::Unblock { account, .. } => {
                self.lockouts.remove(account);
                if self.accounts.contains_key(account) {
                    LockoutsAnswer::Done
                } else {
                    LockoutsAnswer::NotFound
                }
            }
        }
    }

    fn on_admissions(&mut self, request: &AdmissionsRequest) -> AdmissionsAnswer {
        match request {
            AdmissionsRequest::Save { admission, .. } => {
                if !self.accounts.contains_key(&admission.account) {
                    return AdmissionsAnswer::NotFound;
                }
                self.admissions.push(admission.clone());
                AdmissionsAnswer::Done
            }
            AdmissionsRequest::Drop { admission } => {
                self.admissions.retain(|kept| kept != admission);
                AdmissionsAnswer::Done
            }
        }
    }

    fn on_logs(&mut self, request: &LogsRequest) -> LogsAnswer {
        match request {
            LogsRequest::Read {
                account,
                after,
                len_max,
            } => {
                let log = self.accounts.get(account).map_or(&[][..], |kept| &kept.log);
                let rest = log.iter().skip(*after as usize).cloned();
                LogsAnswer::Page {
                    entries: first_of(rest, *len_max),
                    total: log.len() as u32,
                }
            }
            LogsRequest::Append {
                id,
                after,
                entry,
                revoked,
                at: _,
            } => {
                let Some(kept) = self.by_id(*id) else {
                    return LogsAnswer::NotFound;
                };
                if kept.log.len() != *after as usize {
                    return LogsAnswer::NotFound;
                }
                kept.log.push(entry.clone());
                for device_key in revoked {
                    kept.forget(device_key);
                }
                LogsAnswer::Appended
            }
        }
    }

    fn load(&self, account: &AccountName, device_key: Option<DeviceKey>) -> Option<Account> {
        let kept = self.accounts.get(account)?;
        let device = device_key.and_then(|key| kept.devices.get(&key));
        Some(Account {
            id: kept.id,
            record: kept.record.clone(),
            stretch: kept.stretch,
            untold: device.map_or_else(Vec::new, |device| kept.untold(&device.key)),
            device: device.cloned(),
        })
    }

    fn create(
        &mut self,
        account: &AccountName,
        record: &PasswordRecord,
        stretch: StretchVersion,
        at: UnixTime,
    ) -> AccountsAnswer {
        if self.accounts.contains_key(account) {
            return AccountsAnswer::Exists;
        }
        self.last_id += 1;
        let kept = Kept {
            id: AccountId(self.last_id),
            record: record.clone(),
            stretch,
            created: at,
            devices: BTreeMap::new(),
            enrolled: BTreeMap::new(),
            untold: BTreeMap::new(),
            log: Vec::new(),
        };
        self.accounts.insert(account.clone(), kept);
        AccountsAnswer::Done
    }

    fn remove(&mut self, account: &AccountName) -> AccountsAnswer {
        self.lockouts.remove(account);
        self.admissions.retain(|kept| kept.account != *account);
        match self.accounts.remove(account) {
            Some(_) => AccountsAnswer::Done,
            None => AccountsAnswer::NotFound,
        }
    }

    fn list(&self, after: Option<&AccountName>, count_max: usize) -> Vec<AccountSummary> {
        let later = self
            .accounts
            .iter()
            .filter(|(name, _)| after.is_none_or(|after| *name > after));
        let summaries = later.take(count_max).map(|(name, kept)| AccountSummary {
            account: name.clone(),
            created: kept.created,
            devices: kept.devices.len() as u32,
        });
        summaries.collect()
    }

    fn save_lockout(&mut self, row: &LockoutRow) {
        let subject = row.subject.clone();
        let row = Some(row.clone()).filter(|row| !row.is_empty());
        match &subject {
            Subject::Account(account) => {
                let row = row.filter(|_| self.accounts.contains_key(account));
                set(&mut self.lockouts, account.clone(), row);
            }
            Subject::Unknown(name) => {
                let kept = self.unknown.get(&name.slot());
                let is_others = kept.is_some_and(|kept| kept.subject != subject);
                if row.is_some() || !is_others {
                    set(&mut self.unknown, name.slot(), row);
                }
            }
        }
    }

    fn enrol(&mut self, id: AccountId, device: &Device) -> DevicesAnswer {
        let Some(kept) = self.by_id(id) else {
            return DevicesAnswer::NotFound;
        };
        let is_new = !kept.devices.contains_key(&device.key);
        if is_new && kept.devices.len() >= DEVICES_PER_ACCOUNT_MAX {
            return DevicesAnswer::Full;
        }
        let mut untold = Vec::new();
        for kept in self.accounts.values_mut() {
            if kept.id == id {
                kept.devices.insert(device.key, device.clone());
                if is_new {
                    kept.on_new_device(device);
                } else if let Some(enrolled) = kept.enrolled.get_mut(&device.key) {
                    enrolled.device_name = device.name.clone();
                }
                untold = kept.untold(&device.key);
            } else {
                kept.forget(&device.key);
            }
        }
        DevicesAnswer::Enrolled { is_new, untold }
    }

    fn by_id(&mut self, id: AccountId) -> Option<&mut Kept> {
        self.accounts.values_mut().find(|kept| kept.id == id)
    }
}

impl Kept {
    /// Every other device is to be told of this one.
    fn on_new_device(&mut self, device: &Device) {
        let enrolment = device.enrolment();
        self.enrolled.insert(device.key, enrolment.clone());
        let others = self.devices.keys().filter(|key| **key != device.key);
        for key in others {
            let untold = self.untold.entry(*key).or_default();
            untold.retain(|known| known.device_key != device.key);
            untold.push(enrolment.clone());
            untold.sort_by_key(|known| (known.at, known.device_key));
            let excess = untold.len().saturating_sub(ENROLMENTS_UNTOLD_MAX);
            untold.drain(..excess);
        }
    }

    fn forget(&mut self, device_key: &DeviceKey) {
        self.devices.remove(device_key);
        self.enrolled.remove(device_key);
        self.untold.remove(device_key);
    }

    fn untold(&self, device_key: &DeviceKey) -> Vec<Enrolment> {
        self.untold.get(device_key).cloned().unwrap_or_default()
    }
}

impl Store for MemoryStore {
    fn execute(&mut self, batch: &[StoreRequest]) -> Vec<Result<StoreAnswer, StoreError>> {
        let answers = batch.iter().map(|request| Ok(self.execute_one(request)));
        answers.collect()
    }

    fn restore(&mut self) -> Result<Restored, StoreError> {
        Ok(Restored {
            lockouts: self
                .lockouts
                .values()
                .chain(self.unknown.values())
                .cloned()
                .collect(),
            admissions: self.admissions.clone(),
            named_credentials: 0,
        })
    }
}

fn set<K: Ord>(rows: &mut BTreeMap<K, LockoutRow>, key: K, row: Option<LockoutRow>) {
    match row {
        Some(row) => rows.insert(key, row),
        None => rows.remove(&key),
    };
}

const fn is_write(request: &StoreRequest) -> bool {
    !matches!(
        request,
        StoreRequest::Accounts(AccountsRequest::Load { .. } | AccountsRequest::List { .. })
            | StoreRequest::Devices(DevicesRequest::FindOwner { .. } | DevicesRequest::List { .. })
            | StoreRequest::Logs(LogsRequest::Read { .. })
    )
}
