//! Accounts with an identity: devices that are approved and revoked, a recovery code, people who compare safety
//! numbers, servers that lie.

use std::collections::BTreeSet;
use std::time::Duration;

use common::id::{AccountName, DeviceName};
use common::key::DeviceSecret;
use peer::node::command::{
    Command, CommandError, ConnectionState, DevicesView, OwnDeviceState, PasswordText, Reply,
    SafetyView,
};
use peer::recovery::RecoveryCode;
use tests::sim::login::{self, Entry};
use tests::sim::net::Faults;
use tests::sim::world::{Home, World, WorldOptions};
use zeroize::Zeroizing;

use super::shared::{ask, until, until_online};

/// Three hosts; the second and the third belong to one account, and the third has only just logged in.
pub(super) fn two_devices() -> World {
    let mut world = newcomer_of_three();
    assert_eq!(found(&mut world, 0, 1), Ok(Reply::Done));
    assert_eq!(found(&mut world, 1, 2), Ok(Reply::Done));
    log_in_the_third(&mut world);
    world
}

/// The same before the third has logged in, and without identities.
pub(super) fn newcomer_of_three() -> World {
    let stranger = Home {
        is_enrolled: false,
        ..Home::PUBLIC
    };
    let mut world = World::new(&WorldOptions {
        homes: vec![Home::PUBLIC, Home::PUBLIC, stranger],
        uses_passwords: true,
        has_identities: false,
        ..WorldOptions::new(7, 0, Faults::NONE)
    });
    world.pass(Duration::from_secs(5));
    world
}

/// Devices of one host have its name, also those that were revoked.
#[test]
fn a_device_that_waits_may_have_the_name_of_a_revoked_one() {
    let stranger = Home {
        is_enrolled: false,
        ..Home::PUBLIC
    };
    let mut world = World::new(&WorldOptions {
        homes: vec![Home::PUBLIC, Home::PUBLIC, stranger, stranger],
        uses_passwords: true,
        has_identities: false,
        ..WorldOptions::new(7, 0, Faults::NONE)
    });
    world.pass(Duration::from_secs(5));
    assert_eq!(found(&mut world, 1, 2), Ok(Reply::Done));
    log_in_the_third(&mut world);
    let lost = fingerprint(&world, 2);
    for command in [
        Command::Approve {
            device: lost.clone(),
        },
        Command::Revoke { device: lost },
    ] {
        assert_eq!(ask(&mut world, 1, command), Ok(Reply::Done));
    }
    world.pass(Duration::from_secs(1));
    // Whoever has it knows the password.
    log_in_the_third(&mut world);
    let device = "simulated".to_owned();
    let answer = ask(&mut world, 1, Command::Approve { device });
    assert!(is_invalid(&answer, "was revoked"), "{answer:?}");
    world.hosts[3].account = world.hosts[1].account.clone();
    login::enter(&mut world, 3, Entry::LogIn);
    until_online(&mut world, 3, true);
    let device = "simulated".to_owned();
    let answer = ask(&mut world, 1, Command::Approve { device });
    assert_eq!(answer, Ok(Reply::Done));
    let states = [2, 3].map(|of| state(&mut world, 1, of));
    let expected = [OwnDeviceState::Revoked, OwnDeviceState::Approved];
    assert_eq!(states, expected.map(Some));
}

/// The third host is one more device of the second one's account.
pub(super) fn log_in_the_third(world: &mut World) {
    world.hosts[2].account = world.hosts[1].account.clone();
    login::enter(world, 2, Entry::LogIn);
    until(world, |world| world.hosts[2].entries.is_empty());
    until_online(world, 2, true);
}

fn code(number: u8) -> RecoveryCode {
    RecoveryCode::new([number; 16])
}

pub(super) fn found(world: &mut World, host: usize, number: u8) -> Result<Reply, CommandError> {
    let recovery = code(number).secret().public();
    ask(world, host, Command::Found { recovery })
}

fn devices(world: &mut World, host: usize) -> DevicesView {
    match ask(world, host, Command::Devices) {
        Ok(Reply::Devices(view)) => view,
        other => panic!("{other:?}"),
    }
}

/// The state of a host's device, as another host of the account sees it.
pub(super) fn state(world: &mut World, host: usize, of: usize) -> Option<OwnDeviceState> {
    let fingerprint = fingerprint(world, of);
    let view = devices(world, host);
    let mut devices = view.devices.into_iter();
    let device = devices.find(|device| device.fingerprint == fingerprint);
    device.map(|device| device.state)
}

pub(super) fn fingerprint(world: &World, host: usize) -> String {
    let secret: [u8; 32] = world.hosts[host].secret;
    DeviceSecret::from_seed(secret)
        .public()
        .fingerprint()
        .to_string()
}

fn safety(world: &mut World, host: usize, account: &AccountName) -> SafetyView {
    let account = account.clone();
    match ask(world, host, Command::Safety { account }) {
        Ok(Reply::Safety(view)) => view,
        other => panic!("{other:?}"),
    }
}

fn is_invalid(answer: &Result<Reply, CommandError>, word: &str) -> bool {
    matches!(answer, Err(CommandError::Invalid(why)) if why.contains(word))
}

#[test]
fn an_account_gets_its_identity_once() {
    let mut world = newcomer_of_three();
    assert_eq!(devices(&mut world, 0).identity, None);
    assert_eq!(found(&mut world, 0, 1), Ok(Reply::Done));
    let view = devices(&mut world, 0);
    assert!(view.identity.is_some());
    assert!(is_invalid(&found(&mut world, 0, 2), "already"));
    // It is known to the server, and to this device without the server.
    let again = devices(&mut world, 0);
    assert_eq!(again, view);
    world.stop(0, true);
    world.start(0);
    until_online(&mut world, 0, true);
    assert_eq!(devices(&mut world, 0), view);
}

#[test]
fn a_device_is_approved_by_another_and_then_approves_itself() {
    let mut world = two_devices();
    let waiting = Some(OwnDeviceState::Waiting);
    assert_eq!(state(&mut world, 1, 2), waiting);
    assert_eq!(state(&mut world, 2, 2), waiting);
    // It cannot approve anything, and nobody else is meant.
    let device = fingerprint(&world, 2);
    let itself = Command::Approve {
        device: device.clone(),
    };
    let answer = ask(&mut world, 2, itself.clone());
    let own = fingerprint(&world, 2);
    assert_eq!(answer, Err(CommandError::NotApproved { fingerprint: own }));
    let nobody = Command::Approve {
        device: "nobody".to_owned(),
    };
    assert!(is_invalid(&ask(&mut world, 1, nobody), "no device"));
    assert_eq!(ask(&mut world, 1, itself), Ok(Reply::Done));
    let approved = Some(OwnDeviceState::Approved);
    for host in [1, 2] {
        assert_eq!(state(&mut world, host, 2), approved);
    }
    // It may call itself something else, and not the one that approved it.
    let name = |device, name: &str| Command::Name {
        device,
        name: DeviceName::try_from(name.to_owned()).unwrap(),
    };
    let [first, second] = [1, 2].map(|host| fingerprint(&world, host));
    let other = name(first.clone(), "mine");
    let answer = ask(&mut world, 2, other);
    assert!(is_invalid(&answer, "only the device itself"), "{answer:?}");
    assert_eq!(ask(&mut world, 2, name(second, "phone")), Ok(Reply::Done));
    assert_eq!(ask(&mut world, 1, name(first, "laptop")), Ok(Reply::Done));
    for host in [1, 2] {
        let names = devices(&mut world, host).devices.into_iter();
        let names: BTreeSet<_> = names
            .map(|device| device.name.unwrap().to_string())
            .collect();
        assert_eq!(names, ["laptop", "phone"].map(str::to_owned).into());
    }
    // Each knows it after a restart, too.
    world.stop(2, true);
    world.start(2);
    until_online(&mut world, 2, true);
    assert_eq!(state(&mut world, 2, 2), approved);
}

#[test]
fn a_recovery_code_approves_a_device_when_no_other_is_left() {
    let mut world = two_devices();
    world.stop(1, true);
    let recover = |words: &str| Command::Recover {
        code: PasswordText(Zeroizing::new(words.to_owned())),
    };
    let wrong = code(9).words();
    let answer = ask(&mut world, 2, recover(&wrong));
    assert!(is_invalid(&answer, "not the recovery code"), "{answer:?}");
    let answer = ask(&mut world, 2, recover("twelve words that nobody has"));
    assert!(is_invalid(&answer, "words"), "{answer:?}");
    let right = code(2).words();
    assert_eq!(ask(&mut world, 2, recover(&right)), Ok(Reply::Done));
    let approved = Some(OwnDeviceState::Approved);
    assert_eq!(state(&mut world, 2, 2), approved);
    assert_eq!(
        ask(&mut world, 2, recover(&right)),
        Ok(Reply::Done),
        "again"
    );
}

#[test]
fn t47_a_revoked_device_is_logged_out_within_a_second() {
    let mut world = two_devices();
    let device = fingerprint(&world, 2);
    let approve = Command::Approve {
        device: device.clone(),
    };
    assert_eq!(ask(&mut world, 1, approve), Ok(Reply::Done));
    // A device cannot revoke the one that approved it.
    let first = fingerprint(&world, 1);
    let answer = ask(&mut world, 2, Command::Revoke { device: first });
    assert!(is_invalid(&answer, "only a device"), "{answer:?}");
    let revoke = Command::Revoke {
        device: device.clone(),
    };
    assert_eq!(ask(&mut world, 1, revoke), Ok(Reply::Done));
    world.pass(Duration::from_secs(1));
    let connection = login::connection(&mut world, 2);
    assert_ne!(
        connection,
        Some(ConnectionState::Online),
        "its session is over"
    );
    assert_eq!(state(&mut world, 1, 2), Some(OwnDeviceState::Revoked));
    // Its password brings it back, and the recovery code does not: a key that is revoked is so for good.
    login::enter(&mut world, 2, Entry::LogIn);
    until(&mut world, |world| world.hosts[2].entries.is_empty());
    until_online(&mut world, 2, true);
    let recover = Command::Recover {
        code: PasswordText(code(2).words()),
    };
    let answer = ask(&mut world, 2, recover);
    assert_eq!(answer, Err(CommandError::Revoked));
}

#[test]
fn two_people_see_the_same_safety_number_until_one_is_somebody_else() {
    let mut world = two_devices();
    let [one, other] = [0, 1].map(|host| world.hosts[host].account.clone());
    let seen = safety(&mut world, 0, &other);
    assert_eq!(seen.number, safety(&mut world, 1, &one).number);
    assert_eq!(seen.number.len(), 71);
    assert_eq!((seen.is_verified, seen.devices), (false, 1));
    let verify = |is_verified| Command::Verify {
        account: other.clone(),
        is_verified,
    };
    for is_verified in [true, false, true] {
        let answer = ask(&mut world, 0, verify(is_verified));
        assert!(matches!(answer, Ok(Reply::Safety(view)) if view.is_verified == is_verified));
    }
    let stranger: AccountName = "stranger".parse().unwrap();
    let asked = Command::Safety {
        account: stranger.clone(),
    };
    let unknown = CommandError::UnknownAccount(stranger);
    assert_eq!(ask(&mut world, 0, asked), Err(unknown));

    // The operator removes the account, and somebody else takes the name.
    world.remove_account(1);
    world.pass(Duration::from_secs(2));
    login::enter(&mut world, 2, Entry::Register);
    until(&mut world, |world| world.hosts[2].entries.is_empty());
    until_online(&mut world, 2, true);
    world.pass(Duration::from_secs(2));
    let known = safety(&mut world, 0, &other);
    assert_eq!(
        (known.number.clone(), known.other),
        (seen.number.clone(), None),
        "nobody yet"
    );
    assert_eq!(found(&mut world, 2, 7), Ok(Reply::Done));
    let changed = safety(&mut world, 0, &other);
    assert_eq!((&changed.number, changed.is_verified), (&seen.number, true));
    let theirs = safety(&mut world, 2, &one).number;
    assert_eq!(changed.other.as_ref(), Some(&theirs));
    // Not before a person has said so is it the new one.
    let Ok(Reply::Safety(view)) = ask(&mut world, 0, verify(true)) else {
        panic!("no safety number");
    };
    assert_eq!(
        (view.number, view.other, view.is_verified),
        (theirs, None, true)
    );
}

/// A server that gives an account's name to another one makes no device of the first one its own.
#[test]
fn a_device_that_belongs_to_an_account_is_not_moved_to_another_by_the_server() {
    let mut world = two_devices();
    world.remove_account(1);
    world.pass(Duration::from_secs(2));
    login::enter(&mut world, 2, Entry::Register);
    until(&mut world, |world| world.hosts[2].entries.is_empty());
    until_online(&mut world, 2, true);
    assert_eq!(found(&mut world, 2, 7), Ok(Reply::Done));
    login::enter(&mut world, 1, Entry::LogIn);
    until(&mut world, |world| world.hosts[1].entries.is_empty());
    until_online(&mut world, 1, true);
    let device = fingerprint(&world, 2);
    for command in [Command::Devices, Command::Approve { device }] {
        let answer = ask(&mut world, 1, command);
        assert!(is_invalid(&answer, "ANOTHER ACCOUNT"), "{answer:?}");
    }
    // The one that it belongs to is what it knows, after a restart as well.
    world.stop(1, true);
    world.start(1);
    until_online(&mut world, 1, true);
    let answer = ask(&mut world, 1, Command::Devices);
    assert!(is_invalid(&answer, "ANOTHER ACCOUNT"), "{answer:?}");
}

#[test]
fn a_server_that_was_set_back_gets_the_log_again() {
    let mut world = two_devices();
    let backup = world.server.backup();
    let device = fingerprint(&world, 2);
    assert_eq!(
        ask(&mut world, 1, Command::Approve { device }),
        Ok(Reply::Done)
    );
    world.crash_server();
    world.server.put_back(backup);
    for host in [0, 1] {
        until_online(&mut world, host, false);
    }
    world.start_server();
    for host in [0, 1] {
        until_online(&mut world, host, true);
    }
    assert_eq!(state(&mut world, 1, 2), Some(OwnDeviceState::Approved));
    world.pass(Duration::from_secs(1));
    let account = world.hosts[1].account.clone();
    assert_eq!(safety(&mut world, 0, &account).devices, 2);
}
