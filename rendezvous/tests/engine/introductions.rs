//! Introductions: whom a device is introduced to, through which channel, and how often.

use std::net::SocketAddr;
use std::time::Duration;

use common::id::AccountName;
use common::limits::{
    INTRODUCED_BURST_MAX, INTRODUCTION_LIFETIME, INTRODUCTIONS_BURST_MAX,
    INTRODUCTIONS_PER_SECOND_MAX, RELAY_CHANNEL_IDLE_TIMEOUT, RELAY_CHANNELS_PER_DEVICE_MAX,
};
use common::wire::channel::{AllocationId, ChannelDatagram, EndId};
use common::wire::rendezvous::{
    Answer, DeviceRequest, Introduction, IntroductionAnswer, IntroductionPush, IntroductionRequest,
    Push, Refusal, Role, ServerFrame,
};
use rendezvous::relay::{Batch, ChannelId, Output};
use rendezvous::server::{Command, ConnectionId, Input};

use super::world::{HOME, World, addr, device};

/// A person's device that is online, with its allocation.
struct Online {
    connection: ConnectionId,
    allocation: AllocationId,
    /// Where its packets come from.
    udp: SocketAddr,
}

fn name(account: &str) -> AccountName {
    account.parse().unwrap()
}

fn allocation(world: &mut World, connection: ConnectionId) -> AllocationId {
    let answer = world.ask(connection, IntroductionRequest::Allocate);
    let Answer::Introduction(IntroductionAnswer::Allocated { allocation, .. }) = answer else {
        panic!("{answer:?}");
    };
    allocation
}

/// Sends a datagram to the relay; returns what that sends, and where to.
fn datagram(
    world: &mut World,
    datagram: ChannelDatagram<'_>,
    source: SocketAddr,
) -> Option<(SocketAddr, Vec<u8>)> {
    let mut bytes = datagram.to_bytes();
    let mut outputs = Vec::new();
    let batch = Batch {
        stride: bytes.len(),
        bytes: &mut bytes,
        source,
        local: None,
    };
    world.relay.handle_batch(batch, world.now, &mut outputs);
    match outputs.pop()? {
        Output::Answer(answer) => Some((source, answer)),
        Output::Forward { to, part, .. } => Some((to, bytes[part].to_vec())),
        output @ (Output::AnswerFromOther(_) | Output::ForwardToControl { .. }) => {
            panic!("{output:?}")
        }
    }
}

impl Online {
    /// A device of an account comes online, and binds its allocation.
    fn come(world: &mut World, account: &str, number: u8) -> Self {
        let connection = world.online(account, number);
        let allocation = allocation(world, connection);
        let udp = addr(&format!("198.51.100.{number}:4000"));
        let bind = datagram(world, ChannelDatagram::Bind(allocation), udp)
            .unwrap()
            .1;
        let Some(ChannelDatagram::Challenge(id, cookie)) = ChannelDatagram::parse(&bind) else {
            panic!("{bind:?}");
        };
        datagram(world, ChannelDatagram::Proof(id, cookie), udp).unwrap();
        Self {
            connection,
            allocation,
            udp,
        }
    }
}

fn ask(world: &mut World, connection: ConnectionId, account: &str) -> Answer {
    let account = name(account);
    world.ask(connection, IntroductionRequest::Introduce { account })
}

fn introduce(world: &mut World, connection: ConnectionId, account: &str) -> Vec<Introduction> {
    let answer = ask(world, connection, account);
    let Answer::Introduction(IntroductionAnswer::Introduced { introductions }) = answer else {
        panic!("{answer:?}");
    };
    introductions
}

/// The introductions that a session was pushed.
fn pushed(world: &mut World, connection: ConnectionId) -> Vec<Introduction> {
    let inbox = world.inboxes.remove(&connection).unwrap_or_default();
    let pushed = inbox.into_iter().map(|frame| {
        let ServerFrame::Push(Push::Introduction(IntroductionPush::Introduced(it))) = frame else {
            panic!("{frame:?}");
        };
        it
    });
    pushed.collect()
}

/// Where a packet gets to that an end sends, and for which end it is there.
fn arrives(world: &mut World, end: EndId, source: SocketAddr) -> Option<(SocketAddr, EndId)> {
    let packet = b"packet";
    let (to, bytes) = datagram(world, ChannelDatagram::Packet { end, packet }, source)?;
    match ChannelDatagram::parse(&bytes) {
        Some(ChannelDatagram::Packet { end, .. }) => Some((to, end)),
        other => panic!("{other:?}"),
    }
}

fn is_busy(answer: &Answer) -> bool {
    matches!(answer, Answer::Refused(Refusal::Busy { .. }))
}

/// How many allocations and channels the relay has.
fn relayed(world: &World) -> [usize; 2] {
    let [allocations, channels, _waiting] = world.relay.occupancies();
    [allocations.count, channels.count]
}

/// Alice and Bob, introduced to each other by Alice; and what each was told.
fn introduced() -> (World, [Online; 2], [Introduction; 2]) {
    let mut world = World::new();
    let alice = Online::come(&mut world, "alice", 1);
    let bob = Online::come(&mut world, "bob", 2);
    let told = introduce(&mut world, alice.connection, "bob");
    let pushed = pushed(&mut world, bob.connection);
    let [told, pushed] = [told, pushed].map(|mut all| {
        assert_eq!(all.len(), 1);
        all.remove(0)
    });
    (world, [alice, bob], [told, pushed])
}

#[test]
fn both_sides_are_told_whom_to_expect_and_reach_each_other_at_once() {
    let (mut world, [alice, bob], [told, pushed]) = introduced();
    assert_eq!((told.role, pushed.role), (Role::Client, Role::Server));
    let entries = world.list(alice.connection).entries;
    assert_eq!([&pushed.entry, &told.entry], [&entries[0], &entries[1]]);
    let [hers, his] = [told.end.unwrap(), pushed.end.unwrap()];
    assert_ne!(hers, his);
    assert_eq!(arrives(&mut world, hers, alice.udp), Some((bob.udp, his)));
    assert_eq!(arrives(&mut world, his, bob.udp), Some((alice.udp, hers)));
}

#[test]
fn whoever_asks_at_the_same_time_gets_the_same_introduction() {
    let (mut world, [alice, bob], [told, pushed]) = introduced();
    world.advance(INTRODUCTION_LIFETIME - Duration::from_millis(1));
    let again = introduce(&mut world, bob.connection, "alice");
    assert_eq!(again, [pushed], "he waits for her handshake");
    assert_eq!(introduce(&mut world, alice.connection, "bob"), [told]);
    for connection in [alice.connection, bob.connection] {
        assert_eq!(self::pushed(&mut world, connection), []);
    }
    // Later it is his turn, over the same channel.
    world.advance(Duration::from_millis(1));
    let later = introduce(&mut world, bob.connection, "alice").remove(0);
    assert_eq!((later.role, later.end), (Role::Client, again[0].end));
    let pushed = self::pushed(&mut world, alice.connection);
    assert_eq!(pushed[0].role, Role::Server);
    assert_eq!(relayed(&world), [2, 1]);
}

#[test]
fn a_device_that_has_restarted_is_introduced_anew() {
    let (mut world, [alice, bob], [told, _]) = introduced();
    world.disconnect(bob.connection);
    let back = Online::come(&mut world, "bob", 2);
    assert_eq!(back.allocation, bob.allocation, "its channels go on");
    let again = introduce(&mut world, alice.connection, "bob").remove(0);
    assert_eq!((again.role, again.end), (Role::Client, told.end));
    assert_eq!(pushed(&mut world, back.connection).len(), 1);
}

#[test]
fn all_devices_that_are_online_are_introduced_and_nobody_to_themselves() {
    let mut world = World::new();
    let alice = Online::come(&mut world, "alice", 1);
    let others = [2, 3].map(|number| Online::come(&mut world, "alice", number));
    world.member("alice", 4, HOME);
    let told = introduce(&mut world, alice.connection, "alice");
    assert_eq!(told.len(), 2, "one is not in the directory");
    assert_ne!(told[0].end, told[1].end);
    for other in others {
        assert_eq!(pushed(&mut world, other.connection).len(), 1);
    }
    for nobody in ["bob", "zed"] {
        assert_eq!(introduce(&mut world, alice.connection, nobody), []);
    }
}

#[test]
fn without_an_allocation_there_is_an_introduction_and_no_channel() {
    let mut world = World::new();
    let alice = Online::come(&mut world, "alice", 1);
    let bob = world.online("bob", 2);
    let told = introduce(&mut world, alice.connection, "bob").remove(0);
    assert_eq!((told.end, told.role), (None, Role::Client));
    assert_eq!(pushed(&mut world, bob)[0].end, None);
    assert_eq!(relayed(&world), [1, 0]);
}

#[test]
fn a_server_may_relay_nothing() {
    let mut world = World::with(|options| options.relay_rate = None);
    let [alice, bob] = [("alice", 1), ("bob", 2)].map(|(it, number)| world.online(it, number));
    let answer = world.ask(alice, IntroductionRequest::Allocate);
    assert_eq!(answer, Refusal::RelayOff.into());
    assert_eq!(introduce(&mut world, alice, "bob")[0].end, None);
    assert_eq!(pushed(&mut world, bob).len(), 1);
}

#[test]
fn a_link_through_the_relay_outlives_both_sessions() {
    let (mut world, [alice, bob], [told, pushed]) = introduced();
    let [hers, his] = [told.end.unwrap(), pushed.end.unwrap()];
    world.disconnect(alice.connection);
    world.disconnect(bob.connection);
    assert_eq!(arrives(&mut world, hers, alice.udp), Some((bob.udp, his)));
    assert_eq!(relayed(&world), [2, 1]);
    // Once nobody uses it, nothing is left.
    world.advance(RELAY_CHANNEL_IDLE_TIMEOUT + Duration::from_secs(15));
    assert_eq!(relayed(&world), [0, 0]);
    assert!(
        world
            .server
            .occupancies()
            .iter()
            .all(|it| it.count == 0 || !it.what.contains("alloc"))
    );
}

#[test]
fn a_channel_that_was_closed_is_not_given_out_again() {
    let (mut world, [alice, _], [told, _]) = introduced();
    let channel = ChannelId(1);
    world.relay.close(channel);
    world.input(Input::ChannelClosed { channel });
    assert_eq!(relayed(&world), [2, 0], "the devices are online");
    let later = introduce(&mut world, alice.connection, "bob").remove(0);
    assert!(later.end.is_some());
    assert_ne!(later.end, told.end);
}

#[test]
fn t49_whoever_is_out_relays_nothing_any_more() {
    for is_removed in [false, true] {
        let (mut world, [alice, bob], [told, pushed]) = introduced();
        if is_removed {
            world.command(Command::RemoveAccount(name("bob")));
        } else {
            world.send(bob.connection, DeviceRequest::LogOut);
        }
        assert_eq!(arrives(&mut world, told.end.unwrap(), alice.udp), None);
        assert_eq!(arrives(&mut world, pushed.end.unwrap(), bob.udp), None);
        assert_eq!(relayed(&world), [1, 0]);
        let bind = ChannelDatagram::Bind(bob.allocation);
        assert_eq!(datagram(&mut world, bind, bob.udp), None);
    }
}

#[test]
fn t49_a_device_that_changes_hands_pays_with_its_new_account() {
    let (mut world, [_, bob], _) = introduced();
    let carol = world.connect(HOME);
    world.add("carol");
    world.log_in(carol, "carol", &device(2));
    let allocation = allocation(&mut world, carol);
    assert_ne!(allocation, bob.allocation);
    assert_eq!(relayed(&world), [2, 0]);
}

#[test]
fn t49_introductions_have_a_pace_for_whoever_asks_and_whoever_is_asked_for() {
    let mut world = World::new();
    let bob = world.online("bob", 200);
    let askers: Vec<ConnectionId> = (1..=6)
        .map(|number| world.online("alice", number))
        .collect();
    let burst = INTRODUCTIONS_BURST_MAX;
    for _ in 0..burst {
        introduce(&mut world, askers[0], "bob");
    }
    assert!(is_busy(&ask(&mut world, askers[0], "bob")));
    assert!(is_busy(&ask(&mut world, askers[0], "nobody")));
    // Others are not slowed down by that, but by what Bob can take.
    let mut taken = burst;
    for asker in &askers[1..] {
        while !is_busy(&ask(&mut world, *asker, "bob")) {
            taken += 1;
            assert!(taken <= INTRODUCED_BURST_MAX);
        }
    }
    assert_eq!(taken, INTRODUCED_BURST_MAX);
    let told = INTRODUCED_BURST_MAX / burst;
    assert_eq!(pushed(&mut world, bob).len(), told as usize);
    world.advance(Duration::from_secs(1));
    for _ in 0..INTRODUCTIONS_PER_SECOND_MAX {
        introduce(&mut world, askers[0], "nobody");
    }
    assert!(is_busy(&ask(&mut world, askers[0], "nobody")));
}

#[test]
fn t49_a_device_has_so_many_channels_and_no_more() {
    let mut world = World::new();
    let alice = Online::come(&mut world, "alice", 9);
    let accounts = RELAY_CHANNELS_PER_DEVICE_MAX / 4 + 1;
    for number in 0..4 * accounts {
        let other = world.online_with_token(number as u16);
        allocation(&mut world, other);
    }
    let mut ends = Vec::new();
    for account in 0..accounts {
        world.now += Duration::from_secs(1);
        let told = introduce(&mut world, alice.connection, &format!("user{account:03}"));
        ends.extend(told.into_iter().map(|it| it.end));
    }
    assert_eq!(ends.len(), 4 * accounts);
    assert_eq!(ends.iter().flatten().count(), RELAY_CHANNELS_PER_DEVICE_MAX);
    assert_eq!(ends.last(), Some(&None));
}
