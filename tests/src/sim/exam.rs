//! The last question to a healed world: does everything work? Whoever can be reached gets a file from
//! somebody.

use std::path::PathBuf;
use std::time::Duration;

use peer::node::command::Command;

use super::check::Violation;
use super::world::World;

/// Virtual time in which a file must have arrived.
const PATIENCE: Duration = Duration::from_secs(120);
/// Some dozens of packets; steps send larger ones.
const LEN: usize = 100_000;
/// How often is looked.
const PACE: Duration = Duration::from_millis(100);
/// A link may have died without a word in the healing: a person tries again.
const TRIES: u32 = 3;

/// Has each host take a file of another.
pub fn files_arrive(world: &mut World) -> Result<(), Violation> {
    let hosts = world.hosts.len();
    for to in 0..hosts {
        let from = (to + 1) % hosts;
        if from != to {
            world.hosts[to].offers.clear();
            let mut tries = 0..TRIES;
            if !tries.any(|_| arrives(world, from, to)) {
                return Err(Violation::new(&format!(
                    "p{from} cannot send a file to p{to} in a healed world"
                )));
            }
        }
    }
    Ok(())
}

fn arrives(world: &mut World, from: usize, to: usize) -> bool {
    let path = PathBuf::from(format!("/out/exam-{from}-{to}"));
    let bytes = (0..LEN).map(|at| (at / 3 + from) as u8);
    world.hosts[from].disk.put(path.clone(), bytes.collect());
    let account = world.hosts[to].account.clone();
    let done = world.hosts[to].arrived.len() + 1;
    world.command(from, Command::SendFile { to: account, path });
    let until = world.now + PATIENCE;
    while world.now < until && world.violation.is_none() {
        world.pass(PACE);
        for transfer in std::mem::take(&mut world.hosts[to].offers) {
            let folder = Some(PathBuf::from("/in"));
            world.command(
                to,
                Command::AnswerOffer {
                    transfer,
                    folder,
                    name: None,
                },
            );
        }
        if world.hosts[to].arrived.len() >= done {
            return true;
        }
    }
    false
}
