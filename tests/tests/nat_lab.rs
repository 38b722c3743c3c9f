//! The real programs behind real NATs: every pair of kinds delivers, and finds a direct path where there
//! can be one.
//!
//! The NATs are network namespaces with nftables. The test runs itself again in a mount namespace of its own,
//! where it may make them: as root, or else as the root of a user namespace.

#![expect(clippy::print_stdout, reason = "the lab's result is a table")]

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::process::Command;
use std::time::Duration;

use kind::{Kind, Pair};
use network::{Host, Network};
use people::{Chat, Person, Service};
use tests::program::Running;

// Kinds of home networks.
#[path = "nat_lab/kind.rs"]
mod kind;
// Homes of every kind.
#[path = "nat_lab/network.rs"]
mod network;
// The server and its people.
#[path = "nat_lab/people.rs"]
mod people;

/// Tells the lab that it runs in a namespace where it may make others.
const INSIDE: &str = "NAT_LAB_INSIDE";
/// Makes it a failure that the lab cannot run.
const REQUIRED: &str = "NAT_LAB_REQUIRED";
/// Names a file for the table.
const MATRIX: &str = "NAT_LAB_MATRIX";

/// A direct path is found within this time from the first message. The search starts again after 5 s.
const DIRECT_WITHIN: Duration = Duration::from_secs(12);
/// A link that has no direct path at this age will have none: the second search, 5 s after the first one,
/// has ended, too.
const RELAYED_AT: Duration = Duration::from_secs(12);

/// Its own name, to run it again.
const NAME: &str = "every_pair_of_homes_delivers_and_is_direct_where_it_can_be";

#[test]
fn every_pair_of_homes_delivers_and_is_direct_where_it_can_be() {
    if std::env::var_os(INSIDE).is_some() {
        return measure();
    }
    let Some(mut lab) = namespace() else {
        let why = "skipped: this user may not make network namespaces, or ip or nft is missing";
        assert!(std::env::var_os(REQUIRED).is_none(), "{why}");
        println!("{why}");
        return;
    };
    let executable = std::env::current_exe().expect("a test knows where it is");
    lab.arg(executable).args(["--exact", NAME, "--nocapture"]);
    let status = lab.env(INSIDE, "1").status().expect("unshare was there");
    assert!(status.success(), "the lab says above why it failed");
}

/// A command that runs its arguments where this user may make network namespaces, with `/run/netns` of its
/// own; `None` if there is no such place.
fn namespace() -> Option<Command> {
    const MOUNT: &str = r#"mount -t tmpfs tmpfs /run && exec "$@""#;
    const TRY: &str = "ip netns add probe && nsenter --net=/run/netns/probe nft list ruleset";
    let places = [&["--mount"][..], &["--user", "--map-root-user", "--mount"]];
    let commands = places.map(|place| {
        let mut command = Command::new("unshare");
        command.args(place).args(["--net", "sh", "-c", MOUNT, "sh"]);
        command
    });
    let is_good = |place: &[&str]| {
        let mut command = Command::new("unshare");
        let words = ["--net", "sh", "-c", MOUNT, "sh", "sh", "-c", TRY];
        let output = command.args(place).args(words).output();
        output.is_ok_and(|output| output.status.success())
    };
    let mut all = places.into_iter().zip(commands);
    all.find(|(place, _)| is_good(place))
        .map(|(_, command)| command)
}

// ---- the lab ---------------------------------------------------------------------------------------

/// A pair that is to be tried.
#[derive(Debug)]
struct Trial {
    pair: Pair,
    alice: Person,
    bob: Person,
}

/// How a pair did.
#[derive(Debug)]
struct Outcome {
    pair: Pair,
    delivered: Duration,
    /// How long the search for a direct path took; `None` if the link stayed relayed.
    search: Option<Duration>,
}

fn measure() {
    let mut network = Network::new();
    let service = Service::start(&network.server());
    let (trials, _receivers) = populate(&mut network, &service);
    let (direct, relayed): (Vec<_>, Vec<_>) = trials
        .into_iter()
        .partition(|trial| trial.pair.can_be_direct());
    // One after the other, so that none takes another's time. Those that stay relayed are left open until
    // it is certain that they do.
    let open: Vec<(Pair, Duration, Chat)> = relayed
        .iter()
        .map(|trial| {
            let (chat, delivered) = first_message(&service, trial);
            (trial.pair, delivered, chat)
        })
        .collect();
    let mut outcomes: Vec<Outcome> = direct
        .iter()
        .map(|trial| {
            let (chat, delivered) = first_message(&service, trial);
            let direct = chat.wait_direct(DIRECT_WITHIN);
            chat.end();
            Outcome {
                pair: trial.pair,
                delivered,
                search: direct.map(|direct| direct.search),
            }
        })
        .collect();
    outcomes.extend(open.into_iter().map(|(pair, delivered, chat)| {
        let left = RELAYED_AT.saturating_sub(chat.age());
        let direct = chat.wait_direct(left);
        chat.end();
        Outcome {
            pair,
            delivered,
            search: direct.map(|direct| direct.search),
        }
    }));
    report(&outcomes);
}

/// Starts a chat, and waits until its first message is delivered.
fn first_message(service: &Service, trial: &Trial) -> (Chat, Duration) {
    let chat = service.chat(&trial.alice, &trial.bob);
    let delivered = chat.wait_delivered();
    (chat, delivered)
}

/// Makes the homes and the people: one receiver in each home of the second side, and for each pair somebody
/// in the home of the first.
fn populate(network: &mut Network, service: &Service) -> (Vec<Trial>, Vec<Running>) {
    let kinds = || Kind::ALL.into_iter().filter(|it| it.left_out().is_none());
    let homes: Vec<(Kind, [Host; 2])> = kinds()
        .map(|kind| (kind, [network.add_home(kind), network.add_home(kind)]))
        .collect();
    let home = |kind: Kind, side: usize| {
        let found = homes.iter().find(|(it, _)| *it == kind);
        found.expect("there are homes of every kind").1[side].clone()
    };
    let mut bobs: BTreeMap<String, Person> = BTreeMap::new();
    let mut trials = Vec::new();
    for (number, pair) in (1..).zip(Pair::all()) {
        let (hosts, bob) = match pair {
            Pair::Apart(a, b) => ([home(a, 0), home(b, 1)], format!("bob-{b}")),
            Pair::SameLan => (network.add_shared_lan(), "bob-on-lan".to_owned()),
            Pair::SameNat { hairpins } => (
                network.add_two_lans(hairpins),
                format!("bob-hairpins-{hairpins}"),
            ),
        };
        let [host_a, host_b] = hosts;
        let bob = bobs
            .entry(bob.clone())
            .or_insert_with(|| service.register(&bob, &host_b, 0))
            .clone();
        let alice = service.register(&format!("alice-{number}"), &host_a, number);
        trials.push(Trial { pair, alice, bob });
    }
    let receivers = bobs.values().map(|bob| service.receive(bob)).collect();
    (trials, receivers)
}

// ---- the table -------------------------------------------------------------------------------------

/// Shows the table, and fails if a pair did not do what it could, or more.
fn report(outcomes: &[Outcome]) {
    let table = table(outcomes);
    println!("{table}");
    if let Some(path) = std::env::var_os(MATRIX) {
        fs::write(path, &table).expect("the file for the table can be written");
    }
    for kind in Kind::ALL {
        if let Some(why) = kind.left_out() {
            println!("left out: {kind}: {why}");
        }
    }
    let is_wrong = |outcome: &&Outcome| outcome.search.is_some() != outcome.pair.can_be_direct();
    let wrong: Vec<_> = outcomes.iter().filter(is_wrong).collect();
    assert!(wrong.is_empty(), "these took another way: {wrong:#?}");
}

fn table(outcomes: &[Outcome]) -> String {
    let mut table = String::from(
        "| pair | connected | direct | first message | search for a direct path |\n|---|---|---|---:|---:|\n",
    );
    for outcome in outcomes {
        let Outcome {
            pair,
            delivered,
            search,
        } = outcome;
        let delivered = delivered.as_millis();
        let (way, search) = match search {
            Some(search) => ("yes", format!("{} ms", search.as_millis())),
            None => ("no", String::from("-")),
        };
        writeln!(
            table,
            "| {pair} | yes | {way} | {delivered} ms | {search} |"
        )
        .expect("a string takes all");
    }
    table
}
