//! A command's way to the node of its profile: the node of the process that owns the profile, or,
//! when there is none, one of our own that we then talk to in the same way.

use std::time::{Duration, Instant};

use common::id::AccountName;
use common::limits::SERVER_WAIT_MAX;
use common::os::bind::BindAddress;
use common::os::lock::FolderLock;
use common::time::UnixTime;
use common::tls::ServerTrust;
use common::wire::peer::MessageBody;
use common::wire::rendezvous::Refusal;

use crate::client::{CallError, Client, Happening, Inbox, Notifier, now};
use crate::config::{ATTACH_TIMEOUT, CALL_TIMEOUT, READY_TIMEOUT, RECONNECT_PAUSE, shown_path};
use crate::failure::{Exit, Failure};
use crate::node::PathRule;
use crate::node::command::{
    Command, CommandError, ConnectionState, Direction, Event, HistoryItem, HistoryQuery,
    NodeStatus, Reply,
};
use crate::profile::{Profile, ProfileError, Settings, Trust};
use crate::shell::{NodeSettings, RunningNode, StartError};
use crate::ui::{Screen, line};

/// How long to wait before looking again whether the owner has opened its socket.
const ATTACH_PAUSE: Duration = Duration::from_millis(20);

/// Latest messages among which is what another node may have queued: more than all programs of a profile write
/// while one of them ends.
pub(super) const LATEST_COUNT: u32 = 500;

/// How long a person may look at nothing before it is said what is waited for.
pub(super) const SILENCE_MAX: Duration = Duration::from_secs(1);

/// Which ways packets of this device's may take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ways {
    /// Where to bind the UDP socket.
    pub(crate) udp: BindAddress,
    pub(crate) rule: PathRule,
    /// Whether the device announces itself on the local network.
    pub(crate) lan: bool,
    /// Whether the device asks the gateway for a port.
    pub(crate) port_mapping: bool,
}

/// A connection to the profile's node, and the node itself if this process owns the profile.
#[derive(Debug)]
pub(crate) struct NodeHandle {
    profile: Profile,
    settings: Settings,
    ways: Ways,
    inbox: Inbox,
    client: Option<Client>,
    owned: Option<Owned>,
}

#[derive(Debug)]
struct Owned {
    node: RunningNode,
    _ownership: FolderLock,
}

impl NodeHandle {
    /// Opens the profile that `settings` belong to. They may not be saved yet.
    pub(crate) fn open(profile: Profile, settings: Settings, ways: Ways) -> Result<Self, Failure> {
        let inbox = Inbox::with_signals().map_err(|error| {
            Failure::new(Exit::Other, "could not handle signals").because(error)
        })?;
        let mut session = Self {
            profile,
            settings,
            ways,
            inbox,
            client: None,
            owned: None,
        };
        session.attach()?;
        session.check_ways()?;
        Ok(session)
    }

    /// Makes sure that a node of another program keeps to the paths asked for here: they may hide addresses.
    fn check_ways(&mut self) -> Result<(), Failure> {
        const DOING: &str = "keep to the paths asked for";
        let Ways {
            udp,
            rule,
            lan,
            port_mapping,
        } = self.ways;
        let has_wish =
            rule != PathRule::Any || !lan || !port_mapping || udp.chosen_port().is_some();
        if !has_wish || self.is_owner() {
            return Ok(());
        }
        let Reply::Status(node) = self.call(DOING, &Command::Status)? else {
            return Err(Failure::unexpected_reply(DOING));
        };
        let is_at_other_port = match udp.chosen_port() {
            Some(port) => !self.is_at_port(port, DOING)?,
            None => false,
        };
        let broken = [
            ("--udp", is_at_other_port),
            ("--path", rule != PathRule::Any && node.rule != rule),
            ("--no-lan", !lan && node.lan),
            (
                "--no-port-mapping",
                !port_mapping && node.port_mapping.is_permitted(),
            ),
        ];
        let Some((option, _)) = broken.iter().find(|(_, is_broken)| *is_broken) else {
            return Ok(());
        };
        Err(Failure::new(Exit::Profile, format!("could not use {option}"))
            .because(
                "another 'peer' program of this profile has the connection, and runs without it",
            )
            .next(format!("end that one, or start it with the same {option}")))
    }

    /// Tells whether the node's UDP socket has this port.
    fn is_at_port(&mut self, port: u16, doing: &str) -> Result<bool, Failure> {
        let Reply::Examination(view) = self.call(doing, &Command::Examination)? else {
            return Err(Failure::unexpected_reply(doing));
        };
        Ok(view.local.iter().all(|local| local.port() == port))
    }

    /// The settings that this session was opened with.
    pub(crate) const fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Tells whether this process owns the profile.
    pub(crate) const fn is_owner(&self) -> bool {
        self.owned.is_some()
    }

    /// Takes what threads that read the keyboard hand in.
    pub(crate) fn notifier(&self) -> Notifier {
        self.inbox.notifier()
    }

    /// Has SIGINT wait for its turn from now on: it is a key among others.
    pub(crate) const fn defer_interrupts(&mut self) {
        self.inbox.defer_interrupts();
    }

    /// Has SIGCONT arrive, too, from now on.
    pub(crate) fn tell_when_continued(&self) -> std::io::Result<()> {
        self.inbox.tell_when_continued()
    }

    /// Asks the node; `doing` says in the infinitive what for.
    pub(crate) fn call(&mut self, doing: &str, command: &Command) -> Result<Reply, Failure> {
        self.call_for(doing, command, CALL_TIMEOUT)
    }

    /// Asks the node for something that may take `timeout`.
    pub(crate) fn call_for(
        &mut self,
        doing: &str,
        command: &Command,
        timeout: Duration,
    ) -> Result<Reply, Failure> {
        let result = self.repeated(command, timeout)?;
        result.map_err(|error| self.failure(doing, error))
    }

    /// Asks the node, and if that ends meanwhile with its program another one, or one of our own, where
    /// asking again has no second effect.
    fn repeated(
        &mut self,
        command: &Command,
        timeout: Duration,
    ) -> Result<Result<Reply, CallError>, Failure> {
        let until = now() + timeout;
        let mut is_again = false;
        loop {
            let result = if let Command::Send { to, body, sent } = command
                && is_again
            {
                self.send_rest(to, body, *sent, timeout)
            } else {
                self.try_call(command, timeout)
            };
            let can_repeat = command.is_repeatable() || matches!(command, Command::Send { .. });
            match result {
                Err(error) if error.is_loss() && can_repeat && now() < until => {
                    is_again = true;
                    self.revive()?;
                    if matches!(command, Command::List | Command::SendFile { .. }) {
                        // A node that has just started has no session yet; what keeps it is told by the command.
                        let _ = self.try_call(&Command::WaitReady, timeout);
                    }
                }
                result => return Ok(result),
            }
        }
    }

    /// Sends a text to those of its recipients for whom the node does not have it yet: the node before may
    /// have queued it, and ended before it said so.
    pub(crate) fn send_rest(
        &mut self,
        to: &[AccountName],
        body: &MessageBody,
        sent: UnixTime,
        timeout: Duration,
    ) -> Result<Reply, CallError> {
        let mut ids = Vec::new();
        for with in to {
            let query = HistoryQuery::latest(Some(with.clone()), LATEST_COUNT);
            let command = Command::History(query);
            let Reply::Messages(latest) = self.try_call(&command, timeout)? else {
                return Err(CallError::unexpected());
            };
            let mut latest = latest.into_iter();
            let is_it = |item: &HistoryItem| {
                // The node dates it when it writes it.
                item.direction == Direction::Sent && item.sent >= sent && item.body == *body
            };
            if let Some(known) = latest.find(is_it) {
                ids.push(known.id);
                continue;
            }
            let command = Command::Send {
                to: vec![with.clone()],
                body: body.clone(),
                sent,
            };
            let Reply::Queued(queued) = self.try_call(&command, timeout)? else {
                return Err(CallError::unexpected());
            };
            ids.extend(queued);
        }
        Ok(Reply::Queued(ids))
    }

    /// Asks the node, for callers that know what to do about an error.
    pub(crate) fn try_call(
        &mut self,
        command: &Command,
        timeout: Duration,
    ) -> Result<Reply, CallError> {
        let Some(client) = &mut self.client else {
            return Err(CallError::Gone("there is no connection to it".to_owned()));
        };
        client.call(&mut self.inbox, command, timeout)
    }

    /// The same, and calls `tell` once where that takes longer than a person should wait without a word.
    pub(crate) fn try_call_telling(
        &mut self,
        command: &Command,
        timeout: Duration,
        tell: impl FnOnce(),
    ) -> Result<Reply, CallError> {
        let Some(client) = &mut self.client else {
            return Err(CallError::Gone("there is no connection to it".to_owned()));
        };
        client.call_telling(&mut self.inbox, command, timeout, (SILENCE_MAX, tell))
    }

    /// Asks the node for what only the server knows, and says so where that takes long.
    pub(crate) fn ask_server(
        &mut self,
        doing: &str,
        command: &Command,
        screen: &Screen,
    ) -> Result<Reply, Failure> {
        let text = line::awaiting(&self.settings.server().to_string());
        let tell = || screen.note(screen.error_look.dim(&text));
        match self.try_call_telling(command, CALL_TIMEOUT, tell) {
            // The next node is asked as ever.
            Err(error) if error.is_loss() => self.call(doing, command),
            result => result.map_err(|error| self.failure(doing, error)),
        }
    }

    /// Tells whether nobody can be reached, as everything is to go through a relay that the server has not; as far as
    /// the node knows.
    pub(crate) fn lacks_relay(&mut self) -> bool {
        let status = self.try_call(&Command::Status, CALL_TIMEOUT);
        matches!(status, Ok(Reply::Status(status)) if status.lacks_relay())
    }

    /// The same for a command that waits for nothing else: where there is to be a relay, the node has a moment to learn
    /// whether there is one.
    pub(crate) fn may_lack_relay(&mut self) -> bool {
        if self.ways.rule == PathRule::Relayed {
            // Without a server nobody knows.
            let _ = self.try_call(&Command::WaitReady, SILENCE_MAX);
        }
        self.lacks_relay()
    }

    /// Waits until the node is logged in.
    pub(crate) fn ready(&mut self, doing: &str) -> Result<(), Failure> {
        match self.repeated(&Command::WaitReady, READY_TIMEOUT)? {
            Ok(_) => Ok(()),
            Err(CallError::TimedOut) => {
                let server = self.settings.server().to_string();
                let reason = format!("{server} does not answer");
                let error = CallError::Refused(CommandError::Unreachable(reason));
                Err(Failure::of_call(doing, error))
            }
            Err(error) => Err(self.failure(doing, error)),
        }
    }

    /// The same, and says what it waits for where that takes long.
    pub(crate) fn ready_in_sight(&mut self, doing: &str, screen: &Screen) -> Result<(), Failure> {
        match self.try_call(&Command::WaitReady, SILENCE_MAX) {
            Ok(_) => Ok(()),
            Err(CallError::TimedOut) => {
                let text = format!("Connecting to {}…", self.settings.server());
                screen.note(screen.error_look.dim(&text));
                self.ready(doing)
            }
            // The next node is asked as ever.
            Err(error) if error.is_loss() => self.ready(doing),
            Err(error) => Err(self.failure(doing, error)),
        }
    }

    /// The same for what a person would only type again: waits for a server that is coming back, and says
    /// so once. A device of `to` that is heard on the local network will do, too.
    pub(crate) fn ready_again(
        &mut self,
        doing: &str,
        to: &AccountName,
        screen: &Screen,
    ) -> Result<(), Failure> {
        let until = now() + SERVER_WAIT_MAX;
        let mut is_told = false;
        loop {
            let Err(failure) = self.ready(doing) else {
                return Ok(());
            };
            let status = self.status_while_reconnecting();
            if status.as_ref().is_some_and(|it| it.nearby.contains(to)) {
                return Ok(());
            }
            if now() >= until || status.is_none() {
                return Err(failure);
            }
            if !is_told {
                is_told = true;
                let server = self.settings.server();
                let text = format!(
                    "{server} cannot be reached; waiting for it to come back, for at most {} s.",
                    SERVER_WAIT_MAX.as_secs()
                );
                screen.note(screen.error_look.dim(&text));
            }
            let pause = self.inbox.pause(RECONNECT_PAUSE);
            pause.map_err(|error| Failure::of_call(doing, error))?;
        }
    }

    /// Lets some time pass.
    pub(crate) fn pause(&mut self, doing: &str, span: Duration) -> Result<(), Failure> {
        let until = now() + span;
        while now() < until {
            let paused = self.inbox.pause(until.saturating_duration_since(now()));
            paused.map_err(|error| Failure::of_call(doing, error))?;
        }
        Ok(())
    }

    /// Tells whether neighbours may be heard while the server is away and tried again.
    pub(crate) fn may_hear_neighbours(&mut self) -> bool {
        let status = self.status_while_reconnecting();
        status.is_some_and(|status| status.lan)
    }

    /// Tells whether the server is away, and tried again.
    pub(crate) fn is_reconnecting(&mut self) -> bool {
        self.status_while_reconnecting().is_some()
    }

    /// What the node says of itself, if it tries again by itself.
    fn status_while_reconnecting(&mut self) -> Option<NodeStatus> {
        let Ok(Reply::Status(status)) = self.try_call(&Command::Status, CALL_TIMEOUT) else {
            return None;
        };
        let is_reconnecting = match &status.connection {
            ConnectionState::Connecting | ConnectionState::Online => true,
            ConnectionState::Offline {
                is_other_server,
                retry_in_s,
                ..
            } => retry_in_s.is_some() && !is_other_server,
        };
        is_reconnecting.then_some(status)
    }

    /// Tells what the owner of the account must know and what came while replies were awaited: for
    /// commands that do not wait for events themselves.
    pub(crate) fn tell_notices(&mut self, screen: &Screen) {
        while let Some(happening) = self.inbox.next(Some(now())) {
            if let Happening::Event(event) = happening {
                tell_notice(&event, screen);
            }
        }
    }

    /// The next thing that happens; `None` when the deadline passes first.
    pub(crate) fn next(&mut self, deadline: Option<Instant>) -> Option<Happening> {
        self.inbox.next(deadline)
    }

    /// After the process with the node has gone: becomes the owner, or finds the new one. Tells
    /// whether this process is the owner now.
    pub(crate) fn revive(&mut self) -> Result<bool, Failure> {
        self.client = None;
        if let Some(owned) = self.owned.take() {
            owned.node.stop();
        }
        self.attach()?;
        Ok(self.owned.is_some())
    }

    /// Connects to the owner's socket, or becomes the owner, and asks for events.
    fn attach(&mut self) -> Result<(), Failure> {
        const DOING: &str = "open the profile";
        let socket = self.profile.socket();
        let deadline = now() + ATTACH_TIMEOUT;
        loop {
            if self.owned.is_none()
                && let Some(ownership) = self.profile.try_own()?
            {
                self.owned = Some(self.run_node(ownership, &socket)?);
            }
            let error = match Client::connect(&socket, &mut self.inbox) {
                Ok(client) => {
                    if self.owned.is_none() {
                        log::info!(
                            "another 'peer' program runs the node of this profile: what the node decides is in that one's log, and --udp, --path, --no-lan and --no-port-mapping are that one's, too"
                        );
                    }
                    let client = self.client.insert(client);
                    match client.subscribe(&mut self.inbox, ATTACH_TIMEOUT) {
                        // An owner that is just dying still had its socket open.
                        Err(CallError::Gone(why)) => std::io::Error::other(why),
                        subscribed => {
                            return subscribed.map_err(|error| Failure::of_call(DOING, error));
                        }
                    }
                }
                Err(error) => error,
            };
            if now() >= deadline {
                return Err(self.is_silent(&error));
            }
            let pause = self.inbox.pause(ATTACH_PAUSE);
            pause.map_err(|error| Failure::of_call(DOING, error))?;
        }
    }

    fn run_node(&self, ownership: FolderLock, socket: &std::path::Path) -> Result<Owned, Failure> {
        let server = self.settings.server();
        let trust = match self.settings.trust {
            Trust::SystemRoots => ServerTrust::SystemRoots,
            Trust::Pinned => match self.profile.known_server(&server)? {
                Some(fingerprint) => ServerTrust::Pinned(fingerprint),
                None => return Err(not_trusted(&self.settings)),
            },
        };
        let node = crate::shell::start(NodeSettings {
            server,
            trust,
            secret: self.profile.device_secret()?,
            device_name: self.settings.device_name.clone(),
            history: self.profile.history(),
            socket: socket.to_owned(),
            udp: self.ways.udp,
            rule: self.ways.rule,
            lan: self.ways.lan,
            port_mapping: self.ways.port_mapping,
        });
        Ok(Owned {
            node: node?,
            _ownership: ownership,
        })
    }

    /// Why a call has no reply, as what `doing` says in the infinitive; a changed key is told with the
    /// name of the server, and a device that is logged out with that of its account.
    pub(crate) fn failure(&self, doing: &str, error: CallError) -> Failure {
        if let CallError::Refused(CommandError::ServerKeyChanged { expected, seen }) = &error {
            let server = self.settings.server().to_string();
            return Failure::server_key_changed(&server, expected, seen);
        }
        let owner = self.settings.account.as_ref();
        if let CallError::Refused(
            CommandError::NotLoggedIn | CommandError::Refused(Refusal::NotLoggedIn),
        ) = &error
        {
            return Failure::not_logged_in(doing, owner);
        }
        let token_refused = CommandError::Refused(Refusal::TokenRefused);
        if matches!(&error, CallError::Refused(error) if *error == token_refused) {
            return Failure::not_known_there(doing, owner);
        }
        if matches!(error, CallError::Refused(CommandError::AccountRemoved)) {
            return Failure::account_removed(doing, owner);
        }
        Failure::of_call(doing, error)
    }

    fn is_silent(&self, error: &std::io::Error) -> Failure {
        let profile = shown_path(self.profile.folder());
        Failure::new(
            Exit::Profile,
            format!("could not open the profile {profile}"),
        )
        .because(format!(
            "it is in use by another process that does not answer: {error}"
        ))
        .next("end the other 'peer' program, or take another profile with --profile NAME")
    }
}

/// Tells of an event that the owner of the account must know, in a command that is about something else.
pub(super) fn tell_notice(event: &Event, screen: &Screen) {
    if let Some(text) = line::warning(event, &screen.error_look) {
        screen.aside(event);
        screen.note(text);
    }
}

impl Drop for NodeHandle {
    /// Stops the node in good order, whichever way a command ends.
    fn drop(&mut self) {
        self.client = None;
        if let Some(owned) = self.owned.take() {
            owned.node.stop();
        }
    }
}

/// The profile is pinned to a server whose key is not known.
fn not_trusted(settings: &Settings) -> Failure {
    let server = settings.server();
    let owner = settings.owner();
    Failure::new(Exit::ServerKey, format!("could not connect to {server}"))
        .because("no key of it is trusted: this profile has forgotten it, or never knew one")
        .next(format!(
            "run 'peer login {owner}' to look at its key and log in again"
        ))
}

impl From<StartError> for Failure {
    fn from(error: StartError) -> Self {
        let failure = |exit| Self::new(exit, "could not start this device").because(&error);
        match &error {
            StartError::Server(_) => failure(Exit::ServerKey)
                .next("correct the server and how it is trusted with 'peer login NAME'"),
            StartError::History(_) => failure(Exit::Profile)
                .next("correct what it says, or take another profile with --profile NAME"),
            StartError::Udp { .. } => {
                failure(Exit::Usage).next("give another address with --udp, or leave it out")
            }
            StartError::Socket { .. } => failure(Exit::Profile)
                .next("check the permissions of the profile's folder and the free space"),
            StartError::System(_) => failure(Exit::Other).next("close some programs and try again"),
        }
    }
}

impl From<ProfileError> for Failure {
    fn from(error: ProfileError) -> Self {
        match &error {
            ProfileError::Newer(..) => Self::new(Exit::Profile, "could not open this profile")
                .because(format!("it is of a newer version: {error}"))
                .next("upgrade this program; the profile was not touched"),
            ProfileError::Damaged(..) => Self::new(Exit::Profile, "could not open this profile")
                .because(format!("it is damaged: {error}"))
                .next("correct or remove that file, or take another profile with --profile NAME"),
            ProfileError::Read(..) | ProfileError::Write(..) => {
                Self::new(Exit::File, "could not open this profile")
                    .because(&error)
                    .next("check the path, its permissions and the free space")
            }
        }
    }
}
