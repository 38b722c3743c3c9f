//! The local network: this device's name on it, and the names that are heard there.
//!
//! [`Lan`] decides under which name the shell announces this device by multicast DNS, and which of the names
//! that it hears are devices of contacts: those whose key is pinned. What was heard is a hint and no more. A
//! name can be repeated or made up, and its addresses may be anybody's, so:
//!
//! - Only addresses on a network of this host count, and only those that T22 permits: none of the host
//!   itself, link-local, multicast or unspecified.
//! - They are candidates without a proof. The [`agent`](super::paths::agent) checks each before it is dialled,
//!   at its pace and within the budget of the device and its account: whoever names the addresses of others
//!   has a few checks of 56 bytes a second sent there, as a device in the directory could, and nothing else.
//! - A dial expects the pinned key. Whoever answers with another one is not linked.
//!
//! What a neighbour can do all the same: keep a contact from being found here, with a flood of names, or with
//! names of that contact if it knows the key, since of those the newest count. It learns which host looks for a
//! contact that it announces.
//!
//! What a name does not hide: that this host runs this program, its addresses, and its UDP port, which stays
//! while the program runs. So neighbours who hear two names of a device on one network can tell that they are
//! one's; on another network, or in another run, they cannot. Whoever knows the device's key always can:
//! contacts, the server, and whoever has seen it in the directory.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use common::candidate::is_single_host;
use common::id::AccountName;
use common::key::DeviceKey;
use common::lan::LanName;
use common::limits::{
    CANDIDATES_MAX, LAN_ENDPOINTS_MAX, LAN_HEARD_LIFETIME, LAN_LEAVE_WAIT, LAN_NAME_LIFETIME,
    LAN_NAMES_INTERVAL, LAN_NAMES_MAX, LAN_NAMES_PER_DEVICE_MAX, LAN_NAMES_PER_INTERVAL_MAX,
    Occupancy,
};
use common::stun::canonical;
use rand::RngExt;
use rand::rngs::StdRng;

use super::io::{LanAnnouncement, LanInput, LocalAddress};
use super::links::Links;

/// This device's name on the local network, and those of others.
#[derive(Debug)]
pub(super) struct Lan {
    rng: StdRng,
    own_key: DeviceKey,
    /// Its owner lets this device announce itself and listen.
    is_permitted: bool,
    /// Only a device with an account has anybody to talk to.
    is_enrolled: bool,
    /// The addresses at which neighbours can reach this device.
    local: Vec<LocalAddress>,
    /// Nothing is announced before.
    quiet_until: Instant,
    /// The present name and when it is replaced; `None` while nothing is announced, and then nothing is heard.
    name: Option<(LanName, Instant)>,
    heard: BTreeMap<LanName, Heard>,
    /// Counts the names that were heard, to tell which is newer.
    heard_count: u64,
    /// Names compared with all keys since then.
    compared: Option<(Instant, usize)>,
    /// The accounts that are told to be here, with when those count as having left that are not heard now.
    here: BTreeMap<AccountName, Option<Instant>>,
    /// [`Lan::take_changes`] may have news.
    is_changed: bool,
    /// This is another network than at its last call.
    is_moved: bool,
    output: Option<Option<LanAnnouncement>>,
}

/// A name that was heard.
#[derive(Debug)]
struct Heard {
    /// At least one.
    endpoints: Vec<SocketAddr>,
    /// The pinned key that the name is of.
    device: Option<DeviceKey>,
    at: Instant,
    number: u64,
}

impl Lan {
    /// Announces nothing before `quiet_until`. `is_permitted` says whether it ever will.
    pub(super) const fn new(
        rng: StdRng,
        own_key: DeviceKey,
        is_permitted: bool,
        quiet_until: Instant,
    ) -> Self {
        Self {
            rng,
            own_key,
            is_permitted,
            is_enrolled: false,
            local: Vec::new(),
            quiet_until,
            name: None,
            heard: BTreeMap::new(),
            heard_count: 0,
            compared: None,
            here: BTreeMap::new(),
            is_changed: false,
            is_moved: false,
            output: None,
        }
    }

    /// Tells whether this device may be announced.
    pub(super) const fn is_permitted(&self) -> bool {
        self.is_permitted
    }

    /// How full it is.
    pub(super) fn occupancies(&self) -> [Occupancy; 2] {
        let mut of_devices: BTreeMap<DeviceKey, usize> = BTreeMap::new();
        for device in self.heard.values().filter_map(|heard| heard.device) {
            *of_devices.entry(device).or_default() += 1;
        }
        let of_devices = of_devices.into_values();
        [
            Occupancy::new("names on the network", self.heard.len(), LAN_NAMES_MAX),
            Occupancy::fullest(
                "names of a device on the network",
                of_devices,
                LAN_NAMES_PER_DEVICE_MAX,
            ),
        ]
    }

    // ---- this device ---------------------------------------------------------------------------

    /// Notes whether this device has an account.
    pub(super) fn set_enrolled(&mut self, is_enrolled: bool, now: Instant) {
        if self.is_enrolled != is_enrolled {
            self.is_enrolled = is_enrolled;
            self.rename(now);
        }
    }

    /// Takes the addresses of this host. If they are others than before, this is another network: what was
    /// heard is forgotten, and the device has a new name there.
    pub(super) fn set_local(&mut self, addresses: &[LocalAddress], now: Instant) {
        let usable = addresses
            .iter()
            .filter(|it| is_single_host(ip_of(it), false));
        let usable: Vec<LocalAddress> = usable.copied().collect();
        if self.local != usable {
            self.local = usable;
            self.forget_heard();
            self.rename(now);
        }
    }

    /// The program ends: the name is taken back.
    pub(super) fn shut_down(&mut self, now: Instant) {
        self.is_permitted = false;
        self.rename(now);
    }

    /// Takes a new name, or none where nothing is to be announced.
    fn rename(&mut self, now: Instant) {
        if !self.may_announce() {
            if self.name.take().is_some() {
                self.forget_heard();
                self.output = Some(None);
            }
            return;
        }
        if now < self.quiet_until {
            return;
        }
        let name = LanName::new(self.rng.random(), &self.own_key);
        self.name = Some((name, now + LAN_NAME_LIFETIME));
        let endpoints = self.local.iter().map(|it| canonical(it.endpoint));
        let endpoints = endpoints.take(LAN_ENDPOINTS_MAX).collect();
        self.output = Some(Some(LanAnnouncement { name, endpoints }));
    }

    fn may_announce(&self) -> bool {
        self.is_permitted && self.is_enrolled && !self.local.is_empty()
    }

    /// There is no session: neighbours are wanted at once.
    pub(super) fn on_offline(&mut self, now: Instant) {
        self.quiet_until = self.quiet_until.min(now);
        self.announce_first(now);
    }

    /// Takes the first name, if it is time.
    fn announce_first(&mut self, now: Instant) {
        if self.name.is_none() && self.quiet_until <= now {
            self.rename(now);
        }
    }

    /// What is to be announced from now on, if that changed.
    pub(super) const fn poll_output(&mut self) -> Option<Option<LanAnnouncement>> {
        self.output.take()
    }

    /// Forgets names that are too old, and replaces this device's own.
    pub(super) fn handle_timeout(&mut self, now: Instant) {
        let before = self.heard.len();
        self.heard
            .retain(|_, heard| now < heard.at + LAN_HEARD_LIFETIME);
        self.is_changed |= self.heard.len() < before;
        let mut leaving = self.here.values().copied().flatten();
        self.is_changed |= leaving.any(|at| at <= now);
        if self.name.is_some_and(|(_, until)| until <= now) {
            self.rename(now);
        }
        self.announce_first(now);
    }

    /// When [`Lan::handle_timeout`] is due.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let heard = self.heard.values();
        let heard = heard.map(|heard| heard.at + LAN_HEARD_LIFETIME);
        let own = match self.name {
            Some((_, until)) => Some(until),
            None => self.may_announce().then_some(self.quiet_until),
        };
        let leaving = self.here.values().copied().flatten();
        heard.chain(own).chain(leaving).min()
    }

    // ---- others --------------------------------------------------------------------------------

    /// Takes what was heard.
    pub(super) fn handle_input(&mut self, input: LanInput, links: &Links, now: Instant) {
        match input {
            LanInput::Heard { name, endpoints } => self.on_heard(name, &endpoints, links, now),
            LanInput::Gone { name } => self.forget(name),
        }
    }

    fn on_heard(&mut self, name: LanName, said: &[SocketAddr], links: &Links, now: Instant) {
        let mut endpoints: Vec<SocketAddr> = Vec::new();
        for endpoint in said.iter().copied().map(canonical) {
            let is_new = !endpoints.contains(&endpoint) && endpoints.len() < LAN_ENDPOINTS_MAX;
            if is_new && self.may_be_dialled(endpoint) {
                endpoints.push(endpoint);
            }
        }
        if self.name.is_none() || endpoints.is_empty() {
            return self.forget(name);
        }
        if let Some(heard) = self.heard.get_mut(&name) {
            (heard.endpoints, heard.at) = (endpoints, now);
            return;
        }
        if name.is_of(&self.own_key) || !self.may_compare(now) {
            return;
        }
        let device = links.recognise(&name);
        if !self.make_room(device) {
            return;
        }
        self.heard_count += 1;
        let heard = Heard {
            endpoints,
            device,
            at: now,
            number: self.heard_count,
        };
        self.heard.insert(name, heard);
        self.is_changed = true;
    }

    /// Tells whether an address that a neighbour names may be one's: it is on a network of this host, and no
    /// address of the host itself with this device's port.
    fn may_be_dialled(&self, endpoint: SocketAddr) -> bool {
        let ip = endpoint.ip();
        let is_near = |own: &LocalAddress| own.prefix_len > 0 && own.is_on_link(ip);
        let is_own = |own: &LocalAddress| canonical(own.endpoint) == endpoint;
        endpoint.port() != 0
            && is_single_host(ip, false)
            && self.local.iter().any(is_near)
            && !self.local.iter().any(is_own)
    }

    /// Tells whether another name may be compared with all keys now.
    fn may_compare(&mut self, now: Instant) -> bool {
        let (since, count) = self.compared.get_or_insert((now, 0));
        if now >= *since + LAN_NAMES_INTERVAL {
            (*since, *count) = (now, 0);
        }
        *count += 1;
        *count <= LAN_NAMES_PER_INTERVAL_MAX
    }

    /// Makes room for a name, of a known device or not; `false` if others are worth more.
    fn make_room(&mut self, device: Option<DeviceKey>) -> bool {
        if device.is_some() {
            self.drop_surplus(device, LAN_NAMES_PER_DEVICE_MAX - 1);
        }
        if self.heard.len() < LAN_NAMES_MAX {
            return true;
        }
        self.forget_oldest(None) || (device.is_some() && self.forget_oldest(device))
    }

    /// Keeps at most so many names of a device.
    fn drop_surplus(&mut self, device: Option<DeviceKey>, max: usize) {
        let names = self.heard.values().filter(|heard| heard.device == device);
        for _ in max..names.count() {
            self.forget_oldest(device);
        }
    }

    /// Forgets the oldest name of a device, or of those that nobody knows; `false` if there is none.
    fn forget_oldest(&mut self, device: Option<DeviceKey>) -> bool {
        let names = self.heard.iter().filter(|(_, it)| it.device == device);
        let oldest = names.min_by_key(|(_, heard)| heard.number);
        let oldest = oldest.map(|(name, _)| *name);
        oldest.inspect(|name| self.forget(*name)).is_some()
    }

    fn forget(&mut self, name: LanName) {
        self.is_changed |= self.heard.remove(&name).is_some();
    }

    fn forget_heard(&mut self) {
        self.heard.clear();
        (self.is_changed, self.is_moved) = (true, true);
    }

    /// A key was pinned: names that nobody knew may be its device's.
    pub(super) fn on_new_key(&mut self, device_key: DeviceKey) {
        for (name, heard) in &mut self.heard {
            if heard.device.is_none() && name.is_of(&device_key) {
                heard.device = Some(device_key);
                self.is_changed = true;
            }
        }
        self.drop_surplus(Some(device_key), LAN_NAMES_PER_DEVICE_MAX);
    }

    /// The devices of an account that were heard, and where they say that they are: at most
    /// [`CANDIDATES_MAX`] endpoints each, the latest first.
    pub(super) fn devices_of(
        &self,
        account: &AccountName,
        links: &Links,
    ) -> BTreeMap<DeviceKey, Vec<SocketAddr>> {
        let mut heard: Vec<&Heard> = self.heard.values().collect();
        heard.sort_by_key(|heard| std::cmp::Reverse(heard.number));
        let mut devices: BTreeMap<DeviceKey, Vec<SocketAddr>> = BTreeMap::new();
        for Heard {
            endpoints, device, ..
        } in heard
        {
            let Some(device) = device.filter(|it| links.owner(it) == Some(account)) else {
                continue;
            };
            let all = devices.entry(device).or_default();
            for endpoint in endpoints {
                if all.len() < CANDIDATES_MAX && !all.contains(endpoint) {
                    all.push(*endpoint);
                }
            }
        }
        devices
    }

    /// Tells whether a device of an account is heard.
    pub(super) fn is_here(&self, account: &AccountName) -> bool {
        self.here.get(account).is_some_and(Option::is_none)
    }

    /// The accounts that are told to be here, ordered by name.
    pub(super) fn here(&self) -> impl Iterator<Item = &AccountName> {
        self.here.keys()
    }

    /// What changed since the last call.
    pub(super) fn take_changes(&mut self, links: &Links, now: Instant) -> Changes {
        let mut changes = Changes::default();
        if !std::mem::take(&mut self.is_changed) {
            return changes;
        }
        let devices = self.heard.values().filter_map(|heard| heard.device);
        let heard = devices.filter_map(|device| links.owner(&device).cloned());
        let heard: BTreeSet<AccountName> = heard.collect();
        // On another network nobody is waited for.
        let wait = if std::mem::take(&mut self.is_moved) {
            Duration::ZERO
        } else {
            LAN_LEAVE_WAIT
        };
        self.here.retain(|account, leaves| {
            if heard.contains(account) {
                return true;
            }
            let stays = now < *leaves.get_or_insert(now + wait);
            if !stays {
                changes.told.push((account.clone(), false));
            }
            stays
        });
        for account in heard {
            match self.here.insert(account.clone(), None) {
                Some(None) => continue,
                Some(Some(_)) => {}
                None => changes.told.push((account.clone(), true)),
            }
            changes.heard.push(account);
        }
        changes
    }
}

/// Who came and who left.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Changes {
    /// Accounts that are heard and were not: they may be dialled.
    pub(super) heard: Vec<AccountName>,
    /// Accounts that came or left, with whether they are here.
    pub(super) told: Vec<(AccountName, bool)>,
}

fn ip_of(address: &LocalAddress) -> IpAddr {
    canonical(address.endpoint).ip()
}

#[cfg(test)]
mod tests;
