//! Registration.

use common::limits::REGISTRATIONS_PER_SOURCE_HOUR_MAX;
use common::password::ClientRegistration;
use common::wire::rendezvous::{Answer, LoggedIn, OpaqueMessage, Refusal, Request, Status};
use rendezvous::server::registration::Registration;

use super::world::*;

#[test]
fn somebody_registers_logs_in_announces_and_is_found() {
    let mut world = World::new();
    let laptop = device(1);
    let c = world.connect(HOME);
    let done = world.register(c, "alice", PASSWORD);
    assert_eq!(done, Answer::Done);
    let LoggedIn { token, failed } = world.log_in(c, "alice", &laptop);
    assert!(token.is_some());
    assert_eq!(failed, None);
    let candidates = vec![addr("192.0.2.1:4000"), addr("127.0.0.1:22")];
    let announce = Request::Announce {
        status: Status::Away,
        candidates,
    };
    assert_eq!(world.ask(c, announce), Answer::Done);
    let found = world.ask(c, find("alice"));
    let Answer::Found { entries } = found else {
        panic!("{found:?}");
    };
    assert_eq!(entries.len(), 1);
    assert_eq!(entries[0].candidates, [addr("192.0.2.1:4000")], "T22");
    assert_eq!(entries[0].status, Status::Away);
    let owner = Answer::Owner {
        account: Some(name("alice")),
    };
    let device_key = laptop.public();
    assert_eq!(world.ask(c, Request::WhoIs { device_key }), owner);
    world.disconnect(c);
    let other = world.member("bob", 2, HOME);
    assert_eq!(
        world.ask(other, Request::WhoIs { device_key }),
        owner,
        "offline"
    );
    let device_key = device(99).public();
    assert_eq!(
        world.ask(other, Request::WhoIs { device_key }),
        Answer::Owner { account: None }
    );
}

#[test]
fn a_name_is_registered_once_and_reserved_only_at_the_end() {
    let mut world = World::new();
    let (first, second) = (world.connect(HOME), world.connect(AWAY));
    let one = world.register_start(first, "alice", PASSWORD);
    let two = world.register_start(second, "alice", "another password");
    assert_eq!(world.register_finish(second, "alice", two), Answer::Done);
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
    for number in 0..REGISTRATIONS_PER_SOURCE_HOUR_MAX {
        let account = format!("user{number}");
        let challenge = world.ask(c, register_start(&account, request.clone()));
        assert!(matches!(challenge, Answer::RegisterChallenge { .. }));
        let upload = OpaqueMessage::try_from(record("alice").as_bytes().to_vec()).unwrap();
        let done = world.ask(
            c,
            Request::RegisterFinish {
                upload,
                stretch: common::password::STRETCH_CURRENT,
            },
        );
        assert_eq!(done, Answer::Done);
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
