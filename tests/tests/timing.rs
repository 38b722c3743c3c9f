//! Whether the time of an answer tells a name that has an account from one that has none.
//!
//! Two sets of names are asked about in random order, over the wire, at the real server. What is judged is
//! the area under the ROC curve: the probability that an answer about an account took longer than one about
//! a name without one. Nobody can tell them apart at 0.5; both the machine's noise and a drift of its speed
//! meet both sets alike. Run alone, on a quiet machine and optimised, this is the measurement:
//!
//! `TIMING_SAMPLES=10600 cargo test --release -p tests --test timing -- --nocapture --test-threads 1`
//!
//! A twentieth of the answers only warms up.

use std::net::Ipv4Addr;
use std::time::Duration;

use common::id::DeviceName;
use common::key::{Role, Statement, Token};
use common::limits::REGISTRATIONS_PER_SOURCE_PER_HOUR_MAX;
use common::password::ClientLogin;
use common::wire::rendezvous::{
    Answer, LoginAnswer, LoginRequest, LoginStart, Refusal, Request, TokenLogin,
};
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use tests::program::now;
use tests::wire_client::{Target, WireClient, device, name, password};
use tests::world::World;

const EXECUTABLE: &str = env!("CARGO_BIN_EXE_demo");
/// Names of each set: few enough to be asked often, too many for one odd one to decide.
const NAMES: usize = 24;
/// Counted attempts of one source, half of them at an account: with 50 it would have to wait.
const ATTEMPTS_PER_SOURCE: usize = 40;
/// Sources that one name meets where attempts are counted: each makes the row of an account longer, and
/// five failures would block it.
const SOURCES_PER_NAME: usize = 2;
/// What is said of each set in a run that is not told otherwise.
const SAMPLES: usize = 2_000;
/// How far from one half is too far with [`FULL_SAMPLES`] answers of each set.
const MARGIN: f64 = 0.02;
const FULL_SAMPLES: usize = 10_000;

#[test]
fn t38_a_block_takes_as_long_for_names_without_an_account() {
    let world = World::serving(EXECUTABLE, &["--block-first", "3600"]);
    let names = Names::made(&world, NAMES);
    let mut sources = Sources::of(&world);
    for who in names.all() {
        let mut client = sources.next();
        for attempt in 0..6 {
            let answer = client.ask(login_start(&client, who));
            assert_eq!(is_blocked(&answer), attempt == 5, "{who} {answer:?}");
        }
    }
    let mut client = sources.next();
    judge("log-in during a block", names.at_random(), |who| {
        let request = login_start(&client, who);
        let (took, answer) = timed(&mut client, request);
        assert!(is_blocked(&answer), "{answer:?}");
        took
    });
}

#[test]
fn t38_a_wrong_token_takes_as_long_for_names_without_an_account() {
    let world = World::new(EXECUTABLE);
    let names = Names::made(&world, NAMES);
    let mut client = Sources::of(&world).next();
    judge("log-in with a wrong token", names.at_random(), |who| {
        let request = token_login(&client, who);
        let (took, answer) = timed(&mut client, request);
        // After a while from one source: blocked, whoever it is about.
        let is_refused = answer == Answer::Refused(Refusal::TokenRefused);
        assert!(is_refused || is_blocked(&answer), "{answer:?}");
        took
    });
}

#[test]
fn t38_a_counted_log_in_takes_as_long_for_names_without_an_account() {
    let world = World::serving(EXECUTABLE, &["--failures-max", "1000"]);
    let names = Names::made(
        &world,
        samples().div_ceil(SOURCES_PER_NAME * ATTEMPTS_PER_SOURCE / 2),
    );
    let mut sources = Sources::of(&world);
    let mut client = sources.next();
    let mut attempts = 0;
    judge("counted log-in", names.in_pairs(), |who| {
        attempts += 1;
        if attempts % ATTEMPTS_PER_SOURCE == 0 {
            client = sources.next();
        }
        let request = login_start(&client, who);
        let (took, answer) = timed(&mut client, request);
        assert!(
            matches!(answer, Answer::Login(LoginAnswer::LoginChallenge { .. })),
            "{answer:?}"
        );
        took
    });
}

// ---- who is asked about ------------------------------------------------------------------------

struct Names {
    accounts: Vec<String>,
    free: Vec<String>,
}

impl Names {
    /// Both sets are spread alike over the alphabet, so that their rows are neighbours in the database.
    fn made(world: &World, count: usize) -> Self {
        let mut rng = StdRng::from_seed([5; 32]);
        let mut set = || -> Vec<String> {
            let names = (0..count).map(|_| format!("{:012x}", rng.next_u64() >> 16));
            names.collect()
        };
        let names = Self {
            accounts: set(),
            free: set(),
        };
        let mut sources = Sources::of(world);
        for accounts in names
            .accounts
            .chunks(REGISTRATIONS_PER_SOURCE_PER_HOUR_MAX as usize)
        {
            let mut client = sources.next();
            for account in accounts {
                let answer = client.register(account, "violet tram at noon");
                assert_eq!(answer, LoginAnswer::Registered.into());
            }
        }
        names
    }

    fn all(&self) -> impl Iterator<Item = &str> {
        self.accounts.iter().chain(&self.free).map(String::as_str)
    }

    /// Everybody once in each round, in an order of its own.
    fn at_random(&self) -> Vec<Asked<'_>> {
        let rounds = samples().div_ceil(self.accounts.len());
        let everybody: Vec<Asked<'_>> = (0..self.accounts.len())
            .flat_map(|index| self.pair(index))
            .collect();
        shuffled(&everybody, rounds)
    }

    /// An account and a name without one for as many attempts as one source has, then the next two: so
    /// each counter has few sources in it, as it would have at a server where five failures are too many.
    fn in_pairs(&self) -> Vec<Asked<'_>> {
        let rounds = ATTEMPTS_PER_SOURCE / 2;
        let pairs = (0..self.accounts.len()).cycle();
        pairs
            .take(samples().div_ceil(rounds))
            .flat_map(|index| shuffled(&self.pair(index), rounds))
            .collect()
    }

    fn pair(&self, index: usize) -> [Asked<'_>; 2] {
        [(true, &self.accounts[index]), (false, &self.free[index])]
    }
}

/// Whether it is an account, and its name.
type Asked<'a> = (bool, &'a str);

fn shuffled<'a>(all: &[Asked<'a>], rounds: usize) -> Vec<Asked<'a>> {
    let mut rng = StdRng::from_seed([7; 32]);
    let mut order = Vec::new();
    for _ in 0..rounds {
        let mut round = all.to_vec();
        round.shuffle(&mut rng);
        order.extend(round);
    }
    order
}

fn samples() -> usize {
    let told = std::env::var("TIMING_SAMPLES").ok();
    told.map_or(SAMPLES, |text| text.parse().expect("a number of samples"))
}

/// Connections, each from an address of its own.
struct Sources {
    server: Target,
    last: u32,
}

impl Sources {
    fn of(world: &World) -> Self {
        Self {
            server: world.server().into(),
            last: u32::from(Ipv4Addr::new(127, 0, 1, 0)),
        }
    }

    fn next(&mut self) -> WireClient {
        self.last += 1;
        WireClient::connect_from(Ipv4Addr::from(self.last), &self.server)
    }
}

// ---- what is asked -----------------------------------------------------------------------------

const STRANGER: u8 = 77;

fn login_start(client: &WireClient, who: &str) -> Request {
    let (account, secret) = (name(who), device(STRANGER));
    let (_, ke1) = ClientLogin::start(&password("a guess of a stranger"), [4; 32]);
    let signature = secret.sign(&Statement {
        role: Role::PasswordLogin,
        channel_binding: &client.channel(),
        account: &account,
        content: ke1.as_bytes(),
    });
    Request::Login(LoginRequest::LoginStart(LoginStart {
        account,
        device_key: secret.public(),
        device_name: DeviceName::lossy("laptop"),
        ke1,
        signature,
        code: None,
    }))
}

fn token_login(client: &WireClient, who: &str) -> Request {
    let (secret, token) = (device(STRANGER), Token::from_bytes([9; 32]));
    Request::Login(LoginRequest::TokenLogin(TokenLogin {
        account: name(who),
        device_key: secret.public(),
        signature: WireClient::sign_token(who, &secret, &token, &client.channel()),
        token,
    }))
}

fn timed(client: &mut WireClient, request: Request) -> (Duration, Answer) {
    let began = now();
    let answer = client.ask(request);
    (now().saturating_duration_since(began), answer)
}

fn is_blocked(answer: &Answer) -> bool {
    matches!(answer, Answer::Refused(Refusal::Blocked { .. }))
}

// ---- how it is judged --------------------------------------------------------------------------

/// Asks in this order, prints what came of it and fails if it tells them apart.
#[expect(
    clippy::print_stdout,
    reason = "the figure is what a person runs this for"
)]
fn judge(what: &str, order: Vec<Asked<'_>>, mut ask: impl FnMut(&str) -> Duration) {
    let mut took: [Vec<Duration>; 2] = [Vec::new(), Vec::new()];
    let warm_up = order.len() / 20;
    for (index, (is_account, who)) in order.into_iter().enumerate() {
        let time = ask(who);
        if index >= warm_up {
            took[usize::from(is_account)].push(time);
        }
    }
    let [free, accounts] = took;
    let area = roc_area(&accounts, &free);
    let [account_us, free_us] = [&accounts, &free].map(|times| median(times).as_secs_f64() * 1e6);
    let margin = MARGIN
        * (FULL_SAMPLES as f64 / accounts.len() as f64)
            .sqrt()
            .max(1.0);
    println!(
        "{what}: {} of each, medians {account_us:.1} and {free_us:.1} us, AUC {area:.4} (0.5 +/- {margin:.3})",
        accounts.len()
    );
    assert!((area - 0.5).abs() < margin, "{what}: AUC {area:.4}");
}

/// The probability that one of `positives` is greater than one of `negatives`; ties count one half.
fn roc_area(positives: &[Duration], negatives: &[Duration]) -> f64 {
    let mut sorted = negatives.to_vec();
    sorted.sort_unstable();
    let wins = positives.iter().map(|time| {
        let less = sorted.partition_point(|other| other < time);
        let not_more = sorted.partition_point(|other| other <= time);
        (less + not_more) as f64 / 2.0
    });
    wins.sum::<f64>() / (positives.len() * negatives.len()) as f64
}

fn median(times: &[Duration]) -> Duration {
    let mut sorted = times.to_vec();
    sorted.sort_unstable();
    sorted[sorted.len() / 2]
}

#[test]
fn what_differs_is_seen() {
    let us =
        |from: u64| -> Vec<Duration> { (from..from + 100).map(Duration::from_micros).collect() };
    assert!((roc_area(&us(0), &us(0)) - 0.5).abs() < 1e-9);
    assert!((roc_area(&us(500), &us(0)) - 1.0).abs() < 1e-9);
    assert!((roc_area(&us(0), &us(500))).abs() < 1e-9);
    assert!((roc_area(&us(5), &us(0)) - 0.5) > 0.04);
}
