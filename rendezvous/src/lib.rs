//! The rendezvous server: it authenticates peers, keeps the directory of who is online, and hands out
//! their UDP endpoints. Peers then talk to each other directly; this server sees no message, no file
//! and no password.
//!
//! Two **engines** hold all decisions: [`server::Server`] for the control connections and
//! [`relay::Relay`] for datagrams. They are state machines without a socket, file, thread, clock or
//! randomness of their own. What happened goes in, what is to be done comes out, and time and a seed
//! are arguments. Slow work leaves as an output and returns as an input: [`store::StoreRequest`] for
//! what must last, [`server::Job`] for OPAQUE.
//!
//! The **shell** (feature `shell`) owns everything else: a mio loop with TLS over TCP, a thread that
//! owns the SQLite database, threads for OPAQUE, a thread for UDP, and the command line.
//!
//! A password log-in, from top to bottom:
//! ```text
//! peer          loop            engine                        store thread     OPAQUE thread
//!  | LoginStart  | Requested     |                              |                |
//!  |------------>|-------------->| Load the account ----------->|                |
//!  |             |               |<--------------------- Loaded |                |
//!  |             |               | counts the attempt: Save --->|   Login job -->|
//!  |             |               |<----------------------- Done |      KE2, state |
//!  |<------------|<--------------| LoginChallenge, when both are back            |
//!  | LoginFinish |               |                                  Finish job -->|
//!  |------------>|-------------->|<--------------------------------------- valid |
//!  |             |               | uncounts it: Enrol ---------->|                |
//!  |<------------|<--------------| LoggedIn                      |                |
//! ```

/// What was typed.
#[cfg(feature = "shell")]
pub mod args;
/// What it means.
#[cfg(feature = "shell")]
pub mod config;
/// The engine of the UDP port: STUN Binding.
pub mod relay;
/// The engine of the control connections: log-in, lock-out, directory.
pub mod server;
/// Sockets, threads and files around the engines.
#[cfg(feature = "shell")]
pub mod shell;
/// Source prefixes: whom counters take for one and the same.
pub mod source;
/// What must last: accounts, devices, lock-outs.
pub mod store;
// A rate limiter.
mod token_bucket;
