use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use common::key::{DeviceKey, DeviceSecret};
use common::log::{
    Body, ChainId, ConversationId, EntryId, Extent, ForkProof, HeaderHash, Kind, RunId, Seal,
    Sequence, Stretch, Vector,
};
use common::time::UnixTime;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::disk::{Disk, Queue, Transaction, Write};
use crate::log::*;

pub(super) const CONVERSATION: ConversationId = ConversationId::from_bytes([0xc0; 32]);

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
        self.outbox.clear();
        self.queue = Queue::default();
        self.memory = self.disk.clone();
        self.replica = Replica::new(CONVERSATION, self.device);
        for chain in self.disk.rows.keys() {
            self.replica.restore(*chain, self.disk.chain(chain), wall);
        }
        for (by, row) in self.disk.of_kind(Kind::CUT) {
            let entry = &row.stored.entry;
            let body = entry.body.as_deref().unwrap_or_default();
            if let Ok(Body::Cut(target)) = Body::parse(Kind::CUT, body) {
                self.replica.restore_cut(by, entry.outline.clock, target);
            }
        }
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

    fn start_run(&mut self) {
        let stored = self.disk.run.and_then(|run| {
            let device = self.device;
            let tip = self.replica.tip(&ChainId { device, run })?;
            Some((run, tip))
        });
        let start = at_start(self.disk.mark.as_ref(), self.instance, stored);
        // At once, and durably.
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
            match self.replica.append(kind, body.clone(), wall, now) {
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
        mut admission: Admission,
        settles: Option<(usize, Slot)>,
        proof: Option<ForkProof>,
    ) {
        let mut transaction = Transaction {
            settles,
            ..Transaction::default()
        };
        let lost = self.lost(admission.rewrite.take());
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
        self.queue.0.is_empty() && (self.memory.lost.is_empty() || !may_write)
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

    // ---- links ---------------------------------------------------------------------------------

    /// A link to another host begins.
    pub(super) fn connect(&mut self, other: usize, device: &DeviceKey) {
        self.links.insert(other, Link::default());
        self.say_all(other, device);
    }

    fn say_all(&mut self, other: usize, device: &DeviceKey) {
        let vector = self.replica.vector(Some(device));
        for (chain, extent) in &vector.0 {
            self.check_promise(chain, extent);
        }
        self.outbox.push((other, Frame::Vector(vector)));
    }

    /// Nothing may be said to be on disk that is not.
    fn check_promise(&mut self, chain: &ChainId, extent: &Extent) {
        let rows = self.disk.rows.get(chain);
        let rows = rows.filter(|_| extent.base <= extent.last);
        let held = rows.map_or(0, |rows| rows.range(extent.base..=extent.last).count());
        let said = extent.last.since(extent.base.previous());
        assert_eq!(held as u64, said, "a Have says more than the disk has");
        let hash = self.disk.hash(chain, extent.last);
        assert_eq!(hash, extent.hash, "a Have says what the disk has not");
        let promised = self.promised.entry(*chain).or_insert(extent.sealed);
        *promised = extent.sealed.max(*promised);
    }

    /// After a crash, what was acknowledged is still there.
    pub(super) fn check_promises_kept(&self) {
        for (chain, last) in &self.promised {
            let held = self.disk.rows.get(chain).map_or(0, BTreeMap::len);
            assert!(
                held as u64 >= last.number(),
                "what was acknowledged is lost"
            );
        }
    }

    pub(super) fn handle(&mut self, from: usize, device: DeviceKey, frame: Frame, wall: UnixTime) {
        if !self.links.contains_key(&from) {
            return;
        }
        match frame {
            Frame::Vector(vector) => {
                let link = self.links.get_mut(&from).unwrap();
                link.giving.open(&vector, &self.replica);
                for (chain, extent) in vector.0 {
                    self.on_extent(from, chain, extent);
                }
            }
            Frame::Have(extents, answered) => {
                for (chain, extent) in extents {
                    let link = self.links.get_mut(&from).unwrap();
                    link.giving.handle_have(chain, extent);
                    self.on_extent(from, chain, extent);
                }
                let link = self.links.get_mut(&from).unwrap();
                for (_, chain) in link.flight.answered(answered) {
                    link.giving.handle_answer(chain);
                }
            }
            Frame::Page(page) => self.on_page(from, device, page, wall),
            Frame::Seal(chain, seal) => {
                let examined = self.replica.examine_seal(chain, seal);
                let checked = examined.and_then(Examined::check);
                let admitted = checked.and_then(|it| self.replica.admit(it, wall, &self.accounts));
                if let Ok(admission) = admitted {
                    self.take(admission, None, None);
                }
            }
            Frame::Fork(proof) => self.on_proof(proof),
            Frame::Trace(chain, place) => {
                let stretch = self.memory.stretch(&chain, place);
                self.outbox.push((from, Frame::Stretch(chain, stretch)));
            }
            Frame::Stretch(chain, stretch) => {
                let link = self.links.get_mut(&from).unwrap();
                let step = link.traces.handle_stretch(chain, stretch);
                self.on_step(from, chain, step);
            }
        }
        self.turn();
    }

    fn on_page(&mut self, from: usize, device: DeviceKey, page: Page, wall: UnixTime) {
        let chain = page.chain;
        let slot = self.links.get_mut(&from).unwrap().receiving.open();
        let source = Source::Device(device);
        let examined = self.replica.examine(page, source, &self.accounts);
        let checked = examined.and_then(Examined::check);
        let admitted = checked.and_then(|it| self.replica.admit(it, wall, &self.accounts));
        let refusal = match admitted {
            Ok(admission) => {
                return self.take(admission, Some((from, slot)), None);
            }
            Err(refusal) => refusal,
        };
        assert!(
            !refusal.is_violation(),
            "everybody here is honest: {refusal}"
        );
        let link = self.links.get_mut(&from).unwrap();
        link.receiving.settle(slot);
        link.untold.insert(chain);
        if let Refusal::Diverged { at } = refusal {
            self.trace(from, chain, at);
        }
    }

    fn on_extent(&mut self, from: usize, chain: ChainId, extent: Extent) {
        if let Some(admission) = self.replica.note_claim(&chain, &extent) {
            self.take(admission, None, None);
        }
        if let Some(at) = self.replica.differs_at(&chain, &extent) {
            self.trace(from, chain, at);
        }
    }

    fn trace(&mut self, from: usize, chain: ChainId, at: Sequence) {
        let link = self.links.get_mut(&from).unwrap();
        if let Some(step) = link.traces.begin(chain, Sequence::FIRST, at) {
            self.on_step(from, chain, step);
        }
    }

    fn on_step(&mut self, from: usize, chain: ChainId, step: TraceStep) {
        match step {
            TraceStep::Ask(place) => self.outbox.push((from, Frame::Trace(chain, place))),
            TraceStep::Read { first, last } => {
                let own = self.memory.own_stretch(&chain, first, last);
                let link = self.links.get_mut(&from).unwrap();
                let step = link.traces.handle_own(CONVERSATION, chain, &own);
                self.on_step(from, chain, step);
            }
            TraceStep::Found(proof) => self.on_proof(*proof),
            TraceStep::Over => {}
        }
    }

    fn on_proof(&mut self, proof: ForkProof) {
        let Ok(fork) = proof.verify() else {
            return;
        };
        if let Ok(admission) = self.replica.admit_fork(&fork, &self.accounts) {
            self.take(admission, None, Some(proof));
        }
    }

    /// Does all that can be done now.
    pub(super) fn turn(&mut self) {
        while let Some(id) = self.replica.poll_look_up() {
            if let Some(row) = self.memory.row(id) {
                let hash = row.stored.hash;
                self.replica.handle_hash(id, hash);
                self.note_change(id.chain);
                for link in self.links.values_mut() {
                    link.untold.insert(id.chain);
                }
            }
        }
        let others: Vec<usize> = self.links.keys().copied().collect();
        let is_to_restate = self.replica.poll_restate();
        for other in others {
            if is_to_restate {
                self.say_all(other, &self.device_of(other));
            }
            self.tell(other);
            self.give(other);
        }
    }

    fn tell(&mut self, other: usize) {
        let device = self.device_of(other);
        let link = self.links.get_mut(&other).unwrap();
        let answered = link.receiving.take_settled();
        let untold = std::mem::take(&mut link.untold);
        if answered == 0 && untold.is_empty() {
            return;
        }
        let extents: Vec<(ChainId, Extent)> = untold
            .into_iter()
            .map(|chain| (chain, self.replica.extent(&chain, Some(&device))))
            .collect();
        for (chain, extent) in &extents {
            self.check_promise(chain, extent);
        }
        self.outbox.push((other, Frame::Have(extents, answered)));
    }

    fn give(&mut self, other: usize) {
        let link = self.links.get_mut(&other).unwrap();
        while let Some(due) = link.giving.poll(&self.replica, &mut link.flight) {
            let frame = match due {
                Due::Page(request) => {
                    let page = self.memory.page(&request);
                    link.giving
                        .handle_page(&request, page.as_ref(), &mut link.flight);
                    page.map(Frame::Page)
                }
                Due::Seal(chain, seal) => Some(Frame::Seal(chain, seal)),
                Due::Fork(chain) => self.memory.proofs.get(&chain).cloned().map(Frame::Fork),
                Due::Gone { .. } => panic!("nothing is gone here"),
            };
            if let Some(Frame::Page(page)) = &frame
                && page.chain.device != self.device
            {
                let is_sealed = page.seal.is_some();
                let is_before_fork = self.replica.fork(&page.chain) == Some(page.last().next());
                assert!(
                    is_sealed || is_before_fork,
                    "what is not sealed is given on"
                );
            }
            self.outbox.extend(frame.map(|frame| (other, frame)));
        }
    }

    /// Copies of a device have its number and a multiple of how many there are.
    fn device_of(&self, other: usize) -> DeviceKey {
        let number = u32::try_from(other % super::world::DEVICES).unwrap();
        let devices = self.accounts.devices.iter();
        let mut found = devices.filter(|(_, (own, _))| *own == number);
        *found.next().unwrap().0
    }

    // ---- looking -------------------------------------------------------------------------------

    /// Hears who is approved now.
    pub(super) fn hear(&mut self, accounts: &Accounts) {
        self.accounts = accounts.clone();
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
