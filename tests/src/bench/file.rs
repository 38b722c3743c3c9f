//! One file from one peer to another, from acceptance to verified and renamed, against a plain sender
//! on quinn that verifies nothing; and the same through the relay, against the direct way. Source and target are
//! in memory.

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
            measure_on(&road, "mtu1500", plan, report)?;
            measure_relayed(&road, plan, report)
        }
        Err(why) => {
            report.skipped("file", "mtu1500", &why);
            report.skipped("file", "relayed", &why);
            Ok(())
        }
    }
}

/// From where to where: the sender's end, then the receiver's.
struct Road {
    places: [Place; 2],
    addresses: [&'static str; 2],
}

/// What one transfer took: time, and CPU seconds of both ends and of the server.
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
    let ours = Peers::start(road, folder.path(), "any")?;
    let mut theirs = Quinn::start(road, folder.path())?;
    let rounds =
        Rounds::<[Run; 2]>::measure(plan.rounds, plan.slices(SLICES), |side| match side {
            0 => ours.run(folder.path()),
            _ => theirs.run(folder.path()),
        })?;
    show(report, case, ["ours", "quinn"], plan.file_len, &rounds);
    Ok(())
}

/// Two pairs of ours: one that keeps to the relay, and one that does not need it.
fn measure_relayed(road: &Road, plan: &Plan, report: &mut Report) -> Result<(), Failure> {
    let folder = stage::memory_folder()?;
    // Source and one target at a time.
    stage::warm_up(folder.path(), 2 * plan.file_len)?;
    let source = folder.path().join(SOURCE);
    stage::fill(&source, plan.file_len)?;
    let pair = |path: &str| {
        let own = folder.path().join(path);
        fs::create_dir(&own)?;
        fs::hard_link(&source, own.join(SOURCE))?;
        Ok::<_, Failure>((Peers::start(road, &own, path)?, own))
    };
    let pairs = [pair("relay")?, pair("direct")?];
    let rounds = Rounds::<[Run; 2]>::measure(plan.rounds, plan.slices(SLICES), |side| {
        let (peers, folder) = &pairs[side];
        peers.run(folder)
    })?;
    for ((peers, _), path) in pairs.iter().zip(["relayed", "direct"]) {
        peers.must_have_gone(path)?;
    }
    let sides = ["relayed", "direct"];
    show(report, "relayed", sides, plan.file_len, &rounds);
    Ok(())
}

/// Shows rates, and CPU seconds a GiB.
fn show(
    report: &mut Report,
    case: &str,
    sides: [&str; 2],
    file_len: u64,
    rounds: &Rounds<[Run; 2]>,
) {
    let len = file_len as f64;
    let gibibytes = len / (1u64 << 30) as f64;
    let rates = rounds.map(|runs| runs.map(|run| len / 1e6 / run.seconds));
    let cpu = rounds.map(|runs| runs.map(|run| run.cpu / gibibytes));
    let cpu_case = format!("{case}-cpu");
    for (case, unit, rounds) in [(case, "MB/s", &rates), (&cpu_case, "s/GiB", &cpu)] {
        report.show(&Figure {
            bench: "file",
            case,
            unit,
            sides,
            rounds,
        });
    }
}

/// A server and two peers, each a process of its own; both peers' nodes run all the time.
struct Peers {
    programs: Programs,
    server: Server,
    sender: Running,
    receiver: Running,
}

impl Peers {
    /// Starts them with an option `--path`.
    fn start(road: &Road, folder: &Path, path: &str) -> Result<Self, Failure> {
        let programs = Programs::new(std::env::current_exe()?, folder);
        let [home, away] = road.addresses;
        // A relayed file goes as fast as it can.
        let limits = ["--relay-rate", "30000", "--relay-total", "30000"];
        let server = stage::serve(&programs, &road.places[0], home, &limits)?;
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
                "--path",
                path,
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
            server,
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
        let processes = [&self.sender, &self.receiver, &self.server.running];
        processes
            .map(Running::id)
            .map(cpu_seconds)
            .into_iter()
            .sum()
    }

    /// Makes sure that what was sent took this path.
    fn must_have_gone(&self, path: &str) -> Result<(), Failure> {
        let profile = profile("alice");
        let arguments = ["--profile", &profile, "--json", "paths"];
        let shown = self.programs.run(Program::Peer, arguments)?.json();
        match shown.first() {
            Some(link) if link["path"] == path => Ok(()),
            Some(_) | None => Err(Failure::Wrong(format!("{path} is expected: {shown:?}"))),
        }
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
