//! Who is heard on the local network: told while the server is away, because messages go there without it.

use common::id::AccountName;

use super::{Conversation, Item};
use crate::node::command::Event;

impl Conversation {
    /// A device of an account is heard on the local network, or no more. Shown while the connection to the
    /// server is lost, of whom one talks to and of those whom messages wait for.
    pub(super) fn on_nearby(&mut self, account: AccountName, is_here: bool) {
        let is_news = if is_here {
            self.meet(&account);
            self.presence.add_existing(&account);
            self.nearby.insert(account.clone())
        } else {
            self.nearby.remove(&account)
        };
        if !is_news {
            return;
        }
        self.tell(Event::Nearby {
            account: account.clone(),
            is_here,
        });
        if self.connection.is_lost() && self.awaits(&account) {
            self.show(Item::Nearby { account, is_here });
        }
    }

    /// The person has turned to an account: says that it can be reached although the server is away.
    pub(super) fn tell_if_nearby(&mut self, account: &AccountName) {
        if self.connection.is_lost() && self.nearby.contains(account) {
            let (account, is_here) = (account.clone(), true);
            self.show(Item::Nearby { account, is_here });
        }
    }

    /// The connection to the server is lost: says who of those that count can be reached all the same.
    pub(super) fn tell_nearby(&mut self) {
        let nearby = self.nearby.iter().filter(|account| self.awaits(account));
        let nearby: Vec<AccountName> = nearby.cloned().collect();
        for account in nearby {
            let is_here = true;
            self.show(Item::Nearby { account, is_here });
        }
    }
}
