//! Relayed packets of 1200 bytes for each second of CPU that the server uses, against coturn.
//!
//! Between two peers, our relay is one hop: both send to it and receive from it. So coturn gets what a user of
//! TURN has between two peers: one of them has an allocation, and a channel bound to the other's plain address
//! (ChannelData, RFC 8656). With an allocation at either end each packet would pass coturn twice. What a TURN
//! client sends costs coturn something else than what it receives, so every second flow goes the other way.
//!
//! Several flows take turns, each with a burst of ten packets: so many may a QUIC sender that
//! paces itself send at once (RFC 9002 section 7.7). There are two cases. In `single`, each packet is handed
//! to the system by itself, as senders do that cannot do better, and comes to the server by itself. In
//! `trains`, a burst is one train (GSO), as our peers send it; it comes to the server whole, where that wants it
//! so (GRO). Both servers get the same of either. Receivers take single packets in both: the system cuts up
//! what a server sends as a train, and that counts as the server's CPU, as it does on a
//! network card that cannot cut.
//!
//! What is wanted is the CPU that a packet takes when the server is busy, and a load that shares a core with the
//! server keeps it so: it sends all it may, and only while it waits for that to arrive does the server
//! run, which has all of it to do then. On a core of its own the load would be slower than the server.
//!
//! A flow has no more packets on their way than buffers hold. What gets lost nevertheless is shown beside
//! the rate, which counts what arrives; a slice that loses more than one in a hundred is none.

use std::io::{self, ErrorKind};
use std::net::{SocketAddr, UdpSocket};
use std::process::{Command, ExitCode};
use std::time::Duration;

use common::os::udp::{Train, TrainSocket};
use serde_json::{Value, json};

use super::coturn::Coturn;
use super::load::{self, Load};
use super::report::{Figure, Report};
use super::rounds::Rounds;
use super::stage::{self, Place, thread_cpu_seconds};
use super::{Failure, Plan};
use crate::program::{Program, Programs, START};
use crate::wire_client::Target;

// Flows through our relay.
mod channel;
// Flows through TURN.
mod turn;

/// Flows, each from a peer of its own to another.
const FLOWS: usize = 8;
/// Packets that a flow sends at once.
const BURST: usize = 10;
/// Packets of a flow that may be on their way: no socket buffer is too small for them.
const WINDOW: usize = 2 * BURST;
/// Times in one slice that all flows send as much as may be on its way.
const WINDOWS: usize = 625;
/// Slices of a round.
const SLICES: u32 = 5;
/// Bytes of a packet, without what a relay puts in front.
const PACKET_LEN: usize = 1200;
/// What does not arrive for so long is lost.
const GRACE: Duration = Duration::from_millis(500);
/// The largest share of a slice's packets that may be lost.
const LOST_MAX: f64 = 0.01;

/// What one slice came to.
#[derive(Clone, Copy)]
struct Run {
    /// Packets that arrived, in thousands for each second of CPU.
    rate: f64,
    /// Packets that did not, in percent.
    lost: f64,
}

/// A server, and the process whose flows go through it.
struct Side {
    process: u32,
    load: Load,
}

pub(super) fn measure(plan: &Plan, report: &mut Report) -> Result<(), Failure> {
    let folder = stage::memory_folder()?;
    let programs = Programs::new(std::env::current_exe()?, folder.path());
    let place = Place {
        core: plan.cores[0],
        namespace: None,
    };
    let coturn = match Coturn::start(&place, folder.path(), &turn::OPTIONS)? {
        Ok(coturn) => coturn,
        Err(why) => {
            for pattern in Pattern::ALL {
                report.skipped("relay", pattern.name(), &why);
            }
            return Ok(());
        }
    };
    // No limit of ours is to be met, and coturn has one thread, too.
    let options = "--relay-rate 30000 --relay-total 30000 --udp-threads 1";
    let options: Vec<&str> = options.split_whitespace().collect();
    let server = stage::serve(&programs, &place, "127.0.0.1", &options)?;
    let load = |arguments: &[&str]| {
        let mut load = Load::start(&programs, &place, Program::RelayLoad, arguments)?;
        // Ready once it has done nothing.
        load.slice(READY)?;
        Ok::<_, Failure>(load)
    };
    let mut sides = [
        Side {
            process: server.running.id(),
            load: load(&[CHANNEL, &server.address, &server.fingerprint])?,
        },
        Side {
            process: coturn.id(),
            load: load(&[TURN, &coturn.address().to_string()])?,
        },
    ];
    for side in &sides {
        yield_to_load(side.process)?;
    }
    for pattern in Pattern::ALL {
        let rounds = Rounds::<[Run; 2]>::measure(plan.rounds, plan.slices(SLICES), |side| {
            sides[side].run(pattern)
        })?;
        report.show(&Figure {
            bench: "relay",
            case: pattern.name(),
            unit: "k/s",
            sides: ["ours", "coturn", "lost %", "lost by coturn %"],
            rounds: &rounds.map(|[ours, theirs]| [ours.rate, theirs.rate, ours.lost, theirs.lost]),
        });
    }
    for side in sides {
        side.load.end()?;
    }
    server.running.interrupt()?;
    Ok(())
}

/// Has a server wait until the load waits: by itself the system would let it run as soon as there is
/// something to do, for each packet by itself.
fn yield_to_load(process: u32) -> Result<(), Failure> {
    let mut command = Command::new("chrt");
    command.args(["--all-tasks", "--batch", "--pid", "0", &process.to_string()]);
    let done = command.output()?;
    if done.status.success() {
        Ok(())
    } else {
        let why = String::from_utf8_lossy(&done.stderr).into_owned();
        Err(Failure::Wrong(why))
    }
}

impl Side {
    fn run(&mut self, pattern: Pattern) -> Result<Run, Failure> {
        let before = thread_cpu_seconds(self.process)?;
        let line = self.load.slice(pattern.name())?;
        let used = thread_cpu_seconds(self.process)? - before;
        let count = |name: &str| {
            let count = line[name].as_f64();
            count.ok_or_else(|| Failure::Wrong(format!("no {name} in {line}")))
        };
        let (sent, arrived) = (count("sent")?, count("arrived")?);
        let lost = 1.0 - arrived / sent;
        if lost > LOST_MAX {
            return Err(Failure::Wrong(format!("packets were lost: {line}")));
        }
        Ok(Run {
            rate: arrived / used / 1e3,
            lost: lost * 100.0,
        })
    }
}

// ---- the load ----------------------------------------------------------------------------------

/// The line that has the load do nothing.
const READY: &str = "ready";
/// The first argument of the load, which says what its flows go through.
const CHANNEL: &str = "channel";
const TURN: &str = "turn";

/// How packets are handed to the system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pattern {
    Single,
    Trains,
}

impl Pattern {
    const ALL: [Self; 2] = [Self::Single, Self::Trains];

    const fn name(self) -> &'static str {
        match self {
            Self::Single => "single",
            Self::Trains => "trains",
        }
    }
}

/// Packets from one peer to another, through a relay.
struct Flow {
    sender: TrainSocket,
    /// Where the sender sends to.
    relay: SocketAddr,
    /// What is in front of each packet that is sent.
    header: Vec<u8>,
    /// A burst of the slice, as it is sent.
    burst: Vec<u8>,
    receiver: UdpSocket,
    /// The length of what is in front of each packet that arrives.
    arriving_header_len: usize,
}

/// Runs as the load, `channel ADDRESS FINGERPRINT` or `turn ADDRESS`: makes a slice of the pattern of each
/// line of standard input.
pub fn load(arguments: &[String]) -> ExitCode {
    let mut flows = match Through::parse(arguments).and_then(|through| through.flows()) {
        Ok(flows) => flows,
        Err(failure) => return load::failed(&failure),
    };
    let mut slices = 0;
    load::serve(|line| {
        let pattern = Pattern::ALL.into_iter().find(|it| it.name() == line);
        let Some(pattern) = pattern else {
            return Ok(json!({ "ready": true }));
        };
        slices += 1;
        slice(&mut flows, pattern, slices)
    })
}

/// Which server the flows go through.
enum Through {
    Channels(Target),
    Turn(SocketAddr),
}

impl Through {
    fn parse(arguments: &[String]) -> Result<Self, Failure> {
        let wrong = || Failure::Wrong(format!("{arguments:?} is no load"));
        match arguments {
            [kind, address, fingerprint] if kind == CHANNEL => Ok(Self::Channels(Target {
                address: address.clone(),
                fingerprint: fingerprint.clone(),
            })),
            [kind, address] if kind == TURN => {
                Ok(Self::Turn(address.parse().map_err(|_| wrong())?))
            }
            _ => Err(wrong()),
        }
    }

    fn flows(&self) -> Result<Vec<Flow>, Failure> {
        (0..FLOWS)
            .map(|number| match self {
                Self::Channels(target) => channel::flow(target, number),
                Self::Turn(server) => turn::flow(*server, number % 2 == 1),
            })
            .collect()
    }
}

/// Sends [`WINDOWS`] windows, each once the one before has arrived or is lost.
fn slice(flows: &mut [Flow], pattern: Pattern, number: u64) -> Result<Value, Failure> {
    let packet = packet(number);
    flows.iter_mut().for_each(|flow| flow.begin(&packet));
    let mut arrived = 0;
    for _ in 0..WINDOWS {
        for _ in 0..WINDOW / BURST {
            flows.iter().for_each(|flow| flow.send(pattern));
        }
        // What was sent last arrives last: the server is not interrupted before.
        for flow in flows.iter().rev() {
            arrived += flow.receive(&packet)?;
        }
    }
    let sent = WINDOWS * WINDOW * flows.len();
    Ok(json!({ "sent": sent, "arrived": arrived }))
}

/// A packet that is of no other slice.
fn packet(slice: u64) -> Vec<u8> {
    let mut packet = slice.to_be_bytes().to_vec();
    packet.resize(PACKET_LEN, 0x5a);
    packet
}

impl Flow {
    /// A flow between two sockets of the loopback interface. `header` is in front of each packet that is sent
    /// to `relay`, and something of `arriving_header_len` in front of each that arrives.
    fn new(
        [sender, receiver]: [UdpSocket; 2],
        relay: SocketAddr,
        header: Vec<u8>,
        arriving_header_len: usize,
    ) -> io::Result<Self> {
        receiver.set_read_timeout(Some(GRACE))?;
        Ok(Self {
            sender: TrainSocket::over(sender, 1)?,
            relay,
            header,
            burst: Vec::new(),
            receiver,
            arriving_header_len,
        })
    }

    /// Begins a slice of these packets.
    fn begin(&mut self, packet: &[u8]) {
        self.burst = [&self.header, packet].concat().repeat(BURST);
    }

    /// Sends a burst. What the system has no room for is lost.
    fn send(&self, pattern: Pattern) {
        let len = self.header.len() + PACKET_LEN;
        let trains = match pattern {
            Pattern::Single => self.burst.chunks(len),
            Pattern::Trains => self.burst.chunks(self.burst.len()),
        };
        for bytes in trains {
            let train = Train {
                destination: self.relay,
                source: None,
                ecn: None,
                stride: (bytes.len() > len).then_some(len),
                bytes,
            };
            let _ = self.sender.sender().send(&train);
        }
    }

    /// Takes a window; returns how many of its packets arrived.
    fn receive(&self, packet: &[u8]) -> io::Result<usize> {
        let mut bytes = [0; 2 * PACKET_LEN];
        let mut count = 0;
        while count < WINDOW {
            match self.receiver.recv(&mut bytes) {
                Ok(len) => {
                    let arrived = bytes[..len].get(self.arriving_header_len..);
                    // What is late and of another slice was counted as lost.
                    count += usize::from(arrived == Some(packet));
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        Ok(count)
    }
}

/// A socket of a peer, which waits for what it receives.
fn socket() -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    socket.set_read_timeout(Some(START))?;
    Ok(socket)
}
