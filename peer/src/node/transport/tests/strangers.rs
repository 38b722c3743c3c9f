//! Tests of what an unvalidated address can make an endpoint store or send.

use noq_proto::crypto::ServerConfig as _;
use noq_proto::{ConnectionId, PathId, crypto};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use rustls::client::AlwaysResolvesClientRawPublicKeys;
use rustls::sign::{CertifiedKey, Signer, SigningKey};
use rustls::{SignatureAlgorithm, SignatureScheme};

use super::hostile::{leaf, stream_frame};
use super::raw::Raw;
use super::*;
use crate::node::memory;

/// A minute of 10,000 datagrams a second would be ten times as many; each costs the key of its Initial
/// packet, and a tenth of them takes a second or two in a debug build already. The time that passes is
/// the whole minute.
const FLOOD: u32 = 60_000;
const FLOOD_PACE: Duration = Duration::from_millis(1);
/// Allowance for the allocator.
const MEMORY_SLACK: u64 = 8 << 20;
/// Smallest length of a client's first datagram (RFC 9000 section 14.1).
const INITIAL_LEN: usize = 1200;

/// Makes the first packets of connections that are never completed.
struct Strangers {
    crypto: QuicServerConfig,
    rng: StdRng,
}

impl Strangers {
    fn new() -> Self {
        let any = DeviceSecret::from_seed([3; 32]);
        Self {
            crypto: QuicServerConfig::try_from(tls::link_server_config(&any)).unwrap(),
            rng: StdRng::from_seed([14; 32]),
        }
    }

    fn source(&mut self) -> SocketAddr {
        let ip: [u8; 3] = self.rng.random();
        SocketAddr::from((
            [100, ip[0], ip[1], ip[2]],
            self.rng.random_range(1..=u16::MAX),
        ))
    }

    /// An Initial packet (RFC 9000 section 17.2.2) of `len` bytes with part of a ClientHello.
    fn initial(&mut self, len: usize) -> Vec<u8> {
        let cid: [u8; CID_LEN] = self.rng.random();
        let cids = [&[CID_LEN as u8], &cid[..]].concat().repeat(2);
        let mut packet = [&[0xc3, 0, 0, 0, 1], &cids[..], &[0]].concat();
        let rest = len - packet.len() - 2;
        packet.extend_from_slice(&(rest as u16 | 0x4000).to_be_bytes());
        let number_at = packet.len();
        packet.extend_from_slice(&[0; 4]);
        let header_len = packet.len();
        // CRYPTO at offset 0: part of a ClientHello of 2,000 bytes.
        packet.extend_from_slice(&[6, 0, 0x44, 0, 1, 0, 0x07, 0xd0, 3, 3]);
        packet.resize(len, 0);
        let crypto::Keys {
            header,
            packet: key,
        } = self
            .crypto
            .initial_keys(QUIC_V1, ConnectionId::new(&cid))
            .unwrap_or_else(|_| panic!("version 1 is known"));
        key.remote.encrypt(PathId::ZERO, 0, &mut packet, header_len);
        header.remote.encrypt(number_at, &mut packet);
        packet
    }
}

fn endpoint() -> (Transport, Instant) {
    let Pair {
        ends: [_, end],
        now,
        ..
    } = Pair::new();
    (end, now)
}

#[test]
fn t14_a_flood_of_first_packets_takes_no_memory() {
    if !memory::is_alone(
        "node::transport::tests::strangers::t14_a_flood_of_first_packets_takes_no_memory",
    ) {
        return;
    }
    let (mut end, mut now) = endpoint();
    let mut strangers = Strangers::new();
    let mut before = 0;
    let mut most_links = 0;
    for n in 0..FLOOD {
        if n == FLOOD / 4 {
            before = memory::resident();
        }
        let source = strangers.source();
        let initial = strangers.initial(INITIAL_LEN);
        end.handle_datagrams(train_from(source, INITIAL_LEN, &initial), now);
        now += FLOOD_PACE;
        end.handle_timeout(now);
        events_of(&mut end);
        sent_by(&mut end, now);
        most_links = most_links.max(end.link_count());
    }
    assert_eq!(
        most_links, RETRY_FROM,
        "above that they prove their address"
    );
    let grown = memory::resident().saturating_sub(before);
    assert!(grown < MEMORY_SLACK, "{grown} bytes");
    let left = HANDSHAKE_TIMEOUT + AUTHORISE_TIMEOUT;
    end.handle_timeout(now + left);
    events_of(&mut end);
    assert_eq!(
        (end.link_count(), end.links.len(), end.unauthorised.len()),
        (0, 0, 0)
    );
    assert_eq!(end.endpoint.open_connections(), 0);
}

#[test]
fn t13_an_unproven_address_gets_three_times_what_it_sent_at_most() {
    let (mut end, mut now) = endpoint();
    let mut strangers = Strangers::new();
    let mut caller = Transport::new([1; 32], DeviceSecret::from_seed([1; 32]));
    let mut traffic: BTreeMap<SocketAddr, (usize, usize)> = BTreeMap::new();
    let mut answered = 0;
    for n in 0..400 {
        let source = strangers.source();
        let mut datagrams = match n % 4 {
            // A complete ClientHello, whose answer goes to nobody.
            0 => {
                caller.dial(end.secret.public(), address(1), now).unwrap();
                let sent = sent_by(&mut caller, now);
                sent.into_iter().map(|(_, bytes)| bytes.to_vec()).collect()
            }
            1 => vec![strangers.initial(INITIAL_LEN)],
            // An unsupported version; a short header for an unknown link.
            2 => vec![[&[0xc0, 9, 9, 9, 9, 8][..], &[7; 1300]].concat()],
            _ => vec![vec![0x41; 30 + n]],
        };
        if n % 8 < 4 {
            datagrams.truncate(1);
        }
        for datagram in datagrams {
            traffic.entry(source).or_default().0 += datagram.len();
            end.handle_datagrams(train_from(source, datagram.len(), &datagram), now);
        }
        // Retransmissions count, too.
        for _ in 0..20 {
            now += Duration::from_millis(5);
            end.handle_timeout(now);
            events_of(&mut end);
            for (destination, bytes) in sent_by(&mut end, now) {
                answered += 1;
                traffic.entry(destination).or_default().1 += bytes.len();
            }
        }
    }
    assert!(answered > 200, "{answered}");
    for (source, (received, sent)) in traffic {
        assert!(sent <= 3 * received, "{source}: {sent} for {received}");
    }
}

#[test]
fn t19_every_kind_of_packet_at_every_length_is_survived() {
    let mut pair = Pair::new();
    let (client, server) = pair.connect();
    pair.ends[1].authorise(server, pair.now);
    pair.run();
    let real = pair.last[0].clone();
    let mut rng = StdRng::from_seed([19; 32]);
    // Initial, 0-RTT, Handshake, Retry, version negotiation, a short header, and no QUIC at all.
    let kinds = [0xc0, 0xd0, 0xe0, 0xf0, 0x80, 0x40, 0x00];
    for kind in kinds {
        for len in 0..=1500usize {
            let mut datagram = vec![0; len];
            rng.fill(&mut datagram[..]);
            let version = if kind == 0x80 { 0u32 } else { QUIC_V1 };
            let head = match kind {
                0x40 => [&[kind | 3], &real[1..=CID_LEN]].concat(),
                _ => {
                    let cid = [&[CID_LEN as u8], &real[1..=CID_LEN]].concat().repeat(2);
                    [&[kind | 3], &version.to_be_bytes()[..], &cid, &[0]].concat()
                }
            };
            let known = head.len().min(len);
            datagram[..known].copy_from_slice(&head[..known]);
            pair.ends[1].handle_datagrams(train_from(address(0), len, &datagram), pair.now);
            events_of(&mut pair.ends[1]);
            sent_by(&mut pair.ends[1], pair.now);
        }
    }
    assert_eq!(
        pair.ends[1].link_count(),
        1,
        "the link of before, and no other"
    );
    let stream = pair.ends[0].open_leaf(client, LeafRank::of(1)).unwrap();
    pair.ends[0].write(client, stream, Bytes::from_static(b"still here"), true);
    pair.run();
    let end = pair.ends[1].read(server, stream, &mut |_| true);
    assert_eq!(end, ReadEnd::Finished);
}

#[test]
fn t21_an_inbound_link_that_dawdles_is_gone_in_time() {
    let (mut end, mut now) = endpoint();
    let mut strangers = Strangers::new();
    // One stops in the middle of its ClientHello; one completes the handshake and keeps sending.
    let initial = strangers.initial(INITIAL_LEN);
    let source = strangers.source();
    end.handle_datagrams(train_from(source, INITIAL_LEN, &initial), now);
    let caller = DeviceSecret::from_seed([1; 32]);
    let (mut raw, _) = Raw::dial(&mut end, &caller, address(0), &mut now);
    assert_eq!(end.link_count(), 2);
    let until = now + HANDSHAKE_TIMEOUT + AUTHORISE_TIMEOUT;
    let mut most = 2;
    while now < until {
        assert!(end.link_count() <= most, "a link came back");
        most = end.link_count();
        now += Duration::from_millis(100);
        let ping = raw.packet(&[1; 4]);
        end.handle_datagrams(raw.train(INITIAL_LEN, &[ping]), now);
        end.handle_timeout(now);
        events_of(&mut end);
        sent_by(&mut end, now);
        // The shell is woken in time.
        let due = end.poll_timeout();
        assert!(end.link_count() == 0 || due.is_some_and(|due| due <= until));
    }
    assert_eq!(end.link_count(), 0);
}

#[test]
fn t32_a_link_of_another_protocol_is_refused() {
    let caller = DeviceSecret::from_seed([1; 32]);
    for (protocols, is_let_in) in [
        (&[common::wire::peer::ALPN][..], true),
        (&[b"rdv-peer/1", common::wire::peer::ALPN], true),
        (&[b"rdv-peer/1"], false),
        (&[b"h3"], false),
        (&[], false),
    ] {
        let (mut end, mut now) = endpoint();
        let mut client = tls::link_client_config(&caller, end.secret.public());
        client.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
        let link = Raw::try_dial_with(&mut end, client, &caller, address(0), &mut now);
        assert_eq!(link.is_some(), is_let_in, "{protocols:?}");
        // A moment later nothing is left of the links that were not authorised.
        now += LINK_IDLE_TIMEOUT;
        end.handle_timeout(now);
        events_of(&mut end);
        assert_eq!(end.link_count(), 0);
    }
}

/// Forges signatures for the neutral point without a secret: `[S]B = R + [h]A` holds with the neutral
/// point as `R` and 0 as `S`.
#[derive(Debug)]
struct Nobody;

impl SigningKey for Nobody {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        let is_offered = offered.contains(&SignatureScheme::ED25519);
        is_offered.then(|| Box::new(Self) as Box<dyn Signer>)
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        SignatureAlgorithm::ED25519
    }
}

impl Signer for Nobody {
    fn sign(&self, _message: &[u8]) -> Result<Vec<u8>, rustls::Error> {
        let mut signature = vec![0; 64];
        signature[0] = 1;
        Ok(signature)
    }

    fn scheme(&self) -> SignatureScheme {
        SignatureScheme::ED25519
    }
}

#[test]
fn t31_a_link_whose_key_anybody_can_sign_for_is_refused() {
    // The neutral point, with the sign of x flipped, and with y above the prime.
    let mut points = [[0; 32], [0; 32], [0xff; 32]];
    points[0][0] = 1;
    points[1][0] = 1;
    points[1][31] = 0x80;
    points[2][0] = 0xee;
    points[2][31] = 0x7f;
    let caller = DeviceSecret::from_seed([1; 32]);
    for point in points {
        let (mut end, mut now) = endpoint();
        let mut spki = caller.public().to_spki();
        spki[12..].copy_from_slice(&point);
        let key = CertifiedKey::new(vec![spki.to_vec().into()], Arc::new(Nobody));
        let mut client = tls::link_client_config(&caller, end.secret.public());
        client.client_auth_cert_resolver =
            Arc::new(AlwaysResolvesClientRawPublicKeys::new(Arc::new(key)));
        let link = Raw::try_dial_with(&mut end, client, &caller, address(0), &mut now);
        assert!(link.is_none(), "{point:?} is let in");
    }
}

#[test]
fn t28_one_source_opens_so_many_links_and_no_more() {
    let (mut end, mut now) = endpoint();
    let mut callers = Vec::new();
    for n in 0..UNAUTHORISED_LINKS_MAX {
        let caller = DeviceSecret::from_seed([n as u8; 32]);
        callers.push(Raw::dial(&mut end, &caller, address(0), &mut now));
    }
    assert_eq!(end.link_count(), UNAUTHORISED_LINKS_MAX);
    let late = DeviceSecret::from_seed([99; 32]);
    assert!(Raw::try_dial(&mut end, &late, address(0), &mut now).is_none());
    assert_eq!(end.link_count(), UNAUTHORISED_LINKS_MAX);
    // One that is authorised makes room.
    end.authorise(callers[0].1, now);
    assert!(Raw::try_dial(&mut end, &late, address(0), &mut now).is_some());
}

#[test]
fn t28_a_link_opens_so_many_streams_and_no_more() {
    let first_leaf_beyond = leaf(LEAF_STREAMS_MAX.into());
    for (is_authorised, number, is_allowed) in [
        (false, 0, true),
        (false, 4, false),
        (false, leaf(0), false),
        (true, 0, true),
        (true, 4, false),
        (true, first_leaf_beyond - 4, true),
        (true, first_leaf_beyond, false),
    ] {
        let (mut end, mut now) = endpoint();
        let caller = DeviceSecret::from_seed([1; 32]);
        let (mut raw, link) = Raw::dial(&mut end, &caller, address(0), &mut now);
        if is_authorised {
            end.authorise(link, now);
        }
        let packet = raw.packet(&stream_frame(number, 0, &[7]));
        end.handle_datagrams(raw.train(INITIAL_LEN, &[packet]), now);
        events_of(&mut end);
        let stays = end.link_count() == 1;
        assert_eq!(stays, is_allowed, "stream {number}, {is_authorised}");
    }
}
