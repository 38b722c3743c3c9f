//! A conversation of several devices, each with its disk, in a world where everything goes wrong, checked against a
//! model that knows all disks.

// What one device has on disk.
pub(crate) mod disk;
// A device: a replica with its disk, its signer and its links.
mod host;
// What must hold in the end, found without any of the code that is tested.
mod model;
// Several conversations, and a session on each link.
mod sessions;
// Devices, the network between them, and what happens to them.
mod world;

pub(crate) use host::CONVERSATION;
use world::{Chances, Counts, World};

/// The disks of all devices after a world in which everything has gone wrong, with how each became what it is.
pub(crate) fn disks(seed: u64) -> Vec<disk::Disk> {
    let mut world = World::new(seed, Chances::DISKS);
    for _ in 0..world.steps() {
        world.step();
    }
    world.heal();
    world.check();
    world.hosts.into_values().map(|host| host.disk).collect()
}

/// Runs worlds with so many seeds from the first one on, or with as many as `LOG_WORLDS` says.
fn run(first: u64, worlds: u64, chances: Chances) -> Counts {
    let wanted = std::env::var("LOG_WORLDS").ok();
    let worlds = wanted.map_or(worlds, |wanted| wanted.parse().unwrap());
    let mut counts = Counts::default();
    for seed in first..first + worlds {
        println!("SEED {seed}");
        let mut world = World::new(seed, chances);
        for _ in 0..world.steps() {
            world.step();
        }
        world.heal();
        world.check();
        counts += world.counts;
    }
    println!("{counts:?}");
    counts
}

#[test]
fn all_have_the_same_in_the_end_whatever_links_lose_double_and_reorder() {
    let counts = run(0, 60, Chances::NETWORK);
    assert!(counts.entries > 1000, "{counts:?}");
    assert_eq!(counts.forks, 0);
}

#[test]
fn t45_crashes_and_backups_lose_nothing_that_was_acknowledged_and_fork_nothing() {
    let counts = run(100000, 100, Chances::CRASHES);
    assert!(counts.crashes > 300 && counts.restored > 30, "{counts:?}");
    assert!(counts.resumed > 30, "{counts:?}");
    assert_eq!(counts.forks, 0);
}

#[test]
fn t41_t45_two_copies_of_one_device_are_found_and_everybody_agrees_on_what_counts() {
    let counts = run(200000, 70, Chances::COPIES);
    assert!(counts.copied > 50 && counts.forks > 20, "{counts:?}");
}

#[test]
fn t47_everybody_agrees_on_what_a_revoked_device_has_said() {
    let counts = run(300000, 80, Chances::CUTS);
    assert!(counts.cuts > 50, "{counts:?}");
}

#[test]
fn whatever_goes_wrong_together_all_have_the_same_in_the_end() {
    let counts = run(400000, 100, Chances::EVERYTHING);
    assert!(counts.crashes > 50 && counts.restored > 10, "{counts:?}");
    assert!(counts.forks > 5 && counts.cuts > 20, "{counts:?}");
}
