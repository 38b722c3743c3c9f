//! The simulated world.

use std::time::Duration;

use super::feed::Feed;
use crate::sim::generate::Fed;
use crate::sim::net::Faults;
use crate::sim::run_in;
use crate::sim::world::{World, WorldOptions};

/// Most steps of a run.
const STEPS_MAX: usize = 100;
/// Bytes of one step: four decisions of two bytes.
const STEP_LEN: usize = 8;

pub(super) fn world(bytes: &[u8]) {
    let mut feed = Feed(bytes);
    let options = options(&mut feed);
    let steps = feed.0.len().div_ceil(STEP_LEN).min(STEPS_MAX);
    let outcome = run_in(World::new(&options), &mut Fed(feed.0), steps as u32);
    if let Some(violation) = outcome.violation {
        panic!("{violation} in {:?}", outcome.coverage.elapsed);
    }
}

fn options(feed: &mut Feed<'_>) -> WorldOptions {
    let seed = feed.byte().into();
    let hosts = 2 + feed.below(2);
    let mut rate = |most: f64| f64::from(feed.byte()) / 255.0 * most;
    let faults = Faults {
        loss: rate(0.25),
        duplication: rate(0.2),
        reordering: rate(0.3),
        latency: Duration::from_micros(200) + Duration::from_millis(80).mul_f64(rate(1.0)),
        jitter: Duration::from_millis(40).mul_f64(rate(1.0)),
    };
    WorldOptions {
        seed,
        hosts,
        faults,
    }
}
