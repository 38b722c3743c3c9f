//! What survives a host's crash: its store and its files, on a disk that may be full. A request is
//! durable once it has been carried out; what still waits in a queue is lost.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use common::account::AccountLog;
use common::hash::{LeafHasher, leaf_len};
use common::id::{AccountName, TransferId};
use common::key::Token;
use common::limits::LEAF_LEN;
use peer::node::io::entries::{EntryWrite, Origin};
use peer::node::io::{
    DiskAnswer, DiskFailure, DiskRequest, EntriesRequest, LogRequest, Restored, StoreAnswer,
    StoreRequest,
};
use peer::store::{MemoryStore, Row, is_write};

/// A host's disk.
#[derive(Clone, Debug, Default)]
pub struct Disk {
    store: MemoryStore,
    files: BTreeMap<PathBuf, Arc<Vec<u8>>>,
    parts: BTreeMap<TransferId, Part>,
    open: BTreeMap<TransferId, PathBuf>,
    /// Nothing can be written.
    pub is_full: bool,
    /// So many received messages are still to be refused, one after another.
    pub refused_messages: u32,
    /// So many receipts likewise.
    pub refused_receipts: u32,
    /// A leaf is read otherwise than it is hashed.
    pub is_corrupt: bool,
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
            store: MemoryStore::enrolled(account, token),
            ..Self::default()
        }
    }

    /// Keeps the log of an account.
    pub fn keep_log(&mut self, account: &AccountName, log: &AccountLog) {
        for entry in log.entries() {
            let add = LogRequest::Add {
                account: account.clone(),
                entry: entry.to_bytes(),
            };
            self.store.execute(&StoreRequest::Log(add));
        }
    }

    /// Tells whether the log of an account is kept.
    pub fn has_log(&self, account: &AccountName) -> bool {
        self.restore().logs.iter().any(|(of, _)| of == account)
    }

    /// What a node that starts finds.
    pub fn restore(&self) -> Restored {
        self.store.restore()
    }

    /// All messages, in the order in which they came here.
    pub fn rows(&self) -> &[Row] {
        self.store.rows()
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
        self.store.reopen();
    }

    /// Carries out a request of the store.
    pub fn store(&mut self, request: &StoreRequest) -> StoreAnswer {
        if self.is_full && is_write(request) || self.is_refused(request) {
            self.store.fail(request, "the disk is full")
        } else {
            self.store.execute(request)
        }
    }

    /// Tells whether a host that is killed finds a request in its store's journal.
    pub fn is_journaled(&self, request: &StoreRequest) -> bool {
        if let StoreRequest::Entries(request) = request {
            !self.is_full && request.is_journaled()
        } else {
            false
        }
    }

    fn is_refused(&mut self, request: &StoreRequest) -> bool {
        let left = if is_received(request) {
            &mut self.refused_messages
        } else if matches!(request, StoreRequest::Entries(EntriesRequest::Reach { .. })) {
            &mut self.refused_receipts
        } else {
            return false;
        };
        let is_refused = *left > 0;
        *left = left.saturating_sub(1);
        is_refused
    }

    /// Carries out a request about a file.
    pub fn disk(&mut self, request: DiskRequest) -> Option<(TransferId, DiskAnswer)> {
        let failed = |why: &'static str| DiskAnswer::Failed(failure(why));
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
            let mut leaf = leaf.to_vec();
            if self.is_corrupt {
                leaf.iter_mut().take(1).for_each(|byte| *byte ^= 1);
            }
            Some((leaf, hasher.finish()))
        });
        match leaf {
            Some((bytes, hash)) => DiskAnswer::Leaf {
                index,
                bytes: bytes.into(),
                hash,
            },
            None => DiskAnswer::Failed(failure("the file is shorter than it was")),
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

fn failure(why: &'static str) -> DiskFailure {
    DiskFailure {
        reason: why.to_owned(),
        told: why,
    }
}

/// Tells whether a request writes what somebody else has written.
fn is_received(request: &StoreRequest) -> bool {
    let StoreRequest::Entries(EntriesRequest::Write { writes, .. }) = request else {
        return false;
    };
    writes.iter().any(|write| match write {
        EntryWrite::Admit(admission, Origin::OtherAccount) => !admission.entries.is_empty(),
        EntryWrite::Admit(..)
        | EntryWrite::Begin(_)
        | EntryWrite::Fork(_)
        | EntryWrite::Rewritten(_)
        | EntryWrite::Replaces(_) => false,
    })
}
