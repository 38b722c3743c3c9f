//! What others have written, on its way from a link to the disk; and what of this device's copies they ask for.

use common::log::{ConversationId, EntryId, Fork, ForkProof};

use super::links::close_for;
use super::*;
use crate::log::{Checked, Examined, Page, PageRequest, Refusal, SealJob, Slot, Source};
use crate::node::drafts::Written;
use crate::node::io::entries::{EntriesAnswer, EntriesRequest, EntryWrite};
use crate::node::io::{Output, SealOutcome, SealWork, StoreAnswer};
use crate::node::purpose::ConversationStored;

/// Something that the worker for seals has.
#[derive(Debug)]
pub(super) enum Work {
    /// The seal of a page, or one by itself.
    Check {
        link: LinkId,
        /// Where it belongs, and when that was read from the store.
        conversation: ConversationId,
        epoch: u64,
        /// The page's.
        slot: Option<Slot>,
    },
    /// A proof of a fork.
    Prove { link: LinkId },
    /// A header of this device's own.
    Sign {
        conversation: ConversationId,
        epoch: u64,
        job: SealJob,
    },
}

impl Conversations {
    /// Does what a session asks for.
    pub(super) fn on_task(
        &mut self,
        link: LinkId,
        task: Task,
        people: People<'_>,
        cx: &mut Context<'_>,
    ) {
        match task {
            Task::ReadPage(request) => {
                let held = self.held.get(&request.conversation);
                match held.and_then(|held| held.fresh.page(&request)) {
                    Some(page) => self.give(link, &request, Some(page), people, cx),
                    None => {
                        let then = ConversationStored::Page { link, request };
                        cx.store(EntriesRequest::Page(request), then);
                    }
                }
            }
            Task::ReadStretch {
                conversation,
                chain,
                place: sequence,
            } => {
                let at = EntryId { chain, sequence };
                let then = ConversationStored::Stretch {
                    link,
                    conversation,
                    at,
                };
                cx.store(EntriesRequest::Stretch { conversation, at }, then);
            }
            Task::ReadOwn {
                conversation,
                chain,
                first,
                last,
            } => {
                let request = EntriesRequest::OwnStretch {
                    conversation,
                    chain,
                    first,
                    last,
                };
                let then = ConversationStored::OwnStretch {
                    link,
                    conversation,
                    chain,
                };
                cx.store(request, then);
            }
            Task::ReadProof {
                conversation,
                chain,
            } => {
                let request = EntriesRequest::Fork {
                    conversation,
                    chain,
                };
                cx.store(request, ConversationStored::Proof { link });
            }
            Task::TakePage { .. } | Task::TakeSeal { .. } | Task::TakeProof(_) => {
                if let Some(end) = self.ends.get_mut(&link).filter(|_| !self.is_ending) {
                    end.takes.push_back(task);
                    self.check_next(link, people, cx);
                }
            }
        }
    }

    /// Has the next things that a link has brought checked, one after the other.
    fn check_next(&mut self, link: LinkId, people: People<'_>, cx: &mut Context<'_>) {
        while let Some(end) = self.ends.get_mut(&link).filter(|end| !end.is_checking)
            && let Some(task) = end.takes.pop_front()
        {
            let source = Source::Device(*end.device_key());
            match task {
                Task::TakePage { slot, page } => {
                    let id = page.conversation;
                    let examined = self.examine(
                        id,
                        |replica, members| replica.examine(page, source, members),
                        people,
                    );
                    self.check(link, id, Some(slot), examined, people, cx);
                }
                Task::TakeSeal {
                    conversation,
                    chain,
                    seal,
                } => {
                    let examined = self.examine(
                        conversation,
                        |replica, _| replica.examine_seal(chain, seal),
                        people,
                    );
                    self.check(link, conversation, None, examined, people, cx);
                }
                Task::TakeProof(proof) => {
                    self.work(Work::Prove { link }, SealWork::Prove(proof), cx);
                    self.set_checking(link, true);
                }
                Task::ReadPage(_)
                | Task::ReadStretch { .. }
                | Task::ReadOwn { .. }
                | Task::ReadProof { .. } => {}
            }
        }
    }

    /// Examines something that was given in a conversation.
    pub(super) fn examine(
        &self,
        id: ConversationId,
        examine: impl FnOnce(&Replica, &people::Members<'_>) -> Result<Examined, Refusal>,
        people: People<'_>,
    ) -> Result<Examined, Refusal> {
        let held = self.held.get(&id).filter(|held| held.is_ready());
        // It is not shared any more, which the session knows.
        let held = held.ok_or(Refusal::NotApproved)?;
        examine(&held.replica, &people.members(&id, &held.kind))
    }

    fn check(
        &mut self,
        link: LinkId,
        conversation: ConversationId,
        slot: Option<Slot>,
        examined: Result<Examined, Refusal>,
        people: People<'_>,
        cx: &mut Context<'_>,
    ) {
        match examined {
            Ok(examined) if examined.has_seal() => {
                let epoch = self.epoch(&conversation);
                let work = Work::Check {
                    link,
                    conversation,
                    epoch,
                    slot,
                };
                self.work(work, SealWork::Check(Box::new(examined)), cx);
                self.set_checking(link, true);
            }
            examined => {
                let checked = examined.and_then(Examined::check);
                self.admit(link, conversation, slot, checked, people, cx);
            }
        }
    }

    fn epoch(&self, id: &ConversationId) -> u64 {
        self.held.get(id).map_or(0, |held| held.epoch)
    }

    fn set_checking(&mut self, link: LinkId, is_checking: bool) {
        if let Some(end) = self.ends.get_mut(&link) {
            end.is_checking = is_checking;
        }
    }

    /// Gives the worker for seals something to do.
    pub(super) fn work(&mut self, work: Work, seal: SealWork, cx: &mut Context<'_>) {
        let id = WorkId(self.next_work);
        self.next_work += 1;
        self.works.insert(id, work);
        cx.outputs.push_back(Output::Seal(id, seal));
    }

    /// The worker for seals is done with something.
    pub(in crate::node) fn on_work(
        &mut self,
        id: WorkId,
        outcome: SealOutcome,
        people: People<'_>,
        cx: &mut Context<'_>,
    ) {
        match (self.works.remove(&id), outcome) {
            (
                Some(Work::Check {
                    link,
                    conversation,
                    epoch,
                    slot,
                }),
                SealOutcome::Checked(checked),
            ) => {
                self.set_checking(link, false);
                let is_current = epoch == self.epoch(&conversation);
                let checked = checked.map_err(|refusal| match is_current {
                    true => refusal,
                    false => Refusal::NotNext,
                });
                let checked = checked.and_then(|checked| match is_current {
                    true => Ok(*checked),
                    false => Err(Refusal::NotNext),
                });
                self.admit(link, conversation, slot, checked, people, cx);
                self.check_next(link, people, cx);
            }
            (Some(Work::Prove { link }), SealOutcome::Proved(proof, fork)) => {
                self.set_checking(link, false);
                let outcome = fork.as_ref().map(|_| ()).map_err(|error| *error);
                let told = self.with(link, cx.now, |session, _| {
                    session.handle_proof_taken(outcome)
                });
                if let Some(Err(violation)) = told {
                    close_for(link, violation, cx);
                }
                if let Ok(fork) = fork {
                    self.take_fork(proof, &fork, people, cx);
                }
                self.check_next(link, people, cx);
            }
            (
                Some(Work::Sign {
                    conversation,
                    epoch,
                    job,
                }),
                SealOutcome::Signed(seal),
            ) => self.on_signed((conversation, epoch), &job, seal, people, cx),
            (None | Some(_), _) => {
                log::error!("the worker for seals has answered what was not asked")
            }
        }
        self.run(people, cx);
    }

    fn admit(
        &mut self,
        link: LinkId,
        id: ConversationId,
        slot: Option<Slot>,
        checked: Result<Checked, Refusal>,
        people: People<'_>,
        cx: &mut Context<'_>,
    ) {
        let held = self
            .held
            .get_mut(&id)
            .filter(|held| held.is_ready() && !self.is_ending);
        let Some(held) = held else {
            return self.settle(link, slot, Err(Refusal::NotApproved), cx);
        };
        let members = people.members(&id, &held.kind);
        let admitted = checked.and_then(|checked| held.replica.admit(checked, cx.unix(), &members));
        match admitted {
            Ok(admission) => {
                let origin = people.origin(&admission.chain.device);
                let mut written = Written::default();
                match slot {
                    Some(slot) => {
                        self.taking += 1;
                        written.settles = Some((link, slot));
                    }
                    None => self.settle(link, None, Ok(()), cx),
                }
                let has_lost = admission.rewrite.is_some();
                let write = EntryWrite::Admit(Box::new(admission), origin);
                self.write(id, vec![write], written, cx);
                if has_lost {
                    self.ask_lost(id, cx);
                }
                self.restate(id, cx.now);
                self.look_up_ends(id, cx);
            }
            Err(refusal) => {
                log::debug!("something in a conversation was not taken: {refusal}");
                self.settle(link, slot, Err(refusal), cx);
            }
        }
    }

    /// Asks the store what is to be written again.
    pub(super) fn ask_lost(&self, id: ConversationId, cx: &mut Context<'_>) {
        let request = EntriesRequest::Lost { conversation: id };
        cx.store(request, ConversationStored::Lost(id, self.epoch(&id)));
    }

    /// Tells a session what came of a page or a seal.
    pub(super) fn settle(
        &mut self,
        link: LinkId,
        slot: Option<Slot>,
        outcome: Result<(), Refusal>,
        cx: &mut Context<'_>,
    ) {
        let told = self.with(link, cx.now, |session, cx| match slot {
            Some(slot) => session.handle_settled(slot, outcome, cx),
            None => session.handle_seal(outcome),
        });
        if let Some(Err(violation)) = told {
            close_for(link, violation, cx);
        }
    }

    fn take_fork(
        &mut self,
        proof: Box<ForkProof>,
        fork: &Fork,
        people: People<'_>,
        cx: &mut Context<'_>,
    ) {
        let id = proof.conversation;
        let held = self
            .held
            .get_mut(&id)
            .filter(|held| held.is_ready() && !self.is_ending);
        let Some(held) = held else {
            return;
        };
        let members = people.members(&id, &held.kind);
        let Ok(admission) = held.replica.admit_fork(fork, &members) else {
            return;
        };
        let has_lost = admission.rewrite.is_some();
        let origin = people.origin(&admission.chain.device);
        let writes = vec![
            EntryWrite::Fork(proof),
            EntryWrite::Admit(Box::new(admission), origin),
        ];
        self.write(id, writes, Written::default(), cx);
        if has_lost {
            self.ask_lost(id, cx);
        }
        self.restate(id, cx.now);
        self.look_up_ends(id, cx);
    }

    /// Asks the store for the hashes of headers where chains end.
    pub(super) fn look_up_ends(&mut self, id: ConversationId, cx: &mut Context<'_>) {
        let Some(held) = self.held.get_mut(&id) else {
            return;
        };
        while let Some(at) = held.replica.poll_look_up() {
            let request = EntriesRequest::Hash {
                conversation: id,
                at,
            };
            let then = ConversationStored::Hash(id, held.epoch, at);
            cx.store(request, then);
        }
    }

    // ---- what others are given --------------------------------------------------------------

    /// A page is there that a session has asked for, or cannot be made.
    fn give(
        &mut self,
        link: LinkId,
        request: &PageRequest,
        page: Option<Page>,
        people: People<'_>,
        cx: &mut Context<'_>,
    ) {
        self.note_given(link, request, page.as_ref(), people, cx);
        self.with(link, cx.now, |session, cx| {
            session.handle_page(request, page, cx);
        });
    }

    /// The store has read what a session has asked for.
    pub(super) fn on_read(
        &mut self,
        purpose: ConversationStored,
        answer: StoreAnswer,
        people: People<'_>,
        cx: &mut Context<'_>,
    ) {
        let answer = match answer {
            StoreAnswer::Entries(answer) => Some(answer),
            StoreAnswer::Done | StoreAnswer::Chat(_) | StoreAnswer::Failed(_) => None,
        };
        match (purpose, answer) {
            (ConversationStored::Page { link, request }, answer) => {
                let page = if let Some(EntriesAnswer::Page { previous, rows }) = answer {
                    request.page(previous, rows)
                } else {
                    None
                };
                self.give(link, &request, page, people, cx);
            }
            (
                ConversationStored::Stretch {
                    link,
                    conversation,
                    at: EntryId { chain, sequence },
                },
                answer,
            ) => {
                let stretch = if let Some(EntriesAnswer::Stretch(stretch)) = answer {
                    stretch
                } else {
                    None
                };
                self.with(link, cx.now, |session, cx| {
                    session.handle_stretch(conversation, chain, sequence, stretch, cx);
                });
            }
            (
                ConversationStored::OwnStretch {
                    link,
                    conversation,
                    chain,
                },
                Some(EntriesAnswer::OwnStretch(own)),
            ) => {
                self.with(link, cx.now, |session, cx| {
                    session.handle_own_stretch(conversation, chain, &own, cx);
                });
            }
            (ConversationStored::Proof { link }, answer) => {
                let proof = if let Some(EntriesAnswer::Fork(proof)) = answer {
                    proof
                } else {
                    None
                };
                self.with(link, cx.now, |session, cx| {
                    session.handle_proof(proof.map(|proof| *proof), cx);
                });
            }
            (ConversationStored::Hash(id, epoch, at), Some(EntriesAnswer::Hash(Some(hash)))) => {
                let held = self.held.get_mut(&id).filter(|held| held.epoch == epoch);
                if let Some(held) = held {
                    held.replica.handle_hash(at, hash);
                    self.tell_changed(id, at.chain, true, cx.now);
                }
            }
            (purpose, answer) => {
                log::warn!("the store has not read what was asked: {purpose:?}, {answer:?}");
            }
        }
    }
}
