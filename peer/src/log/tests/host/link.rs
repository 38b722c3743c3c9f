//! What a device says and hears on its links.

use super::*;

impl Host {
    /// A link to another host begins.
    pub(in crate::log::tests) fn connect(&mut self, other: usize, device: &DeviceKey) {
        self.links.insert(other, Link::default());
        self.say_all(other, device);
    }

    /// The link to another host ends, and what came over it and is not taken is forgotten.
    pub(in crate::log::tests) fn disconnect(&mut self, other: usize) {
        self.links.remove(&other);
        self.outbox.retain(|(receiver, _)| *receiver != other);
        self.waiting.retain(|(from, ..)| *from != other);
        self.checked.take_if(|(from, ..)| *from == other);
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
    pub(in crate::log::tests) fn check_promises_kept(&self) {
        for (chain, last) in &self.promised {
            let held = self.disk.rows.get(chain).map_or(0, BTreeMap::len);
            assert!(
                held as u64 >= last.number(),
                "what was acknowledged is lost"
            );
        }
    }

    pub(in crate::log::tests) fn handle(
        &mut self,
        from: usize,
        device: DeviceKey,
        frame: Frame,
        wall: UnixTime,
    ) {
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
            Frame::Page(page) => self.on_page(from, device, page),
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

    fn on_page(&mut self, from: usize, device: DeviceKey, page: Page) {
        let slot = self.links.get_mut(&from).unwrap().receiving.open();
        self.waiting.push_back((from, slot, device, page));
    }

    /// The verifier is done with a page, and begins with the next one.
    pub(in crate::log::tests) fn verify(&mut self, wall: UnixTime) {
        if let Some((from, slot, chain, checked)) = self.checked.take() {
            match self.replica.admit(checked, wall, &self.accounts) {
                Ok(admission) => self.take(admission, Some((from, slot)), None),
                Err(refusal) => self.refuse(from, slot, chain, refusal),
            }
        }
        if let Some((from, slot, device, page)) = self.waiting.pop_front() {
            let (chain, source) = (page.chain, Source::Device(device));
            let examined = self.replica.examine(page, source, &self.accounts);
            match examined.and_then(Examined::check) {
                Ok(checked) => self.checked = Some((from, slot, chain, checked)),
                Err(refusal) => self.refuse(from, slot, chain, refusal),
            }
        }
    }

    fn refuse(&mut self, from: usize, slot: Slot, chain: ChainId, refusal: Refusal) {
        assert!(!refusal.is_violation(), "all are honest: {refusal}");
        let Some(link) = self.links.get_mut(&from) else {
            return;
        };
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
    pub(in crate::log::tests) fn turn(&mut self) {
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
        let number = u32::try_from(other % super::super::world::DEVICES).unwrap();
        let devices = self.accounts.devices.iter();
        let mut found = devices.filter(|(_, (own, _))| *own == number);
        *found.next().unwrap().0
    }
}
