//! STUN Binding answers for each second of CPU that the server uses, against coturn.
//!
//! The load is single datagrams from many sockets, as they come from many peers; each socket asks again once it
//! has its answer. CPU of the whole process counts, so it does not matter how busy the server is.

use std::io::{self, ErrorKind, Write};
use std::net::{SocketAddr, UdpSocket};
use std::process::{Child, ChildStdin, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use common::stun::{binding_request, reflexive_address};
use serde_json::json;

use super::report::{Figure, Report};
use super::rounds::Rounds;
use super::stage::{self, Place, cpu_seconds};
use super::{Failure, Plan};
use crate::program::{Program, Programs, Running, now};

/// Sockets of the load.
const SOCKETS: usize = 64;
/// Answers to one slice: about half a second.
const ANSWERS: u64 = 50_000;
/// Slices of a round.
const SLICES: u32 = 5;
/// Time for one slice, and for a server to be ready.
const PATIENCE: Duration = Duration::from_secs(60);
/// A request without an answer is sent again after this long.
const RETRY: Duration = Duration::from_millis(200);

pub(super) fn measure(plan: &Plan, report: &mut Report) -> Result<(), Failure> {
    let folder = stage::memory_folder()?;
    let programs = Programs::new(std::env::current_exe()?, folder.path());
    let [server_core, load_core] = plan.cores;
    let at = |core| Place {
        core,
        namespace: None,
    };
    let coturn = match Coturn::start(&at(server_core), folder.path())? {
        Ok(coturn) => coturn,
        Err(why) => {
            report.skipped("stun", "binding", &why);
            return Ok(());
        }
    };
    let serve = [
        "--data",
        "server",
        "serve",
        "--json",
        "--listen",
        "127.0.0.1:0",
    ];
    let serve = programs.command(Program::Rendezvous, serve);
    let server = Running::start(Program::Rendezvous, &mut at(server_core).wrap(&serve))?;
    let ready = server.wait_json("the server", PATIENCE, |line| line["address"].is_string())?;
    let address = ready["address"].as_str().and_then(|text| text.parse().ok());
    let address = address.ok_or_else(|| Failure::Wrong(format!("no address in {ready}")))?;
    let mut load = Load::start(&programs, &at(load_core))?;
    let sides = [(address, server.id()), (coturn.address, coturn.child.id())];
    let measured = Rounds::<[f64; 2]>::measure(plan.rounds, plan.slices(SLICES), |side| {
        let (address, process) = sides[side];
        let before = cpu_seconds(process)?;
        load.ask(address)?;
        let used = cpu_seconds(process)? - before;
        Ok(ANSWERS as f64 / used / 1e3)
    });
    load.end()?;
    server.interrupt()?;
    report.show(&Figure {
        bench: "stun",
        case: "binding",
        unit: "k/s",
        sides: ["ours", "coturn"],
        rounds: &measured?,
    });
    Ok(())
}

/// The other server. It ends with this.
struct Coturn {
    child: Child,
    address: SocketAddr,
}

impl Coturn {
    /// Starts it on a free port; says why where it is not there.
    fn start(place: &Place, folder: &std::path::Path) -> Result<Result<Self, String>, Failure> {
        let free = UdpSocket::bind("127.0.0.1:0")?.local_addr()?;
        let mut command = Command::new("turnserver");
        command.args(["-n", "--stun-only", "--no-tls", "--no-dtls", "--no-cli"]);
        command.args(["--no-software-attribute", "--relay-threads", "1"]);
        command.args(["--log-file", "coturn.log", "--simple-log"]);
        command.args(["--pidfile", "coturn.pid", "--listening-ip", "127.0.0.1"]);
        command.args(["--listening-port", &free.port().to_string()]);
        command.current_dir(folder);
        let found = Command::new("turnserver").arg("--version").output();
        if found.is_err() {
            return Ok(Err("coturn is not there ('turnserver')".to_owned()));
        }
        let mut command = place.wrap(&command);
        let child = command
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let coturn = Self {
            child,
            address: free,
        };
        let socket = UdpSocket::bind("127.0.0.1:0")?;
        socket.set_read_timeout(Some(RETRY))?;
        let deadline = now() + PATIENCE;
        let mut answer = [0; 1500];
        while now() < deadline {
            socket.send_to(&binding_request(1), free)?;
            if socket.recv_from(&mut answer).is_ok() {
                return Ok(Ok(coturn));
            }
        }
        Err(Failure::Wrong("coturn does not answer".to_owned()))
    }
}

impl Drop for Coturn {
    fn drop(&mut self) {
        // It may have ended by itself; either way it is gone.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The process that asks.
struct Load {
    running: Running,
    input: ChildStdin,
}

impl Load {
    fn start(programs: &Programs, place: &Place) -> Result<Self, Failure> {
        let command = programs.command(Program::StunLoad, [""; 0]);
        let mut command = place.wrap(&command);
        command.stdin(Stdio::piped());
        let mut running = Running::start(Program::StunLoad, &mut command)?;
        let input = running.take_stdin();
        let input = input.ok_or_else(|| Failure::Wrong("no standard input".to_owned()))?;
        Ok(Self { running, input })
    }

    /// Has [`ANSWERS`] requests answered.
    fn ask(&mut self, address: SocketAddr) -> Result<(), Failure> {
        writeln!(self.input, "{address}")?;
        let is_done = |line: &serde_json::Value| line["answers"].is_u64();
        self.running.wait_json("a slice", PATIENCE, is_done)?;
        Ok(())
    }

    fn end(self) -> Result<(), Failure> {
        drop(self.input);
        self.running.finish(PATIENCE)?;
        Ok(())
    }
}

/// Runs as the load: asks the server of each line of standard input.
pub fn load() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            // Whoever started this reads it.
            let _ = writeln!(io::stderr().lock(), "{failure}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Failure> {
    for line in io::stdin().lines() {
        let line = line?;
        let address = line.parse();
        let address = address.map_err(|_| Failure::Wrong(format!("{line} is no address")))?;
        slice(address)?;
        writeln!(io::stdout().lock(), "{}", json!({ "answers": ANSWERS }))?;
    }
    Ok(())
}

/// Asks until enough is answered.
fn slice(address: SocketAddr) -> Result<(), Failure> {
    let mut askers = (0..SOCKETS)
        .map(|number| Asker::new(address, number as u128))
        .collect::<io::Result<Vec<_>>>()?;
    let deadline = now() + PATIENCE;
    let mut answers = 0;
    while answers < ANSWERS {
        let now = now();
        if now > deadline {
            return Err(Failure::Wrong(format!("{answers} answers only")));
        }
        for asker in &mut askers {
            answers += u64::from(asker.turn(now)?);
        }
    }
    Ok(())
}

struct Asker {
    socket: UdpSocket,
    transaction: u128,
    asked: Option<Instant>,
}

impl Asker {
    fn new(address: SocketAddr, number: u128) -> io::Result<Self> {
        let socket = UdpSocket::bind("127.0.0.1:0")?;
        socket.connect(address)?;
        socket.set_nonblocking(true)?;
        Ok(Self {
            socket,
            transaction: number << 64,
            asked: None,
        })
    }

    /// Takes the answer if it is there, and asks again. Tells whether it was.
    fn turn(&mut self, now: Instant) -> Result<bool, Failure> {
        let mut answer = [0; 256];
        let is_answered = match self.socket.recv(&mut answer) {
            Ok(len) => reflexive_address(&answer[..len], self.transaction).is_some(),
            Err(error) if error.kind() == ErrorKind::WouldBlock => false,
            Err(error) => return Err(error.into()),
        };
        if is_answered {
            self.transaction += 1;
            self.asked = None;
        }
        if self.asked.is_none_or(|asked| now > asked + RETRY) {
            self.asked = Some(now);
            self.socket.send(&binding_request(self.transaction))?;
        }
        Ok(is_answered)
    }
}
