//! Who is let in: the devices that an account has approved, whatever the server says.

use std::time::Duration;

use common::wire::peer::VERSION;
use peer::node::command::{
    Approval, Command, CommandError, Event, KeyState, Listed, MessageState, PasswordText, Reply,
};
use peer::recovery::RecoveryCode;
use tests::sim::login::{self, Entry};
use tests::sim::world::World;

use super::accounts::{fingerprint, found, log_in_the_third, newcomer_of_three, two_devices};
use super::shared::{
    ask, has_state, outsider, say, shown, try_to_say, until, until_delivered, until_online,
};

/// How often a host has told of something, in this life.
fn told(world: &World, host: usize, is_it: impl Fn(&Event) -> bool) -> usize {
    world.hosts[host]
        .events
        .iter()
        .filter(|it| is_it(it))
        .count()
}

fn is_turned_away(event: &Event) -> bool {
    matches!(event, Event::NotApproved { .. })
}

/// The second host approves a device of its account.
pub(super) fn approve(world: &mut World, device: usize) {
    let device = fingerprint(world, device);
    let approve = Command::Approve { device };
    assert_eq!(ask(world, 1, approve), Ok(Reply::Done));
}

/// What a host sees of another's device in the directory.
fn listed(world: &mut World, host: usize, of: usize) -> Listed {
    let fingerprint = fingerprint(world, of);
    let Ok(Reply::Directory(all)) = ask(world, host, Command::List) else {
        panic!("no directory");
    };
    let mut all = all.into_iter();
    all.find(|device| device.fingerprint == fingerprint)
        .unwrap()
}

/// Somebody who knows the password is enrolled, and is nobody to anybody else.
#[test]
fn t46_a_device_that_its_account_has_not_approved_gets_nothing() {
    let mut world = two_devices();
    let device = fingerprint(&world, 2);
    world.stop(1, true);
    let id = say(&mut world, 0, 2, "for her alone");
    world.pass(Duration::from_secs(60));
    assert!(shown(&world, 2).is_empty());
    assert!(!has_state(&world, 0, id, MessageState::Delivered));
    assert_eq!(
        told(&world, 0, is_turned_away),
        1,
        "once, not at every dial"
    );
    assert_eq!(listed(&mut world, 0, 2).key, KeyState::NotApproved);
    assert_eq!(
        try_to_say(&mut world, 2, 0, "I am she"),
        Err(CommandError::NotApproved {
            fingerprint: device
        })
    );

    world.start(1);
    until_delivered(&mut world, 0, id);
    assert_eq!(shown(&world, 1), ["for her alone"]);
    assert!(shown(&world, 2).is_empty());
}

/// A program that does not turn itself away.
#[test]
fn t46_whoever_asks_for_a_link_with_an_unapproved_key_is_turned_away() {
    let mut world = two_devices();
    world.stop(1, true);
    let id = say(&mut world, 0, 2, "for her alone");
    let mut thief = outsider(&mut world, 2, 0, &[VERSION]);
    thief.pass(&mut world, Duration::from_secs(3));
    let lost = thief.lost.expect("it ends");
    assert!(lost.contains("not approved"), "{lost}");
    assert!(thief.heard.is_empty(), "{:?}", thief.heard);
    assert!(!has_state(&world, 0, id, MessageState::Delivered));
    assert_eq!(told(&world, 0, is_turned_away), 1);
}

#[test]
fn a_device_is_heard_as_soon_as_it_is_approved() {
    let mut world = two_devices();
    // It need not be online for that.
    world.stop(0, true);
    world.stop(2, true);
    approve(&mut world, 2);
    world.stop(1, true);
    world.start(0);
    world.start(2);
    until_online(&mut world, 2, true);
    until_online(&mut world, 0, true);
    let id = say(&mut world, 0, 2, "to the new one");
    until_delivered(&mut world, 0, id);
    let id = say(&mut world, 2, 0, "from the new one");
    until_delivered(&mut world, 2, id);
    assert_eq!(told(&world, 0, is_turned_away), 0);
    assert_eq!(listed(&mut world, 0, 2).key, KeyState::Known);
}

/// Whoever has learnt that a device is revoked does not need the server to keep to it.
#[test]
fn t47_a_revoked_device_is_out_with_everybody_who_knows() {
    let mut world = two_devices();
    approve(&mut world, 2);
    world.stop(1, true);
    let id = say(&mut world, 0, 2, "while it is approved");
    until_delivered(&mut world, 0, id);
    world.start(1);
    until_online(&mut world, 1, true);
    let device = fingerprint(&world, 2);
    assert_eq!(
        ask(&mut world, 1, Command::Revoke { device }),
        Ok(Reply::Done)
    );
    world.pass(Duration::from_secs(1));
    // The password lets it in again at the server, which says that it is the account's.
    login::enter(&mut world, 2, Entry::LogIn);
    until(&mut world, |world| world.hosts[2].entries.is_empty());
    until_online(&mut world, 2, true);
    world.stop(1, true);
    let id = say(&mut world, 0, 2, "when it is revoked");
    world.pass(Duration::from_secs(30));
    assert!(!has_state(&world, 0, id, MessageState::Delivered));
    assert_eq!(listed(&mut world, 0, 2).key, KeyState::NotApproved);
    // Without a server that can be asked it knows the device's last endpoint, and keeps to the log all the same.
    world.crash_server();
    world.pass(Duration::from_secs(60));
    assert!(!has_state(&world, 0, id, MessageState::Delivered));
}

/// What is written before it is known who an account is waits for that, and goes to the devices that it has approved.
#[test]
fn an_identity_counts_from_when_it_is_there() {
    let mut world = newcomer_of_three();
    log_in_the_third(&mut world);
    assert_eq!(found(&mut world, 0, 1), Ok(Reply::Done));
    let id = say(&mut world, 0, 2, "to whoever that is");
    world.pass(Duration::from_secs(30));
    assert!(!has_state(&world, 0, id, MessageState::Sent));
    assert_eq!(found(&mut world, 1, 2), Ok(Reply::Done));
    until_delivered(&mut world, 0, id);
    assert_eq!(shown(&world, 1), ["to whoever that is"]);
    assert_eq!(shown(&world, 2), [""; 0]);
    assert_eq!(listed(&mut world, 0, 1).key, KeyState::Known);
    assert_eq!(listed(&mut world, 0, 2).key, KeyState::NotApproved);
    world.stop(1, true);
    world.pass(Duration::from_secs(5));
    let late = say(&mut world, 0, 2, "to nobody yet");
    world.pass(Duration::from_secs(30));
    assert!(!has_state(&world, 0, late, MessageState::Delivered));

    world.start(1);
    until_delivered(&mut world, 0, late);
    // Known logs are enough without a server.
    world.crash_server();
    world.stop(0, true);
    world.start(0);
    let id = say(&mut world, 0, 1, "without a server");
    until_delivered(&mut world, 0, id);
}

/// People hear what their own account says of their devices.
#[test]
fn each_device_hears_who_was_approved_and_by_what() {
    let mut world = two_devices();
    let is = |wanted: Approval| move |event: &Event| matches!(event, Event::Approval { approval, .. } if *approval == wanted);
    assert_eq!(told(&world, 2, is(Approval::Waiting)), 1);
    assert_eq!(
        told(&world, 1, is(Approval::Approved)),
        0,
        "that is no news"
    );
    // The code approves one while the others are away.
    world.stop(1, true);
    let code = PasswordText(RecoveryCode::new([2; 16]).words());
    assert_eq!(
        ask(&mut world, 2, Command::Recover { code }),
        Ok(Reply::Done)
    );
    assert_eq!(told(&world, 2, is(Approval::Approved)), 1);
    world.start(1);
    until_online(&mut world, 1, true);
    world.pass(Duration::from_secs(1));
    let by_recovery = |event: &Event| {
        matches!(
            event,
            Event::DeviceApproved {
                by_recovery: true,
                ..
            }
        )
    };
    assert_eq!(told(&world, 1, by_recovery), 1);
    assert_eq!(told(&world, 2, by_recovery), 0, "it knows");

    // One that is revoked hears that, too, once it is logged in again, and is not approved again.
    let device = fingerprint(&world, 2);
    let revoke = Command::Revoke {
        device: device.clone(),
    };
    // Nobody but the code is above it.
    assert!(ask(&mut world, 1, revoke.clone()).is_err());
    assert_eq!(ask(&mut world, 2, revoke), Ok(Reply::Done));
    world.pass(Duration::from_secs(1));
    login::enter(&mut world, 2, Entry::LogIn);
    until(&mut world, |world| world.hosts[2].entries.is_empty());
    until_online(&mut world, 2, true);
    world.pass(Duration::from_secs(1));
    assert_eq!(told(&world, 2, is(Approval::Revoked)), 1);
    assert_eq!(
        try_to_say(&mut world, 2, 0, "I am she"),
        Err(CommandError::Revoked)
    );
    let answer = ask(&mut world, 1, Command::Approve { device });
    assert!(
        matches!(&answer, Err(CommandError::Invalid(why)) if why.contains("for good")),
        "{answer:?}"
    );
}

/// A name that the server gives to somebody else leads to nobody until a person has asked.
#[test]
fn another_account_of_a_known_name_gets_nothing_until_a_person_says_so() {
    let mut world = two_devices();
    let id = say(&mut world, 0, 1, "to her");
    until_delivered(&mut world, 0, id);
    world.remove_account(1);
    world.pass(Duration::from_secs(2));
    login::enter(&mut world, 2, Entry::Register);
    until(&mut world, |world| world.hosts[2].entries.is_empty());
    until_online(&mut world, 2, true);
    world.pass(Duration::from_secs(2));
    assert_eq!(found(&mut world, 2, 7), Ok(Reply::Done));
    let id = say(&mut world, 0, 2, "to her, is it?");
    world.pass(Duration::from_secs(60));
    assert!(!has_state(&world, 0, id, MessageState::Delivered));
    assert!(shown(&world, 2).is_empty());
    let is_other = |event: &Event| matches!(event, Event::OtherAccount { .. });
    assert_eq!(told(&world, 0, is_other), 1);
    assert_eq!(listed(&mut world, 0, 2).key, KeyState::OtherIdentity);

    let account = world.hosts[2].account.clone();
    let verify = Command::Verify {
        account,
        is_verified: true,
    };
    // What waits was written to somebody else.
    let answer = ask(&mut world, 0, verify.clone());
    assert!(
        matches!(&answer, Err(CommandError::Invalid(why)) if why.starts_with("1 message waits")),
        "{answer:?}"
    );
    let withdraw = Command::Withdraw { ids: vec![id] };
    assert!(ask(&mut world, 0, withdraw).is_ok());
    let answer = ask(&mut world, 0, verify);
    assert!(
        matches!(&answer, Ok(Reply::Safety(view)) if view.is_verified),
        "{answer:?}"
    );
    let id = say(&mut world, 0, 2, "to him");
    until_delivered(&mut world, 0, id);
    assert_eq!(shown(&world, 2), ["to him"]);
    let is_first = |event: &Event| {
        matches!(
            event,
            Event::NewKey {
                known: 0,
                is_approved: true,
                ..
            }
        )
    };
    assert_eq!(told(&world, 0, is_first), 2, "nobody's second device");
    let device = listed(&mut world, 0, 2);
    assert!(device.is_verified);
    assert_eq!(device.key, KeyState::Known);
}
