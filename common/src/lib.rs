//! Everything that peers and the rendezvous server have to agree on.
//!
//! A **rendezvous** server authenticates peers and hands out their UDP endpoints; **peers** talk to
//! each other directly. This crate defines what they exchange, once: the encoding, the keys, the
//! password log-in, the TLS configurations and all limits. `PROTOCOL.md` beside it describes the same
//! for other implementations.
//!
//! Nothing in this crate performs I/O, reads a clock or has global state, except for `os` behind the
//! feature of the same name: what both programs need from the system, without which the engines build.
//! Functions that need randomness take a seed, unless their documentation says otherwise.

/// Implements `From` of each part for an enum of parts: `from_parts!(PeerFrame { Chat(ChatFrame) })`.
#[macro_export]
macro_rules! from_parts {
    ($whole:ty { $($variant:ident($part:ty)),+ $(,)? }) => {
        $(impl From<$part> for $whole {
            fn from(part: $part) -> Self {
                Self::$variant(part)
            }
        })+
    };
}

// Accounts with an identity of their own: which devices they have, by a log that those sign.
pub mod account;
// The addresses that a candidate may have.
pub mod candidate;
// The hashes of a file's leaves and its digest, both plain BLAKE3.
pub mod hash;
// Identifiers of accounts, devices, messages and transfers.
pub mod id;
// Device keys (Ed25519), their signatures and fingerprints.
pub mod key;
// Names of devices on a local network.
pub mod lan;
// Every limit of the project, with its reason.
pub mod limits;
// Replicated logs: entries, their hash chains and seals.
pub mod log;
// What both programs need from the system: files, locks, clocks, sockets, threads, SQLite.
#[cfg(feature = "os")]
pub mod os;
// OPAQUE, client and server: the server never learns a password.
pub mod password;
// The made-up addresses of relayed paths.
pub mod relayed;
// STUN Binding, client and server.
pub mod stun;
// Escapes untrusted text for terminals.
pub mod text;
// Wall-clock time on the wire and in engines.
pub mod time;
// TLS: the server's identity, pinning, and raw public keys between peers.
pub mod tls;
// The codec, and the frames of both protocols.
pub mod wire;
