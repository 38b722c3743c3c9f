//! Registration.

use std::time::Duration;

use common::limits::REGISTRATIONS_PER_SOURCE_PER_HOUR_MAX;
use common::password::{ClientRegistration, STRETCH_CURRENT};
use common::wire::rendezvous::{
    Answer, ByeReason, Candidate, CandidateKind, DirectoryAnswer, DirectoryRequest, LoggedIn,
    LoginAnswer, LoginRequest, OpaqueMessage, Refusal, Request, Status, StretchVersion,
};
use rendezvous::server::logins::registration::Registration;
use rendezvous::server::{Command, Reply};

use super::world::*;

#[test]
fn somebody_registers_logs_in_announces_and_is_found() {
    let mut world = World::new();
    let laptop = device(1);
    let c = world.connect(HOME);
    let done = world.register(c, "alice", PASSWORD);
    assert_eq!(done, LoginAnswer::Registered.into());
    let LoggedIn {
        token,
        failed,
        enrolled,
    } = world.log_in(c, "alice", &laptop);
    assert!(enrolled.is_empty(), "it is the first: {enrolled:?}");
    assert!(token.is_some());
    assert_eq!(failed, None);
    let candidates = vec![addr("192.0.2.1:4000"), addr("127.0.0.1:22")];
    let announce = Request::Directory(DirectoryRequest::Announce {
        status: Status::Away,
        candidates,
    });
    assert_eq!(world.ask(c, announce), DirectoryAnswer::Done.into());
    let found = world.ask(c, find("alice"));
    let Answer::Directory(DirectoryAnswer::Found { entries }) = found else {
        panic!("{found:?}");
    };
    assert_eq!(entries.len(), 1);
    let listed = Candidate {
        endpoint: addr("192.0.2.1:4000"),
        kind: CandidateKind::Host,
    };
    assert_eq!(entries[0].candidates, [listed], "T22");
    assert_eq!(entries[0].status, Status::Away);
    let owner = Answer::Directory(DirectoryAnswer::Owner {
        account: Some(name("alice")),
    });
    let device_key = laptop.public();
    assert_eq!(world.ask(c, DirectoryRequest::WhoIs { device_key }), owner);
    world.disconnect(c);
    let other = world.member("bob", 2, HOME);
    assert_eq!(
        world.ask(other, DirectoryRequest::WhoIs { device_key }),
        owner,
        "offline"
    );
    let device_key = device(99).public();
    assert_eq!(
        world.ask(other, DirectoryRequest::WhoIs { device_key }),
        Answer::Directory(DirectoryAnswer::Owner { account: None })
    );
}

#[test]
fn a_name_is_registered_once_and_reserved_only_at_the_end() {
    let mut world = World::new();
    let (first, second) = (world.connect(HOME), world.connect(AWAY));
    let one = world.register_start(first, "alice", PASSWORD);
    let two = world.register_start(second, "alice", "another password");
    assert_eq!(
        world.register_finish(second, "alice", two),
        LoginAnswer::Registered.into()
    );
    let late = world.register_finish(first, "alice", one);
    assert_eq!(late, refused(Refusal::AccountExists));
    let request = ClientRegistration::start(&password(PASSWORD), [1; 32]).1;
    let again = world.ask(first, register_start("alice", request));
    assert_eq!(again, refused(Refusal::AccountExists));
}

#[test]
fn registration_can_be_closed_and_is_limited() {
    let mut world = World::with(|options| options.registration = Registration::Closed);
    let c = world.connect(HOME);
    let request = ClientRegistration::start(&password(PASSWORD), [1; 32]).1;
    let closed = world.ask(c, register_start("alice", request.clone()));
    assert_eq!(closed, refused(Refusal::RegistrationClosed));

    let mut world = World::new();
    let c = world.connect(HOME);
    for number in 0..REGISTRATIONS_PER_SOURCE_PER_HOUR_MAX {
        let account = format!("user{number}");
        let challenge = world.ask(c, register_start(&account, request.clone()));
        assert!(matches!(
            challenge,
            Answer::Login(LoginAnswer::RegisterChallenge { .. })
        ));
        let (upload, stretch) = (upload(), STRETCH_CURRENT);
        let done = world.ask(c, LoginRequest::RegisterFinish { upload, stretch });
        assert_eq!(done, LoginAnswer::Registered.into());
    }
    let limited = world.ask(c, register_start("late", request));
    assert!(
        matches!(
            limited,
            Answer::Refused(Refusal::RegistrationLimit { retry_after_s: 1.. })
        ),
        "{limited:?}"
    );
}

/// Some password's upload: the server cannot tell whether it fits its challenge.
fn upload() -> OpaqueMessage {
    OpaqueMessage::try_from(record("alice").as_bytes()[..192].to_vec()).unwrap()
}

#[test]
fn a_stretching_that_nobody_knows_makes_no_account() {
    let mut world = World::new();
    for stretch in [0, 2, 255].map(StretchVersion) {
        let c = world.connect(HOME);
        world.register_start(c, "alice", PASSWORD);
        let upload = upload();
        world.send(c, LoginRequest::RegisterFinish { upload, stretch });
        assert_eq!(world.bye(c), Some(ByeReason::Malformed));
    }
    let c = world.connect(HOME);
    assert_eq!(
        world.register(c, "alice", PASSWORD),
        LoginAnswer::Registered.into()
    );
}

/// What the server makes of one blinded guess. Equal answers mean equal OPRF keys: then whoever asked
/// before needs a single KE2 to test all that was asked, with nothing counted.
mod guesses {
    use super::*;

    /// Whoever guesses has this device.
    const GUESSER: u8 = 200;

    fn evaluated(message: &OpaqueMessage) -> [u8; 32] {
        message.as_bytes()[..32].try_into().unwrap()
    }

    /// Asked as the start of a registration.
    fn by_registering(world: &mut World, account: &str) -> [u8; 32] {
        let c = world.connect(AWAY);
        let ke1 = world.start_message(c, account, &device(GUESSER), None).ke1;
        let blinded = OpaqueMessage::try_from(ke1.as_bytes()[..32].to_vec()).unwrap();
        let answer = world.ask(c, register_start(account, blinded));
        world.disconnect(c);
        let Answer::Login(LoginAnswer::RegisterChallenge { message }) = answer else {
            panic!("{answer:?}");
        };
        evaluated(&message)
    }

    /// Asked as the start of a log-in.
    fn by_logging_in(world: &mut World, account: &str) -> [u8; 32] {
        let c = world.connect(AWAY);
        let answer = world.login_start(c, account, &device(GUESSER), None);
        world.disconnect(c);
        let Answer::Login(LoginAnswer::LoginChallenge { ke2, .. }) = answer else {
            panic!("{answer:?}");
        };
        evaluated(&ke2)
    }

    #[test]
    fn t29_guesses_before_a_registration_are_worth_nothing_after_it() {
        let mut world = World::new();
        let before = [
            by_registering(&mut world, "alice"),
            by_registering(&mut world, "alice"),
            by_logging_in(&mut world, "alice"),
        ];
        let c = world.connect(HOME);
        assert_eq!(
            world.register(c, "alice", PASSWORD),
            LoginAnswer::Registered.into()
        );
        let after = by_logging_in(&mut world, "alice");
        assert!(!before.contains(&after));
        assert_ne!(before[0], before[1], "each registration has its own");
        world.log_in(c, "alice", &device(1));
    }

    #[test]
    fn t29_guesses_before_an_operator_adds_an_account_are_worth_nothing_after_it() {
        let mut world = World::new();
        let mut seen = vec![
            by_registering(&mut world, "alice"),
            by_logging_in(&mut world, "alice"),
        ];
        for number in 0..3 {
            let record = fresh_record("alice", [number; 32]);
            let account = name("alice");
            let added = world.command(Command::AddAccount { account, record });
            assert!(matches!(added, Reply::Done), "{added:?}");
            let evaluated = by_logging_in(&mut world, "alice");
            assert!(
                !seen.contains(&evaluated),
                "removed and added again: {number}"
            );
            seen.push(evaluated);
            let removed = world.command(Command::RemoveAccount(name("alice")));
            assert!(matches!(removed, Reply::Done), "{removed:?}");
            seen.push(by_registering(&mut world, "alice"));
        }
    }

    #[test]
    fn a_name_without_an_account_always_has_the_same_key() {
        let mut world = World::new();
        let first = by_logging_in(&mut world, "nobody");
        assert_eq!(by_logging_in(&mut world, "nobody"), first);
        assert_ne!(by_logging_in(&mut world, "nobody2"), first);
        world.restart(Duration::from_secs(1));
        assert_eq!(by_logging_in(&mut world, "nobody"), first);
        world.add("nobody");
        assert_ne!(by_logging_in(&mut world, "nobody"), first);
        world.command(Command::RemoveAccount(name("nobody")));
        assert_eq!(by_logging_in(&mut world, "nobody"), first);
    }
}
