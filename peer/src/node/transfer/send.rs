//! Files that go.

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::time::Instant;

use bytes::Bytes;
use common::hash::{FileDigest, LeafHash, leaf_count};
use common::id::{AccountName, TransferId};
use common::limits::{
    CANCEL_ANSWER_TIMEOUT, LEAVES_READING_MAX, Occupancy, SERVER_WAIT_MAX, TRANSFERS_MAX,
};
use common::wire::peer::{CancelReason, FileFrame, LeafHeader, LeafRange, Offer, Reason};

use super::progress::{InFlight, Progress, SentLeaf};
use super::{CANCELLED, LeafHashes, NODE_ENDS, tell};
use crate::node::command::{
    CommandError, CommandId, Direction, FailureKind, Reply, TransferState, TransferView,
};
use crate::node::context::Context;
use crate::node::io::{DiskAnswer, DiskFailure, DiskRequest};
use crate::node::transport::{LeafRank, LinkId, Loss, StreamId};

/// All files that go.
#[derive(Debug, Default)]
pub(super) struct Sending {
    transfers: BTreeMap<TransferId, Outgoing>,
    /// What each link carries.
    in_flight: BTreeMap<LinkId, InFlight>,
    /// The server was away lately: so long recipients may be on their way back.
    patient_until: Option<Instant>,
    /// Number of transfers that were asked for.
    asked: u64,
    /// Number of transfers that have begun to move.
    begun: u64,
}

#[derive(Debug)]
struct Outgoing {
    to: AccountName,
    /// How many were asked for before it: offers go out in this order.
    number: u64,
    /// Whoever asked; answered once the file is open.
    command: Option<CommandId>,
    offer: Option<Offer>,
    state: State,
    cancelled: Option<Cancelled>,
}

/// The person gives up a file that the recipient may have whole by now: the recipient says which it is.
#[derive(Clone, Copy, Debug)]
struct Cancelled {
    /// Answered once that is known.
    command: CommandId,
    /// When no answer is waited for any more.
    until: Instant,
}

#[derive(Debug)]
enum State {
    /// The disk is opening the file.
    Opening,
    /// There is no link to the recipient.
    Unlinked {
        /// Once the server was away it is waited for until then.
        until: Option<Instant>,
        /// Why the link was lost that the offer was out on; `None` if it was never out.
        lost: Option<Loss>,
    },
    /// The offer is out.
    Offered { link: LinkId },
    /// Leaves are read and sent, then the receiver checks and stores them.
    Moving(Box<LeafSender>),
}

#[derive(Debug)]
struct LeafSender {
    link: LinkId,
    turn: Turn,
    /// The leaf to ask the disk for next.
    next: u64,
    /// Asked of the disk.
    reading: usize,
    /// Read, and waiting for a stream.
    held: VecDeque<(u64, Bytes, LeafHash)>,
    hashes: LeafHashes,
    /// Bytes of the leaves that were acknowledged.
    acknowledged: u64,
    progress: Progress,
    /// Of the whole file, once QUIC has all of it.
    digest: Option<FileDigest>,
}

/// Which of several files on one link goes first: the lesser one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Turn {
    /// Whatever is shorter by an order of magnitude goes first.
    rank: LeafRank,
    /// Of the others, whatever was accepted first.
    begun: u64,
}

impl Sending {
    /// How full it is.
    pub(super) fn occupancy(&self) -> Occupancy {
        Occupancy::new("files being sent", self.transfers.len(), TRANSFERS_MAX)
    }

    /// Starts a transfer: opens the file.
    pub(super) fn start(
        &mut self,
        transfer: TransferId,
        to: AccountName,
        path: PathBuf,
        command: CommandId,
        cx: &mut Context<'_>,
    ) {
        if self.transfers.len() >= TRANSFERS_MAX {
            let error = CommandError::TooMany("transfers".to_owned());
            return cx.reply(command, Err(error));
        }
        let outgoing = Outgoing {
            to,
            number: self.asked,
            command: Some(command),
            offer: None,
            state: State::Opening,
            cancelled: None,
        };
        self.asked += 1;
        self.transfers.insert(transfer, outgoing);
        cx.disk(DiskRequest::Open { transfer, path });
    }

    /// Tells whether this transfer is one of ours.
    pub(super) fn contains(&self, transfer: TransferId) -> bool {
        self.transfers.contains_key(&transfer)
    }

    /// Accounts that files go to.
    pub(super) fn recipients(&self) -> impl Iterator<Item = &AccountName> {
        let opened = self
            .transfers
            .values()
            .filter(|transfer| transfer.offer.is_some());
        opened.map(|transfer| &transfer.to)
    }

    /// The transfers whose file is open: whoever asked for one knows its id.
    pub(super) fn views(&self) -> impl Iterator<Item = TransferView> {
        let all = self.transfers.iter();
        all.filter_map(|(transfer, outgoing)| outgoing.view(*transfer))
    }

    /// Sends the offers that wait for a link to `account`, and again those that are out on a silent one, over
    /// the best link that there is.
    pub(super) fn offer_over_best(&mut self, account: &AccountName, cx: &mut Context<'_>) {
        let Some(link) = cx.links.link_to(account) else {
            return;
        };
        let mut all: Vec<_> = self.transfers.iter_mut().collect();
        all.sort_by_key(|(_, outgoing)| outgoing.number);
        for (transfer, outgoing) in all {
            let Some(offer) = &outgoing.offer else {
                continue;
            };
            if outgoing.to != *account || !outgoing.state.wants_offering(link, cx) {
                continue;
            }
            cx.send(link, FileFrame::Offer(offer.clone()));
            let before = std::mem::replace(&mut outgoing.state, State::Offered { link });
            if matches!(before, State::Unlinked { lost: None, .. }) {
                tell(*transfer, TransferState::Waiting, cx);
            }
        }
    }

    /// The server is away and comes back by itself: offers without a link wait for it, so long and no
    /// longer.
    pub(super) fn on_server_away(&mut self, cx: &Context<'_>) {
        let patient_until = cx.now + SERVER_WAIT_MAX;
        self.patient_until = Some(patient_until);
        for outgoing in self.transfers.values_mut() {
            if let State::Unlinked { until, .. } = &mut outgoing.state {
                until.get_or_insert(patient_until);
            }
        }
    }

    /// The server does not come back by itself: offers that no link can carry fail. Tells whether there
    /// were any.
    pub(super) fn on_server_gone(&mut self, error: &CommandError, cx: &mut Context<'_>) -> bool {
        let is_stuck = |outgoing: &Outgoing| {
            let is_unlinked = matches!(outgoing.state, State::Unlinked { .. });
            is_unlinked && cx.links.link_to(&outgoing.to).is_none()
        };
        let stuck = self
            .transfers
            .iter()
            .filter(|(_, outgoing)| is_stuck(outgoing));
        let stuck: Vec<TransferId> = stuck.map(|(transfer, _)| *transfer).collect();
        for transfer in &stuck {
            self.fail_unlinked(*transfer, error.clone(), cx);
        }
        !stuck.is_empty()
    }

    /// Tells how far files are, and fails the offers for which the server, or after it the recipient, did
    /// not come back in time.
    pub(super) fn handle_timeout(&mut self, cx: &mut Context<'_>) {
        let now = cx.now;
        let is_due = |outgoing: &Outgoing| outgoing.progress_due().is_some_and(|at| at <= now);
        let due = self.transfers.iter().filter(|(_, one)| is_due(one));
        let due: Vec<TransferId> = due.map(|(transfer, _)| *transfer).collect();
        for transfer in due {
            self.tell_progress(transfer, cx);
        }
        let unanswered = self.transfers.iter().filter_map(|(transfer, outgoing)| {
            let cancelled = outgoing.cancelled?;
            (cancelled.until <= now).then_some(*transfer)
        });
        let unanswered: Vec<TransferId> = unanswered.collect();
        for transfer in unanswered {
            let error = CommandError::Transfer(CANCELLED.to_owned());
            self.end_early(transfer, error, FailureKind::Cancelled, cx);
        }
        let is_over =
            |outgoing: &Outgoing| outgoing.waits_until().is_some_and(|until| until <= now);
        let over = self
            .transfers
            .iter()
            .filter(|(_, outgoing)| is_over(outgoing));
        let over: Vec<(TransferId, AccountName)> = over
            .map(|(transfer, outgoing)| (*transfer, outgoing.to.clone()))
            .collect();
        for (transfer, to) in over {
            let error = if cx.requests.is_online() {
                CommandError::PeerOffline(to)
            } else {
                let silent = || CommandError::Unreachable("it does not answer".to_owned());
                cx.requests.down().cloned().unwrap_or_else(silent)
            };
            self.fail_unlinked(transfer, error, cx);
        }
    }

    /// When [`Sending::handle_timeout`] is due.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let deadlines = self.transfers.values().filter_map(Outgoing::poll_timeout);
        deadlines.min()
    }

    /// The recipient cannot be reached: offers that waited for it come to nothing. After the server was
    /// away the recipient may still be on its way back, too: those wait until their time is over.
    pub(super) fn on_unreachable(
        &mut self,
        account: &AccountName,
        error: &CommandError,
        cx: &mut Context<'_>,
    ) {
        let waiting: Vec<TransferId> = self
            .transfers
            .iter()
            .filter(|(_, outgoing)| {
                let is_stuck = matches!(outgoing.state, State::Unlinked { until: None, .. });
                outgoing.to == *account && is_stuck
            })
            .map(|(transfer, _)| *transfer)
            .collect();
        for transfer in waiting {
            self.fail_unlinked(transfer, error.clone(), cx);
        }
    }

    /// A link is gone, and with it what it carried. Offers are made again over another, once there is one.
    pub(super) fn on_lost(
        &mut self,
        link: LinkId,
        account: &AccountName,
        reason: &Loss,
        cx: &mut Context<'_>,
    ) {
        self.in_flight.remove(&link);
        let until = self.patience(cx);
        let mut broken = Vec::new();
        for (transfer, outgoing) in &mut self.transfers {
            if outgoing.state.link() != Some(link) {
                continue;
            }
            if matches!(outgoing.state, State::Offered { .. }) {
                let lost = Some(reason.clone());
                outgoing.state = State::Unlinked { until, lost };
            } else {
                broken.push(*transfer);
            }
        }
        for transfer in broken {
            let reason = format!("the link broke ({reason})");
            self.fail(transfer, CommandError::Transfer(reason), cx);
        }
        self.offer_over_best(account, cx);
    }

    /// Until when recipients are waited for, if the server was away lately.
    fn patience(&self, cx: &Context<'_>) -> Option<Instant> {
        self.patient_until.filter(|until| *until > cx.now)
    }

    /// The recipient accepts.
    pub(super) fn on_accept(
        &mut self,
        transfer: TransferId,
        link: LinkId,
        have: &[LeafRange],
        cx: &mut Context<'_>,
    ) {
        let Some(outgoing) = self.transfers.get_mut(&transfer) else {
            return;
        };
        if outgoing.state.link() != Some(link) {
            // It was made again over another link, perhaps to another device.
            let reason = CancelReason::Cancelled;
            return cx.send(link, FileFrame::Cancel { transfer, reason });
        }
        let (State::Offered { .. }, Some(offer)) = (&outgoing.state, &outgoing.offer) else {
            return;
        };
        if !have.is_empty() {
            // Resuming is not part of this version: nobody has leaves of a new offer.
            let reason = CancelReason::Protocol;
            cx.send(link, FileFrame::Cancel { transfer, reason });
            let reason = "the recipient claims to have parts of it already".to_owned();
            return self.fail(transfer, CommandError::Transfer(reason), cx);
        }
        let turn = Turn {
            rank: LeafRank::of(leaf_count(offer.size)),
            begun: self.begun,
        };
        self.begun += 1;
        let moving = LeafSender {
            link,
            turn,
            next: 0,
            reading: 0,
            held: VecDeque::new(),
            hashes: LeafHashes::default(),
            acknowledged: 0,
            progress: Progress::start(transfer, offer.size, cx),
            digest: None,
        };
        outgoing.state = State::Moving(Box::new(moving));
        self.push(link, cx);
    }

    /// The recipient declines, or gives up.
    pub(super) fn on_ended(
        &mut self,
        transfer: TransferId,
        link: LinkId,
        state: TransferState,
        cx: &mut Context<'_>,
    ) {
        if !self.is_on(transfer, link) {
            return;
        }
        let outgoing = self.remove(transfer, cx);
        match outgoing.and_then(|outgoing| outgoing.cancelled) {
            Some(cancelled) => {
                let (reason, kind) = (CANCELLED.to_owned(), FailureKind::Cancelled);
                tell(transfer, TransferState::Failed { reason, kind }, cx);
                cx.reply(cancelled.command, Ok(Reply::Done));
            }
            None => tell(transfer, state, cx),
        }
    }

    /// The recipient has the file, verified and under its name.
    pub(super) fn on_received(&mut self, transfer: TransferId, link: LinkId, cx: &mut Context<'_>) {
        if !self.is_on(transfer, link) {
            return;
        }
        let Some(outgoing) = self.remove(transfer, cx) else {
            return;
        };
        let state = match outgoing.sent() {
            Some((progress, digest)) => TransferState::Done {
                digest: digest.to_string(),
                total: progress.total,
                elapsed_ms: progress.elapsed_ms(cx.now),
                path: None,
            },
            None => TransferState::Failed {
                reason: "the recipient claims to have what was not sent".to_owned(),
                kind: FailureKind::Broken,
            },
        };
        tell(transfer, state, cx);
        if let Some(cancelled) = outgoing.cancelled {
            cx.reply(cancelled.command, Err(CommandError::NoSuchTransfer));
        }
    }

    /// The disk answers.
    pub(super) fn handle_disk(
        &mut self,
        transfer: TransferId,
        answer: DiskAnswer,
        cx: &mut Context<'_>,
    ) {
        let until = self.patience(cx);
        let Some(outgoing) = self.transfers.get_mut(&transfer) else {
            return;
        };
        match answer {
            DiskAnswer::Opened {
                name,
                size,
                executable,
            } => {
                outgoing.offer = Some(Offer {
                    transfer,
                    name,
                    size,
                    executable,
                });
                outgoing.state = State::Unlinked { until, lost: None };
                if let Some(command) = outgoing.command.take() {
                    cx.reply(command, Ok(Reply::Started(transfer)));
                }
                let account = outgoing.to.clone();
                self.offer_over_best(&account, cx);
            }
            DiskAnswer::Leaf { index, bytes, hash } => {
                if let State::Moving(moving) = &mut outgoing.state {
                    moving.reading -= 1;
                    moving.held.push_back((index, bytes, hash));
                    let link = moving.link;
                    self.push(link, cx);
                }
            }
            DiskAnswer::Failed(DiskFailure { reason, told }) => {
                if let Some(link) = outgoing.state.link() {
                    let reason = CancelReason::Source(Reason::lossy(told));
                    cx.send(link, FileFrame::Cancel { transfer, reason });
                }
                self.fail(transfer, CommandError::File(reason), cx);
            }
            DiskAnswer::Created
            | DiskAnswer::Written { .. }
            | DiskAnswer::Mismatch { .. }
            | DiskAnswer::Finished { .. }
            | DiskAnswer::BadName(_) => {}
        }
    }

    /// The node stops: gives up what others have not taken whole.
    pub(super) fn cancel_all(&mut self, cx: &mut Context<'_>) {
        let all: Vec<TransferId> = self.transfers.keys().copied().collect();
        for transfer in all {
            self.give_up(transfer, NODE_ENDS, FailureKind::NodeEnds, cx);
        }
    }

    /// The person gives up. Where the recipient may have the whole file, it is asked.
    pub(super) fn cancel(
        &mut self,
        transfer: TransferId,
        command: CommandId,
        cx: &mut Context<'_>,
    ) {
        if let Some(outgoing) = self.transfers.get_mut(&transfer)
            && outgoing.sent().is_some()
            && outgoing.cancelled.is_none()
            && let Some(link) = outgoing.state.link()
        {
            let until = cx.now + CANCEL_ANSWER_TIMEOUT;
            outgoing.cancelled = Some(Cancelled { command, until });
            let reason = CancelReason::Cancelled;
            return cx.send(link, FileFrame::Cancel { transfer, reason });
        }
        self.give_up(transfer, CANCELLED, FailureKind::Cancelled, cx);
        cx.reply(command, Ok(Reply::Done));
    }

    fn give_up(
        &mut self,
        transfer: TransferId,
        reason: &str,
        kind: FailureKind,
        cx: &mut Context<'_>,
    ) {
        let link = self
            .transfers
            .get(&transfer)
            .and_then(|outgoing| outgoing.state.link());
        if let Some(link) = link {
            cx.send(
                link,
                FileFrame::Cancel {
                    transfer,
                    reason: CancelReason::Cancelled,
                },
            );
        }
        let error = CommandError::Transfer(reason.to_owned());
        self.end_early(transfer, error, kind, cx);
    }

    /// Moves leaves from the disk to the link as far as both allow, those of the file whose turn it is first.
    pub(super) fn push(&mut self, link: LinkId, cx: &mut Context<'_>) {
        let on_link = self.transfers.iter().filter_map(|(transfer, outgoing)| {
            let State::Moving(moving) = &outgoing.state else {
                return None;
            };
            (moving.link == link).then_some((moving.turn, *transfer))
        });
        let mut on_link: Vec<(Turn, TransferId)> = on_link.collect();
        on_link.sort_unstable();
        let mut waiting = 0;
        for (_, transfer) in on_link {
            self.send_held(transfer, cx);
            waiting += self.read_more(transfer, waiting, cx);
            self.tell_sent(transfer, cx);
        }
    }

    fn send_held(&mut self, transfer: TransferId, cx: &mut Context<'_>) {
        let Some(Outgoing {
            state: State::Moving(moving),
            ..
        }) = self.transfers.get_mut(&transfer)
        else {
            return;
        };
        while let Some((index, bytes, hash)) = moving.held.pop_front() {
            let header = LeafHeader {
                transfer,
                index,
                hash,
            };
            let len = bytes.len() as u64;
            let (link, rank) = (moving.link, moving.turn.rank);
            let Some(stream) = cx.links.send_leaf(link, rank, &header, bytes.clone()) else {
                moving.held.push_front((index, bytes, hash));
                return;
            };
            moving.hashes.insert(index, hash);
            let of_link = cx.links.acknowledged_bytes(link);
            let leaf = SentLeaf {
                transfer,
                rank,
                stream,
                len,
            };
            let in_flight = self.in_flight.entry(link).or_default();
            in_flight.push(leaf, of_link);
        }
    }

    /// Reads more leaves, as long as few wait: `ahead` of other files whose turn is before this one's, its own,
    /// and those that QUIC has not taken. Returns how many of its own wait.
    fn read_more(&mut self, transfer: TransferId, ahead: usize, cx: &mut Context<'_>) -> usize {
        let Some(Outgoing {
            state: State::Moving(moving),
            offer: Some(offer),
            ..
        }) = self.transfers.get_mut(&transfer)
        else {
            return 0;
        };
        let ahead = ahead + cx.links.unsent_leaves(moving.link, moving.turn.rank);
        while moving.next < leaf_count(offer.size)
            && ahead + moving.reading + moving.held.len() < LEAVES_READING_MAX
        {
            let index = moving.next;
            cx.disk(DiskRequest::ReadLeaf { transfer, index });
            moving.next += 1;
            moving.reading += 1;
        }
        moving.reading + moving.held.len()
    }

    /// Once QUIC has all leaves of a file, tells its digest.
    fn tell_sent(&mut self, transfer: TransferId, cx: &mut Context<'_>) {
        if let Some(Outgoing {
            state: State::Moving(moving),
            offer: Some(offer),
            ..
        }) = self.transfers.get_mut(&transfer)
            && moving.digest.is_none()
            && let Some(digest) = moving.hashes.digest(offer.size)
        {
            cx.send(moving.link, FileFrame::Sent { transfer, digest });
            moving.digest = Some(digest);
        }
    }

    /// The recipient has acknowledged a leaf.
    pub(super) fn on_leaf_acknowledged(
        &mut self,
        link: LinkId,
        stream: StreamId,
        cx: &mut Context<'_>,
    ) {
        let of_link = cx.links.acknowledged_bytes(link);
        let in_flight = self.in_flight.get_mut(&link);
        let leaf = in_flight.and_then(|in_flight| in_flight.take(stream, of_link));
        if let Some(SentLeaf { transfer, len, .. }) = leaf
            && let Some(moving) = self.moving(transfer)
        {
            moving.acknowledged += len;
            self.tell_progress(transfer, cx);
        }
    }

    fn moving(&mut self, transfer: TransferId) -> Option<&mut LeafSender> {
        match &mut self.transfers.get_mut(&transfer)?.state {
            State::Moving(moving) => Some(moving),
            State::Opening | State::Unlinked { .. } | State::Offered { .. } => None,
        }
    }

    /// Tells how much of a file has arrived.
    fn tell_progress(&mut self, transfer: TransferId, cx: &mut Context<'_>) {
        let Some(link) = self.moving(transfer).map(|moving| moving.link) else {
            return;
        };
        let of_link = cx.links.acknowledged_bytes(link);
        let in_flight = self.in_flight.get(&link);
        let partly = in_flight.map_or(0, |in_flight| in_flight.arrived(transfer, of_link));
        let is_behind = self.is_behind(transfer);
        if let Some(moving) = self.moving(transfer) {
            moving.progress.reach(moving.acknowledged + partly, cx);
            moving.progress.set_behind(is_behind, cx);
        }
    }

    /// Tells whether nothing of a file is on its way, because it is another one's turn on its link.
    fn is_behind(&self, transfer: TransferId) -> bool {
        let sender = |outgoing: &Outgoing| match &outgoing.state {
            State::Moving(moving) => Some((moving.link, moving.turn)),
            State::Opening | State::Unlinked { .. } | State::Offered { .. } => None,
        };
        let Some((link, turn)) = self.transfers.get(&transfer).and_then(sender) else {
            return false;
        };
        let in_flight = self.in_flight.get(&link);
        let others = self.transfers.values().filter_map(sender);
        !in_flight.is_some_and(|in_flight| in_flight.has(transfer))
            && others
                .into_iter()
                .any(|(on, other)| on == link && other < turn)
    }

    /// Takes out a transfer that has ended.
    fn remove(&mut self, transfer: TransferId, cx: &mut Context<'_>) -> Option<Outgoing> {
        let outgoing = self.transfers.remove(&transfer)?;
        if let Some(link) = outgoing.state.link()
            && let Some(in_flight) = self.in_flight.get_mut(&link)
        {
            for leaf in in_flight.take_all(transfer) {
                cx.links.withdraw_leaf(link, leaf.stream);
            }
        }
        cx.disk(DiskRequest::Drop { transfer });
        Some(outgoing)
    }

    fn is_on(&self, transfer: TransferId, link: LinkId) -> bool {
        self.transfers
            .get(&transfer)
            .is_some_and(|outgoing| outgoing.state.link() == Some(link))
    }

    fn fail(&mut self, transfer: TransferId, error: CommandError, cx: &mut Context<'_>) {
        self.end_early(transfer, error, FailureKind::Broken, cx);
    }

    /// There is no link to the recipient in time. `error` says so where the offer was never out.
    fn fail_unlinked(&mut self, transfer: TransferId, error: CommandError, cx: &mut Context<'_>) {
        let outgoing = self.transfers.get(&transfer);
        match outgoing.and_then(Outgoing::went_away) {
            Some(reason) => {
                let error = CommandError::Transfer(reason);
                self.end_early(transfer, error, FailureKind::Unanswered, cx);
            }
            None => {
                let state = TransferState::NotOffered { error };
                self.end(transfer, state, cx);
            }
        }
    }

    fn end_early(
        &mut self,
        transfer: TransferId,
        error: CommandError,
        kind: FailureKind,
        cx: &mut Context<'_>,
    ) {
        let opening = self.transfers.get_mut(&transfer);
        if let Some(command) = opening.and_then(|outgoing| outgoing.command.take()) {
            self.remove(transfer, cx);
            return cx.reply(command, Err(error));
        }
        let reason = error.to_string();
        self.end(transfer, TransferState::Failed { reason, kind }, cx);
    }

    fn end(&mut self, transfer: TransferId, state: TransferState, cx: &mut Context<'_>) {
        let Some(outgoing) = self.remove(transfer, cx) else {
            return;
        };
        tell(transfer, state, cx);
        if let Some(cancelled) = outgoing.cancelled {
            cx.reply(cancelled.command, Ok(Reply::Done));
        }
    }
}

impl Outgoing {
    fn poll_timeout(&self) -> Option<Instant> {
        let cancelled = self.cancelled.map(|cancelled| cancelled.until);
        let waits = self.progress_due().or(self.waits_until());
        cancelled.into_iter().chain(waits).min()
    }

    /// When to tell again how far the file is, while some of it is on its way.
    fn progress_due(&self) -> Option<Instant> {
        match &self.state {
            State::Moving(moving) => {
                let is_there = moving.acknowledged >= moving.progress.total;
                (!is_there).then(|| moving.progress.due())
            }
            State::Opening | State::Unlinked { .. } | State::Offered { .. } => None,
        }
    }

    fn view(&self, transfer: TransferId) -> Option<TransferView> {
        let state = match &self.state {
            State::Opening => return None,
            State::Unlinked { lost: None, .. } => TransferState::Looking,
            State::Unlinked { lost: Some(_), .. } | State::Offered { .. } => TransferState::Waiting,
            State::Moving(moving) => moving.progress.state(),
        };
        Some(TransferView {
            transfer,
            direction: Direction::Sent,
            with: self.to.clone(),
            name: self.offer.as_ref()?.name.clone(),
            state,
        })
    }

    /// Progress and digest once QUIC has all of the file.
    fn sent(&self) -> Option<(Progress, FileDigest)> {
        match &self.state {
            State::Moving(moving) => Some((moving.progress, moving.digest?)),
            State::Opening | State::Unlinked { .. } | State::Offered { .. } => None,
        }
    }

    /// What to tell of a recipient whose link was lost while the offer was out, and who is not back.
    fn went_away(&self) -> Option<String> {
        match &self.state {
            State::Unlinked { lost, .. } => {
                let reason = lost.as_ref()?;
                Some(reason.of_partner(&self.to, " before answering"))
            }
            State::Opening | State::Offered { .. } | State::Moving(_) => None,
        }
    }

    /// Until when a server that is away is waited for.
    const fn waits_until(&self) -> Option<Instant> {
        match self.state {
            State::Unlinked { until, .. } => until,
            State::Opening | State::Offered { .. } | State::Moving(_) => None,
        }
    }
}

impl State {
    /// Tells whether the offer is to be made over `link`: it is not out, or on a link that is silent.
    fn wants_offering(&self, link: LinkId, cx: &Context<'_>) -> bool {
        match self {
            Self::Unlinked { .. } => true,
            Self::Offered { link: on } => *on != link && cx.links.is_silent(*on),
            Self::Opening | Self::Moving(_) => false,
        }
    }

    fn link(&self) -> Option<LinkId> {
        match self {
            Self::Opening | Self::Unlinked { .. } => None,
            Self::Offered { link } => Some(*link),
            Self::Moving(moving) => Some(moving.link),
        }
    }
}
