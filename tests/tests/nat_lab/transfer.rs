//! A file on its way while paths come and go beneath it.

use std::fs::{self, File};
use std::io::Write;
use std::time::{Duration, Instant};

use serde_json::Value;
use tests::program::{Running, now};
use tests::world::PATIENCE;

use super::kind::Kind;
use super::network::Network;
use super::people::{Person, Service};

/// Bytes of the file.
const LEN: u64 = 256 << 20;
/// Bits a second of each home's line: slow enough to act while the file is on its way.
const RATE: &str = "400mbit";
/// A dead path is left, or another one found, within this time.
const STALL_MAX: Duration = Duration::from_secs(2);
/// The same for a device that has moved.
const MOVE_STALL_MAX: Duration = Duration::from_secs(3);
/// A direct path is found within this time once there is one: the search is repeated after 5 s, and then after 10.
const DIRECT_WITHIN: Duration = Duration::from_secs(30);

/// What happens to a transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Event {
    /// It begins on the relayed path, becomes direct, and goes back.
    Paths,
    /// The home of its sender, who has dialled, is left for another one.
    SenderMoves,
    /// The home of its recipient is left.
    RecipientMoves,
}

/// A file that arrives, as its recipient sees it.
#[derive(Debug)]
struct Arrival<'a> {
    receiver: &'a Running,
    done: u64,
    at: Instant,
    /// The longest time without progress since [`Arrival::begin_stall`].
    stall: Duration,
    has_ended: bool,
}

/// Each event happens to a transfer of its own.
pub(crate) fn measure() {
    let mut network = Network::new();
    let (service, _server) = Service::start(&network.server());
    let source = service.folder().join("source");
    fill(&source);
    for (number, event) in [Event::Paths, Event::SenderMoves, Event::RecipientMoves]
        .into_iter()
        .enumerate()
    {
        let [alice, bob] = ["alice", "bob"].map(|name| {
            let host = network.add_home(Kind::PortRestricted);
            network.limit_rate(&host, RATE);
            let person = Person::new(format!("{name}-{number}"), &host, 0);
            service.register(&person);
            person
        });
        let receiver = service.receive(&bob);
        let stall = happens(event, (&alice, &bob), &service, &mut network, &receiver);
        println!(
            "{event:?}: longest time without progress {} ms",
            stall.as_millis()
        );
        let arrived = service.inbox(&bob).join("source");
        assert!(is_same(&source, &arrived), "{event:?}: other bytes");
        fs::remove_file(arrived).expect("it was there");
    }
}

/// Sends the file from alice to bob. Returns the longest time without progress after the event.
fn happens(
    event: Event,
    (alice, bob): (&Person, &Person),
    service: &Service,
    network: &mut Network,
    receiver: &Running,
) -> Duration {
    if event == Event::Paths {
        network.separate(&alice.host, &bob.host);
    }
    let sending = service.send_file(alice, bob, "source");
    let mut arrival = Arrival::new(receiver);
    let most = match event {
        Event::Paths => {
            arrival.wait(|arrival| arrival.done > LEN / 50);
            assert!(!sending.is_direct(), "there is no such path");
            network.reunite(&alice.host);
            let deadline = now() + DIRECT_WITHIN;
            arrival.begin_stall();
            arrival.wait(|_| sending.is_direct() || now() > deadline);
            assert!(sending.is_direct(), "no direct path");
            let before = arrival.done;
            arrival.wait(|arrival| arrival.done > before + LEN / 16);
            network.separate(&alice.host, &bob.host);
            STALL_MAX
        }
        Event::SenderMoves | Event::RecipientMoves => {
            arrival.wait(|arrival| arrival.done > LEN / 8 && sending.is_direct());
            let mover = if event == Event::SenderMoves {
                alice
            } else {
                bob
            };
            let home = network.add_second_way(&mover.host, RATE);
            arrival.begin_stall();
            home.switch_over();
            MOVE_STALL_MAX
        }
    };
    assert!(!arrival.has_ended, "{event:?}: it was over before");
    arrival.wait(|arrival| arrival.has_ended);
    sending.wait_done();
    let stall = arrival.stall;
    assert!(stall <= most, "{event:?}: nothing for {stall:?}");
    stall
}

impl<'a> Arrival<'a> {
    fn new(receiver: &'a Running) -> Self {
        Self {
            receiver,
            done: 0,
            at: now(),
            stall: Duration::ZERO,
            has_ended: false,
        }
    }

    /// Forgets earlier pauses.
    fn begin_stall(&mut self) {
        self.stall = Duration::ZERO;
    }

    /// Takes reports until `is_it`, or the file is there.
    #[track_caller]
    fn wait(&mut self, is_it: impl Fn(&Self) -> bool) {
        while !self.has_ended && !is_it(self) {
            let line = self
                .receiver
                .wait_json("progress", PATIENCE, |line| line["method"] == "transfer");
            let line = line.unwrap_or_else(|error| panic!("{error}"));
            self.take(&line["params"]["state"]);
        }
    }

    fn take(&mut self, state: &Value) {
        let done = match state["state"].as_str() {
            Some("moving") => state["done"].as_u64().unwrap_or_default(),
            Some("done") => {
                self.has_ended = true;
                LEN
            }
            Some(_) | None => panic!("it ended otherwise: {state}"),
        };
        if done > self.done {
            let now = now();
            self.stall = self.stall.max(now.saturating_duration_since(self.at));
            (self.done, self.at) = (done, now);
        }
    }
}

/// Writes bytes that do not repeat.
fn fill(path: &std::path::Path) {
    let mut file = File::create(path).expect("the folder takes a file");
    let mut reader = blake3::Hasher::new().finalize_xof();
    let mut piece = vec![0; 1 << 20];
    for _ in 0..LEN >> 20 {
        reader.fill(&mut piece);
        file.write_all(&piece).expect("there is room for a file");
    }
}

fn is_same(one: &std::path::Path, other: &std::path::Path) -> bool {
    let hash = |path: &std::path::Path| {
        let mut hasher = blake3::Hasher::new();
        let file = File::open(path).expect("the file is there");
        hasher.update_reader(file).expect("the file can be read");
        hasher.finalize()
    };
    hash(one) == hash(other)
}
