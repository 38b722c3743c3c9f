//! Replicas of logs: which entries a device takes, gives on and shows.
//!
//! A conversation consists of chains of entries ([`common::log`]), one for each run of each device of its members, and
//! every device keeps all of them. A [`Replica`] is one device's copy of one conversation. Of each chain it holds where
//! it begins and ends, never its entries: those are in the store. So ten entries cost as much as a hundred thousand.
//!
//! The path of what comes from another device:
//!
//! 1. [`Replica::examine`] recomputes the hashes of a [`Page`] of entries and looks whether it follows what is there.
//! 2. [`Examined::check`] verifies its seal: slow, so it is done off the loop, and needs nothing of the replica.
//! 3. [`Replica::admit`] takes it, and returns an [`Admission`]: what the store is to write, in one transaction.
//! 4. [`Replica::committed`] is told when the disk has it. Only then is anybody told that it is here.
//!
//! A page follows the one before it only once that is taken. So the caller keeps the pages of a link, of which there are
//! no more than may be in flight, until those before them are checked. What follows nothing even then is dropped.
//!
//! What two devices say to each other on a link: [`Giving`] decides what the other one lacks and in which pages it is
//! given, [`Receiving`] that each page is answered, and [`Traces`] finds where two copies of a chain part. A [`Session`]
//! is all of that for one link, and speaks in [frames](common::wire::peer::LogFrame).
//!
//! Invariants, whatever others say:
//!
//! - Nothing is said to be here, by [`Replica::extent`] or [`Replica::vector`], that is not on disk.
//! - Nothing is given on that its author has not sealed.
//! - A chain has no gaps, and each of its entries is covered by the hash in the next one.
//! - A run that its author has written in two ways counts for nobody from where they part.
//!
//! All of this does no I/O, reads no clock and draws no chance. The caller owns links, store and worker threads, and
//! says by [`Standing`] whose entries count.

// What is taken of a chain, and what follows from it.
mod chain;
// Ends of chains that others have set.
mod cuts;
// What a link lacks, and in which pages it is given.
mod giving;
// Where entries are shown.
mod order;
// Pages: entries on their way.
mod page;
// Each page is answered, in order.
mod receiving;
// Why something is not taken.
mod refusal;
// One conversation on one device.
mod replica;
// Whether a run of this device's own goes on.
mod run;
// When an author seals.
mod sealing;
// One link, over all conversations.
mod session;
// Whose entries count.
mod standing;
// Where two copies of a chain part.
mod traces;

#[cfg(test)]
pub(crate) mod tests;

pub use chain::{StoredChain, Tip, Unsealed};
pub use giving::{Due, Flight, Giving};
pub use order::{Placed, ShownAt};
pub use page::{Entry, Page, PageEnd, PageRequest, Row};
pub use receiving::{Receiving, Slot};
pub use refusal::Refusal;
pub use replica::{
    Admission, AppendError, Checked, EntryState, Examined, Receipt, Replica, Rewrite, SealJob,
    Source, StoredEntry,
};
pub use run::{CleanMark, Instance, NewRun, OwnRun, RunStart, at_start};
pub use sealing::Sealing;
pub use session::{Budget, Context, Event, Session, Shared, Task, Violation};
pub use standing::{Rank, Standing};
pub use traces::{OwnStretch, TraceStep, Traces};
