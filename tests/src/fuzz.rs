//! What fuzzing checks: one function for each target, from bytes to a panic if something is wrong.
//!
//! The programs in `tests/fuzz` call these with whatever a fuzzer thinks of, and the test `corpus` with
//! the files that are kept in `tests/fuzz/corpus`. A function reads its bytes as decisions, so that
//! every input means something, and draws no chance of its own; what rustls and QUIC draw themselves
//! differs from run to run and must not matter.

// The log of an account.
mod account;
// Files, lines and texts of people: settings, known servers, requests of programs.
mod config;
// Bytes as decisions.
mod feed;
// A peer at the other end of a link, saying what it likes.
mod link;
// Entries of logs, and a replica among liars.
mod log;
// A peer's engine, with any rendezvous, network, disk and person.
mod node_engine;
// A node with its shell's queues.
mod node_host;
// A gateway that is asked for a port.
mod port_mapping;
// Inputs to begin with.
pub mod seeds;
// Relay channels, and peers that lie about where they are.
mod relay;
// The server's engine, with any clients, store and operator.
mod server_engine;
// Datagrams at the server's UDP port, and its answers.
mod stun;
// What reaches a terminal or a disk, and names that people see.
mod text;
// TLS over a socket, on both sides.
mod tls_pump;
// Whether a generator forgets a word.
#[cfg(test)]
mod vocabulary;
// Frames and the messages of both protocols.
mod wire;
// The simulated world.
mod world;

use std::time::{Duration, Instant};

/// A fuzz target.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// The name of its program and of its folder in the corpus.
    pub name: &'static str,
    /// What it does with its bytes; panics if something is wrong.
    pub run: fn(&[u8]),
}

/// All of them, in the order of what they are about: bytes, texts, connections, engines, the whole.
pub const TARGETS: [Target; 16] = [
    target("frames", frames),
    target("rendezvous_frames", rendezvous_frames),
    target("peer_frames", peer_frames),
    target("stun", stun),
    target("relay", relay),
    target("port_mapping", port_mapping),
    target("log", log),
    target("account", account),
    target("texts", texts),
    target("file_names", file_names),
    target("config", config),
    target("tls_pump", tls_pump),
    target("server_engine", server_engine),
    target("node_engine", node_engine),
    target("link", link),
    target("world", world),
];

const fn target(name: &'static str, run: fn(&[u8])) -> Target {
    Target { name, run }
}

/// A stream of frames means the same whatever pieces it comes in: the same values, then the same error
/// or the same rest; and a buffer whose frames were taken out holds less than the longest frame.
pub fn frames(bytes: &[u8]) {
    wire::frames(bytes);
}

/// Every message between a peer and the rendezvous that decodes keeps the bounds of the protocol, is no
/// longer when encoded again, and decodes to itself.
pub fn rendezvous_frames(bytes: &[u8]) {
    wire::rendezvous_frames(bytes);
}

/// The same for every message between two peers.
pub fn peer_frames(bytes: &[u8]) {
    wire::peer_frames(bytes);
}

/// No datagram gets an answer that is longer than itself; an answer tells its request's transaction and
/// source and nothing else, and is never answered in turn.
pub fn stun(bytes: &[u8]) {
    stun::stun(bytes);
}

/// Packets go through the relay only between the two ends of an open channel, each at the address from which it
/// has returned a challenge last, and as they came.
pub fn relay(bytes: &[u8]) {
    relay::relay(bytes);
}

/// Whatever a gateway says, it is asked for one thing at a time, nobody else is believed, no endpoint is told that
/// leads elsewhere, and the machine comes to rest and to an end.
pub fn port_mapping(bytes: &[u8]) {
    port_mapping::port_mapping(bytes);
}

/// Entries mean their bytes and no others. Whatever an author and those who give on its entries say, a replica takes
/// nothing that is not sealed but from the author itself, says of nothing that it is on disk which is not, and gives no
/// more at a time than may be in flight.
pub fn log(bytes: &[u8]) {
    log::log(bytes);
}

/// Whatever is said in the log of an account, by whom and in whichever order it comes: whoever has the same entries has
/// the same devices, nobody is revoked by one below, and no forgery is taken.
pub fn account(bytes: &[u8]) {
    account::account(bytes);
}

/// What passed the gate to the terminal has nothing in it that moves a cursor, hides or reverses text,
/// and passes again as it is. Names, keys and codes that parse are shown as texts that parse to the same.
pub fn texts(bytes: &[u8]) {
    text::texts(bytes);
}

/// A file name that passes its gate, and every name that is made of it, is one plain visible component
/// that no system takes for something else.
pub fn file_names(bytes: &[u8]) {
    text::file_names(bytes);
}

/// Files of a profile, addresses of servers, and requests at the sockets of a peer and of a server are
/// read or refused; what was read is written as a text that reads the same.
pub fn config(bytes: &[u8]) {
    config::config(bytes);
}

/// The TLS connections of the server and of the peer survive any bytes: instead of a handshake, within
/// one, and after it both below and above the encryption. Each either waits or is over.
pub fn tls_pump(bytes: &[u8]) {
    tls_pump::tls_pump(bytes);
}

/// The server's engine comes to rest after every input, wants nothing in the past, answers each request
/// once and nobody after the end, and says nothing but refusals to whoever is not logged in.
pub fn server_engine(bytes: &[u8]) {
    server_engine::server_engine(bytes);
}

/// A node comes to rest after every input, wants nothing in the past, replies once to each command, has
/// at most one control connection on which it sends whole frames, and sends no packet to where none may go.
pub fn node_engine(bytes: &[u8]) {
    node_engine::node_engine(bytes);
}

/// A node whose friend breaks every rule of the link keeps its own: it stores messages of nobody else,
/// writes leaves only of transfers that were accepted and only whole, and bounds what is in the air.
pub fn link(bytes: &[u8]) {
    link::link(bytes);
}

/// A simulated world in which bytes decide what happens has no violation and comes to rest.
pub fn world(bytes: &[u8]) {
    world::world(bytes);
}

/// Far from the machine's own start, so that engines may look back.
#[expect(clippy::disallowed_methods, reason = "any instant will do as a start")]
fn beginning() -> Instant {
    Instant::now() + Duration::from_secs(100_000)
}
