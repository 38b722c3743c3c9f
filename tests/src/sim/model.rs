//! What should be true, kept beside the world and compared with what its hosts say.

use std::collections::{BTreeMap, BTreeSet};

use common::id::{AccountName, MessageId};
use peer::node::command::{Cursor, Direction, Event, MessageState, Recorded, TransferState};
use peer::store::Row;

use super::check::Violation;
use super::world::Host;

/// What was sent, taken and shown so far.
#[derive(Debug, Default)]
pub struct Model {
    /// Texts by author and recipient, in the order in which they were typed.
    typed: BTreeMap<(usize, AccountName), Vec<String>>,
    /// Messages whose author was told that they are kept.
    taken: BTreeMap<usize, BTreeSet<MessageId>>,
    /// What has become of messages that had waited until it was known to whom they were.
    addressed: BTreeMap<(usize, MessageId), MessageId>,
    /// What each host has shown in this life, by author.
    shown: BTreeMap<(usize, AccountName), Vec<MessageId>>,
    /// The last place in its history that each host has told in this life.
    recorded: BTreeMap<usize, Cursor>,
    /// Accounts that somebody speaks for who keeps nothing.
    pub outsiders: BTreeSet<AccountName>,
    /// Messages that were shown, all in all.
    pub messages: u64,
    /// Receipts that authors were told of.
    pub receipts: u64,
    /// Files that both sides called done.
    pub files: u64,
    /// Passwords that let somebody in.
    pub log_ins: u64,
    /// Passwords that did not.
    pub refused: u64,
}

impl Model {
    /// A person types a text.
    pub fn on_typed(&mut self, from: usize, to: &AccountName, text: &str) {
        let typed = self.typed.entry((from, to.clone())).or_default();
        typed.push(text.to_owned());
    }

    /// The author was told that a message is in the outbox.
    pub fn on_taken(&mut self, from: usize, id: MessageId) {
        self.taken.entry(from).or_default().insert(id);
    }

    /// Messages whose author was told that they are kept.
    pub fn acknowledged(&self, from: usize) -> impl Iterator<Item = &MessageId> {
        let taken = self.taken.get(&from).into_iter().flatten();
        taken.map(move |id| self.addressed.get(&(from, *id)).unwrap_or(id))
    }

    /// A host starts anew: what it shows from now on it may have shown before.
    pub fn on_start(&mut self, host: usize) {
        self.shown.retain(|(of, _), _| *of != host);
        self.recorded.remove(&host);
    }

    /// Something that a host says.
    pub fn on_event(&mut self, n: usize, event: &Event, hosts: &[Host]) -> Result<(), Violation> {
        match event {
            Event::Message(item) => {
                self.messages += 1;
                let shown = self.shown.entry((n, item.with.clone())).or_default();
                if shown.contains(&item.id) {
                    return Err(Violation::new(&format!("{n} shows {} twice", item.id)));
                }
                shown.push(item.id);
                self.check_text(n, &item.with, item.body.as_str(), hosts)?;
                self.check_order(n, &item.with)
            }
            Event::Addressed { id, new, .. } => {
                self.addressed.insert((n, *id), *new);
                Ok(())
            }
            Event::Recorded(recorded) => self.on_recorded(n, recorded, &hosts[n]),
            Event::MessageState {
                id,
                to,
                state: MessageState::Delivered,
            } => {
                self.receipts += 1;
                let mut devices = hosts.iter().filter(|host| host.account == *to).peekable();
                let is_note = hosts[n].account == *to;
                if is_note || devices.peek().is_none() || self.outsiders.contains(to) {
                    return Ok(());
                }
                let from = &hosts[n].account;
                let count = |host: &Host| {
                    let received = rows(host, Direction::Received, from);
                    received.filter(|row| row.message.id == *id).count()
                };
                match devices.map(count).max().unwrap_or(0) {
                    1 => Ok(()),
                    count => Err(Violation::new(&format!(
                        "{id} has a receipt and is {count} times on the disk of {to}"
                    ))),
                }
            }
            Event::Transfer {
                state:
                    TransferState::Done {
                        path: Some(path),
                        digest,
                        ..
                    },
                ..
            } => {
                self.files += 1;
                let bytes = hosts[n].disk.file(path);
                let is_same =
                    bytes.is_some_and(|bytes| blake3::hash(bytes).to_hex().as_str() == digest);
                if is_same {
                    Ok(())
                } else {
                    Err(Violation::new(&format!(
                        "{n} calls a file done whose bytes differ"
                    )))
                }
            }
            Event::MessageState { .. }
            | Event::Withdrawn { .. }
            | Event::Nearby { .. }
            | Event::Path(_)
            | Event::RelayOff
            | Event::Transfer { .. }
            | Event::Connection(_)
            | Event::Presence(_)
            | Event::Offer(_)
            | Event::FailedLogins(_)
            | Event::Enrolled(_)
            | Event::NewKey { .. }
            | Event::NotApproved { .. }
            | Event::OtherAccount { .. }
            | Event::Approval { .. }
            | Event::DeviceApproved { .. } => Ok(()),
        }
    }

    /// Places are told in their order, of what is on disk.
    fn on_recorded(&mut self, n: usize, recorded: &Recorded, host: &Host) -> Result<(), Violation> {
        let Recorded { cursor, item } = recorded;
        let last = self.recorded.insert(n, *cursor).unwrap_or_default();
        if *cursor <= last {
            let what = format!("{n} tells of place {cursor} after {last}");
            return Err(Violation::new(&what));
        }
        let mut rows = rows(host, Direction::Received, &item.with);
        let is_it = |row: &Row| row.cursor == *cursor && row.message.id == item.id;
        if item.direction == Direction::Received && !rows.any(is_it) {
            let what = format!("{n} tells that {} is at {cursor}, and it is not", item.id);
            return Err(Violation::new(&what));
        }
        Ok(())
    }

    fn check_text(
        &self,
        n: usize,
        from: &AccountName,
        text: &str,
        hosts: &[Host],
    ) -> Result<(), Violation> {
        let to = &hosts[n].account;
        let is_by = |author: &usize| hosts[*author].account == *from;
        let typed = self.typed.iter();
        let mut typed = typed.filter(|((author, of), _)| of == to && is_by(author));
        if typed.any(|(_, typed)| typed.iter().any(|typed| typed == text)) {
            Ok(())
        } else {
            Err(Violation::new(&format!(
                "{n} shows a text of {from} that {from} never typed"
            )))
        }
    }

    /// What a life has shown of one run is in its order.
    fn check_order(&self, n: usize, from: &AccountName) -> Result<(), Violation> {
        if is_in_order(&self.shown[&(n, from.clone())]) {
            Ok(())
        } else {
            let what = format!("{n} shows messages of {from} out of order");
            Err(Violation::new(&what))
        }
    }

    /// What a host has received from each author is there once, and each run of it in its order.
    pub fn check_history(&self, n: usize, hosts: &[Host]) -> Result<(), Violation> {
        for ((from, to), typed) in &self.typed {
            if *to != hosts[n].account {
                continue;
            }
            let author = &hosts[*from].account;
            let rows: Vec<&Row> = rows(&hosts[n], Direction::Received, author).collect();
            let ids: Vec<MessageId> = rows.iter().map(|row| row.message.id).collect();
            let once: BTreeSet<&MessageId> = ids.iter().collect();
            let is_once = |text: &String| {
                let of = rows.iter().filter(|row| row.message.body.as_str() == text);
                let times = typed.iter().filter(|it| *it == text).count();
                of.count() <= times
            };
            if once.len() < ids.len() || !is_in_order(&ids) || !typed.iter().all(is_once) {
                return Err(Violation::new(&format!(
                    "the history of {n} has the messages of {author} out of order or twice"
                )));
            }
        }
        Ok(())
    }
}

/// Tells whether messages of one run ascend. The first half of an identifier is the run, the other one the place.
fn is_in_order(ids: &[MessageId]) -> bool {
    let mut last: BTreeMap<&[u8], MessageId> = BTreeMap::new();
    ids.iter().all(|id| {
        let before = last.insert(&id.as_bytes()[..8], *id);
        before.is_none_or(|before| before < *id)
    })
}

/// What a host's disk has of a conversation, oldest first.
fn rows<'a>(
    host: &'a Host,
    direction: Direction,
    with: &'a AccountName,
) -> impl Iterator<Item = &'a Row> {
    let rows = host.disk.rows().iter();
    rows.filter(move |row| row.direction == direction && row.with == *with)
}
