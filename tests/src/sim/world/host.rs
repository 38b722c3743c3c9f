//! A person's machine.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use common::id::{AccountName, MessageId, TransferId};
use peer::node::command::{CommandError, CommandId, Event, Reply};
use peer::node::{Node, PathRule};
use rendezvous::server::ConnectionId;

use super::Family;
use super::lan::Announced;
use crate::sim::disk::Disk;
use crate::sim::login::Entry;

/// A person's machine.
#[derive(Debug)]
pub struct Host {
    /// `None` while it is off.
    pub node: Option<Node>,
    /// Whose.
    pub account: AccountName,
    /// Its key.
    pub secret: [u8; 32],
    /// Which addresses it has.
    pub family: Family,
    /// Where its UDP socket is, seen from itself; IPv4 first.
    pub addresses: Vec<SocketAddr>,
    /// How often it got addresses.
    pub(super) moves: u8,
    /// What survives.
    pub disk: Disk,
    /// Its disk takes up to this long for each request.
    pub disk_delay: Duration,
    /// It sleeps until then: nothing reaches it, and its clock goes on.
    pub asleep_until: Option<Instant>,
    /// Which ways its packets may take, from its next start on.
    pub rule: PathRule,
    /// Whether it uses multicast DNS, from its next start on.
    pub lan: bool,
    pub(super) announced: Option<Announced>,
    /// Datagrams that it sent to anybody but the server.
    pub sent_directly: u64,
    /// Off since then.
    pub off_since: Option<Instant>,
    /// Counts its lives; what is under way for an earlier one is lost.
    pub life: u32,
    pub(super) connection: Option<ConnectionId>,
    pub(super) deadline: Option<(Instant, &'static str)>,
    pub(super) last_command: u64,
    /// Its person knows that the password may be needed again.
    pub may_need_password: bool,
    /// The last that the person typed about the password.
    pub last_typed: Option<CommandId>,
    /// What the person typed at the prompt and waits for, and how often the account had been removed by then.
    pub entries: BTreeMap<CommandId, (Entry, u32)>,
    /// Replies that came.
    pub replies: BTreeMap<CommandId, Result<Reply, CommandError>>,
    /// All that it has told its person in this life.
    pub events: Vec<Event>,
    /// Messages that were shown and not marked as read.
    pub unread: Vec<MessageId>,
    /// Offers that nobody has answered.
    pub offers: Vec<TransferId>,
    /// Transfers that have not ended.
    pub moving: Vec<(TransferId, u64)>,
    /// Files that arrived here.
    pub arrived: Vec<PathBuf>,
    pub(super) store_free: Instant,
    pub(super) disk_free: Instant,
}

impl Host {
    /// Tells whether its person can do something with it.
    pub const fn is_running(&self) -> bool {
        self.node.is_some() && self.asleep_until.is_none()
    }

    /// Its control connection, or the attempt to make one.
    pub const fn connection(&self) -> Option<ConnectionId> {
        self.connection
    }

    /// Tells whether it has a control connection, or is making one.
    pub const fn is_connected(&self) -> bool {
        self.connection.is_some()
    }

    /// When it has something to do by itself.
    pub fn due(&self) -> Option<Instant> {
        self.node.as_ref()?;
        match self.asleep_until {
            Some(until) => Some(until),
            None => self.deadline.map(|(at, _)| at),
        }
    }
}
