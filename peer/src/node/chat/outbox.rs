//! The outbox: messages that have no receipt yet.
//!
//! It mirrors the outbox on disk. A message is sent again, in order, on every new link to its
//! recipient until a receipt says that it is on the recipient's disk; the recipient knows it by its id
//! and shows it once.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use common::id::{AccountName, MessageId};
use common::limits::{MESSAGES_IN_FLIGHT_MAX, OUTBOX_MESSAGES_MAX, Occupancy};
use common::wire::peer::Message;

use crate::node::transport::LinkId;

/// Messages without a receipt, by recipient, the oldest first.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    outbox: BTreeMap<AccountName, VecDeque<Outgoing>>,
}

#[derive(Debug)]
struct Outgoing {
    message: Message,
    /// By this run, last.
    sent: Option<LinkId>,
    /// The disk knows that a link may have carried it.
    is_recorded: bool,
}

/// A message to send now.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Due {
    pub(super) message: Message,
    /// The disk knows that a link may have carried it.
    pub(super) is_recorded: bool,
}

impl Outgoing {
    /// A link may have carried it, in this run or an earlier one.
    const fn is_sent(&self) -> bool {
        self.sent.is_some() || self.is_recorded
    }
}

impl Outbox {
    /// Takes what was in the outbox when the last run ended; links may have carried what was `sent`.
    pub(super) fn new(restored: Vec<(AccountName, Message)>, sent: &BTreeSet<MessageId>) -> Self {
        let mut messages = Self::default();
        for (to, message) in restored {
            let is_recorded = sent.contains(&message.id);
            messages.push(to, message, is_recorded);
        }
        messages
    }

    /// The occupancy of each bounded resource.
    pub(super) fn occupancies(&self) -> [Occupancy; 2] {
        let outboxes = self.outbox.values();
        let in_flight = outboxes
            .clone()
            .map(|outbox| outbox.iter().filter(|out| out.sent.is_some()).count());
        let in_flight = Occupancy::fullest("messages in flight", in_flight, MESSAGES_IN_FLIGHT_MAX);
        let outboxes = outboxes.map(VecDeque::len);
        [
            Occupancy::fullest("messages in an outbox", outboxes, OUTBOX_MESSAGES_MAX),
            in_flight,
        ]
    }

    /// Number of messages to one recipient.
    pub(super) fn len_of(&self, to: &AccountName) -> usize {
        self.outbox.get(to).map_or(0, VecDeque::len)
    }

    /// Tells whether a recipient's outbox takes another message.
    pub(super) fn has_room(&self, to: &AccountName) -> bool {
        self.len_of(to) < OUTBOX_MESSAGES_MAX
    }

    /// Tells whether the next message goes out as soon as there is a link.
    pub(super) fn has_window(&self, to: &AccountName) -> bool {
        self.len_of(to) < MESSAGES_IN_FLIGHT_MAX
    }

    /// Adds a message that is on disk, or on its way there; `is_recorded` with the word that it is sent.
    pub(super) fn push(&mut self, to: AccountName, message: Message, is_recorded: bool) {
        let outgoing = Outgoing {
            message,
            sent: None,
            is_recorded,
        };
        self.outbox.entry(to).or_default().push_back(outgoing);
    }

    /// Hands out the messages to send on `link` now: the oldest that were not sent on it, as long as
    /// not too many wait for their receipts.
    pub(super) fn take_due(&mut self, to: &AccountName, link: LinkId) -> Vec<Due> {
        let Some(outbox) = self.outbox.get_mut(to) else {
            return Vec::new();
        };
        let window = outbox.iter_mut().take(MESSAGES_IN_FLIGHT_MAX);
        let due = window.filter(|outgoing| outgoing.sent != Some(link));
        due.map(|outgoing| {
            outgoing.sent = Some(link);
            Due {
                message: outgoing.message.clone(),
                is_recorded: std::mem::replace(&mut outgoing.is_recorded, true),
            }
        })
        .collect()
    }

    /// Takes a message back that no link has carried.
    pub(super) fn withdraw(&mut self, id: MessageId) -> Option<(AccountName, Message)> {
        let is_it = |out: &Outgoing| out.message.id == id && !out.is_sent();
        let mut outboxes = self.outbox.iter();
        let (to, _) = outboxes.find(|(_, outbox)| outbox.iter().any(is_it))?;
        let to = to.clone();
        let outgoing = self.remove(&to, id)?;
        Some((to, outgoing.message))
    }

    /// All messages that wait, by recipient, the oldest first, and whether a link may have carried them.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&AccountName, &Message, bool)> {
        let outboxes = self.outbox.iter();
        outboxes.flat_map(|(to, outbox)| {
            let messages = outbox.iter();
            messages.map(move |out| (to, &out.message, out.is_sent()))
        })
    }

    /// A receipt came. Tells whether it is the first for a message of ours to that account.
    pub(super) fn on_receipt(&mut self, from: &AccountName, id: MessageId) -> bool {
        self.remove(from, id).is_some()
    }

    /// A message cannot be kept, so it is not sent any more. Tells which link it is on its way by.
    pub(super) fn on_refused(&mut self, to: &AccountName, id: MessageId) -> Option<LinkId> {
        self.remove(to, id)?.sent
    }

    fn remove(&mut self, to: &AccountName, id: MessageId) -> Option<Outgoing> {
        let outbox = self.outbox.get_mut(to)?;
        let place = outbox
            .iter()
            .position(|outgoing| outgoing.message.id == id)?;
        let outgoing = outbox.remove(place);
        if outbox.is_empty() {
            self.outbox.remove(to);
        }
        outgoing
    }

    /// Accounts that messages wait for.
    pub(super) fn recipients(&self) -> impl Iterator<Item = &AccountName> {
        self.outbox.keys()
    }

    /// Messages that wait.
    pub(super) fn len(&self) -> usize {
        self.outbox.values().map(VecDeque::len).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use common::time::UnixTime;
    use common::wire::peer::{Conversation, MessageBody};

    fn message(id: u8) -> Message {
        Message {
            id: MessageId::from_bytes([id; 16]),
            conversation: Conversation::Direct,
            sent: UnixTime::default(),
            body: MessageBody::try_from("hello".to_owned()).unwrap(),
        }
    }

    /// The messages that are handed out.
    fn take(outbox: &mut Outbox, link: LinkId) -> Vec<Message> {
        let due = outbox.take_due(&"bob".parse().unwrap(), link);
        due.into_iter().map(|due| due.message).collect()
    }

    fn restored(messages: &[Message]) -> Outbox {
        let bob: AccountName = "bob".parse().unwrap();
        let messages = messages
            .iter()
            .map(|message| (bob.clone(), message.clone()));
        Outbox::new(messages.collect(), &BTreeSet::new())
    }

    #[test]
    fn messages_are_sent_once_a_link_and_again_on_the_next() {
        let bob: AccountName = "bob".parse().unwrap();
        let (first, second) = (LinkId::for_test(1), LinkId::for_test(2));
        let mut outbox = restored(&[message(1), message(2)]);
        assert_eq!(take(&mut outbox, first).len(), 2);
        assert_eq!(take(&mut outbox, first).len(), 0);
        assert!(outbox.on_receipt(&bob, message(1).id));
        assert!(
            !outbox.on_receipt(&bob, message(1).id),
            "a second receipt changes nothing"
        );
        assert_eq!(take(&mut outbox, second), vec![message(2)]);
        assert_eq!(outbox.recipients().collect::<Vec<_>>(), [&bob]);
        let mallory = "mallory".parse().unwrap();
        assert!(
            !outbox.on_receipt(&mallory, message(2).id),
            "not from the recipient"
        );
        assert!(outbox.on_receipt(&bob, message(2).id));
        assert_eq!((outbox.len(), outbox.recipients().count()), (0, 0));
    }

    #[test]
    fn no_more_than_a_window_is_in_flight() {
        let bob: AccountName = "bob".parse().unwrap();
        let link = LinkId::for_test(1);
        let mut outbox = Outbox::default();
        let many = MESSAGES_IN_FLIGHT_MAX + 10;
        for n in 0..many {
            let mut message = message(0);
            message.id = MessageId::from_bytes((n as u128).to_be_bytes());
            outbox.push(bob.clone(), message, false);
        }
        let sent = take(&mut outbox, link);
        assert_eq!(sent.len(), MESSAGES_IN_FLIGHT_MAX);
        outbox.on_receipt(&bob, sent[0].id);
        assert_eq!(take(&mut outbox, link).len(), 1);
    }

    #[test]
    fn what_is_refused_is_not_sent_any_more() {
        let bob: AccountName = "bob".parse().unwrap();
        let (first, second) = (LinkId::for_test(1), LinkId::for_test(2));
        let mut outbox = restored(&[message(1)]);
        take(&mut outbox, first);
        outbox.push(bob.clone(), message(2), false);
        assert_eq!(outbox.on_refused(&bob, message(2).id), None, "not sent");
        assert_eq!(outbox.on_refused(&bob, message(1).id), Some(first));
        assert_eq!(outbox.on_refused(&bob, message(1).id), None, "twice");
        assert_eq!(take(&mut outbox, second), []);
        assert_eq!(outbox.len(), 0);
    }

    #[test]
    fn what_no_link_has_carried_can_be_taken_back() {
        let bob: AccountName = "bob".parse().unwrap();
        let link = LinkId::for_test(1);
        let mut outbox = restored(&[message(1)]);
        take(&mut outbox, link);
        outbox.push(bob.clone(), message(2), false);
        let waiting: Vec<bool> = outbox.iter().map(|(.., is_sent)| is_sent).collect();
        assert_eq!(waiting, [true, false]);
        assert_eq!(outbox.withdraw(message(1).id), None, "it is on its way");
        let taken = outbox.withdraw(message(2).id);
        assert_eq!(taken, Some((bob.clone(), message(2))));
        assert_eq!(outbox.withdraw(message(2).id), None, "twice");
        assert_eq!(take(&mut outbox, LinkId::for_test(2)), [message(1)]);
    }

    #[test]
    fn what_an_earlier_run_sent_cannot_be_taken_back() {
        let bob: AccountName = "bob".parse().unwrap();
        let link = LinkId::for_test(1);
        let messages = [1, 2].map(|id| (bob.clone(), message(id)));
        let sent = BTreeSet::from([message(1).id]);
        let mut outbox = Outbox::new(messages.to_vec(), &sent);
        let waiting: Vec<bool> = outbox.iter().map(|(.., is_sent)| is_sent).collect();
        assert_eq!(waiting, [true, false]);
        assert_eq!(outbox.withdraw(message(1).id), None);
        let due = outbox.take_due(&bob, link);
        let recorded: Vec<bool> = due.iter().map(|due| due.is_recorded).collect();
        assert_eq!(recorded, [true, false], "the second has to be recorded");
        let again = outbox.take_due(&bob, LinkId::for_test(2));
        assert!(again.iter().all(|due| due.is_recorded), "only once");
        assert!(outbox.on_receipt(&bob, message(1).id));
    }

    #[test]
    fn an_outbox_has_a_bound() {
        let bob: AccountName = "bob".parse().unwrap();
        let mut outbox = Outbox::default();
        for _ in 0..OUTBOX_MESSAGES_MAX {
            assert!(outbox.has_room(&bob));
            outbox.push(bob.clone(), message(0), false);
        }
        assert!(!outbox.has_room(&bob));
    }
}
