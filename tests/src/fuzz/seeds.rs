//! Inputs to begin with: something valid of each kind, so that a fuzzer need not find the grammar.

use std::fs;
use std::path::Path;

use common::id::MessageId;
use common::key::{DeviceSecret, Fingerprint};
use common::limits::{CONTROL_FRAME_LEN_MAX, LINK_FRAME_LEN_MAX, PAGE_FRAME_LEN_MAX};
use common::log::{
    ChainId, Clock, ConversationId, EntryId, Header, HeaderHash, Kind, Outline, RunId, Sequence,
};
use common::stun::{TwoPorts, binding_answer, binding_request, probe, server_answer};
use common::wire::frame::{self, PREFIX_LEN};
use common::wire::rendezvous::{AdmissionCode, Hello, RequestFrame, RequestId};
use common::wire::samples;
use serde::Serialize;

use super::node_host::COMMANDS;
use super::tls_pump::client_hello;

/// Those inputs of a target that its folder does not have, or has otherwise, by their names.
///
/// What TLS draws differs from run to run, so of `tls_pump` only the missing ones are.
pub fn stale(target: &str, folder: &Path) -> Vec<(String, Vec<u8>)> {
    let named = of(target).into_iter().enumerate();
    let named = named.map(|(n, bytes)| (format!("seed-{n:02}"), bytes));
    named
        .filter(|(name, bytes)| match fs::read(folder.join(name)) {
            Ok(_) if target == "tls_pump" => false,
            Ok(has) => has != *bytes,
            Err(_) => true,
        })
        .collect()
}

/// The inputs of a target, the same at each call but for what TLS draws; none for an unknown target.
pub fn of(target: &str) -> Vec<Vec<u8>> {
    match target {
        "frames" => streams(),
        "rendezvous_frames" => rendezvous_bodies(),
        "peer_frames" => peer_bodies(),
        "stun" => datagrams(),
        "relay" => channels(),
        "port_mapping" => gateways(),
        "log" => logs(),
        "account" => (0..4).map(|n| noise(n, 400)).collect(),
        "texts" => texts().map(|text| text.into()).to_vec(),
        "file_names" => FILE_NAMES.map(|name| name.into()).to_vec(),
        "config" => files(),
        "tls_pump" => pumped(),
        "server_engine" => server_scripts(),
        "node_engine" => node_scripts(),
        "link" => link_scripts(),
        "world" => (0..4).map(|n| noise(n, 240)).collect(),
        _ => Vec::new(),
    }
}

/// Bytes without a meaning, always the same: decisions of all kinds.
pub(super) fn noise(n: u8, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    let mut hasher = blake3::Hasher::new();
    hasher.update(&[n]).finalize_xof().fill(&mut bytes);
    bytes
}

// ---- messages ----------------------------------------------------------------------------------

fn encoded<const MAX: usize>(message: &impl Serialize) -> Vec<u8> {
    let mut bytes = Vec::new();
    frame::encode::<MAX>(message, &mut bytes).expect("a small message");
    bytes
}

/// Every request, each with a number of its own.
fn requests() -> Vec<RequestFrame> {
    let mut frames = samples::request_frames();
    for (frame, id) in frames.iter_mut().zip(1..) {
        frame.id = RequestId(id);
    }
    frames
}

fn streams() -> Vec<Vec<u8>> {
    let requests: Vec<u8> = requests()
        .iter()
        .flat_map(encoded::<CONTROL_FRAME_LEN_MAX>)
        .collect();
    let messages: Vec<u8> = samples::peer_frames()
        .iter()
        .flat_map(encoded::<LINK_FRAME_LEN_MAX>)
        .collect();
    let small = encoded::<64>(&(1u64 << 40, "text", [1u16, 500]));
    vec![
        [&[0, 2, 3, 7][..], &small, &small].concat(),
        [&[0, 0][..], &small, &u32::MAX.to_be_bytes()].concat(),
        [&[1, 3, 1, 100, 5][..], &requests].concat(),
        [&[2, 1, 64][..], &messages].concat(),
    ]
}

fn body<const MAX: usize>(message: &impl Serialize) -> Vec<u8> {
    encoded::<MAX>(message)[PREFIX_LEN..].to_vec()
}

fn bodies<const MAX: usize>(messages: &[impl Serialize]) -> Vec<Vec<u8>> {
    messages.iter().map(body::<MAX>).collect()
}

fn rendezvous_bodies() -> Vec<Vec<u8>> {
    const MAX: usize = CONTROL_FRAME_LEN_MAX;
    [
        bodies::<MAX>(&samples::hellos()),
        bodies::<MAX>(&samples::hello_answers()),
        bodies::<MAX>(&samples::request_frames()),
        bodies::<MAX>(&samples::server_frames()),
    ]
    .concat()
}

fn peer_bodies() -> Vec<Vec<u8>> {
    const MAX: usize = LINK_FRAME_LEN_MAX;
    [
        bodies::<MAX>(&samples::peer_hellos()),
        bodies::<MAX>(&samples::leaf_headers()),
        bodies::<MAX>(&samples::peer_frames()),
        bodies::<PAGE_FRAME_LEN_MAX>(&samples::log_frames()),
    ]
    .concat()
}

fn datagrams() -> Vec<Vec<u8>> {
    let request = binding_request(77);
    let source = ([192, 0, 2, 1], 4242).into();
    let answer = binding_answer(&request, source).expect("a request of ours");
    let ports = TwoPorts {
        ip: [192, 0, 2, 2].into(),
        asked: 7400,
        other: 7401,
    };
    let two_ports = server_answer(&request, source, Some(ports));
    let two_ports = two_ports.and_then(|answer| answer.full);
    let two_ports = two_ports.expect("there is a second port");
    let from = |kind: u8, datagram: &[u8]| [&[kind, 16, 146, 192, 0, 2, 1], datagram].concat();
    vec![
        from(0, &request),
        from(1, &request),
        from(2, &request),
        from(0, &answer),
        from(0, &request[..20]),
        from(0, &probe(77, true)),
        from(2, &probe(77, false)),
        from(0, &two_ports),
    ]
}

/// Gateways that grant a port by each protocol, are asked again, and begin anew; and noise.
fn gateways() -> Vec<Vec<u8>> {
    // An hour, an epoch, the port 40000 at an address outside.
    let (lifetime, epoch) = ([0, 0, 14, 16], [0, 0, 1, 0]);
    let (port, outside) = ([156, 64], [203, 0, 113, 9]);
    let (untouched, from_gateway, wait) = ([0], [7], [5]);
    let end = [&untouched[..], &from_gateway].concat();
    let pcp = [&[0, 1, 0][..], &lifetime, &epoch, &port, &outside, &end].concat();
    let has_no_pcp = [&[0, 1, 1], &[0; 14][..], &end].concat();
    let address = [&[0, 1, 0][..], &epoch, &outside, &end].concat();
    let nat_pmp = [&[0, 1, 0][..], &epoch, &port, &lifetime, &end].concat();
    let upnp = [&[8, 4, 1][..], &outside, &port, &[176, 4, 0, 0]].concat();
    let begun_anew = [&[7][..], &[0; 4], &[1], &from_gateway].concat();
    let give_back = [9, 1];
    let mut all = vec![
        [&pcp[..], &wait, &pcp, &begun_anew, &wait, &pcp, &give_back].concat(),
        [
            &has_no_pcp[..],
            &address,
            &nat_pmp,
            &wait,
            &address,
            &nat_pmp,
        ]
        .concat(),
        [&upnp[..], &wait, &upnp[1..], &give_back].concat(),
        [5; 40].to_vec(),
    ];
    all.extend((0..3).map(|n| noise(n, 400)));
    all
}

/// Another channel whose ends become bound, and packets; and noise.
fn channels() -> Vec<Vec<u8>> {
    // A third peer comes, and has a channel with the second.
    let (allocate, bind, prove, open) = ([7, 0, 2], [2, 2, 0], [3, 2, 0], [0, 1]);
    let packet = [2, 9, 1, 1];
    let batch = |at| [&[4, at, 3, 1][..], &packet, &packet].concat();
    let bound = [&allocate[..], &bind, &prove, &open, &batch(0), &batch(1)];
    let mut all = vec![bound.concat()];
    all.extend((0..3).map(|n| noise(n, 400)));
    all
}

// ---- texts -------------------------------------------------------------------------------------

fn texts() -> [String; 9] {
    let fingerprint = Fingerprint::of_spki(&samples::device_key().to_spki()).to_string();
    let hostile = "a\u{1b}]52;c;eA==\u{7}b\rc\u{202e}d\u{200d}e\u{9b}31mf\u{7f}\n\u{2028}";
    [
        "Alice.b_c-9".to_owned(),
        "alice's laptop \u{1f4bb}".to_owned(),
        MessageId::from_bytes([0x0f; 16]).to_string(),
        fingerprint,
        AdmissionCode::from_random(0x1234_5678_9abc).to_string(),
        "ooooo-llll1".to_owned(),
        hostile.to_owned(),
        "Grüße, 你好, ראש, <b>&amp;</b> 👍\nsecond line".to_owned(),
        "👩🏽\u{200d}🚀 می\u{200c}خواهم क्\u{200c}ष ශ්\u{200d}රී pay\u{200d}pal".to_owned(),
    ]
}

const FILE_NAMES: [&str; 15] = [
    "report.pdf",
    "archive.tar.gz",
    "../x",
    "C:\\x",
    "COM1.txt",
    ".bashrc",
    "a\u{202e}fdp.exe",
    "e\u{301}.txt",
    "10:30.png",
    "%2e%2e%2fx",
    "x\u{ff0f}y",
    "a ",
    "🏳\u{fe0f}\u{200d}🌈.png",
    "می\u{200c}خواهم.txt",
    ".a\\con. ",
];

fn files() -> Vec<Vec<u8>> {
    let fingerprint = Fingerprint::of_spki(&samples::device_key().to_spki());
    let known = format!("# trusted\n\nexample.org:7400 {fingerprint}\n[::1]:1 {fingerprint}\n");
    let settings = "version = 1\nserver = \"example.org:7400\"\ntrust = \"pinned\"\n\
                    account = \"alice\"\ndevice_name = \"laptop\"\n";
    let texts: [(u8, &str); 25] = [
        (0, "Chat.Example.org"),
        (0, "192.0.2.7:7401"),
        (0, "[2001:db8::7]:99"),
        (0, "2001:db8::7"),
        (1, settings),
        (1, "version = 2\nfancy = true\n"),
        (2, &known),
        (3, "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=\n"),
        (4, "ask"),
        (4, "from alice bob"),
        (5, r#"{"jsonrpc":"2.0","id":1,"method":"subscribe"}"#),
        (
            5,
            r#"{"jsonrpc":"2.0","id":"a","method":"status","params":{}}"#,
        ),
        (
            5,
            r#"{"jsonrpc":"2.0","id":1,"method":"log_in","params":{"account":"alice","password":"secret","code":null}}"#,
        ),
        (
            5,
            r#"{"jsonrpc":"2.0","id":1,"method":"send","params":{"to":["bob"],"body":"hi","sent":1}}"#,
        ),
        (
            5,
            r#"{"jsonrpc":"2.0","id":1,"method":"send_file","params":{"to":"bob","path":"/x"}}"#,
        ),
        (
            5,
            r#"{"jsonrpc":"2.0","id":1,"method":"answer_offer","params":{"transfer":"02020202020202020202020202020202","folder":"/"}}"#,
        ),
        (
            5,
            r#"{"jsonrpc":"2.0","id":1,"method":"history","params":{"with":null,"limit":10}}"#,
        ),
        (
            5,
            r#"{"jsonrpc":"2.0","method":"mark_read","params":{"ids":["02020202020202020202020202020202"]}}"#,
        ),
        (
            5,
            r#"{"jsonrpc":"2.0","id":null,"method":"nothing","params":[]}"#,
        ),
        (
            6,
            r#"{"jsonrpc":"2.0","id":1,"method":"remove_account","params":{"account":"alice"}}"#,
        ),
        (
            6,
            r#"{"jsonrpc":"2.0","id":1,"method":"list_accounts","params":{"after":"alice"}}"#,
        ),
        (
            6,
            r#"{"jsonrpc":"2.0","id":1,"method":"admit","params":{"account":"alice"}}"#,
        ),
        (
            6,
            r#"{"jsonrpc":"2.0","id":1,"method":"unblock","params":{"account":"alice"}}"#,
        ),
        (
            6,
            r#"{"jsonrpc":"2.0","id":1,"method":"add_account","params":{"account":"alice","record":"AAAA"}}"#,
        ),
        (
            7,
            "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIAEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEB\n-----END PRIVATE KEY-----\n",
        ),
    ];
    let files = texts.map(|(kind, text)| [&[kind], text.as_bytes()].concat());
    files.to_vec()
}

// ---- logs --------------------------------------------------------------------------------------

fn logs() -> Vec<Vec<u8>> {
    let device = DeviceSecret::from_seed([1; 32]).public();
    let run = RunId::from_bytes([1; 16]);
    let id = EntryId {
        chain: ChainId { device, run },
        sequence: Sequence::FIRST,
    };
    let outline = Outline::new(Clock::from_bits(1), Kind::TEXT, b"hello");
    let header = outline.map(|outline| Header {
        conversation: ConversationId::from_bytes([1; 32]),
        chain: id.chain,
        sequence: id.sequence,
        previous: HeaderHash::NONE,
        outline,
    });
    let header = header.map(|header| header.to_bytes().to_vec());
    let bodies = [
        (Kind::TEXT, b"hello".to_vec()),
        (Kind::REPLY, [&id.to_bytes()[..], b"hello"].concat()),
        (Kind::DELETE, id.to_bytes().to_vec()),
        (Kind::SESSION, [[0; 8], [1; 8]].concat()),
        (Kind(77), b"newer".to_vec()),
    ];
    let bodies = bodies.map(|(kind, body)| [&[0, kind.0][..], &body].concat());
    // A page of one of the author's ways: first entry less one, length less one, source, sealed, untouched.
    let page = |way, first, len, source| [0, 0, way, first, len, source, 1, 0];
    let commit = [0, 7];
    let whole = [page(0, 0, 63, 0), page(0, 64, 15, 0)].concat();
    // Two stretches from where they part, of either way.
    let fork = [0, 4, 0, 1, 5, 1, 1, 5];
    // A cut after two entries: first a run, then the entry, then its seal.
    let cut = [0, 5, 1, 1, 0, 5, 1, 1, 0, 6];
    let give = [0, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 10, 0];
    let unsealed = [0, 0, 0, 0, 9, 1, 0, 0];
    let [seal, revoke] = [[0, 3, 0, 9, 0], [0, 12, 1, 0, 0]];
    let commits = commit.repeat(6);
    let mut all: Vec<Vec<u8>> = vec![
        [&[1][..], &whole, &commits, &give].concat(),
        [
            &[1][..],
            &whole,
            &commits,
            &fork,
            &commits,
            &page(1, 40, 3, 0),
        ]
        .concat(),
        [&[1][..], &whole, &commits, &cut, &commits].concat(),
        [&[1][..], &unsealed, &seal, &commits, &revoke, &commits].concat(),
    ];
    all.extend(header.map(|header| [&[0, 0][..], &header].concat()));
    all.extend(bodies);
    all.extend((0..4).map(|n| [&[1][..], &noise(n, 1500)].concat()));
    all
}

// ---- connections -------------------------------------------------------------------------------

/// A piece, with its length in front.
fn piece(bytes: &[u8]) -> Vec<u8> {
    let len = u16::try_from(bytes.len()).expect("a short piece");
    [&len.to_le_bytes(), bytes].concat()
}

fn pumped() -> Vec<Vec<u8>> {
    let hello = encoded::<CONTROL_FRAME_LEN_MAX>(&Hello::ours("fuzz"));
    let last = requests().pop();
    let last = last.map(|last| encoded::<CONTROL_FRAME_LEN_MAX>(&last));
    let last = last.unwrap_or_default();
    let alert = [21, 3, 3, 0, 2, 2, 40];
    let mut seeds = vec![
        [&[1, 3][..], &piece(&hello), &piece(&last)].concat(),
        [&[1, 3][..], &piece(&hello), &piece(&[0xff; 5])].concat(),
        [&[1, 0][..], &piece(&client_hello())].concat(),
        [&[0, 3][..], &piece(&hello), &piece(&[1; 300])].concat(),
        [&[0, 0][..], &piece(&alert)].concat(),
    ];
    for side in [0, 1] {
        seeds.push([&[side, 2][..], &piece(&alert)].concat());
        seeds.push([&[side, 2][..], &piece(&[23, 3, 3, 0, 20]), &piece(&[9; 20])].concat());
        // A bit turned over, a flight cut, one in its place.
        seeds.push(vec![side, 1, 60, 0, 0, 1, 0, 0, 4]);
        seeds.push(vec![side, 1, 100, 0, 1]);
        seeds.push([&[side, 1, 0, 0, 3][..], &piece(&alert)].concat());
    }
    seeds
}

// ---- engines -----------------------------------------------------------------------------------

fn server_scripts() -> Vec<Vec<u8>> {
    // Connected and greeted; a token of alice's; the store answers.
    let member: &[u8] = &[1, 9, 1, 4, 0, 0, 0, 0, 8, 15, 8, 15, 8, 15];
    let everything: Vec<u8> = (5..14)
        .flat_map(|kind| [vec![5, 0, kind], vec![0; 6], vec![8, 15]].concat())
        .collect();
    // A password log-in: begun, loaded, computed, finished, computed, enrolled.
    let log_in: &[u8] = &[
        1, 9, 1, 5, 0, 2, 0, 0, 1, 1, 0, 1, 8, 15, 8, 15, 11, 7, 0, 8, 15, 5, 0, 4, 1, 1, 11, 1, 0,
        8, 15, 8, 15, 13, 0, 100,
    ];
    // A registration likewise.
    let register: &[u8] = &[
        1, 9, 1, 5, 0, 0, 3, 7, 1, 1, 8, 15, 11, 7, 0, 5, 0, 1, 1, 1, 1, 8, 15, 8, 15,
    ];
    let operator: Vec<u8> = (0..5)
        .flat_map(|kind| [15, 0, kind, 8, 15, 8, 15])
        .collect();
    let raw: Vec<u8> = requests()
        .iter()
        .flat_map(|frame| [vec![3, 0], piece(&body::<CONTROL_FRAME_LEN_MAX>(frame))].concat())
        .collect();
    vec![
        [member, &everything].concat(),
        log_in.to_vec(),
        register.to_vec(),
        [member, &operator, &[13, 1, 60, 13, 3]].concat(),
        [&[1, 9, 1][..], &raw].concat(),
        [member, &raw].concat(),
        noise(1, 600),
        noise(2, 2000),
    ]
}

fn node_scripts() -> Vec<Vec<u8>> {
    // Connected, welcomed, and every request answered as it should be.
    let mut online = vec![0, 0, 1, 0, 7];
    for _ in 0..6 {
        online.extend([4, 0, 9, 0, 0, 12, 7]);
    }
    let commands: Vec<u8> = (0..COMMANDS)
        .flat_map(|kind| [10, 1, kind, 2, 0, b'h', b'i', 0, 0, 0, 0, 12, 7])
        .collect();
    let frames: Vec<u8> = samples::server_frames()
        .iter()
        .flat_map(|frame| {
            let bytes = encoded::<CONTROL_FRAME_LEN_MAX>(frame);
            [vec![3], piece(&bytes)].concat()
        })
        .collect();
    let datagram = [vec![16, 0], piece(&[0xc0; 1200]), vec![0]].concat();
    // A network, whose neighbours announce the devices of four contacts there and take back one.
    let mut neighbours = vec![19, 0, 1, 15, 24, 2];
    for device in 0..4 {
        neighbours.extend([19, 254, device, device, 1, 2, device % 2, 7]);
    }
    neighbours.extend([19, 254, 1, 1, 0]);
    vec![
        online.clone(),
        [&online[..], &commands].concat(),
        [&online[..], &frames].concat(),
        [&online[..], &[17, 1, 18, 1, 255], &datagram].concat(),
        noise(1, 600),
        noise(2, 2000),
        [&neighbours[..], &commands].concat(),
    ]
}

fn link_scripts() -> Vec<Vec<u8>> {
    let message = [&[2, 0, 0, 9, 1, 0, 0, 0][..], &piece(b"hello")].concat();
    let offer = [&[2, 0, 4, 1, 200][..], &piece(b"report.pdf"), &[0]].concat();
    // Accepted, created; the leaf, written; the digest, finished.
    let receive: &[u8] = &[
        9, 1, 12, 0, 1, 13, 0, 1, 1, 6, 0, 1, 3, 13, 0, 1, 2, 0, 8, 0, 13, 0, 1,
    ];
    // A file of ours: opened, accepted, read, received.
    let send: &[u8] = &[
        9, 1, 10, 13, 0, 1, 0, 9, 1, 0, 0, 1, 0, b'x', 0, 2, 0, 6, 0, 13, 0, 1, 2, 0, 10,
    ];
    let raw: Vec<u8> = samples::peer_frames()
        .iter()
        .flat_map(|frame| [vec![1], piece(&encoded::<LINK_FRAME_LEN_MAX>(frame))].concat())
        .collect();
    vec![
        [&[0][..], &message, &[12, 1, 9, 1, 17, 0]].concat(),
        [&[0][..], &offer, receive].concat(),
        [&[0][..], send].concat(),
        [&[0][..], &raw].concat(),
        [&[1][..], &piece(&[0xff; 8])].concat(),
        noise(1, 400),
        noise(2, 1500),
    ]
}
