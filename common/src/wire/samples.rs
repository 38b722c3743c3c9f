//! Fixed sample values of every message on the wire, at least one of each. Truncation tests, fuzz seeds
//! and engine tests use them, and the byte examples of PROTOCOL.md are among them.
//!
//! A variant without a sample is a compile error.

use super::channel::{AllocationId, ChannelDatagram, EndId};
use super::peer::{
    CancelReason, ChatFrame, Conversation, DeclineReason, FileFrame, LeafHeader, LeafRange,
    Message, MessageBody, Offer, PeerFrame, PeerHello, Reason, ReceiptState,
};
use super::rendezvous::{
    AdmissionCode, Answer, ByeReason, Candidate, CandidateKind, Change, Cursor, DeviceAnswer,
    DevicePush, DeviceRequest, DirectoryAnswer, DirectoryPush, DirectoryRequest, DirectoryVersion,
    Enrolment, Entry, FailedLogins, Hello, HelloAnswer, IdentityAnswer, IdentityPush,
    IdentityRequest, Introduction, IntroductionAnswer, IntroductionPush, IntroductionRequest,
    LoggedIn, LoginAnswer, LoginRequest, LoginStart, OpaqueMessage, Push, Refusal, RelayDatagrams,
    Request, RequestFrame, RequestId, Role, ServerFrame, Status, StretchVersion, TokenLogin,
    VERSION,
};
use crate::account::{AccountEntry, AccountLog, Genesis};
use crate::hash::{FileDigest, LeafHash};
use crate::id::{AccountName, DeviceName, MessageId, TransferId};
use crate::key::{DeviceKey, DeviceSecret, Signature, Token};
use crate::log::{Clock, RunId};
use crate::time::UnixTime;

/// Defines a function that returns samples of an enum. Each line has a variant's pattern and values that
/// match it.
macro_rules! samples {
    ($(#[$doc:meta])* $name:ident: $type:ty { $($pattern:pat => $values:expr,)+ }) => {
        $(#[$doc])*
        pub fn $name() -> Vec<$type> {
            /// Fails to compile if a variant has no line.
            const fn _names_every_variant(value: &$type) {
                match value { $($pattern)|+ => {} }
            }
            let mut all = Vec::new();
            $(for value in $values {
                assert!(matches!(&value, $pattern), "{value:?} is listed under another variant");
                all.push(value);
            })+
            all
        }
    };
}

// Frames about logs.
mod log;

pub use log::{log_conversation, log_frames};

// ---- frames ------------------------------------------------------------------------------------

/// The first frame of a peer on the control connection.
pub fn hellos() -> Vec<Hello> {
    vec![Hello::ours("peer/0.1.0")]
}

samples! {
    /// The first frame of the server.
    hello_answers: HelloAnswer {
        HelloAnswer::Welcome { .. } => [HelloAnswer::Welcome { version: VERSION, agent: server_agent() }],
        HelloAnswer::Upgrade { .. } => [HelloAnswer::Upgrade { versions: vec![VERSION], agent: server_agent() }],
    }
}

/// Every request with the id 7, and one also with the id 300.
pub fn request_frames() -> Vec<RequestFrame> {
    let requests = requests();
    let frames = requests.into_iter().map(|request| (7, request));
    let frames = frames.chain([(300, DeviceRequest::KeepAlive.into())]);
    let frames = frames.map(|(id, request)| RequestFrame {
        id: RequestId(id),
        request,
    });
    frames.collect()
}

samples! {
    /// Frames of the server after its first; answers have the id 7.
    server_frames: ServerFrame {
        ServerFrame::Answer { .. } => answers().into_iter().map(|answer| ServerFrame::Answer {
            id: RequestId(7),
            answer,
        }),
        ServerFrame::Push(_) => pushes().into_iter().map(ServerFrame::Push),
    }
}

/// The first frame of either side on the message stream.
pub fn peer_hellos() -> Vec<PeerHello> {
    vec![PeerHello::ours("peer/0.1.0")]
}

samples! {
    /// Frames on the message stream after the first.
    peer_frames: PeerFrame {
        PeerFrame::File(_) => file_frames().into_iter().map(PeerFrame::File),
        PeerFrame::Log(_) => log_frames().into_iter().map(PeerFrame::Log),
    }
}

/// The frame at the start of a leaf stream.
pub fn leaf_headers() -> Vec<LeafHeader> {
    vec![LeafHeader {
        transfer: transfer(),
        index: 1,
        hash: last_leaf(),
    }]
}

// ---- requests ----------------------------------------------------------------------------------

samples! {
    /// Requests of every feature.
    requests: Request {
        Request::Login(_) => login_requests().into_iter().map(Request::Login),
        Request::Directory(_) => directory_requests().into_iter().map(Request::Directory),
        Request::Device(_) => device_requests().into_iter().map(Request::Device),
        Request::Introduction(_) => introduction_requests().into_iter().map(Request::Introduction),
        Request::Relay(_) => [Request::Relay(relay_datagrams())],
        Request::Identity(_) => identity_requests().into_iter().map(Request::Identity),
    }
}

samples! {
    /// Registration and log-in. OPAQUE messages and signatures have the right length but are not valid.
    login_requests: LoginRequest {
        LoginRequest::RegisterStart { .. } => [LoginRequest::RegisterStart {
            account: account(),
            message: opaque(32),
        }],
        LoginRequest::RegisterFinish { .. } => [LoginRequest::RegisterFinish {
            upload: opaque(192),
            stretch: StretchVersion(1),
        }],
        LoginRequest::LoginStart(_) => [LoginRequest::LoginStart(LoginStart {
            account: account(),
            device_key: device_key(),
            device_name: device_name(),
            ke1: opaque(96),
            signature: signature(),
            code: Some(code()),
        })],
        LoginRequest::LoginFinish { .. } => [LoginRequest::LoginFinish { ke3: opaque(64) }],
        LoginRequest::TokenLogin(_) => [LoginRequest::TokenLogin(TokenLogin {
            account: account(),
            device_key: device_key(),
            token: token(),
            signature: signature(),
        })],
    }
}

samples! {
    /// Requests to the directory.
    directory_requests: DirectoryRequest {
        DirectoryRequest::Announce { .. } => statuses().into_iter().map(|status| DirectoryRequest::Announce {
            status,
            candidates: candidates().into_iter().map(|candidate| candidate.endpoint).collect(),
        }),
        DirectoryRequest::List { .. } => [None, Some(cursor())].map(|after| DirectoryRequest::List { after }),
        DirectoryRequest::Watch { .. } => [DirectoryRequest::Watch { since: version() }],
        DirectoryRequest::Unwatch => [DirectoryRequest::Unwatch],
        DirectoryRequest::Find { .. } => [DirectoryRequest::Find { account: account() }],
        DirectoryRequest::WhoIs { .. } => [DirectoryRequest::WhoIs { device_key: device_key() }],
    }
}

samples! {
    /// Requests of a device about itself and its account.
    device_requests: DeviceRequest {
        DeviceRequest::Admit => [DeviceRequest::Admit],
        DeviceRequest::LogOut => [DeviceRequest::LogOut],
        DeviceRequest::KeepAlive => [DeviceRequest::KeepAlive],
        DeviceRequest::Noted { .. } => [DeviceRequest::Noted { device_key: device_key() }],
    }
}

samples! {
    /// Requests for links to others.
    introduction_requests: IntroductionRequest {
        IntroductionRequest::Allocate => [IntroductionRequest::Allocate],
        IntroductionRequest::Introduce { .. } => [IntroductionRequest::Introduce { account: account() }],
    }
}

// ---- answers and pushes ------------------------------------------------------------------------

samples! {
    /// Answers of every feature.
    answers: Answer {
        Answer::Refused(_) => refusals().into_iter().map(Answer::Refused),
        Answer::Login(_) => login_answers().into_iter().map(Answer::Login),
        Answer::Directory(_) => directory_answers().into_iter().map(Answer::Directory),
        Answer::Device(_) => device_answers().into_iter().map(Answer::Device),
        Answer::Introduction(_) => introduction_answers().into_iter().map(Answer::Introduction),
        Answer::Identity(_) => identity_answers().into_iter().map(Answer::Identity),
    }
}

samples! {
    /// Refusals of the server.
    refusals: Refusal {
        Refusal::WrongCredentials => [Refusal::WrongCredentials],
        Refusal::Blocked { .. } => [Refusal::Blocked { retry_after_s: 60 }],
        Refusal::TokenRefused => [Refusal::TokenRefused],
        Refusal::RegistrationClosed => [Refusal::RegistrationClosed],
        Refusal::RegistrationLimit { .. } => [Refusal::RegistrationLimit { retry_after_s: 300 }],
        Refusal::AccountExists => [Refusal::AccountExists],
        Refusal::DeviceLimit => [Refusal::DeviceLimit],
        Refusal::NotLoggedIn => [Refusal::NotLoggedIn],
        Refusal::OutOfOrder => [Refusal::OutOfOrder],
        Refusal::LimitExceeded => [Refusal::LimitExceeded],
        Refusal::ListAgain => [Refusal::ListAgain],
        Refusal::Busy { .. } => [Refusal::Busy { retry_after_s: 2 }],
        Refusal::StoreFailed => [Refusal::StoreFailed],
        Refusal::RelayOff => [Refusal::RelayOff],
        Refusal::NotApproved => [Refusal::NotApproved],
        Refusal::EntryRefused => [Refusal::EntryRefused],
    }
}

samples! {
    /// Answers of registration and log-in.
    login_answers: LoginAnswer {
        LoginAnswer::RegisterChallenge { .. } => [LoginAnswer::RegisterChallenge { message: opaque(64) }],
        LoginAnswer::Registered => [LoginAnswer::Registered],
        LoginAnswer::LoginChallenge { .. } => [LoginAnswer::LoginChallenge {
            ke2: opaque(320),
            stretch: StretchVersion(1),
        }],
        LoginAnswer::LoggedIn(_) => [
            LoginAnswer::LoggedIn(LoggedIn {
                token: Some(token()),
                failed: Some(failed_logins()),
                enrolled: vec![enrolment()],
            }),
            LoginAnswer::LoggedIn(LoggedIn { token: None, failed: None, enrolled: Vec::new() }),
        ],
    }
}

samples! {
    /// Answers of the directory.
    directory_answers: DirectoryAnswer {
        DirectoryAnswer::Done => [DirectoryAnswer::Done],
        DirectoryAnswer::Page { .. } => [
            DirectoryAnswer::Page { version: version(), entries: vec![entry()], next: None },
            DirectoryAnswer::Page { version: version(), entries: vec![entry(), entry()], next: Some(cursor()) },
        ],
        DirectoryAnswer::Found { .. } => [DirectoryAnswer::Found { entries: vec![entry()] }],
        DirectoryAnswer::Owner { .. } => [None, Some(account())].map(|account| DirectoryAnswer::Owner { account }),
    }
}

samples! {
    /// Answers about the device and its account.
    device_answers: DeviceAnswer {
        DeviceAnswer::Done => [DeviceAnswer::Done],
        DeviceAnswer::Admission { .. } => [DeviceAnswer::Admission { code: code(), expires_in_s: 600 }],
    }
}

samples! {
    /// Answers about links to others.
    introduction_answers: IntroductionAnswer {
        IntroductionAnswer::Allocated { .. } => [IntroductionAnswer::Allocated { allocation: allocation(), rate: 12_500_000 }],
        IntroductionAnswer::Introduced { .. } => [IntroductionAnswer::Introduced { introductions: introductions() }],
    }
}

samples! {
    /// Requests about the logs of accounts.
    identity_requests: IdentityRequest {
        IdentityRequest::Append { .. } => [IdentityRequest::Append { entry: Box::new(entry_of_log()) }],
        IdentityRequest::Read { .. } => [IdentityRequest::Read { account: account(), after: 1 }],
        IdentityRequest::Enrolled => [IdentityRequest::Enrolled],
    }
}

samples! {
    /// Answers about the logs of accounts.
    identity_answers: IdentityAnswer {
        IdentityAnswer::Appended => [IdentityAnswer::Appended],
        IdentityAnswer::Page { .. } => [IdentityAnswer::Page { entries: vec![entry_of_log()], total: 2 }],
        IdentityAnswer::Enrolled { .. } => [IdentityAnswer::Enrolled { devices: vec![enrolment()] }],
    }
}

samples! {
    /// What is told of the log of one's account.
    identity_pushes: IdentityPush {
        IdentityPush::Appended { .. } => [IdentityPush::Appended { entry: Box::new(entry_of_log()) }],
    }
}

/// The first entry of a log.
fn entry_of_log() -> AccountEntry {
    let [device, recovery] = [2, 1].map(|byte| DeviceSecret::from_seed([byte; 32]));
    let genesis = Genesis {
        first_device: device.public(),
        recovery: recovery.public(),
        nonce: [7; 32],
    };
    let log = AccountLog::found(
        genesis,
        RunId::from_bytes([0; 16]),
        Clock::from_bits(1),
        &device,
    );
    let first = log.entries().next();
    first.expect("a log has a first entry").clone()
}

/// An introduction in each role, through the relay and without it.
fn introductions() -> Vec<Introduction> {
    let both = [(Some(end()), Role::Client), (None, Role::Server)];
    let introductions = both.map(|(end, role)| {
        let entry = entry();
        Introduction { entry, end, role }
    });
    introductions.into()
}

samples! {
    /// Pushes of every feature.
    pushes: Push {
        Push::Bye(_) => bye_reasons().into_iter().map(Push::Bye),
        Push::Directory(_) => directory_pushes().into_iter().map(Push::Directory),
        Push::Device(_) => device_pushes().into_iter().map(Push::Device),
        Push::Introduction(_) => introduction_pushes().into_iter().map(Push::Introduction),
        Push::Identity(_) => identity_pushes().into_iter().map(Push::Identity),
        Push::Relay(_) => [Push::Relay(relay_datagrams())],
    }
}

samples! {
    /// Reasons of the server to end a connection.
    bye_reasons: ByeReason {
        ByeReason::ShuttingDown => [ByeReason::ShuttingDown],
        ByeReason::Replaced => [ByeReason::Replaced],
        ByeReason::AccountRemoved => [ByeReason::AccountRemoved],
        ByeReason::TimedOut => [ByeReason::TimedOut],
        ByeReason::Malformed => [ByeReason::Malformed],
        ByeReason::TooSlow => [ByeReason::TooSlow],
        ByeReason::Crowded => [ByeReason::Crowded],
    }
}

samples! {
    /// Pushes of the directory.
    directory_pushes: DirectoryPush {
        DirectoryPush::Presence { .. } => [DirectoryPush::Presence { version: version(), changes: changes() }],
        DirectoryPush::ListAgain => [DirectoryPush::ListAgain],
        DirectoryPush::Unenrolled { .. } => [DirectoryPush::Unenrolled { account: account(), device_key: device_key() }],
    }
}

samples! {
    /// Pushes about a device's account.
    device_pushes: DevicePush {
        DevicePush::FailedLogins(_) => [DevicePush::FailedLogins(failed_logins())],
        DevicePush::Enrolled(_) => [DevicePush::Enrolled(enrolment())],
    }
}

samples! {
    /// Pushes of introductions.
    introduction_pushes: IntroductionPush {
        IntroductionPush::Introduced(_) => introductions().into_iter().map(IntroductionPush::Introduced),
    }
}

samples! {
    /// Changes of the directory.
    changes: Change {
        Change::Online(_) => [Change::Online(entry())],
        Change::Offline { .. } => [Change::Offline { account: account(), device_key: device_key() }],
    }
}

samples! {
    /// Availability that a device may announce.
    statuses: Status {
        Status::Available => [Status::Available],
        Status::Away => [Status::Away],
        Status::Busy => [Status::Busy],
    }
}

samples! {
    /// The server's classification of candidates.
    candidate_kinds: CandidateKind {
        CandidateKind::ServerReflexive => [CandidateKind::ServerReflexive],
        CandidateKind::Host => [CandidateKind::Host],
    }
}

// ---- between peers -----------------------------------------------------------------------------

samples! {
    /// Messages and receipts.
    chat_frames: ChatFrame {
        ChatFrame::Message(_) => conversations().into_iter().map(|conversation| ChatFrame::Message(Message {
            id: message(),
            conversation,
            sent: moment(),
            body: MessageBody::try_from("Hello, Bob".to_owned()).expect("1 to 65,536 bytes"),
        })),
        ChatFrame::Receipt { .. } => receipt_states().into_iter().map(|state| ChatFrame::Receipt {
            id: message(),
            state,
        }),
    }
}

samples! {
    /// Conversations that a message may belong to.
    conversations: Conversation {
        Conversation::Direct => [Conversation::Direct],
    }
}

samples! {
    /// States that a receipt may report.
    receipt_states: ReceiptState {
        ReceiptState::Delivered => [ReceiptState::Delivered],
        ReceiptState::Read => [ReceiptState::Read],
    }
}

samples! {
    /// Frames about the transfer of a file of 1,048,577 bytes.
    file_frames: FileFrame {
        FileFrame::Offer(_) => [FileFrame::Offer(Offer {
            transfer: transfer(),
            name: "notes.txt".to_owned(),
            size: 1_048_577,
            executable: false,
        })],
        FileFrame::Accept { .. } => [vec![], vec![LeafRange { start: 0, end: 2 }]]
            .map(|have| FileFrame::Accept { transfer: transfer(), have }),
        FileFrame::Decline { .. } => decline_reasons().into_iter().map(|reason| FileFrame::Decline {
            transfer: transfer(),
            reason,
        }),
        FileFrame::Sent { .. } => [FileFrame::Sent { transfer: transfer(), digest: FileDigest([6; 32]) }],
        FileFrame::Received { .. } => [FileFrame::Received { transfer: transfer() }],
        FileFrame::Cancel { .. } => cancel_reasons().into_iter().map(|reason| FileFrame::Cancel {
            transfer: transfer(),
            reason,
        }),
    }
}

samples! {
    /// Reasons to decline an offer.
    decline_reasons: DeclineReason {
        DeclineReason::Declined => [DeclineReason::Declined],
        DeclineReason::NoAnswer => [DeclineReason::NoAnswer],
        DeclineReason::Name => [DeclineReason::Name],
        DeclineReason::LimitExceeded => [DeclineReason::LimitExceeded],
        DeclineReason::Storage(_) => [DeclineReason::Storage(reason())],
    }
}

samples! {
    /// Reasons to cancel a transfer.
    cancel_reasons: CancelReason {
        CancelReason::Cancelled => [CancelReason::Cancelled],
        CancelReason::Source(_) => [CancelReason::Source(reason())],
        CancelReason::Storage(_) => [CancelReason::Storage(reason())],
        CancelReason::Mismatch => [CancelReason::Mismatch],
        CancelReason::Protocol => [CancelReason::Protocol],
    }
}

// ---- parts of the samples ----------------------------------------------------------------------

/// The account of every sample.
pub fn account() -> AccountName {
    "alice".parse().expect("letters")
}

/// The device key of every sample; its seed is 32 bytes of 07.
pub fn device_key() -> DeviceKey {
    DeviceSecret::from_seed([7; 32]).public()
}

const fn allocation() -> AllocationId {
    AllocationId::from_bytes([0xa1; 16])
}

const fn end() -> EndId {
    EndId::from_bytes([0xe1; 16])
}

fn relay_datagrams() -> RelayDatagrams {
    let bytes = ChannelDatagram::Bind(allocation()).to_bytes();
    RelayDatagrams {
        stride: u16::try_from(bytes.len()).expect("it is short"),
        bytes,
    }
}

/// The directory entry of every sample.
pub fn entry() -> Entry {
    Entry {
        account: account(),
        device_name: device_name(),
        device_key: device_key(),
        status: Status::Away,
        since: moment(),
        candidates: candidates(),
    }
}

/// The transfer id of every sample.
pub fn transfer() -> TransferId {
    TransferId::from_bytes(std::array::from_fn(|place| 0xa0 + place as u8))
}

/// The message id of every sample.
pub fn message() -> MessageId {
    MessageId::from_bytes(std::array::from_fn(|place| place as u8))
}

/// An OPAQUE message of `len` bytes, at most [`OPAQUE_MESSAGE_LEN_MAX`](crate::limits::OPAQUE_MESSAGE_LEN_MAX).
fn opaque(len: usize) -> OpaqueMessage {
    OpaqueMessage::try_from(vec![9; len]).expect("shorter than any bound")
}

fn server_agent() -> String {
    "rendezvous/0.1.0".to_owned()
}

fn device_name() -> DeviceName {
    DeviceName::lossy("laptop")
}

fn signature() -> Signature {
    Signature::try_from(vec![5; 64]).expect("64 bytes")
}

fn token() -> Token {
    Token::from_bytes([3; 32])
}

fn code() -> AdmissionCode {
    AdmissionCode::from_random(0x1234_5678_9abc)
}

fn failed_logins() -> FailedLogins {
    FailedLogins {
        count: 3,
        last: moment(),
        blocked_for_s: 60,
    }
}

/// The enrolment of every sample.
pub fn enrolment() -> Enrolment {
    Enrolment {
        device_name: device_name(),
        device_key: device_key(),
        at: moment(),
    }
}

fn cursor() -> Cursor {
    Cursor {
        account: account(),
        device_key: device_key(),
    }
}

const fn version() -> DirectoryVersion {
    DirectoryVersion(435_200_000_000_001)
}

fn moment() -> UnixTime {
    UnixTime::from_millis(1_700_000_000_000)
}

/// One candidate of each kind, and of each address family.
fn candidates() -> Vec<Candidate> {
    let endpoints = ["192.0.2.1:7400", "[2001:db8::1]:250"].into_iter();
    let candidates = endpoints
        .zip(candidate_kinds())
        .map(|(endpoint, kind)| Candidate {
            endpoint: endpoint.parse().expect("an address and a port"),
            kind,
        });
    candidates.collect()
}

fn reason() -> Reason {
    Reason::lossy("the disk is full")
}

/// The second leaf of the file, of one byte: PROTOCOL.md section 5.7.
const fn last_leaf() -> LeafHash {
    LeafHash([
        0xc9, 0xc4, 0x6c, 0x08, 0x77, 0x1a, 0xf7, 0xfa, 0x62, 0xd0, 0xdd, 0x07, 0x71, 0x30, 0x6f,
        0xfa, 0x15, 0xe3, 0x11, 0x93, 0xe5, 0x9c, 0x31, 0x8d, 0x4b, 0x34, 0x8f, 0x81, 0xf3, 0x2b,
        0x8b, 0x4b,
    ])
}

#[cfg(test)]
mod tests;
