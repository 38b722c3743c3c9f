//! Frames and the messages of both protocols.

use std::fmt::Debug;

use common::account::{AccountEntry, AccountStatement};
use common::limits::{
    ACCOUNT_NAME_LEN_MAX, CHAINS_PAGE_MAX, CONTROL_FRAME_LEN_MAX, DEVICE_NAME_LEN_MAX,
    ENTRY_BODY_LEN_MAX, HAVE_CHAINS_MAX, LINK_FRAME_LEN_MAX, OPAQUE_MESSAGE_LEN_MAX,
    PAGE_ENTRIES_MAX, PAGE_FRAME_LEN_MAX, REASON_LEN_MAX,
};
use common::log::{Extent, Stretch};
use common::wire::frame::{self, FrameBuffer, FrameError, PREFIX_LEN};
use common::wire::peer::{
    CancelReason, DeclineReason, FileFrame, LEAF_HEADER_LEN_MAX, LeafHeader, LogEntry, LogFrame,
    PeerFrame, PeerHello, Reason,
};
use common::wire::rendezvous::{
    Answer, Change, DeviceAnswer, DevicePush, DeviceRequest, DirectoryAnswer, DirectoryPush,
    DirectoryRequest, Entry, Hello, HelloAnswer, IdentityAnswer, IdentityPush, IdentityRequest,
    IntroductionAnswer, IntroductionPush, IntroductionRequest, LoginAnswer, LoginRequest,
    OpaqueMessage, Push, Request, RequestFrame, ServerFrame,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::feed::Feed;

/// A small limit, so that frames that are too long are easy to find.
const SMALL: usize = 64;

// ---- cutting -----------------------------------------------------------------------------------

pub(super) fn frames(bytes: &[u8]) {
    let mut feed = Feed(bytes);
    let kind = feed.below(3);
    let count = feed.below(9);
    let cuts = feed.take(count);
    match kind {
        0 => any_cutting::<SMALL, (u64, String, Vec<u16>)>(feed.0, cuts),
        1 => any_cutting::<CONTROL_FRAME_LEN_MAX, RequestFrame>(feed.0, cuts),
        _ => any_cutting::<LINK_FRAME_LEN_MAX, PeerFrame>(feed.0, cuts),
    }
}

fn any_cutting<const MAX: usize, T>(stream: &[u8], cuts: &[u8])
where
    T: DeserializeOwned + Serialize + Debug + PartialEq,
{
    let whole = taken::<MAX, T>(&[stream]);
    let pieces = pieces(stream, cuts);
    assert_eq!(taken::<MAX, T>(&pieces), whole, "pieces of {cuts:?}");
}

/// Cuts `stream` into pieces with the lengths `cuts`, again and again; with none it is cut everywhere.
fn pieces<'a>(mut stream: &'a [u8], cuts: &[u8]) -> Vec<&'a [u8]> {
    let lengths: Vec<usize> = cuts.iter().map(|cut| usize::from(*cut)).collect();
    let fallback = [1];
    let is_useful = lengths.iter().any(|len| *len > 0);
    let lengths = if is_useful { &lengths[..] } else { &fallback };
    let mut pieces = Vec::new();
    for len in lengths.iter().cycle() {
        if stream.is_empty() {
            break;
        }
        let (piece, rest) = stream.split_at((*len).min(stream.len()));
        pieces.push(piece);
        stream = rest;
    }
    pieces
}

/// What a buffer makes of pieces: values, then an error or the length of the rest.
fn taken<const MAX: usize, T: DeserializeOwned>(
    pieces: &[&[u8]],
) -> (Vec<T>, Result<usize, FrameError>) {
    let mut buffer = FrameBuffer::<MAX>::new();
    let mut values = Vec::new();
    for piece in pieces {
        buffer.push(piece);
        loop {
            match buffer.next_frame() {
                Ok(Some(value)) => values.push(value),
                Ok(None) => break,
                Err(error) => return (values, Err(error)),
            }
        }
        assert!(buffer.len() < PREFIX_LEN + MAX, "a whole frame stays");
    }
    (values, Ok(buffer.len()))
}

// ---- messages ----------------------------------------------------------------------------------

pub(super) fn rendezvous_frames(body: &[u8]) {
    const MAX: usize = CONTROL_FRAME_LEN_MAX;
    if let Some(hello) = round_trip::<MAX, Hello>(body) {
        let _ = hello.choose();
    }
    round_trip::<MAX, HelloAnswer>(body);
    if let Some(frame) = round_trip::<MAX, RequestFrame>(body) {
        check_request(&frame.request);
    }
    match round_trip::<MAX, ServerFrame>(body) {
        Some(ServerFrame::Answer { answer, .. }) => check_answer(&answer),
        Some(ServerFrame::Push(push)) => check_push(&push),
        None => {}
    }
}

pub(super) fn peer_frames(body: &[u8]) {
    if let Some(hello) = round_trip::<LINK_FRAME_LEN_MAX, PeerHello>(body) {
        let _ = hello.is_compatible();
    }
    round_trip::<LEAF_HEADER_LEN_MAX, LeafHeader>(body);
    if let Some(frame) = round_trip::<LINK_FRAME_LEN_MAX, PeerFrame>(body) {
        check_peer_frame(&frame);
    }
    if let Some(frame) = round_trip::<PAGE_FRAME_LEN_MAX, LogFrame>(body) {
        check_log_frame(frame);
    }
}

/// Decodes; what decodes can be encoded, in no more bytes, and decodes to itself.
fn round_trip<const MAX: usize, T>(body: &[u8]) -> Option<T>
where
    T: DeserializeOwned + Serialize + Debug + PartialEq,
{
    let value: T = frame::decode::<MAX, T>(body).ok()?;
    let mut encoded = Vec::new();
    frame::encode::<MAX>(&value, &mut encoded).expect("what was decoded fits");
    assert!(encoded.len() <= PREFIX_LEN + body.len(), "{value:?} grew");
    let again: T = frame::decode::<MAX, T>(&encoded[PREFIX_LEN..]).expect("what was encoded");
    assert_eq!(again, value);
    Some(value)
}

fn check_request(request: &Request) {
    match request {
        Request::Login(request) => check_login_request(request),
        Request::Directory(request) => check_directory_request(request),
        Request::Device(
            DeviceRequest::Admit
            | DeviceRequest::LogOut
            | DeviceRequest::KeepAlive
            | DeviceRequest::Noted { .. },
        )
        | Request::Introduction(IntroductionRequest::Allocate)
        | Request::Identity(IdentityRequest::Enrolled)
        // Whoever takes it looks at the bounds.
        | Request::Relay(_) => {}
        Request::Introduction(IntroductionRequest::Introduce { account })
        | Request::Identity(IdentityRequest::Read { account, .. }) => {
            check_account(account.as_str());
        }
        Request::Identity(IdentityRequest::Append { entry }) => check_entry_of_log(entry),
    }
}

fn check_login_request(request: &LoginRequest) {
    match request {
        LoginRequest::RegisterStart { account, message } => {
            check_account(account.as_str());
            check_opaque(message);
        }
        LoginRequest::RegisterFinish { upload, .. } => check_opaque(upload),
        LoginRequest::LoginStart(start) => {
            check_account(start.account.as_str());
            check_device(start.device_name.as_str());
            check_opaque(&start.ke1);
            if let Some(code) = start.code {
                check_text(code);
            }
        }
        LoginRequest::LoginFinish { ke3 } => check_opaque(ke3),
        LoginRequest::TokenLogin(login) => check_account(login.account.as_str()),
    }
}

fn check_directory_request(request: &DirectoryRequest) {
    match request {
        DirectoryRequest::Find { account } => check_account(account.as_str()),
        DirectoryRequest::List { after } => {
            if let Some(cursor) = after {
                check_account(cursor.account.as_str());
            }
        }
        DirectoryRequest::Announce { .. }
        | DirectoryRequest::Watch { .. }
        | DirectoryRequest::Unwatch
        | DirectoryRequest::WhoIs { .. } => {}
    }
}

fn check_answer(answer: &Answer) {
    match answer {
        Answer::Login(answer) => match answer {
            LoginAnswer::RegisterChallenge { message } => check_opaque(message),
            LoginAnswer::LoginChallenge { ke2, .. } => check_opaque(ke2),
            LoginAnswer::LoggedIn(logged_in) => {
                let enrolled = logged_in.enrolled.iter();
                enrolled.for_each(|new| check_device(new.device_name.as_str()));
            }
            LoginAnswer::Registered => {}
        },
        Answer::Directory(answer) => match answer {
            DirectoryAnswer::Page { entries, .. } | DirectoryAnswer::Found { entries } => {
                entries.iter().for_each(check_entry);
            }
            DirectoryAnswer::Owner { account } => {
                if let Some(account) = account {
                    check_account(account.as_str());
                }
            }
            DirectoryAnswer::Done => {}
        },
        Answer::Device(answer) => match answer {
            DeviceAnswer::Admission { code, .. } => check_text(*code),
            DeviceAnswer::Done => {}
        },
        Answer::Introduction(answer) => match answer {
            IntroductionAnswer::Introduced { introductions } => {
                let introduced = introductions.iter();
                introduced.for_each(|introduction| check_entry(&introduction.entry));
            }
            IntroductionAnswer::Allocated { .. } => {}
        },
        Answer::Identity(answer) => match answer {
            IdentityAnswer::Page { entries, .. } => entries.iter().for_each(check_entry_of_log),
            IdentityAnswer::Appended | IdentityAnswer::Enrolled { .. } => {}
        },
        Answer::Refused(_) => {}
    }
}

fn check_entry_of_log(entry: &AccountEntry) {
    if let AccountStatement::Approve { name, .. } = &entry.statement {
        check_device(name.as_str());
    }
}

fn check_push(push: &Push) {
    match push {
        Push::Directory(DirectoryPush::Presence { changes, .. }) => {
            changes.iter().for_each(check_change);
        }
        Push::Directory(DirectoryPush::Unenrolled { account, .. }) => {
            check_account(account.as_str());
        }
        Push::Device(DevicePush::Enrolled(enrolment)) => {
            check_device(enrolment.device_name.as_str())
        }
        Push::Introduction(IntroductionPush::Introduced(introduction)) => {
            check_entry(&introduction.entry);
        }
        Push::Identity(IdentityPush::Appended { entry }) => check_entry_of_log(entry),
        Push::Directory(DirectoryPush::ListAgain)
        | Push::Device(DevicePush::FailedLogins(_))
        | Push::Bye(_)
        | Push::Relay(_) => {}
    }
}

fn check_change(change: &Change) {
    match change {
        Change::Online(entry) => check_entry(entry),
        Change::Offline { account, .. } => check_account(account.as_str()),
    }
}

fn check_entry(entry: &Entry) {
    check_account(entry.account.as_str());
    check_device(entry.device_name.as_str());
}

fn check_peer_frame(frame: &PeerFrame) {
    match frame {
        PeerFrame::File(frame) => check_file_frame(frame),
        PeerFrame::Log(frame) => check_log_frame(frame.clone()),
    }
}

/// What is decoded keeps its bounds, so that nobody looks again.
fn check_log_frame(frame: LogFrame) {
    match frame {
        LogFrame::Chains { chains, .. } => {
            assert!(chains.as_slice().len() <= CHAINS_PAGE_MAX);
            chains
                .as_slice()
                .iter()
                .for_each(|it| check_extent(&it.extent));
        }
        LogFrame::Have { extents, .. } => {
            assert!(extents.as_slice().len() <= HAVE_CHAINS_MAX);
            extents
                .as_slice()
                .iter()
                .for_each(|(_, it)| check_extent(it));
        }
        LogFrame::Entries(entries) => {
            let entries = entries.entries.into_vec();
            assert!((1..=PAGE_ENTRIES_MAX).contains(&entries.len()));
            entries.into_iter().for_each(check_log_entry);
        }
        LogFrame::Fork { one, other, .. } => [one, other].iter().for_each(check_stretch),
        LogFrame::Stretch { stretch, .. } => stretch.iter().for_each(check_stretch),
        LogFrame::Digests(digests) => assert!(!digests.as_slice().is_empty()),
        LogFrame::Marks(marks) => assert!(!marks.as_slice().is_empty()),
        LogFrame::Known(accounts) => assert!(!accounts.as_slice().is_empty()),
        LogFrame::Greet(_)
        | LogFrame::Buckets(_)
        | LogFrame::Open { .. }
        | LogFrame::Gone { .. }
        | LogFrame::Seal { .. }
        | LogFrame::Trace { .. }
        | LogFrame::Typing { .. }
        | LogFrame::Ask { .. }
        | LogFrame::Answer { .. }
        | LogFrame::End { .. } => {}
    }
}

fn check_extent(extent: &Extent) {
    assert!(extent.is_sound(), "{extent:?}");
}

fn check_stretch(stretch: &Stretch) {
    assert_eq!(stretch.check(), Ok(()));
}

/// What is kept of an entry survives being taken apart.
fn check_log_entry(entry: LogEntry) {
    let (outline, body) = entry.clone().into_parts();
    assert!(outline.body_len as usize <= ENTRY_BODY_LEN_MAX);
    assert!(body.as_deref().is_none_or(|body| outline.is_of(body)));
    assert_eq!(LogEntry::new(outline, body), Some(entry));
}

fn check_file_frame(frame: &FileFrame) {
    match frame {
        FileFrame::Offer(offer) => {
            let _ = offer.is_within_limits();
        }
        FileFrame::Accept { have, .. } => {
            for range in have {
                assert!(!range.is_within(0) || (range.start, range.end) == (0, 1));
            }
        }
        FileFrame::Decline { reason, .. } => {
            if let DeclineReason::Storage(reason) = reason {
                check_reason(reason);
            }
        }
        FileFrame::Cancel { reason, .. } => {
            if let CancelReason::Source(reason) | CancelReason::Storage(reason) = reason {
                check_reason(reason);
            }
        }
        FileFrame::Sent { .. } | FileFrame::Received { .. } => {}
    }
}

fn check_reason(reason: &Reason) {
    assert!(String::from(reason.clone()).len() <= REASON_LEN_MAX);
}

fn check_opaque(message: &OpaqueMessage) {
    assert!(message.as_bytes().len() <= OPAQUE_MESSAGE_LEN_MAX);
}

fn check_account(name: &str) {
    assert!((1..=ACCOUNT_NAME_LEN_MAX).contains(&name.len()));
    assert_eq!(name, name.to_ascii_lowercase());
}

fn check_device(name: &str) {
    assert!((1..=DEVICE_NAME_LEN_MAX).contains(&name.len()));
    assert!(!name.contains(char::is_control));
}

/// What people type is what they were shown.
fn check_text<T>(code: T)
where
    T: std::fmt::Display + std::str::FromStr + PartialEq,
{
    let shown = code.to_string();
    assert!(
        shown.parse().is_ok_and(|parsed: T| parsed == code),
        "{shown}"
    );
}
