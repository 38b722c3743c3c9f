//! Who accounts are: the logs of this device's account and of others, as far as they are known.
//!
//! Owns these logs, and the commands about them that wait for the server. A log is read from the server when this
//! device comes online, if it is that of its own account, and whenever somebody asks about it. What the server says of
//! a known account is added, never believed instead: another account under a known name changes nothing but what people
//! are told, until one of them says that it is the same person.
//!
//! An account is founded in a step of its own after a log-in, so that one made by an operator gets an identity as well.
//! Whoever talks to the person makes the recovery code; only its public half comes here. A device that a known log
//! approves stays with that account; one that is not approved follows the name. A server that was set back gets the
//! entries again that it has lost.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Instant;

use common::account::{
    Accepted, AccountEntry, AccountLog, AccountStatement, Genesis, LogError, Revocation,
    SafetyNumber, Standing, State,
};
use common::id::{AccountName, DeviceName};
use common::key::{DeviceKey, DeviceSecret};
use common::limits::{ACCOUNT_ENTRIES_MAX, DEVICES_PER_ACCOUNT_MAX, IDENTITIES_MAX, Occupancy};
use common::log::{AccountId, HybridClock, RunId};
use common::wire::rendezvous::{
    DirectoryRequest, Enrolment, Entry, IdentityAnswer, IdentityPush, IdentityRequest,
};
use rand::rngs::StdRng;
use rand::{Rng, RngExt};

use super::command::{
    Approval, Command, CommandError, CommandId, DevicesView, Event, OwnDevice, OwnDeviceState,
    Reply, SafetyView,
};
use super::context::Context;
use super::io::{ContactRequest, LogRequest};
use super::purpose::IdentityPurpose;
use super::requests::{Told, unexpected_reply};
use crate::recovery::RecoveryCode;
use reading::Reading;

// Whose devices are let in.
mod admission;
// What is read of a log, page by page, and who waits for it.
mod reading;

/// What a command wants once a log has been read.
#[derive(Debug)]
pub(super) enum Wish {
    /// To see the devices of this account.
    Devices,
    /// To begin this account's log with this recovery key.
    Found(DeviceKey),
    /// To approve the device that a person means.
    Approve(String),
    /// To call the one that a person means something else.
    Name(String, DeviceName),
    /// To revoke it.
    Revoke(String),
    /// To have this device approved by the recovery code.
    Recover(RecoveryCode),
    /// To compare safety numbers with this account.
    Safety,
    /// To ask what only an approved device may ask.
    Ask(Box<Command>),
}

/// The log of an account, as far as this device knows it.
#[derive(Debug)]
struct Known {
    log: AccountLog,
    /// A person has compared the safety number.
    is_verified: bool,
    /// The server names another account by this name, with this beginning.
    other: Option<AccountLog>,
}

/// The logs of accounts.
#[derive(Debug)]
pub(super) struct Identities {
    secret: DeviceSecret,
    name: DeviceName,
    rng: StdRng,
    /// What this program writes is a run of its own.
    run: RunId,
    clock: HybridClock,
    known: BTreeMap<AccountName, Known>,
    reading: BTreeMap<AccountName, Reading>,
    /// When logs were read last, whether there was one or not.
    read: BTreeMap<AccountName, Instant>,
    /// Devices that people were told of, since their account has not approved them.
    told: BTreeSet<DeviceKey>,
    /// What people were told last of this device's standing in its account.
    own_approval: Option<Approval>,
    /// The approved devices of its account that they know of; `None` until its log is known.
    own_devices: Option<BTreeSet<DeviceKey>>,
    /// Commands that are to be asked again.
    held: VecDeque<(CommandId, Command)>,
    /// Accounts of which something else is known than was told.
    changed: BTreeSet<AccountName>,
}

impl Identities {
    /// Takes what earlier runs knew. `rng` is this part's own.
    pub(super) fn new(
        secret: DeviceSecret,
        name: DeviceName,
        mut rng: StdRng,
        logs: Vec<(AccountName, Vec<AccountEntry>)>,
        verified: &BTreeSet<AccountName>,
    ) -> Self {
        let known = logs.into_iter().filter_map(|(account, entries)| {
            let known = Known {
                log: assembled(entries)?,
                is_verified: verified.contains(&account),
                other: None,
            };
            Some((account, known))
        });
        let mut run = [0; 16];
        rng.fill_bytes(&mut run);
        Self {
            known: known.take(IDENTITIES_MAX).collect(),
            secret,
            name,
            rng,
            run: RunId::from_bytes(run),
            clock: HybridClock::new(),
            reading: BTreeMap::new(),
            read: BTreeMap::new(),
            told: BTreeSet::new(),
            own_approval: None,
            own_devices: None,
            held: VecDeque::new(),
            changed: BTreeSet::new(),
        }
    }

    /// The log of an account, as far as it is known.
    pub(super) fn log_of(&self, account: &AccountName) -> Option<&AccountLog> {
        self.known.get(account).map(|known| &known.log)
    }

    /// Tells whether this device is one of several that are approved for an account.
    pub(super) fn has_others(&self, account: &AccountName) -> bool {
        let Some(log) = self.log_of(account) else {
            return false;
        };
        let standing = log.standing();
        let devices = standing.devices().map(|(device, _)| device);
        let approved = devices.filter(|device| standing.is_approved(device));
        standing.is_approved(&self.secret.public()) && approved.count() > 1
    }

    /// Accounts that messages are to go to once it is known who they are.
    pub(super) fn awaited(&self) -> impl Iterator<Item = &AccountName> {
        let is_message = |(_, wish): &(CommandId, Wish)| matches!(wish, Wish::Ask(asked) if matches!(**asked, Command::Send { .. }));
        let reading = self.reading.iter();
        let awaited = reading.filter(move |(_, reading)| reading.waiting.iter().any(is_message));
        awaited.map(|(account, _)| account)
    }

    /// The next account of which something else is known than before: its log, or that it has one.
    pub(super) fn poll_changed(&mut self) -> Option<AccountName> {
        self.changed.pop_first()
    }

    /// The occupancy of each bounded resource.
    pub(super) fn occupancy(&self) -> Occupancy {
        Occupancy::new("known identities", self.known.len(), IDENTITIES_MAX)
    }

    /// There is a new session: the logs of this account, and of those that are linked, may have grown meanwhile.
    pub(super) fn on_online(&mut self, own: Option<&AccountName>, cx: &mut Context<'_>) {
        if let Some(own) = own {
            self.note_own(own);
        }
        let linked = cx.links.linked_accounts();
        for account in own.cloned().into_iter().chain(linked) {
            self.read(account, None, cx);
        }
    }

    /// Somebody has said more of an account's log than is known here.
    pub(super) fn on_stale(&mut self, account: AccountName, cx: &mut Context<'_>) {
        if cx.requests.is_online() {
            self.read(account, None, cx);
        }
    }

    /// There is no session any more: what was read of it may have grown by the next one.
    pub(super) fn on_offline(&mut self) {
        self.read.clear();
    }

    /// Carries out a command once the log of `account` has been read.
    pub(super) fn want(
        &mut self,
        command: CommandId,
        account: AccountName,
        wish: Wish,
        cx: &mut Context<'_>,
    ) {
        self.read(account, Some((command, wish)), cx);
    }

    fn read(
        &mut self,
        account: AccountName,
        waiting: Option<(CommandId, Wish)>,
        cx: &mut Context<'_>,
    ) {
        if let Some(reading) = self.reading.get_mut(&account) {
            return reading.waiting.extend(waiting);
        }
        let reading = Reading::new(waiting);
        self.reading.insert(account.clone(), reading);
        ask_page(account, 0, cx);
    }

    // ---- the server ----------------------------------------------------------------------------

    /// Takes the server's answer to a request of this part. `own` is this device's account.
    pub(super) fn on_answer(
        &mut self,
        purpose: IdentityPurpose,
        answer: Result<Told, CommandError>,
        own: Option<&AccountName>,
        cx: &mut Context<'_>,
    ) {
        match (purpose, answer) {
            (
                IdentityPurpose::Read(account),
                Ok(Told::Log(IdentityAnswer::Page { entries, total })),
            ) => self.on_page(account, entries, total, own, cx),
            (
                IdentityPurpose::Enrolled(account),
                Ok(Told::Log(IdentityAnswer::Enrolled { devices })),
            ) => self.on_enrolled(account, devices, cx),
            (IdentityPurpose::Online(account), Ok(Told::Online(online))) => {
                self.carry_out(&account, &online, own, cx);
            }
            (
                IdentityPurpose::Append {
                    account,
                    entry,
                    command,
                },
                Ok(Told::Log(IdentityAnswer::Appended)),
            ) => {
                if self.known.contains_key(&account) {
                    self.take(&account, *entry, cx);
                } else if let Some(log) = assembled(vec![*entry]) {
                    self.adopt(&account, log, cx);
                }
                self.enforce(&account, own, cx);
                if let Some(command) = command {
                    cx.reply(command, Ok(Reply::Done));
                }
            }
            (
                IdentityPurpose::Read(account)
                | IdentityPurpose::Enrolled(account)
                | IdentityPurpose::Online(account),
                answer,
            ) => {
                let error = answer.err().unwrap_or_else(unexpected_reply);
                self.fail(&account, &error, own, cx);
            }
            (IdentityPurpose::Append { command, .. }, answer) => {
                let error = answer.err().unwrap_or_else(unexpected_reply);
                match command {
                    Some(command) => cx.reply(command, Err(error)),
                    None => log::debug!("the server did not take an entry of the log: {error}"),
                }
            }
        }
    }

    /// Another device of this account has written into the log.
    pub(super) fn on_push(
        &mut self,
        IdentityPush::Appended { entry }: IdentityPush,
        own: Option<&AccountName>,
        cx: &mut Context<'_>,
    ) {
        if let Some(own) = own {
            self.take(own, *entry, cx);
            self.enforce(own, Some(own), cx);
        }
    }

    fn on_page(
        &mut self,
        account: AccountName,
        entries: Vec<AccountEntry>,
        total: u32,
        own: Option<&AccountName>,
        cx: &mut Context<'_>,
    ) {
        let Some(reading) = self.reading.get_mut(&account) else {
            return;
        };
        let is_last = entries.is_empty();
        reading.entries.extend(entries);
        let count = reading.entries.len();
        if count > ACCOUNT_ENTRIES_MAX {
            return self.fail(&account, &unexpected_reply(), own, cx);
        }
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        if !is_last && count < total {
            return ask_page(account, count, cx);
        }
        let entries = std::mem::take(&mut reading.entries);
        let is_own = own == Some(&account);
        self.merge(&account, entries, is_own, cx);
        self.on_read(&account, own, cx);
        if is_own && self.is_wanted(&account) {
            cx.ask(
                IdentityPurpose::Enrolled(account),
                IdentityRequest::Enrolled,
            );
        } else {
            self.carry_out(&account, &[], own, cx);
        }
    }

    /// The server has listed the devices of this account; which of them are online is asked next.
    fn on_enrolled(
        &mut self,
        account: AccountName,
        mut devices: Vec<Enrolment>,
        cx: &mut Context<'_>,
    ) {
        if let Some(reading) = self.reading.get_mut(&account) {
            devices.truncate(DEVICES_PER_ACCOUNT_MAX);
            reading.enrolled = devices;
        }
        let request = DirectoryRequest::Find {
            account: account.clone(),
        };
        cx.ask(IdentityPurpose::Online(account), request);
    }

    fn is_wanted(&self, account: &AccountName) -> bool {
        let reading = self.reading.get(account);
        reading.is_some_and(|reading| !reading.waiting.is_empty())
    }

    fn fail(
        &mut self,
        account: &AccountName,
        error: &CommandError,
        own: Option<&AccountName>,
        cx: &mut Context<'_>,
    ) {
        let Some(reading) = self.reading.remove(account) else {
            return;
        };
        for (command, wish) in reading.waiting {
            match wish {
                // It needs no server: who the account is shows later.
                Wish::Ask(asked) if matches!(*asked, Command::Send { .. }) => {
                    self.read.insert(account.clone(), cx.now);
                    self.held.push_back((command, *asked));
                }
                Wish::Devices
                | Wish::Found(_)
                | Wish::Approve(_)
                | Wish::Name(..)
                | Wish::Revoke(_)
                | Wish::Recover(_)
                | Wish::Safety
                | Wish::Ask(_) => cx.reply(command, Err(error.clone())),
            }
        }
        for device_key in reading.claims {
            self.decide_unread(account, device_key, own, cx);
        }
    }

    /// Adds what the server has of a log to what is known of it.
    fn merge(
        &mut self,
        account: &AccountName,
        entries: Vec<AccountEntry>,
        is_own: bool,
        cx: &mut Context<'_>,
    ) {
        let id = entries.first().and_then(genesis_of).map(Genesis::id);
        let known = self.known.get_mut(account);
        match (id, known) {
            (Some(id), Some(known)) if known.log.id() != id => {
                let other = assembled(entries);
                let is_news =
                    known.other.as_ref().map(AccountLog::id) != other.as_ref().map(AccountLog::id);
                known.other = other;
                let own_key = self.secret.public();
                // A device that belongs to somebody is nobody else's because the server says so.
                if is_own
                    && !known.log.standing().is_approved(&own_key)
                    && let Some(other) = known.other.take()
                {
                    self.adopt(account, other, cx);
                } else if is_news {
                    let account = account.clone();
                    cx.event(Event::OtherAccount { account });
                }
            }
            // The account was removed, and registered anew by a device that cannot begin the old one again.
            (None, Some(known))
                if is_own && known.log.genesis().first_device != self.secret.public() =>
            {
                self.known.remove(account);
                self.changed.insert(account.clone());
                cx.store_unawaited(LogRequest::Forget {
                    account: account.clone(),
                });
            }
            (_, Some(known)) => {
                known.other = None;
                let missing = missing(&known.log, &entries);
                for entry in entries {
                    self.take(account, entry, cx);
                }
                if is_own {
                    give_back(account, missing, cx);
                }
            }
            (_, None) => {
                if let Some(log) = assembled(entries) {
                    self.adopt(account, log, cx);
                }
            }
        }
    }

    /// Knows an account by this log from now on.
    fn adopt(&mut self, account: &AccountName, log: AccountLog, cx: &mut Context<'_>) {
        if !self.known.contains_key(account) && self.known.len() >= IDENTITIES_MAX {
            return log::warn!("no more than {IDENTITIES_MAX} identities are remembered");
        }
        cx.store_unawaited(LogRequest::Forget {
            account: account.clone(),
        });
        for entry in log.entries() {
            store(account, entry, cx);
        }
        let known = Known {
            log,
            is_verified: false,
            other: None,
        };
        self.known.insert(account.clone(), known);
        self.changed.insert(account.clone());
    }

    /// Takes an entry into the log of an account, and keeps it if it is new.
    fn take(&mut self, account: &AccountName, entry: AccountEntry, cx: &mut Context<'_>) {
        let Some(known) = self.known.get_mut(account) else {
            return;
        };
        match known.log.accept(entry.clone()) {
            Ok(Accepted::New | Accepted::Fork) => {
                self.clock.follow(entry.clock, cx.unix());
                self.changed.insert(account.clone());
                store(account, &entry, cx);
            }
            Ok(Accepted::Known) => {}
            Err(error) => log::debug!("an entry of the log of {account} was left out: {error}"),
        }
    }

    // ---- wishes --------------------------------------------------------------------------------

    /// The log of an account has been read: does what commands wanted.
    fn carry_out(
        &mut self,
        account: &AccountName,
        online: &[Entry],
        own: Option<&AccountName>,
        cx: &mut Context<'_>,
    ) {
        let Some(reading) = self.reading.remove(account) else {
            return;
        };
        let enrolled = reading.enrolled;
        let is_other = own == Some(account) && self.is_other(account);
        for (command, wish) in reading.waiting {
            if is_other {
                cx.reply(command, Err(other_account()));
                continue;
            }
            let done = match wish {
                Wish::Devices => Ok(Some(Reply::Devices(
                    self.devices(account, &enrolled, online),
                ))),
                Wish::Found(recovery) => self.found(command, account, recovery, cx),
                Wish::Approve(which) => self.approve(command, account, &which, &enrolled, cx),
                Wish::Name(which, name) => self.name(command, account, &which, name, cx),
                Wish::Revoke(which) => self.revoke(command, account, &which, cx),
                Wish::Recover(code) => self.recover(command, account, &code, cx),
                Wish::Ask(asked) => {
                    self.held.push_back((command, *asked));
                    Ok(None)
                }
                Wish::Safety => self.safety(account, own).map(Some),
            };
            match done {
                Ok(None) => {}
                Ok(Some(reply)) => cx.reply(command, Ok(reply)),
                Err(error) => cx.reply(command, Err(error)),
            }
        }
    }

    /// The devices of this account, approved ones first, and those that wait for it.
    fn devices(
        &self,
        account: &AccountName,
        enrolled: &[Enrolment],
        online: &[Entry],
    ) -> DevicesView {
        let own_key = self.secret.public();
        let is_online = |key: &DeviceKey| online.iter().any(|entry| entry.device_key == *key);
        let enrolment = |key: &DeviceKey| enrolled.iter().find(|device| device.device_key == *key);
        let Some(known) = self.known.get(account) else {
            return DevicesView {
                identity: None,
                devices: Vec::new(),
            };
        };
        let standing = known.log.standing();
        let listed = standing.devices().map(|(key, device)| OwnDevice {
            name: match (&device.name, enrolment(key)) {
                (Some(name), _) => Some(name.clone()),
                (None, _) if *key == own_key => Some(self.name.clone()),
                (None, enrolment) => enrolment.map(|it| it.device_name.clone()),
            },
            fingerprint: key.fingerprint().to_string(),
            state: match device.state {
                State::Approved => OwnDeviceState::Approved,
                State::Revoked { .. } => OwnDeviceState::Revoked,
            },
            // The first device is there from the beginning: nobody had to approve it.
            approved_by: (*key != known.log.genesis().first_device)
                .then(|| device.approved_by.fingerprint().to_string()),
            is_this: *key == own_key,
            is_online: is_online(key),
        });
        let waiting = enrolled.iter().filter(|enrolment| {
            let mut devices = standing.devices();
            !devices.any(|(key, _)| *key == enrolment.device_key)
        });
        let waiting = waiting.map(|enrolment| OwnDevice {
            name: Some(enrolment.device_name.clone()),
            fingerprint: enrolment.device_key.fingerprint().to_string(),
            state: OwnDeviceState::Waiting,
            approved_by: None,
            is_this: enrolment.device_key == own_key,
            is_online: is_online(&enrolment.device_key),
        });
        let mut devices: Vec<OwnDevice> = listed.chain(waiting).collect();
        devices.sort_by_key(|device| (device.state, !device.is_this, device.name.clone()));
        DevicesView {
            identity: Some(known.log.id().to_string()),
            devices,
        }
    }

    fn found(
        &mut self,
        command: CommandId,
        account: &AccountName,
        recovery: DeviceKey,
        cx: &mut Context<'_>,
    ) -> Result<Option<Reply>, CommandError> {
        if self.known.contains_key(account) {
            return Err(invalid("this account has its recovery code already"));
        }
        let genesis = Genesis {
            first_device: self.secret.public(),
            recovery,
            nonce: self.rng.random(),
        };
        let clock = self.clock.tick(None, cx.unix()).ok_or_else(no_clock)?;
        let log = AccountLog::found(genesis, self.run, clock, &self.secret);
        let first = log.entries().next().expect("a log has its genesis");
        append(account, first.clone(), Some(command), cx);
        Ok(None)
    }

    fn approve(
        &mut self,
        command: CommandId,
        account: &AccountName,
        which: &str,
        enrolled: &[Enrolment],
        cx: &mut Context<'_>,
    ) -> Result<Option<Reply>, CommandError> {
        let standing = self.log(account)?.standing();
        if !standing.is_approved(&self.secret.public()) {
            let fingerprint = self.secret.public().fingerprint().to_string();
            return Err(CommandError::NotApproved { fingerprint });
        }
        let state_of = |key: &DeviceKey| {
            let mut devices = standing.devices();
            devices
                .find(|(of, _)| *of == key)
                .map(|(_, device)| &device.state)
        };
        let is_revoked = |it: &Enrolment| {
            let state = state_of(&it.device_key);
            state.is_some_and(|state| *state != State::Approved)
                && means(which, &it.device_key, &it.device_name)
        };
        let waiting = enrolled
            .iter()
            .filter(|device| state_of(&device.device_key).is_none())
            .map(|device| (device.device_key, device.device_name.clone()));
        let chosen = chosen(which, waiting, "waits for approval");
        // A device that waits may have the name of one that was revoked: those of one host have.
        if chosen.is_err() && enrolled.iter().any(is_revoked) {
            return Err(invalid(
                "this device was revoked, which is for good; have it log in with another profile",
            ));
        }
        let (device, name) = chosen?;
        let statement = AccountStatement::Approve { device, name };
        let secret = DeviceSecret::from_seed(*self.secret.seed());
        self.write(command, account, statement, &secret, cx)
    }

    /// The approved device that a person means.
    fn approved(&self, standing: &Standing, which: &str) -> Result<DeviceKey, CommandError> {
        let own_key = self.secret.public();
        let devices = standing.devices();
        let approved = devices.filter(|(_, device)| device.state == State::Approved);
        let named = approved.map(|(key, device)| {
            let own = (*key == own_key).then(|| self.name.clone());
            let name = device.name.clone().or(own);
            (*key, name.unwrap_or_else(|| DeviceName::lossy("")))
        });
        chosen(which, named, "is approved").map(|(device, _)| device)
    }

    /// An approval that is repeated gives the device another name.
    fn name(
        &mut self,
        command: CommandId,
        account: &AccountName,
        which: &str,
        name: DeviceName,
        cx: &mut Context<'_>,
    ) -> Result<Option<Reply>, CommandError> {
        let standing = self.log(account)?.standing();
        let device = self.approved(standing, which)?;
        if !standing.may_revoke(&self.secret.public(), &device) {
            return Err(invalid(
                "only the device itself may be given another name here, or one that this device has approved, directly or not",
            ));
        }
        let statement = AccountStatement::Approve { device, name };
        let secret = DeviceSecret::from_seed(*self.secret.seed());
        self.write(command, account, statement, &secret, cx)
    }

    fn revoke(
        &mut self,
        command: CommandId,
        account: &AccountName,
        which: &str,
        cx: &mut Context<'_>,
    ) -> Result<Option<Reply>, CommandError> {
        let log = self.log(account)?;
        let standing = log.standing();
        let device = self.approved(standing, which)?;
        if !standing.may_revoke(&self.secret.public(), &device) {
            return Err(invalid(
                "only a device that approved it, directly or not, may revoke it, or the recovery code",
            ));
        }
        let cut = log.cut(&device);
        let statement = AccountStatement::Revoke(Revocation { device, cut });
        let secret = DeviceSecret::from_seed(*self.secret.seed());
        self.write(command, account, statement, &secret, cx)
    }

    fn recover(
        &mut self,
        command: CommandId,
        account: &AccountName,
        code: &RecoveryCode,
        cx: &mut Context<'_>,
    ) -> Result<Option<Reply>, CommandError> {
        let secret = code.secret();
        let log = self.log(account)?;
        if log.genesis().recovery != secret.public() {
            return Err(invalid(
                "these words are not the recovery code of this account",
            ));
        }
        let device = self.secret.public();
        if log.standing().is_approved(&device) {
            return Ok(Some(Reply::Done));
        }
        if log.standing().devices().any(|(key, _)| *key == device) {
            return Err(CommandError::Revoked);
        }
        let name = self.name.clone();
        let statement = AccountStatement::Approve { device, name };
        self.write(command, account, statement, &secret, cx)
    }

    /// Signs a statement and has the server keep it; the command is answered then.
    fn write(
        &mut self,
        command: CommandId,
        account: &AccountName,
        statement: AccountStatement,
        secret: &DeviceSecret,
        cx: &mut Context<'_>,
    ) -> Result<Option<Reply>, CommandError> {
        let clock = self.clock.tick(None, cx.unix()).ok_or_else(no_clock)?;
        let entry = self.log(account)?.write(statement, self.run, clock, secret);
        let mut copy = self.log(account)?.clone();
        copy.accept(entry.clone())
            .map_err(|error| refused(&error))?;
        append(account, entry, Some(command), cx);
        Ok(None)
    }

    fn safety(
        &self,
        account: &AccountName,
        own: Option<&AccountName>,
    ) -> Result<Reply, CommandError> {
        let own = own.ok_or(CommandError::NotLoggedIn)?;
        if own == account {
            return Err(invalid(
                "that is you: a safety number is one of two people, and the other runs 'peer verify' with your name",
            ));
        }
        let ours = self.log(own)?.id();
        let known = self.known.get(account);
        let known = known.ok_or_else(|| CommandError::UnknownAccount(account.clone()))?;
        let number = |theirs: AccountId| SafetyNumber::of(&ours, &theirs).to_string();
        let devices = known.log.standing().devices();
        let approved = devices.filter(|(_, device)| device.state == State::Approved);
        Ok(Reply::Safety(SafetyView {
            account: account.clone(),
            number: number(known.log.id()),
            is_verified: known.is_verified,
            devices: approved.count(),
            other: known.other.as_ref().map(|other| number(other.id())),
        }))
    }

    /// A person has compared the safety number, or takes that back. Of an account that is another one than before, it
    /// is the new one's.
    fn verify(
        &mut self,
        account: &AccountName,
        is_verified: bool,
        own: Option<&AccountName>,
        cx: &mut Context<'_>,
    ) -> Result<Reply, CommandError> {
        let other = self
            .known
            .get_mut(account)
            .and_then(|known| known.other.take());
        if let Some(other) = other.filter(|_| is_verified) {
            self.adopt(account, other, cx);
            // Those were somebody else's.
            for device_key in cx.links.unpin(account) {
                cx.store_unawaited(ContactRequest::UnpinKey { device_key });
            }
        }
        let Some(known) = self.known.get_mut(account) else {
            return self.safety(account, own);
        };
        known.is_verified = is_verified;
        cx.store_unawaited(LogRequest::SetVerified {
            account: account.clone(),
            is_verified,
        });
        self.safety(account, own)
    }

    /// Tells whether the server names another account by a name than the one that is known.
    fn is_other(&self, account: &AccountName) -> bool {
        let known = self.known.get(account);
        known.is_some_and(|known| known.other.is_some())
    }

    fn log(&self, account: &AccountName) -> Result<&AccountLog, CommandError> {
        let known = self.known.get(account);
        known.map(|known| &known.log).ok_or_else(|| {
            invalid(
                "this account has no recovery code and no approved devices yet; run 'peer devices'",
            )
        })
    }
}

fn ask_page(account: AccountName, after: u32, cx: &mut Context<'_>) {
    let request = IdentityRequest::Read {
        account: account.clone(),
        after,
    };
    cx.ask(IdentityPurpose::Read(account), request);
}

fn append(
    account: &AccountName,
    entry: AccountEntry,
    command: Option<CommandId>,
    cx: &mut Context<'_>,
) {
    let entry = Box::new(entry);
    let request = IdentityRequest::Append {
        entry: entry.clone(),
    };
    let account = account.clone();
    let purpose = IdentityPurpose::Append {
        account,
        entry,
        command,
    };
    cx.ask(purpose, request);
}

fn store(account: &AccountName, entry: &AccountEntry, cx: &mut Context<'_>) {
    cx.store_unawaited(LogRequest::Add {
        account: account.clone(),
        entry: entry.to_bytes(),
    });
}

/// Gives a server that was set back what it has lost of this account's log.
fn give_back(account: &AccountName, missing: Vec<AccountEntry>, cx: &mut Context<'_>) {
    for entry in missing {
        append(account, entry, None, cx);
    }
}

/// What a log has and others have not.
fn missing(log: &AccountLog, entries: &[AccountEntry]) -> Vec<AccountEntry> {
    let ours = log.entries().filter(|entry| !entries.contains(entry));
    ours.cloned().collect()
}

fn genesis_of(entry: &AccountEntry) -> Option<&Genesis> {
    match &entry.statement {
        AccountStatement::Genesis(genesis) => Some(genesis),
        AccountStatement::Approve { .. } | AccountStatement::Revoke(_) => None,
    }
}

/// The log that entries make up, in the order in which somebody has accepted them. What does not fit is left out.
fn assembled(entries: Vec<AccountEntry>) -> Option<AccountLog> {
    let mut entries = entries.into_iter();
    let first = entries.next()?;
    let id = genesis_of(&first)?.id();
    let mut log = AccountLog::open(id, first).ok()?;
    for entry in entries {
        if let Err(error) = log.accept(entry) {
            log::debug!("an entry of a log was left out: {error}");
        }
    }
    Some(log)
}

/// The one device that a person means by its name, or by its fingerprint or the beginning of that.
fn chosen(
    which: &str,
    devices: impl Iterator<Item = (DeviceKey, DeviceName)>,
    that: &str,
) -> Result<(DeviceKey, DeviceName), CommandError> {
    let mut meant = devices.filter(|(key, name)| means(which, key, name));
    match (meant.next(), meant.next()) {
        (Some(device), None) => Ok(device),
        (Some(_), Some(_)) => Err(invalid(
            "several devices are meant by that; give more of the fingerprint",
        )),
        (None, _) => Err(CommandError::Invalid(format!(
            "no device of this account that {that} has this name, or a fingerprint that begins so"
        ))),
    }
}

/// Tells whether a person means a device by its name, or by its fingerprint or the beginning of that.
fn means(which: &str, key: &DeviceKey, name: &DeviceName) -> bool {
    let beginning = which.strip_prefix(FINGERPRINT_PREFIX).unwrap_or(which);
    let fingerprint = key.fingerprint().to_string();
    let fingerprint = fingerprint.trim_start_matches(FINGERPRINT_PREFIX);
    let begins = beginning.len() >= FINGERPRINT_LEN_MIN && fingerprint.starts_with(beginning);
    name.as_str() == which || begins
}

/// So much of a fingerprint, at least, tells a device from others.
const FINGERPRINT_LEN_MIN: usize = 6;
const FINGERPRINT_PREFIX: &str = "SHA256:";

fn invalid(why: &str) -> CommandError {
    CommandError::Invalid(why.to_owned())
}

fn other_account() -> CommandError {
    invalid(
        "THE SERVER HAS ANOTHER ACCOUNT OF THIS NAME than the one that this device belongs to: it was removed and made anew, or somebody is deceiving you. Ask the operator; the new one needs another profile (--profile NAME)",
    )
}

fn no_clock() -> CommandError {
    invalid("this device's clock is far off; set it right")
}

fn refused(error: &LogError) -> CommandError {
    CommandError::Invalid(error.to_string())
}

#[cfg(test)]
mod tests;
