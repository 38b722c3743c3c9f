//! Files that others offer, and the numbers that the person calls files by.

use std::collections::BTreeMap;
use std::time::Instant;

use common::id::TransferId;

use super::io::{Item, Objection, RequestError};
use super::transfers::{Transfer, Way};
use super::{Conversation, Purpose};
use crate::failure::Failure;
use crate::node::command::{Command, FailureKind, OfferView, Reply, TransferState};
use crate::shell::names::FileName;

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

impl Conversation {
    /// The person takes or declines an offer.
    pub(super) fn answer_offer(
        &mut self,
        number: Option<usize>,
        is_accepted: bool,
        name: Option<FileName>,
    ) {
        let Some((number, offer)) = self.offers.take(number) else {
            return self.object(Objection::NoSuchOffer);
        };
        if is_accepted && name.is_none() && FileName::parse(&offer.name).is_err() {
            let substitute = FileName::substitute(&offer.name);
            self.offers.put_back(number, offer);
            return self.object(Objection::OddName { number, substitute });
        }
        let name = name.map(|name| name.as_str().to_owned());
        let command = Command::AnswerOffer {
            transfer: offer.transfer,
            folder: is_accepted.then(|| self.folder.clone()),
            name: name.clone(),
        };
        let purpose = Purpose::AnswerOffer {
            number,
            name: name.unwrap_or_else(|| offer.name.clone()),
            offer,
            is_accepted,
        };
        self.ask("answer the offer", command, purpose);
    }

    /// The node has the answer to an offer, or could not take it.
    pub(super) fn on_offer_answered(
        &mut self,
        number: usize,
        offer: OfferView,
        taken_as: Option<String>,
        result: Result<Reply, RequestError>,
        now: Instant,
    ) -> Result<(), Failure> {
        match (result, taken_as) {
            (Ok(_), Some(name)) => {
                let transfer = Transfer {
                    number,
                    name: name.clone(),
                    way: Way::From(offer.from),
                };
                self.transfers.follow(offer.transfer, transfer, None, now);
                let folder = self.folder.clone();
                self.show(Item::Accepted { name, folder });
            }
            (Ok(_), None) => self.show(Item::Declined { name: offer.name }),
            (Err(RequestError::NoSuchTransfer), _) => self.object(Objection::OfferEnded),
            (Err(RequestError::Failed(failure)), _) => {
                self.offers.put_back(number, offer);
                return Err(failure);
            }
        }
        Ok(())
    }
}
