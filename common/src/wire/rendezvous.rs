//! Between a peer and the rendezvous: log-in, directory, presence.
//!
//! The peer speaks first: [`Hello`], answered by a [`HelloAnswer`]. Both keep their shape for ever, so
//! that peers and servers of any age can tell each other what they speak. Then the peer sends
//! [`RequestFrame`]s, each answered once, in any order, and the server may push in between.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

// What a device asks for itself and its account.
mod device;
// The directory: who is online, and where.
mod directory;
// Registration and log-in.
mod login;

use crate::id::AccountName;
use crate::key::DeviceKey;
use crate::limits::{AGENT_LEN_MAX, VERSIONS_MAX};
pub use device::{AdmissionCode, AdmissionCodeError};
pub use directory::{Candidate, CandidateKind, Change, Cursor, DirectoryVersion, Entry, Status};
pub use login::{
    FailedLogins, LoggedIn, LoginStart, OpaqueLengthError, OpaqueMessage, StretchVersion,
    TokenLogin,
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

/// What a peer asks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// Starts the registration of an account. Answered by `RegisterChallenge`.
    RegisterStart {
        /// The name wanted.
        account: AccountName,
        /// OPAQUE RegistrationRequest.
        message: OpaqueMessage,
    },
    /// Ends the registration. Answered by `Done`; the peer then logs in.
    RegisterFinish {
        /// OPAQUE RegistrationRecord.
        upload: OpaqueMessage,
        /// How the password was stretched for it.
        stretch: StretchVersion,
    },
    /// Starts a password log-in. Answered by `LoginChallenge`.
    LoginStart(LoginStart),
    /// Ends a password log-in. Answered by `LoggedIn`.
    LoginFinish {
        /// OPAQUE KE3.
        ke3: OpaqueMessage,
    },
    /// Logs an enrolled device in. Answered by `LoggedIn`.
    TokenLogin(TokenLogin),
    /// Says where this device can be reached; replaces what it said before. Answered by `Done`.
    Announce {
        /// What others see.
        status: Status,
        /// UDP endpoints, at most [`crate::limits::CANDIDATES_MAX`].
        candidates: Vec<SocketAddr>,
    },
    /// Asks for a page of the directory. Answered by `Page`.
    List {
        /// Continues after this entry; from the start without one.
        after: Option<Cursor>,
    },
    /// Asks for presence changes since a version to be pushed from now on. Answered by `Done`, or
    /// `Refused(ListAgain)` when the server no longer remembers that far back.
    Watch {
        /// The version of the first page of the last complete LIST.
        since: DirectoryVersion,
    },
    /// Ends `Watch`. Answered by `Done`.
    Unwatch,
    /// Asks for the devices of one account that are online. Answered by `Found`.
    Find {
        /// Whose devices.
        account: AccountName,
    },
    /// Asks which account a device key belongs to. Answered by `Owner`.
    WhoIs {
        /// The key that an inbound link proved.
        device_key: DeviceKey,
    },
    /// Asks for a one-time code that admits a new device of this account during a block. Answered by
    /// `Admission`.
    Admit,
    /// Ends this session and revokes the device's token. Answered by `Done`.
    LogOut,
    /// Keeps the session alive. Answered by `Done`.
    KeepAlive,
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

/// The answer to a [`Request`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// It is done.
    Done,
    /// The server did not do it.
    Refused(Refusal),
    /// Registration goes on.
    RegisterChallenge {
        /// OPAQUE RegistrationResponse.
        message: OpaqueMessage,
    },
    /// The log-in goes on. Whether the password is right the peer finds out from this.
    LoginChallenge {
        /// OPAQUE KE2.
        ke2: OpaqueMessage,
        /// How the password of this account is stretched.
        stretch: StretchVersion,
    },
    /// The session is logged in.
    LoggedIn(LoggedIn),
    /// A page of the directory, ordered by account and device key.
    Page {
        /// The directory when this page was made.
        version: DirectoryVersion,
        /// At most [`crate::limits::PAGE_ENTRIES_MAX`].
        entries: Vec<Entry>,
        /// Ask again with this for the rest; `None` on the last page.
        next: Option<Cursor>,
    },
    /// The devices of an account that are online; empty if none is, or if there is no such account.
    Found {
        /// At most [`crate::limits::DEVICES_PER_ACCOUNT_MAX`], as many as fit a frame.
        entries: Vec<Entry>,
    },
    /// The account that a device key belongs to, if any.
    Owner {
        /// The account.
        account: Option<AccountName>,
    },
    /// A one-time code.
    Admission {
        /// To be typed at the new device.
        code: AdmissionCode,
        /// Seconds until it expires.
        expires_in_s: u32,
    },
}

/// Something that the server tells unasked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Push {
    /// Who came, changed and left, to a session that watches.
    Presence {
        /// The directory after these changes.
        version: DirectoryVersion,
        /// The present state of what changed, at most [`crate::limits::CHANGES_MAX`]; each device once.
        changes: Vec<Change>,
    },
    /// Somebody failed to log in to this account.
    FailedLogins(FailedLogins),
    /// The server ends this session.
    Bye(ByeReason),
    /// The server ends this session's watch: more changed than it tells one watcher. List again after a
    /// pause, and watch from there.
    ListAgain,
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
            request: Request::Announce {
                status: Status::Available,
                candidates: vec!["192.0.2.1:9".parse().unwrap(); candidates],
            },
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
