//! Log-ins a second of server CPU, with a password and with a token, and what they are made of.
//!
//! The load runs on the other core and leaves out what only costs the client: it stretches no password.
//! The server's part is the same; it never sees how a password was stretched.

use std::io::{self, Write};
use std::process::ExitCode;
use std::thread;

use common::id::{AccountName, DeviceName};
use common::key::{ChannelBinding, DeviceSecret, Role, Statement, Token};
use common::password::{CredentialId, PasswordRecord, STRETCH_CURRENT, ServerSetup};
use common::wire::rendezvous::{Answer, LoginAnswer, LoginRequest, LoginStart, OpaqueMessage};
use opaque_ke::ksf::Identity;
use opaque_ke::{
    CipherSuite, ClientLogin, ClientLoginFinishParameters, ClientRegistration,
    ClientRegistrationFinishParameters, CredentialResponse, Identifiers, RegistrationResponse,
    Ristretto255, TripleDh,
};
use rand_chacha03::ChaCha20Rng;
use rand_chacha03::rand_core::SeedableRng;
use serde_json::{Value, json};

use super::report::{Figure, Report, Series};
use super::stage::{self, Place, cpu_seconds};
use super::{Failure, Plan};
use crate::program::{Program, ProgramError, Programs, Running, now};
use crate::wire_client::{Target, WireClient};

/// Threads of the load; each logs in to accounts of its own.
const THREADS: usize = 8;
/// Log-ins of a thread in one round.
const ROUND: usize = 150;
const PASSWORD: &[u8] = b"a password of the bench";

/// OPAQUE as `common` has it, but for the stretching.
struct Unstretched;

impl CipherSuite for Unstretched {
    type OprfCs = Ristretto255;
    type KeyExchange = TripleDh<Ristretto255, sha2::Sha512>;
    type Ksf = Identity;
}

pub(super) fn measure(plan: &Plan, report: &mut Report) -> Result<(), Failure> {
    let folder = stage::memory_folder()?;
    let programs = Programs::new(std::env::current_exe()?, folder.path());
    let [server_core, load_core] = plan.cores;
    let rounds = plan.rounds.to_string();
    let command = programs.command(Program::LoginLoad, [server_core.to_string(), rounds]);
    let place = Place {
        core: load_core,
        namespace: None,
    };
    let load = Running::start(Program::LoginLoad, &mut place.wrap(&command))?;
    let patience = std::time::Duration::from_secs(600);
    let done = load.wait_json("the load is done", patience, |line| {
        line["password"].is_array()
    })?;
    for (case, unit) in [
        ("password", "/cpu-s"),
        ("token", "/cpu-s"),
        ("tls", "ms"),
        ("opaque", "ms"),
        ("rest", "ms"),
    ] {
        let values = done[case]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_f64)
            .collect();
        let ours = Series {
            name: "ours",
            values,
        };
        report.show(&Figure {
            bench: "login",
            case,
            unit,
            ours,
            baseline: None,
        });
    }
    Ok(())
}

/// Runs as the load: `SERVER-CORE ROUNDS`.
pub fn load(arguments: &[String]) -> ExitCode {
    match run(arguments) {
        Ok(line) => {
            // Whoever started this reads it.
            let _ = writeln!(io::stdout().lock(), "{line}");
            ExitCode::SUCCESS
        }
        Err(failure) => {
            let _ = writeln!(io::stderr().lock(), "{failure}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[String]) -> Result<Value, Failure> {
    let [core, rounds] = arguments else {
        return Err(Failure::Wrong("a core and a number of rounds".to_owned()));
    };
    let number = |text: &str| {
        text.parse::<usize>()
            .map_err(|error| Failure::Wrong(error.to_string()))
    };
    let place = Place {
        core: number(core)?,
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
    (0..THREADS).for_each(|thread| enrol(&target, thread));
    let opaque = opaque_seconds() * 1e3;
    let mut series = [const { Vec::new() }; 5];
    for round in 0..=number(rounds)? {
        let cost = |login: &(dyn Fn(usize) + Sync)| cpu_of(&server, login);
        let password = cost(&|thread| drop(log_in(&target, thread)))?;
        // Each password log-in has voided the token before it.
        let tokens: Vec<Token> = (0..THREADS).map(|thread| log_in(&target, thread)).collect();
        let token = cost(&|thread| log_in_with_token(&target, thread, &tokens[thread]))?;
        let tls = cost(&|_| drop(WireClient::connect(&target)))?;
        let rest = (password - tls) * 1e3 - opaque;
        let values = [1.0 / password, 1.0 / token, tls * 1e3, opaque, rest];
        if round > 0 {
            for (value, series) in values.into_iter().zip(&mut series) {
                series.push(value);
            }
        }
    }
    let [password, token, tls, opaque, rest] = series;
    Ok(json!({ "password": password, "token": token, "tls": tls, "opaque": opaque, "rest": rest }))
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

/// CPU seconds of the server for one call of `login`, of which all threads make many.
fn cpu_of(server: &Running, login: &(dyn Fn(usize) + Sync)) -> Result<f64, Failure> {
    let before = cpu_seconds(server.id())?;
    thread::scope(|scope| {
        for thread in 0..THREADS {
            scope.spawn(move || (0..ROUND).for_each(|_| login(thread)));
        }
    });
    let used = cpu_seconds(server.id())? - before;
    Ok(used / (THREADS * ROUND) as f64)
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

fn rng() -> ChaCha20Rng {
    ChaCha20Rng::from_seed([9; 32])
}

fn opaque(bytes: &[u8]) -> OpaqueMessage {
    OpaqueMessage::try_from(bytes.to_vec()).expect("within the bound")
}

fn identifiers(account: &AccountName) -> Identifiers<'_> {
    Identifiers {
        client: Some(account.as_str().as_bytes()),
        server: None,
    }
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

fn start_registration() -> (ClientRegistration<Unstretched>, OpaqueMessage) {
    let started =
        ClientRegistration::<Unstretched>::start(&mut rng(), PASSWORD).expect("a fine password");
    (started.state, opaque(&started.message.serialize()))
}

fn finish_registration(
    state: ClientRegistration<Unstretched>,
    account: &AccountName,
    message: &OpaqueMessage,
) -> OpaqueMessage {
    let response =
        RegistrationResponse::deserialize(message.as_bytes()).expect("the server's answer");
    let params = ClientRegistrationFinishParameters::new(identifiers(account), None);
    let finished = state
        .finish(&mut rng(), PASSWORD, response, params)
        .expect("it goes on");
    opaque(&finished.message.serialize())
}

fn finish_login(
    state: ClientLogin<Unstretched>,
    account: &AccountName,
    ke2: &OpaqueMessage,
    channel: &ChannelBinding,
) -> OpaqueMessage {
    let ke2 = CredentialResponse::deserialize(ke2.as_bytes()).expect("the server's answer");
    let params = ClientLoginFinishParameters::new(Some(&channel.0), identifiers(account), None);
    let finished = state
        .finish(&mut rng(), PASSWORD, ke2, params)
        .expect("the right password");
    opaque(&finished.message.serialize())
}

fn log_in(target: &Target, thread: usize) -> Token {
    let token = enter(&mut WireClient::connect(target), thread);
    token.expect("every password log-in gives a token")
}

/// A password log-in on a greeted connection.
fn enter(client: &mut WireClient, thread: usize) -> Option<Token> {
    let (account, secret, channel) = (account(thread), device(thread), client.channel());
    let started = ClientLogin::<Unstretched>::start(&mut rng(), PASSWORD).expect("a fine password");
    let ke1 = opaque(&started.message.serialize());
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
    let ke3 = finish_login(started.state, &account, &ke2, &channel);
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

/// Seconds of CPU that the server's part of OPAQUE takes, measured here: nothing else runs meanwhile.
fn opaque_seconds() -> f64 {
    const TIMES: u32 = 500;
    let (setup, account, channel) = (
        ServerSetup::generate([1; 32]),
        account(0),
        ChannelBinding([2; 32]),
    );
    let (state, message) = start_registration();
    let credential = CredentialId::from_random([4; 32]);
    let message = setup.register(&credential, &message);
    let upload = finish_registration(state, &account, &message.expect("it goes on"));
    let record = PasswordRecord::from_upload(&credential, &upload).expect("a sound upload");
    let mut spent = std::time::Duration::ZERO;
    for _ in 0..TIMES {
        let started =
            ClientLogin::<Unstretched>::start(&mut rng(), PASSWORD).expect("a fine password");
        let ke1 = opaque(&started.message.serialize());
        let began = now();
        let (login, ke2) = setup
            .login(&account, Some(&record), &ke1, &channel, [3; 32])
            .expect("it goes on");
        spent += now().saturating_duration_since(began);
        let ke3 = finish_login(started.state, &account, &ke2, &channel);
        let began = now();
        login.finish(&ke3).expect("the right password");
        spent += now().saturating_duration_since(began);
    }
    (spent / TIMES).as_secs_f64()
}
