//! What a log-in costs a server at least: a TLS 1.3 handshake, and an OPAQUE exchange or the check of a
//! signature, without a socket, a store or a protocol around them.
//!
//! The servers' part runs in a process on the core of the real server, the clients' part in the caller, on
//! the other one. They exchange batches over the loopback interface; only the CPU time between the arrival
//! of a batch and its answer counts, so what carries them costs nothing. Several clients at once keep both
//! cores as busy as real log-ins do.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::ExitCode;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use common::key::{ChannelBinding, Role, Signature, Statement};
use common::password::{CredentialId, PasswordRecord, ServerLogin, ServerSetup};
use common::tls::{ServerIdentity, ServerTrust, rendezvous_client_config};
use common::wire::rendezvous::OpaqueMessage;
use rustix::time::{ClockId, clock_gettime};
use rustls::pki_types::ServerName;
use rustls::{ClientConnection, ServerConfig, ServerConnection};
use serde_json::json;

use super::opaque::{finish_login, finish_registration, start_login, start_registration};
use super::{account, device};
use crate::bench::Failure;
use crate::bench::stage::Place;
use crate::program::{Program, Programs, Running};

/// Log-ins in one batch.
const BATCH: usize = 25;
/// Batches of each client in one slice.
const BATCHES: usize = 2;
/// Longest answer that is waited for.
const ITEM_LEN_MAX: u32 = 1 << 16;
const CHANNEL: ChannelBinding = ChannelBinding([2; 32]);
const TOKEN: [u8; 32] = [5; 32];

/// Milliseconds of server CPU for one log-in.
#[derive(Clone, Copy, Debug)]
pub(super) struct FloorCost {
    /// A TLS 1.3 handshake.
    pub(super) tls: f64,
    /// The server's two steps of OPAQUE.
    pub(super) opaque: f64,
    /// One check of an Ed25519 signature.
    pub(super) signature: f64,
}

/// What the servers' part is to do with a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// Answer ClientHellos.
    Hello,
    /// Take the clients' Finished.
    Finished,
    /// Answer KE1 with KE2.
    Ke1,
    /// Check KE3.
    Ke3,
    /// Check signatures.
    Signature,
}

impl Step {
    const ALL: [Self; 5] = [
        Self::Hello,
        Self::Finished,
        Self::Ke1,
        Self::Ke3,
        Self::Signature,
    ];

    fn from_code(code: u64) -> Option<Self> {
        Self::ALL.into_iter().find(|step| *step as u64 == code)
    }
}

// ---- the clients -------------------------------------------------------------------------------

/// The process with the servers' part.
pub(super) struct Floor {
    _running: Running,
    client: Client,
}

/// A client of the floor; each of its threads has a connection of its own.
struct Client {
    port: u16,
    tls: Arc<rustls::ClientConfig>,
}

impl Floor {
    /// Starts it at `place`.
    pub(super) fn start(programs: &Programs, place: &Place) -> Result<Self, Failure> {
        let command = programs.command::<&str>(Program::LoginFloor, []);
        let running = Running::start(Program::LoginFloor, &mut place.wrap(&command))?;
        let ready = running.wait_json("the floor is ready", crate::program::START, |line| {
            line["port"].is_u64()
        })?;
        let wrong = || Failure::Wrong(format!("no port and fingerprint in {ready}"));
        let port = ready["port"].as_u64().and_then(|port| port.try_into().ok());
        let fingerprint = ready["fingerprint"]
            .as_str()
            .and_then(|text| text.parse().ok());
        let (Some(port), Some(fingerprint)) = (port, fingerprint) else {
            return Err(wrong());
        };
        let trust = ServerTrust::Pinned(fingerprint);
        let tls = rendezvous_client_config(&trust).expect("pinning needs nothing of the system");
        Ok(Self {
            _running: running,
            client: Client { port, tls },
        })
    }

    /// What a log-in costs at least, with so many clients at once.
    pub(super) fn cost(&self, clients: usize) -> Result<FloorCost, Failure> {
        let client = &self.client;
        let costs = thread::scope(|scope| {
            let threads: Vec<_> = (0..clients).map(|_| scope.spawn(|| client.run())).collect();
            let join = |thread: thread::ScopedJoinHandle<'_, io::Result<[f64; 3]>>| {
                thread.join().expect("a client reports what goes wrong")
            };
            threads
                .into_iter()
                .map(join)
                .collect::<io::Result<Vec<_>>>()
        })?;
        Ok(FloorCost::of(&costs))
    }
}

impl Client {
    /// Nanoseconds of the servers for all batches of one client: handshakes, OPAQUE, signatures.
    fn run(&self) -> io::Result<[f64; 3]> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        let mut spent = [0.0; 3];
        for _ in 0..BATCHES {
            spent[0] += self.shake(&mut stream)?;
            spent[1] += prove_passwords(&mut stream)?;
            spent[2] += prove_keys(&mut stream)?;
        }
        Ok(spent)
    }

    fn shake(&self, stream: &mut TcpStream) -> io::Result<f64> {
        let name = ServerName::try_from("rendezvous").expect("a plain name");
        let connection = || ClientConnection::new(Arc::clone(&self.tls), name.clone());
        let mut clients = (0..BATCH)
            .map(|_| connection().map_err(io::Error::other))
            .collect::<io::Result<Vec<_>>>()?;
        let mut spent = 0.0;
        for step in [Step::Hello, Step::Finished] {
            let items = clients.iter_mut().map(|client| {
                let mut bytes = Vec::new();
                while client.wants_write() {
                    client.write_tls(&mut bytes)?;
                }
                Ok(bytes)
            });
            let items = items.collect::<io::Result<Vec<_>>>()?;
            let (cost, answers) = ask(stream, step, &items)?;
            spent += cost;
            for (client, answer) in clients.iter_mut().zip(&answers) {
                let mut rest = &answer[..];
                while !rest.is_empty() {
                    client.read_tls(&mut rest)?;
                    client.process_new_packets().map_err(io::Error::other)?;
                }
            }
        }
        match clients.iter().all(|client| !client.is_handshaking()) {
            true => Ok(spent),
            false => Err(io::Error::other("a handshake is not complete")),
        }
    }
}

impl FloorCost {
    /// The handshake, OPAQUE, and the signature.
    pub(super) const fn parts(&self) -> [f64; 3] {
        [self.tls, self.opaque, self.signature]
    }

    /// From the nanoseconds of each client.
    fn of(clients: &[[f64; 3]]) -> Self {
        let log_ins = (clients.len() * BATCHES * BATCH) as f64;
        let [tls, opaque, signature] = [0, 1, 2].map(|part| {
            let nanoseconds: f64 = clients.iter().map(|spent| spent[part]).sum();
            nanoseconds / 1e6 / log_ins
        });
        Self {
            tls,
            opaque,
            signature,
        }
    }
}

fn prove_passwords(stream: &mut TcpStream) -> io::Result<f64> {
    let account = account(0);
    let (states, ke1): (Vec<_>, Vec<_>) = (0..BATCH).map(|_| start_login()).unzip();
    let ke1: Vec<_> = ke1.iter().map(|ke1| ke1.as_bytes().to_vec()).collect();
    let (first, ke2) = ask(stream, Step::Ke1, &ke1)?;
    let ke3 = states.into_iter().zip(ke2).map(|(state, ke2)| {
        let ke2 = OpaqueMessage::try_from(ke2).map_err(io::Error::other)?;
        let ke3 = finish_login(state, &account, &ke2, &CHANNEL);
        Ok(ke3.as_bytes().to_vec())
    });
    let ke3 = ke3.collect::<io::Result<Vec<_>>>()?;
    let (second, _) = ask(stream, Step::Ke3, &ke3)?;
    Ok(first + second)
}

fn prove_keys(stream: &mut TcpStream) -> io::Result<f64> {
    let account = account(0);
    let signature = device(0).sign(&statement(&account));
    let (spent, _) = ask(stream, Step::Signature, &vec![signature.into(); BATCH])?;
    Ok(spent)
}

fn statement(account: &common::id::AccountName) -> Statement<'_> {
    Statement {
        role: Role::TokenLogin,
        channel_binding: &CHANNEL,
        account,
        content: &TOKEN,
    }
}

/// Sends a batch; returns the nanoseconds that the servers' part took, and its answers.
fn ask(stream: &mut TcpStream, step: Step, items: &[Vec<u8>]) -> io::Result<(f64, Vec<Vec<u8>>)> {
    write_batch(stream, step as u64, items)?;
    let (nanoseconds, answers) = read_batch(stream)?;
    if answers.len() == items.len() {
        Ok((nanoseconds as f64, answers))
    } else {
        Err(io::Error::other("an answer is missing"))
    }
}

// ---- the servers' part -------------------------------------------------------------------------

/// Runs as the servers' part, until it is killed.
pub fn main() -> ExitCode {
    match serve() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Whoever started this reads it.
            let _ = writeln!(io::stderr().lock(), "{error}");
            ExitCode::FAILURE
        }
    }
}

fn serve() -> io::Result<()> {
    let identity = ServerIdentity::from_pem(ServerIdentity::generate_pem().as_bytes())
        .map_err(io::Error::other)?;
    let fingerprint = identity
        .fingerprint()
        .map_err(io::Error::other)?
        .to_string();
    let tls = identity.into_server_config().map_err(io::Error::other)?;
    let accounts = Arc::new(Account::register());
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let port = listener.local_addr()?.port();
    writeln!(
        io::stdout().lock(),
        "{}",
        json!({ "port": port, "fingerprint": fingerprint })
    )?;
    for stream in listener.incoming() {
        let mut stream = stream?;
        stream.set_nodelay(true)?;
        let mut servers = Servers::new(&tls, &accounts);
        thread::spawn(move || {
            // A client that has ended hangs up.
            while let Ok((code, items)) = read_batch(&mut stream) {
                let began = thread_nanoseconds();
                let Some(answers) = servers.carry_out(code, &items) else {
                    return;
                };
                let spent = thread_nanoseconds() - began;
                if write_batch(&mut stream, spent, &answers).is_err() {
                    return;
                }
            }
        });
    }
    Ok(())
}

/// The one account, as a server has it.
struct Account {
    setup: ServerSetup,
    record: PasswordRecord,
}

impl Account {
    fn register() -> Self {
        let setup = ServerSetup::generate([1; 32]);
        let (state, message) = start_registration();
        let credential = CredentialId::from_random([4; 32]);
        let message = setup
            .register(&credential, &message)
            .expect("a sound message");
        let upload = finish_registration(state, &account(0), &message);
        let record = PasswordRecord::from_upload(&credential, &upload).expect("a sound upload");
        Self { setup, record }
    }
}

/// The servers of one client, a batch at a time.
struct Servers {
    config: Arc<ServerConfig>,
    account: Arc<Account>,
    connections: Vec<ServerConnection>,
    log_ins: Vec<ServerLogin>,
}

impl Servers {
    fn new(config: &Arc<ServerConfig>, account: &Arc<Account>) -> Self {
        Self {
            config: Arc::clone(config),
            account: Arc::clone(account),
            connections: Vec::new(),
            log_ins: Vec::new(),
        }
    }

    /// The answers to a batch; `None` if anything is wrong with it.
    fn carry_out(&mut self, code: u64, items: &[Vec<u8>]) -> Option<Vec<Vec<u8>>> {
        match Step::from_code(code)? {
            Step::Hello => {
                self.connections.clear();
                items.iter().map(|item| self.accept(item)).collect()
            }
            Step::Finished => {
                let shake = |(server, item): (&mut ServerConnection, &Vec<u8>)| {
                    advance(server, item).filter(|_| !server.is_handshaking())
                };
                self.connections.iter_mut().zip(items).map(shake).collect()
            }
            Step::Ke1 => {
                self.log_ins.clear();
                items.iter().map(|item| self.challenge(item)).collect()
            }
            Step::Ke3 => {
                let check = |(log_in, item): (ServerLogin, &Vec<u8>)| {
                    let ke3 = OpaqueMessage::try_from(item.clone()).ok()?;
                    log_in.finish(&ke3).ok().map(|()| Vec::new())
                };
                self.log_ins.drain(..).zip(items).map(check).collect()
            }
            Step::Signature => {
                let (account, key) = (account(0), device(0).public());
                let check = |item: &Vec<u8>| {
                    let signature = Signature::try_from(item.clone()).ok()?;
                    key.verify(&statement(&account), &signature).then(Vec::new)
                };
                items.iter().map(check).collect()
            }
        }
    }

    fn accept(&mut self, hello: &[u8]) -> Option<Vec<u8>> {
        let mut server = ServerConnection::new(Arc::clone(&self.config)).ok()?;
        let answer = advance(&mut server, hello)?;
        self.connections.push(server);
        Some(answer)
    }

    fn challenge(&mut self, ke1: &[u8]) -> Option<Vec<u8>> {
        let Account { setup, record } = &*self.account;
        let ke1 = OpaqueMessage::try_from(ke1.to_vec()).ok()?;
        let (log_in, ke2) = setup
            .login(&account(0), Some(record), &ke1, &CHANNEL, [3; 32])
            .ok()?;
        self.log_ins.push(log_in);
        Some(ke2.as_bytes().to_vec())
    }
}

/// Gives a connection what came, and returns what it has to say.
fn advance(server: &mut ServerConnection, mut bytes: &[u8]) -> Option<Vec<u8>> {
    while !bytes.is_empty() {
        server.read_tls(&mut bytes).ok()?;
        server.process_new_packets().ok()?;
    }
    let mut answer = Vec::new();
    while server.wants_write() {
        server.write_tls(&mut answer).ok()?;
    }
    Some(answer)
}

/// CPU time of this thread so far.
fn thread_nanoseconds() -> u64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    seconds * 1_000_000_000 + u64::try_from(time.tv_nsec).unwrap_or(0)
}

// ---- batches -----------------------------------------------------------------------------------

/// A number, how many items there are, and each with its length before it.
fn write_batch(stream: &mut impl Write, number: u64, items: &[Vec<u8>]) -> io::Result<()> {
    let mut bytes = number.to_be_bytes().to_vec();
    let count = u32::try_from(items.len()).map_err(io::Error::other)?;
    bytes.extend(count.to_be_bytes());
    for item in items {
        let len = u32::try_from(item.len()).map_err(io::Error::other)?;
        bytes.extend(len.to_be_bytes());
        bytes.extend(item);
    }
    stream.write_all(&bytes)
}

fn read_batch(stream: &mut impl Read) -> io::Result<(u64, Vec<Vec<u8>>)> {
    let mut number = [0; 8];
    stream.read_exact(&mut number)?;
    let count = read_len(stream, BATCH as u32)?;
    let items = (0..count).map(|_| {
        let mut item = vec![0; read_len(stream, ITEM_LEN_MAX)?];
        stream.read_exact(&mut item)?;
        Ok(item)
    });
    Ok((
        u64::from_be_bytes(number),
        items.collect::<io::Result<_>>()?,
    ))
}

fn read_len(stream: &mut impl Read, max: u32) -> io::Result<usize> {
    let mut len = [0; 4];
    stream.read_exact(&mut len)?;
    match u32::from_be_bytes(len) {
        len if len <= max => Ok(len as usize),
        len => Err(io::Error::other(format!("{len} is more than {max}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_come_as_they_went_and_never_larger_than_allowed() {
        let items = vec![vec![1, 2, 3], Vec::new(), vec![9; 2000]];
        let mut bytes = Vec::new();
        write_batch(&mut bytes, 7, &items).unwrap();
        assert_eq!(read_batch(&mut &bytes[..]).unwrap(), (7, items));
        for len in 0..bytes.len() {
            assert!(read_batch(&mut &bytes[..len]).is_err(), "{len} bytes");
        }
        let many = [&[0; 8][..], &[0xff; 4]].concat();
        assert!(read_batch(&mut &many[..]).is_err());
        let long = [&[0; 8][..], &1u32.to_be_bytes(), &[0xff; 4]].concat();
        assert!(read_batch(&mut &long[..]).is_err());
    }

    #[test]
    fn costs_are_milliseconds_of_one_log_in() {
        let log_ins = (2 * BATCHES * BATCH) as f64;
        let clients = [[1e6 * log_ins, 0.0, 2e6], [0.0, 2e6 * log_ins, 2e6]];
        let cost = FloorCost::of(&clients);
        assert_eq!((cost.tls, cost.opaque), (1.0, 2.0));
        assert_eq!(cost.signature, 4.0 / log_ins);
    }

    #[test]
    fn a_wrong_proof_is_not_paid_for() {
        let pem = ServerIdentity::generate_pem();
        let tls = ServerIdentity::from_pem(pem.as_bytes()).unwrap();
        let tls = tls.into_server_config().unwrap();
        let mut servers = Servers::new(&tls, &Arc::new(Account::register()));
        let signature = device(0).sign(&statement(&account(0)));
        let mut items = vec![signature.into()];
        let step = Step::Signature as u64;
        assert_eq!(servers.carry_out(step, &items), Some(vec![Vec::new()]));
        items[0][3] ^= 1;
        assert_eq!(servers.carry_out(step, &items), None);
        for step in [Step::Hello, Step::Ke1] {
            assert_eq!(servers.carry_out(step as u64, &items), None, "{step:?}");
        }
        assert_eq!(servers.carry_out(5, &[]), None, "no such step");
    }
}
