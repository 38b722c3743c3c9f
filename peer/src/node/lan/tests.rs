//! What is announced, what is recognised, and what of the lies of neighbours is kept.

use std::time::Duration;

use common::key::DeviceSecret;
use common::limits::{LAN_START_WAIT, PINS_PER_ACCOUNT_MAX};
use rand::SeedableRng;

use super::*;

/// A device on a network of its own, with contacts.
struct World {
    lan: Lan,
    links: Links,
    now: Instant,
}

impl World {
    /// The device of seed 0, at 192.168.1.2/24, with the devices of these seeds pinned to these accounts.
    #[expect(clippy::disallowed_methods, reason = "any instant will do as a start")]
    fn new(contacts: &[(&str, u16)]) -> Self {
        let now = Instant::now();
        let contacts = contacts.iter().map(|(who, seed)| (name(who), key(*seed)));
        let rngs = [1, 2].map(|seed| StdRng::from_seed([seed; 32]));
        let links = Links::new([3; 32], rngs, secret(0), contacts.collect());
        let mut lan = Lan::new(StdRng::from_seed([4; 32]), key(0), true, now);
        lan.set_enrolled(true, now);
        lan.set_local(&[local("192.168.1.2:5000", 24)], now);
        lan.poll_output();
        Self { lan, links, now }
    }

    /// Hears the `number`-th name of a device.
    fn hear(&mut self, seed: u16, number: u64, endpoints: &[&str]) -> LanName {
        let name = LanName::new(number.to_be_bytes(), &key(seed));
        let endpoints = endpoints.iter().map(|it| it.parse().unwrap()).collect();
        let input = LanInput::Heard { name, endpoints };
        self.lan.handle_input(input, &self.links, self.now);
        name
    }

    fn gone(&mut self, name: LanName) {
        let input = LanInput::Gone { name };
        self.lan.handle_input(input, &self.links, self.now);
    }

    fn changes(&mut self) -> Vec<(AccountName, bool)> {
        self.lan.take_changes(&self.links, self.now).told
    }

    /// The same once those have left who are not heard any more.
    fn changes_later(&mut self) -> Vec<(AccountName, bool)> {
        self.changes();
        self.now += LAN_LEAVE_WAIT;
        assert!(self.lan.poll_timeout().is_some_and(|at| at <= self.now));
        self.lan.handle_timeout(self.now);
        self.changes()
    }

    /// Where the device of `seed`, which is bob's, may be dialled.
    fn endpoints(&self, seed: u16) -> Vec<String> {
        let mut devices = self.lan.devices_of(&name("bob"), &self.links);
        let endpoints = devices.remove(&key(seed)).unwrap_or_default();
        endpoints.iter().map(SocketAddr::to_string).collect()
    }

    fn occupancies(&self) -> [usize; 2] {
        self.lan.occupancies().map(|occupancy| {
            assert!(occupancy.count <= occupancy.max, "{occupancy:?}");
            occupancy.count
        })
    }
}

#[test]
fn a_contact_is_recognised_and_nobody_else() {
    let mut world = World::new(&[("bob", 1)]);
    let of_bob = world.hear(1, 7, &["192.168.1.3:5000"]);
    world.hear(2, 7, &["192.168.1.4:5000"]);
    assert_eq!(world.changes(), [(name("bob"), true)]);
    assert_eq!(world.endpoints(1), ["192.168.1.3:5000"]);
    assert_eq!(world.endpoints(2), [] as [&str; 0]);
    // The same again is no news, even from elsewhere.
    world.hear(1, 7, &["192.168.1.9:5001"]);
    assert_eq!(world.changes(), []);
    assert_eq!(world.endpoints(1), ["192.168.1.9:5001"]);
    // He takes his next name before he takes this one back.
    let next = world.hear(1, 8, &["192.168.1.9:5001"]);
    world.gone(of_bob);
    assert_eq!(world.changes(), []);
    world.gone(next);
    assert_eq!(world.changes(), [], "he may be back");
    assert_eq!(world.changes_later(), [(name("bob"), false)]);
    assert_eq!(world.endpoints(1), [] as [&str; 0]);
}

#[test]
fn whoever_becomes_a_contact_is_recognised_from_then_on() {
    let mut world = World::new(&[]);
    world.hear(1, 7, &["192.168.1.3:5000"]);
    assert_eq!(world.changes(), []);
    let rngs = [1, 2].map(|seed| StdRng::from_seed([seed; 32]));
    world.links = Links::new([3; 32], rngs, secret(0), vec![(name("bob"), key(1))]);
    world.lan.on_new_key(key(1));
    assert_eq!(world.changes(), [(name("bob"), true)]);
    assert_eq!(world.endpoints(1), ["192.168.1.3:5000"]);
}

#[test]
fn t22_only_addresses_on_this_network_are_taken_from_neighbours() {
    let mut world = World::new(&[("bob", 1)]);
    let lies = [
        "127.0.0.1:1",
        "[::1]:1",
        "0.0.0.0:1",
        "[::]:1",
        "169.254.169.254:80",
        "[::ffff:169.254.169.254]:80",
        "224.0.0.251:5353",
        "255.255.255.255:1",
        "[ff02::fb]:5353",
        "[fe80::1]:1",
        "192.168.1.3:0",
        // On another network, and the device itself.
        "192.0.2.1:443",
        "192.168.2.3:5000",
        "[2001:db8::1]:443",
        "192.168.1.2:5000",
    ];
    for lie in lies {
        world.hear(1, 7, &[lie]);
        assert_eq!(world.occupancies(), [0, 0], "{lie}");
        let half_true = world.hear(1, 8, &[lie, "192.168.1.3:5000"]);
        assert_eq!(world.endpoints(1), ["192.168.1.3:5000"], "{lie}");
        world.gone(half_true);
    }
    // Another program on this host is fine, and so is an IPv4 address in IPv6's clothes.
    world.hear(1, 8, &["192.168.1.2:5001", "[::ffff:192.168.1.4]:5000"]);
    assert_eq!(world.endpoints(1), ["192.168.1.2:5001", "192.168.1.4:5000"]);
    // Nothing left of what it said: it is as if it had said nothing.
    world.hear(1, 8, &["192.0.2.1:443"]);
    assert_eq!(world.occupancies(), [0, 0]);
}

#[test]
fn an_interface_that_claims_the_whole_world_makes_nobody_a_neighbour() {
    let mut world = World::new(&[("bob", 1)]);
    world.lan.set_local(&[local("10.0.0.1:5000", 0)], world.now);
    world.hear(1, 7, &["192.0.2.1:443"]);
    assert_eq!(world.occupancies(), [0, 0]);
}

#[test]
fn t23_an_instance_has_few_endpoints_and_a_device_few_names() {
    let mut world = World::new(&[("bob", 1)]);
    for number in 0..100 {
        let first = 10 + 2 * (number % 100);
        let many: Vec<String> = (0..LAN_ENDPOINTS_MAX as u64 + 4)
            .map(|at| format!("192.168.1.{first}:{}", 1000 + number * 100 + at))
            .collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        world.hear(1, number, &many);
    }
    assert_eq!(world.occupancies(), [LAN_NAMES_PER_DEVICE_MAX; 2]);
    let endpoints = world.endpoints(1);
    assert_eq!(endpoints.len(), CANDIDATES_MAX);
    // The newest count.
    assert_eq!(endpoints[0], "192.168.1.208:10900");
    assert_eq!(endpoints[LAN_ENDPOINTS_MAX - 1], "192.168.1.208:10907");
    assert_eq!(endpoints[LAN_ENDPOINTS_MAX], "192.168.1.206:10800");
}

#[test]
fn names_that_nobody_knows_push_out_no_contact() {
    let mut world = World::new(&[("bob", 1), ("carol", 2)]);
    world.hear(1, 0, &["192.168.1.3:5000"]);
    for number in 0..3 * LAN_NAMES_MAX as u64 {
        world.now += LAN_NAMES_INTERVAL / LAN_NAMES_PER_INTERVAL_MAX as u32;
        world.hear(9, number, &["192.168.1.9:5000"]);
    }
    assert_eq!(world.occupancies(), [LAN_NAMES_MAX, 1]);
    world.hear(2, 0, &["192.168.1.4:5000"]);
    assert_eq!(world.occupancies(), [LAN_NAMES_MAX, 1]);
    let here = [(name("bob"), true), (name("carol"), true)];
    assert_eq!(world.changes(), here);
}

/// Each of them has its share of names, and together they are more than are kept.
#[test]
fn of_too_many_contacts_none_takes_the_place_of_another_for_nothing() {
    let accounts = LAN_NAMES_MAX / PINS_PER_ACCOUNT_MAX + 1;
    let names: Vec<String> = (0..accounts).map(|n| format!("p{n}")).collect();
    let mut contacts = Vec::new();
    for (number, name) in names.iter().enumerate() {
        for device in 0..PINS_PER_ACCOUNT_MAX {
            contacts.push((
                name.as_str(),
                1 + (number * PINS_PER_ACCOUNT_MAX + device) as u16,
            ));
        }
    }
    let mut world = World::new(&contacts);
    for seed in 1..=LAN_NAMES_MAX as u16 {
        world.hear(seed, 0, &["192.168.1.3:5000"]);
    }
    world.now += LAN_NAMES_INTERVAL;
    world.hear(9_999, 0, &["192.168.1.3:5000"]);
    assert_eq!(world.occupancies(), [LAN_NAMES_MAX, 1]);
    // A stranger gets no place; the newest contact none either, unless it has one already.
    let newest = LAN_NAMES_MAX as u16 + 1;
    world.hear(newest, 0, &["192.168.1.3:5000"]);
    world.hear(1, 1, &["192.168.1.3:5000"]);
    assert_eq!(world.occupancies()[0], LAN_NAMES_MAX);
}

#[test]
fn a_flood_of_names_is_not_compared_with_all_keys() {
    let mut world = World::new(&[("bob", 1)]);
    let max = LAN_NAMES_PER_INTERVAL_MAX as u64;
    for number in 0..max {
        world.hear(9, number, &["192.168.1.9:5000"]);
    }
    world.hear(1, 0, &["192.168.1.3:5000"]);
    assert_eq!(world.changes(), [], "it came too late in this interval");
    world.now += LAN_NAMES_INTERVAL;
    world.hear(1, 0, &["192.168.1.3:5000"]);
    assert_eq!(world.changes(), [(name("bob"), true)]);
}

#[test]
fn an_old_name_is_forgotten() {
    let mut world = World::new(&[("bob", 1)]);
    world.hear(1, 7, &["192.168.1.3:5000"]);
    world.changes();
    world.now += LAN_HEARD_LIFETIME - Duration::from_nanos(1);
    world.lan.handle_timeout(world.now);
    assert_eq!(world.changes(), []);
    world.now += Duration::from_nanos(1);
    assert!(world.lan.poll_timeout().unwrap() <= world.now);
    world.lan.handle_timeout(world.now);
    assert_eq!(world.changes_later(), [(name("bob"), false)]);
}

/// A neighbour takes a name back and announces it again, ten times a second.
#[test]
fn whoever_comes_and_leaves_all_the_time_is_told_of_once() {
    let mut world = World::new(&[("bob", 1)]);
    let name_of_bob = world.hear(1, 7, &["192.168.1.3:5000"]);
    assert_eq!(world.changes(), [(name("bob"), true)]);
    for _ in 0..100 {
        world.gone(name_of_bob);
        assert_eq!(world.changes(), []);
        assert!(!world.lan.is_here(&name("bob")), "he is not dialled");
        world.now += Duration::from_millis(100);
        world.hear(1, 7, &["192.168.1.3:5000"]);
        let changes = world.lan.take_changes(&world.links, world.now);
        assert_eq!((changes.told, changes.heard), (vec![], vec![name("bob")]));
        assert!(world.lan.is_here(&name("bob")));
    }
}

#[test]
fn a_device_has_a_new_name_from_time_to_time_and_on_each_network() {
    let mut world = World::new(&[("bob", 1)]);
    let mut names = BTreeSet::from([world.lan.name.unwrap().0]);
    assert_eq!(world.lan.poll_output(), None);
    let mut renamed = |lan: &mut Lan| {
        let announced = lan.poll_output().unwrap().unwrap();
        assert!(announced.name.is_of(&key(0)));
        assert!(names.insert(announced.name), "it is new");
        announced.endpoints
    };
    world.now += LAN_NAME_LIFETIME;
    assert_eq!(world.lan.poll_timeout(), Some(world.now));
    world.lan.handle_timeout(world.now);
    let endpoints = renamed(&mut world.lan);
    assert_eq!(endpoints, ["192.168.1.2:5000".parse().unwrap()]);

    world.hear(1, 7, &["192.168.1.3:5000"]);
    assert_eq!(world.changes(), [(name("bob"), true)]);
    let both = [
        local("10.0.0.2:5000", 8),
        local("127.0.0.1:5000", 8),
        local("[2001:db8::2]:5000", 64),
        local("[fe80::2]:5000", 64),
        local("169.254.3.4:5000", 16),
    ];
    world.lan.set_local(&both, world.now);
    let endpoints = renamed(&mut world.lan);
    let usable = ["10.0.0.2:5000", "[2001:db8::2]:5000"];
    assert_eq!(endpoints, usable.map(|it| it.parse().unwrap()));
    let left = [(name("bob"), false)];
    assert_eq!(world.changes(), left, "he was heard on the other network");
    // The same addresses are the same network.
    world.lan.set_local(&both, world.now);
    assert_eq!(world.lan.poll_output(), None);
}

#[test]
fn nothing_is_announced_or_heard_where_it_is_not_to_be() {
    for (is_permitted, is_enrolled, address, is_announced) in [
        (true, true, "192.168.1.2:5000", true),
        (false, true, "192.168.1.2:5000", false),
        (true, false, "192.168.1.2:5000", false),
        (true, true, "127.0.0.1:5000", false),
    ] {
        let mut world = World::new(&[("bob", 1)]);
        world.lan = Lan::new(StdRng::from_seed([4; 32]), key(0), is_permitted, world.now);
        world.lan.set_enrolled(is_enrolled, world.now);
        world.lan.set_local(&[local(address, 24)], world.now);
        let output = world.lan.poll_output();
        assert_eq!(output.flatten().is_some(), is_announced, "{address}");
        world.hear(1, 7, &["192.168.1.3:5000"]);
        assert_eq!(world.changes().is_empty(), !is_announced, "{address}");
        // What was announced is taken back, and nothing else.
        world.lan.set_enrolled(false, world.now);
        let taken_back = is_announced.then_some(None);
        assert_eq!(world.lan.poll_output(), taken_back, "{address}");
        assert_eq!(world.changes().is_empty(), !is_announced, "{address}");
    }
    let mut world = World::new(&[]);
    world.lan.shut_down(world.now);
    assert_eq!(world.lan.poll_output(), Some(None));
}

#[test]
fn a_program_that_has_a_server_is_quiet_at_first() {
    let mut world = World::new(&[]);
    let begin = world.now;
    for is_offline in [false, true] {
        let quiet_until = begin + LAN_START_WAIT;
        world.lan = Lan::new(StdRng::from_seed([4; 32]), key(0), true, quiet_until);
        assert_eq!(world.lan.poll_timeout(), None);
        world.lan.set_enrolled(true, begin);
        world.lan.set_local(&[local("192.168.1.2:5000", 24)], begin);
        world.lan.handle_timeout(begin);
        assert_eq!(world.lan.poll_output(), None);
        if is_offline {
            world.lan.on_offline(begin);
        } else {
            assert_eq!(world.lan.poll_timeout(), Some(quiet_until));
            world.lan.handle_timeout(quiet_until);
        }
        assert!(world.lan.poll_output().is_some_and(|it| it.is_some()));
    }
}

#[test]
fn its_own_name_is_nobody_elses() {
    let mut world = World::new(&[("bob", 1)]);
    let own = world.lan.name.unwrap().0;
    for name in [own, LanName::new([9; 8], &key(0))] {
        let endpoints = vec!["192.168.1.7:5000".parse().unwrap()];
        let input = LanInput::Heard { name, endpoints };
        world.lan.handle_input(input, &world.links, world.now);
    }
    assert_eq!(world.occupancies(), [0, 0]);
}

fn secret(seed: u16) -> DeviceSecret {
    let mut bytes = [7; 32];
    bytes[..2].copy_from_slice(&seed.to_be_bytes());
    DeviceSecret::from_seed(bytes)
}

fn key(seed: u16) -> DeviceKey {
    secret(seed).public()
}

fn name(text: &str) -> AccountName {
    text.parse().unwrap()
}

fn local(endpoint: &str, prefix_len: u8) -> LocalAddress {
    LocalAddress {
        prefix_len,
        ..LocalAddress::from(endpoint.parse::<SocketAddr>().unwrap())
    }
}
