//! Where devices were reached straight last: they are dialled there while there is no server to ask.

use std::collections::VecDeque;
use std::net::SocketAddr;

use common::key::DeviceKey;
use common::limits::{LAST_ENDPOINTS_MAX, Occupancy};

/// One endpoint for each device, of the devices that were linked last.
#[derive(Debug)]
pub(super) struct LastEndpoints(VecDeque<(DeviceKey, SocketAddr)>);

impl LastEndpoints {
    /// Nobody was linked yet.
    pub(super) const fn new() -> Self {
        Self(VecDeque::new())
    }

    /// A device is reached at an endpoint. Tells whether that is news.
    pub(super) fn remember(&mut self, device_key: DeviceKey, endpoint: SocketAddr) -> bool {
        let is_known = self.0.contains(&(device_key, endpoint));
        self.0.retain(|(other, _)| *other != device_key);
        if self.0.len() == LAST_ENDPOINTS_MAX {
            self.0.pop_front();
        }
        self.0.push_back((device_key, endpoint));
        !is_known
    }

    /// Every device with its endpoint.
    pub(super) fn iter(&self) -> impl Iterator<Item = (DeviceKey, SocketAddr)> {
        self.0.iter().copied()
    }

    /// How full it is.
    pub(super) fn occupancy(&self) -> Occupancy {
        Occupancy::new("last endpoints", self.0.len(), LAST_ENDPOINTS_MAX)
    }
}

#[cfg(test)]
mod tests {
    use common::key::DeviceSecret;

    use super::*;

    fn device(number: u16) -> DeviceKey {
        let mut seed = [7; 32];
        seed[..2].copy_from_slice(&number.to_be_bytes());
        DeviceSecret::from_seed(seed).public()
    }

    #[test]
    fn of_each_device_the_last_endpoint_is_kept_and_the_latest_devices_stay() {
        let endpoint = |port| SocketAddr::from(([192, 0, 2, 1], port));
        let mut last = LastEndpoints::new();
        let most = u16::try_from(LAST_ENDPOINTS_MAX).unwrap();
        for number in 0..most {
            last.remember(device(number), endpoint(1 + number));
        }
        last.remember(device(0), endpoint(9));
        last.remember(device(most), endpoint(10));
        let of = |number| last.iter().find(|(key, _)| *key == device(number));
        assert_eq!(of(0), Some((device(0), endpoint(9))));
        assert_eq!(of(1), None, "it made room");
        assert_eq!(of(2), Some((device(2), endpoint(3))));
        assert_eq!(last.occupancy().count, LAST_ENDPOINTS_MAX);
    }
}
