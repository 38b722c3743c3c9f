use super::*;
use crate::log::{Entry, Row, StoredChain, Tip};
use common::key::DeviceSecret;
use common::log::{Clock, HeaderHash, Kind, Outline, RunId};
use common::time::UnixTime;

const CONVERSATION: ConversationId = ConversationId::from_bytes([5; 32]);

fn chain(run: u8) -> ChainId {
    ChainId {
        device: DeviceSecret::from_seed([7; 32]).public(),
        run: RunId::from_bytes([run; 16]),
    }
}

fn at(number: u64) -> Sequence {
    Sequence::new(number).unwrap()
}

fn extent(base: u64, last: u64) -> Extent {
    Extent {
        base: at(base),
        sealed: at(last),
        last: at(last),
        hash: HeaderHash::from_bytes([1; 32]),
        fork: None,
    }
}

/// A replica with chains that reach from one entry to another.
fn replica(chains: &[(u8, u64, u64)]) -> Replica {
    let device = DeviceSecret::from_seed([8; 32]).public();
    let mut replica = Replica::new(CONVERSATION, device);
    for (run, base, last) in chains {
        let stored = StoredChain {
            base: at(*base),
            before: HeaderHash::NONE,
            base_placed: Clock::default(),
            sealed: Tip {
                sequence: at(*last),
                ..Tip::START
            },
            seal: None,
            unsealed: Vec::new(),
        };
        replica.restore(chain(*run), stored, UnixTime::default());
    }
    replica
}

/// One end of a link that is given entries.
#[derive(Default)]
struct Lab {
    giving: Giving,
    flight: Flight,
}

impl Lab {
    fn open(replica: &Replica, theirs: &[(u8, Extent)]) -> Self {
        let mut lab = Self::default();
        let theirs = theirs.iter().map(|(run, extent)| (chain(*run), *extent));
        lab.giving.open(&Vector(theirs.collect()), replica);
        lab
    }

    /// All that is said until nothing more is: pages by run, first and last entry. Each entry is sealed, and its body
    /// has this length.
    fn drain(&mut self, replica: &Replica, body_len: usize) -> Vec<(u8, u64, u64)> {
        let mut given = Vec::new();
        while let Some(due) = self.giving.poll(replica, &mut self.flight) {
            let Due::Page(request) = due else {
                panic!("only pages: {due:?}");
            };
            let page = page(&request, body_len);
            self.giving
                .handle_page(&request, Some(&page), &mut self.flight);
            let run = request.chain.run.as_bytes()[0];
            given.push((run, page.first.number(), page.last().number()));
        }
        given
    }

    /// The other side answers so many pages, and says what it has of a chain.
    fn answer(&mut self, pages: usize, run: u8, extent: Extent) {
        self.giving.handle_have(chain(run), extent);
        for (_, chain) in self.flight.answered(pages) {
            self.giving.handle_answer(chain);
        }
    }
}

fn page(request: &PageRequest, body_len: usize) -> Page {
    let body = vec![0; body_len];
    let rows = request.first.number()..=request.until.number();
    let rows = rows.take(PAGE_ENTRIES_MAX).map(|place| Row {
        entry: Entry {
            outline: Outline::new(Clock::from_bits(place), Kind::TEXT, &body).unwrap(),
            body: Some(body.clone()),
        },
        seal: Some(Seal::sign_hash(
            &DeviceSecret::from_seed([7; 32]),
            at(place),
            &HeaderHash::NONE,
        )),
    });
    let previous = HeaderHash::from_bytes([2; 32]);
    request.page(previous, rows.collect()).unwrap()
}

#[test]
fn what_is_lacking_is_given_once_without_a_gap_and_in_turns() {
    let replica = replica(&[(1, 1, 200), (2, 1, 70), (3, 1, 5), (4, 1, 9)]);
    let mut lab = Lab::open(&replica, &[(1, extent(1, 10)), (4, extent(1, 9))]);
    let expected = [
        (1, 11, 74),
        (2, 1, 64),
        (3, 1, 5),
        (1, 75, 138),
        (2, 65, 70),
        (1, 139, 200),
    ];
    assert_eq!(lab.drain(&replica, 1), expected);
    assert_eq!(lab.drain(&replica, 1), []);
    lab.giving.handle_change(chain(1));
    assert_eq!(lab.drain(&replica, 1), []);
}

#[test]
fn nothing_is_given_before_the_other_side_has_said_what_it_has() {
    let replica = replica(&[(1, 1, 5)]);
    let mut lab = Lab::default();
    lab.giving.handle_change(chain(1));
    lab.giving.handle_have(chain(1), extent(1, 2));
    assert_eq!(lab.drain(&replica, 1), []);
}

#[test]
fn a_megabyte_is_in_flight_and_answers_make_room() {
    let replica = replica(&[(1, 1, 10_000)]);
    let mut lab = Lab::open(&replica, &[]);
    let first = lab.drain(&replica, 65_000);
    let in_flight = lab.flight.len();
    assert!(in_flight >= PAGES_IN_FLIGHT_LEN_MAX);
    assert!(in_flight < PAGES_IN_FLIGHT_LEN_MAX + PAGE_LEN_MAX);
    lab.answer(1, 1, extent(1, first[0].2));
    let next = lab.drain(&replica, 65_000);
    assert_eq!(next[0].1, first.last().unwrap().2 + 1);
    assert_eq!(next.len(), 1);
    // More answers than there are pages are no harm.
    assert_eq!(lab.flight.answered(usize::MAX).len(), first.len());
    assert!(lab.flight.is_empty());
}

#[test]
fn t43_what_is_not_taken_is_given_once_more_and_then_not_again() {
    let replica = replica(&[(1, 1, 5)]);
    let mut lab = Lab::open(&replica, &[(1, extent(1, 2))]);
    assert_eq!(lab.drain(&replica, 1), [(1, 3, 5)]);
    for again in [vec![(1, 3, 5)], vec![], vec![]] {
        lab.answer(1, 1, extent(1, 2));
        assert_eq!(lab.drain(&replica, 1), again);
    }
    // It says something else.
    lab.answer(0, 1, extent(1, 3));
    assert_eq!(lab.drain(&replica, 1), [(1, 4, 5)]);
}

#[test]
fn what_was_there_and_is_no_more_is_given_again() {
    let replica = replica(&[(1, 1, 9)]);
    let mut lab = Lab::open(&replica, &[(1, extent(1, 9))]);
    assert_eq!(lab.drain(&replica, 1), []);
    lab.answer(0, 1, extent(1, 4));
    assert_eq!(lab.drain(&replica, 1), [(1, 5, 9)]);
}

#[test]
fn t43_claims_of_what_is_not_there_cost_nothing() {
    let replica = replica(&[(1, 1, 9)]);
    let mut lab = Lab::open(&replica, &[(1, extent(1, u64::from(u32::MAX)))]);
    assert_eq!(lab.drain(&replica, 1), []);
    let mut unsound = extent(1, 3);
    unsound.base = Sequence::START;
    lab.answer(0, 1, unsound);
    assert_eq!(lab.drain(&replica, 1), []);
    let many = (0..=CHAINS_PER_CONVERSATION_MAX as u128).map(|run| {
        let run = RunId::from_bytes(run.to_be_bytes());
        ChainId { run, ..chain(1) }
    });
    for chain in many {
        lab.giving.handle_have(chain, extent(1, 1));
    }
    assert!(lab.giving.theirs.len() <= CHAINS_PER_CONVERSATION_MAX);
}

#[test]
fn who_lacks_what_is_gone_is_told_and_given_the_rest() {
    let replica = replica(&[(1, 100, 120)]);
    let mut lab = Lab::open(&replica, &[]);
    let gone = Due::Gone {
        chain: chain(1),
        base: at(100),
    };
    assert_eq!(lab.giving.poll(&replica, &mut lab.flight), Some(gone));
    assert_eq!(lab.drain(&replica, 1), [(1, 100, 120)]);
}

#[test]
fn who_has_given_up_too_early_is_given_what_was_before() {
    let replica = replica(&[(1, 1, 120)]);
    let mut lab = Lab::open(&replica, &[(1, extent(100, 120))]);
    assert_eq!(lab.drain(&replica, 1), [(1, 36, 99)]);
    lab.answer(1, 1, extent(36, 120));
    // As much as fits, and it ends where theirs begins.
    assert_eq!(lab.drain(&replica, 60_000), [(1, 34, 35)]);
    lab.answer(1, 1, extent(34, 120));
    assert_eq!(lab.drain(&replica, 1), [(1, 1, 33)]);
    lab.answer(1, 1, extent(1, 120));
    assert_eq!(lab.drain(&replica, 1), []);
}

#[test]
fn a_page_ends_at_a_seal_and_within_its_bounds() {
    let request = PageRequest {
        conversation: CONVERSATION,
        chain: chain(1),
        first: at(1),
        until: at(200),
        end: PageEnd::Seal(at(200)),
    };
    let whole = page(&request, 1);
    assert_eq!(whole.last(), at(64));
    let large = page(&request, 50_000);
    assert_eq!(large.last(), at(2));
    assert!(large.cost() <= PAGE_LEN_MAX);
    let rows = |sealed: Option<usize>| {
        let rows = whole.entries.iter().enumerate().map(|(index, entry)| Row {
            entry: entry.clone(),
            seal: whole.seal.filter(|_| Some(index) == sealed),
        });
        rows.collect::<Vec<Row>>()
    };
    let make = |end, sealed| PageRequest { end, ..request }.page(HeaderHash::NONE, rows(sealed));
    let sealed = make(PageEnd::Seal(at(200)), Some(9)).unwrap();
    assert_eq!((sealed.entries.len(), sealed.seal.is_some()), (10, true));
    assert_eq!(
        make(PageEnd::Seal(at(200)), None),
        None,
        "it is not given on"
    );
    assert_eq!(make(PageEnd::Anywhere, None).unwrap().entries.len(), 64);
    assert_eq!(make(PageEnd::Anywhere, Some(9)).unwrap().entries.len(), 10);
}
