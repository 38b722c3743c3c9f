//! Offers that end with the program that had made them, and are made again by the one that goes on.
//!
//! Only what has not moved is offered again: the other side may have taken part of the rest.

use std::time::Instant;

use common::id::TransferId;

use super::io::RequestError;
use super::transfers::Lost;
use super::{Conversation, Purpose, failure};
use crate::failure::Failure;
use crate::node::command::{Command, Event, FailureKind, Reply, TransferState};

impl Conversation {
    /// The program with the node ends before anything has moved: the offer is made without it.
    pub(super) fn is_to_be_offered_again(&mut self, id: TransferId, state: &TransferState) -> bool {
        let is_stopped = matches!(
            state,
            TransferState::Failed {
                kind: FailureKind::NodeEnds,
                ..
            }
        );
        is_stopped && self.transfers.lose(id)
    }

    /// Asks another node whether it is connected, if offers wait for that.
    pub(super) fn look_for_connection(&mut self) {
        if self.transfers.has_lost() {
            self.ask("offer files again", Command::Status, Purpose::Connected);
        }
    }

    /// Makes offers again through a node that is connected.
    pub(super) fn offer_again(&mut self) {
        for lost in self.transfers.take_lost() {
            let Lost { id, to, name, path } = lost;
            let doing = format!("send {name} to {to}");
            let purpose = Purpose::OfferAgain { before: id };
            self.ask(doing, Command::SendFile { to, path }, purpose);
        }
    }

    /// The node makes an offer again, or could not: then that is its end.
    pub(super) fn on_begun_again(
        &mut self,
        doing: &str,
        before: TransferId,
        result: Result<Reply, RequestError>,
        now: Instant,
    ) -> Result<(), Failure> {
        let error = match result {
            Ok(Reply::Started(id)) => {
                if !self.transfers.on_begun_again(before, id, now) {
                    let command = Command::Cancel { transfer: id };
                    self.ask("cancel a transfer", command, Purpose::Cancel);
                }
                return Ok(());
            }
            Ok(_) => Failure::unexpected_reply(doing),
            Err(error) => failure(error, doing),
        };
        if self.transfers.end(before).is_none() {
            return Ok(());
        }
        self.tell(Event::Transfer {
            transfer: before,
            state: node_has_ended(),
        });
        Err(error)
    }
}

pub(super) fn node_has_ended() -> TransferState {
    TransferState::Failed {
        reason: "the program that carried it has ended".to_owned(),
        kind: FailureKind::NodeEnds,
    }
}
