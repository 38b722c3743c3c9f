//! The session with the rendezvous: greeting, registration, log-in, staying alive, reconnecting.
//!
//! It owns the state of the control connection and the token. A password that the server refused is
//! dropped at once and never tried again unasked.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use common::id::{AccountName, DeviceName};
use common::key::{ChannelBinding, DeviceSecret, Role, Statement, Token};
use common::limits::{
    CONTROL_FRAME_LEN_MAX, KEEP_ALIVE_INTERVAL, LOGIN_DEADLINE, RECONNECT_FIRST, RECONNECT_MAX,
};
use common::password::{ClientLogin, ClientRegistration, Password, PasswordError, STRETCH_CURRENT};
use common::wire::frame::{self, FrameBuffer};
use common::wire::rendezvous::{
    AdmissionCode, Answer, ByeReason, DevicePush, DeviceRequest, DirectoryPush, FailedLogins,
    Hello, HelloAnswer, LoggedIn, LoginAnswer, LoginRequest, LoginStart, OpaqueMessage, Push,
    Refusal, Request, RequestFrame, RequestId, ServerFrame, StretchVersion, TokenLogin, VERSION,
};
use rand::RngExt;
use rand::rngs::StdRng;

use crate::node::command::{CommandError, CommandId};
use crate::node::io::{
    AGENT, ClosedReason, RendezvousInput, RendezvousOutput, Work, WorkAnswer, WorkId,
};
use crate::node::purpose::DevicePurpose;
use crate::node::requests::{Gate, Requests};

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
    /// The directory changed, or its watch ended.
    Directory(DirectoryPush),
    /// The account's owner is to be told something.
    Device(DevicePush),
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
    next_work: u64,
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
            next_work: 1,
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

    /// The account of this device, once it has logged in.
    pub(super) fn account(&self) -> Option<&AccountName> {
        self.token.as_ref().map(|(account, _)| account)
    }

    /// Whether requests go to the server as things are.
    pub(super) fn gate(&self) -> Gate {
        match &self.state {
            State::Idle
            | State::Entering {
                step: Step::Nothing,
                ..
            } => Gate::Shut(CommandError::NotLoggedIn),
            State::Halted { error } => Gate::Shut(error.clone()),
            State::Waiting { error, .. } => Gate::Retrying(error.clone()),
            State::Connecting
            | State::Greeting { .. }
            | State::Entering { .. }
            | State::Closing => Gate::Waiting,
            State::Online => Gate::Open,
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
    pub(super) fn shut_down(&mut self, requests: &mut Requests) {
        let error = CommandError::Unreachable("this peer is being stopped".to_owned());
        requests.fail_all(&error);
        self.close_connection();
        self.state = State::Halted { error };
    }

    /// Takes what the shell says of the connection.
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
    pub(super) fn handle_worked(
        &mut self,
        id: WorkId,
        WorkAnswer(result): WorkAnswer,
        requests: &mut Requests,
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
                self.fail_intent(password_error(error), binding, requests, now);
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
    pub(super) fn handle_timeout(&mut self, requests: &mut Requests, now: Instant) {
        if self.poll_timeout(requests).is_none_or(|due| due > now) {
            return;
        }
        match self.state {
            State::Waiting { .. } => self.connect(),
            State::Greeting { .. } | State::Entering { .. } => self.close(),
            State::Online if now >= self.last_received + silence_max() => self.close(),
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
            State::Greeting { since, .. } | State::Entering { since, .. } => {
                Some(*since + LOGIN_DEADLINE)
            }
            State::Online => {
                let silence = self.last_received + silence_max();
                let keep_alive = self.last_sent + KEEP_ALIVE_INTERVAL;
                // An open request keeps alive as well.
                Some(if requests.has_open() {
                    silence
                } else {
                    keep_alive.min(silence)
                })
            }
            State::Idle | State::Halted { .. } | State::Connecting | State::Closing => None,
        }
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

    fn on_received(&mut self, bytes: &[u8], requests: &mut Requests, now: Instant) {
        self.last_received = now;
        self.frames.push(bytes);
        loop {
            let more = match &self.state {
                State::Greeting { binding, .. } => {
                    let binding = *binding;
                    self.frames.next_frame().map(|answer| {
                        answer.map(|answer| self.on_hello(answer, binding, requests, now))
                    })
                }
                State::Entering { .. } | State::Online => self
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
                    log::debug!("the server sent {error}");
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
            ServerFrame::Answer { id: ENTRY, answer } => {
                self.on_entry_answer(answer, requests, now);
            }
            ServerFrame::Answer { id, answer } => requests.on_answer(id, answer),
            ServerFrame::Push(Push::Bye(reason)) => self.on_bye(reason, requests),
            ServerFrame::Push(Push::Directory(push)) => self.tell(SessionEvent::Directory(push)),
            ServerFrame::Push(Push::Device(push)) => self.tell(SessionEvent::Device(push)),
        }
    }

    fn on_bye(&mut self, reason: ByeReason, requests: &mut Requests) {
        match reason {
            ByeReason::Replaced | ByeReason::AccountRemoved => {
                self.halt(CommandError::Unreachable(reason.to_string()), requests);
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
            channel_binding: &binding,
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
        self.entry(
            binding,
            Step::LoggingIn(client),
            Request::Login(LoginRequest::LoginStart(start)),
            now,
        );
    }

    fn on_entry_answer(&mut self, answer: Answer, requests: &mut Requests, now: Instant) {
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
                self.on_logged_in(logged_in)
            }
            (Step::Token, Answer::Refused(Refusal::TokenRefused | Refusal::WrongCredentials)) => {
                self.token = None;
                self.state = State::Entering {
                    binding,
                    step: Step::Nothing,
                    since: now,
                };
                requests.fail_waiting(&CommandError::NotLoggedIn);
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
                self.fail_intent(CommandError::WrongPassword, binding, requests, now);
            }
            (_, Answer::Refused(refusal)) => {
                self.fail_intent(CommandError::Refused(refusal), binding, requests, now)
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
            channel_binding: binding,
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

    fn on_logged_in(&mut self, logged_in: LoggedIn) {
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
    }

    /// Drops what a person asked for, and goes on with the token if there is one.
    fn fail_intent(
        &mut self,
        error: CommandError,
        binding: ChannelBinding,
        requests: &mut Requests,
        now: Instant,
    ) {
        if let Some(intent) = self.intent.take() {
            self.tell(SessionEvent::IntentFailed {
                command: intent.command,
                error,
            });
        }
        self.next_step(binding, now);
        if let Gate::Shut(error) = self.gate() {
            requests.fail_waiting(&error);
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
            // The connection made room for what a person asked for meanwhile.
            requests.fail_all(&error);
            return self.connect();
        }
        if let Some(intent) = self.intent.take() {
            self.tell(SessionEvent::IntentFailed {
                command: intent.command,
                error: error.clone(),
            });
        }
        if matches!(error, CommandError::ServerKeyChanged { .. }) {
            self.halt(error, requests);
        } else if self.token.is_some() {
            self.retry_later(error, requests, now);
        } else {
            self.state = State::Idle;
            requests.fail_all(&error);
            self.tell(SessionEvent::Down {
                error,
                retry_in: None,
            });
        }
    }

    /// Waits for longer the more often it failed, and never for as long as its neighbours: peers that
    /// lost their server together come back spread out.
    fn retry_later(&mut self, error: CommandError, requests: &mut Requests, now: Instant) {
        let base = RECONNECT_FIRST * 2u32.saturating_pow(self.failures.min(16));
        self.failures += 1;
        let delay = base
            .min(RECONNECT_MAX)
            .mul_f64(self.rng.random_range(0.5..1.5));
        requests.fail_all(&error);
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
    fn halt(&mut self, error: CommandError, requests: &mut Requests) {
        if let Some(intent) = self.intent.take() {
            self.tell(SessionEvent::IntentFailed {
                command: intent.command,
                error: error.clone(),
            });
        }
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

    fn entry(&mut self, binding: ChannelBinding, step: Step, request: Request, now: Instant) {
        self.state = State::Entering {
            binding,
            step,
            since: now,
        };
        self.send(&RequestFrame { id: ENTRY, request }, now);
    }

    /// Sends a frame. The connection is there.
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

/// A server that answers no keep-alive for this long is gone.
fn silence_max() -> Duration {
    KEEP_ALIVE_INTERVAL * 3
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
