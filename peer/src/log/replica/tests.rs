use std::time::{Duration, Instant};

use super::*;
use crate::log::*;
use common::key::DeviceSecret;
use common::limits::CLOCK_AHEAD_MAX;
use common::log::{Body, BodyHash, Clock, Dating, ForkProof, Kind, Outline, Stretch, chained};

const CONVERSATION: ConversationId = ConversationId::from_bytes([0xc0; 32]);
const WALL: UnixTime = UnixTime::from_millis(1_795_000_000_000);

/// All devices are approved but those of this list; the device with the seed 1 may cut all others.
struct Everybody(Vec<DeviceKey>);

impl Standing for Everybody {
    fn is_approved(&self, device: &DeviceKey) -> bool {
        !self.0.contains(device)
    }

    fn rank(&self, signer: &DeviceKey, target: &DeviceKey) -> Option<Rank> {
        (*signer == key(1) && signer != target).then_some(Rank(0))
    }
}

const ALL: Everybody = Everybody(Vec::new());

fn secret(seed: u8) -> DeviceSecret {
    DeviceSecret::from_seed([seed; 32])
}

fn key(seed: u8) -> DeviceKey {
    secret(seed).public()
}

fn at(number: u64) -> Sequence {
    Sequence::new(number).unwrap()
}

#[expect(clippy::disallowed_methods, reason = "any instant will do as a start")]
fn now() -> Instant {
    Instant::now()
}

/// Somebody who writes a chain elsewhere.
#[derive(Clone)]
struct Author {
    seed: u8,
    chain: ChainId,
    entries: Vec<Entry>,
}

impl Author {
    fn new(seed: u8) -> Self {
        Self {
            seed,
            chain: ChainId {
                device: key(seed),
                run: RunId::from_bytes([seed; 16]),
            },
            entries: Vec::new(),
        }
    }

    /// One with so many texts, each a millisecond after the one before.
    fn with(seed: u8, texts: usize) -> Self {
        let mut author = Self::new(seed);
        for n in 0..texts {
            author.write(Kind::TEXT, format!("text {n}").as_bytes());
        }
        author
    }

    fn write(&mut self, kind: Kind, body: &[u8]) {
        let span = Duration::from_millis(self.entries.len() as u64);
        self.write_at(Clock::at(WALL.saturating_add(span)), kind, body);
    }

    fn write_at(&mut self, clock: Clock, kind: Kind, body: &[u8]) {
        self.entries.push(Entry {
            outline: Outline::new(clock, kind, body).unwrap(),
            body: Some(body.to_vec()),
        });
    }

    fn hash(&self, place: usize) -> HeaderHash {
        let outlines = self.entries[..place].iter().map(|entry| &entry.outline);
        let first = Sequence::FIRST;
        let hashes = chained(CONVERSATION, self.chain, first, HeaderHash::NONE, outlines);
        hashes.last().copied().unwrap_or(HeaderHash::NONE)
    }

    fn seal(&self, place: usize) -> Seal {
        Seal::sign_hash(&secret(self.seed), at(place as u64), &self.hash(place))
    }

    fn page(&self, first: usize, last: usize) -> Page {
        Page {
            conversation: CONVERSATION,
            chain: self.chain,
            first: at(first as u64),
            previous: self.hash(first - 1),
            entries: self.entries[first - 1..last].to_vec(),
            seal: None,
        }
    }

    fn sealed(&self, first: usize, last: usize) -> Page {
        Page {
            seal: Some(self.seal(last)),
            ..self.page(first, last)
        }
    }

    fn stretch(&self, first: usize, last: usize) -> Stretch {
        let entries = self.entries[first - 1..last].iter();
        Stretch {
            first: at(first as u64),
            previous: self.hash(first - 1),
            outlines: entries.map(|entry| entry.outline).collect(),
            seal: self.seal(last),
        }
    }

    fn id(&self, place: u64) -> EntryId {
        EntryId {
            chain: self.chain,
            sequence: at(place),
        }
    }
}

fn replica() -> Replica {
    Replica::new(CONVERSATION, key(9))
}

fn take_from(replica: &mut Replica, page: Page, source: Source) -> Result<Admission, Refusal> {
    let checked = replica.examine(page, source, &ALL)?.check()?;
    replica.admit(checked, WALL, &ALL)
}

/// Takes a page that somebody else than its author gives, and writes it.
fn take(replica: &mut Replica, page: Page) -> Result<Admission, Refusal> {
    let admission = take_from(replica, page, Source::Device(key(200)))?;
    replica.committed(&admission.receipt);
    Ok(admission)
}

fn last(replica: &Replica, author: &Author) -> u64 {
    replica.extent(&author.chain, None).last.number()
}

#[test]
fn nothing_is_said_to_be_here_before_the_disk_has_it() {
    let (mut replica, author) = (replica(), Author::with(2, 3));
    let page = author.sealed(1, 3);
    let admission = take_from(&mut replica, page, Source::Unproved).unwrap();
    assert_eq!(admission.entries.len(), 3);
    assert_eq!(
        replica.vector(Some(&author.chain.device)),
        Vector::default()
    );
    replica.committed(&admission.receipt);
    assert_eq!(last(&replica, &author), 3);
    assert_eq!(replica.extent(&author.chain, None).hash, author.hash(3));
}

#[test]
fn nothing_of_ones_own_is_said_to_be_here_before_the_disk_has_it() {
    let mut replica = replica();
    replica.begin(OwnRun::begin(key(9), RunId::from_bytes([1; 16])));
    let start = now();
    let written = append(&mut replica).unwrap();
    let job = replica.poll_seal(start + Duration::from_secs(1)).unwrap();
    let seal = Seal::sign_hash(&secret(9), job.sequence, &job.hash);
    let sealed = replica.handle_seal(&job, seal, &ALL).unwrap();
    let own = key(9);
    for to in [None, Some(&own)] {
        assert_eq!(replica.vector(to), Vector::default());
    }
    replica.committed(&written.receipt);
    assert_eq!(replica.vector(None), Vector::default());
    assert_eq!(replica.extent(&written.chain, Some(&own)).last, at(1));
    replica.committed(&sealed.receipt);
    assert_eq!(replica.extent(&written.chain, None).last, at(1));
}

#[test]
fn what_is_not_sealed_is_taken_from_its_author_and_told_to_nobody_else() {
    let (mut replica, author) = (replica(), Author::with(2, 3));
    let device = author.chain.device;
    for source in [Source::Unproved, Source::Device(key(3))] {
        let refused = take_from(&mut replica, author.page(1, 2), source);
        assert_eq!(refused.unwrap_err(), Refusal::Unsealed);
    }
    let source = Source::Device(device);
    let admission = take_from(&mut replica, author.page(1, 2), source).unwrap();
    replica.committed(&admission.receipt);
    assert_eq!(replica.state(author.id(2)), EntryState::Unconfirmed);
    assert_eq!(replica.vector(None), Vector::default());
    let told = replica.extent(&author.chain, Some(&device));
    assert_eq!((told.sealed, told.last), (Sequence::START, at(2)));

    let examined = replica.examine_seal(author.chain, author.seal(2)).unwrap();
    let admission = replica
        .admit(examined.check().unwrap(), WALL, &ALL)
        .unwrap();
    assert_eq!(replica.vector(None), Vector::default());
    replica.committed(&admission.receipt);
    assert_eq!(last(&replica, &author), 2);
    assert_eq!(replica.state(author.id(2)), EntryState::Confirmed);
}

#[test]
fn what_a_seal_in_a_page_does_not_cover_is_left_out() {
    let (mut replica, author) = (replica(), Author::with(2, 5));
    let mut page = author.page(1, 5);
    page.seal = Some(author.seal(3));
    assert_eq!(take(&mut replica, page).unwrap().entries.len(), 3);
    for place in [3, 5] {
        let mut page = author.page(4, 4);
        page.seal = Some(author.seal(place));
        assert_eq!(take(&mut replica, page), Err(Refusal::BadSeal), "{place}");
    }
}

#[test]
fn t42_what_is_not_as_its_author_wrote_it_is_refused() {
    let author = Author::with(2, 3);
    let refusal = |change: fn(&mut Page)| {
        let mut page = author.sealed(1, 3);
        change(&mut page);
        take(&mut replica(), page).unwrap_err()
    };
    let conversation = |page: &mut Page| page.conversation = ConversationId::from_bytes([1; 32]);
    assert_eq!(refusal(conversation), Refusal::OtherConversation);
    let text = |page: &mut Page| page.entries[1].body = Some(b"forged".to_vec());
    assert_eq!(refusal(text), Refusal::OtherBody);
    let forged: [fn(&mut Page); 6] = [
        |page| page.chain.device = key(3),
        |page| page.chain.run = RunId::from_bytes([3; 16]),
        |page| page.entries[1].outline.kind = Kind::EDIT,
        |page| page.entries.swap(0, 1),
        |page| page.seal = Some(Seal::sign_hash(&secret(3), at(3), &HeaderHash::NONE)),
        |page| {
            page.entries[0].outline.body_hash = BodyHash::of(b"");
            page.entries[0].body = None;
        },
    ];
    for change in forged {
        assert_eq!(refusal(change), Refusal::BadSeal);
    }
    let shapes: [fn(&mut Page); 5] = [
        |page| page.entries.clear(),
        |page| page.first = Sequence::START,
        |page| page.first = at(2),
        |page| page.previous = HeaderHash::from_bytes([1; 32]),
        |page| page.entries = vec![page.entries[0].clone(); 65],
    ];
    for change in shapes {
        assert_eq!(refusal(change), Refusal::Malformed);
    }
    assert!(Refusal::Malformed.is_violation() && Refusal::BadSeal.is_violation());
}

#[test]
fn a_run_whose_clocks_do_not_increase_is_not_taken() {
    let mut author = Author::with(2, 2);
    author.write_at(Clock::at(WALL), Kind::TEXT, b"earlier");
    let mut all_at_once = replica();
    let backwards = Err(Refusal::ClockBackwards);
    assert_eq!(take(&mut all_at_once, author.sealed(1, 3)), backwards);
    assert_eq!(all_at_once.chains().count(), 0);
    let mut one_by_one = replica();
    take(&mut one_by_one, author.sealed(1, 2)).unwrap();
    assert_eq!(take(&mut one_by_one, author.sealed(3, 3)), backwards);
}

#[test]
fn t44_an_entry_of_the_year_9999_neither_stays_at_the_end_nor_draws_the_clock_away() {
    let (mut replica, mut author) = (replica(), Author::new(2));
    let year_9999 = UnixTime::from_millis(253_370_764_800_000);
    author.write_at(Clock::at(year_9999), Kind::TEXT, b"from the future");
    let admission = take(&mut replica, author.sealed(1, 1)).unwrap();
    let stored = &admission.entries[0];
    assert_eq!(stored.placed.dating, Dating::Ahead);
    assert_eq!(stored.placed.at, Clock::at(WALL));
    assert_eq!(
        stored.entry.outline.clock,
        Clock::at(year_9999),
        "it is kept"
    );
    replica.begin(OwnRun::begin(key(9), RunId::from_bytes([1; 16])));
    let later = WALL.saturating_add(CLOCK_AHEAD_MAX);
    let own = replica.append(Kind::TEXT, b"now".to_vec(), later, now(), &ALL);
    assert_eq!(
        own.unwrap().entries[0].entry.outline.clock,
        Clock::at(later)
    );
}

#[test]
fn t41_a_sealed_entry_replaces_one_without_a_seal() {
    let mut replica = replica();
    let mut author = Author::with(2, 1);
    let mut other = author.clone();
    author.write(Kind::CUT, &Author::new(3).id(5).to_bytes());
    other.write(Kind::TEXT, b"instead");
    let source = Source::Device(author.chain.device);
    take_from(&mut replica, author.page(1, 2), source).unwrap();
    let admission = take(&mut replica, other.sealed(1, 2)).unwrap();
    assert_eq!(
        (admission.remove, admission.entries.len()),
        (Some(at(2)), 1)
    );
    assert_eq!(replica.extent(&author.chain, None).hash, other.hash(2));
    // And not the other way round.
    let refused = take_from(&mut replica, author.page(2, 2), source);
    assert_eq!(refused, Err(Refusal::Contradicts));
}

/// Two ways in which a device goes on after two entries, and the proof of that.
fn forked() -> (Author, Author, ForkProof) {
    let mut one = Author::with(2, 2);
    let mut other = one.clone();
    one.write(Kind::TEXT, b"yes");
    one.write(Kind::TEXT, b"indeed");
    other.write(Kind::TEXT, b"no");
    let proof = ForkProof {
        conversation: CONVERSATION,
        chain: one.chain,
        one: one.stretch(3, 4),
        other: other.stretch(3, 3),
    };
    (one, other, proof)
}

#[test]
fn t41_a_fork_is_noticed_and_voids_the_run_for_everybody_alike() {
    let (one, other, proof) = forked();
    let fork = proof.verify().unwrap();
    let [mut yes, mut no, mut neither] = [replica(), replica(), replica()];
    take(&mut yes, one.sealed(1, 4)).unwrap();
    take(&mut no, other.sealed(1, 3)).unwrap();
    take(&mut neither, one.sealed(1, 1)).unwrap();
    let diverged = Err(Refusal::Diverged { at: at(3) });
    assert_eq!(take(&mut no, one.sealed(4, 4)), diverged);
    let theirs = yes.extent(&one.chain, None);
    assert_eq!(no.differs_at(&one.chain, &theirs), None, "yes has more");
    let mut as_far = replica();
    take(&mut as_far, one.sealed(1, 3)).unwrap();
    let theirs = as_far.extent(&one.chain, None);
    assert_eq!(no.differs_at(&one.chain, &theirs), Some(at(3)));
    for replica in [&mut yes, &mut no, &mut neither] {
        let admission = replica.admit_fork(&fork, &ALL).unwrap();
        replica.committed(&admission.receipt);
        assert_eq!(replica.admit_fork(&fork, &ALL), Err(Refusal::Known));
        assert_eq!(replica.state(one.id(3)), EntryState::Disputed);
        let void = Err(Refusal::Void);
        assert_eq!(take(replica, one.sealed(3, 4)), void);
    }
    for (replica, way) in [(&mut yes, &one), (&mut no, &other)] {
        assert_eq!(replica.poll_look_up(), Some(one.id(2)));
        replica.handle_hash(one.id(2), way.hash(2));
    }
    // The second entry has no seal of its own: what follows it, and is proved, covers it.
    assert_eq!(
        take(&mut neither, other.page(2, 2)).unwrap().entries.len(),
        1
    );
    assert_eq!(yes.digest(), no.digest());
    assert_eq!(yes.digest(), neither.digest());
    assert_eq!(last(&yes, &one), 2);
}

#[test]
fn t41_who_has_a_third_way_does_not_pass_for_one_who_has_what_counts() {
    let (one, _, proof) = forked();
    let mut third = Author::with(2, 1);
    for text in ["third", "way", "here"] {
        third.write(Kind::TEXT, text.as_bytes());
    }
    let fork = proof.verify().unwrap();
    let [mut with_one, mut with_third] = [replica(), replica()];
    for (replica, way) in [(&mut with_one, &one), (&mut with_third, &third)] {
        take(replica, way.sealed(1, 4)).unwrap();
        let admission = replica.admit_fork(&fork, &ALL).unwrap();
        replica.committed(&admission.receipt);
        let asked = replica.poll_look_up().unwrap();
        replica.handle_hash(asked, way.hash(2));
    }
    let theirs = with_third.extent(&one.chain, None);
    assert_eq!(with_one.differs_at(&one.chain, &theirs), Some(at(2)));
}

#[test]
fn t41_an_earlier_fork_of_the_same_run_counts_more() {
    let (one, _, proof) = forked();
    let mut earlier = Author::with(2, 1);
    earlier.write(Kind::TEXT, b"never");
    let sooner = ForkProof {
        one: one.stretch(2, 4),
        other: earlier.stretch(2, 2),
        ..proof.clone()
    };
    let mut replica = replica();
    for proof in [&proof, &sooner] {
        let fork = proof.verify().unwrap();
        replica.admit_fork(&fork, &ALL).unwrap();
    }
    assert_eq!(replica.fork(&one.chain), Some(at(2)));
    let later = proof.verify().unwrap();
    assert_eq!(replica.admit_fork(&later, &ALL), Err(Refusal::Known));
}

/// A replica of the device 2, which goes on with what the author has written.
fn own(author: &Author, run: OwnRun) -> Replica {
    let mut replica = Replica::new(CONVERSATION, key(2));
    take(&mut replica, author.sealed(1, author.entries.len())).unwrap();
    replica.begin(run);
    replica
}

fn append(replica: &mut Replica) -> Result<Admission, AppendError> {
    let wall = WALL.saturating_add(Duration::from_secs(1));
    replica.append(Kind::TEXT, b"mine".to_vec(), wall, now(), &ALL)
}

#[test]
fn t45_a_run_that_others_have_otherwise_ends_before_anything_forks() {
    let author = Author::with(2, 3);
    let resumed = OwnRun::resume(key(2), author.chain.run);
    let mut replica = own(&author, resumed);
    append(&mut replica).unwrap();
    let longer = Extent {
        sealed: at(5),
        last: at(5),
        hash: HeaderHash::from_bytes([1; 32]),
        ..Extent::NOTHING
    };
    // It is only said: nothing but the run ends, and what was not sealed is written again.
    let admission = replica.note_claim(&author.chain, &longer).unwrap();
    assert_eq!(admission.remove, Some(at(4)));
    assert_eq!(admission.rewrite.unwrap().from, at(4));
    let ended = AppendError::NewRun(NewRun::ShownLonger);
    assert_eq!(append(&mut replica), Err(ended));
    assert!(replica.poll_seal(now() + Duration::from_secs(9)).is_none());
    // A run that began since nobody can know better.
    replica.begin(OwnRun::begin(key(2), RunId::from_bytes([77; 16])));
    let admission = append(&mut replica).unwrap();
    assert_eq!(replica.note_claim(&admission.chain, &longer), None);
    append(&mut replica).unwrap();
}

#[test]
fn t45_a_run_that_is_shown_to_go_on_elsewhere_ends_and_what_it_lost_is_written_again() {
    let author = Author::with(2, 3);
    let mut elsewhere = author.clone();
    elsewhere.write(Kind::TEXT, b"from a copy");
    let mut replica = own(&author, OwnRun::begin(key(2), author.chain.run));
    append(&mut replica).unwrap();
    let admission = take(&mut replica, elsewhere.sealed(4, 4)).unwrap();
    let rewrite = admission.rewrite.unwrap();
    assert_eq!((rewrite.from, rewrite.until), (at(4), None));
    assert_eq!(admission.remove, Some(at(4)));
    let ended = AppendError::NewRun(NewRun::ShownLonger);
    assert_eq!(append(&mut replica), Err(ended));
}

#[test]
fn t45_a_fork_of_ones_own_run_ends_it() {
    let (one, _, proof) = forked();
    let mut replica = own(&one, OwnRun::resume(key(2), one.chain.run));
    let fork = proof.verify().unwrap();
    let admission = replica.admit_fork(&fork, &ALL).unwrap();
    let rewrite = admission.rewrite.unwrap();
    assert_eq!((rewrite.from, rewrite.until), (at(3), None));
    let ended = AppendError::NewRun(NewRun::Forked);
    assert_eq!(append(&mut replica), Err(ended));
}

#[test]
fn t47_a_device_that_is_not_approved_counts_for_nothing() {
    let (mut replica, author) = (replica(), Author::with(2, 3));
    take(&mut replica, author.sealed(1, 2)).unwrap();
    let revoked = Everybody(vec![author.chain.device]);
    let (_, _, proof) = forked();
    let fork = proof.verify().unwrap();
    let mut stranger = self::replica();
    let refused = stranger.admit_fork(&fork, &revoked);
    assert_eq!(refused.unwrap_err(), Refusal::NotApproved);
    let source = Source::Device(author.chain.device);
    let refused = stranger.examine(author.sealed(1, 3), source, &revoked);
    assert_eq!(refused.unwrap_err(), Refusal::NotApproved);

    replica.refresh(&revoked);
    assert_eq!(replica.state(author.id(1)), EntryState::Cut);
    assert_eq!(replica.vector(None), Vector::default());
    let refused = replica.examine(author.sealed(3, 3), source, &revoked);
    assert_eq!(refused.unwrap_err(), Refusal::Void);
    replica.refresh(&ALL);
    assert_eq!(last(&replica, &author), 2);
}

#[test]
fn t47_a_cut_ends_a_chain_and_is_asked_for_its_hash() {
    let (mut replica, author) = (replica(), Author::with(2, 5));
    take(&mut replica, author.sealed(1, 4)).unwrap();
    let mut senior = Author::new(1);
    senior.write(Kind::CUT, &Body::Cut(author.id(3)).to_bytes());
    take(&mut replica, senior.sealed(1, 1)).unwrap();
    assert_eq!(replica.state(author.id(3)), EntryState::Confirmed);
    assert_eq!(replica.state(author.id(4)), EntryState::Cut);
    assert_eq!(take(&mut replica, author.sealed(5, 5)), Err(Refusal::Void));
    assert_eq!(replica.poll_look_up(), Some(author.id(3)));
    replica.handle_hash(author.id(3), author.hash(3));
    assert_eq!(last(&replica, &author), 3);

    // Who hears of the cut first comes to the same, though the seal that covers the rest is further on.
    let mut other = self::replica();
    take(&mut other, senior.sealed(1, 1)).unwrap();
    take(&mut other, author.sealed(1, 5)).unwrap();
    let asked = other.poll_look_up().unwrap();
    other.handle_hash(asked, author.hash(3));
    assert_eq!(other.digest(), replica.digest());
}

#[test]
fn t47_what_was_refused_is_asked_for_again_once_it_may_be_taken() {
    let (mut replica, author) = (replica(), Author::with(2, 3));
    let revoked = Everybody(vec![author.chain.device]);
    replica.refresh(&revoked);
    assert!(replica.poll_restate());
    let mut senior = Author::new(1);
    senior.write(Kind::TEXT, b"he is gone");
    senior.write(Kind::CUT, &Body::Cut(author.id(2)).to_bytes());
    let mut take = |page: Page| {
        let examined = replica.examine(page, Source::Unproved, &revoked)?;
        replica.admit(examined.check()?, WALL, &revoked)
    };
    assert_eq!(take(author.sealed(1, 3)), Err(Refusal::NotApproved));
    take(senior.sealed(1, 1)).unwrap();
    take(senior.sealed(2, 2)).unwrap();
    take(author.sealed(1, 3)).unwrap();
    assert!(replica.poll_restate());
    assert!(!replica.poll_restate());
    assert_eq!(replica.state(author.id(2)), EntryState::Confirmed);
    assert_eq!(replica.state(author.id(3)), EntryState::Cut);
}

#[test]
fn what_is_said_of_a_chain_that_forks_and_is_cut_ends_where_both_allow_it() {
    let (one, _, proof) = forked();
    let mut replica = replica();
    take(&mut replica, one.sealed(1, 4)).unwrap();
    let fork = proof.verify().unwrap();
    let admission = replica.admit_fork(&fork, &ALL).unwrap();
    replica.committed(&admission.receipt);
    let mut senior = Author::new(1);
    senior.write(Kind::CUT, &Body::Cut(one.id(1)).to_bytes());
    take(&mut replica, senior.sealed(1, 1)).unwrap();
    assert_eq!(last(&replica, &one), 4, "the hash is not known yet");
    assert!(replica.extent(&one.chain, None).is_sound());
    assert_eq!(replica.poll_look_up(), Some(one.id(1)));
    assert!(replica.extent(&one.chain, None).is_sound());
    replica.handle_hash(one.id(1), one.hash(1));
    assert_eq!(last(&replica, &one), 1);
}

#[test]
fn t44_a_run_ends_when_ones_own_clock_is_set_back_and_what_it_has_is_sealed() {
    let mut replica = replica();
    replica.begin(OwnRun::begin(key(9), RunId::from_bytes([1; 16])));
    let start = now();
    let ahead = WALL.saturating_add(CLOCK_AHEAD_MAX * 2);
    for _ in 0..2 {
        let written = replica.append(Kind::TEXT, b"x".to_vec(), ahead, start, &ALL);
        let chain = written.unwrap().chain;
        assert_eq!(chain.run, RunId::from_bytes([1; 16]));
    }
    let ended = AppendError::NewRun(NewRun::ClockAhead);
    let written = replica.append(Kind::TEXT, b"x".to_vec(), WALL, start, &ALL);
    assert_eq!(written.unwrap_err(), ended);
    let job = replica.poll_seal(start).unwrap();
    assert_eq!(job.sequence, at(2));
    replica.begin(OwnRun::begin(key(9), RunId::from_bytes([2; 16])));
    let written = replica
        .append(Kind::TEXT, b"x".to_vec(), WALL, start, &ALL)
        .unwrap();
    let clock = written.entries[0].entry.outline.clock;
    assert_eq!(clock, Clock::at(WALL));
}

#[test]
fn what_was_written_without_a_seal_before_a_crash_is_sealed_after_it() {
    let author = Author::with(9, 100);
    let unsealed = author.page(1, 100);
    let hashes = unsealed.hashes();
    let unsealed = unsealed.entries.iter().zip(hashes).zip(1..);
    let unsealed = unsealed.map(|((entry, hash), place)| Unsealed {
        tip: Tip {
            sequence: at(place),
            hash,
            clock: entry.outline.clock,
            placed: entry.outline.clock,
        },
        cost: entry.cost(),
    });
    let stored = StoredChain {
        base: Sequence::FIRST,
        before: HeaderHash::NONE,
        base_placed: Clock::at(WALL),
        sealed: Tip::START,
        seal: None,
        unsealed: unsealed.collect(),
    };
    let mut replica = replica();
    replica.restore(author.chain, stored, WALL);
    replica.seal_remains();
    let start = now();
    for place in [64, 100] {
        let job = replica.poll_seal(start).unwrap();
        assert_eq!(
            (job.sequence, job.hash),
            (at(place), author.hash(place as usize))
        );
        let seal = Seal::sign_hash(&secret(9), job.sequence, &job.hash);
        assert!(replica.handle_seal(&job, seal, &ALL).is_some());
        assert!(replica.handle_seal(&job, seal, &ALL).is_none());
    }
    assert_eq!(replica.poll_seal(start), None);
}

#[test]
fn who_may_not_cut_cuts_nothing() {
    let (mut replica, author) = (replica(), Author::with(2, 4));
    take(&mut replica, author.sealed(1, 4)).unwrap();
    let mut stranger = Author::new(3);
    stranger.write(Kind::CUT, &Body::Cut(author.id(1)).to_bytes());
    take(&mut replica, stranger.sealed(1, 1)).unwrap();
    assert_eq!(replica.state(author.id(4)), EntryState::Confirmed);
}

#[test]
fn what_nobody_has_is_given_up_and_taken_if_somebody_has_it_after_all() {
    let (mut replica, author) = (replica(), Author::with(2, 9));
    assert_eq!(
        take(&mut replica, author.sealed(6, 9)),
        Err(Refusal::NotNext)
    );
    replica.give_up(author.chain, at(6));
    take(&mut replica, author.sealed(6, 9)).unwrap();
    let extent = replica.extent(&author.chain, None);
    assert_eq!((extent.base, extent.last), (at(6), at(9)));
    let mut forged = author.page(3, 5);
    forged.entries[2].outline.kind = Kind::EDIT;
    assert_eq!(take(&mut replica, forged), Err(Refusal::Contradicts));
    let admission = take(&mut replica, author.page(3, 5)).unwrap();
    let places = admission.entries.iter().map(|stored| stored.sequence);
    assert!(places.eq([3, 4, 5].map(at)));
    take(&mut replica, author.page(1, 2)).unwrap();
    assert_eq!(replica.extent(&author.chain, None).base, Sequence::FIRST);
}

#[test]
fn a_device_has_a_bounded_number_of_runs_and_a_conversation_of_chains() {
    let fill = |replica: &mut Replica, device: u8, runs: usize| {
        for run in 0..runs as u128 {
            let chain = ChainId {
                device: key(device),
                run: RunId::from_bytes(run.to_be_bytes()),
            };
            let stored = StoredChain {
                base: Sequence::FIRST,
                before: HeaderHash::NONE,
                base_placed: Clock::default(),
                sealed: Tip::START,
                seal: None,
                unsealed: Vec::new(),
            };
            replica.restore(chain, stored, WALL);
        }
    };
    let author = Author::with(2, 1);
    let page = || author.sealed(1, 1);
    let mut replica = replica();
    fill(&mut replica, 2, RUNS_PER_DEVICE_MAX);
    assert_eq!(take(&mut replica, page()), Err(Refusal::Full));
    let mut replica = self::replica();
    fill(&mut replica, 2, RUNS_PER_DEVICE_MAX - 1);
    assert!(take(&mut replica, page()).is_ok());
    for device in 3..=6 {
        fill(&mut replica, device, RUNS_PER_DEVICE_MAX);
    }
    let more = Author::with(7, 1);
    assert_eq!(take(&mut replica, more.sealed(1, 1)), Err(Refusal::Full));
}

#[test]
fn an_author_seals_before_others_have_to_refuse() {
    let mut replica = Replica::new(CONVERSATION, key(2));
    let chain = ChainId {
        device: key(2),
        run: RunId::from_bytes([2; 16]),
    };
    replica.begin(OwnRun::begin(key(2), chain.run));
    let start = now();
    let text = vec![b'x'; common::limits::MESSAGE_LEN_MAX - 1];
    let mut reader = self::replica();
    let mut jobs = Vec::new();
    for n in 0..200 {
        let body = if n % 70 == 3 {
            text.clone()
        } else {
            b"x".to_vec()
        };
        let admission = replica.append(Kind::TEXT, body, WALL, start, &ALL).unwrap();
        let stored = &admission.entries[0];
        let page = Page {
            conversation: CONVERSATION,
            chain,
            first: stored.sequence,
            previous: reader.tip(&chain).map_or(HeaderHash::NONE, |tip| tip.hash),
            entries: vec![stored.entry.clone()],
            seal: None,
        };
        take_from(&mut reader, page, Source::Device(key(2))).unwrap();
        while let Some(job) = replica.poll_seal(start) {
            jobs.push(job.sequence.number());
            let seal = Seal::sign_hash(&secret(2), job.sequence, &job.hash);
            let examined = reader.examine_seal(chain, seal).unwrap();
            reader.admit(examined.check().unwrap(), WALL, &ALL).unwrap();
            replica.handle_seal(&job, seal, &ALL).unwrap();
        }
    }
    let gaps = jobs.windows(2).map(|pair| pair[1] - pair[0]);
    assert_eq!(gaps.max(), Some(64));
    assert!(jobs.len() < 10, "{jobs:?}");
    // Without a signer it ends.
    let mut unsigned = 0;
    while append(&mut replica).is_ok() {
        unsigned += 1;
    }
    assert!(unsigned <= 128);
    assert_eq!(append(&mut replica), Err(AppendError::Unsealed));
}

#[test]
fn a_chain_of_a_hundred_thousand_entries_takes_no_more_room_than_one_of_ten() {
    let size = |entries: u64| {
        let tip = Tip {
            sequence: at(entries),
            ..Tip::START
        };
        let stored = StoredChain {
            base: Sequence::FIRST,
            before: HeaderHash::NONE,
            base_placed: Clock::default(),
            sealed: tip,
            seal: None,
            unsealed: Vec::new(),
        };
        let mut replica = replica();
        replica.restore(Author::new(2).chain, stored, WALL);
        format!("{replica:?}").len()
    };
    assert!(size(100_000) < size(10) + 30);
}
