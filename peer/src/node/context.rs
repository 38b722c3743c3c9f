//! The context in which a node's parts act: the time, randomness, and every effect that they can have.

use std::collections::VecDeque;
use std::time::Instant;

use common::id::AccountName;
use common::key::DeviceKey;
use common::time::{Epoch, UnixTime};
use common::wire::peer::PeerFrame;
use common::wire::rendezvous::Request;
use rand::rngs::StdRng;

use super::command::{CommandError, CommandId, Event, Reply};
use super::io::{ContactRequest, DiskRequest, Output, StoreAnswer, StoreId, StoreRequest};
use super::links::Links;
use super::purpose::{Purpose, StorePurpose};
use super::requests::Requests;
use super::store::Stores;
use super::transport::LinkId;

/// Owns what parts act on, and lends it to them as a [`Context`].
#[derive(Debug)]
pub(super) struct Effects {
    pub(super) epoch: Epoch,
    pub(super) rng: StdRng,
    pub(super) links: Links,
    pub(super) requests: Requests,
    pub(super) stores: Stores,
    pub(super) outputs: VecDeque<Output>,
}

impl Effects {
    /// Starts without requests or outputs. `rng` draws the ids of messages and transfers.
    pub(super) fn new(epoch: Epoch, rng: StdRng, links: Links) -> Self {
        Self {
            epoch,
            rng,
            links,
            requests: Requests::new(),
            stores: Stores::default(),
            outputs: VecDeque::new(),
        }
    }

    /// Lends everything to a part that acts at `now`.
    pub(super) const fn at(&mut self, now: Instant) -> Context<'_> {
        Context {
            now,
            epoch: self.epoch,
            rng: &mut self.rng,
            links: &mut self.links,
            requests: &mut self.requests,
            stores: &mut self.stores,
            outputs: &mut self.outputs,
        }
    }
}

/// What a part acts with while it handles an input or a timeout.
#[derive(Debug)]
pub(super) struct Context<'a> {
    pub(super) now: Instant,
    epoch: Epoch,
    /// Draws the ids of messages and transfers.
    pub(super) rng: &'a mut StdRng,
    pub(super) links: &'a mut Links,
    pub(super) requests: &'a mut Requests,
    stores: &'a mut Stores,
    pub(super) outputs: &'a mut VecDeque<Output>,
}

impl Context<'_> {
    /// `now` by the wall clock.
    pub(super) fn unix(&self) -> UnixTime {
        self.epoch.unix(self.now)
    }

    /// Answers a command.
    pub(super) fn reply(&mut self, id: CommandId, reply: Result<Reply, CommandError>) {
        self.outputs.push_back(Output::Reply(id, reply));
    }

    /// Notifies every subscriber.
    pub(super) fn event(&mut self, event: Event) {
        self.outputs.push_back(Output::Event(event));
    }

    /// Asks the server. The purpose comes back with the answer, or with why there is none.
    pub(super) fn ask(&mut self, purpose: impl Into<Purpose>, request: impl Into<Request>) {
        self.requests.ask(purpose.into(), request.into());
    }

    /// Asks the store. The purpose comes back with the answer.
    pub(super) fn store(
        &mut self,
        request: impl Into<StoreRequest>,
        purpose: impl Into<StorePurpose>,
    ) {
        let id = self.stores.note(purpose.into());
        self.outputs.push_back(Output::Store(id, request.into()));
    }

    /// Has the store write something that no caller awaits, repeated until it succeeds.
    pub(super) fn store_unawaited(&mut self, request: impl Into<StoreRequest>) {
        let request = request.into();
        self.store(request.clone(), StorePurpose::Unawaited(request));
    }

    /// Takes an answer of the store, and returns the purpose of its request, if there is one.
    pub(super) fn on_store_answer(&mut self, id: StoreId) -> Option<StorePurpose> {
        self.stores.on_answer(id)
    }

    /// Takes the answer to a write that no caller awaits: if it failed, it is repeated later.
    pub(super) fn on_unawaited(&mut self, request: StoreRequest, answer: StoreAnswer) {
        if let StoreAnswer::Failed(reason) = answer {
            log::warn!("cannot write to the message history, trying again: {reason}");
            self.stores.repeat_later(request, self.now);
        }
    }

    /// Repeats the failed writes that are due.
    pub(super) fn repeat_failed_writes(&mut self) {
        for request in self.stores.handle_timeout(self.now) {
            self.store_unawaited(request);
        }
    }

    /// A key was pinned at first contact, and another may have been unpinned to make room: has the store record both.
    pub(super) fn on_new_key(
        &mut self,
        account: AccountName,
        device_key: DeviceKey,
        forgotten: Option<(AccountName, DeviceKey)>,
    ) {
        if let Some((_, device_key)) = forgotten {
            self.store_unawaited(ContactRequest::UnpinKey { device_key });
        }
        let at = self.unix();
        self.store_unawaited(ContactRequest::PinKey {
            account,
            device_key,
            at,
        });
    }

    /// Asks the disk.
    pub(super) fn disk(&mut self, request: DiskRequest) {
        self.outputs.push_back(Output::Disk(request));
    }

    /// Sends a frame on the message stream of a link.
    pub(super) fn send(&mut self, link: LinkId, frame: impl Into<PeerFrame>) {
        self.links.send(link, &frame.into());
    }
}
