//! The directory: who is online, and where.

use std::fmt;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::id::{AccountName, DeviceName};
use crate::key::DeviceKey;
use crate::time::UnixTime;

/// What a device that has logged in says and asks of the directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DirectoryRequest {
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
}

/// The answer to a [`DirectoryRequest`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DirectoryAnswer {
    /// It is done.
    Done,
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
}

/// What the directory tells unasked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DirectoryPush {
    /// Who came, changed and left, to a session that watches.
    Presence {
        /// The directory after these changes.
        version: DirectoryVersion,
        /// The present state of what changed, at most [`crate::limits::CHANGES_MAX`]; each device once.
        changes: Vec<Change>,
    },
    /// The server ends this session's watch: more changed than it tells one watcher. List again after a
    /// pause, and watch from there.
    ListAgain,
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

#[cfg(test)]
mod tests {
    use super::super::{Answer, Push, RequestId, ServerFrame};
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

    #[test]
    fn the_largest_page_and_push_fit_a_frame() {
        let entry = largest_entry();
        let cursor = Cursor {
            account: entry.account.clone(),
            device_key: entry.device_key,
        };
        let page = Answer::Directory(DirectoryAnswer::Page {
            version: DirectoryVersion(u64::MAX),
            entries: vec![entry.clone(); PAGE_ENTRIES_MAX],
            next: Some(cursor),
        });
        let answer = ServerFrame::Answer {
            id: RequestId(u32::MAX),
            answer: page,
        };
        let changes = vec![Change::Online(entry); crate::limits::CHANGES_MAX];
        let push = ServerFrame::Push(Push::Directory(DirectoryPush::Presence {
            version: DirectoryVersion(1),
            changes,
        }));
        for message in [answer, push] {
            let mut out = Vec::new();
            frame::encode::<CONTROL_FRAME_LEN_MAX>(&message, &mut out).unwrap();
            let body = &out[frame::PREFIX_LEN..];
            let decoded: ServerFrame = frame::decode::<CONTROL_FRAME_LEN_MAX, _>(body).unwrap();
            assert_eq!(decoded, message);
        }
    }
}
