//! The directory: who is online, and where.

use std::fmt;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::id::{AccountName, DeviceName};
use crate::key::DeviceKey;
use crate::time::UnixTime;

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
        let document = include_str!("../../../PROTOCOL.md");
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
}
