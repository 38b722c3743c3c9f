//! Authorisation of links: whose the device at the other end is.
//!
//! First somebody has to say whose the device is: a *claim*. A device that the server has just introduced is claimed
//! for the account that it was introduced as, so there is something to send and to read as soon as the handshake is
//! complete. The server is asked about every other one, whichever side dialled. A pinned key says enough only where the
//! server does not: the device may have been removed meanwhile.
//!
//! Then the account itself has to have approved the device, which the node finds in its log: until
//! [`Links::admit`] nothing is sent and nothing is read.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use common::id::AccountName;
use common::key::DeviceKey;
use common::limits::{
    AUTHORISE_TIMEOUT, INTRODUCED_MAX, INTRODUCTION_LIFETIME, LINKS_PER_DEVICE_MAX, OWNER_PATIENCE,
    Occupancy,
};

use super::frames::MessageStream;
use super::pins::NewPin;
use super::{LinkChange, Links, LinksEvent, Peer};
use crate::node::transport::{CloseReason, LinkId, Loss, Side, StreamDir};

/// Somebody says that a device, which has proved its key on a link, is of an account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::node) struct Claim {
    pub(in crate::node) device_key: DeviceKey,
    pub(in crate::node) account: AccountName,
    pub(in crate::node) source: Source,
}

/// Why nothing is exchanged with a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(in crate::node) enum TurnedAway {
    #[error("the other device is not approved by its account")]
    NotApproved,
    #[error(
        "the server has another account of this name than the one that is known; 'peer verify' says more"
    )]
    OtherAccount,
    #[error("this device is not approved by its account")]
    SelfNotApproved,
}

/// Who says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::node) enum Source {
    Server,
    /// The server says nothing; earlier it has said so.
    Pin,
}

/// Devices that the server has introduced lately, and as whose.
#[derive(Debug, Default)]
pub(super) struct Introduced(BTreeMap<DeviceKey, (AccountName, Instant)>);

impl Introduced {
    /// The server has introduced a device of `account`. The earliest introduction makes room.
    pub(super) fn note(&mut self, device_key: DeviceKey, account: AccountName, now: Instant) {
        if self.0.len() >= INTRODUCED_MAX && !self.0.contains_key(&device_key) {
            let earliest = self.0.iter().min_by_key(|(_, (_, at))| *at);
            if let Some(earliest) = earliest.map(|(device_key, _)| *device_key) {
                self.0.remove(&earliest);
            }
        }
        self.0.insert(device_key, (account, now));
    }

    /// How full it is.
    pub(super) fn occupancy(&self) -> Occupancy {
        Occupancy::new("introductions", self.0.len(), INTRODUCED_MAX)
    }

    /// The account of a device that was introduced at most [`INTRODUCTION_LIFETIME`] ago. Each introduction is
    /// good for one link.
    fn take(&mut self, device_key: DeviceKey, now: Instant) -> Option<AccountName> {
        let (account, at) = self.0.remove(&device_key)?;
        (now <= at + INTRODUCTION_LIFETIME).then_some(account)
    }
}

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
            let claimed = self.peers.get(&link).and_then(|peer| peer.claimed.as_ref());
            match (owner, claimed) {
                (Some(owner), Some(claimed)) if owner == claimed => {}
                (Some(owner), None) => self.claim(link, owner.clone(), Source::Server),
                (_, Some(_)) | (None, None) => self.drop_link(link, CloseReason::Unauthorised, now),
            }
        }
        self.collect(now);
    }

    /// Authorises the links of a device that are claimed for an account which has approved it.
    pub(in crate::node) fn admit(
        &mut self,
        device_key: DeviceKey,
        account: &AccountName,
        now: Instant,
    ) {
        for link in self.claimed_for(device_key, account) {
            let peer = self.peers.get(&link);
            if peer.is_some_and(|peer| peer.account.is_none()) {
                self.authorise(link, account.clone(), now);
            }
        }
        self.collect(now);
    }

    /// Closes the links of a device that are claimed for an account, since one of the two is not approved.
    pub(in crate::node) fn turn_away(
        &mut self,
        device_key: DeviceKey,
        account: &AccountName,
        why: TurnedAway,
        now: Instant,
    ) {
        for link in self.claimed_for(device_key, account) {
            self.transport.close(link, CloseReason::NotApproved, now);
            self.forget(link, Loss::other(&why.to_string()));
        }
        self.collect(now);
    }

    /// Forgets the keys of an account, which are not those of whom it is now. Returns them.
    pub(in crate::node) fn unpin(&mut self, account: &AccountName) -> Vec<DeviceKey> {
        self.pins.forget(account)
    }

    fn claimed_for(&self, device_key: DeviceKey, account: &AccountName) -> Vec<LinkId> {
        let mut links = self.links_of(device_key);
        links.retain(|link| {
            let peer = self.peers.get(link);
            peer.is_some_and(|peer| peer.claimed.as_ref() == Some(account))
        });
        links
    }

    /// The devices of an account that are linked.
    pub(in crate::node) fn devices_of(&self, account: &AccountName) -> BTreeSet<DeviceKey> {
        let peers = self.peers.values();
        let linked = peers.filter(|peer| peer.account.as_ref() == Some(account));
        linked.map(|peer| peer.device_key).collect()
    }

    /// The accounts that there are links to.
    pub(in crate::node) fn linked_accounts(&self) -> BTreeSet<AccountName> {
        let peers = self.peers.values();
        peers.filter_map(|peer| peer.account.clone()).collect()
    }

    /// The server gave no answer: the links of a key that wait for it are of the account that the key is pinned
    /// to, or closed.
    pub(in crate::node) fn on_owner_unknown(&mut self, device_key: DeviceKey, now: Instant) {
        for link in self.links_of(device_key) {
            let peer = self.peers.get(&link);
            if peer.is_some_and(|peer| peer.account.is_none()) {
                self.claim_by_pin(link, device_key, now);
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
        self.introduced.take(device_key, now);
        for link in self.claimed_for(device_key, account) {
            self.drop_link(link, CloseReason::Unauthorised, now);
        }
        self.collect(now);
    }

    /// A handshake is complete.
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
        let patience = match self.pins.owner(&device_key) {
            Some(_) => OWNER_PATIENCE,
            None => AUTHORISE_TIMEOUT,
        };
        let peer = Peer {
            device_key,
            side,
            claimed: None,
            account: None,
            dialled: None,
            authorise_by: now + patience,
            stream: MessageStream::default(),
            leaves: BTreeMap::new(),
            doubt: None,
        };
        self.peers.insert(link, peer);
        // The server is asked in any case: from then on it tells when a device is no longer what it was.
        self.events
            .push_back(LinksEvent::Change(LinkChange::Proved { device_key }));
        let introduced = self.introduced.take(device_key, now);
        if side == Side::Client {
            let won = self
                .dials
                .on_connected(device_key, link, &mut self.transport, now);
            match (won, self.peers.get_mut(&link)) {
                (Some(account), Some(peer)) => peer.dialled = Some(account),
                (_, _) => return self.drop_link(link, CloseReason::Done, now),
            }
        }
        if let Some(account) = introduced {
            self.claim(link, account, Source::Server);
        }
    }

    /// Claims a link for the account that its key is pinned to, or closes it.
    fn claim_by_pin(&mut self, link: LinkId, device_key: DeviceKey, now: Instant) {
        match self.pins.owner(&device_key).cloned() {
            Some(account) => self.claim(link, account, Source::Pin),
            None => self.drop_link(link, CloseReason::Unauthorised, now),
        }
    }

    /// Somebody says that a link's device is of this account.
    fn claim(&mut self, link: LinkId, account: AccountName, source: Source) {
        if let Some(peer) = self.peers.get_mut(&link) {
            peer.claimed = Some(account.clone());
            self.events.push_back(LinksEvent::Claimed(Claim {
                device_key: peer.device_key,
                account,
                source,
            }));
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
        peer.account = Some(account.clone());
        let side = peer.side;
        let remote = self.transport.remote(link);
        self.dials
            .on_linked(device_key, remote, &mut self.transport, now);
        self.make_room(device_key, now);
        self.transport.authorise(link, now);
        match side {
            Side::Client => {
                if let Some(stream) = self.transport.open_bi(link) {
                    self.greet(link, stream);
                    let ready = LinkChange::Ready {
                        link,
                        account,
                        device_key,
                    };
                    self.events.push_back(LinksEvent::Change(ready));
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

    /// The server has not said in time whose some devices are.
    pub(super) fn end_waiting_for_owners(&mut self, now: Instant) {
        let peers = self.peers.iter();
        let expired: Vec<(LinkId, DeviceKey)> = peers
            .filter(|(_, peer)| peer.account.is_none() && peer.authorise_by <= now)
            .map(|(link, peer)| (*link, peer.device_key))
            .collect();
        for (link, device_key) in expired {
            self.claim_by_pin(link, device_key, now);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use common::key::DeviceSecret;

    use super::*;

    fn device(number: usize) -> DeviceKey {
        let mut seed = [7; 32];
        seed[..8].copy_from_slice(&number.to_be_bytes());
        DeviceSecret::from_seed(seed).public()
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "any instant will do as a start")]
    fn t31_an_introduction_is_good_for_one_link_made_soon() {
        let began = Instant::now();
        let alice: AccountName = "alice".parse().unwrap();
        let mut introduced = Introduced::default();
        for number in 0..=INTRODUCED_MAX {
            let now = began + Duration::from_millis(number as u64);
            introduced.note(device(number), alice.clone(), now);
        }
        assert_eq!(introduced.occupancy().count, INTRODUCED_MAX);
        let late = began + INTRODUCTION_LIFETIME + Duration::from_millis(2);
        let mut take = |number, now| introduced.take(device(number), now);
        assert_eq!(take(0, began), None, "it made room");
        assert_eq!(take(1, late), None, "it was too long ago");
        assert_eq!(take(2, late), Some(alice));
        assert_eq!(take(2, late), None, "it was used");
    }
}
