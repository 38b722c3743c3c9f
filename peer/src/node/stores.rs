//! What the store was asked and has not answered: why it was asked, and which received messages are on
//! their way to the disk.
//!
//! Received messages form chains: none of a chain is kept behind one that was not.

use std::collections::{BTreeMap, BTreeSet};

use common::id::AccountName;
use common::key::Token;
use common::wire::peer::Message;
use common::wire::rendezvous::FailedLogins;

use super::command::CommandId;
use super::io::{StoreId, StoreRequest};
use super::transport::LinkId;

/// Questions without an answer.
#[derive(Debug)]
pub(super) struct Stores {
    next: u64,
    asked: BTreeMap<StoreId, Stored>,
    /// Counts the gaps in what was received: [`StoreRequest::Receive`].
    chain: u64,
}

/// Why the store was asked.
#[derive(Debug)]
pub(super) enum Stored {
    /// Nobody waits.
    Nothing,
    /// Nobody waits, but it must be remembered: this is asked again if it fails.
    Upkeep(StoreRequest),
    /// A log-in of a person is complete.
    LoggedIn {
        command: CommandId,
        failed: Option<FailedLogins>,
    },
    /// A renewed token is durable: to be used from now on.
    Renewed {
        account: AccountName,
        token: Option<Token>,
    },
    /// Messages are durable: into the outbox with them.
    Queued {
        command: CommandId,
        messages: Vec<(AccountName, Message)>,
    },
    /// A message of somebody else is durable: its author gets a receipt.
    Received {
        link: Option<LinkId>,
        from: AccountName,
        message: Message,
        /// A person was told of it.
        is_told: bool,
        chain: u64,
    },
    /// A person looked something up.
    Looked(CommandId),
    /// A person has seen messages: their authors get receipts.
    Marked(CommandId),
}

impl Stored {
    /// The link that brought the message that is being stored.
    const fn receiving_link(&self) -> Option<LinkId> {
        if let Self::Received { link, .. } = self {
            *link
        } else {
            None
        }
    }
}

impl Stores {
    /// Nothing is asked, and nothing was received.
    pub(super) const fn new() -> Self {
        Self {
            next: 0,
            asked: BTreeMap::new(),
            chain: 1,
        }
    }

    /// Takes note of a question.
    pub(super) fn ask(&mut self, then: Stored) -> StoreId {
        let id = StoreId(self.next);
        self.next += 1;
        self.asked.insert(id, then);
        id
    }

    /// An answer came: tells what the question was.
    pub(super) fn answered(&mut self, id: StoreId) -> Option<Stored> {
        self.asked.remove(&id)
    }

    /// The chain of what is received now.
    pub(super) const fn chain(&self) -> u64 {
        self.chain
    }

    /// The links whose messages are on their way to the disk, one for each message.
    pub(super) fn receiving_links(&self) -> impl Iterator<Item = LinkId> {
        self.asked.values().filter_map(Stored::receiving_link)
    }

    /// A received message of a chain is not kept, so none of its chain that is still asked for will be.
    /// Tells which links brought them: what comes on those next must not get in front.
    pub(super) fn on_gap(&mut self, chain: u64, link: Option<LinkId>) -> BTreeSet<LinkId> {
        let mut links: BTreeSet<LinkId> = link.into_iter().collect();
        if chain == self.chain {
            self.chain += 1;
            links.extend(self.receiving_links());
        }
        links
    }
}

#[cfg(test)]
mod tests {
    use common::id::MessageId;
    use common::time::UnixTime;
    use common::wire::peer::{Conversation, MessageBody};

    use super::*;

    fn receive(stores: &mut Stores, link: u64) -> StoreId {
        let message = Message {
            id: MessageId::from_bytes([1; 16]),
            conversation: Conversation::Direct,
            sent: UnixTime::default(),
            body: MessageBody::try_from("hello".to_owned()).unwrap(),
        };
        let chain = stores.chain();
        stores.ask(Stored::Received {
            link: Some(LinkId::for_test(link)),
            from: "bob".parse().unwrap(),
            message,
            is_told: false,
            chain,
        })
    }

    #[test]
    fn a_gap_ends_the_links_of_its_chain_and_of_no_later_one() {
        let mut stores = Stores::new();
        let (kept, refused) = (receive(&mut stores, 1), receive(&mut stores, 2));
        receive(&mut stores, 3);
        assert!(stores.answered(kept).is_some());
        assert!(stores.answered(kept).is_none(), "it was answered");
        assert!(stores.answered(refused).is_some());
        let [first, second, third] = [2, 3, 4].map(LinkId::for_test);
        assert_eq!(stores.on_gap(1, Some(first)), [first, second].into());
        assert_eq!(stores.chain(), 2);
        receive(&mut stores, 4);
        assert_eq!(stores.on_gap(1, Some(second)), [second].into());
        assert_eq!(stores.chain(), 2, "it is the same gap");
        assert!(stores.receiving_links().any(|link| link == third));
    }
}
