//! Requests to the server, with their purposes: those that wait for the log-in or for room, and those
//! that are open. The account opens and shuts the gate. Every request is answered exactly once, if need
//! be with why the server did not answer.

use std::collections::{BTreeMap, VecDeque};
use std::time::Instant;

use common::limits::{Occupancy, REQUESTS_OPEN_MAX, REQUESTS_WAITING_MAX};
use common::wire::rendezvous::{
    Answer, DeviceAnswer, DirectoryAnswer, Entry, IdentityAnswer, IntroductionAnswer, Refusal,
    Request, RequestFrame, RequestId,
};

use super::command::CommandError;
use super::purpose::{
    DevicePurpose, DirectoryPurpose, IdentityPurpose, IntroductionPurpose, Purpose,
};

/// All requests of a node except those of its log-in.
#[derive(Debug)]
pub(super) struct Requests {
    gate: Gate,
    next: u32,
    /// With when they were sent.
    open: BTreeMap<RequestId, (Purpose, Instant)>,
    waiting: VecDeque<(Purpose, Request)>,
    answered: VecDeque<Answered>,
}

/// Whether requests go to the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Gate {
    /// There is no session, and a person has to act or to know: requests fail at once with this.
    Shut(CommandError),
    /// There is no session, and another log-in is due by itself: requests fail at once with this.
    Retrying(CommandError),
    /// A log-in is under way: requests wait.
    Waiting,
    /// This device is logged in.
    Open,
}

/// What became of a request, by its feature.
#[derive(Debug)]
pub(super) enum Answered {
    Directory(DirectoryPurpose, Result<DirectoryAnswer, CommandError>),
    Device(DevicePurpose, Result<DeviceAnswer, CommandError>),
    Introduction(
        IntroductionPurpose,
        Result<IntroductionAnswer, CommandError>,
    ),
    Identity(IdentityPurpose, Result<Told, CommandError>),
}

/// What the server says about logs.
#[derive(Debug)]
pub(super) enum Told {
    /// To a request about a log.
    Log(IdentityAnswer),
    /// Which devices of this account are online.
    Online(Vec<Entry>),
}

impl Requests {
    /// Starts without requests and with the gate shut.
    pub(super) const fn new() -> Self {
        Self {
            gate: Gate::Shut(CommandError::NotLoggedIn),
            // 0 is the number of all requests of a log-in.
            next: 1,
            open: BTreeMap::new(),
            waiting: VecDeque::new(),
            answered: VecDeque::new(),
        }
    }

    /// The occupancy of each bounded resource.
    pub(super) fn occupancies(&self) -> [Occupancy; 2] {
        [
            Occupancy::new("open requests", self.open.len(), REQUESTS_OPEN_MAX),
            Occupancy::new("waiting requests", self.waiting.len(), REQUESTS_WAITING_MAX),
        ]
    }

    /// Tells whether requests can be sent.
    pub(super) fn is_online(&self) -> bool {
        self.gate == Gate::Open
    }

    /// Why there is no session, unless a log-in is under way.
    pub(super) const fn down(&self) -> Option<&CommandError> {
        match &self.gate {
            Gate::Shut(error) | Gate::Retrying(error) => Some(error),
            Gate::Waiting | Gate::Open => None,
        }
    }

    /// Why this device has no account.
    pub(super) fn without_account(&self) -> CommandError {
        let is_it = |error: &&CommandError| {
            matches!(
                error,
                CommandError::AccountRemoved
                    | CommandError::Replaced
                    | CommandError::Refused(Refusal::TokenRefused)
            )
        };
        let known = self.down().filter(is_it).cloned();
        known.unwrap_or(CommandError::NotLoggedIn)
    }

    /// Tells whether there is no session, and another log-in is due by itself.
    pub(super) const fn is_retrying(&self) -> bool {
        matches!(self.gate, Gate::Retrying(_))
    }

    /// Tells whether so many requests wait that only those of people should be added.
    pub(super) fn is_busy(&self) -> bool {
        self.waiting.len() >= REQUESTS_OPEN_MAX
    }

    /// Tells whether a request can be sent, or was answered.
    pub(super) fn has_output(&self) -> bool {
        let can_send = self.may_send() && !self.waiting.is_empty();
        can_send || !self.answered.is_empty()
    }

    /// Tells whether the server owes an answer.
    pub(super) fn has_open(&self) -> bool {
        !self.open.is_empty()
    }

    /// Since when a person waits for an answer of the server.
    pub(super) fn awaited_since(&self) -> Option<Instant> {
        let open = self.open.values();
        let awaited = open.filter(|(purpose, _)| purpose.is_of_person());
        awaited.map(|(_, sent)| *sent).min()
    }

    /// Asks the server something.
    pub(super) fn ask(&mut self, purpose: Purpose, request: Request) {
        if let Some(error) = self.down().cloned() {
            return self.answer(purpose, Err(error));
        }
        if self.waiting.len() >= REQUESTS_WAITING_MAX {
            let error = CommandError::TooMany("requests".to_owned());
            return self.answer(purpose, Err(error));
        }
        self.waiting.push_back((purpose, request));
    }

    /// Opens or shuts the gate. Waiting and open requests stay: see [`Requests::fail_all`].
    pub(super) fn set_gate(&mut self, gate: Gate) {
        self.gate = gate;
    }

    /// Fails all requests, because the session is gone.
    pub(super) fn fail_all(&mut self, error: &CommandError) {
        for (purpose, _) in std::mem::take(&mut self.open).into_values() {
            self.answer(purpose, Err(error.clone()));
        }
        self.fail_waiting(error);
    }

    /// Fails the requests that wait, because there will be no session.
    pub(super) fn fail_waiting(&mut self, error: &CommandError) {
        for (purpose, _) in std::mem::take(&mut self.waiting) {
            self.answer(purpose, Err(error.clone()));
        }
    }

    /// Takes an answer of the server. One to no open request is ignored.
    pub(super) fn on_answer(&mut self, id: RequestId, answer: Answer) {
        if let Some((purpose, _)) = self.open.remove(&id) {
            self.answer(purpose, Ok(answer));
        }
    }

    /// The next request to send, while fewer than [`REQUESTS_OPEN_MAX`] are open.
    pub(super) fn poll_request(&mut self, now: Instant) -> Option<RequestFrame> {
        if !self.may_send() {
            return None;
        }
        let (purpose, request) = self.waiting.pop_front()?;
        let id = self.free_id();
        self.open.insert(id, (purpose, now));
        Some(RequestFrame { id, request })
    }

    /// The next request that was answered or has failed.
    pub(super) fn poll_answered(&mut self) -> Option<Answered> {
        self.answered.pop_front()
    }

    fn may_send(&self) -> bool {
        self.is_online() && self.open.len() < REQUESTS_OPEN_MAX
    }

    /// The next number that no open request has: numbers wrap around, and an old request may still be
    /// open.
    fn free_id(&mut self) -> RequestId {
        loop {
            let id = RequestId(self.next);
            self.next = self.next.checked_add(1).unwrap_or(1);
            if !self.open.contains_key(&id) {
                return id;
            }
        }
    }

    /// Notes the answer to a request. An answer of another feature than its request is an error.
    fn answer(&mut self, purpose: Purpose, answer: Result<Answer, CommandError>) {
        let answer = match answer {
            Ok(Answer::Refused(refusal)) => Err(CommandError::Refused(refusal)),
            answer => answer,
        };
        self.answered.push_back(match (purpose, answer) {
            (Purpose::Directory(purpose), Ok(Answer::Directory(answer))) => {
                Answered::Directory(purpose, Ok(answer))
            }
            (Purpose::Device(purpose), Ok(Answer::Device(answer))) => {
                Answered::Device(purpose, Ok(answer))
            }
            (Purpose::Introduction(purpose), Ok(Answer::Introduction(answer))) => {
                Answered::Introduction(purpose, Ok(answer))
            }
            (Purpose::Identity(purpose), Ok(Answer::Identity(answer))) => {
                Answered::Identity(purpose, Ok(Told::Log(answer)))
            }
            (
                Purpose::Identity(purpose),
                Ok(Answer::Directory(DirectoryAnswer::Found { entries })),
            ) => Answered::Identity(purpose, Ok(Told::Online(entries))),
            (purpose, Ok(_)) => Answered::failed(purpose, unexpected_reply()),
            (purpose, Err(error)) => Answered::failed(purpose, error),
        });
    }
}

impl Answered {
    fn failed(purpose: Purpose, error: CommandError) -> Self {
        match purpose {
            Purpose::Directory(purpose) => Self::Directory(purpose, Err(error)),
            Purpose::Device(purpose) => Self::Device(purpose, Err(error)),
            Purpose::Introduction(purpose) => Self::Introduction(purpose, Err(error)),
            Purpose::Identity(purpose) => Self::Identity(purpose, Err(error)),
        }
    }
}

/// The error for an answer that its request cannot have.
pub(super) fn unexpected_reply() -> CommandError {
    CommandError::Unreachable("unexpected reply from the server".to_owned())
}

#[cfg(test)]
mod tests {
    use common::wire::rendezvous::{DeviceRequest, DirectoryRequest};

    use super::super::command::CommandId;
    use super::*;

    /// The number that a listing gets, which is answered.
    fn listed(requests: &mut Requests, number: u64, now: Instant) -> u32 {
        let purpose = Purpose::Directory(DirectoryPurpose::List(CommandId(number)));
        let list = DirectoryRequest::List { after: None };
        requests.ask(purpose, Request::Directory(list));
        let sent = requests.poll_request(now).unwrap();
        requests.on_answer(sent.id, Answer::Directory(DirectoryAnswer::Done));
        let answered = requests.poll_answered();
        assert!(
            matches!(
                answered,
                Some(Answered::Directory(DirectoryPurpose::List(CommandId(of)), Ok(_)))
                    if of == number
            ),
            "{answered:?}"
        );
        sent.id.0
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "any instant will do")]
    fn t25_request_numbers_wrap_without_taking_one_that_is_open() {
        let now = Instant::now();
        let mut requests = Requests::new();
        requests.set_gate(Gate::Open);
        // The server never answers this one.
        let purpose = Purpose::Device(DevicePurpose::Admit(CommandId(0)));
        requests.ask(purpose, Request::Device(DeviceRequest::Admit));
        let open = requests.poll_request(now).unwrap().id.0;
        requests.next = u32::MAX - 2;
        let numbers: Vec<u32> = (1..7).map(|n| listed(&mut requests, n, now)).collect();
        assert_eq!(numbers[..3], [u32::MAX - 2, u32::MAX - 1, u32::MAX]);
        assert!(
            !numbers.contains(&open) && !numbers.contains(&0),
            "{numbers:?}"
        );
        // As if all numbers had been used meanwhile.
        requests.next = open;
        assert_ne!(listed(&mut requests, 7, now), open);
        let error = CommandError::Unreachable("the session is gone".to_owned());
        requests.fail_all(&error);
        let ended = requests.poll_answered();
        assert!(
            matches!(
                &ended,
                Some(Answered::Device(DevicePurpose::Admit(CommandId(0)), Err(of))) if *of == error
            ),
            "{ended:?}"
        );
    }
}
