//! The logs of accounts: everything that `Request::Identity` asks.
//!
//! The store has the logs, and nothing is kept of them here. Before an entry is added the whole log is read and
//! judged, so that only a device of the account, or its recovery key, can fill it; and if it has grown meanwhile, it is
//! judged anew. Peers judge for themselves: nobody has to believe the server.
//!
//! `Identities` owns the requests that wait for the store.

use std::collections::{BTreeMap, VecDeque};
use std::time::Instant;

use common::account::{Accepted, AccountEntry, AccountLog, AccountStatement, LogError};
use common::id::AccountName;
use common::key::DeviceKey;
use common::limits::{
    ACCOUNT_APPENDS_BURST_MAX, ACCOUNT_APPENDS_PER_SECOND_MAX, ACCOUNT_ENTRIES_MAX,
    ACCOUNT_PAGE_LEN_MAX,
};
use common::wire::rendezvous::{IdentityAnswer, IdentityPush, IdentityRequest, Refusal};

use super::context::{Context, Part, ReplyTo};
use super::devices::Devices;
use super::io::Ticket;
use super::member::Member;
use crate::store::{
    AccountId, DevicesAnswer, DevicesRequest, LogsAnswer, LogsRequest, StoreAnswer, StoreError,
    StoreRequest,
};
use crate::token_bucket::{Rate, SharedBuckets};

/// Limits the entries that one device adds.
const APPENDED: Rate = Rate::per_second(ACCOUNT_APPENDS_PER_SECOND_MAX, ACCOUNT_APPENDS_BURST_MAX);

/// What is asked of the logs of accounts.
#[derive(Debug)]
pub(super) struct Identities {
    waiting: BTreeMap<Ticket, (ReplyTo, Waiting)>,
    appended: SharedBuckets,
    events: VecDeque<Event>,
}

/// What the other parts have to do with.
#[derive(Debug)]
pub(super) enum Event {
    /// A device of the account is revoked, and forgotten.
    Revoked(DeviceKey),
}

/// What a request waits for.
#[derive(Debug)]
enum Waiting {
    /// A part of a log.
    Page,
    /// The devices of an account.
    Devices,
    /// The whole log, to which an entry is to be added.
    Log(Box<Proposal>),
    /// The entry is being added.
    Append(Box<Proposal>, Vec<DeviceKey>),
}

/// An entry that a device wants to add.
#[derive(Debug)]
struct Proposal {
    id: AccountId,
    account: AccountName,
    device_key: DeviceKey,
    entry: Box<AccountEntry>,
}

/// What an entry does to a log.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    /// It is to be added, and revokes these.
    New(Vec<DeviceKey>),
    /// It is there.
    Known,
}

impl Identities {
    /// Nobody has asked for anything. The key is random.
    pub(super) fn new(key: [u8; 32], now: Instant) -> Self {
        Self {
            waiting: BTreeMap::new(),
            appended: SharedBuckets::new(key, now),
            events: VecDeque::new(),
        }
    }

    /// Asks the store for what answers a request of a device that is logged in.
    pub(super) fn on_request(
        &mut self,
        to: ReplyTo,
        request: IdentityRequest,
        member: &Member,
        context: &mut Context,
    ) {
        if context.is_busy() {
            return context.refuse_busy(to);
        }
        match request {
            IdentityRequest::Read { account, after } => {
                let request = LogsRequest::Read {
                    account,
                    after,
                    len_max: ACCOUNT_PAGE_LEN_MAX,
                };
                self.ask(to, request, Waiting::Page, context);
            }
            IdentityRequest::Enrolled => {
                let request = DevicesRequest::List { id: member.id };
                self.ask(to, request, Waiting::Devices, context);
            }
            IdentityRequest::Append { entry } => {
                let bucket = self.appended.of(member.device_key.as_bytes());
                if !bucket.take(1, APPENDED, context.now) {
                    return context.refuse_busy(to);
                }
                let proposal = Proposal {
                    id: member.id,
                    account: member.account.clone(),
                    device_key: member.device_key,
                    entry,
                };
                self.read(to, Box::new(proposal), context);
            }
        }
    }

    /// Takes the store's answer to what a request waits for.
    pub(super) fn on_stored(
        &mut self,
        ticket: Ticket,
        answer: Result<StoreAnswer, StoreError>,
        devices: &Devices,
        context: &mut Context,
    ) {
        let waiting = self.waiting.remove(&ticket);
        let (to, waiting) = waiting.expect("a ticket is for what waits for it");
        let answer = match (&waiting, answer) {
            (Waiting::Devices, Ok(StoreAnswer::Devices(DevicesAnswer::Listed(devices)))) => {
                return context.answer(to, IdentityAnswer::Enrolled { devices });
            }
            (_, Ok(StoreAnswer::Logs(answer))) => answer,
            (_, _) => return context.refuse(to, Refusal::StoreFailed),
        };
        match (waiting, answer) {
            (Waiting::Page, LogsAnswer::Page { entries, total }) => match parsed(&entries) {
                Some(entries) => context.answer(to, IdentityAnswer::Page { entries, total }),
                None => context.refuse(to, Refusal::StoreFailed),
            },
            (Waiting::Log(proposal), LogsAnswer::Page { entries, .. }) => {
                self.on_log(to, proposal, &entries, context);
            }
            (Waiting::Append(proposal, revoked), LogsAnswer::Appended) => {
                context.answer(to, IdentityAnswer::Appended);
                self.on_appended(&proposal, revoked, devices, context);
            }
            // The log has grown meanwhile, or the account is gone, and its session about to end.
            (Waiting::Append(proposal, _), LogsAnswer::NotFound) => {
                self.read(to, proposal, context);
            }
            (Waiting::Page | Waiting::Log(_), LogsAnswer::Appended | LogsAnswer::NotFound)
            | (Waiting::Append(..), LogsAnswer::Page { .. })
            | (Waiting::Devices, _) => {
                context.refuse(to, Refusal::StoreFailed);
            }
        }
    }

    pub(super) fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Reads the whole log that an entry is to be added to.
    fn read(&mut self, to: ReplyTo, proposal: Box<Proposal>, context: &mut Context) {
        if !context.is_open(to) {
            return;
        }
        let request = LogsRequest::Read {
            account: proposal.account.clone(),
            after: 0,
            len_max: usize::MAX,
        };
        self.ask(to, request, Waiting::Log(proposal), context);
    }

    fn on_log(
        &mut self,
        to: ReplyTo,
        proposal: Box<Proposal>,
        entries: &[Vec<u8>],
        context: &mut Context,
    ) {
        let Some(log) = parsed(entries) else {
            return context.refuse(to, Refusal::StoreFailed);
        };
        match judge(log, &proposal) {
            Ok(Verdict::Known) => context.answer(to, IdentityAnswer::Appended),
            Ok(Verdict::New(_)) if entries.len() >= ACCOUNT_ENTRIES_MAX => {
                context.refuse(to, Refusal::LimitExceeded);
            }
            Ok(Verdict::New(revoked)) => {
                let request = LogsRequest::Append {
                    id: proposal.id,
                    after: u32::try_from(entries.len()).unwrap_or(u32::MAX),
                    entry: proposal.entry.to_bytes(),
                    revoked: revoked.clone(),
                    at: context.unix(),
                };
                self.ask(to, request, Waiting::Append(proposal, revoked), context);
            }
            Err(refusal) => context.refuse(to, refusal),
        }
    }

    /// An entry is on disk: the account's other devices get it, and those that it revokes are out.
    fn on_appended(
        &mut self,
        proposal: &Proposal,
        revoked: Vec<DeviceKey>,
        devices: &Devices,
        context: &mut Context,
    ) {
        for connection in devices.connections_of(&proposal.account) {
            if devices.member(connection).device_key != proposal.device_key {
                let entry = proposal.entry.clone();
                context.push(connection, IdentityPush::Appended { entry });
            }
        }
        self.events.extend(revoked.into_iter().map(Event::Revoked));
    }

    fn ask(
        &mut self,
        to: ReplyTo,
        request: impl Into<StoreRequest>,
        waiting: Waiting,
        context: &mut Context,
    ) {
        let ticket = context.store(Part::Identities, request.into());
        self.waiting.insert(ticket, (to, waiting));
    }
}

fn parsed(entries: &[Vec<u8>]) -> Option<Vec<AccountEntry>> {
    let entries = entries.iter().map(|entry| AccountEntry::from_bytes(entry));
    entries.collect::<Result<_, _>>().ok()
}

/// Tells what an entry does to the log of its account, or why it is none of it.
fn judge(entries: Vec<AccountEntry>, proposal: &Proposal) -> Result<Verdict, Refusal> {
    let entry = (*proposal.entry).clone();
    let mut entries = entries.into_iter();
    let Some(first) = entries.next() else {
        let AccountStatement::Genesis(genesis) = &entry.statement else {
            return Err(Refusal::NotApproved);
        };
        if genesis.first_device != proposal.device_key {
            return Err(Refusal::EntryRefused);
        }
        let opened = AccountLog::open(genesis.id(), entry);
        return opened.map_or(Err(Refusal::EntryRefused), |_| Ok(Verdict::New(Vec::new())));
    };
    let AccountStatement::Genesis(genesis) = &first.statement else {
        return Err(Refusal::StoreFailed);
    };
    let mut log = AccountLog::open(genesis.id(), first).map_err(|_| Refusal::StoreFailed)?;
    for known in entries {
        log.accept(known).map_err(|_| Refusal::StoreFailed)?;
    }
    let before = log.clone();
    match log.accept(entry) {
        Ok(Accepted::Known) => Ok(Verdict::Known),
        Ok(Accepted::New | Accepted::Fork) => {
            let devices = before.standing().devices();
            let approved = devices.filter(|(key, _)| before.standing().is_approved(key));
            let revoked = approved.filter(|(key, _)| !log.standing().is_approved(key));
            Ok(Verdict::New(revoked.map(|(key, _)| *key).collect()))
        }
        Err(LogError::Stranger) => Err(Refusal::NotApproved),
        Err(
            LogError::Genesis
            | LogError::Signature
            | LogError::Gap
            | LogError::Forked
            | LogError::TooMany,
        ) => Err(Refusal::EntryRefused),
    }
}
