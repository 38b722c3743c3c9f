use std::collections::BTreeMap;
use std::sync::Arc;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::*;
use crate::log::tests::disk::{Disk, Event, Write};
use crate::log::tests::{CONVERSATION, disks};
use crate::node::command::{Direction, HistoryItem, HistoryQuery, MessageState};
use crate::node::io::{ChatRequest, StoreId};

/// Worlds, each with some devices.
const WORLDS: u64 = 12;

#[test]
fn both_stores_keep_what_devices_write_and_exchange_whatever_goes_wrong() {
    let mut asked = Vec::new();
    let mut counts = Counts::default();
    for seed in 500_000..500_000 + WORLDS {
        println!("SEED {seed}");
        for (number, disk) in (0..).zip(disks(seed)) {
            let mut script = Script::new(seed * 100 + number);
            script.replay(&disk.events);
            script.compare_with(&disk, &mut counts);
            script.forget_all();
            asked.append(&mut script.twins.asked);
        }
    }
    println!("{counts:?}");
    assert!(counts.entries > 1000 && counts.pages > 50, "{counts:?}");
    assert!(counts.forks > 5 && counts.lost > 0, "{counts:?}");
    assert!(counts.marks > 10 && counts.cuts > 5, "{counts:?}");
    assert!(counts.messages > 1000 && counts.read > 100, "{counts:?}");
    assert!(counts.delivered > 50 && counts.queued > 50, "{counts:?}");
    asked.sort_unstable();
    asked.dedup();
    let kinds: Vec<u8> = (0..KINDS).collect();
    assert_eq!(asked, kinds, "a kind of request was not asked");
}

/// What was compared.
#[derive(Debug, Default)]
struct Counts {
    entries: usize,
    pages: usize,
    forks: usize,
    cuts: usize,
    lost: usize,
    marks: usize,
    messages: usize,
    queued: usize,
    delivered: usize,
    read: usize,
}

/// Asks both stores for what a device has done, and for anything else in between.
struct Script {
    rng: StdRng,
    twins: Twins,
    marks: usize,
    /// The device itself, if it has written anything.
    own: Option<DeviceKey>,
}

impl Script {
    fn new(seed: u64) -> Self {
        let mut twins = Twins::new();
        assert_eq!(twins.ask(open_request(CONVERSATION)), StoreAnswer::Done);
        Self {
            rng: StdRng::seed_from_u64(seed),
            twins,
            marks: 0,
            own: None,
        }
    }

    fn replay(&mut self, events: &[Arc<Event>]) {
        self.own = events.iter().find_map(|event| writer_of(event));
        let mut batch = Vec::new();
        // What the program had left is there when the next one starts, and nothing else.
        let mut left = None;
        for event in events {
            match &**event {
                Event::Written(writes) => batch.push(request_of(writes, self.own)),
                Event::Started => {
                    self.ask_all(&mut batch);
                    self.take_marks(left.take());
                }
                Event::Ended(mark) => {
                    self.ask_all(&mut batch);
                    left = *mark;
                    let marks = mark.map(|mark| (CONVERSATION, mark)).into_iter();
                    self.twins.ask(EntriesRequest::SetMarks(marks.collect()));
                    self.twins.reopen();
                }
            }
            if self.rng.random_ratio(1, 4) {
                self.ask_all(&mut batch);
            }
            if self.rng.random_ratio(1, 10) {
                self.reach_anything();
            }
            if self.rng.random_ratio(1, 20) {
                self.read_anything();
            }
            if self.rng.random_ratio(1, 40) {
                self.twins.reopen();
            }
        }
        self.ask_all(&mut batch);
    }

    fn take_marks(&mut self, expected: Option<CleanMark>) {
        let EntriesAnswer::Marks { marks, .. } = self.twins.read(EntriesRequest::TakeMarks) else {
            panic!("no marks");
        };
        self.marks += marks.len();
        let expected: Vec<_> = expected
            .map(|mark| (CONVERSATION, mark))
            .into_iter()
            .collect();
        assert_eq!(marks, expected);
    }

    /// Asks for what has come together, in one transaction or one that fails first.
    fn ask_all(&mut self, batch: &mut Vec<EntriesRequest>) {
        if self.rng.random_ratio(1, 12) {
            self.fail(batch);
        }
        self.twins.asked.extend(batch.iter().map(kind));
        let requests: Vec<_> = batch.drain(..).map(StoreRequest::Entries).collect();
        let numbered: Vec<_> = (0..).map(StoreId).zip(requests.iter().cloned()).collect();
        let answers = self.twins.history().execute_batch(&numbered);
        for (request, (_, answer)) in requests.iter().zip(answers) {
            assert_eq!(self.twins.memory.execute(request), answer, "{request:?}");
            let is_written = matches!(answer, StoreAnswer::Entries(EntriesAnswer::Written(_)));
            assert!(is_written, "{request:?}: {answer:?}");
        }
    }

    /// None of it can be written: both stay as they are.
    fn fail(&mut self, batch: &[EntriesRequest]) {
        let history = self.twins.history();
        let pragma = history.connection.pragma_update(None, "query_only", true);
        pragma.unwrap();
        for request in batch {
            let answer = history.execute_alone(&StoreRequest::Entries(request.clone()));
            assert!(matches!(answer, StoreAnswer::Failed(_)), "{answer:?}");
        }
        let pragma = history.connection.pragma_update(None, "query_only", false);
        pragma.unwrap();
    }

    // ---- messages ------------------------------------------------------------------------------

    /// Something has got somewhere.
    fn reach_anything(&mut self) {
        let chain = self.any_chain();
        let last = self.rng.random_range(0..30);
        let reaches = [Reach::Sent, Reach::Delivered, Reach::Read];
        let reach = reaches[self.rng.random_range(0..reaches.len())];
        self.twins.reach(chain, reach, last);
        let ids = self.any_messages();
        self.twins.mark_read(ids.clone());
        self.twins.read(EntriesRequest::Find { ids });
        let conversation = CONVERSATION;
        self.twins
            .read(EntriesRequest::Undelivered { conversation });
        let messages = [ChatRequest::Unread, ChatRequest::Outbox];
        for request in messages {
            self.twins.items(request);
        }
        let limit = self.rng.random_range(0..40);
        let with = self.rng.random_bool(0.5).then(|| "bob".parse().unwrap());
        let query = HistoryQuery::latest(with, limit);
        self.twins.items(ChatRequest::History(query));
    }

    fn any_messages(&mut self) -> Vec<MessageId> {
        let shown = self.twins.messages();
        let some = shown.iter().filter(|_| self.rng.random_ratio(1, 40));
        some.map(|item| item.id).collect()
    }

    /// There is a message for each text that counts, and it is as far as its chain.
    fn compare_messages(&mut self, disk: &Disk, counts: &mut Counts) {
        let mut expected: Vec<_> = disk
            .of_kind(Kind::TEXT)
            .filter(|(id, _)| !disk.rewritten.contains(id))
            .map(|(id, row)| (MessageId::of_entry(&CONVERSATION, &id), id, row))
            .collect();
        expected.sort_unstable_by_key(|(message, ..)| *message);
        let shown = self.twins.messages();
        let mut by_id: Vec<&HistoryItem> = shown.iter().collect();
        by_id.sort_unstable_by_key(|item| item.id);
        let chains = self.twins.reached_chains();
        assert_eq!(by_id.len(), expected.len());
        for (item, (message, id, row)) in by_id.iter().zip(&expected) {
            assert_eq!(item.id, *message);
            let body = row.stored.entry.body.as_deref().unwrap();
            assert_eq!(item.body.as_str().as_bytes(), body);
            assert_eq!(item.sent, row.stored.entry.outline.clock.time());
            let is_own = origin_of(&id.chain.device, self.own) == Origin::OwnAccount;
            assert_eq!(item.direction == Direction::Sent, is_own);
            let (_, _, reached) = chains.iter().find(|(it, ..)| *it == id.chain).unwrap();
            assert!(
                is_as_far(item, reached, id.sequence),
                "{item:?} {reached:?}"
            );
            counts.messages += 1;
            counts.queued += usize::from(item.state == MessageState::Queued);
            counts.delivered += usize::from(is_own && item.state == MessageState::Delivered);
            counts.read += usize::from(item.state == MessageState::Read);
        }
        let places: BTreeMap<_, _> = expected
            .iter()
            .map(|(message, _, row)| (*message, row.stored.placed.at))
            .collect();
        assert!(shown.is_sorted_by_key(|item| places[&item.id]));
        let cursors = self.twins.recorded().messages.into_iter();
        let cursors: Vec<Cursor> = cursors.map(|it| it.cursor).collect();
        assert!(cursors.is_sorted_by(|one, next| one < next));
    }

    // ---- reading -------------------------------------------------------------------------------

    fn read_anything(&mut self) {
        self.restore();
        for _ in 0..4 {
            let request = self.any_read();
            self.twins.read(request);
        }
    }

    fn restore(&mut self) {
        let conversation = CONVERSATION;
        self.twins.chains();
        self.twins.lost();
        self.twins
            .read(EntriesRequest::Conversations { after: None });
        for after in [None, Some(Arrival(self.rng.random_range(0..50)))] {
            let request = EntriesRequest::Cuts {
                conversation,
                after,
            };
            self.twins.read(request);
        }
        let after = self.any_chain();
        for after in [None, Some(after)] {
            self.twins.read(EntriesRequest::Forks {
                conversation,
                after,
            });
            self.twins.read(EntriesRequest::Chains {
                conversation,
                after,
            });
        }
    }

    fn any_read(&mut self) -> EntriesRequest {
        let conversation = CONVERSATION;
        let chain = self.any_chain();
        let [first, last] = [self.any_place(), self.any_place()];
        let at = EntryId {
            chain,
            sequence: first,
        };
        match self.rng.random_range(0..6) {
            0 => EntriesRequest::Hash { conversation, at },
            1 => EntriesRequest::Stretch { conversation, at },
            2 => EntriesRequest::OwnStretch {
                conversation,
                chain,
                first,
                last,
            },
            3 => EntriesRequest::Fork {
                conversation,
                chain,
            },
            4 => EntriesRequest::Shown(self.any_query()),
            _ => EntriesRequest::Page(self.any_page(chain)),
        }
    }

    fn any_page(&mut self, chain: ChainId) -> PageRequest {
        let [first, until] = [self.any_place(), self.any_place()];
        let end = match self.rng.random_range(0..4) {
            0 => PageEnd::Seal(self.any_place()),
            1 => PageEnd::Known,
            2 => PageEnd::Before,
            _ => PageEnd::Anywhere,
        };
        PageRequest {
            conversation: CONVERSATION,
            chain,
            first,
            until,
            end,
        }
    }

    fn any_query(&mut self) -> ShownQuery {
        let shown = self.twins.shown(all(SpanEnd::First));
        let mut any = || {
            let index = self.rng.random_range(0..2 * shown.len() + 1);
            shown.get(index).map(ShownEntry::at)
        };
        let (after, before) = (any(), any());
        ShownQuery {
            after,
            before,
            limit: self.rng.random_range(0..40),
            ..all(match self.rng.random() {
                true => SpanEnd::First,
                false => SpanEnd::Last,
            })
        }
    }

    fn any_chain(&mut self) -> ChainId {
        let chains = self.twins.chains();
        let index = self.rng.random_range(0..chains.len() + 1);
        let unknown = Writer::new(77).chain();
        chains.get(index).map_or(unknown, |(id, _)| *id)
    }

    fn any_place(&mut self) -> Sequence {
        at(self.rng.random_range(0..100))
    }

    // ---- the end -------------------------------------------------------------------------------

    /// Compares both with what the device had on its disk by its own account.
    fn compare_with(&mut self, disk: &Disk, counts: &mut Counts) {
        self.twins.reopen();
        let chains = self.twins.chains();
        let expected = disk.rows.keys().map(|chain| (*chain, disk.chain(chain)));
        assert_eq!(chains, expected.collect::<Vec<_>>());
        self.compare_shown(disk, counts);
        self.compare_messages(disk, counts);
        self.compare_notes(disk, counts);
        for (chain, _) in chains {
            for _ in 0..10 {
                self.compare_reads(disk, chain, counts);
            }
        }
    }

    fn compare_shown(&mut self, disk: &Disk, counts: &mut Counts) {
        let shown = self.twins.shown(all(SpanEnd::First));
        let mut expected: Vec<_> = disk
            .all()
            .map(|(id, row)| (ShownAt::new(id, row.stored.placed.at), row))
            .collect();
        expected.sort_unstable_by_key(|(at, _)| *at);
        assert_eq!(shown.len(), expected.len());
        for (shown, (at, row)) in shown.iter().zip(expected) {
            assert_eq!(shown.at(), at);
            assert_eq!(shown.entry, row.stored.entry);
            assert_eq!(shown.placed, row.stored.placed);
            assert_eq!(shown.is_written_here, row.is_written_here);
        }
        counts.entries += shown.len();
    }

    fn compare_notes(&mut self, disk: &Disk, counts: &mut Counts) {
        let conversation = CONVERSATION;
        let mut expected = disk.lost.clone();
        let mut lost = BTreeMap::new();
        // Each is written again, so to speak, so that the next ones are read.
        loop {
            let part = self.twins.lost();
            if part.is_empty() {
                break;
            }
            for LostEntry { id, kind, body } in part {
                self.twins.write(vec![EntryWrite::Rewritten(id)]);
                lost.insert(id, (kind, body));
            }
        }
        counts.lost += lost.len() + disk.rewritten.len();
        expected.retain(|id, _| !disk.rewritten.contains(id));
        assert_eq!(lost, expected);
        let EntriesAnswer::Forks(forks) = self.twins.read(EntriesRequest::Forks {
            conversation,
            after: None,
        }) else {
            panic!("no forks");
        };
        assert_eq!(
            forks.items,
            disk.proofs.values().cloned().collect::<Vec<_>>()
        );
        counts.forks += forks.items.len();
        let EntriesAnswer::Cuts(cuts) = self.twins.read(EntriesRequest::Cuts {
            conversation,
            after: None,
        }) else {
            panic!("no cuts");
        };
        assert_eq!(cuts.items.len(), disk.of_kind(Kind::CUT).count());
        counts.cuts += cuts.items.len();
        let EntriesAnswer::Conversations(part) = self
            .twins
            .read(EntriesRequest::Conversations { after: None })
        else {
            panic!("no conversation");
        };
        assert_eq!(part.items[0].run, disk.run);
        counts.marks += self.marks;
    }

    fn compare_reads(&mut self, disk: &Disk, chain: ChainId, counts: &mut Counts) {
        let conversation = CONVERSATION;
        let request = self.any_page(chain);
        if request.first != Sequence::START && request.first <= request.until {
            let page = self.twins.page(request);
            counts.pages += usize::from(page.is_some());
            assert_eq!(page, disk.page(&request), "{request:?}");
        }
        let at = EntryId {
            chain,
            sequence: self.any_place().next(),
        };
        let EntriesAnswer::Stretch(stretch) = self
            .twins
            .read(EntriesRequest::Stretch { conversation, at })
        else {
            panic!("no stretch");
        };
        let expected = disk.stretch(&chain, at.sequence);
        assert_eq!(stretch, expected.filter(|stretch| stretch.check().is_ok()));
        let EntriesAnswer::Hash(hash) = self.twins.read(EntriesRequest::Hash { conversation, at })
        else {
            panic!("no hash");
        };
        assert_eq!(hash, disk.row(at).map(|row| row.stored.hash));
        let last = at.sequence.plus(self.rng.random_range(0..64));
        let EntriesAnswer::OwnStretch(own) = self.twins.read(EntriesRequest::OwnStretch {
            conversation,
            chain,
            first: at.sequence,
            last,
        }) else {
            panic!("no stretch");
        };
        let mut expected = disk.own_stretch(&chain, at.sequence, last);
        expected.headers.truncate(STRETCH_READ_MAX);
        assert_eq!(own, expected);
    }

    /// Drops bodies, some by name and in the end all.
    fn forget_all(&mut self) {
        let conversation = CONVERSATION;
        let shown = self.twins.shown(all(SpanEnd::First));
        let some = shown.iter().filter(|_| self.rng.random_ratio(1, 3));
        let entries = some.map(|entry| entry.id).collect();
        self.twins.ask(EntriesRequest::DropBodies {
            conversation,
            entries,
        });
        self.read_anything();
        let query = self.any_query();
        let forgotten = self.twins.read(EntriesRequest::Forget {
            conversation,
            after: query.after,
            before: query.before,
        });
        assert_eq!(forgotten, EntriesAnswer::Forgotten { next: None });
        self.twins.reopen();
        self.read_anything();
        self.twins.read(EntriesRequest::Forget {
            conversation,
            after: None,
            before: None,
        });
        let shown = self.twins.shown(all(SpanEnd::First));
        let is_kept = |entry: &ShownEntry| {
            entry.entry.body.is_some() == entry.entry.outline.kind.is_control()
        };
        assert!(shown.iter().all(is_kept));
        assert_eq!(self.twins.lost(), []);
        assert_eq!(self.twins.messages(), []);
    }
}

/// What is said of a message is what its chain has reached. What somebody has passed over is less far.
fn is_as_far(item: &HistoryItem, reached: &Reached, at: Sequence) -> bool {
    let is_read = at <= reached.read;
    match (item.direction, item.state) {
        (Direction::Received, MessageState::Delivered) => true,
        (_, MessageState::Read) => is_read,
        (Direction::Sent, MessageState::Delivered) => at <= reached.delivered && !is_read,
        (Direction::Sent, MessageState::Sent) => at <= reached.sent && at > reached.delivered,
        (Direction::Sent, MessageState::Queued) => at > reached.sent,
        (Direction::Received, MessageState::Queued | MessageState::Sent) => false,
    }
}

fn writer_of(event: &Event) -> Option<DeviceKey> {
    let Event::Written(writes) = event else {
        return None;
    };
    writes.iter().find_map(|write| match write {
        Write::Written(admission) => Some(admission.chain.device),
        Write::Taken(_)
        | Write::Proof(_)
        | Write::Rewritten(_)
        | Write::Run(_)
        | Write::Lost(..) => None,
    })
}

/// Some devices belong to the same account, and the device itself does.
fn origin_of(device: &DeviceKey, own: Option<DeviceKey>) -> Origin {
    if own == Some(*device) || device.as_bytes()[0].is_multiple_of(2) {
        Origin::OwnAccount
    } else {
        Origin::OtherAccount
    }
}

/// What the store is asked for, when a device writes this. What is lost it finds out itself.
fn request_of(writes: &[Write], own: Option<DeviceKey>) -> EntriesRequest {
    let writes = writes.iter().filter_map(|write| match write {
        Write::Taken(admission) => Some(EntryWrite::Admit(
            Box::new(admission.clone()),
            origin_of(&admission.chain.device, own),
        )),
        Write::Written(admission) => Some(EntryWrite::Admit(
            Box::new(admission.clone()),
            Origin::WrittenHere,
        )),
        Write::Proof(proof) => Some(EntryWrite::Fork(Box::new(proof.clone()))),
        Write::Rewritten(entry) => Some(EntryWrite::Rewritten(*entry)),
        Write::Run(run) => Some(EntryWrite::Begin(*run)),
        Write::Lost(..) => None,
    });
    EntriesRequest::Write {
        conversation: CONVERSATION,
        writes: writes.collect(),
    }
}
