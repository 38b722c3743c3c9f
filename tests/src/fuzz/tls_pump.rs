//! TLS over a socket, on both sides: the project's own connections at one end of a real socket, bytes
//! of a fuzzer at the other, alone or within and after the handshake of an honest counterpart.

use std::io::{ErrorKind, Read, Write};
use std::sync::{Arc, OnceLock};

use common::key::Fingerprint;
use common::tls::{ServerIdentity, ServerTrust, rendezvous_client_config};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, ServerConfig};

use super::feed::Feed;

// The peer's end of the control connection.
mod client;
// The server's end.
mod server;

/// Pieces in which bytes arrive at most.
const PIECES_MAX: usize = 64;
/// Turns after which a connection that always has more to do would never stop.
const TURNS_MAX: usize = 10_000;

pub(super) fn tls_pump(bytes: &[u8]) {
    let mut feed = Feed(bytes);
    let is_server = feed.flag();
    let start = match feed.below(4) {
        0 => Start::Nothing,
        1 => Start::Tampered,
        2 => Start::Below,
        _ => Start::Above,
    };
    if is_server {
        server::run(start, &mut feed);
    } else {
        client::run(start, &mut feed);
    }
}

/// What comes before the fuzzer's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Start {
    /// Nothing: they are the first.
    Nothing,
    /// A handshake that they change.
    Tampered,
    /// A whole handshake; they come instead of what is encrypted.
    Below,
    /// A whole handshake; they are encrypted.
    Above,
}

/// A server's configuration, its clients', and the key that they know; made once.
struct Configs {
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
    fingerprint: Fingerprint,
}

fn configs() -> &'static Configs {
    static CONFIGS: OnceLock<Configs> = OnceLock::new();
    CONFIGS.get_or_init(|| {
        let pem = ServerIdentity::generate_pem();
        let identity = ServerIdentity::from_pem(pem.as_bytes()).expect("it was just made");
        let fingerprint = identity.fingerprint().expect("it was just made");
        let trust = ServerTrust::Pinned(fingerprint);
        Configs {
            server: identity.into_server_config().expect("they belong together"),
            client: rendezvous_client_config(&trust).expect("pinning needs no roots"),
            fingerprint,
        }
    })
}

/// Changes what is on its way: turns bits over, cuts, puts something in between or in its place.
fn tamper(feed: &mut Feed<'_>, flight: &mut Vec<u8>) {
    let place = usize::from(u16::from_le_bytes(feed.array()));
    let place = place % flight.len().max(1);
    match feed.below(5) {
        0 => {
            let bits = feed.byte();
            if let Some(byte) = flight.get_mut(place) {
                *byte ^= bits;
            }
        }
        1 => flight.truncate(place),
        2 => drop(flight.splice(place..place, feed.piece().iter().copied())),
        3 => *flight = feed.piece().to_vec(),
        _ => {}
    }
}

/// Reads what has arrived and forgets it; a socket whose other end does not read would fill up.
fn discard(socket: &mut impl Read) {
    let mut bytes = [0; 4096];
    loop {
        match socket.read(&mut bytes) {
            Ok(0) => return,
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => return,
        }
    }
}

/// Writes as much as a socket takes; what it does not take is lost, as its other end may be gone.
fn put(socket: &mut impl Write, bytes: &[u8]) {
    let _ = socket.write_all(bytes);
}

/// The first flight of an honest client.
pub(super) fn client_hello() -> Vec<u8> {
    let name = ServerName::try_from("rendezvous").expect("a plain name");
    let client = ClientConnection::new(configs().client.clone(), name);
    let mut flight = Vec::new();
    let mut client = client.expect("the configuration is good");
    client.write_tls(&mut flight).expect("a Vec takes all");
    flight
}
