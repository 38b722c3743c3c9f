//! Files on their way, in either direction.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use common::id::{AccountName, TransferId};

use crate::node::command::TransferState;

/// How often it is told how far a transfer is.
const PROGRESS_PAUSE: Duration = Duration::from_secs(5);

/// Where a file goes or comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    To(AccountName),
    From(AccountName),
}

/// A file that was offered, or whose offer was accepted, in this conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Transfer {
    /// The file's name, perhaps from outside.
    pub(crate) name: String,
    pub(crate) way: Way,
}

/// The transfers that this conversation follows until they end. The node bounds how many there are.
#[derive(Debug, Default)]
pub(super) struct Transfers {
    /// With the moment at which something was told of each last.
    followed: BTreeMap<TransferId, (Transfer, Instant)>,
}

impl Transfers {
    /// Follows a transfer from now on.
    pub(super) fn follow(&mut self, id: TransferId, transfer: Transfer, now: Instant) {
        self.followed.insert(id, (transfer, now));
    }

    /// Tells whether a transfer is followed.
    pub(super) fn follows(&self, id: TransferId) -> bool {
        self.followed.contains_key(&id)
    }

    /// Notes how far a transfer is. Gives it where that is worth telling a person: its end, and its
    /// progress every [`PROGRESS_PAUSE`].
    pub(super) fn on_state(
        &mut self,
        id: TransferId,
        state: &TransferState,
        now: Instant,
    ) -> Option<Transfer> {
        if state.is_final() {
            return self.followed.remove(&id).map(|(transfer, _)| transfer);
        }
        let (transfer, told) = self.followed.get_mut(&id)?;
        let is_due = now >= *told + PROGRESS_PAUSE;
        if !matches!(state, TransferState::Moving { .. }) || !is_due {
            return None;
        }
        *told = now;
        Some(transfer.clone())
    }

    /// Tells whether none is on its way.
    pub(super) fn is_empty(&self) -> bool {
        self.followed.is_empty()
    }
}
