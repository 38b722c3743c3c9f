//! The events of each part, given to the others.

use common::key::DeviceKey;
use common::wire::rendezvous::ByeReason;

use super::io::{CloseReason, Reply};
use super::{Server, devices, identities, logins, operator};

impl Server {
    /// Gives every event to whom it concerns, until there is none.
    pub(super) fn drain_events(&mut self) {
        loop {
            if let Some(event) = self.logins.poll_event() {
                self.on_logins_event(event);
            } else if let Some(event) = self.connections.poll_event() {
                self.close(event.connection, event.why);
            } else if let Some(event) = self.devices.poll_event() {
                self.on_devices_event(event);
            } else if let Some(identities::Event::Revoked(device_key)) =
                self.identities.poll_event()
            {
                self.on_unenrolled(&device_key);
            } else if let Some(event) = self.operator.poll_event() {
                self.on_operator_event(event);
            } else {
                return;
            }
        }
    }

    pub(super) fn on_logins_event(&mut self, event: logins::Event) {
        let context = &mut self.context;
        match event {
            logins::Event::Proven(connection) => self.connections.on_proven(connection),
            logins::Event::Failed(account) => self.devices.on_failed_login(account, context),
            logins::Event::Enrolled(owner, new) => self.devices.on_enrolled(owner, new, context),
            logins::Event::LoggedIn(entered) => {
                if let Some(older) = self.devices.connection_of(&entered.member.device_key) {
                    self.close(older, CloseReason::Said(ByeReason::Replaced));
                }
                let context = &mut self.context;
                let (connection, member) = self.logins.welcome(entered, context);
                self.connections.on_logged_in(connection, context);
                self.presence.on_logged_in(&member, context);
                self.devices.on_logged_in(connection, member);
            }
        }
    }

    fn on_devices_event(&mut self, event: devices::Event) {
        let context = &mut self.context;
        match event {
            devices::Event::AdmissionWanted { to, account } => {
                let opened = self.logins.open_admission(&account, context);
                self.devices.on_admission_opened(to, opened, context);
            }
            devices::Event::AdmissionLost(lost) => self.logins.on_admission_lost(&lost),
            devices::Event::LoggedOut(connection, device_key) => {
                self.on_unenrolled(&device_key);
                self.close(connection, CloseReason::LoggedOut);
            }
            devices::Event::NoticeDue(account) => {
                if let Some((failed, row)) = self.logins.take_unreported(&account, context) {
                    self.devices.on_told(account, &failed, context);
                    self.logins.save_told(row, context);
                }
            }
        }
    }

    /// The store has forgotten a device: its session ends, and nobody is introduced to it.
    fn on_unenrolled(&mut self, device_key: &DeviceKey) {
        self.presence.on_unenrolled(device_key, &mut self.context);
        self.introductions
            .on_unenrolled(device_key, &mut self.context);
        if let Some(connection) = self.devices.connection_of(device_key) {
            self.close(connection, CloseReason::LoggedOut);
        }
    }

    fn on_operator_event(&mut self, event: operator::Event) {
        let context = &mut self.context;
        match event {
            operator::Event::AdmissionWanted { id, account } => {
                let opened = self.logins.open_admission(&account, context);
                self.operator.on_admission_opened(id, opened, context);
            }
            operator::Event::AdmissionLost(lost) => self.logins.on_admission_lost(&lost),
            operator::Event::NoAccount(account) => self.logins.on_no_account(&account),
            operator::Event::Unblocked(id, name, has_account) => {
                let unblocked = self.logins.unblock(name, has_account, context.now);
                self.operator.on_unblocked(id, unblocked, context);
            }
            operator::Event::AccountRemoved { id, account } => {
                self.logins.on_account_removed(&account);
                self.presence.on_account_removed(&account, context);
                self.introductions.on_account_removed(&account, context);
                let sessions: Vec<_> = self.devices.connections_of(&account).collect();
                for connection in sessions {
                    self.close(connection, CloseReason::Said(ByeReason::AccountRemoved));
                }
                self.context.reply(id, Reply::Done);
            }
            operator::Event::Listed { id, accounts } => {
                let (devices, logins) = (&self.devices, &self.logins);
                self.operator
                    .on_listed(id, accounts, devices, logins, context);
            }
        }
    }
}
