//! What this device writes: drafts, entries, seals, and what people are told once they are on disk.

use std::time::Instant;

use common::id::{AccountName, MessageId};
use common::limits::{DRAFT_FRESH, OUTBOX_MESSAGES_MAX};
use common::log::{Body, ChainId, ConversationId, EntryId, HeaderHash, Kind, RunId, Seal};
use common::time::UnixTime;
use common::wire::peer::{Conversation, MessageBody};
use rand::RngExt;

use super::held::Held;
use super::restoring::Start;
use super::taking::Work;
use super::*;
use crate::log::{Admission, AppendError, OwnRun, Refusal, SealJob};
use crate::node::command::{
    CommandError, Cursor, Direction, Event, HistoryItem, MessageState, Recorded, Reply,
};
use crate::node::drafts::{Draft, Then, Written};
use crate::node::io::entries::{EntriesAnswer, EntriesRequest, EntryWrite, Origin};
use crate::node::io::{ChatRequest, SealWork, StoreAnswer};
use crate::node::purpose::ConversationStored;

/// A command that sends messages, until all of them are on disk.
#[derive(Debug)]
pub(super) struct Sending {
    ids: Vec<Option<MessageId>>,
    error: Option<CommandError>,
    left: usize,
    /// What is told once the command is answered.
    told: Vec<(EntryId, HistoryItem)>,
    places: Vec<(EntryId, Cursor)>,
}

impl Conversations {
    // ---- messages ------------------------------------------------------------------------------

    /// Sends a text to accounts, each of them known.
    pub(in crate::node) fn send(
        &mut self,
        command: CommandId,
        to: &[AccountName],
        body: &MessageBody,
        sent: UnixTime,
        people: People<'_>,
        cx: &mut Context<'_>,
    ) {
        if self.start != Start::Done {
            self.early.push((command, to.to_vec(), body.clone(), sent));
            return;
        }
        let mut recipients: Vec<AccountName> = Vec::new();
        for account in to {
            if self.waiting_for(account) >= OUTBOX_MESSAGES_MAX {
                let error = CommandError::TooMany(format!("messages waiting for {account}"));
                return cx.reply(command, Err(error));
            }
            if !recipients.contains(account) {
                recipients.push(account.clone());
            }
        }
        let sending = Sending {
            ids: vec![None; recipients.len()],
            error: None,
            left: recipients.len(),
            told: Vec::new(),
            places: Vec::new(),
        };
        self.sendings.insert(command, sending);
        for (index, to) in recipients.into_iter().enumerate() {
            match self.ensure(&to, people) {
                Some(id) => {
                    let draft = Draft {
                        kind: Kind::TEXT,
                        body: Body::Text(body.clone()).to_bytes(),
                        at: Some(sent),
                        then: Then::Sent(command, index),
                    };
                    self.write_draft(id, draft, people, cx);
                }
                None => queue((command, index), to, body.clone(), sent, cx),
            }
        }
        self.run(people, cx);
    }

    /// A message waits in the outbox until it is known who its recipient is.
    pub(super) fn on_queued(
        &mut self,
        (command, index): (CommandId, usize),
        (to, message): (AccountName, Message),
        answer: StoreAnswer,
        people: People<'_>,
        cx: &mut Context<'_>,
    ) {
        if let StoreAnswer::Failed(reason) = answer {
            return self.on_sent(command, index, Err(CommandError::Store(reason)), cx);
        }
        self.on_sent(command, index, Ok(message.id), cx);
        self.old.entry(to.clone()).or_default().push_back(message);
        self.write_old(&to, people, cx);
    }

    /// Writes what waits for accounts of which it is known now who they are.
    pub(super) fn write_all_old(&mut self, people: People<'_>, cx: &mut Context<'_>) {
        let accounts: Vec<AccountName> = self.old.keys().cloned().collect();
        for account in accounts {
            self.write_old(&account, people, cx);
        }
    }

    /// Writes what waits for an account, if it is known now who that is.
    pub(super) fn write_old(&mut self, to: &AccountName, people: People<'_>, cx: &mut Context<'_>) {
        if self.start != Start::Done || !self.old.contains_key(to) {
            return;
        }
        let Some(id) = self.ensure(to, people) else {
            return;
        };
        for message in self.old.remove(to).into_iter().flatten() {
            let draft = Draft {
                kind: Kind::TEXT,
                body: Body::Text(message.body).to_bytes(),
                at: Some(message.sent),
                then: Then::Replaces(message.id),
            };
            self.write_draft(id, draft, people, cx);
        }
    }

    fn write_draft(
        &mut self,
        id: ConversationId,
        draft: Draft,
        people: People<'_>,
        cx: &mut Context<'_>,
    ) {
        if let Some(held) = self.held.get_mut(&id) {
            held.waiting.push_back(draft);
            self.write_waiting(id, people, cx);
        }
    }

    /// Writes what waits in a conversation, as far as it can be now.
    pub(super) fn write_waiting(
        &mut self,
        id: ConversationId,
        people: People<'_>,
        cx: &mut Context<'_>,
    ) {
        while let Some(held) = self.held.get_mut(&id)
            && held.is_ready()
            && !self.is_ending
            && let Some(draft) = held.waiting.front().cloned()
        {
            let run = RunId::from_bytes(self.rng.random());
            match append(held, self.device, run, &draft, people, cx) {
                Ok(Appended {
                    mut writes,
                    admission,
                    previous,
                }) => {
                    held.waiting.pop_front();
                    let mut written = Written::default();
                    if matches!(draft.then, Then::Sent(..)) {
                        written.fresh = keep_fresh(held, previous, &admission);
                    }
                    match draft.then {
                        Then::Nothing => written.again = Some(draft),
                        Then::Sent(command, index) => written.sent = Some((command, index)),
                        Then::Rewritten(entry) => writes.push(EntryWrite::Rewritten(entry)),
                        Then::Replaces(message) => {
                            written.replaces = Some(message);
                            written.again = Some(draft);
                            writes.push(EntryWrite::Replaces(message));
                        }
                    }
                    writes.push(EntryWrite::Admit(Box::new(admission), Origin::WrittenHere));
                    self.write(id, writes, written, cx);
                    self.seal_due(id, cx);
                }
                // Once there is one.
                Err(AppendError::Unsealed) => return,
                // Once it is approved, or logged in again. Whoever has just asked is told.
                Err(AppendError::NotApproved) if !matches!(draft.then, Then::Sent(..)) => return,
                Err(error) => {
                    held.waiting.pop_front();
                    if let Then::Sent(command, index) = draft.then {
                        self.on_sent(command, index, Err(refusal(&error, &self.device)), cx);
                    }
                }
            }
        }
    }

    /// Ends the chain of a device that this one has revoked, where it is now.
    pub(super) fn cut(&mut self, id: ConversationId, chain: ChainId) {
        let Some(held) = self.held.get_mut(&id) else {
            return;
        };
        let Some(tip) = held.replica.tip(&chain) else {
            return;
        };
        let last = EntryId {
            chain,
            sequence: tip.sequence,
        };
        let draft = Draft {
            kind: Kind::CUT,
            body: Body::Cut(last).to_bytes(),
            at: None,
            then: Then::Nothing,
        };
        if !held
            .waiting
            .iter()
            .any(|waiting| waiting.body == draft.body)
        {
            held.waiting.push_back(draft);
        }
    }

    /// Tells a command that one of its messages is on disk, or will not be.
    fn on_sent(
        &mut self,
        command: CommandId,
        index: usize,
        done: Result<MessageId, CommandError>,
        cx: &mut Context<'_>,
    ) {
        let Some(sending) = self.sendings.get_mut(&command) else {
            return;
        };
        sending.left = sending.left.saturating_sub(1);
        match done {
            Ok(id) => {
                if let Some(place) = sending.ids.get_mut(index) {
                    *place = Some(id);
                }
            }
            Err(error) => sending.error = Some(error),
        }
        if sending.left == 0
            && let Some(sending) = self.sendings.remove(&command)
        {
            let reply = match sending.error {
                Some(error) => Err(error),
                None => Ok(Reply::Queued(
                    sending.ids.iter().copied().flatten().collect(),
                )),
            };
            cx.reply(command, reply);
            tell_shown(sending.told, &sending.places, cx);
        }
    }

    // ---- the store -----------------------------------------------------------------------------

    /// Has the store write something in a conversation, and tells sessions that it is about to.
    pub(super) fn write(
        &mut self,
        id: ConversationId,
        writes: Vec<EntryWrite>,
        mut written: Written,
        cx: &mut Context<'_>,
    ) {
        let Some(held) = self.held.get_mut(&id) else {
            return;
        };
        let mut begun = None;
        if !std::mem::replace(&mut held.is_open, true) {
            let kind = held.kind.clone();
            let request = EntriesRequest::Open {
                conversation: id,
                kind,
            };
            cx.store(request, ConversationStored::Opened);
            begun = Some(held.with().clone());
        }
        for write in &writes {
            if let EntryWrite::Admit(admission, origin) = write {
                if let Some(from) = admission.remove {
                    held.on_removed(&admission.chain, from);
                }
                written.receipts.push((admission.chain, admission.receipt));
                written.items.extend(items(held, admission, *origin));
            }
        }
        // People see at once what others have written; its author hears that it is here once the disk has it.
        for (entry, item) in &written.items {
            if item.direction == Direction::Received && held.is_news(entry) {
                cx.event(Event::Message(item.clone()));
            }
        }
        let chains: Vec<ChainId> = written.receipts.iter().map(|(chain, _)| *chain).collect();
        let request = EntriesRequest::Write {
            conversation: id,
            writes,
        };
        let then = ConversationStored::Written(id, held.epoch, Box::new(written));
        cx.store(request, then);
        for chain in chains {
            self.tell_changed(id, chain, false, cx.now);
            self.reach_claimed(id, chain, cx);
        }
        if let Some(with) = begun {
            self.tell_begun(&with, cx.now);
        }
    }

    /// The store has written something, or has failed.
    pub(super) fn on_written(
        &mut self,
        (id, epoch): (ConversationId, u64),
        written: Written,
        answer: StoreAnswer,
        cx: &mut Context<'_>,
    ) {
        if written.settles.is_some() {
            self.taking = self.taking.saturating_sub(1);
        }
        let places = match answer {
            StoreAnswer::Entries(EntriesAnswer::Written(places)) => places,
            StoreAnswer::Failed(reason) => {
                return self.on_write_failed((id, epoch), written, reason, cx);
            }
            answer @ (StoreAnswer::Done | StoreAnswer::Chat(_) | StoreAnswer::Entries(_)) => {
                let reason = format!("unexpected answer of the store: {answer:?}");
                return self.on_write_failed((id, epoch), written, reason, cx);
            }
        };
        let Written {
            receipts,
            mut items,
            settles,
            sent,
            replaces,
            fresh,
            again: _,
        } = written;
        if let Some(held) = self.held.get_mut(&id).filter(|held| held.epoch == epoch) {
            held.on_written();
            for (_, receipt) in &receipts {
                held.replica.committed(receipt);
            }
            self.look_up_ends(id, cx);
            for (chain, _) in &receipts {
                self.tell_changed(id, *chain, true, cx.now);
            }
        }
        if let Some((link, slot)) = settles {
            self.settle(link, Some(slot), Ok(()), cx);
        }
        self.note_written(id, fresh, &mut items);
        if let Some((command, index)) = sent
            && let Some((_, item)) = items.first()
            && let Some(sending) = self.sendings.get_mut(&command)
        {
            let id = item.id;
            sending.told.extend(items);
            sending.places.extend(places);
            return self.on_sent(command, index, Ok(id), cx);
        }
        if let Some(id) = replaces
            && let Some((_, item)) = items.first()
        {
            cx.event(Event::Addressed {
                to: item.with.clone(),
                id,
                new: item.id,
            });
        }
        tell_shown(items, &places, cx);
    }

    /// The disk has messages of this account: they have got as far as links have said, and wait until the other account
    /// has them.
    fn note_written(
        &mut self,
        id: ConversationId,
        fresh: Option<EntryId>,
        items: &mut [(EntryId, HistoryItem)],
    ) {
        let Some(held) = self.held.get_mut(&id) else {
            return;
        };
        if let Some(EntryId { chain, sequence }) = fresh {
            held.fresh.on_written(&chain, sequence);
        }
        for (entry, item) in items {
            if item.state < MessageState::Delivered {
                // That it was read, the store tells.
                let state = held.reached(&entry.chain).of_ours(entry.sequence);
                item.state = state.min(MessageState::Delivered);
                if item.state < MessageState::Delivered {
                    held.undelivered.insert(*entry);
                }
            }
        }
    }

    /// Something could not be written: the conversation is read again later, and what waited for it is told.
    fn on_write_failed(
        &mut self,
        (id, epoch): (ConversationId, u64),
        written: Written,
        reason: String,
        cx: &mut Context<'_>,
    ) {
        log::warn!("cannot write in a conversation: {reason}");
        let links = self.links_of(&id);
        if let Some(held) = self.held.get_mut(&id).filter(|held| held.epoch == epoch) {
            held.break_off(cx.now);
            held.is_open = false;
            held.stored_run = None;
            self.sealing.remove(&id);
            for link in links {
                self.with(link, cx.now, |session, _| session.handle_unshared(&id));
            }
        }
        if let Some((link, slot)) = written.settles {
            self.settle(link, Some(slot), Err(Refusal::NotNext), cx);
        }
        if let Some(entry) = written.fresh {
            self.keep_carried_only(&id, &entry);
        }
        if let Some((command, index)) = written.sent {
            self.on_sent(command, index, Err(CommandError::Store(reason)), cx);
        }
        if let (Some(held), Some(draft)) = (self.held.get_mut(&id), written.again) {
            held.waiting.push_back(draft);
        }
    }

    /// The disk has refused an entry. If a link has carried it, it is kept until the disk takes it, so that this device
    /// has what others have.
    fn keep_carried_only(&mut self, id: &ConversationId, entry: &EntryId) {
        if let Some(held) = self.held.get_mut(id)
            && entry.sequence > held.reached(&entry.chain).sent
        {
            held.fresh.forget_from(&entry.chain, entry.sequence);
        }
    }

    // ---- seals ---------------------------------------------------------------------------------

    /// Has signed what is due in a conversation.
    pub(super) fn seal_due(&mut self, id: ConversationId, cx: &mut Context<'_>) {
        self.sealing.remove(&id);
        while let Some(held) = self.held.get_mut(&id)
            && let Some(job) = held.replica.poll_seal(cx.now)
        {
            let work = Work::Sign {
                conversation: id,
                epoch: held.epoch,
                job,
            };
            let secret = Arc::clone(&self.secret);
            self.work(work, SealWork::Sign(secret, job), cx);
        }
        let timeout = |held: &Held| held.replica.poll_timeout();
        let due: Option<Instant> = self.held.get(&id).and_then(timeout);
        if due.is_some() {
            self.sealing.insert(id);
        }
    }

    /// A header has been signed.
    pub(super) fn on_signed(
        &mut self,
        (id, epoch): (ConversationId, u64),
        job: &SealJob,
        seal: Seal,
        people: People<'_>,
        cx: &mut Context<'_>,
    ) {
        let held = self
            .held
            .get_mut(&id)
            .filter(|held| held.epoch == epoch && !self.is_ending);
        let Some(held) = held else {
            return;
        };
        let members = people.members(&id, &held.kind);
        if let Some(admission) = held.replica.handle_seal(job, seal, &members) {
            held.fresh.seal(&job.chain, seal);
            let write = EntryWrite::Admit(Box::new(admission), Origin::WrittenHere);
            self.write(id, vec![write], Written::default(), cx);
        }
        self.restate(id, cx.now);
        self.look_up_ends(id, cx);
        self.write_waiting(id, people, cx);
    }
}

/// An entry that was written, and what the store is to do before it takes that.
struct Appended {
    writes: Vec<EntryWrite>,
    admission: Admission,
    /// The hash of the header before it.
    previous: HeaderHash,
}

/// Writes an entry, in a new run if need be, whose number is `run` then.
fn append(
    held: &mut Held,
    device: DeviceKey,
    run: RunId,
    draft: &Draft,
    people: People<'_>,
    cx: &Context<'_>,
) -> Result<Appended, AppendError> {
    let members = people.members(&held.id(), &held.kind);
    let now = cx.unix();
    let is_fresh = |at: &UnixTime| *at <= now && now.saturating_since(*at) < DRAFT_FRESH;
    let wall = draft.at.filter(is_fresh).unwrap_or(now);
    let append = |replica: &mut Replica| {
        let run = replica.run().map(OwnRun::chain);
        let tip = run.and_then(|chain| replica.tip(&chain));
        let admission = replica.append(draft.kind, draft.body.clone(), wall, cx.now, &members)?;
        Ok(Appended {
            writes: Vec::new(),
            admission,
            previous: tip.map_or(HeaderHash::NONE, |tip| tip.hash),
        })
    };
    match append(&mut held.replica) {
        Err(AppendError::NewRun(_)) => {
            held.replica.begin(OwnRun::begin(device, run));
            let mut appended = append(&mut held.replica)?;
            appended.writes.push(EntryWrite::Begin(run));
            Ok(appended)
        }
        done => done,
    }
}

/// Keeps what was written until the disk has it, if there is room.
fn keep_fresh(held: &mut Held, previous: HeaderHash, admission: &Admission) -> Option<EntryId> {
    let (chain, stored) = (admission.chain, admission.entries.first()?);
    let is_kept = held.fresh.add(chain, previous, stored);
    is_kept.then_some(EntryId {
        chain,
        sequence: stored.sequence,
    })
}

/// What people may be shown of what is written.
fn items(held: &Held, admission: &Admission, origin: Origin) -> Vec<(EntryId, HistoryItem)> {
    let direction = match origin {
        Origin::WrittenHere | Origin::OwnAccount => Direction::Sent,
        Origin::OtherAccount => Direction::Received,
    };
    // As the store shows it: what is reached from now on is told.
    let reached = held.reached(&admission.chain);
    let texts = admission.entries.iter().filter_map(|stored| {
        let outline = stored.entry.outline;
        let body = match Body::parse(outline.kind, stored.entry.body.as_deref()?).ok()? {
            Body::Text(text) | Body::Reply { text, .. } => text,
            Body::Edit { .. }
            | Body::Delete { .. }
            | Body::React { .. }
            | Body::Session(_)
            | Body::Cut(_)
            | Body::Unknown { .. } => return None,
        };
        let entry = EntryId {
            chain: admission.chain,
            sequence: stored.sequence,
        };
        let item = HistoryItem {
            id: MessageId::of_entry(&held.id(), &entry),
            with: held.with().clone(),
            direction,
            sent: outline.clock.time(),
            body,
            state: reached.state(direction, &held.kind, entry.sequence),
        };
        Some((entry, item))
    });
    texts.collect()
}

/// Tells people of messages that are on disk now, in their order.
fn tell_shown(
    items: Vec<(EntryId, HistoryItem)>,
    places: &[(EntryId, Cursor)],
    cx: &mut Context<'_>,
) {
    let places: BTreeMap<EntryId, Cursor> = places.iter().copied().collect();
    for (entry, item) in items {
        let Some(cursor) = places.get(&entry).copied() else {
            continue;
        };
        let (id, to, state) = (item.id, item.with.clone(), item.state);
        let is_on_its_way = item.direction == Direction::Sent && state > MessageState::Queued;
        cx.event(Event::Recorded(Recorded { cursor, item }));
        if is_on_its_way {
            cx.event(Event::MessageState { id, to, state });
        }
    }
}

/// Has the store keep a message whose recipient is not known.
fn queue(
    (command, index): (CommandId, usize),
    to: AccountName,
    body: MessageBody,
    sent: UnixTime,
    cx: &mut Context<'_>,
) {
    let message = Message {
        id: MessageId::from_bytes(cx.rng.random()),
        conversation: Conversation::Direct,
        sent,
        body,
    };
    let queued = (to, message);
    let request = ChatRequest::Queue {
        messages: vec![queued.clone()],
        sent: BTreeSet::new(),
    };
    let then = ConversationStored::Queued(command, index, Box::new(queued));
    cx.store(request, then);
}

fn refusal(error: &AppendError, device: &DeviceKey) -> CommandError {
    match error {
        AppendError::NotApproved => CommandError::NotApproved {
            fingerprint: device.fingerprint().to_string(),
        },
        AppendError::NewRun(_)
        | AppendError::TooLong
        | AppendError::Unsealed
        | AppendError::Full => CommandError::Invalid(error.to_string()),
    }
}
