//! Where steps come from: a small interface that a seeded generator or the bytes of a fuzzer fill.

use std::time::Duration;

use common::limits::LEAF_LEN;
use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};

use super::login::Entry;
use super::net::{Faults, Realm, Site};
use super::step::{Kind, Step};
use super::world::{ClockError, Host, World};

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

/// Largest file that a step sends: three leaves and a bit.
const FILE_LEN_MAX: u32 = 3 * LEAF_LEN as u32 + 1000;
/// Decisions of a fuzzer have so many values.
const DECISIONS: u32 = 1 << 16;

/// The next step: one that makes sense in this world.
pub fn step(choices: &mut impl Choices, world: &World) -> Step {
    let all = Kind::ALL.iter().map(|kind| (*kind, hosts(*kind, world)));
    let legal: Vec<(Kind, Vec<usize>)> = all.filter(|(_, hosts)| !hosts.is_empty()).collect();
    let (kind, hosts) = weighted(choices, &legal);
    let host = *one_of(choices, hosts);
    draw(*kind, host, choices, world)
}

fn weighted<'a>(
    choices: &mut impl Choices,
    legal: &'a [(Kind, Vec<usize>)],
) -> &'a (Kind, Vec<usize>) {
    let total = legal.iter().map(|(kind, _)| kind.weight()).sum();
    let mut at = choices.choose(total);
    let chosen = legal.iter().find(|(kind, _)| {
        let is_here = at < kind.weight();
        at = at.saturating_sub(kind.weight());
        is_here
    });
    chosen.expect("the number is below the sum")
}

/// The hosts that a step of this kind can be about now. What is about the whole world is legal with all
/// of them or with none.
fn hosts(kind: Kind, world: &World) -> Vec<usize> {
    let is_up = world.server.engine.is_some();
    let types = |host: &Host, has_account: bool| {
        world.uses_passwords
            && host.is_running()
            && world.server.has_account(&host.account) == has_account
    };
    let is_legal = |n: usize, host: &Host| match kind {
        Kind::Pass | Kind::JumpClock | Kind::ChangeNet => true,
        Kind::Cut | Kind::Roam | Kind::SlowDisk => true,
        Kind::Send | Kind::SendFile | Kind::List | Kind::Sleep => host.is_running(),
        Kind::AnswerOffer => host.is_running() && !host.offers.is_empty(),
        Kind::CancelTransfer => host.is_running() && !host.moving.is_empty(),
        Kind::MarkRead => host.is_running() && !host.unread.is_empty(),
        Kind::Register => types(host, false),
        Kind::LogIn | Kind::WrongPassword | Kind::LogOut => types(host, true),
        Kind::RemoveAccount => world.uses_passwords && world.server.has_account(&host.account),
        Kind::Unblock | Kind::Attack => is_up,
        Kind::GoOffline | Kind::Crash => host.node.is_some(),
        Kind::Start => host.node.is_none(),
        Kind::Heal => world.net.has_cuts(),
        Kind::BreakControl => host.is_connected(),
        Kind::CrashServer => is_up,
        Kind::StartServer => !is_up,
        Kind::FillDisk => !host.disk.is_full,
        Kind::FreeDisk => host.disk.is_full,
        Kind::RestartNat => world.net.realm(Site::Host(n)) != Realm::Public,
        Kind::BlockUdp => !world.net.is_without_udp(n),
        Kind::AllowUdp => world.net.is_without_udp(n),
    };
    let hosts = world.hosts.iter().enumerate();
    let legal = hosts.filter(|(n, host)| is_legal(*n, host));
    legal.map(|(n, _)| n).collect()
}

/// A step of this kind about this host.
fn draw(kind: Kind, host: usize, choices: &mut impl Choices, world: &World) -> Step {
    match kind {
        Kind::Pass => Step::Pass {
            span: pause(choices),
        },
        Kind::Send => Step::Send {
            from: host,
            to: other(host, choices, world),
            number: choices.choose(DECISIONS),
            copies: if choices.choose(7) == 0 { 200 } else { 1 },
        },
        Kind::SendFile => Step::SendFile {
            from: host,
            to: other(host, choices, world),
            number: choices.choose(DECISIONS),
            len: file_len(choices),
        },
        Kind::AnswerOffer => Step::AnswerOffer {
            host,
            takes_it: choices.choose(8) > 0,
        },
        Kind::CancelTransfer => Step::CancelTransfer { host },
        Kind::MarkRead => Step::MarkRead { host },
        Kind::List => Step::List { host },
        Kind::Register => enter(host, Entry::Register),
        Kind::LogIn => enter(host, Entry::LogIn),
        Kind::WrongPassword => enter(host, Entry::Mistype),
        Kind::LogOut => Step::LogOut { host },
        Kind::RemoveAccount => Step::RemoveAccount { host },
        Kind::Unblock => Step::Unblock { host },
        Kind::GoOffline => Step::Stop {
            host,
            in_good_order: true,
        },
        Kind::Crash => Step::Stop {
            host,
            in_good_order: false,
        },
        Kind::Start => Step::Start { host },
        Kind::Sleep => Step::Sleep {
            host,
            span: pause(choices) * 4,
        },
        Kind::Roam => {
            let realms: Vec<Realm> = world.net.realms().collect();
            let realm = *one_of(choices, &realms);
            Step::Roam { host, realm }
        }
        Kind::ChangeNet => {
            let seed = choices.choose(DECISIONS);
            let faults = Faults::draw(&mut StdRng::seed_from_u64(seed.into()));
            Step::ChangeNet { faults }
        }
        Kind::Cut => Step::Cut {
            from: Site::Host(host),
            to: match choices.choose(3) {
                0 => Site::Server,
                _ => Site::Host(other(host, choices, world)),
            },
            is_mutual: choices.choose(4) > 0,
        },
        Kind::Heal => Step::Heal,
        Kind::BreakControl => Step::BreakControl { host },
        Kind::CrashServer => Step::CrashServer,
        Kind::StartServer => Step::StartServer,
        Kind::FillDisk => Step::FillDisk {
            host,
            is_full: true,
        },
        Kind::FreeDisk => Step::FillDisk {
            host,
            is_full: false,
        },
        Kind::SlowDisk => Step::SlowDisk {
            host,
            delay: match choices.choose(2) {
                0 => Duration::from_micros(20) * choices.choose(DECISIONS),
                _ => Duration::from_millis(1),
            },
        },
        Kind::JumpClock => {
            let by = ClockError::STEP * choices.choose(DECISIONS);
            let error = match choices.choose(2) {
                0 => ClockError::Ahead(by),
                _ => ClockError::Behind(by),
            };
            Step::JumpClock { error }
        }
        Kind::RestartNat => Step::RestartNat { host },
        Kind::BlockUdp => Step::BlockUdp {
            host,
            is_blocked: true,
        },
        Kind::AllowUdp => Step::BlockUdp {
            host,
            is_blocked: false,
        },
        Kind::Attack => Step::Attack {
            host,
            guesses: 1 + choices.choose(12),
        },
    }
}

fn one_of<'a, T>(choices: &mut impl Choices, from: &'a [T]) -> &'a T {
    &from[choices.choose(from.len() as u32) as usize]
}

/// Mostly short, sometimes a minute.
fn pause(choices: &mut impl Choices) -> Duration {
    let longest_ms = match choices.choose(10) {
        0..=5 => 400,
        6..=8 => 5_000,
        _ => 60_000,
    };
    Duration::from_millis(1) * (1 + choices.choose(longest_ms))
}

/// Nothing, little, or anything up to a few leaves.
fn file_len(choices: &mut impl Choices) -> usize {
    let len = match choices.choose(5) {
        0 => 0,
        1 => 1 + choices.choose(100),
        _ => choices.choose(DECISIONS) * 97 % FILE_LEN_MAX,
    };
    len as usize
}

/// Another host than this.
fn other(host: usize, choices: &mut impl Choices, world: &World) -> usize {
    let hosts = world.hosts.len();
    let others = (hosts as u32).max(2) - 1;
    (host + 1 + choices.choose(others) as usize) % hosts
}

const fn enter(host: usize, entry: Entry) -> Step {
    Step::Enter { host, entry }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::sim;
    use crate::sim::world::WorldOptions;

    #[test]
    fn each_kind_is_drawn_as_itself() {
        let world = World::new(&WorldOptions::new(1, 2, Faults::NONE));
        let mut choices = Seeded(StdRng::seed_from_u64(1));
        for kind in Kind::ALL {
            assert!(kind.weight() > 0, "{kind:?} is never taken");
            assert_eq!(draw(*kind, 0, &mut choices, &world).kind(), *kind);
        }
    }

    #[test]
    fn a_few_worlds_meet_every_kind_of_step() {
        let mut met = BTreeSet::new();
        for seed in 0..60 {
            let outcome = sim::run(seed, 150);
            assert!(
                outcome.violation.is_none(),
                "seed {seed}: {:?}",
                outcome.violation
            );
            met.extend(outcome.coverage.steps.into_keys());
            if met.len() == Kind::ALL.len() {
                return;
            }
        }
        panic!("{met:?}");
    }
}
