//! Where steps come from: a small interface that a seeded generator or the bytes of a fuzzer fill.

use rand::rngs::StdRng;
use rand::{Rng, RngExt};

use super::step::{Kind, Step};
use super::world::World;

/// A source of decisions.
pub trait Choices {
    /// A number below `n`, which is not 0.
    fn choose(&mut self, n: u32) -> u32;
    /// `n` bytes.
    fn bytes(&mut self, n: usize) -> Vec<u8>;
}

/// Decisions of a seeded generator.
#[derive(Debug)]
pub struct Seeded(pub StdRng);

impl Choices for Seeded {
    fn choose(&mut self, n: u32) -> u32 {
        self.0.random_range(0..n)
    }

    fn bytes(&mut self, n: usize) -> Vec<u8> {
        let mut bytes = vec![0; n];
        self.0.fill_bytes(&mut bytes);
        bytes
    }
}

/// Decisions of somebody else's bytes; zeros once there are no more.
#[derive(Debug)]
pub struct Fed<'a>(pub &'a [u8]);

impl Choices for Fed<'_> {
    fn choose(&mut self, n: u32) -> u32 {
        let Some((first, rest)) = self.0.split_first_chunk::<2>() else {
            self.0 = &[];
            return 0;
        };
        self.0 = rest;
        u32::from(u16::from_le_bytes(*first)) % n
    }

    fn bytes(&mut self, n: usize) -> Vec<u8> {
        let (taken, rest) = self.0.split_at(n.min(self.0.len()));
        let mut bytes = taken.to_vec();
        self.0 = rest;
        bytes.resize(n, 0);
        bytes
    }
}

/// How often each kind of step is taken, of the sum of all.
const WEIGHTS: [(Kind, u32); 29] = [
    (Kind::Pass, 30),
    (Kind::Send, 30),
    (Kind::SendFile, 8),
    (Kind::AnswerOffer, 10),
    (Kind::CancelTransfer, 1),
    (Kind::MarkRead, 4),
    (Kind::List, 4),
    (Kind::Register, 2),
    (Kind::LogIn, 2),
    (Kind::WrongPassword, 2),
    (Kind::LogOut, 1),
    (Kind::Unblock, 1),
    (Kind::GoOffline, 2),
    (Kind::Crash, 3),
    (Kind::Start, 14),
    (Kind::Sleep, 2),
    (Kind::Roam, 2),
    (Kind::ChangeNet, 2),
    (Kind::Cut, 4),
    (Kind::Heal, 4),
    (Kind::BreakControl, 3),
    (Kind::CrashServer, 1),
    (Kind::StartServer, 4),
    (Kind::FillDisk, 1),
    (Kind::FreeDisk, 3),
    (Kind::SlowDisk, 1),
    (Kind::JumpClock, 1),
    (Kind::RestartNat, 1),
    (Kind::Attack, 1),
];

/// The next step: one that makes sense in this world.
pub fn step(choices: &mut impl Choices, world: &World) -> Step {
    let total: u32 = WEIGHTS.iter().map(|(_, weight)| weight).sum();
    let mut at = choices.choose(total);
    let mut kind = Kind::Pass;
    for (candidate, weight) in WEIGHTS {
        if at < weight {
            kind = candidate;
            break;
        }
        at -= weight;
    }
    let hosts = u32::try_from(world.hosts.len()).unwrap_or(1);
    let host = choices.choose(hosts) as usize;
    let other = (host + 1 + choices.choose(hosts.max(2) - 1) as usize) % world.hosts.len();
    Step {
        kind,
        host,
        other,
        amount: choices.choose(1 << 16),
    }
}
