//! What is not as it should be, and whether a healed world comes to rest.

use std::fmt;
use std::time::Duration;

use common::limits::SESSION_IDLE_TIMEOUT;
use peer::node::Node;
use peer::node::command::{Command, ConnectionState, Direction, Event, MessageState, Reply};

use rendezvous::server::Server;

use super::world::World;
use super::{login, step};

/// Virtual time in which a healed world must be at rest.
const REST_MAX: Duration = Duration::from_secs(600);
/// How often it is looked at.
const PACE: Duration = Duration::from_secs(2);
/// Slack on top of a limit, for messages on their way.
const SLACK: Duration = Duration::from_secs(5);

/// Something that must not be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    what: String,
}

impl Violation {
    /// In words.
    pub fn new(what: &str) -> Self {
        Self {
            what: what.to_owned(),
        }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl std::error::Error for Violation {}

/// What must be true at every moment.
pub fn always(world: &World) -> Result<(), Violation> {
    directory(world)?;
    bounds(world)
}

/// Nobody is listed who has been off for longer than the server's limit.
fn directory(world: &World) -> Result<(), Violation> {
    let Some(engine) = &world.server.engine else {
        return Ok(());
    };
    for host in &world.hosts {
        let gone = host
            .off_since
            .map(|since| world.now.saturating_duration_since(since));
        let is_late = gone.is_some_and(|gone| gone > SESSION_IDLE_TIMEOUT + SLACK);
        if is_late && !engine.directory().find(&host.account).is_empty() {
            return Err(Violation::new(&format!(
                "{} is listed and has been gone for {gone:?}",
                host.account
            )));
        }
    }
    Ok(())
}

/// Nothing holds more than its bound allows.
fn bounds(world: &World) -> Result<(), Violation> {
    let nodes = world.hosts.iter().filter_map(|host| host.node.as_ref());
    let server = world.server.engine.iter().flat_map(Server::occupancies);
    for occupancy in nodes.flat_map(Node::occupancies).chain(server) {
        if occupancy.count > occupancy.max {
            return Err(Violation::new(&format!("over its bound: {occupancy:?}")));
        }
    }
    Ok(())
}

/// Repairs everything, and waits until nothing is on its way that could arrive.
pub fn rest(world: &mut World) -> Result<Duration, Violation> {
    let began = world.now;
    while world.now.saturating_duration_since(began) < REST_MAX {
        world.pass(PACE);
        for n in 0..world.hosts.len() {
            step::take_replies(world, n);
        }
        login::answer_prompts(world);
        login::found_missing(world);
        if let Some(violation) = &world.violation {
            return Err(violation.clone());
        }
        if missing(world).is_empty() && all_are_online(world) {
            final_state(world)?;
            return Ok(world.now.saturating_duration_since(began));
        }
    }
    let missing = missing(world);
    let some = missing[..missing.len().min(3)].join("; ");
    let whys: Vec<String> = (0..world.hosts.len())
        .map(|n| situation(world, n))
        .collect();
    Err(Violation::new(&format!(
        "not at rest {REST_MAX:?} after healing: {some}; {}",
        whys.join("; ")
    )))
}

fn all_are_online(world: &mut World) -> bool {
    (0..world.hosts.len()).all(|n| login::connection(world, n) == Some(ConnectionState::Online))
}

/// What a host says of itself: the reason to look for.
fn situation(world: &mut World, n: usize) -> String {
    let Some(id) = world.command(n, Command::Status) else {
        return format!("p{n} is off or asleep");
    };
    match world.hosts[n].replies.remove(&id) {
        Some(Ok(Reply::Status(status))) => format!(
            "p{n} is {:?}, has the links {:?}, announces {:?}",
            status.connection, status.links, status.endpoints
        ),
        other => format!("p{n} says {other:?}"),
    }
}

/// What should have arrived and has not.
fn missing(world: &World) -> Vec<String> {
    let mut missing = Vec::new();
    for host in &world.hosts {
        for row in host.disk.rows() {
            let waits = row.direction == Direction::Sent && row.state < MessageState::Delivered;
            // Where somebody else has the name by now, it waits until a person says what is to become of it.
            let is_told = host.events.iter().any(
                |event| matches!(event, Event::OtherAccount { account } if *account == row.with),
            );
            let is_there = world.hosts.iter().any(|other| other.account == row.with);
            if waits && is_there && !is_told {
                let (author, id) = (&host.account, row.message.id);
                missing.push(format!(
                    "{id} from {author} to {} is {:?}",
                    row.with, row.state
                ));
            }
        }
    }
    missing
}

/// At rest both sides have the same.
fn final_state(world: &World) -> Result<(), Violation> {
    for (n, host) in world.hosts.iter().enumerate() {
        for sent in world.model.acknowledged(n) {
            let row = host.disk.rows().iter().find(|row| row.message.id == *sent);
            // One that waited until it was known to whom it is has another identifier by now, which a crash may have
            // kept from being told.
            let number = u64::from_be_bytes(*sent.as_bytes().last_chunk().expect("16 bytes"));
            let is_of_entry = number <= common::limits::SEQUENCE_MAX;
            if row.is_none() && is_of_entry {
                return Err(Violation::new(&format!(
                    "{sent} was taken by {} and is not in its history",
                    host.account
                )));
            }
        }
        world.model.check_history(n, &world.hosts)?;
    }
    Ok(())
}
