//! The session with the server: greeting, registration, log-in, keep-alive, reconnecting.
//!
//! Owns the state of the control connection and the token. A password that the server refused is dropped
//! at once and never used again.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use common::id::{AccountName, DeviceName};
use common::key::{ChannelBinding, DeviceSecret, Role, Statement, Token};
use common::limits::{
    CONTROL_FRAME_LEN_MAX, KEEP_ALIVE_INTERVAL, LOGIN_TIMEOUT, RECONNECT_BACKOFF_FIRST,
    RECONNECT_BACKOFF_MAX, STANDSTILL_MIN,
};
use common::password::{ClientLogin, ClientRegistration, Password, PasswordError, STRETCH_CURRENT};
use common::wire::frame::{self, FrameBuffer};
use common::wire::rendezvous::{
    AdmissionCode, Answer, ByeReason, DevicePush, DeviceRequest, DirectoryPush, Enrolment,
    FailedLogins, Hello, HelloAnswer, IdentityPush, IntroductionPush, LoggedIn, LoginAnswer,
    LoginRequest, LoginStart, OpaqueMessage, Push, Refusal, RelayDatagrams, Request, RequestFrame,
    RequestId, ServerFrame, StretchVersion, TokenLogin, VERSION,
};
use rand::RngExt;
use rand::rngs::StdRng;

use crate::node::command::{CommandError, CommandId};
use crate::node::io::{
    AGENT, ClosedReason, Job, JobId, Outcome, RendezvousInput, RendezvousOutput,
};
use crate::node::purpose::DevicePurpose;
use crate::node::requests::{Gate, Requests};

/// Something for the account to pass on: effects to the shell, events to the node.
#[derive(Debug)]
pub(super) enum SessionOutput {
    Rendezvous(RendezvousOutput),
    Compute(JobId, Job),
    Event(SessionEvent),
}

/// What a session tells the account.
#[derive(Debug)]
pub(super) enum SessionEvent {
    /// A connection is being made.
    Connecting,
    LoggedIn {
        account: AccountName,
        /// A new token, to be stored in place of the old one.
        token: Option<Token>,
        failed: Option<FailedLogins>,
        /// Devices that were enrolled while this one was away.
        enrolled: Vec<Enrolment>,
        /// The command that asked for this log-in; `None` if it was made with a token.
        command: Option<CommandId>,
    },
    /// A registration or log-in that a command asked for failed.
    IntentFailed {
        command: CommandId,
        error: CommandError,
    },
    /// There is no session any more. The next attempt is made after `retry_in`, or if that is `None`, once a
    /// person asks for one.
    Down {
        error: CommandError,
        retry_in: Option<Duration>,
    },
    /// The server knows this device no longer, and its token is forgotten.
    Unenrolled,
    /// The directory changed, or its watch ended.
    Directory(DirectoryPush),
    /// A notice for the account's owner.
    Device(DevicePush),
    /// Another device makes a link.
    Introduction(IntroductionPush),
    /// The log of the account has grown.
    Identity(IdentityPush),
    /// Datagrams of the relay came over the control connection.
    Relay(RelayDatagrams),
}

/// A registration or password log-in that a person asked for.
#[derive(Debug)]
pub(super) struct Intent {
    pub(super) command: CommandId,
    pub(super) account: AccountName,
    pub(super) password: Password,
    pub(super) code: Option<AdmissionCode>,
    pub(super) registers: bool,
}

/// The session, from before the first connection to the end of the program.
#[derive(Debug)]
pub(super) struct Session {
    secret: DeviceSecret,
    device_name: DeviceName,
    rng: StdRng,
    state: State,
    token: Option<(AccountName, Token)>,
    /// What whoever asks is told while there is no token.
    without_token: CommandError,
    intent: Option<Intent>,
    frames: FrameBuffer<CONTROL_FRAME_LEN_MAX>,
    next_job: u64,
    failures: u32,
    /// A person asked for the present attempt before it was due.
    is_hurried: bool,
    /// The shell has not yet answered a [`RendezvousOutput::Close`].
    is_closing: bool,
    /// Why the session ends, as the server said; takes precedence over why the connection closed.
    parting: Option<CommandError>,
    last_sent: Instant,
    last_received: Instant,
    /// The device was asleep, and nothing has arrived since: the session is given up then.
    wake_until: Option<Instant>,
    outputs: VecDeque<SessionOutput>,
}

#[derive(Debug)]
enum State {
    /// Nobody is logged in and nobody wants to be.
    Idle,
    /// The last attempt failed; the next one is due.
    Waiting {
        since: Instant,
        until: Instant,
        error: CommandError,
    },
    /// Nothing is tried before a person asks for it.
    Halted { error: CommandError },
    /// The shell is connecting.
    Connecting,
    /// The greeting is sent.
    Greeting {
        binding: ChannelBinding,
        since: Instant,
    },
    /// Greeted, and not logged in.
    Authenticating {
        binding: ChannelBinding,
        step: Step,
        since: Instant,
    },
    /// Logged in.
    Online,
    /// The shell is closing the connection.
    Closing,
}

/// A step of a registration or log-in.
#[derive(Debug)]
enum Step {
    /// No step: the last intent failed and there is no token.
    Idle,
    /// RegisterStart is sent.
    Registering(ClientRegistration),
    /// The password is being stretched for RegisterFinish.
    StretchingForRegistration(JobId),
    /// RegisterFinish is sent.
    FinishingRegistration,
    /// LoginStart is sent.
    LoggingIn(ClientLogin),
    /// The password is being stretched for LoginFinish.
    StretchingForLogin(JobId),
    /// LoginFinish is sent.
    FinishingLogin,
    /// TokenLogin is sent.
    LoggingInWithToken,
}

/// The number of every request of a registration or log-in. All other requests have larger ones.
const LOGIN_REQUEST: RequestId = RequestId(0);
/// A failure younger than this is told as it is to whoever asks: this bounds how often people can have it tried.
const HURRY_INTERVAL: Duration = Duration::from_secs(1);
/// A server from which nothing arrives for this long while a person waits for its answer is gone.
const ANSWER_PATIENCE: Duration = Duration::from_secs(10);
/// A server from which nothing arrives for this long, not even the answer to a keep-alive, is gone.
const SILENCE_MAX: Duration = KEEP_ALIVE_INTERVAL.saturating_mul(3);
/// The same after the device was asleep, in which it may have been given up: a few round trips.
const WAKE_PATIENCE: Duration = Duration::from_secs(5);

impl Session {
    /// Starts a session, which connects at once if there is a token.
    pub(super) fn new(
        secret: DeviceSecret,
        device_name: DeviceName,
        token: Option<(AccountName, Token)>,
        rng: StdRng,
        now: Instant,
    ) -> Self {
        let mut session = Self {
            secret,
            device_name,
            rng,
            state: State::Idle,
            token,
            without_token: CommandError::NotLoggedIn,
            intent: None,
            frames: FrameBuffer::new(),
            next_job: 1,
            failures: 0,
            is_hurried: false,
            is_closing: false,
            parting: None,
            last_sent: now,
            last_received: now,
            wake_until: None,
            outputs: VecDeque::new(),
        };
        if session.token.is_some() {
            session.connect();
        }
        session
    }

    /// The account of this device, once it has logged in.
    pub(super) fn account(&self) -> Option<&AccountName> {
        self.token.as_ref().map(|(account, _)| account)
    }

    /// Whether requests can be sent in the present state.
    pub(super) fn gate(&self) -> Gate {
        match &self.state {
            State::Idle
            | State::Authenticating {
                step: Step::Idle, ..
            } => Gate::Shut(self.without_token.clone()),
            State::Halted { error } => Gate::Shut(error.clone()),
            // The next attempt may well see the same key: a person has to know, not to wait.
            State::Waiting {
                error: error @ CommandError::ServerKeyChanged { .. },
                ..
            } => Gate::Shut(error.clone()),
            State::Waiting { error, .. } => Gate::Retrying(error.clone()),
            State::Connecting
            | State::Greeting { .. }
            | State::Authenticating { .. }
            | State::Closing => Gate::Waiting,
            State::Online => Gate::Open,
        }
    }

    /// Registers or logs in with a password.
    pub(super) fn enter(&mut self, intent: Intent, now: Instant) {
        self.drop_intent(&CommandError::Invalid(
            "another log-in was started".to_owned(),
        ));
        self.intent = Some(intent);
        match &self.state {
            State::Idle | State::Waiting { .. } | State::Halted { .. } => self.connect(),
            State::Authenticating {
                binding,
                step: Step::Idle,
                ..
            } => {
                let binding = *binding;
                self.next_step(binding, now);
            }
            State::Online | State::Authenticating { .. } => self.close(),
            State::Connecting | State::Greeting { .. } | State::Closing => {}
        }
    }

    /// Makes the attempt now that is due by itself later: a person waits for the session. What the last one
    /// failed of stays the answer for [`HURRY_INTERVAL`].
    pub(super) fn hurry(&mut self, now: Instant) {
        if let State::Waiting { since, .. } = &self.state
            && now >= *since + HURRY_INTERVAL
        {
            self.is_hurried = true;
            self.connect();
        }
    }

    /// When the next attempt is due by itself, if one is.
    pub(super) const fn retry_at(&self) -> Option<Instant> {
        match &self.state {
            State::Waiting { until, .. } => Some(*until),
            State::Idle
            | State::Halted { .. }
            | State::Connecting
            | State::Greeting { .. }
            | State::Authenticating { .. }
            | State::Online
            | State::Closing => None,
        }
    }

    /// Uses a renewed token from now on, because it is on disk. The server accepts the previous token
    /// until it has seen the new one: a device that used the new one before it was on disk could lose
    /// both in a crash.
    pub(super) fn adopt(&mut self, of: &AccountName, renewed: Token) {
        if let Some((account, token)) = &mut self.token
            && account == of
        {
            *token = renewed;
        }
    }

    /// Forgets the token, after a log-out.
    pub(super) fn forget(&mut self) {
        self.token = None;
        self.without_token = CommandError::NotLoggedIn;
        self.parting = Some(CommandError::NotLoggedIn);
        self.close();
    }

    /// Ends the session for good.
    pub(super) fn shut_down(&mut self, requests: &mut Requests) {
        let error = CommandError::Stopping;
        requests.fail_all(&error);
        self.close_connection();
        self.state = State::Halted { error };
    }

    /// Takes what happened on the control connection.
    pub(super) fn handle_rendezvous(
        &mut self,
        input: RendezvousInput,
        requests: &mut Requests,
        now: Instant,
    ) {
        match input {
            RendezvousInput::Connected {
                channel_binding, ..
            } => self.on_connected(channel_binding, now),
            RendezvousInput::Received(bytes) => self.on_received(&bytes, requests, now),
            RendezvousInput::Closed(reason) => self.on_closed(reason, requests, now),
        }
    }

    /// Takes a stretched password.
    pub(super) fn handle_computed(
        &mut self,
        id: JobId,
        Outcome(result): Outcome,
        requests: &mut Requests,
        now: Instant,
    ) {
        let State::Authenticating { binding, step, .. } = &self.state else {
            return;
        };
        let binding = *binding;
        match (step, result) {
            (Step::StretchingForRegistration(job), Ok(upload)) if *job == id => {
                let stretch = STRETCH_CURRENT;
                let request = LoginRequest::RegisterFinish { upload, stretch };
                self.request_login(binding, Step::FinishingRegistration, request, now);
            }
            (Step::StretchingForLogin(job), Ok(ke3)) if *job == id => {
                let request = LoginRequest::LoginFinish { ke3 };
                self.request_login(binding, Step::FinishingLogin, request, now);
            }
            (Step::StretchingForRegistration(job) | Step::StretchingForLogin(job), Err(error))
                if *job == id =>
            {
                self.fail_intent(password_error(error), binding, requests, now)
            }
            // The job belongs to an earlier connection.
            _ => {}
        }
    }

    /// Keeps the session alive, closes the connection to a silent server, tries again after a failure.
    pub(super) fn handle_timeout(&mut self, requests: &mut Requests, now: Instant) {
        let Some(due) = self.poll_timeout(requests).filter(|due| *due <= now) else {
            return;
        };
        match self.state {
            State::Waiting { .. } => self.connect(),
            State::Greeting { .. } | State::Authenticating { .. } => self.close_silent(due, now),
            State::Online if now >= self.silent_at(requests) => self.close_silent(due, now),
            State::Online => requests.ask(
                DevicePurpose::KeepAlive.into(),
                DeviceRequest::KeepAlive.into(),
            ),
            State::Idle | State::Halted { .. } | State::Connecting | State::Closing => {}
        }
    }

    /// When [`Session::handle_timeout`] is due.
    pub(super) fn poll_timeout(&self, requests: &Requests) -> Option<Instant> {
        match &self.state {
            State::Waiting { until, .. } => Some(*until),
            State::Greeting { since, .. } | State::Authenticating { since, .. } => {
                Some(*since + LOGIN_TIMEOUT)
            }
            State::Online => {
                let silence = self.silent_at(requests);
                let keep_alive = self.last_sent + KEEP_ALIVE_INTERVAL;
                // The answer to an open request shows as well that the server is alive.
                Some(if requests.has_open() {
                    silence
                } else {
                    keep_alive.min(silence)
                })
            }
            State::Idle | State::Halted { .. } | State::Connecting | State::Closing => None,
        }
    }

    /// The device was asleep: the server shows soon that it still has the session, or another one is begun.
    pub(super) fn on_woke(&mut self, requests: &mut Requests, now: Instant) {
        if !matches!(self.state, State::Online) {
            return;
        }
        self.wake_until = Some(now + WAKE_PATIENCE);
        requests.ask(
            DevicePurpose::KeepAlive.into(),
            DeviceRequest::KeepAlive.into(),
        );
    }

    /// When an open session is given up, unless something arrives.
    fn silent_at(&self, requests: &Requests) -> Instant {
        let silence = self.last_received + SILENCE_MAX;
        let silence = self.wake_until.map_or(silence, |wake| wake.min(silence));
        let awaited = requests.awaited_since();
        let awaited = awaited.map(|since| since.max(self.last_received) + ANSWER_PATIENCE);
        awaited.map_or(silence, |awaited| awaited.min(silence))
    }

    /// Closes the connection to a server that does not answer, or that this node did not hear, because it did
    /// not run when this was `due`.
    fn close_silent(&mut self, due: Instant, now: Instant) {
        let since = |earlier| now.saturating_duration_since(earlier);
        let reason = if since(due) >= STANDSTILL_MIN || self.wake_until.is_some() {
            "this program was stopped, or the device asleep".to_owned()
        } else {
            let seconds = since(self.last_received).as_secs();
            format!("no answer from it for {seconds} s")
        };
        self.parting = Some(CommandError::Unreachable(reason));
        self.close();
    }

    /// The next output.
    pub(super) fn poll_output(&mut self) -> Option<SessionOutput> {
        self.outputs.pop_front()
    }

    /// Connects: at once, or once the old connection is closed.
    fn connect(&mut self) {
        if self.is_closing {
            self.state = State::Closing;
            return;
        }
        self.state = State::Connecting;
        self.frames = FrameBuffer::new();
        self.outputs
            .push_back(SessionOutput::Rendezvous(RendezvousOutput::Connect));
        self.tell(SessionEvent::Connecting);
    }

    fn close(&mut self) {
        self.state = State::Closing;
        self.close_connection();
    }

    /// Has the shell close the connection, or the attempt to make one, if there is either.
    fn close_connection(&mut self) {
        let is_there = match self.state {
            State::Idle | State::Waiting { .. } | State::Halted { .. } => false,
            State::Connecting
            | State::Greeting { .. }
            | State::Authenticating { .. }
            | State::Online
            | State::Closing => true,
        };
        if is_there && !std::mem::replace(&mut self.is_closing, true) {
            self.outputs
                .push_back(SessionOutput::Rendezvous(RendezvousOutput::Close));
        }
    }

    fn on_connected(&mut self, binding: ChannelBinding, now: Instant) {
        self.parting = None;
        if !matches!(self.state, State::Connecting) {
            return;
        }
        self.last_received = now;
        self.wake_until = None;
        self.state = State::Greeting {
            binding,
            since: now,
        };
        self.send(&Hello::ours(AGENT), now);
    }

    fn on_received(&mut self, bytes: &[u8], requests: &mut Requests, now: Instant) {
        self.last_received = now;
        self.wake_until = None;
        self.frames.push(bytes);
        loop {
            let more = match &self.state {
                State::Greeting { binding, .. } => {
                    let binding = *binding;
                    self.frames.next_frame().map(|answer| {
                        answer.map(|answer| self.on_hello(answer, binding, requests, now))
                    })
                }
                State::Authenticating { .. } | State::Online => self
                    .frames
                    .next_frame()
                    .map(|frame| frame.map(|frame| self.on_frame(frame, requests, now))),
                State::Idle
                | State::Waiting { .. }
                | State::Halted { .. }
                | State::Connecting
                | State::Closing => return,
            };
            match more {
                Ok(Some(())) => {}
                Ok(None) => return,
                Err(error) => {
                    log::debug!("cannot read a frame of the server: {error}");
                    return self.close();
                }
            }
        }
    }

    fn on_hello(
        &mut self,
        answer: HelloAnswer,
        binding: ChannelBinding,
        requests: &mut Requests,
        now: Instant,
    ) {
        match answer {
            HelloAnswer::Welcome { version, .. } if version == VERSION => {
                self.next_step(binding, now);
            }
            HelloAnswer::Welcome { agent, .. } | HelloAnswer::Upgrade { agent, .. } => {
                let server = common::text::inline(&agent).into_owned();
                self.halt(CommandError::Upgrade { server }, requests);
            }
        }
    }

    fn on_frame(&mut self, frame: ServerFrame, requests: &mut Requests, now: Instant) {
        match frame {
            ServerFrame::Answer {
                id: LOGIN_REQUEST,
                answer,
            } => {
                self.on_login_answer(answer, requests, now);
            }
            ServerFrame::Answer { id, answer } => requests.on_answer(id, answer),
            ServerFrame::Push(Push::Bye(reason)) => self.on_bye(reason, requests),
            ServerFrame::Push(Push::Directory(push)) => self.tell(SessionEvent::Directory(push)),
            ServerFrame::Push(Push::Device(push)) => self.tell(SessionEvent::Device(push)),
            ServerFrame::Push(Push::Introduction(push)) => {
                self.tell(SessionEvent::Introduction(push));
            }
            ServerFrame::Push(Push::Relay(train)) => self.tell(SessionEvent::Relay(train)),
            ServerFrame::Push(Push::Identity(push)) => self.tell(SessionEvent::Identity(push)),
        }
    }

    fn on_bye(&mut self, reason: ByeReason, requests: &mut Requests) {
        match reason {
            ByeReason::Replaced => self.halt(CommandError::Replaced, requests),
            ByeReason::AccountRemoved => {
                self.token = None;
                self.tell(SessionEvent::Unenrolled);
                self.halt(CommandError::AccountRemoved, requests);
            }
            ByeReason::ShuttingDown
            | ByeReason::TimedOut
            | ByeReason::Malformed
            | ByeReason::TooSlow
            | ByeReason::Crowded => {
                log::info!("the server ended the session: {reason}");
                let reason = if reason == ByeReason::ShuttingDown {
                    "it is shutting down".to_owned()
                } else {
                    reason.to_string()
                };
                self.parting = Some(CommandError::Unreachable(reason));
            }
        }
    }

    /// Starts what a person asked for, or else the log-in with the token, if there is one.
    fn next_step(&mut self, binding: ChannelBinding, now: Instant) {
        if let Some(intent) = &self.intent {
            let seed = self.rng.random();
            if intent.registers {
                let (client, message) = ClientRegistration::start(&intent.password, seed);
                let account = intent.account.clone();
                let request = LoginRequest::RegisterStart { account, message };
                return self.request_login(binding, Step::Registering(client), request, now);
            }
            return self.start_login(binding, seed, now);
        }
        let Some((account, token)) = self.token.clone() else {
            self.set_step(binding, Step::Idle, now);
            return;
        };
        let statement = Statement {
            role: Role::TokenLogin,
            channel_binding: &binding,
            account: &account,
            content: token.as_bytes(),
        };
        let login = TokenLogin {
            device_key: self.secret.public(),
            signature: self.secret.sign(&statement),
            account,
            token,
        };
        let request = LoginRequest::TokenLogin(login);
        self.request_login(binding, Step::LoggingInWithToken, request, now);
    }

    fn start_login(&mut self, binding: ChannelBinding, seed: [u8; 32], now: Instant) {
        let Some(intent) = &self.intent else { return };
        let (client, ke1) = ClientLogin::start(&intent.password, seed);
        let statement = Statement {
            role: Role::PasswordLogin,
            channel_binding: &binding,
            account: &intent.account,
            content: ke1.as_bytes(),
        };
        let start = LoginStart {
            account: intent.account.clone(),
            device_key: self.secret.public(),
            device_name: self.device_name.clone(),
            signature: self.secret.sign(&statement),
            ke1,
            code: intent.code,
        };
        let request = LoginRequest::LoginStart(start);
        self.request_login(binding, Step::LoggingIn(client), request, now);
    }

    fn on_login_answer(&mut self, answer: Answer, requests: &mut Requests, now: Instant) {
        let State::Authenticating { binding, step, .. } =
            std::mem::replace(&mut self.state, State::Connecting)
        else {
            return self.close();
        };
        match (step, answer) {
            (
                Step::Registering(client),
                Answer::Login(LoginAnswer::RegisterChallenge { message }),
            ) => {
                self.stretch_for_registration(client, message, binding, now);
            }
            (Step::FinishingRegistration, Answer::Login(LoginAnswer::Registered)) => {
                if let Some(intent) = &mut self.intent {
                    intent.registers = false;
                }
                let seed = self.rng.random();
                self.start_login(binding, seed, now);
            }
            (
                Step::LoggingIn(client),
                Answer::Login(LoginAnswer::LoginChallenge { ke2, stretch }),
            ) => {
                self.stretch_for_login(client, ke2, stretch, binding, now);
            }
            (
                Step::FinishingLogin | Step::LoggingInWithToken,
                Answer::Login(LoginAnswer::LoggedIn(logged_in)),
            ) => self.on_logged_in(logged_in),
            (
                Step::LoggingInWithToken,
                Answer::Refused(Refusal::TokenRefused | Refusal::WrongCredentials),
            ) => {
                self.token = None;
                self.tell(SessionEvent::Unenrolled);
                self.set_step(binding, Step::Idle, now);
                let error = CommandError::Refused(Refusal::TokenRefused);
                self.without_token = error.clone();
                requests.fail_waiting(&error);
                self.tell(SessionEvent::Down {
                    error,
                    retry_in: None,
                });
            }
            (Step::LoggingInWithToken, Answer::Refused(refusal)) => {
                self.parting = Some(CommandError::Refused(refusal));
                self.close();
            }
            (_, Answer::Refused(Refusal::WrongCredentials)) => {
                self.fail_intent(CommandError::WrongPassword, binding, requests, now);
            }
            (_, Answer::Refused(refusal)) => {
                self.fail_intent(CommandError::Refused(refusal), binding, requests, now)
            }
            (step, answer) => {
                log::debug!("unexpected reply from the server to {step:?}: {answer:?}");
                self.close();
            }
        }
    }

    fn stretch_for_registration(
        &mut self,
        client: ClientRegistration,
        response: OpaqueMessage,
        binding: ChannelBinding,
        now: Instant,
    ) {
        let Some(intent) = &self.intent else {
            return self.close();
        };
        let job = Job::Register {
            client,
            account: intent.account.clone(),
            response,
        };
        let step = Step::StretchingForRegistration(self.compute(job));
        self.set_step(binding, step, now);
    }

    fn stretch_for_login(
        &mut self,
        client: ClientLogin,
        ke2: OpaqueMessage,
        stretch: StretchVersion,
        binding: ChannelBinding,
        now: Instant,
    ) {
        let Some(intent) = &self.intent else {
            return self.close();
        };
        let job = Job::LogIn {
            client,
            account: intent.account.clone(),
            ke2,
            stretch,
            channel_binding: binding,
        };
        let step = Step::StretchingForLogin(self.compute(job));
        self.set_step(binding, step, now);
    }

    fn compute(&mut self, job: Job) -> JobId {
        let id = JobId(self.next_job);
        self.next_job += 1;
        self.outputs.push_back(SessionOutput::Compute(id, job));
        id
    }

    fn on_logged_in(&mut self, logged_in: LoggedIn) {
        let LoggedIn {
            token,
            failed,
            enrolled,
        } = logged_in;
        let intent = self.intent.take();
        let account = match (&intent, &self.token) {
            (Some(intent), _) => intent.account.clone(),
            (None, Some((account, _))) => account.clone(),
            (None, None) => return self.close(),
        };
        self.without_token = CommandError::NotLoggedIn;
        // A renewed token is not used before it is on disk: see `adopt`.
        if let Some(token) = &token
            && intent.is_some()
        {
            self.token = Some((account.clone(), token.clone()));
        }
        self.failures = 0;
        self.is_hurried = false;
        self.state = State::Online;
        let command = intent.map(|intent| intent.command);
        self.tell(SessionEvent::LoggedIn {
            account,
            token,
            failed,
            enrolled,
            command,
        });
    }

    /// Drops the intent, and goes on with the token if there is one.
    fn fail_intent(
        &mut self,
        error: CommandError,
        binding: ChannelBinding,
        requests: &mut Requests,
        now: Instant,
    ) {
        self.drop_intent(&error);
        self.next_step(binding, now);
        if let Gate::Shut(error) = self.gate() {
            requests.fail_waiting(&error);
        }
    }

    /// Drops the intent, if there is one, and reports why.
    fn drop_intent(&mut self, error: &CommandError) {
        if let Some(intent) = self.intent.take() {
            self.tell(SessionEvent::IntentFailed {
                command: intent.command,
                error: error.clone(),
            });
        }
    }

    fn on_closed(&mut self, reason: ClosedReason, requests: &mut Requests, now: Instant) {
        self.is_closing = false;
        if matches!(
            self.state,
            State::Halted { .. } | State::Idle | State::Waiting { .. }
        ) {
            return;
        }
        let was_asked = matches!(self.state, State::Closing);
        self.state = State::Idle;
        let error = self.parting.take().unwrap_or_else(|| closed_error(reason));
        if self.intent.is_some() && was_asked {
            // It was closed to carry out the intent on a new one.
            requests.fail_all(&error);
            return self.connect();
        }
        self.drop_intent(&error);
        if self.token.is_some() {
            self.retry_later(error, requests, now);
        } else {
            requests.fail_all(&error);
            // Whoever asked for the connection was told of `error`.
            self.tell(SessionEvent::Down {
                error: self.without_token.clone(),
                retry_in: None,
            });
        }
    }

    /// Schedules the next attempt, with exponential back-off. It is jittered, so that peers that lost their
    /// server together do not come back together.
    fn retry_later(&mut self, error: CommandError, requests: &mut Requests, now: Instant) {
        // Whoever asks often is not to wait for longer afterwards.
        if std::mem::take(&mut self.is_hurried) {
            self.failures = self.failures.saturating_sub(1);
        }
        let base = RECONNECT_BACKOFF_FIRST * 2u32.saturating_pow(self.failures.min(16));
        self.failures += 1;
        let delay = base
            .min(RECONNECT_BACKOFF_MAX)
            .mul_f64(self.rng.random_range(0.5..1.5));
        requests.fail_all(&error);
        self.state = State::Waiting {
            since: now,
            until: now + delay,
            error: error.clone(),
        };
        self.tell(SessionEvent::Down {
            error,
            retry_in: Some(delay),
        });
    }

    /// Stops until a person asks for another attempt.
    fn halt(&mut self, error: CommandError, requests: &mut Requests) {
        self.drop_intent(&error);
        requests.fail_all(&error);
        self.close_connection();
        self.state = State::Halted {
            error: error.clone(),
        };
        self.tell(SessionEvent::Down {
            error,
            retry_in: None,
        });
    }

    fn set_step(&mut self, binding: ChannelBinding, step: Step, now: Instant) {
        self.state = State::Authenticating {
            binding,
            step,
            since: now,
        };
    }

    /// Sends a request of a registration or log-in; `step` waits for its answer.
    fn request_login(
        &mut self,
        binding: ChannelBinding,
        step: Step,
        request: LoginRequest,
        now: Instant,
    ) {
        self.set_step(binding, step, now);
        let frame = RequestFrame {
            id: LOGIN_REQUEST,
            request: Request::Login(request),
        };
        self.send(&frame, now);
    }

    /// Sends a frame on the open connection.
    pub(super) fn send(&mut self, frame: &impl serde::Serialize, now: Instant) {
        let mut bytes = Vec::new();
        frame::encode::<CONTROL_FRAME_LEN_MAX>(frame, &mut bytes)
            .expect("every request of ours is far below the limit of a frame");
        self.last_sent = now;
        self.outputs
            .push_back(SessionOutput::Rendezvous(RendezvousOutput::Send(bytes)));
    }

    fn tell(&mut self, event: SessionEvent) {
        self.outputs.push_back(SessionOutput::Event(event));
    }
}

/// Datagrams of the relay as the shell is to send them.
pub(in crate::node) fn relayed(train: RelayDatagrams) -> RendezvousOutput {
    let frame = RequestFrame {
        // Not looked at.
        id: LOGIN_REQUEST,
        request: Request::Relay(train),
    };
    let mut bytes = Vec::new();
    frame::encode::<CONTROL_FRAME_LEN_MAX>(&frame, &mut bytes)
        .expect("the longest train fits a frame");
    RendezvousOutput::SendDatagrams(bytes)
}

fn closed_error(reason: ClosedReason) -> CommandError {
    match reason {
        ClosedReason::Failed(reason) => CommandError::Unreachable(reason),
        ClosedReason::ServerKeyChanged { expected, seen } => {
            CommandError::ServerKeyChanged { expected, seen }
        }
        ClosedReason::Ended => CommandError::Unreachable("the connection was closed".to_owned()),
    }
}

fn password_error(error: PasswordError) -> CommandError {
    match error {
        PasswordError::Wrong => CommandError::WrongPassword,
        PasswordError::Malformed | PasswordError::UnknownStretch | PasswordError::Stretch => {
            CommandError::Invalid(error.to_string())
        }
    }
}
