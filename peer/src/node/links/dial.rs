//! Dials: one for each device that a link is wanted to, with one attempt for each of its endpoints.
//!
//! Where there is a channel of the relay to a device, the client's side dials through that, and the other
//! waits. Only if there is no link after [`RELAY_HEAD_START`] the endpoints are dialled, too, by whoever asked to be
//! introduced; the other side checks those of whoever asked, which lets the dial in through its NAT.
//!
//! Owns which devices are dialled until when, and which of our own endpoints are never dialled. What an
//! attempt may cost, its [`Agent`] decides.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use common::candidate::is_single_host;
use common::id::AccountName;
use common::key::DeviceKey;
use common::limits::{
    CANDIDATES_MAX, DEVICES_PER_ACCOUNT_MAX, DIAL_TIMEOUT, LINKS_MAX, Occupancy, RELAY_HEAD_START,
};
use common::relayed::is_relayed;
use common::wire::rendezvous::{Candidate, Role};
use rand::rngs::StdRng;

use super::last_endpoints::LastEndpoints;
use super::pins::Pins;
use crate::node::command::PathRule;
use crate::node::io::Transmit;
use crate::node::paths::agent::{Agent, Aim};
use crate::node::transport::{CloseReason, LinkId, Transport};

/// All dials of a node.
#[derive(Debug)]
pub(super) struct Dials {
    own_key: DeviceKey,
    dials: BTreeMap<DeviceKey, Dial>,
    agent: Agent,
    /// Links of dials that are not yet connected.
    attempts: BTreeMap<LinkId, Attempt>,
    /// The server is on this host, so other peers may be, too.
    is_local: bool,
    own_addresses: BTreeSet<SocketAddr>,
    pub(super) rule: PathRule,
    pub(super) last: LastEndpoints,
}

/// Why nobody is reached by a device that goes through the relay alone, where none leads to them.
pub(in crate::node) const NO_RELAY: &str =
    "the server's relay does not lead to it, and --path relay permits no other way";

/// A device that is being dialled.
#[derive(Debug)]
struct Dial {
    account: AccountName,
    give_up_at: Instant,
    /// Why the last attempt failed, in words.
    failure: String,
    /// The device's endpoints, and when they are to be dialled.
    held_back: Option<(Instant, Vec<Candidate>)>,
    /// The other side dials, first through this channel: its endpoints are only checked. NATs let in only whom
    /// their own side has sent to.
    lets_in: Option<SocketAddr>,
    /// The server has introduced the two: it has told where the device is now.
    is_introduced: bool,
}

/// The channel of the relay to a device.
#[derive(Clone, Copy, Debug)]
pub(super) struct Channel {
    /// Its made-up address.
    pub(super) address: SocketAddr,
    /// What this device does.
    pub(super) role: Role,
}

/// A handshake with one of the endpoints of a device.
#[derive(Clone, Copy, Debug)]
struct Attempt {
    device_key: DeviceKey,
    endpoint: SocketAddr,
}

/// A dial that came to nothing.
#[derive(Debug)]
pub(super) struct Failed {
    pub(super) account: AccountName,
    /// Why, in words.
    pub(super) reason: String,
}

impl Dials {
    /// Nobody is dialled. `rng` is the agent's own.
    pub(super) const fn new(own_key: DeviceKey, rng: StdRng) -> Self {
        Self {
            own_key,
            dials: BTreeMap::new(),
            agent: Agent::new(rng),
            attempts: BTreeMap::new(),
            is_local: false,
            own_addresses: BTreeSet::new(),
            rule: PathRule::Any,
            last: LastEndpoints::new(),
        }
    }

    /// How full the agent is.
    pub(super) fn occupancy(&self) -> Occupancy {
        self.agent.occupancy()
    }

    /// Notes whether loopback addresses may be dialled.
    pub(super) const fn set_local(&mut self, is_local: bool) {
        self.is_local = is_local;
    }

    /// Notes our own endpoints, which are never dialled.
    /// Tells whether they are others than before.
    pub(super) fn set_own_addresses(
        &mut self,
        addresses: impl Iterator<Item = SocketAddr>,
    ) -> bool {
        let addresses = addresses.collect();
        let before = std::mem::replace(&mut self.own_addresses, addresses);
        self.own_addresses != before
    }

    /// How many devices of an account are being dialled.
    pub(super) fn count_of(&self, account: &AccountName) -> usize {
        let dials = self.dials.values().filter(|dial| dial.lets_in.is_none());
        dials.filter(|dial| dial.account == *account).count()
    }

    /// The server has told where a device is: it is dialled there for as long as any other.
    pub(super) fn on_introduced(&mut self, device_key: DeviceKey, now: Instant) {
        if let Some(dial) = self.dials.get_mut(&device_key)
            && !std::mem::replace(&mut dial.is_introduced, true)
        {
            dial.give_up_at = now + DIAL_TIMEOUT;
        }
    }

    /// Tells whether a device of an account is being dialled to which the server has introduced this one.
    pub(super) fn has_introduced(&self, account: &AccountName) -> bool {
        let mut dials = self.dials.values();
        dials.any(|dial| dial.is_introduced && dial.lets_in.is_none() && dial.account == *account)
    }

    /// Another device dials this one through a channel: if nothing has come of that after
    /// [`RELAY_HEAD_START`], its endpoints are checked.
    pub(super) fn let_in(
        &mut self,
        account: &AccountName,
        (device_key, candidates): (DeviceKey, &[Candidate]),
        channel: Channel,
        (pins, transport): (&Pins, &Transport),
        now: Instant,
    ) {
        let candidates = self.dialable(candidates);
        let is_wanted = self.rule != PathRule::Relayed
            && !candidates.is_empty()
            && !self.dials.contains_key(&device_key);
        if !is_wanted || !self.may_dial(account, device_key, pins, transport) {
            return;
        }
        let dial = Dial {
            account: account.clone(),
            give_up_at: now + DIAL_TIMEOUT,
            failure: String::new(),
            held_back: Some((now + RELAY_HEAD_START, candidates)),
            lets_in: Some(channel.address),
            is_introduced: true,
        };
        self.dials.insert(device_key, dial);
    }

    /// Begins to dial a device at its candidates, or goes on with what it announces now. Failed dials come from
    /// [`Dials::handle_timeout`].
    pub(super) fn begin(
        &mut self,
        account: &AccountName,
        (device_key, candidates): (DeviceKey, &[Candidate]),
        channel: Option<Channel>,
        pins: &Pins,
        transport: &mut Transport,
        now: Instant,
    ) {
        if !self.may_dial(account, device_key, pins, transport) {
            return;
        }
        if self
            .dials
            .get(&device_key)
            .is_some_and(|dial| dial.lets_in.is_some())
        {
            self.end(device_key, None, transport, now);
        }
        let (candidates, head_start) = match (self.rule, channel) {
            (PathRule::Relayed, Some(_)) => (Vec::new(), DIAL_TIMEOUT),
            (PathRule::Relayed, None) => (Vec::new(), Duration::ZERO),
            (PathRule::Any | PathRule::Direct, Some(_)) => {
                (self.dialable(candidates), RELAY_HEAD_START)
            }
            (PathRule::Any | PathRule::Direct, None) => (self.dialable(candidates), Duration::ZERO),
        };
        let dial = self.dials.entry(device_key).or_insert_with(|| Dial {
            account: account.clone(),
            give_up_at: now + DIAL_TIMEOUT,
            failure: match self.rule {
                PathRule::Relayed => NO_RELAY,
                PathRule::Any | PathRule::Direct => "it announced no address that can be reached",
            }
            .to_owned(),
            held_back: Some((now + head_start, Vec::new())),
            lets_in: None,
            is_introduced: false,
        });
        match &mut dial.held_back {
            Some((at, held_back)) => {
                *at = (*at).min(now + head_start);
                *held_back = candidates;
            }
            None => self.begin_directly(device_key, &candidates, Aim::Dial, now),
        }
        if let Some(Channel {
            address,
            role: Role::Client,
        }) = channel
        {
            self.begin_relayed(device_key, address, transport, now);
        }
    }

    /// Dials the endpoints of a device, or checks them.
    fn begin_directly(
        &mut self,
        device_key: DeviceKey,
        candidates: &[Candidate],
        aim: Aim,
        now: Instant,
    ) {
        let Some(dial) = self.dials.get(&device_key) else {
            return;
        };
        let account = &dial.account;
        if !self.agent.begin(device_key, account, candidates, aim, now) {
            log::debug!("not dialled directly: too many devices were dialled lately");
        }
    }

    /// Goes on with a device once the relay has had its head start.
    fn end_head_start(
        &mut self,
        device_key: DeviceKey,
        candidates: &[Candidate],
        transport: &mut Transport,
        now: Instant,
    ) {
        let dial = self.dials.get(&device_key);
        match dial.and_then(|dial| dial.lets_in) {
            None => self.begin_directly(device_key, candidates, Aim::Dial, now),
            Some(channel) if transport.has_link_at(channel) => {
                self.end(device_key, None, transport, now);
            }
            Some(_) => self.begin_directly(device_key, candidates, Aim::LetIn, now),
        }
    }

    /// Dials a device through the relay, unless that is being done.
    fn begin_relayed(
        &mut self,
        device_key: DeviceKey,
        address: SocketAddr,
        transport: &mut Transport,
        now: Instant,
    ) {
        let mut attempts = self.attempts.values();
        if attempts.any(|attempt| attempt.endpoint == address) {
            return;
        }
        if let Some(link) = transport.dial(device_key, address, now) {
            let attempt = Attempt {
                device_key,
                endpoint: address,
            };
            self.attempts.insert(link, attempt);
        }
    }

    fn may_dial(
        &self,
        account: &AccountName,
        device_key: DeviceKey,
        pins: &Pins,
        transport: &Transport,
    ) -> bool {
        if device_key == self.own_key {
            return false;
        }
        if pins
            .owner(&device_key)
            .is_some_and(|owner| owner != account)
        {
            log::warn!("the server names a device under another account than before; not dialled");
            return false;
        }
        if let Some(dial) = self.dials.get(&device_key) {
            return dial.account == *account;
        }
        if self.count_of(account) >= DEVICES_PER_ACCOUNT_MAX {
            log::debug!("not dialled: an account has no more devices than that");
            return false;
        }
        if transport.link_count() >= LINKS_MAX {
            log::debug!("not dialled: {LINKS_MAX} links are open");
            return false;
        }
        true
    }

    /// Those of a device's candidates to which packets may be sent.
    fn dialable(&self, candidates: &[Candidate]) -> Vec<Candidate> {
        let canonical = |candidate: &Candidate| Candidate {
            endpoint: common::stun::canonical(candidate.endpoint),
            ..*candidate
        };
        let candidates = candidates.iter().map(canonical);
        candidates
            .filter(|candidate| self.is_dialable(candidate.endpoint))
            .take(CANDIDATES_MAX)
            .collect()
    }

    /// Tells whether an address that somebody else names may get packets of ours: never this node
    /// itself, nor what is not an address of one host; loopback only if the server is on it, too.
    fn is_dialable(&self, candidate: SocketAddr) -> bool {
        is_single_host(candidate.ip(), self.is_local)
            && candidate.port() != 0
            && !self.own_addresses.contains(&candidate)
    }

    /// Checks of a device's endpoints are due again.
    pub(super) fn check_again(&mut self, device_key: DeviceKey, now: Instant) {
        self.agent.check_again(device_key, now);
    }

    /// Takes a STUN datagram, which may prove an endpoint.
    pub(super) fn handle_stun(&mut self, source: SocketAddr, datagram: &[u8], now: Instant) {
        self.agent.handle_stun(source, datagram, now);
    }

    /// Starts the attempts that are due, and returns the dials that came to nothing.
    pub(super) fn handle_timeout(
        &mut self,
        transport: &mut Transport,
        now: Instant,
    ) -> Vec<Failed> {
        let held_back = self.dials.iter_mut().filter_map(|(key, dial)| {
            let due = dial.held_back.take_if(|(at, _)| *at <= now);
            due.map(|(_, candidates)| (*key, candidates))
        });
        let due: Vec<_> = held_back.collect();
        for (device_key, candidates) in due {
            self.end_head_start(device_key, &candidates, transport, now);
        }
        self.agent.handle_timeout(now);
        self.start_attempts(transport, now);
        let (agent, attempts) = (&self.agent, &self.attempts);
        let is_tried = |key| attempts.values().any(|attempt| attempt.device_key == key);
        let is_over = |key: &DeviceKey, dial: &Dial| {
            let is_hopeless =
                dial.held_back.is_none() && agent.is_hopeless(*key) && !is_tried(*key);
            now >= dial.give_up_at || is_hopeless
        };
        let over = self.dials.iter().filter(|(key, dial)| is_over(key, dial));
        let over: Vec<DeviceKey> = over.map(|(key, _)| *key).collect();
        let failed = |key| self.fail(key, transport, now);
        over.into_iter().filter_map(failed).collect()
    }

    /// When [`Dials::handle_timeout`] is due.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let dials = self.dials.values();
        let dials = dials.map(|dial| match &dial.held_back {
            Some((at, _)) => dial.give_up_at.min(*at),
            None => dial.give_up_at,
        });
        dials.chain(self.agent.poll_timeout()).min()
    }

    /// The next check of an endpoint to send.
    pub(super) fn poll_check(&mut self, buffer: &mut Vec<u8>) -> Option<Transmit> {
        self.agent.poll_transmit(buffer)
    }

    /// The next datagrams of a link. `true` if attempts ended because nothing paid for theirs: then
    /// others may be dialled.
    pub(super) fn poll_quic(
        &mut self,
        transport: &mut Transport,
        buffer: &mut Vec<u8>,
        now: Instant,
    ) -> (Option<Transmit>, bool) {
        let (attempts, agent) = (&mut self.attempts, &mut self.agent);
        let mut abandoned = Vec::new();
        let mut pay = |link, len| {
            let Some(attempt) = attempts.get(&link).copied() else {
                return true;
            };
            // The server sends it on to the device alone.
            if is_relayed(attempt.endpoint.ip()) {
                return true;
            }
            let is_paid = agent.pay(attempt.device_key, attempt.endpoint, len, now);
            if !is_paid {
                attempts.remove(&link);
                abandoned.push(attempt);
            }
            is_paid
        };
        let transmit = transport.poll_transmit(now, buffer, &mut pay);
        let may_dial_others = !abandoned.is_empty();
        for attempt in abandoned {
            self.agent
                .on_dial_failed(attempt.device_key, attempt.endpoint, now);
            self.start_attempts(transport, now);
        }
        (transmit, may_dial_others)
    }

    /// A link is connected: the dial that it won ends. `None` if there was none any more.
    pub(super) fn on_connected(
        &mut self,
        device_key: DeviceKey,
        link: LinkId,
        transport: &mut Transport,
        now: Instant,
    ) -> Option<AccountName> {
        let dial = self.end(device_key, Some(link), transport, now)?;
        Some(dial.account)
    }

    /// There is an authorised link to a device, which proves its endpoint unless the link is relayed.
    pub(super) fn on_linked(
        &mut self,
        device_key: DeviceKey,
        remote: Option<SocketAddr>,
        transport: &mut Transport,
        now: Instant,
    ) {
        if let Some(remote) = remote {
            self.agent.on_linked(device_key, remote, now);
            self.start_attempts(transport, now);
        }
        let is_tried = |attempt: &Attempt| attempt.device_key == device_key;
        let is_waiting = |dial: &Dial| dial.held_back.is_some() || dial.lets_in.is_some();
        if self.dials.get(&device_key).is_some_and(is_waiting)
            && !self.attempts.values().any(is_tried)
        {
            // The other side was to dial.
            self.end(device_key, None, transport, now);
        }
    }

    /// A link is lost. `true` if it was an attempt: then [`Dials::handle_timeout`] is due.
    pub(super) fn on_lost(&mut self, link: LinkId, reason: &str, now: Instant) -> bool {
        let Some(attempt) = self.attempts.remove(&link) else {
            return false;
        };
        if let Some(dial) = self.dials.get_mut(&attempt.device_key) {
            reason.clone_into(&mut dial.failure);
            if let Some((at, _)) = &mut dial.held_back {
                *at = now;
            }
        }
        self.agent
            .on_dial_failed(attempt.device_key, attempt.endpoint, now);
        true
    }

    /// Ends all dials.
    pub(super) fn end_all(&mut self, transport: &mut Transport, now: Instant) {
        let dialled: Vec<DeviceKey> = self.dials.keys().copied().collect();
        for device_key in dialled {
            self.end(device_key, None, transport, now);
        }
    }

    fn start_attempts(&mut self, transport: &mut Transport, now: Instant) {
        while let Some((device_key, endpoint)) = self.agent.poll_dial() {
            match transport.dial(device_key, endpoint, now) {
                Some(link) => {
                    let attempt = Attempt {
                        device_key,
                        endpoint,
                    };
                    self.attempts.insert(link, attempt);
                }
                None => self.agent.on_dial_failed(device_key, endpoint, now),
            }
        }
    }

    fn fail(
        &mut self,
        device_key: DeviceKey,
        transport: &mut Transport,
        now: Instant,
    ) -> Option<Failed> {
        let dial = self.end(device_key, None, transport, now)?;
        if dial.lets_in.is_some() {
            return None;
        }
        let reason = if now >= dial.give_up_at {
            "no answer at any of its addresses".to_owned()
        } else {
            dial.failure
        };
        Some(Failed {
            account: dial.account,
            reason,
        })
    }

    /// Ends a dial and all its attempts but the one that won.
    fn end(
        &mut self,
        device_key: DeviceKey,
        winner: Option<LinkId>,
        transport: &mut Transport,
        now: Instant,
    ) -> Option<Dial> {
        let dial = self.dials.remove(&device_key)?;
        self.agent.end(device_key);
        let attempts = self.attempts.iter();
        let of_dial = attempts.filter(|(_, attempt)| attempt.device_key == device_key);
        let of_dial: Vec<(LinkId, SocketAddr)> = of_dial
            .map(|(link, attempt)| (*link, attempt.endpoint))
            .collect();
        for (link, endpoint) in of_dial {
            self.attempts.remove(&link);
            if Some(link) == winner {
                continue;
            }
            // Even a goodbye is a datagram of 1,200 bytes.
            if is_relayed(endpoint.ip()) || self.agent.is_proven(device_key, endpoint) {
                transport.close(link, CloseReason::Done, now);
            } else {
                transport.abandon(link);
            }
        }
        Some(dial)
    }
}

#[cfg(test)]
mod tests {
    use common::key::DeviceSecret;
    use common::wire::rendezvous::CandidateKind;
    use rand::SeedableRng;

    use super::*;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "any instant will do as a start")]
    fn a_link_through_the_relay_ends_the_wait_for_the_other_side() {
        let now = Instant::now();
        let secret = DeviceSecret::from_seed([1; 32]);
        let mut dials = Dials::new(secret.public(), StdRng::from_seed([1; 32]));
        let mut transport = Transport::new([1; 32], secret);
        let pins = Pins::new(Vec::new());
        let account: AccountName = "bob".parse().unwrap();
        let device_key = DeviceSecret::from_seed([2; 32]).public();
        let candidates = [Candidate {
            endpoint: "192.0.2.9:4000".parse().unwrap(),
            kind: CandidateKind::ServerReflexive,
        }];
        let channel = Channel {
            address: common::relayed::relayed_address([1; 10]),
            role: Role::Server,
        };
        let device = (device_key, &candidates[..]);
        for is_own in [true, false] {
            if is_own {
                let channel = Some(channel);
                dials.begin(&account, device, channel, &pins, &mut transport, now);
            } else {
                dials.let_in(&account, device, channel, (&pins, &transport), now);
            }
            assert_eq!(dials.count_of(&account), usize::from(is_own));
            assert_eq!(dials.poll_timeout(), Some(now + RELAY_HEAD_START));
            dials.on_linked(device_key, None, &mut transport, now);
            assert_eq!(dials.count_of(&account), 0);
            assert_eq!(dials.poll_timeout(), None);
        }
    }

    #[test]
    fn t22_only_addresses_of_single_other_hosts_are_dialled() {
        let own_key = DeviceSecret::from_seed([1; 32]).public();
        let mut dials = Dials::new(own_key, StdRng::from_seed([1; 32]));
        dials.set_own_addresses(["192.0.2.9:4000".parse().unwrap()].into_iter());
        let refused = [
            "127.0.0.1:1",
            "[::1]:1",
            "0.0.0.0:1",
            "[::]:1",
            "169.254.169.254:80",
            "224.0.0.1:1",
            "255.255.255.255:1",
            "[ff02::1]:1",
            "[fe80::1]:1",
            "192.0.2.1:0",
            "192.0.2.9:4000",
        ];
        for address in refused {
            assert!(!dials.is_dialable(address.parse().unwrap()), "{address}");
        }
        assert!(dials.is_dialable("192.0.2.9:4001".parse().unwrap()));
        dials.set_local(true);
        assert!(dials.is_dialable("127.0.0.1:1".parse().unwrap()));
        let mapped = common::stun::canonical("[::ffff:169.254.169.254]:80".parse().unwrap());
        assert!(!dials.is_dialable(mapped));
    }
}
