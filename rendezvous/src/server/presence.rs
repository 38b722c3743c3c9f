//! Who is online, and who is told when that changes.
//!
//! It owns the directory, who watches it and from which version, and when watchers are told. What it
//! sends goes to the server's own outputs, so that nothing overtakes the farewell of a session.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::wire::rendezvous::{Cursor, DirectoryVersion, Entry, ServerFrame};

use super::directory::Directory;
use super::{ConnectionId, Frame, Output};

/// Presence changes wait this long for others, so that a crowd that comes at once is few pushes.
const PRESENCE_DELAY: Duration = Duration::from_millis(50);

/// The directory and its watchers.
#[derive(Debug)]
pub(super) struct Presence {
    directory: Directory,
    watchers: BTreeMap<ConnectionId, DirectoryVersion>,
    push_at: Option<Instant>,
}

impl Presence {
    /// Nobody is online, and nobody can have seen `first_version` or a later one.
    pub(super) const fn new(first_version: u64) -> Self {
        Self {
            directory: Directory::new(first_version),
            watchers: BTreeMap::new(),
            push_at: None,
        }
    }

    /// Takes what a device says of itself.
    pub(super) fn announce(&mut self, entry: Entry, now: Instant, outputs: &mut VecDeque<Output>) {
        if self.directory.insert(entry) {
            self.on_change(now, outputs);
        }
    }

    /// Has a session told of what changed after `since`; `false` if that is too long ago.
    pub(super) fn watch(
        &mut self,
        connection: ConnectionId,
        since: DirectoryVersion,
        now: Instant,
        outputs: &mut VecDeque<Output>,
    ) -> bool {
        if !self.directory.remembers(since) {
            return false;
        }
        self.watchers.insert(connection, since);
        if since < self.directory.version() {
            self.on_change(now, outputs);
        }
        true
    }

    /// Tells a session nothing further.
    pub(super) fn unwatch(&mut self, connection: ConnectionId) {
        self.watchers.remove(&connection);
    }

    /// A session is over: it watches no more, and its device is offline.
    pub(super) fn take_offline(
        &mut self,
        connection: ConnectionId,
        device: &Cursor,
        now: Instant,
        outputs: &mut VecDeque<Output>,
    ) {
        self.watchers.remove(&connection);
        if self.directory.remove(device) {
            self.on_change(now, outputs);
        }
    }

    /// Tells watchers what changed, if it is time to.
    pub(super) fn handle_timeout(&mut self, now: Instant, outputs: &mut VecDeque<Output>) {
        if self.push_at.is_some_and(|due| due <= now) {
            self.push(outputs);
        }
    }

    /// When [`Presence::handle_timeout`] is due.
    pub(super) const fn poll_timeout(&self) -> Option<Instant> {
        self.push_at
    }

    /// Who is online.
    pub(super) const fn directory(&self) -> &Directory {
        &self.directory
    }

    fn on_change(&mut self, now: Instant, outputs: &mut VecDeque<Output>) {
        if self.watchers.is_empty() {
            return;
        }
        // A crowd may come faster than the log is long.
        let oldest = self.watchers.values().min().copied();
        if oldest.is_some_and(|since| self.directory.room(since) == 0) {
            self.push(outputs);
        } else if self.push_at.is_none() {
            self.push_at = Some(now + PRESENCE_DELAY);
        }
    }

    fn push(&mut self, outputs: &mut VecDeque<Output>) {
        self.push_at = None;
        let version = self.directory.version();
        let mut pushes_since: BTreeMap<DirectoryVersion, Vec<Arc<ServerFrame>>> = BTreeMap::new();
        for (connection, since) in &mut self.watchers {
            let pushes = pushes_since
                .entry(*since)
                .or_insert_with(|| self.directory.changes_since(*since));
            let sends = pushes.iter().map(|push| Output::Send {
                connection: *connection,
                frame: Frame::Server(Arc::clone(push)),
            });
            outputs.extend(sends);
            *since = version;
        }
    }
}
