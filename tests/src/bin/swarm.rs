//! Runs many seeds of the simulated world and says which of them fail.

use std::process::ExitCode;

fn main() -> ExitCode {
    tests::swarm::main()
}
