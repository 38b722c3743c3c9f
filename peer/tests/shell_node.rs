//! A whole node, run by its shell, talked to through its profile's socket.
#![expect(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use common::id::DeviceName;
use common::key::DeviceSecret;
use common::limits::{PROFILE_CLIENTS_MAX, PROFILE_LINE_LEN_MAX};
use common::tls::{ServerIdentity, ServerTrust};
use peer::node::PathRule;
use peer::shell::{NodeSettings, RunningNode, ServerAddress, StartError, start};
use rustls::{ServerConnection, StreamOwned};
use serde_json::{Value, json};
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(20);

#[test]
fn a_node_answers_over_its_socket_and_leaves_nothing_behind() {
    let profile = Profile::new();
    let node = profile.start();
    let mode = std::fs::metadata(profile.socket())
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);

    let mut client = profile.client();
    client.say(r#"{"jsonrpc":"2.0","id":1,"method":"status"}"#);
    let answer = client.hear();
    assert_eq!(answer["id"], 1);
    let fingerprint = DeviceSecret::from_seed([7; 32]).public().fingerprint();
    assert_eq!(
        answer["result"]["status"]["fingerprint"],
        fingerprint.to_string(),
        "{answer}"
    );

    node.stop();
    assert!(client.is_closed());
    assert!(!profile.socket().exists());
    profile.start().stop();
}

#[cfg(feature = "local-node")]
#[test]
fn a_node_on_the_callers_thread_answers_and_gives_its_history_back() {
    use peer::node::command::{Command, Reply};
    use peer::shell::{Heard, LocalNode};

    let profile = Profile::new();
    let mut node = LocalNode::start(profile.settings()).unwrap();
    let number = node.submit(Command::Status);
    let heard = node.hear(PATIENCE).unwrap().unwrap();
    assert!(
        matches!(heard, Heard::Reply(of, Ok(Reply::Status(_))) if of == number),
        "{heard:?}"
    );
    drop(node);
    LocalNode::start(profile.settings()).unwrap();
}

#[test]
fn mistakes_are_answered_and_cost_nobody_anything() {
    let profile = Profile::new();
    let _node = profile.start();
    let mut client = profile.client();
    let mistakes = [
        ("{", -32700),
        ("[]", -32600),
        (r#"{"id":1,"method":"status"}"#, -32600),
        (r#"{"jsonrpc":"2.0","id":1,"method":"nonsense"}"#, -32601),
        (r#"{"jsonrpc":"2.0","id":1,"method":"send"}"#, -32602),
    ];
    for (line, code) in mistakes {
        client.say(line);
        let answer = client.hear();
        assert_eq!(answer["error"]["code"], code, "{line}: {answer}");
    }
    client.say(r#"{"jsonrpc":"2.0","id":"again","method":"subscribe"}"#);
    assert_eq!(
        client.hear(),
        json!({"jsonrpc": "2.0", "id": "again", "result": "done"})
    );
}

#[test]
fn a_line_that_is_too_long_ends_its_client_and_no_other() {
    let profile = Profile::new();
    let _node = profile.start();
    let mut honest = profile.client();
    let mut hostile = profile.client();
    let mut line = vec![b'x'; PROFILE_LINE_LEN_MAX + 2];
    line[0] = b'"';
    // The node may hang up before it has read all of it.
    let _ = hostile.stream.get_mut().write_all(&line);
    assert_eq!(hostile.hear()["error"]["code"], -32600);
    assert!(hostile.is_closed());
    honest.say(r#"{"jsonrpc":"2.0","id":1,"method":"subscribe"}"#);
    assert_eq!(honest.hear()["result"], "done");
}

#[test]
fn clients_have_a_bound_and_make_room_when_they_leave() {
    let profile = Profile::new();
    let _node = profile.start();
    let subscribe = r#"{"jsonrpc":"2.0","id":1,"method":"subscribe"}"#;
    let mut clients: Vec<Client> = (0..PROFILE_CLIENTS_MAX)
        .map(|_| {
            let mut client = profile.client();
            client.say(subscribe);
            assert_eq!(client.hear()["result"], "done");
            client
        })
        .collect();
    let mut one_more = profile.client();
    let answer = one_more.hear();
    assert_eq!(
        answer["error"]["data"]["too_many"],
        "clients of this profile"
    );
    assert!(one_more.is_closed());
    clients.pop();
    // The node notices at some point that the client left.
    let deadline = Deadline::within(PATIENCE);
    loop {
        let mut client = profile.client();
        client.say_if_open(subscribe);
        if client.hear()["result"] == "done" {
            break;
        }
        deadline.check("no room for a client after one has left");
    }
}

#[test]
fn a_client_that_hangs_up_makes_room_though_its_reply_is_due() {
    // It accepts connections and says nothing, so no reply comes for as long as a handshake may take.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let profile = Profile::with_server(silent.local_addr().unwrap().port());
    let _node = profile.start();
    let ask = |line: &str| {
        let mut client = profile.client();
        client.say(line);
        client.say(r#"{"jsonrpc":"2.0","id":2,"method":"subscribe"}"#);
        while client.hear()["id"] != 2 {}
        client
    };
    let _first = ask(LOG_IN);
    for _ in 1..PROFILE_CLIENTS_MAX {
        drop(ask(r#"{"jsonrpc":"2.0","id":1,"method":"list"}"#));
    }
    let deadline = Deadline::within(Duration::from_secs(5));
    loop {
        let mut client = profile.client();
        client.say_if_open(r#"{"jsonrpc":"2.0","id":1,"method":"subscribe"}"#);
        if client.hear()["result"] == "done" {
            break;
        }
        deadline.check("no room for a client after all have left");
    }
}

#[test]
fn a_request_may_come_in_pieces_and_several_in_one() {
    let profile = Profile::new();
    let _node = profile.start();
    let mut client = profile.client();
    let line = r#"{"jsonrpc":"2.0","id":1,"method":"subscribe"}"#;
    for byte in line.bytes() {
        client.stream.get_mut().write_all(&[byte]).unwrap();
    }
    let many = format!("\n{line}\n{line}\n");
    client.stream.get_mut().write_all(many.as_bytes()).unwrap();
    for _ in 0..3 {
        assert_eq!(client.hear()["result"], "done");
    }
}

#[test]
fn a_socket_that_a_dead_process_left_is_replaced() {
    let profile = Profile::new();
    drop(std::os::unix::net::UnixListener::bind(profile.socket()).unwrap());
    assert!(profile.socket().exists());
    let _node = profile.start();
    let mut client = profile.client();
    client.say(r#"{"jsonrpc":"2.0","id":1,"method":"subscribe"}"#);
    assert_eq!(client.hear()["result"], "done");
}

#[test]
fn what_cannot_be_opened_is_named_before_anything_starts() {
    let profile = Profile::new();
    std::fs::write(profile.history(), b"not a database").unwrap();
    let error = start(profile.settings()).unwrap_err();
    assert!(matches!(error, StartError::History(_)), "{error}");
    assert!(error.to_string().contains("is damaged"), "{error}");
    std::fs::remove_file(profile.history()).unwrap();

    let taken = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut settings = profile.settings();
    settings.udp = taken.local_addr().unwrap().into();
    let error = start(settings).unwrap_err();
    assert!(matches!(error, StartError::Udp { .. }), "{error}");

    let mut settings = profile.settings();
    settings.socket = profile.folder.path().join("missing/socket");
    let error = start(settings).unwrap_err();
    assert!(matches!(error, StartError::Socket { .. }), "{error}");

    let mut settings = profile.settings();
    settings.server.host = "no host".to_owned();
    let error = start(settings).unwrap_err();
    assert!(matches!(error, StartError::Server(_)), "{error}");
}

#[test]
fn a_server_that_is_not_there_is_named_to_whoever_asked() {
    let profile = Profile::new();
    let _node = profile.start();
    let mut client = profile.client();
    client.say(LOG_IN);
    let answer = client.hear();
    let reason = answer["error"]["data"]["unreachable"].as_str();
    let expected = format!(
        "connection refused by 127.0.0.1:{}; is the server running there?",
        profile.server_port
    );
    assert_eq!(reason, Some(expected.as_str()), "{answer}");
}

#[test]
fn t30_a_server_with_another_key_is_named_and_learns_nothing() {
    let pem = ServerIdentity::generate_pem();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let profile = Profile::with_server(listener.local_addr().unwrap().port());
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut tls = ServerConnection::new(config(&pem)).unwrap();
        tls.complete_io(&mut stream).is_err()
    });
    let _node = profile.start();
    let mut client = profile.client();
    client.say(LOG_IN);
    let answer = client.hear();
    let pinned = DeviceSecret::from_seed([1; 32]).public().fingerprint();
    let named = &answer["error"]["data"]["server_key_changed"]["expected"];
    assert_eq!(named, &pinned.to_string(), "{answer}");
    assert!(server.join().unwrap(), "the handshake was completed");
}

#[test]
fn a_node_greets_its_server_and_says_goodbye_when_it_stops() {
    let pem = ServerIdentity::generate_pem();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let profile = Profile::with_server(listener.local_addr().unwrap().port());
    let mut settings = profile.settings();
    let identity = ServerIdentity::from_pem(pem.as_bytes()).unwrap();
    settings.trust = ServerTrust::Pinned(identity.fingerprint().unwrap());
    let (greeted, is_greeted) = std::sync::mpsc::sync_channel(1);
    let server = std::thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let tls = ServerConnection::new(config(&pem)).unwrap();
        let mut stream = StreamOwned::new(tls, stream);
        let mut len = [0; 4];
        stream.read_exact(&mut len).unwrap();
        let mut hello = vec![0; u32::from_be_bytes(len) as usize];
        stream.read_exact(&mut hello).unwrap();
        greeted.send(()).unwrap();
        // Without a goodbye this is an error.
        stream.read_to_end(&mut Vec::new()).unwrap();
    });
    let node = start(settings).unwrap();
    let mut client = profile.client();
    client.say(LOG_IN);
    is_greeted.recv_timeout(PATIENCE).unwrap();
    node.stop();
    let answer = client.hear();
    assert_eq!(answer["error"]["data"], "stopping", "{answer}");
    server.join().unwrap();
}

const LOG_IN: &str = r#"{"jsonrpc":"2.0","id":1,"method":"log_in","params":{"account":"alice","password":"correct horse","code":null}}"#;

fn config(pem: &str) -> Arc<rustls::ServerConfig> {
    let identity = ServerIdentity::from_pem(pem.as_bytes()).unwrap();
    identity.into_server_config().unwrap()
}

/// A profile whose server is not there, unless a test makes one.
struct Profile {
    folder: TempDir,
    server_port: u16,
}

impl Profile {
    fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        Self::with_server(listener.local_addr().unwrap().port())
    }

    fn with_server(server_port: u16) -> Self {
        Self {
            folder: TempDir::new().unwrap(),
            server_port,
        }
    }

    fn start(&self) -> RunningNode {
        start(self.settings()).unwrap()
    }

    fn settings(&self) -> NodeSettings {
        NodeSettings {
            server: ServerAddress {
                host: "127.0.0.1".to_owned(),
                port: self.server_port,
            },
            trust: ServerTrust::Pinned(DeviceSecret::from_seed([1; 32]).public().fingerprint()),
            secret: DeviceSecret::from_seed([7; 32]),
            device_name: DeviceName::lossy("laptop"),
            history: self.history(),
            socket: self.socket(),
            udp: "127.0.0.1:0".parse().unwrap(),
            rule: PathRule::Any,
            lan: false,
            port_mapping: false,
        }
    }

    fn client(&self) -> Client {
        let stream = UnixStream::connect(self.socket()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        Client {
            stream: BufReader::new(stream),
        }
    }

    fn history(&self) -> PathBuf {
        self.folder.path().join("history.db")
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("socket")
    }
}

struct Client {
    stream: BufReader<UnixStream>,
}

impl Client {
    fn say(&mut self, line: &str) {
        let line = format!("{line}\n");
        self.stream.get_mut().write_all(line.as_bytes()).unwrap();
    }

    fn say_if_open(&mut self, line: &str) {
        let _ = self
            .stream
            .get_mut()
            .write_all(format!("{line}\n").as_bytes());
    }

    /// The next message, or null at the end.
    fn hear(&mut self) -> Value {
        let mut line = String::new();
        match self.stream.read_line(&mut line) {
            Ok(0) => Value::Null,
            Ok(_) => serde_json::from_str(&line).unwrap(),
            Err(error) => panic!("nothing comes: {error}"),
        }
    }

    fn is_closed(&mut self) -> bool {
        let mut line = String::new();
        matches!(self.stream.read_line(&mut line), Ok(0) | Err(_)) && line.is_empty()
    }
}

struct Deadline(std::time::Instant);

impl Deadline {
    #[expect(clippy::disallowed_methods, reason = "a test's own patience")]
    fn within(patience: Duration) -> Self {
        Self(std::time::Instant::now() + patience)
    }

    #[expect(clippy::disallowed_methods, reason = "a test's own patience")]
    fn check(&self, what: &str) {
        assert!(std::time::Instant::now() < self.0, "{what}");
    }
}
