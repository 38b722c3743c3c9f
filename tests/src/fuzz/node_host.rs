//! A node with its shell's queues: what it asks waits until bytes decide on the answer.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use common::hash::{LeafHash, LeafHasher, leaf_len};
use common::id::{AccountName, DeviceName, MessageId, TransferId};
use common::key::{DeviceKey, DeviceSecret, Token};
use common::limits::{LEAF_STREAMS_MAX, LEAVES_WRITING_MAX, MESSAGES_IN_FLIGHT_MAX};
use common::password::PasswordError;
use common::time::{Epoch, UnixTime};
use common::wire::peer::MessageBody;
use common::wire::rendezvous::OpaqueMessage;
use peer::node::command::{
    Command, CommandError, CommandId, Cursor, Event, HistoryQuery, PasswordText, Reply,
    TransferState,
};
use peer::node::io::{
    ChatRequest, ContactRequest, DiskAnswer, DiskFailure, DiskRequest, Job, JobId, Outcome,
    RendezvousOutput, StoreId, StoreRequest,
};
use peer::node::{Datagrams, Input, Node, NodeOptions, Output, PathRule};
use peer::store::MemoryStore;

use super::beginning;
use super::feed::Feed;

/// Numbers that stand for commands.
pub(super) const COMMANDS: u8 = 29;
/// Outputs of one input.
const OUTPUTS_MAX: usize = 50_000;
/// Deadlines of one moment: each link has a few timers of its own.
const ROUNDS_MAX: usize = 500;
/// Datagrams that are remembered.
const DATAGRAMS_MAX: usize = 4096;
/// Where its UDP socket is.
pub(super) const ADDRESS: SocketAddr =
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), 5000);

/// A node and what it waits for.
pub(super) struct NodeHost {
    node: Node,
    pub(super) now: Instant,
    stores: VecDeque<(StoreId, StoreRequest)>,
    last_store: Option<StoreId>,
    store: MemoryStore,
    disks: VecDeque<DiskRequest>,
    /// Sizes of the files that are being received.
    incoming: BTreeMap<TransferId, u64>,
    /// Sizes of the files that are being sent, as the disk told them.
    outgoing: BTreeMap<TransferId, u64>,
    jobs: VecDeque<(JobId, Job)>,
    commands: BTreeSet<CommandId>,
    last_command: u64,
    /// Offers that were answered with yes.
    accepted: BTreeSet<TransferId>,
    /// Transfers that were heard of, in both directions.
    pub(super) transfers: Vec<TransferId>,
    messages: Vec<MessageId>,
    /// The last place in its history that it has told.
    recorded: Cursor,
    /// Messages to itself.
    notes: BTreeSet<MessageId>,
    /// Messages that it was to keep, files that it got and sent whole.
    pub(super) received: usize,
    pub(super) done: usize,
    /// What it wants of its control connection.
    pub(super) wishes: VecDeque<RendezvousOutput>,
    /// Datagrams that it sent, with where to.
    pub(super) sent: VecDeque<(SocketAddr, Vec<u8>)>,
    /// Accounts that may have sent messages.
    pub(super) authors: Option<Vec<AccountName>>,
}

impl NodeHost {
    /// Alice's device, with what it remembers.
    pub(super) fn new(contacts: Vec<(AccountName, DeviceKey)>) -> Self {
        let now = beginning();
        let mut store = MemoryStore::enrolled(account(0), Token::from_bytes([1; 32]));
        for (account, device_key) in contacts {
            let at = UnixTime::default();
            let pin = ContactRequest::PinKey {
                account,
                device_key,
                at,
            };
            store.execute(&pin.into());
        }
        let options = NodeOptions {
            secret: secret(0),
            device_name: DeviceName::lossy("fuzzed"),
            restored: store.restore(),
            epoch: Epoch::new(now, UnixTime::from_millis(1_700_000_000_000)),
            rule: PathRule::Any,
            lan: true,
            port_mapping: true,
            is_port_chosen: false,
        };
        let mut host = Self {
            node: Node::new([7; 32], now, options),
            now,
            stores: VecDeque::new(),
            last_store: None,
            store,
            disks: VecDeque::new(),
            incoming: BTreeMap::new(),
            outgoing: BTreeMap::new(),
            jobs: VecDeque::new(),
            commands: BTreeSet::new(),
            last_command: 0,
            accepted: BTreeSet::new(),
            transfers: Vec::new(),
            messages: Vec::new(),
            recorded: Cursor::START,
            notes: BTreeSet::new(),
            received: 0,
            done: 0,
            wishes: VecDeque::new(),
            sent: VecDeque::new(),
            authors: None,
        };
        host.input(Input::LocalAddresses(vec![ADDRESS.into()]));
        host
    }

    // ---- inputs --------------------------------------------------------------------------------

    /// Gives it an input and takes all that comes out.
    pub(super) fn input(&mut self, input: Input) {
        self.node.handle_input(input, self.now);
        self.drain();
    }

    pub(super) fn datagrams(&mut self, source: SocketAddr, stride: usize, bytes: &[u8]) {
        self.input(Input::Datagrams(Datagrams {
            source,
            local: None,
            ecn: None,
            stride,
            bytes: BytesMut::from(bytes),
        }));
    }

    /// Lets time pass.
    pub(super) fn pass(&mut self, span: Duration) {
        self.now += span;
        self.node.handle_timeout(self.now);
        self.drain();
    }

    /// A person asks something.
    pub(super) fn command(&mut self, feed: &mut Feed<'_>) {
        let command = self.any_command(feed);
        if let Command::AnswerOffer {
            transfer,
            folder: Some(_),
            ..
        } = &command
        {
            self.accepted.insert(*transfer);
        }
        self.last_command += 1;
        let id = CommandId(self.last_command);
        self.commands.insert(id);
        self.input(Input::Command(id, command));
    }

    fn any_command(&self, feed: &mut Feed<'_>) -> Command {
        let to = account(feed.below(4));
        match feed.below(COMMANDS.into()) {
            0 => Command::Register {
                account: to,
                password: password(feed),
            },
            1 => Command::LogIn {
                account: to,
                password: password(feed),
                code: feed.flag().then(|| feed.text()),
            },
            2 => Command::WaitReady,
            3 => Command::LogOut,
            4 if self.messages.len() == 1 => Command::Examination,
            4 => Command::Admit,
            5 if self.messages.is_empty() => Command::Contacts,
            5 => Command::Status,
            6 => Command::List,
            7 if self.messages.len() == 1 => Command::Examine {
                servers: (0..feed.below(4)).map(|_| EXAMINED).collect(),
                account: feed.flag().then_some(to),
            },
            7 => Command::Watch,
            8 | 9 => Command::Send {
                to: (0..feed.below(4)).map(account).chain([to]).collect(),
                body: body(feed),
                sent: UnixTime::from_millis(feed.number().into()),
            },
            10 | 11 => Command::SendFile {
                to,
                path: PathBuf::from("/fuzzed"),
            },
            12 | 13 => Command::AnswerOffer {
                transfer: self.any_transfer(feed),
                folder: (feed.below(4) > 0).then(|| PathBuf::from("/folder")),
                name: None,
            },
            14 => Command::Cancel {
                transfer: self.any_transfer(feed),
            },
            15 if self.messages.len() == 1 => Command::Recorded {
                after: Cursor(feed.below(4) as u64),
                limit: feed.number(),
            },
            15 => Command::Offers,
            16 => Command::History(HistoryQuery {
                with: feed.flag().then_some(to),
                since: None,
                words: Vec::new(),
                until: feed
                    .flag()
                    .then(|| UnixTime::from_millis(feed.number().into())),
                limit: feed.number(),
            }),
            17 => match self.any_messages(feed) {
                ids if ids.is_empty() => Command::Unread,
                ids => Command::MarkRead { ids },
            },
            18 => Command::Outbox,
            19 => Command::Devices,
            20 => Command::Found {
                recovery: secret(feed.below(9)).public(),
            },
            21 => Command::Approve {
                device: feed.text(),
            },
            22 => Command::Revoke {
                device: feed.text(),
            },
            23 => Command::Recover {
                code: password(feed),
            },
            24 => Command::Safety { account: to },
            25 => Command::Verify {
                account: to,
                is_verified: feed.flag(),
            },
            26 => Command::Version,
            27 => Command::Name {
                device: feed.text(),
                name: DeviceName::lossy(&feed.text()),
            },
            _ => Command::Withdraw {
                ids: self.any_messages(feed),
            },
        }
    }

    /// A message that was heard of; none if there is none.
    fn any_messages(&self, feed: &mut Feed<'_>) -> Vec<MessageId> {
        let index = feed.index(self.messages.len());
        index.map_or(Vec::new(), |index| vec![self.messages[index]])
    }

    /// A transfer that was heard of, or one that was not.
    pub(super) fn any_transfer(&self, feed: &mut Feed<'_>) -> TransferId {
        let newest_first = feed.index(self.transfers.len());
        match newest_first {
            Some(index) => self.transfers[self.transfers.len() - 1 - index],
            None => TransferId::from_bytes([feed.byte(); 16]),
        }
    }

    // ---- answers -------------------------------------------------------------------------------

    /// The store answers its oldest request.
    pub(super) fn answer_store(&mut self, feed: &mut Feed<'_>) {
        let Some((id, request)) = self.stores.pop_front() else {
            return;
        };
        let answer = if feed.below(8) == 0 {
            self.store.fail(&request, "the disk is full")
        } else {
            self.store.execute(&request)
        };
        self.input(Input::Stored(id, answer));
    }

    /// The disk answers its oldest request, or the oldest of another transfer.
    pub(super) fn answer_disk(&mut self, feed: &mut Feed<'_>) {
        let Some(index) = feed.index(self.disks.len()) else {
            return;
        };
        let of = self.disks[index].transfer();
        let oldest = self.disks.iter().position(|other| other.transfer() == of);
        let request = oldest.and_then(|oldest| self.disks.remove(oldest));
        let Some(request) = request else { return };
        let transfer = request.transfer();
        if let Some(answer) = self.disk(request, feed) {
            self.input(Input::Disk(transfer, answer));
        }
    }

    fn disk(&mut self, request: DiskRequest, feed: &mut Feed<'_>) -> Option<DiskAnswer> {
        if let DiskRequest::Drop { transfer } = request {
            self.incoming.remove(&transfer);
            self.outgoing.remove(&transfer);
            return None;
        }
        if feed.below(16) == 0 {
            return Some(DiskAnswer::Failed(DiskFailure {
                reason: "the disk is full".to_owned(),
                told: "the disk is full",
            }));
        }
        Some(match request {
            DiskRequest::Open { transfer, .. } => {
                // Rarely more than one leaf: each takes as long as a thousand small files.
                let size_max = if feed.byte() == 255 {
                    3_000_000
                } else {
                    70_000
                };
                let size = u64::from(feed.number() % size_max);
                self.outgoing.insert(transfer, size);
                DiskAnswer::Opened {
                    name: feed.text(),
                    size,
                    executable: feed.flag(),
                }
            }
            DiskRequest::ReadLeaf { transfer, index } => self.read_leaf(transfer, index),
            DiskRequest::Create { .. } if feed.below(8) == 0 => {
                DiskAnswer::BadName("a separator".to_owned())
            }
            DiskRequest::Create { .. } => DiskAnswer::Created,
            DiskRequest::WriteLeaf {
                transfer,
                index,
                bytes,
                hash,
            } => {
                if self.hash(transfer, index, &bytes) == Some(hash) {
                    DiskAnswer::Written { index }
                } else {
                    DiskAnswer::Mismatch { index }
                }
            }
            DiskRequest::Finish { .. } => DiskAnswer::Finished {
                path: PathBuf::from("/folder/fuzzed"),
            },
            DiskRequest::Drop { .. } => return None,
        })
    }

    fn read_leaf(&self, transfer: TransferId, index: u64) -> DiskAnswer {
        let size = self.outgoing.get(&transfer).copied();
        let len = size.and_then(|size| Some((size, leaf_len(size, index)?)));
        let (size, len) = len.expect("only leaves that the file has are read");
        let bytes = vec![0; len];
        let mut hasher = LeafHasher::new(size, index);
        hasher.update(&bytes);
        DiskAnswer::Leaf {
            index,
            bytes: bytes.into(),
            hash: hasher.finish(),
        }
    }

    fn hash(&self, transfer: TransferId, index: u64, bytes: &[u8]) -> Option<LeafHash> {
        let mut hasher = LeafHasher::new(*self.incoming.get(&transfer)?, index);
        hasher.update(bytes);
        Some(hasher.finish())
    }

    /// A computation is done; nothing is really stretched.
    pub(super) fn answer_work(&mut self, feed: &mut Feed<'_>) {
        if let Some((id, _)) = self.jobs.pop_front() {
            let message = OpaqueMessage::try_from(vec![feed.byte(); 64]).expect("64 bytes");
            let errors = [
                PasswordError::Wrong,
                PasswordError::Malformed,
                PasswordError::UnknownStretch,
                PasswordError::Stretch,
            ];
            let answer = match errors.get(feed.below(8)) {
                Some(error) => Err(*error),
                None => Ok(message),
            };
            self.input(Input::Computed(id, Outcome(answer)));
        }
    }

    // ---- what must hold ------------------------------------------------------------------------

    /// Takes all outputs; what is due now is done now, and then nothing is.
    fn drain(&mut self) {
        for _ in 0..ROUNDS_MAX {
            let due = self.drain_once();
            if due.is_none_or(|at| at > self.now) {
                return self.check_bounds();
            }
            self.node.handle_timeout(self.now);
        }
        panic!("a deadline that does not pass");
    }

    fn drain_once(&mut self) -> Option<Instant> {
        let mut buffer = Vec::new();
        let mut sealed = Vec::new();
        for _ in 0..OUTPUTS_MAX {
            match self.node.poll_output(self.now, &mut buffer) {
                Output::Wait(deadline) => {
                    let Some((id, outcome)) = sealed.pop() else {
                        return deadline.map(|deadline| deadline.at);
                    };
                    self.node.handle_input(Input::Sealed(id, outcome), self.now);
                }
                Output::Transmit(transmit) => {
                    let stride = transmit.segment_size.unwrap_or(transmit.size);
                    assert!(stride > 0 && transmit.size <= buffer.len());
                    for datagram in buffer[..transmit.size].chunks(stride) {
                        self.on_datagram(transmit.destination, datagram);
                    }
                }
                Output::Rendezvous(wish) => self.wishes.push_back(wish),
                Output::Store(id, request) => self.on_store(id, request),
                Output::Disk(request) => self.on_disk(request),
                Output::Compute(id, job) => self.jobs.push_back((id, job)),
                Output::Seal(id, work) => sealed.push((id, work.run())),
                Output::Reply(id, reply) => {
                    assert!(self.commands.remove(&id), "one reply for each command");
                    self.on_reply(&reply);
                }
                // Whoever hears it is in `node_engine`.
                Output::Lan(_) | Output::PortMapping(_) => {}
                Output::Event(event) => self.on_event(&event),
            }
        }
        panic!("outputs without an end");
    }

    fn on_datagram(&mut self, destination: SocketAddr, datagram: &[u8]) {
        assert_ne!(destination.port(), 0, "nothing goes to port 0");
        assert_ne!(destination, ADDRESS, "nothing goes to itself");
        if self.sent.len() == DATAGRAMS_MAX {
            self.sent.pop_front();
        }
        self.sent.push_back((destination, datagram.to_vec()));
    }

    fn on_store(&mut self, id: StoreId, request: StoreRequest) {
        assert!(self.last_store < Some(id), "a number that was used");
        self.last_store = Some(id);
        if let StoreRequest::Chat(ChatRequest::Queue { messages, .. }) = &request {
            let own = messages.iter().filter(|(to, _)| *to == account(0));
            self.notes.extend(own.map(|(_, message)| message.id));
        }
        if let StoreRequest::Chat(ChatRequest::Receive { from, message, .. }) = &request {
            let is_note = *from == account(0) && self.notes.contains(&message.id);
            let is_authors = self
                .authors
                .as_ref()
                .is_none_or(|authors| authors.contains(from));
            assert!(is_note || is_authors, "a message of somebody else: {from}");
            self.received += 1;
        }
        self.stores.push_back((id, request));
    }

    fn on_disk(&mut self, request: DiskRequest) {
        match &request {
            DiskRequest::Create { transfer, size, .. } => {
                assert!(self.accepted.contains(transfer), "nobody said yes");
                let before = self.incoming.insert(*transfer, *size);
                assert_eq!(before, None, "created twice");
            }
            DiskRequest::WriteLeaf {
                transfer,
                index,
                bytes,
                ..
            } => {
                let size = self.incoming.get(transfer).expect("it was created");
                assert_eq!(leaf_len(*size, *index), Some(bytes.len()), "half a leaf");
            }
            DiskRequest::Finish { transfer } => {
                assert!(self.incoming.contains_key(transfer), "it was created");
            }
            DiskRequest::Open { .. } | DiskRequest::ReadLeaf { .. } | DiskRequest::Drop { .. } => {}
        }
        self.disks.push_back(request);
    }

    fn on_reply(&mut self, reply: &Result<Reply, CommandError>) {
        if let Ok(Reply::Started(transfer)) = reply {
            self.transfers.push(*transfer);
        } else if let Ok(Reply::Queued(ids)) = reply {
            self.messages.extend(ids);
        }
    }

    fn on_event(&mut self, event: &Event) {
        if let Event::Offer(offer) = event {
            self.transfers.push(offer.transfer);
        } else if let Event::Message(item) = event {
            self.messages.push(item.id);
        } else if let Event::Recorded(recorded) = event {
            assert!(recorded.cursor > self.recorded, "a place is told twice");
            self.recorded = recorded.cursor;
        } else if let Event::Transfer { state, .. } = event {
            self.done += usize::from(matches!(state, TransferState::Done { .. }));
        }
    }

    /// Bounds of what one other side can make it hold. Several links double them at most.
    fn check_bounds(&self) {
        let receives = self.stores.iter().filter(|(_, request)| {
            matches!(request, StoreRequest::Chat(ChatRequest::Receive { .. }))
        });
        assert!(receives.count() <= 4 * MESSAGES_IN_FLIGHT_MAX);
        let writes = self
            .disks
            .iter()
            .filter(|request| matches!(request, DiskRequest::WriteLeaf { .. }));
        assert!(writes.count() <= LEAVES_WRITING_MAX + 4 * LEAF_STREAMS_MAX as usize);
    }
}

/// Alice is the node's own account.
pub(super) fn account(n: usize) -> AccountName {
    let names = ["alice", "bob", "carol"];
    let name = names.get(n).copied().unwrap_or("dave");
    name.parse().expect("a plain name")
}

/// The device of an account.
pub(super) fn secret(n: usize) -> DeviceSecret {
    DeviceSecret::from_seed([n as u8 + 1; 32])
}

/// An address of a server that a person has examined.
const EXAMINED: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(198, 51, 100, 9)), 7400);

fn password(feed: &mut Feed<'_>) -> PasswordText {
    PasswordText(zeroize::Zeroizing::new(feed.text()))
}

pub(super) fn body(feed: &mut Feed<'_>) -> MessageBody {
    let text = feed.text();
    let body = MessageBody::try_from(text);
    body.unwrap_or_else(|_| MessageBody::try_from("hello".to_owned()).expect("not empty"))
}

#[cfg(test)]
mod tests {
    use common::os::lines;

    use super::*;
    use crate::fuzz::vocabulary;

    #[test]
    fn every_command_is_drawn() {
        let mut host = NodeHost::new(Vec::new());
        let any = |host: &NodeHost, feed: &mut Feed<'_>| {
            let command = serde_json::to_value(host.any_command(feed)).expect("a command");
            command["method"].as_str().expect("its name").to_owned()
        };
        // Some commands are about messages that came.
        let came = MessageId::from_bytes([1; 16]);
        let methods = lines::methods::<Command>();
        vocabulary::check_names(methods, |feed| {
            host.messages = feed.flag().then_some(came).into_iter().collect();
            any(&host, feed)
        });
    }
}
