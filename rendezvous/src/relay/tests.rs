use std::time::Duration;

use super::*;
use common::id::AccountName;
use common::limits::{
    LONGER_ANSWER_EXCESS, LONGER_ANSWERS_PER_SOURCE_MAX, RELAY_ALLOCATIONS_MAX,
    RELAY_CHANNEL_IDLE_TIMEOUT, RELAY_CHANNELS_MAX, RELAY_COOKIE_LIFETIME, RELAY_WAIT_MAX,
    RELAY_WAITING_MAX, RELAY_WAITING_PER_ACCOUNT_MAX, RELAYED_PACKET_LEN_MAX,
};
use common::wire::channel::Cookie;

/// Ends of the channel between the two.
const ALICE: EndId = EndId::from_bytes([1; 16]);
const BOB: EndId = EndId::from_bytes([2; 16]);
const ALICES: AllocationId = AllocationId::from_bytes([11; 16]);
const BOBS: AllocationId = AllocationId::from_bytes([12; 16]);

fn account(name: &str) -> AccountName {
    name.parse().unwrap()
}

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn at_alice() -> SocketAddr {
    address("192.0.2.1:4000")
}

fn at_bob() -> SocketAddr {
    address("[2001:db8::2]:5000")
}

const fn channel(id: u64, [one, other]: [EndId; 2]) -> Channel {
    let id = ChannelId(id);
    let ends = [(one, ALICES), (other, BOBS)];
    Channel { id, ends }
}

const fn packet(end: EndId, packet: &[u8]) -> ChannelDatagram<'_> {
    ChannelDatagram::Packet { end, packet }
}

struct Stage {
    relay: Relay,
    now: Instant,
}

impl Stage {
    #[expect(clippy::disallowed_methods, reason = "any instant will do as a start")]
    fn limited(limits: TrafficLimits) -> Self {
        let now = Instant::now();
        let relay = Relay::new([1; 32], limits, now);
        Self { relay, now }
    }

    fn new() -> Self {
        Self::limited(TrafficLimits::default())
    }

    /// With a channel between two allocations.
    fn open() -> Self {
        Self::new().opened()
    }

    fn opened(self) -> Self {
        let mut stage = self;
        assert!(stage.relay.allocate(ALICES, account("alice"), stage.now));
        assert!(stage.relay.allocate(BOBS, account("bob"), stage.now));
        assert!(stage.relay.open(channel(1, [ALICE, BOB]), stage.now));
        stage
    }

    /// With a channel between two allocations that are bound.
    fn bound() -> Self {
        Self::open().both_bound()
    }

    /// The same where accounts may send but [`SLOW`].
    fn slow() -> Self {
        let limits = TrafficLimits {
            of_account: SLOW,
            ..TrafficLimits::default()
        };
        Self::limited(limits).opened().both_bound()
    }

    fn both_bound(self) -> Self {
        let mut stage = self;
        stage.bind(ALICES, at_alice());
        stage.bind(BOBS, at_bob());
        stage
    }

    /// Sends some datagrams of one length, and returns what is sent because of them.
    fn batch(&mut self, datagrams: &[Vec<u8>], source: SocketAddr) -> Vec<(SocketAddr, Vec<u8>)> {
        let stride = datagrams.first().map_or(1, Vec::len);
        let mut bytes = datagrams.concat();
        let batch = Batch {
            bytes: &mut bytes,
            stride,
            source,
            local: None,
        };
        let mut outputs = Vec::new();
        self.relay.handle_batch(batch, self.now, &mut outputs);
        sent(outputs, &bytes, source)
    }

    /// Sends a datagram over a control connection, and returns what is sent because of it: to a control
    /// connection by its made-up address.
    fn over_control(
        &mut self,
        datagram: ChannelDatagram<'_>,
        from: ControlId,
    ) -> Option<(SocketAddr, Vec<u8>)> {
        let mut bytes = datagram.to_bytes();
        let (stride, mut outputs) = (bytes.len(), Vec::new());
        self.relay
            .handle_control(from, &mut bytes, stride, self.now, &mut outputs);
        let mut sent = sent(outputs, &bytes, from.address());
        assert!(sent.len() <= 1);
        sent.pop()
    }

    fn bind_over_control(&mut self, id: AllocationId, from: ControlId) {
        let (_, bytes) = self.over_control(ChannelDatagram::Bind(id), from).unwrap();
        let Some(ChannelDatagram::Challenge(_, cookie)) = ChannelDatagram::parse(&bytes) else {
            panic!("no challenge");
        };
        let proof = ChannelDatagram::Proof(id, cookie);
        let bound = ChannelDatagram::Bound(id).to_bytes();
        assert_eq!(
            self.over_control(proof, from),
            Some((from.address(), bound))
        );
    }

    fn send(
        &mut self,
        datagram: ChannelDatagram<'_>,
        source: SocketAddr,
    ) -> Option<(SocketAddr, Vec<u8>)> {
        let mut sent = self.batch(&[datagram.to_bytes()], source);
        assert!(sent.len() <= 1);
        sent.pop()
    }

    fn challenge(&mut self, id: AllocationId, source: SocketAddr) -> Option<Cookie> {
        let (to, bytes) = self.send(ChannelDatagram::Bind(id), source)?;
        assert_eq!(to, source);
        match ChannelDatagram::parse(&bytes) {
            Some(ChannelDatagram::Challenge(of, cookie)) if of == id => Some(cookie),
            other => panic!("{other:?}"),
        }
    }

    fn prove(&mut self, id: AllocationId, cookie: Cookie, source: SocketAddr) -> bool {
        let sent = self.send(ChannelDatagram::Proof(id, cookie), source);
        let bound = ChannelDatagram::Bound(id).to_bytes();
        assert!(sent.is_none() || sent == Some((source, bound)));
        sent.is_some()
    }

    fn bind(&mut self, id: AllocationId, source: SocketAddr) {
        let cookie = self.challenge(id, source).unwrap();
        assert!(self.prove(id, cookie, source));
    }

    /// Where a packet from an end gets to.
    fn arrives(&mut self, end: EndId, source: SocketAddr) -> Option<SocketAddr> {
        let (to, bytes) = self.send(packet(end, b"packet"), source)?;
        // Each peer knows its own end alone.
        let other = if end == ALICE { BOB } else { ALICE };
        let expected = packet(other, b"packet");
        assert_eq!(ChannelDatagram::parse(&bytes), Some(expected));
        Some(to)
    }

    fn pass(&mut self, span: Duration) {
        self.now += span;
        self.relay.handle_timeout(self.now);
    }

    /// Sends packets with a number in front until one does not go at once.
    fn exhaust(&mut self, end: EndId, source: SocketAddr) -> u16 {
        let went = (0..).find(|number| self.number(end, source, *number).is_none());
        went.unwrap()
    }

    fn number(&mut self, end: EndId, source: SocketAddr, number: u16) -> Option<u16> {
        let bytes = [&number.to_be_bytes()[..], &[0; 981]].concat();
        let (_, bytes) = self.send(packet(end, &bytes), source)?;
        Some(number_of(&bytes))
    }

    /// What has waited and goes now: where to, and its number.
    fn departures(&mut self) -> Vec<(SocketAddr, u16)> {
        let mut departures = Vec::new();
        while let Some(departure) = self.relay.poll_departure(self.now) {
            departures.push(match departure {
                Departure::Datagram { to, bytes, .. } => (to, number_of(bytes)),
                Departure::ToControl { to, bytes } => (to.address(), number_of(bytes)),
            });
        }
        departures
    }

    fn answer(&mut self, datagram: &[u8], source: SocketAddr) -> Option<Vec<u8>> {
        let mut sent = self.batch(&[datagram.to_vec()], source);
        assert!(sent.len() <= 1);
        sent.pop().map(|(to, bytes)| {
            assert_eq!(to, source);
            bytes
        })
    }
}

/// The number of a packet that arrives.
fn number_of(bytes: &[u8]) -> u16 {
    let Some(ChannelDatagram::Packet { packet, .. }) = ChannelDatagram::parse(bytes) else {
        panic!("no packet: {bytes:?}");
    };
    u16::from_be_bytes([packet[0], packet[1]])
}

/// Every datagram that was sent because of a batch from `source`.
fn sent(outputs: Vec<Output>, bytes: &[u8], source: SocketAddr) -> Vec<(SocketAddr, Vec<u8>)> {
    let mut sent = Vec::new();
    for output in outputs {
        let (to, part, stride) = match output {
            Output::Answer(answer) | Output::AnswerFromOther(answer) => {
                sent.push((source, answer));
                continue;
            }
            Output::Forward {
                to, part, stride, ..
            } => (to, part, stride),
            Output::ForwardToControl { to, part, stride } => (to.address(), part, stride),
        };
        let datagrams = bytes[part].chunks(stride);
        sent.extend(datagrams.map(|datagram| (to, datagram.to_vec())));
    }
    sent
}

// ---- STUN ----------------------------------------------------------------------------------------

#[test]
fn t13_nothing_but_a_bare_request_gets_a_larger_answer_than_it_is() {
    let mut stage = Stage::new();
    let source = address("[2001:db8::1]:4000");
    let request = stun::binding_request(7);
    let answer = stage.answer(&request, source).unwrap();
    assert!(answer.len() <= request.len());
    assert_eq!(stun::reflexive_address(&answer, 7), Some(source));

    for first in 0..=255u8 {
        for len in [0, 1, 17, 20, 28, 33, 44, 548, 1500, 65_507] {
            let mut datagram = vec![0; len];
            if let Some(byte) = datagram.first_mut() {
                *byte = first;
            }
            let answer = stage.answer(&datagram, source);
            assert!(answer.is_none_or(|answer| answer.len() <= len));
        }
    }
    assert_eq!(stage.relay.answered(), 1);
}

#[test]
fn t13_bare_requests_are_answered_within_a_budget() {
    let mut stage = Stage::new();
    let bare = [&[0, 1, 0, 0], &stun::binding_request(7)[4..20]].concat();
    for (source, len) in [("192.0.2.1:4000", 32), ("[2001:db8::1]:4000", 44)] {
        let source = address(source);
        for _ in 0..LONGER_ANSWERS_PER_SOURCE_MAX {
            let answer = stage.answer(&bare, source).unwrap();
            assert_eq!(answer.len(), len);
            assert_eq!(stun::reflexive_address(&answer, 7), Some(source));
        }
        assert_eq!(stage.answer(&bare, source), None);
        // What is no longer than its request takes nothing of it.
        let request = stun::binding_request(8);
        assert!(stage.answer(&request, source).is_some());
    }
}

/// With a second port, and a batch of one datagram that came to one of the two at a known address.
fn with_two_ports(
    port: Port,
    datagram: &[u8],
    source: SocketAddr,
    stage: &mut Stage,
) -> Vec<Output> {
    stage.relay.set_ports(Ports {
        main: 7400,
        second: 7401,
    });
    let local = match source.ip() {
        IpAddr::V4(_) => "198.51.100.1".parse().ok(),
        IpAddr::V6(_) => "2001:db8::1".parse().ok(),
    };
    let mut bytes = datagram.to_vec();
    let batch = Batch {
        stride: bytes.len(),
        bytes: &mut bytes,
        source,
        local,
    };
    let mut outputs = Vec::new();
    match port {
        Port::Main => stage.relay.handle_batch(batch, stage.now, &mut outputs),
        Port::Second => stage.relay.handle_second(&batch, stage.now, &mut outputs),
    }
    outputs
}

#[test]
fn each_port_answers_and_names_the_other_one() {
    for source in ["192.0.2.1:4000", "[2001:db8::7]:4000"].map(address) {
        for (port, other) in [(Port::Main, 7401), (Port::Second, 7400)] {
            for changes_port in [false, true] {
                let mut stage = Stage::new();
                let probe = stun::probe(7, changes_port);
                let outputs = with_two_ports(port, &probe, source, &mut stage);
                let (answer, is_from_other) = match &outputs[..] {
                    [Output::Answer(answer)] => (answer, false),
                    [Output::AnswerFromOther(answer)] => (answer, true),
                    outputs => panic!("{outputs:?}"),
                };
                assert_eq!(is_from_other, changes_port);
                let said = stun::probe_answer(answer, 7).unwrap();
                assert_eq!((said.reflexive, said.other_port), (source, Some(other)));
            }
        }
    }
}

#[test]
fn t13_both_ports_together_keep_to_one_budget() {
    let bare = [&[0, 1, 0, 0], &stun::binding_request(7)[4..20]].concat();
    let change = [&[0, 1, 0, 8], &bare[4..], &[0, 3, 0, 4, 0, 0, 0, 2]].concat();
    for source in ["192.0.2.1:4000", "[2001:db8::7]:4000"].map(address) {
        let mut stage = Stage::new();
        let (mut excess, mut full, mut short) = (0, 0, 0);
        for _ in 0..LONGER_ANSWERS_PER_SOURCE_MAX {
            for (port, request) in [
                (Port::Main, &bare),
                (Port::Second, &bare),
                (Port::Main, &change),
            ] {
                for output in with_two_ports(port, request, source, &mut stage) {
                    let (Output::Answer(answer) | Output::AnswerFromOther(answer)) = output else {
                        panic!("{output:?}");
                    };
                    excess += answer.len() - request.len();
                    let said = stun::probe_answer(&answer, 7).unwrap();
                    full += usize::from(said.other_port.is_some());
                    short += usize::from(said.other_port.is_none());
                }
            }
        }
        let most = LONGER_ANSWERS_PER_SOURCE_MAX as usize * LONGER_ANSWER_EXCESS;
        assert!(excess <= most, "{excess} bytes");
        assert!(full >= 3, "{full}");
        // The last token is too few for a full answer to IPv6.
        assert!(short >= usize::from(source.is_ipv6()), "{short}");
    }
}

#[test]
fn t13_the_second_port_answers_stun_alone_and_nothing_gets_larger() {
    let mut stage = Stage::bound();
    let source = at_alice();
    for first in 0..=255u8 {
        for len in [0, 1, 17, 20, 28, 33, 44, 548, 1500, 65_507] {
            let mut datagram = vec![0; len];
            if let Some(byte) = datagram.first_mut() {
                *byte = first;
            }
            assert_eq!(
                with_two_ports(Port::Second, &datagram, source, &mut stage),
                []
            );
        }
    }
    let sent = [
        packet(ALICE, b"one").to_bytes(),
        ChannelDatagram::Bind(ALICES).to_bytes(),
    ];
    for datagram in sent {
        assert_eq!(
            with_two_ports(Port::Second, &datagram, source, &mut stage),
            []
        );
    }
    assert_eq!(stage.relay.forwarded(), 0);
    let from_nowhere = [address("192.0.2.1:0"), ControlId(1).address()];
    for source in from_nowhere {
        let probe = stun::probe(7, false);
        assert_eq!(with_two_ports(Port::Second, &probe, source, &mut stage), []);
    }
}

// ---- channels ------------------------------------------------------------------------------------

#[test]
fn packets_go_from_end_to_end() {
    let mut stage = Stage::bound();
    assert_eq!(stage.arrives(ALICE, at_alice()), Some(at_bob()));
    assert_eq!(stage.arrives(BOB, at_bob()), Some(at_alice()));
    let longest = vec![7; RELAYED_PACKET_LEN_MAX];
    let sent = stage.send(packet(ALICE, &longest), at_alice());
    assert!(sent.is_some());
    assert_eq!(stage.relay.forwarded(), 3);
}

#[test]
fn the_two_spellings_of_an_address_are_one() {
    let mut stage = Stage::bound();
    let mapped = address("[::ffff:192.0.2.1]:4000");
    assert_eq!(stage.arrives(ALICE, mapped), Some(at_bob()));
}

#[test]
fn a_batch_goes_on_as_it_came() {
    let mut stage = Stage::bound();
    let packet = |end, bytes: &'static [u8]| packet(end, bytes).to_bytes();
    let stranger = EndId::from_bytes([3; 16]);
    let sent = stage.batch(
        &[
            packet(ALICE, b"one"),
            packet(ALICE, b"two"),
            packet(stranger, b"bad"),
            packet(ALICE, b"mid"),
            packet(ALICE, b"4"),
        ],
        at_alice(),
    );
    let expected = [&b"one"[..], b"two", b"mid", b"4"];
    let expected = expected.map(|bytes| (at_bob(), packet(BOB, bytes)));
    assert_eq!(sent, expected);
    assert_eq!(stage.relay.dropped(), 1);
    // What belongs together is sent together.
    let mut bytes = [packet(ALICE, b"one"), packet(ALICE, b"two")].concat();
    let (len, stride) = (bytes.len(), bytes.len() / 2);
    let batch = Batch {
        bytes: &mut bytes,
        stride,
        source: at_alice(),
        local: None,
    };
    let mut outputs = Vec::new();
    stage.relay.handle_batch(batch, stage.now, &mut outputs);
    let whole = Output::Forward {
        to: at_bob(),
        from: None,
        part: 0..len,
        stride,
    };
    assert_eq!(outputs, [whole]);
}

#[test]
fn each_peer_hears_from_the_address_that_it_knows() {
    let mut stage = Stage::open();
    let known: [IpAddr; 2] = [[198, 51, 100, 1], [198, 51, 100, 2]].map(IpAddr::from);
    let mut say = |datagram: ChannelDatagram<'_>, source, local| {
        let mut bytes = datagram.to_bytes();
        let batch = Batch {
            stride: bytes.len(),
            bytes: &mut bytes,
            source,
            local: Some(local),
        };
        let mut outputs = Vec::new();
        stage.relay.handle_batch(batch, stage.now, &mut outputs);
        outputs.pop()
    };
    for (id, source, local) in [(ALICES, at_alice(), known[0]), (BOBS, at_bob(), known[1])] {
        let Some(Output::Answer(answer)) = say(ChannelDatagram::Bind(id), source, local) else {
            panic!("no challenge");
        };
        let cookie = Cookie(*answer.last_chunk().unwrap());
        say(ChannelDatagram::Proof(id, cookie), source, local);
    }
    let forwarded = say(packet(ALICE, b"x"), at_alice(), known[0]);
    let Some(Output::Forward { to, from, .. }) = forwarded else {
        panic!("{forwarded:?}");
    };
    assert_eq!((to, from), (at_bob(), Some(known[1])));
}

#[test]
fn t13_t49_nothing_is_forwarded_to_or_from_an_address_that_has_not_proved_itself() {
    let mut stage = Stage::open();
    let victim = address("203.0.113.9:53");
    stage.bind(ALICES, at_alice());
    // Bob names a victim as his address, and does not see the challenge.
    let cookie = stage.challenge(BOBS, victim).unwrap();
    let mut guess = cookie;
    guess.0[15] ^= 1;
    for wrong in [guess, Cookie([0; Cookie::LEN])] {
        assert!(!stage.prove(BOBS, wrong, victim));
    }
    // Nor does what he gets at his own address, or for another allocation, help him.
    let own = stage.challenge(BOBS, at_bob()).unwrap();
    assert!(!stage.prove(BOBS, own, victim));
    assert!(!stage.prove(ALICES, own, at_bob()));
    assert_eq!(stage.arrives(ALICE, at_alice()), None, "bob is nowhere");
    assert_eq!(stage.arrives(BOB, at_bob()), None);
    assert!(stage.prove(BOBS, own, at_bob()));
    // A third address gets nothing through, whatever it knows.
    for third in [victim, address("192.0.2.1:4001"), address("192.0.2.2:4000")] {
        assert_eq!(stage.arrives(ALICE, third), None);
    }
    assert_eq!(stage.arrives(ALICE, at_alice()), Some(at_bob()));
}

#[test]
fn t13_a_challenge_is_good_for_a_while_and_not_for_ever() {
    let mut stage = Stage::open();
    for offset in [0, 5, 9] {
        stage.pass(Duration::from_secs(offset));
        let cookie = stage.challenge(ALICES, at_alice()).unwrap();
        stage.pass(RELAY_COOKIE_LIFETIME);
        assert!(stage.prove(ALICES, cookie, at_alice()), "{offset} s");
        stage.pass(RELAY_COOKIE_LIFETIME);
        assert!(!stage.prove(ALICES, cookie, at_alice()), "{offset} s");
    }
}

#[test]
fn a_peer_that_moved_proves_its_new_address() {
    let mut stage = Stage::bound();
    let moved = address("198.51.100.7:1234");
    assert_eq!(stage.arrives(ALICE, moved), None);
    stage.bind(ALICES, moved);
    assert_eq!(stage.arrives(ALICE, moved), Some(at_bob()));
    assert_eq!(stage.arrives(BOB, at_bob()), Some(moved));
    assert_eq!(stage.arrives(ALICE, at_alice()), None, "it was there once");
}

#[test]
fn all_channels_of_a_peer_move_with_it() {
    let mut stage = Stage::bound();
    let [third, fourth] = [3, 4].map(|byte| EndId::from_bytes([byte; 16]));
    let carols = AllocationId::from_bytes([13; 16]);
    stage.relay.allocate(carols, account("carol"), stage.now);
    stage.bind(carols, address("192.0.2.3:3"));
    let (id, ends) = (ChannelId(2), [(third, ALICES), (fourth, carols)]);
    // Both are bound already, so it carries packets at once.
    assert!(stage.relay.open(Channel { id, ends }, stage.now));
    let to = |sent: Option<(SocketAddr, Vec<u8>)>| sent.map(|(to, _)| to);
    let from_carol = packet(fourth, b"x");
    let sent = stage.send(from_carol, address("192.0.2.3:3"));
    assert_eq!(to(sent), Some(at_alice()));
    let moved = address("198.51.100.7:1234");
    stage.bind(ALICES, moved);
    assert_eq!(stage.arrives(BOB, at_bob()), Some(moved));
    let sent = stage.send(from_carol, address("192.0.2.3:3"));
    assert_eq!(to(sent), Some(moved));
}

#[test]
fn an_allocation_that_has_ended_takes_its_channels_along() {
    let mut stage = Stage::bound();
    stage.relay.free(ALICES);
    stage.relay.free(ALICES);
    assert_eq!(stage.challenge(ALICES, at_alice()), None);
    assert_eq!(stage.arrives(ALICE, at_alice()), None);
    assert_eq!(stage.arrives(BOB, at_bob()), None);
    assert_eq!(stage.relay.occupancies().map(|it| it.count), [1, 0, 0]);
    let again = channel(1, [ALICE, BOB]);
    assert!(!stage.relay.open(again.clone(), stage.now));
    // Who comes back has to prove where it is.
    assert!(stage.relay.allocate(ALICES, account("alice"), stage.now));
    assert!(stage.relay.open(again, stage.now));
    assert_eq!(stage.arrives(BOB, at_bob()), None);
}

#[test]
fn unknown_ids_and_answers_get_no_answer() {
    let mut stage = Stage::bound();
    // An end is no allocation.
    let [unknown, end] = [[9; 16], *ALICE.as_bytes()].map(AllocationId::from_bytes);
    let cookie = Cookie([1; Cookie::LEN]);
    for id in [unknown, end] {
        assert_eq!(stage.challenge(id, at_alice()), None);
        assert!(!stage.prove(id, cookie, at_alice()));
    }
    for loops in [
        ChannelDatagram::Challenge(ALICES, cookie),
        ChannelDatagram::Bound(ALICES),
    ] {
        assert_eq!(stage.send(loops, at_alice()), None);
    }
    let too_long = vec![0; RELAYED_PACKET_LEN_MAX + 1];
    assert_eq!(stage.send(packet(ALICE, &too_long), at_alice()), None);
    assert_eq!(stage.send(packet(ALICE, b""), at_alice()), None);
}

#[test]
fn nothing_goes_to_port_0() {
    let mut stage = Stage::bound();
    let nowhere = address("192.0.2.1:0");
    assert_eq!(stage.challenge(ALICES, nowhere), None);
    assert_eq!(stage.answer(&stun::binding_request(7), nowhere), None);
}

#[test]
fn a_closed_channel_carries_nothing() {
    let mut stage = Stage::bound();
    stage.relay.close(ChannelId(1));
    assert_eq!(stage.arrives(ALICE, at_alice()), None);
    stage.relay.close(ChannelId(1));
    assert_eq!(stage.relay.occupancies().map(|it| it.count), [2, 0, 0]);
    assert!(stage.relay.open(channel(1, [ALICE, BOB]), stage.now));
    assert_eq!(stage.arrives(ALICE, at_alice()), Some(at_bob()));
}

#[test]
fn t49_channels_that_carry_nothing_are_closed_and_used_ones_are_not() {
    let mut stage = Stage::bound();
    let [third, fourth] = [3, 4].map(|byte| EndId::from_bytes([byte; 16]));
    let nobodys = AllocationId::from_bytes([13; 16]);
    stage.relay.allocate(nobodys, account("carol"), stage.now);
    let (id, ends) = (ChannelId(2), [(third, ALICES), (fourth, nobodys)]);
    assert!(stage.relay.open(Channel { id, ends }, stage.now));
    let until = stage.now + RELAY_CHANNEL_IDLE_TIMEOUT * 3;
    while stage.now < until {
        stage.pass(Duration::from_secs(15));
        // One direction is enough, and what gets nowhere is none.
        assert_eq!(stage.arrives(ALICE, at_alice()), Some(at_bob()));
        assert_eq!(stage.send(packet(third, b"x"), at_alice()), None);
        stage.bind(ALICES, at_alice());
    }
    assert_eq!(stage.relay.poll_closed(), Some(ChannelId(2)));
    assert_eq!(stage.relay.poll_closed(), None);
    assert_eq!(stage.relay.occupancies().map(|it| it.count), [3, 1, 0]);
    assert!(stage.relay.poll_timeout().is_some());
    stage.relay.close(ChannelId(1));
    assert_eq!(stage.relay.poll_timeout(), None);
}

#[test]
fn t49_there_are_so_many_allocations_and_channels_and_no_more() {
    let mut stage = Stage::open();
    let id = |number: usize| (number as u128 + 1000).to_be_bytes();
    let mut number = 0;
    while stage.relay.allocate(
        AllocationId::from_bytes(id(number)),
        account("carol"),
        stage.now,
    ) {
        number += 1;
    }
    let mut number = 0;
    let end = |number: usize| EndId::from_bytes(id(number));
    while stage.relay.open(
        channel(1000 + number as u64, [end(2 * number), end(2 * number + 1)]),
        stage.now,
    ) {
        number += 1;
    }
    let counts = stage.relay.occupancies().map(|it| (it.count, it.max));
    let allocations = (RELAY_ALLOCATIONS_MAX, RELAY_ALLOCATIONS_MAX);
    assert_eq!(
        counts,
        [
            allocations,
            (RELAY_CHANNELS_MAX, RELAY_CHANNELS_MAX),
            (0, RELAY_WAITING_MAX)
        ]
    );
    stage.relay.close(ChannelId(1));
    assert!(stage.relay.open(channel(1, [ALICE, BOB]), stage.now));
    stage.relay.free(BOBS);
    assert!(stage.relay.allocate(BOBS, account("bob"), stage.now));
}

#[test]
fn an_id_is_taken_once() {
    let mut stage = Stage::bound();
    let other = EndId::from_bytes([3; 16]);
    let another = EndId::from_bytes([4; 16]);
    for taken in [
        channel(1, [other, another]),
        channel(2, [ALICE, other]),
        channel(2, [other, BOB]),
        channel(2, [other, other]),
    ] {
        assert!(!stage.relay.open(taken, stage.now));
    }
    assert!(!stage.relay.allocate(BOBS, account("alice"), stage.now));
    assert_eq!(stage.arrives(ALICE, at_alice()), Some(at_bob()));
}

#[test]
fn t49_who_sends_too_much_is_slowed_down_alone() {
    let mut stage = Stage::bound();
    let bytes = vec![0; 1000];
    let mut sent = 0;
    while stage.send(packet(ALICE, &bytes), at_alice()).is_some() {
        sent += 1;
        assert!(sent < 1_000_000, "there is no limit");
    }
    assert!(sent > 60, "{sent}: less than a train");
    assert_eq!(stage.arrives(BOB, at_bob()), Some(at_alice()));
    stage.pass(Duration::from_secs(1));
    assert_eq!(stage.departures(), [(at_bob(), 0)]);
    assert_eq!(stage.arrives(ALICE, at_alice()), Some(at_bob()));
}

// ---- what is too much ---------------------------------------------------------------------------

/// Packets of 1000 bytes with their headers take 8.2 ms at it, as each takes 16 tokens of 64 bytes.
const SLOW: u32 = 125_000;

#[test]
fn what_is_a_little_too_much_waits_for_its_time_and_keeps_its_order() {
    let mut stage = Stage::slow();
    let first = stage.exhaust(ALICE, at_alice());
    let line = (f64::from(SLOW) * RELAY_WAIT_MAX.as_secs_f64()) as u16 / 1000;
    assert_eq!(line, 12);
    for number in first + 1..first + 20 {
        assert_eq!(stage.number(ALICE, at_alice(), number), None);
    }
    assert_eq!((stage.relay.waiting(), stage.relay.dropped()), (12, 8));
    assert!(stage.relay.take_delayed() && !stage.relay.take_delayed());
    assert_eq!(stage.departures(), []);
    // Nobody else waits for that.
    assert_eq!(stage.arrives(BOB, at_bob()), Some(at_alice()));
    let began = stage.now;
    for number in first..first + line {
        stage.now = stage.relay.poll_timeout().unwrap();
        // What is shorter does not overtake.
        assert_eq!(stage.send(packet(ALICE, b"1"), at_alice()), None);
        assert_eq!(stage.departures(), [(at_bob(), number)]);
        let rest: Vec<_> = stage.departures();
        assert_eq!(rest, []);
    }
    let took = stage.now - began;
    let expected = RELAY_WAIT_MAX.mul_f64(0.9)..=RELAY_WAIT_MAX;
    assert!(expected.contains(&took), "{took:?}");
}

#[test]
fn of_a_batch_that_is_too_much_the_first_go_at_once_and_the_next_ones_wait() {
    let mut stage = Stage::slow();
    let batch: Vec<_> = (0..100u16)
        .map(|number| {
            let bytes = [&number.to_be_bytes()[..], &[0; 981]].concat();
            packet(ALICE, &bytes).to_bytes()
        })
        .collect();
    let (one, other) = batch.split_at(50);
    let mut arrived = Vec::new();
    for half in [one, other] {
        let sent = stage.batch(half, at_alice());
        arrived.extend(sent.into_iter().map(|(to, bytes)| (to, number_of(&bytes))));
    }
    assert_eq!((arrived.len(), stage.relay.waiting()), (65, 12));
    stage.now += RELAY_WAIT_MAX;
    arrived.extend(stage.departures());
    let expected: Vec<_> = (0..77).map(|number| (at_bob(), number)).collect();
    assert_eq!(arrived, expected);
    let relay = &stage.relay;
    assert_eq!((relay.forwarded(), relay.dropped()), (77, 23));
}

#[test]
fn what_waits_goes_where_the_other_end_is_by_then_and_nowhere_without_its_channel() {
    let mut stage = Stage::slow();
    let number = stage.exhaust(ALICE, at_alice());
    let moved = ControlId(7);
    stage.bind_over_control(BOBS, moved);
    stage.now += RELAY_WAIT_MAX;
    assert_eq!(stage.departures(), [(moved.address(), number)]);
    while stage.number(ALICE, at_alice(), 0).is_some() {}
    stage.relay.close(ChannelId(1));
    stage.now += RELAY_WAIT_MAX;
    let dropped = stage.relay.dropped();
    assert_eq!(stage.departures(), []);
    assert_eq!(
        (stage.relay.waiting(), stage.relay.dropped()),
        (0, dropped + 1)
    );
    // And with the account goes what waits for it: nobody pays any more.
    assert!(stage.relay.open(channel(1, [ALICE, BOB]), stage.now));
    while stage.number(ALICE, at_alice(), 0).is_some() {}
    stage.relay.free(ALICES);
    assert_eq!(
        (stage.relay.waiting(), stage.relay.dropped()),
        (0, dropped + 2)
    );
    stage.now += RELAY_WAIT_MAX;
    assert_eq!(stage.departures(), []);
}

#[test]
fn t49_so_many_packets_of_an_account_wait_and_of_all_and_no_more() {
    let mut stage = Stage::new();
    let accounts = RELAY_WAITING_MAX / RELAY_WAITING_PER_ACCOUNT_MAX + 1;
    let id = |number: usize| (number as u128 + 1).to_be_bytes();
    let name = |number| account(&format!("account-{number}"));
    for number in 0..2 * accounts {
        let allocation = AllocationId::from_bytes(id(number));
        assert!(stage.relay.allocate(allocation, name(number), stage.now));
        stage.bind(allocation, at_alice());
    }
    for number in 0..accounts {
        let ends = [2 * number, 2 * number + 1];
        let ends = ends.map(|end| {
            (
                EndId::from_bytes(id(end)),
                AllocationId::from_bytes(id(end)),
            )
        });
        let channel = Channel {
            id: ChannelId(number as u64),
            ends,
        };
        assert!(stage.relay.open(channel, stage.now));
        let end = EndId::from_bytes(id(2 * number));
        let batch = vec![packet(end, &[0; RELAYED_PACKET_LEN_MAX]).to_bytes(); 40];
        // All of them have a rate, too: its burst comes back.
        stage.now += Duration::from_millis(10);
        while !stage.batch(&batch, at_alice()).is_empty() {}
        let _ = stage.batch(&batch, at_alice());
        let all = (number + 1) * RELAY_WAITING_PER_ACCOUNT_MAX;
        assert_eq!(stage.relay.waiting(), all.min(RELAY_WAITING_MAX));
        let [.., occupancy] = stage.relay.occupancies();
        assert_eq!(
            (occupancy.count, occupancy.max),
            (stage.relay.waiting(), RELAY_WAITING_MAX)
        );
    }
}

// ---- control connections -------------------------------------------------------------------------

#[test]
fn a_device_behind_its_control_connection_is_reached_as_over_udp() {
    let mut stage = Stage::open();
    let control = ControlId(7);
    stage.bind(BOBS, at_bob());
    assert_eq!(stage.arrives(BOB, at_bob()), None, "alice is nowhere yet");
    stage.bind_over_control(ALICES, control);
    assert_eq!(stage.arrives(BOB, at_bob()), Some(control.address()));
    let sent = stage.over_control(packet(ALICE, b"packet"), control);
    assert_eq!(sent, Some((at_bob(), packet(BOB, b"packet").to_bytes())));
    // Both may be there.
    let other = ControlId(8);
    stage.bind_over_control(BOBS, other);
    let (to, _) = stage
        .over_control(packet(ALICE, b"packet"), control)
        .unwrap();
    assert_eq!(to, other.address());
    // UDP works for her after all.
    stage.bind(ALICES, at_alice());
    let (to, _) = stage.over_control(packet(BOB, b"packet"), other).unwrap();
    assert_eq!(to, at_alice());
    assert_eq!(stage.over_control(packet(ALICE, b"packet"), control), None);
}

#[test]
fn t49_nobody_takes_the_place_of_a_control_connection() {
    let mut stage = Stage::bound();
    let control = ControlId(7);
    stage.bind_over_control(ALICES, control);
    // A packet of a network that claims its address, and another connection.
    assert_eq!(stage.arrives(ALICE, control.address()), None);
    assert_eq!(stage.challenge(ALICES, control.address()), None);
    assert_eq!(
        stage.over_control(packet(ALICE, b"packet"), ControlId(8)),
        None
    );
    assert!(
        stage
            .over_control(packet(ALICE, b"packet"), control)
            .is_some()
    );
}

#[test]
fn t49_what_comes_over_control_connections_is_paid_for() {
    let mut stage = Stage::bound();
    stage.bind_over_control(ALICES, ControlId(7));
    let long = [0; RELAYED_PACKET_LEN_MAX];
    let mut bytes = 0;
    while stage
        .over_control(packet(ALICE, &long), ControlId(7))
        .is_some()
    {
        bytes += long.len();
        assert!(bytes < 10_000_000, "there is no limit");
    }
}
