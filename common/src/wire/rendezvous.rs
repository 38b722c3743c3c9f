//! Between a peer and the rendezvous: log-in, directory, presence.
//!
//! The peer speaks first: [`Hello`], answered by a [`HelloAnswer`]. Both keep their shape for ever, so
//! that peers and servers of any age can tell each other what they speak. Then the peer sends
//! [`RequestFrame`]s, each answered once, in any order, and the server may push in between.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::id::{AccountName, DeviceName};
use crate::key::{DeviceKey, Signature, Token};
use crate::limits::{AGENT_LEN_MAX, OPAQUE_MESSAGE_LEN_MAX, VERSIONS_MAX};
use crate::time::UnixTime;

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

/// The first message of a password log-in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoginStart {
    /// Who logs in.
    pub account: AccountName,
    /// This device's key.
    pub device_key: DeviceKey,
    /// What its owner calls this device.
    pub device_name: DeviceName,
    /// OPAQUE KE1.
    pub ke1: OpaqueMessage,
    /// [`crate::key::Statement`] over KE1 in the role `PasswordLogin`.
    pub signature: Signature,
    /// A one-time code, if the owner has one.
    pub code: Option<AdmissionCode>,
}

/// A log-in without a password.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenLogin {
    /// Who logs in.
    pub account: AccountName,
    /// This device's key.
    pub device_key: DeviceKey,
    /// The token of the last log-in.
    pub token: Token,
    /// [`crate::key::Statement`] over the token in the role `TokenLogin`.
    pub signature: Signature,
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

/// A log-in that succeeded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoggedIn {
    /// A new token, after a password log-in or when the old one is due for renewal.
    pub token: Option<Token>,
    /// Failed log-ins since this account's owner was last told.
    pub failed: Option<FailedLogins>,
}

/// Failed password log-ins from devices that the account does not know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailedLogins {
    /// How many.
    pub count: u32,
    /// When the last one was.
    pub last: UnixTime,
    /// Seconds for which strangers are blocked now; 0 when they are not.
    pub blocked_for_s: u32,
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

/// A change of the directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Change {
    /// A device came, or announced something new.
    Online(Entry),
    /// A device left.
    Offline {
        /// Whose.
        account: AccountName,
        /// Which.
        device_key: DeviceKey,
    },
}

/// A device in the directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Whose.
    pub account: AccountName,
    /// What its owner calls it.
    pub device_name: DeviceName,
    /// The key that its links prove.
    pub device_key: DeviceKey,
    /// What it says of itself.
    pub status: Status,
    /// Online since.
    pub since: UnixTime,
    /// Its UDP endpoints, at most [`CANDIDATES_MAX`](crate::limits::CANDIDATES_MAX), the best first.
    pub candidates: Vec<Candidate>,
}

/// A UDP endpoint at which a device says that it can be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Candidate {
    /// Address and port.
    pub endpoint: SocketAddr,
    /// What the server knows of it.
    pub kind: CandidateKind,
}

/// What the server knows of a [`Candidate`]. The device itself has no say in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CandidateKind {
    /// The device's control connection comes from this IP address, so it is no third party's host.
    ServerReflexive,
    /// The device's word alone: the address may be anybody's.
    Host,
}

/// What a device says of itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Ready to talk.
    #[default]
    Available,
    /// Nobody is at the screen.
    Away,
    /// Does not want to be disturbed.
    Busy,
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Available => "available",
            Self::Away => "away",
            Self::Busy => "busy",
        })
    }
}

/// Counts the changes of the directory: grows by one with each, and is larger after a restart of the
/// server than ever before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct DirectoryVersion(pub u64);

/// Where a page of the directory ended.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Cursor {
    /// Account of the last entry.
    pub account: AccountName,
    /// Device key of the last entry.
    pub device_key: DeviceKey,
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

/// An OPAQUE message, opaque also to this layer: at most [`OPAQUE_MESSAGE_LEN_MAX`] bytes.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<u8>", into = "Vec<u8>")]
pub struct OpaqueMessage(Vec<u8>);

impl OpaqueMessage {
    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl TryFrom<Vec<u8>> for OpaqueMessage {
    type Error = OpaqueLengthError;

    fn try_from(bytes: Vec<u8>) -> Result<Self, OpaqueLengthError> {
        if bytes.len() > OPAQUE_MESSAGE_LEN_MAX {
            return Err(OpaqueLengthError);
        }
        Ok(Self(bytes))
    }
}

impl From<OpaqueMessage> for Vec<u8> {
    fn from(message: OpaqueMessage) -> Self {
        message.0
    }
}

impl fmt::Debug for OpaqueMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OpaqueMessage({} bytes)", self.0.len())
    }
}

/// An OPAQUE message is longer than any of the suite.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an OPAQUE message has at most {OPAQUE_MESSAGE_LEN_MAX} bytes")]
pub struct OpaqueLengthError;

/// Which parameters stretch an account's password; see [`crate::password`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StretchVersion(pub u8);

/// A one-time code that admits a new device: 50 random bits as ten characters, shown `xxxxx-xxxxx`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "u64", into = "u64")]
pub struct AdmissionCode(u64);

/// Crockford's base 32: no letter that looks like a digit.
const CODE_ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
const CODE_LEN: u32 = 10;

impl AdmissionCode {
    /// Keeps 50 of 64 random bits.
    pub const fn from_random(bits: u64) -> Self {
        Self(bits & ((1 << (5 * CODE_LEN)) - 1))
    }
}

impl TryFrom<u64> for AdmissionCode {
    type Error = AdmissionCodeError;

    fn try_from(bits: u64) -> Result<Self, AdmissionCodeError> {
        let code = Self::from_random(bits);
        (code.0 == bits).then_some(code).ok_or(AdmissionCodeError)
    }
}

impl From<AdmissionCode> for u64 {
    fn from(code: AdmissionCode) -> Self {
        code.0
    }
}

impl fmt::Display for AdmissionCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for place in (0..CODE_LEN).rev() {
            let digit = (self.0 >> (5 * place)) & 31;
            write!(f, "{}", CODE_ALPHABET[digit as usize] as char)?;
            if place == CODE_LEN / 2 {
                f.write_str("-")?;
            }
        }
        Ok(())
    }
}

impl fmt::Debug for AdmissionCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AdmissionCode(…)")
    }
}

impl FromStr for AdmissionCode {
    type Err = AdmissionCodeError;

    fn from_str(text: &str) -> Result<Self, AdmissionCodeError> {
        let mut bits = 0;
        let mut digits = 0;
        for c in text.bytes().filter(|c| *c != b'-') {
            let c = match c.to_ascii_lowercase() {
                b'o' => b'0',
                b'i' | b'l' => b'1',
                other => other,
            };
            let digit = CODE_ALPHABET.iter().position(|known| *known == c);
            bits = (bits << 5) | digit.ok_or(AdmissionCodeError)? as u64;
            digits += 1;
            if digits > CODE_LEN {
                return Err(AdmissionCodeError);
            }
        }
        if digits == CODE_LEN {
            Ok(Self(bits))
        } else {
            Err(AdmissionCodeError)
        }
    }
}

/// A text is not a one-time code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a one-time code has ten letters and digits, for example 7k2vq-x01mz")]
pub struct AdmissionCodeError;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::DeviceSecret;
    use crate::limits::{CANDIDATES_MAX, CONTROL_FRAME_LEN_MAX, PAGE_ENTRIES_MAX};
    use crate::wire::frame;

    /// The largest entry that the bounds allow.
    fn largest_entry() -> Entry {
        Entry {
            account: "x".repeat(32).parse().unwrap(),
            device_name: DeviceName::lossy(&"x".repeat(64)),
            device_key: DeviceSecret::from_seed([255; 32]).public(),
            status: Status::Busy,
            since: UnixTime::from_millis(u64::MAX),
            candidates: vec![
                Candidate {
                    endpoint: "[ffff:ffff::1]:65535".parse().unwrap(),
                    kind: CandidateKind::Host,
                };
                CANDIDATES_MAX
            ],
        }
    }

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
    fn the_largest_page_and_push_fit_a_frame() {
        let entry = largest_entry();
        let cursor = Cursor {
            account: entry.account.clone(),
            device_key: entry.device_key,
        };
        let page = Answer::Page {
            version: DirectoryVersion(u64::MAX),
            entries: vec![entry.clone(); PAGE_ENTRIES_MAX],
            next: Some(cursor),
        };
        let answer = ServerFrame::Answer {
            id: RequestId(u32::MAX),
            answer: page,
        };
        let changes = vec![Change::Online(entry); crate::limits::CHANGES_MAX];
        let push = ServerFrame::Push(Push::Presence {
            version: DirectoryVersion(1),
            changes,
        });
        for message in [answer, push] {
            let mut out = Vec::new();
            frame::encode::<CONTROL_FRAME_LEN_MAX>(&message, &mut out).unwrap();
            let body = &out[frame::PREFIX_LEN..];
            let decoded: ServerFrame = frame::decode::<CONTROL_FRAME_LEN_MAX, _>(body).unwrap();
            assert_eq!(decoded, message);
        }
    }

    /// The example of PROTOCOL.md section 2.5.
    #[test]
    fn a_page_has_the_bytes_of_the_protocol_document() {
        let candidate = |endpoint: &str, kind| Candidate {
            endpoint: endpoint.parse().unwrap(),
            kind,
        };
        let entry = Entry {
            account: "alice".parse().unwrap(),
            device_name: DeviceName::lossy("laptop"),
            device_key: DeviceSecret::from_seed([7; 32]).public(),
            status: Status::Away,
            since: UnixTime::from_millis(1_700_000_000_000),
            candidates: vec![
                candidate("192.0.2.1:7400", CandidateKind::ServerReflexive),
                candidate("[2001:db8::1]:250", CandidateKind::Host),
            ],
        };
        let answer = Answer::Page {
            version: DirectoryVersion(435_200_000_000_001),
            entries: vec![entry],
            next: None,
        };
        let id = RequestId(7);
        let mut bytes = Vec::new();
        let frame = ServerFrame::Answer { id, answer };
        frame::encode::<CONTROL_FRAME_LEN_MAX>(&frame, &mut bytes).unwrap();
        let document = include_str!("../../PROTOCOL.md");
        let (_, example) = document.split_once("00 00 00 62 |").unwrap();
        let (example, _) = example.split_once("```").unwrap();
        let is_byte = |word: &&str| word.len() == 2 && u8::from_str_radix(word, 16).is_ok();
        let words = example.split_whitespace().filter(is_byte);
        let expected: Vec<u8> = words
            .map(|word| u8::from_str_radix(word, 16).unwrap())
            .collect();
        assert_eq!(bytes[..frame::PREFIX_LEN], [0, 0, 0, 0x62]);
        assert_eq!(bytes[frame::PREFIX_LEN..], expected);
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

    #[test]
    fn codes_survive_their_text_and_forgive_look_alikes() {
        let code = AdmissionCode::from_random(0x1234_5678_9abc_def0);
        let text = code.to_string();
        assert_eq!(text.len(), 11);
        assert_eq!(text.parse::<AdmissionCode>().unwrap(), code);
        assert_eq!(
            "ooooo-llll1".parse(),
            "00000-11111".parse::<AdmissionCode>()
        );
        for bad in ["", "12345", "12345-6789u", "12345-678901"] {
            assert!(bad.parse::<AdmissionCode>().is_err(), "{bad:?}");
        }
    }

    /// It would be shown as ten characters that are another code.
    #[test]
    fn a_code_of_more_than_50_bits_does_not_decode() {
        for (bits, is_code) in [((1u64 << 50) - 1, true), (1 << 50, false)] {
            let mut out = Vec::new();
            frame::encode::<CONTROL_FRAME_LEN_MAX>(&bits, &mut out).unwrap();
            let body = &out[frame::PREFIX_LEN..];
            let decoded = frame::decode::<CONTROL_FRAME_LEN_MAX, AdmissionCode>(body);
            assert_eq!(decoded.is_ok(), is_code);
        }
    }

    #[test]
    fn t16_oversized_opaque_messages_do_not_decode() {
        let mut out = Vec::new();
        frame::encode::<CONTROL_FRAME_LEN_MAX>(&vec![0u8; OPAQUE_MESSAGE_LEN_MAX + 1], &mut out)
            .unwrap();
        let body = &out[frame::PREFIX_LEN..];
        assert!(frame::decode::<CONTROL_FRAME_LEN_MAX, OpaqueMessage>(body).is_err());
    }
}
