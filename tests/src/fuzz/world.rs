//! The simulated world.

use std::time::Duration;

use super::feed::Feed;
use crate::sim::generate::Fed;
use crate::sim::net::{Dependence, Faults, NatOptions, Realm};
use crate::sim::world::{Family, Home, World, WorldOptions};
use crate::sim::{Ending, run_in};

/// Most steps of a run.
const STEPS_MAX: usize = 100;
/// Bytes of one step, roughly: up to six decisions of two bytes, mostly four.
const STEP_LEN: usize = 8;

pub(super) fn world(bytes: &[u8]) {
    let mut feed = Feed(bytes);
    let options = options(&mut feed);
    let steps = feed.0.len().div_ceil(STEP_LEN).min(STEPS_MAX);
    let world = World::new(&options);
    let outcome = run_in(world, &mut Fed(feed.0), steps as u32, Ending::Rest);
    if let Some(violation) = outcome.violation {
        panic!("{violation} in {:?}", outcome.coverage.elapsed);
    }
}

fn options(feed: &mut Feed<'_>) -> WorldOptions {
    let seed = feed.byte().into();
    let hosts = 2 + feed.below(2);
    let homes = (0..hosts).map(|_| home(feed)).collect();
    let nats = vec![nat(feed)];
    let mtu = [1280, 1400, 1500, 9000][feed.below(4)];
    let has_lines = feed.flag();
    let mut rate = |most: f64| f64::from(feed.byte()) / 255.0 * most;
    let faults = Faults {
        loss: rate(0.25),
        duplication: rate(0.2),
        reordering: rate(0.3),
        latency: Duration::from_micros(200) + Duration::from_millis(80).mul_f64(rate(1.0)),
        jitter: Duration::from_millis(40).mul_f64(rate(1.0)),
        rate: has_lines.then(|| 50_000 + rate(5_000_000.0) as u32),
        queue: Duration::from_millis(400).mul_f64(rate(1.0)),
        mtu,
    };
    WorldOptions {
        homes,
        nats,
        ..WorldOptions::new(seed, 0, faults)
    }
}

fn home(feed: &mut Feed<'_>) -> Home {
    Home {
        realm: [Realm::Public, Realm::Behind(0)][feed.below(2)],
        family: [Family::V4, Family::Both, Family::V6][feed.below(3)],
        ..Home::PUBLIC
    }
}

fn nat(feed: &mut Feed<'_>) -> NatOptions {
    NatOptions {
        mapping: Dependence::ALL[feed.below(3)],
        filtering: Dependence::ALL[feed.below(3)],
        preserves_ports: feed.flag(),
        hairpins: feed.flag(),
        expiry: Duration::from_secs(25 + feed.below(100) as u64),
    }
}
