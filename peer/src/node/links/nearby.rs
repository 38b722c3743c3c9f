//! Devices that can be dialled without a server: those heard on the local network, and those that were reached
//! straight before.

use std::net::SocketAddr;
use std::time::Instant;

use common::id::AccountName;
use common::key::DeviceKey;
use common::lan::LanName;
use common::wire::rendezvous::{Candidate, CandidateKind};

use super::{LinkChange, Links, LinksEvent};
use crate::node::transport::LinkId;

impl Links {
    /// The pinned key that a name on the local network is of.
    pub(in crate::node) fn recognise(&self, name: &LanName) -> Option<DeviceKey> {
        self.pins.keys().find(|device_key| name.is_of(device_key))
    }

    /// The account that a key is pinned to.
    pub(in crate::node) fn owner(&self, device_key: &DeviceKey) -> Option<&AccountName> {
        self.pins.owner(device_key)
    }

    /// The packets of a link go straight to this endpoint.
    pub(super) fn remember_endpoint(&mut self, link: LinkId, endpoint: SocketAddr) {
        let peer = self.peers.get(&link).filter(|it| it.account.is_some());
        let Some(device_key) = peer.map(|peer| peer.device_key) else {
            return;
        };
        if self.dials.last.remember(device_key, endpoint) {
            let change = LinkChange::Reached {
                device_key,
                endpoint,
            };
            self.events.push_back(LinksEvent::Change(change));
        }
    }

    /// Takes where devices were reached in earlier runs.
    pub(in crate::node) fn restore_endpoints(&mut self, last: Vec<(DeviceKey, SocketAddr)>) {
        for (device_key, endpoint) in last {
            self.dials.last.remember(device_key, endpoint);
        }
    }

    /// The devices of an account that were reached straight, and where last.
    pub(in crate::node) fn last_endpoints_of(
        &self,
        account: &AccountName,
    ) -> impl Iterator<Item = (DeviceKey, SocketAddr)> {
        let last = self.dials.last.iter();
        last.filter(move |(device_key, _)| self.pins.owner(device_key) == Some(account))
    }

    /// There is a sign that these devices are there: checks of their endpoints are due again.
    pub(in crate::node) fn check_again(
        &mut self,
        devices: impl Iterator<Item = DeviceKey>,
        now: Instant,
    ) {
        for device_key in devices {
            self.dials.check_again(device_key, now);
        }
    }

    /// Dials devices of `account` at endpoints that they, or others, named on the local network, or had
    /// earlier: none is proven. Returns how many dials to the account are under way.
    pub(in crate::node) fn dial_nearby(
        &mut self,
        account: &AccountName,
        devices: impl IntoIterator<Item = (DeviceKey, Vec<SocketAddr>)>,
        now: Instant,
    ) -> usize {
        if !self.goes_directly() {
            return 0;
        }
        for (device_key, endpoints) in devices {
            let candidate = |endpoint| Candidate {
                endpoint,
                kind: CandidateKind::Host,
            };
            let candidates: Vec<Candidate> = endpoints.into_iter().map(candidate).collect();
            let (pins, transport) = (&self.pins, &mut self.transport);
            self.dials.begin(
                account,
                (device_key, &candidates),
                None,
                pins,
                transport,
                now,
            );
        }
        self.continue_dials(now);
        self.dials.count_of(account)
    }
}
