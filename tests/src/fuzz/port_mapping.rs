//! A gateway that is asked for a port and answers what it likes.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::time::{Duration, Instant};

use common::candidate::is_single_host;
use common::limits::{PORT_MAPPING_LIFETIME, PORT_MAPPING_RETURN_WAIT};
use peer::port_mapping::pcp::MAP_LEN;
use peer::port_mapping::{
    Grant, Mapper, MapperOutput, NoPortMapping, PortMapping, SERVER_PORT, Target, UpnpRequest,
};

use super::beginning;
use super::feed::Feed;

const GATEWAY: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 1);

/// Marks an answer of PCP and of NAT-PMP, in the byte of the opcode.
const ANSWER: u8 = 0x80;

pub(super) fn port_mapping(bytes: &[u8]) {
    Lab::run(bytes, |_| {});
}

/// A machine, and what it said last.
struct Lab {
    mapper: Mapper,
    now: Instant,
    sent: Vec<u8>,
    upnp: Option<UpnpRequest>,
    told: Option<Result<PortMapping, NoPortMapping>>,
}

impl Lab {
    fn new() -> Self {
        let now = beginning();
        let mut lab = Self {
            mapper: Mapper::new([7; 32]),
            now,
            sent: Vec::new(),
            upnp: None,
            told: None,
        };
        lab.mapper.set_target(target(0), now);
        lab.drain();
        lab
    }

    /// Does what bytes say, and has each mapping looked at that is told.
    fn run(bytes: &[u8], mut look: impl FnMut(PortMapping)) {
        let mut feed = Feed(bytes);
        let mut lab = Self::new();
        while !feed.is_empty() {
            lab.step(&mut feed);
            lab.check();
            if let Some(Ok(mapping)) = lab.told {
                look(mapping);
            }
        }
        lab.end();
    }

    fn step(&mut self, feed: &mut Feed<'_>) {
        match feed.below(10) {
            0..=3 => self.answer(feed),
            4 => self.answer_by_upnp(feed),
            5 => self.pass_until_due(),
            6 => self.pass(Duration::from_millis(u64::from(feed.byte()) * 97)),
            7 => self.announce(feed),
            8 => self.mapper.handle_unreachable(),
            _ => self.change(feed),
        }
        self.drain();
    }

    /// What answers the last request, with all of it changed that bytes may change; or anything.
    fn answer(&mut self, feed: &mut Feed<'_>) {
        let mut answer = match (feed.below(4), self.sent.len()) {
            (0, _) => feed.piece().to_vec(),
            (_, MAP_LEN) => self.pcp_answer(feed),
            (_, 2) => [&[0, ANSWER, 0, feed.byte() & 3][..], &feed.array::<8>()].concat(),
            (_, _) => self.nat_pmp_answer(feed),
        };
        if feed.flag() {
            let at = usize::from(feed.byte()) % answer.len().max(1);
            match answer.get_mut(at) {
                Some(byte) if feed.flag() => *byte ^= feed.byte(),
                Some(_) | None => answer.truncate(at),
            }
        }
        let source = source(feed);
        let before = self.told;
        self.mapper.handle_datagram(source, &answer, self.now);
        self.drain();
        let is_gateway = source == SocketAddr::from((GATEWAY, SERVER_PORT));
        assert!(is_gateway || self.told == before, "a stranger is believed");
    }

    fn pcp_answer(&self, feed: &mut Feed<'_>) -> Vec<u8> {
        let mut answer = self.sent.clone();
        answer[1] |= ANSWER;
        answer[3] = feed.byte() & 15;
        answer[4..12].copy_from_slice(&feed.array::<8>());
        answer[42..44].copy_from_slice(&feed.array::<2>());
        answer[56..60].copy_from_slice(&feed.array::<4>());
        answer
    }

    fn nat_pmp_answer(&self, feed: &mut Feed<'_>) -> Vec<u8> {
        let port = self.sent.get(4..6).unwrap_or(&[0, 0]);
        let head = [0, ANSWER | 1, 0, feed.byte() & 7];
        let (epoch, rest) = (feed.array::<4>(), feed.array::<6>());
        [&head[..], &epoch, port, &rest].concat()
    }

    fn answer_by_upnp(&mut self, feed: &mut Feed<'_>) {
        let granted = feed.flag();
        let grant = Grant {
            external: SocketAddrV4::new(feed.array::<4>().into(), u16::from_be_bytes(feed.array())),
            lifetime_s: feed.number(),
        };
        let answer = granted.then_some(grant).ok_or(NoPortMapping::Refused);
        self.upnp = None;
        self.mapper.handle_upnp(answer, self.now);
    }

    fn announce(&mut self, feed: &mut Feed<'_>) {
        let mut announced = [0; 24];
        (announced[0], announced[1]) = (2, ANSWER);
        announced[8..12].copy_from_slice(&feed.array::<4>());
        let len = if feed.flag() { 24 } else { feed.below(25) };
        let source = source(feed);
        self.mapper
            .handle_announcement(source, &announced[..len], self.now);
    }

    fn change(&mut self, feed: &mut Feed<'_>) {
        match feed.below(4) {
            0 => {
                // Whoever asks is told again.
                self.told = None;
                self.mapper.refresh(self.now);
            }
            1 => {
                // Whoever wants one again is told again.
                self.told = None;
                self.mapper.stop(self.now);
            }
            2 => self.mapper.set_target(None, self.now),
            _ => self.mapper.set_target(target(feed.byte()), self.now),
        }
    }

    fn pass_until_due(&mut self) {
        if let Some(due) = self.mapper.poll_timeout() {
            self.now = self.now.max(due);
            self.mapper.handle_timeout(self.now);
        }
    }

    fn pass(&mut self, span: Duration) {
        self.now += span;
        self.mapper.handle_timeout(self.now);
    }

    fn drain(&mut self) {
        let mut sent = 0;
        while let Some(output) = self.mapper.poll_output() {
            match output {
                MapperOutput::Send(bytes) => {
                    sent += 1;
                    self.sent = bytes;
                }
                MapperOutput::Upnp(request) => self.upnp = Some(request),
                MapperOutput::Report(told) => {
                    // A mapping is told each time that the gateway says so.
                    assert!(told.is_ok() || self.told != Some(told), "it is told again");
                    self.told = Some(told);
                }
            }
        }
        assert!(sent <= 1, "more than one request at once");
    }

    fn check(&mut self) {
        if let Some(Ok(mapping)) = self.told {
            let ip = (*mapping.external.ip()).into();
            assert!(is_single_host(ip, false), "T22: {mapping:?}");
            assert_ne!(mapping.external.port(), 0);
            assert_eq!(mapping.gateway, GATEWAY);
        }
        // It comes to rest: what is due now is not due again at once for ever.
        for _ in 0..8 {
            match self.mapper.poll_timeout() {
                Some(due) if due <= self.now => self.mapper.handle_timeout(self.now),
                Some(due) => {
                    assert!(due <= self.now + 2 * PORT_MAPPING_LIFETIME, "never");
                    return self.drain();
                }
                None => return,
            }
            self.drain();
        }
        panic!("it is always due");
    }

    /// Whatever has happened, nobody waits long for the end.
    fn end(mut self) {
        self.mapper.stop(self.now);
        self.drain();
        self.pass(PORT_MAPPING_RETURN_WAIT);
        assert!(self.mapper.is_off());
    }
}

/// This device on its network, or a little later on it with another address.
fn target(last: u8) -> Option<Target> {
    Some(Target {
        gateway: GATEWAY,
        internal: SocketAddrV4::new(Ipv4Addr::new(192, 168, 1, 2 + last % 2), 7000),
    })
}

/// The gateway, mostly.
fn source(feed: &mut Feed<'_>) -> SocketAddr {
    match feed.below(8) {
        0 => ([192, 168, 1, 66], SERVER_PORT).into(),
        1 => (GATEWAY, 5350).into(),
        _ => (GATEWAY, SERVER_PORT).into(),
    }
}

#[test]
fn the_first_inputs_reach_a_mapping_by_each_protocol() {
    use peer::port_mapping::MappingProtocol::{NatPmp, Pcp, Upnp};
    let seeds = super::seeds::of("port_mapping");
    for (seed, protocol) in seeds.iter().zip([Pcp, NatPmp, Upnp]) {
        let mut made = 0;
        Lab::run(seed, |mapping| {
            assert_eq!(mapping.protocol, protocol);
            assert_eq!(mapping.external, "203.0.113.9:40000".parse().unwrap());
            made += 1;
        });
        assert!(made > 1, "{protocol:?}");
    }
}
