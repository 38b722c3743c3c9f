//! The engine: a peer without sockets, files, threads or a clock.
//!
//! [`Node`] is a state machine. The shell feeds it [`Input`]s with the time at which they came, drains
//! its [`Output`]s until the first [`Output::Wait`], and sleeps until something arrives or the deadline
//! passes.

use std::time::Instant;

// The account of this device, and its session with the server.
mod account;
// Commands, replies, and events for people.
pub mod command;
// Which part carries out which command.
mod commands;
// Logs of conversations.
mod conversations;
// The time, randomness, and every effect that parts can have.
mod context;
// Who is online, and whom this node looks for.
mod directory;
// What is to be written, and what follows.
mod drafts;
// Who accounts are: their logs.
mod identities;
// Inputs and outputs, and what the shell does for the node.
pub mod io;
// Names on the local network.
mod lan;
// What comes from the network, and what becomes of the way to it.
mod network;
// Authorisation, frames and leaves.
mod links;
// The memory that a test allocates.
#[cfg(test)]
mod memory;
// Where this device can be reached, and where others may be dialled.
mod paths;
// What requests to the server and the store are for.
mod purpose;
// Requests to the server.
mod requests;
// What the session with the server brings.
mod session;
// Open requests to the store.
mod store;
// Files on their way.
mod transfer;
// QUIC.
pub mod transport;
// What a peer must not do.
mod violation;
// Which way links go, as far as people were told.
mod ways;

use account::{Account, relayed};
pub use command::PathRule;
use common::key::{DeviceKey, DeviceSecret};
use common::limits::{LAN_START_WAIT, Occupancy};
use context::Effects;
use conversations::{Conversations, People};
use directory::Directory;
use identities::Identities;
pub use io::{Datagrams, Deadline, Input, NodeOptions, Output, Transmit};
use io::{RendezvousInput, StoreAnswer, StoreId};
use lan::Lan;
use links::Links;
use paths::Paths;
use purpose::StorePurpose;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use requests::Answered;
use transfer::Transfers;
use ways::Ways;

/// A peer: routes each input to the part that it concerns, and the events of one part to the others.
///
/// Each part owns its state, its frames and requests, and its deadlines: `account` the session with the
/// server, `directory` who is online and whom to look for, `chat` messages, `transfers` files, `paths` this
/// device's own endpoints, and `links` the connections to other devices. All their effects go through one
/// `Context`.
#[derive(Debug)]
pub struct Node {
    own_key: DeviceKey,
    account: Account,
    directory: Directory,
    conversations: Conversations,
    transfers: Transfers,
    paths: Paths,
    ways: Ways,
    lan: Lan,
    identities: Identities,
    /// Something happened that may have changed which accounts messages and offers wait for.
    wants_are_stale: bool,
    /// When somebody called last.
    called: Instant,
    effects: Effects,
}

impl Node {
    /// Creates a node, which connects to its rendezvous at once if it has a token. `seed` is random.
    pub fn new(seed: [u8; 32], now: Instant, options: NodeOptions) -> Self {
        let NodeOptions {
            secret,
            device_name,
            restored,
            epoch,
            rule,
            lan,
            port_mapping,
            is_port_chosen,
        } = options;
        let own_key = secret.public();
        let mut rng = StdRng::from_seed(seed);
        let links_seed = child_seed(&mut rng);
        let [
            account_rng,
            paths_rng,
            directory_rng,
            dials_rng,
            relay_rng,
            lan_rng,
            identities_rng,
            conversations_rng,
        ] = std::array::from_fn(|_| StdRng::from_seed(child_seed(&mut rng)));
        let copy = DeviceSecret::from_seed(*secret.seed());
        let mut links = Links::new(links_seed, [dials_rng, relay_rng], copy, restored.contacts);
        let is_enrolled = restored.session.is_some();
        links.set_enrolled(is_enrolled, now);
        links.set_rule(rule);
        links.restore_endpoints(restored.last_endpoints);
        let (uses_lan, lan_from) = (lan && links.goes_directly(), now + LAN_START_WAIT);
        let mut lan = Lan::new(lan_rng, own_key, uses_lan, lan_from);
        lan.set_enrolled(is_enrolled, now);
        let mut effects = Effects::new(epoch, rng, links);
        let copy = DeviceSecret::from_seed(*secret.seed());
        let conversations = Conversations::new(
            copy,
            conversations_rng,
            restored.outbox,
            restored.undelivered,
        );
        let identities = Identities::new(
            DeviceSecret::from_seed(*secret.seed()),
            device_name.clone(),
            identities_rng,
            restored.logs,
            &restored.verified,
        );
        let (requests, session) = (&mut effects.requests, restored.session);
        let account = Account::new(secret, device_name, session, account_rng, requests, now);
        let mut node = Self {
            own_key,
            account,
            directory: Directory::new(own_key, directory_rng),
            conversations,
            transfers: Transfers::default(),
            paths: Paths::new(paths_rng, own_key, rule, [port_mapping, is_port_chosen]),
            ways: Ways::default(),
            lan,
            identities,
            wants_are_stale: true,
            called: now,
            effects,
        };
        if is_enrolled {
            node.conversations.begin(&mut node.effects.at(now));
        }
        node.settle(now);
        node
    }

    /// Lets panics of the QUIC implementation through from now on, so that a simulation fails on them. A
    /// program catches them and loses a link.
    pub const fn propagate_panics(&mut self) {
        self.effects.links.propagate_panics();
    }

    /// Handles an event outside the node.
    pub fn handle_input(&mut self, input: Input, now: Instant) {
        self.note_standstill(now);
        self.wants_are_stale |= !matches!(input, Input::Datagrams(_));
        let cx = &mut self.effects.at(now);
        match input {
            Input::Datagrams(datagrams) => self.on_datagrams(datagrams, now),
            Input::LocalAddresses(addresses) => self.on_local_addresses(addresses, now),
            Input::Woke(span) => self.on_woke(span, now),
            Input::Lan(input) => self.lan.handle_input(input, cx.links, now),
            Input::PortMapping(found) => self.on_port_mapping(found, now),
            Input::Rendezvous(input) => {
                if let RendezvousInput::Connected { server, other, .. } = &input {
                    self.paths.set_server(*server, *other);
                    cx.links.set_local(server.ip().is_loopback());
                }
                self.account.handle_rendezvous(input, cx);
            }
            Input::Command(id, command) => self.on_command(id, command, now),
            Input::Stored(id, answer) => self.on_stored(id, answer, now),
            Input::Disk(transfer, answer) => self.transfers.on_disk(transfer, answer, cx),
            Input::Computed(id, answer) => self.account.on_computed(id, answer, cx),
            Input::Sealed(id, outcome) => {
                let people = People::of(&self.account, &self.identities);
                self.conversations.on_work(id, outcome, people, cx);
            }
            Input::ShutDown => {
                self.lan.shut_down(now);
                self.transfers.shut_down(cx);
                self.conversations.shut_down(cx);
                cx.links.say_goodbye(now);
                self.account.shut_down(cx);
            }
        }
        self.settle(now);
    }

    /// Does what is due; called when the deadline of the last [`Output::Wait`] has passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.note_standstill(now);
        self.wants_are_stale = true;
        let cx = &mut self.effects.at(now);
        self.account.handle_timeout(cx);
        cx.links.handle_timeout(now);
        self.lan.handle_timeout(now);
        self.tell_ways(now);
        if self.paths.handle_timeout(now) {
            self.announce(now);
        }
        if self.paths.take_udp_lost() {
            self.effects.links.on_udp(false, now);
        }
        let cx = &mut self.effects.at(now);
        self.transfers.handle_timeout(cx);
        let people = People::of(&self.account, &self.identities);
        self.conversations.handle_timeout(people, cx);
        cx.repeat_failed_writes();
        self.settle(now);
    }

    /// Tells whether there are links to other devices. After [`Input::ShutDown`] they end within
    /// [`FAREWELL_TIMEOUT_MAX`](common::limits::FAREWELL_TIMEOUT_MAX): whoever stops a node waits for that.
    pub fn has_links(&self) -> bool {
        !self.effects.links.is_empty()
    }

    /// Tells whether a received message is on its way to the disk: its author waits for the receipt, so
    /// whoever stops a node waits for this, within reason.
    pub fn owes_receipts(&self) -> bool {
        self.conversations.owes_answers()
    }

    /// The occupancy of each bounded resource.
    pub fn occupancies(&self) -> Vec<Occupancy> {
        let parts = [
            self.effects.requests.occupancies().to_vec(),
            self.effects.links.occupancies(),
            self.conversations.occupancies().to_vec(),
            self.transfers.occupancies(),
            self.lan.occupancies().to_vec(),
            vec![self.effects.stores.occupancy(), self.identities.occupancy()],
        ];
        parts.concat()
    }

    /// The next thing to do. The bytes of a [`Output::Transmit`] land in `buffer`, which is cleared
    /// first.
    ///
    /// Drain until [`Output::Wait`] after each batch of inputs and each timeout: only then is nothing
    /// left to do, and only then is the deadline known. Call [`Node::handle_timeout`] when it passes, and
    /// drain again.
    ///
    /// ```
    /// use std::time::Instant;
    ///
    /// use common::id::DeviceName;
    /// use common::key::DeviceSecret;
    /// use common::time::{Epoch, UnixTime};
    /// use peer::node::command::{Command, CommandId, Reply};
    /// use peer::node::io::Restored;
    /// use peer::node::{Input, Node, NodeOptions, Output, PathRule};
    ///
    /// let now = Instant::now();
    /// let options = NodeOptions {
    ///     secret: DeviceSecret::from_seed([1; 32]),
    ///     device_name: DeviceName::lossy("laptop"),
    ///     restored: Restored::default(),
    ///     epoch: Epoch::new(now, UnixTime::from_millis(1_700_000_000_000)),
    ///     rule: PathRule::Any,
    ///     lan: true,
    ///     port_mapping: true,
    ///     is_port_chosen: false,
    /// };
    /// let mut node = Node::new([2; 32], now, options);
    /// let mut buffer = Vec::new();
    /// node.handle_input(Input::Command(CommandId(7), Command::Status), now);
    /// let mut account = None;
    /// let deadline = loop {
    ///     match node.poll_output(now, &mut buffer) {
    ///         Output::Reply(CommandId(7), Ok(Reply::Status(status))) => account = status.account,
    ///         Output::Wait(deadline) => break deadline,
    ///         // A shell sends, stores, reads, computes and tells here.
    ///         output => panic!("not expected of a node without an account: {output:?}"),
    ///     }
    /// };
    /// assert_eq!(account, None, "this device has not logged in");
    /// assert_eq!(deadline, None, "nothing to do until an input comes");
    /// ```
    pub fn poll_output(&mut self, now: Instant, buffer: &mut Vec<u8>) -> Output {
        buffer.clear();
        // What is to be on disk comes before the packets that carry it: the store's journal has it then.
        if let Some(output) = self.effects.outputs.pop_front() {
            return output;
        }
        if let Some(announcement) = self.lan.poll_output() {
            return Output::Lan(announcement);
        }
        if let Some(transmit) = self.paths.poll_transmit(buffer) {
            return Output::Transmit(transmit);
        }
        if let Some(transmit) = self.effects.links.poll_transmit(now, buffer) {
            return Output::Transmit(transmit);
        }
        while let Some(train) = self.effects.links.poll_train() {
            // On a connection that is not logged in it would be no frame.
            if self.effects.requests.is_online() {
                return Output::Rendezvous(relayed(train));
            }
        }
        Output::Wait(self.deadline())
    }

    fn deadline(&self) -> Option<Deadline> {
        let Effects {
            requests,
            links,
            stores,
            ..
        } = &self.effects;
        let deadlines = [
            (self.account.poll_timeout(requests), "account"),
            (
                self.directory.poll_timeout(requests, links, &self.lan),
                "directory",
            ),
            (self.transfers.poll_timeout(), "transfers"),
            (self.conversations.poll_timeout(), "conversations"),
            (self.paths.poll_timeout(), "paths"),
            (self.ways.poll_timeout(), "ways"),
            (self.lan.poll_timeout(), "lan"),
            (links.poll_timeout(), "links"),
            (stores.poll_timeout(), "store"),
        ];
        let due = deadlines
            .into_iter()
            .filter_map(|(at, why)| at.map(|at| Deadline { at, why }));
        due.min_by_key(|deadline| deadline.at)
    }

    /// Carries events between the parts until all are quiet.
    fn settle(&mut self, now: Instant) {
        loop {
            self.tell_neighbours(now);
            let own = self.account.name();
            let is_unapproved = own.is_some_and(|own| self.identities.is_unapproved(own));
            self.account.set_unapproved(is_unapproved);
            let cx = &mut self.effects.at(now);
            let has_sent = self.account.send_requests(cx);
            if let Some(event) = self.account.poll_event() {
                self.on_account(event, now);
            } else if let Some(answered) = cx.requests.poll_answered() {
                self.wants_are_stale = true;
                match answered {
                    Answered::Directory(purpose, answer) => {
                        let known = &self.identities;
                        self.directory.on_answer(purpose, answer, known, cx);
                    }
                    Answered::Device(purpose, answer) => {
                        self.account.on_answer(purpose, answer, cx);
                    }
                    Answered::Introduction(purpose, answer) => {
                        let lan = &self.lan;
                        self.directory
                            .on_introduction_answer(purpose, answer, lan, cx);
                    }
                    Answered::Identity(purpose, answer) => {
                        let own = self.account.name();
                        self.identities.on_answer(purpose, answer, own, cx);
                    }
                }
            } else if let Some((id, command)) = self.identities.poll_held() {
                self.on_command(id, command, now);
            } else if let Some(account) = self.conversations.poll_stale() {
                self.identities.on_stale(account, cx);
            } else if let Some(account) = self.identities.poll_changed() {
                let people = People::of(&self.account, &self.identities);
                self.conversations.on_account_changed(&account, people, cx);
            } else if let Some(event) = self.directory.poll_event() {
                self.on_directory(event, now);
            } else if let Some(event) = cx.links.poll_event(now) {
                self.on_links(event, now);
            } else if !has_sent && !self.look_for_wanted(now) {
                break;
            }
        }
    }

    /// Has the directory look for every account that messages or offers wait for. Returns whether that
    /// made new work.
    fn look_for_wanted(&mut self, now: Instant) -> bool {
        let cx = &mut self.effects.at(now);
        if std::mem::take(&mut self.wants_are_stale) {
            let has_files = self.transfers.partners().next().is_some();
            self.directory.set_watched(has_files);
            let waiting = self.conversations.wanted();
            let waiting = waiting.chain(self.identities.awaited());
            let waiting = self.transfers.partners().chain(waiting);
            let waiting = waiting.chain(self.paths.sought());
            let own = self.account.name();
            let has_others = own.is_some_and(|own| self.identities.has_others(own));
            self.directory
                .set_wanted(waiting, own, has_others, cx.links);
        }
        let has_dialled = self.directory.look_nearby(&self.lan, cx);
        let has_asked = match cx.requests.down().cloned() {
            Some(error) => self.transfers.on_down(&error, cx),
            None => {
                self.directory.look_for_wanted(&self.identities, cx);
                cx.requests.has_output()
            }
        };
        has_dialled || has_asked
    }

    // ---- the store -----------------------------------------------------------------------------

    fn on_stored(&mut self, id: StoreId, answer: StoreAnswer, now: Instant) {
        let cx = &mut self.effects.at(now);
        match cx.on_store_answer(id) {
            Some(StorePurpose::Account(purpose)) => self.account.on_stored(purpose, answer, cx),
            Some(StorePurpose::Conversations(purpose)) => {
                let people = People::of(&self.account, &self.identities);
                self.conversations.on_stored(purpose, answer, people, cx);
            }
            Some(StorePurpose::Unawaited(request)) => cx.on_unawaited(request, answer),
            None => {}
        }
    }
}

/// Draws the seed of a part's own generator.
fn child_seed(rng: &mut StdRng) -> [u8; 32] {
    let mut seed = [0; 32];
    rng.fill_bytes(&mut seed);
    seed
}

#[cfg(test)]
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "tests look for one variant among many"
)]
mod tests;
