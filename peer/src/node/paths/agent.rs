//! Decides which endpoints of other devices to dial: checks, proofs and budgets.
//!
//! A device may announce any endpoint, and a malicious one announces those of a third party, to have it
//! flooded. So an endpoint has to be *proven* to be the device's before much is sent to it:
//!
//! - A *check* is a STUN Binding request of 56 bytes. It proves an endpoint if the right answer comes from
//!   there: with the check's transaction and that device's tag, so that a STUN server or another peer
//!   proves nothing ([`stun::is_check_answer`]). An established link is a proof, too. A proof is valid
//!   until a dial fails, and for a new dial at most [`PROOF_LIFETIME`].
//! - Checks are sent in *rounds*, one to each unproven endpoint, [`CHECK_INTERVAL`] apart. The back-off
//!   between two rounds of a device doubles each time. Only a link resets it, or a time twice as long in
//!   which the device was not dialled. A new endpoint in an announcement is checked at once.
//! - A proven endpoint is *dialled* with QUIC. A server-reflexive one is dialled without a proof, which
//!   saves a round trip: the server has seen the device at that address.
//! - Everything sent to unproven endpoints, checks and dials alike, is spent from the [`Budget`] of the
//!   device and from that of its account. Once either is used up, nothing more is sent to them in that
//!   minute. Dials leave a reserve for checks, so a device that becomes reachable is still found, a little
//!   later.
//!
//! ```text
//!            check answered                    dial answered
//!   unproven ---------------> proven, dialled ---------------> link
//!       |   <---------------                     dial failed: unproven, checked in the next round
//!       | server-reflexive, and the budget has room
//!       +-------------------> dialled within the budget: proven, or given up after four datagrams
//! ```
//!
//! The agent owns candidates, proofs, back-offs and budgets of devices that are or were dialled. Which
//! devices to dial, and the links themselves, belong to [`Links`](crate::node::links). A device is
//! remembered after its dial has ended, so that no new announcement, look-up or session gives it a new
//! budget.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use common::id::AccountName;
use common::key::DeviceKey;
use common::limits::{
    BUDGET_EVICT_AFTER, CHECK_BACKOFF_FIRST, CHECK_BACKOFF_MAX, CHECK_INTERVAL, CHECK_LEN,
    CHECKED_DEVICES_MAX, CHECKS_RESERVE_LEN, Occupancy, PROOF_LIFETIME, UNPROVEN_DIAL_LEN_MAX,
    UNPROVEN_DIALS_MAX,
};
use common::stun;
use common::wire::rendezvous::{Candidate, CandidateKind};
use rand::RngExt;
use rand::rngs::StdRng;

use super::budget::Budget;
use crate::node::Transmit;

/// Interval between two dials to one device: long enough for a nearby endpoint to answer first.
const DIAL_PACE: Duration = Duration::from_millis(150);

/// Checks endpoints of other devices and decides which to dial.
#[derive(Debug)]
pub(in crate::node) struct Agent {
    rng: StdRng,
    devices: BTreeMap<DeviceKey, Device>,
    /// Devices that are being dialled.
    dialled: BTreeSet<DeviceKey>,
    /// The budgets of the remembered devices' accounts.
    accounts: BTreeMap<AccountName, Budget>,
    checks: VecDeque<(SocketAddr, Vec<u8>)>,
    dials: VecDeque<(DeviceKey, SocketAddr)>,
}

/// What the endpoints of a device are checked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::node) enum Aim {
    /// This device dials them.
    Dial,
    /// The other one dials, and the checks open this device's NAT to it.
    LetIn,
}

/// A device that is or was dialled.
#[derive(Debug)]
struct Device {
    account: AccountName,
    aim: Aim,
    budget: Budget,
    targets: Vec<Target>,
    /// Back-off between the next round of checks and the one after it.
    pause: Duration,
    next_round: Instant,
    next_check: Instant,
    next_dial: Instant,
}

/// An endpoint of a device.
#[derive(Debug)]
struct Target {
    endpoint: SocketAddr,
    kind: CandidateKind,
    /// Transaction of its checks, replaced once one is answered.
    transaction: u128,
    /// Still to be checked in the current round.
    is_due: bool,
    /// When it was last proven; `None` while it is unproven.
    proven: Option<Instant>,
    dial: DialState,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum DialState {
    /// Must not be dialled before it is proven.
    Closed,
    /// To be dialled as soon as [`DIAL_PACE`] allows.
    Open,
    /// Being dialled; counts the bytes sent while it was unproven.
    Trying { unproven_len: usize },
    /// The dial failed: nobody answered, or not the device.
    Failed,
}

impl Agent {
    /// Creates an agent without any device.
    pub(in crate::node) const fn new(rng: StdRng) -> Self {
        Self {
            rng,
            devices: BTreeMap::new(),
            dialled: BTreeSet::new(),
            accounts: BTreeMap::new(),
            checks: VecDeque::new(),
            dials: VecDeque::new(),
        }
    }

    /// Occupancy of the remembered devices.
    pub(in crate::node) fn occupancy(&self) -> Occupancy {
        Occupancy::new("checked devices", self.devices.len(), CHECKED_DEVICES_MAX)
    }

    /// Starts to dial a device of `account` at these candidates, at most
    /// [`CANDIDATES_MAX`](common::limits::CANDIDATES_MAX), or only to check them, or replaces the candidates of one
    /// that is being dialled. Returns `false` if too many devices were dialled lately.
    pub(in crate::node) fn begin(
        &mut self,
        device_key: DeviceKey,
        account: &AccountName,
        candidates: &[Candidate],
        aim: Aim,
        now: Instant,
    ) -> bool {
        if !self.devices.contains_key(&device_key) && !self.has_room(now) {
            return false;
        }
        let device = self
            .devices
            .entry(device_key)
            .or_insert_with(|| Device::new(account.clone(), now));
        if self.dialled.insert(device_key) {
            device.start(now);
        }
        device.aim = aim;
        device.set_candidates(candidates, &mut self.rng);
        self.advance(device_key, now);
        true
    }

    /// There is a sign that a device is there: its checks do not wait for their back-off. The budget bounds them
    /// all the same.
    pub(in crate::node) fn check_again(&mut self, device_key: DeviceKey, now: Instant) {
        if let Some(device) = self.devices.get_mut(&device_key) {
            device.next_round = device.next_round.min(now);
            device.pause = CHECK_BACKOFF_FIRST;
        }
    }

    /// Ends the dial of a device, whether it succeeded or not.
    pub(in crate::node) fn end(&mut self, device_key: DeviceKey) {
        self.dialled.remove(&device_key);
    }

    /// A link to a device at `endpoint` was established, which proves the endpoint.
    pub(in crate::node) fn on_linked(
        &mut self,
        device_key: DeviceKey,
        endpoint: SocketAddr,
        now: Instant,
    ) {
        let Some(device) = self.devices.get_mut(&device_key) else {
            return;
        };
        device.pause = CHECK_BACKOFF_FIRST;
        if let Some(target) = device.target_mut(endpoint) {
            target.proven = Some(now);
        }
        self.advance(device_key, now);
    }

    /// A dial failed, which voids the endpoint's proof.
    pub(in crate::node) fn on_dial_failed(
        &mut self,
        device_key: DeviceKey,
        endpoint: SocketAddr,
        now: Instant,
    ) {
        let Some(device) = self.devices.get_mut(&device_key) else {
            return;
        };
        if let Some(target) = device.target_mut(endpoint) {
            target.proven = None;
            if target.is_being_dialled() {
                target.dial = DialState::Failed;
            }
        }
        self.advance(device_key, now);
    }

    /// Handles a STUN datagram. One that does not answer a check of a device being dialled is ignored.
    pub(in crate::node) fn handle_stun(
        &mut self,
        source: SocketAddr,
        datagram: &[u8],
        now: Instant,
    ) {
        let source = stun::canonical(source);
        let devices = &self.devices;
        let mut dialled = self.dialled.iter();
        let answerer = dialled.find(|device_key| {
            let target = devices
                .get(device_key)
                .and_then(|device| device.target(source));
            target.is_some_and(|target| target.is_answered_by(datagram, device_key))
        });
        let Some(device_key) = answerer.copied() else {
            return;
        };
        let device = self.devices.get_mut(&device_key);
        if let Some(target) = device.and_then(|device| device.target_mut(source)) {
            target.on_answered(new_transaction(&mut self.rng), now);
        }
        self.advance(device_key, now);
    }

    /// Spends the budget for `len` bytes of a dial. If it returns `false`, they must not be sent, and the
    /// dial is over.
    pub(in crate::node) fn pay(
        &mut self,
        device_key: DeviceKey,
        endpoint: SocketAddr,
        len: usize,
        now: Instant,
    ) -> bool {
        let Some(device) = self.devices.get_mut(&device_key) else {
            return false;
        };
        device.pay(
            endpoint,
            len,
            account_of(&mut self.accounts, device, now),
            now,
        )
    }

    /// Tells whether `endpoint` is proven to be the device's.
    pub(in crate::node) fn is_proven(&self, device_key: DeviceKey, endpoint: SocketAddr) -> bool {
        let device = self.devices.get(&device_key);
        let target = device.and_then(|device| device.target(endpoint));
        target.is_some_and(|target| target.proven.is_some())
    }

    /// Tells whether the dials to all endpoints of a device have failed, or it has none.
    pub(in crate::node) fn is_hopeless(&self, device_key: DeviceKey) -> bool {
        let device = self.devices.get(&device_key);
        device.is_none_or(|device| {
            let mut targets = device.targets.iter();
            targets.all(|target| target.dial == DialState::Failed)
        })
    }

    /// Sends the checks and starts the dials that are due.
    pub(in crate::node) fn handle_timeout(&mut self, now: Instant) {
        let due = self.deadlines().filter(|(_, due)| *due <= now);
        let due: Vec<DeviceKey> = due.map(|(device_key, _)| device_key).collect();
        for device_key in due {
            self.advance(device_key, now);
        }
    }

    /// When [`Agent::handle_timeout`] is due, if ever.
    pub(in crate::node) fn poll_timeout(&self) -> Option<Instant> {
        self.deadlines().map(|(_, due)| due).min()
    }

    /// The next deadline of each device that is being dialled.
    fn deadlines(&self) -> impl Iterator<Item = (DeviceKey, Instant)> {
        let dialled = self.dialled.iter();
        dialled.filter_map(|device_key| Some((*device_key, self.devices.get(device_key)?.due())))
    }

    /// The next endpoint to dial.
    pub(in crate::node) fn poll_dial(&mut self) -> Option<(DeviceKey, SocketAddr)> {
        self.dials.pop_front()
    }

    /// Appends the next check to send to `buffer`.
    pub(in crate::node) fn poll_transmit(&mut self, buffer: &mut Vec<u8>) -> Option<Transmit> {
        let (endpoint, check) = self.checks.pop_front()?;
        buffer.extend_from_slice(&check);
        Some(Transmit::single(endpoint, check.len()))
    }

    /// Sends the checks and starts the dials that are due for one device.
    fn advance(&mut self, device_key: DeviceKey, now: Instant) {
        if !self.dialled.contains(&device_key) {
            return;
        }
        let Some(device) = self.devices.get_mut(&device_key) else {
            return;
        };
        let account = account_of(&mut self.accounts, device, now);
        while let Some((endpoint, transaction)) = device.take_check(account, now) {
            let check = stun::binding_request(transaction);
            self.checks.push_back((endpoint, check));
        }
        while let Some(endpoint) = device.take_dial(account, now) {
            self.dials.push_back((device_key, endpoint));
        }
    }

    /// Tells whether another device can be remembered. Evicts the one whose budget has been unused for the
    /// longest time, if that is at least [`BUDGET_EVICT_AFTER`].
    fn has_room(&mut self, now: Instant) -> bool {
        if self.devices.len() < CHECKED_DEVICES_MAX {
            return true;
        }
        let devices = self.devices.iter();
        let idle = devices.filter(|(device_key, _)| !self.dialled.contains(device_key));
        let quiet = idle.map(|(device_key, device)| (device.budget.last_spent(), *device_key));
        let Some((last_spent, device_key)) = quiet.min() else {
            return false;
        };
        let is_quiet = now >= last_spent + BUDGET_EVICT_AFTER;
        if is_quiet {
            self.forget(device_key);
        }
        is_quiet
    }

    /// Forgets a device, and its account's budget with the account's last device.
    fn forget(&mut self, device_key: DeviceKey) {
        let Some(device) = self.devices.remove(&device_key) else {
            return;
        };
        let mut others = self.devices.values();
        if others.all(|other| other.account != device.account) {
            self.accounts.remove(&device.account);
        }
    }
}

/// The budget of a device's account.
fn account_of<'a>(
    accounts: &'a mut BTreeMap<AccountName, Budget>,
    device: &Device,
    now: Instant,
) -> &'a mut Budget {
    accounts
        .entry(device.account.clone())
        .or_insert_with(|| Budget::of_account(now))
}

impl Device {
    const fn new(account: AccountName, now: Instant) -> Self {
        Self {
            account,
            aim: Aim::Dial,
            budget: Budget::of_device(now),
            targets: Vec::new(),
            pause: CHECK_BACKOFF_FIRST,
            next_round: now,
            next_check: now,
            next_dial: now,
        }
    }

    /// Starts a dial. Proofs of earlier dials that have not expired remain valid.
    fn start(&mut self, now: Instant) {
        if now >= self.next_round + self.pause {
            self.pause = CHECK_BACKOFF_FIRST;
        }
        for target in &mut self.targets {
            let is_old = |proven: &mut Instant| now >= *proven + PROOF_LIFETIME;
            target.proven.take_if(is_old);
            target.is_due = false;
            target.dial = target.before_dial();
        }
    }

    fn set_candidates(&mut self, candidates: &[Candidate], rng: &mut StdRng) {
        let mut before = std::mem::take(&mut self.targets);
        for Candidate { endpoint, kind } in candidates.iter().copied() {
            if self.target(endpoint).is_some() {
                continue;
            }
            let known = before.iter().position(|target| target.endpoint == endpoint);
            let target = match known {
                Some(known) => before.swap_remove(known).with_kind(kind),
                None => Target::new(endpoint, kind, new_transaction(rng)),
            };
            self.targets.push(target);
        }
    }

    fn target(&self, endpoint: SocketAddr) -> Option<&Target> {
        let mut targets = self.targets.iter();
        targets.find(|target| target.endpoint == endpoint)
    }

    fn target_mut(&mut self, endpoint: SocketAddr) -> Option<&mut Target> {
        let mut targets = self.targets.iter_mut();
        targets.find(|target| target.endpoint == endpoint)
    }

    fn begin_round(&mut self, now: Instant) {
        if now < self.next_round {
            return;
        }
        let mut len = Duration::ZERO;
        for target in &mut self.targets {
            target.is_due = target.proven.is_none();
            len += CHECK_INTERVAL * u32::from(target.is_due);
        }
        self.next_round = now + len + self.pause;
        self.pause = (self.pause * 2).min(CHECK_BACKOFF_MAX);
    }

    /// Tells whether the current round has checks left to send.
    fn has_check(&self) -> bool {
        self.targets.iter().any(|target| target.is_due)
    }

    /// The next check that is due. A used-up budget ends the round.
    fn take_check(&mut self, account: &mut Budget, now: Instant) -> Option<(SocketAddr, u128)> {
        self.begin_round(now);
        if now < self.next_check {
            return None;
        }
        let due = self.targets.iter_mut().filter(|target| target.is_due);
        // Targets that cannot be dialled without a proof come first, as the others are dialled already; or those
        // behind a NAT.
        let target = due.min_by_key(|target| match self.aim {
            Aim::Dial => target.dial != DialState::Closed,
            Aim::LetIn => target.kind != CandidateKind::ServerReflexive,
        })?;
        if pays(&mut self.budget, account, CHECK_LEN, 0, now) {
            self.next_check = now + CHECK_INTERVAL;
            target.is_due = false;
            return Some((target.endpoint, target.transaction));
        }
        for target in &mut self.targets {
            target.is_due = false;
        }
        let budgets = [&mut self.budget, account].into_iter();
        let used_up = budgets.filter_map(|budget| {
            let is_used_up = !budget.covers(CHECK_LEN, now);
            is_used_up.then(|| budget.next_minute())
        });
        self.next_round = used_up.fold(self.next_round, Instant::max);
        None
    }

    /// The next endpoint whose dial is due.
    fn take_dial(&mut self, account: &mut Budget, now: Instant) -> Option<SocketAddr> {
        loop {
            let number = self.next_open()?;
            if now < self.next_dial && !self.is_first_proof(number) {
                return None;
            }
            let target = &mut self.targets[number];
            // Room for a whole first flight, so that the dial is not cut off before an answer is possible.
            let len = UNPROVEN_DIAL_LEN_MAX / 2 + CHECKS_RESERVE_LEN;
            let is_covered = self.budget.covers(len, now) && account.covers(len, now);
            if target.proven.is_none() && !is_covered {
                target.dial = DialState::Closed;
                continue;
            }
            target.dial = DialState::Trying { unproven_len: 0 };
            self.next_dial = now + DIAL_PACE;
            return Some(target.endpoint);
        }
    }

    /// Index of the target to dial next, regardless of the pace: proven ones first.
    fn next_open(&self) -> Option<usize> {
        if self.aim == Aim::LetIn {
            return None;
        }
        let unproven_dials = self.dials(|target| target.proven.is_none());
        let open = self.targets.iter().enumerate().filter(|(_, target)| {
            let may_try = target.proven.is_some() || unproven_dials < UNPROVEN_DIALS_MAX;
            target.dial == DialState::Open && may_try
        });
        let next = open.min_by_key(|(number, target)| (target.proven.is_none(), *number));
        next.map(|(number, _)| number)
    }

    /// Tells whether a target is proven while no other proven one is being dialled. It does not wait for
    /// the pace of dials to unproven endpoints.
    fn is_first_proof(&self, number: usize) -> bool {
        let is_proven = |target: &Target| target.proven.is_some();
        is_proven(&self.targets[number]) && self.dials(is_proven) == 0
    }

    /// Number of targets of a kind that are being dialled.
    fn dials(&self, is_of_kind: impl Fn(&Target) -> bool) -> usize {
        let dialled = self
            .targets
            .iter()
            .filter(|target| target.is_being_dialled());
        dialled.filter(|target| is_of_kind(target)).count()
    }

    fn pay(
        &mut self,
        endpoint: SocketAddr,
        len: usize,
        account: &mut Budget,
        now: Instant,
    ) -> bool {
        let mut targets = self.targets.iter_mut();
        let Some(target) = targets.find(|target| target.endpoint == endpoint) else {
            // The endpoint is no longer announced.
            return false;
        };
        if target.proven.is_some() {
            return true;
        }
        let DialState::Trying { unproven_len } = &mut target.dial else {
            return false;
        };
        *unproven_len += len;
        let is_paid = *unproven_len <= UNPROVEN_DIAL_LEN_MAX
            && pays(&mut self.budget, account, len, CHECKS_RESERVE_LEN, now);
        if !is_paid {
            target.dial = DialState::Closed;
        }
        is_paid
    }

    /// The next deadline, while the device is being dialled.
    fn due(&self) -> Instant {
        let check = if self.has_check() {
            self.next_check
        } else {
            self.next_round
        };
        let dial = self.next_open().map(|_| self.next_dial);
        dial.map_or(check, |dial| dial.min(check))
    }
}

impl Target {
    fn new(endpoint: SocketAddr, kind: CandidateKind, transaction: u128) -> Self {
        let mut target = Self {
            endpoint,
            kind,
            transaction,
            is_due: true,
            proven: None,
            dial: DialState::Closed,
        };
        target.dial = target.before_dial();
        target
    }

    const fn is_being_dialled(&self) -> bool {
        matches!(self.dial, DialState::Trying { .. })
    }

    /// Updates the kind, which changes when the device's control connection comes from another address.
    fn with_kind(mut self, kind: CandidateKind) -> Self {
        let is_news = self.kind != kind;
        self.kind = kind;
        if is_news && matches!(self.dial, DialState::Closed | DialState::Open) {
            self.dial = self.before_dial();
        }
        self
    }

    fn before_dial(&self) -> DialState {
        match self.kind {
            CandidateKind::ServerReflexive => DialState::Open,
            CandidateKind::Host if self.proven.is_some() => DialState::Open,
            CandidateKind::Host => DialState::Closed,
        }
    }

    fn is_answered_by(&self, datagram: &[u8], device_key: &DeviceKey) -> bool {
        stun::is_check_answer(datagram, self.transaction, device_key)
    }

    fn on_answered(&mut self, next_transaction: u128, now: Instant) {
        self.transaction = next_transaction;
        self.proven = Some(now);
        self.is_due = false;
        if matches!(self.dial, DialState::Closed | DialState::Failed) {
            self.dial = DialState::Open;
        }
    }
}

/// Spends `len` bytes from both budgets if each keeps at least `reserve`; returns whether it did.
fn pays(
    device: &mut Budget,
    account: &mut Budget,
    len: usize,
    reserve: usize,
    now: Instant,
) -> bool {
    let is_covered = device.covers(len + reserve, now) && account.covers(len + reserve, now);
    if is_covered {
        device.take(len, now);
        account.take(len, now);
    }
    is_covered
}

/// A STUN transaction has 96 bits (RFC 8489 section 5).
fn new_transaction(rng: &mut StdRng) -> u128 {
    rng.random::<u128>() >> 32
}

#[cfg(test)]
mod tests;
