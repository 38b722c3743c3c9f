//! Tracks what the other side has acknowledged, and how far its acknowledgements lag behind.
//!
//! The QUIC implementation keeps state for every packet since the oldest one that may still be
//! acknowledged. A peer that keeps sending but never acknowledges anything would make that state grow
//! without bound. [`AckLagController`] wraps the congestion controller, which is told of packets sent and
//! acknowledged, and counts them.
//!
//! Each path of a link has a controller and packet numbers of its own, so each controller counts for its
//! path and adds to the sums of the link. What it added goes when the path does. A controller is not told
//! which path it has, but QUIC tells which controller a path has ([`PathBytes::of`]), and the first one is that
//! of the first path, which the handshake took.

use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use noq_proto::congestion::{Controller, ControllerFactory, ControllerMetrics, CubicConfig};
use noq_proto::{Connection, PathId, RttEstimator};

/// How fast the first window of a path leaves: within a millisecond, so that it is as good as a burst.
const UNTRIED_WINDOWS_PER_SECOND: u64 = 1000;

/// Creates the congestion controllers of one connection, and shares their counts.
#[derive(Clone, Debug, Default)]
pub(super) struct AckLag {
    counts: Arc<Counts>,
}

/// Sums over the paths of a connection.
#[derive(Debug, Default)]
struct Counts {
    /// Packets sent since the latest acknowledged one.
    unacknowledged: AtomicU64,
    /// Of the first path.
    first: Bytes,
    /// Of all other paths together.
    others: Bytes,
    /// Paths so far.
    paths: AtomicU64,
    /// Number of the latest packet sent, on whichever path.
    #[cfg(test)]
    sent: AtomicU64,
}

/// Bytes of packets that are to be acknowledged.
#[derive(Debug, Default)]
struct Bytes {
    /// Those that are neither acknowledged nor lost.
    in_flight: AtomicU64,
    /// All that were acknowledged.
    acknowledged: AtomicU64,
}

/// What one path has in flight, and what of it was acknowledged.
#[derive(Clone, Debug)]
pub(super) struct PathBytes(Arc<Bytes>);

impl PathBytes {
    /// Those of a path of a connection; `None` if there is no such path. It costs a copy of the path's congestion
    /// controller: not for every packet.
    pub(super) fn of(path: PathId, connection: &Connection) -> Option<Self> {
        let controller = connection.congestion_state(path)?.clone_box().into_any();
        let controller = controller.downcast::<AckLagController>().ok()?;
        Some(Self(Arc::clone(&controller.path.own)))
    }

    /// Bytes that are to be acknowledged and are neither that nor lost.
    pub(super) fn in_flight(&self) -> u64 {
        self.0.in_flight.load(Ordering::Relaxed)
    }

    /// Bytes that were acknowledged.
    pub(super) fn acknowledged(&self) -> u64 {
        self.0.acknowledged.load(Ordering::Relaxed)
    }
}

/// Some of the paths of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Paths {
    /// The path of the handshake.
    First,
    /// All others.
    Others,
}

impl AckLag {
    /// Number of packets sent since the latest acknowledged one.
    pub(super) fn unacknowledged(&self) -> u64 {
        self.counts.unacknowledged.load(Ordering::Relaxed)
    }

    /// Bytes of packets of these paths that are to be acknowledged and are neither that nor lost.
    pub(super) fn in_flight(&self, paths: Paths) -> u64 {
        self.counts.of(paths).in_flight.load(Ordering::Relaxed)
    }

    /// Bytes of all packets of these paths that were acknowledged.
    pub(super) fn acknowledged(&self, paths: Paths) -> u64 {
        self.counts.of(paths).acknowledged.load(Ordering::Relaxed)
    }

    /// Bytes of all packets that were acknowledged.
    pub(super) fn acknowledged_bytes(&self) -> u64 {
        self.acknowledged(Paths::First) + self.acknowledged(Paths::Others)
    }
}

impl Counts {
    const fn of(&self, paths: Paths) -> &Bytes {
        match paths {
            Paths::First => &self.first,
            Paths::Others => &self.others,
        }
    }
}

#[cfg(test)]
impl AckLag {
    /// Number of the latest packet sent, on whichever path.
    pub(super) fn sent(&self) -> u64 {
        self.counts.sent.load(Ordering::Relaxed)
    }
}

impl ControllerFactory for AckLag {
    fn build(self: Arc<Self>, now: Instant, current_mtu: u16) -> Box<dyn Controller> {
        Box::new(AckLagController {
            path: PathCounts::new(&self.counts),
            is_untried: true,
            inner: Arc::new(CubicConfig::default()).build(now, current_mtu),
        })
    }
}

/// What one path adds to the sums of its connection.
#[derive(Debug)]
struct PathCounts {
    sums: Arc<Counts>,
    place: Paths,
    own: Arc<Bytes>,
    /// Number of the latest packet sent.
    sent: u64,
    /// Largest packet number acknowledged.
    acknowledged: u64,
    in_flight: u64,
}

impl PathCounts {
    fn new(sums: &Arc<Counts>) -> Self {
        let place = match sums.paths.fetch_add(1, Ordering::Relaxed) {
            0 => Paths::First,
            _ => Paths::Others,
        };
        Self {
            sums: Arc::clone(sums),
            place,
            own: Arc::default(),
            sent: 0,
            acknowledged: 0,
            in_flight: 0,
        }
    }

    fn set_packets(&mut self, sent: u64, acknowledged: u64) {
        let before = self.unacknowledged();
        (self.sent, self.acknowledged) = (sent, acknowledged);
        replace(&self.sums.unacknowledged, before, self.unacknowledged());
    }

    fn set_in_flight(&mut self, bytes: u64) {
        let sum = &self.sums.of(self.place).in_flight;
        replace(sum, self.in_flight, bytes);
        replace(&self.own.in_flight, self.in_flight, bytes);
        self.in_flight = bytes;
    }

    fn add_acknowledged(&self, bytes: u64) {
        for all in [
            &self.sums.of(self.place).acknowledged,
            &self.own.acknowledged,
        ] {
            all.fetch_add(bytes, Ordering::Relaxed);
        }
    }

    const fn unacknowledged(&self) -> u64 {
        self.sent.saturating_sub(self.acknowledged)
    }
}

/// Replaces one of the terms of a sum.
fn replace(sum: &AtomicU64, before: u64, after: u64) {
    if after >= before {
        sum.fetch_add(after - before, Ordering::Relaxed);
    } else {
        sum.fetch_sub(before - after, Ordering::Relaxed);
    }
}

impl Clone for PathCounts {
    /// A path that migrated goes on with its packet numbers, but has nothing in flight.
    fn clone(&self) -> Self {
        let mut path = Self {
            sums: Arc::clone(&self.sums),
            place: self.place,
            own: Arc::clone(&self.own),
            sent: 0,
            acknowledged: 0,
            in_flight: 0,
        };
        path.set_packets(self.sent, self.acknowledged);
        path
    }
}

impl Drop for PathCounts {
    fn drop(&mut self) {
        self.set_packets(0, 0);
        self.set_in_flight(0);
    }
}

/// Delegates everything to the inner controller.
#[derive(Debug)]
struct AckLagController {
    path: PathCounts,
    /// Nothing was acknowledged so far: how long a round trip takes is a guess.
    is_untried: bool,
    inner: Box<dyn Controller>,
}

impl Controller for AckLagController {
    fn on_sent(&mut self, now: Instant, bytes: u64, largest_pn: u64) {
        self.path.set_packets(largest_pn, self.path.acknowledged);
        #[cfg(test)]
        self.path.sums.sent.store(largest_pn, Ordering::Relaxed);
        self.inner.on_sent(now, bytes, largest_pn);
    }

    fn on_packet_sent(&mut self, now: Instant, bytes: u16, pn: u64) {
        self.path
            .set_in_flight(self.path.in_flight + u64::from(bytes));
        self.inner.on_packet_sent(now, bytes, pn);
    }

    fn on_cwnd_limited(&mut self) {
        self.inner.on_cwnd_limited();
    }

    fn on_ack(
        &mut self,
        now: Instant,
        sent: Instant,
        bytes: u64,
        pn: u64,
        app_limited: bool,
        rtt: &RttEstimator,
    ) {
        self.path.add_acknowledged(bytes);
        self.is_untried = false;
        self.inner.on_ack(now, sent, bytes, pn, app_limited, rtt);
    }

    fn on_end_acks(
        &mut self,
        now: Instant,
        in_flight: u64,
        app_limited: bool,
        largest_packet_num_acked: Option<u64>,
    ) {
        if let Some(largest) = largest_packet_num_acked {
            self.path.set_packets(self.path.sent, largest);
        }
        self.path.set_in_flight(in_flight);
        self.inner
            .on_end_acks(now, in_flight, app_limited, largest_packet_num_acked);
    }

    fn on_congestion_event(
        &mut self,
        now: Instant,
        sent: Instant,
        is_persistent_congestion: bool,
        is_ecn: bool,
        lost_bytes: u64,
        largest_lost_pn: u64,
    ) {
        self.inner.on_congestion_event(
            now,
            sent,
            is_persistent_congestion,
            is_ecn,
            lost_bytes,
            largest_lost_pn,
        );
    }

    fn on_packet_lost(&mut self, lost_bytes: u16, pn: u64, now: Instant) {
        let in_flight = self.path.in_flight.saturating_sub(lost_bytes.into());
        self.path.set_in_flight(in_flight);
        self.inner.on_packet_lost(lost_bytes, pn, now);
    }

    fn on_spurious_congestion_event(&mut self) {
        self.inner.on_spurious_congestion_event();
    }

    fn on_mtu_update(&mut self, new_mtu: u16) {
        self.inner.on_mtu_update(new_mtu);
    }

    fn on_ack_frequency_update(
        &mut self,
        ack_eliciting_threshold: u64,
        requested_max_ack_delay: Duration,
    ) {
        self.inner
            .on_ack_frequency_update(ack_eliciting_threshold, requested_max_ack_delay);
    }

    fn window(&self) -> u64 {
        self.inner.window()
    }

    /// The initial window may leave in one burst (RFC 9002 section 7.7). At the rate that follows from the guessed
    /// round trip of 333 ms, the second datagram of a handshake would wait for 27 ms.
    fn metrics(&self) -> ControllerMetrics {
        let mut metrics = self.inner.metrics();
        if self.is_untried {
            metrics.pacing_rate = Some(metrics.congestion_window * UNTRIED_WINDOWS_PER_SECOND);
        }
        metrics
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(Self {
            path: self.path.clone(),
            is_untried: self.is_untried,
            inner: self.inner.clone_box(),
        })
    }

    fn initial_window(&self) -> u64 {
        self.inner.initial_window()
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[expect(clippy::disallowed_methods, reason = "any instant will do as a start")]
    fn path_of(link: &AckLag) -> (Box<dyn Controller>, Instant) {
        let now = Instant::now();
        (Arc::new(link.clone()).build(now, 1200), now)
    }

    #[test]
    fn the_packet_numbers_of_one_path_are_not_taken_for_those_of_another() {
        let link = AckLag::default();
        let (mut busy, now) = path_of(&link);
        let (mut new, _) = path_of(&link);
        busy.on_sent(now, 1200, 100_000);
        busy.on_end_acks(now, 0, false, Some(99_999));
        new.on_sent(now, 1200, 3);
        assert_eq!(link.unacknowledged(), 1 + 3);
        new.on_end_acks(now, 0, false, Some(3));
        assert_eq!(link.unacknowledged(), 1);
    }

    #[test]
    fn a_path_that_is_gone_counts_no_more() {
        let link = AckLag::default();
        let (mut path, now) = path_of(&link);
        path.on_sent(now, 2400, 7);
        path.on_packet_sent(now, 1200, 6);
        path.on_packet_sent(now, 1200, 7);
        let in_flight = || link.in_flight(Paths::First);
        assert_eq!((link.unacknowledged(), in_flight()), (7, 2400));
        path.on_packet_lost(1200, 6, now);
        assert_eq!(in_flight(), 1200);
        let migrated = path.clone_box();
        drop(path);
        assert_eq!((link.unacknowledged(), in_flight()), (7, 0));
        drop(migrated);
        assert_eq!(link.unacknowledged(), 0);
    }
}
