//! The directory: which devices are online, with their candidates.

use std::fmt;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::id::{AccountName, DeviceName};
use crate::key::DeviceKey;
use crate::time::UnixTime;

/// A logged-in device's request to the directory.
#[expect(missing_docs, reason = "the fields' names and types say it all")]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DirectoryRequest {
    /// Announces where this device can be reached, in place of its previous announcement. Answered by
    /// `Done`.
    Announce {
        status: Status,
        /// UDP endpoints, at most [`crate::limits::CANDIDATES_MAX`].
        candidates: Vec<SocketAddr>,
    },
    /// Requests a page of the directory. Answered by `Page`.
    List {
        /// The page starts after this entry; at the beginning if `None`.
        after: Option<Cursor>,
    },
    /// Subscribes to presence changes since a version. Answered by `Done`, or by `Refused(ListAgain)` if
    /// the server no longer remembers that version.
    Watch {
        /// The version of the first page of the last complete listing.
        since: DirectoryVersion,
    },
    /// Ends the subscription of `Watch`. Answered by `Done`.
    Unwatch,
    /// Looks up the online devices of one account. Answered by `Found`.
    Find { account: AccountName },
    /// Looks up the account at which a device is enrolled, for example the one at the other end of a link.
    /// Answered by `Owner`, and by a push of `Unenrolled` when that is over. The server remembers the
    /// latest [`DEVICES_FOLLOWED_MAX`](crate::limits::DEVICES_FOLLOWED_MAX) devices that a session has
    /// asked about.
    WhoIs { device_key: DeviceKey },
}

/// The answer to a [`DirectoryRequest`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DirectoryAnswer {
    /// The request succeeded and has no result.
    Done,
    /// A page of the directory, ordered by account and device key.
    Page {
        /// The version of the directory that the page shows.
        version: DirectoryVersion,
        /// At most [`crate::limits::ENTRIES_PER_PAGE_MAX`].
        entries: Vec<Entry>,
        /// Where the next page starts; `None` on the last page.
        next: Option<Cursor>,
    },
    /// The online devices of an account; empty if none is online or the account is unknown.
    Found {
        /// At most [`crate::limits::DEVICES_PER_ACCOUNT_MAX`], as many as fit a frame.
        entries: Vec<Entry>,
    },
    /// The account at which a device is enrolled.
    Owner {
        /// `None` if the device is not enrolled.
        account: Option<AccountName>,
    },
}

/// A notification from the directory.
#[expect(missing_docs, reason = "the fields' names and types say it all")]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DirectoryPush {
    /// Presence changes, sent to sessions that watch.
    Presence {
        /// The version of the directory after these changes.
        version: DirectoryVersion,
        /// The current state of each device that changed, at most [`crate::limits::CHANGES_PER_PUSH_MAX`].
        changes: Vec<Change>,
    },
    /// The server ends this session's watch, because more changed than the rate limit of one watcher
    /// allows. List again after a back-off, and watch from there.
    ListAgain,
    /// A device that this session has asked about is no longer enrolled at the account that it was told:
    /// the device has logged out or in to another account, or the account was removed.
    Unenrolled {
        account: AccountName,
        device_key: DeviceKey,
    },
}

/// A change of the directory.
#[expect(missing_docs, reason = "the fields' names and types say it all")]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Change {
    /// A device came online, or its announcement changed.
    Online(Entry),
    /// A device went offline.
    Offline {
        account: AccountName,
        device_key: DeviceKey,
    },
}

/// A device in the directory.
#[expect(missing_docs, reason = "the fields' names and types say it all")]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    pub account: AccountName,
    /// The name that its owner gave it.
    pub device_name: DeviceName,
    /// The key that its links prove.
    pub device_key: DeviceKey,
    /// The availability that it announces.
    pub status: Status,
    /// When its session logged in, by the server's clock.
    pub since: UnixTime,
    /// At most [`CANDIDATES_MAX`](crate::limits::CANDIDATES_MAX), most preferred first.
    pub candidates: Vec<Candidate>,
}

/// A UDP endpoint at which a device claims to be reachable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Candidate {
    /// Address and port.
    pub endpoint: SocketAddr,
    /// How the server classifies the endpoint.
    pub kind: CandidateKind,
}

/// How the server classifies a [`Candidate`]; the device cannot choose it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CandidateKind {
    /// The device's control connection comes from this IP address, so it belongs to no third party.
    ServerReflexive,
    /// Any other address: an unverified claim of the device, which may name a third party.
    Host,
}

/// The availability that a device announces.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Available for conversation.
    #[default]
    Available,
    /// Nobody is at the screen.
    Away,
    /// Not to be disturbed.
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

/// The version of the directory: incremented by each change, and greater after a restart of the server
/// than at any time before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct DirectoryVersion(pub u64);

/// The position of an entry in the directory, where a page ended.
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
    use crate::limits::{CANDIDATES_MAX, CONTROL_FRAME_LEN_MAX, ENTRIES_PER_PAGE_MAX};
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
            entries: vec![entry.clone(); ENTRIES_PER_PAGE_MAX],
            next: Some(cursor),
        });
        let answer = ServerFrame::Answer {
            id: RequestId(u32::MAX),
            answer: page,
        };
        let changes = vec![Change::Online(entry); crate::limits::CHANGES_PER_PUSH_MAX];
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
