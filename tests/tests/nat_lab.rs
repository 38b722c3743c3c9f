//! The real programs behind real NATs: every pair of kinds delivers, and finds a direct path where there
//! can be one.
//!
//! The NATs are network namespaces with nftables. The test runs itself again in a mount namespace of its own,
//! where it may make them: as root, or else as the root of a user namespace.

#![cfg(target_os = "linux")]
#![expect(clippy::print_stdout, reason = "the lab's result is a table")]

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use kind::{Kind, Pair};
use network::{Host, Network};
use people::{Chat, Path, Person, Service};
use tests::program::Running;

// What a home's NAT does.
#[path = "nat_lab/behaviour.rs"]
mod behaviour;
// What the doctor finds.
#[path = "nat_lab/doctor.rs"]
mod doctor;
// Kinds of home networks.
#[path = "nat_lab/kind.rs"]
mod kind;
// Routers that give ports to those who ask.
#[path = "nat_lab/mappings.rs"]
mod mappings;
// Two on one LAN without a server.
#[path = "nat_lab/neighbours.rs"]
mod neighbours;
// Homes of every kind.
#[path = "nat_lab/network.rs"]
mod network;
// The server and its people.
#[path = "nat_lab/people.rs"]
mod people;
// The rules that make a namespace a NAT.
#[path = "nat_lab/rules.rs"]
mod rules;
// A file while paths come and go.
#[path = "nat_lab/transfer.rs"]
mod transfer;

/// Tells the lab that it runs in a namespace where it may make others.
const INSIDE: &str = "NAT_LAB_INSIDE";
/// Makes it a failure that the lab cannot run.
const REQUIRED: &str = "NAT_LAB_REQUIRED";
/// Names a file for the table.
const MATRIX: &str = "NAT_LAB_MATRIX";

/// A direct path is found within this time from the first message. The search starts again after 5 s.
const DIRECT_WITHIN: Duration = Duration::from_secs(12);
/// Without a relay, somebody is found within this time from the start of the program.
const FOUND_WITHIN: Duration = Duration::from_secs(2);
/// A link that has no direct path at this age will have none: the second search, 5 s after the first one,
/// has ended, too.
const RELAYED_AT: Duration = Duration::from_secs(12);

#[test]
fn every_pair_of_homes_delivers_and_is_direct_where_it_can_be() {
    const NAME: &str = "every_pair_of_homes_delivers_and_is_direct_where_it_can_be";
    in_lab(NAME, measure);
}

#[test]
fn without_a_relay_those_homes_talk_that_have_a_direct_path() {
    const NAME: &str = "without_a_relay_those_homes_talk_that_have_a_direct_path";
    in_lab(NAME, without_relay);
}

#[test]
fn a_transfer_goes_on_whatever_becomes_of_its_paths() {
    const NAME: &str = "a_transfer_goes_on_whatever_becomes_of_its_paths";
    in_lab(NAME, transfer::measure);
}

#[test]
fn t40_on_one_lan_those_who_know_each_other_talk_once_the_server_is_gone() {
    const NAME: &str = "t40_on_one_lan_those_who_know_each_other_talk_once_the_server_is_gone";
    in_lab(NAME, neighbours::check);
}

#[test]
fn homes_without_a_direct_path_have_one_by_a_port_of_their_routers() {
    const NAME: &str = "homes_without_a_direct_path_have_one_by_a_port_of_their_routers";
    if mappings::has_daemon() {
        in_lab(NAME, mappings::check);
    } else {
        skip("skipped: there is no miniupnpd");
    }
}

#[test]
fn a_port_that_its_owner_forwards_is_a_direct_path() {
    const NAME: &str = "a_port_that_its_owner_forwards_is_a_direct_path";
    in_lab(NAME, forwarded);
}

#[test]
fn the_doctor_finds_what_each_home_is() {
    const NAME: &str = "the_doctor_finds_what_each_home_is";
    in_lab(NAME, doctor::check);
}

/// Between two symmetric NATs, one of which has its owner's rule for the port that the program was told to keep.
fn forwarded() {
    let mut network = Network::new();
    let [alice, bob] = ["alice", "bob"].map(|name| {
        let host = network.add_home(Kind::Symmetric);
        Person::new(name.to_owned(), &host, 0)
    });
    let outside = network.forward(&bob.host);
    let (service, _server) = Service::start(&network.server());
    service.register(&alice);
    service.register(&bob);
    let _receiver = service.receive(&bob);
    let chat = service.chat(&alice, &bob);
    let delivered = chat.wait_delivered();
    let search = chat.wait_direct(DIRECT_WITHIN);
    assert!(search.is_some(), "no direct path");
    assert_eq!(service.path(&alice, &bob), Path::Direct(outside));
    println!(
        "forwarded: {outside}, first message {} ms, direct after {} ms",
        delivered.as_millis(),
        search.unwrap_or_default().as_millis()
    );
    chat.end();
}

/// Runs the test of this name again where it can do its work.
fn in_lab(name: &str, work: fn()) {
    /// One at a time, so that none takes another's.
    static TURN: Mutex<()> = Mutex::new(());
    if std::env::var_os(INSIDE).is_some() {
        return work();
    }
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(mut lab) = namespace() else {
        let why = "skipped: this user may not make network namespaces, or ip or nft is missing or cannot do \
            what a NAT needs";
        return skip(why);
    };
    let executable = std::env::current_exe().expect("a test knows where it is");
    lab.arg(executable).args(["--exact", name, "--nocapture"]);
    let status = lab.env(INSIDE, "1").status().expect("unshare was there");
    assert!(status.success(), "the lab says above why it failed");
}

/// Says why the lab does not run, and fails if it has to.
fn skip(why: &str) {
    assert!(std::env::var_os(REQUIRED).is_none(), "{why}");
    println!("{why}");
}

/// A command that runs its arguments where this user may make network namespaces, with a `/run/netns` that
/// nobody else sees and that ends with it; `None` if there is no such place.
fn namespace() -> Option<Command> {
    const MOUNT: &str = r#"mount -t tmpfs tmpfs /run && exec "$@""#;
    // One of everything that the lab needs of the kernel.
    const TRY: &str = "test -d /proc/sys/net/ipv6 && ip netns add probe &&
        ip -n probe link add type bridge && ip -n probe link add type veth &&
        ip -n probe link add va type veth peer name vb &&
        tc -n probe qdisc add dev va root tbf rate 1mbit burst 10k latency 50ms &&
        nsenter --net=/run/netns/probe nft 'add table ip n;
            add chain ip n post { type nat hook postrouting priority 100; };
            add rule ip n post masquerade random,fully-random'";
    let place = |rights: &[&str]| {
        let mut command = Command::new("unshare");
        command.args(rights);
        command.args(["--mount", "--net", "sh", "-c", MOUNT, "sh"]);
        command
    };
    let is_good = |rights: &&&[&str]| {
        let output = place(rights).args(["sh", "-c", TRY]).output();
        output.is_ok_and(|output| output.status.success())
    };
    let rights = [&[][..], &["--user", "--map-root-user"]];
    rights.iter().find(is_good).map(|rights| place(rights))
}

// ---- the lab ---------------------------------------------------------------------------------------

/// A pair that is tried, with the people in its homes.
#[derive(Debug)]
struct Trial {
    pair: Pair,
    alice: Person,
    bob: Person,
}

/// A trial whose first message has arrived.
#[derive(Debug)]
struct Attempt<'a> {
    trial: &'a Trial,
    chat: Chat,
    /// From the start of the chat's program to the receipt.
    delivered: Duration,
    /// How long a direct path was searched for; `None` as long as there is none.
    search: Option<Duration>,
}

fn measure() {
    let mut network = Network::new();
    let homes = Homes::new(&mut network);
    homes.check(&network.server());
    let trials = homes.trials(&mut network);
    let (service, _server) = Service::start(&network.server());
    let _receivers = move_in(&service, &trials);
    // One after the other, so that none takes another's time. All chats stay open: a link has to stay as it is.
    let attempts = trials.iter().map(|trial| Attempt::new(&service, trial));
    let mut attempts: Vec<_> = attempts.collect();
    for attempt in &mut attempts {
        attempt.settle();
    }
    let paths = in_lanes(&trials, |trial| service.path(&trial.alice, &trial.bob));
    report(&attempts, &paths);
}

fn without_relay() {
    let mut network = Network::new();
    let trials = Homes::new(&mut network).trials(&mut network);
    let (service, _server) = Service::start_with(&network.server(), &["--no-relay"]);
    let _receivers = move_in(&service, &trials);
    let mut slowest = Duration::ZERO;
    let mut barred = Vec::new();
    for Trial { pair, alice, bob } in &trials {
        let chat = service.chat(alice, bob);
        if !pair.can_be_direct() {
            barred.push((pair, chat));
            continue;
        }
        let delivered = chat.wait_delivered();
        println!("{pair}: {} ms", delivered.as_millis());
        let path = service.path(alice, bob);
        assert!(matches!(path, Path::Direct(_)), "{pair}: {path:?}");
        slowest = slowest.max(delivered);
        chat.end();
    }
    assert!(slowest <= FOUND_WITHIN, "{slowest:?}");
    for (pair, chat) in barred {
        assert!(!chat.is_delivered_by(RELAYED_AT), "{pair}: there is a way");
    }
}

impl<'a> Attempt<'a> {
    /// Starts a chat, and waits for its first message's receipt, and for the direct path that there should be.
    fn new(service: &Service, trial: &'a Trial) -> Self {
        let chat = service.chat(&trial.alice, &trial.bob);
        let delivered = chat.wait_delivered();
        let patience = if trial.pair.can_be_direct() {
            DIRECT_WITHIN
        } else {
            Duration::ZERO
        };
        let search = chat.wait_direct(patience);
        Self {
            trial,
            chat,
            delivered,
            search,
        }
    }

    /// Gives a relayed link the time in which it would become direct if it could.
    fn settle(&mut self) {
        let left = RELAYED_AT.saturating_sub(self.chat.age());
        self.search = self.search.or_else(|| self.chat.wait_direct(left));
    }

    /// Tells whether the link went the best way that there is, and says so itself.
    fn is_right(&self, path: Path) -> bool {
        let pair = self.trial.pair;
        let is_path_right = match path {
            Path::Relayed => !pair.can_be_direct(),
            // Both homes of a pair have the same addresses inside: those must not be taken for the other's.
            Path::Direct(remote) => {
                pair.can_be_direct() && is_inside(remote) == pair.is_on_one_lan()
            }
        };
        is_path_right && self.search.is_some() == pair.can_be_direct()
    }
}

fn is_inside(address: SocketAddr) -> bool {
    match address.ip() {
        IpAddr::V4(ip) => ip.is_private(),
        IpAddr::V6(_) => false,
    }
}

/// Two homes of each kind.
#[derive(Debug)]
struct Homes(Vec<(Kind, [Host; 2])>);

impl Homes {
    fn new(network: &mut Network) -> Self {
        let both = |kind| (kind, [network.add_home(kind), network.add_home(kind)]);
        Self(Kind::ALL.map(both).into())
    }

    /// Fails unless each home does what its kind says.
    fn check(&self, server: &str) {
        for (kind, hosts) in &self.0 {
            for host in hosts {
                let observed = behaviour::observe(server, host);
                assert_eq!(observed, kind.behaviour(), "mapping and filter of {kind}");
            }
        }
    }

    /// One trial for each pair: somebody new in its first home, and whoever lives in its second.
    fn trials(&self, network: &mut Network) -> Vec<Trial> {
        let pairs = (1..).zip(Pair::all());
        let trials = pairs.map(|(number, pair)| {
            let ([host_a, host_b], bob) = match pair {
                Pair::Apart(a, b) => ([self.host(a, 0), self.host(b, 1)], format!("bob-{b}")),
                Pair::SameLan => (network.add_shared_lan(), "bob-lan".to_owned()),
                Pair::SameNat { hairpins } => {
                    let bob = format!("bob-hairpins-{hairpins}");
                    (network.add_two_lans(hairpins), bob)
                }
            };
            Trial {
                pair,
                alice: Person::new(format!("alice-{number}"), &host_a, number),
                bob: Person::new(bob, &host_b, 0),
            }
        });
        trials.collect()
    }

    fn host(&self, kind: Kind, side: usize) -> Host {
        let found = self.0.iter().find(|(it, _)| *it == kind);
        found.expect("there are homes of every kind").1[side].clone()
    }
}

/// Registers everybody, and has the second sides receive.
fn move_in(service: &Service, trials: &[Trial]) -> Vec<Running> {
    let bobs = trials.iter().map(|trial| (&trial.bob.name, &trial.bob));
    let bobs: Vec<&Person> = BTreeMap::from_iter(bobs).into_values().collect();
    let alices = trials.iter().map(|trial| &trial.alice);
    let people: Vec<&Person> = alices.chain(bobs.iter().copied()).collect();
    in_lanes(&people, |person| service.register(person));
    in_lanes(&bobs, |bob| service.receive(bob))
}

/// Does the same with all items, several at once.
fn in_lanes<T: Sync, R: Send>(items: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    const LANES: usize = 4;
    let work = &work;
    thread::scope(|scope| {
        let lanes = items.chunks(items.len().div_ceil(LANES));
        let lanes = lanes.map(|lane| scope.spawn(move || lane.iter().map(work).collect()));
        let lanes: Vec<thread::ScopedJoinHandle<'_, Vec<R>>> = lanes.collect();
        let done = lanes.into_iter().map(|lane| lane.join());
        done.flat_map(|lane| lane.expect("it says above what failed"))
            .collect()
    })
}

// ---- the table -------------------------------------------------------------------------------------

/// Shows the table, and fails if a pair did not do what it could, or did more.
fn report(attempts: &[Attempt<'_>], paths: &[Path]) {
    let table = table(attempts, paths);
    println!("{table}");
    if let Some(file) = std::env::var_os(MATRIX) {
        fs::write(file, &table).expect("the file for the table can be written");
    }
    let all = attempts.iter().zip(paths);
    let wrong = all.filter(|(attempt, path)| !attempt.is_right(**path));
    let wrong: Vec<_> = wrong
        .map(|(attempt, path)| format!("{}: {path:?}", attempt.trial.pair))
        .collect();
    assert!(wrong.is_empty(), "these went another way: {wrong:#?}");
}

fn table(attempts: &[Attempt<'_>], paths: &[Path]) -> String {
    const HEAD: &str = "| pair | connected | direct | first message | until direct |
|---|---|---|---:|---:|
";
    let mut table = HEAD.to_owned();
    for (attempt, path) in attempts.iter().zip(paths) {
        let pair = attempt.trial.pair;
        let delivered = attempt.delivered.as_millis();
        let direct = match path {
            Path::Direct(_) => "yes",
            Path::Relayed => "no",
        };
        let search = attempt.search.map(|search| search.as_millis());
        let search = search.map_or_else(String::new, |search| format!("{search} ms"));
        let row = format!("| {pair} | yes | {direct} | {delivered} ms | {search} |");
        writeln!(table, "{row}").expect("a string takes all");
    }
    table
}
