//! What the store has of conversations: at the start of the program, and of one after the store has failed.

use std::time::Instant;

use common::limits::{CONVERSATION_RETRY_FIRST, SENT_KEPT_AFTER};
use common::log::{ChainId, ConversationId, EntryId, ForkProof};

use super::held::{Held, State};
use super::*;
use crate::log::{Examined, OwnRun, RunStart, Source, StoredChain, at_start};
use crate::node::drafts::{Draft, Then, Written};
use crate::node::io::StoreAnswer;
use crate::node::io::entries::{
    Arrival, EntriesAnswer, EntriesRequest, EntryWrite, Origin, Reach, Reached, StoredConversation,
    StoredCut,
};
use crate::node::purpose::ConversationStored;

/// How far the start is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Start {
    /// Nothing was asked: there is no account yet.
    Before,
    /// The store was asked which conversations there are.
    Listing,
    /// It has failed, and is asked again at this time.
    Failed(Instant),
    /// It is known which there are.
    Done,
}

impl Start {
    pub(super) const fn poll_timeout(self) -> Option<Instant> {
        match self {
            Self::Failed(at) => Some(at),
            Self::Before | Self::Listing | Self::Done => None,
        }
    }
}

impl Conversations {
    /// This device has an account: reads what there is, if that was not begun.
    pub(in crate::node) fn begin(&mut self, cx: &mut Context<'_>) {
        if self.start == Start::Before {
            self.ask_start(cx);
        }
    }

    fn ask_start(&mut self, cx: &mut Context<'_>) {
        self.start = Start::Listing;
        match self.instance {
            None => cx.store(EntriesRequest::TakeMarks, ConversationStored::Marks),
            Some(_) => self.list(None, cx),
        }
    }

    fn list(&self, after: Option<ConversationId>, cx: &mut Context<'_>) {
        let request = EntriesRequest::Conversations { after };
        cx.store(request, ConversationStored::Listed);
    }

    /// Asks the store again for what it has failed to give.
    pub(super) fn try_again(&mut self, cx: &mut Context<'_>) {
        if let Start::Failed(at) = self.start
            && at <= cx.now
        {
            self.ask_start(cx);
        }
        let due = |held: &Held| matches!(held.state, State::Broken(at) if at <= cx.now);
        let due = self.held.values().filter(|held| due(held)).map(Held::id);
        let due: Vec<ConversationId> = due.collect();
        for id in due {
            self.restore(id, cx);
        }
    }

    /// Reads a conversation from the store, from the beginning.
    fn restore(&mut self, id: ConversationId, cx: &mut Context<'_>) {
        if let Some(held) = self.held.get_mut(&id) {
            held.begin_restoring();
            let epoch = held.epoch;
            ask(id, epoch, Part::Chains(None), cx);
        }
    }

    // ---- answers -------------------------------------------------------------------------------

    /// The store has told how the last program ended.
    pub(super) fn on_marks(&mut self, answer: StoreAnswer, cx: &mut Context<'_>) {
        match answer {
            StoreAnswer::Entries(EntriesAnswer::Marks { instance, marks }) => {
                self.instance = Some(instance);
                self.marks = marks.into_iter().collect();
                self.list(None, cx);
            }
            answer @ (StoreAnswer::Done
            | StoreAnswer::Chat(_)
            | StoreAnswer::Entries(_)
            | StoreAnswer::Failed(_)) => self.on_start_failed(&answer, cx.now),
        }
    }

    /// The store has listed conversations.
    pub(super) fn on_listed(
        &mut self,
        answer: StoreAnswer,
        people: People<'_>,
        cx: &mut Context<'_>,
    ) {
        let part = match answer {
            StoreAnswer::Entries(EntriesAnswer::Conversations(part)) => part,
            answer @ (StoreAnswer::Done
            | StoreAnswer::Chat(_)
            | StoreAnswer::Entries(_)
            | StoreAnswer::Failed(_)) => return self.on_start_failed(&answer, cx.now),
        };
        for StoredConversation { id, kind, run } in part.items {
            let mut held = Held::new(kind, Replica::new(id, self.device));
            (held.is_open, held.stored_run) = (true, run);
            self.held.insert(id, held);
            self.restore(id, cx);
        }
        if part.next.is_some() {
            return self.list(part.next, cx);
        }
        self.start = Start::Done;
        let links: Vec<LinkId> = self.ends.keys().copied().collect();
        for link in links {
            self.open(link, people, cx);
        }
        self.choose(cx);
        self.write_all_old(people, cx);
        for (command, to, body, sent) in std::mem::take(&mut self.early) {
            self.send(command, &to, &body, sent, people, cx);
        }
    }

    fn on_start_failed(&mut self, answer: &StoreAnswer, now: Instant) {
        log::warn!("cannot read which conversations there are, trying again: {answer:?}");
        self.start = Start::Failed(now + CONVERSATION_RETRY_FIRST);
    }

    /// The store has a part of a conversation.
    pub(super) fn on_restored(
        &mut self,
        (id, epoch): (ConversationId, u64),
        answer: StoreAnswer,
        people: People<'_>,
        cx: &mut Context<'_>,
    ) {
        let Some(held) = self.held.get_mut(&id).filter(|held| held.epoch == epoch) else {
            return;
        };
        match answer {
            StoreAnswer::Entries(EntriesAnswer::Chains(part)) => {
                for (chain, stored, reached) in part.items {
                    restore_chain(held, chain, stored, reached, cx);
                }
                match part.next {
                    Some(_) => ask(id, epoch, Part::Chains(part.next), cx),
                    None => ask(id, epoch, Part::Cuts(None), cx),
                }
            }
            StoreAnswer::Entries(EntriesAnswer::Cuts(part)) => {
                let members = people.members(&id, &held.kind);
                for StoredCut { by, clock, target } in part.items {
                    held.replica.restore_cut(by, clock, target, &members);
                }
                match part.next {
                    Some(_) => ask(id, epoch, Part::Cuts(part.next), cx),
                    None => ask(id, epoch, Part::Forks(None), cx),
                }
            }
            StoreAnswer::Entries(EntriesAnswer::Forks(part)) => {
                for proof in part.items {
                    restore_fork(held, &proof, people);
                }
                match part.next {
                    Some(_) => ask(id, epoch, Part::Forks(part.next), cx),
                    None => self.on_whole(id, people, cx),
                }
            }
            StoreAnswer::Entries(EntriesAnswer::Undelivered(waiting)) => {
                held.is_counted = true;
                for entry in waiting {
                    if entry.sequence > held.reached(&entry.chain).delivered {
                        held.undelivered.insert(entry);
                    }
                }
            }
            answer @ (StoreAnswer::Done
            | StoreAnswer::Chat(_)
            | StoreAnswer::Entries(_)
            | StoreAnswer::Failed(_)) => {
                log::warn!("cannot read a conversation, trying again: {answer:?}");
                held.break_off(cx.now);
            }
        }
    }

    /// A conversation is read.
    fn on_whole(&mut self, id: ConversationId, people: People<'_>, cx: &mut Context<'_>) {
        let (device, mark) = (self.device, self.marks.remove(&id));
        let (Some(held), Some(instance)) = (self.held.get_mut(&id), self.instance) else {
            return;
        };
        held.state = State::Ready;
        let tip = held.stored_run.and_then(|run| {
            let tip = held.replica.tip(&ChainId { device, run })?;
            Some((run, tip))
        });
        match at_start(mark.as_ref(), instance, tip) {
            RunStart::GoOn(run) => held.replica.begin(OwnRun::resume(device, run)),
            // With the first entry.
            RunStart::Begin(_) => {}
        }
        let epoch = held.epoch;
        self.refresh(id, people, cx);
        self.take_fresh(id, people, cx);
        self.reach_all_claimed(id, cx);
        if let Some(held) = self.held.get_mut(&id) {
            held.replica.seal_remains();
        }
        self.seal_due(id, cx);
        self.share(id, cx.now);
        let conversation = id;
        let then = ConversationStored::Restored(id, epoch);
        cx.store(EntriesRequest::Undelivered { conversation }, then);
        let then = ConversationStored::Lost(id, epoch);
        cx.store(EntriesRequest::Lost { conversation }, then);
        self.write_waiting(id, people, cx);
    }

    /// Has the store write what it has refused before and links have carried.
    fn take_fresh(&mut self, id: ConversationId, people: People<'_>, cx: &mut Context<'_>) {
        let held = self.held.get(&id);
        let pages = held.map_or_else(Vec::new, |held| held.fresh.pages(id));
        for page in pages {
            let (chain, first, last) = (page.chain, page.first, page.last());
            let source = Source::Device(self.device);
            let examined = self.examine(
                id,
                |replica, members| replica.examine(page, source, members),
                people,
            );
            let (Some(held), checked) =
                (self.held.get_mut(&id), examined.and_then(Examined::check))
            else {
                return;
            };
            let members = people.members(&id, &held.kind);
            let admitted =
                checked.and_then(|checked| held.replica.admit(checked, cx.unix(), &members));
            match admitted {
                Ok(admission) => {
                    let written = Written {
                        fresh: Some(EntryId {
                            chain,
                            sequence: last,
                        }),
                        ..Written::default()
                    };
                    let write = EntryWrite::Admit(Box::new(admission), Origin::WrittenHere);
                    let reached = held.reached(&chain);
                    self.write(id, vec![write], written, cx);
                    for reach in Reach::ALL {
                        cx.store_unawaited(EntriesRequest::Reach {
                            conversation: id,
                            chain,
                            reach,
                            last: reached.last(reach),
                        });
                    }
                }
                Err(refusal) => {
                    log::warn!("cannot keep what was sent while the disk refused it: {refusal}");
                    held.fresh.forget_from(&chain, first);
                }
            }
        }
    }

    /// The store has told what is to be written again.
    pub(super) fn on_lost(
        &mut self,
        (id, epoch): (ConversationId, u64),
        answer: StoreAnswer,
        people: People<'_>,
        cx: &mut Context<'_>,
    ) {
        let Some(held) = self.held.get_mut(&id).filter(|held| held.epoch == epoch) else {
            return;
        };
        let StoreAnswer::Entries(EntriesAnswer::Lost(lost)) = answer else {
            return held.break_off(cx.now);
        };
        let drafts = lost.into_iter().map(|lost| Draft {
            kind: lost.kind,
            body: lost.body,
            at: None,
            then: Then::Rewritten(lost.id),
        });
        held.waiting.extend(drafts);
        self.write_waiting(id, people, cx);
    }

    // ---- the end -------------------------------------------------------------------------------

    /// The program ends: nothing is written or taken any more, and the store keeps where runs have ended.
    pub(in crate::node) fn shut_down(&mut self, cx: &mut Context<'_>) {
        let Some(instance) = self.instance.filter(|_| !self.is_ending) else {
            return;
        };
        self.is_ending = true;
        self.keep_carried(cx.now + SENT_KEPT_AFTER, cx);
        let held = self
            .held
            .values()
            .filter(|held| held.is_ready() && held.is_open);
        let marks = held.filter_map(|held| {
            let run = held.replica.run().filter(|run| run.over().is_none())?;
            let tip = held.replica.tip(&run.chain())?;
            let mark = CleanMark {
                run: run.chain().run,
                last: tip.sequence,
                hash: tip.hash,
                instance,
            };
            Some((held.id(), mark))
        });
        let marks: Vec<_> = marks.collect();
        cx.store(EntriesRequest::SetMarks(marks), ConversationStored::Ended);
    }
}

fn restore_chain(
    held: &mut Held,
    chain: ChainId,
    stored: StoredChain,
    reached: Reached,
    cx: &Context<'_>,
) {
    held.replica.restore(chain, stored, cx.unix());
    // Of what the store had refused it does not know how far it has got.
    let known = held.reached(&chain);
    let reached = Reach::ALL.iter().fold(reached, |reached, reach| {
        reached.with(*reach, known.last(*reach))
    });
    held.reached.insert(chain, reached);
}

fn restore_fork(held: &mut Held, proof: &ForkProof, people: People<'_>) {
    let members = people.members(&held.id(), &held.kind);
    match proof.verify() {
        // The store has what follows from it.
        Ok(fork) => drop(held.replica.admit_fork(&fork, &members)),
        Err(error) => log::warn!("a proof in the history proves nothing: {error}"),
    }
}

/// A part of what the store has of a conversation, behind what was read of it.
#[derive(Clone, Copy, Debug)]
enum Part {
    Chains(Option<ChainId>),
    Cuts(Option<Arrival>),
    Forks(Option<ChainId>),
}

/// Asks for a part of a conversation, for the reading of it that has this number.
fn ask(conversation: ConversationId, epoch: u64, part: Part, cx: &mut Context<'_>) {
    let request = match part {
        Part::Chains(after) => EntriesRequest::Chains {
            conversation,
            after,
        },
        Part::Cuts(after) => EntriesRequest::Cuts {
            conversation,
            after,
        },
        Part::Forks(after) => EntriesRequest::Forks {
            conversation,
            after,
        },
    };
    cx.store(request, ConversationStored::Restored(conversation, epoch));
}
