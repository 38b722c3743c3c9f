//! The engine: a peer without sockets, files, threads or a clock.
//!
//! [`Node`] is a state machine. The shell feeds it [`Input`]s with the time at which they came, drains
//! its [`Output`]s until the first [`Output::Wait`], and sleeps until something arrives or the deadline
//! passes.

use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use bytes::BytesMut;

/// What people ask and what they are told.
pub mod command;
/// What the shell does for the node.
pub mod io;
/// QUIC.
mod transport;

use command::{Command, CommandError, CommandId, Event, Reply};
use common::id::{DeviceName, TransferId};
use common::key::DeviceSecret;
use common::time::Epoch;
use io::{
    DiskAnswer, DiskRequest, RendezvousInput, RendezvousOutput, Restored, StoreAnswer, StoreId,
    StoreRequest, Work, WorkAnswer,
};

/// What a node is made of.
#[derive(Debug)]
pub struct NodeOptions {
    /// This device's key.
    pub secret: DeviceSecret,
    /// What its owner calls it.
    pub device_name: DeviceName,
    /// What it remembers.
    pub restored: Restored,
    /// Both clocks at one moment.
    pub epoch: Epoch,
}

/// A peer: its session with the rendezvous, its links, its messages and its transfers.
#[derive(Debug)]
pub struct Node {
    options: NodeOptions,
}

impl Node {
    /// Makes a node; it connects to its rendezvous at once if it has a token. `seed` is 32 random
    /// bytes.
    pub fn new(_seed: [u8; 32], _now: Instant, options: NodeOptions) -> Self {
        Self { options }
    }

    /// Takes something that happened outside.
    pub fn handle_input(&mut self, _input: Input, _now: Instant) {}

    /// Is called when the last deadline has passed.
    pub fn handle_timeout(&mut self, _now: Instant) {}

    /// The next thing to do. The bytes of a [`Output::Transmit`] land in `buffer`, which is cleared
    /// first.
    pub fn poll_output(&mut self, _now: Instant, _buffer: &mut Vec<u8>) -> Output {
        let _ = &self.options;
        Output::Wait(None)
    }
}

/// Something that happened outside.
#[derive(Debug)]
pub enum Input {
    /// One receive call's worth of datagrams from the UDP socket.
    Datagrams(Datagrams),
    /// The addresses at which this host's UDP socket can be reached, at the start and after each
    /// change of the network; without the unspecified address.
    LocalAddresses(Vec<SocketAddr>),
    /// About the control connection.
    Rendezvous(RendezvousInput),
    /// A person asks something.
    Command(CommandId, Command),
    /// The store answers.
    Stored(StoreId, StoreAnswer),
    /// The disk answers.
    Disk(TransferId, DiskAnswer),
    /// A computation is done.
    Worked(WorkAnswer),
}

/// Datagrams of one source that came together (GRO).
#[derive(Debug)]
pub struct Datagrams {
    /// Where they came from.
    pub source: SocketAddr,
    /// The address of ours that they came to, where the system tells.
    pub local: Option<IpAddr>,
    /// Congestion marks (RFC 3168).
    pub ecn: Option<noq_proto::EcnCodepoint>,
    /// Length of each datagram but the last.
    pub stride: usize,
    /// The datagrams, one after another.
    pub bytes: BytesMut,
}

/// Something that the shell is to do.
#[derive(Debug)]
#[must_use]
pub enum Output {
    /// Send the first `size` bytes of the caller's buffer.
    Transmit(Transmit),
    /// About the control connection.
    Rendezvous(RendezvousOutput),
    /// Ask the store.
    Store(StoreId, StoreRequest),
    /// Ask the disk.
    Disk(DiskRequest),
    /// Compute.
    Work(Work),
    /// Answer a command.
    Reply(CommandId, Result<Reply, CommandError>),
    /// Tell whoever listens.
    Event(Event),
    /// Nothing more to do before this deadline, or before the next input if there is none.
    Wait(Option<Deadline>),
}

/// Datagrams to one destination, as one GSO train.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transmit {
    /// Where to.
    pub destination: SocketAddr,
    /// Congestion mark to set.
    pub ecn: Option<noq_proto::EcnCodepoint>,
    /// Bytes in the buffer.
    pub size: usize,
    /// Length of each datagram but the last, if there is more than one.
    pub segment_size: Option<usize>,
    /// Source address to send from.
    pub source: Option<IpAddr>,
}

/// When the node wants to be called, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadline {
    /// Not later than this.
    pub at: Instant,
    /// For the log.
    pub why: &'static str,
}
