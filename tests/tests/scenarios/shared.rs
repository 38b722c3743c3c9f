//! What the scenarios share: worlds to begin with, and what people do and see in them.

use std::path::PathBuf;
use std::time::Duration;

use common::wire::peer::MessageBody;
use peer::node::command::{Command, CommandError, Direction, Reply};
use tests::sim::net::{Dependence, Faults, NatOptions, Realm};
use tests::sim::world::{Home, World, WorldOptions};

/// Virtual time after which nothing comes any more.
const PATIENCE: Duration = Duration::from_secs(300);

/// A world in which everybody is logged in.
pub(crate) fn world(hosts: usize, faults: Faults) -> World {
    let seed = 7;
    let mut world = World::new(&WorldOptions::new(seed, hosts, faults));
    world.pass(Duration::from_secs(5));
    world
}

/// A NAT that lets everybody in who knows a mapping, and one that lets in who was talked to.
pub(crate) const OPEN: NatOptions = NatOptions {
    mapping: Dependence::EndpointIndependent,
    filtering: Dependence::EndpointIndependent,
    preserves_ports: false,
    hairpins: false,
    expiry: Duration::from_secs(120),
};
pub(crate) const CLOSED: NatOptions = NatOptions {
    filtering: Dependence::AddressAndPortDependent,
    ..OPEN
};

/// A world in which each host is behind the NAT of this number.
pub(crate) fn households<const N: usize>(nats: [NatOptions; N], behind: &[usize]) -> World {
    let home = |number: &usize| Home {
        realm: Realm::Behind(*number),
        ..Home::PUBLIC
    };
    let mut world = World::new(&WorldOptions {
        nats: nats.to_vec(),
        homes: behind.iter().map(home).collect(),
        ..WorldOptions::new(7, 0, Faults::NONE)
    });
    world.pass(Duration::from_secs(5));
    world
}

/// A world with a host whose person has no account yet.
pub(crate) fn newcomer() -> World {
    let stranger = Home {
        is_enrolled: false,
        ..Home::PUBLIC
    };
    let mut world = World::new(&WorldOptions {
        homes: vec![Home::PUBLIC, stranger],
        uses_passwords: true,
        ..WorldOptions::new(7, 0, Faults::NONE)
    });
    world.pass(Duration::from_secs(5));
    world
}

/// The first host offers a file of `len` bytes to the second, who takes it.
pub(crate) fn start_file(world: &mut World, len: u32) -> Vec<u8> {
    let bytes: Vec<u8> = (0..len).map(|at| (at / 5) as u8).collect();
    let path = PathBuf::from("/out/file");
    world.hosts[0].disk.put(path.clone(), bytes.clone());
    let to = world.hosts[1].account.clone();
    world.command(0, Command::SendFile { to, path }).unwrap();
    until(world, |world| !world.hosts[1].offers.is_empty());
    let transfer = world.hosts[1].offers[0];
    let folder = Some(PathBuf::from("/in"));
    world.command(1, Command::AnswerOffer { transfer, folder });
    bytes
}

pub(crate) fn say(world: &mut World, from: usize, to: usize, text: &str) {
    let reply = try_to_say(world, from, to, text);
    assert!(matches!(reply, Ok(Reply::Queued(_))), "{reply:?}");
}

#[track_caller]
pub(crate) fn try_to_say(
    world: &mut World,
    from: usize,
    to: usize,
    text: &str,
) -> Result<Reply, CommandError> {
    let to = world.hosts[to].account.clone();
    world.model.on_typed(from, &to, text);
    let id = world.command(
        from,
        Command::Send {
            to: vec![to],
            body: MessageBody::try_from(text.to_owned()).unwrap(),
            sent: world.wall,
        },
    );
    let id = id.unwrap();
    until(world, |world| world.hosts[from].replies.contains_key(&id));
    world.hosts[from].replies.remove(&id).unwrap()
}

pub(crate) fn received(world: &World, host: usize) -> Vec<&str> {
    let rows = world.hosts[host].disk.rows().iter();
    let received = rows.filter(|row| row.direction == Direction::Received);
    received.map(|row| row.message.body.as_str()).collect()
}

/// Messages without a receipt.
pub(crate) fn waiting(world: &World, host: usize) -> usize {
    world.hosts[host].disk.restore().outbox.len()
}

#[track_caller]
pub(crate) fn until(world: &mut World, done: impl Fn(&World) -> bool) {
    let end = world.now + PATIENCE;
    while !done(world) {
        assert_eq!(world.violation, None);
        assert!(world.now < end, "it never came");
        world.pass(Duration::from_millis(10));
    }
}
