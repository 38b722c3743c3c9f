//! Where two copies of a chain part.
//!
//! Two devices have noticed that their copies differ at some place, or before. One asks the other for the stretch of
//! headers around a place and compares it with its own; the search is halved each time, so that a chain of a
//! hundred thousand entries takes 17 questions at most, and mostly one. At its end is a proof, or nothing: the other
//! side has claimed what it cannot show, or what differs is not sealed on both sides.

use std::collections::BTreeMap;

use common::limits::{ENTRIES_PER_SEAL_MAX, TRACE_QUESTIONS_MAX, TRACES_PER_LINK_MAX};
use common::log::{
    ChainId, ConversationId, ForkProof, HeaderHash, Outline, Seal, Sequence, Stretch,
};

/// The searches over one link, for one conversation.
#[derive(Clone, Debug, Default)]
pub struct Traces {
    searches: BTreeMap<ChainId, Search>,
}

/// What comes next in a search.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TraceStep {
    /// Ask the other side for the stretch of the chain in which this place is: from one seal to the next.
    Ask(Sequence),
    /// Read this part of the chain from the store, for [`Traces::handle_own`]: from `first` to the first seal that is
    /// not before `last`, or all that there is.
    Read {
        /// The first header.
        first: Sequence,
        /// The place that is to be sealed.
        last: Sequence,
    },
    /// The chain forks.
    Found(Box<ForkProof>),
    /// Nothing was found.
    Over,
}

/// A part of a chain as the store has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnStretch {
    /// The hash of the header before the first.
    pub previous: HeaderHash,
    /// Headers in a row, and the seals that are kept at their places.
    pub headers: Vec<(Outline, Option<Seal>)>,
}

#[derive(Clone, Debug)]
struct Search {
    /// Both have the same header there.
    same: Sequence,
    /// They have different ones there.
    different: Sequence,
    /// What the other side has answered.
    theirs: Option<Stretch>,
    questions: u32,
}

impl Traces {
    /// Both copies differ at a place; both begin at `base`. `None` if that is being looked into already, or if there
    /// are [`TRACES_PER_LINK_MAX`] searches.
    pub fn begin(&mut self, chain: ChainId, base: Sequence, at: Sequence) -> Option<TraceStep> {
        let has_room = self.searches.len() < TRACES_PER_LINK_MAX;
        if !has_room || self.searches.contains_key(&chain) || at < base {
            return None;
        }
        let search = Search {
            same: base.previous(),
            different: at,
            theirs: None,
            questions: 1,
        };
        self.searches.insert(chain, search);
        // It is most likely near the end.
        Some(TraceStep::Ask(at))
    }

    /// The other side has answered with a stretch, or has none.
    pub fn handle_stretch(&mut self, chain: ChainId, stretch: Option<Stretch>) -> TraceStep {
        let Some(search) = self.searches.get_mut(&chain) else {
            return TraceStep::Over;
        };
        let stretch = stretch.filter(|stretch| search.is_answered_by(stretch));
        let Some(stretch) = stretch else {
            self.searches.remove(&chain);
            return TraceStep::Over;
        };
        let (first, last) = (stretch.first, stretch.last());
        search.theirs = Some(stretch);
        TraceStep::Read { first, last }
    }

    /// The store has read what [`TraceStep::Read`] asked for.
    pub fn handle_own(
        &mut self,
        conversation: ConversationId,
        chain: ChainId,
        own: &OwnStretch,
    ) -> TraceStep {
        let Some(search) = self.searches.get_mut(&chain) else {
            return TraceStep::Over;
        };
        let step = search.compare(conversation, chain, own);
        match step {
            TraceStep::Ask(_) | TraceStep::Read { .. } => {}
            TraceStep::Found(_) | TraceStep::Over => {
                self.searches.remove(&chain);
            }
        }
        step
    }

    /// How many searches there are.
    pub fn len(&self) -> usize {
        self.searches.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.searches.is_empty()
    }
}

impl Search {
    /// The place that is asked for.
    fn asked(&self) -> Sequence {
        match self.questions {
            1 => self.different,
            _ => self.same.plus(self.halved()),
        }
    }

    fn halved(&self) -> usize {
        let distance = self.different.since(self.same);
        usize::try_from(distance.div_ceil(2)).unwrap_or(usize::MAX)
    }

    fn is_answered_by(&self, stretch: &Stretch) -> bool {
        let places = stretch.first..=stretch.last();
        stretch.check().is_ok() && places.contains(&self.asked())
    }

    fn compare(
        &mut self,
        conversation: ConversationId,
        chain: ChainId,
        own: &OwnStretch,
    ) -> TraceStep {
        let Some(theirs) = self.theirs.take() else {
            return TraceStep::Over;
        };
        if own.previous != theirs.previous {
            self.different = theirs.first.previous();
            return self.ask();
        }
        let pairs = own.headers.iter().zip(&theirs.outlines);
        let same = pairs.take_while(|((own, _), their)| own == *their).count();
        if same < theirs.outlines.len().min(own.headers.len()) {
            let proof = proof(conversation, chain, own, &theirs, same);
            return proof.map_or(TraceStep::Over, |proof| TraceStep::Found(Box::new(proof)));
        }
        self.same = theirs.first.plus(same).previous().max(self.same);
        self.ask()
    }

    fn ask(&mut self) -> TraceStep {
        self.questions += 1;
        if self.same >= self.different || self.questions > TRACE_QUESTIONS_MAX {
            return TraceStep::Over;
        }
        TraceStep::Ask(self.asked())
    }
}

/// A proof of both parts from the header on in which they differ, which is `same` after the first. `None` if the own
/// part is not sealed there.
fn proof(
    conversation: ConversationId,
    chain: ChainId,
    own: &OwnStretch,
    theirs: &Stretch,
    same: usize,
) -> Option<ForkProof> {
    let at = theirs.first.plus(same);
    let hashes = theirs.hashes(conversation, chain);
    let other = theirs.from(at, &hashes)?;
    let mut outlines = Vec::new();
    for (outline, seal) in own.headers.iter().skip(same).take(ENTRIES_PER_SEAL_MAX) {
        outlines.push(*outline);
        if let Some(seal) = *seal {
            let one = Stretch {
                first: at,
                previous: other.previous,
                outlines,
                seal,
            };
            return Some(ForkProof {
                conversation,
                chain,
                one,
                other,
            });
        }
    }
    None
}

#[cfg(test)]
mod tests;
