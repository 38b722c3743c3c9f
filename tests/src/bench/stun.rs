//! STUN Binding answers for each second of CPU that the server uses, against coturn.
//!
//! The load is single datagrams from many sockets, as they come from many peers; each socket asks again once it
//! has its answer. CPU of the whole process counts, so it does not matter how busy the server is.

use std::io::{self, ErrorKind};
use std::net::{SocketAddr, UdpSocket};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use common::stun::{binding_request, reflexive_address};
use serde_json::json;

use super::coturn::Coturn;
use super::load::{self, Load, PATIENCE};
use super::report::{Figure, Report};
use super::rounds::Rounds;
use super::stage::{self, Place, cpu_seconds};
use super::{Failure, Plan};
use crate::program::{Program, Programs, now};

/// Sockets of the load.
const SOCKETS: usize = 64;
/// Answers to one slice: about half a second.
const ANSWERS: u64 = 50_000;
/// As coturn has it.
const ONE_THREAD: [&str; 2] = ["--udp-threads", "1"];
/// Slices of a round.
const SLICES: u32 = 5;
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
    let coturn = match Coturn::start(&at(server_core), folder.path(), &["--stun-only"])? {
        Ok(coturn) => coturn,
        Err(why) => {
            report.skipped("stun", "binding", &why);
            return Ok(());
        }
    };
    let server = stage::serve(&programs, &at(server_core), "127.0.0.1", &ONE_THREAD)?;
    let address = server.address.parse();
    let address =
        address.map_err(|_| Failure::Wrong(format!("{} is no address", server.address)))?;
    let mut load = Load::start(&programs, &at(load_core), Program::StunLoad, &[])?;
    let sides: [(SocketAddr, u32); 2] = [
        (address, server.running.id()),
        (coturn.address(), coturn.id()),
    ];
    let measured = Rounds::<[f64; 2]>::measure(plan.rounds, plan.slices(SLICES), |side| {
        let (address, process) = sides[side];
        let before = cpu_seconds(process)?;
        load.slice(&address.to_string())?;
        let used = cpu_seconds(process)? - before;
        Ok(ANSWERS as f64 / used / 1e3)
    });
    load.end()?;
    server.running.interrupt()?;
    report.show(&Figure {
        bench: "stun",
        case: "binding",
        unit: "k/s",
        sides: ["ours", "coturn"],
        rounds: &measured?,
    });
    Ok(())
}

/// Runs as the load: asks the server of each line of standard input.
pub fn load() -> ExitCode {
    load::serve(|line| {
        let address = line.parse();
        let address = address.map_err(|_| Failure::Wrong(format!("{line} is no address")))?;
        slice(address)?;
        Ok(json!({ "answers": ANSWERS }))
    })
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
