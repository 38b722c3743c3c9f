//! What is said of conversations on each link.

use std::collections::VecDeque;
use std::time::Instant;

use common::id::AccountName;
use common::key::DeviceKey;
use common::log::{ConversationId, Extent, Vector};
use common::wire::peer::{DatabaseInstance, PeerFrame};

use super::restoring::Start;
use super::*;

/// This device's end of a link.
#[derive(Debug)]
pub(super) struct End {
    pub(super) account: AccountName,
    pub(super) is_own: bool,
    device_key: DeviceKey,
    /// `None` until the conversations are read from the store.
    pub(super) session: Option<Session>,
    /// Frames that came before that.
    early: VecDeque<LogFrame>,
    /// What was shared with another account's device when the session began.
    pub(super) opened: BTreeMap<ConversationId, Vector>,
    /// What waits for the verifier, in the order in which it came.
    pub(super) takes: VecDeque<Task>,
    /// The verifier has the one before them.
    pub(super) is_checking: bool,
}

impl End {
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.session.as_ref().and_then(Session::poll_timeout)
    }

    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.poll_timeout().is_some_and(|due| due <= now)
    }

    /// It may be the budget that it waits for.
    pub(super) fn is_blocked(&self) -> bool {
        self.session.as_ref().is_some_and(Session::is_blocked)
    }

    /// The device at the other end.
    pub(super) const fn device_key(&self) -> &DeviceKey {
        &self.device_key
    }
}

impl Conversations {
    /// A link became ready, or was lost.
    pub(in crate::node) fn on_link(
        &mut self,
        change: &LinkChange,
        people: People<'_>,
        cx: &mut Context<'_>,
    ) {
        match change {
            LinkChange::Ready {
                link,
                account,
                device_key,
            } => {
                let end = End {
                    account: account.clone(),
                    is_own: people.own == Some(account),
                    device_key: *device_key,
                    session: None,
                    early: VecDeque::new(),
                    opened: BTreeMap::new(),
                    takes: VecDeque::new(),
                    is_checking: false,
                };
                self.ends.insert(*link, end);
                self.owed.remove(account);
                self.open(*link, people, cx);
            }
            LinkChange::Lost { link, .. } => {
                if let Some(session) = self.ends.remove(link).and_then(|end| end.session) {
                    session.close(&mut self.budget);
                    let blocked = self.ends.iter().filter(|(_, end)| end.is_blocked());
                    self.dirty.extend(blocked.map(|(link, _)| *link));
                }
            }
            LinkChange::Writable { link } => {
                self.dirty.insert(*link);
            }
            LinkChange::Silent { .. } | LinkChange::Heard => {}
            LinkChange::Proved { .. }
            | LinkChange::Reached { .. }
            | LinkChange::Rerouted
            | LinkChange::Left { .. }
            | LinkChange::LeafAcknowledged { .. }
            | LinkChange::DialFailed { .. } => return,
        }
        self.choose(cx);
        self.look_for_old(cx.now);
        self.run(people, cx);
    }

    /// Has the best link to each device give what it lacks, and no other.
    pub(super) fn choose(&mut self, cx: &mut Context<'_>) {
        let links: Vec<LinkId> = self.ends.keys().copied().collect();
        for link in links {
            let is_quiet = !cx.links.is_best(link);
            self.with(link, cx.now, |session, _| session.set_quiet(is_quiet));
        }
    }

    /// Begins the session of a link, if the conversations are read.
    pub(super) fn open(&mut self, link: LinkId, people: People<'_>, cx: &mut Context<'_>) {
        let (Start::Done, Some(instance)) = (&self.start, self.instance) else {
            return;
        };
        let Some(end) = self.ends.get(&link) else {
            return;
        };
        let account = end.account.clone();
        self.ensure(&account, people);
        let Some(end) = self.ends.get_mut(&link) else {
            return;
        };
        let shared = View {
            held: &self.held,
            account: &end.account,
            is_own: end.is_own,
        };
        let head = people.head();
        let instance = DatabaseInstance(instance.0);
        end.session = Some(Session::open(end.device_key, head, instance, &shared));
        if !end.is_own {
            let held = self.held.values();
            let shared = held.filter(|held| held.is_shared_with(&end.account, false));
            end.opened = shared
                .map(|held| (held.id(), held.replica.vector(None)))
                .collect();
        }
        self.dirty.insert(link);
        let early = std::mem::take(&mut end.early);
        self.presume(link, cx);
        for frame in early {
            self.take_frame(link, frame, cx);
        }
        self.tell_read(link, people, cx);
        self.tell_known(link, cx.now);
    }

    /// Tells another device of this account whom there are conversations with.
    fn tell_known(&mut self, link: LinkId, now: Instant) {
        let is_own = self.ends.get(&link).is_some_and(|end| end.is_own);
        let held = self
            .held
            .values()
            .filter(|held| held.is_open && held.is_current);
        let known: Vec<AccountName> = held.map(|held| held.with().clone()).collect();
        if is_own {
            self.with(link, now, |session, _| session.say_known(&known));
        }
    }

    /// A conversation begins: this account's other devices are told.
    pub(super) fn tell_begun(&mut self, with: &AccountName, now: Instant) {
        let ends = self.ends.iter().filter(|(_, end)| end.is_own);
        let links: Vec<LinkId> = ends.map(|(link, _)| *link).collect();
        for link in links {
            let with = std::slice::from_ref(with);
            self.with(link, now, |session, _| session.say_known(with));
        }
    }

    /// What this device has written and nobody of the other account has said to have is given at once.
    fn presume(&mut self, link: LinkId, cx: &Context<'_>) {
        let Some(end) = self.ends.get(&link).filter(|end| !end.is_own) else {
            return;
        };
        let device = self.device;
        let shared = self.held.values();
        let mut shared = shared.filter(|held| held.is_shared_with(&end.account, false));
        let Some(held) = shared.next() else {
            return;
        };
        let (id, mut has) = (held.id(), held.replica.vector(None));
        let mut chains = Vec::new();
        for chain in held.replica.chains_of(&device) {
            let delivered = held.reached(chain).delivered;
            let tip = held.replica.tip(chain);
            if tip.is_some_and(|tip| tip.sequence > delivered) {
                chains.push(*chain);
                let extent = Extent {
                    sealed: delivered,
                    last: delivered,
                    ..Extent::NOTHING
                };
                has.0.insert(*chain, extent);
            }
        }
        if !chains.is_empty() {
            self.with(link, cx.now, |session, cx| {
                session.presume(id, &has, &chains, cx);
            });
        }
    }

    /// A conversation may have come to be shared over a link, because it is known now who an account is.
    pub(super) fn ensure_shared(&mut self, link: LinkId, people: People<'_>, cx: &mut Context<'_>) {
        let Some(end) = self.ends.get(&link) else {
            return;
        };
        let account = end.account.clone();
        let is_known = people
            .conversation(&account)
            .map(|(id, _)| self.held.contains_key(&id));
        if is_known != Some(false) {
            return;
        }
        if let Some(id) = self.ensure(&account, people)
            && self.held.contains_key(&id)
        {
            self.share(id, cx.now);
        }
    }

    /// A conversation is shared from now on.
    pub(super) fn share(&mut self, id: ConversationId, now: Instant) {
        for link in self.links_of(&id) {
            self.with(link, now, |session, cx| session.handle_shared(id, cx));
        }
    }

    /// A frame came over a link.
    ///
    /// # Errors
    ///
    /// The other side has broken the protocol.
    pub(in crate::node) fn on_frame(
        &mut self,
        link: LinkId,
        frame: LogFrame,
        people: People<'_>,
        cx: &mut Context<'_>,
    ) {
        self.take_frame(link, frame, cx);
        self.run(people, cx);
    }

    fn take_frame(&mut self, link: LinkId, frame: LogFrame, cx: &mut Context<'_>) {
        let Some(end) = self.ends.get_mut(&link) else {
            return;
        };
        if end.session.is_none() {
            // It says no more until it is answered: a greeting, and what follows from that.
            if end.early.len() >= common::limits::EARLY_FRAMES_MAX {
                return cx.links.close(link, cx.now);
            }
            return end.early.push_back(frame);
        }
        let done = self.with(link, cx.now, |session, cx| session.handle_frame(frame, cx));
        if let Some(Err(violation)) = done {
            close_for(link, violation, cx);
        }
    }

    /// Sends the next frames of all sessions that may have some, as long as links have room. Tells whether there is
    /// something to do for them now.
    pub(super) fn send_frames(&mut self, cx: &mut Context<'_>) -> bool {
        let dirty: Vec<LinkId> = self.dirty.iter().copied().collect();
        for link in dirty {
            while cx.links.has_room(link) {
                match self.with(link, cx.now, |session, cx| session.poll_frame(cx)) {
                    Some(Some(frame)) => cx.send(link, PeerFrame::Log(frame)),
                    Some(None) | None => {
                        self.dirty.remove(&link);
                        break;
                    }
                }
            }
        }
        !self.tasks.is_empty() || !self.events.is_empty()
    }
}

/// Closes the link of somebody who broke the protocol.
pub(super) fn close_for(link: LinkId, violation: crate::log::Violation, cx: &mut Context<'_>) {
    cx.links
        .close_for(link, ProtocolViolation::Log(violation), cx.now);
}
