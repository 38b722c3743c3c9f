//! Files: offers that end in every way, loss, disks and links that fail half-way.

use std::path::PathBuf;
use std::time::Duration;

use common::limits::{LEAF_LEN, OFFER_LIFETIME};
use peer::node::command::{Command, CommandError, Reply, TransferState};
use tests::sim::net::Faults;

use super::shared::{answer, ask, end, offer, open_offers, separate, world};

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
            assert!(matches!(end, TransferState::Failed { .. }), "{end:?}");
        }
        let reply = ask(&mut world, canceller, Command::Cancel { transfer });
        assert_eq!(reply, Err(CommandError::NoSuchTransfer));
    }
}

#[test]
fn an_offer_to_somebody_who_is_away_fails_at_once() {
    let mut world = world(1, Faults::NONE);
    let (to, path) = ("zed".parse().unwrap(), PathBuf::from("/out/file"));
    world.hosts[0].disk.put(path.clone(), vec![1]);
    let before = world.now;
    let reply = ask(&mut world, 0, Command::SendFile { to, path });
    let offline = CommandError::PeerOffline("zed".parse().unwrap());
    assert_eq!(reply, Err(offline));
    assert!(world.now - before < Duration::from_secs(1));
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

/// Found by the swarm: the node never comes to rest again.
#[test]
fn a_node_stops_while_an_offer_waits_for_the_server() {
    let mut world = world(2, Faults::NONE);
    world.crash_server();
    world.break_control(0);
    world.pass(Duration::from_secs(1));
    let path = PathBuf::from("/out/file");
    world.hosts[0].disk.put(path.clone(), vec![1]);
    let to = world.hosts[1].account.clone();
    world.command(0, Command::SendFile { to, path }).unwrap();
    world.pass(Duration::from_secs(1));
    world.stop(0, true);
    assert_eq!(world.violation, None);
}
