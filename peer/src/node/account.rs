//! The account of this device: registration, log-in, log-out, one-time codes, and the commands that
//! wait for them.
//!
//! Owns the session with the server, the token, and what people are told of the connection. It opens and
//! shuts the gate that every request to the server passes.

use std::collections::{BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use common::id::{AccountName, DeviceName};
use common::key::{DeviceSecret, Token};
use common::password::{Password, PasswordLengthError};
use common::wire::rendezvous::{
    DeviceAnswer, DevicePush, DeviceRequest, DirectoryPush, FailedLogins, IdentityPush,
    IntroductionPush, RelayDatagrams,
};
use rand::rngs::StdRng;

use super::command::{CommandError, CommandId, ConnectionState, Event, Reply};
use super::context::Context;
use super::io::{AccountRequest, JobId, Outcome, Output, RendezvousInput, StoreAnswer};
use super::purpose::{AccountStored, DevicePurpose};
use super::requests::{Requests, unexpected_reply};
use notices::{Notice, Notices};
pub(super) use session::relayed;
use session::{Intent, Session, SessionEvent, SessionOutput};

// What the account's owner has to be told.
mod notices;
// The control connection and the steps of a log-in.
mod session;

/// What the account tells the node.
#[derive(Debug)]
pub(super) enum AccountEvent {
    /// This device is logged in.
    Online,
    /// There is no session any more.
    Offline,
    /// This device has no account any more: it has logged out, or the server no longer knows it.
    Unenrolled,
    /// The directory changed, or its watch ended.
    Directory(DirectoryPush),
    /// Another device makes a link.
    Introduction(IntroductionPush),
    /// Datagrams of the relay came over the control connection.
    Relay(RelayDatagrams),
    /// Another device has written into the account's log.
    Identity(IdentityPush),
}

/// The account of this device.
#[derive(Debug)]
pub(super) struct Account {
    session: Session,
    connection: ConnectionState,
    /// The server lists this device with its endpoints: it is ready.
    is_listed: bool,
    /// Commands that wait until it is listed.
    waiting: BTreeSet<CommandId>,
    notices: Notices,
    events: VecDeque<AccountEvent>,
}

impl Account {
    /// Connects at once if there is a token. `rng` is this part's own.
    pub(super) fn new(
        secret: DeviceSecret,
        device_name: DeviceName,
        token: Option<(AccountName, Token)>,
        rng: StdRng,
        requests: &mut Requests,
        now: Instant,
    ) -> Self {
        let session = Session::new(secret, device_name, token, rng, now);
        requests.set_gate(session.gate());
        Self {
            session,
            connection: ConnectionState::Offline {
                reason: "not connected yet".to_owned(),
                is_other_server: false,
                retry_in_s: None,
            },
            is_listed: false,
            waiting: BTreeSet::new(),
            notices: Notices::default(),
            events: VecDeque::new(),
        }
    }

    /// The account's name, once this device has logged in.
    pub(super) fn name(&self) -> Option<&AccountName> {
        self.session.account()
    }

    /// Whether the account has a log that does not approve this device.
    pub(super) const fn set_unapproved(&mut self, is_unapproved: bool) {
        self.notices.set_unapproved(is_unapproved);
    }

    /// State of the control connection, as people are told.
    pub(super) fn connection(&self, now: Instant) -> ConnectionState {
        let mut connection = self.connection.clone();
        if let ConnectionState::Offline { retry_in_s, .. } = &mut connection {
            let left = |at: Instant| at.saturating_duration_since(now);
            *retry_in_s = self.session.retry_at().map(left).map(whole_seconds);
        }
        connection
    }

    // ---- commands ------------------------------------------------------------------------------

    /// Registers an account and logs this device in to it.
    pub(super) fn register(
        &mut self,
        command: CommandId,
        account: AccountName,
        password: Result<Password, PasswordLengthError>,
        cx: &mut Context<'_>,
    ) {
        self.enter(command, account, password, None, true, cx);
    }

    /// Logs this device in with a password, and a one-time code if there is one.
    pub(super) fn log_in(
        &mut self,
        command: CommandId,
        account: AccountName,
        password: Result<Password, PasswordLengthError>,
        code: Option<String>,
        cx: &mut Context<'_>,
    ) {
        self.enter(command, account, password, code, false, cx);
    }

    fn enter(
        &mut self,
        command: CommandId,
        account: AccountName,
        password: Result<Password, PasswordLengthError>,
        code: Option<String>,
        registers: bool,
        cx: &mut Context<'_>,
    ) {
        let password = match password {
            Ok(password) => password,
            Err(error) => return cx.reply(command, Err(invalid(&error))),
        };
        let code = match code.map(|code| code.parse()).transpose() {
            Ok(code) => code,
            Err(error) => return cx.reply(command, Err(invalid(&error))),
        };
        let intent = Intent {
            command,
            account,
            password,
            code,
            registers,
        };
        self.notices.on_heard();
        self.session.enter(intent, cx.now);
        self.settle(cx);
    }

    /// Replies once this device is logged in with its token and listed.
    pub(super) fn wait_ready(&mut self, command: CommandId, cx: &mut Context<'_>) {
        self.notices.on_heard();
        self.tell(cx);
        match cx.requests.down().cloned() {
            Some(error) => cx.reply(command, Err(error)),
            None if self.is_listed => cx.reply(command, Ok(Reply::LoggedIn { failed: None })),
            None => {
                self.waiting.insert(command);
            }
        }
    }

    /// A person wants something of the server: it is not waited until the next attempt is due.
    pub(super) fn hurry(&mut self, cx: &mut Context<'_>) {
        self.session.hurry(cx.now);
        self.settle(cx);
    }

    /// Ends the session and has this device's token revoked.
    pub(super) fn log_out(&self, command: CommandId, cx: &mut Context<'_>) {
        cx.ask(DevicePurpose::LogOut(command), DeviceRequest::LogOut);
    }

    /// Asks for a one-time code.
    pub(super) fn admit(&self, command: CommandId, cx: &mut Context<'_>) {
        cx.ask(DevicePurpose::Admit(command), DeviceRequest::Admit);
    }

    /// Ends the session for good.
    pub(super) fn shut_down(&mut self, cx: &mut Context<'_>) {
        self.session.shut_down(cx.requests);
        self.settle(cx);
    }

    // ---- inputs --------------------------------------------------------------------------------

    /// Takes what happened on the control connection.
    pub(super) fn handle_rendezvous(&mut self, input: RendezvousInput, cx: &mut Context<'_>) {
        self.session.handle_rendezvous(input, cx.requests, cx.now);
        self.settle(cx);
    }

    /// Takes a stretched password.
    pub(super) fn on_computed(&mut self, id: JobId, answer: Outcome, cx: &mut Context<'_>) {
        self.session
            .handle_computed(id, answer, cx.requests, cx.now);
        self.settle(cx);
    }

    /// Takes the server's answer to a request of this part.
    pub(super) fn on_answer(
        &mut self,
        purpose: DevicePurpose,
        answer: Result<DeviceAnswer, CommandError>,
        cx: &mut Context<'_>,
    ) {
        match (purpose, answer) {
            // What the server could not note, it tells again.
            (DevicePurpose::KeepAlive | DevicePurpose::Noted, _) => {}
            (DevicePurpose::Admit(command), Ok(DeviceAnswer::Admission { code, expires_in_s })) => {
                let code = code.to_string();
                cx.reply(command, Ok(Reply::Admission { code, expires_in_s }));
            }
            (DevicePurpose::LogOut(command), Ok(DeviceAnswer::Done)) => {
                self.on_logged_out(command, cx);
            }
            (DevicePurpose::Admit(command) | DevicePurpose::LogOut(command), answer) => {
                let error = answer.err().unwrap_or_else(unexpected_reply);
                cx.reply(command, Err(error));
            }
        }
    }

    /// The store answered.
    pub(super) fn on_stored(
        &mut self,
        purpose: AccountStored,
        answer: StoreAnswer,
        cx: &mut Context<'_>,
    ) {
        let failure = match answer {
            StoreAnswer::Failed(reason) => Some(reason),
            StoreAnswer::Done | StoreAnswer::Chat(_) | StoreAnswer::Entries(_) => None,
        };
        match (purpose, failure) {
            (AccountStored::LoggedIn { command, failed }, None) => {
                cx.reply(command, Ok(Reply::LoggedIn { failed }));
            }
            (AccountStored::LoggedIn { command, .. }, Some(reason)) => {
                cx.reply(command, Err(CommandError::Store(reason)));
            }
            (AccountStored::Renewed { account, token }, None) => {
                self.session.adopt(&account, token);
            }
            // A token that is not renewed now is renewed at the next log-in.
            (AccountStored::Renewed { .. } | AccountStored::LoggedOut, Some(reason)) => {
                log::warn!("cannot save the session: {reason}");
            }
            (AccountStored::LoggedOut, None) => {}
        }
    }

    /// The server lists this device with its endpoints: it is ready.
    pub(super) fn on_listed(&mut self, cx: &mut Context<'_>) {
        self.is_listed = true;
        self.set_connection(ConnectionState::Online, cx);
        for command in std::mem::take(&mut self.waiting) {
            cx.reply(command, Ok(Reply::LoggedIn { failed: None }));
        }
    }

    // ---- time ----------------------------------------------------------------------------------

    /// The device was asleep: the server has perhaps ended the session.
    pub(super) fn on_woke(&mut self, cx: &mut Context<'_>) {
        self.session.on_woke(cx.requests, cx.now);
    }

    /// Keeps the session alive, closes the connection to a silent server, tries again after a failure.
    pub(super) fn handle_timeout(&mut self, cx: &mut Context<'_>) {
        self.session.handle_timeout(cx.requests, cx.now);
        self.settle(cx);
    }

    /// When [`Account::handle_timeout`] is due.
    pub(super) fn poll_timeout(&self, requests: &Requests) -> Option<Instant> {
        self.session.poll_timeout(requests)
    }

    /// The next thing that the node has to know.
    pub(super) fn poll_event(&mut self) -> Option<AccountEvent> {
        self.events.pop_front()
    }

    /// Sends the requests that the gate lets through. Returns whether there were any.
    pub(super) fn send_requests(&mut self, cx: &mut Context<'_>) -> bool {
        let mut has_sent = false;
        while let Some(frame) = cx.requests.poll_request(cx.now) {
            self.session.send(&frame, cx.now);
            has_sent = true;
        }
        self.settle(cx);
        has_sent
    }

    // ---- the session ---------------------------------------------------------------------------

    /// Passes on the session's outputs, and sets the gate.
    fn settle(&mut self, cx: &mut Context<'_>) {
        cx.requests.set_gate(self.session.gate());
        while let Some(output) = self.session.poll_output() {
            match output {
                SessionOutput::Rendezvous(output) => {
                    cx.outputs.push_back(Output::Rendezvous(output));
                }
                SessionOutput::Compute(id, job) => cx.outputs.push_back(Output::Compute(id, job)),
                SessionOutput::Event(event) => self.on_session(event, cx),
            }
        }
        self.tell(cx);
    }

    /// Tells people what the account's owner has to know, if they listen.
    fn tell(&mut self, cx: &mut Context<'_>) {
        while let Some(notice) = self.notices.poll() {
            let device_key = match notice {
                Notice::Failed(failed) => {
                    cx.event(Event::FailedLogins(failed));
                    continue;
                }
                Notice::Enrolled(enrolment) => {
                    let device_key = enrolment.device_key;
                    cx.event(enrolment.into());
                    device_key
                }
                Notice::Told(device_key) => device_key,
            };
            cx.ask(DevicePurpose::Noted, DeviceRequest::Noted { device_key });
        }
    }

    fn on_session(&mut self, event: SessionEvent, cx: &mut Context<'_>) {
        match event {
            SessionEvent::Connecting => self.set_connection(ConnectionState::Connecting, cx),
            SessionEvent::LoggedIn {
                account,
                token,
                failed,
                enrolled,
                command,
            } => {
                self.on_logged_in(account, token, failed, command, cx);
                for enrolment in enrolled {
                    self.notices.on_enrolled(enrolment);
                }
            }
            SessionEvent::IntentFailed { command, error } => cx.reply(command, Err(error)),
            SessionEvent::Down { error, retry_in } => self.on_down(&error, retry_in, cx),
            SessionEvent::Unenrolled => self.events.push_back(AccountEvent::Unenrolled),
            SessionEvent::Directory(push) => self.events.push_back(AccountEvent::Directory(push)),
            SessionEvent::Introduction(push) => {
                self.events.push_back(AccountEvent::Introduction(push));
            }
            SessionEvent::Identity(push) => self.events.push_back(AccountEvent::Identity(push)),
            SessionEvent::Relay(train) => self.events.push_back(AccountEvent::Relay(train)),
            SessionEvent::Device(DevicePush::FailedLogins(failed)) => {
                self.notices.on_failed(failed);
            }
            SessionEvent::Device(DevicePush::Enrolled(enrolment)) => {
                self.notices.on_enrolled(enrolment);
            }
        }
    }

    fn on_logged_in(
        &mut self,
        account: AccountName,
        token: Option<Token>,
        failed: Option<FailedLogins>,
        command: Option<CommandId>,
        cx: &mut Context<'_>,
    ) {
        let save = |token: Token| AccountRequest::SaveSession {
            account: account.clone(),
            token: Some(token),
        };
        match (command, token) {
            (Some(command), Some(token)) => {
                cx.store(save(token), AccountStored::LoggedIn { command, failed });
            }
            (Some(command), None) => cx.reply(command, Ok(Reply::LoggedIn { failed })),
            (None, token) => {
                if let Some(failed) = failed {
                    self.notices.on_failed(failed);
                }
                if let Some(token) = token {
                    let account = account.clone();
                    let renewed = token.clone();
                    let then = AccountStored::Renewed {
                        account,
                        token: renewed,
                    };
                    cx.store(save(token), then);
                }
            }
        }
        self.events.push_back(AccountEvent::Online);
    }

    fn on_logged_out(&mut self, command: CommandId, cx: &mut Context<'_>) {
        if let Some(account) = self.session.account().cloned() {
            let request = AccountRequest::SaveSession {
                account,
                token: None,
            };
            cx.store(request, AccountStored::LoggedOut);
        }
        self.session.forget();
        self.events.push_back(AccountEvent::Unenrolled);
        cx.reply(command, Ok(Reply::Done));
        self.settle(cx);
    }

    fn on_down(&mut self, error: &CommandError, retry_in: Option<Duration>, cx: &mut Context<'_>) {
        self.is_listed = false;
        self.events.push_back(AccountEvent::Offline);
        for command in std::mem::take(&mut self.waiting) {
            cx.reply(command, Err(error.clone()));
        }
        let retry_in_s = retry_in.map(whole_seconds);
        let state = ConnectionState::Offline {
            reason: error.to_string(),
            is_other_server: matches!(error, CommandError::ServerKeyChanged { .. }),
            retry_in_s,
        };
        self.set_connection(state, cx);
    }

    fn set_connection(&mut self, state: ConnectionState, cx: &mut Context<'_>) {
        if self.connection != state {
            self.connection = state.clone();
            cx.event(Event::Connection(state));
        }
    }
}

/// What is left until an attempt, at least one second.
fn whole_seconds(span: Duration) -> u32 {
    let seconds = span.as_millis().div_ceil(1000).max(1);
    u32::try_from(seconds).unwrap_or(u32::MAX)
}

fn invalid(error: &impl std::fmt::Display) -> CommandError {
    CommandError::Invalid(error.to_string())
}
