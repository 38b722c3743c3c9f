//! Tests that every kind of message is whole or nothing.

use std::fmt::Debug;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::frame::{self, FrameBuffer, FrameError, PREFIX_LEN};
use super::peer::*;
use super::rendezvous::*;
use crate::hash::{FileDigest, LeafHash};
use crate::id::{AccountName, DeviceName, MessageId, TransferId};
use crate::key::{DeviceKey, DeviceSecret, Signature, Token};
use crate::limits::CONTROL_FRAME_LEN_MAX;
use crate::time::UnixTime;

const MAX: usize = CONTROL_FRAME_LEN_MAX;

/// Cuts a value at each byte, puts a byte behind it and turns each of its bits over.
fn check<T: Serialize + DeserializeOwned + PartialEq + Debug>(value: &T) {
    let mut bytes = Vec::new();
    frame::encode::<MAX>(value, &mut bytes).unwrap();
    let body = &bytes[PREFIX_LEN..];
    assert_eq!(frame::decode::<MAX, T>(body).as_ref(), Ok(value));
    for cut in 0..body.len() {
        let part = frame::decode::<MAX, T>(&body[..cut]);
        assert_eq!(part, Err(FrameError::Malformed), "{value:?} cut at {cut}");
        // The same on a stream: nothing comes before all of it has.
        let mut stream = FrameBuffer::<MAX>::new();
        stream.push(&bytes[..PREFIX_LEN + cut]);
        assert_eq!(stream.next_frame::<T>(), Ok(None));
        stream.push(&bytes[PREFIX_LEN + cut..]);
        assert_eq!(stream.next_frame::<T>().unwrap().as_ref(), Some(value));
        for bit in 0..8 {
            let mut flipped = body.to_vec();
            flipped[cut] ^= 1 << bit;
            // Another value or none, and no panic.
            let _ = frame::decode::<MAX, T>(&flipped);
        }
    }
    let longer = [body, &[0]].concat();
    let longer = frame::decode::<MAX, T>(&longer);
    assert_eq!(longer, Err(FrameError::TrailingBytes), "{value:?}");
}

fn account() -> AccountName {
    "alice".parse().unwrap()
}

fn key() -> DeviceKey {
    DeviceSecret::from_seed([7; 32]).public()
}

fn opaque() -> OpaqueMessage {
    OpaqueMessage::try_from(vec![9; 96]).unwrap()
}

fn signature() -> Signature {
    Signature::try_from(vec![5; 64]).unwrap()
}

fn entry() -> Entry {
    Entry {
        account: account(),
        device_name: DeviceName::lossy("laptop"),
        device_key: key(),
        status: Status::Away,
        since: UnixTime::from_millis(1_700_000_000_000),
        candidates: vec![
            Candidate {
                endpoint: "192.0.2.1:4000".parse().unwrap(),
                kind: CandidateKind::ServerReflexive,
            },
            Candidate {
                endpoint: "[2001:db8::1]:4000".parse().unwrap(),
                kind: CandidateKind::Host,
            },
        ],
    }
}

fn failed() -> FailedLogins {
    FailedLogins {
        count: 3,
        last: UnixTime::from_millis(1_700_000_000_000),
        blocked_for_s: 60,
    }
}

#[test]
fn t16_every_greeting_and_request_is_whole_or_nothing() {
    check(&Hello::ours("test"));
    let agent = || "test".to_owned();
    check(&HelloAnswer::Welcome {
        version: 1,
        agent: agent(),
    });
    check(&HelloAnswer::Upgrade {
        versions: vec![1, 300],
        agent: agent(),
    });
    let cursor = Cursor {
        account: account(),
        device_key: key(),
    };
    let requests = [
        Request::RegisterStart {
            account: account(),
            message: opaque(),
        },
        Request::RegisterFinish {
            upload: opaque(),
            stretch: StretchVersion(1),
        },
        Request::LoginStart(LoginStart {
            account: account(),
            device_key: key(),
            device_name: DeviceName::lossy("laptop"),
            ke1: opaque(),
            signature: signature(),
            code: Some(AdmissionCode::from_random(77)),
        }),
        Request::LoginFinish { ke3: opaque() },
        Request::TokenLogin(TokenLogin {
            account: account(),
            device_key: key(),
            token: Token::from_bytes([3; 32]),
            signature: signature(),
        }),
        Request::Announce {
            status: Status::Busy,
            candidates: vec![
                "192.0.2.1:4000".parse().unwrap(),
                "[2001:db8::1]:4000".parse().unwrap(),
            ],
        },
        Request::List {
            after: Some(cursor),
        },
        Request::List { after: None },
        Request::Watch {
            since: DirectoryVersion(70_000),
        },
        Request::Unwatch,
        Request::Find { account: account() },
        Request::WhoIs { device_key: key() },
        Request::Admit,
        Request::LogOut,
        Request::KeepAlive,
    ];
    for request in requests {
        let id = RequestId(300);
        check(&RequestFrame { id, request });
    }
}

#[test]
fn t16_every_answer_and_push_is_whole_or_nothing() {
    let retry_after_s = 61;
    let refusals = [
        Refusal::WrongCredentials,
        Refusal::Blocked { retry_after_s },
        Refusal::TokenRefused,
        Refusal::RegistrationClosed,
        Refusal::RegistrationLimit { retry_after_s },
        Refusal::AccountExists,
        Refusal::DeviceLimit,
        Refusal::NotLoggedIn,
        Refusal::OutOfOrder,
        Refusal::LimitExceeded,
        Refusal::ListAgain,
        Refusal::Busy { retry_after_s },
        Refusal::StoreFailed,
    ];
    let answers = [
        Answer::Done,
        Answer::RegisterChallenge { message: opaque() },
        Answer::LoginChallenge {
            ke2: opaque(),
            stretch: StretchVersion(1),
        },
        Answer::LoggedIn(LoggedIn {
            token: Some(Token::from_bytes([3; 32])),
            failed: Some(failed()),
        }),
        Answer::Page {
            version: DirectoryVersion(5),
            entries: vec![entry(), entry()],
            next: Some(Cursor {
                account: account(),
                device_key: key(),
            }),
        },
        Answer::Found {
            entries: vec![entry()],
        },
        Answer::Owner {
            account: Some(account()),
        },
        Answer::Admission {
            code: AdmissionCode::from_random(77),
            expires_in_s: 600,
        },
    ];
    for answer in answers.into_iter().chain(refusals.map(Answer::Refused)) {
        let id = RequestId(300);
        check(&ServerFrame::Answer { id, answer });
    }
    let offline = Change::Offline {
        account: account(),
        device_key: key(),
    };
    let byes = [
        ByeReason::ShuttingDown,
        ByeReason::Replaced,
        ByeReason::AccountRemoved,
        ByeReason::TimedOut,
        ByeReason::Malformed,
        ByeReason::TooSlow,
        ByeReason::Crowded,
    ];
    let pushes = [
        Push::Presence {
            version: DirectoryVersion(5),
            changes: vec![Change::Online(entry()), offline],
        },
        Push::FailedLogins(failed()),
        Push::ListAgain,
    ];
    for push in pushes.into_iter().chain(byes.map(Push::Bye)) {
        check(&ServerFrame::Push(push));
    }
}

#[test]
fn t16_every_frame_between_peers_is_whole_or_nothing() {
    check(&PeerHello::ours("test"));
    let transfer = TransferId::from_bytes([4; 16]);
    let reason = || Reason::lossy("no room");
    let declines = [
        DeclineReason::Declined,
        DeclineReason::NoAnswer,
        DeclineReason::Name,
        DeclineReason::LimitExceeded,
        DeclineReason::Storage(reason()),
    ];
    let cancels = [
        CancelReason::Cancelled,
        CancelReason::Source(reason()),
        CancelReason::Storage(reason()),
        CancelReason::Mismatch,
        CancelReason::Protocol,
    ];
    let id = MessageId::from_bytes([8; 16]);
    let frames = [
        PeerFrame::Message(Message {
            id,
            conversation: Conversation::Direct,
            sent: UnixTime::from_millis(1_700_000_000_000),
            body: MessageBody::try_from("grüß dich".to_owned()).unwrap(),
        }),
        PeerFrame::Receipt {
            id,
            state: ReceiptState::Delivered,
        },
        PeerFrame::Receipt {
            id,
            state: ReceiptState::Read,
        },
        PeerFrame::Offer(Offer {
            transfer,
            name: "letter".to_owned(),
            size: 1 << 33,
            executable: true,
        }),
        PeerFrame::Accept {
            transfer,
            have: vec![LeafRange { start: 0, end: 300 }],
        },
        PeerFrame::Sent {
            transfer,
            digest: FileDigest([6; 32]),
        },
        PeerFrame::Received { transfer },
    ];
    let declines = declines.map(|reason| PeerFrame::Decline { transfer, reason });
    let cancels = cancels.map(|reason| PeerFrame::Cancel { transfer, reason });
    for frame in frames.into_iter().chain(declines).chain(cancels) {
        check(&frame);
    }
    check(&LeafHeader {
        transfer,
        index: 70_000,
        hash: LeafHash([2; 32]),
    });
}
