//! Authorisation of links: a link is of the account that its key is pinned to, or that the server names.

use std::collections::BTreeMap;
use std::time::Instant;

use common::id::AccountName;
use common::key::DeviceKey;
use common::limits::{AUTHORISE_TIMEOUT, LINKS_PER_DEVICE_MAX};

use super::frames::MessageStream;
use super::pins::NewPin;
use super::{LinkChange, Links, LinksEvent, Peer};
use crate::node::transport::{CloseReason, LinkId, Side, StreamDir};

impl Links {
    /// Takes the server's answer to which account a device key belongs to; `None` if it belongs to none.
    /// Links of the key that wait for it are authorised for that account. Those that are authorised for
    /// another one are closed, and so are all if the key belongs to none.
    pub(in crate::node) fn on_owner(
        &mut self,
        device_key: DeviceKey,
        owner: Option<&AccountName>,
        now: Instant,
    ) {
        for link in self.links_of(device_key) {
            let account = self.peers.get(&link).and_then(|peer| peer.account.as_ref());
            match (owner, account) {
                (Some(owner), Some(account)) if owner == account => {}
                (Some(owner), None) => self.authorise(link, owner.clone(), now),
                (_, Some(_)) | (None, None) => self.drop_link(link, CloseReason::Unauthorised, now),
            }
        }
        self.collect(now);
    }

    /// Closes the links of a key that are not authorised, because the server gave no answer.
    pub(in crate::node) fn on_owner_unknown(&mut self, device_key: DeviceKey, now: Instant) {
        for link in self.links_of(device_key) {
            if self
                .peers
                .get(&link)
                .is_some_and(|peer| peer.account.is_none())
            {
                self.drop_link(link, CloseReason::Unauthorised, now);
            }
        }
        self.collect(now);
    }

    /// Closes the links of a device that is no longer enrolled at `account`.
    pub(in crate::node) fn on_unenrolled(
        &mut self,
        device_key: DeviceKey,
        account: &AccountName,
        now: Instant,
    ) {
        for link in self.links_of(device_key) {
            let peer = self.peers.get(&link);
            if peer.is_some_and(|peer| peer.account.as_ref() == Some(account)) {
                self.drop_link(link, CloseReason::Unauthorised, now);
            }
        }
        self.collect(now);
    }

    pub(super) fn on_connected(
        &mut self,
        link: LinkId,
        side: Side,
        device_key: DeviceKey,
        now: Instant,
    ) {
        if device_key == self.own_key {
            // A device never dials its own key.
            log::warn!(
                "another device has a copy of this device's key; log in again with another profile"
            );
            return self.transport.close(link, CloseReason::Unauthorised, now);
        }
        if !self.is_enrolled {
            return self.transport.close(link, CloseReason::Unauthorised, now);
        }
        let peer = Peer {
            device_key,
            side,
            account: None,
            authorise_by: now + AUTHORISE_TIMEOUT,
            stream: MessageStream::default(),
            leaves: BTreeMap::new(),
            doubt: None,
        };
        self.peers.insert(link, peer);
        // The key of one that was dialled, or is pinned, is authorised at once; the server is asked all the
        // same whether it still belongs to that account.
        self.events
            .push_back(LinksEvent::Change(LinkChange::Proved { device_key }));
        match side {
            Side::Client => {
                let won = self
                    .dials
                    .on_connected(device_key, link, &mut self.transport, now);
                match won {
                    Some(account) => self.authorise(link, account, now),
                    None => self.drop_link(link, CloseReason::Done, now),
                }
            }
            Side::Server => {
                if let Some(account) = self.pins.owner(&device_key).cloned() {
                    self.authorise(link, account, now);
                }
            }
        }
    }

    /// Authorises a link for an account: pins its key if it is new, then exchanges frames.
    fn authorise(&mut self, link: LinkId, account: AccountName, now: Instant) {
        let Some(peer) = self.peers.get_mut(&link) else {
            return;
        };
        let device_key = peer.device_key;
        match self.pins.pin(device_key, &account) {
            Err(error) => {
                log::warn!("cannot authorise a link: {error}");
                return self.drop_link(link, CloseReason::Unauthorised, now);
            }
            Ok(None) => {}
            Ok(Some(NewPin { known, forgotten })) => {
                self.events.push_back(LinksEvent::NewKey {
                    account: account.clone(),
                    device_key,
                    known,
                    forgotten,
                });
            }
        }
        peer.account = Some(account);
        let side = peer.side;
        if let Some(remote) = self.transport.remote(link) {
            self.dials
                .on_linked(device_key, remote, &mut self.transport, now);
        }
        self.make_room(device_key, now);
        self.transport.authorise(link, now);
        match side {
            Side::Client => {
                if let Some(stream) = self.transport.open_bi(link) {
                    self.greet(link, stream);
                }
            }
            Side::Server => self.on_opened(link, StreamDir::Bi, now),
        }
    }

    /// Closes the oldest links of a device that has more than [`LINKS_PER_DEVICE_MAX`].
    fn make_room(&mut self, device_key: DeviceKey, now: Instant) {
        let links = self.links_of(device_key);
        let surplus = links.len().saturating_sub(LINKS_PER_DEVICE_MAX);
        for link in links.into_iter().take(surplus) {
            self.drop_link(link, CloseReason::Done, now);
        }
    }

    /// Closes the links that nobody has authorised in time.
    pub(super) fn expire_unauthorised(&mut self, now: Instant) {
        let expired: Vec<LinkId> = self
            .peers
            .iter()
            .filter(|(_, peer)| peer.account.is_none() && peer.authorise_by <= now)
            .map(|(link, _)| *link)
            .collect();
        for link in expired {
            self.drop_link(link, CloseReason::Unauthorised, now);
        }
    }
}
