//! What the store keeps of conversations: their chains of entries, seals, forks, and what becomes of this device's runs.
//!
//! A [`Replica`](crate::log::Replica) says what is to be written, and is restored from what is read. Requests are carried
//! out in order; each is one transaction, all of it or nothing. After a write of a chain has failed, those that follow it
//! fail as well, because what they add follows nothing: the replica is then ahead of the store, and is to be restored.
//!
//! The messages of the history are a view of the entries: the transaction that writes a text, or a reply, also adds the
//! message that people are shown, and the one that drops its body removes it. Such a message has the state that its
//! chain has reached. What a person reads out of turn is read alone; the mark that others are told moves up to it.

use common::id::{AccountName, MessageId};
use common::limits::CONVERSATIONS_MAX;
use common::log::{
    ChainId, Clock, ConversationId, EntryId, ForkProof, HeaderHash, Kind, RunId, Sequence, Stretch,
};

use super::super::command::{Cursor, Direction, MessageState};
use crate::log::{
    Admission, CleanMark, Entry, Instance, OwnStretch, PageRequest, Placed, Row, ShownAt,
    StoredChain,
};

/// A request about the entries of conversations.
#[expect(missing_docs, reason = "the fields' names and types say it all")]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EntriesRequest {
    // ---- at the start and at the end ----
    /// Looks up the end of each run that ended in order, and forgets it, durably. Comes at the start, before anything
    /// is written in any conversation or said to anybody. Answered by [`EntriesAnswer::Marks`].
    TakeMarks,
    /// Keeps, durably, where runs have ended: all that was written before is on disk as well. The last request of all.
    SetMarks(Vec<(ConversationId, CleanMark)>),
    /// Looks up conversations in the order of their identifiers. Answered by [`EntriesAnswer::Conversations`].
    Conversations {
        /// Begins behind this one.
        after: Option<ConversationId>,
    },
    /// Looks up the chains of a conversation, in their order. Answered by [`EntriesAnswer::Chains`].
    Chains {
        conversation: ConversationId,
        /// Begins behind this one.
        after: Option<ChainId>,
    },
    /// Looks up the proofs of forks, in the order of their chains. Answered by [`EntriesAnswer::Forks`].
    Forks {
        conversation: ConversationId,
        /// Begins behind this one.
        after: Option<ChainId>,
    },
    /// Looks up the entries that end chains, in the order in which they came. Answered by [`EntriesAnswer::Cuts`].
    Cuts {
        conversation: ConversationId,
        /// Begins behind this one.
        after: Option<Arrival>,
    },
    /// Looks up the first entries of this device that count no more and are to be written again. Answered by
    /// [`EntriesAnswer::Lost`].
    Lost { conversation: ConversationId },

    // ---- writing ----
    /// Keeps a conversation, or who it is with now. Messages that are there stay with whom they were.
    Open {
        conversation: ConversationId,
        /// What it is.
        kind: ConversationKind,
    },
    /// Writes in a conversation that is there: all of it, in order, or nothing. Answered by
    /// [`EntriesAnswer::Written`].
    Write {
        conversation: ConversationId,
        /// At most [`common::limits::ENTRY_WRITES_MAX`].
        writes: Vec<EntryWrite>,
    },
    /// Keeps how far the entries of a chain have got; that never goes back. Answered by [`EntriesAnswer::Reached`].
    Reach {
        conversation: ConversationId,
        /// Nothing is kept of one that is not there.
        chain: ChainId,
        reach: Reach,
        /// The last entry that has got so far, whether it is here or not.
        last: Sequence,
    },
    /// Drops the bodies of entries for ever, and removes their messages. Those that control something keep theirs.
    DropBodies {
        conversation: ConversationId,
        /// At most [`common::limits::BODIES_DROPPED_MAX`]; those that are not there are passed over.
        entries: Vec<EntryId>,
    },
    /// The same for a span of what is shown, a step at a time. Answered by [`EntriesAnswer::Forgotten`].
    Forget {
        conversation: ConversationId,
        /// Begins behind this place.
        after: Option<ShownAt>,
        /// Ends before this place.
        before: Option<ShownAt>,
    },

    // ---- reading ----
    /// Reads what a page is made of. Answered by [`EntriesAnswer::Page`].
    Page(PageRequest),
    /// Reads the headers from `first` to the first seal that is not before `last`, or as far as there are any. Answered
    /// by [`EntriesAnswer::OwnStretch`].
    OwnStretch {
        conversation: ConversationId,
        chain: ChainId,
        /// The first header.
        first: Sequence,
        /// The place that is to be sealed.
        last: Sequence,
    },
    /// Reads the headers around a place, from one seal to the next. Answered by [`EntriesAnswer::Stretch`].
    Stretch {
        conversation: ConversationId,
        at: EntryId,
    },
    /// Reads the hash of a header. Answered by [`EntriesAnswer::Hash`].
    Hash {
        conversation: ConversationId,
        /// The place of the header.
        at: EntryId,
    },
    /// Reads the proof that a chain forks. Answered by [`EntriesAnswer::Fork`].
    Fork {
        conversation: ConversationId,
        chain: ChainId,
    },
    /// Reads entries in the order in which they are shown. Answered by [`EntriesAnswer::Shown`].
    Shown(ShownQuery),
    /// Looks up which messages of this account in a conversation no device of the other one has. Answered by
    /// [`EntriesAnswer::Undelivered`].
    Undelivered { conversation: ConversationId },
    /// Finds the entries that messages are of. Answered by [`EntriesAnswer::Found`].
    Find {
        /// At most [`common::limits::MESSAGES_FOUND_MAX`].
        ids: Vec<MessageId>,
    },
}

/// What a conversation is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConversationKind {
    /// With the account that a server calls this now.
    Direct(AccountName),
    /// The notes of this account to itself.
    Notes(AccountName),
}

impl ConversationKind {
    /// The account that its messages are with.
    pub const fn account(&self) -> &AccountName {
        match self {
            Self::Direct(account) | Self::Notes(account) => account,
        }
    }
}

/// One thing to write in a conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EntryWrite {
    /// This device writes in this run from now on.
    Begin(RunId),
    /// Does what an admission says. What it says to rewrite is noted before anything is removed.
    Admit(Box<Admission>, Origin),
    /// Keeps the proof of a fork, in place of the one that may be there.
    Fork(Box<ForkProof>),
    /// An entry of this device that was lost is written again, and shown as the new one.
    Rewritten(EntryId),
    /// A message to the conversation's account that waited in the outbox is one of these entries now. Nothing happens
    /// if it does not wait there, or is of an entry already.
    Replaces(MessageId),
}

impl EntryWrite {
    /// The chain that it changes, if it does.
    pub const fn chain(&self) -> Option<ChainId> {
        match self {
            Self::Begin(_) | Self::Replaces(_) => None,
            Self::Admit(admission, _) => Some(admission.chain),
            Self::Fork(proof) => Some(proof.chain),
            Self::Rewritten(entry) => Some(entry.chain),
        }
    }

    /// The admission, if that is what it is.
    pub fn admission(&self) -> Option<&Admission> {
        if let Self::Admit(admission, _) = self {
            Some(admission)
        } else {
            None
        }
    }
}

impl EntriesRequest {
    /// Tells whether the store's journal keeps it until the store has it: what this device has written and nothing else
    /// follows from, for that may be on the wire before. A killed program finds it at the next start.
    pub fn is_journaled(&self) -> bool {
        let is_plain = |write: &EntryWrite| match write {
            EntryWrite::Begin(_) => true,
            EntryWrite::Admit(admission, origin) => {
                *origin == Origin::WrittenHere
                    && admission.remove.is_none()
                    && admission.rewrite.is_none()
            }
            EntryWrite::Fork(_) | EntryWrite::Rewritten(_) | EntryWrite::Replaces(_) => false,
        };
        if let Self::Write { writes, .. } = self {
            writes.iter().all(is_plain)
        } else {
            matches!(self, Self::Open { .. })
        }
    }
}

/// Where the entries of an admission come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// This device has just written them: [`crate::log::Replica::append`].
    WrittenHere,
    /// Another device of this account, or another copy of this one, has written them.
    OwnAccount,
    /// A device of another account has written them.
    OtherAccount,
}

/// How far an entry has got. What is read has been delivered, and what is delivered has been sent. Of an entry of
/// another account only [`Reach::Read`] says something: this account has read it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reach {
    /// A link has carried it.
    Sent,
    /// A device of the other account has it.
    Delivered,
    /// The other account has read it.
    Read,
}

/// How far the entries of a chain have got: the last one each time. None is before the next one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reached {
    /// A link has carried all up to this one.
    pub sent: Sequence,
    /// The other account has all up to this one.
    pub delivered: Sequence,
    /// All up to this one are read; of another account's, by this one.
    pub read: Sequence,
}

impl Default for Reached {
    /// Nothing has got anywhere.
    fn default() -> Self {
        Self {
            sent: Sequence::START,
            delivered: Sequence::START,
            read: Sequence::START,
        }
    }
}

impl Reached {
    /// The last entry that has got so far.
    pub const fn last(&self, reach: Reach) -> Sequence {
        match reach {
            Reach::Sent => self.sent,
            Reach::Delivered => self.delivered,
            Reach::Read => self.read,
        }
    }

    /// The same once all entries up to `last` have got so far.
    #[must_use]
    pub fn with(self, reach: Reach, last: Sequence) -> Self {
        let up_to = |own: Sequence, implied| {
            if reach >= implied { own.max(last) } else { own }
        };
        Self {
            sent: up_to(self.sent, Reach::Sent),
            delivered: up_to(self.delivered, Reach::Delivered),
            read: up_to(self.read, Reach::Read),
        }
    }

    /// The state that the message of an entry has.
    pub(crate) fn state(
        &self,
        direction: Direction,
        kind: &ConversationKind,
        entry: Sequence,
    ) -> MessageState {
        // Nobody has to get what is received, or what somebody writes to themselves.
        let is_there = match (direction, kind) {
            (Direction::Sent, ConversationKind::Direct(_)) => false,
            (Direction::Sent, ConversationKind::Notes(_)) | (Direction::Received, _) => true,
        };
        let state = self.of_ours(entry);
        match is_there {
            true => state.max(MessageState::Delivered),
            false => state,
        }
    }

    /// The state that a message of this account to another one has.
    pub(crate) fn of_ours(&self, entry: Sequence) -> MessageState {
        if entry <= self.read {
            MessageState::Read
        } else if entry <= self.delivered {
            MessageState::Delivered
        } else if entry <= self.sent {
            MessageState::Sent
        } else {
            MessageState::Queued
        }
    }
}

impl Reach {
    /// How far there is to get.
    pub(crate) const ALL: [Self; 3] = [Self::Sent, Self::Delivered, Self::Read];

    /// The state of a message whose entry has got so far.
    pub(crate) const fn state(self) -> MessageState {
        match self {
            Self::Sent => MessageState::Sent,
            Self::Delivered => MessageState::Delivered,
            Self::Read => MessageState::Read,
        }
    }
}

impl Origin {
    /// Which way the messages of the entries go.
    pub(crate) const fn direction(self) -> Direction {
        match self {
            Self::WrittenHere | Self::OwnAccount => Direction::Sent,
            Self::OtherAccount => Direction::Received,
        }
    }
}

/// Counts the entries of all conversations in the order in which they came here, from 1. None is given twice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Arrival(pub u64);

/// Which entries to show: the first ones of a span, or the last.
#[expect(missing_docs, reason = "the fields' names and types say it all")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShownQuery {
    pub conversation: ConversationId,
    /// Begins behind this place.
    pub after: Option<ShownAt>,
    /// Ends before this place.
    pub before: Option<ShownAt>,
    /// Which end of the span is looked up.
    pub end: SpanEnd,
    /// At most as many, and no more than [`common::limits::HISTORY_ITEMS_MAX`] nor many more bytes of bodies than
    /// [`common::limits::HISTORY_ITEMS_LEN_MAX`].
    pub limit: u32,
}

/// An end of a span.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpanEnd {
    /// What was written first.
    First,
    /// What was written last.
    Last,
}

/// The answer to an [`EntriesRequest`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EntriesAnswer {
    /// How the last run of the program ended.
    Marks {
        /// The machine and the file, for [`crate::log::at_start`] now and for the marks at the end.
        instance: Instance,
        /// The conversations whose runs have ended in order, and where.
        marks: Vec<(ConversationId, CleanMark)>,
    },
    /// Conversations.
    Conversations(Part<StoredConversation, ConversationId>),
    /// Chains, for [`crate::log::Replica::restore`], and how far their entries have got.
    Chains(Part<(ChainId, StoredChain, Reached), ChainId>),
    /// Proofs, to be verified and given to [`crate::log::Replica::admit_fork`].
    Forks(Part<ForkProof, ChainId>),
    /// Cuts, for [`crate::log::Replica::restore_cut`].
    Cuts(Part<StoredCut, Arrival>),
    /// Entries to be written again, each with an [`EntryWrite::Rewritten`]. None are left if there are none here.
    Lost(Vec<LostEntry>),
    /// The texts that people are shown now, in the order in which they were asked for, each with the place of its
    /// message.
    Written(Vec<(EntryId, Cursor)>),
    /// The messages whose state has changed, in the order of their entries: the last ones, at most
    /// [`common::limits::HISTORY_ITEMS_MAX`].
    Reached(Vec<MessageId>),
    /// Bodies of a part of the span are dropped; `next` is where to go on, if that was not all.
    Forgotten {
        /// The last entry that was looked at.
        next: Option<ShownAt>,
    },
    /// What [`PageRequest::page`] makes a page of: at most [`common::limits::PAGE_ENTRIES_MAX`] rows, which end once they
    /// count [`common::limits::PAGE_LEN_MAX`].
    Page {
        /// The hash of the header before the first row.
        previous: HeaderHash,
        /// None if the first is not there. Of a [`crate::log::PageEnd::Before`], those that are too many have no body.
        rows: Vec<Row>,
    },
    /// For [`crate::log::Traces::handle_own`]. At most [`common::limits::STRETCH_READ_MAX`] headers.
    OwnStretch(OwnStretch),
    /// A stretch, to be sent; `None` if none is sealed there.
    Stretch(Option<Stretch>),
    /// A hash, for [`crate::log::Replica::handle_hash`]; `None` if there is no such entry.
    Hash(Option<HeaderHash>),
    /// A proof; `None` if there is none.
    Fork(Option<Box<ForkProof>>),
    /// Entries, the first one shown first.
    Shown(Vec<ShownEntry>),
    /// The entries of those messages that are of one, in the order in which they were asked for.
    Found(Vec<(MessageId, ConversationId, EntryId)>),
    /// The entries of messages that wait, the first [`common::limits::OUTBOX_MESSAGES_MAX`] that came here.
    Undelivered(Vec<EntryId>),
}

/// A part of a longer list.
#[expect(missing_docs, reason = "the fields' names and types say it all")]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part<T, After> {
    pub items: Vec<T>,
    /// Ask for what is behind this, unless that was all.
    pub next: Option<After>,
}

/// A conversation as it is kept.
#[expect(missing_docs, reason = "the fields' names and types say it all")]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredConversation {
    pub id: ConversationId,
    /// What it is.
    pub kind: ConversationKind,
    /// The run in which this device has written last.
    pub run: Option<RunId>,
}

/// An entry that says where a chain ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoredCut {
    /// The entry itself.
    pub by: EntryId,
    /// When it was written.
    pub clock: Clock,
    /// The last entry that counts.
    pub target: EntryId,
}

/// An entry of this device that counts no more.
#[expect(missing_docs, reason = "the fields' names and types say it all")]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LostEntry {
    /// Where it was.
    pub id: EntryId,
    /// What sort of body it has.
    pub kind: Kind,
    pub body: Vec<u8>,
}

/// An entry to be shown. What it is worth says [`crate::log::Replica::state`].
#[expect(missing_docs, reason = "the fields' names and types say it all")]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShownEntry {
    pub id: EntryId,
    /// When it came here.
    pub arrival: Arrival,
    /// Where it is shown.
    pub placed: Placed,
    /// What was written.
    pub entry: Entry,
    /// This device has written it, rather than received it.
    pub is_written_here: bool,
}

impl ShownEntry {
    /// Its place among all of its conversation.
    pub const fn at(&self) -> ShownAt {
        ShownAt::new(self.id, self.placed.at)
    }
}

impl EntriesRequest {
    /// Tells whether it changes, or could change, something.
    pub const fn is_write(&self) -> bool {
        match self {
            Self::TakeMarks
            | Self::SetMarks(_)
            | Self::Open { .. }
            | Self::Write { .. }
            | Self::Reach { .. }
            | Self::DropBodies { .. }
            | Self::Forget { .. } => true,
            Self::Conversations { .. }
            | Self::Chains { .. }
            | Self::Forks { .. }
            | Self::Cuts { .. }
            | Self::Lost { .. }
            | Self::Page(_)
            | Self::OwnStretch { .. }
            | Self::Stretch { .. }
            | Self::Hash { .. }
            | Self::Fork { .. }
            | Self::Shown(_)
            | Self::Undelivered { .. }
            | Self::Find { .. } => false,
        }
    }
}

/// Why the store does not write something: whoever asks for it does not know what is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EntriesRefusal {
    /// It was never opened.
    #[error("cannot write in a conversation that was not opened")]
    NotOpen,
    /// There are as many as may be.
    #[error("cannot keep more than {CONVERSATIONS_MAX} conversations")]
    TooManyConversations,
    /// The request has more writes, entries or marks than it may have.
    #[error("cannot write so much at once; ask for it in parts")]
    TooMany,
    /// Something before it is missing: an earlier write has failed.
    #[error("cannot keep an entry that follows nothing that is kept; restart the program")]
    NotNext,
    /// Another entry is there.
    #[error("cannot keep a second entry at one place; restart the program")]
    Contradicts,
    /// It would remove an entry that counts, or seal one that is not there.
    #[error("cannot seal what is not there, nor remove what is sealed; restart the program")]
    Seal,
    /// It is of a chain or of a conversation that it does not say.
    #[error("cannot write what belongs to another chain")]
    OtherChain,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(number: u64) -> Sequence {
        Sequence::new(number).unwrap()
    }

    #[test]
    fn what_is_read_was_delivered_and_sent_and_nothing_goes_back() {
        let reached = Reached::default().with(Reach::Delivered, at(5));
        let expected = Reached {
            sent: at(5),
            delivered: at(5),
            read: at(0),
        };
        assert_eq!(reached, expected);
        let reached = reached.with(Reach::Sent, at(9)).with(Reach::Read, at(7));
        let expected = Reached {
            sent: at(9),
            delivered: at(7),
            read: at(7),
        };
        assert_eq!(reached, expected);
        for reach in [Reach::Sent, Reach::Delivered, Reach::Read] {
            assert_eq!(reached.with(reach, at(7)), reached);
            assert_eq!(reached.with(reach, at(20)).last(reach), at(20));
        }
    }

    #[test]
    fn a_message_is_as_far_as_its_chain_and_who_it_is_from_and_for() {
        let reached = Reached {
            sent: at(3),
            delivered: at(2),
            read: at(1),
        };
        let name = || "bob".parse().unwrap();
        let (direct, notes) = (
            ConversationKind::Direct(name()),
            ConversationKind::Notes(name()),
        );
        let states =
            |direction, kind| [1, 2, 3, 4].map(|number| reached.state(direction, kind, at(number)));
        let sent = states(Direction::Sent, &direct);
        let expected = [
            MessageState::Read,
            MessageState::Delivered,
            MessageState::Sent,
            MessageState::Queued,
        ];
        assert_eq!(sent, expected);
        let there = [
            MessageState::Read,
            MessageState::Delivered,
            MessageState::Delivered,
            MessageState::Delivered,
        ];
        assert_eq!(states(Direction::Sent, &notes), there);
        assert_eq!(states(Direction::Received, &direct), there);
    }
}
