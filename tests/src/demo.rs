//! The demo, step by step.
//!
//! It runs the real programs as processes of their own in a temporary folder, on loopback, and checks
//! every step; the first that fails ends it with exit code 1 and says what it was.

use std::fs::File;
use std::io::{BufWriter, IsTerminal, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::program::{Finished, Program, ProgramError, Programs, Running, Server, now};

/// Size of the file that is sent: 256 MiB.
const FILE_LEN: u64 = 256 << 20;
/// Failed log-ins after which the server blocks an account; its default.
const FAILURES_MAX: usize = 5;
/// Time for something that takes a moment.
const PATIENCE: Duration = Duration::from_secs(20);
const PASSWORDS: [(&str, &str); 2] = [
    ("alice", "violet tram at noon"),
    ("bob", "seven quiet herons"),
];

/// Runs the demo.
pub fn main() -> ExitCode {
    let mut stage = Stage::new();
    match play(&mut stage) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            stage.failed(&failure);
            ExitCode::FAILURE
        }
    }
}

/// A step did not do what it should.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("{0}")]
    Program(#[from] ProgramError),
    #[error("a file of the demo: {0}")]
    File(#[from] std::io::Error),
    #[error("{what}\n{stderr}")]
    Exit { what: String, stderr: String },
    #[error("{0}")]
    Wrong(String),
}

fn play(stage: &mut Stage) -> Result<(), Failure> {
    let began = now();
    let folder = tempfile::Builder::new()
        .prefix("messenger-demo-")
        .tempdir()?;
    let programs = Programs::new(std::env::current_exe()?, folder.path());
    stage.say("Two people, a server of their own, everything on this machine.");

    let server = serve(stage, &programs)?;
    for (name, password) in PASSWORDS {
        register(stage, &programs, &server, name, password)?;
    }
    let online = go_online(stage, &programs)?;
    list(stage, &programs)?;
    talk(stage, &programs, &online)?;
    send_file(stage, &programs, folder.path())?;
    lock_out(stage, &programs, &server, &online)?;
    end(stage, server, online)?;

    let took = now().saturating_duration_since(began);
    stage.say(&format!(
        "\nAll of it worked, and was checked, in {:.1} s.",
        took.as_secs_f64()
    ));
    by_hand(stage);
    Ok(())
}

/// Both people's long-running commands.
struct Online {
    alice: Running,
    bob: Running,
}

fn serve(stage: &mut Stage, programs: &Programs) -> Result<Server, Failure> {
    stage.step("Start a server", "rendezvous");
    let server = programs.serve("server", &[])?;
    let is_sound =
        server.address.starts_with("127.0.0.1:") && server.fingerprint.starts_with("SHA256:");
    stage.check(is_sound, &format!("it listens on {}", server.address))?;
    stage.note(&format!("its fingerprint is {}", server.fingerprint));
    Ok(server)
}

fn register(
    stage: &mut Stage,
    programs: &Programs,
    server: &Server,
    name: &str,
    password: &str,
) -> Result<(), Failure> {
    stage.step(
        &format!("{name} registers"),
        &format!("peer register {name} --server {}", server.address),
    );
    let file = password_file(programs, name, password)?;
    let arguments = [
        "register",
        name,
        "--server",
        &server.address,
        "--fingerprint",
        &server.fingerprint,
        "--password-file",
        &file,
    ];
    expect(&run(programs, name, &arguments)?, 0, "the registration")?;
    let status = run(programs, name, &["--json", "status"])?;
    let is_logged_in = status
        .json()
        .first()
        .is_some_and(|status| status["account"] == name);
    stage.check(
        is_logged_in,
        "logged in; the server has never seen the password",
    )
}

fn go_online(stage: &mut Stage, programs: &Programs) -> Result<Online, Failure> {
    stage.step(
        "Both come online",
        "peer receive --accept always --folder inbox",
    );
    std::fs::create_dir(programs.folder().join("inbox"))?;
    let online = Online {
        alice: receive(programs, "alice")?,
        bob: receive(programs, "bob")?,
    };
    let deadline = now() + PATIENCE;
    while listed(programs)?.len() < 2 {
        if now() > deadline {
            let complaints = online.bob.complaints();
            return Err(Failure::Wrong(format!(
                "they were never both listed\n{complaints}"
            )));
        }
    }
    stage.check(
        true,
        "no password, no options: each device has its key and a token",
    )?;
    Ok(online)
}

fn receive(programs: &Programs, name: &str) -> Result<Running, Failure> {
    let arguments = [
        "--profile",
        &profile(name),
        "--json",
        "receive",
        "--accept",
        "always",
        "--folder",
        "inbox",
    ];
    Ok(programs.start(Program::Peer, arguments)?)
}

fn listed(programs: &Programs) -> Result<Vec<Value>, Failure> {
    let list = run(programs, "alice", &["--json", "list"])?;
    expect(&list, 0, "the list")?;
    Ok(list.json())
}

fn list(stage: &mut Stage, programs: &Programs) -> Result<(), Failure> {
    stage.step("What alice sees", "peer list");
    let shown = run(programs, "alice", &["list"])?;
    expect(&shown, 0, "the list")?;
    stage.quote(&shown.stdout);
    let listed = listed(programs)?;
    for (name, _) in PASSWORDS {
        let entry = listed.iter().find(|entry| entry["account"] == name);
        let has_endpoint = entry
            .and_then(|entry| entry["endpoints"].as_array())
            .is_some_and(|endpoints| !endpoints.is_empty());
        stage.check(
            has_endpoint,
            &format!("{name} is listed with the UDP endpoints of the device"),
        )?;
    }
    Ok(())
}

fn talk(stage: &mut Stage, programs: &Programs, online: &Online) -> Result<(), Failure> {
    let lines = [
        ("alice", "bob", "Are you there? 👋", &online.bob),
        ("bob", "alice", "Just back from the harbour.", &online.alice),
    ];
    for (from, to, text, receiver) in lines {
        stage.step(
            &format!("{from} writes to {to}"),
            &format!("peer send {to} '{text}'"),
        );
        let sent = run(programs, from, &["--json", "send", to, text])?;
        expect(&sent, 0, "sending")?;
        let is_it = |line: &Value| {
            let message = &line["params"];
            line["method"] == "message" && message["with"] == from && message["body"] == text
        };
        receiver.wait_json("the message", PATIENCE, is_it)?;
        stage.quote(&format!("{from}: {text}"));
        let is_delivered = sent
            .json()
            .iter()
            .any(|line| line["to"] == to && line["state"] == "delivered");
        stage.check(
            is_delivered,
            &format!("on {to}'s disk, says the receipt; the server saw nothing of it"),
        )?;
    }
    Ok(())
}

fn send_file(stage: &mut Stage, programs: &Programs, folder: &Path) -> Result<(), Failure> {
    stage.step("alice sends bob a file", "peer send-file bob film.bin");
    let source = folder.join("film.bin");
    make_file(&source)?;
    let mut command = programs.command(
        Program::Peer,
        [
            "--profile",
            &profile("alice"),
            "send-file",
            "bob",
            "film.bin",
        ],
    );
    if stage.is_terminal {
        command.stderr(Stdio::inherit());
    }
    let output = command.stdout(Stdio::piped()).output()?;
    let sent = Finished {
        status: output.status,
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    };
    expect(&sent, 0, "sending the file")?;
    stage.quote(&sent.stdout);
    let target = folder.join("inbox").join("film.bin");
    let (expected, found) = (digest(&source)?, digest(&target)?);
    stage.check(
        expected == found,
        &format!(
            "what bob has is what alice has: BLAKE3 {}…",
            &expected[..16]
        ),
    )?;
    stage.check(
        sent.stdout.contains(&expected[..16]),
        "and it is the digest that the programs checked",
    )?;
    Ok(())
}

fn lock_out(
    stage: &mut Stage,
    programs: &Programs,
    server: &Server,
    online: &Online,
) -> Result<(), Failure> {
    stage.step(
        "A stranger guesses alice's password",
        &format!("peer login alice --server {}", server.address),
    );
    for guess in 1..=FAILURES_MAX {
        let refused = guess_as(
            programs,
            "stranger",
            server,
            &format!("a wrong guess, number {guess}"),
        )?;
        expect(&refused, 3, "a wrong password")?;
    }
    stage.check(true, &format!("{FAILURES_MAX} guesses, all refused"))?;
    let blocked = guess_as(programs, "stranger", server, PASSWORDS[0].1)?;
    expect(&blocked, 4, "the block")?;
    stage.quote(&blocked.stderr);
    stage.check(true, "now not even the right password helps the stranger")?;

    let told = |line: &Value| line["method"] == "failed_logins";
    online
        .alice
        .wait_json("alice is told of it", PATIENCE, told)?;
    stage.check(true, "alice is told at once")?;

    stage.step(
        "alice herself still gets in, from the device that is hers",
        "peer login alice",
    );
    let known = guess_as(programs, "alice", server, PASSWORDS[0].1)?;
    expect(&known, 0, "the owner's log-in from a known device")?;
    stage.check(true, "a known device has a lane of its own")
}

fn guess_as(
    programs: &Programs,
    who: &str,
    server: &Server,
    password: &str,
) -> Result<Finished, Failure> {
    let file = password_file(programs, &format!("guess-of-{who}"), password)?;
    let arguments = [
        "login",
        "alice",
        "--server",
        &server.address,
        "--fingerprint",
        &server.fingerprint,
        "--password-file",
        &file,
    ];
    run(programs, who, &arguments)
}

fn end(stage: &mut Stage, server: Server, online: Online) -> Result<(), Failure> {
    stage.step("Ctrl-C, three times", "");
    for peer in [online.alice, online.bob] {
        let status = peer.interrupt()?;
        let is_clean = matches!(status.code(), Some(0 | 130));
        if !is_clean {
            return Err(Failure::Wrong(format!("a peer ended with {status}")));
        }
    }
    let status = server.running.interrupt()?;
    stage.check(status.success(), "both peers and the server end cleanly")
}

fn by_hand(stage: &mut Stage) {
    stage.say("\nThe same by hand, each line in a terminal of its own:");
    let lines = [
        "cargo run -p rendezvous",
        "cargo run -p peer -- --profile alice register alice --server localhost",
        "cargo run -p peer -- --profile bob register bob --server localhost",
        "cargo run -p peer -- --profile alice chat bob",
        "cargo run -p peer -- --profile bob chat alice",
    ];
    for line in lines {
        stage.command(line);
    }
}

// ---- helpers -----------------------------------------------------------------------------------

fn profile(name: &str) -> String {
    format!("./profile-{name}")
}

fn run(programs: &Programs, name: &str, arguments: &[&str]) -> Result<Finished, Failure> {
    let profile = profile(name);
    let all = ["--profile", &profile]
        .into_iter()
        .chain(arguments.iter().copied());
    Ok(programs.run(Program::Peer, all)?)
}

fn expect(finished: &Finished, code: i32, what: &str) -> Result<(), Failure> {
    if finished.code() == code {
        return Ok(());
    }
    let what = format!(
        "{what} ended with exit code {} instead of {code}",
        finished.code()
    );
    Err(Failure::Exit {
        what,
        stderr: finished.stderr.clone(),
    })
}

fn password_file(programs: &Programs, name: &str, password: &str) -> Result<String, Failure> {
    use std::os::unix::fs::OpenOptionsExt;

    let file = format!("{name}.password");
    let mut options = File::options();
    options.write(true).create(true).truncate(true).mode(0o600);
    options
        .open(programs.folder().join(&file))?
        .write_all(password.as_bytes())?;
    Ok(file)
}

/// Fills a file with bytes that do not repeat (xorshift64).
fn make_file(path: &PathBuf) -> Result<(), Failure> {
    let mut file = BufWriter::with_capacity(1 << 20, File::create(path)?);
    let mut state: u64 = 0x9e37_79b9_7f4a_7c15;
    for _ in 0..FILE_LEN / 8 {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        file.write_all(&state.to_le_bytes())?;
    }
    file.flush()?;
    Ok(())
}

fn digest(path: &PathBuf) -> Result<String, Failure> {
    let mut file = File::open(path)?;
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hasher.finalize().to_hex().to_string()),
            len => hasher.update(&buffer[..len]),
        };
    }
}

/// What the person sees. Bold, dim and two of the eight basic colours are readable on dark and on
/// light.
struct Stage {
    is_terminal: bool,
    has_colour: bool,
    steps: usize,
}

impl Stage {
    fn new() -> Self {
        let is_terminal = std::io::stdout().is_terminal() && std::io::stderr().is_terminal();
        let has_colour = is_terminal && std::env::var_os("NO_COLOR").is_none();
        Self {
            is_terminal,
            has_colour,
            steps: 0,
        }
    }

    fn step(&mut self, title: &str, command: &str) {
        self.steps += 1;
        let title = self.paint("1", &format!("{:2}. {title}", self.steps));
        self.say(&format!("\n{title}"));
        if !command.is_empty() {
            self.command(command);
        }
    }

    fn command(&self, line: &str) {
        self.say(&self.paint("2", &format!("    $ {line}")));
    }

    fn quote(&self, text: &str) {
        for line in text.lines() {
            self.say(&format!("    {line}"));
        }
    }

    fn note(&self, text: &str) {
        self.say(&self.paint("2", &format!("      {text}")));
    }

    fn check(&self, holds: bool, what: &str) -> Result<(), Failure> {
        if !holds {
            return Err(Failure::Wrong(format!("this does not hold: {what}")));
        }
        let tick = self.paint("32", "✓");
        self.say(&format!("    {tick} {what}"));
        Ok(())
    }

    fn failed(&self, failure: &Failure) {
        let cross = self.paint("31", "✗");
        self.say(&format!("    {cross} step {}: {failure}", self.steps));
    }

    fn say(&self, text: &str) {
        // A reader that has gone away is no reason to stop checking.
        let _ = writeln!(std::io::stdout().lock(), "{text}");
    }

    fn paint(&self, code: &str, text: &str) -> String {
        if self.has_colour {
            format!("\u{1b}[{code}m{text}\u{1b}[0m")
        } else {
            text.to_owned()
        }
    }
}
