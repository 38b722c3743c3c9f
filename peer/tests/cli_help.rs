//! What the program says about itself, and to whoever mistypes.

use std::fs::File;
use std::process::{Command, Output};

fn peer(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_peer"))
        .args(arguments)
        .env_remove("PEER_PROFILE")
        .env_remove("PEER_UDP")
        .output()
        .expect("the program starts")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("the program writes UTF-8")
}

/// The commands that `peer --help` lists.
fn commands() -> Vec<String> {
    let help = text(&peer(&["--help"]).stdout);
    let list = help
        .split("Commands:\n")
        .nth(1)
        .expect("a list of commands");
    let list = list.split("\n\n").next().expect("an end of the list");
    let names = list.lines().filter_map(|line| {
        let row = line
            .strip_prefix("  ")
            .filter(|row| !row.starts_with(' '))?;
        row.split(' ').next().map(str::to_owned)
    });
    names.collect()
}

#[test]
fn help_lists_every_command_and_every_exit_code() {
    let output = peer(&["--help"]);
    assert_eq!(output.status.code(), Some(0));
    let help = text(&output.stdout);
    let commands = commands();
    assert!(
        commands.len() >= 12 && commands.contains(&"chat".to_owned()),
        "{help}"
    );
    let codes = help
        .split("Exit codes:\n")
        .nth(1)
        .expect("a list of exit codes");
    let codes = codes.split("\n\n").next().expect("an end of the list");
    for code in (0..=11).chain([130, 143]) {
        assert!(codes.contains(&format!(" {code}  ")), "{code}: {codes}");
    }
    assert!(help.contains("First steps:"));
}

#[test]
#[cfg_attr(
    not(target_os = "linux"),
    ignore = "a device that is always full exists on Linux only"
)]
fn help_that_is_lost_is_a_failure() {
    let full = File::options()
        .write(true)
        .open("/dev/full")
        .expect("Linux has it");
    let output = Command::new(env!("CARGO_BIN_EXE_peer"))
        .arg("--help")
        .stdout(full)
        .output()
        .expect("the program starts");
    assert_eq!(output.status.code(), Some(8));
    let said = text(&output.stderr);
    assert!(
        said.contains("could not write to standard output"),
        "{said}"
    );
}

#[test]
fn every_command_explains_itself_and_takes_the_common_options() {
    for command in commands().into_iter().filter(|name| name != "help") {
        let output = peer(&[&command, "--help"]);
        assert_eq!(output.status.code(), Some(0), "{command}");
        let asked = peer(&["help", &command]);
        assert_eq!(asked.stdout, output.stdout, "{command}");
        let help = text(&output.stdout);
        assert!(
            help.contains("--json") && help.contains("--profile"),
            "{command}"
        );
        let is_plain = matches!(command.as_str(), "logout" | "status");
        assert!(is_plain || help.contains("Example"), "{command}: {help}");
    }
}

#[test]
fn without_a_command_the_help_is_shown() {
    let output = peer(&[]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("First steps:"));
}

#[test]
fn the_version_is_told() {
    let output = peer(&["--version"]);
    assert_eq!(output.status.code(), Some(0));
    let version = concat!("peer ", env!("CARGO_PKG_VERSION"), "\n");
    assert_eq!(text(&output.stdout), version);
}

#[test]
fn what_the_environment_sets_is_no_part_of_a_usage() {
    let output = Command::new(env!("CARGO_BIN_EXE_peer"))
        .args(["send-file", "bob"])
        .env("PEER_PROFILE", "work")
        .env("PEER_UDP", "127.0.0.1:0")
        .output()
        .expect("the program starts");
    assert_eq!(output.status.code(), Some(2));
    let complaint = text(&output.stderr);
    let usage = "Usage: peer send-file <NAME> <PATH>\n";
    assert!(complaint.contains(usage), "{complaint}");
}

#[test]
fn a_mistake_is_answered_with_an_example() {
    for (arguments, example) in [
        (&["send"][..], "peer send bob See you at eight."),
        (&["send-file", "bob"], "peer send-file bob holiday.mp4"),
        (&["login", "a/b"], "peer login alice --server"),
        (&["register"], "peer register alice --server"),
        (
            &["history", "--limit", "x"],
            "peer history bob --since yesterday --limit 100",
        ),
        (&["nonsense"], "peer register alice --server"),
    ] {
        let output = peer(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        let message = text(&output.stderr);
        assert!(message.contains("error:"), "{arguments:?}: {message}");
        assert!(
            message.contains(&format!("Example: {example}")),
            "{arguments:?}: {message}"
        );
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn without_a_text_it_is_the_text_that_is_missing() {
    for arguments in [
        &["send", "bob"][..],
        &["send", "--to", "bob"],
        &["send", "bob", "--no-wait"],
    ] {
        let output = peer(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        let expected = "error: could not send a text\n  why: the TEXT for bob is missing\n next: add it: peer send bob 'See you at eight.'\n";
        assert_eq!(text(&output.stderr), expected, "{arguments:?}");
    }
}

#[test]
fn t33_a_password_is_no_argument() {
    for arguments in [
        &["login", "alice", "--password", "hunter22"][..],
        &["register", "alice", "-p", "hunter22"],
        &["login", "alice", "hunter22"],
    ] {
        assert_eq!(peer(arguments).status.code(), Some(2), "{arguments:?}");
    }
}
