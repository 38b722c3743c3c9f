//! Messages of others: which of them a person may be told of before the disk has them.
//!
//! A message that comes for the first time is told at once; its author gets the receipt when it is on
//! disk. Only the store knows everything that ever came, so a link is believed to bring new messages
//! only after the store has found one of them new: outboxes are sent oldest first, and what is sent
//! again therefore comes before what is new. What crosses over from another link in between is known
//! by its id.
//!
//! Invariant: as long as the node runs, no message is told of twice, and those of one author are told
//! in the order in which they came.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use common::id::{AccountName, MessageId};
use common::limits::{LINKS_MAX, Occupancy, RECENT_MESSAGES_MAX};

use crate::node::transport::LinkId;

/// What is remembered of authors.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    authors: BTreeMap<AccountName, Author>,
}

#[derive(Debug, Default)]
struct Author {
    /// Their latest messages, and whether each has been told of.
    told: BTreeMap<MessageId, bool>,
    /// The same ids, oldest first.
    order: VecDeque<MessageId>,
    /// Messages to be told of once they are stored: what comes after them has to wait, too.
    waiting: usize,
    /// Links that brought something new.
    proven: BTreeSet<LinkId>,
}

impl Inbox {
    /// The occupancy of each bounded resource.
    pub(super) fn occupancies(&self) -> [Occupancy; 1] {
        let told = self.authors.values().map(|author| author.told.len());
        [Occupancy::fullest(
            "recent messages",
            told,
            RECENT_MESSAGES_MAX,
        )]
    }

    /// A message came. Tells whether a person may be told of it now; if not, it is up to
    /// [`Inbox::on_stored`] or [`Inbox::on_failed`].
    pub(super) fn on_message(
        &mut self,
        from: &AccountName,
        link: Option<LinkId>,
        id: MessageId,
    ) -> bool {
        self.make_room();
        let author = self.authors.entry(from.clone()).or_default();
        let is_proven = link.is_some_and(|link| author.proven.contains(&link));
        let is_early = is_proven && author.waiting == 0 && !author.told.contains_key(&id);
        if is_early {
            author.note(id, true);
        } else {
            author.waiting += 1;
        }
        is_early
    }

    /// A message that was not told of is on disk. Tells whether a person is to be told of it now.
    pub(super) fn on_stored(
        &mut self,
        from: &AccountName,
        link: Option<LinkId>,
        id: MessageId,
        is_new: bool,
    ) -> bool {
        let Some(author) = self.authors.get_mut(from) else {
            return is_new;
        };
        author.waiting = author.waiting.saturating_sub(1);
        if is_new {
            author.proven.extend(link);
        }
        // It may have been told of by another link, before the disk refused it.
        let was_told = author.told.get(&id).copied().unwrap_or(false);
        author.note(id, was_told || is_new);
        is_new && !was_told
    }

    /// A message that was not told of cannot be stored.
    pub(super) fn on_failed(&mut self, from: &AccountName) {
        if let Some(author) = self.authors.get_mut(from) {
            author.waiting = author.waiting.saturating_sub(1);
        }
    }

    /// A link is gone.
    pub(super) fn on_lost(&mut self, from: &AccountName, link: LinkId) {
        if let Some(author) = self.authors.get_mut(from) {
            author.proven.remove(&link);
        }
    }

    /// Forgets authors who are not linked once there are more than can be.
    fn make_room(&mut self) {
        if self.authors.len() > LINKS_MAX {
            self.authors
                .retain(|_, author| author.waiting > 0 || !author.proven.is_empty());
        }
    }
}

impl Author {
    fn note(&mut self, id: MessageId, is_told: bool) {
        if self.told.insert(id, is_told).is_some() {
            return;
        }
        self.order.push_back(id);
        if self.order.len() > RECENT_MESSAGES_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.told.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: Option<LinkId> = Some(LinkId::for_test(1));
    const NEW: Option<LinkId> = Some(LinkId::for_test(2));

    fn id(n: u128) -> MessageId {
        MessageId::from_bytes(n.to_be_bytes())
    }

    fn alice() -> AccountName {
        "alice".parse().unwrap()
    }

    /// An inbox to which `link` has brought a message that was new.
    fn proven(link: Option<LinkId>) -> Inbox {
        let mut inbox = Inbox::default();
        assert!(!inbox.on_message(&alice(), link, id(0)));
        assert!(inbox.on_stored(&alice(), link, id(0), true));
        inbox
    }

    #[test]
    fn only_the_store_can_tell_whether_the_first_of_a_link_is_new() {
        let mut inbox = proven(OLD);
        assert!(inbox.on_message(&alice(), OLD, id(1)));
        assert!(!inbox.on_message(&alice(), NEW, id(1)), "sent again");
        assert!(!inbox.on_stored(&alice(), NEW, id(1), false));
        assert!(!inbox.on_message(&alice(), NEW, id(2)), "still unproven");
        assert!(inbox.on_stored(&alice(), NEW, id(2), true));
        assert!(inbox.on_message(&alice(), NEW, id(3)));
        let bob = "bob".parse().unwrap();
        assert!(!inbox.on_message(&bob, OLD, id(4)), "of another author");
    }

    #[test]
    fn nobody_overtakes_what_waits_for_the_store() {
        let mut inbox = proven(OLD);
        assert!(!inbox.on_message(&alice(), NEW, id(1)));
        assert!(!inbox.on_message(&alice(), OLD, id(2)));
        assert!(inbox.on_stored(&alice(), NEW, id(1), true));
        assert!(inbox.on_stored(&alice(), OLD, id(2), true));
        assert!(inbox.on_message(&alice(), OLD, id(3)));
        assert!(!inbox.on_message(&alice(), OLD, id(3)), "repeated");
        inbox.on_failed(&alice());
        assert!(inbox.on_message(&alice(), OLD, id(4)));
    }

    #[test]
    fn what_was_told_before_the_disk_refused_it_is_not_told_again() {
        let mut inbox = proven(OLD);
        assert!(inbox.on_message(&alice(), OLD, id(1)));
        inbox.on_lost(&alice(), LinkId::for_test(1));
        assert!(!inbox.on_message(&alice(), NEW, id(1)));
        assert!(!inbox.on_stored(&alice(), NEW, id(1), true));
    }

    #[test]
    fn what_is_remembered_has_a_bound() {
        let mut inbox = proven(OLD);
        for n in 1..=2 * RECENT_MESSAGES_MAX as u128 {
            assert!(inbox.on_message(&alice(), OLD, id(n)));
        }
        let author = &inbox.authors[&alice()];
        assert_eq!(author.told.len(), RECENT_MESSAGES_MAX);
        assert_eq!(author.order.len(), RECENT_MESSAGES_MAX);
        for n in 0..2 * LINKS_MAX {
            let name: AccountName = format!("a{n}").parse().unwrap();
            assert!(!inbox.on_message(&name, NEW, id(0)));
            inbox.on_stored(&name, NEW, id(0), false);
        }
        assert!(inbox.authors.len() <= LINKS_MAX + 2);
        assert!(inbox.authors.contains_key(&alice()), "a link proves it");
    }
}
