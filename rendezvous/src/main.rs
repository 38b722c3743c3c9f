//! The `rendezvous` program; see [`rendezvous::shell::main`].

fn main() -> std::process::ExitCode {
    rendezvous::shell::main(std::env::args_os())
}
