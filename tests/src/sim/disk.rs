//! What survives a host's crash: its history and its files. A request is durable once it has been
//! carried out; what still waits in a queue is lost.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use common::hash::{LeafHasher, leaf_len};
use common::id::{AccountName, MessageId, TransferId};
use common::key::{DeviceKey, Token};
use common::limits::LEAF_LEN;
use common::wire::peer::Message;
use peer::node::command::{Direction, HistoryItem, MessageState};
use peer::node::io::{
    AccountRequest, ChatAnswer, ChatRequest, ContactRequest, DiskAnswer, DiskRequest, Restored,
    StoreAnswer, StoreRequest,
};

/// A host's disk.
#[derive(Clone, Debug, Default)]
pub struct Disk {
    session: Option<(AccountName, Token)>,
    contacts: Vec<(AccountName, DeviceKey)>,
    rows: Vec<Row>,
    files: BTreeMap<PathBuf, Arc<Vec<u8>>>,
    parts: BTreeMap<TransferId, Part>,
    open: BTreeMap<TransferId, PathBuf>,
    /// Nothing can be written.
    pub is_full: bool,
    /// The last chain of received messages that has a gap.
    gap: u64,
}

/// A message of the history.
#[derive(Clone, Debug)]
pub struct Row {
    /// The other side.
    pub with: AccountName,
    /// Which way it went.
    pub direction: Direction,
    /// The message.
    pub message: Message,
    /// How far it is.
    pub state: MessageState,
}

#[derive(Clone, Debug)]
struct Part {
    path: PathBuf,
    bytes: Vec<u8>,
}

impl Disk {
    /// A disk that knows an account and its token.
    pub fn enrolled(account: AccountName, token: Token) -> Self {
        Self {
            session: Some((account, token)),
            ..Self::default()
        }
    }

    /// What a node that starts finds.
    pub fn restore(&self) -> Restored {
        let waits =
            |row: &&Row| row.direction == Direction::Sent && row.state < MessageState::Delivered;
        Restored {
            session: self.session.clone(),
            contacts: self.contacts.clone(),
            outbox: self
                .rows
                .iter()
                .filter(waits)
                .map(|row| (row.with.clone(), row.message.clone()))
                .collect(),
        }
    }

    /// All messages, in the order in which they came here.
    pub fn rows(&self) -> &[Row] {
        &self.rows
    }

    /// Puts a file there.
    pub fn put(&mut self, path: PathBuf, bytes: Vec<u8>) {
        self.files.insert(path, Arc::new(bytes));
    }

    /// A file's bytes.
    pub fn file(&self, path: &PathBuf) -> Option<&[u8]> {
        self.files.get(path).map(|bytes| bytes.as_slice())
    }

    /// What a crash leaves of files: no transfer goes on after it.
    pub fn crash(&mut self) {
        self.parts.clear();
        self.open.clear();
        self.gap = 0;
    }

    /// Carries out a request of the store.
    pub fn store(&mut self, request: StoreRequest) -> StoreAnswer {
        let chain = if let StoreRequest::Chat(ChatRequest::Receive { chain, .. }) = &request {
            Some(*chain)
        } else {
            None
        };
        if chain.is_some_and(|chain| chain <= self.gap) {
            return StoreAnswer::Failed("a message before it could not be kept".to_owned());
        }
        if self.is_full && is_write(&request) {
            self.gap = self.gap.max(chain.unwrap_or(0));
            return StoreAnswer::Failed("the disk is full".to_owned());
        }
        match request {
            StoreRequest::Account(AccountRequest::SaveSession { account, token }) => {
                self.session = token.map(|token| (account, token));
                StoreAnswer::Done
            }
            StoreRequest::Contact(ContactRequest::PinKey {
                account,
                device_key,
                ..
            }) => {
                let contact = (account, device_key);
                if !self.contacts.contains(&contact) {
                    self.contacts.push(contact);
                }
                StoreAnswer::Done
            }
            StoreRequest::Contact(ContactRequest::UnpinKey { device_key }) => {
                self.contacts.retain(|(_, key)| *key != device_key);
                StoreAnswer::Done
            }
            StoreRequest::Chat(ChatRequest::Queue { messages }) => {
                for (with, message) in messages {
                    self.rows.push(Row {
                        with,
                        direction: Direction::Sent,
                        message,
                        state: MessageState::Queued,
                    });
                }
                StoreAnswer::Done
            }
            StoreRequest::Chat(ChatRequest::Receive { from, message, .. }) => {
                self.receive(from, message)
            }
            StoreRequest::Chat(ChatRequest::Advance { id, to, state }) => {
                if let Some(row) = self.find(id, &to, Direction::Sent) {
                    row.state = row.state.max(state);
                }
                StoreAnswer::Done
            }
            StoreRequest::Chat(ChatRequest::Withdraw { messages }) => {
                let is_withdrawn = |row: &Row| {
                    let is_it = |(to, id): &(AccountName, MessageId)| {
                        row.with == *to && row.message.id == *id
                    };
                    row.direction == Direction::Sent
                        && row.state < MessageState::Delivered
                        && messages.iter().any(is_it)
                };
                self.rows.retain(|row| !is_withdrawn(row));
                StoreAnswer::Done
            }
            StoreRequest::Chat(ChatRequest::MarkRead { ids }) => self.mark_read(&ids),
            StoreRequest::Chat(ChatRequest::History { with, limit }) => {
                let of = |row: &&Row| with.as_ref().is_none_or(|with| row.with == *with);
                let rows: Vec<&Row> = self.rows.iter().filter(of).collect();
                let latest = rows.len().saturating_sub(limit as usize);
                StoreAnswer::Chat(ChatAnswer::Messages(
                    rows[latest..].iter().map(|row| row.item()).collect(),
                ))
            }
            StoreRequest::Chat(ChatRequest::Unread) => {
                let unread = self.rows.iter().filter(|row| row.is_unread());
                StoreAnswer::Chat(ChatAnswer::Messages(unread.map(Row::item).collect()))
            }
        }
    }

    fn receive(&mut self, from: AccountName, message: Message) -> StoreAnswer {
        let is_new = self.find(message.id, &from, Direction::Received).is_none();
        if is_new {
            self.rows.push(Row {
                with: from,
                direction: Direction::Received,
                message,
                state: MessageState::Delivered,
            });
        }
        StoreAnswer::Chat(ChatAnswer::Received { is_new })
    }

    fn mark_read(&mut self, ids: &[MessageId]) -> StoreAnswer {
        let mut marked = Vec::new();
        for row in &mut self.rows {
            if row.is_unread() && ids.contains(&row.message.id) {
                row.state = MessageState::Read;
                marked.push((row.with.clone(), row.message.id));
            }
        }
        StoreAnswer::Chat(ChatAnswer::Marked(marked))
    }

    fn find(
        &mut self,
        id: MessageId,
        with: &AccountName,
        direction: Direction,
    ) -> Option<&mut Row> {
        self.rows
            .iter_mut()
            .find(|row| row.message.id == id && row.with == *with && row.direction == direction)
    }

    /// Carries out a request about a file.
    pub fn disk(&mut self, request: DiskRequest) -> Option<(TransferId, DiskAnswer)> {
        let failed = |why: &str| DiskAnswer::Failed(why.to_owned());
        Some(match request {
            DiskRequest::Open { transfer, path } => match self.files.get(&path) {
                Some(bytes) => {
                    let size = bytes.len() as u64;
                    let name = path.file_name().unwrap_or_default();
                    let name = name.to_string_lossy().into_owned();
                    self.open.insert(transfer, path);
                    let executable = false;
                    (
                        transfer,
                        DiskAnswer::Opened {
                            name,
                            size,
                            executable,
                        },
                    )
                }
                None => (transfer, failed("there is no such file")),
            },
            DiskRequest::ReadLeaf { transfer, index } => {
                (transfer, self.read_leaf(transfer, index))
            }
            DiskRequest::Create {
                transfer,
                folder,
                name,
                size,
                ..
            } => {
                if self.is_full {
                    return Some((transfer, failed("the disk is full")));
                }
                let part = Part {
                    path: folder.join(name),
                    bytes: vec![0; usize::try_from(size).unwrap_or(0)],
                };
                self.parts.insert(transfer, part);
                (transfer, DiskAnswer::Created)
            }
            DiskRequest::WriteLeaf {
                transfer,
                index,
                bytes,
                hash,
            } => {
                let Some(part) = self.parts.get_mut(&transfer) else {
                    return Some((transfer, failed("there is no such part")));
                };
                if self.is_full {
                    return Some((transfer, failed("the disk is full")));
                }
                let mut hasher = LeafHasher::new(part.bytes.len() as u64, index);
                hasher.update(&bytes);
                if hasher.finish() != hash {
                    return Some((transfer, DiskAnswer::Mismatch { index }));
                }
                let start = usize::try_from(index).unwrap_or(0) * LEAF_LEN;
                part.bytes[start..start + bytes.len()].copy_from_slice(&bytes);
                (transfer, DiskAnswer::Written { index })
            }
            DiskRequest::Finish { transfer } => match self.parts.remove(&transfer) {
                Some(part) => {
                    let path = self.free_path(part.path);
                    self.files.insert(path.clone(), Arc::new(part.bytes));
                    (transfer, DiskAnswer::Finished { path })
                }
                None => (transfer, failed("there is no such part")),
            },
            DiskRequest::Drop { transfer } => {
                self.parts.remove(&transfer);
                self.open.remove(&transfer);
                return None;
            }
        })
    }

    fn read_leaf(&self, transfer: TransferId, index: u64) -> DiskAnswer {
        let bytes = self
            .open
            .get(&transfer)
            .and_then(|path| self.files.get(path));
        let leaf = bytes.and_then(|bytes| {
            let len = leaf_len(bytes.len() as u64, index)?;
            let start = usize::try_from(index).ok()? * LEAF_LEN;
            let mut hasher = LeafHasher::new(bytes.len() as u64, index);
            let leaf = bytes.get(start..start + len)?;
            hasher.update(leaf);
            Some((leaf.to_vec(), hasher.finish()))
        });
        match leaf {
            Some((bytes, hash)) => DiskAnswer::Leaf {
                index,
                bytes: bytes.into(),
                hash,
            },
            None => DiskAnswer::Failed("the file is shorter than it was".to_owned()),
        }
    }

    fn free_path(&self, path: PathBuf) -> PathBuf {
        let mut free = path.clone();
        let mut n = 1;
        while self.files.contains_key(&free) {
            n += 1;
            free = path.with_extension(n.to_string());
        }
        free
    }
}

impl Row {
    fn is_unread(&self) -> bool {
        self.direction == Direction::Received && self.state < MessageState::Read
    }

    fn item(&self) -> HistoryItem {
        HistoryItem {
            id: self.message.id,
            with: self.with.clone(),
            direction: self.direction,
            sent: self.message.sent,
            body: self.message.body.clone(),
            state: self.state,
        }
    }
}

const fn is_write(request: &StoreRequest) -> bool {
    match request {
        StoreRequest::Account(AccountRequest::SaveSession { .. })
        | StoreRequest::Contact(ContactRequest::PinKey { .. } | ContactRequest::UnpinKey { .. })
        | StoreRequest::Chat(ChatRequest::Queue { .. })
        | StoreRequest::Chat(ChatRequest::Receive { .. })
        | StoreRequest::Chat(ChatRequest::Advance { .. })
        | StoreRequest::Chat(ChatRequest::Withdraw { .. })
        | StoreRequest::Chat(ChatRequest::MarkRead { .. }) => true,
        StoreRequest::Chat(ChatRequest::History { .. })
        | StoreRequest::Chat(ChatRequest::Unread) => false,
    }
}
