//! What an outsider says of conversations: frames one by one, without a replica behind them.

use std::collections::BTreeMap;
use std::time::Duration;

use common::key::DeviceSecret;
use common::log::{
    Body, Buckets, ChainId, Clock, ConversationId, Digest, Extent, HeaderHash, Outline, RunId,
    Sequence, Vector, chained,
};
use common::wire::peer::{
    ChainNumber, ConversationNumber, DatabaseInstance, Entries, Greet, List, LogEntry, LogFrame,
    MessageBody, NumberedChain, PeerFrame,
};

use super::Outsider;
use crate::sim::identity;
use crate::sim::world::World;

impl Outsider {
    /// Greets as a device does that has nothing of its conversation with the other side.
    pub(super) fn answer(&mut self, frame: &LogFrame) {
        let LogFrame::Greet(Greet { digest: theirs, .. }) = frame else {
            return;
        };
        let nothing = self.conversation.map(|id| (id, Vector::default().digest()));
        let shared: BTreeMap<ConversationId, Digest> = nothing.into_iter().collect();
        let buckets = Buckets::new(&shared);
        let digest = buckets.digest();
        let greet = LogFrame::Greet(Greet {
            account: None,
            instance: DatabaseInstance([9; 32]),
            digest,
        });
        self.write(&PeerFrame::Log(greet));
        let Some(conversation) = self.conversation.filter(|_| digest != *theirs) else {
            return;
        };
        let number = ConversationNumber(0);
        let differing = [(conversation, Vector::default().digest())];
        for frame in [
            LogFrame::Buckets(Box::new(buckets)),
            LogFrame::Digests(List::fill(differing.into_iter()).expect("one is not too many")),
            LogFrame::Open {
                number,
                conversation,
                is_again: false,
            },
            LogFrame::Chains {
                conversation: number,
                chains: List::fill(std::iter::empty()).expect("none are allowed"),
                is_first: true,
                is_last: true,
            },
        ] {
            self.write(&PeerFrame::Log(frame));
        }
    }

    fn logs(&self) -> impl Iterator<Item = &LogFrame> {
        self.logs.iter()
    }

    /// Pages that it got.
    fn pages(&self) -> Vec<Entries> {
        let pages = self.logs().filter_map(|frame| {
            let LogFrame::Entries(entries) = frame else {
                return None;
            };
            Some(entries.clone())
        });
        pages.collect()
    }

    /// The texts of entries that it got.
    pub fn texts(&self) -> Vec<String> {
        let pages = self.pages().into_iter();
        let entries = pages.flat_map(|page| page.entries.into_vec());
        let texts = entries.filter_map(|entry| {
            let (outline, body) = entry.into_parts();
            let Ok(Body::Text(text)) = Body::parse(outline.kind, &body?) else {
                return None;
            };
            Some(text.as_str().to_owned())
        });
        texts.collect()
    }

    /// The conversation and the chain to which the other side has given this number.
    fn named(&self, number: ChainNumber) -> Option<(ConversationId, ChainId)> {
        let (of, chain) = self.logs().find_map(|frame| {
            let LogFrame::Chains {
                conversation,
                chains,
                ..
            } = frame
            else {
                return None;
            };
            let mut chains = chains.as_slice().iter();
            let named = chains.find(|named| named.number == number)?;
            Some((*conversation, named.chain))
        })?;
        let id = self.logs().find_map(|frame| {
            let LogFrame::Open {
                number,
                conversation,
                ..
            } = frame
            else {
                return None;
            };
            (*number == of).then_some(*conversation)
        })?;
        Some((id, chain))
    }

    /// Says what it has of a chain, in the conversation `id`: both get their numbers by that.
    fn name(&mut self, id: ConversationId, chain: ChainId, extent: Extent) {
        let (conversation, number) = (ConversationNumber(0), ChainNumber(0));
        let open = LogFrame::Open {
            number: conversation,
            conversation: id,
            is_again: false,
        };
        let named = NumberedChain {
            number,
            chain,
            extent,
        };
        let chains = LogFrame::Chains {
            conversation,
            chains: List::fill(std::iter::once(named)).expect("one is not too many"),
            is_first: false,
            is_last: false,
        };
        for frame in [open, chains] {
            self.write(&PeerFrame::Log(frame));
        }
    }

    /// Says that the last page that `of` got is on its own disk.
    pub fn confirm(
        &mut self,
        world: &mut World,
        (page, id, chain): &(Entries, ConversationId, ChainId),
    ) {
        let entries = page.entries.clone().into_vec();
        let outlines: Vec<Outline> = entries.into_iter().map(|it| it.into_parts().0).collect();
        let hashes = chained(*id, *chain, page.first, page.previous, &outlines);
        let last = page.first.plus(outlines.len() - 1);
        let extent = Extent {
            sealed: last,
            last,
            hash: *hashes.last().expect("a page has an entry"),
            ..Extent::NOTHING
        };
        self.name(*id, *chain, extent);
        self.pass(world, Duration::from_millis(200));
    }

    /// The last page that it got, and where it belongs.
    pub fn last_page(&self) -> Option<(Entries, ConversationId, ChainId)> {
        let page = self.pages().pop()?;
        let (id, chain) = self.named(page.chain)?;
        Some((page, id, chain))
    }

    /// Gives a page.
    pub fn give(
        &mut self,
        world: &mut World,
        (page, id, chain): &(Entries, ConversationId, ChainId),
    ) {
        self.name(*id, *chain, Extent::NOTHING);
        let entries = Entries {
            chain: ChainNumber(0),
            ..page.clone()
        };
        self.say(world, &PeerFrame::Log(LogFrame::Entries(entries)));
    }

    /// Writes a text in the conversation of two hosts, as the first entry of a run of its own; `secret` is that of its
    /// device.
    pub fn write_text(&mut self, world: &mut World, secret: [u8; 32], of: [usize; 2], text: &str) {
        let id = identity::conversation(world, of);
        let chain = ChainId {
            device: DeviceSecret::from_seed(secret).public(),
            run: RunId::from_bytes([3; 16]),
        };
        let text = MessageBody::try_from(text.to_owned()).expect("a short text");
        let body = Body::Text(text);
        let bytes = body.to_bytes();
        let outline = Outline::new(Clock::at(world.wall), body.kind(), &bytes);
        let entry = outline.and_then(|outline| LogEntry::new(outline, Some(bytes)));
        let page = Entries {
            chain: ChainNumber(0),
            first: Sequence::FIRST,
            previous: HeaderHash::NONE,
            entries: List::fill(entry.into_iter()).expect("a short entry"),
            seal: None,
        };
        self.give(world, &(page, id, chain));
    }
}
