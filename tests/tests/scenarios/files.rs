//! Files: offers that end in every way, loss, disks and links that fail half-way, senders that keep no
//! rule.

use std::path::PathBuf;
use std::time::Duration;

use common::hash::{FileDigest, LeafHash, LeafHasher, file_digest, leaf_len};
use common::id::{AccountName, TransferId};
use common::limits::{
    CANCEL_ANSWER_TIMEOUT, FAREWELL_TIMEOUT, FILE_LEN_MAX, LEAF_LEN, OFFER_LIFETIME,
    OFFERS_PER_ACCOUNT_MAX,
};
use common::wire::peer::{
    CancelReason, DeclineReason, FileFrame, LeafHeader, Offer, PeerFrame, VERSION,
};
use peer::node::command::{Command, CommandError, Event, FailureKind, Reply, TransferState};
use tests::sim::net::{Faults, Site};
use tests::sim::outsider::Outsider;
use tests::sim::world::World;

use super::shared::{
    answer, ask, crash, end, linked_outsider, offer, offer_of, open_offers, pass_both, reunite,
    say, send_file, separate, twice_linked, until, until_delivered, until_online, world,
};

#[test]
fn an_offer_that_nobody_answers_is_declined() {
    let mut world = world(2, Faults::NONE);
    let (transfer, _) = offer(&mut world, 5);
    world.pass(OFFER_LIFETIME + Duration::from_secs(1));
    let end = end(&mut world, 0, transfer);
    assert!(matches!(end, TransferState::Declined { .. }), "{end:?}");
    assert_eq!(open_offers(&mut world, 1), 0);
}

#[test]
fn whoever_sends_a_file_hears_at_once_that_the_recipient_is_away() {
    let mut world = world(2, Faults::NONE);
    world.stop(1, true);
    world.pass(Duration::from_secs(60));
    // A message waits, and is looked for seldom by now.
    say(&mut world, 0, 1, "hello");
    world.pass(Duration::from_secs(300));
    let path = PathBuf::from("/out/file");
    world.hosts[0].disk.put(path.clone(), b"hello".to_vec());
    let to = world.hosts[1].account.clone();
    let asked = world.now;
    let transfer = send_file(&mut world, to.clone(), path);
    let error = CommandError::PeerOffline(to);
    assert_eq!(
        end(&mut world, 0, transfer),
        TransferState::NotOffered { error }
    );
    assert!(world.now - asked < Duration::from_secs(1));
}

#[test]
fn a_file_arrives_whole_even_under_loss() {
    let leaf = LEAF_LEN as u32;
    for (len, loss) in [(0, 0.0), (5, 0.0), (3 * leaf + 17, 0.0), (2 * leaf, 0.02)] {
        let mut world = world(
            2,
            Faults {
                loss,
                ..Faults::NONE
            },
        );
        let (transfer, bytes) = offer(&mut world, len);
        answer(&mut world, transfer, true);
        let expected = blake3::hash(&bytes).to_hex().to_string();
        for host in [1, 0] {
            let end = end(&mut world, host, transfer);
            assert!(
                matches!(&end, TransferState::Done { digest, .. } if *digest == expected),
                "{end:?}"
            );
        }
        let arrived = &world.hosts[1].arrived;
        let [path] = arrived.as_slice() else {
            panic!("{arrived:?}");
        };
        assert_eq!(world.hosts[1].disk.file(path), Some(bytes.as_slice()));
    }
}

/// Bytes that a slow line carries in a second.
const RATE: u32 = 100_000;

/// Two people with slow lines.
fn slow_world() -> World {
    world(
        2,
        Faults {
            rate: Some(RATE),
            queue: Duration::from_millis(200),
            ..Faults::NONE
        },
    )
}

#[test]
fn on_a_slow_line_both_sides_tell_how_much_has_arrived() {
    let mut world = slow_world();
    let (transfer, _) = offer(&mut world, 2 * LEAF_LEN as u32);
    answer(&mut world, transfer, true);
    let done = |world: &World, host: usize| {
        let mut moving = world.hosts[host].moving.iter();
        let found = moving.find(|(moving, _)| *moving == transfer);
        found.map(|(_, done)| *done)
    };
    world.pass(Duration::from_secs(1));
    let mut before = [0, 0];
    for second in 2..=15 {
        world.pass(Duration::from_secs(1));
        let carried = u64::from(RATE) * second;
        for host in [0, 1] {
            let done = done(&world, host).unwrap();
            let fair = carried * 6 / 10..=carried;
            assert!(fair.contains(&done), "host {host}, second {second}: {done}");
            assert!(done > before[host], "host {host}, second {second}: {done}");
            before[host] = done;
        }
    }
    for host in [1, 0] {
        let end = end(&mut world, host, transfer);
        assert!(matches!(end, TransferState::Done { .. }), "{end:?}");
    }
}

#[test]
fn a_message_on_a_slow_line_does_not_wait_for_a_file() {
    let mut world = slow_world();
    let (transfer, _) = offer(&mut world, 4 * LEAF_LEN as u32);
    answer(&mut world, transfer, true);
    for round in 0..6 {
        world.pass(Duration::from_millis(4_300));
        for (from, to) in [(0, 1), (1, 0)] {
            let typed = world.now;
            let id = say(&mut world, from, to, "in the meantime");
            until_delivered(&mut world, from, id);
            let took = world.now - typed;
            assert!(
                took < Duration::from_secs(1),
                "{from}, round {round}: {took:?}"
            );
        }
    }
}

#[test]
fn whoever_leaves_on_a_line_that_is_full_is_heard() {
    let mut unheard: Vec<u64> = Vec::new();
    for moment in 0..40 {
        let mut world = slow_world();
        let (transfer, _) = offer(&mut world, 4 * LEAF_LEN as u32);
        answer(&mut world, transfer, true);
        world.pass(Duration::from_millis(2_000 + 10 * moment));
        world.net.faults.loss = 0.3;
        world.stop(0, true);
        world.net.faults.loss = 0.0;
        world.pass(Duration::from_millis(100));
        if !world.hosts[1].moving.is_empty() {
            unheard.push(moment);
        }
    }
    // By chance all packets that say so may be lost.
    assert!(unheard.len() <= 1, "{unheard:?}");
}

/// Whoever leaves does not wait for one who does not answer.
#[test]
fn whoever_leaves_does_not_wait_for_silence() {
    let mut world = slow_world();
    let (transfer, _) = offer(&mut world, 4 * LEAF_LEN as u32);
    answer(&mut world, transfer, true);
    world.pass(Duration::from_secs(2));
    world.net.cut(Site::Host(1), Site::Host(0));
    world.pass(Duration::from_secs(1));
    let before = world.now;
    world.stop(0, true);
    assert!(world.now - before <= FAREWELL_TIMEOUT + Duration::from_millis(10));
}

#[test]
fn what_a_slow_line_loses_of_a_leaf_does_not_wait_for_later_leaves() {
    let mut world = slow_world();
    let (transfer, _) = offer(&mut world, 4 * LEAF_LEN as u32);
    answer(&mut world, transfer, true);
    world.pass(Duration::from_secs(1));
    let done = |world: &World| [0, 1].map(|host: usize| world.hosts[host].moving[0].1);
    for leaf in 1..=3 {
        let almost = leaf * LEAF_LEN as u64 - 30_000;
        while done(&world)[1] < almost {
            world.pass(Duration::from_millis(10));
        }
        world.net.faults.loss = 1.0;
        world.pass(Duration::from_millis(100));
        world.net.faults.loss = 0.0;
        let before = done(&world);
        world.pass(Duration::from_secs(3));
        let more = done(&world).map(|done| done - before[0].min(before[1]));
        let fair = u64::from(RATE)..=4 * u64::from(RATE);
        assert!(
            more.iter().all(|more| fair.contains(more)),
            "leaf {leaf}: {more:?}"
        );
    }
}

#[test]
fn files_on_one_slow_line_tell_no_more_than_has_arrived() {
    let mut world = slow_world();
    let transfers: Vec<_> = (0..3)
        .map(|_| offer(&mut world, LEAF_LEN as u32).0)
        .collect();
    for transfer in &transfers {
        answer(&mut world, *transfer, true);
    }
    let begun = world.now;
    let mut cancelled = false;
    while world.hosts[0].moving.len() > 1 {
        world.pass(Duration::from_secs(1));
        let carried = (world.now - begun).as_secs_f64() * f64::from(RATE);
        let done = |host: usize| {
            let moving = world.hosts[host].moving.iter();
            moving.map(|(_, done)| *done).sum::<u64>()
        };
        let ended = 3 - world.hosts[0].moving.len() as u64;
        for host in [0, 1] {
            let told = (done(host) + ended * LEAF_LEN as u64) as f64;
            assert!(
                cancelled || told <= carried,
                "host {host}: {told}, {carried}"
            );
        }
        // What is left of the one that was cancelled holds nothing up.
        if !cancelled && carried > 300_000.0 {
            cancelled = true;
            let transfer = transfers[0];
            let reply = ask(&mut world, 0, Command::Cancel { transfer });
            assert_eq!(reply, Ok(Reply::Done));
        }
    }
    assert!(cancelled);
    let last = *transfers.last().unwrap();
    world.pass(Duration::from_secs(3));
    let done = world.hosts[0].moving[0].1;
    assert!(done > 100_000, "{done}");
    let end = end(&mut world, 0, last);
    assert!(matches!(end, TransferState::Done { .. }), "{end:?}");
}

#[test]
fn the_time_that_a_file_waits_for_its_turn_is_not_its_own() {
    let mut world = slow_world();
    let transfers = [0, 1].map(|_| offer(&mut world, LEAF_LEN as u32).0);
    for transfer in transfers {
        answer(&mut world, transfer, true);
    }
    let alone = LEAF_LEN as u64 * 1000 / u64::from(RATE);
    for host in [0, 1] {
        for transfer in transfers {
            let end = end(&mut world, host, transfer);
            let TransferState::Done { elapsed_ms, .. } = end else {
                panic!("{end:?}");
            };
            let fair = alone * 8 / 10..alone * 15 / 10;
            assert!(fair.contains(&elapsed_ms), "host {host}: {elapsed_ms}");
        }
    }
}

#[test]
fn t12_a_file_that_changes_on_its_way_is_never_done() {
    let mut world = world(2, Faults::NONE);
    world.hosts[0].disk.is_corrupt = true;
    let (transfer, _) = offer(&mut world, 2 * LEAF_LEN as u32);
    answer(&mut world, transfer, true);
    for host in [1, 0] {
        let end = end(&mut world, host, transfer);
        assert!(matches!(end, TransferState::Failed { .. }), "{end:?}");
    }
}

#[test]
fn a_declined_offer_ends_with_a_word() {
    let mut world = world(2, Faults::NONE);
    let (transfer, _) = offer(&mut world, 5);
    answer(&mut world, transfer, false);
    let end = end(&mut world, 0, transfer);
    assert!(matches!(end, TransferState::Declined { .. }), "{end:?}");
    assert_eq!(open_offers(&mut world, 1), 0);
}

#[test]
fn either_side_can_cancel() {
    for canceller in [0, 1] {
        let mut world = world(2, Faults::NONE);
        let (transfer, _) = offer(&mut world, 5);
        let reply = ask(&mut world, canceller, Command::Cancel { transfer });
        assert_eq!(reply, Ok(Reply::Done));
        for host in [0, 1] {
            let end = end(&mut world, host, transfer);
            let TransferState::Failed { kind, .. } = end else {
                panic!("{end:?}");
            };
            assert_eq!(kind, FailureKind::Cancelled);
        }
        let reply = ask(&mut world, canceller, Command::Cancel { transfer });
        assert_eq!(reply, Err(CommandError::NoSuchTransfer));
    }
}

#[test]
fn whoever_gives_up_on_a_slow_line_is_heard_soon_and_sends_no_more() {
    // By hand, and by ending the program, in good order.
    for stops in [false, true] {
        let mut world = slow_world();
        let (transfer, _) = offer(&mut world, 6 * LEAF_LEN as u32);
        answer(&mut world, transfer, true);
        world.pass(Duration::from_secs(8));
        if stops {
            world.stop(0, true);
        } else {
            let reply = ask(&mut world, 0, Command::Cancel { transfer });
            assert_eq!(reply, Ok(Reply::Done));
        }
        world.pass(Duration::from_secs(1));
        assert!(world.hosts[1].moving.is_empty(), "{stops}: still moving");
        let TransferState::Failed { reason, .. } = end(&mut world, 1, transfer) else {
            panic!("it did not fail");
        };
        assert_eq!(reason, CancelReason::Cancelled.to_string());
    }
}

#[test]
fn an_offer_to_somebody_who_is_away_fails_at_once() {
    let mut world = world(1, Faults::NONE);
    let to: AccountName = "zed".parse().unwrap();
    let path = PathBuf::from("/out/file");
    world.hosts[0].disk.put(path.clone(), vec![1]);
    let before = world.now;
    let transfer = send_file(&mut world, to.clone(), path);
    let error = CommandError::PeerOffline(to);
    assert_eq!(
        end(&mut world, 0, transfer),
        TransferState::NotOffered { error }
    );
    assert!(world.now - before < Duration::from_secs(1));
}

#[test]
fn a_file_that_is_cancelled_late_is_there_for_both_or_for_neither() {
    let mut arrived = 0;
    for late in 0..=12 {
        let mut world = world(2, Faults::NONE);
        world.hosts[1].disk_delay = Duration::from_millis(300);
        let (transfer, _) = offer(&mut world, 5);
        answer(&mut world, transfer, true);
        world.pass(late * Duration::from_millis(100));
        let reply = ask(&mut world, 0, Command::Cancel { transfer });
        world.pass(Duration::from_secs(2));
        let is_there = world.hosts[1]
            .disk
            .file(&PathBuf::from("/in/file"))
            .is_some();
        arrived += usize::from(is_there);
        let refused = Err(CommandError::NoSuchTransfer);
        let expected = if is_there { refused } else { Ok(Reply::Done) };
        assert_eq!(reply, expected, "{late}");
        for host in [0, 1] {
            let end = end(&mut world, host, transfer);
            let is_done = matches!(end, TransferState::Done { .. });
            assert_eq!(is_done, is_there, "{late}, host {host}: {end:?}");
        }
    }
    assert!((1..12).contains(&arrived), "{arrived}");
}

#[test]
fn a_late_cancel_waits_for_word_of_the_recipient_and_not_for_long() {
    let mut world = world(2, Faults::NONE);
    let (transfer, _) = offer(&mut world, 5);
    answer(&mut world, transfer, true);
    // The file is there, and what has arrived takes longer to write than the two have left.
    world.pass(Duration::from_millis(5));
    world.hosts[1].disk_delay = Duration::from_secs(5);
    world.pass(Duration::from_millis(400));
    separate(&mut world);
    let before = world.now;
    let reply = ask(&mut world, 0, Command::Cancel { transfer });
    assert_eq!(reply, Ok(Reply::Done));
    let took = world.now - before;
    let expected = CANCEL_ANSWER_TIMEOUT..CANCEL_ANSWER_TIMEOUT + Duration::from_secs(1);
    assert!(expected.contains(&took), "{took:?}");
    let end = end(&mut world, 0, transfer);
    assert!(matches!(end, TransferState::Failed { .. }), "{end:?}");
}

#[test]
fn a_link_that_dies_takes_its_transfer_with_it_and_says_so() {
    let mut world = world(2, Faults::NONE);
    let (transfer, _) = offer(&mut world, 5);
    separate(&mut world);
    for host in [0, 1] {
        let end = end(&mut world, host, transfer);
        assert!(matches!(end, TransferState::Failed { .. }), "{end:?}");
    }
}

#[test]
fn a_recipient_that_restarts_while_a_file_moves_gets_the_next_offer_soon() {
    let mut world = slow_world();
    let (first, _) = offer(&mut world, 6 * LEAF_LEN as u32);
    answer(&mut world, first, true);
    world.pass(Duration::from_secs(3));
    crash(&mut world, 1);
    until_online(&mut world, 1, true);
    let asked = world.now;
    let (second, _) = offer(&mut world, 5);
    let took = world.now - asked;
    assert!(took < Duration::from_secs(3), "{took:?}");
    answer(&mut world, second, true);
    for host in [1, 0] {
        let end = end(&mut world, host, second);
        assert!(matches!(end, TransferState::Done { .. }), "{end:?}");
    }
    let TransferState::Failed { kind, .. } = end(&mut world, 0, first) else {
        panic!("it did not fail");
    };
    assert_eq!(kind, FailureKind::Broken);
    // Not only once the link has timed out.
    let took = world.now - asked;
    assert!(took < Duration::from_secs(6), "{took:?}");
}

#[test]
fn an_offer_that_nobody_has_answered_is_made_again_to_whoever_comes_back() {
    // At the same address, where it denies the link, and at another, where nobody does.
    for roams in [false, true] {
        let mut world = world(2, Faults::NONE);
        let (transfer, _) = offer(&mut world, 5);
        if roams {
            crash(&mut world, 1);
        } else {
            world.stop(1, false);
            world.start(1);
        }
        assert_eq!(world.hosts[1].offers, []);
        let back = world.now;
        until(&mut world, |world| world.hosts[1].offers == [transfer]);
        let took = world.now - back;
        assert!(took < Duration::from_secs(10), "{roams}: {took:?}");
        answer(&mut world, transfer, true);
        for host in [1, 0] {
            let end = end(&mut world, host, transfer);
            assert!(
                matches!(end, TransferState::Done { .. }),
                "{roams}: {end:?}"
            );
        }
    }
}

#[test]
fn an_offer_ends_if_its_recipient_stays_away() {
    for in_good_order in [false, true] {
        let mut world = world(2, Faults::NONE);
        let (transfer, _) = offer(&mut world, 5);
        let before = world.now;
        world.stop(1, in_good_order);
        let TransferState::Failed { reason, kind } = end(&mut world, 0, transfer) else {
            panic!("it did not fail");
        };
        assert_eq!(kind, FailureKind::Unanswered, "{reason}");
        assert!(reason.contains("went away before answering"), "{reason}");
        let soon = Duration::from_secs(if in_good_order { 1 } else { 30 });
        let took = world.now - before;
        assert!(took < soon, "{in_good_order}: {took:?}");
    }
}

#[test]
fn a_short_outage_ends_no_transfer() {
    for outage in [3, 5, 8] {
        let mut world = slow_world();
        let (transfer, _) = offer(&mut world, 2 * LEAF_LEN as u32);
        answer(&mut world, transfer, true);
        world.pass(Duration::from_secs(5));
        separate(&mut world);
        world.pass(Duration::from_secs(outage));
        reunite(&mut world);
        for host in [1, 0] {
            let end = end(&mut world, host, transfer);
            assert!(
                matches!(end, TransferState::Done { .. }),
                "{outage}: {end:?}"
            );
        }
    }
}

/// A world in which both watch who is online, as in a chat.
fn watching() -> World {
    let mut world = world(2, Faults::NONE);
    for host in [0, 1] {
        assert_eq!(ask(&mut world, host, Command::Watch), Ok(Reply::Done));
    }
    world
}

#[test]
fn whoever_is_offered_a_file_hears_soon_that_its_sender_has_restarted() {
    let mut world = watching();
    let (transfer, _) = offer(&mut world, 5);
    crash(&mut world, 0);
    until_online(&mut world, 0, true);
    let back = world.now;
    let TransferState::Failed { reason, kind } = end(&mut world, 1, transfer) else {
        panic!("it did not fail");
    };
    assert_eq!(kind, FailureKind::Unanswered, "{reason}");
    assert!(reason.contains("went away"), "{reason}");
    let took = world.now - back;
    assert!(took < Duration::from_secs(5), "{took:?}");
}

#[test]
fn whoever_gets_a_file_hears_soon_that_its_sender_has_restarted() {
    for watches in [true, false] {
        let mut world = slow_world();
        if watches {
            ask(&mut world, 1, Command::Watch).unwrap();
        }
        let (transfer, _) = offer(&mut world, 4 * LEAF_LEN as u32);
        answer(&mut world, transfer, true);
        world.pass(Duration::from_secs(5));
        crash(&mut world, 0);
        until_online(&mut world, 0, true);
        let back = world.now;
        let end = end(&mut world, 1, transfer);
        assert!(matches!(end, TransferState::Failed { .. }), "{end:?}");
        let took = world.now - back;
        assert!(took < Duration::from_secs(6), "{watches}: {took:?}");
    }
}

#[test]
fn an_offer_comes_again_as_soon_as_its_recipient_is_back() {
    let mut world = world(2, Faults::NONE);
    let (transfer, _) = offer(&mut world, 5);
    // So that nothing else is on its way, and no keep-alive for a while.
    world.pass(Duration::from_millis(5500));
    crash(&mut world, 1);
    let back = world.now;
    until(&mut world, |world| world.hosts[1].offers == [transfer]);
    let took = world.now - back;
    assert!(took < Duration::from_secs(3), "{took:?}");
}

#[test]
fn of_several_files_the_one_that_is_done_soonest_goes_first() {
    let mut world = slow_world();
    world.net.faults.rate = Some(1_000_000);
    let mut transfers = Vec::new();
    // The same length, then a short one.
    for leaves in [12, 12, 12, 1] {
        let path = format!("/out/{leaves}");
        let (transfer, _) = offer_of(&mut world, &path, leaves * LEAF_LEN as u32);
        answer(&mut world, transfer, true);
        transfers.push(transfer);
        world.pass(Duration::from_millis(1500));
    }
    let [first, second, third, short] = transfers[..] else {
        unreachable!("there are four");
    };
    let mut ended = Vec::new();
    while ended.len() < 4 {
        let moving = &world.hosts[0].moving;
        let over = transfers.iter().filter(|transfer| {
            let is_moving = moving.iter().any(|(moving, _)| moving == *transfer);
            !is_moving && !ended.contains(*transfer)
        });
        let over: Vec<_> = over.copied().collect();
        ended.extend(over);
        world.pass(Duration::from_millis(100));
    }
    assert_eq!(ended, [short, first, second, third]);
    // The sender knows which of them waited for their turn, and that each had it in the end.
    let turns = |transfer: TransferId| {
        let events = world.hosts[0].events.iter();
        let turns = events.filter_map(|event| {
            let Event::Transfer {
                transfer: of,
                state: TransferState::Moving(moved),
            } = event
            else {
                return None;
            };
            (*of == transfer).then_some(moved.is_behind)
        });
        let mut turns: Vec<bool> = turns.collect();
        turns.dedup();
        turns
    };
    assert_eq!(turns(short), [false]);
    assert_eq!(turns(third), [false, true, false]);
}

/// A world whose server is away, and a file of the first host for the second.
fn without_server() -> (World, AccountName, PathBuf) {
    let mut world = world(2, Faults::NONE);
    world.crash_server();
    world.break_control(0);
    world.pass(Duration::from_secs(1));
    let path = PathBuf::from("/out/file");
    world.hosts[0].disk.put(path.clone(), vec![1]);
    let to = world.hosts[1].account.clone();
    (world, to, path)
}

#[test]
fn files_are_offered_in_the_order_in_which_they_were_sent() {
    let (mut world, to, path) = without_server();
    let sent = (0..6).map(|_| send_file(&mut world, to.clone(), path.clone()));
    let sent: Vec<TransferId> = sent.collect();
    world.start_server();
    until(&mut world, |world| {
        world.hosts[1].offers.len() == sent.len()
    });
    let offered = world.hosts[1].events.iter().filter_map(|event| {
        let Event::Offer(offer) = event else {
            return None;
        };
        Some(offer.transfer)
    });
    assert_eq!(offered.collect::<Vec<_>>(), sent);
}

#[test]
fn a_file_whose_recipient_is_looked_for_can_be_cancelled() {
    let (mut world, to, path) = without_server();
    let transfer = send_file(&mut world, to, path);
    world.pass(Duration::from_secs(1));
    let Ok(Reply::Status(status)) = ask(&mut world, 0, Command::Status) else {
        panic!("it has a status");
    };
    let [view] = status.transfers.as_slice() else {
        panic!("one transfer: {:?}", status.transfers);
    };
    assert_eq!(view.state, TransferState::Looking);
    let reply = ask(&mut world, 0, Command::Cancel { transfer });
    assert_eq!(reply, Ok(Reply::Done));
    let failed = end(&mut world, 0, transfer);
    let TransferState::Failed { kind, .. } = failed else {
        panic!("{failed:?}");
    };
    assert_eq!(kind, FailureKind::Cancelled);
    // The recipient never hears of it.
    world.start_server();
    until_online(&mut world, 0, true);
    world.pass(Duration::from_secs(60));
    let is_offer = |event: &Event| matches!(event, Event::Offer(_));
    assert!(!world.hosts[1].events.iter().any(is_offer));
}

/// Found by the swarm: the node never comes to rest again.
#[test]
fn a_node_stops_while_an_offer_waits_for_the_server() {
    let (mut world, to, path) = without_server();
    world.command(0, Command::SendFile { to, path }).unwrap();
    world.pass(Duration::from_secs(1));
    world.stop(0, true);
    assert_eq!(world.violation, None);
}

// ---- senders that keep no rule -----------------------------------------------------------------

const SIZE: usize = LEAF_LEN + 5;

const fn transfer(n: u8) -> TransferId {
    TransferId::from_bytes([n; 16])
}

fn file_offer(n: u8, size: u64) -> PeerFrame {
    PeerFrame::File(FileFrame::Offer(Offer {
        transfer: transfer(n),
        name: format!("file {n}"),
        size,
        executable: false,
    }))
}

const fn declined(n: u8) -> PeerFrame {
    PeerFrame::File(FileFrame::Decline {
        transfer: transfer(n),
        reason: DeclineReason::LimitExceeded,
    })
}

const fn sent(digest: FileDigest) -> PeerFrame {
    let transfer = transfer(1);
    PeerFrame::File(FileFrame::Sent { transfer, digest })
}

/// A file, and what its leaves are announced with.
struct File {
    bytes: Vec<u8>,
    hashes: Vec<LeafHash>,
}

impl File {
    fn new() -> Self {
        let bytes: Vec<u8> = (0..SIZE).map(|at| (at / 7) as u8).collect();
        let hashes = (0..2).map(|index| {
            let mut hasher = LeafHasher::new(SIZE as u64, index);
            hasher.update(Self::leaf_of(&bytes, index));
            hasher.finish()
        });
        Self {
            hashes: hashes.collect(),
            bytes,
        }
    }

    fn leaf_of(bytes: &[u8], index: u64) -> &[u8] {
        let start = index as usize * LEAF_LEN;
        &bytes[start..start + leaf_len(SIZE as u64, index).unwrap()]
    }

    fn digest(&self) -> FileDigest {
        file_digest(SIZE as u64, &self.hashes).unwrap()
    }

    fn send_leaf(&self, world: &mut World, sender: &mut Outsider, index: u64) {
        let header = LeafHeader {
            transfer: transfer(1),
            index,
            hash: self.hashes[index as usize],
        };
        sender.send_leaf(world, &header, Self::leaf_of(&self.bytes, index));
    }
}

/// Carol offers Bob a file of two leaves, and he takes it.
fn accepted() -> (World, Outsider, File) {
    let mut world = world(3, Faults::NONE);
    let mut carol = linked_outsider(&mut world, 2, 1);
    carol.say(&mut world, &file_offer(1, SIZE as u64));
    answer(&mut world, transfer(1), true);
    carol.pass(&mut world, Duration::from_millis(100));
    let accept = PeerFrame::File(FileFrame::Accept {
        transfer: transfer(1),
        have: Vec::new(),
    });
    assert_eq!(carol.heard, [accept]);
    (world, carol, File::new())
}

#[test]
fn an_offer_that_is_made_again_over_another_link_is_answered_there() {
    for is_answered_before in [false, true] {
        let mut world = world(2, Faults::NONE);
        let mut first = linked_outsider(&mut world, 0, 1);
        let offer = file_offer(1, SIZE as u64);
        first.say(&mut world, &offer);
        if is_answered_before {
            // The answer is lost with the link.
            world.net.cut(Site::Host(1), Site::Elsewhere);
            answer(&mut world, transfer(1), true);
            world.pass(Duration::from_millis(100));
            world.net.heal();
        }
        let elsewhere = ([198, 51, 100, 99], 6000).into();
        let secret = world.hosts[0].secret;
        let mut second = Outsider::dial(&mut world, secret, elsewhere, 1, &[VERSION]);
        second.say(&mut world, &offer);
        assert_eq!(open_offers(&mut world, 1), usize::from(!is_answered_before));
        if !is_answered_before {
            answer(&mut world, transfer(1), true);
        }
        second.pass(&mut world, Duration::from_millis(100));
        let accept = PeerFrame::File(FileFrame::Accept {
            transfer: transfer(1),
            have: Vec::new(),
        });
        assert_eq!(second.heard, [accept]);
        let shown = world.hosts[1].events.iter();
        let shown = shown.filter(|event| matches!(event, Event::Offer(_)));
        assert_eq!(shown.count(), 1, "the person is asked once");
        // The old link may end now, and what it carried goes on.
        first.close(&mut world);
        let file = File::new();
        file.send_leaf(&mut world, &mut second, 0);
        file.send_leaf(&mut world, &mut second, 1);
        second.say(&mut world, &sent(file.digest()));
        let end = end(&mut world, 1, transfer(1));
        assert!(matches!(end, TransferState::Done { .. }), "{end:?}");
    }
}

#[test]
fn an_offer_that_comes_after_its_end_is_not_shown_again() {
    let cancelled = PeerFrame::File(FileFrame::Cancel {
        transfer: transfer(1),
        reason: CancelReason::Cancelled,
    });
    let received = PeerFrame::File(FileFrame::Received {
        transfer: transfer(1),
    });
    let declined = PeerFrame::File(FileFrame::Decline {
        transfer: transfer(1),
        reason: DeclineReason::Declined,
    });
    for last_word in [received.clone(), declined.clone(), cancelled] {
        let mut world = world(2, Faults::NONE);
        let mut first = linked_outsider(&mut world, 0, 1);
        let offer = file_offer(1, SIZE as u64);
        first.say(&mut world, &offer);
        if last_word == received {
            answer(&mut world, transfer(1), true);
            first.pass(&mut world, Duration::from_millis(100));
            let file = File::new();
            file.send_leaf(&mut world, &mut first, 0);
            file.send_leaf(&mut world, &mut first, 1);
            first.say(&mut world, &sent(file.digest()));
        } else if last_word == declined {
            answer(&mut world, transfer(1), false);
        } else {
            first.say(&mut world, &last_word);
        }
        let end = end(&mut world, 1, transfer(1));
        let elsewhere = ([198, 51, 100, 99], 6000).into();
        let secret = world.hosts[0].secret;
        let mut second = Outsider::dial(&mut world, secret, elsewhere, 1, &[VERSION]);
        second.say(&mut world, &offer);
        second.pass(&mut world, Duration::from_millis(100));
        assert_eq!(second.heard, [last_word], "after {end:?}");
        assert_eq!(open_offers(&mut world, 1), 0);
        let shown = world.hosts[1].events.iter();
        let shown = shown.filter(|event| matches!(event, Event::Offer(_)));
        assert_eq!(shown.count(), 1, "the person is asked once");
    }
}

#[test]
fn an_answer_over_a_link_that_the_offer_has_left_is_cancelled() {
    let (mut world, mut first, mut second) = twice_linked(1, 0);
    let path = PathBuf::from("/out/file");
    world.hosts[0].disk.put(path.clone(), vec![1]);
    let to = world.hosts[1].account.clone();
    let transfer = send_file(&mut world, to, path);
    // The second link is silent for a while.
    first.pass(&mut world, Duration::from_secs(3));
    pass_both(
        &mut world,
        [&mut first, &mut second],
        Duration::from_secs(1),
    );
    let is_offer = |frame: &PeerFrame| matches!(frame, PeerFrame::File(FileFrame::Offer(_)));
    for outsider in [&first, &second] {
        let [offer] = outsider.heard.as_slice() else {
            panic!("{:?}", outsider.heard);
        };
        assert!(is_offer(offer), "{offer:?}");
    }
    let have = Vec::new();
    let accept = PeerFrame::File(FileFrame::Accept { transfer, have });
    second.say(&mut world, &accept);
    let reason = CancelReason::Cancelled;
    let cancel = PeerFrame::File(FileFrame::Cancel { transfer, reason });
    assert_eq!(second.heard[1..], [cancel]);
    first.say(&mut world, &accept);
    let sent = first.heard.last().unwrap();
    assert!(
        matches!(sent, PeerFrame::File(FileFrame::Sent { .. })),
        "{sent:?}"
    );
}

#[test]
fn t11_a_file_whose_leaves_come_once_and_in_any_order_is_done() {
    let (mut world, mut carol, file) = accepted();
    file.send_leaf(&mut world, &mut carol, 1);
    file.send_leaf(&mut world, &mut carol, 0);
    carol.say(&mut world, &sent(file.digest()));
    let end = end(&mut world, 1, transfer(1));
    assert!(matches!(end, TransferState::Done { .. }), "{end:?}");
    let arrived = &world.hosts[1].arrived[0];
    assert_eq!(world.hosts[1].disk.file(arrived), Some(&file.bytes[..]));
    let received = PeerFrame::File(FileFrame::Received {
        transfer: transfer(1),
    });
    assert!(carol.heard.contains(&received));
}

#[test]
fn t11_a_leaf_that_comes_twice_ends_the_link() {
    for again in [0, 1] {
        let (mut world, mut carol, file) = accepted();
        file.send_leaf(&mut world, &mut carol, again);
        assert_eq!(carol.lost, None);
        file.send_leaf(&mut world, &mut carol, again);
        let lost = carol.lost.expect("it is a breach of the protocol");
        assert!(lost.contains("broke the protocol"), "{lost}");
        let end = end(&mut world, 1, transfer(1));
        assert!(matches!(end, TransferState::Failed { .. }), "{end:?}");
    }
}

#[test]
fn t11_an_announced_digest_that_differs_is_never_done() {
    // It comes before the last leaf, or after it.
    for is_early in [true, false] {
        let (mut world, mut carol, file) = accepted();
        let mut digest = file.digest();
        digest.0[0] ^= 1;
        file.send_leaf(&mut world, &mut carol, 0);
        if is_early {
            carol.say(&mut world, &sent(digest));
        }
        file.send_leaf(&mut world, &mut carol, 1);
        if !is_early {
            carol.say(&mut world, &sent(digest));
        }
        let failed = end(&mut world, 1, transfer(1));
        assert!(matches!(failed, TransferState::Failed { .. }), "{failed:?}");
        let cancel = PeerFrame::File(FileFrame::Cancel {
            transfer: transfer(1),
            reason: CancelReason::Mismatch,
        });
        assert_eq!(carol.heard.last(), Some(&cancel));
        // The right one comes too late.
        carol.say(&mut world, &sent(file.digest()));
        assert_eq!(end(&mut world, 1, transfer(1)), failed);
    }
}

#[test]
fn t11_an_offer_too_many_is_declined_and_the_others_stay() {
    let mut world = world(4, Faults::NONE);
    let mut carol = linked_outsider(&mut world, 2, 1);
    let mut dave = linked_outsider(&mut world, 3, 1);
    for n in 0..OFFERS_PER_ACCOUNT_MAX as u8 {
        carol.say(&mut world, &file_offer(n, 1));
    }
    assert_eq!(carol.heard, []);
    carol.say(&mut world, &file_offer(100, 1));
    assert_eq!(carol.heard, [declined(100)]);
    assert_eq!(open_offers(&mut world, 1), OFFERS_PER_ACCOUNT_MAX);
    // Somebody else's are not hers, and a taken id is refused whoever has it.
    dave.say(&mut world, &file_offer(101, 1));
    assert_eq!(dave.heard, []);
    dave.say(&mut world, &file_offer(0, 1));
    assert_eq!(dave.heard, [declined(0)]);
    // One that is answered makes room.
    answer(&mut world, transfer(0), false);
    carol.say(&mut world, &file_offer(102, 1));
    assert!(!carol.heard.contains(&declined(102)));
    assert_eq!(open_offers(&mut world, 1), OFFERS_PER_ACCOUNT_MAX + 1);
}

#[test]
fn t11_sizes_around_every_power_are_taken_as_they_are_and_lies_are_declined() {
    let mut world = world(3, Faults::NONE);
    let mut carol = linked_outsider(&mut world, 2, 1);
    for (n, (size, is_offered)) in (1..).zip([
        (0, true),
        ((1 << 31) - 1, true),
        (1 << 31, true),
        (1 << 32, true),
        ((1 << 32) + 1, true),
        (FILE_LEN_MAX, true),
        (FILE_LEN_MAX + 1, false),
        (i64::MAX as u64, false),
        (u64::MAX, false),
    ]) {
        carol.heard.clear();
        carol.say(&mut world, &file_offer(n, size));
        let reply = ask(&mut world, 1, Command::Offers);
        let Ok(Reply::Offers(shown)) = reply else {
            panic!("{reply:?}");
        };
        let shown = shown.iter().find(|offer| offer.transfer == transfer(n));
        assert_eq!(shown.map(|offer| offer.size), is_offered.then_some(size));
        let declined = [declined(n)];
        let heard = if is_offered { &[][..] } else { &declined };
        assert_eq!(carol.heard, heard);
    }
}
