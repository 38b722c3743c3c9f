//! Conversations: this device's copies of their logs, and what is said of them on links.
//!
//! Owns the replica of each conversation, how far its entries have got, a session for each link, and what is on its
//! way to the store and to the worker that checks and makes seals. Who is approved says `identities`, each time anew.
//!
//! - At the start the store is asked, once, how the last program ended, and then for each conversation. Until one is
//!   read it is neither written nor shared: what people write meanwhile waits, and so do links.
//! - What this device writes is given to links at once, and what others write is shown at once. Its author is told that
//!   it is here once the store has it.
//! - What comes is examined, its seal checked off the loop, admitted, and answered once the store has it.
//! - If the store fails, the conversation is read from it again, later and later, and begins a new run. What waited for
//!   that write is told; others give again what they gave.
//!
//! Every public call ends with [`Conversations::run`], which carries out what sessions ask for until nothing is left.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use common::id::{AccountName, MessageId};
use common::key::{DeviceKey, DeviceSecret};
use common::limits::{CONVERSATIONS_MAX, LOG_FRESH, OUTBOX_MESSAGES_MAX, Occupancy};
use common::log::{ChainId, ConversationId, Digest};
use common::time::UnixTime;
use common::wire::peer::{LogFrame, Message, MessageBody};
use rand::rngs::StdRng;

use crate::log::{
    Budget, CleanMark, Context as SessionContext, Event as SessionEvent, Instance, Replica,
    Session, Shared, Task,
};

use super::command::CommandId;
use super::context::Context;
use super::io::WorkId;
use super::links::LinkChange;
use super::transport::LinkId;
use super::violation::ProtocolViolation;
use held::Held;
use links::End;
pub(super) use people::People;
use restoring::Start;
use taking::Work;
use writing::Sending;

// What this device has written and the disk may not have.
mod fresh;
// One conversation.
mod held;
// What is said on links.
mod links;
// What people look up, and take back.
mod looking;
// Who counts.
mod people;
// How far entries have got.
mod reaching;
// What the store has at the start, and after it has failed.
mod restoring;
// What others have written.
mod taking;
// What this device writes.
mod writing;

/// All conversations of this device.
#[derive(Debug)]
pub(super) struct Conversations {
    device: DeviceKey,
    secret: Arc<DeviceSecret>,
    /// Draws the numbers of runs.
    rng: StdRng,
    start: Start,
    instance: Option<Instance>,
    /// Where runs have ended in order, of conversations that are not read yet.
    marks: BTreeMap<ConversationId, CleanMark>,
    held: BTreeMap<ConversationId, Held>,
    /// Messages that waited when the program started, until those of all conversations are read.
    undelivered: usize,
    ends: BTreeMap<LinkId, End>,
    budget: Budget,
    /// What sessions have asked for and told.
    tasks: VecDeque<(LinkId, Task)>,
    events: VecDeque<(LinkId, SessionEvent)>,
    /// Links whose sessions may have a frame to send.
    dirty: BTreeSet<LinkId>,
    /// Conversations of which something is to be sealed.
    sealing: BTreeSet<ConversationId>,
    works: BTreeMap<WorkId, Work>,
    next_work: u64,
    sendings: BTreeMap<CommandId, Sending>,
    /// Pages that are on their way to the disk.
    taking: usize,
    /// Accounts that have not been told that this one has read something.
    owed: BTreeSet<AccountName>,
    /// Messages that wait until it is known who their recipients are, the oldest first.
    old: BTreeMap<AccountName, VecDeque<Message>>,
    /// Messages that wait until it is known which conversations there are.
    early: Vec<(CommandId, Vec<AccountName>, MessageBody, UnixTime)>,
    /// Messages that people take back, until all conversations are read.
    withdrawals: Vec<(CommandId, Vec<MessageId>)>,
    /// Accounts whose logs are to be read again: somebody has said more of them, or messages wait for that.
    stale: BTreeSet<AccountName>,
    /// Accounts that this one has conversations with, as its other devices say, of whom nothing is known here.
    heard_of: BTreeSet<AccountName>,
    /// When the logs are read again of those for whom messages wait and who are linked.
    look_at: Option<Instant>,
    /// The program ends: nothing is written any more.
    is_ending: bool,
    /// The store has kept how it ends.
    has_ended: bool,
}

/// What is shared over a link.
#[derive(Debug)]
struct View<'a> {
    held: &'a BTreeMap<ConversationId, Held>,
    account: &'a AccountName,
    /// That is this device's account.
    is_own: bool,
}

impl Shared for View<'_> {
    fn replica(&self, conversation: &ConversationId) -> Option<&Replica> {
        let held = self.held.get(conversation)?;
        let is_shared = held.is_shared_with(self.account, self.is_own);
        is_shared.then_some(&held.replica)
    }

    fn digests(&self) -> BTreeMap<ConversationId, Digest> {
        let held = self.held.iter();
        let shared = held.filter(|(_, held)| held.is_shared_with(self.account, self.is_own));
        shared
            .map(|(id, held)| (*id, held.replica.digest()))
            .collect()
    }
}

impl Conversations {
    /// Nothing is read from the store yet. `rng` is this part's own; `waiting` are messages to accounts
    /// of which nothing was known, the oldest first.
    pub(super) fn new(
        secret: DeviceSecret,
        rng: StdRng,
        waiting: Vec<(AccountName, Message)>,
        undelivered: usize,
    ) -> Self {
        let mut old: BTreeMap<AccountName, VecDeque<Message>> = BTreeMap::new();
        for (to, message) in waiting {
            old.entry(to).or_default().push_back(message);
        }
        Self {
            device: secret.public(),
            secret: Arc::new(secret),
            rng,
            start: Start::Before,
            instance: None,
            marks: BTreeMap::new(),
            held: BTreeMap::new(),
            undelivered,
            ends: BTreeMap::new(),
            budget: Budget::new(),
            tasks: VecDeque::new(),
            events: VecDeque::new(),
            dirty: BTreeSet::new(),
            sealing: BTreeSet::new(),
            works: BTreeMap::new(),
            next_work: 0,
            sendings: BTreeMap::new(),
            taking: 0,
            owed: BTreeSet::new(),
            old,
            early: Vec::new(),
            withdrawals: Vec::new(),
            stale: BTreeSet::new(),
            heard_of: BTreeSet::new(),
            look_at: None,
            is_ending: false,
            has_ended: false,
        }
    }

    /// The occupancy of each bounded resource.
    pub(super) fn occupancies(&self) -> [Occupancy; 2] {
        let drafts = self.held.values().map(|held| held.waiting.len());
        [
            Occupancy::new("conversations", self.held.len(), CONVERSATIONS_MAX),
            Occupancy::fullest(
                "messages that wait to be written",
                drafts,
                OUTBOX_MESSAGES_MAX,
            ),
        ]
    }

    /// Tells whether something that came is on its way to the disk: whoever gave it waits for the answer.
    pub(super) const fn owes_answers(&self) -> bool {
        self.taking > 0 || self.is_ending && !self.has_ended
    }

    /// Tells whether all conversations are read from the store.
    fn is_read(&self) -> bool {
        self.start == Start::Done && self.held.values().all(|held| held.is_counted)
    }

    /// Messages of this account that the accounts they are for do not have.
    pub(super) fn waiting(&self) -> usize {
        let held = match self.is_read() {
            true => self.held.values().map(Held::waiting).sum(),
            false => self.undelivered,
        };
        let old: usize = self.old.values().map(VecDeque::len).sum();
        held + old
    }

    /// The same for one account.
    pub(super) fn waiting_for(&self, account: &AccountName) -> usize {
        let held = self.held.values().filter(|held| held.with() == account);
        let old = self.old.get(account).map_or(0, VecDeque::len);
        old + held.map(Held::waiting).sum::<usize>()
    }

    /// Accounts that a link is wanted to: messages wait for them, or word that something was read.
    pub(super) fn wanted(&self) -> impl Iterator<Item = &AccountName> {
        let held = self.held.values().filter(|held| held.is_current);
        let waiting = held.filter(|held| held.waiting() > 0);
        let old = self.old.keys();
        waiting.map(Held::with).chain(&self.owed).chain(old)
    }

    /// What has changed about who is who in an account: decides anew whose entries count.
    pub(super) fn on_account_changed(
        &mut self,
        account: &AccountName,
        people: People<'_>,
        cx: &mut Context<'_>,
    ) {
        let is_own = people.own == Some(account);
        let concerned = self
            .held
            .values()
            .filter(|held| is_own || held.with() == account);
        let concerned: Vec<ConversationId> = concerned.map(Held::id).collect();
        for id in concerned {
            self.refresh(id, people, cx);
        }
        for link in self.links_with(account, is_own) {
            self.ensure_shared(link, people, cx);
        }
        if self.heard_of.remove(account) {
            self.join(account, people, cx);
        }
        match is_own {
            true => self.write_all_old(people, cx),
            false => self.write_old(account, people, cx),
        }
        self.run(people, cx);
    }

    /// Decides anew whose entries count in a conversation, and ends the chains of devices that this one has revoked.
    fn refresh(&mut self, id: ConversationId, people: People<'_>, cx: &mut Context<'_>) {
        let Some(held) = self.held.get_mut(&id) else {
            return;
        };
        let members = people.members(&id, &held.kind);
        let was_current = held.is_current;
        held.is_current = people.is_current(&id, &held.kind);
        if !held.is_ready() {
            return;
        }
        held.replica.refresh(&members);
        let ends: Vec<ChainId> = held
            .replica
            .chains()
            .filter(|chain| members.is_revoked_by(&chain.device, &self.device))
            .filter(|chain| !held.replica.is_cut(chain))
            .copied()
            .collect();
        let (is_current, with) = (held.is_current, held.with().clone());
        for chain in ends {
            self.cut(id, chain);
        }
        if was_current && !is_current {
            for link in self.links_with(&with, false) {
                self.with(link, cx.now, |session, _| session.handle_unshared(&id));
            }
        }
        self.restate(id, cx.now);
        self.look_up_ends(id, cx);
        self.write_waiting(id, people, cx);
    }

    /// The conversation with an account: the one that is there, or a new one, in which nothing is written yet.
    fn ensure(&mut self, with: &AccountName, people: People<'_>) -> Option<ConversationId> {
        let (id, kind) = people.conversation(with)?;
        if self.start == Start::Done && !self.held.contains_key(&id) {
            if self.held.len() >= CONVERSATIONS_MAX {
                log::warn!("no more than {CONVERSATIONS_MAX} conversations are kept");
                return None;
            }
            let mut replica = Replica::new(id, self.device);
            replica.refresh(&people.members(&id, &kind));
            replica.poll_restate();
            self.held.insert(id, Held::new(kind, replica));
        }
        Some(id)
    }

    /// Another device of this account has a conversation with somebody: it is shared from now on, or once it is known
    /// who that is.
    fn join(&mut self, with: &AccountName, people: People<'_>, cx: &mut Context<'_>) {
        let known = people.conversation(with);
        if known.is_some_and(|(id, _)| self.held.contains_key(&id)) {
            return;
        }
        if let Some(id) = self.ensure(with, people) {
            self.share(id, cx.now);
        } else if self.heard_of.len() < CONVERSATIONS_MAX {
            self.heard_of.insert(with.clone());
            self.stale.insert(with.clone());
        }
    }

    /// Carries out what sessions ask for, and sends what they have to say, until nothing is left.
    fn run(&mut self, people: People<'_>, cx: &mut Context<'_>) {
        loop {
            if let Some((link, event)) = self.events.pop_front() {
                self.on_session_event(link, event, people, cx);
            } else if let Some((link, task)) = self.tasks.pop_front() {
                self.on_task(link, task, people, cx);
            } else if !self.send_frames(cx) {
                break;
            }
        }
    }

    /// Calls the session of a link, and takes what it asks for and tells.
    fn with<T>(
        &mut self,
        link: LinkId,
        now: Instant,
        call: impl FnOnce(&mut Session, &mut SessionContext<'_, View<'_>>) -> T,
    ) -> Option<T> {
        let end = self.ends.get_mut(&link)?;
        let session = end.session.as_mut()?;
        let shared = View {
            held: &self.held,
            account: &end.account,
            is_own: end.is_own,
        };
        let had_room = self.budget.has_room();
        let mut cx = SessionContext {
            shared: &shared,
            budget: &mut self.budget,
            now,
        };
        let result = call(session, &mut cx);
        while let Some(task) = session.poll_task() {
            self.tasks.push_back((link, task));
        }
        while let Some(event) = session.poll_event() {
            self.events.push_back((link, event));
        }
        self.dirty.insert(link);
        if !had_room && self.budget.has_room() {
            let blocked = self.ends.iter().filter(|(_, end)| end.is_blocked());
            self.dirty.extend(blocked.map(|(link, _)| *link));
        }
        Some(result)
    }

    /// The links over which a conversation is shared.
    fn links_of(&self, id: &ConversationId) -> Vec<LinkId> {
        let Some(held) = self.held.get(id) else {
            return Vec::new();
        };
        let ends = self.ends.iter();
        let sharing = ends.filter(|(_, end)| held.is_shared_with(&end.account, end.is_own));
        sharing.map(|(link, _)| *link).collect()
    }

    /// The links to an account's devices, or all if that is this one's.
    fn links_with(&self, account: &AccountName, is_own: bool) -> Vec<LinkId> {
        let ends = self.ends.iter();
        let with = ends.filter(|(_, end)| is_own || end.account == *account);
        with.map(|(link, _)| *link).collect()
    }

    /// What was refused of a conversation may be taken now: that is said on all links.
    fn restate(&mut self, id: ConversationId, now: Instant) {
        let held = self.held.get_mut(&id);
        if held.is_some_and(|held| held.replica.poll_restate()) {
            for link in self.links_of(&id) {
                self.with(link, now, |session, cx| session.handle_restate(id, cx));
            }
        }
    }

    /// A chain is another one than before; `is_durable` if the disk has that.
    fn tell_changed(&mut self, id: ConversationId, chain: ChainId, is_durable: bool, now: Instant) {
        for link in self.links_of(&id) {
            self.with(link, now, |session, cx| match is_durable {
                true => session.handle_committed(id, chain, cx),
                false => session.handle_change(id, chain, cx),
            });
        }
    }

    /// The next account whose log is to be read again.
    pub(super) fn poll_stale(&mut self) -> Option<AccountName> {
        self.stale.pop_first()
    }

    /// Has the logs of accounts read again that are linked, and for which messages wait until it is known who they are.
    fn look_for_old(&mut self, now: Instant) {
        let linked = self.ends.values().map(|end| &end.account);
        let waiting: BTreeSet<&AccountName> =
            linked.filter(|it| self.old.contains_key(*it)).collect();
        if waiting.is_empty() {
            self.look_at = None;
        } else if self.look_at.is_none_or(|at| at <= now) {
            self.stale.extend(waiting.into_iter().cloned());
            self.look_at = Some(now + LOG_FRESH);
        }
    }

    // ---- time ----------------------------------------------------------------------------------

    /// When [`Conversations::handle_timeout`] is due.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let sealing = self.sealing.iter().filter_map(|id| self.held.get(id));
        let sealing = sealing.filter_map(|held| held.replica.poll_timeout());
        let sessions = self.ends.values().filter_map(End::poll_timeout);
        let broken = self.held.values().filter_map(|held| match held.state {
            held::State::Broken(at) => Some(at),
            held::State::Restoring | held::State::Ready => None,
        });
        sealing
            .chain(sessions)
            .chain(broken)
            .chain(self.held.values().filter_map(Held::carried_at))
            .chain(self.look_at)
            .chain(self.start.poll_timeout())
            .min()
    }

    /// Has sealed what is due, gives what has waited, and reads again what was broken.
    pub(super) fn handle_timeout(&mut self, people: People<'_>, cx: &mut Context<'_>) {
        self.try_again(cx);
        self.look_for_old(cx.now);
        self.keep_carried(cx.now, cx);
        let sealing: Vec<ConversationId> = self.sealing.iter().copied().collect();
        for id in sealing {
            self.seal_due(id, cx);
        }
        let due = self.ends.iter().filter(|(_, end)| end.is_due(cx.now));
        let due: Vec<LinkId> = due.map(|(link, _)| *link).collect();
        for link in due {
            self.with(link, cx.now, |session, cx| session.handle_timeout(cx));
        }
        self.run(people, cx);
    }
}
