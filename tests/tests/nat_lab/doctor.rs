//! What `peer doctor` finds behind each of the lab's NATs, and of the ways between some.

use serde_json::{Value, json};
use tests::sim::net::Dependence;

use super::in_lanes;
use super::kind::Kind;
use super::network::Network;
use super::people::{Person, Service};

/// Homes of which the second has a way to the first or not, and what is in the way of a direct one.
const WAYS: [(Kind, Kind, Option<&str>); 5] = [
    (Kind::PortRestricted, Kind::PortRestricted, None),
    (Kind::Symmetric, Kind::PortRestricted, Some("own_symmetric")),
    (
        Kind::PortRestricted,
        Kind::Symmetric,
        Some("theirs_perhaps_symmetric"),
    ),
    (
        Kind::PortRestricted,
        Kind::UdpBlocked,
        Some("their_udp_blocked"),
    ),
    (Kind::PortRestricted, Kind::Ipv6, Some("no_common_family")),
];

/// Fails unless each home is found to be what it is, and each way what it can be.
pub(crate) fn check() {
    let mut network = Network::new();
    let homes = Kind::ALL.map(|kind| {
        let host = network.add_home(kind);
        (kind, Person::new(format!("in-{kind}"), &host, 0))
    });
    let ways = WAYS
        .into_iter()
        .zip(1..)
        .map(|((from, to, obstacle), number)| {
            let [from, to] = [(from, "from"), (to, "to")].map(|(kind, side)| {
                let host = network.add_home(kind);
                Person::new(format!("{side}-{number}"), &host, 0)
            });
            (from, to, obstacle)
        });
    let ways: Vec<_> = ways.collect();
    let (service, _server) = Service::start(&network.server());
    let people = homes.iter().map(|(_, person)| person);
    let people = people.chain(ways.iter().flat_map(|(from, to, _)| [from, to]));
    in_lanes(&people.collect::<Vec<_>>(), |person| {
        service.register(person)
    });
    let found = in_lanes(&homes, |(kind, person)| {
        (*kind, service.doctor(person, None))
    });
    for (kind, found) in found {
        println!("{kind}: {}", found["verdict"]);
        is_found(kind, &found);
    }
    let found = in_lanes(&ways, |(from, to, obstacle)| {
        let _receiver = service.receive(to);
        let twice = [(); 2].map(|()| service.doctor(to, None));
        is_remembered(&twice);
        (*obstacle, service.doctor(from, Some(to)))
    });
    for (obstacle, found) in found {
        println!("{}: {}", obstacle.unwrap_or("direct"), found["devices"]);
        let device = &found["devices"][0];
        assert_eq!(device["is_linked"], true, "{found}");
        let path = if obstacle.is_some() {
            "relayed"
        } else {
            "direct"
        };
        assert_eq!(device["path"], path, "{found}");
        assert_eq!(device["obstacle"], json!(obstacle), "{found}");
        let candidates = device["candidates"].as_array().expect("a list");
        let is_in_use = |it: &Value| it["result"] == "in_use";
        assert_eq!(
            candidates.iter().any(is_in_use),
            obstacle.is_none(),
            "{found}"
        );
    }
}

/// Fails unless the second examination by the same program knows what the first one has spoilt for it.
fn is_remembered(twice: &[Value; 2]) {
    let [first, second] = twice.each_ref().map(|found| &found["udp"][0]);
    assert_eq!(first["filtering"], second["filtering"], "{second}");
    assert_eq!(first["mapping"], second["mapping"], "{second}");
    assert_eq!(first["filtering_age_s"], Value::Null, "{first}");
    let is_known = second["udp"] == "answers";
    assert_eq!(second["filtering_age_s"].is_u64(), is_known, "{second}");
}

fn is_found(kind: Kind, found: &Value) {
    let (verdict, is_behind_nat) = match kind {
        Kind::Open => ("most", Some(false)),
        Kind::FullCone | Kind::AddressRestricted => ("most", Some(true)),
        Kind::PortRestricted | Kind::Double => ("unless_symmetric", Some(true)),
        Kind::Ipv6 => ("unless_symmetric", Some(false)),
        Kind::Symmetric => ("hardly", Some(true)),
        Kind::UdpBlocked => ("no_udp", None),
    };
    assert_eq!(found["verdict"], verdict, "{kind}: {found}");
    assert_eq!(found["log_in"]["state"], "logged_in", "{kind}: {found}");
    assert_eq!(found["key"]["state"], "trusted", "{kind}: {found}");
    assert!(found["tcp"][0]["connect_ms"].is_u64(), "{kind}: {found}");
    // All of it is one machine.
    let difference = found["clock_difference_s"].as_i64().expect("a number");
    assert!(difference.abs() <= 1, "{kind}: {found}");
    let [family] = &found["udp"].as_array().expect("a list")[..] else {
        panic!("{kind}: the server was given by its address: {found}");
    };
    let (mapping, filtering) = kind.behaviour().unzip();
    let is_blocked = mapping.is_none();
    let state = if is_blocked { "silent" } else { "answers" };
    assert_eq!(family["udp"], state, "{kind}: {found}");
    assert_eq!(
        family["is_behind_nat"],
        json!(is_behind_nat),
        "{kind}: {found}"
    );
    assert_eq!(
        family["mapping"],
        json!(mapping.map(shown)),
        "{kind}: {found}"
    );
    assert_eq!(
        family["filtering"],
        json!(filtering.map(shown)),
        "{kind}: {found}"
    );
    let is_v6 = kind == Kind::Ipv6;
    let ipv6 = json!({ "is_present": is_v6, "works": is_v6.then_some(true) });
    assert_eq!(found["ipv6"], ipv6, "{kind}: {found}");
    let carrier = if kind == Kind::Open {
        "no"
    } else {
        "not_known"
    };
    assert_eq!(found["carrier_nat"], carrier, "{kind}: {found}");
}

/// As two ports of one address show it.
const fn shown(dependence: Dependence) -> &'static str {
    match dependence {
        Dependence::EndpointIndependent | Dependence::AddressDependent => "port_independent",
        Dependence::AddressAndPortDependent => "port_dependent",
    }
}
