//! Files that come.

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::time::Instant;

use bytes::Bytes;
use common::hash::{FileDigest, leaf_count, leaf_len};
use common::id::{AccountName, TransferId};
use common::limits::{
    LEAVES_WRITING_MAX, OFFER_LIFETIME, OFFERS_PER_ACCOUNT_MAX, Occupancy, TRANSFERS_ENDED_MAX,
    TRANSFERS_MAX,
};
use common::wire::peer::{CancelReason, DeclineReason, FileFrame, LeafHeader, Offer, Reason};

use super::progress::Progress;
use super::{LeafHashes, NODE_ENDS, kind_of, tell};
use crate::node::command::{
    CommandError, Direction, Event, FailureKind, Moved, OfferView, TransferState, TransferView,
};
use crate::node::context::Context;
use crate::node::io::{DiskAnswer, DiskFailure, DiskRequest};
use crate::node::transport::{LinkId, Loss};
use crate::node::violation::ProtocolViolation;

/// All files that come, from the offer on.
#[derive(Debug, Default)]
pub(super) struct Receiving {
    transfers: BTreeMap<TransferId, Incoming>,
    /// Leaves that are with the disk. A transfer that was given up stays until they are answered.
    writing: BTreeMap<TransferId, usize>,
    ended: Ended,
}

/// The last word on each of the latest [`TRANSFERS_ENDED_MAX`] transfers, but for those that ended with their
/// link: an offer that was made over two links can come after the end.
#[derive(Debug, Default)]
struct Ended(VecDeque<(AccountName, TransferId, FileFrame)>);

impl Ended {
    fn remember(&mut self, from: AccountName, transfer: TransferId, word: FileFrame) {
        if self.0.len() >= TRANSFERS_ENDED_MAX {
            self.0.pop_front();
        }
        self.0.push_back((from, transfer, word));
    }

    fn word_on(&self, from: &AccountName, transfer: TransferId) -> Option<&FileFrame> {
        let mut ended = self.0.iter();
        let found = ended.find(|(account, id, _)| account == from && *id == transfer);
        found.map(|(_, _, word)| word)
    }
}

#[derive(Debug)]
struct Incoming {
    from: AccountName,
    link: LinkId,
    offer: Offer,
    state: State,
}

#[derive(Debug)]
enum State {
    /// Nobody has answered the offer.
    Offered { until: Instant },
    /// Accepted; the disk is making room.
    Creating,
    /// Leaves come in.
    Moving(LeafReceiver),
    /// All is here and verified; the disk is making it durable.
    Finishing {
        progress: Progress,
        digest: FileDigest,
    },
}

#[derive(Debug)]
struct LeafReceiver {
    hashes: LeafHashes,
    /// Leaves verified and written.
    written: u64,
    /// The bytes of those leaves.
    written_bytes: u64,
    /// What the sender says the file adds up to, once it has read it all.
    announced: Option<FileDigest>,
    progress: Progress,
}

impl Receiving {
    /// The occupancy of each bounded resource.
    pub(super) fn occupancies(&self) -> [Occupancy; 2] {
        let mut of_peers: BTreeMap<&AccountName, usize> = BTreeMap::new();
        for incoming in self.transfers.values() {
            *of_peers.entry(&incoming.from).or_default() += 1;
        }
        let of_peers = of_peers.into_values();
        [
            Occupancy::new("files being received", self.transfers.len(), TRANSFERS_MAX),
            Occupancy::fullest("offers of a peer", of_peers, OFFERS_PER_ACCOUNT_MAX),
        ]
    }

    /// Somebody offers a file.
    pub(super) fn on_offer(
        &mut self,
        from: AccountName,
        link: LinkId,
        offer: Offer,
        cx: &mut Context<'_>,
    ) {
        let transfer = offer.transfer;
        if let Some(incoming) = self.transfers.get_mut(&transfer)
            && incoming.is_made_again(&from, link, &offer)
        {
            return incoming.answer_over(link, cx);
        }
        if let Some(word) = self.ended.word_on(&from, transfer) {
            return cx.send(link, word.clone());
        }
        let of_peer = self
            .transfers
            .values()
            .filter(|incoming| incoming.from == from)
            .count();
        let is_bounded = offer.is_within_limits()
            && of_peer < OFFERS_PER_ACCOUNT_MAX
            && self.transfers.len() < TRANSFERS_MAX
            && !self.transfers.contains_key(&transfer);
        if !is_bounded {
            let reason = DeclineReason::LimitExceeded;
            return cx.send(link, FileFrame::Decline { transfer, reason });
        }
        let incoming = Incoming {
            from,
            link,
            offer,
            state: State::Offered {
                until: cx.now + OFFER_LIFETIME,
            },
        };
        cx.event(Event::Offer(incoming.offer_view()));
        self.transfers.insert(transfer, incoming);
    }

    /// Declines offers that nobody has answered for too long.
    pub(super) fn handle_timeout(&mut self, cx: &mut Context<'_>) {
        let old = self
            .transfers
            .iter()
            .filter(|(_, incoming)| incoming.expires().is_some_and(|at| at <= cx.now));
        let old: Vec<TransferId> = old.map(|(transfer, _)| *transfer).collect();
        for transfer in old {
            let reason = "nobody answered the offer".to_owned();
            self.refuse(transfer, DeclineReason::NoAnswer, reason, cx);
        }
    }

    /// When [`Receiving::handle_timeout`] is due.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.transfers.values().filter_map(Incoming::expires).min()
    }

    /// Accounts that files come from.
    pub(super) fn senders(&self) -> impl Iterator<Item = &AccountName> {
        self.transfers.values().map(|incoming| &incoming.from)
    }

    /// Offers that nobody has answered.
    pub(super) fn offers(&self) -> Vec<OfferView> {
        let open = self
            .transfers
            .values()
            .filter(|incoming| matches!(incoming.state, State::Offered { .. }));
        open.map(Incoming::offer_view).collect()
    }

    /// The transfers that were accepted.
    pub(super) fn views(&self) -> impl Iterator<Item = TransferView> {
        self.transfers.values().filter_map(Incoming::view)
    }

    /// The person answers an offer, perhaps with another name for the file.
    pub(super) fn answer(
        &mut self,
        transfer: TransferId,
        folder: Option<PathBuf>,
        name: Option<String>,
        cx: &mut Context<'_>,
    ) -> Result<(), CommandError> {
        let incoming = self
            .transfers
            .get_mut(&transfer)
            .ok_or(CommandError::NoSuchTransfer)?;
        if !matches!(incoming.state, State::Offered { .. }) {
            return Err(CommandError::NoSuchTransfer);
        }
        let Some(folder) = folder else {
            let reason = DeclineReason::Declined;
            let told = reason.to_string();
            self.say_last(transfer, FileFrame::Decline { transfer, reason }, cx);
            self.transfers.remove(&transfer);
            tell(transfer, TransferState::Declined { reason: told }, cx);
            return Ok(());
        };
        incoming.state = State::Creating;
        cx.disk(DiskRequest::Create {
            transfer,
            folder,
            name: name.unwrap_or_else(|| incoming.offer.name.clone()),
            size: incoming.offer.size,
            executable: incoming.offer.executable,
        });
        Ok(())
    }

    /// How many bytes a leaf has, if it is expected on this link.
    pub(super) fn room(&self, link: LinkId, header: &LeafHeader) -> Option<usize> {
        let incoming = self.transfers.get(&header.transfer)?;
        let is_moving = matches!(incoming.state, State::Moving(_) | State::Finishing { .. });
        if incoming.link != link || !is_moving {
            return None;
        }
        leaf_len(incoming.offer.size, header.index)
    }

    /// Takes a whole leaf that there was [room](Receiving::room) for.
    ///
    /// # Errors
    /// It is not expected: it came already, or all of them did.
    pub(super) fn on_leaf(
        &mut self,
        link: LinkId,
        header: LeafHeader,
        bytes: Bytes,
        cx: &mut Context<'_>,
    ) -> Result<(), ProtocolViolation> {
        let LeafHeader {
            transfer,
            index,
            hash,
        } = header;
        let Some(incoming) = self.transfers.get_mut(&transfer) else {
            // Leaves of a transfer that was given up may still be on their way.
            return Ok(());
        };
        let State::Moving(moving) = &mut incoming.state else {
            return Err(ProtocolViolation::UnexpectedLeaf);
        };
        let is_expected = incoming.link == link
            && leaf_len(incoming.offer.size, index) == Some(bytes.len())
            && moving.hashes.insert(index, hash);
        if !is_expected {
            return Err(ProtocolViolation::UnexpectedLeaf);
        }
        *self.writing.entry(transfer).or_default() += 1;
        cx.disk(DiskRequest::WriteLeaf {
            transfer,
            index,
            bytes,
            hash,
        });
        Ok(())
    }

    /// So many bytes of a leaf have arrived, and not all of it.
    pub(super) fn on_arriving(&mut self, transfer: TransferId, len: usize, cx: &mut Context<'_>) {
        if let Some(incoming) = self.transfers.get_mut(&transfer)
            && let State::Moving(moving) = &mut incoming.state
        {
            moving.progress.reach(moving.written_bytes + len as u64, cx);
        }
    }

    /// The sender has sent all.
    pub(super) fn on_sent(
        &mut self,
        transfer: TransferId,
        link: LinkId,
        digest: FileDigest,
        cx: &mut Context<'_>,
    ) {
        let Some(incoming) = self.transfers.get_mut(&transfer) else {
            return;
        };
        if let State::Moving(moving) = &mut incoming.state
            && incoming.link == link
        {
            moving.announced = Some(digest);
            self.finish_if_complete(transfer, cx);
        }
    }

    /// The sender gives up. It hears whether that was in time.
    pub(super) fn on_cancel(
        &mut self,
        transfer: TransferId,
        link: LinkId,
        reason: &CancelReason,
        cx: &mut Context<'_>,
    ) {
        let Some(incoming) = self.transfers.get(&transfer) else {
            return;
        };
        if incoming.link != link || incoming.is_finishing() {
            return;
        }
        let word = FileFrame::Cancel {
            transfer,
            reason: CancelReason::Cancelled,
        };
        if matches!(incoming.state, State::Moving(_)) {
            cx.send(link, word.clone());
        }
        // It may be that an offer over another link crossed the answer, and that this link alone is left.
        if !incoming.awaits_first_leaf() {
            self.ended.remember(incoming.from.clone(), transfer, word);
        }
        self.fail(transfer, reason.to_string(), kind_of(reason), cx);
    }

    /// A link is gone, and with it what it carried.
    pub(super) fn on_lost(&mut self, link: LinkId, reason: &Loss, cx: &mut Context<'_>) {
        let carried: Vec<TransferId> = self
            .transfers
            .iter()
            .filter(|(_, incoming)| incoming.link == link && !incoming.is_finishing())
            .map(|(transfer, _)| *transfer)
            .collect();
        for transfer in carried {
            let incoming = self.transfers.get(&transfer);
            let (kind, reason) = match incoming.filter(|incoming| incoming.expires().is_some()) {
                Some(incoming) => {
                    let reason = reason.of_partner(&incoming.from, "");
                    (FailureKind::Unanswered, reason)
                }
                None => (FailureKind::Broken, format!("the link broke ({reason})")),
            };
            self.fail(transfer, reason, kind, cx);
        }
    }

    /// The disk answers.
    pub(super) fn handle_disk(
        &mut self,
        transfer: TransferId,
        answer: DiskAnswer,
        cx: &mut Context<'_>,
    ) {
        match answer {
            DiskAnswer::Created => self.on_created(transfer, cx),
            DiskAnswer::Written { index } => {
                self.on_write_answered(transfer);
                self.on_written(transfer, index, cx);
            }
            DiskAnswer::Mismatch { .. } => {
                self.on_write_answered(transfer);
                self.give_up(transfer, CancelReason::Mismatch, cx);
            }
            DiskAnswer::Finished { path } => self.on_finished(transfer, path, cx),
            DiskAnswer::BadName(reason) => {
                self.refuse(transfer, DeclineReason::Name, reason, cx);
            }
            DiskAnswer::Failed(failure) => self.on_disk_failed(transfer, failure, cx),
            DiskAnswer::Opened { .. } | DiskAnswer::Leaf { .. } => {}
        }
    }

    /// The node stops: gives up what has not all arrived.
    pub(super) fn cancel_all(&mut self, cx: &mut Context<'_>) {
        let incoming = self.transfers.iter();
        let taken = incoming.filter(|(_, it)| it.is_taken() && !it.is_finishing());
        let taken: Vec<TransferId> = taken.map(|(transfer, _)| *transfer).collect();
        for transfer in taken {
            self.stop(transfer, CancelReason::Cancelled, cx);
            self.fail(transfer, NODE_ENDS.to_owned(), FailureKind::NodeEnds, cx);
        }
    }

    /// The person gives up. Tells whether that was in time.
    pub(super) fn cancel(&mut self, transfer: TransferId, cx: &mut Context<'_>) -> bool {
        let incoming = self.transfers.get(&transfer);
        let is_in_time = incoming.is_some_and(|incoming| !incoming.is_finishing());
        if is_in_time {
            self.give_up(transfer, CancelReason::Cancelled, cx);
        }
        is_in_time
    }

    /// Tells whether the disk has as many leaves to write as it may.
    pub(super) fn is_full(&self) -> bool {
        self.writing.values().sum::<usize>() >= LEAVES_WRITING_MAX
    }

    /// The disk has answered a write, if one was open: nothing else fails while leaves are written.
    fn on_write_answered(&mut self, transfer: TransferId) {
        if let Some(open) = self.writing.get_mut(&transfer) {
            *open -= 1;
            if *open == 0 {
                self.writing.remove(&transfer);
            }
        }
    }

    fn on_created(&mut self, transfer: TransferId, cx: &mut Context<'_>) {
        let Some(incoming) = self.transfers.get_mut(&transfer) else {
            // Given up meanwhile.
            return cx.disk(DiskRequest::Drop { transfer });
        };
        incoming.state = State::Moving(LeafReceiver {
            hashes: LeafHashes::default(),
            written: 0,
            written_bytes: 0,
            announced: None,
            progress: Progress::start(transfer, incoming.offer.size, cx),
        });
        incoming.accept(cx);
    }

    fn on_written(&mut self, transfer: TransferId, index: u64, cx: &mut Context<'_>) {
        let Some(incoming) = self.transfers.get_mut(&transfer) else {
            return;
        };
        let State::Moving(moving) = &mut incoming.state else {
            return;
        };
        moving.written += 1;
        moving.written_bytes += leaf_len(incoming.offer.size, index).unwrap_or(0) as u64;
        moving.progress.reach(moving.written_bytes, cx);
        self.finish_if_complete(transfer, cx);
    }

    fn finish_if_complete(&mut self, transfer: TransferId, cx: &mut Context<'_>) {
        let Some(incoming) = self.transfers.get_mut(&transfer) else {
            return;
        };
        let State::Moving(moving) = &mut incoming.state else {
            return;
        };
        let size = incoming.offer.size;
        let Some(announced) = moving.announced else {
            return;
        };
        if moving.written < leaf_count(size) {
            return;
        }
        if moving.hashes.digest(size) != Some(announced) {
            return self.give_up(transfer, CancelReason::Mismatch, cx);
        }
        let progress = moving.progress;
        incoming.state = State::Finishing {
            progress,
            digest: announced,
        };
        cx.disk(DiskRequest::Finish { transfer });
    }

    fn on_finished(&mut self, transfer: TransferId, path: PathBuf, cx: &mut Context<'_>) {
        let Some(incoming) = self.transfers.get(&transfer) else {
            return;
        };
        let State::Finishing { progress, digest } = incoming.state else {
            return;
        };
        self.say_last(transfer, FileFrame::Received { transfer }, cx);
        self.transfers.remove(&transfer);
        let done = TransferState::Done {
            digest: digest.to_string(),
            total: progress.total,
            elapsed_ms: progress.elapsed_ms(cx.now),
            path: Some(path),
        };
        tell(transfer, done, cx);
    }

    fn on_disk_failed(&mut self, transfer: TransferId, failure: DiskFailure, cx: &mut Context<'_>) {
        self.on_write_answered(transfer);
        let state = self
            .transfers
            .get(&transfer)
            .map(|incoming| &incoming.state);
        match state {
            Some(State::Creating) => {
                let told = DeclineReason::Storage(Reason::lossy(failure.told));
                self.refuse(transfer, told, failure.reason, cx);
            }
            Some(State::Moving(_) | State::Finishing { .. } | State::Offered { .. }) => {
                self.store_failed(transfer, failure, cx);
            }
            None => {}
        }
    }

    fn store_failed(&mut self, transfer: TransferId, failure: DiskFailure, cx: &mut Context<'_>) {
        let reason = CancelReason::Storage(Reason::lossy(failure.told));
        self.stop(transfer, reason, cx);
        self.fail(transfer, failure.reason, FailureKind::Broken, cx);
    }

    fn refuse(
        &mut self,
        transfer: TransferId,
        told: DeclineReason,
        reason: String,
        cx: &mut Context<'_>,
    ) {
        let word = FileFrame::Decline {
            transfer,
            reason: told,
        };
        self.say_last(transfer, word, cx);
        self.fail(transfer, reason, FailureKind::Broken, cx);
    }

    fn give_up(&mut self, transfer: TransferId, reason: CancelReason, cx: &mut Context<'_>) {
        let words = match &reason {
            CancelReason::Cancelled => "cancelled".to_owned(),
            CancelReason::Source(_)
            | CancelReason::Storage(_)
            | CancelReason::Mismatch
            | CancelReason::Protocol => reason.to_string(),
        };
        let kind = kind_of(&reason);
        self.stop(transfer, reason, cx);
        self.fail(transfer, words, kind, cx);
    }

    /// Tells the sender that nothing more is taken.
    fn stop(&mut self, transfer: TransferId, reason: CancelReason, cx: &mut Context<'_>) {
        self.say_last(transfer, FileFrame::Cancel { transfer, reason }, cx);
    }

    /// Tells the sender how a transfer ends here.
    fn say_last(&mut self, transfer: TransferId, word: FileFrame, cx: &mut Context<'_>) {
        if let Some(incoming) = self.transfers.get(&transfer) {
            cx.send(incoming.link, word.clone());
            self.ended.remember(incoming.from.clone(), transfer, word);
        }
    }

    fn fail(
        &mut self,
        transfer: TransferId,
        reason: String,
        kind: FailureKind,
        cx: &mut Context<'_>,
    ) {
        if self.transfers.remove(&transfer).is_some() {
            cx.disk(DiskRequest::Drop { transfer });
            tell(transfer, TransferState::Failed { reason, kind }, cx);
        }
    }
}

impl Incoming {
    /// Tells whether an offer is this one, which its sender makes again over another link because the last
    /// one is silent. Nothing of the file has come.
    fn is_made_again(&self, from: &AccountName, link: LinkId, offer: &Offer) -> bool {
        let is_waiting = matches!(self.state, State::Offered { .. }) || self.awaits_first_leaf();
        is_waiting && self.from == *from && self.link != link && self.offer == *offer
    }

    /// It was accepted, and nothing of it has come.
    fn awaits_first_leaf(&self) -> bool {
        match &self.state {
            State::Creating => true,
            State::Moving(moving) => moving.hashes.0.is_empty(),
            State::Offered { .. } | State::Finishing { .. } => false,
        }
    }

    /// Answers over this link from now on, also what was answered before.
    fn answer_over(&mut self, link: LinkId, cx: &mut Context<'_>) {
        self.link = link;
        if let State::Moving(_) = self.state {
            self.accept(cx);
        }
    }

    fn accept(&self, cx: &mut Context<'_>) {
        let accept = FileFrame::Accept {
            transfer: self.offer.transfer,
            have: Vec::new(),
        };
        cx.send(self.link, accept);
    }

    /// All of it is here: nothing more is needed of the sender.
    const fn is_finishing(&self) -> bool {
        matches!(self.state, State::Finishing { .. })
    }

    /// It was accepted, and is not all here.
    const fn is_taken(&self) -> bool {
        matches!(self.state, State::Creating | State::Moving(_))
    }

    const fn expires(&self) -> Option<Instant> {
        match self.state {
            State::Offered { until } => Some(until),
            State::Creating | State::Moving(_) | State::Finishing { .. } => None,
        }
    }

    fn view(&self) -> Option<TransferView> {
        let state = match &self.state {
            State::Offered { .. } => return None,
            State::Creating => TransferState::Moving(Moved {
                done: 0,
                total: self.offer.size,
                is_behind: false,
            }),
            State::Moving(LeafReceiver { progress, .. }) | State::Finishing { progress, .. } => {
                progress.state()
            }
        };
        Some(TransferView {
            transfer: self.offer.transfer,
            direction: Direction::Received,
            with: self.from.clone(),
            name: self.offer.name.clone(),
            state,
        })
    }

    fn offer_view(&self) -> OfferView {
        OfferView {
            transfer: self.offer.transfer,
            from: self.from.clone(),
            name: self.offer.name.clone(),
            size: self.offer.size,
            executable: self.offer.executable,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_end_is_forgotten_first() {
        let account = |name: &str| name.parse::<AccountName>().unwrap();
        let id = |number: usize| TransferId::from_bytes((number as u128).to_be_bytes());
        let mut ended = Ended::default();
        for number in 0..=TRANSFERS_ENDED_MAX {
            let transfer = id(number);
            let word = FileFrame::Received { transfer };
            ended.remember(account("alice"), transfer, word);
        }
        assert_eq!(ended.0.len(), TRANSFERS_ENDED_MAX);
        let alice = account("alice");
        assert_eq!(ended.word_on(&alice, id(0)), None);
        let transfer = id(1);
        let word = FileFrame::Received { transfer };
        assert_eq!(ended.word_on(&alice, transfer), Some(&word));
        assert_eq!(ended.word_on(&account("carol"), transfer), None);
    }
}
