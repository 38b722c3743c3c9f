//! What two devices say to each other about logs.
//!
//! They travel as [`PeerFrame::Log`](super::PeerFrame::Log), on the message stream of a link.
//!
//! Conversations and chains have *numbers* on a link, so that their identifiers travel once. Each side numbers for
//! itself what it speaks of, from 0 on, and uses its own numbers in whatever it sends. A chain's number says of which
//! conversation it is, too.
//!
//! Everything is bounded while it is decoded: the length of each list and body is checked before it is read.

use serde::{Deserialize, Serialize};

use crate::id::{AccountName, SessionId};
use crate::limits::{
    CHAINS_PAGE_MAX, DIGESTS_PAGE_MAX, HAVE_CHAINS_MAX, KNOWN_ACCOUNTS_MAX, MARKS_MAX,
    PAGE_ENTRIES_MAX,
};
use crate::log::{
    AccountId, Buckets, ChainId, Clock, ConversationId, Digest, Extent, HeaderHash, Kind, Outline,
    Seal, Sequence, Stretch,
};

// Lists and bodies that are checked while they are decoded.
mod bounded;

pub use bounded::{BodyBytes, BodyLen, List, OutOfBounds};

/// The number of a conversation on one link, as the side that sends it counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ConversationNumber(pub u32);

/// The number of a chain on one link, as the side that sends it counts, over all conversations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ChainNumber(pub u32);

/// A frame about logs. Its longest, [`LogFrame::Entries`], has at most
/// [`PAGE_FRAME_LEN_MAX`](crate::limits::PAGE_FRAME_LEN_MAX) bytes; all others fit
/// [`LINK_FRAME_LEN_MAX`](crate::limits::LINK_FRAME_LEN_MAX).
#[expect(missing_docs, reason = "the fields' names and types say it all")]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LogFrame {
    /// The first one, and only that.
    Greet(Greet),
    /// The digests of all buckets, once, if those of the greetings differ.
    Buckets(Box<Buckets>),
    /// The digests of the shared conversations in buckets that differ. Over all such frames of a link conversations
    /// ascend, so that each is compared once.
    Digests(List<(ConversationId, Digest), 1, DIGESTS_PAGE_MAX>),
    /// Gives a conversation a number, which is the next one; or repeats it.
    Open {
        number: ConversationNumber,
        /// What has it from now on.
        conversation: ConversationId,
        /// Whether the other side is to say again what it has of it, because that was ignored before.
        is_again: bool,
    },
    /// What the sender has of a conversation: all of it, in pages from `is_first` to `is_last`; or, between such lists, of
    /// chains that have no number yet.
    Chains {
        /// Which conversation it is of.
        conversation: ConversationNumber,
        /// In order within a list.
        chains: List<NumberedChain, 0, CHAINS_PAGE_MAX>,
        /// Whether a list begins with it.
        is_first: bool,
        /// Whether a list ends with it.
        is_last: bool,
    },
    /// What is on the sender's disk now, of chains of which that has changed; and the answer to pages.
    Have {
        /// How many pages are answered by it, from the oldest unanswered one on.
        answered: u32,
        /// Chains, each once.
        extents: List<(ChainNumber, Extent), 0, HAVE_CHAINS_MAX>,
    },
    /// The sender has nothing of a chain before `base`, and never will: do not wait for it.
    Gone {
        /// Which chain it is of.
        chain: ChainNumber,
        /// The first entry that it keeps.
        base: Sequence,
    },
    /// Entries in a row, to be answered by a [`LogFrame::Have`].
    Entries(Entries),
    /// A seal of the sender's own, for entries that it has sent without one.
    Seal {
        /// Which chain it is of.
        chain: ChainNumber,
        /// Where it belongs, and the signature.
        seal: Seal,
    },
    /// Up to where the sender's account has read chains; among devices of one account, of its own chains, up to where the
    /// other account has them. Of several marks of a chain the furthest counts.
    Marks(List<(ChainNumber, Sequence), 1, MARKS_MAX>),
    /// Two sealed stretches of a chain that contradict each other.
    Fork {
        /// Which chain forks.
        chain: ChainNumber,
        /// One way.
        one: Stretch,
        /// The other one, from the same place on.
        other: Stretch,
    },
    /// Asks for the stretch of a chain, from one seal to the next, in which a place is.
    Trace {
        /// Which chain it is of.
        chain: ChainNumber,
        place: Sequence,
    },
    /// Answers [`LogFrame::Trace`].
    Stretch {
        /// Which chain it is of, by the number of whoever asked: the one who answers may have none for it.
        chain: ChainNumber,
        /// What was asked for, if the sender has it.
        stretch: Option<Stretch>,
    },
    /// The sender's person is typing.
    Typing { conversation: ConversationNumber },
    /// Asks to talk.
    Ask {
        /// Identifies the talk. Random.
        session: SessionId,
        /// Where it is to be.
        conversation: ConversationNumber,
    },
    /// Answers [`LogFrame::Ask`].
    Answer {
        /// What was asked.
        session: SessionId,
        /// Whether they talk.
        is_yes: bool,
    },
    /// Ends a talk, or takes back what was asked.
    End { session: SessionId },
    /// Whom the sender's account has conversations with. Said among devices of one account, each of which reads the logs
    /// of those that it does not know.
    Known(List<AccountName, 1, KNOWN_ACCOUNTS_MAX>),
}

/// Who the sender is, and what it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Greet {
    /// The log of its account, if that has an identity.
    pub account: Option<AccountHead>,
    /// Where what it has is stored. Another one than last time is another database, or a copy.
    pub instance: DatabaseInstance,
    /// The digest of all conversations that it shares with the other side.
    pub digest: Digest,
}

/// How much of its account's log a device has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccountHead {
    /// Which account it is.
    pub account: AccountId,
    /// How many entries it has.
    pub len: u32,
    /// A hash over what it has: the same for all who have the same.
    pub head: HeaderHash,
}

/// 32 bytes that differ for another machine, and for a copy of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatabaseInstance(pub [u8; 32]);

/// A chain with its number.
#[expect(missing_docs, reason = "the fields' names and types say it all")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NumberedChain {
    /// The next number, or the one that it has.
    pub number: ChainNumber,
    pub chain: ChainId,
    /// What the sender has of it.
    pub extent: Extent,
}

/// Entries of a chain in a row.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entries {
    /// Which chain they are of.
    pub chain: ChainNumber,
    /// The place of the first one.
    pub first: Sequence,
    /// The hash of the header before it.
    pub previous: HeaderHash,
    /// What their places do not say.
    pub entries: List<LogEntry, 1, PAGE_ENTRIES_MAX>,
    /// A seal of one of them.
    pub seal: Option<Seal>,
}

/// An entry without its place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogEntry {
    /// When it was written, by its author.
    pub clock: Clock,
    /// What sort of body it has.
    pub kind: Kind,
    /// What it says.
    pub body: EntryBody,
}

/// The body of an entry, or what is left of it.
#[expect(missing_docs, reason = "the fields' names and types say it all")]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum EntryBody {
    Kept(BodyBytes),
    /// The sender does not have it any more.
    Dropped {
        /// How long it was.
        len: BodyLen,
        hash: crate::log::BodyHash,
    },
}

impl LogEntry {
    /// Makes what travels of an entry; `None` if its body is longer than any may be.
    pub fn new(outline: Outline, body: Option<Vec<u8>>) -> Option<Self> {
        let body = match body {
            Some(body) => EntryBody::Kept(body.try_into().ok()?),
            None => EntryBody::Dropped {
                len: outline.body_len.try_into().ok()?,
                hash: outline.body_hash,
            },
        };
        Some(Self {
            clock: outline.clock,
            kind: outline.kind,
            body,
        })
    }

    /// What its header says, of which the hash of the body is computed here, and the body.
    pub fn into_parts(self) -> (Outline, Option<Vec<u8>>) {
        let (body_len, body_hash, body) = match self.body {
            EntryBody::Kept(body) => (body.len(), body.hash(), Some(body.into())),
            EntryBody::Dropped { len, hash } => (len, hash, None),
        };
        let outline = Outline {
            clock: self.clock,
            kind: self.kind,
            body_len: body_len.into(),
            body_hash,
        };
        (outline, body)
    }
}

#[cfg(test)]
mod tests;
