//! A device that completes an ordinary handshake, keeps a copy of the keys and then seals its own packets,
//! so that a test can send any frames.

use std::any::Any;
use std::sync::Mutex;

use noq_proto::crypto::{
    self, CryptoError, ExportKeyingMaterialError, HeaderKey, KeyPair, Keys, PacketKey, Session,
};
use noq_proto::transport_parameters::TransportParameters;
use noq_proto::{ConnectError, ConnectionId, PathId, TransportError};

use super::*;

/// First packet number of the test, far above those of the handshake.
const FIRST_PACKET: u64 = 1000;
/// A short header (RFC 9000 section 17.3.1) with a packet number of four bytes.
const SHORT_HEADER: u8 = 0x43;
const PACKET_NUMBER_LEN: usize = 4;

/// A link whose other end is the test.
pub(super) struct Raw {
    keys: Arc<Mutex<Vec<Kept>>>,
    /// The connection id that the other end chose.
    cid: [u8; CID_LEN],
    next_packet: u64,
    source: SocketAddr,
}

impl Raw {
    /// Dials `end` as the device `secret` at `source`. Also returns `end`'s id of the link. Time passes
    /// meanwhile.
    pub(super) fn dial(
        end: &mut Transport,
        secret: &DeviceSecret,
        source: SocketAddr,
        now: &mut Instant,
    ) -> (Self, LinkId) {
        Self::try_dial(end, secret, source, now).expect("the handshake comes to its end")
    }

    /// Dials like [`Self::dial`]; `None` if the link is refused.
    pub(super) fn try_dial(
        end: &mut Transport,
        secret: &DeviceSecret,
        source: SocketAddr,
        now: &mut Instant,
    ) -> Option<(Self, LinkId)> {
        let client = tls::link_client_config(secret, end.secret.public());
        Self::try_dial_with(end, client, secret, source, now)
    }

    /// Dials with a TLS configuration of the test's choice.
    pub(super) fn try_dial_with(
        end: &mut Transport,
        client: rustls::ClientConfig,
        secret: &DeviceSecret,
        source: SocketAddr,
        now: &mut Instant,
    ) -> Option<(Self, LinkId)> {
        let mut endpoint = new_endpoint([77; 32], 0, secret, server_config(secret));
        let keys = Arc::default();
        let config = Listening {
            inner: QuicClientConfig::try_from(client).unwrap(),
            keys: Arc::clone(&keys),
        };
        let config = ClientConfig::new(Arc::new(config));
        let remote = mapped(address(1));
        let (handle, mut connection) = endpoint.connect(*now, config, remote, SERVER_NAME).unwrap();
        let mut cid = [0; CID_LEN];
        let mut connected = None;
        let mut buffer = Vec::new();
        for _ in 0..20 {
            connection.handle_timeout(*now);
            while let Some(transmit) = {
                buffer.clear();
                connection.poll_transmit(*now, train_datagrams(1200), &mut buffer)
            } {
                let stride = transmit.segment_size.unwrap_or(transmit.size);
                let sent = &buffer[..transmit.size];
                if sent[0] & 0x80 == 0 {
                    cid.copy_from_slice(&sent[1..=CID_LEN]);
                }
                end.handle_datagrams(train_from(source, stride, sent), *now);
            }
            while let Some(event) = connection.poll_endpoint_events() {
                if let Some(event) = endpoint.handle_event(handle, event) {
                    connection.handle_event(event);
                }
            }
            for event in events_of(end) {
                if let TransportEvent::Connected { link, .. } = event {
                    connected = Some(link);
                }
            }
            if let Some(link) = connected
                && cid != [0; CID_LEN]
            {
                let raw = Self {
                    keys,
                    cid,
                    next_packet: FIRST_PACKET,
                    source,
                };
                return Some((raw, link));
            }
            for (_, datagram) in sent_by(end, *now) {
                let path = FourTuple::new(remote, None);
                let mut answer = Vec::new();
                let event = endpoint.handle(*now, path, None, datagram, &mut answer);
                if let Some(DatagramEvent::ConnectionEvent(_, event)) = event {
                    connection.handle_event(event);
                }
            }
            // Longer than the pacer waits before the first measured round trip.
            *now += Duration::from_millis(25);
        }
        None
    }

    /// A packet with these frames (RFC 9000 section 19), sealed with the link's keys.
    pub(super) fn packet(&mut self, frames: &[u8]) -> Vec<u8> {
        let number = self.next_packet;
        self.next_packet += 1;
        let mut packet = vec![SHORT_HEADER];
        packet.extend_from_slice(&self.cid);
        let number_at = packet.len();
        packet.extend_from_slice(&(number as u32).to_be_bytes());
        let header_len = number_at + PACKET_NUMBER_LEN;
        packet.extend_from_slice(frames);
        let keys = self.keys.lock().unwrap();
        // The first keys are those of Handshake packets, the second those of 1-RTT packets.
        let Kept {
            header,
            packet: key,
        } = &keys[1];
        packet.resize(packet.len() + key.tag_len(), 0);
        key.encrypt(PathId::ZERO, number, &mut packet, header_len);
        header.encrypt(number_at, &mut packet);
        packet
    }

    /// A train of such packets, all of one length but the last.
    pub(super) fn train(&self, stride: usize, packets: &[Vec<u8>]) -> Datagrams {
        train_from(self.source, stride, &packets.concat())
    }
}

/// The keys for sending.
struct Kept {
    header: Arc<dyn HeaderKey>,
    packet: Arc<dyn PacketKey>,
}

/// A crypto configuration whose sessions copy their keys for the test.
struct Listening {
    inner: QuicClientConfig,
    keys: Arc<Mutex<Vec<Kept>>>,
}

impl crypto::ClientConfig for Listening {
    fn start_session(
        &self,
        version: u32,
        server_name: &str,
        params: &TransportParameters,
    ) -> Result<Box<dyn Session>, ConnectError> {
        Ok(Box::new(ListeningSession {
            inner: self.inner.start_session(version, server_name, params)?,
            keys: Arc::clone(&self.keys),
        }))
    }
}

struct ListeningSession {
    inner: Box<dyn Session>,
    keys: Arc<Mutex<Vec<Kept>>>,
}

impl Session for ListeningSession {
    fn initial_keys(&self, dst_cid: ConnectionId, side: noq_proto::Side) -> Keys {
        self.inner.initial_keys(dst_cid, side)
    }

    fn handshake_data(&self) -> Option<Box<dyn Any>> {
        self.inner.handshake_data()
    }

    fn peer_identity(&self) -> Option<Box<dyn Any>> {
        self.inner.peer_identity()
    }

    fn early_crypto(&self) -> Option<(Box<dyn HeaderKey>, Box<dyn PacketKey>)> {
        self.inner.early_crypto()
    }

    fn early_data_accepted(&self) -> Option<bool> {
        self.inner.early_data_accepted()
    }

    fn is_handshaking(&self) -> bool {
        self.inner.is_handshaking()
    }

    fn read_handshake(&mut self, buf: &[u8]) -> Result<bool, TransportError> {
        self.inner.read_handshake(buf)
    }

    fn transport_parameters(&self) -> Result<Option<TransportParameters>, TransportError> {
        self.inner.transport_parameters()
    }

    fn write_handshake(&mut self, buf: &mut Vec<u8>) -> Option<Keys> {
        let Keys { header, packet } = self.inner.write_handshake(buf)?;
        let own = Kept {
            header: header.local.into(),
            packet: packet.local.into(),
        };
        let shared = Keys {
            header: KeyPair {
                local: Box::new(SharedHeaderKey(Arc::clone(&own.header))),
                remote: header.remote,
            },
            packet: KeyPair {
                local: Box::new(SharedPacketKey(Arc::clone(&own.packet))),
                remote: packet.remote,
            },
        };
        self.keys.lock().unwrap().push(own);
        Some(shared)
    }

    fn next_1rtt_keys(&mut self) -> Option<KeyPair<Box<dyn PacketKey>>> {
        self.inner.next_1rtt_keys()
    }

    fn is_valid_retry(&self, orig_dst_cid: ConnectionId, header: &[u8], payload: &[u8]) -> bool {
        self.inner.is_valid_retry(orig_dst_cid, header, payload)
    }

    fn export_keying_material(
        &self,
        output: &mut [u8],
        label: &[u8],
        context: &[u8],
    ) -> Result<(), ExportKeyingMaterialError> {
        self.inner.export_keying_material(output, label, context)
    }
}

struct SharedPacketKey(Arc<dyn PacketKey>);

impl PacketKey for SharedPacketKey {
    fn encrypt(&self, path_id: PathId, packet: u64, buf: &mut [u8], header_len: usize) {
        self.0.encrypt(path_id, packet, buf, header_len);
    }

    fn decrypt(
        &self,
        path_id: PathId,
        packet: u64,
        header: &[u8],
        payload: &mut BytesMut,
    ) -> Result<(), CryptoError> {
        self.0.decrypt(path_id, packet, header, payload)
    }

    fn tag_len(&self) -> usize {
        self.0.tag_len()
    }

    fn confidentiality_limit(&self) -> u64 {
        self.0.confidentiality_limit()
    }

    fn integrity_limit(&self) -> u64 {
        self.0.integrity_limit()
    }
}

struct SharedHeaderKey(Arc<dyn HeaderKey>);

impl HeaderKey for SharedHeaderKey {
    fn decrypt(&self, pn_offset: usize, packet: &mut [u8]) {
        self.0.decrypt(pn_offset, packet);
    }

    fn encrypt(&self, pn_offset: usize, packet: &mut [u8]) {
        self.0.encrypt(pn_offset, packet);
    }

    fn sample_size(&self) -> usize {
        self.0.sample_size()
    }
}
