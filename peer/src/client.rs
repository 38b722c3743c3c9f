//! A client of a profile's socket.
//!
//! Everything that can happen to a command comes through one inbox: replies, events, signals, lines
//! that were typed, and the end of the process at the other side. So there is one thread that
//! decides, and it never waits for one thing while another goes unseen.

use std::collections::VecDeque;
use std::io;
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use common::limits::PROFILE_EVENTS_MAX;
pub(crate) use common::os::clock::now;
use common::os::lines::{LineClient, Message};
use signal_hook::consts::{SIGCONT, SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::{Handle, Signals};

use crate::ended::Ended;
use crate::node::command::{Command, CommandError, Event, Reply};
use crate::shell::control::ProfileDialect;

/// Something that happened while a command ran.
#[derive(Debug)]
pub(crate) enum Happening {
    /// The node tells something.
    Event(Event),
    /// The process with the node has gone, and why.
    Gone(String),
    /// A signal asks this program to end, or SIGCONT tells that it goes on.
    Signal(i32),
    /// Something was typed.
    Typed(Typed),
    /// A line that is not UTF-8 was piped in.
    NotText,
    /// A program that a message was handed over to has ended.
    Handled(Ended),
}

/// What a person did at the keyboard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Typed {
    /// A line, without its end.
    Line(String),
    /// Ctrl-C where nothing was typed.
    Interrupt,
    /// Ctrl-C on a line that was half typed, which is gone.
    Cleared,
    /// Ctrl-D, or the end of the input.
    End,
    /// The line editor has failed. Nothing follows.
    Failed,
}

/// Why a call has no reply.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum CallError {
    /// The node says no.
    Refused(CommandError),
    /// Nothing came in time.
    TimedOut,
    /// The process with the node has gone, and why.
    Gone(String),
    /// A signal asks this program to end.
    Signal(i32),
}

impl CallError {
    /// Tells whether the node ended before it answered: another one can be asked.
    pub(crate) const fn is_loss(&self) -> bool {
        match self {
            Self::Gone(_) => true,
            Self::Refused(error) => matches!(error, CommandError::Stopping),
            Self::TimedOut | Self::Signal(_) => false,
        }
    }

    /// The reply was one to another command.
    pub(crate) fn unexpected() -> Self {
        Self::Refused(CommandError::Invalid("an unexpected reply".to_owned()))
    }
}

/// Tells whether whoever started this program wants it to outlive the terminal, as `nohup` does. Only Linux says so.
fn is_hangup_ignored() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status
        .lines()
        .find_map(|line| line.strip_prefix("SigIgn:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    ignored.is_some_and(|mask| mask & (1 << (SIGHUP - 1)) != 0)
}

#[derive(Debug)]
enum Arrival {
    Reply(u64, Result<Reply, CommandError>),
    /// The owner refuses the connection, and closes it.
    Refused(CommandError),
    Happening(Happening),
}

/// Puts things into a client's inbox from another thread.
#[derive(Clone, Debug)]
pub(crate) struct Notifier(SyncSender<(u64, Arrival)>);

impl Notifier {
    /// Whatever was typed. Fails when the client has gone.
    pub(crate) fn typed(&self, typed: Typed) -> Result<(), Typed> {
        let arrival = Arrival::Happening(Happening::Typed(typed.clone()));
        self.0.send((ANY, arrival)).map_err(|_| typed)
    }

    /// A program has ended that got a message. Tells whether the client need not be told again: it may have no room.
    pub(crate) fn handled(&self, ended: &Ended) -> bool {
        let arrival = Arrival::Happening(Happening::Handled(ended.clone()));
        !matches!(self.0.try_send((ANY, arrival)), Err(TrySendError::Full(_)))
    }

    /// A line came that is not UTF-8. Tells whether the client is still there.
    pub(crate) fn not_text(&self) -> bool {
        let arrival = Arrival::Happening(Happening::NotText);
        self.0.send((ANY, arrival)).is_ok()
    }
}

/// The generation of what does not come from a connection.
const ANY: u64 = 0;

/// Where everything arrives; outlives a connection.
#[derive(Debug)]
pub(crate) struct Inbox {
    sender: SyncSender<(u64, Arrival)>,
    receiver: Receiver<(u64, Arrival)>,
    /// What came while a reply was awaited.
    waiting: VecDeque<Happening>,
    generation: u64,
    /// SIGINT ends nothing that is under way; see [`Inbox::defer_interrupts`].
    defers_interrupts: bool,
    /// Adds to the signals that arrive, if any do.
    signals: Option<Handle>,
}

impl Inbox {
    /// An inbox that signals arrive in from now on, instead of ending the program.
    pub(crate) fn with_signals() -> io::Result<Self> {
        let mut inbox = Self::new();
        let mut signals = Signals::new([SIGINT, SIGTERM])?;
        if !is_hangup_ignored() {
            signals.add_signal(SIGHUP)?;
        }
        inbox.signals = Some(signals.handle());
        let sender = inbox.sender.clone();
        thread::Builder::new()
            .name("signals".to_owned())
            .spawn(move || {
                for signal in signals.forever() {
                    let arrival = Arrival::Happening(Happening::Signal(signal));
                    if sender.send((ANY, arrival)).is_err() {
                        return;
                    }
                }
            })?;
        Ok(inbox)
    }

    fn new() -> Self {
        let (sender, receiver) = sync_channel(PROFILE_EVENTS_MAX);
        Self {
            sender,
            receiver,
            waiting: VecDeque::new(),
            generation: ANY,
            defers_interrupts: false,
            signals: None,
        }
    }

    /// For other threads.
    pub(crate) fn notifier(&self) -> Notifier {
        Notifier(self.sender.clone())
    }

    /// Has SIGINT wait for its turn from now on, where a reply or a time is awaited.
    pub(crate) const fn defer_interrupts(&mut self) {
        self.defers_interrupts = true;
    }

    /// Has SIGCONT arrive, too, from now on. It ends nothing.
    pub(crate) fn tell_when_continued(&self) -> io::Result<()> {
        self.signals
            .as_ref()
            .map_or(Ok(()), |signals| signals.add_signal(SIGCONT))
    }

    /// Tells whether a signal ends what is under way.
    const fn ends(&self, signal: i32) -> bool {
        match signal {
            SIGCONT => false,
            SIGINT => !self.defers_interrupts,
            _ => true,
        }
    }

    /// Waits for at most `span`; a signal ends it early.
    pub(crate) fn pause(&mut self, span: Duration) -> Result<(), CallError> {
        match self.arrival(Some(now() + span)) {
            Some(Arrival::Happening(Happening::Signal(signal))) if self.ends(signal) => {
                Err(CallError::Signal(signal))
            }
            Some(Arrival::Happening(other)) => {
                self.waiting.push_back(other);
                Ok(())
            }
            Some(Arrival::Refused(error)) => {
                self.waiting.push_back(Happening::Gone(error.to_string()));
                Ok(())
            }
            Some(Arrival::Reply(..)) | None => Ok(()),
        }
    }

    /// The next thing that happens; `None` when the deadline passes first.
    pub(crate) fn next(&mut self, deadline: Option<Instant>) -> Option<Happening> {
        if let Some(happening) = self.waiting.pop_front() {
            return Some(happening);
        }
        loop {
            match self.arrival(deadline)? {
                Arrival::Happening(happening) => return Some(happening),
                Arrival::Refused(error) => return Some(Happening::Gone(error.to_string())),
                // Its caller has given up.
                Arrival::Reply(..) => {}
            }
        }
    }

    /// What arrives next from the current connection, or from elsewhere.
    fn arrival(&mut self, deadline: Option<Instant>) -> Option<Arrival> {
        loop {
            let (generation, arrival) = match deadline {
                None => self
                    .receiver
                    .recv()
                    .expect("the inbox holds a sender itself"),
                Some(deadline) => {
                    let span = deadline.saturating_duration_since(now());
                    match self.receiver.recv_timeout(span) {
                        Ok(arrived) => arrived,
                        Err(RecvTimeoutError::Timeout) => return None,
                        Err(RecvTimeoutError::Disconnected) => {
                            unreachable!("the inbox holds a sender itself")
                        }
                    }
                }
            };
            if generation == ANY || generation == self.generation {
                return Some(arrival);
            }
        }
    }
}

/// A connection to the process that owns a profile.
#[derive(Debug)]
pub(crate) struct Client(LineClient<ProfileDialect>);

impl Client {
    /// Connects. What an earlier connection still brings is ignored from now on.
    pub(crate) fn connect(socket: &Path, inbox: &mut Inbox) -> io::Result<Self> {
        let client = LineClient::connect(socket)?;
        let mut reader = client.reader()?;
        inbox.generation += 1;
        inbox
            .waiting
            .retain(|happening| !matches!(happening, Happening::Gone(_)));
        let (generation, sender) = (inbox.generation, inbox.sender.clone());
        thread::Builder::new()
            .name("socket".to_owned())
            .spawn(move || {
                loop {
                    let arrival = Arrival::of(reader.next_message());
                    let is_last = matches!(
                        arrival,
                        Arrival::Refused(_) | Arrival::Happening(Happening::Gone(_))
                    );
                    // When this fails nobody is left to be told.
                    if sender.send((generation, arrival)).is_err() || is_last {
                        return;
                    }
                }
            })?;
        Ok(Self(client))
    }

    /// Asks, and waits for the reply. What happens meanwhile waits in the inbox.
    pub(crate) fn call(
        &mut self,
        inbox: &mut Inbox,
        command: &Command,
        timeout: Duration,
    ) -> Result<Reply, CallError> {
        let sent = self.0.send(command);
        await_reply(inbox, sent, timeout)
    }

    /// The same, and calls `tell` once if there is no reply after `patience`, which is shorter than `timeout`.
    pub(crate) fn call_telling(
        &mut self,
        inbox: &mut Inbox,
        command: &Command,
        timeout: Duration,
        (patience, tell): (Duration, impl FnOnce()),
    ) -> Result<Reply, CallError> {
        let id = self.0.send(command).map_err(gone)?;
        let asked = now();
        match reply_to(inbox, id, asked + patience) {
            Err(CallError::TimedOut) => {
                tell();
                reply_to(inbox, id, asked + timeout)
            }
            replied => replied,
        }
    }

    /// Asks for events from now on.
    pub(crate) fn subscribe(
        &mut self,
        inbox: &mut Inbox,
        timeout: Duration,
    ) -> Result<(), CallError> {
        let sent = self.0.subscribe();
        await_reply(inbox, sent, timeout).map(|_| ())
    }
}

impl Arrival {
    fn of(message: io::Result<Message<ProfileDialect>>) -> Self {
        match message {
            Ok(Message::Reply(id, result)) => Self::Reply(id, result),
            Ok(Message::Event(event)) => Self::Happening(Happening::Event(event)),
            Ok(Message::Refused(error)) => Self::Refused(error),
            Err(error) => Self::Happening(Happening::Gone(error.to_string())),
        }
    }
}

fn await_reply(
    inbox: &mut Inbox,
    sent: io::Result<u64>,
    timeout: Duration,
) -> Result<Reply, CallError> {
    reply_to(inbox, sent.map_err(gone)?, now() + timeout)
}

fn gone(error: io::Error) -> CallError {
    CallError::Gone(error.to_string())
}

fn reply_to(inbox: &mut Inbox, id: u64, deadline: Instant) -> Result<Reply, CallError> {
    loop {
        match inbox.arrival(Some(deadline)) {
            Some(Arrival::Reply(of, result)) if of == id => {
                return result.map_err(CallError::Refused);
            }
            // Its caller has given up.
            Some(Arrival::Reply(..)) => {}
            Some(Arrival::Refused(error)) => {
                inbox.waiting.push_back(Happening::Gone(error.to_string()));
                return Err(CallError::Refused(error));
            }
            Some(Arrival::Happening(Happening::Signal(signal))) if inbox.ends(signal) => {
                return Err(CallError::Signal(signal));
            }
            Some(Arrival::Happening(Happening::Gone(why))) => {
                // A caller that can do without the reply hears of it all the same.
                inbox.waiting.push_back(Happening::Gone(why.clone()));
                return Err(CallError::Gone(why));
            }
            Some(Arrival::Happening(other)) => inbox.waiting.push_back(other),
            None => return Err(CallError::TimedOut),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Write};
    use std::os::unix::net::UnixListener;

    use serde_json::{Value, json};
    use zeroize::Zeroizing;

    use super::*;
    use crate::node::command::{ConnectionState, PasswordText};

    const PATIENCE: Duration = Duration::from_secs(10);

    /// Serves one connection: for each request, what `answer` makes of it, line by line.
    fn serve(
        answer: impl Fn(&Value) -> Vec<String> + Send + 'static,
    ) -> (tempfile::TempDir, std::path::PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let listener = UnixListener::bind(&path).unwrap();
        thread::spawn(move || {
            let (stream, _) = listener.accept().unwrap();
            let mut writer = stream.try_clone().unwrap();
            for line in BufReader::new(stream).lines() {
                let request = serde_json::from_str(&line.unwrap()).unwrap();
                let answers = answer(&request);
                if answers.is_empty() {
                    return;
                }
                for line in answers {
                    writeln!(writer, "{line}").unwrap();
                }
            }
        });
        (folder, path)
    }

    fn connect(path: &Path) -> (Client, Inbox) {
        let mut inbox = Inbox::new();
        (Client::connect(path, &mut inbox).unwrap(), inbox)
    }

    #[test]
    fn events_that_come_before_a_reply_wait_for_their_turn() {
        let (_folder, path) = serve(|request| {
            assert_eq!(request["jsonrpc"], "2.0");
            assert_eq!(request["method"], "list");
            vec![
                r#"{"jsonrpc":"2.0","method":"connection","params":{"state":"online"}}"#.into(),
                r#"{"jsonrpc":"2.0","method":"from_the_future","params":1}"#.into(),
                json!({"jsonrpc": "2.0", "id": request["id"], "result": {"directory": []}})
                    .to_string(),
            ]
        });
        let (mut client, mut inbox) = connect(&path);
        let reply = client.call(&mut inbox, &Command::List, PATIENCE);
        assert_eq!(reply, Ok(Reply::Directory(Vec::new())));
        let happening = inbox.next(Some(now() + PATIENCE));
        let online = matches!(
            happening,
            Some(Happening::Event(Event::Connection(ConnectionState::Online)))
        );
        assert!(online, "{happening:?}");
    }

    #[test]
    fn errors_keep_their_meaning() {
        let (_folder, path) = serve(|request| {
            let error = if request["method"] == "subscribe" {
                json!({"code": -32601, "message": "no such method"})
            } else {
                json!({"code": 1, "message": "…", "data": "not_logged_in"})
            };
            vec![json!({"jsonrpc": "2.0", "id": request["id"], "error": error}).to_string()]
        });
        let (mut client, mut inbox) = connect(&path);
        assert_eq!(
            client.call(&mut inbox, &Command::WaitReady, PATIENCE),
            Err(CallError::Refused(CommandError::NotLoggedIn))
        );
        assert_eq!(
            client.subscribe(&mut inbox, PATIENCE),
            Err(CallError::Refused(CommandError::Invalid(
                "no such method".into()
            )))
        );
    }

    #[test]
    fn an_interrupt_ends_a_call_unless_it_is_deferred() {
        for is_deferred in [false, true] {
            let (_folder, path) = serve(|_| vec![String::new()]);
            let (mut client, mut inbox) = connect(&path);
            if is_deferred {
                inbox.defer_interrupts();
            }
            for signal in [SIGINT, SIGTERM] {
                let arrival = Arrival::Happening(Happening::Signal(signal));
                inbox.sender.send((ANY, arrival)).unwrap();
            }
            let ended = if is_deferred { SIGTERM } else { SIGINT };
            let reply = client.call(&mut inbox, &Command::Status, PATIENCE);
            assert_eq!(reply, Err(CallError::Signal(ended)));
            let next = inbox.next(Some(now() + PATIENCE));
            let left = if is_deferred { SIGINT } else { SIGTERM };
            assert!(matches!(next, Some(Happening::Signal(signal)) if signal == left));
        }
    }

    #[test]
    fn a_process_that_ends_is_noticed() {
        let (_folder, path) = serve(|_| Vec::new());
        let (mut client, mut inbox) = connect(&path);
        let reply = client.call(&mut inbox, &Command::Status, PATIENCE);
        assert!(matches!(reply, Err(CallError::Gone(_))), "{reply:?}");
        let happening = inbox.next(Some(now()));
        assert!(
            matches!(happening, Some(Happening::Gone(_))),
            "{happening:?}"
        );
    }

    #[test]
    fn a_reply_that_does_not_come_is_given_up() {
        let (_folder, path) = serve(|_| vec![String::new()]);
        let (mut client, mut inbox) = connect(&path);
        let reply = client.call(&mut inbox, &Command::Status, Duration::from_millis(20));
        assert_eq!(reply, Err(CallError::TimedOut));
    }

    #[test]
    fn requests_are_one_object_on_one_line() {
        let (_folder, path) = serve(|request| {
            assert_eq!(request["params"]["account"], "alice");
            assert_eq!(request["params"]["password"], "a \"quoted\"\nsecret");
            vec![json!({"jsonrpc": "2.0", "id": request["id"], "result": "done"}).to_string()]
        });
        let (mut client, mut inbox) = connect(&path);
        let command = Command::Register {
            account: "alice".parse().unwrap(),
            password: PasswordText(Zeroizing::new("a \"quoted\"\nsecret".to_owned())),
        };
        assert_eq!(client.call(&mut inbox, &command, PATIENCE), Ok(Reply::Done));
    }
}
