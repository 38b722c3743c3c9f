use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use common::key::DeviceSecret;
use common::log::{Body, ChainId, EntryId, HeaderHash, Sequence};
use common::time::UnixTime;
use common::wire::peer::MessageBody;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::disk::Disk;
use super::host::{Accounts, Frame, Host};
use super::model::Model;
use crate::log::Instance;

/// Devices: the first three are of one account, the other two of another.
pub(super) const DEVICES: usize = 5;

/// How often something goes wrong, in a thousand steps; of loss, doubling and reordering, frames in a thousand.
#[derive(Clone, Copy, Debug)]
pub(super) struct Chances {
    loss: u32,
    double: u32,
    reorder: u32,
    crash: u32,
    restart: u32,
    restore: u32,
    copy: u32,
    cut: u32,
}

impl Chances {
    const NONE: Self = Self {
        loss: 0,
        double: 0,
        reorder: 0,
        crash: 0,
        restart: 0,
        restore: 0,
        copy: 0,
        cut: 0,
    };
    pub(super) const NETWORK: Self = Self {
        loss: 50,
        double: 50,
        reorder: 200,
        ..Self::NONE
    };
    pub(super) const CRASHES: Self = Self {
        crash: 30,
        restart: 10,
        restore: 5,
        ..Self::NONE
    };
    pub(super) const COPIES: Self = Self {
        copy: 8,
        restart: 10,
        ..Self::NONE
    };
    pub(super) const CUTS: Self = Self {
        cut: 10,
        restart: 5,
        ..Self::NONE
    };
    pub(super) const EVERYTHING: Self = Self {
        loss: 20,
        double: 20,
        reorder: 50,
        crash: 10,
        restart: 10,
        restore: 3,
        copy: 4,
        cut: 4,
    };
    /// What leaves something of each kind on the disks of a few worlds.
    pub(super) const DISKS: Self = Self {
        copy: 12,
        cut: 40,
        ..Self::EVERYTHING
    };
}

/// How often something has happened, over all worlds of a test.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    pub(super) entries: usize,
    pub(super) crashes: usize,
    pub(super) restored: usize,
    pub(super) copied: usize,
    pub(super) forks: usize,
    pub(super) cuts: usize,
    /// Runs that went on after a start.
    pub(super) resumed: usize,
}

impl std::ops::AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.entries += other.entries;
        self.crashes += other.crashes;
        self.restored += other.restored;
        self.copied += other.copied;
        self.forks += other.forks;
        self.cuts += other.cuts;
        self.resumed += other.resumed;
    }
}

/// An entry, and the hash of its header: copies of a device write different ones at one place.
pub(super) type Written = (EntryId, HeaderHash);

/// Devices, and a network between them.
#[derive(Debug)]
pub(super) struct World {
    rng: StdRng,
    chances: Chances,
    pub(super) hosts: BTreeMap<usize, Host>,
    wires: BTreeMap<(usize, usize), VecDeque<Frame>>,
    backups: Vec<(usize, Disk)>,
    accounts: Accounts,
    start: Instant,
    /// Since the start.
    elapsed: Duration,
    /// What was written, and the last entry that its author was shown then.
    pub(super) causes: BTreeMap<Written, Written>,
    texts: usize,
    instances: u8,
    pub(super) counts: Counts,
}

impl World {
    #[expect(clippy::disallowed_methods, reason = "any instant will do as a start")]
    pub(super) fn new(seed: u64, chances: Chances) -> Self {
        let keys = (0..DEVICES).map(|number| {
            let key = DeviceSecret::from_seed([number as u8 + 1; 32]).public();
            (key, (number as u32, number < 3))
        });
        let accounts = Accounts {
            devices: keys.collect(),
            revoked: BTreeSet::new(),
        };
        let hosts = (0..DEVICES).map(|number| {
            let own_seed = seed * 100 + number as u64;
            (
                number,
                Host::new(number, number as u8 + 1, own_seed, accounts.clone()),
            )
        });
        let mut world = Self {
            rng: StdRng::seed_from_u64(seed),
            chances,
            hosts: hosts.collect(),
            wires: BTreeMap::new(),
            backups: Vec::new(),
            accounts,
            start: Instant::now(),
            elapsed: Duration::ZERO,
            causes: BTreeMap::new(),
            texts: 0,
            instances: 100,
            counts: Counts::default(),
        };
        for number in 0..DEVICES {
            let wall = world.wall(number);
            world.hosts.get_mut(&number).unwrap().start(wall);
        }
        world.connect_all();
        world
    }

    pub(super) fn steps(&mut self) -> u32 {
        self.rng.random_range(50..400)
    }

    fn now(&self) -> Instant {
        self.start + self.elapsed
    }

    /// The clocks of the devices differ by up to two minutes.
    fn wall(&self, host: usize) -> UnixTime {
        let offset = (host % DEVICES) as u64 * 30_000;
        UnixTime::from_millis(1_795_000_000_000 + offset).saturating_add(self.elapsed)
    }

    fn chance(&mut self, in_a_thousand: u32) -> bool {
        self.rng.random_ratio(in_a_thousand, 1000)
    }

    fn any_host(&mut self) -> usize {
        let index = self.rng.random_range(0..self.hosts.len());
        *self.hosts.keys().nth(index).unwrap()
    }

    // ---- what happens --------------------------------------------------------------------------

    pub(super) fn step(&mut self) {
        self.elapsed += Duration::from_millis(self.rng.random_range(0..8));
        let number = self.any_host();
        match self.rng.random_range(0..100) {
            0..15 => self.write(number),
            15..25 => self.commit(number),
            25..33 => self.sign(number),
            33..36 => self.link(number),
            36..38 => self.hosts.get_mut(&number).unwrap().hear(&self.accounts),
            _ => self.deliver(),
        }
        self.fault(number);
        self.post();
    }

    fn fault(&mut self, number: usize) {
        let chances = self.chances;
        if self.chance(chances.crash) {
            self.crash(number);
        }
        if self.chance(chances.restart) {
            self.restart(number);
        }
        if self.chance(2 * chances.restore) {
            self.back_up(number);
        }
        if self.chance(chances.restore) {
            self.restore();
        }
        if self.chance(chances.copy) {
            self.copy(number);
        }
        if self.chance(chances.cut) {
            self.cut(number);
        }
    }

    fn write(&mut self, number: usize) {
        let (wall, now) = (self.wall(number), self.now());
        let count = if self.chance(15) { 90 } else { 1 };
        let host = &self.hosts[&number];
        let cause = host.shown().last().map(|(_, id)| host.written(*id));
        for _ in 0..count {
            self.texts += 1;
            let text = MessageBody::try_from(format!("text {}", self.texts)).unwrap();
            let host = self.hosts.get_mut(&number).unwrap();
            let id = host.append(&Body::Text(text), wall, now);
            let written = id.map(|id| host.written(id));
            if let (Some(written), Some(cause)) = (written, cause) {
                self.causes.insert(written, cause);
            }
            if count > 1 {
                host.sign(wall, now);
            }
        }
    }

    fn commit(&mut self, number: usize) {
        let wall = self.wall(number);
        let transactions = self.rng.random_range(1..6);
        let host = self.hosts.get_mut(&number).unwrap();
        for _ in 0..transactions {
            host.verify(wall);
        }
        host.commit(transactions);
    }

    fn sign(&mut self, number: usize) {
        let (wall, now) = (self.wall(number), self.now());
        let host = self.hosts.get_mut(&number).unwrap();
        host.sign(wall, now);
        host.turn();
    }

    /// A link between two hosts ends, or begins anew.
    fn link(&mut self, number: usize) {
        let other = self.any_host();
        if number % DEVICES != other % DEVICES {
            self.cut_link(number, other);
            if self.rng.random_bool(0.7) {
                self.connect(number, other);
            }
        }
    }

    fn connect(&mut self, one: usize, other: usize) {
        let [one_key, other_key] = [one, other].map(|number| self.hosts[&number].device);
        self.hosts.get_mut(&one).unwrap().connect(other, &other_key);
        self.hosts.get_mut(&other).unwrap().connect(one, &one_key);
    }

    fn connect_all(&mut self) {
        let numbers: Vec<usize> = self.hosts.keys().copied().collect();
        for one in &numbers {
            for other in &numbers {
                if one < other && one % DEVICES != other % DEVICES {
                    self.connect(*one, *other);
                }
            }
        }
        self.post();
    }

    fn cut_link(&mut self, one: usize, other: usize) {
        for (from, to) in [(one, other), (other, one)] {
            self.wires.remove(&(from, to));
            let host = self.hosts.get_mut(&from).unwrap();
            host.disconnect(to);
        }
    }

    fn cut_links(&mut self, number: usize) {
        let others: Vec<usize> = self.hosts.keys().copied().collect();
        for other in others {
            if other != number {
                self.cut_link(number, other);
            }
        }
    }

    fn connect_to_some(&mut self, number: usize) {
        let others: Vec<usize> = self.hosts.keys().copied().collect();
        for other in others {
            if other % DEVICES != number % DEVICES && self.rng.random_bool(0.5) {
                self.connect(number, other);
            }
        }
    }

    /// Takes what the hosts have said to the wires.
    fn post(&mut self) {
        for (number, host) in &mut self.hosts {
            for (to, frame) in host.outbox.drain(..) {
                self.wires
                    .entry((*number, to))
                    .or_default()
                    .push_back(frame);
            }
        }
    }

    fn deliver(&mut self) {
        let full: Vec<(usize, usize)> = self
            .wires
            .iter()
            .filter_map(|(wire, frames)| (!frames.is_empty()).then_some(*wire))
            .collect();
        if full.is_empty() {
            return;
        }
        let wire = full[self.rng.random_range(0..full.len())];
        let chances = self.chances;
        let is_lost = self.chance(chances.loss);
        let is_doubled = self.chance(chances.double);
        let is_overtaken = self.chance(chances.reorder);
        let frames = self.wires.get_mut(&wire).unwrap();
        let index = match is_overtaken {
            true => self.rng.random_range(0..frames.len()),
            false => 0,
        };
        let frame = frames.remove(index).unwrap();
        if is_doubled {
            frames.push_back(frame.clone());
        }
        if !is_lost {
            self.hand_over(wire, frame);
        }
    }

    fn hand_over(&mut self, (from, to): (usize, usize), frame: Frame) {
        let wall = self.wall(to);
        let device = self.hosts[&from].device;
        let host = self.hosts.get_mut(&to).unwrap();
        host.handle(from, device, frame, wall);
        if self.rng.random_bool(0.3) {
            let host = self.hosts.get_mut(&to).unwrap();
            host.verify(wall);
            host.turn();
        }
    }

    // ---- what goes wrong -----------------------------------------------------------------------

    fn crash(&mut self, number: usize) {
        self.counts.crashes += 1;
        self.cut_links(number);
        let wall = self.wall(number);
        let host = self.hosts.get_mut(&number).unwrap();
        host.start(wall);
        host.check_promises_kept();
        self.connect_to_some(number);
    }

    fn stop(&mut self, number: usize) {
        let (wall, now) = (self.wall(number), self.now());
        self.cut_links(number);
        self.hosts.get_mut(&number).unwrap().stop(wall, now);
    }

    fn start(&mut self, number: usize) {
        let wall = self.wall(number);
        let host = self.hosts.get_mut(&number).unwrap();
        host.start(wall);
        self.counts.resumed += usize::from(host.replica.run().is_some());
        self.connect_to_some(number);
    }

    fn restart(&mut self, number: usize) {
        self.stop(number);
        self.start(number);
    }

    fn back_up(&mut self, number: usize) {
        let is_clean = self.rng.random_bool(0.5);
        if is_clean {
            self.stop(number);
        }
        let disk = self.hosts[&number].disk.clone();
        self.backups.push((number, disk));
        if is_clean {
            self.start(number);
        }
    }

    /// A backup comes back: another file than the one that was backed up.
    fn restore(&mut self) {
        if self.backups.is_empty() {
            return;
        }
        self.counts.restored += 1;
        let index = self.rng.random_range(0..self.backups.len());
        let (number, disk) = self.backups[index].clone();
        self.cut_links(number);
        let instance = self.new_instance();
        let host = self.hosts.get_mut(&number).unwrap();
        host.instance = instance;
        host.replace_disk(disk);
        self.start(number);
    }

    fn new_instance(&mut self) -> Instance {
        self.instances += 1;
        Instance([self.instances; 32])
    }

    /// A machine is copied as a whole, so that nothing tells one from the other; or its profile only.
    fn copy(&mut self, number: usize) {
        let copy = number % DEVICES + DEVICES;
        if self.hosts.contains_key(&copy) {
            return;
        }
        self.counts.copied += 1;
        self.stop(number);
        let seed = self.rng.random();
        let device = (number % DEVICES) as u8 + 1;
        let mut host = Host::new(copy, device, seed, self.accounts.clone());
        let is_machine = self.rng.random_bool(0.8);
        host.instance = match is_machine {
            true => self.hosts[&number].instance,
            false => self.new_instance(),
        };
        host.replace_disk(self.hosts[&number].disk.clone());
        self.hosts.insert(copy, host);
        self.start(number);
        self.start(copy);
    }

    /// A device ends the chains of another one of its account, and mostly that is revoked.
    fn cut(&mut self, number: usize) {
        let signer = self.hosts[&number].device;
        let (rank, account) = self.accounts.devices[&signer];
        let juniors = self.accounts.devices.iter();
        let juniors: Vec<_> = juniors
            .filter(|(_, (junior, of))| *of == account && *junior > rank)
            .map(|(target, _)| *target)
            .collect();
        if juniors.is_empty() || self.accounts.revoked.contains(&signer) {
            return;
        }
        let target = juniors[self.rng.random_range(0..juniors.len())];
        self.counts.cuts += 1;
        let (wall, now) = (self.wall(number), self.now());
        let host = self.hosts.get_mut(&number).unwrap();
        let chains: Vec<ChainId> = host.replica.chains_of(&target).copied().collect();
        for chain in chains {
            let last = host.replica.extent(&chain, None).last.number();
            if last == 0 {
                continue;
            }
            let sequence = Sequence::new(self.rng.random_range(1..=last)).unwrap();
            host.append(&Body::Cut(EntryId { chain, sequence }), wall, now);
        }
        if self.rng.random_bool(0.7) {
            self.accounts.revoked.insert(target);
        }
    }

    // ---- the end -------------------------------------------------------------------------------

    /// Nothing goes wrong any more, and all are linked to all.
    pub(super) fn heal(&mut self) {
        self.elapsed += Duration::from_secs(1);
        let numbers: Vec<usize> = self.hosts.keys().copied().collect();
        self.wires.clear();
        for number in &numbers {
            self.cut_links(*number);
            let (wall, now) = (self.wall(*number), self.now());
            let host = self.hosts.get_mut(number).unwrap();
            host.hear(&self.accounts);
            host.sign_all(wall, now);
            host.commit(usize::MAX);
        }
    }

    fn settle(&mut self) {
        self.connect_all();
        for _ in 0..100_000 {
            self.elapsed += Duration::from_millis(1);
            let wires: Vec<(usize, usize)> = self.wires.keys().copied().collect();
            for wire in wires {
                let frames = self.wires.remove(&wire).unwrap_or_default();
                for frame in frames {
                    self.hand_over(wire, frame);
                }
            }
            let numbers: Vec<usize> = self.hosts.keys().copied().collect();
            let mut is_busy = false;
            for number in numbers {
                let (wall, now) = (self.wall(number), self.now());
                let host = self.hosts.get_mut(&number).unwrap();
                for _ in 0..10 {
                    host.verify(wall);
                }
                host.sign_all(wall, now);
                host.commit(3);
                is_busy |= !host.is_at_rest() || host.replica.poll_timeout().is_some();
            }
            self.post();
            if !is_busy && self.wires.values().all(VecDeque::is_empty) {
                return;
            }
        }
        panic!("it never comes to rest");
    }

    pub(super) fn check(&mut self) {
        let before = Model::of(self);
        self.settle();
        self.counts.entries = before.entries();
        let model = Model::of(self);
        model.check(self, &before);
        self.counts.forks = model.forks();
    }

    pub(super) const fn accounts(&self) -> &Accounts {
        &self.accounts
    }
}
