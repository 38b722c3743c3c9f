//! What a session asks of its caller, and what it lets it know.

use common::id::{AccountName, SessionId};
use common::log::{ChainId, ConversationId, Extent, ForkProof, Seal, Sequence};
use common::wire::peer::Greet;

use super::super::page::{Page, PageRequest};
use super::super::receiving::Slot;

/// What the caller is to do. The `Take` ones are carried out in the order in which they came, one after the other where
/// they are of one chain: a seal is that of the entries before it.
#[expect(missing_docs, reason = "the fields' names and types say it all")]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Task {
    /// Read from the store and make a page, for [`Session::handle_page`](super::Session::handle_page).
    ReadPage(PageRequest),
    /// Read the headers around a place, from one seal to the next, for
    /// [`Session::handle_stretch`](super::Session::handle_stretch).
    ReadStretch {
        /// Where to read.
        conversation: ConversationId,
        chain: ChainId,
        /// The place that is to be among them.
        place: Sequence,
    },
    /// Read headers from `first` on to the first seal that is not before `last`, for
    /// [`Session::handle_own_stretch`](super::Session::handle_own_stretch).
    ReadOwn {
        /// Where to read.
        conversation: ConversationId,
        chain: ChainId,
        /// The first header.
        first: Sequence,
        /// The place that is to be sealed.
        last: Sequence,
    },
    /// Read the proof that a chain forks, for [`Session::handle_proof`](super::Session::handle_proof).
    ReadProof {
        /// Where to read.
        conversation: ConversationId,
        chain: ChainId,
    },
    /// Examine, check and admit a page, and tell [`Session::handle_settled`](super::Session::handle_settled) when it is
    /// refused or on disk.
    TakePage {
        slot: Slot,
        /// The page. It came from the device at the other end, which is its source.
        page: Page,
    },
    /// Examine, check and admit a seal, and tell [`Session::handle_seal`](super::Session::handle_seal).
    TakeSeal {
        /// Where it belongs.
        conversation: ConversationId,
        chain: ChainId,
        seal: Seal,
    },
    /// Verify a proof of a fork and admit it, and tell
    /// [`Session::handle_proof_taken`](super::Session::handle_proof_taken).
    TakeProof(Box<ForkProof>),
}

/// What the caller may want to know. The other side says so: it proves nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// It has greeted.
    Greeted(Greet),
    /// Of these conversations it has all that was here when the link began, and no more.
    Same(Vec<ConversationId>),
    /// It has this of a chain on its disk: for receipts, and for
    /// [`Replica::note_claim`](super::super::Replica::note_claim) if this device writes the chain.
    Has {
        /// Of which conversation.
        conversation: ConversationId,
        /// Of which chain.
        chain: ChainId,
        /// What it has.
        extent: Extent,
    },
    /// It has nothing of a chain before `base`: if nobody else is left to be asked,
    /// [`Replica::give_up`](super::super::Replica::give_up).
    Gone {
        /// Of which conversation.
        conversation: ConversationId,
        /// Of which chain.
        chain: ChainId,
        /// The first entry that it keeps.
        base: Sequence,
    },
    /// Its account has read a chain up to here.
    Read {
        /// Of which conversation.
        conversation: ConversationId,
        /// Of which chain.
        chain: ChainId,
        /// The last entry that was read.
        last: Sequence,
    },
    /// Its person is typing.
    Typing(ConversationId),
    /// Its person asks to talk.
    Asked {
        /// Identifies the talk.
        session: SessionId,
        /// Where it is to be.
        conversation: ConversationId,
    },
    /// It answers a question to talk.
    Answered {
        /// What was asked.
        session: SessionId,
        /// Whether they talk.
        is_yes: bool,
    },
    /// It ends a talk.
    Ended(SessionId),
    /// Its account has conversations with these.
    Known(Vec<AccountName>),
}
