//! Who comes and goes, of those that the person has to do with.

use std::time::Instant;

use common::id::AccountName;

use super::{Conversation, Item, Offers, Transfers};
use crate::node::command::{Event, PathChanged, PresenceView};

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
        let (offers, transfers) = (&self.offers, &self.transfers);
        let has_file = |account: &AccountName| has_file(offers, transfers, account);
        let of_file = self.departed.is_told(&account, is_online, has_file);
        if self.awaits(&account) || of_file {
            self.show(Item::Presence { account, is_online });
        }
    }

    /// Shows that the packets of a link go another way than before, to those of whom it would be shown that they
    /// left: the recipient, and whoever a message or a file waits for.
    pub(super) fn on_rerouted(&mut self, view: PathChanged) {
        self.tell(Event::Path(view.clone()));
        let has_file = has_file(&self.offers, &self.transfers, &view.account);
        if self.awaits(&view.account) || has_file {
            self.show(Item::Path(view));
        }
    }

    /// Says once that nobody can be reached, since all is to go through a relay that the server has not.
    pub(super) fn on_relay_off(&mut self) {
        if !std::mem::replace(&mut self.knows_relay_off, true) {
            self.tell(Event::RelayOff);
            self.show(Item::RelayOff);
        }
    }
}

/// Tells whether a file of or for an account is under way, or offered.
fn has_file(offers: &Offers, transfers: &Transfers, account: &AccountName) -> bool {
    offers.all().any(|(_, offer)| offer.from == *account) || transfers.is_with(account)
}
