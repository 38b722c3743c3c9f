//! The bench: ours and a baseline in one run, interleaved, medians.
//!
//! An absolute time proves little on a shared machine, so every figure with a baseline is a ratio of
//! two measurements that were made right after one another on the same named cores. What is given is
//! the median of the rounds, with the lowest and the highest of them.

use std::process::ExitCode;

use clap::{Parser, ValueEnum};

use crate::program::ProgramError;

// coturn, with which the server's UDP port is compared.
mod coturn;
// One GiB from disk to disk.
mod file;
// A process that makes load.
mod load;
// A plain file sender on quinn, the baseline of `file`.
pub mod quinn_sender;
// Server CPU of log-ins.
pub mod login;
// A message there and back.
pub mod message;
// A message there and back on a stream of quinn, the baseline of `message`.
mod quinn_stream;
// Packets through the relay.
pub mod relay;
// Rounds of slices, and the arithmetic on them.
mod rounds;
// What is shown at the end.
mod report;
// From the start of a program to its answer.
mod start;
// Answers of the server's UDP port.
pub mod stun;
// Where programs run: cores, CPU time, namespaces, warm memory.
mod stage;

use report::Report;

/// Measures the messenger against baselines, in one run.
#[derive(Debug, Parser)]
#[command(
    name = "bench",
    after_help = "\
Examples:
  cargo measure file                  short for the command in tests/benches/README.md
  cargo measure file --size 256 --rounds 5 --json
  cargo measure start --cores 2,3"
)]
struct Arguments {
    /// What to measure
    #[arg(value_enum)]
    name: Name,
    /// One line of JSON for each figure
    #[arg(long)]
    json: bool,
    /// The two cores that the two sides run on
    #[arg(long, value_name = "CORE,CORE", default_value = "0,1", value_parser = cores)]
    cores: [usize; 2],
    /// Rounds of ours and the baseline
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Slices of a round, each with every side once; each bench has its own number
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1000))]
    slices: Option<u32>,
    /// Size of the file in MiB
    #[arg(long, default_value_t = 1024, value_parser = clap::value_parser!(u64).range(1..=16384))]
    size: u64,
}

/// What can be measured.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Name {
    /// A message there and back, and its receipt, against a stream of quinn; raw UDP beside it
    Message,
    /// A file from one peer to another, verified, against a plain sender on quinn; and through the relay
    File,
    /// Server CPU of a password and a token log-in, against the cryptography that they cannot do without
    Login,
    /// The server until it is ready; `peer list` from start to exit
    Start,
    /// STUN answers a second and core of the server, against coturn
    Stun,
    /// Relayed packets of 1200 bytes a second and core of the server, against coturn
    Relay,
}

/// How to measure.
#[derive(Clone, Copy, Debug)]
struct Plan {
    cores: [usize; 2],
    rounds: u32,
    slices: Option<u32>,
    file_len: u64,
}

impl Plan {
    /// Slices of a round, if nobody asked for another number.
    fn slices(&self, usual: u32) -> u32 {
        self.slices.unwrap_or(usual)
    }
}

/// Parses two cores that this process may use.
fn cores(text: &str) -> Result<[usize; 2], String> {
    let parsed = text
        .split_once(',')
        .and_then(|(first, second)| Some([first.parse().ok()?, second.parse().ok()?]));
    let Some(cores) = parsed else {
        return Err("two numbers with a comma in between, for example 0,1".to_owned());
    };
    let count = std::thread::available_parallelism().map_or(usize::MAX, usize::from);
    match cores.iter().find(|core| **core >= count) {
        Some(core) => Err(format!(
            "there is no core {core}: they count from 0 to {}",
            count - 1
        )),
        None => Ok(cores),
    }
}

/// Runs the bench.
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let plan = Plan {
        cores: arguments.cores,
        rounds: arguments.rounds,
        slices: arguments.slices,
        file_len: arguments.size << 20,
    };
    let mut report = Report::new(arguments.json);
    let measured = match arguments.name {
        Name::Message => message::measure(&plan, &mut report),
        Name::File => file::measure(&plan, &mut report),
        Name::Login => login::measure(&plan, &mut report),
        Name::Start => start::measure(&plan, &mut report),
        Name::Stun => stun::measure(&plan, &mut report),
        Name::Relay => relay::measure(&plan, &mut report),
    };
    match measured {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            report.failed(&failure);
            ExitCode::FAILURE
        }
    }
}

/// A measurement did not work out.
#[derive(Debug, thiserror::Error)]
enum Failure {
    /// A program did not do what it should.
    #[error("{0}")]
    Program(#[from] ProgramError),
    /// A file of the bench, or a tool that it needs.
    #[error("a file or tool of the bench: {0}")]
    System(#[from] std::io::Error),
    /// Something came out that cannot be.
    #[error("{0}")]
    Wrong(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_cores_are_parsed_and_must_be_there() {
        assert_eq!(cores("0,0"), Ok([0, 0]));
        for wrong in ["", "0", "0,", "a,b", "0,1,2", "-1,0"] {
            assert!(
                cores(wrong).unwrap_err().starts_with("two numbers"),
                "{wrong}"
            );
        }
        assert!(cores("0,999999").unwrap_err().contains("no core 999999"));
        Arguments::try_parse_from(["bench", "start", "--cores", "0,0"]).unwrap();
    }

    #[test]
    fn numbers_out_of_their_bounds_are_refused() {
        for (option, wrong) in [
            ("--rounds", "0"),
            ("--rounds", "101"),
            ("--slices", "0"),
            ("--slices", "1001"),
            ("--slices", "-1"),
            ("--size", "0"),
            ("--size", "many"),
        ] {
            let arguments = ["bench", "message", option, wrong];
            assert!(
                Arguments::try_parse_from(arguments).is_err(),
                "{option} {wrong}"
            );
        }
    }
}
