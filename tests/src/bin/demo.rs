//! Shows the messenger working, with the real programs, in a temporary folder on this machine.

use std::process::ExitCode;

fn main() -> ExitCode {
    tests::program::dispatch().unwrap_or_else(tests::demo::main)
}
