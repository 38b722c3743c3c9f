//! Replicated logs: what a conversation, or an account, consists of.
//!
//! A device writes **entries**, one after the other, in a *run*. Each has a [`Header`] that names its place and holds
//! the hash of the header before it, so that the entries of a run form a **chain**, and a [`Body`]. Entries carry no
//! signatures; a [`Seal`] signs the hash of one header, and by the chain everything before it in the run.
//!
//! Two different sealed headers at one place are a **fork**, which any third party can verify by a [`ForkProof`].
//!
//! Here is what a single entry, seal or proof says and whether it is genuine. Which of them are taken, given on
//! and shown is the peer's business. No header, body or seal is hashed or signed as serde encodes it: each of their layouts
//! is byte-exact, big-endian, and described in `PROTOCOL.md`. What identifiers and the like implement of serde is for the
//! [frames](crate::wire::peer::LogFrame) in which they travel.

// What an entry says: texts, references, reactions.
mod body;
// Hybrid logical clocks.
mod clock;
// Stretches of chains, and two that contradict each other.
mod fork;
// The header of an entry, its bytes and its hash.
mod header;
// Identifiers of conversations, runs, chains and entries.
mod id;
// What sort of body an entry has.
mod kind;
// Signatures over runs of entries.
mod seal;
// What a device has, in few words.
mod vector;

pub use body::{Body, BodyError, Reaction, Session};
pub use clock::{Clock, Dating, HybridClock};
pub use fork::{Fork, ForkError, ForkProof, Stretch, StretchError, chained};
pub use header::{Header, HeaderError, Outline};
pub use id::{
    AccountId, BodyHash, ChainId, ConversationId, EntryId, HeaderHash, RunId, Sequence,
    SequenceError,
};
pub use kind::Kind;
pub use seal::Seal;
pub use vector::{BUCKETS, Buckets, Digest, Extent, Vector};
