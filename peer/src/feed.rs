//! Messages in the order in which the history got them: first those that it has, then those that come, without a gap
//! or a double at the seam.
//!
//! A [`Feed`] takes what the node tells as it happens and the pages of the history, and gives each message once, in the
//! order of its [`Cursor`]. It holds a bounded number of them. What comes while it is full is left to the history, and
//! looked up there once the queue is empty; so is everything after the node has gone and another one has come.
//!
//! Invariant: what was given and what is in the queue are all messages up to `taken`, but for those taken back.

use std::collections::VecDeque;

use common::limits::FEED_QUEUE_MAX;

use crate::node::command::{Cursor, Recorded, RecordedPage};

/// See the module.
#[derive(Debug)]
pub(crate) struct Feed {
    /// The place of the last message that came into the queue.
    taken: Cursor,
    queue: VecDeque<Recorded>,
    /// The history may have messages behind `taken`.
    is_behind: bool,
}

/// What comes next.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// A message that has not been given yet.
    Give(Recorded),
    /// The history is to be asked for at most `limit` messages after a place.
    Look { after: Cursor, limit: u32 },
    /// Nothing, until something happens.
    Wait,
}

impl Feed {
    /// Gives what comes after a place.
    pub(crate) const fn after(place: Cursor) -> Self {
        Self {
            taken: place,
            queue: VecDeque::new(),
            is_behind: true,
        }
    }

    /// The node tells of a message.
    pub(crate) fn handle_recorded(&mut self, recorded: Recorded) {
        if recorded.cursor <= self.taken {
            return;
        }
        self.is_behind |= self.queue.len() >= FEED_QUEUE_MAX;
        if !self.is_behind {
            self.taken = recorded.cursor;
            self.queue.push_back(recorded);
        }
    }

    /// The history has answered. Whatever was told before it was asked is in its answer, or behind that.
    pub(crate) fn handle_page(&mut self, page: RecordedPage) {
        // Behind the last place, when there is nothing, those are that were taken back.
        let upto = page.messages.last().map_or(page.last, |last| last.cursor);
        self.taken = self.taken.max(upto);
        self.is_behind = self.taken < page.last;
        self.queue.extend(page.messages);
    }

    /// Messages may have come of which the node has not told.
    pub(crate) const fn handle_gap(&mut self) {
        self.is_behind = true;
    }

    /// What comes next.
    pub(crate) fn poll(&mut self) -> Next {
        match self.queue.pop_front() {
            Some(recorded) => Next::Give(recorded),
            None if self.is_behind => Next::Look {
                after: self.taken,
                limit: FEED_QUEUE_MAX as u32,
            },
            None => Next::Wait,
        }
    }
}

#[cfg(test)]
mod tests {
    use common::id::MessageId;
    use common::time::UnixTime;
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};

    use super::*;
    use crate::node::command::{Direction, HistoryItem, MessageState};

    fn recorded(place: u64) -> Recorded {
        Recorded {
            cursor: Cursor(place),
            item: HistoryItem {
                id: MessageId::from_bytes(u128::from(place).to_be_bytes()),
                with: "bob".parse().unwrap(),
                direction: Direction::Received,
                sent: UnixTime::default(),
                body: "hi".to_owned().try_into().unwrap(),
                state: MessageState::Delivered,
            },
        }
    }

    /// What a history that has these places answers.
    fn page(places: &[u64], last: u64, after: Cursor, limit: u32) -> RecordedPage {
        let later = places.iter().filter(|place| Cursor(**place) > after);
        RecordedPage {
            messages: later.take(limit as usize).copied().map(recorded).collect(),
            last: Cursor(last),
        }
    }

    /// Everything that it gives until it waits.
    fn drain(feed: &mut Feed, places: &[u64], last: u64) -> Vec<u64> {
        let mut given = Vec::new();
        loop {
            match feed.poll() {
                Next::Give(recorded) => given.push(recorded.cursor.0),
                Next::Look { after, limit } => feed.handle_page(page(places, last, after, limit)),
                Next::Wait => return given,
            }
        }
    }

    #[test]
    fn what_was_there_comes_before_what_comes_and_nothing_twice() {
        let mut feed = Feed::after(Cursor(1));
        feed.handle_recorded(recorded(3));
        assert_eq!(drain(&mut feed, &[1, 2, 3], 3), [2, 3]);
        feed.handle_recorded(recorded(3));
        feed.handle_recorded(recorded(5));
        assert_eq!(drain(&mut feed, &[], 0), [5]);
        feed.handle_gap();
        assert_eq!(drain(&mut feed, &[1, 2, 3, 5, 6], 6), [6]);
    }

    #[test]
    fn the_end_is_found_where_the_last_ones_were_taken_back() {
        let mut feed = Feed::after(Cursor::START);
        assert_eq!(drain(&mut feed, &[1, 2], 4), [1, 2]);
        assert_eq!(feed.poll(), Next::Wait);
        feed.handle_recorded(recorded(5));
        assert_eq!(drain(&mut feed, &[], 0), [5]);
        let mut feed = Feed::after(Cursor::START);
        assert_eq!(drain(&mut feed, &[], 0), [0_u64; 0]);
    }

    #[test]
    fn what_does_not_fit_is_left_to_the_history() {
        let mut feed = Feed::after(Cursor::START);
        assert_eq!(drain(&mut feed, &[], 0), [0_u64; 0]);
        let all: Vec<u64> = (1..=2 * FEED_QUEUE_MAX as u64 + 7).collect();
        for place in &all {
            feed.handle_recorded(recorded(*place));
            assert!(feed.queue.len() <= FEED_QUEUE_MAX);
        }
        assert_eq!(feed.queue.len(), FEED_QUEUE_MAX);
        assert_eq!(drain(&mut feed, &all, all.len() as u64), all);
    }

    /// A history grows while it is asked, and what it tells comes later than it answers, or sooner.
    #[test]
    fn every_message_comes_once_and_in_order_whatever_comes_between() {
        for seed in 0..500 {
            let mut rng = StdRng::seed_from_u64(seed);
            let mut places = Vec::new();
            let mut last = 0;
            let mut told = VecDeque::new();
            let mut feed = Feed::after(Cursor::START);
            let mut given = Vec::new();
            for _ in 0..rng.random_range(1..1500) {
                match rng.random_range(0..10) {
                    0..=4 => {
                        last += rng.random_range(1..3);
                        places.push(last);
                        told.push_back(last);
                    }
                    5 | 6 => {
                        if let Some(place) = told.pop_front() {
                            feed.handle_recorded(recorded(place));
                        }
                    }
                    7 if rng.random_ratio(1, 20) => {
                        // The client is dropped, and what it was told with it.
                        told.clear();
                        feed.handle_gap();
                    }
                    _ => match feed.poll() {
                        Next::Give(recorded) => given.push(recorded.cursor.0),
                        Next::Look { after, limit } => {
                            feed.handle_page(page(&places, last, after, limit));
                        }
                        Next::Wait => {}
                    },
                }
            }
            for place in told {
                feed.handle_recorded(recorded(place));
            }
            given.extend(drain(&mut feed, &places, last));
            assert_eq!(given, places, "seed {seed}");
        }
    }
}
