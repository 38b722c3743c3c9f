//! The session with the rendezvous: greeting, registration, log-in, requests, reconnecting.
//!
//! It owns the state of the control connection and nothing else: what the answers mean to messages and
//! links is the node's affair. A password that the server refused is dropped at once and never tried
//! again unasked.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use common::id::{AccountName, DeviceName};
use common::key::{ChannelBinding, DeviceKey, DeviceSecret, Role, Statement, Token};
use common::limits::{
    CONTROL_FRAME_LEN_MAX, Fill, KEEP_ALIVE_INTERVAL, LOGIN_DEADLINE, RECONNECT_FIRST,
    RECONNECT_MAX, REQUESTS_OPEN_MAX, REQUESTS_WAITING_MAX,
};
use common::password::{ClientLogin, ClientRegistration, Password, PasswordError, STRETCH_CURRENT};
use common::wire::frame::{self, FrameBuffer};
use common::wire::rendezvous::{
    AdmissionCode, Answer, ByeReason, DeviceRequest, FailedLogins, Hello, HelloAnswer, LoggedIn,
    LoginAnswer, LoginRequest, LoginStart, OpaqueMessage, Push, Refusal, Request, RequestFrame,
    RequestId, ServerFrame, StretchVersion, TokenLogin, VERSION,
};
use rand::rngs::StdRng;
use rand::{Rng, RngExt};

use super::command::{CommandError, CommandId};
use super::io::{ClosedReason, RendezvousInput, RendezvousOutput, Work, WorkAnswer, WorkId};

/// Program and version, as the other side's log shows them.
pub(super) const AGENT: &str = concat!("peer/", env!("CARGO_PKG_VERSION"));

/// What a session does next.
#[derive(Debug)]
pub(super) enum SessionOutput {
    /// For the shell.
    Rendezvous(RendezvousOutput),
    /// For the shell.
    Work(WorkId, Work),
    /// For the node.
    Event(SessionEvent),
}

/// What a session tells the node.
#[derive(Debug)]
pub(super) enum SessionEvent {
    /// A connection is being made.
    Connecting,
    /// Logged in.
    LoggedIn {
        account: AccountName,
        /// To be kept; replaces the old one.
        token: Option<Token>,
        failed: Option<FailedLogins>,
        /// Whoever asked for this log-in.
        command: Option<CommandId>,
    },
    /// A registration or log-in that somebody asked for came to nothing.
    IntentFailed {
        command: CommandId,
        error: CommandError,
    },
    /// There is no session any more; `retry_in` tells when the next attempt will be.
    Down {
        error: CommandError,
        retry_in: Option<Duration>,
    },
    /// A request was answered, or will not be.
    Answered {
        purpose: Purpose,
        answer: Result<Answer, CommandError>,
    },
    /// The server pushed something.
    Push(Push),
}

/// Why a request was made; comes back with its answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// A person wants to see the directory.
    List(CommandId),
    /// To be told of changes: the directory as it is, then what changes in it.
    Watch,
    /// To be told no more.
    Unwatch,
    /// Where an account can be reached.
    Find(AccountName),
    /// Whose key an inbound link has.
    WhoIs(DeviceKey),
    /// A person wants a one-time code.
    Admit(CommandId),
    /// Where we can be reached.
    Announce,
    /// A person logs out.
    LogOut(CommandId),
    /// To stay alive.
    KeepAlive,
}

/// What a person asked for.
#[derive(Debug)]
pub(super) struct Intent {
    pub(super) command: CommandId,
    pub(super) account: AccountName,
    pub(super) password: Password,
    pub(super) code: Option<AdmissionCode>,
    pub(super) registers: bool,
}

/// The session.
#[derive(Debug)]
pub(super) struct Session {
    secret: DeviceSecret,
    device_name: DeviceName,
    rng: StdRng,
    state: State,
    token: Option<(AccountName, Token)>,
    intent: Option<Intent>,
    frames: FrameBuffer<CONTROL_FRAME_LEN_MAX>,
    next_request: u32,
    next_work: u64,
    open: BTreeMap<RequestId, Purpose>,
    waiting: VecDeque<(Purpose, Request)>,
    failures: u32,
    /// The shell still owes us the answer to a `Close`.
    is_closing: bool,
    /// What the server said before it ended the session.
    parting: Option<CommandError>,
    last_sent: Instant,
    last_received: Instant,
    outputs: VecDeque<SessionOutput>,
}

#[derive(Debug)]
enum State {
    /// Nobody is logged in and nobody wants to be.
    Idle,
    /// The last attempt failed; the next one is due.
    Waiting { until: Instant, error: CommandError },
    /// A person has to act first.
    Halted { error: CommandError },
    /// The shell is connecting.
    Connecting,
    /// Our greeting is out.
    Greeting {
        binding: ChannelBinding,
        since: Instant,
    },
    /// Greeted; a step of a registration or log-in is under way, or none.
    Entering {
        binding: ChannelBinding,
        step: Step,
        since: Instant,
    },
    /// Logged in.
    Online,
    /// We asked for the connection to be closed.
    Closing,
}

#[derive(Debug)]
enum Step {
    /// Nothing to do: the last intent failed and there is no token.
    Nothing,
    /// RegisterStart is out.
    Registering(ClientRegistration),
    /// The password is being stretched for RegisterFinish.
    StretchingRecord(WorkId),
    /// RegisterFinish is out.
    Recording,
    /// LoginStart is out.
    LoggingIn(ClientLogin),
    /// The password is being stretched for LoginFinish.
    Stretching(WorkId),
    /// LoginFinish is out.
    Finishing,
    /// TokenLogin is out.
    Token,
}

/// The request that carries the log-in has a fixed number; all others are larger.
const ENTRY: RequestId = RequestId(0);

impl Session {
    /// A session for a device; connects at once if it has a token.
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
            intent: None,
            frames: FrameBuffer::new(),
            next_request: 1,
            next_work: 1,
            open: BTreeMap::new(),
            waiting: VecDeque::new(),
            failures: 0,
            is_closing: false,
            parting: None,
            last_sent: now,
            last_received: now,
            outputs: VecDeque::new(),
        };
        if session.token.is_some() {
            session.connect();
        }
        session
    }

    /// The number of the next request.
    #[cfg(test)]
    pub(super) const fn next_request(&self) -> u32 {
        self.next_request
    }

    /// As if so many requests had been made.
    #[cfg(test)]
    pub(super) const fn set_next_request(&mut self, number: u32) {
        self.next_request = number;
    }

    /// The account of this device, once it has logged in.
    pub(super) fn account(&self) -> Option<&AccountName> {
        self.token.as_ref().map(|(account, _)| account)
    }

    /// Tells whether requests are answered.
    pub(super) fn is_online(&self) -> bool {
        matches!(self.state, State::Online)
    }

    /// Tells whether so many requests wait that only a person's should be added.
    pub(super) fn is_busy(&self) -> bool {
        self.waiting.len() >= REQUESTS_OPEN_MAX
    }

    /// How full everything is that has a bound.
    pub(super) fn fills(&self) -> [Fill; 2] {
        [
            Fill::new("open requests", self.open.len(), REQUESTS_OPEN_MAX),
            Fill::new("waiting requests", self.waiting.len(), REQUESTS_WAITING_MAX),
        ]
    }

    /// Why there is no session, and none on the way.
    pub(super) fn down(&self) -> Option<CommandError> {
        match &self.state {
            State::Idle => Some(CommandError::NotLoggedIn),
            State::Waiting { error, .. } | State::Halted { error } => Some(error.clone()),
            State::Entering {
                step: Step::Nothing,
                ..
            } => Some(CommandError::NotLoggedIn),
            State::Connecting
            | State::Greeting { .. }
            | State::Entering { .. }
            | State::Online
            | State::Closing => None,
        }
    }

    /// Registers or logs in with a password.
    pub(super) fn enter(&mut self, intent: Intent, now: Instant) {
        if let Some(replaced) = self.intent.replace(intent) {
            let error = CommandError::Invalid("another log-in was started".to_owned());
            self.tell(SessionEvent::IntentFailed {
                command: replaced.command,
                error,
            });
        }
        match &self.state {
            State::Idle | State::Waiting { .. } | State::Halted { .. } => self.connect(),
            State::Entering {
                binding,
                step: Step::Nothing,
                ..
            } => {
                let binding = *binding;
                self.next_step(binding, now);
            }
            State::Online | State::Entering { .. } => self.close(),
            State::Connecting | State::Greeting { .. } | State::Closing => {}
        }
    }

    /// Asks the server something. The answer, or why there is none, comes as an event.
    pub(super) fn request(&mut self, purpose: Purpose, request: Request, now: Instant) {
        if let Some(error) = self.down() {
            return self.tell(SessionEvent::Answered {
                purpose,
                answer: Err(error),
            });
        }
        if self.waiting.len() >= REQUESTS_WAITING_MAX {
            let answer = Err(CommandError::TooMany("requests".to_owned()));
            return self.tell(SessionEvent::Answered { purpose, answer });
        }
        self.waiting.push_back((purpose, request));
        self.send_waiting(now);
    }

    /// A renewed token is on disk: it is used from now on. The server takes the one before until it
    /// has seen the new one, so whoever used that without having it on disk could be locked out by a
    /// crash.
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
        self.close();
    }

    /// Ends the session for good.
    pub(super) fn shut_down(&mut self) {
        let error = CommandError::Unreachable("this peer is being stopped".to_owned());
        self.fail_open(&error);
        self.close_connection();
        self.state = State::Halted { error };
    }

    /// Takes what the shell says of the connection.
    pub(super) fn handle_rendezvous(&mut self, input: RendezvousInput, now: Instant) {
        match input {
            RendezvousInput::Connected { binding, .. } => self.on_connected(binding, now),
            RendezvousInput::Received(bytes) => self.on_received(&bytes, now),
            RendezvousInput::Closed(reason) => self.on_closed(reason, now),
        }
    }

    /// Takes a stretched password.
    pub(super) fn handle_worked(
        &mut self,
        id: WorkId,
        WorkAnswer(result): WorkAnswer,
        now: Instant,
    ) {
        let State::Entering { binding, step, .. } = &self.state else {
            return;
        };
        let binding = *binding;
        match (step, result) {
            // For a connection that is over.
            (Step::StretchingRecord(waits) | Step::Stretching(waits), _) if *waits != id => {}
            (Step::StretchingRecord(_), Ok(upload)) => {
                self.entry(
                    binding,
                    Step::Recording,
                    Request::Login(LoginRequest::RegisterFinish {
                        upload,
                        stretch: STRETCH_CURRENT,
                    }),
                    now,
                );
            }
            (Step::Stretching(_), Ok(ke3)) => {
                self.entry(
                    binding,
                    Step::Finishing,
                    Request::Login(LoginRequest::LoginFinish { ke3 }),
                    now,
                );
            }
            (Step::StretchingRecord(_) | Step::Stretching(_), Err(error)) => {
                self.fail_intent(password_error(error), binding, now);
            }
            (
                Step::Nothing
                | Step::Registering(_)
                | Step::Recording
                | Step::LoggingIn(_)
                | Step::Finishing
                | Step::Token,
                _,
            ) => {}
        }
    }

    /// Keeps the session alive, gives up on a silent server, tries again after a failure.
    pub(super) fn handle_timeout(&mut self, now: Instant) {
        if self.poll_timeout().is_none_or(|due| due > now) {
            return;
        }
        match self.state {
            State::Waiting { .. } => self.connect(),
            State::Greeting { .. } | State::Entering { .. } => self.close(),
            State::Online if now >= self.last_received + silence_max() => self.close(),
            State::Online => self.request(
                Purpose::KeepAlive,
                Request::Device(DeviceRequest::KeepAlive),
                now,
            ),
            State::Idle | State::Halted { .. } | State::Connecting | State::Closing => {}
        }
    }

    /// When [`Session::handle_timeout`] is due.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        match &self.state {
            State::Waiting { until, .. } => Some(*until),
            State::Greeting { since, .. } | State::Entering { since, .. } => {
                Some(*since + LOGIN_DEADLINE)
            }
            State::Online => {
                let silence = self.last_received + silence_max();
                let keep_alive = self.last_sent + KEEP_ALIVE_INTERVAL;
                // An open request keeps alive as well.
                Some(if self.open.is_empty() {
                    keep_alive.min(silence)
                } else {
                    silence
                })
            }
            State::Idle | State::Halted { .. } | State::Connecting | State::Closing => None,
        }
    }

    /// Tells whether there is something to do.
    pub(super) fn has_output(&self) -> bool {
        !self.outputs.is_empty()
    }

    /// The next thing to do.
    pub(super) fn poll_output(&mut self) -> Option<SessionOutput> {
        self.outputs.pop_front()
    }

    /// Connects, at once or as soon as the old connection is closed.
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

    /// Closes the connection, or gives up making one; where there is neither, there is nothing to
    /// close.
    fn close_connection(&mut self) {
        let is_there = match self.state {
            State::Idle | State::Waiting { .. } | State::Halted { .. } => false,
            State::Connecting
            | State::Greeting { .. }
            | State::Entering { .. }
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
        self.state = State::Greeting {
            binding,
            since: now,
        };
        self.send(&Hello::ours(AGENT), now);
    }

    fn on_received(&mut self, bytes: &[u8], now: Instant) {
        self.last_received = now;
        self.frames.push(bytes);
        loop {
            let more = match &self.state {
                State::Greeting { binding, .. } => {
                    let binding = *binding;
                    self.frames
                        .next_frame()
                        .map(|answer| answer.map(|answer| self.on_hello(answer, binding, now)))
                }
                State::Entering { .. } | State::Online => self
                    .frames
                    .next_frame()
                    .map(|frame| frame.map(|frame| self.on_frame(frame, now))),
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
                    log::debug!("the server sent {error}");
                    return self.close();
                }
            }
        }
    }

    fn on_hello(&mut self, answer: HelloAnswer, binding: ChannelBinding, now: Instant) {
        match answer {
            HelloAnswer::Welcome { version, .. } if version == VERSION => {
                self.next_step(binding, now);
            }
            HelloAnswer::Welcome { agent, .. } | HelloAnswer::Upgrade { agent, .. } => {
                let server = common::text::inline(&agent).into_owned();
                self.halt(CommandError::Upgrade { server });
            }
        }
    }

    fn on_frame(&mut self, frame: ServerFrame, now: Instant) {
        match frame {
            ServerFrame::Answer { id: ENTRY, answer } => self.on_entry_answer(answer, now),
            ServerFrame::Answer { id, answer } => {
                if let Some(purpose) = self.open.remove(&id) {
                    self.tell(SessionEvent::Answered {
                        purpose,
                        answer: refused(answer),
                    });
                }
                self.send_waiting(now);
            }
            ServerFrame::Push(Push::Bye(reason)) => self.on_bye(reason),
            ServerFrame::Push(push) => self.tell(SessionEvent::Push(push)),
        }
    }

    fn on_bye(&mut self, reason: ByeReason) {
        match reason {
            ByeReason::Replaced | ByeReason::AccountRemoved => {
                self.halt(CommandError::Unreachable(reason.to_string()));
            }
            ByeReason::ShuttingDown
            | ByeReason::TimedOut
            | ByeReason::Malformed
            | ByeReason::TooSlow
            | ByeReason::Crowded => {
                log::info!("the server ended the session: {reason}");
                self.parting = Some(CommandError::Unreachable(reason.to_string()));
            }
        }
    }

    /// Starts what is to be done first on a fresh connection: what a person asked for, else the token.
    fn next_step(&mut self, binding: ChannelBinding, now: Instant) {
        if let Some(intent) = &self.intent {
            let seed = self.rng.random();
            if intent.registers {
                let (client, message) = ClientRegistration::start(&intent.password, seed);
                let request = Request::Login(LoginRequest::RegisterStart {
                    account: intent.account.clone(),
                    message,
                });
                return self.entry(binding, Step::Registering(client), request, now);
            }
            return self.start_login(binding, seed, now);
        }
        let Some((account, token)) = self.token.clone() else {
            self.state = State::Entering {
                binding,
                step: Step::Nothing,
                since: now,
            };
            return;
        };
        let statement = Statement {
            role: Role::TokenLogin,
            exporter: &binding,
            account: &account,
            content: token.as_bytes(),
        };
        let signature = self.secret.sign(&statement);
        let device_key = self.secret.public();
        let login = TokenLogin {
            account,
            device_key,
            token,
            signature,
        };
        self.entry(
            binding,
            Step::Token,
            Request::Login(LoginRequest::TokenLogin(login)),
            now,
        );
    }

    fn start_login(&mut self, binding: ChannelBinding, seed: [u8; 32], now: Instant) {
        let Some(intent) = &self.intent else { return };
        let (client, ke1) = ClientLogin::start(&intent.password, seed);
        let statement = Statement {
            role: Role::PasswordLogin,
            exporter: &binding,
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
        self.entry(
            binding,
            Step::LoggingIn(client),
            Request::Login(LoginRequest::LoginStart(start)),
            now,
        );
    }

    fn on_entry_answer(&mut self, answer: Answer, now: Instant) {
        let State::Entering { binding, step, .. } =
            std::mem::replace(&mut self.state, State::Connecting)
        else {
            return self.close();
        };
        match (step, answer) {
            (
                Step::Registering(client),
                Answer::Login(LoginAnswer::RegisterChallenge { message }),
            ) => {
                self.stretch_record(client, message, binding, now);
            }
            (Step::Recording, Answer::Login(LoginAnswer::Registered)) => {
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
                self.stretch(client, ke2, stretch, binding, now);
            }
            (Step::Finishing | Step::Token, Answer::Login(LoginAnswer::LoggedIn(logged_in))) => {
                self.on_logged_in(logged_in, now)
            }
            (Step::Token, Answer::Refused(Refusal::TokenRefused | Refusal::WrongCredentials)) => {
                self.token = None;
                self.state = State::Entering {
                    binding,
                    step: Step::Nothing,
                    since: now,
                };
                self.fail_waiting(&CommandError::NotLoggedIn);
                self.tell(SessionEvent::Down {
                    error: CommandError::NotLoggedIn,
                    retry_in: None,
                });
            }
            (Step::Token, Answer::Refused(refusal)) => {
                self.parting = Some(CommandError::Refused(refusal));
                self.close();
            }
            (_, Answer::Refused(Refusal::WrongCredentials)) => {
                self.fail_intent(CommandError::WrongPassword, binding, now);
            }
            (_, Answer::Refused(refusal)) => {
                self.fail_intent(CommandError::Refused(refusal), binding, now)
            }
            (step, answer) => {
                log::debug!("the server answered {step:?} with {answer:?}");
                self.close();
            }
        }
    }

    fn stretch_record(
        &mut self,
        client: ClientRegistration,
        response: OpaqueMessage,
        binding: ChannelBinding,
        now: Instant,
    ) {
        let Some(intent) = &self.intent else {
            return self.close();
        };
        let work = Work::Register {
            client,
            account: intent.account.clone(),
            response,
        };
        let step = Step::StretchingRecord(self.work(work));
        self.state = State::Entering {
            binding,
            step,
            since: now,
        };
    }

    fn stretch(
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
        let account = intent.account.clone();
        let work = Work::LogIn {
            client,
            account,
            ke2,
            stretch,
            binding,
        };
        let step = Step::Stretching(self.work(work));
        self.state = State::Entering {
            binding,
            step,
            since: now,
        };
    }

    fn work(&mut self, work: Work) -> WorkId {
        let id = WorkId(self.next_work);
        self.next_work += 1;
        self.outputs.push_back(SessionOutput::Work(id, work));
        id
    }

    fn on_logged_in(&mut self, logged_in: LoggedIn, now: Instant) {
        let LoggedIn { token, failed } = logged_in;
        let intent = self.intent.take();
        let account = match (&intent, &self.token) {
            (Some(intent), _) => intent.account.clone(),
            (None, Some((account, _))) => account.clone(),
            (None, None) => return self.close(),
        };
        // A renewed one waits for the disk: `adopt`.
        if let Some(token) = &token
            && intent.is_some()
        {
            self.token = Some((account.clone(), token.clone()));
        }
        self.failures = 0;
        self.state = State::Online;
        let command = intent.map(|intent| intent.command);
        self.tell(SessionEvent::LoggedIn {
            account,
            token,
            failed,
            command,
        });
        self.send_waiting(now);
    }

    /// Drops what a person asked for, and goes on with the token if there is one.
    fn fail_intent(&mut self, error: CommandError, binding: ChannelBinding, now: Instant) {
        if let Some(intent) = self.intent.take() {
            self.tell(SessionEvent::IntentFailed {
                command: intent.command,
                error,
            });
        }
        self.next_step(binding, now);
        if let Some(error) = self.down() {
            self.fail_waiting(&error);
        }
    }

    fn on_closed(&mut self, reason: ClosedReason, now: Instant) {
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
            // The connection made room for what a person asked for meanwhile.
            self.fail_open(&error);
            return self.connect();
        }
        if let Some(intent) = self.intent.take() {
            self.tell(SessionEvent::IntentFailed {
                command: intent.command,
                error: error.clone(),
            });
        }
        if matches!(error, CommandError::ServerKeyChanged { .. }) {
            self.halt(error);
        } else if self.token.is_some() {
            self.retry_later(error, now);
        } else {
            self.state = State::Idle;
            self.fail_open(&error);
            self.tell(SessionEvent::Down {
                error,
                retry_in: None,
            });
        }
    }

    /// Waits for longer the more often it failed, and never for as long as its neighbours: peers that
    /// lost their server together come back spread out.
    fn retry_later(&mut self, error: CommandError, now: Instant) {
        let base = RECONNECT_FIRST * 2u32.saturating_pow(self.failures.min(16));
        self.failures += 1;
        let delay = base
            .min(RECONNECT_MAX)
            .mul_f64(self.rng.random_range(0.5..1.5));
        self.fail_open(&error);
        self.state = State::Waiting {
            until: now + delay,
            error: error.clone(),
        };
        self.tell(SessionEvent::Down {
            error,
            retry_in: Some(delay),
        });
    }

    /// Stops until a person acts.
    fn halt(&mut self, error: CommandError) {
        if let Some(intent) = self.intent.take() {
            self.tell(SessionEvent::IntentFailed {
                command: intent.command,
                error: error.clone(),
            });
        }
        self.fail_open(&error);
        self.close_connection();
        self.state = State::Halted {
            error: error.clone(),
        };
        self.tell(SessionEvent::Down {
            error,
            retry_in: None,
        });
    }

    fn fail_open(&mut self, error: &CommandError) {
        for purpose in std::mem::take(&mut self.open).into_values() {
            self.tell(SessionEvent::Answered {
                purpose,
                answer: Err(error.clone()),
            });
        }
        self.fail_waiting(error);
    }

    fn fail_waiting(&mut self, error: &CommandError) {
        for (purpose, _) in std::mem::take(&mut self.waiting) {
            self.tell(SessionEvent::Answered {
                purpose,
                answer: Err(error.clone()),
            });
        }
    }

    fn send_waiting(&mut self, now: Instant) {
        while matches!(self.state, State::Online) && self.open.len() < REQUESTS_OPEN_MAX {
            let Some((purpose, request)) = self.waiting.pop_front() else {
                return;
            };
            let id = self.free_request_id();
            self.open.insert(id, purpose);
            self.send(&RequestFrame { id, request }, now);
        }
    }

    /// The next number that no open request has: they wrap, and one of long ago may still be open.
    fn free_request_id(&mut self) -> RequestId {
        loop {
            let id = RequestId(self.next_request);
            self.next_request = self.next_request.checked_add(1).unwrap_or(1);
            if !self.open.contains_key(&id) {
                return id;
            }
        }
    }

    fn entry(&mut self, binding: ChannelBinding, step: Step, request: Request, now: Instant) {
        self.state = State::Entering {
            binding,
            step,
            since: now,
        };
        self.send(&RequestFrame { id: ENTRY, request }, now);
    }

    fn send(&mut self, frame: &impl serde::Serialize, now: Instant) {
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

/// A server that answers no keep-alive for this long is gone.
fn silence_max() -> Duration {
    KEEP_ALIVE_INTERVAL * 3
}

fn refused(answer: Answer) -> Result<Answer, CommandError> {
    if let Answer::Refused(refusal) = answer {
        return Err(CommandError::Refused(refusal));
    }
    Ok(answer)
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

/// A seed for a child from its parent's generator.
pub(super) fn child_seed(rng: &mut StdRng) -> [u8; 32] {
    let mut seed = [0; 32];
    rng.fill_bytes(&mut seed);
    seed
}
