//! A device with several conversations, and a session on each of its links.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Instant;

use common::key::{DeviceKey, DeviceSecret};
use common::log::{ConversationId, Digest, Extent, Kind, RunId, Seal, Sequence};
use common::time::UnixTime;
use common::wire::peer::{DatabaseInstance, LogFrame};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::super::disk::{Disk, Write};
use super::super::host::Accounts;
use crate::log::*;

/// What is shared over a link.
#[derive(Debug)]
pub(super) struct View<'a> {
    pub(super) replicas: &'a BTreeMap<ConversationId, Replica>,
    pub(super) shared: &'a BTreeSet<ConversationId>,
}

impl Shared for View<'_> {
    fn replica(&self, conversation: &ConversationId) -> Option<&Replica> {
        let is_shared = self.shared.contains(conversation);
        self.replicas.get(conversation).filter(|_| is_shared)
    }

    fn digests(&self) -> BTreeMap<ConversationId, Digest> {
        let shared = self.shared.iter();
        let replicas = shared.filter_map(|id| Some((*id, self.replicas.get(id)?)));
        replicas
            .map(|(id, replica)| (id, replica.digest()))
            .collect()
    }
}

/// One end of a link.
#[derive(Debug)]
pub(super) struct End {
    pub(super) session: Session,
    /// Another one for each link, so that what belonged to the one before is told from it.
    pub(super) epoch: u64,
    pub(super) shared: BTreeSet<ConversationId>,
    /// Reads, which the store answers in any order.
    reads: Vec<Task>,
    /// What waits for the verifier, in order.
    takes: VecDeque<Task>,
    checking: Option<(Task, Result<Checked, Refusal>)>,
}

/// Something that is on its way to the disk.
#[derive(Debug)]
struct Writing {
    conversation: ConversationId,
    write: Write,
    settles: Option<(usize, u64, Slot)>,
}

#[derive(Debug)]
pub(super) struct Node {
    pub(super) secret: DeviceSecret,
    pub(super) device: DeviceKey,
    pub(super) replicas: BTreeMap<ConversationId, Replica>,
    pub(super) disks: BTreeMap<ConversationId, Disk>,
    memory: BTreeMap<ConversationId, Disk>,
    queue: VecDeque<Writing>,
    pub(super) ends: BTreeMap<usize, End>,
    pub(super) budget: Budget,
    accounts: Accounts,
    signing: VecDeque<(ConversationId, SealJob)>,
    pub(super) rng: StdRng,
    pub(super) events: Vec<Event>,
}

impl Node {
    pub(super) fn new(seed: u8, chance: u64, accounts: Accounts) -> Self {
        let secret = DeviceSecret::from_seed([seed; 32]);
        Self {
            device: secret.public(),
            secret,
            replicas: BTreeMap::new(),
            disks: BTreeMap::new(),
            memory: BTreeMap::new(),
            queue: VecDeque::new(),
            ends: BTreeMap::new(),
            budget: Budget::new(),
            accounts,
            signing: VecDeque::new(),
            rng: StdRng::seed_from_u64(chance),
            events: Vec::new(),
        }
    }

    pub(super) fn join(&mut self, id: ConversationId) {
        let mut replica = Replica::new(id, self.device);
        let run = RunId::from_bytes(self.rng.random());
        replica.begin(OwnRun::begin(self.device, run));
        self.replicas.insert(id, replica);
        self.disks.insert(id, Disk::default());
        self.memory.insert(id, Disk::default());
    }

    // ---- links ---------------------------------------------------------------------------------

    pub(super) fn connect(
        &mut self,
        other: usize,
        peer: DeviceKey,
        epoch: u64,
        shared: BTreeSet<ConversationId>,
    ) {
        let view = View {
            replicas: &self.replicas,
            shared: &shared,
        };
        let session = Session::open(peer, None, DatabaseInstance([0; 32]), &view);
        let end = End {
            session,
            epoch,
            shared,
            reads: Vec::new(),
            takes: VecDeque::new(),
            checking: None,
        };
        self.ends.insert(other, end);
    }

    pub(super) fn disconnect(&mut self, other: usize) {
        if let Some(end) = self.ends.remove(&other) {
            end.session.close(&mut self.budget);
        }
    }

    /// Calls a session with what it needs, and takes what it asks for.
    pub(super) fn with<T>(
        &mut self,
        other: usize,
        now: Instant,
        call: impl FnOnce(&mut Session, &mut Context<'_, View<'_>>) -> T,
    ) -> Option<T> {
        let end = self.ends.get_mut(&other)?;
        let shared = View {
            replicas: &self.replicas,
            shared: &end.shared,
        };
        let mut cx = Context {
            shared: &shared,
            budget: &mut self.budget,
            now,
        };
        let result = call(&mut end.session, &mut cx);
        while let Some(task) = end.session.poll_task() {
            match task {
                Task::ReadPage(_)
                | Task::ReadStretch { .. }
                | Task::ReadOwn { .. }
                | Task::ReadProof { .. } => end.reads.push(task),
                Task::TakePage { .. } | Task::TakeSeal { .. } | Task::TakeProof(_) => {
                    end.takes.push_back(task);
                }
            }
        }
        while let Some(event) = end.session.poll_event() {
            self.events.push(event);
        }
        Some(result)
    }

    pub(super) fn handle(&mut self, from: usize, frame: LogFrame, now: Instant) {
        let handled = self.with(from, now, |session, cx| session.handle_frame(frame, cx));
        assert!(
            handled.is_none_or(|it| it.is_ok()),
            "all are honest: {handled:?}"
        );
    }

    pub(super) fn poll(&mut self, to: usize, now: Instant) -> Option<LogFrame> {
        self.with(to, now, |session, cx| session.poll_frame(cx))?
    }

    fn changed(
        &mut self,
        id: ConversationId,
        admission: &Admission,
        is_durable: bool,
        now: Instant,
    ) {
        let others: Vec<usize> = self.ends.keys().copied().collect();
        for other in others {
            self.with(other, now, |session, cx| match is_durable {
                true => session.handle_committed(id, admission.chain, cx),
                false => session.handle_change(id, admission.chain, cx),
            });
        }
    }

    // ---- the store -----------------------------------------------------------------------------

    /// The store answers one of its reads, whichever.
    pub(super) fn read(&mut self, other: usize, now: Instant) {
        let Some(end) = self
            .ends
            .get_mut(&other)
            .filter(|end| !end.reads.is_empty())
        else {
            return;
        };
        let index = self.rng.random_range(0..end.reads.len());
        match end.reads.swap_remove(index) {
            Task::ReadPage(request) => {
                let page = self.memory[&request.conversation].page(&request);
                self.with(other, now, |session, cx| {
                    session.handle_page(&request, page, cx)
                });
            }
            Task::ReadStretch {
                conversation,
                chain,
                place,
            } => {
                let stretch = self.memory[&conversation].stretch(&chain, place);
                self.with(other, now, |session, cx| {
                    session.handle_stretch(conversation, chain, place, stretch, cx)
                });
            }
            Task::ReadOwn {
                conversation,
                chain,
                first,
                last,
            } => {
                let own = self.memory[&conversation].own_stretch(&chain, first, last);
                self.with(other, now, |session, cx| {
                    session.handle_own_stretch(conversation, chain, &own, cx)
                });
            }
            Task::ReadProof {
                conversation,
                chain,
            } => {
                let proof = self.memory[&conversation].proofs.get(&chain).cloned();
                self.with(other, now, |session, cx| session.handle_proof(proof, cx));
            }
            Task::TakePage { .. } | Task::TakeSeal { .. } | Task::TakeProof(_) => {
                panic!("it is no read")
            }
        }
    }

    /// The verifier begins with the next thing of a link, or is done with it.
    pub(super) fn verify(&mut self, other: usize, wall: UnixTime, now: Instant) {
        let Some(end) = self.ends.get_mut(&other) else {
            return;
        };
        let source = Source::Device(*end.session.peer());
        if let Some((task, checked)) = end.checking.take() {
            self.admit(other, task, checked, wall, now);
            return;
        }
        let Some(task) = end.takes.pop_front() else {
            return;
        };
        let checked = match &task {
            Task::TakePage { page, .. } => {
                let replica = &self.replicas[&page.conversation];
                let examined = replica.examine(page.clone(), source, &self.accounts);
                examined.and_then(Examined::check)
            }
            Task::TakeSeal {
                conversation,
                chain,
                seal,
            } => {
                let examined = self.replicas[conversation].examine_seal(*chain, *seal);
                examined.and_then(Examined::check)
            }
            Task::TakeProof(proof) => return self.take_proof(other, (**proof).clone(), now),
            Task::ReadPage(_)
            | Task::ReadStretch { .. }
            | Task::ReadOwn { .. }
            | Task::ReadProof { .. } => panic!("it is a read"),
        };
        end.checking = Some((task, checked));
    }

    fn take_proof(&mut self, other: usize, proof: common::log::ForkProof, now: Instant) {
        let fork = proof.verify();
        let outcome = fork.map(|_| ());
        let taken = self.with(other, now, |session, _| session.handle_proof_taken(outcome));
        assert_eq!(taken, Some(Ok(())), "all are honest");
        let replica = self.replicas.get_mut(&proof.conversation).unwrap();
        if let Ok(admission) = replica.admit_fork(&fork.unwrap(), &self.accounts) {
            let id = proof.conversation;
            self.write(id, Write::Proof(proof), None, now);
            self.write(id, Write::Taken(admission), None, now);
        }
    }

    fn admit(
        &mut self,
        other: usize,
        task: Task,
        checked: Result<Checked, Refusal>,
        wall: UnixTime,
        now: Instant,
    ) {
        let epoch = self.ends[&other].epoch;
        let (id, slot) = match task {
            Task::TakePage { slot, page } => (page.conversation, Some(slot)),
            Task::TakeSeal { conversation, .. } => (conversation, None),
            Task::TakeProof(_)
            | Task::ReadPage(_)
            | Task::ReadStretch { .. }
            | Task::ReadOwn { .. }
            | Task::ReadProof { .. } => panic!("it is not checked"),
        };
        let replica = self.replicas.get_mut(&id).unwrap();
        let admitted = checked.and_then(|it| replica.admit(it, wall, &self.accounts));
        let outcome = match &admitted {
            Ok(_) => Ok(()),
            Err(refusal) => Err(*refusal),
        };
        if let Ok(admission) = admitted {
            let settles = slot.map(|slot| (other, epoch, slot));
            self.write(id, Write::Taken(admission), settles, now);
        }
        let done = match (slot, outcome) {
            (Some(_), Ok(())) => None,
            (Some(slot), Err(_)) => self.with(other, now, |session, cx| {
                session.handle_settled(slot, outcome, cx)
            }),
            (None, _) => self.with(other, now, |session, _| session.handle_seal(outcome)),
        };
        assert!(
            done.is_none_or(|done| done.is_ok()),
            "all are honest: {done:?}"
        );
    }

    fn write(
        &mut self,
        conversation: ConversationId,
        write: Write,
        settles: Option<(usize, u64, Slot)>,
        now: Instant,
    ) {
        self.memory.get_mut(&conversation).unwrap().write(&write);
        if let Some(admission) = write.admission() {
            self.changed(conversation, admission, false, now);
        }
        self.queue.push_back(Writing {
            conversation,
            write,
            settles,
        });
    }

    /// The disk has what was written longest ago.
    pub(super) fn commit(&mut self, now: Instant) {
        let Some(writing) = self.queue.pop_front() else {
            return;
        };
        let id = writing.conversation;
        self.disks.get_mut(&id).unwrap().write(&writing.write);
        if let Some(admission) = writing.write.admission() {
            let replica = self.replicas.get_mut(&id).unwrap();
            replica.committed(&admission.receipt);
            while let Some(id) = replica.poll_look_up() {
                let hash = self.memory[&writing.conversation].hash(&id.chain, id.sequence);
                replica.handle_hash(id, hash);
            }
            self.changed(id, admission, true, now);
        }
        if let Some((other, epoch, slot)) = writing.settles
            && self.ends.get(&other).is_some_and(|end| end.epoch == epoch)
        {
            let done = self.with(other, now, |session, cx| {
                session.handle_settled(slot, Ok(()), cx)
            });
            assert_eq!(done, Some(Ok(())));
        }
    }

    // ---- writing -------------------------------------------------------------------------------

    /// Writes a text, if the signer is not too far behind.
    pub(super) fn append(&mut self, id: ConversationId, text: &str, wall: UnixTime, now: Instant) {
        let replica = self.replicas.get_mut(&id).unwrap();
        let body = text.as_bytes().to_vec();
        match replica.append(Kind::TEXT, body, wall, now, &self.accounts) {
            Ok(admission) => self.write(id, Write::Written(admission), None, now),
            Err(AppendError::Unsealed) => {}
            Err(AppendError::NewRun(_)) => {
                let run = RunId::from_bytes(self.rng.random());
                replica.begin(OwnRun::begin(self.device, run));
                self.append(id, text, wall, now);
            }
            Err(error @ (AppendError::NotApproved | AppendError::TooLong | AppendError::Full)) => {
                panic!("{error}")
            }
        }
    }

    /// The signer signs what is due.
    pub(super) fn sign(&mut self, now: Instant) {
        for (id, replica) in &mut self.replicas {
            while let Some(job) = replica.poll_seal(now) {
                self.signing.push_back((*id, job));
            }
        }
        if let Some((id, job)) = self.signing.pop_front() {
            let seal = Seal::sign_hash(&self.secret, job.sequence, &job.hash);
            let replica = self.replicas.get_mut(&id).unwrap();
            if let Some(admission) = replica.handle_seal(&job, seal, &self.accounts) {
                self.write(id, Write::Taken(admission), None, now);
            }
        }
    }

    pub(super) fn timeout(&mut self, now: Instant) {
        let others: Vec<usize> = self.ends.keys().copied().collect();
        for other in others {
            self.with(other, now, |session, cx| {
                if session.poll_timeout().is_some_and(|due| due <= now) {
                    session.handle_timeout(cx);
                }
            });
        }
    }

    // ---- looking -------------------------------------------------------------------------------

    pub(super) fn is_at_rest(&self) -> bool {
        let is_idle = |end: &End| {
            end.reads.is_empty()
                && end.takes.is_empty()
                && end.checking.is_none()
                && end.session.poll_timeout().is_none()
        };
        let waits = self.replicas.values();
        self.queue.is_empty()
            && self.signing.is_empty()
            && waits.map(Replica::poll_timeout).all(|due| due.is_none())
            && self.ends.values().all(is_idle)
    }

    /// What is said to be on disk is there.
    pub(super) fn check_promise(
        &self,
        id: &ConversationId,
        chain: &common::log::ChainId,
        extent: &Extent,
    ) {
        let disk = &self.disks[id];
        if extent.last != Sequence::START {
            assert_eq!(disk.hash(chain, extent.last), extent.hash, "not on disk");
        }
    }
}
