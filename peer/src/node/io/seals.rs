//! Seals of entries, and proofs of forks: what is checked and made off the loop.

use std::sync::Arc;

use common::key::DeviceSecret;
use common::log::{Fork, ForkError, ForkProof, Seal};

use crate::log::{Checked, Examined, Refusal, SealJob};

/// Pairs a [`SealOutcome`] with its [`SealWork`]. Chosen by the node, unique within a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct WorkId(pub u64);

/// Something that takes one or two signatures, some 30 to 150 microseconds.
#[derive(Debug)]
pub enum SealWork {
    /// Verify the seal of a page, or one that came by itself.
    Check(Box<Examined>),
    /// Verify a proof of a fork.
    Prove(Box<ForkProof>),
    /// Sign a header of this device's own.
    Sign(Arc<DeviceSecret>, SealJob),
}

/// What came of it.
#[derive(Clone, Debug)]
pub enum SealOutcome {
    /// Of [`SealWork::Check`].
    Checked(Result<Box<Checked>, Refusal>),
    /// Of [`SealWork::Prove`], with the proof.
    Proved(Box<ForkProof>, Result<Fork, ForkError>),
    /// Of [`SealWork::Sign`].
    Signed(Seal),
}

impl SealWork {
    /// Checks, proves or signs, which takes a signature's time: not for the thread of the node.
    pub fn run(self) -> SealOutcome {
        match self {
            Self::Check(examined) => SealOutcome::Checked(examined.check().map(Box::new)),
            Self::Prove(proof) => {
                let fork = proof.verify();
                SealOutcome::Proved(proof, fork)
            }
            Self::Sign(secret, job) => {
                SealOutcome::Signed(Seal::sign_hash(&secret, job.sequence, &job.hash))
            }
        }
    }
}
