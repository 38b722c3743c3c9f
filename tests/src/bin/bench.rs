//! Measures the messenger against baselines.

use std::process::ExitCode;

fn main() -> ExitCode {
    tests::program::dispatch().unwrap_or_else(tests::bench::main)
}
