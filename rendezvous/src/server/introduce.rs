//! Introductions: everything that `Request::Introduction` asks.
//!
//! `Introductions` owns which devices have allocations at the relay, which pairs of devices have a channel
//! there, and who was introduced to whom just before. Where allocations are bound and what channels carry is
//! up to [`crate::relay::Relay`], which says when a channel was closed because nobody used it. Who is logged
//! in, and with which addresses, is read from `devices` and the directory.
//!
//! A pair is told its parts by whoever asks first: that one dials. If the other asks before the dial can be
//! over, it gets the same introduction, and not another one.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::time::Instant;

use common::id::AccountName;
use common::key::DeviceKey;
use common::limits::{
    INTRODUCED_BURST_MAX, INTRODUCED_PER_SECOND_MAX, INTRODUCTION_LIFETIME,
    INTRODUCTIONS_BURST_MAX, INTRODUCTIONS_PER_SECOND_MAX, Occupancy, RECENT_INTRODUCTIONS_MAX,
    RELAY_ALLOCATIONS_MAX, RELAY_CHANNELS_MAX, RELAY_CHANNELS_PER_DEVICE_MAX,
};
use common::wire::channel::{AllocationId, EndId};
use common::wire::rendezvous::{
    Entry, Introduction, IntroductionAnswer, IntroductionPush, IntroductionRequest, Refusal, Role,
    Status,
};

use super::context::{Context, ReplyTo};
use super::devices::Devices;
use super::io::{ConnectionId, Deadline, RelayCommand};
use super::member::Member;
use super::presence::directory::Directory;
use crate::relay::{Channel, ChannelId};
use crate::token_bucket::{Rate, SharedBuckets};

/// Limits the devices that one device is introduced to.
const ASKED: Rate = Rate::per_second(INTRODUCTIONS_PER_SECOND_MAX, INTRODUCTIONS_BURST_MAX);
/// Limits the introductions to one device that others ask for.
const INTRODUCED: Rate = Rate::per_second(INTRODUCED_PER_SECOND_MAX, INTRODUCED_BURST_MAX);

/// Two devices, the lower key first.
type Pair = (DeviceKey, DeviceKey);

/// Allocations, channels, and introductions of late.
pub(super) struct Introductions {
    /// `None` if the server relays nothing.
    relay_rate: Option<u32>,
    allocations: BTreeMap<DeviceKey, Allocation>,
    channels: BTreeMap<Pair, OpenChannel>,
    pairs: BTreeMap<ChannelId, Pair>,
    last_channel: u64,
    recent: BTreeMap<Pair, Recent>,
    /// Each recent introduction, the oldest first.
    by_age: VecDeque<(Instant, Pair)>,
    asked: SharedBuckets,
    introduced: SharedBuckets,
}

/// The allocation of a device.
#[derive(Debug)]
struct Allocation {
    id: AllocationId,
    /// Pays for what is sent from it.
    account: AccountName,
    /// Its device is logged in, so it is kept without channels.
    has_session: bool,
    channels: usize,
}

#[derive(Debug)]
struct OpenChannel {
    id: ChannelId,
    /// In the order of the pair.
    ends: [EndId; 2],
}

#[derive(Debug)]
struct Recent {
    /// Asked first, and dials.
    client: DeviceKey,
    at: Instant,
    /// The sessions that were told, that of the client first.
    told: [ConnectionId; 2],
}

impl Introductions {
    /// Nobody was introduced. `keys` are random; without a `relay_rate` nobody gets an allocation.
    pub(super) fn new(relay_rate: Option<u32>, keys: [[u8; 32]; 2], now: Instant) -> Self {
        let [asked, introduced] = keys.map(|key| SharedBuckets::new(key, now));
        Self {
            relay_rate,
            allocations: BTreeMap::new(),
            channels: BTreeMap::new(),
            pairs: BTreeMap::new(),
            last_channel: 0,
            recent: BTreeMap::new(),
            by_age: VecDeque::new(),
            asked,
            introduced,
        }
    }

    /// Answers a request of a device that is logged in.
    pub(super) fn on_request(
        &mut self,
        to: ReplyTo,
        request: IntroductionRequest,
        (devices, directory): (&Devices, &Directory),
        context: &mut Context,
    ) {
        let member = devices.member(to.connection);
        match request {
            IntroductionRequest::Allocate => match self.allocate(member, context) {
                Ok(allocated) => context.answer(to, allocated),
                Err(refusal) => context.refuse(to, refusal),
            },
            IntroductionRequest::Introduce { account } => {
                let mut others = directory.find(&account);
                others.retain(|entry| entry.device_key != member.device_key);
                if !self.may_introduce(&member.device_key, &others, context.now) {
                    return context.refuse_busy(to);
                }
                let cursor = member.cursor();
                let own = directory.entry(&cursor).cloned();
                let own = own.unwrap_or_else(|| member.entry(Status::Available, Vec::new()));
                let others = others.into_iter().filter_map(|other| {
                    let connection = devices.connection_of(&other.device_key)?;
                    Some((other, connection))
                });
                let own = (own, to.connection);
                let introductions = others
                    .map(|other| self.introduce(&own, other, context))
                    .collect();
                context.answer(to, IntroductionAnswer::Introduced { introductions });
            }
        }
    }

    /// Tells whether there is a relay.
    pub(super) const fn has_relay(&self) -> bool {
        self.relay_rate.is_some()
    }

    /// An account is removed, with all its devices.
    pub(super) fn on_account_removed(&mut self, account: &AccountName, context: &mut Context) {
        let allocations = self.allocations.iter();
        let its = allocations.filter(|(_, allocation)| allocation.account == *account);
        let its: Vec<DeviceKey> = its.map(|(device_key, _)| *device_key).collect();
        for device_key in its {
            self.on_unenrolled(&device_key, context);
        }
    }

    /// A device is enrolled no longer: its links through the relay end, too.
    pub(super) fn on_unenrolled(&mut self, device_key: &DeviceKey, context: &mut Context) {
        let Some(allocation) = self.allocations.remove(device_key) else {
            return;
        };
        let is_its = |pair: &Pair| pair.0 == *device_key || pair.1 == *device_key;
        let channels = self.channels.iter().filter(|(pair, _)| is_its(pair));
        let channels: Vec<ChannelId> = channels.map(|(_, channel)| channel.id).collect();
        for channel in channels {
            self.on_channel_closed(channel, context);
        }
        context.relay(RelayCommand::Free(allocation.id));
    }

    /// The session of a device is over. Its channels are left to its links, which may outlive it.
    pub(super) fn on_logged_out(&mut self, device_key: &DeviceKey, context: &mut Context) {
        if let Some(allocation) = self.allocations.get_mut(device_key) {
            allocation.has_session = false;
            self.free_if_unused(device_key, context);
        }
    }

    /// The relay has closed a channel, or has not opened it.
    pub(super) fn on_channel_closed(&mut self, id: ChannelId, context: &mut Context) {
        let Some(pair) = self.pairs.remove(&id) else {
            return;
        };
        self.channels.remove(&pair);
        for device in [&pair.0, &pair.1] {
            if let Some(allocation) = self.allocations.get_mut(device) {
                allocation.channels -= 1;
                self.free_if_unused(device, context);
            }
        }
    }

    /// Forgets introductions that are over.
    pub(super) fn handle_timeout(&mut self, now: Instant) {
        while let Some((at, pair)) = self.by_age.front().copied()
            && now >= at + INTRODUCTION_LIFETIME
        {
            self.by_age.pop_front();
            if self.recent.get(&pair).is_some_and(|recent| recent.at == at) {
                self.recent.remove(&pair);
            }
        }
    }

    /// When [`Introductions::handle_timeout`] is due.
    pub(super) fn poll_timeout(&self) -> Option<Deadline> {
        let (at, _) = *self.by_age.front()?;
        Some(Deadline {
            at: at + INTRODUCTION_LIFETIME,
            why: "introductions",
        })
    }

    /// The occupancy of each bounded resource.
    pub(super) fn occupancies(&self) -> [Occupancy; 4] {
        let allocations = self.allocations.values();
        let of_devices = allocations.map(|allocation| allocation.channels);
        [
            Occupancy::new("allocations", self.allocations.len(), RELAY_ALLOCATIONS_MAX),
            Occupancy::new("channels", self.channels.len(), RELAY_CHANNELS_MAX),
            Occupancy::fullest(
                "channels of a device",
                of_devices,
                RELAY_CHANNELS_PER_DEVICE_MAX,
            ),
            Occupancy::new(
                "recent introductions",
                self.by_age.len(),
                RECENT_INTRODUCTIONS_MAX,
            ),
        ]
    }

    fn allocate(
        &mut self,
        member: &Member,
        context: &mut Context,
    ) -> Result<IntroductionAnswer, Refusal> {
        let rate = self.relay_rate.ok_or(Refusal::RelayOff)?;
        if let Some(allocation) = self.allocations.get_mut(&member.device_key) {
            if allocation.account == member.account {
                allocation.has_session = true;
                let allocation = allocation.id;
                return Ok(IntroductionAnswer::Allocated { allocation, rate });
            }
            self.on_unenrolled(&member.device_key, context);
        }
        if self.allocations.len() >= RELAY_ALLOCATIONS_MAX {
            return Err(Refusal::LimitExceeded);
        }
        let allocation = AllocationId::from_bytes(context.random());
        let entry = Allocation {
            id: allocation,
            account: member.account.clone(),
            has_session: true,
            channels: 0,
        };
        self.allocations.insert(member.device_key, entry);
        let account = member.account.clone();
        context.relay(RelayCommand::Allocate(allocation, account));
        Ok(IntroductionAnswer::Allocated { allocation, rate })
    }

    /// Takes the tokens for introductions of a device to `others`, if there are enough for all of them. An
    /// answer without introductions costs one, too.
    fn may_introduce(&mut self, asker: &DeviceKey, others: &[Entry], now: Instant) -> bool {
        let count = u32::try_from(others.len().max(1)).unwrap_or(u32::MAX);
        let has_room = self.by_age.len() + others.len() <= RECENT_INTRODUCTIONS_MAX;
        let bucket = self.asked.of(asker.as_bytes());
        has_room
            && bucket.take(count, ASKED, now)
            && others.iter().all(|other| {
                let bucket = self.introduced.of(other.device_key.as_bytes());
                bucket.take(1, INTRODUCED, now)
            })
    }

    /// Introduces two devices to each other, unless they have been; returns what the asker is told.
    fn introduce(
        &mut self,
        (own, asker): &(Entry, ConnectionId),
        (other, asked): (Entry, ConnectionId),
        context: &mut Context,
    ) -> Introduction {
        let pair = pair_of(own.device_key, other.device_key);
        let ends = self.channel(pair, context);
        let end_of = |device: DeviceKey| ends.map(|ends| ends[usize::from(device == pair.1)]);
        let recent = self.recent.get(&pair);
        let recent = recent.filter(|recent| recent.holds([*asker, asked], context.now));
        let client = match recent {
            Some(recent) => recent.client,
            None => {
                let introduced = IntroductionPush::Introduced(Introduction {
                    entry: own.clone(),
                    end: end_of(other.device_key),
                    role: Role::Server,
                });
                context.push(asked, introduced);
                let recent = Recent {
                    client: own.device_key,
                    at: context.now,
                    told: [*asker, asked],
                };
                self.recent.insert(pair, recent);
                self.by_age.push_back((context.now, pair));
                own.device_key
            }
        };
        let role = if client == own.device_key {
            Role::Client
        } else {
            Role::Server
        };
        let end = end_of(own.device_key);
        let entry = other;
        Introduction { entry, end, role }
    }

    /// The ends of the channel between two devices, which is opened if there is none; `None` if one of them
    /// has no allocation, or there are as many channels as there may be.
    fn channel(&mut self, pair: Pair, context: &mut Context) -> Option<[EndId; 2]> {
        if let Some(channel) = self.channels.get(&pair) {
            return Some(channel.ends);
        }
        let allocation = |device: &DeviceKey| {
            let allocation = self.allocations.get(device)?;
            (allocation.channels < RELAY_CHANNELS_PER_DEVICE_MAX).then_some(allocation.id)
        };
        let allocations = [allocation(&pair.0)?, allocation(&pair.1)?];
        if self.channels.len() >= RELAY_CHANNELS_MAX {
            return None;
        }
        let ends = [(); 2].map(|()| EndId::from_bytes(context.random()));
        self.last_channel += 1;
        let id = ChannelId(self.last_channel);
        for device in [&pair.0, &pair.1] {
            if let Some(allocation) = self.allocations.get_mut(device) {
                allocation.channels += 1;
            }
        }
        self.channels.insert(pair, OpenChannel { id, ends });
        self.pairs.insert(id, pair);
        let joined = [0, 1].map(|side| (ends[side], allocations[side]));
        context.relay(RelayCommand::Open(Channel { id, ends: joined }));
        Some(ends)
    }

    fn free_if_unused(&mut self, device: &DeviceKey, context: &mut Context) {
        let is_unused =
            |allocation: &Allocation| !allocation.has_session && allocation.channels == 0;
        if self.allocations.get(device).is_some_and(is_unused)
            && let Some(allocation) = self.allocations.remove(device)
        {
            context.relay(RelayCommand::Free(allocation.id));
        }
    }
}

impl Recent {
    /// Tells whether it still holds for these two sessions: it was told to both, just before.
    fn holds(&self, sessions: [ConnectionId; 2], now: Instant) -> bool {
        let [one, other] = sessions;
        let is_told = self.told == [one, other] || self.told == [other, one];
        is_told && now < self.at + INTRODUCTION_LIFETIME
    }
}

impl fmt::Debug for Introductions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Introductions")
            .field("allocations", &self.allocations.len())
            .field("channels", &self.channels.len())
            .finish_non_exhaustive()
    }
}

fn pair_of(one: DeviceKey, other: DeviceKey) -> Pair {
    (one.min(other), one.max(other))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "any instant will do as a start")]
    fn t49_so_many_recent_introductions_are_remembered_and_no_more() {
        let now = Instant::now();
        let mut introductions = Introductions::new(Some(1), [[1; 32], [2; 32]], now);
        let key = |byte| common::key::DeviceSecret::from_seed([byte; 32]).public();
        let pair = pair_of(key(1), key(2));
        introductions.by_age = vec![(now, pair); RECENT_INTRODUCTIONS_MAX].into();
        let other = Entry {
            account: "bob".parse().unwrap(),
            device_name: common::id::DeviceName::lossy("laptop"),
            device_key: key(2),
            status: Status::Available,
            since: common::time::UnixTime::from_millis(1),
            candidates: Vec::new(),
        };
        let others = [other];
        assert!(!introductions.may_introduce(&key(1), &others, now));
        assert!(introductions.may_introduce(&key(1), &[], now));
        let later = now + INTRODUCTION_LIFETIME;
        introductions.handle_timeout(later);
        assert!(introductions.may_introduce(&key(1), &others, later));
        assert!(introductions.poll_timeout().is_none());
    }
}
