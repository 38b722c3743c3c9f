//! Who is a device of an account, by all of its log at once.
//!
//! Devices are judged from the recovery key downwards, each after all above it. What those above have said of a device
//! settles which of its entries count; these settle what it has said of those below. So nothing depends on the order
//! in which entries came, and no device says anything about one above it.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use super::chain::Chain;
use super::entry::AccountEntry;
use super::statement::{AccountStatement, Genesis, Revocation};
use crate::id::DeviceName;
use crate::key::DeviceKey;
use crate::limits::ACCOUNT_DEVICES_MAX;
use crate::log::{ChainId, Clock, EntryId, HeaderHash, RunId, Sequence};

/// Orders what one signer has said of one device.
type Moment = (Clock, HeaderHash);

/// The devices of an account, and those that were.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    recovery: DeviceKey,
    /// At most [`ACCOUNT_DEVICES_MAX`].
    devices: BTreeMap<DeviceKey, Device>,
    /// The recovery key and all devices, each after the one that approved it.
    authors: Vec<DeviceKey>,
}

/// A device that was approved at some time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// What its owner calls it; the first device of an account has no name until it is given one.
    pub name: Option<DeviceName>,
    /// Who approved it: another device, or the recovery key, which the first device counts as approved by.
    pub approved_by: DeviceKey,
    /// How far below the recovery key it is: 1 or more.
    pub depth: usize,
    /// Whether it is one of the account's now.
    pub state: State,
}

/// Whether a device is one of the account's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// It is one of the account's.
    Approved,
    /// It was one of the account's.
    Revoked {
        /// Who said so: itself, one above it, or the recovery key.
        by: DeviceKey,
        /// The last of its entries that count, of each run.
        cut: BTreeMap<RunId, Sequence>,
    },
}

impl Standing {
    /// Judges all entries of a log.
    pub(super) fn of(genesis: &Genesis, chains: &BTreeMap<ChainId, Chain>) -> Self {
        let mut judgement = Judgement::new(genesis, chains);
        judgement.hear(&genesis.recovery);
        let mut depth = 1;
        let mut level = judgement.approve(depth);
        while !level.is_empty() {
            for author in &level {
                judgement.hear(author);
            }
            depth += 1;
            level = judgement.approve(depth);
        }
        judgement.name_devices();
        judgement.standing
    }

    /// Tells whether a device is one of the account's now.
    pub fn is_approved(&self, device: &DeviceKey) -> bool {
        let device = self.devices.get(device);
        device.is_some_and(|device| device.state == State::Approved)
    }

    /// The devices that were approved at some time.
    pub fn devices(&self) -> impl Iterator<Item = (&DeviceKey, &Device)> {
        self.devices.iter()
    }

    /// A device that was approved at some time.
    pub fn device(&self, key: &DeviceKey) -> Option<&Device> {
        self.devices.get(key)
    }

    /// Tells whether `signer` may revoke `device`: it is that, is above it, or is the recovery key.
    pub fn may_revoke(&self, signer: &DeviceKey, device: &DeviceKey) -> bool {
        signer == device || self.is_above(signer, device)
    }

    /// Tells whether a key may have written entries: the recovery key, or a device, revoked or not.
    pub(super) fn is_author(&self, key: &DeviceKey) -> bool {
        *key == self.recovery || self.devices.contains_key(key)
    }

    /// The recovery key and all devices, each after the one that approved it.
    pub(super) fn authors(&self) -> impl Iterator<Item = &DeviceKey> {
        self.authors.iter()
    }

    /// Tells whether no revocation has made an entry void.
    fn counts(&self, id: &EntryId) -> bool {
        self.is_within_cut(id).unwrap_or(true)
    }

    /// The same of an entry whose author is revoked.
    pub(super) fn is_within_cut(&self, id: &EntryId) -> Option<bool> {
        match &self.devices.get(&id.chain.device)?.state {
            State::Approved => None,
            State::Revoked { cut, .. } => {
                let last = cut.get(&id.chain.run);
                Some(last.is_some_and(|last| id.sequence <= *last))
            }
        }
    }

    fn add(&mut self, key: DeviceKey, approved_by: DeviceKey, depth: usize) {
        let device = Device {
            name: None,
            approved_by,
            depth,
            state: State::Approved,
        };
        self.devices.insert(key, device);
        self.authors.push(key);
    }

    /// Tells whether a key has approved a device, or one above it.
    fn is_above(&self, key: &DeviceKey, device: &DeviceKey) -> bool {
        let mut below = device;
        while let Some(device) = self.devices.get(below) {
            below = &device.approved_by;
            if below == key {
                return true;
            }
        }
        false
    }
}

/// A judgement under way: some levels of the tree are settled.
struct Judgement<'a> {
    chains: BTreeMap<DeviceKey, Vec<(RunId, &'a Chain)>>,
    standing: Standing,
    /// The one that needs no approval, unless it is settled.
    first_device: Option<DeviceKey>,
    /// What authors that are settled have said.
    approvals: Vec<Approval<'a>>,
    revocations: Vec<(DeviceKey, Moment, &'a Revocation)>,
}

struct Approval<'a> {
    signer: DeviceKey,
    moment: Moment,
    device: DeviceKey,
    name: &'a DeviceName,
}

impl<'a> Judgement<'a> {
    fn new(genesis: &Genesis, chains: &'a BTreeMap<ChainId, Chain>) -> Self {
        let mut of_devices: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for (id, chain) in chains {
            let runs = of_devices.entry(id.device).or_default();
            runs.push((id.run, chain));
        }
        Self {
            chains: of_devices,
            standing: Standing {
                recovery: genesis.recovery,
                devices: BTreeMap::new(),
                authors: vec![genesis.recovery],
            },
            first_device: Some(genesis.first_device),
            approvals: Vec::new(),
            revocations: Vec::new(),
        }
    }

    /// Takes what an author says that counts: all above it are settled.
    fn hear(&mut self, author: &DeviceKey) {
        self.settle(author);
        let Some(runs) = self.chains.get(author) else {
            return;
        };
        for (entry, hash) in runs.iter().flat_map(|(_, chain)| chain.undisputed()) {
            if !self.standing.counts(&entry.id) {
                continue;
            }
            let moment = (entry.clock, *hash);
            match &entry.statement {
                AccountStatement::Genesis(_) => {}
                AccountStatement::Approve { device, name } => self.approvals.push(Approval {
                    signer: *author,
                    moment,
                    device: *device,
                    name,
                }),
                AccountStatement::Revoke(revocation) => {
                    self.revocations.push((*author, moment, revocation));
                }
            }
        }
    }

    /// Settles whether a device is revoked and up to where its entries count: the most senior signer's word does, of
    /// one signer the last; if nobody above says anything, its own.
    fn settle(&mut self, device: &DeviceKey) {
        let depth_of = |key| self.standing.devices.get(key).map_or(0, |it| it.depth);
        let above = self.revocations.iter().filter(|(signer, _, revocation)| {
            revocation.device == *device && self.standing.is_above(signer, device)
        });
        let decisive = above.min_by_key(|(signer, moment, _)| (depth_of(signer), Reverse(*moment)));
        let state = match decisive {
            Some((by, _, revocation)) => Some((*by, revocation.cut.clone())),
            None => self.own_end(device).map(|cut| (*device, cut)),
        };
        if let (Some(device), Some((by, cut))) = (self.standing.devices.get_mut(device), state) {
            device.state = State::Revoked { by, cut };
        }
    }

    /// Where a device has ended itself. If it has done so more than once, perhaps by a thief of its key, only what each
    /// time leaves counts: nothing that comes later brings anything back.
    fn own_end(&self, device: &DeviceKey) -> Option<BTreeMap<RunId, Sequence>> {
        let runs = self.chains.get(device)?;
        let entries = runs.iter().flat_map(|(_, chain)| chain.undisputed());
        let ends = entries.filter_map(|(entry, _)| end_of(entry, device));
        ends.reduce(|one, other| {
            let in_both = one.into_iter().filter_map(|(run, last)| {
                let other = other.get(&run)?;
                Some((run, last.min(*other)))
            });
            in_both.collect()
        })
    }

    /// Adds the devices that were approved by those of the level above, the first ones. Returns them.
    fn approve(&mut self, depth: usize) -> Vec<DeviceKey> {
        let mut level: Vec<DeviceKey> = self.first_device.take().into_iter().collect();
        for key in &level {
            self.standing.add(*key, self.standing.recovery, depth);
        }
        let mut first: BTreeMap<DeviceKey, &Approval<'_>> = BTreeMap::new();
        for approval in &self.approvals {
            let is_settled = approval.device == self.standing.recovery
                || self.standing.devices.contains_key(&approval.device);
            if is_settled {
                continue;
            }
            let before = first.entry(approval.device).or_insert(approval);
            if approval.moment < before.moment {
                *before = approval;
            }
        }
        let mut new: Vec<_> = first.into_values().collect();
        new.sort_by_key(|approval| (approval.moment, approval.device));
        let room = ACCOUNT_DEVICES_MAX.saturating_sub(self.standing.devices.len());
        for approval in new.into_iter().take(room) {
            self.standing.add(approval.device, approval.signer, depth);
            level.push(approval.device);
        }
        level
    }

    /// Gives each device the name that it was given last, by itself or by one above it.
    fn name_devices(&mut self) {
        let mut names: BTreeMap<DeviceKey, &Approval<'_>> = BTreeMap::new();
        for approval in &self.approvals {
            if !self.standing.may_revoke(&approval.signer, &approval.device) {
                continue;
            }
            let last = names.entry(approval.device).or_insert(approval);
            if approval.moment > last.moment {
                *last = approval;
            }
        }
        for (key, approval) in names {
            if let Some(device) = self.standing.devices.get_mut(&key) {
                device.name = Some(approval.name.clone());
            }
        }
    }
}

/// Up to where a device counts by what this entry of its own says of it, if it ends the device. The entry counts.
fn end_of(entry: &AccountEntry, device: &DeviceKey) -> Option<BTreeMap<RunId, Sequence>> {
    let AccountStatement::Revoke(revocation) = &entry.statement else {
        return None;
    };
    if revocation.device != *device {
        return None;
    }
    let mut cut = revocation.cut.clone();
    let last = cut.entry(entry.id.chain.run).or_insert(entry.id.sequence);
    *last = entry.id.sequence;
    Some(cut)
}
