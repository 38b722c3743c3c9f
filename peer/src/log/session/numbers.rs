//! The numbers of conversations and chains on a link, of either side.

use std::collections::{BTreeMap, BTreeSet};

use common::limits::{CHAINS_PER_CONVERSATION_MAX, LINK_CHAINS_MAX, LINK_CONVERSATIONS_MAX};
use common::log::{ChainId, ConversationId};
use common::wire::peer::{ChainNumber, ConversationNumber};

use super::violation::Violation;

/// The numbers that this device has given.
#[derive(Debug, Default)]
pub(super) struct Ours {
    conversations: BTreeMap<ConversationId, ConversationNumber>,
    chains: BTreeMap<(ConversationId, ChainId), ChainNumber>,
}

/// A number, and whether it was given just now.
#[derive(Clone, Copy, Debug)]
pub(super) struct Given<N> {
    pub(super) number: N,
    pub(super) is_new: bool,
}

impl Ours {
    /// The number of a conversation; `None` if there is none left.
    pub(super) fn conversation(&mut self, id: ConversationId) -> Option<Given<ConversationNumber>> {
        if let Some(number) = self.conversations.get(&id) {
            let (number, is_new) = (*number, false);
            return Some(Given { number, is_new });
        }
        let number = next(self.conversations.len(), LINK_CONVERSATIONS_MAX)?;
        let number = ConversationNumber(number);
        self.conversations.insert(id, number);
        let is_new = true;
        Some(Given { number, is_new })
    }

    /// The number of a chain, if it has one.
    pub(super) fn known(
        &self,
        conversation: ConversationId,
        chain: ChainId,
    ) -> Option<ChainNumber> {
        self.chains.get(&(conversation, chain)).copied()
    }

    /// The number of a chain; `None` if there is none left.
    pub(super) fn chain(
        &mut self,
        conversation: ConversationId,
        chain: ChainId,
    ) -> Option<Given<ChainNumber>> {
        if let Some(number) = self.known(conversation, chain) {
            let is_new = false;
            return Some(Given { number, is_new });
        }
        let number = ChainNumber(next(self.chains.len(), LINK_CHAINS_MAX)?);
        self.chains.insert((conversation, chain), number);
        let is_new = true;
        Some(Given { number, is_new })
    }
}

fn next(count: usize, max: usize) -> Option<u32> {
    (count < max).then(|| u32::try_from(count).ok()).flatten()
}

/// The numbers that the other side has given, whether it is told of what they stand for or not.
#[derive(Debug, Default)]
pub(super) struct Theirs {
    conversations: Vec<Numbered>,
    named: BTreeSet<ConversationId>,
    chains: Vec<(ConversationId, ChainId)>,
}

#[derive(Debug)]
struct Numbered {
    id: ConversationId,
    /// How many of its chains have numbers.
    chains: usize,
}

impl Theirs {
    /// The other side gives a conversation a number.
    pub(super) fn open(
        &mut self,
        number: ConversationNumber,
        id: ConversationId,
    ) -> Result<(), Violation> {
        let index = number.0 as usize;
        if let Some(numbered) = self.conversations.get(index) {
            let is_same = numbered.id == id;
            return is_same.then_some(()).ok_or(Violation::Numbering);
        }
        if index != self.conversations.len() || !self.named.insert(id) {
            return Err(Violation::Numbering);
        }
        if index >= LINK_CONVERSATIONS_MAX {
            return Err(Violation::TooManyNumbers);
        }
        self.conversations.push(Numbered { id, chains: 0 });
        Ok(())
    }

    /// Whether a conversation has a number.
    pub(super) fn has(&self, id: &ConversationId) -> bool {
        self.named.contains(id)
    }

    /// What has a number.
    pub(super) fn conversation(
        &self,
        number: ConversationNumber,
    ) -> Result<ConversationId, Violation> {
        let numbered = self.conversations.get(number.0 as usize);
        numbered
            .map(|numbered| numbered.id)
            .ok_or(Violation::UnknownNumber)
    }

    /// The other side gives a chain of a conversation a number.
    pub(super) fn name(
        &mut self,
        conversation: ConversationNumber,
        number: ChainNumber,
        chain: ChainId,
    ) -> Result<(), Violation> {
        let numbered = self.conversations.get_mut(conversation.0 as usize);
        let numbered = numbered.ok_or(Violation::UnknownNumber)?;
        let index = number.0 as usize;
        if let Some(known) = self.chains.get(index) {
            let is_same = *known == (numbered.id, chain);
            return is_same.then_some(()).ok_or(Violation::Numbering);
        }
        if index != self.chains.len() {
            return Err(Violation::Numbering);
        }
        if index >= LINK_CHAINS_MAX || numbered.chains >= CHAINS_PER_CONVERSATION_MAX {
            return Err(Violation::TooManyNumbers);
        }
        numbered.chains += 1;
        self.chains.push((numbered.id, chain));
        Ok(())
    }

    /// What has a number.
    pub(super) fn chain(
        &self,
        number: ChainNumber,
    ) -> Result<(ConversationId, ChainId), Violation> {
        let chain = self.chains.get(number.0 as usize);
        chain.copied().ok_or(Violation::UnknownNumber)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use common::key::DeviceSecret;
    use common::log::RunId;

    fn conversation(n: u32) -> ConversationId {
        let mut bytes = [0; 32];
        bytes[..4].copy_from_slice(&n.to_be_bytes());
        ConversationId::from_bytes(bytes)
    }

    fn chain(n: u128) -> ChainId {
        ChainId {
            device: DeviceSecret::from_seed([7; 32]).public(),
            run: RunId::from_bytes(n.to_be_bytes()),
        }
    }

    #[test]
    fn a_number_stands_for_one_thing_for_ever() {
        let mut theirs = Theirs::default();
        let [zero, one] = [0, 1].map(ConversationNumber);
        assert_eq!(theirs.open(one, conversation(1)), Err(Violation::Numbering));
        assert_eq!(theirs.open(zero, conversation(1)), Ok(()));
        assert_eq!(theirs.open(zero, conversation(1)), Ok(()));
        assert_eq!(
            theirs.open(zero, conversation(2)),
            Err(Violation::Numbering)
        );
        assert_eq!(theirs.open(one, conversation(1)), Err(Violation::Numbering));
        let [first, second] = [0, 1].map(ChainNumber);
        assert_eq!(theirs.chain(first), Err(Violation::UnknownNumber));
        assert_eq!(
            theirs.name(one, first, chain(1)),
            Err(Violation::UnknownNumber)
        );
        assert_eq!(
            theirs.name(zero, second, chain(1)),
            Err(Violation::Numbering)
        );
        assert_eq!(theirs.name(zero, first, chain(1)), Ok(()));
        assert_eq!(
            theirs.name(zero, first, chain(2)),
            Err(Violation::Numbering)
        );
        assert_eq!(theirs.chain(first), Ok((conversation(1), chain(1))));
    }

    #[test]
    fn t43_there_are_so_many_numbers_and_no_more() {
        let mut theirs = Theirs::default();
        let mut ours = Ours::default();
        for n in 0..LINK_CONVERSATIONS_MAX as u32 {
            assert_eq!(theirs.open(ConversationNumber(n), conversation(n)), Ok(()));
            assert!(ours.conversation(conversation(n)).unwrap().is_new);
        }
        let n = LINK_CONVERSATIONS_MAX as u32;
        let one_more = theirs.open(ConversationNumber(n), conversation(n));
        assert_eq!(one_more, Err(Violation::TooManyNumbers));
        assert!(ours.conversation(conversation(n)).is_none());

        let per_conversation = CHAINS_PER_CONVERSATION_MAX as u32;
        for n in 0..LINK_CHAINS_MAX as u32 {
            let of = ConversationNumber(n / per_conversation);
            assert_eq!(theirs.name(of, ChainNumber(n), chain(n.into())), Ok(()));
            assert!(ours.chain(conversation(of.0), chain(n.into())).is_some());
        }
        let next = ChainNumber(LINK_CHAINS_MAX as u32);
        let one_more = theirs.name(ConversationNumber(100), next, chain(0));
        assert_eq!(one_more, Err(Violation::TooManyNumbers));
        assert!(ours.chain(conversation(100), chain(0)).is_none());

        let mut theirs = Theirs::default();
        theirs.open(ConversationNumber(0), conversation(0)).unwrap();
        for n in 0..=per_conversation {
            let named = theirs.name(ConversationNumber(0), ChainNumber(n), chain(n.into()));
            assert_eq!(named.is_ok(), n < per_conversation);
        }
    }
}
