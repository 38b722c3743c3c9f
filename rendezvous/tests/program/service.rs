//! What peers and strangers get of the running server.

use super::*;

#[test]
fn a_peer_registers_logs_in_and_is_listed() {
    let server = Running::start();
    let mut client = server.connect();
    let group = client.stream.conn.negotiated_key_exchange_group();
    assert_eq!(group.unwrap().name(), NamedGroup::X25519MLKEM768);
    client.register("alice", PASSWORD);
    let token = client.log_in("alice", &device(1)).token.unwrap();
    client.announce();
    let Answer::Directory(DirectoryAnswer::Page { entries, next, .. }) =
        client.ask(DirectoryRequest::List { after: None })
    else {
        panic!("no page");
    };
    assert_eq!((entries.len(), next), (1, None));
    assert_eq!(entries[0].account.as_str(), "alice");

    let mut other = server.connect();
    let answer = other.token_login("alice", &device(1), token);
    assert!(
        matches!(answer, Answer::Login(LoginAnswer::LoggedIn(_))),
        "{answer:?}"
    );
    assert_eq!(client.bye(), ByeReason::Replaced);
    assert_eq!(client.read_to_end(), 0, "and then the end");
}

#[test]
fn the_same_port_answers_stun() {
    let server = Running::start();
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    socket.send_to(b"not STUN", server.address).unwrap();
    let request = stun::binding_request(42);
    socket.send_to(&request, server.address).unwrap();
    let mut answer = [0; 1500];
    let (len, from) = socket.recv_from(&mut answer).unwrap();
    assert_eq!(from, server.address);
    let seen = stun::reflexive_address(&answer[..len], 42);
    assert_eq!(seen, Some(socket.local_addr().unwrap()));
    assert!(len <= request.len(), "T13");
    // As other people's clients ask.
    let bare = [&[0, 1, 0, 0], &request[4..20]].concat();
    socket.send_to(&bare, server.address).unwrap();
    let (len, _) = socket.recv_from(&mut answer).unwrap();
    assert_eq!(stun::reflexive_address(&answer[..len], 42), seen);
}

/// A client that knows nothing of ours, and sends bare requests.
#[test]
fn the_stun_client_of_coturn_learns_its_address() {
    let server = Running::start();
    let port = server.address.port().to_string();
    let mut client = Command::new("turnutils_stunclient");
    // An address of its own, which nothing else here has.
    client.args(["-L", "127.0.0.9", "-p", &port, "127.0.0.1"]);
    let Ok(mut client) = client.stdout(Stdio::piped()).spawn() else {
        println!("skipped: there is no turnutils_stunclient, which comes with coturn");
        return;
    };
    let lines = lines_of(client.stdout.take().unwrap());
    let next = || lines.recv_timeout(DEADLINE).ok();
    let learnt = std::iter::from_fn(next).find(|line| line.contains("UDP reflexive addr: "));
    // Then it asks for an answer from a second address to another port of its own, and would wait for ever.
    client.kill().unwrap();
    client.wait().unwrap();
    let line = learnt.expect("it prints what it learnt");
    let (_, address) = line.split_once("UDP reflexive addr: ").expect(&line);
    let address: SocketAddr = address.trim().parse().unwrap();
    assert_eq!(address.ip(), IpAddr::from([127, 0, 0, 9]));
}

/// The other client of coturn knows nothing of ours either, and asks for answers from the other port. Nothing
/// stands between, and it waits for an answer from a second address, which the server does not have.
#[test]
fn the_nat_discovery_of_coturn_hears_from_both_ports() {
    let server = Running::start();
    let port = server.address.port().to_string();
    let mut client = Command::new("turnutils_natdiscovery");
    client.args(["-m", "-f", "-L", "127.0.0.10", "-p", &port, "127.0.0.1"]);
    let Ok(output) = client.output() else {
        println!("skipped: there is no turnutils_natdiscovery, which comes with coturn");
        return;
    };
    let text = String::from_utf8_lossy(&output.stdout);
    let named = |what: &str| -> BTreeSet<&str> {
        let (lines, what) = (text.lines(), format!("{what}: : 127.0.0.1:"));
        lines
            .filter_map(|line| Some(line.split_once(&what)?.1))
            .collect()
    };
    let (origins, others) = (named("Response origin"), named("Other addr"));
    assert_eq!(
        origins.len(),
        2,
        "one answer came from the other port: {text}"
    );
    assert!(origins.contains(port.as_str()), "{text}");
    assert!(others.is_subset(&origins), "{text}");
    assert!(text.contains("No NAT!"), "{text}");
}

#[test]
fn an_answer_comes_from_the_port_that_was_asked_for() {
    let server = Running::start();
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    let ask = |to: SocketAddr, changes_port| {
        let probe = stun::probe(7, changes_port);
        socket.send_to(&probe, to).unwrap();
        let mut answer = [0; 1500];
        let (len, from) = socket.recv_from(&mut answer).unwrap();
        assert!(len <= probe.len(), "T13");
        let said = stun::probe_answer(&answer[..len], 7).unwrap();
        assert_eq!(said.reflexive, socket.local_addr().unwrap());
        let other = SocketAddr::new(to.ip(), said.other_port.unwrap());
        (from, other)
    };
    let main = server.address;
    let (from, second) = ask(main, false);
    assert_eq!(from, main);
    assert_eq!(ask(main, true), (second, second));
    assert_eq!(ask(second, false), (second, main));
    assert_eq!(ask(second, true), (main, main));
}

#[test]
fn a_second_port_that_is_taken_is_done_without_unless_it_was_asked_for() {
    let (taken, before) = taken_and_free();
    let port = taken.local_addr().unwrap().port();
    let server = Running::start_in(TempDir::new().unwrap(), &["--listen", &before]);
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    socket
        .send_to(&stun::probe(7, false), server.address)
        .unwrap();
    let mut answer = [0; 1500];
    let (len, _) = socket.recv_from(&mut answer).unwrap();
    let said = stun::probe_answer(&answer[..len], 7).unwrap();
    assert_eq!(said.other_port, None);

    let data = TempDir::new().unwrap();
    let port = port.to_string();
    let arguments = ["serve", "--listen", "127.0.0.1:0", "--stun-port", &port];
    let output = run(data.path(), &arguments);
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    assert!(text(&output.stderr).contains("--stun-port"), "{output:?}");
}

/// The one after it is none, and one that nobody opened in a firewall is of no use.
#[test]
#[cfg_attr(
    not(target_os = "linux"),
    ignore = "elsewhere the system may give the last port to anybody"
)]
fn the_last_port_has_no_second_one_behind_it() {
    let data = TempDir::new().unwrap();
    let arguments = ["serve", "--json", "--listen", "127.0.0.1:65535"];
    let mut child = program(data.path(), &arguments).spawn().unwrap();
    let lines = lines_of(child.stdout.take().unwrap());
    let ready = lines.recv_timeout(DEADLINE).unwrap();
    child.kill().unwrap();
    let said = child.wait_with_output().unwrap();
    let said = text(&said.stderr);
    let ready: Value = serde_json::from_str(&ready).unwrap();
    assert_eq!(ready["stun_port"], Value::Null, "{ready} {said}");
    for word in ["no port after 65535", "--stun-port PORT"] {
        assert!(said.contains(word), "{said}");
    }
}

#[test]
fn the_second_port_must_not_be_the_main_one() {
    let data = TempDir::new().unwrap();
    let (_taken, free) = taken_and_free();
    let port = free.rsplit(':').next().unwrap();
    let arguments = ["serve", "--listen", &free, "--stun-port", port];
    let output = run(data.path(), &arguments);
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    let said = text(&output.stderr);
    for word in ["the two ports must differ", "--stun-port PORT"] {
        assert!(said.contains(word), "{said}");
    }
}

/// A UDP port that is taken, and the address with the one before it, which is free for both protocols.
fn taken_and_free() -> (UdpSocket, String) {
    for _ in 0..100 {
        let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
        let before = taken.local_addr().unwrap().port() - 1;
        let before = format!("127.0.0.1:{before}");
        if UdpSocket::bind(&before).is_ok() && TcpListener::bind(&before).is_ok() {
            return (taken, before);
        }
    }
    panic!("every port before a taken one is taken");
}

/// A host with several addresses: whoever asks one of them hears from that one, or not at all behind most NATs.
#[test]
#[cfg_attr(
    not(target_os = "linux"),
    ignore = "127.0.0.2 is an address without being set up on Linux only"
)]
fn an_answer_comes_from_where_it_was_asked_for() {
    for listen in ["0.0.0.0:0", "[::]:0"] {
        let data = TempDir::new().unwrap();
        let server = Running::start_in(data, &["--listen", listen]);
        let asked = SocketAddr::from(([127, 0, 0, 2], server.address.port()));
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
        socket.send_to(&stun::binding_request(7), asked).unwrap();
        let (_, from) = socket.recv_from(&mut [0; 1500]).unwrap();
        assert_eq!(from, asked, "{listen}");
    }
}

#[test]
fn a_dual_stack_address_serves_both_families() {
    let data = TempDir::new().unwrap();
    let server = Running::start_in(data, &["--listen", "[::]:0"]);
    let mut v4 = server.connect();
    assert_eq!(
        v4.ask(DeviceRequest::KeepAlive),
        Answer::Refused(Refusal::NotLoggedIn)
    );
    let v6 = TcpStream::connect(("::1", server.address.port()));
    if let Ok(socket) = v6 {
        let mut v6 = Client::on(socket, server.config()).unwrap();
        assert_eq!(
            v6.ask(DeviceRequest::KeepAlive),
            Answer::Refused(Refusal::NotLoggedIn)
        );
    }
    let v4 = UdpSocket::bind("127.0.0.1:0").unwrap();
    v4.set_read_timeout(Some(DEADLINE)).unwrap();
    v4.send_to(&stun::binding_request(1), server.address)
        .unwrap();
    let mut answer = [0; 1500];
    let (len, _) = v4.recv_from(&mut answer).unwrap();
    let seen = stun::reflexive_address(&answer[..len], 1);
    assert_eq!(seen, Some(v4.local_addr().unwrap()));
}

#[test]
fn t20_garbage_oversized_truncated_and_half_open_connections_hurt_nobody_else() {
    let server = Running::start();
    let mut witness = server.member("alice", 1);

    let half_open = server.tcp();
    let mut garbage = server.tcp();
    garbage.write_all(&[0xff; 4096]).unwrap();
    assert!(ends(&mut garbage));
    let mut hello_and_gone = server.tcp();
    hello_and_gone.write_all(&[22, 3, 1, 2, 0, 1]).unwrap();
    drop(hello_and_gone);

    let oversized = u32::MAX.to_be_bytes();
    let nonsense = [&[0, 0, 0, 4][..], &[9; 4]].concat();
    let trailing = {
        let mut frame = Vec::new();
        let request = RequestFrame {
            id: RequestId(1),
            request: Request::Device(DeviceRequest::KeepAlive),
        };
        frame::encode::<CONTROL_FRAME_LEN_MAX>(&request, &mut frame).unwrap();
        frame[3] += 1;
        frame.push(0);
        frame
    };
    for bytes in [&oversized[..], &nonsense, &trailing] {
        let mut client = server.connect();
        client.stream.write_all(bytes).unwrap();
        assert_eq!(client.bye(), ByeReason::Malformed);
        assert_eq!(client.read_to_end(), 0);
    }
    let mut before_hello = Client::shake(server.tcp(), server.config()).unwrap();
    before_hello.stream.write_all(&oversized).unwrap();
    assert_eq!(before_hello.read_to_end(), 0);
    let mut truncated = server.connect();
    truncated.stream.write_all(&[0, 0, 1]).unwrap();
    truncated.stream.flush().unwrap();
    truncated.stream.sock.shutdown(Shutdown::Both).unwrap();

    assert_eq!(
        witness.ask(DeviceRequest::KeepAlive),
        DeviceAnswer::Done.into()
    );
    drop(half_open);
}

#[test]
fn t20_every_flipped_byte_of_a_record_ends_that_connection_only() {
    let server = Running::start();
    let mut witness = server.member("alice", 1);
    for position in 0..12 {
        let mut client = server.connect();
        let id = RequestId(1);
        let request = Request::Device(DeviceRequest::KeepAlive);
        let mut plain = Vec::new();
        frame::encode::<CONTROL_FRAME_LEN_MAX>(&RequestFrame { id, request }, &mut plain).unwrap();
        client.stream.conn.writer().write_all(&plain).unwrap();
        let mut record = Vec::new();
        client.stream.conn.write_tls(&mut record).unwrap();
        record[position] ^= 0x40;
        client.stream.sock.write_all(&record).unwrap();
        client.stream.sock.shutdown(Shutdown::Write).unwrap();
        assert!(ends(&mut client.stream.sock), "{position}");
    }
    assert_eq!(
        witness.ask(DeviceRequest::KeepAlive),
        DeviceAnswer::Done.into()
    );
}

#[test]
fn without_our_alpn_there_is_no_session() {
    let server = Running::start();
    for alpn in [Vec::new(), vec![b"h2".to_vec()]] {
        let mut config = ClientConfig::clone(&server.config());
        config.alpn_protocols = alpn;
        let greeted = Client::on(server.tcp(), Arc::new(config));
        assert!(greeted.is_err());
    }
}

#[test]
fn whoever_does_not_read_is_cut_off() {
    let server = Running::start();
    let mut client = server.member("alice", 1);
    client.announce();
    let socket = &client.stream.sock;
    // The server stops reading first, and ends the session that it hears no more.
    socket.set_write_timeout(Some(2 * DEADLINE)).unwrap();
    let mut sent = 0;
    let cut_off = loop {
        let request = Request::Directory(DirectoryRequest::List { after: None });
        if let Err(error) = client.send(request) {
            break error;
        }
        sent += 1;
        assert!(sent < 2_000_000, "the server buffers without end");
    };
    assert!(
        matches!(
            cut_off.kind(),
            io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe
        ),
        "{cut_off}"
    );
    let mut witness = server.member("bob", 2);
    assert_eq!(
        witness.ask(DeviceRequest::KeepAlive),
        DeviceAnswer::Done.into()
    );
}

#[test]
fn a_burst_of_questions_is_answered_as_fast_as_the_answers_are_read() {
    const QUESTIONS: u32 = 8000;
    let server = Running::start();
    let mut client = server.member("alice", 1);
    client.announce();
    let mut burst = Vec::new();
    for number in 0..QUESTIONS {
        let id = RequestId(1_000_000 + number);
        let request = Request::Directory(DirectoryRequest::List { after: None });
        frame::encode::<CONTROL_FRAME_LEN_MAX>(&RequestFrame { id, request }, &mut burst).unwrap();
    }
    client.stream.write_all(&burst).unwrap();
    let mut len = 0;
    for number in 0..QUESTIONS {
        let answer: ServerFrame = client.next().unwrap();
        let ServerFrame::Answer { id, .. } = &answer else {
            panic!("{answer:?}");
        };
        assert_eq!(*id, RequestId(1_000_000 + number));
        let mut bytes = Vec::new();
        frame::encode::<CONTROL_FRAME_LEN_MAX>(&answer, &mut bytes).unwrap();
        len += bytes.len();
    }
    assert!(
        len > SEND_QUEUE_LEN_MAX,
        "a burst of {len} bytes shows nothing"
    );
}

#[test]
fn t28_used_up_descriptors_come_back() {
    let data = TempDir::new().unwrap();
    let server = Running::limited("-n 64", data);
    let crowd: Vec<_> = (0..120).map(|_| server.tcp()).collect();
    drop(crowd);
    let mut client = server.connect();
    assert_eq!(
        client.ask(DeviceRequest::KeepAlive),
        Answer::Refused(Refusal::NotLoggedIn)
    );
}
