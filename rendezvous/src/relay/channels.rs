//! Relay channels: who may send to whom through the server, and from and to which address.
//!
//! An end of a channel is *bound* to an address once its peer has shown that it receives there: it has
//! returned a challenge, which the server computes anew rather than keep. A peer that moves binds its end
//! again. What comes from elsewhere, or for an end that is not bound, is dropped.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use common::id::AccountName;
use common::limits::{
    Occupancy, RELAY_CHANNEL_IDLE_TIMEOUT, RELAY_CHANNELS_MAX, RELAY_COOKIE_LIFETIME,
};
use common::wire::channel::{ChannelBody, ChannelDatagram, Cookie, EndId};

use super::traffic::{Traffic, TrafficLimits};

/// How often it is looked for channels that nobody uses.
const SWEEP_INTERVAL: Duration = Duration::from_secs(15);

/// Identifies a channel. Chosen by whoever opens it, and not used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChannelId(pub u64);

/// A channel to be opened.
#[derive(Clone, Debug)]
pub struct Channel {
    /// Its id.
    pub id: ChannelId,
    /// Its two ends, and the account that pays for what each sends. The ids are random.
    pub ends: [(EndId, AccountName); 2],
}

/// All channels of a server.
#[derive(Debug)]
pub(super) struct Channels {
    key: [u8; 32],
    start: Instant,
    channels: BTreeMap<ChannelId, [EndId; 2]>,
    ends: BTreeMap<EndId, End>,
    traffic: Traffic,
    sweep_at: Instant,
    /// Channels that were closed because nobody used them.
    closed: Vec<ChannelId>,
}

/// Where an end is bound to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    /// The address of its peer.
    pub(super) source: SocketAddr,
    /// The address of this host that its peer sends to, where that is known.
    pub(super) local: Option<IpAddr>,
}

#[derive(Debug)]
struct End {
    other: EndId,
    account: AccountName,
    bound: Option<Place>,
    /// When something went from it to the other end, or the channel was opened.
    used: Instant,
}

impl Channels {
    /// None are open. `key` is random.
    pub(super) fn new(key: [u8; 32], limits: TrafficLimits, now: Instant) -> Self {
        Self {
            key,
            start: now,
            channels: BTreeMap::new(),
            ends: BTreeMap::new(),
            traffic: Traffic::new(limits, now),
            sweep_at: now + SWEEP_INTERVAL,
            closed: Vec::new(),
        }
    }

    /// Opens a channel; `false` if there are as many as there may be, or one of its ids is taken.
    pub(super) fn open(&mut self, channel: Channel, now: Instant) -> bool {
        let Channel { id, ends } = channel;
        let [one, other] = [ends[0].0, ends[1].0];
        let is_new = one != other
            && !self.channels.contains_key(&id)
            && !self.ends.contains_key(&one)
            && !self.ends.contains_key(&other);
        if !is_new || self.channels.len() >= RELAY_CHANNELS_MAX {
            return false;
        }
        self.channels.insert(id, [one, other]);
        for ((end, account), other) in ends.into_iter().zip([other, one]) {
            self.traffic.add_end(&account, now);
            let unbound = End {
                other,
                account,
                bound: None,
                used: now,
            };
            self.ends.insert(end, unbound);
        }
        true
    }

    /// Closes a channel. Fine if it is closed already.
    pub(super) fn close(&mut self, id: ChannelId) {
        for end in self.channels.remove(&id).into_iter().flatten() {
            if let Some(end) = self.ends.remove(&end) {
                self.traffic.remove_end(&end.account);
            }
        }
    }

    /// Takes a datagram that is no packet; `None` if it has no answer.
    pub(super) fn answer(
        &mut self,
        end: EndId,
        body: &ChannelBody<'_>,
        place: Place,
        now: Instant,
    ) -> Option<Vec<u8>> {
        let body = match body {
            ChannelBody::Bind => self.challenge(end, place.source, now)?,
            ChannelBody::Proof(cookie) => self.bind(end, *cookie, place, now)?,
            ChannelBody::Data(_) | ChannelBody::Challenge(_) | ChannelBody::Bound => return None,
        };
        Some(ChannelDatagram { end, body }.to_bytes())
    }

    /// Where a run of packets goes that an end sends from `source`, and under which id, if it goes anywhere.
    pub(super) fn forward(
        &mut self,
        end: EndId,
        source: SocketAddr,
        bytes: usize,
        now: Instant,
    ) -> Option<(EndId, Place)> {
        let sender = self.ends.get(&end)?;
        let other = sender.other;
        if sender.bound?.source != source {
            return None;
        }
        let to = self.ends.get(&other)?.bound?;
        let sender = self.ends.get_mut(&end)?;
        sender.used = now;
        let is_paid = self.traffic.pay(&sender.account, bytes, now);
        is_paid.then_some((other, to))
    }

    fn challenge(
        &self,
        end: EndId,
        source: SocketAddr,
        now: Instant,
    ) -> Option<ChannelBody<'static>> {
        self.ends.get(&end)?;
        let cookie = self.cookie(end, source, self.period(now));
        Some(ChannelBody::Challenge(cookie))
    }

    fn bind(
        &mut self,
        end: EndId,
        cookie: Cookie,
        place: Place,
        now: Instant,
    ) -> Option<ChannelBody<'static>> {
        let period = self.period(now);
        let mut periods = [Some(period), period.checked_sub(1)].into_iter().flatten();
        if !periods.any(|period| self.cookie(end, place.source, period).is(cookie)) {
            return None;
        }
        self.ends.get_mut(&end)?.bound = Some(place);
        Some(ChannelBody::Bound)
    }

    /// What only whoever receives at `source` can return for an end.
    fn cookie(&self, end: EndId, source: SocketAddr, period: u64) -> Cookie {
        let mut hasher = blake3::Hasher::new_keyed(&self.key);
        hasher.update(end.as_bytes());
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
    pub(super) fn occupancy(&self) -> Occupancy {
        Occupancy::new("relay channels", self.channels.len(), RELAY_CHANNELS_MAX)
    }
}
