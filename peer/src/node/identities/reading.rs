//! What is read of a log, page by page, and who waits for it.

use std::collections::BTreeSet;

use common::account::AccountEntry;
use common::key::DeviceKey;
use common::wire::rendezvous::Enrolment;

use super::Wish;
use crate::node::command::CommandId;

/// A log that is being read.
#[derive(Debug)]
pub(super) struct Reading {
    /// What the pages so far had.
    pub(super) entries: Vec<AccountEntry>,
    /// The devices that have logged in to the account, if it is this device's and commands wait.
    pub(super) enrolled: Vec<Enrolment>,
    /// The commands that wait for the last page.
    pub(super) waiting: Vec<(CommandId, Wish)>,
    /// The devices whose links wait for it.
    pub(super) claims: BTreeSet<DeviceKey>,
}

impl Reading {
    /// Nothing is read yet.
    pub(super) fn new(waiting: Option<(CommandId, Wish)>) -> Self {
        Self {
            entries: Vec::new(),
            enrolled: Vec::new(),
            waiting: waiting.into_iter().collect(),
            claims: BTreeSet::new(),
        }
    }
}
