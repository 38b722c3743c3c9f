//! What differs between two devices, found by digests at the beginning of a link.
//!
//! Each side compares what both had when the link began, and tells by itself what has changed since. So both come to the
//! same verdict on each conversation, whatever happens meanwhile.

use std::collections::BTreeMap;

use common::limits::LINK_CONVERSATIONS_MAX;
use common::log::{Buckets, ConversationId, Digest};

use super::violation::Violation;

/// The comparison of one link.
#[derive(Debug)]
pub(super) struct Comparing {
    /// What this device shared with the other one when the link began.
    ours: BTreeMap<ConversationId, Digest>,
    buckets: Buckets,
    digest: Digest,
    their_digest: Option<Digest>,
    their_buckets: Option<Box<Buckets>>,
    theirs: BTreeMap<ConversationId, Digest>,
}

/// How what the other side had at the beginning compares with what was here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is not known yet; or the other side does not share it.
    Open,
    /// Both had the same, of this digest.
    Same(Digest),
    /// They had something else, or it was not shared here.
    Different,
}

impl Comparing {
    pub(super) fn new(ours: BTreeMap<ConversationId, Digest>) -> Self {
        let buckets = Buckets::new(&ours);
        Self {
            digest: buckets.digest(),
            buckets,
            ours,
            their_digest: None,
            their_buckets: None,
            theirs: BTreeMap::new(),
        }
    }

    /// The digest of all, for the greeting.
    pub(super) const fn digest(&self) -> Digest {
        self.digest
    }

    /// Whether a conversation was shared when the link began.
    pub(super) fn has(&self, id: &ConversationId) -> bool {
        self.ours.contains_key(id)
    }

    /// The other side greets. Returns this device's buckets, to be sent, if something differs.
    pub(super) fn handle_greeting(&mut self, digest: Digest) -> Result<Option<Buckets>, Violation> {
        if self.their_digest.replace(digest).is_some() {
            return Err(Violation::Greeting);
        }
        Ok((digest != self.digest).then(|| self.buckets.clone()))
    }

    /// The other side sends its buckets. Returns the conversations in those that differ, in order.
    pub(super) fn handle_buckets(
        &mut self,
        theirs: Box<Buckets>,
    ) -> Result<Vec<(ConversationId, Digest)>, Violation> {
        if self.their_buckets.is_some() || self.their_digest == Some(self.digest) {
            return Err(Violation::Digests);
        }
        let differing = self.buckets.differing(&theirs);
        let ours = differing.flat_map(|number| Buckets::of_bucket(&self.ours, number));
        let ours = ours.map(|(id, digest)| (*id, *digest)).collect();
        self.their_buckets = Some(theirs);
        Ok(ours)
    }

    /// The other side sends digests of conversations, after those that it has sent before.
    pub(super) fn handle_digests(
        &mut self,
        digests: &[(ConversationId, Digest)],
    ) -> Result<(), Violation> {
        let last = self.theirs.last_key_value().map(|(id, _)| *id);
        let ids = last.into_iter().chain(digests.iter().map(|(id, _)| *id));
        let is_ascending = ids.is_sorted_by(|one, next| one < next);
        let has_room = self.theirs.len() + digests.len() <= LINK_CONVERSATIONS_MAX;
        if self.their_buckets.is_none() || !is_ascending || !has_room {
            return Err(Violation::Digests);
        }
        self.theirs.extend(digests.iter().copied());
        Ok(())
    }

    /// What is known of a conversation.
    pub(super) fn verdict(&self, id: &ConversationId) -> Verdict {
        let Some(ours) = self.ours.get(id) else {
            return Verdict::Different;
        };
        if self.their_digest == Some(self.digest) {
            return Verdict::Same(*ours);
        }
        let bucket = id.as_bytes()[0];
        let theirs = self.their_buckets.as_deref();
        if let Some(theirs) = theirs
            && !self
                .buckets
                .differing(theirs)
                .any(|number| number == bucket)
        {
            return Verdict::Same(*ours);
        }
        match self.theirs.get(id) {
            Some(theirs) if theirs == ours => Verdict::Same(*ours),
            Some(_) => Verdict::Different,
            None => Verdict::Open,
        }
    }

    /// The conversations of which both have had the same, as far as it is known.
    pub(super) fn same(&self) -> Vec<ConversationId> {
        let is_same = |id: &&ConversationId| matches!(self.verdict(id), Verdict::Same(_));
        self.ours.keys().filter(is_same).copied().collect()
    }
}
