//! A device without a node behind it, at an address that nobody else has: it says on a link whatever a
//! test wants, well-formed or not.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use common::key::DeviceSecret;
use common::limits::LINK_FRAME_LEN_MAX;
use common::log::ConversationId;
use common::wire::frame::{self, FrameBuffer};
use common::wire::peer::{LEAF_HEADER_LEN_MAX, LeafHeader, LogFrame, PeerFrame, PeerHello};
use peer::node::Datagrams;
use peer::node::transport::{
    CloseReason, LeafRank, LinkId, Side, StreamDir, StreamId, Transport, TransportEvent,
};
use serde::Serialize;

use super::identity;
use super::world::World;

/// How often the world and the device take turns.
const TURN: Duration = Duration::from_millis(5);
/// Turns that a handshake may take.
const HANDSHAKE_TURNS_MAX: u32 = 200;

// What it says of conversations.
mod speaking;

/// One link of such a device.
#[derive(Debug)]
pub struct Outsider {
    transport: Transport,
    address: SocketAddr,
    /// The newest.
    link: Option<LinkId>,
    stream: Option<StreamId>,
    frames: FrameBuffer<LINK_FRAME_LEN_MAX>,
    /// The other side's greeting.
    pub greeting: Option<PeerHello>,
    /// What it said afterwards of files.
    pub heard: Vec<PeerFrame>,
    /// And of conversations.
    logs: Vec<LogFrame>,
    /// The conversation that it has with the other side, of which it has nothing.
    pub conversation: Option<ConversationId>,
    /// Why the link ended.
    pub lost: Option<String>,
}

impl Outsider {
    /// The device with this secret dials a host from `address`, and greets it with these versions.
    ///
    /// # Panics
    /// If there is neither a link nor a reason why.
    pub fn dial(
        world: &mut World,
        secret: [u8; 32],
        address: SocketAddr,
        host: usize,
        versions: &[u16],
    ) -> Self {
        Self::knock(world, secret, address, host, versions).expect("no link")
    }

    /// The same where perhaps nobody answers.
    pub fn knock(
        world: &mut World,
        secret: [u8; 32],
        address: SocketAddr,
        host: usize,
        versions: &[u16],
    ) -> Option<Self> {
        let mut outsider = Self::listen(world, secret, address);
        let own = world.hosts.iter().position(|host| host.secret == secret);
        outsider.conversation = own.map(|own| identity::conversation(world, [own, host]));
        let to = &world.hosts[host];
        let key = DeviceSecret::from_seed(to.secret).public();
        let (transport, now) = (&mut outsider.transport, world.now);
        outsider.link = transport.dial(key, to.addresses[0], now);
        for _ in 0..HANDSHAKE_TURNS_MAX {
            outsider.exchange(world);
            if outsider.lost.is_some() {
                return Some(outsider);
            }
            if outsider.stream.is_some() {
                outsider.write(&PeerHello {
                    versions: versions.to_vec(),
                    agent: "test".to_owned(),
                });
                outsider.pass(world, Duration::from_millis(200));
                return Some(outsider);
            }
        }
        None
    }

    /// The device with this secret waits at `address`, and takes every link and every word.
    pub fn listen(world: &mut World, secret: [u8; 32], address: SocketAddr) -> Self {
        world.net.has_strays = true;
        Self {
            transport: Transport::new(secret, DeviceSecret::from_seed(secret)),
            address,
            link: None,
            stream: None,
            frames: FrameBuffer::new(),
            greeting: None,
            heard: Vec::new(),
            logs: Vec::new(),
            conversation: None,
            lost: None,
        }
    }

    /// Says something on the message stream, and lets it arrive.
    pub fn say(&mut self, world: &mut World, frame: &PeerFrame) {
        self.write(frame);
        self.pass(world, Duration::from_millis(200));
    }

    /// Sends a leaf on a stream of its own, and lets it arrive.
    pub fn send_leaf(&mut self, world: &mut World, header: &LeafHeader, bytes: &[u8]) {
        let stream = self.transport.open_leaf(self.link(), LeafRank::of(1));
        let stream = stream.expect("there is room for a stream");
        let mut leaf = Vec::new();
        frame::encode::<LEAF_HEADER_LEN_MAX>(header, &mut leaf).expect("a header fits its bound");
        leaf.extend_from_slice(bytes);
        self.transport.write(self.link(), stream, leaf.into(), true);
        self.pass(world, Duration::from_secs(1));
    }

    /// Closes the link.
    pub fn close(&mut self, world: &mut World) {
        self.transport
            .close(self.link(), CloseReason::Done, world.now);
        self.exchange(world);
    }

    /// Lets time pass in the world and here.
    pub fn pass(&mut self, world: &mut World, span: Duration) {
        let end = world.now + span;
        while world.now < end {
            self.exchange(world);
        }
    }

    fn link(&self) -> LinkId {
        self.link.expect("there is a link")
    }

    fn write(&mut self, frame: &impl Serialize) {
        let mut bytes = Vec::new();
        frame::encode::<LINK_FRAME_LEN_MAX>(frame, &mut bytes).expect("a frame fits its bound");
        let stream = self.stream.expect("the link is there");
        self.transport
            .write(self.link(), stream, bytes.into(), false);
    }

    /// Carries what both sides have to say, while one turn passes.
    fn exchange(&mut self, world: &mut World) {
        let mut buffer = Vec::new();
        while let Some(transmit) =
            self.transport
                .poll_transmit(world.now, &mut buffer, &mut |_, _| true)
        {
            let stride = transmit.segment_size.unwrap_or(transmit.size);
            for datagram in buffer[..transmit.size].chunks(stride) {
                world.send_stray(self.address, transmit.destination, datagram);
            }
            buffer.clear();
        }
        world.pass(TURN);
        for stray in world.take_strays(self.address) {
            let datagrams = Datagrams {
                source: stray.source,
                local: None,
                ecn: None,
                stride: stray.bytes.len(),
                bytes: BytesMut::from(stray.bytes.as_slice()),
            };
            self.transport.handle_datagrams(datagrams, world.now);
        }
        self.transport.handle_timeout(world.now);
        while let Some(event) = self.transport.poll_event() {
            self.on_event(event, world.now);
        }
    }

    fn on_event(&mut self, event: TransportEvent, now: Instant) {
        match event {
            TransportEvent::Connected { link, side, .. } => {
                self.link = Some(link);
                self.transport.authorise(link, now);
                if side == Side::Client {
                    self.stream = self.transport.open_bi(link);
                }
            }
            TransportEvent::Lost { reason, .. } => self.lost = Some(reason.to_string()),
            TransportEvent::Readable { stream, .. } => self.read(stream),
            TransportEvent::Opened { link, dir } => {
                let stream = self.transport.accept(link, dir);
                if dir == StreamDir::Bi {
                    assert!(self.stream.is_none(), "only the client opens one");
                    self.stream = stream;
                    self.write(&PeerHello::ours("test"));
                }
            }
            TransportEvent::Finished { .. }
            | TransportEvent::Writable { .. }
            | TransportEvent::Silent { .. }
            | TransportEvent::Path { .. } => {}
        }
    }

    fn read(&mut self, stream: StreamId) {
        let (link, frames) = (self.link(), &mut self.frames);
        self.transport.read(link, stream, &mut |bytes| {
            frames.push(&bytes);
            true
        });
        if self.greeting.is_none() {
            self.greeting = self.frames.next_frame().expect("a node says what it must");
        }
        while let Some(frame) = self.frames.next_frame().expect("a node says what it must") {
            match frame {
                PeerFrame::Log(frame) => {
                    self.answer(&frame);
                    self.logs.push(frame);
                }
                PeerFrame::File(_) => self.heard.push(frame),
            }
        }
    }
}
