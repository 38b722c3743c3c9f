//! A simulated world: the real engines, a network, disks and people on virtual time, from a seed.
//!
//! A run has four parts: steps that may do any harm, then healing, then rest, which must come, then an
//! exam: everything must work again. What must be true is looked at all the time, and the first thing
//! that is not ends the run.

/// Somebody without a password.
pub mod attacker;
/// What must not be.
pub mod check;
/// What survives a crash.
pub mod disk;
/// Which devices the server has.
pub mod enrolment;
/// The last question.
pub mod exam;
/// Where steps come from.
pub mod generate;
/// What the server counts against accounts.
pub mod identity;
// What the server counts against accounts.
pub mod ledger;
/// People and their passwords.
pub mod login;
/// What should be true.
pub mod model;
/// The network.
pub mod net;
/// A device that says whatever a test wants.
pub mod outsider;
/// The server's machine.
pub mod rendezvous_host;
/// Everything that can happen.
pub mod step;
/// Engines, network and disks on virtual time.
pub mod world;

use std::collections::BTreeMap;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use check::Violation;
use generate::{Choices, Seeded};
use net::{Dependence, Faults, Mishaps, NatOptions, Realm};
use step::Kind;
use world::{Family, Home, World, WorldOptions};

/// What a run has met.
#[derive(Clone, Debug, Default)]
pub struct Coverage {
    /// Steps by kind.
    pub steps: BTreeMap<Kind, u64>,
    /// Datagrams that arrived, and their bytes.
    pub carried: [u64; 2],
    /// What happened to datagrams.
    pub mishaps: Mishaps,
    /// Hosts by the addresses that they have.
    pub families: BTreeMap<Family, u64>,
    /// NATs by what their mappings and their filters look at.
    pub nats: BTreeMap<(Dependence, Dependence), u64>,
    /// Engines woken before their time.
    pub pokes: u64,
    /// Messages shown, receipts, files done.
    pub done: [u64; 3],
    /// Passwords that let somebody in, and those that did not.
    pub entries: [u64; 2],
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

/// What a healed world has to show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// That it comes to rest.
    Rest,
    /// And that everything works.
    Exam,
}

/// Runs one seed: as many steps as asked for, then healing, rest and the exam.
pub fn run(seed: u64, steps: u32) -> Outcome {
    let mut rng = StdRng::seed_from_u64(seed ^ 0x5eed);
    let world = World::new(&draw(seed, &mut rng));
    run_in(world, &mut Seeded(rng), steps, Ending::Exam)
}

/// The same with a world and choices of the caller's.
pub fn run_in(mut world: World, choices: &mut impl Choices, steps: u32, ending: Ending) -> Outcome {
    let mut coverage = Coverage::default();
    for host in &world.hosts {
        *coverage.families.entry(host.family).or_default() += 1;
    }
    for nat in world.net.nats() {
        let class = (nat.mapping, nat.filtering);
        *coverage.nats.entry(class).or_default() += 1;
    }
    for _ in 0..steps {
        if world.violation.is_some() {
            break;
        }
        let step = generate::step(choices, &world);
        *coverage.steps.entry(step.kind()).or_default() += 1;
        step.take(&mut world);
        for host in 0..world.hosts.len() {
            step::take_replies(&mut world, host);
        }
        if let Err(violation) = check::always(&world) {
            world.report(violation);
        }
    }
    let mut violation = world.violation.clone();
    if violation.is_none() {
        heal(&mut world);
        let rested = check::rest(&mut world).map(|_| ());
        let passed = rested.and_then(|()| match ending {
            Ending::Rest => Ok(()),
            Ending::Exam => exam::files_arrive(&mut world),
        });
        violation = passed.err().or(world.violation.clone());
    }
    coverage.carried = world.carried;
    coverage.pokes = world.pokes;
    coverage.mishaps = world.net.mishaps;
    let model = &world.model;
    coverage.done = [model.messages, model.receipts, model.files];
    coverage.entries = [model.log_ins, model.refused];
    coverage.elapsed = world.elapsed();
    coverage.trace = world.trace();
    Outcome {
        coverage,
        violation,
    }
}

/// Draws a world: two to five hosts, some behind up to two NATs, some with IPv6.
fn draw(seed: u64, rng: &mut StdRng) -> WorldOptions {
    let nats: Vec<NatOptions> = (0..rng.random_range(0..=2))
        .map(|_| NatOptions::draw(rng))
        .collect();
    let has_v6 = rng.random_bool(0.5);
    let hosts = rng.random_range(2..=5);
    // Stretching a password takes tenths of a second of real time: not every world has people who type.
    let uses_passwords = rng.random_bool(0.25);
    let homes = (0..hosts).map(|_| Home {
        is_enrolled: !uses_passwords || rng.random_bool(0.7),
        realm: match rng.random_range(0..=nats.len()) {
            0 => Realm::Public,
            n => Realm::Behind(n - 1),
        },
        family: match rng.random_range(0..10) {
            0 if has_v6 => Family::V6,
            1..=4 if has_v6 => Family::Both,
            _ => Family::V4,
        },
    });
    let homes = homes.collect();
    WorldOptions {
        seed,
        homes,
        nats,
        uses_passwords,
        has_identities: true,
        faults: Faults::draw(rng),
    }
}

/// Ends all harm: everybody is on, awake and reachable, and the network is good.
pub fn heal(world: &mut World) {
    world.note("heal");
    world.net.heal();
    world.net.faults = Faults::NONE;
    world.start_server();
    for host in 0..world.hosts.len() {
        world.unblock(host);
        world.hosts[host].disk.is_full = false;
        world.hosts[host].disk_delay = Duration::from_millis(1);
        if let Some(until) = world.hosts[host].asleep_until {
            world.hosts[host].asleep_until = Some(until.min(world.now));
        }
        world.start(host);
    }
}
