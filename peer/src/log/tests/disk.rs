use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use common::log::{
    ChainId, Clock, EntryId, ForkProof, HeaderHash, Kind, RunId, Seal, Sequence, Stretch,
};

use crate::log::*;

/// What one device has on disk, or would have once all is written.
#[derive(Clone, Debug, Default)]
pub(crate) struct Disk {
    pub(crate) rows: BTreeMap<ChainId, BTreeMap<Sequence, DiskRow>>,
    sealed: BTreeMap<ChainId, Sequence>,
    pub(crate) proofs: BTreeMap<ChainId, ForkProof>,
    /// Own entries that count no more and are still to be written again.
    pub(crate) lost: BTreeMap<EntryId, (Kind, Vec<u8>)>,
    /// Own entries that were written again.
    pub(crate) rewritten: BTreeSet<EntryId>,
    pub(crate) mark: Option<CleanMark>,
    pub(crate) run: Option<RunId>,
    /// How it became what it is.
    pub(crate) events: Vec<Arc<Event>>,
}

/// Something that has happened to a disk.
#[derive(Clone, Debug)]
pub(crate) enum Event {
    /// A program started, and took the mark.
    Started,
    /// A transaction was written.
    Written(Vec<Write>),
    /// A program ended in order.
    Ended(Option<CleanMark>),
}

#[derive(Clone, Debug)]
pub(crate) struct DiskRow {
    pub(crate) stored: StoredEntry,
    pub(crate) seal: Option<Seal>,
    /// It was not received.
    pub(crate) is_written_here: bool,
}

/// One thing to write.
#[derive(Clone, Debug)]
pub(crate) enum Write {
    Taken(Admission),
    Written(Admission),
    Proof(ForkProof),
    Lost(EntryId, Kind, Vec<u8>),
    Rewritten(EntryId),
    Run(RunId),
}

impl Write {
    pub(super) const fn admission(&self) -> Option<&Admission> {
        match self {
            Self::Taken(admission) | Self::Written(admission) => Some(admission),
            Self::Proof(_) | Self::Lost(..) | Self::Rewritten(_) | Self::Run(_) => None,
        }
    }
}

impl Disk {
    pub(super) fn write(&mut self, write: &Write) {
        match write {
            Write::Taken(admission) => self.admit(admission, false),
            Write::Written(admission) => self.admit(admission, true),
            Write::Proof(proof) => {
                self.proofs.insert(proof.chain, proof.clone());
            }
            Write::Lost(id, kind, body) => {
                self.lost.insert(*id, (*kind, body.clone()));
            }
            Write::Rewritten(id) => {
                self.lost.remove(id);
                self.rewritten.insert(*id);
            }
            Write::Run(run) => self.run = Some(*run),
        }
    }

    fn admit(&mut self, admission: &Admission, is_written_here: bool) {
        let rows = self.rows.entry(admission.chain).or_default();
        if let Some(from) = admission.remove {
            rows.retain(|place, _| *place < from);
        }
        for stored in &admission.entries {
            let row = DiskRow {
                stored: stored.clone(),
                seal: None,
                is_written_here,
            };
            let before = rows.insert(stored.sequence, row);
            assert!(before.is_none(), "{} is written twice", stored.sequence);
        }
        if let Some(seal) = admission.seal {
            let row = rows.get_mut(&seal.sequence).expect("a row for the seal");
            row.seal = Some(seal);
        }
        self.sealed.insert(admission.chain, admission.sealed);
    }

    // ---- reading -------------------------------------------------------------------------------

    pub(crate) fn row(&self, id: EntryId) -> Option<&DiskRow> {
        self.rows.get(&id.chain)?.get(&id.sequence)
    }

    pub(crate) fn hash(&self, chain: &ChainId, place: Sequence) -> HeaderHash {
        let id = EntryId {
            chain: *chain,
            sequence: place,
        };
        self.row(id).map_or(HeaderHash::NONE, |row| row.stored.hash)
    }

    pub(super) fn is_sealed(&self, id: EntryId) -> bool {
        let sealed = self.sealed.get(&id.chain).copied();
        sealed.is_some_and(|sealed| id.sequence <= sealed)
    }

    pub(crate) fn chain(&self, chain: &ChainId) -> StoredChain {
        let rows = &self.rows[chain];
        let sealed = self.sealed.get(chain).copied().unwrap_or(Sequence::START);
        let tip = |row: &DiskRow| Tip {
            sequence: row.stored.sequence,
            hash: row.stored.hash,
            clock: row.stored.entry.outline.clock,
            placed: row.stored.placed.at,
        };
        let unsealed = rows.values().filter(|row| row.stored.sequence > sealed);
        StoredChain {
            base: Sequence::FIRST,
            before: HeaderHash::NONE,
            base_placed: rows
                .values()
                .next()
                .map_or(Clock::default(), |row| row.stored.placed.at),
            sealed: rows.get(&sealed).map_or(Tip::START, tip),
            seal: rows.get(&sealed).and_then(|row| row.seal),
            unsealed: unsealed
                .map(|row| Unsealed {
                    tip: tip(row),
                    cost: row.stored.entry.cost(),
                })
                .collect(),
        }
    }

    pub(crate) fn page(&self, request: &PageRequest) -> Option<Page> {
        let rows = self.rows.get(&request.chain)?;
        let rows = rows.range(request.first..=request.until).take(64);
        let rows = rows.map(|(_, row)| Row {
            entry: row.stored.entry.clone(),
            seal: row.seal,
        });
        let previous = self.hash(&request.chain, request.first.previous());
        request.page(previous, rows.collect())
    }

    /// The headers around a place, from one seal to the next.
    pub(crate) fn stretch(&self, chain: &ChainId, place: Sequence) -> Option<Stretch> {
        let rows = self.rows.get(chain)?;
        let before = rows
            .range(..place)
            .rev()
            .find(|(_, row)| row.seal.is_some());
        let first = before.map_or(Sequence::FIRST, |(place, _)| place.next());
        let mut outlines = Vec::new();
        for (_, row) in rows.range(first..) {
            outlines.push(row.stored.entry.outline);
            if let Some(seal) = row.seal.filter(|_| row.stored.sequence >= place) {
                return Some(Stretch {
                    first,
                    previous: self.hash(chain, first.previous()),
                    outlines,
                    seal,
                });
            }
        }
        None
    }

    pub(crate) fn own_stretch(
        &self,
        chain: &ChainId,
        first: Sequence,
        last: Sequence,
    ) -> OwnStretch {
        let mut headers = Vec::new();
        if let Some(rows) = self.rows.get(chain) {
            for (place, row) in rows.range(first..) {
                headers.push((row.stored.entry.outline, row.seal));
                if row.seal.is_some() && *place >= last {
                    break;
                }
            }
        }
        OwnStretch {
            previous: self.hash(chain, first.previous()),
            headers,
        }
    }

    /// All entries of a kind, in any order.
    pub(crate) fn of_kind(&self, kind: Kind) -> impl Iterator<Item = (EntryId, &DiskRow)> {
        self.all()
            .filter(move |(_, row)| row.stored.entry.outline.kind == kind)
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = (EntryId, &DiskRow)> {
        self.rows.iter().flat_map(|(chain, rows)| {
            rows.iter().map(|(sequence, row)| {
                let id = EntryId {
                    chain: *chain,
                    sequence: *sequence,
                };
                (id, row)
            })
        })
    }
}

/// What is on its way to the disk: transactions, each whole or not at all.
#[derive(Clone, Debug, Default)]
pub(super) struct Queue(pub(super) VecDeque<Transaction>);

#[derive(Clone, Debug, Default)]
pub(super) struct Transaction {
    pub(super) writes: Vec<Write>,
    /// The page that is settled by it, and the link that it came over.
    pub(super) settles: Option<(usize, Slot)>,
}
