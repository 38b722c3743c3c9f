//! A message there and back between two pinned processes, against one on a stream of quinn between two
//! others on the same cores; bare datagrams stand beside it. Ours link the peer with its shell; none of
//! them has a screen or a pipe on the way.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, BufRead, Write};
use std::net::UdpSocket;
use std::path::PathBuf;
use std::process::{ChildStdin, ExitCode, Stdio};
use std::time::{Duration, Instant, SystemTime};

use common::id::{AccountName, DeviceName, MessageId};
use common::key::DeviceSecret;
use common::time::UnixTime;
use common::tls::ServerTrust;
use common::wire::peer::MessageBody;
use peer::node::PathRule;
use peer::node::command::{Command, Event, MessageState, PasswordText, Reply};
use peer::recovery::RecoveryCode;
use peer::shell::{Heard, LocalNode, NodeSettings, ServerAddress};
use serde_json::{Value, json};

use super::report::{Figure, Report};
use super::rounds::{Rounds, median};
use super::stage::{self, Place};
use super::{Failure, Plan, quinn_stream};
use crate::program::{Program, Programs, Running, now};

/// Slices of a round.
const SLICES: u32 = 60;
/// Messages there and back of one side in one slice.
const MESSAGES: usize = 100;
/// Time for one of them, and for the processes to be ready.
const PATIENCE: Duration = Duration::from_secs(60);
const CASES: [(&str, usize); 3] = [("64B", 64), ("4KiB", 4096), ("receipt", 64)];

pub(super) type Fault = Box<dyn std::error::Error>;

pub(super) fn measure(plan: &Plan, report: &mut Report) -> Result<(), Failure> {
    let folder = stage::memory_folder()?;
    let programs = Programs::new(std::env::current_exe()?, folder.path());
    let server = programs.serve("server", &[])?;
    let start = |name: &str, core: usize, role: &[&str]| -> Result<Pinger, Failure> {
        let arguments = [&[role[0], name], &role[1..]].concat();
        Pinger::start(&programs, core, &arguments)
    };
    let [near, far] = plan.cores;
    let node = |role| [role, server.address.as_str(), server.fingerprint.as_str()];
    let _echo = start("echo", far, &node("node-echo"))?;
    let mut ours = start("ping", near, &node("node-ping"))?;
    let udp_echo = start("echo", far, &["udp-echo"])?;
    let port = udp_echo.ready["port"].to_string();
    let mut udp = start("ping", near, &["udp-ping", &port])?;
    let quinn_echo = start("echo", far, &["quinn-echo"])?;
    let [port, certificate] =
        ["port", "certificate"].map(|name| quinn_echo.ready[name].to_string());
    let mut quinn = start("ping", near, &["quinn-ping", &port, &certificate])?;
    for (case, len) in CASES {
        let sides = [&mut ours, &mut quinn, &mut udp];
        let rounds = Rounds::<[f64; 3]>::measure(plan.rounds, plan.slices(SLICES), |side| {
            Ok(median(&sides[side].slice(case, len)?))
        })?;
        let baseline = if case == "receipt" {
            "quinn+commit"
        } else {
            "quinn"
        };
        report.show(&Figure {
            bench: "message",
            case,
            unit: "us",
            sides: ["ours", baseline, "udp"],
            rounds: &rounds,
        });
    }
    Ok(())
}

/// A process that measures when it is told to.
struct Pinger {
    running: Running,
    input: ChildStdin,
    ready: Value,
}

impl Pinger {
    fn start(programs: &Programs, core: usize, arguments: &[&str]) -> Result<Self, Failure> {
        let command = programs.command(Program::MessageEnd, arguments);
        let mut command = Place {
            core,
            namespace: None,
        }
        .wrap(&command);
        command.stdin(Stdio::piped());
        let mut running = Running::start(Program::MessageEnd, &mut command)?;
        let input = running
            .take_stdin()
            .ok_or_else(|| Failure::Wrong("no standard input".to_owned()))?;
        let ready = running.wait_json("it is ready", PATIENCE, |line| line["ready"] == true)?;
        Ok(Self {
            running,
            input,
            ready,
        })
    }

    /// The times of one slice, in microseconds.
    fn slice(&mut self, case: &str, len: usize) -> Result<Vec<f64>, Failure> {
        writeln!(self.input, "{case} {len}")?;
        let line = self
            .running
            .wait_json("a slice", PATIENCE, |line| line["times_us"].is_array())?;
        let times = line["times_us"].as_array().into_iter().flatten();
        let times: Vec<f64> = times.filter_map(Value::as_f64).collect();
        if times.len() == MESSAGES {
            Ok(times)
        } else {
            Err(Failure::Wrong(format!("not all of a slice in {line}")))
        }
    }
}

// ---- in the processes --------------------------------------------------------------------------

/// Runs as one of the ends: `node-echo NAME ADDRESS FINGERPRINT`, `node-ping` the same,
/// `udp-echo NAME`, `udp-ping NAME PORT`, `quinn-echo NAME`, or `quinn-ping NAME PORT CERTIFICATE`.
pub fn end(arguments: &[String]) -> ExitCode {
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match words[..] {
        ["node-echo", name, address, fingerprint] => echo(name, address, fingerprint),
        ["node-ping", name, address, fingerprint] => ping(name, address, fingerprint),
        ["udp-echo", _] => udp_echo(),
        ["udp-ping", _, port] => udp_ping(port),
        ["quinn-echo", _] => quinn_stream::echo(),
        ["quinn-ping", _, port, certificate] => quinn_stream::ping(port, certificate),
        _ => Err("unknown arguments".into()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Whoever started this reads it.
            let _ = writeln!(io::stderr().lock(), "{error}");
            ExitCode::FAILURE
        }
    }
}

pub(super) fn say(line: &Value) -> io::Result<()> {
    writeln!(io::stdout().lock(), "{line}")
}

/// Measures slices as standard input asks for them; `slice` is given the case, the length of a message
/// and how many there are to be.
pub(super) fn serve(
    mut slice: impl FnMut(&str, usize, usize) -> Result<Vec<Duration>, Fault>,
) -> Result<(), Fault> {
    say(&json!({ "ready": true }))?;
    for line in io::stdin().lock().lines() {
        let line = line?;
        let (case, len) = line.split_once(' ').ok_or("a case and a length")?;
        let times = slice(case, len.parse()?, MESSAGES)?;
        let times: Vec<f64> = times.iter().map(|time| time.as_secs_f64() * 1e6).collect();
        say(&json!({ "times_us": times }))?;
    }
    Ok(())
}

fn udp_echo() -> Result<(), Fault> {
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    say(&json!({ "ready": true, "port": socket.local_addr()?.port() }))?;
    let mut buffer = [0; 65_536];
    loop {
        let (len, from) = socket.recv_from(&mut buffer)?;
        socket.send_to(&buffer[..len], from)?;
    }
}

fn udp_ping(port: &str) -> Result<(), Fault> {
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    socket.connect(("127.0.0.1", port.parse()?))?;
    socket.set_read_timeout(Some(PATIENCE))?;
    let mut buffer = [0; 65_536];
    serve(|_, len, times| {
        let message = vec![7; len];
        let once = |_| {
            let began = now();
            socket.send(&message)?;
            socket.recv(&mut buffer)?;
            Ok(now().saturating_duration_since(began))
        };
        (0..times).map(once).collect()
    })
}

/// A node with an account of its own, on this thread.
struct End {
    node: LocalNode,
    heard: BTreeMap<u64, Reply>,
}

impl End {
    fn start(name: &str, address: &str, fingerprint: &str) -> Result<Self, Fault> {
        let folder = PathBuf::from(format!("end-{name}"));
        fs::create_dir_all(&folder)?;
        let (host, port) = address.rsplit_once(':').ok_or("an address and a port")?;
        let settings = NodeSettings {
            server: ServerAddress {
                host: host.to_owned(),
                port: port.parse()?,
            },
            trust: ServerTrust::Pinned(fingerprint.parse()?),
            secret: DeviceSecret::from_seed(*blake3::hash(name.as_bytes()).as_bytes()),
            device_name: DeviceName::lossy(name),
            history: folder.join("history.db"),
            socket: folder.join("socket"),
            udp: "127.0.0.1:0".parse()?,
            rule: PathRule::Any,
            lan: false,
            port_mapping: false,
        };
        let mut end = Self {
            node: LocalNode::start(settings)?,
            heard: BTreeMap::new(),
        };
        let password = PasswordText("a password of the bench".to_owned().into());
        end.ask(Command::Register {
            account: name.parse()?,
            password,
        })?;
        end.ask(Command::WaitReady)?;
        // Messages are those of accounts with an identity.
        let recovery = RecoveryCode::new(rand::random()).secret().public();
        end.ask(Command::Found { recovery })?;
        Ok(end)
    }

    fn ask(&mut self, command: Command) -> Result<Reply, Fault> {
        let number = self.node.submit(command);
        self.wait(|end, _| end.heard.remove(&number))
    }

    /// Handles what is heard until `is_it`.
    fn wait<T>(
        &mut self,
        mut is_it: impl FnMut(&mut Self, Option<&Event>) -> Option<T>,
    ) -> Result<T, Fault> {
        let deadline = now() + PATIENCE;
        loop {
            match self.node.hear(PATIENCE)? {
                Some(Heard::Reply(number, reply)) => {
                    self.heard.insert(number, reply?);
                    if let Some(value) = is_it(self, None) {
                        return Ok(value);
                    }
                }
                Some(Heard::Event(event)) => {
                    if let Some(value) = is_it(self, Some(&event)) {
                        return Ok(value);
                    }
                }
                None => return Err("nothing was heard".into()),
            }
            if now() > deadline {
                return Err("it never came".into());
            }
        }
    }

    /// Sends a text without waiting for anything.
    fn send(&mut self, to: &AccountName, body: MessageBody) -> u64 {
        let command = Command::Send {
            to: vec![to.clone()],
            body,
            sent: wall_clock(),
        };
        self.node.submit(command)
    }
}

#[expect(clippy::disallowed_methods, reason = "a message says when it was sent")]
fn wall_clock() -> UnixTime {
    let since_1970 = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    UnixTime::from_millis(u64::try_from(since_1970.as_millis()).unwrap_or(0))
}

fn echo(name: &str, address: &str, fingerprint: &str) -> Result<(), Fault> {
    let mut end = End::start(name, address, fingerprint)?;
    say(&json!({ "ready": true }))?;
    loop {
        let item = match end.node.hear(PATIENCE)? {
            Some(Heard::Event(Event::Message(item))) => item,
            Some(Heard::Event(_) | Heard::Reply(..)) | None => continue,
        };
        end.send(&item.with, item.body);
    }
}

fn ping(name: &str, address: &str, fingerprint: &str) -> Result<(), Fault> {
    let mut end = End::start(name, address, fingerprint)?;
    let to: AccountName = "echo".parse()?;
    serve(|case, len, times| {
        let once = |_| {
            let body = MessageBody::try_from("x".repeat(len))?;
            let began = now();
            let number = end.send(&to, body);
            let (came, receipt) = wait_for_both(&mut end, number)?;
            let until = if case == "receipt" { receipt } else { came };
            Ok(until.saturating_duration_since(began))
        };
        (0..times).map(once).collect()
    })
}

/// Waits for the answer and for the receipt, so that one measurement does not disturb the next.
fn wait_for_both(end: &mut End, number: u64) -> Result<(Instant, Instant), Fault> {
    let mut id: Option<MessageId> = None;
    let mut receipts = BTreeMap::new();
    let mut came = None;
    end.wait(|end, event| {
        match event {
            Some(Event::Message(_)) => came = Some(now()),
            Some(Event::MessageState {
                id,
                state: MessageState::Delivered,
                ..
            }) => {
                receipts.insert(*id, now());
            }
            Some(_) => {}
            None => {
                if let Some(Reply::Queued(ids)) = end.heard.remove(&number) {
                    id = ids.first().copied();
                }
            }
        }
        let receipt = id.and_then(|id| receipts.get(&id).copied())?;
        Some((came?, receipt))
    })
}
