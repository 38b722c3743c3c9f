//! A peer's engine, with any rendezvous, network, disk and person.

use std::collections::BTreeMap;
use std::net::{SocketAddr, SocketAddrV4};
use std::time::Duration;

use common::candidate::is_single_host;
use common::id::DeviceName;
use common::key::{ChannelBinding, Token};
use common::lan::LanName;
use common::limits::{CONTROL_FRAME_LEN_MAX, REQUESTS_OPEN_MAX};
use common::stun::{AnsweringPort, TwoPorts, canonical, check_answer, server_answer};
use common::time::UnixTime;
use common::wire::channel::{AllocationId, ChannelDatagram, Cookie, EndId};
use common::wire::frame::{self, FrameBuffer};
use common::wire::rendezvous::{
    AdmissionCode, Answer, Candidate, CandidateKind, Change, Cursor, DeviceAnswer, DevicePush,
    DeviceRequest, DirectoryAnswer, DirectoryPush, DirectoryRequest, DirectoryVersion, Enrolment,
    Entry, FailedLogins, Hello, HelloAnswer, IdentityAnswer, IdentityPush, IdentityRequest,
    Introduction, IntroductionAnswer, IntroductionPush, IntroductionRequest, LoggedIn, LoginAnswer,
    LoginRequest, OpaqueMessage, Push, Refusal, RelayDatagrams, Request, RequestFrame, RequestId,
    Role, ServerFrame, Status, StretchVersion, VERSION,
};
use common::wire::samples;
use peer::node::Input;
use peer::node::io::{ClosedReason, LanInput, LocalAddress, RendezvousInput, RendezvousOutput};
use peer::port_mapping::{MappingProtocol, NoPortMapping, PortMapping};
use serde::Serialize;

use super::account::any_entry;
use super::feed::Feed;
use super::node_host::{NodeHost, account, secret};

/// Inputs of one run.
const INPUTS_MAX: usize = 300;

pub(super) fn node_engine(bytes: &[u8]) {
    let mut feed = Feed(bytes);
    let mut run = Run::new();
    run.take_wishes();
    for _ in 0..INPUTS_MAX {
        if feed.is_empty() {
            return;
        }
        run.step(&mut feed);
        run.take_wishes();
        run.check_destinations();
    }
}

struct Run {
    host: NodeHost,
    control: Control,
    /// Where datagrams have come from, and where the server is.
    known: Vec<SocketAddr>,
    is_local: bool,
}

/// The control connection as the server sees it.
enum Control {
    /// Nobody asked for one.
    None,
    /// Asked for.
    Wanted,
    Open(Session),
    /// The node has closed it; it has not heard that this is done.
    Closing,
}

#[derive(Default)]
struct Session {
    frames: FrameBuffer<CONTROL_FRAME_LEN_MAX>,
    has_greeted: bool,
    open: BTreeMap<RequestId, Request>,
    /// What was said to the node, as it reads it.
    said: FrameBuffer<CONTROL_FRAME_LEN_MAX>,
    has_answered: bool,
}

/// What a server with a second port answers, and from where.
fn as_a_server(to: SocketAddr, sent: &[u8], mapped: SocketAddr) -> Option<(SocketAddr, Vec<u8>)> {
    let other = to.port() ^ 1;
    let ports = TwoPorts {
        ip: to.ip(),
        asked: to.port(),
        other,
    };
    let answer = server_answer(sent, mapped, Some(ports))?;
    let port = match answer.from {
        AnsweringPort::Asked => to.port(),
        AnsweringPort::Other => other,
    };
    let bytes = answer.full.unwrap_or(answer.short);
    Some((SocketAddr::new(to.ip(), port), bytes))
}

impl Run {
    fn new() -> Self {
        Self {
            host: NodeHost::new(vec![(account(1), secret(1).public())]),
            control: Control::None,
            known: Vec::new(),
            is_local: false,
        }
    }

    fn step(&mut self, feed: &mut Feed<'_>) {
        match feed.below(20) {
            0 | 1 => self.connect_or_welcome(feed),
            2 => self.close(feed),
            3 => self.receive_raw(feed),
            4..=8 => self.answer(feed),
            9 => self.push(feed),
            10 | 11 => self.host.command(feed),
            12 | 13 => self.host.answer_store(feed),
            14 => self.host.answer_disk(feed),
            15 => self.host.answer_work(feed),
            16 => self.datagrams(feed),
            17 => self.answer_stun(feed),
            18 => self.pass(feed),
            _ => self.change_network(feed),
        }
    }

    // ---- the control connection ----------------------------------------------------------------

    /// What the node wants: one connection at a time, and whole frames on it.
    fn take_wishes(&mut self) {
        while let Some(wish) = self.host.wishes.pop_front() {
            match wish {
                RendezvousOutput::Connect => {
                    let is_first = matches!(self.control, Control::None);
                    assert!(is_first, "a second control connection");
                    self.control = Control::Wanted;
                }
                RendezvousOutput::Send(bytes) => match &mut self.control {
                    Control::Open(session) => session.take(&bytes),
                    Control::None | Control::Wanted | Control::Closing => {
                        panic!("bytes without a connection")
                    }
                },
                RendezvousOutput::SendDatagrams(bytes) => {
                    let frame = frame::decode::<CONTROL_FRAME_LEN_MAX, RequestFrame>(
                        &bytes[frame::PREFIX_LEN..],
                    );
                    let request = frame.expect("a whole frame").request;
                    let is_fair = matches!(&request, Request::Relay(train) if train.is_fair());
                    assert!(is_fair, "{request:?}");
                }
                RendezvousOutput::Close => {
                    let is_there = !matches!(self.control, Control::None | Control::Closing);
                    assert!(is_there, "a connection is closed that is not there");
                    self.control = Control::Closing;
                }
            }
        }
    }

    fn connect_or_welcome(&mut self, feed: &mut Feed<'_>) {
        match &self.control {
            Control::Wanted => {
                let servers = ["198.51.100.1:7400", "127.0.0.1:7400", "[2001:db8::1]:7400"];
                let index = feed.below(servers.len());
                let server: SocketAddr = servers[index].parse().expect("an address");
                self.known.push(server);
                // What was dialled while the server was on this host goes on after it has moved.
                self.is_local |= server.ip().is_loopback();
                self.control = Control::Open(Session::default());
                self.rendezvous(RendezvousInput::Connected {
                    channel_binding: ChannelBinding([feed.byte(); 32]),
                    local: SocketAddr::from(([192, 0, 2, 1], 40_000)),
                    server,
                    other: servers
                        .iter()
                        .map(|other| other.parse().expect("an address"))
                        .find(|other: &SocketAddr| other.is_ipv4() != server.is_ipv4()),
                });
            }
            Control::Open(_) => self.send(&any_welcome(feed)),
            Control::None | Control::Closing => {}
        }
    }

    fn close(&mut self, feed: &mut Feed<'_>) {
        let reason = match (&self.control, feed.below(4)) {
            (Control::None, _) => return,
            (Control::Closing, _) => ClosedReason::Ended,
            (Control::Wanted | Control::Open(_), 0) => ClosedReason::ServerKeyChanged {
                expected: "one".to_owned(),
                seen: "another".to_owned(),
            },
            (Control::Wanted | Control::Open(_), 1) => ClosedReason::Ended,
            (Control::Wanted | Control::Open(_), _) => ClosedReason::Failed(feed.text()),
        };
        self.control = Control::None;
        self.rendezvous(RendezvousInput::Closed(reason));
    }

    fn rendezvous(&mut self, input: RendezvousInput) {
        self.host.input(Input::Rendezvous(input));
    }

    fn receive_raw(&mut self, feed: &mut Feed<'_>) {
        self.say(feed.piece().to_vec());
    }

    fn say(&mut self, bytes: Vec<u8>) {
        if let Control::Open(session) = &mut self.control {
            session.note(&bytes);
            self.rendezvous(RendezvousInput::Received(bytes));
        }
    }

    fn send(&mut self, message: &impl Serialize) {
        let mut bytes = Vec::new();
        let encoded = frame::encode::<CONTROL_FRAME_LEN_MAX>(message, &mut bytes);
        if encoded.is_ok() {
            self.say(bytes);
        }
    }

    fn answer(&mut self, feed: &mut Feed<'_>) {
        let Control::Open(session) = &mut self.control else {
            return;
        };
        let Some(index) = feed.index(session.open.len()) else {
            return;
        };
        let id = session.open.keys().nth(index).copied().expect("counted");
        let request = session.open.remove(&id).expect("it is there");
        let answer = match feed.below(10) {
            0 => Answer::Refused(refusal(feed)),
            1 => any_answer(feed),
            _ => fitting_answer(&request, feed),
        };
        self.send(&ServerFrame::Answer { id, answer });
    }

    fn push(&mut self, feed: &mut Feed<'_>) {
        self.send(&ServerFrame::Push(any_push(feed)));
    }

    // ---- the network, time ---------------------------------------------------------------------

    /// Anything from anywhere: bytes of the fuzzer, or what the node itself sent, changed a little.
    fn datagrams(&mut self, feed: &mut Feed<'_>) {
        // As the shell tells it.
        let source = canonical(endpoint(feed));
        self.known.push(source);
        let mut bytes = feed.piece().to_vec();
        if bytes.is_empty()
            && let Some((_, sent)) = self.host.sent.back()
        {
            bytes.clone_from(sent);
            let place = usize::from(feed.byte()) % bytes.len().max(1);
            if let Some(byte) = bytes.get_mut(place) {
                *byte ^= feed.byte();
            }
        }
        let stride = match feed.byte() {
            0 => bytes.len(),
            stride => stride.into(),
        };
        self.host.datagrams(source, stride.max(1), &bytes);
    }

    /// Whoever got the newest request answers it: as the server's UDP port, or as a device.
    fn answer_stun(&mut self, feed: &mut Feed<'_>) {
        let mapped = endpoint(feed);
        let device = feed.flag().then(|| secret(feed.below(4)).public());
        let answered = self
            .host
            .sent
            .iter()
            .rev()
            .find_map(|(to, sent)| match &device {
                Some(device_key) => Some((*to, check_answer(sent, mapped, device_key)?)),
                None => as_a_server(*to, sent, mapped),
            });
        if let Some((to, answer)) = answered {
            self.host.datagrams(to, answer.len(), &answer);
        }
    }

    fn pass(&mut self, feed: &mut Feed<'_>) {
        let amount = u64::from(feed.byte());
        let span = match feed.below(4) {
            0 => Duration::from_millis(amount),
            1 => Duration::from_millis(100 * amount),
            2 => Duration::from_secs(amount),
            _ => Duration::from_secs(3600 * amount),
        };
        self.host.pass(span);
    }

    fn change_network(&mut self, feed: &mut Feed<'_>) {
        match feed.byte() {
            255 => return self.host.input(Input::ShutDown),
            254 => return self.hear_neighbour(feed),
            253 => return self.map(feed),
            _ => {}
        }
        let addresses = (0..feed.below(4)).map(|_| LocalAddress {
            endpoint: endpoint(feed),
            prefix_len: feed.byte(),
            mtu: [None, Some(0), Some(1500), Some(u32::MAX)][feed.below(4)],
        });
        let addresses = addresses.collect();
        self.host.input(Input::LocalAddresses(addresses));
    }

    /// Somebody on the local network announces something, or takes it back.
    fn hear_neighbour(&mut self, feed: &mut Feed<'_>) {
        let device_key = secret(feed.below(4)).public();
        let name = LanName::new([feed.byte(); 8], &device_key);
        let said = if feed.flag() {
            let endpoints = (0..feed.below(16)).map(|_| endpoint(feed)).collect();
            LanInput::Heard { name, endpoints }
        } else {
            LanInput::Gone { name }
        };
        self.host.input(Input::Lan(said));
    }

    /// The shell says what became of a port mapping.
    fn map(&mut self, feed: &mut Feed<'_>) {
        let found = if feed.flag() {
            Ok(PortMapping {
                protocol: MappingProtocol::Pcp,
                external: SocketAddrV4::new(
                    feed.array::<4>().into(),
                    u16::from_be_bytes(feed.array()),
                ),
                gateway: feed.array::<4>().into(),
            })
        } else {
            Err(NoPortMapping::NoAnswer)
        };
        self.host.input(Input::PortMapping(found));
    }

    /// Packets go to the server, to who sent some, and to where a device may be.
    fn check_destinations(&mut self) {
        for (destination, _) in &self.host.sent {
            let may_go =
                self.known.contains(destination) || is_single_host(destination.ip(), self.is_local);
            assert!(may_go, "a packet to {destination}");
        }
        let surplus = self.host.sent.len().saturating_sub(8);
        self.host.sent.drain(..surplus);
    }
}

impl Session {
    /// Notes which requests are answered by what is said to the node.
    fn note(&mut self, bytes: &[u8]) {
        self.said.push(bytes);
        if !self.has_answered {
            let answer = self.said.next_frame::<HelloAnswer>();
            self.has_answered = matches!(answer, Ok(Some(_)));
        }
        while self.has_answered
            && let Ok(Some(frame)) = self.said.next_frame::<ServerFrame>()
        {
            if let ServerFrame::Answer { id, .. } = frame {
                self.open.remove(&id);
            }
        }
    }

    /// Takes bytes of the node, which are whole frames.
    fn take(&mut self, bytes: &[u8]) {
        self.frames.push(bytes);
        if !self.has_greeted {
            let hello = self.frames.next_frame::<Hello>().expect("a frame");
            if let Some(hello) = hello {
                assert_eq!(hello.choose(), Some(VERSION));
                self.has_greeted = true;
            }
        }
        while let Some(frame) = self.frames.next_frame().expect("a frame") {
            let RequestFrame { id, request } = frame;
            let before = self.open.insert(id, request);
            assert_eq!(before, None, "a number that is in use");
        }
        assert!(self.frames.is_empty(), "whole frames");
        assert!(self.open.len() <= REQUESTS_OPEN_MAX, "more than allowed");
    }
}

// ---- what a server may say ---------------------------------------------------------------------

fn fitting_answer(request: &Request, feed: &mut Feed<'_>) -> Answer {
    match request {
        Request::Login(LoginRequest::RegisterStart { .. }) => {
            Answer::Login(LoginAnswer::RegisterChallenge {
                message: opaque(feed),
            })
        }
        Request::Login(LoginRequest::LoginStart(_)) => Answer::Login(LoginAnswer::LoginChallenge {
            ke2: opaque(feed),
            stretch: StretchVersion(feed.byte()),
        }),
        Request::Login(LoginRequest::LoginFinish { .. })
        | Request::Login(LoginRequest::TokenLogin(_)) => {
            Answer::Login(LoginAnswer::LoggedIn(LoggedIn {
                token: feed.flag().then(|| Token::from_bytes([feed.byte(); 32])),
                failed: feed.flag().then(|| failed(feed)),
                enrolled: (0..feed.below(3)).map(|_| enrolment(feed)).collect(),
            }))
        }
        Request::Directory(DirectoryRequest::List { .. }) => {
            Answer::Directory(DirectoryAnswer::Page {
                version: DirectoryVersion(feed.number().into()),
                entries: entries(feed),
                next: feed.flag().then(|| Cursor {
                    account: account(feed.below(4)),
                    device_key: secret(feed.below(4)).public(),
                }),
            })
        }
        Request::Directory(DirectoryRequest::Find { .. }) => {
            Answer::Directory(DirectoryAnswer::Found {
                entries: entries(feed),
            })
        }
        Request::Directory(DirectoryRequest::WhoIs { .. }) => {
            Answer::Directory(DirectoryAnswer::Owner {
                account: feed.flag().then(|| account(feed.below(4))),
            })
        }
        Request::Device(DeviceRequest::Admit) => Answer::Device(DeviceAnswer::Admission {
            code: AdmissionCode::from_random(feed.number().into()),
            expires_in_s: feed.number(),
        }),
        Request::Login(LoginRequest::RegisterFinish { .. }) => LoginAnswer::Registered.into(),
        Request::Directory(
            DirectoryRequest::Announce { .. }
            | DirectoryRequest::Watch { .. }
            | DirectoryRequest::Unwatch,
        ) => DirectoryAnswer::Done.into(),
        Request::Device(
            DeviceRequest::LogOut | DeviceRequest::KeepAlive | DeviceRequest::Noted { .. },
        ) => DeviceAnswer::Done.into(),
        Request::Introduction(IntroductionRequest::Allocate) => {
            let allocation = AllocationId::from_bytes([feed.byte(); 16]);
            let rate = feed.byte().into();
            IntroductionAnswer::Allocated { allocation, rate }.into()
        }
        Request::Introduction(IntroductionRequest::Introduce { .. }) => {
            let introductions = (0..feed.below(3)).filter_map(|_| introduction(feed));
            let introductions = introductions.collect();
            IntroductionAnswer::Introduced { introductions }.into()
        }
        Request::Identity(IdentityRequest::Append { .. }) => IdentityAnswer::Appended.into(),
        Request::Identity(IdentityRequest::Read { .. }) => IdentityAnswer::Page {
            entries: (0..feed.below(4)).map(|_| any_entry(feed)).collect(),
            total: feed.below(6) as u32,
        }
        .into(),
        Request::Identity(IdentityRequest::Enrolled) => IdentityAnswer::Enrolled {
            devices: (0..feed.below(4)).map(|_| enrolment(feed)).collect(),
        }
        .into(),
        Request::Relay(_) => any_answer(feed),
    }
}

/// An answer to something else.
fn any_answer(feed: &mut Feed<'_>) -> Answer {
    one_of(samples::answers(), feed)
}

fn refusal(feed: &mut Feed<'_>) -> Refusal {
    let mut refusal = one_of(samples::refusals(), feed);
    if let Refusal::Blocked { retry_after_s }
    | Refusal::RegistrationLimit { retry_after_s }
    | Refusal::Busy { retry_after_s } = &mut refusal
    {
        *retry_after_s = feed.number();
    }
    refusal
}

fn introduction(feed: &mut Feed<'_>) -> Option<Introduction> {
    let entry = entries(feed).pop()?;
    let end = feed.flag().then(|| EndId::from_bytes([feed.byte(); 16]));
    let role = if feed.flag() {
        Role::Client
    } else {
        Role::Server
    };
    Some(Introduction { entry, end, role })
}

fn any_push(feed: &mut Feed<'_>) -> Push {
    match feed.below(9) {
        0 | 1 => Push::Directory(DirectoryPush::Presence {
            version: DirectoryVersion(feed.number().into()),
            changes: (0..feed.below(4)).map(|_| change(feed)).collect(),
        }),
        2 => Push::Device(DevicePush::FailedLogins(failed(feed))),
        3 => Push::Bye(one_of(samples::bye_reasons(), feed)),
        4 => Push::Device(DevicePush::Enrolled(enrolment(feed))),
        5 => match introduction(feed) {
            Some(introduction) => IntroductionPush::Introduced(introduction).into(),
            None => DirectoryPush::ListAgain.into(),
        },
        6 => Push::Relay(train(feed)),
        7 => Push::Identity(IdentityPush::Appended {
            entry: Box::new(any_entry(feed)),
        }),
        _ => Push::Directory(one_of(samples::directory_pushes(), feed)),
    }
}

/// Datagrams of the relay: of an allocation that was granted, or anything.
fn train(feed: &mut Feed<'_>) -> RelayDatagrams {
    let id = AllocationId::from_bytes([feed.byte(); 16]);
    let cookie = Cookie([feed.byte(); Cookie::LEN]);
    let bytes = match feed.below(4) {
        0 => ChannelDatagram::Challenge(id, cookie).to_bytes(),
        1 => ChannelDatagram::Bound(id).to_bytes(),
        2 => {
            let (end, packet) = (EndId::from_bytes([feed.byte(); 16]), feed.piece());
            ChannelDatagram::Packet { end, packet }.to_bytes()
        }
        _ => feed.piece().to_vec(),
    };
    let stride = if feed.flag() {
        u16::try_from(bytes.len()).unwrap_or(u16::MAX)
    } else {
        feed.byte().into()
    };
    RelayDatagrams { stride, bytes }
}

fn any_welcome(feed: &mut Feed<'_>) -> HelloAnswer {
    let agent = "fuzz".to_owned();
    match feed.below(8) {
        0 => HelloAnswer::Upgrade {
            versions: vec![feed.byte().into()],
            agent,
        },
        1 => HelloAnswer::Welcome {
            version: feed.byte().into(),
            agent: feed.text(),
        },
        _ => HelloAnswer::Welcome {
            version: VERSION,
            agent,
        },
    }
}

fn one_of<T>(mut all: Vec<T>, feed: &mut Feed<'_>) -> T {
    all.swap_remove(feed.below(all.len()))
}

fn opaque(feed: &mut Feed<'_>) -> OpaqueMessage {
    OpaqueMessage::try_from(feed.take(320).to_vec()).expect("within the bound")
}

fn failed(feed: &mut Feed<'_>) -> FailedLogins {
    FailedLogins {
        count: feed.number(),
        last: UnixTime::from_millis(feed.number().into()),
        blocked_for_s: feed.number(),
    }
}

fn enrolment(feed: &mut Feed<'_>) -> Enrolment {
    Enrolment {
        device_name: DeviceName::lossy(&feed.text()),
        device_key: secret(feed.below(4)).public(),
        at: UnixTime::from_millis(feed.number().into()),
    }
}

fn change(feed: &mut Feed<'_>) -> Change {
    if feed.flag() {
        Change::Online(entry(feed))
    } else {
        Change::Offline {
            account: account(feed.below(4)),
            device_key: secret(feed.below(4)).public(),
        }
    }
}

fn entries(feed: &mut Feed<'_>) -> Vec<Entry> {
    (0..feed.below(5)).map(|_| entry(feed)).collect()
}

fn entry(feed: &mut Feed<'_>) -> Entry {
    Entry {
        account: account(feed.below(4)),
        device_name: DeviceName::lossy("fuzzed"),
        device_key: secret(feed.below(4)).public(),
        status: Status::Available,
        since: UnixTime::from_millis(feed.number().into()),
        candidates: (0..feed.below(4)).map(|_| candidate(feed)).collect(),
    }
}

fn candidate(feed: &mut Feed<'_>) -> Candidate {
    Candidate {
        endpoint: endpoint(feed),
        kind: if feed.flag() {
            CandidateKind::ServerReflexive
        } else {
            CandidateKind::Host
        },
    }
}

/// Endpoints of hosts, and some that are none.
fn endpoint(feed: &mut Feed<'_>) -> SocketAddr {
    let endpoints = [
        "192.0.2.2:5000",
        "192.0.2.3:5000",
        "198.51.100.1:7400",
        "[2001:db8::2]:5000",
        "[fe80::2]:5000",
        "127.0.0.1:5001",
        "169.254.169.254:80",
        "224.0.0.1:5000",
        "255.255.255.255:5000",
        "[::ffff:127.0.0.1]:5001",
        "[ff02::1]:5000",
        "0.0.0.0:5000",
        "[::]:1",
        "10.0.0.1:1",
        "[::1]:5001",
        "192.0.2.2:5001",
    ];
    let index = feed.below(endpoints.len());
    endpoints[index].parse().expect("an endpoint")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fuzz::vocabulary;

    #[test]
    fn every_answer_and_push_is_drawn() {
        vocabulary::check(&samples::hello_answers(), any_welcome);
        vocabulary::check(&samples::pushes(), any_push);
        vocabulary::check(&samples::refusals(), refusal);
        vocabulary::check(&samples::changes(), change);
        let requests = samples::requests();
        let refused = samples::refusals().into_iter().map(Answer::Refused);
        let answers: Vec<Answer> = samples::answers().into_iter().chain(refused).collect();
        vocabulary::check(&answers, |feed| match feed.below(3) {
            0 => Answer::Refused(refusal(feed)),
            _ => fitting_answer(&one_of(requests.clone(), feed), feed),
        });
    }
}
