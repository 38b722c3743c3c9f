//! How a conversation ends: what the person is told before, what is still waited for, what is cut off.

use std::time::{Duration, Instant};

use common::id::TransferId;

use super::io::{Ending, Objection, Output};
use super::sent::Waiting;
use super::transfers::{Stage, Transfer};
use super::{Conversation, Purpose};
use crate::node::command::{Command, OfferView};

/// Time for messages to be delivered after the end of piped input: enough to look up and dial a device.
pub(super) const DELIVERY_TIMEOUT: Duration = Duration::from_secs(10);

/// How far the end is.
#[derive(Debug, Default)]
pub(super) struct Farewell {
    /// The person leaves once it is known what waits.
    is_leaving: bool,
    turn: Turn,
    /// The input has ended; the conversation ends at this time, or when everything is delivered.
    until: Option<Instant>,
}

/// What the person was told of the end because of the last thing typed.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Turn {
    /// It would have ended transfers.
    is_warned: bool,
    /// It was Ctrl-C.
    is_interrupted: bool,
}

impl Farewell {
    /// Something was typed: returns what was told because of the thing before.
    pub(super) fn next_turn(&mut self) -> Turn {
        std::mem::take(&mut self.turn)
    }

    /// The input has ended.
    pub(super) fn begin(&mut self, now: Instant) {
        self.until = Some(now + DELIVERY_TIMEOUT);
    }

    /// Tells whether the input has ended.
    pub(super) const fn has_begun(&self) -> bool {
        self.until.is_some()
    }

    /// Something is on its way that was waited for.
    pub(super) fn postpone(&mut self, now: Instant) {
        if let Some(until) = &mut self.until {
            *until = now + DELIVERY_TIMEOUT;
        }
    }

    /// When the conversation ends at the latest.
    pub(super) const fn poll_timeout(&self) -> Option<Instant> {
        self.until
    }
}

impl Conversation {
    /// The transfers that end with this conversation, should it end now.
    pub(crate) fn cut_off(&self) -> Vec<(TransferId, Transfer)> {
        self.transfers.all_with_ids()
    }

    /// Offers that nobody has answered.
    pub(crate) fn unanswered(&self) -> Vec<&OfferView> {
        self.offers.all().map(|(_, offer)| offer).collect()
    }

    /// The person has pressed Ctrl-C, which ends the conversation the second time.
    pub(super) fn interrupt(&mut self, before: Turn) {
        if before.is_interrupted || before.is_warned || self.cancels_by_leaving() {
            return self.leave(before);
        }
        self.farewell.turn.is_interrupted = true;
        self.object(Objection::InterruptOnce);
    }

    /// Ends the conversation once the node has told what waits; at once if the person insists. Whoever was
    /// not warned of transfers that end with it is, but for a program, which is not asked back.
    pub(super) fn leave(&mut self, before: Turn) {
        if self.is_interactive && self.cancels_by_leaving() && !before.is_warned {
            self.farewell.turn.is_warned = true;
            return self.object(Objection::UnderWay(self.owned_underway()));
        }
        if std::mem::replace(&mut self.farewell.is_leaving, true) {
            return self.end_as_left(self.sent.waiting());
        }
        self.ask("look into the outbox", Command::Outbox, Purpose::Leave);
    }

    /// Tells whether transfers end with this conversation.
    fn cancels_by_leaving(&self) -> bool {
        !self.transfers.is_empty()
    }

    /// All transfers of this conversation, and how far each is.
    pub(super) fn owned_underway(&self) -> Vec<(Transfer, Stage)> {
        let underway = self.transfers.underway().into_iter();
        let owned = underway.map(|(transfer, stage)| (transfer.clone(), stage));
        owned.collect()
    }

    /// Ends a conversation whose input has ended, if all that it waited for is done.
    pub(super) fn end_if_done(&mut self) {
        let is_done = self.farewell.has_begun()
            && self.asked.is_empty()
            && self.transfers.is_empty()
            && !self.sent.is_waiting();
        if is_done {
            self.tell_receipts();
            self.end_as_left(Vec::new());
        }
    }

    /// Ends a conversation whose input has ended, if its time is up.
    pub(super) fn end_if_late(&mut self, now: Instant) {
        if self.farewell.until.is_none_or(|until| now < until) {
            return;
        }
        let waiting = self.sent.waiting();
        let transfers = self.transfers.all();
        if waiting.is_empty() && transfers.is_empty() {
            return self.end_as_left(waiting);
        }
        self.cancel_all();
        self.end(Ending::Unfinished { waiting, transfers });
    }

    /// The person has left; so much waits.
    pub(super) fn end_as_left(&mut self, waiting: Vec<Waiting>) {
        let cancelled = self.cancel_all();
        self.end(Ending::Left { waiting, cancelled });
    }

    /// Cancels all transfers of this conversation. The node may outlive it, for other programs.
    fn cancel_all(&mut self) -> Vec<Transfer> {
        for (transfer, _) in self.transfers.all_with_ids() {
            let command = Command::Cancel { transfer };
            self.ask("cancel a transfer", command, Purpose::Cancel);
        }
        self.transfers.all()
    }

    pub(super) fn end(&mut self, ending: Ending) {
        self.outputs.push_back(Output::End(ending));
    }
}
