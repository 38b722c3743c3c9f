//! The relay's allocations and channels: who may send to whom through the server, and
//! from and to which address.
//!
//! An allocation is *bound* to an address once its device has shown that it receives there: it has returned a
//! challenge, which the server computes anew rather than keep. A device that moves binds its allocation
//! again, and all its channels move with it. What comes from elsewhere, or is for an allocation that is not
//! bound, is dropped.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use common::id::AccountName;
use common::limits::{
    Occupancy, RELAY_ALLOCATIONS_MAX, RELAY_CHANNEL_IDLE_TIMEOUT, RELAY_CHANNELS_MAX,
    RELAY_COOKIE_LIFETIME,
};
use common::wire::channel::{AllocationId, ChannelDatagram, Cookie, EndId};

use super::traffic::{PayerId, Traffic, TrafficLimits};

/// How often it is looked for channels that nobody uses.
const SWEEP_INTERVAL: Duration = Duration::from_secs(15);

/// Identifies a channel. Chosen by whoever opens it, and not used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChannelId(pub u64);

/// A channel to be opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Channel {
    /// Its id.
    pub id: ChannelId,
    /// Its two ends, and the allocation of each. The ids are random.
    pub ends: [(EndId, AllocationId); 2],
}

/// All allocations and channels of a server.
#[derive(Debug)]
pub(super) struct Channels {
    key: [u8; 32],
    start: Instant,
    // Looked up for each packet and never iterated over. With many channels a tree takes several times as long:
    // each step down is memory that no cache holds.
    allocations: HashMap<AllocationId, Allocation>,
    ends: HashMap<EndId, End>,
    channels: BTreeMap<ChannelId, [EndId; 2]>,
    traffic: Traffic,
    sweep_at: Instant,
    /// Channels that were closed because nobody used them.
    closed: Vec<ChannelId>,
}

/// Where an allocation is bound to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    /// The address of its device.
    pub(super) source: SocketAddr,
    /// The address of this host that its device sends to, where that is known.
    pub(super) local: Option<IpAddr>,
}

/// The way of what an end sends.
#[derive(Clone, Copy, Debug)]
pub(super) struct Route {
    pub(super) payer: PayerId,
    /// The end that it is for.
    pub(super) other: EndId,
    /// Where the allocation of that is bound.
    pub(super) to: Place,
}

#[derive(Debug)]
struct Allocation {
    /// Pays for what is sent from it.
    payer: PayerId,
    bound: Option<Place>,
    channels: BTreeSet<ChannelId>,
}

#[derive(Debug)]
struct End {
    allocation: AllocationId,
    other: EndId,
    other_allocation: AllocationId,
    /// When something went from it to the other end, or the channel was opened.
    used: Instant,
}

impl Channels {
    /// None are open. `key` is random.
    pub(super) fn new(key: [u8; 32], limits: TrafficLimits, now: Instant) -> Self {
        Self {
            key,
            start: now,
            allocations: HashMap::new(),
            ends: HashMap::new(),
            channels: BTreeMap::new(),
            traffic: Traffic::new(limits, now),
            sweep_at: now + SWEEP_INTERVAL,
            closed: Vec::new(),
        }
    }

    /// Makes an allocation for a device of `account`; `false` if there are too many, or the id is taken.
    pub(super) fn allocate(
        &mut self,
        id: AllocationId,
        account: AccountName,
        now: Instant,
    ) -> bool {
        if self.allocations.contains_key(&id) || self.allocations.len() >= RELAY_ALLOCATIONS_MAX {
            return false;
        }
        let unbound = Allocation {
            payer: self.traffic.add(account, now),
            bound: None,
            channels: BTreeSet::new(),
        };
        self.allocations.insert(id, unbound);
        true
    }

    /// Ends an allocation and all its channels. Fine if it has ended already. Returns who has paid for it if that was
    /// their last one.
    pub(super) fn free(&mut self, id: AllocationId) -> Option<PayerId> {
        let allocation = self.allocations.remove(&id)?;
        for channel in allocation.channels {
            self.close(channel);
        }
        let payer = allocation.payer;
        self.traffic.remove(payer).then_some(payer)
    }

    /// Opens a channel; `false` if there are as many as there may be, one of its ids is taken, or one of its
    /// allocations is not there.
    pub(super) fn open(&mut self, channel: Channel, now: Instant) -> bool {
        let Channel { id, ends } = channel;
        let [one, other] = ends.map(|(end, _)| end);
        let is_new = one != other
            && !self.channels.contains_key(&id)
            && !self.ends.contains_key(&one)
            && !self.ends.contains_key(&other);
        let mut allocations = ends.iter().map(|(_, allocation)| allocation);
        let is_allocated = allocations.all(|it| self.allocations.contains_key(it));
        if !is_new || !is_allocated || self.channels.len() >= RELAY_CHANNELS_MAX {
            return false;
        }
        self.channels.insert(id, [one, other]);
        let [here, there] = ends;
        for ((end, allocation), (other, other_allocation)) in [(here, there), (there, here)] {
            if let Some(allocation) = self.allocations.get_mut(&allocation) {
                allocation.channels.insert(id);
            }
            let unused = End {
                allocation,
                other,
                other_allocation,
                used: now,
            };
            self.ends.insert(end, unused);
        }
        true
    }

    /// Closes a channel. Fine if it is closed already.
    pub(super) fn close(&mut self, id: ChannelId) {
        for end in self.channels.remove(&id).into_iter().flatten() {
            if let Some(end) = self.ends.remove(&end)
                && let Some(allocation) = self.allocations.get_mut(&end.allocation)
            {
                allocation.channels.remove(&id);
            }
        }
    }

    /// Takes a datagram that is no packet; `None` if it has no answer.
    pub(super) fn answer(
        &mut self,
        datagram: &ChannelDatagram<'_>,
        place: Place,
        now: Instant,
    ) -> Option<Vec<u8>> {
        let answer = match datagram {
            ChannelDatagram::Bind(id) => self.challenge(*id, place.source, now)?,
            ChannelDatagram::Proof(id, cookie) => self.bind(*id, *cookie, place, now)?,
            ChannelDatagram::Packet { .. }
            | ChannelDatagram::Challenge(..)
            | ChannelDatagram::Bound(_) => return None,
        };
        Some(answer.to_bytes())
    }

    /// Where packets go that an end sends from `source`, if they go anywhere once they are paid for.
    pub(super) fn route(&mut self, end: EndId, source: SocketAddr, now: Instant) -> Option<Route> {
        let sender = self.ends.get_mut(&end)?;
        let allocation = self.allocations.get(&sender.allocation)?;
        if allocation.bound?.source != source {
            return None;
        }
        let to = self.allocations.get(&sender.other_allocation)?.bound?;
        sender.used = now;
        Some(Route {
            payer: allocation.payer,
            other: sender.other,
            to,
        })
    }

    /// Tells whether so many bytes may go now, and counts them.
    pub(super) fn pay(&mut self, payer: PayerId, bytes: usize, now: Instant) -> bool {
        self.traffic.pay(payer, bytes, now)
    }

    /// When whoever pays may send so many bytes.
    pub(super) fn ready_for(&self, payer: PayerId, bytes: usize, now: Instant) -> Instant {
        self.traffic.ready_for(payer, bytes, now)
    }

    fn challenge(
        &self,
        id: AllocationId,
        source: SocketAddr,
        now: Instant,
    ) -> Option<ChannelDatagram<'static>> {
        self.allocations.get(&id)?;
        let cookie = self.cookie(id, source, self.period(now));
        Some(ChannelDatagram::Challenge(id, cookie))
    }

    fn bind(
        &mut self,
        id: AllocationId,
        cookie: Cookie,
        place: Place,
        now: Instant,
    ) -> Option<ChannelDatagram<'static>> {
        let period = self.period(now);
        let mut periods = [Some(period), period.checked_sub(1)].into_iter().flatten();
        if !periods.any(|period| self.cookie(id, place.source, period).is(cookie)) {
            return None;
        }
        self.allocations.get_mut(&id)?.bound = Some(place);
        Some(ChannelDatagram::Bound(id))
    }

    /// What only whoever receives at `source` can return for an allocation.
    fn cookie(&self, id: AllocationId, source: SocketAddr, period: u64) -> Cookie {
        let mut hasher = blake3::Hasher::new_keyed(&self.key);
        hasher.update(id.as_bytes());
        hasher.update(&period.to_le_bytes());
        hasher.update(source.to_string().as_bytes());
        let mut cookie = [0; Cookie::LEN];
        hasher.finalize_xof().fill(&mut cookie);
        Cookie(cookie)
    }

    fn period(&self, now: Instant) -> u64 {
        let elapsed = now.saturating_duration_since(self.start);
        elapsed.as_secs() / RELAY_COOKIE_LIFETIME.as_secs()
    }

    /// Closes channels that nobody has used for [`RELAY_CHANNEL_IDLE_TIMEOUT`].
    pub(super) fn handle_timeout(&mut self, now: Instant) {
        if now < self.sweep_at {
            return;
        }
        self.sweep_at = now + SWEEP_INTERVAL;
        let is_idle = |end: &End| now >= end.used + RELAY_CHANNEL_IDLE_TIMEOUT;
        let idle = self.channels.iter().filter(|(_, ends)| {
            let mut ends = ends.iter().filter_map(|end| self.ends.get(end));
            ends.all(is_idle)
        });
        let idle: Vec<ChannelId> = idle.map(|(id, _)| *id).collect();
        for id in idle {
            self.close(id);
            self.closed.push(id);
        }
    }

    /// When [`Channels::handle_timeout`] is due, if ever.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        (!self.channels.is_empty()).then_some(self.sweep_at)
    }

    /// The next channel that was closed because nobody used it.
    pub(super) fn poll_closed(&mut self) -> Option<ChannelId> {
        self.closed.pop()
    }

    /// How full it is.
    pub(super) fn occupancies(&self) -> [Occupancy; 2] {
        let (allocations, channels) = (self.allocations.len(), self.channels.len());
        [
            Occupancy::new("relay allocations", allocations, RELAY_ALLOCATIONS_MAX),
            Occupancy::new("relay channels", channels, RELAY_CHANNELS_MAX),
        ]
    }
}
