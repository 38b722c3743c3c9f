//! Which devices are let in.
//!
//! A link's device is let in once the log of the account that it is said to be of has approved it. What is known of the
//! log is enough to let it in; nobody is turned away before the server was asked for what is new. An account that has
//! no log has no identity: its devices are those that the server names, as at any first contact, and once there is a
//! log only those that it names. Without a server the logs that are known decide.
//!
//! A device that its own account has not approved turns everybody away, as everybody does it.

use std::collections::BTreeMap;
use std::time::Instant;

use common::account::State;
use common::id::AccountName;
use common::key::DeviceKey;
use common::limits::{LOG_FRESH, LOGS_READ_MAX, TOLD_DEVICES_MAX};

use super::{Identities, Wish};
use crate::node::command::{Approval, Command, CommandError, CommandId, Event, KeyState};
use crate::node::context::Context;
use crate::node::links::{Claim, Links, Source, TurnedAway};

/// What is known of a device that is said to be of an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// The account has approved it.
    Approved,
    /// It has not, or has revoked it.
    NotApproved,
    /// This device itself is not approved by its account.
    SelfNotApproved,
    /// The account has no log, as far as is known.
    WithoutLog,
}

impl Identities {
    /// A device is introduced, and a link to it about to be: reads the log of its account beside.
    pub(in crate::node) fn on_introduced(&mut self, account: &AccountName, cx: &mut Context<'_>) {
        if !self.is_fresh(account, cx.now) {
            self.read(account.clone(), None, cx);
        }
    }

    /// The device of a link is said to be of an account: lets it in or turns it away, if need be once the account's
    /// log has been read.
    pub(in crate::node) fn on_claim(
        &mut self,
        claim: Claim,
        own: Option<&AccountName>,
        cx: &mut Context<'_>,
    ) {
        let Claim {
            device_key,
            account,
            source,
        } = claim;
        let standing = self.standing(&account, &device_key, own);
        let is_certain = match source {
            Source::Server => standing == Standing::Approved || self.is_fresh(&account, cx.now),
            Source::Pin => true,
        };
        if is_certain {
            return self.decide(&account, device_key, standing, own, cx);
        }
        self.read(account.clone(), None, cx);
        if let Some(reading) = self.reading.get_mut(&account) {
            reading.claims.insert(device_key);
        }
    }

    /// The server says that a device is an account's no more: the account may have revoked it.
    pub(in crate::node) fn on_unenrolled(&mut self, account: &AccountName, cx: &mut Context<'_>) {
        if self.known.contains_key(account) {
            self.read(account.clone(), None, cx);
        }
    }

    /// Tells whether an account's log has approved a device.
    pub(in crate::node) fn approves(&self, account: &AccountName, device_key: &DeviceKey) -> bool {
        let known = self.known.get(account);
        known.is_some_and(|known| known.log.standing().is_approved(device_key))
    }

    /// Tells whether this device's account has a log that does not approve this device.
    pub(in crate::node) fn is_unapproved(&self, own: &AccountName) -> bool {
        let own_key = self.secret.public();
        self.known.contains_key(own) && !self.approves(own, &own_key)
    }

    /// A person asks something of a device that is not approved: it is asked again once the account's log has been
    /// read, since somebody may have approved the device meanwhile, and fails if that has just been done.
    pub(in crate::node) fn hold(
        &mut self,
        id: CommandId,
        command: Command,
        own: &AccountName,
        cx: &mut Context<'_>,
    ) {
        if !self.is_fresh(own, cx.now) {
            return self.ask_again(id, own.clone(), command, cx);
        }
        let fingerprint = self.secret.public().fingerprint().to_string();
        let error = match self.approval(own) {
            Some(Approval::Revoked) => CommandError::Revoked,
            Some(Approval::Waiting | Approval::Approved) | None => {
                CommandError::NotApproved { fingerprint }
            }
        };
        cx.reply(id, Err(error));
    }

    /// A person says whether they have compared the safety number of an account. If that is another one than before,
    /// what waits for the former one, `waiting` messages, must not go to it unseen.
    pub(in crate::node) fn on_verify(
        &mut self,
        id: CommandId,
        (account, is_verified): (AccountName, bool),
        waiting: usize,
        own: Option<&AccountName>,
        cx: &mut Context<'_>,
    ) {
        if !self.is_fresh(&account, cx.now) {
            let command = Command::Verify {
                account: account.clone(),
                is_verified,
            };
            return self.ask_again(id, account, command, cx);
        }
        let is_other = self.is_other(&account);
        let done = if is_verified && is_other && waiting > 0 {
            let wait = match waiting {
                1 => "1 message waits that was".to_owned(),
                count => format!("{count} messages wait that were"),
            };
            Err(CommandError::Invalid(format!(
                "{wait} written to the former {account}, and would go to the new one; take that back first: 'peer outbox cancel {account}'"
            )))
        } else {
            self.verify(&account, is_verified, own, cx)
        };
        cx.reply(id, done);
    }

    /// Tells whether it is known who an account is, or whether its log has just been looked for in vain.
    pub(in crate::node) fn is_known(&self, account: &AccountName, now: Instant) -> bool {
        self.known.contains_key(account) || self.is_fresh(account, now)
    }

    /// Has a command asked again once the log of an account has been read.
    pub(in crate::node) fn ask_again(
        &mut self,
        id: CommandId,
        account: AccountName,
        command: Command,
        cx: &mut Context<'_>,
    ) {
        self.want(id, account, Wish::Ask(Box::new(command)), cx);
    }

    /// What this device's account says of this device; `None` if nothing is known of the account.
    pub(in crate::node) fn approval(&self, own: &AccountName) -> Option<Approval> {
        let own_key = self.secret.public();
        let standing = self.known.get(own)?.log.standing();
        if standing.is_approved(&own_key) {
            return Some(Approval::Approved);
        }
        let is_known = standing.devices().any(|(key, _)| *key == own_key);
        Some(if is_known {
            Approval::Revoked
        } else {
            Approval::Waiting
        })
    }

    /// The next command that is to be asked again.
    pub(in crate::node) fn poll_held(&mut self) -> Option<(CommandId, Command)> {
        self.held.pop_front()
    }

    /// What people are told of the key of a device that is said to be an account's.
    pub(in crate::node) fn key_state(
        &self,
        account: &AccountName,
        device_key: &DeviceKey,
        links: &Links,
    ) -> KeyState {
        let known = self.known.get(account);
        match known {
            None => links.key_state(device_key, account),
            Some(_) if self.approves(account, device_key) => KeyState::Known,
            Some(known) if known.other.is_some() => KeyState::OtherIdentity,
            Some(_) => KeyState::NotApproved,
        }
    }

    /// Tells whether a person has compared the safety number with an account.
    pub(in crate::node) fn is_verified(&self, account: &AccountName) -> bool {
        let known = self.known.get(account);
        known.is_some_and(|known| known.is_verified)
    }

    /// The log of an account has been read: decides about the links that wait for it, and about those that are.
    pub(super) fn on_read(
        &mut self,
        account: &AccountName,
        own: Option<&AccountName>,
        cx: &mut Context<'_>,
    ) {
        if self.read.len() >= LOGS_READ_MAX {
            let earliest = self.read.iter().min_by_key(|(_, at)| **at);
            if let Some(earliest) = earliest.map(|(account, _)| account.clone()) {
                self.read.remove(&earliest);
            }
        }
        self.read.insert(account.clone(), cx.now);
        self.enforce(account, own, cx);
        let reading = self.reading.get_mut(account);
        let claims = reading.map(|reading| std::mem::take(&mut reading.claims));
        for device_key in claims.into_iter().flatten() {
            let standing = self.standing(account, &device_key, own);
            self.decide(account, device_key, standing, own, cx);
        }
    }

    /// The log could not be read: what is known decides, and where nothing is, the pinned key.
    pub(super) fn decide_unread(
        &mut self,
        account: &AccountName,
        device_key: DeviceKey,
        own: Option<&AccountName>,
        cx: &mut Context<'_>,
    ) {
        match self.standing(account, &device_key, own) {
            Standing::WithoutLog => cx.links.on_owner_unknown(device_key, cx.now),
            standing @ (Standing::Approved | Standing::NotApproved | Standing::SelfNotApproved) => {
                self.decide(account, device_key, standing, own, cx)
            }
        }
    }

    /// Closes the links of an account's devices that it has not approved, or all if this device is the one.
    pub(super) fn enforce(
        &mut self,
        account: &AccountName,
        own: Option<&AccountName>,
        cx: &mut Context<'_>,
    ) {
        if own == Some(account) {
            self.tell_own(account, cx);
        }
        let accounts = match own {
            Some(own) if own == account && self.is_unapproved(own) => cx.links.linked_accounts(),
            Some(_) | None => [account.clone()].into(),
        };
        for account in accounts {
            for device_key in cx.links.devices_of(&account) {
                let standing = self.standing(&account, &device_key, own);
                if standing != Standing::WithoutLog {
                    self.decide(&account, device_key, standing, own, cx);
                }
            }
        }
    }

    /// Tells people what is new about their own account: whether this device is approved, and which others were.
    fn tell_own(&mut self, own: &AccountName, cx: &mut Context<'_>) {
        let approval = self.approval(own);
        let before = std::mem::replace(&mut self.own_approval, approval);
        let is_news = before.is_some() || approval != Some(Approval::Approved);
        if let Some(approval) = approval.filter(|_| before != approval && is_news) {
            let fingerprint = self.secret.public().fingerprint().to_string();
            cx.event(Event::Approval {
                approval,
                fingerprint,
            });
        }
        let Some(known) = self.known.get(own) else {
            return;
        };
        let own_key = self.secret.public();
        let recovery = known.log.genesis().recovery;
        let standing = known.log.standing();
        let approved = standing
            .devices()
            .filter(|(_, device)| device.state == State::Approved);
        let approved: BTreeMap<DeviceKey, DeviceKey> = approved
            .map(|(key, device)| (*key, device.approved_by))
            .collect();
        let before = self.own_devices.replace(approved.keys().copied().collect());
        let Some(before) = before else { return };
        for (key, by) in approved {
            let is_new = !before.contains(&key) && key != own_key && by != own_key;
            if is_new {
                let device = standing.devices().find(|(of, _)| **of == key);
                cx.event(Event::DeviceApproved {
                    device: device.and_then(|(_, device)| device.name.clone()),
                    fingerprint: key.fingerprint().to_string(),
                    by_recovery: by == recovery,
                });
            }
        }
    }

    /// Notes what is known of this device's account before its log is read.
    pub(super) fn note_own(&mut self, own: &AccountName) {
        if let (None, Some(known)) = (&self.own_devices, self.known.get(own)) {
            let devices = known.log.standing().devices();
            let approved = devices.filter(|(_, device)| device.state == State::Approved);
            self.own_devices = Some(approved.map(|(key, _)| *key).collect());
        }
    }

    fn standing(
        &self,
        account: &AccountName,
        device_key: &DeviceKey,
        own: Option<&AccountName>,
    ) -> Standing {
        if own.is_some_and(|own| self.is_unapproved(own)) {
            Standing::SelfNotApproved
        } else if !self.known.contains_key(account) {
            Standing::WithoutLog
        } else if self.approves(account, device_key) {
            Standing::Approved
        } else {
            Standing::NotApproved
        }
    }

    fn decide(
        &mut self,
        account: &AccountName,
        device_key: DeviceKey,
        standing: Standing,
        own: Option<&AccountName>,
        cx: &mut Context<'_>,
    ) {
        match standing {
            Standing::Approved | Standing::WithoutLog => {
                cx.links.admit(device_key, account, cx.now);
            }
            Standing::SelfNotApproved => {
                let why = TurnedAway::SelfNotApproved;
                cx.links.turn_away(device_key, account, why, cx.now);
            }
            // People are told that it is another account, which says more.
            Standing::NotApproved if self.is_other(account) => {
                let why = TurnedAway::OtherAccount;
                cx.links.turn_away(device_key, account, why, cx.now);
            }
            Standing::NotApproved => {
                let why = TurnedAway::NotApproved;
                cx.links.turn_away(device_key, account, why, cx.now);
                // Of devices of one's own account that wait for approval people are told when they are enrolled.
                if own != Some(account) && self.is_untold(device_key) {
                    cx.event(Event::NotApproved {
                        account: account.clone(),
                        fingerprint: device_key.fingerprint().to_string(),
                    });
                }
            }
        }
    }

    /// Tells whether people were not told of a device yet, as far as is remembered.
    fn is_untold(&mut self, device_key: DeviceKey) -> bool {
        self.told.len() < TOLD_DEVICES_MAX && self.told.insert(device_key)
    }

    /// Tells whether a log was read so lately that it need not be read again.
    fn is_fresh(&self, account: &AccountName, now: Instant) -> bool {
        let read = self.read.get(account);
        read.is_some_and(|at| now < *at + LOG_FRESH)
    }
}
