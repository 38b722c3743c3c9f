//! The real programs on one LAN without a server: those who have talked before find each other by multicast DNS.

use std::net::IpAddr;
use std::time::Duration;

use serde_json::Value;

use super::kind::Kind;
use super::network::Network;
use super::people::{Chat, Path, Person, Service};

/// Whoever is not found within this time is not there.
const ABSENT_AFTER: Duration = Duration::from_secs(6);

/// Fails unless two on one LAN talk while the server is gone, and nobody else does.
pub(crate) fn check() {
    let mut network = Network::new();
    let [host_a, host_b] = network.add_shared_lan();
    let host_c = network.add_home(Kind::PortRestricted);
    let alice = Person::new("alice".to_owned(), &host_a, 0).on_lan();
    let bob = Person::new("bob".to_owned(), &host_b, 0).on_lan();
    let carol = Person::new("carol".to_owned(), &host_c, 0).on_lan();
    let (service, server) = Service::start(&network.server());
    for person in [&alice, &bob, &carol] {
        service.register(person);
    }
    for friend in [&bob, &carol] {
        let receiver = service.receive(friend);
        let chat = service.chat(&alice, friend);
        chat.wait_delivered();
        chat.end();
        receiver.end(Service::END).expect("the receiver ends");
    }
    server.end(Service::END).expect("the server ends");

    let carol = carol.at_another_port();
    let mut of_bob = service.open_chat(&bob, &alice);
    let _of_carol = service.open_chat(&carol, &alice);
    let mut of_alice = service.open_chat(&alice, &bob);
    of_alice.wait("bob is heard", is_nearby("bob", true));
    of_alice.say("hello bob");
    of_bob.wait("alice's message", is_message("alice", "hello bob"));
    of_alice.wait_delivered();
    of_bob.say("hello alice");
    of_alice.wait("bob's message", is_message("bob", "hello alice"));
    let Path::Direct(remote) = service.path(&alice, &bob) else {
        panic!("there is no relay without a server");
    };
    assert_eq!(remote.ip(), IpAddr::from([192, 168, 1, 3]));
    assert_eq!(service.nearby(&alice), ["bob"], "carol is on another LAN");
    of_alice.say("carol: hello carol");
    stays_away(&of_alice, "carol");

    // Whoever says --no-lan is there no more.
    of_bob.end();
    of_alice.wait("bob is not heard", is_nearby("bob", false));
    let hidden = Person {
        uses_lan: false,
        ..bob.at_another_port()
    };
    let _hidden = service.open_chat(&hidden, &alice);
    of_alice.say("are you still there?");
    stays_away(&of_alice, "bob");
    assert!(service.nearby(&alice).is_empty());
}

#[track_caller]
fn stays_away(chat: &Chat, whom: &str) {
    let is_delivered = |line: &Value| {
        let params = &line["params"];
        line["method"] == "message_state" && params["state"] == "delivered" && params["to"] == whom
    };
    let found = chat.try_wait("a receipt", ABSENT_AFTER, is_delivered);
    assert!(found.is_none(), "{found:?}");
}

fn is_nearby(whom: &str, is_here: bool) -> impl Fn(&Value) -> bool {
    move |line| {
        let params = &line["params"];
        line["method"] == "nearby" && params["account"] == whom && params["is_here"] == is_here
    }
}

fn is_message(from: &str, text: &str) -> impl Fn(&Value) -> bool {
    move |line| {
        let params = &line["params"];
        line["method"] == "message" && params["with"] == from && params["body"] == text
    }
}
