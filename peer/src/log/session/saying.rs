//! What is said to the other side. A frame is made when the link has room for it.

use std::ops::Bound::{Excluded, Unbounded};

use common::limits::{
    CATCHING_UP_LEN_MAX, CHAINS_PAGE_MAX, HAVE_CHAINS_MAX, PAGES_IN_FLIGHT_LEN_MAX,
    TRACES_PER_LINK_MAX,
};
use common::log::{ChainId, ConversationId, Digest};
use common::wire::peer::{
    ChainNumber, ConversationNumber, Entries, List, LogEntry, LogFrame, NumberedChain,
};

use super::super::giving::Due;
use super::super::page::Page;
use super::super::replica::Replica;
use super::comparing::Verdict;
use super::{Context, Session, Shared, Task};

impl Session {
    /// The next frame to be sent: what people have just written first, then what is here where that differs, what is on
    /// disk now, and then all that the other side lacks, of all conversations in turns. `None` if there is nothing now; tasks may have
    /// come up.
    pub fn poll_frame<S: Shared>(&mut self, cx: &mut Context<'_, S>) -> Option<LogFrame> {
        loop {
            let frame = self.frames.pop_front();
            if let Some(frame) = frame.or_else(|| self.answers.pop_front()) {
                return Some(frame);
            }
            // Before the other side has greeted it is given what it cannot have, and nothing more. An answer to a page
            // says what came of it, so that whatever is to be said of its conversation as a whole comes before it.
            let gives = !self.is_quiet;
            let gives_early = gives && self.presumes && !self.has_greeted;
            let has_more = gives_early && self.give(true, cx)
                || self.has_greeted
                    && (gives && self.give(true, cx)
                        || self.state(cx)
                        || self.say_have(cx)
                        || gives && self.give(false, cx)
                        || self.say_marks(cx));
            self.settle_budget(cx);
            if !has_more {
                return None;
            }
        }
    }

    // ---- names ---------------------------------------------------------------------------------

    fn name_conversation(
        &mut self,
        conversation: ConversationId,
        is_again: bool,
    ) -> Option<ConversationNumber> {
        let given = self.ours.conversation(conversation)?;
        if given.is_new || is_again {
            self.frames.push_back(LogFrame::Open {
                number: given.number,
                conversation,
                is_again,
            });
        }
        Some(given.number)
    }

    /// The number of a conversation, if it is shared.
    pub(super) fn name_shared<S: Shared>(
        &mut self,
        conversation: ConversationId,
        cx: &Context<'_, S>,
    ) -> Option<ConversationNumber> {
        cx.shared.replica(&conversation)?;
        self.name_conversation(conversation, false)
    }

    /// The number of a chain. If it is new, it is told with what is here of the chain.
    pub(super) fn name_chain(
        &mut self,
        conversation: ConversationId,
        chain: ChainId,
        replica: &Replica,
    ) -> Option<ChainNumber> {
        let number = self.name_conversation(conversation, false)?;
        let given = self.ours.chain(conversation, chain)?;
        if given.is_new {
            let named = NumberedChain {
                number: given.number,
                chain,
                extent: replica.extent(&chain, Some(&self.peer)),
            };
            let chains = List::fill(std::iter::once(named))?;
            self.frames.push_back(LogFrame::Chains {
                conversation: number,
                chains,
                is_first: false,
                is_last: false,
            });
        }
        Some(given.number)
    }

    // ---- what is here --------------------------------------------------------------------------

    pub(super) fn say_digests(&mut self, digests: Vec<(ConversationId, Digest)>) {
        let mut digests = digests.into_iter();
        while let Some(page) = List::fill(digests.by_ref()) {
            self.frames.push_back(LogFrame::Digests(page));
        }
    }

    /// Says all that is here of the next conversation of which that is to be said. All pages follow each other, so that
    /// nothing changes between them.
    fn state<S: Shared>(&mut self, cx: &Context<'_, S>) -> bool {
        while let Some(id) = self.stating.pop_first() {
            let Some(replica) = cx.shared.replica(&id) else {
                continue;
            };
            let is_again = self.conversation(id).is_again;
            let Some(conversation) = self.name_conversation(id, is_again) else {
                continue;
            };
            let mut named = Vec::new();
            for (chain, extent) in replica.vector(Some(&self.peer)).0 {
                if let Some(given) = self.ours.chain(id, chain) {
                    let number = given.number;
                    named.push(NumberedChain {
                        number,
                        chain,
                        extent,
                    });
                }
            }
            self.say_list(conversation, named);
            let conversation = self.conversation(id);
            (conversation.is_stated, conversation.is_again) = (true, false);
            self.untold.remove(&id);
            return true;
        }
        false
    }

    fn say_list(&mut self, conversation: ConversationNumber, named: Vec<NumberedChain>) {
        let mut named = named.into_iter().peekable();
        let mut is_first = true;
        loop {
            let page = named.by_ref().take(CHAINS_PAGE_MAX);
            let Some(chains) = List::fill(page) else {
                return;
            };
            let is_last = named.peek().is_none();
            self.frames.push_back(LogFrame::Chains {
                conversation,
                chains,
                is_first,
                is_last,
            });
            if is_last {
                return;
            }
            is_first = false;
        }
    }

    /// Says what of chains is on disk now, and then how many pages are answered by that.
    fn say_have<S: Shared>(&mut self, cx: &Context<'_, S>) -> bool {
        let mut extents = Vec::new();
        let ids: Vec<ConversationId> = self.untold.keys().copied().collect();
        for id in ids {
            if !self.is_tellable(&id) {
                continue;
            }
            let Some(replica) = cx.shared.replica(&id) else {
                self.untold.remove(&id);
                continue;
            };
            while extents.len() + self.frames.len() < HAVE_CHAINS_MAX
                && let Some(chain) = self.next_untold(&id)
            {
                match self.ours.known(id, chain) {
                    Some(number) => {
                        extents.push((number, replica.extent(&chain, Some(&self.peer))))
                    }
                    None => {
                        self.name_chain(id, chain, replica);
                    }
                }
            }
        }
        let is_all = extents.len() + self.frames.len() < HAVE_CHAINS_MAX;
        let answered = if is_all { self.take_answered() } else { 0 };
        if answered == 0 && extents.is_empty() {
            return !self.frames.is_empty();
        }
        if let Some(extents) = List::fill(extents.into_iter()) {
            self.frames.push_back(LogFrame::Have { answered, extents });
        }
        true
    }

    /// The other side can tell what changes are changes of.
    fn is_tellable(&self, id: &ConversationId) -> bool {
        let conversation = self.conversations.get(id);
        let is_stated = conversation.is_some_and(|conversation| conversation.is_stated);
        let is_again = conversation.is_some_and(|conversation| conversation.is_again);
        let is_given_early = conversation.is_some_and(|conversation| conversation.is_given_early);
        is_stated
            || is_given_early
            || !is_again && matches!(self.comparing.verdict(id), Verdict::Same(_))
    }

    fn next_untold(&mut self, id: &ConversationId) -> Option<ChainId> {
        let chains = self.untold.get_mut(id)?;
        let chain = chains.pop_first();
        if chains.is_empty() {
            self.untold.remove(id);
        }
        chain
    }

    fn take_answered(&mut self) -> u32 {
        let settled = self.receiving.take_settled();
        for cost in self.unanswered.drain(..settled.min(self.unanswered.len())) {
            self.unanswered_len -= cost;
        }
        u32::try_from(settled).unwrap_or(u32::MAX)
    }

    fn say_marks<S: Shared>(&mut self, cx: &Context<'_, S>) -> bool {
        let mut marks = Vec::new();
        for ((conversation, chain), last) in self.marks.take(cx.now) {
            if let Some(replica) = cx.shared.replica(&conversation)
                && let Some(number) = self.name_chain(conversation, chain, replica)
            {
                marks.push((number, last));
            }
        }
        if let Some(marks) = List::fill(marks.into_iter()) {
            self.frames.push_back(LogFrame::Marks(marks));
        }
        !self.frames.is_empty()
    }

    // ---- what it lacks -------------------------------------------------------------------------

    /// Gives the next thing of the next conversation. Tells whether a frame came of it.
    fn give<S: Shared>(&mut self, is_urgent: bool, cx: &mut Context<'_, S>) -> bool {
        let room = match is_urgent {
            true => PAGES_IN_FLIGHT_LEN_MAX,
            false => CATCHING_UP_LEN_MAX,
        };
        while self.frames.is_empty() {
            self.settle_budget(cx);
            let has_room = self.flight.len() < room && cx.budget.has_room();
            if !has_room || self.reading_proofs >= TRACES_PER_LINK_MAX {
                return false;
            }
            let Some(id) = self.next_due(is_urgent) else {
                return false;
            };
            let replica = cx.shared.replica(&id);
            let conversation = self.conversations.get_mut(&id);
            let (Some(replica), Some(conversation)) = (replica, conversation) else {
                self.due.remove(&id);
                continue;
            };
            let giving = &mut conversation.giving;
            let due = match is_urgent {
                true => giving.poll_urgent(replica, &mut self.flight),
                false => giving.poll(replica, &mut self.flight),
            };
            match due {
                Some(due) => {
                    self.turn = Some(id);
                    self.on_due(id, due, replica);
                }
                // It is not urgent any more.
                None if is_urgent => {}
                None => {
                    self.due.remove(&id);
                }
            }
        }
        true
    }

    fn next_due(&self, is_urgent: bool) -> Option<ConversationId> {
        let after = self.turn.map_or(Unbounded, Excluded);
        let rest = self.due.range((after, Unbounded));
        let is_wanted = |id: &&ConversationId| {
            let conversation = self.conversations.get(id);
            !is_urgent || conversation.is_some_and(|it| it.giving.is_urgent())
        };
        rest.chain(&self.due).find(is_wanted).copied()
    }

    fn on_due(&mut self, id: ConversationId, due: Due, replica: &Replica) {
        match due {
            Due::Page(request) => self.tasks.push_back(Task::ReadPage(request)),
            Due::Seal(chain, seal) => {
                if let Some(chain) = self.name_chain(id, chain, replica) {
                    self.frames.push_back(LogFrame::Seal { chain, seal });
                }
            }
            Due::Fork(chain) => {
                self.reading_proofs += 1;
                let conversation = id;
                self.tasks.push_back(Task::ReadProof {
                    conversation,
                    chain,
                });
            }
            Due::Gone { chain, base } => {
                if let Some(chain) = self.name_chain(id, chain, replica) {
                    self.frames.push_back(LogFrame::Gone { chain, base });
                }
            }
        }
    }

    /// Sends a page.
    pub(super) fn say_page(&mut self, chain: ChainNumber, page: Page) {
        let entries = page.entries.into_iter();
        let entries = entries.filter_map(|entry| LogEntry::new(entry.outline, entry.body));
        if let Some(entries) = List::fill(entries) {
            self.frames.push_back(LogFrame::Entries(Entries {
                chain,
                first: page.first,
                previous: page.previous,
                entries,
                seal: page.seal,
            }));
        }
    }
}
