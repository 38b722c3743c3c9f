//! The program with profiles that are missing, new, newer, damaged or in use, without a server.

use std::fs::{self, File, Permissions};
use std::io::Write;
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// A fingerprint that no server here has.
const FINGERPRINT: &str = "SHA256:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

/// A home folder of its own for each test.
struct Home {
    folder: tempfile::TempDir,
}

impl Home {
    fn new() -> Self {
        Self {
            folder: tempfile::tempdir().expect("a folder for the test"),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_peer"));
        command
            .args(arguments)
            .env_clear()
            .env("HOME", self.folder.path())
            .env("PEER_PROFILE", self.path("profile"))
            // Nothing leaves this machine.
            .env("PEER_NO_LAN", "1")
            .env("PEER_NO_PORT_MAPPING", "1")
            .current_dir(self.folder.path())
            .stdin(Stdio::null());
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments)
            .output()
            .expect("the program starts")
    }

    /// Runs a command that fails with `code`, and returns what it says.
    fn fails(&self, code: i32, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let message = String::from_utf8(output.stderr).expect("the program writes UTF-8");
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {message}");
        for part in ["error:", "why:", "next:"] {
            assert!(
                message.contains(part),
                "{arguments:?} has no {part} {message}"
            );
        }
        message
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().expect("a file has a folder")).expect("a folder");
        let mut file = File::create(&path).expect("the test can use its folder and the loopback");
        file.set_permissions(Permissions::from_mode(0o600))
            .expect("the test can use its folder and the loopback");
        file.write_all(text.as_bytes())
            .expect("the test can use its folder and the loopback");
        path
    }

    fn set_up(&self, server: &str) {
        self.write(
            "profile/profile.toml",
            &format!(
                "version = 1\nserver = '{server}'\ntrust = 'pinned'\naccount = 'alice'\ndevice_name = 'here'\n"
            ),
        );
        self.write(
            "profile/known_servers",
            &format!("{server} {FINGERPRINT}\n"),
        );
    }
}

/// An address of this machine where nobody listens.
fn closed_port() -> String {
    let listener =
        TcpListener::bind("127.0.0.1:0").expect("the test can use its folder and the loopback");
    listener
        .local_addr()
        .expect("the test can use its folder and the loopback")
        .to_string()
}

fn all_files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("the test can use its folder and the loopback");
    entries
        .map(|entry| {
            entry
                .expect("the test can use its folder and the loopback")
                .path()
        })
        .collect()
}

#[test]
fn without_a_profile_nothing_is_done_and_the_way_is_told() {
    let home = Home::new();
    for arguments in [
        &["status"][..],
        &["list"],
        &["logout"],
        &["admit"],
        &["chat"],
        &["history"],
        &["receive"],
        &["send", "bob", "hi"],
    ] {
        let message = home.fails(10, arguments);
        assert!(
            message.contains("peer register NAME --server HOST"),
            "{message}"
        );
    }
    assert!(!home.path("profile").exists());
}

#[test]
fn a_device_that_is_not_logged_in_says_so() {
    let home = Home::new();
    home.set_up(&closed_port());
    let message = home.fails(10, &["list"]);
    assert!(message.contains("peer login"), "{message}");
}

#[test]
fn the_first_time_a_server_must_be_named() {
    let home = Home::new();
    let message = home.fails(2, &["login", "alice"]);
    assert!(message.contains("--server"), "{message}");
}

#[test]
fn an_unknown_server_key_is_not_trusted_without_a_person() {
    let home = Home::new();
    let message = home.fails(6, &["login", "alice", "--server", &closed_port()]);
    assert!(message.contains("--fingerprint"), "{message}");
    assert!(!home.path("profile/known_servers").exists());
}

#[test]
fn another_fingerprint_than_the_known_one_is_refused() {
    let home = Home::new();
    let server = closed_port();
    home.set_up(&server);
    let other = FINGERPRINT.replace("AAAAAAA", "BBBBBBB");
    let message = home.fails(6, &["login", "alice", "--fingerprint", &other]);
    assert!(
        message.contains(&format!("peer forget-server {server}")),
        "{message}"
    );
    let unasked = home.fails(2, &["forget-server", &server]);
    assert!(unasked.contains("--yes"), "{unasked}");
    let forgotten = home.run(&["forget-server", &server, "--yes"]);
    assert_eq!(forgotten.status.code(), Some(0));
    home.fails(1, &["forget-server", &server]);
}

#[test]
fn an_unreachable_server_has_its_exit_code_and_leaves_no_half_profile() {
    let home = Home::new();
    let password = home.write("password", "correct horse battery\n");
    let password = password.to_str().unwrap();
    let server = closed_port();
    let arguments = ["register", "alice", "--server", &server];
    let pinned = ["--fingerprint", FINGERPRINT, "--password-file", password];
    let message = home.fails(5, &[&arguments[..], &pinned].concat());
    assert!(message.contains("127.0.0.1"), "{message}");
    assert!(!home.path("profile/profile.toml").exists());
}

#[test]
fn t33_a_crash_leaves_no_core_dump() {
    let home = Home::new();
    let server = TcpListener::bind("127.0.0.1:0").expect("loopback");
    let address = server.local_addr().expect("it is bound").to_string();
    fs::write(home.path("typed"), "correct horse").expect("the folder is there");
    fs::set_permissions(home.path("typed"), Permissions::from_mode(0o600)).expect("it is ours");
    let mut peer = home
        .command(&[
            "register",
            "alice",
            "--server",
            &address,
            "--fingerprint",
            FINGERPRINT,
            "--password-file",
            "typed",
        ])
        .stderr(Stdio::null())
        .spawn()
        .expect("the program starts");
    // It waits for this server, and so for as long as it takes to look.
    let silent = server.accept();
    let limits = fs::read_to_string(format!("/proc/{}/limits", peer.id()));
    peer.kill().expect("it runs");
    peer.wait().expect("it was started here");
    silent.expect("it connected");
    let limits = limits.expect("it ran");
    let line = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max core file size"));
    let words: Vec<_> = line.expect("Linux has it").split_whitespace().collect();
    assert_eq!(words[..2], ["0", "0"], "soft and hard");
}

#[test]
fn t33_the_password_is_nowhere_and_all_files_are_private() {
    let home = Home::new();
    let password = home.write("password", "correct horse battery\n");
    let server = closed_port();
    let output = home
        .command(&["-vv", "register", "alice", "--server", &server])
        .args(["--fingerprint", FINGERPRINT, "--password-file"])
        .arg(&password)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(5));
    let mut said = [output.stdout, output.stderr];
    let profile = home.path("profile");
    assert_eq!(fs::metadata(&profile).unwrap().mode() & 0o777, 0o700);
    let files = all_files(&profile);
    assert!(files.iter().any(|file| file.ends_with("device-key")));
    for file in files {
        assert_eq!(
            fs::metadata(&file).unwrap().mode() & 0o777,
            0o600,
            "{}",
            file.display()
        );
        said[0].extend(fs::read(&file).unwrap_or_default());
    }
    for bytes in said {
        assert!(!String::from_utf8_lossy(&bytes).contains("correct horse"));
    }
}

#[test]
fn a_missing_password_file_is_a_file_problem() {
    let home = Home::new();
    let arguments = [
        "login",
        "alice",
        "--server",
        "127.0.0.1:9",
        "--fingerprint",
        FINGERPRINT,
    ];
    let message = home.fails(8, &[&arguments[..], &["--password-file", "none"]].concat());
    assert!(message.contains("none"), "{message}");
}

#[test]
fn a_password_file_that_others_can_read_is_warned_about() {
    let home = Home::new();
    let path = home.write("password", "correct horse battery\n");
    fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
    let server = closed_port();
    let arguments = [
        "login",
        "alice",
        "--server",
        &server,
        "--fingerprint",
        FINGERPRINT,
    ];
    let message = home.fails(
        5,
        &[&arguments[..], &["--password-file", "password"]].concat(),
    );
    assert!(message.contains("chmod 600"), "{message}");
}

#[test]
fn a_short_password_is_refused_before_anything_is_sent() {
    let home = Home::new();
    home.write("password", "short\n");
    let arguments = [
        "register",
        "alice",
        "--server",
        "127.0.0.1:9",
        "--fingerprint",
        FINGERPRINT,
    ];
    let message = home.fails(
        2,
        &[&arguments[..], &["--password-file", "password"]].concat(),
    );
    assert!(message.contains("at least 8 characters"), "{message}");
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let home = Home::new();
    let message = home.fails(8, &["send-file", "bob", "no/such\u{1b}file"]);
    assert!(message.contains("no/such␛file"), "{message}");
    home.fails(8, &["send-file", "bob", "."]);
    home.fails(8, &["receive", "--folder", "none"]);
}

#[test]
fn a_newer_profile_is_refused_untouched() {
    let home = Home::new();
    let newer = "version = 2\nsomething = 'new'\n";
    let path = home.write("profile/profile.toml", newer);
    for arguments in [&["status"][..], &["send", "bob", "hi"], &["login", "alice"]] {
        let message = home.fails(11, arguments);
        assert!(message.contains("newer"), "{message}");
    }
    assert_eq!(fs::read_to_string(&path).unwrap(), newer);
    assert_eq!(all_files(path.parent().unwrap()).len(), 1);
}

#[test]
fn a_damaged_profile_is_named() {
    let home = Home::new();
    let path = home.write("profile/profile.toml", "version = 1\nserver = 7\n");
    let message = home.fails(11, &["status"]);
    assert!(message.contains("profile.toml"), "{message}");
    fs::remove_file(path).unwrap();
    home.set_up("127.0.0.1:9");
    home.write("profile/device-key", "nonsense\n");
    let message = home.fails(11, &["status"]);
    assert!(message.contains("device-key"), "{message}");
}

#[test]
fn a_profile_of_another_account_is_not_mixed_up() {
    let home = Home::new();
    home.set_up("127.0.0.1:9");
    let message = home.fails(11, &["login", "bob"]);
    assert!(message.contains("--profile bob"), "{message}");
}

#[test]
fn a_profile_whose_owner_does_not_answer_is_given_up() {
    let home = Home::new();
    home.set_up("127.0.0.1:9");
    let lock = File::create(home.path("profile/lock")).unwrap();
    lock.try_lock().unwrap();
    let message = home.fails(11, &["status"]);
    assert!(
        message.contains("in use by another process that does not answer"),
        "{message}"
    );
}

#[test]
fn programs_get_failures_as_json() {
    let home = Home::new();
    let output = home.run(&["--json", "list"]);
    assert_eq!(output.status.code(), Some(10));
    let line = String::from_utf8(output.stdout).unwrap();
    let object: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!(object["error"]["exit"], 10);
    for part in ["what", "why", "next"] {
        assert!(object["error"][part].is_string(), "{line}");
    }
    assert!(output.stderr.is_empty());
}

#[test]
fn a_wrong_choice_behind_accept_is_a_usage_error() {
    let home = Home::new();
    home.set_up("127.0.0.1:9");
    for arguments in [
        &["receive", "--accept", "maybe"][..],
        &["receive", "--accept", "from"],
    ] {
        let message = home.fails(2, arguments);
        assert!(message.contains("--accept"), "{message}");
    }
}
