//! The engine alone: inputs in, outputs out, no sockets. Log-ins are real OPAQUE.

#![expect(
    clippy::unwrap_used,
    reason = "a helper of a test fails as the test does"
)]

/// Long times that pass at once.
mod clocks;
/// Datagrams of the relay on control connections.
mod control_relay;
/// Who is online, in pages and pushes.
mod directory;
/// What is told of a device that is enrolled.
mod enrolments;
/// The logs of accounts.
mod identities;
/// Whom a device is introduced to.
mod introductions;
/// How many log-ins may fail.
mod lockout;
/// What presence costs.
mod presence;
/// Signatures and tokens.
mod proofs;
/// Registration.
mod registration;
/// Connections from their first byte to their last.
mod sessions;
/// An engine with its store and threads, and peers that talk to it.
mod world;
