//! A simulated world: the real engines, a network, disks and people on virtual time, from a seed.
//!
//! A run has three parts: steps that may do any harm, then healing, then rest, which must come. What
//! must be true is looked at all the time, and the first thing that is not ends the run.

/// Somebody without a password.
pub mod attacker;
/// What must not be.
pub mod check;
/// What survives a crash.
pub mod disk;
/// Where steps come from.
pub mod generate;
/// What should be true.
pub mod model;
/// The network.
pub mod net;
/// The server's machine.
pub mod rendezvous_host;
/// Everything that can happen.
pub mod step;
/// Engines, network and disks on virtual time.
pub mod world;

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use check::Violation;
use generate::{Choices, Seeded};
use net::{Dependence, Faults, Nat};
use step::Kind;
use world::{World, WorldOptions};

/// What a run has met.
#[derive(Clone, Debug, Default)]
pub struct Coverage {
    /// Steps by kind.
    pub steps: BTreeMap<Kind, u64>,
    /// Datagrams that arrived, and their bytes.
    pub carried: [u64; 2],
    /// Datagrams that were lost, came twice, were cut, or not let in by a NAT.
    pub mishaps: [u64; 4],
    /// Messages shown, receipts, files done.
    pub done: [u64; 3],
    /// Virtual time.
    pub elapsed: Duration,
    /// A hash of all decisions.
    pub trace: String,
}

/// How a run ended.
#[derive(Debug)]
pub struct Outcome {
    /// What it met.
    pub coverage: Coverage,
    /// What was wrong.
    pub violation: Option<Violation>,
}

/// Runs one seed: as many steps as asked for, then healing and rest.
pub fn run(seed: u64, steps: u32) -> Outcome {
    let mut rng = StdRng::seed_from_u64(seed ^ 0x5eed);
    let options = WorldOptions {
        seed,
        hosts: rng.random_range(2..=5),
        faults: Faults::draw(&mut rng),
    };
    let mut world = World::new(&options);
    put_behind_nats(&mut world, &mut rng);
    run_in(world, &mut Seeded(rng), steps)
}

/// The same with a world and choices of the caller's.
pub fn run_in(mut world: World, choices: &mut impl Choices, steps: u32) -> Outcome {
    let mut coverage = Coverage::default();
    for _ in 0..steps {
        if world.violation.is_some() {
            break;
        }
        let step = generate::step(choices, &world);
        *coverage.steps.entry(step.kind).or_default() += 1;
        step.take(&mut world);
        for host in 0..world.hosts.len() {
            step::take_replies(&mut world, host);
        }
    }
    let mut violation = world.violation.clone();
    if violation.is_none() {
        heal(&mut world);
        violation = check::rest(&mut world).err();
    }
    coverage.carried = world.carried;
    coverage.mishaps = world.net.mishaps;
    let model = &world.model;
    coverage.done = [model.messages, model.receipts, model.files];
    coverage.elapsed = world.elapsed();
    coverage.trace = world.trace();
    Outcome {
        coverage,
        violation,
    }
}

/// Some hosts are behind NATs of their own.
fn put_behind_nats(world: &mut World, rng: &mut StdRng) {
    for host in 0..world.hosts.len() {
        if !rng.random_bool(0.3) {
            continue;
        }
        let mut class = || Dependence::ALL[rng.random_range(0..3)];
        let (mapping, filtering) = (class(), class());
        let expiry = Duration::from_secs(rng.random_range(25..120));
        let public = Ipv4Addr::new(203, 0, 113, 1 + host as u8);
        let nat = Nat::new(public, mapping, filtering, expiry);
        world.net.put_behind(host, nat);
    }
}

/// Ends all harm: everybody is on, awake and reachable, and the network is good.
pub fn heal(world: &mut World) {
    world.note("heal");
    world.net.heal();
    world.net.faults = Faults::NONE;
    world.start_server();
    for host in 0..world.hosts.len() {
        world.hosts[host].disk.is_full = false;
        world.hosts[host].disk_delay = Duration::from_millis(1);
        if let Some(until) = world.hosts[host].asleep_until {
            world.hosts[host].asleep_until = Some(until.min(world.now));
        }
        world.start(host);
    }
}
