use super::*;
use common::key::DeviceSecret;
use common::log::{Clock, Kind, RunId, chained};

const CONVERSATION: ConversationId = ConversationId::from_bytes([5; 32]);

fn secret() -> DeviceSecret {
    DeviceSecret::from_seed([7; 32])
}

fn chain() -> ChainId {
    ChainId {
        device: secret().public(),
        run: RunId::from_bytes([9; 16]),
    }
}

fn at(number: u64) -> Sequence {
    Sequence::new(number).unwrap()
}

/// One copy of a chain, sealed every so many entries.
struct Copy {
    outlines: Vec<Outline>,
    hashes: Vec<HeaderHash>,
    every: usize,
}

impl Copy {
    /// `len` entries, which are others from `turn` on.
    fn new(len: u64, turn: u64, every: usize) -> Self {
        let outline = |place| {
            let text = if place >= turn { "other" } else { "same" };
            Outline::new(Clock::from_bits(place), Kind::TEXT, text.as_bytes()).unwrap()
        };
        let outlines: Vec<Outline> = (1..=len).map(outline).collect();
        let hashes = chained(
            CONVERSATION,
            chain(),
            Sequence::FIRST,
            HeaderHash::NONE,
            &outlines,
        );
        Self {
            outlines,
            hashes,
            every,
        }
    }

    fn hash(&self, place: usize) -> HeaderHash {
        place
            .checked_sub(1)
            .map_or(HeaderHash::NONE, |index| self.hashes[index])
    }

    fn seal(&self, place: usize) -> Option<Seal> {
        let is_sealed = place.is_multiple_of(self.every);
        is_sealed.then(|| Seal::sign_hash(&secret(), at(place as u64), &self.hash(place)))
    }

    fn stretch(&self, place: Sequence) -> Option<Stretch> {
        let place = usize::try_from(place.number()).unwrap();
        let last = place.next_multiple_of(self.every);
        let first = last - self.every + 1;
        Some(Stretch {
            first: at(first as u64),
            previous: self.hash(first - 1),
            outlines: self.outlines.get(first - 1..last)?.to_vec(),
            seal: self.seal(last)?,
        })
    }

    fn own(&self, first: Sequence, last: Sequence) -> OwnStretch {
        let [first, last] = [first, last].map(|place| usize::try_from(place.number()).unwrap());
        let last = last.next_multiple_of(self.every).min(self.outlines.len());
        let headers = (first..=last).map(|place| (self.outlines[place - 1], self.seal(place)));
        OwnStretch {
            previous: self.hash(first - 1),
            headers: headers.collect(),
        }
    }
}

/// Searches where both part, of which is known that they differ at `different`. Returns what is found, and how many
/// questions it took.
fn search(ours: &Copy, theirs: &Copy, different: u64) -> (Option<ForkProof>, u32) {
    let mut traces = Traces::default();
    let mut step = traces
        .begin(chain(), Sequence::FIRST, at(different))
        .unwrap();
    for questions in 0.. {
        let TraceStep::Ask(place) = step else {
            panic!("it begins with a question");
        };
        step = traces.handle_stretch(chain(), theirs.stretch(place));
        if let TraceStep::Read { first, last } = step {
            step = traces.handle_own(CONVERSATION, chain(), &ours.own(first, last));
        }
        match step {
            TraceStep::Ask(_) => {}
            TraceStep::Found(proof) => return (Some(*proof), questions + 1),
            TraceStep::Over | TraceStep::Read { .. } => {
                assert!(traces.is_empty());
                return (None, questions + 1);
            }
        }
    }
    unreachable!("the search ends")
}

#[test]
fn t41_the_first_entry_that_differs_is_found_wherever_it_is() {
    for (turn, every) in [
        (1, (1, 1)),
        (2, (3, 5)),
        (64, (64, 64)),
        (65, (64, 6)),
        (700, (10, 64)),
    ] {
        let ours = Copy::new(960, turn, every.0);
        let theirs = Copy::new(960, u64::MAX, every.1);
        let (proof, questions) = search(&ours, &theirs, 960);
        let fork = proof.unwrap().verify().unwrap();
        assert_eq!(fork.sequence(), at(turn), "{every:?}");
        assert!(questions <= 11, "{questions}");
    }
}

#[test]
fn a_fork_at_the_end_takes_one_question_and_one_in_a_long_chain_few() {
    let theirs = Copy::new(6400, u64::MAX, 64);
    let (proof, questions) = search(&Copy::new(6400, 6390, 64), &theirs, 6400);
    assert!(proof.is_some());
    assert_eq!(questions, 1);
    let (proof, questions) = search(&Copy::new(6400, 17, 64), &theirs, 6400);
    assert!(proof.is_some());
    assert!(questions <= 8, "{questions}");
}

#[test]
fn t43_who_claims_a_fork_that_is_none_gets_a_bounded_number_of_questions() {
    let ours = Copy::new(640, u64::MAX, 8);
    let (proof, questions) = search(&ours, &Copy::new(640, u64::MAX, 64), 640);
    assert_eq!(proof, None);
    assert!(questions <= TRACE_QUESTIONS_MAX);
    // What is not sealed here is no fork.
    let unsealed = Copy::new(639, 630, 640);
    let (proof, _) = search(&unsealed, &Copy::new(640, u64::MAX, 64), 639);
    assert_eq!(proof, None);
}

#[test]
fn t43_searches_are_bounded_and_answers_to_no_question_end_them() {
    let mut traces = Traces::default();
    let chains = (100..).map(|n| ChainId {
        run: RunId::from_bytes([n; 16]),
        ..chain()
    });
    let begun = chains.take(TRACES_PER_LINK_MAX + 1).map(|chain| {
        let step = traces.begin(chain, Sequence::FIRST, at(640));
        assert_eq!(traces.begin(chain, Sequence::FIRST, at(640)), None);
        step.is_some()
    });
    assert_eq!(begun.filter(|begun| *begun).count(), TRACES_PER_LINK_MAX);
    let elsewhere = Copy::new(640, u64::MAX, 64).stretch(at(1));
    let first = ChainId {
        run: RunId::from_bytes([100; 16]),
        ..chain()
    };
    assert_eq!(traces.handle_stretch(first, elsewhere), TraceStep::Over);
    assert_eq!(traces.handle_stretch(chain(), None), TraceStep::Over);
    assert_eq!(traces.len(), TRACES_PER_LINK_MAX - 1);
}
