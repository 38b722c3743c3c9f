//! Each bench runs for a moment: what its figures are is of no interest here, that it has them all is.

use std::process::{Command, Output};

use serde_json::Value;

const BENCH: &str = env!("CARGO_BIN_EXE_bench");

/// Runs it, and makes sure that it leaves no process behind.
fn run(arguments: &[&str]) -> Output {
    let mark = format!("{}-{}", std::process::id(), arguments.join("-"));
    let mut command = Command::new(BENCH);
    command.args(arguments).env(MARK, &mark);
    let output = command.output().expect("the bench starts");
    assert_eq!(running(&format!("{MARK}={mark}")), 0, "{arguments:?}");
    output
}

/// In the environment of a bench and of all processes that it starts.
const MARK: &str = "BENCH_UNDER_TEST";

/// How many processes have this in their environment.
fn running(mark: &str) -> usize {
    let processes = std::fs::read_dir("/proc").expect("this is Linux");
    let environments = processes.filter_map(|process| {
        // It may have ended, or be somebody else's.
        std::fs::read(process.ok()?.path().join("environ")).ok()
    });
    let has_it = |environment: &Vec<u8>| {
        let mut variables = environment.split(|byte| *byte == 0);
        variables.any(|variable| variable == mark.as_bytes())
    };
    environments.filter(has_it).count()
}

/// Runs a bench with as little as it can do, and returns its cases, each with a value that is one.
fn cases(name: &str) -> Vec<String> {
    let short = "--json --rounds 1 --slices 1 --size 1 --cores 0,0";
    let mut arguments = vec![name];
    arguments.extend(short.split(' '));
    let output = run(&arguments);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}");
    text.lines()
        .map(|line| {
            let line: Value = serde_json::from_str(line).expect("a line of JSON");
            assert_eq!(line["bench"], name);
            let is_skipped = line["skipped"].is_string();
            let is_measured = line["value"].as_f64().is_some_and(|value| value >= 0.0);
            assert!(is_skipped || is_measured, "{line}");
            line["case"].as_str().expect("a case").to_owned()
        })
        .collect()
}

#[test]
fn messages_are_measured() {
    assert_eq!(cases("message"), ["64B", "4KiB", "receipt"]);
}

#[test]
fn files_are_measured() {
    let cases = cases("file");
    let all = ["loopback", "mtu1500", "relayed"];
    // Without the right to make network namespaces the last two are skipped.
    let measured = if cases.len() == 4 { 1 } else { 3 };
    let expected = all.iter().enumerate().flat_map(|(number, case)| {
        let cpu = (number < measured).then(|| format!("{case}-cpu"));
        [(*case).to_owned()].into_iter().chain(cpu)
    });
    assert_eq!(cases, expected.collect::<Vec<_>>());
}

#[test]
fn log_ins_are_measured() {
    let floor = ["floor-tls", "floor-opaque", "floor-ed25519"];
    assert_eq!(
        cases("login"),
        [&["password", "token", "connect"][..], &floor].concat()
    );
}

#[test]
fn starts_are_measured() {
    assert_eq!(cases("start"), ["ready", "list"]);
}

#[test]
fn stun_answers_are_measured() {
    // Skipped, which is one line, too, where coturn is not there.
    assert_eq!(cases("stun"), ["binding"]);
}

#[test]
fn relayed_packets_are_measured() {
    assert_eq!(cases("relay"), ["single", "trains"]);
}

#[test]
fn wrong_arguments_are_refused_and_explained() {
    for (arguments, why) in [
        (&["nothing"][..], "possible values"),
        (&["file", "--cores", "0"], "two numbers with a comma"),
        (&["file", "--cores", "0,9999"], "there is no core 9999"),
        (&["message", "--rounds", "0"], "not in 1..=100"),
        (&["message", "--slices", "0"], "not in 1..=1000"),
        (&["file", "--size", "99999"], "not in 1..=16384"),
    ] {
        let output = run(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(text.contains(why), "{text}");
    }
}
