//! What both sides of the messenger must agree on.
//!
//! A **rendezvous** server authenticates peers and hands out their UDP endpoints; **peers** talk to
//! each other directly. Everything that two programs of this project say to each other is defined
//! here, once: the bytes on the wire, the keys, the password log-in, the TLS configurations and the
//! bounds of it all. `PROTOCOL.md` beside this crate describes the same for other implementations.
//!
//! Nothing in here performs I/O, reads a clock or keeps a global state, except for `os` behind the
//! feature of the same name: what both programs need from the system, which the engines build without.
//! The few functions that need randomness take a seed, except those that say otherwise.

// Which addresses others may be sent to.
pub mod candidate;
// Leaves of 1 MiB and the digest of a whole file, both plain BLAKE3.
pub mod hash;
// Names and numbers that identify accounts, devices, messages and transfers.
pub mod id;
// Device keys (Ed25519), their signatures and fingerprints.
pub mod key;
// Every bound of the project with its reason.
pub mod limits;
// What both programs need from the system: files, locks, clocks, sockets, threads, SQLite.
#[cfg(feature = "os")]
pub mod os;
// OPAQUE, both sides: passwords that the server never learns.
pub mod password;
// STUN Binding, both sides.
pub mod stun;
// The one gate between text from outside and a terminal.
pub mod text;
// Moments and spans as they stand on the wire.
pub mod time;
// TLS: the server's identity, pinning, and raw public keys between peers.
pub mod tls;
// Frames, the codec, and the messages of both protocols.
pub mod wire;
