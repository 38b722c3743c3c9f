//! What the other end of a link lacks of a conversation, and in which pages it is given.
//!
//! The other side says what it has by its extents. Each page that it is given it answers with a `Have`, which says how
//! many pages it answers and what it has now. So a page that was not taken is noticed without a timer: its answer
//! comes, and the extent has not moved. It is given once more, from the last sealed entry on, and then not again
//! until the other side says something else.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Bound::{Excluded, Unbounded};

use common::limits::{
    CHAINS_PER_CONVERSATION_MAX, PAGE_ENTRIES_MAX, PAGE_LEN_MAX, PAGES_IN_FLIGHT_LEN_MAX,
};
use common::log::{ChainId, ConversationId, Extent, Seal, Sequence, Vector};

use super::page::{Page, PageEnd, PageRequest};
use super::replica::{Giveable, Replica};

/// Something to say to the other side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// Read this, make a page of it, tell [`Giving::handle_page`], and send it.
    Page(PageRequest),
    /// Send a seal of this device's own, for entries that were sent without one.
    Seal(ChainId, Seal),
    /// Send the proof that the chain forks.
    Fork(ChainId),
    /// Say that this device has nothing of the chain before `base`.
    Gone {
        /// Which chain it is of.
        chain: ChainId,
        /// The first entry that is kept.
        base: Sequence,
    },
}

/// The pages of one link, of all conversations, that are not answered yet.
#[derive(Clone, Debug, Default)]
pub struct Flight {
    sent: VecDeque<Sent>,
    sent_len: usize,
    /// Pages that are being read, each as long as any may be.
    reading: usize,
}

#[derive(Clone, Copy, Debug)]
struct Sent {
    conversation: ConversationId,
    chain: ChainId,
    cost: usize,
}

impl Flight {
    /// Tells whether another page may be sent.
    pub const fn has_room(&self) -> bool {
        self.len() < PAGES_IN_FLIGHT_LEN_MAX
    }

    /// Bytes of pages, at most [`PAGES_IN_FLIGHT_LEN_MAX`] and a page.
    pub const fn len(&self) -> usize {
        self.sent_len + self.reading * PAGE_LEN_MAX
    }

    /// Pages that were sent and are not answered.
    pub fn pages(&self) -> usize {
        self.sent.len()
    }

    /// Whether nothing is in flight.
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A page that was to be read is not given after all.
    pub(super) const fn give_up(&mut self) {
        self.reading = self.reading.saturating_sub(1);
    }

    /// The other side has answered so many pages: they are to be reported to [`Giving::handle_answer`] of their
    /// conversations, after the extents that came with the answer.
    pub fn answered(&mut self, pages: usize) -> Vec<(ConversationId, ChainId)> {
        let answered = self.sent.drain(..pages.min(self.sent.len()));
        let answered: Vec<Sent> = answered.collect();
        self.sent_len -= answered.iter().map(|sent| sent.cost).sum::<usize>();
        let answered = answered.iter();
        answered
            .map(|sent| (sent.conversation, sent.chain))
            .collect()
    }
}

/// What one link is given of one conversation.
///
/// After [`Giving::open`], whenever something has happened, drain [`Giving::poll`]. All chains have their turn: one
/// with a hundred thousand entries keeps no other one waiting.
#[derive(Clone, Debug, Default)]
pub struct Giving {
    theirs: BTreeMap<ChainId, Theirs>,
    /// Chains of which there may be something to give.
    due: BTreeSet<ChainId>,
    /// Of these, chains with something that was just written here: they come first.
    urgent: BTreeSet<ChainId>,
    /// The chain that was served last.
    turn: Option<ChainId>,
    is_open: bool,
    /// Up to where chains of others are given, if that has to be allowed.
    allowed: Option<BTreeMap<ChainId, Sequence>>,
}

/// What the other side has of a chain, or will have.
#[derive(Clone, Copy, Debug)]
struct Theirs {
    extent: Extent,
    /// The last entry that it was sent, or has.
    sent: Sequence,
    /// The last seal that it was sent, or has.
    seal_sent: Sequence,
    /// Pages that are not answered.
    unanswered: usize,
    is_reading: bool,
    /// It has not taken a page while it had this.
    refused: Option<Extent>,
    /// It has not taken it a second time.
    is_stalled: bool,
    fork_sent: Option<Sequence>,
    gone_sent: Sequence,
    /// The page before this first entry was sent.
    before_sent: Sequence,
}

impl Theirs {
    const fn new(extent: Extent) -> Self {
        Self {
            extent,
            sent: extent.last,
            seal_sent: extent.sealed,
            unanswered: 0,
            is_reading: false,
            refused: None,
            is_stalled: false,
            fork_sent: None,
            gone_sent: Sequence::START,
            before_sent: Sequence::START,
        }
    }
}

impl Giving {
    /// Like the default, but what others have written since [`Giving::open`] is given once that is allowed: their author
    /// gives it, too, and is mostly sooner.
    pub fn delaying() -> Self {
        Self {
            allowed: Some(BTreeMap::new()),
            ..Self::default()
        }
    }

    /// Whether the other side has said all that it has.
    pub const fn is_open(&self) -> bool {
        self.is_open
    }

    /// Whether something that was just written here may be given.
    pub fn is_urgent(&self) -> bool {
        self.is_open && !self.urgent.is_empty()
    }

    /// This device has written in a chain: it comes before all that others lack of old.
    pub fn handle_written(&mut self, chain: ChainId) {
        self.due.insert(chain);
        self.urgent.insert(chain);
    }

    /// Up to where a chain of somebody else's may be given.
    pub(super) fn allowed(&self, chain: &ChainId) -> Sequence {
        let allowed = self.allowed.as_ref().and_then(|all| all.get(chain));
        allowed.copied().unwrap_or(Sequence::START)
    }

    /// A chain of somebody else's may be given up to here.
    pub(super) fn allow(&mut self, chain: ChainId, last: Sequence) {
        if last > self.allowed(&chain)
            && let Some(allowed) = &mut self.allowed
        {
            allowed.insert(chain, last);
            if let Some(theirs) = self.theirs.get_mut(&chain)
                && theirs.refused.is_none()
            {
                // What could not be made a page of may end at another seal now.
                theirs.is_stalled = false;
            }
        }
        self.due.insert(chain);
    }

    /// The other side has said all that it has. Nothing is given before. Said again, it begins anew, but for the pages
    /// that are in flight: what became of them is still to be said.
    pub fn open(&mut self, theirs: &Vector, replica: &Replica) {
        self.is_open = true;
        let before = std::mem::take(&mut self.theirs);
        for (chain, extent) in theirs.0.iter().take(CHAINS_PER_CONVERSATION_MAX) {
            if extent.is_sound() {
                self.theirs.insert(*chain, Theirs::new(*extent));
            }
        }
        for (chain, before) in before {
            if before.unanswered > 0 {
                let nothing = Theirs::new(Extent::NOTHING);
                let theirs = self.theirs.entry(chain).or_insert(nothing);
                theirs.unanswered = before.unanswered;
                theirs.sent = before.sent.max(theirs.sent);
                theirs.seal_sent = before.seal_sent.max(theirs.seal_sent);
            }
        }
        self.due.extend(replica.chains().copied());
        if let Some(allowed) = &mut self.allowed {
            let chains = replica.chains();
            let giveable = chains.filter_map(|id| Some((*id, replica.giveable(id)?.last)));
            *allowed = giveable.collect();
        }
    }

    /// The other side says what it has of a chain now. It may be less than before.
    pub fn handle_have(&mut self, chain: ChainId, extent: Extent) {
        let has_room = self.theirs.len() < CHAINS_PER_CONVERSATION_MAX;
        if !extent.is_sound() || !has_room && !self.theirs.contains_key(&chain) {
            return;
        }
        let theirs = self.theirs.entry(chain).or_insert(Theirs::new(extent));
        if theirs.extent != extent {
            (theirs.refused, theirs.is_stalled) = (None, false);
        }
        if extent.last < theirs.extent.last && theirs.unanswered == 0 {
            theirs.sent = extent.last;
        }
        if extent.sealed < theirs.extent.sealed {
            theirs.seal_sent = extent.sealed;
        }
        theirs.sent = theirs.sent.max(extent.last);
        theirs.seal_sent = theirs.seal_sent.max(extent.sealed);
        theirs.extent = extent;
        self.wake(chain);
    }

    /// The other side has answered a page of a chain.
    pub fn handle_answer(&mut self, chain: ChainId) {
        let Some(theirs) = self.theirs.get_mut(&chain) else {
            return;
        };
        theirs.unanswered = theirs.unanswered.saturating_sub(1);
        if theirs.unanswered == 0 && theirs.extent.last < theirs.sent {
            theirs.is_stalled = theirs.refused == Some(theirs.extent);
            theirs.refused = Some(theirs.extent);
            theirs.sent = theirs.extent.sealed;
            theirs.seal_sent = theirs.extent.sealed;
        }
        self.wake(chain);
    }

    /// Something about a chain has changed here.
    pub fn handle_change(&mut self, chain: ChainId) {
        self.due.insert(chain);
    }

    /// The page was made that [`Due::Page`] asked for, and is sent; or it could not be made. Tells whether to send it: the
    /// other side may have said anew what it has, so that this is not what it lacks.
    pub fn handle_page(
        &mut self,
        request: &PageRequest,
        page: Option<&Page>,
        flight: &mut Flight,
    ) -> bool {
        flight.give_up();
        let theirs = self.theirs.get_mut(&request.chain);
        let Some(theirs) = theirs.filter(|theirs| theirs.is_reading) else {
            return false;
        };
        theirs.is_reading = false;
        let Some(page) = page else {
            theirs.is_stalled = true;
            return false;
        };
        if request.end == PageEnd::Before {
            theirs.before_sent = theirs.extent.base;
        } else {
            theirs.sent = page.last();
        }
        if let Some(seal) = page.seal {
            theirs.seal_sent = seal.sequence;
        }
        theirs.unanswered += 1;
        flight.sent_len += page.cost();
        flight.sent.push_back(Sent {
            conversation: page.conversation,
            chain: page.chain,
            cost: page.cost(),
        });
        self.due.insert(request.chain);
        true
    }

    /// The next thing to say, of a chain that was just written here, or else of one that has waited longest.
    pub fn poll(&mut self, replica: &Replica, flight: &mut Flight) -> Option<Due> {
        if let Some(due) = self.poll_urgent(replica, flight) {
            return Some(due);
        }
        while self.is_open && flight.has_room() {
            let after = self.turn.map_or(Unbounded, Excluded);
            let next = self.due.range((after, Unbounded)).next();
            let chain = *next.or_else(|| self.due.first())?;
            if let Some(due) = self.poll_of(chain, replica, flight) {
                self.turn = Some(chain);
                return Some(due);
            }
            self.due.remove(&chain);
        }
        None
    }

    /// The same of chains that were just written here, and of no others.
    pub(super) fn poll_urgent(&mut self, replica: &Replica, flight: &mut Flight) -> Option<Due> {
        while self.is_open && flight.has_room() {
            let chain = *self.urgent.first()?;
            if let Some(due) = self.poll_of(chain, replica, flight) {
                return Some(due);
            }
            self.urgent.remove(&chain);
        }
        None
    }

    fn poll_of(&mut self, chain: ChainId, replica: &Replica, flight: &mut Flight) -> Option<Due> {
        let due = self.next_of(&chain, replica)?;
        if matches!(due, Due::Page(_)) {
            flight.reading += 1;
        }
        Some(due)
    }

    fn next_of(&mut self, chain: &ChainId, replica: &Replica) -> Option<Due> {
        let giveable = replica.giveable(chain)?;
        let is_free = self.allowed.is_none() || giveable.is_own;
        let allowed = (!is_free).then(|| self.allowed(chain));
        let theirs = self
            .theirs
            .entry(*chain)
            .or_insert(Theirs::new(Extent::NOTHING));
        if let Some(fork) = replica.fork(chain)
            && theirs.extent.fork.is_none_or(|known| known > fork)
            && theirs.fork_sent != Some(fork)
        {
            theirs.fork_sent = Some(fork);
            return Some(Due::Fork(*chain));
        }
        if theirs.is_stalled || theirs.is_reading {
            return None;
        }
        if let Some(seal) = giveable.seal
            && (theirs.seal_sent.next()..=theirs.sent).contains(&seal.sequence)
        {
            theirs.seal_sent = seal.sequence;
            return Some(Due::Seal(*chain, seal));
        }
        if theirs.sent.next() < giveable.base && theirs.gone_sent != giveable.base {
            theirs.gone_sent = giveable.base;
            return Some(Due::Gone {
                chain: *chain,
                base: giveable.base,
            });
        }
        let (first, until, end) = theirs
            .before(&giveable)
            .or_else(|| theirs.after(&giveable, allowed))?;
        if giveable.is_own && self.waits(chain, replica) {
            return None;
        }
        self.theirs.get_mut(chain)?.is_reading = true;
        Some(Due::Page(PageRequest {
            conversation: replica.conversation(),
            chain: *chain,
            first,
            until,
            end,
        }))
    }
}

impl Giving {
    /// Tells whether the other side is to have an earlier run of this device first, so that nothing is overtaken by what
    /// was written later.
    fn waits(&self, chain: &ChainId, replica: &Replica) -> bool {
        let Some(tip) = replica.tip(chain) else {
            return false;
        };
        replica.chains_of(&chain.device).any(|earlier| {
            let before = replica.tip(earlier);
            let is_earlier = before.is_some_and(|before| before.clock < tip.clock);
            let Some(giveable) = replica.giveable(earlier).filter(|_| is_earlier) else {
                return false;
            };
            let last = giveable
                .fork_parent
                .or(giveable.cut)
                .unwrap_or(giveable.last);
            let theirs = self.theirs.get(earlier);
            theirs.is_none_or(|theirs| !theirs.is_stalled && theirs.extent.last < last)
        })
    }

    /// Something about a chain is otherwise: later runs of its device may have waited for that.
    fn wake(&mut self, chain: ChainId) {
        self.due.insert(chain);
        let of_device = self.theirs.keys().filter(|it| it.device == chain.device);
        self.due.extend(of_device);
    }
}

impl Theirs {
    /// What comes right before their first entry.
    fn before(&self, giveable: &Giveable) -> Option<(Sequence, Sequence, PageEnd)> {
        let base = self.extent.base;
        let is_lacking = self.extent.last >= base && giveable.base < base;
        if !is_lacking || self.before_sent == base || giveable.last < base.previous() {
            return None;
        }
        let until = base.previous();
        let skipped = until.since(giveable.base);
        let first = Sequence::new(until.number() - skipped.min(PAGE_ENTRIES_MAX as u64 - 1))?;
        Some((first, until, PageEnd::Before))
    }

    /// What follows their last one, up to where it is allowed.
    fn after(
        &self,
        giveable: &Giveable,
        allowed: Option<Sequence>,
    ) -> Option<(Sequence, Sequence, PageEnd)> {
        let first = self.sent.next().max(giveable.base);
        if giveable.cut.is_some_and(|cut| self.sent >= cut) {
            return None;
        }
        let (until, end) = match (giveable.fork_parent, giveable.cut) {
            (Some(parent), _) => (parent, PageEnd::Known),
            (None, Some(cut)) => (giveable.last, PageEnd::Seal(cut)),
            (None, None) if giveable.is_own => (giveable.last, PageEnd::Anywhere),
            (None, None) => (giveable.last, PageEnd::Seal(giveable.last)),
        };
        let (until, end) = match allowed {
            Some(allowed) if allowed < until => (allowed, PageEnd::Seal(allowed)),
            Some(_) | None => (until, end),
        };
        (first <= until).then_some((first, until, end))
    }
}

#[cfg(test)]
mod tests;
