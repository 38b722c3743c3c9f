//! The entries of conversations, in memory.

use std::collections::BTreeMap;

use common::id::MessageId;
use common::limits::{
    BODIES_DROPPED_MAX, CHAINS_READ_MAX, CONVERSATIONS_MAX, CONVERSATIONS_READ_MAX, CUTS_READ_MAX,
    ENTRIES_PER_SEAL_MAX, ENTRY_WRITES_MAX, FORKS_READ_MAX, HISTORY_ITEMS_LEN_MAX,
    HISTORY_ITEMS_MAX, LOST_READ_MAX, PAGE_ENTRIES_MAX, PAGE_LEN_MAX, STRETCH_READ_MAX,
};
use common::log::{
    Body, ChainId, Clock, ConversationId, EntryId, ForkProof, HeaderHash, Kind, Outline, RunId,
    Seal, Sequence, Stretch,
};

use super::messages::Messages;
use crate::log::{
    Admission, CleanMark, Entry, Instance, OwnStretch, PageEnd, PageRequest, Rewrite, Row, ShownAt,
    StoredChain, StoredEntry, Tip, Unsealed,
};
use crate::node::command::Cursor;
use crate::node::io::entries::{
    Arrival, ConversationKind, EntriesRefusal, EntryWrite, LostEntry, Origin, Part, Reach, Reached,
    ShownEntry, ShownQuery, SpanEnd, StoredConversation, StoredCut,
};
use crate::node::io::{EntriesAnswer, EntriesRequest, StoreAnswer};

// What people are shown.
mod showing;

use showing::{Change, Writing, find, show};

/// All conversations.
#[derive(Clone, Debug)]
pub(super) struct MemoryEntries {
    pub(super) instance: Instance,
    conversations: BTreeMap<ConversationId, Conversation>,
    marks: BTreeMap<ConversationId, CleanMark>,
    /// The last entry that came.
    last: Arrival,
    /// Chains so far.
    chains: usize,
}

impl Default for MemoryEntries {
    fn default() -> Self {
        Self {
            instance: Instance([0; 32]),
            conversations: BTreeMap::new(),
            marks: BTreeMap::new(),
            last: Arrival::default(),
            chains: 0,
        }
    }
}

/// What a conversation was before something was written.
#[derive(Debug)]
struct Backup {
    run: Option<RunId>,
    /// The chains that are written, as far as there were any.
    touched: BTreeMap<ChainId, Option<MemoryChain>>,
}

#[derive(Clone, Debug)]
struct Conversation {
    kind: ConversationKind,
    run: Option<RunId>,
    chains: BTreeMap<ChainId, MemoryChain>,
}

#[derive(Clone, Debug)]
struct MemoryChain {
    /// The how many-eth it is.
    number: usize,
    base: Sequence,
    before: HeaderHash,
    sealed: Sequence,
    reached: Reached,
    rows: BTreeMap<Sequence, MemoryRow>,
    proof: Option<ForkProof>,
    /// Own entries that count no more: what is to be written again, and `None` once it is.
    rewrites: BTreeMap<Sequence, Option<(Kind, Vec<u8>)>>,
}

#[derive(Clone, Debug)]
struct MemoryRow {
    arrival: Arrival,
    stored: StoredEntry,
    seal: Option<Seal>,
    is_written_here: bool,
}

impl MemoryEntries {
    /// Carries out a request.
    pub(super) fn execute(
        &mut self,
        request: &EntriesRequest,
        messages: &mut Messages,
    ) -> StoreAnswer {
        if request.is_write() {
            return self.write(request, messages);
        }
        if let EntriesRequest::Undelivered { conversation } = request {
            let waiting = messages.undelivered(*conversation);
            return StoreAnswer::Entries(EntriesAnswer::Undelivered(waiting));
        }
        if let EntriesRequest::Find { ids } = request {
            return find(ids, messages);
        }
        self.read(request)
            .map_or(StoreAnswer::Done, StoreAnswer::Entries)
    }

    /// Keeps that an entry is read. Its message is marked already.
    pub(super) fn mark_read(&mut self, conversation: ConversationId, entry: EntryId) {
        let conversation = self.conversations.get_mut(&conversation);
        let chain = conversation.and_then(|it| it.chains.get_mut(&entry.chain));
        if let Some(chain) = chain {
            chain.reached = chain.reached.with(Reach::Read, entry.sequence);
        }
    }

    // ---- writing -------------------------------------------------------------------------------

    fn write(&mut self, request: &EntriesRequest, messages: &mut Messages) -> StoreAnswer {
        let written = self.try_write(request, messages);
        written.unwrap_or_else(|refusal| StoreAnswer::Failed(refusal.to_string()))
    }

    fn try_write(
        &mut self,
        request: &EntriesRequest,
        messages: &mut Messages,
    ) -> Result<StoreAnswer, EntriesRefusal> {
        match request {
            EntriesRequest::TakeMarks => {
                let marks = std::mem::take(&mut self.marks).into_iter().collect();
                let instance = self.instance;
                let answer = EntriesAnswer::Marks { instance, marks };
                return Ok(StoreAnswer::Entries(answer));
            }
            EntriesRequest::SetMarks(marks) => self.set_marks(marks)?,
            EntriesRequest::Open { conversation, kind } => self.open(*conversation, kind)?,
            EntriesRequest::Write {
                conversation,
                writes,
            } => {
                let written = self.write_all(*conversation, writes, messages)?;
                return Ok(StoreAnswer::Entries(EntriesAnswer::Written(written)));
            }
            EntriesRequest::Reach {
                conversation,
                chain,
                reach,
                last,
            } => {
                let last = EntryId {
                    chain: *chain,
                    sequence: *last,
                };
                let reached = self.reach(*conversation, *reach, last, messages);
                return Ok(StoreAnswer::Entries(EntriesAnswer::Reached(reached)));
            }
            EntriesRequest::DropBodies {
                conversation,
                entries,
            } => self.drop_bodies(*conversation, entries, messages)?,
            EntriesRequest::Forget {
                conversation,
                after,
                before,
            } => {
                let next = self.forget(*conversation, *after, *before, messages);
                return Ok(StoreAnswer::Entries(EntriesAnswer::Forgotten { next }));
            }
            EntriesRequest::Conversations { .. }
            | EntriesRequest::Chains { .. }
            | EntriesRequest::Forks { .. }
            | EntriesRequest::Cuts { .. }
            | EntriesRequest::Lost { .. }
            | EntriesRequest::Page(_)
            | EntriesRequest::OwnStretch { .. }
            | EntriesRequest::Stretch { .. }
            | EntriesRequest::Hash { .. }
            | EntriesRequest::Fork { .. }
            | EntriesRequest::Shown(_)
            | EntriesRequest::Undelivered { .. }
            | EntriesRequest::Find { .. } => {}
        }
        Ok(StoreAnswer::Done)
    }

    fn set_marks(&mut self, marks: &[(ConversationId, CleanMark)]) -> Result<(), EntriesRefusal> {
        if marks.len() > CONVERSATIONS_MAX {
            return Err(EntriesRefusal::TooMany);
        }
        let mut known = marks.iter().map(|(id, _)| id);
        if !known.all(|id| self.conversations.contains_key(id)) {
            return Err(EntriesRefusal::NotOpen);
        }
        self.marks = marks.iter().copied().collect();
        Ok(())
    }

    fn open(&mut self, id: ConversationId, kind: &ConversationKind) -> Result<(), EntriesRefusal> {
        if let Some(known) = self.conversations.get_mut(&id) {
            known.kind = kind.clone();
            return Ok(());
        }
        if self.conversations.len() >= CONVERSATIONS_MAX {
            return Err(EntriesRefusal::TooManyConversations);
        }
        let conversation = Conversation {
            kind: kind.clone(),
            run: None,
            chains: BTreeMap::new(),
        };
        self.conversations.insert(id, conversation);
        Ok(())
    }

    fn write_all(
        &mut self,
        id: ConversationId,
        writes: &[EntryWrite],
        messages: &mut Messages,
    ) -> Result<Vec<(EntryId, Cursor)>, EntriesRefusal> {
        if writes.len() > ENTRY_WRITES_MAX {
            return Err(EntriesRefusal::TooMany);
        }
        let before = self.backup(id, writes)?;
        let (last, chains) = (self.last, self.chains);
        let written = self.write_each(id, writes);
        if written.is_err() {
            (self.last, self.chains) = (last, chains);
            self.conversations.entry(id).and_modify(|conversation| {
                let Backup { run, touched } = before;
                conversation.run = run;
                for (id, chain) in touched {
                    conversation.chains.remove(&id);
                    conversation.chains.extend(chain.map(|chain| (id, chain)));
                }
            });
        }
        Ok(show(id, written?, messages))
    }

    fn reach(
        &mut self,
        id: ConversationId,
        reach: Reach,
        last: EntryId,
        messages: &mut Messages,
    ) -> Vec<MessageId> {
        let conversation = self.conversations.get_mut(&id);
        let chain = conversation.and_then(|it| it.chains.get_mut(&last.chain));
        let chain = chain.filter(|chain| chain.reached.last(reach) < last.sequence);
        let Some(chain) = chain else {
            return Vec::new();
        };
        let first = EntryId {
            sequence: chain.reached.last(reach).next(),
            ..last
        };
        chain.reached = chain.reached.with(reach, last.sequence);
        messages.advance_all(id, (first, last), reach.state())
    }

    /// What writes may change.
    fn backup(&self, id: ConversationId, writes: &[EntryWrite]) -> Result<Backup, EntriesRefusal> {
        let conversation = self.conversations.get(&id);
        let Conversation { run, chains, .. } = conversation.ok_or(EntriesRefusal::NotOpen)?;
        let touched = writes.iter().filter_map(EntryWrite::chain);
        let touched = touched.map(|chain| (chain, chains.get(&chain).cloned()));
        Ok(Backup {
            run: *run,
            touched: touched.collect(),
        })
    }

    fn write_each(
        &mut self,
        id: ConversationId,
        writes: &[EntryWrite],
    ) -> Result<Vec<Change>, EntriesRefusal> {
        let conversation = self.conversations.get_mut(&id);
        let conversation = conversation.ok_or(EntriesRefusal::NotOpen)?;
        let mut writing = Writing {
            id,
            kind: conversation.kind.clone(),
            last: &mut self.last,
            changes: Vec::new(),
        };
        for write in writes {
            match write {
                EntryWrite::Begin(run) => conversation.run = Some(*run),
                EntryWrite::Admit(admission, origin) => {
                    let chain = conversation.chains.entry(admission.chain);
                    let chain = chain.or_insert_with(|| {
                        self.chains += 1;
                        MemoryChain::new(self.chains, admission)
                    });
                    chain.admit(admission, *origin, &mut writing)?;
                }
                EntryWrite::Fork(proof) => {
                    let chain = conversation.chains.get_mut(&proof.chain);
                    let chain = chain.filter(|_| proof.conversation == id);
                    let chain = chain.ok_or(EntriesRefusal::OtherChain)?;
                    chain.proof = Some((**proof).clone());
                }
                EntryWrite::Rewritten(entry) => {
                    let chain = conversation.chains.get_mut(&entry.chain);
                    let chain = chain.ok_or(EntriesRefusal::OtherChain)?;
                    chain.rewrites.insert(entry.sequence, None);
                    writing.changes.push(Change::Hide(*entry));
                }
                EntryWrite::Replaces(message) => {
                    let account = conversation.kind.account().clone();
                    writing.changes.push(Change::Withdraw(*message, account));
                }
            }
        }
        Ok(writing.changes)
    }

    fn drop_bodies(
        &mut self,
        id: ConversationId,
        entries: &[EntryId],
        messages: &mut Messages,
    ) -> Result<(), EntriesRefusal> {
        if entries.len() > BODIES_DROPPED_MAX {
            return Err(EntriesRefusal::TooMany);
        }
        let Some(conversation) = self.conversations.get_mut(&id) else {
            return Ok(());
        };
        for entry in entries {
            if let Some(chain) = conversation.chains.get_mut(&entry.chain) {
                chain.drop_body(entry.sequence);
                messages.remove_of(id, *entry);
            }
        }
        Ok(())
    }

    fn forget(
        &mut self,
        id: ConversationId,
        after: Option<ShownAt>,
        before: Option<ShownAt>,
        messages: &mut Messages,
    ) -> Option<ShownAt> {
        let conversation = self.conversations.get_mut(&id)?;
        let span = conversation.span(after, before).into_iter();
        let places: Vec<ShownAt> = span
            .map(|entry| entry.at())
            .take(BODIES_DROPPED_MAX)
            .collect();
        for place in &places {
            let entry = place.id();
            if let Some(chain) = conversation.chains.get_mut(&entry.chain) {
                chain.drop_body(entry.sequence);
                messages.remove_of(id, entry);
            }
        }
        let is_whole = places.len() < BODIES_DROPPED_MAX;
        places.last().copied().filter(|_| !is_whole)
    }

    // ---- reading -------------------------------------------------------------------------------

    fn read(&self, request: &EntriesRequest) -> Option<EntriesAnswer> {
        Some(match request {
            EntriesRequest::Conversations { after } => {
                let later = self.conversations.iter();
                let later = later.filter(|(id, _)| after.is_none_or(|after| **id > after));
                let items = later.map(|(id, conversation)| StoredConversation {
                    id: *id,
                    kind: conversation.kind.clone(),
                    run: conversation.run,
                });
                EntriesAnswer::Conversations(part(items, CONVERSATIONS_READ_MAX, |last| last.id))
            }
            EntriesRequest::Chains {
                conversation,
                after,
            } => {
                let chains = self.chains_after(*conversation, *after);
                let items = chains.map(|(id, chain)| (*id, chain.stored(), chain.reached));
                EntriesAnswer::Chains(part(items, CHAINS_READ_MAX, |(last, _, _)| *last))
            }
            EntriesRequest::Forks {
                conversation,
                after,
            } => {
                let chains = self.chains_after(*conversation, *after);
                let items = chains.filter_map(|(_, chain)| chain.proof.clone());
                EntriesAnswer::Forks(part(items, FORKS_READ_MAX, |last| last.chain))
            }
            EntriesRequest::Cuts {
                conversation,
                after,
            } => EntriesAnswer::Cuts(self.cuts(*conversation, *after)),
            EntriesRequest::Lost { conversation } => EntriesAnswer::Lost(self.lost(*conversation)),
            EntriesRequest::Page(request) => self.page(request),
            EntriesRequest::OwnStretch {
                conversation,
                chain,
                first,
                last,
            } => {
                let chain = self.chain(*conversation, chain);
                let own = chain.and_then(|chain| chain.own_stretch(*first, *last));
                EntriesAnswer::OwnStretch(own.unwrap_or_else(|| OwnStretch {
                    previous: HeaderHash::NONE,
                    headers: Vec::new(),
                }))
            }
            EntriesRequest::Stretch { conversation, at } => {
                let chain = self.chain(*conversation, &at.chain);
                EntriesAnswer::Stretch(chain.and_then(|chain| chain.stretch(at.sequence)))
            }
            EntriesRequest::Hash { conversation, at } => {
                let chain = self.chain(*conversation, &at.chain);
                let row = chain.and_then(|chain| chain.rows.get(&at.sequence));
                EntriesAnswer::Hash(row.map(|row| row.stored.hash))
            }
            EntriesRequest::Fork {
                conversation,
                chain,
            } => {
                let chain = self.chain(*conversation, chain);
                let proof = chain.and_then(|chain| chain.proof.clone());
                EntriesAnswer::Fork(proof.map(Box::new))
            }
            EntriesRequest::Shown(query) => EntriesAnswer::Shown(self.shown(query)),
            EntriesRequest::TakeMarks
            | EntriesRequest::SetMarks(_)
            | EntriesRequest::Open { .. }
            | EntriesRequest::Write { .. }
            | EntriesRequest::Reach { .. }
            | EntriesRequest::DropBodies { .. }
            | EntriesRequest::Forget { .. }
            | EntriesRequest::Undelivered { .. }
            | EntriesRequest::Find { .. } => return None,
        })
    }

    fn chain(&self, conversation: ConversationId, chain: &ChainId) -> Option<&MemoryChain> {
        self.conversations.get(&conversation)?.chains.get(chain)
    }

    fn chains_after(
        &self,
        conversation: ConversationId,
        after: Option<ChainId>,
    ) -> impl Iterator<Item = (&ChainId, &MemoryChain)> {
        let conversation = self.conversations.get(&conversation).into_iter();
        let chains = conversation.flat_map(|conversation| &conversation.chains);
        chains.filter(move |(id, _)| after.is_none_or(|after| **id > after))
    }

    fn cuts(&self, id: ConversationId, after: Option<Arrival>) -> Part<StoredCut, Arrival> {
        let rows = self.chains_after(id, None).flat_map(|(chain, kept)| {
            kept.rows.values().map(|row| {
                let by = EntryId {
                    chain: *chain,
                    sequence: row.stored.sequence,
                };
                (by, row)
            })
        });
        let of_kind = rows.filter(|(_, row)| row.stored.entry.outline.kind == Kind::CUT);
        let later = of_kind.filter(|(_, row)| after.is_none_or(|after| row.arrival > after));
        let mut later: Vec<_> = later.collect();
        later.sort_unstable_by_key(|(_, row)| row.arrival);
        let Part { items, next } = part(later.into_iter(), CUTS_READ_MAX, |(_, row)| row.arrival);
        let cuts = items.into_iter().filter_map(|(by, row)| {
            let Entry { outline, body } = &row.stored.entry;
            let body = body.as_deref().unwrap_or_default();
            let Ok(Body::Cut(target)) = Body::parse(Kind::CUT, body) else {
                return None;
            };
            let clock = outline.clock;
            Some(StoredCut { by, clock, target })
        });
        let items = cuts.collect();
        Part { items, next }
    }

    fn lost(&self, id: ConversationId) -> Vec<LostEntry> {
        let mut chains: Vec<_> = self.chains_after(id, None).collect();
        chains.sort_unstable_by_key(|(_, chain)| chain.number);
        let lost = chains.into_iter().flat_map(|(id, chain)| {
            let rewrites = chain.rewrites.iter();
            rewrites.filter_map(|(sequence, lost)| {
                let (kind, body) = lost.clone()?;
                let id = EntryId {
                    chain: *id,
                    sequence: *sequence,
                };
                Some(LostEntry { id, kind, body })
            })
        });
        lost.take(LOST_READ_MAX).collect()
    }

    fn page(&self, request: &PageRequest) -> EntriesAnswer {
        let chain = self.chain(request.conversation, &request.chain);
        let page = chain.and_then(|chain| {
            let previous = chain.hash_before(request.first)?;
            Some((previous, chain.page_rows(request)))
        });
        let page = page.filter(|(_, rows)| !rows.is_empty());
        let (previous, rows) = page.unwrap_or((HeaderHash::NONE, Vec::new()));
        EntriesAnswer::Page { previous, rows }
    }

    fn shown(&self, query: &ShownQuery) -> Vec<ShownEntry> {
        let Some(conversation) = self.conversations.get(&query.conversation) else {
            return Vec::new();
        };
        let mut span = conversation.span(query.after, query.before);
        if query.end == SpanEnd::Last {
            span.reverse();
        }
        let mut shown = Vec::new();
        let mut len = 0;
        for entry in span
            .into_iter()
            .take(query.limit.min(HISTORY_ITEMS_MAX) as usize)
        {
            len += entry.entry.body.as_ref().map_or(0, Vec::len);
            shown.push(entry);
            if len >= HISTORY_ITEMS_LEN_MAX {
                break;
            }
        }
        if query.end == SpanEnd::Last {
            shown.reverse();
        }
        shown
    }
}

impl Conversation {
    /// What is shown between two places, in order.
    fn span(&self, after: Option<ShownAt>, before: Option<ShownAt>) -> Vec<ShownEntry> {
        let rows = self.chains.iter().flat_map(|(chain, kept)| {
            let rows = kept.rows.values();
            rows.map(|row| ShownEntry {
                id: EntryId {
                    chain: *chain,
                    sequence: row.stored.sequence,
                },
                arrival: row.arrival,
                placed: row.stored.placed,
                entry: row.stored.entry.clone(),
                is_written_here: row.is_written_here,
            })
        });
        let rows = rows.filter(|entry| after.is_none_or(|after| entry.at() > after));
        let rows = rows.filter(|entry| before.is_none_or(|before| entry.at() < before));
        let mut span: Vec<ShownEntry> = rows.collect();
        span.sort_unstable_by_key(ShownEntry::at);
        span
    }
}

impl MemoryChain {
    fn new(number: usize, admission: &Admission) -> Self {
        Self {
            number,
            base: admission.base,
            before: admission.before,
            sealed: Sequence::START,
            reached: Reached::default(),
            rows: BTreeMap::new(),
            proof: None,
            rewrites: BTreeMap::new(),
        }
    }

    // ---- writing -------------------------------------------------------------------------------

    fn admit(
        &mut self,
        admission: &Admission,
        origin: Origin,
        writing: &mut Writing<'_>,
    ) -> Result<(), EntriesRefusal> {
        if let Some(rewrite) = &admission.rewrite {
            if rewrite.chain != admission.chain {
                return Err(EntriesRefusal::OtherChain);
            }
            self.note_lost(rewrite);
        }
        if let Some(from) = admission.remove {
            if from <= self.sealed {
                return Err(EntriesRefusal::Seal);
            }
            self.rows.retain(|place, _| *place < from);
            writing.changes.push(Change::HideFrom(EntryId {
                chain: admission.chain,
                sequence: from,
            }));
        }
        self.check_place(admission)?;
        for stored in &admission.entries {
            self.add(admission.chain, stored, origin, writing)?;
        }
        if let Some(seal) = admission.seal {
            let row = self.rows.get_mut(&seal.sequence);
            row.ok_or(EntriesRefusal::Seal)?.seal = Some(seal);
        }
        if admission.sealed < self.sealed {
            return Err(EntriesRefusal::Seal);
        }
        (self.base, self.before) = (admission.base, admission.before);
        self.sealed = admission.sealed;
        Ok(())
    }

    fn note_lost(&mut self, rewrite: &Rewrite) {
        let rows = self.rows.range(rewrite.from..);
        let rows = rows.filter(|(place, row)| {
            row.is_written_here && rewrite.until.is_none_or(|until| **place < until)
        });
        for (place, row) in rows {
            let entry = &row.stored.entry;
            if let Some(body) = &entry.body {
                let lost = Some((entry.outline.kind, body.clone()));
                self.rewrites.entry(*place).or_insert(lost);
            }
        }
    }

    fn check_place(&self, admission: &Admission) -> Result<(), EntriesRefusal> {
        let end = self.last();
        let (Some(first), Some(last)) = (admission.entries.first(), admission.entries.last())
        else {
            let is_same = admission.base == self.base && admission.sealed <= end;
            return is_same.then_some(()).ok_or(EntriesRefusal::NotNext);
        };
        let (first, last) = (first.sequence, last.sequence);
        let mut pairs = admission.entries.windows(2);
        let is_row = pairs.all(|pair| pair[0].sequence.next() == pair[1].sequence);
        let is_placed = if admission.base == first && self.base != first {
            last.next() == self.base || first > end.next()
        } else {
            admission.base == self.base && first >= self.base && first <= end.next()
        };
        let is_sound = is_row && is_placed && admission.sealed <= end.max(last);
        is_sound.then_some(()).ok_or(EntriesRefusal::NotNext)
    }

    fn add(
        &mut self,
        chain: ChainId,
        stored: &StoredEntry,
        origin: Origin,
        writing: &mut Writing<'_>,
    ) -> Result<(), EntriesRefusal> {
        let id = EntryId {
            chain,
            sequence: stored.sequence,
        };
        if let Some(kept) = self.rows.get(&stored.sequence) {
            if kept.stored.hash == stored.hash {
                return Ok(());
            }
            if stored.sequence >= self.base {
                return Err(EntriesRefusal::Contradicts);
            }
            writing.changes.push(Change::Hide(id));
        }
        writing.last.0 += 1;
        let message = writing.message(id, stored, origin, &self.reached);
        writing.changes.extend(message.map(Change::Show));
        let row = MemoryRow {
            arrival: *writing.last,
            stored: stored.clone(),
            seal: None,
            is_written_here: origin == Origin::WrittenHere,
        };
        self.rows.insert(stored.sequence, row);
        Ok(())
    }

    /// Drops the body of an entry that controls nothing.
    fn drop_body(&mut self, place: Sequence) {
        if let Some(row) = self.rows.get_mut(&place)
            && !row.stored.entry.outline.kind.is_control()
        {
            row.stored.entry.body = None;
        }
        if let Some(lost) = self.rewrites.get_mut(&place) {
            lost.take_if(|(kind, _)| !kind.is_control());
        }
    }

    // ---- reading -------------------------------------------------------------------------------

    fn last(&self) -> Sequence {
        let last = self.rows.last_key_value();
        last.map_or(self.base.previous(), |(place, _)| *place)
    }

    fn hash_before(&self, first: Sequence) -> Option<HeaderHash> {
        if first == self.base {
            return Some(self.before);
        }
        let row = self.rows.get(&first.previous());
        row.filter(|_| first > self.base).map(|row| row.stored.hash)
    }

    fn stored(&self) -> StoredChain {
        let sealed = self.rows.get(&self.sealed);
        let first = self.rows.get(&self.base);
        let unsealed = self.rows.range(self.sealed.next()..);
        StoredChain {
            base: self.base,
            before: self.before,
            base_placed: first.map_or(Clock::default(), |row| row.stored.placed.at),
            sealed: sealed.map_or(Tip::START, |row| Unsealed::from(&row.stored).tip),
            seal: sealed.and_then(|row| row.seal),
            unsealed: unsealed
                .map(|(_, row)| Unsealed::from(&row.stored))
                .collect(),
        }
    }

    fn page_rows(&self, request: &PageRequest) -> Vec<Row> {
        let PageRequest { first, until, .. } = *request;
        if first > until {
            return Vec::new();
        }
        let rows = self.rows.range(first..=until).map(|(_, row)| Row {
            entry: row.stored.entry.clone(),
            seal: row.seal,
        });
        match request.end {
            PageEnd::Before => {
                if until.since(first) >= PAGE_ENTRIES_MAX as u64 {
                    return Vec::new();
                }
                let mut rows: Vec<Row> = rows.collect();
                let mut cost = 0;
                for row in rows.iter_mut().rev() {
                    cost += row.entry.cost();
                    row.entry.body.take_if(|_| cost > PAGE_LEN_MAX);
                }
                rows
            }
            PageEnd::Seal(_) | PageEnd::Known | PageEnd::Anywhere => {
                let mut cost = 0;
                let fits = |row: &Row| {
                    cost += row.entry.cost();
                    cost <= PAGE_LEN_MAX
                };
                rows.take(PAGE_ENTRIES_MAX).take_while(fits).collect()
            }
        }
    }

    fn own_stretch(&self, first: Sequence, last: Sequence) -> Option<OwnStretch> {
        Some(OwnStretch {
            previous: self.hash_before(first)?,
            headers: self.headers(first, last, STRETCH_READ_MAX),
        })
    }

    /// The headers around a place, from one seal to the next.
    fn stretch(&self, place: Sequence) -> Option<Stretch> {
        if place < self.base {
            return None;
        }
        let mut before = self.rows.range(self.base..place).rev();
        let before = before.find(|(_, row)| row.seal.is_some());
        let first = before.map_or(self.base, |(place, _)| place.next());
        let headers = self.headers(first, place, ENTRIES_PER_SEAL_MAX);
        let (_, seal) = headers.last()?;
        let seal = seal.filter(|seal| seal.sequence >= place)?;
        Some(Stretch {
            first,
            previous: self.hash_before(first)?,
            outlines: headers.into_iter().map(|(outline, _)| outline).collect(),
            seal,
        })
    }

    fn headers(&self, first: Sequence, last: Sequence, max: usize) -> Vec<(Outline, Option<Seal>)> {
        let mut headers = Vec::new();
        for (place, row) in self.rows.range(first..).take(max) {
            headers.push((row.stored.entry.outline, row.seal));
            if row.seal.is_some() && *place >= last {
                break;
            }
        }
        headers
    }
}

/// The first items, and where to go on if there are as many as may be.
fn part<T, After>(
    items: impl Iterator<Item = T>,
    max: usize,
    place: impl Fn(&T) -> After,
) -> Part<T, After> {
    let items: Vec<T> = items.take(max).collect();
    let last = items.last().filter(|_| items.len() == max);
    let next = last.map(place);
    Part { items, next }
}
