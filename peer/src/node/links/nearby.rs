//! Devices that were heard on the local network: whose they are, and their dials.

use std::net::SocketAddr;
use std::time::Instant;

use common::id::AccountName;
use common::key::DeviceKey;
use common::lan::LanName;
use common::wire::rendezvous::{Candidate, CandidateKind};

use super::Links;

impl Links {
    /// The pinned key that a name on the local network is of.
    pub(in crate::node) fn recognise(&self, name: &LanName) -> Option<DeviceKey> {
        self.pins.keys().find(|device_key| name.is_of(device_key))
    }

    /// The account that a key is pinned to.
    pub(in crate::node) fn owner(&self, device_key: &DeviceKey) -> Option<&AccountName> {
        self.pins.owner(device_key)
    }

    /// Dials devices of `account` at the endpoints that they, or others, named on the local network: none is
    /// proven. Returns how many dials to the account are under way.
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
