//! The real program on loopback: its screens, its exit codes, and what it survives.

#![expect(
    clippy::unwrap_used,
    reason = "a helper of a test fails as the test does"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use common::id::DeviceName;
use common::key::{DeviceSecret, Role, Statement, Token};
use common::limits::{
    ADMIN_CLIENTS_MAX, ADMIN_LINE_LEN_MAX, CONTROL_FRAME_LEN_MAX, SEND_QUEUE_LEN_MAX,
};
use common::password::{ClientLogin, ClientRegistration, Password};
use common::stun;
use common::tls::{ServerTrust, channel_binding, rendezvous_client_config};
use common::wire::frame::{self, FrameBuffer};
use common::wire::rendezvous::{
    Answer, ByeReason, DeviceAnswer, DeviceRequest, DirectoryAnswer, DirectoryRequest, Hello,
    HelloAnswer, LoggedIn, LoginAnswer, LoginRequest, LoginStart, Push, Refusal, Request,
    RequestFrame, RequestId, ServerFrame, Status, TokenLogin,
};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, NamedGroup, StreamOwned};
use serde_json::Value;
use tempfile::TempDir;
use zeroize::Zeroizing;

// Accounts and the admin socket.
mod accounts;
// Start, end and return.
mod life;
// What peers and strangers get.
mod service;
// What goes wrong at the start.
mod start;

const PROGRAM: &str = env!("CARGO_BIN_EXE_rendezvous");
const PASSWORD: &str = "correct horse";
/// Whatever takes longer on a busy machine has failed.
const DEADLINE: Duration = Duration::from_secs(30);

// ---- helpers: the program ----------------------------------------------------------------------

struct Running {
    child: Child,
    data: Option<TempDir>,
    folder: PathBuf,
    address: SocketAddr,
    fingerprint: String,
    errors: mpsc::Receiver<String>,
    args: Vec<String>,
}

impl Running {
    fn start() -> Self {
        Self::start_in(TempDir::new().unwrap(), &[])
    }

    fn start_closed() -> Self {
        Self::start_in(TempDir::new().unwrap(), &["--registration", "closed"])
    }

    fn start_in(data: TempDir, extra: &[&str]) -> Self {
        let mut args = vec!["serve", "--json"];
        if !extra.contains(&"--listen") {
            args.extend(["--listen", "127.0.0.1:0"]);
        }
        args.extend(extra);
        let command = program(&data.path().join("data"), &args);
        let mut this = Self::of(command, data);
        this.args = args.iter().map(|arg| (*arg).to_owned()).collect();
        this
    }

    /// One that a shell has set this limit for, as `ulimit` takes it.
    fn limited(limit: &str, data: TempDir) -> Self {
        let line = format!(
            "ulimit {limit}; exec {PROGRAM} --data {} serve --json --listen 127.0.0.1:0",
            data.path().display()
        );
        let mut command = Command::new("sh");
        command.args(["-c", &line]);
        Self::of(command, data)
    }

    fn of(mut command: Command, data: TempDir) -> Self {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = lines_of(child.stdout.take().unwrap());
        let errors = lines_of(child.stderr.take().unwrap());
        let Ok(line) = lines.recv_timeout(DEADLINE) else {
            panic!("not ready: {:?}", errors.iter().collect::<Vec<_>>());
        };
        let ready: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(ready["ready"], true);
        Self {
            child,
            folder: data.path().join("data"),
            data: Some(data),
            address: ready["address"].as_str().unwrap().parse().unwrap(),
            fingerprint: ready["fingerprint"].as_str().unwrap().to_owned(),
            errors,
            args: Vec::new(),
        }
    }

    /// Starts again on the same data.
    fn restart(mut self) -> Self {
        let data = self.data.take().unwrap();
        let args: Vec<&str> = self.args.iter().map(String::as_str).collect();
        let command = program(&self.folder, &args);
        let mut this = Self::of(command, data);
        this.args = self.args.clone();
        this
    }

    fn path(&self) -> &Path {
        &self.folder
    }

    fn wait_until_nobody_is_online(&self) {
        for _ in 0..1000 {
            let listed = run(self.path(), &["account", "list", "--json"]);
            if text(&listed.stdout)
                .lines()
                .all(|line| line.contains("\"sessions\":0"))
            {
                return;
            }
        }
        panic!("a session stays");
    }

    fn signal(&self, signal: &str) {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill").args(["-s", signal, &pid]).status();
        assert!(sent.unwrap().success());
    }

    fn exit_code(&mut self) -> Option<i32> {
        self.child.wait().unwrap().code()
    }

    fn log(&self) -> String {
        self.errors.iter().collect::<Vec<_>>().join("\n")
    }

    fn tcp(&self) -> TcpStream {
        let socket = TcpStream::connect(self.address).unwrap();
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
        socket.set_write_timeout(Some(DEADLINE)).unwrap();
        socket
    }

    fn config(&self) -> Arc<ClientConfig> {
        let trust = ServerTrust::Pinned(self.fingerprint.parse().unwrap());
        rendezvous_client_config(&trust).unwrap()
    }

    fn connect(&self) -> Client {
        Client::on(self.tcp(), self.config()).unwrap()
    }

    /// A new account's session that is logged in.
    fn member(&self, account: &str, number: u8) -> Client {
        let mut client = self.connect();
        client.register(account, PASSWORD);
        client.log_in(account, &device(number));
        client
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn program(data: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(PROGRAM);
    command
        .arg("--data")
        .arg(data)
        .args(args)
        .env_remove("RUST_LOG")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

fn run(data: &Path, args: &[&str]) -> Output {
    program(data, args).output().unwrap()
}

fn add(data: &Path, account: &str) {
    let output = add_with(data, account, PASSWORD);
    assert!(output.status.success(), "{}", text(&output.stderr));
}

fn add_with(data: &Path, account: &str, password: &str) -> Output {
    let args = ["account", "add", account, "--password-file", "-"];
    let mut child = program(data, &args).stdin(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(format!("{password}\n").as_bytes()).unwrap();
    drop(stdin);
    child.wait_with_output().unwrap()
}

/// The data folder of a server that ran once.
fn stopped() -> TempDir {
    let data = TempDir::new().unwrap();
    add(data.path(), "alice");
    data
}

fn lines_of(stream: impl Read + Send + 'static) -> mpsc::Receiver<String> {
    let (sender, lines) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    lines
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

/// Reads until the other side ends the connection; `false` if it does not.
fn ends(socket: &mut TcpStream) -> bool {
    match socket.read_to_end(&mut Vec::new()) {
        Ok(_) => true,
        Err(error) => error.kind() == io::ErrorKind::ConnectionReset,
    }
}

// ---- helpers: a peer ---------------------------------------------------------------------------

struct Client {
    stream: StreamOwned<ClientConnection, TcpStream>,
    frames: FrameBuffer<CONTROL_FRAME_LEN_MAX>,
    last_request: u32,
    code: Option<common::wire::rendezvous::AdmissionCode>,
}

impl Client {
    fn shake(socket: TcpStream, config: Arc<ClientConfig>) -> io::Result<Self> {
        socket.set_read_timeout(Some(DEADLINE))?;
        let server_name = ServerName::try_from("rendezvous").unwrap();
        let connection = ClientConnection::new(config, server_name).map_err(io::Error::other)?;
        let mut stream = StreamOwned::new(connection, socket);
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock)?;
        }
        Ok(Self {
            stream,
            frames: FrameBuffer::new(),
            last_request: 0,
            code: None,
        })
    }

    fn on(socket: TcpStream, config: Arc<ClientConfig>) -> io::Result<Self> {
        let mut this = Self::shake(socket, config)?;
        let mut hello = Vec::new();
        frame::encode::<CONTROL_FRAME_LEN_MAX>(&Hello::ours("test"), &mut hello).unwrap();
        this.stream.write_all(&hello)?;
        let answer: HelloAnswer = this.next()?;
        assert!(matches!(answer, HelloAnswer::Welcome { version: 1, .. }));
        Ok(this)
    }

    fn next<T: serde::de::DeserializeOwned>(&mut self) -> io::Result<T> {
        let mut bytes = [0; 4096];
        loop {
            if let Some(frame) = self.frames.next_frame().map_err(io::Error::other)? {
                return Ok(frame);
            }
            match self.stream.read(&mut bytes)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                len => self.frames.push(&bytes[..len]),
            }
        }
    }

    fn send(&mut self, request: impl Into<Request>) -> io::Result<RequestId> {
        self.last_request += 1;
        let id = RequestId(self.last_request);
        let mut bytes = Vec::new();
        frame::encode::<CONTROL_FRAME_LEN_MAX>(
            &RequestFrame {
                id,
                request: request.into(),
            },
            &mut bytes,
        )
        .unwrap();
        self.stream.write_all(&bytes)?;
        Ok(id)
    }

    fn ask(&mut self, request: impl Into<Request>) -> Answer {
        let asked = self.send(request).unwrap();
        loop {
            match self.next::<ServerFrame>().unwrap() {
                ServerFrame::Answer { id, answer } if id == asked => return answer,
                ServerFrame::Answer { .. } | ServerFrame::Push(_) => {}
            }
        }
    }

    fn bye(&mut self) -> ByeReason {
        loop {
            if let ServerFrame::Push(Push::Bye(reason)) = self.next().unwrap() {
                return reason;
            }
        }
    }

    /// Bytes until the orderly end of the stream.
    fn read_to_end(&mut self) -> usize {
        self.stream.read_to_end(&mut Vec::new()).unwrap()
    }

    fn register(&mut self, account: &str, text: &str) {
        let account: common::id::AccountName = account.parse().unwrap();
        let (client, message) = ClientRegistration::start(&password(text), [3; 32]);
        let answer = self.ask(LoginRequest::RegisterStart {
            account: account.clone(),
            message,
        });
        let Answer::Login(LoginAnswer::RegisterChallenge { message }) = answer else {
            panic!("{answer:?}");
        };
        let upload = client.finish(&account, &message).unwrap();
        assert_eq!(
            self.ask(LoginRequest::RegisterFinish {
                upload,
                stretch: common::password::STRETCH_CURRENT
            }),
            LoginAnswer::Registered.into()
        );
    }

    fn login_start(
        &mut self,
        account: &str,
        secret: &DeviceSecret,
        text: &str,
    ) -> (ClientLogin, Answer) {
        let account = account.parse().unwrap();
        let (client, ke1) = ClientLogin::start(&password(text), [4; 32]);
        let signature = secret.sign(&Statement {
            role: Role::PasswordLogin,
            channel_binding: &channel_binding(&self.stream.conn).unwrap(),
            account: &account,
            content: ke1.as_bytes(),
        });
        let start = LoginStart {
            account,
            device_key: secret.public(),
            device_name: DeviceName::lossy("laptop"),
            ke1,
            signature,
            code: self.code,
        };
        let answer = self.ask(LoginRequest::LoginStart(start));
        (client, answer)
    }

    fn log_in(&mut self, account: &str, secret: &DeviceSecret) -> LoggedIn {
        let (client, answer) = self.login_start(account, secret, PASSWORD);
        let Answer::Login(LoginAnswer::LoginChallenge { ke2, stretch }) = answer else {
            panic!("{answer:?}");
        };
        let channel = channel_binding(&self.stream.conn).unwrap();
        let ke3 = client
            .finish(&account.parse().unwrap(), &ke2, stretch, &channel)
            .unwrap();
        let answer = self.ask(LoginRequest::LoginFinish { ke3 });
        let Answer::Login(LoginAnswer::LoggedIn(logged_in)) = answer else {
            panic!("{answer:?}");
        };
        logged_in
    }

    fn token_login(&mut self, account: &str, secret: &DeviceSecret, token: Token) -> Answer {
        let account = account.parse().unwrap();
        let signature = secret.sign(&Statement {
            role: Role::TokenLogin,
            channel_binding: &channel_binding(&self.stream.conn).unwrap(),
            account: &account,
            content: token.as_bytes(),
        });
        let device_key = secret.public();
        self.ask(LoginRequest::TokenLogin(TokenLogin {
            account,
            device_key,
            token,
            signature,
        }))
    }

    fn announce(&mut self) {
        let candidates = (1..=16)
            .map(|host| SocketAddr::from(([192, 0, 2, host], 4000)))
            .collect();
        let announce = Request::Directory(DirectoryRequest::Announce {
            status: Status::Available,
            candidates,
        });
        assert_eq!(self.ask(announce), DirectoryAnswer::Done.into());
    }
}

fn device(number: u8) -> DeviceSecret {
    DeviceSecret::from_seed([number; 32])
}

fn password(text: &str) -> Password {
    Password::new(Zeroizing::new(text.to_owned())).unwrap()
}
