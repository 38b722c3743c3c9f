//! Files that others offer, by the numbers that the person calls them.

use std::collections::BTreeMap;

use common::id::TransferId;

use crate::node::command::OfferView;

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
        self.last += 1;
        self.open.insert(self.last, offer);
        Some(self.last)
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

    /// Takes out the offer of a transfer that has ended.
    pub(super) fn end(&mut self, transfer: TransferId) -> Option<(usize, OfferView)> {
        self.open.remove_entry(&self.number_of(transfer)?)
    }

    fn number_of(&self, transfer: TransferId) -> Option<usize> {
        let mut open = self.open.iter();
        open.find_map(|(number, offer)| (offer.transfer == transfer).then_some(*number))
    }
}
