//! How far entries have got: whom they were given, who has them, and who has read them.

use common::account::AccountLog;
use common::id::{AccountName, MessageId};
use common::limits::SENT_KEPT_AFTER;
use common::log::{ChainId, ConversationId, Extent, HeaderHash, Sequence};
use common::wire::peer::AccountHead;

use super::held::Held;
use super::*;
use crate::log::{Page, PageRequest};
use crate::node::command::{CommandError, Event, MessageState, Reply};
use crate::node::drafts::Written;
use crate::node::io::entries::{EntriesAnswer, EntriesRequest, EntryWrite, Origin, Reach};
use crate::node::io::{ChatAnswer, ChatRequest, Marked, StoreAnswer, StoreRequest};
use crate::node::purpose::ConversationStored;

impl Conversations {
    /// A session tells something.
    pub(super) fn on_session_event(
        &mut self,
        link: LinkId,
        event: SessionEvent,
        people: People<'_>,
        cx: &mut Context<'_>,
    ) {
        let Some(end) = self.ends.get_mut(&link) else {
            return;
        };
        let is_own = end.is_own;
        match event {
            SessionEvent::Greeted(greet) => {
                let account = end.account.clone();
                let known = people.identities.log_of(&account).map(head);
                if greet.account.is_some() && greet.account != known {
                    self.stale.insert(account);
                }
            }
            SessionEvent::Same(conversations) => {
                for id in conversations {
                    let vector = end_opened(self.ends.get_mut(&link), &id);
                    for (chain, extent) in vector {
                        self.on_delivered(id, chain, extent.last, people, cx);
                    }
                }
            }
            SessionEvent::Has {
                conversation,
                chain,
                extent,
            } => self.on_has(conversation, chain, &extent, is_own, people, cx),
            SessionEvent::Gone {
                conversation,
                chain,
                base,
            } => self.on_gone(link, conversation, chain, base, cx),
            SessionEvent::Read {
                conversation,
                chain,
                last,
            } => {
                // Somebody says what their account has read of ours; a device of one's own, what ours has of theirs, and
                // what they have of ours.
                match (is_own, people.is_own(&chain.device)) {
                    (false, true) | (true, false) => {
                        self.reach((conversation, chain), Reach::Read, last, cx);
                    }
                    (true, true) => self.on_delivered(conversation, chain, last, people, cx),
                    (false, false) => {}
                }
            }
            SessionEvent::Known(accounts) => {
                for account in accounts.iter().filter(|_| is_own) {
                    self.join(account, people, cx);
                }
            }
            // Nobody is told of these yet.
            SessionEvent::Typing(_)
            | SessionEvent::Asked { .. }
            | SessionEvent::Answered { .. }
            | SessionEvent::Ended(_) => {}
        }
    }

    fn on_has(
        &mut self,
        id: ConversationId,
        chain: ChainId,
        extent: &Extent,
        is_own: bool,
        people: People<'_>,
        cx: &mut Context<'_>,
    ) {
        if !is_own {
            self.on_delivered(id, chain, extent.last, people, cx);
        }
        if chain.device != self.device {
            return;
        }
        let held = self.held.get_mut(&id);
        if let Some(admission) = held.and_then(|held| held.replica.note_claim(&chain, extent)) {
            let write = EntryWrite::Admit(Box::new(admission), Origin::WrittenHere);
            self.write(id, vec![write], Written::default(), cx);
            self.ask_lost(id, cx);
        }
    }

    /// The other account has entries of ours.
    fn on_delivered(
        &mut self,
        id: ConversationId,
        chain: ChainId,
        last: Sequence,
        people: People<'_>,
        cx: &mut Context<'_>,
    ) {
        if people.is_own(&chain.device) {
            let held = self.held.get_mut(&id);
            if let Some(held) = held {
                held.note_claimed(chain, last);
            }
            self.reach_claimed(id, chain, cx);
        }
    }

    /// What the other account has said to have is delivered as far as it is here: the rest another device of this account
    /// has written, or another copy of this one.
    pub(super) fn reach_claimed(
        &mut self,
        id: ConversationId,
        chain: ChainId,
        cx: &mut Context<'_>,
    ) {
        let held = self.held.get(&id);
        let last = held.and_then(|held| {
            let tip = held.replica.tip(&chain)?;
            Some(tip.sequence.min(held.claimed(&chain)))
        });
        if let Some(last) = last {
            self.reach((id, chain), Reach::Delivered, last, cx);
        }
    }

    /// The same of all chains.
    pub(super) fn reach_all_claimed(&mut self, id: ConversationId, cx: &mut Context<'_>) {
        let held = self.held.get(&id);
        let chains: Vec<ChainId> = held.map_or_else(Vec::new, Held::claimed_chains);
        for chain in chains {
            self.reach_claimed(id, chain, cx);
        }
    }

    /// Nobody is left who has the beginning of a chain, if no other link shares it.
    fn on_gone(
        &mut self,
        link: LinkId,
        id: ConversationId,
        chain: ChainId,
        base: Sequence,
        cx: &mut Context<'_>,
    ) {
        let is_only = self.links_of(&id).iter().all(|other| *other == link);
        if let Some(held) = self.held.get_mut(&id).filter(|_| is_only) {
            held.replica.give_up(chain, base);
            self.tell_changed(id, chain, true, cx.now);
        }
    }

    /// A page is on its way to somebody.
    pub(super) fn note_given(
        &mut self,
        link: LinkId,
        request: &PageRequest,
        page: Option<&Page>,
        people: People<'_>,
        cx: &mut Context<'_>,
    ) {
        let is_own = self.ends.get(&link).is_none_or(|end| end.is_own);
        if let Some(page) = page.filter(|_| !is_own && people.is_own(&request.chain.device)) {
            let of = (request.conversation, request.chain);
            self.reach(of, Reach::Sent, page.last(), cx);
        }
    }

    /// Entries have got so far, unless they had before.
    fn reach(
        &mut self,
        (id, chain): (ConversationId, ChainId),
        reach: Reach,
        last: Sequence,
        cx: &mut Context<'_>,
    ) {
        let held = self.held.get_mut(&id).filter(|held| held.is_ready());
        let Some(held) = held.filter(|held| held.replica.tip(&chain).is_some()) else {
            return;
        };
        let reached = held.reached(&chain);
        if reached.with(reach, last) == reached {
            return;
        }
        let moved = held.on_reached(&chain, reached.with(reach, last));
        let (to, is_counted) = (held.with().clone(), held.is_counted);
        let request = EntriesRequest::Reach {
            conversation: id,
            chain,
            reach,
            last,
        };
        // Which messages have been read, or those of before, the store alone knows.
        if reach == Reach::Read || !is_counted {
            let again = Box::new(request.clone().into());
            return cx.store(
                request,
                ConversationStored::Reached(to, reach.state(), again),
            );
        }
        match reach {
            Reach::Sent => held.note_carried(chain, cx.now + SENT_KEPT_AFTER),
            Reach::Delivered => {
                cx.store_unawaited(request);
                self.tell_delivered(id, chain, last, cx.now);
            }
            Reach::Read => cx.store_unawaited(request),
        }
        for entry in moved {
            cx.event(Event::MessageState {
                id: MessageId::of_entry(&id, &entry),
                to: to.clone(),
                state: reach.state(),
            });
        }
    }

    /// The other account has entries of this one's: this account's other devices are told.
    fn tell_delivered(&mut self, id: ConversationId, chain: ChainId, last: Sequence, now: Instant) {
        let mut links = self.links_of(&id);
        links.retain(|link| self.ends.get(link).is_some_and(|end| end.is_own));
        for link in links {
            self.with(link, now, |session, cx| session.mark(id, chain, last, cx));
        }
    }

    /// Has the store keep what links have carried by some time, as far as it does not know.
    pub(super) fn keep_carried(&mut self, now: Instant, cx: &mut Context<'_>) {
        for (id, held) in &mut self.held {
            for (chain, last) in held.take_carried(now) {
                cx.store_unawaited(EntriesRequest::Reach {
                    conversation: *id,
                    chain,
                    reach: Reach::Sent,
                    last,
                });
            }
        }
    }

    /// The store has told which messages have got further.
    pub(super) fn on_reached(
        to: &AccountName,
        state: MessageState,
        request: StoreRequest,
        answer: StoreAnswer,
        cx: &mut Context<'_>,
    ) {
        let StoreAnswer::Entries(EntriesAnswer::Reached(ids)) = answer else {
            return cx.on_unawaited(request, answer);
        };
        for id in ids {
            cx.event(Event::MessageState {
                id,
                to: to.clone(),
                state,
            });
        }
    }

    // ---- what was read -------------------------------------------------------------------------

    /// A person has seen messages.
    pub(in crate::node) fn mark_read(
        command: CommandId,
        ids: Vec<MessageId>,
        cx: &mut Context<'_>,
    ) {
        cx.store(
            ChatRequest::MarkRead { ids },
            ConversationStored::Marked(command),
        );
    }

    /// The store has marked messages as read: their authors are told, and this account's other devices.
    pub(super) fn on_marked(
        &mut self,
        command: CommandId,
        answer: StoreAnswer,
        people: People<'_>,
        cx: &mut Context<'_>,
    ) {
        let marked = match answer {
            StoreAnswer::Chat(ChatAnswer::Marked(marked)) => marked,
            StoreAnswer::Failed(reason) => {
                return cx.reply(command, Err(CommandError::Store(reason)));
            }
            answer @ (StoreAnswer::Done | StoreAnswer::Chat(_) | StoreAnswer::Entries(_)) => {
                return log::error!("unexpected reply from the store: {answer:?}");
            }
        };
        cx.reply(command, Ok(Reply::Done));
        let mut furthest: BTreeMap<(ConversationId, ChainId), Sequence> = BTreeMap::new();
        for Marked { entry, .. } in marked {
            if let Some((id, entry)) = entry {
                let last = furthest.entry((id, entry.chain)).or_insert(entry.sequence);
                *last = entry.sequence.max(*last);
            }
        }
        for ((id, chain), last) in furthest {
            let Some(held) = self.held.get_mut(&id) else {
                continue;
            };
            let reached = held.reached(&chain).with(Reach::Read, last);
            held.reached.insert(chain, reached);
            let with = held.with().clone();
            let links = self.links_of(&id);
            let is_told = links.iter().any(|link| {
                let end = self.ends.get(link);
                end.is_some_and(|end| end.account == with)
            });
            if !is_told && people.own != Some(&with) {
                self.owed.insert(with);
            }
            for link in links {
                self.with(link, cx.now, |session, cx| {
                    session.mark(id, chain, last, cx)
                });
            }
        }
    }

    /// Tells the other side of a new link what was read of chains that are not this account's, and a device of this
    /// account what others have of those that are.
    pub(super) fn tell_read(&mut self, link: LinkId, people: People<'_>, cx: &Context<'_>) {
        let Some(end) = self.ends.get(&link) else {
            return;
        };
        let is_own = end.is_own;
        let shared = |held: &&Held| held.is_shared_with(&end.account, end.is_own);
        let marks = self.held.values().filter(shared).flat_map(|held| {
            let marks = held.reached.iter().map(move |(chain, reached)| {
                let last = match people.is_own(&chain.device) {
                    true if is_own => reached.delivered,
                    true => Sequence::START,
                    false => reached.read,
                };
                (held.id(), *chain, last)
            });
            marks.filter(|(_, _, last)| *last > Sequence::START)
        });
        let marks: Vec<(ConversationId, ChainId, Sequence)> = marks.collect();
        for (id, chain, last) in marks {
            self.with(link, cx.now, |session, cx| {
                session.mark(id, chain, last, cx)
            });
        }
    }

    // ---- answers of the store ------------------------------------------------------------------

    /// The store has answered.
    pub(in crate::node) fn on_stored(
        &mut self,
        purpose: ConversationStored,
        answer: StoreAnswer,
        people: People<'_>,
        cx: &mut Context<'_>,
    ) {
        match purpose {
            ConversationStored::Marks => self.on_marks(answer, cx),
            ConversationStored::Listed => self.on_listed(answer, people, cx),
            ConversationStored::Restored(id, epoch) => {
                self.on_restored((id, epoch), answer, people, cx);
            }
            ConversationStored::Lost(id, epoch) => self.on_lost((id, epoch), answer, people, cx),
            // If it has failed, so does what is written in it.
            ConversationStored::Opened => {}
            ConversationStored::Written(id, epoch, written) => {
                self.on_written((id, epoch), *written, answer, cx);
            }
            ConversationStored::Reached(to, state, request) => {
                Self::on_reached(&to, state, *request, answer, cx);
            }
            ConversationStored::Marked(command) => self.on_marked(command, answer, people, cx),
            ConversationStored::Queued(command, index, queued) => {
                self.on_queued((command, index), *queued, answer, people, cx);
            }
            ConversationStored::LookedUp(command) => Self::on_looked_up(command, answer, cx),
            ConversationStored::Found(command, taken) => {
                self.on_found(command, taken, answer, people, cx);
            }
            ConversationStored::Withdrawn(command, taken) => {
                Self::on_withdrawn(command, taken, answer, cx);
            }
            ConversationStored::Ended => self.has_ended = true,
            purpose @ (ConversationStored::Page { .. }
            | ConversationStored::Stretch { .. }
            | ConversationStored::OwnStretch { .. }
            | ConversationStored::Proof { .. }
            | ConversationStored::Hash(..)) => self.on_read(purpose, answer, people, cx),
        }
        if self.is_read() {
            for (command, ids) in std::mem::take(&mut self.withdrawals) {
                self.withdraw(command, ids, cx);
            }
        }
        self.run(people, cx);
    }
}

/// What is known of an account's log.
pub(super) fn head(log: &AccountLog) -> AccountHead {
    AccountHead {
        account: log.id(),
        len: u32::try_from(log.entries().count()).unwrap_or(u32::MAX),
        head: HeaderHash::from_bytes(log.head()),
    }
}

fn end_opened(end: Option<&mut End>, id: &ConversationId) -> BTreeMap<ChainId, Extent> {
    let opened = end.and_then(|end| end.opened.remove(id));
    opened.map(|vector| vector.0).unwrap_or_default()
}
