//! The messages that were sent, and how far each has got.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use common::id::{AccountName, MessageId};
use common::text::beginning;

use super::presence::Absence;
use super::recent::Recent;
use crate::node::command::{Direction, HistoryItem, MessageState};

/// A receipt is shown after this long, in case another one follows at once: a message that is read soon
/// after its delivery takes one line, and so do several messages that are delivered together. What is not
/// delivered by then, and cannot be, is told as well.
const RECEIPT_PAUSE: Duration = Duration::from_millis(400);
/// A message to somebody who is online is told to be waiting after this long: enough to look up and dial
/// a device, and to try another of its addresses.
const REACH_TIMEOUT: Duration = Duration::from_secs(5);

/// Messages that were written last and whose beginnings are known: more than anybody writes at a stretch.
const WRITTEN_MAX: usize = 64;
/// Bytes of a message that tell it from others.
const BEGINNING_LEN: usize = 100;

/// Messages to one recipient that have reached the same state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Receipts {
    pub(crate) to: AccountName,
    /// [`MessageState::Delivered`] or [`MessageState::Read`].
    pub(crate) state: MessageState,
    /// At least one.
    pub(crate) count: usize,
    /// How the last of them begins, if more was typed since.
    pub(crate) last: Option<String>,
}

/// Messages to one recipient that are not delivered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Waiting {
    pub(crate) to: AccountName,
    /// At least one.
    pub(crate) count: usize,
}

/// Which messages of a conversation wait.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Which {
    /// The last that were written, with nothing typed below.
    Last,
    /// The last of them begins so.
    UpTo(String),
    /// They were written before, or elsewhere.
    Earlier,
}

/// Why messages are not delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Cause {
    /// The recipient is not there.
    Absent(Absence),
    /// There is neither a link to the recipient nor a connection to the server to look for one.
    NoServer,
    /// No link to the recipient has come about so far.
    NotReached,
    /// They went out on a link, and the recipient has not confirmed them.
    NoReceipt,
}

/// The messages that were sent. A message is open until it is on its recipient's disk; the node's outbox
/// bounds their number.
#[derive(Debug, Default)]
pub(super) struct SentMessages {
    open: BTreeMap<MessageId, Open>,
    delivered: Recent,
    /// The latest of this conversation, at most [`WRITTEN_MAX`].
    written: VecDeque<Written>,
    /// Something else was typed below the last of them.
    is_followed: bool,
    /// Receipts that are not shown yet, the latest of each message.
    receipts: BTreeMap<MessageId, (AccountName, MessageState)>,
    tell_at: Option<Instant>,
    /// When an open message is to be told of, at the earliest.
    look_at: Option<Instant>,
}

/// A text, and the message of each recipient.
#[derive(Debug)]
struct Written {
    messages: Vec<(MessageId, AccountName)>,
    beginning: String,
}

/// A message that is not delivered.
#[derive(Debug)]
struct Open {
    to: AccountName,
    /// It was written in this conversation.
    is_own: bool,
    is_sent: bool,
    /// When it was written, or its recipient came online since.
    since: Instant,
    /// What the person knows that it waits for.
    known: Option<Cause>,
}

impl SentMessages {
    /// Adds a text of this conversation whose messages are in the outbox.
    pub(super) fn on_queued(
        &mut self,
        messages: Vec<(MessageId, AccountName)>,
        text: &str,
        now: Instant,
    ) {
        for (id, to) in &messages {
            let open = Open {
                to: to.clone(),
                is_own: true,
                is_sent: false,
                since: now,
                known: None,
            };
            self.open.insert(*id, open);
        }
        if self.written.len() == WRITTEN_MAX {
            self.written.pop_front();
        }
        self.is_followed = false;
        let beginning = beginning(text, BEGINNING_LEN).to_owned();
        self.written.push_back(Written {
            messages,
            beginning,
        });
        self.look_at.get_or_insert(now + RECEIPT_PAUSE);
    }

    /// Adds messages that were sent before this conversation or from elsewhere: their receipts are shown
    /// from now on.
    pub(super) fn follow(&mut self, items: &[HistoryItem], now: Instant) {
        let sent = items
            .iter()
            .filter(|item| item.direction == Direction::Sent && !self.delivered.contains(item.id));
        for item in Vec::from_iter(sent) {
            match item.state {
                MessageState::Queued | MessageState::Sent => {
                    self.open.entry(item.id).or_insert_with(|| Open {
                        to: item.with.clone(),
                        is_own: false,
                        is_sent: false,
                        since: now,
                        known: None,
                    });
                    self.look_at.get_or_insert(now + RECEIPT_PAUSE);
                }
                MessageState::Delivered => {
                    self.open.remove(&item.id);
                    self.delivered.insert(item.id);
                }
                MessageState::Read => {
                    self.open.remove(&item.id);
                }
            }
        }
    }

    /// A message has another identifier from now on.
    pub(super) fn on_addressed(&mut self, id: MessageId, new: MessageId) {
        if let Some(open) = self.open.remove(&id) {
            self.open.insert(new, open);
        }
        if let Some(receipt) = self.receipts.remove(&id) {
            self.receipts.insert(new, receipt);
        }
        let written = self.written.iter_mut().flat_map(|it| &mut it.messages);
        for (written, _) in written.filter(|(written, _)| *written == id) {
            *written = new;
        }
    }

    /// Notes the state of a message. Returns whether it is a receipt for a message that is followed.
    pub(super) fn on_state(
        &mut self,
        id: MessageId,
        to: AccountName,
        state: MessageState,
        now: Instant,
    ) -> bool {
        if state < MessageState::Delivered {
            if let Some(open) = self.open.get_mut(&id) {
                open.is_sent |= state == MessageState::Sent;
            }
            return false;
        }
        if self.open.remove(&id).is_none() && !self.delivered.contains(id) {
            return false;
        }
        self.delivered.insert(id);
        self.receipts.insert(id, (to, state));
        self.tell_at.get_or_insert(now + RECEIPT_PAUSE);
        true
    }

    /// Forgets messages that were taken back. Returns those of them that were followed.
    pub(super) fn on_withdrawn(&mut self, mut ids: Vec<MessageId>) -> Vec<MessageId> {
        ids.retain(|id| self.open.remove(id).is_some());
        ids
    }

    /// An account came online: what waits for it is told of again if it is not delivered soon.
    pub(super) fn on_online(&mut self, account: &AccountName, now: Instant) {
        for open in self.open.values_mut() {
            if open.to == *account {
                open.since = now;
                open.known = None;
                self.look_at.get_or_insert(now + RECEIPT_PAUSE);
            }
        }
    }

    /// The server is back: it is not what messages wait for any more.
    pub(super) fn on_restored(&mut self, now: Instant) {
        let of_server = |open: &&mut Open| open.known == Some(Cause::NoServer);
        for open in self.open.values_mut().filter(of_server) {
            open.since = now;
            open.known = None;
            self.look_at.get_or_insert(now + RECEIPT_PAUSE);
        }
    }

    /// Who is online has become known: what waits may be told of now.
    pub(super) fn look_again(&mut self, now: Instant) {
        self.look_at = self.look_at.map(|at| at.min(now + RECEIPT_PAUSE));
    }

    /// Takes the receipts that are not shown yet, counted by recipient and state.
    pub(super) fn take_receipts(&mut self) -> Vec<Receipts> {
        self.tell_at = None;
        let mut groups: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for (id, to_and_state) in std::mem::take(&mut self.receipts) {
            groups.entry(to_and_state).or_default().push(id);
        }
        let receipts = groups.into_iter().map(|((to, state), ids)| Receipts {
            state,
            count: ids.len(),
            last: self.last_of(&ids, &to),
            to,
        });
        receipts.collect()
    }

    /// Something was typed that is no message.
    pub(super) const fn on_other_line(&mut self) {
        self.is_followed = true;
    }

    /// How the last of these messages begins, unless it is the last that was written to its recipient, and the
    /// last line that was typed.
    fn last_of(&self, ids: &[MessageId], to: &AccountName) -> Option<String> {
        let has = |written: &&Written, is_it: &dyn Fn(&MessageId) -> bool| {
            let mut messages = written.messages.iter();
            messages.any(|(id, other)| other == to && is_it(id))
        };
        let mut latest = self.written.iter().rev();
        let latest = latest.find(|written| has(written, &|_| true))?;
        if !self.is_followed && has(&latest, &|id| ids.contains(id)) {
            return None;
        }
        let mut all = self.written.iter().rev();
        let last = all.find(|written| has(written, &|id| ids.contains(id)))?;
        Some(last.beginning.clone())
    }

    /// Takes the messages that wait for too long and were not told of, counted by recipient and cause, with
    /// which of them they are. `why` tells why an account that no link leads to has nothing yet.
    pub(super) fn take_waiting(
        &mut self,
        now: Instant,
        why: impl Fn(&AccountName) -> Cause,
    ) -> Vec<(Waiting, Cause, Which)> {
        self.look_at = None;
        let mut groups: BTreeMap<_, Vec<MessageId>> = BTreeMap::new();
        let untold = self.open.iter_mut();
        for (id, open) in untold.filter(|(_, open)| open.known.is_none()) {
            let cause = if open.is_sent {
                Cause::NoReceipt
            } else {
                why(&open.to)
            };
            let at = open.since + cause.patience();
            if now >= at {
                open.known = Some(cause);
                if open.is_own || !cause.is_known_before() {
                    let key = (open.to.clone(), cause, open.is_own);
                    groups.entry(key).or_default().push(*id);
                }
            } else {
                self.look_at = Some(self.look_at.map_or(at, |other| other.min(at)));
            }
        }
        let waiting = groups.into_iter().map(|((to, cause, is_own), ids)| {
            let which = match self.last_of(&ids, &to) {
                Some(last) => Which::UpTo(last),
                None if is_own => Which::Last,
                None => Which::Earlier,
            };
            let count = ids.len();
            (Waiting { to, count }, cause, which)
        });
        waiting.collect()
    }

    /// When receipts, or messages that wait, are due to be shown.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.receipts_at()
            .into_iter()
            .chain(self.waiting_at())
            .min()
    }

    /// When [`SentMessages::take_receipts`] is due.
    pub(super) const fn receipts_at(&self) -> Option<Instant> {
        self.tell_at
    }

    /// When [`SentMessages::take_waiting`] is due.
    pub(super) const fn waiting_at(&self) -> Option<Instant> {
        self.look_at
    }

    /// Tells whether a message of this conversation is not delivered.
    pub(super) fn is_waiting(&self) -> bool {
        self.open.values().any(|open| open.is_own)
    }

    /// The messages of this conversation that are not delivered, by recipient.
    pub(super) fn waiting(&self) -> Vec<Waiting> {
        let own = self.open.values().filter(|open| open.is_own);
        by_recipient(own.map(|open| &open.to))
    }

    /// Number of messages that wait for an account, whichever conversation they are of.
    pub(super) fn waiting_for(&self, account: &AccountName) -> usize {
        let open = self.open.values();
        open.filter(|open| open.to == *account).count()
    }
}

impl Cause {
    /// How long a message may take before it is told that it waits.
    const fn patience(self) -> Duration {
        match self {
            Self::Absent(_) | Self::NoServer => RECEIPT_PAUSE,
            Self::NotReached | Self::NoReceipt => REACH_TIMEOUT,
        }
    }

    /// Tells whether a conversation begins with saying so, of whatever waits.
    const fn is_known_before(self) -> bool {
        match self {
            Self::Absent(_) | Self::NoServer => true,
            Self::NotReached | Self::NoReceipt => false,
        }
    }
}

/// Counts messages by recipient, ordered by name.
pub(super) fn by_recipient<'a>(recipients: impl Iterator<Item = &'a AccountName>) -> Vec<Waiting> {
    let counts = counted(recipients).into_iter();
    let waiting = counts.map(|(to, count)| Waiting {
        to: to.clone(),
        count,
    });
    waiting.collect()
}

fn counted<T: Ord>(all: impl Iterator<Item = T>) -> BTreeMap<T, usize> {
    let mut counts = BTreeMap::new();
    for one in all {
        *counts.entry(one).or_default() += 1;
    }
    counts
}
