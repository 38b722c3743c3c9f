//! Who comes and goes, of those that the person has to do with.

use std::time::Instant;

use common::id::AccountName;

use super::{Conversation, Item};
use crate::node::command::PresenceView;

impl Conversation {
    /// A device came online, or went offline.
    pub(super) fn on_presence(&mut self, change: &PresenceView, now: Instant) {
        let account = match change {
            PresenceView::Online(device) if device.is_self => return,
            PresenceView::Online(device) => &device.account,
            PresenceView::Offline { account, .. } => account,
        };
        self.meet(account);
        if let Some((account, is_online)) = self.presence.on_change(change) {
            self.on_moved(account, is_online, now);
        }
    }

    /// Tells whether an account is whom one talks to, or one whom messages wait for.
    pub(super) fn awaits(&self, account: &AccountName) -> bool {
        self.with.as_ref() == Some(account) || self.sent.waiting_for(account) > 0
    }

    /// Shows that the recipient, or somebody whom messages wait for, came online or went offline, and that
    /// somebody left whose files are under way, or is back; and that of nobody else.
    pub(super) fn on_moved(&mut self, account: AccountName, is_online: bool, now: Instant) {
        if is_online {
            self.sent.on_online(&account, now);
        }
        let has_file = |account: &AccountName| {
            self.offers.all().any(|(_, offer)| offer.from == *account)
                || self.transfers.is_with(account)
        };
        let of_file = self.departed.is_told(&account, is_online, has_file);
        if self.awaits(&account) || of_file {
            self.show(Item::Presence { account, is_online });
        }
    }
}
