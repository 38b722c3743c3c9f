//! Who is online, and who is told when that changes: everything that `Request::Directory` asks.
//!
//! `Presence` owns the directory, the announcements that came too soon, who watches and from which version,
//! when watchers are told, the look-ups of owners that wait for the store, and who has asked about which
//! device. It reads from `devices` who is logged in.
//!
//! One change is a push to every watcher, so both ends are rate-limited: a device in the changes of its
//! entry (`announcers`), and a watcher in the changes that it gets. A watcher that has missed more changes
//! than its rate or the log allows is told so and forgotten; it has to list again.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::id::AccountName;
use common::key::DeviceKey;
use common::limits::{Occupancy, WATCH_CHANGES_BURST_MAX, WATCH_CHANGES_PER_SECOND_MAX};
use common::wire::rendezvous::{
    Cursor, DirectoryAnswer, DirectoryPush, DirectoryRequest, DirectoryVersion, Entry, Push,
    Refusal, ServerFrame, Status,
};

use super::context::{Context, Part, ReplyTo};
use super::devices::Devices;
use super::io::{ConnectionId, Deadline, Ticket};
use super::member::Member;
use crate::store::{DevicesAnswer, DevicesRequest, StoreAnswer, StoreError};
use crate::token_bucket::{Rate, TokenBucket};
use announcers::Announcers;
use directory::{Changes, Directory, admissible_candidates};
use followers::Followers;

// Limits the rate of announcements.
mod announcers;
/// The devices that are online, their version, and a log of changes.
pub(super) mod directory;
// Who is told when a device is enrolled no longer.
mod followers;

/// Time for which a presence change waits for others, so that a crowd that comes at once takes few pushes.
/// People do not notice it.
const PUSH_DELAY: Duration = Duration::from_millis(50);
/// Limits the changes that one watcher gets.
const RATE: Rate = Rate::per_second(WATCH_CHANGES_PER_SECOND_MAX, WATCH_CHANGES_BURST_MAX);

/// The directory and its watchers.
#[derive(Debug)]
pub(super) struct Presence {
    directory: Directory,
    announcers: Announcers,
    watchers: BTreeMap<ConnectionId, Watcher>,
    push_at: Option<Instant>,
    /// Requests that wait for the store to name the owner of a device.
    finding: BTreeMap<Ticket, (ReplyTo, DeviceKey)>,
    followers: Followers,
}

/// A session that watches, or has watched: watching again does not refill its bucket.
#[derive(Debug)]
struct Watcher {
    /// The version that it has been told of; `None` if it does not watch at present.
    since: Option<DirectoryVersion>,
    bucket: TokenBucket,
}

impl Presence {
    /// Starts with an empty directory. No peer may have seen `first_version` or a later one.
    pub(super) fn new(first_version: u64) -> Self {
        Self {
            directory: Directory::new(first_version),
            announcers: Announcers::default(),
            watchers: BTreeMap::new(),
            push_at: None,
            finding: BTreeMap::new(),
            followers: Followers::default(),
        }
    }

    /// Answers a request of a device that is logged in, at once or once the store has answered.
    pub(super) fn on_request(
        &mut self,
        to: ReplyTo,
        request: DirectoryRequest,
        devices: &Devices,
        context: &mut Context,
    ) {
        match request {
            DirectoryRequest::Announce { status, candidates } => {
                let member = devices.member(to.connection);
                self.on_announce(to, status, &candidates, member, context);
            }
            DirectoryRequest::List { after } => {
                let (entries, next) = self.directory.page(after.as_ref());
                let version = self.directory.version();
                let page = DirectoryAnswer::Page {
                    version,
                    entries,
                    next,
                };
                context.answer(to, page);
            }
            DirectoryRequest::Watch { since } => {
                if self.watch(to.connection, since, context.now) {
                    context.answer(to, DirectoryAnswer::Done);
                } else {
                    context.refuse(to, Refusal::ListAgain);
                }
            }
            DirectoryRequest::Unwatch => {
                self.unwatch(to.connection);
                context.answer(to, DirectoryAnswer::Done);
            }
            DirectoryRequest::Find { account } => {
                let entries = self.directory.find(&account);
                context.answer(to, DirectoryAnswer::Found { entries });
            }
            DirectoryRequest::WhoIs { device_key } => {
                self.on_who_is(to, device_key, devices, context);
            }
        }
    }

    /// Takes the store's answer to who owns a device, and passes it on.
    pub(super) fn on_stored(
        &mut self,
        ticket: Ticket,
        answer: Result<StoreAnswer, StoreError>,
        context: &mut Context,
    ) {
        let waiting = self.finding.remove(&ticket);
        let (to, device_key) = waiting.expect("each ticket belongs to a waiting request");
        match answer {
            Ok(StoreAnswer::Devices(DevicesAnswer::Owner(account))) => {
                self.tell_owner(to, device_key, account, context);
            }
            Ok(_) | Err(_) => context.refuse(to, Refusal::StoreFailed),
        }
    }

    /// A device is logged in: elsewhere it is enrolled no longer.
    pub(super) fn on_logged_in(&mut self, member: &Member, context: &mut Context) {
        self.tell_followers(&member.device_key, Some(&member.account), context);
    }

    /// A device is enrolled no longer, because it has logged out.
    pub(super) fn on_unenrolled(&mut self, device_key: &DeviceKey, context: &mut Context) {
        self.tell_followers(device_key, None, context);
    }

    /// An account is removed, with all its devices.
    pub(super) fn on_account_removed(&mut self, account: &AccountName, context: &mut Context) {
        for device_key in self.followers.devices_of(account) {
            self.tell_followers(&device_key, None, context);
        }
    }

    fn tell_followers(
        &mut self,
        device_key: &DeviceKey,
        account: Option<&AccountName>,
        context: &mut Context,
    ) {
        let Some((account, followers)) = self.followers.take(device_key, account) else {
            return;
        };
        let device_key = *device_key;
        let push = DirectoryPush::Unenrolled {
            account,
            device_key,
        };
        let frame = Arc::new(ServerFrame::Push(Push::Directory(push)));
        for connection in followers {
            context.send(connection, Arc::clone(&frame));
        }
    }

    fn on_announce(
        &mut self,
        to: ReplyTo,
        status: Status,
        announced: &[SocketAddr],
        member: &Member,
        context: &mut Context,
    ) {
        let Some(candidates) = admissible_candidates(announced, member.source) else {
            context.refuse(to, Refusal::LimitExceeded);
            return;
        };
        self.announce(member.entry(status, candidates), context.now);
        context.answer(to, DirectoryAnswer::Done);
    }

    fn on_who_is(
        &mut self,
        to: ReplyTo,
        device_key: DeviceKey,
        devices: &Devices,
        context: &mut Context,
    ) {
        // The owner of a device that is logged in is known without the store.
        if let Some(owner) = devices.member_of(&device_key) {
            let account = Some(owner.account.clone());
            self.tell_owner(to, device_key, account, context);
        } else if context.is_busy() {
            context.refuse_busy(to);
        } else {
            let request = DevicesRequest::FindOwner { device_key };
            let ticket = context.store(Part::Presence, request.into());
            self.finding.insert(ticket, (to, device_key));
        }
    }

    fn tell_owner(
        &mut self,
        to: ReplyTo,
        device_key: DeviceKey,
        account: Option<AccountName>,
        context: &mut Context,
    ) {
        if let Some(account) = &account
            && context.is_open(to)
        {
            self.followers.follow(to.connection, device_key, account);
        }
        context.answer(to, DirectoryAnswer::Owner { account });
    }

    /// Applies an announcement: now, or a few seconds later if the device has made others just before.
    fn announce(&mut self, entry: Entry, now: Instant) {
        let key = &entry.device_key;
        if !self.announcers.is_waiting(key) && self.directory.contains(&entry) {
            return;
        }
        if let Some(entry) = self.announcers.submit(entry, now) {
            self.apply(entry, now);
        }
        self.apply_due(now);
    }

    /// Starts to push changes after `since` to a session; `false` if the log does not reach back so far.
    fn watch(&mut self, connection: ConnectionId, since: DirectoryVersion, now: Instant) -> bool {
        if !self.directory.remembers(since) {
            return false;
        }
        let watcher = self.watchers.entry(connection).or_insert_with(|| Watcher {
            since: None,
            bucket: TokenBucket::new(now),
        });
        watcher.since = Some(since);
        if since < self.directory.version() {
            self.on_change(now);
        }
        true
    }

    /// Stops pushing changes to a session.
    fn unwatch(&mut self, connection: ConnectionId) {
        if let Some(watcher) = self.watchers.get_mut(&connection) {
            watcher.since = None;
        }
    }

    /// Forgets a session that has ended: its watch, and its device's entry.
    pub(super) fn on_logged_out(
        &mut self,
        connection: ConnectionId,
        device: &Cursor,
        now: Instant,
    ) {
        self.watchers.remove(&connection);
        self.followers.forget(connection);
        self.announcers.forget(&device.device_key, now);
        if self.directory.remove(device) {
            self.on_change(now);
        }
    }

    /// Applies announcements that had to wait, and pushes changes to watchers, as far as they are due.
    pub(super) fn handle_timeout(&mut self, context: &mut Context) {
        let now = context.now;
        self.apply_due(now);
        if self.push_at.is_some_and(|due| due <= now) {
            self.push(context);
        }
    }

    /// When [`Presence::handle_timeout`] is due.
    pub(super) fn poll_timeout(&self) -> Option<Deadline> {
        let announcement = self.announcers.poll_timeout();
        let at = self.push_at.into_iter().chain(announcement).min()?;
        let why = "presence";
        Some(Deadline { at, why })
    }

    /// The devices that are online.
    pub(super) const fn directory(&self) -> &Directory {
        &self.directory
    }

    /// The occupancy of each bounded resource.
    pub(super) fn occupancies(&self) -> [Occupancy; 3] {
        [
            self.directory.occupancy(),
            self.announcers.occupancy(),
            self.followers.occupancy(),
        ]
    }

    fn apply_due(&mut self, now: Instant) {
        while let Some(entry) = self.announcers.take_due(now) {
            self.apply(entry, now);
        }
    }

    fn apply(&mut self, entry: Entry, now: Instant) {
        if self.directory.insert(entry) {
            self.on_change(now);
        }
    }

    fn on_change(&mut self, now: Instant) {
        if self.push_at.is_none() && !self.watchers.is_empty() {
            self.push_at = Some(now + PUSH_DELAY);
        }
    }

    fn push(&mut self, context: &mut Context) {
        self.push_at = None;
        let version = self.directory.version();
        let list_again = Arc::new(ServerFrame::Push(Push::Directory(DirectoryPush::ListAgain)));
        let mut changes_since: BTreeMap<DirectoryVersion, Option<Changes>> = BTreeMap::new();
        for (connection, watcher) in &mut self.watchers {
            let Some(since) = watcher.since else {
                continue;
            };
            let changes = changes_since
                .entry(since)
                .or_insert_with(|| self.directory.changes_since(since))
                .as_ref()
                .filter(|changes| watcher.take_tokens(changes, context.now));
            watcher.since = changes.map(|_| version);
            let pushes = changes.map_or(std::slice::from_ref(&list_again), |changes| {
                &changes.pushes[..]
            });
            for push in pushes {
                context.send(*connection, Arc::clone(push));
            }
        }
    }
}

impl Watcher {
    /// Takes one token for each change; `false` if there are not so many.
    fn take_tokens(&mut self, changes: &Changes, now: Instant) -> bool {
        let count = u32::try_from(changes.count).unwrap_or(u32::MAX);
        self.bucket.take(count, RATE, now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use common::id::DeviceName;
    use common::limits::PRESENCE_LOG_MAX;
    use common::time::{Epoch, UnixTime};
    use std::ops::Range;

    use crate::server::io::{Frame, Output};

    const WATCHER: ConnectionId = ConnectionId(1);

    fn entry(device: u32, status: Status) -> Entry {
        let mut key = [1; 32];
        key[..4].copy_from_slice(&device.to_be_bytes());
        Entry {
            account: "alice".parse().unwrap(),
            device_name: DeviceName::lossy("laptop"),
            device_key: DeviceKey::from_bytes(key).unwrap(),
            status,
            since: UnixTime::from_millis(1),
            candidates: Vec::new(),
        }
    }

    #[expect(clippy::disallowed_methods, reason = "any instant will do as a start")]
    fn watched() -> (Presence, Instant) {
        let now = Instant::now();
        let mut presence = Presence::new(5);
        assert!(presence.watch(WATCHER, DirectoryVersion(5), now));
        (presence, now)
    }

    /// Changes that the watcher is told of when these devices change at once, and whether it is told to
    /// list again.
    fn told(
        presence: &mut Presence,
        devices: Range<u32>,
        status: Status,
        now: Instant,
    ) -> (usize, bool) {
        for device in devices {
            presence.announce(entry(device, status), now);
        }
        let now = now + PUSH_DELAY;
        let mut context = Context::new([1; 32], now, Epoch::new(now, UnixTime::from_millis(1)));
        presence.handle_timeout(&mut context);
        let (mut changes_told, mut lists_again) = (0, false);
        while let Some(output) = context.poll_output() {
            let Output::Send { connection, frame } = output else {
                panic!("{output:?}");
            };
            assert_eq!(connection, WATCHER);
            let Frame::Server(frame) = frame else {
                panic!("{frame:?}");
            };
            assert!(!lists_again, "it watches no more");
            match &*frame {
                ServerFrame::Push(Push::Directory(DirectoryPush::Presence { changes, .. })) => {
                    changes_told += changes.len()
                }
                ServerFrame::Push(Push::Directory(DirectoryPush::ListAgain)) => lists_again = true,
                other @ (ServerFrame::Answer { .. } | ServerFrame::Push(_)) => {
                    panic!("{other:?}")
                }
            }
        }
        (changes_told, lists_again)
    }

    #[test]
    fn a_watcher_gets_so_many_changes_at_once_and_then_at_a_pace() {
        let burst = WATCH_CHANGES_BURST_MAX;
        let (mut presence, now) = watched();
        let all = told(&mut presence, 0..burst, Status::Available, now);
        assert_eq!(all, (burst as usize, false));
        // One more than a second later makes up for.
        let later = now + Duration::from_secs(1);
        // Others each time: a device may change only so often.
        let more = WATCH_CHANGES_PER_SECOND_MAX;
        let some = told(&mut presence, 0..more, Status::Away, later);
        assert_eq!(some, (more as usize, false));
        let too_many = told(&mut presence, more..2 * more, Status::Away, later);
        assert_eq!(too_many, (0, true));
        let nothing = told(&mut presence, 2 * more..3 * more, Status::Away, later);
        assert_eq!(nothing, (0, false), "it is forgotten");
    }

    #[test]
    fn watching_anew_gains_nothing() {
        let (mut presence, now) = watched();
        let too_many = WATCH_CHANGES_BURST_MAX;
        told(&mut presence, 0..too_many, Status::Available, now);
        assert_eq!(told(&mut presence, 0..1, Status::Away, now), (0, true));
        for device in [1, 2] {
            let since = presence.directory().version();
            assert!(presence.watch(WATCHER, since, now));
            let told = told(&mut presence, device..device + 1, Status::Away, now);
            assert_eq!(told, (0, true));
        }
        let rested = now + Duration::from_secs(30);
        let since = presence.directory().version();
        assert!(presence.watch(WATCHER, since, rested));
        assert_eq!(told(&mut presence, 3..4, Status::Away, rested), (1, false));
    }

    #[test]
    fn whoever_is_further_behind_than_the_log_is_long_lists_again() {
        let (mut presence, now) = watched();
        let more_than_the_log = PRESENCE_LOG_MAX as u32 + 1;
        let told = told(&mut presence, 0..more_than_the_log, Status::Available, now);
        assert_eq!(told, (0, true));
        assert!(!presence.watch(WATCHER, DirectoryVersion(5), now));
    }
}
