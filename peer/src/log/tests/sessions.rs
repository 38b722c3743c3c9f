//! Devices with several conversations, whose links break, and whose stores, verifiers and disks answer in any order.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use common::limits::{PAGE_FRAME_LEN_MAX, PAGE_LEN_MAX, PAGES_IN_FLIGHT_LEN_MAX};
use common::log::{ChainId, ConversationId, Sequence, Vector};
use common::time::UnixTime;
use common::wire::frame::{self, PREFIX_LEN};
use common::wire::peer::LogFrame;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::host::Accounts;
use node::Node;

mod node;

const NODES: usize = 5;
const CONVERSATIONS: u8 = 12;
/// Frames that a link takes before they are delivered.
const WIRE_FRAMES_MAX: usize = 4;

/// How many pages went over links, and how many of them said nothing that had not been said on the same link.
#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    entries: usize,
    pages: usize,
    /// The same entries over one link twice.
    again: usize,
    /// Pages that others than the author gave.
    passed_on: usize,
    links: usize,
    frames: usize,
}

#[derive(Debug)]
struct Network {
    rng: StdRng,
    nodes: Vec<Node>,
    members: BTreeMap<ConversationId, BTreeSet<usize>>,
    wires: BTreeMap<(usize, usize), VecDeque<LogFrame>>,
    /// What each side has named on each link.
    names: BTreeMap<(usize, usize), Names>,
    start: Instant,
    elapsed: Duration,
    epochs: u64,
    texts: usize,
    counts: Counts,
}

#[derive(Debug, Default)]
struct Names {
    conversations: Vec<ConversationId>,
    chains: BTreeMap<u32, (ConversationId, ChainId)>,
    given: BTreeMap<(ConversationId, ChainId), Sequence>,
    is_first: bool,
}

impl Network {
    #[expect(clippy::disallowed_methods, reason = "any instant will do as a start")]
    fn new(seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let devices = (0..NODES).map(|number| {
            let secret = common::key::DeviceSecret::from_seed([number as u8 + 1; 32]);
            (secret.public(), (number as u32, number < 3))
        });
        let accounts = Accounts {
            devices: devices.collect(),
            revoked: BTreeSet::new(),
        };
        let nodes =
            (0..NODES).map(|n| Node::new(n as u8 + 1, seed * 100 + n as u64, accounts.clone()));
        let mut nodes: Vec<Node> = nodes.collect();
        let mut members = BTreeMap::new();
        for number in 0..CONVERSATIONS {
            // Some in one bucket.
            let mut bytes = [number; 32];
            bytes[0] = number / 2;
            let id = ConversationId::from_bytes(bytes);
            let mut of: BTreeSet<usize> = (0..NODES).filter(|_| rng.random_bool(0.7)).collect();
            of.insert(usize::from(number) % NODES);
            for node in &of {
                nodes[*node].join(id);
            }
            members.insert(id, of);
        }
        Self {
            rng,
            nodes,
            members,
            wires: BTreeMap::new(),
            names: BTreeMap::new(),
            start: Instant::now(),
            elapsed: Duration::ZERO,
            epochs: 0,
            texts: 0,
            counts: Counts::default(),
        }
    }

    fn now(&self) -> Instant {
        self.start + self.elapsed
    }

    fn wall(&self, node: usize) -> UnixTime {
        let offset = node as u64 * 30_000;
        UnixTime::from_millis(1_795_000_000_000 + offset).saturating_add(self.elapsed)
    }

    fn any_node(&mut self) -> usize {
        self.rng.random_range(0..NODES)
    }

    // ---- links ---------------------------------------------------------------------------------

    fn shared(&self, one: usize, other: usize) -> BTreeSet<ConversationId> {
        let both = |of: &BTreeSet<usize>| of.contains(&one) && of.contains(&other);
        let shared = self.members.iter().filter(|(_, of)| both(of));
        shared.map(|(id, _)| *id).collect()
    }

    fn disconnect(&mut self, one: usize, other: usize) {
        for (from, to) in [(one, other), (other, one)] {
            self.nodes[from].disconnect(to);
            self.wires.remove(&(from, to));
            self.names.remove(&(from, to));
        }
    }

    fn connect(&mut self, one: usize, other: usize) {
        self.disconnect(one, other);
        self.epochs += 1;
        self.counts.links += 1;
        let shared = self.shared(one, other);
        for (from, to) in [(one, other), (other, one)] {
            let peer = self.nodes[to].device;
            self.nodes[from].connect(to, peer, self.epochs, shared.clone());
            self.wires.insert((from, to), VecDeque::new());
            self.names.insert((from, to), Names::default());
        }
    }

    /// Takes a frame of a link, if that has room, and looks at it as it goes by.
    fn pull(&mut self, from: usize, to: usize) -> bool {
        let now = self.now();
        let wire = self.wires.get(&(from, to));
        if wire.is_none_or(|wire| wire.len() >= WIRE_FRAMES_MAX) {
            return false;
        }
        let Some(frame) = self.nodes[from].poll(to, now) else {
            return false;
        };
        let mut bytes = Vec::new();
        frame::encode::<PAGE_FRAME_LEN_MAX>(&frame, &mut bytes).expect("it fits");
        let decoded = frame::decode::<PAGE_FRAME_LEN_MAX, LogFrame>(&bytes[PREFIX_LEN..]);
        assert_eq!(decoded.as_ref(), Ok(&frame));
        self.look_at(from, to, &frame);
        self.counts.frames += 1;
        self.wires.get_mut(&(from, to)).unwrap().push_back(frame);
        true
    }

    /// What must hold of each frame, whatever came before it.
    fn look_at(&mut self, from: usize, to: usize, frame: &LogFrame) {
        let shared = self.shared(from, to);
        let names = self.names.get_mut(&(from, to)).unwrap();
        let node = &self.nodes[from];
        assert_eq!(matches!(frame, LogFrame::Greet(_)), !names.is_first);
        names.is_first = true;
        match frame {
            LogFrame::Open { conversation, .. } => {
                assert!(shared.contains(conversation), "it is not shared");
                if !names.conversations.contains(conversation) {
                    names.conversations.push(*conversation);
                }
            }
            LogFrame::Digests(digests) => {
                let ids = digests.as_slice().iter().map(|(id, _)| id);
                assert!(ids.into_iter().all(|id| shared.contains(id)));
            }
            LogFrame::Chains {
                conversation,
                chains,
                ..
            } => {
                let id = names.conversations[conversation.0 as usize];
                for chain in chains.as_slice() {
                    names.chains.insert(chain.number.0, (id, chain.chain));
                    node.check_promise(&id, &chain.chain, &chain.extent);
                }
            }
            LogFrame::Have { extents, .. } => {
                for (number, extent) in extents.as_slice() {
                    let (id, chain) = names.chains[&number.0];
                    node.check_promise(&id, &chain, extent);
                }
            }
            LogFrame::Entries(entries) => {
                let (id, chain) = names.chains[&entries.chain.0];
                let is_author = chain.device == node.device;
                assert!(is_author || entries.seal.is_some(), "it is not sealed");
                let last = entries.first.plus(entries.entries.as_slice().len() - 1);
                let given = names.given.entry((id, chain)).or_insert(Sequence::START);
                self.counts.pages += 1;
                self.counts.passed_on += usize::from(!is_author);
                self.counts.again += usize::from(entries.first <= *given);
                *given = last.max(*given);
            }
            LogFrame::Greet(_)
            | LogFrame::Buckets(_)
            | LogFrame::Gone { .. }
            | LogFrame::Seal { .. }
            | LogFrame::Marks(_)
            | LogFrame::Fork { .. }
            | LogFrame::Trace { .. }
            | LogFrame::Stretch { .. }
            | LogFrame::Typing { .. }
            | LogFrame::Ask { .. }
            | LogFrame::Answer { .. }
            | LogFrame::End { .. }
            | LogFrame::Known(_) => {}
        }
        let in_flight = self.nodes[from].budget.len();
        let links = self.nodes[from].ends.len();
        assert!(in_flight <= links * (PAGES_IN_FLIGHT_LEN_MAX + PAGE_LEN_MAX));
    }

    fn deliver(&mut self, from: usize, to: usize) -> bool {
        let now = self.now();
        let frame = self
            .wires
            .get_mut(&(from, to))
            .and_then(VecDeque::pop_front);
        let Some(frame) = frame else {
            return false;
        };
        self.nodes[to].handle(from, frame, now);
        true
    }

    // ---- what happens --------------------------------------------------------------------------

    fn step(&mut self) {
        self.elapsed += Duration::from_millis(self.rng.random_range(0..10));
        let [one, other] = [(); 2].map(|()| self.any_node());
        let (now, wall) = (self.now(), self.wall(one));
        match self.rng.random_range(0..100) {
            0..6 => self.write(one),
            6..12 => self.nodes[one].sign(now),
            12..14 if one != other => match self.rng.random_bool(0.7) {
                true => self.connect(one, other),
                false => self.disconnect(one, other),
            },
            14..30 => self.nodes[one].commit(now),
            30..45 => self.nodes[one].verify(other, wall, now),
            45..60 => self.nodes[one].read(other, now),
            60..65 => self.nodes[one].timeout(now),
            65..82 => {
                self.pull(one, other);
            }
            _ => {
                self.deliver(one, other);
            }
        }
    }

    fn write(&mut self, node: usize) {
        let ids: Vec<ConversationId> = self.nodes[node].replicas.keys().copied().collect();
        if ids.is_empty() {
            return;
        }
        let id = ids[self.rng.random_range(0..ids.len())];
        let count = if self.rng.random_bool(0.05) { 80 } else { 1 };
        for _ in 0..count {
            self.texts += 1;
            let (wall, now) = (self.wall(node), self.now());
            let text = format!("text {}", self.texts);
            self.nodes[node].append(id, &text, wall, now);
            self.nodes[node].sign(now);
        }
    }

    /// Nothing goes wrong any more, and all are linked to all.
    fn settle(&mut self) {
        for one in 0..NODES {
            for other in one + 1..NODES {
                self.connect(one, other);
            }
        }
        for _ in 0..5_000 {
            let mut is_busy = false;
            for one in 0..NODES {
                let (now, wall) = (self.now(), self.wall(one));
                for _ in 0..8 {
                    self.nodes[one].sign(now);
                    self.nodes[one].commit(now);
                }
                for other in 0..NODES {
                    for _ in 0..4 {
                        self.nodes[one].verify(other, wall, now);
                        self.nodes[one].read(other, now);
                        is_busy |= self.pull(one, other);
                        is_busy |= self.deliver(one, other);
                    }
                }
                self.nodes[one].timeout(now);
                is_busy |= !self.nodes[one].is_at_rest();
            }
            self.elapsed += Duration::from_millis(20);
            if !is_busy {
                return;
            }
        }
        panic!("it never comes to rest");
    }

    /// All that was written is everywhere where it belongs, and nowhere else.
    fn check(&mut self) {
        for (id, of) in &self.members {
            let mut expected: BTreeMap<ChainId, Sequence> = BTreeMap::new();
            for node in of {
                let node = &self.nodes[*node];
                for (chain, rows) in &node.disks[id].rows {
                    if chain.device == node.device {
                        let (last, _) = rows.last_key_value().unwrap();
                        expected.insert(*chain, *last);
                    }
                }
            }
            self.counts.entries += expected
                .values()
                .map(|last| last.number() as usize)
                .sum::<usize>();
            for node in of {
                let Vector(vector) = self.nodes[*node].replicas[id].vector(None);
                let lasts = vector.iter().map(|(chain, extent)| (*chain, extent.last));
                let lasts: BTreeMap<ChainId, Sequence> = lasts.collect();
                assert_eq!(lasts, expected, "{id:?} at {node}");
            }
            let digests = of
                .iter()
                .map(|node| self.nodes[*node].replicas[id].digest());
            assert_eq!(digests.collect::<BTreeSet<_>>().len(), 1);
        }
        for (number, node) in self.nodes.iter_mut().enumerate() {
            assert!(node.budget.is_empty(), "{} at {number}", node.budget.len());
        }
    }
}

fn run(seeds: std::ops::Range<u64>, steps: u32) -> Counts {
    let mut all = Counts::default();
    for seed in seeds {
        println!("SEED {seed}");
        let mut network = Network::new(seed);
        for _ in 0..steps {
            network.step();
        }
        network.settle();
        network.check();
        let counts = network.counts;
        all.entries += counts.entries;
        all.pages += counts.pages;
        all.again += counts.again;
        all.passed_on += counts.passed_on;
        all.links += counts.links;
        all.frames += counts.frames;
    }
    println!("{all:?}");
    all
}

#[test]
fn all_have_the_same_of_all_conversations_and_no_page_goes_over_a_link_twice() {
    let counts = run(0..12, 8_000);
    assert!(counts.entries > 1000 && counts.passed_on > 20, "{counts:?}");
    assert_eq!(counts.again, 0, "{counts:?}");
}

#[test]
fn the_same_seed_twice_says_the_same() {
    let [one, other] = [run(77..78, 3_000), run(77..78, 3_000)];
    assert_eq!(one.frames, other.frames);
    assert_eq!(one.pages, other.pages);
}
