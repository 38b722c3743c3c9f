//! Files that come.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Instant;

use bytes::Bytes;
use common::hash::{FileDigest, leaf_count, leaf_len};
use common::id::{AccountName, TransferId};
use common::limits::{
    Fill, LEAVES_WRITING_MAX, OFFER_LIFETIME, OFFERS_PER_PEER_MAX, TRANSFERS_MAX,
};
use common::wire::peer::{
    CancelReason, DeclineReason, FileFrame, LeafHeader, Offer, PeerFrame, Reason,
};

use super::{LeafHashes, Outputs, Progress, tell};
use crate::node::Output;
use crate::node::command::{CommandError, Event, OfferView, TransferState};
use crate::node::io::{DiskAnswer, DiskRequest};
use crate::node::links::Links;
use crate::node::transport::LinkId;

/// All files that come, from the offer on.
#[derive(Debug, Default)]
pub(in crate::node) struct Receiving {
    transfers: BTreeMap<TransferId, Incoming>,
    /// Leaves that are with the disk. A transfer that was given up stays until they are answered.
    writing: BTreeMap<TransferId, usize>,
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
    Moving(Moving),
    /// All is here and verified; the disk is making it durable.
    Finishing {
        progress: Progress,
        digest: FileDigest,
    },
}

#[derive(Debug)]
struct Moving {
    hashes: LeafHashes,
    /// Leaves verified and written.
    written: u64,
    /// What the sender says the file adds up to, once it has read it all.
    announced: Option<FileDigest>,
    progress: Progress,
}

impl Receiving {
    /// How full everything is that has a bound.
    pub(in crate::node) fn fills(&self) -> [Fill; 2] {
        let mut of_peers: BTreeMap<&AccountName, usize> = BTreeMap::new();
        for incoming in self.transfers.values() {
            *of_peers.entry(&incoming.from).or_default() += 1;
        }
        let of_peers = of_peers.into_values();
        [
            Fill::new("files being received", self.transfers.len(), TRANSFERS_MAX),
            Fill::fullest("offers of a peer", of_peers, OFFERS_PER_PEER_MAX),
        ]
    }

    /// Somebody offers a file.
    pub(in crate::node) fn on_offer(
        &mut self,
        from: AccountName,
        link: LinkId,
        offer: Offer,
        links: &mut Links,
        now: Instant,
        outputs: &mut Outputs,
    ) {
        let transfer = offer.transfer;
        let of_peer = self
            .transfers
            .values()
            .filter(|incoming| incoming.from == from)
            .count();
        let is_bounded = offer.is_within_limits()
            && of_peer < OFFERS_PER_PEER_MAX
            && self.transfers.len() < TRANSFERS_MAX
            && !self.transfers.contains_key(&transfer);
        if !is_bounded {
            let reason = DeclineReason::LimitExceeded;
            return links.send(
                link,
                &PeerFrame::File(FileFrame::Decline { transfer, reason }),
            );
        }
        let incoming = Incoming {
            from,
            link,
            offer,
            state: State::Offered {
                until: now + OFFER_LIFETIME,
            },
        };
        outputs.push_back(Output::Event(Event::Offer(incoming.view())));
        self.transfers.insert(transfer, incoming);
    }

    /// Declines offers that nobody has answered for too long.
    pub(in crate::node) fn handle_timeout(
        &mut self,
        links: &mut Links,
        now: Instant,
        outputs: &mut Outputs,
    ) {
        let old = self
            .transfers
            .iter()
            .filter(|(_, incoming)| incoming.expires().is_some_and(|at| at <= now));
        let old: Vec<TransferId> = old.map(|(transfer, _)| *transfer).collect();
        for transfer in old {
            let reason = "nobody answered the offer".to_owned();
            self.refuse(transfer, DeclineReason::NoAnswer, reason, links, outputs);
        }
    }

    /// When [`Receiving::handle_timeout`] is due.
    pub(in crate::node) fn poll_timeout(&self) -> Option<Instant> {
        self.transfers.values().filter_map(Incoming::expires).min()
    }

    /// Tells whether this transfer is one of ours.
    pub(in crate::node) fn contains(&self, transfer: TransferId) -> bool {
        self.transfers.contains_key(&transfer)
    }

    /// Offers that nobody has answered.
    pub(in crate::node) fn offers(&self) -> Vec<OfferView> {
        let open = self
            .transfers
            .values()
            .filter(|incoming| matches!(incoming.state, State::Offered { .. }));
        open.map(Incoming::view).collect()
    }

    /// The person answers an offer.
    pub(in crate::node) fn answer(
        &mut self,
        transfer: TransferId,
        folder: Option<PathBuf>,
        links: &mut Links,
        outputs: &mut Outputs,
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
            links.send(
                incoming.link,
                &PeerFrame::File(FileFrame::Decline { transfer, reason }),
            );
            self.transfers.remove(&transfer);
            return Ok(());
        };
        incoming.state = State::Creating;
        outputs.push_back(Output::Disk(DiskRequest::Create {
            transfer,
            folder,
            name: incoming.offer.name.clone(),
            size: incoming.offer.size,
            executable: incoming.offer.executable,
        }));
        Ok(())
    }

    /// A leaf came. `false`: the other side broke the protocol.
    pub(in crate::node) fn on_leaf(
        &mut self,
        link: LinkId,
        header: LeafHeader,
        bytes: Bytes,
        outputs: &mut Outputs,
    ) -> bool {
        let LeafHeader {
            transfer,
            index,
            hash,
        } = header;
        let Some(incoming) = self.transfers.get_mut(&transfer) else {
            // Leaves of a transfer that was given up may still be on their way.
            return true;
        };
        let State::Moving(moving) = &mut incoming.state else {
            return false;
        };
        let is_expected = incoming.link == link
            && leaf_len(incoming.offer.size, index) == Some(bytes.len())
            && moving.hashes.insert(index, hash);
        if is_expected {
            *self.writing.entry(transfer).or_default() += 1;
            outputs.push_back(Output::Disk(DiskRequest::WriteLeaf {
                transfer,
                index,
                bytes,
                hash,
            }));
        }
        is_expected
    }

    /// The sender has sent all.
    pub(in crate::node) fn on_sent(
        &mut self,
        transfer: TransferId,
        link: LinkId,
        digest: FileDigest,
        links: &mut Links,
        outputs: &mut Outputs,
    ) {
        let Some(incoming) = self.transfers.get_mut(&transfer) else {
            return;
        };
        if let State::Moving(moving) = &mut incoming.state
            && incoming.link == link
        {
            moving.announced = Some(digest);
            self.finish_if_complete(transfer, links, outputs);
        }
    }

    /// The sender gives up.
    pub(in crate::node) fn on_cancel(
        &mut self,
        transfer: TransferId,
        link: LinkId,
        reason: &CancelReason,
        outputs: &mut Outputs,
    ) {
        if self
            .transfers
            .get(&transfer)
            .is_some_and(|incoming| incoming.link == link)
        {
            self.fail(transfer, reason.to_string(), outputs);
        }
    }

    /// A link is gone, and with it what it carried.
    pub(in crate::node) fn on_lost(&mut self, link: LinkId, reason: &str, outputs: &mut Outputs) {
        let carried: Vec<TransferId> = self
            .transfers
            .iter()
            .filter(|(_, incoming)| incoming.link == link && !incoming.is_finishing())
            .map(|(transfer, _)| *transfer)
            .collect();
        for transfer in carried {
            self.fail(transfer, format!("the link broke: {reason}"), outputs);
        }
    }

    /// The disk answers.
    pub(in crate::node) fn handle_disk(
        &mut self,
        transfer: TransferId,
        answer: DiskAnswer,
        links: &mut Links,
        now: Instant,
        outputs: &mut Outputs,
    ) {
        match answer {
            DiskAnswer::Created => self.on_created(transfer, links, now, outputs),
            DiskAnswer::Written { index } => {
                self.on_write_answered(transfer);
                self.on_written(transfer, index, links, now, outputs);
            }
            DiskAnswer::Mismatch { .. } => {
                self.on_write_answered(transfer);
                self.give_up(transfer, CancelReason::Mismatch, links, outputs);
            }
            DiskAnswer::Finished { path } => self.on_finished(transfer, path, links, now, outputs),
            DiskAnswer::BadName(reason) => {
                self.refuse(transfer, DeclineReason::Name, reason, links, outputs);
            }
            DiskAnswer::Failed(reason) => self.on_disk_failed(transfer, reason, links, outputs),
            DiskAnswer::Opened { .. } | DiskAnswer::Leaf { .. } => {}
        }
    }

    /// The person gives up.
    pub(in crate::node) fn cancel(
        &mut self,
        transfer: TransferId,
        links: &mut Links,
        outputs: &mut Outputs,
    ) {
        self.give_up(transfer, CancelReason::Cancelled, links, outputs);
    }

    /// Tells whether the disk has as many leaves to write as it may.
    pub(in crate::node) fn is_full(&self) -> bool {
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

    fn on_created(
        &mut self,
        transfer: TransferId,
        links: &mut Links,
        now: Instant,
        outputs: &mut Outputs,
    ) {
        let Some(incoming) = self.transfers.get_mut(&transfer) else {
            // Given up meanwhile.
            return outputs.push_back(Output::Disk(DiskRequest::Drop { transfer }));
        };
        incoming.state = State::Moving(Moving {
            hashes: LeafHashes::default(),
            written: 0,
            announced: None,
            progress: Progress::start(transfer, incoming.offer.size, now, outputs),
        });
        links.expect_leaves(transfer, incoming.link, incoming.offer.size);
        links.send(
            incoming.link,
            &PeerFrame::File(FileFrame::Accept {
                transfer,
                have: Vec::new(),
            }),
        );
    }

    fn on_written(
        &mut self,
        transfer: TransferId,
        index: u64,
        links: &mut Links,
        now: Instant,
        outputs: &mut Outputs,
    ) {
        let Some(incoming) = self.transfers.get_mut(&transfer) else {
            return;
        };
        let State::Moving(moving) = &mut incoming.state else {
            return;
        };
        moving.written += 1;
        let len = leaf_len(incoming.offer.size, index).unwrap_or(0) as u64;
        moving.progress.advance(len, now, outputs);
        self.finish_if_complete(transfer, links, outputs);
    }

    fn finish_if_complete(
        &mut self,
        transfer: TransferId,
        links: &mut Links,
        outputs: &mut Outputs,
    ) {
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
            return self.give_up(transfer, CancelReason::Mismatch, links, outputs);
        }
        let progress = moving.progress;
        incoming.state = State::Finishing {
            progress,
            digest: announced,
        };
        outputs.push_back(Output::Disk(DiskRequest::Finish { transfer }));
    }

    fn on_finished(
        &mut self,
        transfer: TransferId,
        path: PathBuf,
        links: &mut Links,
        now: Instant,
        outputs: &mut Outputs,
    ) {
        let Some(incoming) = self.transfers.remove(&transfer) else {
            return;
        };
        let State::Finishing { progress, digest } = incoming.state else {
            return;
        };
        links.send(
            incoming.link,
            &PeerFrame::File(FileFrame::Received { transfer }),
        );
        let done = TransferState::Done {
            digest: digest.to_string(),
            total: progress.total,
            elapsed_ms: progress.elapsed_ms(now),
            path: Some(path),
        };
        tell(transfer, done, outputs);
    }

    fn on_disk_failed(
        &mut self,
        transfer: TransferId,
        reason: String,
        links: &mut Links,
        outputs: &mut Outputs,
    ) {
        self.on_write_answered(transfer);
        let state = self
            .transfers
            .get(&transfer)
            .map(|incoming| &incoming.state);
        match state {
            Some(State::Creating) => {
                let told = DeclineReason::Storage(Reason::lossy(&reason));
                self.refuse(transfer, told, reason, links, outputs);
            }
            Some(State::Moving(_) | State::Finishing { .. } | State::Offered { .. }) => {
                self.store_failed(transfer, reason, links, outputs);
            }
            None => {}
        }
    }

    fn store_failed(
        &mut self,
        transfer: TransferId,
        reason: String,
        links: &mut Links,
        outputs: &mut Outputs,
    ) {
        if let Some(incoming) = self.transfers.get(&transfer) {
            let told = CancelReason::Storage(Reason::lossy(&reason));
            links.send(
                incoming.link,
                &PeerFrame::File(FileFrame::Cancel {
                    transfer,
                    reason: told,
                }),
            );
        }
        self.fail(transfer, reason, outputs);
    }

    fn refuse(
        &mut self,
        transfer: TransferId,
        told: DeclineReason,
        reason: String,
        links: &mut Links,
        outputs: &mut Outputs,
    ) {
        if let Some(incoming) = self.transfers.get(&transfer) {
            links.send(
                incoming.link,
                &PeerFrame::File(FileFrame::Decline {
                    transfer,
                    reason: told,
                }),
            );
        }
        self.fail(transfer, reason, outputs);
    }

    fn give_up(
        &mut self,
        transfer: TransferId,
        reason: CancelReason,
        links: &mut Links,
        outputs: &mut Outputs,
    ) {
        let Some(incoming) = self.transfers.get(&transfer) else {
            return;
        };
        let words = match &reason {
            CancelReason::Cancelled => "cancelled".to_owned(),
            CancelReason::Source(_)
            | CancelReason::Storage(_)
            | CancelReason::Mismatch
            | CancelReason::Protocol => reason.to_string(),
        };
        links.send(
            incoming.link,
            &PeerFrame::File(FileFrame::Cancel { transfer, reason }),
        );
        self.fail(transfer, words, outputs);
    }

    fn fail(&mut self, transfer: TransferId, reason: String, outputs: &mut Outputs) {
        if self.transfers.remove(&transfer).is_some() {
            outputs.push_back(Output::Disk(DiskRequest::Drop { transfer }));
            tell(transfer, TransferState::Failed { reason }, outputs);
        }
    }
}

impl Incoming {
    /// All of it is here: nothing more is needed of the sender.
    const fn is_finishing(&self) -> bool {
        matches!(self.state, State::Finishing { .. })
    }

    const fn expires(&self) -> Option<Instant> {
        match self.state {
            State::Offered { until } => Some(until),
            State::Creating | State::Moving(_) | State::Finishing { .. } => None,
        }
    }

    fn view(&self) -> OfferView {
        OfferView {
            transfer: self.offer.transfer,
            from: self.from.clone(),
            name: self.offer.name.clone(),
            size: self.offer.size,
            executable: self.offer.executable,
        }
    }
}
