//! The devices that are logged in, and what each asks for itself and its account: `Request::Device`.
//!
//! `Devices` owns who is logged in on which connection, which owners are to be told of failed log-ins
//! and when, and the requests about devices that wait for the store. One device is logged in once.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use common::id::AccountName;
use common::key::DeviceKey;
use common::wire::rendezvous::{
    DeviceAnswer, DevicePush, DeviceRequest, Enrolment, FailedLogins, Refusal,
};

use super::context::{Context, Part, ReplyTo};
use super::io::{ConnectionId, Deadline, Ticket};
use super::member::Member;
use crate::store::{
    Admission, AdmissionsAnswer, AdmissionsRequest, DevicesAnswer, DevicesRequest, StoreAnswer,
    StoreError,
};

/// The owner of an account is told of failed log-ins at most this often.
const NOTICE_INTERVAL: Duration = Duration::from_secs(1);

/// Everybody who is logged in.
#[derive(Debug, Default)]
pub(super) struct Devices {
    members: BTreeMap<ConnectionId, Member>,
    connections: BTreeMap<DeviceKey, ConnectionId>,
    accounts: BTreeSet<(AccountName, ConnectionId)>,
    waiting: BTreeMap<Ticket, Waiting>,
    /// Accounts whose owner is to be told something, and when each was last told.
    notices_due: BTreeMap<AccountName, Instant>,
    notices_sent: BTreeMap<AccountName, Instant>,
    events: VecDeque<Event>,
}

/// What the other parts have to do with.
#[derive(Debug)]
pub(super) enum Event {
    /// A one-time code is wanted; answered by [`Devices::on_admission_opened`].
    AdmissionWanted { to: ReplyTo, account: AccountName },
    /// The store could not keep this code.
    AdmissionLost(Admission),
    /// A device is forgotten and told so: its connection, if there still is one, is to be closed.
    LoggedOut(ConnectionId, DeviceKey),
    /// Somebody listens to be told of failed log-ins to this account; answered by [`Devices::on_told`].
    NoticeDue(AccountName),
}

/// What a request waits for.
#[derive(Debug)]
enum Waiting {
    /// The device is being forgotten, then its session ends.
    LogOut(ReplyTo, DeviceKey),
    /// A one-time code is being kept.
    Admit(ReplyTo, Admission),
    /// The device need not be told of an enrolment again.
    Note(ReplyTo),
}

impl Devices {
    /// Answers a request of somebody who is logged in, at once or when the store has.
    pub(super) fn on_request(
        &mut self,
        to: ReplyTo,
        request: DeviceRequest,
        context: &mut Context,
    ) {
        match request {
            DeviceRequest::Admit if context.is_busy() => context.refuse_busy(to),
            DeviceRequest::Admit => {
                let account = self.member(to.connection).account.clone();
                let wanted = Event::AdmissionWanted { to, account };
                self.events.push_back(wanted);
            }
            DeviceRequest::LogOut if context.is_busy() => context.refuse_busy(to),
            DeviceRequest::LogOut => {
                let Member { id, device_key, .. } = *self.member(to.connection);
                let request = DevicesRequest::Forget {
                    id,
                    device_key,
                    at: context.unix(),
                };
                let ticket = context.store(Part::Devices, request.into());
                self.waiting.insert(ticket, Waiting::LogOut(to, device_key));
            }
            DeviceRequest::KeepAlive => context.answer(to, DeviceAnswer::Done),
            DeviceRequest::Noted { .. } if context.is_busy() => context.refuse_busy(to),
            DeviceRequest::Noted {
                device_key: enrolled,
            } => {
                let Member { id, device_key, .. } = *self.member(to.connection);
                let request = DevicesRequest::Note {
                    id,
                    device_key,
                    enrolled,
                };
                let ticket = context.store(Part::Devices, request.into());
                self.waiting.insert(ticket, Waiting::Note(to));
            }
        }
    }

    /// A one-time code was opened, or the account has as many as it may have.
    pub(super) fn on_admission_opened(
        &mut self,
        to: ReplyTo,
        opened: Option<Admission>,
        context: &mut Context,
    ) {
        let Some(admission) = opened else {
            context.refuse(to, Refusal::LimitExceeded);
            return;
        };
        let request = AdmissionsRequest::Save {
            admission: admission.clone(),
            at: context.unix(),
        };
        let ticket = context.store(Part::Devices, request.into());
        self.waiting.insert(ticket, Waiting::Admit(to, admission));
    }

    /// The store has done what a request waits for.
    pub(super) fn on_stored(
        &mut self,
        ticket: Ticket,
        answer: Result<StoreAnswer, StoreError>,
        context: &mut Context,
    ) {
        let waiting = self.waiting.remove(&ticket);
        match waiting.expect("a ticket is for what waits for it") {
            Waiting::LogOut(to, device_key) => {
                let Ok(StoreAnswer::Devices(DevicesAnswer::Done)) = answer else {
                    context.refuse(to, Refusal::StoreFailed);
                    return;
                };
                context.answer(to, DeviceAnswer::Done);
                let logged_out = Event::LoggedOut(to.connection, device_key);
                self.events.push_back(logged_out);
            }
            Waiting::Admit(to, admission) => {
                let Ok(StoreAnswer::Admissions(AdmissionsAnswer::Done)) = answer else {
                    self.events.push_back(Event::AdmissionLost(admission));
                    context.refuse(to, Refusal::StoreFailed);
                    return;
                };
                let code = admission.code;
                let expires_in_s = Admission::LIFETIME_S;
                context.answer(to, DeviceAnswer::Admission { code, expires_in_s });
            }
            Waiting::Note(to) => match answer {
                Ok(StoreAnswer::Devices(DevicesAnswer::Done)) => {
                    context.answer(to, DeviceAnswer::Done);
                }
                Ok(_) | Err(_) => context.refuse(to, Refusal::StoreFailed),
            },
        }
    }

    /// A device has logged in. Its older session, if it has one, is over already.
    pub(super) fn on_logged_in(&mut self, connection: ConnectionId, member: Member) {
        self.connections.insert(member.device_key, connection);
        self.accounts.insert((member.account.clone(), connection));
        self.members.insert(connection, member);
    }

    /// A connection is gone; tells who was logged in on it.
    pub(super) fn on_disconnected(&mut self, connection: ConnectionId) -> Option<Member> {
        let member = self.members.remove(&connection)?;
        self.accounts.remove(&(member.account.clone(), connection));
        if self.connections.get(&member.device_key) == Some(&connection) {
            self.connections.remove(&member.device_key);
        }
        Some(member)
    }

    /// Somebody failed to log in to an account: its live sessions are told, at some moment within a second
    /// or two. Telling them takes a write, and whoever failed could measure one that came at once.
    pub(super) fn on_failed_login(&mut self, account: AccountName, context: &mut Context) {
        if self.connections_of(&account).next().is_none() || self.notices_due.contains_key(&account)
        {
            return;
        }
        let now = context.now;
        let last = self.notices_sent.get(&account);
        let soonest = last.map_or(now, |last| (*last + NOTICE_INTERVAL).max(now));
        let delay = context.random_part_of(NOTICE_INTERVAL);
        self.notices_due.insert(account, soonest + delay);
    }

    /// A device was enrolled: every other one that is there is told at once. Those that are not, and those
    /// that leave before they note it, are told when they log in.
    pub(super) fn on_enrolled(
        &self,
        account: AccountName,
        enrolment: Enrolment,
        context: &mut Context,
    ) {
        let sessions = self.connections_of(&account);
        let others = sessions.filter(|session| {
            let device_key = self.member(*session).device_key;
            device_key != enrolment.device_key
        });
        for connection in others {
            context.push(connection, DevicePush::Enrolled(enrolment.clone()));
        }
        log::debug!("told of a new device: account={account}");
    }

    /// What the owner of an account has not been told, for all of its sessions.
    pub(super) fn on_told(
        &mut self,
        account: AccountName,
        failed: &FailedLogins,
        context: &mut Context,
    ) {
        for connection in self.connections_of(&account) {
            context.push(connection, DevicePush::FailedLogins(failed.clone()));
        }
        self.notices_sent.insert(account, context.now);
    }

    /// Owners are told what is due.
    pub(super) fn handle_timeout(&mut self, now: Instant) {
        self.notices_sent
            .retain(|_, last| now.saturating_duration_since(*last) < NOTICE_INTERVAL);
        let due = self.notices_due.iter().filter(|(_, due)| **due <= now);
        let due: Vec<AccountName> = due.map(|(account, _)| account.clone()).collect();
        for account in due {
            self.notices_due.remove(&account);
            if self.connections_of(&account).next().is_some() {
                self.events.push_back(Event::NoticeDue(account));
            }
        }
    }

    pub(super) fn poll_timeout(&self) -> Option<Deadline> {
        let at = *self.notices_due.values().min()?;
        let why = "telling an owner";
        Some(Deadline { at, why })
    }

    pub(super) fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Tells whether somebody is logged in on a connection.
    pub(super) fn is_member(&self, connection: ConnectionId) -> bool {
        self.members.contains_key(&connection)
    }

    /// Who is logged in on a connection that is.
    pub(super) fn member(&self, connection: ConnectionId) -> &Member {
        let member = self.members.get(&connection);
        member.expect("a connection that has logged in has its member")
    }

    /// Who is logged in with a device.
    pub(super) fn member_of(&self, device_key: &DeviceKey) -> Option<&Member> {
        let connection = self.connection_of(device_key)?;
        Some(self.member(connection))
    }

    /// Where a device is logged in.
    pub(super) fn connection_of(&self, device_key: &DeviceKey) -> Option<ConnectionId> {
        self.connections.get(device_key).copied()
    }

    /// The sessions of an account, oldest first.
    pub(super) fn connections_of(
        &self,
        account: &AccountName,
    ) -> impl Iterator<Item = ConnectionId> {
        let first = (account.clone(), ConnectionId(0));
        self.accounts
            .range(first..)
            .take_while(move |(owner, _)| owner == account)
            .map(|(_, connection)| *connection)
    }

    /// Sessions that are logged in.
    pub(super) fn count(&self) -> usize {
        self.members.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use common::id::DeviceName;
    use common::key::DeviceSecret;
    use common::time::{Epoch, UnixTime};
    use common::wire::rendezvous::{AdmissionCode, RequestId};

    use crate::server::io::Output;
    use crate::store::{AccountId, StoreRequest};

    const HERE: ConnectionId = ConnectionId(1);
    const TO: ReplyTo = ReplyTo {
        connection: HERE,
        id: RequestId(7),
    };

    #[expect(clippy::disallowed_methods, reason = "any instant will do as a start")]
    fn logged_in() -> (Devices, Context) {
        let now = Instant::now();
        let epoch = Epoch::new(now, UnixTime::from_millis(1));
        let member = Member {
            id: AccountId(1),
            account: "alice".parse().unwrap(),
            device_key: DeviceSecret::from_seed([1; 32]).public(),
            device_name: DeviceName::lossy("laptop"),
            since: epoch.unix(now),
            source: ([192, 0, 2, 1], 4000).into(),
        };
        let mut devices = Devices::default();
        devices.on_logged_in(HERE, member);
        (devices, Context::new([1; 32], now, epoch))
    }

    #[test]
    fn a_device_that_the_store_could_not_forget_stays_logged_in() {
        for answer in [Ok(DevicesAnswer::Done.into()), Err(StoreError::DiskFull)] {
            let (mut devices, mut context) = logged_in();
            context.open(TO);
            devices.on_request(TO, DeviceRequest::LogOut, &mut context);
            let Some(Output::Store { ticket, request }) = context.poll_output() else {
                panic!("it asks the store");
            };
            assert!(matches!(
                request,
                StoreRequest::Devices(DevicesRequest::Forget { .. })
            ));
            assert!(devices.poll_event().is_none(), "not before it is on disk");
            let is_forgotten = answer.is_ok();
            devices.on_stored(ticket, answer, &mut context);
            assert!(matches!(context.poll_output(), Some(Output::Send { .. })));
            match devices.poll_event() {
                Some(Event::LoggedOut(connection, _)) => {
                    assert!(is_forgotten);
                    assert_eq!(connection, HERE);
                }
                None => assert!(!is_forgotten),
                Some(other) => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn a_code_that_the_store_could_not_keep_is_lost() {
        for answer in [Ok(AdmissionsAnswer::Done.into()), Err(StoreError::DiskFull)] {
            let (mut devices, mut context) = logged_in();
            context.open(TO);
            let admission = Admission {
                account: "alice".parse().unwrap(),
                code: AdmissionCode::from_random(1),
                expires: UnixTime::from_millis(2),
            };
            devices.on_admission_opened(TO, Some(admission.clone()), &mut context);
            let Some(Output::Store { ticket, .. }) = context.poll_output() else {
                panic!("it asks the store");
            };
            let is_kept = answer.is_ok();
            devices.on_stored(ticket, answer, &mut context);
            match devices.poll_event() {
                Some(Event::AdmissionLost(lost)) => assert!(!is_kept && lost == admission),
                None => assert!(is_kept),
                Some(other) => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn an_owner_who_has_left_meanwhile_is_not_told() {
        let (mut devices, mut context) = logged_in();
        devices.on_failed_login("bob".parse().unwrap(), &mut context);
        assert_eq!(
            devices.poll_timeout(),
            None,
            "nobody of that account listens"
        );
        devices.on_failed_login("alice".parse().unwrap(), &mut context);
        let due = devices.poll_timeout().unwrap().at;
        assert!(due < context.now + NOTICE_INTERVAL);
        assert!(devices.on_disconnected(HERE).is_some());
        devices.handle_timeout(due);
        assert!(devices.poll_event().is_none());
        assert_eq!(devices.poll_timeout(), None);
    }
}
