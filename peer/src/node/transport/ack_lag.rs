//! Tracks what the other side has acknowledged, and how far its acknowledgements lag behind.
//!
//! The QUIC implementation keeps state for every packet since the oldest one that may still be
//! acknowledged. A peer that keeps sending but never acknowledges anything would make that state grow
//! without bound. [`AckLagController`] wraps the congestion controller, which is told of packets sent and
//! acknowledged, and counts them.

use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use noq_proto::RttEstimator;
use noq_proto::congestion::{Controller, ControllerFactory, ControllerMetrics, CubicConfig};

/// Creates the congestion controller of one connection, and shares its counts.
#[derive(Clone, Debug, Default)]
pub(super) struct AckLag {
    counts: Arc<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    /// Number of the latest packet sent.
    sent: AtomicU64,
    /// Largest packet number acknowledged.
    acknowledged: AtomicU64,
    /// Bytes of all packets that were acknowledged.
    acknowledged_bytes: AtomicU64,
}

impl AckLag {
    /// Number of packets sent since the latest acknowledged one.
    pub(super) fn unacknowledged(&self) -> u64 {
        let sent = self.counts.sent.load(Ordering::Relaxed);
        sent.saturating_sub(self.counts.acknowledged.load(Ordering::Relaxed))
    }

    /// Bytes of all packets that were acknowledged.
    pub(super) fn acknowledged_bytes(&self) -> u64 {
        self.counts.acknowledged_bytes.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
impl AckLag {
    /// Number of the latest packet sent.
    pub(super) fn sent(&self) -> u64 {
        self.counts.sent.load(Ordering::Relaxed)
    }
}

impl ControllerFactory for AckLag {
    fn build(self: Arc<Self>, now: Instant, current_mtu: u16) -> Box<dyn Controller> {
        Box::new(AckLagController {
            counts: Arc::clone(&self.counts),
            inner: Arc::new(CubicConfig::default()).build(now, current_mtu),
        })
    }
}

/// Delegates everything to the inner controller.
#[derive(Debug)]
struct AckLagController {
    counts: Arc<Counts>,
    inner: Box<dyn Controller>,
}

impl Controller for AckLagController {
    fn on_sent(&mut self, now: Instant, bytes: u64, largest_pn: u64) {
        self.counts.sent.store(largest_pn, Ordering::Relaxed);
        self.inner.on_sent(now, bytes, largest_pn);
    }

    fn on_packet_sent(&mut self, now: Instant, bytes: u16, pn: u64) {
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
        self.counts
            .acknowledged_bytes
            .fetch_add(bytes, Ordering::Relaxed);
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
            self.counts.acknowledged.store(largest, Ordering::Relaxed);
        }
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

    fn metrics(&self) -> ControllerMetrics {
        self.inner.metrics()
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(Self {
            counts: Arc::clone(&self.counts),
            inner: self.inner.clone_box(),
        })
    }

    fn initial_window(&self) -> u64 {
        self.inner.initial_window()
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self.inner.into_any()
    }
}
