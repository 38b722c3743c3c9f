//! The directory: who is online, and whom this node looks for.
//!
//! Owns the announcement of this device, listings that people asked for, the watch of presence changes,
//! and the search for accounts that messages or offers wait for, at the server and on the local network. How and at which endpoints a device is
//! dialled is up to `links`.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use common::id::AccountName;
use common::key::DeviceKey;
use common::limits::{FIND_BACKOFF_FIRST, FIND_BACKOFF_MAX, LIST_ENTRIES_MAX};
use common::wire::rendezvous::{
    Change, Cursor, DirectoryAnswer, DirectoryPush, DirectoryRequest, Entry, IntroductionAnswer,
    IntroductionPush, IntroductionRequest, Refusal, Status,
};
use rand::rngs::StdRng;

use super::command::{CommandError, CommandId, Event, KeyState, Listed, PresenceView, Reply};
use super::context::Context;
use super::identities::Identities;
use super::io::ContactRequest;
use super::lan::Lan;
use super::links::{LinkChange, Links, NO_RELAY};
use super::purpose::{DirectoryPurpose, IntroductionPurpose};
use super::requests::{Requests, unexpected_reply};
use search::Search;
use watch::Watch;

// Accounts that something waits for, and when to look for them again.
mod search;
// The watch of presence changes.
mod watch;

/// What the directory tells the node.
#[derive(Debug)]
pub(super) enum DirectoryEvent {
    /// The server lists this device with its endpoints.
    Listed,
    /// An account that was looked for cannot be reached now.
    Unreachable {
        account: AccountName,
        error: CommandError,
    },
    /// A device of this account is introduced: a link to it is about to be.
    Introduced(AccountName),
    /// A device of this account is enrolled no longer.
    Unenrolled(AccountName),
}

/// The directory as this node sees it.
#[derive(Debug)]
pub(super) struct Directory {
    own_key: DeviceKey,
    /// The server lists this device with its endpoints, so others can dial back.
    is_listed: bool,
    /// The server relays nothing, as far as it has said.
    is_relay_off: bool,
    listings: BTreeMap<CommandId, Vec<Listed>>,
    search: Search,
    watch: Watch,
    events: VecDeque<DirectoryEvent>,
}

impl Directory {
    /// Starts without listings, watch or search. `rng` is this part's own.
    pub(super) fn new(own_key: DeviceKey, rng: StdRng) -> Self {
        Self {
            own_key,
            is_listed: false,
            is_relay_off: false,
            listings: BTreeMap::new(),
            search: Search::default(),
            watch: Watch::new(rng),
            events: VecDeque::new(),
        }
    }

    // ---- commands ------------------------------------------------------------------------------

    /// Lists the directory for a person.
    pub(super) fn list(&mut self, command: CommandId, cx: &mut Context<'_>) {
        self.listings.insert(command, Vec::new());
        let request = DirectoryRequest::List { after: None };
        cx.ask(DirectoryPurpose::List(command), request);
    }

    /// Tells people of presence changes from now on.
    pub(super) fn watch(&mut self, command: CommandId, cx: &mut Context<'_>) {
        self.search.watch_always();
        cx.reply(command, Ok(Reply::Done));
    }

    /// Tells whether the server has said that it relays nothing.
    pub(super) const fn is_relay_off(&self) -> bool {
        self.is_relay_off
    }

    // ---- account and links ---------------------------------------------------------------------

    /// There is a new session: the requests of the last one are lost.
    pub(super) fn on_online(&mut self, cx: &mut Context<'_>) {
        self.watch.reset();
        self.search.on_online();
        if cx.links.goes_through_relay() {
            cx.ask(IntroductionPurpose::Allocate, IntroductionRequest::Allocate);
        } else {
            cx.links.on_allocated(None, cx.now);
        }
        for device_key in cx.links.devices() {
            ask_owner(device_key, cx);
        }
    }

    /// There is no session any more.
    pub(super) fn on_offline(&mut self) {
        self.is_listed = false;
        self.watch.reset();
    }

    /// Tells the server the endpoints at which this device can be reached.
    pub(super) fn announce(&self, candidates: Vec<SocketAddr>, cx: &mut Context<'_>) {
        let request = DirectoryRequest::Announce {
            status: Status::Available,
            candidates,
        };
        cx.ask(DirectoryPurpose::Announce, request);
    }

    /// Takes the accounts that something waits for. Looks for those that no link leads to, or only silent
    /// ones; for `own` only if it has other devices, whom everything is shared with.
    pub(super) fn set_wanted<'a>(
        &mut self,
        waiting: impl Iterator<Item = &'a AccountName>,
        own: Option<&'a AccountName>,
        has_others: bool,
        links: &Links,
    ) {
        let others = waiting.filter(|account| own != Some(account));
        let all = others.chain(own.filter(|_| has_others));
        let wanted = all.filter(|account| !links.is_linked(account));
        let wanted: BTreeSet<AccountName> = wanted.cloned().collect();
        self.search.set_wanted(wanted, own);
    }

    /// Says whether somebody's return is to be noticed at once, because files are under way.
    pub(super) const fn set_watched(&mut self, is_watched: bool) {
        self.search.set_watched(is_watched);
    }

    /// A person wants something of this account now: if it is looked for, it is so at once.
    pub(super) fn look_again_for(&mut self, account: &AccountName) {
        self.search.look_again_for(account);
    }

    /// A link became ready or was lost: its account is looked for no longer, or again.
    pub(super) fn on_link(&mut self, change: &LinkChange, cx: &mut Context<'_>) {
        match change {
            LinkChange::Proved { device_key } => ask_owner(*device_key, cx),
            LinkChange::Ready { account, .. } => self.search.on_linked(account),
            LinkChange::Lost { account, .. } => {
                if !cx.links.is_linked(account) {
                    self.search.on_lost(account, cx.now);
                }
            }
            // Where there is a session, the server tells who goes.
            LinkChange::Left {
                account,
                device_key,
            } => {
                if !cx.requests.is_online() {
                    cx.event(Event::Presence(PresenceView::Offline {
                        account: account.clone(),
                        fingerprint: device_key.fingerprint().to_string(),
                    }));
                }
            }
            LinkChange::DialFailed { account, reason } => {
                log::debug!("a dial failed: {reason}");
                if !cx.links.is_dialling(account) && !cx.links.is_linked(account) {
                    let error = CommandError::PeerUnreachable {
                        account: account.clone(),
                        reason: reason.clone(),
                    };
                    self.fail_search(account.clone(), error, cx);
                }
            }
            LinkChange::Reached {
                device_key,
                endpoint,
            } => cx.store_unawaited(ContactRequest::SaveEndpoint {
                device_key: *device_key,
                endpoint: *endpoint,
            }),
            LinkChange::Silent { .. }
            | LinkChange::Rerouted
            | LinkChange::Heard
            | LinkChange::Writable { .. }
            | LinkChange::LeafAcknowledged { .. } => {}
        }
    }

    /// Asks the server for the accounts that are due, and keeps the watch while it is of use.
    pub(super) fn look_for_wanted(&mut self, known: &Identities, cx: &mut Context<'_>) {
        if !cx.requests.is_online() || !self.is_listed || !cx.links.is_ready_for_introductions() {
            return;
        }
        self.keep_watch(known, cx);
        while !cx.requests.is_busy() {
            let links = &*cx.links;
            let due = self
                .search
                .take_due(cx.now, |account| links.is_dialling_introduced(account));
            let Some(account) = due else { break };
            ask_introduction(account, cx);
        }
    }

    /// Without a session, dials the accounts that are due and are heard on the local network, or were reached
    /// straight before. Tells whether there were any.
    pub(super) fn look_nearby(&mut self, lan: &Lan, cx: &mut Context<'_>) -> bool {
        if cx.requests.is_online() {
            return false;
        }
        let mut has_dialled = false;
        loop {
            let links = &*cx.links;
            let is_out = |account: &AccountName| is_out_of_reach(account, lan, links);
            let Some(account) = self.search.take_due(cx.now, is_out) else {
                return has_dialled;
            };
            has_dialled = true;
            let mut devices = lan.devices_of(&account, cx.links);
            for (device_key, endpoint) in cx.links.last_endpoints_of(&account) {
                devices.entry(device_key).or_default().push(endpoint);
            }
            if cx.links.dial_nearby(&account, devices, cx.now) > 0 {
                self.search.on_dialling(&account);
            } else {
                self.search.on_failed(&account, cx.now);
            }
        }
    }

    /// An account is heard on the local network that was not: whoever it is wanted by looks at once, and a dial that
    /// is under way goes on there.
    pub(super) fn on_neighbour(&mut self, account: &AccountName, lan: &Lan, cx: &mut Context<'_>) {
        let devices = lan.devices_of(account, cx.links);
        cx.links.check_again(devices.keys().copied(), cx.now);
        self.search.look_again_for(account);
        if cx.links.is_dialling(account) {
            cx.links.dial_nearby(account, devices, cx.now);
        }
    }

    /// When [`Directory::look_for_wanted`] or [`Directory::look_nearby`] is due.
    pub(super) fn poll_timeout(
        &self,
        requests: &Requests,
        links: &Links,
        lan: &Lan,
    ) -> Option<Instant> {
        if !requests.is_online() {
            let is_out = |account: &AccountName| is_out_of_reach(account, lan, links);
            return self.search.poll_timeout(is_out);
        }
        let is_ready = self.is_listed && links.is_ready_for_introductions();
        if !requests.is_online() || !is_ready || requests.is_busy() {
            return None;
        }
        let watch = self.watch.poll_timeout();
        let watch = watch.filter(|_| self.search.wants_watch());
        let search = self
            .search
            .poll_timeout(|account| links.is_dialling_introduced(account));
        watch.into_iter().chain(search).min()
    }

    /// The next thing that the node has to know.
    pub(super) fn poll_event(&mut self) -> Option<DirectoryEvent> {
        self.events.pop_front()
    }

    // ---- the server ----------------------------------------------------------------------------

    /// Takes the server's answer to a request of this part.
    pub(super) fn on_answer(
        &mut self,
        purpose: DirectoryPurpose,
        answer: Result<DirectoryAnswer, CommandError>,
        known: &Identities,
        cx: &mut Context<'_>,
    ) {
        match purpose {
            DirectoryPurpose::Announce => self.on_announced(answer),
            DirectoryPurpose::List(command) => self.on_page(command, answer, known, cx),
            DirectoryPurpose::Watch => self.on_watch_answer(answer, known, cx),
            DirectoryPurpose::Unwatch => {}
            DirectoryPurpose::WhoIs(device_key) => match answer {
                Ok(DirectoryAnswer::Owner { account }) => {
                    cx.links.on_owner(device_key, account.as_ref(), cx.now);
                }
                Ok(_) | Err(_) => cx.links.on_owner_unknown(device_key, cx.now),
            },
        }
    }

    /// Takes a push of the server.
    pub(super) fn on_push(
        &mut self,
        push: DirectoryPush,
        known: &Identities,
        cx: &mut Context<'_>,
    ) {
        match push {
            DirectoryPush::Presence { changes, .. } => {
                self.watch.on_changes(&changes);
                self.tell_changes(changes, known, cx);
            }
            DirectoryPush::ListAgain => self.watch.on_ended(cx.now),
            DirectoryPush::Unenrolled {
                account,
                device_key,
            } => {
                cx.links.on_unenrolled(device_key, &account, cx.now);
                self.events.push_back(DirectoryEvent::Unenrolled(account));
            }
        }
    }

    /// Another device is about to make a link to this one, or waits for one.
    pub(super) fn on_introduction(&mut self, push: IntroductionPush, cx: &mut Context<'_>) {
        let IntroductionPush::Introduced(introduction) = push;
        cx.links.expect(&introduction, cx.now);
        let account = introduction.entry.account;
        self.events.push_back(DirectoryEvent::Introduced(account));
    }

    fn on_announced(&mut self, answer: Result<DirectoryAnswer, CommandError>) {
        if let Ok(DirectoryAnswer::Done) = answer {
            self.is_listed = true;
            self.events.push_back(DirectoryEvent::Listed);
        }
    }

    // ---- listings ------------------------------------------------------------------------------

    fn on_page(
        &mut self,
        command: CommandId,
        answer: Result<DirectoryAnswer, CommandError>,
        known: &Identities,
        cx: &mut Context<'_>,
    ) {
        let (entries, next) = match page(answer) {
            Ok(page) => page,
            Err(error) => {
                self.listings.remove(&command);
                return cx.reply(command, Err(error));
            }
        };
        let own_key = self.own_key;
        let Some(listing) = self.listings.get_mut(&command) else {
            return;
        };
        let links = &*cx.links;
        listing.extend(
            entries
                .into_iter()
                .map(|entry| listed(entry, own_key, known, links)),
        );
        if listing.len() >= LIST_ENTRIES_MAX || next.is_none() {
            let listing = self.listings.remove(&command).unwrap_or_default();
            cx.reply(command, Ok(Reply::Directory(listing)));
        } else {
            let request = DirectoryRequest::List { after: next };
            cx.ask(DirectoryPurpose::List(command), request);
        }
    }

    // ---- the watch -----------------------------------------------------------------------------

    fn keep_watch(&mut self, known: &Identities, cx: &mut Context<'_>) {
        let gone = self.watch.take_gone(cx.now);
        self.tell_changes(gone, known, cx);
        if self.search.wants_watch() {
            let tells_people = self.search.watches_always();
            let asked = self.watch.start(tells_people, cx.now);
            ask_watch(asked, cx);
        } else if self.watch.stop() {
            cx.ask(DirectoryPurpose::Unwatch, DirectoryRequest::Unwatch);
        }
    }

    fn on_watch_answer(
        &mut self,
        answer: Result<DirectoryAnswer, CommandError>,
        known: &Identities,
        cx: &mut Context<'_>,
    ) {
        let tells_people = self.search.watches_always();
        match answer {
            Ok(DirectoryAnswer::Page {
                version,
                entries,
                next,
            }) => {
                let asked = self.watch.on_page(version, entries, next, tells_people);
                ask_watch(asked, cx);
            }
            Ok(DirectoryAnswer::Done) => {
                let changes = self.watch.on_begun(tells_people, cx.now);
                if self.watch.has_paused() {
                    self.search.look_again();
                }
                self.tell_changes(changes, known, cx);
            }
            Ok(DirectoryAnswer::Found { .. } | DirectoryAnswer::Owner { .. }) | Err(_) => {
                self.watch.on_refused(cx.now);
            }
        }
    }

    /// Tells people who came online and who went offline, and dials devices of wanted accounts that came.
    fn tell_changes(&self, changes: Vec<Change>, known: &Identities, cx: &mut Context<'_>) {
        for change in changes {
            let view = match change {
                Change::Online(entry) => {
                    // It may have restarted, and left a link behind.
                    cx.links.ping(entry.device_key);
                    if self.search.wants(&entry.account) {
                        ask_introduction(entry.account.clone(), cx);
                    }
                    PresenceView::Online(listed(entry, self.own_key, known, cx.links))
                }
                Change::Offline {
                    account,
                    device_key,
                } => PresenceView::Offline {
                    account,
                    fingerprint: device_key.fingerprint().to_string(),
                },
            };
            cx.event(Event::Presence(view));
        }
    }

    // ---- the search ----------------------------------------------------------------------------

    /// Takes the server's answer to a request for links.
    pub(super) fn on_introduction_answer(
        &mut self,
        purpose: IntroductionPurpose,
        answer: Result<IntroductionAnswer, CommandError>,
        lan: &Lan,
        cx: &mut Context<'_>,
    ) {
        match purpose {
            IntroductionPurpose::Allocate => {
                self.tell_relay(answer.as_ref().err(), cx);
                let allocation = match answer {
                    Ok(IntroductionAnswer::Allocated { allocation, rate }) => {
                        cx.links.set_relay_rate(rate);
                        Some(allocation)
                    }
                    Ok(IntroductionAnswer::Introduced { .. }) | Err(_) => None,
                };
                cx.links.on_allocated(allocation, cx.now);
            }
            IntroductionPurpose::Introduce(account) => {
                self.on_introduced(account, answer, lan, cx);
            }
        }
    }

    /// Tells people that nobody can be reached, where the server has refused what everything is to go through;
    /// again only after it has granted that.
    fn tell_relay(&mut self, error: Option<&CommandError>, cx: &mut Context<'_>) {
        let is_off = matches!(error, Some(CommandError::Refused(Refusal::RelayOff)));
        let is_known = std::mem::replace(&mut self.is_relay_off, is_off);
        if is_off && !is_known && !cx.links.goes_directly() {
            cx.event(Event::RelayOff);
        }
    }

    fn on_introduced(
        &mut self,
        account: AccountName,
        answer: Result<IntroductionAnswer, CommandError>,
        lan: &Lan,
        cx: &mut Context<'_>,
    ) {
        let error = match answer {
            Ok(IntroductionAnswer::Introduced { introductions }) => {
                let is_online = !introductions.is_empty();
                if is_online {
                    let introduced = DirectoryEvent::Introduced(account.clone());
                    self.events.push_back(introduced);
                }
                if cx.links.dial(&account, introductions, cx.now) > 0 {
                    return self.search.on_dialling(&account);
                }
                if cx.links.is_linked(&account) {
                    return self.search.on_linked(&account);
                }
                if is_online && !cx.links.goes_directly() {
                    let (account, reason) = (account.clone(), NO_RELAY.to_owned());
                    CommandError::PeerUnreachable { account, reason }
                } else {
                    CommandError::PeerOffline(account.clone())
                }
            }
            Ok(_) => unexpected_reply(),
            Err(error) => error,
        };
        if dial_nearby(&account, lan, cx) {
            return self.search.on_dialling(&account);
        }
        self.fail_search(account, error, cx);
    }

    /// An account could not be reached. Without a session that says nothing of where it is, nor does a server
    /// that is busy.
    fn fail_search(&mut self, account: AccountName, error: CommandError, cx: &Context<'_>) {
        if let CommandError::Refused(Refusal::Busy { retry_after_s }) = error {
            let pause = Duration::from_secs(retry_after_s.into());
            let pause = pause.clamp(FIND_BACKOFF_FIRST, FIND_BACKOFF_MAX);
            return self.search.on_put_off(&account, cx.now + pause);
        }
        let is_absent = matches!(error, CommandError::PeerOffline(_));
        let is_told = match is_absent {
            true => self.search.on_absent(&account, cx.now),
            false => {
                self.search.on_failed(&account, cx.now);
                true
            }
        };
        if !is_told || !cx.requests.is_online() {
            return;
        }
        let event = DirectoryEvent::Unreachable { account, error };
        self.events.push_back(event);
    }
}

/// Tells whether nothing is known of where an account is, or it is being dialled.
fn is_out_of_reach(account: &AccountName, lan: &Lan, links: &Links) -> bool {
    let is_known = || lan.is_here(account) || links.last_endpoints_of(account).next().is_some();
    links.is_dialling(account) || !is_known()
}

/// Dials the devices of an account that are heard on the local network. Tells whether there are any.
fn dial_nearby(account: &AccountName, lan: &Lan, cx: &mut Context<'_>) -> bool {
    let devices = lan.devices_of(account, cx.links);
    !devices.is_empty() && cx.links.dial_nearby(account, devices, cx.now) > 0
}

/// Asks whose a device at the other end of a link is. From then on the server tells when that is over.
fn ask_owner(device_key: DeviceKey, cx: &mut Context<'_>) {
    let request = DirectoryRequest::WhoIs { device_key };
    cx.ask(DirectoryPurpose::WhoIs(device_key), request);
}

/// Asks to be introduced to the devices of an account, in order to dial them.
fn ask_introduction(account: AccountName, cx: &mut Context<'_>) {
    let request = IntroductionRequest::Introduce {
        account: account.clone(),
    };
    cx.ask(IntroductionPurpose::Introduce(account), request);
}

fn ask_watch(request: Option<DirectoryRequest>, cx: &mut Context<'_>) {
    if let Some(request) = request {
        cx.ask(DirectoryPurpose::Watch, request);
    }
}

fn page(
    answer: Result<DirectoryAnswer, CommandError>,
) -> Result<(Vec<Entry>, Option<Cursor>), CommandError> {
    match answer? {
        DirectoryAnswer::Page { entries, next, .. } => Ok((entries, next)),
        DirectoryAnswer::Done | DirectoryAnswer::Found { .. } | DirectoryAnswer::Owner { .. } => {
            Err(unexpected_reply())
        }
    }
}

fn listed(entry: Entry, own_key: DeviceKey, known: &Identities, links: &Links) -> Listed {
    let key = known.key_state(&entry.account, &entry.device_key, links);
    // What was compared was the number of whom the name belonged to then.
    let is_verified = key == KeyState::Known && known.is_verified(&entry.account);
    let endpoints = entry.candidates.into_iter();
    Listed {
        account: entry.account,
        device: entry.device_name,
        fingerprint: entry.device_key.fingerprint().to_string(),
        key,
        is_verified,
        status: entry.status,
        since: entry.since,
        endpoints: endpoints.map(|candidate| candidate.endpoint).collect(),
        is_self: entry.device_key == own_key,
    }
}
