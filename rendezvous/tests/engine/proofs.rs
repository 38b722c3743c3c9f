//! What a signature or a token is good for.

use common::key::{DeviceKey, Signature, Token};
use common::limits::{
    DEVICES_PER_ACCOUNT_MAX, SOURCE_FAILURES_MAX, TOKEN_LIFETIME, TOKEN_RENEW_AFTER,
};
use common::wire::rendezvous::{
    Answer, ByeReason, Cursor, DeviceAnswer, DeviceRequest, DirectoryAnswer, DirectoryRequest,
    LoginAnswer, LoginRequest, OpaqueMessage, Refusal, Request,
};
use rendezvous::server::CloseReason;

use super::world::*;

#[test]
fn t31_a_key_that_is_only_claimed_is_not_enrolled_even_with_the_password() {
    let mut world = World::new();
    world.add("mallory");
    let victim = world.enrolled("alice", 1);
    let c = world.connect(AWAY);
    let mut start = world.start_message(c, "mallory", &device(66), None);
    start.device_key = victim.public();
    let started = world.ask(c, LoginRequest::LoginStart(start));
    assert!(matches!(
        started,
        Answer::Login(LoginAnswer::LoginChallenge { .. })
    ));
    let done = world.finish(c, "mallory", started);
    assert_eq!(done, refused(Refusal::WrongCredentials));
    let owner = world.member("bob", 2, HOME);
    let device_key = victim.public();
    let account = Some(name("alice"));
    assert_eq!(
        world.ask(owner, DirectoryRequest::WhoIs { device_key }),
        Answer::Directory(DirectoryAnswer::Owner { account })
    );
}

/// The neutral point as a device key. Whatever the message, `[S]B = R + [h]A` holds for it with the
/// neutral point as `R` and 0 as `S`: nobody needs a secret to sign.
const WEAK_KEY: [u8; 32] = {
    let mut bytes = [0; 32];
    bytes[0] = 1;
    bytes
};

/// R the neutral point, S zero: it holds for every message under the key above.
const WEAK_SIGNATURE: [u8; 64] = {
    let mut bytes = [0; 64];
    bytes[0] = 1;
    bytes
};

/// The body of a frame in which `honest` has made way for the weak key.
fn with_weak_key(request: Request, honest: DeviceKey) -> Vec<u8> {
    let mut body = body_of(request);
    replace(&mut body, honest.as_bytes(), &WEAK_KEY);
    body
}

/// The same where `signature` has made way, too.
fn forged(request: Request, honest: DeviceKey, signature: Signature) -> Vec<u8> {
    let mut body = with_weak_key(request, honest);
    replace(&mut body, &Vec::from(signature), &WEAK_SIGNATURE);
    body
}

fn replace(body: &mut [u8], old: &[u8], new: &[u8]) {
    let at = body.windows(old.len()).position(|part| part == old);
    let at = at.expect("the frame has it");
    body[at..at + new.len()].copy_from_slice(new);
}

#[test]
fn t31_a_key_that_anybody_can_sign_for_is_not_enrolled() {
    let mut world = World::new();
    world.add("mallory");
    let honest = device(1);
    let c = world.connect(AWAY);
    let start = world.start_message(c, "mallory", &honest, None);
    let signature = start.signature;
    let start = forged(
        Request::Login(LoginRequest::LoginStart(start)),
        honest.public(),
        signature,
    );
    world.receive(c, &start);
    assert_eq!(world.bye(c), Some(ByeReason::Malformed));

    let c = world.connect(AWAY);
    let token = Token::from_bytes([1; 32]);
    let login = world.token_message(c, "mallory", &honest, token);
    let signature = login.signature;
    let login = forged(
        Request::Login(LoginRequest::TokenLogin(login)),
        honest.public(),
        signature,
    );
    world.receive(c, &login);
    assert_eq!(world.bye(c), Some(ByeReason::Malformed));
}

#[test]
fn t31_nobody_is_asked_about_a_key_that_anybody_can_sign_for() {
    let mut world = World::new();
    let device_key = device(1).public();
    let after = Cursor {
        account: name("alice"),
        device_key,
    };
    let requests = [
        Request::Directory(DirectoryRequest::WhoIs { device_key }),
        Request::Directory(DirectoryRequest::List { after: Some(after) }),
    ];
    for request in requests {
        let c = world.member("alice", 2, HOME);
        world.receive(c, &with_weak_key(request, device_key));
        assert_eq!(world.bye(c), Some(ByeReason::Malformed));
    }
}

#[test]
fn t32_a_signature_of_another_channel_is_a_strangers() {
    let mut world = World::new();
    let laptop = world.enrolled("alice", 1);
    let first = world.connect(HOME);
    let replayed = world.start_message(first, "alice", &laptop, None);
    world.block("alice");
    let c = world.connect(AWAY);
    let blocked = world.ask(c, LoginRequest::LoginStart(replayed));
    assert!(
        matches!(blocked, Answer::Refused(Refusal::Blocked { .. })),
        "identical to a stranger's: {blocked:?}"
    );
}

#[test]
fn t32_a_finish_belongs_to_its_own_start() {
    let mut world = World::new();
    world.add("alice");
    let (one, two) = (world.connect(HOME), world.connect(HOME));
    let ke3 = OpaqueMessage::try_from(vec![1; 64]).unwrap();
    let early = world.ask(one, LoginRequest::LoginFinish { ke3: ke3.clone() });
    assert_eq!(early, refused(Refusal::OutOfOrder));

    let started = world.login_start(one, "alice", &device(1), None);
    let crossed = world.ke3(one, "alice", started);
    world.login_start(two, "alice", &device(2), None);
    let wrong = world.ask(
        two,
        LoginRequest::LoginFinish {
            ke3: crossed.clone(),
        },
    );
    assert_eq!(wrong, refused(Refusal::WrongCredentials));
    let again = world.ask(two, LoginRequest::LoginFinish { ke3: crossed });
    assert_eq!(again, refused(Refusal::OutOfOrder), "one try a start");
}

#[test]
fn t27_a_token_is_good_for_its_device_channel_and_account_only() {
    let mut world = World::new();
    let (laptop, token) = world.token("alice", 1);
    let (other, other_token) = world.token("bob", 2);
    let c = world.connect(AWAY);
    let refusal = refused(Refusal::TokenRefused);
    let stolen = world.token_login(c, "alice", &other, token.clone());
    assert_eq!(stolen, refusal, "another device");
    let crossed = world.token_login(c, "bob", &laptop, token.clone());
    assert_eq!(crossed, refusal, "another account");
    let swapped = world.token_login(c, "alice", &laptop, other_token);
    assert_eq!(swapped, refusal, "another token");
    let elsewhere = world.connect(HOME);
    let message = world.token_message(elsewhere, "alice", &laptop, token.clone());
    let replayed = world.ask(c, LoginRequest::TokenLogin(message));
    assert_eq!(replayed, refusal, "another channel");
    let nobody = world.token_login(c, "nobody", &laptop, token.clone());
    assert_eq!(nobody, refusal);
    let own = world.token_login(c, "alice", &laptop, token);
    assert!(
        matches!(own, Answer::Login(LoginAnswer::LoggedIn(_))),
        "{own:?}"
    );
}

#[test]
fn guessing_tokens_is_bounded_by_its_source() {
    let mut world = World::new();
    let (laptop, token) = world.token("alice", 1);
    let c = world.connect(AWAY);
    for guess in 0..SOURCE_FAILURES_MAX {
        let guess = Token::from_bytes([100 + guess as u8; 32]);
        let answer = world.token_login(c, "alice", &laptop, guess);
        assert_eq!(answer, refused(Refusal::TokenRefused));
    }
    let answer = world.token_login(c, "alice", &laptop, Token::from_bytes([99; 32]));
    assert_eq!(answer, refused(Refusal::Blocked { retry_after_s: 60 }));
    let own = world.token_login(c, "alice", &laptop, token);
    assert!(matches!(own, Answer::Login(LoginAnswer::LoggedIn(_))));
}

#[test]
fn a_token_is_renewed_after_a_day_and_dies_after_thirty() {
    let mut world = World::new();
    let (laptop, token) = world.token("alice", 1);
    let fresh = world.connect(HOME);
    let Answer::Login(LoginAnswer::LoggedIn(answer)) =
        world.token_login(fresh, "alice", &laptop, token.clone())
    else {
        panic!("refused");
    };
    assert_eq!(answer.token, None);
    world.advance(TOKEN_RENEW_AFTER);
    let c = world.connect(HOME);
    let Answer::Login(LoginAnswer::LoggedIn(answer)) =
        world.token_login(c, "alice", &laptop, token.clone())
    else {
        panic!("refused");
    };
    drop(answer);

    // That answer was lost: the device still has the old token, and gets a new one for it.
    let c = world.connect(HOME);
    let Answer::Login(LoginAnswer::LoggedIn(answer)) =
        world.token_login(c, "alice", &laptop, token.clone())
    else {
        panic!("refused");
    };
    let renewed = answer.token.unwrap();
    let c = world.connect(HOME);
    let answer = world.token_login(c, "alice", &laptop, renewed.clone());
    assert!(
        matches!(answer, Answer::Login(LoginAnswer::LoggedIn(_))),
        "{answer:?}"
    );

    // The new one was used: the old one is dead.
    let c = world.connect(HOME);
    let old = world.token_login(c, "alice", &laptop, token);
    assert_eq!(old, refused(Refusal::TokenRefused));
    world.advance(TOKEN_LIFETIME);
    let c = world.connect(HOME);
    let expired = world.token_login(c, "alice", &laptop, renewed);
    assert_eq!(expired, refused(Refusal::TokenRefused));
}

#[test]
fn logging_out_forgets_the_device() {
    let mut world = World::new();
    let (laptop, token) = world.token("alice", 1);
    let c = world.connect(HOME);
    world.token_login(c, "alice", &laptop, token.clone());
    assert_eq!(
        world.ask(c, DeviceRequest::LogOut),
        DeviceAnswer::Done.into()
    );
    assert_eq!(world.closed.get(&c), Some(&CloseReason::LoggedOut));
    let c = world.connect(HOME);
    let answer = world.token_login(c, "alice", &laptop, token);
    assert_eq!(answer, refused(Refusal::TokenRefused));
}

#[test]
fn an_account_has_so_many_devices() {
    let mut world = World::new();
    for number in 0..DEVICES_PER_ACCOUNT_MAX as u8 {
        world.enrolled("alice", 100 + number);
    }
    let c = world.connect(HOME);
    let started = world.login_start(c, "alice", &device(1), None);
    let full = world.finish(c, "alice", started);
    assert_eq!(full, refused(Refusal::DeviceLimit));
    world.log_in(c, "alice", &device(100));
}
