//! From the start of a program to its answer: the server until it is ready, and `peer list` of an
//! enrolled device from start to exit.

use std::fs;

use super::report::{Figure, Report, Series};
use super::{Failure, Plan, stage};
use crate::program::{Program, Programs, now};

pub(super) fn measure(plan: &Plan, report: &mut Report) -> Result<(), Failure> {
    let folder = stage::memory_folder()?;
    let programs = Programs::new(std::env::current_exe()?, folder.path());
    fs::write(folder.path().join("password"), "a password of the bench")?;
    let first = programs.serve("server", &[])?;
    let (address, fingerprint) = (first.address.clone(), first.fingerprint.clone());
    let register = [
        "--profile",
        "./alice",
        "register",
        "alice",
        "--server",
        &address,
        "--fingerprint",
        &fingerprint,
        "--password-file",
        "password",
    ];
    check(programs.run(Program::Peer, register)?)?;
    first.running.interrupt()?;

    let mut ready = Vec::new();
    let mut list = Vec::new();
    for round in 0..=plan.rounds {
        let began = now();
        let server = programs.serve("server", &["--listen", &address])?;
        let until_ready = now().saturating_duration_since(began);
        let began = now();
        check(programs.run(Program::Peer, ["--profile", "./alice", "list"])?)?;
        let until_listed = now().saturating_duration_since(began);
        server.running.interrupt()?;
        if round > 0 {
            ready.push(until_ready.as_secs_f64() * 1e3);
            list.push(until_listed.as_secs_f64() * 1e3);
        }
    }
    for (case, values) in [("ready", ready), ("list", list)] {
        let ours = Series {
            name: "ours",
            values,
        };
        report.show(&Figure {
            bench: "start",
            case,
            unit: "ms",
            ours,
            baseline: None,
        });
    }
    Ok(())
}

fn check(finished: crate::program::Finished) -> Result<(), Failure> {
    match finished.code() {
        0 => Ok(()),
        code => Err(Failure::Wrong(format!(
            "exit code {code}: {}",
            finished.stderr
        ))),
    }
}
