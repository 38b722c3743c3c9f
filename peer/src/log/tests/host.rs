use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::key::{DeviceKey, DeviceSecret};
use common::log::{
    Body, ChainId, ConversationId, EntryId, Extent, ForkProof, HeaderHash, Kind, RunId, Seal,
    Sequence, Stretch, Vector,
};
use common::time::UnixTime;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::disk::{Disk, Event, Queue, Transaction, Write};
use crate::log::*;

// What it says and hears on its links.
mod link;

pub(crate) const CONVERSATION: ConversationId = ConversationId::from_bytes([0xc0; 32]);

/// Who counts, as one device has heard. The lower a device's number, the more senior it is within its account.
#[derive(Clone, Debug)]
pub(super) struct Accounts {
    /// The number of each device, and whether it is of the first account.
    pub(super) devices: BTreeMap<DeviceKey, (u32, bool)>,
    pub(super) revoked: BTreeSet<DeviceKey>,
}

impl Standing for Accounts {
    fn is_approved(&self, device: &DeviceKey) -> bool {
        self.devices.contains_key(device) && !self.revoked.contains(device)
    }

    fn rank(&self, signer: &DeviceKey, target: &DeviceKey) -> Option<Rank> {
        let (signer, signer_account) = self.devices.get(signer)?;
        let (target, account) = self.devices.get(target)?;
        (signer_account == account && signer < target).then_some(Rank(*signer))
    }
}

#[derive(Clone, Debug)]
pub(super) enum Frame {
    Vector(Vector),
    Have(Vec<(ChainId, Extent)>, usize),
    Page(Page),
    Seal(ChainId, Seal),
    Fork(ForkProof),
    Trace(ChainId, Sequence),
    Stretch(ChainId, Option<Stretch>),
}

/// One end of a link.
#[derive(Debug, Default)]
pub(super) struct Link {
    giving: Giving,
    flight: Flight,
    receiving: Receiving,
    traces: Traces,
    /// Chains that the other side is to be told of.
    untold: BTreeSet<ChainId>,
}

/// One running program of a device.
#[derive(Debug)]
pub(super) struct Host {
    pub(super) number: usize,
    pub(super) secret: DeviceSecret,
    pub(super) device: DeviceKey,
    pub(super) instance: Instance,
    /// What is written.
    pub(super) disk: Disk,
    /// What is written or on its way.
    memory: Disk,
    queue: Queue,
    pub(super) replica: Replica,
    pub(super) accounts: Accounts,
    pub(super) links: BTreeMap<usize, Link>,
    signing: VecDeque<SealJob>,
    /// Pages that wait for the verifier, in their order.
    waiting: VecDeque<(usize, Slot, DeviceKey, Page)>,
    /// What the verifier has found to be genuine, or will have.
    checked: Option<(usize, Slot, ChainId, Checked)>,
    rng: StdRng,
    /// What was said to somebody to be on disk.
    promised: BTreeMap<ChainId, Sequence>,
    /// What was ever written again: no disk forgets it.
    pub(super) again: BTreeSet<Vec<u8>>,
    /// Frames for other hosts.
    pub(super) outbox: Vec<(usize, Frame)>,
}

impl Host {
    pub(super) fn new(number: usize, device: u8, seed: u64, accounts: Accounts) -> Self {
        let secret = DeviceSecret::from_seed([device; 32]);
        let device = secret.public();
        Self {
            number,
            device,
            secret,
            instance: Instance([number as u8; 32]),
            disk: Disk::default(),
            memory: Disk::default(),
            queue: Queue::default(),
            replica: Replica::new(CONVERSATION, device),
            accounts,
            links: BTreeMap::new(),
            signing: VecDeque::new(),
            waiting: VecDeque::new(),
            checked: None,
            rng: StdRng::seed_from_u64(seed),
            promised: BTreeMap::new(),
            again: BTreeSet::new(),
            outbox: Vec::new(),
        }
    }

    // ---- starting and ending -------------------------------------------------------------------

    /// Starts with what is on disk.
    pub(super) fn start(&mut self, wall: UnixTime) {
        self.links.clear();
        self.signing.clear();
        self.waiting.clear();
        self.checked = None;
        self.outbox.clear();
        self.queue = Queue::default();
        self.memory = self.disk.clone();
        self.replica = Replica::new(CONVERSATION, self.device);
        for chain in self.disk.rows.keys() {
            self.replica.restore(*chain, self.disk.chain(chain), wall);
        }
        self.restore_cuts();
        let proofs: Vec<ForkProof> = self.disk.proofs.values().cloned().collect();
        for proof in proofs {
            let fork = proof.verify().unwrap();
            let _ = self.replica.admit_fork(&fork, &self.accounts);
        }
        self.replica.refresh(&self.accounts);
        self.start_run();
        self.replica.seal_remains();
        self.turn();
    }

    fn restore_cuts(&mut self) {
        for (by, row) in self.memory.of_kind(Kind::CUT) {
            let entry = &row.stored.entry;
            let body = entry.body.as_deref().unwrap_or_default();
            if let Ok(Body::Cut(target)) = Body::parse(Kind::CUT, body) {
                let clock = entry.outline.clock;
                self.replica.restore_cut(by, clock, target, &self.accounts);
            }
        }
    }

    fn start_run(&mut self) {
        let stored = self.disk.run.and_then(|run| {
            let device = self.device;
            let tip = self.replica.tip(&ChainId { device, run })?;
            Some((run, tip))
        });
        let start = at_start(self.disk.mark.as_ref(), self.instance, stored);
        // At once, and durably.
        self.disk.events.push(Arc::new(Event::Started));
        self.disk.mark = None;
        self.memory.mark = None;
        match start {
            RunStart::GoOn(run) => self.replica.begin(OwnRun::resume(self.device, run)),
            RunStart::Begin(_) => {}
        }
    }

    /// Ends in order.
    pub(super) fn stop(&mut self, wall: UnixTime, now: Instant) {
        self.sign_all(wall, now + Duration::from_secs(1));
        self.commit(usize::MAX);
        let run = self.replica.run().filter(|run| run.over().is_none());
        self.disk.mark = run.and_then(|run| {
            let tip = self.replica.tip(&run.chain())?;
            Some(CleanMark {
                run: run.chain().run,
                last: tip.sequence,
                hash: tip.hash,
                instance: self.instance,
            })
        });
        self.disk
            .events
            .push(Arc::new(Event::Ended(self.disk.mark)));
    }

    /// Another disk is put in place of this one.
    pub(super) fn replace_disk(&mut self, disk: Disk) {
        self.disk = disk;
        self.promised.clear();
    }

    // ---- writing -------------------------------------------------------------------------------

    /// Writes an entry of this device's own, in a new run if need be. Tells where, unless the device is revoked.
    pub(super) fn append(&mut self, body: &Body, wall: UnixTime, now: Instant) -> Option<EntryId> {
        let mut transaction = Transaction::default();
        let id = self.append_to(&mut transaction, body.kind(), body.to_bytes(), wall, now);
        self.queue.0.push_back(transaction);
        self.turn();
        id
    }

    fn append_to(
        &mut self,
        transaction: &mut Transaction,
        kind: Kind,
        body: Vec<u8>,
        wall: UnixTime,
        now: Instant,
    ) -> Option<EntryId> {
        for _ in 0..10 {
            match self
                .replica
                .append(kind, body.clone(), wall, now, &self.accounts)
            {
                Ok(admission) => {
                    let id = EntryId {
                        chain: admission.chain,
                        sequence: admission.entries[0].sequence,
                    };
                    self.write(transaction, Write::Written(admission));
                    return Some(id);
                }
                Err(AppendError::NewRun(_)) => {
                    let run = RunId::from_bytes(self.rng.random());
                    self.replica.begin(OwnRun::begin(self.device, run));
                    self.write(transaction, Write::Run(run));
                }
                Err(AppendError::NotApproved) => return None,
                Err(error) => panic!("{error}"),
            }
        }
        panic!("no run can be written");
    }

    fn write(&mut self, transaction: &mut Transaction, write: Write) {
        self.memory.write(&write);
        if let Some(admission) = write.admission() {
            self.note_change(admission.chain);
        }
        transaction.writes.push(write);
    }

    fn note_change(&mut self, chain: ChainId) {
        for link in self.links.values_mut() {
            link.giving.handle_change(chain);
        }
    }

    /// Writes what was taken, and again what was lost by that.
    fn take(
        &mut self,
        admission: Admission,
        settles: Option<(usize, Slot)>,
        proof: Option<ForkProof>,
    ) {
        let mut transaction = Transaction {
            settles,
            ..Transaction::default()
        };
        let lost = self.lost(admission.rewrite);
        self.write(&mut transaction, Write::Taken(admission));
        if let Some(proof) = proof {
            self.write(&mut transaction, Write::Proof(proof));
        }
        for (id, kind, body) in lost {
            self.write(&mut transaction, Write::Lost(id, kind, body));
        }
        self.queue.0.push_back(transaction);
    }

    /// Writes an entry again that counts no more.
    fn write_again(&mut self, wall: UnixTime, now: Instant) {
        if let Some((id, (kind, body))) = self.memory.lost.first_key_value() {
            let (id, kind, body) = (*id, *kind, body.clone());
            let mut transaction = Transaction::default();
            if self
                .append_to(&mut transaction, kind, body, wall, now)
                .is_some()
            {
                self.write(&mut transaction, Write::Rewritten(id));
            }
            self.queue.0.push_back(transaction);
        }
    }

    fn lost(&self, rewrite: Option<Rewrite>) -> Vec<(EntryId, Kind, Vec<u8>)> {
        let Some(Rewrite { chain, from, until }) = rewrite else {
            return Vec::new();
        };
        let rows = self.memory.rows.get(&chain).into_iter().flatten();
        let rows = rows.filter(|(place, _)| **place >= from);
        let rows = rows.filter(|(_, row)| row.is_written_here);
        let rows = rows.filter(|(place, _)| until.is_none_or(|until| **place < until));
        let lost = rows.map(|(place, row)| {
            let id = EntryId {
                chain,
                sequence: *place,
            };
            let body = row.stored.entry.body.clone().unwrap_or_default();
            (id, row.stored.entry.outline.kind, body)
        });
        let is_known =
            |id: &EntryId| self.memory.rewritten.contains(id) || self.memory.lost.contains_key(id);
        lost.filter(|(id, _, _)| !is_known(id)).collect()
    }

    /// The disk writes some transactions.
    pub(super) fn commit(&mut self, transactions: usize) {
        for _ in 0..transactions.min(self.queue.0.len()) {
            let transaction = self.queue.0.pop_front().unwrap();
            let event = Event::Written(transaction.writes.clone());
            self.disk.events.push(Arc::new(event));
            for write in &transaction.writes {
                self.disk.write(write);
                if let Some(admission) = write.admission() {
                    self.replica.committed(&admission.receipt);
                    self.note_change(admission.chain);
                    for link in self.links.values_mut() {
                        link.untold.insert(admission.chain);
                    }
                }
            }
            if let Some((from, slot)) = transaction.settles
                && let Some(link) = self.links.get_mut(&from)
            {
                link.receiving.settle(slot);
            }
        }
        self.turn();
    }

    pub(super) fn is_at_rest(&self) -> bool {
        let may_write = self.accounts.is_approved(&self.device);
        self.queue.0.is_empty()
            && self.waiting.is_empty()
            && self.checked.is_none()
            && (self.memory.lost.is_empty() || !may_write)
    }

    // ---- signing -------------------------------------------------------------------------------

    /// The signer signs one header.
    pub(super) fn sign(&mut self, wall: UnixTime, now: Instant) {
        self.write_again(wall, now);
        while let Some(job) = self.replica.poll_seal(now) {
            self.signing.push_back(job);
        }
        if let Some(job) = self.signing.pop_front() {
            let seal = Seal::sign_hash(&self.secret, job.sequence, &job.hash);
            if let Some(admission) = self.replica.handle_seal(&job, seal, &self.accounts) {
                self.take(admission, None, None);
            }
        }
    }

    pub(super) fn sign_all(&mut self, wall: UnixTime, now: Instant) {
        loop {
            self.sign(wall, now);
            if self.signing.is_empty() {
                break;
            }
        }
        self.turn();
    }

    // ---- looking -------------------------------------------------------------------------------

    /// Hears who is approved now.
    pub(super) fn hear(&mut self, accounts: &Accounts) {
        self.accounts = accounts.clone();
        self.restore_cuts();
        self.replica.refresh(&self.accounts);
        let chains: Vec<ChainId> = self.replica.chains().copied().collect();
        for chain in chains {
            self.note_change(chain);
        }
        self.turn();
    }

    /// An entry that is on disk, or on its way there.
    pub(super) fn written(&self, id: EntryId) -> (EntryId, HeaderHash) {
        (id, self.memory.hash(&id.chain, id.sequence))
    }

    /// What is shown, in order.
    pub(super) fn shown(&self) -> Vec<(ShownAt, EntryId)> {
        let rows = self.disk.all();
        let rows = rows.filter(|(id, _)| self.replica.state(*id) == EntryState::Confirmed);
        let mut shown: Vec<(ShownAt, EntryId)> = rows
            .map(|(id, row)| (ShownAt::new(id, row.stored.placed.at), id))
            .collect();
        shown.sort_unstable();
        shown
    }
}
