//! The engine of the UDP ports under a flood, in a process of its own so that its memory can be measured.

use std::net::{IpAddr, SocketAddr};

use common::os::clock;
use common::stun;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use rendezvous::relay::{Batch, Output, Ports, Relay, TrafficLimits};

/// 10,000 a second for a minute.
const DATAGRAMS: u32 = 600_000;
/// What the allocator may keep besides.
const MEMORY_SLACK: u64 = 1 << 20;

fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux has it");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB"));
    let kib: u64 = kib.and_then(|kib| kib.parse().ok()).expect("a number");
    kib << 10
}

#[test]
fn t14_a_minute_of_valid_datagrams_from_everywhere_takes_no_memory() {
    let start = clock::now();
    let mut relay = Relay::new([14; 32], TrafficLimits::default(), start);
    let (main, second) = (7400, 7401);
    relay.set_ports(Ports { main, second });
    let mut outputs = Vec::new();
    let mut rng = StdRng::from_seed([14; 32]);
    let mut before = 0;
    let mut bare = 0;
    for n in 0..DATAGRAMS {
        if n == DATAGRAMS / 100 {
            before = resident();
        }
        let ip: IpAddr = if rng.random() {
            rng.random::<[u8; 4]>().into()
        } else {
            rng.random::<[u8; 16]>().into()
        };
        let source = SocketAddr::new(ip, rng.random_range(1..=u16::MAX));
        let mut request = stun::binding_request(rng.random());
        if rng.random() {
            request = stun::probe(rng.random(), rng.random());
        }
        // One in four is no request to be answered, though it begins as one.
        let is_answered = n % 4 != 0;
        if !is_answered {
            request.truncate(rng.random_range(0..request.len()));
            bare += 1;
        }
        let len = request.len();
        let batch = Batch {
            bytes: &mut request,
            stride: len,
            source,
            local: Some(ip),
        };
        if rng.random() {
            relay.handle_second(&batch, start, &mut outputs);
        } else {
            relay.handle_batch(batch, start, &mut outputs);
        }
        assert_eq!(outputs.len(), usize::from(is_answered), "{source}");
        for output in outputs.drain(..) {
            let (Output::Answer(answer) | Output::AnswerFromOther(answer)) = output else {
                panic!("there is no channel: {output:?}");
            };
            assert!(answer.len() <= len, "{answer:?}");
        }
    }
    assert_eq!(relay.dropped(), bare);
    assert_eq!(relay.answered() + bare, u64::from(DATAGRAMS));
    let grown = resident().saturating_sub(before);
    assert!(grown < MEMORY_SLACK, "{grown} bytes");
}
