//! Datagrams of the relay that come and go over control connections.

use common::wire::channel::{AllocationId, ChannelDatagram};
use common::wire::rendezvous::{
    Answer, ByeReason, IntroductionAnswer, IntroductionRequest, Push, RelayDatagrams, ServerFrame,
};
use rendezvous::server::{CloseReason, ConnectionId};

use crate::world::World;

fn train(datagram: ChannelDatagram<'_>) -> RelayDatagrams {
    let bytes = datagram.to_bytes();
    RelayDatagrams {
        stride: u16::try_from(bytes.len()).unwrap(),
        bytes,
    }
}

/// The datagrams that a session was pushed, each parsed by `take`.
fn pushed<T>(
    world: &mut World,
    connection: ConnectionId,
    take: impl Fn(ChannelDatagram<'_>) -> T,
) -> Vec<T> {
    let inbox = world.inboxes.remove(&connection).unwrap_or_default();
    let pushed = inbox.into_iter().map(|frame| {
        let ServerFrame::Push(Push::Relay(RelayDatagrams { bytes, .. })) = frame else {
            panic!("{frame:?}");
        };
        take(ChannelDatagram::parse(&bytes).unwrap())
    });
    pushed.collect()
}

fn allocation(world: &mut World, connection: ConnectionId) -> AllocationId {
    let answer = world.ask(connection, IntroductionRequest::Allocate);
    let Answer::Introduction(IntroductionAnswer::Allocated { allocation, .. }) = answer else {
        panic!("{answer:?}");
    };
    allocation
}

/// A device that has bound its allocation over its control connection.
fn bound(world: &mut World, account: &str, number: u8) -> ConnectionId {
    let connection = world.online(account, number);
    let id = allocation(world, connection);
    world.send(connection, train(ChannelDatagram::Bind(id)));
    let challenges = pushed(world, connection, |datagram| {
        let ChannelDatagram::Challenge(of, cookie) = datagram else {
            panic!("{datagram:?}");
        };
        assert_eq!(of, id);
        cookie
    });
    assert_eq!(challenges.len(), 1);
    world.send(connection, train(ChannelDatagram::Proof(id, challenges[0])));
    let is_bound = |datagram: ChannelDatagram<'_>| datagram == ChannelDatagram::Bound(id);
    assert_eq!(pushed(world, connection, is_bound), [true]);
    connection
}

#[test]
fn two_devices_without_udp_reach_each_other() {
    let mut world = World::new();
    let alice = bound(&mut world, "alice", 1);
    let bob = bound(&mut world, "bob", 2);
    let account = "bob".parse().unwrap();
    let answer = world.ask(alice, IntroductionRequest::Introduce { account });
    let Answer::Introduction(IntroductionAnswer::Introduced { introductions }) = answer else {
        panic!("{answer:?}");
    };
    world.inboxes.clear();
    let end = introductions[0].end.unwrap();
    world.send(
        alice,
        train(ChannelDatagram::Packet {
            end,
            packet: b"packet",
        }),
    );
    let arrived = pushed(&mut world, bob, |datagram| {
        let ChannelDatagram::Packet { end: his, packet } = datagram else {
            panic!("{datagram:?}");
        };
        his != end && packet == b"packet"
    });
    assert_eq!(arrived, [true]);
    // A number that is open, or was never used, is as good as any: nothing answers it.
    assert!(world.inbox(alice).is_empty());
}

#[test]
fn whoever_is_gone_gets_nothing() {
    let mut world = World::new();
    let alice = bound(&mut world, "alice", 1);
    world.disconnect(alice);
    world.tell_control(alice, vec![1; 20]);
    world.pump();
    assert!(world.inbox(alice).is_empty());
}

#[test]
fn t20_datagrams_of_strangers_or_without_a_length_end_the_session() {
    let fair = || RelayDatagrams {
        stride: 33,
        bytes: vec![129; 33],
    };
    let mut world = World::new();
    let stranger = world.connect("192.0.2.1:4000");
    world.send(stranger, fair());
    assert_eq!(world.bye(stranger), Some(ByeReason::Malformed));
    for stride in [0, 1, 16] {
        let member = world.online("alice", 1);
        world.send(member, RelayDatagrams { stride, ..fair() });
        let malformed = CloseReason::Said(ByeReason::Malformed);
        assert_eq!(world.closed.get(&member), Some(&malformed));
    }
}

/// Whoever runs no relay has nothing to do with what is sent there.
#[test]
fn without_a_relay_datagrams_go_nowhere() {
    let mut world = World::with(|options| options.relay_rate = None);
    let alice = world.online("alice", 1);
    let id = AllocationId::from_bytes([1; 16]);
    world.send(alice, train(ChannelDatagram::Bind(id)));
    assert!(world.inbox(alice).is_empty());
    assert!(!world.closed.contains_key(&alice));
}
