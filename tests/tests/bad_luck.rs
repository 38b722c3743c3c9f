//! The real programs under bad luck: connections that are cut, datagrams that are lost, come twice or
//! late, processes that die. What was promised stays true, and all is well soon after.
//!
//! Everything that is left to chance is decided by a seed, which a failing test prints.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![expect(clippy::print_stdout, reason = "a test that fails shows its seed")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Duration;

use common::limits::{DIAL_TIMEOUT, LINK_ACK_TIMEOUT};
use serde_json::Value;
use tests::control::Control;
use tests::program::{END, Running, now};
use tests::proxy::{Dice, Island, Luck, Proxy};
use tests::world::{PATIENCE, World, letter, text, transfer_state, until};

const EXECUTABLE: &str = env!("CARGO_BIN_EXE_demo");
/// Longer than an author waits for an acknowledgement before the recipient is looked for again.
const DARKNESS: Duration = LINK_ACK_TIMEOUT.saturating_add(Duration::from_secs(1));
/// How long an author listens before the next thing happens.
const MOMENT: Duration = Duration::from_millis(200);
/// Most texts that somebody writes at once; fewer than the requests that may wait for their replies.
const BURST_MAX: u64 = 50;
/// Most bytes in a text: some do not fit a datagram.
const TEXT_LEN_MAX: u64 = 20_000;
/// Set to numbers with commas between them: seeds to try instead of the fixed ones.
const SEEDS: &str = "BAD_LUCK_SEEDS";

// ---- messages ----------------------------------------------------------------------------------

#[test]
fn messages_go_both_ways_once_and_in_order_while_connections_are_cut_and_datagrams_lost() {
    for seed in seeds(&[11, 12]) {
        let Some(mut stage) = Stage::new(seed) else {
            return;
        };
        let _running = [stage.world.receive("alice"), stage.world.receive("bob")];
        stage.proxy.set_luck(Luck::bad(&mut stage.dice));
        let mut authors = stage.authors();
        for round in 0..8 {
            for author in &mut authors {
                for _ in 0..stage.dice.within(1, 25) {
                    author.send(&mut stage.dice);
                }
                // Some rounds begin before the last one has arrived.
                let wanted = stage.dice.within(0, author.sent.len() as u64);
                author.listen_until(wanted);
            }
            stage.proxy.cut_connections();
            if round == 3 {
                stage.darken(&mut authors[0]);
            }
        }
        for author in &mut authors {
            author.listen_to_the_end();
            assert!(author.queued.keys().eq(&author.confirmed));
        }
        let tally = stage.proxy.tally();
        println!("{tally:?}");
        for count in [tally.lost, tally.doubled, tally.delayed, tally.cut] {
            assert!(count > 0, "the luck was not bad: {tally:?}");
        }
        stage.proxy.set_luck(Luck::GOOD);
        for author in &authors {
            stage.world.wait_ready(author.who);
        }
        stage.assert_conversation(&authors);
    }
}

// ---- files -------------------------------------------------------------------------------------

#[test]
fn a_file_arrives_whole_or_not_at_all_with_a_reason_and_arrives_when_the_luck_is_good_again() {
    for seed in seeds(&[21]) {
        lose_a_file(seed);
    }
}

fn lose_a_file(seed: u64) {
    let Some(mut stage) = Stage::new(seed) else {
        return;
    };
    let bytes = stage.world.make_file("film.bin", (3 << 20) + 17);
    let digest = blake3::hash(&bytes).to_hex().to_string();
    let _alice = stage.world.receive("alice");
    let bob = stage.world.receive("bob");
    for _ in 0..3 {
        let luck = Luck::bad(&mut stage.dice);
        println!("{luck:?}");
        stage.proxy.set_luck(luck);
        for who in ["alice", "bob"] {
            stage.world.wait_ready(who);
        }
        let sender = stage.start_sending("film.bin");
        let is_said = |line: &Value| line["transfer"].is_string() || line["error"].is_object();
        let said = sender.wait_json("the sender says something", PATIENCE, is_said);
        stage.proxy.cut_connections();
        let sent = sender.finish(END).unwrap();
        println!("{sent:?}");
        let last = sent.json().pop().unwrap_or(said.unwrap());
        assert_honest(sent.code(), &last, &digest);
    }
    let tally = stage.proxy.tally();
    println!("{tally:?}");
    assert!(tally.lost > 0 && tally.doubled > 0, "{tally:?}");

    // The peers lose each other in the middle of it.
    stage.proxy.set_luck(Luck {
        loss: 150,
        ..Luck::GOOD
    });
    stage.world.make_file("long.bin", 64 << 20);
    let is_moving = |line: &Value| transfer_state(line)["done"].as_u64() > Some(0);
    // A connection that was made under bad luck may still be cut.
    let sender = until("the file moves", PATIENCE, || {
        let sender = stage.start_sending("long.bin");
        let moving = sender.wait_json("the file moves", PATIENCE, is_moving);
        moving.is_ok().then_some(sender)
    });
    stage.proxy.set_luck(Luck::DARK);
    let ended = sender.finish(PATIENCE).unwrap();
    assert_eq!(ended.code(), 9, "{ended:?}");
    assert_honest(ended.code(), ended.json().last().unwrap(), &digest);

    stage.proxy.set_luck(Luck::GOOD);
    until("the file arrives", PATIENCE, || {
        let sent = stage.start_sending("film.bin").finish(END).unwrap();
        assert_honest(sent.code(), sent.json().last().unwrap(), &digest);
        (sent.code() == 0).then_some(())
    });
    // Neither of the two is left with anything half done.
    until("the part of the lost one is removed", PATIENCE, || {
        let names = stage.world.names_in("inbox-bob");
        let is_part = |name: &String| name.ends_with(".part");
        (!names.iter().any(is_part)).then_some(())
    });
    let is_final = |line: &Value| {
        let state = transfer_state(line)["state"].as_str();
        ["done", "failed"].contains(&state.unwrap_or_default())
    };
    let mut arrived = BTreeSet::new();
    while arrived.len() < stage.world.names_in("inbox-bob").len() {
        let line = bob.wait_json("bob tells of each file", PATIENCE, is_final);
        let line = line.unwrap();
        let state = transfer_state(&line);
        if state["state"] == "failed" {
            assert!(!text(&state["reason"]).is_empty(), "{state}");
        } else {
            assert_eq!(state["digest"], digest, "{state}");
            assert!(fs::read(text(&state["path"])).unwrap() == bytes);
            arrived.insert(text(&state["path"]));
        }
    }
}

/// Fails unless the last that a sender said is that a file with that digest is done, or why not.
#[track_caller]
fn assert_honest(code: i32, last: &Value, digest: &str) {
    if code == 0 {
        assert_eq!(last["state"], "done", "{last}");
        assert_eq!(last["digest"], digest, "{last}");
    } else {
        assert!(!text(&last["error"]["why"]).is_empty(), "{last}");
    }
}

// ---- processes that die ------------------------------------------------------------------------

#[test]
fn what_was_called_delivered_is_on_the_disk_whoever_dies_and_when() {
    for seed in seeds(&[31, 32, 33, 34]) {
        let Some(mut stage) = Stage::new(seed) else {
            return;
        };
        // Connections are cut by killing alone.
        stage.proxy.set_luck(Luck {
            cuts: 0,
            ..Luck::bad(&mut stage.dice)
        });
        let mut running = ["alice", "bob"].map(|who| Some(stage.world.receive(who)));
        let mut authors = stage.authors();
        for _ in 0..8 {
            for author in &mut authors {
                for _ in 0..stage.dice.within(1, BURST_MAX) {
                    author.send(&mut stage.dice);
                }
            }
            // A text is heard of three times: that it is queued, sent and delivered.
            let heard = stage.dice.within(0, 3 * BURST_MAX);
            let victim = stage.dice.within(0, 2) as usize;
            // Whoever writes to the victim counts: the next receipt may be on its way.
            authors[1 - victim.min(1)].listen(heard, MOMENT);
            if victim == authors.len() {
                let address = stage.world.kill_server();
                stage.world.serve("server", &["--listen", &address]);
                continue;
            }
            running[victim].take().unwrap().kill();
            authors[victim].die();
            let (dead, other) = (authors[victim].who, &mut authors[1 - victim]);
            other.listen(u64::MAX, Duration::ZERO);
            // What was promised is already true.
            stage.assert_has(dead, other);
            running[victim] = Some(stage.world.receive(dead));
            authors[victim].revive(&stage.world);
        }
        // A receipt may have got lost with its reader: what is on the disks tells in the end.
        for author in &authors {
            until("everything is delivered", PATIENCE, || {
                let history = stage.world.history(author.who, author.to);
                let is_open = |item: &Value| !is_confirmed(&item["state"]);
                (!history.iter().any(is_open)).then_some(())
            });
        }
        for running in running.into_iter().flatten() {
            running.kill();
        }
        for author in &mut authors {
            author.die();
        }
        let _ = stage.world.kill_server();
        stage.assert_conversation(&authors);
    }
}

// ---- a server that lets nobody in for a while --------------------------------------------------

/// Where bob was last is somebody who never answers. He has another endpoint now, of which only the server knows, and
/// that takes so long to let alice in that she looks for him at the old one first.
#[test]
fn whoever_is_back_on_another_port_is_reached_as_soon_as_the_server_lets_somebody_in() {
    let mut world = World::new(EXECUTABLE);
    let door = Door::before(world.server().address.parse().unwrap());
    world.register_at("alice", door.address, (Ipv4Addr::LOCALHOST, 0).into());
    world.register("bob");
    let (alice, bob) = (world.receive("alice"), world.receive("bob"));
    assert_eq!(world.peer("alice", &["send", "bob", "hello"]).code(), 0);
    let old = world.wait_direct("alice");
    for running in [alice, bob] {
        running.interrupt().unwrap();
    }
    let silent = UdpSocket::bind(old).unwrap();
    silent.set_read_timeout(Some(PATIENCE)).unwrap();
    let _bob = world.receive("bob");

    door.set_open(false);
    let sending = world.start("alice", &["--json", "send", "bob", "again"]);
    let checked = silent.recv_from(&mut [0; 2048]);
    checked.expect("alice looks for bob where he was");
    let begun = now();
    door.set_open(true);
    let sent = sending.finish(PATIENCE).unwrap();
    let took = now() - begun;
    assert_eq!(sent.code(), 0, "{sent:?}");
    println!("delivered {took:?} after the server let her in");
    // Long before the old endpoint is given up.
    assert!(took < DIAL_TIMEOUT / 2, "{took:?}");
}

/// Another way to the server's TCP port. While it is shut, whoever comes proves who they are and hears nothing of it.
#[derive(Debug)]
struct Door {
    address: SocketAddr,
    latch: Arc<Latch>,
}

#[derive(Debug)]
struct Latch {
    is_open: Mutex<bool>,
    opened: Condvar,
}

impl Door {
    /// An open one. Its threads end with the connections, and with the test.
    fn before(server: SocketAddr) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let latch = Arc::new(Latch {
            is_open: Mutex::new(true),
            opened: Condvar::new(),
        });
        let shared = Arc::clone(&latch);
        thread::spawn(move || {
            for client in listener.incoming() {
                let server = TcpStream::connect(server).unwrap();
                lead(&client.unwrap(), &server, &shared);
            }
        });
        Self { address, latch }
    }

    fn set_open(&self, is_open: bool) {
        *self.latch.is_open.lock().unwrap() = is_open;
        self.latch.opened.notify_all();
    }
}

/// Carries a connection. What the server says first is its part of the TLS handshake, and what the client says then
/// ends that: all further answers wait for the door.
fn lead(client: &TcpStream, server: &TcpStream, latch: &Arc<Latch>) {
    let is_answered = Arc::new(AtomicBool::new(false));
    let is_proved = Arc::new(AtomicBool::new(false));
    let (answered, proved) = (Arc::clone(&is_answered), Arc::clone(&is_proved));
    pump(client, server, move || {
        proved.fetch_or(answered.load(Ordering::SeqCst), Ordering::SeqCst);
    });
    let latch = Arc::clone(latch);
    pump(server, client, move || {
        is_answered.store(true, Ordering::SeqCst);
        if is_proved.load(Ordering::SeqCst) {
            let is_open = latch.is_open.lock().unwrap();
            drop(latch.opened.wait_while(is_open, |is_open| !*is_open));
        }
    });
}

/// Carries in a thread what one end says to the other. `before` is called for each piece.
fn pump(from: &TcpStream, to: &TcpStream, before: impl Fn() + Send + 'static) {
    let [mut from, mut to] = [from, to].map(|stream| stream.try_clone().unwrap());
    thread::spawn(move || {
        let mut space = [0; 16_384];
        while let Ok(len @ 1..) = from.read(&mut space) {
            before();
            if to.write_all(&space[..len]).is_err() {
                break;
            }
        }
        // It may be closed already.
        let _ = to.shutdown(Shutdown::Both);
    });
}

// ---- what the tests share ----------------------------------------------------------------------

/// Alice on one island and bob on the other, with bad luck between them and before the server.
#[derive(Debug)]
struct Stage {
    world: World,
    proxy: Proxy,
    dice: Dice,
}

impl Stage {
    /// Good luck for now. `None` if this machine has but one island.
    #[track_caller]
    fn new(seed: u64) -> Option<Self> {
        println!("seed {seed}");
        // The control connection would carry what the proxy loses.
        let mut world = World::serving(EXECUTABLE, &["--no-relay"]);
        let proxy = match Proxy::new(seed, world.server().address.parse().unwrap()) {
            Ok(proxy) => proxy,
            Err(error) if error.kind() == ErrorKind::AddrNotAvailable => {
                println!("skipped: this machine has no [::1]");
                return None;
            }
            Err(error) => panic!("{error}"),
        };
        for (who, island) in [("alice", Island::V6), ("bob", Island::V4)] {
            world.register_at(who, proxy.server(island), proxy.peer(island));
        }
        let dice = Dice::new(seed);
        Some(Self { world, proxy, dice })
    }

    #[track_caller]
    fn authors(&self) -> [Author; 2] {
        let author = |who, to| Author::new(&self.world, who, to);
        [author("alice", "bob"), author("bob", "alice")]
    }

    /// Nothing arrives while it is dark: there is no way around the proxy.
    #[track_caller]
    fn darken(&mut self, author: &mut Author) {
        let luck = Luck::bad(&mut self.dice);
        author.listen_to_the_end();
        self.proxy.set_luck(Luck::DARK);
        for _ in 0..5 {
            author.send(&mut self.dice);
        }
        let before = author.confirmed.len();
        author.listen(u64::MAX, DARKNESS);
        assert_eq!(author.confirmed.len(), before, "there is another way");
        self.proxy.set_luck(luck);
    }

    #[track_caller]
    fn start_sending(&self, name: &str) -> Running {
        let arguments = ["--json", "send-file", "bob", name];
        self.world.start("alice", &arguments)
    }

    /// Fails unless everything that the author was told is delivered is in the history of `who`.
    #[track_caller]
    fn assert_has(&self, who: &str, author: &Author) {
        let history = self.world.history(who, author.who);
        let has = written(&history, "received").into_iter().map(|(id, _)| id);
        let has: BTreeSet<_> = has.collect();
        let missing: Vec<_> = author.confirmed.difference(&has).collect();
        assert!(missing.is_empty(), "{who} has not {missing:?}");
    }

    /// Fails unless both have the whole conversation on disk: each text once, in order, and confirmed.
    ///
    /// An author who dies before a text was called queued may have lost it, and the recipient may have
    /// it nevertheless: it is sent while the author's disk still writes.
    #[track_caller]
    fn assert_conversation(&self, authors: &[Author; 2]) {
        for author in authors {
            let history = self.world.history(author.who, author.to);
            let open = history.iter().find(|item| !is_confirmed(&item["state"]));
            assert_eq!(open, None);
            let own = author.assert_in_order(&written(&history, "sent"));
            let history = self.world.history(author.to, author.who);
            let arrived = author.assert_in_order(&written(&history, "received"));
            let lost: Vec<_> = author
                .queued
                .keys()
                .filter(|id| !own.contains(*id))
                .collect();
            assert!(lost.is_empty(), "{} has lost {lost:?}", author.who);
            let promised = own.union(&author.confirmed);
            let missing: Vec<_> = promised.filter(|id| !arrived.contains(*id)).collect();
            assert!(missing.is_empty(), "{} has not {missing:?}", author.to);
        }
    }
}

/// Somebody who writes, and what they were told.
#[derive(Debug)]
struct Author {
    who: &'static str,
    to: &'static str,
    control: Option<Control>,
    /// The texts, in this order.
    sent: Vec<String>,
    /// The requests that have no reply yet.
    open: BTreeMap<u64, String>,
    /// By their ids, the texts that are on the author's disk, as the author was told.
    queued: BTreeMap<String, String>,
    /// The ids of the messages that are on the recipient's disk, as the author was told.
    confirmed: BTreeSet<String>,
}

impl Author {
    #[track_caller]
    fn new(world: &World, who: &'static str, to: &'static str) -> Self {
        let mut author = Self {
            who,
            to,
            control: None,
            sent: Vec::new(),
            open: BTreeMap::new(),
            queued: BTreeMap::new(),
            confirmed: BTreeSet::new(),
        };
        author.revive(world);
        author
    }

    /// Writes the next text. Whether it was queued is heard later.
    #[track_caller]
    fn send(&mut self, dice: &mut Dice) {
        let len = match dice.within(0, 3) {
            0 => dice.within(1, TEXT_LEN_MAX) as usize,
            _ => 1,
        };
        let number = self.sent.len();
        let body = format!("{} writes number {number:.<len$}", self.who);
        let letter = letter(self.to, &body);
        let request = self.control().post("send", letter);
        self.open.insert(request, body.clone());
        self.sent.push(body);
    }

    /// Listens until `count` messages are confirmed.
    #[track_caller]
    fn listen_until(&mut self, count: u64) {
        self.listen_while(|author| (author.confirmed.len() as u64) < count);
    }

    /// Listens until everything is confirmed. A receipt may be faster than the author's own disk.
    #[track_caller]
    fn listen_to_the_end(&mut self) {
        self.listen_while(|author| {
            author.confirmed.len() < author.sent.len() || !author.open.is_empty()
        });
    }

    #[track_caller]
    fn listen_while(&mut self, is_waiting: impl Fn(&Self) -> bool) {
        let deadline = now() + PATIENCE;
        while is_waiting(self) {
            let left = deadline.saturating_duration_since(now());
            let Some(heard) = self.control().event(left) else {
                let (who, confirmed, sent) = (self.who, self.confirmed.len(), self.sent.len());
                panic!("{who} has receipts for {confirmed} of {sent}");
            };
            self.hear(&heard);
        }
    }

    /// Listens to at most `count` things, until nothing more comes for `patience`.
    #[track_caller]
    fn listen(&mut self, count: u64, patience: Duration) {
        for _ in 0..count {
            match self.control().event(patience) {
                Some(heard) => self.hear(&heard),
                None => return,
            }
        }
    }

    /// The author's process has died: what it still said counts.
    #[track_caller]
    fn die(&mut self) {
        let control = self.control.take().unwrap();
        for heard in control.last_words(PATIENCE) {
            self.hear(&heard);
        }
        self.open.clear();
    }

    /// The author's process runs again.
    #[track_caller]
    fn revive(&mut self, world: &World) {
        let mut control = world.control(self.who);
        control.subscribe(PATIENCE);
        self.control = Some(control);
    }

    /// Fails unless these are texts of the author, each once and in order. Returns their ids.
    #[track_caller]
    fn assert_in_order(&self, written: &[(String, String)]) -> BTreeSet<String> {
        let bodies: BTreeSet<_> = written.iter().map(|(_, body)| body).collect();
        let expected = self.sent.iter().filter(|body| bodies.contains(body));
        let is_in_order = written.iter().map(|(_, body)| body).eq(expected);
        assert!(is_in_order, "of {}: {written:?}", self.who);
        written.iter().map(|(id, _)| id.clone()).collect()
    }

    #[track_caller]
    fn hear(&mut self, heard: &Value) {
        let params = &heard["params"];
        if heard["method"] == "message_state" && is_confirmed(&params["state"]) {
            self.confirmed.insert(text(&params["id"]));
        } else if let Some(request) = heard["id"].as_u64() {
            let body = self.open.remove(&request).unwrap();
            let id = text(&heard["result"]["queued"][0]);
            self.queued.insert(id, body);
        }
    }

    #[track_caller]
    fn control(&mut self) -> &mut Control {
        self.control.as_mut().unwrap()
    }
}

/// The seeds of a test.
fn seeds(fixed: &[u64]) -> Vec<u64> {
    match std::env::var(SEEDS) {
        Ok(text) => text.split(',').map(|seed| seed.parse().unwrap()).collect(),
        Err(_) => fixed.to_vec(),
    }
}

fn is_confirmed(state: &Value) -> bool {
    state == "delivered" || state == "read"
}

/// Ids and texts of one direction of a conversation, oldest first.
fn written(history: &[Value], direction: &str) -> Vec<(String, String)> {
    let own = history.iter().filter(|item| item["direction"] == direction);
    own.map(|item| (text(&item["id"]), text(&item["body"])))
        .collect()
}
