//! Server CPU of a log-in, with a password and with a token, against its floor: the cryptography that no
//! server of this protocol can do without, in memory.
//!
//! Load and clients of the floor run on the other core and leave out what only costs the client: they
//! stretch no password.

use std::io::{self, Write};
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use common::id::{AccountName, DeviceName};
use common::key::{DeviceSecret, Role, Statement, Token};
use common::password::STRETCH_CURRENT;
use common::wire::rendezvous::{Answer, LoginAnswer, LoginRequest, LoginStart};
use serde_json::{Value, json};

use super::report::{Figure, Report};
use super::rounds::Rounds;
use super::stage::{self, Place, thread_cpu_seconds};
use super::{Failure, Plan};
use crate::program::{Program, ProgramError, Programs, Running};
use crate::wire_client::{Target, WireClient};

// What a log-in costs at least.
pub mod floor;
// The client's part of OPAQUE.
mod opaque;

use floor::{Floor, FloorCost};
use opaque::{finish_login, finish_registration, start_login, start_registration};

/// Threads of the load; each logs in to accounts of its own.
const THREADS: usize = 8;
/// Log-ins of a thread in one slice.
const LOGINS: usize = 25;
/// Slices of a round.
const SLICES: u32 = 10;
/// Time for one slice, and for the load to be ready.
const PATIENCE: Duration = Duration::from_secs(120);

/// Milliseconds of server CPU that one log-in takes in a slice.
#[derive(Clone, Copy, Debug)]
struct Cost {
    password: f64,
    token: f64,
    connect: f64,
    floor: FloorCost,
}

pub(super) fn measure(plan: &Plan, report: &mut Report) -> Result<(), Failure> {
    let folder = stage::memory_folder()?;
    let programs = Programs::new(std::env::current_exe()?, folder.path());
    let [server_core, load_core] = plan.cores;
    let arguments = [server_core.to_string()];
    let command = programs.command(Program::LoginLoad, &arguments);
    let place = Place {
        core: load_core,
        namespace: None,
    };
    let mut command = place.wrap(&command);
    command.stdin(std::process::Stdio::piped());
    let mut load = Running::start(Program::LoginLoad, &mut command)?;
    let mut input = load
        .take_stdin()
        .ok_or_else(|| Failure::Wrong("no standard input".to_owned()))?;
    let measured = Rounds::<[Cost; 1]>::measure(plan.rounds, plan.slices(SLICES), |_| {
        writeln!(input, "slice")?;
        let line = load.wait_json("a slice", PATIENCE, |line| line["password"].is_f64())?;
        Cost::parse(&line)
    });
    // At the end of its input it ends its own processes. Killed, it would leave them behind.
    drop(input);
    let ended = load.finish(PATIENCE);
    let rounds = measured?;
    ended?;
    show(report, "password", &rounds, |cost| {
        [cost.password, cost.floor.tls + cost.floor.opaque]
    });
    show(report, "token", &rounds, |cost| {
        [cost.token, cost.floor.tls + cost.floor.signature]
    });
    show(report, "connect", &rounds, |cost| {
        [cost.connect, cost.floor.tls]
    });
    for (part, case) in ["floor-tls", "floor-opaque", "floor-ed25519"]
        .into_iter()
        .enumerate()
    {
        report.show(&Figure {
            bench: "login",
            case,
            unit: "ms",
            sides: ["floor"],
            rounds: &rounds.map(|[cost]| [cost.floor.parts()[part]]),
        });
    }
    Ok(())
}

fn show(
    report: &mut Report,
    case: &str,
    rounds: &Rounds<[Cost; 1]>,
    of: impl Fn(&Cost) -> [f64; 2],
) {
    report.show(&Figure {
        bench: "login",
        case,
        unit: "ms",
        sides: ["ours", "floor"],
        rounds: &rounds.map(|[cost]| of(cost)),
    });
}

impl Cost {
    fn parse(line: &Value) -> Result<Self, Failure> {
        let number = |name: &str| {
            let number = line[name].as_f64();
            number.ok_or_else(|| Failure::Wrong(format!("no {name} in {line}")))
        };
        Ok(Self {
            password: number("password")?,
            token: number("token")?,
            connect: number("connect")?,
            floor: FloorCost {
                tls: number("tls")?,
                opaque: number("opaque")?,
                signature: number("signature")?,
            },
        })
    }

    fn to_json(self) -> Value {
        json!({
            "password": self.password, "token": self.token, "connect": self.connect,
            "tls": self.floor.tls, "opaque": self.floor.opaque, "signature": self.floor.signature,
        })
    }
}

/// Runs as the load, `SERVER-CORE`: measures a slice for each line of standard input.
pub fn load(arguments: &[String]) -> ExitCode {
    match run(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            // Whoever started this reads it.
            let _ = writeln!(io::stderr().lock(), "{failure}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[String]) -> Result<(), Failure> {
    let core = match arguments {
        [core] => core.parse().ok(),
        _ => None,
    };
    let Some(core) = core else {
        return Err(Failure::Wrong("one core is expected".to_owned()));
    };
    let place = Place {
        core,
        namespace: None,
    };
    let programs = Programs::new(std::env::current_exe()?, ".");
    let command = programs.command(
        Program::Rendezvous,
        [
            "--data",
            "server",
            "serve",
            "--json",
            "--listen",
            "127.0.0.1:0",
        ],
    );
    let server = Running::start(Program::Rendezvous, &mut place.wrap(&command))?;
    let target = ready(&server)?;
    let floor = Floor::start(&programs, &place)?;
    (0..THREADS).for_each(|thread| enrol(&target, thread));
    for (number, line) in io::stdin().lines().enumerate() {
        line?;
        let cost = slice(&server, &target, &floor, number % 2 == 1)?;
        writeln!(io::stdout().lock(), "{}", cost.to_json())?;
    }
    Ok(())
}

fn slice(
    server: &Running,
    target: &Target,
    floor: &Floor,
    is_floor_first: bool,
) -> Result<Cost, Failure> {
    let early = if is_floor_first {
        Some(floor.cost(THREADS)?)
    } else {
        None
    };
    let cost = |login: &(dyn Fn(usize) + Sync)| cpu_of(server, login);
    let password = cost(&|thread| drop(log_in(target, thread)))?;
    // Each password log-in has voided the token before it.
    let tokens: Vec<Token> = (0..THREADS).map(|thread| log_in(target, thread)).collect();
    let token = cost(&|thread| log_in_with_token(target, thread, &tokens[thread]))?;
    let connect = cost(&|_| drop(WireClient::connect(target)))?;
    let floor = match early {
        Some(floor) => floor,
        None => floor.cost(THREADS)?,
    };
    Ok(Cost {
        password,
        token,
        connect,
        floor,
    })
}

fn ready(server: &Running) -> Result<Target, ProgramError> {
    let line = server.wait_json("the server is ready", crate::program::START, |line| {
        line["ready"] == true
    })?;
    let text = |name: &str| line[name].as_str().unwrap_or_default().to_owned();
    Ok(Target {
        address: text("address"),
        fingerprint: text("fingerprint"),
    })
}

/// Milliseconds of the server's CPU for one call of `login`, of which all threads make many.
fn cpu_of(server: &Running, login: &(dyn Fn(usize) + Sync)) -> Result<f64, Failure> {
    let before = thread_cpu_seconds(server.id())?;
    thread::scope(|scope| {
        for thread in 0..THREADS {
            scope.spawn(move || (0..LOGINS).for_each(|_| login(thread)));
        }
    });
    let used = thread_cpu_seconds(server.id())? - before;
    Ok(used * 1e3 / (THREADS * LOGINS) as f64)
}

fn account(thread: usize) -> AccountName {
    format!("account{thread}")
        .parse()
        .expect("letters and a digit")
}

fn device(thread: usize) -> DeviceSecret {
    let number = u8::try_from(thread).expect("there are few threads");
    DeviceSecret::from_seed([number + 1; 32])
}

/// Registers the account of a thread.
fn enrol(target: &Target, thread: usize) {
    let account = account(thread);
    let mut client = WireClient::connect(target);
    let (registration, message) = start_registration();
    let answer = client.ask(LoginRequest::RegisterStart {
        account: account.clone(),
        message,
    });
    let Answer::Login(LoginAnswer::RegisterChallenge { message }) = answer else {
        panic!("not registered: {answer:?}");
    };
    let upload = finish_registration(registration, &account, &message);
    let stretch = STRETCH_CURRENT;
    assert_eq!(
        client.ask(LoginRequest::RegisterFinish { upload, stretch }),
        LoginAnswer::Registered.into()
    );
}

fn log_in(target: &Target, thread: usize) -> Token {
    let token = enter(&mut WireClient::connect(target), thread);
    token.expect("every password log-in gives a token")
}

/// A password log-in on a greeted connection.
fn enter(client: &mut WireClient, thread: usize) -> Option<Token> {
    let (account, secret, channel) = (account(thread), device(thread), client.channel());
    let (state, ke1) = start_login();
    let signature = secret.sign(&Statement {
        role: Role::PasswordLogin,
        channel_binding: &channel,
        account: &account,
        content: ke1.as_bytes(),
    });
    let answer = client.ask(LoginRequest::LoginStart(LoginStart {
        account: account.clone(),
        device_key: secret.public(),
        device_name: DeviceName::lossy("bench"),
        ke1,
        signature,
        code: None,
    }));
    let Answer::Login(LoginAnswer::LoginChallenge { ke2, .. }) = answer else {
        panic!("no challenge: {answer:?}");
    };
    let ke3 = finish_login(state, &account, &ke2, &channel);
    let answer = client.ask(LoginRequest::LoginFinish { ke3 });
    let Answer::Login(LoginAnswer::LoggedIn(logged_in)) = answer else {
        panic!("not logged in: {answer:?}");
    };
    logged_in.token
}

fn log_in_with_token(target: &Target, thread: usize, token: &Token) {
    let account = account(thread);
    let answer = WireClient::connect(target).token_login(account.as_str(), &device(thread), token);
    assert!(
        matches!(answer, Answer::Login(LoginAnswer::LoggedIn(_))),
        "{answer:?}"
    );
}
