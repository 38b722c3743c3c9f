//! Which offers the person is asked about, and when the question is shown: the offer that an answer is for is
//! always the one that was named last.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use common::id::{AccountName, TransferId};

use crate::node::command::OfferView;

/// From what is printed to the question below it. What else is printed meanwhile stands above that, too.
const PAUSE: Duration = Duration::from_millis(100);

/// Offers that wait for an answer. The first of them is asked about; the node bounds how many there are.
#[derive(Debug, Default)]
pub(super) struct Questions {
    open: VecDeque<OfferView>,
    /// The first one was shown.
    is_asked: bool,
    /// When the first one is to be shown, or shown again.
    due: Option<Instant>,
}

impl Questions {
    /// Adds an offer, which is asked about after those of before.
    pub(super) fn add(&mut self, offer: OfferView, now: Instant) {
        self.open.push_back(offer);
        if self.open.len() == 1 {
            self.ask_soon(now);
        }
    }

    /// Something stands below the question, or is about to.
    pub(super) fn on_printed(&mut self, now: Instant) {
        if !self.open.is_empty() {
            self.ask_soon(now);
        }
    }

    /// Takes out the offer that was asked about.
    pub(super) fn answer(&mut self, now: Instant) -> Option<OfferView> {
        if !self.is_asked {
            return None;
        }
        let offer = self.open.pop_front();
        self.next(now);
        offer
    }

    /// Takes out an offer that has ended.
    pub(super) fn end(&mut self, transfer: TransferId, now: Instant) -> Option<OfferView> {
        let index = self.position(transfer)?;
        let offer = self.open.remove(index);
        if index == 0 {
            self.next(now);
        }
        offer
    }

    /// The question was not shown after all.
    pub(super) fn on_not_asked(&mut self, now: Instant) {
        self.is_asked = false;
        self.on_printed(now);
    }

    /// All of them.
    pub(super) fn all(&self) -> Vec<&OfferView> {
        self.open.iter().collect()
    }

    /// The offer that was asked about, if an answer is awaited.
    pub(super) fn asked(&self) -> Option<&OfferView> {
        self.open.front().filter(|_| self.is_asked)
    }

    /// The offer to ask about at this time, if its question is due, and whether it was asked about before.
    pub(super) fn handle_timeout(&mut self, now: Instant) -> Option<(&OfferView, bool)> {
        self.due.take_if(|due| *due <= now)?;
        let is_again = std::mem::replace(&mut self.is_asked, true);
        Some((self.open.front()?, is_again))
    }

    /// When a question is to be shown.
    pub(super) const fn poll_timeout(&self) -> Option<Instant> {
        self.due
    }

    /// Tells whether an offer waits for its answer.
    pub(super) fn contains(&self, transfer: TransferId) -> bool {
        self.position(transfer).is_some()
    }

    /// Tells whether an offer of an account waits for its answer.
    pub(super) fn is_from(&self, account: &AccountName) -> bool {
        self.open.iter().any(|offer| offer.from == *account)
    }

    /// What tells an offer apart from another open one of the same file, with a blank behind it; or nothing.
    pub(super) fn told_apart(&self, transfer: TransferId) -> &'static str {
        let Some(index) = self.position(transfer) else {
            return "";
        };
        let offer = &self.open[index];
        let is_alike = |other: &OfferView| other.from == offer.from && other.name == offer.name;
        if self.open.range(index + 1..).any(is_alike) {
            "earlier "
        } else if self.open.range(..index).any(is_alike) {
            "later "
        } else {
            ""
        }
    }

    /// Tells whether no offer waits for an answer.
    pub(super) fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// Tells whether a question stands that a line can answer.
    pub(super) const fn is_asked(&self) -> bool {
        self.is_asked
    }

    fn position(&self, transfer: TransferId) -> Option<usize> {
        let mut open = self.open.iter();
        open.position(|offer| offer.transfer == transfer)
    }

    /// Another offer is the first one, or none.
    fn next(&mut self, now: Instant) {
        self.is_asked = false;
        self.due = None;
        self.on_printed(now);
    }

    fn ask_soon(&mut self, now: Instant) {
        self.due.get_or_insert(now + PAUSE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_is_shown_once_below_all_that_is_printed_at_once() {
        let start = crate::client::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut questions = Questions::default();
        questions.on_printed(at(0));
        assert_eq!(questions.poll_timeout(), None);
        questions.add(offer(1), at(0));
        questions.on_printed(at(50));
        questions.add(offer(2), at(50));
        assert_eq!(asked(&mut questions, at(99)), None);
        assert_eq!(asked(&mut questions, at(100)), Some((1, false)));
        assert_eq!(questions.poll_timeout(), None);
        // However much is printed, it does not wait for the end of that.
        for ms in [200, 290, 299] {
            questions.on_printed(at(ms));
            assert_eq!(asked(&mut questions, at(ms)), None);
        }
        assert_eq!(asked(&mut questions, at(300)), Some((1, true)));
        assert_eq!(asked(&mut questions, at(900)), None);
    }

    #[test]
    fn the_next_question_is_a_new_one_and_only_a_shown_one_is_answered() {
        let start = crate::client::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut questions = Questions::default();
        for number in 1..=3 {
            questions.add(offer(number), at(0));
        }
        assert_eq!(questions.answer(at(0)), None);
        assert_eq!(asked(&mut questions, at(100)), Some((1, false)));
        assert_eq!(questions.answer(at(200)), Some(offer(1)));
        assert!(!questions.is_asked());
        assert_eq!(questions.answer(at(200)), None);
        assert_eq!(asked(&mut questions, at(300)), Some((2, false)));
        assert_eq!(questions.end(offer(2).transfer, at(400)), Some(offer(2)));
        assert!(!questions.is_asked());
        assert_eq!(asked(&mut questions, at(500)), Some((3, false)));
        assert_eq!(questions.end(offer(2).transfer, at(500)), None);
        assert_eq!(questions.end(offer(3).transfer, at(500)), Some(offer(3)));
        assert!(questions.is_empty() && !questions.is_asked());
        assert_eq!(questions.poll_timeout(), None);
    }

    #[test]
    fn two_open_offers_of_one_file_are_told_apart() {
        let start = crate::client::now();
        let named = |number: u8, name: &str, from: &str| OfferView {
            name: name.to_owned(),
            from: from.parse().unwrap(),
            ..offer(number)
        };
        let mut questions = Questions::default();
        for (number, name, from) in [
            (1, "a.txt", "alice"),
            (2, "a.txt", "bob"),
            (3, "a.txt", "alice"),
            (4, "b.txt", "alice"),
        ] {
            questions.add(named(number, name, from), start);
        }
        let apart = [1, 2, 3, 4, 5].map(|number| questions.told_apart(offer(number).transfer));
        assert_eq!(apart, ["earlier ", "", "later ", "", ""]);
        questions.end(offer(1).transfer, start);
        assert_eq!(questions.told_apart(offer(3).transfer), "");
    }

    fn offer(number: u8) -> OfferView {
        OfferView {
            transfer: TransferId::from_bytes([number; 16]),
            from: "alice".parse().unwrap(),
            name: format!("{number}.txt"),
            size: 5,
            executable: false,
        }
    }

    /// The number of the offer that is asked about now, and whether it was before.
    fn asked(questions: &mut Questions, now: Instant) -> Option<(u8, bool)> {
        let (asked, is_again) = questions.handle_timeout(now)?;
        let number = (1..=3).find(|number| offer(*number) == *asked);
        Some((number.unwrap(), is_again))
    }
}
