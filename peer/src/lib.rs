//! The peer: one device of one account.
//!
//! It logs in to a rendezvous, learns there where other devices are, and talks to them directly over
//! one UDP socket of its own: messages with receipts, and files, all over QUIC with mutual
//! authentication by device keys.
//!
//! [`node`] is the engine: every decision, no I/O. The `shell` around it, behind the feature of the
//! same name, owns sockets, files, threads and the terminal, and makes no decisions.

// What was typed.
#[cfg(feature = "shell")]
mod args;
// A client of the profile's socket: every command is one.
#[cfg(feature = "shell")]
mod client;
// The commands, one path from what was typed to an exit code.
#[cfg(feature = "shell")]
pub mod commands;
// How a program of the person's ended.
#[cfg(feature = "shell")]
mod ended;
// A program that messages are handed over to.
#[cfg(feature = "shell")]
mod handler;
// What it means.
#[cfg(feature = "shell")]
pub mod config;
// What a chat screen knows, without a screen.
#[cfg(feature = "shell")]
mod conversation;
// Messages in the order of their arrival, those that were there and those that come.
#[cfg(feature = "shell")]
mod feed;
// How a command fails: an exit code, and what, why and what next in words.
#[cfg(feature = "shell")]
mod failure;
// Replicas of logs: what is taken, given on and shown.
pub mod log;
// The engine.
pub mod node;
// A port of the gateway's for this device.
pub mod port_mapping;
// The twelve words that bring an account back.
pub mod recovery;
// The folder of one device: keys, settings, history, and who owns it.
#[cfg(feature = "shell")]
pub mod profile;
// Sockets, files and threads around the engine.
#[cfg(feature = "shell")]
pub mod shell;
// What a node remembers, kept in memory: for tests.
pub mod store;
// What a person sees: lines, progress, prompts, JSON.
#[cfg(feature = "shell")]
mod ui;
