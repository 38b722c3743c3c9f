//! From the start of a program to its answer: the server until it is ready, and `peer list` of an
//! enrolled device from start to exit.

use std::fs;

use super::report::{Figure, Report};
use super::rounds::Rounds;
use super::{Failure, Plan, stage};
use crate::program::{Program, Programs, now};

/// Slices of a round: the server once, `peer list` once.
const SLICES: u32 = 7;

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

    let once = |_| {
        let began = now();
        let server = programs.serve("server", &["--listen", &address])?;
        let until_ready = now().saturating_duration_since(began);
        let began = now();
        check(programs.run(Program::Peer, ["--profile", "./alice", "list"])?)?;
        let until_listed = now().saturating_duration_since(began);
        server.running.interrupt()?;
        Ok([until_ready, until_listed].map(|time| time.as_secs_f64() * 1e3))
    };
    let rounds = Rounds::<[[f64; 2]; 1]>::measure(plan.rounds, plan.slices(SLICES), once)?;
    for (which, case) in ["ready", "list"].into_iter().enumerate() {
        report.show(&Figure {
            bench: "start",
            case,
            unit: "ms",
            sides: ["ours"],
            rounds: &rounds.map(|[times]| [times[which]]),
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
