//! For tests: how much memory this process really has, and a process in which nothing else runs.

use std::process::Command;

/// Set in a process that was started for one test.
const ALONE: &str = "TEST_RUNS_ALONE";

/// Resident memory of this process in bytes.
pub(super) fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux has it");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB"));
    let kib: u64 = kib.and_then(|kib| kib.parse().ok()).expect("a number");
    kib << 10
}

/// Tells whether this process runs nothing but the test of that full name. If not, it first runs it in
/// one that does, and fails where that fails.
pub(super) fn is_alone(test: &str) -> bool {
    if std::env::var_os(ALONE).is_some() {
        return true;
    }
    let program = std::env::current_exe().expect("a test has a program");
    let done = Command::new(program)
        .args(["--exact", test, "--nocapture"])
        .env(ALONE, "1")
        .output()
        .expect("it runs");
    let text = String::from_utf8_lossy(&done.stdout);
    assert!(
        done.status.success() && text.contains("test result: ok. 1 passed"),
        "{text}{}",
        String::from_utf8_lossy(&done.stderr)
    );
    false
}
