//! What a device is to write in a conversation, and what follows once something is on disk.

use common::id::MessageId;
use common::log::{ChainId, EntryId, Kind};
use common::time::UnixTime;

use super::command::{CommandId, HistoryItem};
use super::transport::LinkId;
use crate::log::{Receipt, Slot};

/// Something to be written.
#[derive(Clone, Debug)]
pub(super) struct Draft {
    pub(super) kind: Kind,
    pub(super) body: Vec<u8>,
    /// When it was written, by this device's clock; now if that is not known.
    pub(super) at: Option<UnixTime>,
    /// Whom to tell once it is on disk.
    pub(super) then: Then,
}

/// What follows when something of this device's own is on disk.
#[derive(Clone, Debug)]
pub(super) enum Then {
    /// Nobody waits for it.
    Nothing,
    /// One of the messages that a command sends.
    Sent(CommandId, usize),
    /// It was written before, in an entry that counts no more.
    Rewritten(EntryId),
    /// It was a message of the old way that waited.
    Replaces(MessageId),
}

/// What follows once something is on disk.
#[derive(Debug, Default)]
pub(super) struct Written {
    pub(super) receipts: Vec<(ChainId, Receipt)>,
    /// What people may be shown of it.
    pub(super) items: Vec<(EntryId, HistoryItem)>,
    /// The page that has brought it.
    pub(super) settles: Option<(LinkId, Slot)>,
    /// The command whose message it is, and which of them.
    pub(super) sent: Option<(CommandId, usize)>,
    /// The message that waited and is an entry now.
    pub(super) replaces: Option<MessageId>,
    /// What was written here and is given from memory until then.
    pub(super) fresh: Option<EntryId>,
    /// What is to be written again if the store fails, since nobody else does it.
    pub(super) again: Option<Draft>,
}
