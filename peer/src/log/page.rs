//! Pages: some entries of a chain in a row, on their way from one device to another.

use common::limits::{ENTRY_BODY_LEN_MAX, PAGE_ENTRIES_MAX, PAGE_LEN_MAX};
use common::log::{ChainId, ConversationId, HeaderHash, Outline, Seal, Sequence, chained};

/// An entry without its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// What its header says.
    pub outline: Outline,
    /// Its body; `None` if that was deleted or forgotten.
    pub body: Option<Vec<u8>>,
}

impl Entry {
    /// What it counts in a page: its clock, kind and length, and the body or its hash, whichever is longer, because
    /// somebody may have dropped the body when it is given on.
    pub fn cost(&self) -> usize {
        let body_len = self.outline.body_len as usize;
        8 + 1 + 4 + body_len.max(32)
    }

    /// Tells whether the body is as long as the outline says and within its bound, and hashes to what it says.
    pub(super) fn is_sound(&self) -> bool {
        let body = self.body.as_deref();
        self.outline.body_len as usize <= ENTRY_BODY_LEN_MAX
            && body.is_none_or(|body| self.outline.is_of(body))
    }
}

/// Entries of a chain in a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// The conversation of all entries.
    pub conversation: ConversationId,
    /// The chain of all entries.
    pub chain: ChainId,
    /// The place of the first one.
    pub first: Sequence,
    /// The hash of the header before it.
    pub previous: HeaderHash,
    /// 1 to [`PAGE_ENTRIES_MAX`] of them.
    pub entries: Vec<Entry>,
    /// A seal of one of them; what follows it is not taken. Without a seal, a page is taken from the author itself, or
    /// where the header of its last entry is known to be genuine.
    pub seal: Option<Seal>,
}

impl Page {
    /// The place of the last one.
    pub fn last(&self) -> Sequence {
        self.first.plus(self.entries.len().saturating_sub(1))
    }

    /// What its entries count together, at most [`PAGE_LEN_MAX`].
    pub fn cost(&self) -> usize {
        self.entries.iter().map(Entry::cost).sum()
    }

    /// The hashes of the headers.
    pub fn hashes(&self) -> Vec<HeaderHash> {
        let outlines = self.entries.iter().map(|entry| &entry.outline);
        chained(
            self.conversation,
            self.chain,
            self.first,
            self.previous,
            outlines,
        )
    }
}

/// What is to be read from the store for a page: entries from `first` up to `until`, at most [`PAGE_ENTRIES_MAX`] of
/// them, and the hash of the header before `first`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageRequest {
    /// The conversation to read from.
    pub conversation: ConversationId,
    /// The chain to read from.
    pub chain: ChainId,
    /// The first one.
    pub first: Sequence,
    /// The last one that may be in it.
    pub until: Sequence,
    /// Where it may end.
    pub end: PageEnd,
}

/// Where a page may end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageEnd {
    /// At the last seal, or at the first one that is not before this place.
    Seal(Sequence),
    /// At `until`, whose header the receiver knows, or at the last seal before.
    Known,
    /// At `until`, which comes before what the receiver has: the first entries are left out if all are too many.
    Before,
    /// At the last seal; if there is none, anywhere: the giver is the author.
    Anywhere,
}

/// An entry as it is read from the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// What travels of it.
    pub entry: Entry,
    /// The seal at this place, if one is kept there.
    pub seal: Option<Seal>,
}

impl PageRequest {
    /// Makes a page of what was read; `None` if that has no place where the page may end. `previous` is the hash of the
    /// header before the first row.
    pub fn page(&self, previous: HeaderHash, rows: Vec<Row>) -> Option<Page> {
        let mut page = Page {
            conversation: self.conversation,
            chain: self.chain,
            first: self.first,
            previous,
            entries: Vec::new(),
            seal: None,
        };
        if self.end == PageEnd::Before {
            return self.page_before(page, rows);
        }
        let mut cost = 0;
        let mut seal = None;
        for row in rows.into_iter().take(PAGE_ENTRIES_MAX) {
            let place = self.first.plus(page.entries.len());
            cost += row.entry.cost();
            if cost > PAGE_LEN_MAX || place > self.until {
                break;
            }
            page.entries.push(row.entry);
            seal = row.seal.map(|seal| (page.entries.len(), seal)).or(seal);
            match self.end {
                PageEnd::Seal(enough) if row.seal.is_some() && place >= enough => break,
                PageEnd::Known if place == self.until => return Some(page),
                PageEnd::Seal(_) | PageEnd::Known | PageEnd::Before | PageEnd::Anywhere => {}
            }
        }
        match (seal, self.end) {
            (Some((len, seal)), _) => {
                page.entries.truncate(len);
                page.seal = Some(seal);
            }
            (None, PageEnd::Anywhere) => {}
            (None, PageEnd::Seal(_) | PageEnd::Known | PageEnd::Before) => return None,
        }
        (!page.entries.is_empty()).then_some(page)
    }

    /// Leaves out so many of the first entries that the others fit.
    fn page_before(&self, mut page: Page, rows: Vec<Row>) -> Option<Page> {
        page.entries = rows.into_iter().map(|row| row.entry).collect();
        let is_whole = page.entries.len() <= PAGE_ENTRIES_MAX && page.last() == self.until;
        if page.entries.is_empty() || !is_whole {
            return None;
        }
        let hashes = page.hashes();
        let mut cost = page.cost();
        let mut skipped = 0;
        while cost > PAGE_LEN_MAX {
            cost -= page.entries.get(skipped)?.cost();
            skipped += 1;
        }
        if let Some(last_skipped) = skipped.checked_sub(1) {
            page.previous = *hashes.get(last_skipped)?;
            page.first = page.first.plus(skipped);
            page.entries.drain(..skipped);
        }
        Some(page)
    }
}
