//! People with profiles at a server of their own, in a temporary folder, on loopback.
//!
//! Everything here fails the test that calls it when it does not work out.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::control::Control;
use crate::program::{self, Finished, Program, Programs, Running, Server, now, surround};

/// Time for something that takes a moment, on a machine with much else to do.
pub const PATIENCE: Duration = Duration::from_secs(40);
/// How often a condition is looked at.
const PACE: Duration = Duration::from_millis(15);

/// A folder, a server, and people by the names of their profiles.
#[derive(Debug)]
pub struct World {
    server: Option<Server>,
    programs: Programs,
    /// Where profiles have their UDP socket, other than anywhere on loopback.
    sockets: BTreeMap<String, SocketAddr>,
    folder: TempDir,
}

impl World {
    /// A world with a server that anybody may register at. `executable` calls
    /// [`program::dispatch`].
    #[track_caller]
    pub fn new(executable: &str) -> Self {
        Self::serving(executable, &[])
    }

    /// The same, with further arguments of the server.
    #[track_caller]
    pub fn serving(executable: &str, more: &[&str]) -> Self {
        let mut world = Self::empty(executable);
        world.serve("server", more);
        world
    }

    /// A world without a server.
    #[track_caller]
    pub fn empty(executable: &str) -> Self {
        let folder = tempfile::Builder::new().prefix("messenger-").tempdir();
        let folder = folder.expect("there is room for a temporary folder");
        Self {
            server: None,
            programs: Programs::new(executable, folder.path()),
            sockets: BTreeMap::new(),
            folder,
        }
    }

    // ---- the server ----------------------------------------------------------------------------

    /// Starts a server on the data folder `data`.
    #[track_caller]
    pub fn serve(&mut self, data: &str, more: &[&str]) {
        self.server = None;
        let server = self.programs.serve(data, more);
        self.server = Some(server.unwrap_or_else(|error| panic!("{error}")));
    }

    /// The server.
    #[track_caller]
    pub fn server(&self) -> &Server {
        self.server.as_ref().expect("the server was started")
    }

    /// Takes the server away without a word, as a crash does. Returns its address.
    #[track_caller]
    pub fn kill_server(&mut self) -> String {
        let server = self.take_server();
        server.running.kill();
        server.address
    }

    /// Stops the server in good order. Returns its address.
    #[track_caller]
    pub fn stop_server(&mut self) -> String {
        let server = self.take_server();
        let status = server.running.interrupt();
        let status = status.unwrap_or_else(|error| panic!("{error}"));
        assert!(status.success(), "{status}");
        server.address
    }

    /// Hands over the server.
    #[track_caller]
    pub fn take_server(&mut self) -> Server {
        self.server.take().expect("the server was started")
    }

    // ---- people --------------------------------------------------------------------------------

    /// Creates the account `who`, with a profile of the same name.
    #[track_caller]
    pub fn register(&self, who: &str) {
        let file = self.password_file(who, &password_of(who));
        let registered = self.enter(who, "register", who, &file);
        assert_eq!(registered.code(), 0, "{registered:?}");
    }

    /// Logs the profile `profile` in to the account `account`, with the right password.
    #[track_caller]
    pub fn log_in(&self, profile: &str, account: &str) -> Finished {
        let file = self.password_file(account, &password_of(account));
        self.enter(profile, "login", account, &file)
    }

    /// Has the profile `by` approve the device of another profile of its account.
    #[track_caller]
    pub fn approve(&self, by: &str, device: &str) {
        let status = &self.json(device, &["status"])[0];
        let fingerprint = text(&status["fingerprint"]);
        let approved = self.peer(by, &["devices", "approve", &fingerprint]);
        assert_eq!(approved.code(), 0, "{approved:?}");
    }

    /// Creates the account `who` at a server that is found at `server`, with a profile whose UDP
    /// socket is always at `socket`.
    #[track_caller]
    pub fn register_at(&mut self, who: &str, server: SocketAddr, socket: SocketAddr) {
        self.sockets.insert(who.to_owned(), socket);
        let file = self.password_file(who, &password_of(who));
        let registered = self.enter_at(&server.to_string(), who, "register", who, &file);
        assert_eq!(registered.code(), 0, "{registered:?}");
    }

    /// Registers, or logs in, at the server, whose fingerprint is known.
    #[track_caller]
    pub fn enter(&self, profile: &str, how: &str, account: &str, password_file: &str) -> Finished {
        let address = &self.server().address;
        self.enter_at(address, profile, how, account, password_file)
    }

    #[track_caller]
    fn enter_at(
        &self,
        address: &str,
        profile: &str,
        how: &str,
        account: &str,
        password_file: &str,
    ) -> Finished {
        let fingerprint = &self.server().fingerprint;
        let arguments = [
            how,
            account,
            "--server",
            address,
            "--fingerprint",
            fingerprint,
            "--password-file",
            password_file,
        ];
        self.peer(profile, &arguments)
    }

    /// Makes a file that only we can read, and returns its name.
    #[track_caller]
    pub fn password_file(&self, name: &str, password: &str) -> String {
        let name = format!("{name}.password");
        let mut options = File::options();
        options.write(true).create(true).truncate(true).mode(0o600);
        let file = options.open(self.path(&name));
        let written = file.and_then(|mut file| file.write_all(password.as_bytes()));
        written.expect("the folder takes a file");
        name
    }

    /// Runs `receive` for `who`, taking every file into the folder `inbox-WHO`, and waits until it is
    /// online.
    #[track_caller]
    pub fn receive(&self, who: &str) -> Running {
        self.receive_with(who, &["--accept", "always"])
    }

    /// The same with other arguments.
    #[track_caller]
    pub fn receive_with(&self, who: &str, more: &[&str]) -> Running {
        let running = self.start(who, &self.receive_arguments(who, more));
        self.wait_ready(who);
        running
    }

    /// The arguments of `receive`, whose folder is made.
    #[track_caller]
    pub fn receive_arguments(&self, who: &str, more: &[&str]) -> Vec<String> {
        let inbox = format!("inbox-{who}");
        fs::create_dir_all(self.path(&inbox)).expect("the folder takes a folder");
        let fixed = ["--json", "receive", "--folder", &inbox];
        let all = fixed.iter().chain(more);
        all.map(|word| (*word).to_owned()).collect()
    }

    /// Waits until the process that owns the profile is logged in.
    #[track_caller]
    pub fn wait_ready(&self, who: &str) {
        until("the profile's node is online", PATIENCE, || {
            self.control(who)
                .call("wait_ready", Value::Null, PATIENCE)
                .ok()
        });
    }

    /// Waits until a running peer has a link that needs no relay, and tells where it goes.
    #[track_caller]
    pub fn wait_direct(&self, who: &str) -> SocketAddr {
        until("a link is direct", PATIENCE, || {
            let mut links = self.json(who, &["paths"]).into_iter();
            let direct = links.find(|link| link["path"] == "direct")?;
            text(&direct["remote"]).parse().ok()
        })
    }

    /// A client of the socket of a running peer.
    #[track_caller]
    pub fn control(&self, who: &str) -> Control {
        Control::connect(&self.path(who), PATIENCE)
    }

    // ---- commands ------------------------------------------------------------------------------

    /// Runs a command of a profile to its end.
    #[track_caller]
    pub fn peer(&self, who: &str, arguments: &[&str]) -> Finished {
        run(Program::Peer, &mut self.peer_command(who, arguments))
    }

    /// Runs a command of the server's program to its end.
    #[track_caller]
    pub fn rendezvous(&self, arguments: &[&str]) -> Finished {
        run(Program::Rendezvous, &mut self.rendezvous_command(arguments))
    }

    /// A command of the server's program, not started.
    pub fn rendezvous_command(&self, arguments: &[&str]) -> Command {
        self.programs.command(Program::Rendezvous, arguments)
    }

    /// Runs a command of a profile that prints JSON; it must succeed.
    #[track_caller]
    pub fn json(&self, who: &str, arguments: &[&str]) -> Vec<Value> {
        let arguments: Vec<_> = ["--json"].iter().chain(arguments).copied().collect();
        let finished = self.peer(who, &arguments);
        assert_eq!(finished.code(), 0, "{arguments:?} {finished:?}");
        finished.json()
    }

    /// Starts a command of a profile.
    #[track_caller]
    pub fn start(&self, who: &str, arguments: &[impl AsRef<str>]) -> Running {
        let running = Running::start(Program::Peer, &mut self.peer_command(who, arguments));
        running.unwrap_or_else(|error| panic!("{error}"))
    }

    /// A command of a profile, not started.
    pub fn peer_command(&self, who: &str, arguments: &[impl AsRef<str>]) -> Command {
        let profile = format!("./{who}");
        let fixed = ["--profile", &profile].into_iter();
        let all = fixed.chain(arguments.iter().map(AsRef::as_ref));
        let mut command = self.programs.command(Program::Peer, all);
        if let Some(socket) = self.sockets.get(who) {
            command.env("PEER_UDP", socket.to_string());
        }
        command
    }

    /// The same command with a file system of `size` in the place of `folder`, which only the command
    /// and what it starts see, and with what was in the folder. `None` if this user may not do that.
    pub fn on_small_disk(&self, command: &Command, folder: &str, size: &str) -> Option<Command> {
        const MOUNT: &str = r#"cp -a "$0" "$0.copy" && mount -t tmpfs -o size="$1",mode=0700 tmpfs "$0" &&
            cp -a "$0.copy/." "$0/" && rm -r "$0.copy" && shift && exec "$@""#;
        self.with_mount(command, folder, MOUNT, size)
    }

    /// The same command for which `folder` is on a read-only file system. `None` if this user may not
    /// do that.
    pub fn on_read_only_disk(&self, command: &Command, folder: &str) -> Option<Command> {
        const MOUNT: &str = r#"mount --bind "$0" "$0" && mount -o remount,bind,"$1" "$0" &&
            shift && exec "$@""#;
        self.with_mount(command, folder, MOUNT, "ro")
    }

    /// Runs `mount`, a shell script, before the command, where only the command sees what it does. The
    /// script gets the folder, `option` and what to start.
    fn with_mount(
        &self,
        command: &Command,
        folder: &str,
        mount: &str,
        option: &str,
    ) -> Option<Command> {
        let wrap = |program: &OsStr| {
            let mut command = Command::new("unshare");
            command.args(["-m", "sh", "-c", mount]);
            command.arg(self.path(folder)).args([option]).arg(program);
            command
        };
        let tried = wrap(OsStr::new("true")).output();
        if !tried.is_ok_and(|tried| tried.status.success()) {
            return None;
        }
        let mut wrapped = wrap(command.get_program());
        wrapped.args(command.get_args()).stdin(Stdio::null());
        surround(&mut wrapped, command);
        Some(wrapped)
    }

    /// A path as a running program sees it.
    pub fn path_within(&self, running: &Running, name: &str) -> PathBuf {
        let path = self.path(name);
        let within = path.strip_prefix("/").unwrap_or(&path);
        Path::new(&format!("/proc/{}/root", running.id())).join(within)
    }

    /// Everything that `history` shows of `who` and `with`, oldest first.
    #[track_caller]
    pub fn history(&self, who: &str, with: &str) -> Vec<Value> {
        self.json(who, &["history", with, "--limit", "10000"])
    }

    /// The texts that `who` has received from `with`, oldest first.
    #[track_caller]
    pub fn received(&self, who: &str, with: &str) -> Vec<String> {
        let all = self.history(who, with).into_iter();
        let received = all.filter(|item| item["direction"] == "received");
        received.map(|item| text(&item["body"])).collect()
    }

    // ---- files ---------------------------------------------------------------------------------

    /// The programs.
    pub const fn programs(&self) -> &Programs {
        &self.programs
    }

    /// A path in the folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Makes a file of `len` bytes that do not repeat, and returns them.
    #[track_caller]
    pub fn make_file(&self, name: &str, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        blake3::Hasher::new()
            .update(name.as_bytes())
            .finalize_xof()
            .fill(&mut bytes);
        fs::write(self.path(name), &bytes).expect("the folder takes a file");
        bytes
    }

    /// Names in a folder, sorted.
    #[track_caller]
    pub fn names_in(&self, folder: &str) -> Vec<String> {
        names_in(&self.path(folder))
    }
}

/// The password of everybody called `who`.
pub fn password_of(who: &str) -> String {
    format!("{who} and seven quiet herons")
}

/// Names in a folder, sorted.
#[track_caller]
pub fn names_in(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).expect("the folder is there");
    let names = entries.map(|entry| entry.expect("the folder can be read").file_name());
    let mut names: Vec<_> = names
        .map(|name| name.to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

/// Runs a command to its end.
#[track_caller]
pub fn run(program: Program, command: &mut Command) -> Finished {
    program::run(program, command).unwrap_or_else(|error| panic!("{error}"))
}

/// Waits until `look` finds something.
#[track_caller]
pub fn until<T>(what: &str, patience: Duration, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = now() + patience;
    // Nothing is ever sent here: this is a pause between two looks.
    let (_sender, pause) = mpsc::channel::<()>();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(now() < deadline, "not within {patience:?}: {what}");
        let _ = pause.recv_timeout(PACE);
    }
}

/// The text of a JSON value.
#[track_caller]
pub fn text(value: &Value) -> String {
    value.as_str().expect("the value is a text").to_owned()
}

/// Fails unless a program ended with `code` and said all of `words` on its standard error, and told
/// what to do next.
#[track_caller]
pub fn assert_fails(finished: &Finished, code: i32, words: &[&str]) {
    assert_eq!(finished.code(), code, "{finished:?}");
    for word in words {
        let is_said = finished.stderr.contains(word);
        assert!(is_said, "'{word}' is missing in:\n{}", finished.stderr);
    }
}

/// The same for commands of the peer, whose failures have what, why and what next.
#[track_caller]
pub fn assert_explains(finished: &Finished, code: i32, words: &[&str]) {
    assert_fails(finished, code, words);
    assert_fails(finished, code, &["error:", "next:"]);
}

/// The command with a file as its standard input.
#[track_caller]
pub fn with_stdin(mut command: Command, file: &Path) -> Command {
    let file = File::open(file).expect("the file is there");
    command.stdin(Stdio::from(file));
    command
}

/// Params of a `send` through the socket.
pub fn letter(to: &str, body: &str) -> Value {
    json!({"to": [to], "body": body, "sent": 1_700_000_000_000_u64})
}

/// How far a transfer is, in a line that `receive` or `send-file` printed; null in every other line.
pub fn transfer_state(line: &Value) -> &Value {
    if line["method"] == "transfer" {
        &line["params"]["state"]
    } else if line["transfer"].is_string() {
        line
    } else {
        &Value::Null
    }
}
