use std::collections::{BTreeMap, BTreeSet};

use common::key::DeviceKey;
use common::log::{Body, ChainId, Clock, EntryId, HeaderHash, Kind, Sequence};

use super::host::Accounts;
use super::world::World;
use crate::log::{EntryState, Rank, Standing};

/// All that is on the disks of all devices together, and what follows from it by the words of the design.
#[derive(Debug)]
pub(super) struct Model {
    /// The sealed entries at each place: more than one where a chain forks.
    sealed: BTreeMap<EntryId, BTreeMap<HeaderHash, Known>>,
    forks: BTreeMap<ChainId, Sequence>,
    cuts: Vec<Cut>,
    accounts: Accounts,
    /// The texts that devices have written and still have.
    own: BTreeMap<String, EntryId>,
}

#[derive(Clone, Debug)]
struct Known {
    clock: Clock,
    kind: Kind,
    body: Vec<u8>,
}

#[derive(Clone, Copy, Debug)]
struct Cut {
    by: EntryId,
    clock: Clock,
    target: EntryId,
}

impl Model {
    pub(super) fn of(world: &World) -> Self {
        let mut model = Self {
            sealed: BTreeMap::new(),
            forks: BTreeMap::new(),
            cuts: Vec::new(),
            accounts: world.accounts().clone(),
            own: BTreeMap::new(),
        };
        for host in world.hosts.values() {
            for (id, row) in host.disk.all() {
                let entry = &row.stored.entry;
                let known = Known {
                    clock: entry.outline.clock,
                    kind: entry.outline.kind,
                    body: entry.body.clone().unwrap(),
                };
                if row.is_written_here && known.kind == Kind::TEXT {
                    let text = String::from_utf8(known.body.clone()).unwrap();
                    model.own.insert(text, id);
                }
                if host.disk.is_sealed(id) {
                    let place = model.sealed.entry(id).or_default();
                    place.insert(row.stored.hash, known);
                }
            }
            for (chain, proof) in &host.disk.proofs {
                model.note_fork(*chain, proof.one.first);
            }
        }
        model.find_forks();
        model.find_cuts();
        model
    }

    fn note_fork(&mut self, chain: ChainId, at: Sequence) {
        let first = self.forks.entry(chain).or_insert(at);
        *first = at.min(*first);
    }

    fn find_forks(&mut self) {
        let forked = self.sealed.iter().filter(|(_, ways)| ways.len() > 1);
        let forked: Vec<EntryId> = forked.map(|(id, _)| *id).collect();
        for id in forked {
            self.note_fork(id.chain, id.sequence);
        }
    }

    fn find_cuts(&mut self) {
        for (by, ways) in &self.sealed {
            let [known] = ways.values().collect::<Vec<_>>()[..] else {
                continue;
            };
            if let Ok(Body::Cut(target)) = Body::parse(known.kind, &known.body) {
                let (by, clock) = (*by, known.clock);
                self.cuts.push(Cut { by, clock, target });
            }
        }
    }

    /// The cut that counts, among those of signers more senior than `than`: the most senior one's, its last.
    fn cut(&self, chain: &ChainId, than: Option<Rank>) -> Option<Sequence> {
        let mut counting = Vec::new();
        for cut in self.cuts.iter().filter(|cut| cut.target.chain == *chain) {
            let rank = self.accounts.rank(&cut.by.chain.device, &chain.device);
            let Some(rank) = rank.filter(|rank| than.is_none_or(|than| *rank < than)) else {
                continue;
            };
            let fork = self.forks.get(&cut.by.chain);
            let is_disputed = fork.is_some_and(|fork| cut.by.sequence >= *fork);
            let above = self.cut(&cut.by.chain, Some(rank));
            let is_void = match above {
                Some(last) => cut.by.sequence > last,
                None => !self.accounts.is_approved(&cut.by.chain.device),
            };
            if !is_disputed && !is_void {
                let latest = std::cmp::Reverse((cut.clock, cut.by));
                counting.push((rank, latest, cut.target.sequence));
            }
        }
        counting.sort_unstable();
        counting.first().map(|(_, _, last)| *last)
    }

    fn counts(&self, id: &EntryId) -> bool {
        let fork = self.forks.get(&id.chain);
        if fork.is_some_and(|fork| id.sequence >= *fork) {
            return false;
        }
        match self.cut(&id.chain, None) {
            Some(last) => id.sequence <= last,
            None => self.accounts.is_approved(&id.chain.device),
        }
    }

    /// What everybody is to be shown, in order.
    fn shown(&self) -> Vec<EntryId> {
        let mut shown: Vec<(Clock, DeviceKey, EntryId)> = Vec::new();
        for (id, ways) in &self.sealed {
            if self.counts(id) {
                let known = ways.values().next().unwrap();
                shown.push((known.clock, id.chain.device, *id));
            }
        }
        shown.sort_unstable();
        shown.into_iter().map(|(_, _, id)| id).collect()
    }

    pub(super) fn entries(&self) -> usize {
        self.sealed.len()
    }

    pub(super) fn forks(&self) -> usize {
        self.forks.len()
    }

    /// Checks what all devices have in the end. `before` is the model of what they had when everything was mended.
    pub(super) fn check(&self, world: &World, before: &Self) {
        let expected = self.shown();
        for host in world.hosts.values() {
            let shown: Vec<EntryId> = host.shown().into_iter().map(|(_, id)| id).collect();
            let missing = expected.iter().find(|id| !shown.contains(id));
            let surplus = shown.iter().find(|id| !expected.contains(id));
            for id in missing.into_iter().chain(surplus) {
                let device = self.accounts.devices[&id.chain.device];
                let is_approved = self.accounts.is_approved(&id.chain.device);
                println!(
                    "device {device:?}, approved {is_approved}, cut {:?}, fork {:?}, here {:?}, fork here {:?}",
                    self.cut(&id.chain, None),
                    self.forks.get(&id.chain),
                    host.replica.state(*id),
                    host.replica.fork(&id.chain),
                );
            }
            assert_eq!((missing, surplus), (None, None), "at {}", host.number);
            assert_eq!(shown, expected, "the order at {}", host.number);
        }
        let digests = world.hosts.values().map(|host| host.replica.digest());
        let digests: BTreeSet<_> = digests.collect();
        assert_eq!(digests.len(), 1, "all have the same and say otherwise");
        self.check_forks(world);
        self.check_order(world, &expected);
        self.check_texts(world, &expected, before);
    }

    /// Where an undisputed part of a chain forks, everybody knows.
    fn check_forks(&self, world: &World) {
        for (chain, fork) in &self.forks {
            let last = fork.previous();
            let is_of_interest = match self.cut(chain, None) {
                Some(cut) => cut > last,
                None => self.accounts.is_approved(&chain.device),
            };
            for host in world.hosts.values().filter(|_| is_of_interest) {
                assert_eq!(host.replica.fork(chain), Some(*fork), "{}", host.number);
                let id = EntryId {
                    chain: *chain,
                    sequence: *fork,
                };
                assert_eq!(host.replica.state(id), EntryState::Disputed);
            }
        }
    }

    /// Runs stand in their order, and effects after what their authors had seen.
    fn check_order(&self, world: &World, shown: &[EntryId]) {
        let places: BTreeMap<EntryId, usize> = shown.iter().copied().zip(0..).collect();
        for (id, place) in &places {
            let next = EntryId {
                sequence: id.sequence.next(),
                ..*id
            };
            assert!(places.get(&next).is_none_or(|next| next > place));
            let hash = *self.sealed[id].keys().next().unwrap();
            let cause = world.causes.get(&(*id, hash));
            let cause = cause.filter(|(id, hash)| {
                let ways = self.sealed.get(id);
                ways.is_some_and(|ways| ways.contains_key(hash))
            });
            let cause = cause.and_then(|(id, _)| places.get(id));
            assert!(cause.is_none_or(|cause| cause < place), "{id:?}");
        }
    }

    /// What anybody had written and still had is shown, unless it was cut; once, unless an older copy of a device has
    /// written again what a newer one had written again before.
    fn check_texts(&self, world: &World, shown: &[EntryId], before: &Self) {
        let hosts = world.hosts.values();
        let again: BTreeSet<&Vec<u8>> = hosts.flat_map(|host| &host.again).collect();
        let mut texts = BTreeSet::new();
        for id in shown {
            let known = self.sealed[id].values().next().unwrap();
            if known.kind == Kind::TEXT {
                let text = String::from_utf8(known.body.clone()).unwrap();
                let is_again = again.contains(&known.body);
                assert!(texts.insert(text) || is_again, "{id:?} is shown twice");
            }
        }
        for (text, id) in &before.own {
            let is_approved = self.accounts.is_approved(&id.chain.device);
            let is_cut = self.cut(&id.chain, None).is_some();
            assert!(
                texts.contains(text) || !is_approved || is_cut,
                "{text} of {id:?} is lost"
            );
        }
    }
}
