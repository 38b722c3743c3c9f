//! What goes wrong at the start.

use super::*;

#[test]
fn wrong_usage_is_exit_code_2_with_an_example() {
    let data = TempDir::new().unwrap();
    for (args, example) in [
        (&["serve", "--listen", "nowhere"][..], "serve"),
        (&["account", "add", "X Y"], "account add alice"),
        (&["conquer"], "serve"),
        (&["serve", "--registration", "invite"], "serve"),
    ] {
        let output = run(data.path(), args);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        let example = format!("Example: rendezvous {example}");
        assert!(text(&output.stderr).contains(&example), "{args:?}");
    }
    let help = run(data.path(), &["--help"]);
    assert_eq!(help.status.code(), Some(0));
    assert!(text(&help.stdout).contains("Exit codes:"));
}

#[test]
#[cfg_attr(
    not(target_os = "linux"),
    ignore = "a device that is always full exists on Linux only"
)]
fn output_that_is_lost_is_exit_code_8() {
    let data = stopped();
    for args in [
        &["account", "list"][..],
        &["account", "list", "--json"],
        &["serve", "--listen", "127.0.0.1:0"],
        &["--help"],
    ] {
        let full = fs::File::options().write(true).open("/dev/full").unwrap();
        let output = program(data.path(), args).stdout(full).output().unwrap();
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(8), "{args:?}: {said}");
        let expected = "cannot write to standard output: No space left";
        assert!(said.contains(expected), "{args:?}: {said}");
    }
}

#[test]
fn a_port_that_is_taken_is_exit_code_3() {
    let data = TempDir::new().unwrap();
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    for taken in [tcp.local_addr().unwrap(), udp.local_addr().unwrap()] {
        let output = run(data.path(), &["serve", "--listen", &taken.to_string()]);
        assert_eq!(output.status.code(), Some(3));
        let stderr = text(&output.stderr);
        assert!(stderr.contains(&taken.to_string()), "{stderr}");
        assert!(stderr.contains("--listen [ADDR:]PORT"), "{stderr}");
    }
    let not_ours = run(data.path(), &["serve", "--listen", "192.0.2.1:7400"]);
    assert_eq!(not_ours.status.code(), Some(3));
}

#[test]
fn a_folder_in_use_is_exit_code_4() {
    let server = Running::start();
    let output = run(server.path(), &["serve", "--listen", "127.0.0.1:0"]);
    assert_eq!(output.status.code(), Some(4));
    assert!(text(&output.stderr).contains("is in use by another server"));
    server.connect();
}

#[test]
fn a_newer_database_is_exit_code_5_and_untouched() {
    let data = stopped();
    let path = data.path().join("rendezvous.db");
    let mut bytes = fs::read(&path).unwrap();
    // `user_version` stands at offset 60 of the file (SQLite file format, section 1.3).
    bytes[60..64].copy_from_slice(&99u32.to_be_bytes());
    fs::write(&path, &bytes).unwrap();
    for args in [
        &["serve", "--listen", "127.0.0.1:0"][..],
        &["account", "list"],
    ] {
        let output = run(data.path(), args);
        assert_eq!(output.status.code(), Some(5), "{}", text(&output.stderr));
        let stderr = text(&output.stderr);
        assert!(stderr.contains("schema version 99"), "{stderr}");
        assert_eq!(fs::read(&path).unwrap(), bytes);
    }
}

#[test]
fn a_damaged_data_folder_is_exit_code_6() {
    type Damage<'a> = (&'a str, &'a dyn Fn(&Path));
    let damages: [Damage<'_>; 6] = [
        ("identity.pem", &|path| fs::remove_file(path).unwrap()),
        ("rendezvous.db", &|path| fs::write(path, [7; 8192]).unwrap()),
        ("rendezvous.db", &|path| {
            let mut bytes = fs::read(path).unwrap();
            let end = bytes.len();
            bytes[4096..end].fill(0xaa);
            fs::write(path, bytes).unwrap();
        }),
        ("opaque-setup", &|path| fs::remove_file(path).unwrap()),
        ("opaque-setup", &|path| fs::write(path, [1; 7]).unwrap()),
        ("bucket-key", &|path| fs::write(path, [1; 7]).unwrap()),
    ];
    for (name, damage) in damages {
        let data = stopped();
        damage(&data.path().join(name));
        let output = run(data.path(), &["serve", "--listen", "127.0.0.1:0"]);
        let stderr = text(&output.stderr);
        assert_eq!(output.status.code(), Some(6), "{stderr}");
        assert!(
            stderr.contains(name) && stderr.contains("backup"),
            "{stderr}"
        );
    }
}

#[test]
fn only_serving_and_adding_an_account_make_a_data_folder() {
    let data = TempDir::new().unwrap();
    let missing = data.path().join("missing");
    for folder in [missing.as_path(), data.path()] {
        for args in [
            &["account", "list"][..],
            &["account", "remove", "alice", "--yes"],
            &["account", "unblock", "alice"],
            &["account", "admit", "alice"],
        ] {
            let output = run(folder, args);
            let stderr = text(&output.stderr);
            assert_eq!(output.status.code(), Some(8), "{stderr}");
            assert!(stderr.contains("no server's data"), "{stderr}");
        }
    }
    assert_eq!(fs::read_dir(data.path()).unwrap().count(), 0);
    add(&missing, "alice");
    assert!(run(&missing, &["account", "list"]).status.success());
}

#[test]
fn a_folder_that_cannot_be_made_is_exit_code_8() {
    let data = TempDir::new().unwrap();
    let file = data.path().join("file");
    fs::write(&file, "").unwrap();
    let output = run(&file.join("folder"), &["serve"]);
    assert_eq!(output.status.code(), Some(8), "{}", text(&output.stderr));
}

#[test]
fn t33_files_are_for_their_owner_and_logs_name_nobody() {
    let mut server = Running::start();
    let mut client = server.member("alice", 1);
    for _ in 0..6 {
        let mut attacker = server.connect();
        attacker.login_start("alice", &device(9), PASSWORD);
    }
    assert_eq!(
        client.ask(DeviceRequest::KeepAlive),
        DeviceAnswer::Done.into()
    );
    let mut seen = BTreeMap::new();
    for entry in fs::read_dir(server.path()).unwrap() {
        let entry = entry.unwrap();
        let mode = entry.metadata().unwrap().permissions().mode() & 0o777;
        seen.insert(entry.file_name().into_string().unwrap(), mode);
    }
    assert!(seen.len() >= 6, "{seen:?}");
    assert!(seen.values().all(|mode| *mode == 0o600), "{seen:?}");
    let folder = fs::metadata(server.path()).unwrap().permissions().mode();
    assert_eq!(folder & 0o777, 0o700);
    server.signal("TERM");
    server.exit_code();
    let log = server.log();
    assert!(log.contains("too many failed log-ins"), "{log}");
    for name in ["alice", "127.0.0.1", PASSWORD] {
        assert!(!log.contains(name), "{log}");
    }
}
