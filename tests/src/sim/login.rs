//! People and their passwords: registering, logging in, mistyping, logging out.
//!
//! A person knows when a device may need the password, and types it again once the device says so.

use common::key::DeviceSecret;
use common::wire::rendezvous::Refusal;
use peer::node::command::{Command, CommandError, CommandId, ConnectionState, PasswordText, Reply};
use zeroize::Zeroizing;

use super::check::Violation;
use super::identity;
use super::rendezvous_host::PASSWORD;
use super::world::World;

/// What a person types.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    /// Makes the account, with the password.
    Register,
    /// The password.
    LogIn,
    /// Another one.
    Mistype,
}

/// A person types something at a host.
pub fn enter(world: &mut World, n: usize, entry: Entry) {
    let account = world.hosts[n].account.clone();
    let password = match entry {
        Entry::Register | Entry::LogIn => PASSWORD,
        Entry::Mistype => "correct horse battery stable",
    };
    let password = PasswordText(Zeroizing::new(password.to_owned()));
    let command = match entry {
        Entry::Register => Command::Register { account, password },
        Entry::LogIn | Entry::Mistype => Command::LogIn {
            account,
            password,
            code: None,
        },
    };
    // Whatever comes of it, the token may be another one, or none.
    if let Some(id) = type_in(world, n, command) {
        let host = &mut world.hosts[n];
        let removals = world.server.enrolments.removals(&host.account);
        host.entries.insert(id, (entry, removals));
    }
}

/// A person logs out.
pub fn log_out(world: &mut World, n: usize) {
    type_in(world, n, Command::LogOut);
}

fn type_in(world: &mut World, n: usize, command: Command) -> Option<CommandId> {
    let id = world.command(n, command);
    let host = &mut world.hosts[n];
    host.may_need_password = true;
    host.last_typed = id;
    id
}

/// Types the password wherever a device asks for it.
pub fn answer_prompts(world: &mut World) {
    for n in 0..world.hosts.len() {
        if needs_password(world, n) && (world.hosts[n].may_need_password || is_out(world, n)) {
            let account = world.hosts[n].account.clone();
            let entry = match world.server.has_account(&account) {
                true => Entry::LogIn,
                false => Entry::Register,
            };
            // Guesses may have blocked the name while nobody had it.
            if entry == Entry::LogIn {
                world.unblock(n);
            }
            enter(world, n, entry);
        }
    }
}

/// Gives accounts their identity that have none, because a program ended between two steps.
pub fn found_missing(world: &mut World) {
    for n in 0..world.hosts.len() {
        let host = &world.hosts[n];
        let has_log = host.disk.has_log(&host.account);
        if world.has_identities && !has_log && connection(world, n) == Some(ConnectionState::Online)
        {
            found(world, n);
        }
    }
}

/// This device gives its account an identity, unless it has one.
fn found(world: &mut World, n: usize) {
    let secret = DeviceSecret::from_seed(world.hosts[n].secret);
    let recovery = identity::recovery(&secret).secret().public();
    world.command(n, Command::Found { recovery });
}

/// Tells whether the server knows a device no longer. A removal may come after the log-in before it.
fn is_out(world: &World, n: usize) -> bool {
    let host = &world.hosts[n];
    let device_key = DeviceSecret::from_seed(host.secret).public();
    !world.server.has_device(&host.account, device_key)
}

fn needs_password(world: &mut World, n: usize) -> bool {
    let offline = |retry_in_s: &Option<u32>| retry_in_s.is_none();
    matches!(
        connection(world, n),
        Some(ConnectionState::Offline { retry_in_s, .. }) if offline(&retry_in_s)
    ) && world.hosts[n].entries.is_empty()
}

/// The state of a host's control connection, if it is on and awake.
pub fn connection(world: &mut World, n: usize) -> Option<ConnectionState> {
    let id = world.command(n, Command::Status)?;
    match world.hosts[n].replies.remove(&id) {
        Some(Ok(Reply::Status(status))) => Some(status.connection),
        _ => None,
    }
}

/// Compares what comes of an entry with what the person typed.
pub fn on_reply(
    world: &mut World,
    n: usize,
    id: CommandId,
    reply: &Result<Reply, CommandError>,
) -> Result<(), Violation> {
    let Some((entry, removals)) = world.hosts[n].entries.remove(&id) else {
        return Ok(());
    };
    let is_removed = world.server.enrolments.removals(&world.hosts[n].account) > removals;
    match (entry, reply) {
        (Entry::Mistype, Ok(_)) => Err(Violation::new(&format!(
            "p{n} got in with a wrong password"
        ))),
        (Entry::LogIn, Err(CommandError::WrongPassword)) if !is_removed => Err(Violation::new(
            &format!("the password of p{n} was called wrong"),
        )),
        (Entry::Register | Entry::LogIn, Ok(_)) => {
            world.model.log_ins += 1;
            let host = &mut world.hosts[n];
            // A log-out that was typed meanwhile comes after it.
            host.may_need_password &= host.last_typed != Some(id);
            if entry == Entry::Register && world.has_identities {
                found(world, n);
            }
            Ok(())
        }
        (_, Err(CommandError::Refused(Refusal::Blocked { .. }) | CommandError::WrongPassword)) => {
            world.model.refused += 1;
            Ok(())
        }
        (_, Err(_)) => Ok(()),
    }
}
