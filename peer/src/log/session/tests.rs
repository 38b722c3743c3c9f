use std::time::Duration;

use super::*;
use crate::log::{Entry, Page, PageRequest, Refusal, Row, StoredChain, Tip};
use common::id::SessionId;
use common::key::DeviceSecret;
use common::limits::{
    CATCHING_UP_LEN_MAX, GIVE_AFTER, LOOSE_CHECKS_MAX, MARKS_INTERVAL, PAGE_ENTRIES_MAX,
    PAGES_IN_FLIGHT_LEN_MAX, PAGES_IN_FLIGHT_OF_ALL_LEN_MAX, SESSIONS_PER_LINK_MAX,
    STRETCH_READS_MAX,
};
use common::log::{Buckets, Clock, Extent, HeaderHash, Kind, Outline, RunId, Seal, Vector};
use common::time::UnixTime;
use common::wire::peer::{ConversationNumber, Entries, List, LogEntry, NumberedChain};

const OWN: u8 = 8;
const AUTHOR: u8 = 7;

fn id(n: u8) -> ConversationId {
    ConversationId::from_bytes([n; 32])
}

fn chain(device: u8, run: u8) -> ChainId {
    ChainId {
        device: DeviceSecret::from_seed([device; 32]).public(),
        run: RunId::from_bytes([run; 16]),
    }
}

fn at(number: u64) -> Sequence {
    Sequence::new(number).unwrap()
}

fn extent(last: u64) -> Extent {
    Extent {
        sealed: at(last),
        last: at(last),
        hash: HeaderHash::from_bytes([1; 32]),
        ..Extent::NOTHING
    }
}

fn restore(replica: &mut Replica, chain: ChainId, last: u64) {
    let sealed = Tip {
        sequence: at(last),
        hash: HeaderHash::from_bytes([1; 32]),
        ..Tip::START
    };
    let stored = StoredChain {
        base: Sequence::FIRST,
        before: HeaderHash::NONE,
        base_placed: Clock::default(),
        sealed,
        seal: None,
        unsealed: Vec::new(),
    };
    replica.restore(chain, stored, UnixTime::default());
}

#[derive(Default)]
struct Conversations(BTreeMap<ConversationId, Replica>);

impl Shared for Conversations {
    fn replica(&self, conversation: &ConversationId) -> Option<&Replica> {
        self.0.get(conversation)
    }

    fn digests(&self) -> BTreeMap<ConversationId, Digest> {
        let replicas = self.0.iter();
        replicas.map(|(id, it)| (*id, it.digest())).collect()
    }
}

/// One end of a link, whose other end says what the test likes.
struct Lab {
    shared: Conversations,
    session: Session,
    budget: Budget,
    now: Instant,
}

impl Lab {
    /// Conversations with one chain each, of the author, up to these places.
    #[expect(clippy::disallowed_methods, reason = "any instant will do as a start")]
    fn new(conversations: &[(u8, u64)]) -> Self {
        let mut shared = Conversations::default();
        for (n, last) in conversations {
            let device = DeviceSecret::from_seed([OWN; 32]).public();
            let mut replica = Replica::new(id(*n), device);
            restore(&mut replica, chain(AUTHOR, 1), *last);
            shared.0.insert(id(*n), replica);
        }
        let peer = DeviceSecret::from_seed([9; 32]).public();
        let session = Session::open(peer, None, DatabaseInstance([0; 32]), &shared);
        Self {
            shared,
            session,
            budget: Budget::new(),
            now: Instant::now(),
        }
    }

    fn with<T>(
        &mut self,
        call: impl FnOnce(&mut Session, &mut Context<'_, Conversations>) -> T,
    ) -> T {
        let mut cx = Context {
            shared: &self.shared,
            budget: &mut self.budget,
            now: self.now,
        };
        call(&mut self.session, &mut cx)
    }

    fn hear(&mut self, frame: LogFrame) -> Result<(), Violation> {
        self.with(|session, cx| session.handle_frame(frame, cx))
    }

    /// All that is said; each page that is asked for is full of sealed entries with bodies of this length.
    fn said(&mut self, body_len: usize) -> Vec<LogFrame> {
        let mut said = Vec::new();
        loop {
            let frame = self.with(|session, cx| session.poll_frame(cx));
            let reads = self.reads();
            for request in &reads {
                let page = Some(page(request, body_len));
                self.with(|session, cx| session.handle_page(request, page, cx));
            }
            if frame.is_none() && reads.is_empty() {
                return said;
            }
            said.extend(frame);
        }
    }

    fn reads(&mut self) -> Vec<PageRequest> {
        let tasks = std::iter::from_fn(|| self.session.poll_task());
        let reads = tasks.filter_map(|task| match task {
            Task::ReadPage(request) => Some(request),
            Task::ReadStretch { .. }
            | Task::ReadOwn { .. }
            | Task::ReadProof { .. }
            | Task::TakePage { .. }
            | Task::TakeSeal { .. }
            | Task::TakeProof(_) => None,
        });
        reads.collect()
    }

    fn tasks(&mut self) -> Vec<Task> {
        std::iter::from_fn(|| self.session.poll_task()).collect()
    }

    fn events(&mut self) -> Vec<Event> {
        std::iter::from_fn(|| self.session.poll_event()).collect()
    }

    /// The other side greets, and has the same of everything.
    fn greet_same(&mut self) {
        let digest = Buckets::new(&self.shared.digests()).digest();
        self.hear(greet(digest)).unwrap();
    }

    /// The other side greets, and has nothing of these conversations.
    fn greet_empty(&mut self, conversations: &[u8]) {
        self.hear(greet(Digest([7; 16]))).unwrap();
        let nothing = Vector::default().digest();
        let theirs: BTreeMap<_, _> = conversations.iter().map(|n| (id(*n), nothing)).collect();
        let buckets = Box::new(Buckets::new(&theirs));
        self.hear(LogFrame::Buckets(buckets)).unwrap();
        let digests = List::fill(theirs.into_iter()).unwrap();
        self.hear(LogFrame::Digests(digests)).unwrap();
        for (n, number) in conversations.iter().zip(0..) {
            self.open(number, *n);
            self.hear(chains(number, &[], true, true)).unwrap();
        }
    }

    fn open(&mut self, number: u32, n: u8) {
        let opened = self.hear(open(number, n));
        assert_eq!(opened, Ok(()));
    }

    /// This device writes an entry in a run of its own.
    fn write(&mut self, n: u8) {
        struct All;
        impl crate::log::Standing for All {
            fn is_approved(&self, _: &DeviceKey) -> bool {
                true
            }
            fn rank(&self, _: &DeviceKey, _: &DeviceKey) -> Option<crate::log::Rank> {
                None
            }
        }
        let own = chain(OWN, 1);
        let replica = self.shared.0.get_mut(&id(n)).unwrap();
        if replica.run().is_none() {
            replica.begin(crate::log::OwnRun::begin(own.device, own.run));
        }
        let wall = UnixTime::from_millis(1_795_000_000_000);
        replica
            .append(Kind::TEXT, b"new".to_vec(), wall, self.now, &All)
            .unwrap();
        self.with(|session, cx| session.handle_change(id(n), own, cx));
    }

    /// Somebody else's chain has grown here, and the disk has it.
    fn grow(&mut self, n: u8, last: u64) {
        let replica = self.shared.0.get_mut(&id(n)).unwrap();
        restore(replica, chain(AUTHOR, 1), last);
        self.with(|session, cx| session.handle_committed(id(n), chain(AUTHOR, 1), cx));
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.with(|session, cx| session.handle_timeout(cx));
    }
}

fn greet(digest: Digest) -> LogFrame {
    LogFrame::Greet(Greet {
        account: None,
        instance: DatabaseInstance([1; 32]),
        digest,
    })
}

fn open(number: u32, n: u8) -> LogFrame {
    LogFrame::Open {
        number: ConversationNumber(number),
        conversation: id(n),
        is_again: false,
    }
}

fn chains(number: u32, runs: &[(u32, u8, u64)], is_first: bool, is_last: bool) -> LogFrame {
    let chains = runs.iter().map(|(number, run, last)| NumberedChain {
        number: ChainNumber(*number),
        chain: chain(AUTHOR, *run),
        extent: extent(*last),
    });
    LogFrame::Chains {
        conversation: ConversationNumber(number),
        chains: List::fill(chains).unwrap(),
        is_first,
        is_last,
    }
}

fn have(answered: u32, extents: &[(u32, u64)]) -> LogFrame {
    let extents = extents.iter();
    let extents = extents.map(|(number, last)| (ChainNumber(*number), extent(*last)));
    LogFrame::Have {
        answered,
        extents: List::fill(extents).unwrap(),
    }
}

fn entries(number: u32, body_len: usize) -> LogFrame {
    let outline = Outline::new(Clock::from_bits(1), Kind::TEXT, &vec![0; body_len]).unwrap();
    let entry = LogEntry::new(outline, Some(vec![0; body_len])).unwrap();
    LogFrame::Entries(Entries {
        chain: ChainNumber(number),
        first: Sequence::FIRST,
        previous: HeaderHash::NONE,
        entries: List::fill(std::iter::once(entry)).unwrap(),
        seal: None,
    })
}

fn page(request: &PageRequest, body_len: usize) -> Page {
    let secret = DeviceSecret::from_seed([AUTHOR; 32]);
    let body = vec![0; body_len];
    let places = request.first.number()..=request.until.number();
    let rows = places.take(PAGE_ENTRIES_MAX).map(|place| Row {
        entry: Entry {
            outline: Outline::new(Clock::from_bits(place), Kind::TEXT, &body).unwrap(),
            body: Some(body.clone()),
        },
        seal: Some(Seal::sign_hash(&secret, at(place), &HeaderHash::NONE)),
    });
    request.page(HeaderHash::NONE, rows.collect()).unwrap()
}

/// The chains and first places of pages, in their order.
fn pages(said: &[LogFrame]) -> Vec<(u32, u64)> {
    let pages = said.iter().filter_map(|frame| {
        if let LogFrame::Entries(entries) = frame {
            Some((entries.chain.0, entries.first.number()))
        } else {
            None
        }
    });
    pages.collect()
}

// ---- what differs ------------------------------------------------------------------------------

#[test]
fn where_both_have_the_same_a_greeting_is_all_that_is_said() {
    let mut lab = Lab::new(&[(1, 5), (2, 9)]);
    assert!(matches!(lab.said(1)[..], [LogFrame::Greet(_)]));
    lab.greet_same();
    assert_eq!(lab.said(1), []);
    let events = lab.events();
    assert_eq!(events[1], Event::Same(vec![id(1), id(2)]));
}

#[test]
fn what_is_written_where_both_had_the_same_is_sent_at_once() {
    let mut lab = Lab::new(&[(1, 5)]);
    lab.said(1);
    lab.greet_same();
    lab.write(1);
    let said = lab.said(1);
    let words: Vec<bool> = said
        .iter()
        .map(|frame| matches!(frame, LogFrame::Entries(_)))
        .collect();
    assert_eq!(words, [false, false, true], "{said:?}");
    assert!(matches!(
        said[0],
        LogFrame::Open {
            is_again: false,
            ..
        }
    ));
}

#[test]
fn only_conversations_that_differ_are_opened() {
    let mut lab = Lab::new(&[(1, 5), (2, 9), (3, 9)]);
    lab.said(1);
    let mut theirs = lab.shared.digests();
    theirs.insert(id(2), Digest([1; 16]));
    lab.hear(greet(Buckets::new(&theirs).digest())).unwrap();
    assert!(matches!(lab.said(1)[..], [LogFrame::Buckets(_)]));
    let buckets = Box::new(Buckets::new(&theirs));
    lab.hear(LogFrame::Buckets(buckets)).unwrap();
    let said = lab.said(1);
    assert!(matches!(&said[..], [LogFrame::Digests(of)] if of.as_slice().len() == 1));
    let differing = std::iter::once((id(2), Digest([1; 16])));
    let digests = List::fill(differing).unwrap();
    lab.hear(LogFrame::Digests(digests)).unwrap();
    let said = lab.said(1);
    assert!(matches!(
        &said[..],
        [
            LogFrame::Open { conversation, .. },
            LogFrame::Chains { is_first: true, is_last: true, .. }
        ] if *conversation == id(2)
    ));
}

// ---- giving ------------------------------------------------------------------------------------

#[test]
fn a_long_conversation_keeps_no_short_one_waiting() {
    let mut lab = Lab::new(&[(1, 100_000), (2, 3), (3, 3)]);
    let replica = lab.shared.0.get_mut(&id(1)).unwrap();
    for run in 2..=20 {
        restore(replica, chain(AUTHOR, run), 5000);
    }
    lab.said(1);
    lab.greet_empty(&[1, 2, 3]);
    let first: Vec<u32> = pages(&lab.said(300)).iter().map(|(of, _)| *of).collect();
    // The 20 chains of the long one have the numbers up to 19.
    let turns: Vec<bool> = first[..6].iter().map(|of| *of < 20).collect();
    assert_eq!(turns, [true, false, false, true, true, true]);
    assert!(first[6..].iter().all(|of| *of < 20));
}

#[test]
fn what_is_just_written_goes_out_while_catching_up_fills_the_flight() {
    let mut lab = Lab::new(&[(1, 100_000), (2, 3)]);
    lab.said(1);
    lab.greet_empty(&[1, 2]);
    let caught_up = pages(&lab.said(2000)).len();
    assert!(caught_up > 3 && lab.budget.len() >= CATCHING_UP_LEN_MAX);
    assert!(lab.budget.len() < PAGES_IN_FLIGHT_LEN_MAX);
    assert_eq!(pages(&lab.said(2000)), []);
    lab.write(1);
    let said = pages(&lab.said(3));
    assert_eq!(said, [(2, 1)], "the new chain, and nothing else");
}

#[test]
fn entries_of_others_are_given_after_half_a_second_if_they_are_still_lacking() {
    let mut lab = Lab::new(&[(1, 5)]);
    lab.said(1);
    lab.greet_same();
    // Before anything grows it is known that the other side has all.
    lab.with(|session, cx| session.handle_change(id(1), chain(AUTHOR, 1), cx));
    lab.grow(1, 6);
    lab.pass(GIVE_AFTER - Duration::from_millis(1));
    assert_eq!(pages(&lab.said(1)), []);
    lab.pass(Duration::from_millis(1));
    assert_eq!(pages(&lab.said(1)), [(0, 6)]);
    // Its author was sooner.
    lab.grow(1, 7);
    lab.open(0, 1);
    lab.hear(chains(0, &[(0, 1, 7)], false, false)).unwrap();
    lab.pass(GIVE_AFTER);
    assert_eq!(pages(&lab.said(1)), []);
}

#[test]
fn all_links_together_have_so_much_in_flight_and_no_more() {
    let mut lab = Lab::new(&[(1, 5)]);
    lab.said(1);
    lab.greet_empty(&[1]);
    lab.budget.replace(0, PAGES_IN_FLIGHT_OF_ALL_LEN_MAX);
    assert_eq!(pages(&lab.said(1)), []);
    assert!(lab.session.is_blocked());
    lab.budget.replace(1, 0);
    assert_eq!(pages(&lab.said(1)), [(0, 1)]);
    let before = lab.budget.len();
    lab.session.close(&mut lab.budget);
    assert!(lab.budget.len() < before);
    assert_eq!(lab.budget.len(), PAGES_IN_FLIGHT_OF_ALL_LEN_MAX - 1);
}

#[test]
fn marks_go_out_once_in_two_seconds_and_the_furthest_counts() {
    let mut lab = Lab::new(&[(1, 9)]);
    lab.said(1);
    lab.greet_same();
    let mark = |lab: &mut Lab, last| {
        lab.with(|session, cx| session.mark(id(1), chain(AUTHOR, 1), at(last), cx));
    };
    let marks = |said: Vec<LogFrame>| -> Vec<u64> {
        let marks = said.into_iter().filter_map(|frame| {
            if let LogFrame::Marks(marks) = frame {
                Some(marks.as_slice()[0].1.number())
            } else {
                None
            }
        });
        marks.collect()
    };
    mark(&mut lab, 3);
    assert_eq!(marks(lab.said(1)), [3]);
    mark(&mut lab, 7);
    mark(&mut lab, 5);
    assert!(marks(lab.said(1)).is_empty());
    assert_eq!(lab.session.poll_timeout(), Some(lab.now + MARKS_INTERVAL));
    lab.pass(MARKS_INTERVAL);
    assert_eq!(marks(lab.said(1)), [7]);
}

#[test]
fn a_page_is_answered_when_the_disk_has_it_and_not_before() {
    let mut lab = Lab::new(&[(1, 5)]);
    lab.said(1);
    lab.greet_same();
    lab.open(0, 1);
    lab.hear(chains(0, &[(0, 2, 0)], false, false)).unwrap();
    lab.hear(entries(0, 5)).unwrap();
    lab.hear(entries(0, 5)).unwrap();
    let slots: Vec<Slot> = lab
        .tasks()
        .into_iter()
        .filter_map(|task| match task {
            Task::TakePage { slot, .. } => Some(slot),
            Task::ReadPage(_)
            | Task::ReadStretch { .. }
            | Task::ReadOwn { .. }
            | Task::ReadProof { .. }
            | Task::TakeSeal { .. }
            | Task::TakeProof(_) => None,
        })
        .collect();
    assert_eq!(lab.said(1), []);
    // The second one first: it waits for the first.
    for (slot, answered) in [(slots[1], 0), (slots[0], 2)] {
        let settled = lab.with(|session, cx| session.handle_settled(slot, Ok(()), cx));
        assert_eq!(settled, Ok(()));
        let said = lab.said(1);
        let answers = said.iter().filter_map(|frame| {
            if let LogFrame::Have { answered, .. } = frame {
                Some(*answered)
            } else {
                None
            }
        });
        assert_eq!(answers.sum::<u32>(), answered);
    }
}

// ---- what is not shared ------------------------------------------------------------------------

#[test]
fn what_is_not_shared_is_as_if_it_did_not_exist() {
    let mut lab = Lab::new(&[(1, 5)]);
    lab.said(1);
    lab.greet_same();
    lab.events();
    let secret = Replica::new(id(2), DeviceSecret::from_seed([OWN; 32]).public());
    lab.open(0, 2);
    lab.hear(chains(0, &[(0, 1, 3)], true, true)).unwrap();
    lab.hear(have(0, &[(0, 4)])).unwrap();
    lab.hear(entries(0, 5)).unwrap();
    let (chain_0, place) = (ChainNumber(0), at(2));
    lab.hear(LogFrame::Trace {
        chain: chain_0,
        place,
    })
    .unwrap();
    let (base, conversation) = (at(2), ConversationNumber(0));
    lab.hear(LogFrame::Gone {
        chain: chain_0,
        base,
    })
    .unwrap();
    lab.hear(LogFrame::Typing { conversation }).unwrap();
    let mark = List::fill(std::iter::once((chain_0, place))).unwrap();
    lab.hear(LogFrame::Marks(mark)).unwrap();
    assert_eq!((lab.tasks(), lab.events()), (vec![], vec![]));
    let said = lab.said(1);
    let answer = LogFrame::Stretch {
        chain: chain_0,
        stretch: None,
    };
    assert!(said.contains(&answer) && said.contains(&have(1, &[])) && said.len() == 2);

    // From now on it is, and all that was ignored is to be said again.
    lab.shared.0.insert(id(2), secret);
    lab.with(|session, cx| session.handle_shared(id(2), cx));
    let said = lab.said(1);
    assert!(matches!(said[0], LogFrame::Open { is_again: true, .. }));
    assert!(matches!(said[1], LogFrame::Chains { is_first: true, .. }));
    lab.shared.0.remove(&id(2));
    lab.session.handle_unshared(&id(2));
    lab.hear(chains(0, &[(0, 1, 3)], true, true)).unwrap();
    assert_eq!((lab.tasks(), lab.said(1)), (vec![], vec![]));
}

// ---- who lies ----------------------------------------------------------------------------------

#[test]
fn t43_who_does_not_greet_once_and_first_is_closed() {
    let mut lab = Lab::new(&[(1, 5)]);
    assert_eq!(lab.hear(open(0, 1)), Err(Violation::Greeting));
    lab.greet_same();
    let again = lab.hear(greet(Digest::default()));
    assert_eq!(again, Err(Violation::Greeting));
    // Nothing differs, so that there are no buckets to be compared.
    let buckets = LogFrame::Buckets(Box::new(Buckets::new(&BTreeMap::new())));
    assert_eq!(lab.hear(buckets), Err(Violation::Digests));
}

#[test]
fn t43_digests_that_do_not_ascend_or_come_twice_end_the_link() {
    let mut lab = Lab::new(&[(1, 5)]);
    lab.hear(greet(Digest::default())).unwrap();
    let buckets = || LogFrame::Buckets(Box::new(Buckets::new(&BTreeMap::new())));
    let digests = |of: &[u8]| {
        let digests = of.iter().map(|n| (id(*n), Digest::default()));
        LogFrame::Digests(List::fill(digests).unwrap())
    };
    assert_eq!(lab.hear(digests(&[1])), Err(Violation::Digests));
    lab.hear(buckets()).unwrap();
    assert_eq!(lab.hear(buckets()), Err(Violation::Digests));
    lab.hear(digests(&[3, 4])).unwrap();
    assert_eq!(lab.hear(digests(&[4])), Err(Violation::Digests));
    assert_eq!(lab.hear(digests(&[6, 5])), Err(Violation::Digests));
}

#[test]
fn t43_numbers_that_are_unknown_or_reused_end_the_link() {
    let mut lab = Lab::new(&[(1, 5), (2, 5)]);
    lab.greet_same();
    let unknown = Err(Violation::UnknownNumber);
    assert_eq!(lab.hear(chains(0, &[], true, true)), unknown);
    assert_eq!(lab.hear(have(0, &[(0, 4)])), unknown);
    assert_eq!(lab.hear(entries(0, 5)), unknown);
    lab.open(0, 1);
    assert_eq!(lab.hear(open(0, 2)), Err(Violation::Numbering));
    assert_eq!(lab.hear(open(5, 2)), Err(Violation::Numbering));
    lab.hear(chains(0, &[(0, 1, 3)], false, false)).unwrap();
    let reused = lab.hear(chains(0, &[(0, 2, 3)], false, false));
    assert_eq!(reused, Err(Violation::Numbering));
}

#[test]
fn t43_lists_that_are_interrupted_or_out_of_order_end_the_link() {
    let greeted = || {
        let mut lab = Lab::new(&[(1, 5), (2, 5)]);
        lab.greet_same();
        lab.open(0, 1);
        lab.open(1, 2);
        lab
    };
    let listing = Err(Violation::Listing);
    let mut lab = greeted();
    assert_eq!(lab.hear(chains(0, &[(0, 1, 3)], false, true)), listing);
    let mut lab = greeted();
    lab.hear(chains(0, &[(0, 3, 3)], true, false)).unwrap();
    assert_eq!(lab.hear(have(0, &[])), listing, "something else comes");
    assert_eq!(lab.hear(chains(1, &[], true, true)), listing, "another");
    assert_eq!(lab.hear(chains(0, &[], true, true)), listing, "begun again");
    assert_eq!(lab.hear(chains(0, &[(1, 2, 3)], false, true)), listing);
}

#[test]
fn t43_answers_to_nothing_end_the_link() {
    let mut lab = Lab::new(&[(1, 5)]);
    lab.greet_same();
    assert_eq!(lab.hear(have(1, &[])), Err(Violation::Answer));
    lab.open(0, 1);
    lab.hear(chains(0, &[(0, 1, 3)], false, false)).unwrap();
    let twice = have(0, &[(0, 3), (0, 4)]);
    assert_eq!(lab.hear(twice), Err(Violation::Answer));
    let (chain, stretch) = (ChainNumber(0), None);
    let unasked = lab.hear(LogFrame::Stretch { chain, stretch });
    assert_eq!(unasked, Err(Violation::Unasked));
}

#[test]
fn t43_who_sends_more_than_may_be_in_flight_is_closed() {
    let mut lab = Lab::new(&[(1, 5)]);
    lab.greet_same();
    lab.open(0, 1);
    lab.hear(chains(0, &[(0, 2, 0)], false, false)).unwrap();
    let mut taken = 0;
    let end = loop {
        match lab.hear(entries(0, 65_000)) {
            Ok(()) => taken += 1,
            Err(violation) => break violation,
        }
    };
    assert_eq!(end, Violation::Flight);
    assert_eq!(taken, PAGES_IN_FLIGHT_LEN_MAX.div_ceil(65_013));
    assert_eq!(lab.tasks().len(), taken);
}

#[test]
fn t43_so_many_questions_seals_and_talks_at_a_time_and_no_more() {
    let mut lab = Lab::new(&[(1, 5)]);
    lab.said(1);
    lab.greet_same();
    lab.open(0, 1);
    lab.hear(chains(0, &[(0, 1, 3)], false, false)).unwrap();
    let (number, place) = (ChainNumber(0), at(2));
    let seal = Seal::sign_hash(
        &DeviceSecret::from_seed([AUTHOR; 32]),
        place,
        &HeaderHash::NONE,
    );
    for _ in 0..LOOSE_CHECKS_MAX + 9 {
        let chain = number;
        lab.hear(LogFrame::Seal { chain, seal }).unwrap();
    }
    assert_eq!(lab.tasks().len(), LOOSE_CHECKS_MAX);
    for n in 0..20 {
        let (session, conversation) = (SessionId::from_bytes([n; 16]), ConversationNumber(0));
        lab.hear(LogFrame::Ask {
            session,
            conversation,
        })
        .unwrap();
    }
    let asked = lab.events().into_iter();
    let asked = asked.filter(|event| matches!(event, Event::Asked { .. }));
    assert_eq!(asked.count(), SESSIONS_PER_LINK_MAX);
    let ask = || LogFrame::Trace {
        chain: number,
        place,
    };
    for _ in 0..STRETCH_READS_MAX {
        lab.hear(ask()).unwrap();
    }
    assert_eq!(lab.hear(ask()), Err(Violation::Questions));
    // Answers that the link has not taken count, too.
    let other = chain(AUTHOR, 1);
    lab.with(|session, cx| session.handle_stretch(id(1), other, place, None, cx));
    assert_eq!(lab.hear(ask()), Err(Violation::Questions));
    lab.said(1);
    assert_eq!(lab.hear(ask()), Ok(()));
}

#[test]
fn t42_what_no_honest_device_sends_ends_the_link() {
    let mut lab = Lab::new(&[(1, 5)]);
    lab.greet_same();
    lab.open(0, 1);
    lab.hear(chains(0, &[(0, 2, 0)], false, false)).unwrap();
    lab.hear(entries(0, 5)).unwrap();
    let Some(Task::TakePage { slot, .. }) = lab.session.poll_task() else {
        panic!("there is a page");
    };
    let settled = lab.with(|session, cx| session.handle_settled(slot, Err(Refusal::BadSeal), cx));
    assert_eq!(settled, Err(Violation::Refused(Refusal::BadSeal)));
    let bad = lab.session.handle_seal(Err(Refusal::BadSeal));
    assert_eq!(bad, Err(Violation::Refused(Refusal::BadSeal)));
    let proof = lab
        .session
        .handle_proof_taken(Err(common::log::ForkError::Same));
    assert_eq!(proof, Err(Violation::Proof));
    assert_eq!(lab.session.handle_seal(Err(Refusal::NotNext)), Ok(()));
}
