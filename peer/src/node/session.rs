//! Routes what changes about the session with the server, and what the directory finds out: each to the parts that it
//! concerns.

use std::time::Instant;

use super::Node;
use super::account::AccountEvent;
use super::conversations::People;
use super::directory::DirectoryEvent;

impl Node {
    /// The session with the server has begun, ended or brought something.
    pub(super) fn on_account(&mut self, event: AccountEvent, now: Instant) {
        self.wants_are_stale = true;
        let cx = &mut self.effects.at(now);
        match event {
            AccountEvent::Online => {
                cx.links.set_enrolled(true, now);
                self.conversations.begin(cx);
                if let Some(own) = self.account.name() {
                    let people = People::of(&self.account, &self.identities);
                    self.conversations.on_account_changed(own, people, cx);
                }
                self.lan.set_enrolled(true, now);
                cx.links.on_online(self.paths.server(), now);
                self.directory.on_online(cx);
                self.identities.on_online(self.account.name(), cx);
                self.paths.on_online(now);
            }
            AccountEvent::Offline => {
                self.identities.on_offline();
                cx.links.on_offline();
                self.directory.on_offline();
                self.paths.on_offline();
                self.lan.on_offline(now);
            }
            AccountEvent::Unenrolled => {
                cx.links.set_enrolled(false, now);
                self.lan.set_enrolled(false, now);
            }
            AccountEvent::Directory(push) => self.directory.on_push(push, &self.identities, cx),
            AccountEvent::Introduction(push) => self.directory.on_introduction(push, cx),
            AccountEvent::Identity(push) => {
                self.identities.on_push(push, self.account.name(), cx);
            }
            AccountEvent::Relay(train) => {
                cx.links.handle_train(&train, now);
                // The relay has answered here first: UDP is blocked, or so slow that nobody waits for it.
                if self.paths.stop_waiting() {
                    self.announce(now);
                }
            }
        }
    }

    /// The directory has found out something.
    pub(super) fn on_directory(&mut self, event: DirectoryEvent, now: Instant) {
        let cx = &mut self.effects.at(now);
        match event {
            DirectoryEvent::Listed => self.account.on_listed(cx),
            DirectoryEvent::Introduced(account) => self.identities.on_introduced(&account, cx),
            DirectoryEvent::Unenrolled(account) => self.identities.on_unenrolled(&account, cx),
            DirectoryEvent::Unreachable { account, error } => {
                self.transfers.on_unreachable(&account, &error, cx);
            }
        }
    }
}
