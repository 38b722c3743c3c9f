//! What this device has just written, until the disk has it: links are given it from here.
//!
//! A message waits for no disk. Whoever is killed before the disk has it finds it in the store's journal. If the disk
//! refuses it, what a link has carried is kept here until the disk takes it; nobody else can give it to others.

use std::collections::{BTreeMap, VecDeque};

use common::limits::{PAGE_ENTRIES_MAX, PAGE_LEN_MAX};
use common::log::{ChainId, ConversationId, HeaderHash, Seal, Sequence};

use crate::log::{Page, PageRequest, Row, StoredEntry};

/// The entries of one conversation that this device has written and the disk may not have: no more than fit a page.
#[derive(Debug, Default)]
pub(super) struct Fresh {
    chains: BTreeMap<ChainId, Rows>,
}

/// Some of a chain in a row, at least one.
#[derive(Debug)]
struct Rows {
    first: Sequence,
    /// The hash of the header before the first one.
    previous: HeaderHash,
    rows: VecDeque<(HeaderHash, Row)>,
    cost: usize,
}

impl Fresh {
    /// An entry is on its way to the disk; `previous` is the hash of the header before it. Tells whether it is kept: not
    /// if too much is, or one before it was not.
    pub(super) fn add(
        &mut self,
        chain: ChainId,
        previous: HeaderHash,
        stored: &StoredEntry,
    ) -> bool {
        let kept = self.chains.values();
        let (cost, count) = kept.fold((0, 0), |(cost, count), rows| {
            (cost + rows.cost, count + rows.rows.len())
        });
        let has_room = cost + stored.entry.cost() <= PAGE_LEN_MAX && count < PAGE_ENTRIES_MAX;
        let rows = self.chains.entry(chain).or_insert(Rows {
            first: stored.sequence,
            previous,
            rows: VecDeque::new(),
            cost: 0,
        });
        let is_kept = has_room && rows.next() == stored.sequence;
        if is_kept {
            let entry = stored.entry.clone();
            rows.cost += entry.cost();
            let row = Row { entry, seal: None };
            rows.rows.push_back((stored.hash, row));
        }
        self.chains.retain(|_, rows| !rows.rows.is_empty());
        is_kept
    }

    /// An entry was sealed.
    pub(super) fn seal(&mut self, chain: &ChainId, seal: Seal) {
        let rows = self.chains.get_mut(chain);
        if let Some((_, row)) = rows.and_then(|rows| rows.at(seal.sequence)) {
            row.seal = Some(seal);
        }
    }

    /// The disk has all of a chain up to an entry.
    pub(super) fn on_written(&mut self, chain: &ChainId, last: Sequence) {
        let Some(rows) = self.chains.get_mut(chain) else {
            return;
        };
        while rows.first <= last
            && let Some((hash, row)) = rows.rows.pop_front()
        {
            (rows.first, rows.previous) = (rows.first.next(), hash);
            rows.cost -= row.entry.cost();
        }
        self.chains.retain(|_, rows| !rows.rows.is_empty());
    }

    /// The disk has refused all of a chain from an entry on, and no link has carried that.
    pub(super) fn forget_from(&mut self, chain: &ChainId, from: Sequence) {
        if let Some(rows) = self.chains.get_mut(chain) {
            while rows.next() > from
                && let Some((_, row)) = rows.rows.pop_back()
            {
                rows.cost -= row.entry.cost();
            }
        }
        self.chains.retain(|_, rows| !rows.rows.is_empty());
    }

    /// Tells whether something of a chain is.
    pub(super) fn has_of(&self, chain: &ChainId) -> bool {
        self.chains.contains_key(chain)
    }

    /// A page of what is kept here, if all that is asked for is.
    pub(super) fn page(&self, request: &PageRequest) -> Option<Page> {
        let rows = self.chains.get(&request.chain)?;
        let skipped = rows.place_of(request.first)?;
        let previous = match skipped.checked_sub(1) {
            Some(before) => rows.rows.get(before)?.0,
            None => rows.previous,
        };
        let rest = rows.rows.range(skipped..);
        request.page(previous, rest.map(|(_, row)| row.clone()).collect())
    }

    /// All that is kept here, as pages without seals.
    pub(super) fn pages(&self, conversation: ConversationId) -> Vec<Page> {
        let page = |(chain, rows): (&ChainId, &Rows)| Page {
            conversation,
            chain: *chain,
            first: rows.first,
            previous: rows.previous,
            entries: rows.rows.iter().map(|(_, row)| row.entry.clone()).collect(),
            seal: None,
        };
        self.chains.iter().map(page).collect()
    }
}

impl Rows {
    /// The place behind the last one.
    fn next(&self) -> Sequence {
        self.first.plus(self.rows.len())
    }

    fn place_of(&self, sequence: Sequence) -> Option<usize> {
        let place = usize::try_from(sequence.since(self.first)).ok()?;
        (sequence >= self.first && place < self.rows.len()).then_some(place)
    }

    fn at(&mut self, sequence: Sequence) -> Option<&mut (HeaderHash, Row)> {
        let place = self.place_of(sequence)?;
        self.rows.get_mut(place)
    }
}

#[cfg(test)]
mod tests {
    use common::key::DeviceSecret;
    use common::log::{Clock, Kind, Outline, RunId};
    use common::time::UnixTime;

    use super::*;
    use crate::log::{Entry, PageEnd, Placed};

    const CONVERSATION: ConversationId = ConversationId::from_bytes([7; 32]);

    fn chain() -> ChainId {
        ChainId {
            device: DeviceSecret::from_seed([1; 32]).public(),
            run: RunId::from_bytes([2; 16]),
        }
    }

    fn place(number: u64) -> Sequence {
        Sequence::new(number).unwrap()
    }

    fn hash(number: u64) -> HeaderHash {
        HeaderHash::from_bytes([u8::try_from(number).unwrap(); 32])
    }

    fn stored(number: u64, len: usize) -> StoredEntry {
        let at = Clock::at(UnixTime::from_millis(number));
        let body = vec![b'x'; len];
        StoredEntry {
            sequence: place(number),
            hash: hash(number),
            placed: Placed {
                at,
                dating: common::log::Dating::Plausible,
            },
            entry: Entry {
                outline: Outline::new(at, Kind::TEXT, &body).unwrap(),
                body: Some(body),
            },
        }
    }

    /// Has these places of the chain, each after the one before.
    fn fresh(places: std::ops::RangeInclusive<u64>) -> Fresh {
        let mut fresh = Fresh::default();
        for number in places {
            assert!(fresh.add(chain(), hash(number - 1), &stored(number, 3)));
        }
        fresh
    }

    fn request(first: u64) -> PageRequest {
        PageRequest {
            conversation: CONVERSATION,
            chain: chain(),
            first: place(first),
            until: place(u64::from(u8::MAX)),
            end: PageEnd::Anywhere,
        }
    }

    fn places(page: Option<Page>) -> Option<(u64, u64, HeaderHash)> {
        page.map(|page| (page.first.number(), page.last().number(), page.previous))
    }

    #[test]
    fn a_page_begins_anywhere_among_what_is_kept() {
        let fresh = fresh(4..=6);
        assert_eq!(places(fresh.page(&request(3))), None);
        assert_eq!(places(fresh.page(&request(4))), Some((4, 6, hash(3))));
        assert_eq!(places(fresh.page(&request(6))), Some((6, 6, hash(5))));
        assert_eq!(places(fresh.page(&request(7))), None);
    }

    #[test]
    fn what_the_disk_has_is_forgotten() {
        let mut fresh = fresh(4..=6);
        fresh.on_written(&chain(), place(4));
        assert_eq!(places(fresh.page(&request(4))), None);
        assert_eq!(places(fresh.page(&request(5))), Some((5, 6, hash(4))));
        fresh.forget_from(&chain(), place(6));
        assert_eq!(places(fresh.page(&request(5))), Some((5, 5, hash(4))));
        fresh.on_written(&chain(), place(5));
        assert!(!fresh.has_of(&chain()));
        assert_eq!(fresh.pages(CONVERSATION), []);
    }

    #[test]
    fn no_more_than_a_page_is_kept_and_nothing_after_a_gap() {
        let most = PAGE_ENTRIES_MAX as u64;
        let mut full = fresh(1..=most);
        assert!(!full.add(chain(), hash(most), &stored(most + 1, 3)));
        full.on_written(&chain(), place(1));
        let next = stored(most + 2, 3);
        assert!(!full.add(chain(), hash(most + 1), &next), "a gap");
        assert!(full.add(chain(), hash(most), &stored(most + 1, 3)));
        let pages = full.pages(CONVERSATION);
        assert_eq!(pages.len(), 1);
        assert_eq!(pages[0].entries.len(), PAGE_ENTRIES_MAX);

        let mut long = Fresh::default();
        let [first, second, third] =
            [1, 2, 3].map(|number| stored(number, common::limits::ENTRY_BODY_LEN_MAX));
        assert!(long.add(chain(), hash(0), &first));
        assert!(long.add(chain(), hash(1), &second));
        assert!(!long.add(chain(), hash(2), &third));
    }
}
