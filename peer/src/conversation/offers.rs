//! Files that others offer, and the numbers that the person calls files by.

use std::collections::BTreeMap;

use common::id::TransferId;

use crate::node::command::{FailureKind, OfferView, TransferState};

/// Why an offer that nobody answered has ended; `None` where its sender withdrew it.
pub(crate) fn broken_by(state: &TransferState) -> Option<&str> {
    match state {
        TransferState::Failed {
            kind: FailureKind::Cancelled,
            ..
        }
        | TransferState::Looking
        | TransferState::NotOffered { .. }
        | TransferState::Waiting
        | TransferState::Moving(_)
        | TransferState::Done { .. }
        | TransferState::Declined { .. } => None,
        TransferState::Failed {
            reason,
            kind: FailureKind::Unanswered | FailureKind::NodeEnds | FailureKind::Broken,
        } => Some(reason),
    }
}

/// Offers that are not answered. The node bounds how many there are.
#[derive(Debug, Default)]
pub(super) struct Offers {
    open: BTreeMap<usize, OfferView>,
    /// The number that was given last; none is given twice.
    last: usize,
}

impl Offers {
    /// Takes in an offer and gives its number; `None` if it is here already.
    pub(super) fn add(&mut self, offer: OfferView) -> Option<usize> {
        if self.number_of(offer.transfer).is_some() {
            return None;
        }
        let number = self.number();
        self.open.insert(number, offer);
        Some(number)
    }

    /// Gives a number to a file, whichever way it goes.
    pub(super) const fn number(&mut self) -> usize {
        self.last += 1;
        self.last
    }

    /// Tells whether the offer of that number is open.
    pub(super) fn is_open(&self, number: usize) -> bool {
        self.open.contains_key(&number)
    }

    /// All of them, by number.
    pub(super) fn all(&self) -> impl Iterator<Item = (usize, &OfferView)> {
        self.open.iter().map(|(number, offer)| (*number, offer))
    }

    /// The node that they came to has gone, and the offers with it.
    pub(super) fn end_all(&mut self) -> impl Iterator<Item = (usize, OfferView)> {
        std::mem::take(&mut self.open).into_iter()
    }

    /// Takes out the offer of that number, or the latest.
    pub(super) fn take(&mut self, number: Option<usize>) -> Option<(usize, OfferView)> {
        let latest = self.open.keys().next_back().copied();
        self.open.remove_entry(&number.or(latest)?)
    }

    /// Puts an offer back that could not be answered.
    pub(super) fn put_back(&mut self, number: usize, offer: OfferView) {
        self.open.insert(number, offer);
    }

    /// Takes out the offer of a transfer that moves or has ended.
    pub(super) fn end(&mut self, transfer: TransferId) -> Option<(usize, OfferView)> {
        self.open.remove_entry(&self.number_of(transfer)?)
    }

    fn number_of(&self, transfer: TransferId) -> Option<usize> {
        let mut open = self.open.iter();
        open.find_map(|(number, offer)| (offer.transfer == transfer).then_some(*number))
    }
}
