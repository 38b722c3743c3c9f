//! What the scenarios share: worlds to begin with, and what people do and see in them.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use common::id::{AccountName, MessageId, TransferId};
use common::wire::peer::{MessageBody, VERSION};
use common::wire::rendezvous::{
    Answer, Change, DirectoryAnswer, DirectoryPush, DirectoryVersion, Entry, Introduction,
    IntroductionAnswer, IntroductionPush, Push, Role, ServerFrame,
};
use peer::node::Node;
use peer::node::command::{
    Command, CommandError, CommandId, ConnectionState, Direction, Event, MessageState, Reply,
    TransferState,
};
use tests::sim::login;
use tests::sim::net::{Dependence, Faults, NatOptions, Realm, Site};
use tests::sim::outsider::Outsider;
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
#[track_caller]
pub(crate) fn start_file(world: &mut World, len: u32) -> Vec<u8> {
    let (transfer, bytes) = offer(world, len);
    answer(world, transfer, true);
    bytes
}

#[track_caller]
pub(crate) fn say(world: &mut World, from: usize, to: usize, text: &str) -> MessageId {
    let reply = try_to_say(world, from, to, text);
    let Ok(Reply::Queued(ids)) = &reply else {
        panic!("not queued: {reply:?}");
    };
    ids[0]
}

#[track_caller]
pub(crate) fn try_to_say(
    world: &mut World,
    from: usize,
    to: usize,
    text: &str,
) -> Result<Reply, CommandError> {
    let id = begin_to_say(world, from, to, text);
    reply_to(world, from, id)
}

/// The same without waiting for a reply.
#[track_caller]
pub(crate) fn begin_to_say(world: &mut World, from: usize, to: usize, text: &str) -> CommandId {
    let to = world.hosts[to].account.clone();
    world.model.on_typed(from, &to, text);
    let body = MessageBody::try_from(text.to_owned()).unwrap();
    let (to, sent) = (vec![to], world.wall);
    let send = Command::Send { to, body, sent };
    world.command(from, send).unwrap()
}

/// Asks something, and waits for the reply.
#[track_caller]
pub(crate) fn ask(world: &mut World, host: usize, command: Command) -> Result<Reply, CommandError> {
    let id = world.command(host, command).unwrap();
    reply_to(world, host, id)
}

#[track_caller]
fn reply_to(world: &mut World, host: usize, id: CommandId) -> Result<Reply, CommandError> {
    until(world, |world| world.hosts[host].replies.contains_key(&id));
    world.hosts[host].replies.remove(&id).unwrap()
}

/// The first host offers the second a file of `len` bytes.
#[track_caller]
pub(crate) fn offer(world: &mut World, len: u32) -> (TransferId, Vec<u8>) {
    offer_of(world, "/out/file", len)
}

/// The same with a file of this path.
#[track_caller]
pub(crate) fn offer_of(world: &mut World, path: &str, len: u32) -> (TransferId, Vec<u8>) {
    let bytes: Vec<u8> = (0..len).map(|at| (at / 5) as u8).collect();
    let path = PathBuf::from(path);
    world.hosts[0].disk.put(path.clone(), bytes.clone());
    let to = world.hosts[1].account.clone();
    let transfer = send_file(world, to, path);
    until(world, |world| world.hosts[1].offers.contains(&transfer));
    (transfer, bytes)
}

/// The first host sends a file that it has.
#[track_caller]
pub(crate) fn send_file(world: &mut World, to: AccountName, path: PathBuf) -> TransferId {
    let reply = ask(world, 0, Command::SendFile { to, path });
    let Ok(Reply::Started(transfer)) = reply else {
        panic!("it cannot be read: {reply:?}");
    };
    transfer
}

/// The second host takes or declines what it is offered.
pub(crate) fn answer(world: &mut World, transfer: TransferId, takes_it: bool) {
    let folder = takes_it.then(|| PathBuf::from("/in"));
    world
        .command(
            1,
            Command::AnswerOffer {
                transfer,
                folder,
                name: None,
            },
        )
        .unwrap();
}

/// How a transfer ended at a host, once it has.
#[track_caller]
pub(crate) fn end(world: &mut World, host: usize, transfer: TransferId) -> TransferState {
    let end = |world: &World| {
        let mut ends = world.hosts[host].events.iter().rev().filter_map(|event| {
            let Event::Transfer {
                transfer: of,
                state,
            } = event
            else {
                return None;
            };
            (*of == transfer && state.is_final()).then(|| state.clone())
        });
        ends.next()
    };
    until(world, |world| end(world).is_some());
    end(world).unwrap()
}

/// The offers at a host that nobody has answered.
#[track_caller]
pub(crate) fn open_offers(world: &mut World, host: usize) -> usize {
    match ask(world, host, Command::Offers) {
        Ok(Reply::Offers(offers)) => offers.len(),
        other => panic!("{other:?}"),
    }
}

/// What a host has shown in this life.
pub(crate) fn shown(world: &World, host: usize) -> Vec<&str> {
    let events = world.hosts[host].events.iter();
    let texts = events.filter_map(|event| {
        let Event::Message(item) = event else {
            return None;
        };
        Some(item.body.as_str())
    });
    texts.collect()
}

/// Tells whether an author has heard in this life that a message is so far.
pub(crate) fn has_state(world: &World, host: usize, id: MessageId, state: MessageState) -> bool {
    let events = &world.hosts[host].events;
    let new = events.iter().find_map(|event| {
        let Event::Addressed { id: of, new, .. } = event else {
            return None;
        };
        (*of == id).then_some(*new)
    });
    events.iter().any(|event| {
        let Event::MessageState {
            id: of, state: is, ..
        } = event
        else {
            return false;
        };
        (*of, *is) == (new.unwrap_or(id), state)
    })
}

/// Waits for a receipt.
#[track_caller]
pub(crate) fn until_delivered(world: &mut World, host: usize, id: MessageId) {
    until(world, |world| {
        has_state(world, host, id, MessageState::Delivered)
    });
}

/// Nothing gets from any host to another, nor through the relay.
pub(crate) fn separate(world: &mut World) {
    world.server.forwards = false;
    for (from, to) in pairs(world) {
        world.net.cut(Site::Host(from), Site::Host(to));
    }
}

/// Everything gets everywhere again.
pub(crate) fn reunite(world: &mut World) {
    world.server.forwards = true;
    world.net.heal();
}

fn pairs(world: &World) -> Vec<(usize, usize)> {
    let hosts = 0..world.hosts.len();
    let all = hosts
        .clone()
        .flat_map(|from| hosts.clone().map(move |to| (from, to)));
    all.filter(|(from, to)| from != to).collect()
}

/// Waits until a host's control connection is there or is not.
#[track_caller]
pub(crate) fn until_online(world: &mut World, host: usize, is_online: bool) {
    for _ in 0..3_000 {
        let state = login::connection(world, host);
        if (state == Some(ConnectionState::Online)) == is_online {
            return;
        }
        world.pass(Duration::from_millis(100));
    }
    panic!("it never came");
}

/// Ends a host without a word, and starts it anew at another address.
pub(crate) fn crash(world: &mut World, host: usize) {
    world.stop(host, false);
    world.roam(host);
    world.start(host);
}

/// Two who have talked, so that each has pinned the other's key, in a world of so many.
pub(crate) fn acquainted(hosts: usize) -> World {
    let mut world = world(hosts, Faults::NONE);
    let id = say(&mut world, 0, 1, "hello");
    until_delivered(&mut world, 0, id);
    world
}

/// The device of a host that is off, with somebody else at it, dials `to`.
pub(crate) fn outsider(world: &mut World, host: usize, to: usize, versions: &[u16]) -> Outsider {
    world.stop(host, true);
    let address = SocketAddr::from(([198, 51, 100, 77], 6000 + host as u16));
    let secret = world.hosts[host].secret;
    Outsider::dial(world, secret, address, to, versions)
}

/// The same with our version of the protocol, which makes a link.
#[track_caller]
pub(crate) fn linked_outsider(world: &mut World, host: usize, to: usize) -> Outsider {
    let outsider = outsider(world, host, to, &[VERSION]);
    assert_eq!(outsider.lost, None);
    outsider
}

/// The same with two links to `to`, which may be silent apart from each other.
pub(crate) fn twice_linked(host: usize, to: usize) -> (World, Outsider, Outsider) {
    let mut world = world(2, Faults::NONE);
    let mut first = linked_outsider(&mut world, host, to);
    let elsewhere = ([198, 51, 100, 99], 6000).into();
    let secret = world.hosts[host].secret;
    let second = Outsider::dial(&mut world, secret, elsewhere, to, &[VERSION]);
    first.pass(&mut world, Duration::from_millis(100));
    (world, first, second)
}

/// Lets time pass for both, in small steps.
pub(crate) fn pass_both(world: &mut World, outsiders: [&mut Outsider; 2], span: Duration) {
    let [first, second] = outsiders;
    let end = world.now + span;
    while world.now < end {
        first.pass(world, Duration::from_millis(5));
        second.pass(world, Duration::from_millis(5));
    }
}

/// How full something is at a host.
#[track_caller]
pub(crate) fn count(world: &World, host: usize, what: &str) -> usize {
    let occupancies = world.hosts[host].node.as_ref().map(Node::occupancies);
    let mut occupancies = occupancies.unwrap().into_iter();
    let found = occupancies.find(|occupancy| occupancy.what == what);
    found.unwrap().count
}

/// Whose keys a host has shown as new in this life.
pub(crate) fn new_keys(world: &World, host: usize) -> Vec<&str> {
    let events = world.hosts[host].events.iter();
    let accounts = events.filter_map(|event| {
        let Event::NewKey { account, .. } = event else {
            return None;
        };
        Some(account.as_str())
    });
    accounts.collect()
}

/// What the directory has of a host that is online.
pub(crate) fn entry(world: &World, host: usize) -> Entry {
    let engine = world.server.engine.as_ref().unwrap();
    let found = engine.directory().find(&world.hosts[host].account);
    found.into_iter().next().unwrap()
}

/// What the server sends to a host from now on.
pub(crate) fn overhear(world: &mut World, host: usize) -> Rc<RefCell<Vec<ServerFrame>>> {
    let heard = Rc::new(RefCell::new(Vec::new()));
    let kept = Rc::clone(&heard);
    world.tamper(host, move |frame| {
        kept.borrow_mut().push(frame.clone());
        true
    });
    heard
}

/// Whoever a host looks for, from now on the server has these devices for it, and tells of no others.
pub(crate) fn lie_about_devices(
    world: &mut World,
    host: usize,
    devices: Vec<Entry>,
) -> Rc<RefCell<Vec<Entry>>> {
    let devices = Rc::new(RefCell::new(devices));
    let named = Rc::clone(&devices);
    world.tamper(host, move |frame| {
        match frame {
            ServerFrame::Answer {
                answer: Answer::Directory(DirectoryAnswer::Page { entries, .. }),
                ..
            } => entries.clone_from(&named.borrow()),
            ServerFrame::Answer {
                answer: Answer::Introduction(IntroductionAnswer::Introduced { introductions }),
                ..
            } => {
                let named = named.borrow();
                let named = named.iter().cloned().map(|entry| Introduction {
                    entry,
                    end: None,
                    role: Role::Client,
                });
                *introductions = named.collect();
            }
            ServerFrame::Answer { .. } | ServerFrame::Push(_) => {}
        }
        !matches!(frame, ServerFrame::Push(_))
    });
    devices
}

/// Whoever a host asks about or is introduced to, from now on the server says that this is the owner of the key.
/// Whose keys nobody owns is not introduced.
pub(crate) fn lie_about_owners(world: &mut World, host: usize, owner: Option<AccountName>) {
    world.tamper(host, move |frame| {
        match frame {
            ServerFrame::Answer {
                answer: Answer::Directory(DirectoryAnswer::Owner { account }),
                ..
            } => account.clone_from(&owner),
            ServerFrame::Push(Push::Introduction(IntroductionPush::Introduced(introduction))) => {
                let Some(owner) = &owner else { return false };
                introduction.entry.account.clone_from(owner);
            }
            ServerFrame::Answer { .. } | ServerFrame::Push(_) => {}
        }
        true
    });
}

/// The server tells the truth again.
pub(crate) fn be_honest(world: &mut World, host: usize) {
    world.tamper(host, |_| true);
}

/// Counts answers among what the server has sent.
pub(crate) fn answers(heard: &[ServerFrame], is_one: impl Fn(&Answer) -> bool) -> usize {
    let is_one = |frame: &&ServerFrame| match frame {
        ServerFrame::Answer { answer, .. } => is_one(answer),
        ServerFrame::Push(_) => false,
    };
    heard.iter().filter(is_one).count()
}

/// What a server says of a change, true or not.
pub(crate) fn presence(version: u64, change: Change) -> ServerFrame {
    let (version, changes) = (DirectoryVersion(version), vec![change]);
    ServerFrame::Push(Push::Directory(DirectoryPush::Presence {
        version,
        changes,
    }))
}

pub(crate) fn received(world: &World, host: usize) -> Vec<&str> {
    let rows = world.hosts[host].disk.rows().iter();
    let received = rows.filter(|row| row.direction == Direction::Received);
    received.map(|row| row.message.body.as_str()).collect()
}

/// Messages without a receipt.
pub(crate) fn waiting(world: &World, host: usize) -> usize {
    let rows = world.hosts[host].disk.rows().iter();
    let waiting =
        rows.filter(|row| row.direction == Direction::Sent && row.state < MessageState::Delivered);
    waiting.count()
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
