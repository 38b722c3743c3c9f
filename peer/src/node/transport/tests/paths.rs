//! Relayed first, then direct, and back, in a small simulated network.

mod world;

use common::limits::{
    CANDIDATES_MAX, LINK_ACK_TIMEOUT, PATH_ACK_ROUND_TRIPS, PATH_ACK_TIMEOUT,
    RELAY_CHANNEL_IDLE_TIMEOUT, UNPROVEN_FIRST_MINUTE_LEN_MAX,
};
use noq_proto::{PathId, PathStatus};

use super::*;
use crate::node::transport::ack_lag::Paths;
use world::{DELAYS, Delays, FLOW_INTERVAL, FLOW_LEN, V4, V6, World};

/// Time without data after a direct path has died.
const INTERRUPTION_MAX: Duration = Duration::from_secs(2);

#[test]
fn data_moves_from_the_relay_to_a_direct_path() {
    for addresses in [V4, V6] {
        let mut world = World::public(addresses);
        world.connect();
        world.start_flow(0);
        world.run_for(Duration::from_secs(1));
        assert!(world.is_relayed());
        assert_eq!(world.sent.map(|[_, direct]| direct), [0, 0]);

        let began = world.since_start();
        world.go_direct();
        for end in 0..2 {
            let route = Route::Direct(addresses[1 - end].parse().unwrap());
            let offered = (end == 0).then_some(PathChange::AddressesOffered);
            let opened = [PathChange::Opened(route), PathChange::Current(route)];
            let changes = world.changes(end, began).into_iter().map(|(_, it)| it);
            let expected: Vec<_> = offered.into_iter().chain(opened).collect();
            assert_eq!(changes.collect::<Vec<_>>(), expected);
            assert_eq!(world.status(end, false), (PathStatus::Available, 1));
            assert_eq!(world.status(end, true), (PathStatus::Backup, 1));
        }

        world.run_for(Duration::from_secs(1));
        let before = world.sent.map(|[relayed, _]| relayed);
        world.run_for(Duration::from_secs(20));
        for (end, before) in before.into_iter().enumerate() {
            let [relayed, direct] = world.sent[end];
            assert!(relayed - before < 1000, "{} bytes", relayed - before);
            assert!(end == 1 || direct > 5_000_000, "{direct} bytes");
            let link = world.link(end);
            let report = world.ends[end].current_path(link).unwrap();
            assert!(report.round_trip < DELAYS.direct * 3, "{report:?}");
            assert_eq!(world.ends[end].paths(link).len(), 2);
        }
        assert!(world.longest_gap(began) < Duration::from_millis(200));
    }
}

/// Not only if both directions die.
#[test]
fn data_leaves_a_dead_direct_path_within_two_seconds_and_returns() {
    for (relayed, direct) in [(5, 1), (30, 5), (75, 50), (150, 50), (100, 100)] {
        for is_direct_cut in [[true, true], [true, false], [false, true]] {
            for sender in [0, 1] {
                let mut world = World::public(V4);
                world.delays = Delays {
                    relayed: Duration::from_millis(relayed),
                    direct: Duration::from_millis(direct),
                };
                world.connect();
                world.start_flow(sender);
                world.run_for(Duration::from_secs(1));
                world.go_direct();
                world.run_for(Duration::from_secs(3));

                let cut_at = world.since_start();
                world.is_direct_cut = is_direct_cut;
                world.run_until("data goes through the relay", World::is_relayed);
                world.run_for(Duration::from_secs(3));
                let gap = world.longest_gap(cut_at);
                let case = format!("{:?}, cut {is_direct_cut:?}, from {sender}", world.delays);
                assert!(gap <= INTERRUPTION_MAX, "{case}: {gap:?}");

                let healed_at = world.since_start();
                world.is_direct_cut = [false; 2];
                world.go_direct();
                world.run_for(Duration::from_secs(3));
                let gap = world.longest_gap(healed_at);
                assert!(gap < Duration::from_millis(500), "{case}: {gap:?}");
                assert!(!world.has_lost_link());
            }
        }
    }
}

#[test]
fn a_message_after_a_quiet_direct_path_died_arrives_within_two_seconds() {
    let mut world = World::public(V4);
    world.connect();
    world.go_direct();
    world.run_for(Duration::from_secs(60));
    assert!(world.is_direct());
    world.is_direct_cut = [true; 2];
    world.run_for(Duration::from_secs(1));
    assert!(world.is_direct(), "nothing tells that it is dead");
    let written_at = world.since_start();
    world.start_flow(0);
    world.run_for(FLOW_INTERVAL / 2);
    world.flow = None;
    world.run_until("it arrives", |world| world.arrived() == FLOW_LEN);
    let took = world.since_start() - written_at;
    assert!(took <= INTERRUPTION_MAX, "{took:?}");
}

#[test]
fn a_quiet_direct_path_that_died_is_given_up_after_its_idle_timeout() {
    let mut world = World::public(V4);
    world.connect();
    world.go_direct();
    world.run_for(Duration::from_secs(60));
    world.is_direct_cut = [true; 2];
    let took = world.run_until("the path is given up", World::is_relayed);
    let expected = LINK_IDLE_TIMEOUT - LINK_KEEP_ALIVE_INTERVAL
        ..LINK_IDLE_TIMEOUT + LINK_KEEP_ALIVE_INTERVAL + Duration::from_secs(1);
    assert!(expected.contains(&took), "{took:?}");
}

#[test]
fn a_relayed_path_is_given_up_with_its_channel() {
    let mut world = World::public(V4);
    world.connect();
    world.go_direct();
    world.is_relay_cut = true;
    let is_lost = |world: &World| {
        let changes = world.changes(0, Duration::ZERO).into_iter();
        let mut changes = changes.map(|(_, change)| change);
        changes.any(|change| matches!(change, PathChange::Lost(Route::Relayed(_))))
    };
    world.run_for(RELAY_CHANNEL_IDLE_TIMEOUT - LINK_KEEP_ALIVE_INTERVAL);
    assert!(!is_lost(&world));
    world.run_until("the relayed path is given up", is_lost);
    assert!(world.is_direct() && !world.has_lost_link());
}

/// Data is in flight through the relay when that is lost, and the direct path is found.
#[test]
fn what_a_lost_relay_carried_is_sent_again() {
    let mut world = World::public(V4);
    world.connect();
    world.is_relay_cut = true;
    world.start_flow(0);
    world.run_for(Duration::from_millis(50));
    let (link, remote) = (world.link(0), V4[1].parse().unwrap());
    world.ends[0].open_path(link, remote, world.now).unwrap();
    world.run_for(Duration::from_secs(6));
    assert!(world.is_direct() && !world.has_lost_link());
    let gap = world.longest_gap(Duration::ZERO);
    assert!(gap <= LINK_ACK_TIMEOUT + INTERRUPTION_MAX, "{gap:?}");
}

#[test]
fn the_relayed_path_lives_as_long_as_the_link() {
    let mut world = World::public(V4);
    world.connect();
    world.go_direct();
    for _ in 0..10 {
        let before = world.sent.map(|[relayed, _]| relayed);
        world.run_for(Duration::from_secs(60));
        for (end, before) in before.into_iter().enumerate() {
            let sent = world.sent[end][0] - before;
            // Twelve keep-alives and, for some minutes, path MTU discovery.
            assert!((360..12_000).contains(&sent), "{sent} bytes in a minute");
        }
    }
    // The relay restarts. The path stays, and is of use again afterwards.
    world.is_relay_cut = true;
    world.run_for(RELAY_CHANNEL_IDLE_TIMEOUT / 2);
    assert!(world.is_direct());
    world.is_relay_cut = false;
    world.run_for(Duration::from_secs(30));
    world.is_direct_cut = [true; 2];
    let cut_at = world.since_start();
    world.start_flow(0);
    world.run_for(Duration::from_secs(5));
    assert!(world.is_relayed());
    let gap = world.longest_gap(cut_at);
    assert!(gap <= INTERRUPTION_MAX, "{gap:?}");
    let lost = world.changes(0, Duration::ZERO).into_iter();
    let lost = lost.filter(|(_, change)| matches!(change, PathChange::Lost(Route::Relayed(_))));
    assert_eq!(lost.count(), 0);
}

#[test]
fn a_link_all_of_whose_paths_died_is_lost_after_its_idle_timeout() {
    let mut world = World::public(V4);
    world.connect();
    world.go_direct();
    world.run_for(Duration::from_secs(20));
    world.is_direct_cut = [true; 2];
    world.is_relay_cut = true;
    world.start_flow(0);
    let took = world.run_until("the link is lost", World::has_lost_link);
    assert!(
        took < LINK_IDLE_TIMEOUT + LINK_KEEP_ALIVE_INTERVAL,
        "{took:?}"
    );
}

#[test]
fn two_nats_are_crossed() {
    let mut world = World::behind_nats();
    world.connect();
    world.start_flow(1);
    world.offer();
    world.round();
    let took = world.run_until("data goes directly", World::is_direct);
    assert!(took < Duration::from_secs(1), "{took:?}");
    for end in 0..2 {
        let outside = V4[1 - end].parse().unwrap();
        assert_eq!(world.current(end), Route::Direct(outside));
    }
    assert!(world.astray[0] > 0, "the addresses inside were tried, too");
}

/// A NAT may give the client's side another port at any time, without a packet from it being lost.
#[test]
fn a_direct_path_follows_the_client_to_another_port_of_its_nat() {
    let mut world = World::behind_nats();
    world.connect();
    world.start_flow(0);
    world.go_direct();
    world.run_for(Duration::from_secs(2));
    let moved_at = world.since_start();
    let outside: SocketAddr = "192.0.2.1:5001".parse().unwrap();
    let nat = world.hosts[0].nat.as_mut().unwrap();
    nat.outside = outside;
    // The other's NAT lets in what comes from the address, whatever the port (RFC 4787: address-dependent).
    let other = world.hosts[1].nat.as_mut().unwrap();
    other.opened.insert(outside);
    world.run_for(Duration::from_secs(5));
    assert!(world.longest_gap(moved_at) < Duration::from_millis(500));
    assert_eq!(world.current(1), Route::Direct(outside));
}

/// The same move, but the other's NAT lets nothing in from the new port.
#[test]
fn a_client_with_another_port_of_its_nat_needs_another_round() {
    let mut world = World::behind_nats();
    world.connect();
    world.start_flow(0);
    world.go_direct();
    world.run_for(Duration::from_secs(2));
    let moved_at = world.since_start();
    world.hosts[0].nat.as_mut().unwrap().outside = "192.0.2.1:5001".parse().unwrap();
    world.run_until("data goes through the relay", World::is_relayed);
    world.go_direct();
    world.run_for(Duration::from_secs(3));
    assert!(world.longest_gap(moved_at) <= INTERRUPTION_MAX);
}

#[test]
fn a_server_that_moved_offers_its_addresses_again() {
    let mut world = World::public(V4);
    world.connect();
    world.start_flow(0);
    world.go_direct();
    world.run_for(Duration::from_secs(3));
    let moved_at = world.since_start();
    let moved: SocketAddr = "203.0.113.9:4000".parse().unwrap();
    world.hosts[1].addresses = vec![moved];
    world.offer();
    let news = world.changes(0, moved_at);
    let news = news
        .iter()
        .filter(|(_, change)| *change == PathChange::AddressesOffered);
    // One that is gone, one that is new.
    assert_eq!(news.count(), 2);
    let link = world.link(0);
    assert_eq!(world.ends[0].offered_addresses(link), [moved]);
    world.round();
    world.run_until("data goes there", |world| {
        world.current(0) == Route::Direct(moved)
    });
    world.run_for(Duration::from_secs(3));
    assert!(world.longest_gap(moved_at) <= INTERRUPTION_MAX);
}

/// Data is in flight to where the server's side was. That the other path opens is a reason not to wait for long.
#[test]
fn another_direct_path_has_the_current_one_show_soon_that_it_works() {
    for sender in [0, 1] {
        let mut world = World::public(V4);
        world.connect();
        world.start_flow(sender);
        world.go_direct();
        world.run_for(Duration::from_secs(3));
        let moved_at = world.since_start();
        let moved: SocketAddr = "203.0.113.9:4000".parse().unwrap();
        world.hosts[1].addresses = vec![moved];
        world.offer();
        world.round();
        world.run_for(Duration::from_secs(3));
        let gap = world.longest_gap(moved_at);
        eprintln!("from {sender}: {gap:?}");
        assert!(gap <= PATH_ACK_TIMEOUT, "from {sender}: {gap:?}");
        assert_eq!(world.current(0), Route::Direct(moved));
    }
}

#[test]
fn addresses_offered_again_are_news_to_the_client() {
    let mut world = World::public(V4);
    world.connect();
    let many: Vec<_> = (1..=100)
        .map(|port| ([192, 0, 2, 7], port).into())
        .collect();
    let (client, server) = (world.link(0), world.link(1));
    for _ in 0..3 {
        let before = world.since_start();
        world.ends[1].offer_addresses(server, &many).unwrap();
        world.run_for(Duration::from_secs(1));
        assert_eq!(
            world.ends[0].offered_addresses(client).len(),
            CANDIDATES_MAX
        );
        assert!(world.changes(0, before).len() >= CANDIDATES_MAX);
    }
    // No more are taken than both ends have said, whatever the other end adds.
    let added = world.ends[1].with(server, |link| {
        let more = (1..=100).map(|port| ([192, 0, 2, 8], port).into());
        let added = more.map_while(|it| link.connection.add_nat_traversal_address(it).ok());
        added.count()
    });
    assert_eq!(added, Some(TRAVERSAL_ADDRESSES_MAX - CANDIDATES_MAX));
    let none = [world.relayed[0]];
    world.ends[1].offer_addresses(server, &none).unwrap();
    world.run_for(Duration::from_secs(1));
    assert_eq!(world.ends[0].offered_addresses(client), []);
}

#[test]
fn only_the_client_opens_paths_and_only_direct_ones() {
    let mut world = World::public(V4);
    world.connect();
    let (now, relayed) = (world.now, world.relayed);
    let [client, server] = [world.link(0), world.link(1)];
    let [ours, theirs] = V4.map(|address| address.parse().unwrap());
    let [end, other] = &mut world.ends;
    assert_eq!(end.start_round(client, now), Err(PathRefused::Addresses));
    assert_eq!(other.start_round(server, now), Err(PathRefused::NotDialled));
    let refused = other.open_path(server, ours, now);
    assert_eq!(refused, Err(PathRefused::NotDialled));
    let refused = end.open_path(client, relayed[0], now);
    assert_eq!(refused, Err(PathRefused::NotDirect));
    let refused = end.open_path(LinkId::for_test(9), theirs, now);
    assert_eq!(refused, Err(PathRefused::NoLink));
    // An address that is known to be reachable needs no round.
    assert_eq!(end.open_path(client, theirs, now), Ok(()));
    world.run_until("data goes directly", World::is_direct);
}

/// Four seconds with nine probes to each address, and no event.
#[test]
fn a_round_ends_silently() {
    let mut world = World::public(V4);
    world.connect();
    world.is_direct_cut = [true; 2];
    world.offer();
    let began = world.since_start();
    world.round();
    let mut last = [began; 2];
    let mut sent = world.sent;
    while world.since_start() < began + Duration::from_secs(60) {
        world.step(world.now + Duration::from_millis(10));
        for end in 0..2 {
            if world.sent[end][1] != sent[end][1] {
                last[end] = world.since_start();
            }
        }
        sent = world.sent;
    }
    for (end, last) in last.into_iter().enumerate() {
        let took = last - began;
        assert!((3..7).contains(&took.as_secs()), "{took:?}");
        assert!(world.sent[end][1] < 9 * 60, "{} bytes", world.sent[end][1]);
        assert_eq!(world.changes(end, began), []);
    }
    // Nor does it go on once there is a way.
    world.is_direct_cut = [false; 2];
    world.run_for(Duration::from_secs(60));
    assert!(world.is_relayed());
    world.go_direct();
}

/// Nothing of that matters before it is validated there.
#[test]
fn a_new_path_begins_as_a_backup_at_the_client_only() {
    let mut world = World::public(V4);
    world.connect();
    world.start_flow(1);
    world.run_for(Duration::from_secs(1));
    let (link, remote) = (world.link(0), V4[1].parse().unwrap());
    world.ends[0].open_path(link, remote, world.now).unwrap();
    world.run_for(DELAYS.direct + Duration::from_millis(1));
    assert!(world.is_relayed());
    assert_eq!(world.status(0, false), (PathStatus::Backup, 1));
    assert_eq!(world.status(1, false), (PathStatus::Available, 1));
    let sent = world.sent[1][1];
    assert!((1..=3 * 1200).contains(&sent), "{sent} bytes, no data");
}

/// What the other end says of a path is a wish that QUIC does not heed by itself.
#[test]
fn only_the_own_status_steers_what_an_end_sends() {
    let mut world = World::public(V4);
    world.connect();
    world.go_direct();
    let client = world.link(0);
    let direct = world.ends[0].with(client, |link| {
        let connection = &mut link.connection;
        let direct = connection.paths().into_iter().max().unwrap();
        connection
            .set_path_status(PathId::ZERO, PathStatus::Available)
            .unwrap();
        connection
            .set_path_status(direct, PathStatus::Backup)
            .unwrap();
        direct
    });
    world.run_for(Duration::from_secs(1));
    let server = world.link(1);
    let said = world.ends[1].with(server, |link| {
        let connection = &link.connection;
        (
            connection.remote_path_status(direct.unwrap()),
            connection.path_status(direct.unwrap()),
        )
    });
    assert_eq!(
        said,
        Some((Some(PathStatus::Backup), Ok(PathStatus::Available)))
    );
    for (sender, way) in [(0, 0), (1, 1)] {
        let before = world.sent[sender];
        world.start_flow(sender);
        world.run_for(Duration::from_secs(5));
        let grown = |way: usize| world.sent[sender][way] - before[way];
        assert!(grown(way) > 1_000_000, "{sender}: {} bytes", grown(way));
        assert!(
            grown(1 - way) < 40_000,
            "{sender}: {} bytes",
            grown(1 - way)
        );
    }
}

#[test]
fn a_link_has_so_many_paths_and_no_more() {
    let mut world = World::public(V4);
    world.connect();
    let link = world.link(0);
    let open = |world: &mut World, n: u8| {
        let remote = ([203, 0, 113, n], 4000).into();
        world.ends[0].open_path(link, remote, world.now)
    };
    for n in 1..LINK_PATHS_MAX.get() as u8 {
        assert_eq!(open(&mut world, n), Ok(()), "{n}");
    }
    assert_eq!(open(&mut world, 99), Err(PathRefused::TooManyPaths));
    assert_eq!(open(&mut world, 1), Ok(()), "there is one already");
    // QUIC gives a path's place back once both ends have abandoned it, but the other end never saw these.
    world.run_for(10 * LINK_IDLE_TIMEOUT);
    assert_eq!(world.ends[0].paths(link).len(), 1);
    assert_eq!(open(&mut world, 99), Err(PathRefused::TooManyPaths));
}

#[test]
fn a_path_that_both_ends_knew_makes_room_for_another() {
    let mut world = World::public(V4);
    world.connect();
    let (link, remote) = (world.link(0), V4[1].parse().unwrap());
    for _ in 0..3 * LINK_PATHS_MAX.get() {
        world.ends[0].open_path(link, remote, world.now).unwrap();
        world.run_until("data goes directly", World::is_direct);
        world.is_direct_cut = [true; 2];
        world.run_until("the path is given up", World::is_relayed);
        world.is_direct_cut = [false; 2];
        world.run_for(Duration::from_secs(1));
    }
}

#[test]
fn a_link_survives_many_changes_of_path() {
    let mut world = World::public(V4);
    world.connect();
    world.start_flow(0);
    let changes = |world: &World| world.ends[0].path_changes(world.link(0));
    for _ in 0..50 {
        let before = changes(&world);
        world.go_direct();
        world.run_for(Duration::from_millis(500));
        let between = changes(&world);
        world.is_direct_cut = [true; 2];
        world.run_until("data goes through the relay", World::is_relayed);
        assert!(before < between && between < changes(&world));
        world.is_direct_cut = [false; 2];
    }
    assert!(world.longest_gap(Duration::from_secs(1)) <= INTERRUPTION_MAX);
    assert!(!world.has_lost_link());
}

/// A stranger could otherwise have datagrams sent to whom it likes.
#[test]
fn t23_a_stranger_has_one_path_and_gets_nobody_probed() {
    let mut world = World::public(V4);
    let (expected, remote) = (DeviceSecret::from_seed([2; 32]).public(), world.relayed[0]);
    world.ends[0].dial(expected, remote, world.now).unwrap();
    world.run_for(Duration::from_secs(1));
    let link = world.link(0);
    let [ours, theirs] = V4.map(|address| address.parse().unwrap());
    world.ends[0].offer_addresses(link, &[ours]).unwrap();
    world.round();
    let refused = world.ends[0].open_path(link, theirs, world.now);
    assert_eq!(refused, Err(PathRefused::TooManyPaths));
    world.run_for(Duration::from_secs(5));
    assert_eq!(world.sent[1][1], 0);
}

#[test]
fn t23_probes_are_paid_for_and_go_only_to_single_hosts() {
    let mut world = World::public(V4);
    world.connect();
    let victims: Vec<_> = (1..=16).map(|n| ([203, 0, 113, n], 53).into()).collect();
    let link = world.link(0);
    world.ends[0].offer_addresses(link, &victims).unwrap();
    for _ in 0..50 {
        world.round();
        world.run_for(Duration::from_secs(1));
    }
    let spent = world.sent[1][1];
    let most = UNPROVEN_FIRST_MINUTE_LEN_MAX - 100..=UNPROVEN_FIRST_MINUTE_LEN_MAX;
    assert!(most.contains(&spent), "{spent} bytes");

    let mut world = World::public(V4);
    world.connect();
    let refused = [
        "127.0.0.1:9",
        "169.254.169.254:80",
        "224.0.0.1:9",
        "[ff02::1]:9",
    ];
    let refused = refused.map(|address| address.parse().unwrap());
    let link = world.link(0);
    world.ends[0].offer_addresses(link, &refused).unwrap();
    world.round();
    world.run_for(Duration::from_secs(5));
    assert_eq!(world.sent[1][1], 0);
}

/// What a second path would need costs a link with one path nothing but a few connection ids.
#[test]
fn a_link_with_one_path_is_as_quiet_as_ever() {
    let mut world = World::public(V4);
    world.dial(V4[1].parse().unwrap());
    world.run_for(Duration::from_secs(10));
    let before = world.sent;
    world.run_for(Duration::from_secs(60));
    for (end, before) in before.into_iter().enumerate() {
        let sent = world.sent[end][1] - before[1];
        assert!(sent < 1500, "{sent} bytes in a minute");
        assert_eq!(world.sent[end][0], 0);
        assert_eq!(world.changes(end, Duration::ZERO), []);
    }
}

/// Each end chooses for itself, so data may take one way there and another one back.
#[test]
fn of_two_direct_paths_one_carries_data_and_the_other_is_at_hand() {
    let mut world = World::dual_stack();
    world.connect();
    world.start_flow(0);
    world.go_direct();
    world.run_for(Duration::from_secs(3));
    for end in 0..2 {
        let link = world.link(end);
        let paths = world.ends[end].paths(link);
        assert_eq!(paths.len(), 3, "{paths:?}");
        assert_eq!(paths.iter().filter(|path| path.is_current).count(), 1);
    }
    let began = world.since_start();
    world.run_for(Duration::from_secs(60));
    for end in 0..2 {
        assert_eq!(world.changes(end, began), [], "neither path is given up");
    }

    let Route::Direct(first) = world.current(0) else {
        panic!("not direct");
    };
    let family = if first.is_ipv4() { V4 } else { V6 };
    world.dead = family.map(|address| address.parse().unwrap()).into();
    let cut_at = world.since_start();
    world.run_for(Duration::from_secs(20));
    assert!(world.is_direct());
    assert_ne!(world.current(0), Route::Direct(first));
    assert!(world.longest_gap(cut_at) <= INTERRUPTION_MAX);
    let after = cut_at + Duration::from_secs(5);
    assert!(world.longest_gap(after) < Duration::from_millis(100));
}

/// QUIC acknowledges over whatever path the receiver uses, and would send no keep-alive over a path that it
/// hears something on. So the sender would hear nothing over its own path.
#[test]
fn a_path_that_only_one_end_uses_is_not_given_up() {
    let mut world = World::public(V4);
    world.connect();
    world.go_direct();
    let client = world.link(0);
    world.ends[0].with(client, |link| {
        let connection = &mut link.connection;
        let direct = connection.paths().into_iter().max().unwrap();
        for (path, status) in [
            (PathId::ZERO, PathStatus::Available),
            (direct, PathStatus::Backup),
        ] {
            connection.set_path_status(path, status).unwrap();
        }
    });
    world.run_for(Duration::from_secs(1));
    let began = world.since_start();
    world.start_flow(1);
    world.run_for(Duration::from_secs(60));
    assert!(world.longest_gap(began) < Duration::from_millis(500));
    for end in 0..2 {
        assert_eq!(world.changes(end, began), []);
    }
}

#[test]
fn a_slow_direct_path_gets_more_time() {
    let mut world = World::public(V4);
    let direct = Duration::from_millis(400);
    world.delays.direct = direct;
    world.connect();
    world.start_flow(0);
    world.go_direct();
    world.run_for(Duration::from_secs(10));
    world.is_direct_cut = [true; 2];
    let took = world.run_until("the path is given up", World::is_relayed);
    assert!(took >= direct * 2 * PATH_ACK_ROUND_TRIPS, "{took:?}");
    assert!(took > PATH_ACK_TIMEOUT * 2, "{took:?}");
}

/// QUIC tells the congestion controller of no packet that is lost while it looks for the MTU.
#[test]
fn packets_lost_in_search_of_the_mtu_are_no_silence() {
    let mut world = World::public(V4);
    world.direct_mtu = 1300;
    world.connect();
    world.go_direct();
    world.run_for(Duration::from_secs(1));
    let direct = world.since_start();
    world.trickle();
    for end in [0, 1] {
        assert_eq!(world.changes(end, direct), [], "end {end}");
        assert_eq!(world.silences(end), 0, "end {end}");
    }
    let mut world = World::public(V4);
    world.direct_mtu = 1300;
    world.dial(V4[1].parse().unwrap());
    world.trickle();
    assert_eq!(world.silences(0), 0);
}

#[test]
fn a_silent_link_is_told_of_once_and_lives_on() {
    let mut world = World::public(V4);
    world.dial(V4[1].parse().unwrap());
    world.run_for(Duration::from_secs(1));
    world.is_direct_cut = [true; 2];
    let link = world.link(0);
    let stream = world.ends[0].open_leaf(link, LeafRank::of(1)).unwrap();
    world.ends[0].write(link, stream, Bytes::from_static(b"hello"), false);
    let took = world.run_until("it is silent", |world| world.silences(0) > 0);
    let fair = LINK_ACK_TIMEOUT..LINK_ACK_TIMEOUT + Duration::from_millis(100);
    assert!(fair.contains(&took), "{took:?}");
    world.run_for(Duration::from_secs(5));
    assert!(world.ends[0].is_silent(link));
    world.is_direct_cut = [false; 2];
    world.run_for(Duration::from_secs(5));
    assert!(!world.ends[0].is_silent(link));
    assert_eq!(world.silences(0), 1);
    // A doubt that is answered is over.
    world.ends[0].doubt(link);
    world.run_for(Duration::from_secs(5));
    assert_eq!(world.silences(0), 1);
    world.is_direct_cut = [true; 2];
    world.run_for(Duration::from_secs(8));
    assert_eq!(world.silences(0), 2);
    // One that is not is told of once.
    world.ends[0].doubt(link);
    let took = world.run_until("it is told of", |world| world.silences(0) > 2);
    assert!(took < LINK_ACK_TIMEOUT * 2, "{took:?}");
    world.run_for(Duration::from_secs(3));
    assert_eq!((world.silences(0), world.has_lost_link()), (3, false));
}

/// The MTU of a relayed path is small, that of a direct one may be large; a train is for either.
#[test]
fn trains_fit_the_system_whatever_the_path() {
    let mut world = World::public(V4);
    for (end, host) in world.hosts.iter().enumerate() {
        let mut interfaces = host.interfaces();
        interfaces[0].mtu = Some(20_000);
        world.ends[end].set_local_addresses(interfaces);
    }
    world.connect();
    world.go_direct();
    world.start_flow(0);
    world.run_for(Duration::from_secs(20));
    assert!(world.longest > 16_000, "{} bytes", world.longest);
    let (link, (_, stream)) = (world.link(0), world.flow.unwrap());
    let much = Bytes::from(vec![7; 4 << 20]);
    let arrived = world.arrived();
    world.ends[0].write(link, stream, much, false);
    world.run_for(Duration::from_secs(5));
    assert!(world.arrived() - arrived > 4 << 20);
}

// ---- what QUIC would do by itself ------------------------------------------------------------------

/// The end that receives sends its last frame again and again, since nothing acknowledges it. So the end that
/// sends hears something, and waits for the other to find the path idle.
#[test]
fn by_itself_quic_is_slow_to_notice_that_one_direction_is_dead() {
    const SECOND: Duration = Duration::from_secs(1);
    let (quick, slow) = ((SECOND / 2, SECOND * 3 / 2), (SECOND * 5, SECOND * 15));
    for (receiver, gaps) in [
        (slow, SECOND * 5..SECOND * 20),
        (quick, SECOND * 2..SECOND * 4),
    ] {
        let mut world = World::public(V4);
        let delay = Duration::from_millis(100);
        world.delays = Delays {
            relayed: delay,
            direct: delay,
        };
        world.connect();
        world.start_flow(0);
        world.go_direct();
        world.run_for(SECOND * 3);
        for (end, (keep_alive, idle_timeout)) in [quick, receiver].into_iter().enumerate() {
            world.leave_to_quic(end, keep_alive, idle_timeout);
        }
        world.run_for(SECOND * 5);
        let link = world.link(1);
        world.run_until("the receiver has sent a frame", |world| {
            world.ends[1].links[&link].ack_lag.in_flight(Paths::Others) > 0
        });
        world.is_direct_cut = [true, false];
        let cut_at = world.since_start();
        world.run_for(SECOND * 30);
        let gap = world.longest_gap(cut_at);
        assert!(gaps.contains(&gap), "{gap:?}");
    }
}

/// The end whose keep-alive is due first sends all of them, and hears nothing.
#[test]
fn by_itself_quic_gives_up_a_path_that_is_kept_alive() {
    let mut world = World::dual_stack();
    world.connect();
    world.start_flow(0);
    world.go_direct();
    world.run_for(Duration::from_secs(3));
    for end in 0..2 {
        assert_eq!(world.path_count(end), 3);
        world.leave_to_quic(end, LINK_KEEP_ALIVE_INTERVAL, LINK_IDLE_TIMEOUT);
        // They do not do it at the same moment.
        world.run_for(Duration::from_secs(1));
    }
    world.run_for(2 * LINK_IDLE_TIMEOUT);
    assert_eq!(world.path_count(0), 2);
}
