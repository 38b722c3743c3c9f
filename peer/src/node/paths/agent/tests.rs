use common::key::DeviceSecret;
use common::limits::{CANDIDATES_MAX, INITIAL_LEN};
use rand::SeedableRng;

use super::*;

/// An agent, a clock, and what the agent has sent.
struct Bench {
    agent: Agent,
    now: Instant,
    /// Checks with their destinations.
    checks: Vec<(Instant, SocketAddr, Vec<u8>)>,
    dials: Vec<(Instant, SocketAddr)>,
}

impl Bench {
    #[expect(clippy::disallowed_methods, reason = "any instant will do as a start")]
    fn new() -> Self {
        Self {
            agent: Agent::new(StdRng::from_seed([1; 32])),
            now: Instant::now(),
            checks: Vec::new(),
            dials: Vec::new(),
        }
    }

    fn begin(&mut self, candidates: &[Candidate]) {
        assert!(
            self.agent
                .begin(device(1), &account(), candidates, Aim::Dial, self.now)
        );
        self.drain();
    }

    /// Advances time, deadline by deadline.
    fn pass(&mut self, span: Duration) {
        let end = self.now + span;
        while let Some(due) = self.agent.poll_timeout()
            && due <= end
        {
            assert!(due > self.now, "it would spin");
            self.now = due;
            self.agent.handle_timeout(self.now);
            self.drain();
        }
        self.now = end;
    }

    fn drain(&mut self) {
        let mut buffer = Vec::new();
        while let Some(transmit) = self.agent.poll_transmit(&mut buffer) {
            let check = (self.now, transmit.destination, buffer.clone());
            self.checks.push(check);
            buffer.clear();
        }
        while let Some((device_key, endpoint)) = self.agent.poll_dial() {
            assert_eq!(device_key, device(1));
            self.dials.push((self.now, endpoint));
        }
    }

    /// The device at `endpoint` answers the last check sent there.
    fn answer(&mut self, endpoint: SocketAddr) {
        let answer = self.answer_of(endpoint, &device(1));
        self.hear(endpoint, &answer);
    }

    fn answer_of(&self, endpoint: SocketAddr, device_key: &DeviceKey) -> Vec<u8> {
        let mut checks = self.checks.iter().rev();
        let check = checks.find(|(_, to, _)| *to == endpoint);
        let (.., request) = check.expect("it was checked");
        stun::check_answer(request, own_endpoint(), device_key).unwrap()
    }

    fn hear(&mut self, source: SocketAddr, datagram: &[u8]) {
        self.agent.handle_stun(source, datagram, self.now);
        self.drain();
    }

    fn pay(&mut self, endpoint: SocketAddr, len: usize) -> bool {
        self.agent.pay(device(1), endpoint, len, self.now)
    }

    fn fail(&mut self, endpoint: SocketAddr) {
        self.agent.on_dial_failed(device(1), endpoint, self.now);
        self.drain();
    }

    fn dialled(&self) -> Vec<SocketAddr> {
        self.dials.iter().map(|(_, endpoint)| *endpoint).collect()
    }

    /// The times of the checks of one endpoint.
    fn rounds(&self) -> Vec<Instant> {
        self.checks.iter().map(|(at, ..)| *at).collect()
    }
}

fn device(n: u64) -> DeviceKey {
    let mut seed = [7; 32];
    seed[..8].copy_from_slice(&n.to_be_bytes());
    DeviceSecret::from_seed(seed).public()
}

fn account() -> AccountName {
    "mallory".parse().unwrap()
}

fn own_endpoint() -> SocketAddr {
    SocketAddr::from(([192, 0, 2, 1], 4000))
}

fn endpoint(n: u8) -> SocketAddr {
    SocketAddr::from(([203, 0, 113, n], 4000))
}

fn host(n: u8) -> Candidate {
    Candidate {
        endpoint: endpoint(n),
        kind: CandidateKind::Host,
    }
}

fn seen(n: u8) -> Candidate {
    Candidate {
        kind: CandidateKind::ServerReflexive,
        ..host(n)
    }
}

#[test]
fn an_endpoint_is_dialled_when_it_has_answered() {
    let mut bench = Bench::new();
    bench.begin(&[host(1), host(2)]);
    bench.pass(CHECK_INTERVAL);
    assert_eq!(bench.dialled(), []);
    bench.answer(endpoint(2));
    assert_eq!(bench.dialled(), [endpoint(2)], "at once");
    // The other one is dialled a little later, unless the first one answers.
    bench.answer(endpoint(1));
    assert_eq!(bench.dialled().len(), 1);
    bench.pass(DIAL_PACE);
    assert_eq!(bench.dialled(), [endpoint(2), endpoint(1)]);
}

#[test]
fn an_endpoint_that_the_server_has_seen_is_dialled_at_once() {
    let mut bench = Bench::new();
    bench.begin(&[host(1), seen(2)]);
    assert_eq!(bench.dials, [(bench.now, endpoint(2))]);
    assert_eq!(bench.checks[0].1, endpoint(1), "the other is checked first");
    // A proven endpoint does not wait for a dial to an unproven one.
    bench.answer(endpoint(1));
    assert_eq!(bench.dialled(), [endpoint(2), endpoint(1)]);
}

#[test]
fn t23_only_the_right_answer_from_the_right_place_opens_an_endpoint() {
    let mut bench = Bench::new();
    bench.begin(&[host(1), host(2)]);
    bench.pass(CHECK_INTERVAL);
    let right = bench.answer_of(endpoint(1), &device(1));
    let others = bench.answer_of(endpoint(1), &device(2));
    let (.., request) = bench.checks[0].clone();
    let of_a_server = stun::binding_answer(&request, own_endpoint()).unwrap();
    let guessed = stun::binding_request(5);
    let guessed = stun::check_answer(&guessed, own_endpoint(), &device(1)).unwrap();
    for (source, datagram) in [
        (endpoint(2), &right),
        (endpoint(3), &right),
        (endpoint(1), &others),
        (endpoint(1), &of_a_server),
        (endpoint(1), &guessed),
        (endpoint(1), &request),
        (endpoint(1), &right[..right.len() - 1].to_vec()),
    ] {
        bench.hear(source, datagram);
        bench.pass(DIAL_PACE);
        assert_eq!(bench.dialled(), [], "{source} {datagram:x?}");
    }
    bench.hear(endpoint(1), &right);
    assert_eq!(bench.dialled(), [endpoint(1)]);
    // An answer counts once: the next check has another transaction.
    bench.fail(endpoint(1));
    bench.hear(endpoint(1), &right);
    bench.pass(DIAL_PACE);
    assert_eq!(bench.dialled(), [endpoint(1)]);
}

#[test]
fn pauses_double_and_a_new_dial_does_not_make_them_short() {
    let mut bench = Bench::new();
    bench.begin(&[host(1)]);
    for _ in 0..40 {
        bench.pass(Duration::from_secs(6));
        bench.agent.end(device(1));
        bench.pass(Duration::from_secs(3));
        bench.begin(&[host(1)]);
    }
    let rounds = bench.rounds();
    let pauses: Vec<Duration> = rounds.windows(2).map(|two| two[1] - two[0]).collect();
    assert!(pauses[0] < 2 * CHECK_BACKOFF_FIRST, "{pauses:?}");
    for (n, pause) in pauses.iter().enumerate() {
        let least = CHECK_BACKOFF_MAX.min(CHECK_BACKOFF_FIRST * 2u32.pow(n.min(16) as u32));
        assert!(*pause >= least, "{n}: {pauses:?}");
        assert!(*pause <= CHECK_BACKOFF_MAX + Duration::from_secs(10));
    }
    assert!(pauses.last().unwrap() >= &CHECK_BACKOFF_MAX);
    let few = bench.checks.len();
    assert!(few < 16, "{few} checks in six minutes");

    // After a long silence the back-off starts over.
    bench.agent.end(device(1));
    bench.pass(3 * CHECK_BACKOFF_MAX);
    bench.begin(&[host(1)]);
    bench.pass(Duration::from_secs(5));
    assert!(bench.checks.len() >= few + 3);
}

#[test]
fn an_endpoint_that_is_new_is_checked_at_once() {
    let mut bench = Bench::new();
    bench.begin(&[host(1)]);
    bench.pass(Duration::from_secs(40));
    let before = bench.checks.len();
    bench.begin(&[host(1), host(2)]);
    assert_eq!(bench.checks.len(), before + 1);
    assert_eq!(bench.checks[before].1, endpoint(2));
}

#[test]
fn a_link_makes_the_pause_short_again() {
    let mut bench = Bench::new();
    bench.begin(&[host(1)]);
    bench.pass(Duration::from_secs(40));
    bench.answer(endpoint(1));
    bench.agent.on_linked(device(1), endpoint(1), bench.now);
    bench.agent.end(device(1));
    // A minute later the device is somewhere else.
    bench.pass(CHECK_BACKOFF_MAX);
    bench.begin(&[host(2)]);
    let before = bench.checks.len();
    bench.pass(Duration::from_secs(5));
    assert!(bench.checks.len() >= before + 3);
}

#[test]
fn a_proof_lasts_until_a_dial_fails_or_its_time_is_over() {
    let again = |bench: &mut Bench| {
        bench.agent.end(device(1));
        bench.dials.clear();
        bench.begin(&[host(1)]);
        bench.dialled()
    };
    let mut bench = Bench::new();
    bench.begin(&[host(1)]);
    bench.answer(endpoint(1));
    bench.pass(PROOF_LIFETIME - Duration::from_millis(1));
    assert_eq!(again(&mut bench), [endpoint(1)]);
    bench.pass(Duration::from_millis(1));
    assert_eq!(again(&mut bench), []);

    let mut bench = Bench::new();
    bench.begin(&[host(1)]);
    bench.answer(endpoint(1));
    bench.fail(endpoint(1));
    assert!(bench.agent.is_hopeless(device(1)));
    assert_eq!(again(&mut bench), []);
}

#[test]
fn t23_a_dial_without_a_proof_may_send_four_datagrams() {
    let mut bench = Bench::new();
    bench.begin(&[seen(1)]);
    let sent = (0..10)
        .filter(|_| bench.pay(endpoint(1), INITIAL_LEN))
        .count();
    assert_eq!(sent * INITIAL_LEN, UNPROVEN_DIAL_LEN_MAX);
    // It waits for its proof now, so there is still hope.
    bench.fail(endpoint(1));
    assert!(!bench.agent.is_hopeless(device(1)));
    bench.answer(endpoint(1));
    bench.pass(DIAL_PACE);
    assert_eq!(bench.dialled(), [endpoint(1); 2]);
    let is_free = (0..100).all(|_| bench.pay(endpoint(1), INITIAL_LEN));
    assert!(is_free, "what a proven endpoint gets is not counted");
}

#[test]
fn t23_few_dials_without_a_proof_go_on_at_once() {
    let mut bench = Bench::new();
    let all: Vec<Candidate> = (0..CANDIDATES_MAX as u8).map(seen).collect();
    bench.begin(&all);
    bench.pass(Duration::from_secs(5));
    assert_eq!(bench.dials.len(), UNPROVEN_DIALS_MAX);
    bench.fail(endpoint(0));
    assert_eq!(bench.dials.len(), UNPROVEN_DIALS_MAX + 1, "a place is free");
}

#[test]
fn t23_dials_leave_room_for_a_round_of_checks() {
    let mut bench = Bench::new();
    bench.begin(&[seen(1)]);
    while bench.pay(endpoint(1), INITIAL_LEN) {
        bench.agent.end(device(1));
        bench.begin(&[seen(1)]);
    }
    let before = bench.checks.len();
    let hosts: Vec<Candidate> = (10..10 + CANDIDATES_MAX as u8).map(host).collect();
    bench.agent.end(device(1));
    bench.begin(&hosts);
    bench.pass(CHECK_INTERVAL * CANDIDATES_MAX as u32);
    assert_eq!(bench.checks.len(), before + CANDIDATES_MAX);
}

#[test]
fn t23_an_endpoint_that_is_announced_no_longer_gets_nothing_more() {
    let mut bench = Bench::new();
    bench.begin(&[seen(1)]);
    assert!(bench.pay(endpoint(1), INITIAL_LEN));
    bench.begin(&[seen(2)]);
    assert!(!bench.pay(endpoint(1), INITIAL_LEN));
}

#[test]
fn t23_other_devices_do_not_push_out_a_budget_that_counts() {
    let mut bench = Bench::new();
    let mut begin = |n: u64, now: Instant, goes_on: bool| {
        let account = format!("mallory{n}").parse().unwrap();
        let has_begun = bench
            .agent
            .begin(device(n), &account, &[host(1)], Aim::Dial, now);
        if !goes_on {
            bench.agent.end(device(n));
        }
        has_begun
    };
    let (began, max) = (bench.now, CHECKED_DEVICES_MAX as u64);
    assert!(begin(0, began, true));
    assert!((1..max).all(|n| begin(n, began, false)));
    let almost = began + BUDGET_EVICT_AFTER - Duration::from_millis(1);
    assert!(!begin(max, almost, false));
    assert!(begin(1, almost, false), "known");
    assert!(begin(max, began + BUDGET_EVICT_AFTER, false));
    // Neither the device that is being dialled nor one that has just spent budget is evicted.
    let agent = &bench.agent;
    for kept in [0, 1, max] {
        assert!(agent.devices.contains_key(&device(kept)));
    }
    let occupancy = agent.occupancy();
    assert_eq!(
        (occupancy.count, occupancy.max),
        (CHECKED_DEVICES_MAX, CHECKED_DEVICES_MAX)
    );
    assert_eq!(agent.accounts.len(), CHECKED_DEVICES_MAX);
}
