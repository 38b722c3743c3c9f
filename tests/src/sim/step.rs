//! Everything that can happen to a world.

use std::path::PathBuf;
use std::time::Duration;

use common::wire::peer::MessageBody;
use peer::node::command::{Command, Reply};

use super::login::{self, Entry};
use super::net::{Faults, Realm, Site};
use super::world::World;

/// Largest file that a step sends: three leaves and a bit.
const FILE_LEN_MAX: usize = 3 * common::limits::LEAF_LEN + 1000;

/// What kind of step it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Time passes.
    Pass,
    /// A person writes a message to another.
    Send,
    /// A person offers a file to another.
    SendFile,
    /// A person answers the oldest offer, mostly with yes.
    AnswerOffer,
    /// A person cancels a transfer.
    CancelTransfer,
    /// A person reads what came.
    MarkRead,
    /// A person asks who is online.
    List,
    /// A person without an account makes one.
    Register,
    /// A person types the password.
    LogIn,
    /// A person mistypes the password.
    WrongPassword,
    /// A person logs out.
    LogOut,
    /// An operator lets strangers in again.
    Unblock,
    /// A host is switched off in good order.
    GoOffline,
    /// A host loses its power.
    Crash,
    /// A host is switched on.
    Start,
    /// A host sleeps for a while.
    Sleep,
    /// A host changes its addresses, and maybe its network.
    Roam,
    /// The network gets better or worse.
    ChangeNet,
    /// A way is cut: between two hosts or to the server, one way or both.
    Cut,
    /// All cuts end.
    Heal,
    /// A control connection breaks.
    BreakControl,
    /// The server crashes.
    CrashServer,
    /// The server starts again.
    StartServer,
    /// A disk is full.
    FillDisk,
    /// A disk has room again.
    FreeDisk,
    /// A disk becomes slow, or fast again.
    SlowDisk,
    /// The wall clock jumps by days, forward or back.
    JumpClock,
    /// A NAT forgets its mappings.
    RestartNat,
    /// Somebody guesses at an account, again and again.
    Attack,
}

/// One step.
#[derive(Clone, Copy, Debug)]
pub struct Step {
    /// What.
    pub kind: Kind,
    /// Who.
    pub host: usize,
    /// With whom.
    pub other: usize,
    /// How much; each kind has its own meaning for it.
    pub amount: u32,
}

impl Step {
    /// Takes it.
    pub fn take(self, world: &mut World) {
        let Self {
            kind,
            host,
            other,
            amount,
        } = self;
        world.note(&format!("{kind:?} {host} {other} {amount}"));
        match kind {
            Kind::Pass => world.pass(pause(amount)),
            Kind::Send => send(world, host, other, amount),
            Kind::SendFile => send_file(world, host, other, amount),
            Kind::AnswerOffer => answer_offer(world, host, !amount.is_multiple_of(8)),
            Kind::CancelTransfer => cancel(world, host),
            Kind::MarkRead => mark_read(world, host),
            Kind::List => list(world, host),
            Kind::Register => enter(world, host, Entry::Register),
            Kind::LogIn => enter(world, host, Entry::LogIn),
            Kind::WrongPassword => enter(world, host, Entry::Mistype),
            Kind::LogOut if world.uses_passwords => login::log_out(world, host),
            Kind::LogOut => {}
            Kind::Unblock => world.unblock(host),
            Kind::GoOffline => world.stop(host, true),
            Kind::Crash => world.stop(host, false),
            Kind::Start => world.start(host),
            Kind::Sleep => {
                let until = world.now + pause(amount) * 4;
                world.hosts[host].asleep_until = Some(until);
            }
            Kind::Roam => roam(world, host, amount),
            Kind::ChangeNet => world.net.faults = Faults::draw(&mut world.rng),
            Kind::Cut => cut(world, host, other, amount),
            Kind::Heal => world.net.heal(),
            Kind::BreakControl => world.break_control(host),
            Kind::CrashServer => world.crash_server(),
            Kind::StartServer => world.start_server(),
            Kind::FillDisk => world.hosts[host].disk.is_full = true,
            Kind::FreeDisk => world.hosts[host].disk.is_full = false,
            Kind::SlowDisk => {
                let slow = Duration::from_micros(u64::from(amount) * 20);
                let is_slow = amount.is_multiple_of(2);
                let delay = if is_slow {
                    slow
                } else {
                    Duration::from_millis(1)
                };
                world.hosts[host].disk_delay = delay;
            }
            Kind::JumpClock => world.jump_clock(amount),
            Kind::Attack => {
                for _ in 0..=amount % 12 {
                    world.attack(host);
                }
            }
            Kind::RestartNat => world.net.restart_nat(host),
        }
    }
}

/// Mostly short, sometimes a minute.
fn pause(amount: u32) -> Duration {
    let longest = match amount % 10 {
        0..=5 => 400,
        6..=8 => 5_000,
        _ => 60_000,
    };
    Duration::from_millis(u64::from(amount / 10) % longest + 1)
}

fn send(world: &mut World, from: usize, to: usize, amount: u32) {
    let text = format!("{amount} {:.6}", world.elapsed().as_secs_f64());
    // Long ones need more than one packet.
    let text = match amount % 7 {
        0 => text.repeat(200),
        _ => text,
    };
    let to = world.hosts[to].account.clone();
    let Ok(body) = MessageBody::try_from(text.clone()) else {
        return;
    };
    let command = Command::Send {
        to: vec![to.clone()],
        body,
        sent: world.wall,
    };
    // It is typed before anything can come of it.
    world.model.on_typed(from, &to, &text);
    if world.command(from, command).is_some() {
        take_replies(world, from);
    }
}

fn send_file(world: &mut World, from: usize, to: usize, amount: u32) {
    let len = match amount % 5 {
        0 => 0,
        1 => 1 + amount as usize % 100,
        _ => (amount as usize * 97) % FILE_LEN_MAX,
    };
    let bytes = (0..len)
        .map(|at| (at / 7 + amount as usize) as u8)
        .collect();
    let path = PathBuf::from(format!("/out/{amount}"));
    world.hosts[from].disk.put(path.clone(), bytes);
    let to = world.hosts[to].account.clone();
    world.command(from, Command::SendFile { to, path });
}

fn answer_offer(world: &mut World, host: usize, takes_it: bool) {
    // Whoever has one, if this host has none.
    let hosts = world.hosts.len();
    let mut from_here = (0..hosts).map(|n| (host + n) % hosts);
    let Some(host) = from_here.find(|n| !world.hosts[*n].offers.is_empty()) else {
        return;
    };
    let transfer = world.hosts[host].offers.remove(0);
    let folder = takes_it.then(|| PathBuf::from("/in"));
    world.command(host, Command::AnswerOffer { transfer, folder });
}

fn cancel(world: &mut World, host: usize) {
    if let Some(transfer) = world.hosts[host].moving.pop() {
        world.command(host, Command::Cancel { transfer });
    }
}

fn mark_read(world: &mut World, host: usize) {
    let ids = std::mem::take(&mut world.hosts[host].unread);
    if !ids.is_empty() {
        world.command(host, Command::MarkRead { ids });
    }
}

fn list(world: &mut World, host: usize) {
    take_replies(world, host);
    world.command(host, Command::List);
}

/// Only people who have no account register; in some worlds nobody types.
fn enter(world: &mut World, host: usize, entry: Entry) {
    let account = world.hosts[host].account.clone();
    let is_registered = world.server.has_account(&account);
    if world.uses_passwords && is_registered != (entry == Entry::Register) {
        login::enter(world, host, entry);
    }
}

/// Mostly to another network, if there is one.
fn roam(world: &mut World, host: usize, amount: u32) {
    let realms: Vec<Realm> = world.net.realms().collect();
    world.move_to(host, realms[amount as usize % realms.len()]);
}

fn cut(world: &mut World, host: usize, other: usize, amount: u32) {
    let there = match amount % 3 {
        0 => Site::Server,
        _ => Site::Host(other),
    };
    let here = Site::Host(host);
    world.net.cut(here, there);
    if !amount.is_multiple_of(4) {
        world.net.cut(there, here);
    }
}

/// Looks at all replies that came.
pub fn take_replies(world: &mut World, host: usize) {
    let replies = std::mem::take(&mut world.hosts[host].replies);
    for reply in replies.into_values().flatten() {
        if let Reply::Queued(ids) = reply {
            for id in ids {
                world.model.on_taken(host, id);
            }
        }
    }
}
