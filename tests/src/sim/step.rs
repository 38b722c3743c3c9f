//! Everything that can happen to a world.

use std::path::PathBuf;
use std::time::Duration;

use common::wire::peer::MessageBody;
use peer::node::command::{Command, Reply};

use super::login::{self, Entry};
use super::net::{Faults, Realm, Site};
use super::world::{ClockError, World};

/// Makes [`Kind`] and what goes with it from one table.
macro_rules! kinds {
    ($($(#[$doc:meta])* $kind:ident = $weight:literal,)*) => {
        /// What kind of step it is.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Kind {
            $($(#[$doc])* $kind,)*
        }

        impl Kind {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$kind),*];

            /// How often it is taken, of the sum of those that are legal.
            pub const fn weight(self) -> u32 {
                match self {
                    $(Self::$kind => $weight,)*
                }
            }
        }
    };
}

kinds! {
    /// Time passes.
    Pass = 30,
    /// A person writes a message to another.
    Send = 30,
    /// A person offers a file to another.
    SendFile = 8,
    /// A person answers the oldest offer, mostly with yes.
    AnswerOffer = 10,
    /// A person cancels a transfer.
    CancelTransfer = 1,
    /// A person reads what came.
    MarkRead = 4,
    /// A person asks who is online.
    List = 4,
    /// A person without an account makes one.
    Register = 2,
    /// A person types the password.
    LogIn = 2,
    /// A person mistypes the password.
    WrongPassword = 2,
    /// A person logs out.
    LogOut = 3,
    /// An operator removes an account.
    RemoveAccount = 3,
    /// An operator lets strangers in again.
    Unblock = 1,
    /// A host is switched off in good order.
    GoOffline = 2,
    /// A host loses its power.
    Crash = 3,
    /// A host is switched on.
    Start = 6,
    /// A host sleeps for a while.
    Sleep = 2,
    /// A host changes its addresses, and maybe its network.
    Roam = 2,
    /// The network gets better or worse.
    ChangeNet = 2,
    /// A way is cut: between two hosts or to the server, one way or both.
    Cut = 4,
    /// All cuts end.
    Heal = 4,
    /// A control connection breaks.
    BreakControl = 3,
    /// The server crashes.
    CrashServer = 1,
    /// The server starts again.
    StartServer = 4,
    /// A disk is full.
    FillDisk = 1,
    /// A disk has room again.
    FreeDisk = 2,
    /// A disk becomes slow, or fast again.
    SlowDisk = 1,
    /// The wall clock jumps by days, forward or back.
    JumpClock = 1,
    /// A NAT forgets its mappings.
    RestartNat = 1,
    /// A firewall lets no UDP through any more.
    BlockUdp = 1,
    /// A firewall lets UDP through again.
    AllowUdp = 1,
    /// Somebody guesses at an account, again and again.
    Attack = 1,
}

/// One step, with all that it needs. A host is its number in the world; what is done to a disk, an account
/// or a connection is done to that of the host.
#[expect(missing_docs, reason = "the fields' names and types say it all")]
#[derive(Clone, Debug)]
pub enum Step {
    /// See [`Kind::Pass`], and so on.
    Pass { span: Duration },
    /// The text is the number and the moment, so many times.
    Send {
        from: usize,
        to: usize,
        /// Tells texts of one moment apart.
        number: u32,
        /// 1, or enough for more than one packet.
        copies: usize,
    },
    /// The content follows from number and length, so that a path has one content.
    SendFile {
        from: usize,
        to: usize,
        /// Tells files apart.
        number: u32,
        /// In bytes.
        len: usize,
    },
    /// Answers the oldest offer.
    AnswerOffer { host: usize, takes_it: bool },
    /// Cancels the newest transfer.
    CancelTransfer { host: usize },
    /// Marks all that was shown.
    MarkRead { host: usize },
    /// Asks for the directory.
    List { host: usize },
    /// Types something at the prompt for a password.
    Enter { host: usize, entry: Entry },
    /// Logs out.
    LogOut { host: usize },
    /// Removes an account, with or without the server.
    RemoveAccount { host: usize },
    /// Forgives what was counted against an account.
    Unblock { host: usize },
    /// Switches off.
    Stop {
        host: usize,
        /// `false`: as a power cut does.
        in_good_order: bool,
    },
    /// Switches on.
    Start { host: usize },
    /// Sends to sleep.
    Sleep { host: usize, span: Duration },
    /// Moves, or gets other addresses where it is.
    Roam { host: usize, realm: Realm },
    /// Changes what happens to all datagrams.
    ChangeNet { faults: Faults },
    /// Cuts a way.
    Cut {
        from: Site,
        to: Site,
        /// The way back is cut as well.
        is_mutual: bool,
    },
    /// Ends all cuts.
    Heal,
    /// Breaks a control connection.
    BreakControl { host: usize },
    /// The server loses its power.
    CrashServer,
    /// The server starts.
    StartServer,
    /// Leaves no room on a disk, or some again.
    FillDisk { host: usize, is_full: bool },
    /// Sets a disk's pace.
    SlowDisk {
        host: usize,
        /// Longest time for a request.
        delay: Duration,
    },
    /// Sets the wall clock wrong.
    JumpClock { error: ClockError },
    /// Has a NAT forget its mappings.
    RestartNat {
        /// A host behind it.
        host: usize,
    },
    /// Has a host's firewall let no UDP through, or let it through again.
    BlockUdp { host: usize, is_blocked: bool },
    /// Guesses at an account.
    Attack {
        host: usize,
        /// How many guesses.
        guesses: u32,
    },
}

impl Step {
    /// Its kind.
    pub const fn kind(&self) -> Kind {
        match self {
            Self::Pass { .. } => Kind::Pass,
            Self::Send { .. } => Kind::Send,
            Self::SendFile { .. } => Kind::SendFile,
            Self::AnswerOffer { .. } => Kind::AnswerOffer,
            Self::CancelTransfer { .. } => Kind::CancelTransfer,
            Self::MarkRead { .. } => Kind::MarkRead,
            Self::List { .. } => Kind::List,
            Self::Enter { entry, .. } => match entry {
                Entry::Register => Kind::Register,
                Entry::LogIn => Kind::LogIn,
                Entry::Mistype => Kind::WrongPassword,
            },
            Self::LogOut { .. } => Kind::LogOut,
            Self::RemoveAccount { .. } => Kind::RemoveAccount,
            Self::Unblock { .. } => Kind::Unblock,
            Self::Stop {
                in_good_order: true,
                ..
            } => Kind::GoOffline,
            Self::Stop { .. } => Kind::Crash,
            Self::Start { .. } => Kind::Start,
            Self::Sleep { .. } => Kind::Sleep,
            Self::Roam { .. } => Kind::Roam,
            Self::ChangeNet { .. } => Kind::ChangeNet,
            Self::Cut { .. } => Kind::Cut,
            Self::Heal => Kind::Heal,
            Self::BreakControl { .. } => Kind::BreakControl,
            Self::CrashServer => Kind::CrashServer,
            Self::StartServer => Kind::StartServer,
            Self::FillDisk { is_full: true, .. } => Kind::FillDisk,
            Self::FillDisk { .. } => Kind::FreeDisk,
            Self::SlowDisk { .. } => Kind::SlowDisk,
            Self::JumpClock { .. } => Kind::JumpClock,
            Self::RestartNat { .. } => Kind::RestartNat,
            Self::BlockUdp {
                is_blocked: true, ..
            } => Kind::BlockUdp,
            Self::BlockUdp { .. } => Kind::AllowUdp,
            Self::Attack { .. } => Kind::Attack,
        }
    }

    /// Takes it.
    pub fn take(self, world: &mut World) {
        world.note(&format!("{self:?}"));
        match self {
            Self::Pass { span } => world.pass(span),
            Self::Send {
                from,
                to,
                number,
                copies,
            } => send(world, from, to, number, copies),
            Self::SendFile {
                from,
                to,
                number,
                len,
            } => send_file(world, from, to, number, len),
            Self::AnswerOffer { host, takes_it } => answer_offer(world, host, takes_it),
            Self::CancelTransfer { host } => cancel(world, host),
            Self::MarkRead { host } => mark_read(world, host),
            Self::List { host } => list(world, host),
            Self::Enter { host, entry } => login::enter(world, host, entry),
            Self::LogOut { host } => login::log_out(world, host),
            Self::RemoveAccount { host } => world.remove_account(host),
            Self::Unblock { host } => world.unblock(host),
            Self::Stop {
                host,
                in_good_order,
            } => world.stop(host, in_good_order),
            Self::Start { host } => world.start(host),
            Self::Sleep { host, span } => {
                world.hosts[host].asleep_until = Some(world.now + span);
            }
            Self::Roam { host, realm } => world.move_to(host, realm),
            Self::ChangeNet { faults } => world.net.faults = faults,
            Self::Cut {
                from,
                to,
                is_mutual,
            } => cut(world, from, to, is_mutual),
            Self::Heal => world.net.heal(),
            Self::BreakControl { host } => world.break_control(host),
            Self::CrashServer => world.crash_server(),
            Self::StartServer => world.start_server(),
            Self::FillDisk { host, is_full } => world.hosts[host].disk.is_full = is_full,
            Self::SlowDisk { host, delay } => world.hosts[host].disk_delay = delay,
            Self::JumpClock { error } => world.jump_clock(error),
            Self::RestartNat { host } => world.net.restart_nat(host),
            Self::BlockUdp { host, is_blocked } => world.net.block_udp(host, is_blocked),
            Self::Attack { host, guesses } => {
                for _ in 0..guesses {
                    world.attack(host);
                }
            }
        }
    }
}

fn send(world: &mut World, from: usize, to: usize, number: u32, copies: usize) {
    let text = format!("{number} {:.6}", world.elapsed().as_secs_f64()).repeat(copies);
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

fn send_file(world: &mut World, from: usize, to: usize, number: u32, len: usize) {
    let bytes = (0..len).map(|at| (at / 7 + number as usize) as u8);
    let path = PathBuf::from(format!("/out/{number}-{len}"));
    world.hosts[from].disk.put(path.clone(), bytes.collect());
    let to = world.hosts[to].account.clone();
    world.command(from, Command::SendFile { to, path });
}

fn answer_offer(world: &mut World, host: usize, takes_it: bool) {
    let transfer = world.hosts[host].offers.remove(0);
    let folder = takes_it.then(|| PathBuf::from("/in"));
    world.command(
        host,
        Command::AnswerOffer {
            transfer,
            folder,
            name: None,
        },
    );
}

fn cancel(world: &mut World, host: usize) {
    if let Some((transfer, _)) = world.hosts[host].moving.pop() {
        world.command(host, Command::Cancel { transfer });
    }
}

fn mark_read(world: &mut World, host: usize) {
    let ids = std::mem::take(&mut world.hosts[host].unread);
    world.command(host, Command::MarkRead { ids });
}

fn list(world: &mut World, host: usize) {
    take_replies(world, host);
    world.command(host, Command::List);
}

fn cut(world: &mut World, from: Site, to: Site, is_mutual: bool) {
    world.net.cut(from, to);
    if is_mutual {
        world.net.cut(to, from);
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
