//! Between a peer and the rendezvous: log-in, directory, presence.
//!
//! The peer speaks first: [`Hello`], answered by a [`HelloAnswer`]. Both keep their shape for ever, so
//! that peers and servers of any age can tell each other what they speak. Then the peer sends
//! [`RequestFrame`]s, each answered once, in any order, and the server may push in between.

use serde::{Deserialize, Serialize};

// What a device asks for itself and its account.
mod device;
// The directory: who is online, and where.
mod directory;
// Registration and log-in.
mod login;

use crate::limits::{AGENT_LEN_MAX, VERSIONS_MAX};
pub use device::{AdmissionCode, AdmissionCodeError, DeviceAnswer, DevicePush, DeviceRequest};
pub use directory::{
    Candidate, CandidateKind, Change, Cursor, DirectoryAnswer, DirectoryPush, DirectoryRequest,
    DirectoryVersion, Entry, Status,
};
pub use login::{
    FailedLogins, LoggedIn, LoginAnswer, LoginRequest, LoginStart, OpaqueLengthError,
    OpaqueMessage, StretchVersion, TokenLogin,
};

/// The protocol version that this module describes.
pub const VERSION: u16 = 1;

/// The peer's first frame.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// Versions that the peer speaks, at most [`VERSIONS_MAX`].
    pub versions: Vec<u16>,
    /// Program and version, for the log of the other side.
    pub agent: String,
}

impl Hello {
    /// What this build says.
    pub fn ours(agent: &str) -> Self {
        Self {
            versions: vec![VERSION],
            agent: agent.to_owned(),
        }
    }

    /// The version to speak; `None` if there is no common one or the greeting is out of bounds.
    pub fn choose(&self) -> Option<u16> {
        let fair = self.versions.len() <= VERSIONS_MAX && self.agent.len() <= AGENT_LEN_MAX;
        (fair && self.versions.contains(&VERSION)).then_some(VERSION)
    }
}

/// The server's first frame.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum HelloAnswer {
    /// The version that both speak from now on.
    Welcome {
        /// The chosen version.
        version: u16,
        /// Program and version of the server.
        agent: String,
    },
    /// No common version: one of the two needs an upgrade. The server closes.
    Upgrade {
        /// Versions that the server speaks.
        versions: Vec<u16>,
        /// Program and version of the server.
        agent: String,
    },
}

/// Pairs an answer with its request; chosen by the peer, unique among its open requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RequestId(pub u32);

/// A frame from the peer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestFrame {
    /// Comes back in the answer.
    pub id: RequestId,
    /// What is asked.
    pub request: Request,
}

/// What a peer asks, by the feature that answers it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// Registration and log-in: taken before the log-in, and only then.
    Login(LoginRequest),
    /// Who is online and where: taken after the log-in.
    Directory(DirectoryRequest),
    /// This device and its account: taken after the log-in.
    Device(DeviceRequest),
}

impl From<LoginRequest> for Request {
    fn from(request: LoginRequest) -> Self {
        Self::Login(request)
    }
}

impl From<DirectoryRequest> for Request {
    fn from(request: DirectoryRequest) -> Self {
        Self::Directory(request)
    }
}

impl From<DeviceRequest> for Request {
    fn from(request: DeviceRequest) -> Self {
        Self::Device(request)
    }
}

/// A frame from the server, after its `HelloAnswer`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ServerFrame {
    /// Answers a request.
    Answer {
        /// Of the request.
        id: RequestId,
        /// The answer.
        answer: Answer,
    },
    /// Tells something unasked.
    Push(Push),
}

/// The answer to a [`Request`]: a refusal, or an answer of the same feature.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// The server did not do it.
    Refused(Refusal),
    /// Of registration and log-in.
    Login(LoginAnswer),
    /// Of the directory.
    Directory(DirectoryAnswer),
    /// About the device and its account.
    Device(DeviceAnswer),
}

impl From<Refusal> for Answer {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<LoginAnswer> for Answer {
    fn from(answer: LoginAnswer) -> Self {
        Self::Login(answer)
    }
}

impl From<DirectoryAnswer> for Answer {
    fn from(answer: DirectoryAnswer) -> Self {
        Self::Directory(answer)
    }
}

impl From<DeviceAnswer> for Answer {
    fn from(answer: DeviceAnswer) -> Self {
        Self::Device(answer)
    }
}

/// Something that the server tells a session unasked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Push {
    /// The server ends this session.
    Bye(ByeReason),
    /// Of the directory.
    Directory(DirectoryPush),
    /// About the device and its account.
    Device(DevicePush),
}

impl From<ByeReason> for Push {
    fn from(reason: ByeReason) -> Self {
        Self::Bye(reason)
    }
}

impl From<DirectoryPush> for Push {
    fn from(push: DirectoryPush) -> Self {
        Self::Directory(push)
    }
}

impl From<DevicePush> for Push {
    fn from(push: DevicePush) -> Self {
        Self::Device(push)
    }
}

/// Why the server ends a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum ByeReason {
    /// The server is being stopped; come back, spread out.
    #[error("the server is shutting down")]
    ShuttingDown,
    /// The same device logged in again elsewhere.
    #[error("this device logged in again from another place")]
    Replaced,
    /// The account was removed.
    #[error("the account was removed by the operator")]
    AccountRemoved,
    /// It did not log in, or was silent, for too long.
    #[error("nothing was heard from this peer for too long")]
    TimedOut,
    /// It sent something that is not part of this protocol.
    #[error("this peer sent something that is not part of the protocol")]
    Malformed,
    /// It did not read what was sent to it.
    #[error("this peer reads too slowly")]
    TooSlow,
    /// Too many connections are not logged in, and this one makes room; come back, spread out.
    #[error("the server has too many connections that are not logged in")]
    Crowded,
}

/// Why the server did not do what was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum Refusal {
    /// No such account, or not its password: the server does not tell which.
    #[error("unknown account or wrong password")]
    WrongCredentials,
    /// Too many failures; an attempt before that changes nothing.
    #[error("too many failed log-ins; try again in {retry_after_s} s")]
    Blocked {
        /// Seconds until the next attempt counts.
        retry_after_s: u32,
    },
    /// The token is not, or no longer, this device's: the password is needed.
    #[error("this device's token is no longer valid; log in with the password")]
    TokenRefused,
    /// The server registers nobody.
    #[error("this server does not register accounts itself; ask its operator for one")]
    RegistrationClosed,
    /// Too many registrations from one source.
    #[error("too many registrations from this address; try again in {retry_after_s} s")]
    RegistrationLimit {
        /// Seconds until the next attempt.
        retry_after_s: u32,
    },
    /// The name is taken.
    #[error("an account of this name exists already")]
    AccountExists,
    /// The account has as many devices as it may have.
    #[error("this account has too many devices; remove one first")]
    DeviceLimit,
    /// Only after a log-in.
    #[error("log in first")]
    NotLoggedIn,
    /// Not in this state of the session.
    #[error("this request does not belong here")]
    OutOfOrder,
    /// The request exceeds a bound of the protocol.
    #[error("the request exceeds a limit of the server")]
    LimitExceeded,
    /// The directory moved on too far; LIST again.
    #[error("the directory has moved on; list it again")]
    ListAgain,
    /// The server has too much to do.
    #[error("the server is busy; try again in {retry_after_s} s")]
    Busy {
        /// Seconds to wait.
        retry_after_s: u32,
    },
    /// The server's store failed; the operator's log says why.
    #[error("the server could not store or read this; its operator's log says why")]
    StoreFailed,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::CONTROL_FRAME_LEN_MAX;
    use crate::wire::frame;

    /// PROTOCOL.md section 2.4 names these numbers.
    #[test]
    fn t16_frames_of_very_many_small_integers_do_not_decode() {
        fn decodes<T: Serialize + serde::de::DeserializeOwned>(value: &T) -> bool {
            let mut out = Vec::new();
            frame::encode::<CONTROL_FRAME_LEN_MAX>(value, &mut out).unwrap();
            frame::decode::<CONTROL_FRAME_LEN_MAX, T>(&out[frame::PREFIX_LEN..]).is_ok()
        }
        let hello = |versions| Hello {
            versions: vec![1; versions],
            agent: String::new(),
        };
        assert!(decodes(&hello(32_760)));
        assert!(!decodes(&hello(32_761)));
        let announce = |candidates| RequestFrame {
            id: RequestId(1),
            request: Request::Directory(DirectoryRequest::Announce {
                status: Status::Available,
                candidates: vec!["192.0.2.1:9".parse().unwrap(); candidates],
            }),
        };
        assert!(decodes(&announce(6_551)));
        assert!(!decodes(&announce(6_552)));
    }

    #[test]
    fn versions_are_agreed_on_or_not() {
        assert_eq!(Hello::ours("x").choose(), Some(VERSION));
        let newer = Hello {
            versions: vec![2, 3],
            agent: String::new(),
        };
        assert_eq!(newer.choose(), None);
        let greedy = Hello {
            versions: vec![VERSION; VERSIONS_MAX + 1],
            agent: String::new(),
        };
        assert_eq!(greedy.choose(), None);
    }
}
