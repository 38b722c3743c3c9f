//! The protocol between a peer and the rendezvous server: log-in, directory, presence.
//!
//! The peer starts with a [`Hello`], answered by a [`HelloAnswer`]. The encoding of both never changes,
//! so that peers and servers of any version can tell each other which versions they speak. Then the peer
//! sends [`RequestFrame`]s, each answered once, in any order, and the server may send pushes at any time. Only
//! datagrams of the relay have no answer.

use serde::{Deserialize, Serialize};

// A device's requests about itself and its account.
mod device;
// The directory: which devices are online, with their candidates.
mod directory;
// The logs of accounts.
mod identity;
// Introductions.
mod introduction;
// Registration and log-in.
mod login;
// Datagrams of the relay where UDP is blocked.
mod relayed;

use crate::limits::{AGENT_LEN_MAX, VERSIONS_MAX};
pub use device::{AdmissionCode, AdmissionCodeError, DeviceAnswer, DevicePush, DeviceRequest};
pub use directory::{
    Candidate, CandidateKind, Change, Cursor, DirectoryAnswer, DirectoryPush, DirectoryRequest,
    DirectoryVersion, Entry, Status,
};
pub use identity::{IdentityAnswer, IdentityPush, IdentityRequest};
pub use introduction::{
    Introduction, IntroductionAnswer, IntroductionPush, IntroductionRequest, Role,
};
pub use login::{
    Enrolment, FailedLogins, LoggedIn, LoginAnswer, LoginRequest, LoginStart, OpaqueLengthError,
    OpaqueMessage, StretchVersion, TokenLogin,
};
pub use relayed::RelayDatagrams;

/// The protocol version that this module describes.
pub const VERSION: u16 = 1;

/// The peer's first frame.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// Versions that the peer speaks, at most [`VERSIONS_MAX`].
    pub versions: Vec<u16>,
    /// Program and version, for the server's log; at most [`AGENT_LEN_MAX`] bytes.
    pub agent: String,
}

impl Hello {
    /// The greeting of this build.
    pub fn ours(agent: &str) -> Self {
        Self {
            versions: vec![VERSION],
            agent: agent.to_owned(),
        }
    }

    /// Chooses the version to speak; `None` if there is no common one or the greeting is out of bounds.
    pub fn choose(&self) -> Option<u16> {
        let fair = self.versions.len() <= VERSIONS_MAX && self.agent.len() <= AGENT_LEN_MAX;
        (fair && self.versions.contains(&VERSION)).then_some(VERSION)
    }
}

/// The server's first frame.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum HelloAnswer {
    /// The connection goes on.
    Welcome {
        /// The version that both sides speak from now on.
        version: u16,
        /// The server's program and version.
        agent: String,
    },
    /// There is no common version, so one side needs an upgrade. The server closes the connection.
    Upgrade {
        /// Versions that the server speaks.
        versions: Vec<u16>,
        /// The server's program and version.
        agent: String,
    },
}

/// Pairs an answer with its request. Chosen by the peer, unique among its open requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RequestId(pub u32);

/// A frame from the peer, after its [`Hello`].
#[expect(missing_docs, reason = "the fields' names and types say it all")]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestFrame {
    /// Returned in the answer.
    pub id: RequestId,
    pub request: Request,
}

/// A peer's request, grouped by the feature that answers it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// Registration and log-in; allowed only before the log-in.
    Login(LoginRequest),
    /// The directory and presence; allowed only after the log-in.
    Directory(DirectoryRequest),
    /// This device and its account; allowed only after the log-in.
    Device(DeviceRequest),
    /// Links to others; allowed only after the log-in.
    Introduction(IntroductionRequest),
    /// Datagrams for the relay; allowed only after the log-in. Not answered: its number may be any.
    Relay(RelayDatagrams),
    /// About the logs of accounts.
    Identity(IdentityRequest),
}

crate::from_parts!(Request {
    Login(LoginRequest),
    Directory(DirectoryRequest),
    Device(DeviceRequest),
    Introduction(IntroductionRequest),
    Relay(RelayDatagrams),
    Identity(IdentityRequest),
});

/// A frame from the server, after its [`HelloAnswer`].
#[expect(missing_docs, reason = "the fields' names and types say it all")]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ServerFrame {
    /// Answers a request.
    Answer {
        /// The request's id.
        id: RequestId,
        answer: Answer,
    },
    /// Informs the peer without a request.
    Push(Push),
}

/// The answer to a [`Request`]: a refusal, or an answer from the same feature.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// The server refused the request.
    Refused(Refusal),
    /// Answers a [`LoginRequest`].
    Login(LoginAnswer),
    /// Answers a [`DirectoryRequest`].
    Directory(DirectoryAnswer),
    /// Answers a [`DeviceRequest`].
    Device(DeviceAnswer),
    /// Answers an [`IntroductionRequest`].
    Introduction(IntroductionAnswer),
    /// To an [`IdentityRequest`].
    Identity(IdentityAnswer),
}

crate::from_parts!(Answer {
    Refused(Refusal),
    Login(LoginAnswer),
    Directory(DirectoryAnswer),
    Device(DeviceAnswer),
    Introduction(IntroductionAnswer),
    Identity(IdentityAnswer),
});

/// A notification from the server, not requested by the peer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Push {
    /// The server ends this connection.
    Bye(ByeReason),
    /// From the directory.
    Directory(DirectoryPush),
    /// About this device's account.
    Device(DevicePush),
    /// Of another device that makes a link.
    Introduction(IntroductionPush),
    /// Datagrams from the relay, to a device whose own come over the control connection.
    Relay(RelayDatagrams),
    /// About the log of this device's account.
    Identity(IdentityPush),
}

crate::from_parts!(Push {
    Bye(ByeReason),
    Directory(DirectoryPush),
    Device(DevicePush),
    Introduction(IntroductionPush),
    Relay(RelayDatagrams),
    Identity(IdentityPush),
});

/// Why the server ends a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum ByeReason {
    /// The server is stopping. Reconnect after a random delay.
    #[error("the server is shutting down")]
    ShuttingDown,
    /// The same device logged in on another connection. Do not reconnect.
    #[error("this device logged in again from another place")]
    Replaced,
    /// The operator removed the account. Do not reconnect.
    #[error("the account was removed by the operator")]
    AccountRemoved,
    /// The peer did not log in in time, or sent nothing for too long.
    #[error("this peer sent nothing for too long")]
    TimedOut,
    /// The peer sent something that is not part of this protocol.
    #[error("this peer sent something that is not part of the protocol")]
    Malformed,
    /// The peer does not read fast enough.
    #[error("this peer reads too slowly")]
    TooSlow,
    /// Too many connections are not logged in, and this one was evicted. Reconnect after a random delay.
    #[error("the server has too many connections that are not logged in")]
    Crowded,
}

/// Why the server refused a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum Refusal {
    /// The account is unknown or the password wrong; the server does not tell which.
    #[error("unknown account or wrong password")]
    WrongCredentials,
    /// Too many log-ins failed. An attempt during the block is not counted.
    #[error("too many failed log-ins; try again in {retry_after_s} s")]
    Blocked {
        /// Seconds until the block ends.
        retry_after_s: u32,
    },
    /// The token is not, or no longer, valid for this device: log in with the password.
    #[error(
        "it does not know this device any more, which has logged out, or whose account was removed; log in with the password"
    )]
    TokenRefused,
    /// Only the operator creates accounts.
    #[error("this server does not register accounts itself; ask its operator for one")]
    RegistrationClosed,
    /// Too many registrations from one source.
    #[error("too many registrations from this address; try again in {retry_after_s} s")]
    RegistrationLimit {
        /// Seconds until the next registration is allowed.
        retry_after_s: u32,
    },
    /// The account name is taken.
    #[error("an account of this name exists already")]
    AccountExists,
    /// The account has [`DEVICES_PER_ACCOUNT_MAX`](crate::limits::DEVICES_PER_ACCOUNT_MAX) devices.
    #[error("this account has too many devices; remove one first")]
    DeviceLimit,
    /// The request is allowed only after a log-in.
    #[error("this connection is not logged in; log in first")]
    NotLoggedIn,
    /// The request is not allowed in the connection's current state.
    #[error("this request is not allowed in the current state of the connection")]
    OutOfOrder,
    /// The request exceeds a bound of the protocol.
    #[error("the request exceeds a limit of the server")]
    LimitExceeded,
    /// The server no longer remembers that version of the directory: list it again.
    #[error("the server no longer remembers this version of the directory; list it again")]
    ListAgain,
    /// The server is overloaded; the request had no effect.
    #[error("the server is busy; try again in {retry_after_s} s")]
    Busy {
        /// Seconds to wait before the next attempt.
        retry_after_s: u32,
    },
    /// The server's store failed.
    #[error("the server cannot access its store; its log tells the operator why")]
    StoreFailed,
    /// The operator does not let the server relay anything.
    #[error("this server relays nothing")]
    RelayOff,
    /// Neither this device nor the recovery key may write into the account's log.
    #[error("this device is not approved by its account")]
    NotApproved,
    /// The entry is not the next one of its author, or not signed by it, or the log has begun another way.
    #[error("the entry does not follow from what the server has of the account's log")]
    EntryRefused,
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
