//! What store, verifier, disk and people have done.

use common::id::{AccountName, SessionId};
use common::limits::{KNOWN_ACCOUNTS_MAX, SESSIONS_PER_LINK_MAX};
use common::log::{ChainId, ConversationId, ForkError, ForkProof, Sequence, Stretch, Vector};
use common::wire::peer::{List, LogFrame};

use super::super::page::{Page, PageRequest};
use super::super::receiving::Slot;
use super::super::refusal::Refusal;
use super::super::replica::Replica;
use super::super::traces::OwnStretch;
use super::{Context, Session, Shared, Violation};

impl Session {
    // ---- replicas ------------------------------------------------------------------------------

    /// A chain is another one than before, by what was written here or taken, sealed, forked or cut. Called at once, also
    /// before the disk has it: this device's own entries are sent then.
    pub fn handle_change<S: Shared>(
        &mut self,
        conversation: ConversationId,
        chain: ChainId,
        cx: &Context<'_, S>,
    ) {
        let Some(replica) = cx.shared.replica(&conversation) else {
            return;
        };
        self.ensure_giving(conversation, cx);
        let giving = &mut self.conversation(conversation).giving;
        if chain.device == *replica.device() {
            giving.handle_written(chain);
        } else {
            giving.handle_change(chain);
            self.hold(conversation, chain, replica, cx);
        }
        self.due.insert(conversation);
    }

    /// The disk has what has changed of a chain, and [`Replica::committed`] was told.
    pub fn handle_committed<S: Shared>(
        &mut self,
        conversation: ConversationId,
        chain: ChainId,
        cx: &Context<'_, S>,
    ) {
        if let Some(replica) = cx.shared.replica(&conversation) {
            self.untold.entry(conversation).or_default().insert(chain);
            self.settle_known(conversation, chain, replica);
            self.handle_change(conversation, chain, cx);
        }
    }

    /// Answers pages of a chain whose entries had come before, once the disk has those: answered earlier, they would be
    /// given again.
    fn settle_known(&mut self, id: ConversationId, chain: ChainId, replica: &Replica) {
        let last = replica.extent(&chain, Some(&self.peer)).last;
        let is_durable = replica.is_durable(&chain);
        let receiving = &mut self.receiving;
        self.known.retain(|slot, known| {
            let is_of = (known.conversation, known.chain) == (id, chain);
            let is_settled = is_of && (known.last <= last || is_durable);
            if is_settled {
                receiving.settle(*slot);
            }
            !is_settled
        });
    }

    /// Entries of somebody else's wait before they are given.
    fn hold<S>(
        &mut self,
        id: ConversationId,
        chain: ChainId,
        replica: &Replica,
        cx: &Context<'_, S>,
    ) {
        let allowed = self.conversation(id).giving.allowed(&chain);
        let last = replica.giveable(&chain).map(|giveable| giveable.last);
        if let Some(last) = last.filter(|last| *last > allowed) {
            self.holding.hold(id, chain, last, cx.now);
        }
    }

    /// What was refused of a conversation may now be taken ([`Replica::poll_restate`]): all is said anew.
    pub fn handle_restate<S: Shared>(&mut self, conversation: ConversationId, cx: &Context<'_, S>) {
        if cx.shared.replica(&conversation).is_some() {
            self.stating.insert(conversation);
        }
    }

    /// The other side has nobody to have got these chains of this device's from beyond what `has` says: they are given at
    /// once, before it has said what it has. Called right after [`Session::open`](super::Session::open).
    pub fn presume<S: Shared>(
        &mut self,
        conversation: ConversationId,
        has: &Vector,
        chains: &[ChainId],
        cx: &Context<'_, S>,
    ) {
        let Some(replica) = cx.shared.replica(&conversation) else {
            return;
        };
        self.presumes = true;
        let giving = &mut self.conversation(conversation).giving;
        giving.open(has, replica);
        for chain in chains {
            giving.handle_written(*chain);
        }
        self.due.insert(conversation);
    }

    /// A conversation is shared from now on.
    pub fn handle_shared<S: Shared>(&mut self, id: ConversationId, cx: &Context<'_, S>) {
        if cx.shared.replica(&id).is_some() {
            let was_ignored = self.theirs.has(&id) || self.comparing.has(&id);
            let conversation = self.conversation(id);
            conversation.was_asked |= was_ignored;
            conversation.is_again |= was_ignored;
            self.stating.insert(id);
        }
    }

    /// A conversation is not shared any more: [`Shared`] does not have it.
    pub fn handle_unshared(&mut self, id: &ConversationId) {
        self.conversations.remove(id);
        self.stating.remove(id);
        self.untold.remove(id);
        self.due.remove(id);
        self.holding.forget(id);
        self.marks.forget(id);
        let receiving = &mut self.receiving;
        self.known.retain(|slot, known| {
            let is_kept = known.conversation != *id;
            if !is_kept {
                receiving.settle(*slot);
            }
            is_kept
        });
    }

    // ---- the store -----------------------------------------------------------------------------

    /// The store has read what [`Task::ReadPage`](super::Task::ReadPage) asked for, and this page was made of it, if one
    /// could be.
    pub fn handle_page<S: Shared>(
        &mut self,
        request: &PageRequest,
        page: Option<Page>,
        cx: &mut Context<'_, S>,
    ) {
        let id = request.conversation;
        let number = cx.shared.replica(&id);
        let number = number.and_then(|replica| self.name_chain(id, request.chain, replica));
        let named = number.zip(page);
        match self.conversations.get_mut(&id) {
            Some(conversation) => {
                let page = named.as_ref().map(|(_, page)| page);
                let giving = &mut conversation.giving;
                let is_sent = giving.handle_page(request, page, &mut self.flight);
                self.due.insert(id);
                if let Some((number, page)) = named.filter(|_| is_sent) {
                    self.say_page(number, page);
                }
            }
            None => self.flight.give_up(),
        }
        self.settle_budget(cx);
    }

    /// The store has read what [`Task::ReadStretch`](super::Task::ReadStretch) asked for, or has no such stretch.
    pub fn handle_stretch<S: Shared>(
        &mut self,
        conversation: ConversationId,
        chain: ChainId,
        place: Sequence,
        stretch: Option<Stretch>,
        cx: &Context<'_, S>,
    ) {
        let asked = (conversation, chain, place);
        let mut questions = self.questions.iter();
        let index = questions.position(|it| (it.conversation, it.chain, it.place) == asked);
        if let Some(index) = index {
            let question = self.questions.remove(index);
            // It may have come to be none of the other side's business meanwhile.
            let is_shared = cx.shared.replica(&conversation).is_some();
            self.answers.push_back(LogFrame::Stretch {
                chain: question.number,
                stretch: stretch.filter(|_| is_shared),
            });
        }
    }

    /// The store has read what [`Task::ReadOwn`](super::Task::ReadOwn) asked for.
    pub fn handle_own_stretch<S: Shared>(
        &mut self,
        id: ConversationId,
        chain: ChainId,
        own: &OwnStretch,
        cx: &Context<'_, S>,
    ) {
        let replica = cx.shared.replica(&id);
        if let Some((conversation, replica)) = self.conversations.get_mut(&id).zip(replica) {
            let step = conversation.traces.handle_own(id, chain, own);
            self.on_step(id, chain, step, replica);
        }
    }

    /// The store has read what [`Task::ReadProof`](super::Task::ReadProof) asked for, or has none yet: then
    /// [`Session::handle_change`] follows once it has.
    pub fn handle_proof<S: Shared>(&mut self, proof: Option<ForkProof>, cx: &Context<'_, S>) {
        self.reading_proofs = self.reading_proofs.saturating_sub(1);
        let Some(proof) = proof else {
            return;
        };
        if let Some(replica) = cx.shared.replica(&proof.conversation)
            && let Some(chain) = self.name_chain(proof.conversation, proof.chain, replica)
        {
            let (one, other) = (proof.one, proof.other);
            self.frames.push_back(LogFrame::Fork { chain, one, other });
        }
    }

    // ---- the verifier and the disk -------------------------------------------------------------

    /// A page was refused; or the disk has it, and all sessions were told.
    ///
    /// # Errors
    ///
    /// [`Violation`] if no honest device sends that: the link is to be closed.
    pub fn handle_settled<S: Shared>(
        &mut self,
        slot: Slot,
        outcome: Result<(), Refusal>,
        cx: &Context<'_, S>,
    ) -> Result<(), Violation> {
        let Some(taking) = self.taking.remove(&slot) else {
            return Ok(());
        };
        let (id, chain) = (taking.conversation, taking.chain);
        let Some(replica) = cx.shared.replica(&id) else {
            self.receiving.settle(slot);
            return Ok(());
        };
        self.untold.entry(id).or_default().insert(chain);
        if outcome == Err(Refusal::Known) && !replica.is_durable(&chain) {
            self.known.insert(slot, taking);
            self.settle_known(id, chain, replica);
            return Ok(());
        }
        self.receiving.settle(slot);
        match outcome {
            Err(refusal) if refusal.is_violation() => Err(Violation::Refused(refusal)),
            Err(Refusal::Diverged { at }) => {
                self.trace(id, chain, at, replica);
                Ok(())
            }
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// A seal was refused or taken.
    ///
    /// # Errors
    ///
    /// [`Violation`] if no honest device sends that: the link is to be closed.
    pub fn handle_seal(&mut self, outcome: Result<(), Refusal>) -> Result<(), Violation> {
        self.loose = self.loose.saturating_sub(1);
        match outcome {
            Err(refusal) if refusal.is_violation() => Err(Violation::Refused(refusal)),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// A proof was verified.
    ///
    /// # Errors
    ///
    /// [`Violation`] if it proves nothing: the link is to be closed.
    pub fn handle_proof_taken(&mut self, outcome: Result<(), ForkError>) -> Result<(), Violation> {
        self.loose = self.loose.saturating_sub(1);
        outcome.map_err(|_| Violation::Proof)
    }

    // ---- time and people -----------------------------------------------------------------------

    /// [`Session::poll_timeout`] has come.
    pub fn handle_timeout<S: Shared>(&mut self, cx: &Context<'_, S>) {
        while let Some(held) = self.holding.poll(cx.now) {
            let Some(replica) = cx.shared.replica(&held.conversation) else {
                continue;
            };
            let giving = &mut self.conversation(held.conversation).giving;
            giving.allow(held.chain, held.last);
            self.due.insert(held.conversation);
            self.hold(held.conversation, held.chain, replica, cx);
        }
    }

    /// This account has read a chain up to here. Whom that concerns is up to the caller: its own devices, and the other
    /// account of a direct conversation.
    pub fn mark<S: Shared>(
        &mut self,
        conversation: ConversationId,
        chain: ChainId,
        last: Sequence,
        cx: &Context<'_, S>,
    ) {
        if cx.shared.replica(&conversation).is_some() {
            self.marks.note(conversation, chain, last);
        }
    }

    /// This device's account has conversations with these. Said to its other devices.
    pub fn say_known(&mut self, accounts: &[AccountName]) {
        let frames = accounts.chunks(KNOWN_ACCOUNTS_MAX);
        let frames = frames.filter_map(|part| List::fill(part.iter().cloned()));
        self.frames.extend(frames.map(LogFrame::Known));
    }

    /// This device's person is typing. How often that is said is up to the caller.
    pub fn say_typing<S: Shared>(&mut self, conversation: ConversationId, cx: &Context<'_, S>) {
        if let Some(conversation) = self.name_shared(conversation, cx) {
            self.frames.push_back(LogFrame::Typing { conversation });
        }
    }

    /// This device's person asks to talk. Tells whether that is said: there are at most [`SESSIONS_PER_LINK_MAX`] talks.
    pub fn ask<S: Shared>(
        &mut self,
        session: SessionId,
        conversation: ConversationId,
        cx: &Context<'_, S>,
    ) -> bool {
        if self.sessions.len() >= SESSIONS_PER_LINK_MAX {
            return false;
        }
        let Some(conversation) = self.name_shared(conversation, cx) else {
            return false;
        };
        self.sessions.insert(session);
        self.frames.push_back(LogFrame::Ask {
            session,
            conversation,
        });
        true
    }

    /// This device's person answers a question to talk, if it still stands.
    pub fn answer(&mut self, session: SessionId, is_yes: bool) {
        let is_open = match is_yes {
            true => self.sessions.contains(&session),
            false => self.sessions.remove(&session),
        };
        if is_open {
            self.frames.push_back(LogFrame::Answer { session, is_yes });
        }
    }

    /// This device's person ends a talk, or takes back a question.
    pub fn end(&mut self, session: SessionId) {
        if self.sessions.remove(&session) {
            self.frames.push_back(LogFrame::End { session });
        }
    }
}
