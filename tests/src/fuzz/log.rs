//! Logs: the bytes of entries, and a replica at the mercy of an author and of givers who break every rule.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use common::key::{DeviceKey, DeviceSecret};
use common::limits::{PAGE_LEN_MAX, PAGES_IN_FLIGHT_LEN_MAX};
use common::log::{
    Body, ChainId, Clock, ConversationId, EntryId, Extent, ForkProof, Header, HeaderHash, Kind,
    Outline, RunId, Seal, Sequence, Stretch, Vector,
};
use common::time::UnixTime;
use peer::log::{
    Admission, AppendError, Due, Entry, EntryState, Examined, Flight, Giving, OwnRun, OwnStretch,
    Page, Rank, Refusal, Replica, Row, Source, Standing, TraceStep, Traces,
};

use super::beginning;
use super::feed::Feed;

const CONVERSATION: ConversationId = ConversationId::from_bytes([0xc0; 32]);
const WALL: UnixTime = UnixTime::from_millis(1_795_000_000_000);

/// Length of each of the author's two ways.
const LEN: usize = 80;
/// Where they part.
const TURN: usize = 40;

pub(super) fn log(bytes: &[u8]) {
    let mut feed = Feed(bytes);
    if feed.flag() {
        Lab::run(&mut feed, |_| {});
    } else {
        decode(&mut feed);
    }
}

/// What decodes means its bytes and no others.
fn decode(feed: &mut Feed<'_>) {
    let kind = Kind(feed.byte());
    let bytes = feed.0;
    if let Ok(header) = Header::from_bytes(bytes) {
        assert_eq!(header.to_bytes(), bytes);
        assert!(header.sequence != Sequence::START);
    }
    if let Ok(body) = Body::parse(kind, bytes) {
        assert_eq!((body.kind(), body.to_bytes()), (kind, bytes.to_vec()));
    }
    if let Ok(outline) = Outline::from_bytes(bytes) {
        assert_eq!(outline.to_bytes(), bytes);
    }
    if let Some(id) = bytes.first_chunk().and_then(EntryId::from_bytes) {
        assert_eq!(id.to_bytes(), bytes[..EntryId::LEN]);
    }
}

/// The author is approved until it is revoked; the replica's own device may cut its chains.
struct Accounts {
    revoked: bool,
}

impl Standing for Accounts {
    fn is_approved(&self, device: &DeviceKey) -> bool {
        !self.revoked || *device != key(1)
    }

    fn rank(&self, signer: &DeviceKey, target: &DeviceKey) -> Option<Rank> {
        (*signer == key(2) && *target == key(1)).then_some(Rank(0))
    }
}

fn secret(seed: u8) -> DeviceSecret {
    DeviceSecret::from_seed([seed; 32])
}

/// The device with this seed: 1 is the author, 2 the replica's own, 3 somebody else.
fn key(seed: u8) -> DeviceKey {
    static KEYS: LazyLock<[DeviceKey; 3]> = LazyLock::new(|| [1, 2, 3].map(|n| secret(n).public()));
    KEYS[usize::from(seed) - 1]
}

fn at(number: usize) -> Sequence {
    Sequence::new(number as u64).expect("a small number")
}

/// One of the two ways in which the author goes on.
struct Way {
    entries: Vec<Entry>,
    hashes: Vec<HeaderHash>,
}

impl Way {
    fn new(way: u8) -> Self {
        let entries = (1..=LEN).map(|place| {
            let body = [if place < TURN { 0 } else { way }, 7];
            let clock = Clock::at(WALL.saturating_add(Duration::from_millis(place as u64)));
            Entry {
                outline: Outline::new(clock, Kind::TEXT, &body).expect("a short body"),
                body: Some(body.to_vec()),
            }
        });
        let page = Page {
            conversation: CONVERSATION,
            chain: chain(),
            first: Sequence::FIRST,
            previous: HeaderHash::NONE,
            entries: entries.collect(),
            seal: None,
        };
        Self {
            hashes: page.hashes(),
            entries: page.entries,
        }
    }

    fn hash(&self, place: usize) -> HeaderHash {
        place
            .checked_sub(1)
            .map_or(HeaderHash::NONE, |index| self.hashes[index])
    }

    fn page(&self, first: usize, len: usize) -> Page {
        let last = (first + len - 1).min(LEN);
        Page {
            conversation: CONVERSATION,
            chain: chain(),
            first: at(first),
            previous: self.hash(first - 1),
            entries: self.entries[first - 1..last].to_vec(),
            seal: None,
        }
    }

    fn seal(&self, place: usize) -> Seal {
        Seal::sign_hash(&secret(1), at(place), &self.hash(place))
    }

    fn stretch(&self, first: usize, len: usize) -> Stretch {
        let page = self.page(first, len);
        Stretch {
            first: page.first,
            previous: page.previous,
            outlines: page.entries.iter().map(|entry| entry.outline).collect(),
            seal: self.seal((first + len - 1).min(LEN)),
        }
    }
}

fn chain() -> ChainId {
    ChainId {
        device: key(1),
        run: RunId::from_bytes([1; 16]),
    }
}

/// A replica, its disk, and a link.
struct Lab {
    ways: [Way; 2],
    replica: Replica,
    accounts: Accounts,
    /// What is on its way to the disk, and what is there.
    queue: Vec<Admission>,
    disk: BTreeMap<EntryId, HeaderHash>,
    /// Entries of the author that it has signed, directly or not.
    signed: BTreeSet<HeaderHash>,
    giving: Giving,
    flight: Flight,
    traces: Traces,
    now: Instant,
    runs: u8,
}

impl Lab {
    fn new() -> Self {
        Self {
            ways: [0, 1].map(Way::new),
            replica: Replica::new(CONVERSATION, key(2)),
            accounts: Accounts { revoked: false },
            queue: Vec::new(),
            disk: BTreeMap::new(),
            signed: BTreeSet::from([HeaderHash::NONE]),
            giving: Giving::default(),
            flight: Flight::default(),
            traces: Traces::default(),
            now: beginning(),
            runs: 0,
        }
    }

    /// Does what bytes say, and has each state looked at.
    fn run(feed: &mut Feed<'_>, mut look: impl FnMut(&Self)) {
        let mut lab = Self::new();
        let mut steps = 0;
        while !feed.is_empty() && steps < 500 {
            lab.step(feed);
            lab.look_up();
            lab.check();
            look(&lab);
            steps += 1;
        }
    }

    fn step(&mut self, feed: &mut Feed<'_>) {
        self.now += Duration::from_millis(feed.byte().into());
        match feed.below(13) {
            0..=2 => self.page(feed),
            3 => self.seal(feed),
            4 => self.fork(feed),
            5 => self.write(feed),
            6 => self.sign(),
            7 | 8 => self.commit(),
            9 => self.have(feed),
            10 => self.give(feed),
            11 => self.trace(feed),
            _ => self.revoke(feed),
        }
    }

    /// A page of either way, with anything about it changed.
    fn page(&mut self, feed: &mut Feed<'_>) {
        let way = feed.below(2);
        let (first, len) = (1 + feed.below(LEN), 1 + feed.below(64));
        let mut page = self.ways[way].page(first, len);
        let last = first + page.entries.len() - 1;
        let source = match feed.below(3) {
            0 => Source::Unproved,
            1 => Source::Device(key(1)),
            _ => Source::Device(key(3)),
        };
        let is_sealed = feed.flag();
        if is_sealed {
            page.seal = Some(self.ways[way].seal(last));
        }
        if feed.flag() {
            tamper(&mut page, feed);
        }
        let examined = self.replica.examine(page, source, &self.accounts);
        let admission = self.admit(examined);
        let Ok(admission) = admission else {
            return;
        };
        if is_sealed && admission.seal.is_some() {
            self.signed.extend(&self.ways[way].hashes[..last]);
        } else if source != Source::Device(admission.chain.device) {
            let fork = self.replica.fork(&chain());
            assert!(
                fork.is_some_and(|fork| at(last) >= fork.previous()),
                "unsealed"
            );
        }
        let is_said_by_its_author = source == Source::Device(admission.chain.device);
        for stored in &admission.entries {
            let is_signed = self.signed.contains(&stored.hash);
            assert!(
                is_signed || is_said_by_its_author,
                "T42: nobody has signed it"
            );
        }
        self.queue.push(admission);
    }

    fn admit(&mut self, examined: Result<Examined, Refusal>) -> Result<Admission, Refusal> {
        let checked = examined?.check()?;
        self.replica.admit(checked, WALL, &self.accounts)
    }

    fn seal(&mut self, feed: &mut Feed<'_>) {
        let (way, place) = (feed.below(2), 1 + feed.below(LEN));
        let mut seal = self.ways[way].seal(place);
        let is_moved = feed.flag();
        if is_moved {
            seal.sequence = seal.sequence.next();
        }
        let examined = self.replica.examine_seal(chain(), seal);
        if let Ok(admission) = self.admit(examined) {
            assert!(!is_moved, "a seal is taken for another entry's");
            self.signed.extend(&self.ways[way].hashes[..place]);
            self.queue.push(admission);
        }
    }

    /// Two stretches, which mostly prove nothing.
    fn fork(&mut self, feed: &mut Feed<'_>) {
        let [one, other] = [(); 2].map(|()| {
            let way = feed.below(2);
            let first = if feed.flag() {
                TURN
            } else {
                1 + feed.below(LEN)
            };
            self.ways[way].stretch(first, 1 + feed.below(64))
        });
        let proof = ForkProof {
            conversation: CONVERSATION,
            chain: chain(),
            one,
            other,
        };
        let Ok(fork) = proof.verify() else {
            return;
        };
        assert_eq!(fork.sequence(), at(TURN), "they part nowhere else");
        self.signed.extend(&self.ways[0].hashes[..TURN - 1]);
        if let Ok(admission) = self.replica.admit_fork(&fork, &self.accounts) {
            self.queue.push(admission);
        }
    }

    fn write(&mut self, feed: &mut Feed<'_>) {
        let target = EntryId {
            chain: chain(),
            sequence: at(1 + feed.below(LEN)),
        };
        let body = match feed.flag() {
            true => Body::Cut(target),
            false => Body::Delete { of: target },
        };
        match self
            .replica
            .append(body.kind(), body.to_bytes(), WALL, self.now, &self.accounts)
        {
            Ok(admission) => self.queue.push(admission),
            Err(AppendError::NewRun(_)) => {
                self.runs = self.runs.wrapping_add(1);
                let run = RunId::from_bytes([self.runs; 16]);
                self.replica.begin(OwnRun::begin(key(2), run));
            }
            Err(AppendError::Unsealed) => {}
            Err(error @ (AppendError::NotApproved | AppendError::TooLong | AppendError::Full)) => {
                panic!("{error}")
            }
        }
    }

    fn sign(&mut self) {
        while let Some(job) = self.replica.poll_seal(self.now) {
            let seal = Seal::sign_hash(&secret(2), job.sequence, &job.hash);
            let admission = self.replica.handle_seal(&job, seal, &self.accounts);
            self.queue.extend(admission);
        }
    }

    fn commit(&mut self) {
        if self.queue.is_empty() {
            return;
        }
        let admission = self.queue.remove(0);
        if let Some(from) = admission.remove {
            let of = |id: &EntryId| id.chain == admission.chain && id.sequence >= from;
            self.disk.retain(|id, _| !of(id));
        }
        for stored in &admission.entries {
            let id = EntryId {
                chain: admission.chain,
                sequence: stored.sequence,
            };
            assert!(self.disk.insert(id, stored.hash).is_none(), "written twice");
        }
        self.replica.committed(&admission.receipt);
    }

    fn look_up(&mut self) {
        while let Some(id) = self.replica.poll_look_up() {
            let hash = self.disk[&id];
            self.replica.handle_hash(id, hash);
        }
    }

    /// The other side says that it has anything.
    fn have(&mut self, feed: &mut Feed<'_>) {
        let mut place = || Sequence::new(u64::from(feed.byte()) >> 1).expect("a small number");
        let [base, sealed, last, fork] = [(); 4].map(|()| place());
        let extent = Extent {
            base,
            sealed,
            last,
            hash: HeaderHash::from_bytes([feed.byte(); 32]),
            fork: feed.flag().then_some(fork),
        };
        let own = self.replica.run().map(|run| run.chain());
        let id = own.filter(|_| feed.flag()).unwrap_or(chain());
        let mut extent = extent;
        if feed.flag() {
            let hash = extent.hash;
            extent = Extent {
                hash,
                ..self.replica.extent(&id, None)
            };
        }
        match feed.below(4) {
            0 => {
                let vector = Vector(BTreeMap::from([(id, extent)]));
                self.giving.open(&vector, &self.replica);
            }
            1 => {
                for (_, chain) in self.flight.answered(feed.byte().into()) {
                    self.giving.handle_answer(chain);
                }
            }
            _ => self.giving.handle_have(id, extent),
        }
        let claimed = self.replica.note_claim(&id, &extent);
        self.queue.extend(claimed);
        if let Some(place) = self.replica.differs_at(&id, &extent) {
            let _ = self.traces.begin(id, extent.base, place);
        }
    }

    /// Gives what the other side lacks, as far as it fits; the store may have nothing to make a page of.
    fn give(&mut self, feed: &mut Feed<'_>) {
        for _ in 0..200 {
            let Some(due) = self.giving.poll(&self.replica, &mut self.flight) else {
                return;
            };
            if let Due::Page(request) = due {
                assert!(request.first <= request.until);
                let fork = self.replica.fork(&request.chain);
                assert!(fork.is_none_or(|fork| request.first < fork), "what is void");
                let rows = self.rows(request.chain, request.first, request.until);
                let previous = HeaderHash::from_bytes([feed.byte(); 32]);
                let page = request.page(previous, rows);
                self.giving
                    .handle_page(&request, page.as_ref(), &mut self.flight);
            }
            assert!(self.flight.len() <= PAGES_IN_FLIGHT_LEN_MAX + PAGE_LEN_MAX);
        }
        panic!("there is always more to give");
    }

    /// What the store has of a chain: of the author's, with a seal each seventh time.
    fn rows(&self, id: ChainId, first: Sequence, until: Sequence) -> Vec<Row> {
        let places = first.number()..=until.number().min(first.number() + 63);
        let rows = places.map(|place| {
            let index = usize::try_from(place).unwrap_or(usize::MAX) - 1;
            let entry = self.ways[0].entries.get(index % LEN);
            let is_sealed = id == chain() && place.is_multiple_of(7) && index < LEN;
            Row {
                entry: entry.expect("within the way").clone(),
                seal: is_sealed.then(|| self.ways[0].seal(index + 1)),
            }
        });
        rows.collect()
    }

    fn trace(&mut self, feed: &mut Feed<'_>) {
        let way = feed.below(2);
        let stretch = self.ways[way].stretch(1 + feed.below(LEN), 1 + feed.below(64));
        let stretch = feed.flag().then_some(stretch);
        let TraceStep::Read { first, last } = self.traces.handle_stretch(chain(), stretch) else {
            return;
        };
        let rows = self.rows(chain(), first, last);
        let headers = rows.into_iter().map(|row| (row.entry.outline, row.seal));
        let previous = usize::try_from(first.number() - 1).expect("a small number");
        let own = OwnStretch {
            previous: self.ways[feed.below(2)].hash(previous),
            headers: headers.collect(),
        };
        if let TraceStep::Found(proof) = self.traces.handle_own(CONVERSATION, chain(), &own) {
            assert!(proof.one.first == proof.other.first);
            let _ = proof.verify();
        }
    }

    fn revoke(&mut self, feed: &mut Feed<'_>) {
        self.accounts.revoked = feed.flag();
        self.replica.refresh(&self.accounts);
    }

    // ---- what must hold ------------------------------------------------------------------------

    fn check(&self) {
        for to in [None, Some(key(1)), Some(key(2))] {
            for (id, extent) in &self.replica.vector(to.as_ref()).0 {
                self.check_extent(id, extent, to);
            }
        }
        assert!(self.replica.chains().count() <= 257);
        assert!(self.traces.len() <= 2);
    }

    fn check_extent(&self, id: &ChainId, extent: &Extent, to: Option<DeviceKey>) {
        assert!(extent.is_sound(), "{extent:?}");
        let is_author = to == Some(id.device);
        assert!(is_author || extent.sealed == extent.last);
        if extent.last >= extent.base {
            let last = EntryId {
                chain: *id,
                sequence: extent.last,
            };
            let held = self.disk.get(&last);
            assert_eq!(held, Some(&extent.hash), "not on disk");
            assert_ne!(self.replica.state(last), EntryState::Disputed);
        }
        if *id == chain() && !is_author {
            assert!(self.signed.contains(&extent.hash), "what nobody has signed");
        }
    }
}

/// Changes, adds or drops something of a page, as whoever gives it on might.
fn tamper(page: &mut Page, feed: &mut Feed<'_>) {
    let index = feed.below(64) % page.entries.len();
    match feed.below(8) {
        0 => page.conversation = ConversationId::from_bytes(feed.array()),
        1 => page.chain.run = RunId::from_bytes([feed.byte() | 0x80; 16]),
        2 => page.chain.device = key(3),
        3 => page.first = page.first.plus(1 + feed.below(100)),
        4 => page.previous = HeaderHash::from_bytes([feed.byte() | 1; 32]),
        5 => page.entries[index].outline.kind = Kind(feed.byte()),
        6 => page.entries[index].body = Some(feed.piece().to_vec()),
        _ => page.entries[index].outline.clock = Clock::from_bits(u64::from(feed.number())),
    }
}

#[test]
fn the_first_inputs_reach_a_fork_a_cut_and_a_page_given() {
    let seeds = super::seeds::of("log");
    let mut reached = [false; 3];
    for seed in &seeds {
        let mut feed = Feed(seed);
        if feed.flag() {
            Lab::run(&mut feed, |lab| {
                reached[0] |= lab.replica.fork(&chain()).is_some();
                let id = EntryId {
                    chain: chain(),
                    sequence: at(LEN),
                };
                reached[1] |= lab.replica.state(id) == EntryState::Cut;
                reached[2] |= !lab.flight.is_empty();
            });
        }
    }
    assert_eq!(reached, [true; 3]);
}
