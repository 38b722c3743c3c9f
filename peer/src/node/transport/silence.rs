//! Notices links that acknowledge nothing: the other device may have restarted or moved.
//!
//! A link is silent once data or a ping has been in flight for a while and nothing was acknowledged.
//! Nothing else follows from it: an outage looks the same, and a link outlives that. Whoever owns the
//! transport dials the device anew. When that has made a newer link, the older one is
//! [doubted](Transport::doubt): it is told of once more if it stays silent.

use std::time::{Duration, Instant};

use common::limits::{LINK_ACK_ROUND_TRIPS, LINK_ACK_TIMEOUT};

use super::ack_lag::{AckLag, Paths};
use super::{LinkId, Transport, TransportEvent};

/// Waits for an acknowledgement of what is in flight.
///
/// What is in flight is known roughly only: QUIC tells nobody of a packet that it loses while it looks for the
/// MTU of a path. So half-way through there is a ping, which a link that lives acknowledges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct AckWatch {
    /// Bytes acknowledged so far.
    acknowledged: u64,
    ping_at: Option<Instant>,
    deadline: Instant,
}

/// What follows from a wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Overdue {
    /// It goes on.
    No,
    /// It is time for a ping.
    Ping,
    /// It is over.
    Yes,
}

impl AckWatch {
    /// Goes on as before, or begins anew if more was acknowledged since.
    pub(super) fn of(
        before: Option<Self>,
        acknowledged: u64,
        patience: Duration,
        now: Instant,
    ) -> Self {
        let is_same = |watch: &Self| watch.acknowledged == acknowledged;
        before.filter(is_same).unwrap_or(Self {
            acknowledged,
            ping_at: Some(now + patience / 2),
            deadline: now + patience,
        })
    }

    /// Waits no longer than for `patience` from now. The ping is sent now.
    pub(super) fn hurry(&mut self, patience: Duration, now: Instant) {
        self.ping_at = None;
        self.deadline = self.deadline.min(now + patience);
    }

    /// When [`AckWatch::handle_timeout`] is due.
    pub(super) fn poll_timeout(&self) -> Instant {
        self.ping_at.unwrap_or(self.deadline)
    }

    /// Asks for a ping once, and then says that the wait is over.
    pub(super) fn handle_timeout(&mut self, now: Instant) -> Overdue {
        if self.deadline <= now {
            Overdue::Yes
        } else if self.ping_at.take_if(|at| *at <= now).is_some() {
            Overdue::Ping
        } else {
            Overdue::No
        }
    }
}

/// Whether a link acknowledges what is sent.
#[derive(Debug, Default)]
pub(super) struct Silence {
    watch: Option<AckWatch>,
    /// Bytes acknowledged when the link was found silent.
    since: Option<u64>,
    /// Bytes acknowledged when the link was doubted.
    doubted: Option<u64>,
}

/// What follows for a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Nothing,
    /// It is to be pinged.
    Ping,
    /// It is silent from now on, or still is though it was doubted.
    Silent,
}

impl Silence {
    /// Tells whether nothing was acknowledged lately of what is in flight.
    fn is_silent(&self, ack_lag: &AckLag) -> bool {
        self.since == Some(ack_lag.acknowledged_bytes())
    }

    /// Watches what is in flight. Called once a link has nothing more to send.
    pub(super) fn settle(&mut self, ack_lag: &AckLag, round_trip: Duration, now: Instant) {
        let in_flight = ack_lag.in_flight(Paths::First) + ack_lag.in_flight(Paths::Others);
        let acknowledged = ack_lag.acknowledged_bytes();
        let patience = LINK_ACK_TIMEOUT.max(LINK_ACK_ROUND_TRIPS * round_trip);
        let watch = AckWatch::of(self.watch.take(), acknowledged, patience, now);
        self.watch = (in_flight > 0).then_some(watch);
    }

    /// When [`Transport::watch`] is due.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.watch.as_ref().map(AckWatch::poll_timeout)
    }

    fn handle_timeout(&mut self, ack_lag: &AckLag, now: Instant) -> Verdict {
        let Some(watch) = &mut self.watch else {
            return Verdict::Nothing;
        };
        let acknowledged = Some(watch.acknowledged);
        if acknowledged != Some(ack_lag.acknowledged_bytes()) {
            return Verdict::Nothing;
        }
        match watch.handle_timeout(now) {
            Overdue::No => return Verdict::Nothing,
            Overdue::Ping => return Verdict::Ping,
            Overdue::Yes => self.watch = None,
        }
        let is_doubted = self.doubted.take() == acknowledged;
        let was_silent = std::mem::replace(&mut self.since, acknowledged) == acknowledged;
        if is_doubted || !was_silent {
            Verdict::Silent
        } else {
            Verdict::Nothing
        }
    }
}

impl Transport {
    /// Tells whether a link has not acknowledged for a while what is in flight.
    pub fn is_silent(&self, link: LinkId) -> bool {
        let link = self.links.get(&link);
        link.is_some_and(|link| link.silence.is_silent(&link.ack_lag))
    }

    /// Pings the other end of a link, which has to acknowledge that.
    pub fn ping(&mut self, link: LinkId) {
        self.with(link, |link| link.connection.ping());
    }

    /// Pings the other end of a link, and tells of it again unless it acknowledges that.
    pub fn doubt(&mut self, link: LinkId) {
        self.ping(link);
        self.with(link, |link| {
            link.silence.watch = None;
            link.silence.doubted = Some(link.ack_lag.acknowledged_bytes());
        });
    }

    /// Pings a link that has acknowledged nothing for a while, and tells of it when it is silent.
    pub(super) fn watch(&mut self, id: LinkId, now: Instant) {
        let Some(link) = self.links.get_mut(&id) else {
            return;
        };
        match link.silence.handle_timeout(&link.ack_lag, now) {
            Verdict::Nothing => {}
            Verdict::Ping => self.ping(id),
            Verdict::Silent => self.events.push_back(TransportEvent::Silent { link: id }),
        }
    }
}
