//! One file from one peer to another, from acceptance to verified and renamed, against a plain sender
//! on quinn that verifies nothing. Source and target are in memory.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{ChildStdin, Stdio};
use std::time::Duration;

use serde_json::Value;

use super::report::{Figure, Report};
use super::rounds::Rounds;
use super::stage::{self, Ethernet, Place, cpu_seconds};
use super::{Failure, Plan};
use crate::program::{Program, Programs, Running, Server};

/// Time for one transfer.
const PATIENCE: Duration = Duration::from_secs(300);
/// Slices of a round: one transfer of each side.
const SLICES: u32 = 5;
const SOURCE: &str = "source.bin";

pub(super) fn measure(plan: &Plan, report: &mut Report) -> Result<(), Failure> {
    let [first, second] = plan.cores;
    let place = |core| Place {
        core,
        namespace: None,
    };
    let loopback = Road {
        places: [place(first), place(second)],
        addresses: ["127.0.0.1"; 2],
    };
    measure_on(&loopback, "loopback", plan, report)?;
    match Ethernet::new() {
        Ok(ethernet) => {
            let place = |core, end| Place {
                core,
                namespace: Some(ethernet.namespace(end)),
            };
            let road = Road {
                places: [place(first, 0), place(second, 1)],
                addresses: Ethernet::ADDRESSES,
            };
            measure_on(&road, "mtu1500", plan, report)
        }
        Err(why) => {
            report.skipped("file", "mtu1500", &why);
            Ok(())
        }
    }
}

/// From where to where: the sender's end, then the receiver's.
struct Road {
    places: [Place; 2],
    addresses: [&'static str; 2],
}

/// What one transfer took: time, and CPU seconds of both ends.
#[derive(Clone, Copy)]
struct Run {
    seconds: f64,
    cpu: f64,
}

fn measure_on(road: &Road, case: &str, plan: &Plan, report: &mut Report) -> Result<(), Failure> {
    let folder = stage::memory_folder()?;
    // Source, ours and theirs at the same time.
    stage::warm_up(folder.path(), 3 * plan.file_len)?;
    stage::fill(&folder.path().join(SOURCE), plan.file_len)?;
    let ours = Peers::start(road, folder.path())?;
    let mut theirs = Quinn::start(road, folder.path())?;
    let rounds =
        Rounds::<[Run; 2]>::measure(plan.rounds, plan.slices(SLICES), |side| match side {
            0 => ours.run(folder.path()),
            _ => theirs.run(folder.path()),
        })?;
    let len = plan.file_len as f64;
    let rates = rounds.map(|runs| runs.map(|run| len / 1e6 / run.seconds));
    show(report, case, "MB/s", &rates);
    let gibibytes = len / (1u64 << 30) as f64;
    let cpu = rounds.map(|runs| runs.map(|run| run.cpu / gibibytes));
    show(report, &format!("{case}-cpu"), "s/GiB", &cpu);
    Ok(())
}

fn show(report: &mut Report, case: &str, unit: &str, rounds: &Rounds<[f64; 2]>) {
    report.show(&Figure {
        bench: "file",
        case,
        unit,
        sides: ["ours", "quinn"],
        rounds,
    });
}

/// A server and two peers, each a process of its own; both peers' nodes run all the time.
struct Peers {
    programs: Programs,
    _server: Server,
    sender: Running,
    receiver: Running,
}

impl Peers {
    fn start(road: &Road, folder: &Path) -> Result<Self, Failure> {
        let programs = Programs::new(std::env::current_exe()?, folder);
        let [home, away] = road.addresses;
        let server = stage::serve(&programs, &road.places[0], home, &[])?;
        fs::write(folder.join("password"), "a password of the bench")?;
        fs::create_dir(folder.join("inbox"))?;
        let start = |name: &str, end: usize, own: &str| -> Result<Running, Failure> {
            let profile = profile(name);
            let register = [
                "--profile",
                &profile,
                "register",
                name,
                "--server",
                &server.address,
                "--fingerprint",
                &server.fingerprint,
                "--password-file",
                "password",
            ];
            let udp = format!("{own}:0");
            let mut command = programs.command(Program::Peer, register);
            let output = road.places[end]
                .wrap(command.env("PEER_UDP", &udp))
                .output()?;
            if !output.status.success() {
                return Err(Failure::Wrong(
                    String::from_utf8_lossy(&output.stderr).into_owned(),
                ));
            }
            let receive = [
                "--profile",
                &profile,
                "--json",
                "receive",
                "--accept",
                "always",
                "--folder",
                "inbox",
            ];
            let mut command = programs.command(Program::Peer, receive);
            let mut command = road.places[end].wrap(command.env("PEER_UDP", &udp));
            Ok(Running::start(Program::Peer, &mut command)?)
        };
        let sender = start("alice", 0, home)?;
        let receiver = start("bob", 1, away)?;
        let peers = Self {
            programs,
            _server: server,
            sender,
            receiver,
        };
        peers.wait_listed(&road.places[0])?;
        Ok(peers)
    }

    /// Waits until both are in the directory.
    fn wait_listed(&self, place: &Place) -> Result<(), Failure> {
        let deadline = crate::program::now() + crate::program::START;
        loop {
            let profile = profile("alice");
            let command = self
                .programs
                .command(Program::Peer, ["--profile", &profile, "--json", "list"]);
            let output = place.wrap(&command).output()?;
            if String::from_utf8_lossy(&output.stdout).lines().count() == 2 {
                return Ok(());
            }
            if crate::program::now() > deadline {
                return Err(Failure::Wrong("the peers were never listed".to_owned()));
            }
        }
    }

    fn run(&self, folder: &Path) -> Result<Run, Failure> {
        let before = self.cpu()?;
        let profile = profile("alice");
        let arguments = ["--profile", &profile, "--json", "send-file", "bob", SOURCE];
        let sent = self.programs.run(Program::Peer, arguments)?;
        let done = sent.json().into_iter().find(|line| line["state"] == "done");
        let Some(done) = done else {
            return Err(Failure::Wrong(format!(
                "the file did not arrive: {}",
                sent.stderr
            )));
        };
        let cpu = self.cpu()? - before;
        fs::remove_file(folder.join("inbox").join(SOURCE))?;
        Ok(Run {
            seconds: millis(&done)? / 1e3,
            cpu,
        })
    }

    fn cpu(&self) -> Result<f64, Failure> {
        Ok(cpu_seconds(self.sender.id())? + cpu_seconds(self.receiver.id())?)
    }
}

/// The two ends of the baseline.
struct Quinn {
    sender: Running,
    receiver: Running,
    starter: ChildStdin,
}

impl Quinn {
    fn start(road: &Road, folder: &Path) -> Result<Self, Failure> {
        let programs = Programs::new(std::env::current_exe()?, folder);
        let target = stage::text(&folder.join("quinn.bin"));
        let address = format!("{}:0", road.addresses[1]);
        let command = programs.command(Program::QuinnSender, ["receive", &address, &target]);
        let receiver = Running::start(Program::QuinnSender, &mut road.places[1].wrap(&command))?;
        let ready = receiver.wait_json("the receiver is ready", PATIENCE, |line| {
            line["port"].is_u64()
        })?;
        let address = format!("{}:{}", road.addresses[1], ready["port"]);
        let certificate = ready["certificate"].as_str().unwrap_or_default();
        let source = stage::text(&folder.join(SOURCE));
        let command = programs.command(
            Program::QuinnSender,
            ["send", &address, &source, certificate],
        );
        let mut command = road.places[0].wrap(&command);
        command.stdin(Stdio::piped());
        let mut sender = Running::start(Program::QuinnSender, &mut command)?;
        let starter = sender
            .take_stdin()
            .ok_or_else(|| Failure::Wrong("no standard input".to_owned()))?;
        Ok(Self {
            sender,
            receiver,
            starter,
        })
    }

    fn run(&mut self, folder: &Path) -> Result<Run, Failure> {
        let before = self.cpu()?;
        writeln!(self.starter, "go")?;
        let done = self
            .sender
            .wait_json("the file arrives", PATIENCE, |line| {
                line["elapsed_ms"].is_f64()
            })?;
        let cpu = self.cpu()? - before;
        fs::remove_file(folder.join("quinn.bin"))?;
        Ok(Run {
            seconds: millis(&done)? / 1e3,
            cpu,
        })
    }

    fn cpu(&self) -> Result<f64, Failure> {
        Ok(cpu_seconds(self.sender.id())? + cpu_seconds(self.receiver.id())?)
    }
}

fn millis(line: &Value) -> Result<f64, Failure> {
    line["elapsed_ms"]
        .as_f64()
        .ok_or_else(|| Failure::Wrong(format!("no time in {line}")))
}

fn profile(name: &str) -> String {
    format!("./profile-{name}")
}
