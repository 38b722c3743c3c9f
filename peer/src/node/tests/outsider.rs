//! A device without a node behind it: it says on a link whatever a test wants, well-formed or not.

use common::limits::LINK_FRAME_LEN_MAX;
use common::wire::peer::{LEAF_HEADER_LEN_MAX, LeafHeader, PeerFrame, PeerHello};

use super::*;
use crate::node::transport::{LinkId, StreamDir, StreamId, Transport, TransportEvent};

/// Far from all hosts.
const ADDRESS: ([u8; 4], u16) = ([198, 51, 100, 77], 6000);

/// One link of such a device.
pub(super) struct Outsider {
    transport: Transport,
    address: SocketAddr,
    link: LinkId,
    stream: Option<StreamId>,
    frames: FrameBuffer<LINK_FRAME_LEN_MAX>,
    /// The other side's greeting.
    pub(super) greeting: Option<PeerHello>,
    /// What it said afterwards.
    pub(super) heard: Vec<PeerFrame>,
    /// Why the link ended.
    pub(super) lost: Option<String>,
}

impl Outsider {
    /// A device with that seed of a key, known to the server as `account`'s, dials a host and greets it
    /// with those versions.
    pub(super) fn dial(
        world: &mut World,
        seed: u8,
        account: &str,
        host: usize,
        versions: &[u16],
    ) -> Self {
        let secret = DeviceSecret::from_seed([seed; 32]);
        world
            .guests
            .push((secret.public(), account.parse().unwrap()));
        let mut transport = Transport::new([seed; 32], secret);
        let to = &world.hosts[host];
        let link = transport.dial(to.key, to.address, world.now).unwrap();
        let mut outsider = Self {
            transport,
            address: ADDRESS.into(),
            link,
            stream: None,
            frames: FrameBuffer::new(),
            greeting: None,
            heard: Vec::new(),
            lost: None,
        };
        for _ in 0..200 {
            outsider.exchange(world);
            if outsider.lost.is_some() {
                return outsider;
            }
            if outsider.stream.is_some() {
                let hello = PeerHello {
                    versions: versions.to_vec(),
                    agent: "test".to_owned(),
                };
                outsider.write(&hello);
                outsider.pass(world, Duration::from_millis(200));
                return outsider;
            }
        }
        panic!("no link");
    }

    /// Says something on the message stream, and lets it arrive.
    pub(super) fn say(&mut self, world: &mut World, frame: &PeerFrame) {
        self.write(frame);
        self.pass(world, Duration::from_millis(100));
    }

    /// Sends a leaf on a stream of its own; `false` if there is no room for one.
    pub(super) fn send_leaf(
        &mut self,
        world: &mut World,
        header: &LeafHeader,
        bytes: &[u8],
    ) -> bool {
        let Some(stream) = self.transport.open_leaf(self.link) else {
            return false;
        };
        let mut leaf = Vec::new();
        frame::encode::<LEAF_HEADER_LEN_MAX>(header, &mut leaf).unwrap();
        leaf.extend_from_slice(bytes);
        self.transport.write(self.link, stream, leaf.into(), true);
        self.pass(world, Duration::from_millis(100));
        true
    }

    pub(super) fn pass(&mut self, world: &mut World, span: Duration) {
        let end = world.now + span;
        while world.now < end {
            self.exchange(world);
        }
    }

    fn write(&mut self, frame: &impl serde::Serialize) {
        let mut bytes = Vec::new();
        frame::encode::<LINK_FRAME_LEN_MAX>(frame, &mut bytes).unwrap();
        let stream = self.stream.expect("the link is there");
        self.transport.write(self.link, stream, bytes.into(), false);
    }

    /// Carries what both sides have to say; a little time passes.
    fn exchange(&mut self, world: &mut World) {
        let mut buffer = Vec::new();
        while let Some(transmit) =
            self.transport
                .poll_transmit(world.now, &mut buffer, &mut |_, _| true)
        {
            world.bring(self.address, transmit, &buffer);
            buffer.clear();
        }
        world.step();
        for (source, bytes) in world.take_strays(self.address) {
            let datagrams = Datagrams {
                source,
                local: None,
                ecn: None,
                stride: bytes.len(),
                bytes,
            };
            self.transport.handle_datagrams(datagrams, world.now);
        }
        self.transport.handle_timeout(world.now);
        while let Some(event) = self.transport.poll_event() {
            match event {
                TransportEvent::Connected { link, .. } => {
                    self.stream = self.transport.open_bi(link)
                }
                TransportEvent::Lost { reason, .. } => self.lost = Some(reason),
                TransportEvent::Readable { stream, .. } => self.read(stream),
                TransportEvent::Opened { link, dir } => {
                    assert_eq!(
                        dir,
                        StreamDir::Uni,
                        "only the client opens a message stream"
                    );
                    self.transport.accept(link, dir);
                }
                TransportEvent::Finished { .. } | TransportEvent::Writable { .. } => {}
            }
        }
    }

    fn read(&mut self, stream: StreamId) {
        let frames = &mut self.frames;
        self.transport.read(self.link, stream, &mut |bytes| {
            frames.push(&bytes);
            true
        });
        if self.greeting.is_none() {
            self.greeting = self.frames.next_frame().unwrap();
        }
        while let Some(frame) = self.frames.next_frame().unwrap() {
            self.heard.push(frame);
        }
    }
}
