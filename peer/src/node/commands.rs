//! Routes what people ask: one arm for each command, to the part that it concerns.

use std::time::Instant;

use common::limits::{EXAMINED_SERVERS_MAX, RECIPIENTS_MAX};
use common::password::Password;

use super::Node;
use super::command::{API_VERSION, Command, CommandError, CommandId, Event, NodeStatus, Reply};
use super::context::Effects;
use super::conversations::{Conversations, People};
use super::identities::Wish;
use super::io::{AGENT, ChatRequest};
use crate::recovery::RecoveryCode;

impl Node {
    /// Has the part that a command concerns carry it out.
    pub(super) fn on_command(&mut self, id: CommandId, command: Command, now: Instant) {
        let cx = &mut self.effects.at(now);
        if command.needs_server() {
            self.account.hurry(cx);
        }
        if command.needs_approval()
            && let Some(own) = self.account.name()
            && self.identities.is_unapproved(own)
        {
            return self.identities.hold(id, command, own, cx);
        }
        match command {
            Command::Version => {
                let (api, program) = (API_VERSION, AGENT.to_owned());
                cx.reply(id, Ok(Reply::Version { api, program }));
            }
            Command::Register { account, password } => {
                self.account
                    .register(id, account, Password::new(password.0), cx);
            }
            Command::LogIn {
                account,
                password,
                code,
            } => {
                let password = Password::existing(password.0);
                self.account.log_in(id, account, password, code, cx);
            }
            Command::WaitReady => self.account.wait_ready(id, cx),
            Command::LogOut => self.account.log_out(id, cx),
            Command::Admit => self.account.admit(id, cx),
            Command::Status => {
                let status = self.status(now);
                self.effects.at(now).reply(id, Ok(Reply::Status(status)));
            }
            Command::Examine { servers, account } => {
                if servers.len() > EXAMINED_SERVERS_MAX {
                    let too_many = CommandError::TooMany("addresses of the server".to_owned());
                    return cx.reply(id, Err(too_many));
                }
                self.paths.examine(&servers, account, now);
                cx.reply(id, Ok(Reply::Done));
            }
            Command::Examination => {
                let mut view = self.paths.examination(now);
                view.has_relay = cx.links.has_relay().filter(|_| cx.requests.is_online());
                cx.reply(id, Ok(Reply::Examination(view)));
            }
            Command::List => self.directory.list(id, cx),
            Command::Watch => {
                self.directory.watch(id, cx);
                for account in self.lan.here().cloned() {
                    let is_here = true;
                    cx.event(Event::Nearby { account, is_here });
                }
            }
            Command::Contacts => {
                let contacts = cx.links.contacts().cloned().collect();
                cx.reply(id, Ok(Reply::Contacts(contacts)));
            }
            Command::Send { .. } => self.send(id, command, now),
            Command::SendFile { to, path } => match self.account.name() {
                Some(own) => {
                    // A person waits for the answer, and the next look-up may be a minute away.
                    self.directory.look_again_for(&to);
                    self.transfers.send_file(id, to, path, own, cx);
                }
                None => cx.reply(id, Err(cx.requests.without_account())),
            },
            Command::AnswerOffer {
                transfer,
                folder,
                name,
            } => self.transfers.answer_offer(id, transfer, folder, name, cx),
            Command::Cancel { transfer } => self.transfers.cancel(id, transfer, cx),
            Command::Offers => cx.reply(id, Ok(Reply::Offers(self.transfers.offers()))),
            Command::Outbox => Conversations::look_up(id, ChatRequest::Outbox, cx),
            Command::Withdraw { ids } => self.conversations.withdraw(id, ids, cx),
            Command::History(query) => {
                Conversations::look_up(id, ChatRequest::History(query), cx);
            }
            Command::Recorded { after, limit } => {
                let request = ChatRequest::Recorded { after, limit };
                Conversations::look_up(id, request, cx);
            }
            Command::Unread => Conversations::look_up(id, ChatRequest::Unread, cx),
            Command::MarkRead { ids } => Conversations::mark_read(id, ids, cx),
            Command::Devices => self.wish_of_own(id, Wish::Devices, now),
            Command::Found { recovery } => self.wish_of_own(id, Wish::Found(recovery), now),
            Command::Approve { device } => self.wish_of_own(id, Wish::Approve(device), now),
            Command::Name { device, name } => {
                self.wish_of_own(id, Wish::Name(device, name), now);
            }
            Command::Revoke { device } => self.wish_of_own(id, Wish::Revoke(device), now),
            Command::Recover { code } => match RecoveryCode::parse(&code.0) {
                Ok(code) => self.wish_of_own(id, Wish::Recover(code), now),
                Err(error) => cx.reply(id, Err(CommandError::Invalid(error.to_string()))),
            },
            Command::Safety { account } => self.identities.want(id, account, Wish::Safety, cx),
            Command::Verify {
                account,
                is_verified,
            } => {
                let waiting = self.conversations.waiting_for(&account);
                let own = self.account.name();
                self.identities
                    .on_verify(id, (account, is_verified), waiting, own, cx);
            }
        }
    }

    /// Sends a text, once it is known who this account and the recipients are.
    fn send(&mut self, id: CommandId, command: Command, now: Instant) {
        let cx = &mut self.effects.at(now);
        if self.account.name().is_none() {
            return cx.reply(id, Err(cx.requests.without_account()));
        }
        let Command::Send { to, body, sent } = &command else {
            return;
        };
        if to.is_empty() || to.len() > RECIPIENTS_MAX {
            let reason = format!("a message has 1 to {RECIPIENTS_MAX} recipients");
            return cx.reply(id, Err(CommandError::Invalid(reason)));
        }
        // Who is not known is as a rule known in a moment; what is for many waits for each of them.
        if let [to] = to.as_slice()
            && cx.requests.is_online()
            && !self.identities.is_known(to, now)
        {
            return self.identities.ask_again(id, to.clone(), command, cx);
        }
        let people = People::of(&self.account, &self.identities);
        self.conversations.send(id, to, body, *sent, people, cx);
    }

    /// Does something about this device's account, if it has one.
    fn wish_of_own(&mut self, id: CommandId, wish: Wish, now: Instant) {
        let cx = &mut self.effects.at(now);
        match self.account.name() {
            Some(own) => self.identities.want(id, own.clone(), wish, cx),
            None => cx.reply(id, Err(cx.requests.without_account())),
        }
    }

    /// Tells whether the server relays for this device, as far as it has said so, and that is wanted.
    fn has_relay(&self) -> Option<bool> {
        let Effects {
            requests, links, ..
        } = &self.effects;
        let is_granted = links.has_relay().filter(|_| requests.is_online())?;
        (is_granted || self.directory.is_relay_off()).then_some(is_granted)
    }

    fn status(&mut self, now: Instant) -> NodeStatus {
        NodeStatus {
            account: self.account.name().cloned(),
            fingerprint: self.own_key.fingerprint().to_string(),
            connection: self.account.connection(now),
            endpoints: self.paths.candidates(),
            rule: self.effects.links.rule(),
            has_relay: self.has_relay(),
            approval: self
                .account
                .name()
                .and_then(|own| self.identities.approval(own)),
            lan: self.lan.is_permitted(),
            port_mapping: self.paths.port_mapping(now),
            links: self.effects.links.views(),
            nearby: self.lan.here().cloned().collect(),
            outbox: self.conversations.waiting(),
            transfers: self.transfers.views(),
        }
    }
}
