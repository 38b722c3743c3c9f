//! What the other side says.

use std::collections::BTreeSet;

use common::limits::{
    LOOSE_CHECKS_MAX, PAGES_IN_FLIGHT_LEN_MAX, SESSIONS_PER_LINK_MAX, STRETCH_READS_MAX,
    TRACES_PER_LINK_MAX,
};
use common::log::{
    Buckets, ChainId, ConversationId, Digest, Extent, ForkProof, Sequence, Stretch, Vector,
};
use common::wire::peer::{
    ChainNumber, ConversationNumber, Entries, Greet, LogEntry, LogFrame, NumberedChain,
};

use super::super::page::{Entry, Page};
use super::super::replica::Replica;
use super::super::traces::TraceStep;
use super::comparing::Verdict;
use super::{Context, Event, Listing, Question, Session, Shared, Taking, Task, Violation};

impl Session {
    /// A frame came.
    ///
    /// # Errors
    ///
    /// [`Violation`]: the link is to be closed.
    pub fn handle_frame<S: Shared>(
        &mut self,
        frame: LogFrame,
        cx: &mut Context<'_, S>,
    ) -> Result<(), Violation> {
        self.check_order(&frame)?;
        match frame {
            LogFrame::Greet(greet) => self.on_greet(greet, cx),
            LogFrame::Buckets(buckets) => self.on_buckets(buckets, cx),
            LogFrame::Digests(digests) => self.on_digests(digests.as_slice(), cx),
            LogFrame::Open {
                number,
                conversation,
                is_again,
            } => {
                self.theirs.open(number, conversation)?;
                if is_again && cx.shared.replica(&conversation).is_some() {
                    self.stating.insert(conversation);
                }
                Ok(())
            }
            LogFrame::Chains {
                conversation,
                chains,
                is_first,
                is_last,
            } => self.on_chains(conversation, chains.as_slice(), (is_first, is_last), cx),
            LogFrame::Have { answered, extents } => {
                self.on_have(answered, extents.as_slice(), cx)?;
                self.settle_budget(cx);
                Ok(())
            }
            LogFrame::Gone { chain, base } => self.on_gone(chain, base, cx),
            LogFrame::Entries(entries) => self.on_entries(entries, cx),
            LogFrame::Seal { chain, seal } => {
                let (conversation, chain) = self.theirs.chain(chain)?;
                self.take_loose(&conversation, cx, || Task::TakeSeal {
                    conversation,
                    chain,
                    seal,
                });
                Ok(())
            }
            LogFrame::Marks(marks) => self.on_marks(marks.as_slice(), cx),
            LogFrame::Fork { chain, one, other } => {
                let (conversation, chain) = self.theirs.chain(chain)?;
                self.take_loose(&conversation, cx, || {
                    Task::TakeProof(Box::new(ForkProof {
                        conversation,
                        chain,
                        one,
                        other,
                    }))
                });
                Ok(())
            }
            LogFrame::Trace { chain, place } => self.on_trace(chain, place, cx),
            LogFrame::Stretch { chain, stretch } => self.on_stretch(chain, stretch, cx),
            LogFrame::Typing { conversation } => {
                let conversation = self.theirs.conversation(conversation)?;
                if cx.shared.replica(&conversation).is_some() {
                    self.events.push_back(Event::Typing(conversation));
                }
                Ok(())
            }
            LogFrame::Ask {
                session,
                conversation,
            } => {
                let conversation = self.theirs.conversation(conversation)?;
                let has_room = self.sessions.len() < SESSIONS_PER_LINK_MAX;
                if has_room && cx.shared.replica(&conversation).is_some() {
                    self.sessions.insert(session);
                    self.events.push_back(Event::Asked {
                        session,
                        conversation,
                    });
                }
                Ok(())
            }
            LogFrame::Answer { session, is_yes } => {
                if self.sessions.contains(&session) {
                    self.events.push_back(Event::Answered { session, is_yes });
                }
                Ok(())
            }
            LogFrame::End { session } => {
                if self.sessions.remove(&session) {
                    self.events.push_back(Event::Ended(session));
                }
                Ok(())
            }
            LogFrame::Known(accounts) => {
                self.events.push_back(Event::Known(accounts.into_vec()));
                Ok(())
            }
        }
    }

    /// The first frame greets, and nothing comes between the pages of a list.
    fn check_order(&self, frame: &LogFrame) -> Result<(), Violation> {
        if self.has_greeted == matches!(frame, LogFrame::Greet(_)) {
            return Err(Violation::Greeting);
        }
        let goes_on = |listing: &Listing| {
            matches!(frame, LogFrame::Chains { conversation, is_first: false, .. }
                if *conversation == listing.number)
        };
        if self.listing.as_ref().is_none_or(goes_on) {
            Ok(())
        } else {
            Err(Violation::Listing)
        }
    }

    // ---- what differs --------------------------------------------------------------------------

    fn on_greet<S: Shared>(&mut self, greet: Greet, cx: &Context<'_, S>) -> Result<(), Violation> {
        self.has_greeted = true;
        self.events.push_back(Event::Greeted(greet));
        match self.comparing.handle_greeting(greet.digest)? {
            Some(buckets) => self.frames.push_back(LogFrame::Buckets(Box::new(buckets))),
            None => self.on_same(cx),
        }
        Ok(())
    }

    fn on_buckets<S: Shared>(
        &mut self,
        buckets: Box<Buckets>,
        cx: &Context<'_, S>,
    ) -> Result<(), Violation> {
        let differing = self.comparing.handle_buckets(buckets)?;
        self.say_digests(differing);
        self.on_same(cx);
        Ok(())
    }

    /// Of some conversations it is known that both have the same.
    fn on_same<S: Shared>(&mut self, cx: &Context<'_, S>) {
        let same = self.comparing.same();
        self.catch_up_on(&same, cx);
        self.events.push_back(Event::Same(same));
    }

    fn on_digests<S: Shared>(
        &mut self,
        digests: &[(ConversationId, Digest)],
        cx: &Context<'_, S>,
    ) -> Result<(), Violation> {
        self.comparing.handle_digests(digests)?;
        let mut same = Vec::new();
        for (id, _) in digests {
            if cx.shared.replica(id).is_none() {
                continue;
            }
            match self.comparing.verdict(id) {
                Verdict::Same(_) => same.push(*id),
                Verdict::Different if self.comparing.has(id) => {
                    self.stating.insert(*id);
                }
                Verdict::Different | Verdict::Open => {}
            }
        }
        self.catch_up_on(&same, cx);
        self.events.push_back(Event::Same(same));
        Ok(())
    }

    /// What has happened in conversations before it was known what the other side has.
    fn catch_up_on<S: Shared>(&mut self, same: &[ConversationId], cx: &Context<'_, S>) {
        for id in same {
            if self.conversations.contains_key(id) {
                self.ensure_giving(*id, cx);
            }
        }
    }

    /// Where both had the same, what the other side has is what was here then, if that is still here.
    pub(super) fn ensure_giving<S: Shared>(&mut self, id: ConversationId, cx: &Context<'_, S>) {
        let Some(replica) = cx.shared.replica(&id) else {
            return;
        };
        let verdict = self.comparing.verdict(&id);
        let conversation = self.conversations.entry(id).or_default();
        let Verdict::Same(digest) = verdict else {
            return;
        };
        if conversation.giving.is_open() || conversation.was_asked {
            return;
        }
        if replica.digest() == digest {
            conversation.giving.open(&replica.vector(None), replica);
            self.due.insert(id);
        } else {
            (conversation.was_asked, conversation.is_again) = (true, true);
            self.stating.insert(id);
        }
    }

    fn on_chains<S: Shared>(
        &mut self,
        number: ConversationNumber,
        chains: &[NumberedChain],
        (is_first, is_last): (bool, bool),
        cx: &Context<'_, S>,
    ) -> Result<(), Violation> {
        let id = self.theirs.conversation(number)?;
        for chain in chains {
            self.theirs.name(number, chain.number, chain.chain)?;
        }
        if is_first {
            self.listing = Some(Listing {
                number,
                conversation: id,
                vector: Vector::default(),
                is_ignored: cx.shared.replica(&id).is_none(),
            });
        }
        let Some(mut listing) = self.listing.take() else {
            return self.on_extents_of(id, chains, is_last, cx);
        };
        for chain in chains {
            let last = listing.vector.0.last_key_value();
            if last.is_some_and(|(last, _)| *last >= chain.chain) {
                return Err(Violation::Listing);
            }
            listing.vector.0.insert(chain.chain, chain.extent);
        }
        if is_last {
            self.on_list(listing, cx);
        } else {
            self.listing = Some(listing);
        }
        Ok(())
    }

    /// Chains outside of a list.
    fn on_extents_of<S: Shared>(
        &mut self,
        id: ConversationId,
        chains: &[NumberedChain],
        is_last: bool,
        cx: &Context<'_, S>,
    ) -> Result<(), Violation> {
        if is_last {
            return Err(Violation::Listing);
        }
        for chain in chains {
            self.on_extent(id, chain.chain, chain.extent, cx);
        }
        Ok(())
    }

    /// The other side has said all that it has of a conversation.
    fn on_list<S: Shared>(&mut self, listing: Listing, cx: &Context<'_, S>) {
        let id = listing.conversation;
        let Some(replica) = cx.shared.replica(&id).filter(|_| !listing.is_ignored) else {
            return;
        };
        let is_known = matches!(self.comparing.verdict(&id), Verdict::Same(_));
        let conversation = self.conversation(id);
        conversation.giving.open(&listing.vector, replica);
        if !conversation.is_stated && !is_known {
            self.stating.insert(id);
        }
        self.due.insert(id);
        for (chain, extent) in listing.vector.0 {
            self.note_extent(id, chain, extent, replica);
        }
    }

    // ---- what it has ---------------------------------------------------------------------------

    fn on_have<S: Shared>(
        &mut self,
        answered: u32,
        extents: &[(ChainNumber, Extent)],
        cx: &Context<'_, S>,
    ) -> Result<(), Violation> {
        let answered = usize::try_from(answered).map_err(|_| Violation::Answer)?;
        let numbers: BTreeSet<ChainNumber> = extents.iter().map(|(number, _)| *number).collect();
        if numbers.len() < extents.len() || answered > self.flight.pages() {
            return Err(Violation::Answer);
        }
        for (number, extent) in extents {
            let (conversation, chain) = self.theirs.chain(*number)?;
            self.on_extent(conversation, chain, *extent, cx);
        }
        for (id, chain) in self.flight.answered(answered) {
            if let Some(conversation) = self.conversations.get_mut(&id) {
                conversation.giving.handle_answer(chain);
                self.due.insert(id);
            }
        }
        Ok(())
    }

    fn on_extent<S: Shared>(
        &mut self,
        id: ConversationId,
        chain: ChainId,
        extent: Extent,
        cx: &Context<'_, S>,
    ) {
        let Some(replica) = cx.shared.replica(&id) else {
            return;
        };
        self.ensure_giving(id, cx);
        self.conversation(id).giving.handle_have(chain, extent);
        self.due.insert(id);
        self.note_extent(id, chain, extent, replica);
    }

    fn note_extent(
        &mut self,
        conversation: ConversationId,
        chain: ChainId,
        extent: Extent,
        replica: &Replica,
    ) {
        self.events.push_back(Event::Has {
            conversation,
            chain,
            extent,
        });
        if let Some(at) = replica.differs_at(&chain, &extent) {
            self.trace(conversation, chain, at, replica);
        }
    }

    fn on_gone<S: Shared>(
        &mut self,
        number: ChainNumber,
        base: Sequence,
        cx: &Context<'_, S>,
    ) -> Result<(), Violation> {
        let (conversation, chain) = self.theirs.chain(number)?;
        if cx.shared.replica(&conversation).is_some() {
            self.events.push_back(Event::Gone {
                conversation,
                chain,
                base,
            });
        }
        Ok(())
    }

    fn on_marks<S: Shared>(
        &mut self,
        marks: &[(ChainNumber, Sequence)],
        cx: &Context<'_, S>,
    ) -> Result<(), Violation> {
        for (number, last) in marks {
            let (conversation, chain) = self.theirs.chain(*number)?;
            if cx.shared.replica(&conversation).is_some() {
                self.events.push_back(Event::Read {
                    conversation,
                    chain,
                    last: *last,
                });
            }
        }
        Ok(())
    }

    // ---- what it gives -------------------------------------------------------------------------

    fn on_entries<S: Shared>(
        &mut self,
        entries: Entries,
        cx: &Context<'_, S>,
    ) -> Result<(), Violation> {
        let (conversation, chain) = self.theirs.chain(entries.chain)?;
        if self.unanswered_len >= PAGES_IN_FLIGHT_LEN_MAX {
            return Err(Violation::Flight);
        }
        let page = page(conversation, chain, entries);
        let slot = self.receiving.open();
        self.unanswered.push_back(page.cost());
        self.unanswered_len += page.cost();
        if cx.shared.replica(&conversation).is_some() {
            self.conversation(conversation).is_given_early = true;
            let last = page.last();
            let taking = Taking {
                conversation,
                chain,
                last,
            };
            self.taking.insert(slot, taking);
            self.tasks.push_back(Task::TakePage { slot, page });
        } else {
            self.receiving.settle(slot);
        }
        Ok(())
    }

    fn take_loose<S: Shared>(
        &mut self,
        conversation: &ConversationId,
        cx: &Context<'_, S>,
        task: impl FnOnce() -> Task,
    ) {
        if self.loose < LOOSE_CHECKS_MAX && cx.shared.replica(conversation).is_some() {
            self.loose += 1;
            self.tasks.push_back(task());
        }
    }

    // ---- forks ---------------------------------------------------------------------------------

    fn on_trace<S: Shared>(
        &mut self,
        number: ChainNumber,
        place: Sequence,
        cx: &Context<'_, S>,
    ) -> Result<(), Violation> {
        let (conversation, chain) = self.theirs.chain(number)?;
        if self.questions.len() + self.answers.len() >= STRETCH_READS_MAX {
            return Err(Violation::Questions);
        }
        if cx.shared.replica(&conversation).is_none() {
            let stretch = None;
            self.answers.push_back(LogFrame::Stretch {
                chain: number,
                stretch,
            });
            return Ok(());
        }
        self.questions.push(Question {
            number,
            conversation,
            chain,
            place,
        });
        self.tasks.push_back(Task::ReadStretch {
            conversation,
            chain,
            place,
        });
        Ok(())
    }

    fn on_stretch<S: Shared>(
        &mut self,
        number: ChainNumber,
        stretch: Option<Stretch>,
        cx: &Context<'_, S>,
    ) -> Result<(), Violation> {
        let (id, chain) = self.asked.remove(&number).ok_or(Violation::Unasked)?;
        let replica = cx.shared.replica(&id);
        let conversation = self.conversations.get_mut(&id);
        if let (Some(replica), Some(conversation)) = (replica, conversation) {
            let step = conversation.traces.handle_stretch(chain, stretch);
            self.on_step(id, chain, step, replica);
        }
        Ok(())
    }

    /// Both copies of a chain differ at a place: looks for where they part.
    pub(super) fn trace(
        &mut self,
        id: ConversationId,
        chain: ChainId,
        at: Sequence,
        replica: &Replica,
    ) {
        let all = self.conversations.values();
        let searches: usize = all.map(|conversation| conversation.traces.len()).sum();
        let number = self.ours.known(id, chain);
        let is_asked = number.is_some_and(|number| self.asked.contains_key(&number));
        if searches >= TRACES_PER_LINK_MAX || is_asked {
            return;
        }
        let base = replica.extent(&chain, None).base;
        let begun = self.conversation(id).traces.begin(chain, base, at);
        if let Some(step) = begun {
            self.on_step(id, chain, step, replica);
        }
    }

    pub(super) fn on_step(
        &mut self,
        conversation: ConversationId,
        chain: ChainId,
        step: TraceStep,
        replica: &Replica,
    ) {
        match step {
            TraceStep::Ask(place) => {
                if let Some(number) = self.name_chain(conversation, chain, replica) {
                    self.asked.insert(number, (conversation, chain));
                    let chain = number;
                    self.frames.push_back(LogFrame::Trace { chain, place });
                }
            }
            TraceStep::Read { first, last } => self.tasks.push_back(Task::ReadOwn {
                conversation,
                chain,
                first,
                last,
            }),
            TraceStep::Found(proof) => {
                self.loose += 1;
                self.tasks.push_back(Task::TakeProof(proof));
            }
            TraceStep::Over => {}
        }
    }
}

fn page(conversation: ConversationId, chain: ChainId, entries: Entries) -> Page {
    let parts = entries.entries.into_vec().into_iter();
    let parts = parts.map(LogEntry::into_parts);
    Page {
        conversation,
        chain,
        first: entries.first,
        previous: entries.previous,
        entries: parts
            .map(|(outline, body)| Entry { outline, body })
            .collect(),
        seal: entries.seal,
    }
}
