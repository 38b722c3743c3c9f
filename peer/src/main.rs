//! The program `peer`.

use std::process::ExitCode;

fn main() -> ExitCode {
    peer::commands::main(std::env::args_os())
}
