//! The peer: one device of one account.
//!
//! It logs in to a rendezvous, learns there where other devices are, and talks to them directly over
//! one UDP socket of its own: messages with receipts, and files, all over QUIC with mutual
//! authentication by device keys.
//!
//! [`node`] is the engine: every decision, no I/O. The `shell` around it, behind the feature of the
//! same name, owns sockets, files, threads and the terminal, and makes no decisions.

/// The engine.
pub mod node;
#[cfg(feature = "shell")]
/// Sockets, files and threads around the engine.
pub mod shell;

#[cfg(feature = "shell")]
mod args;
#[cfg(feature = "shell")]
mod client;
#[cfg(feature = "shell")]
/// The program's command line.
pub mod commands;
#[cfg(feature = "shell")]
mod config;
#[cfg(feature = "shell")]
mod profile;
#[cfg(feature = "shell")]
mod ui;
