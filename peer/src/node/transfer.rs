//! Transfers: files on their way, in both directions.
//!
//! A file is offered, accepted, sent leaf by leaf, verified leaf by leaf and as a whole, made durable
//! and only then given its name. Both directions have back-pressure: the sender reads a leaf from disk
//! when an earlier one has been sent, and the receiver stops reading from the network while too many
//! leaves wait to be written.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Instant;

use common::hash::{FileDigest, LeafHash, file_digest, leaf_count};
use common::id::{AccountName, TransferId};
use common::limits::Occupancy;
use common::wire::peer::{CancelReason, FileFrame};
use rand::RngExt;

use super::command::{
    CommandError, CommandId, Event, FailureKind, OfferView, Reply, TransferState, TransferView,
};
use super::context::Context;
use super::io::DiskAnswer;
use super::links::LinkChange;
use super::transport::{LinkId, StreamId};
use super::violation::ProtocolViolation;
use receive::Receiving;
use send::Sending;

// How far transfers are.
mod progress;
// Files that are received.
mod receive;
// Files that are sent.
mod send;

/// All transfers of a node.
#[derive(Debug, Default)]
pub(super) struct Transfers {
    sending: Sending,
    receiving: Receiving,
    /// No leaves are read from the network, because as many as may are waiting to be written.
    is_paused: bool,
}

impl Transfers {
    /// The occupancy of each bounded resource.
    pub(super) fn occupancies(&self) -> Vec<Occupancy> {
        let mut occupancies = self.receiving.occupancies().to_vec();
        occupancies.push(self.sending.occupancy());
        occupancies
    }

    /// Accounts that files go to or come from.
    pub(super) fn partners(&self) -> impl Iterator<Item = &AccountName> {
        self.sending.recipients().chain(self.receiving.senders())
    }

    // ---- commands ------------------------------------------------------------------------------

    /// Offers a file. `own` is the account of this device.
    pub(super) fn send_file(
        &mut self,
        command: CommandId,
        to: AccountName,
        path: PathBuf,
        own: &AccountName,
        cx: &mut Context<'_>,
    ) {
        if *own == to {
            let reason = "that is this account; copy the file instead".to_owned();
            return cx.reply(command, Err(CommandError::Invalid(reason)));
        }
        let transfer = TransferId::from_bytes(cx.rng.random());
        self.sending.start(transfer, to, path, command, cx);
    }

    /// Accepts an offer into a folder, perhaps under another name, or declines it.
    pub(super) fn answer_offer(
        &mut self,
        command: CommandId,
        transfer: TransferId,
        folder: Option<PathBuf>,
        name: Option<String>,
        cx: &mut Context<'_>,
    ) {
        let done = self.receiving.answer(transfer, folder, name, cx);
        cx.reply(command, done.map(|()| Reply::Done));
    }

    /// Cancels a transfer of either direction.
    pub(super) fn cancel(
        &mut self,
        command: CommandId,
        transfer: TransferId,
        cx: &mut Context<'_>,
    ) {
        if self.sending.contains(transfer) {
            return self.sending.cancel(transfer, command, cx);
        }
        let is_cancelled = self.receiving.cancel(transfer, cx);
        let reply = is_cancelled.then_some(Reply::Done);
        cx.reply(command, reply.ok_or(CommandError::NoSuchTransfer));
    }

    /// The node stops: tells the other sides that what is under way ends.
    pub(super) fn shut_down(&mut self, cx: &mut Context<'_>) {
        self.sending.cancel_all(cx);
        self.receiving.cancel_all(cx);
    }

    /// Received offers that nobody has answered.
    pub(super) fn offers(&self) -> Vec<OfferView> {
        self.receiving.offers()
    }

    /// What is on its way, in either direction.
    pub(super) fn views(&self) -> Vec<TransferView> {
        self.sending.views().chain(self.receiving.views()).collect()
    }

    // ---- links ---------------------------------------------------------------------------------

    /// A link became ready or silent, has room, or was lost: sends the offers that waited for its account or
    /// may not have reached it, sends more leaves, or fails the transfers that it carried.
    pub(super) fn on_link(&mut self, change: &LinkChange, cx: &mut Context<'_>) {
        match change {
            LinkChange::Ready { account, .. } | LinkChange::Silent { account } => {
                self.sending.offer_over_best(account, cx);
            }
            LinkChange::Writable { link } => self.sending.push(*link, cx),
            LinkChange::Lost {
                link,
                account,
                reason,
            } => {
                self.sending.on_lost(*link, account, reason, cx);
                self.receiving.on_lost(*link, reason, cx);
            }
            LinkChange::LeafAcknowledged { link, stream } => {
                self.sending.on_leaf_acknowledged(*link, *stream, cx);
            }
            LinkChange::Heard
            | LinkChange::Proved { .. }
            | LinkChange::Reached { .. }
            | LinkChange::Rerouted
            | LinkChange::Left { .. }
            | LinkChange::DialFailed { .. } => {}
        }
    }

    /// An account cannot be reached: the offers that waited for it fail.
    pub(super) fn on_unreachable(
        &mut self,
        account: &AccountName,
        error: &CommandError,
        cx: &mut Context<'_>,
    ) {
        self.sending.on_unreachable(account, error, cx);
    }

    /// There is no session, so no further account can be found. Offers that no link can carry wait as long
    /// as another log-in is due by itself, and otherwise fail at once. Returns whether any failed.
    pub(super) fn on_down(&mut self, error: &CommandError, cx: &mut Context<'_>) -> bool {
        if cx.requests.is_retrying() {
            self.sending.on_server_away(cx);
            return false;
        }
        self.sending.on_server_gone(error, cx)
    }

    /// Takes a frame from a device of `from`.
    ///
    /// # Errors
    /// The other side broke the protocol.
    pub(super) fn on_frame(
        &mut self,
        link: LinkId,
        from: AccountName,
        frame: FileFrame,
        cx: &mut Context<'_>,
    ) -> Result<(), ProtocolViolation> {
        match frame {
            FileFrame::Offer(offer) if self.sending.contains(offer.transfer) => {
                return Err(ProtocolViolation::ReflectedOffer);
            }
            FileFrame::Offer(offer) => self.receiving.on_offer(from, link, offer, cx),
            FileFrame::Accept { transfer, have } => {
                self.sending.on_accept(transfer, link, &have, cx);
            }
            FileFrame::Decline { transfer, reason } => {
                let reason = reason.to_string();
                let state = TransferState::Declined { reason };
                self.sending.on_ended(transfer, link, state, cx);
            }
            FileFrame::Sent { transfer, digest } => {
                self.receiving.on_sent(transfer, link, digest, cx);
            }
            FileFrame::Received { transfer } => self.sending.on_received(transfer, link, cx),
            FileFrame::Cancel { transfer, reason } => {
                let state = TransferState::Failed {
                    reason: reason.to_string(),
                    kind: kind_of(&reason),
                };
                self.sending.on_ended(transfer, link, state, cx);
                self.receiving.on_cancel(transfer, link, &reason, cx);
            }
        }
        Ok(())
    }

    /// Reads a leaf as far as it has arrived, unless too many wait to be written.
    ///
    /// # Errors
    /// The other side broke the protocol.
    pub(super) fn on_leaf_readable(
        &mut self,
        link: LinkId,
        stream: StreamId,
        cx: &mut Context<'_>,
    ) -> Result<(), ProtocolViolation> {
        self.is_paused = self.receiving.is_full();
        if self.is_paused {
            return Ok(());
        }
        let receiving = &self.receiving;
        let room = |header: &_| receiving.room(link, header);
        if let Some((header, bytes)) = cx.links.read_leaf(link, stream, room)? {
            return self.receiving.on_leaf(link, header, bytes, cx);
        }
        if let Some((header, len)) = cx.links.arriving(link, stream) {
            self.receiving.on_arriving(header.transfer, len, cx);
        }
        Ok(())
    }

    // ---- disk and time -------------------------------------------------------------------------

    /// Takes the disk's answer to a request of a transfer.
    pub(super) fn on_disk(
        &mut self,
        transfer: TransferId,
        answer: DiskAnswer,
        cx: &mut Context<'_>,
    ) {
        if self.sending.contains(transfer) {
            self.sending.handle_disk(transfer, answer, cx);
        } else {
            self.receiving.handle_disk(transfer, answer, cx);
        }
        if self.is_paused && !self.receiving.is_full() {
            self.is_paused = false;
            cx.links.wake_leaves();
        }
    }

    /// Declines received offers that nobody answered in time, fails sent ones for which the server did not
    /// come back in time, and tells how far the others are.
    pub(super) fn handle_timeout(&mut self, cx: &mut Context<'_>) {
        self.receiving.handle_timeout(cx);
        self.sending.handle_timeout(cx);
    }

    /// When [`Transfers::handle_timeout`] is due.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let deadlines = [self.receiving.poll_timeout(), self.sending.poll_timeout()];
        deadlines.into_iter().flatten().min()
    }
}

/// Why it ends if a person gives it up.
const CANCELLED: &str = "cancelled";
/// Why what was on its way ends with the node, for whoever asked for it through another program.
const NODE_ENDS: &str = "the 'peer' program that carried it has ended";

/// What kind of end a side brings about that cancels for this reason.
const fn kind_of(reason: &CancelReason) -> FailureKind {
    match reason {
        CancelReason::Cancelled => FailureKind::Cancelled,
        CancelReason::Source(_)
        | CancelReason::Storage(_)
        | CancelReason::Mismatch
        | CancelReason::Protocol => FailureKind::Broken,
    }
}

fn tell(transfer: TransferId, state: TransferState, cx: &mut Context<'_>) {
    cx.event(Event::Transfer { transfer, state });
}

/// The hashes of a file's leaves as they become known, in any order.
#[derive(Debug, Default)]
struct LeafHashes(BTreeMap<u64, LeafHash>);

impl LeafHashes {
    /// Adds a leaf's hash; returns `false` if it was there already.
    fn insert(&mut self, index: u64, hash: LeafHash) -> bool {
        self.0.insert(index, hash).is_none()
    }

    /// The digest of a file of `size` bytes; `None` while a leaf is missing.
    fn digest(&self, size: u64) -> Option<FileDigest> {
        if self.0.len() as u64 != leaf_count(size) {
            return None;
        }
        let hashes: Vec<LeafHash> = self.0.values().copied().collect();
        file_digest(size, &hashes)
    }
}
